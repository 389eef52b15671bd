"""Keeps network weights in one cache folder, and checks each by its sha256 whenever it is used.

Weights that a package ships (WEIGHTS) have a known hash. Those that no package ships (PUBLISHED) are downloaded from
where their authors publish them (published.py), or provided by the user: `provide` links the cache to the user's file.
Their hash is computed at use and is a part of every protocol. ``NAME.json`` beside a downloaded weight records where it
came from, its hash and its licence (see `Fetched`). `fetching` downloads.
"""

import dataclasses
import functools
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avbench.core import InputError, Protocol, counted, digest, nearest
from avbench.storage.content import cache_folder, content_sha256
from avbench.storage.reading import expanded, file_sha256, read_json
from avbench.storage.weights.packaged import WEIGHTS, Weight
from avbench.storage.weights.published import PUBLISHED, Published

NO_WEIGHTS = "is no file of weights: it is neither of PyTorch nor safetensors nor ONNX"


@dataclass(frozen=True)
class Fetched:
    """The record of a downloaded weight: ``NAME.json`` beside it."""

    address: str
    revision: str
    """The hub's commit; empty for a weight from elsewhere."""
    sha256: str
    """Of the file; for a folder, over its files' names and hashes."""
    checked: str
    """What the download was checked against, in words."""
    licence: str
    accepted: str
    """Short name of the licence that the user accepted; empty if none had to be."""

    @property
    def note(self) -> str:
        """A sentence for the notes of a protocol."""
        at = f" at {self.revision[:12]}" if self.revision else ""
        accepted = f", accepted as {self.accepted}" if self.accepted else ""
        return f"Fetched from {self.address}{at}; {self.checked}. Licence: {self.licence}{accepted}."


@dataclass(frozen=True)
class State:
    """What the cache holds of a weight."""

    word: str
    """Of a weight that a package ships, what `verify` says; of another ``not fetched``, ``fetched``, ``yours`` or
    ``damaged``.
    """
    sha256: str
    """Of a package's weight the one it must have, else that of what is there; empty if that is missing or damaged."""
    fault: str = ""
    """What is wrong with it, in words."""


