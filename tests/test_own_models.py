"""A class, a package, a script and a training loop of the user's own: what they give, and what goes wrong in them."""

import gc
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import weakref
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from command_line import run_avbench
from processes import wait_until, written

from avbench.api import run
from avbench.api.hook import training_hook
from avbench.cli import machine_checks
from avbench.core import Audio, Clip, InputError, Prompt, Subset
from avbench.generation.contract import check
from avbench.generation.providers import cmd
from avbench.generation.providers.python import OwnModel
from avbench.generation.providers.toyworld import ToyWorld
from avbench.generation.sample import sample
from avbench.generation.settings import check_settings, grouped
from avbench.generation.table import Made, build, known_as
from avbench.storage.media import read_clip, write_clip
from avbench.storage.runs.folder import RunFolder
from avbench.storage.workers import worker_pool
from avbench.subsets.loading import from_prompts_file, load

DOCS = Path(__file__).parents[1] / "docs" / "your-model.md"
SUBSET = load("toy-control")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("my_model", "bad_model", "wrong_model"):
        sys.modules.pop(name, None)


def example():
    (code,) = re.findall(r"```python\n(# my_model\.py\n.*?)```", DOCS.read_text(), re.DOTALL)
    return code


def outcome(source):
    return {one.name: one for one in check(lambda: source if not callable(source) else source(), SUBSET)}


# ---- python:


def test_the_example_of_the_docs_keeps_the_contract(here):
    (here / "my_model.py").write_text(example())
    found = run_avbench("doctor", "--model", "python:my_model:Noise", "-M", "brightness=200", code=None)
    assert found.exit_code == 0 and found.output.count("ok: ") == 9, found.output
    folder = RunFolder(here / "r")
    run = sample(folder, "python:my_model:Noise", {"brightness": 200}, [SUBSET.limited(3)], [0])
    assert [one.failure for one in run[1]] == [None] * 3
    (here / "p.jsonl").write_text('{"id": "x", "prompt": "a cat"}')
    own = RunFolder(here / "own")
    (made,) = sample(own, "python:my_model:Noise", {}, [from_prompts_file(here / "p.jsonl")], [0])[1]
    assert made.failure is None, "prompts of one's own ask for no form"
    settings = folder.run().settings
    assert settings["brightness"] == 200 and len(settings["source_sha256"]) == 64


