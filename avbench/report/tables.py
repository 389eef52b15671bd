"""Lays out scores: one table per subset, with a row per model, a column per metric, and a last row for comparison.

For a distance, the last row holds what the reference's own clips score against each other at the same n; for a band
metric, the reference's value. A distance is shown with its excess over the null at its n and with its p-value; one that
rests on too few clips is replaced by a sentence. A cell without a number, or with fewer clips, has a numbered footnote.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

from avbench.comparison.differences import MACRO, MICRO
from avbench.comparison.verdict import ahead
from avbench.core import all_of, counted, ended, one_line
from avbench.metrics.evaluate import NO_REFERENCE
from avbench.statistics.paired import ALPHA

ARROWS = {"lower": "↓", "higher": "↑", "band": "≈", "neither": ""}
STANDARD = "reference"
"""Name of the row with the values to compare with, unless a model is called so."""
LEGEND = (
    "± is the half-width of a 95 % interval over prompts. ↓ lower is better, ↑ higher is better, ≈ should match the "
    "reference's value. A last row called reference has that value, and of a distance what n of the reference's own "
    "clips score against the rest, if it has 2 n. In a column without a sign no side is better: its metric has no "
    "better side, or the reference's value is not known. In brackets, for a distance: its excess over what one "
    "distribution on both sides would score at this n, and the share p of permutations that are as far apart. A large "
    "p is no merit: with few clips every run has one. A distance that rests on too few clips is left out; the files "
    "have its value. Bold: no other is shown to be better, at least one is shown not to be the best, and it shares "
    "enough prompts with the leader for a test; for ≈ its interval also holds the reference's value. macro lets every "
    "subset count the same in which the metric has a value, micro every clip."
)
RANKS_LEGEND = (
    "Letters: rows that share one are not told apart (t-tests over prompts, Holm over the pairs of a column), or have "
    "too few prompts in common for so many tests. They correct each column alone, so they can tell rows apart where "
    "the answer, which corrects over all comparisons, does not. After them the rank, with the places that the data "
    "leave open. Rows stand in the order of their mean rank over the columns in which all ranked rows have one, which "
    "is no test; where there is no such column, in the order given."
)
PART = "‡"
"""Marks a number of a part of the clips, in the compact table and in that for a paper."""
_PARTIAL = f"{PART} rests on a part of the clips: the page and the tables in files say on how many."
STAR = (
    "* is shown to be better than another run and worse than none, as said above; of ≈, to be nearer to the "
    "reference's value."
)
"""Explains the star of the compact table."""
_NULL_KINDS = {
    True: "its null exchanges clips within prompts, another model's across prompts: excess and p cannot be compared",
    False: "its null exchanges clips across prompts, another model's within prompts: excess and p cannot be compared",
}
"""`null_within_prompts` → what to say where nulls of one column are of both kinds."""
_HUGE = 1e7
"""From here on numbers have an exponent."""
MOST_COLUMNS = 8
"""Columns of the compact table, the models' names included."""
POOLED = {MACRO: "all subsets, each counted alike", MICRO: "all subsets, each clip counted alike"}
"""Names of the pools over subsets, and their meaning."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    short: str
    """A number with its half-width, or a sentence instead of it."""
    best: bool = False
    more: str = ""
    """Further details: excess and p of a distance, letters and ranks."""
    note: int | None = None
    """Number of a note below the table."""
    partial: bool = False
    """Whether it rests on a part of the clips of all models."""

    @property
    def text(self) -> str:
        """The whole text of the cell."""
        return self.short + self.more + ("" if self.note is None else f" [{self.note}]")


@dataclass(frozen=True)
class SubsetTable:
    """One subset's table, ready for any format."""

    subset: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]
    notes: list[str]
    head: str = "model"
    """What the rows are."""
    metrics: Sequence[str] = ()
    """Of each column, where columns are metrics."""
    standard: str = ""
    """Name of the row with the values to compare with; empty where there is none."""


