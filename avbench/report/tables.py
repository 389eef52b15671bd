"""How is a comparison read? One table a subset: a row a model, a column a metric, and a last row to read them by.

That last row holds, for a distance, what the reference's own clips score against each other at the same n, and for
a band metric the reference's value. A cell without a number, or with fewer clips, has a numbered footnote.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

_ARROWS = {"lower": "↓", "higher": "↑", "band": "≈", "neither": ""}
STANDARD = "reference"
"""Name of the row to read the others by."""
LEGEND = (
    "± is the half-width of a 95 % interval over prompts. ↓ lower is better, ↑ higher: the extreme is bold. ≈ should "
    "match the reference: bold where the interval holds it. Differences between models are not tested."
)


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class SubsetTable:
    """One subset's table, ready to be set in any form."""

    subset: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]
    notes: list[str]


def subset_tables(frame: pd.DataFrame) -> Iterator[SubsetTable]:
    """Lay out `compare.scores_frame`'s long table, a table a subset."""
    for subset, of_subset in frame.groupby("subset", sort=False):
        metrics = list(of_subset["metric"].unique())
        notes: list[str] = []
        rows = []
        for model, of_model in of_subset.groupby("model", sort=False):
            by_metric = of_model.set_index("metric")
            rows.append((str(model), [_cell(by_metric.loc[metric], notes) for metric in metrics]))
        heads = of_subset.drop_duplicates("metric").set_index("metric")
        standards = [_standard(of_subset[of_subset["metric"] == metric]) for metric in metrics]
        if any(cell.text for cell in standards):
            rows.append((STANDARD, standards))
        yield SubsetTable(str(subset), [_head(heads.loc[metric]) for metric in metrics], rows, notes)


def console(frame: pd.DataFrame) -> Group:
    """For rich."""
    parts: list[RichTable | Text] = []
    for table in subset_tables(frame):
        title = Text(table.subset, style="bold")
        rich_table = RichTable(
            Column("model", no_wrap=True), title=title, title_justify="left", box=SIMPLE_HEAD, padding=0
        )
        for column in table.columns:
            rich_table.add_column(column.replace("_", "_\n").replace(" ", "\n", 1), justify="right", no_wrap=True)
        for name, cells in table.rows:
            texts = [Text(cell.text.replace(" ± ", "\n± "), "bold green" if cell.best else "") for cell in cells]
            rich_table.add_row(Text(name), *texts, style="dim" if name == STANDARD else "")
        parts.append(rich_table)
        parts.extend(Text(f"{number} {note}", style="dim") for number, note in enumerate(table.notes, start=1))
        parts.append(Text())
    return Group(*parts, Text(LEGEND, style="dim"))


def markdown(frame: pd.DataFrame) -> str:
    """For a README or a pull request."""
    lines = []
    for table in subset_tables(frame):
        lines += [f"**{table.subset}**", "", "| model | " + " | ".join(table.columns) + " |"]
        lines.append("|---|" + "--:|" * len(table.columns))
        for name, cells in table.rows:
            texts = [f"**{cell.text}**" if cell.best else cell.text for cell in cells]
            lines.append(f"| {_escaped(name)} | " + " | ".join(texts) + " |")
        lines.append("")
        lines += [f"{number}. {_escaped(note)}" for number, note in enumerate(table.notes, start=1)]
        lines += [""] if table.notes else []
    return "\n".join([*lines, LEGEND, ""])


def _head(row: pd.Series) -> str:
    return " ".join(part for part in (str(row.name), _ARROWS[row["direction"]], row["unit"]) if part)


def _cell(row: pd.Series, notes: list[str]) -> Cell:
    note = None
    if pd.isna(row["value"]):
        note, text = str(row["missing"]), "–"
    else:
        half = "" if pd.isna(row["low"]) else f" ± {_number((row['high'] - row['low']) / 2, row['value'])}"
        text = _number(row["value"]) + half
        if row["unmeasured"]:
            note = f"rests on {row['n']} clips; {row['unmeasured']} could not be measured"
    if note is None:
        return Cell(text, bool(row["best"]))
    if note not in notes:
        notes.append(note)
    return Cell(f"{text} [{notes.index(note) + 1}]", bool(row["best"]))


def _standard(of_metric: pd.DataFrame) -> Cell:
    for column in ("floor", "reference"):
        known = of_metric[column].dropna()
        if len(known):
            return Cell(_number(float(known.iloc[0])))
    return Cell("")


def _number(value: float, beside: float | None = None) -> str:
    """Three significant digits; a half-width gets the decimals of the value that it stands `beside`."""
    magnitude = abs(value if beside is None else beside)
    if magnitude == 0:
        return f"{value:.2g}"
    decimals = max(0, 2 - math.floor(math.log10(magnitude)))
    return f"{value:.1e}" if decimals > 6 else f"{value:.{decimals}f}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
