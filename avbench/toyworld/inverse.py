"""Finds the bodies that a toy clip shows, from its pixels, for clips without a recorded ground truth.

Only bodies are coloured (see `picture`), so a saturated pixel belongs to the body whose named colour has its hue.
Touching bodies of one colour are found as one.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from avbench.toyworld.scene import COLOURS

_LEAST_CHROMA = 40
"""Largest minus smallest of R, G and B; walls and ground stay below 20."""
_LEAST_AREA = 8
"""Pixels of a 64×64 frame; smaller patches are the soft edge of another body."""


@dataclass(frozen=True)
class Body:
    """A patch of one colour in a frame."""

    colour: str
    area: int
    """Pixels."""
    centre: tuple[float, float]
    """x and y, pixels from the upper left corner."""
    box: tuple[int, int, int, int]
    """Left, top, right and bottom edge in pixels; the last two are exclusive."""


def bodies(frame: np.ndarray) -> list[Body]:
    """Find the bodies in a frame ``[height, width, 3]`` uint8, the largest first."""
    names = list(COLOURS)
    hues = _hue(np.array([list(COLOURS.values())], np.uint8))[0]
    chroma = np.ptp(frame.astype(np.int16), axis=2)
    apart = np.abs(_hue(frame)[..., None] - hues)
    nearest = np.minimum(apart, 360 - apart).argmin(axis=2)
    least = max(1, _LEAST_AREA * frame.shape[0] * frame.shape[1] // 64**2)
    found = []
    for index, name in enumerate(names):
        mask = ((nearest == index) & (chroma >= _LEAST_CHROMA)).astype(np.uint8)
        count, _, table, centres = cv2.connectedComponentsWithStats(mask, connectivity=8)
        for k in range(1, count):
            if (area := int(table[k, cv2.CC_STAT_AREA])) >= least:
                left, top, width, height = (int(value) for value in table[k, :4])
                box = (left, top, left + width, top + height)
                found.append(Body(name, area, (float(centres[k, 0]), float(centres[k, 1])), box))
    return sorted(found, key=lambda body: -body.area)


def _hue(image: np.ndarray) -> np.ndarray:
    """The hue of each pixel in degrees."""
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)[..., 0]
