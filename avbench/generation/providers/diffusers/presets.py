"""Lists the published sampling settings of models, found by the pipeline's class and config.

A class has one preset for its full models. Its checkpoints may be distilled to a few steps without guidance, for which
those values are wrong. So a checkpoint that says that it is distilled, in its configs, name or card, gets neither: its
card decides, where it states them, and else the user.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avbench.generation.identity import placed
from avbench.storage.reading import read_json, read_text


@dataclass(frozen=True)
class Preset:
    """The published settings of one model; None leaves a setting to the pipeline, or to the checkpoint's config."""

    source: str
    """Where the values were published."""
    width: int | None
    height: int | None
    frames: int
    fps: float
    steps: int | None
    guidance: float | None
    guidance_2: float | None = None
    """Guidance of the second transformer, which is for low noise."""
    flow_shift: float | None = None
    negative_prompt: str | None = None
    vae_dtype: str | None = None
    """Data type of the VAE, if it needs a higher precision than the rest."""
    call: Mapping[str, Any] | None = None
    """Further arguments of the pipeline."""
    few_steps: bool = False
    """Whether it is for a distilled model."""


_WAN_NEGATIVE = (
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall "
    "gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, "
    "poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three "
    "legs, many people in the background, walking backwards"
)
_SANA_NEGATIVE = (
    "A chaotic sequence with misshapen, deformed limbs in heavy motion blur, sudden disappearance, jump cuts, jerky "
    "movements, rapid shot changes, frames out of sync, inconsistent character shapes, temporal artifacts, jitter, and "
    "ghosting effects, creating a disorienting visual experience."
)
_LTX_NEGATIVE = "worst quality, inconsistent motion, blurry, jittery, distorted"
_WAN21 = "Wan2.1 generate.py; flow shift, negative prompt and VAE precision of diffusers' example"
_WAN22 = "Wan2.2 wan/configs; negative prompt and VAE precision of diffusers' example"
_EXAMPLE = "the pipeline's example and defaults in diffusers 0.42"
_DEFAULTS = "the pipeline's defaults in diffusers 0.42; its example is of a distilled model"
_GUIDE = "the model's page in the documentation of diffusers 0.42"
_HUNYUAN = "HunyuanVideo sample_video.py; flow shift of its released scheduler"
_HUNYUAN15 = "diffusers' conversion of HunyuanVideo-1.5; size, flow shift and guidance are in the checkpoint's configs"
_LIGHT = "the card of lightx2v"
_WAN: dict[str, Any] = {"negative_prompt": _WAN_NEGATIVE, "vae_dtype": "float32"}
_LTX: dict[str, Any] = {"negative_prompt": _LTX_NEGATIVE}
_PRECISE: dict[str, Any] = {"vae_dtype": "float32"}
_LTX2_SIGMAS = [1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875]
_LTX2_UNGUIDED = {
    "stg_scale": 0.0, "modality_scale": 1.0,
    "audio_guidance_scale": 1.0, "audio_stg_scale": 0.0, "audio_modality_scale": 1.0,
}  # fmt: skip
"""Without them, LTX-2 is guided by three more scales, whose defaults are for the full model."""


def _helios(steps: int, **other: Any) -> dict[str, Any]:
    """The call of Helios on a pyramid of three sizes, with so many steps on each."""
    return {"pyramid_num_inference_steps_list": [steps] * 3, **other}


