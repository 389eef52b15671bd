"""Records the files of a run folder and of its copy in object storage, and who wrote the copy last.

The folder's own ``.mirror.json`` records what was last equal on both sides, and the mirror's names its last writer.
A second writer is refused while the first one shows signs of life, and so is a folder that changed on both sides. Of
several processes that want to follow one writer, that one does which creates a file named after the writer's record.
"""

import itertools
import os
import platform
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from avbench.core import InputError, as_typed, digest
from avbench.storage import reading
from avbench.storage.content import holds
from avbench.storage.object_storage import Storage
from avbench.storage.runs.folder import MIRROR_FILE as STATE_FILE
from avbench.storage.runs.folder import MIRROR_WORK
from avbench.storage.writing import json_bytes, write_json

SESSION = uuid.uuid4().hex
"""Of this process; a child process has another, and takes part in its parent's by a `mirror.Place`."""
SILENT_SECONDS = 300.0
"""A writer that gave no sign for so long counts as dead."""
TOGETHER = 64
"""Files in one upload or download."""
CLIPS = "clips/"
"""How the names of clips begin."""
_LAST = "run.json", "samples.jsonl", "scores.json"
"""They come after all others, in this order, because they make others valid."""

Stamp = tuple[int, int]
"""Size, and time of the last change in nanoseconds."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class Synced:
    """The folder's .mirror.json: what was last equal on both sides."""

    url: str
    session: str = ""
    """Of the process that had written the mirror when both were equal."""
    taken: float | None = None
    """When that process had last signed, if what it wrote was taken over into this folder; None if it wrote here."""
    files: Mapping[str, Stamp] = field(default_factory=dict)
    signing: str = ""
    """Of a process that writes here and was about to sign the mirror: perhaps it has."""
    signed: tuple[float, ...] = ()
    """When that process, or else the one that wrote the mirror from here, signed last, and may have signed since."""
    inode: int | None = None
    """Of the folder that it signed in. A copy of the folder has another."""

    def is_of(self, writer: "Writer", folder: Path) -> bool:
        """Whether nobody else wrote the mirror since both were equal.

        A copy of the folder, or an earlier state of it, that was made while the process wrote is somebody else.
        """
        if not writer.session or writer.session not in (self.session, self.signing):
            return False
        if self.taken is not None and writer.session == self.session:
            return writer.ended and writer.updated == self.taken
        return writer.updated in self.signed and (writer.ended or self.inode == folder.stat().st_ino)


@dataclass(frozen=True)
class Writer:
    """The mirror's .mirror.json: its last writer. Times are seconds since 1970."""

    session: str = ""
    host: str = ""
    process: int = 0
    updated: float = 0.0
    ended: bool = False
    lines: Mapping[str, int] = field(default_factory=dict)
    """Sizes of the files that lines are appended to, after its last upload; a smaller file was cut."""

    def is_alive(self) -> bool:
        """Whether it has not ended, and gave a sign lately."""
        return not self.ended and time.time() - self.updated < SILENT_SECONDS

    def is_this_process(self) -> bool:
        """Whether it is the process that asks."""
        return self.session == SESSION


class TakenOver(InputError):
    """Another process writes the mirror now."""


