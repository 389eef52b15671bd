"""Reads data sets of prompts without clips: VBench and JavisBench."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from avbench.core import InputError
from avbench.storage.reading import csv_head, csv_rows, read_json
from avbench.subsets.datasets import Entry, required

_SOUND = ("audio_text", "audio_prompt", "audio_caption")
_PICTURE = ("video_text", "text", "prompt", "video_caption")


@dataclass(frozen=True)
class _VBenchPrompt:
    prompt_en: str
    dimension: Sequence[str] = ()


def vbench(folder: Path) -> Iterator[Entry]:
    """Read VBench_full_info.json: a list of prompts, each with the dimensions that it is for."""
    path = required(folder, "VBench_full_info.json", "vbench/VBench_full_info.json", what="VBench")
    for number, one in enumerate(read_json(path, list[_VBenchPrompt], known_only=False)):
        tags = {"dimensions": list(one.dimension)}
        yield Entry(f"vbench-{number:04d}", None, one.prompt_en, tags=tags)


def javisbench(folder: Path) -> Iterator[Entry]:
    """Read JavisBench.csv."""
    return _javisbench(required(folder, "JavisBench.csv", what="JavisBench"))


def javisbench_mini(folder: Path) -> Iterator[Entry]:
    """Read JavisBench-mini.csv."""
    return _javisbench(required(folder, "JavisBench-mini.csv", what="JavisBench-mini"))


def _javisbench(path: Path) -> Iterator[Entry]:
    heads = csv_head(path)
    picture, sound = (next((name for name in names if name in heads), None) for names in (_PICTURE, _SOUND))
    if picture is None:
        msg = f"{path}: no column of captions; it has {', '.join(heads)}, but one of {', '.join(_PICTURE)} is needed"
        raise InputError(msg)
    for number, row in enumerate(csv_rows(path)):
        tags = {name: value for name, value in row.items() if name and name not in (picture, sound) and value}
        audio_caption = (row[sound] or None) if sound else None
        yield Entry(f"javisbench-{number:05d}", None, row[picture] or "", audio_caption, tags=tags)
