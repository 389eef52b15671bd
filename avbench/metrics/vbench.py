"""VBench's columns of motion and consistency, and the agreement of frames with their caption.

A frozen clip wins smoothness, flickering and consistency: there the reference's amount is right, not the most. See
features/vbench_*.py and features/raft.py for the rules.
"""

import numpy as np

from avbench.core import Columns


def vbench_dynamic_degree(columns: Columns) -> np.ndarray:
    """1 where VBench calls a clip dynamic, else 0, [clips]; the mean is the dynamic degree."""
    return np.asarray(columns["dynamic"], dtype=np.float64)


def vbench_flickering(columns: Columns) -> np.ndarray:
    """1 less the mean difference of consecutive frames, of full scale, [clips], of every clip."""
    return np.asarray(columns["flickering"], dtype=np.float64)


def vbench_flickering_static(columns: Columns) -> np.ndarray:
    """The same, [clips], of the clips that pass VBench's static filter; NaN for the others."""
    return np.where(columns["static"] > 0, columns["flickering"], np.nan)


def vbench_smoothness(columns: Columns) -> np.ndarray:
    """1 less the mean difference of odd frames from what lies between the even ones, of full scale, [clips]."""
    return np.asarray(columns["smoothness"], dtype=np.float64)


def vbench_subject(columns: Columns) -> np.ndarray:
    """Mean cosine, not below 0, of each frame's DINO features with those of the first and the one before, [clips]."""
    return np.asarray(columns["consistency"], dtype=np.float64)


def vbench_background(columns: Columns) -> np.ndarray:
    """The same with CLIP's features, [clips]."""
    return np.asarray(columns["consistency"], dtype=np.float64)


def text_alignment(columns: Columns) -> np.ndarray:
    """Mean cosine of frames and caption, [clips]."""
    return np.asarray(columns["similarity"], dtype=np.float64)
