"""Computes Fréchet distances between two sets of features; feature_sets.py states the conventions.

The Fréchet distance fits a Gaussian to each set, and its value depends mostly on the number of clips n. Two sets from
one distribution in I3D's 400 dimensions (identity covariance, so the trace is 400), whose true distance is 0, measured
582 at n = 50, 479 at 100, 265 at 300 and 40 at 2048; a real difference of 8 added about 8 to each. So a value has a
meaning only beside the null and the floor at its own n, and values of different n cannot be compared. A bootstrap
interval does not help: resampling with replacement raises the distance, away from the value it should surround.
"""

import functools

import numpy as np
from scipy import linalg

from avbench.core import Moments, NotMeasurable
from avbench.metrics.feature_sets import ROUNDING, checked_sets, in_parts, indicators, require_comparable

CLIPS_PER_DIMENSION = 5
"""With fewer clips per dimension, a straight line in 1/n does not lead to the value at infinity."""

_WELL_CONDITIONED = 1e-2
"""Smallest allowed ratio of a Cholesky factor's least to its largest diagonal element; above it, values agree to 1e-10
with those by matrix roots."""
(_SYGST,) = linalg.get_lapack_funcs(("sygst",), dtype=np.float64)
_LARGEST_GRAM = 8192  # rows, half a gigabyte: above it the Fréchet draws go by covariances
_BLOCKS = 2**18  # products of rows of several draws that are computed together
_SIZES = 15  # of the subsets that the extrapolation rests on
_DRAWS = 4  # of each size


def frechet_distance(x: np.ndarray, y: np.ndarray, *, ddof: int = 1, epsilon: float = 0.0) -> float:
    """Squared Fréchet distance between Gaussians fitted to features ``[n, d]`` and ``[m, d]``.

    ‖μx − μy‖² + tr Σx + tr Σy − 2 tr (Σx Σy)^½, where the last trace is the sum of the singular values of Rx Ryᵀ for
    any roots Σ = Rᵀ R, such as the centred features over √(n − ddof). No matrix root is taken, so it also holds for
    fewer clips than dimensions, where covariances are singular. Where both covariances are well conditioned, the
    singular values come from a Cholesky factor, which takes a third of the time and agrees to 1e-10. Rounding can
    leave a value just below 0; it is returned as it is.

    Args:
        x: one set of features.
        y: the other set.
        ddof: 1 for covariances divided by n − 1; 0 for n, as in StyleGAN-V and cd-fvd.
        epsilon: added to the diagonal of both covariances; FastVideo always adds 1e-6.

    Raises:
        InputError: the features are not two finite matrices of one width.
        NotMeasurable: a set has fewer than 2 clips.
    """
    x, y = checked_sets(x, y)
    gap = x.mean(axis=0) - y.mean(axis=0)
    x, y = ((side - side.mean(axis=0)) / np.sqrt(len(side) - ddof) for side in (x, y))
    if min(len(x), len(y)) > x.shape[1]:
        ridge = epsilon * np.eye(x.shape[1])
        covariances = x.T @ x + ridge, y.T @ y + ridge
        if (shared := _shared_by_cholesky(*covariances)) is not None:
            return float(gap @ gap + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * shared)
    return _from_roots(gap, _shortened(x), _shortened(y), epsilon)


