"""Rows are made once, of the very bytes that lie there, also where a feature sees several clips."""

import dataclasses

import numpy as np
import pytest

from avbench.core import InputError
from avbench.features.audio.onsets import Onsets
from avbench.features.current import current_rows
from avbench.features.measure import measure
from avbench.features.protocols import protocol_of
from avbench.generation.sample import sample
from avbench.metrics.evaluate import chosen_metrics, evaluate
from avbench.storage.runs.folder import RunFolder
from avbench.storage.runs.row_lines import values_to_json
from avbench.subsets import loading

SEEDS, REFERENCE = "lpips-alex-seeds", "lpips-alex-reference"


def run(place, model, seeds=(0, 1), prompts=2):
    folder = RunFolder(place)
    subset = loading.load("toy-object-contact").limited(prompts)
    _, made, _ = sample(folder, model, {}, [subset], seeds)
    assert all(one.failure is None for one in made)
    return folder


def measured(folder, *features, against=None):
    """How many tasks there were."""
    count, tasks = measure(folder, features, against=against)
    assert len(list(tasks)) == count
    return count


@pytest.fixture
def folder(tmp_path):
    return run(tmp_path / "toyworld", "toyworld:")


def remake(folder, key):
    """Put another clip in a sample's place."""
    samples = folder.samples()
    other = next(one for one in samples.values() if one.key != key)
    path = folder.path / samples[key].path
    path.write_bytes((folder.path / other.path).read_bytes())
    folder.add_sample(type(other)(key, samples[key].path, other.sha256, 0.0))


def test_a_feature_of_one_clip_is_measured_again_where_the_clip_is_another(folder):
    assert measured(folder, "onsets") == 4
    assert measured(folder, "onsets") == 0
    key = sorted(folder.samples())[0]
    remake(folder, key)
    assert key not in current_rows(folder, "onsets")
    assert measured(folder, "onsets") == 1
    assert len(current_rows(folder, "onsets")) == 4


def test_values_of_equal_clips_are_taken_from_another_run(folder, tmp_path, monkeypatch):
    assert measured(folder, "onsets") == 4
    same, other = run(tmp_path / "same", "toyworld:"), run(tmp_path / "other", "toyworld:noisy")
    remake(same, next(key for key in sorted(same.samples())))
    monkeypatch.setattr(Onsets, "__init__", lambda self: pytest.fail("built"))
    count, tasks = measure(same, ["onsets"], others=[other, folder])
    assert len(list(tasks)) == count == 4
    values = {row.clip_sha256: row.values for row in current_rows(folder, "onsets").values()}
    for row in current_rows(same, "onsets").values():
        np.testing.assert_equal(row.values, values.get(row.clip_sha256))
    with pytest.raises(pytest.fail.Exception, match="built"):  # the sound is the same, but not the file
        list(measure(other, ["onsets"], others=[folder])[1])


def test_a_network_of_sound_is_not_built_for_clips_without_sound(tmp_path, monkeypatch):
    folder = run(tmp_path / "mute", "avfulldit:toy-t2v", prompts=1)
    monkeypatch.setattr(Onsets, "__init__", lambda self: pytest.fail("built"))
    assert measured(folder, "onsets") == 2
    assert {row.missing for row in current_rows(folder, "onsets").values()} == {"the clip has no sound"}


def test_equal_clips_are_measured_once(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    subset = loading.load("toy-object-contact").limited(2)
    _, made, _ = sample(folder, "toyworld:", {}, [subset, dataclasses.replace(subset, name="copy")], [0, 1])
    assert len(list(made)) == 8
    looks, look = [], Onsets.__call__
    monkeypatch.setattr(Onsets, "__call__", lambda self, clip: looks.append(clip) or look(self, clip))
    assert measured(folder, "onsets", SEEDS) == 12, "each clip of each subset is reported"
    assert len(looks) == 4
    for feature in ("onsets", SEEDS):
        rows = current_rows(folder, feature)
        assert len(rows) == 8
        for key, row in rows.items():
            assert values_to_json(row.values) == values_to_json(rows[key._replace(subset="copy")].values)


def test_a_prompts_clips_are_seen_together_and_again_where_one_is_another(folder):
    assert measured(folder, SEEDS) == 2, "a task a prompt"
    rows = current_rows(folder, SEEDS)
    assert len(rows) == 4
    keys = sorted(rows)
    assert rows[keys[0]].values["mean"] == rows[keys[1]].values["mean"] > 0, (
        "of two clips each is as far from the other"
    )
    assert measured(folder, SEEDS) == 0
    remake(folder, keys[0])
    assert sorted(current_rows(folder, SEEDS)) == keys[2:]
    assert measured(folder, SEEDS) == 1


def test_one_seed_has_no_diversity(tmp_path):
    folder = run(tmp_path / "toyworld", "toyworld:", seeds=(0,))
    measured(folder, SEEDS)
    assert all("there is one" in row.missing for row in current_rows(folder, SEEDS).values())
    (score,) = evaluate(folder, chosen_metrics(["lpips_seeds"]))
    assert score.value is None and "there is one (see seeds, --seeds) (2 of 2 clips)" in score.missing


def test_clips_stand_beside_their_reference_clips(folder, tmp_path):
    noisy = run(tmp_path / "noisy", "toyworld:noisy")
    with pytest.raises(InputError, match=r"give the run that holds them, with against \(--against RUN\) of run, m"):
        measured(noisy, REFERENCE)
    assert measured(noisy, REFERENCE, against=folder) == 4
    assert measured(noisy, REFERENCE, against=folder) == 0
    measured(folder, REFERENCE, against=folder)
    (worse,), (same,) = (evaluate(one, chosen_metrics(["lpips_reference"]), against=folder) for one in (noisy, folder))
    assert worse.value > 0.05 and same.value == 0
    assert worse.protocol == same.protocol
    before = protocol_of(REFERENCE, folder).digest
    remake(folder, sorted(folder.samples())[0])
    assert protocol_of(REFERENCE, folder).digest != before, "other reference clips are another protocol"
    assert not current_rows(noisy, REFERENCE, folder)


def test_a_prompt_without_a_reference_clip_is_told_so(folder, tmp_path):
    more = run(tmp_path / "more", "toyworld:noisy", prompts=3)
    measured(more, REFERENCE, against=folder)
    missing = [row.missing for row in current_rows(more, REFERENCE, folder).values() if row.missing]
    assert missing == ["the run of reference clips has no clip of this prompt and seed"] * 2


def test_a_clip_that_was_exchanged_is_refused(folder):
    one = next(iter(folder.samples().values()))
    (folder.path / one.path).write_bytes(b"other bytes")
    words = rf"1 of 4 clips of \S+ is not what was sampled, for example \S+{one.path}: .*--replace"
    for read in (lambda: measured(folder, "onsets"), lambda: evaluate(folder, chosen_metrics(["onset_rate"]))):
        with pytest.raises(InputError, match=words):
            read()