PRESETS: dict[str, Preset] = {
    "wan2.1-480p": Preset(_WAN21, 832, 480, 81, 16, 50, 5.0, flow_shift=3.0, **_WAN),
    "wan2.1-720p": Preset(_WAN21, 1280, 720, 81, 16, 50, 5.0, flow_shift=5.0, **_WAN),
    "wan2.1-i2v-480p": Preset(_WAN21, 832, 480, 81, 16, 40, 5.0, flow_shift=3.0, **_WAN),
    "wan2.1-vace": Preset(_EXAMPLE, 832, 480, 81, 16, 30, 5.0, flow_shift=3.0, **_WAN),
    "wan2.1-lightx2v": Preset(
        _LIGHT, 832, 480, 81, 16, 4, 1.0, flow_shift=5.0, few_steps=True, **_PRECISE,
    ),
    "wan2.2-a14b": Preset(_WAN22, 1280, 720, 81, 16, 40, 4.0, 3.0, flow_shift=12.0, **_WAN),
    "wan2.2-i2v-a14b": Preset(_WAN22, 1280, 720, 81, 16, 40, 3.5, 3.5, flow_shift=5.0, **_WAN),
    "wan2.2-5b": Preset(_WAN22, 1280, 704, 121, 24, 50, 5.0, flow_shift=5.0, **_WAN),
    "wan2.2-lightning": Preset(
        _LIGHT, 832, 480, 81, 16, 4, 1.0, 1.0, flow_shift=5.0, few_steps=True, **_PRECISE,
    ),
    "ltx-video": Preset(_EXAMPLE, 704, 480, 161, 25, 50, 3.0, **_LTX),
    "ltx-video-condition": Preset(_EXAMPLE, 768, 512, 161, 25, 40, 3.0, **_LTX),
    "ltx-2": Preset(_EXAMPLE, 768, 512, 121, 24, 30, 3.0, **_LTX),
    "ltx-2-distilled": Preset(
        _GUIDE, 768, 512, 121, 24, 8, 1.0, call={"sigmas": _LTX2_SIGMAS, **_LTX2_UNGUIDED}, few_steps=True,
    ),
    "cogvideox": Preset(_EXAMPLE, 720, 480, 49, 8, 50, 6.0),
    "cogvideox1.5": Preset("the card of CogVideoX1.5-5B", 1360, 768, 81, 16, 50, 6.0),
    "mochi": Preset(_GUIDE, 848, 480, 163, 30, 64, 4.5),
    "latte": Preset(_EXAMPLE, 512, 512, 16, 8, 50, 7.5),
    "allegro": Preset(_EXAMPLE, 1280, 720, 88, 15, 100, 7.5, **_PRECISE),
    "animatediff": Preset(_EXAMPLE, 512, 512, 16, 8, 50, 7.5),
    "easyanimate": Preset(_EXAMPLE, 512, 512, 49, 8, 50, 6.0, negative_prompt="bad detailed"),
    "chronoedit": Preset(_EXAMPLE, 832, 480, 5, 16, 50, 5.0, **_PRECISE),
    "hunyuanvideo": Preset(_HUNYUAN, 1280, 720, 129, 24, 50, 6.0, flow_shift=7.0),
    "hunyuanvideo-i2v": Preset(_EXAMPLE, 1280, 720, 129, 24, 50, 6.0),
    "hunyuanvideo1.5": Preset(_HUNYUAN15, None, None, 121, 24, 50, None),
    "framepack": Preset(f"{_EXAMPLE}, but wide instead of high", 832, 480, 91, 30, 30, 9.0),
    "kandinsky5": Preset(_EXAMPLE, 768, 512, 121, 24, 50, 5.0),
    "kandinsky5-10s": Preset(_GUIDE, 768, 512, 241, 24, 50, 5.0),
    "kandinsky5-distilled": Preset(_GUIDE, 768, 512, 121, 24, 16, 1.0, few_steps=True),
    "kandinsky6": Preset(_DEFAULTS, 768, 512, 121, 24, 50, 5.0),
    "skyreels-v2": Preset(_EXAMPLE, 960, 544, 97, 24, 50, 6.0, flow_shift=8.0, **_PRECISE),
    "skyreels-v2-df": Preset(
        f"{_EXAMPLE}, but synchronous", 960, 544, 97, 24, 30, 6.0, flow_shift=8.0, **_PRECISE,
    ),
    "skyreels-v2-i2v": Preset(_EXAMPLE, 960, 544, 97, 24, 50, 5.0, flow_shift=5.0, **_PRECISE),
    "skyreels-v2-df-i2v": Preset(
        _EXAMPLE, 960, 544, 97, 24, 50, 5.0, flow_shift=5.0, call={"addnoise_condition": 20}, **_PRECISE,
    ),
    "sana-video": Preset(
        f"{_EXAMPLE}, but without its motion score", 832, 480, 81, 16, 50, 6.0, negative_prompt=_SANA_NEGATIVE,
        **_PRECISE,
    ),
    "helios": Preset(_GUIDE, 640, 384, 99, 24, 50, 5.0, **_WAN),
    "helios-mid": Preset(
        _GUIDE, 640, 384, 99, 24, None, 5.0, call=_helios(20, use_zero_init=True, zero_steps=1), **_WAN,
    ),
    "helios-distilled": Preset(
        _GUIDE, 640, 384, 264, 24, None, 1.0, call=_helios(2, is_amplify_first_chunk=True), few_steps=True, **_PRECISE,
    ),
    "anyflow": Preset(_GUIDE, 832, 480, 81, 16, 4, 1.0, few_steps=True),
    "motif-video": Preset(_EXAMPLE, 1280, 736, 121, 24, 50, None, **_LTX),
    "cosmos1": Preset(_EXAMPLE, 1280, 704, 121, 30, 36, 7.0),
    "cosmos2": Preset(_EXAMPLE, 1280, 704, 93, 16, 35, 7.0),
    "cosmos2.5": Preset(_EXAMPLE, 1280, 704, 93, 16, 36, 7.0),
    "cosmos3": Preset(_GUIDE, 1280, 720, 189, 24, 35, 6.0, flow_shift=10.0),
}  # fmt: skip
"""Name, for ``-M preset=``, → settings."""

