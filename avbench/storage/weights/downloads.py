"""Downloads files: over HTTP with resume, and from the Hugging Face hub through its own client.

An interrupted HTTP download leaves two files beside its target: ``.NAME.part``, and ``.NAME.version`` with the server's
mark of the file's version (ETag or Last-Modified). The same call continues it if the server's file is still that
version, and starts anew if not. The hub's client keeps its files in its own cache ($HF_HOME), resumes by itself, and
asks $HF_ENDPOINT instead of huggingface.co where that is set.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from avbench.core import InputError, first_line, masked, shown
from avbench.storage.content import hash_of
from avbench.storage.weights.published import HubFiles

FollowBytes = Callable[[int, Iterable[Any]], None]
"""Takes every item of a download, of which there are so many, and shows progress."""

CHUNK = 1_000_000
"""Bytes per item of progress: one megabyte."""
ATTEMPTS = 5
"""How often a broken connection is taken up again within one call, as long as each attempt brings something."""
_TIMEOUT = httpx.Timeout(60.0, connect=15.0)


def matches(path: Path, known_hash: str) -> bool:
    """Whether a file has a known hash, ``algorithm:hex``, of which sha256 may be the first digits only."""
    algorithm, _, digits = known_hash.partition(":")
    found = hash_of(path, algorithm)
    return found.startswith(digits) if algorithm == "sha256" else found == digits


def from_web(url: str, target: Path, follow: FollowBytes) -> None:
    """Download a file; `target` appears when it is whole.

    Raises:
        InputError: the server cannot be reached, has no such file, or broke the connection too often.
    """
    part = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        before = _size(part)
        try:
            _continued(url, target, part, follow)
            return
        except httpx.TransportError as error:
            if _size(part) == before or attempt == ATTEMPTS - 1:
                kept = f" after {_size(part) / 1e6:.1f} MB; the same command continues there" if _size(part) else ""
                unreached = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and not kept
                what = "could not begin" if unreached else "broke off"
                msg = f"the download from {httpx.URL(url).host} {what}{kept} ({first_line(error)})"
                raise InputError(msg) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            msg = f"{url} cannot be downloaded: {first_line(error)}"
            raise InputError(msg) from None


def _continued(url: str, target: Path, part: Path, follow: FollowBytes) -> None:
    """Download what is left of a file."""
    version = target.with_name(f".{target.name}.version")
    begun = _size(part) if version.is_file() else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "avbench"}
    if begun:
        headers |= {"Range": f"bytes={begun}-", "If-Range": version.read_text(encoding="utf-8")}
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=_TIMEOUT) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            if answer.headers.get("Content-Range", "").endswith(f"/{begun}"):
                _finish(part, version, target)
                return
            part.unlink()
            msg = "the part that was kept is longer than the server's file"
            raise httpx.RemoteProtocolError(msg)
        _require_file(url, answer)
        begun = begun if answer.status_code == httpx.codes.PARTIAL_CONTENT else 0
        mark = answer.headers.get("ETag", answer.headers.get("Last-Modified", ""))
        left = int(answer.headers.get("Content-Length", 0))
        with part.open("ab" if begun else "wb") as out:  # before the mark, which must not stand beside older bytes
            if mark and not mark.startswith("W/"):  # a weak mark allows other bytes
                version.write_text(mark, encoding="utf-8")
            else:
                version.unlink(missing_ok=True)
            follow(-(-left // CHUNK), _written(answer.iter_raw(CHUNK), out))
    _finish(part, version, target)


def _require_file(url: str, answer: httpx.Response) -> None:
    """Raise InputError unless a server's answer is a file, from an address as safe as the one that was asked."""
    if not answer.is_success:
        msg = f"{url} answers {answer.status_code} {answer.reason_phrase}"
        raise InputError(msg)
    if httpx.URL(url).scheme == "https" != answer.url.scheme:
        msg = f"{url} leads to {answer.url}, which is not encrypted"
        raise InputError(msg)
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        msg = f"{url} answers with a web page, not with a file"
        raise InputError(msg)


