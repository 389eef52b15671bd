"""Hands out the frames of a long clip from its file, so that few of them are in memory at a time.

`StoredFrames` has the parts of an array's interface that a feature needs which reads frames in order, or only some:
``len``, ``shape``, iteration, and an index, a slice or a list of indices of frames. The file is decoded up to the frame
that is asked for; a frame before the last one that was read starts decoding anew. Frames in between that no other
frame is predicted from are left out where that is exact (`reading`). Pixels are those of `Clip.frames`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avbench.core.clip import Clip, frame_rate
from avbench.core.errors import MediaError

Convert = Callable[[], np.ndarray]
"""Makes ``[height, width, 3]`` uint8 RGB of a decoded frame."""

Decode = Callable[[Callable[[int], bool]], Iterator[tuple[int, Convert]]]
"""Decodes a file from its start into numbered frames; it may leave out a frame that is not needed, by the function that
it is given, at the time when that frame would be decoded."""


@dataclass
class _Asked:
    """The frames that are asked for now, by their numbers in the file. What decodes them holds this, and not the
    `StoredFrames`: a circle of references would keep the file open until Python looks for circles, which is seldom.
    """

    numbers: frozenset[int] = frozenset()
    last: int = -1

    def needs(self, number: int) -> bool:
        """Whether a frame must be decoded for its own sake; what will be asked for after the last one is not known."""
        return number in self.numbers or number > self.last


class StoredFrames:
    """``[time, height, width, 3]`` uint8 RGB, decoded when asked for. Raises MediaError if the file is gone by then."""

    dtype = np.dtype(np.uint8)

    def __init__(self, decode: Decode, size: tuple[int, ...], shown: np.ndarray) -> None:
        """Take how to decode the file from its start, a frame's shape, and which decoded frame each frame shows."""
        self.shape = (len(shown), *size)
        self._decode, self._shown = decode, shown
        self._asked = _Asked()
        self._start()

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, chosen: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        decoded = self._shown[chosen]
        self._asked.numbers = frozenset(np.ravel(decoded).tolist())
        self._asked.last = max(self._asked.numbers, default=-1)
        if np.ndim(decoded) == 0:
            return self._image(int(decoded))
        frames = np.empty((len(decoded), *self.shape[1:]), np.uint8)
        for place, number in enumerate(decoded):
            frames[place] = self._image(number)
        return frames

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:]

    def _start(self) -> None:
        self._frames, self._at, self._last = self._decode(self._asked.needs), -1, np.empty(0, np.uint8)

    def _image(self, number: int) -> np.ndarray:
        """The decoded frame with this number, read-only."""
        if number < self._at:
            self._start()
        while self._at < number:
            try:
                self._at, convert = next(self._frames)
                if self._at == number:
                    self._last = np.ascontiguousarray(convert())
                    self._last.flags.writeable = False
            except MediaError:
                self._start()
                raise
        if self._at > number:
            self._start()
            msg = f"its frame {number} cannot be found again: the file was changed while it was measured"
            raise MediaError(msg)
        return self._last


class StoredClip(Clip):
    """A clip whose frames stay in its file; `whole` reads them."""

    frames: Any  # StoredFrames

    def __post_init__(self) -> None:
        object.__setattr__(self, "fps", frame_rate(self.fps))

    def whole(self) -> Clip:
        """The clip with all its frames in memory."""
        return Clip(np.asarray(self.frames), self.fps, self.audio, self.remarks)
