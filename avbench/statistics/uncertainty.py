"""Computes intervals of means, and the null, floor and swap test of distances between sets of clips.

Clips of one prompt resemble each other, and everything here accounts for that: intervals are clustered by prompt, the
null exchanges only clips of one prompt, and the swap test swaps all clips of a prompt together. A null across prompts,
which needs clips that are independent, is refused where a prompt has several.

A distance between two sets of clips is computed many times, for different parts of the same pooled clips. It is passed
as a *pooled* distance: a function of (first ``[draws, n]``, second ``[draws, m]``), the indices of the pooled rows on
either side, that returns ``[draws]``. Every draw is its own computation in one thread, so that the numbers do not
depend on how many cores there are. A pooled distance may have these attributes:

- ``rounding``: how far rounding can move a distance that nearly cancels. Draws that differ by no more count as equal;
otherwise rounding would decide the p-value.
- ``draws_at_once``: how many draws it computes fastest in one call, if that is not CHUNK.
- ``influence``: its derivative, a function of (models, real), the indices of the rows of both models and of the
reference, that returns ``[models]``. The distance of a set A of the models' rows minus the distance of the other rows
is, to first order, the sum of A's influences minus the sum of the others'. See `swap_test`.
- ``influence_is_exact``: whether it is so to all orders.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import stats
from threadpoolctl import threadpool_limits

from avbench.core import InputError, NotMeasurable, Null
from avbench.statistics import clustered
from avbench.storage.workers.worker_pool import default_workers

Pooled = Callable[[np.ndarray, np.ndarray], np.ndarray]

PERMUTATIONS = 1000
MOST_EXCHANGED = 2**25
"""Clips that all permutations of a null exchange in total: above 33,554 clips there are fewer permutations."""
_LEAST_PERMUTATIONS = 99
MOST_SWAPS = 10_000
ENOUGH_EXTREME = 50
"""This many draws that are as extreme as the measured value show that the p-value is not small; its error is then 14
%."""
_SEED = 0
CHUNK = 50
"""Draws that a thread computes at a time."""
GROUPS = 30
"""Groups of prompts that the jackknife leaves out, one after another."""
_SWAPS_AT_ONCE = 500
_FLOOR_DRAWS = 20
_HELD = 2**23
"""Random values of swaps that are held at a time."""


def mean_interval(
    values: Sequence[float] | np.ndarray, clusters: Sequence[Hashable] | np.ndarray, *, level: float = clustered.LEVEL
) -> tuple[float, float] | None:
    """Interval of the mean over all clips, clustered by prompt; None with fewer than two clusters.

    The error is that of `clustered.means`; the quantile is Student's t with G−1 degrees of freedom for G clusters, of
    which the effective number counts. With one clip in each cluster this is the ordinary t interval.

    It covers the choice of prompts and seeds, not that of the model or the metric. It is far too narrow with few
    clusters (below about ten) of skewed values; it has no width if all values are equal.

    Args:
        values: ``[clips]``, finite.
        clusters: one label for each clip, such as its prompt; equal labels are one cluster, whatever their order.
        level: the confidence level, between 0 and 1.

    Raises:
        InputError: lengths differ, a value is not finite, or the level is not between 0 and 1.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(clusters) != len(x):
        msg = f"values have shape {x.shape} and there are {len(clusters)} cluster labels; give one label for each value"
        raise InputError(msg)
    if not np.isfinite(x).all():
        msg = f"{np.count_nonzero(~np.isfinite(x))} of {len(x)} values are NaN or infinite; leave those clips out"
        raise InputError(msg)
    if not 0 < level < 1:
        msg = f"level is {level!r}; it must lie between 0 and 1"
        raise InputError(msg)
    count, error, dof = _clustered_error(x, clusters)
    if count < 2:
        return None
    mean, half_width = x.mean(), clustered.quantile(dof, level) * error
    return float(mean - half_width), float(mean + half_width)


