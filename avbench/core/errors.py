"""How things go wrong: a user's mistake, an unreadable file, and a clip that cannot be measured."""

import base64
import difflib
import json
import os
import re
import urllib.parse
from collections.abc import Iterable

_SECRET_NAMES = ("TOKEN", "KEY", "SECRET", "PASSWORD")
"""Ends of the names of environment variables whose values are never repeated."""
_SHORTEST_SECRET, _SHORTEST_PART = 8, 12
_LOOKS_SECRET = (
    (re.compile(r"(?<=://)[^/\s@]+(?=@)"), "***"),
    (re.compile(r"(?i)([?&;](?:[a-z0-9_-]*(?:token|key|secret|password|signature)|sig)=)[^&\s\"'<>]+"), r"\1***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+(?=\S*\d)[a-z0-9+/=._~-]{8,}"), r"\1 ***"),
    (re.compile(r"\b(?:hf_|sk-|AIza)[A-Za-z0-9_-]{8,}"), "***"),
)
"""What is a key or a token by its form, whoever it belongs to."""


class InputError(ValueError):
    """Something the user gave is wrong. The message is one sentence; the command line prints it alone."""


class MediaError(InputError):
    """A media file cannot be read or written. The message names the file and the reason."""


class UnusableError(InputError):
    """What a model made cannot be used: it holds NaN, for example. It is asked once more. The message says why."""


class Refused(InputError):
    """A model declines to make this clip (moderation): an answer, not an error. The message is its reason."""


class NotMeasurable(Exception):
    """This clip, or this set of clips, has no such number. The message is the sentence shown in its place."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Say what could have been meant: the closest of `choices` if any is close, and all of them."""
    listed = sorted(choices)
    close = difflib.get_close_matches(name, listed, n=1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}choices: {', '.join(listed) or 'none'}"


def first_line(error: BaseException) -> str:
    """What another library's exception says, in one line, without keys."""
    return masked(next((line for line in str(error).splitlines() if line.strip()), type(error).__name__))


def masked(words: str, *secrets: str) -> str:
    """Words of others without the keys in them: those of the environment, what looks like one, and `secrets`.

    A secret is found as it is, in any case of its letters, as an address or JSON or base64 writes it, and in parts of
    12 letters and more.
    """
    for secret in secrets:
        for form in _forms(secret):
            words = _without(words, form)
    for name, value in os.environ.items():
        if name.upper().endswith(_SECRET_NAMES) and len(value) >= _SHORTEST_SECRET:
            for form in _forms(value):
                words = words.replace(form, "***")
    for pattern, shown in _LOOKS_SECRET:
        words = pattern.sub(shown, words)
    return words


def _forms(secret: str) -> set[str]:
    encoded = {kind(secret.encode()).decode().rstrip("=") for kind in (base64.b64encode, base64.urlsafe_b64encode)}
    forms = {secret, urllib.parse.quote(secret, safe=""), json.dumps(secret)[1:-1], *encoded}
    return {form for form in forms if form}


def _without(words: str, secret: str) -> str:
    """Words without a secret, or any part of it that is long enough to be told from a word."""
    size = min(len(secret), _SHORTEST_PART)
    parts = {secret[start : start + size].lower() for start in range(len(secret) - size + 1)}
    low, hidden = words.lower(), [False] * len(words)
    if len(low) != len(words):  # letters whose small form is longer
        return words.replace(secret, "***")
    for start in range(len(words) - size + 1):
        if low[start : start + size] in parts:
            hidden[start : start + size] = [True] * size
    shown = "".join("\0" if hide else letter for letter, hide in zip(words, hidden, strict=True))
    return re.sub("\0+", "***", shown)
