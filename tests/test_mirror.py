"""The mirror of a run folder in object storage: another machine continues it, and nothing is lost or made twice."""

import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
from command_line import run_avbench
from fsspec.implementations.local import LocalFileSystem
from parts_of_runs import KEYS, content, in_order, part

from avbench.api import Mirrors, SamplingJob, Work, evaluated, measured, sampled
from avbench.cli.steps import CONSOLE
from avbench.core import InputError
from avbench.features.measure import measure
from avbench.generation import worker as sampling
from avbench.generation.sample import sample
from avbench.metrics.evaluate import chosen_metrics
from avbench.storage.mirrors import mirror as mirror_module
from avbench.storage.mirrors import state as mirror_state
from avbench.storage.mirrors.mirror import Mirror
from avbench.storage.mirrors.state import Sides
from avbench.storage.object_storage import Storage
from avbench.storage.runs.folder import RunFolder
from avbench.subsets.loading import load

METRICS = ["onset_rate", "motion_amount"]
SUBSET = load("toy-control")


@pytest.fixture(scope="module")
def server():
    """A server that speaks S3."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {"endpoint_url": f"http://{host}:{port}", "key": "key", "secret": "secret"}
    server.stop()


@pytest.fixture(params=["s3", "file"])
def store(request, tmp_path, monkeypatch):
    """An empty place in object storage: over the wire, and in a folder."""
    if request.param == "file":
        return f"file://{tmp_path}/store"
    monkeypatch.setitem(fsspec.config.conf, "s3", request.getfixturevalue("server"))
    storage, bucket = fsspec.filesystem("s3"), f"bucket-{os.getpid()}-{time.monotonic_ns()}"
    storage.mkdir(bucket)
    return f"s3://{bucket}/runs"


@pytest.fixture
def folder_store(tmp_path):
    return f"file://{tmp_path}/store"


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Let the rest of the test run as if on another machine, by the session that a process there would have."""

    def other(name):
        monkeypatch.setattr(mirror_state, "SESSION", name)

    other("first")
    return other


def made(out, store, limit, model="toyworld:", **how):
    """Sample, measure and score a run that has a mirror."""
    work = Work(0, device="cpu", mirrors=Mirrors(out, store), **how)
    view, failed = sampled(out / "world", model, SamplingJob([SUBSET.limited(limit)]), work)
    metrics = chosen_metrics(METRICS)
    assert failed == measured(view, metrics, work) == 0
    evaluated(view, metrics, work=work)
    return view.path


def pulled(store, folder):
    Mirror(folder, f"{store}/world").pull()
    return folder


def samples(folder):
    return RunFolder(folder).samples()


def test_another_machine_continues_and_makes_nothing_twice(store, tmp_path, machine):
    first = made(tmp_path / "a", store, 4)
    machine("second")
    second = made(tmp_path / "b", store, 7)
    kept = samples(first)
    assert len(kept) == 4 and {key: one for key, one in samples(second).items() if key in kept} == kept
    machine("third")
    copy = pulled(store, tmp_path / "copy")
    assert content(copy) == content(second)
    alone = made(tmp_path / "alone", f"file://{tmp_path}/other", 7)
    assert in_order(copy) == in_order(alone)


def test_another_run_of_the_mirror_is_not_deleted_unawares(folder_store, tmp_path, machine):
    made(tmp_path / "a", folder_store, 2)
    machine("second")
    with pytest.raises(
        InputError, match=r"it has a mirror.* give another mirror \(--mirror\), or the model a name \(NAME=MODEL\); "
    ):
        made(tmp_path / "b", folder_store, 2, model="toyworld:frozen")
    assert len(samples(pulled(folder_store, tmp_path / "copy"))) == 2


@pytest.mark.parametrize("below", ["", "/q"])
def test_a_mirror_in_its_own_folder_is_refused(tmp_path, below):
    with pytest.raises(InputError, match=r"is the run folder .* or lies in it; give another place"):
        Mirror(tmp_path / "world", f"file://{tmp_path}/world{below}")


def test_a_folder_that_is_behind_catches_up(store, tmp_path, machine):
    made(tmp_path / "a", store, 3)
    machine("second")
    second = made(tmp_path / "b", store, 5)
    machine("first again")
    assert content(made(tmp_path / "a", store, 5)) == content(second)


def test_a_folder_that_was_copied_may_go_on(folder_store, tmp_path, machine):
    made(tmp_path / "a", folder_store, 3)
    machine("second")
    copy = pulled(folder_store, tmp_path / "copy")
    assert run_avbench("measure", copy, "--metric", "silence", "--workers", "0").exit_code == 0
    machine("third")
    assert f"{folder_store}/world: equal to {copy}" in run_avbench("runs", "push", copy, f"{folder_store}/world").output
    run_avbench("runs", "pull", f"{folder_store}/world", tmp_path / "again")
    assert content(tmp_path / "again") == content(copy)


@pytest.mark.parametrize("restored", [False, True])
def test_a_backup_of_a_folder_that_was_being_written_rewinds_nothing(folder_store, tmp_path, machine, restored):
    """It is used elsewhere, or put back where it was made."""
    place = made(tmp_path / "a", folder_store, 2)
    with RunFolder(place).writing(), Mirror(place, f"{folder_store}/world").kept():
        shutil.copytree(place, tmp_path / "b/world")
        machine("second")
        with pytest.raises(InputError, match=r"is being written by process \d+ on .* \(last sign \d+ s ago\); wait"):
            made(tmp_path / "b", folder_store, 2)
        machine("first")
    before = samples(made(tmp_path / "a", folder_store, 4))
    if restored:
        for path in place.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(tmp_path / "b/world", place, dirs_exist_ok=True)
    machine("third")
    assert samples(made(tmp_path / ("a" if restored else "b"), folder_store, 4)) == before, "no clip is made again"
    assert samples(pulled(folder_store, tmp_path / "copy")) == before