class Sides:
    """A run folder and its mirror. Methods that look into the mirror raise InputError as `Storage` does."""

    def __init__(self, folder: Path, url: str) -> None:
        """Nothing is read or written yet. Raises InputError if fsspec cannot use the address."""
        self.folder, self.storage = folder, Storage(url)
        self.url = self.storage.url
        place = self.url.removeprefix("file://")
        if place != self.url and Path(place).resolve().is_relative_to(folder.resolve()):
            msg = f"the mirror {self.url} is the run folder {folder} or lies in it; give another place"
            raise InputError(msg)
        self._busy, self._ended = threading.RLock(), False
        self.lines: Mapping[str, int] = {}
        """For this process's signature: sizes of the mirror's files that lines are appended to."""

    def writer(self) -> Writer | None:
        """The mirror's last writer: one without a name if somebody deleted its record; None if no run is there."""
        if not self.storage.has(STATE_FILE):
            return Writer(ended=True) if self.storage.has("run.json") else None
        return self._writer_in(self.storage.read(STATE_FILE), STATE_FILE)

    def is_untouched(self, writer: Writer) -> bool:
        """Whether a mirror whose writer's record was deleted is what was taken over from it, but for clips without a
        line, which were left there.
        """
        here = self.synced()
        if writer.session or here.session or here.taken is None:
            return False
        files = {name: size for name, (size, _) in here.files.items()}
        there = self.storage.sizes()
        return files == {name: size for name, size in there.items() if name in files or not name.startswith(CLIPS)}

    def _writer_in(self, content: bytes, name: str) -> Writer:
        where = f"{self.url}/{name}, which names a writer of the mirror,"
        remedy = "if no command writes the mirror now, delete that file: the next command writes it again"
        return _recorded(content, Writer, where, remedy)

    def synced(self) -> Synced:
        """What was last equal on both sides."""
        path = self.folder / STATE_FILE
        if not path.exists():
            return Synced(self.url)
        remedy = "delete that file: the next command compares both sides and writes it again"
        return _recorded(reading.read_bytes(path), Synced, f"{path}, which records what the mirror has,", remedy)

    def remember(self, files: Mapping[str, Stamp], **changes: str | float | None) -> None:
        """Record these files as equal on both sides, and changes of other fields."""
        self._change(files=dict(sorted(files.items())), **changes)

    def _change(self, **changes: Any) -> None:
        with self._busy:
            write_json(self.folder / STATE_FILE, asdict(replace(self.synced(), **changes)))

    def sign(self, *, ended: bool = False) -> None:
        """Record that this process still writes the mirror, or that it has ended.

        Raises TakenOver if another process has signed.
        """
        with self._busy:
            self.is_ours()
            self._sign(ended)

    def sign_again(self) -> None:
        """Give a sign of life, unless this process has ended its work, or somebody deleted the mirror.

        Raises TakenOver if another process has signed.
        """
        with self._busy:
            if not self._ended and self.is_ours():
                self._sign()

    def sign_after(self, last: Writer | None) -> None:
        """Record this process as the mirror's writer after the `last` one, which has ended or is silent.

        Raises:
            InputError: another process did so, or is about to. If that one dies now, it counts as the last one once it
                has been silent.
        """
        claims, before = [], last
        while True:
            claims.append(f".mirror-after-{digest(before and asdict(before))[:16]}.json")
            claim = _signature(False, {}, time.time())
            before = self._writer_in(self.storage.create(claims[-1], claim), claims[-1])
            if before.is_this_process():
                break
            if before.is_alive():
                raise self.in_use(before)
        try:
            if (now := self.writer()) is not None and now != last:
                raise self.in_use(now)
            self._sign()
        finally:
            for name in claims:
                self.storage.delete(name)

    def _sign(self, ended: bool = False) -> None:
        """Sign first in the folder, so that it knows its signature if killed, and then in the mirror."""
        with self._busy:
            now = time.time()
            before = self.synced().signed
            self._change(signing=SESSION, signed=(*before, now), inode=self.folder.stat().st_ino)
            self.storage.write(STATE_FILE, _signature(ended, self.lines, now))
            self._change(session=SESSION, taken=None, signing="", signed=(now,))
            self._ended = ended

    def is_ours(self) -> bool:
        """Whether this process has signed the mirror; False if nobody has. Raises TakenOver if another one has."""
        writer = self.writer()
        if writer is None or not writer.session:
            return False
        if not writer.is_this_process():
            msg = (
                f"{self.url} was taken over by process {writer.process} on {writer.host}, because this one gave no "
                f"sign for {SILENT_SECONDS:.0f} s: nothing more is uploaded from here, and {self.folder} keeps all "
                f"that was made. Once the other one has ended: {self._both_together()}"
            )
            raise TakenOver(msg)
        return True

    def in_use(self, writer: Writer) -> InputError:
        """The error of a command that finds another writer at work."""
        if writer.ended:
            who = f"process {writer.process} on {writer.host}"
            return InputError(f"{self.url} was written by {who} in the meantime; give the same command again")
        age = round(time.time() - writer.updated)
        ago = f"{age} s ago" if age >= 0 else f"{-age} s ahead of this machine's clock"
        return InputError(
            f"{self.url} is being written by process {writer.process} on {writer.host} (last sign {ago}); wait until "
            f"it has ended. If it was killed, the same command works once its last sign is {SILENT_SECONDS:.0f} s "
            f"old, or after you delete {self.url}/{STATE_FILE}"
        )

    @contextmanager
    def working(self) -> Iterator[Path]:
        """An empty folder for files on their way, on the disk of the run folder."""
        place = self.folder / MIRROR_WORK
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place) as work:
            yield Path(work)

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """Delete what killed commands left of files on their way. The folder must be locked."""
        place = self.folder / MIRROR_WORK
        shutil.rmtree(place, ignore_errors=True)
        try:
            yield
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def both_changed(self, names: Sequence[str]) -> InputError:
        """The error on a folder with files that the mirror has not."""
        return self._only_here(names, f"both changed since they were equal, or never were; {self._both_together()}")

    def _both_together(self) -> str:
        """Advice where the folder and its mirror have a history of their own."""
        url, folder = as_typed(self.url), as_typed(self.folder)
        return (
            f"get the mirror into another folder with `avbench runs pull {url} OTHER`, add this one to it with "
            f"`avbench runs merge OTHER {folder}`, upload the result with `avbench runs push OTHER {url}`, "
            f"and put {self.folder} away before you go on with it"
        )

    def cut(self, name: str, size: int, writer: Writer) -> InputError:
        """The error on a file of lines that is smaller in the mirror than its last writer left it."""
        return InputError(
            f"the mirror is damaged: {self.url}/{name} has {size} bytes, and process {writer.process} on {writer.host} "
            f"left {writer.lines[name]} there. `avbench runs push` with the folder of that machine uploads it again. "
            f"If it is lost, delete {self.url}/{STATE_FILE}: then what is left counts, and the rest is made again"
        )

    def lacking(self, names: Sequence[str]) -> InputError:
        """The error on a folder that is not behind its mirror, and has files that the mirror lacks."""
        return self._only_here(names, f"`avbench runs push {as_typed(self.folder, self.url)}` uploads them")

    def _only_here(self, names: Sequence[str], then: str) -> InputError:
        return InputError(
            f"{self.folder} has files that its mirror {self.url} has not, or not with the same content ({len(names)}, "
            f"for example {names[0]}): {then}"
        )

    def not_in_mirror(
        self, names: Sequence[str], clips: Mapping[str, str], there: Iterable[str], copy: Path
    ) -> list[str]:
        """Those of some files of the folder whose content the mirror does not have, sorted.

        A command that was killed while it downloaded leaves files without a stamp that the mirror has.

        Args:
            names: of the files.
            clips: of the mirror, with their hashes.
            there: all files of the mirror.
            copy: a folder with those of the mirror that were downloaded; others are added.
        """
        others = [name for name in names if name in there and name not in clips and not (copy / name).exists()]
        for part in parts(others):
            self.storage.get(part, [reading.inside(copy, name) for name in part])

        def differs(name: str) -> bool:
            if name in clips or not (copy / name).exists():
                return not has_clip(self.folder / name, clips.get(name))
            here, content = (self.folder / name).read_bytes(), (copy / name).read_bytes()
            return content != here and not (name.endswith(".jsonl") and content.startswith(here))

        return sorted(filter(differs, names))


