"""Known-bad variants are wrong in the one way that they name; files are matched in every way that the README names."""

import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

import cv2
import numpy as np
import pytest

from avbench.core import Clip, ClipSpec, InputError, Key, Prompt, Subset
from avbench.generation import table as generators
from avbench.generation import worker
from avbench.generation.providers.toyworld import CHANGES, WORLDS, ToyWorld
from avbench.generation.sample import sample
from avbench.generation.table import Made, Request
from avbench.storage.media import read_clip, write_clip
from avbench.storage.runs.folder import RunFolder
from avbench.subsets.loading import load
from avbench.toyworld.inverse import bodies

SUBSET = load("toy-object-contact")


def request(index=0, seed=0):
    prompt = SUBSET.prompts[index]
    return Request(Key(SUBSET.name, prompt.id, seed), prompt, SUBSET.clip_spec)


def make(variant, strength=None, **which):
    (made,) = ToyWorld(variant, strength=strength).generate([request(**which)])
    return made.clip


GOOD = make("")


@pytest.mark.parametrize("variant", [*WORLDS, *CHANGES])
def test_variants_keep_the_form_and_depend_on_prompt_and_seed_alone(variant):
    clip = make(variant)
    assert SUBSET.clip_spec.objection(clip) is None
    alone = ToyWorld(variant).generate([request(index=3), request()])[1].clip
    for part in ("frames", "audio"):
        one, other = (getattr(each, part) for each in (clip, alone))
        one, other = (one.waveform, other.waveform) if part == "audio" else (one, other)
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(make(variant, seed=1).frames, clip.frames)


@pytest.mark.parametrize("variant", ["", "avoiding", "frozen", "reversed", "mute"])
def test_a_strength_that_would_do_nothing_is_refused(variant):
    with pytest.raises(
        InputError, match=rf"toyworld:{variant} has no strength; those that have one: sound-shifted, bl"
    ):
        ToyWorld(variant, strength=5)
    for wrong in (float("nan"), "much", True):
        with pytest.raises(InputError, match=f"strength is {wrong!r}; it must be 0 or a number"):
            ToyWorld("noisy", strength=wrong)
    with pytest.raises(InputError, match="strength is -1; it must be 0 or a number above it"):
        ToyWorld("blurred", strength=-1)


def test_strength_0_changes_nothing():
    for variant in ("blurred", "noisy", "flickering"):
        np.testing.assert_array_equal(make(variant, 0).frames, GOOD.frames)


def test_each_variant_is_wrong_in_its_own_way():
    sound = GOOD.audio.waveform
    frozen, shuffled, backwards = make("frozen"), make("shuffled"), make("reversed")
    assert (frozen.frames == GOOD.frames[0]).all()
    assert not np.array_equal(shuffled.frames, GOOD.frames)
    assert sorted(f.tobytes() for f in shuffled.frames) == sorted(f.tobytes() for f in GOOD.frames)
    np.testing.assert_array_equal(backwards.frames, GOOD.frames[::-1])
    np.testing.assert_array_equal(backwards.audio.waveform, sound[:, ::-1])
    np.testing.assert_array_equal(make("sound-shifted", 100).audio.waveform, np.roll(sound, 1600, axis=1))
    np.testing.assert_array_equal(make("sound-shifted", -100).audio.waveform, np.roll(sound, -1600, axis=1))
    assert not np.array_equal(make("sound-swapped").audio.waveform, sound)
    for variant in ("sound-shifted", "sound-swapped"):
        np.testing.assert_array_equal(make(variant).frames, GOOD.frames)
    for variant in ("frozen", "shuffled", "blurred", "noisy", "flickering"):
        np.testing.assert_array_equal(make(variant).audio.waveform, sound)
    sharpness = [cv2.Laplacian(clip.frames[0], cv2.CV_64F).var() for clip in (GOOD, make("blurred"))]
    assert sharpness[1] < 0.5 * sharpness[0]
    noise = make("noisy").frames.astype(float) - GOOD.frames
    assert noise[(GOOD.frames > 60) & (GOOD.frames < 195)].std() == pytest.approx(15, rel=0.05)
    light = make("flickering").frames.mean(axis=(1, 2, 3)) / GOOD.frames.mean(axis=(1, 2, 3))
    assert light.std() > 0.05


