"""Computes Fréchet and kernel distances between two sets of features, and shares of near neighbours.

Conventions: features are ``[clips, dimensions]``, converted to float64; the first set is the model's, the second the
reference's. Each distance is a function of two sets. If it would be slow to compute a thousand times, there is also a
class that prepares the pooled rows of both sets once and then gives the distance between any two parts of them, as
permutation tests need (see uncertainty.py).

The Fréchet distance fits a Gaussian to each set, and its value depends mostly on the number of clips n. Two sets from
one distribution in I3D's 400 dimensions (identity covariance, so the trace is 400), whose true distance is 0, measured
582 at n = 50, 479 at 100, 265 at 300 and 40 at 2048; a real difference of 8 added about 8 to each. So a value has a
meaning only beside the null and the floor at its own n, and values of different n cannot be compared. A bootstrap
interval does not help: resampling with replacement raises the distance, away from the value it should surround.
"""

import numpy as np
from scipy import linalg
from scipy.spatial.distance import cdist

from avbench.core import InputError, Moments, NotMeasurable

CLIPS_PER_DIMENSION = 5
"""With fewer clips per dimension, a straight line in 1/n does not lead to the value at infinity."""

_ROUNDING = 1e-12
"""Relative size of rounding errors; 5e-15 is the largest that was observed."""
_LARGEST_GRAM = 8192  # rows, half a gigabyte: with more, Fréchet draws use covariances
_SIZES = 15  # of the subsets that the extrapolation uses
_DRAWS = 4  # for each size


def frechet_distance(x: np.ndarray, y: np.ndarray, *, ddof: int = 1, epsilon: float = 0.0) -> float:
    """Squared Fréchet distance between Gaussians fitted to features ``[n, d]`` and ``[m, d]``.

    ‖μx − μy‖² + tr Σx + tr Σy − 2 tr (Σx Σy)^½, where the last trace is the sum of the singular values of Rx Ryᵀ for
    any roots Σ = Rᵀ R, such as the centred features over √(n − ddof). No matrix root is computed, so it is also exact
    for fewer clips than dimensions, where covariances are singular. Rounding can give a value just below 0, which is
    returned unchanged.

    Args:
        x: one set of features.
        y: the other set.
        ddof: 1 for covariances divided by n − 1; 0 for n, as in StyleGAN-V and cd-fvd.
        epsilon: added to the diagonal of both covariances; FastVideo always adds 1e-6.

    Raises:
        InputError: the features are not two finite matrices of one width.
        NotMeasurable: a set has fewer than 2 clips.
    """
    x, y = _checked(x, y)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    root_x = _shortened((x - mean_x) / np.sqrt(len(x) - ddof))
    root_y = _shortened((y - mean_y) / np.sqrt(len(y) - ddof))
    return _from_roots(mean_x - mean_y, root_x, root_y, epsilon)


def frechet_of_moments(x: Moments, y: Moments, *, ddof: int = 1, epsilon: float = 0.0) -> float:
    """`frechet_distance` of n, mean and scatter alone. Raises the same errors."""
    if x.mean.shape != y.mean.shape:
        _refuse_widths(x.mean.size, y.mean.size)
    if min(x.n, y.n) < 2:
        _refuse_few(min(x.n, y.n))
    roots = [_root_of_scatter(side.scatter / (side.n - ddof)) for side in (x, y)]
    return _from_roots(x.mean - y.mean, roots[0], roots[1], epsilon)


