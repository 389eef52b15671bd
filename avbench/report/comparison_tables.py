"""Makes the tables of differences between runs and of planned studies, which tables.py formats."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas as pd

from avbench.comparison.differences import TO_TARGET, sided
from avbench.core import Direction, counted
from avbench.report.tables import Cell, SubsetTable, column_head, noted, number, p_value
from avbench.statistics.paired import LEAST_PROMPTS

DIFFERENCES_LEGEND = (
    "Δ is the run's number minus the other's, on the clips that both have; for ≈ it is that of their distances from "
    "the reference's value, so that below 0 the run is nearer; if the reference has clips of each of these prompts, "
    "they alone make this value. Intervals are 95 %, over prompts; a distance between "
    "distributions has none. p swaps labels prompt by prompt; of a distance it is not below that of a t test, and for "
    "≈ the side of the reference's value must be shown, too. Holm's counts the whole family. Detectable is the "
    "smallest true difference that 80 % of such comparisons find, needed how many prompts would find the one "
    "observed, of a distance with as many times more real clips. Bold is shown to be better. For ≈ the last column "
    "names the run shown to be nearer to the reference's value; the answer in words counts that as better, but a "
    "frozen clip can be nearer, too. A metric without a sign has no better side here."
)
DIFFERENCE_COLUMNS = {
    "Δ": "the run's number minus the other's",
    "interval": "95 %, over prompts",
    "p": "of no difference, by swapped labels; for distances and ≈ by a second test, too",
    "p Holm": "the same, for the whole family",
    "detectable": "the smallest true difference that 80 % of such comparisons find",
    "needed": "prompts that would find the difference observed; of a distance with as many times more real clips",
    "clips": "that both have",
    "better": "shown to be better",
}
"""Columns of a table of differences, and what they hold."""
POWER_LEGEND = (
    "The smallest true difference that 80 % of such experiments find {level}. Columns: prompts × seeds. A pilot with "
    "one seed a prompt says nothing about more seeds. ≈: of the runs' distances from the reference's value, if both "
    "lie on one side of it, their middle as far from it as that of the pilots at least is; where they will lie cannot "
    "be known before, and nearer to it, or on either side, more is needed. Empty: so few prompts can show no "
    "difference, or the pilots have no spread in this metric. Distances between sets of clips (fvd and the like) "
    "cannot be planned, nor can metrics that the pilots have on fewer than two common prompts."
)
"""`power_legend` fills in the level."""


def power_legend(family: int, text: str = POWER_LEGEND) -> str:
    """The legend of `power_tables`, with the level at which differences are planned for a family of comparisons."""
    corrected = f"at 5 %, corrected for {counted(family, 'comparison')}"
    level = "at 5 %, not corrected (--family N corrects for N comparisons)" if family == 1 else corrected
    return text.format(level=level)


def difference_tables(frame: pd.DataFrame) -> Iterator[SubsetTable]:
    """Lay out `differences.differences`: one table per pair of runs and subset, one row per metric."""
    return tables_of_pairs(frame, DIFFERENCE_COLUMNS, difference_texts)


def tables_of_pairs(
    frame: pd.DataFrame, columns: Iterable[str], texts_of: Callable[[Any], list[str]]
) -> Iterator[SubsetTable]:
    """One table per pair of runs or arms and subset, with these columns and the texts of each row of differences."""
    groups: Any = frame.groupby(["run", "against", "subset"], sort=False)
    for (run, against, subset), group in groups:
        notes: list[str] = []
        rows = [(column_head(row, sided=sided(row)), _cells(row, texts_of(row), notes)) for _, row in group.iterrows()]
        family = group["family"].max()
        title = f"{subset}: {run} − {against}" + (
            "" if pd.isna(family) else f" (family of {counted(int(family), 'comparison')})"
        )
        yield SubsetTable(title, [*columns], rows, notes, head="metric")


def power_tables(frame: pd.DataFrame, repeated: str = "seeds") -> Iterator[SubsetTable]:
    """Lay out `power.planned`: one table per subset, one row per metric, one column per design.

    `repeated` is what a design has several of besides prompts; of `power.planned_arms` it is ``trainings``.
    """
    for subset, of_subset in frame.groupby("subset", sort=False):
        designs = sorted({*zip(of_subset[repeated], of_subset["prompts"], strict=True)})
        found = of_subset.set_index(["metric", repeated, "prompts"])["detectable"].to_dict()
        rows, notes = [], []
        for row in of_subset.drop_duplicates("metric").to_dict("records"):
            texts = [_planned(found.get((row["metric"], *design))) for design in designs]
            if any(texts) and row.get("pilot", LEAST_PROMPTS) < LEAST_PROMPTS:
                first = next(place for place, text in enumerate(texts) if text)
                there = f"the pilots have it on {counted(row['pilot'], 'prompt')} only"
                texts[first] = noted(texts[first], f"{there}, too few to know how much prompts differ", notes)
            head = f"{row['metric']} ≈" if row["kind"] == TO_TARGET else str(row["metric"])
            rows.append((head, [Cell(text) for text in texts]))
        yield SubsetTable(str(subset), [f"{count} × {number}" for number, count in designs], rows, notes, head="metric")


def _planned(detectable: float | None) -> str:
    return "" if detectable is None or pd.isna(detectable) else number(detectable)


def difference_texts(row: Any) -> list[str]:
    """Return the texts of a row of `differences.differences`, one for each of DIFFERENCE_COLUMNS."""
    if pd.isna(row["difference"]):
        return ["–", *[""] * (len(DIFFERENCE_COLUMNS) - 1)]
    size = row["difference"] or row["error"]
    few = isinstance(row["too_few"], str)
    return [
        number(row["difference"], size, "+"),
        "" if pd.isna(row["low"]) else f"{number(row['low'], size, '+')} … {number(row['high'], size, '+')}",
        p_value(row["p"]),
        corrected_p(row),
        ""
        if pd.isna(row["detectable"]) or few or isinstance(row.get("out_of_reach"), str)
        else number(row["detectable"], size),
        # of a distance it counts prompts, and not the clips that the metric itself needs
        "" if pd.isna(row["needed"]) or (few and row["kind"] == "distance") else f"{row['needed']:.0f}",
        f"{row['pairs']:.0f}",
        ahead(row),
    ]


def corrected_p(row: Any) -> str:
    """Holm's p, or ``exploratory`` where a plan does not ask for the comparison; empty where too few clips make it no
    member of the family, which a note says.
    """
    if pd.notna(row["p_holm"]):
        return p_value(row["p_holm"])
    return "" if isinstance(row["too_few"], str) else "exploratory"


def is_better(row: Any) -> bool:
    """Whether a run is shown to be better; being nearer to the reference's value in a ≈ metric is not."""
    return isinstance(row["better"], str) and row["direction"] != Direction.BAND


def ahead(row: Any) -> str:
    """Which run a row shows to be better, or nearer to the reference's value; empty if it shows none."""
    if not isinstance(row["better"], str):
        return ""
    return row["better"] if is_better(row) else f"{row['better']} is nearer"


def difference_remark(row: Any) -> str:
    """What a reader must know about a row besides its numbers; empty if there is nothing."""
    if pd.isna(row["difference"]):
        return str(row["missing"])
    remarks = [str(row[name]) for name in ("too_few", "out_of_reach", "mark") if pd.notna(row.get(name))]
    if not row["paired"]:
        remarks.append("unpaired: the runs share no (prompt, seed)")
    if row["dropped"] > 0:
        remarks.append(f"left out: {counted(int(row['dropped']), 'clip')} of which only one of the runs has a value")
    if isinstance(row["verdict"], str):
        remarks.append(f"{row['verdict']}, to a margin of {row['margin']:g}")
    return "; ".join(remarks)


def _cells(row: Any, texts: list[str], notes: list[str]) -> list[Cell]:
    if remark := difference_remark(row):
        texts[0] = noted(texts[0], remark, notes)
    return [Cell(text, is_better(row)) for text in texts]
