"""Onsets against struck modes whose times are known, and against sounds that have none."""

import numpy as np
import pytest
from scipy.signal import sosfilt

from avbench.core import Audio, Clip, Key, NotMeasurable, Row, columns
from avbench.features.audio.onsets import Onsets
from avbench.metrics.table import known_metrics

FRAMES = np.zeros((1, 8, 8, 3), np.uint8)
TIMES = [0.021, 0.31, 0.552, 0.78, 1.234, 1.61]


def measure(wave, rate=16000):
    return Onsets()(Clip(FRAMES, 8, Audio(np.atleast_2d(np.clip(wave, -1, 1)).astype(np.float32), rate)))


def onsets(wave, rate=16000):
    return measure(wave, rate)["onset_seconds"]


def impacts(times, rate=16000, seconds=2.0, pitch=300.0, ring=0.3, strike=0.001, loud=0.3, noise=6e-4, seed=0):
    """Half-sine blows into four decaying modes, in quiet noise."""
    count = round(seconds * rate)
    length = max(2, round(strike * rate))
    blow = np.sin(np.pi * (np.arange(length) + 0.5) / length) / length
    force = np.zeros(count + length)
    for time in times:
        force[round(time * rate) :][:length] += blow
    wave = noise * np.random.default_rng(seed).standard_normal(count)
    for ratio, gain in ((1, 1), (2.76, 0.6), (5.4, 0.4), (8.9, 0.2)):
        angle = 2 * np.pi * pitch * ratio / rate
        radius = 10 ** (-3 / (ring * rate / np.sqrt(ratio)))
        if angle < 0.9 * np.pi:
            mode = [[0, np.sin(angle), 0, 1, -2 * radius * np.cos(angle), radius**2]]
            wave += loud * gain * sosfilt(mode, force)[:count]
    return wave


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("ring", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("pitch", [120, 300, 1200])
def test_impacts_are_found_within_10_ms(rate, ring, pitch):
    found = onsets(impacts(TIMES, rate, pitch=pitch, ring=ring), rate)
    assert len(found) == len(TIMES)
    assert np.abs(found - TIMES).max() <= 0.010


def test_irregular_impacts_in_louder_noise():
    rng = np.random.default_rng(5)
    times = 0.03 + np.cumsum(rng.uniform(0.08, 0.4, 30))
    found = onsets(impacts(times, seconds=times[-1] + 0.3, ring=0.1, noise=3e-3))
    assert len(found) == len(times)
    assert np.abs(found - times).max() <= 0.010
    assert np.abs(found - times).mean() <= 0.003


@pytest.mark.parametrize("time", [0.0, 0.001, 0.004, 0.01, 0.016, 0.03, 0.05])
@pytest.mark.parametrize("ring", [0.1, 0.8])
def test_an_impact_at_the_very_start(time, ring):
    found = onsets(impacts([time], ring=ring))
    assert found == pytest.approx([time], abs=0.010)


@pytest.mark.parametrize("time", [1.9, 1.95, 1.97])
def test_an_impact_at_the_end(time):
    assert onsets(impacts([time])) == pytest.approx([time], abs=0.010)


def steady():
    rng = np.random.default_rng(0)
    t = np.arange(2 * 16000) / 16000
    return {
        "mains hum": 0.3 * np.sin(2 * np.pi * 50 * t + 1),
        "buzz": sum(0.2 / k * np.sin(2 * np.pi * 60 * k * t + k) for k in range(1, 10)),
        "sawtooth": 0.4 * (2 * (100 * t % 1) - 1),
        "tone": 0.5 * np.sin(2 * np.pi * 440 * t),
        "tone in noise": 0.5 * np.cos(2 * np.pi * 1000 * t) + 1e-3 * rng.standard_normal(t.size),
        "tremolo": 0.3 * np.sin(2 * np.pi * 440 * t) * (1 + 0.5 * np.sin(2 * np.pi * 5 * t)),
        "vibrato": 0.3 * np.sin(2 * np.pi * 440 * t + 8 * np.sin(2 * np.pi * 5 * t)),
        "loud noise": 0.1 * rng.standard_normal(t.size),
        "quiet noise": 1e-3 * rng.standard_normal(t.size),
        "last bits": np.round(0.5 * rng.standard_normal(t.size)) / 32768,
        "rumble": np.fft.irfft(np.fft.rfft(rng.standard_normal(t.size)) / np.maximum(20, np.arange(t.size // 2 + 1))),
        "constant": np.full(t.size, 0.5),
    }


@pytest.mark.parametrize("name", steady())
def test_steady_sounds_have_no_onset(name):
    assert onsets(steady()[name]).tolist() == []


@pytest.mark.slow
def test_noise_fires_at_most_once_a_minute():
    found = [measure(0.1 * np.random.default_rng(k).standard_normal(60 * 16000))["onset_count"] for k in range(3)]
    assert sum(found) <= 3


def test_impacts_over_a_hum():
    t = np.arange(2 * 16000) / 16000
    found = onsets(impacts(TIMES) + 0.05 * np.sin(2 * np.pi * 50 * t))
    assert found == pytest.approx(TIMES, abs=0.010)


def test_a_tone_that_begins_is_an_onset():
    t = np.arange(2 * 16000) / 16000
    assert onsets(0.3 * np.sin(2 * np.pi * 440 * t) * (t >= 1)) == pytest.approx([1.0], abs=0.010)


def test_silence_has_no_onsets():
    values = measure(np.zeros(32000))
    assert values["onset_seconds"].shape == (0,)
    assert (values["onset_count"], values["onset_rate"]) == (0.0, 0.0)


def test_count_and_rate():
    values = measure(impacts(TIMES, seconds=2.5))
    assert values["onset_count"] == 6
    assert values["onset_rate"] == pytest.approx(6 / 2.5)


@pytest.mark.parametrize("shift", [0.0, 0.0333, 0.1, 0.25])
def test_a_shift_moves_every_onset(shift):
    late = onsets(impacts(np.array(TIMES) + shift))
    np.testing.assert_allclose(late - shift, onsets(impacts(TIMES)), atol=0.005)


@pytest.mark.parametrize("gain", [0.05, 0.5, 2.0])
def test_loudness_changes_nothing(gain):
    wave = impacts(TIMES, loud=0.15)
    np.testing.assert_allclose(onsets(gain * wave), onsets(wave), atol=0.005)


def test_a_constant_offset_changes_nothing():
    np.testing.assert_allclose(onsets(impacts(TIMES) + 0.05), onsets(impacts(TIMES)), atol=0.005)


def test_stereo_of_equal_channels_is_mono():
    wave = impacts(TIMES)
    np.testing.assert_array_equal(onsets(np.stack([wave, wave])), onsets(wave))


def test_rates_agree():
    found = [onsets(impacts(TIMES, rate), rate) for rate in (16000, 22050, 44100, 48000)]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=0.005)


def test_repeats_are_equal():
    wave = impacts(TIMES)
    np.testing.assert_array_equal(onsets(wave), onsets(wave))


def test_without_sound_there_is_a_sentence():
    with pytest.raises(NotMeasurable, match="the clip has no sound"):
        Onsets()(Clip(FRAMES, 8))


@pytest.mark.parametrize(("samples", "rate"), [(1, 16000), (511, 16000), (1400, 44100)])
def test_too_little_sound(samples, rate):
    with pytest.raises(NotMeasurable, match="ms of sound; onsets need 32 ms"):
        measure(np.zeros(samples), rate)


def test_one_window_of_sound_is_enough():
    assert measure(np.zeros(512))["onset_rate"] == 0


def test_the_metric_reads_columns_of_unlike_counts():
    waves = (impacts(TIMES), np.zeros(32000), impacts(TIMES[:2]))
    rows = [Row(Key("s", f"p{i}", 0), "0" * 64, measure(wave)) for i, wave in enumerate(waves)]
    assert known_metrics()["onset_rate"].of_clips(columns(rows)[1]).tolist() == [3.0, 0.0, 1.0]


def test_onsets_are_looked_for_every_5_ms():
    assert Onsets.protocol.hop / Onsets.protocol.rate <= 0.005


def test_the_level_of_an_onset_is_the_rms_after_it():
    t = np.arange(32000) / 16000
    wave = 0.4 * np.sin(2 * np.pi * 440 * t) * (t >= 1)
    assert measure(wave)["onset_level"] == pytest.approx([0.4 / 2**0.5], rel=0.05)
