"""Tests whether two models differ by more than chance, on the clips that both have.

Runs are joined on (subset, prompt, seed). Prompts are the sampled unit, so a prompt's clips stay together: they change
sides together, they are resampled together, and the degrees of freedom count prompts. Several subsets are strata: their
clips are never mixed, and the pooled number weights subsets equally (macro) or by their clips (micro). A prompt that
several subsets have, by its id, is one prompt: its clips in all of them stay together.

A difference is A's mean less B's. For band metrics, which should match the reference's value, it is the distance of A's
mean from that value less the distance of B's; below 0, A is nearer. Each clip has a reference's value: the mean of the
real clips of its prompt, or that of all real clips, which is then treated as exact.

- The p-value swaps the labels of whole prompts (a sign flip of their difference). It is exact if both models have the
  same distribution, whatever that is (Fisher, 1935).
- Two means on either side of the reference's value can be equally near to it and differ all the same. So for band
  metrics the middle of the two must be shown to lie beside that value, too (a sign flip of each prompt's middle): p is
  the larger one of the two, and as long as the middle may lie on the other side, the interval reaches to what the
  difference would be then.
- Over several subsets two models can also be equally near because each is nearer on one of them. Swapped labels then
  vary less than the difference does, so for band metrics p is at least that of a t test with the clustered error.
- The interval is, on each side, the wider of two: a studentised bootstrap over prompts (Efron, 1981), which follows
  skew as Student's t does not; and Student's t, which allows for rare large values that few prompts may not show. The
  bootstrap does not reach beyond the most extreme prompt: where few prompts differ at all, most of its samples hardly
  vary, and it would have no bounds.
- Whether A is farther from the reference's value than B by more than a margin, is tested without folding the means:
  |a| − |b| exceeds it exactly where a − b and a + b both do, towards a's side. So A must be shown to be farther than B
  and than B's mirror image on the other side, each at the full level (intersection–union test, Berger, 1982).
- Several comparisons at once are corrected by Holm (1979). Equivalence is shown by two one-sided tests against a margin
  (Schuirmann, 1987).
"""

import functools
import itertools
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import stats

from avbench.core import InputError
from avbench.statistics import clustered

ALPHA = 0.05
"""Accepted rate of false alarms, unless a plan declares another."""
PERMUTATIONS = 10_000
RESAMPLES = 4_000
LEAST_PROMPTS = 6
"""With fewer there is no interval: at 5 %, even a difference in every prompt could be chance, since 2/2⁵ > 0.05."""
_EXACT = 13  # largest number of prompts for which every pattern of swaps is computed
_MIRRORED = 10  # of so many subsets every choice of mirror images is tested: of those whose side is known worst
_HELD = 2**22  # random values that are held at a time
_SEED = 0


@dataclass(frozen=True)
class PairedDifference:
    """A less B over the clips that both have."""

    value: float
    error: float | None
    """Standard error, clustered by prompt; None if a subset has only one prompt."""
    dof: float
    """Degrees of freedom of `error`."""
    interval: tuple[float, float] | None
    """The 95 % interval; None with fewer than LEAST_PROMPTS prompts."""
    p: float
    """Two-sided."""
    pairs: int
    prompts: int
    """Of the side that has fewer, if no clip has a partner."""
    constant: bool
    """Whether every clip has the same difference, so that the interval has no width."""
    other_side: float | None = None
    """With `targets`: `value`, if the middle of A and B lies as far on the other side of them as it may."""
    contrasts: "Contrasts | None" = field(default=None, compare=False)
    """With `targets`: of the farther one with the other; None if a subset has only one prompt."""


