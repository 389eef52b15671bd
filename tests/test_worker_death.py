"""A worker that crashes while it measures, or makes the page, costs its clip, which is named; the rest goes on."""

import functools
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dying_workers
import pytest
from command_line import run_avbench
from processes import FORKS, in_time, processes_of, wait_until, written

from avbench.core import InputError, MediaError
from avbench.curation import pool
from avbench.features import measure as stage
from avbench.features import worker
from avbench.features.current import current_rows
from avbench.features.measure import measure
from avbench.generation.sample import sample
from avbench.metrics.evaluate import chosen_metrics, evaluate
from avbench.report.page import clips
from avbench.storage.media import read_clip
from avbench.storage.reading import read_lines
from avbench.storage.runs.folder import RunFolder
from avbench.storage.workers import worker_pool
from avbench.storage.workers.worker_pool import CRASHED
from avbench.subsets import loading

pytestmark = FORKS


@pytest.fixture
def folder(tmp_path):
    found = RunFolder(tmp_path / "toyworld")
    list(sample(found, "toyworld:", {}, [loading.load("toy-object-contact").limited(2)], [0])[1])
    return found


def all_die(pool, build, tasks):
    """`LocalPool.map_unordered`, where every process dies."""
    return ((task, worker_pool.WorkerCrashed()) for task in tasks)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_clip_that_crashes_a_measuring_worker_loses_one_features_values_and_is_tried_again(
    folder, monkeypatch, workers
):
    victim, other = sorted(folder.samples().values(), key=lambda one: one.key)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "worker", dying_workers.measuring)
        patch.setenv(dying_workers.VICTIM, f"{victim.path} onsets")
        asked = ["--metric", "onset_rate", "--metric", "av_align", "--workers", workers]
        result = run_avbench("measure", folder.path, *asked, code=None)
    assert result.exit_code == 1 and "1 clip could not be measured; the same command tries again" in result.stderr
    assert f"not measured in {folder.name}: toy-object-contact {victim.key.prompt}: onsets: {CRASHED}" in result.stderr
    rows = current_rows(folder, "onsets")
    assert rows[victim.key].missing == CRASHED and rows[other.key].values
    assert all(row.missing != CRASHED for row in current_rows(folder, "av-align").values()), "that one went well"
    (score,) = evaluate(folder, chosen_metrics(["onset_rate"]))
    assert (score.n, score.unmeasured) == (1, 1)

    count, tasks = measure(folder, ["onsets", "av-align"])
    seen = [(task.samples, task.features, task.failed) for task in tasks]
    assert seen == [((victim,), ("onsets",), {})] and count == 1
    assert current_rows(folder, "onsets")[victim.key].values
    assert measure(folder, ["onsets", "av-align"])[0] == 0


def test_a_clip_that_cannot_be_read_for_a_while_loses_its_values_and_is_tried_again(folder, monkeypatch):
    victim, other = sorted(folder.samples().values(), key=lambda one: one.key)

    def no_threads_left(path, **how):
        if path == folder.path / victim.path:
            raise MediaError(f"{path} cannot be read: resource temporarily unavailable")
        return read_clip(path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "read_clip", no_threads_left)
        result = run_avbench("measure", folder.path, "--metric", "onset_rate", "--workers", 0, code=None)
    why = "the clip cannot be read now: resource temporarily unavailable"
    assert result.exit_code == 1
    assert f"not measured in {folder.name}: toy-object-contact {victim.key.prompt}: onsets: {why}" in result.stderr
    rows = current_rows(folder, "onsets")
    assert rows[victim.key].missing == why and rows[other.key].values
    count, tasks = measure(folder, ["onsets"])
    assert [task.samples for task in tasks] == [(victim,)] and count == 1
    assert current_rows(folder, "onsets")[victim.key].values


