"""Measures how much of the picture text covers, whether drawn over it or part of the scene.

RapidOCR finds and reads it with the PP-OCR networks that its package ships. A line that is read with only one or two
different letters, or with a low score, is mostly no text and does not count: a drumstick is read as 7, a cymbal as X,
balls in a row as OOO.
"""

from typing import Any

import cv2
import numpy as np
from rapidocr import RapidOCR

LONGEST_SIDE = 960
"""Pixels to which the longer side of larger pictures is shrunk."""
LETTERS, SURENESS = 3, 0.6
"""Least number of different letters or digits, and least score of the network, for a line of text to count."""


class Words:
    """``words(frames)`` returns the share of the picture, 0 to 1, that lines of text cover: the median over the frames.

    So text that appears in less than half of the frames does not count.
    """

    def __init__(self) -> None:
        threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
        size = {"Det.limit_type": "max", "Det.limit_side_len": LONGEST_SIDE}
        self._read: Any = RapidOCR(params={"Global.log_level": "error", "Global.use_cls": False, **threads, **size})

    def __call__(self, frames: np.ndarray) -> float:
        """Measure ``frames`` [n, height, width, 3] uint8 RGB."""
        return float(np.median([self._share(frame) for frame in frames]))

    def _share(self, frame: np.ndarray) -> float:
        found = self._read(np.ascontiguousarray(frame[..., ::-1]))
        if found.boxes is None:
            return 0.0
        covered = sum(
            cv2.contourArea(box.astype(np.float32))
            for box, text, score in zip(found.boxes, found.txts, found.scores, strict=True)
            if score >= SURENESS and len(set(filter(str.isalnum, text.lower()))) >= LETTERS
        )
        return min(1.0, covered / (frame.shape[0] * frame.shape[1]))
