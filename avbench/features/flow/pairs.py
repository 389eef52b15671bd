"""Measures one pair of consecutive frames with the flow between them.

Flow is ``[height, width, 2]`` float32 in pixels of the working frames, x before y. Forward flow lies on the grid of the
first frame and points to where each place is in the second; backward flow does the reverse.
"""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from avbench.features.flow.protocol import FlowProtocol


class Frame:
    """A working frame, with what the pair before and the pair after need of it, computed once."""

    def __init__(self, rgb: np.ndarray, protocol: FlowProtocol) -> None:
        self.rgb = rgb
        """``[height, width, 3]`` uint8."""
        self._blur = protocol.evidence_blur

    @functools.cached_property
    def levels(self) -> np.ndarray:
        """The same as float32."""
        return self.rgb.astype(np.float32)

    @functools.cached_property
    def grey(self) -> np.ndarray:
        """``[height, width]`` uint8."""
        return cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY)

    @functools.cached_property
    def blurred(self) -> np.ndarray:
        """``[height, width]`` float32: the grey levels, blurred as evidence of motion is read."""
        return cv2.GaussianBlur(self.grey.astype(np.float32), (0, 0), self._blur)


@dataclass(frozen=True, eq=False)
class Pair:
    """The flow of two frames where it counts as motion, and its numbers. Masks are ``[height, width]`` bool."""

    motion: np.ndarray
    """Forward flow where warping along it explains the change between the frames, 0 elsewhere."""
    target: np.ndarray
    """The place that the forward flow points to, whether it counts as motion or not."""
    lost: np.ndarray
    """True where the flow does not show what became of a place of the first frame."""
    motion_back: np.ndarray
    lost_back: np.ndarray
    fastest: float
    """Mean speed of the fastest pixels, in pixels a frame."""
    mean: float
    """Mean speed of all pixels, in pixels a frame."""
    error: float
    """Warping error over the visible pixels; 0 where none is visible."""
    visible: float
    """Share of the pixels that the error is computed over."""
    returning: float
    """Share of the moving pixels that the backward flow leads back to their start; NaN where none moves."""
    flicker: float
    """Median difference in grey levels where nothing moves; NaN where nearly everything moves."""


def pair(frame: Frame, following: Frame, forward: np.ndarray, backward: np.ndarray, protocol: FlowProtocol) -> Pair:
    """Measure two working frames with the flows between them."""
    before, after = frame.blurred, following.blurred
    places = grid(*before.shape)
    there = _Way(forward, places + forward, backward, before, after)
    back = _Way(backward, places + backward, forward, after, before)
    standing = cv2.absdiff(before, after)
    squares = _in_windows(standing**2, protocol)
    moves, moves_back = (_explains(way.left, squares, protocol) for way in (there, back))
    speed = np.sqrt(there.length2) * moves
    fastest = max(1, round(protocol.moving_share_of_pixels * speed.size))
    top = np.partition(speed, speed.size - fastest, axis=None)[-fastest:]
    inside = ~outside(there.target, 0)
    returns = ~there.misses(protocol.occlusion_relative, protocol.occlusion_absolute)
    error, visible = _warping_error(frame, following, there, returns & inside, protocol)
    moving = (speed > 0) & inside
    still = cv2.blur((speed > 0).astype(np.float32), (protocol.still_margin,) * 2) == 0
    some_still = float(still.mean()) >= protocol.still_least_share
    change = cv2.absdiff(frame.grey, following.grey)
    return Pair(
        motion=_where(moves, forward),
        target=there.target,
        lost=_lost(there, moves, standing, protocol),
        motion_back=_where(moves_back, backward),
        lost_back=_lost(back, moves_back, standing, protocol),
        fastest=float(top.mean(dtype=np.float64)),
        mean=float(speed.mean(dtype=np.float64)),
        error=error,
        visible=visible,
        returning=float(returns[moving].mean()) if moving.any() else float("nan"),
        flicker=float(np.median(change[still])) if some_still else float("nan"),
    )


