"""A file that somebody else wrote is read as what it says, or refused in one sentence, and takes no memory unasked."""

import io
import json
import os
import struct
import zipfile
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save

from avbench.core import InputError
from avbench.generation.detect import detect
from avbench.storage import reading
from avbench.storage.reading import files, text
from avbench.storage.writing import line_of


@dataclass(frozen=True)
class Shape:
    name: str
    count: int
    share: float = 0.5
    tags: dict[str, str] = field(default_factory=dict)


GOOD = {"name": "a", "count": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty, and must hold JSON"),
        (b"{", "not JSON at column 2: a name in double quotes is missing"),
        (b'{"a": 1\n"b"', "not JSON at line 2, column 1: a comma or a closing bracket is missing"),
        (b'{"a": "b', "the text that begins there has no closing quote"),
        (b'{"a": NaN}', "NaN is no JSON value"),
        (b'{"a": -Infinity}', "-Infinity is no JSON value"),
        (b'{"a": 1e999}', "inf is not a finite number"),
        (b'{"a": ' + b"9" * 30 + b"}", "more than 64 bits"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
        (b"[" * 100_000, "nested more than 100 deep"),
        (b"[" * 101 + b"]" * 101, "nested more than 100 deep"),
        (b'["\\ud800"]', "half a surrogate pair"),
        (b'{"\\udfff": 1}', "half a surrogate pair"),
        (b'["\xe4"]', "not UTF-8: byte 3 is 0xe4"),
        (b"\0" * 100, "not JSON at column 1: a value is missing"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    ],
)
def test_what_is_no_json_is_a_sentence(tmp_path, content, words):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as found:
        reading.read_json(path)
    assert str(found.value).startswith(f"{path}: ")


def test_good_json_comes_back_with_its_byte_order_mark_and_depth(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"\xef\xbb\xbf" + b"[" * 100 + b"]" * 100)
    assert reading.read_json(path)
    assert reading.parsed(b'{"a": [NaN, 1.5, "\xc3\xa4"]}', "x", nan_as_none=True) == {"a": [None, 1.5, "ä"]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": 5}, "name is 5; it must be a text"),
        ({"count": "1"}, "count is '1'; it must be a whole number"),
        ({"count": True}, "count is True; it must be a whole number"),
        ({"count": 1.5}, "count is 1.5; it must be a whole number"),
        ({"share": "0.5"}, "share is '0.5'; it must be a number"),
        ({"tags": [1]}, r"tags is \[1\]; it must be an object"),
        ({"tags": {"a": 1}}, "tags.a is 1; it must be a text"),
        ({"more": 1}, "the field 'more' is unknown; a later version"),
        ({"name": None}, "name is None; it must be a text"),
    ],
)
def test_types_are_checked_without_converting(tmp_path, changes, words):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**GOOD, **changes}))
    with pytest.raises(InputError, match=words):
        reading.read_json(path, Shape)
    path.write_text(json.dumps(GOOD))
    assert reading.read_json(path, Shape) == Shape("a", 1)
    path.write_text('{"name": "a"}')
    with pytest.raises(InputError, match="the field 'count' is missing"):
        reading.read_json(path, Shape)
    path.write_text("[1]")
    with pytest.raises(InputError, match=r"the whole is \[1\]; it must be an object"):
        reading.read_json(path, Shape)
    assert reading.parsed(json.dumps({**GOOD, "more": 1}).encode(), "x", Shape, known_only=False) == Shape("a", 1)


def test_only_ordinary_files_are_opened_and_nothing_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "pipe", "is a pipe"),
        (tmp_path, "is a folder"),
        ("/dev/zero", "is a device"),
        (tmp_path / "nowhere", "No such file"),
        (tmp_path / "a\0b", "null"),
    ):
        for read in (
            reading.read_json,
            reading.read_toml,
            reading.read_text,
            reading.tensor_header,
            reading.read_tensors,
        ):
            with pytest.raises(InputError, match=words):
                read(type(tmp_path)(path))


def test_a_file_larger_than_any_is_not_read(tmp_path, monkeypatch):
    for part in (files, text):
        monkeypatch.setattr(part, "limits", lambda: reading.Limits(text_bytes=1000))
    path = tmp_path / "x.json"
    path.write_text(json.dumps(["x" * 1000]))
    with pytest.raises(InputError, match=r"larger than 0.0 MB, the most that such a file may have"):
        reading.read_json(path)
    path.write_bytes(line_of({}) + b"x" * 2000 + b"\n")
    with pytest.raises(InputError, match="line 2 is longer than"):
        reading.read_lines(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a = 2024-01-01", "2024-01-01 is a date; write it as a text"),
        ("a = 2024-01-01T00:00:00Z", "is a datetime"),
        ("a = nan", "nan is not a finite number"),
        ("a = [1, -inf]", "-inf is not a finite number"),
        ("a = " + "[" * 300 + "]" * 300, "nested more than 100 deep"),
        ("a = " + "[" * 100_000, "nested more than 100 deep"),
        (".".join(["a"] * 5000) + " = 1", "nested more than 100 deep"),
        ("a = " + "9" * 5000, "value has 5000 digits"),
        ("a =", "Invalid value"),
    ],
)
def test_toml_holds_what_json_can(tmp_path, content, words):
    path = tmp_path / "x.toml"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        reading.read_toml(path)


