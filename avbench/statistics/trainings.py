"""Tests whether two arms differ by more than chance, where an arm is a recipe that was trained several times.

Two sources of luck decide what is measured: the training (its seed) and the prompt. They are crossed, because every
training makes clips of the same prompts. An arm is a table ``[trainings, prompts]`` of the mean value of each prompt's
clips, NaN where they could not be measured; a distance, which is one number of all clips, is a table with one column.
An arm's mean is that of its trainings' means, and the difference is A's mean less B's. A prompt that a whole arm lacks
is left out of both. The rows of the two tables may be paired, where two trainings share the order of the data and the
noise; a prompt that one of a pair lacks is then left out of both.

What each number answers:

- `interval` and `p`: would other trainings, on other prompts of the same kind, differ in the same direction? They come
  from Student's t. The squared error is that of the means of the trainings (at least what the residual alone gives),
  plus what the means of the prompts vary by beyond the residual, if that is above 0. Degrees of freedom follow
  Satterthwaite (1946); so few trainings make the interval wide only as far as trainings matter. For a distance the
  error comes from the trainings alone: the answer is about other trainings on the *same* prompts and reference.
- `p_exact`: could the labels of whole trainings have come about by chance? It computes the difference for every way to
  swap the arms within pairs of trainings (or, without pairs, for every way to deal the trainings to two arms) and
  counts those that are as large. It needs no assumption on the distribution, and is about the same prompts.
  `least_p` is the smallest value that it can take: 2/2ⁿ with n pairs, so it cannot reach 5 % with fewer than 6.

Without gaps these are the variance components of the two-way layout with random rows and columns (Searle, Casella and
McCulloch, 1992); with gaps the parts are summed over trainings and over prompts as in two-way clustering (Cameron,
Gelbach and Miller, 2011), and the residual is that of the additive model, fitted by least squares.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avbench.core import InputError
from avbench.statistics import paired, power

LEAST_TRAININGS = 2
"""Trainings per arm below which nothing is known of how much trainings differ."""
_MOST_PATTERNS = 10_000
"""Ways to swap or deal the trainings that are computed; if there are more, that many are drawn at random."""
_DRAWS = range(_MOST_PATTERNS - 1)
_MOST_TRAININGS = 10_000
_SEED = 0


@dataclass(frozen=True)
class Components:
    """Variances of a difference between arms, in the squared unit of the value."""

    training: float
    """Between pairs of trainings, beyond the residual."""
    prompt: float
    """Between prompts, beyond the residual; 0 for a distance."""
    rest: float
    """Of one prompt in one pair of trainings: the interaction, and the luck of a clip."""
    sources: float
    """1 if trainings are paired; without pairs between 1 and 2, as both arms' trainings tell of the error."""
    crossed: bool
    """Whether there are prompts; False for a distance."""

    def error(self, trainings: int, prompts: int) -> tuple[float, float]:
        """Standard error and degrees of freedom that so many trainings per arm and prompts are expected to give."""
        rest = self.rest / (trainings * prompts)
        of_trainings = _Part(self.training / trainings + rest, self.sources * (trainings - 1))
        if not self.crossed or not self.prompt:
            return _total([of_trainings])
        extra = [_Part(self.prompt / prompts + rest, prompts - 1), _Part(-rest, (trainings - 1) * (prompts - 1))]
        return _total([of_trainings, *extra])

    def detectable(self, trainings: int, prompts: int, *, family: int = 1, alpha: float = paired.ALPHA) -> float | None:
        """The smallest true difference that 80 % of such studies would find, tested as the first of a family."""
        return power.detectable(*self.error(trainings, prompts), family=family, alpha=alpha)

    def trainings_needed(
        self, effect: float, prompts: int, *, family: int = 1, alpha: float = paired.ALPHA
    ) -> int | None:
        """Trainings per arm that would find a true difference of this size in 80 % of studies with so many prompts.

        None if no number would: prompts are then too few.
        """
        return power.fewest(
            lambda count: self._finds(effect, count, prompts, alpha / family), LEAST_TRAININGS, _MOST_TRAININGS
        )

    def prompts_needed(
        self, effect: float, trainings: int, *, family: int = 1, alpha: float = paired.ALPHA
    ) -> int | None:
        """The same for prompts, with so many trainings per arm. None if no number would, and for a distance."""
        if not self.crossed:
            return None
        return power.fewest(
            lambda count: self._finds(effect, trainings, count, alpha / family),
            paired.LEAST_PROMPTS,
            power.MOST_PROMPTS,
        )

    def _finds(self, effect: float, trainings: int, prompts: int, alpha: float) -> bool:
        error, dof = self.error(trainings, prompts)
        return bool(effect) and (not error or power.power(effect, error, dof, alpha) >= 0.8)


