"""Caches measured values by clip content and protocol, for all runs and machines that share a file system.

The environment variable AVBENCH_CACHE names its folder; without it nothing is kept. An entry is one file,
``<feature>@<protocol>/<two digits>/<key>.json``, where the key is a hash of the feature's input and its protocol.
It is written under a temporary name and renamed, so many processes may write at once; equal inputs give equal entries.
It holds the sha256 of its content: an entry that is damaged is removed when it is read, and the clip is measured again.
The file's time is the day of its last use.

Only values are kept. A clip without a value is measured again by each run.
"""

import contextlib
import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avbench.core import InputError, Protocol, Value, digest
from avbench.storage.object_storage import address_in
from avbench.storage.reading import parsed
from avbench.storage.runs.row_lines import values_from_json, values_to_json

VARIABLE = "AVBENCH_CACHE"
_DAY = 86_400.0
"""Seconds. An entry's time is renewed once a day, and an unfinished file is removed after one day."""


@dataclass(frozen=True)
class _Entry:
    """One file of the cache."""

    protocol: str
    seen: str
    values: Mapping[str, Any]
    sha256: str
    """Digest of the other fields."""
    gpu: str | None = None
    """The name of the GPU that computed the values; None where the CPU did."""


@dataclass(frozen=True)
class Stored:
    """An entry as a file."""

    path: Path
    size: int
    """Bytes."""
    used: float
    """When it was last used, in seconds since 1970."""

    @property
    def feature(self) -> str:
        """``<feature>@<protocol>``."""
        return self.path.parents[1].name


class FeaturesCache:
    """A folder of measured values."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, protocol: Protocol, seen: str) -> tuple[dict[str, Value], str | None] | None:
        """Return the values of an input under a protocol, with the name of the GPU that computed them, or None.

        A damaged entry is removed.
        """
        path = self._path(protocol, seen)
        try:
            used = path.stat().st_mtime
            found = _read(path)
        except OSError:  # it is not there, or this user may not read it
            return None
        except InputError:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        if time.time() - used > _DAY:
            with contextlib.suppress(OSError):
                os.utime(path)
        return found

    def keep(self, protocol: Protocol, seen: str, values: Mapping[str, Value], gpu: str | None = None) -> None:
        """Store values. If that fails, for example on a full disk, nothing is stored."""
        path = self._path(protocol, seen)
        plain = _plain(protocol.digest, seen, values_to_json(values), gpu)
        part = path.with_name(f".{uuid.uuid4().hex}.part")
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_text(json.dumps({**plain, "sha256": digest(plain)}, allow_nan=False), encoding="utf-8")
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)

    def entries(self) -> Iterator[Stored]:
        """List the entries, without reading them."""
        for path in sorted(self.folder.glob("*@*/??/*.json")):
            with contextlib.suppress(OSError):  # another process removed it, or it is another user's
                state = path.stat()
                yield Stored(path, state.st_size, state.st_mtime)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Feature → its number of entries and their bytes."""
        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for entry in self.entries():
            counts[entry.feature] += 1
            sizes[entry.feature] += entry.size
        return {feature: (counts[feature], sizes[feature]) for feature in sorted(counts)}

    def prune(self, unused_seconds: float | None = None, most_bytes: float | None = None) -> tuple[int, int]:
        """Remove entries that were not used for this long; then the least recently used ones, until the rest fits this
        size.

        Returns:
            How many entries were removed, and their bytes.
        """
        now = time.time()
        kept, removed = [], []
        for entry in sorted(self.entries(), key=lambda one: (one.used, one.path)):
            old = unused_seconds is not None and now - entry.used > unused_seconds
            (removed if old else kept).append(entry)
        size = sum(entry.size for entry in kept)
        for entry in kept:
            if most_bytes is None or size <= most_bytes:
                break
            removed.append(entry)
            size -= entry.size
        removed = [entry for entry in removed if _unlinked(entry.path)]
        for part in self.folder.glob("*@*/??/.*.part"):
            with contextlib.suppress(OSError):
                if now - part.stat().st_mtime > _DAY:
                    part.unlink()
        return len(removed), sum(entry.size for entry in removed)

    def verify(self) -> tuple[int, list[str]]:
        """Read every entry, and remove those that are damaged; what this user may not read is passed over.

        Returns:
            How many are good, and a sentence on each that is damaged: whether it was removed, or this user may not.
        """
        good, bad = 0, []
        for entry in self.entries():
            try:
                _read(entry.path)
            except OSError:
                continue
            except InputError as error:
                end = "it was removed" if _unlinked(entry.path) else "you may not remove it"
                bad.append(f"{error}; {end}")
            else:
                good += 1
        return good, bad

    def _path(self, protocol: Protocol, seen: str) -> Path:
        key = digest([protocol.digest, seen])
        return self.folder / protocol.folder_name / key[:2] / f"{key}.json"


def _plain(protocol: str, seen: str, values: Mapping[str, Any], gpu: str | None) -> dict[str, Any]:
    """The fields that an entry's sha256 is computed from; values from the CPU have no field `gpu`."""
    return {"protocol": protocol, "seen": seen, "values": values, **({} if gpu is None else {"gpu": gpu})}


def _read(path: Path) -> tuple[dict[str, Value], str | None]:
    """Read an entry's values, and the name of the GPU that computed them.

    Raises OSError if it cannot be read, and InputError if it is damaged.
    """
    entry = parsed(path.read_bytes(), str(path), _Entry)
    plain = _plain(entry.protocol, entry.seen, entry.values, entry.gpu)
    if digest(plain) != entry.sha256 or digest([entry.protocol, entry.seen]) != path.stem:
        msg = f"{path} was changed after it was written"
        raise InputError(msg)
    return values_from_json(entry.values, str(path)), entry.gpu


def _unlinked(path: Path) -> bool:
    """Remove an entry; False if this user may not."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def from_environment() -> FeaturesCache | None:
    """Return the cache in the folder that AVBENCH_CACHE names, or None if the variable is not set.

    A relative path starts from the working folder of now, which a model's code may change later.

    Raises:
        InputError: the folder cannot be made.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    if address_in(Path(named)):
        msg = f"{VARIABLE} is {named!r}, an address of object storage; it must be a folder that the machines share"
        raise InputError(msg)
    try:
        Path(named).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{VARIABLE} is {named!r}, and that folder cannot be made: {error.strerror}"
        raise InputError(msg) from None
    return FeaturesCache(Path(named).absolute())


def required() -> FeaturesCache:
    """The cache that is there. Raises InputError if AVBENCH_CACHE is not set, or names no folder."""
    named = os.environ.get(VARIABLE)
    if not named:
        msg = f"there is no features cache: set the environment variable {VARIABLE} to a folder"
        raise InputError(msg)
    if not Path(named).is_dir():
        msg = f"there is no features cache: {VARIABLE} is {named!r}, which is no folder; measuring makes it"
        raise InputError(msg)
    return FeaturesCache(Path(named))