def test_what_is_wrong_with_a_class_is_a_sentence(here):
    (here / "my_model.py").write_text(example())
    (here / "bad_model.py").write_text("import nowhere")
    (here / "wrong_model.py").write_text("class X:\n    def __init__(self):\n        self.y = 1 / 0\n")
    for model, settings, message in (
        ("python:my_model:Noise", {"brightnes": 1}, "did you mean 'brightness'"),
        ("python:my_model:Noise", {"target": 1}, "python:my_model:Noise has no setting 'target'; choices: brightness"),
        (
            "python:my_model:Noise",
            {"journal": 1},
            "python:my_model:Noise has no setting 'journal'; choices: brightness",
        ),
        ("python:my_model:Nois", {}, "did you mean 'Noise'"),
        ("python:my_model:np", {}, "is no generator: it is not callable and has no method generate"),
        ("python:my_model", {}, "write python:package.module:Class"),
        ("python:my_modell:Noise", {}, "there is no module my_modell in"),
        ("python:my_models.noise:Noise", {}, "there is no module my_models in"),
        ("python:my_model.py:Noise", {}, "for the file my_model.py write python:my_model:Noise"),
        ("python::Noise", {}, "write python:package.module:Class"),
        ("python:bad_model:X", {}, "importing bad_model failed: ModuleNotFoundError: No module named 'nowhere'"),
        ("python:wrong_model:X", {}, "building wrong_model:X failed: ZeroDivisionError"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            build(model, settings)
        (said,) = check(lambda model=model, settings=settings: build(model, settings), SUBSET)
        assert message in said.words and "plain values" not in said.words


def test_settings_that_are_not_plain_values_are_told_apart_from_a_model_that_cannot_be_built():
    model = SimpleNamespace(settings={"device": object()})
    (said,) = check(lambda: model, SUBSET)
    assert said.words.startswith("its settings are not plain values: ")


def plugged_in(here, *generators):
    info = here / "mine-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: mine\nVersion: 1\n")
    (info / "entry_points.txt").write_text("\n".join(["[avbench.generators]", *generators]))
    sys.path.append(str(here))


def test_a_package_brings_a_provider(here):
    (here / "my_model.py").write_text("from avbench.generation.providers.toyworld import ToyWorld as Mine")
    plugged_in(here, "mine = my_model:Mine", "broken = my_model:Absent")
    assert build("mine:noisy", {"strength": 3}).settings["strength"] == 3
    with pytest.raises(InputError, match="mine has no setting 'strong'"):
        build("mine:noisy", {"strong": 3})
    with pytest.raises(InputError, match=r"the generator 'broken' .* of the package mine 1 cannot be used"):
        build("broken:", {})
    with pytest.raises(InputError, match="did you mean 'mine'"):
        build("mines:", {})


PLUGGED = """
import os
from pathlib import Path
from avbench.generation.providers.toyworld import ToyWorld

os.chdir(Path(__file__).parent / "home")

class Mine(ToyWorld):
    def __init__(self, target, threads: int = 1):
        super().__init__("")
        self.concurrency = threads
        self.settings = {**self.settings, "weights": Path("weights.txt").read_text()}
    def generate(self, requests):
        assert Path("weights.txt").is_file()
        return super().generate(requests)
"""


def test_a_packages_code_stays_in_the_folder_that_its_import_goes_to(here):
    (here / "home").mkdir()
    (here / "home" / "weights.txt").write_text("1")
    (here / "my_model.py").write_text(PLUGGED)
    plugged_in(here, "mine = my_model:Mine")
    known_as("mine:", {})  # the import is done once
    run = sample(RunFolder(Path("r")), "mine:", {}, [SUBSET.limited(2)], [0])
    assert [one.failure for one in run[1]] == [None] * 2 and Path.cwd() == here
    with pytest.raises(InputError, match=r"changed the working folder to .*home, which the threads"):
        build("mine:", {"threads": 2})


@pytest.mark.parametrize(
    ("returned", "sentence"), [(None, "a NoneType; it must return a list"), (["x"], "a str; it must")]
)
def test_what_a_generator_returns_wrongly_is_said(returned, sentence):
    model = SimpleNamespace(settings={}, generate=lambda requests: returned)
    assert sentence in outcome(model)["clips"].words


def test_clips_that_are_yielded_one_by_one_may_share_their_arrays(here):
    """A model may write each clip into the arrays of the one before."""

    class Reusing:
        batch_size = 3

        def generate(self, requests):
            pixels, samples = np.zeros((2, 16, 16, 3), np.uint8), np.zeros((1, 4000), np.float32)
            for number, _ in enumerate(requests):
                pixels[:], samples[:] = 50 + number, number / 8
                clip = Clip(pixels, 8, Audio(samples, 16000))
                yield Made(clip) if number == 1 else clip

    subset = Subset("s", 1, tuple(Prompt(name, "a cat") for name in "abc"), None)
    samples = sample(RunFolder(here / "r"), "mine", {}, [subset], [0], generator=OwnModel(Reusing()))[1]
    clips = [read_clip(here / "r" / one.path) for one in samples]
    assert [int(clip.frames.max()) for clip in clips] == [50, 51, 52]
    assert [round(float(clip.audio.waveform.max()), 3) for clip in clips] == [0, 0.125, 0.25]


def test_settings_in_groups_are_typed_flat():
    @dataclass(frozen=True)
    class Size:
        width: int = 8
        height: int = 6

    @dataclass(frozen=True)
    class Speed:
        fps: float = 24.0

    class Model:
        setting_groups = (Size, Speed)

        def __init__(self, target, **settings):
            self.groups = grouped(settings, Size, Speed)

    check_settings(Model, ["fps", "width"], "mine")
    assert Model("", fps=12.0, width=4).groups == [Size(4, 6), Speed(12.0)]
    for wrong in ("widht", "settings"):
        with pytest.raises(InputError, match=f"mine has no setting '{wrong}'"):
            check_settings(Model, [wrong], "mine")
        with pytest.raises(TypeError, match=wrong):
            Model("", **{wrong: 4})


# ---- the contract


class Toy:
    """The world as somebody's model, wrong in one way."""

    batch_size = 2

    def __init__(self, change=lambda clip, request, toy: clip):
        self.change, self.count, self.settings = change, 0, {}

    def generate(self, requests):
        made = ToyWorld("").generate(requests)
        self.count += 1
        return [type(one)(self.change(one.clip, request, self)) for one, request in zip(made, requests, strict=True)]


def replaced(clip, frames=None, audio=None):
    return Clip(clip.frames if frames is None else frames, clip.fps, audio or clip.audio)


def shortened(clip, request, toy):
    from avbench.core import Audio

    return replaced(clip, audio=Audio(clip.audio.waveform[:, : clip.audio.samples // 2].copy(), 16000))


DRAWN = random.Random(0)
BROKEN = {
    "again": lambda clip, request, toy: replaced(clip, clip.frames ^ np.uint8(DRAWN.randrange(256))),
    "order": lambda clip, request, toy: replaced(
        clip, clip.frames ^ np.uint8(request.prompt.id[-1] != "x" and toy.count > 1)
    ),
    "form": lambda clip, request, toy: replaced(clip, clip.frames[:-1]),
    "picture": lambda clip, request, toy: replaced(clip, np.full_like(clip.frames, 7)),
    "unscaled": lambda clip, request, toy: replaced(clip, (clip.frames / 255).round().astype(np.uint8)),
    "sound": shortened,
}


def test_a_generator_that_keeps_the_contract_passes():
    found = outcome(Toy)
    assert all(one.ok for one in found.values()) and len(found) == 9
    assert "batches of 2" in found["order"].words


@pytest.mark.parametrize(
    ("built", "asked", "check", "words"),
    [
        (0, 99, "settings", "it cannot be built: SystemExit: no config"),
        (1, 99, "again", "it cannot be built a second time: SystemExit: no config"),
        (9, 0, "clips", "3 of 3 clips could not be made: SystemExit: 3"),
        (9, 3, "again", "SystemExit: 3"),
        (9, 4, "order", "in reverse order and in batches of 2, SystemExit: 3"),
    ],
)
def test_a_generator_that_ends_the_process_fails_its_check(built, asked, check, words):
    """At whichever of its builds and calls it does."""
    builds, calls = iter(range(99)), iter(range(99))

    class Ends(Toy):
        def __init__(self):
            super().__init__()
            if next(builds) >= built:
                sys.exit("no config")

        def generate(self, requests):
            if next(calls) >= asked:
                sys.exit(3)
            return super().generate(requests)

    found = outcome(Ends)
    assert (found[check].ok, found[check].words) == (False, words)


def test_a_generator_is_prepared_once_in_each_process():
    class Loads(Toy):
        prepared = 0

        def prepare(self):
            self.prepared += 1

        def generate(self, requests):
            assert self.prepared == 1, f"prepare was called {self.prepared} times"
            return super().generate(requests)

    assert all(one.ok for one in outcome(Loads).values())


@pytest.mark.parametrize("broken", BROKEN)
def test_each_check_finds_what_it_is_for(broken):
    found = outcome(lambda: Toy(BROKEN[broken]))
    assert found["picture" if broken == "unscaled" else broken].ok is False, found
    if broken == "unscaled":
        assert "multiply pictures in 0...1 by 255" in found["picture"].words
    if broken == "again":
        assert "of 16 frames, by up to" in found["again"].words and found["order"].ok is None


def test_seeds_prompts_nan_counts_and_settings_are_checked():
    same = ToyWorld("").generate([])

    class Deaf(Toy):
        def generate(self, requests):
            first = type(requests[0])(requests[0].key._replace(seed=0), SUBSET.prompts[0], SUBSET.clip_spec)
            return ToyWorld("").generate([first]) * len(requests)

    found = outcome(Deaf)
    assert found["seeds"].ok is False and found["prompts"].ok is False and found["again"].ok and same == []

    class Few(Toy):
        def generate(self, requests):
            return []

    assert "returned 0 clips for 1 request" in outcome(Few)["clips"].words

    class NaN(Toy):
        def generate(self, requests):
            from avbench.core import Audio

            return [Audio(np.full((1, 4), np.nan, np.float32), 16000)]

    assert "NaN" in outcome(NaN)["clips"].words
    unplain = Toy()
    unplain.settings = {"model": object()}
    (only,) = outcome(unplain).values()
    assert only.ok is False and "not JSON serializable" in only.words
    bare = Subset("bare", 1, (Prompt("p", "a cat"),), None)
    (_, clips) = check(lambda: ToyWorld(""), bare)
    assert clips.ok is False and "3 of" not in clips.words and "2 of 2 clips" in clips.words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("the world\nended"), "the world ended"),
        (RuntimeError("CUDA out of memory.\nTried to allocate"), "RuntimeError: CUDA out of memory"),
    ],
)
def test_doctor_says_in_a_line_why_there_is_no_toy_clip(tmp_path, monkeypatch, error, words):
    class Broken:
        def generate(self, requests):
            return [error for _ in requests]

    monkeypatch.setattr(machine_checks.generators, "build", lambda *_: Broken())
    machine_checks._toy_clip.cache_clear()
    monkeypatch.setattr(machine_checks, "_weights", lambda: [])
    found = {one.name: one.words for one in machine_checks.checks(tmp_path)}
    assert found["toy clip"] == words and found["measuring"] == "there is no clip to try it on"


@pytest.mark.slow
def test_doctor_looks_at_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("avbench.cli.machine_checks._LEAST_DISK_BYTES", 10**18)
    found = run_avbench("doctor", "--out", tmp_path / "runs", code=None)
    assert "FFV1 and FLAC comes back as it was" in found.output and "by flow-dis" in found.output
    assert found.exit_code == 1 and "failed: disk: " in found.output
    assert "$AVBENCH_JUDGE is not set" in found.output and "bf16: " in found.output and "ray" in found.output
    monkeypatch.setenv("AVBENCH_JUDGE", "http://localhost:9/v1#model")
    assert "failed: judge server: " in run_avbench("doctor", "--out", tmp_path / "runs", code=None).output
    assert run_avbench("doctor", "--model", "toyworl:", code=None).exit_code == 1


FORKING = """
import os, sys
from avbench.core import Subset
from avbench.generation.providers.toyworld import ToyWorld
from avbench.generation.sample import sample
from avbench.metrics import evaluate
from avbench.storage.runs.folder import RunFolder
from avbench.storage.workers.worker_pool import LocalPool
from avbench.subsets.loading import load
from pathlib import Path

def forked(end):
    if child := os.fork():
        return os.waitpid(child, 0)
    end()

def mute():
    sys.stdout.close()
    sys.stderr = None
    sys.exit("nobody reads it")

def make(request):
    for end, code in ((sys.exit, 0), (lambda: 1 / 0, 1), (lambda: None, 0), (mute, 1), (lambda: sys.exit(2**40), 0)):
        ended = forked(end)
        if not ended:
            return None
        assert os.waitstatus_to_exitcode(ended[1]) == code
    return ToyWorld("").generate([request])[0].clip

def measure(task):
    forked(lambda: sys.exit("the child's own words"))
    return task

def score(task, samples):
    forked(sys.exit)
    raise ValueError("of the parent")

if __name__ == "__main__":
    (one,) = sample(RunFolder(Path("r")), "python:my_model:make", {}, [load("toy-control").limited(1)], [0])[1]
    print("sampled", one.failure)
    print(*LocalPool().map_unordered(lambda: measure, ["a", "b"]))
    print(*sorted(LocalPool(2, threads=True).map_unordered(lambda: measure, ["a", "b"])))
    evaluate._score = score
    folder, (metric,) = RunFolder(Path("r")), evaluate.chosen_metrics(["motion_amount"])
    from avbench.features.measure import measure as measured
    list(measured(folder, evaluate.features_of([metric]))[1])
    print(*(one.missing for one in evaluate.evaluate(folder, [metric])))
"""


def test_a_child_that_the_users_code_forks_ends_with_its_call(here):
    (here / "my_model.py").write_text(FORKING)
    ended = subprocess.run([sys.executable, "my_model.py"], capture_output=True, text=True, timeout=300)
    assert ended.stdout.splitlines() == [
        "sampled None",
        "('a', 'a') ('b', 'b')",
        "('a', 'a') ('b', 'b')",
        "motion_amount failed: ValueError: of the parent",
    ], ended
    assert ended.stderr.count("the child's own words") == 4 and ended.stderr.count("ZeroDivisionError") == 1


MOVING = """
import contextlib, os, sys, time
from pathlib import Path
from avbench.generation.providers.toyworld import ToyWorld
from avbench.storage.media import write_clip

HOME = Path(__file__).parent / "home"
if "imported" in (HOME / "when.txt").read_text():
    os.chdir(HOME)

class Moves:
    batch_size = 2
    def __init__(self):
        self.move("built")
    def move(self, when):
        if when in (HOME / "when.txt").read_text():
            os.chdir(HOME)
        self.settings = {"when": Path("when.txt").read_text()} if Path.cwd() == HOME else {}
    def generate(self, requests):
        self.move("called")
        assert Path("when.txt").is_file(), "it is not where it went"
        for one in requests:
            path = Path(f"{one.key.prompt}-{one.key.seed}.mkv")
            write_clip(ToyWorld("").generate([one])[0].clip, path)
            yield path

class Threads(Moves):
    batch_size = 1
    concurrency = 2

class Polite(Threads):
    def generate(self, requests):
        with contextlib.chdir(HOME):
            time.sleep(0.1)
        return ToyWorld("").generate(requests)
"""


@pytest.mark.parametrize("when", ["imported", "built", "called"])
def test_a_model_that_changes_the_working_folder_leaves_the_users_alone(here, when):
    (here / "home").mkdir()
    (here / "home" / "when.txt").write_text(when)
    (here / "my_model.py").write_text(MOVING)
    for _ in range(2):  # the import is done once
        run = sample(RunFolder(Path("r")), "python:my_model:Moves", {}, [SUBSET.limited(3)], [0], replace=True)
        assert [one.failure for one in run[1]] == [None] * 3 and Path.cwd() == here
        assert len([*(here / "r").rglob("*.mkv")]) == 3 and len([*(here / "home").glob("*")]) == 4
        shutil.rmtree(here / "r")
    model = sys.modules["my_model"].Moves()
    os.chdir(here)  # the user's own code built it
    if when == "called":
        scores = training_hook(model, SUBSET, limit=2, metrics=["onset_rate"], out="h")
        assert len(scores) == 1 and Path.cwd() == here and len([*(here / "h").rglob("*.mkv")]) == 2
    assert all(one.ok for one in outcome(partial(build, "python:my_model:Moves", {})).values()), "doctor's checks"
    refused = "the model changed the working folder to .*home, which the threads of its concurrency share"
    threads = threading.active_count()
    for name in ["Threads", *(["Polite"] if when == "called" else [])]:
        with pytest.raises(InputError, match=refused):
            list(sample(RunFolder(Path("t")), f"python:my_model:{name}", {}, [SUBSET.limited(8)], [0], replace=True)[1])
        wait_until(lambda: threading.active_count() <= threads)  # another one may still be in its call
        assert Path.cwd() == here
    assert not [*(here / "home").glob("t")], "the run is in one folder"


# ---- cmd:

SCRIPT = """
import cv2, json, sys, time
import numpy as np
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from avbench.core import Clip, Audio
from avbench.storage.media import write_clip
asked = json.load(open(sys.argv[-1]))
for one in asked["requests"]:
    if one["id"] == "left-out":
        continue
    if one["id"] == "crash":
        Path(one["file"] + ".mkv").write_bytes(b"half a file")
        sys.exit("CUDA out of memory")
    if one["id"] == "error":
        try:
            open("no such file")
        except OSError:
            raise ValueError("no good\\nsecond line")
    if one["id"] == "slow":
        time.sleep(60)
    clip = Clip(np.full((4, 16, 16, 3), 50 + one["seed"], np.uint8), Fraction(8))
    if one["id"] == "array":
        np.save(one["file"] + ".npy", clip.frames)
        continue
    if one["id"] == "frames":
        Path(one["file"]).mkdir()
        for number, frame in enumerate(clip.frames):
            cv2.imwrite(f"{one['file']}/{number:04}.png", frame)
        continue
    if one["id"] == "sound":
        Path(one["file"] + ".wav").touch()
    write_clip(clip, Path(one["file"] + ".mkv"))
    if one["id"] == "capitals":
        Path(one["file"] + ".mkv").rename(one["file"] + ".MKV")
        Path(one["file"] + ".WAV").touch()
print("made", len(asked["requests"]), "of", one["subset"], one["audio_caption"])
print("some warning", file=sys.stderr)
"""


def scripted(here, *ids, seeds=(0,), **settings):
    (here / "make.py").write_text(SCRIPT)
    prompts = Subset("s", 1, tuple(Prompt(one, f"a {one} cat", "it meows") for one in ids), None)
    folder = RunFolder(here / "r")
    list(sample(folder, f"cmd:{sys.executable} make.py --steps 3", settings, [prompts], seeds)[1])
    return folder, {key.prompt: one for key, one in folder.samples().items()}


@pytest.mark.parametrize("name", ["batch", "concurrency"])
def test_half_a_clip_per_batch_is_refused(name):
    for wrong in (0.5, 0, "all", True):
        with pytest.raises(InputError, match=f"{name} is {wrong!r}; it must be a whole number of at least 1"):
            build(f"cmd:{sys.executable} {__file__}", {name: wrong})


@pytest.mark.parametrize("wrong", [500, "", ["a", 5]])
def test_inputs_that_are_no_paths_are_refused(wrong):
    with pytest.raises(InputError, match="it must be a path as text, or a JSON list of paths"):
        build(f"cmd:{sys.executable} {__file__}", {"inputs": wrong})


def test_a_script_is_run_once_a_batch(here):
    folder, made = scripted(here, "a", "b", "c", "left-out", seeds=(0, 1), batch=8)
    assert all(made[one].path for one in "abc")
    assert made["left-out"].failure.startswith(
        "the script wrote nothing to the clip's file; its last words: some warning"
    )
    (batch,) = (folder.path / "jobs").glob("batch-*")
    assert (batch / "stdout.txt").read_text() == "made 8 of s it meows\n" and not list(batch.glob("*.mkv"))
    settings = folder.run().settings
    assert settings["command"][1:] == ["make.py", "--steps", "3"] and "make.py" in settings["files_sha256"]


def test_a_crash_costs_its_prompt_only(here):
    folder, made = scripted(here, "a", "crash", "go-on")
    assert made["a"].path and made["go-on"].path, "what comes after it is made by the next run of the script"
    assert made["crash"].failure == (
        "the script ended with exit code 1; its last words: CUDA out of memory (all of it: jobs/*/stderr.txt); what it "
        "wrote last is not kept, because it may be cut off"
    )
    assert len(list((folder.path / "jobs").glob("batch-*"))) == 3, "and it is tried twice"


def test_other_forms_of_clips_are_read_or_named(here):
    folder, made = scripted(here, "array", "frames", "sound", fps=12)
    assert made["array"].failure.startswith("the script wrote .npy, which is no clip; suffixes read: .mp4, ")
    assert made["sound"].remark.startswith("s--sound-0.wav is left out: sound is read only from the clip's own file")
    clip = read_clip(folder.path / made["frames"].path)
    assert clip.fps == 12 and clip.frames.shape == (4, 16, 16, 3) and (clip.frames == 50).all()
    assert not [one for one in (folder.path / "jobs").rglob("*") if one.name.startswith("s--frames")]
    assert folder.run().settings["fps"] == "12"
    shutil.rmtree(folder.path)
    with pytest.raises(InputError, match=r"the script wrote a folder of frames, which has no rate: give -M fps="):
        scripted(here, "frames", "frames-too", batch=1)
    assert len([*(here / "r" / "jobs").iterdir()]) == 1 and not folder.samples(), "it ends at once"
    assert scripted(here, "frames", batch=1, fps=12)[1]["frames"].path, "the same folder goes on with it"
    (here / "spec").mkdir()
    asked = replace(load("toy-control").limited(1).clip_spec, fps=Fraction(16))
    prompts = Subset("s", 1, (Prompt("frames", "a cat"),), asked)
    (one,) = sample(RunFolder(here / "spec"), f"cmd:{sys.executable} make.py", {}, [prompts], [0])[1]
    assert read_clip(here / "spec" / one.path).fps == 16, "the script was asked for it"


def test_suffixes_may_be_in_capitals(here):
    folder, made = scripted(here, "capitals", "a")
    assert made["capitals"].path.endswith(".MKV") and made["capitals"].remark.startswith(
        "s--capitals-0.WAV is left out"
    )
    assert (read_clip(folder.path / made["capitals"].path).frames == 50).all() and made["a"].path


TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n    import triton\n'
TORCHRUN = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n=====\nmake.py FAILED\n=====\n"


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        (f"{TRACEBACK}ImportError: no triton\n\n", "its last error: ImportError: no triton"),
        (
            f"{TRACEBACK}ImportError: no triton\nerror: no step-100.pt\n",
            "its last error: ImportError: no triton; its last words: error: no step-100.pt",
        ),
        (
            "".join(f"[rank0]: {line}\n" for line in f"{TRACEBACK}OSError: full".splitlines()) + TRACEBACK + TORCHRUN,
            "its last error: OSError: full; its last words: make.py FAILED",
        ),
        (TRACEBACK + TORCHRUN, f"its last error: {TORCHRUN.splitlines()[0].strip()}; its last words: make.py FAILED"),
        ("killed\n", "its last words: killed"),
        ("\n", ""),
    ],
)
def test_of_a_scripts_output_the_last_error_is_said_and_what_comes_after_it(tmp_path, stderr, said):
    (tmp_path / "stderr.txt").write_text(stderr)
    assert cmd._last_words(tmp_path / "stderr.txt") == said


