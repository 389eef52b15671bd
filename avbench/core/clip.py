"""Defines `Clip`, `Audio` and `ClipSpec`: frames and sound that carry their own rates.

Conventions: frames are ``[time, height, width, 3]`` uint8 RGB; a waveform is ``[channels, samples]``
float32 in −1…1; frame k is shown from k/fps until (k+1)/fps seconds; sample 0 sounds when frame 0 is shown.
Rates are exact: fps is a `Fraction`, the sample rate an integer in Hz.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.core.errors import InputError, UnusableError, WrongFormError, require_known
from avbench.core.text import all_of, counted

Rate = Fraction | int | float | str
"""What `frame_rate` reads."""

MAX_FPS = 1000
MAX_SAMPLE_RATE = 768_000
_FROM_INTEGERS = {
    "int16": " and divide by 32768",
    "int32": " and divide by 2**31",
    "uint8": ", subtract 128 and divide by 128",
}
"""How samples of a type come to lie in -1...1, once they are floats."""
LOUDEST = 16
"""No model is so far out of -1...1: a waveform with such a peak holds integers of sound files, in floats."""
_CANCELLED = 0.01
"""Of the channels' mean power; the mean of unrelated channels keeps a half of it or, if there are six, a sixth."""
_NTSC_RATES = [Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120)]


def frame_rate(value: Rate) -> Fraction:
    """Read frames per second exactly: ``8``, ``"24000/1001"``, ``23.976``.

    A decimal within 0.005 of an NTSC rate is that rate: 23.976 and 23.98 become 24000/1001.

    Raises:
        InputError: the value is not a number, not positive, or above 1000.
    """
    value = plain_number(value)
    try:
        if isinstance(value, bool):
            raise TypeError
        # Fraction would write out every zero of a text with an exponent, such as "1e999999"
        fps = Fraction(float(value) if isinstance(value, str) and "e" in value.lower() else value)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError):
        msg = f"fps is {value!r}; it must be a positive number such as 8, 23.976 or '24000/1001'"
        raise InputError(msg) from None
    if isinstance(value, float) or (isinstance(value, str) and "/" not in value):
        fps = next((rate for rate in _NTSC_RATES if abs(rate - fps) < 0.005), fps.limit_denominator(1001))
    if not 0 < fps <= MAX_FPS:
        msg = f"fps is {value!r}; it must lie above 0 and at most {MAX_FPS}"
        raise InputError(msg)
    return fps


