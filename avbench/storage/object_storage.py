"""Reads and writes files under an address of object storage, such as S3 or Google Cloud Storage.

Addresses are those of fsspec (``s3://bucket/runs``, ``gs://…``, ``file:///…``), which finds credentials and servers as
its packages do. A file is named by its path below the address, with ``/`` between its parts.

Every write is whole: a killed process leaves the old content or the new. Object storage does so itself; in a folder
(``file://``) a file is written under a temporary name and then renamed.
"""

import os
import re
import shutil
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from avbench.core import InputError, first_line
from avbench.storage.writing import NO_SPACE, write_whole, writing_whole

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)


def address_in(path: Path) -> str | None:
    """The address that somebody gave where a path is expected, which has only one ``/`` there; None for a path."""
    found = _ADDRESS.fullmatch(str(path))
    if found is None:
        return None
    import fsspec  # here, because paths do without

    root = "/" if found[1] in ("file", "local") else ""  # before a path, and not before the name of a bucket
    return f"{found[1]}://{root}{found[2]}" if found[1] in fsspec.available_protocols() else None


def require_no_address(path: Path) -> None:
    """Raise InputError on an address, of which a folder ``s3:`` would be made where the command was given."""
    if address := address_in(path):
        msg = (
            f"{address} is an address of object storage, and a folder of this machine must stand here; mirror "
            "(--mirror) keeps a copy of run folders in object storage, and `avbench runs pull` and `runs push` copy one"
        )
        raise InputError(msg)


class Storage:
    """The files under one address.

    Every method raises InputError if the storage cannot be reached or refuses.
    """

    def __init__(self, url: str) -> None:
        """Nothing is read or written yet. Raises InputError if fsspec cannot use the address."""
        from fsspec.implementations.local import LocalFileSystem

        self.url = url.rstrip("/")
        self._files, self._root = _opened(self.url)
        self._is_folder = isinstance(self._files, LocalFileSystem)

    def sizes(self) -> dict[str, int]:
        """The sizes of all files, by name, without those whose name begins with a dot."""
        self._files.invalidate_cache()
        found = self._asked(self._files.find, self._root, None, False, True)
        sizes = {str(path).removeprefix(self._root).lstrip("/"): one["size"] for path, one in sorted(found.items())}
        return {name: size for name, size in sizes.items() if not name.rpartition("/")[2].startswith(".")}

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        self._files.invalidate_cache()
        return bool(self._asked(self._files.exists, self._at(name)))

    def read(self, name: str) -> bytes:
        """What a file holds."""
        return self._asked(self._files.cat_file, self._at(name))

    def put(self, sources: Sequence[Path], names: Sequence[str]) -> None:
        """Upload files of this machine under these names."""
        if self._is_folder:
            for source, name in zip(sources, names, strict=True):
                self._asked(_copy_whole, source, Path(self._at(name)))
        else:
            self._asked(self._files.put, [*map(str, sources)], [*map(self._at, names)])

    def write(self, name: str, content: bytes) -> None:
        """Write a file."""
        if self._is_folder:
            self._asked(write_whole, Path(self._at(name)), content)
        else:
            self._asked(self._files.pipe_file, self._at(name), content)

    def create(self, name: str, content: bytes) -> bytes:
        """Write a file unless it is there; return what it holds then. Of several calls at a time one writes it.

        S3, Google Cloud Storage, Azure and folders decide which one. With a server that cannot, the last one writes it.
        """
        with suppress(Exception):  # what they raise if it is there differs
            if self._is_folder:
                _create_whole(Path(self._at(name)), content)
            else:
                self._files.pipe_file(self._at(name), content, mode="create")
        if not self.has(name):
            self.write(name, content)
        try:
            return self.read(name)
        except InputError:
            if self.has(name):
                raise
        return self.create(name, content)  # somebody deleted it in between

    def get(self, names: Sequence[str], places: Sequence[Path]) -> None:
        """Download files to these places; a killed process leaves incomplete ones there."""
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._asked(self._files.get, [*map(self._at, names)], [*map(str, places)])
        except InputError as error:
            if getattr(error.__cause__, "errno", None) in NO_SPACE:
                msg = f"files of {self.url} cannot be downloaded: no space is left in {places[0].parent}"
                raise InputError(msg) from error
            raise

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.has(name):
            self._asked(self._files.rm_file, self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _asked(self, call: Callable[..., Any], *given: Any) -> Any:
        """What a call to fsspec returns. Raises InputError instead of what it raises."""
        try:
            return call(*given)
        except Exception as error:
            msg = f"the mirror {self.url} cannot be used: {first_line(error)}"
            raise InputError(msg) from error


def _copy_whole(source: Path, place: Path) -> None:
    with source.open("rb") as content, writing_whole(place) as file:
        shutil.copyfileobj(content, file)


def _create_whole(place: Path, content: bytes) -> None:
    """Write a file in one step. Raises FileExistsError if it is there."""
    beside = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    write_whole(beside, content)
    try:
        os.link(beside, place)
    finally:
        beside.unlink()


def _opened(url: str) -> tuple[Any, str]:
    """The file system of fsspec for an address, and the path in it."""
    import fsspec

    protocol = url.partition("://")[0]
    if "://" not in url or protocol not in fsspec.available_protocols():
        msg = f"{url!r} is no address that fsspec knows: write, for example, s3://bucket/runs or file:///ABSOLUTE/PATH"
        raise InputError(msg)
    if protocol == "memory":
        msg = f"{url!r} is in the memory of one process, and gone when that ends: write, for example, s3://bucket/runs"
        raise InputError(msg)
    try:
        files, root = fsspec.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        hint = f"pip install {package}" if package else first_line(error)
        msg = f"{url} needs another package: {hint}"
        raise InputError(msg) from None
    except Exception as error:
        msg = f"the mirror {url} cannot be used: {first_line(error)}"
        raise InputError(msg) from error
    return files, str(root).rstrip("/")
