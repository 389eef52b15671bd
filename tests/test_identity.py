"""Rows belong to content: other clips, code or checkpoints behind one name are noticed, and made anew where asked."""

import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import run_avbench

from avbench.api import SamplingJob, Work, model_folders, sampled
from avbench.api.hook import training_hook
from avbench.avfulldit import checkpoint
from avbench.core import Clip, InputError, Prompt, Shard, Subset
from avbench.features.measure import measure
from avbench.features.protocols import protocol_of
from avbench.generation.identity import named_paths, source_files
from avbench.generation.names import run_name, same_place, split_name
from avbench.generation.sample import sample
from avbench.generation.table import build
from avbench.generation.worker import put_whole
from avbench.metrics.evaluate import chosen_metrics, evaluate
from avbench.report.page import clips as page_clips
from avbench.storage import content
from avbench.storage.content import content_sha256
from avbench.storage.media import read_clip, write_clip
from avbench.storage.reading import file_sha256
from avbench.storage.runs.folder import RunFolder
from avbench.storage.runs.merge import merge
from avbench.subsets import loading

MOVES = chosen_metrics(["motion_amount"])


def moving(path, pixels, frames=8):
    """A clip whose texture moves so many pixels a frame; equal numbers give equal bytes."""
    texture = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8).repeat(2, 0).repeat(2, 1)
    pictures = np.stack([np.roll(texture, pixels * index, axis=1) for index in range(frames)])
    write_clip(Clip(pictures, Fraction(8)), path)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Three clips and their prompts."""
    monkeypatch.chdir(tmp_path)
    Path("gen").mkdir()
    for number in range(3):
        moving(Path(f"gen/p{number}.mkv"), 1 + number)
    Path("p.jsonl").write_text("".join(f'{{"id": "p{number}", "prompt": "clip"}}\n' for number in range(3)))
    return tmp_path


def run(replace=False, model="clips:gen", place="run", settings=None):
    """Sample, measure and evaluate; the mean of motion_amount."""
    folder = RunFolder(Path(place))
    asked = [loading.from_prompts_file(Path("p.jsonl"))]
    list(sample(folder, model, settings or {}, asked, [0], replace=replace)[1])
    list(measure(folder, ["flow-dis"])[1])
    (found,) = evaluate(folder, MOVES)
    return found


# ---- clips


def test_clips_that_were_moved_are_the_same_run_unless_one_has_changed(mine):
    before, rows = run(), next(Path("run/features").glob("*/rows.jsonl"))
    measured = rows.read_bytes()
    Path("gen").rename("moved")
    assert run(model="clips:moved") == before and rows.read_bytes() == measured, "nothing is measured again"
    held = RunFolder(Path("run")).run()
    assert (held.model, held.settings["folder"]) == ("clips:moved", f"{mine}/moved")
    Path("moved").rename("again")
    moving(Path("again/p1.mkv"), 5)
    with pytest.raises(InputError, match=r"holds another run .*folder: .*--replace"):
        run(model="clips:again")
    assert RunFolder(Path("run")).run() == held


def test_a_copy_of_all_clips_of_a_run_is_the_same_model(mine):
    """As on a faster disk. Of a run that is not finished the other clips may be other ones, so that is refused."""
    asked, folder = [loading.from_prompts_file(Path("p.jsonl"))], RunFolder(Path("run"))
    _, made, _ = sample(folder, "clips:gen", {}, asked, [0])
    next(made)
    shutil.copytree("gen", "copy")
    with pytest.raises(InputError, match=r"holds another run .*folder: .*--replace"):
        run(model="clips:copy")
    before, rows = run(), next(Path("run/features").glob("*/rows.jsonl"))
    measured = rows.read_bytes()
    assert run(model="clips:copy") == before and rows.read_bytes() == measured, "nothing is measured again"
    assert folder.run().settings["folder"] == f"{mine}/copy"
    Path("fewer.jsonl").write_text(Path("p.jsonl").read_text().splitlines()[0])
    Path("fewer.jsonl").replace("p.jsonl")
    with pytest.raises(InputError, match="holds another run"):
        run()
    assert folder.run().settings["folder"] == f"{mine}/copy", "what is refused changes nothing"


@pytest.mark.parametrize("left", [["p0", "p2"], ["p0", "other", "p2"]], ids=["deleted", "renamed"])
def test_a_run_that_is_begun_anew_without_a_clip_measures_only_what_is_new(mine, left):
    """p2 gets another caption, which some features read."""
    run()
    rows = RunFolder(Path("run")).rows(protocol_of("flow-dis"))
    Path("gen/p1.mkv").rename("gen/other.mkv")
    captions = {"p2": "another caption"}
    Path("p.jsonl").write_text("".join(f'{{"id": "{one}", "prompt": "{captions.get(one, "clip")}"}}\n' for one in left))
    with pytest.raises(InputError, match=r"holds another run .*--replace\) to delete .*clips that stay is kept"):
        run()
    folder, asked = RunFolder(Path("run")), [loading.from_prompts_file(Path("p.jsonl"))]
    list(sample(folder, "clips:gen", {}, asked, [0], replace=True)[1])
    assert {*folder.rows(protocol_of("flow-dis"))} == {key for key in rows if key.prompt == "p0"}
    assert not Path("run/scores.json").exists() and {key.prompt for key in folder.samples()} == {*left}
    count, tasks = measure(folder, ["flow-dis"])
    assert {one.key.prompt for task in tasks for one in task.samples} == {*left} - {"p0"} and count == len(left) - 1
    assert run() == run(place="fresh")


def test_a_shorter_run_names_a_prompt_that_it_lacks(mine):
    run()
    Path("p.jsonl").write_text("".join(Path("p.jsonl").read_text().splitlines(keepends=True)[::2]))
    with pytest.raises(InputError, match=r"run holds more prompts than were asked for, such as p1 \(prompts: 3 of p"):
        run()
    assert run(replace=True).n == 2
    rows = next(Path("run/features").glob("*/rows.jsonl"))
    assert len(rows.read_text().splitlines()) == 2, "no other rows are left, and none was measured twice"


def test_parts_of_copies_on_several_disks_are_merged_once_they_name_one_folder(mine):
    asked = [loading.from_prompts_file(Path("p.jsonl"))]

    def part(number, folder):
        place = RunFolder(Path(f"{number}-of-3/run"))
        list(sample(place, f"clips:{folder}", {}, asked, [0], shard=Shard(number, 3))[1])
        list(measure(place, ["flow-dis"])[1])
        return place.path

    shutil.copytree("gen", "copy")
    parts = [part(1, "gen"), part(2, "gen"), part(3, "copy")]
    with pytest.raises(InputError, match=r"in 1-of-3/run\. If both have the same clips, give the command of each part"):
        merge(Path("merged"), parts)
    rows = next(Path("3-of-3/run/features").glob("*/rows.jsonl")).read_bytes()
    part(3, "gen")
    assert next(Path("3-of-3/run/features").glob("*/rows.jsonl")).read_bytes() == rows
    assert merge(Path("merged"), parts).made == 3
    assert evaluate(RunFolder(Path("merged")), MOVES) == [run()]


def test_new_clips_under_the_same_names_are_not_the_old_ones(mine):
    before = run()
    assert run() == before, "nothing has changed"
    os.utime("gen/p0.mkv")
    shutil.copyfile("gen/p1.mkv", "again.mkv")
    Path("again.mkv").replace("gen/p1.mkv")
    assert run() == before, "the bytes are the same"
    for number in range(3):
        moving(Path(f"gen/p{number}.mkv"), 5 + number)
    with pytest.raises(InputError, match=r"3 of 3 clips of run have changed, .* p0: it came from a file .*--rep"):
        run()
    assert evaluate(RunFolder(Path("run")), MOVES) == [before], "what was refused has changed nothing"
    after = run(replace=True)
    assert after == run(place="other") and after.value > 1.5 * before.value


def test_single_clips_are_replaced_and_the_others_kept(mine):
    run()
    lines = Path("run/samples.jsonl").read_text().splitlines()
    moving(Path("gen/p1.mkv"), 9)
    Path("gen/p2.mkv").unlink()
    with pytest.raises(InputError, match="2 of 3 clips of run have changed"):
        run()
    found = run(replace=True)
    assert found.n == 2 and found.unmeasured == 1
    added = Path("run/samples.jsonl").read_text().splitlines()[len(lines) :]
    assert len(added) == 4 and "no file matches" in added[3]
    assert all("the clip has changed, and was not made again yet" in one for one in added[:2])


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"name": "other", "sha256": "0"}'])
def test_a_run_whose_run_json_is_damaged_is_made_again_with_replace(mine, content):
    before = run()
    Path("run/run.json").write_text(content)
    with pytest.raises(InputError, match=r"run/run\.json"):
        run()
    assert run(replace=True) == before


def test_clips_without_a_run_json_are_not_taken_for_those_of_another_model(mine):
    run()
    shutil.copytree("gen", "gen2")
    for number in range(3):
        moving(Path(f"gen2/p{number}.mkv"), 5 + number)
    Path("run/run.json").unlink()
    before = Path("run/samples.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"run has a samples\.jsonl but no run\.json, so it is not known what"):
        run(model="clips:gen2")
    assert Path("run/samples.jsonl").read_bytes() == before and not Path("run/run.json").exists()
    assert run(model="clips:gen2", replace=True) == run(model="clips:gen2", place="other")


def test_score_measures_what_was_rendered_anew_and_says_so(mine):
    """Its run folders hold copies of the user's clips, so nothing is lost."""
    words = ("score", "gen", "--metric", "motion_amount", "--workers", 0, "--out")

    def lines():
        files = (*Path("o/gen").rglob("rows.jsonl"), Path("o/gen/samples.jsonl"))
        return [file.read_text().count("\n") for file in files]

    run_avbench(*words, "o")
    assert lines() == [3, 3]
    moving(Path("gen/p1.mkv"), 9)
    said = run_avbench(*words, "o").stderr
    assert "note: 1 of 3 clips of o/gen has changed, for example p1: it came from a file with the sha256 " in said
    assert "; what has changed is measured again, and the other clips are kept" in said
    assert lines() == [4, 5], "the other clips are neither copied nor measured again"
    run_avbench(*words, "fresh")
    assert RunFolder(Path("o/gen")).scores() == RunFolder(Path("fresh/gen")).scores()
    assert "changed" not in run_avbench(*words, "o").stderr
    (copy,) = Path("o/gen/clips").glob("*/p2-0.mkv")
    moving(copy, 5)
    said = run_avbench(*words, "o", code=2).stderr
    assert f"p2: {copy} is not the file that was made; the same command with replace=True (--replace) redoes" in said
    run_avbench(*words, "o", "--replace")
    assert RunFolder(Path("o/gen")).scores() == RunFolder(Path("fresh/gen")).scores()