def _recorded(content: bytes, kind: type[Found], where: str, remedy: str) -> Found:
    """The record of this kind that a file holds. Raises InputError with the remedy if it is damaged."""
    try:
        return reading.parsed(content, "", kind)
    except InputError as error:
        msg = f"{where} is damaged ({error}); {remedy}"
        raise InputError(msg) from None


def _signature(ended: bool, lines: Mapping[str, int], now: float) -> bytes:
    """What this process writes into the mirror as its writer."""
    return json_bytes(asdict(Writer(SESSION, platform.node(), os.getpid(), now, ended, lines)))


def stamps_in(folder: Path) -> dict[str, Stamp]:
    """The stamp of every file of a run folder, by name; not of those whose name begins with a dot."""
    places = [place for place in folder.glob("*") if place.name != MIRROR_WORK]  # what is in there comes and goes
    return {
        path.relative_to(folder).as_posix(): stamp_of(path)
        for path in sorted(itertools.chain(places, *(place.rglob("*") for place in places)))
        if not path.name.startswith(".") and path.is_file()
    }


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def has_clip(path: Path, sha256: str | None) -> bool:
    """Whether a file is the clip with this hash; no file is one without a hash."""
    return sha256 is not None and holds(path, sha256)


def in_order(names: Sequence[str]) -> Iterator[list[str]]:
    """Names in groups that are uploaded or downloaded one after another, so that what makes others valid comes last."""
    yield from parts([name for name in names if name not in _LAST])
    yield from ([name] for name in _LAST if name in names)


def parts(items: list[Found]) -> Iterator[list[Found]]:
    """Items in groups of those that are uploaded or downloaded together."""
    for start in range(0, len(items), TOGETHER):
        yield items[start : start + TOGETHER]
