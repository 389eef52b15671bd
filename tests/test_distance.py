"""The Fréchet distance agrees with the matrix root, with closed forms, and with itself."""

import numpy as np
import pytest
import scipy.linalg

from avbench.core import InputError, NotMeasurable
from avbench.metrics.distance import frechet_distance, fvd, fvd_floor


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


def test_fvd_is_the_distance_of_logits():
    x, y = features(13, 12, 6), features(14, 15, 6)
    assert fvd({"logits": x}, {"logits": y}) == frechet_distance(x, y)
    with pytest.raises(NotMeasurable, match="no clip has I3D logits"):
        fvd({}, {"logits": y})


def test_the_floor_falls_with_n_and_repeats():
    reference = {"logits": features(15, 200, 30)}
    floors = [fvd_floor(reference, n) for n in (10, 30, 100)]
    assert floors[0] > floors[1] > floors[2] > 0
    assert fvd_floor(reference, 30) == floors[1]


def test_the_floor_is_what_clips_of_the_reference_score():
    logits = features(16, 240, 30)
    floor = fvd_floor({"logits": logits[40:]}, 40)
    assert fvd({"logits": logits[:40]}, {"logits": logits[40:]}) == pytest.approx(floor, rel=0.15)
    assert fvd({"logits": logits[:40] + 2}, {"logits": logits[40:]}) > 1.1 * floor


def test_a_floor_by_prompts_is_that_of_a_run_with_a_clip_of_each_prompt():
    random = np.random.default_rng(20)
    prompts = np.repeat(np.arange(60), 4)
    logits = 3 * random.standard_normal((60, 12))[prompts] + random.standard_normal((240, 12))
    run = logits[::4] - logits[1::4] + logits[2::4]  # of the same prompts, not of the same clips
    score = fvd({"logits": run}, {"logits": logits})
    evenly, anyhow = (fvd_floor({"logits": logits}, 60, given) for given in (prompts, None))
    assert abs(evenly - score) < abs(anyhow - score)
    assert evenly < anyhow


def test_a_small_reference_has_no_floor():
    reference = {"logits": features(17, 20, 4)}
    assert fvd_floor(reference, 10) > 0
    for n in (11, 1):
        with pytest.raises(NotMeasurable, match=f"a floor at {n} clips needs"):
            fvd_floor(reference, n)
