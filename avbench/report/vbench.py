"""Shows VBench's quality score and its partial total, of runs with several of VBench's dimensions."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from avbench.metrics.vbench_total import QUALITIES, QUALITY, SEMANTIC, SEMANTICS, Total, total
from avbench.report.tables import POOLED, Cell, SubsetTable, noted, number

LEAST = 2
"""Fewer dimensions make no table: their columns say the same."""
LEGEND = (
    "VBench's scores from its own ranges and weights, on the prompts of this subset. A total without all sixteen "
    "dimensions is partial, and it cannot be compared with a published total. VBench counts a missing dimension as 0; "
    "here it is left out."
)


def totals(frame: pd.DataFrame) -> Iterator[SubsetTable]:
    """One table per subset, given `leaderboard.leaderboard`; none of a subset where no model has enough dimensions."""
    known = frame.loc[frame["metric"].isin([*QUALITY, *SEMANTIC]) & frame["value"].notna()]
    for subset, of_subset in known.loc[~known["subset"].isin(POOLED)].groupby("subset", sort=False):
        found = {
            str(model): total(dict(zip(rows["metric"], rows["value"], strict=True)))
            for model, rows in of_subset.groupby("model", sort=False)
        }
        shown = {model: one for model, one in found.items() if one is not None and len(one.there) >= LEAST}
        if shown:
            notes: list[str] = []
            rows = [(model, _cells(one, notes)) for model, one in shown.items()]
            yield SubsetTable(f"{subset}: VBench", ["quality ↑", "semantic ↑", "partial total ↑"], rows, notes)


def _cells(one: Total, notes: list[str]) -> list[Cell]:
    counts = [(sum(name in kind for name in one.there), kind) for kind in (QUALITY, SEMANTIC)]
    parts: list[Any] = [
        (one.quality, f"{counts[0][0]} of {QUALITIES} dimensions"),
        (one.semantic, f"{counts[1][0]} of {SEMANTICS} dimensions"),
    ]
    without = f"; not computed of those that avbench has: {', '.join(one.missing)}" if one.missing else ""
    whole = f"{len(one.there)} of {QUALITIES + SEMANTICS} dimensions{without}"
    return [
        *(Cell("–") if value is None else Cell(noted(number(value), note, notes)) for value, note in parts),
        Cell(noted(number(one.total), whole, notes)),
    ]
