"""What does a network that predicts what comes next see in a clip? V-JEPA 2 features, through transformers.

JEDi (Luo et al., 2024) found that a kernel distance of V-JEPA features needs far fewer clips than FVD; this is its idea
with the V-JEPA 2 that transformers can load (Assran et al., 2025), not its numbers. The features are the mean over all
tokens of the encoder's last layer. The weights have to be brought, as a folder that transformers reads; no number of
the real ones was checked.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from avbench.core import Clip, InputError, NotMeasurable, Protocol, first_line
from avbench.storage.weights import BroughtProtocol, locate

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class VJEPA2Protocol(Protocol):
    """What decides a clip's features besides the clip."""

    name: str = "vjepa2"
    version: int = 1
    frames: int = 16
    frame_choice: str = "first"
    fps: str = "native"
    size: str = "the model's own, with the short side first brought to 8/7 of it, rounded down"
    resize: str = "bilinear"
    aspect: str = "centre crop"
    antialias: bool = True
    value_range: str = "0...1, less ImageNet's mean, over its deviation"
    output: str = "mean over tokens of the encoder's last hidden state"
    weights: str = "vjepa2"
    weights_sha256: str = ""
    precision: str = "float32"


class VJEPA2:
    """The feature ``vjepa2``. Raises InputError when built without transformers, or where the folder is no V-JEPA 2."""

    protocol = BroughtProtocol(VJEPA2Protocol())

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        folder = locate(VJEPA2Protocol.weights)
        try:
            from transformers import VJEPA2Model
        except ImportError:
            msg = "V-JEPA 2 needs transformers 4.53 or later; run `pip install 'avbench[towers]'`"
            raise InputError(msg) from None
        try:
            model, report = VJEPA2Model.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
        except Exception as error:  # of transformers, torch and safetensors: each says what it does not like
            msg = f"{folder} cannot be read as a V-JEPA 2: {first_line(error)}"
            raise InputError(msg) from None
        if missing := [name for name in report["missing_keys"] if name.startswith("encoder")]:
            msg = f"{folder} is no V-JEPA 2: its weights lack {sorted(missing)[0]}"
            raise InputError(msg)
        if over := [name for name in report["unexpected_keys"] if name.startswith("encoder")]:
            msg = f"{folder} is no V-JEPA 2: its weights hold {sorted(over)[0]}, which found no place"
            raise InputError(msg)
        self._model = model.eval().requires_grad_(False).to(self._device)

    @torch.inference_mode()
    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """``embedding`` of the clip's first 16 frames. Raises NotMeasurable where it has fewer."""
        asked = self.protocol.frames
        if len(clip.frames) < asked:
            msg = f"V-JEPA 2 looks at {asked} frames and this clip has {len(clip.frames)}"
            raise NotMeasurable(msg)
        x = torch.from_numpy(np.array(clip.frames[:asked])).to(self._device).permute(0, 3, 1, 2).float() / 255
        x = _cropped(x, self._model.config.crop_size)
        mean, deviation = (x.new_tensor(each)[:, None, None] for each in (_MEAN, _DEVIATION))
        shown = self._model(pixel_values_videos=((x - mean) / deviation)[None], skip_predictor=True)
        return {"embedding": shown.last_hidden_state[0].mean(dim=0).float().cpu().numpy()}


def _cropped(x: torch.Tensor, side: int) -> torch.Tensor:
    """``[time, 3, height, width]`` → the square in the middle of what has a short side of 8/7 of `side`.

    As transformers' VJEPA2VideoProcessor rounds lengths, but in float32, where that one rounds pixels to 8 bits.
    """
    shortest = min(x.shape[2:])
    size = [side * 8 // 7 * length // shortest for length in x.shape[2:]]
    x = functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
    top, left = ((length - side) // 2 for length in size)
    return x[:, :, top : top + side, left : left + side]
