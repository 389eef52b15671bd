"""The front door: folders get names, models get folders, clips get partners, and what is given is what is recorded."""

import dataclasses
import functools
import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from command_line import run_avbench
from made_runs import evaluated, made_run

import avbench
import avbench.metrics.reference
from avbench import api
from avbench.api import Work, comparing, references, scoring, walk
from avbench.api.choices import subset_names
from avbench.api.hook import training_hook
from avbench.core import Audio, Clip, InputError, Prompt, Subset
from avbench.features.audio.onsets import Onsets
from avbench.metrics.evaluate import chosen_metrics
from avbench.report.page import page
from avbench.report.tables import LEGEND
from avbench.storage.media import write_clip
from avbench.storage.runs.folder import RunFolder
from avbench.storage.runs.view import RunView
from avbench.storage.writing import write_json
from avbench.subsets.from_folders import paired
from avbench.subsets.loading import load

ASKED = ("lpips_consecutive", "onset_rate", "fvd")


def noise(seed):
    return Clip(np.random.default_rng(seed).integers(0, 256, (4, 32, 32, 3), np.uint8), 8)


def clips(folder, *stems):
    folder.mkdir(parents=True)
    for number, stem in enumerate(stems):
        write_clip(noise(number), folder / f"{stem}.mkv")
    return folder


def heard(folder, *stems):
    folder.mkdir(parents=True)
    for number, stem in enumerate(stems):
        sound = np.random.default_rng(number).uniform(-0.5, 0.5, (1, 8000)).astype(np.float32)
        write_clip(dataclasses.replace(noise(number), audio=Audio(sound, 16000)), folder / f"{stem}.mkv")
    return folder


def test_folders_of_one_name_are_told_apart_by_those_above_them(tmp_path):
    listed = [tmp_path / "one" / "clips", tmp_path / "two" / "clips", tmp_path / "other"]
    assert [*api.named_folders(listed)] == ["one-clips", "two-clips", "other"]
    assert [*api.named_folders([f"ours={listed[0]}", str(listed[1])])] == ["ours", "clips"]
    with pytest.raises(InputError, match="is given twice"):
        api.named_folders([listed[0], listed[0]])


def test_a_given_name_stays_inside_the_out_folder(tmp_path):
    with pytest.raises(InputError, match="cannot be a name"):
        api.named_folders({"../outside": tmp_path})


def test_one_model_may_run_under_two_names(tmp_path):
    found = api.model_folders(tmp_path, ["a=toyworld:", "b=toyworld:"])
    assert found == {tmp_path / "a": "toyworld:", tmp_path / "b": "toyworld:"}
    with pytest.raises(InputError, match="would share the run folder"):
        api.model_folders(tmp_path, ["toyworld:", "toyworld:"])


def test_clips_are_paired_by_name_or_by_a_prompts_file_that_names_them(tmp_path):
    one, two = clips(tmp_path / "one", "x-0", "y-0"), clips(tmp_path / "two", "y-0", "z-0")
    found = paired([one, two], None, scoring._fits)
    assert [prompt.id for prompt in found.subset.prompts] == ["x-0", "y-0", "z-0"]
    assert found.prompts_file is None and found.apart is None
    (tmp_path / "prompts.jsonl").write_text('{"id": "other", "prompt": "of other clips"}\n')
    assert paired([one, two], None, scoring._fits).prompts_file is None, "it names none of these clips"
    (tmp_path / "prompts.jsonl").write_text('{"id": "y", "prompt": "a ball"}\n')
    assert paired([one, two], None, scoring._fits).prompts_file == tmp_path / "prompts.jsonl"


def test_a_prompts_file_that_fits_no_clip_is_said(tmp_path):
    clips(tmp_path / "a", "x")
    (tmp_path / "prompts.txt").write_text("a dog\n")
    found = api.score(tmp_path / "a", metrics=["motion_amount"], out=tmp_path / "out", workers=0)
    assert found.notes[0].startswith(f"{tmp_path}/prompts.txt is not used, because no clip is named after one of")
    assert [*found.clips["prompt"]] == ["x"]


def test_folders_whose_prompts_files_say_different_things_of_one_name_are_refused(tmp_path):
    one, two = clips(tmp_path / "one", "p0001", "p0002"), clips(tmp_path / "two", "p0001", "p0002")
    (one / "prompts.txt").write_text("a dog\na cat\n")
    (two / "prompts.txt").write_text("a cat\na dog\n")
    said = r"one/prompts.txt and .*two/prompts.txt have different captions for 2 ids, for example p0001: 'a dog' and 'a"
    with pytest.raises(InputError, match=said):
        paired([one, two], None, scoring._fits)
    assert paired([one, two], two / "prompts.txt", scoring._fits).subset.prompts[0].video_caption == "a cat"
    line = {"id": "p0001", "prompt": "a dog", "audio_prompt": "it barks"}
    (two / "prompts.txt").unlink()
    (two / "prompts.jsonl").write_text(json.dumps(line) + "\n")
    assert paired([one, two], None, scoring._fits).prompts_file == one / "prompts.txt", "one lacks the sound's caption"
    (one / "prompts.txt").unlink()
    (one / "prompts.jsonl").write_text(json.dumps({**line, "audio_prompt": "silence"}) + "\n")
    with pytest.raises(InputError, match=r"captions for 1 id, for example p0001: 'silence' and 'it barks'"):
        paired([one, two], None, scoring._fits)
    (two / "prompts.jsonl").write_text("{")
    assert paired([one, two], None, scoring._fits).prompts_file == one / "prompts.jsonl", "that of two is not used"


@pytest.mark.parametrize(
    ("a", "b", "clips_of_b"),
    [
        (("dog", "dog-1", "dog-2"), ("dog", "dog-1", "dog-2"), 3),
        (("x", "x/0", "x/1"), ("x", "x/0", "x/1"), 3),
        (("dog", "cat"), ("dog-0", "cat"), 2),
    ],
)
def test_names_that_are_the_prompts_stand_for_one_clip_each(tmp_path, a, b, clips_of_b):
    for folder, stems in ((tmp_path / "a", a), (tmp_path / "b", b)):
        for number, stem in enumerate(stems):
            (folder / stem).parent.mkdir(parents=True, exist_ok=True)
            write_clip(noise(number), folder / f"{stem}.mkv")
    found = api.score([tmp_path / "a", tmp_path / "b"], metrics=["motion_amount"], out=tmp_path / "out", workers=0)
    made = [one for one in RunFolder(tmp_path / "out" / "b").samples().values() if one.path is not None]
    assert len(made) == clips_of_b and {one.key.seed for one in made} == {0}
    assert found.failed == 0 and len({one.sha256 for one in made}) == clips_of_b


