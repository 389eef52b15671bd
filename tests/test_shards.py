"""Shards are parts of a run: no clip is in two or in none, and each part is like the others."""

import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from command_line import run_avbench
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_of_runs import content

from avbench.core import ClipSpec, InputError, Prompt, Shard, Subset, planned_keys
from avbench.generation.sample import _batches, plan
from avbench.report.page import page
from avbench.storage.runs.folder import RunFolder


def subsets(*sizes):
    return [
        Subset(f"s{one}", 1, tuple(Prompt(f"p{n}", "x") for n in range(size)), None) for one, size in enumerate(sizes)
    ]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 9), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_every_clip_is_in_one_shard_and_subsets_are_balanced(sizes, count, seeds):
    asked = subsets(*sizes)
    shards = []
    for number in range(1, count + 1):
        try:
            shards.append(planned_keys(asked, range(seeds), Shard(number, count)))
        except InputError as error:
            assert f"there are only {sum(sizes)} in all" in str(error)
            shards.append([])
    together = [key for shard in shards for key in shard]
    assert sorted(together) == sorted(planned_keys(asked, range(seeds)))
    for subset in asked:
        counts = [sum(key.subset == subset.name for key in shard) for shard in shards]
        assert max(counts) - min(counts) <= seeds, "at most one prompt more"


@pytest.mark.parametrize(("sizes", "count"), [((96, 96, 96), 7), ((2,) * 40, 64), ((50,) * 3, 4), ((10,) * 4, 4)])
def test_shards_of_equal_subsets_are_equally_large(sizes, count):
    lengths = [len(planned_keys(subsets(*sizes), [0], Shard(number, count))) for number in range(1, count + 1)]
    assert max(lengths) - min(lengths) <= 1


def test_a_larger_limit_or_more_seeds_move_no_prompt():
    asked = subsets(30, 12)
    for number in range(1, 5):
        few = planned_keys([one.limited(7) for one in asked], [0], Shard(number, 4))
        assert {*few} <= {*planned_keys(asked, [0, 1], Shard(number, 4))}


def test_a_run_that_stops_early_has_clips_of_every_subset():
    keys = planned_keys(subsets(30, 5, 20), [0, 1])
    assert Counter(key.subset for key in keys[:24]) == {"s0": 8, "s1": 8, "s2": 8}
    assert keys[0][:2] == keys[1][:2], "the seeds of a prompt stay together"


def test_a_batch_has_clips_of_one_spec_and_subsets_still_take_turns():
    specs = [ClipSpec(64, 64, 16, Fraction(8)), ClipSpec(128, 64, 16, Fraction(8))]
    asked = [replace(subset, clip_spec=spec) for subset, spec in zip(subsets(5, 4), specs, strict=True)]
    requests = plan(asked, [0])
    batches = _batches(requests, 2)
    assert [[request.key.subset for request in batch] for batch in batches] == [
        ["s0", "s0"], ["s1", "s1"], ["s0", "s0"], ["s1", "s1"], ["s0"],
    ]  # fmt: skip
    assert sorted(request.key for batch in batches for request in batch) == sorted(one.key for one in requests)


@pytest.mark.parametrize("text", ["0/4", "5/4", "2", "2/0", "-1/4", "a/b", "1/4 ", "2//4", ""])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(InputError, match=r"write i/n with 1 ≤ i ≤ n, for example 2/4"):
        Shard.parse(text)


QUICK = ("--metric", "onset_rate,motion_amount", "--workers", 1)
TOGETHER = ("--metric", "onset_rate,motion_amount,lpips_seeds", "--workers", 1)
"""The last of which sees all clips of a prompt."""
TOY = ("--subset", "toy-control,toy-object-contact", "--limit", 3)


@pytest.fixture(scope="module")
def one_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("one")
    run_avbench("sample", "toyworld:", *TOY, "--seeds", 2, "--workers", 1, "--out", out)
    place = out / "toyworld"
    done = run_avbench("measure", place, *TOGETHER)
    assert done.stdout == f"measured {place}; `avbench evaluate {place}` computes the scores, given the same metrics\n"
    done = run_avbench("evaluate", place, *TOGETHER[:2])
    assert done.stdout == f"evaluated {place}; `avbench compare {place}` prints the scores\n"
    return out / "toyworld"


@pytest.mark.slow
def test_shards_put_together_are_one_run_byte_for_byte(one_run, tmp_path):
    for number in (3, 1, 2):
        words = ("--seeds", 2, "--workers", 1, "--out", tmp_path, "--shard", f"{number}/3")
        place = run_avbench("sample", "toyworld:", *TOY, *words).stdout.strip()
        assert run_avbench("measure", place, *TOGETHER).stdout.endswith("; `avbench runs merge` joins the shards\n")
    parts = sorted((tmp_path / "shards").glob("*/toyworld"))
    output = run_avbench("runs", "merge", tmp_path / "toyworld", *reversed(parts)).stdout
    assert "12 of 12 clips" in output and "missing" not in output
    run_avbench("evaluate", tmp_path / "toyworld", *TOGETHER[:2])
    assert content(tmp_path / "toyworld") == content(one_run)


