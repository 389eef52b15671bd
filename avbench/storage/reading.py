"""Reads files that somebody else may have written: JSON, TOML, CSV, Parquet, arrays and archives.

Each function takes a path and returns the content, or raises InputError with one sentence that names the file and what
is wrong with it. None runs code from a file, waits for a pipe or a device, or allocates memory before the size was
checked against `Limits`; the environment variable `AVBENCH_FILE_MEMORY` (bytes) changes the limit of memory.

pydantic checks types from the type hints of a dataclass or a TypedDict, strictly: text is never converted to a number
nor a number to text, and unknown fields are refused.
"""

import csv
import functools
import io
import itertools
import json
import math
import os
import re
import stat
import struct
import tomllib
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, overload

from avbench.core import InputError, first_line

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """The largest sizes that one file may have."""

    text_bytes: int = 256 * 2**20
    """Size of a JSON, TOML or text file that is read at once, or of one line of a longer file."""
    memory_bytes: int = 2**30
    """Unpacked size of the arrays or the table in a file."""
    depth: int = 100
    """How deep lists and objects may be nested."""
    header_bytes: int = 100_000_000
    """Size of the header of a safetensors file; safetensors' own readers allow as much."""
    fields: int = 100_000
    """Number of fields in a GGUF file, and of tensors."""
    items: int = 10_000_000
    """Number of items in one field of a GGUF file, because its reader takes them one by one."""


def limits() -> Limits:
    """Return the limits; the environment variable AVBENCH_FILE_MEMORY changes the one of memory.

    Raises:
        InputError: AVBENCH_FILE_MEMORY is not a whole number above 0.
    """
    asked = os.environ.get("AVBENCH_FILE_MEMORY")
    if asked is None:
        return Limits()
    if not asked.isdecimal() or not int(asked):
        msg = f"AVBENCH_FILE_MEMORY is {asked!r}; it must be a whole number of bytes, such as {Limits.memory_bytes}"
        raise InputError(msg)
    return Limits(memory_bytes=int(asked))


def require_memory(path: Path, needed: int, most: int | None = None) -> None:
    """Raise InputError if a file would take more memory than is allowed. Call it before allocating.

    Args:
        path: the file.
        needed: bytes.
        most: bytes; `Limits.memory_bytes` where not given.
    """
    allowed = most if most is not None else limits().memory_bytes
    if needed > allowed:
        hint = "" if most is not None else " (raise the limit with the environment variable AVBENCH_FILE_MEMORY)"
        msg = f"{path} would take {_size(needed)} of memory; at most {_size(allowed)} are allowed{hint}"
        raise InputError(msg)


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


# Files


