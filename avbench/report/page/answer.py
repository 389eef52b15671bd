"""Writes the result of the paired comparisons in a few sentences, for the head of the page."""

import pandas as pd

from avbench.report.tables import POOLED


def sentences(frame: pd.DataFrame, differences: pd.DataFrame | None) -> list[str]:
    """The answer in a few sentences: for every pair what the data support, and how much they leave open."""
    models, subsets = frame["model"].nunique(), frame["subset"].nunique()
    if differences is None or differences.empty:
        alone = "One run" if models == 1 else f"{models} runs"
        told = f"{alone} on {subsets} subset{'s' if subsets > 1 else ''}, {frame['metric'].nunique()} metrics."
        return [told, "The tables give each run with its interval; differences between runs are not tested here."]
    told = []
    of_subsets = differences[~differences["subset"].isin(POOLED)]
    for (run, against), rows in of_subsets.groupby(["run", "against"], sort=False):
        made = rows[rows["missing"].isna()]
        parts = []
        for name in (run, against):
            won = made[made["better"] == name]
            if len(won):
                parts.append(f"{name} is better in {len(won)} ({_listed(won)})")
        open_ones = int(made["better"].isna().sum())
        parts.append(f"the data leave {open_ones} open")
        lost = f"; {len(rows) - len(made)} could not be made" if len(made) < len(rows) else ""
        told.append(f"{run} against {against}: of {len(made)} comparisons, " + ", ".join(parts) + lost + ".")
    return told


def _listed(rows: pd.DataFrame, most: int = 4) -> str:
    names = [f"{row.metric} on {row.subset}" for row in rows.itertuples()]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
