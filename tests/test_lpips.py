"""Consecutive LPIPS is the lpips package's own number, with features computed once a frame."""

import numpy as np
import pytest
import torch

from avbench.core import Clip, InputError, NotMeasurable
from avbench.features import lpips as feature_module
from avbench.features.lpips import ConsecutiveLPIPS
from avbench.metrics.perceptual import lpips_consecutive

BLACK_WHITE = 0.8140146732330322
"""README of github.com/JunyaoHu/common_metrics_on_video_quality, by its author; see golden/fvd_black_white.json."""


@pytest.fixture(scope="module")
def feature():
    return ConsecutiveLPIPS()


def noise(seed, frames, height=64, width=80):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def packages_own(feature, a, b):
    """The lpips package's forward, pair by pair."""
    tensors = [torch.from_numpy(x.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2) for x in (a, b)]
    with torch.inference_mode():
        pairs = zip(*(t.split(1) for t in tensors), strict=True)
        return np.array([feature._network(x, y).item() for x, y in pairs])


def test_black_against_white_is_the_published_number(feature):
    black = np.zeros((1, 64, 64, 3), np.uint8)
    assert feature.distance(black, black + 255) == pytest.approx(BLACK_WHITE, abs=1e-3)


@pytest.mark.parametrize("frames", [2, 4, 5, 9])
def test_features_once_a_frame_give_the_packages_values(feature, frames):
    clip = noise(frames, frames, height=67)
    row = feature(Clip(clip, 8))
    right = packages_own(feature, clip[:-1], clip[1:])
    assert row["per_pair"].shape == (frames - 1,)
    assert np.abs(row["per_pair"] - right).max() <= 1e-6
    assert row["mean"] == pytest.approx(right.mean(), abs=1e-6)


def test_distance_gives_the_packages_values_both_ways(feature):
    a, b = noise(1, 6), noise(2, 6)
    assert np.abs(feature.distance(a, b) - packages_own(feature, a, b)).max() <= 1e-6
    assert np.abs(feature.distance(a, b) - feature.distance(b, a)).max() <= 1e-6


def test_a_frozen_clip_is_zero_and_repeats_are_equal(feature):
    frozen = np.repeat(noise(3, 1), 6, axis=0)
    assert feature(Clip(frozen, 8))["mean"] == pytest.approx(0, abs=1e-7)
    clip = Clip(noise(4, 7), 8)
    first = feature(clip)["per_pair"]
    feature(Clip(noise(5, 3), 8))
    assert np.array_equal(first, feature(clip)["per_pair"])


def test_what_cannot_be_measured_is_told_so(feature):
    with pytest.raises(NotMeasurable, match="needs 2 frames and this clip has 1"):
        feature(Clip(noise(0, 1), 8))
    with pytest.raises(NotMeasurable, match="at least 31x31 pixels and these are 64x30"):
        feature(Clip(noise(0, 3, height=30, width=64), 8))
    assert np.isfinite(feature(Clip(noise(0, 3, height=31, width=31), 8))["mean"])
    with pytest.raises(InputError, match="frames of one shape"):
        feature.distance(noise(0, 2), noise(0, 3))


def test_building_leaves_the_random_state_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    ConsecutiveLPIPS()
    assert torch.equal(before, torch.random.get_rng_state())


def test_heads_that_differ_are_refused(monkeypatch):
    read = feature_module.read_arrays

    def changed(path):
        arrays = read(path)
        name = "NetLinLayer_2/Conv_0/kernel"
        return {**arrays, name: np.nextafter(arrays[name], np.float32(9))}

    monkeypatch.setattr(feature_module, "read_arrays", changed)
    with pytest.raises(InputError, match="head 2 of the lpips package differs"):
        ConsecutiveLPIPS()


def test_the_metric_is_the_mean_column():
    columns = {"mean": np.array([0.1, 0.3]), "per_pair": np.zeros((2, 3))}
    assert np.array_equal(lpips_consecutive(columns), [0.1, 0.3])