def test_a_score_that_is_killed_while_it_copies_changed_clips_goes_on(mine, monkeypatch):
    words = ("score", "gen", "--metric", "motion_amount", "--workers", 0, "--out")
    run_avbench(*words, "o")
    for number in range(3):
        moving(Path(f"gen/p{number}.mkv"), 5 + number)

    def killed(source, path, *how):
        put_whole(source, path, *how)
        raise KeyboardInterrupt  # the new clip is there, and its line is not

    with monkeypatch.context() as dying:
        dying.setattr("avbench.generation.worker.put_whole", killed)
        run_avbench(*words, "o", code=130)
    run_avbench(*words, "o")
    run_avbench(*words, "fresh")
    assert RunFolder(Path("o/gen")).scores() == RunFolder(Path("fresh/gen")).scores()


def test_a_copied_clip_is_on_disk_before_its_line_is(mine, monkeypatch):
    done, fsync, add = [], os.fsync, RunFolder.add_sample
    monkeypatch.setattr("os.fsync", lambda one: done.append(os.fstat(one).st_ino) or fsync(one))

    def checked(self, sample):
        assert (self.path / sample.path).stat().st_ino in done
        add(self, sample)

    monkeypatch.setattr(RunFolder, "add_sample", checked)
    run()


def frames(name, value):
    """A folder of two equal frames, of one size and time of change whatever the value is."""
    Path(f"gen/{name}").mkdir(exist_ok=True)
    for number in range(2):
        cv2.imwrite(f"gen/{name}/{number}.bmp", np.full((32, 32, 3), value, np.uint8))
        os.utime(f"gen/{name}/{number}.bmp", ns=(10**18, 10**18))


