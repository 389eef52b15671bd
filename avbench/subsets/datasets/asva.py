"""Reads AVSync15 and Landscape as ASVA distributes them: train.txt, test.txt, class_mapping.json, videos/<class>/.

The lists name clips relative to videos/. A line may also be ``path,start,end``: a scene of a longer clip, in seconds.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avbench.core import InputError
from avbench.storage.reading import read_json, text_lines
from avbench.subsets.datasets import Entry, identifier, inside, required


def read(folder: Path) -> Iterator[Entry]:
    """Yield entries in the lists' order, train before test."""
    required(folder, "test.txt", "train.txt", what="ASVA's sets")
    mapping = read_json(folder / "class_mapping.json", dict) if (folder / "class_mapping.json").is_file() else {}
    for split in ("train", "test"):
        listed = folder / f"{split}.txt"
        for number, line in text_lines(listed) if listed.is_file() else ():
            name, *scene = line.split(",")
            path = inside(folder / "videos", name, listed, number)
            folder_name = Path(name).parts[0] if len(Path(name).parts) > 1 else ""
            tags: dict[str, Any] = (
                {"class": str(mapping.get(folder_name, folder_name.replace("_", " ")))} if folder_name else {}
            )
            if scene:
                tags["scene_seconds"] = _scene(scene, listed, number)
            ends = "".join(f"-{one}" for one in scene)
            yield Entry(identifier(Path(name).with_suffix("").as_posix() + ends), path, split=split, tags=tags)


def _scene(words: list[str], listed: Path, number: int) -> list[float]:
    try:
        start, end = (float(word) for word in words)
    except ValueError:
        msg = f"{listed}, line {number}: {','.join(words)!r} must be two times in seconds"
        raise InputError(msg) from None
    return [start, end]
