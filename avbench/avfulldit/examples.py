"""What is a model trained on? Latents and captions, made once and read many times.

A folder holds ``video.npy`` ``[n, channels, time, height, width]`` and ``audio.npy`` ``[n, channels, time]``, both
float16 and normalised by their codecs, ``captions.jsonl`` with a line an example, and ``card.json``.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from avbench.core import InputError
from avbench.reading import read_json, read_lines


class Batch(NamedTuple):
    """Examples of one step."""

    numbers: tuple[int, ...]
    """Of the items since training began: the name under which their noise is drawn."""
    video: Tensor | None
    audio: Tensor | None
    video_captions: tuple[str, ...]
    audio_captions: tuple[str, ...]


@dataclass(frozen=True)
class _Captions:
    """A line of captions.jsonl."""

    video: str
    audio: str


@dataclass(frozen=True, eq=False)
class Examples:
    """Latents on disk, mapped into memory."""

    video: np.ndarray | None
    audio: np.ndarray | None
    video_captions: Sequence[str]
    audio_captions: Sequence[str]
    card: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Examples":
        """Open a folder. Raises InputError where a file is missing or their lengths differ."""
        try:
            card = read_json(folder / "card.json")
            lines = read_lines(folder / "captions.jsonl", _Captions)
            video, audio = (
                np.load(folder / name, mmap_mode="r") if (folder / name).exists() else None
                for name in ("video.npy", "audio.npy")
            )
        except (OSError, ValueError, EOFError) as error:
            msg = f"{folder} holds no training examples: {error}"
            raise InputError(msg) from None
        for what, array in (("video.npy", video), ("audio.npy", audio)):
            if array is not None and len(array) != len(lines):
                msg = f"{folder}: {what} holds {len(array)} examples, captions.jsonl {len(lines)}"
                raise InputError(msg)
        return cls(video, audio, [line.video for line in lines], [line.audio for line in lines], card)

    def __len__(self) -> int:
        return len(self.video_captions)

    def batch(self, seed: int, numbers: Sequence[int]) -> Batch:
        """The examples of the items `numbers`, counted since training began; each epoch has an order of its own."""
        places = [divmod(number, len(self)) for number in numbers]
        rows = [int(_permutation(seed, epoch, len(self))[place]) for epoch, place in places]
        return Batch(
            tuple(numbers),
            _rows(self.video, rows),
            _rows(self.audio, rows),
            tuple(self.video_captions[row] for row in rows),
            tuple(self.audio_captions[row] for row in rows),
        )


def _rows(array: np.ndarray | None, rows: Sequence[int]) -> Tensor | None:
    return None if array is None else torch.from_numpy(np.stack([array[row] for row in rows]).astype(np.float32))


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)
