"""Ray actors are workers like local processes: they give the same results and survive crashes and kills.

Ray takes 10 to 30 seconds to start, so most of these tests are slow; those of one kind share one Ray.
"""

import functools
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import dying_workers
import pytest
from command_line import run_avbench
from parts_of_runs import in_order
from processes import children_named, processes_of, wait_until, written

from avbench.core import InputError
from avbench.features import measure as stage
from avbench.features.current import current_rows
from avbench.storage.runs.folder import RunFolder
from avbench.storage.workers.ray_actors import RayActors
from avbench.storage.workers.worker_pool import CRASHED, LocalPool, WorkerCrashed, WorkerTimedOut

if importlib.util.find_spec("ray") is None and os.environ.get("CI") != "true":
    pytest.skip("Ray is not installed", allow_module_level=True)

METRICS = ("--metric", "onset_rate,motion_amount")
NETWORKS = ("--metric", "onset_rate,motion_amount,fvd")
TOY = ("--subset", "toy-object-contact", "--limit", 4)


# ---- what is refused before Ray starts


def test_without_ray_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    said = run_avbench("sample", "toyworld:", "--engine", "ray", code=2).stderr
    assert 'the engine ray needs the package ray: pip install "avbench[ray]"' in said


def test_an_address_where_nothing_answers_is_a_sentence_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        said = run_avbench("sample", "toyworld:", "--engine", "ray", "--address", place, code=2).stderr
    assert f"no Ray cluster answers at '{place}'" in said and "ray start --head" in said.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--engine", "rai"), "engine 'rai' is unknown; did you mean 'ray'? choices: local, ray"),
        (("--address", "auto"), "--address has no effect without `--engine ray`"),
        (("--item-timeout", 5), "--item-timeout has no effect without `--engine ray`"),
        (("--engine", "ray", "--workers", 0), "the engine ray needs at least one actor"),
        (("--engine", "ray", "--item-timeout", -1), "a time limit of -1 s is none"),
        (("--engine", "ray", "--address", "here"), "the Ray address 'here' is none: write host:port"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, sentence, tmp_path):
    said = run_avbench("sample", "toyworld:", "--out", tmp_path, *words, code=2).stderr
    assert sentence in " ".join(said.split())
    assert not [*tmp_path.iterdir()], "nothing was begun"


def test_a_numbered_gpu_is_refused(tmp_path):
    with pytest.raises(InputError, match="Ray chooses the GPU of each actor; write cuda, auto or cpu"):
        RayActors(device="cuda:1")


# ---- the pool


@pytest.fixture(scope="module")
def ray():
    import ray

    yield ray
    ray.shutdown()


