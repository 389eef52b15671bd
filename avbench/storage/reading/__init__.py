"""Reads files that somebody else may have written: JSON, TOML, CSV, Parquet, arrays and archives.

Each function takes a path and returns the content, or raises InputError with one sentence that names the file and what
is wrong with it. None runs code from a file, waits for a pipe or a device, or allocates memory before the size was
checked against `Limits`; the environment variable `AVBENCH_FILE_MEMORY` (bytes) changes the limit of memory.

pydantic checks types from the type hints of a dataclass or a TypedDict, strictly: text is never converted to a number
nor a number to text, and unknown fields are refused.
"""

from avbench.storage.reading.archives import require_zip_memory, unpack
from avbench.storage.reading.arrays import read_npz, read_tensors, require_gguf, tensor_header
from avbench.storage.reading.files import (
    Limits,
    decoded,
    exists,
    expanded,
    file_sha256,
    inside,
    limits,
    naming,
    opened,
    read_bytes,
    read_text,
    require_memory,
    require_no_way_out,
    text_lines,
)
from avbench.storage.reading.tables import csv_head, csv_lines, csv_problem, csv_rows, numbered_csv_rows, read_parquet
from avbench.storage.reading.text import (
    REMOVE_LINE,
    parsed,
    raw_lines,
    read_json,
    read_lines,
    read_toml,
    stream_lines,
    with_checksum,
    without_checksum,
)
from avbench.storage.reading.types import shaped_plain

__all__ = [
    "REMOVE_LINE",
    "Limits",
    "csv_head",
    "csv_lines",
    "csv_problem",
    "csv_rows",
    "decoded",
    "exists",
    "expanded",
    "file_sha256",
    "inside",
    "limits",
    "naming",
    "numbered_csv_rows",
    "opened",
    "parsed",
    "raw_lines",
    "read_bytes",
    "read_json",
    "read_lines",
    "read_npz",
    "read_parquet",
    "read_tensors",
    "read_text",
    "read_toml",
    "require_gguf",
    "require_memory",
    "require_no_way_out",
    "require_zip_memory",
    "shaped_plain",
    "stream_lines",
    "tensor_header",
    "text_lines",
    "unpack",
    "with_checksum",
    "without_checksum",
]