def opened(path: Path) -> io.BufferedReader:
    """Open an ordinary file for reading bytes. Raises InputError at once on a pipe, a device or a folder."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        msg = f"{path} cannot be read: {_os_reason(error)}"
        raise InputError(msg) from None
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"
        msg = f"{path} is {kind}; an ordinary file is needed here"
        raise InputError(msg)
    return os.fdopen(number, "rb")


def _os_reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or first_line(error)


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """Read an ordinary file. Raises InputError if it has more than `most` bytes (default `Limits.text_bytes`)."""
    most = limits().text_bytes if most is None else most
    with opened(path) as file:
        try:
            content = file.read(most + 1)
        except OSError as error:
            msg = f"{path} cannot be read: {_os_reason(error)}"
            raise InputError(msg) from None
    if len(content) > most:
        msg = f"{path} is larger than {_size(most)}, the most that such a file may have"
        raise InputError(msg)
    return content


def read_text(path: Path, most: int | None = None) -> str:
    """Read a UTF-8 text file, without the byte order mark at its beginning."""
    return decoded(read_bytes(path, most), str(path))


def decoded(content: bytes, where: str) -> str:
    """Decode UTF-8, without the byte order mark at its beginning. Raises InputError on other bytes."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        sentence = f"not UTF-8: byte {error.start + 1} is {error.object[error.start]:#04x}"
        raise _wrong(where, sentence) from None


def _wrong(where: str, sentence: str) -> InputError:
    """Build the error. `where` is empty if the caller adds the file's name itself."""
    return InputError(f"{where}: {sentence}" if where else sentence)


def inside(folder: Path, name: str) -> Path:
    """Return the path of `name` inside `folder`. Raises InputError if it is absolute or contains ``..``.

    Links are checked by `require_no_way_out`.
    """
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or "\0" in name or "\\" in name:
        msg = f"{folder}: {name!r} is not a path inside it"
        raise InputError(msg)
    return folder / pure


def require_no_way_out(folder: Path, skip: Container[str] = ()) -> None:
    """Raise InputError if `folder` contains a link that leads out of it, or anything but files and folders.

    Args:
        folder: a folder that may come from somebody else.
        skip: names of folders directly in it that are not checked inside.
    """
    root = folder.resolve()
    todo = [folder]
    while todo:
        place = todo.pop()
        try:
            entries = list(os.scandir(place))
        except OSError as error:
            msg = f"{place} cannot be read: {_os_reason(error)}"
            raise InputError(msg) from None
        for entry in entries:
            if entry.is_symlink():
                if not Path(entry.path).resolve().is_relative_to(root):
                    msg = f"{entry.path} is a link to a place outside {folder}; nothing is read or written there"
                    raise InputError(msg)
            elif entry.is_dir():
                if place != folder or entry.name not in skip:
                    todo.append(Path(entry.path))
            elif not entry.is_file():
                msg = f"{entry.path} is neither a file nor a folder; remove it"
                raise InputError(msg)


# JSON and TOML


@overload
def read_json(path: Path) -> Any: ...
@overload
def read_json(path: Path, shape: type[T], *, known_only: bool = ...) -> T: ...
def read_json(path: Path, shape: type | None = None, *, known_only: bool = True) -> Any:
    """Read a JSON file as plain values, or as a `shape` (see `parsed`)."""
    return parsed(read_bytes(path), str(path), shape, known_only=known_only)


def parsed(
    content: bytes, where: str, shape: type | None = None, *, known_only: bool = True, nan_as_none: bool = False
) -> Any:
    """Parse JSON bytes to plain values, or to a `shape`: a dataclass, a TypedDict or another type with hints.

    Args:
        content: UTF-8, with or without a byte order mark.
        where: the file, and the line if there are several, for the error message; empty if the caller adds it.
        shape: the type that the content must have.
        known_only: refuse fields that the shape does not have; otherwise they are dropped.
        nan_as_none: read NaN as None, because pandas writes missing values so; otherwise NaN is refused.

    Raises:
        InputError: it is not JSON, is nested deeper than `Limits.depth`, holds NaN, infinity, a whole number of more
            than 64 bits or half a surrogate pair, or does not have the shape.
    """

    def constant(name: str) -> None:
        if not nan_as_none or name != "NaN":
            sentence = f"{name} is no JSON value; write null, or leave the field out"
            raise _wrong(where, sentence)

    text = decoded(content, where)
    try:
        plain = json.loads(text, parse_constant=constant)
    except InputError:
        raise
    except ValueError as error:  # invalid JSON, or a number of thousands of digits
        raise _wrong(where, "a number has too many digits" if "digits" in str(error) else str(error)) from None
    except RecursionError:
        raise _wrong(where, _TOO_DEEP.format(limits().depth)) from None
    require_plain(plain, where)
    return plain if shape is None else shaped(text, shape, where, known_only=known_only)


_TOO_DEEP = "lists or objects are nested more than {} deep"


def require_plain(value: object, where: str) -> None:
    """Raise InputError if plain values are nested too deep, or contain what JSON or UTF-8 cannot represent."""
    deepest = limits().depth
    todo = [(value, 1)]
    while todo:
        one, depth = todo.pop()
        wrong = None
        if isinstance(one, str):
            wrong = None if one.isascii() or _encodes(one) else "a text holds half a surrogate pair, no valid UTF-8"
        elif isinstance(one, bool) or one is None:
            continue
        elif isinstance(one, float):
            wrong = None if math.isfinite(one) else f"{one} is not a finite number"
        elif isinstance(one, int):
            wrong = None if one.bit_length() < 64 else "a whole number has more than 64 bits"
        elif depth > deepest:
            wrong = _TOO_DEEP.format(deepest)
        elif isinstance(one, Mapping):
            todo += [(inner, depth + 1) for pair in one.items() for inner in pair]
        elif isinstance(one, list):
            todo += [(inner, depth + 1) for inner in one]
        else:
            wrong = f"{one} is a {type(one).__name__}; write it as a text"
        if wrong:
            raise _wrong(where, wrong)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_lines(path: Path, shape: type | None = None) -> list[Any]:
    """Read a file of JSON lines; an incomplete last line is dropped, and a missing file has none.

    Args:
        path: the file.
        shape: the type of each line (see `parsed`).

    Raises:
        InputError: a complete line is wrong; the message gives its number.
    """
    return list(stream_lines(path, shape))


def stream_lines(path: Path, shape: type | None = None) -> Iterator[Any]:
    """Yield what `read_lines` returns, with one line in memory at a time."""
    for number, _, line in raw_lines(path):
        yield parsed(line, f"{path}, line {number}", shape)


def raw_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield each complete line of a file: its number, from 1; its offset in bytes; its bytes without the checksum.

    Raises InputError if a line was changed after it was written.
    """
    if not path.exists() and not path.is_symlink():
        return
    longest = limits().text_bytes
    with opened(path) as file:
        start = 0
        for number, line in enumerate(iter(lambda: file.readline(longest + 1), b""), start=1):
            if len(line) > longest:
                msg = f"{path}, line {number} is longer than {_size(longest)}"
                raise InputError(msg)
            if not line.endswith(b"\n"):  # a kill interrupted the writing of the line, or its end was changed
                if not line.endswith(b"\0") and _CHECKSUM.search(line[:-1]):
                    msg = f"{path}, line {number} was changed after it was written: its end differs"
                    raise InputError(msg)
                return
            yield number, start, without_checksum(line, f"{path}, line {number}")
            start += len(line)


_CHECKSUM = re.compile(rb',? ?"crc32": "([0-9a-f]{8})"\}\n?$')

_CHECKSUM_BYTES = len(', "crc32": "01234567"}\n')


def with_checksum(line: bytes) -> bytes:
    """A JSON object in one line, with the CRC-32 of its bytes as its last field."""
    return line[:-1] + f'{", " * (line != b"{}")}"crc32": "{zlib.crc32(line):08x}"}}'.encode()


def without_checksum(line: bytes, where: str) -> bytes:
    """A line without its last field, which `with_checksum` added; older lines have none.

    Raises InputError if the rest of the line does not match the checksum.
    """
    found = _CHECKSUM.search(line, max(0, len(line) - _CHECKSUM_BYTES))
    if found is None:
        return line
    plain = line[: found.start()] + b"}"
    if zlib.crc32(plain) != int(found[1], 16):
        msg = (
            f"{where} was changed after it was written: its checksum does not match. Remove the line; the command "
            "that wrote it makes it again"
        )
        raise InputError(msg)
    return plain


@overload
def read_toml(path: Path) -> dict[str, Any]: ...
@overload
def read_toml(path: Path, shape: type[T]) -> T: ...
def read_toml(path: Path, shape: type | None = None) -> Any:
    """Read a TOML file as plain values, or as a `shape` (see `parsed`). Dates are refused, because JSON has none."""
    text = read_text(path)
    try:
        plain = tomllib.loads(text)
        require_plain(plain, str(path))
    except InputError:
        raise
    except ValueError as error:
        msg = f"{path}: {error}"
        raise InputError(msg) from None
    except RecursionError:
        msg = f"{path}: {_TOO_DEEP.format(limits().depth)}"
        raise InputError(msg) from None
    return plain if shape is None else shaped(json.dumps(plain), shape, str(path))


# Types


def shaped(content: str | bytes, shape: type[T], where: str, *, known_only: bool = True) -> T:
    """Convert JSON to a `shape`. Raises InputError naming the first field that is missing, unknown or of a wrong type.

    The content must already be known to be plain JSON; `parsed` checks that first.
    """
    from pydantic import ValidationError

    try:
        return _adapter(shape).validate_json(content, strict=True, extra="forbid" if known_only else "ignore")
    except ValidationError as error:
        raise _wrong(where, _reason(error)) from None


@functools.cache
def _adapter(shape: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(shape)


_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "mapping_type": "an object",
    "dataclass_type": "an object",
    "model_type": "an object",
}


def _reason(error: Any) -> str:
    """Describe the first error in words."""
    first = error.errors(include_url=False, include_context=True)[0]
    kind, place = first["type"], [str(part) for part in first["loc"]]
    name = ".".join(place)
    if kind == "value_error":  # an InputError's own sentence
        sentence = str(first["ctx"]["error"])
        return f"{name}: {sentence}" if name else sentence
    if kind == "missing":
        return f"the field {name!r} is missing"
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"the field {name!r} is unknown; a later version of avbench may have written it"
    shown = f"{name} is" if name else "the whole is"
    found = repr(first["input"])
    rule = f"it must be {_KINDS[kind]}" if kind in _KINDS else first["msg"].replace("Input should", "it should")
    return f"{shown} {found[:80]}{'…' if len(found) > 80 else ''}; {rule}"


# Tables


def csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV file, each as the number of its last line and its cells.

    Raises:
        InputError: it is not UTF-8 or not CSV.
    """
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        msg = f"{path}, line {reader.line_num}: {error}"
        raise InputError(msg) from None


def csv_head(path: Path) -> list[str]:
    """Return the names in the first row of a CSV file; none for an empty file."""
    return next((row for _, row in csv_lines(path)), [])


def csv_rows(path: Path, needed: Iterable[str] = ()) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file with a header row, as column name → cell. A short row is filled with empty cells.

    Raises:
        InputError: it is not UTF-8 or not CSV, lacks a column of `needed`, or a row has more cells than the header.
    """
    lines = csv_lines(path)
    _, head = next(lines, (0, []))
    if missing := [name for name in needed if name not in head]:
        msg = f"{path} has no column {missing[0]!r}; it has {', '.join(head[:20]) or 'none'}"
        raise InputError(msg)
    for number, row in lines:
        if len(row) > len(head):
            msg = f"{path}, line {number} has {len(row)} cells where the head has {len(head)}"
            raise InputError(msg)
        if row:
            yield dict(itertools.zip_longest(head, row, fillvalue=""))


def read_parquet(path: Path, kinds: Mapping[str, type]) -> "pd.DataFrame":
    """Read columns of a Parquet file; `kinds` maps their names to str, int or float.

    Raises:
        InputError: the file is missing, damaged or larger than `Limits.memory_bytes` when unpacked; a column is missing
            or has another type; or a column of text or whole numbers has missing values.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with opened(path) as file:
        try:
            known = pq.ParquetFile(file)
            rows = known.metadata.num_rows
            require_memory(path, rows * len(kinds) * 64)
            if missing := [name for name in kinds if name not in known.schema_arrow.names]:
                msg = (
                    f"{path} has no column {missing[0]!r}; it has {', '.join(known.schema_arrow.names[:20]) or 'none'}"
                )
                raise InputError(msg)
            table = known.read(columns=list(kinds))
            for name, kind in kinds.items():
                _require_column(path, table.schema.field(name).type, table[name].null_count, name, kind, rows)
            return table.to_pandas()
        except InputError:
            raise
        # pyarrow and pandas raise any of these on a damaged file
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError) as error:
            msg = f"{path} is damaged or no Parquet file: {first_line(error)}"
            raise InputError(msg) from None


