"""Measures the distance of a run's clips to a reference, with its null and its floor at the same number of clips.

A distance is reported with two other numbers at the same n where they can be computed: a permutation null, and the
floor, which is the score of the reference's own clips (see uncertainty.py). Two models are compared by the difference
of their distances to the same reference. This module chooses the arrays that a metric compares; frechet.py, kernel.py
and neighbours.py compare them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avbench.core import Columns, Direction, InputError, Key, Moments, NotMeasurable, Null, Protocol, Subset, resolve
from avbench.metrics import neighbours
from avbench.metrics.reference import Reference
from avbench.metrics.table import Metric
from avbench.statistics import uncertainty
from avbench.statistics.uncertainty import Difference, Pooled


def embedding(columns: Columns, name: str, whose: str) -> np.ndarray:
    """One column as ``[clips, d]`` or, with several windows per clip, ``[clips, windows, d]``; d is 1 for scalars.

    Raises:
        NotMeasurable: the column is missing, or is no embedding.
    """
    if name not in columns:
        msg = f"{whose} has no column {name!r}; it has {', '.join(columns) or 'nothing'}"
        raise NotMeasurable(msg)
    if columns[name].dtype == object or columns[name].ndim > 3:
        msg = f"{name!r} of {whose} is no embedding: it must be one row of numbers, of one length for all clips"
        raise NotMeasurable(msg)
    return columns[name] if columns[name].ndim > 1 else columns[name][:, None]


def real_embedding(metric: Metric, real: Reference, protocol: Protocol, subset: Subset) -> np.ndarray:
    """The column of the reference that a metric compares the run's with. Raises the errors of `Reference.columns`."""
    return embedding(real.columns(protocol, subset)[0], metric.reference_column or metric.column, "the reference")


def nearest_real(
    metric: Metric, measured: Columns, real: Reference, protocol: Protocol, subset: Subset
) -> tuple[list[Key], np.ndarray]:
    """The reference clip nearest to each clip in the features that a metric compares, and the distances ``[clips]``."""
    y = real_embedding(metric, real, protocol, subset)
    index, apart = neighbours.nearest(embedding(measured, metric.column, "the run"), y)
    known = real.keys(protocol, subset)
    return [known[place] for place in index], apart


def value(metric: Metric, x: np.ndarray, y: np.ndarray) -> Any:
    """Call the metric's function on the embeddings of the run and the reference; returns a float, or ``[clips]``.

    Raises:
        ValueError: the function returns anything else.
    """
    found = resolve(metric.function)(_flat(x), _flat(y), **metric.settings)
    return metric.one_per_clip(found, len(x)) if metric.per_clip else _finite(metric.function, found)


def _finite(function: str, found: Any) -> float:
    """What the function of a distance returned. Raises ValueError unless it is one finite number."""
    number = np.asarray(found)
    if np.ma.is_masked(found) or number.ndim or number.dtype.kind not in "biuf" or not np.isfinite(number):
        msg = f"{function} returned {found!r}; it must return one finite number, or raise NotMeasurable"
        raise ValueError(msg)
    return float(number)


def value_of_moments(metric: Metric, x: np.ndarray, y: Moments, clips: int) -> float:
    """`value` for a reference with moments of so many clips. Raises the same, and NotMeasurable if it needs rows."""
    if not metric.moments:
        raise needs_every_row(metric, clips)
    return _finite(metric.moments, resolve(metric.moments)(Moments.of(_flat(x)), y, **metric.settings))


def needs_every_row(metric: Metric, clips: int) -> NotMeasurable:
    """The reason why a metric has no value, if the reference keeps the rows of a part of its clips."""
    return NotMeasurable(
        f"{metric.name} needs every row of the reference, which does not keep those of all its {clips} clips: build it "
        f"from the clips with --rows {clips}"
    )


def pooled(metric: Metric, *sets: np.ndarray) -> Pooled:
    """The distance between any two parts of several sets of clips, which are concatenated.

    Raises:
        InputError: the sets differ in width or in the number of windows.
    """
    if len({one.shape[1:] for one in sets}) > 1:
        msg = (
            f"{metric.name}: embeddings of shapes {' and '.join(str(one.shape[1:]) for one in sets)} cannot be compared"
        )
        raise InputError(msg)
    clips = np.concatenate(sets, dtype=np.float64)
    windows = clips.shape[1] if clips.ndim == 3 else 1
    features = _flat(clips)
    if metric.pooled:
        statistic: Pooled = resolve(metric.pooled)(features, **metric.settings)
    else:
        statistic = _one_by_one(metric, features)
    return _OfClips(statistic, windows, metric.pooled or metric.function)


