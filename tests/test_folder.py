"""The run folder loses nothing, counts nothing twice, and belongs to one writer."""

import errno
import multiprocessing
import resource
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from made_runs import evaluated, made_run, unsealed
from safetensors import SafetensorError

from avbench.core import InputError, Key, Prompt, Protocol, Row, Run, Sample, Subset
from avbench.generation.worker import no_space
from avbench.report.page import clips
from avbench.storage.reading import read_json, read_lines, with_checksum
from avbench.storage.runs.folder import RunFolder
from avbench.storage.writing import append_line, line_of, locked, replacing, write_json, write_sealed, write_whole

KEY = Key("s", "p", 0)
SHA256 = "0" * 64
SUBSET = Subset("s", 1, (Prompt("p", "caption"),), None)


@dataclass(frozen=True)
class Colours(Protocol):
    bins: int = 3


PROTOCOL = Colours("colours", 1)


def a_run(**changes):
    usual = {"name": "r", "model": "m:", "settings": {}, "subsets": {"s": SUBSET.digest}, "seeds": (0,)}
    return Run(**{**usual, "versions": {}, "machine": {}, **changes})


def test_a_torn_line_is_dropped_and_the_next_is_whole(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_line(path, {"a": 1})
    for cut in range(1, 9):
        path.write_bytes(line_of({"a": 1}) + line_of({"b": 22})[:cut])
        assert read_lines(path) == [{"a": 1}]
        append_line(path, {"c": 3})
        assert read_lines(path) == [{"a": 1}, {"c": 3}]


@pytest.mark.parametrize(
    "write", [lambda path: append_line(path, {}, durable=True), lambda path: write_whole(path, b"x")]
)
def test_a_file_for_which_no_space_is_left_is_named(tmp_path, monkeypatch, write):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("avbench.storage.writing.os.fsync", full)
    with pytest.raises(InputError, match=r"x\.jsonl cannot be written: No space left on device") as found:
        write(tmp_path / "x.jsonl")
    assert no_space(found.value)
    assert not [*tmp_path.glob(".*")], "what was written of it takes no space"


def test_a_folder_without_clips_is_another_runs_whatever_a_kill_left_of_its_files(tmp_path):
    folder = RunFolder(tmp_path / "r")
    folder.start(a_run(), [SUBSET])
    (folder.path / ".progress.json.part").write_bytes(b"{")
    folder.start(a_run(model="other:"), [SUBSET])
    assert folder.run().model == "other:"


def test_a_broken_whole_line_is_an_error_with_its_number(tmp_path):
    path = tmp_path / "lines.jsonl"
    for line, words in (
        (b'{"a": 2}\n', r"line 2 has no checksum \(crc32\), so it was changed by hand or by another program\. Remove"),
        (line_of({"a": 2}).replace(b"2", b"3", 1), "line 2 was changed after it was written"),
        (with_checksum(b'{"a": two}') + b"\n", "line 2: not JSON"),
    ):
        path.write_bytes(line_of({"a": 1}) + line)
        with pytest.raises(InputError, match=words):
            read_lines(path)


def test_rows_come_back_exactly(tmp_path):
    folder = RunFolder(tmp_path / "r")
    values = {"mean": 0.1 + 0.2, "logits": np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)}
    folder.add_row(PROTOCOL, Row(KEY, SHA256, values))
    row = folder.rows(PROTOCOL)[KEY]
    assert row.values["mean"] == values["mean"]
    assert row.values["logits"].dtype == np.float32
    np.testing.assert_array_equal(row.values["logits"], values["logits"])
    folder.add_row(PROTOCOL, Row(KEY, SHA256, None, "too short"))
    assert folder.rows(PROTOCOL)[KEY].missing == "too short"
    assert folder.rows(Colours("colours", 1, bins=4)) == {}, "another protocol has rows of its own"


def test_samples_are_keyed(tmp_path):
    folder = RunFolder(tmp_path / "r")
    folder.add_sample(Sample(KEY, None, None, 0.1, "out of memory"))
    folder.add_sample(Sample(KEY, "clips/s/p-0.mkv", SHA256, 0.1))
    assert list(folder.samples()) == [KEY]
    assert folder.samples()[KEY].path == "clips/s/p-0.mkv"


