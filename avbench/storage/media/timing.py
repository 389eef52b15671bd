"""Turns timestamps into frames at a constant rate.

Times are seconds after the first frame, as exact fractions. `frame_grid` gives every source frame its place k on the
grid k/rate. If the times fit a constant rate, frame k has place k. Otherwise the rate is the one with the fewest frames
out of step; the candidates are the rates of the usual gaps between frames, and round rates near them. A frame that
follows the previous one far too late counts as well, whatever its place. So 30 fps with one short gap, with a jitter of
milliseconds, with dropped frames or with pauses where clips were joined is still read as 30.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from av import AudioStream, VideoStream

from avbench.core.errors import MediaError
from avbench.core.text import counted

MAX_GUESSED_RATE = 240
"""Frames per second: the highest rate at which a stream of variable rate is read."""

_ROUND, _UNROUND = (1, 2, 1001), 4  # how many frames out of step a rate such as 24.98 must save to be preferred
_SLOW = 15  # frames per second; below, half rates such as 12.5 and 7.5 are round
_LATE = 1 / 3  # of a frame; those of a film on television come 0.8 and 1.2 frames after the one before


@dataclass(frozen=True)
class Grid:
    """The places of the source frames at a constant rate."""

    rate: Fraction
    places: Sequence[int]
    """Source frame i is shown from places[i]/rate seconds on."""
    count: int
    """Frames at the rate, to the end of the last source frame."""
    start: Fraction = Fraction(0)
    """When place 0 is, in seconds: not at the first frame if that one alone is out of step."""
    constant: bool = False
    """Whether the source frames come at this rate."""
    remark: str | None = None
    """How many frames were left out and repeated, if any."""


def tick_of(stream: VideoStream | AudioStream, path: Path) -> Fraction:
    """Return one tick of a stream's clock, in seconds. Raises MediaError if the stream has no clock."""
    if stream.time_base is None:
        msg = f"{path} has a {stream.type} stream without a clock"
        raise MediaError(msg)
    return stream.time_base


def frame_grid(times: Sequence[Fraction], length: Fraction, tick: Fraction, declared: Iterable[Fraction]) -> Grid:
    """Find the constant rate of a stream and the places of its frames.

    Args:
        times: times of the frames in seconds, in rising order; the first is 0.
        length: when the last frame ends, in seconds.
        tick: one tick of the container's clock, in seconds.
        declared: rates that the container declares, the most trusted first.

    Raises:
        ValueError: neither the declared rates nor the times give a rate.
    """
    declared = list(declared)
    rate = _constant_rate(times, length, tick, declared)
    if rate is not None:
        more = max(0, math.floor(length * rate + Fraction(1, 4)) - len(times)) if len(times) > 1 else 0
        held = f"its last frame lasts {float(length - times[-1]):.3g} s and is repeated {counted(more, 'time')}"
        return Grid(rate, range(len(times)), len(times) + more, constant=True, remark=held if more else None)
    gaps = [after - before for before, after in pairwise(times)]
    if not any(gaps):
        msg = "neither a declared rate nor its timestamps show how long a frame lasts"
        raise ValueError(msg)
    rate = _rate_of_dropped_frames(times, tick, declared)
    steps = _Steps.at(rate, times) if rate else _best(times, gaps, declared)
    end = math.floor(float(length) * float(steps.rate) - steps.phase + 0.5 + 1e-6) - steps.first
    count = max(steps.places[-1] + 1, end)
    shown = len(set(steps.places))
    remark = (
        f"its frames come {_milliseconds(min(gaps))} to {_milliseconds(max(gaps))} ms apart: read at "
        f"{float(steps.rate):.6g} frames per second, with {len(times) - shown} of its {len(times)} frames left out and "
        f"{counted(count - shown, 'frame')} repeated"
    )
    start = Fraction(steps.phase + steps.first).limit_denominator(10**6) / steps.rate
    return Grid(steps.rate, steps.places, count, start, remark=remark)


def first_frame_stretch(times: Sequence[Fraction], length: Fraction, tick: Fraction) -> Fraction:
    """Return how many seconds longer the first frame lasts than the others; 0 if those have no constant rate."""
    if len(times) < 4:
        return Fraction(0)
    rate = _constant_rate([time - times[1] for time in times[1:]], length - times[1], tick, [])
    return max(Fraction(0), times[1] - times[0] - 1 / rate) if rate else Fraction(0)


def undo_rounding(rate: Fraction) -> Fraction:
    """Restore n·1000/1001 from the rounded rate that Matroska's whole nanoseconds give."""
    meant = _ntsc(rate)
    return meant if abs(rate / meant - 1) < Fraction(5, 10**7) else rate