def test_the_error_of_a_script_is_told_before_the_advice_below_it(here):
    _, made = scripted(here, "error")
    assert made["error"].failure == (
        "the script ended with exit code 1; its last error: ValueError: no good; its last words: second line "
        "(all of it: jobs/*/stderr.txt)"
    )


FAILING = """
import json, os, shutil, sys, time
WHOLE = {"cut": 2, "cut-too": 3}
for at, one in enumerate(json.load(open(sys.argv[-1]))["requests"]):
    name = one["id"]
    if name == "crash":
        break
    if name == "second-time" and not os.path.exists("once"):
        open("once", "w")
        continue
    if name.startswith("file"):
        shutil.copy("whole.mkv", one["file"] + ".mkv")
    if name.startswith("slow"):
        shutil.copy("whole.mkv", one["file"] + ".mkv")
        time.sleep(60 if name == "slow" else 0)
    if name.startswith(("cut", "frames", "second")):
        os.mkdir(one["file"])
        for number in range(WHOLE.get(name, 4)):
            shutil.copy("frame.png", f"{one['file']}/{number}.png")
            seconds = 100 + (10 + number if name.startswith("cut") else at)
            os.utime(f"{one['file']}/{number}.png", (seconds, seconds))
    if name == "leaves-a-rank" and os.fork() == 0:
        open("rank.txt", "w").write(str(os.getpid()))
        time.sleep(60)
while one["id"] == "leaves-a-rank" and not os.path.exists("rank.txt"):
    time.sleep(0.01)
os._exit(9)
"""


