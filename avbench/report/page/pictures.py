"""Draws what a feature of motion saw, as a clip that the page lays over the clip itself.

A picture has the clip's number of frames and its aspect. Frame k shows the step from frame k to the next one; the last
step is repeated. Everything is computed as the feature computes it, at the feature's working size.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from avbench.core import Clip, NotMeasurable
from avbench.features.flow import DISFlow
from avbench.features.flow.pairs import Frame, Pair, pair, remaining, working

_SIDE = 320
"""Longest side of a drawn frame, in pixels; arrows and edges need this many, however small the clip."""
_ARROWS = 14
"""Arrows along the longest side."""
_GREY_LEVELS = (1.0, 64.0)
"""Differences, in grey levels, that are black and brightest in the heat map; one scale for all clips."""
_NOT_COUNTED = (38, 70, 128)
"""Colour of pixels that the warping error leaves out; the heat map's own colours have no blue like it."""


@dataclass(frozen=True)
class Picture:
    """A picture that can be laid over a clip."""

    label: str
    words: str
    """How to read it, for the page."""
    recipe: str
    """Changes whenever the drawing changes; a file made by another recipe is made again."""
    draw: Callable[[Clip], Clip]
    """Raises NotMeasurable with a sentence if the clip has no such picture."""


def flow_picture(flow: np.ndarray, most: float) -> np.ndarray:
    """Colour flow ``[height, width, 2]`` by the colour wheel; returns ``[height, width, 3]`` uint8.

    Hue is direction (red to the right, then clockwise), brightness is speed, full at `most` pixels a frame.
    """
    angle = np.rad2deg(np.arctan2(flow[..., 1], flow[..., 0])) % 360
    speed = np.clip(np.hypot(flow[..., 0], flow[..., 1]) / max(most, 1e-6), 0, 1)
    hsv = np.stack([angle, np.ones_like(angle), speed], axis=-1).astype(np.float32)
    return (cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255).round().astype(np.uint8)


def heat_picture(squares: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Colour what warping leaves: ``[height, width]`` squared differences, summed over RGB in 0...1, and a mask.

    Black is a difference of 1 grey level or less, bright yellow one of 64 or more, on a logarithmic scale; a pixel
    outside the mask is blue. Returns ``[height, width, 3]`` uint8.
    """
    levels = 255 * np.sqrt(squares / 3)
    least, most = np.log(_GREY_LEVELS)
    heat = (np.log(np.maximum(levels, _GREY_LEVELS[0])) - least) / (most - least)
    grey = (np.clip(heat, 0, 1) * 255).round().astype(np.uint8)
    coloured = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    return np.where(visible[..., None], coloured, np.array(_NOT_COUNTED, np.uint8))


def _flow(clip: Clip) -> Clip:
    steps = [found for *_, found in _steps(clip)]
    most = float(np.quantile([np.hypot(one.motion[..., 0], one.motion[..., 1]) for one in steps], 0.995))
    return _over(clip, [_with_arrows(_enlarged(flow_picture(one.motion, most)), one.motion) for one in steps])


def _with_arrows(picture: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Draw where the moving places go, thrice as far as in one frame."""
    scale = picture.shape[1] / motion.shape[1]
    apart = max(motion.shape[:2]) // _ARROWS or 1
    for y, x in itertools.product(*(range(apart // 2, size, apart) for size in motion.shape[:2])):
        if motion[y, x].any():
            ends = np.array([[x, y], (x, y) + 3 * motion[y, x]]) * scale
            start, end = ends.round().astype(int).tolist()
            cv2.arrowedLine(picture, start, end, (255, 255, 255), 1, cv2.LINE_AA, tipLength=0.3)
    return picture


def _heat(clip: Clip) -> Clip:
    protocol = DISFlow.protocol
    maps = [remaining(one, two, there, back, protocol) for one, two, there, back, _ in _steps(clip)]
    return _over(clip, [_enlarged(heat_picture(*found)) for found in maps])


def _steps(clip: Clip) -> Iterator[tuple[Frame, Frame, np.ndarray, np.ndarray, Pair]]:
    """Yield each two consecutive working frames, the flows between them, and what they measure."""
    look = DISFlow()
    if min(clip.width, clip.height) < (least := look.protocol.minimum_side) or len(clip.frames) < 2:
        msg = f"flow needs two frames of {least} pixels on either side"
        raise NotMeasurable(msg)
    frames = (working(frame, look.protocol) for frame in clip.frames)
    for one, two in itertools.pairwise(frames):
        there, back = look.flow(one, two), look.flow(two, one)
        yield one, two, there, back, pair(one, two, there, back, look.protocol)


def _enlarged(picture: np.ndarray) -> np.ndarray:
    scale = _SIDE / max(picture.shape[:2])
    size = [max(2, round(side * scale / 2) * 2) for side in picture.shape[1::-1]]
    return cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA)


def _over(clip: Clip, pictures: list[np.ndarray]) -> Clip:
    return Clip(np.stack([*pictures, pictures[-1]]), clip.fps)


PICTURES = {
    "flow": Picture(
        "flow",
        "Colour is the direction of motion (red to the right, then clockwise), brightness its speed, full at the "
        "clip's fastest; arrows go three frames far. Black: nothing that counts as motion.",
        "DIS motion; arrows thrice; 320",
        _flow,
    ),
    "warping": Picture(
        "warping error",
        "What remains after each frame is warped along the flow to the next: black up to 1 grey level, yellow from 64. "
        "Blue is left out of the error: places that are hidden in one of the frames, leave the picture, or lie at the "
        "edge of what moves.",
        "DIS remaining; 1 to 64 grey levels; 320",
        _heat,
    ),
}
"""Name → picture. The name is a part of the file's name."""
