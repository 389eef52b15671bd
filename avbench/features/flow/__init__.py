"""Measures motion by dense optical flow: how fast, how steadily, where it is abrupt, and how well frames follow it.

The flow between consecutive frames is computed once for each clip, forward and backward; all flow metrics use it.

Conventions: flow is ``[height, width, 2]`` float32 in pixels of the working frames, x before y. The forward flow of a
pair lies on the grid of frame k and points to where each place is in frame k+1. Speeds are in frame diagonals per
second, so they hardly depend on resolution. At a high frame rate they are lower: of discs at 0.04 to 0.3 diagonals per
second, in frames of 64 and 256 pixels, `motion_amount` reads 1 to 23 % less at 60 frames per second than at 8, and up
to 30 % less if they hardly stand out from the ground. Compare clips of one rate.
"""

import itertools
from collections.abc import Iterator

import cv2
import numpy as np

from avbench.core import Clip, Value
from avbench.features.flow import tracks
from avbench.features.flow.histogram import by_cell_and_direction, motion_histogram
from avbench.features.flow.pairs import Frame, Pair, length, pair, sampled, working, working_size
from avbench.features.flow.protocol import FlowProtocol
from avbench.features.limits import require_frames, require_sides


class DISFlow:
    """The feature ``flow-dis``: flow by DIS (Kroeger et al., 2016). Values of one clip:

    - ``motion_amount``: speed of the moving parts in diagonals per second. For each pair of frames it is the mean speed
      of the fastest 5 % of pixels (VBench's dynamic degree before its threshold); the clip's value is the mean over
      pairs. A moving part that covers less than 5 % of the frame is diluted.
    - ``motion_curve``: ``[time - 1]``, the same number for every pair of frames.
    - ``mean_motion``: the mean speed of all pixels instead of the fastest.
    - ``moving_share``: share of the pairs that move at all.
    - ``moves``: 1 if the clip moves, 0 if it is frozen.
    - ``warping_error``: see `pairs._warping_error`; the mean over the pairs that have pixels visible in both frames.
    - ``visible_share``: share of the pixels that the warping error rests on; where it is 0 the error has no meaning.
    - ``returning_share``: share of the moving pixels that the backward flow leads back; 0 where none moves.
    - ``acceleration``: mean length of the change of velocity along the flow within an eighth of a second, in diagonals
      per second², where anything moves; 0 where nothing does.
    - ``still_flicker``: median change of brightness from frame to frame where nothing moves, in grey levels; the mean
      over the pairs of frames of which at least 5 % is still. ``still_share`` is the share of such pairs.
    - ``motion_histogram``: ``[128]``, see `histogram.motion_histogram`.
    - ``event_seconds``, ``event_strength`` (diagonals per second), ``event_x``, ``event_y``: ``[events]`` abrupt
      changes of motion, see `tracks`. ``event_rate`` is their number per second of the time in which events can be
      found, from ``event_from`` to ``event_until`` seconds. A clip of fewer than 6 frames has no such time.
    """

    protocol = FlowProtocol()
    streams = True

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def flow(self, frame: Frame, following: Frame) -> np.ndarray:
        """Flow from one working frame to another."""
        # With None, which the stubs forget, OpenCV allocates the flow.
        return self._dis.calc(frame.grey, following.grey, None)  # pyright: ignore[reportCallIssue, reportArgumentType]

    def __call__(self, clip: Clip) -> dict[str, Value]:
        """Measure one clip. Raises NotMeasurable if it has fewer than 4 frames or its frames are too small for flow."""
        require_frames(clip.frames, self.protocol.histogram_spans + 2, "motion and its changes need")
        require_sides(clip.frames, self.protocol.minimum_side, "flow needs")
        fps = float(clip.fps)
        per_second = fps / float(np.hypot(*working_size(clip.height, clip.width, self.protocol)))
        summary = _Summary(self.protocol, len(clip.frames), fps)
        floor = self.protocol.event_floor / per_second
        found = list(tracks.changes(summary.seen(self._pairs(clip)), floor, self.protocol))
        return summary.values(per_second) | self._events(found, len(clip.frames), per_second, fps)

    def _pairs(self, clip: Clip) -> Iterator[Pair]:
        frames = (working(frame, self.protocol) for frame in clip.frames)
        for one, two in itertools.pairwise(frames):
            yield pair(one, two, self.flow(one, two), self.flow(two, one), self.protocol)

    def _events(self, found: list[tracks.Change], frames: int, per_second: float, fps: float) -> dict[str, Value]:
        chosen = tracks.events(found, self.protocol.event_floor / per_second)
        first = tracks.SPAN // 2
        begin, end = (first / fps, (frames - 1 - first) / fps) if found else (0.0, 0.0)
        return {
            "event_seconds": np.array([event.frames / fps for event in chosen]),
            "event_strength": np.array([event.strength * per_second for event in chosen]),
            "event_x": np.array([event.x for event in chosen]),
            "event_y": np.array([event.y for event in chosen]),
            "event_rate": len(chosen) / (end - begin) if end > begin else 0.0,
            "event_from": begin,
            "event_until": end,
        }


