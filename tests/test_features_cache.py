"""What was measured once is not measured again: shared by runs, verified when read, safe under many writers."""

import errno
import json
import multiprocessing
import os
import time

import numpy as np
import pytest
from command_line import run_avbench
from made_runs import made_run

from avbench.core import InputError, Prompt, Protocol
from avbench.features import measure as stage
from avbench.features import worker
from avbench.features.current import current_rows
from avbench.features.measure import measure
from avbench.features.protocols import protocol_of
from avbench.generation.sample import sample
from avbench.storage.runs.features_cache import FeaturesCache, from_environment
from avbench.storage.runs.folder import RunFolder
from avbench.subsets import loading

PROTOCOL = Protocol("loudness", 1)
VALUES = {"mean": 0.1 + 0.2, "curve": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVBENCH_CACHE", str(tmp_path / "cache"))
    found = from_environment()
    assert found is not None
    return found


def same(found):
    if found is None:
        return False
    values, gpu = found
    return gpu is None and values["mean"] == VALUES["mean"] and (values["curve"] == VALUES["curve"]).all()


def test_values_come_back_under_their_clip_and_protocol_only(cache):
    cache.keep(PROTOCOL, "a", VALUES)
    found = cache.find(PROTOCOL, "a")
    assert same(found) and found[0]["curve"].dtype == np.float32
    assert cache.find(PROTOCOL, "b") is None
    assert cache.find(Protocol("loudness", 2), "a") is None
    assert cache.find(Protocol("other", 1), "a") is None
    cache.keep(PROTOCOL, "a", VALUES, gpu="card")
    assert cache.find(PROTOCOL, "a")[1] == "card"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("0.30000000000000004", "0.3000000000000001"),
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace('"seen": "a"', '"seen": "b"'),
        lambda text: "\0" * len(text),
        lambda text: "[1]",
    ],
)
def test_a_damaged_entry_is_removed_and_counts_as_none(cache, damage):
    cache.keep(PROTOCOL, "a", VALUES)
    cache.keep(PROTOCOL, "c", VALUES)
    path = cache._path(PROTOCOL, "a")
    path.write_text(damage(path.read_text()))
    assert cache.find(PROTOCOL, "a") is None and not path.exists()
    assert same(cache.find(PROTOCOL, "c"))


def test_an_entry_in_another_ones_place_is_damaged(cache):
    cache.keep(PROTOCOL, "a", VALUES)
    cache.keep(PROTOCOL, "b", {"mean": 1.0})
    content = cache._path(PROTOCOL, "b").read_bytes()
    cache._path(PROTOCOL, "a").write_bytes(content)
    assert cache.find(PROTOCOL, "a") is None
    cache._path(PROTOCOL, "a").write_bytes(content)
    good, bad = cache.verify()
    assert good == 1 and bad == [f"{cache._path(PROTOCOL, 'a')} was changed after it was written; it was removed"]


def test_verify_removes_what_is_damaged(cache):
    for name in "abc":
        cache.keep(PROTOCOL, name, VALUES)
    path = cache._path(PROTOCOL, "b")
    path.write_text(path.read_text()[:-2])
    output = run_avbench("cache", "verify", code=1).stdout
    assert str(path) in output and "good entries: 2; damaged: 1" in output
    assert "good entries: 2; damaged: 0" in run_avbench("cache", "verify").stdout


def test_what_verify_may_not_remove_is_not_called_removed(cache, monkeypatch):
    cache.keep(PROTOCOL, "a", VALUES)
    path = cache._path(PROTOCOL, "a")
    path.write_text("{}")

    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.unlink", refused)
        output = run_avbench("cache", "verify", code=1).stdout
    assert "; you may not remove it\n" in output and "good entries: 0; damaged: 1" in output
    assert path.exists()


def test_what_cannot_be_read_now_is_neither_damaged_nor_the_end(cache):
    cache.keep(PROTOCOL, "a", VALUES)
    cache._path(PROTOCOL, "b").mkdir(parents=True)  # as a file of another user: reading it is an OSError
    assert cache.find(PROTOCOL, "b") is None
    assert cache.verify() == (1, []) and cache._path(PROTOCOL, "b").exists()
    assert cache.prune(unused_seconds=-1)[0] == 1
    assert "entries removed: 0" in run_avbench("cache", "prune", "--max-gib", "inf").stdout


def test_prune_removes_what_was_unused_longest(cache):
    now = time.time()
    for days, name in enumerate("abcd"):
        cache.keep(PROTOCOL, name, VALUES)
        os.utime(cache._path(PROTOCOL, name), (now, now - days * 86_400))
    (size,) = {entry.size for entry in cache.entries()}
    assert cache.find(PROTOCOL, "c") is not None, "which makes it used now"
    assert "entries removed: 1" in run_avbench("cache", "prune", "--unused-days", 2.5).stdout
    assert cache.prune(most_bytes=2 * size) == (1, size)
    assert cache.find(PROTOCOL, "b") is None and same(cache.find(PROTOCOL, "c"))
    assert cache.prune(most_bytes=0)[0] == 2 and not [*cache.entries()]
    assert "nothing to remove was named" in run_avbench("cache", "prune", code=2).stderr


def test_what_prune_finds_too_old_no_longer_counts_towards_the_size(cache):
    for name in "ab":
        cache.keep(PROTOCOL, name, VALUES)
    os.utime(cache._path(PROTOCOL, "a"), (0, 0))
    (size,) = {entry.size for entry in cache.entries()}
    assert cache.sizes() == {f"loudness@{PROTOCOL.digest[:12]}": (2, 2 * size)}
    assert cache.prune(unused_seconds=86_400, most_bytes=size) == (1, size)
    assert same(cache.find(PROTOCOL, "b"))


