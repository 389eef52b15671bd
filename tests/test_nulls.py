"""A permutation null is right about chance: p-values are even, excesses centred, labels swapped in pairs."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from avbench.core import Key, NotMeasurable
from avbench.metrics import distances
from avbench.metrics.frechet import Frechet, frechet_distance
from avbench.metrics.kernel import Kernel
from avbench.metrics.neighbours import Neighbours
from avbench.metrics.table import METRICS
from avbench.statistics.clustered import numbered
from avbench.statistics.uncertainty import (
    ENOUGH_EXTREME,
    GROUPS,
    _evenly,
    _exchanged,
    _jackknife,
    _signed_sums,
    _swaps,
    floor,
    permutation_null,
    swap_test,
)

SIMULATED = 400
PERMUTATIONS = 99


def level_holds(p, level=0.05):
    """Whether the share of p-values up to the level is the level, within three standard errors."""
    error = np.sqrt(level * (1 - level) / len(p))
    return abs(np.mean(np.array(p) <= level) - level) < 3 * error


@pytest.fixture
def swaps_alone(monkeypatch):
    """The p-value of the swaps, which is exact for equal models; that of the t test is left out."""
    monkeypatch.setattr("avbench.statistics.uncertainty._jackknife", lambda *_: (0.0, 1.0))


def spread(random, n):
    """[n, 8] features whose variances fall as those of real features do."""
    return random.standard_normal((n, 8)) / np.sqrt(np.arange(1, 9)) + 0.5


@pytest.mark.statistical
@pytest.mark.parametrize("distance", [Frechet, Kernel])
def test_one_distribution_is_called_two_in_five_cases_of_a_hundred(distance):
    n, random = 100, np.random.default_rng(100)
    nulls, excess = [], []
    for _ in range(SIMULATED):
        pooled = distance(spread(random, 2 * n))
        null = permutation_null(pooled, range(n), range(n, 2 * n), permutations=PERMUTATIONS)
        nulls.append(null)
        value = pooled(np.arange(n)[None], np.arange(n, 2 * n)[None])[0]
        excess.append(value - null.mean)
    assert level_holds([null.p for null in nulls])
    assert abs(np.mean(excess)) < 3 * np.std(excess) / np.sqrt(SIMULATED)


@pytest.mark.statistical
@pytest.mark.parametrize("distance", [Frechet, Kernel])
def test_it_holds_where_clips_of_a_prompt_are_alike(distance):
    random = np.random.default_rng(1)
    prompts = np.repeat(np.arange(50), 5)
    run = np.arange(0, 250, 5)
    rest = np.setdiff1d(np.arange(250), run)
    p = []
    for _ in range(SIMULATED):
        clips = 2 * random.standard_normal((50, 8))[prompts] + 0.5 * random.standard_normal((250, 8))
        pooled = distance(np.concatenate([clips[run], clips[rest]]))
        null = permutation_null(pooled, prompts[run], prompts[rest], permutations=PERMUTATIONS)
        assert null.within_prompts
        p.append(null.p)
    assert level_holds(p)


def test_clips_of_a_prompt_that_the_reference_lacks_keep_their_side():
    """One such prompt once made all clips change sides across prompts, where a shifted model was not found."""
    random = np.random.default_rng(4)
    prompts, real = np.arange(48), np.repeat(np.arange(1, 48), 2)
    looks = 3 * random.standard_normal((48, 4))
    run = looks[prompts] + 0.5 * random.standard_normal((48, 4)) + 0.5
    rest = looks[real] + 0.5 * random.standard_normal((94, 4))
    null = permutation_null(Frechet(np.concatenate([run, rest])), prompts, real)
    assert null.within_prompts and null.p < 0.01

    def first(one, _):
        return (one == 0).any(axis=1)

    assert permutation_null(first, prompts, real).mean == 1


def test_several_clips_of_a_prompt_have_no_null_across_prompts():
    clips = np.random.default_rng(5).standard_normal((48, 3))
    half = np.repeat(np.arange(12), 2)
    for prompts, real in ((half, np.arange(12, 36)), (np.arange(12, 36), half)):
        with pytest.raises(NotMeasurable, match="clips of one prompt are alike, and the reference has other prompts"):
            permutation_null(Frechet(clips), prompts, real)


@pytest.mark.parametrize("distance", [Frechet, Kernel])
def test_the_error_of_a_difference_halves_at_four_times_the_clips_only_if_the_reference_grows_too(distance):
    """So the prompts that a distance needs are counted with real clips in proportion."""

    def error(n, real):
        found = []
        for seed in range(6):
            models = np.random.default_rng(seed).standard_normal((2 * n + real, 8))
            models[:n] += 0.5
            found.append(swap_test(distance(models), range(n), range(real), permutations=99).error)
        return np.mean(found)

    few, models_alone, both = error(30, 30), error(120, 30), error(120, 120)
    assert both < 0.55 * few < models_alone


@pytest.mark.statistical
@pytest.mark.usefixtures("swaps_alone")
def test_models_that_differ_prompt_by_prompt_are_not_told_apart_by_more_seeds():
    random = np.random.default_rng(105)
    prompts = np.repeat(np.arange(24), 4)
    p = []
    for _ in range(SIMULATED):
        models = [spread(random, 24)[prompts] + 0.3 * spread(random, 96) for _ in range(2)]
        pooled = Kernel(np.concatenate([*models, spread(random, 96)]))
        p.append(swap_test(pooled, prompts, range(96), permutations=PERMUTATIONS).p)
    assert level_holds(p)
    few = directly(pooled)  # each swap is computed anew
    assert swap_test(few, prompts, range(96), permutations=199).error == pytest.approx(
        swap_test(pooled, prompts, range(96)).error, rel=0.3
    )


@pytest.mark.statistical
@pytest.mark.parametrize("distance", [Frechet, Kernel])
@pytest.mark.usefixtures("swaps_alone")
def test_equal_models_are_told_apart_in_five_cases_of_a_hundred(distance):
    n, random = 100, np.random.default_rng(101)
    p = []
    for _ in range(SIMULATED):
        of_pair = spread(random, n)  # what the two clips of a (prompt, seed) have in common
        models = [of_pair + 0.7 * spread(random, n) + 0.3 for _ in range(2)]
        pooled = distance(np.concatenate([*models, spread(random, 100)]))
        p.append(swap_test(pooled, range(n), range(100), permutations=PERMUTATIONS).p)
    assert level_holds(p)


def wide(random, n):
    """[n, 60] features of which few clips are far out."""
    return random.standard_normal((n, 60)) / np.sqrt(np.arange(1, 61)) * random.gamma(1, 1, (n, 1))


@pytest.mark.statistical
@pytest.mark.parametrize("distance", [Frechet, Kernel])
@pytest.mark.parametrize("n", [12, 40])
@pytest.mark.usefixtures("swaps_alone")
def test_equal_models_of_fewer_clips_than_dimensions_are_told_apart_as_seldom(distance, n):
    random = np.random.default_rng(102)
    p = []
    for _ in range(SIMULATED):
        of_pair = wide(random, n)
        models = [of_pair + wide(random, n) for _ in range(2)]
        p.append(
            swap_test(distance(np.concatenate([*models, wide(random, 50)])), range(n), range(50), permutations=199).p
        )
    assert level_holds(p)


def directly(pooled):
    """A pooled distance without its derivative: `swap_test` computes it anew for every swap."""
    return lambda first, second: pooled(first, second)


@pytest.mark.statistical
@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
@pytest.mark.usefixtures("swaps_alone")
def test_drawing_until_enough_are_extreme_keeps_the_level(level):
    n, random = 20, np.random.default_rng(103)
    p, draws = [], []
    for _ in range(3 * SIMULATED):
        models = [spread(random, n) for _ in range(2)]
        pooled = Kernel(np.concatenate([*models, spread(random, 30)]))
        found = swap_test(directly(pooled), range(n), range(30), permutations=1999)
        p.append(found.p)
        draws.append(found.permutations)
    assert level_holds(p, level)
    assert np.mean(draws) < 500


@pytest.mark.statistical
@pytest.mark.parametrize("n", [40, 150])
@pytest.mark.usefixtures("swaps_alone")
def test_the_derivative_finds_what_the_distance_itself_finds(n):
    random = np.random.default_rng(104)
    found, direct = [], []
    for _ in range(60):
        of_pair = wide(random, n)
        models = [of_pair + wide(random, n), 1.2 * (of_pair + wide(random, n)) + 0.05]
        pooled = Frechet(np.concatenate([*models, wide(random, 100)]))
        found.append(swap_test(pooled, range(n), range(100), permutations=199).p <= 0.05)
        direct.append(swap_test(directly(pooled), range(n), range(100), permutations=199).p <= 0.05)
    assert 0.2 < np.mean(direct) < 0.95
    assert np.mean(found) > np.mean(direct) - 0.08


@pytest.mark.statistical
def test_what_differs_is_found():
    random = np.random.default_rng(2)
    near, far, real = spread(random, 60), spread(random, 60) + 0.5, spread(random, 200)
    for distance in (Frechet, Kernel):
        null = permutation_null(distance(np.concatenate([far, real])), range(60), range(60, 260))
        assert null.p == 1 / 1001 and not null.within_prompts
        found = swap_test(distance(np.concatenate([far, near, real])), range(60), range(200))
        assert found.value > 0 and found.p == 1 / 10_001 and found.permutations == 10_000
        assert swap_test(distance(np.concatenate([near, far, real])), range(60), range(200)).value == pytest.approx(
            -found.value
        )


def test_of_very_many_clips_fewer_permutations_are_drawn(monkeypatch):
    random = np.random.default_rng(17)
    pooled = Kernel(np.concatenate([spread(random, 60), spread(random, 140)]))
    whole = permutation_null(pooled, range(60), range(60, 200))
    monkeypatch.setattr("avbench.statistics.uncertainty.MOST_EXCHANGED", 200 * 150)
    fewer = permutation_null(pooled, range(60), range(60, 200))
    assert (whole.permutations, fewer.permutations) == (1000, 150)
    assert fewer.p * 151 == pytest.approx(round(fewer.p * 151)), "a share of the draws, and of the measured one"
    assert abs(fewer.mean - whole.mean) < 0.5 * whole.sd and fewer.sd == pytest.approx(whole.sd, rel=0.3)
    monkeypatch.setattr("avbench.statistics.uncertainty.MOST_EXCHANGED", 200)
    assert permutation_null(pooled, range(60), range(60, 200)).permutations == 99


def swapped(pooled, pairs, real, draws=40):
    """The difference of two distances under random swaps, by its definition and by the derivative."""
    swaps = np.random.default_rng(9).random((draws, pairs)) < 0.5
    of_clips = pooled.influence(np.arange(2 * pairs), np.arange(2 * pairs, 2 * pairs + real))
    return _swaps(pooled, real, swaps), _signed_sums(of_clips[:pairs] - of_clips[pairs:], swaps)


def test_the_derivative_of_a_kernel_distance_leaves_nothing_out():
    clips = spread(np.random.default_rng(12), 80)
    for windows in (1, 4):
        metric = next(metric for metric in METRICS if metric.name == "kvd")
        sets = np.split(clips.reshape(-1, windows, 8) if windows > 1 else clips, [20 // windows, 40 // windows])
        one, other = swapped(distances.pooled(metric, *sets), 20 // windows, 40 // windows)
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("windows", [1, 4])
def test_the_difference_of_kernel_distances_is_read_off_the_derivative(windows):
    clips = spread(np.random.default_rng(16), 80).reshape(-1, windows, 8)
    metric = next(metric for metric in METRICS if metric.name == "kvd")
    pairs = 20 // windows
    pooled = distances.pooled(metric, *np.split(clips, [pairs, 2 * pairs]))
    measured = _swaps(pooled, 2 * pairs, np.zeros((1, pairs), dtype=bool))[0]
    computed = []
    pooled = replace(pooled, statistic=_Counted(pooled.statistic, computed))
    assert swap_test(pooled, range(pairs), range(2 * pairs)).value == pytest.approx(measured, rel=1e-9)
    left_out = pairs + min(pairs, GROUPS)
    assert sum(computed) == 2 * left_out, "for both models, without each prompt, and without the other real clips"


class _Counted:
    """A pooled distance that counts how often it is computed."""

    def __init__(self, pooled, computed):
        self._pooled, self._computed = pooled, computed

    def __getattr__(self, name):
        return getattr(self._pooled, name)

    def __call__(self, first, second):
        self._computed.append(len(first))
        return self._pooled(first, second)


@pytest.mark.parametrize("options", [{}, {"ddof": 0}, {"epsilon": 1e-2}])
@pytest.mark.parametrize(("n", "real"), [(60, 80), (60, 6), (7, 80)])
def test_the_derivative_of_a_frechet_distance_goes_with_the_distance(n, real, options):
    random = np.random.default_rng(13)
    pooled = Frechet(np.concatenate([spread(random, n), spread(random, n) + 0.1, 2 * spread(random, real)]), **options)
    one, other = swapped(pooled, n, real, draws=100)
    assert np.corrcoef(one, other)[0, 1] > (0.99 if n == 60 else 0.95)
    assert np.polyfit(other, one, 1)[0] == pytest.approx(1, abs=0.15 if n == 60 else 0.4)


@pytest.mark.parametrize("options", [{}, {"ddof": 0}, {"epsilon": 1e-2}])
def test_the_derivative_of_a_frechet_distance_is_that_of_models_that_hardly_differ(options):
    random = np.random.default_rng(18)
    a, real = spread(random, 14), 2 * spread(random, 12)
    b = a + 1e-3 * spread(random, 14)
    pooled = Frechet(np.concatenate([a, b, real]), **options)
    one, other = swapped(pooled, 14, 12)
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(one).max())


@pytest.mark.parametrize("options", [{}, {"ddof": 0}, {"epsilon": 1e-3}])
def test_the_derivative_of_a_frechet_distance_is_its_slope_by_the_weight_of_a_row(options):
    """Of rows whose directions differ a hundredfold in length, each counts half."""
    random, scales = np.random.default_rng(19), np.array([1.0, 0.1, 0.01])
    models, real = (
        random.standard_normal((12, 3)) * scales,
        1.5 * random.standard_normal((9, 3)) * scales + 0.2 * scales,
    )
    models -= models.mean(axis=0)
    ddof, ridge = options.get("ddof", 1), options.get("epsilon", 0) * np.eye(3)
    mean_real, of_real = real.mean(axis=0), np.cov(real, rowvar=False, ddof=ddof) + ridge

    def distance(weights):
        mean = weights @ models / 6
        rows = models - mean
        own = rows.T @ (weights[:, None] * rows) / (6 - ddof) + ridge
        shared = np.sqrt(np.linalg.eigvals(own @ of_real).real).sum()
        return np.sum((mean - mean_real) ** 2) + np.trace(own + of_real) - 2 * shared

    step = 1e-4 * np.eye(12)
    slopes = [(distance(0.5 + one) - distance(0.5 - one)) / 2e-4 for one in step]
    found = Frechet(np.concatenate([models, real]), **options).influence(np.arange(12), np.arange(12, 21))
    np.testing.assert_allclose(found, slopes, rtol=1e-6, atol=1e-7)


class Odd(Kernel):
    """A distance with a derivative that points the other way."""

    influence_is_exact = False

    def influence(self, models, real):
        return -super().influence(models, real)


@pytest.mark.usefixtures("swaps_alone")
def test_where_the_derivative_points_the_other_way_and_there_is_no_t_test_nothing_is_shown():
    random = np.random.default_rng(14)
    clips = np.concatenate([spread(random, 30) + 1, spread(random, 30), spread(random, 30)])
    assert swap_test(Odd(clips), range(30), range(30)).p == 1
    assert swap_test(Kernel(clips), range(30), range(30)).p < 0.001


def test_where_the_derivative_points_the_other_way_the_t_test_alone_counts():
    random = np.random.default_rng(14)
    for shift in (0.1, 1):
        clips = np.concatenate([spread(random, 30) + shift, spread(random, 30), spread(random, 30)])
        found = swap_test(Odd(clips), range(30), range(30))
        error, dof = _jackknife(Odd(clips), np.arange(30), np.arange(30))
        assert found.p == pytest.approx(2 * stats.t.sf(abs(found.value) / error, dof))
    assert swap_test(Kernel(clips), range(30), range(30)).p < 0.001


@pytest.mark.parametrize("shared", [0, 3, 4])
def test_the_jackknife_leaves_out_one_prompt_after_another(shared):
    """A prompt of the models goes together with the reference's clips of it; its other prompts go by themselves."""
    random = np.random.default_rng(21)
    a, b, real = (spread(random, 12) + shift for shift in (1, 0.5, 0))
    prompts = np.repeat(np.arange(6), 2)
    real_prompts = np.repeat(np.arange(6 - shared, 10 - shared), 3)

    def without(one):
        return _nearer(a[prompts != one], b[prompts != one], real[real_prompts != one])

    of_models = 5 * np.var([without(one) for one in range(6)])
    others = 4 - shared
    of_others = (others - 1) * np.var([without(one) for one in range(6, 6 + others)]) if others > 1 else 0.0
    error = np.sqrt(of_models + of_others)
    dof = error**4 / (of_models**2 / 5 + of_others**2 / max(1, others - 1))
    pooled = Frechet(np.concatenate([a, b, real]))
    assert _jackknife(pooled, prompts, real_prompts) == (pytest.approx(error, rel=1e-9), pytest.approx(dof, rel=1e-9))
    found = swap_test(pooled, prompts, real_prompts)
    assert found.error >= error * (1 - 1e-9) and found.dof == pytest.approx(dof, rel=1e-9)
    assert found.p >= 2 * stats.t.sf(abs(found.value) / error, dof) * (1 - 1e-9)


