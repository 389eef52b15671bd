"""Defines avbench's basic types: frozen dataclasses that check their fields when built, without I/O or networks."""

from avbench.core.clip import Audio, Clip, ClipSpec, frame_rate
from avbench.core.errors import (
    InputError,
    MediaError,
    NotMeasurable,
    Refused,
    UnusableError,
    first_line,
    if_missing,
    masked,
    nearest,
)
from avbench.core.prompt import Prompt, Subset, checked_id
from avbench.core.protocol import (
    OTHER_CONTENT,
    Notes,
    Protocol,
    different_fields,
    digest,
    field_differences,
    field_in_words,
    is_sha256,
    noted,
    require_same_protocol,
    without_notes,
)
from avbench.core.rows import Columns, Key, Moments, Row, Value, clip_name, columns, require_ids
from avbench.core.run import Run, Sample, by_content
from avbench.core.score import Direction, Null, Score
from avbench.core.shard import Shard, dealt_prompts, planned_keys
from avbench.core.table import resolve
from avbench.core.text import all_of, counted, csv_text, listed, one_line, spreadsheet_cell, visible

__all__ = [
    "OTHER_CONTENT",
    "Audio",
    "Clip",
    "ClipSpec",
    "Columns",
    "Direction",
    "InputError",
    "Key",
    "MediaError",
    "Moments",
    "NotMeasurable",
    "Notes",
    "Null",
    "Prompt",
    "Protocol",
    "Refused",
    "Row",
    "Run",
    "Sample",
    "Score",
    "Shard",
    "Subset",
    "UnusableError",
    "Value",
    "all_of",
    "by_content",
    "checked_id",
    "clip_name",
    "columns",
    "counted",
    "csv_text",
    "dealt_prompts",
    "different_fields",
    "digest",
    "field_differences",
    "field_in_words",
    "first_line",
    "frame_rate",
    "if_missing",
    "is_sha256",
    "listed",
    "masked",
    "nearest",
    "noted",
    "one_line",
    "planned_keys",
    "require_ids",
    "require_same_protocol",
    "resolve",
    "spreadsheet_cell",
    "visible",
    "without_notes",
]