def test_a_copy_of_the_folder_that_wrote_the_mirror_may_go_on(folder_store, tmp_path, machine):
    place = made(tmp_path / "a", folder_store, 3)
    shutil.copytree(place, tmp_path / "b/world")
    machine("second")
    run_avbench("measure", tmp_path / "b/world", "--metric", "silence", "--workers", "0")
    run_avbench("runs", "push", tmp_path / "b/world", f"{folder_store}/world")
    assert content(tmp_path / "store/world") == content(tmp_path / "b/world") != content(place)


def test_two_folders_that_both_went_on_are_refused(folder_store, tmp_path, machine):
    made(tmp_path / "a", folder_store, 2)
    machine("second")
    copy = pulled(folder_store, tmp_path / "copy")
    machine("first")
    run_avbench("measure", tmp_path / "a/world", "--metric", "av_align", "--workers", "0")
    run_avbench("runs", "push", tmp_path / "a/world", f"{folder_store}/world")
    machine("second")
    run_avbench("measure", copy, "--metric", "silence", "--workers", "0")
    refused = run_avbench("runs", "push", copy, f"{folder_store}/world", code=2).output
    assert "both changed since they were equal" in refused and "avbench runs merge" in refused
    other = pulled(folder_store, tmp_path / "other")
    assert "2 of 2 clips" in run_avbench("runs", "merge", tmp_path / "merged", other, copy).output
    assert len([*(tmp_path / "merged/features").iterdir()]) == 4, "those of both, and those that both had"


def test_a_mirror_that_another_process_writes_is_refused_until_it_is_silent(
    folder_store, tmp_path, machine, monkeypatch
):
    folder = RunFolder(made(tmp_path / "a", folder_store, 2))
    taken_over = pytest.raises(InputError, match=r"was taken over by process \d+ on .*, because this one gave no sign")
    with taken_over, folder.writing(), Mirror(folder.path, f"{folder_store}/world").kept():
        machine("second")
        with pytest.raises(InputError, match=r"is being written by process \d+ on .* \(last sign \d+ s ago\); wait"):
            made(tmp_path / "b", folder_store, 3)
        assert len(samples(pulled(folder_store, tmp_path / "copy"))) == 2, "reading is allowed"
        monkeypatch.setattr(mirror_state, "SILENT_SECONDS", 0)
        second = made(tmp_path / "b", folder_store, 3)
        machine("first")
        (folder.path / "features/mine/rows.jsonl").parent.mkdir()
        (folder.path / "features/mine/rows.jsonl").write_text("what was made meanwhile")
    assert content(second) == content(tmp_path / "store/world"), "the second one's mirror is left alone"


def test_a_writer_whose_clock_is_ahead_is_named_so(folder_store, tmp_path, machine):
    made(tmp_path / "a", folder_store, 2)
    record = tmp_path / "store/world/.mirror.json"
    there = json.loads(record.read_text())
    record.write_text(json.dumps({**there, "updated": there["updated"] + 86400, "ended": False}))
    machine("second")
    with pytest.raises(InputError, match=r"\(last sign 8\d{4} s ahead of this machine's clock\).* or after you delete"):
        made(tmp_path / "b", folder_store, 3)
    record.unlink()
    assert len(samples(made(tmp_path / "b", folder_store, 3))) == 3


def test_a_mirror_without_the_record_of_its_writer_is_continued_and_not_overwritten(store, tmp_path, machine):
    first = made(tmp_path / "a", store, 4)
    storage, root = fsspec.url_to_fs(store)
    storage.rm_file(f"{root}/world/.mirror.json")
    machine("second")
    assert content(pulled(store, tmp_path / "copy")) == content(first)
    with pytest.raises(InputError, match="holds more prompts than were asked for"):
        made(tmp_path / "b", store, 2)
    assert content(pulled(store, tmp_path / "again")) == content(first)


def test_a_download_that_was_killed_goes_on(folder_store, tmp_path, machine, monkeypatch):
    first = made(tmp_path / "a", folder_store, 5)
    machine("second")
    monkeypatch.setattr(mirror_state, "TOGETHER", 2)
    get = Storage.get
    for limit in range(1, 12):
        calls = iter(range(limit))

        def killed(self, names, places, calls=calls):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            get(self, names, places)

        monkeypatch.setattr(Storage, "get", killed)
        with contextlib.suppress(KeyboardInterrupt):
            pulled(folder_store, tmp_path / "copy")
        lines = samples(tmp_path / "copy").values()
        assert all((tmp_path / "copy" / one.path).exists() for one in lines), "lines come after their clips"
    monkeypatch.setattr(Storage, "get", get)
    assert content(pulled(folder_store, tmp_path / "copy")) == content(first)
    next((tmp_path / "copy/clips").rglob("*.mkv")).unlink()
    assert content(pulled(folder_store, tmp_path / "copy")) == content(first), "pull brings back what was deleted here"


