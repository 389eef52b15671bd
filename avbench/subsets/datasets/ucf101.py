"""Reads UCF-101: <Class>/v_<Class>_gNN_cNN.avi, lists ucfTrainTestlist/trainlist01.txt and testlist01.txt.

Videos that were converted to another suffix are found under the same names.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from avbench.core import InputError
from avbench.storage.media.clip_files import clips_by_stem, visible_files
from avbench.storage.reading import text_lines
from avbench.subsets.datasets import Entry, identifier, inside

_NAMES = {"train": "trainlist01.txt", "test": "testlist01.txt"}


def read(folder: Path) -> Iterator[Entry]:
    """Yield entries in the lists' order; without the lists, the videos in the order of their paths, without a split."""
    named = [path for path in sorted(visible_files(folder)) if path.name in _NAMES.values()]
    lists = {split: path for split, name in _NAMES.items() for path in [p for p in named if p.name == name][:1]}
    there = clips_by_stem(folder, "v_")
    if not lists and not there:
        msg = f"{folder} is not laid out as UCF-101: it has no video v_* and no {' or '.join(_NAMES.values())}"
        raise InputError(msg)
    for split, listed in lists.items():
        for number, line in text_lines(listed):
            name = line.split()[0]
            yield _entry(there.get(Path(name).stem) or inside(folder, name, listed, number), split)
    if not lists:
        for path in there.values():
            yield _entry(path, None)


def _entry(path: Path, split: str | None) -> Entry:
    parts = path.stem.split("_")
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", parts[1] if len(parts) > 1 else path.stem).lower()
    group = next((part for part in parts if re.fullmatch(r"g\d+", part)), None)
    return Entry(identifier(path.stem), path, split=split, tags={"class": words, **({"group": group} if group else {})})
