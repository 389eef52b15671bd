"""Distances agree with the matrix root, with closed forms and definitions, and with themselves."""

from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch

from avbench.core import InputError, Moments, NotMeasurable
from avbench.metrics.distances import _finite, _OfClips, embedding, pooled
from avbench.metrics.evaluate import chosen_metrics
from avbench.metrics.frechet import (
    Frechet,
    _sums_of_lengths,
    _sums_of_roots,
    frechet_distance,
    frechet_infinity,
    frechet_of_moments,
)
from avbench.metrics.kernel import Kernel, kernel_distance
from avbench.metrics.neighbours import (
    Neighbours,
    near_copies,
    nearest,
    nearness,
    neighbour_share,
    require_siblings,
)


def features(seed, n, d, scale=1.0, shift=0.0):
    random = np.random.default_rng(seed)
    return random.standard_normal((n, d)) @ random.standard_normal((d, d)) * scale + shift


def by_matrix_root(x, y, ddof):
    a, b = (np.cov(z, rowvar=False, ddof=ddof) for z in (x, y))
    gap = x.mean(axis=0) - y.mean(axis=0)
    return gap @ gap + np.trace(a) + np.trace(b) - 2 * np.trace(scipy.linalg.sqrtm(a @ b)).real


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize(("n", "m"), [(200, 300), (40, 35)])
def test_it_agrees_with_the_matrix_root(n, m, ddof):
    x, y = features(1, n, 12), features(2, m, 12, scale=1.5, shift=0.3)
    assert frechet_distance(x, y, ddof=ddof) == pytest.approx(by_matrix_root(x, y, ddof), rel=1e-6)


def test_fewer_clips_than_dimensions_agree_with_the_matrix_root_of_the_small_side():
    # tr (Σx Σy)^½ from an n × n matrix: the nonzero eigenvalues of Xcᵀ Xc Ycᵀ Yc are those of Xc Ycᵀ Yc Xcᵀ.
    x, y = features(3, 9, 30), features(4, 14, 30)
    cx, cy = x - x.mean(axis=0), y - y.mean(axis=0)
    small = cx @ cy.T @ cy @ cx.T / (8 * 13)
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(small), 0)).sum()
    gap = x.mean(axis=0) - y.mean(axis=0)
    right = gap @ gap + (cx**2).sum() / 8 + (cy**2).sum() / 13 - 2 * shared
    assert frechet_distance(x, y) == pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(20, 60), (60, 20), (20, 20), (2, 5), (50, 1)])
def test_a_set_is_no_distance_from_itself(n, d):
    x = features(5, n, d, shift=100.0)
    trace = x.var(axis=0, ddof=1).sum()
    assert abs(frechet_distance(x, x)) < 1e-6 * trace
    assert abs(frechet_distance(x, x[::-1])) < 1e-6 * trace


def test_a_shift_of_one_set_is_the_squared_shift():
    x = features(6, 80, 10)
    shift = np.arange(10.0)
    assert frechet_distance(x, x + shift) == pytest.approx(shift @ shift, rel=1e-9)


def test_a_scaled_set_has_the_closed_form():
    # Gaussians with covariances Σ and s²Σ and one mean are (1 − s)² tr Σ apart.
    x = features(7, 80, 10)
    x -= x.mean(axis=0)
    assert frechet_distance(x, 3 * x) == pytest.approx(4 * x.var(axis=0, ddof=1).sum(), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(50, 70), (5, 70), (5, 6)])
def test_it_is_symmetric(n, m):
    x, y = features(8, n, 20), features(9, m, 20)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-9)


