"""Measures how things move after the camera's own motion is removed.

The camera's motion between two frames is modelled as a shift, a rotation and a zoom: the similarity transform that most
of the textured places agree on (RANSAC). What counts as motion is what that transform does not explain, so a subject
that the camera follows moves, though it stays in place on the screen. An object that fills most of the picture and
moves as one is mistaken for the camera, and parallax is only partly removed. Flow is in pixels of the working frames;
see avbench/features/flow.
"""

from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np

from avbench.core import Clip
from avbench.features.flow import DISFlow
from avbench.features.flow.pairs import Frame, Pair, grid, moves_otherwise, pair, working, working_size

STEP = 8
"""Pixels between the places that vote on the camera's motion."""
TEXTURE = 2.0
"""Grey levels a pixel: a place with a weaker gradient around it does not vote."""
INLIER_PIXELS = 0.7
LEAST_SHARE = 0.4
"""Share of the votes that must agree; with less, the camera's motion is unknown, and nothing is removed."""
LEAST_COVER = 0.2
"""Share of all places, textured or not, that must agree: a single object before a flat wall is no camera motion."""


class WithoutCamera(DISFlow):
    """DIS flow that also keeps, for each pair of frames, the camera's motion and the motion that remains without it."""

    def __init__(self) -> None:
        super().__init__()
        self.speeds: list[float] = []
        """Mean speed of the fastest 5 % of pixels without the camera's motion, in pixels a frame."""
        self.shifts: list[np.ndarray | None] = []
        """The camera's shift at the middle of the picture, x and y; None if it is unknown."""
        self.reaches: list[float] = []
        """Mean length of the camera's motion over the picture, in pixels a frame; 0 if it is unknown."""

    def _pairs(self, clip: Clip) -> Iterator[Pair]:
        self.speeds, self.shifts, self.reaches = [], [], []
        for one, two in pairwise(working(frame, self.protocol) for frame in clip.frames):
            forward = self.flow(one, two)
            found = pair(one, two, forward, self.flow(two, one), self.protocol)
            left, camera = found.motion, camera_flow(one, forward)
            if camera is not None:
                left = (forward - camera) * moves_otherwise(one, two, forward, camera, self.protocol)[..., None]
            self._take(left, camera)
            yield found

    def _take(self, left: np.ndarray, camera: np.ndarray | None) -> None:
        speed = np.hypot(left[..., 0], left[..., 1])
        count = max(1, round(self.protocol.moving_share_of_pixels * speed.size))
        self.speeds.append(float(np.partition(speed, speed.size - count, axis=None)[-count:].mean(dtype=np.float64)))
        if camera is None:
            self.shifts.append(None)
            self.reaches.append(0.0)
        else:
            self.shifts.append(camera[camera.shape[0] // 2, camera.shape[1] // 2])
            self.reaches.append(float(np.hypot(camera[..., 0], camera[..., 1]).mean(dtype=np.float64)))

    def summary(self, clip: Clip) -> dict[str, float]:
        """``motion_amount``, ``camera_amount`` and ``camera_shake`` of the clip measured last, in diagonals a second.

        ``camera_found`` is the share of the pairs whose camera motion is known; the shake is the mean change of the
        camera's shift from pair to pair.
        """
        diagonal = float(np.hypot(*working_size(clip.height, clip.width, self.protocol)))
        per_second = float(clip.fps) / diagonal
        changes = [np.hypot(*(b - a)) for a, b in pairwise(self.shifts) if a is not None and b is not None]
        return {
            "motion_amount": float(np.mean(self.speeds)) * per_second,
            "camera_amount": float(np.mean(self.reaches)) * per_second,
            "camera_shake": float(np.mean(changes or [0.0])) * per_second,
            "camera_found": float(np.mean([shift is not None for shift in self.shifts])),
        }


def camera_flow(frame: Frame, forward: np.ndarray) -> np.ndarray | None:
    """The flow due to the camera alone, ``[height, width, 2]``, or None if too few places agree on one."""
    grey = frame.blurred
    slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=0.125))
    votes = np.zeros(grey.shape, bool)
    votes[STEP // 2 :: STEP, STEP // 2 :: STEP] = True
    textured = votes & (cv2.dilate(slope, np.ones((STEP, STEP), np.uint8)) > TEXTURE)
    places = grid(*grey.shape)
    start = places[textured]
    if len(start) < LEAST_COVER * votes.sum():
        return None
    matrix, agree = cv2.estimateAffinePartial2D(
        start, start + forward[textured], method=cv2.RANSAC, ransacReprojThreshold=INLIER_PIXELS
    )
    if matrix is None or agree.sum() < max(LEAST_SHARE * len(start), LEAST_COVER * votes.sum()):
        return None
    moved = places @ matrix[:, :2].T.astype(np.float32) + matrix[:, 2].astype(np.float32)
    return (moved - places).astype(np.float32)
