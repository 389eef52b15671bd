"""Paired, clustered differences: against statsmodels and scipy where both apply, else against what was put in."""

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from avbench.core import InputError
from avbench.statistics import clustered, paired
from avbench.statistics.paired import (
    LEAST_PROMPTS,
    equivalence,
    flip_test,
    holm,
    letters,
    paired_difference,
    t_test,
    tail,
    unpaired_difference,
)
from avbench.statistics.power import (
    detectable,
    detectable_farther,
    detectable_to_target,
    least_prompts,
    power,
    prompts_needed,
    spreads,
)


def drawn(seed=0, prompts=30, seeds=1, shift=0.0):
    """Two models' values: what a prompt has in common, and what each clip has of its own."""
    random = np.random.default_rng(seed)
    common = np.repeat(random.standard_normal(prompts), seeds)
    a, b = (common + 0.5 * random.standard_normal(prompts * seeds) for _ in range(2))
    return a + shift, b, list(np.repeat(np.arange(prompts), seeds))


def test_one_clip_a_prompt_is_the_paired_t_test():
    a, b, prompts = drawn(shift=0.2)
    found = paired_difference(a, b, prompts)
    known = stats.ttest_rel(a, b)
    assert found.value == pytest.approx(known.statistic * found.error)
    assert t_test(found.value, found.error, found.dof) == pytest.approx(known.pvalue)
    assert found.p == pytest.approx(known.pvalue, abs=0.01), "of swaps that are drawn"
    low, high = known.confidence_interval()
    assert found.interval[0] <= low + 1e-12 and found.interval[1] >= high - 1e-12
    assert found.interval[1] - found.interval[0] < 1.3 * (high - low)


def test_the_interval_has_bounds_where_few_prompts_differ():
    """Of most resamples the spread is tiny beside the sample's, and the studentised bootstrap alone has no bounds."""
    x = np.array([-0.414, -0.31, -0.29, *(0.001 * np.arange(-3, 4))])
    low, high = paired_difference(x, np.zeros(10), range(10)).interval
    student = stats.t.interval(0.95, 9, x.mean(), stats.sem(x))
    assert low == x.min() < student[0] and high == pytest.approx(student[1])
    both = paired_difference([*x, *x], np.zeros(20), range(20), subsets=["a"] * 10 + ["b"] * 10).interval
    assert both[0] >= x.min()


def test_the_interval_follows_skew():
    """Its longer side is that of a bootstrap-t (Efron, 1981), drawn here again; the other is Student's."""
    x, random = np.exp(np.random.default_rng(3).standard_normal(30)), np.random.default_rng(1)
    mean, error = x.mean(), stats.sem(x)
    resampled = x[random.integers(30, size=(20_000, 30))]
    t = (resampled.mean(1) - mean) / stats.sem(resampled, axis=1)
    low, high = paired_difference(x, np.zeros(30), range(30)).interval
    student = stats.t.interval(0.95, 29, mean, error)
    assert low == pytest.approx(student[0])
    assert high == pytest.approx(mean - np.quantile(t, 0.025) * error, rel=0.05) and high > 1.5 * student[1]


def test_the_interval_of_few_prompts_is_as_wide_as_a_bootstrap_of_their_standard_errors(monkeypatch):
    """The error of a resample has G − 1 below the squares, too: without it the interval of ten is 5 % too narrow."""
    monkeypatch.setattr(paired, "RESAMPLES", 100_000)
    x, random = np.arange(10.0) ** 3, np.random.default_rng(1)
    resampled = x[random.integers(10, size=(100_000, 10))]
    errors = stats.sem(resampled, axis=1)
    t = (resampled.mean(1) - x.mean())[errors > 0] / errors[errors > 0]
    _, high = paired_difference(x, np.zeros(10), range(10)).interval
    assert high == pytest.approx(x.mean() - np.quantile(t, 0.025) * stats.sem(x), rel=0.02)


def test_six_prompts_are_enough_for_an_interval_and_one_outlier_leaves_it_finite():
    """In a third of the resamples the outlier is missing, and they have no spread."""
    assert paired_difference(np.arange(6.0), np.zeros(6), range(6)).interval is not None
    low, high = paired_difference([1.0, *np.zeros(7)], np.zeros(8), range(8)).interval
    assert -2 < low < 0.125 < high < 2


def test_the_error_is_statsmodels_clustered_one():
    a, b, prompts = drawn(prompts=12, seeds=3)
    known = OLS(a - b, np.ones(len(a))).fit(
        cov_type="cluster", cov_kwds={"groups": np.array(prompts), "use_correction": False}
    )
    assert paired_difference(a, b, prompts).error == pytest.approx(known.bse[0] * np.sqrt(12 / 11))


def test_one_prompt_has_no_error_although_its_mean_is_rounded():
    found = clustered.means(np.array([[1.0, 0.0], [1.0, 2.0]]), np.array([[49, 0], [49, 7]]), np.arange(2))
    assert 1 - 49 * (1 / 49) != 0
    assert np.isnan(found.error[0]) and found.error[1] > 0
    assert found.prompts.tolist() == [1, 2]