def frechet_infinity(x: np.ndarray, y: np.ndarray, *, ddof: int = 1) -> float:
    """`frechet_distance` extrapolated to infinitely many clips in both sets (Chong and Forsyth, 2020).

    Seeded random subsets of increasing size are drawn from both sets without replacement; a straight line in 1/n is
    fitted, and its value at 0 is returned. The line is straight only if n is well above the number of dimensions d: at
    n = d / 4, 90 % of the bias remained in a test; near 2 d the result fell below 0 although the fit looked good.

    Raises:
        NotMeasurable: a set has fewer than 5 clips per dimension.
    """
    x, y = _checked(x, y)
    fewest, needed = min(len(x), len(y)), CLIPS_PER_DIMENSION * x.shape[1]
    if fewest < needed:
        msg = f"extrapolating to infinitely many clips needs {needed} in each set (5 a dimension) and one has {fewest}"
        raise NotMeasurable(msg)
    random = np.random.default_rng(0)
    shares = np.repeat(1 / np.linspace(1, 2.5, _SIZES), _DRAWS)
    values = []
    for share in shares:
        parts = [side[random.permutation(len(side))[: round(share * len(side))]] for side in (x, y)]
        values.append(frechet_distance(parts[0], parts[1], ddof=ddof))
    return float(np.polynomial.polynomial.polyfit(1 / shares, values, 1)[0])


