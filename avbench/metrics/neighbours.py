"""Computes shares of near neighbours between two sets of features, and finds clips that nearly copy a real one.

feature_sets.py states the conventions.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from scipy.spatial.distance import cdist

from avbench.core import NotMeasurable
from avbench.metrics.feature_sets import checked_sets, of_all

_HELD = 2**23  # distances that are held at a time


def neighbour_share(x: np.ndarray, y: np.ndarray, *, measure: str, k: int) -> float:
    """Precision, recall, density or coverage of a model's features `x` against the reference's `y`.

    A clip's neighbourhood is the ball with the radius to its k-th nearest neighbour in its own set (Euclidean, not
    counting itself). ``precision``: share of model clips in any reference ball; ``recall``: share of reference clips in
    any model ball (both Kynkäänniemi et al., 2019). ``density``: number of reference balls that hold a model clip, over
    k, averaged over model clips; ``coverage``: share of reference balls that hold a model clip (both Naeem et al.,
    2020).

    Raises:
        InputError: the features are not two finite matrices of one width.
        NotMeasurable: a set has k clips or fewer.
    """
    x, y = checked_sets(x, y)
    return of_all(Neighbours(np.concatenate((x, y)), measure=measure, k=k), len(x), len(y))


class Neighbours:
    """`neighbour_share` between any two parts of pooled rows; the distances are computed once."""

    def __init__(self, features: np.ndarray, *, measure: str, k: int) -> None:
        self._measure, self._k = measure, k
        self._apart = cdist(features, features)

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Shares ``[draws]`` of rows ``first`` ``[draws, n]`` against rows ``second`` ``[draws, m]``.

        Raises:
            NotMeasurable: one of the two has k rows or fewer.
        """
        measure, k = self._measure, self._k
        if (fewest := min(first.shape[1], second.shape[1])) <= k:
            msg = f"{measure} uses the {k} nearest clips of each and needs more than {k}; one set has {fewest}"
            raise NotMeasurable(msg)
        return np.array([self._one(a, b) for a, b in zip(first, second, strict=True)])

    def _one(self, model: np.ndarray, real: np.ndarray) -> float:
        apart = self._apart[np.ix_(model, real)]
        if self._measure == "recall":
            return float((apart <= self._radii(model)[:, None]).any(axis=0).mean())
        inside = apart <= self._radii(real)
        if self._measure == "precision":
            return float(inside.any(axis=1).mean())
        return float(
            inside.any(axis=0).mean() if self._measure == "coverage" else inside.sum() / (self._k * len(model))
        )

    def _radii(self, part: np.ndarray) -> np.ndarray:
        # Each row holds the clip itself at distance 0, so index k is its k-th neighbour.
        return np.partition(self._apart[np.ix_(part, part)], self._k, axis=1)[:, self._k]


def nearest(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index ``[n]`` of the row of `y` nearest to each row of `x`, and the Euclidean distances ``[n]``."""
    x, y = checked_sets(x, y, fewest=1)
    return _nearest(x, y, others=False)


def _nearest(x: np.ndarray, y: np.ndarray, *, others: bool) -> tuple[np.ndarray, np.ndarray]:
    """As `nearest`; with `others`, where both are the same rows, no row is its own neighbour."""
    size = max(1, _HELD // len(y))
    found = []
    for start in range(0, len(x), size):
        apart = cdist(x[start : start + size], y)
        rows = np.arange(len(apart))
        if others:
            apart[rows, start + rows] = np.inf
        index = apart.argmin(axis=1)
        found.append((index, apart[rows, index]))
    index, apart = (np.concatenate(part) for part in zip(*found, strict=True))
    return index, apart


def nearness(apart: np.ndarray, y: np.ndarray) -> np.ndarray:
    """For each model clip, the share of real clips whose nearest neighbour is no further than the clip's own, ``[n]``.

    One is added to both counts of the share: an exact copy gets 1 / (m + 1). Clips of the reference's own distribution
    are spread nearly evenly between 0 and 1, but the least share is twice as frequent: a clip is one of the nearest two
    of m + 1 with probability 2 / (m + 1).

    Args:
        apart: ``[n]``: the distance of each model clip to its nearest real clip, as of `nearest`.
        y: the real clips.
    """
    y = checked_sets(y)[0]
    usual = np.sort(_nearest(y, y, others=True)[1])
    return (1 + np.searchsorted(usual, apart, side="right")) / (1 + len(usual))


def require_siblings(prompts: Iterable[str], real_prompts: Iterable[str]) -> None:
    """Raise NotMeasurable if real clips cannot show how near two clips of one prompt are, and model clips have theirs.

    A model's clip is compared with the real clips of its own prompt too. Where those have no other clip of that prompt
    to be compared with, clips of a perfect model would be flagged.
    """
    counts = Counter(real_prompts)
    shared = [counts[one] > 1 for one in prompts if one in counts]
    if shared and np.mean(shared) < 0.5:
        msg = (
            "the reference has one clip of each prompt, so it does not show how near two clips of one prompt are: add "
            "real clips of the same prompts"
        )
        raise NotMeasurable(msg)


def near_copies(x: np.ndarray, y: np.ndarray, *, level: float = 0.01) -> np.ndarray:
    """1 for each model clip that is as near to a real clip as only 1 % of real clips are to another, else 0: ``[n]``.

    Of clips of the reference's own distribution it is 1 for 2 % with 99 real clips, and for about 1 % with 200 or more.

    Args:
        x: the model's clips.
        y: the real clips.
        level: the largest share of real clips that have a neighbour as near as a near copy has.

    Raises:
        NotMeasurable: the reference is too small for this level.
    """
    if len(y) < (needed := round(1 / level) - 1):
        msg = f"near copies are defined by the nearest {level:.0%} of real pairs: {needed} real clips, not {len(y)}"
        raise NotMeasurable(msg)
    return (nearness(nearest(x, y)[1], y) <= level).astype(np.float64)