def test_a_subset_of_one_prompt_leaves_the_mean_of_several_without_an_error():
    """Also where rounding makes its clips differ from their mean."""
    sums, counts = np.array([1.0, 1.0, 2.0, 4.0]), np.array([49, 1, 1, 1])
    found = clustered.means(sums, counts, np.arange(4), np.array([0, 1, 1, 1]))
    assert np.isnan(found.error) and np.isnan(found.errors[0])
    assert found.errors[1] == pytest.approx(stats.sem([1, 2, 4])) and found.dofs.tolist() == [0, 2]


@pytest.mark.parametrize("micro", [False, True])
def test_freedom_over_subsets_is_that_of_welch(micro):
    """The mean of two subsets is half the difference of one and minus the other, or a weighted one."""
    a, b, prompts = drawn(prompts=30)
    apart = (a - b) * np.repeat([1.0, 3.0], [8, 22])
    subsets = ["small"] * 8 + ["large"] * 22
    found = paired_difference(apart, np.zeros(30), prompts, subsets=subsets, micro=micro)
    weights = np.array([8, 22]) / 15 if micro else np.ones(2)
    known = stats.ttest_ind(weights[0] * apart[:8], -weights[1] * apart[8:], equal_var=False)
    assert found.dof == pytest.approx(known.df)
    assert t_test(found.value, found.error, found.dof) == pytest.approx(known.pvalue)


def test_few_prompts_are_counted_exactly():
    a, b, prompts = drawn(prompts=8, shift=0.4)
    known = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert paired_difference(a, b, prompts).p == pytest.approx(known.pvalue)
    assert paired_difference(a[:5], b[:5], prompts[:5]).interval is None, "five prompts cannot reach 5 %"


def test_up_to_13_prompts_every_swap_counts_and_of_drawn_ones_the_measured_one_too():
    assert [flip_test(np.ones(count), range(count)) for count in (12, 13)] == [2 / 2**12, 2 / 2**13]
    assert flip_test(np.ones(40), range(40)) == paired_difference(np.ones(40), np.zeros(40), range(40)).p == 1 / 10_001


def test_rounding_does_not_break_ties():
    """Swapping the second, fourth and fifth prompt changes nothing: −0.3 + 0.1 + 0.2 is 0, but not in floats."""
    tenths = np.array([6, -3, 3, 1, 2, 1, 5])
    expected = np.mean([abs(tenths @ signs) >= tenths.sum() for signs in itertools.product((1, -1), repeat=7)])
    for scale in (0.1, 0.7, 1e-9, 3e12):
        assert flip_test(scale * tenths, range(7)) == expected
        assert paired_difference(scale * tenths, np.zeros(7), range(7)).p == expected


def test_labels_of_a_prompt_are_swapped_together():
    a, b, prompts = drawn(prompts=8, seeds=4, shift=0.4)
    by_prompt = [(a - b).reshape(8, 4).sum(1) @ signs for signs in itertools.product((1, -1), repeat=8)]
    expected = np.mean(np.abs(by_prompt) >= abs(np.sum(a - b)) - 1e-12)
    assert paired_difference(a, b, prompts).p == pytest.approx(expected)


def test_swaps_are_judged_by_the_distances_from_the_targets(monkeypatch):
    """Every pattern of swaps; by the differences of the values p would be 0.359. In one subset both are always one."""
    monkeypatch.setattr(paired, "_on_either_side", lambda *given: (0.0, given[-1]))
    monkeypatch.setattr(paired, "t_test", lambda *given: 0.0)
    a, b, prompts = drawn(prompts=8, seeds=2, shift=0.4)
    targets = ((slice(6), 0.2), (slice(6, 16), 0.8))

    def nearer(kept):
        x, y = (np.where(np.repeat(kept, 2), *sides) for sides in ((a, b), (b, a)))
        return np.mean([abs(x[at].mean() - goal) - abs(y[at].mean() - goal) for at, goal in targets])

    every = np.abs([nearer(kept) for kept in itertools.product((True, False), repeat=8)])
    expected = np.mean(every >= every[0] - 1e-12)
    options = {"subsets": ["x"] * 6 + ["y"] * 10, "targets": [0.2] * 6 + [0.8] * 10}
    assert paired_difference(a, b, prompts, **options).p == expected == 0.1796875


def test_swapping_models_turns_the_sign_and_nothing_else():
    a, b, prompts = drawn(shift=0.3)
    one, other = paired_difference(a, b, prompts), paired_difference(b, a, prompts)
    assert one.value == -other.value and one.p == other.p and one.error == pytest.approx(other.error)


def test_order_of_clips_does_not_matter():
    a, b, prompts = drawn(prompts=20, seeds=2, shift=0.1)
    order = np.random.default_rng(1).permutation(len(a))
    one = paired_difference(a, b, prompts)
    other = paired_difference(a[order], b[order], [prompts[place] for place in order])
    assert other.value == pytest.approx(one.value) and other.error == pytest.approx(one.error)
    assert other.p == pytest.approx(one.p, abs=0.02)


