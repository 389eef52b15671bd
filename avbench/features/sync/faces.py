"""Finds the face of a clip that can be followed longest, and cuts it out of the frames as SyncNet's authors do.

The authors (Chung and Zisserman, 2016; run_pipeline.py of joonson/syncnet_python at 6efbb1c) detect faces with S3FD.
Here it is YuNet (Wu et al., 2023), by OpenCV's own FaceDetectorYN; both were trained on WIDER FACE. Coordinates are in
pixels of the frame, ``(left, top, right, bottom)``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy import signal

from avbench.features.networks import read_as


@dataclass(frozen=True)
class Finding:
    """How faces are found, followed and cut out."""

    longest: int = 640
    """Pixels. A frame with a longer side is reduced to it before faces are detected."""
    confidence: float = 0.9
    """A detection below it is no face."""
    overlap: float = 0.5
    """Intersection over union of two detections of one face, which they must exceed."""
    gap: int = 25
    """Frames after which a face that was not detected is lost."""
    median: int = 13
    """Frames over which size and place of a face are smoothed."""
    margin: float = 0.4
    """Around the face, as a share of half its size."""
    grey: int = 110
    """Value around the frame."""
    size: int = 224
    """Pixels of a side of the picture that is cut out."""


@dataclass(frozen=True)
class Face:
    """One face in consecutive frames."""

    first: int
    """Frame in which it is detected first."""
    boxes: np.ndarray
    """``[frames, 4]``; linear between detections."""

    @property
    def pixels(self) -> float:
        """The larger of mean width and mean height."""
        return float((self.boxes[:, 2:] - self.boxes[:, :2]).mean(axis=0).max())


_ERRORS_ONLY = 2
"""OpenCV's LOG_LEVEL_ERROR."""


class Detector:
    """YuNet. The constructor raises InputError if the file is none."""

    def __init__(self, model: Path, finding: Finding) -> None:
        log: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV 4 has these functions in cv2 itself
        self._finding, before = finding, log.getLogLevel()
        log.setLogLevel(_ERRORS_ONLY)  # OpenCV 5 prints a warning of its own
        empty = np.zeros(0, np.uint8)
        try:
            with read_as("YuNet", model):
                read, size = np.fromfile(model, np.uint8), (320, 320)
                self._detector = cv2.FaceDetectorYN.create("onnx", read, empty, size, finding.confidence, 0.3, 5000)
        finally:
            log.setLogLevel(before)

    def boxes(self, frame: np.ndarray) -> np.ndarray:
        """The faces of a frame ``[height, width, 3]`` RGB, ``[faces, 4]``, the surest first."""
        height, width = frame.shape[:2]
        smaller = min(1.0, self._finding.longest / max(height, width))
        size = max(1, round(width * smaller)), max(1, round(height * smaller))
        seen = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        if smaller < 1:
            seen = cv2.resize(seen, size, interpolation=cv2.INTER_AREA)
        self._detector.setInputSize(size)
        found = self._detector.detect(seen)[1]
        if found is None:
            return np.zeros((0, 4))
        found = found[np.argsort(-found[:, 14], kind="stable")].astype(np.float64)
        corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], axis=1)
        return corners * (np.array([width, height] * 2) / np.array([*size] * 2))


def followed(found: list[np.ndarray], finding: Finding) -> list[Face]:
    """The faces that the detections of consecutive frames belong to, in the order of their first frames.

    A detection belongs to the face whose last detection it overlaps most, if that is more than `overlap`.
    """
    tracks: list[list[tuple[int, np.ndarray]]] = []
    for frame, boxes in enumerate(found):
        left = [track for track in tracks if frame - track[-1][0] <= finding.gap]
        for box in boxes:
            overlaps = [overlap(box, track[-1][1]) for track in left]
            if overlaps and max(overlaps) > finding.overlap:
                track = left.pop(int(np.argmax(overlaps)))
            else:
                track = []
                tracks.append(track)
            track.append((frame, box))
    return [_face(track) for track in tracks]


def _face(track: list[tuple[int, np.ndarray]]) -> Face:
    frames, boxes = [frame for frame, _ in track], np.array([box for _, box in track])
    every = np.arange(frames[0], frames[-1] + 1)
    return Face(frames[0], np.stack([np.interp(every, frames, side) for side in boxes.T], axis=1))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(sides.clip(0)))
    both = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]))
    return shared / (both - shared)


def cut_out(frames: Iterable[np.ndarray], face: Face, finding: Finding) -> np.ndarray:
    """The face in its frames, resized: ``[frames, size, size, 3]``.

    Args:
        frames: those in which the face is, ``[height, width, 3]`` each.
        face: it.
        finding: the settings.
    """
    boxes, kernel = face.boxes, finding.median
    half = signal.medfilt(np.max(boxes[:, 2:] - boxes[:, :2], axis=1) / 2, kernel)
    across, down = (signal.medfilt((boxes[:, side] + boxes[:, side + 2]) / 2, kernel) for side in (0, 1))
    cut = []
    for frame, size, x, y in zip(frames, half, across, down, strict=True):
        edge = int(size * (1 + 2 * finding.margin))
        frame = np.pad(frame, ((edge, edge), (edge, edge), (0, 0)), constant_values=finding.grey)
        x, y, wide = x + edge, y + edge, size * (1 + finding.margin)
        # Below the face there is twice the margin, and above it none.
        part = frame[int(y - size) : int(y + size * (1 + 2 * finding.margin)), int(x - wide) : int(x + wide)]
        cut.append(cv2.resize(part, (finding.size, finding.size)))
    return np.stack(cut)