def null(metric: Metric, x: np.ndarray, prompts: Sequence[str], y: np.ndarray, real_prompts: np.ndarray) -> Null:
    """The metric's `uncertainty.permutation_null`.

    Raises:
        NotMeasurable: run and reference cannot swap clips, because other windows are taken of real ones, or because
            clips of one prompt are alike.
    """
    if not _of_one_kind(metric, x, y):
        msg = "of real clips, other frames are taken than of generated ones"
        raise NotMeasurable(msg)
    higher = metric.direction is Direction.HIGHER
    return uncertainty.permutation_null(pooled(metric, x, y), prompts, real_prompts, higher_is_better=higher)


def _of_one_kind(metric: Metric, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the same frames of real and of generated clips are taken, so that a clip can be on either side."""
    return metric.reference_column in ("", metric.column) and x.shape[1:-1] == y.shape[1:-1]


def floor(metric: Metric, x: np.ndarray, y: np.ndarray, real_prompts: np.ndarray) -> float | None:
    """The metric's `uncertainty.floor` at the same n; None if the reference is too small or has other windows."""
    if not _of_one_kind(metric, x, y):
        return None
    try:
        return uncertainty.floor(pooled(metric, y), real_prompts, len(x))
    except NotMeasurable:
        return None


def difference(
    metric: Metric,
    a: tuple[Sequence[Key], Columns],
    b: tuple[Sequence[Key], Columns],
    real: Reference,
    protocol: Protocol,
    subset: Subset,
) -> Difference:
    """A's distance minus B's, over the clips that both have; labels are swapped prompt by prompt.

    Raises:
        NotMeasurable: fewer than 2 pairs, or a reference without rows.
        InputError: different protocols or embeddings.
    """
    reference, real_prompts = real_embedding(metric, real, protocol, subset), real.columns(protocol, subset)[1]
    both = sorted({*a[0]} & {*b[0]})

    def rows(keys: Sequence[Key], columns: Columns) -> np.ndarray:
        place = {key: index for index, key in enumerate(keys)}
        return embedding(columns, metric.column, "a model")[[place[key] for key in both]]

    statistic = pooled(metric, rows(*a), rows(*b), reference)
    return uncertainty.swap_test(statistic, [key.prompt for key in both], real_prompts)


@dataclass(frozen=True, eq=False)
class _OfClips:
    """A pooled distance between windows that is called with the indices of clips."""

    statistic: Pooled
    windows: int
    place: str
    """``module:object``."""

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The distances. Raises ValueError unless they are one finite number for each draw."""
        found = self.statistic(_windows(first, self.windows), _windows(second, self.windows))
        numbers = np.asarray(found)
        right = numbers.shape == (len(first),) and numbers.dtype.kind in "biuf" and not np.ma.is_masked(found)
        if not right or not np.isfinite(numbers).all():
            msg = f"{self.place} did not return one finite number for each of {len(first)} draws"
            raise ValueError(msg)
        return numbers.astype(np.float64)

    @property
    def rounding(self) -> float:
        return getattr(self.statistic, "rounding", 0.0)

    @property
    def draws_at_once(self) -> int:
        return getattr(self.statistic, "draws_at_once", uncertainty.CHUNK)

    @property
    def influence_is_exact(self) -> bool:
        return getattr(self.statistic, "influence_is_exact", False)

    @property
    def influence(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
        of_windows = getattr(self.statistic, "influence", None)
        return of_windows and (lambda models, real: self._influence(of_windows, models, real))

    def _influence(self, of_windows: Callable, models: np.ndarray, real: np.ndarray) -> np.ndarray:
        """A clip's influence is the sum of its windows'."""
        places = (_windows(part[None], self.windows)[0] for part in (models, real))
        return of_windows(*places).reshape(len(models), self.windows).sum(axis=1)


def _flat(embeddings: np.ndarray) -> np.ndarray:
    """Windows as separate rows."""
    return embeddings.reshape(-1, embeddings.shape[-1])


def _windows(clips: np.ndarray, windows: int) -> np.ndarray:
    """Indices of clips ``[draws, n]`` → of their windows ``[draws, n · windows]``; a clip's windows stay together."""
    if windows == 1:
        return clips
    return (clips[..., None] * windows + np.arange(windows)).reshape(len(clips), -1)


def _one_by_one(metric: Metric, features: np.ndarray) -> Pooled:
    function = resolve(metric.function)

    def statistic(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        pairs = zip(first, second, strict=True)
        found = (function(features[one], features[other], **metric.settings) for one, other in pairs)
        return np.array([_finite(metric.function, one) for one in found])

    return statistic