def test_nearer_to_the_reference_is_below_zero():
    random = np.random.default_rng(3)
    near, far = 1.1 + 0.1 * random.standard_normal(40), 0.5 + 0.1 * random.standard_normal(40)
    found = paired_difference(near, far, range(40), targets=np.ones(40))
    assert found.value == pytest.approx(abs(near.mean() - 1) - abs(far.mean() - 1))
    assert found.p < 0.001 and found.interval[1] < 0
    mirrored = paired_difference(0.9 + (near - near.mean()), near, range(40), targets=np.ones(40))
    assert mirrored.p > 0.2, "one above and one as far below are equally near"


def on_either_side(random, prompts, seeds=1):
    """Values of two models that are equally near to 0, one above and one below, with much luck in common."""
    common = random.standard_normal((prompts, 1))
    return [(common + side + 0.1 * random.standard_normal((prompts, seeds))).ravel() for side in (0.1, -0.1)]


@pytest.mark.statistical
@pytest.mark.parametrize(("prompts", "seeds"), [(12, 1), (24, 1), (96, 2)])
def test_models_on_either_side_of_the_reference_are_called_nearer_in_five_cases_of_a_hundred(prompts, seeds):
    """What they have in common moves both to one side; by swaps alone one is then surely nearer."""
    random, count = np.random.default_rng(20), 300
    labels, targets = np.repeat(np.arange(prompts), seeds), np.zeros(prompts * seeds)
    found = [
        paired_difference(*on_either_side(random, prompts, seeds), labels.tolist(), targets=targets, permutations=999)
        for _ in range(count)
    ]
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / count)
    assert np.mean([one.p <= 0.05 for one in found]) < most
    assert np.mean([not one.interval[0] <= 0 <= one.interval[1] for one in found]) < most


@pytest.mark.statistical
@pytest.mark.parametrize("alike", [0.0, 0.7, 1.0])
def test_models_as_near_to_what_the_real_clips_of_their_prompts_are_drawn_from_are_rarely_told_apart(alike):
    """Real clips of 24 prompts have not quite the mean of those of all prompts. Where that was taken to be exact, 16 %
    of such pairs were told apart if the models' luck with prompts is not that of the real clips.
    """
    random, count = np.random.default_rng(23), 300
    p = {"of their prompts": [], "of all": []}
    for _ in range(count):
        real = random.standard_normal(24)
        luck = alike * real + np.sqrt(1 - alike**2) * random.standard_normal(24)
        a, b = (luck + side + 0.1 * random.standard_normal(24) for side in (0.1, -0.1))
        for name, targets in (("of their prompts", real), ("of all", np.full(24, real.mean()))):
            p[name].append(paired_difference(a, b, range(24), targets=targets, permutations=999).p)
    wrong = {name: np.mean(np.array(found) <= 0.05) for name, found in p.items()}
    assert wrong["of their prompts"] < 0.05 + 3 * np.sqrt(0.05 * 0.95 / count)
    assert wrong["of all"] > 0.1 if alike == 0 else wrong["of all"] < 0.08


def test_what_makes_a_prompt_hard_for_models_and_real_clips_alike_does_not_hide_a_difference():
    """Both lie above the reference; how far, is known by less than how far prompts lie apart."""
    random = np.random.default_rng(24)
    real = random.standard_normal(24)
    a, b = (real + side + 0.1 * random.standard_normal(24) for side in (0.3, 0.1))
    by_prompt = paired_difference(a, b, range(24), targets=real)
    of_all = paired_difference(a, b, range(24), targets=np.full(24, real.mean()))
    assert by_prompt.value == pytest.approx(of_all.value) and by_prompt.p < 0.001 and of_all.p > 0.2
    assert by_prompt.interval[0] > 0 > of_all.interval[0]


def test_where_the_middle_may_be_on_the_other_side_nothing_is_shown_and_the_interval_says_so():
    a, b = on_either_side(np.random.default_rng(21), 24)
    middle = (a + b) / 2
    found = paired_difference(a, b, range(24), targets=np.full(24, middle.mean() - 0.2))
    assert found.value == pytest.approx(a.mean() - b.mean()), "both are above the reference's value"
    assert found.p == flip_test(middle - middle.mean() + 0.2, range(24)) > 0.2
    assert found.interval[0] == pytest.approx(-found.value), "as near as it is farther, were both below"
    beside = paired_difference(a, b, range(24), targets=np.full(24, middle.mean() - 2))
    assert beside.value == pytest.approx(found.value) and beside.p < 0.001 and beside.interval[0] > 0


def test_swapping_models_turns_the_interval_that_allows_for_the_other_side():
    a, b = on_either_side(np.random.default_rng(21), 24)
    targets = np.full(24, ((a + b) / 2).mean() - 0.2)
    one, other = (paired_difference(*pair, range(24), targets=targets) for pair in ((a, b), (b, a)))
    assert other.other_side == pytest.approx(-one.other_side) and other.p == one.p
    assert other.interval == pytest.approx((-one.interval[1], -one.interval[0]), rel=0.05)
    assert other.interval[1] >= other.other_side == pytest.approx(one.value)