@dataclass(frozen=True)
class Contrasts:
    """How far A's mean lies beyond B's and beyond B's mirror image, seen from one side of the reference's value.

    Over several subsets, A's side is given in each of them, and there is a contrast for every choice of B or its mirror
    image in each.
    """

    values: np.ndarray
    """``[contrasts]``: the least of them is A's distance less B's, if A is where it is taken to be."""
    errors: np.ndarray
    """``[contrasts]``: standard errors, clustered by prompt."""
    dofs: np.ndarray
    """``[contrasts]``"""
    spare: np.ndarray
    """``[contrasts]``: by how much each is more than A's distance less B's, at least: for a mirror image twice B's own
    distance, of which the lower end of its 95 % interval is taken."""

    def p(self, margin: float) -> float:
        """The p-value of "A is farther by `margin` or less".

        The larger one counts. A's side comes from the data, so each has both tails.
        """
        found = zip(self.values, self.errors, self.dofs, strict=True)
        each = [
            tail(above(value, margin), error, dof) + tail(value + margin, error, dof) for value, error, dof in found
        ]
        return min(1.0, max(each))

    def as_seen(self) -> "Contrasts":
        """The same, if B is as far from the reference's value as it was seen to be."""
        return replace(self, spare=self.values - self.values.min())


@dataclass(frozen=True)
class Farther:
    """Whether A is farther from the reference's value than B."""

    observed: Contrasts
    """With A on the side where it lies."""
    kept: Contrasts
    """With A on B's side, and..."""
    crossed: Contrasts
    """... with A on the other one."""


