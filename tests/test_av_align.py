"""AV-Align's three versions are their published definitions, written out again here."""

import cv2
import numpy as np
import pytest

from avbench.core import Audio, Clip, Key, NotMeasurable, Row, columns
from avbench.features.sync.av_align import AVAlign, peak_times
from avbench.generation.providers.toyworld import ToyWorld
from avbench.generation.table import Request
from avbench.metrics.sync import av_align, av_align_2024, av_align_excess, av_align_javisbench
from avbench.subsets import loading

librosa = pytest.importorskip("librosa")


def clips(count):
    """Clips of the embedded world, with bounces and strikes."""
    subset = loading.load("toy-object-contact")
    prompts = subset.prompts[:: len(subset.prompts) // count][:count]
    requests = [Request(Key(subset.name, prompt.id, 3), prompt, subset.clip_spec) for prompt in prompts]
    return [made.clip for made in ToyWorld("").generate(requests)]


def oracle(clip, *, floor, once, extra=0.0):
    """The definition, step by step, as the paper's code and its change of February 2025 have it."""
    wave = librosa.resample(clip.audio.waveform.mean(axis=0), orig_sr=clip.audio.sample_rate, target_sr=22050)
    envelope = librosa.onset.onset_strength(y=wave, sr=22050, hop_length=512)
    sounds = librosa.onset.onset_detect(onset_envelope=envelope, sr=22050, hop_length=512, units="time")
    trajectory = []
    for k in range(1, len(clip.frames)):
        one, two = (cv2.cvtColor(clip.frames[i], cv2.COLOR_RGB2GRAY) for i in (k - 1, k))
        flow = cv2.calcOpticalFlowFarneback(one, two, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        magnitude, _ = cv2.cartToPolar(flow[..., 0], flow[..., 1])
        if k == 1:
            trajectory.append(np.mean(magnitude))
        trajectory.append(np.mean(magnitude))
    fps = float(clip.fps)
    peaks = [
        i / fps
        for i in range(1, len(trajectory) - 1)
        if trajectory[i - 1] < trajectory[i] > trajectory[i + 1] and trajectory[i] >= floor
    ]
    left, matches = list(peaks), 0
    for sound in sounds:
        for peak in left:
            if peak - 1 / fps < sound < peak + 1 / fps:
                matches += 1
                if once:
                    left.remove(peak)
                break
    return len(sounds), len(peaks), matches / (len(sounds) + len(peaks) - matches + extra)


def test_ten_clips_have_the_published_values():
    feature = AVAlign()
    seen = []
    for clip in clips(10):
        row = feature(clip)
        sounds, clear, today = oracle(clip, floor=0.1, once=True)
        assert (row["onsets"], row["clear_peaks"]) == (sounds, clear)
        assert row["av_align"] == pytest.approx(today, abs=1e-9)
        assert row["av_align_2024"] == pytest.approx(oracle(clip, floor=0.0, once=False)[2], abs=1e-9)
        javisbench = oracle(clip, floor=0.0, once=False, extra=1e-6)[2]
        assert row["av_align_javisbench"] == pytest.approx(javisbench, abs=1e-9)
        seen.append(today)
    assert len(set(seen)) > 3, "they are not all alike"


def flash(times, sounds, fps=8, seconds=4):
    """A square that jumps at some frames, and clicks at some times."""
    frames = np.full((fps * seconds, 64, 64, 3), 40, np.uint8)
    place = 8
    for k in range(len(frames)):
        place += 6 * (k in times)
        frames[k, 20:40, place : place + 16] = 220
    wave = np.zeros((1, 16000 * seconds), np.float32)
    rng = np.random.default_rng(0)
    for at in sounds:
        start = int(at * 16000)
        wave[0, start : start + 800] = rng.standard_normal(800) * np.exp(-np.arange(800) / 150) * 0.2
    return Clip(frames, fps, Audio(wave, 16000))


def test_sound_in_time_scores_higher_than_sound_at_another():
    jumps = [6, 14, 24]
    together = AVAlign()(flash(jumps, [k / 8 for k in jumps]))
    apart = AVAlign()(flash(jumps, [k / 8 + 0.4 for k in jumps]))
    assert together["av_align"] > 0.9 and apart["av_align"] < 0.2


def test_the_older_version_can_exceed_one_and_todays_cannot():
    row = AVAlign()(flash([12], [1.42, 1.58]))
    assert row["onsets"] == 2 and row["peaks"] == 1
    assert (row["av_align_2024"], row["av_align"]) == (2, 0.5)


def test_peaks_are_strict_and_inside():
    assert peak_times(np.array([5.0, 1, 2, 2, 1, 3, 0]), 10, 0.0).tolist() == [0.5]
    assert peak_times(np.array([0.0, 0.05, 0, 0.2, 0]), 10, 0.1).tolist() == [0.3]


def stacked(*rows):
    """The columns of clips with these rows."""
    return columns(Row(Key("made", str(number), 0), "", values) for number, values in enumerate(rows))[1]


def test_what_has_nothing_to_match_is_not_scored():
    feature = AVAlign()
    still = feature(flash([], [1.0, 2.0]))
    both = feature(flash([6, 14], [0.75, 1.75]))
    rows = stacked(still, both)
    for metric in (av_align, av_align_2024, av_align_javisbench):
        assert np.isnan(metric(rows)).tolist() == [True, False]
    with pytest.raises(NotMeasurable, match="no sound"):
        feature(Clip(np.zeros((5, 32, 32, 3), np.uint8), 8))
    with pytest.raises(NotMeasurable, match="need 3 frames and this clip has 2"):
        feature(Clip(np.zeros((2, 32, 32, 3), np.uint8), 8, Audio(np.zeros((1, 16000), np.float32), 16000)))


def test_sound_that_nobody_hears_is_not_scored():
    """librosa finds 15 onsets or more in the last bit of a silent track, and in what inverted channels leave."""
    moving = flash([6, 14], [0.75, 1.75])
    last_bit = np.random.default_rng(0).integers(-1, 2, (1, 64000)) / 32768
    inverted = np.concatenate([moving.audio.waveform, -moving.audio.waveform]) + last_bit
    for wave, why in ((0 * last_bit, "the track is silent"), (last_bit, "the track is silent"), (inverted, "cancel")):
        with pytest.raises(NotMeasurable, match=why):
            AVAlign()(Clip(moving.frames, 8, Audio(wave.astype(np.float32), 16000)))


def test_excess_is_what_is_left_above_the_sounds_of_other_clips():
    """Of three clips, two whose sounds fit them and one whose sound fits the second."""
    feature = AVAlign()
    made = [flash([6, 14], [0.75, 1.75]), flash([10, 18], [1.25, 2.25]), flash([6, 14], [1.25, 2.25])]
    rows = stacked(*[feature(clip) for clip in made])
    own, left = av_align(rows), av_align_excess(rows)
    assert own.tolist() == [1, 1, 0]
    # The first clip's picture has 0 with both other sounds; the second 0 and 1; the third 1 and 0.
    np.testing.assert_allclose(left, [1 - 0, 1 - 0.5, 0 - 0.5])


def test_chance_is_the_mean_over_the_sounds_of_all_other_clips_up_to_twenty():
    """Of five clips the first three are alike, so each of these has half of its chances."""
    feature = AVAlign()
    made = [flash([6, 14], [0.75, 1.75])] * 3 + [flash([10, 18], [1.25, 2.25])] * 2
    left = av_align_excess(stacked(*map(feature, made)))
    np.testing.assert_allclose(left, [1 - 2 / 4] * 3 + [1 - 1 / 4] * 2)


def test_excess_needs_another_clip_and_refuses_what_av_align_refuses():
    feature = AVAlign()
    both, still = feature(flash([6, 14], [0.75, 1.75])), feature(flash([], [1.0, 2.0]))
    with pytest.raises(NotMeasurable, match="one clip has onsets and peaks of motion"):
        av_align_excess(stacked(both, still))
    assert np.isnan(av_align_excess(stacked(still, still))).all()


def test_each_version_needs_the_peaks_that_it_counts():
    """The second clip has peaks of motion, but none above the floor of today's version; the last one has no onset."""
    counts = {"onsets": [2, 2, 0], "peaks": [3, 3, 3], "clear_peaks": [1, 0, 1]}
    scores = {name: [0.25, 0.5, 0.75] for name in ("av_align", "av_align_2024", "av_align_javisbench")}
    seen = {name: np.array(values, float) for name, values in (counts | scores).items()}
    np.testing.assert_array_equal(av_align(seen), [0.25, np.nan, np.nan])
    for earlier in (av_align_2024, av_align_javisbench):
        np.testing.assert_array_equal(earlier(seen), [0.25, 0.5, np.nan])