def failing(here, *ids, **settings):
    (here / "fail.py").write_text(FAILING)
    write_clip(Clip(np.full((4, 16, 16, 3), 50, np.uint8), Fraction(8)), here / "whole.mkv")
    cv2.imwrite(str(here / "frame.png"), np.full((16, 16, 3), 50, np.uint8))
    prompts = Subset("s", 1, tuple(Prompt(one, "a cat") for one in ids), None)
    folder = RunFolder(here / "failing")
    list(sample(folder, f"cmd:{sys.executable} fail.py", {"fps": 8, **settings}, [prompts], [0])[1])
    return {key.prompt: one for key, one in folder.samples().items()}


def test_of_a_script_that_fails_no_whole_clip_is_lost_and_none_that_is_cut_off_is_kept(here):
    """Two ranks were writing frames when they ended; or the last clip was whole when the script failed."""
    made = failing(here, "frames", "cut", "cut-too")
    assert made["frames"].path and not made["cut"].path and not made["cut-too"].path
    assert made["cut"].failure.endswith("; what it wrote last is not kept, because it may be cut off")
    shutil.rmtree(here / "failing")
    made = failing(here, "file", "file-too")
    assert made["file"].path and made["file-too"].path, "as long as the other one"
    shutil.rmtree(here / "failing")
    assert not failing(here, "file")["file"].path, "nothing shows that it is whole"
    shutil.rmtree(here / "failing")
    made = failing(here, "slow-too", "slow", timeout=3)
    assert made["slow"].path and made["slow-too"].path, "it was closed long before the time was over"