@dataclass(frozen=True)
class _Strata:
    """Clips by cells: a cell holds the clips of one prompt in one subset."""

    cell: np.ndarray
    """``[clips]``: number of each clip's cell."""
    stratum: np.ndarray
    """``[cells]``: number of each cell's subset."""
    prompt: np.ndarray
    """``[cells]``: number of each cell's prompt, the same in all subsets that have it."""
    prompts: int
    clips: np.ndarray
    """``[subsets]``: number of clips."""
    micro: bool
    """Whether subsets are weighted by their clips instead of equally."""

    @property
    def weights(self) -> np.ndarray:
        """``[subsets]``: weights with sum 1."""
        return clustered.weights(self.clips, micro=self.micro)

    def sums(self, per_clip: np.ndarray) -> np.ndarray:
        """Sums by cell, ``[cells]``."""
        return np.bincount(self.cell, per_clip, len(self.stratum))

    def means(self, per_clip: np.ndarray) -> np.ndarray:
        """Means by subset, ``[subsets]``."""
        return np.bincount(self.stratum, self.sums(per_clip), len(self.clips)) / self.clips

    def extremes(self, per_clip: np.ndarray) -> tuple[float, float]:
        """The mean over all subsets if every prompt had the lowest value of its subset, and the highest."""
        of_cell = self.sums(per_clip) / self.sums(np.ones(len(per_clip)))
        least, most = np.full(len(self.clips), np.inf), np.full(len(self.clips), -np.inf)
        np.minimum.at(least, self.stratum, of_cell)
        np.maximum.at(most, self.stratum, of_cell)
        return float(least @ self.weights), float(most @ self.weights)

    def alike(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Prompts by the subsets that have them: these subsets, and their cells ``[subsets, prompts]``."""
        has = np.full((self.prompts, len(self.clips)), -1)
        has[self.prompt, self.stratum] = np.arange(len(self.stratum))
        patterns, number = np.unique(has < 0, axis=0, return_inverse=True)
        found = [(np.nonzero(~lacks)[0], number.ravel() == place) for place, lacks in enumerate(patterns)]
        return [(subsets, has[members][:, subsets].T) for subsets, members in sorted(found, key=lambda one: one[0][0])]


def paired_difference(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    prompts: Sequence[Hashable],
    *,
    subsets: Sequence[Hashable] | None = None,
    targets: Sequence[float] | np.ndarray | None = None,
    micro: bool = False,
    permutations: int = PERMUTATIONS,
) -> PairedDifference:
    """Compute A less B with its standard error, interval and p-value.

    Args:
        a: ``[clips]``, finite: A's values.
        b: ``[clips]``: B's values of the same (prompt, seed), in the same order.
        prompts: the prompt of each clip.
        subsets: the subset of each clip, if there are several.
        targets: ``[clips]``: for a band metric, the reference's value: of all its clips, or of those of the prompt.
        micro: weight subsets by their clips instead of equally.
        permutations: number of random draws if there are too many patterns of swaps to compute all.

    Raises:
        InputError: lengths differ, there is no clip, or a value is not finite.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if not len(x) or not len(x) == len(y) == len(prompts) or not np.isfinite([x, y]).all():
        msg = (
            f"give as many finite values of A ({len(x)}) as of B ({len(y)}) and prompts ({len(prompts)}), at least one"
        )
        raise InputError(msg)
    strata, to_target = _strata(prompts, subsets, micro=micro), targets is not None
    goal = np.zeros(len(x)) if targets is None else np.asarray(targets, dtype=np.float64)
    rounding = rounding_of(x, y, goal)
    x, y = x - goal, y - goal
    per_clip = _per_clip(x, y, strata) if to_target else x - y
    value, error, dof = _mean(per_clip, strata)
    interval = None
    if error is not None and strata.prompts >= LEAST_PROMPTS:
        reach = half_width(error, dof)
        (low, high), (least, most) = _studentised(per_clip, strata, value, error, rounding), strata.extremes(per_clip)
        interval = min(max(low, least), value - reach), max(min(high, most), value + reach)
    least_p, other_side = 0.0, value if to_target else None
    if to_target and value:
        least_p, other_side = _on_either_side(x, y, strata, value)
        if len(strata.clips) > 1 and error is not None:
            least_p = max(least_p, float(t_test(value, error, dof)))
        interval = interval and (min(interval[0], other_side), max(interval[1], other_side))
    blocks = _sign_blocks(strata.prompts, permutations)
    swapped = np.concatenate([_swapped(x, y, strata, signs, to_target=to_target) for signs in blocks])
    beyond = int(np.count_nonzero(np.abs(swapped) >= abs(value) - rounding))
    return PairedDifference(
        value,
        error,
        dof,
        interval,
        p=max(least_p, _p(beyond, len(swapped), strata.prompts)),
        pairs=len(x),
        prompts=strata.prompts,
        constant=bool(max(np.ptp(per_clip), np.ptp(x - y)) <= rounding),
        other_side=other_side,
        contrasts=_farther_one(x, y, value, strata, np.arange(len(strata.clips))) if to_target else None,
    )


def farther(
    a: np.ndarray,
    b: np.ndarray,
    prompts: Sequence[Hashable],
    *,
    targets: np.ndarray,
    subsets: Sequence[Hashable] | None = None,
    micro: bool = False,
) -> Farther | None:
    """Compare the distances of A's and B's means from the reference's value; None if a subset has only one prompt.

    Args:
        a: ``[clips]``: A's values.
        b: ``[clips]``: B's values of the same (prompt, seed), in the same order.
        prompts: the prompt of each clip.
        targets: ``[clips]``: the reference's value, as in `paired_difference`.
        subsets: the subset of each clip, if there are several.
        micro: weight subsets by their clips instead of equally.
    """
    strata = _strata(prompts, subsets, micro=micro)
    return _farther(a - targets, b - targets, strata, np.arange(len(strata.clips)))


def unpaired_farther(
    a: np.ndarray, a_prompts: Sequence[Hashable], b: np.ndarray, b_prompts: Sequence[Hashable], *, targets: np.ndarray
) -> Farther | None:
    """The same for A and B that share no (prompt, seed), on one subset; `targets` are of A's clips and then of B's."""
    both = _strata([*a_prompts, *b_prompts], ["a"] * len(a) + ["b"] * len(b))
    return _farther(*_halves(a, b, targets), both, np.zeros(2, dtype=int))


def _halves(a: np.ndarray, b: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A's and B's values less the reference's, each on the clips of both: of two strata, each is half of the mean."""
    x, y = (2 * (one - goal) for one, goal in zip((a, b), np.split(targets, [len(a)]), strict=True))
    return np.concatenate([x, np.zeros(len(b))]), np.concatenate([np.zeros(len(a)), y])


def _farther_one(x: np.ndarray, y: np.ndarray, value: float, strata: _Strata, subset: np.ndarray) -> Contrasts | None:
    """The contrasts of the one that is farther from the reference's value with the other; `value` is x's less y's."""
    found = _farther(*((x, y) if value >= 0 else (y, x)), strata, subset)
    return found and found.observed


def _farther(x: np.ndarray, y: np.ndarray, strata: _Strata, subset: np.ndarray) -> Farther | None:
    """`farther`, of values less the reference's; `subset` is each stratum's."""
    counts, sums_x, sums_y = strata.sums(np.ones(len(x))), strata.sums(x), strata.sums(y)
    of_y = clustered.means(sums_y, counts, strata.prompt, strata.stratum, micro=strata.micro)
    if np.isnan(of_y.error):
        return None
    mean_x, mean_y = (np.bincount(subset, strata.weights * strata.means(one)) for one in (x, y))
    side_x, side_y = (np.where(one >= 0, 1.0, -1.0) for one in (mean_x, mean_y))
    reach = np.bincount(subset, strata.weights * of_y.errors * clustered.quantile(of_y.dofs))
    own, cells = np.maximum(0.0, np.abs(mean_y) - reach), subset[strata.stratum]
    doubtful = np.argsort(np.abs(mean_y) / np.maximum(reach, 1e-300), kind="stable")[:_MIRRORED]
    mirrored = np.full((2 ** len(doubtful), len(mean_y)), -1.0)
    mirrored[:, doubtful] = list(itertools.product((-1.0, 1.0), repeat=len(doubtful)))

    def contrasts(side: np.ndarray) -> Contrasts:
        signed = side[cells] * sums_x + (mirrored * side_y)[:, cells] * sums_y
        found = clustered.means(signed, counts, strata.prompt, strata.stratum, micro=strata.micro)
        return Contrasts(found.mean, found.error, found.dof, 2 * (mirrored > 0) @ own)

    return Farther(contrasts(side_x), contrasts(side_y), contrasts(-side_y))


def rounding_of(*values: float | np.ndarray) -> float:
    """How far rounding can move a difference of such values, gaps (NaN) left out; smaller ones count as none.

    A ≈ metric's values are subtracted from the reference's, so that is one of them, too.
    """
    return 1e-9 * max(float(np.nanmax(np.abs(one))) for one in values)


def nearer(middle: float | np.ndarray, half: float | np.ndarray) -> Any:
    """A's distance from the reference's value less B's.

    Args:
        middle: the middle of both means, less the reference's value.
        half: half of A's mean less B's.
    """
    return np.abs(middle + half) - np.abs(middle - half)


def _on_other_side(middle: float, half: float, error: float | None, dof: float) -> float:
    """`nearer`, if the middle lies as far on the other side of the reference's value as its 95 % interval allows; as it
    is, if it cannot.

    Args:
        middle: as of `nearer`.
        half: as of `nearer`.
        error: the standard error of the middle; None with one prompt, and then it is taken as it is.
        dof: degrees of freedom of `error`.
    """
    beyond = min(0.0, abs(middle) - (0.0 if error is None else half_width(error, dof)))
    return float(nearer(math.copysign(beyond, -middle) if beyond else middle, half))


def _on_either_side(x: np.ndarray, y: np.ndarray, strata: _Strata, value: float) -> tuple[float, float]:
    """The p-value of "both are equally near, on either side of the reference's value", and the difference if the middle
    of both lies as far on the other side as its 95 % interval allows; `value` itself if it cannot.

    Of several subsets, those whose side is known worst count, as many as would together undo the difference.
    """
    of_clip = strata.stratum[strata.cell]
    middle, half, prompts = (x + y) / 2, (x - y) / 2, strata.prompt[strata.cell]
    p, here, there = np.zeros((3, len(strata.weights)))
    for number, weight in enumerate(strata.weights):
        clips = of_clip == number
        centre, error, dof = _mean(middle[clips], _strata(prompts[clips].tolist()))
        apart = half[clips].mean()
        here[number] = weight * nearer(centre, apart)
        there[number] = weight * _on_other_side(centre, apart, error, dof)
        p[number] = flip_test(middle[clips], prompts[clips].tolist())
    of_all, counts = of_all_sides(p, here / value)
    return float(of_all), value + float((there - here)[counts].sum())


def of_all_sides(p: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The p-value of "enough subsets are on the other side to undo the whole difference", and which subsets count.

    Args:
        p: ``[..., subsets]``: of "the middle lies on the other side of the reference's value".
        share: ``[..., subsets]``: of each subset in the difference.

    Returns:
        ``[...]``, and ``[..., subsets]``: those whose side is known worst, until twice their shares make the whole.
    """
    share = np.maximum(share, 0.0)
    order = np.lexsort((-share, -p))
    enough = 2 * np.take_along_axis(share, order, -1).cumsum(-1) >= 1 - 1e-9
    last = enough.argmax(-1)[..., None]
    counts = (np.argsort(order, -1) <= last) & (share > 0)
    return np.take_along_axis(p, np.take_along_axis(order, last, -1), -1)[..., 0], counts


def flip_test(values: np.ndarray, prompts: Sequence[Hashable]) -> float:
    """Two-sided p of "the values are as likely above 0 as below": the values of a prompt change their sign together.

    Args:
        values: ``[values]``, finite, at least one.
        prompts: the prompt of each value.
    """
    sums = _strata(prompts).sums(values)
    flipped = np.concatenate([signs @ sums for signs in _sign_blocks(len(sums), PERMUTATIONS)])
    beyond = int(np.count_nonzero(np.abs(flipped) >= abs(sums.sum()) - 1e-9 * np.abs(sums).sum()))
    return _p(beyond, len(flipped), len(sums))


def _p(beyond: int, patterns: int, prompts: int) -> float:
    """The p-value of a test in which so many of the patterns of signs are as extreme: of all that there are, or of
    drawn ones.
    """
    return beyond / patterns if prompts <= _EXACT else (1 + beyond) / (1 + patterns)


def unpaired_difference(
    a: np.ndarray,
    a_prompts: Sequence[Hashable],
    b: np.ndarray,
    b_prompts: Sequence[Hashable],
    *,
    targets: np.ndarray | None = None,
) -> PairedDifference:
    """A's mean less B's if they share no (prompt, seed): Student's t, with an error that is clustered by prompt.

    Other seeds of one prompt share its luck. Where no prompt is shared, this is Welch's t (1947).

    Args:
        a: ``[clips]``: A's values.
        a_prompts: the prompt of each.
        b: ``[clips]``: B's values.
        b_prompts: the prompt of each.
        targets: of A's clips and then of B's: for a band metric, as in `paired_difference`.

    Raises:
        InputError: a side has no clip.
    """
    if not len(a) or not len(b):
        msg = "a side has no clip"
        raise InputError(msg)
    both = _strata([*a_prompts, *b_prompts], ["a"] * len(a) + ["b"] * len(b))
    goal = np.zeros(len(a) + len(b)) if targets is None else targets
    x, y = np.split(np.concatenate([a, b]).astype(np.float64) - goal, [len(a)])
    side_x, side_y = (1.0 if targets is None or one.mean() >= 0 else -1.0 for one in (x, y))
    half, half_error, dof = _mean(np.concatenate([side_x * x, -side_y * y]), both)
    value, prompts = 2 * half, min(len({*a_prompts}), len({*b_prompts}))
    if half_error is None:
        return PairedDifference(value, None, 0, None, 1.0, len(a) + len(b), prompts, constant=False)
    rounding = rounding_of(a, b, goal)
    error = 2 * half_error if half_error > rounding else 0.0
    p = float(t_test(value, error, dof))
    if not error:  # p of swaps, if every prompt differs by the same
        value, p = (value, 2.0 ** (1 - prompts)) if abs(value) > rounding else (0.0, 1.0)
    reach, other_side = half_width(error, dof), None
    low, high = value - reach, value + reach
    if targets is not None:
        middle, of_middle, free = _mean(np.concatenate([x, y]), both)
        apart = float(x.mean() - y.mean())
        other_side = _on_other_side(middle, apart / 2 if abs(apart) > rounding else 0.0, of_middle, free)
        low, high, p = (
            min(low, other_side),
            max(high, other_side),
            max(p, float(t_test(middle, of_middle or 0.0, free))),
        )
    return PairedDifference(
        value,
        error,
        dof,
        (low, high) if prompts >= LEAST_PROMPTS else None,
        p,
        len(a) + len(b),
        prompts,
        constant=not error,
        other_side=other_side,
        contrasts=None
        if targets is None
        else _farther_one(*_halves(a, b, targets), value, both, np.zeros(2, dtype=int)),
    )


def half_width(error: float, dof: float) -> float:
    """Half the width of the 95 % interval of a mean with this standard error, by Student's t."""
    return float(clustered.quantile(dof)) * error


def t_test(value: float | np.ndarray, error: float | np.ndarray, dof: float | np.ndarray) -> np.ndarray:
    """Two-sided p of a mean with this standard error, for cases with too few or too slow permutations."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(np.divide(value, error)), dof)
    return np.where(np.isnan(p), 1.0, p)


def tail(value: float, error: float, dof: float) -> float:
    """One-sided p of "the true value is 0 or less", given `value`; by the normal distribution if `dof` is NaN.

    Without an error there is no uncertainty: the result is 0 or 1.
    """
    if error == 0:
        return float(value <= 0)
    return float(stats.norm.sf(value / error) if np.isnan(dof) else stats.t.sf(value / error, dof))


def above(value: float, other: float) -> float:
    """How far a value lies above another; 0 where it may be rounding, so that clips that all differ by exactly a margin
    are not beyond it.
    """
    return 0.0 if math.isclose(value, other) else value - other


def equivalence(value: float, error: float, dof: float, margin: float) -> float:
    """The p-value of "A and B differ by `margin` or more": small if they are equivalent.

    It is the larger of two one-sided tests (`tail`). statsmodels' TOST takes raw values; it cannot take an error that
    is clustered by prompt with its own degrees of freedom.
    """
    return tail(above(margin, abs(value)), error, dof)


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values adjusted for their number (Holm, 1979): below α, the family has a false alarm in at most α of cases.

    The values are those of statsmodels' multipletests, which is not called because it runs Python's garbage collector
    at each call: 0.2 s, in a comparison more than all else.
    """
    given = np.asarray(p, dtype=np.float64)
    order = np.argsort(given)
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1)), 1)
    return adjusted


