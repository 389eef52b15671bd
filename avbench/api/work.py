"""Defines how work is done and reported: settings that change no number, and where messages and progress go."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from avbench.core import InputError, Shard, Subset, plain_number, shown
from avbench.features import devices
from avbench.metrics.table import problems
from avbench.storage.mirrors.mirror import Mirrors
from avbench.storage.workers.ray_actors import RayActors
from avbench.storage.workers.worker_pool import default_workers


class Reporter(Protocol):
    """Where messages and progress go. The command line prints them; `Silent` keeps the messages."""

    notes: list[str]
    """The sentences that were noted."""

    def note(self, sentence: str) -> None:
        """Take a sentence for the user."""
        ...

    def begun(self, folder: Path) -> None:
        """Called when a run folder has its run.json, before the first clip is made."""
        ...

    def preliminary(self, sentence: str) -> None:
        """Take the preliminary verdict on a run that is still being measured."""
        ...

    def follow(self, stage: str, count: int, items: Iterable[Any], unit: str = "clips") -> None:
        """Take every item of a long job, which has this name and this many items, and show progress."""
        ...


def reporter_of(reporter: Reporter | None) -> Reporter:
    """The reporter; `Silent` for None. Raises InputError if it lacks something that a `Reporter` has."""
    found = Silent() if reporter is None else reporter
    if lacking := [name for name in ("notes", "note", "begun", "preliminary", "follow") if not hasattr(found, name)]:
        msg = f"reporter {shown(reporter)} has no {lacking[0]}: give an object like avbench.Silent(), or leave it out"
        raise InputError(msg)
    return found


class Silent:
    """Keeps the notes and shows no progress."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        """Keep a sentence, unless it was kept already."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def begun(self, folder: Path) -> None:
        """Do nothing."""

    def preliminary(self, sentence: str) -> None:
        """Do nothing: it is out of date when the comparison is there."""

    def follow(self, stage: str, count: int, items: Iterable[Any], unit: str = "clips") -> None:
        """Take every item."""
        for _ in items:
            pass


@dataclass(frozen=True)
class Work:
    """Settings of the work itself; only the precision changes numbers, and stands in their protocols."""

    workers: int | RayActors | None = None
    """Worker processes of this machine; one per core where not given, 0 for none. Or Ray's actors."""
    replace: bool = False
    """Whether clips of another model, or clips that have changed, are deleted and made again."""
    reporter: Reporter = field(default_factory=Silent)
    device: str = "auto"
    """Where networks measure: ``auto`` (the GPUs, if there are any), ``cpu``, ``cuda`` or ``cuda:0,1``."""
    precision: str | None = None
    """Of I3D and LPIPS: ``fp32`` or ``bf16``; None means that of a run's rows, or ``fp32`` where there are none."""
    mirrors: Mirrors | None = None
    """Where run folders are copied to while they are written."""

    def lose_mirror(self, run: Path, sentence: str) -> None:
        """Note that another process took the mirror of a run folder over, and do without it from now on."""
        if self.mirrors is not None:
            self.mirrors.lost[run] = sentence
        self.reporter.note(sentence)

    @property
    def processes(self) -> int:
        """How many processes of this machine."""
        return self.workers if isinstance(self.workers, int) else default_workers()

    @property
    def pool(self) -> int | RayActors:
        """What clips are made and measured by: so many processes, or Ray's actors."""
        if isinstance(self.workers, RayActors):
            return dataclasses.replace(self.workers, device=self.device)
        return self.processes


@dataclass(frozen=True)
class SamplingJob:
    """What a model is asked to make: prompts, seeds and settings."""

    subsets: Sequence[Subset]
    seeds: Sequence[int] = (0,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    preset: Mapping[str, Any] | None = None
    """The record of a paper's preset, for run.json."""
    shard: Shard | None = None
    """The part of the clips to make; all of them if None."""
    renew: bool = False
    """Whether clips whose origin has changed are made again without `Work.replace`, with a note."""
    placed_by: str | None = "out (--out)"
    """The option that decides the run folder, for error messages."""


def work_of(
    workers: int | RayActors | None,
    replace: bool,
    reporter: Reporter | None,
    device: str,
    precision: str | None,
    mirrors: Mirrors | None = None,
) -> Work:
    """Settings of the work, checked, with a note on each metric that cannot be used.

    Raises:
        InputError: the workers are no number, a device or a precision is unknown, or the reporter is none.
    """
    workers, device = workers_asked(workers), str(device)  # a torch.device too
    if not isinstance(workers, RayActors):  # whose machines may have other devices
        devices.require(device)  # before anything is made
    devices.require_precision(precision)
    reporter = reporter_of(reporter)
    for sentence in problems().values():
        reporter.note(sentence)
    return Work(workers, replace, reporter, device, precision, mirrors)


def workers_asked(workers: int | RayActors | None) -> int | RayActors | None:
    """Workers as they are. Raises InputError unless they are a whole number from 0, RayActors or None."""
    plain = plain_number(workers)
    if plain is not None and not isinstance(plain, RayActors) and (type(plain) is not int or plain < 0):
        msg = f"workers is {shown(workers)}; it must be a whole number from 0 (0 works in this process), or RayActors"
        raise InputError(msg)
    return plain