@pytest.mark.parametrize("same_machine", [True, False])
def test_what_is_deleted_or_cut_in_the_mirror_is_uploaded_again(store, tmp_path, machine, same_machine):
    made(tmp_path / "a", store, 3)
    machine("second")
    place = made(tmp_path / "b", store, 3)
    storage, root = fsspec.url_to_fs(store)
    clips = sorted(storage.find(f"{root}/world/clips"))
    clips = [clip for clip in clips if clip.endswith(".mkv")]
    storage.rm_file(clips[0])
    storage.pipe_file(clips[1], b"cut")
    before = content(place)
    machine("third")
    out = "b" if same_machine else "a"
    assert content(made(tmp_path / out, store, 3)) == before
    assert content(pulled(store, tmp_path / "copy")) == before


@pytest.mark.parametrize("record", [True, False])
def test_an_emptied_mirror_deletes_nothing_and_is_filled_again(store, tmp_path, machine, record):
    first = made(tmp_path / "a", store, 3)
    machine("second")
    made(tmp_path / "b", store, 3)
    before = content(first)
    storage, root = fsspec.url_to_fs(store)
    for name in storage.find(f"{root}/world"):
        if not (record and name.endswith("/.mirror.json")):
            storage.rm_file(name)
    storage.invalidate_cache()
    with pytest.raises(InputError, match="has no run yet: it has no run.json" if record else "is no mirror of a run"):
        pulled(store, tmp_path / "copy")
    machine("third")
    assert content(made(tmp_path / "a", store, 3)) == before
    assert content(pulled(store, tmp_path / "copy")) == before


@pytest.mark.parametrize("record", [True, False])
def test_a_folder_that_was_emptied_is_filled_from_its_mirror(folder_store, tmp_path, machine, record):
    place = made(tmp_path / "a", folder_store, 3)
    before = samples(place)
    for name in ("clips", "features", "subsets"):
        shutil.rmtree(place / name)
    for path in place.iterdir():
        if not (record and path.name == ".mirror.json"):
            path.unlink()
    assert samples(made(tmp_path / "a", folder_store, 3)) == before, "no clip is made again"


def test_a_mirror_that_is_deleted_while_it_is_written_is_filled_again(folder_store, tmp_path):
    place = made(tmp_path / "a", folder_store, 2)
    with RunFolder(place).writing(), Mirror(place, f"{folder_store}/world").kept():
        shutil.rmtree(tmp_path / "store/world")
    assert content(tmp_path / "store/world") == content(place)


@pytest.mark.parametrize("name", ["run.json", "samples.jsonl"])
def test_a_damaged_mirror_is_refused_and_overwrites_nothing(folder_store, tmp_path, machine, name):
    first = made(tmp_path / "a", folder_store, 2)
    machine("second")
    made(tmp_path / "b", folder_store, 3)
    before = content(first)
    damaged = tmp_path / "store/world" / name
    damaged.write_bytes(b"{" + damaged.read_bytes()[:40] + b"\n")
    machine("first again")
    with pytest.raises(InputError, match=rf"the mirror is damaged: {folder_store}/world/{name}"):
        made(tmp_path / "a", folder_store, 3)
    assert content(first) == before
    with pytest.raises(InputError, match="the mirror is damaged"):
        pulled(folder_store, tmp_path / "copy")
    machine("second again")
    second = made(tmp_path / "b", folder_store, 3)
    assert content(tmp_path / "store/world") == content(second), "its last writer mends it"


@pytest.mark.parametrize("cut", [0, 20])
def test_a_damaged_record_of_a_side_is_named_and_written_again_after_it_is_deleted(folder_store, tmp_path, cut):
    place = made(tmp_path / "a", folder_store, 2)
    before = content(place)
    sides = {
        place: "delete that file: the next command compares both sides and writes it again",
        tmp_path / "store/world": "if no command writes the mirror now, delete that file",
    }
    for side, advice in sides.items():
        record = side / ".mirror.json"
        record.write_bytes(record.read_bytes()[:cut])
        with pytest.raises(InputError, match=rf"{record}, which .* is damaged \(.*\); {advice}"):
            made(tmp_path / "a", folder_store, 2)
        record.unlink()
        assert content(made(tmp_path / "a", folder_store, 2)) == before == content(tmp_path / "store/world")