def letters(different: np.ndarray) -> list[str]:
    """A compact letter display: two rows share a letter exactly if they cannot be distinguished.

    Args:
        different: ``[rows, rows]``, symmetric, True where two rows differ; rows are in the order of their ranks.

    Source: insert and absorb, Piepho (2004).
    """
    count = len(different)
    groups = [frozenset(range(count))]
    for i, j in zip(*np.nonzero(np.triu(different)), strict=True):
        split = []
        for group in groups:
            split += [group - {i}, group - {j}] if {i, j} <= group else [group]
        unique = list(dict.fromkeys(split))
        groups = [one for one in unique if not any(one < other for other in unique)]
    groups.sort(key=sorted)
    return ["".join(_letter(place) for place, group in enumerate(groups) if row in group) for row in range(count)]


def _letter(place: int) -> str:
    """Letters a to z, then a1, b1, …"""
    return chr(ord("a") + place % 26) + (str(place // 26) if place >= 26 else "")


def _strata(prompts: Sequence[Hashable], subsets: Sequence[Hashable] | None = None, *, micro: bool = False) -> _Strata:
    subset = subsets if subsets is not None else [""] * len(prompts)
    pairs = [*zip(subset, prompts, strict=True)]
    cells = dict.fromkeys(pairs)
    cell = clustered.numbered(pairs)
    stratum = clustered.numbered([name for name, _ in cells])
    prompt = clustered.numbered([name for _, name in cells])
    clips = np.bincount(stratum[cell]).astype(np.float64)
    return _Strata(cell, stratum, prompt, int(prompt.max()) + 1, clips, micro)


def _per_clip(x: np.ndarray, y: np.ndarray, strata: _Strata) -> np.ndarray:
    """The values whose mean is the difference of two distances from 0, of values less the reference's."""
    side_x, side_y = (np.where(strata.means(one) >= 0, 1.0, -1.0)[strata.stratum[strata.cell]] for one in (x, y))
    return side_x * x - side_y * y


def _mean(per_clip: np.ndarray, strata: _Strata) -> tuple[float, float | None, float]:
    """The mean over all subsets, its standard error and its degrees of freedom (see `clustered`)."""
    counts = strata.sums(np.ones(len(per_clip)))
    found = clustered.means(strata.sums(per_clip), counts, strata.prompt, strata.stratum, micro=strata.micro)
    if np.isnan(found.error):
        return float(found.mean), None, 0.0
    return float(found.mean), float(found.error), float(found.dof)


def _studentised(
    per_clip: np.ndarray, strata: _Strata, value: float, error: float, rounding: float
) -> tuple[float, float]:
    if error <= rounding:
        return value, value
    sums, counts = strata.sums(per_clip), strata.sums(np.ones(len(per_clip)))
    means, variances = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    alike = strata.alike()
    sources = [np.random.default_rng([_SEED, number]) for number in range(len(alike))]  # whatever the blocks
    for block in _row_blocks(RESAMPLES, len(strata.stratum)):
        rows, drawn = block.stop - block.start, []
        total, clips, squares = np.zeros((3, rows, len(strata.clips)))
        for (subsets, cells), random in zip(alike, sources, strict=True):
            drawn.append(cells[:, random.integers(cells.shape[1], size=(rows, cells.shape[1]))])
            total[:, subsets] += sums[drawn[-1]].sum(2).T
            clips[:, subsets] += counts[drawn[-1]].sum(2).T
            squares[:, subsets] += (counts[drawn[-1]] ** 2).sum(2).T
        number = clustered.effective(clips, squares)
        mean, scale = total / clips, np.sqrt(number / (number - 1)) * strata.weights / clips
        means[block] = mean @ strata.weights
        for (subsets, _), cells in zip(alike, drawn, strict=True):
            apart = sums[cells] - counts[cells] * mean.T[subsets, :, None]
            variances[block] += np.sum(np.sum(scale.T[subsets, :, None] * apart, axis=0) ** 2, axis=1)
    able = variances > rounding**2
    t = (means[able] - value) / np.sqrt(variances[able])
    low, high = np.quantile(t, [(1 + clustered.LEVEL) / 2, (1 - clustered.LEVEL) / 2])
    return float(value - low * error), float(value - high * error)


def _sign_blocks(prompts: int, permutations: int) -> Iterator[np.ndarray]:
    """``[patterns, prompts]`` of ±1 in blocks: all patterns, or many drawn at random."""
    if prompts <= _EXACT or permutations * prompts <= _HELD:
        yield _signs(prompts, permutations)
        return
    random = np.random.default_rng(_SEED)  # in blocks it draws what it draws at once
    for block in _row_blocks(permutations, prompts):
        yield random.choice([1.0, -1.0], (block.stop - block.start, prompts))


@functools.lru_cache(maxsize=4)
def _signs(prompts: int, permutations: int) -> np.ndarray:
    if prompts <= _EXACT:
        return np.array(list(itertools.product((1.0, -1.0), repeat=prompts)))
    return np.random.default_rng(_SEED).choice([1.0, -1.0], (permutations, prompts))


def _row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Rows of a matrix in blocks of at most _HELD values."""
    size = max(1, _HELD // columns)
    yield from (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _swapped(x: np.ndarray, y: np.ndarray, strata: _Strata, signs: np.ndarray, *, to_target: bool) -> np.ndarray:
    """``[patterns]``: the difference after the labels of the marked prompts are swapped."""
    half = strata.sums((x - y) / 2) / strata.clips[strata.stratum]
    if not to_target:
        return 2 * signs @ np.bincount(strata.prompt, half * strata.weights[strata.stratum])
    middle = strata.means((x + y) / 2)
    total = np.zeros(len(signs))
    for number, weight in enumerate(strata.weights):
        members = strata.stratum == number
        apart = signs[:, strata.prompt[members]] @ half[members]
        total += weight * nearer(middle[number], apart)
    return total
