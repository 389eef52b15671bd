"""Consecutive LPIPS is the lpips package's own number, with features computed once a frame."""

import functools
import subprocess
import sys
import warnings

import lpips
import numpy as np
import pytest
import torch
import torchvision

from avbench.core import Clip, InputError, NotMeasurable
from avbench.features.perceptual import lpips as feature_module
from avbench.features.perceptual.lpips import ConsecutiveLPIPS
from avbench.metrics.table import known_metrics
from avbench.storage import weights

BLACK_WHITE = 0.8140146732330322
"""README of github.com/JunyaoHu/common_metrics_on_video_quality, by its author; see golden/fvd_black_white.json."""


@pytest.fixture(scope="module")
def feature():
    return ConsecutiveLPIPS()


def noise(seed, frames, height=64, width=80):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


@functools.cache
def package_network(net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, about arguments that the package still uses
        return lpips.LPIPS(net=net, version="0.1", pnet_rand=True, verbose=False)


def packages_own(feature, a, b):
    """The lpips package's forward with its own heads and our trunk's weights, pair by pair."""
    network = package_network(feature.protocol.net)
    ours = feature._trunk.state_dict()
    network.net.load_state_dict({key: ours[f"features.{key.partition('.')[2]}"] for key in network.net.state_dict()})
    tensors = [torch.from_numpy(x.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2) for x in (a, b)]
    with torch.inference_mode():
        pairs = zip(*(t.split(1) for t in tensors), strict=True)
        return np.array([network(x, y).item() for x, y in pairs])


def test_black_against_white_is_the_published_number(feature):
    black = np.zeros((1, 64, 64, 3), np.uint8)
    assert feature.between([black, black + 255])[0, 1] == pytest.approx(BLACK_WHITE, abs=1e-3)


@pytest.mark.parametrize(("frames", "height", "width"), [(2, 67, 80), (4, 67, 80), (9, 67, 80), (2, 290, 330)])
def test_features_once_a_frame_give_the_packages_values(feature, frames, height, width):
    clip = noise(frames, frames, height, width)
    row = feature(Clip(clip, 8))
    right = packages_own(feature, clip[:-1], clip[1:])
    assert row["per_pair"].shape == (frames - 1,)
    assert np.abs(row["per_pair"] - right).max() <= 1e-6
    assert row["mean"] == pytest.approx(right.mean(), abs=1e-6)


def test_distance_gives_the_packages_values_both_ways(feature):
    a, b = noise(1, 6), noise(2, 6)
    between = feature.between([a, b])
    assert between.shape == (2, 2, 6)
    assert np.abs(between[0, 1] - packages_own(feature, a, b)).max() <= 1e-6
    assert np.array_equal(between[0, 1], between[1, 0]) and not between[0, 0].any()


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
    with pytest.raises(NotMeasurable, match="LPIPS with net 'alex' needs 31 pixels"):
        feature(Clip(noise(0, 3, height=30, width=64), 8))
    assert np.isfinite(feature(Clip(noise(0, 3, height=31, width=31), 8))["mean"])
    with pytest.raises(InputError, match="frames of one shape"):
        feature.between([noise(0, 2), noise(0, 3)])


@pytest.mark.one_device
def test_building_leaves_the_random_state_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    ConsecutiveLPIPS()
    assert torch.equal(before, torch.random.get_rng_state())


def test_neither_the_package_nor_torchvision_is_imported():
    """Their imports take seconds in each process."""
    code = (
        "import sys; from avbench.features.perceptual.lpips import ConsecutiveLPIPS; ConsecutiveLPIPS()\n"
        "assert not {'lpips', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_heads_that_differ_are_refused(monkeypatch):
    read = feature_module.read_arrays

    def changed(path):
        arrays = read(path)
        name = "NetLinLayer_2/Conv_0/kernel"
        return {**arrays, name: np.nextafter(arrays[name], np.float32(9))}

    monkeypatch.setattr(feature_module, "read_arrays", changed)
    with pytest.raises(InputError, match="head 2 of the lpips package differs"):
        ConsecutiveLPIPS()


def test_the_protocol_is_that_of_the_shipped_references():
    assert ConsecutiveLPIPS.protocol.digest.startswith("2a55c29ce671")


NETS = {
    "alex": ("ConsecutiveLPIPS", "ReferenceLPIPS", "SeedsLPIPS"),
    "vgg": ("VGGConsecutive", "VGGReference", "VGGSeeds"),
    "squeeze": ("SqueezeConsecutive", "SqueezeReference", "SqueezeSeeds"),
}


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory):
    """Torchvision's layout with random weights: the real file cannot be had here."""
    file = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), file)
    return file