def subset_tables(frame: pd.DataFrame, *, ranks: bool = False) -> Iterator[SubsetTable]:
    """Lay out `leaderboard.leaderboard`: one table per subset or pool, one row per model.

    With `ranks`, cells include ranks, and models are in the order of `_by_rank`.
    """
    standard = STANDARD
    while standard in {*frame["model"]}:
        standard = f"the {standard}"
    for subset, of_subset in frame.assign(other_null=_null_remarks(frame)).groupby("subset", sort=False):
        metrics = list(of_subset["metric"].unique())
        models = _by_rank(of_subset) if ranks else [*of_subset["model"].unique()]
        cells: Any = of_subset.set_index(["model", "metric"])
        notes: list[str] = []
        rows = [
            (
                str(model),
                [
                    _cell(cells.loc[at], notes, ranks) if (at := (model, name)) in cells.index else Cell("")
                    for name in metrics
                ],
            )
            for model in models
        ]
        heads: Any = of_subset.drop_duplicates("metric").set_index("metric", drop=False)
        standards = [_standard(of_subset.loc[of_subset["metric"] == metric]) for metric in metrics]
        if any(cell.text for cell in standards):
            rows.append((standard, standards))
        # a side of a band metric is better only if the reference's value is known
        sided = {*of_subset.loc[(of_subset["direction"] != "band") | of_subset["reference"].notna(), "metric"]}
        shown = [column_head(heads.loc[one], sided=one in sided) for one in metrics]
        yield SubsetTable(str(subset), shown, rows, notes, metrics=metrics, standard=standard)


def _null_remarks(frame: pd.DataFrame) -> pd.Series:
    """What to say of each row's null where those of its metric on its subset are of two kinds; NaN elsewhere."""
    kinds: Any = frame["null_within_prompts"].where(frame["too_few"].isna())
    count = kinds.groupby([frame["subset"], frame["metric"]]).transform("nunique")
    return kinds.map(_NULL_KINDS).where(count > 1)


def _by_rank(of_subset: pd.DataFrame) -> list[Any]:
    """Models by their mean rank over the metrics in which all that are ranked have one; the others come last."""
    ranks: Any = of_subset.pivot_table(index="model", columns="metric", values="rank", sort=False)
    means = ranks.dropna(axis="columns").mean(axis="columns")
    order = pd.Series(means.reindex(of_subset["model"].unique()))
    return [*order.sort_values(kind="stable", na_position="last").index]


