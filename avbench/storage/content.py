"""Is it still the same file? Its content decides; it is read again only where it can have changed.

`content_sha256` is the sha256 of a file's bytes. It is remembered under the file's device, inode, size, and the times
of the last change of its content and of its status, in ``hashes.sqlite`` in $XDG_CACHE_HOME/avbench or
~/.cache/avbench. The time of the last change of status is set by the system alone, so that copying, moving or touching
another file into the place of one is noticed. A file that changed less than two seconds before it was read is not
remembered, because clocks tick; where the cache cannot be used, files are read each time.
"""

import contextlib
import os
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from avbench.core import InputError, Sample
from avbench.storage.run_folder import RunFolder, file_sha256

_MAKE_TABLE = (
    "CREATE TABLE IF NOT EXISTS hashes (device, inode, size, modified, changed, sha256, "
    "PRIMARY KEY (device, inode)) WITHOUT ROWID"
)
_TICK_NS = 2 * 10**9


def cache_folder() -> Path:
    """Where avbench keeps what can be made again: $XDG_CACHE_HOME/avbench or ~/.cache/avbench. Not made here."""
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "avbench"


class _Hashes:
    """What was hashed earlier; one a process. Whatever is wrong with the cache's file makes it empty."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened_as: tuple[Path, int] | None = None
        self._open: sqlite3.Connection | None = None

    def find(self, state: os.stat_result) -> str | None:
        """The hash of the file that is in this state, where it is known."""
        with self._lock, contextlib.suppress(sqlite3.Error, OSError):
            query = "SELECT sha256 FROM hashes WHERE (device, inode, size, modified, changed) = (?, ?, ?, ?, ?)"
            found = self._connection().execute(query, _stamp(state)).fetchone()
            return found[0] if found else None
        return None

    def keep(self, state: os.stat_result, sha256: str) -> None:
        """Remember a hash, or do nothing where that is impossible."""
        with self._lock, contextlib.suppress(sqlite3.Error, OSError), self._connection() as connection:
            connection.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?)", (*_stamp(state), sha256))

    def _connection(self) -> sqlite3.Connection:
        file = cache_folder() / "hashes.sqlite"
        if self._open is None or self._opened_as != (file, os.getpid()):
            file.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(file, timeout=2, check_same_thread=False)
            connection.execute("PRAGMA synchronous = OFF")  # what a crash loses is hashed again
            connection.execute(_MAKE_TABLE)
            self._open, self._opened_as = connection, (file, os.getpid())
        return self._open


_HASHES = _Hashes()


def _stamp(state: os.stat_result) -> tuple[str, ...]:
    """As text: an inode or a device may be larger than what SQLite takes for a number."""
    return tuple(map(str, (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)))


def content_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hex; of a file that did not change since it was last asked for, from memory."""
    before = path.stat()
    if found := _HASHES.find(before):
        return found
    sha256 = file_sha256(path)
    after = path.stat()
    if _stamp(before) == _stamp(after) and time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns) > _TICK_NS:
        _HASHES.keep(after, sha256)
    return sha256


def holds(path: Path, sha256: str) -> bool:
    """Whether a file has this content; before it is said that it has not, it is read."""
    return content_sha256(path) == sha256 or file_sha256(path) == sha256


@dataclass(frozen=True)
class Altered:
    """Clips of a run that are not as they were sampled."""

    changed: tuple[Sample, ...]
    """There is another file in their place."""
    gone: tuple[Sample, ...]
    """There is nothing in their place."""


def altered(folder: RunFolder) -> Altered:
    """Hold every clip of a run against what samples.jsonl says of it."""
    changed, gone = [], []
    for sample in folder.samples().values():
        if sample.path is not None and sample.sha256 is not None:
            path = folder.path / sample.path
            if not os.path.lexists(path):
                gone.append(sample)
            elif not path.is_file() or not holds(path, sample.sha256):
                changed.append(sample)
    return Altered(tuple(changed), tuple(gone))


def require_unchanged(folder: RunFolder) -> tuple[Sample, ...]:
    """The clips of a run that are no longer there.

    Raises:
        InputError: a clip is not the one that was sampled and measured; the message names it.
    """
    found = altered(folder)
    if found.changed:
        msg = (
            f"{counted(found.changed, folder)} not what was sampled, for example "
            f"{folder.path / str(found.changed[0].path)}: put them back, or give the command that made the run again "
            "with --replace, which makes them anew"
        )
        raise InputError(msg)
    return found.gone


def counted(samples: tuple[Sample, ...], folder: RunFolder) -> str:
    """``2 of 6 clips of runs/model are``."""
    made = sum(one.path is not None for one in folder.samples().values())
    return f"{len(samples)} of {made} clips of {folder.path} {'is' if len(samples) == 1 else 'are'}"
