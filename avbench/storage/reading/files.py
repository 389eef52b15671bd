"""Opens ordinary files and limits their size; checks that nothing in a folder leads out of it."""

import hashlib
import io
import os
import re
import stat
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from avbench.core import InputError, first_line


@dataclass(frozen=True)
class Limits:
    """The largest sizes that one file may have."""

    text_bytes: int = 256 * 2**20
    """Size of a JSON, TOML or text file that is read at once, or of one line of a longer file."""
    memory_bytes: int = 2**30
    """Unpacked size of the arrays or the table in a file."""
    depth: int = 100
    """How deep lists and objects may be nested."""
    header_bytes: int = 100_000_000
    """Size of the header of a safetensors file; safetensors' own readers allow as much."""
    fields: int = 100_000
    """Number of fields in a GGUF file, and of tensors."""
    items: int = 10_000_000
    """Number of items in one field of a GGUF file, because its reader takes them one by one."""


def limits() -> Limits:
    """Return the limits; the environment variable AVBENCH_FILE_MEMORY changes the one of memory.

    Raises:
        InputError: AVBENCH_FILE_MEMORY is not a whole number above 0.
    """
    asked = os.environ.get("AVBENCH_FILE_MEMORY")
    if asked is None:
        return Limits()
    if not asked.isdecimal() or not int(asked):
        msg = f"AVBENCH_FILE_MEMORY is {asked!r}; it must be a whole number of bytes, such as {Limits.memory_bytes}"
        raise InputError(msg)
    return Limits(memory_bytes=int(asked))


def require_memory(path: Path, needed: int, most: int | None = None) -> None:
    """Raise InputError if a file would take more memory than is allowed. Call it before allocating.

    Args:
        path: the file.
        needed: bytes.
        most: bytes; `Limits.memory_bytes` where not given.
    """
    allowed = most if most is not None else limits().memory_bytes
    if needed > allowed:
        hint = "" if most is not None else " (raise the limit with the environment variable AVBENCH_FILE_MEMORY)"
        size, most_allowed = size_text(needed), size_text(allowed)
        if size == most_allowed:
            size, most_allowed = f"{needed:,} bytes", f"{allowed:,}"
        msg = f"{path} would take {size} of memory; at most {most_allowed} are allowed{hint}"
        raise InputError(msg)


def size_text(count: int) -> str:
    """A number of bytes for people: ``1.5 GB``."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def opened(path: Path) -> io.BufferedReader:
    """Open an ordinary file for reading bytes. Raises InputError at once on a pipe, a device or a folder."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        msg = f"{path} cannot be read: {os_reason(error)}"
        raise InputError(msg) from None
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"
        msg = f"{path} is {kind}; an ordinary file is needed here"
        raise InputError(msg)
    return os.fdopen(number, "rb")


def os_reason(error: Exception) -> str:
    """Why the system refused, in its words."""
    return (error.strerror if isinstance(error, OSError) else None) or first_line(error)


def exists(path: Path) -> bool:
    """Whether a path exists; one that cannot be a path, such as the words of a long command, does not."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False


def expanded(path: str | Path, instead: str = "give the whole path") -> Path:
    """A path whose ``~`` or ``~user`` at the beginning stands for a home folder. Raises InputError if there is none,
    with what can be done `instead` of naming one.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        msg = f"{path}: the home folder is not known; set the environment variable HOME, or {instead}"
        raise InputError(msg) from None


def read_bytes(path: Path) -> bytes:
    """Read an ordinary file. Raises InputError if it has more than `Limits.text_bytes`."""
    most = limits().text_bytes
    with opened(path) as file:
        try:
            content = file.read(most + 1)
        except OSError as error:
            msg = f"{path} cannot be read: {os_reason(error)}"
            raise InputError(msg) from None
    if len(content) > most:
        msg = f"{path} is larger than {size_text(most)}, the most that such a file may have"
        raise InputError(msg)
    return content


def read_text(path: Path) -> str:
    """Read a UTF-8 text file, without the byte order mark at its beginning."""
    content = read_bytes(path)
    try:
        return decoded(content, str(path))
    except InputError as error:
        msg = f"{error}; save the file as UTF-8"
        raise InputError(msg) from None


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 text file that are not empty, stripped, with their numbers from 1.

    Only line feeds and carriage returns end a line: `str.splitlines` would end it at U+2028 and form feeds as well.
    """
    for number, line in enumerate(re.split(r"\r\n|\r|\n", read_text(path)), start=1):
        if line.strip():
            yield number, line.strip()


def decoded(content: bytes, where: str) -> str:
    """Decode UTF-8, without the byte order mark at its beginning. Raises InputError on other bytes."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        sentence = f"not UTF-8: byte {error.start + 1} is {error.object[error.start]:#04x}"
        raise unreadable(where, sentence) from None


def unreadable(where: str, sentence: str) -> InputError:
    """Build the error. `where` is empty if the caller adds the file's name itself."""
    return InputError(f"{where}: {sentence}" if where else sentence)


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path before the message of an InputError that the block raises."""
    try:
        yield
    except InputError as error:
        msg = f"{path}: {error}"
        raise InputError(msg) from None


def inside(folder: Path, name: str) -> Path:
    """Return the path of `name` inside `folder`. Raises InputError if it is absolute or contains ``..``.

    Links are checked by `require_no_way_out`.
    """
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or "\0" in name or "\\" in name:
        msg = f"{folder}: {name!r} is not a path inside it"
        raise InputError(msg)
    return folder / pure


def require_no_way_out(folder: Path, skip: Container[str] = ()) -> None:
    """Raise InputError if `folder` contains a link that leads out of it, or anything but files and folders.

    Args:
        folder: a folder that may come from somebody else.
        skip: names of folders directly in it that are not checked inside.
    """
    root = folder.resolve()
    todo = [folder]
    while todo:
        place = todo.pop()
        try:
            entries = list(os.scandir(place))
        except OSError as error:
            msg = f"{place} cannot be read: {os_reason(error)}"
            raise InputError(msg) from None
        for entry in entries:
            if entry.is_symlink():
                if not Path(entry.path).resolve().is_relative_to(root):
                    msg = f"{entry.path} is a link to a place outside {folder}; nothing is read or written there"
                    raise InputError(msg)
            elif entry.is_dir():
                if place != folder or entry.name not in skip:
                    todo.append(Path(entry.path))
            elif not entry.is_file():
                msg = f"{entry.path} is neither a file nor a folder; remove it"
                raise InputError(msg)
