"""Formats scores as one table for a paper: one row per model, one column per metric, and a footnote of one line.

In a column where one model is shown to be ahead, the best number is bold, and a dagger marks each number that cannot be
distinguished from it. A column where no model is shown to be ahead has no marks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from avbench.core import csv_text
from avbench.report.tables import (
    ARROWS,
    POOLED,
    STANDARD,
    Cell,
    SubsetTable,
    escaped,
    escaped_for_latex,
    subset_tables,
)

DAGGER = "†"


@dataclass(frozen=True)
class PaperTable:
    """Subsets one below the other, under the same columns."""

    columns: list[str]
    subsets: list[tuple[str, list[tuple[str, list[Cell]]]]]
    """Subset and its rows: model and cells."""
    footnote: str


def paper_table(frame: pd.DataFrame, metrics: Sequence[str] | None = None) -> PaperTable:
    """Lay out `leaderboard.leaderboard`.

    Args:
        frame: the scores.
        metrics: names of the columns, in their order; all metrics in the frame's order for None.
    """
    own = frame.loc[~frame["subset"].isin(POOLED)].astype({"best": bool})
    names = [*dict.fromkeys(metrics or own["metric"])]
    heads: dict[str, str] = {}
    subsets = []
    for table in subset_tables(own):
        places = {column.split(" ")[0]: place for place, column in enumerate(table.columns)}
        heads = {name: table.columns[place] for name, place in places.items()} | heads
        marked = _marked(table, own.loc[own["subset"] == table.subset], places)
        rows = [
            (model, [cells[places[name]] if name in places else Cell("") for name in names]) for model, cells in marked
        ]
        subsets.append((table.subset, rows))
    columns = [_head(heads[name]) for name in names]
    return PaperTable(columns, subsets, _footnote(own, columns, subsets))


def _head(column: str) -> str:
    """A metric in words, its direction, and its unit in brackets."""
    name, *parts = column.split(" ")
    sign = parts.pop(0) if parts and parts[0] in ARROWS.values() else ""
    return " ".join(part for part in (name.replace("_", " "), sign, f"({' '.join(parts)})" if parts else "") if part)


def _marked(table: SubsetTable, frame: pd.DataFrame, places: dict[str, int]) -> list[tuple[str, list[Cell]]]:
    """Only the best number of a column stays bold; the others that may be first get a dagger."""
    best: list[Any] = sorted((row for row in frame.itertuples() if row.best), key=lambda row: -row.rank)  # pyright: ignore
    leaders = {places[row.metric]: row.model for row in best}  # the first of the ranks comes last, and stays
    sentences = {*frame["too_few"].dropna()}  # a table for a paper has no room for them
    found = []
    for model, cells in table.rows:
        row = []
        for place, cell in enumerate(cells):
            beside = cell.best and leaders.get(place) != model
            short = "–" if cell.short in sentences else cell.short
            row.append(Cell(short + (DAGGER if beside else ""), cell.best and not beside))
        found.append((model, row))
    return found


def _footnote(
    frame: pd.DataFrame, columns: Sequence[str], subsets: list[tuple[str, list[tuple[str, list[Cell]]]]]
) -> str:
    cells = [cell for _, rows in subsets for _, row in rows for cell in row]
    signs = {ARROWS[way]: meaning for way, meaning in (("lower", "lower is better"), ("higher", "higher is better"))}
    signs[ARROWS["band"]] = "should match the reference"
    clips = sorted({int(n) for n in frame["n"].tolist() if n}) or [0]
    size = str(clips[0]) if clips[0] == clips[-1] else f"{clips[0]} to {clips[-1]}"
    parts = [f"{size} clips per number"]
    if any("±" in cell.short for cell in cells):
        parts.append("± half of the 95 % interval over prompts")
    parts += [f"{sign} {meaning}" for sign, meaning in signs.items() if any(sign in column for column in columns)]
    if any(cell.best for cell in cells):
        parts.append("bold: shown to be best")
    if any(DAGGER in cell.short for cell in cells):
        parts.append(f"{DAGGER} not distinguishable from the best")
    if any("–" in cell.short for cell in cells):
        parts.append("– not measured, or of too few clips")
    return "; ".join(parts) + "."


def as_latex(table: PaperTable) -> str:
    """A table with the rules of booktabs, a caption and a label."""
    across = len(table.columns) + 1
    several = len(table.subsets) > 1
    lines = [
        "% in the preamble: \\usepackage{booktabs}",
        *("\\begin{table}", "\\centering"),
        f"\\caption{{Scores on {escaped_for_latex(' and '.join(name for name, _ in table.subsets))}.}}",
        "\\label{tab:avbench}",
        f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        "\\toprule",
        _latex_row(["Model", *map(escaped_for_latex, table.columns)]),
    ]
    for subset, rows in table.subsets:
        lines.append("\\midrule")
        if several:
            lines.append(f"\\multicolumn{{{across}}}{{l}}{{\\emph{{{escaped_for_latex(subset)}}}}} \\\\")
        for model, cells in rows:
            name = f"\\emph{{{model}}}" if model == STANDARD else escaped_for_latex(model)
            lines.append(_latex_row([name, *(escaped_for_latex(one.short, bold=one.best) for one in cells)]))
    foot = f"\\par\\smallskip{{\\footnotesize {escaped_for_latex(table.footnote)}}}"
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", foot, "\\end{table}", ""])


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + " \\\\"


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
