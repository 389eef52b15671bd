"""The sound alone: how often something begins to sound."""

import numpy as np

from avbench.core import Columns


def onset_rate(columns: Columns) -> np.ndarray:
    """Onsets per second of sound, ``[clips]``. A silent track has 0; a clip without a track has no row."""
    return np.asarray(columns["onset_rate"], dtype=np.float64)