@pytest.mark.parametrize(
    ("p", "share", "found", "counted"),
    [
        ([0.5, 0.01, 0.3], [0.2, 0.4, 0.4], 0.3, [True, False, True]),  # 0.2 is not half of the whole; 0.2 + 0.4 is
        ([0.5, 0.01, 0.3], [0.5, 0.1, 0.4], 0.5, [True, False, False]),
        ([0.4, 0.4, 0.1], [0.1, 0.5, 0.4], 0.4, [False, True, False]),  # of equal ones the larger share counts first
        ([0.9, 0.2, 0.1], [-0.5, 0.6, 0.9], 0.2, [False, True, False]),  # what speaks for the other run undoes nothing
        ([0.01, 0.2, 0.3, 0.04], [0.1, 0.2, 0.1, 0.6], 0.04, [False, True, True, True]),
    ],
)
def test_the_subsets_whose_side_is_known_worst_count_until_they_undo_the_difference(p, share, found, counted):
    of_all, counts = paired.of_all_sides(np.array([p]), np.array([share]))
    assert of_all.tolist() == [found] and counts.tolist() == [counted]


def test_a_subset_that_is_not_needed_to_undo_the_difference_does_not_widen_its_interval():
    """Each alone could lie on either side; that of the first is known worse, and it makes most of the difference."""
    common = np.random.default_rng(21).standard_normal(24)
    common -= common.mean()
    x, y = (np.concatenate([common + 0.1 + side, 0.12 * common + 0.02 + side]) for side in (0.1, -0.1))
    options = {"subsets": ["x"] * 24 + ["y"] * 24, "targets": np.zeros(48)}
    found = paired_difference(x, y, range(48), **options)
    alone = [paired_difference(x[at], y[at], range(24), targets=np.zeros(24)) for at in (slice(24), slice(24, 48))]
    assert all(one.other_side < one.value for one in alone) and alone[0].value > alone[1].value
    assert found.other_side == pytest.approx(found.value + (alone[0].other_side - alone[0].value) / 2)


@pytest.mark.statistical
@pytest.mark.parametrize("shared", [True, False])
def test_several_subsets_on_the_wrong_side_together_are_no_difference(shared):
    """None of three alone would undo the difference. They may have their prompts, and so their luck, in common."""
    random, count, found = np.random.default_rng(23), 300, []
    prompts = [*range(20)] * 3 if shared else [*range(60)]
    subsets = np.repeat(["x", "y", "z"], 20).tolist()
    for _ in range(count):
        common = np.tile(random.standard_normal(20), 3) if shared else random.standard_normal(60)
        a, b = (common + side + 0.1 * random.standard_normal(60) for side in (0.1, -0.1))
        found.append(paired_difference(a, b, prompts, subsets=subsets, targets=np.zeros(60), permutations=999))
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / count)
    assert np.mean([one.p <= 0.05 for one in found]) < most
    assert np.mean([not one.interval[0] <= 0 <= one.interval[1] for one in found]) < most


@pytest.mark.statistical
@pytest.mark.parametrize(("prompts", "apart"), [(24, 0.8), (96, 0.6)])
def test_models_that_are_each_nearer_on_one_subset_are_called_different_in_five_cases_of_a_hundred(prompts, apart):
    """On its subset each has the reference's value; there the luck in common moves the two in opposite directions."""
    random, count, found = np.random.default_rng(24), 200, []
    options = {"subsets": np.repeat(["x", "y"], prompts).tolist(), "targets": np.zeros(2 * prompts)}
    for _ in range(count):
        common = random.standard_normal(2 * prompts)
        a, b = (
            common + np.repeat(off, prompts) + 0.1 * random.standard_normal(2 * prompts)
            for off in ((apart, 0), (0, apart))
        )
        found.append(paired_difference(a, b, range(2 * prompts), **options, permutations=999))
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / count)
    assert np.mean([one.p <= 0.05 for one in found]) < most
    assert np.mean([not one.interval[0] <= 0 <= one.interval[1] for one in found]) < most


def test_over_several_subsets_a_band_metric_is_tested_by_the_clustered_error_too():
    """By hand: the means of two subsets of 12 prompts. On one, B lies just below the reference's value, and A above."""
    random = np.random.default_rng(25)
    common = random.standard_normal(24)
    common[:12] -= common[:12].mean() + 0.2
    a, b = (common + 0.1 * random.standard_normal(24) + np.repeat(off, 12) for off in ([1.8, 3], [0, 3.6]))
    found = paired_difference(a, b, range(24), subsets=["x"] * 12 + ["y"] * 12, targets=np.zeros(24))
    off = np.stack([(a + b)[:12], (a - b)[12:]])
    errors = stats.sem(off, axis=1)
    dof = (errors**2).sum() ** 2 / (errors**4 / 11).sum()
    by_hand = 2 * stats.t.sf(abs(off.mean()) / (np.hypot(*errors) / 2), dof)
    assert found.p == pytest.approx(by_hand) and by_hand > 0.1
    assert b[:12].mean() < 0 and found.interval[0] < 0 < found.value


def test_a_subset_that_cannot_turn_the_difference_needs_no_side():
    a, b = on_either_side(np.random.default_rng(22), 24)
    x, y = np.concatenate([a + 5, b]), np.concatenate([b + 3, b])
    subsets, prompts = ["far"] * 24 + ["alike"] * 24, [*range(48)]
    assert paired_difference(x, y, prompts, subsets=subsets, targets=np.zeros(48)).p < 0.001
    decides = paired_difference(x, np.concatenate([a + 5, b - 0.2]), prompts, subsets=subsets, targets=np.zeros(48))
    assert decides.p > 0.05