_BY_CLASS = {
    "Wan": "wan2.1-480p",
    "WanImageToVideo": "wan2.1-i2v-480p",
    "WanImage2Video": "wan2.1-i2v-480p",
    "Wan22": "wan2.2-a14b",
    "Wan22Image2Video": "wan2.2-i2v-a14b",
    "WanVACE": "wan2.1-vace",
    "LTX": "ltx-video",
    "LTXImageToVideo": "ltx-video",
    "LTXCondition": "ltx-video-condition",
    "LTX2": "ltx-2",
    "LTX2ImageToVideo": "ltx-2",
    "LTX2Condition": "ltx-2",
    "LTX2InContext": "ltx-2",
    "CogVideoX": "cogvideox",
    "CogVideoXImageToVideo": "cogvideox",
    "Mochi": "mochi",
    "Latte": "latte",
    "Allegro": "allegro",
    "AnimateDiff": "animatediff",
    "EasyAnimate": "easyanimate",
    "ChronoEdit": "chronoedit",
    "HunyuanVideo": "hunyuanvideo",
    "HunyuanVideoImageToVideo": "hunyuanvideo-i2v",
    "HunyuanVideo15": "hunyuanvideo1.5",
    "HunyuanVideo15ImageToVideo": "hunyuanvideo1.5",
    "HunyuanVideoFramepack": "framepack",
    "Kandinsky5T2V": "kandinsky5",
    "Kandinsky5I2V": "kandinsky5",
    "Kandinsky6TI2VA": "kandinsky6",
    "SkyReelsV2": "skyreels-v2",
    "SkyReelsV2ImageToVideo": "skyreels-v2-i2v",
    "SkyReelsV2DiffusionForcing": "skyreels-v2-df",
    "SkyReelsV2DiffusionForcingImageToVideo": "skyreels-v2-df-i2v",
    "SanaVideo": "sana-video",
    "SanaImageToVideo": "sana-video",
    "Helios": "helios",
    "HeliosPyramid": "helios-mid",
    "HeliosPyramidDistilled": "helios-distilled",
    "AnyFlow": "anyflow",
    "AnyFlowFAR": "anyflow",
    "MotifVideo": "motif-video",
    "MotifVideoImage2Video": "motif-video",
    "CosmosTextToWorld": "cosmos1",
    "CosmosVideoToWorld": "cosmos1",
    "Cosmos2VideoToWorld": "cosmos2",
    "Cosmos2_5_PredictBase": "cosmos2.5",
    "Cosmos3Omni": "cosmos3",
}
"""Class, without Pipeline or ModularPipeline at its end, → the preset of its full models, or of its only ones."""

