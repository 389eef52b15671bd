"""MSR-VTT: train_val_videodatainfo.json and test_videodatainfo.json (or MSRVTT_data.json), clips <video id>.mp4.

Clips that were converted, to another suffix, are found under the same names.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avbench.clip_files import clips_by_stem, visible_files
from avbench.core import InputError
from avbench.datasets import Entry
from avbench.folder import read_json

_LISTS = ("MSRVTT_data.json", "train_val_videodatainfo.json", "test_videodatainfo.json")
_SPLITS = {"train": "train", "validate": "val", "val": "val", "test": "test"}


def read(folder: Path) -> Iterator[Entry]:
    """Entries in the lists' order, each with its first caption."""
    files = sorted(visible_files(folder))
    lists = [path for name in _LISTS for path in files if path.name == name]
    if not lists:
        msg = f"{folder} is not laid out as MSR-VTT: it has none of {', '.join(_LISTS)}"
        raise InputError(msg)
    there = clips_by_stem(folder, "video")
    for path in lists[:1] if lists[0].name == _LISTS[0] else lists:
        known = read_json(path)
        captions: dict[Any, str] = {}
        try:
            for sentence in known["sentences"]:
                captions.setdefault(sentence["video_id"], sentence["caption"])
            for video in known["videos"]:
                name = str(video["video_id"])
                tags = {"category": video.get("category")}
                split = _SPLITS.get(str(video.get("split")))
                caption = captions.get(video["video_id"], "")
                yield Entry(name, there.get(name, folder / f"{name}.mp4"), caption, split=split, tags=tags)
        except (KeyError, TypeError) as error:
            msg = f"{path}: not MSR-VTT's form, {error} is missing or not what it should be"
            raise InputError(msg) from None