def test_subsets_weigh_the_same_or_by_their_clips():
    a, b, prompts = drawn(prompts=30)
    subsets = ["small"] * 10 + ["large"] * 20
    a[:10] += 3
    macro = paired_difference(a, b, prompts, subsets=subsets)
    micro = paired_difference(a, b, prompts, subsets=subsets, micro=True)
    apart = a - b
    assert macro.value == pytest.approx((apart[:10].mean() + apart[10:].mean()) / 2)
    assert micro.value == pytest.approx(apart.mean())
    known = [stats.sem(apart[:10]), stats.sem(apart[10:])]
    assert macro.error == pytest.approx(np.hypot(*known) / 2)
    assert paired_difference([1, 2], [0, 0], ["p", "p"], subsets=["x", "y"]).error is None


def test_one_value_for_all_is_no_proof():
    same = paired_difference(np.ones(20), np.ones(20), range(20))
    assert same.value == 0 and same.p == 1 and same.constant and same.interval == (0, 0)
    one_prompt = paired_difference([1.0, 2.0], [0.0, 0.0], ["only", "only"])
    assert one_prompt.error is None and one_prompt.interval is None and one_prompt.p == 1
    for bad in ([np.nan], []):
        with pytest.raises(InputError, match="as many finite values"):
            paired_difference(bad, bad, ["a"] * len(bad))


def test_unpaired_is_welch_where_no_prompt_is_shared():
    random = np.random.default_rng(4)
    a, b = random.standard_normal(20) + 0.8, 2 * random.standard_normal(35)
    found, known = unpaired_difference(a, range(20), b, range(20, 55)), stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(known.pvalue)
    assert found.interval == pytest.approx(tuple(known.confidence_interval()))
    assert (found.pairs, found.prompts) == (55, 20), "all clips, and the prompts of the side that has fewer"
    with pytest.raises(InputError, match="a side has no clip"):
        unpaired_difference(a, range(20), b[:0], [])
    one_prompt = unpaired_difference(a, range(20), b, [0] * 35)
    assert one_prompt.error is None and one_prompt.interval is None and one_prompt.p == 1


def test_unpaired_is_a_t_test_of_prompts_where_all_are_shared():
    """Other seeds of one prompt share its luck: the means of the prompts are pairs."""
    random = np.random.default_rng(4)
    luck = random.standard_normal(20)
    a, b = luck + 0.3 * random.standard_normal(20) + 0.2, luck + 0.3 * random.standard_normal(20)
    found, known = unpaired_difference(a, range(20), b, range(20)), stats.ttest_rel(a, b)
    assert found.p == pytest.approx(known.pvalue)
    assert found.interval == pytest.approx(tuple(known.confidence_interval()))


@pytest.mark.parametrize(("count", "value", "p"), [(8, 1.0, 2.0**-7), (8, 0.0, 1.0), (5, 1.0, 2.0**-4)])
def test_unpaired_clips_that_all_differ_by_the_same_do_differ(count, value, p):
    found = unpaired_difference(np.full(count, value), range(count), np.zeros(count + 2), range(count + 2))
    assert (found.value, found.error, found.p, found.constant) == (value, 0, p, True)
    assert found.interval == ((value, value) if count >= 6 else None)


@pytest.mark.parametrize("target", [1 / 14, 0.7, 1 / 3])
def test_unpaired_models_of_one_constant_value_are_equally_near_whatever_the_target(target):
    """Rounding of values less the target made the first nearer by 1.4e-17, with p 0.03."""
    targets = np.full(38, target)
    found = unpaired_difference(np.zeros(8), range(8), np.zeros(30), range(8, 38), targets=targets)
    assert (found.value, found.error, found.p, found.interval) == (0, 0, 1, (0, 0))
    small = unpaired_difference(np.full(8, 1e-12), range(8), np.full(30, 1e-12), range(8, 38), targets=targets)
    assert (small.value, small.p) == (0, 1)


@pytest.mark.parametrize("far", [3.0, 0.3])
def test_unpaired_models_that_are_equally_near_on_either_side_are_rarely_called_different(far):
    """The luck of shared prompts moves both to one side. By Welch's t 13 and 10 of 100 were."""
    random = np.random.default_rng(8)
    wrong = covered = 0
    for _ in range(400):
        luck = random.standard_normal(24)
        a, b = (luck + 0.3 * random.standard_normal(24) + middle for middle in (far, -far))
        found = unpaired_difference(a, range(24), b, range(24), targets=np.zeros(48))
        wrong, covered = wrong + (found.p < 0.05), covered + (found.interval[0] <= 0 <= found.interval[1])
    assert wrong <= 30 and covered >= 370


def test_holm_is_statsmodels():
    p = np.random.default_rng(5).random(40) ** 3
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert len(holm([])) == 0
    assert holm([0.9, 0.02, 0.8]).tolist() == [1, 0.06, 1], "a p-value is at most 1"