def compact(
    frame: pd.DataFrame,
    differences: pd.DataFrame,
    width: int,
    *,
    every: bool = False,
    every_by: str = "--all",
) -> Group:
    """One small table of all subsets, for rich: numbers with half-widths, and a star where the verdict has a winner.

    Args:
        frame: `leaderboard.leaderboard`; its pools are left out, because distances are not in them.
        differences: `differences.differences` of the same runs; metrics in which one is shown come first.
        width: letters in a line; columns that do not fit or have no value are named in the last line.
        every: whether all metrics stand there, in as many tables as they need, instead of MOST_COLUMNS.
        every_by: how the reader gets all metrics; it stands beside the names of those left out.
    """
    marked = frame.assign(best=ahead(frame, differences))
    tables = [table for table in subset_tables(marked) if table.subset not in POOLED]
    several = len(tables) > 1
    names = dict.fromkeys(name for table in tables for name in table.metrics)
    rows_of_pairs: list[Any] = [*differences.itertuples()]
    shown = {row.metric for row in rows_of_pairs if row.shown}
    measured = {*frame.loc[frame["value"].notna() & frame["too_few"].isna(), "metric"]}
    order = sorted(names, key=lambda name: (name not in shown, name not in measured))
    if not every:  # a column of dashes says nothing that the verdict does not say
        has_values = {*frame.loc[frame["value"].notna(), "metric"]}
        order = [name for name in order if name in has_values] or order
    heads = heads_of(tables)
    rows: list[tuple[str, list[Cell]]] = []
    for table in tables:
        if several:
            rows.append((table.subset, [Cell("")] * len(order)))
        for model, cells in table.rows:
            of_metric = dict(zip(table.metrics, cells, strict=True))
            row = [_starred(of_metric.get(name, Cell(""))) for name in order]
            rows.append((f"  {model}" if several else model, row))
    whole = SubsetTable("", [heads[name] for name in order], rows, [], standard=tables[0].standard)
    blocks = [*_fitting(whole, width)]
    if not every:
        blocks = [blocks[0][: MOST_COLUMNS - 1]]
    parts: list[RichTable | Text] = [_rich(whole, columns, None, width) for columns in blocks]
    places = [place for columns in blocks for place in columns]
    there = {order[place] for place in places}
    texts = "".join(cells[place].text for _, cells in rows for place in places)
    signs = {"±": "± is half of a 95 % interval.", "*": STAR, PART: _PARTIAL}
    explained = [meaning for sign, meaning in signs.items() if sign in texts]
    left_out = [name for name in names if name not in there]
    if left_out:
        more = "1 more metric" if len(left_out) == 1 else f"{len(left_out)} more metrics"
        explained.append(f"{every_by} shows {more}: {', '.join(left_out)}.")
    sentences = [*_without_value(frame)] if differences.empty else []  # else the verdict has the reasons
    sentences += [ended(one) for one in collected(frame.loc[~frame["subset"].isin(POOLED)], _allowed)]
    notes = [Text(sentence, style="dim") for sentence in sentences]
    return Group(*parts, *notes, *([Text(" ".join(explained), style="dim")] if explained else []))


def heads_of(tables: Iterable[SubsetTable]) -> dict[str, str]:
    """Metric → the head of its column: with its sign, if it has one on any subset."""
    heads: dict[str, str] = {}
    for table in tables:
        for name, column in zip(table.metrics, table.columns, strict=True):
            heads[name] = max(heads.get(name, ""), column, key=len)
    return heads


def _without_value(frame: pd.DataFrame) -> Iterator[str]:
    """Yield a sentence for each reason of a missing value, but for a lack of a reference, which the verdict says."""
    rows = frame.loc[frame["value"].isna() & ~frame["subset"].isin(POOLED)].dropna(subset="missing")
    rows = rows.loc[~rows["missing"].astype(str).str.contains(NO_REFERENCE, regex=False)]
    groups: Any = rows.groupby("missing", sort=False)
    for why, of_reason in groups:
        metrics, models = (list(dict.fromkeys(of_reason[name])) for name in ("metric", "model"))
        whose = f" in {all_of(models)}" if len({*frame["model"]}) > 1 else ""
        yield ended(f"{all_of(metrics)} {'has' if len(metrics) == 1 else 'have'} no value{whose}: {why}")


def _dotted(cell: Cell) -> Cell:
    return replace(cell, short=f"{cell.short}•") if cell.best and cell.short else cell


def _starred(cell: Cell) -> Cell:
    """Return the cell without excess and notes, which only the long tables explain."""
    return Cell(cell.short + ("*" if cell.best else "") + (PART if cell.partial else ""), cell.best)


def markdown(frame: pd.DataFrame) -> str:
    """Write tables as markdown, for a README or a pull request."""
    return set_as_markdown(subset_tables(frame), LEGEND)


def set_for_console(tables: Iterable[SubsetTable], legend: str, width: int) -> Group:
    """Tables, their notes and a legend, for rich. What is bold has a dot as well, which copies and pipes keep."""
    parts: list[RichTable | Text] = []
    legend = legend.replace("Bold", "Bold with a dot (•)")
    for plain in tables:
        table = replace(plain, rows=[(name, [_dotted(cell) for cell in cells]) for name, cells in plain.rows])
        title: Text | None = Text(table.subset, style="bold")
        for columns in _fitting(table, width):
            parts.append(_rich(table, columns, title, width))
            title = None
        parts.extend(Text(f"{number} {note}", style="dim") for number, note in enumerate(table.notes, start=1))
        parts.append(Text())
    return Group(*parts, Text(legend, style="dim"))