@pytest.mark.slow
def test_run_makes_the_table_of_a_shard_from_its_own_clips(tmp_path):
    words = (*TOY, *QUICK, "--out", tmp_path, "--shard", "2/3")
    run_avbench("run", "toyworld:", "toyworld:noisy", *words)
    place = tmp_path / "shards/2-of-3"
    assert {path.name for path in place.iterdir()} >= {"toyworld", "toyworld-noisy", "table.md", "report.html"}
    folder = RunFolder(place / "toyworld")
    counts = {score.n for score in folder.scores() if score.metric == "onset_rate"}
    assert counts == {1} and {score.missing for score in folder.scores()} == {None}, "one prompt of each subset"
    command = page._commands(folder, folder.run())["sample"]
    assert f"--out {tmp_path.name} --shard 2/3" in command, "a page names no local folder"
    again = run_avbench("sample", "toyworld:", *TOY, "--out", place, code=2)
    assert "holds another run (shard: '(absent)' was asked for, the folder holds '2/3')" in again.stderr


@pytest.mark.slow
def test_a_finished_run_is_measured_in_shards(one_run, tmp_path, monkeypatch):
    run = tmp_path / "toyworld"
    run_avbench("runs", "merge", run, one_run)
    for rows in (run / "features").glob("*/rows.jsonl"):
        rows.unlink()
    for number in (1, 2):
        done = run_avbench("measure", run, *TOGETHER, "--shard", f"{number}/2")
        assert done.stdout.endswith("; `avbench runs merge` joins the shards\n")
    run_avbench("runs", "merge", run, *(tmp_path / "shards").glob("*/toyworld"))
    run_avbench("evaluate", run, *TOGETHER[:2])
    assert content(run) == content(one_run)
    share = tmp_path / "shards/1-of-2/toyworld"
    before = {*tmp_path.rglob("*")}
    monkeypatch.chdir(run)
    run_avbench("measure", ".", *TOGETHER, "--shard", "1/2")
    assert {*tmp_path.rglob("*")} == before, "the run that one is in has its shards beside it, too"
    assert "is shard 1/2 of a run already" in run_avbench("measure", share, "--shard", "1/3", code=2).stderr


@pytest.mark.slow
def test_score_takes_a_shard_of_finished_clips(one_run, tmp_path):
    """Each shard measures its own clips; a clip that the folder lacks is no failure."""
    missing = next((one_run / "clips/toy-control").glob("*-1.mkv"))
    clips = tmp_path / "clips"
    clips.mkdir()
    for clip in (one_run / "clips/toy-control").glob("*.mkv"):
        if clip.name != missing.name:
            (clips / clip.name).write_bytes(clip.read_bytes())
    for number in (1, 2):
        output = run_avbench("score", clips, *QUICK, "--out", tmp_path / "out", "--shard", f"{number}/2").output
        assert "belong to no prompt of this run" not in output
    found = [*(tmp_path / "out/shards").glob("*/clips")]
    run_avbench("runs", "merge", tmp_path / "out/clips", *found)
    assert sum(one.path is not None for one in RunFolder(tmp_path / "out/clips").samples().values()) == 5


def test_an_empty_shard_is_refused(tmp_path):
    words = ("--subset", "toy-control", "--limit", 1, "--out", tmp_path, "--shard", "2/2")
    message = run_avbench("sample", "toyworld:", *words, code=2).stderr
    assert "shard 2/2 has no prompt, because there are only 1 in all: make fewer shards" in message
    assert not (tmp_path / "shards/2-of-2/toyworld/run.json").exists()


SBATCH = """#!/bin/bash
# Runs a job script in the place of Slurm: once, or once for each number of its array.
for word; do script=$word; done
count=$(sed -n 's/^#SBATCH --array=1-//p' "$script")
for number in $(seq "${count:-1}"); do
    SLURM_ARRAY_TASK_ID=$number bash "$script" >> log 2>&1 || exit 1
done
echo 1234
"""


@pytest.mark.slow
def test_the_slurm_array_of_the_docs_does_what_it_says(tmp_path):
    text = (Path(__file__).parent.parent / "docs/scale.md").read_text()
    blocks = dict(re.findall(r'^```bash title="([\w.]+)"\n(.*?)^```', text, re.MULTILINE | re.DOTALL))
    assert {*blocks} == {"part.sh", "merge.sh", "submit"}
    tools = {"sbatch": SBATCH, "avbench": f'#!/bin/bash\nexec "{sys.executable}" -m avbench "$@"\n'}
    (tmp_path / "bin").mkdir()
    for name, script in tools.items():
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    for name, script in blocks.items():
        (tmp_path / name).write_text(script)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    core = {min(os.sched_getaffinity(0))} if hasattr(os, "sched_getaffinity") else None
    done = subprocess.run(
        ["bash", "submit"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        preexec_fn=core and (lambda: os.sched_setaffinity(0, core)),  # one core is one worker, without another process
    )
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_bytes()
    assert "8 of 8 clips" in (tmp_path / "log").read_text()
    folder = RunFolder(tmp_path / "runs/toyworld")
    assert {score.n for score in folder.scores()} == {8} and (tmp_path / "report/report.html").is_file()
    assert len([*(tmp_path / "runs/shards").glob("*-of-4/toyworld/run.json")]) == 4
