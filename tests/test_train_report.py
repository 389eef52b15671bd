"""The table of what trained arms reach: on the world itself, and on clips whose faults are known."""

import numpy as np
import pandas as pd
import pytest

from avbench.core import Audio, Clip, InputError, Prompt
from avbench.subsets import loading
from avbench.toyworld import Scene, make_clip
from avbench.training.report import Found, look, markdown


@pytest.fixture(scope="module")
def drops():
    prompts = [one for one in loading.load("toy-object-contact").prompts if one.tags["family"] == "drop"][:6]
    return [(prompt, make_clip(Scene.from_json(prompt.tags["scene"]), 1)[0]) for prompt in prompts]


def f1(found: list[Found], name: str) -> float:
    return 2 * sum(getattr(one, name) for one in found) / sum(one.events for one in found)


def test_the_world_shows_what_it_says_and_sounds_in_time(drops):
    found = [look(clip, prompt) for prompt, clip in drops]
    assert all(all(one.colours) and one.count_right for one in found)
    assert f1(found, "hits") > f1(found, "null_hits") + 0.1


def test_late_sound_hits_no_more_than_chance(drops):
    late = []
    for prompt, clip in drops:
        wave = np.roll(clip.audio.waveform, round(0.5 * clip.audio.sample_rate), axis=1)
        late.append(look(Clip(clip.frames, clip.fps, Audio(wave, clip.audio.sample_rate)), prompt))
    assert f1(late, "hits") < f1([look(clip, prompt) for prompt, clip in drops], "hits")


def test_a_missing_body_is_counted(drops):
    prompt, clip = drops[0]
    empty = Clip(np.full_like(clip.frames, 230), clip.fps, clip.audio)
    found = look(empty, prompt)
    assert not found.count_right and not any(found.colours)


def test_a_silent_clip_has_no_events(drops):
    prompt, clip = drops[0]
    assert look(Clip(clip.frames, clip.fps), prompt).events == 0


def test_a_prompt_without_a_scene_is_refused(drops):
    with pytest.raises(InputError, match="'p' has no scene"):
        look(drops[0][1], Prompt("p", "a ball"))


def test_a_table_has_a_column_for_each_run():

    frame = pd.DataFrame({"a": {"clips": "3", "fvd": "1"}, "b": {"clips": "4"}})
    assert markdown(frame).splitlines() == ["| | a | b |", "|---|--:|--:|", "| clips | 3 | 4 |", "| fvd | 1 |  |"]