@pytest.mark.statistical
def test_the_error_is_the_spread_over_sets_of_prompts_that_models_and_reference_share():
    """Easy and hard prompts are so in every clip of them, of the models and of the reference."""
    random = np.random.default_rng(107)
    values, errors = [], []
    for _ in range(SIMULATED):
        of_prompt = random.choice([0.3, 1.5], (30, 1))
        a, b, real = of_prompt * random.standard_normal((3, 30, 4))
        found = swap_test(Frechet(np.concatenate([0.2 * a, 1.8 * b, real])), range(30), range(30), permutations=99)
        values.append(found.value)
        errors.append(found.error)
    assert 0.9 < np.mean(errors) / np.std(values) < 1.3, "1.44 if the reference's prompts were left out apart"


def test_p_is_the_larger_one_of_the_swaps_and_the_jackknife_whose_error_counts(monkeypatch):
    """The deviation over the swaps grows with the difference, and is no error of it."""
    larger = set()
    for seed in range(6):
        random = np.random.default_rng(seed)
        pooled = Kernel(np.concatenate([spread(random, 12) + 0.3 * seed, spread(random, 12), spread(random, 30)]))
        found = swap_test(pooled, range(12), range(30))
        error, dof = _jackknife(pooled, np.arange(12), np.arange(30))
        with monkeypatch.context() as patched:
            patched.setattr("avbench.statistics.uncertainty._jackknife", lambda *_: (0.0, 1.0))
            swaps = swap_test(pooled, range(12), range(30))
        by_error = 2 * stats.t.sf(abs(found.value) / error, dof)
        assert found.p == pytest.approx(max(swaps.p, by_error)) and found.error == pytest.approx(error)
        larger |= {("p", swaps.p > by_error), ("error", swaps.error > error)}
    assert len(larger) == 4, "either can be larger"


