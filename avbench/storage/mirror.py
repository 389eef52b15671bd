"""Keeps a copy of a run folder in object storage, such as S3 or Google Cloud Storage: its mirror.

A command that writes the folder first takes over what another machine has put into the mirror since. While it works,
and when it ends, it uploads what is new: clips before the lines that name them, and of files that belong together the
last one last, as they are written to disk. So whatever moment a machine is lost in, the mirror is a run folder that
another machine can continue. Workers that do not see the command's disk hand their clips over through the mirror.

Addresses are those of fsspec (``s3://bucket/runs``, ``gs://…``, ``file:///…``), which finds credentials and servers as
its packages do. The folder's own ``.mirror.json`` records what was last equal on both sides, and the mirror's names its
last writer. Nothing is locked: storage cannot do that everywhere. A second writer is refused while the first one shows
signs of life, and so is a folder that changed on both sides.
"""

import math
import os
import platform
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from avbench.core import InputError, Sample, first_line
from avbench.storage import reading
from avbench.storage.content import holds
from avbench.storage.run_folder import MIRROR_FILE as STATE_FILE
from avbench.storage.run_folder import RunFolder, write_json, writing_whole

PUSH_SECONDS = 30.0
"""The least time between two uploads. An upload that takes long is followed by a longer pause."""
_PAUSES = 5
"""A pause is at least so many times as long as the upload before it."""
_SILENT_SECONDS = 300.0
"""A writer that gave no sign for so long counts as dead."""
_TOGETHER = 64
"""Files in one upload or download."""
_LAST = "run.json", "samples.jsonl", "scores.json"
"""They come after all others, in this order, because they make others valid."""
_CLIPS, _TRUTH = "clips/", ".truth.json"
"""How the names of clips begin, and of their ground truth end."""
_SESSION = uuid.uuid4().hex
"""Of this process; a child process has another, and takes part in its parent's by a `Place`."""
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}

Stamp = tuple[int, int]
"""Size, and time of the last change in nanoseconds."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class _Synced:
    """The folder's .mirror.json: what was last equal on both sides."""

    url: str
    session: str = ""
    """Of the process that had written the mirror when both were equal."""
    taken: float | None = None
    """When that process had last signed, if what it wrote was taken over into this folder; None if it wrote here."""
    files: Mapping[str, Stamp] = field(default_factory=dict)
    signing: str = ""
    """Of a process that writes here and was about to sign the mirror: perhaps it has."""

    def is_of(self, writer: "_Writer") -> bool:
        """Whether nobody else wrote the mirror since both were equal."""
        if writer.session and writer.session == self.signing:
            return True
        ended = writer.ended and writer.updated == self.taken
        return bool(writer.session) and writer.session == self.session and (self.taken is None or ended)


@dataclass(frozen=True)
class _Writer:
    """The mirror's .mirror.json: its last writer. Times are seconds since 1970."""

    session: str = ""
    host: str = ""
    process: int = 0
    updated: float = 0.0
    ended: bool = False

    def is_alive(self) -> bool:
        """Whether it has not ended, and gave a sign lately."""
        return not self.ended and time.time() - self.updated < _SILENT_SECONDS


class _TakenOver(InputError):
    """Another process writes the mirror now."""


@dataclass(frozen=True)
class Mirrors:
    """The mirrors of all run folders in one folder: that of ``OUT/NAME`` is ``URL/NAME``."""

    out: Path
    url: str

    def of(self, run: Path) -> "Mirror | None":
        """The mirror of a run folder; None if the folder lies elsewhere."""
        if not run.is_relative_to(self.out):
            return None
        return Mirror(run, f"{self.url.rstrip('/')}/{run.relative_to(self.out).as_posix()}")


@dataclass(frozen=True)
class Place:
    """Tells a worker where the run folder is, and where its mirror is if the worker does not see the folder."""

    folder: Path
    url: str | None = None
    session: str | None = None

    def opened(self) -> "WorkerFolder":
        """Open the run folder. On a machine that does not see it, what describes the run is downloaded first."""
        mirror = None if self.url is None else Mirror(self.folder, self.url)
        if mirror is None or mirror.is_shared(self.session):
            return WorkerFolder(RunFolder(self.folder))
        mirror.download_plan()
        return WorkerFolder(RunFolder(self.folder), mirror)


