"""Loudness against the recommendation's own anchor and cases, and silence and clipping against counted samples."""

import numpy as np
import pyloudnorm
import pytest

from avbench.core import Audio, Clip, NotMeasurable
from avbench.features.audio.levels import Levels, k_weighting
from avbench.metrics.sound import loudness

FRAMES = np.zeros((1, 8, 8, 3), np.uint8)


def levels(wave, rate=48000):
    return Levels()(Clip(FRAMES, 8, Audio(np.atleast_2d(wave).astype(np.float32), rate)))


def sine(hertz=997.0, seconds=2.0, rate=48000, decibels=0.0):
    return 10 ** (decibels / 20) * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def test_the_filters_at_48_khz_are_those_of_the_recommendation():
    table = [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585],
        [1, -2, 1, 1, -1.99004745483398, 0.99007225036621],
    ]
    np.testing.assert_allclose(k_weighting(48000), table, atol=1e-13)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000])
def test_the_anchor_holds_at_every_rate(rate):
    row = levels(sine(rate=rate), rate)
    assert row["loudness"] == pytest.approx(-3.01, abs=0.02)
    assert row["rms_dbfs"] == pytest.approx(-3.01, abs=0.01)
    assert row["peak"] == pytest.approx(1, abs=1e-3)
    assert row["loudness_known"] == 1 and row["silent_share"] == 0


def test_channels_are_added():
    wave = sine(decibels=-20)
    assert levels(wave)["loudness"] == pytest.approx(-23.01, abs=0.01)
    assert levels([wave, wave])["loudness"] == pytest.approx(-20.0, abs=0.01)
    assert levels([wave, 0 * wave])["loudness"] == pytest.approx(-23.01, abs=0.01)


def test_low_and_high_tones_are_weighted():
    assert levels(sine(38, decibels=-20))["loudness"] < -28
    assert levels(sine(8000, decibels=-20))["loudness"] == pytest.approx(-23.01 + 3.35, abs=0.1)


@pytest.mark.slow
def test_quiet_parts_are_gated():
    """EBU Tech 3341, cases 3 and 4: what is 13 LU softer, or below -70 LUFS, does not count."""
    soft, loud, faint = (sine(1000, seconds, decibels=level) for seconds, level in ((10, -36), (60, -23), (10, -72)))
    for parts in ((soft, loud, soft), (faint, soft, loud, soft, faint)):
        wave = np.concatenate(parts)
        assert levels([wave, wave])["loudness"] == pytest.approx(-23.0, abs=0.1)
    ungated = np.concatenate((sine(1000, 60, decibels=-29), loud))
    assert levels([ungated, ungated])["loudness"] == pytest.approx(-25.04, abs=0.05), "6 LU softer counts"


def test_half_silence_does_not_lower_loudness_but_is_seen():
    row = levels(np.concatenate((sine(decibels=-20), np.zeros(96000))))
    assert row["loudness"] == pytest.approx(-23.35, abs=0.01), "of 20 blocks 17 are whole and 3 hold a part"
    assert row["silent_share"] == pytest.approx(0.5, abs=0.01)
    assert row["rms_dbfs"] == pytest.approx(-26.02, abs=0.01)
    assert row["loudness_known"] == 1


@pytest.mark.parametrize("wave", [np.zeros(32000), sine(rate=16000, decibels=-80), np.zeros((2, 32000))])
def test_a_silent_track_is_at_the_floor_and_says_so(wave):
    row = levels(wave, 16000)
    assert row["loudness_known"] == 0 and row["silent_share"] == 1
    assert row["loudness"] == -70
    assert -120 <= row["rms_dbfs"] < -80
    assert all(isinstance(value, float) and np.isfinite(value) for value in row.values())


def test_clipping_is_counted_in_runs_of_three():
    wave = np.full(16000, 0.1)
    wave[100:102] = 1
    assert levels(wave, 16000)["clipped_share"] == 0, "two in a row are a peak"
    wave[:3] = wave[500:507] = -1
    wave[-4:] = 0.9995
    assert levels(wave, 16000)["clipped_share"] == pytest.approx(14 / 16000)
    assert levels([wave, 0 * wave], 16000)["clipped_share"] == pytest.approx(7 / 16000)
    assert levels(0.9 * wave, 16000)["clipped_share"] == 0
    overdriven = np.clip(4 * sine(200, rate=16000), -1, 1)
    assert levels(overdriven, 16000)["clipped_share"] == pytest.approx(1 - 2 * np.arcsin(0.25) / np.pi, abs=0.05)


@pytest.mark.parametrize(
    ("channels", "rate", "seconds"), [(6, 48000, 1.0), (1, 16000, 0.3), (1, 4000, 1.0)], ids=["5.1", "short", "slow"]
)
def test_silence_and_clipping_need_neither_positions_nor_length(channels, rate, seconds):
    """Half of the time is silent; in one channel a tenth of the samples are at full scale."""
    wave = np.zeros((channels, round(rate * seconds)))
    wave[0, : wave.shape[1] // 2] = 0.5
    wave[0, : wave.shape[1] // 10] = 1
    row = levels(wave, rate)
    assert row["silent_share"] == pytest.approx(0.5, abs=0.04)
    assert row["clipped_share"] == pytest.approx(0.1 / channels) and row["peak"] == 1
    found = {name: np.array([value, 0.0]) for name, value in row.items()}
    assert np.isnan(loudness(found)[0]) and row["loudness_known"] == 0
    assert levels(wave[:1].repeat(8, axis=1), 8000)["loudness_known"] == 1, "with enough of all three"


def test_what_cannot_be_measured_says_why():
    with pytest.raises(NotMeasurable, match="319 samples of sound; levels need 320, 20 ms"):
        levels(np.zeros(319), 16000)
    assert levels(np.zeros(320), 16000)["silent_share"] == 1
    assert levels(0.1 * np.ones(6399), 16000)["loudness_known"] == 0
    assert levels(0.1 * np.ones(6400), 16000)["loudness_known"] == 1
    with pytest.raises(NotMeasurable, match="no sound"):
        Levels()(Clip(FRAMES, 8))


@pytest.mark.parametrize("rate", [44100, 48000])
def test_pyloudnorm_agrees(rate):
    meter = pyloudnorm.Meter(rate, "DeMan")
    random, seconds = np.random.default_rng(0), np.arange(4 * rate) / rate
    noise = 0.1 * random.standard_normal((2, 4 * rate))
    for wave in (noise, noise * (seconds % 1 < 0.3), sine(60, 4, rate, -6), sine(8000, 4, rate, -6)):
        wave = np.atleast_2d(wave).astype(np.float32).clip(-1, 1)
        right = meter.integrated_loudness(wave.T.astype(np.float64))
        assert levels(wave, rate)["loudness"] == pytest.approx(right, abs=0.01)