def folder() -> Path:
    """Return the cache folder: $AVBENCH_WEIGHTS, else avbench/weights in $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("AVBENCH_WEIGHTS"):
        return expanded(chosen)
    return cache_folder() / "weights"


def cached_path(name: str) -> Path:
    """Return where the weight is stored once fetched. Raises InputError on an unknown name."""
    weight = packaged(name)
    # The hash is part of the file's name, so that two versions of avbench can share a cache.
    return folder() / f"{weight.name}-{weight.sha256[:12]}{Path(weight.member).suffix}"


def verify(name: str) -> str:
    """Check the cached file: ``ok``, ``missing``, or ``damaged: …``. Raises InputError on an unknown name."""
    weight, path = packaged(name), cached_path(name)
    if not path.is_file():
        return "missing"
    if (size := path.stat().st_size) != weight.size_bytes:
        return f"damaged: it has {size} bytes, but must have {weight.size_bytes}"
    if (found := file_sha256(path)) != weight.sha256:
        return f"damaged: its sha256 is {found[:12]}…, but must be {weight.sha256[:12]}…"
    return "ok"


def state(name: str) -> State:
    """Check what the cache holds of a weight. Raises InputError on an unknown name."""
    if name not in PUBLISHED:
        found = verify(name)
        return State(found, WEIGHTS[name].sha256, "" if found == "ok" else found)
    if not _is_there(name):
        return State("not fetched", "")
    try:
        return State("fetched" if fetched(name) else "yours", user_provided(name)[1])
    except InputError as error:
        return State("damaged", "", str(error))


def locate(name: str) -> Path:
    """Return the cached file after checking it.

    Raises:
        InputError: it is missing or damaged; the message gives the command that fetches it.
    """
    if name in PUBLISHED:
        return user_provided(name)[0].resolve()
    state = verify(name)
    if state != "ok":
        weight = packaged(name)
        fault = f"not in {folder()}" if state == "missing" else f"{state} ({cached_path(name)})"
        msg = f"weight {name!r} ({weight.size}) is {fault}; run `avbench weights fetch {name}`"
        raise InputError(msg)
    return cached_path(name)


def missing(names: Iterable[str]) -> list[str]:
    """Those of these weights that are not in the cache. Raises InputError on an unknown name."""
    return [name for name in dict.fromkeys(names) if not _is_there(name)]


def require(names: Iterable[str]) -> None:
    """Raise InputError if weights are missing, with one sentence: what, how large, and the command that fetches it."""
    lacking = missing(names)
    if len(lacking) == 1:
        locate(lacking[0])
    elif lacking:
        raise InputError(how_to_fetch(lacking))


def how_to_fetch(lacking: Sequence[str]) -> str:
    """One sentence on missing weights: what they are, how large, and the command that fetches them."""
    known = {name: named(name) for name in lacking}
    parts = ", ".join(f"{name} ({weight.size}, from {weight.host})" for name, weight in known.items())
    are = f"{counted(len(lacking), 'weight')} {'is' if len(lacking) == 1 else 'are'}"
    total = _total_size([*known.values()])
    return f"{are} missing: {parts}; `{fetch_command(lacking)}` fetches {total}, {_in_place(lacking)}"


def _in_place(names: Sequence[str]) -> str:
    """A clause on the option that fetches weights while they are needed."""
    return "and so does --fetch of score, run and measure" + (" with the same licences" if _licences(names) else "")


def fetch_command(names: Sequence[str]) -> str:
    """The command that fetches these weights."""
    return " ".join(["avbench weights fetch", *names, *(f"--accept-licence {one}" for one in _licences(names))])


def _licences(names: Sequence[str]) -> list[str]:
    """The licences of these weights that must be accepted, each once."""
    return [*dict.fromkeys(PUBLISHED[name].accept for name in names if name in PUBLISHED and PUBLISHED[name].accept)]


def _is_there(name: str) -> bool:
    if name in PUBLISHED:
        return (folder() / name).exists()
    return verify(name) == "ok"


def _total_size(lacking: Sequence[Weight | Published]) -> str:
    known = [weight.megabytes for weight in lacking if weight.megabytes is not None]
    if not known:
        return "them, whose sizes are not known"
    return f"about {sum(known):.0f} MB" + (" and more" if len(known) < len(lacking) else "")


def provide(name: str, file: Path) -> Path:
    """Link the cache to the user's file or folder of a weight.

    Raises InputError on an unknown name, and on a file that is missing, holds no weights or is the cache's own.
    """
    _published(name)
    if not file.exists():
        msg = f"weight {name!r}: {file} does not exist"
        raise InputError(msg)
    if not begins_as_weights(file):
        msg = f"weight {name!r}: {file} {NO_WEIGHTS}"
        raise InputError(msg)
    link, source = folder() / name, file.resolve()
    if source.is_relative_to(link.parent.resolve() / name):
        msg = f"weight {name!r}: {file} is what the cache has of it already, and would be deleted; move it elsewhere"
        raise InputError(msg)
    link.parent.mkdir(parents=True, exist_ok=True)
    remove(link)
    record_path(name).unlink(missing_ok=True)  # it describes the weight that was there before
    link.symlink_to(source)
    return link


def begins_as_weights(file: Path) -> bool:
    """Whether a file begins as files of weights do; a folder is not looked into."""
    if file.is_dir():
        return True
    with file.open("rb") as opened:
        head = opened.read(9)
    return head.startswith((b"PK", b"\x80", b"\x08")) or head[8:] == b"{"


def remove(path: Path) -> None:
    """Remove a link, a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def user_provided(name: str) -> tuple[Path, str]:
    """Return the path of a weight that no package ships, and its sha256 (of a folder: over names and hashes of files).

    Raises:
        InputError: it was neither fetched nor provided, or its file is gone; the message says where to get it.
    """
    published, path = _published(name), folder() / name
    if not path.exists():
        gone = f"no longer at {path.readlink()}" if path.is_symlink() else "missing, and no package ships it"
        msg = (
            f"weight {name!r} is {gone}; `{fetch_command([name])}` downloads it ({published.size}) from "
            f"{published.source.address}, {_in_place([name])}; or get it from {published.address}, then "
            f"`avbench weights fetch {name} --file PATH`"
        )
        raise InputError(msg)
    sha256 = provided_sha256(path.resolve())
    if (known := fetched(name)) and known.sha256 != sha256:
        msg = (
            f"weight {name!r} is damaged: its sha256 is {sha256[:12]}…, but {known.sha256[:12]}… was fetched; delete "
            f"{path} and run `{fetch_command([name])}`"
        )
        raise InputError(msg)
    return path, sha256