class Frechet:
    """`frechet_distance` between any two parts of pooled rows; agrees with it to about 1e-7 of the trace."""

    def __init__(self, features: np.ndarray, *, ddof: int = 1, epsilon: float = 0.0) -> None:
        self._ddof, self._epsilon = ddof, epsilon
        centred = features - features.mean(axis=0)
        # In the basis of the rows' own span nothing is lost, and a covariance of enough rows is regular.
        _, lengths, basis = linalg.svd(_shortened(centred), full_matrices=False)
        self._rows = centred @ basis[lengths > 1e-10 * max(lengths.max(initial=0), 1e-300)].T
        self._scatter = self._rows.T @ self._rows
        self.rounding = _ROUNDING * float(np.trace(self._scatter)) / len(features)
        """How far rounding can move a distance between two equal parts away from 0."""
        self._gram = self._rows @ self._rows.T if len(features) <= _LARGEST_GRAM and not epsilon else None

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Distances ``[draws]`` between rows ``first`` ``[draws, n]`` and ``second`` ``[draws, m]``."""
        rank, fewer, more = self._rows.shape[1], *sorted((first.shape[1], second.shape[1]))
        by_gram = self._gram is not None and (more <= rank or 3 * fewer <= rank)
        one = self._by_gram if by_gram else self._by_covariance
        return np.array([one(a, b) for a, b in zip(first, second, strict=True)])

    def _by_gram(self, a: np.ndarray, b: np.ndarray) -> float:
        assert self._gram is not None
        mean_a, mean_b = self._rows[a].mean(axis=0), self._rows[b].mean(axis=0)
        block = self._gram[np.ix_(a, b)]
        block -= block.mean(axis=1, keepdims=True)
        block -= block.mean(axis=0, keepdims=True)
        own = np.diagonal(self._gram)
        scatter_a = own[a].sum() - len(a) * (mean_a @ mean_a)
        scatter_b = own[b].sum() - len(b) * (mean_b @ mean_b)
        over_a, over_b = len(a) - self._ddof, len(b) - self._ddof
        lengths = np.asarray(linalg.svdvals(block, overwrite_a=True, check_finite=False))
        shared = lengths.sum() / np.sqrt(over_a * over_b)
        gap = mean_a - mean_b
        return float(gap @ gap + scatter_a / over_a + scatter_b / over_b - 2 * shared)

    def _by_covariance(self, a: np.ndarray, b: np.ndarray) -> float:
        if len(a) > len(b):
            a, b = b, a
        rows_a, mean_b = self._rows[a], self._rows[b].mean(axis=0)
        mean_a = rows_a.mean(axis=0)
        raw_a = rows_a.T @ rows_a
        # If the two parts together are all rows, the other part's scatter is the remainder.
        raw_b = self._scatter - raw_a if len(a) + len(b) == len(self._rows) else self._rows[b].T @ self._rows[b]
        cov_a = (raw_a - len(a) * np.outer(mean_a, mean_a)) / (len(a) - self._ddof)
        cov_b = (raw_b - len(b) * np.outer(mean_b, mean_b)) / (len(b) - self._ddof)
        for covariance in (cov_a, cov_b):
            covariance.flat[:: len(covariance) + 1] += self._epsilon
        try:
            root = np.linalg.cholesky(cov_b)
        except np.linalg.LinAlgError:  # fewer rows than dimensions, or equal rows
            root = _root_of_scatter(cov_b).T
        product = linalg.eigvalsh(root.T @ cov_a @ root, overwrite_a=True, check_finite=False)
        gap = mean_a - mean_b
        return float(gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(np.maximum(product, 0)).sum())


def kernel_distance(x: np.ndarray, y: np.ndarray, *, degree: int = 3, coef0: float = 1.0) -> float:
    """Squared maximum mean discrepancy, unbiased, with the kernel (x·y / d + coef0)^degree.

    Degree 3 with coef0 1 is KID's kernel (Bińkowski et al., 2018). Degree 2 with coef0 0 is JEDi's; JEDi prints 100
    times the biased estimate. The unbiased estimate is centred on 0 for equal distributions at any n, and can be
    negative; the sign is kept.

    Raises:
        InputError: the features are not two finite matrices of one width.
        NotMeasurable: a set has fewer than 2 clips.
    """
    x, y = _checked(x, y)
    return _of_all(Kernel(np.concatenate((x, y)), degree=degree, coef0=coef0), len(x), len(y))


class Kernel:
    """`kernel_distance` between any two parts of pooled rows; the kernel is computed once."""

    def __init__(self, features: np.ndarray, *, degree: int = 3, coef0: float = 1.0) -> None:
        self._kernel = (features @ features.T / features.shape[1] + coef0) ** degree
        self.rounding = _ROUNDING * float(np.abs(self._kernel).max())
        """How far rounding can move a distance, because sums of the kernel's values nearly cancel."""

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Distances ``[draws]`` between rows ``first`` ``[draws, n]`` and ``second`` ``[draws, m]``."""
        in_first, in_second = (_indicators(part, len(self._kernel)) for part in (first, second))
        n, m = first.shape[1], second.shape[1]
        over_first = self._kernel @ in_first
        own = np.diagonal(self._kernel)
        within_first = (in_first * over_first).sum(axis=0) - own @ in_first
        within_second = (in_second * (self._kernel @ in_second)).sum(axis=0) - own @ in_second
        between = (in_second * over_first).sum(axis=0)
        return within_first / (n * (n - 1)) + within_second / (m * (m - 1)) - 2 * between / (n * m)


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
    x, y = _checked(x, y)
    if min(len(x), len(y)) <= k:
        msg = f"{measure} uses the {k} nearest clips of each and needs more than {k}; one set has {_fewest(x, y)}"
        raise NotMeasurable(msg)
    return _of_all(Neighbours(np.concatenate((x, y)), measure=measure, k=k), len(x), len(y))


class Neighbours:
    """`neighbour_share` between any two parts of pooled rows; the distances are computed once."""

    def __init__(self, features: np.ndarray, *, measure: str, k: int) -> None:
        self._measure, self._k = measure, k
        self._apart = cdist(features, features)

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Shares ``[draws]`` of rows ``first`` ``[draws, n]`` against rows ``second`` ``[draws, m]``."""
        return np.array([self._one(a, b) for a, b in zip(first, second, strict=True)])

    def _one(self, model: np.ndarray, real: np.ndarray) -> float:
        apart = self._apart[np.ix_(model, real)]
        if self._measure == "recall":
            return float((apart <= self._reach(model)[:, None]).any(axis=0).mean())
        inside = apart <= self._reach(real)
        if self._measure == "precision":
            return float(inside.any(axis=1).mean())
        return float(
            inside.any(axis=0).mean() if self._measure == "coverage" else inside.sum() / (self._k * len(model))
        )

    def _reach(self, part: np.ndarray) -> np.ndarray:
        # Each row holds the clip itself at distance 0, so index k is its k-th neighbour.
        return np.partition(self._apart[np.ix_(part, part)], self._k, axis=1)[:, self._k]