def test_a_distance_to_few_real_clips_is_not_tested():
    clips = spread(np.random.default_rng(24), 21)
    with pytest.raises(NotMeasurable, match=r"there are 10 and 1$"):
        swap_test(Kernel(clips), range(10), range(1))


def test_a_null_is_the_mean_and_spread_of_its_draws_and_counts_ties():
    """Half of the model's clips have their prompts in the reference, which is enough to exchange within prompts."""
    draws = np.array([1.0, 2 - 1e-11, 2 + 1e-11, 3.0, 7.0])  # two are equal to the measured 2, but for rounding

    def pooled(first, second):
        return np.array([2.0, *draws])[: len(first)]

    for higher, worse in ((False, 4), (True, 3)):
        null = permutation_null(pooled, [0, 1], [1, 2], higher_is_better=higher, permutations=5)
        assert (null.mean, null.sd, null.p) == pytest.approx((3, np.std(draws, ddof=1), (1 + worse) / 6))
        assert null.within_prompts


def _nearer(a, b, real):
    return frechet_distance(a, real) - frechet_distance(b, real)


def test_a_distance_that_cannot_be_computed_of_fewer_clips_is_tested_by_its_swaps_alone():
    """A distance of a package may raise anything, or return NaN, where a group is left out."""
    random = np.random.default_rng(23)
    whole = Kernel(np.concatenate([spread(random, 8) + 1, spread(random, 8), spread(random, 20)]))

    def of_eight(first, second):
        if first.shape[1] < 8:
            raise ValueError("too few")
        return whole(first, second)

    def or_nan(first, second):
        return whole(first, second) * (1.0 if first.shape[1] == 8 else np.nan)

    for pooled in (of_eight, or_nan):
        found = swap_test(pooled, range(8), range(20))
        assert found.p < 0.05 and found.error > 0


