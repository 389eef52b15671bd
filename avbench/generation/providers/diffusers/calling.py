"""Builds the arguments of a pipeline's call, which each pipeline names differently, and reads its output.

Sizes and frame counts are rounded up to what the model can make before the call, because pipelines round down, some
without a message. Frames come as ``[1, time, height, width, 3]`` floats in 0…1 (Cosmos 3: without the batch); sound as
``[1, channels, samples]``, ``[1, samples]`` or ``[channels, samples]``. A part of the pipeline holds its sample rate.
"""

import importlib.util
import inspect
import math
from collections.abc import Container, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from avbench.core import Clip, InputError
from avbench.generation.model_output import array_of, audio_of, pixels_of

NAMES: dict[str, tuple[str, ...]] = {
    "width": ("width",),
    "height": ("height",),
    "frames": ("num_frames", "video_length", "frames"),
    "fps": ("frame_rate", "fps"),
    "steps": ("num_inference_steps",),
    "guidance": ("guidance_scale",),
    "guidance_2": ("guidance_scale_2",),
    "negative_prompt": ("negative_prompt",),
}
"""Setting → the names that pipelines give it."""
_FRAMES = {"CogVideoX": (1, 8), "ConsisID": (1, 8), "Helios": (33, 33)}
"""Start of a class name → least number and step of its frames, where they do not follow from the VAE's factor.

CogVideoX's VAE, which ConsisID has too, makes another number of frames from an even number of latents. Helios makes
windows of 33 frames."""
_FIXED_LENGTHS: dict[str, str | int] = {"Latte": "video_length", "AnyFlowFAR": "chunk_partition", "ChronoEdit": 5}
"""Start of a class name → field of its transformer's config that fixes the number of frames: the number itself, or the
latents of each chunk. ChronoEdit, which edits an image, makes five frames."""
_TEMPORAL = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor")
_SPATIAL = ("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_spatial_scale_factor", "vae_scale_factor")
"""Names that pipelines give the factors of their VAE."""
_SIZE_STEPS = {"LTX": 32, "Sana": 32, "HeliosPyramid": 64}
"""Start of a class name → step of width and height, where it is more than 16 and does not follow from the VAE's factor
and the patches."""


def argument(pipeline: type, setting: str) -> str | None:
    """A pipeline's name for a setting, or for an argument with a name of its own; None if it has no such argument."""
    parameters = inspect.signature(pipeline.__call__).parameters
    return next((name for name in NAMES.get(setting, (setting,)) if name in parameters), None)


def default(pipeline: type, setting: str) -> Any:
    """A pipeline's own default for a setting, or None."""
    name = argument(pipeline, setting)
    value = inspect.signature(pipeline.__call__).parameters[name].default if name else None
    return None if value is inspect.Parameter.empty else value


def chosen(pipeline: type, parts: Container[str]) -> dict[str, Any]:
    """Arguments that avbench chooses where the class has them.

    Sound is asked for if the checkpoint can make it. Clips are kept as they are made, not resized afterwards. Captions
    are cleaned only if the packages for it are installed: the class itself would leave it out without a record.
    """
    cleaners = all(importlib.util.find_spec(name) is not None for name in ("bs4", "ftfy"))
    choices = {"enable_sound": "sound_tokenizer" in parts, "use_resolution_binning": False}
    if default(pipeline, "clean_caption"):
        choices["clean_caption"] = cleaners
    return {name: value for name, value in choices.items() if argument(pipeline, name)}


def grid(pipe: Any, setting: str) -> tuple[int, int]:
    """The least value and the step of ``frames``, ``width`` or ``height`` that the model can make."""
    vae: Any = getattr(pipe, "vae", None)
    if type(vae).__name__ == "AutoencoderKLAllegro":  # what its tiles do not cover would stay black
        axis = ("frames", "height", "width").index(setting)
        return int(vae.kernel[axis]), int(vae.stride[axis])
    if setting == "frames":
        step = _first(pipe, _TEMPORAL) or 1
        return _of_class(pipe, _FRAMES) or (1, step)
    config = getattr(getattr(pipe, "transformer", None), "config", {})
    patch = config.get("patch_size", 1)
    factor = (_first(pipe, _SPATIAL) or 8) * int(patch[-1] if isinstance(patch, tuple | list) else patch or 1)
    if config.get("attention_type") == "nabla":  # it attends to blocks of 8x8 patches
        factor *= 8
    step = math.lcm(_of_class(pipe, _SIZE_STEPS) or 16, factor)
    return step, step


def snapped(pipe: Any, setting: str, value: int) -> int:
    """The smallest number of ``frames``, ``width`` or ``height``, at least `value`, that the model can make.

    It is the model's only length, also for a greater `value`, if it has just one.
    """
    least, step = grid(pipe, setting)
    if setting == "frames" and (field := _of_class(pipe, _FIXED_LENGTHS)):
        length = field if isinstance(field, int) else pipe.transformer.config[field]
        return int(length) if isinstance(length, int) else (sum(length) - 1) * step + 1
    return least + max(0, -(-(value - least) // step)) * step


def clip_of(output: Any, pipe: Any, fps: Fraction) -> Clip:
    """Read a pipeline's output. Raises UnusableError if it holds NaN, or values outside its range."""
    named = dict(output) if isinstance(output, Mapping) else vars(output)
    frames = array_of(next(named[name] for name in ("frames", "video", "videos") if named.get(name) is not None))
    pixels = pixels_of(frames[0] if frames.ndim == 5 else frames)
    sound = next((named[name] for name in ("audio", "sound") if named.get(name) is not None), None)
    if sound is None:
        return Clip(pixels, fps)
    wave = array_of(sound)
    wave = wave[0] if wave.ndim == 3 else np.atleast_2d(wave)
    audio, remarks = audio_of(wave, _sample_rate(output, pipe))
    return Clip(pixels, fps, audio, remarks)


def _sample_rate(output: Any, pipe: Any) -> int:
    """The sample rate in Hz. In LTX-2 the vocoder has it; the audio VAE's rate is that of the spectrogram."""
    if rate := getattr(output, "sampling_rate", None):
        return int(rate)
    for part, field in (
        ("vocoder", "output_sampling_rate"),
        ("sound_tokenizer", "sampling_rate"),
        ("audio_vae", "sample_rate"),
    ):
        config = getattr(getattr(pipe, part, None), "config", None)
        if config is not None and config.get(field):
            return int(config[field])
    msg = f"{type(pipe).__name__} made sound, but no part of it gives the sample rate"
    raise InputError(msg)


def _of_class(pipe: Any, table: Mapping[str, Any]) -> Any:
    """The entry of a table by starts of class names; None if it has none."""
    return next((value for start, value in table.items() if type(pipe).__name__.startswith(start)), None)


def _first(pipe: Any, names: tuple[str, ...]) -> int | None:
    return next((int(value) for name in names if isinstance(value := getattr(pipe, name, None), int)), None)
