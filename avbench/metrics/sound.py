"""Measures the sound alone: how often sounds begin, how loud they are, and whether they are silent or clipped."""

import numpy as np

from avbench.core import Columns


def onset_rate(columns: Columns) -> np.ndarray:
    """Onsets per second of sound, ``[clips]``. A silent track has 0; a clip without a track has no row."""
    return np.asarray(columns["onset_rate"], dtype=np.float64)


def loudness(columns: Columns) -> np.ndarray:
    """Integrated loudness, ``[clips]`` in LUFS. NaN for a silent track, whose loudness is undefined."""
    return np.where(columns["silent"] > 0, np.nan, columns["loudness"])


def silence(columns: Columns) -> np.ndarray:
    """Share of the sound below -60 dBFS, ``[clips]``. A silent track has 1."""
    return np.asarray(columns["silent_share"], dtype=np.float64)


def clipping(columns: Columns) -> np.ndarray:
    """Share of the samples that are cut off at full scale, ``[clips]``."""
    return np.asarray(columns["clipped_share"], dtype=np.float64)