@pytest.mark.parametrize("prompts", [[0, 0], [0, 1], [0, 0, 0, 1]])
def test_where_a_group_has_nearly_all_clips_there_is_no_jackknife(prompts):
    random = np.random.default_rng(22)
    count = len(prompts)
    pooled = Neighbours(spread(random, 2 * count + 9), measure="recall", k=1)
    assert _jackknife(pooled, np.array(prompts), np.arange(9))[0] == 0
    found = swap_test(pooled, prompts, range(9))
    assert 0 < found.p <= 1 and found.dof is None


@pytest.mark.statistical
def test_models_that_are_equally_near_in_different_ways_are_told_apart_as_seldom():
    """One is off by a shift, the other has too little spread; swapped labels alone call one nearer in 40 % of cases."""
    scale = 1 / np.sqrt(np.arange(1, 17))
    random = np.random.default_rng(106)
    found = []
    for _ in range(SIMULATED):
        shifted, narrow = random.standard_normal((2, 48, 16)) * scale
        real = random.standard_normal((100, 16)) * scale
        pooled = Frechet(np.concatenate([shifted + 0.43 / 4, 0.7 * narrow, real]))
        found.append(swap_test(pooled, range(48), range(100), permutations=999))
    values = np.array([one.value for one in found])
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(SIMULATED), "they are equally near"
    share = np.mean([one.p <= 0.05 for one in found])
    assert share < 0.05 + 3 * np.sqrt(0.05 * 0.95 / SIMULATED)