_OF_TWO = {"wan2.1-480p": "wan2.2-a14b", "wan2.1-i2v-480p": "wan2.2-i2v-a14b"}
"""Preset of a Wan class → that of its models with two transformers."""

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


def preset_name(class_name: str, index: Mapping[str, Any], transformer: Mapping[str, Any]) -> str | None:
    """The preset of a pipeline, from its class, ``model_index.json`` and its transformer's config; None if it has none.

    Wan 2.1, Wan 2.2 A14B and Wan 2.2 5B share one class: the second has two transformers, the third expanded timesteps.
    CogVideoX 1.0 and 1.5 share one: only 1.5 has patches of several frames. The two Helios models with a pyramid share
    one as well; the index says which is distilled.
    """
    if class_name.startswith("Wan") and index.get("expand_timesteps"):
        return "wan2.2-5b"
    if _is_cogvideox15(class_name, transformer):
        return "cogvideox1.5"
    if class_name == "HeliosPyramidPipeline" and index.get("is_distilled"):
        return "helios-distilled"
    name = _BY_CLASS.get(class_name.removesuffix("Pipeline").removesuffix("Modular"))
    both = (index.get("transformer_2") or [None])[0]
    return _OF_TWO.get(name, name) if name and both else name


def native_fps(class_name: str, index: Mapping[str, Any], transformer: Mapping[str, Any]) -> float | None:
    """The rate in NATIVE_FPS, or that of Wan 2.2 5B or CogVideoX 1.5, which configs reveal; None if it is unknown."""
    if class_name.startswith("Wan") and index.get("expand_timesteps"):
        return 24
    if _is_cogvideox15(class_name, transformer):
        return 16
    starts = [start for start in NATIVE_FPS if class_name.startswith(start)]
    return NATIVE_FPS[max(starts, key=len)] if starts else None


def _is_cogvideox15(class_name: str, transformer: Mapping[str, Any]) -> bool:
    return class_name.startswith("CogVideoX") and bool(transformer.get("patch_size_t"))


_DISTILLED = re.compile(
    r"distill|lightning|turbo|few-?steps?\b|(?<![a-z0-9.])[1-8]-?steps?\b|causvid|accvid|self-forcing|lightx2v|fusioni?x"
    r"|fast(?:wan|hunyuan|mochi)|animatelcm|nocfg|\b(?:dmd2?|lcm)\b"
)
"""Words in the name or the card of a checkpoint that was distilled to a few steps, or to no guidance."""
_USUAL = re.compile(
    r"(pytorch_lora_weights|adapter_model|diffusion_pytorch_model|model)(\.[a-z]+\d\d)?(\.[a-z]+)?"
    r"|(transformer|unet)(_\d)?(_ema)?|vae|(checkpoint|step|epoch|iter)[-_]?\d+"
)
"""Names that libraries give to files and folders, which say nothing of the model."""
_FEW_STEP_SCHEDULERS = ("LCM", "TCD", "DMD")
_FLAGS = {"model_index.json": ("is_distilled",), "transformer/config.json": ("use_meanflow",)}
"""File → fields that are true in a distilled checkpoint: Helios, HunyuanVideo 1.5."""
_OF_FULL_MODEL = ("steps", "guidance", "guidance_2", "flow_shift", "negative_prompt", "call")
"""Fields of a preset that are wrong for a distilled checkpoint."""
_IN_CARDS = {"steps": r"num_inference_steps\s*=\s*(\d+)", "guidance": r"\bguidance_scale\s*=\s*(\d+(?:\.\d+)?)"}
"""Setting → how the code in a card gives it."""