def test_another_run_is_refused_by_field(tmp_path):
    folder = RunFolder(tmp_path / "r")
    folder.start(a_run(), [SUBSET])
    folder.start(a_run(versions={"torch": "9"}), [SUBSET])
    assert folder.subsets() == [SUBSET]
    folder.start(a_run(seeds=(0, 1)), [SUBSET])  # nothing was made yet
    folder.start(a_run(), [SUBSET])
    folder.add_sample(Sample(Key("s", "p", 0), None, None, 0.1, failure="out of memory"))
    with pytest.raises(InputError, match=r"seeds: \[7\] was asked for, the folder holds \[0\]"):
        folder.start(a_run(seeds=(7,)), [SUBSET])
    folder.start(a_run(seeds=(0, 7)), [SUBSET])  # it extends the run
    assert folder.run().seeds == (0, 7) and len(folder.samples()) == 1


def _try_to_write(path, answers):
    try:
        with RunFolder(path).writing():
            answers.put("held")
    except InputError as error:
        answers.put(str(error))


def test_a_kill_while_a_run_is_extended_leaves_it_as_it_was(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "r")
    longer = Subset("s", 1, (*SUBSET.prompts, Prompt("q", "another"), Prompt("r", "a third")), None)
    folder.start(a_run(), [SUBSET])
    folder.add_sample(Sample(KEY, None, None, 0.1, failure="out of memory"))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(RunFolder, "write_run", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.start(a_run(subsets={"s": longer.digest}), [longer])
    assert [one.prompts for one in folder.subsets()] == [SUBSET.prompts]
    folder.start(a_run(subsets={"s": longer.digest}), [longer])
    assert folder.subsets() == [longer]
    write_json(folder.subset_path("s"), Subset("s", 1, longer.prompts[1:], None).to_json())
    with pytest.raises(InputError, match=r"is not the subset that .*run\.json names: it was changed"):
        folder.subsets()


def test_a_field_of_a_later_version_is_a_sentence(tmp_path):
    folder = RunFolder(tmp_path / "r")
    folder.start(a_run(asked={"steps": 4}), [SUBSET])
    assert folder.run().asked == {"steps": 4}
    plain = unsealed(read_json(folder.path / "run.json"))
    write_sealed(folder.path / "run.json", {**plain, "colour": 1})
    with pytest.raises(InputError, match="the field 'colour' is unknown; a later version"):
        folder.run()


@pytest.mark.slow
def test_one_writer_at_a_time(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    with RunFolder(tmp_path / "r").writing():
        other = spawn.Process(target=_try_to_write, args=(tmp_path / "r", answers))
        other.start()
        assert "is being written by another avbench" in answers.get(timeout=300)
        other.join()
    other = spawn.Process(target=_try_to_write, args=(tmp_path / "r", answers))
    other.start()
    assert answers.get(timeout=300) == "held"
    other.join()


def test_whole_files_replace_whole_files(tmp_path):
    write_whole(tmp_path / "x" / "y.json", b"old")
    write_whole(tmp_path / "x" / "y.json", b"new")
    assert (tmp_path / "x" / "y.json").read_bytes() == b"new"
    assert len(list((tmp_path / "x").iterdir())) == 1
    (tmp_path / "x" / ".y.json.part").write_bytes(b"of a longer file, whose writer was killed")
    write_whole(tmp_path / "x" / "y.json", b"new")
    assert (tmp_path / "x" / "y.json").read_bytes() == b"new"
    with replacing(tmp_path / "x" / "y.json") as part:
        part.write_bytes(b"other")
    assert (tmp_path / "x" / "y.json").read_bytes() == b"other"
    with pytest.raises(KeyError), replacing(tmp_path / "x" / "y.json") as part:
        part.write_bytes(b"half")
        raise KeyError
    assert (tmp_path / "x" / "y.json").read_bytes() == b"other" and len(list((tmp_path / "x").iterdir())) == 1


def test_a_full_disk_is_named_by_its_file_although_safetensors_gives_its_number_in_words(tmp_path):
    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(OSError, match=r"No space left on device: '.*joint\.safetensors'") as found:
        with replacing(tmp_path / "joint.safetensors"):
            raise full
    assert found.value.errno == errno.ENOSPC


def test_who_waits_for_a_lock_is_told_so(tmp_path):
    other, told = FileLock(tmp_path / "x/.lock"), []
    with locked(tmp_path / "x/.lock", lambda: told.append(1)):
        assert not told
    with other, locked(tmp_path / "x/.lock", other.release):  # what is told is that another process works: it ends
        assert not other.is_locked


@pytest.mark.parametrize("write", [append_line, write_json, write_sealed])
def test_no_file_gets_a_number_that_json_does_not_have(tmp_path, write):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path / "x.json", {"value": float("nan")})
    assert not [*tmp_path.iterdir()]


def test_a_line_of_which_the_disk_takes_a_part_is_an_error_and_is_dropped_by_the_next(tmp_path):
    """A limit on the size of files stands for the disk's."""
    path, limits = tmp_path / "x.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    append_line(path, {"a": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, limits[1]))
    try:
        with pytest.raises(InputError, match=r"x\.jsonl cannot be written: No space left on device"):
            append_line(path, {"b": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    append_line(path, {"c": 3})
    assert read_lines(path) == [{"a": 1}, {"c": 3}]


def started(tmp_path):
    folder = RunFolder(tmp_path / "r")
    folder.start(a_run(), [SUBSET])
    return folder


LINE = {"key": ["s", "p", 0], "path": "clips/s/p-0.mkv", "sha256": SHA256, "seconds": 1.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": "../../../evil"}, "must be 64 hex digits"),
        ({"sha256": "A" * 64}, "must be 64 hex digits"),
        ({"sha256": 5}, "sha256 is 5; it must be a text"),
        ({"path": "/etc/passwd"}, "'/etc/passwd' is not a path inside it"),
        ({"path": "clips/../../private.mkv"}, "is not a path inside it"),
        ({"path": "a\0b"}, "is not a path inside it"),
        ({"key": ["s", "../../p", 0]}, "prompt id '../../p' cannot be an id"),
        ({"key": ["../s", "p", 0]}, "subset name '../s' cannot be an id"),
        ({"key": ["s", "p"]}, "the field 'key.2' is missing"),
        ({"key": ["s", "p", 0.5]}, "key.2 is 0.5; it must be a whole number"),
        ({"seconds": "1"}, "seconds is '1'; it must be a number"),
        ({"colour": 1}, "the field 'colour' is unknown; a later version"),
        ({"failure": "no"}, "give either a path"),
    ],
)
def test_a_line_of_somebody_elses_samples_is_checked_and_leads_nowhere(tmp_path, changes, words):
    folder = started(tmp_path)
    append_line(folder.path / "samples.jsonl", {**LINE, **changes})
    for use in (folder.samples, lambda: clips.prepare([folder], tmp_path / "out" / "media")):
        with pytest.raises(InputError, match=words):
            use()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["r"]


def test_no_link_is_followed_out_of_a_run_folder(tmp_path):
    private = tmp_path / "private.mkv"
    private.write_bytes(b"private")
    for name in ("samples.jsonl", "run.json", "clips", "features", "scores.json", "subsets/s.json", ".lock"):
        folder = started(tmp_path / name.replace("/", "-"))
        place = folder.path / name
        place.unlink(missing_ok=True)
        place.symlink_to(tmp_path if name in ("clips", "features") else private)
        for use in (RunFolder.run, RunFolder.samples, RunFolder.scores, lambda one: one.writing().__enter__()):
            with pytest.raises(InputError, match="is a link to a place outside"):
                use(RunFolder(folder.path))
    assert private.read_bytes() == b"private"


def test_links_inside_and_a_generators_own_are_allowed_and_no_write_follows_one(tmp_path):
    folder, private = started(tmp_path), tmp_path / "private"
    private.write_bytes(b"private")
    (folder.path / "same.json").symlink_to("run.json")
    (folder.path / "jobs").mkdir()
    (folder.path / "jobs" / "cache").symlink_to(tmp_path)
    assert RunFolder(folder.path).run().name == "r"
    (tmp_path / ".x.json.part").symlink_to(private)
    write_whole(tmp_path / "x.json", b"new")
    (tmp_path / "lines.jsonl").symlink_to(private)
    with pytest.raises(InputError, match="is a link; avbench does not write through links"):
        append_line(tmp_path / "lines.jsonl", {})
    assert private.read_bytes() == b"private" and (tmp_path / "x.json").read_bytes() == b"new"


def test_the_format_of_a_folder_is_kept_and_a_later_one_is_a_sentence(tmp_path):
    folder = started(tmp_path)
    plain = unsealed(read_json(folder.path / "run.json"))
    assert plain["format"] == 1
    for later in (2, "1", None, True):
        write_sealed(folder.path / "run.json", {**plain, "format": later})
        with pytest.raises(InputError, match=rf"has format {later!r}, but this avbench reads format 1: update avbench"):
            folder.run()


@pytest.mark.parametrize("name", ["run.json", "scores.json"])
def test_a_file_without_its_seal_is_refused(tmp_path, name):
    folder = evaluated(made_run(tmp_path / "r", count=2, names=["toy-control"]))
    plain = read_json(folder.path / name)
    for changed, words in (
        ({**plain, "model": "other:"}, "was changed after it was written: "),
        ({**unsealed(plain), "model": "other:"}, "has no sha256 of its content, so it was changed by hand or by ano"),
        ([plain], "has no sha256 of its content"),
    ):
        write_json(folder.path / name, changed)
        with pytest.raises(InputError, match=rf"{name} {words}"):
            folder.run() if name == "run.json" else folder.scores()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"dtype": "O", "shape": [1], "base64": ""}, "an array of 'O'; the type must be one of"),
        ({"dtype": "complex64", "shape": [1], "base64": ""}, "an array of 'complex64'"),
        ({"dtype": "float64", "shape": [10**12], "base64": ""}, "which do not fit a float64 array of shape"),
        ({"dtype": "float64", "shape": [-1], "base64": ""}, "which do not fit a float64 array of shape"),
        ({"dtype": "float64", "shape": [1], "base64": "!!!!"}, "is not base64"),
        ({"dtype": "float64", "shape": [1], "base64": "AAAAAAAA+H8="}, "is NaN or infinite"),
        ({"dtype": 5, "shape": [1], "base64": ""}, "dtype is 5"),
        ("x", "the whole is 'x'"),
        (None, "the whole is None"),
    ],
)
def test_a_value_of_somebody_elses_rows_is_checked(tmp_path, value, words):
    folder = RunFolder(tmp_path / "r")
    folder.add_row(PROTOCOL, Row(KEY, SHA256, None, "too short"))
    (rows,) = folder.path.glob("features/*/rows.jsonl")
    append_line(rows, {"key": KEY, "clip_sha256": SHA256, "values": {"v": value}, "missing": None})
    for use in (folder.rows, lambda protocol: list(folder.stream_rows(protocol))):
        with pytest.raises(InputError, match=words) as found:
            use(PROTOCOL)
        assert str(rows) in str(found.value)