@pytest.mark.usefixtures("swaps_alone")
def test_draws_stop_where_enough_are_extreme():
    random = np.random.default_rng(15)
    a, b, real = (spread(random, 30) for _ in range(3))
    alike = swap_test(directly(Kernel(np.concatenate([a, b, real]))), range(30), range(30))
    assert alike.permutations < 1000 and alike.p == ENOUGH_EXTREME / alike.permutations
    assert alike.permutations % 100, "the last that counts is extreme, wherever in its block it was drawn"
    apart = swap_test(directly(Kernel(np.concatenate([a + 1, b, real]))), range(30), range(30), permutations=300)
    assert apart.permutations == 300 and apart.p == 1 / 301


def test_where_higher_is_better_few_is_bad():
    values = iter([np.array([0.2]), np.linspace(0.3, 0.9, 9)])

    def pooled(first, second):
        return np.concatenate(list(values))[: len(first)]

    null = permutation_null(pooled, range(3), range(5), higher_is_better=True, permutations=9)
    assert null.p == pytest.approx(1 / 10)


def test_equal_models_differ_by_nothing():
    clips = spread(np.random.default_rng(3), 20)
    found = swap_test(Frechet(np.concatenate([clips, clips, clips + 1])), range(20), range(20))
    assert found.value == 0 and found.p == 1
    with pytest.raises(NotMeasurable, match=r"at least 2 clips that both models have.* there are 1 and 18"):
        swap_test(Frechet(clips), range(1), range(18))


