"""Computes kernel distances between two sets of features; feature_sets.py states the conventions."""

import functools
import itertools
from collections.abc import Iterator

import numpy as np

from avbench.metrics.feature_sets import ROUNDING, checked_sets, in_parts, indicators, of_all

_TILE = 1024  # rows; the kernel of more is computed in tiles, anew for each call
_IN_CACHE = 2**16  # values that are worked on while they are in the processor's cache


def kernel_distance(x: np.ndarray, y: np.ndarray, *, degree: int = 3, coef0: float = 1.0) -> float:
    """Squared maximum mean discrepancy, unbiased, with the kernel (x·y / d + coef0)^degree.

    Degree 3 with coef0 1 is KID's kernel (Bińkowski et al., 2018). Degree 2 with coef0 0 is JEDi's; JEDi prints 100
    times the biased estimate. The unbiased estimate is centred on 0 for independent clips of one distribution, at
    any n, and can be negative; the sign is kept. Where both sets have the same prompts it is usually below 0.

    Raises:
        InputError: the features are not two finite matrices of one width.
        NotMeasurable: a set has fewer than 2 clips.
    """
    x, y = checked_sets(x, y)
    return of_all(Kernel(np.concatenate((x, y)), degree=degree, coef0=coef0), len(x), len(y))


class Kernel:
    """`kernel_distance` between any two parts of pooled rows; of many rows the kernel is never held as a whole."""

    influence_is_exact = True

    def __init__(self, features: np.ndarray, *, degree: int = 3, coef0: float = 1.0) -> None:
        self._rows, self._degree, self._coef0 = features, degree, coef0
        squares = [np.square(features[part]).sum(axis=1) for part in in_parts(np.arange(len(features)))]
        self._own = (np.concatenate(squares) / features.shape[1] + coef0) ** degree
        self.rounding = ROUNDING * float(self._own.max())
        """How far rounding can move a distance: it is a sum of kernel values, and none is larger than a row's value
        with itself."""
        self.draws_at_once = 50 if len(features) <= _TILE else 10_000
        """The kernel of many rows is computed again for every call."""

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Distances ``[draws]`` between rows ``first`` ``[draws, n]`` and ``second`` ``[draws, m]``.

        With S(a, b) the sum of the kernel over two parts, S(second, second) and S(first, second) follow from S(first,
        first) and the sums over a row, if the two parts together are all rows. Then only one side is multiplied.
        """
        n, m, count = first.shape[1], second.shape[1], len(self._rows)
        in_first, in_second = indicators(first, count), indicators(second, count)
        within_first, within_second, between = np.zeros((3, len(first)))
        sums = np.zeros(count)
        for above, left, kernel in self._tiles():
            twice = 1 if above == left else 2  # of the triangle, what is beside the diagonal counts twice
            of_first = kernel @ in_first[left].astype(np.float64)
            within_first += twice * np.einsum("id,id->d", in_first[above], of_first)
            if n + m == count:
                sums[above] += kernel.sum(axis=1)
                if twice == 2:
                    sums[left] += kernel.sum(axis=0)
                continue
            of_second = kernel @ in_second[left].astype(np.float64)
            within_second += twice * np.einsum("id,id->d", in_second[above], of_second)
            between += twice / 2 * np.einsum("id,id->d", in_second[above], of_first)
            between += twice / 2 * np.einsum("id,id->d", in_first[above], of_second)
        if n + m == count:
            from_first = sums @ in_first
            between = from_first - within_first
            within_second = sums.sum() - from_first - between
        within_first -= self._own @ in_first
        within_second -= self._own @ in_second
        return within_first / (n * (n - 1)) + within_second / (m * (m - 1)) - 2 * between / (n * m)

    def influence(self, models: np.ndarray, real: np.ndarray) -> np.ndarray:
        """``[models]``: what a row of the models adds to its own model's distance to `real`, minus the other's.

        The difference of two kernel distances is the sum of one model's influences less the sum of the other's: sums
        within A less sums within B are sums over A less sums over B of a row's kernel with all rows of both.
        """
        half = len(models) // 2
        sides = indicators(np.stack([models]), len(self._rows)), indicators(np.stack([real]), len(self._rows))
        weights = np.concatenate(sides, axis=1, dtype=np.float64)
        sums = np.zeros_like(weights)
        for above, left, kernel in self._tiles():
            sums[above] += kernel @ weights[left]
            if above != left:
                sums[left] += kernel.T @ weights[above]
        to_models, to_real = sums[models].T
        return (to_models - self._own[models]) / (half * (half - 1)) - 2 * to_real / (half * len(real))

    def _tiles(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Yield the tiles of the kernel on and above its diagonal: the places of their rows and columns, and values."""
        places = [slice(start, start + _TILE) for start in range(0, len(self._rows), _TILE)]
        for above, left in itertools.combinations_with_replacement(places, 2):
            whole = len(places) == 1
            yield above, left, self._whole if whole else self._of(self._rows[above], self._rows[left])

    @functools.cached_property
    def _whole(self) -> np.ndarray:
        return self._of(self._rows, self._rows)

    def _of(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        kernel = rows @ others.T
        for part in np.array_split(kernel.reshape(-1), 1 + kernel.size // _IN_CACHE):
            part /= rows.shape[1]
            part += self._coef0
            once = part.copy()
            for _ in range(self._degree - 1):  # a power of floats takes twenty times as long
                part *= once
        return kernel
