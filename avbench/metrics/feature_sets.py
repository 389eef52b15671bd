"""Checks the sets of features that distances compare, and picks parts of their pooled rows.

Conventions of all distances: features are ``[clips, dimensions]``, converted to float64; the first set is the model's,
the second the reference's. Each distance is a function of two sets. If it would be slow to compute a thousand times,
there is also a class that prepares the pooled rows of both sets once and then gives the distance between any two parts
of them, as permutation tests need (see uncertainty.py).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from avbench.core import InputError, NotMeasurable, first_line

ROUNDING = 1e-12
"""How far rounding can move a value, relative to the terms of the difference; the largest error seen was 5e-15."""
_AT_ONCE = 1024  # rows that are copied at once


def of_all(pooled: Callable[[np.ndarray, np.ndarray], np.ndarray], n: int, m: int) -> float:
    """The value of pooled rows of which the first n are the model's and the other m the reference's."""
    return float(pooled(np.arange(n)[None], np.arange(n, n + m)[None])[0])


def indicators(parts: np.ndarray, count: int) -> np.ndarray:
    """``[count, draws]``: whether a row is in the part of a draw."""
    shown = np.zeros((count, len(parts)), dtype=bool)
    for draw, part in enumerate(parts):
        shown[part, draw] = True
    return shown


def in_parts(places: np.ndarray) -> list[np.ndarray]:
    """Split places into parts that are small enough for their rows to be copied at once."""
    return np.array_split(places, 1 + len(places) // _AT_ONCE)


def checked_sets(*sets: np.ndarray, fewest: int = 2) -> list[np.ndarray]:
    """Sets of features in float64.

    Raises:
        InputError: they are not finite matrices of one width.
        NotMeasurable: a set has less than the fewest clips.
    """
    arrays = [*map(_as_array, sets)]
    for array in arrays:
        if array.ndim != 2 or array.shape[1] == 0:
            msg = f"features have shape {array.shape}; they must be [clips, dimensions]"
            raise InputError(msg)
        if not np.isfinite(array).all():
            msg = f"features hold {np.count_nonzero(~np.isfinite(array))} values that are NaN or infinite"
            raise InputError(msg)
    require_comparable({array.shape[1] for array in arrays}, min(map(len, arrays)), fewest)
    return arrays


def _as_array(features: Any) -> np.ndarray:
    try:
        given = np.asarray(features)
        if given.dtype.kind != "c" and not np.ma.is_masked(features):
            return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor in bfloat16, with a gradient or of a GPU
        msg = (
            f"features are a {type(features).__name__} that is no array of numbers ({first_line(error)}); they must be "
            "[clips, dimensions], and a tensor becomes an array by .detach().float().cpu().numpy()"
        )
        raise InputError(msg) from None
    msg = "features hold complex or masked values; they must be real numbers"
    raise InputError(msg)


def require_comparable(widths: set[int], clips: int, fewest: int = 2) -> None:
    """Raise InputError if there are two widths, and NotMeasurable if there are less than the fewest clips in a set."""
    if len(widths) > 1:
        both = " and ".join(map(str, sorted(widths, reverse=True)))
        msg = f"features have {both} dimensions; both sets must have the same"
        raise InputError(msg)
    if clips < fewest:
        msg = f"a distance needs at least {fewest} clips in each set and one has {clips}"
        raise NotMeasurable(msg)