@dataclass(frozen=True)
class Estimate:
    """A mean over trainings and prompts, or a difference of two."""

    value: float
    error: float
    """Standard error, of both sources of luck."""
    dof: float
    interval: tuple[float, float]
    p: float
    """Two-sided, of a true value of 0."""
    components: Components


@dataclass(frozen=True)
class ArmDifference(Estimate):
    """Arm A less arm B."""

    p_exact: float
    """Two-sided, by relabelling whole trainings."""
    least_p: float
    """The smallest value that `p_exact` can take with so many trainings."""
    trainings: tuple[int, int]
    prompts: int
    paired: bool
    """Whether each training of A was held against its partner in B."""
    constant: bool
    """Whether the estimate has no spread, so that the interval has no width, and `p` is `p_exact`."""


@dataclass(frozen=True)
class _Part:
    """A part of an error's square, and the degrees of freedom that it is known by."""

    variance: float
    dof: float


def arm_difference(
    a: np.ndarray, b: np.ndarray, *, paired_rows: bool, targets: np.ndarray | float | None = None
) -> ArmDifference:
    """Compute A less B with its error, interval and p-values.

    Args:
        a: ``[trainings, prompts]``: mean value of the clips of each prompt; NaN where it has none. A distance has one
            column.
        b: ``[trainings, prompts]``: the same of B, prompts in the same order.
        paired_rows: whether row k of A and row k of B are partners. Without partners the error is Welch's (1947).
        targets: ``[prompts]``: for a band metric, the reference's value, of each prompt or the same for all. The
            difference is then that of the distances of the two means from it; below 0, A is nearer. `p` and the
            interval allow for arms that are equally near on either side of it; `p_exact` does not.

    Raises:
        InputError: an arm has fewer than two trainings, the prompts differ in number, rows cannot be paired, a value is
            infinite, or a training has no value (that its partner has, too).
    """
    a, b = _checked(a, "A"), _checked(b, "B")
    if a.shape[1] != b.shape[1] or (paired_rows and len(a) != len(b)):
        msg = (
            f"A has {len(a)} trainings with {a.shape[1]} prompts, B has {len(b)} with {b.shape[1]}; both must have the "
            "same prompts, and as many trainings if these are paired"
        )
        raise InputError(msg)
    both = ~np.isnan(a - b) if paired_rows else ~(np.isnan(a).all(0) | np.isnan(b).all(0))
    of = "each pair of trainings together" if paired_rows else "the prompts that both arms have"
    a, b = (_checked(np.where(both, one, np.nan), of) for one in (a, b))
    rounding = paired.rounding_of(a, b, 0.0 if targets is None else targets)
    to_target = targets is not None
    if to_target:
        a, b = a - targets, b - targets
    x, y = (-one if to_target and _means(one).mean() < 0 else one for one in (a, b))
    found = _crossed([x - y] if paired_rows else [x, -y])
    p_exact, least_p = _relabelled(_means(a), _means(b), rounding, to_target=to_target, paired_rows=paired_rows)
    constant = found.error <= rounding
    interval, p = found.interval, p_exact if constant else found.p
    if to_target:
        interval, p_side = _on_either_side(a, b, interval, paired_rows=paired_rows)
        p = max(p, p_side)
    return ArmDifference(
        found.value,
        found.error,
        found.dof,
        interval,
        p,
        found.components,
        p_exact=p_exact,
        least_p=least_p,
        trainings=(len(a), len(b)),
        prompts=_known_prompts([a, b]),
        paired=paired_rows,
        constant=bool(constant),
    )


