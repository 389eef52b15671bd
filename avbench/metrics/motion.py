"""Motion by optical flow: how much, and whether the frames agree with it."""

import numpy as np

from avbench.core import Columns


def motion_amount(columns: Columns) -> np.ndarray:
    """Speed of the moving parts, ``[clips]`` in frame diagonals per second. A frozen clip has 0."""
    return np.asarray(columns["motion_amount"], dtype=np.float64)


def warping_error(columns: Columns) -> np.ndarray:
    """Squared RGB difference after warping along the flow, ``[clips]``.

    NaN for a frozen clip, which would have a perfect 0, and where nothing is visible in two consecutive frames.
    """
    frozen = columns["moves"] == 0
    unseen = columns["visible_share"] == 0
    return np.where(frozen | unseen, np.nan, columns["warping_error"])
