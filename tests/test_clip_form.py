"""Clips of other rates, sizes and lengths are measured in their subset's form, and lie on disk as they were made."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from made_media import make, moving

from avbench.comparison.score_table import scores_frame
from avbench.core import Audio, Clip, ClipSpec, InputError, NotMeasurable
from avbench.features.audio.waveform import mixed_down
from avbench.features.current import current_keys
from avbench.features.measure import measure
from avbench.generation.sample import sample
from avbench.metrics.evaluate import chosen_metrics, evaluate
from avbench.storage.media import read_clip, write_clip
from avbench.storage.media.conform import ClipForm, in_form
from avbench.storage.runs.folder import RunFolder
from avbench.subsets import loading

SPEC = ClipSpec(64, 64, 16, Fraction(8), 16000)
FORM = ClipForm.of(SPEC)


def numbered(frames, fps, height=64, width=64, audio=None):
    pixels = np.broadcast_to(np.arange(frames, dtype=np.uint8)[:, None, None, None], (frames, height, width, 3))
    return Clip(pixels, fps, audio)


@pytest.mark.parametrize(
    ("fps", "frames", "shown"),
    [
        (16, 33, list(range(0, 32, 2))),
        (24, 49, list(range(0, 48, 3))),
        (12, 25, [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22]),
        (4, 8, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]),
        ("24000/1001", 48, list(range(0, 48, 3))),
    ],
)
def test_the_nearest_frame_is_shown(fps, frames, shown):
    made = in_form(numbered(frames, fps), FORM)
    assert SPEC.objection(made) is None
    assert made.frames[:, 5, 5, 0].tolist() == shown


def test_a_clip_of_the_form_is_itself():
    clip = numbered(16, 8, audio=Audio(np.zeros((1, 32000), np.float32), 16000))
    assert in_form(clip, FORM) is clip


def test_a_clip_with_other_channels_alone_is_of_another_form():
    stereo = np.stack([np.full(32000, 0.5, np.float32), np.zeros(32000, np.float32)])
    clip = numbered(16, 8, audio=Audio(stereo, 16000))
    assert SPEC.objection(clip) == "channels 2 where 1 is asked for"
    np.testing.assert_array_equal(in_form(clip, FORM).audio.waveform, np.full((1, 32000), 0.25, np.float32))


def test_channels_that_cancel_each_other_do_not_become_silence():
    tone = np.sin(np.arange(32000, dtype=np.float32) / 10) / 2
    made = in_form(numbered(16, 8, audio=Audio(np.stack([tone, -tone]), 16000)), FORM)
    np.testing.assert_array_equal(made.audio.waveform, np.stack([tone, -tone]))
    with pytest.raises(NotMeasurable, match="its channels cancel each other"):
        mixed_down(made.audio)


def test_a_form_without_a_sample_rate_leaves_the_sound_but_cuts_its_end():
    form = ClipForm.of(ClipSpec(64, 64, 16, 8))
    wave = np.random.default_rng(0).uniform(-1, 1, (2, 24_000)).astype(np.float32)
    longer, short = Audio(wave, 8000), Audio(wave[:, :9000], 8000)
    np.testing.assert_array_equal(in_form(numbered(24, 8, 96, 96, longer), form).audio.waveform, wave[:, :16_000])
    np.testing.assert_array_equal(in_form(numbered(16, 8, 96, 96, short), form).audio.waveform, wave[:, :9000])
    assert form.digest != dataclasses.replace(form, mono=FORM.mono, sound_end=FORM.sound_end).digest


def test_size_is_covered_and_cut_around_the_middle():
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, None, :, None], (16, 128, 1, 3))
    made = in_form(Clip(ramp, 8), FORM)  # 256×128: half the size, and a quarter cut off on each side
    assert made.frames.shape == (16, 64, 64, 3)
    np.testing.assert_allclose(made.frames[0, 30, :, 0], 64.5 + 2 * np.arange(64), atol=1)
    small = in_form(numbered(16, 8, height=16, width=32), FORM)
    assert small.frames.shape == (16, 64, 64, 3)


def test_sound_is_resampled_mixed_and_cut():
    time = np.arange(49_000) / 24_000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    both = np.stack([tone, 0.5 * tone]).astype(np.float32)
    made = in_form(numbered(49, 24, audio=Audio(both, 24_000)), FORM)
    wave = made.audio.waveform
    assert wave.shape == (1, 32_000) and made.audio.sample_rate == 16_000
    wanted = 0.375 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    assert np.abs(wave[0] - wanted)[100:-100].max() < 0.002


def test_what_is_too_short_is_told():
    with pytest.raises(NotMeasurable, match=r"the clip lasts 1\.938 s, but its subset needs 2 s"):
        in_form(numbered(31, 16), FORM)
    with pytest.raises(NotMeasurable, match=r"the clip lasts 1\.996 s, but its subset needs 2 s"):
        in_form(numbered(479, 240), FORM)
    nearly, short = (Audio(np.full((1, samples), 0.1, np.float32), 16_000) for samples in (30_500, 29_000))
    made = in_form(numbered(33, 16, audio=nearly), FORM)
    assert not made.audio.waveform[0, 30_500:].any() and made.audio.waveform[0, 30_499] != 0
    with pytest.raises(NotMeasurable, match=r"sound lasts 1\.812 s"):
        in_form(numbered(33, 16, audio=short), FORM)


def test_what_the_reader_decided_goes_with_the_clip_and_into_the_run(tmp_path):
    (tmp_path / "files").mkdir()
    subset = loading.load("toy-object-contact").limited(2)
    uneven, even = (f"{prompt.id}-0" for prompt in subset.prompts)
    times = [round(1000 * k / 30) + (20 if k == 9 else 0) for k in range(75)]
    clock = Fraction(1, 1000)
    path = make(tmp_path / "files" / f"{uneven}.mkv", moving(75, 16, 16), 30, times=times, clock=clock)
    write_clip(numbered(16, 8), tmp_path / "files" / f"{even}.mkv")
    (remark,) = in_form(read_clip(path), FORM).remarks
    assert "read at 30 frames per second" in remark
    folder = RunFolder(tmp_path / "run")
    _, made, _ = sample(folder, f"clips:{tmp_path / 'files'}", {}, [subset], (0,))
    assert {Path(one.path).stem: one.remark for one in made} == {uneven: remark, even: None}
    assert {one.remark for one in folder.samples().values()} == {remark, None}


METRICS = chosen_metrics(["motion_amount", "onset_rate"])
FEATURES = [metric.feature for metric in METRICS]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The world itself, and its clips drawn larger and faster; one of those too short."""
    place = tmp_path_factory.mktemp("runs")
    (place / "files").mkdir()
    subset = loading.load("toy-object-contact").limited(3)
    folders = {}
    for name, model in (("world", "toyworld:"), ("other", f"clips:{place / 'files'}")):
        folders[name] = RunFolder(place / name)
        _, made, _ = sample(folders[name], model, {}, [subset], (0,))
        assert all(one.failure is None for one in made)
        if name == "world":
            for number, one in enumerate(sorted(folders["world"].samples().values(), key=lambda one: one.key)):
                clip = read_clip(place / name / one.path)
                frames = clip.frames.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
                short = frames[: 30 if number == 2 else None]
                write_clip(Clip(short, 16, clip.audio), place / "files" / f"{one.key.prompt}-0.mkv")
        count, tasks = measure(folders[name], FEATURES)
        assert len(list(tasks)) == count
        evaluate(folders[name], METRICS)
    return place, folders


