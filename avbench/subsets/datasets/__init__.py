"""Lists the readers of the field's data sets, and reads the clips of one from a folder on the user's disk.

A pool is ``reader:FOLDER``, or a plain folder of clips with or without a file of captions. A reader never downloads
anything: it reads the folder as the authors distribute it, and keeps the split of each clip. A listed clip whose file
is missing is still an entry, so that `remarks` can report it.

A new reader is a function from a folder to entries, and a row in READERS. Other packages add readers as entry points of
the group ``avbench.datasets``, each a `Reader`.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from avbench.core import InputError, all_of, counted, nearest, shown
from avbench.core.prompt import checked_id
from avbench.storage.content import hash_of
from avbench.storage.media.clip_files import as_spelled, clips_in, mark_of, same_name
from avbench.storage.plug_ins import Found, PlugIn, failure, find
from avbench.storage.reading import csv_lines, exists
from avbench.storage.workers.contained import contained


@dataclass(frozen=True)
class Entry:
    """One clip of a pool, or one prompt of a data set without clips. Raises InputError on an unusable id."""

    id: str
    path: Path | None
    """The clip's file, which may be missing; None in a data set of prompts."""
    video_caption: str = ""
    """Empty if the data set has no captions."""
    audio_caption: str | None = None
    split: str | None = None
    """``train``, ``val`` or ``test``, as its authors assigned it; None if they did not."""
    contacts_seconds: tuple[float, ...] | None = None
    """Times of contacts, in seconds from the clip's start; None if the data set does not give them."""
    tags: Mapping[str, Any] = field(default_factory=dict)
    """Other properties of the clip: class, material, source."""

    def __post_init__(self) -> None:
        checked_id(self.id, "entry id")
        for name, kind, what in _FORMS:
            if not isinstance(value := getattr(self, name), kind):
                msg = f"{name} of the entry {self.id!r} is {shown(value)}; it must be {what}"
                raise InputError(msg)
        if not all(isinstance(one, int | float) and math.isfinite(one) for one in self.contacts_seconds or ()):
            msg = f"contacts_seconds of the entry {self.id!r} are {shown(self.contacts_seconds)}; they must be numbers"
            raise InputError(msg)


_FORMS: tuple[tuple[str, Any, str], ...] = (
    ("path", Path | None, "a Path or None"),
    ("video_caption", str, "text"),
    ("audio_caption", str | None, "text or None"),
    ("split", str | None, "text or None"),
    ("contacts_seconds", tuple | None, "a tuple of numbers or None"),
    ("tags", Mapping, "a mapping"),
)
"""Field of an entry, its type, and what that is in words."""


@dataclass(frozen=True)
class Reader:
    """How a data set is read, and what is known about it."""

    what: str
    """A few words that describe the data set."""
    source: str
    read: Callable[[Path], Iterator[Entry]] | str
    """The function from the data set's folder to entries, or its place ``module:function``."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Split (``all`` if there are none) → the published number of entries."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Hashes of the list files in the authors' repository, as git computes them."""
    licence: str = "the set's own terms"
    caption: str = "{video_caption}"
    """Template of the prompt for a clip without a caption, from its tags, such as ``{class}``."""

    def entries(self, folder: Path) -> Iterator[Entry]:
        """Read the data set. Raises InputError that names file and line if the folder has another layout."""
        read = self.read
        if isinstance(read, str):
            module, _, name = read.partition(":")
            read = getattr(import_module(module), name)
        return read(folder)


