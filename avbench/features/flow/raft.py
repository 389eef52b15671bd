"""Finds flow by RAFT (Teed and Deng, 2020), the published choice, in the place of DIS.

The weights are torchvision's ``C_T_V1``, a port of the authors' raft-things (FlyingChairs and FlyingThings3D); the user
provides them. 20 iterations, as VBench and EvalCrafter take; torchvision's own usual number is 12. Tested on random
weights only: no number of the real ones was checked.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from torchvision.models.optical_flow import raft_large

from avbench.core import Notes, noted
from avbench.features.flow import DISFlow
from avbench.features.flow.protocol import FlowProtocol
from avbench.features.networks import filled
from avbench.storage.pickles import read_state_dict
from avbench.storage.weights import UserProvidedProtocol, locate

MULTIPLE = 8
"""Of pixels: what RAFT wants either side to be."""


@dataclass(frozen=True)
class RAFTProtocol(FlowProtocol):
    """What decides the flow numbers where RAFT finds the flow."""

    name: str = "flow-raft"
    version: int = 1
    algorithm: str = "raft-large"
    padding: str = "replicate"
    iterations: int = 20
    weights: str = "raft-large-c-t-v1"
    weights_sha256: str = ""
    precision: str = "float32"
    notes: Notes = noted(
        **FlowProtocol().notes
        | {
            "algorithm": "torchvision's raft_large (Teed and Deng, 2020) on RGB in -1...1.",
            "padding": "Sides are padded to multiples of 8 by repeating the edge.",
        }
    )


class RAFTFlow(DISFlow):
    """The feature ``flow-raft``: the same values, with flow by RAFT.

    Raises InputError when built where its weights are missing or do not fit.
    """

    protocol = UserProvidedProtocol(RAFTProtocol())

    def __init__(self, device: str = "cpu") -> None:
        self._raft = RAFT(RAFTProtocol.weights, device)

    def flow(self, frame: np.ndarray, following: np.ndarray) -> np.ndarray:
        """From one working frame, ``[height, width, 3]`` uint8, to another."""
        height, width, _ = frame.shape
        left, _, top, _ = border(height, width)
        found = self._raft(frame, following, self.protocol.iterations)
        return np.ascontiguousarray(found[top : top + height, left : left + width])


class RAFT:
    """The network with a brought weight. Raises InputError where that is missing, or naming a tensor that is wrong."""

    def __init__(self, weight: str, device: str = "cpu") -> None:
        self._device = torch.device(device)
        path = locate(weight)
        self._network = filled(raft_large(), read_state_dict(path), f"{path}, as torchvision's raft_large,")
        self._network.to(self._device)

    @torch.inference_mode()
    def __call__(self, frame: np.ndarray, following: np.ndarray, iterations: int) -> np.ndarray:
        """Flow of the padded frame, ``[height, width, 2]`` float32 pixels, between two frames of uint8 RGB."""
        x = torch.from_numpy(np.stack((frame, following))).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = functional.pad(x, border(*frame.shape[:2]), mode="replicate")
        found = self._network(x[:1], x[1:], num_flow_updates=iterations)[-1][0]
        return found.permute(1, 2, 0).cpu().numpy()


def border(height: int, width: int) -> tuple[int, int, int, int]:
    """Pixels to repeat at the left, right, top and bottom, so that either side is a multiple of 8."""
    more, wider = -height % MULTIPLE, -width % MULTIPLE
    return wider // 2, wider - wider // 2, more // 2, more - more // 2
