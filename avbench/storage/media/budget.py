"""Limits the memory and the number of frames that may be decoded from one file.

A file of 1 KB can claim hours of frames, and a gif of 7 KB a picture of gigabytes. The default limits allow what real
clips need: 768 MiB of memory, or 8192 times the file's size where that is more, but at most 16 GiB; an eighth of that
for sound; 36,000 frames; 8192x4320 pixels per frame. Environment variables change the limits of memory and frames.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from avbench.core.errors import InputError, MediaError

MEMORY_VARIABLE = "AVBENCH_CLIP_MIB"
"""Environment variable: MiB that the frames of one file may take; its sound may take an eighth of that."""
FRAMES_VARIABLE = "AVBENCH_CLIP_FRAMES"
"""Environment variable: frames that one file may become."""
MAX_PIXELS = 8192 * 4320
"""Most pixels of one frame, for libav's own check too."""

_LEAST, _MOST, _BYTES_PER_BYTE = 768 * 2**20, 16 * 2**30, 8192
_FRAMES = 36_000
_SHARE_OF_SOUND = 8
_LEAST_RATE = 16_000  # Hz: metrics resample slower sound to that, or above
_TENTH = 2**20 / 10  # bytes; a size is rounded up to it and its limit down, so that they differ in words too
_AT_WORK = 8  # frames that libav and the conversion hold in memory


@dataclass(frozen=True)
class Budget:
    """The limits of one file."""

    path: Path
    most_bytes: int
    most_frames: int

    @classmethod
    def of(cls, path: Path, size: int) -> "Budget":
        """Return the limits for a file, or a folder of frames, of `size` bytes.

        Raises:
            InputError: an environment variable is not a whole number.
        """
        mib = _number(MEMORY_VARIABLE)
        usual = min(_MOST, max(_LEAST, size * _BYTES_PER_BYTE))
        return cls(path, usual if mib is None else mib * 2**20, _number(FRAMES_VARIABLE) or _FRAMES)

    def check_frames(self, count: int, size: tuple[int, ...], *, beside: int = 0) -> None:
        """Raise MediaError if `count` frames of `size` (width, height), and `beside` others in memory, are too many."""
        pixels = size[0] * size[1]
        if pixels > MAX_PIXELS:
            msg = f"{self.path} has frames of {size[0]}x{size[1]}; at most {MAX_PIXELS:,} pixels are read"
            raise MediaError(msg)
        if count > self.most_frames:
            msg = (
                f"{self.path} would become {count:,} frames; at most {self.most_frames:,} are read "
                f"(change it by the environment variable {FRAMES_VARIABLE})"
            )
            raise MediaError(msg)
        self._check((count + beside + _AT_WORK) * pixels * 3, self.most_bytes, "frames")

    def check_sound(self, samples: int, channels: int, rate: int) -> None:
        """Raise MediaError if so many float32 samples of each channel at `rate` Hz are too many, also once they are
        resampled.
        """
        resampled = samples * _LEAST_RATE // rate if rate < _LEAST_RATE else samples
        self._check(4 * channels * resampled, self.most_bytes // _SHARE_OF_SOUND, "sound")

    def _check(self, size: int, most: int, what: str) -> None:
        if size > most:
            msg = (
                f"{self.path} would take {math.ceil(size / _TENTH) / 10:,.1f} MiB of memory for its {what}; at most "
                f"{math.floor(most / _TENTH) / 10:,.1f} MiB are allowed for a file of its size "
                f"(change it by the environment variable {MEMORY_VARIABLE})"
            )
            raise MediaError(msg)


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text[:12]) and len(text) <= 12):
        msg = f"the environment variable {variable} is {text!r}; it must be a whole number of at least 1"
        raise InputError(msg)
    return int(text)