def nearest(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index ``[n]`` of the row of `y` nearest to each row of `x`, and the Euclidean distances ``[n]``."""
    x, y = _checked(x, y, fewest=1)
    apart = cdist(x, y)
    index = apart.argmin(axis=1)
    return index, apart[np.arange(len(index)), index]


def nearness(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """For each model clip, the share of real clips whose nearest neighbour is no further than the clip's own, ``[n]``.

    One is added to both counts of the share: an exact copy gets 1 / (m + 1), and clips of the reference's own
    distribution are spread evenly between 0 and 1.
    """
    y = _checked(y)[0]
    apart = cdist(y, y)
    np.fill_diagonal(apart, np.inf)
    usual = np.sort(apart.min(axis=1))
    return (1 + np.searchsorted(usual, nearest(x, y)[1], side="right")) / (1 + len(usual))


NEAR_COPY = 0.01
"""A clip is flagged as a near copy if at most this share of real clips have a neighbour as near."""


def near_copies(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """1 for each model clip that is as near to a real clip as only 1 % of real clips are to another, else 0: ``[n]``.

    Raises:
        NotMeasurable: the reference is too small for this level.
    """
    if len(y) < (needed := round(1 / NEAR_COPY) - 1):
        msg = f"near copies are defined by the nearest {NEAR_COPY:.0%} of real pairs: {needed} real clips, not {len(y)}"
        raise NotMeasurable(msg)
    return (nearness(x, y) <= NEAR_COPY).astype(np.float64)


def _of_all(pooled: "Kernel | Neighbours", n: int, m: int) -> float:
    return float(pooled(np.arange(n)[None], np.arange(n, n + m)[None])[0])


def _indicators(parts: np.ndarray, count: int) -> np.ndarray:
    """Columns of 0 and 1: ``[count, draws]``."""
    shown = np.zeros((len(parts), count))
    np.put_along_axis(shown, parts, 1.0, axis=1)
    return shown.T


def _from_roots(gap: np.ndarray, root_x: np.ndarray, root_y: np.ndarray, epsilon: float) -> float:
    if epsilon:
        ridge = np.sqrt(epsilon) * np.eye(len(gap))
        root_x, root_y = (_shortened(np.concatenate((root, ridge))) for root in (root_x, root_y))
    shared = np.linalg.svd(root_x @ root_y.T, compute_uv=False).sum()
    return float(gap @ gap + np.square(root_x).sum() + np.square(root_y).sum() - 2 * shared)


def _shortened(rows: np.ndarray) -> np.ndarray:
    """At most d rows with the same scatter: the R of a QR if there are more rows than that."""
    if rows.shape[0] <= rows.shape[1]:
        return rows
    return np.asarray(np.linalg.qr(rows, mode="r"))


def _root_of_scatter(scatter: np.ndarray) -> np.ndarray:
    """R with Rᵀ R = scatter; eigenvalues that rounding left below 0 count as 0."""
    values, vectors = np.linalg.eigh(scatter)
    return (vectors * np.sqrt(np.maximum(values, 0))).T


def _checked(*sets: np.ndarray, fewest: int = 2) -> list[np.ndarray]:
    arrays = [np.asarray(features, dtype=np.float64) for features in sets]
    for array in arrays:
        if array.ndim != 2 or array.shape[1] == 0:
            msg = f"features have shape {array.shape}; they must be [clips, dimensions]"
            raise InputError(msg)
        if not np.isfinite(array).all():
            msg = f"features hold {np.count_nonzero(~np.isfinite(array))} values that are NaN or infinite"
            raise InputError(msg)
    if len(widths := {array.shape[1] for array in arrays}) > 1:
        _refuse_widths(*sorted(widths, reverse=True))
    if (count := _fewest(*arrays)) < fewest:
        _refuse_few(count)
    return arrays


def _fewest(*sets: np.ndarray) -> int:
    return min(len(features) for features in sets)


def _refuse_widths(one: int, other: int) -> None:
    msg = f"features have {one} and {other} dimensions; both sets must have the same"
    raise InputError(msg)


def _refuse_few(count: int) -> None:
    msg = f"a distance needs at least 2 clips in each set and one has {count}"
    raise NotMeasurable(msg)
