"""Computes V-JEPA 2 features of a clip, through transformers; the network was trained to predict hidden parts of video.

JEDi (Luo et al., 2024) found that a kernel distance of V-JEPA features needs far fewer clips than FVD. This feature
follows that idea with the V-JEPA 2 that transformers can load (Assran et al., 2025); its numbers are not JEDi's. The
features are the mean over all tokens of the encoder's last layer. The weights are a folder that transformers
reads; no number computed with the real weights was checked.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from avbench.core import Clip, Notes, Protocol, if_missing, noted
from avbench.features.limits import require_frames
from avbench.features.networks import exact, planes, pretrained
from avbench.storage.weights import UserProvidedProtocol, locate

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class VJEPA2Protocol(Protocol):
    """The settings that decide a clip's features, besides the clip."""

    name: str = "vjepa2"
    version: int = 1
    frames: int = 16
    frame_choice: str = "first"
    fps: str = "native"
    size: str = "model's own"
    resize: str = "bilinear"
    aspect: str = "centre crop"
    antialias: bool = True
    short_side: str = "8/7 of size"
    value_range: str = "imagenet-standardised"
    output: str = "last token mean"
    weights: str = "vjepa2"
    weights_sha256: str = ""
    precision: str = "float32"
    notes: Notes = noted(
        short_side="The short side is first resized to 8/7 of the size, rounded down.",
        value_range="0...1, less ImageNet's mean, divided by its deviation.",
        output="The mean over tokens of the encoder's last hidden state.",
    )


class VJEPA2:
    """The feature ``vjepa2``. The constructor raises InputError without transformers, or if the folder does not fit."""

    protocol = UserProvidedProtocol(VJEPA2Protocol())
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        folder = locate(VJEPA2Protocol.weights)
        with if_missing("V-JEPA 2 needs transformers 4.53 or later; run `pip install 'avbench[towers]'`"):
            from transformers import VJEPA2Model
        model = pretrained(VJEPA2Model, folder, "V-JEPA 2", ["encoder"], use_safetensors=True)
        self._model = model.to(self._device)

    @exact()
    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """``embedding`` of the clip's first 16 frames. Raises NotMeasurable if it has fewer."""
        asked = self.protocol.frames
        require_frames(clip.frames, asked, "V-JEPA 2 takes")
        x = planes(clip.frames[:asked], self._device) / 255
        x = _cropped(x, self._model.config.crop_size)
        mean, deviation = (x.new_tensor(each)[:, None, None] for each in (_MEAN, _DEVIATION))
        shown = self._model(pixel_values_videos=((x - mean) / deviation)[None], skip_predictor=True)
        return {"embedding": shown.last_hidden_state[0].mean(dim=0).float().cpu().numpy()}


def _cropped(x: torch.Tensor, side: int) -> torch.Tensor:
    """``[time, 3, height, width]`` → the middle square of frames whose short side was resized to 8/7 of `side`.

    Lengths are rounded as in transformers' VJEPA2VideoProcessor. Pixels stay float32; that one rounds them to 8 bits.
    """
    shortest = min(x.shape[2:])
    size = [side * 8 // 7 * length // shortest for length in x.shape[2:]]
    x = functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
    top, left = ((length - side) // 2 for length in size)
    return x[:, :, top : top + side, left : left + side]
