"""Formats scores as one table for a paper: one row per model, one column per metric, and a footnote of one line.

Of the numbers that `leaderboard` marks as best, to which no other is shown to be better, the best one is bold, with all
that are printed alike, and the others have a dagger. The footnote also has the remarks on the clips behind the numbers.
"""

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from avbench.core import all_of, counted, csv_text
from avbench.report import latex
from avbench.report.latex import FOOTNOTE, GAP, NORMAL, PAGE_POINTS, SCRIPT, SMALL, TINY, Font, escaped_for_latex
from avbench.report.tables import (
    ARROWS,
    PART,
    POOLED,
    Cell,
    SubsetTable,
    collected,
    escaped,
    heads_of,
    remarks,
    subset_tables,
)

DAGGER = "†"
"""Marks a number that is not the best, to which none is shown to be better."""
_ACRONYMS = ("fad", "fvd", "kad", "kvd", "lpips")


@dataclass(frozen=True)
class PaperTable:
    """Subsets one below the other, under the same columns."""

    columns: list[str]
    subsets: list[tuple[str, list[tuple[str, list[Cell]]]]]
    """Subset and its rows: model and cells."""
    footnote: str
    standard: str = ""
    """Name of the rows with the values to compare with."""


def paper_table(frame: pd.DataFrame, metrics: Sequence[str] | None = None) -> PaperTable:
    """Lay out `leaderboard.leaderboard`.

    Args:
        frame: the scores.
        metrics: names of the columns, in their order; all metrics in the frame's order for None.
    """
    own = frame.loc[~frame["subset"].isin(POOLED)].astype({"best": bool})
    names = [*dict.fromkeys(metrics or own["metric"])]
    tables, subsets = [*subset_tables(own)], []
    for table in tables:
        marked = _marked(table, own.loc[own["subset"] == table.subset])
        rows = [(model, [cells.get(name, Cell("")) for name in names]) for model, cells in marked.items()]
        subsets.append((table.subset, rows))
    heads = heads_of(tables)
    columns = [_head(heads[name]) for name in names]
    footnote = _footnote(own.loc[own["metric"].isin(names)], columns, subsets)
    return PaperTable(columns, subsets, footnote, tables[0].standard)


def _head(column: str) -> str:
    """A metric in words, its direction, and its unit in brackets."""
    name, *parts = column.split(" ")
    sign = parts.pop(0) if parts and parts[0] in ARROWS.values() else ""
    return " ".join(part for part in (_words(name), sign, f"({' '.join(parts)})" if parts else "") if part)


def _words(metric: str) -> str:
    return " ".join(word.upper() if word in _ACRONYMS else word for word in metric.split("_"))


def _marked(table: SubsetTable, frame: pd.DataFrame) -> dict[str, dict[str, Cell]]:
    """The cells of each model by metric. Only the best numbers of a column stay bold; the others to which none is shown
    to be better get a dagger.
    """
    best = frame.loc[frame["best"]]
    first: list[Any] = [*best.loc[best["rank"] == best.groupby("metric")["rank"].transform("min")].itertuples()]
    leaders = {(row.metric, row.model) for row in first}
    rows = {model: dict(zip(table.metrics, cells, strict=True)) for model, cells in table.rows}
    bold = {
        (name, _value(cell))
        for model, cells in rows.items()
        for name, cell in cells.items()
        if cell.best and (name, model) in leaders
    }
    sentences = {*frame["too_few"].dropna()}  # a table for a paper has no room for them
    for cells in rows.values():
        for name, cell in cells.items():
            first_of_all = cell.best and (name, _value(cell)) in bold
            short = "–" if cell.short in sentences else cell.short
            signs = (PART if cell.partial else "") + (DAGGER if cell.best and not first_of_all else "")
            cells[name] = Cell(short + signs, first_of_all)
    return rows


def _value(cell: Cell) -> str:
    """A cell's number without its half-width."""
    return cell.short.partition(" ± ")[0]