def npz(**arrays):
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()


def one_npy(head, body=b""):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("mu.npy", b"\x93NUMPY\x01\x00\x76\x00" + head.ljust(117) + b"\n" + body)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no zip file"),
        (npz(mu=np.zeros(3))[:-30], "zip"),
        (npz(sigma=np.zeros(3)), "has no array 'mu'; it has sigma"),
        (npz(mu=np.zeros(3, complex)), "must be of real numbers"),
        (npz(mu=np.zeros(3, "M8[s]")), "must be of real numbers"),
        (npz(mu=np.array(["a"])), "must be of real numbers"),
        (npz(mu=np.array([{}], dtype=object)), "must be of real numbers"),
        (npz(mu=np.zeros(10**6)), "would take 8.0 MB of memory; at most 1.0 MB"),
        (
            one_npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"),
            "does not fit the bytes that it holds",
        ),
        (
            one_npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }"),
            "does not fit the bytes that it holds",
        ),
        (one_npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': __import__('os').getcwd(), }"), "mu: "),
        (one_npy(b"(" * 110), "mu: "),
    ],
)
def test_an_npz_gives_no_more_than_it_holds(tmp_path, monkeypatch, content, words):
    monkeypatch.setenv("AVBENCH_FILE_MEMORY", "1000000")
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        reading.read_npz(path, ["mu"])


def test_a_good_npz_comes_back(tmp_path):
    found = {"mu": np.arange(6.0).reshape(2, 3), "sigma": np.asfortranarray(np.arange(6).reshape(2, 3))}
    (tmp_path / "x.npz").write_bytes(npz(**found))
    read = reading.read_npz(tmp_path / "x.npz", ["mu", "sigma"])
    for name, array in found.items():
        np.testing.assert_array_equal(read[name], array)


def test_the_memory_limit_is_a_number(tmp_path, monkeypatch):
    for value in ("", "1e9", "-1", "0", "much"):
        monkeypatch.setenv("AVBENCH_FILE_MEMORY", value)
        with pytest.raises(InputError, match="AVBENCH_FILE_MEMORY is"):
            reading.limits()


KINDS = {"name": str, "seed": int, "value": float}
TABLE = pd.DataFrame({"name": ["a", "b"], "seed": [0, 1], "value": [0.5, np.nan]})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (TABLE.drop(columns="value"), "no column 'value'; it has name, seed"),
        (TABLE.assign(value=["a", "b"]), "'value' is of .*string; it must be of numbers"),
        (TABLE.assign(seed=["a", "b"]), "'seed' is of .*string; it must be of whole numbers"),
        (TABLE.assign(seed=[0.5, 1]), "'seed' is of double"),
        (TABLE.assign(name=["a", None]), "'name' has missing values"),
        (TABLE.assign(name=[1, 2]), "'name' is of int64; it must be of texts"),
    ],
)
def test_columns_of_a_parquet_file_are_what_they_must_be(tmp_path, table, words):
    table.to_parquet(tmp_path / "x.parquet", index=False)
    with pytest.raises(InputError, match=words):
        reading.read_parquet(tmp_path / "x.parquet", KINDS)