def frechet_of_moments(x: Moments, y: Moments, *, ddof: int = 1, epsilon: float = 0.0) -> float:
    """`frechet_distance`, computed from n, mean and scatter alone. Raises the same errors."""
    require_comparable({x.mean.size, y.mean.size}, min(x.n, y.n))
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
    x, y = checked_sets(x, y)
    fewest, needed = min(len(x), len(y)), CLIPS_PER_DIMENSION * x.shape[1]
    if fewest < needed:
        msg = (
            f"extrapolating to infinitely many clips needs {needed} in each set (5 per dimension) and one has {fewest}"
        )
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
        self._rows = features - features.mean(axis=0)
        self._scatter = self._rows.T @ self._rows
        if _well_conditioned_root(self._scatter) is None:
            # In the basis of the rows' own span nothing is lost, and a covariance of enough rows is regular.
            _, lengths, basis = linalg.svd(_shortened(self._rows), full_matrices=False)
            self._rows = self._rows @ basis[lengths > 1e-10 * lengths.max(initial=0)].T
            self._scatter = self._rows.T @ self._rows
        self.rounding = ROUNDING * float(np.trace(self._scatter)) / len(features)
        """How far rounding can move a distance between two equal parts away from 0."""
        self._gram_fits = len(features) <= _LARGEST_GRAM and not epsilon

    @functools.cached_property
    def _gram(self) -> np.ndarray:
        return self._rows @ self._rows.T

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Distances ``[draws]`` between rows ``first`` ``[draws, n]`` and ``second`` ``[draws, m]``."""
        rank, fewer, more = self._rows.shape[1], *sorted((first.shape[1], second.shape[1]))
        if self._gram_fits and (more <= rank or 3 * fewer <= rank):
            step = max(1, _BLOCKS // (fewer * more))
            parts = [slice(start, start + step) for start in range(0, len(first), step)]
            return np.concatenate([self._by_gram(first[part], second[part]) for part in parts])
        return np.array([self._by_covariance(a, b) for a, b in zip(first, second, strict=True)])

    def influence(self, models: np.ndarray, real: np.ndarray) -> np.ndarray:
        """``[models]``: the derivative of the distance to `real`, by half of the models' rows, at all of them together.

        With the covariances Σ of the models' rows and Σr of the reference's, it is, of a row x less the rows' mean μ,
        2 x·(μ − μr) + xᵀ (I − G) x over the number of rows in a half. G = R (Rᵀ Σ R)^-½ Rᵀ, for any root Σr = R Rᵀ, is
        the derivative of the trace 2 tr (Σ Σr)^½; directions in which the rows of either side do not vary have none.
        """
        half = len(models) // 2
        mean, scatter = self._mean_and_scatter(models)
        mean_real, scatter_real = self._mean_and_scatter(real)
        ridge = self._epsilon * np.eye(len(mean))
        over = half / (half - self._ddof)
        root = _root_of_scatter(scatter_real / (len(real) - self._ddof) + ridge).T
        lengths, vectors = linalg.eigh(root.T @ (over * scatter / len(models) + ridge) @ root)
        able = lengths > ROUNDING * lengths.max(initial=0)
        shared = root @ (vectors[:, able] / lengths[able] ** 0.25)
        found = []
        for part in in_parts(models):
            rows = self._rows[part] - mean
            own = np.square(rows).sum(axis=1) - np.square(rows @ shared).sum(axis=1)
            found.append((2 * rows @ (mean - mean_real) + over * own) / half)
        return np.concatenate(found)

    def _mean_and_scatter(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = np.sum([self._rows[part].sum(axis=0) for part in in_parts(places)], axis=0) / len(places)
        scatter = np.zeros_like(self._scatter)
        for part in in_parts(places):
            rows = self._rows[part] - mean
            scatter += rows.T @ rows
        return mean, scatter

    def _by_gram(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Of several draws together, because each step of a single small one takes longer to call than to compute."""
        n, m, count = first.shape[1], second.shape[1], len(self._rows)
        mean_a, mean_b = (
            indicators(side, count).T.astype(np.float64) @ self._rows / side.shape[1] for side in (first, second)
        )
        block = self._gram[first[:, :, None], second[:, None, :]]
        block -= block.mean(axis=2, keepdims=True)
        block -= block.mean(axis=1, keepdims=True)
        own = np.diagonal(self._gram)
        scatter_a = own[first].sum(axis=1) - n * np.square(mean_a).sum(axis=1)
        scatter_b = own[second].sum(axis=1) - m * np.square(mean_b).sum(axis=1)
        over_a, over_b = n - self._ddof, m - self._ddof
        shared = _sums_of_lengths(block) / np.sqrt(over_a * over_b)
        return np.square(mean_a - mean_b).sum(axis=1) + scatter_a / over_a + scatter_b / over_b - 2 * shared

    def _by_covariance(self, a: np.ndarray, b: np.ndarray) -> float:
        if len(a) > len(b):
            a, b = b, a
        rows_a = self._rows[a]
        mean_a, raw_a = rows_a.mean(axis=0), rows_a.T @ rows_a
        if len(a) + len(b) == len(self._rows):  # the other part is what is left of all rows, whose mean is 0
            mean_b, raw_b = -len(a) / len(b) * mean_a, self._scatter - raw_a
        else:
            rows_b = self._rows[b]
            mean_b, raw_b = rows_b.mean(axis=0), rows_b.T @ rows_b
        cov_a = (raw_a - len(a) * np.outer(mean_a, mean_a)) / (len(a) - self._ddof)
        cov_b = (raw_b - len(b) * np.outer(mean_b, mean_b)) / (len(b) - self._ddof)
        for covariance in (cov_a, cov_b):
            covariance.flat[:: len(covariance) + 1] += self._epsilon
        try:
            root = np.linalg.cholesky(cov_b)
        except np.linalg.LinAlgError:  # fewer rows than dimensions, or equal rows
            root = _root_of_scatter(cov_b).T
            product = root.T @ cov_a @ root
        else:
            product = _congruent(cov_a, root)
        lengths = linalg.eigvalsh(product, overwrite_a=True, check_finite=False)
        gap = mean_a - mean_b
        return float(gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(np.maximum(lengths, 0)).sum())


