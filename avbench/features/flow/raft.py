"""Flow by RAFT (Teed and Deng, 2020), the published choice, in the place of DIS.

The weights are torchvision's ``C_T_V1``, a port of the authors' raft-things (FlyingChairs and FlyingThings3D); they
have to be brought. 20 iterations, as VBench and EvalCrafter take; torchvision's own usual number is 12. Tested on
random weights only: no number of the real ones was checked.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from torchvision.models.optical_flow import raft_large

from avbench.core import InputError, first_line
from avbench.features.flow import DISFlow
from avbench.features.flow.protocol import FlowProtocol
from avbench.pickles import read_state_dict
from avbench.weights import BroughtProtocol, locate


@dataclass(frozen=True)
class RAFTProtocol(FlowProtocol):
    """What decides the flow numbers where RAFT finds the flow."""

    name: str = "flow-raft"
    version: int = 1
    algorithm: str = "torchvision raft_large (Teed and Deng, 2020), RGB in -1...1, padded to multiples of 8 by the edge"
    iterations: int = 20
    weights: str = "raft-large-c-t-v1"
    weights_sha256: str = ""
    precision: str = "float32"


class RAFTFlow(DISFlow):
    """The feature ``flow-raft``: the same values, with flow by RAFT.

    Raises InputError when built where its weights are missing or do not fit.
    """

    protocol = BroughtProtocol(RAFTProtocol())

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        path = locate(RAFTProtocol.weights)
        state = {name: torch.from_numpy(array) for name, array in read_state_dict(path).items()}
        self._network = raft_large()
        try:
            self._network.load_state_dict(state)
        except RuntimeError as error:
            msg = f"{path} does not fit torchvision's raft_large: {first_line(error)}"
            raise InputError(msg) from None
        self._network.eval().requires_grad_(False).to(self._device)

    @torch.inference_mode()
    def flow(self, frame: np.ndarray, following: np.ndarray) -> np.ndarray:
        """From one working frame, ``[height, width, 3]`` uint8, to another."""
        height, width, _ = frame.shape
        beyond = (0, -width % 8, 0, -height % 8)
        one, two = (
            functional.pad(
                torch.from_numpy(rgb.copy()).to(self._device).permute(2, 0, 1)[None].float() / 127.5 - 1,
                beyond,
                "replicate",
            )
            for rgb in (frame, following)
        )
        found = self._network(one, two, num_flow_updates=self.protocol.iterations)[-1][0]
        return np.ascontiguousarray(found.permute(1, 2, 0)[:height, :width].cpu().numpy())
