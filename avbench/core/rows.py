"""Defines the results of measuring: one row per clip, columns over many clips, and the moments of a large set.

Conventions: a row's values are floats or float arrays of one shape per name. Columns stack them on axis 0,
``[clips, ...]``, sorted by key, so that results do not depend on the order of measuring.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from avbench.core.errors import InputError
from avbench.core.prompt import checked_id

Value = float | np.ndarray
Columns = Mapping[str, np.ndarray]


class Key(NamedTuple):
    """Identifies a clip. Each key counts once, even where several machines measured it."""

    subset: str
    prompt: str
    seed: int


def require_ids(key: Key) -> None:
    """Raise InputError if the subset or the prompt of a key cannot be part of a file name."""
    checked_id(key.subset, "subset name")
    checked_id(key.prompt, "prompt id")


def clip_name(key: Key, seeds: Collection[int]) -> str:
    """What a clip is called in sentences: by its prompt, and by its seed where its run has other seeds than 0."""
    return f"{key.prompt}-{key.seed}" if {key.seed, *seeds} - {0} else key.prompt


@dataclass(frozen=True)
class Row:
    """One feature of one clip: its values, or a sentence why there are none."""

    key: Key
    clip_sha256: str
    values: Mapping[str, Value] | None
    missing: str | None = None
    gpu: str | None = None
    """The name of the GPU that computed the values; None where the CPU did."""

    def __post_init__(self) -> None:
        if (self.values is None) == (self.missing is None):
            msg = f"row {self.key}: give either values or a sentence why there are none"
            raise InputError(msg)
        for name, value in (self.values or {}).items():
            if not np.isfinite(value).all():
                msg = f'{name} is NaN or infinite; a feature raises NotMeasurable("why") for a clip without a value'
                raise InputError(msg)


def columns(rows: Iterable[Row]) -> tuple[list[Key], dict[str, np.ndarray]]:
    """Stack the rows that have values, sorted by key, into ``name → [clips, ...]`` float64 arrays.

    A name whose values differ in shape (times of events, curves of clips of different lengths) gives a ``[clips]``
    object array of arrays.

    Raises:
        InputError: a key occurs twice, or rows differ in their names or in a value's number of dimensions.
    """
    measured = sorted((row for row in rows if row.values is not None), key=lambda row: row.key)
    keys = [row.key for row in measured]
    if len(set(keys)) != len(keys):
        twice = next(a for a, b in itertools.pairwise(keys) if a == b)
        msg = f"two rows for the clip {twice}: a clip must be counted once"
        raise InputError(msg)
    names = list(measured[0].values or {}) if measured else []
    for row in measured:
        if (row.values or {}).keys() != {*names}:
            clip = f"clip {row.key.prompt} with seed {row.key.seed}"
            msg = f"the row of {clip} has the values {list(row.values or {})}; other rows have {names}"
            raise InputError(msg)
    stacked = {}
    for name in names:
        arrays = [np.asarray((row.values or {})[name]) for row in measured]
        if len({array.ndim for array in arrays}) > 1:
            msg = f"{name} has different numbers of dimensions in these rows: {sorted({one.ndim for one in arrays})}"
            raise InputError(msg)
        if len({array.shape for array in arrays}) == 1:
            stacked[name] = np.stack(arrays, dtype=np.float64)
        else:
            stacked[name] = np.empty(len(arrays), dtype=object)
            for index, array in enumerate(arrays):
                stacked[name][index] = array.astype(np.float64)
    return keys, stacked


def read_only(shared: Columns) -> Columns:
    """The same columns, into which nobody can write: no metric that uses them may change another's numbers."""
    for column in shared.values():
        column.flags.writeable = False
        for one in column if column.dtype == object else ():
            one.flags.writeable = False
    return MappingProxyType({**shared})


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and scatter matrix of embeddings, in float64: the summary of a set too large to keep whole."""

    n: int
    mean: np.ndarray
    """``[d]``"""
    scatter: np.ndarray
    """``[d, d]``: Σ (x − mean)(x − mean)ᵀ; divide by n − 1 or n for a covariance."""

    @classmethod
    def of(cls, embeddings: np.ndarray) -> "Moments":
        """Compute the moments of ``[n, d]`` embeddings. Raises InputError on an empty or non-finite array."""
        x = np.asarray(embeddings, dtype=np.float64)
        if x.ndim != 2 or not len(x) or not np.isfinite(x).all():
            msg = f"embeddings have shape {x.shape}; they must be [clips, dimensions], not empty, all finite"
            raise InputError(msg)
        mean = x.mean(axis=0)
        centred = x - mean
        return cls(len(x), mean, centred.T @ centred)

    def merge(self, other: "Moments") -> "Moments":
        """Combine the moments of two sets (the centred update of Chan, Golub and LeVeque, 1979)."""
        if self.mean.shape != other.mean.shape:
            msg = f"moments of {self.mean.size} and of {other.mean.size} dimensions cannot be merged"
            raise InputError(msg)
        n = self.n + other.n
        gap = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(gap, gap) * (self.n * other.n / n)
        return Moments(n, self.mean + gap * (other.n / n), scatter)