@dataclass(frozen=True)
class _Steps:
    """The places of frames at one candidate rate."""

    rate: Fraction
    phase: float
    """How far the grid is shifted, in frames, because the first frame itself may be out of step."""
    first: int
    places: list[int]
    out_of_step: float
    """Number of frames that do not directly follow the previous one; a frame that is left out counts twice."""
    late: int
    """Number of frames that directly follow the previous one, although they come too late for that."""

    @classmethod
    def at(cls, rate: Fraction, times: Sequence[Fraction]) -> "_Steps":
        exact = np.array([float(time) for time in times]) * float(rate)
        turn = np.exp(2j * np.pi * exact).mean()
        phases = {0.0, round(float(np.angle(turn)) / (2 * np.pi), 6)}
        return min((cls._shifted(rate, exact, phase) for phase in sorted(phases, key=abs)), key=lambda s: s.out_of_step)

    @classmethod
    def _shifted(cls, rate: Fraction, exact: np.ndarray, phase: float) -> "_Steps":
        places = np.floor(exact - phase + 0.5 + 1e-6).astype(np.int64)
        steps = np.diff(places)
        first = int(places[0])
        wrong = np.count_nonzero(steps != 1) + np.count_nonzero(steps == 0)
        late = int(np.count_nonzero((steps == 1) & (np.diff(exact) > 1 + _LATE)))
        return cls(rate, phase, first, (places - first).tolist(), float(wrong), late)


def _rate_of_dropped_frames(times: Sequence[Fraction], tick: Fraction, declared: Iterable[Fraction]) -> Fraction | None:
    """Return a declared rate whose grid holds all times, with at least a quarter of the frames consecutive; or None.

    libav also declares the finest grid that holds all times, such as 120 for 30 and 24 in one stream. On that grid no
    frame directly follows another.
    """
    for rate in declared:
        if rate > MAX_GUESSED_RATE:
            continue
        allowed = min(tick, Fraction(1, 4) / rate)
        places = [round(time * rate) for time in times]
        direct = sum(after - before == 1 for before, after in pairwise(places))
        on_grid = all(abs(time - place / rate) <= allowed for time, place in zip(times, places, strict=True))
        if on_grid and direct * 4 >= len(times) - 1:
            return rate
    return None


def _best(times: Sequence[Fraction], gaps: Sequence[Fraction], declared: Sequence[Fraction]) -> _Steps:
    """Return the candidate rate with the fewest frames out of step or late; round, then earlier ones are better."""
    rising = sorted(gap for gap in gaps if gap > 0)
    middle = rising[len(rising) // 2]
    usual = [gap for gap in rising if middle / 2 < gap < middle * Fraction(3, 2)]
    estimates = [len(usual) / sum(usual), len(gaps) / times[-1], 1 / middle, 1 / rising[len(rising) // 4]]
    candidates = [rate for estimate in estimates for rate in _beside(estimate, declared)]
    allowed = [rate for rate in dict.fromkeys(candidates) if 0 < rate <= MAX_GUESSED_RATE]
    tried = [_Steps.at(rate, times) for rate in allowed or [Fraction(MAX_GUESSED_RATE)]]

    def cost(steps: _Steps) -> float:
        return steps.out_of_step + steps.late + (0 if steps.rate.denominator in _ROUND else _UNROUND)

    return min(tried, key=cost)


def _beside(estimate: Fraction, declared: Sequence[Fraction]) -> list[Fraction]:
    """Return the round rates near an estimated rate, the likeliest first, and then the estimate itself."""
    meant = [Fraction(max(1, round(estimate))), *declared, _ntsc(estimate)]
    if estimate < _SLOW:
        meant.append(Fraction(max(1, round(2 * estimate)), 2))
    near = [rate for rate in meant if abs(rate / estimate - 1) <= Fraction(1, 100)]
    return [*near, estimate.limit_denominator(1001) or Fraction(1, 1001)]


def _milliseconds(seconds: Fraction) -> str:
    return f"{float(seconds * 1000):.3g}"


def _ntsc(rate: Fraction) -> Fraction:
    """Return the nearest n·1000/1001."""
    return Fraction(max(1, round(rate * 1001 / 1000)) * 1000, 1001)


def _constant_rate(
    times: Sequence[Fraction], length: Fraction, tick: Fraction, declared: Sequence[Fraction]
) -> Fraction | None:
    """Return the rate at which every frame k is at k/rate, or None."""
    if len(times) == 1:
        return declared[0] if declared else _simplest([*times, length], tick)
    for rate in declared:
        allowed = min(tick, Fraction(3, 5) / rate)
        if all(abs(t - k / rate) <= allowed for k, t in enumerate(times)):
            return rate
    # The last frame's duration counts too, unless that frame is shown longer than the others.
    for points in ([*times, length], times):
        gaps = {after - before for before, after in pairwise(points)}
        rate = 1 / gaps.pop() if len(points) > 2 and len(gaps) == 1 and 0 not in gaps else _simplest(points, tick)
        if rate:
            return rate
    return None


def _simplest(points: Sequence[Fraction], tick: Fraction) -> Fraction | None:
    """Return the rate of smallest denominator that puts every k/rate within one tick of point k, or None."""
    if points[-1] <= 0:
        return None
    mean = (len(points) - 1) / points[-1]
    allowed = min(tick, Fraction(3, 5) / mean)
    later = list(enumerate(points))[1:]
    low = max(k / (t + allowed) for k, t in later)
    high = min((k / (t - allowed) for k, t in later if t > allowed), default=2 * mean)
    if low > high or any(t + allowed <= 0 for _, t in later):
        return None
    target = min(max(mean, low), high)
    fitting = (Fraction(round(target * d), d) for d in range(1, 1002))
    return next((rate for rate in fitting if low <= rate <= high and rate > 0), None)