class _Summary:
    """Collects the numbers of a clip's pairs while the pairs pass through `seen`."""

    def __init__(self, protocol: FlowProtocol, frames: int, fps: float) -> None:
        self._protocol = protocol
        span = min(round(protocol.acceleration_span * fps), (frames - 2) // protocol.histogram_spans)
        self._span = max(1, span)
        """Frames from one velocity to the one that it is compared with."""
        self._changes_per_second = fps / self._span
        self._pairs: list[tuple[float, float, float, float, float, float]] = []
        self._velocities: list[np.ndarray] = []
        self._changes: list[np.ndarray] = []
        self._accelerations: list[float] = []

    def seen(self, pairs: Iterator[Pair]) -> Iterator[Pair]:
        """Yield the pairs unchanged, and record their numbers."""
        before: Pair | None = None
        place, passed = np.zeros(0), 0
        for one in pairs:
            self._pairs.append((one.fastest, one.mean, one.error, one.visible, one.returning, one.flicker))
            self._velocities.append(by_cell_and_direction(one.motion, self._protocol))
            if before is not None:
                passed, led = passed + 1, sampled(one.motion, place)
                if passed == self._span:
                    self._changed(before.motion, led)
                    before = None
                else:
                    place = place + led
            if before is None:
                before, place, passed = one, one.target, 0
            yield one

    def _changed(self, before: np.ndarray, after: np.ndarray) -> None:
        change = after - before
        self._changes.append(by_cell_and_direction(change, self._protocol))
        moves = (after != 0) | (before != 0)
        if moves.any():
            moving = moves[..., 0] | moves[..., 1]
            self._accelerations.append(float(length(change)[moving].mean(dtype=np.float64)))

    def values(self, per_second: float) -> dict[str, Value]:
        """The values of DISFlow without its events."""
        fastest, mean, error, visible, returning, flicker = np.array(self._pairs).T
        motion = fastest * per_second
        amount, threshold = float(motion.mean()), self._protocol.moving_threshold
        still = ~np.isnan(flicker)
        return {
            "motion_amount": amount,
            "motion_curve": motion,
            "mean_motion": float(mean.mean() * per_second),
            "moving_share": float((motion >= threshold).mean()),
            "moves": float(amount >= threshold),
            "warping_error": float(error[visible > 0].mean()) if (visible > 0).any() else 0.0,
            "visible_share": float(visible.mean()),
            "returning_share": _mean_known(returning),
            "acceleration": float(np.mean(self._accelerations or [0.0]) * per_second * self._changes_per_second),
            "still_flicker": _mean_known(flicker),
            "still_share": float(still.mean()),
            "motion_histogram": motion_histogram(
                self._velocities, self._changes, per_second, self._changes_per_second, self._protocol
            ),
        }


def _mean_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else 0.0
