"""The run folder loses nothing, counts nothing twice, and belongs to one writer."""

import multiprocessing
from dataclasses import dataclass

import numpy as np
import pytest

from avbench.core import InputError, Key, Prompt, Protocol, Row, Run, Sample, Subset
from avbench.folder import RunFolder, append_line, write_json, write_whole
from avbench.reading import read_lines

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
        path.write_bytes(b'{"a": 1}\n' + b'{"b": 22}'[:cut])
        assert read_lines(path) == [{"a": 1}]
        append_line(path, {"c": 3})
        assert read_lines(path) == [{"a": 1}, {"c": 3}]


def test_a_broken_whole_line_is_an_error_with_its_number(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\nnot json\n')
    with pytest.raises(InputError, match="line 2"):
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
    with pytest.raises(InputError, match=r"seeds: \[0, 1\] against \[0\]"):
        folder.start(a_run(seeds=(0, 1)), [SUBSET])


def _try_to_write(path, answers):
    try:
        with RunFolder(path).writing():
            answers.put("held")
    except InputError as error:
        answers.put(str(error))


def test_a_field_of_a_later_version_is_a_sentence(tmp_path):
    folder = RunFolder(tmp_path / "r")
    folder.start(a_run(asked={"steps": 4}), [SUBSET])
    assert folder.run().asked == {"steps": 4}
    write_json(folder.path / "run.json", {**a_run().to_json(), "colour": 1})
    with pytest.raises(InputError, match="has the field 'colour': a later version"):
        folder.run()


def test_one_writer_at_a_time(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    with RunFolder(tmp_path / "r").writing():
        other = spawn.Process(target=_try_to_write, args=(tmp_path / "r", answers))
        other.start()
        assert "is being written by another avbench" in answers.get(timeout=60)
        other.join()
    other = spawn.Process(target=_try_to_write, args=(tmp_path / "r", answers))
    other.start()
    assert answers.get(timeout=60) == "held"
    other.join()


def test_whole_files_replace_whole_files(tmp_path):
    write_whole(tmp_path / "x" / "y.json", b"old")
    write_whole(tmp_path / "x" / "y.json", b"new")
    assert (tmp_path / "x" / "y.json").read_bytes() == b"new"
    assert len(list((tmp_path / "x").iterdir())) == 1