def _written(chunks: Iterable[bytes], out: Any) -> Iterator[None]:
    for chunk in chunks:
        out.write(chunk)
        yield


def _finish(part: Path, version: Path, target: Path) -> None:
    part.replace(target)
    version.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def from_hub(source: HubFiles, revision: str) -> tuple[str, list[Path]]:
    """Download files of one commit of a repository; return the commit and the files' paths in the hub's cache.

    Args:
        source: repository and files.
        revision: the commit, or a branch, whose newest commit is then taken for all files.

    Raises:
        InputError: the hub cannot be reached or does not give a file, or what it gave is damaged.
    """
    require_endpoint()
    from huggingface_hub import constants, errors, hf_hub_download

    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    away = _is_away(endpoint or constants.ENDPOINT, source, revision)
    found = []
    try:
        for name in source.files:
            path = Path(
                hf_hub_download(source.repository, name, revision=revision, endpoint=endpoint, local_files_only=away)
            )
            revision = path.parents[len(Path(name).parts) - 1].name  # …/snapshots/COMMIT/NAME
            found.append(path)
    except Exception as error:  # the hub's client raises dozens of kinds, each with its reason
        files = f", or not all of {', '.join(source.files)}"
        reason = f" ({first_line(error)})"
        if away and isinstance(error, errors.LocalEntryNotFoundError):  # it advises to change an argument of this call
            reason = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
        msg = f"{hub_refusal(f'{source.repository} at {revision}', error, files)}{reason}"
        raise InputError(msg) from None
    for path in found:
        _require_as_named(path)
    return revision, found


def require_endpoint() -> None:
    """Raise InputError if HF_ENDPOINT is set and is no address of a server.

    Call it before the hub's client, diffusers or transformers is imported: with some addresses their import fails.
    """
    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:
        address = urlsplit(endpoint)
        right = address.scheme in ("http", "https") and address.hostname and (address.port or True)
    except ValueError:  # no port is such a number, or a bracket is open
        right = False
    if endpoint and not right:
        msg = (
            f"the environment variable HF_ENDPOINT is {shown(masked(endpoint))}; it must be the address of a hub, such "
            "as https://huggingface.co"
        )
        raise InputError(msg)


def _is_away(endpoint: str, source: HubFiles, revision: str) -> bool:
    """Whether the hub is offline by setting, or cannot be reached; its own client tries for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return True
    try:
        # Only whether something answers; the client that downloads checks certificates, with the user's settings.
        address = f"{endpoint}/{source.repository}/resolve/{revision}/{source.files[0]}"
        httpx.head(address, timeout=_TIMEOUT.connect, verify=False)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return True
    except httpx.HTTPError:
        return False
    return False


def hub_refusal(what: str, error: Exception, lacking: str = "") -> str:
    """Why the hub's client raised an error instead of giving `what`, for the beginning of a sentence.

    Args:
        what: a repository, or a word for it.
        error: of the client.
        lacking: what else may be the reason where the hub says that something does not exist.
    """
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"the hub gives {what} only to users who agreed to its terms there; agree, and set HF_TOKEN"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return f"the hub cannot be reached, and its cache does not hold {what}"
    if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError | errors.EntryNotFoundError):
        return f"the hub does not have {what}{lacking}, or HF_TOKEN is not of a user who may read it"
    return f"the hub did not give {what}"


def _require_as_named(path: Path) -> None:
    """Check a file of the hub's cache against the hash that is its name; delete it if they differ."""
    blob = path.resolve()
    algorithm = {40: "git", 64: "sha256"}.get(len(blob.name))
    if algorithm and hash_of(blob, algorithm) != blob.name:
        blob.unlink()
        msg = f"{path.name} arrived damaged: its {algorithm} hash is not {blob.name[:12]}…, as the hub states"
        raise InputError(msg)
