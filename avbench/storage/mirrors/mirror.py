"""Keeps a copy of a run folder in object storage, such as S3 or Google Cloud Storage: its mirror.

A command that writes the folder first takes over what another machine has put into the mirror since. While it works,
and when it ends, it uploads what is new: clips before the lines that name them, and of files that belong together the
last one last, as they are written to disk. So whatever moment a machine is lost in, the mirror is a run folder that
another machine can continue. Workers that do not see the command's disk hand their clips over through the mirror.

This module moves files. `state` knows what lies on both sides and who wrote it last, `runs` compares the runs on both
sides, and `object_storage` reads and writes the storage.
"""

import filecmp
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from avbench.core import InputError, Sample
from avbench.storage import reading
from avbench.storage.mirrors import state
from avbench.storage.mirrors.runs import clips_in, downloaded, with_other_lines
from avbench.storage.mirrors.state import (
    CLIPS,
    STATE_FILE,
    Sides,
    Stamp,
    Synced,
    TakenOver,
    Writer,
    has_clip,
    in_order,
    parts,
    stamp_of,
    stamps_in,
)
from avbench.storage.object_storage import Storage
from avbench.storage.runs.folder import RunFolder, runs_inside
from avbench.storage.writing import wait_until_on_disk, writing_whole

PUSH_SECONDS = 30.0
"""The least time between two uploads. An upload that takes long is followed by a longer pause."""
_PAUSES = 5
"""A pause is at least so many times as long as the upload before it."""


@dataclass(frozen=True)
class Mirrors:
    """The mirrors of all run folders in one folder: that of ``OUT/NAME`` is ``URL/NAME``."""

    out: Path
    url: str
    lost: dict[Path, str] = field(default_factory=dict, compare=False)
    """Run folder → the sentence on its mirror, which another process took over. The work on it goes on without."""

    def __post_init__(self) -> None:
        """Raise InputError if the address cannot be used. Nothing is read there yet."""
        Storage(self.url)

    def of(self, run: Path) -> "Mirror | None":
        """The mirror of a run folder; None if the folder lies elsewhere, or its mirror is lost."""
        if run in self.lost or not run.is_relative_to(self.out):
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
        if self.elsewhere is not None and not has_clip(path, sample.sha256):
            self.elsewhere.download_clip(sample)
        return path


@dataclass(frozen=True)
class _Found:
    """What a command finds on both sides when it begins."""

    writer: Writer | None
    """The mirror's last one."""
    synced: Synced
    """What was last equal on both sides."""
    files: Mapping[str, Stamp]
    """Of the folder."""
    own: bool
    """Whether nobody else wrote the mirror since both were equal, and nobody emptied the folder."""


