"""Lists the published sampling settings of models, found by the pipeline's class and config.

A class has one preset, and its checkpoints may be distilled to a few steps without guidance, for which the steps and
the guidance of the full model are wrong. So a checkpoint that calls itself distilled gets neither.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avbench.storage.reading import read_json, read_text


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
    "AnyFlow": 16,
    "ChronoEdit": 16,
    "CogVideoX": 8,
    "ConsisID": 8,
    "Cosmos2_5": 16,
    "EasyAnimate": 8,
    "Helios": 24,
    "HunyuanVideo": 24,
    "HunyuanVideoFramepack": 30,
    "Kandinsky5": 24,
    "Latte": 8,
    "LucyEdit": 24,
    "Mochi": 30,
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


_DISTILLED = re.compile(
    r"distill|lightning|turbo|few-?steps?\b|(?<![a-z0-9.])[1-8]-?steps?\b|causvid|self-forcing|lightx2v|fastwan|\b(?:dmd2?|lcm)\b"
)
"""Words in the name or the card of a checkpoint that was distilled to a few steps."""
_FEW_STEP_SCHEDULERS = ("LCM", "TCD", "DMD")
_OF_FULL_MODEL = ("steps", "guidance", "guidance_2", "flow_shift", "negative_prompt")
"""Fields of a preset that are wrong for a distilled checkpoint."""


def distilled(folder: Path, index: Mapping[str, Any], others: Iterable[Path] = ()) -> str | None:
    """Where a checkpoint says that it is distilled, in words; None if it does not.

    Args:
        folder: the pipeline's folder, or its snapshot in the hub's cache.
        index: its ``model_index.json``.
        others: files and folders that are put into it: a part, LoRAs.
    """
    for where, words in _called(folder, index, others):
        if found := _DISTILLED.search(re.sub(r"[\s_]+", "-", words.lower())):
            return f"{where} has the word {found[0]!r}"
    config = folder / "scheduler" / "scheduler_config.json"
    name = str(read_json(config).get("_class_name", "")) if config.is_file() else ""
    return f"its scheduler is {name}" if any(one in name for one in _FEW_STEP_SCHEDULERS) else None


def _called(folder: Path, index: Mapping[str, Any], others: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """What a checkpoint is called, and where."""
    for path in (folder, *others):
        hub = [part for part in path.parts if part.startswith("models--")]
        yield f"the name {path.name if not hub else hub[-1].removeprefix('models--')}", hub[-1] if hub else path.name
    yield "its model_index.json", str(index.get("_name_or_path", ""))
    if (folder / "README.md").is_file():
        card = read_text(folder / "README.md")
        heading = re.search(r"^# .+$", card, re.MULTILINE)
        head = card.partition("---")[2].partition("\n---")[0] if card.startswith("---") else ""
        # the text below them may speak of other checkpoints
        yield "its card", f"{head} {heading[0] if heading else ''}"


def of_family(preset: Mapping[str, Any]) -> dict[str, Any]:
    """What a class's preset says of a distilled checkpoint: size, length, rate and precision."""
    return {name: None if name in _OF_FULL_MODEL else value for name, value in preset.items()}
