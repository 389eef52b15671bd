"""musicnn against numbers that the package's own network gave in TensorFlow, and its spectrogram against librosa."""

import itertools
import os

import numpy as np
import pytest
import torch

from avbench.core import Audio, Clip, InputError, NotMeasurable
from avbench.features.audio.musicnn import Musicnn, MusicnnProtocol, log_mel
from avbench.features.audio.musicnn_network import offsets
from avbench.features.networks import exact
from avbench.storage import weights

FRAMES = np.zeros((1, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def feature():
    if weights.verify("musicnn-mtt") != "ok":
        if os.environ.get("CI") == "true":
            pytest.fail("CI needs the weight musicnn-mtt: avbench weights fetch musicnn-mtt")
        pytest.skip("the weight musicnn-mtt is not in the cache")
    return Musicnn()


def clip(wave, rate=16000):
    return Clip(FRAMES, 8, Audio(np.atleast_2d(wave).astype(np.float32), rate))


def tune(seconds, rate=16000):
    """A rising tone, and a note struck twice a second."""
    t = np.arange(round(rate * seconds)) / rate
    note = 0.4 * np.exp(-6 * (t % 0.5)) * np.sin(2 * np.pi * 880 * t)
    return 0.3 * np.sin(2 * np.pi * (200 * t + 300 * t**2)) + note


def frames_of(seconds):
    """The spectrogram of `tune` as a clip stores it, in 32 bits."""
    return log_mel(tune(seconds).astype(np.float32).astype(np.float64), MusicnnProtocol())


def of_patch(feature, frames):
    """The network's features of one patch on its own."""
    x = torch.from_numpy(frames[None].astype(np.float32)).to(feature._device).transpose(1, 2)[:, None]
    with exact():
        return feature._network(x)[0].cpu().numpy()


@pytest.mark.parametrize(
    ("wave", "first", "last", "norm"),
    [
        # One patch of 126 frames.
        (tune(2), [0.73274970, 0.23709598, 1.19241405, -0.18605757], 1.51255739, 12.49050617),
        # Two of 187; the package ignores the 64 that 7 s has more.
        (tune(7)[: 374 * 256 - 1], [1.03376102, -0.03287870, 1.15820467, -0.06878259], 1.82677805, 12.51434612),
    ],
)
def test_features_are_those_of_the_package_in_tensorflow(feature, wave, first, last, norm):
    embedding = feature(clip(wave))["embedding"]
    assert embedding.shape == (200,) and embedding.dtype == np.float32
    np.testing.assert_allclose(embedding[:4], first, atol=2e-4)
    assert embedding[-1] == pytest.approx(last, abs=2e-4)
    assert np.linalg.norm(embedding) == pytest.approx(norm, abs=2e-4)


@pytest.mark.parametrize("seconds", [1, 2, 187 / 62.5 - 1e-4])
def test_a_clip_of_one_patch_is_what_the_network_gives_to_the_bit(feature, seconds):
    frames = frames_of(seconds)
    assert len(frames) <= 187
    np.testing.assert_array_equal(feature(clip(tune(seconds)))["embedding"], of_patch(feature, frames))


@pytest.mark.parametrize(
    ("seconds", "starts", "weights"),
    [
        (3, [0, 1], [94, 94]),  # 188 frames
        (5, [0, 126], [156.5, 156.5]),  # 313: the patches have 61 in common
        (6, [0, 187, 189], [187, 94.5, 94.5]),  # 376: the last two have 185 in common
        (10, [0, 187, 374, 439], [187, 187, 126, 126]),  # 626: the last two have 122 in common
    ],
)
def test_each_frame_counts_once_in_the_mean_of_the_patches(feature, seconds, starts, weights):
    frames = frames_of(seconds)
    assert sum(weights) == len(frames)
    features = [of_patch(feature, frames[start : start + 187]) for start in starts]
    right = sum(weight * each for weight, each in zip(weights, features, strict=True)) / sum(weights)
    np.testing.assert_allclose(feature(clip(tune(seconds)))["embedding"], right, atol=1e-5)


@pytest.mark.parametrize("part", [slice(0, 32000), slice(32000, 48000), slice(48000, 80000), slice(72000, 80000)])
def test_every_part_of_a_clip_is_heard(feature, part):
    changed = tune(5)
    changed[part] = tune(5)[::-1][part]
    moved = feature(clip(changed))["embedding"] - feature(clip(tune(5)))["embedding"]
    assert np.abs(moved).max() > 0.05


def test_other_rates_and_channels_are_brought_to_one(feature):
    right = feature(clip(tune(2)))["embedding"]
    np.testing.assert_allclose(feature(clip([tune(2), tune(2)]))["embedding"], right, atol=1e-4)
    np.testing.assert_allclose(
        feature(clip([tune(2), 0 * tune(2)]))["embedding"], feature(clip(tune(2) / 2))["embedding"]
    )
    # The rising tone stays below 1.5 kHz, so only the loss near 8 kHz differs.
    resampled = feature(clip(tune(2, 48000), 48000))["embedding"]
    assert np.abs(resampled - right).max() < 0.2 < np.abs(feature(clip(tune(2)[::-1]))["embedding"] - right).max()


@pytest.mark.parametrize("seconds", [1, 2, 3.3])
@pytest.mark.slow
def test_the_spectrogram_is_librosas(seconds):
    librosa = pytest.importorskip("librosa")
    wave = tune(seconds) + 0.05 * np.random.default_rng(0).standard_normal(round(16000 * seconds))
    settings = {"sr": 16000, "n_fft": 512, "hop_length": 256, "n_mels": 96, "pad_mode": "reflect"}
    right = np.log10(10000 * librosa.feature.melspectrogram(y=wave, **settings).T + 1)
    np.testing.assert_allclose(log_mel(wave, MusicnnProtocol()), right, atol=1e-5)


def test_the_arrays_do_not_overlap(feature):
    state = feature._network.state_dict()
    places = offsets()
    assert set(places) == {name for name in state if not name.endswith("num_batches_tracked")}
    spans = sorted((start, start + 4 * state[name].numel()) for name, start in places.items())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    variances = torch.cat([value.flatten() for name, value in state.items() if name.endswith("running_var")])
    assert (variances > 0).all() and torch.isfinite(variances).all()


def test_what_cannot_be_measured_says_why(feature):
    for wave, reason in (
        (np.zeros(32000), "the track is silent"),
        (1e-5 * tune(2), "the track is silent"),
        ([tune(2), -tune(2)], "its channels cancel each other"),
        ([tune(2), -0.9 * tune(2)], "its channels cancel each other"),
        (tune(0.01), "10 ms of sound; musicnn needs 1000 ms"),
        (tune(1)[:-1], r"999\.9 ms of sound; musicnn needs 1000 ms"),
    ):
        with pytest.raises(NotMeasurable, match=reason):
            feature(clip(wave))
    assert np.isfinite(feature(clip(tune(1)))["embedding"]).all()
    with pytest.raises(NotMeasurable, match="no sound"):
        feature(Clip(FRAMES, 8))


def test_a_missing_weight_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path))
    with pytest.raises(InputError, match="run `avbench weights fetch musicnn-mtt`"):
        Musicnn()
