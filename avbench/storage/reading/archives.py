"""Opens and unpacks zip archives, with their unpacked size checked first."""

import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from avbench.core import InputError, first_line
from avbench.storage.reading.files import inside, limits, opened, require_memory

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError)
"""Exceptions that zipfile raises on damaged and encrypted files, and on compression methods that it lacks."""


def opened_zip(path: Path, file: BinaryIO) -> zipfile.ZipFile:
    """Open a zip file. Raises InputError if it is damaged or none."""
    try:
        return zipfile.ZipFile(file)
    except ZIP_ERRORS as error:
        msg = f"{path} is damaged or no zip file: {first_line(error)}"
        raise InputError(msg) from None


def require_zip_memory(path: Path, most: int | None = None) -> None:
    """Raise InputError if a zip file, such as a PyTorch checkpoint, would take too much memory when unpacked."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if _is_zip(file):
            with opened_zip(path, file) as packed:
                size = sum(one.file_size for one in packed.infolist())
    require_memory(path, size, most)


def _is_zip(file: BinaryIO) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:  # it has the end of a zip, with wrong numbers in it
        return True


def unpack(path: Path, target: Path, allowed: Callable[[str], bool]) -> None:
    """Unpack a zip file into the new folder `target`.

    Args:
        path: the archive.
        target: the folder to make.
        allowed: tells whether the archive may contain a file of this name.

    Raises:
        InputError: the archive is damaged; a name leads out of `target`, occurs twice or is not allowed; or the archive
            would take more than `Limits.memory_bytes`, or one file more than `Limits.text_bytes`.
    """
    with opened(path) as file, opened_zip(path, file) as packed:
        members = [one for one in packed.infolist() if not one.filename.endswith("/")]  # a damaged one may be empty
        for name, count in Counter(one.filename for one in members).items():
            if count > 1 or not allowed(name):
                msg = f"{path} holds {name[:100]!r}{' twice' if count > 1 else ', which such a file must not hold'}"
                raise InputError(msg)
        require_memory(path, sum(one.file_size for one in members))
        for one in members:
            require_memory(path, one.file_size, limits().text_bytes)
            place = inside(target, one.filename)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(packed.read(one))
            except ZIP_ERRORS as error:
                msg = f"{path}: {one.filename} cannot be unpacked: {first_line(error)}"
                raise InputError(msg) from None
