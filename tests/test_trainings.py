"""Arms with several trainings: numbers against other ways to compute them, and how often chance is called chance."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from avbench.core import InputError
from avbench.statistics import paired, power
from avbench.statistics.trainings import Components, arm_difference, arm_mean, sources


def tables(random, *, trainings=(5, 5), prompts=24, training=0.3, prompt=1.0, draw=None, gaps=0.0):
    """Two arms without a true difference; prompts vary in both arms alike, and in each arm on their own."""
    draw = draw or random.standard_normal
    shared = draw((1, prompts))
    made = []
    for count in trainings:
        table = shared + training * draw((count, 1)) + prompt * draw((1, prompts)) + draw((count, prompts))
        made.append(np.where(random.random((count, prompts)) < gaps, np.nan, table))
    return made


def centred_exponential(random):
    return lambda shape: random.standard_exponential(shape) - 1.0


def test_a_distance_is_tested_as_scipy_tests_two_samples():
    a, b = np.random.default_rng(0).normal([[3.0]] * 5), np.random.default_rng(1).normal([[2.0]] * 5)
    found, expected = arm_difference(a, b, paired_rows=True), stats.ttest_rel(a[:, 0], b[:, 0])
    assert found.p == pytest.approx(expected.pvalue) and found.dof == 4
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))
    found, expected = arm_difference(a, b[:3], paired_rows=False), stats.ttest_ind(a[:, 0], b[:3, 0], equal_var=False)
    assert found.p == pytest.approx(expected.pvalue) and found.trainings == (5, 3)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert found.least_p == 1 / 56, "of two arms of unlike sizes no two patterns are mirrored"
    wild = b[:3] + 50 * (b[:3] - b[:3].mean())  # one arm alone makes the error, and its freedom
    found, expected = arm_difference(a, wild, paired_rows=False), stats.ttest_ind(a[:, 0], wild[:, 0], equal_var=False)
    assert found.dof == pytest.approx(expected.df) and found.dof < 2.1
    assert found.components.prompts_needed(1.0, 5) is None, "a distance has no prompts to plan for"


def test_the_exact_p_is_that_of_scipys_permutations():
    a, b = np.random.default_rng(0).normal([[3.0]] * 5), np.random.default_rng(1).normal([[2.0]] * 5)

    def apart(x, y, axis):
        return x.mean(axis) - y.mean(axis)

    samples = (a[:, 0], b[:, 0])
    for pairs, kind in ((True, "samples"), (False, "independent")):
        expected = stats.permutation_test(samples, apart, permutation_type=kind, vectorized=True, n_resamples=10_000)
        assert arm_difference(a, b, paired_rows=pairs).p_exact == pytest.approx(expected.pvalue), kind
    far = a + 1000.0, b
    assert arm_difference(*far, paired_rows=True).p_exact == arm_difference(*far, paired_rows=True).least_p == 2 / 32
    assert arm_difference(*far, paired_rows=False).p_exact == 2 / math.comb(10, 5)


def test_many_trainings_draw_labels_at_random():
    random = np.random.default_rng(0)
    found = arm_difference(random.normal(size=(40, 1)), random.normal(size=(40, 1)), paired_rows=True)
    assert found.p_exact == pytest.approx(found.p, abs=0.05) and found.least_p == 1 / 10_000


def test_the_error_is_that_of_the_crossed_layout_computed_by_mean_squares():
    a, b = tables(np.random.default_rng(3))
    found, d = arm_difference(a, b, paired_rows=True), a - b
    rows, columns = d.mean(1), d.mean(0)
    of_rows = 24 * rows.var(ddof=1)
    of_columns = 5 * columns.var(ddof=1)
    rest = np.sum((d - rows[:, None] - columns + d.mean()) ** 2) / (4 * 23)
    assert found.value == pytest.approx(d.mean())
    assert found.error**2 == pytest.approx((of_rows + of_columns - rest) / 120)
    parts = found.components
    assert parts.rest == pytest.approx(rest)
    assert parts.training == pytest.approx((of_rows - rest) / 24) and parts.prompt == pytest.approx(
        (of_columns - rest) / 5
    )
    assert parts.error(5, 24) == pytest.approx((found.error, found.dof)), "planning the same study gives its error"


def test_two_trainings_of_two_prompts_have_an_error_too():
    # rows 1.5 and 6.5, columns 2.5 and 5.5 about 4: 25, 9, and 4 of the rest, with one degree of freedom
    d = np.array([[1.0, 2.0], [4.0, 9.0]])
    found = arm_difference(d, np.zeros((2, 2)), paired_rows=True)
    assert found.error**2 == pytest.approx((25 + 9 - 4) / 4)
    assert (found.components.training, found.components.prompt) == pytest.approx((21 / 2, 5 / 2))
    flat = arm_difference(np.array([[1.0, 2.0], [5.0, 3.0]]), np.zeros((2, 2)), paired_rows=True)
    # rows 1.5 and 4, columns 3 and 2.5: prompts vary by less than the rest, 2.25, and take nothing away
    assert flat.error**2 == pytest.approx(6.25 / 4) and flat.components.prompt == 0
    little = np.array([[-1, -1], [1, 1]]) + np.sqrt(5) / 2 * np.array([[-1, 1], [-1, 1]]) + np.array([[1, -1], [-1, 1]])
    found = arm_difference(little, np.zeros((2, 2)), paired_rows=True)  # 4, 5, and 4 of the rest
    assert found.error**2 == pytest.approx((4 + 5 - 4) / 4) and found.dof == 1, "not 0.4, as Satterthwaite has it"


def test_trainings_that_agree_by_luck_do_not_make_the_error_smaller_than_the_residual_does():
    random = np.random.default_rng(9)
    a, b = random.standard_normal((3, 24)), random.standard_normal((3, 24))
    a -= a.mean(1, keepdims=True)
    b -= b.mean(1, keepdims=True)  # all trainings have one mean
    found, d = arm_difference(a + 1.0, b, paired_rows=True), a - b
    rest = np.sum((d - d.mean(0)) ** 2) / (2 * 23)
    assert found.error**2 >= rest / 72 * (1 - 1e-9) and found.components.training == 0
    assert found.value == pytest.approx(1.0) and not found.constant


def test_gaps_leave_values_out_of_both_partners_and_move_nothing_else():
    random = np.random.default_rng(4)
    a, b = tables(random)
    full = arm_difference(np.delete(a, 7, axis=1), np.delete(b, 7, axis=1), paired_rows=True)
    a[:, 7] = np.nan
    found = arm_difference(a, b, paired_rows=True)
    assert found.prompts == 23
    assert (found.value, found.error, found.p) == pytest.approx((full.value, full.error, full.p))
    b[2, :] = np.nan
    with pytest.raises(InputError, match="training 2 of B has no value"):
        arm_difference(a, b, paired_rows=True)


def test_what_matches_the_target_better_is_below_zero():
    random = np.random.default_rng(5)
    a, b = tables(random, training=0.1, prompt=0.1)
    found = arm_difference(2.0 + 0.1 * a, 4.0 + 0.1 * b, paired_rows=True, targets=0.0)
    assert found.value == pytest.approx(-2.0, abs=0.2) and found.p < 0.001 and found.p_exact == 2 / 32
    other_side = arm_difference(2.0 + 0.1 * a, -4.0 + 0.1 * b, paired_rows=True, targets=0.0)
    assert other_side.value == pytest.approx(-2.0, abs=0.2) and other_side.p < 0.001


def test_the_exact_p_of_a_target_is_of_the_distances_from_it():
    a, b = np.array([0.3, 0.1, 0.5]), np.array([-0.2, 0.4, -0.6])
    swaps = [np.where(kept, (a, b), (b, a)).mean(1) for kept in itertools.product((True, False), repeat=3)]
    sizes = np.array([abs(abs(one) - abs(other)) for one, other in swaps])
    found = arm_difference(a[:, None], b[:, None], paired_rows=True, targets=0.0)
    assert found.p_exact == np.mean(sizes >= sizes[0] - 1e-12) != np.mean([abs(x - y) >= 0.43 for x, y in swaps])


def test_a_prompt_that_one_training_lacks_still_counts_for_the_others():
    a, b = tables(np.random.default_rng(10), trainings=(3, 4), prompts=6)
    a[0, 2] = b[3, 4] = np.nan
    found = arm_difference(a, b, paired_rows=False)
    assert found.prompts == 6
    assert found.value == pytest.approx(np.nanmean(a, axis=1).mean() - np.nanmean(b, axis=1).mean())


@pytest.mark.statistical
@pytest.mark.parametrize("paired_rows", [True, False])
def test_arms_on_either_side_of_the_target_are_called_nearer_in_five_cases_of_a_hundred(paired_rows):
    """Prompts that all trainings share move both arms to one side; by the difference one is then surely nearer."""
    random, count, found = np.random.default_rng(7), 300, []
    for _ in range(count):
        common = random.standard_normal(48)
        a, b = (
            common + side + 0.02 * random.standard_normal((5, 1)) + 0.1 * random.standard_normal((5, 48))
            for side in (0.1, -0.1)
        )
        found.append(arm_difference(a, b, paired_rows=paired_rows, targets=0.0))
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / count)
    assert np.mean([one.p <= 0.05 for one in found]) < most
    assert np.mean([not one.interval[0] <= 0 <= one.interval[1] for one in found]) < most


def test_arms_whose_middle_may_lie_on_the_other_side_of_the_target_are_not_told_apart():
    """One column, so that the middle of both arms is tested as scipy tests it: A is at 0.06, B at 0.02."""
    luck = 0.2 * np.array([0.3, -0.1, -0.4, 0.1, 0.2, -0.1])
    a, b = luck + 0.06 + 0.001 * np.array([1, 0, 0, -1, 0, 0]), luck + 0.02
    middle = stats.ttest_1samp((a + b) / 2, 0)
    least = middle.confidence_interval().low
    found = arm_difference(a[:, None], b[:, None], paired_rows=True, targets=0.0)
    assert found.value == pytest.approx(0.04) and found.p == pytest.approx(middle.pvalue) and found.p > 0.05
    assert -0.02 < least < 0 and found.interval[0] == pytest.approx(abs(least + 0.02) - abs(least - 0.02))
    mirrored = arm_difference(b[:, None], a[:, None], paired_rows=True, targets=0.0)
    assert mirrored.interval == pytest.approx((-found.interval[1], -found.interval[0]))
    below = arm_difference(-a[:, None], -b[:, None], paired_rows=True, targets=0.0)
    assert below.interval == pytest.approx(found.interval) and below.p == mirrored.p == pytest.approx(found.p)


def test_equal_arms_have_no_spread_and_p_1():
    a, _ = tables(np.random.default_rng(6))
    found = arm_difference(a, a, paired_rows=True)
    assert found.constant and found.value == 0 and found.p == found.p_exact == 1
    shifted = arm_difference(a, a - 1.0, paired_rows=True)
    assert shifted.constant and shifted.p == shifted.p_exact == 2 / 32, "five pairs cannot show more"


@pytest.mark.parametrize("target", [1 / 14, 0.7, 1 / 3])
def test_arms_of_one_constant_value_are_equally_near_whatever_the_target(target):
    found = arm_difference(np.zeros((3, 8)), np.zeros((5, 8)), paired_rows=False, targets=target)
    assert abs(found.value) < 1e-15 and found.p == found.p_exact == 1 and found.constant


def test_planning_finds_the_numbers_that_power_asks_for():
    parts = Components(training=0.04, prompt=1.0, rest=2.0, sources=1.0, crossed=True)
    trainings, prompts = parts.trainings_needed(0.5, 100), parts.prompts_needed(0.5, 5)
    for count, few in ((trainings, (trainings - 1, 100)), (prompts, (5, prompts - 1))):
        enough = (trainings, 100) if count == trainings else (5, prompts)
        assert power.power(0.5, *parts.error(*enough), 0.05) >= 0.8 > power.power(0.5, *parts.error(*few), 0.05)
    assert parts.detectable(5, 100) > parts.detectable(10, 100) > parts.detectable(10, 200)
    assert parts.prompts_needed(0.1, 3) is None, "three trainings are too few, whatever the number of prompts"
    assert parts.trainings_needed(0.1, 20) is None, "twenty prompts are too few, whatever the number of trainings"


def test_more_prompts_can_lower_the_freedom_of_few_trainings():
    """So a number of prompts may be enough where a million are not."""
    parts = Components(training=0.001, prompt=0.001, rest=0.0001, sources=1.0, crossed=True)
    assert parts.detectable(3, 8) < 0.085 < parts.detectable(3, 1_000_000)
    assert parts.prompts_needed(0.085, 3) == 6 and parts.detectable(3, 6) < 0.085


def test_a_prompt_that_one_whole_arm_lacks_counts_in_neither():
    """Eight hard prompts that arm A cannot measure at all would make it look better."""
    random = np.random.default_rng(1)
    a, b = random.normal(size=(3, 30)), random.normal(size=(4, 30))
    hard = np.arange(30) < 8
    a[:, hard], b[:, hard] = np.nan, b[:, hard] + 3
    found, common = arm_difference(a, b, paired_rows=False), arm_difference(a[:, ~hard], b[:, ~hard], paired_rows=False)
    assert (found.value, found.error, found.p) == pytest.approx((common.value, common.error, common.p))
    assert found.p_exact == common.p_exact and found.prompts == 22
    with pytest.raises(InputError, match="of the prompts that both arms have has no value"):
        arm_difference(np.where(hard, a, 1.0), np.where(hard, b, np.nan), paired_rows=False)


def test_wrong_tables_are_refused():
    a, b = tables(np.random.default_rng(8))
    with pytest.raises(InputError, match="at least 2 trainings"):
        arm_difference(a[:1], b, paired_rows=False)
    with pytest.raises(InputError, match="as many trainings if these are paired"):
        arm_difference(a[:3], b, paired_rows=True)
    with pytest.raises(InputError, match="without infinity"):
        arm_mean(np.full((3, 4), np.inf))


def test_the_error_of_a_planned_study_by_hand():
    distance = Components(training=0.5, prompt=0.0, rest=0.0, sources=2.0, crossed=False)
    assert distance.error(5, 1) == pytest.approx((np.sqrt(0.5 / 5), 2 * 4))
    alike = Components(training=0.5, prompt=0.0, rest=2.0, sources=1.0, crossed=True)
    assert alike.error(30, 3) == pytest.approx((np.sqrt(0.5 / 30 + 2 / 90), 29)), "prompts that are alike add nothing"
    assert [sources(of) for of in ([1.0, 1.0], [1.0, 0.0], [1.0, 3.0], [0.0, 0.0])] == [2, 1, 1.6, 2]


def test_where_nothing_varies_any_difference_but_none_is_found():
    sure = Components(training=0.0, prompt=0.0, rest=0.0, sources=1.0, crossed=True)
    assert sure.trainings_needed(0.1, 24) == 2 and sure.prompts_needed(0.1, 5) == paired.LEAST_PROMPTS
    assert sure.trainings_needed(0.0, 24) is None and sure.prompts_needed(0.0, 5) is None


@pytest.mark.statistical
@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize(
    ("training", "prompt", "skewed", "gaps"),
    [(0.3, 1.0, False, 0), (0.3, 0.0, False, 0), (0.0, 1.0, False, 0), (0.3, 1.0, True, 0), (0.3, 1.0, False, 0.2)],
    ids=["both", "trainings", "prompts", "skewed", "gaps"],
)
def test_chance_is_called_chance_with_five_trainings(pairs, training, prompt, skewed, gaps):
    random = np.random.default_rng(0)
    draw = centred_exponential(random) if skewed else None
    studies = [tables(random, prompts=48, training=training, prompt=prompt, draw=draw, gaps=gaps) for _ in range(400)]
    found = [arm_difference(*one, paired_rows=pairs) for one in studies]
    alarms = np.mean([one.p < 0.05 for one in found])
    assert 0.02 <= alarms <= 0.08, "5 % within three standard errors of 400 studies"
    assert np.mean([one.interval[0] <= 0 <= one.interval[1] for one in found]) == pytest.approx(1 - alarms)


@pytest.mark.statistical
def test_a_true_difference_is_found_as_often_as_planned():
    random, parts = np.random.default_rng(1), Components(2 * 0.09, 2.0, 2.0, 1.0, crossed=True)
    effect = parts.detectable(5, 48)
    found = [
        arm_difference(a + effect, b, paired_rows=True) for a, b in (tables(random, prompts=48) for _ in range(400))
    ]
    assert np.mean([one.p < 0.05 for one in found]) == pytest.approx(0.8, abs=0.07)
    assert np.mean([one.interval[0] <= effect <= one.interval[1] for one in found]) == pytest.approx(0.95, abs=0.035)
    for name in ("training", "prompt", "rest"):
        assert np.mean([getattr(one.components, name) for one in found]) == pytest.approx(
            getattr(parts, name), rel=0.15
        )
