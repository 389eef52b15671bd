"""The clustered interval: its coverage by simulation, and its agreement with the t interval."""

import numpy as np
import pytest
from scipy import stats

from avbench.core import InputError
from avbench.statistics.uncertainty import mean_interval


def coverage(draw, truth=0.0, repeats=2000, level=0.95):
    inside = 0
    for seed in range(repeats):
        low, high = mean_interval(*draw(np.random.default_rng(seed)), level=level)
        inside += low <= truth <= high
    return inside / repeats


def clustered(sizes, between, within):
    clusters = np.repeat(np.arange(len(sizes)), sizes)

    def draw(rng):
        prompt = rng.normal(0, between, len(sizes))
        return prompt[clusters] + rng.normal(0, within, len(clusters)), clusters

    return draw


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("sizes", "between", "within"),
    [
        ([1] * 20, 1.0, 1.0),
        ([4] * 20, 1.0, 1.0),
        ([4] * 6, 1.0, 0.5),
        ([8] * 12, 1.0, 0.1),
        ([4] * 20, 0.0, 1.0),
        ([2, 3, 4] * 15, 1.0, 1.0),
    ],
)
def test_coverage(sizes, between, within):
    assert 0.93 <= coverage(clustered(sizes, between, within)) <= 0.97


@pytest.mark.statistical
@pytest.mark.parametrize("sizes", [[20] + [1] * 7, [20, 20] + [2] * 6, [20] + [1] * 23, list(range(1, 11))])
@pytest.mark.parametrize("between", [0.0, 1.0, 3.0])
def test_few_prompts_with_most_of_the_clips_do_not_make_the_interval_too_narrow(sizes, between):
    """It was: with G−1 degrees of freedom for all G prompts the truth was in 45 to 94 % of them."""
    assert coverage(clustered(sizes, between, 1.0), repeats=1000) >= 0.92


@pytest.mark.statistical
def test_other_levels_cover_as_often_as_they_say():
    draw = clustered([3] * 15, 1.0, 0.7)
    assert coverage(draw, level=0.8) == pytest.approx(0.8, abs=0.03)


@pytest.mark.statistical
def test_an_interval_blind_to_prompts_would_be_too_narrow():
    def blind(rng):
        values, _ = clustered([8] * 12, 1.0, 0.1)(rng)
        return values, range(len(values))

    assert coverage(blind) < 0.7


def test_one_clip_a_prompt_is_the_t_interval():
    x = np.random.default_rng(0).gamma(2, 1, 17)
    expected = stats.t.interval(0.9, 16, loc=x.mean(), scale=stats.sem(x))
    assert mean_interval(x, [f"p{i}" for i in range(17)], level=0.9) == pytest.approx(expected, rel=1e-12)


def test_equal_clips_of_a_prompt_count_once():
    x = np.random.default_rng(1).normal(size=9)
    once = mean_interval(x, range(9))
    thrice = mean_interval(np.repeat(x, 3), np.repeat(np.arange(9), 3))
    assert thrice == pytest.approx(once, rel=1e-12)


def test_known_value():
    # mean 3; sums of deviations −3, 0, 3; variance 3/2 · 18 / 36
    low, high = mean_interval([1, 2, 3, 3, 4, 5], list("aabbcc"))
    half_width = stats.t.ppf(0.975, 2) * np.sqrt(0.75)
    assert (low, high) == pytest.approx((3 - half_width, 3 + half_width))


def test_prompts_with_many_clips_count_as_fewer_prompts():
    # mean 2; sums of deviations −3, 0, 3 of 1, 1 and 3 clips: 5² / (1 + 1 + 9) = 25/11 prompts
    low, high = mean_interval([-1, 2, 2, 3, 4], list("abccc"))
    half_width = stats.t.ppf(0.975, 25 / 11 - 1) * np.sqrt(25 / 14 * 18 / 25)
    assert (low, high) == pytest.approx((2 - half_width, 2 + half_width))
    # mean 1; sums of deviations −1, 1 of 1 and 3 clips: 16/10 prompts, but at least 1 degree of freedom
    low, high = mean_interval([0, 1, 1, 2], list("abbb"))
    half_width = stats.t.ppf(0.975, 1) * np.sqrt(16 / 6 * 2 / 16)
    assert (low, high) == pytest.approx((1 - half_width, 1 + half_width))


def test_order_and_kind_of_labels_do_not_matter():
    x, labels = np.arange(6.0), ["b", "a", "b", "c", "a", "c"]
    order = [3, 0, 5, 1, 4, 2]
    expected = mean_interval(x, labels)
    assert mean_interval(x[order], [labels[i] for i in order]) == pytest.approx(expected)
    assert mean_interval(x, np.array(labels)) == expected
    assert mean_interval(x, [("s", label) for label in labels]) == expected


@pytest.mark.parametrize(("values", "clusters"), [([], []), ([1.0], ["a"]), ([1.0, 2.0, 3.0], ["a"] * 3)])
def test_fewer_than_two_prompts_have_no_interval(values, clusters):
    assert mean_interval(values, clusters) is None


def test_equal_values_have_no_width():
    assert mean_interval([0.5] * 4, "abcd") == (0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "clusters", "level", "words"),
    [
        ([1.0, 2.0], ["a"], 0.95, "one label for each value"),
        ([[1.0, 2.0]], ["a"], 0.95, "one label for each value"),
        ([1.0, np.nan, np.inf], list("abc"), 0.95, "2 of 3 values"),
        ([1.0, 2.0], list("ab"), 95, "between 0 and 1"),
        ([1.0, 2.0], list("ab"), 1, "between 0 and 1"),
        ([1.0, 2.0], list("ab"), 0, "between 0 and 1"),
    ],
)
def test_wrong_input(values, clusters, level, words):
    with pytest.raises(InputError, match=words):
        mean_interval(values, clusters, level=level)
