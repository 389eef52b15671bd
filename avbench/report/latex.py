"""Writes tables as LaTeX with the rules of booktabs, and tells about how wide they are in class article."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from avbench.core import ended, one_line, visible
from avbench.report.tables import ARROWS, SubsetTable, side_by_side

_SIGNS = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "−": "$-$",
    "²": "$^2$",
    "³": "$^3$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "µ": r"$\mu$",
    "μ": r"$\mu$",
    "°": r"$^{\circ}$",
    "`": "{`}",
    "\u00a0": "~",
    "Δ": r"$\Delta$",
    "…": r"\ldots{}",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
}
_PREAMBLE = "% in the preamble: \\usepackage{booktabs}"
"""What the tables need."""
PAGE_POINTS = 340
"""Room for a table: a little less than the width of the text in class article."""
GAP = 4
"""Points beside each column, on either side."""


@dataclass(frozen=True)
class Font:
    """A size of Computer Modern, by its command, and the points that a letter of a number takes about in it."""

    command: str
    letter: float
    bold: float

    def width(self, text: str, *, bold: bool = False) -> float:
        """The points that a text takes about; capitals and signs are wider."""
        wide = sum(letter.isupper() or not letter.isascii() for letter in text)
        return (self.bold if bold else self.letter) * (len(text) + 0.4 * wide)


NORMAL = Font("", 4.7, 5.4)
SMALL = Font("\\small", 4.4, 5.0)
FOOTNOTE = Font("\\footnotesize", 4.0, 4.6)
SCRIPT = Font("\\scriptsize", 3.8, 4.3)
TINY = Font("\\tiny", 3.2, 3.6)


def set_as_latex(tables: Iterable[SubsetTable], legend: str) -> str:
    """Write tables with all their notes: one each, in as many parts as fit below each other on a page of one column."""
    return with_comments("\n".join(_set(table, legend) for table in tables))


def with_comments(text: str) -> str:
    """Tables behind comments on what they need, and on the letters that `escaped_for_latex` wrote as numbers."""
    numbers = dict.fromkeys(re.findall(r"\{U\+([0-9A-F]+)\}", text))
    letters = [f"% U+{one} stands for {visible(chr(int(one, 16)))}, which LaTeX's usual fonts lack" for one in numbers]
    return "\n".join([_PREAMBLE, *letters, text])


def _set(table: SubsetTable, legend: str) -> str:
    lines = [f"\\begin{{table}}\\centering{SCRIPT.command}\\setlength{{\\tabcolsep}}{{{GAP}pt}}"]
    lines.append(f"\\caption{{{escaped_for_latex(ended(table.subset))}}}")
    for columns in _fitting(table):
        lines.append(f"\\begin{{tabular}}{{l{'r' * len(columns)}}}\n\\toprule")
        lines.append(row([escaped_for_latex(table.head), *(head(_lines(table.columns[one])) for one in columns)]))
        lines.append("\\midrule")
        for name, cells in table.rows:
            shown = [cells[one] for one in columns]
            texts = (escaped_for_latex(_signed(cell.text), bold=cell.best and bool(cell.text)) for cell in shown)
            lines.append(row([escaped_for_latex(name), *texts]))
        lines.append("\\bottomrule\n\\end{tabular}\\par\\smallskip")
    notes = [f"[{number}] {ended(note)}" for number, note in enumerate(table.notes, start=1)]
    return "\n".join([*lines, below(" ".join([*notes, legend])), "\\end{table}", ""])


def _fitting(table: SubsetTable) -> Iterator[list[int]]:
    """The numbers of the columns that fit side by side, in groups."""
    widths = [
        2 * GAP
        + max(
            *map(SCRIPT.width, _lines(column)),
            *(SCRIPT.width(cells[place].text, bold=cells[place].best) for _, cells in table.rows),
        )
        for place, column in enumerate(table.columns)
    ]
    names = max(SCRIPT.width(name) for name in (table.head, *(name for name, _ in table.rows)))
    return side_by_side(widths, PAGE_POINTS - names - 2 * GAP)


def _lines(column: str) -> list[str]:
    """A column's head in two lines at most; its sign stays beside the first word."""
    return re.split(f" (?![{''.join(ARROWS.values())}])", column, maxsplit=1)


def _signed(text: str) -> str:
    """The text with a minus for each hyphen before a number."""
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)


def row(cells: Sequence[str]) -> str:
    """A row of cells that are LaTeX already."""
    return " & ".join(cells) + " \\\\"


def head(lines: Sequence[str]) -> str:
    """A column's head in lines, set to the right."""
    if len(lines) == 1:
        return escaped_for_latex(lines[0])
    return "\\begin{tabular}[b]{@{}r@{}}" + " \\\\ ".join(map(escaped_for_latex, lines)) + "\\end{tabular}"


def below(text: str) -> str:
    """Notes below a table, as wide as the page, in lines that are as close as their letters are small."""
    return f"\\begin{{minipage}}{{\\linewidth}}{SCRIPT.command} {escaped_for_latex(text)}\\end{{minipage}}"


def escaped_for_latex(text: str, *, bold: bool = False) -> str:
    """Escape text for LaTeX, with commands for signs that its fonts lack; a letter beyond them becomes its number."""
    known = (_SIGNS.get(letter) or _in_latex(letter) for letter in one_line(text))
    escaped = re.sub("-(?=-)", "-{}", "".join(known))  # two hyphens would become a dash
    return f"\\textbf{{{escaped}}}" if bold else escaped


def _in_latex(letter: str) -> str:
    """The letter itself if the fonts of LaTeX have it without a package, else its number."""
    base, *accents = unicodedata.normalize("NFD", letter)
    known = (letter in _LETTERS or base.isascii()) and {*accents} <= _ACCENTS
    return letter if known else f"{{U+{ord(letter):04X}}}"


_LETTERS = "ßæÆøØœŒłŁ–—"
_ACCENTS = {*"\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"}
