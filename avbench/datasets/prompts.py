"""Sets of prompts without clips: VBench and JavisBench."""

import csv
from collections.abc import Iterator
from pathlib import Path

from avbench.core import InputError
from avbench.datasets import Entry, required
from avbench.folder import read_json

_SOUND = ("audio_text", "audio_prompt", "audio_caption")
_PICTURE = ("video_text", "text", "prompt", "video_caption")


def vbench(folder: Path) -> Iterator[Entry]:
    """VBench_full_info.json: a list of prompts, each with the dimensions that it is for."""
    path = required(folder, "VBench_full_info.json", "vbench/VBench_full_info.json", what="VBench")
    for number, one in enumerate(read_json(path)):
        if not isinstance(one, dict) or not isinstance(one.get("prompt_en"), str):
            msg = f"{path}, prompt {number + 1}: it has no prompt_en"
            raise InputError(msg)
        tags = {"dimensions": list(one.get("dimension", []))}
        yield Entry(f"vbench-{number:04d}", None, one["prompt_en"], tags=tags)


def javisbench(folder: Path) -> Iterator[Entry]:
    """JavisBench.csv."""
    return _javisbench(required(folder, "JavisBench.csv", what="JavisBench"))


def javisbench_mini(folder: Path) -> Iterator[Entry]:
    """JavisBench-mini.csv."""
    return _javisbench(required(folder, "JavisBench-mini.csv", what="JavisBench-mini"))


def _javisbench(path: Path) -> Iterator[Entry]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        heads = reader.fieldnames or []
        picture, sound = (next((name for name in names if name in heads), None) for names in (_PICTURE, _SOUND))
        if picture is None:
            msg = f"{path}: no column of captions; it has {', '.join(heads)}, one of {', '.join(_PICTURE)} is needed"
            raise InputError(msg)
        try:
            for number, row in enumerate(reader):
                tags = {name: value for name, value in row.items() if name and name not in (picture, sound) and value}
                heard = (row[sound] or None) if sound else None
                yield Entry(f"javisbench-{number:05d}", None, row[picture] or "", heard, tags=tags)
        except (csv.Error, UnicodeDecodeError) as error:
            msg = f"{path}, line {reader.line_num}: {error}"
            raise InputError(msg) from None