def test_float32_features_far_from_zero_keep_their_distance():
    x = features(10, 60, 8).astype(np.float32) + np.float32(1000)
    y = features(11, 60, 8).astype(np.float32) + np.float32(1000)
    assert frechet_distance(x, y) == pytest.approx(by_matrix_root(x.astype(float), y.astype(float), 1), rel=1e-6)


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("fall", [0.0, 0.5, 1.0, 1.2, 3.0])
@pytest.mark.parametrize("n", [61, 400])
def test_the_cholesky_factor_gives_the_value_of_the_roots(monkeypatch, n, fall, near):
    random = np.random.default_rng(11)
    x, y = random.standard_normal((2, n, 60))
    y = x + 0.01 * y if near else 1.1 * y
    mixed = np.linalg.qr(random.standard_normal((60, 60)))[0] * np.arange(1, 61) ** -fall
    x, y = x @ mixed.T + 5, y @ mixed.T + 5.1
    monkeypatch.setattr("avbench.metrics.frechet._shared_by_cholesky", lambda *_: None)
    by_roots = frechet_distance(x, y)
    monkeypatch.undo()
    assert frechet_distance(x, y) == pytest.approx(by_roots, rel=1e-9)
    flat = np.concatenate([x[:5]] * 20)  # more clips than dimensions, and all in four of them
    monkeypatch.setattr("avbench.metrics.frechet._shared_by_cholesky", lambda *_: None)
    by_roots = frechet_distance(flat, y)
    monkeypatch.undo()
    assert frechet_distance(flat, y) == pytest.approx(by_roots, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(30, 50), (50, 30), (24, 24), (1, 9)])
