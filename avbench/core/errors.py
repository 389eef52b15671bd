"""Defines avbench's exceptions, and how their messages suggest names and hide secrets."""

import base64
import difflib
import json
import os
import re
import urllib.parse
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

_SECRET_NAMES = ("TOKEN", "KEY", "SECRET", "PASSWORD")
"""Environment variables with these endings hold secrets; their values are never shown."""
_SHORTEST_SECRET, _SHORTEST_PART = 8, 12
_LOOKS_SECRET = (
    (re.compile(r"(?<=://)[^/\s@]+(?=@)"), "***"),
    (re.compile(r"(?i)([?&;](?:[a-z0-9_-]*(?:token|key|secret|password|signature)|sig)=)[^&\s\"'<>]+"), r"\1***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+(?=\S*\d)[a-z0-9+/=._~-]{8,}"), r"\1 ***"),
    (re.compile(r"\b(?:hf_|sk-|AIza)[A-Za-z0-9_-]{8,}"), "***"),
)
"""Patterns of text that looks like a key or a token."""


_MOST_LISTED, _MOST_GUESSED = 60, 4
"""Choices that an error message lists; choices that it guesses where there are more."""
_MOST_SHOWN = 80
"""Letters of a wrong argument that an error message repeats."""


class InputError(ValueError):
    """Input of the user is wrong. The message is one sentence, which the command line prints without a traceback."""


class MediaError(InputError):
    """A media file cannot be read or written. The message names the file and the reason."""


class UnusableError(InputError):
    """A model's output cannot be used, for example because it holds NaN. Sampling tries once more."""


class WrongFormError(UnusableError):
    """A model's output has another range, type or shape than it must. The message says how to bring it there.

    Sampling does not try again.
    """


class HopelessError(InputError):
    """Every further clip of this model would fail too. It ends the command, where another error fails one clip."""


class Refused(InputError):
    """A model refused to make this clip (moderation). It is counted, and not tried again. The message is the reason."""


class NotMeasurable(Exception):
    """A number does not exist for this clip or set of clips. The message is shown in place of the number."""


class ProgramEnd(Exception):
    """A model's or another package's code raised what would end the program. The message is its kind and first line."""


@contextmanager
def if_missing(sentence: str) -> Iterator[None]:
    """Turn the ImportError of a package that is not installed into an InputError with a sentence on how to get it."""
    try:
        yield
    except ImportError:
        raise InputError(sentence) from None


def nearest(name: str, choices: Iterable[str], listed_by: str | None = None) -> str:
    """Name the choices closest to `name`, and list them all, for an error message.

    Args:
        name: what was given.
        choices: what could have been given.
        listed_by: a command or a page that lists them, where they are many; it is named in place of the list.
    """
    listed = sorted(choices)
    close = _closest(name, listed)
    if listed_by is None and len(listed) <= _MOST_LISTED:
        guess = f"did you mean {close[0]!r}? " if close else ""
        return f"{guess}choices: {', '.join(listed) or 'none'}"
    *most, last = map(repr, close or [""])
    guess = f"did you mean {', '.join(most)}{' or ' if most else ''}{last}? " if close else ""
    return guess + (f"{listed_by} lists all {len(listed)}" if listed_by else f"there are {len(listed)} choices")


def require_known(what: str, given: object, choices: Collection[str], listed_by: str | None = None) -> None:
    """Raise InputError, with the closest of the choices as in `nearest`, unless what was given is one of them."""
    if given not in choices:
        msg = f"{what} {given!r} is unknown; {nearest(str(given), choices, listed_by)}"
        raise InputError(msg)


def _closest(name: str, choices: Iterable[str]) -> list[str]:
    """A few of the choices, the closest first: by spelling, and those that hold the name as a part."""
    lower = {one.lower(): one for one in choices}
    close = difflib.get_close_matches(name.lower(), lower, n=_MOST_GUESSED)
    close += [one for one in lower if len(name) > 2 and name.lower() in one]
    return [lower[one] for one in dict.fromkeys(close)][:_MOST_GUESSED]


def shown(given: object) -> str:
    """What was given in place of something else, for an error message: on one line and not long, as of an array."""
    words = " ".join(repr(given).split())
    return words if len(words) <= _MOST_SHOWN else f"{words[:_MOST_SHOWN]}…"


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error message, with secrets masked and without its full stop."""
    line = next((line for line in str(error).splitlines() if line.strip(" .")), type(error).__name__)
    return masked(line.strip()).rstrip(". ")


def kind_and_first_line(error: BaseException) -> str:
    """Return the kind of an unforeseen error, and its first line where it has a message."""
    if isinstance(error, ProgramEnd):
        return first_line(error)
    kind, words = type(error).__name__, first_line(error)
    return kind if words == kind else f"{kind}: {words}"


def masked(words: str, *secrets: str) -> str:
    """Replace secrets in foreign text by ``***``: keys from the environment, text that looks like a key, and `secrets`.

    Each of `secrets` is found in upper and lower case, URL-quoted, escaped as in JSON, in base64, and in parts of 12 or
    more letters.
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
    """Mask a secret and every part of it that is too long to be an ordinary word."""
    size = min(len(secret), _SHORTEST_PART)
    parts = {secret[start : start + size].lower() for start in range(len(secret) - size + 1)}
    low, hidden = words.lower(), [False] * len(words)
    if len(low) != len(words):  # lower-casing some letters makes them longer, so that positions no longer match
        return words.replace(secret, "***")
    for start in range(len(words) - size + 1):
        if low[start : start + size] in parts:
            hidden[start : start + size] = [True] * size
    shown = "".join("\0" if hide else letter for letter, hide in zip(words, hidden, strict=True))
    return re.sub("\0+", "***", shown)
