"""How things go wrong: a user's mistake, an unreadable file, and a clip that cannot be measured."""

import difflib
from collections.abc import Iterable


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
    """What another library's exception says, in one line."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