class Mirror:
    """The mirror of one run folder.

    Every method raises InputError if the storage cannot be reached or refuses.
    """

    def __init__(self, folder: Path, url: str) -> None:
        """Nothing is read or written yet. Raises InputError if fsspec cannot use the address."""
        folder = folder.absolute()  # a thread uploads it while a model's code may be in another working folder
        self._sides = Sides(folder, url)
        self._folder, self._storage, self.url = folder, self._sides.storage, self._sides.url
        self._busy, self._losing = threading.Lock(), threading.Lock()
        self._lost: TakenOver | None = None
        self._arrived: dict[str, Stamp] = {}
        """Files that workers uploaded and this process downloaded: they are in the mirror already."""
        self.damage: str | None = None
        """A sentence on clips of the mirror that were to be downloaded and are damaged there."""

    @contextmanager
    def kept(self, lost: Callable[[str], None] | None = None) -> Iterator[None]:
        """Take over what the mirror has, and upload what the block writes to the folder. The folder must be locked.

        Args:
            lost: gets a sentence as soon as another process has taken the mirror over, which is possible after a long
                silence. Nothing more is uploaded, and the block goes on. Without it the sentence is raised at the end.

        Raises:
            InputError: another process writes the mirror, or both sides changed since they were equal, or the last
                upload failed.
        """
        with self._sides.cleared():
            self._sides.sign_after(self._take_over())
            with self._at_intervals(self._sides.sign_again, lost):
                try:
                    with self._at_intervals(self.push, lost, _PAUSES):
                        yield
                except BaseException as error:
                    try:
                        self._push_all()
                    except InputError as why:
                        error.add_note(str(why))
                    raise
                try:
                    self._push_all()
                except TakenOver as error:
                    if lost is None:
                        raise
                    self._give_up(error, lost)

    @contextmanager
    def _at_intervals(
        self, work: Callable[[], None], lost: Callable[[str], None] | None, pauses: int = 0
    ) -> Iterator[None]:
        """Do some work on the mirror now and then while the block runs, until another process has taken it over."""

        def repeat() -> None:
            pause = PUSH_SECONDS
            while not stop.wait(pause):
                begun = time.monotonic()
                try:
                    work()
                except TakenOver as error:
                    return self._give_up(error, lost)
                except (InputError, OSError):
                    pass  # the next time tries again; an error of the last upload is shown
                pause = max(PUSH_SECONDS, pauses * (time.monotonic() - begun))

        stop, working = threading.Event(), threading.Thread(target=repeat, daemon=True)
        working.start()
        try:
            yield
        finally:
            stop.set()
            working.join()  # or it could write after the last upload

    def _give_up(self, error: TakenOver, lost: Callable[[str], None] | None) -> None:
        """Write no more, and say so once."""
        with self._losing:
            if self._lost is None:
                self._lost = error
                if lost is not None:
                    lost(str(error))

    def place(self) -> Place:
        """What workers need to open the folder. What describes the run is in the mirror afterwards."""
        self.push()
        return Place(self._folder, self.url, state.SESSION)

    def collect(self, sample: Sample) -> None:
        """Download the clip of a worker that handed it over, and its ground truth, unless they are here."""
        if sample.path is None or has_clip(self._folder / sample.path, sample.sha256):
            return
        if self._lost is not None:  # and with it the way to the clip
            raise self._lost
        truth = self._name(RunFolder(self._folder).truth_path(sample.key))
        beside = [truth] if self._storage.has(truth) else []
        self.download(beside)
        self.download_clip(sample)
        self._arrived |= {name: stamp_of(self._folder / name) for name in (*beside, sample.path)}

    def pull(self) -> list[str]:
        """Make the folder equal to the mirror, also while another process writes the mirror.

        Returns the clips that samples.jsonl names and that neither side has.

        Raises:
            InputError: nothing is there, or the folder has changed since both were equal, or it is being written. Or
                clips of the mirror are damaged: then the folder has everything else.
        """
        if self._sides.writer() is None:
            runs = [name.removesuffix("/run.json") for name in self._storage.sizes() if name.endswith("/run.json")]
            inside = runs_inside(runs)
            msg = f"{self.url} is no mirror of a run: it has no {STATE_FILE}{inside}"
            raise InputError(msg)
        with RunFolder(self._folder).writing(), self._sides.cleared():
            self._read()
        if self.damage is not None:
            raise InputError(self.damage)
        return [name for name in clips_in(self._folder) if not (self._folder / name).exists()]

    def push(self, *, ended: bool = False) -> None:
        """Upload what changed in the folder; at the end also delete from the mirror what the run has no more."""
        with self._busy:
            if self._lost is not None:
                raise self._lost
            ours = self._sides.is_ours()
            # if somebody deleted the mirror, all is new
            known = {**self._sides.synced().files, **self._arrived} if ours else {}
            try:
                self._push(known)
                if ended and (self._folder / "run.json").exists():  # or somebody deleted the folder meanwhile
                    self._delete(known)
            finally:
                self._sides.remember(known)
            self._sides.sign(ended=ended)

    def _push_all(self) -> None:
        try:
            self.push(ended=True)
        except TakenOver:
            raise
        except (InputError, OSError) as error:  # OSError: of the folder's own disk, which may be full
            msg = f"{error}; {self._folder} has everything, and the same command uploads what is missing"
            raise InputError(msg) from error

    def _push(self, known: dict[str, Stamp]) -> None:
        """Upload what changed since a file had the stamp in `known`, and put the new stamps there."""
        with self._sides.working() as work:
            lines = self._growing(work)  # first, so that the clips that they name are found after it
            there = {**stamps_in(self._folder), **{name: stamp for name, (_, stamp) in lines.items()}}
            changed = self._whole([name for name, stamp in there.items() if known.get(name) != stamp])
            sizes = {name: stamp[0] for name, (_, stamp) in lines.items()}
            least = {name: min(size, sizes.get(name, 0)) for name, size in self._sides.lines.items()}
            if least != self._sides.lines:  # the run was begun anew: the smaller files must not look like cut ones
                self._sides.lines = least
                self._sides.sign()
            for names in in_order(changed):
                if self._lost is not None:
                    raise self._lost
                self._storage.put([lines[name][0] if name in lines else self._folder / name for name in names], names)
                known.update({name: there[name] for name in names})
            self._sides.lines = sizes

    def _whole(self, names: Sequence[str]) -> list[str]:
        """These files of the folder without damaged clips, which must not replace whole ones in the mirror."""
        clips = clips_in(self._folder) if any(name.startswith(CLIPS) for name in names) else {}
        return [name for name in names if name not in clips or has_clip(self._folder / name, clips[name])]

    def verify(self) -> tuple[list[str], list[str]]:
        """Download every file of the mirror and compare it with the folder's.

        Returns:
            The names of files that are damaged in the mirror, which the next push uploads; and of damaged clips that
            the folder does not have.
        """
        known, clips = self._sides.synced().files, clips_in(self._folder)
        here = [name for name, stamp in stamps_in(self._folder).items() if known.get(name) == stamp]
        away = [name for name in self._storage.sizes() if name in clips and not (self._folder / name).exists()]
        damaged = []
        for part in parts([*here, *away]):
            with self._sides.working() as work:
                copies = [work / str(number) for number in range(len(part))]
                self._storage.get(part, copies)
                for name, copy in zip(part, copies, strict=True):
                    path = self._folder / name
                    whole = filecmp.cmp(path, copy, False) if path.exists() else has_clip(copy, clips[name])
                    damaged += [] if whole else [name]
        with self._busy:
            files = self._sides.synced().files
            self._sides.remember({name: stamp for name, stamp in files.items() if name not in damaged})
        return [name for name in damaged if name not in away], [name for name in damaged if name in away]

    def _delete(self, known: dict[str, Stamp]) -> None:
        """Delete what is in `known` and no longer in the folder, and take it out of `known`."""
        if gone := known.keys() - stamps_in(self._folder).keys():
            named = {sample.path for sample in RunFolder(self._folder).samples().values()}
            for name in sorted(gone - named):  # a clip that was deleted to save space is kept in the mirror
                self._storage.delete(name)
            for name in gone:
                del known[name]

    def upload(self, files: Iterable[Path]) -> None:
        """Upload files of the folder."""
        for part in parts([*files]):
            self._storage.put(part, [*map(self._name, part)])

    def download(self, names: Iterable[str], clips: Mapping[str, str] | None = None) -> list[str]:
        """Download files into the folder; each is complete or not there.

        Returns those that do not have the sha256 in `clips`; they are left out.
        """
        damaged = []
        for part in parts([*names]):
            places = [reading.inside(self._folder, name) for name in part]
            with self._sides.working() as work:
                arrived = [work / str(number) for number in range(len(part))]
                self._storage.get(part, arrived)
                for name, one, place in zip(part, arrived, places, strict=True):
                    if clips and name in clips and not has_clip(one, clips[name]):
                        damaged.append(name)
                        continue
                    place.parent.mkdir(parents=True, exist_ok=True)
                    wait_until_on_disk(one)  # before a line names it
                    one.replace(place)
        return damaged

    def download_clip(self, sample: Sample) -> None:
        """Download the clip of a sample. Raises InputError if it is damaged in the mirror."""
        clip = {str(sample.path): str(sample.sha256)}
        if damaged := self.download(clip, clip):
            raise InputError(self._damaged(damaged))

    def _damaged(self, clips: Sequence[str]) -> str:
        return (
            f"the mirror {self.url} has damaged clips ({len(clips)}, for example {clips[0]}, whose sha256 is not "
            "the one in samples.jsonl); they are left out. `avbench runs push --verify` on a machine that has them "
            "uploads them again; if none has, the command that made the run makes them again with "
            "replace=True (--replace)"
        )

    def download_plan(self) -> None:
        """Download what describes the run: its subsets, then run.json."""
        there = self._storage.sizes()
        self.download([*(name for name in there if name.startswith("subsets/")), "run.json"])

    def is_shared(self, session: str | None) -> bool:
        """Whether this process sees the folder of the process that has this session."""
        return self._sides.synced().session == session

    def _take_over(self) -> Writer | None:
        """Before this process writes: bring the folder to the state of the mirror, unless the folder's own process was
        its last writer.

        Returns the mirror's last writer.
        """
        found = self._found()
        writer = found.writer
        if writer is not None and found.own and writer.is_this_process():
            return writer
        if writer is not None and not found.own and writer.is_alive():
            raise self._sides.in_use(writer)
        there = self._storage.sizes()
        if "run.json" in there and not found.own:
            self._follow(found, there)
        else:  # what somebody deleted or cut in the mirror is uploaded again
            files = found.synced.files
            self._sides.remember({name: stamp for name, stamp in files.items() if there.get(name) == stamp[0]})
        return writer

    def _read(self) -> None:
        """Bring the folder to the state of the mirror, also while another process writes it."""
        found, there = self._found(), self._storage.sizes()
        if "run.json" not in there:
            msg = f"{self.url} has no run yet: it has no run.json"
            raise InputError(msg)
        equal = found.synced.files
        if found.own and (lacking := [name for name, stamp in equal.items() if there.get(name) != stamp[0]]):
            raise self._sides.lacking(lacking)
        if not found.own or found.files != equal or there.keys() - equal.keys():
            self._follow(found, there)

    def _found(self) -> _Found:
        """Look at both sides. Raises InputError if the folder has another mirror."""
        writer, synced = self._sides.writer(), self._sides.synced()
        self._sides.lines = {} if writer is None else writer.lines
        if synced.url != self.url:
            msg = (
                f"{self._folder} has the mirror {synced.url}: give that address, or delete {self._folder}/{STATE_FILE}"
            )
            raise InputError(msg)
        files = stamps_in(self._folder)
        own = writer is not None and (synced.is_of(writer, self._folder) or self._sides.is_untouched(writer))
        emptied = "run.json" in synced.files and "run.json" not in files  # by somebody
        return _Found(writer, synced, files, own and not emptied)

    def _follow(self, found: _Found, there: Mapping[str, int]) -> None:
        """Make the folder's files those of the mirror, and record that they are equal.

        Args:
            found: what both sides are.
            there: the mirror's files, with their sizes.

        Raises:
            InputError: the mirror lost lines, or the folder has lines or files that the mirror has not.
        """
        last = found.writer or Writer()
        for name, size in last.lines.items():
            if there.get(name, 0) < size:
                raise self._sides.cut(name, there.get(name, 0), last)
        files = self._download_all(found, there)
        if found.own:
            self._sides.remember(files)
        else:
            self._sides.remember(files, session=last.session, taken=last.updated, signing="")

    def _download_all(self, found: _Found, there: Mapping[str, int]) -> dict[str, Stamp]:
        """Download what the folder lacks, delete what the mirror lacks, and return the stamps of what both have."""
        with self._sides.working() as work:
            names = [name for part in in_order([one for one in there if not one.startswith(CLIPS)]) for name in part]
            new = downloaded(self._sides, work, names)
            clips, ours = clips_in(new.path), clips_in(self._folder)
            unknown = [name for name, stamp in found.files.items() if found.synced.files.get(name) != stamp]
            unknown = [name for name in unknown if name not in clips or ours.get(name) != clips[name]]
            changed = self._sides.not_in_mirror(unknown, clips, there, work)
            if changed := changed or with_other_lines(self._folder, new, found.files, recorded=bool(self._sides.lines)):
                raise self._sides.lacking(changed) if found.own else self._sides.both_changed(changed)
            lacking = [name for name, sha256 in clips.items() if not has_clip(self._folder / name, sha256)]
            truths = {self._name(RunFolder(self._folder).truth_path(key)) for key in new.samples()}
            arriving = [name for name in (*lacking, *sorted(truths)) if name in there]
            if damaged := self.download(arriving, clips):
                self.damage = self._damaged(damaged)
            for name in found.files.keys() - there.keys() - clips.keys() - truths:
                (self._folder / name).unlink()
            for name in names:  # the lines come after the clips that they name
                with writing_whole(reading.inside(self._folder, name)) as file, (new.path / name).open("rb") as source:
                    shutil.copyfileobj(source, file)
        stamps, equal = stamps_in(self._folder), {*arriving, *names} - {*damaged}
        return {name: stamp for name, stamp in stamps.items() if name in equal or there.get(name) == stamp[0]}

    def _growing(self, work: Path) -> dict[str, tuple[Path, Stamp]]:
        """Copies of the files that lines are appended to, as they are now, with their stamps."""
        found = {}
        places = [self._folder / "samples.jsonl", *sorted((self._folder / "features").glob("*/rows.jsonl"))]
        for number, place in enumerate(place for place in places if place.is_file()):
            stamp, copy = stamp_of(place), work / str(number)
            shutil.copyfile(place, copy)
            found[self._name(place)] = copy, stamp
        return found

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()
