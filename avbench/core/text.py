"""How does text from a file reach a terminal, a spreadsheet or a table? So that it is only read, and does nothing."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, those of terminals among them; not tab and line feed
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of reading
    "\u2028\u2029\ud800-\udfff\ufffe\uffff]"  # other ends of lines, halves of pairs, and what is no character
)
_FORMULA = tuple("=+-@＝＋－＠")


def visible(text: object) -> str:
    r"""Text without control characters: ``\x1b[31m`` is shown by these letters, and colours nothing."""
    return _UNSEEN.sub(_named, str(text))


def one_line(text: object) -> str:
    """The same without ends of lines and tabs, which become spaces."""
    return re.sub(r"[\n\t]+", " ", visible(text))


def spreadsheet_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula: one that could be has an apostrophe before it. Numbers stay."""
    shown = visible(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) and not _number(shown) else shown


def csv_text(frame: "pd.DataFrame") -> str:
    """A table as CSV whose texts no spreadsheet takes for formulas."""
    texts = frame.select_dtypes(exclude=["number", "bool"]).columns
    safe = {name: frame[name].map(lambda one: spreadsheet_cell(one) if isinstance(one, str) else one) for name in texts}
    return frame.assign(**safe).to_csv(index=False)


def _named(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