def test_frames_that_change_while_they_are_read_are_noticed(mine, monkeypatch):
    for number in range(3):
        Path(f"gen/p{number}.mkv").unlink()
        frames(f"p{number}", 11 + number)

    def changing(path, **how):
        clip = read_clip(path, **how)
        frames(path.name, 9)
        return clip

    with monkeypatch.context() as changed:
        changed.setattr("avbench.generation.providers.clips.read_clip", changing)
        run(settings={"fps": 8})
    with pytest.raises(InputError, match=r"3 of 3 clips of run have changed, for example p0: it came from frames:"):
        run(settings={"fps": 8})


def test_swapped_files_of_one_size_and_time_are_noticed(mine):
    for name, value in (("p0", 11), ("p1", 12), ("p2", 13)):
        Path(f"gen/{name}.mkv").unlink()
        frames(name, value)
    run(settings={"fps": 8})
    run(settings={"fps": 8})
    for one, other in (("p0", "t"), ("p1", "p0"), ("t", "p1")):
        Path(f"gen/{one}").rename(f"gen/{other}")
    with pytest.raises(InputError, match=r"2 of 3 clips of run have changed.*frames:"):
        run(settings={"fps": 8})


def test_a_hash_is_remembered_while_nothing_can_have_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "_TICK_NS", 0)
    path, read = tmp_path / "x", []
    monkeypatch.setattr(content, "file_sha256", lambda one: read.append(one) or file_sha256(one))
    for text in ("one", "two"):
        path.write_text(text)
        os.utime(path, ns=(10**18, 10**18))  # of one size and one time of change
        assert content_sha256(path) == content_sha256(path) == file_sha256(path)
    assert len(read) == 2
    (tmp_path / "cache" / "avbench" / "hashes.sqlite").write_bytes(b"no database" * 100)
    monkeypatch.setattr(content, "_HASHES", content._Hashes())
    assert content_sha256(path) == file_sha256(path), "without the cache it is read"
    content._HASHES._open.close()