def test_folders_without_a_common_name_are_said_once(tmp_path):
    folders = [clips(tmp_path / "a" / "deep", "c1", "c2").parent, clips(tmp_path / "b", "c1", "c2")]
    asked = {"metrics": ["motion_amount"], "workers": 0}
    found = api.score(folders, out=tmp_path / "out", **asked)
    assert found.failed == 0 and found.notes == [
        "the first folder has no name in common with another, for example deep/c1 and c1, so its clips have no "
        "partners; a name is a clip's path below its folder, without suffix"
    ]
    assert (found.scores["n"] + found.scores["unmeasured"]).tolist() == [2, 2], "the other's clips are no gap"
    notes = api.score([*folders, clips(tmp_path / "c", "c1")], out=tmp_path / "more", **asked).notes
    assert "no name in common with another, for example deep/c1 and c1, " in notes[0], "the first has none with any"
    found = api.score([*folders[::-1], tmp_path / "c"], out=tmp_path / "other", **asked)
    said = " ".join(found.verdict)
    assert "b and a have no clip of the same prompt and seed" in said
    assert "1 of 2 clips of b without a partner in c count in no comparison: c2." in said


def test_names_that_look_like_seeds_are_said_with_what_makes_them_seeds(tmp_path):
    made = clips(tmp_path / "made", "cat-0", "cat-1", "dog-0", "dog-1")
    asked = {"metrics": ["motion_amount"], "workers": 0}
    (note,) = api.score(made, out=tmp_path / "one", **asked).notes
    assert "look like 2 seeds of 2 prompts, but count as 4 prompts" in note
    line = note[note.index("{") :]
    assert line == '{"id": "cat", "prompt": "its caption"}'
    (tmp_path / "two.jsonl").write_text(f"{line}\n{line.replace('cat', 'dog')}\n")
    found = api.score(made, prompts=tmp_path / "two.jsonl", out=tmp_path / "two", **asked)
    assert not found.notes and found.failed == 0
    assert {(key.prompt, key.seed) for key in found.runs[0].samples()} == {
        *(("cat", 0), ("cat", 1), ("dog", 0), ("dog", 1))
    }


@pytest.mark.parametrize(
    ("files", "captions", "found"),
    [
        ("dog dog-1 dog-2", "a b c", "dog:0 dog-1:0 dog-2:0"),
        ("dog dog-1 dog-2", "dog dog dog", "dog:0 dog-1:0 dog-2:0"),
        ("dog-0 dog-1 dog-1-0 dog-1-1 dog-2-0 dog-2-1", "a b c", "dog:0 dog:1 dog-1:0 dog-1:1 dog-2:0 dog-2:1"),
        ("dog/0 dog/1 dog-1/0 dog-1/1 dog-2", "a b c", "dog:0 dog:1 dog-1:0 dog-1:1 dog-2:0"),
        ("s/dog-0 s/dog-1 s/dog-1-0 s/dog-1-1", "a b c", "dog:0 dog:1 dog-1:0 dog-1:1"),
    ],
)
def test_the_file_of_a_prompt_is_no_seed_of_another(tmp_path, files, captions, found):
    for number, stem in enumerate(files.split()):
        (tmp_path / "made" / stem).parent.mkdir(parents=True, exist_ok=True)
        write_clip(noise(number), tmp_path / "made" / f"{stem}.mkv")
    lines = zip(("dog", "dog-1", "dog-2"), captions.split(), strict=True)
    (tmp_path / "s.jsonl").write_text("".join(f'{{"id": "{name}", "prompt": "{said}"}}\n' for name, said in lines))
    scored = api.score(
        tmp_path / "made", prompts=tmp_path / "s.jsonl", metrics=["motion_amount"], out=tmp_path / "out", workers=0
    )
    made = [one for one in RunFolder(tmp_path / "out" / "made").samples().values() if one.path]
    assert {f"{one.key.prompt}:{one.key.seed}" for one in made} == {*found.split()}
    assert len({one.sha256 for one in made}) == len(made), "no file counts twice"
    assert not [note for note in scored.notes if "belong to no prompt" in note]


def test_a_folder_of_clips_is_a_reference_that_is_built_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    real, model = clips(tmp_path / "real", *"abcd"), clips(tmp_path / "model", *"efgh")
    asked = {"reference": real, "metrics": ["motion_amount"], "out": tmp_path / "out", "workers": 0}
    found = api.score(model, **asked)
    (card,) = (tmp_path / "cache" / "avbench" / "references").glob("*/card.json")
    made = card.stat().st_mtime_ns
    assert found.scores["reference"].notna().all() and '"licence": "not stated"' in card.read_text()
    api.score(model, **asked)
    assert card.stat().st_mtime_ns == made
    write_clip(noise(9), real / "e.mkv")
    api.score(model, **asked)
    assert len([*card.parents[1].glob("*/card.json")]) == 2, "other clips are another reference"