def test_the_sum_of_lengths_is_that_of_the_singular_values(n, m):
    random = np.random.default_rng(12)
    blocks = []
    for rank, fall in ((60, 0.0), (60, 2.0), (60, 6.0), (5, 0.0)):  # of the last ones roots would be inexact
        block = (random.standard_normal((n, rank)) * np.arange(1, rank + 1) ** -fall) @ random.standard_normal(
            (rank, m)
        )
        block -= block.mean(axis=0)
        block -= block.mean(axis=1, keepdims=True)
        blocks.append(block)
    lengths = [scipy.linalg.svdvals(block).sum() for block in blocks]
    assert _sums_of_lengths(np.stack(blocks)) == pytest.approx(lengths, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize(
    ("least", "exact"), [(1e-6, True), (1e-10, True), (1e-13, False), (1e-20, False), (-1e-20, False)]
)
def test_a_sum_of_roots_is_exact_where_rounding_of_an_eigenvalue_hardly_moves_it(least, exact):
    """Rounding moves each eigenvalue by about 2e-16 of the largest."""
    (total,), (found,) = _sums_of_roots(np.array([[least, 0.25, 4.0]]))
    moved = np.sqrt(max(least, 0) + 4 * np.finfo(float).eps) - np.sqrt(max(least, 0))
    assert found == exact == (moved < 1e-10 * 2.5)
    if exact:
        assert total == pytest.approx(np.sqrt(least) + 0.5 + 2, rel=1e-15)


def test_bad_features_are_refused():
    good = features(12, 10, 4)
    bad = good.copy()
    bad[2, 1] = np.nan
    with pytest.raises(InputError, match="1 values that are NaN"):
        frechet_distance(good, bad)
    with pytest.raises(InputError, match="4 and 3 dimensions"):
        frechet_distance(good, good[:, :3])
    with pytest.raises(InputError, match="must be"):
        frechet_distance(good[0], good)
    with pytest.raises(NotMeasurable, match="at least 2 clips in each set and one has 1"):
        frechet_distance(good, good[:1])


@pytest.mark.parametrize(
    "given", [torch.zeros(5, 3, dtype=torch.bfloat16), torch.zeros(5, 3, requires_grad=True), [[1.0], [1.0, 2.0]]]
)
def test_what_is_no_array_is_refused_with_how_to_make_one(given):
    with pytest.raises(InputError, match=r"by \.detach\(\)\.float\(\)\.cpu\(\)\.numpy\(\)"):
        frechet_distance(given, given)


def test_moments_give_the_same_distance():
    x, y = features(21, 60, 8), features(22, 70, 8, shift=0.4)
    for options in ({}, {"ddof": 0}, {"ddof": 0, "epsilon": 1e-3}):
        of_moments = frechet_of_moments(Moments.of(x), Moments.of(y), **options)
        assert of_moments == pytest.approx(frechet_distance(x, y, **options), rel=1e-9)
    with pytest.raises(InputError, match="8 and 7 dimensions"):
        frechet_of_moments(Moments.of(x), Moments.of(y[:, :7]))
    for sides in ((x, y[:1]), (x[:1], y)):
        with pytest.raises(NotMeasurable, match="at least 2 clips in each set and one has 1"):
            frechet_of_moments(*map(Moments.of, sides))


@pytest.mark.parametrize(("n", "m"), [(60, 70), (6, 9), (6, 70)])
def test_epsilon_is_added_to_both_diagonals(n, m):
    x, y = features(23, n, 8), features(24, m, 8, shift=0.4)
    a, b = (np.cov(z, rowvar=False) + 0.1 * np.eye(8) for z in (x, y))
    gap = x.mean(axis=0) - y.mean(axis=0)
    right = gap @ gap + np.trace(a) + np.trace(b) - 2 * np.trace(scipy.linalg.sqrtm(a @ b)).real
    assert frechet_distance(x, y, epsilon=0.1) == pytest.approx(right, rel=1e-6)


def parts(count, n, m, draws=6, seed=0):
    random = np.random.default_rng(seed)
    order = np.stack([random.permutation(count) for _ in range(draws)])
    return order[:, :n], order[:, n : n + m]


@pytest.mark.parametrize("options", [{}, {"ddof": 0}, {"epsilon": 1e-3}])
@pytest.mark.parametrize(("n", "m", "d"), [(12, 15, 40), (5, 60, 20), (60, 70, 20), (60, 5, 20), (30, 31, 30)])
def test_draws_of_pooled_rows_are_the_distance_of_their_features(n, m, d, options):
    pool = np.concatenate([features(25, n, d), features(26, m, d, shift=0.2)])
    first, second = parts(n + m, n, m)
    right = [frechet_distance(pool[a], pool[b], **options) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(Frechet(pool, **options)(first, second), right, rtol=1e-6)
    # and where the two parts are not all there is
    right = [frechet_distance(pool[a], pool[b[:4]], **options) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(Frechet(pool, **options)(first, second[:, :4]), right, rtol=1e-6)


@pytest.mark.parametrize(("n", "m"), [(12, 15), (40, 7)])
def test_draws_of_a_kernel_distance_are_the_distance_of_their_features(monkeypatch, n, m):
    monkeypatch.setattr("avbench.metrics.kernel._TILE", 8)
    pool = np.concatenate([features(36, n, 20), features(37, m, 20, shift=0.2)])
    first, second = parts(n + m, n, m)
    right = [kernel_distance(pool[a], pool[b]) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(Kernel(pool)(first, second), right, rtol=1e-9)
    # and where the two parts are not all there is
    right = [kernel_distance(pool[a], pool[b[:4]]) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(Kernel(pool)(first, second[:, :4]), right, rtol=1e-9)


def test_draws_hold_for_rows_that_are_alike():
    pool = np.repeat(features(27, 6, 30), 5, axis=0)  # six different rows, 30 clips
    first, second = parts(30, 12, 18)
    right = [frechet_distance(pool[a], pool[b]) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(Frechet(pool)(first, second), right, rtol=1e-6, atol=1e-6 * pool.var(axis=0).sum())


def test_what_rounding_can_move_depends_on_the_variance_and_not_on_the_number_of_rows():
    pool = features(27, 30, 5, shift=100.0)
    assert Frechet(np.repeat(pool, 4, axis=0)).rounding == pytest.approx(Frechet(pool).rounding)
    assert Frechet(3 * pool).rounding == pytest.approx(9 * Frechet(pool).rounding)
    part = np.arange(30)[None]
    assert abs(Frechet(pool)(part, part[:, ::-1])[0]) < Frechet(pool).rounding < 1e-3 * pool.var(axis=0).sum()


def test_draws_hold_where_few_directions_have_most_of_the_variance():
    """What lies in the others is a thousandth of a clip's length, and most of what sets apart these two sets."""
    random = np.random.default_rng(23)
    pool = random.standard_normal((16, 40)) * np.r_[1.0, 1.0, np.full(38, 5e-3)]
    pool[:, 2:] += 0.01 * (np.arange(16) < 8)[:, None]
    first, second = np.arange(8)[None], np.arange(8, 16)[None]
    pool[8:, :2] = pool[:8, :2]
    right = frechet_distance(pool[:8], pool[8:])
    assert 1e-3 < right < 1e-2
    assert Frechet(pool)(first, second) == pytest.approx([right], rel=1e-4)


def test_infinity_needs_five_clips_a_dimension_and_then_finds_the_truth():
    x, y = features(28, 300, 4), features(28, 300, 4)[::-1]
    assert abs(frechet_infinity(x, y)) < 0.05 * x.var(axis=0).sum()
    assert frechet_infinity(x, y, ddof=0) != frechet_infinity(x, y)
    random = np.random.default_rng(0)
    values = []
    for _ in range(20):
        a, b = random.standard_normal((2, 200, 20))
        values.append((frechet_distance(a, b + 0.5), frechet_infinity(a, b + 0.5)))
    raw, infinite = np.mean(values, axis=0)
    assert abs(infinite - 5) < 0.25 * abs(raw - 5), "20 dimensions shifted by 0.5 are 5 apart"
    with pytest.raises(NotMeasurable, match=r"needs 100 in each set \(5 per dimension\) and one has 99"):
        frechet_infinity(features(1, 99, 20), features(2, 100, 20))
    assert np.isfinite(frechet_infinity(features(1, 100, 20), features(2, 100, 20)))


def test_the_range_of_infinity_has_the_negative_estimates():
    """Of two sets of one distribution, whose distance is 0."""
    found = [frechet_infinity(*np.random.default_rng(seed).standard_normal((2, 200, 20))) for seed in range(9)]
    (metric,) = chosen_metrics(["fvd_infinity"])
    assert min(found) < 0 and metric.bounds == (None, None)


def test_infinity_is_where_a_line_through_sixty_random_subsets_of_both_sets_ends(monkeypatch):
    """Fifteen shares of the clips, whose inverses rise evenly from 1 to 2.5, are drawn four times each."""
    x, y, drawn = features(29, 100, 2), features(30, 60, 2, shift=9.0), []

    def measured(a, b, *, ddof):
        drawn.append((a, b))
        return 7.0 + 90.0 / len(a) + 4000.0 / len(a) ** 2

    monkeypatch.setattr("avbench.metrics.frechet.frechet_distance", measured)
    found = frechet_infinity(x, y)
    inverse = np.repeat([1 + 1.5 * k / 14 for k in range(15)], 4)
    sizes = [round(100 / one) for one in inverse]
    assert [len(a) for a, _ in drawn] == sizes and [len(b) for _, b in drawn] == [round(60 / one) for one in inverse]
    for whole, parts in ((x, [a for a, _ in drawn]), (y, [b for _, b in drawn])):
        rows = [{*map(tuple, part)} for part in parts]
        assert all(len(one) == len(part) and one <= {*map(tuple, whole)} for one, part in zip(rows, parts, strict=True))
        assert rows[-1] != rows[-2], "drawn anew"
    values = np.array([7 + 90 / n + 4000 / n**2 for n in sizes])
    slope = np.cov(inverse, values)[0, 1] / np.var(inverse, ddof=1)
    assert found == pytest.approx(values.mean() - slope * inverse.mean())


def test_the_kernel_distance_is_the_textbooks():
    x, y = features(31, 9, 5), features(32, 11, 5)

    def kernel(a, b):
        return (a @ b / 5 + 1) ** 3

    within = [sum(kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) for z in (x, y)]
    between = sum(kernel(a, b) for a in x for b in y)
    assert kernel_distance(x, y) == pytest.approx(within[0] / 72 + within[1] / 110 - 2 * between / 99, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(6, 7), (9, 11), (30, 4)])
def test_a_kernel_in_blocks_is_the_kernel(monkeypatch, n, m):
    pool = np.concatenate([features(33, n, 5), features(34, m, 5, shift=0.2)])
    first, second = parts(n + m, n, m)
    whole = Kernel(pool)(first, second), Kernel(pool)(first, second[:, :-1])
    models = first[0][: n // 2 * 2]
    influence = Kernel(pool).influence(models, second[0])
    monkeypatch.setattr("avbench.metrics.kernel._TILE", 4)
    np.testing.assert_allclose(Kernel(pool)(first, second), whole[0], rtol=1e-12)
    np.testing.assert_allclose(Kernel(pool)(first, second[:, :-1]), whole[1], rtol=1e-12)
    np.testing.assert_allclose(Kernel(pool).influence(models, second[0]), influence, rtol=1e-12)


def test_the_quadratic_kernel_is_jedis():
    x, y = features(31, 9, 5), features(32, 11, 5)

    def kernel(a, b):
        return (a @ b / 5) ** 2

    within = [sum(kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) for z in (x, y)]
    between = sum(kernel(a, b) for a in x for b in y)
    right = within[0] / (9 * 8) + within[1] / (11 * 10) - 2 * between / (9 * 11)
    assert kernel_distance(x, y, degree=2, coef0=0.0) == pytest.approx(right, rel=1e-12)


def test_the_kernel_distance_is_centred_and_keeps_its_sign():
    random = np.random.default_rng(3)
    values = [kernel_distance(*random.standard_normal((2, 40, 6))) for _ in range(200)]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)
    far = kernel_distance(random.standard_normal((40, 6)), random.standard_normal((40, 6)) + 1)
    assert far > 5 * np.std(values)


def balls(x, y, k):
    """Who lies in whose ball, by hand."""
    apart = np.linalg.norm(x[:, None] - y[None], axis=-1)
    radii = [np.sort(np.linalg.norm(z[:, None] - z[None], axis=-1), axis=1)[:, k] for z in (x, y)]
    return apart <= radii[1], apart <= radii[0][:, None]


def test_shares_of_neighbours_are_the_definitions():
    x, y = features(33, 30, 3), features(34, 40, 3, shift=1.0)
    in_real, in_model = balls(x, y, 4)
    assert neighbour_share(x, y, measure="precision", k=4) == in_real.any(axis=1).mean()
    assert neighbour_share(x, y, measure="coverage", k=4) == in_real.any(axis=0).mean()
    assert neighbour_share(x, y, measure="density", k=4) == pytest.approx(in_real.sum() / (4 * 30))
    assert neighbour_share(x, y, measure="recall", k=4) == in_model.any(axis=0).mean()
    with pytest.raises(NotMeasurable, match="more than 4; one set has 4"):
        neighbour_share(x, y[:4], measure="recall", k=4)


@pytest.mark.parametrize(
    ("measure", "share"), [("precision", 1 / 2), ("recall", 2 / 4), ("density", 1 / 2), ("coverage", 1 / 4)]
)
def test_the_edge_belongs_to_a_neighbourhood(measure, share):
    """Balls of the real clips reach 1, those of the model's 2: that at 4 holds 2 and 3, and lies on the edge of 3's."""
    real, model = np.array([[0.0], [1], [2], [3]]), np.array([[4.0], [6]])
    assert neighbour_share(model, real, measure=measure, k=1) == share


def test_as_near_as_some_real_clips_is_no_nearer_than_they_are():
    real = np.array([[0.0], [1], [2], [4]])  # 1, 1, 1 and 2 from their neighbours
    assert nearness(np.array([0.5, 1.0, 1.5, 2.0]), real).tolist() == [1 / 5, 4 / 5, 4 / 5, 1]
    enough = np.random.default_rng(5).standard_normal((99, 4))
    assert near_copies(enough[:3], enough).tolist() == [1, 1, 1], "of 99 real clips a copy is exactly 1 %"


@pytest.mark.parametrize("measure", ["precision", "recall", "density", "coverage"])
def test_draws_of_shares_are_the_shares_of_their_features(measure):
    pool = np.concatenate([features(40, 12, 3), features(41, 15, 3, shift=0.5)])
    first, second = parts(27, 12, 15)
    right = [neighbour_share(pool[a], pool[b], measure=measure, k=3) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(Neighbours(pool, measure=measure, k=3)(first, second), right)


def test_a_model_with_one_clip_to_show_has_precision_without_recall():
    y = features(35, 60, 3)
    x = y[:1] + 1e-3 * features(36, 40, 3)
    assert neighbour_share(x, y, measure="precision", k=3) == 1
    assert neighbour_share(x, y, measure="recall", k=3) < 0.1
    assert neighbour_share(x, y, measure="coverage", k=5) < 0.3


def test_near_copies_are_flagged_and_real_clips_hardly_ever():
    random = np.random.default_rng(4)
    real, fresh = random.standard_normal((300, 10)), random.standard_normal((400, 10))
    assert near_copies(fresh, real).mean() < 0.03
    copies = real[:20] + 1e-3 * random.standard_normal((20, 10))
    assert near_copies(copies, real).tolist() == [1] * 20
    require_siblings(["a", "b"], ["a", "a", "b"])
    require_siblings(["a"], ["b", "c"])
    with pytest.raises(NotMeasurable, match="the reference has one clip of each prompt"):
        require_siblings(["a", "b", "c"], ["a", "b", "b", "c"])
    index, apart = nearest(copies, real)
    assert index.tolist() == list(range(20)) and apart.max() < 0.01
    usual = nearness(nearest(fresh, real)[1], real)
    assert 0.4 < usual.mean() < 0.6 and nearness(np.zeros(1), real)[0] == pytest.approx(1 / 301)
    with pytest.raises(NotMeasurable, match="99 real clips, not 50"):
        near_copies(fresh, real[:50])


@pytest.mark.parametrize(("real", "share"), [(99, 2 / 100), (199, 2 / 200)])
def test_real_clips_are_flagged_as_often_as_they_are_one_of_the_nearest_two(real, share):
    random = np.random.default_rng(7)
    draws = [(random.standard_normal((100, 4)), random.standard_normal((real, 4))) for _ in range(300)]
    found = [near_copies(fresh, known).mean() for fresh, known in draws]
    assert np.mean(found) == pytest.approx(share, abs=4 * np.std(found) / np.sqrt(300)) and np.std(found) < 0.03


def test_nearest_clips_in_blocks_are_the_nearest_clips(monkeypatch):
    x, y = features(38, 23, 5), features(39, 150, 5)
    whole = *nearest(x, y), nearness(nearest(x, y)[1], y)
    apart = np.linalg.norm(x[:, None] - y[None], axis=-1)
    assert whole[0].tolist() == apart.argmin(axis=1).tolist()
    monkeypatch.setattr("avbench.metrics.neighbours._HELD", 600)  # four rows
    for one, other in zip((*nearest(x, y), nearness(nearest(x, y)[1], y)), whole, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_embedding_is_a_row_or_windows_of_rows_for_each_clip():
    columns = {"number": np.arange(3.0), "rows": np.ones((3, 2)), "windows": np.ones((3, 4, 2))}
    assert [embedding(columns, name, "the run").shape for name in columns] == [(3, 1), (3, 2), (3, 4, 2)]
    columns |= {"uneven": np.array([np.ones(1), np.ones(2)], dtype=object), "frames": np.ones((3, 4, 2, 2))}
    for name in ("uneven", "frames"):
        with pytest.raises(NotMeasurable, match=f"'{name}' of the run is no embedding: .* of one length for all clips"):
            embedding(columns, name, "the run")
    with pytest.raises(NotMeasurable, match="the run has no column 'other'; it has number, rows, windows, uneven"):
        embedding(columns, "other", "the run")
    with pytest.raises(NotMeasurable, match="it has nothing"):
        embedding({}, "rows", "the run")


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 2), (3, 5, 2)])
def test_embeddings_of_other_widths_or_windows_are_not_pooled(shape):
    (fvd,) = chosen_metrics(["fvd"])
    for one in (np.ones((3, 2)), np.ones((3, 6, 2))):
        with pytest.raises(InputError, match=r"^fvd: embeddings of shapes \(.*\) and \(.*\) cannot be compared"):
            pooled(fvd, one, np.ones(shape))


@pytest.mark.parametrize("returned", [np.ones(1), [1.0], "1", 1j, None, np.nan, -np.inf, np.ma.masked])
def test_a_distance_is_one_finite_number(returned):
    assert [_finite("a:b", one) for one in (np.float32(0.5), np.ones(()), 2, True)] == [0.5, 1, 2, 1]
    with pytest.raises(ValueError, match=r"^a:b returned .*; it must return one finite number"):
        _finite("a:b", returned)


@pytest.mark.parametrize(
    "returned", [np.ones(1), np.ones((2, 1)), ["1", "2"], [1.0, np.inf], np.ma.array([1, 2], mask=[0, 1])]
)
def test_a_pooled_distance_is_one_finite_number_for_each_draw(returned):
    draws = np.zeros((2, 3), int)
    assert _OfClips(lambda *_: [1, 2], 1, "a:B")(draws, draws).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"^a:B did not return one finite number for each of 2 draws"):
        _OfClips(lambda *_: returned, 1, "a:B")(draws, draws)


def test_every_distance_refuses_what_it_cannot_measure():
    good = features(12, 10, 4)
    bad = good.copy()
    bad[2, 1] = np.inf
    for distance in (frechet_distance, kernel_distance, partial(neighbour_share, measure="recall", k=2), near_copies):
        with pytest.raises(InputError, match="NaN or infinite"):
            distance(good, np.repeat(bad, 20, axis=0))
        with pytest.raises(InputError, match="4 and 3 dimensions"):
            distance(good, np.repeat(good[:, :3], 20, axis=0))
