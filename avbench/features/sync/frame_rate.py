"""Chooses the frames of a clip that are shown at another frame rate."""

from fractions import Fraction

import numpy as np


def at_rate(count: int, fps: Fraction, rate: int) -> np.ndarray:
    """Indices of the frames, among `count`, that are shown at another rate, chosen as ffmpeg's filter fps does."""
    times = [(2 * k * rate / fps + 1) // 2 for k in range(count + 1)]
    return np.searchsorted(times[:-1], np.arange(times[-1]), side="right") - 1