def test_what_lies_in_the_run_is_looked_at_by_every_verb(mine):
    run()
    page = ["--out", "page", "--workers", 0]
    assert run_avbench("report", "run", *page).exit_code == 0
    kept = sorted(Path("run/clips/p").glob("*.mkv"))
    gone = kept[2].read_bytes()
    kept[2].unlink()
    for verb in (["evaluate", "run", "--metric", "motion_amount"], ["compare", "run"], ["report", "run", *page]):
        done = run_avbench(*verb)
        assert done.exit_code == 0, done.output
    kept[2].write_bytes(gone)
    kept[0].rename("t"), kept[1].rename(kept[0]), Path("t").rename(kept[1])
    verbs = [
        ["measure", "run"],
        ["evaluate", "run"],
        ["compare", "run"],
        ["leaderboard", "."],
        ["report", "run", *page],
    ]
    verbs += [["power", "run"], ["check", "run", "--baseline", "b.zip", "--update", "--reason", "x"]]
    for verb in verbs:
        done = run_avbench(*verb, code=None)
        assert done.exit_code == 2 and "2 of 3 clips of run are not" in done.stderr, verb
    with pytest.raises(InputError, match="2 of 3 clips"):
        page_clips.prepare([RunFolder(Path("run"))], Path("media"))
    with pytest.raises(InputError, match=r"2 of 3 clips of run have changed.*is not the file that was"):
        run()
    assert run(replace=True).n == 3


def test_a_clip_that_is_gone_is_told_and_its_rows_are_kept(mine, monkeypatch):
    before = run()
    monkeypatch.setattr("avbench.cli.steps.CONSOLE.notes", [])
    Path("run/clips/p/p1-0.mkv").unlink()
    output = run_avbench("evaluate", "run", "--metric", "motion_amount").output
    assert "note: 1 of 3 clips of run is no longer there (for example run/clips/p/p1-0.mkv)" in output
    assert evaluate(RunFolder(Path("run")), MOVES) == [before]
    with pytest.raises(InputError, match="1 of 3 clips of run is to be measured and no longer there"):
        measure(RunFolder(Path("run")), ["onsets"])
    list(page_clips.prepare([RunFolder(Path("run"))], Path("media"))[1])
    with pytest.raises(InputError, match=r"p1-0\.mkv is no longer there"):
        run()
    assert run(replace=True) == before


def test_another_run_in_the_folder_is_thrown_away_when_asked(mine):
    run()
    shutil.copytree("gen", "gen2")
    Path("gen2/p0.mkv").unlink()
    with pytest.raises(InputError, match=r"holds another run .*folder: .*--replace"):
        run(model="clips:gen2")
    assert run(model="clips:gen2", replace=True).n == 2
    assert len(Path("run/samples.jsonl").read_text().splitlines()) == 3, "nothing of the other run is left"
    assert {one.name for one in Path("run/clips/p").iterdir()} == {"p1-0.mkv", "p2-0.mkv"}