def test_a_prompt_that_crashes_the_script_at_once_does_not_stop_those_after_it(here):
    made = failing(here, "frames", "frames-too", "second-time", "crash", "frames-after")
    assert [name for name, one in made.items() if not one.path] == ["crash"]
    for others in (["frames-too"], ["frames-too", "frames-after"]):  # nothing shows yet that the first is whole
        shutil.rmtree(here / "failing")
        made = failing(here, "frames", "crash", *others)
        assert [name for name, one in made.items() if not one.path] == ["crash"]


CRASHING = """
import json, shutil, sys
for one in json.load(open(sys.argv[-1]))["requests"]:
    if one["id"].startswith("crash"):
        sys.exit("CUDA out of memory")
    shutil.copy("whole.mkv", one["file"] + ".mkv")
"""


@pytest.mark.parametrize(
    ("ids", "runs"),
    [
        (["crash", "good"], 5),  # the good one is written last, and may be cut off, in every run of both
        (["good", "crash"], 5),
        (["crash", "crash-2", "good"], 5),  # after its first run, the second one is alone
        (["crash", "crash-2", "crash-3", "good", "good-2"], 7),
        (["crash", "crash-2", "crash-3", "crash-4"], 3),  # a script that is broken is not tried for each prompt
    ],
)
def test_prompts_that_crash_the_script_cost_no_other_clip_of_their_batch(here, ids, runs):
    (here / "crash.py").write_text(CRASHING)
    write_clip(Clip(np.full((4, 16, 16, 3), 50, np.uint8), Fraction(8)), here / "whole.mkv")
    prompts = Subset("s", 1, tuple(Prompt(one, "a cat") for one in ids), None)
    folder = RunFolder(here / "crashing")
    list(sample(folder, f"cmd:{sys.executable} crash.py", {}, [prompts], [0])[1])
    made = {key.prompt: one for key, one in folder.samples().items()}
    assert [one for one in ids if made[one].path] == [one for one in ids if one.startswith("good")]
    assert len([*(folder.path / "jobs").glob("batch-*")]) == runs