def test_without_an_error_there_is_no_doubt():
    assert [tail(value, 0.0, 5) for value in (-1.0, 0.0, 1.0)] == [1, 1, 0]
    assert t_test(np.array([0.0, 0.1]), 0.0, 5).tolist() == [1, 0]
    assert tail(1.96, 1.0, np.nan) == pytest.approx(0.025, abs=1e-4), "by the normal distribution"


def test_equivalence_is_two_one_sided_tests():
    a, b, prompts = drawn(prompts=40)
    found = paired_difference(a, b, prompts)
    for margin in (0.1, 0.3, 0.6):
        known, _, _ = ttost_paired(a, b, -margin, margin)
        assert equivalence(found.value, found.error, found.dof, margin) == pytest.approx(known)


def two_tails(value, error, dof, margin):
    """P-value of "0 differs from a mean by the margin or less", by scipy's t distribution."""
    return stats.t.sf((value - margin) / error, dof) + stats.t.sf((value + margin) / error, dof)


@pytest.mark.parametrize("target", [-3.0, 0.15, 3.0])
def test_farther_is_two_t_tests_of_the_difference_and_the_sum(target):
    """Of prompts' means; below the reference's value less is farther."""
    a, b, prompts = drawn(prompts=12, seeds=3, shift=0.4)
    found = paired.farther(a, b, prompts, targets=np.full(36, target))
    x, y = (one.reshape(12, 3).mean(axis=1) - target for one in (a, b))
    side = 1 if x.mean() > 0 else -1
    for margin in (0.0, 0.1):
        p = [two_tails(side * one.mean(), stats.sem(one), 11, margin) for one in (x - y, x + y)]
        assert found.observed.p(margin) == pytest.approx(min(1, max(p)))


def test_farther_over_subsets_holds_a_against_every_mirror_image_of_b():
    """In one subset both lie above the reference's value; in the other A lies above it and B below."""
    random = np.random.default_rng(3)
    x, y = ([mean + random.standard_normal(8) for mean in means] for means in ((3, 2), (1.5, -0.5)))
    known = []
    for signs in itertools.product((-1, 1), repeat=2):
        each = [(one + sign * other) / 2 for one, other, sign in zip(x, y, signs, strict=True)]
        pull = [stats.sem(one) ** 2 for one in each]
        dof = sum(pull) ** 2 / sum(one**2 / 7 for one in pull)
        known.append(two_tails(sum(one.mean() for one in each), np.sqrt(sum(pull)), min(dof, 15), 0.05))
    targets = np.repeat([5.0, -2.0], 8)
    a, b = (np.concatenate(one) + targets for one in (x, y))
    found = paired.farther(a, b, range(16), targets=targets, subsets=["p"] * 8 + ["q"] * 8)
    assert found.observed.p(0.05) == pytest.approx(max(known)) and max(known) < 0.5
    assert paired.farther(a[:9], b[:9], range(9), targets=targets[:9], subsets=["p"] * 8 + ["q"]) is None


def test_of_many_subsets_the_mirror_images_of_those_whose_side_is_doubtful_count():
    """2**30 choices would fill any memory. Of 29 subsets the baseline's side is clear, and of the first it is not."""
    random = np.random.default_rng(5)
    subsets, luck = np.repeat(np.arange(30), 8), random.standard_normal(240)
    b = np.where(subsets == 0, 0.1, 50.0) + luck
    a = b + np.where(subsets == 0, 0.5, 0.2) + 0.01 * random.standard_normal(240)
    found = paired.farther(a, b, range(240), targets=np.zeros(240), subsets=list(subsets)).observed
    assert len(found.values) == 2**10
    means = [np.abs(one.reshape(30, 8).mean(1)) for one in (a, b)]
    assert found.values.min() == pytest.approx((means[0] - means[1]).mean(), rel=1e-9)
    beside = means[1][0] / 15  # twice its mean, a thirtieth of the whole
    assert np.isclose(found.values - found.values.min(), beside).any(), "the first one's mirror image is among them"


def test_unpaired_farther_is_welchs_test_of_the_difference_and_of_the_sum():
    random = np.random.default_rng(3)
    a, b = 4 + random.standard_normal(9), 2 + 2 * random.standard_normal(14)
    found = paired.unpaired_farther(a, range(9), b, range(20, 34), targets=np.full(23, 0.5))
    p = [
        stats.ttest_ind(a - 0.5, sign * (b - 0.5) + margin, equal_var=False, alternative="greater").pvalue
        for sign in (1, -1)
        for margin in (0.1, -0.1)
    ]
    assert found.observed.p(0.1) == pytest.approx(max(p[0] + p[1], p[2] + p[3]))


def test_models_that_differ_by_exactly_the_margin_are_not_beyond_it():
    b = np.random.default_rng(0).random(24) + 1
    for margin in np.arange(1, 100) / 100:
        a = b + margin
        assert paired.farther(a, b, range(24), targets=np.zeros(24)).observed.p(margin) > 0.3
        assert equivalence(float(np.mean(a - b)), 1e-18, 23, margin) > 0.3