def _require_column(path: Path, found: Any, gaps: int, name: str, kind: type, rows: int) -> None:
    import pyarrow.types as pt

    checks: dict[type, tuple[Callable[[Any], bool], ...]] = {
        str: (pt.is_string, pt.is_large_string, pt.is_string_view),
        int: (pt.is_integer,),
        float: (pt.is_floating,),
    }
    if rows and not any(check(found) for check in checks[kind]):  # an empty table has no types
        msg = f"{path}: the column {name!r} is of {found}; it must be of {_WORDS[kind]}"
        raise InputError(msg)
    if gaps and kind is not float:
        msg = f"{path}: the column {name!r} has missing values"
        raise InputError(msg)


_WORDS = {str: "texts", int: "whole numbers", float: "numbers"}


# Arrays


def tensor_header(path: Path) -> dict[str, Any]:
    """Read the header of a safetensors file: tensor name → dtype, shape and data_offsets, and ``__metadata__``.

    Raises:
        InputError: it is not a safetensors file, or its header is longer than `Limits.header_bytes`.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else None
        if length is None or length > min(size - 8, limits().header_bytes):
            longer = length is not None and length > limits().header_bytes
            why = f"its header would be longer than {_size(limits().header_bytes)}" if longer else "it is cut short"
            msg = f"{path} is no safetensors file: {why}"
            raise InputError(msg)
        content = file.read(length)
    try:
        return parsed(content, "", dict)
    except InputError as error:
        msg = f"{path} is no safetensors file: its header: {error}"
        raise InputError(msg) from None


def read_tensors(path: Path) -> "dict[str, np.ndarray]":
    """Read the arrays of a safetensors file.

    Raises:
        InputError: the file is missing, damaged, larger than `Limits.memory_bytes`, or holds a type that numpy lacks.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    tensor_header(path)
    with opened(path) as file:
        require_memory(path, os.fstat(file.fileno()).st_size)
        try:
            return load(file.read())
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
            msg = f"{path} is damaged or no safetensors file: {first_line(error)}"
            raise InputError(msg) from None


