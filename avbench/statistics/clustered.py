"""Computes means over clips, with standard errors that are clustered by prompt.

Clips come as the sums and numbers of cells: a cell holds the clips of one prompt in one stratum, such as a subset. With
e_g the sum of the deviations from the mean within cluster g, the variance of the mean of N values in G clusters is
G/(G−1) Σ e_g² / N²: the cluster-robust variance of Liang and Zeger (1986) with the usual CR1 correction, for a
regression on a constant alone. G is the effective number of clusters (Kish, 1965; Carter, Schnepel and Steigerwald,
2017), which is their number if all have as many values: a prompt with most of the clips would otherwise decide the mean
and make the interval far too narrow. Over several strata the variance is that of their weighted mean; the cells of a
prompt that several strata have are one cluster.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Confidence level of the intervals."""


@dataclass(frozen=True)
class Means:
    """Means of rows of values, over all strata; NaN where a row has no value in a stratum."""

    by_stratum: np.ndarray
    """``[..., strata]``: the mean in each stratum."""
    errors: np.ndarray
    """``[..., strata]``: standard errors of these means; NaN with fewer than two prompts."""
    dofs: np.ndarray
    """``[..., strata]``: their degrees of freedom, the effective number of prompts less 1, and at least 1."""
    weights: np.ndarray
    """``[..., strata]``: with sum 1."""
    mean: np.ndarray
    """``[...]``: the weighted mean of the strata."""
    error: np.ndarray
    """``[...]``: standard error of `mean`; NaN where a stratum has fewer than two prompts."""
    dof: np.ndarray
    """``[...]``: Satterthwaite's degrees of freedom of `error`, below the effective number of all prompts, or 1."""
    prompts: np.ndarray
    """``[...]``: number of prompts that have a value."""


def means(
    sums: np.ndarray, counts: np.ndarray, prompt: np.ndarray, stratum: np.ndarray | None = None, *, micro: bool = False
) -> Means:
    """Compute means, clustered standard errors and degrees of freedom of each row.

    Args:
        sums: ``[..., cells]``: sum of each cell's values.
        counts: ``[..., cells]``: their number, which may be 0.
        prompt: ``[cells]``: number of each cell's prompt, from 0 without gaps.
        stratum: ``[cells]``: number of its stratum, likewise; one stratum for None.
        micro: weight strata by their clips instead of equally.
    """
    stratum = np.zeros_like(prompt) if stratum is None else stratum
    clips, prompts, of_prompt = _sums(counts, stratum), _sums(counts > 0, stratum), _sums(counts, prompt)
    with np.errstate(invalid="ignore", divide="ignore"):
        by_stratum = _sums(sums, stratum) / clips
        apart = np.where(counts > 0, sums - counts * by_stratum[..., stratum], 0.0)
        share = weights(clips, micro=micro)
        number = effective(clips, _sums(counts**2, stratum))
        dofs = np.where(prompts < 2, 0.0, np.maximum(number - 1, 1.0))
        pulls = (np.sqrt(number / (number - 1)) * share / clips)[..., stratum] * apart
        variances = _sums(pulls**2, stratum)
        total = variances.sum(-1)
        dof = np.where(total > 0, total**2 / np.sum(variances**2 / dofs, -1), dofs.sum(-1))
        most = np.maximum(effective(of_prompt.sum(-1), np.sum(of_prompt**2, -1)) - 1, 1.0)
        error = np.where(prompts.min(-1) < 2, np.nan, np.sqrt(np.sum(_sums(pulls, prompt) ** 2, -1)))
        errors = np.where(prompts < 2, np.nan, np.sqrt(variances) / share)
    mean = np.sum(share * by_stratum, -1)
    return Means(
        by_stratum, errors, dofs, share, mean, error, np.minimum(dof, most), np.count_nonzero(of_prompt, axis=-1)
    )


def effective(total: float | np.ndarray, squares: float | np.ndarray) -> Any:
    """How many clusters of one size would give as certain a mean as clusters of different sizes.

    Args:
        total: the sum of their sizes.
        squares: the sum of the squares of their sizes.
    """
    return total**2 / squares


def quantile(dof: float | np.ndarray, level: float = LEVEL) -> Any:
    """How many standard errors the interval of a mean reaches to either side of it, by Student's t."""
    return stats.t.ppf((1 + level) / 2, dof)


def weights(clips: np.ndarray, *, micro: bool) -> np.ndarray:
    """Weights of strata ``[..., strata]`` by their numbers of clips, or equal ones; their sum is 1."""
    return clips / clips.sum(-1, keepdims=True) if micro else np.full(clips.shape, 1 / clips.shape[-1])


def numbered(labels: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """Number labels in the order of their first appearance; equal labels get equal numbers."""
    numbers: dict[Hashable, int] = {}
    listed = labels.tolist() if isinstance(labels, np.ndarray) else labels
    return np.array([numbers.setdefault(label, len(numbers)) for label in listed], dtype=np.intp)


def _sums(of_cells: np.ndarray, label: np.ndarray) -> np.ndarray:
    """``[..., cells]`` → ``[..., labels]``: sums of the cells of each label."""
    order = np.argsort(label, kind="stable")
    starts = np.searchsorted(label[order], np.arange(label.max() + 1))
    return np.add.reduceat(of_cells[..., order], starts, axis=-1)
