"""Reads The Greatest Hits (Owens et al. 2016): ``<name>_denoised.mp4`` with ``<name>_times.txt``, one line per stroke.

A smaller release has ``<name>_denoised_thumb.mp4`` instead.

A line has the time in seconds, the material, ``hit`` or ``scratch``, and the reaction; a field is ``None`` if the
labellers saw none. train.txt and test.txt list names. Contacts are the strokes labelled ``hit``; those of a clip
without labels are unknown.
"""

from collections.abc import Iterator
from pathlib import Path

from avbench.core import InputError
from avbench.storage.reading import text_lines
from avbench.subsets.datasets import Entry, identifier

_ENDS = ("_denoised.mp4", "_denoised_thumb.mp4", "_mic.mp4", ".mp4")
"""The same clip may be there in several forms; the first is taken."""


def read(folder: Path) -> Iterator[Entry]:
    """Yield entries in the order of their names."""
    splits = {
        Path(name).name.removesuffix(".mp4").removesuffix("_thumb").removesuffix("_denoised"): split
        for split in ("train", "val", "test")
        if (folder / f"{split}.txt").is_file()
        for _, name in text_lines(folder / f"{split}.txt")
    }
    labelled = {path.name.removesuffix("_times.txt") for path in folder.glob("[!.]*_times.txt")}
    filmed = {
        path.name.removesuffix(end): path
        for end in reversed(_ENDS)
        for path in folder.glob(f"[!.]*{end}")
        if end != ".mp4" or not path.name.endswith(_ENDS[:-1])
    }
    if not labelled | filmed.keys():
        msg = f"{folder} is not laid out as The Greatest Hits: it has no *_denoised.mp4 and no *_times.txt"
        raise InputError(msg)
    for name in sorted(labelled | filmed.keys() | splits.keys()):
        strokes = list(_strokes(folder / f"{name}_times.txt")) if name in labelled else []
        tags = {
            "materials": sorted({material for _, material, _ in strokes if material != "None"}),
            "actions": sorted({action for _, _, action in strokes if action != "None"}),
        }
        hits = tuple(second for second, _, action in strokes if action == "hit")
        yield Entry(
            identifier(name),
            filmed.get(name, folder / f"{name}_denoised.mp4"),
            split=splits.get(name),
            contacts_seconds=hits if name in labelled else None,
            tags={key: value for key, value in tags.items() if value},
        )


def _strokes(path: Path) -> Iterator[tuple[float, str, str]]:
    for number, line in text_lines(path):
        words = line.split()
        try:
            second, material, action = float(words[0]), words[1], words[2]
        except (ValueError, IndexError):
            msg = f"{path}, line {number}: {line!r} is not a second, a material and an action"
            raise InputError(msg) from None
        yield second, material, action
