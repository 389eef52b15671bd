"""Clips are measured while the next ones are made, by processes that sampling leaves idle."""

import dataclasses
import functools
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dying_workers
import pytest
from processes import FORKS, children_named, in_time, processes_of, wait_until, written

from avbench.api import run, stages
from avbench.api.stages import measured_as_made
from avbench.api.work import Work
from avbench.core import InputError, Row
from avbench.features import devices
from avbench.features import measure as measuring
from avbench.features.measure import measure, measure_as_made
from avbench.features.protocols import protocol_in
from avbench.generation import sample as sampling
from avbench.metrics.evaluate import chosen_metrics
from avbench.storage import plug_ins
from avbench.storage.reading import read_lines
from avbench.storage.runs.folder import RunFolder
from avbench.storage.workers.worker_pool import LocalPool, alongside
from avbench.subsets import loading

pytestmark = FORKS

METRICS = ["onset_rate", "motion_amount"]
WAITING = """
import time
from pathlib import Path

from avbench.generation.providers.toyworld import ToyWorld


class Waiting(ToyWorld):
    concurrency = 1

    def __init__(self, awaits=""):
        super().__init__("")
        self.settings = {**self.settings, "awaits": awaits}

    def generate(self, requests):
        stop, files = time.monotonic() + 120, self.settings["awaits"]
        while files and requests[0].key.seed == 2 and not any(map(written, Path().glob(files))):
            assert time.monotonic() < stop, "nothing is measured yet"
            time.sleep(0.1)
        return super().generate(requests)


def written(path):
    return len(path.read_bytes().splitlines()) > 1
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(measuring, "_BEGINS_SECONDS", 0.5)


@pytest.fixture
def folder(tmp_path):
    found = RunFolder(tmp_path / "toyworld")
    list(sampling.sample(found, "toyworld:", {}, [loading.load("toy-control").limited(2)], [0])[1])
    return found


@contextmanager
def in_a_thread(folder, features):
    """Measure as clips are made, in a thread that has ended after the block."""
    stopped = threading.Event()
    asked = (LocalPool(0), stopped, folder, features)
    thread = threading.Thread(target=measure_as_made, args=asked, daemon=True)
    thread.start()
    yield
    stopped.set()
    thread.join(300)
    assert not thread.is_alive()


def test_a_waiting_model_makes_clips_while_earlier_ones_are_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("waiting_model.py").write_text(WAITING)
    asked = {"subsets": "toy-control", "limit": 1, "seeds": 3, "metrics": METRICS}
    rows = {"awaits": "beside/*/features/*/rows.jsonl"}
    beside = run("python:waiting_model:Waiting", **asked, settings=rows, workers=2, out="beside")
    after = run("python:waiting_model:Waiting", **asked, workers=1, out="after")
    assert (beside.failed, after.failed, beside.notes) == (0, 0, after.notes)
    first, second = (
        {one.metric: (one.value, one.n) for one in RunFolder(tmp_path / out / "python-waiting_model-Waiting").scores()}
        for out in ("beside", "after")
    )
    assert first == second and {n for _, n in first.values()} == {3}
    for rows in (tmp_path / "beside").glob("*/features/*/rows.jsonl"):
        assert len([*read_lines(rows)]) == 3, "each clip is measured once"


@pytest.mark.slow
def test_a_kill_meanwhile_loses_nothing_and_leaves_no_process(tmp_path):
    (tmp_path / "waiting_model.py").write_text(WAITING)
    asked = (
        "run python:waiting_model:Waiting -M awaits=g? --subset toy-control --limit 1 --seeds 3 --workers 2 --out runs"
    )
    words = [*asked.split(), *(f"--metric={name}" for name in METRICS)]
    command, where = [sys.executable, "-m", "avbench", *words], {"cwd": tmp_path, "stderr": subprocess.DEVNULL}
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True, **where)
    wait_until(lambda: any(one.read_text().count("\n") == 2 for one in tmp_path.glob("runs/*/features/*/rows.jsonl")))
    assert len(processes_of(killed.pid)) > 1
    killed.kill()
    killed.wait()
    wait_until(lambda: not processes_of(killed.pid))
    (tmp_path / "go").write_text("now\nreally\n")
    assert subprocess.run(command, stdout=subprocess.DEVNULL, **where).returncode == 0
    (folder,) = map(RunFolder, tmp_path.glob("runs/*waiting*"))
    assert [one.n for one in folder.scores()] == [3, 3]
    for lines in (folder.path / "samples.jsonl", *folder.path.glob("features/*/rows.jsonl")):
        assert len([*read_lines(lines)]) == 3, "nothing is made or measured twice"


@pytest.mark.parametrize(
    ("pool", "workers", "idle"),
    [
        (LocalPool(0), 8, 7),
        (LocalPool(2), 8, 6),
        (LocalPool(8), 8, 0),
        (LocalPool(0), 1, 0),
        (LocalPool(0), 0, 0),
        (LocalPool(20, threads=True), 8, 7),
        (SimpleNamespace(), SimpleNamespace(), 0),
    ],
)
def test_what_sampling_leaves_idle(pool, workers, idle):
    assert sampling._idle(pool, workers) == idle


def test_nothing_is_measured_beside_sampling_where_gpus_measure(folder, monkeypatch):
    begun = []
    monkeypatch.setattr(stages, "alongside", lambda *_: begun.append(True) or nullcontext())
    asked = {"metrics": chosen_metrics(METRICS), "reference": None}
    with measured_as_made(folder, 2, **asked, work=Work(device="cpu")):
        assert begun.pop()
    monkeypatch.setattr(devices, "resolve", lambda asked: ("cuda:0",))
    with measured_as_made(folder, 2, **asked, work=Work()):
        time.sleep(2)
    assert not begun and not folder.feature_folders()


def test_a_cache_at_a_relative_path_stays_where_the_command_was_given(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("AVBENCH_CACHE", "cache")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    metrics = chosen_metrics(["onset_rate"])
    with measured_as_made(folder, 1, metrics=metrics, reference=None, work=Work(1, device="cpu")):
        os.chdir("elsewhere")  # as a model's code does
        wait_until(lambda: len(folder.rows(protocol_in(folder, "onsets"))) == 2)
    assert not [*(tmp_path / "elsewhere").iterdir()]
    assert len([*(tmp_path / "cache").glob("onsets@*/*/*.json")]) == 2


def test_clips_that_are_measured_together_wait_for_the_last_one(folder):
    with in_a_thread(folder, ["onsets", "lpips-alex-seeds"]):
        wait_until(lambda: any(len([*read_lines(one / "rows.jsonl")]) == 2 for one in folder.feature_folders()))
    assert [one.name.partition("@")[0] for one in folder.feature_folders()] == ["onsets"]


def test_workers_that_stay_measure_a_later_clip_of_another_form(folder):
    first, second = folder.samples().values()
    (folder.path / "samples.jsonl").unlink()
    folder.add_sample(first)
    asked = functools.partial(measure_as_made, folder=folder, features=["onsets"])
    with alongside(asked, 1):
        wait_until(lambda: first.key in folder.rows(protocol_in(folder, "onsets")))
        folder.add_sample(dataclasses.replace(second, spec_mismatch="it is wider"))
        wait_until(lambda: second.key in folder.rows(protocol_in(folder, "onsets")))
    assert measure(folder, ["onsets"])[0] == 0


def test_a_long_look_for_new_clips_is_followed_by_a_longer_pause(folder, monkeypatch):
    def looking(folder, *_, **__):
        time.sleep(0.2)
        folder.add_sample(next(iter(folder.samples().values())))
        return 1, iter(())

    pauses = []
    stopped: Any = SimpleNamespace(is_set=lambda: False, wait=lambda pause: pauses.append(pause) or len(pauses) > 2)
    monkeypatch.setattr(measuring, "measure", looking)
    measure_as_made(LocalPool(0), stopped, folder, ["onsets"])
    assert pauses[0] == 0.5 and min(pauses[1:]) >= 2


def test_what_went_wrong_waits_until_all_clips_are_made(folder):
    first, second = folder.samples().values()
    why = f"{plug_ins.FAILED}lights 1.5: no luck"
    folder.add_row(protocol_in(folder, "onsets"), Row(first.key, first.sha256, None, why))
    with in_a_thread(folder, ["onsets"]):
        wait_until(lambda: second.key in folder.rows(protocol_in(folder, "onsets")))
    assert folder.rows(protocol_in(folder, "onsets"))[first.key].missing == why
    assert [task.samples for task in measure(folder, ["onsets"])[1]] == [(first,)]


def test_the_end_of_the_block_ends_workers_in_the_middle_of_a_task(tmp_path):
    def work(pool, stopped):
        for _ in pool.map_unordered(functools.partial(dying_workers.obedient, tmp_path), ["a hangs", "b hangs"]):
            raise AssertionError("they never end")

    with alongside(work, 2):
        wait_until(lambda: written(tmp_path / "a") and written(tmp_path / "b"))
    pids = [int((tmp_path / name).read_text()) for name in "ab"]
    wait_until(lambda: not {*pids} & {*children_named("", os.getpid())})


def test_the_end_of_the_block_does_not_wait_for_a_result_that_it_cut_off():
    handed_over = threading.Event()

    def work(pool, stopped):
        for _ in pool.map_unordered(dying_workers.large, ["result"] * 1000):
            handed_over.set()

    def blocks():
        for _ in range(3):
            handed_over.clear()
            with alongside(work, 2):
                assert handed_over.wait(300)

    in_time(blocks)


@pytest.mark.parametrize("task", ["a raises", "a dies"])
def test_what_goes_wrong_beside_the_block_does_not_touch_it(tmp_path, task):
    ended, later = threading.Event(), [f"later{number} hangs" for number in range(20)]

    def work(pool, stopped):
        try:
            list(pool.map_unordered(functools.partial(dying_workers.obedient, tmp_path), [task, *later]))
        finally:
            ended.set()

    with alongside(work, 1):
        assert ended.wait(300)
    with pytest.raises(InputError, match="of the block"), alongside(work, 1):
        raise InputError("of the block")
