"""musicnn against numbers that the package's own network gave in TensorFlow, and its spectrogram against librosa."""

import itertools
import os

import numpy as np
import pytest
import torch

from avbench.core import Audio, Clip, InputError, NotMeasurable
from avbench.features.audio.musicnn import Musicnn, MusicnnProtocol, log_mel
from avbench.features.audio.musicnn_network import offsets
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


@pytest.mark.parametrize(
    ("seconds", "first", "last", "norm"),
    [
        (2, [0.73274970, 0.23709598, 1.19241405, -0.18605757], 1.51255739, 12.49050617),  # one patch of 126 frames
        (7, [1.03376102, -0.03287870, 1.15820467, -0.06878259], 1.82677805, 12.51434612),  # two of 187, 64 left over
    ],
)
def test_features_are_those_of_the_package_in_tensorflow(feature, seconds, first, last, norm):
    embedding = feature(clip(tune(seconds)))["embedding"]
    assert embedding.shape == (200,) and embedding.dtype == np.float32
    np.testing.assert_allclose(embedding[:4], first, atol=2e-4)
    assert embedding[-1] == pytest.approx(last, abs=2e-4)
    assert np.linalg.norm(embedding) == pytest.approx(norm, abs=2e-4)


def test_every_patch_counts_once_and_the_rest_not_at_all(feature):
    wave = tune(7)
    whole = 2 * 187 * 256
    changed = wave.copy()
    changed[whole + 512 :] = 0
    same = feature(clip(changed))["embedding"]
    np.testing.assert_array_equal(same, feature(clip(wave))["embedding"])
    changed[whole - 8192 : whole] = 0
    assert np.abs(feature(clip(changed))["embedding"] - same).max() > 0.01


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
        (tune(1)[:-1], "musicnn needs"),
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