_VGGSOUND = "Chen et al. 2020, arXiv 2004.14368"
_JAVISBENCH = "Liu et al. 2025, github.com/JavisVerse/JavisDiT"
_ASVA = "Zhang et al. 2024, github.com/lzhangbj/ASVA"
READERS: dict[str, Reader] = {
    "folder": Reader(
        "clips in a folder, with or without a file of captions",
        "yours",
        "avbench.subsets.datasets.folder:read",
        licence="not stated",
    ),
    "greatest-hits": Reader(
        "The Greatest Hits: a drumstick hits and scratches things; hit labels",
        "Owens et al. 2016, arXiv 1512.08512",
        "avbench.subsets.datasets.greatest_hits:read",
        {"all": 977},
        caption="a drumstick {actions} {materials}",
    ),
    "avsync15": Reader(
        "AVSync15: fifteen classes of VGGSound with matching motion and sound",
        _ASVA,
        "avbench.subsets.datasets.asva:read",
        {"train": 1350, "test": 150},
        caption="{class}",
    ),
    "landscape": Reader(
        "Landscape: nature with its sound, ASVA's splits",
        _ASVA,
        "avbench.subsets.datasets.asva:read",
        caption="{class}",
    ),
    "vggsound": Reader(
        "VGGSound: 309 classes of sound in videos of 10 s",
        _VGGSOUND,
        "avbench.subsets.datasets.vggsound:read",
        {"train": 183_730, "test": 15_446},
        {"vggsound.csv": "53da0dc492b8a3fadf770f0f175cef1e652c0447"},
        caption="{class}",
    ),
    "javisbench": Reader(
        "JavisBench: prompts for joint audio and video",
        _JAVISBENCH,
        "avbench.subsets.datasets.prompts:javisbench",
        {"all": 10_140},
    ),
    "javisbench-mini": Reader(
        "JavisBench-mini: 1,000 of them",
        _JAVISBENCH,
        "avbench.subsets.datasets.prompts:javisbench_mini",
        {"all": 1_000},
    ),
    "vbench": Reader(
        "VBench's prompts",
        "Huang et al. 2024, github.com/Vchitect/VBench",
        "avbench.subsets.datasets.prompts:vbench",
        {"all": 946},
        dict.fromkeys(
            ("VBench_full_info.json", "vbench/VBench_full_info.json"), "a3a4f0968c1a15f19518903b98d7cca9ef9cbe5a"
        ),
    ),
    "msr-vtt": Reader(
        "MSR-VTT: 10,000 clips with twenty captions each; the first is taken",
        "Xu et al. 2016",
        "avbench.subsets.datasets.msr_vtt:read",
        {"train": 6513, "val": 497, "test": 2990},
    ),
    "ucf101": Reader(
        "UCF-101: 101 human actions; the first train/test list",
        "Soomro et al. 2012, arXiv 1212.0402",
        "avbench.subsets.datasets.ucf101:read",
        {"train": 9537, "test": 3783},
        caption="{class}",
    ),
}


def plug_ins() -> Found:
    """The readers of other packages."""
    return find("avbench.datasets", READERS)


@dataclass(frozen=True)
class Pool:
    """A data set in a folder."""

    name: str
    """Name of its reader."""
    reader: Reader
    folder: Path

    def entries(self) -> Iterator[Entry]:
        """Yield its clips or prompts one by one; an id that occurs twice is refused."""
        seen: dict[str, Path | None] = {}
        for entry in self.reader.entries(self.folder):
            if entry.id in seen:
                files = [str(path) for path in (seen[entry.id], entry.path) if path]
                msg = f"{self.folder}: two entries of {self.name} have the id {entry.id!r}"
                raise InputError(f"{msg}: {all_of(files)}; rename one" if len({*files}) > 1 else msg)
            seen[entry.id] = entry.path
            yield entry


def opened(pool: str) -> Pool:
    """Return the pool that a user typed: ``reader:FOLDER``, or a plain folder.

    Raises:
        InputError: the reader is unknown, or the folder does not exist.
    """
    name, colon, place = pool.partition(":")
    if not colon or exists(Path(pool)):
        name, place = "folder", pool
    if not place:
        msg = f"pool {pool!r} names no folder; write . for the current folder"
        raise InputError(msg)
    outside = plug_ins()
    if name not in READERS and name not in outside.usable:
        unknown = f"unknown reader, {nearest(name, [*READERS, *outside.usable])}; or give a folder of clips"
        msg = f"pool {pool!r}: {outside.problems.get(name, unknown)}"
        raise InputError(msg)
    folder = Path(place)
    if not exists(folder):
        msg = f"pool {pool!r}: the folder {folder} does not exist"
        raise InputError(msg)
    if not folder.is_dir():
        msg = f"pool {pool!r}: {folder} is a file; give the folder that it lies in"
        raise InputError(msg)
    return Pool(name, READERS[name] if name in READERS else _reader_of(outside.usable[name]), folder)


def _reader_of(plug_in: PlugIn) -> Reader:
    """The reader of another package; an error that it raises becomes an InputError that names the package."""
    reader: Reader = plug_in.load(Reader)

    def read(folder: Path) -> Iterator[Entry]:
        try:
            with contained():
                found = [*reader.entries(folder)]
            if wrong := [one for one in found if not isinstance(one, Entry)]:
                msg = f"it gave {shown(wrong[0])}, which is no Entry"
                raise InputError(msg)
            return iter(found)
        except InputError as error:
            msg = f"{folder} cannot be read by {plug_in.name} of the package {plug_in.package}: {error}"
            raise InputError(msg) from error
        except Exception as error:
            msg = f"reading {folder} by {plug_in.name} {failure(plug_in.package, error)}"
            raise InputError(msg) from error

    return replace(reader, read=read)