def test_a_script_that_fails_leaves_no_rank_behind(here):
    failing(here, "leaves-a-rank")
    rank = Path(f"/proc/{(here / 'rank.txt').read_text()}/cmdline")
    wait_until(lambda: not written(rank), 30)


def test_a_prompt_that_hangs_costs_no_other_clip_of_its_batch_once_the_script_has_written_one(here):
    folder, made = scripted(here, "a", "b", "slow", "c", batch=2, timeout=4)
    assert [name for name, one in made.items() if not one.path] == ["slow"]
    assert made["slow"].failure.startswith("the script did not end within 4 s")
    assert len([*(folder.path / "jobs").glob("batch-*")]) == 4, "a, b; slow, c; c; slow"


def test_a_script_that_hangs_is_ended(here):
    _, made = scripted(here, "slow", timeout=1)
    assert made["slow"].failure == (
        "the script did not end within 1 s (-M timeout=; -M batch= gives it fewer clips); it wrote nothing to stderr"
    )
    with pytest.raises(InputError, match="'no-such-thing' is not a command"):
        build("cmd:no-such-thing --x", {})
    with pytest.raises(InputError, match="No closing quotation"):
        build("cmd:python 'x", {})


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_stopped_command_leaves_no_script_behind(here, concurrency):
    """Also of those that threads wait for."""
    (here / "wait.sh").write_text("sleep 1000 &\necho $! > $1.pid\nwait\n")
    words = ["sample", "cmd:sh wait.sh", "-M", f"concurrency={concurrency}", "-M", "batch=1", "--limit", "3"]
    words = [sys.executable, "-m", "avbench", *words, "--subset", "toy-control", "--out", "o"]
    command = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    found = partial((here / "o").glob, "*/jobs/*/*.pid")
    wait_until(lambda: len([one for one in found() if written(one)]) == concurrency)
    command.terminate()
    assert "Stopped. 0 of 3 clips are done" in command.communicate(timeout=300)[1]
    assert command.returncode == 143
    sleeping = [Path(f"/proc/{one.read_text().strip()}") for one in found()]
    wait_until(lambda: not any(one.exists() for one in sleeping))


# ---- refusals, and work that waits

REFUSING = """
from avbench.core import Refused
from avbench.generation.providers.toyworld import ToyWorld

def make(request):
    if request.key.prompt.endswith("001"):
        raise Refused("not such a thing")
    return ToyWorld("").generate([request])[0].clip
"""


