"""Finds where and when motion changes abruptly, by following pixels along the flow over six frames.

Each pixel of frame k is followed three frames forward and two frames back. This gives five velocities v1...v5; v3 is
the one between frames k and k+1. A collision between those two frames makes v4 differ from v2. A smooth motion changes
velocity as much before (v2 − v1) and after (v5 − v4): subtracting these leaves nothing of free fall and little of a
swing. A pixel's change is abrupt if most of it remains after the subtraction and if both of those changes are small
beside it. It is an event if most of the moving pixels around it agree. How v3 lies between v2 and v4 gives the time of
the event between the two frames.
"""

import functools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np

from avbench.features.flow.pairs import Pair, grid, length, outside, sampled, square
from avbench.features.flow.protocol import FlowProtocol

SPAN = 5
"""Consecutive pairs of frames that are needed to find an event."""


class Change(NamedTuple):
    """The most abrupt change of motion between two frames."""

    frames: float
    """The time, counted in frames from the clip's first."""
    strength: float
    """Change of velocity in pixels a frame; 0 where nothing changes abruptly."""
    x: float
    y: float
    """The place, as shares of width and height from the upper left corner."""


def changes(pairs: Iterable[Pair], floor: float, protocol: FlowProtocol) -> Iterator[Change]:
    """Yield the most abrupt change between frames 2 and 3, then 3 and 4, and so on, in order.

    Where all motion is too slow for a change of `floor` pixels a frame, nothing is followed and the change is 0.
    """
    window: list[Pair] = []
    for number, following in enumerate(pairs):
        window = [*window[1 - SPAN :], following]
        if len(window) == SPAN:
            at = number - SPAN // 2
            _, before, _, after, _ = window
            slow = _quickest(before.motion_back) + _quickest(after.motion) < floor
            yield Change(at + 0.5, 0.0, 0.5, 0.5) if slow else _change(window, at, protocol)


def events(found: list[Change], floor: float) -> list[Change]:
    """The changes of at least `floor` that are stronger than the changes before and after them."""
    strengths = [0.0, *(change.strength for change in found), 0.0]
    beside = zip(found, strengths, strengths[2:], strict=False)
    return [one for one, before, after in beside if one.strength >= floor and before <= one.strength > after]


def _change(window: list[Pair], number: int, protocol: FlowProtocol) -> Change:
    (v1, v2, v3, v4, v5), lost = _tracked(window, protocol)
    height, width = lost.shape
    change, before, after = v4 - v2, v2 - v1, v5 - v4
    size, left = length(change), length(change - before - after)
    smooth = np.maximum(length(before), length(after))
    moving = functools.reduce(np.maximum, map(length, (v1, v2, v3, v4, v5))) > protocol.track_speed
    abrupt = (left > protocol.event_abruptness * size) & (smooth < protocol.event_smoothness * size)
    abrupt &= moving & ~lost & (size > protocol.track_speed)
    share = _mean(abrupt, protocol)
    agreed = (share > protocol.track_pixels) & (share > protocol.track_share * _mean(moving | lost, protocol))
    strength = np.where(agreed, _mean(np.minimum(size, left) * abrupt, protocol) / np.maximum(share, 1e-6), 0.0)
    y, x = np.unravel_index(strength.argmax(), strength.shape)
    if not agreed.any():
        return Change(number + 0.5, 0.0, 0.5, 0.5)
    around = agreed & abrupt & (strength > strength[y, x] / 2)
    if not around.any():
        around = agreed
    change, early = change[around], (v3 - v2)[around]
    changed = np.sum(early * change, axis=-1) / np.maximum(np.sum(change**2, axis=-1), 1e-9)
    when = number + 1 - float(np.clip(np.median(changed), 0, 1))
    return Change(when, float(strength[y, x]), float(x / width), float(y / height))


def _quickest(flow: np.ndarray) -> float:
    """The greatest length, which no flow that is interpolated from this one exceeds."""
    return math.sqrt(square(flow).max())


def _tracked(window: list[Pair], protocol: FlowProtocol) -> tuple[list[np.ndarray], np.ndarray]:
    """Velocities v1...v5 on the grid of the middle pair's first frame, and a mask of the places whose track is lost."""
    first, second, middle, third, fourth = window
    start = grid(*middle.lost.shape)
    velocities = {2: middle.motion}
    lost = middle.lost | outside(start, protocol.track_border)
    for direction, steps in ((1, ((3, third), (4, fourth))), (-1, ((1, second), (0, first)))):
        place = start + middle.motion if direction > 0 else start
        for index, pair in steps:
            lost |= outside(place, protocol.track_border)
            flow, gone = (pair.motion, pair.lost) if direction > 0 else (pair.motion_back, pair.lost_back)
            step = sampled(flow, place)
            lost |= sampled(gone.astype(np.float32), place) > 0.5
            velocities[index] = direction * step
            place = place + step
        lost |= outside(place, protocol.track_border)
    return [velocities[index] for index in range(SPAN)], lost


def _mean(image: np.ndarray, protocol: FlowProtocol) -> np.ndarray:
    """Mean over the window around each pixel."""
    return cv2.blur(image.astype(np.float32), (protocol.track_window,) * 2)