def arm_mean(values: np.ndarray) -> Estimate:
    """The mean of one arm ``[trainings, prompts]`` with its error and interval over trainings and prompts.

    Raises:
        InputError: there are fewer than two trainings, one has no value, or a value is infinite.
    """
    return _crossed([_checked(values, "the arm")])


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or len(table) < LEAST_TRAININGS or np.isinf(table).any():
        msg = (
            f"the values of {name} have shape {table.shape}; give [trainings, prompts] without infinity, "
            f"of at least {LEAST_TRAININGS} trainings"
        )
        raise InputError(msg)
    if empty := np.nonzero(np.isnan(table).all(1))[0].tolist():
        msg = f"training {empty[0]} of {name} has no value on any prompt"
        raise InputError(msg)
    return table


def _means(table: np.ndarray) -> np.ndarray:
    """``[trainings]``"""
    return np.nanmean(table, axis=1)


def _on_either_side(
    a: np.ndarray, b: np.ndarray, interval: tuple[float, float], *, paired_rows: bool
) -> tuple[tuple[float, float], float]:
    """The interval of a band metric, to the other side if the middle of both arms may lie there, and p of that.

    Arms on either side of it can be equally near and differ all the same (see `paired`).
    """
    a, b = a / 2, b / 2
    middle = _crossed([a + b] if paired_rows else [a, b])
    low, high = interval
    if middle.interval[0] < 0 < middle.interval[1]:
        half = float(_means(a).mean() - _means(b).mean())
        there = paired.nearer(middle.interval[0 if middle.value > 0 else 1], half)
        low, high = min(low, there), max(high, there)
    return (low, high), middle.p


def _known_prompts(tables: Sequence[np.ndarray]) -> int:
    """How many prompts have a value in any training."""
    return int(np.any([~np.isnan(table).all(0) for table in tables], axis=0).sum())


def _crossed(tables: Sequence[np.ndarray]) -> Estimate:
    """The sum of the means of tables ``[trainings, prompts]`` that share their prompts, and its error."""
    prompts, means = _known_prompts(tables), [_means(table) for table in tables]
    of_trainings = [_Part(float(mean.var(ddof=1)) / len(mean), len(mean) - 1) for mean in means]
    rests = [_residual(table) for table in tables]
    # Trainings that agree by luck do not make the error smaller than the residual alone makes it.
    lifts = [
        _Part(rest.variance - part.variance, rest.dof)
        for part, rest in zip(of_trainings, rests, strict=True)
        if rest.variance > part.variance
    ]
    parts, beyond = [*of_trainings, *lifts], 0.0
    if prompts > 1:
        pulls = sum(_pulls(table, mean) for table, mean in zip(tables, means, strict=True))
        of_prompts = float(np.sum(pulls**2)) * prompts / (prompts - 1)
        beyond = of_prompts - sum(part.variance for part in rests)
        if beyond > 0:
            parts += [_Part(of_prompts, prompts - 1), *(_Part(-part.variance, part.dof) for part in rests if part.dof)]
    error, dof = _total(parts)
    value = float(sum(mean.mean() for mean in means))
    reach = paired.half_width(error, dof)
    training = sum(
        max(0.0, part.variance - rest.variance) * len(table)
        for part, rest, table in zip(of_trainings, rests, tables, strict=True)
    )
    components = Components(
        training,
        max(0.0, beyond) * prompts,
        sum(rest.variance * len(table) * prompts for rest, table in zip(rests, tables, strict=True)),
        sources([part.variance for part in of_trainings]),
        crossed=prompts > 1,
    )
    p = float(paired.t_test(value, error, dof))
    return Estimate(value, error, dof, (value - reach, value + reach), p, components)