def test_a_parquet_file_that_is_damaged_or_too_large_is_a_sentence(tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    TABLE.to_parquet(path, index=False)
    pd.testing.assert_frame_equal(reading.read_parquet(path, KINDS), TABLE)
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:100], whole[:-20], b"\0" * 500, whole[:50] + bytes(200) + whole[250:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is damaged or no Parquet file"):
            reading.read_parquet(path, KINDS)
    pd.concat([TABLE] * 100_000).to_parquet(path, index=False)  # a few kB on disk
    monkeypatch.setenv("AVBENCH_FILE_MEMORY", "10000000")
    with pytest.raises(InputError, match=r"would take 38.4 MB of memory; at most 10.0 MB"):
        reading.read_parquet(path, KINDS)
    with pytest.raises(InputError, match="would take 1,073,741,825 bytes of memory; at most 1,073,741,824 are"):
        files.require_memory(path, 2**30 + 1, 2**30)


def test_tensors_have_their_place_in_the_file(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"a/b": np.arange(3.0)}))
    np.testing.assert_array_equal(reading.read_tensors(path)["a/b"], np.arange(3.0))

    def header(plain):
        content = plain if isinstance(plain, bytes) else json.dumps(plain).encode()
        return struct.pack("<Q", len(content)) + content

    lie = {"a": {"dtype": "F32", "shape": [10**12, 10**5], "data_offsets": [0, 4]}}
    for content, words in (
        (b"", "it is cut short"),
        (b"x", "it is cut short"),
        (struct.pack("<Q", 2**60), "its header would be longer than"),
        (struct.pack("<Q", 50) + b"{", "it is cut short"),
        (header([]), r"its header: the whole is \[\]"),
        (header(b"[" * 100_000), "its header: .*nested more than 100 deep"),
        (header(lie) + bytes(4), "is damaged or no safetensors file"),
        (header(b'{"a": {"dtype": "F32"}}'), "does not say where each tensor lies"),
        (save({"a": np.zeros(9)})[:-8], "8 bytes are missing: it is cut short"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            reading.read_tensors(path)


def gguf(*fields, tensors=0, version=3, count=None):
    head = struct.pack("<4sIQQ", b"GGUF", version, tensors, len(fields) if count is None else count)
    return head + b"".join(struct.pack("<Q", 1) + b"k" + one for one in fields)


TEXT, ARRAY, U8, F32 = 8, 9, 0, 6


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gguf(count=2**60), "fields; at most"),
        (gguf(tensors=2**60), "tensors; at most"),
        (gguf(struct.pack("<IIQ", ARRAY, U8, 2**60)), "items in one field"),
        (gguf(struct.pack("<IIQ", ARRAY, F32, 9_000_000)), "36,000,000 bytes long, which is beyond the end"),
        (gguf(struct.pack("<IIQ", ARRAY, TEXT, 9_000_000)), "cut short"),
        (gguf(struct.pack("<IIQ", ARRAY, ARRAY, 9)), "type 9"),
        (gguf(struct.pack("<IQ", TEXT, 2**63)), "beyond the end of the file"),
        (gguf(struct.pack("<I", 77)), "type 77"),
        (gguf(version=77), "version is 77"),
        (gguf(tensors=1), "cut short"),
        (gguf(tensors=1) + struct.pack("<QcIQIQ", 1, b"t", 1, 4, F32, 64), "its last tensor would begin beyond"),
        (b"GGUF", "cut short"),
        (b"", "does not begin with GGUF"),
        (struct.pack("<Q", 2) + b"{}", "it is a safetensors file; rename it to end in .safetensors"),
    ],
)
def test_the_head_of_a_gguf_is_looked_through_first(tmp_path, content, words):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        detect(path)
    text = struct.pack("<IQ", TEXT, 2) + b"ab"
    path.write_bytes(
        gguf(text, struct.pack("<IIQ", ARRAY, TEXT, 1) + struct.pack("<Q", 1) + b"a", struct.pack("<If", F32, 1))
    )
    assert detect(path).kind == "GGUF"


def test_an_archive_unpacks_inside_its_folder_and_no_more_than_allowed(tmp_path, monkeypatch):
    path = tmp_path / "x.zip"

    def packed(*members, method=zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", method) as file:
            for name, content in members:
                file.writestr(name, content)
        return path

    def any_name(name):
        return name != "no"

    reading.unpack(packed(("a/b", b"1"), ("c", b"2")), tmp_path / "good", any_name)
    assert (tmp_path / "good" / "a" / "b").read_bytes() == b"1"
    for members, words in (
        ([("../../evil", b"x")], "is not a path inside it"),
        ([("/evil", b"x")], "is not a path inside it"),
        ([("..\\evil", b"x")], "is not a path inside it"),
        ([("no", b"x")], "which such a file must not hold"),
        ([("a", b"x"), ("a/b", b"x")], "cannot be unpacked|Not a directory|File exists"),
    ):
        with pytest.raises((InputError, OSError), match=words):
            reading.unpack(packed(*members), tmp_path / "bad", any_name)
    with pytest.warns(UserWarning, match="Duplicate"):
        packed(("a", b"x"), ("a", b"y"))
    with pytest.raises(InputError, match="holds 'a' twice"):
        reading.unpack(path, tmp_path / "bad", any_name)
    path.write_bytes(packed(("no", b"x")).read_bytes().replace(b"no", b"\0o"))  # a name ends at a NUL
    with pytest.raises(InputError, match="holds '', which such a file must not hold"):
        reading.unpack(path, tmp_path / "bad", lambda name: name == "o")
    monkeypatch.setenv("AVBENCH_FILE_MEMORY", "1000000")
    with pytest.raises(InputError, match=r"would take 3.0 MB of memory"):
        reading.unpack(packed(("a", bytes(3_000_000))), tmp_path / "bad", any_name)
    assert not (tmp_path / "evil").exists() and not (tmp_path.parent / "evil").exists()


def test_csv_rows_have_the_cells_of_the_head(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('a,b\n1,"x\ny"\n2\n\n')
    assert list(reading.csv_rows(path, ["a"])) == [{"a": "1", "b": "x\ny"}, {"a": "2", "b": ""}]
    path.write_text("a,b,b\n1,2,3\n")
    assert list(reading.csv_rows(path, ["a"])) == [{"a": "1", "b": "3"}]
    for content, words in (
        *((b"a,b\n1,2,3\n", "line 2 has 3 cells"), (b"", "no column 'a'"), (b"\xff", "not UTF-8")),
        (b"a,b,a\n1,2,3\n", "line 1: the column 'a' occurs twice"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            list(reading.csv_rows(path, ["a"]))
    path.write_text('a,b\n"1,2\n')
    with pytest.raises(InputError, match="line 2"):
        list(reading.csv_rows(path, ["a"]))
