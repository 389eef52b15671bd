"""Collects the frames of one picture track, and their times, while they are decoded.

Of a long clip only the times are kept: its frames are decoded again when they are asked for (stored.py).
"""

import math
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

from avbench.core.clip import frame_rate
from avbench.core.errors import MediaError
from avbench.storage.media.budget import Budget
from avbench.storage.media.colour import as_seen, colour_remarks, square_size
from avbench.storage.media.packets import Packets
from avbench.storage.media.timing import first_frame_stretch, frame_grid, tick_of, undo_rounding

_SQUARE_BY_HABIT = ("gif",)  # viewers of pictures and gifs ignore the declared shape of pixels


class Picture:
    """Frames of one stream with their times in seconds of the container's clock.

    If the frames take more than `most_held` bytes, they are not held.
    """

    def __init__(self, path: Path, stream: av.VideoStream, budget: Budget, *, most_held: float = math.inf) -> None:
        self.path, self.stream, self.budget = path, stream, budget
        self.held_whole, self._most_held = True, most_held
        self.tick = tick_of(stream, path)
        self.times: list[Fraction] = []
        self.stamps: list[int | None] = []
        """The presentation timestamp of each frame, as it is in the file."""
        self.interlaced = False
        self.shown_from = Fraction(0)
        """When the first frame of the constant rate that `at` returned is shown, in seconds."""
        self.late_start = Fraction(0)
        """Seconds that the container's promised duration counts before the first frame."""
        self.packets = Packets(stream)
        self.held = Fraction(0)
        self.remarks: list[str] = []
        self._variable = False
        self._frames = np.empty((0, 0, 0, 3), np.uint8)
        form = stream.container.format.name
        self._pixel = None if form in _SQUARE_BY_HABIT or form.endswith("_pipe") else stream.sample_aspect_ratio

    def take(self, frame: av.VideoFrame) -> None:
        """Keep one decoded frame."""
        count = len(self.times)
        size = square_size(frame.width, frame.height, self._pixel)
        self.budget.check_frames(count + 1, size)
        image = self.image(frame)
        if not count:
            self.remarks += colour_remarks(frame)
            if size != (stored := (frame.width, frame.height)):
                pixel = self._pixel or Fraction(1)
                shape = f"{pixel.numerator}:{pixel.denominator}"
                self.remarks.append(
                    f"its pixels are {shape}: its {_by(stored)} pixels were scaled to {_by(size)} square ones"
                )
            expected = self._expected(image.nbytes)
            self.held_whole = expected * image.nbytes <= self._most_held
            self._frames = np.empty((expected if self.held_whole else 0, *image.shape), np.uint8)
        elif image.shape != self.shape:
            msg = f"{self.path} changes its picture size from {self.size} to {_by(image.shape[1::-1])}"
            raise MediaError(msg)
        if self.held_whole and (count + 1) * image.nbytes > self._most_held:
            self.held_whole, self._frames = False, np.empty((0, *image.shape), np.uint8)
        elif self.held_whole and count == len(self._frames):
            # In place, because the system remaps large blocks instead of copying. No view of the array exists yet.
            self._frames.resize((count + max(16, count // 4), *self.shape), refcheck=False)
        if self.held_whole:
            self._frames[count] = image
        self.stamps.append(frame.pts)
        if frame.interlaced_frame and not self.interlaced:
            self.interlaced = True
            self.remarks.append("it is interlaced: read as stored, both fields in one frame")
        ticks = frame.dts if frame.pts is None else frame.pts
        self.times.append(self.end if ticks is None else ticks * self.tick)
        self.held = (frame.duration or 0) * self.tick

    def image(self, frame: av.VideoFrame) -> np.ndarray:
        """A decoded frame as it is meant to be shown, ``[height, width, 3]`` uint8 RGB."""
        return as_seen(frame, square_size(frame.width, frame.height, self._pixel))

    def _expected(self, frame_bytes: int) -> int:
        """Return how many frames the container promises, within the budget. Unwritten pages take no memory."""
        container: Any = self.stream.container  # an InputContainer, which PyAV does not declare
        seconds = Fraction(container.duration or 0, av.time_base)
        promised = self.stream.frames or math.ceil(seconds * (self.stream.average_rate or 0)) + 1
        return max(1, min(promised, self.budget.most_frames, self.budget.most_bytes // frame_bytes))

    @property
    def frames(self) -> np.ndarray:
        """All frames ``[time, height, width, 3]`` in order, if they are held. After this no more can be taken."""
        if len(self._frames) != len(self.times):
            self._frames.resize((len(self.times), *self.shape), refcheck=False)
        return self._frames

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and 3."""
        return self._frames.shape[1:]

    @property
    def size(self) -> str:
        """Width and height as text, such as ``640x480``."""
        return _by(self.shape[1::-1])

    @property
    def origin(self) -> Fraction:
        """When the first frame is shown, in seconds."""
        return min(self.times)

    @property
    def gap(self) -> Fraction:
        """Mean seconds from frame to frame."""
        return (max(self.times) - min(self.times)) / (len(self.times) - 1) if len(self.times) > 1 else self.held

    @property
    def end(self) -> Fraction:
        """When the last frame ends, in seconds. If its duration is unknown, it is the mean gap."""
        return max(self.times) + (self.held or self.gap) if self.times else Fraction(0)

    @property
    def patience(self) -> Fraction:
        """How many seconds before its promised end the picture may stop without counting as damaged.

        At a variable rate, a container may write any of the gaps as the last frame's duration.
        """
        if not self._variable and self.packets.without_times:
            # In AVI every frame counts at least one tick, and FFmpeg writes two of them for each frame.
            return min(self.gap, self.tick) / 2
        if not self._variable:
            return self.gap / 2
        return max(after - before for before, after in pairwise(sorted(self.times)))

    def start_later(self, seconds: Fraction) -> None:
        """Move all frames to `seconds` later than libav says; the container counts these seconds."""
        self.times = [time + seconds for time in self.times]
        self.late_start = seconds

    def squeeze(self, most: Fraction) -> None:
        """Start the first frame later, by at most `most` seconds, if it alone lasts longer than the others.

        A fragmented mp4 without an edit list stretches it to hide the sound's priming.
        """
        start = min(self.times, default=Fraction(0))
        stretch = first_frame_stretch([time - start for time in self.times], self.end - start, self.tick)
        if self.tick < stretch <= most:
            self.times[0] += stretch

    def at(self, fps: Fraction | None) -> tuple[np.ndarray | slice, Fraction]:
        """Return the indices of the frames to show at the constant rate `fps`, or at the stream's own, and the rate."""
        if not self.times:
            msg = f"{self.path} holds no frames"
            raise MediaError(msg)
        self._leave_out_lost()
        times = [t - self.origin for t in self.times]
        if times != sorted(times):
            msg = f"{self.path} is damaged: its timestamps run backwards"
            raise MediaError(msg)
        grid = frame_grid(times, self.end - self.origin, self.tick, self._declared())
        self.shown_from = self.origin + grid.start
        self._variable = not grid.constant
        if grid.remark:
            self.remarks.append(grid.remark)
        fps = frame_rate(fps or grid.rate)
        count = max(1, math.ceil(grid.count * fps / grid.rate))
        if fps == grid.rate and list(grid.places) == list(range(count)):
            return slice(None), fps
        self.budget.check_frames(count, self.shape[1::-1], beside=len(times))
        # Frame k shows the last source frame whose place is not after it.
        now = [k * grid.rate // fps for k in range(count)]
        return np.searchsorted(np.array(grid.places), now, side="right") - 1, fps

    def _leave_out_lost(self) -> None:
        """Say how many frames a cut left without those that they need; in AVI, give the others their times."""
        stamps = [stamp for stamp in self.stamps if stamp is not None]
        lost = self.packets.lost(stamps)
        if self.packets.without_times and len(stamps) == len(self.stamps):
            self.times, uncounted = self.packets.times(stamps, self.tick)
            # FFmpeg writes twice the rate, so a frame lasts longer than the one tick that its packet does.
            gaps = sorted(after - before for before, after in pairwise(self.times))
            self.held = max([self.held, *gaps[len(gaps) // 2 :][:1]])
            self.late_start = self.origin - uncounted
        elif lost:
            self.late_start += self.packets.seconds_lost(stamps, self.tick)
        if self.packets.lost_a_beginning(stamps):
            msg = (
                f"{self.path} is damaged: none of its first {lost} frames can be read, and one of them needs no others"
            )
            raise MediaError(msg)
        if lost:
            those = "its first frame needs" if lost == 1 else f"its first {lost} frames need"
            self.remarks.append(f"{those} others from before it was cut out: left out, as in players")

    def _declared(self) -> list[Fraction]:
        """Return the rates that the container declares, the most trusted first."""
        if self.stream.container.format.name == "gif":
            return []  # a gif has delays and no rate; libav's rates are guesses
        written = self.stream.metadata.get("FPS", "")  # by `write_clip`
        rates = [Fraction(written)] if re.fullmatch(r"[1-9][0-9]{0,9}(/[1-9][0-9]{0,9})?", written) else []
        libav = (self.stream.average_rate, self.stream.base_rate, self.stream.guessed_rate)
        return rates + [undo_rounding(rate) for rate in libav if rate]


def _by(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]}"
