"""How do things move, and does the next frame look as the motion says? Dense optical flow, once a clip.

Conventions: flow is ``[height, width, 2]`` float32 in pixels of the working frames, x before y; the forward flow of a
pair stands on the grid of frame k and points to where that place is in frame k+1. Speeds are in frame diagonals per
second, so that they do not depend on resolution or frame rate.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from avbench.core import Clip, NotMeasurable, Protocol, Value


@dataclass(frozen=True)
class FlowProtocol(Protocol):
    """What decides the flow numbers. All sizes in pixels are those of the working frames."""

    name: str = "flow-dis"
    version: int = 2
    fps: str = "native"
    algorithm: str = "OpenCV DIS, preset medium"
    grey: str = "Rec. 601 luma, 8 bits, of the working frame"
    minimum_side: int = 16
    """Native pixels. With a shorter side than this OpenCV's DIS refuses the frame or, where it is oblong, crashes."""
    longest_short_side: int = 256
    """Frames whose short side exceeds this are shrunk to it, by area."""
    shortest_short_side: int = 128
    """Frames whose short side is below this are enlarged, bicubically, by the smallest whole factor that reaches it:
    the preset stops at half resolution, which on 64x64 frames costs much of the accuracy."""
    occlusion_relative: float = 0.01
    occlusion_absolute: float = 0.5
    boundary_relative: float = 0.01
    boundary_absolute: float = 0.002
    channels: str = "squares summed over R, G and B in 0...1, not averaged"
    moving_share_of_pixels: float = 0.05
    """A pair's motion is the mean of this share of its pixels, the fastest."""
    evidence_ratio: float = 0.4
    """Flow counts as motion only where following it leaves less than this share of the squared grey difference that
    standing still leaves, in a square window around the pixel. Grain on a flat background hardly ever gets there,
    however strong: without this rule it is read as several pixels of motion."""
    evidence_window: int = 25
    evidence_window_near: int = 9
    """The narrow window keeps the grain around a moving thing from being taken along."""
    evidence_blur: float = 1.0
    """Sigma of the Gaussian applied to both frames before the two differences are taken."""
    moving_threshold: float = 0.005
    """Diagonals per second from which a pair of frames, or on average a clip, counts as moving: 0.45 pixels a second
    at 64x64. Grain on a small still clip came to 0.004 at most, a disc of 6 pixels drifting at 1 pixel a second to
    0.006."""
    histogram_spans: int = 2
    """Equal spans of time that the motion histogram tells apart,"""
    histogram_side: int = 2
    """parts of the frame along each axis,"""
    histogram_directions: int = 8
    """and directions; a vector counts for the two nearest, in proportion."""
    acceleration_seconds: float = 1 / 64
    """A change of speed within this time weighs as much in the histogram as the speed itself."""


class _Pair(NamedTuple):
    motion: float
    """Mean magnitude of the fastest pixels, in pixels."""
    mean: float
    """Mean magnitude of all pixels, in pixels."""
    error: float
    """Warping error over the visible pixels; 0 where none is."""
    visible: float
    """Share of the pixels that the error rests on."""


