"""How unlike are frames to the eye? Means of LPIPS, in three meanings kept apart by name; see features/lpips.py."""

import numpy as np

from avbench.core import Columns


def lpips_consecutive(columns: Columns) -> np.ndarray:
    """Mean LPIPS between consecutive frames, [clips]: neither a frozen clip's 0 nor flicker's much is right."""
    return columns["mean"]


def lpips_reference(columns: Columns) -> np.ndarray:
    """Mean LPIPS between a clip's frames and those of its reference clip, [clips]."""
    return columns["mean"]


def lpips_seeds(columns: Columns) -> np.ndarray:
    """Mean LPIPS between a clip's frames and those of its prompt's other seeds, [clips]: neither one clip nor chaos."""
    return columns["mean"]
