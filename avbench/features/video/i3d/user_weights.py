"""Runs I3D with the weights files of other codes, if the user provides them (see storage/weights).

Neither file was available here: the readers were tested on random weights of the same layout, and no number was checked
against a published one.
"""

from collections.abc import Callable
from dataclasses import replace

import torch

from avbench.features.networks import read_as
from avbench.features.video.i3d.conventions import CDFVD, StyleGANV
from avbench.features.video.i3d.network import Inception, PyTorchCheckpoint
from avbench.storage.reading.pickles import read_state_dict
from avbench.storage.weights import UserProvidedProtocol, locate


class TorchScript(StyleGANV):
    """StyleGAN-V's protocol with its own file, a TorchScript program: torch's interpreter runs the code in the file."""

    protocol = UserProvidedProtocol(
        replace(StyleGANV.protocol, name="i3d-torchscript", weights="i3d-torchscript", weights_sha256="")
    )
    in_bfloat16 = False

    def _load(self) -> Callable[[torch.Tensor], torch.Tensor]:
        path = locate("i3d-torchscript")
        with read_as("TorchScript program", path):
            program = torch.jit.load(path, map_location=self._device).eval()

        def network(x: torch.Tensor) -> torch.Tensor:
            with torch.jit.fuser("none"):  # pyright: ignore[reportPrivateImportUsage]  # torch documents it
                # As FastVideo found, the program drops the batch axis of a single clip.
                return program(x, rescale=False, resize=False, return_features=True).reshape(1, -1)

        return network


class Pretrained400(CDFVD):
    """cd-fvd's protocol with its own file, a state dict with pytorch-i3d's names."""

    protocol = UserProvidedProtocol(
        replace(CDFVD.protocol, name="i3d-pretrained-400", weights="i3d-pretrained-400", weights_sha256="")
    )

    def _load(self) -> Callable[[torch.Tensor], torch.Tensor]:
        checkpoint = PyTorchCheckpoint(read_state_dict(locate("i3d-pretrained-400")))
        return Inception(checkpoint, self._device, self._dtype)