def test_one_folder_by_two_paths_is_one_run(mine, monkeypatch):
    run()
    for model in (f"clips:{Path('gen').resolve()}", "clips:./gen", "gen", str(Path("gen").resolve())):
        run(model=model)
    assert RunFolder(Path("run")).run().model == "clips:gen"
    monkeypatch.chdir("gen")
    asked = [loading.from_prompts_file(Path("../p.jsonl"))]
    assert sample(RunFolder(Path("../run")), f"clips:{Path().resolve()}", {}, asked, [0])[0] == 0
    assert not same_place("clips:p0.mkv", "clips:p1.mkv") and not same_place("toyworld:", "toyworld:frozen")


# ---- code and checkpoints


def test_a_checkpoint_is_known_by_its_bytes_from_another_folder(mine, monkeypatch):
    shutil.copytree(Path(checkpoint.__file__).parent / "checkpoints/toy-t2v", "mine")
    asked, settings = [loading.load("toy-control").limited(1)], {"steps": 1}
    list(sample(RunFolder(Path("run")), "avfulldit:mine", settings, asked, [0])[1])
    Path("below").mkdir()
    monkeypatch.chdir("below")
    folder = RunFolder(Path("../run"))
    for model in ("avfulldit:../mine", "../mine", "avfulldit:toy-t2v"):
        assert sample(folder, model, settings, asked, [0])[0] == 0
    assert folder.run().model == "avfulldit:mine"
    with pytest.raises(InputError, match="steps: 2 was asked for, the folder holds 1"):
        sample(folder, "avfulldit:../mine", {"steps": 2}, asked, [0])
    with pytest.raises(InputError, match=r"the model's files \(model\): other content"):
        sample(folder, "avfulldit:toy-t2av", settings, asked, [0])


MAKER = """
from fractions import Fraction
import numpy as np
from avbench.core import Clip
from helper import VALUE

class Maker:
    def __init__(self, weights="step.pt"):
        self.settings = {"weights": weights}

    def generate(self, requests):
        return [Clip(np.full((4, 16, 16, 3), VALUE, np.uint8), Fraction(8)) for one in requests]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("maker", "helper"):
        sys.modules.pop(name, None)


def test_a_class_is_told_by_its_files_and_its_checkpoint(here):
    (here / "maker.py").write_text(MAKER)
    (here / "helper.py").write_text("VALUE = 9")
    (here / "step.pt").write_bytes(b"1")
    settings = build("python:maker:Maker", {}).settings
    assert [*settings["imports_sha256"]] == ["helper.py"] and [*settings["inputs"]] == ["step.pt"]
    assert settings["source_sha256"] == file_sha256(here / "maker.py")
    asked = [Subset("s", 1, (Prompt("a", "a cat"),), None)]
    list(sample(RunFolder(here / "r"), "python:maker:Maker", {}, asked, [0])[1])
    kind = {"helper.py": "helper.py, which the model's code imports", "step.pt": "the file or folder step.pt"}
    kind["maker.py"] = "the model's code"
    for name in kind:
        before = (here / name).read_bytes()
        (here / name).write_bytes(before + b"# 2")
        said = rf"holds another run \({kind[name]}: other content\). .* with its files and prompts as they were"
        with pytest.raises(InputError, match=said):
            sample(RunFolder(here / "r"), "python:maker:Maker", {}, asked, [0])
        (here / name).write_bytes(before)
    assert sample(RunFolder(here / "r"), "python:maker:Maker", {}, asked, [0])[0] == 0


BY_DEFAULT = """
from functools import partial

class Maker:
    def __init__(self, weights="step.pt", out="made"):
        pass

    def generate(self, requests):
        return []

def make(request, weights="step.pt"):
    return []

filled = partial(make, weights="other.pt")
"""


def test_a_checkpoint_that_is_a_default_is_told_by_its_bytes(here):
    (here / "maker.py").write_text(BY_DEFAULT)
    (here / "made").mkdir()
    for name in ("step.pt", "other.pt", "made/0.json"):
        (here / name).write_bytes(b"1")
    inputs = {name: build(f"python:maker:{name}", {}).settings["inputs"] for name in ("Maker", "make", "filled")}
    assert {name: [*one] for name, one in inputs.items()} == {
        "Maker": ["step.pt"],
        "make": ["step.pt"],
        "filled": ["other.pt"],
    }
    assert [*build("python:maker:Maker", {"weights": "other.pt"}).settings["inputs"]] == ["other.pt"]
    (here / "step.pt").write_bytes(b"2")
    assert build("python:maker:make", {}).settings["inputs"] != inputs["make"]


WRAPPED = """
import functools
from decorator_here import counted

