"""Sends requests to a server: when to retry, how long to wait, how much to read, and where the key may go.

A request is repeated if the server cannot have received it (no connection, 429, 503). If repeating does no harm, it is
also repeated after any lost answer (5xx, a broken connection). Pauses double from the first one up to a minute, with
jitter, unless Retry-After gives another; a `Deadline` ends them all. The key is sent only to the server's own
origin, also after redirects, and is removed from every message.
"""

import email.utils
import itertools
import json
import random
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from avbench.core import InputError, first_line, masked

_BUSY = (429, 503)
_LOST = (408, 425, 500, 502, 504, 520, 522, 524, 529)
_MOST_JSON_BYTES = 16 * 2**20
_LONGEST_PAUSE = 60.0
_JITTER = random.Random()  # its own generator, so that no other random numbers change


class LostError(Exception):
    """There was no answer, so it is unknown whether the server accepted the request."""


class BrokenError(Exception):
    """A download failed this time; the message says how."""


@dataclass(frozen=True)
class Answer:
    """A server's answer that is final: the request is not repeated."""

    status: int
    plain: Any
    headers: httpx.Headers

    @property
    def good(self) -> bool:
        """Whether the request succeeded."""
        return 200 <= self.status < 300


class Deadline:
    """The time at which waiting for one clip, or for what `wanted` names, ends."""

    def __init__(self, seconds: float, wanted: str = "clip") -> None:
        self._seconds, self._end, self._wanted = seconds, time.monotonic() + seconds, wanted

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._end - time.monotonic()

    def pause(self, seconds: float, what: str) -> None:
        """Sleep; if less time than that is left, raise InputError at once."""
        if seconds >= self.left:
            raise self.passed(what)
        time.sleep(seconds)

    def passed(self, what: str) -> InputError:
        """The error that the deadline has passed."""
        msg = f"no {self._wanted} within {self._seconds:g} s: {what}; the same command continues from there"
        return InputError(msg)


