"""Lists the published sampling settings of models, found by the pipeline's class and config."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """The published settings of one model; None leaves a setting to the pipeline."""

    source: str
    """Where the values were published."""
    width: int
    height: int
    frames: int
    fps: float
    steps: int
    guidance: float
    guidance_2: float | None = None
    """Guidance of the second transformer, which is for low noise."""
    flow_shift: float | None = None
    negative_prompt: str | None = None
    vae_dtype: str | None = None
    """Data type of the VAE, if it needs a higher precision than the rest."""


_WAN_NEGATIVE = (
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall "
    "gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, "
    "poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three "
    "legs, many people in the background, walking backwards"
)
_LTX_NEGATIVE = "worst quality, inconsistent motion, blurry, jittery, distorted"
_WAN21 = "Wan2.1 generate.py; negative prompt and VAE precision of diffusers' example"
_WAN22 = "Wan2.2 wan/configs; negative prompt and VAE precision of diffusers' example"
_EXAMPLE = "the pipeline's example and defaults in diffusers 0.42"
_WAN: dict[str, Any] = {"negative_prompt": _WAN_NEGATIVE, "vae_dtype": "float32"}

PRESETS: dict[str, Preset] = {
    "wan2.1-480p": Preset(_WAN21, 832, 480, 81, 16, 50, 5.0, flow_shift=3.0, **_WAN),
    "wan2.1-720p": Preset(_WAN21, 1280, 720, 81, 16, 50, 5.0, flow_shift=5.0, **_WAN),
    "wan2.1-i2v-480p": Preset(_WAN21, 832, 480, 81, 16, 40, 5.0, flow_shift=3.0, **_WAN),
    "wan2.2-a14b": Preset(_WAN22, 1280, 720, 81, 16, 40, 4.0, 3.0, flow_shift=12.0, **_WAN),
    "wan2.2-i2v-a14b": Preset(_WAN22, 1280, 720, 81, 16, 40, 3.5, 3.5, flow_shift=5.0, **_WAN),
    "wan2.2-5b": Preset(_WAN22, 1280, 704, 121, 24, 50, 5.0, flow_shift=5.0, **_WAN),
    "ltx-video": Preset(_EXAMPLE, 704, 480, 161, 25, 50, 3.0, negative_prompt=_LTX_NEGATIVE),
    "ltx-2": Preset(_EXAMPLE, 768, 512, 121, 24, 30, 3.0, negative_prompt=_LTX_NEGATIVE),
    "cogvideox": Preset(_EXAMPLE, 720, 480, 49, 8, 50, 6.0),
}
"""Name, for ``-M preset=``, → settings."""

_BY_CLASS = {
    "WanPipeline": "wan2.1-480p",
    "WanImageToVideoPipeline": "wan2.1-i2v-480p",
    "LTXPipeline": "ltx-video",
    "LTXImageToVideoPipeline": "ltx-video",
    "LTX2Pipeline": "ltx-2",
    "LTX2ImageToVideoPipeline": "ltx-2",
    "CogVideoXPipeline": "cogvideox",
    "CogVideoXImageToVideoPipeline": "cogvideox",
}

NATIVE_FPS: dict[str, float] = {
    "Allegro": 15,
    "AnimateDiff": 8,
    "CogVideoX": 8,
    "EasyAnimate": 8,
    "Helios": 24,
    "HunyuanVideo": 24,
    "Kandinsky5": 24,
    "MotifVideo": 24,
    "SanaVideo": 16,
    "SanaImageToVideo": 16,
    "SkyReelsV2": 24,
    "Wan": 16,
}
"""Start of a pipeline's class name → the frame rate of its model's training, for classes without such an argument."""


def preset_name(class_name: str, index: Mapping[str, Any]) -> str | None:
    """The preset of a pipeline, from its class and ``model_index.json``; None if it has no preset.

    Wan 2.1, Wan 2.2 A14B and Wan 2.2 5B share one class: the second has two transformers, the third expanded timesteps.
    """
    if class_name.startswith("Wan") and index.get("expand_timesteps"):
        return "wan2.2-5b"
    name = _BY_CLASS.get(class_name)
    if name and class_name.startswith("Wan") and (index.get("transformer_2") or [None])[0]:
        return "wan2.2-a14b" if class_name == "WanPipeline" else "wan2.2-i2v-a14b"
    return name


def native_fps(class_name: str, index: Mapping[str, Any]) -> float | None:
    """The rate in NATIVE_FPS, or that of Wan 2.2 5B, which its index reveals; None if it is unknown."""
    if class_name.startswith("Wan") and index.get("expand_timesteps"):
        return 24
    starts = [start for start in NATIVE_FPS if class_name.startswith(start)]
    return NATIVE_FPS[max(starts, key=len)] if starts else None