class DISFlow:
    """Motion and warping error by DIS flow (Kroeger et al., 2016). Values of one clip:

    - ``motion_amount``: speed of the moving parts in diagonals per second: per pair the mean of the fastest 5 % of
      pixels (VBench's dynamic degree, before its threshold), mean over pairs. Parts smaller than 5 % of the frame are
      diluted.
    - ``motion_curve``: ``[time - 1]``, the same for every pair of frames.
    - ``mean_motion``: mean over all pixels instead of the fastest.
    - ``moving_share``: share of the pairs that move at all.
    - ``moves``: 1 if the clip moves, 0 if it is frozen.
    - ``warping_error``: see `_warping_error`; mean over the pairs of which anything is visible in both frames.
    - ``visible_share``: share of the pixels that the warping error rests on; where it is 0 the error is without
      meaning.
    - ``motion_histogram``: ``[128]``, see `_motion_histogram`.
    """

    protocol = FlowProtocol()

    def __init__(self, device: str = "cpu") -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, clip: Clip) -> dict[str, Value]:
        """Measure one clip. Raises NotMeasurable on fewer than 4 frames, or on frames too small for DIS."""
        if len(clip.frames) < (fewest := self.protocol.histogram_spans + 2):
            msg = f"the clip has {len(clip.frames)} frames; motion and its changes need {fewest}"
            raise NotMeasurable(msg)
        least = self.protocol.minimum_side
        if min(clip.height, clip.width) < least:
            msg = f"the frames are {clip.width}x{clip.height}; flow needs {least} pixels on either side"
            raise NotMeasurable(msg)
        working = (_working(frame, self.protocol) for frame in clip.frames)
        pairs: list[_Pair] = []
        velocities: list[np.ndarray] = []
        changes: list[np.ndarray] = []
        flow = target = None
        for frame, following in itertools.pairwise(working):
            came_from, led_to = flow, target
            pair, flow, target = self._pair(frame, following)
            pairs.append(pair)
            velocities.append(_by_cell_and_direction(flow, self.protocol))
            if came_from is not None and led_to is not None:
                changes.append(_by_cell_and_direction(_sampled(flow, led_to) - came_from, self.protocol))
        height, width = _working_size(clip.height, clip.width, self.protocol)
        per_second = float(clip.fps) / float(np.hypot(height, width))
        motion = np.array([pair.motion for pair in pairs]) * per_second
        errors = [pair.error for pair in pairs if pair.visible > 0]
        amount, threshold = float(motion.mean()), self.protocol.moving_threshold
        return {
            "motion_amount": amount,
            "motion_curve": motion,
            "mean_motion": float(np.mean([pair.mean for pair in pairs]) * per_second),
            "moving_share": float((motion >= threshold).mean()),
            "moves": float(amount >= threshold),
            "warping_error": float(np.mean(errors)) if errors else 0.0,
            "visible_share": float(np.mean([pair.visible for pair in pairs])),
            "motion_histogram": _motion_histogram(velocities, changes, per_second, float(clip.fps), self.protocol),
        }

    def _pair(self, frame: np.ndarray, following: np.ndarray) -> tuple[_Pair, np.ndarray, np.ndarray]:
        """The pair's numbers, its forward flow where that counts as motion (else 0), and where the flow points."""
        grey, following_grey = (cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in (frame, following))
        forward = self._dis.calc(grey, following_grey, None)
        backward = self._dis.calc(following_grey, grey, None)
        target = _grid(*grey.shape) + forward
        motion = forward * _evidence(grey, following_grey, target, self.protocol)[..., None]
        speed = np.hypot(motion[..., 0], motion[..., 1])
        fastest = max(1, round(self.protocol.moving_share_of_pixels * speed.size))
        top = np.partition(speed, speed.size - fastest, axis=None)[-fastest:]
        error, visible = _warping_error(frame, following, forward, backward, target, self.protocol)
        mean = float(speed.mean(dtype=np.float64))
        return _Pair(float(top.mean(dtype=np.float64)), mean, error, visible), motion, target


def _working_size(height: int, width: int, protocol: FlowProtocol) -> tuple[int, int]:
    short = min(height, width)
    if short > protocol.longest_short_side:
        scale = protocol.longest_short_side / short
        return round(height * scale), round(width * scale)
    factor = -(-protocol.shortest_short_side // short)
    return height * factor, width * factor


def _working(frame: np.ndarray, protocol: FlowProtocol) -> np.ndarray:
    height, width = _working_size(*frame.shape[:2], protocol)
    if (height, width) == frame.shape[:2]:
        return np.ascontiguousarray(frame)
    shrinks = height < frame.shape[0]
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _grid(height: int, width: int) -> np.ndarray:
    """``[height, width, 2]`` float32: every pixel's own place, x before y."""
    return np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), axis=-1)