@pytest.mark.statistical
@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("height", [0, 1, 8])
def test_a_loss_that_would_be_found_is_found(crossed, height):
    """B lies above the reference's 0 by so many standard errors; the prompts of both share most of their luck."""
    random, prompts, margin, level, draws = np.random.default_rng(1), 24, 0.1, 0.01, 400
    at, apart, together = np.array([height, np.hypot(0.3, 0.3), np.hypot(2, np.hypot(0.3, 0.3))]) / np.sqrt(prompts)
    errors = np.array([together, apart] if crossed else [apart, together])
    contrasts = paired.Contrasts(np.zeros(2), errors, np.full(2, 23.0), np.array([0.0, 2 * at]))
    size, found = detectable_farther(contrasts, margin, level=level), 0
    for _ in range(draws):
        luck, mine, theirs = random.standard_normal((3, prompts)) * np.array([[1], [0.3], [0.3]])
        a, b = luck + mine + (-1 if crossed else 1) * (at + size), luck + theirs + at
        found += paired.farther(a, b, range(prompts), targets=np.zeros(prompts)).observed.p(margin) < level
    assert 0.74 < found / draws < 0.92  # at least 80 %, but for chance
    if height == 8 and not crossed:
        assert size == pytest.approx(margin + detectable(apart, 23, alpha=2 * level), rel=0.01), "B's side is clear"


def test_power_is_statsmodels():
    known = TTestPower()
    for effect, n, alpha in ((0.5, 24, 0.05), (0.2, 200, 0.01), (0.9, 12, 0.05 / 30)):
        assert power(effect, 1 / np.sqrt(n), n - 1, alpha) == pytest.approx(known.power(effect, n, alpha), abs=1e-6)
    expected = known.solve_power(nobs=24, alpha=0.05 / 10, power=0.8)
    assert detectable(1 / np.sqrt(24), 23, family=10) == pytest.approx(expected, rel=1e-4)
    needed = prompts_needed(0.3, 1 / np.sqrt(24), 24)
    assert needed == np.ceil(known.solve_power(effect_size=0.3, alpha=0.05, power=0.8))
    for family in (1, 10):
        expected = np.ceil(known.solve_power(effect_size=1.2, alpha=0.05 / family, power=0.8))
        assert prompts_needed(1.2, 1 / np.sqrt(24), 24, family=family) == expected
    assert detectable(None, 0) is None and detectable(0.0, 10) is None and detectable(1.0, 0) is None
    assert prompts_needed(9.0, 1.0, 6) == LEAST_PROMPTS, "fewer show nothing, however large the difference"
    for family in (1, 10, 40):
        least = least_prompts(family=family)
        assert prompts_needed(99.0, 0.1, 6, family=family) == least == prompts_needed(1.0, 0.0, 6, family=family)
        flipped = [flip_test(np.ones(count), range(count)) for count in (least - 1, least)]
        assert flipped[0] >= 0.05 / family > flipped[1]
    assert prompts_needed(0.0, 1.0, 10) is None and prompts_needed(1e-9, 1.0, 10) is None


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("apart", "together", "middle", "prompts"),
    [(1, 1, 0, 24), (0.3, 2, 0, 24), (0.3, 2, 1.5, 24), (1, 1, 0.4, 12), (0.5, 1, 0, 100)],
)
def test_what_is_detectable_of_distances_from_the_reference_is_found(apart, together, middle, prompts):
    """A and B lie above the reference's 0, the middle of both at least that far from it."""
    size, draws, random = detectable_to_target(apart, together, middle, prompts), 400, np.random.default_rng(0)
    shown = 0
    for _ in range(draws):
        less = size + apart * random.standard_normal(prompts)
        both = max(2 * middle, size) + together * random.standard_normal(prompts)
        how = {"targets": np.zeros(prompts), "permutations": 1000}
        found = paired_difference((both + less) / 2, (both - less) / 2, range(prompts), **how)
        shown += found.p < 0.05 and found.value > 0
    assert shown / draws == pytest.approx(0.8, abs=0.07)


def test_what_a_comparison_of_distances_from_the_reference_could_have_found_counts_both_tests():
    """B is half a unit above the reference's 0 and A 0.4 farther; prompts move both by 1, and clips by 0.2."""
    random, prompts, shown = np.random.default_rng(0), 24, []
    targets = np.zeros(prompts)
    for distance in (0.5, 10):
        luck, mine, theirs = random.standard_normal((3, prompts)) * np.array([[1], [0.2], [0.2]])
        a, b = distance + 0.4 + luck + mine, distance + luck + theirs
        found, swapped = (paired_difference(*of, range(prompts), targets=targets) for of in ((a, b), (b, a)))
        contrasts = found.contrasts.as_seen()
        assert contrasts.values == pytest.approx([found.value, a.mean() + b.mean()])
        assert contrasts.values == pytest.approx(swapped.contrasts.values), "whichever is the farther one"
        size = detectable_farther(contrasts, 0.0, level=0.025 / 18)
        needed = prompts_needed(contrasts.values, contrasts.errors, prompts, family=18)
        shown.append((size / detectable(found.error, 23, family=18), needed, found))
    assert shown[0][0] > 2 and 24 < shown[0][1] < 60, "the side is not clear: 12 prompts would show it in 8 % of cases"
    (ratio, needed, found) = shown[1]
    assert ratio == pytest.approx(1, rel=1e-3), "the side is clear"
    assert needed == prompts_needed(found.value, found.error, prompts, family=18)