def holding(pool: Pool, entries: Sequence[Entry]) -> Pool:
    """The pool with these entries, which were read of it, so that its folder is not read again."""
    return replace(pool, reader=replace(pool.reader, read=lambda _: iter(entries)))


def of_split(pool: Pool, split: str | None) -> Pool:
    """The pool with the entries of one split only; all of them for None."""
    if split is None:
        return pool

    def read(folder: Path) -> Iterator[Entry]:
        found = [one for one in pool.reader.entries(folder) if one.split == split]
        if not found:
            raise no_split(pool, split, pool.reader.entries(folder))
        yield from found

    return replace(pool, reader=replace(pool.reader, read=read))


def with_licence(pool: Pool, licence: str | None) -> Pool:
    """The pool with the licence that its owner states; the reader's for None."""
    return replace(pool, reader=replace(pool.reader, licence=licence)) if licence else pool


def no_split(pool: Pool, split: str, found: Iterable[Entry]) -> InputError:
    """The error on a split that the set does not have."""
    return InputError(
        f"{pool.folder}: no entry of {pool.name} is of the split {split!r}; splits there: {splits_of(found)}"
    )


def splits_of(found: Iterable[Entry]) -> str:
    """The names of the splits of entries, for a sentence."""
    return ", ".join(sorted({one.split for one in found if one.split})) or "none"


def remarks(pool: Pool, found: Iterable[Entry]) -> list[str]:
    """Report missing files, clips listed twice, unexpected counts, and list files that differ from the authors'."""
    counts: Counter[str] = Counter()
    listed: defaultdict[Path, list[str]] = defaultdict(list)
    missing: list[str] = []
    for entry in found:
        counts[entry.split or "all"] += 1
        if entry.path is not None and "scene_seconds" not in entry.tags:
            listed[entry.path].append(entry.id)
        if entry.path is not None and not entry.path.is_file():
            missing.append(entry.path.name)
    messages = []
    if missing:
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        messages.append(f"{len(missing)} of {counts.total()} clips are listed but missing: {shown}")
    if several := {path: ids for path, ids in listed.items() if len(ids) > 1}:
        path, ids = next(iter(several.items()))
        example = f"for example {path.name} as {all_of(ids[:2])}"
        messages.append(f"{counted(len(several), 'clip')} listed more than once, {example}: each time counts as a clip")
    for split, stated in pool.reader.counts.items():
        here = counts.total() if split == "all" else counts[split]
        if here != stated:
            of = "" if split == "all" else f" of the split {split}"
            were = "entry was" if here == 1 else "entries were"
            messages.append(f"{here:,} {were} found{of}; {pool.name} should have {stated:,}")
    for name, known in pool.reader.hashes.items():
        path = pool.folder / name
        if path.is_file() and hash_of(path, "git") != known:
            messages.append(f"{path} differs from the file of {pool.reader.source}")
    if pool.name != "folder":
        return messages
    from avbench.subsets.datasets.folder import caption_file

    if captions := caption_file(pool.folder):
        messages.append(f"captions and tags are read from {captions}")
    return [*messages, *clips_in(pool.folder).remark(frames_too=True)]


def identifier(text: str) -> str:
    """Turn a name into an id: characters that an id cannot have become hyphens, and no id begins with one.

    Names with letters that an id cannot have, and those that are longer, get a mark, so that two of them do not become
    one id.
    """
    name = same_name(text)
    found = re.sub(r"\.\.+", ".", re.sub(r"[^A-Za-z0-9._-]+", "-", name))
    found = found if found[:1].isalnum() else f"x{found}"
    mark = mark_of(name, cut=len(found) > 120)
    return found[: 120 - len(mark)] + mark


def required(folder: Path, *names: str, what: str) -> Path:
    """The first of these files that exists. Raises InputError that says which files the data set has."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    msg = f"{folder} is not laid out as {what}: it has no {' or '.join(names)}"
    raise InputError(msg)


def rows(path: Path, least: int) -> Iterator[list[str]]:
    """Yield the rows of a CSV file without a header. Raises InputError at a row of fewer than `least` fields."""
    for number, row in csv_lines(path):
        if row and len(row) < least:
            msg = f"{path}, line {number}: {len(row)} fields; at least {least} are needed"
            raise InputError(msg)
        if row:
            yield row


def inside(folder: Path, name: str, listed: Path, number: int) -> Path:
    """The path that a list names, inside its folder, spelled as on the disk.

    Raises:
        InputError: it leads out of the folder.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        msg = f"{listed}, line {number}: {name!r} leads out of the data set's folder"
        raise InputError(msg)
    return as_spelled(folder, name)
