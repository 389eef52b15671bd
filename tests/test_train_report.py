"""The table of what trained arms reach: on the world itself, and on clips whose faults are known."""

import cv2
import numpy as np
import pandas as pd
import pytest
from command_line import run_avbench

from avbench.core import Audio, Clip, InputError, Key, Prompt, Run, Sample, Score
from avbench.storage.media import write_clip
from avbench.storage.reading import file_sha256
from avbench.storage.runs.folder import RunFolder
from avbench.subsets import loading
from avbench.toyworld import Scene, make_clip
from avbench.toyworld.world import simulate
from avbench.training.report import HIT_SECONDS, Found, look, markdown, table, visible_contacts
from avbench.training.sheets import sheets


@pytest.fixture(scope="module")
def drops():
    prompts = [one for one in loading.load("toy-object-contact").prompts if one.tags["family"] == "drop"][:6]
    return [(prompt, make_clip(Scene.of(prompt), 1)[0]) for prompt in prompts]


def f1(found: list[Found], name: str) -> float:
    return 2 * sum(getattr(one, name) for one in found) / sum(one.contacts + one.onsets for one in found)


def test_the_world_shows_what_it_says_and_sounds_in_time(drops):
    found = [look(clip, prompt) for prompt, clip in drops]
    assert all(all(one.colours) and one.count_right for one in found)
    assert f1(found, "hits") > f1(found, "null_hits") + 0.2


def test_late_sound_hits_no_more_than_chance(drops):
    late = []
    for prompt, clip in drops:
        wave = np.roll(clip.audio.waveform, round(0.5 * clip.audio.sample_rate), axis=1)
        late.append(look(Clip(clip.frames, clip.fps, Audio(wave, clip.audio.sample_rate)), prompt))
    assert f1(late, "hits") < f1(late, "null_hits") + 0.1


def test_a_missing_body_is_counted(drops):
    prompt, clip = drops[0]
    empty = Clip(np.full_like(clip.frames, 230), clip.fps, clip.audio)
    found = look(empty, prompt)
    assert not found.count_right and not any(found.colours)


def test_a_silent_clip_has_no_events(drops):
    prompt, clip = drops[0]
    found = look(Clip(clip.frames, clip.fps), prompt)
    assert found.contacts == found.onsets == found.hits == 0


def test_contacts_are_contacts_and_not_free_fall(drops):
    near = []
    for prompt, clip in drops:
        truth = np.array([one.seconds for one in simulate(Scene.of(prompt), 1)[1].contacts])
        near += [np.abs(truth - time).min() < HIT_SECONDS for time in visible_contacts(clip, prompt)]
    assert len(near) > len(drops)
    assert np.mean(near) > 0.9


def test_where_bodies_cannot_be_followed_contacts_are_unknown():
    prompt = next(one for one in loading.load("toy-large-motion").prompts if one.tags["family"] == "pendulum")
    assert visible_contacts(make_clip(Scene.of(prompt), 1)[0], prompt) is None


@pytest.fixture
def runs(tmp_path):
    """Two runs of three prompts, the second with other seeds' clips and without sound."""
    subset = loading.load("toy-object-contact").limited(3)
    made = []
    for name, heard in (("world", True), ("silent", False)):
        folder = RunFolder(tmp_path / name)
        folder.start(Run(name, f"made:{name}", {}, {subset.name: subset.digest}, (0,), {}, {}), [subset])
        for prompt in subset.prompts:
            clip = make_clip(Scene.of(prompt), 0)[0]
            path = f"clips/{prompt.id}-0.mkv"
            (folder.path / "clips").mkdir(exist_ok=True)
            write_clip(clip if heard else Clip(clip.frames, clip.fps), folder.path / path)
            sha256 = file_sha256(folder.path / path)
            folder.add_sample(Sample(Key(subset.name, prompt.id, 0), path, sha256, 0.0))
        made.append(folder)
    return made


def test_sheets_show_every_run_and_mark_onsets_and_contacts(runs):
    drawn = sheets(runs, count=2)
    assert drawn["clips"].shape == (2 * (15 + 2 * (15 + 64)), 16 * 65, 3)
    assert drawn["sound"].shape == (2 * (15 + 15 + 72), 400, 3)  # one run has sound
    for colour in ((40, 220, 60), (255, 70, 70)):
        assert (drawn["sound"] == colour).all(axis=2).any()
    assert (drawn["clips"][30:94] == drawn["clips"][109:173]).all()  # the same frames under one another
    assert len(np.unique(drawn["clips"][30:94])) > 100


def test_runs_without_a_common_prompt_have_no_sheets(runs, tmp_path):
    empty = RunFolder(tmp_path / "empty")
    empty.start(runs[0].run(), runs[0].subsets())
    with pytest.raises(InputError, match="have no clip of the same prompt and seed"):
        sheets([runs[0], empty])


def test_the_report_writes_pictures_beside_its_table(runs, tmp_path):
    path = tmp_path / "out.md"
    run_avbench("train", "report", *(run.path for run in runs), "--out", path)
    assert "visible contacts with an onset" in path.read_text()
    for name in ("clips", "sound"):
        assert cv2.imread(str(tmp_path / f"out-{name}.png")).ndim == 3


def test_a_score_stands_with_the_number_of_its_clips(runs):
    subset = runs[0].subsets()[0].name
    runs[0].write_scores([Score(subset, "fvd", 364.23, 2, "a" * 64)], {"a" * 64: {}}, {})
    assert table(runs).loc[f"{subset}: fvd", "world"] == "364.2 (n = 2)"


def test_a_prompt_without_a_scene_is_refused(drops):
    with pytest.raises(InputError, match="'p' has no scene"):
        look(drops[0][1], Prompt("p", "a ball"))


def test_a_table_has_a_column_for_each_run():
    frame = pd.DataFrame({"a": {"clips": "3", "fvd": "1"}, "b": {"clips": "4"}})
    assert markdown(frame).splitlines() == ["| | a | b |", "|---|--:|--:|", "| clips | 3 | 4 |", "| fvd | 1 |  |"]
