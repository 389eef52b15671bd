"""Computes flow by RAFT (Teed and Deng, 2020), which most papers use, instead of DIS.

The weights are torchvision's ``C_T_V1``, a port of the authors' raft-things (trained on FlyingChairs and
FlyingThings3D); the user provides them. The network runs 20 iterations, as in VBench and EvalCrafter; torchvision's
default is 12. It was tested on random weights only: no number computed with the real weights was checked.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from torchvision.models.optical_flow import raft_large

from avbench.core import Notes, noted
from avbench.features.flow import DISFlow
from avbench.features.flow.protocol import FlowProtocol
from avbench.features.networks import exact, filled
from avbench.storage.pickles import read_state_dict
from avbench.storage.weights import UserProvidedProtocol, locate

MULTIPLE = 8
"""RAFT needs frames whose sides are multiples of this many pixels."""


@dataclass(frozen=True)
class RAFTProtocol(FlowProtocol):
    """The settings that decide the flow numbers when RAFT computes the flow."""

    name: str = "flow-raft"
    version: int = 1
    algorithm: str = "raft-large"
    padding: str = "replicate"
    iterations: int = 20
    weights: str = "raft-large-c-t-v1"
    weights_sha256: str = ""
    precision: str = "float32"
    notes: Notes = noted(
        **{
            **FlowProtocol().notes,
            "algorithm": "torchvision's raft_large (Teed and Deng, 2020) on RGB in -1...1.",
            "padding": "Sides are padded to multiples of 8 by repeating the edge pixels.",
        }
    )


class RAFTFlow(DISFlow):
    """The feature ``flow-raft``: the values of ``flow-dis``, with flow by RAFT.

    The constructor raises InputError if the weights are missing or do not fit.
    """

    protocol = UserProvidedProtocol(RAFTProtocol())
    on_gpu = True

    def __init__(self, device: str = "cpu") -> None:
        self._raft = RAFT(RAFTProtocol.weights, device)

    def flow(self, frame: np.ndarray, following: np.ndarray) -> np.ndarray:
        """Flow from one working frame to another, both ``[height, width, 3]`` uint8."""
        height, width, _ = frame.shape
        left, _, top, _ = border(height, width)
        found = self._raft(frame, following, self.protocol.iterations)
        return np.ascontiguousarray(found[top : top + height, left : left + width])


class RAFT:
    """The network with the user's weights. Raises InputError if the file is missing or a tensor is wrong."""

    def __init__(self, weight: str, device: str = "cpu") -> None:
        self._device = torch.device(device)
        path = locate(weight)
        self._network = filled(raft_large(), read_state_dict(path), f"{path}, as torchvision's raft_large,")
        self._network.to(self._device)

    @exact()
    def __call__(self, frame: np.ndarray, following: np.ndarray, iterations: int) -> np.ndarray:
        """Flow between two uint8 RGB frames: ``[height, width, 2]`` float32 in pixels of the padded frame."""
        x = torch.from_numpy(np.stack((frame, following))).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = functional.pad(x, border(*frame.shape[:2]), mode="replicate")
        found = self._network(x[:1], x[1:], num_flow_updates=iterations)[-1][0]
        return found.permute(1, 2, 0).cpu().numpy()


def border(height: int, width: int) -> tuple[int, int, int, int]:
    """Edge pixels to repeat at the left, right, top and bottom, so that both sides become multiples of 8."""
    more, wider = -height % MULTIPLE, -width % MULTIPLE
    return wider // 2, wider - wider // 2, more // 2, more - more // 2
