"""Counts things in words, and makes text from files safe to show where it could act as a command.

Such places are a terminal, a table or a spreadsheet.
"""

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, such as a terminal's, but not tab and line feed
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that change the direction of reading
    "\u2028\u2029\ud800-\udfff\ufffe\uffff]"  # line and paragraph separators, surrogates, non-characters
)
_FORMULA = tuple("=+-@＝＋－＠")


def counted(count: int, noun: str) -> str:
    """A number of things: ``1 clip``, ``2 clips``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first names, and how many more there are: ``a, b, c and 2 more``."""
    found = [*names]
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def beside_limit(value: float, limit: float) -> str:
    """A number in four digits, or in as many as tell it from a limit that it misses: ``30.002`` beside 30."""
    texts = [f"{value:.{digits}g}" for digits in range(4, 18)]
    return next((text for text in texts if float(text) != limit), texts[0])


def all_of(names: Sequence[str]) -> str:
    """All names as a part of a sentence: ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def ended(text: str) -> str:
    """The text as a sentence: with a full stop, unless it ends as a sentence does."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can encode a text: it has no half of a character (a lone surrogate), as names in bytes become."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_typed(*words: object) -> str:
    """Words of a command as a user types them: quoted for a shell, and a path such as ``-x`` as ``./-x``."""
    texts = [*map(str, words)]
    return shlex.join(f"./{text}" if text.startswith("-") else text for text in texts)


def visible(text: object) -> str:
    r"""Escape control characters, so that ``\x1b[31m`` is shown as these letters and colours nothing."""
    return _UNSEEN.sub(_named, str(text))


def one_line(text: object) -> str:
    """Escape control characters, and replace line ends and tabs by spaces."""
    return re.sub(r"[\n\t]+", " ", visible(text))


def spreadsheet_cell(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would take for a formula.

    Numbers stay as they are, also with a half-width and signs: ``-0.124 ± 0.039†``.
    """
    shown = visible(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) and not _number(shown) else shown


def csv_text(frame: "pd.DataFrame") -> str:
    """Write a table as CSV, with every text escaped by `spreadsheet_cell`."""
    texts = frame.select_dtypes(exclude=["number", "bool"]).columns
    safe = {name: frame[name].map(lambda one: spreadsheet_cell(one) if isinstance(one, str) else one) for name in texts}
    return frame.assign(**safe).to_csv(index=False)


def _named(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _number(text: str) -> bool:
    try:
        for part in text.rstrip("†‡").split(" ± "):
            float(part)
    except ValueError:
        return False
    return True