class _Way:
    """A flow from one frame to another, and what several tests need of it, computed once."""

    def __init__(
        self, flow: np.ndarray, target: np.ndarray, return_flow: np.ndarray, before: np.ndarray, after: np.ndarray
    ) -> None:
        self.flow, self.target = flow, target
        self.left = sampled(after, target) - before
        """What following the flow leaves, in grey levels of the blurred frames."""
        returning = sampled(return_flow, target)
        self.length2 = square(flow)
        self._return_length2 = square(returning)
        self._miss2 = square(flow + returning)

    def misses(self, relative: float, absolute: float) -> np.ndarray:
        """Mask of the pixels whose way there and back does not end where it began (test of Sundaram et al., 2010)."""
        return self._miss2 > relative * (self.length2 + self._return_length2) + absolute


def working_size(height: int, width: int, protocol: FlowProtocol) -> tuple[int, int]:
    """Height and width of the frames on which flow is computed."""
    short = min(height, width)
    if short > protocol.longest_short_side:
        scale = protocol.longest_short_side / short
        return round(height * scale), round(width * scale)
    factor = -(-protocol.shortest_short_side // short)
    return height * factor, width * factor


def working(rgb: np.ndarray, protocol: FlowProtocol) -> Frame:
    """A frame ``[height, width, 3]`` uint8 of a clip, resized to the working size."""
    height, width = working_size(rgb.shape[0], rgb.shape[1], protocol)
    if (height, width) == rgb.shape[:2]:
        return Frame(np.ascontiguousarray(rgb), protocol)
    how = cv2.INTER_AREA if height < rgb.shape[0] else cv2.INTER_CUBIC
    return Frame(cv2.resize(rgb, (width, height), interpolation=how), protocol)


@functools.lru_cache(maxsize=4)
def grid(height: int, width: int) -> np.ndarray:
    """``[height, width, 2]`` float32, read-only: the coordinates of every pixel, x before y."""
    places = np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), axis=-1)
    places.flags.writeable = False
    return places


