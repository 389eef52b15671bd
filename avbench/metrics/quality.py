"""DOVER's technical, aesthetic and overall quality of a clip; the rules are in features/video/dover.py."""

import numpy as np

from avbench.core import Columns


def dover_technical(columns: Columns) -> np.ndarray:
    """DOVER's technical quality, 0...1, ``[clips]``."""
    return np.asarray(columns["technical"], dtype=np.float64)


def dover_aesthetic(columns: Columns) -> np.ndarray:
    """DOVER's aesthetic quality, 0...1, ``[clips]``."""
    return np.asarray(columns["aesthetic"], dtype=np.float64)


def dover_overall(columns: Columns) -> np.ndarray:
    """DOVER's overall quality, 0...1, ``[clips]``."""
    return np.asarray(columns["overall"], dtype=np.float64)