@dataclass(frozen=True)
class WorkerFolder:
    """A run folder as a worker sees it."""

    run: RunFolder
    elsewhere: "Mirror | None" = None
    """The mirror, if the command's folder is on another machine."""

    def hand_over(self, *files: Path) -> None:
        """Upload files that this worker made, if the command does not see them."""
        if self.elsewhere is not None:
            self.elsewhere.upload(files)

    def clip(self, sample: Sample) -> Path:
        """The path of a sample's clip, which is downloaded if it is not here."""
        assert sample.path is not None  # only finished clips are asked for
        path = self.run.path / sample.path
        if self.elsewhere is not None and not _holds(path, sample.sha256):
            self.elsewhere.download([sample.path])
        return path


class Mirror:
    """The mirror of one run folder.

    Every method raises InputError if the storage cannot be reached or refuses.
    """

    def __init__(self, folder: Path, url: str) -> None:
        """Nothing is read or written yet. Raises InputError if fsspec cannot use the address."""
        self._folder, self.url = folder, url.rstrip("/")
        self._storage, self._root = _opened(self.url)
        self._busy, self._signed = threading.RLock(), -math.inf

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Take over what the mirror has, and upload what the block writes to the folder. The folder must be locked.

        Raises:
            InputError: another process writes the mirror, or both sides changed since they were equal, or the last
                upload failed.
        """
        self._take_over()
        self._sign()
        if (writer := self._writer()) is not None and writer.session != _SESSION:
            raise self._in_use(writer)
        stop = threading.Event()
        uploading = threading.Thread(target=self._upload_now_and_then, args=(stop,), daemon=True)
        uploading.start()
        try:
            yield
        except BaseException as error:
            stop.set()
            try:
                self._push_all()
            except InputError as why:
                error.add_note(str(why))
            raise
        stop.set()
        self._push_all()

    def place(self) -> Place:
        """What workers need to open the folder. What describes the run is in the mirror afterwards."""
        self.push()
        return Place(self._folder, self.url, _SESSION)

    def collect(self, sample: Sample) -> None:
        """Download the clip of a worker that handed it over, and its ground truth, unless they are here."""
        if sample.path is None or _holds(self._folder / sample.path, sample.sha256):
            return
        truth = self._name(RunFolder(self._folder).truth_path(sample.key))
        self.download([*([truth] if self._exists(truth) else []), sample.path])

    def pull(self) -> None:
        """Make the folder equal to the mirror, also while another process writes the mirror.

        Raises:
            InputError: nothing is there, or the folder has changed since both were equal, or it is being written.
        """
        if self._writer() is None:
            runs = [name.removesuffix("/run.json") for name in self._listed() if name.endswith("/run.json")]
            inside = f"; the runs in it are {', '.join(runs[:4])}{' and more' if len(runs) > 4 else ''}" if runs else ""
            msg = f"{self.url} is no mirror of a run: it has no {STATE_FILE}{inside}"
            raise InputError(msg)
        with RunFolder(self._folder).writing():
            self._take_over(only_read=True)

    def push(self, *, ended: bool = False) -> None:
        """Upload what changed in the folder; at the end also delete from the mirror what the run has no more."""
        with self._busy:
            known = dict(self._synced().files) if self._is_ours() else {}  # somebody deleted the mirror: all is new
            try:
                self._push(known)
                if ended and (self._folder / "run.json").exists():  # or somebody deleted the folder meanwhile
                    self._delete(known)
            finally:
                self._remember(known)
            self._sign(ended=ended)

    def _push_all(self) -> None:
        try:
            self.push(ended=True)
        except _TakenOver:
            raise
        except InputError as error:
            msg = f"{error}; {self._folder} has everything, and the same command uploads what is missing"
            raise InputError(msg) from error

    def _push(self, known: dict[str, Stamp]) -> None:
        """Upload what changed since a file had the stamp in `known`, and put the new stamps there."""
        with tempfile.TemporaryDirectory(prefix="avbench-mirror-") as work:
            lines = self._growing(Path(work))  # first, so that the clips that they name are found after it
            there = {**_stamps(self._folder), **{name: stamp for name, (_, stamp) in lines.items()}}
            changed = [name for name, stamp in there.items() if known.get(name) != stamp]
            for names in _in_order(changed):
                self._put([lines[name][0] if name in lines else self._folder / name for name in names], names)
                known.update({name: there[name] for name in names})
                if time.monotonic() - self._signed > PUSH_SECONDS and self._is_ours():
                    self._sign()

    def _delete(self, known: dict[str, Stamp]) -> None:
        """Delete what is in `known` and no longer in the folder, and take it out of `known`."""
        if gone := known.keys() - _stamps(self._folder).keys():
            named = {sample.path for sample in RunFolder(self._folder).samples().values()}
            for name in sorted(gone - named):  # a clip that was deleted to save space is kept in the mirror
                if self._exists(name):
                    self._asked(self._storage.rm_file, self._at(name))
            for name in gone:
                del known[name]

    def upload(self, files: Iterable[Path]) -> None:
        """Upload files of the folder."""
        for part in _parts([*files]):
            self._put(part, [*map(self._name, part)])

    def download(self, names: Iterable[str]) -> None:
        """Download files into the folder; each is complete or not there."""
        for part in _parts([*names]):
            places = [reading.inside(self._folder, name) for name in part]
            beside = [place.with_name(f".{place.name}.{os.getpid()}.part") for place in places]
            self._get(part, beside)
            for one, place in zip(beside, places, strict=True):
                one.replace(place)

    def download_plan(self) -> None:
        """Download what describes the run: its subsets, then run.json."""
        there = self._listed()
        self.download([*(name for name in there if name.startswith("subsets/")), "run.json"])

    def is_shared(self, session: str | None) -> bool:
        """Whether this process sees the folder of the process that has this session."""
        return self._synced().session == session

    def _take_over(self, *, only_read: bool = False) -> None:
        """Bring the folder to the state of the mirror, unless this folder's own process was its last writer."""
        writer, here = self._writer(), self._synced()
        if here.url != self.url:
            msg = f"{self._folder} has the mirror {here.url}: give that address, or delete {self._folder / STATE_FILE}"
            raise InputError(msg)
        now, own = _stamps(self._folder), writer is not None and here.is_of(writer)
        if "run.json" in here.files and "run.json" not in now:  # somebody emptied the folder
            own = False
        if own and writer is not None and writer.session == _SESSION and not only_read:
            return
        if own and only_read and now == here.files:
            return
        if writer is not None and writer.is_alive() and not (own or only_read):
            raise self._in_use(writer)
        there = self._listed()
        if "run.json" not in there or (own and not only_read):
            if only_read:
                msg = f"{self.url} has no run yet: it has no run.json"
                raise InputError(msg)
            # what somebody deleted or cut in the mirror is uploaded again
            self._remember({name: stamp for name, stamp in here.files.items() if there.get(name) == stamp[0]})
            return
        with tempfile.TemporaryDirectory(prefix="avbench-mirror-") as work:
            names = [name for part in _in_order([one for one in there if not one.startswith(_CLIPS)]) for name in part]
            new = self._described(Path(work), names)
            clips = {one.path: one.sha256 for one in new.samples().values() if one.path is not None}
            unknown = [name for name, stamp in now.items() if here.files.get(name) != stamp]
            if changed := self._not_in_mirror(unknown, clips, there):
                msg = (
                    f"{self._folder} has {len(changed)} files that its mirror {self.url} has not, or not with the same "
                    f"content, for example {changed[0]}: both changed since they were equal, or never were. Get the "
                    "mirror into another folder with `avbench runs pull`, and put both together with "
                    "`avbench runs merge`"
                )
                raise InputError(msg)
            lacking = [name for name, sha256 in clips.items() if not _holds(self._folder / name, sha256)]
            truths = {self._name(RunFolder(self._folder).truth_path(key)) for key in new.samples()}
            arriving = [name for name in (*lacking, *sorted(truths)) if name in there]
            self.download(arriving)
            for name in now.keys() - there.keys() - clips.keys() - truths:
                (self._folder / name).unlink()
            for name in names:  # the lines come after the clips that they name
                with writing_whole(reading.inside(self._folder, name)) as file, (new.path / name).open("rb") as source:
                    shutil.copyfileobj(source, file)
        stamps, equal = _stamps(self._folder), {*arriving, *names}
        files = {name: stamp for name, stamp in stamps.items() if name in equal or there.get(name) == stamp[0]}
        if own:
            self._remember(files)
        else:
            last = writer or _Writer()
            self._remember(files, session=last.session, taken=last.updated, signing="")

    def _described(self, work: Path, names: Sequence[str]) -> RunFolder:
        """All but the clips, downloaded in this order into an empty folder. Raises InputError if the run is damaged."""
        for part in _in_order(names):
            self._get(part, [reading.inside(work, name) for name in part])
        found = RunFolder(work)
        try:
            found.run()
            found.samples()
        except InputError as error:
            msg = f"the mirror is damaged: {str(error).replace(str(work), self.url)}"
            raise InputError(msg) from None
        return found

    def _not_in_mirror(self, names: Sequence[str], clips: Mapping[str, str | None], there: Iterable[str]) -> list[str]:
        """Those of some files of the folder whose content the mirror does not have, sorted.

        A command that was killed while it downloaded leaves files without a stamp that the mirror has.
        """
        others = [name for name in names if name in there and name not in clips]
        differ = {*names} - {*others} - {name for name in names if _holds(self._folder / name, clips.get(name))}
        for part in _parts(others):
            with tempfile.TemporaryDirectory(prefix="avbench-mirror-") as work:
                copies = [Path(work) / str(number) for number in range(len(part))]
                self._get(part, copies)
                for name, copy in zip(part, copies, strict=True):
                    here, content = (self._folder / name).read_bytes(), copy.read_bytes()
                    if content != here and not (name.endswith(".jsonl") and content.startswith(here)):
                        differ.add(name)
        return sorted(differ)

    def _is_ours(self) -> bool:
        """Whether this process has signed the mirror; False if nobody has. Raises _TakenOver if another one has."""
        writer = self._writer()
        if writer is None or not writer.session:
            return False
        if writer.session != _SESSION:
            msg = (
                f"{self.url} was taken over by process {writer.process} on {writer.host}, because this one gave no "
                f"sign for {_SILENT_SECONDS:.0f} s; {self._folder} has everything that was made here: give the same "
                "command again when the other one has ended"
            )
            raise _TakenOver(msg)
        return True

    def _in_use(self, writer: _Writer) -> InputError:
        age = round(time.time() - writer.updated)
        ago = f"{age} s ago" if age >= 0 else f"{-age} s ahead of this machine's clock"
        return InputError(
            f"{self.url} is being written by process {writer.process} on {writer.host} (last sign {ago}); wait until "
            f"it has ended. If it was killed, the same command works once its last sign is {_SILENT_SECONDS:.0f} s "
            f"old, or after you delete {self.url}/{STATE_FILE}"
        )

    def _upload_now_and_then(self, stop: threading.Event) -> None:
        pause = PUSH_SECONDS
        while not stop.wait(pause):
            begun = time.monotonic()
            with suppress(InputError, OSError):  # the next one tries again; an error of the last one is shown
                self.push()
            pause = max(PUSH_SECONDS, _PAUSES * (time.monotonic() - begun))

    def _growing(self, work: Path) -> dict[str, tuple[Path, Stamp]]:
        """Copies of the files that lines are appended to, as they are now, with their stamps."""
        found = {}
        places = [self._folder / "samples.jsonl", *sorted((self._folder / "features").glob("*/rows.jsonl"))]
        for number, place in enumerate(place for place in places if place.is_file()):
            stamp, copy = _stamp(place), work / str(number)
            shutil.copyfile(place, copy)
            found[self._name(place)] = copy, stamp
        return found

    def _sign(self, *, ended: bool = False) -> None:
        """Record this process as the mirror's writer; first in the folder, so that it knows its signature if killed."""
        self._remember(self._synced().files, signing=_SESSION)
        writer = _Writer(_SESSION, platform.node(), os.getpid(), time.time(), ended)
        with tempfile.TemporaryDirectory(prefix="avbench-mirror-") as work:
            write_json(path := Path(work) / STATE_FILE, asdict(writer))
            self._put([path], [STATE_FILE])
        self._remember(self._synced().files, session=_SESSION, taken=None, signing="")
        self._signed = time.monotonic()

    def _writer(self) -> _Writer | None:
        """The mirror's last writer: one without a name if somebody deleted its record; None if no run is there."""
        if not self._exists(STATE_FILE):
            return _Writer(ended=True) if self._exists("run.json") else None
        content, where = self._asked(self._storage.cat_file, self._at(STATE_FILE)), f"{self.url}/{STATE_FILE}"
        return reading.shaped(reading.decoded(content, where), _Writer, where)

    def _synced(self) -> _Synced:
        path = self._folder / STATE_FILE
        return reading.read_json(path, _Synced) if path.exists() else _Synced(self.url)

    def _remember(self, files: Mapping[str, Stamp], **changes: str | float | None) -> None:
        now = replace(self._synced(), files=dict(sorted(files.items())), **changes)
        write_json(self._folder / STATE_FILE, asdict(now))

    def _listed(self) -> dict[str, int]:
        """The sizes of the mirror's files, by name; of those that begin with a dot, none is the run's."""
        self._storage.invalidate_cache()
        found = self._asked(self._storage.find, self._root, None, False, True)
        sizes = {str(path).removeprefix(self._root).lstrip("/"): one["size"] for path, one in sorted(found.items())}
        return {name: size for name, size in sizes.items() if not name.rpartition("/")[2].startswith(".")}

    def _exists(self, name: str) -> bool:
        self._storage.invalidate_cache()
        return bool(self._asked(self._storage.exists, self._at(name)))

    def _put(self, sources: Sequence[Path], names: Sequence[str]) -> None:
        self._asked(self._storage.put, [*map(str, sources)], [*map(self._at, names)])

    def _get(self, names: Sequence[str], places: Sequence[Path]) -> None:
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
        self._asked(self._storage.get, [*map(self._at, names)], [*map(str, places)])

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _asked(self, call: Callable[..., Any], *given: Any) -> Any:
        """What a call to the storage returns. Raises InputError instead of what it raises."""
        try:
            return call(*given)
        except Exception as error:
            msg = f"the mirror {self.url} cannot be used: {first_line(error)}"
            raise InputError(msg) from error