def titled(title: Text | None, *columns: Column | str) -> RichTable:
    """An empty table for rich, in the looks of all tables of numbers."""
    return RichTable(*columns, title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)


def _rich(table: SubsetTable, columns: Sequence[int], title: Text | None, width: int) -> RichTable:
    """Some of a table's columns, for rich."""
    found = titled(title, Column(table.head, no_wrap=True))
    for column in columns:
        found.add_column(_broken_head(table.columns[column]), justify="right", no_wrap=True)
    for name, cells in table.rows:
        texts = [Text(_broken(cells[column].text), "bold green" if cells[column].best else "") for column in columns]
        style = "dim" if name.strip() == table.standard else ""
        found.add_row(Text(_folded(name, _name_width(table, width))), *texts, style=style)
    return found


def set_as_markdown(tables: Iterable[SubsetTable], legend: str) -> str:
    """Write tables as markdown, for a README or a pull request."""
    lines = []
    for table in tables:
        lines += [
            f"**{escaped(table.subset)}**",
            "",
            f"| {table.head} | " + " | ".join(map(escaped, table.columns)) + " |",
        ]
        lines.append("|---|" + "--:|" * len(table.columns))
        for name, cells in table.rows:
            texts = [f"**{escaped(cell.text)}**" if cell.best and cell.text else escaped(cell.text) for cell in cells]
            lines.append(f"| {escaped(name)} | " + " | ".join(texts) + " |")
        lines.append("")
        lines += [f"{number}. {escaped(note)}" for number, note in enumerate(table.notes, start=1)]
        lines += [""] if table.notes else []
    return "\n".join([*lines, legend, ""])


def protocols(frame: pd.DataFrame, metrics: dict[str, str]) -> Group:
    """Show a distance under several protocols, ``protocol → metric``: one row per protocol, and the spread."""
    parts: list[RichTable | Text] = []
    shown = frame.loc[frame["metric"].isin([*metrics.values()])]  # no pool among them: distances are not pooled
    shown = shown.assign(other_null=_null_remarks(shown))
    for subset, of_subset in shown.groupby("subset", sort=False):
        models = list(dict.fromkeys(of_subset["model"]))
        title = Text(f"{subset}: FVD by protocol", style="bold")
        table = titled(title, "protocol", *(Column(Text(str(model))) for model in models))
        found: Any = of_subset.set_index(["metric", "model"])
        for protocol, metric in metrics.items():
            keys = [(metric, model) for model in models]
            cells = [_cell(found.loc[key], []).text if key in found.index else "–" for key in keys]
            table.add_row(protocol, *(text.partition(" [")[0] for text in cells))  # without the numbers of notes
        enough = found["value"].where(found["too_few"].isna())
        values = [enough.reindex([(metric, model) for metric in metrics.values()]).dropna() for model in models]
        spread = [f"× {each.max() / each.min():.2f}" if len(each) > 1 and each.min() > 0 else "–" for each in values]
        table.add_row("largest / smallest", *spread, style="dim")
        missing = of_subset.loc[:, ["metric", "missing"]].dropna()
        reasons: list[Any] = [*missing.drop_duplicates().itertuples()]
        notes = [f"{row.metric}: {row.missing}" for row in reasons] + [*collected(of_subset, _other_null)]
        parts += [table, *(Text(note, style="dim") for note in notes)]
    return Group(*parts)


def column_head(row: Any, *, sided: bool) -> str:
    """Return a metric's name, the sign of the better direction if it has one, and its unit."""
    sign = ARROWS[row["direction"]] if sided else ""
    return " ".join(part for part in (str(row["metric"]), sign, row["unit"]) if part)


