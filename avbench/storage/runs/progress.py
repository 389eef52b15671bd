"""Records the progress of a command that writes a run folder, for others to read while it works or after it died.

The record is the file ``.progress.json``, which is replaced every few seconds. It describes the last command and is not
part of the run: nothing is computed from it.
"""

import contextlib
import os
import platform
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from avbench.core import InputError
from avbench.storage.reading import read_json
from avbench.storage.runs.folder import PROGRESS_FILE
from avbench.storage.workers import worker_pool
from avbench.storage.writing import write_json

Item = TypeVar("Item")
_SECONDS = 5.0
"""Between two records."""


@dataclass(frozen=True)
class Progress:
    """How far a command has come. Times are seconds since 1970."""

    stage: str
    """``sample`` or ``measure``."""
    done: int
    """Items that this command has done, without those done before."""
    total: int
    """Items that this command had to do."""
    started: float
    updated: float
    host: str
    process: int
    peak_memory_mib: float
    """Peak memory of the largest process, if known."""
    ended: bool = False
    """Whether the command did all its items."""

    @property
    def rate(self) -> float | None:
        """Clips per second since the command began; None if nothing is done yet."""
        seconds = self.updated - self.started
        return self.done / seconds if self.done and seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at this rate."""
        return None if self.rate is None else (self.total - self.done) / self.rate


def recorded(folder: Path, stage: str, total: int, items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items of a job, and record in a run folder how many are done."""
    begun = time.time()
    progress = Progress(stage, 0, total, begun, begun, platform.node(), os.getpid(), 0.0)
    place = folder.absolute() / PROGRESS_FILE  # a model's code may change the working folder

    def written(progress: Progress) -> float:
        peaks = [worker_pool.peak_memory_mib(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        peak = max(*peaks, worker_pool.most_memory_mib)
        with contextlib.suppress(OSError, InputError):  # a full disk is for the job itself to report
            write_json(place, asdict(replace(progress, updated=time.time(), peak_memory_mib=peak)))
        return time.monotonic()

    last = written(progress)
    try:
        for item in items:
            progress = replace(progress, done=progress.done + 1)
            if time.monotonic() - last >= _SECONDS:
                last = written(progress)
            yield item
        progress = replace(progress, ended=True)
    finally:
        written(progress)
        if close := getattr(items, "close", None):  # a generator that is stopped ends its workers
            close()


def read_progress(folder: Path) -> Progress | None:
    """Return the progress of the last command in a run folder, or None if there is no record."""
    place = folder / PROGRESS_FILE
    return read_json(place, Progress) if place.is_file() else None