def _opened(url: str) -> tuple[Any, str]:
    """The file system of fsspec for an address, and the path in it."""
    import fsspec

    protocol = url.partition("://")[0]
    if "://" not in url or protocol not in fsspec.available_protocols():
        msg = f"{url!r} is no address that fsspec knows: write, for example, s3://bucket/runs or gs://bucket/runs"
        raise InputError(msg)
    try:
        storage, root = fsspec.url_to_fs(url, **({"auto_mkdir": True} if protocol in ("file", "local") else {}))
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        hint = f"pip install {package}" if package else first_line(error)
        msg = f"{url} needs another package: {hint}"
        raise InputError(msg) from None
    except Exception as error:
        msg = f"the mirror {url} cannot be used: {first_line(error)}"
        raise InputError(msg) from error
    return storage, str(root).rstrip("/")


def _stamps(folder: Path) -> dict[str, Stamp]:
    """The stamp of every file of a run folder, by name; not of those whose name begins with a dot."""
    return {
        path.relative_to(folder).as_posix(): _stamp(path)
        for path in sorted(folder.rglob("*"))
        if not path.name.startswith(".") and path.is_file()
    }


def _stamp(path: Path) -> Stamp:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _holds(path: Path, sha256: str | None) -> bool:
    return sha256 is not None and path.is_file() and holds(path, sha256)


def _in_order(names: Sequence[str]) -> Iterator[list[str]]:
    """Names in groups that are uploaded or downloaded one after another, so that what makes others valid comes last."""
    yield from _parts([name for name in names if name not in _LAST])
    yield from ([name] for name in _LAST if name in names)


def _parts(items: list[Found]) -> Iterator[list[Found]]:
    for start in range(0, len(items), _TOGETHER):
        yield items[start : start + _TOGETHER]
