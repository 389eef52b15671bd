"""Writes files that a killed process leaves readable: whole files in one step, and lines with checksums.

A whole file is written under a temporary name and then renamed. A line is appended in one write, and a line that a kill
cut off is dropped when the next one is appended. Nothing is written through links.
"""

import errno
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from avbench.core import InputError, digest
from avbench.storage import reading

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a disk, or a user's share of it, that is full."""


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader sees the old content or the new, even if the process is killed."""
    with writing_whole(path) as file:
        file.write(content)


@contextmanager
def writing_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` in one step when the block ends without an error.

    Raises:
        InputError: it cannot be written, for example because the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    if beside.is_symlink():
        beside.unlink()
    try:
        with _naming_it(path), os.fdopen(_opened_to_write(beside, os.O_WRONLY | os.O_TRUNC), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()  # on a full disk it takes space that is needed
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the place where a library can write the new content of `path`, and put it there when the block ends.

    The place has the suffix of `path` and is always the same, so that the next try removes what a kill left behind.

    Raises:
        OSError: the disk is full; its filename is `path`.
    """
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    part.unlink(missing_ok=True)  # it may be a link to elsewhere, or a pipe
    try:
        yield part
        wait_until_on_disk(part)
        part.replace(path)
    except Exception as error:  # torch raises an error of its own while it handles that of a full disk
        for one in (error, error.__context__):
            if (number := _errno(one)) in NO_SPACE:  # a library may not name the file, or name another
                raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def _errno(error: BaseException | None) -> int | None:
    """The number that the system gave for an error, which safetensors gives in words: ``… (os error 28)``."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file, in a folder that is made; `waiting` is called once if another process holds it.

    Raises InputError if that process may be dead, as `stands_for_a_lock` says.
    """
    from filelock import FileLock, Timeout  # here, because most commands do without

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)  # a link in its place is refused, not followed
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        if left := stands_for_a_lock(path):
            msg = f"{path.parent} is being written by another avbench; {left}"
            raise InputError(msg) from None
        waiting()
        held = lock.acquire()
    with held:
        yield


def stands_for_a_lock(path: Path) -> str | None:
    """What to do about a lock file on a disk without locks (flock), such as some of Lustre; None on other disks.

    There filelock takes the file itself for the lock, also one that was copied there, or left by a process that was
    killed on another machine.
    """
    try:
        refused = _lock_refused(path)
    except (OSError, InputError):  # it is gone, or cannot be read
        return None
    if refused is None or isinstance(refused, BlockingIOError):
        return None
    why = "this disk has no locks (flock), so a file stands for one, also after a kill"
    return f"{why}: if no command works there, delete {path}"


@contextmanager
def written_alone(folder: Path, or_elsewhere: str = "") -> Iterator[None]:
    """Lock a folder, which is made, for one process that writes.

    Raises InputError while another process holds the lock; `or_elsewhere` ends its sentence of advice.
    """
    from filelock import FileLock, Timeout  # here, because most commands do without

    place = folder / ".lock"  # a link in its place is refused, not followed
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(place).acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        msg = f"{folder} is being written by another avbench; wait for it{or_elsewhere}"
        left = stands_for_a_lock(place)
        raise InputError(f"{msg}; {left}" if left else msg) from None
    except OSError as error:
        why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        msg = f"{error.filename or folder} cannot be written: {why}"
        raise InputError(msg) from None
    with held:
        yield


_LOCK_SECONDS = 0.2
"""How long a writer waits for the lock: longer than `is_being_written` may hold it."""


def is_being_written(folder: Path) -> bool:
    """Whether a process holds the lock of a folder."""
    place = folder / ".lock"
    return place.is_file() and _lock_refused(place) is not None


def _lock_refused(place: Path) -> OSError | None:
    """Why the lock of a file cannot be shared now; None if it can."""
    import fcntl

    with reading.opened(place) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error
    return None


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON in one step."""
    write_whole(path, json_bytes(value))


def json_bytes(value: object) -> bytes:
    """A value as indented JSON; equal values give equal bytes."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def sealed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with the digest of them all."""
    return {**fields, "sha256": digest(fields)}


def write_sealed(path: Path, fields: Mapping[str, Any]) -> None:
    """Write JSON that holds the digest of its other fields."""
    write_json(path, sealed(fields))


def read_sealed(path: Path, remedy: str) -> Any:
    """Return what `write_sealed` wrote, without the digest.

    Raises InputError, with the `remedy`, if the file was changed after it was written, or another program wrote it.
    """
    plain = reading.read_json(path)
    if not isinstance(plain, dict) or "sha256" not in plain:
        msg = f"{path} has no sha256 of its content, so it was changed by hand or by another program: {remedy}"
        raise InputError(msg)
    if plain.pop("sha256") != digest(plain):
        msg = f"{path} was changed after it was written: {remedy}"
        raise InputError(msg)
    return plain


def _opened_to_write(path: Path, flags: int) -> int:
    """Open a file for writing, creating it if needed, and return its descriptor. A link in its place is refused."""
    try:
        return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if path.is_symlink():
            msg = f"{path} is a link; avbench does not write through links"
            raise InputError(msg) from None
        raise _unwritable(path, error) from error


@contextmanager
def _naming_it(path: Path) -> Iterator[None]:
    """Turn an OSError without a file's name, as writing to an open file raises it, into an InputError that names it."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written: {error.strerror or error}")


def line_of(value: object) -> bytes:
    """A value as one JSON line with its checksum; equal values give equal bytes."""
    return reading.with_checksum(json.dumps(value, ensure_ascii=False, allow_nan=False).encode()) + b"\n"


def wait_until_on_disk(path: Path) -> None:
    """Wait until a file that was written by other means, such as a copy, is on disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def append_line(path: Path, value: object, *, durable: bool = False) -> None:
    """Append a value as one JSON line with its checksum in one write, after dropping an incomplete last line.

    With `durable`, wait until the line is on disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = line_of(value)
    descriptor = _opened_to_write(path, os.O_RDWR | os.O_APPEND)
    with _naming_it(path), os.fdopen(descriptor, "ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.truncate(path.read_bytes().rfind(b"\n") + 1)
        if file.write(line) < len(line):  # it has no buffer, and may take a part without an error
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if durable:
            os.fsync(file.fileno())