def distilled(folder: Path, index: Mapping[str, Any], others: Iterable[Path] = ()) -> tuple[str, Path] | None:
    """Where a checkpoint says that it is distilled, in words, and the file or folder that says so; None if it does not.

    Args:
        folder: the pipeline's folder, or its snapshot in the hub's cache.
        index: its ``model_index.json``.
        others: files and folders that are put into it: a part, LoRAs.
    """
    for where, words, place in _called(folder, index, others):
        if found := _DISTILLED.search(re.sub(r"[\s_]+", "-", words.lower())):
            return f"{where} has the word {found[0]!r}", place
    name = str(_config(folder / "scheduler" / "scheduler_config.json").get("_class_name", ""))
    if any(one in name for one in _FEW_STEP_SCHEDULERS):
        return f"its scheduler is {name}", folder
    flags = [(file, name) for file, names in _FLAGS.items() for name in names if _config(folder / file).get(name)]
    return next(((f"its {file} says {name}", folder) for file, name in flags), None)


def stated(place: Path) -> dict[str, Any]:
    """The steps and the guidance that the code in a checkpoint's card gives; what it gives twice differently is left
    out. The card of a file lies beside it.
    """
    card = (place if place.is_dir() else place.parent) / "README.md"
    text = read_text(card) if card.is_file() else ""
    found = {setting: {*re.findall(pattern, text)} for setting, pattern in _IN_CARDS.items()}
    kinds = {"steps": int, "guidance": float}
    return {name: kinds[name](*values) for name, values in found.items() if len(values) == 1}


def few_step_presets(name: str | None) -> list[str]:
    """The presets for distilled models of a preset's family: those with the same letters and number before the rest."""
    family = re.match(r"[a-z-]+\d+(\.\d+)?", name or "")
    return [one for one, preset in PRESETS.items() if preset.few_steps and family and one.startswith(family[0])]


def part_config(folder: Path, part: str = "transformer") -> Mapping[str, Any]:
    """The config of a part of a pipeline; empty if there is none."""
    return _config(folder / part / "config.json")


def _config(path: Path) -> Mapping[str, Any]:
    plain = read_json(path) if path.is_file() else {}
    return plain if isinstance(plain, Mapping) else {}


def _called(folder: Path, index: Mapping[str, Any], others: Iterable[Path]) -> Iterator[tuple[str, str, Path]]:
    """What a checkpoint is called, where, and the file or folder that is called so."""
    for path in map(_named, (folder, *others)):
        hub = [part for part in path.parts if part.startswith("models--")]
        name = path.name if not hub else hub[-1].removeprefix("models--")
        yield f"the name {name}", hub[-1] if hub else path.name, path
    yield "its model_index.json", str(index.get("_name_or_path", "")), folder
    yield f"its class {index.get('_class_name')}", str(index.get("_class_name", "")), folder
    if (folder / "README.md").is_file():
        card = read_text(folder / "README.md")
        heading = re.search(r"^# .+$", card, re.MULTILINE)
        head = card.partition("---")[2].partition("\n---")[0] if card.startswith("---") else ""
        # the text below them may speak of other checkpoints
        yield "its card", f"{head} {heading[0] if heading else ''}", folder


def _named(path: Path) -> Path:
    """The path, or the nearest folder around it with a name of its own; `transformer` and the like are everybody's."""
    path = placed(path)
    return next((one for one in (path, *path.parents) if not _USUAL.fullmatch(one.name)), path)


def of_family(preset: Mapping[str, Any]) -> dict[str, Any]:
    """What the preset of a class's full models says of a distilled checkpoint: size, length, rate and precision."""
    return {name: None if name in _OF_FULL_MODEL else value for name, value in preset.items()}
