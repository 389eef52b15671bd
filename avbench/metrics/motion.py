"""Measures motion by optical flow: how much, how smooth, and whether the frames follow it.

A frozen clip would have the best value of everything except the amount, so it counts as not measurable there.
"""

import numpy as np
from scipy import stats

from avbench.core import Columns


def motion_amount_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Mean change that would turn one set of amounts, ``[clips, 1]``, into the other, in diagonals per second.

    It is the Wasserstein distance: it also detects amounts that are right on average but wrong in their spread.
    """
    return float(stats.wasserstein_distance(x[:, 0], y[:, 0]))


def warping_error(columns: Columns) -> np.ndarray:
    """Squared RGB difference after warping along the flow, ``[clips]``.

    NaN for a frozen clip, which would have a perfect 0, and if nothing is visible in two consecutive frames.
    """
    frozen = columns["moves"] == 0
    unseen = columns["visible_share"] == 0
    return np.where(frozen | unseen, np.nan, columns["warping_error"])


def flow_consistency(columns: Columns) -> np.ndarray:
    """Share of the moving pixels that the backward flow leads back to their start, [clips] in 0...1."""
    return _of_moving(columns, "returning_share")


def acceleration(columns: Columns) -> np.ndarray:
    """Mean change of motion along the flow, [clips] in diagonals per second²."""
    return _of_moving(columns, "acceleration")


def still_flicker(columns: Columns) -> np.ndarray:
    """Change of brightness from frame to frame where nothing moves, [clips] in grey levels of 255.

    NaN if everything moves, and for a clip that neither moves nor flickers, which would have the best value.
    """
    frozen = (columns["moves"] == 0) & (columns["still_flicker"] == 0)
    return np.where(frozen | (columns["still_share"] == 0), np.nan, columns["still_flicker"])


def event_rate(columns: Columns) -> np.ndarray:
    """Abrupt changes of motion per second, [clips]. NaN for clips that are too short to find one."""
    return np.where(columns["event_until"] > columns["event_from"], columns["event_rate"], np.nan)


def _of_moving(columns: Columns, name: str) -> np.ndarray:
    return np.where(columns["moves"] > 0, columns[name], np.nan)