def _sampled(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    return cv2.remap(image, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _evidence(grey: np.ndarray, following: np.ndarray, target: np.ndarray, protocol: FlowProtocol) -> np.ndarray:
    """Where does following the flow explain the change between the frames? ``[height, width]`` bool."""
    before, after = (
        cv2.GaussianBlur(image.astype(np.float32), (0, 0), protocol.evidence_blur) for image in (grey, following)
    )
    still = (after - before) ** 2
    followed = (_sampled(after, target) - before) ** 2
    moves = np.ones(grey.shape, dtype=bool)
    for side in (protocol.evidence_window, protocol.evidence_window_near):
        moves &= cv2.blur(followed, (side, side)) < protocol.evidence_ratio * cv2.blur(still, (side, side))
    return moves


def _warping_error(
    frame: np.ndarray,
    following: np.ndarray,
    forward: np.ndarray,
    backward: np.ndarray,
    target: np.ndarray,
    protocol: FlowProtocol,
) -> tuple[float, float]:
    """Mean over visible pixels of |frame k+1 at x + forward(x) − frame k at x|², and the share of visible pixels.

    The formula is that of Lai et al. (2018): RGB in 0...1, squares summed over the channels (their script divides by
    a mask of three channels and so prints a third of this). Everything stands on the grid of frame k: with f the
    forward flow and b the backward flow fetched along it, b(x + f(x)), a pixel is invisible in frame k+1 if
    |f + b|² > 0.01 (|f|² + |b|²) + 0.5, and on a motion boundary if |∇u|² + |∇v|² > 0.01 |f|² + 0.002, where
    ∇ is the forward difference of f = (u, v) (both tests are those of Sundaram et al., 2010, and Ruder et al., 2016).
    Unlike the published script, pixels whose target lies outside the frame are left out as well.
    The absolute constants are in pixels², one reason why the working size is part of the protocol.
    """
    height, width = frame.shape[:2]
    returning = _sampled(backward, target)
    length2 = _square(forward)
    misses = _square(forward + returning)
    visible = misses <= protocol.occlusion_relative * (length2 + _square(returning)) + protocol.occlusion_absolute
    slope2 = np.zeros((height, width), dtype=np.float32)
    slope2[:, :-1] += _square(np.diff(forward, axis=1))
    slope2[:-1] += _square(np.diff(forward, axis=0))
    visible &= slope2 <= protocol.boundary_relative * length2 + protocol.boundary_absolute
    x, y = target[..., 0], target[..., 1]
    visible &= (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    count = int(np.count_nonzero(visible))
    if not count:
        return 0.0, 0.0
    difference = _sampled(following.astype(np.float32), target) - frame
    total = float(np.sum(_square(difference), where=visible, dtype=np.float64))
    return total / (count * 255.0**2), count / visible.size


def _motion_histogram(
    velocities: list[np.ndarray], changes: list[np.ndarray], per_second: float, fps: float, protocol: FlowProtocol
) -> np.ndarray:
    """Which way things move, and change their motion, where and when: float32, square roots of mean speeds.

    The idea is that of the Fréchet video motion distance (Liu et al., 2024), on dense flow instead of tracked points:
    velocities in diagonals per second, and their changes along the flow, v(k+1) at x + v(k) less v(k) at x, in
    diagonals per second per `acceleration_seconds`; mean length in cells of time, space and direction, as ``[velocity
    or change, span, row, column, direction]``, flat. The root keeps a few fast clips from being all a distance sees.
    """
    unit = np.array([per_second, per_second * fps * protocol.acceleration_seconds])
    spans = [
        np.mean(part, axis=0)
        for kind, scale in zip((velocities, changes), unit, strict=True)
        for part in np.array_split(np.array(kind) * scale, protocol.histogram_spans)
    ]
    return np.sqrt(np.concatenate(spans)).astype(np.float32)


def _by_cell_and_direction(vectors: np.ndarray, protocol: FlowProtocol) -> np.ndarray:
    """Mean length of ``[height, width, 2]`` vectors over each part of the frame, shared out among directions; flat."""
    height, width, _ = vectors.shape
    side, directions = protocol.histogram_side, protocol.histogram_directions
    cell = (np.arange(height) * side // height)[:, None] * side + np.arange(width) * side // width
    length = np.hypot(vectors[..., 0], vectors[..., 1])
    turn = np.arctan2(vectors[..., 1], vectors[..., 0]) / (2 * np.pi) * directions
    before = np.floor(turn)
    share = turn - before
    total = np.zeros(side * side * directions)
    for direction, weight in ((before, 1 - share), (before + 1, share)):
        place = cell * directions + direction.astype(np.intp) % directions
        total += np.bincount(place.ravel(), (length * weight).ravel(), len(total))
    return (total.reshape(-1, directions) / np.bincount(cell.ravel())[:, None]).ravel()


def _square(vectors: np.ndarray) -> np.ndarray:
    """Squared length along the last axis."""
    return np.einsum("...c,...c->...", vectors, vectors)
