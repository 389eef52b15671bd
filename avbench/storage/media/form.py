"""Says which form a clip has: its size, length and rate, and what its sound is stored as."""

import functools
import itertools
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from avbench.core import InputError, counted
from avbench.storage.media import read_clip

FIRST = 3
"""So many clips are looked at, and stand for the others."""
_LENGTH = 1.1
"""Lengths up to this factor apart count as one: a frame more or less is usual."""


@dataclass(frozen=True)
class Form:
    """Size, length and rate of a clip, and what its sound is stored as."""

    width: int
    height: int
    frames: int
    rate: Fraction
    sound: tuple[int, int, float] | None
    """Hz, channels and seconds."""

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.frames / float(self.rate)

    def __str__(self) -> str:
        return f"{self.width}×{self.height}, {float(self.rate):.4g} frames/s, {self.seconds:.3g} s"

    @property
    def heard(self) -> str:
        """Its sound, in words."""
        if self.sound is None:
            return "no sound"
        hertz, channels, seconds = self.sound
        return f"{seconds:.3g} s at {hertz} Hz, {counted(channels, 'channel')}"

    def fits(self, other: "Form") -> bool:
        """Whether numbers of the pictures of two such clips can be compared."""
        same = (self.width, self.height, self.rate) == (other.width, other.height, other.rate)
        return same and _as_long(self.seconds, other.seconds)

    def sounds_fit(self, other: "Form") -> bool:
        """Whether numbers of their sound can be compared; also where one has none, which is said elsewhere."""
        if self.sound is None or other.sound is None:
            return True
        return self.sound[:2] == other.sound[:2] and _as_long(self.sound[2], other.sound[2])


def _as_long(one: float, other: float) -> bool:
    return max(one, other) <= _LENGTH * min(one, other)


def first_forms(clips: Iterable[Path]) -> list[Form]:
    """The forms of the first of these clips, without files that are gone or damaged."""
    found: list[Form] = []
    for path in itertools.islice(clips, FIRST):
        with suppress(InputError):
            found.append(form_of(path))
    return found


def form_of(path: Path) -> Form:
    """The form of a clip. Raises InputError if its file is gone or damaged."""
    return _form(path, path.stat().st_mtime_ns if path.exists() else 0)


@functools.lru_cache(maxsize=1024)
def _form(path: Path, changed: int) -> Form:
    """The form of a clip, which is decoded once until the time of its last change is another."""
    clip = read_clip(path)
    count, height, width = clip.frames.shape[:3]
    sound = clip.audio and (clip.audio.sample_rate, clip.audio.channels, clip.audio.seconds)
    return Form(width, height, count, clip.fps, sound)
