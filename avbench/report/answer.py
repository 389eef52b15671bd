"""What do the paired comparisons say, in words and in a table's cells? The head of the page, and its differences."""

from dataclasses import dataclass

import pandas as pd

from avbench.report.tables import number, p_value

POOLED = {"macro": "all subsets, each counted alike", "micro": "all subsets, each clip counted alike"}
"""Names of the pooled rows, and what they are."""


@dataclass(frozen=True)
class Comparison:
    """One row of a table of differences: texts of its cells, and which row of the frame it is."""

    index: int
    subset: str
    metric: str
    run: str
    against: str
    cells: tuple[str, ...]
    verdict: str
    better: str | None
    remark: str


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


def comparisons(differences: pd.DataFrame) -> list[Comparison]:
    """The rows of every table of differences, in the frame's order."""
    return [_comparison(index, row) for index, (_, row) in enumerate(differences.iterrows())]


def _comparison(index: int, row: pd.Series) -> Comparison:
    where = (index, str(row["subset"]), str(row["metric"]), str(row["run"]), str(row["against"]))
    mark = "" if pd.isna(row["mark"]) else str(row["mark"])
    if not pd.isna(row["missing"]):
        return Comparison(*where, ("–",) * 7, "", None, str(row["missing"]))
    size = row["difference"]
    interval = "" if pd.isna(row["low"]) else f"{number(row['low'], size, '+')} … {number(row['high'], size, '+')}"
    dropped = "" if pd.isna(row["dropped"]) or not row["dropped"] else f" (−{int(row['dropped'])})"
    cells = (
        number(size, None, "+"),
        interval,
        "–" if pd.isna(row["p_holm"]) else p_value(row["p_holm"]),
        f"{int(row['pairs'])}{dropped}",
        _count(row["prompts"]),
        number(row["detectable"]),
        _count(row["needed"]),
    )
    better = None if pd.isna(row["better"]) else str(row["better"])
    return Comparison(*where, cells, f"{better} is better" if better else "open", better, mark)


def _listed(rows: pd.DataFrame, most: int = 4) -> str:
    names = [f"{row.metric} on {row.subset}" for row in rows.itertuples()]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _count(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.0f}"
