"""Reads JSON, JSON lines with and without checksums, and TOML."""

import json
import math
import re
import tomllib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

from avbench.core import InputError
from avbench.core.text import is_unicode
from avbench.storage.reading.files import decoded, limits, opened, read_bytes, read_text, size_text, unreadable
from avbench.storage.reading.types import shaped

T = TypeVar("T")
_JSON_ERRORS = {
    "Expecting ','": "a comma or a closing bracket is missing",
    "Expecting ':'": "a colon is missing",
    "Expecting value": "a value is missing",
    "Expecting property name": "a name in double quotes is missing",
    "Illegal trailing comma": "a comma stands before a closing bracket",
    "Extra data": "more text follows the end of the value",
    "Unterminated string": "the text that begins there has no closing quote",
    "Invalid control character": "a text holds a line break or another control character",
    "Invalid \\": "a backslash is not followed by what JSON allows",
}
"""How a message of Python's json begins → the same in words."""
_TOO_DEEP = "lists or objects are nested more than {} deep"
REMOVE_LINE = ". Remove the line; the command that wrote it makes it again"
"""Ends the error on a line that is not as it was written."""
_CHECKSUM = re.compile(rb',? ?"crc32": "([0-9a-f]{8})"\}\n?$')
_CHECKSUM_BYTES = len(', "crc32": "01234567"}\n')


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
            raise unreadable(where, sentence)

    text = decoded(content, where)
    try:
        plain = json.loads(text, parse_constant=constant)
    except InputError:
        raise
    except json.JSONDecodeError as error:
        raise unreadable(where, _not_json(error)) from None
    except ValueError:  # a number of thousands of digits
        raise unreadable(where, "a number has too many digits") from None
    except RecursionError:
        raise unreadable(where, _TOO_DEEP.format(limits().depth)) from None
    require_plain(plain, where)
    return plain if shape is None else shaped(text, shape, where, known_only=known_only)


def _not_json(error: json.JSONDecodeError) -> str:
    """Where and why a text is not JSON, in words. A text of one line has no line number: its file may have others."""
    if not error.doc.strip():
        return "it is empty, and must hold JSON"
    line = f"line {error.lineno}, " if "\n" in error.doc.strip() else ""
    why = next((words for begin, words in _JSON_ERRORS.items() if error.msg.startswith(begin)), error.msg.lower())
    return f"not JSON at {line}column {error.colno}: {why}"


def require_plain(value: object, where: str) -> None:
    """Raise InputError if plain values are nested too deep, or contain what JSON or UTF-8 cannot represent."""
    deepest = limits().depth
    todo = [(value, 1)]
    while todo:
        one, depth = todo.pop()
        wrong = None
        if isinstance(one, str):
            wrong = None if one.isascii() or is_unicode(one) else "a text holds half a surrogate pair, no valid UTF-8"
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
            raise unreadable(where, wrong)


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
                msg = f"{path}, line {number} is longer than {size_text(longest)}"
                raise InputError(msg)
            if not line.endswith(b"\n"):  # a kill interrupted the writing of the line, or its end was changed
                if not line.endswith(b"\0") and _CHECKSUM.search(line[:-1]):
                    msg = f"{path}, line {number} was changed after it was written: its end differs"
                    raise InputError(msg)
                return
            yield number, start, without_checksum(line, f"{path}, line {number}")
            start += len(line)


def with_checksum(line: bytes) -> bytes:
    """A JSON object in one line, with the CRC-32 of its bytes as its last field."""
    return line[:-1] + f'{", " * (line != b"{}")}"crc32": "{zlib.crc32(line):08x}"}}'.encode()


def without_checksum(line: bytes, where: str) -> bytes:
    """A line without its last field, which `with_checksum` added.

    Raises InputError if the line has no checksum, or one that the rest of the line does not match.
    """
    found = _CHECKSUM.search(line, max(0, len(line) - _CHECKSUM_BYTES))
    if found is None:
        msg = f"{where} has no checksum (crc32), so it was changed by hand or by another program{REMOVE_LINE}"
        raise InputError(msg)
    plain = line[: found.start()] + b"}"
    if zlib.crc32(plain) != int(found[1], 16):
        msg = f"{where} was changed after it was written: its checksum does not match{REMOVE_LINE}"
        raise InputError(msg)
    return plain


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file as plain values. Dates are refused, because JSON has none."""
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
    return plain
