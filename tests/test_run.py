"""The whole way: from prompts to a table, killed and resumed, on good files and on bad ones."""

import json
import shutil
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from command_line import run_avbench
from processes import processes_of, wait_until

from avbench.core import Audio, Clip
from avbench.metrics.table import Metric
from avbench.storage.media import write_clip
from avbench.storage.runs.folder import RunFolder

ALONE = ["--workers", 0]
QUICK = ["--metric", "motion_amount", "--metric", "warping_error", "--metric", "onset_rate"]


def scores(out, run):
    plain = json.loads((out / run / "scores.json").read_text())["scores"]
    return {(score["subset"], score["metric"]): score for score in plain}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed, by two workers."""
    out = tmp_path_factory.mktemp("whole")
    run_avbench("run", "toyworld:", "toyworld:noisy", "--limit", 3, *QUICK, "--workers", 2, "--out", out)
    return out


@pytest.mark.slow
def test_tables_and_page_are_written(whole):
    frame = pd.read_parquet(whole / "table.parquet")
    pooled = frame["subset"].isin(["macro", "micro"])
    assert len(frame[~pooled]) == 2 * 3 * 3 and pooled.any()
    assert set(frame["model"]) == {"toyworld", "toyworld-noisy"}
    pd.testing.assert_series_equal(pd.read_csv(whole / "table.csv")["value"], frame["value"])
    assert "| toyworld-noisy |" in (whole / "table.md").read_text()
    page = (whole / "report.html").read_text()
    clips = {one.sha256 for run in ("toyworld", "toyworld-noisy") for one in RunFolder(whole / run).samples().values()}
    assert len(clips) > 9 and all(page.count(f'id="media-{sha256}"') == 1 for sha256 in clips)
    values = pd.read_parquet(whole / "toyworld" / "values.parquet")
    assert set(values["metric"]) == {"motion_amount", "warping_error", "onset_rate"}
    assert len([*(whole / "toyworld/clips/toy-control").glob("*.truth.json")]) == 3


@pytest.mark.slow
def test_noise_is_worse_where_things_move(whole):
    good, noisy = scores(whole, "toyworld"), scores(whole, "toyworld-noisy")
    for subset in ("toy-large-motion", "toy-object-contact"):
        assert noisy[subset, "warping_error"]["value"] > 2 * good[subset, "warping_error"]["value"]


@pytest.mark.slow
def test_scores_do_not_depend_on_the_number_of_workers(whole, tmp_path):
    run_avbench("run", "toyworld:", "--limit", 3, *QUICK, "--workers", 0, "--out", tmp_path)
    for name in ("scores.json", "values.parquet"):
        assert (tmp_path / "toyworld" / name).read_bytes() == (whole / "toyworld" / name).read_bytes()


@pytest.mark.slow
def test_killed_anywhere_and_resumed_ends_the_same(whole, tmp_path):
    arguments = ["run", "toyworld:", "toyworld:noisy", "--limit", "3", *QUICK, "--workers", "2", "--out", str(tmp_path)]

    def written():
        return sum(path.read_bytes().count(b"\n") for path in tmp_path.rglob("*.jsonl"))

    for least in (1, 7, 15, 24, 40):  # of 18 clips and 36 rows
        process = subprocess.Popen(
            [sys.executable, "-m", "avbench", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda process=process, least=least: process.poll() is not None or written() >= least)
        assert process.poll() is None, "it ended before it was killed"
        process.kill()
        process.wait()
        wait_until(lambda process=process: not processes_of(process.pid))
    run_avbench(*arguments)
    for run in ("toyworld", "toyworld-noisy"):
        for name in ("scores.json", "values.parquet"):
            assert (tmp_path / run / name).read_bytes() == (whole / run / name).read_bytes()
        lines = (tmp_path / run / "samples.jsonl").read_bytes().splitlines()
        assert len(lines) == 9, "no clip that was written down is made again"
    assert not list(tmp_path.rglob("*.part*"))


@pytest.mark.slow
def test_each_stage_alone(whole, tmp_path):
    options = ["--subset", "toy-control", "--limit", 2, "--out", tmp_path]
    assert "toyworld" in run_avbench("sample", "toyworld:", *options, *ALONE).stdout
    refused = run_avbench("compare", tmp_path / "toyworld", code=2)
    assert "avbench evaluate" in refused.stderr
    run_avbench("measure", tmp_path / "toyworld", "--metric", "motion_amount", *ALONE)
    run_avbench("evaluate", tmp_path / "toyworld", "--metric", "motion_amount")
    assert (
        "toy-control,motion_amount,toyworld," in run_avbench("compare", tmp_path / "toyworld", "--format", "csv").stdout
    )
    refused = run_avbench("compare", tmp_path / "toyworld", whole / "toyworld-noisy", code=2)
    assert "different protocols" in refused.stderr and "subset" in refused.stderr


@pytest.fixture(scope="module")
def folder_of_clips(tmp_path_factory):
    """Seven prompts: good, silent, one frame, corrupt, truncated, empty, absent; and a file that matches none."""
    folder = tmp_path_factory.mktemp("mine")
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (80, 120, 3), np.uint8)
    moving = np.stack([np.roll(texture, 2 * k, axis=1)[8:72, 8:104] for k in range(16)])
    sound = Audio((0.1 * rng.standard_normal((1, 16000))).astype(np.float32), 16000)
    write_clip(Clip(moving, Fraction(12), sound), folder / "good.mkv")
    write_clip(Clip(moving, Fraction(12)), folder / "silent-0.mp4", lossless=False)
    write_clip(Clip(moving[:1], Fraction(12)), folder / "one-frame.mkv")
    write_clip(Clip(moving, Fraction(12)), folder / "stranger.mkv")
    whole_file = (folder / "good.mkv").read_bytes()
    (folder / "corrupt.mkv").write_bytes(bytes(255 - byte for byte in whole_file))
    (folder / "truncated.mkv").write_bytes(whole_file[: len(whole_file) // 2])
    (folder / "empty.mkv").touch()
    names = ("good", "silent", "one-frame", "corrupt", "truncated", "empty", "absent")
    prompts = folder / "my-prompts.jsonl"
    prompts.write_text("".join(json.dumps({"id": name, "prompt": f"a {name} clip"}) + "\n" for name in names))
    return folder


@pytest.mark.slow
def test_bad_files_cost_themselves_only(folder_of_clips, tmp_path):
    prompts = folder_of_clips / "my-prompts.jsonl"
    asked = ["--prompts", prompts, *QUICK, "--metric", "fvd"]
    done = run_avbench("run", f"clips:{folder_of_clips}", *asked, *ALONE, "--out", tmp_path, code=1)
    assert "4 clips could not be made" in done.stderr
    assert "belong to no prompt of this run: stranger.mkv" in done.stderr
    run = RunFolder(tmp_path / folder_of_clips.name)
    failures = {key.prompt: sample.failure for key, sample in run.samples().items() if sample.failure}
    assert set(failures) == {"corrupt", "truncated", "empty", "absent"}
    assert "no file matches" in failures.pop("absent")
    assert all(f"{name}.mkv" in sentence for name, sentence in failures.items())
    found = scores(tmp_path, folder_of_clips.name)
    assert "has no reference statistics" in found["my-prompts", "fvd"]["missing"]
    assert found["my-prompts", "motion_amount"]["n"] == 2
    assert found["my-prompts", "motion_amount"]["unmeasured"] == 5
    assert found["my-prompts", "onset_rate"]["n"] == 1
    kept = run.path / "clips" / "my-prompts" / "good-0.mkv"
    assert kept.read_bytes() == (folder_of_clips / "good.mkv").read_bytes()


@pytest.mark.slow
def test_prompts_stay_text_on_the_page(folder_of_clips, tmp_path):
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(folder_of_clips / "good.mkv", only / "x.mkv")
    (tmp_path / "p.jsonl").write_text(json.dumps({"id": "x", "prompt": "<img src=x onerror=alert(1)>"}))
    run_avbench("run", only, "--prompts", tmp_path / "p.jsonl", *QUICK, *ALONE, "--out", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<img src=x" not in page and r"\u003cimg src=x" in page


@pytest.mark.slow
def test_no_sound_anywhere_is_a_sentence(folder_of_clips, tmp_path):
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(folder_of_clips / "silent-0.mp4", only / "a silent clip-0.mp4")
    (tmp_path / "p.jsonl").write_text(json.dumps({"id": "x", "prompt": "a silent clip"}))
    run_avbench("run", only, "--prompts", tmp_path / "p.jsonl", *QUICK, *ALONE, "--out", tmp_path / "out")
    score = scores(tmp_path / "out", "only")["p", "onset_rate"]
    assert score["value"] is None and "no sound" in score["missing"]


@pytest.mark.slow
def test_fvd_under_other_protocols_is_measured_and_printed_with_its_spread(tmp_path, monkeypatch):
    monkeypatch.setattr(Metric, "too_few", lambda *_: None)  # three clips show how it is printed
    subset = ["--subset", "toy-object-contact", "--limit", 3, "--out", tmp_path]
    for model in ("toyworld:", "toyworld:noisy"):
        run_avbench("sample", model, *subset, *ALONE)
    asked = ["--metric", "fvd", "--fvd-protocol", "javisbench"]
    folders = ["--work", tmp_path / "work", "--out", tmp_path]
    run_avbench("reference", "build", tmp_path / "toyworld/clips", "--name", "real", *asked, *folders, *ALONE)
    output = run_avbench(
        "evaluate", tmp_path / "toyworld-noisy", *asked, "--reference", tmp_path / "real", *ALONE
    ).stdout
    assert "javisbench" in output and "largest / smallest" in output and "×" in output
    found = scores(tmp_path, "toyworld-noisy")
    ours, theirs = (found["toy-object-contact", name]["value"] for name in ("fvd", "fvd_javisbench"))
    assert ours > 1.5 * theirs, "they show the network half the contrast"
    run_avbench("evaluate", tmp_path / "toyworld-noisy", *asked, "--reference", "shipped")
    missing = scores(tmp_path, "toyworld-noisy")["toy-object-contact", "fvd_javisbench"]["missing"]
    assert "the reference of toy-object-contact has no i3d-javisbench" in missing
