"""Makes the tables of how far metrics agree with voters, which tables.py formats."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from avbench.comparison.agreement import MAJORITY, PERSON
from avbench.core import counted
from avbench.report.tables import Cell, SubsetTable, noted, p_value
from avbench.statistics.paired import ALPHA

COLUMNS = ["accuracy", "95 % interval", "p Holm", "votes", "prompts"]
LEGEND = (
    "Accuracy is the share of clear votes in which the metric prefers the clip that the voter preferred; 50 % is "
    "chance. Votes for neither clip are left out; a metric that gives both clips the same value counts half. A metric "
    "that should match the reference prefers the clip that is nearer to the reference's value. Intervals and p are "
    "clustered by prompt; Holm's correction counts every metric and subset. Bold agrees more often than chance. "
    "Where seven or more raters judged a pair, the majority of the others is about the best that a metric can reach; "
    "with fewer, the best is higher."
)


def agreement_tables(frame: pd.DataFrame) -> Iterator[SubsetTable]:
    """Lay out `agreement.agreement`: one table per subset, one row per metric, and two of people."""
    for subset, group in frame.groupby("subset", sort=False):
        notes: list[str] = []
        known, unknown = group[group["accuracy"].notna()], group[group["accuracy"].isna()]
        rows = [(str(row["judge"]), _cells(row, notes)) for _, row in known.iterrows()]
        for reason, of_reason in unknown.groupby("missing", sort=False):
            notes.append(f"Without accuracy: {', '.join(of_reason['judge'])}: {reason}")
        yield SubsetTable(f"{subset}: agreement with the voters", COLUMNS, rows or [("none", _EMPTY)], notes, "metric")


_EMPTY = [Cell("–"), *[Cell("")] * (len(COLUMNS) - 1)]


def _votes(count: int) -> str:
    return f"{counted(count, 'vote')} {'is' if count == 1 else 'are'}"


def _cells(row: Any, notes: list[str]) -> list[Cell]:
    person = row["judge"] in (PERSON, MAJORITY)
    remarks = [
        f"{_votes(row['equal'])} on clips to which it gives the same value" if row["equal"] else "",
        f"{_votes(row['unmeasured'])} on clips of which one has no value" if row["unmeasured"] else "",
    ]
    text = f"{row['accuracy']:.1%}"
    if remark := "; ".join(one for one in remarks if one):
        text = noted(text, remark, notes)
    best = not person and row["p_holm"] < ALPHA and row["accuracy"] > 0.5
    interval = "–" if pd.isna(row["low"]) else f"{row['low']:.1%} … {row['high']:.1%}"
    p = "" if person else p_value(row["p_holm"])
    return [Cell(text, bool(best)), Cell(interval), Cell(p), Cell(str(row["votes"])), Cell(str(row["prompts"]))]