def _footnote(
    frame: pd.DataFrame, columns: Sequence[str], subsets: list[tuple[str, list[tuple[str, list[Cell]]]]]
) -> str:
    cells = [cell for _, rows in subsets for _, row in rows for cell in row]
    signs = {ARROWS[way]: meaning for way, meaning in (("lower", "lower is better"), ("higher", "higher is better"))}
    signs[ARROWS["band"]] = "should match the reference"
    clips = sorted({int(n) for n in frame["n"].tolist() if n}) or [0]
    size = counted(clips[0], "clip") if clips[0] == clips[-1] else f"{clips[0]} to {clips[-1]} clips"
    parts = [f"{size} per number"]
    if any("±" in cell.short for cell in cells):
        parts.append("± half of the 95 % interval over prompts")
    parts += [f"{sign} {meaning}" for sign, meaning in signs.items() if any(sign in column for column in columns)]
    parts += _marks_explained(cells, columns)
    if any("–" in cell.short for cell in cells):
        parts.append("– not measured, or of too few clips")
    if any(PART in cell.short for cell in cells):
        parts.append(f"{PART} of a part of the clips")
    shown = frame["value"].notna() & frame["too_few"].isna()
    parts += [one.replace("; ", ", ") for one in collected(frame.loc[shown], remarks, _words)]
    return "; ".join(parts) + "."


def _marks_explained(cells: Sequence[Cell], columns: Sequence[str]) -> Iterator[str]:
    """Yield what bold, the dagger and no mark mean, if a column has marks."""
    if not any(cell.best for cell in cells):
        return
    yield (
        "bold: in a column where a model is shown to be worse than another (Holm over its pairs), the best number to "
        "which none is shown to be better; it need not be shown to be better than each"
    )
    if any(DAGGER in cell.short for cell in cells):
        yield f"{DAGGER} none is shown to be better than this one either, which does not make it equal"
    matched = any(ARROWS["band"] in column for column in columns)
    yield "no mark beside bold: one is shown to be better, or too few clips for a test against the best" + (
        f", or (of {ARROWS['band']}) the interval misses the reference's value" if matched else ""
    )


def as_latex(table: PaperTable) -> str:
    """A table with the rules of booktabs, a caption and a label, in a font that fits it into a page of one column.

    Where no font does, it has the smallest one, and a comment says so.
    """
    across = len(table.columns) + 1
    several = len(table.subsets) > 1
    fonts = next((one for one in _FONTS if sum(_widths(table, *one)) <= PAGE_POINTS), _FONTS[-1])
    wide = too_wide(table)
    lines = [
        *([f"% {wide}"] if wide else []),
        *("\\begin{table}", f"\\centering{fonts[0].command}\\setlength{{\\tabcolsep}}{{{GAP}pt}}"),
        f"\\caption{{Scores on {escaped_for_latex(all_of([name for name, _ in table.subsets]))}.}}",
        "\\label{tab:avbench}",
        f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        "\\toprule",
        latex.row(["Model", *(latex.head(_lines(column)) for column in table.columns)]),
    ]
    for subset, rows in table.subsets:
        lines.append("\\midrule")
        if several:
            lines.append(f"\\multicolumn{{{across}}}{{l}}{{\\emph{{{escaped_for_latex(subset)}}}}} \\\\")
        for model, cells in rows:
            name = f"\\emph{{{model}}}" if model == table.standard else escaped_for_latex(model)
            lines.append(latex.row([name, *(_latex_cell(one, fonts[1].command) for one in cells)]))
    signs_with_words = re.sub(r"(?<=; )(\S) ", "\\1\u00a0", table.footnote)
    foot = f"\\par\\smallskip{latex.below(signs_with_words)}"
    return latex.with_comments("\n".join([*lines, "\\bottomrule", "\\end{tabular}", foot, "\\end{table}", ""]))


_FONTS = ((NORMAL, FOOTNOTE), (SMALL, SCRIPT), (FOOTNOTE, TINY), (SCRIPT, TINY))
"""Fonts for numbers and for their half-widths, the largest first."""
_LINE = 12
"""Letters in a line of a column's head."""


def too_wide(table: PaperTable) -> str | None:
    """What to do about a table that does not fit a page of one column in the smallest font; None where it does."""
    widths = _widths(table, *_FONTS[-1])
    if sum(widths) <= PAGE_POINTS:
        return None
    shorten = widths[0] + max(widths[1:]) > PAGE_POINTS
    remedy = "shorten the models' names in it" if shorten else "choose fewer columns with --metric (in Python, metrics)"
    return (
        f"the table is about {sum(widths):.0f} points wide, and a page of one column has room for {PAGE_POINTS}: "
        f"{remedy}, or set the table across two columns or turned"
    )


