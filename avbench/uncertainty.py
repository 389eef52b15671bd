"""How far may a mean lie from the truth? Intervals that know that clips of one prompt are alike."""

from collections.abc import Hashable, Sequence

import numpy as np
from scipy import stats

from avbench.core import InputError


def mean_interval(
    values: Sequence[float] | np.ndarray, clusters: Sequence[Hashable] | np.ndarray, *, level: float = 0.95
) -> tuple[float, float] | None:
    """Interval of the mean over all clips, clustered by prompt; None with fewer than two clusters.

    With e_g the sum of the deviations from the mean within cluster g, the variance of the mean of N values in G
    clusters is G/(G−1) Σ e_g² / N²: the cluster-robust variance of Liang and Zeger (1986) with the usual CR1
    correction, for a regression on a constant alone. The quantile is Student's t with G−1 degrees of freedom
    (Cameron and Miller, 2015). With one clip a cluster this is the ordinary t interval.

    It answers for the choice of prompts and seeds, not for that of the model or the metric. With few clusters (below
    about ten) of skewed values, or where one prompt has most of the clips, it is far too narrow; where all values are
    equal it has no width.

    Args:
        values: ``[clips]``, finite.
        clusters: one label a clip, such as its prompt; equal labels are one cluster, whatever their order.
        level: the share of such intervals that hold the true mean, between 0 and 1.

    Raises:
        InputError: lengths differ, a value is not finite, or the level is not between 0 and 1.
    """
    x = np.asarray(values, dtype=np.float64)
    labels = clusters.tolist() if isinstance(clusters, np.ndarray) else list(clusters)
    if x.ndim != 1 or len(labels) != len(x):
        msg = f"values have shape {x.shape} and there are {len(labels)} cluster labels; give one label a value"
        raise InputError(msg)
    if not np.isfinite(x).all():
        msg = f"{np.count_nonzero(~np.isfinite(x))} of {len(x)} values are NaN or infinite; leave those clips out"
        raise InputError(msg)
    if not 0 < level < 1:
        msg = f"level is {level!r}; it must lie between 0 and 1"
        raise InputError(msg)
    numbers: dict[Hashable, int] = {}
    group = np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.intp)
    count = len(numbers)
    if count < 2:
        return None
    mean = x.mean()
    sums = np.bincount(group, weights=x - mean, minlength=count)
    error = np.sqrt(count / (count - 1) * np.sum(sums**2)) / len(x)
    reach = stats.t.ppf((1 + level) / 2, count - 1) * error
    return float(mean - reach), float(mean + reach)
