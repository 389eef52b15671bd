"""Computes the features of FVD: 400 logits of Inception I3D, a network that classifies the actions of Kinetics.

The weights are those of the reference implementation of FVD. Everything else that decides an FVD differs from code to
code. This module holds avbench's own protocol (docs/fvd.md gives the reasons), conventions.py holds those of other
codes, and user_weights.py reads the weights files of other codes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from avbench.core import Clip, Notes, Protocol, noted
from avbench.features.limits import require_frames
from avbench.features.networks import exact
from avbench.storage.reading.pickles import read_arrays
from avbench.storage.weights import WEIGHTS, locate

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class I3DProtocol(Protocol):
    """The settings that decide a clip's logits, besides the clip."""

    name: str = "i3d-k400"
    version: int = 1
    frames: int = 16
    frame_choice: str = "first"
    fps: str = "native"
    size: int = 224
    resize: str = "bilinear"
    aspect: str = "stretched"
    antialias: bool = True
    resized_as: str = "float32, unscaled"
    value_range: str = "-1...1"
    output: str = "400 logits"
    weights: str = "i3d-k400"
    weights_sha256: str = WEIGHTS["i3d-k400"].sha256
    precision: str = "float32"
    notes: Notes = noted(
        resized_as="Frames are resized as float32 in 0...255, and then scaled to the value range.",
        output="The logits of the 400 classes, before the softmax.",
    )


class I3DLogits:
    """The feature ``i3d-k400``: one row of 400 logits for each clip.

    The constructor raises InputError if the weights are missing or are not those of this network.
    """

    protocol = I3DProtocol()
    on_gpu = True
    in_bfloat16 = True
    streams = True

    def __init__(self, device: str = "cpu", precision: str = "float32") -> None:
        import torch

        self.protocol = replace(self.protocol, precision=precision)
        self._device, self._dtype = torch.device(device), getattr(torch, precision)
        self._network = self._load()

    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """``logits`` of the clip's first frames. Raises NotMeasurable if it has too few."""
        asked = self.protocol.frames
        require_frames(clip.frames, asked, "I3D takes")
        return {"logits": self.logits(clip.frames, asked)}

    @exact()
    def logits(self, frames: np.ndarray, count: int | None = None) -> np.ndarray:
        """Logits [400] float32 of the first `count`, or all, of 9 or more ``[time, height, width, 3]`` uint8 frames."""
        from avbench.features.video.i3d.resize import resized

        size, antialias = self.protocol.size, self.protocol.antialias
        return self.seen(resized(frames, count or len(frames), size, antialias=antialias, device=self._device))

    @exact()
    def seen(self, x: "torch.Tensor") -> np.ndarray:
        """Logits [400] float32 of the network's input: ``[time, 3, 224, 224]``, by convention in -1...1."""
        import torch

        from avbench.features.video.i3d.network import MIN_FRAMES, as_clip

        require_frames(x, MIN_FRAMES, "I3D needs")
        x = as_clip(x.to(self._device, self._dtype)).contiguous(memory_format=torch.channels_last_3d)
        return self._network(x)[0].float().cpu().numpy()

    def _load(self) -> Callable[["torch.Tensor"], "torch.Tensor"]:
        from avbench.features.video.i3d.network import Inception, TensorFlowCheckpoint

        checkpoint = TensorFlowCheckpoint(read_arrays(locate(self.protocol.weights)))
        return Inception(checkpoint, self._device, self._dtype)
