"""Computes flow by RAFT (Teed and Deng, 2020), which most papers use, instead of DIS.

The weights are torchvision's ``C_T_V1``, a port of the authors' raft-things (trained on FlyingChairs and
FlyingThings3D); the user provides them. The network runs 20 iterations, as in VBench and EvalCrafter; torchvision's
default is 12. It was tested on random weights only: no number computed with the real weights was checked.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional
from torchvision.models.optical_flow import raft as torchvision_raft
from torchvision.models.optical_flow import raft_large
from torchvision.models.optical_flow._utils import make_coords_grid, upsample_flow

from avbench.core import Notes, noted
from avbench.features.flow import DISFlow
from avbench.features.flow.pairs import Frame
from avbench.features.flow.protocol import FlowProtocol
from avbench.features.networks import exact, filled
from avbench.storage.reading.pickles import read_state_dict
from avbench.storage.weights import UserProvidedProtocol, locate

MULTIPLE = 8
"""RAFT needs frames whose sides are multiples of this many pixels."""
_REMEMBERED = 4
"""Frames whose encoding is kept: `VBenchRAFT` compares a frame with the previous one and with one up to 3 before."""


@dataclass(frozen=True)
class RAFTProtocol(FlowProtocol):
    """The settings that decide the flow numbers when RAFT computes the flow."""

    name: str = "flow-raft"
    version: int = 2
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
        self._raft = load_raft(RAFTProtocol.weights, device)

    def flow(self, frame: Frame, following: Frame) -> np.ndarray:
        """Flow from one working frame to another."""
        height, width, _ = frame.rgb.shape
        left, _, top, _ = border(height, width)
        found = self._raft(frame.rgb, following.rgb, self.protocol.iterations)
        return np.ascontiguousarray(found[top : top + height, left : left + width])


class _Encoded(NamedTuple):
    """What the network needs of one frame, at an eighth of its size."""

    features: torch.Tensor
    """Compared with those of the other frame."""
    hidden: torch.Tensor
    context: torch.Tensor


class RAFT:
    """The network on frames. One that comes again soon, as in the next pair or the other way round, is encoded once."""

    def __init__(self, network: torchvision_raft.RAFT, device: str = "cpu") -> None:
        self._device, self._network = torch.device(device), network.to(device)
        self._recent: deque[tuple[np.ndarray, _Encoded]] = deque(maxlen=_REMEMBERED)

    @exact()
    def __call__(self, frame: np.ndarray, following: np.ndarray, iterations: int) -> np.ndarray:
        """Flow between two uint8 RGB frames: ``[height, width, 2]`` float32 in pixels of the padded frame."""
        network, start, end = self._network, self._encoded(frame), self._encoded(following)
        try:
            network.corr_block.build_pyramid(start.features, end.features)
            return self._flow(start, iterations)
        finally:  # they grow with the square of the pixels: 1.1 GB at 1280x720
            network.corr_block.corr_pyramid = []

    def _flow(self, start: _Encoded, iterations: int) -> np.ndarray:
        network = self._network
        assert network.mask_predictor is not None  # only the small network has none
        height, width = start.features.shape[2:]
        origin = make_coords_grid(1, height, width, str(self._device))
        target, hidden = origin, start.hidden
        for _ in range(iterations):
            alike = network.corr_block.index_pyramid(centroids_coords=target)
            hidden, change = network.update_block(hidden, start.context, alike, target - origin)
            target = target + change
        found = upsample_flow(flow=target - origin, up_mask=network.mask_predictor(hidden))[0]
        return found.permute(1, 2, 0).cpu().numpy()

    def _encoded(self, frame: np.ndarray) -> _Encoded:
        for known, encoded in self._recent:
            if known is frame:
                return encoded
        network = self._network
        x = torch.from_numpy(np.array(frame[None])).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = functional.pad(x, border(*frame.shape[:2]), mode="replicate")
        hidden, context = network.context_encoder(x).split(network.update_block.hidden_state_size, dim=1)
        encoded = _Encoded(network.feature_encoder(x), hidden.tanh(), context.relu())
        self._recent.append((frame, encoded))
        return encoded


def load_raft(weight: str, device: str) -> RAFT:
    """RAFT with the user's weights. Raises InputError if the file is missing or a tensor is wrong."""
    path = locate(weight)
    return RAFT(filled(raft_large(), read_state_dict(path), f"{path}, as torchvision's raft_large,"), device)


def border(height: int, width: int) -> tuple[int, int, int, int]:
    """Edge pixels to repeat at the left, right, top and bottom, so that both sides become multiples of 8."""
    more, wider = -height % MULTIPLE, -width % MULTIPLE
    return wider // 2, wider - wider // 2, more // 2, more - more // 2