def calls(folder):
    """Name of a task → how often it was called."""
    return {path.name: len(path.read_text().splitlines()) for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("pool", [LocalPool(2), RayActors(2)], ids=["local", "ray"])
def test_crashes_cost_one_task_in_either_pool(pool, ray, tmp_path):
    tasks = ["a", "b dies", "c", "d dies once", "e"]
    found = dict(pool.map_unordered(functools.partial(dying_workers.obedient, tmp_path), tasks))
    crash = found.pop("b dies")
    assert str(crash) == str(WorkerCrashed()) and calls(tmp_path)["b"] in (2, 3)  # who crashed a pool is not known
    assert found == {"a": "A", "c": "C", "d dies once": "D", "e": "E"}


@pytest.mark.slow
@pytest.mark.parametrize("pool", [LocalPool(2), RayActors(2)], ids=["local", "ray"])
def test_an_error_of_a_task_or_of_building_is_raised_in_either_pool(pool, ray, tmp_path):
    with pytest.raises(InputError, match="b is wrong"):
        list(pool.map_unordered(functools.partial(dying_workers.obedient, tmp_path), ["a", "b raises"]))
    with pytest.raises(InputError, match="the weights are not here"):
        list(pool.map_unordered(dying_workers.unbuildable, ["a", "b"]))


@pytest.mark.slow
def test_an_actor_that_dies_repeats_no_finished_task_and_one_that_hangs_is_killed(ray, tmp_path):
    build = functools.partial(dying_workers.obedient, tmp_path)
    tasks = ["a", "b dies once", "c hangs", *"defgh"]
    found = dict(RayActors(2, item_seconds=5).map_unordered(build, tasks))
    late = found.pop("c hangs")
    assert isinstance(late, WorkerTimedOut) and str(late) == "it was stopped after the time limit of 5 s"
    assert found == {task: task[0].upper() for task in tasks if task != "c hangs"}
    assert calls(tmp_path) == {**dict.fromkeys("abcdefgh", 1), "b": 2}
    pid = int((tmp_path / "c").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.slow
def test_a_core_is_free_for_a_task_alone_after_a_crash(ray, tmp_path):
    """Both actors hold all cores, and the consumer of a crash asks for one more."""
    pool, build = RayActors(2), functools.partial(dying_workers.obedient, tmp_path)
    for task, found in pool.map_unordered(build, ["a dies", "b", "c", "d"]):
        if isinstance(found, WorkerCrashed):
            assert task == "a dies"
            assert pool.run_isolated(build, "e") == "E"
            assert isinstance(pool.run_isolated(build, "f dies"), WorkerCrashed)
    assert calls(tmp_path) == {**dict.fromkeys("bcdef", 1), "a": 2}


@pytest.mark.slow
def test_work_that_is_broken_off_leaves_no_actor(ray, tmp_path):
    working = RayActors(2).map_unordered(functools.partial(dying_workers.obedient, tmp_path), ["a", "b hangs", "c"])
    assert {next(working)[0] for _ in range(2)} == {"a", "c"}  # so "b hangs" was given out
    wait_until(lambda: written(tmp_path / "b"))
    working.close()
    pid = int((tmp_path / "b").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


# ---- runs


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    out = tmp_path_factory.mktemp("one")
    run_avbench("sample", "toyworld:", *TOY, "--workers", 0, "--out", out)
    run_avbench("measure", out / "toyworld", *NETWORKS, "--workers", 0)
    run_avbench("evaluate", out / "toyworld", *NETWORKS)
    return out / "toyworld"


@pytest.mark.slow
def test_a_run_of_actors_has_the_bytes_of_a_run_of_one_process(one_process, ray, tmp_path):
    actors = ("--engine", "ray", "--workers", 2)
    run_avbench("sample", "toyworld:", *TOY, *actors, "--out", tmp_path)
    run_avbench("measure", tmp_path / "toyworld", *NETWORKS, *actors)
    run_avbench("evaluate", tmp_path / "toyworld", *NETWORKS)
    assert in_order(tmp_path / "toyworld") == in_order(one_process)


@pytest.mark.slow
def test_actors_compute_in_bfloat16_as_one_process_does(one_process, ray, tmp_path):
    for name, workers in {"one": ("--workers", 0), "actors": ("--engine", "ray", "--workers", 2)}.items():
        shutil.copytree(one_process, tmp_path / name, ignore=shutil.ignore_patterns("features", "scores.json"))
        run_avbench("measure", tmp_path / name, "--metric", "fvd,lpips_consecutive", "--precision", "bf16", *workers)
    assert in_order(tmp_path / "actors") == in_order(tmp_path / "one")
    protocols = [path.read_text() for path in tmp_path.glob("*/features/*/protocol.json")]
    assert len(protocols) == 4 and all('"bfloat16"' in one for one in protocols)


@pytest.mark.slow
def test_a_clip_that_kills_its_actor_is_named_and_the_rest_is_measured(one_process, ray, tmp_path, monkeypatch):
    run_avbench("sample", "toyworld:", *TOY, "--workers", 0, "--out", tmp_path)
    folder = RunFolder(tmp_path / "toyworld")
    victim, *others = sorted(folder.samples().values(), key=lambda one: one.key)
    asked = ("measure", folder.path, *METRICS, "--engine", "ray", "--workers", 2)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "worker", dying_workers.measuring)
        patch.setenv(dying_workers.VICTIM, f"{victim.path} onsets")
        said = run_avbench(*asked, code=1).stderr
    assert f"not measured in {folder.name}: toy-object-contact {victim.key.prompt}: onsets: {CRASHED}" in said
    rows = current_rows(folder, "onsets")
    assert rows[victim.key].missing == CRASHED and all(rows[one.key].values for one in others)
    assert all(row.values for row in current_rows(folder, "flow-dis").values()), "only one feature is lost"
    run_avbench(*asked)
    assert current_rows(folder, "onsets")[victim.key].values


@pytest.mark.slow
def test_a_clip_that_takes_too_long_is_named_and_tried_again(one_process, ray, tmp_path):
    run_avbench("sample", "toyworld:", *TOY, "--workers", 0, "--out", tmp_path)
    asked = ("measure", tmp_path / "toyworld", "--metric", "onset_rate", "--engine", "ray", "--workers", 2)
    said = run_avbench(*asked, "--item-timeout", 0.001, code=1).stderr
    assert "onsets: it was stopped after the time limit of 0.001 s" in said
    assert "4 clips could not be measured; the same command tries again" in said
    run_avbench(*asked, "--item-timeout", 600)
    assert all(row.values for row in current_rows(RunFolder(tmp_path / "toyworld"), "onsets").values())


@pytest.mark.slow
def test_a_model_with_other_settings_on_an_actors_machine_is_refused(one_process, tmp_path):
    """As when its weights differ there: the clips would not be those of the run."""
    from avbench.generation import table, worker

    built = functools.partial(table.build, "toyworld:noisy", {}, None)
    with pytest.raises(InputError, match=r"the model would have other settings here than .* says: "):
        worker.as_recorded(built, one_process)


def lines(place):
    return place.read_bytes().count(b"\n") if place.exists() else 0


@pytest.mark.slow
def test_a_terminated_command_ends_as_one_with_local_workers_does(tmp_path):
    """Ray puts a handler of its own in the place of ours."""
    words = [*map(str, (*TOY, "--engine", "ray", "--workers", 2, "--out", tmp_path))]
    words = [sys.executable, "-m", "avbench", "sample", "toyworld:", *words]
    made = tmp_path / "toyworld" / "samples.jsonl"
    command = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: lines(made) >= 1)
    command.terminate()
    said = command.communicate(timeout=300)[1]
    kept = (
        f"Stopped. {lines(made)} of 4 clips are done in {tmp_path}/toyworld; give the same command again to continue."
    )
    assert (command.returncode, said) == (143, f"{kept}\n")
    wait_until(lambda: not processes_of(command.pid), seconds=30)


@pytest.mark.slow
def test_a_killed_command_takes_its_actors_along_and_is_continued(one_process, tmp_path):
    words = [*map(str, (*TOY, "--engine", "ray", "--workers", 2, "--out", tmp_path))]
    words = [sys.executable, "-m", "avbench", "sample", "toyworld:", *words]
    made = tmp_path / "toyworld" / "samples.jsonl"
    command = subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: lines(made) >= 1)
    actors = children_named("ray::", command.pid)
    assert actors
    command.send_signal(signal.SIGKILL)
    command.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in actors))
    before = {path: path.stat().st_ino for path in made.parent.glob("clips/*/*.mkv") if path.name in made.read_text()}
    assert before
    subprocess.run(words, check=True, capture_output=True)
    assert {path: path.stat().st_ino for path in before} == before, "a finished clip was made twice"
    right, found = in_order(one_process), in_order(made.parent)
    found.pop("run.json")  # the other process may have loaded more packages, whose versions it names
    assert {name: right[name] for name in found} == found
    assert len([*made.parent.glob("clips/*/*.mkv")]) == 4