class Server:
    """One server; `base` is the address that its paths are relative to."""

    def __init__(self, base: str, key: str | None, key_header: dict[str, str], *, first_pause: float) -> None:
        self._base = httpx.URL(base.rstrip("/") + "/")
        self._key, self._key_header, self._first_pause = key, key_header, first_pause
        self._client = httpx.Client(timeout=httpx.Timeout(60.0, connect=10.0), headers={"User-Agent": "avbench"})
        weakref.finalize(self, self._client.close)

    def ask(self, method: str, path: str, deadline: Deadline, *, twice: bool = True, **request: Any) -> Answer:
        """Send a request until there is an answer.

        Args:
            method: GET or POST.
            path: relative to the server's address, or a whole address that the server gave.
            deadline: when to give up.
            twice: whether repeating does no harm. If it does, a lost answer raises LostError instead.
            request: arguments of httpx: files, json, params, headers.

        Raises:
            LostError: see `twice`.
            InputError: the deadline passed, or the answer is not JSON.
        """
        url = self._url(path)
        headers = {**(self._key_header if self._own(url) else {}), **request.pop("headers", {})}
        for pause in self._pauses():
            after = None
            try:
                with self._client.stream(
                    method, url, headers=headers, timeout=self._timeout(deadline), **request
                ) as response:
                    status = response.status_code
                    if status not in (*_BUSY, *_LOST):
                        return Answer(status, self._json(response, deadline), response.headers)
                    reason, after = f"{url.host} answers {status}", _retry_after(response.headers)
                    received = status in _LOST
            except httpx.RequestError as error:
                reason = f"{url.host} cannot be reached ({self.clean(first_line(error))})"
                received = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            if received and not twice:
                raise LostError(reason)
            own = max(self._first_pause, min(pause, deadline.left / 2))  # so that the last tries precede the deadline
            deadline.pause(own if after is None else max(after, self._first_pause), reason)
        raise AssertionError  # the sequence of pauses is endless

    def unreachable(self) -> str | None:
        """Return why nobody answers at the server's address, or None if somebody does; one try, without the key."""
        try:
            self._client.head(self._base, timeout=5.0)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return f"{self.clean(str(self._base)).rstrip('/')} cannot be reached ({self.clean(first_line(error))})"
        except httpx.HTTPError:  # somebody is there
            pass
        return None

    def download(self, address: str, path: Path, deadline: Deadline, *, most_bytes: int) -> str | None:
        """Download an address to `path`. A download that fails leaves an incomplete file, which the next call replaces.

        Returns:
            None, or the reason why the address has no file (no longer, or not yet).

        Raises:
            LostError: the server did not answer.
            BrokenError: the download was cut off, or is not a video; another try may succeed.
            InputError: the file is larger than `most_bytes`, or the deadline passed.
        """
        url = self._url(address)
        path.unlink(missing_ok=True)
        try:
            for _ in range(6):
                headers = self._key_header if self._own(url) else {}
                with self._client.stream("GET", url, headers=headers, timeout=self._timeout(deadline)) as response:
                    if response.has_redirect_location:
                        url = self._http(url.join(response.headers["location"]))
                        continue
                    if response.status_code in (401, 403, 404, 409, 410):
                        return f"{url.host} answers {response.status_code}"
                    if response.status_code != 200:
                        msg = f"{url.host} answers {response.status_code}"
                        raise LostError(msg) if response.status_code in (*_BUSY, *_LOST) else BrokenError(msg)
                    self._write(response, path, deadline, most_bytes)
                    return None
        except httpx.RequestError as error:
            msg = f"the download was cut off ({self.clean(first_line(error))})"
            raise (BrokenError if path.exists() else LostError)(msg) from None
        msg = f"{url.host} redirects without end"
        raise BrokenError(msg)

    def clean(self, words: str) -> str:
        """A short form of a server's words, without the key."""
        words = " ".join(words.split())
        return masked(words, *([self._key] if self._key else []))[:300]

    def _write(self, response: httpx.Response, path: Path, deadline: Deadline, most_bytes: int) -> None:
        length, kind = response.headers.get("content-length", ""), response.headers.get("content-type", "")
        if length.isdigit() and int(length) > most_bytes:
            raise _too_large(most_bytes, f"the server offers {int(length) / 1e6:.0f} MB")
        path.parent.mkdir(parents=True, exist_ok=True)
        count = 0
        with path.open("wb") as file:
            for chunk in response.iter_bytes():
                if not count and (text := _text(kind, chunk)):
                    msg = f"the server sent text instead of a video: {self.clean(text)!r}"
                    raise BrokenError(msg)
                count += len(chunk)
                if count > most_bytes:
                    raise _too_large(most_bytes)
                if deadline.left < 0:
                    what = f"the download has reached {count / 1e6:.1f} MB"
                    raise deadline.passed(what)
                file.write(chunk)
        if not count:
            msg = "the server sent an empty file"
            raise BrokenError(msg)

    def _json(self, response: httpx.Response, deadline: Deadline) -> Any:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _MOST_JSON_BYTES:
                raise _too_large(_MOST_JSON_BYTES)
            if deadline.left < 0 and len(body) > len(chunk):
                what = "its answer does not end"
                raise deadline.passed(what)
        try:
            return json.loads(bytes(body))
        except (ValueError, RecursionError):
            words = self.clean(bytes(body[:2000]).decode(errors="replace"))
            if response.is_success:
                msg = f"{response.url.host} did not answer with JSON: {words[:120]!r}; is this the API's address?"
                raise InputError(msg) from None
            return {"error": words}

    def _timeout(self, deadline: Deadline) -> httpx.Timeout:
        left = max(deadline.left, 0.1)
        return httpx.Timeout(min(60.0, left), connect=min(10.0, left))

    def _pauses(self) -> Iterator[float]:
        for number in itertools.count():
            yield min(self._first_pause * 2.0 ** min(number, 20), _LONGEST_PAUSE) * _JITTER.uniform(0.5, 1.5)

    def _url(self, address: str) -> httpx.URL:
        # a path is never read as "host:port" or "scheme:rest", whatever it contains
        return self._http(httpx.URL(address) if "://" in address else httpx.URL(f"{self._base}{address}"))

    def _http(self, url: httpx.URL) -> httpx.URL:
        if url.scheme not in ("http", "https"):
            msg = f"the server redirects to {url.scheme}://…; only http and https are followed"
            raise InputError(msg)
        return url

    def _own(self, url: httpx.URL) -> bool:
        return (url.scheme, url.host, url.port) == (self._base.scheme, self._base.host, self._base.port)


def _text(kind: str, start: bytes) -> str | None:
    """The text of a body that is text, whatever its content type says; else None."""
    head = start[:300].lstrip()
    if kind.startswith(("text/", "application/json")) or head[:1] in (b"<", b"{"):
        return head.decode(errors="replace")[:120]
    return None


def _too_large(most_bytes: int, size: str = "the download is larger") -> InputError:
    return InputError(f"{size}, but at most {most_bytes / 1e6:.0f} MB are accepted")


def _retry_after(headers: httpx.Headers) -> float | None:
    """The value of Retry-After in seconds, from either form that HTTP allows."""
    value = headers.get("retry-after", "")
    if value.replace(".", "", 1).isdecimal():
        return float(value)
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
