"""Measures every clip of a pool once, and stores one row per clip in a work folder: the resume point.

A row belongs to the bytes that were measured (sha256), whatever the file is called, and to the protocols in use then.
A clip that has a row is not measured again. A clip that cannot be measured has a row with the reason, which names its
file, and so belongs to that file, too. Where the reason is the machine's, such as a network folder that is away, the
clip is tried again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avbench.core import InputError, MediaError, NotMeasurable, digest
from avbench.storage.content import content_sha256
from avbench.storage.media import read_clip
from avbench.storage.reading import file_sha256, stream_lines
from avbench.storage.reading.files import os_reason
from avbench.storage.runs.folder import RunFolder
from avbench.storage.runs.retried import UNREADABLE, is_the_machines
from avbench.storage.workers import worker_pool
from avbench.storage.writing import append_line
from avbench.subsets.datasets import Pool


@dataclass(frozen=True)
class Measured:
    """A row of the work folder: the measures of one clip."""

    id: str
    path: str
    stamp: str
    sha256: str | None
    values: dict[str, float | str | None] | None
    missing: str | None

    @property
    def key(self) -> str | tuple[str, str]:
        """What the row belongs to: the sha256 of a clip, or path and sha256 of one that could not be measured."""
        return self.sha256 if self.sha256 and self.values else (self.path, self.stamp)


@dataclass(frozen=True)
class Task:
    """A clip to measure."""

    id: str
    path: Path
    stamp: str
    """The sha256 of the file's bytes when the task was made."""


def rows_path(work: Path) -> Path:
    """The file that holds the rows of the present protocols."""
    from avbench.curation.measures import CurationProtocol
    from avbench.features.audio.onsets import OnsetProtocol
    from avbench.features.flow.protocol import FlowProtocol

    whole = digest([one.values() for one in (CurationProtocol(), FlowProtocol(), OnsetProtocol())])
    return work / f"rows-{whole[:12]}.jsonl"


def keys(path: Path) -> tuple[str, tuple[str, str]] | tuple[()]:
    """The keys that a row of a file can have, its sha256 first; none if there is no file that can be read."""
    try:
        sha256 = content_sha256(path) if path.is_file() else None
    except OSError:
        return ()
    return (sha256, (str(path.resolve()), sha256)) if sha256 else ()


def unmeasured(pool: Pool, work: Path) -> list[Task]:
    """Those of the pool's clips that have no row yet. Raises InputError as the pool does."""
    known = {row.key for row in stream_lines(rows_path(work), Measured) if not is_the_machines(row.missing)}
    tasks = []
    for entry in pool.entries():
        if entry.path is not None and (found := keys(entry.path)) and not known & {*found}:
            tasks.append(Task(entry.id, entry.path, found[0]))
    return tasks


def measure(tasks: Sequence[Task], work: Path, *, workers: int = 0) -> Iterator[str]:
    """Measure clips, in any order, and yield the id of each when its row is on disk.

    Raises:
        InputError: another process writes the work folder.
    """
    path = rows_path(work)
    with RunFolder(work, "--work").writing():
        for task, found in worker_pool.LocalPool(workers).map_unordered(_Worker, tasks):
            crashed = isinstance(found, worker_pool.WorkerCrashed)
            row = {**_row(task), "missing": worker_pool.CRASHED} if crashed else found
            append_line(path, row, durable=True)
            yield task.id


def _row(task: Task) -> dict[str, Any]:
    """A row without values; the caller adds the reason."""
    return {"id": task.id, "path": str(task.path.resolve()), "stamp": task.stamp, "sha256": None, "values": None}


class _Worker:
    """Measures one clip; built once in each process."""

    def __init__(self) -> None:
        from avbench.curation.measures import Measured

        self._measured = Measured()

    def __call__(self, task: Task) -> dict[str, Any]:
        row = _row(task)
        try:
            row["sha256"] = file_sha256(task.path)
        except (InputError, OSError) as error:  # it was read when the task was made
            return {**row, "missing": _unreadable(error, task.path)}
        try:
            values = self._measured(read_clip(task.path))
            plain = {name: round(value, 9) if isinstance(value, float) else value for name, value in values.items()}
            return {**row, "values": plain, "missing": None}
        except (MediaError, NotMeasurable, OSError) as error:
            of_system = any(isinstance(one, OSError | MemoryError) for one in (error, error.__cause__))
            if of_system or not task.path.exists():
                return {**row, "missing": _unreadable(error, task.path)}
            return {**row, "missing": str(error).replace(str(task.path), task.path.name)}


def _unreadable(error: Exception, path: Path) -> str:
    reason = os_reason(error).removeprefix(f"{path} cannot be read: ").replace(str(path), path.name)
    return f"{UNREADABLE}: {reason[:1].lower()}{reason[1:]}"