def clip(speed, request):
    return speed

@counted
def decorated(request):
    return 1

partial = functools.partial(clip, 3)
both = counted(functools.partial(clip, speed=4))

class Maker:
    @functools.wraps(clip)
    def make(self, request):
        return 2

method = Maker().make
"""


@pytest.mark.parametrize("name", ["decorated", "partial", "both", "method"])
def test_a_function_in_a_wrapping_is_told_by_its_own_file(here, name):
    """Such as one under ``@torch.no_grad()``, whose outer function stands in torch's files."""
    (here / "wrapped_model.py").write_text(WRAPPED)
    (here / "decorator_here.py").write_text(
        "import functools\ndef counted(one):\n    @functools.wraps(one)\n"
        "    def inner(request): return one(request)\n    return inner\n"
    )
    try:
        settings = build(f"python:wrapped_model:{name}", {}).settings
    finally:
        for module in ("wrapped_model", "decorator_here"):
            sys.modules.pop(module, None)
    assert settings["source_sha256"] == file_sha256(here / "wrapped_model.py")
    assert settings["imports_sha256"] == {"decorator_here.py": file_sha256(here / "decorator_here.py")}
    filled = {"partial": [{"arguments": [3], "keywords": {}}], "both": [{"arguments": [], "keywords": {"speed": 4}}]}
    assert settings.get("partial") == filled.get(name)


def test_arguments_of_a_partial_that_cannot_be_recorded_are_refused(here):
    (here / "partial_model.py").write_text("import functools\nmake = functools.partial(print, object())\n")
    with pytest.raises(InputError, match=r"the arguments of the partial partial_model:make cannot be recorded as JSON"):
        build("python:partial_model:make", {})
    sys.modules.pop("partial_model", None)


def test_a_class_of_an_installed_package_is_told_by_all_its_files_at_once(tmp_path):
    """Of torch, whose files import each other by the thousand, that takes less than a second."""
    package = tmp_path / "site-packages" / "bigmodel"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from bigmodel.net import Net\n")
    (package / "net.py").write_text("class Net: pass\n")
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from bigmodel import Net;"
        "from avbench.generation.identity import identity; print(json.dumps(identity(Net, [])))"
    )

    def told():
        return json.loads(subprocess.check_output([sys.executable, "-c", code, package.parent]))

    before = told()
    assert [*before["imports_sha256"]] == ["bigmodel"] and told() == before
    (package / "layers.py").write_text("WIDTH = 2\n")
    after = told()
    assert after["source_sha256"] == before["source_sha256"] == file_sha256(package / "net.py")
    assert after["imports_sha256"] != before["imports_sha256"]


def test_an_import_with_the_name_of_the_class_own_file_is_hashed(here):
    (here / "wrap").mkdir()
    (here / "wrap/model.py").write_text("import model\nclass Make:\n    def generate(self, requests): return []\n")
    (here / "model.py").write_text("VALUE = 1\n")
    try:
        settings = build("python:wrap.model:Make", {}).settings
    finally:
        for name in ("wrap", "wrap.model", "model"):
            sys.modules.pop(name, None)
    assert settings["imports_sha256"] == {"model.py": file_sha256(here / "model.py")}