def read_npz(path: Path, names: Sequence[str], most: int | None = None) -> "dict[str, np.ndarray]":
    """Read the named arrays of real numbers of an .npz file. The sizes in their headers are checked first.

    Args:
        path: the file.
        names: the arrays, without ``.npy``.
        most: bytes of memory for all of them; `Limits.memory_bytes` where not given.

    Raises:
        InputError: the file is damaged, or an array is missing, not of real numbers, too large, or shorter than its
            header says.
    """
    found = {}
    with opened(path) as file, _zip(path, file) as packed:
        members = {one.filename.removesuffix(".npy"): one for one in packed.infolist()}
        if missing := [name for name in names if name not in members]:
            msg = f"{path} has no array {missing[0]!r}; it has {', '.join(sorted(members)[:20]) or 'none'}"
            raise InputError(msg)
        require_memory(path, sum(members[name].file_size for name in names), most)
        for name in names:
            try:
                with packed.open(members[name]) as stream:
                    found[name] = _npy(stream, members[name].file_size)
            except Exception as error:  # numpy reads headers with Python's parser, which may raise anything
                msg = f"{path} cannot be read as an .npz of arrays: {name}: {first_line(error)}"
                raise InputError(msg) from None
    return found


_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError)
"""Exceptions that zipfile raises on damaged and encrypted files, and on compression methods that it lacks."""