def test_a_clip_that_the_page_dies_of_is_told_on_it_and_tried_again(folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(worker_pool.LocalPool, "map_unordered", all_die)
        count, tasks = clips.prepare([folder], tmp_path / "media", workers=2)
        assert count == len(list(tasks)) == 2
    shown = [clips.card(tmp_path / "media", one.sha256) for one in folder.samples().values()]
    assert [one["missing"] for one in shown] == [str(worker_pool.WorkerCrashed("preparing"))] * 2
    count, tasks = clips.prepare([folder], tmp_path / "media")
    assert count == len(list(tasks)) == 2
    assert not any("missing" in clips.card(tmp_path / "media", one.sha256) for one in folder.samples().values())


def test_a_clip_that_curation_dies_of_has_a_row_that_says_so_and_is_tried_again(folder, tmp_path, monkeypatch):
    entries = [SimpleNamespace(id=one.key.prompt, path=folder.path / one.path) for one in folder.samples().values()]
    given = SimpleNamespace(entries=lambda: entries)
    tasks = pool.unmeasured(given, tmp_path / "work")
    with monkeypatch.context() as patch:
        patch.setattr(worker_pool.LocalPool, "map_unordered", all_die)
        assert list(pool.measure(tasks, tmp_path / "work")) == [task.id for task in tasks]
    assert [row["missing"] for row in read_lines(pool.rows_path(tmp_path / "work"))] == [CRASHED] * 2
    assert pool.unmeasured(given, tmp_path / "work") == tasks


@pytest.mark.parametrize(("workers", "survive"), [(1, True), (2, True), (2, False)])
def test_a_crash_costs_one_task_or_ends_the_work_with_a_sentence(monkeypatch, workers, survive):
    monkeypatch.setenv(dying_workers.VICTIM, "b")
    pool = worker_pool.LocalPool(workers, survive_crashes=survive)
    working = pool.map_unordered(dying_workers.echo, ["a", "b"])
    if survive:
        found = dict(working)
        assert found["a"] == "a" and isinstance(found["b"], worker_pool.WorkerCrashed)
        return
    with pytest.raises(InputError, match=r"a worker process died .* give fewer workers \(--workers\), or more memory"):
        list(working)


def test_a_worker_that_dies_while_another_one_starts_holds_nothing_up(monkeypatch):
    """The pool of Python 3.11 does not know the one that starts, would not end it, and would wait for it forever."""
    monkeypatch.setenv(dying_workers.VICTIM, "a")
    start = BaseProcess.start
    monkeypatch.setattr(BaseProcess, "start", lambda process: (start(process), time.sleep(1)))
    working = worker_pool.LocalPool(2).map_unordered(dying_workers.echo, ["a", "b"])
    assert isinstance(dict(working)["a"], worker_pool.WorkerCrashed)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_while_it_hands_a_result_over_holds_nothing_up(tmp_path, workers):
    """Neither do the workers that wait until they may hand theirs over."""
    build, tasks = functools.partial(dying_workers.obedient, tmp_path), ["a dies halfway", "b", "c"]
    working = worker_pool.LocalPool(workers).map_unordered(build, tasks)
    found = in_time(lambda: dict(working))
    assert isinstance(found.pop("a dies halfway"), worker_pool.WorkerCrashed) and found == {"b": "B", "c": "C"}


def test_an_error_in_a_worker_ends_the_others_in_the_middle_of_their_tasks(tmp_path):
    build, tasks = functools.partial(dying_workers.obedient, tmp_path), [f"{name} naps" for name in "bcdefghi"]
    with pytest.raises(InputError, match="a is wrong"):
        list(worker_pool.LocalPool(2, survive_crashes=False).map_unordered(build, ["a raises", *tasks]))
    assert len([*tmp_path.iterdir()]) <= 3, "its worker may have begun another one, and the other worker has one"


TOO_MANY = """
import resource
from avbench.core import InputError
from avbench.storage.workers.worker_pool import LocalPool

def build():
    return abs

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    try:
        list(LocalPool(48, survive_crashes=False, imports=[]).map_unordered(build, range(48)))
    except InputError as error:
        print(error, flush=True)
    input()
"""


def test_if_a_worker_cannot_be_started_the_earlier_ones_are_ended(tmp_path):
    (tmp_path / "program.py").write_text(TOO_MANY)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    options: Any = {"env": environment, "text": True, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, str(tmp_path / "program.py")]
    with subprocess.Popen(command, start_new_session=True, **options) as program:
        why = "worker processes cannot be started ([Errno 24] Too many open files): give fewer workers (--workers)\n"
        assert program.stdout.readline() == why
        wait_until(lambda: len(processes_of(program.pid)) <= 3)  # with Python's resource tracker and fork server
        program.communicate("\n")


def test_workers_ask_for_huge_pages_and_what_they_start_does_not():
    for _, (now, begun) in worker_pool.LocalPool(2).map_unordered(dying_workers.begun_with, ["GLIBC_TUNABLES"] * 2):
        assert "glibc.malloc.hugetlb=1" in begun and now == os.environ.get("GLIBC_TUNABLES")


def test_what_the_user_asks_glibc_for_counts(monkeypatch):
    """Of two values of one setting glibc takes the last."""
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    with worker_pool.huge_pages():
        assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1:glibc.malloc.hugetlb=0"
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=0"


def test_where_no_thread_can_be_started_the_sentence_is_the_same(monkeypatch):
    """Python's pool has threads of its own; Linux counts them with the user's processes."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(InputError, match=r"cannot be started \(can't start new thread\): give fewer workers \(--w"):
        list(worker_pool.LocalPool(2, imports=[]).map_unordered(dying_workers.echo, range(3)))


STARTS = """
import multiprocessing

import dying_workers
from avbench.core import InputError
from avbench.storage.workers.worker_pool import LocalPool


def echoed():
    return [one for one, _ in LocalPool(1, imports=[]).map_unordered(dying_workers.echo, ["a"])]


def of_a_fork():
    try:
        print(echoed(), flush=True)
    except InputError as error:
        print(error, flush=True)


print(echoed())
multiprocessing.set_start_method("fork")
fork = multiprocessing.Process(target=of_a_fork)
fork.start()
fork.join()
print(echoed(), multiprocessing.get_start_method())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are no forks of a server")
def test_a_script_may_choose_its_start_method_after_a_call_and_its_forks_are_told_what_to_do(tmp_path):
    (tmp_path / "script.py").write_text(STARTS)
    paths = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, tmp_path / "script.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    own, forked, later = done.stdout.splitlines()
    assert (own, later) == ("['a']", "['a'] fork")
    assert forked.startswith("this process was forked by one that had started worker processes")
    assert forked.endswith("give workers=0 (--workers 0)")


RUN = "run toyworld: --subset toy-control --limit 8 --metric onset_rate,motion_amount --workers 2 --out o".split()


@pytest.mark.slow
@pytest.mark.parametrize(("stopped_by", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_a_command_that_is_stopped_takes_its_workers_along_and_says_what_is_kept(tmp_path, stopped_by, code, send):
    """By `kill`, Slurm or Kubernetes, by Ctrl-C, or by a closed terminal; to the command or to all of its processes."""
    words = [sys.executable, "-m", "avbench", *RUN]
    command = subprocess.Popen(words, cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True)
    made = tmp_path / "o/toyworld/samples.jsonl"
    wait_until(lambda: made.exists() and made.read_text().count("\n") >= 2)
    send(command.pid, stopped_by)
    _, said = command.communicate(timeout=300)
    kept = made.read_text().count("\n")
    assert said == f"Stopped. {kept} of 8 clips are done in o/toyworld; give the same command again to continue.\n"
    assert command.returncode == code and 2 <= kept < 8
    wait_until(lambda: not processes_of(command.pid))


@pytest.mark.slow
def test_a_command_whose_terminal_is_closed_ends_with_its_workers(tmp_path):
    """Nothing can be printed there any more, which is no error."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv(sys.executable, [sys.executable, "-m", "avbench", *RUN])
    made = tmp_path / "o/toyworld/samples.jsonl"
    wait_until(lambda: made.exists() and made.read_text().count("\n") >= 2)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 129
    assert 2 <= made.read_text().count("\n") < 8
    wait_until(lambda: not processes_of(pid))


@pytest.mark.slow
def test_a_command_under_nohup_goes_on_when_its_terminal_is_closed(tmp_path):
    words = ["nohup", sys.executable, "-m", "avbench", "sample", *RUN[1:6], "--out", "o"]
    command = subprocess.Popen(words, cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True)
    made = tmp_path / "o/toyworld/samples.jsonl"
    wait_until(made.exists)
    os.killpg(command.pid, signal.SIGHUP)
    _, said = command.communicate(timeout=300)
    assert (command.returncode, made.read_text().count("\n")) == (0, 8), said


def test_a_stop_ends_the_worker_that_tries_a_task_alone(tmp_path):
    """Nobody waits for a task that hangs there."""
    pid = tmp_path / "one"
    threading.Thread(target=lambda: (wait_until(lambda: written(pid)), os.kill(os.getpid(), signal.SIGINT))).start()
    with pytest.raises(KeyboardInterrupt):
        worker_pool.run_isolated(functools.partial(dying_workers.obedient, tmp_path), "one hangs")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


STOPPED_EARLY = """
import sys, threading, time
from avbench.storage.workers.worker_pool import LocalPool

def build():
    return abs

if __name__ == "__main__":
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()  # takes the signal, as a progress bar's may
    try:
        print("begins", flush=True)
        list(LocalPool(2, imports=["imported_slowly"]).map_unordered(build, range(4)))
    except KeyboardInterrupt:
        sys.exit("stopped")
"""


def test_a_stop_while_workers_start_says_only_that(tmp_path):
    (tmp_path / "imported_slowly.py").write_text("import time; time.sleep(3)\n")
    (tmp_path / "program.py").write_text(STOPPED_EARLY)
    command = [sys.executable, str(tmp_path / "program.py")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    program = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout is not None and program.stdout.readline() == "begins\n"
    time.sleep(1)
    program.send_signal(signal.SIGINT)
    assert program.communicate(timeout=300) == ("", "stopped\n")
