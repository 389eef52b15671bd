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

import functools
import itertools
from collections.abc import Iterator

import numpy as np
from scipy import linalg
from scipy.spatial.distance import cdist

from avbench.core import InputError, Moments, NotMeasurable

CLIPS_PER_DIMENSION = 5
"""With fewer clips per dimension, a straight line in 1/n does not lead to the value at infinity."""

_ROUNDING = 1e-12
"""How far rounding can move a value, relative to the terms of the difference; the largest error seen was 5e-15."""
_WELL_CONDITIONED = 1e-2
"""Smallest allowed ratio of a Cholesky factor's least to its largest diagonal element; above it, values agree to 1e-10
with those by matrix roots."""
(_SYGST,) = linalg.get_lapack_funcs(("sygst",), dtype=np.float64)
_LARGEST_GRAM = 8192  # rows, half a gigabyte: above it the Fréchet draws go by covariances
_AT_ONCE = 1024  # rows that are copied at once; the kernel of more is computed in tiles, anew for each call
_HELD = 2**23  # distances that are held at a time
_BLOCKS = 2**18  # products of rows of several draws that are computed together
_IN_CACHE = 2**16  # values that are worked on while they are in the processor's cache
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
    x, y = _checked(x, y)
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
        self._rows = features - features.mean(axis=0)
        self._scatter = self._rows.T @ self._rows
        if _well_conditioned_root(self._scatter) is None:
            # In the basis of the rows' own span nothing is lost, and a covariance of enough rows is regular.
            _, lengths, basis = linalg.svd(_shortened(self._rows), full_matrices=False)
            self._rows = self._rows @ basis[lengths > 1e-10 * max(lengths.max(initial=0), 1e-300)].T
            self._scatter = self._rows.T @ self._rows
        self._sum = self._rows.sum(axis=0)
        self.rounding = _ROUNDING * float(np.trace(self._scatter)) / len(features)
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
        able = lengths > _ROUNDING * lengths.max(initial=0)
        shared = root @ (vectors[:, able] / lengths[able] ** 0.25)
        found = []
        for part in _in_parts(models):
            rows = self._rows[part] - mean
            own = np.square(rows).sum(axis=1) - np.square(rows @ shared).sum(axis=1)
            found.append((2 * rows @ (mean - mean_real) + over * own) / half)
        return np.concatenate(found)

    def _mean_and_scatter(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = np.sum([self._rows[part].sum(axis=0) for part in _in_parts(places)], axis=0) / len(places)
        scatter = np.zeros_like(self._scatter)
        for part in _in_parts(places):
            rows = self._rows[part] - mean
            scatter += rows.T @ rows
        return mean, scatter

    def _by_gram(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Of several draws together, because each step of a single small one takes longer to call than to compute."""
        n, m, count = first.shape[1], second.shape[1], len(self._rows)
        mean_a, mean_b = (
            _indicators(side, count).T.astype(np.float64) @ self._rows / side.shape[1] for side in (first, second)
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
        if len(a) + len(b) == len(self._rows):  # the other part is what is left of all rows
            mean_b, raw_b = (self._sum - len(a) * mean_a) / len(b), self._scatter - raw_a
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
    """`kernel_distance` between any two parts of pooled rows; of many rows the kernel is never held as a whole."""

    influence_is_exact = True

    def __init__(self, features: np.ndarray, *, degree: int = 3, coef0: float = 1.0) -> None:
        self._rows, self._degree, self._coef0 = features, degree, coef0
        squares = [np.square(features[part]).sum(axis=1) for part in _in_parts(np.arange(len(features)))]
        self._own = (np.concatenate(squares) / features.shape[1] + coef0) ** degree
        self.rounding = _ROUNDING * float(self._own.max())
        """How far rounding can move a distance: it is a sum of kernel values, and none is larger than a row's value
        with itself."""
        self.draws_at_once = 50 if len(features) <= _AT_ONCE else 10_000
        """The kernel of many rows is computed again for every call."""

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Distances ``[draws]`` between rows ``first`` ``[draws, n]`` and ``second`` ``[draws, m]``.

        With S(a, b) the sum of the kernel over two parts, S(second, second) and S(first, second) follow from S(first,
        first) and the sums over a row, if the two parts together are all rows. Then only one side is multiplied.
        """
        n, m, count = first.shape[1], second.shape[1], len(self._rows)
        in_first, in_second = _indicators(first, count), _indicators(second, count)
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
        sides = _indicators(np.stack([models]), len(self._rows)), _indicators(np.stack([real]), len(self._rows))
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
        places = [slice(start, start + _AT_ONCE) for start in range(0, len(self._rows), _AT_ONCE)]
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
    x, y = _checked(x, y, fewest=1)
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

    One is added to both counts of the share: an exact copy gets 1 / (m + 1), and clips of the reference's own
    distribution are spread evenly between 0 and 1.

    Args:
        apart: ``[n]``: the distance of each model clip to its nearest real clip, as of `nearest`.
        y: the real clips.
    """
    y = _checked(y)[0]
    usual = np.sort(_nearest(y, y, others=True)[1])
    return (1 + np.searchsorted(usual, apart, side="right")) / (1 + len(usual))


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
    return (nearness(nearest(x, y)[1], y) <= NEAR_COPY).astype(np.float64)


def _of_all(pooled: "Kernel | Neighbours", n: int, m: int) -> float:
    return float(pooled(np.arange(n)[None], np.arange(n, n + m)[None])[0])


def _indicators(parts: np.ndarray, count: int) -> np.ndarray:
    """``[count, draws]``: whether a row is in the part of a draw."""
    shown = np.zeros((count, len(parts)), dtype=bool)
    for draw, part in enumerate(parts):
        shown[part, draw] = True
    return shown


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


def _in_parts(places: np.ndarray) -> list[np.ndarray]:
    """Split places into parts that are small enough for their rows to be copied at once."""
    return np.array_split(places, 1 + len(places) // _AT_ONCE)


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