def test_a_command_is_told_by_what_it_names(here):
    python = sys.executable
    package = here / "model" / "inner"
    package.mkdir(parents=True)
    for path in (here / "model/__init__.py", package / "__init__.py"):
        path.touch()
    (package / "run.py").write_text("from . import parts\nimport numpy\n")
    (package / "parts.py").write_text("from model.inner.run import x\nfrom .. import other\n")
    (here / "model/other.py").touch()
    (here / "make.py").write_text("import helper\ntry: import absent\nexcept ImportError: pass\n")
    (here / "helper.py").touch()
    (here / "broken.py").write_text("def (")
    (here / "ckpt/.cache").mkdir(parents=True)
    (here / "ckpt/w.safetensors").write_bytes(bytes(10))
    (here / "ckpt/.cache/x.json").write_text("{}")
    (here / "big.bin").write_bytes(bytes(2**21))
    (here / "go").write_text("#!/bin/sh\npython make.py --weights=big.bin; echo 'x'\n")
    (here / "go").chmod(0o755)

    def settings_of(words, **settings):
        plain = dict(build(f"cmd:{words}", settings).settings)
        plain.pop("command")
        return plain

    script = settings_of(f"{python} make.py --weights=big.bin --folder ckpt .")
    assert [*script["files_sha256"]] == ["big.bin", "helper.py", "make.py"] and [*script["folders"]] == ["ckpt"]
    assert script["folders"]["ckpt"]["files"] == 1, "hidden folders do not count"
    module = ["model/__init__.py", "model/inner/__init__.py", "model/inner/parts.py", "model/inner/run.py"]
    assert [*settings_of(f"{python} -m model.inner.run")["files_sha256"]] == [*module, "model/other.py"]
    assert [*settings_of("./go")["files_sha256"]] == ["big.bin", "go", "helper.py", "make.py"]
    assert [*settings_of(f"{python} broken.py")["files_sha256"]] == ["broken.py"]
    assert [*settings_of(f"{python} make.py", inputs="big.bin")["files_sha256"]] == ["big.bin"]
    with pytest.raises(InputError, match="-M inputs: nowhere does not exist"):
        settings_of(f"{python} make.py", inputs=["nowhere"])
    for name in ("big.bin", "helper.py", "ckpt/w.safetensors"):
        (here / name).write_bytes((here / name).read_bytes() + b"#")
        again = settings_of(f"{python} make.py --weights=big.bin --folder ckpt .")
        assert again != script, name
        script = again
    assert named_paths(["x" * 5000, "a\0b", 5, None, {"a": ["go"]}]) == ["go"]
    assert [*source_files(here / "make.py")] == ["helper.py", "make.py"]


WRITER = """
import json, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from avbench.core import Clip
from avbench.storage.media import write_clip
texture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
for one in json.loads(Path(sys.argv[-1]).read_text())["requests"]:
    write_clip(Clip(np.stack([np.roll(texture, k, 1) for k in range(4)]), Fraction(8)), Path(one["file"] + ".mkv"))
"""


def test_a_script_and_its_files_are_known_by_their_bytes_from_another_folder(here, monkeypatch):
    (here / "write.py").write_text(WRITER)
    (here / "step.pt").write_bytes(b"1")
    (here / "other.pt").write_bytes(b"2")
    (here / "below").mkdir()
    asked = [Subset("s", 1, (Prompt("a", "a cat"),), None)]
    python, folder = sys.executable, RunFolder(here / "r")
    list(sample(folder, f"cmd:{python} write.py --weights=step.pt", {}, asked, [0])[1])
    monkeypatch.chdir(here / "below")
    (here / "below/step.pt").write_bytes(b"1")
    for words in ("../write.py --weights=../step.pt", f"{here}/write.py --weights=step.pt"):
        assert sample(folder, f"cmd:{python} {words}", {}, asked, [0])[0] == 0
    assert folder.run().model.endswith(" write.py --weights=step.pt")
    for words in ("../write.py --weights=../other.pt", "../write.py --weight=../step.pt", "../write.py ../step.pt"):
        with pytest.raises(InputError, match="holds another run"):
            sample(folder, f"cmd:{python} {words}", {}, asked, [0])
    (here / "write.py").write_text(WRITER + "#")
    with pytest.raises(InputError, match=r"write\.py"):
        sample(folder, f"cmd:{python} ../write.py --weights=../step.pt", {}, asked, [0])


