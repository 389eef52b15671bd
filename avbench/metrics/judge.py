"""What a vision-language model answers when it is asked whether a clip is physically possible."""

import numpy as np

from avbench.core import Columns


def physics_judge(columns: Columns) -> np.ndarray:
    """Mean rating over the questions, 1 to 5, ``[clips]``."""
    return np.asarray(columns["rating"], dtype=np.float64)


def physics_judge_spread(columns: Columns) -> np.ndarray:
    """Standard deviation of the rating over the questions, ``[clips]``."""
    return np.asarray(columns["spread"], dtype=np.float64)