@dataclass(frozen=True, eq=False)
class Audio:
    """A waveform with its sample rate.

    The array is kept as a read-only view. Raises InputError on a wrong dtype, shape, range or rate.
    """

    waveform: np.ndarray
    """``[channels, samples]`` float32 in −1…1, at least one channel and one sample."""
    sample_rate: int
    """Hz."""

    def __post_init__(self) -> None:
        wave = self.waveform
        if not isinstance(wave, np.ndarray) or wave.dtype != np.float32:
            how = "convert it with .astype(np.float32)"
            if hasattr(wave, "numpy"):
                how = "convert a tensor with .detach().float().cpu().numpy()"
            elif isinstance(wave, list | tuple):
                how = "convert a list with np.array(samples, np.float32)"
            how += _FROM_INTEGERS.get(str(getattr(wave, "dtype", "")).removeprefix("torch."), "")
            msg = f"waveform is {_described(wave)}; it must be a float32 array [channels, samples] in -1...1: {how}"
            raise WrongFormError(msg)
        if wave.ndim != 2 or 0 in wave.shape:
            msg = f"waveform has shape {wave.shape}; it must be [channels, samples] with at least one of each"
            raise WrongFormError(msg)
        if wave.shape[0] > 32:
            msg = f"waveform has {wave.shape[0]} channels; the order is [channels, samples], so transpose it"
            raise WrongFormError(msg)
        peak = float(np.maximum(wave.max(), -wave.min()))  # NaN where there is one; no copy of a long waveform
        if not np.isfinite(peak):
            bad = int(np.count_nonzero(~np.isfinite(wave)))
            msg = f"waveform holds {counted(bad, 'sample')} that {'is' if bad == 1 else 'are'} NaN or infinite"
            raise UnusableError(msg)
        if peak > 1:
            how = "scale or clip the model's output"
            if peak >= LOUDEST:
                how = "divide integer samples by their full scale: by 32768 of 16 bits, by 2**31 of 32 bits"
            msg = f"waveform peaks at {peak:.4g}; samples must lie in -1...1 ({how})"
            raise WrongFormError(msg)
        rate = _as_whole(self.sample_rate)
        if not _whole(rate) or not 0 < rate <= MAX_SAMPLE_RATE:
            msg = f"sample rate is {rate!r}; it must be a whole number of Hz from 1 to {MAX_SAMPLE_RATE}"
            raise InputError(msg)
        object.__setattr__(self, "waveform", _read_only(wave))
        object.__setattr__(self, "sample_rate", rate)

    def __repr__(self) -> str:
        channels, samples = counted(self.channels, "channel"), counted(self.samples, "sample")
        return f"Audio({channels} of {samples} at {self.sample_rate} Hz, {self.seconds:g} s)"

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.waveform.shape[0]

    @property
    def samples(self) -> int:
        """Samples per channel."""
        return self.waveform.shape[1]

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples / self.sample_rate

    def mono(self) -> np.ndarray:
        """The mean of the channels, ``[samples]`` float32."""
        return self.waveform.mean(axis=0, dtype=np.float32)

    def cancels(self) -> bool:
        """Whether the channels cancel each other in their mean, as if one were inverted."""
        left, power = (float(np.square(wave, dtype=np.float64).mean()) for wave in (self.mono(), self.waveform))
        return left < _CANCELLED * power


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames with their rate and, where there is sound, an `Audio`.

    The arrays are kept as read-only views. Raises InputError on a wrong dtype, shape or rate.
    """

    frames: np.ndarray
    """``[time, height, width, 3]`` uint8 RGB, at least one frame of at least one pixel."""
    fps: Fraction
    """Frames per second, exact; numbers and strings are converted by `frame_rate`."""
    audio: Audio | None = None
    remarks: tuple[str, ...] = ()
    """What the file reader had to decide, such as a rate for a file of variable rate; one sentence each."""

    if TYPE_CHECKING:  # a rate is given in more ways than it is kept

        def __init__(
            self, frames: np.ndarray, fps: Rate, audio: Audio | None = None, remarks: tuple[str, ...] = ()
        ) -> None: ...

    def __post_init__(self) -> None:
        frames = self.frames
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
            msg = (
                f"frames are {_described(frames)}; they must be a uint8 array [time, height, width, 3]: "
                f"{_made_frames(frames)}"
            )
            raise WrongFormError(msg)
        if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            msg = f"frames have shape {frames.shape}; they must be [time, height, width, 3] and not empty"
            raise WrongFormError(msg)
        if self.audio is not None and not isinstance(self.audio, Audio):
            msg = f"audio is {_described(self.audio)}; it must be an Audio, which carries its sample rate"
            raise InputError(msg)
        object.__setattr__(self, "frames", _read_only(frames))
        object.__setattr__(self, "fps", frame_rate(self.fps))

    def __repr__(self) -> str:
        size = f"{counted(len(self.frames), 'frame')} of {self.width} × {self.height}"
        return f"Clip({size} at {self.fps} fps, {self.audio or 'no sound'})"

    @property
    def seconds(self) -> float:
        """How long the frames last, in seconds."""
        return float(len(self.frames) / self.fps)

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return self.frames.shape[1]

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return self.frames.shape[2]

    @property
    def diagonal(self) -> float:
        """The frame's diagonal in pixels."""
        return float(np.hypot(self.height, self.width))


_MOST = {"width": 32_768, "height": 32_768, "frames": 10_000_000, "channels": 32}