@pytest.mark.slow
def test_scores_and_values_belong_together_and_count_once(tmp_path):
    folder = evaluated(made_run(tmp_path / "r", count=2, names=["toy-control"]))
    plain, values = unsealed(read_json(folder.path / "scores.json")), folder.values()
    one = plain["scores"][0]
    for scores, words in (
        ([one, one], "is scored twice"),
        ([{**one, "subset": "other"}], "the run has no such subset"),
        ([{**one, "protocol": "x"}], "lacks the protocol of lpips_consecutive"),
        ([{**one, "value": "x"}], "value is 'x'; it must be a number"),
        ([{**one, "interval": [1, 2, 3]}], "scores.0.interval"),
        ([{**one, "null": {"a": 1}}], "scores.0.null"),
        ([{**one, "n": -1}], "n is -1; it must be 0 or more"),
        ([{**one, "interval": [2, 1]}], "not finite, or the interval"),
        ([], "holds no score: run `avbench evaluate"),
    ):
        write_sealed(folder.path / "scores.json", {**plain, "scores": scores})
        with pytest.raises(InputError, match=words):
            folder.scores()
    for table, words in (
        (pd.concat([values, values]), "two values of one metric for one clip"),
        (values.assign(value=np.inf), "holds infinity"),
        (values.assign(seed="x"), "'seed' is of"),
        (values.drop(columns="prompt"), "no column 'prompt'"),
        (
            values.iloc[:-1],
            "has 1 values of onset_rate on toy-control, but scores.json counts 2: the two do not",
        ),
        (values.assign(value=np.nan), "has 0 values of lpips_consecutive"),
        (values.iloc[:0], "has 0 values of lpips_consecutive"),
    ):
        write_sealed(folder.path / "scores.json", plain)
        table.to_parquet(folder.path / "values.parquet", index=False)
        with pytest.raises(InputError, match=words):
            folder.values()
    (folder.path / "values.parquet").unlink()
    with pytest.raises(InputError, match=r"has no values\.parquet: run `avbench evaluate"):
        folder.values()


def test_ids_that_differ_in_case_alone_need_a_disk_that_tells_them_apart(tmp_path):
    subset = Subset("s", 1, (Prompt("Dog", "a dog"), Prompt("dog", "a dog")), None)
    run = a_run(subsets={"s": subset.digest})
    RunFolder(tmp_path / "r").start(run, [subset])
    (tmp_path / "macos").mkdir()
    (tmp_path / "macos/.LOCK").touch()  # what a disk of macOS shows in place of .lock
    with pytest.raises(InputError, match="'Dog' and 'dog' would share their files, as this disk does not tell upper"):
        RunFolder(tmp_path / "macos").start(run, [subset])
    assert not (tmp_path / "macos/run.json").exists()