def test_the_day_of_the_last_use_is_written_once_a_day(cache):
    cache.keep(PROTOCOL, "a", VALUES)
    path, now = cache._path(PROTOCOL, "a"), time.time()
    for hours, kept in ((23, True), (25, False)):
        os.utime(path, (now - 3600 * hours,) * 2)
        before = path.stat().st_mtime
        assert same(cache.find(PROTOCOL, "a")) and (path.stat().st_mtime == before) == kept


def test_prune_removes_what_a_killed_writer_left(cache):
    cache.keep(PROTOCOL, "a", VALUES)
    place = cache._path(PROTOCOL, "a").parent
    old, new = place / ".1.part", place / ".2.part"
    for path in (old, new):
        path.write_text("x")
    os.utime(old, (0, 0))
    cache.prune(unused_seconds=10)
    assert not old.exists() and new.exists() and same(cache.find(PROTOCOL, "a"))


def test_size_is_said_by_feature(cache):
    cache.keep(PROTOCOL, "a", VALUES)
    cache.keep(Protocol("other", 1), "a", VALUES)
    found = json.loads(run_avbench("cache", "size", "--format", "json").stdout)
    assert [(one["feature"].partition("@")[0], one["entries"]) for one in found] == [("loudness", "1"), ("other", "1")]
    assert "entries: 2" in run_avbench("cache", "size").stdout


def test_without_a_folder_there_is_no_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("AVBENCH_CACHE", raising=False)
    assert from_environment() is None
    assert "set the environment variable AVBENCH_CACHE to a folder" in run_avbench("cache", "size", code=2).stderr
    monkeypatch.setenv("AVBENCH_CACHE", str(tmp_path / "mistyped"))
    for verb in ("size", "verify", "prune --max-gib inf"):
        assert "which is no folder" in run_avbench("cache", *verb.split(), code=2).stderr
    monkeypatch.setenv("AVBENCH_CACHE", "s3://bucket/cache")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="'s3://bucket/cache', an address of object storage"):
        from_environment()
    assert not [*tmp_path.iterdir()], "looking makes no folder"
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("AVBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"AVBENCH_CACHE is '\S+file', and that folder cannot be made"):
        from_environment()


def write_and_read(folder, number):
    """Write the same entries as the others, and read them while they do."""
    cache = FeaturesCache(folder)
    for turn in range(40):
        seen = str((turn + number) % 8)
        cache.keep(PROTOCOL, seen, VALUES)
        for other in range(8):
            found = cache.find(PROTOCOL, str(other))
            assert found is None or same(found)


def test_many_writers_leave_whole_entries(cache):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=write_and_read, args=(cache.folder, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert cache.verify() == (8, [])
    assert not [*cache.folder.rglob("*.part")]


def test_a_full_disk_costs_no_measuring(cache, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    cache.keep(PROTOCOL, "a", VALUES)
    monkeypatch.undo()
    assert cache.find(PROTOCOL, "a") is None
    cache._path(PROTOCOL, "b").mkdir(parents=True)  # so that the entry cannot be put there
    cache.keep(PROTOCOL, "b", VALUES)
    assert not [*cache.folder.rglob("*.part")]


# ---- measuring with it


def run(place, seeds=(0, 1)):
    folder = RunFolder(place)
    _, made, _ = sample(folder, "toyworld:", {}, [loading.load("toy-object-contact").limited(2)], seeds)
    assert all(one.failure is None for one in made)
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """The clips that were decoded to be measured."""
    seen = []

    def noting(folder, one, forms):
        seen.append(one.key)
        return reading(folder, one, forms)

    reading = worker._read
    monkeypatch.setattr(worker, "_read", noting)
    return seen


def measured(folder, *features, against=None):
    count, tasks = measure(folder, features, against=against)
    assert len([*tasks]) == count
    return count


@pytest.mark.slow
def test_the_same_clips_in_another_run_are_not_decoded(tmp_path, cache, decoded):
    features = ("onsets", "levels", "lpips-alex-seeds")
    one, other = run(tmp_path / "a"), run(tmp_path / "b")
    assert measured(one, *features) == 6 and len(decoded) == 8
    decoded.clear()
    assert measured(other, *features) == 6 and decoded == []
    for feature in features:
        ours, theirs = current_rows(one, feature), current_rows(other, feature)
        assert ours.keys() == theirs.keys() and len(ours) == 4
        for key, row in ours.items():
            for name, value in (row.values or {}).items():
                np.testing.assert_array_equal(theirs[key].values[name], value)
    assert measured(other, *features) == 0


@pytest.mark.slow
def test_only_what_the_cache_lacks_is_measured(tmp_path, cache, decoded):
    one, other = run(tmp_path / "a"), run(tmp_path / "b")
    measured(one, "onsets")
    key = sorted(one.samples())[2]
    cache._path(protocol_of("onsets"), one.samples()[key].sha256).write_text("damaged")
    decoded.clear()
    assert measured(other, "onsets") == 4 and decoded == [key]
    more = run(tmp_path / "c")
    decoded.clear()
    assert measured(more, "onsets", "levels") == 4 and len(decoded) == 4, "for the second feature"
    assert len(current_rows(more, "onsets")) == 4


def test_what_sees_the_prompt_is_kept_under_it(tmp_path):
    folder = made_run(tmp_path / "r", count=1, names=["toy-control"])
    (one,) = folder.samples().values()
    tasks = [worker.Task((one,), ("toy-physics",), prompt=Prompt("p", text)) for text in ("a dog", "a cat", "a dog")]
    first, second, third = (stage._cached_as("toy-physics", task, one.sha256) for task in tasks)
    assert first == third != second
    assert stage._cached_as("onsets", tasks[0], one.sha256) == one.sha256