@pytest.mark.slow
def test_a_refusal_is_counted_by_itself(here):
    (here / "my_model.py").write_text(REFUSING)
    options = ["--subset", "toy-control", "--limit", "3", "--out", str(here)]
    for _ in range(2):
        found = run_avbench("sample", "python:my_model:make", *options, code=None)
        assert found.exit_code == 0 and "the model refused 1 clip;" in found.output
    folder = RunFolder(here / "python-my_model-make")
    lines = (folder.path / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 3 and sum(one.refused for one in folder.samples().values()) == 1, "it is not asked for twice"
    training_hook(folder.path, metrics=["motion_amount"])
    (one,) = folder.scores()
    assert (one.n, one.unmeasured, one.refused) == (2, 1, 1)
    table = run_avbench("compare", folder.path, "--format", "markdown", code=None).output
    assert "rests on 2 clips; 1 could not be measured; the model refused 1 clip" in table


def test_threads_wait_at_once_and_tell_what_they_raise():
    meet = threading.Barrier(3, timeout=10)

    def work(task):
        meet.wait()
        if task == 4:
            raise KeyError(task)
        return -task

    threads = worker_pool.LocalPool(3, threads=True)
    assert dict(threads.map_unordered(lambda: work, range(3))) == {0: 0, 1: -1, 2: -2}
    with pytest.raises(KeyError):
        list(threads.map_unordered(lambda: work, range(6)))


# ---- the training loop

CHEAP = ["motion_amount", "toy_contact", "onset_rate"]


@pytest.mark.slow
def test_a_training_loop_gets_plain_numbers_and_is_left_alone():
    world = ToyWorld("")

    def model(request):
        torch.manual_seed(request.key.seed)
        torch.rand(3), np.random.rand(), random.random()
        assert not torch.is_grad_enabled()
        clip = world.generate([request])[0].clip
        return Clip(clip.frames, clip.fps)

    torch.set_num_threads(2)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    scores = training_hook(model, "toy-object-contact", metrics=CHEAP, limit=4)
    assert torch.equal(torch.get_rng_state(), states[0]) and (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2] and torch.get_num_threads() == 2 and torch.is_grad_enabled()
    assert set(scores) == {f"toy-object-contact/{name}" for name in CHEAP[:2]}
    assert all(type(value) is float for value in scores.values())
    assert "the clip has no sound" in scores.missing["toy-object-contact/onset_rate"]
    counts = {"motion_amount": 4, "toy_contact": 3, "onset_rate": 0}  # a cradle's bodies share a colour
    assert scores.clips == {f"toy-object-contact/{name}": count for name, count in counts.items()}
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None, "nothing holds the model"


def made_noise(request):
    number = int(request.key.prompt[1:])
    return Clip(np.random.default_rng(number).integers(0, 256, (16, 32, 32, 3), np.uint8), 8)


def test_an_interruption_says_that_it_can_be_continued_only_where_it_can(tmp_path, monkeypatch):
    def interrupted(request):
        raise KeyboardInterrupt

    def notes(model, out):
        with pytest.raises(KeyboardInterrupt) as stop:
            training_hook(model, "toy-control", metrics=["motion_amount"], limit=2, out=out)
        return getattr(stop.value, "__notes__", [])

    assert notes(interrupted, None) == notes(interrupted, tmp_path / "memory") == []
    monkeypatch.setattr(ToyWorld, "generate", lambda self, requests: interrupted(requests))
    assert notes("toyworld:", None) == []
    (note,) = notes("toyworld:", tmp_path / "named")
    assert note == f"0 of 2 clips are done in {tmp_path / 'named'}; give the same command again to continue."


def test_a_subset_of_prompts_in_memory_is_scored_against_a_folder_of_real_clips(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    prompts = [Prompt(f"p{number}", "noise") for number in range(4)]
    for wrong in (prompts, prompts[0], None):
        with pytest.raises(InputError, match=r"neither .* nor a Subset: .* avbench.Subset\('mine', 1, prompts, None\)"):
            training_hook(made_noise, wrong)
    subset = Subset("mine", 1, iter(prompts), None)
    for number in range(3):
        place = tmp_path / "real" / f"{number}.mkv"
        place.parent.mkdir(exist_ok=True)
        write_clip(made_noise(SimpleNamespace(key=SimpleNamespace(prompt=f"p{number}"))), place)
    asked = {"metrics": "motion_frechet", "reference": tmp_path / "real"}
    scores = training_hook(made_noise, subset, **asked)
    assert scores["mine/motion_frechet"] > 0 and not scores.missing
    assert scores.remarks == ("n = 4: too few for motion_frechet (mine); tables and the page do not show such a value",)
    assert repr(scores) == f"Scores({dict(scores)}, missing={{}}, remarks={scores.remarks})"
    assert len([*(tmp_path / "cache").rglob("card.json")]) == 1
    with pytest.raises(InputError, match="reference nothing does not exist"):
        training_hook(made_noise, subset, reference="nothing")
    with pytest.raises(InputError, match=r"real is a folder of clips and no run folder, .* avbench\.score\('.*real'\)"):
        training_hook(tmp_path / "real", metrics=["motion_amount"])


class Wide:
    """Makes clips of one size and length, whatever a subset asks for."""

    def generate(self, requests):
        rng = np.random.default_rng(requests[0].key.seed)
        return [Clip(rng.integers(0, 256, (48, 48, 80, 3), np.uint8), 16)]

    def remarks(self, requests):
        return [f"captions were cut: {len(requests)}"]


def test_a_clip_in_memory_has_the_remark_on_its_sound_that_its_file_would_have(tmp_path):
    def longer(request):
        return Clip(made_noise(request).frames[:8], 8, Audio(np.zeros((1, 20 * 8000), np.float32), 8000))

    prompts = Subset("mine", 1, [Prompt("p1", "a cat")], None)
    scores = training_hook(longer, prompts, metrics=["motion_amount"], out=tmp_path / "kept")
    (path,) = (tmp_path / "kept" / "clips").rglob("*.mkv")
    (remark,) = read_clip(path).remarks
    assert remark == "its picture lasts 1.00 s and its sound 20.00 s"
    (said,) = scores.remarks
    assert said.startswith(f"read with a remark: 1 of 1 clip (for example p1: {remark})")
    (again,) = training_hook(lambda request: read_clip(path), prompts, metrics=["motion_amount"]).remarks
    assert f"(for example p1: {remark})" in again  # once


def test_the_scores_of_a_training_say_what_the_model_remarks_and_that_clips_were_conformed(tmp_path):
    scores = training_hook(Wide(), SUBSET, metrics=["motion_amount"], limit=2, out=tmp_path / "kept")
    first, second = scores.remarks
    assert first == "captions were cut: 2" and not scores.missing
    found = r"not in the form of the clip spec: 2 of 2 clips \(for example pendulum-000: .*80.*\); .* conformed to the "
    assert re.match(found, second) and f"remarks={scores.remarks})" in repr(scores)
    assert training_hook(tmp_path / "kept", metrics=["motion_amount"]).remarks == (second,)


@contextmanager
def dtype(name):
    torch.set_default_dtype(getattr(torch, name))
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SEEN = """
import numpy as np, torch
from avbench.core import Clip

def seen():
    return torch.is_autocast_enabled("cpu"), torch.get_default_dtype(), torch.get_default_device().type

class Model:
    def __init__(self):
        self.built = seen()
    def generate(self, requests):
        assert self.built == seen() == (False, torch.float32, "cpu"), seen()
        number = [int(one.key.prompt[1:]) for one in requests][0]
        return [Clip(np.random.default_rng(number).integers(0, 256, (16, 32, 32, 3), np.uint8), 8)]
"""


@pytest.mark.parametrize(
    "settings",
    [
        partial(torch.autocast, "cpu", torch.bfloat16),
        partial(dtype, "float64"),
        partial(dtype, "bfloat16"),
        partial(torch.device, "meta"),
    ],
    ids=["autocast", "float64", "bfloat16", "meta"],
)
def test_torchs_settings_of_a_training_reach_its_model_and_nothing_else(here, settings):
    (here / "my_model.py").write_text(SEEN)
    subset, metrics = Subset("mine", 1, [Prompt("p0", "noise")], None), ["lpips_consecutive"]
    plain = training_hook(made_noise, subset, metrics=metrics)
    named = partial(training_hook, "python:my_model:Model", subset, metrics=metrics)
    assert plain["mine/lpips_consecutive"] > 0 and named() == plain
    seen = sys.modules["my_model"].seen
    with settings():
        own = seen()

        def model(request):
            assert seen() == own
            return made_noise(request)

        assert training_hook(model, subset, metrics=metrics) == plain
        assert named() == plain, "it is made in worker processes elsewhere, which do not see them"
        assert seen() == own != (False, torch.float32, "cpu")


@pytest.mark.parametrize("wrong", [0, -90, "4", 1.5, True])
@pytest.mark.parametrize("name", ["limit", "seeds"])
def test_counts_that_are_none_are_refused(name, wrong):
    for call in (partial(training_hook, ToyWorld("")), partial(run, "toyworld:")):
        with pytest.raises(InputError, match=f"^{name} is {wrong!r}; it must be a whole number of at least 1$"):
            call(**{name: wrong})


def test_an_out_that_is_a_file_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    asked = {"metrics": ["motion_amount"], "limit": 1}
    for place, sentence in ((file, "file cannot be written: it is a file"), (file / "x", "Not a directory")):
        with pytest.raises(InputError, match=sentence):
            training_hook(ToyWorld(""), **asked, out=place)
        with pytest.raises(InputError, match="Not a directory"):
            run("toyworld:", subsets="toy-control", **asked, out=place, workers=0)


def test_another_model_in_a_kept_folder_is_refused_in_words_of_python(tmp_path):
    asked = {"subset": SUBSET, "metrics": ["onset_rate"], "limit": 1, "out": tmp_path / "kept"}
    training_hook("toyworld:", **asked)
    words = r"the run that it holds, or give another `out`, or give replace=True \(--replace\) to delete it"
    with pytest.raises(InputError, match=words):
        training_hook("toyworld:noisy", **asked)


@pytest.mark.slow
def test_every_kind_of_model_gives_the_same_numbers(tmp_path):
    asked = {"subset": SUBSET, "metrics": ["motion_amount"], "limit": 2}
    named = training_hook("toyworld:", **asked, out=str(tmp_path / "kept"))
    assert named == training_hook(ToyWorld(""), **asked) == training_hook(tmp_path / "kept", metrics=["motion_amount"])
    assert named == training_hook(str(tmp_path / "kept"), metrics=["motion_amount"])
    assert named["toy-control/motion_amount"] > 0

    def failing(request):
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(InputError, match="settings are for provider:target"):
        training_hook(ToyWorld(""), **asked, out=tmp_path / "kept", settings={"a": 1}, replace=True)
    assert (tmp_path / "kept/samples.jsonl").exists(), "nothing is deleted before the arguments are checked"
    scores = training_hook(failing, **asked)
    assert scores == {} and "CUDA out of memory" in scores.missing["toy-control/motion_amount"]

    def numbering(request):
        raise IndexError(f"{request.key!r} wants {hash(request.prompt.video_caption)}")

    scores = training_hook(numbering, **asked)
    assert scores.missing["toy-control/motion_amount"].endswith("(2 of 2 clips)")

    def black(request):
        spec = request.clip_spec
        return Clip(np.zeros((spec.frames, spec.height, spec.width, 3), np.uint8), spec.fps)

    scores = training_hook(black, **{**asked, "limit": 3})
    assert scores == {} and "black (3 of 3 clips)" in scores.missing["toy-control/motion_amount"]
    with pytest.raises(InputError, match=r"run\.json"):
        training_hook(tmp_path / "nothing", metrics=["motion_amount"])
    prompts = tmp_path / "p.jsonl"
    prompts.write_text(json.dumps({"id": "x", "prompt": "a cat", "tags": SUBSET.prompts[0].to_json()["tags"]}))
    assert set(training_hook(ToyWorld(""), prompts, metrics=["motion_amount"])) == {"p/motion_amount"}
    without = training_hook(ToyWorld(""), prompts, metrics=["motion_frechet", "onset_rate"], out=tmp_path / "without")
    assert set(without) == {"p/onset_rate"} and "no reference" in without.missing["p/motion_frechet"]
    assert [place.name.partition("@")[0] for place in RunFolder(tmp_path / "without").feature_folders()] == ["onsets"]
