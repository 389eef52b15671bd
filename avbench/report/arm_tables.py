"""Makes the tables of arms with several trainings, which tables.py formats."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from avbench.core import Direction, counted
from avbench.report.comparison_tables import ahead, corrected_p, tables_of_pairs
from avbench.report.tables import Cell, SubsetTable, column_head, noted, number, p_value

LEGEND = (
    "Δ is the arm's mean minus the other's, over trainings and prompts; for ≈ it is that of their distances from the "
    "reference's value, so that below 0 the arm is nearer. Interval (95 %) and p are Student's t for both sources of "
    "luck: would other trainings, on other prompts, differ as well? Of a distance between distributions they are about "
    "other trainings on the same prompts. Holm's p counts the whole family. The exact p relabels whole trainings on "
    "the same prompts; after it stands the smallest that it can be with so many trainings. Spread is the standard "
    "deviation of the trainings' values, first of the arm, then of the other. Detectable is the smallest true "
    "difference that 80 % of such studies find. Needed is how many trainings per arm with as many prompts, or how many "
    "prompts with as many trainings, would find the difference observed; – where no number would. Bold is shown to be "
    "better."
)
VALUES_LEGEND = (
    "Means over trainings; ± is the half-width of a 95 % interval over trainings and prompts. In brackets stands the "
    "standard deviation of the trainings' values."
)
POWER_LEGEND = (
    "The smallest true difference between two arms that 80 % of such studies find {level}. Columns: prompts × "
    "trainings per arm. A distance is planned for the prompts of the pilots alone. ≈: of the arms' distances from the "
    "reference's value, if the side on which they lie is known; near to that value more is needed."
)
"""`comparison_tables.power_legend` fills in the level."""
COLUMNS = (
    *("Δ", "interval", "p", "p Holm", "exact p (least)", "trainings", "prompts", "spread", "detectable"),
    *("trainings needed", "prompts needed", "better"),
)


def value_tables(scores: pd.DataFrame) -> Iterator[SubsetTable]:
    """Lay out `ArmTables.scores`: one table per subset, one row per metric, one column per arm."""
    names = list(dict.fromkeys(scores["model"]))
    for subset, of_subset in scores.groupby("subset", sort=False):
        notes: list[str] = []
        rows = []
        for _, of_metric in of_subset.groupby("metric", sort=False):
            cells = {row["model"]: _value(row, notes) for _, row in of_metric.iterrows()}
            first = of_metric.iloc[0]
            matched = first["direction"] != Direction.BAND or of_metric["reference"].notna().any()
            rows.append((column_head(first, sided=bool(matched)), [cells.get(name, Cell("")) for name in names]))
        yield SubsetTable(f"{subset}: means of the arms", names, rows, notes, head="metric")


def training_tables(trainings: pd.DataFrame) -> Iterator[SubsetTable]:
    """Lay out `ArmTables.trainings`: one table per subset, one row per training, one column per metric."""
    for subset, of_subset in trainings.groupby("subset", sort=False):
        metrics = list(dict.fromkeys(of_subset["metric"]))
        values: dict[str, dict[str, Cell]] = {}
        every: list[Any] = [*of_subset.itertuples()]
        for row in every:
            values.setdefault(f"{row.arm}: {row.training}", {})[str(row.metric)] = Cell(number(float(row.value)))
        rows = [(name, [of_training[metric] for metric in metrics]) for name, of_training in values.items()]
        yield SubsetTable(f"{subset}: every training", metrics, rows, [], head="training")


def difference_tables(differences: pd.DataFrame) -> Iterator[SubsetTable]:
    """Lay out `ArmTables.differences`: one table per pair of arms and subset, one row per metric."""
    paired = differences.assign(paired=True)  # or each row would have a note on it; the notes below the answer say it
    return tables_of_pairs(paired, COLUMNS, _texts)


def _value(row: Any, notes: list[str]) -> Cell:
    if pd.isna(row["value"]):
        return Cell(noted("–", str(row["missing"]), notes))
    size = row["value"]
    text = f"{number(size)} ± {number(row['high'] - size, size)} ({number(row['spread'])})"
    said = [row["too_few"]] if isinstance(row["too_few"], str) else []
    if row["unmeasured"]:
        lost = f"{row['unmeasured']:.0f} could not be measured"
        said.append(f"rests on {counted(int(row['clips']), 'clip')} of all trainings; {lost}")
    return Cell(noted(text, "; ".join(said), notes) if said else text)


def _texts(row: Any) -> list[str]:
    if pd.isna(row["difference"]):
        return ["–", *[""] * (len(COLUMNS) - 1)]
    size = row["difference"] or row["error"]
    counts = sorted({int(row["trainings"]), int(row["trainings_against"])}, reverse=True)
    return [
        number(row["difference"], size, "+"),
        f"{number(row['low'], size, '+')} … {number(row['high'], size, '+')}",
        p_value(row["p"]),
        corrected_p(row),
        f"{p_value(row['p_exact'])} ({p_value(row['least_p'])})",
        " and ".join(map(str, counts)),
        f"{row['prompts']:.0f}",
        f"{number(row['spread'])}, {number(row['spread_against'])}",
        "" if pd.isna(row["detectable"]) else number(row["detectable"], size),
        *("–" if pd.isna(row[name]) else f"{row[name]:.0f}" for name in ("needed_trainings", "needed_prompts")),
        ahead(row),
    ]
