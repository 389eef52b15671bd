"""Averages LPIPS over a clip, in three uses with names of their own; see features/perceptual/lpips.py."""

import numpy as np

from avbench.core import Columns


def lpips_consecutive(columns: Columns) -> np.ndarray:
    """Mean LPIPS between consecutive frames, [clips]. A frozen clip has 0, flicker a high value; neither is right."""
    return columns["mean"]


def lpips_reference(columns: Columns) -> np.ndarray:
    """Mean LPIPS between a clip's frames and those of its reference clip, [clips]."""
    return columns["mean"]


def lpips_seeds(columns: Columns) -> np.ndarray:
    """Mean LPIPS between a clip's frames and those of the prompt's other seeds, [clips]: a measure of diversity."""
    return columns["mean"]