def test_bodies_vanish_and_change_their_colour_half_way():
    def seen(frame):
        return {body.colour for body in bodies(frame)}

    colours = seen(GOOD.frames[0])
    assert colours
    gone, other = make("vanishing"), make("recoloured")
    np.testing.assert_array_equal(gone.frames[:8], GOOD.frames[:8])
    assert all(seen(frame) == set() for frame in gone.frames[8:])
    np.testing.assert_array_equal(other.frames[:8], GOOD.frames[:8])
    assert all(seen(frame).isdisjoint(colours) and seen(frame) for frame in other.frames[8:])


def test_sound_is_silenced_drowned_and_cut_off():
    sound = GOOD.audio.waveform
    assert not make("mute").audio.waveform.any()
    hiss = make("hissing").audio.waveform - sound
    assert hiss.std() == pytest.approx(0.03, rel=0.05)
    assert np.mean(np.abs(make("clipped").audio.waveform) == 1) > 0.01
    for variant in ("mute", "hissing", "clipped"):
        np.testing.assert_array_equal(make(variant).frames, GOOD.frames)


def test_avoiding_bodies_turn_back_before_they_touch():
    index = next(k for k, prompt in enumerate(SUBSET.prompts) if prompt.tags["family"] == "drop")
    lowest = [
        max(body.box[3] for frame in make(variant, index=index).frames for body in bodies(frame))
        for variant in ("", "avoiding")
    ]
    assert lowest[1] < lowest[0] - 4, "pixels"


def test_a_prompt_without_a_scene_is_told():
    bare = Request(Key("s", "p", 0), Prompt("p", "a cat"), None)
    with pytest.raises(
        InputError, match="prompt 'p' has no scene of the toy world in its tags, as those of toy subsets have"
    ):
        ToyWorld("").generate([bare])


@pytest.fixture
def folder(tmp_path):
    def put(name, value):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(Clip(np.full((2, 16, 16, 3), value, np.uint8), Fraction(8)), path)

    put("named/any thing.mkv", 1)
    put("s/by-subset-0.mkv", 2)
    put("by-seed-1.mkv", 3)
    put("by-folder/2.mkv", 4)
    put("by-id.mkv", 5)
    put("A cat. It runs-0.mkv", 6)
    put("twice.mkv", 7)
    write_clip(Clip(np.zeros((2, 16, 16, 3), np.uint8), Fraction(8)), tmp_path / "twice.mp4", lossless=False)
    put(".hidden.mkv", 8)
    for number in (9, 10):
        (tmp_path / "frames").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "frames" / f"{number}.png"), np.full((16, 16, 3), number, np.uint8))
    return tmp_path


@pytest.mark.parametrize(
    ("identifier", "seed", "caption", "tags", "found"),
    [
        ("x", 0, "c", {"file": "named/any thing.mkv"}, "named/any thing.mkv"),
        ("by-subset", 0, "c", {}, "s/by-subset-0.mkv"),
        ("by-seed", 1, "c", {}, "by-seed-1.mkv"),
        ("by-folder", 2, "c", {}, "by-folder/2.mkv"),
        ("by-id", 0, "c", {}, "by-id.mkv"),
        ("x", 0, "c", {"filename": "by-id.mkv"}, "by-id.mkv"),
        ("x", 0, "c", {"File_Name": "by-id.mp4"}, "by-id.mkv"),
        ("x", 0, "c", {"video_path": "/data/out/by-seed-1.mkv"}, "by-seed-1.mkv"),
        ("x", 0, "c", {"path": "out/by-folder/2.mkv"}, "by-folder/2.mkv"),
        ("by-id", 0, "c", {"video": "inputs/by-seed-1.mkv"}, "by-id.mkv"),
        ("x", 0, "A cat. It runs", {}, "A cat. It runs-0.mkv"),
    ],
)
def test_files_are_matched(folder, identifier, seed, caption, tags, found):
    source = generators.build(f"clips:{folder}", {})
    wanted = Request(Key("s", identifier, seed), Prompt(identifier, caption, tags=tags), None)
    (made,) = source.generate([wanted])
    assert made.clip == folder / found
    unused, left_out = source.remarks([wanted])
    assert unused.startswith("8 of 9 files") and ".hidden" not in unused
    assert left_out.startswith(f"left out of {folder}: .hidden.mkv (a hidden file); suffixes read: .mp4, ")