def damage(path):
    """Change a byte in the middle of a file; its size stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def one_clip(place):
    return next(iter(samples(place).values())).path


def test_a_clip_that_is_damaged_in_the_mirror_is_named_and_uploaded_again_if_asked(store, tmp_path, machine):
    first = made(tmp_path / "a", store, 3)
    clip, url = one_clip(first), f"{store}/world"
    storage, root = fsspec.url_to_fs(store)
    bad = bytearray((first / clip).read_bytes())
    bad[-1] ^= 1
    storage.pipe_file(f"{root}/world/{clip}", bytes(bad))
    machine("second")
    for _ in range(2):
        refused = run_avbench("runs", "pull", url, tmp_path / "copy", code=2).output
        assert f"the mirror {url} has damaged clips (1, for example {clip}," in refused and "push --verify" in refused
        there = content(tmp_path / "copy")
        assert {**there, clip: (first / clip).read_bytes()} == content(first) != there, "the rest is there"
    machine("first")
    assert "in names and sizes" in run_avbench("runs", "push", first, url).output
    said = run_avbench("runs", "push", "--verify", first, url).output
    assert f"{url}: damaged files are uploaded again (1, for example {clip})" in said and "equal to" in said
    machine("second")
    assert content(pulled(store, tmp_path / "copy")) == content(first)


def test_a_clip_that_is_damaged_in_the_mirror_and_lost_elsewhere_is_made_again_if_asked(
    folder_store, tmp_path, machine
):
    first = made(tmp_path / "a", folder_store, 3)
    before, clip = content(first), one_clip(first)
    damage(tmp_path / "store/world" / clip)
    (first / clip).unlink()
    said = run_avbench("runs", "push", "--verify", first, f"{folder_store}/world", code=1).output
    assert f"{first} does not have the clips that are damaged there (1, for example {clip})" in said
    machine("second")
    CONSOLE.notes.clear()
    with pytest.raises(InputError, match=r"1 of 3 clips of .* no longer there; the same .* replace=True .* redoes"):
        made(tmp_path / "b", folder_store, 3, reporter=CONSOLE)
    assert [note for note in CONSOLE.notes if f"the mirror {folder_store}/world has damaged clips (1," in note]
    after = content(made(tmp_path / "b", folder_store, 3, replace=True))
    assert {**after, "samples.jsonl": before["samples.jsonl"]} == before
    assert content(tmp_path / "store/world") == after


def test_rows_that_are_damaged_in_the_mirror_are_not_taken_over(folder_store, tmp_path, machine):
    first = made(tmp_path / "a", folder_store, 2)
    damage(next((tmp_path / "store/world/features").glob("*/rows.jsonl")))
    machine("second")
    with pytest.raises(InputError, match=rf"mirror is damaged: {folder_store}/world/features/.*, line \d.*\. `avbench"):
        pulled(folder_store, tmp_path / "copy")
    assert not (tmp_path / "copy/run.json").exists()
    machine("first")
    run_avbench("runs", "push", "--verify", first, f"{folder_store}/world")
    assert content(tmp_path / "store/world") == content(first)


def test_a_clip_that_is_damaged_here_is_not_uploaded_and_comes_back_from_the_mirror(folder_store, tmp_path, machine):
    first = made(tmp_path / "a", folder_store, 2)
    before = content(first)
    damage(first / one_clip(first))
    with pytest.raises(InputError, match="is not the file that was made"):
        made(tmp_path / "a", folder_store, 2)
    assert content(tmp_path / "store/world") == before
    assert content(pulled(folder_store, first)) == before


@pytest.mark.parametrize("name", ["samples.jsonl", "rows.jsonl"])
@pytest.mark.parametrize("torn", [7, 0])
def test_lines_that_were_cut_off_in_the_mirror_are_lost_nowhere(folder_store, tmp_path, machine, name, torn):
    """At the end of a line, or in a line as if it had just been written."""
    first = made(tmp_path / "a", folder_store, 3)
    machine("second")
    second = made(tmp_path / "b", folder_store, 5)
    behind, before = content(first), content(second)
    lines = next((tmp_path / "store/world").rglob(name))
    whole = lines.read_bytes().splitlines(keepends=True)
    lines.write_bytes(b"".join(whole[:2]) + whole[2][:torn])
    machine("third")
    for out in ("copy", "a/world"):
        with pytest.raises(InputError, match=rf"mirror is damaged: .*{name} has \d+ bytes, and process \d+ on .* left"):
            pulled(folder_store, tmp_path / out)
    assert content(first) == behind
    machine("second again")
    with pytest.raises(InputError, match=r"`avbench runs push .* uploads them"):
        pulled(folder_store, second)
    made(tmp_path / "b", folder_store, 5)
    assert content(tmp_path / "store/world") == before == content(second)


def test_lines_that_only_an_older_folder_has_survive_by_the_advice_that_is_given(folder_store, tmp_path, machine):
    first, url = made(tmp_path / "a", folder_store, 3), f"{folder_store}/world"
    behind = content(first)
    machine("second")
    made(tmp_path / "b", folder_store, 5)
    lines = tmp_path / "store/world/samples.jsonl"
    lines.write_bytes(b"".join(lines.read_bytes().splitlines(keepends=True)[:2]))
    (tmp_path / "store/world/.mirror.json").unlink()  # the advice where the second machine is lost
    machine("first again")
    with pytest.raises(InputError, match=r"example samples\.jsonl\): both changed since they were equal"):
        made(tmp_path / "a", folder_store, 5)
    assert content(first) == behind
    refused = run_avbench("runs", "push", first, url, code=2).output
    for words in re.findall(r"`avbench (.*?)`", " ".join(refused.split())):
        run_avbench(*words.replace("OTHER", str(tmp_path / "other")).split())
    assert {*samples(first)} <= {*samples(tmp_path / "other")}
    assert content(tmp_path / "store/world").items() >= content(tmp_path / "other").items()
    assert len(samples(made(tmp_path / "c", folder_store, 5))) == 5


def test_a_run_that_was_begun_anew_with_fewer_clips_is_taken_over(folder_store, tmp_path, machine):
    made(tmp_path / "a", folder_store, 4)
    machine("second")
    made(tmp_path / "b", folder_store, 4)
    other = made(tmp_path / "b", folder_store, 1, "toyworld:noisy", replace=True)
    machine("first")
    assert content(pulled(folder_store, tmp_path / "a/world")) == content(other)


WRITING = """
import pathlib, sys
from avbench.storage.object_storage import Storage
storage, content = Storage(sys.argv[1]), pathlib.Path(sys.argv[2])
while True:
    storage.put([content], ["put"])
    storage.write("written", content.read_bytes())
