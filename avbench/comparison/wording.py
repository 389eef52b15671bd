"""Writes metrics, subsets and numbers as they stand in sentences of the answer."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from avbench.comparison.differences import MACRO, MICRO, POOLS
from avbench.core import all_of
from avbench.statistics.paired import ALPHA

MOST_NAMED = 4
"""Metrics that one sentence names; the others are counted."""


def names_of(rows: Sequence[Any], *, several: bool = False) -> str:
    """The metrics of rows, with their subsets where the runs have several."""

    def where(found: Sequence[Any]) -> str:
        return on_subset(found[0].subset) if len(found) == 1 else f"on {len(found)} subsets"

    names = [*dict.fromkeys(spelled(row.metric) for row in rows)]
    if several:
        names = [f"{spelled(found[0].metric)} {where(found)}" for found in by_metric(rows).values()]
    return all_of(names if len(names) <= MOST_NAMED else [*names[:MOST_NAMED], f"{len(names) - MOST_NAMED} more"])


def on_subset(subset: str) -> str:
    """Where a metric was compared: on a subset, or over all of them together, each counted alike, or each clip."""
    return {MACRO: "over all subsets", MICRO: "over the clips of all subsets"}.get(subset, f"on {subset}")


def by_metric(rows: Sequence[Any]) -> dict[tuple[str, str | None], list[Any]]:
    """The rows of each metric on all subsets, and each row over several subsets alone."""
    found: defaultdict[tuple[str, str | None], list[Any]] = defaultdict(list)
    for row in rows:
        found[row.metric, row.subset if row.subset in POOLS else None].append(row)
    return found


def spelled(metric: object) -> str:
    """A metric's name without underscores."""
    return str(metric).replace("_", " ")


def percent(share: float) -> str:
    """A share for people, with two digits at least."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def p_value(value: float) -> str:
    """As `report.tables.p_value`, for a sentence."""
    return "below 0.001" if value < 0.001 else f"{value:.3g}" if round(value, 3) == ALPHA else f"{value:.2g}"
