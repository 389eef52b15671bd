"""Converts rows to the lines of a rows.jsonl and back; arrays become base64."""

import base64
import binascii
import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from avbench.core import InputError, Key, Row, Value, digest, require_ids
from avbench.storage import reading

_ARRAYS = {np.dtype(name).name for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")}
"""Types of array that a row's value may have."""


@dataclass(frozen=True)
class RowLine:
    """A line of rows.jsonl whose values are still plain JSON."""

    key: Key
    clip_sha256: str
    values: Mapping[str, Any] | None
    missing: str | None = None
    gpu: str | None = None


@dataclass(frozen=True)
class _PackedArray:
    """An array in a line of rows.jsonl."""

    dtype: str
    shape: tuple[int, ...]
    base64: str


@dataclass(frozen=True)
class StoredRow:
    """The position of a row's line, and the row without its values."""

    path: Path
    number: int
    """Number of the line, from 1."""
    start: int
    """Offset of the line in bytes."""
    clip_sha256: str
    missing: str | None

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.path}, line {self.number}"

    def line(self, file: BinaryIO) -> bytes:
        """The line, without its checksum, of the opened file."""
        file.seek(self.start)
        return reading.without_checksum(file.readline(), self.where)


def stored_rows(path: Path) -> dict[Key, StoredRow]:
    """Find the last row of each key in a rows.jsonl; no values are kept in memory."""
    found = {}
    for number, start, line in reading.raw_lines(path):
        row = reading.parsed(line, f"{path}, line {number}", RowLine)
        found[row.key] = StoredRow(path, number, start, row.clip_sha256, row.missing)
    return found


def digest_of_rows(path: Path) -> str:
    """sha256 of the last line of each key in a rows.jsonl, whatever the order in which they were measured."""
    last: dict[bytes, str] = {}
    for _, _, line in reading.raw_lines(path):
        last[line.partition(b'"clip_sha256"')[0]] = hashlib.sha256(line).hexdigest()
    return digest(sorted(last.values()))


def row_to_json(row: Row) -> dict[str, Any]:
    """A row as plain JSON, a line of rows.jsonl."""
    values = None if row.values is None else values_to_json(row.values)
    plain = {"key": row.key, "clip_sha256": row.clip_sha256, "values": values, "missing": row.missing}
    return plain if row.gpu is None else {**plain, "gpu": row.gpu}


def row_of(path: Path, line: RowLine, names: Collection[str] | None = None) -> Row:
    """Convert a line to a row of these values, or of all. Raises InputError on values that a row cannot have."""
    with reading.naming(path):
        require_ids(line.key)
    where = f"{path}: {'/'.join(map(str, line.key))}"
    values = line.values
    if values is not None and names is not None:
        values = {name: value for name, value in values.items() if name in names}
    values = None if values is None else values_from_json(values, where)
    with reading.naming(path):
        row = Row(line.key, line.clip_sha256, values, line.missing, line.gpu)
    return row


def values_to_json(values: Mapping[str, Value]) -> dict[str, Any]:
    """The values of a row as plain JSON: floats, and arrays in base64."""
    return {name: _value_to_json(value) for name, value in values.items()}


def values_from_json(plain: Mapping[str, Any], where: str) -> dict[str, Value]:
    """What `values_to_json` made. Raises InputError, beginning with `where`, on anything else."""
    return {name: _value_from_json(value, f"{where}: {name}") for name, value in plain.items()}


def _value_to_json(value: Value) -> Any:
    if not isinstance(value, np.ndarray):
        return float(value)
    plain = np.ascontiguousarray(value)
    return {"dtype": str(plain.dtype), "shape": plain.shape, "base64": base64.b64encode(plain.tobytes()).decode()}


def _value_from_json(plain: Any, where: str) -> Value:
    if isinstance(plain, float):
        return plain
    packed = reading.shaped_plain(plain, _PackedArray, where)
    try:
        content = base64.b64decode(packed.base64, validate=True)
    except (binascii.Error, ValueError) as error:
        msg = f"{where} is not base64: {error}"
        raise InputError(msg) from None
    if packed.dtype not in _ARRAYS:
        msg = f"{where} is an array of {packed.dtype!r}; the type must be one of {', '.join(sorted(_ARRAYS))}"
        raise InputError(msg)
    dtype, shape = np.dtype(packed.dtype), packed.shape
    if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != len(content):
        msg = f"{where} has {len(content)} bytes, which do not fit a {packed.dtype} array of shape {list(shape)}"
        raise InputError(msg)
    return np.frombuffer(content, dtype=dtype).reshape(shape)
