"""The bundled arms: trained alike, one of them sounds, and both show what their captions say."""

import functools
import shutil

import pytest
import torch

from avbench.avfulldit import BUNDLED, checkpoint
from avbench.avfulldit.pipeline import Wish, make, start
from avbench.core import InputError
from avbench.generation import table as generators
from avbench.generation.providers.avfulldit import AVFullDiT
from avbench.subsets import loading
from avbench.toyworld.inverse import bodies
from avbench.training.train import same_settings

ARMS = ("toy-t2v", "toy-t2av")


@functools.cache
def parts(arm):
    return checkpoint.load(BUNDLED[arm])


def prompts():
    return loading.load("toy-object-contact").prompts[::12]


@functools.cache
def clips(arm):
    wishes = [Wish(prompt.id, 0, prompt.video_caption, prompt.audio_caption) for prompt in prompts()]
    return make(parts(arm), wishes, len(wishes))


def test_the_arms_were_trained_alike():
    assert same_settings(*map(BUNDLED.get, ARMS)) == []


def test_the_arms_start_from_the_same_video_noise():
    wish = Wish("drop-000", 3, "", "")
    (one, silent), (other, sound) = (start(parts(arm), wish) for arm in ARMS)
    assert torch.equal(one, other)
    assert silent is None and sound is not None


def test_a_folder_with_the_name_of_a_bundled_arm_is_run_by_its_path(tmp_path, monkeypatch):
    """`avbench train arms --out toy` makes such folders; the other arm's weights stand for new ones."""
    monkeypatch.chdir(tmp_path)
    weights = {name: AVFullDiT(name).settings["weights"] for name in ARMS}
    assert AVFullDiT("toy-t2v").remarks([]) == []
    shutil.copytree(BUNDLED["toy-t2av"], "toy-t2v")
    for typed in ("toy-t2v", "./toy-t2v", str(tmp_path / "toy-t2v"), "avfulldit:./toy-t2v"):
        assert generators.build(typed, {}).settings["weights"] == weights["toy-t2av"], typed
    own = generators.build("avfulldit:toy-t2v", {})
    assert own.settings["weights"] == weights["toy-t2v"]
    assert own.remarks([]) == ["avfulldit:toy-t2v is the bundled checkpoint; the folder toy-t2v is avfulldit:./toy-t2v"]


def test_a_second_pass_over_the_sound_is_recorded_and_none_leaves_the_record_as_it_was():
    assert "audio_again" not in AVFullDiT("toy-t2av").settings
    assert AVFullDiT("toy-t2av", audio_again=0.5).settings["audio_again"] == 0.5
    for wrong in (-1, float("nan"), True, "yes"):
        with pytest.raises(InputError, match=f"audio_again is {wrong!r}; it must be 0"):
            AVFullDiT("toy-t2av", audio_again=wrong)


@pytest.mark.parametrize("arm", ARMS)
def test_a_negative_caption_without_guidance_is_refused(arm):
    unguided = {"video_guidance": 1.0, **({"audio_guidance": 1.0} if arm == "toy-t2av" else {})}
    for name in ("video_negative", "audio_negative"):
        with pytest.raises(InputError, match=f"{name} does nothing where every guidance"):
            AVFullDiT(arm, **unguided, **{name: "a cup"})
    assert AVFullDiT(arm, video_guidance=2.0, video_negative="a cup").settings["video_negative"] == "a cup"
    for wrong, words in (
        ({"video_negative": 3}, "video_negative is 3; it must be text"),
        ({"device": 1}, "device is 1"),
    ):
        with pytest.raises(InputError, match=words):
            AVFullDiT.check(arm, **wrong)


@pytest.mark.slow
def test_one_arm_sounds():
    assert all(clip.audio is None for clip in clips("toy-t2v"))
    assert all(abs(clip.audio.waveform).max() > 0.01 for clip in clips("toy-t2av"))


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_the_named_colours_are_seen(arm):
    there = []
    for prompt, clip in zip(prompts(), clips(arm), strict=True):
        seen = {body.colour for frame in clip.frames for body in bodies(frame)}
        there += [body["colour"] in seen for body in prompt.tags["scene"]["bodies"]]
    assert sum(there) >= 0.8 * len(there)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.slow
def test_another_caption_makes_another_clip_of_the_same_noise(arm):
    (red,), (blue,) = (
        make(parts(arm), [Wish("ball", 0, f"A {colour} wooden ball falls onto the floor.", "")], 1)
        for colour in ("red", "blue")
    )
    assert [clip.audio is None for clip in (red, blue)] == [arm == "toy-t2v"] * 2
    assert "red" in {body.colour for body in bodies(red.frames[0])}
    assert "blue" in {body.colour for body in bodies(blue.frames[0])}
