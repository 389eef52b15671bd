"""Hashes files, and reads a file again only if it may have changed.

`content_sha256` is the sha256 of a file's bytes. It is cached in ``hashes.sqlite`` in $XDG_CACHE_HOME/avbench or
~/.cache/avbench, under the file's device, inode, size, mtime and ctime. Only the system sets ctime, so a file that was
replaced by copying, moving or touching is noticed. A file that changed less than two seconds before it was read is not
cached, because file times are coarse. If the cache cannot be used, files are read each time.
"""

import contextlib
import hashlib
import os
import sqlite3
import threading
import time
from pathlib import Path

from avbench.core import InputError
from avbench.storage import reading
from avbench.storage.reading import file_sha256

_MAKE_TABLE = (
    "CREATE TABLE IF NOT EXISTS hashes (device, inode, size, modified, changed, sha256, "
    "PRIMARY KEY (device, inode)) WITHOUT ROWID"
)
_TICK_NS = 2 * 10**9


def cache_folder() -> Path:
    """The folder for data that can be computed again: $XDG_CACHE_HOME/avbench or ~/.cache/avbench. It may not exist.

    Raises InputError if neither XDG_CACHE_HOME is set nor a home folder is known.
    """
    return reading.expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "XDG_CACHE_HOME") / "avbench"


class _Hashes:
    """The cache of hashes, one per process. A cache file that cannot be used counts as empty."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened_as = Path(), 0
        self._open: sqlite3.Connection | None = None

    def find(self, state: os.stat_result) -> str | None:
        """Return the cached hash of a file with this stat result, or None."""
        with self._lock, contextlib.suppress(sqlite3.Error, OSError, InputError):
            query = "SELECT sha256 FROM hashes WHERE (device, inode, size, modified, changed) = (?, ?, ?, ?, ?)"
            found = self._connection().execute(query, _stamp(state)).fetchone()
            return found[0] if found else None
        return None

    def keep(self, state: os.stat_result, sha256: str) -> None:
        """Cache a hash; do nothing if the cache cannot be written."""
        with self._lock, contextlib.suppress(sqlite3.Error, OSError, InputError), self._connection() as connection:
            connection.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?)", (*_stamp(state), sha256))

    def _connection(self) -> sqlite3.Connection:
        file = cache_folder() / "hashes.sqlite"
        if self._open is None or self._opened_as != (file, os.getpid()):
            if self._open is not None and self._opened_as[1] == os.getpid():  # not one that a fork inherited
                self._open.close()
            file.parent.mkdir(parents=True, exist_ok=True)
            self._open = sqlite3.connect(file, timeout=2, check_same_thread=False)
            self._opened_as = file, os.getpid()
            self._open.execute("PRAGMA synchronous = OFF")  # hashes that a crash loses are computed again
            self._open.execute(_MAKE_TABLE)
        return self._open


_HASHES = _Hashes()


def _stamp(state: os.stat_result) -> tuple[str, ...]:
    """The cache's key, as text: an inode or a device number may be larger than SQLite's integers."""
    return tuple(map(str, (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)))


def hash_of(path: Path, algorithm: str) -> str:
    """A file's hash in hex: ``sha256``, ``md5``, or ``git``, by which a git repository identifies a file's content."""
    with reading.opened(path) as file:
        if algorithm != "git":
            return hashlib.file_digest(file, algorithm).hexdigest()
        seen = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        while chunk := file.read(1 << 20):
            seen.update(chunk)
        return seen.hexdigest()


def content_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes in hex, from the cache if the file has not changed since."""
    before = path.stat()
    if found := _HASHES.find(before):
        return found
    sha256 = file_sha256(path)
    after = path.stat()
    if _stamp(before) == _stamp(after) and time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns) > _TICK_NS:
        _HASHES.keep(after, sha256)
    return sha256


def holds(path: Path, sha256: str) -> bool:
    """Whether a path is a file with this sha256. The file is read again before the answer is no."""
    return path.is_file() and (content_sha256(path) == sha256 or file_sha256(path) == sha256)