def test_runs_of_unlike_form_stand_in_one_table(runs):
    place, folders = runs
    frame = scores_frame([folders["world"], folders["other"]]).set_index(["metric", "model"])
    assert (frame["n"].xs("other", level="model") == 2).all() and (frame["unmeasured"].xs("other", level=1) == 1).all()
    values = {}
    for name, folder in folders.items():
        values[name] = {key.prompt: row.values for key, row in folder.rows(_protocol("flow-dis")).items()}
    same = [prompt for prompt, row in values["other"].items() if row is not None]
    assert len(same) == 2
    for prompt in same:  # the very pixels: each was doubled, and taken back by the rule
        np.testing.assert_equal(values["other"][prompt], values["world"][prompt])
    samples = folders["other"].samples().values()
    assert all((place / "files" / f"{one.key.prompt}-0.mkv").read_bytes() == (place / "other" / one.path).read_bytes()
               for one in samples)  # fmt: skip
    assert all("width 128 where 64 is asked for" in one.spec_mismatch for one in samples)
    missing = [row.missing for row in folders["other"].rows(_protocol("onsets")).values() if row.missing]
    assert missing == ["the clip lasts 1.875 s, but its subset needs 2 s"]


def _protocol(feature):
    from avbench.features.protocols import protocol_of

    return protocol_of(feature)


def test_the_rule_is_in_the_protocol_where_it_did_something(runs):
    _, folders = runs
    (world,), (other,) = (
        [one for one in run.evaluation().protocols.values() if one["metric"] == "motion_amount"]
        for run in folders.values()
    )
    assert "clip_form" not in world
    assert other.pop("clip_form") == FORM.describe()
    assert other == world
    assert all(one.spec_mismatch is None for one in folders["world"].samples().values())
    assert {row.clip_sha256 for row in folders["world"].rows(_protocol("onsets")).values()} == {
        one.sha256 for one in folders["world"].samples().values()
    }


def test_rows_under_another_rule_are_measured_again_and_not_compared(runs, monkeypatch):
    _, folders = runs
    assert len(current_keys(folders["other"], "onsets")) == 3
    newer = classmethod(lambda cls, spec: dataclasses.replace(FORM, version=2))
    monkeypatch.setattr(ClipForm, "of", newer)
    assert current_keys(folders["other"], "onsets") == set()
    assert len(current_keys(folders["world"], "onsets")) == 3
    scores, protocols = folders["other"].scores(), folders["other"].evaluation().protocols
    renamed = RunFolder(folders["other"].path.with_name("newer"))
    renamed.start(folders["other"].run(), folders["other"].subsets())
    newly = {f"{name}-2": {**one, "clip_form": {"version": 2}} for name, one in protocols.items()}
    renamed.write_scores([dataclasses.replace(one, protocol=f"{one.protocol}-2") for one in scores], newly, {})
    with pytest.raises(InputError, match=r"different protocols.*clip_form\.version 2 against 1"):
        scores_frame([folders["other"], renamed])
