"""Reads MSR-VTT: train_val_videodatainfo.json and test_videodatainfo.json (or MSRVTT_data.json), <video id>.mp4.

Clips that were converted to another suffix are found under the same names.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avbench.core import InputError
from avbench.storage.media.clip_files import clips_by_stem, visible_files
from avbench.storage.reading import inside, read_json
from avbench.subsets.datasets import Entry

_LISTS = ("MSRVTT_data.json", "train_val_videodatainfo.json", "test_videodatainfo.json")
_SPLITS = {"train": "train", "validate": "val", "val": "val", "test": "test"}


@dataclass(frozen=True)
class _Sentence:
    video_id: str | int
    caption: str


@dataclass(frozen=True)
class _Video:
    video_id: str | int
    category: Any = None
    split: str | None = None


@dataclass(frozen=True)
class _Info:
    sentences: list[_Sentence]
    videos: list[_Video]


def read(folder: Path) -> Iterator[Entry]:
    """Yield entries in the lists' order, each with its first caption."""
    files = sorted(visible_files(folder))
    lists = [path for name in _LISTS for path in files if path.name == name]
    if not lists:
        msg = f"{folder} is not laid out as MSR-VTT: it has none of {', '.join(_LISTS)}"
        raise InputError(msg)
    there = clips_by_stem(folder, "video")
    for path in lists[:1] if lists[0].name == _LISTS[0] else lists:
        known = read_json(path, _Info, known_only=False)
        captions: dict[str | int, str] = {}
        for sentence in known.sentences:
            captions.setdefault(sentence.video_id, sentence.caption)
        for video in known.videos:
            name = str(video.video_id)
            tags = {"category": video.category}
            split = _SPLITS.get(str(video.split))
            caption = captions.get(video.video_id, "")
            yield Entry(
                name,
                inside(folder, f"{name}.mp4") if name not in there else there[name],
                caption,
                split=split,
                tags=tags,
            )
