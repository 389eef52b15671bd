"""Do picture and sound go together? AV-Align in its three versions; see features/av_align.py.

A clip without onsets, or without a peak of motion, has nothing to match: it is not measurable, where the published code
gives it 0 or divides by 0.
"""

import numpy as np

from avbench.core import Columns


def av_align(columns: Columns) -> np.ndarray:
    """TempoTokens' score since February 2025, [clips] in 0...1."""
    return _measurable(columns, "av_align", "clear_peaks")


def av_align_2024(columns: Columns) -> np.ndarray:
    """TempoTokens' score before February 2025, [clips]: it can exceed 1."""
    return _measurable(columns, "av_align_2024", "peaks")


def av_align_javisbench(columns: Columns) -> np.ndarray:
    """JavisBench's score, [clips]: it can exceed 1."""
    return _measurable(columns, "av_align_javisbench", "peaks")


def _measurable(columns: Columns, score: str, peaks: str) -> np.ndarray:
    return np.where((columns["onsets"] > 0) & (columns[peaks] > 0), columns[score], np.nan)
