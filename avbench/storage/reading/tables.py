"""Reads CSV and Parquet."""

import csv
import io
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.core import InputError, first_line

if TYPE_CHECKING:
    import pandas as pd
from avbench.storage.reading.files import opened, read_text, require_memory

_CSV_ERRORS = {
    "unexpected end of data": "a text in quotes has no closing quote",
    "expected after": "text follows a closing quote; inside a text in quotes, double every quote",
}
"""A part of a message of Python's csv → the same in words."""
_WORDS = {str: "texts", int: "whole numbers", float: "numbers"}


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
        msg = f"{path}, line {reader.line_num}: {csv_problem(error)}"
        raise InputError(msg) from None


def csv_problem(error: csv.Error) -> str:
    """What is wrong with a CSV file, in words."""
    return next((words for part, words in _CSV_ERRORS.items() if part in str(error)), str(error))


def csv_head(path: Path) -> list[str]:
    """Return the names in the first row of a CSV file; none for an empty file."""
    return next((row for _, row in csv_lines(path)), [])


def csv_rows(path: Path, needed: Collection[str] = ()) -> Iterator[dict[str, str]]:
    """Yield what `numbered_csv_rows` yields, without the numbers of lines."""
    return (row for _, row in numbered_csv_rows(path, needed))


def numbered_csv_rows(path: Path, needed: Collection[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a CSV file with a header row: the number of a row's last line, and column name → cell.

    A short row is filled with empty cells.

    Raises:
        InputError: it is not UTF-8 or not CSV, lacks a column of `needed` or has it twice, or a row has more cells than
            the header.
    """
    lines = csv_lines(path)
    _, head = next(lines, (0, []))
    if missing := [name for name in needed if name not in head]:
        has = f"it has {', '.join(head[:20])}" if head else "it is empty"
        msg = f"{path}, line 1 has no column {missing[0]!r}; {has}"
        raise InputError(msg)
    if twice := [name for name in needed if head.count(name) > 1]:
        msg = f"{path}, line 1: the column {twice[0]!r} occurs twice; rename or remove one of the two"
        raise InputError(msg)
    for number, row in lines:
        if len(row) > len(head):
            msg = f"{path}, line {number} has {len(row)} cells where the head has {len(head)}"
            raise InputError(msg)
        if row:
            yield number, dict(itertools.zip_longest(head, row, fillvalue=""))


def read_parquet(path: Path, kinds: Mapping[str, type], numbers: Sequence[str] = ()) -> "pd.DataFrame":
    """Read columns of a Parquet file.

    Args:
        path: the file.
        kinds: names of columns → str, int or float.
        numbers: further columns of floats, which an older file may lack: they are NaN there.

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
            kinds = {**kinds, **{name: float for name in numbers if name in known.schema_arrow.names}}
            table = known.read(columns=list(kinds))
            for name, kind in kinds.items():
                _require_column(path, table.schema.field(name).type, table[name].null_count, name, kind, rows)
            return table.to_pandas().assign(**{name: math.nan for name in numbers if name not in kinds})
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