@pytest.fixture
def build(squeezenet, monkeypatch, tmp_path):
    """Builds a feature by net and meaning; SqueezeNet's weights are brought."""
    (tmp_path / "cache").mkdir()
    for weight in ("lpips-alex", "lpips-vgg"):
        file = weights.cached_path(weight)
        (tmp_path / "cache" / file.name).symlink_to(file)
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    weights.provide("squeezenet1_1", squeezenet)
    return lambda net, meaning: getattr(feature_module, NETS[net][meaning])()


@pytest.mark.parametrize("net", [pytest.param(net, marks=[] if net == "alex" else pytest.mark.slow) for net in NETS])
def test_every_net_gives_the_packages_values(build, net):
    feature = build(net, 0)
    clip = noise(6, 3, height=40, width=48)
    right = packages_own(feature, clip[:-1], clip[1:])
    assert right.min() > 0
    assert np.abs(feature(Clip(clip, 8))["per_pair"] - right).max() <= 1e-6
    protocol = feature.protocol
    assert (protocol.net, protocol.lpips_version, protocol.value_range) == (net, "0.1", "-1...1")
    least = feature_module.MIN_SIDE[net]
    assert np.isfinite(feature(Clip(noise(0, 2, least, least), 8))["mean"])
    with pytest.raises(NotMeasurable, match=f"net '{net}' needs {least} pixels on either side"):
        feature(Clip(noise(0, 2, least - 1, least), 8))


@pytest.mark.parametrize("net", NETS)
def test_three_meanings_have_three_protocols(build, net):
    protocols = [build(net, meaning).protocol for meaning in range(3)]
    assert len({protocol.digest for protocol in protocols}) == 3
    assert [protocol.name for protocol in protocols] == [f"lpips-{net}{end}" for end in ("", "-reference", "-seeds")]


def test_against_a_reference_frame_by_frame(build):
    feature = build("alex", 1)
    a, b = noise(1, 4), noise(2, 4)
    row = feature(Clip(a, 8), Clip(b, 8))
    assert np.abs(row["per_frame"] - packages_own(feature, a, b)).max() <= 1e-6
    assert row["mean"] == pytest.approx(row["per_frame"].mean(), abs=1e-6)
    assert feature(Clip(a, 8), Clip(a, 8))["mean"] == 0
    for other in (Clip(b[:3], 8), Clip(b[:, :, :70], 8), Clip(b, 12)):
        with pytest.raises(NotMeasurable, match="the clip and its reference differ in form: "):
            feature(Clip(a, 8), other)


def test_between_seeds_is_the_mean_over_the_others(build):
    feature = build("alex", 2)
    clips = [noise(seed, 5) for seed in range(3)]
    rows = feature([Clip(clip, 8) for clip in clips])
    for k, row in enumerate(rows):
        others = [packages_own(feature, clips[k], clips[j]) for j in range(3) if j != k]
        assert np.abs(row["per_frame"] - np.mean(others, axis=0)).max() <= 1e-6
    with pytest.raises(NotMeasurable, match="there is one"):
        feature([Clip(clips[0], 8)])


def test_a_trunk_that_does_not_fit_is_refused(build, squeezenet, tmp_path):
    state = torch.load(squeezenet, weights_only=True)
    del state["features.12.squeeze.weight"]
    torch.save(state, tmp_path / "less.pth")
    weights.provide("squeezenet1_1", tmp_path / "less.pth")
    with pytest.raises(InputError, match=r'Missing key.*"features\.12\.squeeze\.weight"'):
        build("squeeze", 0)
    torch.save(
        {**torch.load(squeezenet, weights_only=True), "features.13.weight": torch.ones(1)}, tmp_path / "more.pth"
    )
    weights.provide("squeezenet1_1", tmp_path / "more.pth")
    with pytest.raises(InputError, match=r'Unexpected key.*"features\.13\.weight"'):
        build("squeeze", 0)


def test_the_metric_is_the_mean_column():
    columns = {"mean": np.array([0.1, 0.3]), "per_pair": np.zeros((2, 3))}
    for name in ("lpips_consecutive", "lpips_reference", "lpips_vgg_seeds"):
        assert np.array_equal(known_metrics()[name].of_clips(columns), [0.1, 0.3])
