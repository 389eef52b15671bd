"""Matches peaks of motion with onsets of sound as AV-Align does since February 2025."""

import numpy as np


def matched_once(sounds: np.ndarray, peaks: np.ndarray, window: float) -> float:
    """The number of matches if each sound, in order, takes the first free peak less than `window` seconds away."""
    free = list(peaks)
    for sound in sounds:
        near = next((peak for peak in free if abs(sound - peak) < window), None)
        if near is not None:
            free.remove(near)
    return float(len(peaks) - len(free))


def over_union(matches: float, both: int) -> float:
    """Matches over the union; 0 where the union is empty, which the metric leaves out."""
    return matches / (both - matches) if both > matches else 0.0
