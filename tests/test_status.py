"""`avbench status` says how far a run is, from its folder alone: while it goes on, and after it was killed."""

import errno
import json
import os
import re
import shlex
import signal
import time

import pytest
from command_line import run_avbench
from parts_of_runs import KEYS, PROTOCOLS, part
from processes import FORKS

from avbench.core import InputError, Row, Sample, Score
from avbench.storage.runs.folder import RunFolder
from avbench.storage.runs.merge import merge
from avbench.storage.runs.progress import read_progress, recorded
from avbench.storage.runs.status import status
from avbench.storage.writing import is_being_written, locked

pytestmark = FORKS


def statuses(*places):
    return json.loads(run_avbench("status", *places, "--format", "json").stdout)


def test_clips_are_counted_by_subset_and_failures_by_sentence(tmp_path):
    folder = part(tmp_path / "r", KEYS[:6])
    for key in KEYS[6:9]:
        folder.add_sample(Sample(key, None, None, 0.1, failure=f"no frame in {key.prompt}-{key.seed}"))
    folder.add_sample(Sample(KEYS[9], None, None, 0.1, failure="moderated", refused=True))
    found = status(folder)
    counts = {one.subset: (one.planned, one.made, one.failed, one.refused, one.left) for one in found.subsets}
    assert counts == {"walk": (10, 2, 2, 0, 6), "fall": (6, 4, 1, 1, 0)}
    assert found.failures == {"no frame in …": 3, "moderated": 1}
    assert (found.made, found.planned, found.stage, found.running) == (6, 16, "sample", False)
    assert "it makes what is missing (9 clips)" in found.next


def test_the_stage_and_what_comes_next(tmp_path):
    folder = part(tmp_path / "r", KEYS, rows=False)
    assert (status(folder).stage, status(folder).next) == ("sampled", f"avbench measure {folder.path}")
    for key in KEYS:
        values = {"of": 0.5} if key.seed else None
        folder.add_row(PROTOCOLS[0], Row(key, folder.samples()[key].sha256, values, None if values else "it is silent"))
        if key == KEYS[3]:
            assert status(folder).stage == "measure"
    found = status(folder)
    assert (found.stage, found.next) == ("measured", f"avbench evaluate {folder.path}")
    assert [(one.rows, one.without_value) for one in found.features] == [(16, {"it is silent": 8})]
    shard = part(tmp_path / "s", [key for key in KEYS if key.prompt in ("f0", "f2", "w1", "w3")], shard="1/2")
    assert "runs merge" in status(shard).next and (status(shard).made, status(shard).planned) == (8, 8)


def test_a_run_whose_scores_are_of_its_clips_is_evaluated_also_if_another_feature_lacks_rows(tmp_path):
    """As after an update of avbench and a command with more prompts: nothing completes the rows of the old protocol."""
    folder = part(tmp_path / "r", KEYS, rows=False)
    for protocol, keys in zip(PROTOCOLS, (KEYS, KEYS[:3]), strict=True):
        for key in keys:
            folder.add_row(protocol, Row(key, folder.samples()[key].sha256, {"of": 0.5}))
    assert status(folder).stage == "measure"
    folder.write_scores([Score("walk", "of", 0.5, 10, "a" * 64)], {"a" * 64: {}}, {"values.parquet": b"values"})
    assert (status(folder).stage, status(folder).next) == ("evaluated", f"avbench report {folder.path} --out report")


def test_the_next_step_can_be_typed_where_a_path_has_a_space(tmp_path):
    folder = part(tmp_path / "my runs" / "r", KEYS, rows=False)
    assert shlex.split(status(folder).next) == ["avbench", "measure", str(folder.path)]
    with pytest.raises(InputError, match=rf"`avbench measure '{folder.path}'` and `avbench evaluate '{folder.path}'`"):
        folder.scores()


def test_a_killed_command_leaves_how_far_it_was_and_how_fast(tmp_path, monkeypatch):
    monkeypatch.setattr("avbench.storage.runs.progress._SECONDS", 0.0)
    folder = part(tmp_path / "r", KEYS[:2])
    child = os.fork()
    if not child:
        with folder.writing():
            for number, _ in enumerate(recorded(folder.path, "sample", 14, iter(range(14)))):
                time.sleep(0.05)
                if number == 5:
                    os.kill(os.getpid(), signal.SIGSTOP)
    os.waitpid(child, os.WUNTRACED)
    assert status(folder).running and status(folder).next.startswith("nothing")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = status(folder)
    assert not found.running and found.progress.total == 14 and not found.progress.ended
    assert found.progress.done == 6 and 0 < found.progress.rate <= 24
    (plain,) = statuses(folder.path)
    assert plain["progress"]["stage"] == "sample" and plain["running"] is False
    assert "sample: stopped; 6 of 14 were done at the last sign of process" in run_avbench("status", folder.path).stdout


