"""Reads prompts files: .jsonl, .json, .csv, .txt and .parquet, each with or without a byte order mark.

A prompt has a video caption (the field may also be called prompt, caption or text), optionally an audio caption (or
audio_prompt), an id, tags and a reference_clip; other fields become tags. A .json file is a list of such objects or of
strings. A .csv file has a header or one column; a .txt file has one prompt per line. If no prompt of a file has an id,
they are called p0001, p0002 …, in order. They are not called by numbers alone, because clips in another order might
have such names.
"""

import codecs
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from avbench.core import InputError, Prompt, counted, first_line, nearest
from avbench.storage.media.clip_files import FILE_TAGS, named_file
from avbench.storage.reading import csv_problem, parsed, read_bytes, read_text, require_memory, text_lines

CAPTION_CHARACTERS = 20_000
"""Far above any prompt: a longer text is probably another file in the wrong place."""

_ALIASES = {
    "video_caption": ("video_caption", "prompt", "caption", "text", "prompt_en"),
    "audio_caption": ("audio_caption", "audio_prompt"),
}
_COLUMNS = ("id", *(name for names in _ALIASES.values() for name in names), *FILE_TAGS)


class NoPrompts(InputError):
    """A table has no column of prompts, so it is about something else."""


def read_any(path: Path) -> tuple[Prompt, ...]:
    """Read a prompts file of any form; if it has no ids, they are generated.

    Raises:
        InputError: the form is unknown, or an entry is wrong; the message names file, place and field.
    """
    return _prompts(path, _entries(path))


def read_described(
    path: Path, id_of: Callable[[str], str], *, captions: bool = True
) -> tuple[tuple[Prompt, ...], set[str]]:
    """Read a prompts file, or another table, that describes clips: its entries may lack an id.

    Args:
        path: the file.
        id_of: makes an id of the file that an entry names.
        captions: whether every entry needs a caption.

    Returns:
        The prompts, and the ids of those without a caption, whose caption is the id.

    Raises:
        NoPrompts: it is a table without a column of captions, ids or files.
        InputError: see `read_any`.
    """
    entries, bare = [], set[str]()
    for where, plain in _entries(path):
        known = plain
        if isinstance(plain, Mapping):
            known = {name: value for name, value in plain.items() if value is not None and value != ""}
            if named := named_file(known):
                known.setdefault("id", id_of(named))
            if not captions and "id" in known and not {*_ALIASES["video_caption"]} & {*known}:
                known["video_caption"] = str(known["id"])
                bare.add(known["video_caption"])
        entries.append((where, known))
    return _prompts(path, entries), bare


def _field(name: str) -> str:
    """The name of a field that avbench reads, however its letters are written; another name as it is."""
    return name.lower() if name.lower() in _COLUMNS else name


def _entries(path: Path) -> list[tuple[str, Any]]:
    if path.suffix.lower() not in _READERS:
        msg = f"{path} is no prompts file that avbench reads; {nearest(path.suffix or path.name, _READERS)}"
        raise InputError(msg)
    return [(where, _fields(plain, f"{path}, {where}")) for where, plain in _READERS[path.suffix.lower()](path)]


def _fields(plain: Any, where: str) -> Any:
    """An entry's fields by the names that avbench reads; what is no mapping as it is."""
    if not isinstance(plain, Mapping):
        return plain
    fields = {_field(name): value for name, value in plain.items()}
    if len(fields) < len(plain):
        twice = next(one for one in fields if [*map(_field, plain)].count(one) > 1)
        msg = f"{where}: the field {twice!r} occurs twice, in small and in capital letters; remove one of the two"
        raise InputError(msg)
    return fields


def _prompts(path: Path, entries: Sequence[tuple[str, Any]]) -> tuple[Prompt, ...]:
    without = [where for where, plain in entries if isinstance(plain, Mapping) and plain.get("id") in (None, "")]
    if without and any(isinstance(plain, Mapping) and plain.get("id") not in (None, "") for _, plain in entries):
        msg = f"{path}, {without[0]}: the field 'id' is missing, although other prompts have one"
        raise InputError(msg)
    made_up = [f"p{number:04}" for number in range(1, len(entries) + 1)] if without else [None] * len(entries)
    prompts: dict[str, Prompt] = {}
    places: dict[str, str] = {}
    for (where, plain), identifier in zip(entries, made_up, strict=True):
        try:
            prompt = _prompt({**plain, "id": identifier} if identifier and isinstance(plain, Mapping) else plain)
            if prompt.id in prompts:
                msg = f"the id {prompt.id!r} occurs twice; first in {places[prompt.id]}"
                raise InputError(msg)
        except InputError as error:
            msg = f"{path}, {where}: {error}"
            raise InputError(msg) from None
        prompts[prompt.id], places[prompt.id] = prompt, where
    if not prompts:
        msg = f"{path}: it holds no prompts"
        raise InputError(msg)
    return tuple(prompts.values())


Entries = Iterable[tuple[str, Any]]
"""The place of an entry in its file, and its fields."""


def _of_jsonl(path: Path) -> Entries:
    for number, line in text_lines(path):
        where = f"line {number}"
        yield where, parsed(line.encode(), f"{path}, {where}", nan_as_none=True)


def _of_json(path: Path) -> Entries:
    found = parsed(read_text(path).encode(), str(path), nan_as_none=True)
    if not isinstance(found, list):
        msg = f"{path}: it must be a list of objects or of strings; one object per line is a .jsonl"
        raise InputError(msg)
    for number, plain in enumerate(found, start=1):
        yield f"entry {number}", {"prompt": plain} if isinstance(plain, str) else plain