def _from_roots(gap: np.ndarray, root_x: np.ndarray, root_y: np.ndarray, epsilon: float) -> float:
    if epsilon:
        ridge = np.sqrt(epsilon) * np.eye(len(gap))
        root_x, root_y = (_shortened(np.concatenate((root, ridge))) for root in (root_x, root_y))
    shared = np.linalg.svd(root_x @ root_y.T, compute_uv=False).sum()
    return float(gap @ gap + np.square(root_x).sum() + np.square(root_y).sum() - 2 * shared)


def _shared_by_cholesky(cov_x: np.ndarray, cov_y: np.ndarray) -> float | None:
    """Return the trace of (Σx Σy)^½, or None if a covariance is too near singular for an accurate value."""
    root = _well_conditioned_root(cov_y)
    if root is None:
        return None
    lengths = linalg.eigvalsh(_congruent(cov_x, root), overwrite_a=True, check_finite=False)
    (total,), (exact,) = _sums_of_roots(lengths[None])
    return float(total) if exact else None


def _well_conditioned_root(scatter: np.ndarray) -> np.ndarray | None:
    """Return the Cholesky factor, or None if rounding would be too large a part of it."""
    try:
        root = np.linalg.cholesky(scatter)
    except np.linalg.LinAlgError:
        return None
    diagonal = np.diagonal(root)
    return root if diagonal.min() >= _WELL_CONDITIONED * diagonal.max() else None


def _congruent(symmetric: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The lower triangle of Lᵀ A L, for a symmetric A and a lower triangular L: half the work of two products."""
    product, _ = _SYGST(symmetric, lower, itype=2, lower=1)
    return product


def _sums_of_lengths(blocks: np.ndarray) -> np.ndarray:
    """``[draws]``: the sum of the singular values of each matrix of ``[draws, n, m]``; its columns and rows sum to 0.

    Computed from the eigenvalues of B Bᵀ, after the one that is known to be 0 was raised to their mean; or from the
    singular values, if other eigenvalues are so near 0 that their roots would be inexact.
    """
    if blocks.shape[1] > blocks.shape[2]:
        blocks = blocks.transpose(0, 2, 1)
    products = blocks @ blocks.transpose(0, 2, 1)
    size = products.shape[1]
    lifted = np.trace(products, axis1=1, axis2=2) / size
    products += lifted[:, None, None] / size
    sums, exact = _sums_of_roots(np.linalg.eigvalsh(products))
    sums -= np.sqrt(lifted)
    for draw in np.flatnonzero(~exact):
        sums[draw] = np.asarray(linalg.svdvals(blocks[draw], check_finite=False)).sum()
    return sums


def _sums_of_roots(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of the roots of each row of eigenvalues, which rise, and whether rounding moves it by less than 1e-10 of
    itself.
    """
    positive = squares[:, 0] > 0
    roots = np.sqrt(np.where(positive[:, None], squares, 1))
    sums = roots.sum(axis=1)
    moved = np.finfo(float).eps * squares[:, -1] * (1 / roots).sum(axis=1)
    return sums, positive & (moved < 1e-10 * sums)


def _shortened(rows: np.ndarray) -> np.ndarray:
    """Return at most d rows with the same scatter: the factor R of a QR decomposition if there are more rows."""
    if rows.shape[0] <= rows.shape[1]:
        return rows
    return np.asarray(np.linalg.qr(rows, mode="r"))


def _root_of_scatter(scatter: np.ndarray) -> np.ndarray:
    """R with Rᵀ R = scatter; eigenvalues that rounding left below 0 count as 0."""
    values, vectors = np.linalg.eigh(scatter)
    return (vectors * np.sqrt(np.maximum(values, 0))).T
