"""Computes which differences an experiment can find, and how many prompts it needs, from noncentral t distributions."""

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from scipy import integrate, optimize, special, stats

from avbench.statistics import clustered, paired

MOST_PROMPTS = 1_000_000
"""More are not planned for."""
_NEGLIGIBLE, _STEPS = 1e-12, 2001  # of the integral in `power`: what it leaves out at each end, and its points


def power(effect: float, error: float, dof: float, alpha: float) -> float:
    """Share of such experiments that would detect a true difference of `effect`, two-sided at `alpha`.

    The noncentral t distribution, integrated over the ratio of the estimated error to the true one. SciPy's own returns
    NaN at scattered places with few degrees of freedom or a small alpha, and so does statsmodels, which calls it.
    """
    shift, critical = abs(effect) / error, -special.stdtrit(dof, alpha / 2)
    least, most = (2 * inverse(dof / 2, _NEGLIGIBLE) / dof for inverse in (special.gammaincinv, special.gammainccinv))
    log_ratio = np.linspace(np.log(least) / 2, np.log(most) / 2, _STEPS)
    ratio = np.exp(log_ratio)
    constant = math.log(2) + dof / 2 * math.log(dof / 2) - special.gammaln(dof / 2)
    density = np.exp(constant + dof * (log_ratio - ratio**2 / 2))
    beyond = special.ndtr(shift - critical * ratio) + special.ndtr(-shift - critical * ratio)
    return float(np.minimum(1.0, integrate.trapezoid(beyond * density, log_ratio)))


def detectable(error: float | None, dof: float, *, family: int = 1, alpha: float = paired.ALPHA) -> float | None:
    """The smallest true difference that 80 % of such experiments would detect, tested as the first of a family by Holm.

    None without an error (all clips equal) or with no degrees of freedom.
    """
    if not error or dof < 1:
        return None
    level = alpha / family
    most = (stats.t.isf(level / 2, dof) + stats.t.isf(0.01, dof)) * 2
    root = optimize.root_scalar(lambda size: power(size, 1.0, dof, level) - 0.8, bracket=(1e-6, most), method="brentq")
    return error * float(root.root)


def detectable_farther(contrasts: paired.Contrasts, margin: float, *, level: float) -> float | None:
    """The smallest true difference of two distances from the reference's value that at least 80 % of such experiments
    would show to be above the margin, if each contrast is tested one-sided at `level`.

    Whatever the contrasts have to do with each other: their chances to be missed are added. None without an error.
    """
    uncertain = contrasts.errors > 0
    found = [*zip(*(one[uncertain] for one in (contrasts.spare, contrasts.errors, contrasts.dofs)), strict=True)]
    if not found:
        return None

    def lacking(beyond: float) -> float:
        return 0.2 - sum(1 - power(beyond + spare, error, dof, 2 * level) for spare, error, dof in found)

    size = detectable(max(error for _, error, _ in found), min(dof for _, _, dof in found), alpha=2 * level)
    if size is None:
        return None
    if lacking(0.0) >= 0:  # what is uncertain, is far beyond the margin in any case
        return margin
    while lacking(size) < 0:
        size *= 2
    return margin + float(optimize.root_scalar(lacking, bracket=(0.0, size), method="brentq").root)


def detectable_to_target(
    apart: float, together: float, middle: float, prompts: int, *, family: int = 1
) -> float | None:
    """The same for a difference of two distances from the reference's value, by both tests of `paired`.

    A and B are taken to lie on one side of that value. Their middle is then at least half the difference away from it,
    so that its test matters most where one of the two is right. The two tests are taken as independent, which they are
    if both models spread alike.

    Args:
        apart: standard deviation between prompts of A − B.
        together: that of A + B.
        middle: how far the middle of A and B lies from the reference's value, at least.
        prompts: their number.
        family: number of comparisons in Holm's correction.
    """
    least = detectable(apart / np.sqrt(prompts), prompts - 1, family=family)
    if least is None:
        return None
    root, level = np.sqrt(prompts), paired.ALPHA / family
    error, error_of_both = apart / root, max(together, 1e-9 * apart) / root

    def lacking(size: float) -> float:
        both = max(size, 2 * middle)
        # what swaps give; they move A + B not at all
        swapped = -special.ndtri(level / 2) * np.hypot(apart, size) / root
        aside = min(power(both, error_of_both, prompts - 1, level), special.ndtr((both - swapped) / error_of_both))
        return power(size, error, prompts - 1, level) * aside - 0.8

    sizes = least * 2.0 ** np.arange(40)
    enough = next((size for size in sizes if lacking(size) >= 0), None)
    if enough is None or enough == least:
        return enough
    return float(optimize.root_scalar(lacking, bracket=(enough / 2, enough), method="brentq").root)


def prompts_needed(
    value: float | np.ndarray,
    error: float | np.ndarray | None,
    prompts: int,
    *,
    family: int = 1,
    alpha: float = paired.ALPHA,
) -> int | None:
    """How many prompts, with as many seeds each, would detect a true difference of the observed size (80 %, by Holm).

    At least `least_prompts`. None if more than a million would be needed. Of several values all must be detected;
    their chances to be missed are added.
    """
    if error is None or not np.all(value):
        return None
    values, errors = np.atleast_1d(value), np.atleast_1d(error)
    least = least_prompts(family=family, alpha=alpha)
    if not errors.any():
        return max(prompts, least)
    spread = errors * np.sqrt(prompts)  # standard deviation of one prompt's difference
    found = [*zip(values[errors > 0], spread[errors > 0], strict=True)]

    def missed(count: int) -> float:
        return sum(1 - power(one, apart / np.sqrt(count), count - 1, alpha / family) for one, apart in found)

    return fewest(lambda count: missed(count) <= 0.2, least, MOST_PROMPTS)


def least_prompts(*, family: int = 1, alpha: float = paired.ALPHA) -> int:
    """The fewest prompts with which the first of a family can be shown, however large its difference is.

    The smallest p of the exact test of n prompts, 2/2ⁿ, must be below alpha / family; in a family of one
    these are `paired.LEAST_PROMPTS`.
    """
    return max(paired.LEAST_PROMPTS, math.floor(math.log2(family / alpha)) + 2)


def fewest(enough: Callable[[int], bool], least: int, most: int) -> int | None:
    """The smallest count from `least` to `most` that is enough; None if none is.

    Larger ones need not be: more prompts can lower the degrees of freedom. So counts are tried upwards, each a quarter
    more than the last, and then those between the last two.
    """
    before, count = least - 1, least
    while not enough(count):
        if count >= most:
            return None
        before, count = count, min(most, count + max(1, count // 4))
    while count - before > 1:
        middle = (before + count) // 2
        before, count = (before, middle) if enough(middle) else (middle, count)
    return count


def spreads(values: np.ndarray, prompts: Sequence[Hashable]) -> tuple[float, float | None]:
    """Standard deviations of a difference between prompts and of one clip within a prompt (None with one seed each).

    Computed by analysis of variance; if the numbers of seeds differ, with their effective number.
    """
    prompt = clustered.numbered(prompts)
    counts = np.bincount(prompt)
    means, groups, total = np.bincount(prompt, values) / counts, len(counts), len(values)
    between = float(np.sum(counts * (means - np.mean(values)) ** 2) / max(1, groups - 1))
    if total == groups:
        return float(np.sqrt(between)), None
    within = float(np.sum((values - means[prompt]) ** 2) / (total - groups))
    seeds = (total - np.sum(counts**2) / total) / max(1, groups - 1)
    return float(np.sqrt(max(0.0, (between - within) / seeds))), float(np.sqrt(within))