def _of_txt(path: Path) -> Entries:
    for number, line in text_lines(path):
        yield f"line {number}", {"prompt": line}


def _of_csv(path: Path) -> Entries:
    text = read_text(path)
    first = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    heads: list[str] | None = None
    try:
        for row in rows:
            where = f"line {rows.line_num}"
            if not any(cell.strip() for cell in row) or (heads is None and row[0].strip().lower() == "sep="):
                continue  # an empty line, or the first one of Excel, which names the sign between cells
            if heads is None:
                names = [cell.strip() for cell in row]
                heads = [_field(name) for name in names]
                if {*heads} & {*_COLUMNS}:
                    if twice := [name for name in heads if name and heads.count(name) > 1]:
                        msg = f"{path}, {where}: the column {twice[0]!r} occurs twice; rename or remove one of the two"
                        raise InputError(msg)
                    continue
                if len(heads) > 1:
                    msg = (
                        f"{path}, {where}: no column of prompts among {', '.join(names)}; name one of them "
                        f"{', '.join(_ALIASES['video_caption'])} (text with a comma needs quotes)"
                    )
                    raise NoPrompts(msg)
                heads = ["prompt"]
            if len(row) > len(heads):
                counts = f"{counted(len(row), 'column')} instead of {len(heads)}"
                msg = f"{path}, {where}: {counts} (text with a comma needs quotes)"
                raise InputError(msg)
            yield where, {name: cell for name, cell in zip(heads, row, strict=False) if cell.strip()}
    except csv.Error as error:
        msg = f"{path}, line {rows.line_num}: {csv_problem(error)}"
        raise InputError(msg) from None


def _of_parquet(path: Path) -> Entries:
    import pyarrow
    import pyarrow.parquet

    try:
        known = pyarrow.parquet.ParquetFile(io.BytesIO(read_bytes(path)))
        require_memory(path, known.metadata.num_rows * known.metadata.num_columns * 64)
        rows = known.read().to_pylist()
    except InputError:
        raise
    # pyarrow raises any of these on a damaged file, and on text that is not UTF-8
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        msg = f"{path} is no readable parquet file: {first_line(error)}"
        raise InputError(msg) from None
    for number, plain in enumerate(rows, start=1):
        yield f"row {number}", {name: value for name, value in plain.items() if value is not None}


_READERS = {".jsonl": _of_jsonl, ".json": _of_json, ".csv": _of_csv, ".txt": _of_txt, ".parquet": _of_parquet}


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """Read a prompts.jsonl. Raises InputError with file and line number if anything in it is wrong."""
    prompts = []
    for number, prompt in each_line(path):
        if isinstance(prompt, InputError):
            msg = f"{path}, line {number}: {prompt}"
            raise InputError(msg)
        prompts.append(prompt)
    if not prompts:
        msg = f"{path}: it holds no prompts"
        raise InputError(msg)
    return tuple(prompts)


def each_line(path: Path) -> Iterator[tuple[int, Prompt | InputError]]:
    """Yield the non-empty lines of a prompts.jsonl: number from 1, and the prompt, or an error that says what is wrong.

    Raises:
        InputError: the file cannot be read.
    """
    lines = read_bytes(path).removeprefix(codecs.BOM_UTF8).split(b"\n")
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            prompt = _prompt(parsed(line, "", nan_as_none=True))
            if prompt.id in seen:
                msg = f"the id {prompt.id!r} occurs twice; first in line {seen[prompt.id]}"
                raise InputError(msg)
        except InputError as error:
            yield number, error
            continue
        seen[prompt.id] = number
        yield number, prompt


def _prompt(plain: Any) -> Prompt:
    if not isinstance(plain, Mapping):
        msg = "a prompt must be a JSON object"
        raise InputError(msg)
    rest = dict(plain)
    if "id" not in rest:
        msg = "the field 'id' is missing"
        raise InputError(msg)
    captions = {field: _first(rest, aliases) for field, aliases in _ALIASES.items()}
    if captions["video_caption"] is None:
        msg = f"no video caption; name it one of {', '.join(_ALIASES['video_caption'])}"
        raise InputError(msg)
    identifier, reference, tags = rest.pop("id"), rest.pop("reference_clip", None), rest.pop("tags", {})
    identifier = str(identifier) if type(identifier) is int else identifier
    if not isinstance(tags, Mapping):
        msg = f"tags are {tags!r}; they must be an object"
        raise InputError(msg)
    return Prompt(identifier, captions["video_caption"] or "", captions["audio_caption"], {**rest, **tags}, reference)


def _first(rest: dict[str, Any], aliases: tuple[str, ...]) -> str | None:
    """Take the first alias with a value out of an entry, and those that are null; other aliases stay, as tags."""
    for alias in [alias for alias in aliases if alias in rest and rest[alias] is None]:
        del rest[alias]
    found = [rest.pop(alias) for alias in [alias for alias in aliases if alias in rest][:1]]
    if not found:
        return None
    if not isinstance(found[0], str):
        msg = f"{aliases[0]} is {found[0]!r}; it must be text"
        raise InputError(msg)
    if len(found[0]) > CAPTION_CHARACTERS:
        msg = f"{aliases[0]} has {len(found[0]):,} characters; a caption may have at most {CAPTION_CHARACTERS:,}"
        raise InputError(msg)
    return found[0]