def _pulls(table: np.ndarray, means: np.ndarray) -> np.ndarray:
    """``[prompts]``: how far each prompt pulls the mean of a table away from that of the other prompts."""
    counts = np.count_nonzero(~np.isnan(table), axis=1, keepdims=True)
    return np.nansum((table - means[:, None]) / counts, axis=0) / len(table)


def _residual(table: np.ndarray) -> _Part:
    """What of the variance of a table's mean is left when trainings and prompts are taken out."""
    table = table[:, ~np.isnan(table).all(0)]
    known = ~np.isnan(table)
    in_row, in_column = known.sum(1), known.sum(0)
    apart = np.where(known, table - np.nanmean(table, axis=0), 0.0)
    normal = np.diag(in_row) - (known / in_column) @ known.T  # of the rows' effects, when columns are taken out
    rows = np.linalg.pinv(normal, hermitian=True) @ apart.sum(1)
    shift = np.where(known, rows[:, None], 0.0)
    apart -= np.where(known, shift - shift.sum(0) / in_column, 0.0)
    dof = int(known.sum()) - table.shape[1] - int(np.linalg.matrix_rank(normal, hermitian=True))
    if dof < 1:
        return _Part(0.0, 0)
    return _Part(float(np.sum(apart**2)) / dof * float(np.sum(1 / in_row)) / len(table) ** 2, dof)


def _total(parts: Sequence[_Part]) -> tuple[float, float]:
    """Standard error and Satterthwaite's degrees of freedom of a sum of parts.

    They are never fewer than those of the part that is known worst; the formula can go below that, where a part is
    subtracted.
    """
    total, fewest = sum(part.variance for part in parts), min(part.dof for part in parts)
    if total <= 0:
        return 0.0, float(fewest)
    return math.sqrt(total), max(fewest, total**2 / sum(part.variance**2 / part.dof for part in parts))


def sources(variances: Sequence[float]) -> float:
    """How many arms' trainings an error rests on: 1 for pairs, or where one arm alone varies, 2 for equal arms.

    `variances` are those of each arm's mean, or of the pairs' mean.
    """
    squares = sum(variance**2 for variance in variances)
    return sum(variances) ** 2 / squares if squares else float(len(variances))


def _relabelled(
    a: np.ndarray, b: np.ndarray, rounding: float, *, to_target: bool, paired_rows: bool
) -> tuple[float, float]:
    """Exact two-sided p of the means of trainings ``[trainings]`` by swapped or dealt labels, and its least value."""
    every = np.concatenate([a, b])
    in_a, least = _labels(len(a), len(b), paired_rows)
    means = [np.where(side, every, 0.0).sum(1) / side[0].sum() for side in (in_a, ~in_a)]
    if to_target:
        means = [np.abs(mean) for mean in means]
    sizes = np.abs(means[0] - means[1])  # the first pattern is what was measured
    beyond = int(np.count_nonzero(sizes >= sizes[0] - rounding))
    return beyond / len(sizes), least


@functools.lru_cache(maxsize=16)
def _labels(a: int, b: int, paired_rows: bool) -> tuple[np.ndarray, float]:
    """``[patterns, trainings]``: which are A's, in the measured pattern and the others; and the least p of them."""
    first = np.arange(a + b) < a
    count = 2**a if paired_rows else math.comb(a + b, a)
    if count > _MOST_PATTERNS:
        random = np.random.default_rng(_SEED)
        drawn = (_swapped(random.random(a) < 0.5) if paired_rows else random.permutation(first) for _ in _DRAWS)
        return np.array([first, *drawn]), 1 / _MOST_PATTERNS
    if paired_rows:
        return np.array([_swapped(np.array(kept)) for kept in itertools.product((True, False), repeat=a)]), 2 / count
    dealt = np.array([np.isin(np.arange(a + b), chosen) for chosen in itertools.combinations(range(a + b), a)])
    return dealt, (2 if a == b else 1) / count


def _swapped(kept: np.ndarray) -> np.ndarray:
    """Which trainings are A's if only these pairs keep their arms."""
    return np.concatenate([kept, ~kept])