def _zip(path: Path, file: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except _ZIP_ERRORS as error:
        msg = f"{path} is damaged or no zip file: {first_line(error)}"
        raise InputError(msg) from None


def require_zip_memory(path: Path, most: int | None = None) -> None:
    """Raise InputError if a zip file, such as a PyTorch checkpoint, would take too much memory when unpacked."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if _is_zip(file):
            with _zip(path, file) as packed:
                size = sum(one.file_size for one in packed.infolist())
    require_memory(path, size, most)


def _is_zip(file: BinaryIO) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:  # it has the end of a zip, with wrong numbers in it
        return True


def _npy(stream: Any, size: int) -> "np.ndarray":
    """Read an array of `size` bytes in numpy's .npy format. Raises ValueError if it is not one."""
    import numpy as np
    from numpy.lib import format as npy

    major, _ = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream, max_header_size=10_000)
    if dtype.kind not in "fiub":
        msg = f"its type is {dtype}; it must be of real numbers"
        raise ValueError(msg)
    count = math.prod(shape)
    if any(side < 0 for side in shape) or count * dtype.itemsize > size:
        msg = f"its shape {shape} does not fit the bytes that it holds"
        raise ValueError(msg)
    content = stream.read(count * dtype.itemsize)
    stream.read(1)  # at its end zipfile compares the checksum
    flat = np.frombuffer(content, dtype=dtype, count=count)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def require_gguf(path: Path) -> None:
    """Check the header of a GGUF file as its reader would read it, without allocating memory.

    Raises:
        InputError: a field or tensor would reach beyond the end of the file, or there are more than `Limits.fields`.
    """
    with opened(path) as file:
        try:
            _walk_gguf(file, os.fstat(file.fileno()).st_size)
        except (struct.error, ValueError) as error:
            reason = "it is cut short" if isinstance(error, struct.error) else error
            msg = f"{path} cannot be read as a GGUF file: {reason}"
            raise InputError(msg) from None


