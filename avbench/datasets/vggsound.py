"""VGGSound: vggsound.csv (YouTube id, start in seconds, label, split) and clips ``<id>_<start, six digits>.mp4``.

Clips may lie in the folder itself, in a folder of theirs, or in folders of their own a class. Many are no longer to be
had, so the files that are there are looked up once and the missing ones counted. The tag `av_tight` is the class list
of arXiv 2512.02457, Table 6: sounds that a visible action makes, by its authors' judgement. Other lists of classes are
the user's: a file ``av_loose.txt`` beside the csv, a class a line, gives each clip the tag `av_loose`.
"""

from collections.abc import Iterator
from pathlib import Path

from avbench.core import InputError
from avbench.datasets import Entry, identifier, lines, required, rows

_TIGHT = """
    arc welding; bathroom ventilation fan running; beat boxing; cattle, bovinae cowbell; chainsawing trees;
    child speech, kid speaking; chopping food; chopping wood; church bell ringing; cutting hair with electric trimmers;
    disc scratching; driving motorcycle; electric grinder grinding; electric shaver, electric razor shaving;
    eletric blender running; firing cannon; firing muskets; forging swords; metronome; missile launch;
    motorboat, speedboat acceleration; ocean burbling; opening or closing car electric windows; planing timber;
    playing guiro; playing saxophone; printer printing; ripping paper; rope skipping; sharpen knife; singing bowl;
    skateboarding; spraying water; strike lighter; striking pool; toilet flushing; typing on computer keyboard"""
AV_TIGHT = frozenset(" ".join(_TIGHT.split()).split("; "))
"""37 classes, spelled as in VGGSound."""
_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")


def read(folder: Path) -> Iterator[Entry]:
    """Entries in the list's order."""
    listed = required(folder, "vggsound.csv", what="VGGSound")
    loose = folder / "av_loose.txt"
    classes = {name for _, name in lines(loose)} if loose.is_file() else None
    there = {path.stem: path for suffix in _SUFFIXES for path in folder.rglob(f"*{suffix}")}
    for number, (video, start, label, split, *_) in enumerate(rows(listed, 4), start=1):
        if not start.strip().isdigit() or split not in ("train", "test"):
            msg = f"{listed}, row {number}: {start!r} is no start in seconds, or {split!r} neither train nor test"
            raise InputError(msg)
        name = f"{video}_{int(start):06d}"
        yield Entry(
            identifier(name),
            there.get(name) or there.get(f"{video}_{int(start)}") or folder / f"{name}.mp4",
            split=split,
            tags={
                "class": label,
                "av_tight": label in AV_TIGHT,
                **({} if classes is None else {"av_loose": label in classes}),
            },
        )