def test_progress_is_recorded_to_the_end_or_to_the_stop(tmp_path, monkeypatch):
    monkeypatch.setattr("avbench.storage.runs.progress._SECONDS", 0.0)
    assert [*recorded(tmp_path, "measure", 3, iter("abc"))] == ["a", "b", "c"]
    found = read_progress(tmp_path)
    assert (found.done, found.total, found.ended) == (3, 3, True) and found.peak_memory_mib > 10
    stopped = recorded(tmp_path, "measure", 4, iter("abcd"))
    next(stopped), next(stopped), time.sleep(0.05)
    assert read_progress(tmp_path).done == 2
    stopped.close()
    found = read_progress(tmp_path)
    assert (found.done, found.ended) == (2, False)
    assert found.rate == pytest.approx(2 / (found.updated - found.started))
    assert found.seconds_left == pytest.approx(found.updated - found.started)


def test_a_full_disk_stops_the_job_and_not_its_record(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("avbench.storage.runs.progress.write_json", full)
    assert [*recorded(tmp_path, "sample", 2, iter("ab"))] == ["a", "b"]
    assert read_progress(tmp_path) is None


def test_status_takes_no_lock_from_a_writer(tmp_path):
    folder = part(tmp_path / "r", KEYS[:2])
    with folder.writing():
        assert is_being_written(folder.path)
    assert not is_being_written(folder.path)
    with folder.writing():
        assert is_being_written(folder.path)


@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.parametrize("left", ["", "4242\nnode7\n4311143923765047713147157426383874355321835548916924610105\n"])
def test_a_lock_file_that_was_left_on_a_disk_without_locks_is_named(tmp_path, monkeypatch, left):
    """As a copy of a folder has it, and as filelock leaves it where a process of another machine was killed."""
    folder = part(tmp_path / "r", KEYS)
    lock = folder.path / ".lock"
    lock.write_text(left)

    def unsupported(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    with folder.writing():
        assert "delete" not in status(folder).next, "on other disks it is no lock"
    monkeypatch.setattr("fcntl.flock", unsupported)
    advice = f"so a file stands for one, also after a kill: if no command works there, delete {lock}"
    with pytest.raises(InputError, match=re.escape(advice)), folder.writing():
        pass
    with pytest.raises(InputError, match=re.escape(advice)), locked(lock, lambda: None):
        pass
    assert advice in status(folder).next
    lock.unlink()
    with folder.writing():
        pass
    assert not status(folder).running


def test_several_runs_are_a_table_and_one_is_told_in_full(tmp_path):
    one, two = part(tmp_path / "a", KEYS[:4]), part(tmp_path / "b", KEYS)
    table = run_avbench("status", one.path, two.path, "--format", "csv").stdout.splitlines()
    assert table[0] == "run,shard,stage,clips,failed,rate,left,next" and "4 of 16" in table[1]
    full = run_avbench("status", two.path).stdout
    assert "16 of 16 clips made" in full and "next: avbench evaluate" in full
    assert [plain["subsets"][0]["left"] for plain in statuses(one.path, two.path)] == [8, 0]


def test_what_is_no_run_is_refused(tmp_path):
    assert "is not a run folder: it has no run.json" in run_avbench("status", tmp_path, code=2).stderr


def test_a_part_that_has_not_begun_does_not_hide_the_others(tmp_path):
    begun = part(tmp_path / "a", KEYS[:4]).path
    (tmp_path / "b").mkdir()
    told = run_avbench("status", begun, tmp_path / "b", "--format", "csv", code=2)
    assert f"{begun}" in told.stdout and "4 of 16" in told.stdout
    assert "b is not a run folder: it has no run.json" in told.stderr


def test_a_run_that_was_merged_may_lack_parts(tmp_path):
    merge(tmp_path / "m", [part(tmp_path / "s", KEYS[:4]).path])
    assert status(RunFolder(tmp_path / "m")).next.startswith(f"avbench runs merge {tmp_path / 'm'} PARTS")


@pytest.mark.slow
def test_a_real_run_records_its_stages_and_memory(tmp_path):
    words = ("--subset", "toy-control", "--limit", 2, "--workers", 1)
    run_avbench("sample", "toyworld:", *words, "--out", tmp_path)
    assert read_progress(tmp_path / "toyworld").stage == "sample"
    run_avbench("measure", tmp_path / "toyworld", "--metric", "onset_rate", "--workers", 1)
    found = status(RunFolder(tmp_path / "toyworld"))
    assert found.progress.stage == "measure" and found.progress.ended and found.peak_memory_mib > 50
    run_avbench("evaluate", tmp_path / "toyworld", "--metric", "onset_rate")
    assert status(RunFolder(tmp_path / "toyworld")).stage == "evaluated"