def test_clips_change_places_within_their_prompt():
    strata = numbered(["a", "b", "a", "c", "c", "b", "a", "c"])
    random = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        order = _exchanged(strata, 4, random)
        assert sorted(order) == list(range(8))
        assert sorted(strata[order[:4]]) == [0, 0, 1, 2]
        seen.add(tuple(sorted(order[:4])))
    assert len(seen) == 3 * 2 * 3, "every way of choosing occurs"


def test_the_same_question_has_the_same_answer():
    clips = spread(np.random.default_rng(5), 50)
    assert permutation_null(Frechet(clips), range(20), range(30)) == permutation_null(
        Frechet(clips), range(20), range(30)
    )


def test_the_floor_falls_with_n_and_is_what_real_clips_score():
    random = np.random.default_rng(6)
    clips = random.standard_normal((240, 30))
    floors = [floor(Frechet(clips), range(240), n) for n in (10, 30, 100)]
    assert floors[0] > floors[1] > floors[2] > 0
    score = frechet_distance(clips[:40], clips[40:])
    assert score == pytest.approx(floor(Frechet(clips[40:]), range(200), 40), rel=0.15)
    for n in (1, 121):
        with pytest.raises(NotMeasurable, match=f"a floor at {n} clips needs"):
            floor(Frechet(clips), range(240), n)


