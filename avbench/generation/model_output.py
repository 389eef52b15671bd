"""Turns what a model's library returns into frames and sound; what does not lie in the range of either is refused.

Frames are 8-bit or real numbers in 0…1, a waveform holds real numbers in −1…1. A model without a last clamp overshoots:
frames by up to 0.05 are clipped, and a waveform with a peak of up to 2, as a sound file would clip it, with a remark.
"""

from typing import Any

import numpy as np

from avbench.core import Audio, InputError, UnusableError, WrongFormError

_OVERSHOOT = 0.05
_LOUDEST_CLIPPED = 2


def array_of(values: Any) -> np.ndarray:
    """The array of an array, a tensor, or a list of arrays, tensors or pictures of one size."""
    if isinstance(values, list | tuple):
        return np.stack([array_of(one) for one in values])
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        return (values.float() if values.is_floating_point() else values).numpy()  # numpy has no bfloat16
    return np.asarray(values)


def pixels_of(frames: np.ndarray) -> np.ndarray:
    """Frames as uint8, of uint8 or of real numbers in 0…1.

    Raises:
        WrongFormError: they are of another type, or lie outside 0…1 by more than 0.05.
        UnusableError: they hold NaN.
    """
    if frames.dtype == np.uint8:
        return frames
    must = "they must be uint8, or real numbers in 0...1"
    if frames.dtype.kind != "f":
        msg = f"the model's frames are {frames.dtype}; {must}: convert numbers in 0...255 with .astype(np.uint8)"
        raise WrongFormError(msg)
    frames = _finite(frames, "frames")
    low, high = float(frames.min(initial=0)), float(frames.max(initial=0))
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT:
        how = "of -1...1, take (x + 1) / 2" if high <= 1 + _OVERSHOOT else "divide pictures in 0...255 by 255"
        msg = f"the model's frames lie in {low:.4g}...{high:.4g}; {must}: {how}"
        raise WrongFormError(msg)
    return np.clip(np.round(frames * 255), 0, 255).astype(np.uint8)


def audio_of(wave: np.ndarray, rate: int) -> tuple[Audio, tuple[str, ...]]:
    """The sound of a waveform ``[channels, samples]``, and remarks: that it was clipped, where its peak is above 1.

    Raises:
        WrongFormError: it holds integers, or has a peak above 2 or another shape.
        UnusableError: it holds NaN.
    """
    remarks = ()
    if wave.dtype.kind == "f":
        wave = _finite(wave, "sound")
        peak = float(np.abs(wave).max(initial=0))
        if 1 < peak <= _LOUDEST_CLIPPED:
            wave = np.clip(wave, -1, 1)
            remarks = (f"the model's sound peaks at {peak:.4g} and was clipped to -1...1",)
    try:
        return Audio(np.ascontiguousarray(wave), rate), remarks
    except InputError as error:
        msg = f"the model's sound: {error}"
        raise WrongFormError(msg) from None


def _finite(values: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values, np.float32)
    if bad := np.count_nonzero(~np.isfinite(values)):
        msg = f"the model's {what} hold {bad} values of {values.size} that are NaN or infinite"
        raise UnusableError(msg)
    return values
