"""Reads safetensors and .npz, and checks GGUF files before another library opens them."""

import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from avbench.core import InputError, first_line

if TYPE_CHECKING:
    import numpy as np
from avbench.storage.reading.archives import opened_zip
from avbench.storage.reading.files import limits, opened, require_memory, size_text
from avbench.storage.reading.text import parsed

_GGUF_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_GGUF_TEXT, _GGUF_ARRAY = 8, 9


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
            why = f"its header would be longer than {size_text(limits().header_bytes)}" if longer else "it is cut short"
            msg = f"{path} is no safetensors file: {_instead(start) or why}"
            raise InputError(msg)
        content = file.read(length)
    try:
        names = parsed(content, "", dict)
        ends = [one["data_offsets"][1] for name, one in names.items() if name != "__metadata__"]
        missing = 8 + length + max(ends, default=0) - size
    except InputError as error:
        msg = f"{path} is no safetensors file: its header: {error}"
        raise InputError(msg) from None
    except (LookupError, TypeError):
        msg = f"{path} is no safetensors file: its header does not say where each tensor lies"
        raise InputError(msg) from None
    if missing:
        what = "are missing: it is cut short" if missing > 0 else "follow its last tensor"
        msg = f"{path} is damaged: {abs(missing):,} bytes {what}"
        raise InputError(msg)
    return names


def _instead(start: bytes) -> str | None:
    """What a file of weights holds instead, by its first bytes; None if they do not tell."""
    known = {
        b"version ": "it is a pointer of Git LFS, not the file itself; `git lfs pull` fetches it",
        b"GGUF": "it is a GGUF file; rename it to end in .gguf",
        b"PK\x03\x04": "it is a zip archive or a pickle of torch",
        b"<": "it is a web page",
    }
    return next((what for begin, what in known.items() if start.startswith(begin)), None)


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
    with opened(path) as file, opened_zip(path, file) as packed:
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

    start = file.read(9)
    if not start.startswith(b"GGUF"):
        safe = "it is a safetensors file; rename it to end in .safetensors" if start.endswith(b"{") else None
        msg = safe or _instead(start) or "it does not begin with GGUF"
        raise ValueError(msg)
    file.seek(4)
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
    last = 0
    for _ in range(tensors):
        pass_over(number("<Q"))
        sides = number("<I")
        require(sides, 8, "dimensions in one tensor")
        pass_over(8 * sides + 4)
        last = max(last, number("<Q"))
    if tensors and file.tell() + last >= size:
        msg = "it is cut short: its last tensor would begin beyond the end of the file"
        raise ValueError(msg)