def share_interval(values: np.ndarray, clusters: Sequence[Hashable] | np.ndarray) -> tuple[float, float] | None:
    """Interval of a share, clustered by prompt and always within 0 and 1; None with fewer than two clusters.

    Wilson's interval (1927) for the effective number of values: that whose independent draws would have the variance of
    `mean_interval` (Korn and Graubard, 1998), at most as many as there are, with the same quantile of Student's t. If
    all clusters have the same share, each counts as one draw, so that a share of 1 still has a lower bound below 1.

    Args:
        values: ``[values]``, each 0, 1, or between them where it counts in part.
        clusters: one label for each value, such as its prompt.
    """
    count, error, dof = _clustered_error(values, clusters)
    if count < 2:
        return None
    share, square = float(values.mean()), float(clustered.quantile(dof)) ** 2
    even = error <= 1e-9  # then every cluster has the same share, but for rounding
    effective = count if even else min(share * (1 - share) / error**2, len(values))
    middle = (share + square / (2 * effective)) / (1 + square / effective)
    spread = share * (1 - share) / effective + square / (4 * effective**2)
    half_width = float(np.sqrt(square * spread)) / (1 + square / effective)
    return max(0.0, middle - half_width), min(1.0, middle + half_width)


def _clustered_error(x: np.ndarray, clusters: Sequence[Hashable] | np.ndarray) -> tuple[int, float, float]:
    """The number of clusters, and the standard error of the mean and its degrees of freedom; 0 with fewer than two
    clusters.
    """
    group = clustered.numbered(clusters)
    counts = np.bincount(group)
    if len(counts) < 2:
        return len(counts), 0.0, 0.0
    found = clustered.means(np.bincount(group, x), counts, np.arange(len(counts)))
    return len(counts), float(found.error), float(found.dof)


