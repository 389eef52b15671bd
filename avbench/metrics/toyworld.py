"""Measures whether clips of the embedded world obey its physics; NaN where a clip allows no judgement."""

import numpy as np

from avbench.core import Columns

GRAVITY = 9.81


def toy_contact(columns: Columns) -> np.ndarray:
    """1 if a body's velocity changes abruptly at a touch, else 0, [clips]; NaN if no body must touch."""
    expected = (columns["contact_expected"] > 0) & (columns["kicks_known"] > 0)
    return np.where(expected, columns["touches"] > 0, np.nan)


def toy_avoidance(columns: Columns) -> np.ndarray:
    """Share of the abrupt changes of velocity at which nothing touches, [clips]; NaN if there are none."""
    return np.where(columns["kicks"] > 0, columns["avoided"] / np.maximum(columns["kicks"], 1), np.nan)


def toy_penetration(columns: Columns) -> np.ndarray:
    """Deepest overlap of two solid things, [clips] in metres."""
    return np.where(columns["penetration_known"] > 0, columns["penetration"], np.nan)


def toy_gravity_error(columns: Columns) -> np.ndarray:
    """Difference between the acceleration of free fall and 9.81 m/s², [clips]."""
    return np.where(columns["gravity_known"] > 0, np.abs(columns["gravity"] - GRAVITY), np.nan)


def toy_energy_gain(columns: Columns) -> np.ndarray:
    """Largest rise of energy without a cause, [clips] as a height in metres."""
    return np.where(columns["energy_gain_known"] > 0, columns["energy_gain"], np.nan)