def fetched(name: str) -> Fetched | None:
    """The record of a downloaded weight; None if it was not downloaded, but provided by the user."""
    path = record_path(name)
    if not path.is_file():
        return None
    status = path.stat()
    return _record(path.resolve(), status.st_mtime_ns, status.st_size)


@functools.lru_cache
def _record(path: Path, changed: int, size: int) -> Fetched:
    """What the record at `path` holds; read again when it was changed."""
    return read_json(path, Fetched)


def record_path(name: str) -> Path:
    """The path of a downloaded weight's record."""
    return folder() / f"{name}.json"


class UserProvidedProtocol:
    """A descriptor for a feature's `protocol`: it fills in the sha256 of user-provided weights when it is read.

    A field such as ``weights_sha256`` gets the hash of the user-provided weight that the field ``weights`` names.
    """

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def __get__(self, feature: object, kind: type) -> Any:
        """Return the protocol. Raises InputError if the user has not provided its weight."""
        pairs = [user_provided(name) for name in self.weights]
        records = [fetched(name) for name in self.weights]
        filled = {field: sha256 for field, (_, sha256) in zip(self._fields, pairs, strict=True)}
        sources = "; ".join(record.note for record in records if record)
        notes = {**self._protocol.notes, "fetched": sources} if sources else self._protocol.notes
        return dataclasses.replace(self._protocol, **filled, notes=notes)

    @property
    def weights(self) -> list[str]:
        """The names of its weights."""
        values = self._protocol.describe()
        return [values[name.removesuffix("_sha256")] for name in self._fields]

    @property
    def _fields(self) -> list[str]:
        values, end = self._protocol.describe(), "_sha256"
        return [one for one in values if one.endswith(end) and values.get(one.removesuffix(end)) in PUBLISHED]


def provided_sha256(path: Path) -> str:
    """sha256 of a file, or over the names and hashes of a folder's files; a file is read again when it has changed."""
    if path.is_file():
        return content_sha256(path)
    return digest({str(file.relative_to(path)): content_sha256(file) for file in path.rglob("*") if file.is_file()})


def named(name: str) -> Weight | Published:
    """The weight of this name, whoever serves it. Raises InputError on an unknown name."""
    return PUBLISHED[name] if name in PUBLISHED else packaged(name)


def packaged(name: str) -> Weight:
    """The weight of this name that a package ships. Raises InputError on an unknown name."""
    if name not in WEIGHTS:
        msg = f"no weight is called {name!r}; {nearest(name, [*WEIGHTS, *PUBLISHED], '`avbench weights list`')}"
        raise InputError(msg)
    return WEIGHTS[name]


def _published(name: str) -> Published:
    if name not in PUBLISHED:
        msg = f"no weight that can be provided is called {name!r}; {nearest(name, PUBLISHED)}"
        raise InputError(msg)
    return PUBLISHED[name]