@pytest.mark.statistical
def test_the_prompts_that_a_comparison_of_distances_from_the_reference_needs_find_it():
    random, draws, shown = np.random.default_rng(0), 400, 0
    apart, together = np.sqrt([2 * 0.2**2, 4 + 2 * 0.2**2]) / np.sqrt(24)
    needed = prompts_needed(np.array([0.4, 1.4]), np.array([apart, together]), 24, family=18)
    for _ in range(draws):
        luck, mine, theirs = random.standard_normal((3, needed)) * np.array([[1], [0.2], [0.2]])
        how = {"targets": np.zeros(needed), "permutations": 3000}
        shown += paired_difference(0.9 + luck + mine, 0.5 + luck + theirs, range(needed), **how).p < 0.05 / 18
    assert shown / draws == pytest.approx(0.8, abs=0.07)


@pytest.mark.parametrize(("dof", "shift", "alpha"), [(2.11, 8, 0.005), (2.05, 12, 0.005), (1, 8, 0.005), (5, 12, 1e-4)])
def test_power_is_that_of_simulations_where_others_have_none(dof, shift, alpha):
    random, draws = np.random.default_rng(0), 400_000
    t = (random.standard_normal(draws) + shift) / np.sqrt(random.chisquare(dof, draws) / dof)
    found = np.mean(np.abs(t) > stats.t.isf(alpha / 2, dof))
    assert power(shift, 1.0, dof, alpha) == pytest.approx(found, abs=4 * np.sqrt(0.25 / draws))


def test_the_smallest_detectable_difference_has_no_steps():
    found = [detectable(1.0, dof, family=10) for dof in np.linspace(2, 3, 40)]
    assert (np.diff(found) < 0).all() and np.max(-np.diff(found, 2)) < 0.1


def test_spreads_are_those_that_were_put_in():
    random = np.random.default_rng(6)
    prompts = np.repeat(np.arange(3000), 3)
    values = 2 * random.standard_normal(3000)[prompts] + 0.5 * random.standard_normal(9000)
    assert spreads(values, list(prompts)) == pytest.approx((2, 0.5), rel=0.05)
    assert spreads(values[::3], list(prompts[::3]))[1] is None


def test_spreads_of_unequal_numbers_of_seeds_are_those_of_an_analysis_of_variance():
    # means 1, 5, 6 of 2, 1, 2 clips about 3.8: 26.8 / 2 between, 10 / 2 within, (5 − 9 / 5) / 2 clips a prompt
    found = spreads(np.array([0.0, 2.0, 5.0, 4.0, 8.0]), list("aabcc"))
    assert found == pytest.approx((np.sqrt((13.4 - 5) / 1.6), np.sqrt(5)))
    alike = spreads(np.array([0.0, 4.0, 1.0, 3.0]), list("aabb"))
    assert alike == pytest.approx((0, np.sqrt(5))), "prompts that differ less than their clips do not differ"


def test_letters_are_shared_exactly_where_nothing_is_told_apart():
    random = np.random.default_rng(7)
    for _ in range(50):
        upper = np.triu(random.random((7, 7)) < 0.4, 1)
        different = upper | upper.T
        given = letters(different)
        for i, j in itertools.combinations(range(7), 2):
            assert bool(set(given[i]) & set(given[j])) != different[i, j]
    assert letters(np.zeros((3, 3), dtype=bool)) == ["a", "a", "a"]
    assert letters(np.array([[0, 1, 1], [1, 0, 0], [1, 0, 0]], dtype=bool)) == ["a", "b", "b"], "no letter too many"
    apart = letters(~np.eye(28, dtype=bool))
    assert apart[0] == "a" and apart[26] == "a1"


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["normal", "skewed", "seeds", "shared"])
def test_nothing_is_found_where_nothing_differs(kind):
    random = np.random.default_rng(8)
    false, held = 0, 0
    for _ in range(400):
        a, b = random.standard_normal((2, 48))
        if kind == "skewed":
            a, b = np.exp(a), np.exp(b)
        prompts, subsets = list(np.arange(48) // 2) if kind == "seeds" else list(range(48)), None
        if kind == "shared":  # two subsets of 24 prompts, 12 of which are in both with the same clips
            prompts, subsets = [*range(24), *range(12, 36)], np.repeat(["x", "y"], 24)
            a, b = a[prompts], b[prompts]
        found = paired_difference(a, b, prompts, subsets=subsets, permutations=999)
        false += found.p <= 0.05
        held += found.interval[0] <= 0 <= found.interval[1]
    assert 0.025 <= false / 400 <= 0.075 and 0.92 <= held / 400 <= 0.985


@pytest.mark.parametrize("targets", [None, 0.2])
def test_blocks_of_draws_are_the_same_draws(monkeypatch, targets):
    random = np.random.default_rng(30)
    a, b = random.standard_normal((2, 90))
    prompts, subsets = np.repeat(np.arange(30), 3), np.repeat(["x", "y"], 45)
    options = {"subsets": list(subsets), "targets": None if targets is None else np.full(90, targets)}
    whole = paired_difference(a, b, list(prompts), **options)
    monkeypatch.setattr("avbench.statistics.paired._HELD", 1000)
    assert paired_difference(a, b, list(prompts), **options) == whole