"""


def test_a_kill_leaves_only_whole_files_in_a_folder(tmp_path, folder_store):
    there = [tmp_path / "store" / name for name in ("put", "written")]
    (tmp_path / "content").write_bytes(bytes(range(256)) * 2**17)
    for turn in range(4):
        command = [sys.executable, "-c", WRITING, folder_store, tmp_path / "content"]
        with subprocess.Popen(command) as process:
            until = time.monotonic() + 300
            while not all(path.exists() for path in there):
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.01)
            time.sleep(0.037 * turn)
            process.send_signal(signal.SIGKILL)
        assert all(path.read_bytes() == (tmp_path / "content").read_bytes() for path in there)
        assert {*Storage(folder_store).sizes()} == {"put", "written"}


def test_what_a_killed_command_left_on_the_way_is_no_part_of_the_run_and_is_deleted(folder_store, tmp_path, machine):
    place = made(tmp_path / "a", folder_store, 2)
    for other, command in {"first": made, "second": lambda *_: pulled(folder_store, place)}.items():
        machine(other)
        (place / ".mirror.part/killed").mkdir(parents=True)
        (place / ".mirror.part/killed/0").write_text("half of a file")
        command(tmp_path / "a", folder_store, 2)
        assert not (place / ".mirror.part").exists()
        assert content(place) == content(tmp_path / "store/world")


def test_a_signature_that_did_not_arrive_leaves_the_folder_the_writer(folder_store, tmp_path, machine, monkeypatch):
    place, there = made(tmp_path / "a", folder_store, 2), tmp_path / "store/world"
    run_avbench("measure", place, "--metric", "silence", "--workers", "0")
    machine("first again")
    write = Storage.write

    def refused(*_given):
        raise InputError("no right to write")

    monkeypatch.setattr(Storage, "write", refused)
    with pytest.raises(InputError, match="no right to write"):
        made(tmp_path / "a", folder_store, 2)
    monkeypatch.setattr(Storage, "write", write)
    machine("first once more")
    assert content(made(tmp_path / "a", folder_store, 2)) == content(there)


IMPATIENT = """
from avbench.cli import main
from avbench.storage.mirrors import state as mirror_state
mirror_state.SILENT_SECONDS = 0
main()
"""


@pytest.mark.parametrize("command", ["run", "sample"])
def test_a_command_whose_mirror_is_taken_over_says_so_at_once_and_goes_on_without_it(
    folder_store, tmp_path, monkeypatch, command
):
    words = "world=toyworld:", "--subset", "toy-control", "--workers", "0", "--mirror", folder_store
    measuring = ["--metric", "onset_rate"] if command == "run" else []
    other = [sys.executable, "-c", IMPATIENT, "sample", *words, "--limit", "5", "--out", tmp_path / "b"]
    write, before = sampling.write_clip, []

    def unreachable(*_given):
        raise InputError("no network")

    def taken_over_in_the_middle(*given):
        if len([*(tmp_path / "a/world/clips").rglob("*.mkv")]) == 3 and not before:
            with monkeypatch.context() as silent:
                silent.setattr(Storage, "has", unreachable)
                subprocess.run(other, check=True, capture_output=True)
            before.append(content(tmp_path / "store/world"))
            until = time.monotonic() + 30
            while not any("was taken over by process" in note for note in CONSOLE.notes):
                assert time.monotonic() < until
                time.sleep(0.01)
        return write(*given)

    monkeypatch.setattr(sampling, "write_clip", taken_over_in_the_middle)
    monkeypatch.setattr(mirror_module, "PUSH_SECONDS", 0.05)
    done = run_avbench(command, *words, *measuring, "--limit", "5", "--out", tmp_path / "a", code=1)
    assert done.stderr.count("was taken over by process") == 1
    assert "all is done, but not all is in the mirror" in done.stderr.splitlines()[-1]
    assert len(samples(tmp_path / "a/world")) == 5 and (command == "sample" or (tmp_path / "a/report.html").exists())
    assert [content(tmp_path / "store/world")] == before, "the other one's mirror is left alone"
    monkeypatch.undo()
    run_avbench("runs", "pull", f"{folder_store}/world", tmp_path / "copy")
    merged = run_avbench("runs", "merge", tmp_path / "merged", tmp_path / "a/world", tmp_path / "copy").output
    assert "5 of 5 clips" in merged, "as the sentence says"


def test_a_clip_of_a_worker_elsewhere_is_not_taken_from_a_mirror_that_another_command_writes(
    folder_store, tmp_path, machine, monkeypatch
):
    monkeypatch.setattr(mirror_module, "PUSH_SECONDS", 0.05)
    place, said, record = made(tmp_path / "a", folder_store, 2), [], tmp_path / "store/world/.mirror.json"
    there = samples(place).values()
    mirror = Mirror(place, f"{folder_store}/world")
    with RunFolder(place).writing(), mirror.kept(said.append):
        others = json.dumps({**json.loads(record.read_text()), "session": "another"})
        until = time.monotonic() + 30
        while not said:  # the command may sign over it once
            assert time.monotonic() < until
            record.write_text(others)
            time.sleep(0.1)
        for one in there:
            mirror.collect(one)
            (place / one.path).unlink()
            with pytest.raises(InputError, match="was taken over by process"):
                mirror.collect(one)
    assert len(said) == 1


def test_a_clip_of_a_worker_elsewhere_is_on_disk_once_it_is_collected(folder_store, tmp_path, machine, monkeypatch):
    place, done, fsync = made(tmp_path / "a", folder_store, 1), [], os.fsync
    mirror, one = Mirror(place, f"{folder_store}/world"), next(iter(samples(place).values()))
    with RunFolder(place).writing(), mirror.kept():
        (place / one.path).unlink()
        monkeypatch.setattr("os.fsync", lambda file: done.append(os.fstat(file).st_ino) or fsync(file))
        mirror.collect(one)
        assert (place / one.path).stat().st_ino in done


def test_a_clip_that_a_worker_uploaded_is_not_uploaded_again(folder_store, tmp_path, machine, monkeypatch):
    place, put, uploaded = made(tmp_path / "a", folder_store, 2), Storage.put, []
    mirror = Mirror(place, f"{folder_store}/world")
    with RunFolder(place).writing(), mirror.kept():
        for one in samples(place).values():
            (place / one.path).unlink()  # as where another machine made it
            mirror.collect(one)
        monkeypatch.setattr(Storage, "put", lambda self, *given: uploaded.extend(given[1]) or put(self, *given))
        mirror.push()
    assert not [name for name in uploaded if name.startswith("clips/")]


def test_a_command_gives_signs_of_life_while_an_upload_takes_long(folder_store, tmp_path, machine, monkeypatch):
    monkeypatch.setattr(mirror_module, "PUSH_SECONDS", 0.05)
    monkeypatch.setattr(mirror_state, "SILENT_SECONDS", 1)
    record, put, signs = tmp_path / "store/world/.mirror.json", Storage.put, set()

    def slow(self, sources, names):
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            signs.add(json.loads(record.read_text())["updated"])
            time.sleep(0.01)
        put(self, sources, names)

    monkeypatch.setattr(Storage, "put", slow)
    place = part(tmp_path / "a/world", KEYS[:2]).path
    with RunFolder(place).writing(), Mirror(place, f"{folder_store}/world").kept():
        pass
    times = sorted(signs)
    assert times[-1] - times[0] > 1 > max(late - early for early, late in itertools.pairwise(times))


STARTING = """
import pathlib, sys, time
from avbench.cli.steps import CONSOLE
from avbench.core import InputError
from avbench.storage.mirrors.mirror import Mirror
me, other, place, url, rounds = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4], int(sys.argv[5])