_GGUF_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_GGUF_TEXT, _GGUF_ARRAY = 8, 9


def _walk_gguf(file: BinaryIO, size: int) -> None:
    def number(form: str) -> int:
        return struct.unpack(form, file.read(struct.calcsize(form)))[0]

    def pass_over(length: int) -> None:
        if length > size - file.tell():
            msg = f"an entry would be {length:,} bytes long, which is beyond the end of the file"
            raise ValueError(msg)
        file.seek(length, os.SEEK_CUR)

    def require(found: int, most: int, what: str) -> None:
        if found > most:
            msg = f"it claims {found:,} {what}; at most {most:,} are read"
            raise ValueError(msg)

    if file.read(4) != b"GGUF":
        msg = "it does not begin with GGUF"
        raise ValueError(msg)
    if (version := number("<I")) not in (2, 3):
        msg = f"its version is {version}; versions 2 and 3 are read"
        raise ValueError(msg)
    tensors, fields = number("<Q"), number("<Q")
    require(tensors, limits().fields, "tensors")
    require(fields, limits().fields, "fields")
    for _ in range(fields):
        pass_over(number("<Q"))
        kind, count = number("<I"), 1
        if kind == _GGUF_ARRAY:
            kind, count = number("<I"), number("<Q")
            require(count, limits().items, "items in one field")
        if kind == _GGUF_TEXT:
            for _ in range(count):
                pass_over(number("<Q"))
        elif kind in _GGUF_BYTES:
            pass_over(_GGUF_BYTES[kind] * count)
        else:
            msg = f"a field has the type {kind}; types 0 to 12 are read"
            raise ValueError(msg)
    for _ in range(tensors):
        pass_over(number("<Q"))
        sides = number("<I")
        require(sides, 8, "dimensions in one tensor")
        pass_over(8 * sides + 4 + 8)


# Archives


def unpack(path: Path, target: Path, allowed: Callable[[str], bool]) -> None:
    """Unpack a zip file into the new folder `target`.

    Args:
        path: the archive.
        target: the folder to make.
        allowed: tells whether the archive may contain a file of this name.

    Raises:
        InputError: the archive is damaged; a name leads out of `target`, occurs twice or is not allowed; or the archive
            would take more than `Limits.memory_bytes`, or one file more than `Limits.text_bytes`.
    """
    with opened(path) as file, _zip(path, file) as packed:
        members = [one for one in packed.infolist() if not one.is_dir()]
        for name, count in Counter(one.filename for one in members).items():
            if count > 1 or not allowed(name):
                msg = f"{path} holds {name[:100]!r}{' twice' if count > 1 else ', which such a file must not hold'}"
                raise InputError(msg)
        require_memory(path, sum(one.file_size for one in members))
        for one in members:
            require_memory(path, one.file_size, limits().text_bytes)
            place = inside(target, one.filename)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(packed.read(one))
            except _ZIP_ERRORS as error:
                msg = f"{path}: {one.filename} cannot be unpacked: {first_line(error)}"
                raise InputError(msg) from None
