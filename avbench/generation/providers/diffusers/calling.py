"""Builds the arguments of a pipeline's call, which each pipeline names differently, and reads its output.

Sizes and frame counts are rounded up to what the model can make before the call, because pipelines round down, some
without a message. Frames come as ``[1, time, height, width, 3]`` floats in 0…1 (Cosmos 3: without the batch); sound as
``[1, channels, samples]``, ``[1, samples]`` or ``[channels, samples]``. A part of the pipeline holds its sample rate.
"""

import inspect
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from avbench.core import Audio, Clip, InputError, UnusableError

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
_FRAME_STEPS = {"CogVideoX": 8, "ConsisID": 8}
"""Start of a class name → step; frame counts are a multiple of it plus one. It overrides the VAE's factor, because
CogVideoX's VAE, which ConsisID has too, makes another number of frames from an even number of latents."""
_TEMPORAL = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor")
_SPATIAL = ("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_spatial_scale_factor", "vae_scale_factor")
"""Names that pipelines give the factors of their VAE."""
_SIZE_STEPS = {"LTX": 32}


def argument(pipeline: type, setting: str) -> str | None:
    """A pipeline's name for a setting, or None if it has no such argument."""
    parameters = inspect.signature(pipeline.__call__).parameters
    return next((name for name in NAMES[setting] if name in parameters), None)


def default(pipeline: type, setting: str) -> Any:
    """A pipeline's own default for a setting, or None."""
    name = argument(pipeline, setting)
    value = inspect.signature(pipeline.__call__).parameters[name].default if name else None
    return None if value is inspect.Parameter.empty else value


def frame_step(pipe: Any) -> int:
    """The step of frame counts: the model makes k·step + 1 frames; 1 if it makes any number."""
    own = next((step for start, step in _FRAME_STEPS.items() if type(pipe).__name__.startswith(start)), None)
    return own or _first(pipe, _TEMPORAL) or 1


def size_step(pipe: Any) -> int:
    """The number that width and height must be multiples of."""
    own = next((step for start, step in _SIZE_STEPS.items() if type(pipe).__name__.startswith(start)), 16)
    vae = _first(pipe, _SPATIAL) or 8
    config = getattr(getattr(pipe, "transformer", None), "config", {})
    patch = config.get("patch_size", 1)
    return math.lcm(own, vae * int(patch[-1] if isinstance(patch, tuple | list) else patch or 1))


def snapped_frames(pipe: Any, frames: int) -> int:
    """The smallest number of frames, at least `frames`, that the model makes."""
    step = frame_step(pipe)
    return -(-(frames - 1) // step) * step + 1


def snapped_size(pipe: Any, size: int) -> int:
    """The smallest size, at least `size`, that the model makes."""
    step = size_step(pipe)
    return -(-size // step) * step


def clip_of(output: Any, pipe: Any, fps: Fraction) -> Clip:
    """Read a pipeline's output. Raises UnusableError if it holds NaN."""
    named = dict(output) if isinstance(output, Mapping) else vars(output)
    frames = _array(
        next(named[name] for name in ("frames", "video", "videos") if named.get(name) is not None), "frames"
    )
    frames = frames[0] if frames.ndim == 5 else frames
    pixels = np.clip(np.round(frames * 255), 0, 255).astype(np.uint8)
    sound = next(((name, named[name]) for name in ("audio", "sound") if named.get(name) is not None), None)
    return Clip(pixels, fps, None if sound is None else _audio(*sound, rate=_sample_rate(output, pipe)))


def _audio(name: str, sound: Any, rate: int) -> Audio:
    wave = _array(sound, "sound")
    if wave.ndim == 3:
        wave = wave[0]
    elif wave.ndim == 1 or name == "audio":  # a batch of one mono waveform
        wave = wave.reshape(1, -1)
    return Audio(np.ascontiguousarray(np.clip(wave, -1, 1)), rate)


def _array(values: Any, what: str) -> np.ndarray:
    array = np.asarray(values.float().cpu().numpy() if hasattr(values, "cpu") else values, dtype=np.float32)
    if bad := np.count_nonzero(~np.isfinite(array)):
        msg = f"the model's {what} hold {bad} values of {array.size} that are NaN or infinite"
        raise UnusableError(msg)
    return array


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


def _first(pipe: Any, names: tuple[str, ...]) -> int | None:
    return next((int(value) for name in names if isinstance(value := getattr(pipe, name, None), int)), None)