def meet(what):
    (place / f"{what} {me}").touch()
    until = time.monotonic() + 300
    while not (place / f"{what} {other}").exists():
        assert time.monotonic() < until

for number in range(rounds):
    mirror = Mirror(place / me / str(number), f"{url}/{number}")
    meet(f"{number} begins")
    try:
        with mirror.kept():
            print(number, flush=True)
            meet(f"{number} ends")
    except InputError as error:
        assert "is being written by process" in str(error), error
        meet(f"{number} ends")
"""


def test_of_two_commands_that_start_at_the_same_time_one_goes_on(store, tmp_path, request):
    environment = {**os.environ}
    if store.startswith("s3:"):
        environment |= {f"FSSPEC_S3_{name.upper()}": one for name, one in request.getfixturevalue("server").items()}
    commands = [[sys.executable, "-c", STARTING, *names, tmp_path, store, "10"] for names in (("a", "b"), ("b", "a"))]
    with contextlib.ExitStack() as running:
        started = [
            running.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True))
            for command in commands
        ]
        went_on = [process.communicate()[0].split() for process in started]
    assert sorted(itertools.chain(*went_on), key=int) == [str(number) for number in range(10)]
    assert not any(process.returncode for process in started)


def test_a_command_that_is_overtaken_while_it_downloads_is_refused(store, tmp_path, machine, monkeypatch):
    made(tmp_path / "a", store, 2)
    take_over = Mirror._take_over
    overtaken = []

    def slowly(self):
        last = take_over(self)
        if not overtaken:
            overtaken.append(self)
            machine("third")
            made(tmp_path / "c", store, 4)
            machine("second")
        return last

    machine("second")
    monkeypatch.setattr(Mirror, "_take_over", slowly)
    with pytest.raises(InputError, match=r"was written by process .* in the meantime; give the same command again"):
        made(tmp_path / "b", store, 3)
    assert content(pulled(store, tmp_path / "copy")) == content(tmp_path / "c/world"), "nothing of it is lost"
    assert len(samples(made(tmp_path / "b", store, 5))) == 5
    storage, root = fsspec.url_to_fs(store)
    assert not [name for name in storage.find(f"{root}/world") if "after" in name]


def test_a_command_that_died_before_it_signed_holds_no_other_up_after_it_was_silent(
    folder_store, tmp_path, machine, monkeypatch
):
    made(tmp_path / "a", folder_store, 2)
    machine("second")

    def killed(*_given):
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(Sides, "_sign", killed)
        dying.setattr(Storage, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path / "b", folder_store, 3)
    machine("third")
    with pytest.raises(InputError, match="is being written by process"):
        made(tmp_path / "b", folder_store, 3)
    monkeypatch.setattr(mirror_state, "SILENT_SECONDS", 0)
    assert len(samples(made(tmp_path / "b", folder_store, 3))) == 3
    assert not [*(tmp_path / "store/world").glob(".mirror-after-*")]


SLOWLY = """
import time
import avbench.generation.worker as sampling
from avbench.storage.mirrors import mirror, state as mirror_state
from avbench.cli import main
mirror.PUSH_SECONDS, mirror._PAUSES, mirror_state.SILENT_SECONDS = 0.01, 0, 0
write = sampling.write_clip
sampling.write_clip = lambda *given: time.sleep(0.1) or write(*given)
main()
"""


@pytest.mark.slow
def test_nothing_is_lost_of_a_machine_that_is_killed(folder_store, tmp_path, machine, monkeypatch):
    """Whatever moment it is lost in, the lines in the mirror have their clips there, and are not made again."""
    monkeypatch.setattr(mirror_state, "SILENT_SECONDS", 0)
    lines, before = tmp_path / "store/world/samples.jsonl", {}
    for turn in range(3):
        words = ["sample", "world=toyworld:", "--subset", "toy-control", "--limit", "60", "--workers", "0"]
        command = [sys.executable, "-c", SLOWLY, *words, "--out", tmp_path / str(turn), "--mirror", folder_store]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            until = time.monotonic() + 300
            while not lines.exists() or lines.read_bytes().count(b"\n") < 4 * (turn + 1):
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        machine(f"reader {turn}")
        now = samples(pulled(folder_store, tmp_path / f"copy {turn}"))
        assert len(now) >= 4 * (turn + 1)
        assert {key: one for key, one in now.items() if key in before} == before
        before = now
    machine("last")
    assert {key: one for key, one in samples(made(tmp_path / "b", folder_store, 60)).items() if key in before} == before


class OtherMachine:
    """A pool whose workers see another disk at the path of the run folder: theirs is there while they work."""

    def __init__(self, folder, disk):
        self.folder, self.theirs, self.ours = folder, disk / "theirs", disk / "ours"

    def map_unordered(self, build, tasks):
        work = self.there(build)
        for task in tasks:
            yield task, self.there(work, task)

    def there(self, call, *given):
        session = mirror_state.SESSION
        self.folder.rename(self.ours)
        if self.theirs.exists():
            self.theirs.rename(self.folder)
        mirror_state.SESSION = "of a worker"
        try:
            return call(*given)
        finally:
            mirror_state.SESSION = session
            if self.folder.exists():
                self.folder.rename(self.theirs)
            self.ours.rename(self.folder)


def test_workers_that_see_another_disk_get_and_give_their_clips_through_the_mirror(store, tmp_path):
    (tmp_path / "disk").mkdir()
    path = tmp_path / "a/world"
    pool = OtherMachine(path, tmp_path / "disk")
    folder, mirror, subset = RunFolder(path), Mirror(path, f"{store}/world"), SUBSET.limited(3)
    with folder.writing(), mirror.kept():
        _, clips, _ = sample(folder, "toyworld:", {}, [subset], [0], workers=pool, mirror=mirror)
        assert all(one.path for one in clips)
        for clip in (path / "clips").rglob("*.mkv"):
            (pool.theirs / clip.relative_to(path)).unlink()  # the one that measures is a third machine
        _, tasks = measure(folder, ["onsets", "flow-dis"], workers=pool, mirror=mirror)
        assert not any(task.failed for task in tasks)
    assert not list(pool.theirs.rglob("samples.jsonl")), "the command alone writes lines"
    alone = RunFolder(tmp_path / "b/world")
    with alone.writing():
        assert all(one.path for one in sample(alone, "toyworld:", {}, [subset], [0])[1])
        assert not any(task.failed for task in measure(alone, ["onsets", "flow-dis"])[1])
    assert content(path) == content(alone.path)
    assert content(pulled(store, tmp_path / "copy")) == content(path)


def test_a_clip_that_was_deleted_to_save_space_stays_in_the_mirror_and_what_is_replaced_does_not(
    folder_store, tmp_path
):
    place = made(tmp_path / "a", folder_store, 2)
    clip = next(iter(samples(place).values())).path
    (place / clip).unlink()
    assert run_avbench("runs", "push", place, f"{folder_store}/world").exit_code == 0
    assert (tmp_path / "store/world" / clip).exists()
    there = made(tmp_path / "a", folder_store, 1, "toyworld:noisy", replace=True)
    assert content(there) == content(tmp_path / "store/world")


def test_a_clip_that_neither_side_has_is_named_when_the_rest_is_pulled(folder_store, tmp_path, machine):
    first = made(tmp_path / "a", folder_store, 2)
    clip = one_clip(first)
    (tmp_path / "store/world" / clip).unlink()
    machine("second")
    said = run_avbench("runs", "pull", f"{folder_store}/world", tmp_path / "copy").output
    assert f"copy: has all of {folder_store}/world" in said
    assert f"clips that samples.jsonl names and that are not there: 1, for example {clip}" in said
    shutil.copyfile(first / clip, tmp_path / "copy" / clip)
    assert "not there" not in run_avbench("runs", "pull", f"{folder_store}/world", tmp_path / "copy").output


def test_a_folder_that_is_deleted_while_it_is_written_stays_in_the_mirror(folder_store, tmp_path):
    place = made(tmp_path / "a", folder_store, 2)
    before = content(tmp_path / "store/world")
    with RunFolder(place).writing(), Mirror(place, f"{folder_store}/world").kept():
        for path in place.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert content(tmp_path / "store/world") == before


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("bucket/runs", "'bucket/runs' is no address that fsspec knows: write, for example, s3://bucket/runs"),
        ("s4://bucket/runs", "is no address that fsspec knows"),
        ("memory://runs", "'memory://runs' is in the memory of one process, and gone when that ends"),
        ("file:///dev/null/store", "the mirror file:///dev/null/store/world cannot be used"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_before_a_clip_is_made(address, sentence, tmp_path):
    with pytest.raises(InputError, match=re.escape(sentence)):
        made(tmp_path / "a", address, 2)
    assert not list(tmp_path.rglob("*.mkv"))


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "toyworld:", "--subset", "toy-control", "--limit", "1", "--out", "s3://bucket/runs"),
        ("runs", "merge", "s3://bucket/runs", "a"),
        ("runs", "pull", "file:///store", "s3://bucket/runs"),
        ("report", "a", "--out", "s3://bucket/runs"),
    ],
)
def test_an_address_in_the_place_of_a_folder_makes_no_folder_of_that_name(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = run_avbench(*words, code=2).stderr
    assert "s3://bucket/runs is an address of object storage" in refused and not [*tmp_path.iterdir()]


def test_an_address_is_no_folder_in_python_either_and_a_run_is_pulled_from_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="gs://bucket/runs/world is an address of object storage"):
        sampled(Path("gs://bucket/runs/world"), "toyworld:", SamplingJob([SUBSET.limited(1)]), Work(0))
    assert not [*tmp_path.iterdir()]
    advice = "`avbench runs pull s3://bucket/world FOLDER` gets a run"
    assert advice in run_avbench("status", "s3://bucket/world", code=2).stderr
    assert "pull file:///disk/world FOLDER`" in run_avbench("status", "file:///disk/world", code=2).stderr


def test_a_bucket_that_does_not_exist_and_a_server_that_is_gone_are_named(server, tmp_path, monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "s3", server)
    with pytest.raises(InputError, match="the mirror s3://no-such-bucket/world cannot be used: The specified bucket"):
        made(tmp_path / "a", "s3://no-such-bucket", 2)
    fast = {"config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1}}
    monkeypatch.setitem(fsspec.config.conf, "s3", {**server, **fast, "endpoint_url": "http://127.0.0.1:9"})
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(InputError, match="the mirror s3://bucket/world cannot be used: Could not connect"):
        made(tmp_path / "a", "s3://bucket", 2)


def test_storage_that_fails_at_the_end_loses_nothing(folder_store, tmp_path):
    place, there = made(tmp_path / "a", folder_store, 2), tmp_path / "store/world"
    with pytest.raises(
        InputError, match=r"cannot be used: .*has everything, and the same command uploads what is missing"
    ):
        with RunFolder(place).writing(), Mirror(place, f"{folder_store}/world").kept():
            there.rename(tmp_path / "aside")
            there.write_text("no folder")
    there.unlink()
    (tmp_path / "aside").rename(there)
    assert content(made(tmp_path / "a", folder_store, 3)) == content(there)


def test_a_full_disk_is_named_and_not_the_mirror(folder_store, tmp_path, machine, monkeypatch):
    made(tmp_path / "a", folder_store, 2)
    machine("second")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(LocalFileSystem, "get", full)
        with pytest.raises(InputError, match=f"cannot be downloaded: no space is left in {tmp_path}/copy"):
            pulled(folder_store, tmp_path / "copy")
    assert len(samples(pulled(folder_store, tmp_path / "copy"))) == 2


def test_a_full_disk_of_the_folder_does_not_hide_why_a_command_ended(folder_store, tmp_path, monkeypatch):
    place = made(tmp_path / "a", folder_store, 1)

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(InputError, match=r"No space left on device.*has everything, and the same command uploads"):
        with RunFolder(place).writing(), Mirror(place, f"{folder_store}/world").kept():
            pass
    with pytest.raises(InputError, match="the model failed") as found:
        with RunFolder(place).writing(), Mirror(place, f"{folder_store}/world").kept():
            raise InputError("the model failed")
    assert "No space left on device" in found.value.__notes__[0]


def test_what_is_no_mirror_is_not_pulled(tmp_path):
    (tmp_path / "store").mkdir()
    refused = run_avbench("runs", "pull", f"file://{tmp_path}/store", tmp_path / "copy", code=2).output
    assert "is no mirror of a run: it has no .mirror.json" in refused and not (tmp_path / "copy").exists()
    (tmp_path / "store/mine").mkdir()
    (tmp_path / "store/mine/run.json").write_text("{}")
    refused = run_avbench("runs", "pull", f"file://{tmp_path}/store", tmp_path / "copy", code=2).output
    assert "it has no .mirror.json; the runs in it are mine" in refused
    assert "store is not a run folder" in run_avbench("runs", "push", tmp_path / "store", "file:///x", code=2).output
    (tmp_path / "store/.mirror.json").write_text(json.dumps({"session": 3}))
    assert (
        "store/.mirror.json" in run_avbench("runs", "pull", f"file://{tmp_path}/store", tmp_path / "c", code=2).output
    )


def test_a_name_that_leads_out_of_the_folder_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "s3", server)
    storage = fsspec.filesystem("s3")
    storage.mkdir("evil")
    made(tmp_path / "a", "s3://evil", 1)
    storage.pipe_file("evil/world/../../out", b"x")
    with pytest.raises(InputError, match="is not a path inside it"):
        pulled("s3://evil", tmp_path / "copy")
    assert not [*tmp_path.glob("out"), *tmp_path.parent.glob("out")]
