"""Measures how much of the picture text covers, whether drawn over it or part of the scene.

RapidOCR finds and reads them with the PP-OCR networks that its package ships. What it reads as one or two different
letters, or reads badly, is mostly no text: a drumstick is a 7, a cymbal an X, balls in a row OOO. It does not count.
"""

from typing import Any

import cv2
import numpy as np
from rapidocr import RapidOCR

LONGEST_SIDE = 960
"""Pixels that a larger picture is brought down to."""
LETTERS, SURENESS = 3, 0.6
"""What a line of text needs to count: different letters or digits, and the network's score."""


class Words:
    """``words(frames)`` gives the share of the picture, 0 to 1, that lines of text cover: the median over the frames.

    Words that are seen in less than half of the frames therefore do not count.
    """

    def __init__(self) -> None:
        threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
        size = {"Det.limit_type": "max", "Det.limit_side_len": LONGEST_SIDE}
        self._read: Any = RapidOCR(params={"Global.log_level": "error", "Global.use_cls": False, **threads, **size})

    def __call__(self, frames: np.ndarray) -> float:
        """``frames`` [n, height, width, 3] uint8 RGB."""
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