@pytest.mark.parametrize(
    ("cat", "dog"), [("cat", "dog"), ("cat-0", "dog/0"), ("A cat runs", "A dog barks-0"), ("c1", "x"), ("cat", "r/1")]
)
def test_real_clips_of_a_folder_are_those_of_the_prompts_that_they_are_named_after(tmp_path, monkeypatch, cat, dog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = [{"id": "cat", "prompt": "A cat runs", "file": "c1.mp4"}, {"id": "dog", "prompt": "A dog barks"}]
    if dog in ("x", "r/1"):
        lines[1]["reference_clip"] = f"{dog}.mp4"
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    clips(tmp_path / "model", "c1", "dog-0")
    for number, name in enumerate((cat, dog, "else")):
        (tmp_path / "real" / name).parent.mkdir(parents=True, exist_ok=True)
        write_clip(noise(5 + number), tmp_path / "real" / f"{name}.mkv")
    asked = {"reference": tmp_path / "real", "prompts": tmp_path / "p.jsonl", "out": tmp_path / "out", "workers": 0}
    api.score(tmp_path / "model", metrics=["motion_amount"], **asked)
    (card,) = (tmp_path / "cache" / "avbench" / "references").glob("*/card.json")
    assert {*avbench.metrics.reference.load(card.parent).clips["prompt"]} == {"cat", "dog", "else"}
    real = pd.read_parquet(tmp_path / "out" / "model" / "values.parquet").set_index("prompt")["real"]
    assert real.notna().all() and real["cat"] != real["dog"], "each clip is held against the real one of its prompt"


def test_a_reference_is_built_of_several_real_clips_of_each_prompt_of_a_file(tmp_path):
    clips(tmp_path / "real", "cat-0", "cat-1", "A dog barks_0", "A dog barks_1")
    clips(tmp_path / "model", "cat", "dog")
    prompts = tmp_path / "p.json"
    prompts.write_text('[{"id": "cat", "prompt": "A cat runs"}, {"id": "dog", "prompt": "A dog barks"}]')
    build = ["reference", "build", prompts, "--model", f"clips:{tmp_path}/real", "--seeds", 2, "--workers", 0]
    run_avbench(*build, "--metric", "motion_amount", "--work", tmp_path / "w", "--out", tmp_path)
    found = avbench.metrics.reference.load(tmp_path / "p").clips
    assert [*zip(found["prompt"], found["seed"], strict=True)] == [("cat", 0), ("cat", 1), ("dog", 0), ("dog", 1)]
    asked = {"prompts": prompts, "reference": tmp_path / "p", "metrics": ["motion_amount"], "workers": 0}
    api.score(tmp_path / "model", out=tmp_path / "out", **asked)
    real = pd.read_parquet(tmp_path / "out" / "model" / "values.parquet").set_index("prompt")["real"]
    assert real.notna().all() and real["cat"] != real["dog"]


def test_copies_of_clips_do_not_stay_in_the_cache_if_one_is_broken(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    real, model = clips(tmp_path / "real", *"abcd"), clips(tmp_path / "model", *"efgh")
    (real / "b.mkv").write_bytes((real / "b.mkv").read_bytes()[:500])
    with pytest.raises(InputError, match="1 clip could not be made, for example b "):
        api.score(model, reference=real, metrics=["motion_amount"], out=tmp_path / "out", workers=0)
    assert not [*(tmp_path / "cache/avbench/references").glob("*.work")]


@pytest.mark.parametrize("harm", ["card.json", "clips.csv", "columns.safetensors"])
def test_a_damaged_reference_in_the_cache_is_built_again(tmp_path, monkeypatch, harm):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    real, model = clips(tmp_path / "real", *"abcd"), clips(tmp_path / "model", *"efgh")
    asked = {"reference": real, "metrics": ["motion_amount"], "out": tmp_path / "out", "workers": 0}
    found = api.score(model, **asked)
    (card,) = (tmp_path / "cache" / "avbench" / "references").glob("*/card.json")
    whole = {path.name: path.read_bytes() for path in card.parent.iterdir()}
    (card.parent / harm).write_bytes(whole[harm][:100])
    again = api.score(model, **asked)
    assert {path.name: path.read_bytes() for path in card.parent.iterdir()} == whole
    assert again.scores.equals(found.scores)
    assert f"the reference of {real} in the cache is damaged, and is built again" in again.notes


def test_an_evaluation_by_one_more_metric_keeps_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    heard(tmp_path / "real", *"abcd"), heard(tmp_path / "model", *"efgh")
    asked = {"reference": "real", "out": "out", "workers": 0}
    api.score("model", metrics=["motion_amount", "motion_frechet"], **asked)
    run_avbench("measure", "out/model", "--metric", "onset_rate")
    before = {one.metric: (one.value, one.reference) for one in RunFolder(tmp_path / "out" / "model").scores()}
    for again in (
        lambda: run_avbench("evaluate", "out/model", "--reference", "real", "--metric", "onset_rate"),
        lambda: api.score("model", metrics=["motion_amount_distance"], **asked),
    ):
        again()
        scores = {one.metric: one for one in RunFolder(tmp_path / "out" / "model").scores()}
        assert {name: (scores[name].value, scores[name].reference) for name in before} == before
        assert scores["onset_rate"].reference is not None


def test_what_another_reference_changes_is_noted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    heard(tmp_path / "real", *"abcd"), heard(tmp_path / "model", *"efgh")
    api.score("model", metrics=["motion_frechet", "motion_amount"], reference="real", out="out", workers=0)
    run_avbench("reference", "build", "real", "--out", "other", "--metric", "onset_rate")
    run_avbench("measure", "out/model", "--metric", "onset_rate")
    said = run_avbench("evaluate", "out/model", "--reference", "other/real", "--metric", "onset_rate").stderr
    (line,) = [one for one in said.splitlines() if "out/model" in one]
    assert line.startswith("note: out/model: motion_frechet of clips was ")
    assert "and has no value now: the reference of real has no flow-dis; it has onsets" in line


def test_what_an_evaluation_cannot_know_of_the_last_one_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    clips(tmp_path / "real", *"abcd"), clips(tmp_path / "model", *"efgh")
    api.score("model", metrics=["motion_amount"], reference="real", out="out", workers=0)
    shutil.rmtree(tmp_path / "cache")
    said = run_avbench("evaluate", "out/model", "--metric", "motion_amount", code=2).stderr
    assert (
        "was scored with the reference real, which no longer exists or has to be built again: give reference (" in said
    )
    place = tmp_path / "out/model/scores.json"
    place.write_text(place.read_text().replace('"sha256"', '"sha"'))
    said = run_avbench("evaluate", "out/model", "--metric", "motion_amount").stderr
    assert "scores.json cannot be read, so its other metrics and its reference are not kept" in said


def test_the_printed_command_scores_the_same_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    clips(tmp_path / "refs" / "real", *"abcd"), clips(tmp_path / "model", *"efgh")
    found = api.score("model", reference="refs/real", metrics=["motion_amount"], out="out", workers=0)
    (run,) = found.runs
    scored = (run.path / "scores.json").read_bytes()
    command = page._commands(run, run.run())["evaluate"]
    assert command == "avbench evaluate out/model --reference refs/real --metric"
    for words in (command, "avbench evaluate out/model --metric"):  # the reference is remembered, and its name too
        run_avbench(*words.split()[1:], "motion_amount")
        assert (run.path / "scores.json").read_bytes() == scored


def test_a_call_without_a_reference_takes_that_of_an_earlier_one_for_all_its_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    heard(tmp_path / "real", *"abcd"), heard(tmp_path / "one", *"efgh"), heard(tmp_path / "two", *"efgh")
    asked = {"metrics": ["motion_amount"], "out": "out", "workers": 0}
    first = api.score("one", reference="real", **asked)
    assert not [note for note in first.notes if "earlier" in note]
    found = api.score(["one", "two"], **asked)
    (said,) = [note for note in found.notes if "earlier" in note]
    assert said.startswith("no reference was given, so that of an earlier call is used: real; the reference `shipped`")
    assert found.scores["reference"].nunique() == 1 and found.scores["reference"].notna().all()
    assert {run.evaluation().given["reference"] for run in found.runs} == {"real"}
    more = api.score(["one", "two"], **asked | {"metrics": ["motion_amount", "onset_rate"]})
    assert more.scores.set_index("metric").loc["onset_rate", "reference"].notna().all(), "built with its feature"
    shipped = api.score(["one", "two"], reference="shipped", **asked)
    assert shipped.scores["reference"].isna().all()
    assert not [note for note in api.score(["one", "two"], **asked).notes if "earlier" in note]


def test_a_reference_that_two_commands_need_is_built_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    real, built, work = clips(tmp_path / "real", *"ab"), [], Work(0)
    notes = work.reporter.notes

    def build(_clips, _metrics, making, place, _work):
        built.append(making)
        until = time.monotonic() + 30
        while not notes:
            assert time.monotonic() < until
            time.sleep(0.01)
        write_json(place / "card.json", {})

    monkeypatch.setattr(references, "build_reference", build)
    lacking = "1 of 2 clips of the reference have no flow-dis: it is too short"
    monkeypatch.setattr(references, "load", lambda _: SimpleNamespace(partial=[lacking]))
    with ThreadPoolExecutor(2) as commands:
        asked = [commands.submit(api.reference_of, real, chosen_metrics(["motion_amount"]), work) for _ in range(2)]
    assert len({one.result() for one in asked}) == len(built) == 1
    assert [*dict.fromkeys(notes)] == [
        f"another command builds the reference of {real}; this one waits for it",
        lacking,
    ]


def test_clips_that_another_command_added_meanwhile_are_scored(tmp_path):
    view = RunView(made_run(tmp_path / "run", names=["toy-control"], count=4).path)
    assert len(view.samples()) == 4
    made_run(tmp_path / "run", names=["toy-control"], count=5)
    (score,) = api.evaluated(view, chosen_metrics(["onset_rate"]))
    assert score.n == 5
    RunFolder(view.path).require_one_evaluation("values.parquet")


def test_scoring_waits_for_nobody_who_writes_the_same_run(tmp_path):
    model = clips(tmp_path / "model", *"ab")
    found = api.score(model, metrics=["motion_amount"], out=tmp_path / "out", workers=0)
    (run,) = found.runs
    with run.writing(), pytest.raises(InputError, match="is being written by another avbench"):
        api.evaluated(run, [])


def test_show_prints_the_answer_and_the_table_of_the_command_line(tmp_path, capsys):
    runs = [evaluated(made_run(tmp_path / name, names=["toy-control"], seed=k)).path for k, name in enumerate("ab")]
    found = api.compare(runs)
    found.show()
    shown = " ".join(capsys.readouterr().out.split())
    printed = " ".join(run_avbench("compare", *runs).stdout.split())
    sentences = [*found.verdict, "± is half of a 95 % interval."]
    assert all(sentence in text for sentence in sentences for text in (shown, printed))
    assert LEGEND not in shown, "the long tables are in the report"


def test_runs_of_one_name_are_told_apart_by_the_folders_above_them(tmp_path, monkeypatch):
    places = [tmp_path / one for one in ("new/a", "old/a", "old/b")]
    runs = [evaluated(made_run(place, names=["toy-control"], seed=k)).path for k, place in enumerate(places)]
    assert [one.name for one in api.compare(runs).runs] == ["new-a", "old-a", "b"]
    found = api.compare(runs[:2])
    assert {*found.scores["model"]} == {*found.clips["model"]} == {"new-a", "old-a"}
    assert set(found.differences[["run", "against"]].itertuples(index=False, name=None)) == {("old-a", "new-a")}
    assert "new-a" in run_avbench("leaderboard", tmp_path / "new", tmp_path / "old").stdout
    with pytest.raises(InputError, match=r"the run \S+new/a is given twice"):
        api.compare([runs[0], tmp_path / "old" / ".." / "new" / "a"])
    monkeypatch.chdir(runs[2])
    assert [one.name for one in api.compare([".", "../a"]).runs] == ["b", "a"]


def test_a_folder_is_scored_alone_after_it_was_scored_beside_others(tmp_path):
    """Names of the other folder were prompts of this run, of which it has no clip. It was "a run cannot shrink"."""
    a, b = clips(tmp_path / "a", "c1", "c2"), clips(tmp_path / "b", "c1", "d1")
    asked = {"metrics": ["motion_amount"], "workers": 0, "out": tmp_path / "out"}
    beside = api.score([a, b], **asked)
    alone = api.score(a, **asked).scores.iloc[0]
    assert (alone["n"], alone["unmeasured"], alone["value"]) == (2, 0, beside.scores["value"].iloc[0])
    api.score([a, b], **asked | {"metrics": ["still_flicker"]})
    assert {*api.score(a, **asked).scores["metric"]} == {"motion_amount", "still_flicker"}, "as of any earlier call"
    with pytest.raises(InputError, match="holds more prompts than were asked for, such as c2"):
        (b / "d1.mkv").unlink()
        api.score([b], **asked)


def test_what_folders_of_other_names_cannot_read_is_their_own_gap(tmp_path):
    """b, which had all its clips, lacked a's broken one. Names of b count as gaps of a where it has others."""
    a, b = heard(tmp_path / "a", "c1", "c2", "c3"), heard(tmp_path / "b", "d1")
    (a / "broken.mkv").write_bytes((a / "c1.mkv").read_bytes()[:300])
    asked = {"metrics": ["onset_rate"], "workers": 0}
    frame = api.score([a, b], out=tmp_path / "out", **asked).scores.set_index("model")
    assert frame["unmeasured"].to_dict() == {"a": 2, "b": 0} and not isinstance(frame["why_unmeasured"]["b"], str)
    (a / "broken.mkv").unlink()
    frame = api.score([a, b], out=tmp_path / "other", **asked).scores.set_index("model")
    assert frame["unmeasured"].to_dict() == {"a": 0, "b": 0}


def test_one_name_in_two_folders_is_a_common_name_where_one_of_them_cannot_be_read(tmp_path):
    """Each could read a name that the other could not, and neither had a gap."""
    a, b = clips(tmp_path / "a", "c1", "c2"), clips(tmp_path / "b", "c1", "c2")
    for path in (a / "c1.mkv", b / "c2.mkv"):
        path.write_bytes(path.read_bytes()[:300])
    frame = api.score([a, b], metrics=["motion_amount"], workers=0, out=tmp_path / "out").scores
    assert frame["unmeasured"].tolist() == [1, 1]


def test_every_kind_of_logger_gets_the_values_that_there_are(tmp_path):
    few = evaluated(made_run(tmp_path / "few", names=["toy-control"], count=12), "onset_rate", "lpips_consecutive")
    shown, of_few = api.compare(few.path), {}
    shown.scores.loc[shown.scores["metric"] == "onset_rate", "too_few"] = "n = 12: too few"  # as of a distance
    shown.log(SimpleNamespace(log=of_few.update))
    assert [*of_few] == ["few/toy-control/lpips_consecutive"] and shown.table["onset_rate"].isna().all()
    run = evaluated(made_run(tmp_path / "a", names=["toy-control"]), "onset_rate", "fvd")
    values = {score.metric: score.value for score in run.scores()}
    found, got = api.compare(run.path), {}

    def log(values, step="not given"):
        got.update({name: (value, step) for name, value in values.items()})

    tensorboard = SimpleNamespace(add_scalar=lambda name, value, step: log({name: value}, step))
    for logger, without in (
        (tensorboard, None),
        (SimpleNamespace(log_metrics=log, log=None), None),
        (SimpleNamespace(log=log), "not given"),
    ):
        for options, step in (({}, without), ({"step": 3}, 3)):
            got.clear()
            found.log(logger, **options)
            assert got == {"a/toy-control/onset_rate": (values["onset_rate"], step)}
    assert values["fvd"] is None
    with pytest.raises(InputError, match="object cannot be logged to: it has neither log, log_metrics nor add_scalar"):
        found.log(object())


def test_what_the_documentation_says_of_python_is_there(tmp_path, capsys):
    runs = [evaluated(made_run(tmp_path / name, names=["toy-control"], seed=k), *ASKED) for k, name in enumerate("ab")]
    found = api.compare([run.path for run in runs])
    for run in runs:
        values = {score.metric: score.value for score in run.scores() if score.value is not None}
        row = found.table.loc["toy-control", run.path.name]
        assert row.dropna().to_dict() == values and {*row.index} == {*ASKED}
    assert len(found.table) == 2
    found.show()
    assert "show(all_metrics=True)" in capsys.readouterr().out
    found.show(all_metrics=True)
    assert "show(all_metrics=True)" not in capsys.readouterr().out
    assert found.save_figure(tmp_path / "forest.svg") == [tmp_path / "forest.svg"]
    assert (tmp_path / "forest.svg").is_file()
    assert avbench.training_hook is training_hook
    a, b = np.random.default_rng(0).normal(size=(2, 500, 64))
    assert avbench.metrics.frechet_distance(a, b) == pytest.approx(4.438, abs=5e-4)


def test_an_import_at_first_use_leaves_the_random_state(tmp_path, monkeypatch):
    (tmp_path / "draws.py").write_text("import random\nDRAWN = random.getrandbits(32)\n")  # as rich.style does
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(avbench._PLACES, "DRAWN", "draws")
    state = random.getstate()
    assert avbench.DRAWN >= 0 and random.getstate() == state


def test_a_report_is_saved_and_its_page_returned(tmp_path):
    found = api.score(clips(tmp_path / "model", *"ab"), metrics=["motion_amount"], out=tmp_path / "out", workers=0)
    page = found.save_report(tmp_path / "report")
    assert page == tmp_path / "report" / "report.html" and found.verdict[0] in page.read_text()


def test_a_comparison_is_read_and_saved_wherever_the_process_works_by_then(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clips(Path("a"), "0", "1")
    avbench.score("a", metrics=["motion_amount"], out="runs", workers=0)
    found = avbench.compare("runs/a")
    (tmp_path / "later").mkdir()
    monkeypatch.chdir("later")
    page = found.save_report("report")
    assert page.resolve().parent == tmp_path / "later" / "report"
    assert len(list(page.parent.glob("media/*.mp4"))) == 2 and str(tmp_path) not in page.read_text()
    assert found.clips["value"].notna().sum() == 2


def test_the_latex_table_is_that_of_the_command_line(tmp_path):
    runs = [evaluated(made_run(tmp_path / name, names=["toy-control"], seed=k)).path for k, name in enumerate("ab")]
    found = api.compare(runs)
    asked = ["--format", "latex", "--caption", "short", "--metric", "lpips_consecutive"]
    assert found.to_latex("lpips_consecutive") == found.to_latex(["lpips_consecutive"])
    assert found.to_latex(["lpips_consecutive"]).strip() == run_avbench("compare", *runs, *asked).stdout.strip()
    first, second = (
        found.to_latex(names) for names in ("onset_rate, lpips_consecutive", ["lpips_consecutive", "onset_rate"])
    )
    assert first.index("onset rate") < first.index("LPIPS") and second.index("LPIPS") < second.index("onset rate")
    with pytest.raises(InputError, match="fvd was not computed"):
        found.to_latex(["fvd"])


def test_text_where_a_list_belongs_is_one_item(tmp_path):
    assert [one.name for one in chosen_metrics("motion_amount, onset_rate")] == ["motion_amount", "onset_rate"]
    for wrong in (3, [len], [None], b"motion_amount"):
        with pytest.raises(InputError, match="is no name of a metric: name metrics as text"):
            chosen_metrics(wrong)
    run = evaluated(made_run(tmp_path / "runs" / "a", names=["toy-control"])).path
    assert len(api.compare(str(run)).runs) == 1
    with pytest.raises(InputError, match=f"it has no run.json; the runs in it are {run}$"):
        api.compare(run.parent)
    with pytest.raises(InputError, match="give at least one run folder"):
        api.compare([])
    with pytest.raises(InputError, match="folder 5 is neither text nor a path: give a path"):
        api.score(5, out=tmp_path / "out")
    for asked in (functools.partial(api.score, tmp_path / "out"), functools.partial(api.run, "toyworld:")):
        with pytest.raises(InputError, match="out None is neither text nor a path: give the path of a folder"):
            asked(out=None)
    assert api.fetching("CC-BY-NC-4.0", api.Work()).accepted == ("CC-BY-NC-4.0",)


def scored_in_a_worker(folder, out, workers):
    try:
        return api.score(folder, metrics="motion_amount", out=out, workers=workers).scores["n"].tolist()
    except InputError as error:
        return str(error)


def test_a_worker_of_another_pool_works_alone(tmp_path):
    """Python refuses children to the processes of multiprocessing.Pool and of a DataLoader."""
    folder = clips(tmp_path / "model", *"ab")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        said = pool.apply(scored_in_a_worker, (folder, tmp_path / "out", 2))
        assert said.startswith("this process is itself a worker") and said.endswith("give workers=0 (--workers 0)")
        assert pool.apply(scored_in_a_worker, (folder, tmp_path / "out", 0)) == [2]


def test_the_caller_keeps_its_threads(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(2)
        cv2.setNumThreads(3)
        api.score(clips(tmp_path / "a", *"ab"), metrics="lpips_consecutive", out=tmp_path / "out", workers=0)
        assert (torch.get_num_threads(), cv2.getNumThreads(), "OMP_NUM_THREADS" in os.environ) == (2, 3, False)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def test_what_is_no_path_and_no_reporter_is_refused(tmp_path):
    for wrong in (b"a.mkv", None, 3, ""):
        for call in (avbench.load_clip, lambda path: avbench.save_clip(noise(1), path)):
            with pytest.raises(InputError, match="is no path of a clip: give one as text or as a Path"):
                call(wrong)
    with pytest.raises(InputError, match="has no notes: give an object like"):
        api.score(clips(tmp_path / "model", *"ab"), out=tmp_path / "out", reporter=print)


def test_features_keep_their_imaginary_part_and_their_mask_or_are_refused():
    x = np.random.default_rng(0).normal(size=(9, 3))
    for wrong in (x * 1j, np.ma.masked_less(x, 0), (x * 1j).tolist()):
        with pytest.raises(InputError, match="features"):
            avbench.metrics.frechet_distance(wrong, x)


def test_an_empty_path_is_not_the_current_folder(tmp_path, monkeypatch):
    """Path("") is Path("."), so that an empty variable of a script would stand for the folder that it runs in."""
    folder, run = clips(tmp_path / "model", *"ab"), evaluated(made_run(tmp_path / "a", names=["toy-control"])).path
    monkeypatch.chdir(folder)
    found = api.compare(run)
    for call in (
        lambda: api.score(""),
        lambda: api.score([run, ""]),
        lambda: api.score({"a": ""}),
        lambda: api.score(folder, reference=""),
        lambda: api.score(folder, out=""),
        lambda: api.run(""),
        lambda: api.run("toyworld:", subsets=""),
        lambda: api.run("toyworld:", against=""),
        lambda: api.compare(""),
        lambda: api.compare(run, reference=""),
        lambda: api.compare_arms({"a": run, "b": ""}),
        lambda: training_hook(run, out=""),
        lambda: training_hook(lambda request: None, ""),
        lambda: found.save_report(""),
        lambda: found.save_figure(""),
        lambda: load(""),
    ):
        with pytest.raises(InputError, match=r"is empty; write \. for the current folder$"):
            call()
    for wrong, words in (
        ("prompts", "the path of a prompts file"),
        ("columns", "the name of a preset"),
        ("shard", "text"),
    ):
        with pytest.raises(InputError, match=f"^{wrong} is empty; it must be {words}"):
            api.run("toyworld:", **{wrong: ""})
    assert sorted(one.name for one in folder.iterdir()) == ["a.mkv", "b.mkv"], "and nothing was written"


def test_names_of_metrics_may_come_from_a_generator_and_must_name_one(tmp_path):
    """A generator can be read once only: what is read twice would be no metric the second time."""
    names = ["motion_amount", "onset_rate"]
    assert [one.name for one in chosen_metrics(one for one in names)] == names
    runs = [evaluated(made_run(tmp_path / name, names=["toy-control"], seed=k)).path for k, name in enumerate("ab")]
    found = api.compare(runs, metrics=(one for one in ["lpips_consecutive"]))
    assert {*found.scores["metric"]} == {*found.differences["metric"]} == {"lpips_consecutive"}
    every = api.compare(runs)
    assert every.to_latex(one for one in ["lpips_consecutive"]) == every.to_latex("lpips_consecutive")
    folder = clips(tmp_path / "model", *"ab")
    scored = api.score(folder, metrics=map(str, names), out=tmp_path / "out", workers=0)
    assert {*scored.scores["metric"]} == {*names}
    scores = training_hook(runs[0], metrics=(one for one in ["onset_rate"]))
    assert {*scores, *scores.missing} >= {"toy-control/onset_rate"}
    for asked in (
        lambda: api.compare(runs, metrics=[]),
        lambda: api.compare_arms({"a": runs, "b": runs}, metrics=()),
        lambda: every.to_latex([]),
        lambda: training_hook(runs[0], metrics=iter([])),
    ):
        with pytest.raises(InputError, match="metrics is empty: name at least one, or leave metrics out"):
            asked()


def test_folders_of_frames_are_clips_once_their_rate_is_given(tmp_path):
    for clip in "xy":
        (tmp_path / "model" / clip).mkdir(parents=True)
        for number, frame in enumerate(noise(ord(clip)).frames[:6]):
            cv2.imwrite(str(tmp_path / "model" / clip / f"{number:03}.png"), frame)
    asked = {"metrics": ["motion_amount"], "out": tmp_path / "out", "workers": 0}
    lacking = r"no clip in it; .* has no frame rate; fps \(--fps\) of `score` or `reference build` gives one"
    with pytest.raises(InputError, match=lacking):
        api.score(tmp_path / "model", **asked)
    write_clip(noise(0), tmp_path / "model" / "z.mkv")
    (said,) = api.score(tmp_path / "model", **asked | {"out": tmp_path / "without"}).notes
    assert "x, y; a folder of images counts as a clip only with its frame rate: give fps (--fps)" in said
    found = api.score(tmp_path / "model", fps=8, **asked)
    assert [*found.clips["prompt"]] == ["x", "y", "z"] and found.scores["n"].item() == 3 and not found.notes


def test_folders_of_frames_are_real_clips_of_the_given_rate(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    model, real = clips(tmp_path / "model", *"ab"), tmp_path / "real"
    for clip in "xy":
        (real / clip).mkdir(parents=True)
        for number, frame in enumerate(noise(ord(clip)).frames[:6]):
            cv2.imwrite(str(real / clip / f"{number:03}.png"), frame)
    asked = {"metrics": ["motion_amount"], "workers": 0}
    slow, fast = (
        api.score(model, reference=real, fps=rate, out=tmp_path / str(rate), **asked).scores["reference"].item()
        for rate in (8, 16)
    )
    assert fast == pytest.approx(2 * slow), "the same motion in half the time"
    again = run_avbench("evaluate", tmp_path / "8/model", "--metric", "motion_amount", "--reference", real, code=None)
    assert again.exit_code == 0, again.output  # by the rate of the run's clips
    assert RunFolder(tmp_path / "8/model").scores()[0].reference == slow
    (tmp_path / "prompts.jsonl").write_text('{"id": "a", "prompt": "x"}\n{"id": "b", "prompt": "y"}\n')
    words = ["run", "clips:model", "-M", "fps=16", "--prompts", "prompts.jsonl", "--metric", "motion_amount"]
    run_avbench(*words, "--reference", "real", "--out", "made", "--workers", "0")
    assert RunFolder(tmp_path / "made/model").scores()[0].reference == fast
    said = run_avbench("compare", "made/model", "--reference", "real", code=2).stderr
    assert "real is a folder of clips and no reference" in said
    words = ["reference", "build", "real", "--fps", "16", "--out", "refs", "--metric", "motion_amount"]
    run_avbench(*words, "--work", "w", "--workers", "0")
    by_itself = api.score(model, reference="refs/real", out=tmp_path / "own", **asked)
    assert by_itself.scores["reference"].item() == fast


def test_a_clip_that_a_folder_lacks_was_not_found(tmp_path):
    one, other = clips(tmp_path / "one", *"abc"), clips(tmp_path / "other", *"ab")
    (other / "b.mkv").write_bytes(b"no clip")
    found = api.score([one, other], metrics=["motion_amount"], out=tmp_path / "out", workers=0)
    notes = [one.partition(": clips ")[::2] for one in found.notes if ": clips " in one]
    assert [(what, why[:2]) for what, why in notes] == [("not read in other", "b:"), ("not found in other", "c:")]
    told = run_avbench("status", tmp_path / "out" / "other").stdout
    assert "not found: 1 clip: no file matches" in told and "not read: 1 clip" in told and "failed" not in told
    text = found.save_report(tmp_path / "report").read_text()
    assert "<th>without a clip</th>" in text and "other: 2 without a clip, " in text
    assert "<b>motion_amount</b>: 2 of 3 clips without a number: no clip</li>" in text
    assert "rests on 1 clip; 2 could not be measured: no clip" in text


def test_each_folder_says_how_many_more_clips_it_lacks(tmp_path):
    folders = [clips(tmp_path / name, *"ab") for name in ("one", "two")]
    captions = tmp_path / "prompts.jsonl"
    captions.write_text("".join(json.dumps({"id": one, "prompt": one}) + "\n" for one in "ahgfedcb"))
    asked = {"metrics": ["onset_rate"], "prompts": captions, "out": tmp_path / "out", "workers": 0}
    notes = [one for one in api.score(folders, **asked).notes if one.startswith("not found")]
    assert [one.split(": ")[0] for one in notes] == ["not found in one"] * 6 + ["not found in two"] * 6
    assert [one.split(": ")[1].split()[-1] for one in notes[:5]] == [*"cdefg"], "in the same order for each"
    assert notes[5::6] == ["not found in one: 1 more clip", "not found in two: 1 more clip"]


def test_what_cannot_have_a_value_is_said_at_once_and_not_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked = {"metrics": ["motion_frechet", "onset_rate"], "out": tmp_path / "out", "workers": 0}
    models, notes = [clips(tmp_path / name, *"abc") for name in ("one", "two")], []
    with monkeypatch.context() as patch:
        patch.setattr(walk, "measured", lambda *given: notes.append([*given[2].reporter.notes]) or 0)
        api.score(models, **asked)
    assert notes[0] == [
        "not measured, for lack of real clips to compare with: motion_frechet; give a folder of "
        "them by reference (--reference FOLDER)",
        "the clips of one have no sound, so onset_rate will have no value",
    ]
    found = api.score(models, **asked)
    assert {place.name.partition("@")[0] for run in found.runs for place in run.feature_folders()} == {"onsets"}
    why = found.scores.set_index("metric")["missing"]
    assert why["motion_frechet"].str.contains("no reference").all()
    assert why["onset_rate"].str.startswith("the clip has no sound").all()
    found = api.score(models, reference=clips(tmp_path / "real", *"xyz"), **asked)
    assert any(place.name.startswith("flow-dis@") for place in found.runs[0].feature_folders()), "there are real clips"


def test_a_prompts_file_that_lies_there_and_is_wrong_is_said_with_what_to_do(tmp_path):
    model = clips(tmp_path / "model", "a", "b")
    (model / "prompts.jsonl").write_text('{"id": "a", "prompt": "a ball"}\n{"id": "b"}\n')
    found = r"prompts.jsonl, line 2: no video caption; .* correct it, name another one by prompts \(--prompts\), or"
    with pytest.raises(InputError, match=found):
        api.score(model, out=tmp_path / "out")


def test_file_names_for_captions_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(Onsets, "reads_captions", True, raising=False)
    asked = {"metrics": ["onset_rate"], "out": tmp_path / "out", "workers": 0}
    found = api.score(clips(tmp_path / "model", "c1"), **asked)
    assert any("so file names are the captions of onset_rate, for example 'c1'" in note for note in found.notes)


@pytest.mark.slow
def test_a_script_needs_no_guard_for_its_workers(tmp_path):
    """Python would run the script again in each worker, where it may start no more of them."""
    clips(tmp_path / "clips", "a", "b")
    script = tmp_path / "mine.py"
    script.write_text(
        'import avbench\n\nprint("begun")\n'
        'found = avbench.score("clips", metrics=["motion_amount"], workers=2)\nprint(len(found.clips), found.failed)\n'
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["begun", "2", "0"], done


def _made(request):
    return request


@pytest.mark.parametrize("subsets", [3, _made, ["toy-control", None]])
def test_a_subset_that_is_no_name_folder_or_subset_is_one_sentence(subsets, tmp_path):
    with pytest.raises(InputError, match="is neither a name nor a folder nor a Subset"):
        avbench.run("toyworld:", subsets=subsets, out=tmp_path)


def test_one_subset_or_path_is_as_a_list_of_its_name():
    one = load("toy-control")
    assert subset_names(one) == [one] and subset_names(None) is None
    assert subset_names([Path("mine"), "toy-control", one]) == ["mine", "toy-control", one]


@pytest.mark.parametrize("models", [_made, [_made, "toyworld:"], {"mine": _made}, 3])
def test_a_model_that_is_neither_text_nor_a_path_is_one_sentence(models, tmp_path):
    with pytest.raises(InputError, match="is neither text nor a path: name a checkpoint"):
        avbench.run(models, out=tmp_path)


def test_where_the_working_folder_was_deleted_the_sentence_says_so(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for call, given in ((avbench.score, {"out": tmp_path}), (avbench.compare, {}), (avbench.run, {"out": tmp_path})):
        with pytest.raises(InputError, match="the working folder was deleted: change to one that exists"):
            call(str(tmp_path), **given)


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), np.float32(8), np.int64(8), torch.tensor(8), 8, "8"])
def test_a_frame_rate_may_be_any_number_also_that_of_a_clip(tmp_path, fps):
    (tmp_path / "model" / "c1").mkdir(parents=True)
    for number, picture in enumerate(noise(0).frames):
        cv2.imwrite(str(tmp_path / "model" / "c1" / f"{number}.png"), picture)
    found = api.score(tmp_path / "model", fps=fps, metrics="motion_amount", out=tmp_path / "out", workers=0)
    (sample,) = found.runs[0].samples().values()
    assert avbench.load_clip(found.runs[0].path / sample.path).fps == Fraction(str(getattr(fps, "item", lambda: fps)()))


OF_NUMBERS = """
import numpy as np

import avbench


class Model:
    def __init__(self, value, share):
        self.settings = {"value": value, "share": share}

    def generate(self, requests):
        return [avbench.Clip(np.full((8, 32, 32, 3), self.settings["value"], np.uint8), 8) for _ in requests]
"""


def test_settings_may_be_numbers_of_numpy_and_have_names(tmp_path):
    subset, given = Subset("mine", 1, [Prompt("a", "a cat")], None), {"value": np.int64(3), "share": np.float32(0.5)}
    (tmp_path / "model_of_numbers.py").write_text(OF_NUMBERS)
    sys.path.append(str(tmp_path))
    try:
        how = {"subsets": subset, "metrics": "motion_amount", "out": tmp_path / "out", "workers": 0}
        (run,) = avbench.run("python:model_of_numbers:Model", settings=given, **how).runs
        with pytest.raises(InputError, match="settings has the name 1; names must be text"):
            avbench.run("python:model_of_numbers:Model", settings={1: 2}, **how)
    finally:
        sys.path.remove(str(tmp_path))
    assert run.run().asked == {"value": 3, "share": 0.5}


def test_an_empty_list_is_no_wish_for_the_demo(tmp_path):
    with pytest.raises(InputError, match="no model is named: name at least one"):
        avbench.run([], out=tmp_path)
    with pytest.raises(InputError, match="no subset is named: name at least one"):
        avbench.run("toyworld:", subsets=[], out=tmp_path)
    with pytest.raises(InputError, match="no subset is named: name at least one"):
        training_hook(_made, [])
    assert not [*tmp_path.iterdir()]


def test_subsets_of_one_name_are_no_run_unless_they_are_equal(tmp_path):
    """The run keeps clips and scores by the name, so it had the scores of the last one only."""
    one, other = (Subset("mine", 1, [Prompt("a", caption)], None) for caption in ("a cat", "a dog"))

    def made(request):
        return noise(1)

    with pytest.raises(InputError, match="two subsets are called 'mine': give them different names"):
        training_hook(made, [one, other], metrics="motion_amount")
    with pytest.raises(InputError, match="two subsets are called 'mine': give them different names"):
        avbench.run("toyworld:", subsets=[one, other], metrics="motion_amount", out=tmp_path, workers=0)
    assert training_hook(made, [one, one], metrics="motion_amount").clips == {"mine/motion_amount": 1}


@pytest.mark.parametrize("name", ["macro", "micro"])
def test_no_subset_has_the_name_of_the_rows_of_all_subsets(tmp_path, name):
    with pytest.raises(InputError, match=f"a subset is called '{name}', as the row of all subsets"):
        avbench.run("toyworld:", subsets=Subset(name, 1, [Prompt("a", "a cat")], None), out=tmp_path)


ONE_FRAME = np.zeros((1, 2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: avbench.score([ONE_FRAME]), "folder array([[[[0, 0, 0], [0, 0, 0]], "),
        (lambda: avbench.score(Clip(ONE_FRAME, 8)), "folder Clip(1 frame of 2 × 2 at 8 fps, no sound) is neither text"),
        (lambda: avbench.score(b"out/a"), "folder b'out/a' is neither text nor a path: give a path, a list"),
        (lambda: avbench.score({"a": None}), "folder None is neither text nor a path: give a dictionary from names"),
        (lambda: avbench.score("a", prompts=["a cat"]), "prompts is ['a cat']; it must be the path of a prompts file"),
        (lambda: avbench.score("a", reference=["b"]), "reference is ['b']; it must be the path of a folder of real"),
        (lambda: avbench.score("a", columns=["t2av"]), "columns is ['t2av']; it must be the name of a preset"),
        (lambda: avbench.score("a", shard=(1, 2)), "shard is (1, 2); it must be text such as '2/4'"),
        (lambda: avbench.score("a", precision=16), "precision is 16; it must be 'fp32' or 'bf16'"),
        (lambda: avbench.score("a", plan={}), "plan is {}; it must be a Plan, which avbench.comparison.plan.read("),
        (lambda: avbench.run("toyworld:", settings="x"), "settings is 'x'; it must be a dictionary"),
        (lambda: avbench.run("toyworld:", views=3), "views has 3; it must be a text or a list of texts"),
        (lambda: avbench.run("toyworld:", preset=["a"]), "preset is ['a']; it must be a paper's name, such as"),
        (lambda: avbench.run("toyworld:", against=3), "against is 3; it must be the path of the run folder"),
        (lambda: avbench.run("toyworld:", fetch=3), "fetch has 3; it must be a text or a list of texts"),
        (lambda: avbench.compare("a", allow=[3]), "allow has 3; it must be a text or a list of texts"),
        (lambda: avbench.compare(None), "run None is neither text nor a path: give a run folder or several"),
        (lambda: avbench.compare("a", plan="x"), "plan is 'x'; it must be a Plan"),
        (lambda: avbench.compare_arms(["a"]), "arms is ['a']; it must be a dictionary such as {'a': 'runs/a-*', "),
        (lambda: avbench.compare_arms({"a": [3]}), "run of a 3 is neither text nor a path: give the run folders of"),
        (lambda: avbench.save_clip(ONE_FRAME, "a.mkv"), "is no clip: give a Clip, as in avbench.save_clip("),
        (lambda: avbench.run("toyworld:", subsets="a", prompts="b"), "give subsets (--subset) or prompts (--prompts)"),
    ],
)
def test_an_argument_of_a_wrong_type_is_one_sentence(call, words):
    with pytest.raises(InputError, match=re.escape(words)):
        call()


@pytest.mark.parametrize("workers", [-1, 1.5, "2", True])
def test_workers_that_are_no_number_of_processes_are_refused(workers):
    for call in (avbench.score, avbench.run, avbench.training_hook):
        with pytest.raises(InputError, match=f"^workers is {workers!r}; it must be a whole number from 0"):
            call("toyworld:", workers=workers)


def test_a_device_of_torch_is_a_device(tmp_path):
    folder = clips(tmp_path / "model", "a")
    asked = {"metrics": "motion_amount", "out": tmp_path / "out", "workers": np.int64(0)}
    assert not avbench.score(folder, device=torch.device("cpu"), **asked).failed


def test_one_text_is_one_metric_and_one_field(tmp_path, monkeypatch):
    runs = [evaluated(made_run(tmp_path / name, names=["toy-control"], seed=k)).path for k, name in enumerate("ab")]
    found = api.compare(runs, metrics="onset_rate, lpips_consecutive", allow="reference")
    assert {*found.scores["metric"]} == {"onset_rate", "lpips_consecutive"}
    fields = []
    monkeypatch.setattr(comparing, "leaderboard", lambda runs, *, allow, metrics: fields.extend(allow) or found.scores)
    api.compare(runs, allow="reference")
    assert fields == ["reference"]


def test_a_comparison_is_shown_by_its_verdict(tmp_path):
    runs = [evaluated(made_run(tmp_path / name, names=["toy-control"], seed=k)).path for k, name in enumerate("ab")]
    found = api.compare(runs)
    assert repr(found).splitlines() == ["Comparison of a, b", *found.verdict]


def test_clips_are_no_reference_to_compare_by(tmp_path):
    run = evaluated(made_run(tmp_path / "a", names=["toy-control"])).path
    real = clips(tmp_path / "real", "x")
    with pytest.raises(InputError, match=r"real is a folder of clips and no reference, .* leave reference \("):
        api.compare(run, reference=real)
    with pytest.raises(InputError, match="reference nothing does not exist"):
        api.compare(run, reference="nothing")