def _widths(table: PaperTable, font: Font, smaller: Font) -> list[float]:
    """The points that each column of a table takes about, that of the models' names first."""
    rows = [row for _, of_subset in table.subsets for row in of_subset]
    widths = [max(font.width(model) for model, _ in rows)]
    for place, head in enumerate(table.columns):
        of_cells = (_cell_width(cells[place], font, smaller) for _, cells in rows)
        widths.append(max(*of_cells, *map(font.width, _lines(head))))
    return [2 * GAP + width for width in widths]


def _cell_width(cell: Cell, font: Font, smaller: Font) -> float:
    """The points that a cell takes about, as `_latex_cell` writes it."""
    value, sign, half = (part.partition("e")[0] for part in cell.short.partition(" ± "))
    powers = len({*re.findall(r"e(-?\d+)", cell.short)})  # each as wide as six letters
    return font.width(value, bold=cell.best) + smaller.width(f"{sign}{half}") + 6 * powers * font.letter


def _lines(head: str) -> list[str]:
    """A column's head in lines; the sign stays with the word before it, and the unit has a line of its own."""
    name, bracket, unit = head.partition(" (")
    words = re.sub(" (?=[^a-zA-Z0-9]$)", "\u00a0", name)  # a sign stays behind its word
    wrapped = textwrap.wrap(words, _LINE, break_long_words=False, break_on_hyphens=False)
    return [*wrapped, *([f"({unit}"] if bracket else [])]


_NUMBER = re.compile(r"(?P<value>-?[0-9.]+)(e(?P<power>-?[0-9]+))?( ± (?P<half>[0-9.]+)(e(?P<half_power>-?[0-9]+))?)?")


def _latex_cell(cell: Cell, smaller: str) -> str:
    """A number, bold where it is best, with its half-width in a smaller font, and its daggers."""
    text = cell.short.rstrip(PART + DAGGER)
    daggers = escaped_for_latex(cell.short.removeprefix(text))
    found = _NUMBER.fullmatch(text)
    if found is None:  # a sentence, or a range of numbers
        ends = [_latex_cell(Cell(end), smaller) for end in text.split(" to ") if _NUMBER.fullmatch(end)]
        return (" to ".join(ends) if len(ends) == 2 else escaped_for_latex(text, bold=cell.best)) + daggers
    value, half = found["value"].replace("-", "$-$"), found["half"] or ""
    shown = f"\\textbf{{{value}}}" if cell.best else value
    power, half_power = _power(found["power"]), _power(found["half_power"])
    beside = f"\\,{{{smaller}$\\pm$\\,{half}{half_power if power != half_power else ''}}}" if half else ""
    if power and half and power == half_power:  # of both
        return f"({shown}{beside}){power}{daggers}"
    return shown + power + beside + daggers


def _power(digits: str | None) -> str:
    """A power of ten, of which the text has the exponent."""
    return f"$\\,\\cdot\\,10^{{{int(digits)}}}$" if digits else ""


def as_markdown(table: PaperTable) -> str:
    """A table for a README."""
    several = len(table.subsets) > 1
    lines = ["| " + " | ".join(["model", *map(escaped, table.columns)]) + " |"]
    lines.append("|---|" + "--:|" * len(table.columns))
    for subset, rows in table.subsets:
        for model, cells in rows:
            texts = [f"**{escaped(one.short)}**" if one.best else escaped(one.short) for one in cells]
            name = f"{subset}: {model}" if several else model
            lines.append("| " + " | ".join([escaped(name), *texts]) + " |")
    return "\n".join([*lines, "", escaped(table.footnote), ""])


def as_csv(table: PaperTable) -> str:
    """The same cells with the subset of each row, without bold."""
    rows = [[subset, model, *(cell.short for cell in cells)] for subset, rows in table.subsets for model, cells in rows]
    return csv_text(pd.DataFrame(rows, columns=["subset", "model", *table.columns]))


FORMS: dict[str, Callable[[PaperTable], str]] = {"latex": as_latex, "md": as_markdown, "csv": as_csv}
"""Format → the function that writes a table for a paper in it."""