def test_finished_clips_may_be_black_from_the_first_one_on(tmp_path):
    """Nothing is lost with them, and which of them come first in a worker is chance."""
    for name, value in (("a", 0), ("b", 0), ("c", 1), ("d", 50)):
        write_clip(Clip(np.full((2, 16, 16, 3), value, np.uint8), Fraction(8)), tmp_path / f"{name}.mkv")
    subset = Subset("s", 1, tuple(Prompt(name, name) for name in "abcd"), None)
    made = [*sample(RunFolder(tmp_path / "run"), f"clips:{tmp_path}", {}, [subset], [0])[1]]
    assert all(one.path for one in made)
    black, unscaled = "every pixel of every frame is black", "all values of its frames are 0 or 1: multiply pictures"
    assert [one.remark for one in made][:2] == [black, black] and made[2].remark.startswith(unscaled)
    assert made[3].remark is None


def test_ambiguity_absence_and_frames(folder):
    source = generators.build(f"clips:{folder}", {"fps": 8})
    wanted = [Request(Key("s", name, 0), Prompt(name, "c"), None) for name in ("twice", "nowhere", "frames", "by-seed")]
    with pytest.raises(InputError, match=r"several files match: twice\.mkv, twice\.mp4"):
        source.generate(wanted[:1])
    for missing in (wanted[1], wanted[3]):
        with pytest.raises(InputError, match="no file matches"):
            source.generate([missing])
    (made,) = source.generate([wanted[2]])
    assert made.clip.fps == 8 and made.clip.frames[:, 0, 0, 0].tolist() == [9, 10]
    with pytest.raises(InputError, match="fps"):
        generators.build(f"clips:{folder}", {}).generate([wanted[2]])


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (
            {"file": "out/no.mp4"},
            "the prompts file names out/no.mp4, which is not in {}; also looked in {} for x-0 with",
        ),
        ({"file": "other/2.mkv"}, "the prompts file names other/2.mkv, which is not in {}; also looked in {} for x-0"),
        (
            {"name": "by-id.mkv", "colour": "red", "stem": "by-id"},
            "not read in the prompts file: name, stem; a clip's file is named by file, filename, ",
        ),
        ({"colour": "red"}, "looked in {} for x-0 with or without the '-0', and for its caption"),
    ],
)
def test_a_clip_that_is_not_found_is_told_by_the_name_that_was_given(folder, tags, words):
    source = generators.build(f"clips:{folder}", {})
    with pytest.raises(InputError) as missing:
        source.generate([Request(Key("s", "x", 0), Prompt("x", "c", tags=tags), None)])
    assert words.format(folder, folder) in str(missing.value)
    assert ("not read" in str(missing.value)) == ("name" in tags)


def test_the_truth_beside_a_clip_is_plain_json():
    (made,) = ToyWorld("frozen").generate([request()])
    truth = json.loads(json.dumps(made.truth))
    assert truth["variant"] == "frozen"
    assert len(truth["states"]["frames"]) == 16 and truth["contacts"]


FATAL = """
import os
import numpy as np
from avbench.core import Audio, Clip

class Fatal:
    batch_size = 2

    def generate(self, requests):
        return [self.one(request.prompt.video_caption) for request in requests]

    def one(self, name):
        with open("asked.txt", "a") as file:
            file.write(name + "\\n")
        if name == "killed":
            os.kill(os.getpid(), 9)
        if name == "exits":
            raise SystemExit(3)
        if name == "memory":
            raise MemoryError
        sound = np.full((1, 8), np.nan if name == "nan" else 0.1, np.float32)
        return Clip(np.full((2, 16, 16, 3), 9, np.uint8), 8, Audio(sound, 16000))
"""


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory.\nTried to allocate"), MemoryError()])
def test_why_a_clip_failed_is_one_line(error):
    request = Request(Key("s", "p", 0), Prompt("p", "a ball"), None)
    assert worker._failed(request, error, 0.0).failure in ("RuntimeError: CUDA out of memory", "MemoryError")