def noted(text: str, note: str, notes: list[str]) -> str:
    """Return a text with the number of its note; a new note is added to `notes`."""
    return f"{text} [{_place(note, notes)}]"


def _place(note: str, notes: list[str]) -> int:
    """Return the number of a note; a new one is added to `notes`."""
    if note not in notes:
        notes.append(note)
    return notes.index(note) + 1


def _cell(row: Any, notes: list[str], ranks: bool = False) -> Cell:
    if pd.isna(row["value"]):
        return Cell("–", bool(row["best"]), note=_place(str(row["missing"]), notes))
    no_null = [f"no null: {row['no_null']}"] if isinstance(row.get("no_null"), str) else []
    said = "; ".join([*remarks(row), *no_null, *_other_null(row)])
    note = _place(said, notes) if said else None
    if isinstance(row["too_few"], str):
        return Cell(row["too_few"], bool(row["best"]), note=note)
    worth = "" if pd.isna(row["p"]) else f" ({number(row['excess'], row['value'], '+')}, p {p_value(row['p'])})"
    more = worth + (_rank(row) if ranks else "")
    return Cell(_measured(row), bool(row["best"]), more, note, partial=bool(row["unmeasured"] or row["of_others"]))


def _measured(row: Any) -> str:
    half = "" if pd.isna(row["low"]) else f" ± {number((row['high'] - row['low']) / 2, row['value'])}"
    return number(row["value"]) + half


def collected(
    frame: pd.DataFrame, said_of: Callable[[Any], Iterable[str]], called: Callable[[str], str] = str
) -> Iterator[str]:
    """Yield each remark once, behind the models that it is about: ``a and b: …``; or ``a (fvd): …``, if it is not about
    all their metrics.

    Args:
        frame: rows of `leaderboard.leaderboard`.
        said_of: gives the remarks on a row.
        called: gives a metric's name in words.
    """
    several = len({*frame["subset"]}) > 1
    groups: Any = frame.groupby("subset", sort=False)
    for subset, of_subset in groups:
        about: dict[str, dict[str, list[str]]] = {}
        for _, row in of_subset.iterrows():
            for remark in said_of(row):
                about.setdefault(remark, {}).setdefault(str(row["model"]), []).append(str(row["metric"]))
        numbers = Counter(map(str, of_subset["model"]))
        for remark, metrics in about.items():
            alike: dict[str, list[str]] = {}
            for model, names in metrics.items():
                part = f" ({', '.join(map(called, names))})" if len(names) < numbers[model] else ""
                alike.setdefault(part, []).append(model)
            whose = ", ".join(all_of(models) + part for part, models in alike.items())
            yield f"{f'{subset}, ' if several else ''}{whose}: {remark}"


def _allowed(row: Any) -> list[str]:
    """The remark on a number that was made differently, as --allow permits."""
    return [str(row["mark"])] if isinstance(row.get("mark"), str) else []


def _other_null(row: Any) -> list[str]:
    return [row["other_null"]] if isinstance(row["other_null"], str) else []


def remarks(row: Any) -> Iterator[str]:
    """Yield what a reader must know about the clips behind a number."""
    lacking = []
    if row["unmeasured"]:
        why = f": {row['why_unmeasured']}" if isinstance(row.get("why_unmeasured"), str) else ""
        lacking.append(f"{row['unmeasured']} could not be measured{why}")
    if row["of_others"]:
        lacking.append(f"other models alone were asked for {row['of_others']} more")
    if lacking:
        yield "; ".join([f"rests on {counted(row['n'], 'clip')}", *lacking])
    yield from _allowed(row)
    if row["refused"]:
        yield f"the model refused {counted(row['refused'], 'clip')}"
    if row["shared"]:
        yield f"{row['shared']} of the clips {'is' if row['shared'] == 1 else 'are'} in the reference as well"
    if isinstance(row.get("hygiene"), str):
        yield row["hygiene"]


