"""Collects the samples of one sound track while they are decoded."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avbench.core.clip import Audio
from avbench.core.errors import MediaError
from avbench.storage.media.budget import Budget
from avbench.storage.media.timing import tick_of

_BLOCKS_OF_PRIMING = 3  # an encoder's lead of up to 2112 samples, in blocks of 1024
_LEAD = Fraction(1, 5)
"""Seconds: more than any encoder's lead."""
_ROUNDED = 0.002
"""Seconds by which a block may begin before the last one ends, or last longer than its samples, because a container
rounds."""


class Sound:
    """Samples of one stream, ``[channels, samples]`` float32 in −1…1, in consecutive blocks."""

    def __init__(self, path: Path, stream: av.AudioStream, budget: Budget, *, fragmented: bool = False) -> None:
        self.path, self.stream, self.budget, self.fragmented = path, stream, budget, fragmented
        self.tick = tick_of(stream, path)
        self.rate = self.length = 0
        self.blocks: list[np.ndarray] = []
        self.origin = self.late_start = Fraction(0)
        self.remarks: list[str] = []
        self._lasts_longer = False
        self._padding = 0

    def take(self, frame: av.AudioFrame) -> None:
        """Keep one decoded block."""
        block = _samples(frame)
        start = self.end if frame.pts is None else frame.pts * self.tick
        if not self.blocks:
            if not frame.sample_rate:
                msg = f"{self.path} has sound without a sample rate"
                raise MediaError(msg)
            self.origin, self.rate = start, frame.sample_rate
        elif (frame.sample_rate, len(block)) != (self.rate, len(self.blocks[0])):
            msg = f"{self.path} changes its sample rate or channels midway"
            raise MediaError(msg)
        lasts = (frame.duration or 0) if self.counts_samples else 0
        if (overlap := round((self.end - start) * self.rate)) > self.rate * _ROUNDED:
            self._without_padding(overlap)
        # If the clock counts samples, a block with more samples than its duration ends in the encoder's padding; but
        # ffmpeg also rounds the durations of whole blocks, after which the next block begins late enough.
        self._padding = max(0, block.shape[1] - lasts) if lasts else 0
        missing = round((start - self.end) * self.rate)
        if missing > (0 if self._lasts_longer else self.rate / 20):
            self._add(self._silence(block, missing))
        # A fragmented mp4 without an edit list stretches its first block, the priming, until the picture begins.
        self._lasts_longer = not self.blocks and lasts - block.shape[1] > self.rate * _ROUNDED
        self._add(block)

    def _without_padding(self, most: int) -> None:
        """Remove the padding of the last block, but not more than so many samples."""
        if cut := min(self._padding, most):
            self.blocks[-1] = self.blocks[-1][:, :-cut]
            self.length -= cut
        self._padding = 0

    def _add(self, block: np.ndarray) -> None:
        self.length += block.shape[1]
        self.budget.check_sound(block[:, :1].nbytes * self.length)
        self.blocks.append(block)

    def _silence(self, like: np.ndarray, samples: int) -> np.ndarray:
        self.budget.check_sound(like[:, :1].nbytes * (self.length + samples))
        return np.zeros((len(like), max(samples, 0)), np.float32)

    @property
    def counts_samples(self) -> bool:
        """Whether the container's clock ticks once a sample."""
        return self.tick * self.rate == 1

    @property
    def end(self) -> Fraction:
        """When the last sample ends, in seconds."""
        return self.origin + (Fraction(self.length, self.rate) if self.rate else 0)

    @property
    def patience(self) -> Fraction:
        """How many seconds before its promised end the sound may stop without counting as damaged.

        A clock that does not count samples may round the end to whole blocks. A fragmented mp4 and an avi count the
        priming and the last block's padding as sound.
        """
        least = Fraction(1, 100) if self.counts_samples else Fraction(3, 20)
        if not (self.fragmented or self.stream.container.format.name == "avi") or not self.rate:
            return least
        return max(least, Fraction(_BLOCKS_OF_PRIMING * (self.stream.codec_context.frame_size or 0), self.rate))

    def audio(self, origin: Fraction) -> Audio | None:
        """Return the sound from `origin` on, in seconds of the container's clock; None if there is none.

        A remark says if much of it came before. A little, which an encoder puts before its sound, is not worth one.
        """
        if not self.blocks:
            return None
        self._without_padding(self._padding)
        late = self.origin - origin
        if late < -_LEAD:
            self.remarks.append(f"its sound starts {float(-late):.2g} s before its picture; that part is left out")
        lead = round(late * self.rate) if abs(late) >= self.tick else 0
        blocks = [self._silence(self.blocks[0], lead), *self.blocks]
        wave = np.concatenate(blocks, axis=1)[:, max(-lead, 0) :]
        return Audio(np.ascontiguousarray(wave), self.rate) if wave.shape[1] else None


def _samples(frame: av.AudioFrame) -> np.ndarray:
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, len(frame.layout.channels)).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128) / 128
    elif data.dtype.kind == "i":
        data = data / 2.0 ** (8 * data.itemsize - 1)
    return np.clip(data, -1, 1).astype(np.float32)