def test_a_floor_by_prompts_is_that_of_a_run_with_a_clip_of_each_prompt():
    random = np.random.default_rng(20)
    prompts = np.repeat(np.arange(60), 4)
    clips = 3 * random.standard_normal((60, 12))[prompts] + random.standard_normal((240, 12))
    run = clips[::4] - clips[1::4] + clips[2::4]  # of the same prompts, not of the same clips
    score = frechet_distance(run, clips)
    evenly, anyhow = (floor(Frechet(clips), given, 60) for given in (prompts, range(240)))
    assert abs(evenly - score) < abs(anyhow - score)
    assert evenly < anyhow
    order = _evenly(numbered(prompts), random)
    assert len(set(prompts[order[:60]])) == 60


def collapsed(random, n):
    """Clips that are all one clip: a distance of two such sets is 0, and nothing but rounding is left of it."""
    return np.repeat(3 * random.standard_normal((1, 400)), n, axis=0)


@pytest.mark.parametrize("distance", [Frechet, Kernel])
@pytest.mark.parametrize("draw", [lambda random, n: 7 * random.standard_normal((n, 400)), collapsed, spread])
def test_rounding_does_not_decide_the_p_value_of_identical_sets(distance, draw):
    for seed in range(2):
        clips = draw(np.random.default_rng(seed), 24)
        null = permutation_null(distance(np.concatenate([clips, clips])), range(24), range(24), permutations=200)
        assert null.within_prompts and null.p == 1
        again = clips[np.random.default_rng(seed).permutation(24)]  # the same clips, under other prompts' names
        if distance is Frechet:  # whose value is 0, the least there is
            assert permutation_null(distance(np.concatenate([clips, again])), range(24), range(24, 48)).p == 1


