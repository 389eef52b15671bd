"""Collects the samples of one sound track while they are decoded."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avbench.core.clip import LOUDEST, Audio
from avbench.core.errors import MediaError
from avbench.storage.media.budget import Budget
from avbench.storage.media.timing import tick_of

_BLOCKS_OF_PRIMING = 3  # an encoder's lead of up to 2112 samples, in blocks of 1024
_LEAD = Fraction(1, 5)
"""Seconds: more than any encoder's lead."""
_ROUNDED = 0.002
"""Seconds by which a block may begin before the last one ends, or last longer than its samples, because a container
rounds."""
_OVERLAP, _LASTS = 0.02, 0.5
"""Seconds by which blocks may begin before the last one ends, and for how long, before that one is cut. Where files
were joined, the priming of the next one, 1024 samples or more, lies over the end of the last, and all that follows is
late by as much. Where times jitter, some block after a few is on time again."""
_GAP = 0.05
"""Seconds of a gap that is not filled."""
_LOUD = 10 ** (4 / 20)
"""4 dB above full scale. Lossy sound exceeds full scale by up to 2.7 dB in real clips, and a square wave by 3.8 dB as
AAC, which is not worth a remark."""
_UNSAID = 0.1
"""Seconds of holes or overlaps, in all, that are not worth a remark."""


@dataclass
class _Overlap:
    """An overlap of which nobody knows yet whether it lasts."""

    place: int
    """The first block that begins too early."""
    least: int
    """The samples by which every block from there on begins too early, at least."""
    samples: int = 0
    """Of these blocks."""