def _rank(row: Any) -> str:
    if not row["letters"]:
        return ""
    low, high = int(row["rank_low"]), int(row["rank_high"])
    return f" {row['letters']} ({low}–{high})" if low < high else f" {row['letters']} ({low})"


def _standard(of_metric: pd.DataFrame) -> Cell:
    """What to compare a column with; nothing if its numbers have different references (`--allow reference`).

    Of a distance it is a range where models have different numbers of clips. Too few clips count for none, as their
    number is not shown.
    """
    shown = of_metric.loc[of_metric["too_few"].isna()]
    for column in ("floor", "reference"):
        known: Any = shown.dropna(subset=column)
        if len(known):
            differ = known[column].nunique() > 1 and known["protocol"].nunique() > 1
            ends = dict.fromkeys(number(float(one)) for one in (known[column].min(), known[column].max()))
            return Cell("" if differ else " to ".join(ends))
    return Cell("")


def number(value: float, beside: float | None = None, sign: str = "") -> str:
    """Write a number with three significant digits, or all before the point; a half-width gets as many decimals as the
    value `beside` it. What is rounded to 0 has no minus.
    """
    if pd.isna(value):
        return "–"
    magnitude = abs(value if beside is None else beside)
    if not magnitude > 0:  # 0, or NaN where nothing is known of its size
        return f"{value:{sign}z.2g}"
    if magnitude >= _HUGE:
        return f"{value:{sign}.2e}"
    decimals = max(0, 2 - math.floor(math.log10(magnitude)))
    return f"{value:{sign}z.1e}" if decimals > 6 else f"{value:{sign}z.{decimals}f}"


def p_value(value: float) -> str:
    """Write a p-value, with three decimals below 0.1, and never as 0.000, because no test excludes chance.

    Beside 0.05 it has four, so that what is shown and what is not hardly look the same.
    """
    if value < 0.0005:
        return "<0.001"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.4f}" if round(value, 3) == ALPHA else f"{value:.3f}"


def _name_width(table: SubsetTable, width: int) -> int:
    """Letters for the names of the rows: longer ones are folded, so that numbers are never cut."""
    return min(max(len(name) for name, _ in table.rows), max(width // 2 - 3, 12))


def _folded(name: str, width: int) -> str:
    """A name in lines of this width, broken at hyphens if possible, each as far to the right as the first."""
    indent = " " * (len(name) - len(name.lstrip()))
    return "\n".join(textwrap.wrap(name.strip(), width, initial_indent=indent, subsequent_indent=indent))


def _fitting(table: SubsetTable, width: int) -> Iterator[list[int]]:
    """Yield groups of column numbers that fit side by side, in their order; each group has at least one."""
    taken = []
    for number, head in enumerate(table.columns):
        texts = [_broken_head(head), *(_broken(cells[number].text) for _, cells in table.rows)]
        taken.append(1 + max(len(line) for text in texts for line in text.splitlines() or [""]))
    return side_by_side(taken, width - _name_width(table, width) - 3)


def side_by_side(taken: Sequence[float], room: float) -> Iterator[list[int]]:
    """Yield groups of column numbers whose widths fit into the room, in their order; each group has at least one."""
    fitting: list[int] = []
    for number, one in enumerate(taken):
        if fitting and one + sum(taken[place] for place in fitting) > room:
            yield fitting
            fitting = []
        fitting.append(number)
    yield fitting


def _broken_head(text: str) -> str:
    return text.replace("_", "_\n").replace(" ", "\n", 1)


def _broken(text: str) -> str:
    """Break a text into lines that are short enough for a console's column."""
    return text.replace(" ± ", "\n± ").replace(" (", "\n(").replace(", p", "\np")


def escaped(text: str) -> str:
    """Escape text for a cell of a markdown table: one line that cannot add columns, tags, links or pictures."""
    shown = one_line(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return shown.replace("![", "!\\[").replace("](", "]\\(")