@pytest.mark.parametrize("by", [f"{sys.executable} ", ""])
def test_a_script_by_another_path_goes_on_in_the_same_run_folder(here, by):
    """Without a name, the model's name is that of its run folder."""
    (here / "write.py").write_text(f"#!{sys.executable}\nimport drawn\n" + WRITER)
    (here / "write.py").chmod(0o755)
    (here / "drawn.py").write_text("")
    (here / "bin").mkdir()
    (here / "bin/link.py").symlink_to("../write.py")
    asked = SamplingJob([Subset("s", 1, (Prompt("a", "a cat"),), None)])
    for path in ("./write.py", f"{here}/write.py", "bin/../write.py", "bin/link.py", *(["write.py"] if by else [])):
        ((place, model),) = model_folders(here / "out", [f"cmd:{by}{path}"]).items()
        sampled(place, model, asked, Work(0))
    assert len([*(here / "out").iterdir()]) == 1
    assert len((place / "samples.jsonl").read_text().splitlines()) == 1, "the clip was made once"
    (here / "write").mkdir()
    (here / "write/write.py").write_text(WRITER)
    assert run_name(f"cmd:{by}write/write.py") != place.name
    assert run_name(f"cmd:{by}-c 'a={'1' * 500}; b=2.py") and run_name(f"cmd:{'x' * 500}.py y={'z' * 500}")
    long = f"cmd:write.py --negative '{'x' * 500}'"
    assert same_place(long, long) is False and split_name(f"ours={long}") == ("ours", long)
    assert split_name(long) == (None, long)
    with pytest.raises(InputError, match="there is no file or folder of that name"):
        build("x" * 500, {})


@pytest.mark.parametrize(
    "model", ["cmd:./go {}", "cmd:python go --weights={}", "avfulldit:{}", "clips:{}", "diffusers:{}", "{}"]
)
def test_a_model_by_another_path_has_the_same_name(here, model):
    (here / "go").touch()
    (here / "mine/step").mkdir(parents=True)
    paths = ("mine/step", "./mine/step", f"{here}/mine/step/", "mine/../mine/step", "mine/step/.")
    names = {run_name(model.format(path)) for path in paths}
    assert len(names) == 1 and not [name for name in names if here.name in name], names


def test_a_class_is_known_from_another_folder_by_workers_and_merges_as_well(here, monkeypatch):
    (here / "maker.py").write_text(MAKER)
    (here / "helper.py").write_text("VALUE = 9")
    (here / "step.pt").write_bytes(b"1")
    (here / "below").mkdir()
    sys.path.append(str(here))
    model, asked = "python:maker:Maker", [Subset("s", 1, tuple(Prompt(one, one) for one in "abcd"), None)]
    parts = [RunFolder(here / "parts" / name) for name in "ab"]
    list(sample(parts[0], model, {"weights": "step.pt"}, asked, [0], shard=Shard(1, 2))[1])
    monkeypatch.chdir(here / "below")
    assert sample(parts[0], model, {"weights": "../step.pt"}, asked, [0], shard=Shard(1, 2))[0] == 0
    list(sample(parts[1], model, {"weights": "../step.pt"}, asked, [0], shard=Shard(2, 2))[1])
    assert merge(here / "whole", [one.path for one in parts]).made == 4
    whole = RunFolder(here / "whole")
    more = [Subset("s", 1, tuple(Prompt(one, one) for one in "abcdef"), None)]
    made = list(sample(whole, model, {"weights": "../step.pt"}, more, [0], workers=2)[1])
    assert [one.failure for one in made] == [None] * 2 and whole.run().asked == {"weights": "step.pt"}
    (here / "step.pt").write_bytes(b"2")
    with pytest.raises(InputError, match="holds another run"):
        sample(whole, model, {"weights": "../step.pt"}, more, [0])


@pytest.mark.parametrize("settings", [{}, {"sampler_steps": 30}])
def test_a_model_in_memory_is_not_taken_for_what_it_was(tmp_path, settings):
    asked = {"subset": loading.load("toy-control").limited(1), "metrics": ["motion_amount"], "out": tmp_path / "kept"}
    shift = 1

    def model(request):
        texture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
        return Clip(np.stack([np.roll(texture, shift * k, axis=1) for k in range(16)]), Fraction(8))

    model.settings = settings  # which stay as they are while the model is trained
    before = training_hook(model, **asked)["toy-control/motion_amount"]
    shift = 3
    with pytest.raises(InputError, match="holds clips of an earlier call, and one model in memory cannot be told"):
        training_hook(model, **asked)
    assert training_hook(model, **asked, replace=True)["toy-control/motion_amount"] > 2 * before


def test_a_full_disk_ends_the_run_and_is_no_failure_of_a_clip(mine, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("avbench.generation.worker.shutil.copyfile", full)
    with pytest.raises(InputError, match="run: the disk is full, no space is left for the clip p0; free some"):
        run()
    monkeypatch.undo()
    monkeypatch.chdir(mine)
    assert not Path("run/samples.jsonl").exists() and run().n == 3