class Sound:
    """Samples of one stream, ``[channels, samples]`` float32, clipped to −1…1 up to LOUDEST, in consecutive blocks."""

    def __init__(self, path: Path, stream: av.AudioStream, budget: Budget, *, fragmented: bool = False) -> None:
        self.path, self.stream, self.budget, self.fragmented = path, stream, budget, fragmented
        self.tick = tick_of(stream, path)
        self.rate = self.length = 0
        self.blocks: list[np.ndarray] = []
        self.origin = self.late_start = Fraction(0)  # late_start as in Picture
        self.first_packet: Fraction | None = None
        """When the first packet begins, in seconds; an edit list may hide it."""
        self.remarks: list[str] = []
        self._lasts_longer = False
        self._peak = 0.0
        self._padding = self._in_holes = self._overlapping = self._unfilled = 0
        self._held: _Overlap | None = None

    def note(self, packet: av.Packet) -> None:
        """Note a packet that is decoded next."""
        if self.first_packet is None and packet.pts is not None:
            self.first_packet = packet.pts * self.tick

    def take(self, frame: av.AudioFrame) -> None:
        """Keep one decoded block."""
        samples = _samples(frame)
        peak = float(np.abs(samples).max(initial=0))
        self._peak = max(self._peak, peak)
        with np.errstate(over="ignore"):  # doubles beyond float32 become infinite
            block = samples.astype(np.float32)
        if peak < LOUDEST:  # NaN, infinite samples and integers stay as they are: Audio refuses them
            np.clip(block, -1, 1, out=block)
        start = self.end if frame.pts is None else frame.pts * self.tick
        if not self.blocks:
            if not frame.sample_rate:
                msg = f"{self.path} has sound without a sample rate"
                raise MediaError(msg)
            self.origin, self.rate = start, frame.sample_rate
            # Where an edit list of mp4 starts in a stretched first block, libav leaves out more than the list says.
            # A fragmented file counts from zero, or from the first packet, where an edit list hides some.
            since = min(0, self.first_packet or 0) if self.fragmented else (self.stream.start_time or 0) * self.tick
            self.late_start = max(Fraction(0), start - since)
        elif (frame.sample_rate, len(block)) != (self.rate, len(self.blocks[0])):
            msg = f"{self.path} changes its sample rate or channels midway"
            raise MediaError(msg)
        # PCM has no padding; where it starts late, libav makes the last block that much shorter.
        may_pad = self.counts_samples and not self.stream.codec_context.name.startswith("pcm_")
        lasts = (frame.duration or 0) if may_pad else 0
        if (overlap := self._overlap(start)) > self.rate * _ROUNDED:
            self._cut(min(self._padding, overlap))
        self._hold(self._overlap(start), block.shape[1])
        # If the clock counts samples, a block with more samples than its duration ends in the encoder's padding; but
        # ffmpeg also rounds the durations of whole blocks, after which the next block begins late enough.
        self._padding = max(0, block.shape[1] - lasts) if lasts else 0
        missing = -self._overlap(start)
        if missing > (0 if self._lasts_longer else self.rate * _GAP):
            self._add(self._silence(block, missing))
            self._in_holes += 0 if self._lasts_longer else missing
        self._unfilled = -self._overlap(start)
        # A fragmented mp4 without an edit list stretches its first block, the priming, until the picture begins.
        self._lasts_longer = not self.blocks and lasts - block.shape[1] > self.rate * _ROUNDED
        self._add(block)

    def _overlap(self, start: Fraction) -> int:
        """How many samples of a block that begins at `start` seconds lie before the end of the last one."""
        return round((self.origin - start) * self.rate) + self.length

    def _hold(self, overlap: int, samples: int) -> None:
        """Hear by how much the next block overlaps, and cut what lasts."""
        if overlap <= self.rate * _OVERLAP:
            self._held = None
            return
        held = self._held = self._held or _Overlap(len(self.blocks), overlap)
        held.least, held.samples = min(held.least, overlap), held.samples + samples
        if held.samples < self.rate * _LASTS:
            return
        # The end of what lies before it makes room, so that what follows begins at its time.
        later, self._held = self.blocks[held.place :], None
        if held.least > self.length - sum(block.shape[1] for block in later):
            msg = f"{self.path} is damaged: the timestamps of its sound run backwards"
            raise MediaError(msg)
        del self.blocks[held.place :]
        self._overlapping += held.least
        self._cut(held.least)
        self.blocks += later

    def _cut(self, samples: int) -> None:
        """Remove the last samples."""
        self.length -= samples
        while samples:
            last = self.blocks.pop()
            kept = max(0, last.shape[1] - samples)
            samples -= last.shape[1] - kept
            if kept:
                self.blocks.append(last[:, :kept])

    def _add(self, block: np.ndarray) -> None:
        self.length += block.shape[1]
        self.budget.check_sound(self.length, len(block), self.rate)
        self.blocks.append(block)

    def _silence(self, like: np.ndarray, samples: int) -> np.ndarray:
        self.budget.check_sound(self.length + samples, len(like), self.rate)
        return np.zeros((len(like), max(samples, 0)), np.float32)

    @property
    def counts_samples(self) -> bool:
        """Whether the container's clock ticks once a sample."""
        return self.tick * self.rate == 1

    @property
    def end(self) -> Fraction:
        """When the last block ends, in seconds: a gap before it counts even if it was not filled."""
        return self.origin + (Fraction(self.length + self._unfilled, self.rate) if self.rate else 0)

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

        Remarks say if much of it came before, if its blocks leave holes or overlap, and if it was clipped. A little,
        as of an encoder, is not worth one.
        """
        if not self.blocks:
            return None
        self._cut(self._padding)
        late = self.origin - origin
        if late < -_LEAD:
            self.remarks.append(f"its sound starts {float(-late):.2g} s before its picture; that part is left out")
        if self._in_holes > self.rate * _UNSAID:
            seconds = self._in_holes / self.rate
            self.remarks.append(f"its sound has holes of {seconds:.1f} s in all, which were read as silence")
        if self._overlapping > self.rate * _UNSAID:
            seconds = self._overlapping / self.rate
            self.remarks.append(f"parts of its sound overlap, by {seconds:.1f} s in all: the later of two was read")
        if self._peak > _LOUD:
            self.remarks.append(f"its sound peaks at {self._peak:.3g} of full scale and was clipped to -1...1")
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
    return data