def permutation_null(
    pooled: Pooled,
    prompts: Sequence[Hashable] | np.ndarray,
    real_prompts: Sequence[Hashable] | np.ndarray,
    *,
    higher_is_better: bool = False,
    permutations: int = PERMUTATIONS,
) -> Null:
    """The distances that would arise if model and reference had one distribution: clips change sides at random.

    The number of clips on each side stays the same. If at least half of the model's clips are of prompts that the
    reference has, clips are exchanged within their prompt only, and clips of other prompts keep their side; the null
    hypothesis is then that *for each shared prompt* the model's clips have the reference's distribution. Under it the
    p-value is exact for any distance (Phipson and Smyth, 2010); that of a bootstrap is not. Otherwise clips are
    exchanged across prompts.

    Args:
        pooled: the distance over the model's rows, then the reference's.
        prompts: the prompt of each of the model's clips.
        real_prompts: the prompt of each of the reference's clips.
        higher_is_better: for a share such as coverage, for which low values are bad.
        permutations: their number; they are seeded. Of more than 33,554 clips in all there are fewer, which bounds time
            and memory: 335 of 100,000 clips. The p-value stays exact, and cannot be below 1 / (1 + permutations).

    Raises:
        NotMeasurable: clips would be exchanged across prompts, and a prompt has several, which are not independent.
    """
    n, count = len(prompts), len(prompts) + len(real_prompts)
    permutations = min(permutations, max(_LEAST_PERMUTATIONS, MOST_EXCHANGED // count))
    strata = clustered.numbered([*prompts, *real_prompts])
    within = bool(np.isin(strata[:n], strata[n:]).mean() >= 0.5)
    if not within:
        if len(np.unique(strata[:n])) < n or len(np.unique(strata[n:])) < count - n:
            msg = (
                "clips of one prompt are alike, and the reference has other prompts; with one clip of each prompt "
                "there would be a null"
            )
            raise NotMeasurable(msg)
        strata = np.zeros(count, dtype=np.intp)
    random = np.random.default_rng(_SEED)
    order = np.empty((1 + permutations, count), dtype=np.int32)
    order[0] = np.arange(count)
    for places in order[1:]:
        places[:] = _exchanged(strata, n, random)
    values = _each(pooled, order[:, :n], order[:, n:])
    measured, drawn = values[0], values[1:]
    slack = max(getattr(pooled, "rounding", 0.0), 1e-9 * abs(measured))
    worse = drawn <= measured + slack if higher_is_better else drawn >= measured - slack
    p = (1 + np.count_nonzero(worse)) / (1 + permutations)
    return Null(float(drawn.mean()), float(drawn.std(ddof=1)), float(p), permutations, within)


@dataclass(frozen=True)
class Difference:
    """The distance of model A to the reference minus that of model B."""

    value: float
    p: float
    """Two-sided."""
    error: float
    """Standard error of the t test; where the swap test alone counts, the deviation over the swaps."""
    dof: float | None
    """Degrees of freedom of the t test; None where the swap test alone counts."""
    pairs: int
    permutations: int


@threadpool_limits.wrap(limits=1)
def swap_test(
    pooled: Pooled,
    prompts: Sequence[Hashable] | np.ndarray,
    real_prompts: Sequence[Hashable] | np.ndarray,
    *,
    permutations: int = MOST_SWAPS,
) -> Difference:
    """Is A nearer to the reference than B, or is that chance? Labels are swapped prompt by prompt.

    A prompt's pairs, one per seed, are swapped together, because they are alike.

    Two models can differ and still be equally near to the reference. Swapped labels then vary less than the difference
    does, and would call one of them nearer too often. So p is the larger one of two: that of the swaps, which is exact
    if A and B have one distribution, and that of a t test with the standard error of the jackknife, which leaves out
    up to 30 groups of the models' prompts one by one, each with the reference's clips of these prompts, and as many
    groups of its other prompts (Shao and Wu, 1989). It is at least about right whatever the two are.

    If the distance has an ``influence``, the swaps test its derivative: the sum over pairs of A's influence minus B's,
    computed from the clips of both models together, so no swap changes it. Swapping a prompt turns the sign of its
    terms, so 10,000 swaps cost no more than one distance. Terms of even order cancel in the difference of two
    distances, so the error is of third order; for a kernel distance it is 0, and the sum is the measured difference
    itself. The test is still exact under its null, because any statistic that is computed in the same way for every
    swap may be tested. If the derivative has another sign than the measured difference, it says nothing of it, and the
    t test alone counts.

    Other distances are computed anew for every swap, until ENOUGH_EXTREME swaps, h, are as extreme as what was
    measured: then p is h over the number drawn (Besag and Clifford, 1991).

    Args:
        pooled: the distance over A's rows, B's in the same order of keys, and the reference's.
        prompts: the prompt of each pair of clips, in that order.
        real_prompts: the prompt of each clip of the reference.
        permutations: how many swaps at most, seeded. With all of them drawn p is (1 + extreme) / (1 + permutations).

    Raises:
        NotMeasurable: there are fewer than 2 pairs, or fewer than 2 clips of the reference.
    """
    pairs, real, number = len(prompts), len(real_prompts), clustered.numbered(prompts)
    if min(pairs, real) < 2:
        needs = "comparing two distances needs at least 2 clips that both models have, and 2 real ones"
        msg = f"{needs}; there are {pairs} and {real}"
        raise NotMeasurable(msg)
    rounding = 2 * getattr(pooled, "rounding", 0.0)  # of a difference of two distances

    def computed_anew(swapped: np.ndarray) -> np.ndarray:
        return _swaps(pooled, real, swapped[:, number])

    none, influence = np.zeros((1, len(set(number))), dtype=bool), getattr(pooled, "influence", None)
    if influence is None:
        measured = tested = float(computed_anew(none)[0])
        swaps, enough = computed_anew, ENOUGH_EXTREME
    else:
        of_clips = influence(np.arange(2 * pairs), np.arange(2 * pairs, 2 * pairs + real))
        slopes = of_clips[:pairs] - of_clips[pairs:]
        tested = float(slopes.sum())
        exact = getattr(pooled, "influence_is_exact", False)
        measured = tested if exact else float(computed_anew(none)[0])
        swaps, enough = functools.partial(_signed_sums, np.bincount(number, slopes)), permutations + 1
    if abs(measured) <= rounding:
        measured = 0.0
    # A swap of everything gives minus the same number but for rounding, and must count as no nearer to 0.
    least = abs(tested) - max(rounding, 1e-9 * abs(tested))
    drawn, extreme = _drawn(swaps, len(set(number)), least, enough, permutations)
    p = extreme / len(drawn) if extreme == enough else (1 + extreme) / (1 + len(drawn))
    error, dof = _jackknife(pooled, prompts, real_prompts)
    known = error > rounding
    if measured and known:
        by_error = 2 * stats.t.sf(abs(measured) / error, dof)
        p = by_error if measured * tested < 0 else max(p, by_error)
    elif measured * tested <= 0:
        p = 1.0
    if not known:
        error = float(drawn.std(ddof=1))
    return Difference(measured, float(p), error if error > rounding else 0.0, dof if known else None, pairs, len(drawn))


def _jackknife(
    pooled: Pooled, prompts: Sequence[Hashable] | np.ndarray, real_prompts: Sequence[Hashable] | np.ndarray
) -> tuple[float, float]:
    """The standard error of A's distance minus B's, and its degrees of freedom (Satterthwaite, 1946).

    A prompt of the models is left out together with the reference's clips of it: what all of them owe to the prompt
    largely cancels in the difference. The reference's other prompts are left out apart, and the variances are added.

    The error is 0 if it is not known: a group has nearly all pairs, or the distance needs nearly as many as there are.

    Args:
        pooled: as in `swap_test`.
        prompts: the prompt of each pair.
        real_prompts: the prompt of each of the reference's clips.
    """
    pairs, number = len(prompts), clustered.numbered([*prompts, *real_prompts])
    of_models = number[:pairs].max() + 1
    parts = [_left_out(pooled, pairs, number, 0, of_models)]
    if number.max() >= of_models:
        parts.append(_left_out(pooled, pairs, number, of_models, number.max() + 1))
    if not parts[0][0]:
        return 0.0, 1.0
    total = sum(variance for variance, _ in parts)
    return float(np.sqrt(total)), total**2 / sum(variance**2 / dof for variance, dof in parts)


def _left_out(pooled: Pooled, pairs: int, number: np.ndarray, first: int, end: int) -> tuple[float, int]:
    """The variance by leaving out the prompts `first` … `end` − 1, group by group, and its degrees of freedom.

    It is 0 if a group has nearly all pairs or real clips, or if the distance cannot be computed of so few.

    Args:
        pooled: as in `swap_test`.
        pairs: how many there are.
        number: ``[pairs + real]``: the number of each pair's prompt, and of that of each of the reference's clips.
        first: the first of the prompts to leave out.
        end: the number after the last one.
    """
    groups = min(end - first, GROUPS)
    dof = max(1, groups - 1)
    group = np.full(number.max() + 1, groups)  # of no group
    group[first:end] = np.random.default_rng(_SEED).permutation(end - first) % groups
    kept = [np.flatnonzero(group[number] != one) for one in range(groups)]
    kept_pairs = [int(np.searchsorted(one, pairs)) for one in kept]
    if min(min(count, len(one) - count) for one, count in zip(kept, kept_pairs, strict=True)) < 2:
        return 0.0, dof
    sizes = [*zip(kept_pairs, map(len, kept), strict=True)]
    found = np.empty(groups)
    for size in set(sizes):
        alike = [one for one in range(groups) if sizes[one] == size]
        a, real = np.split(np.stack([kept[one] for one in alike]), [size[0]], axis=1)
        try:
            found[alike] = _apart(pooled, a, pairs + a, pairs + real)
        except Exception:  # a package's distance may raise anything; of all rows it has a value
            return 0.0, dof
    if not np.isfinite(found).all():
        return 0.0, dof
    return float((groups - 1) / groups * np.square(found - found.mean()).sum()), dof


def _drawn(
    swaps: Callable[[np.ndarray], np.ndarray], prompts: int, least: float, enough: int, most: int
) -> tuple[np.ndarray, int]:
    """Draw swaps until `enough` differ by `least`, or `most` are drawn: the differences, and how many are as large."""
    random = np.random.default_rng(_SEED)
    drawn = np.empty(0)
    at_once = max(1, min(_SWAPS_AT_ONCE, _HELD // prompts)) if enough > most else 2 * CHUNK
    while len(drawn) < most:
        count = min(at_once, most - len(drawn))
        drawn = np.append(drawn, swaps(random.random((count, prompts)) < 0.5))
        extreme = np.abs(drawn) >= least
        if np.count_nonzero(extreme) >= enough:
            return drawn[: np.nonzero(extreme)[0][enough - 1] + 1], enough
    return drawn, int(np.count_nonzero(np.abs(drawn) >= least))


def _signed_sums(slopes: np.ndarray, swapped: np.ndarray) -> np.ndarray:
    """``[draws]``: the sum of the slopes ``[labels]``, negative where a draw ``[draws, labels]`` swaps the label."""
    return np.where(swapped, -1.0, 1.0) @ slopes


def _swaps(pooled: Pooled, real: int, swapped: np.ndarray) -> np.ndarray:
    """``[draws]``: A's distance minus B's, with the labels of these pairs ``[draws, pairs]`` swapped."""
    pairs = swapped.shape[1]
    a = np.arange(pairs) + np.where(swapped, pairs, 0)
    return _apart(pooled, a, a + np.where(swapped, -pairs, pairs), 2 * pairs + np.arange(real))


def _apart(pooled: Pooled, a: np.ndarray, b: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``[draws]``: the distance of rows a ``[draws, n]`` to those of the reference ``[draws, m]`` minus that of rows b.

    What is the same in all draws has no first axis.
    """
    draws = max(len(one) for one in (a, reference) if one.ndim == 2)
    a, b, reference = (np.broadcast_to(one, (draws, one.shape[-1])) for one in (a, b, reference))
    return _each(pooled, a, reference) - _each(pooled, b, reference)


def floor(pooled: Pooled, prompts: Sequence[Hashable] | np.ndarray, n: int) -> float:
    """The score of n perfect clips: the distance of n of the reference's own clips to the rest of the reference.

    It is the mean over seeded draws without replacement. Each draw takes clips as evenly from the prompts as n allows,
    as a run does; clips of one prompt resemble each other, so draws that ignored prompts would score higher. The rest
    has n clips fewer than the reference that models are compared with, which makes the floor a little too high if n is
    a large part of it.

    Args:
        pooled: the distance over the reference's rows.
        prompts: the prompt of each of them.
        n: clips of the model.

    Raises:
        NotMeasurable: n is below 2, or the reference has fewer than 2 n clips.
    """
    if n < 2 or len(prompts) < 2 * n:
        msg = f"a floor at {n} clips needs n of at least 2 and a reference of at least {2 * n}; it has {len(prompts)}"
        raise NotMeasurable(msg)
    random = np.random.default_rng(_SEED)
    strata = clustered.numbered(prompts)
    order = np.stack([_evenly(strata, random) for _ in range(_FLOOR_DRAWS)])
    return float(_each(pooled, order[:, :n], order[:, n:]).mean())


def _each(pooled: Pooled, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute all draws, one chunk per thread: linear algebra lets other threads run."""
    size = getattr(pooled, "draws_at_once", CHUNK)
    parts = [slice(start, start + size) for start in range(0, len(first), size)]
    with threadpool_limits(1), ThreadPoolExecutor(default_workers()) as threads:
        return np.concatenate(list(threads.map(lambda part: pooled(first[part], second[part]), parts)))


def _exchanged(strata: np.ndarray, n: int, random: np.random.Generator) -> np.ndarray:
    """A random order of all rows in which the first n contain as many rows of each stratum as rows 0…n−1 do."""
    by_stratum = np.lexsort((random.random(len(strata)), strata))
    wanted = np.bincount(strata[:n], minlength=strata.max() + 1)
    sizes = np.bincount(strata)
    place = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = place < np.repeat(wanted, sizes)
    return np.concatenate([by_stratum[chosen], by_stratum[~chosen]])


def _evenly(strata: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A random order of the rows in which every stratum appears once before any appears twice, and so on."""
    luck = random.random(len(strata))
    by_stratum = np.lexsort((luck, strata))
    sizes = np.bincount(strata)
    turn = np.empty(len(strata), dtype=np.intp)
    turn[by_stratum] = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.lexsort((luck, turn))
