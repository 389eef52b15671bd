"""The embedded world is deterministic, true to its captions, and its sound comes from its contacts."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avbench.core import InputError
from avbench.toyworld import (
    CLIP_SPEC,
    FAMILIES,
    MATERIALS,
    Scene,
    audio_caption,
    make_clip,
    random_scene,
    simulate,
    video_caption,
)
from avbench.toyworld.captions import WORDINGS

SILENT = ("pendulum", "oscillate", "drift")


def scenes(family, count=4):
    rng = np.random.default_rng(3)
    return [random_scene(family, rng) for _ in range(count)]


def fingerprint(family, seed):
    clip, truth = make_clip(scenes(family, 1)[0], seed)
    parts = (
        clip.frames.tobytes(),
        clip.audio.waveform.tobytes(),
        truth.states.tobytes(),
        repr(truth.contacts).encode(),
    )
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_makes_clips_of_the_spec(family):
    for seed, scene in enumerate(scenes(family)):
        clip, truth = make_clip(scene, seed)
        assert CLIP_SPEC.objection(clip) is None
        assert truth.states.shape == (16, len(scene.bodies), 6)
        assert np.isfinite(truth.states).all()
        assert bool(truth.contacts) == (family not in SILENT)
        assert all(0 <= contact.seconds < 2 and contact.impulse > 0 for contact in truth.contacts)
        assert (clip.audio.waveform * 32768 % 1 == 0).all()  # on the 16-bit grid


@pytest.mark.slow
def test_the_same_in_another_process():
    here = [fingerprint(family, 7) for family in FAMILIES]
    code = "from test_toyworld import *; print(*[fingerprint(family, 7) for family in reversed(FAMILIES)])"
    # in this folder: some packages install a `tests` of their own
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    there = done.stdout.split()
    assert there[::-1] == here
    assert len({*here, *[fingerprint(family, 8) for family in FAMILIES]}) == 2 * len(FAMILIES)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(SILENT)))
def test_nothing_sounds_before_the_first_contact_and_something_after(family):
    for seed, scene in enumerate(scenes(family)):
        clip, truth = make_clip(scene, seed)
        first = round(min(contact.seconds for contact in truth.contacts) * 16_000)
        wave = np.abs(clip.audio.waveform[0])
        assert wave[:first].max(initial=0) < 0.005
        assert wave[first : first + 1600].max() > 0.02


def test_worlds_without_contact_or_gravity():
    for family in ("drop", "collide", "projectile", "cradle", "hammer"):
        for seed, scene in enumerate(scenes(family, 2)):
            assert not make_clip(scene, seed, contacts=False)[1].contacts
    scene = scenes("drop", 1)[0]
    heights = make_clip(scene, 0, gravity=False)[1].states[:8, 0, 1]
    np.testing.assert_allclose(heights, heights[0])


def test_falling_is_free_fall():
    _, truth = make_clip(scenes("drop", 1)[0], 0)
    first = min(contact.seconds for contact in truth.contacts)
    frames = int(first * 8)
    seconds = np.arange(frames) / 8
    expected = truth.states[0, 0, 1] - 9.81 * seconds**2 / 2
    np.testing.assert_allclose(truth.states[:frames, 0, 1], expected, atol=0.02)


@pytest.mark.parametrize("fps", [8, 25, Fraction(30_000, 1001), 7])
def test_frames_show_their_own_time_at_any_rate(fps):
    _, truth = simulate(scenes("drift", 1)[0], 0, replace(CLIP_SPEC, fps=Fraction(fps), frames=48))
    start = truth.states[0, 0]
    seconds = (truth.states[:, 0, 0] - start[0]) / start[2]  # nothing changes its velocity
    np.testing.assert_allclose(seconds, np.arange(48) / float(fps), atol=0.0011, err_msg="half a step")


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_tell_the_scene(family):
    for scene in scenes(family):
        texts = [video_caption(scene, wording) for wording in range(WORDINGS)]
        assert len(set(texts)) == WORDINGS
        for text in texts:
            assert text[0].isupper() and text.endswith(".") and "{" not in text
            assert all(body.colour in text for body in scene.bodies)
            assert "a orange" not in text.lower()
        assert len({audio_caption(scene, wording) for wording in range(WORDINGS)}) == WORDINGS
        said = {"rubber": "rubber", "wood": "wooden", "metal": "metal", "glass": "glass"}
        assert all(f"{body.colour} {said[body.material]}" in text for text in texts for body in scene.bodies)
        words = {"rubber": "thud", "wood": "knock", "metal": "clang", "glass": "clink"}
        for wording in range(WORDINGS):
            heard = audio_caption(scene, wording).lower()
            told = {material for material, word in words.items() if word in heard}
            assert told == (set() if family in SILENT else {scene.bodies[-1].material}), heard


def test_scenes_survive_json_and_wrong_ones_are_named():
    scene = scenes("collide", 1)[0]
    assert Scene.from_json(scene.to_json()) == scene
    with pytest.raises(InputError, match="did you mean 'drop'"):
        Scene.from_json({**scene.to_json(), "family": "dorp"})
    with pytest.raises(InputError, match="bodies"):
        Scene.from_json({"family": "drop", "floor": "wood"})
    with pytest.raises(InputError, match="2 bodies, not 1"):
        Scene.from_json({**scene.to_json(), "bodies": scene.to_json()["bodies"][:1]})


def test_materials_ring_differently():
    def centroid(material):
        scene = Scene.from_json(
            {
                "family": "hammer",
                "bodies": [
                    {"shape": "box", "material": material, "colour": c, "size": "small"} for c in ("red", "blue")
                ],
                "floor": "wood",
            }
        )
        spectrum = np.abs(np.fft.rfft(make_clip(scene, 0)[0].audio.waveform[0])) ** 2
        return (spectrum * np.arange(len(spectrum))).sum() / spectrum.sum() / 2

    pitches = {material: centroid(material) for material in MATERIALS}
    assert pitches["rubber"] < pitches["wood"] < pitches["metal"] < pitches["glass"]