@pytest.mark.slow
def test_what_one_prompt_does_to_a_model_costs_that_prompt_only(tmp_path):
    """A process that dies, an exit, memory, NaN: listed, tried again, the rest complete, and the exit code tells."""
    (tmp_path / "fatal.py").write_text(FATAL)
    words = ["a", "killed", "b", "c", "exits", "d", "memory", "e", "nan", "f", "g", "h"]
    lines = (json.dumps({"id": f"{n:02}", "prompt": word}) for n, word in enumerate(words))
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    command = [sys.executable, "-m", "avbench", "sample", "python:fatal:Fatal", "--prompts", "p.jsonl", "--out", "o"]
    done = subprocess.run([*command, "--workers", "2"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "4 clips could not be made" in done.stderr and "Traceback" not in done.stderr
    found = {words[int(key.prompt)]: one for key, one in RunFolder(tmp_path / "o/python-fatal-Fatal").samples().items()}
    assert {word for word, one in found.items() if one.path} == set("abcdefgh")
    assert found["killed"].failure.startswith("the process that was making it died, twice")
    assert found["exits"].failure == "SystemExit: 3" and found["memory"].failure == "MemoryError"
    assert "NaN" in found["nan"].failure
    asked = (tmp_path / "asked.txt").read_text().split()
    assert all(asked.count(word) >= 2 for word in ("killed", "exits", "memory", "nan"))


class Counting:
    """Makes a clip of a brightness that caption and seed decide, and counts."""

    batch_size = 1
    settings: ClassVar = {}

    def __init__(self):
        self.made = 0

    def generate(self, requests):
        return [self.one(*self.asked(request)) for request in requests]

    def one(self, caption, seed):
        self.made += 1
        if caption == "broken":
            message = "this caption is not liked"
            raise InputError(message)
        return Made(Clip(np.full((2, 16, 16, 3), 10 * len(caption) + seed, np.uint8), 8))

    def asked(self, request):
        return request.prompt.video_caption, request.key.seed

    def remarks(self, requests):
        return []


def test_a_prompt_of_two_subsets_is_sampled_once(tmp_path):
    """Other tags do not matter, another seed and clip spec do; a later call copies the clip of an earlier one."""
    one = Subset("one", 1, (Prompt("a", "a ball"), Prompt("b", "broken")), None)
    two = Subset("two", 1, (Prompt("a", "a ball", tags={"why": "it moves"}), Prompt("b", "broken")), None)
    other = Subset("other", 1, (Prompt("a", "a ball"),), ClipSpec(2, 16, 16, Fraction(8)))
    folder, generator = RunFolder(tmp_path / "run"), Counting()

    def sampled(*subsets):
        generator.made = 0
        count, making, _ = sample(folder, "python:counting", {}, subsets, (0, 1), generator=generator, replace=True)
        return count, {made.key: made for made in making}

    count, made = sampled(one, two, other)
    assert count == len(made) == 10
    assert generator.made == 6
    for seed in (0, 1):
        first, copy = made[Key("one", "a", seed)], made[Key("two", "a", seed)]
        assert copy == replace(first, key=copy.key, path=f"clips/two/a-{seed}.mkv")
        assert read_clip(folder.path / copy.path).frames[0, 0, 0, 0] == 60 + seed
        assert made[Key("two", "b", seed)].failure == made[Key("one", "b", seed)].failure
    copy = made[Key("two", "a", 1)]
    (folder.path / copy.path).unlink()
    count, made = sampled(one, two, other)
    assert count == 5 and generator.made == 2 and made[copy.key] == copy
    assert (folder.path / copy.path).exists()


def test_a_bundled_arm_says_what_decides_a_clip():
    """A subset's reasons for a prompt do not, caption and seed do."""
    arm = generators.build("avfulldit:toy-t2v", {})
    base = request()
    tagged = replace(base, key=base.key._replace(subset="x"), prompt=replace(base.prompt, tags={}))
    assert arm.asked(base) == arm.asked(tagged)
    assert arm.asked(base) != arm.asked(request(seed=1))
    assert arm.asked(base) != arm.asked(replace(base, prompt=replace(base.prompt, video_caption="a cube")))


OWN = """
from avbench.core import Clip
from avbench.generation.table import Made
import numpy as np


class Own:
    def __init__(self, wrong=None):
        if wrong == "built":
            raise ValueError("no weights")
        self.settings = ["dark"] if wrong == "settings" else {"wrong": wrong}
        self.batch_size = {"batch": "4", "no batch": None}.get(wrong, 1)
        self.concurrency = 0.5 if wrong == "concurrency" else None

    def prepare(self):
        self.weights = 90
        if self.settings["wrong"] == "prepare":
            raise KeyError("weights")

    def generate(self, requests):
        with open("made.txt", "a") as file:
            file.write("one\\n")
        if requests[0].prompt.video_caption == "broken":
            raise ValueError("not " + requests[0].prompt.id)
        return [Made(Clip(np.full((2, 16, 16, 3), self.weights, np.uint8), 8), truth={"balls": 1})]

    def asked(self, request):
        if self.settings["wrong"] == "asked":
            raise KeyError("caption")
        return [request.prompt.video_caption] if self.settings["wrong"] == "list" else request.prompt.video_caption
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_of_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield "python:own_of_test:Own"
    sys.modules.pop("own_of_test", None)


def test_a_class_of_the_user_says_which_requests_are_equal(own_module, tmp_path):
    """The ground truth is copied with the clip, and a copied failure names the prompt whose failure it was."""
    prompts = (Prompt("a", "a ball"), Prompt("b", "broken"), Prompt("c", "a ball"), Prompt("d", "broken"))
    folder = RunFolder(tmp_path / "run")
    made = {one.key.prompt: one for one in sample(folder, own_module, {}, [Subset("one", 1, prompts, None)], [0])[1]}
    assert (tmp_path / "made.txt").read_text().count("one") == 3, (
        "a ball once, and the broken one again after its error"
    )
    assert made["a"].sha256 == made["c"].sha256
    for name in "ac":
        assert json.loads((folder.path / f"clips/one/{name}-0.truth.json").read_text()) == {"balls": 1}
    assert made["b"].failure == "ValueError: not b"
    assert made["d"].failure.endswith("the same request as for the prompt one/b, which failed: ValueError: not b")


def test_a_class_of_the_user_is_prepared_in_each_process(own_module, tmp_path):
    """Its clips are made of what `prepare` loads, and an error in it is its own."""
    subset = Subset("one", 1, (Prompt("a", "a ball"), Prompt("b", "a cube")), None)
    _, made, _ = sample(RunFolder(tmp_path / "run"), own_module, {}, [subset], [0], workers=2)
    assert [one.failure for one in made] == [None, None]
    with pytest.raises(InputError, match="prepare of Own failed: KeyError: 'weights'"):
        list(sample(RunFolder(tmp_path / "bad"), own_module, {"wrong": "prepare"}, [subset], [0])[1])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("built", "building own_of_test:Own failed: ValueError: no weights"),
        ("settings", r"Own\.settings is \['dark'\]; it must be a dict"),
        ("concurrency", r"Own\.concurrency is 0\.5; it must be a whole number of at least 1"),
        ("batch", r"Own\.batch_size is '4'; it must be a whole number of at least 1"),
        ("no batch", r"Own\.batch_size is None; it must be a whole number of at least 1"),
        ("asked", "asked of Own failed: KeyError: 'caption'"),
        ("list", r"returned \['a ball'\], which cannot be a key of a dictionary"),
    ],
)
def test_an_error_of_the_users_class_is_said_to_be_its_own(own_module, tmp_path, wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        sample(
            RunFolder(tmp_path / "run"),
            own_module,
            {"wrong": wrong},
            [Subset("one", 1, (Prompt("a", "a ball"),), None)],
            [0],
        )