def sampled(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """An image or a flow at `places`, interpolated linearly; beyond the border, the border's value."""
    # The stubs forget that the second map is None where the first holds both coordinates.
    return cv2.remap(  # pyright: ignore[reportCallIssue]
        image,
        places,
        None,  # pyright: ignore[reportArgumentType]
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def outside(places: np.ndarray, border: float) -> np.ndarray:
    """Mask ``[height, width]`` bool of the places beyond the frame or within `border` pixels of its edge."""
    height, width, _ = places.shape
    return cv2.inRange(places, (border, border), (width - 1 - border, height - 1 - border)) == 0


def _lost(way: _Way, moves: np.ndarray, standing: np.ndarray, protocol: FlowProtocol) -> np.ndarray:
    """Mask of the places that the flow has lost, or that it moves without evidence, as plain ground beside a body.

    `standing` is what standing still leaves: the difference of the blurred frames in grey levels, without its sign.
    """
    lost = (standing > protocol.lost_difference) & (np.abs(way.left) > protocol.lost_ratio * standing)
    around = cv2.blur(lost.astype(np.float32), (protocol.lost_window,) * 2) > protocol.lost_share
    unproven = ~moves & (way.length2 > protocol.track_speed**2)
    return around | unproven | way.misses(protocol.return_relative, protocol.return_absolute)


def _explains(left: np.ndarray, squares: list[np.ndarray], protocol: FlowProtocol) -> np.ndarray:
    """Mask ``[height, width]`` bool of the pixels where following the flow explains the change between the frames.

    `left` is what following it leaves, and `squares` the mean square, in both windows, of what standing still leaves.
    """
    followed = _in_windows(left**2, protocol)
    near, far = (a < protocol.evidence_ratio * b for a, b in zip(followed, squares, strict=True))
    return near & far & (squares[0] > protocol.evidence_least)


def _in_windows(squares: np.ndarray, protocol: FlowProtocol) -> list[np.ndarray]:
    """Means over the narrow and over the wide window around each pixel."""
    return [cv2.blur(squares, (side, side)) for side in (protocol.evidence_window_near, protocol.evidence_window)]


def _where(mask: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """A flow where `mask` is true, and 0 elsewhere."""
    return cv2.copyTo(flow, mask.view(np.uint8), np.zeros_like(flow))


def moves_otherwise(
    frame: Frame, following: Frame, flow: np.ndarray, other: np.ndarray, protocol: FlowProtocol
) -> np.ndarray:
    """Mask ``[height, width]`` bool of the pixels of two working frames that move with `flow` and not with `other`.

    It is the mask of `Pair.motion` with another flow, such as the camera's, in place of standing still.
    """
    before, after = frame.blurred, following.blurred
    left, left_by_other = (sampled(after, grid(*before.shape) + each) - before for each in (flow, other))
    return _explains(left, _in_windows(left_by_other**2, protocol), protocol)


def remaining(
    frame: Frame, following: Frame, forward: np.ndarray, backward: np.ndarray, protocol: FlowProtocol
) -> tuple[np.ndarray, np.ndarray]:
    """What warping leaves of two working frames, for each pixel: the parts of `Pair.error`.

    Returns:
        ``[height, width]`` float32 squared differences, summed over R, G and B in 0...1, and the mask of the visible
        pixels, over which the error is the mean.
    """
    grey = frame.blurred
    way = _Way(forward, grid(*grey.shape) + forward, backward, grey, grey)
    returns = ~way.misses(protocol.occlusion_relative, protocol.occlusion_absolute)
    visible = _visible(way, returns & ~outside(way.target, 0), protocol)
    return _squares(frame, following, way.target) / 255.0**2, visible


def _warping_error(
    frame: Frame, following: Frame, there: _Way, returns_inside: np.ndarray, protocol: FlowProtocol
) -> tuple[float, float]:
    """Mean over visible pixels of |frame k+1 at x + forward(x) − frame k at x|², and the share of visible pixels.

    The formula is that of Lai et al. (2018): RGB in 0...1, squares summed over the channels. (Their script divides by
    a mask of three channels and so prints a third of this.) Everything lies on the grid of frame k.
    """
    visible = _visible(there, returns_inside, protocol)
    count = int(np.count_nonzero(visible))
    if not count:
        return 0.0, 0.0
    total = float(np.sum(_squares(frame, following, there.target), where=visible, dtype=np.float64))
    return total / (count * 255.0**2), count / visible.size


def _squares(frame: Frame, following: Frame, target: np.ndarray) -> np.ndarray:
    return square(sampled(following.levels, target) - frame.levels)


def _visible(there: _Way, returns_inside: np.ndarray, protocol: FlowProtocol) -> np.ndarray:
    """Mask of the pixels that the warping error is computed over.

    Let f = (u, v) be the forward flow, b the backward flow fetched along it, b(x + f(x)), and ∇ the forward difference.
    A pixel is invisible in frame k+1 if |f + b|² > 0.01 (|f|² + |b|²) + 0.5, and lies on a motion boundary if
    |∇u|² + |∇v|² > 0.01 |f|² + 0.002. Both tests are those of Sundaram et al. (2010) and Ruder et al. (2016).
    Unlike in the published script, pixels whose target lies outside the frame are left out as well.
    The absolute constants are in pixels²; this is one reason why the working size is part of the protocol.
    """
    slope2 = np.zeros(returns_inside.shape, dtype=np.float32)
    slope2[:, :-1] += square(np.diff(there.flow, axis=1))
    slope2[:-1] += square(np.diff(there.flow, axis=0))
    return returns_inside & (slope2 <= protocol.boundary_relative * there.length2 + protocol.boundary_absolute)


def square(vectors: np.ndarray) -> np.ndarray:
    """Squared length along the last axis."""
    squares = vectors * vectors
    return functools.reduce(np.add, (squares[..., part] for part in range(squares.shape[-1])))


def length(vectors: np.ndarray) -> np.ndarray:
    """Length along the last axis."""
    return np.sqrt(square(vectors))