@dataclass(frozen=True)
class ClipSpec:
    """The form that a subset's clips must have: size, length and rates.

    Raises InputError on a size, count or rate out of range.
    """

    width: int
    height: int
    frames: int
    fps: Fraction
    sample_rate: int | None = None
    """Hz, or None where the subset has no sound."""
    channels: int = 1

    if TYPE_CHECKING:  # a rate is given in more ways than it is kept

        def __init__(
            self, width: int, height: int, frames: int, fps: Rate, sample_rate: int | None = None, channels: int = 1
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in (*_MOST, "sample_rate"):
            object.__setattr__(self, name, _as_whole(getattr(self, name)))
        for name, most in _MOST.items():
            if not _whole(getattr(self, name)) or not 1 <= getattr(self, name) <= most:
                msg = f"clip spec: {name} is {getattr(self, name)!r}; it must be a whole number from 1 to {most:,}"
                raise InputError(msg)
        rate = self.sample_rate
        if rate is not None and (not _whole(rate) or not 0 < rate <= MAX_SAMPLE_RATE):
            msg = f"clip spec: sample_rate is {rate!r}; it must be a whole number of Hz, or left out"
            raise InputError(msg)
        object.__setattr__(self, "fps", frame_rate(self.fps))

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return float(self.frames / self.fps)

    @property
    def samples(self) -> int | None:
        """Samples per channel for the length of the frames, rounded; None without sound."""
        return None if self.sample_rate is None else round(self.frames * self.sample_rate / self.fps)

    def objection(self, clip: Clip) -> str | None:
        """Describe how `clip` differs from this spec, or return None. Silent clips are allowed; longer ones are not."""
        asked = {"width": self.width, "height": self.height, "frames": self.frames, "fps": self.fps}
        found = _form(clip)
        if clip.audio is not None and self.sample_rate is not None:
            asked |= {"sample rate": self.sample_rate, "samples": self.samples, "channels": self.channels}
            found |= {"sample rate": clip.audio.sample_rate, "samples": clip.audio.samples}
            found |= {"channels": clip.audio.channels}
        return _differences(found, asked)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, with fps as text; `from_json` reads them back."""
        return {**vars(self), "fps": str(self.fps)}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "ClipSpec":
        """Build a spec from the values of `to_json`. Raises InputError on a missing or unknown field."""
        if not isinstance(plain, Mapping):
            msg = f"clip spec is {plain!r}; it must be a table of width, height, frames and fps"
            raise InputError(msg)
        known = {one.name: one.default for one in fields(cls)}
        if lacking := [name for name, default in known.items() if default is MISSING and name not in plain]:
            msg = f"clip spec: {all_of(lacking)} {'is' if len(lacking) == 1 else 'are'} missing"
            raise InputError(msg)
        for name in plain:
            require_known("field of a clip spec", name, known)
        return cls(**plain)


def form_differences(clip: Clip, asked: Mapping[str, Any]) -> str | None:
    """Describe how a clip differs from the `width`, `height`, `frames` and `fps` asked for; None if it does not.

    What was not asked for is left out, or None.
    """
    return _differences(_form(clip), {name: value for name, value in asked.items() if value is not None})


def _form(clip: Clip) -> dict[str, Any]:
    return {"width": clip.width, "height": clip.height, "frames": len(clip.frames), "fps": clip.fps}


def _differences(found: Mapping[str, Any], asked: Mapping[str, Any]) -> str | None:
    differing = [name for name in asked if found[name] != asked[name]]
    return ", ".join(f"{name} {found[name]} where {asked[name]} is asked for" for name in differing) or None


def plain_number(value: Any) -> Any:
    """The Python number of a number of numpy or torch; anything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _as_whole(value: Any) -> Any:
    """The int of a number of numpy or torch, or of a float such as 16000.0; anything else as it is."""
    plain = plain_number(value)
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _described(value: object) -> str:
    return f"{value.dtype} array" if isinstance(value, np.ndarray) else type(value).__name__


def _made_frames(given: Any) -> str:
    """How to make frames of what was given in their place."""
    if isinstance(given, list | tuple):
        return "put pictures of one size into one array by np.stack"
    kind = str(getattr(given, "dtype", ""))  # "float32", or of a tensor "torch.float32"
    how = "multiply pictures in 0...1 by 255, round, and convert with .astype(np.uint8); of -1...1, take (x + 1) / 2"
    if "int" in kind:
        how = "convert numbers in 0...255 with .astype(np.uint8)"
    if not hasattr(given, "numpy"):
        return how
    array = ".cpu().numpy()" if "int" in kind else ".detach().float().cpu().numpy()"  # numpy has no bfloat16
    return f"convert a tensor with {array}" + ("" if kind == "torch.uint8" else f", and {how}")