@pytest.mark.parametrize("distance", [Frechet, Kernel])
def test_rounding_does_not_decide_between_models_whose_clips_are_the_same(distance):
    for seed in range(2):
        random = np.random.default_rng(seed)
        clips, real = (7 * random.standard_normal((24, 400)) for _ in range(2))
        found = swap_test(distance(np.concatenate([clips, clips, real])), range(24), range(24), permutations=200)
        assert (found.value, found.p, found.error) == (0, 1, 0)


def test_a_metric_compares_with_the_column_that_it_names_of_the_reference():
    metric = next(one for one in METRICS if one.reference_column not in ("", one.column))
    columns = {metric.column: np.zeros((3, 2)), metric.reference_column: np.ones((3, 2))}
    real = SimpleNamespace(columns=lambda protocol, subset: (columns, np.arange(3)))
    assert distances.real_embedding(metric, real, None, None).tolist() == [[1, 1]] * 3
    with pytest.raises(NotMeasurable, match="other frames are taken"):
        distances.null(metric, np.zeros((3, 2)), list("abc"), np.ones((3, 2)), np.array(list("abc")))


def test_a_share_that_is_too_low_has_a_low_p_and_a_distance_that_is_too_high():
    known = {metric.name: metric for metric in METRICS}
    random, names = np.random.default_rng(25), [f"p{k}" for k in range(40)]
    far, real = random.standard_normal((40, 5)) + 3, random.standard_normal((40, 5))
    for name in ("coverage", "kvd"):
        assert distances.null(known[name], far, names, real, np.array(names)).p == 1 / 1001


def test_the_floor_of_a_metric_is_that_of_as_many_clips_as_the_model_has():
    metric = next(one for one in METRICS if one.name == "fvd")
    random, prompts = np.random.default_rng(26), np.arange(60)
    x, y = random.standard_normal((10, 4)), random.standard_normal((60, 4))
    assert distances.floor(metric, x, y, prompts) == pytest.approx(floor(Frechet(y), prompts, 10))
    assert distances.floor(metric, x, y[:19], prompts[:19]) is None, "the reference is too small"
    windows = np.zeros((10, 2, 4)), np.zeros((60, 3, 4))  # of longer real clips more windows
    assert distances.floor(metric, *windows, prompts) is None
    with pytest.raises(NotMeasurable, match="other frames are taken"):
        distances.null(metric, windows[0], range(10), windows[1], prompts)


def test_two_models_are_compared_on_the_clips_of_both_in_the_order_of_their_keys():
    metric = next(one for one in METRICS if one.name == "kvd")
    random = np.random.default_rng(27)
    keys = [Key("s", f"p{k:02}", 0) for k in range(24)]
    a, b, real = random.standard_normal((24, 5)) + 0.3, random.standard_normal((24, 5)), random.standard_normal((30, 5))
    order, prompts = random.permutation(20), np.arange(30)
    reference = SimpleNamespace(columns=lambda protocol, subset: ({metric.column: real}, prompts))
    sides = ([keys[k] for k in order], {metric.column: a[order]}), (keys[4:], {metric.column: b[4:]})
    found = distances.difference(metric, *sides, reference, None, None)
    both = [key.prompt for key in keys[4:20]]
    assert found == swap_test(distances.pooled(metric, a[4:20], b[4:20], real), both, prompts)
    assert found.pairs == 16


def test_the_metrics_of_the_table_say_it_too():
    known = {metric.name: metric for metric in METRICS}
    clips, names = 7 * np.random.default_rng(0).standard_normal((24, 400)), [f"p{k}" for k in range(24)]
    for name in ("kvd", "fvd", "motion_frechet"):
        assert distances.null(known[name], clips, names, clips.copy(), np.array(names)).p == 1
    both = np.concatenate([clips, clips]).astype(float)
    for name, pooled in (("fvd", Frechet(both)), ("kvd", Kernel(both))):
        assert distances.pooled(known[name], clips, clips).rounding == pooled.rounding > 0
