"""Writes the answer: what the paired comparisons show, in a few sentences for the head of the page."""

from collections.abc import Iterator

import pandas as pd

from avbench.core import Direction
from avbench.report.tables import POOLED


def sentences(frame: pd.DataFrame, differences: pd.DataFrame | None) -> list[str]:
    """The answer: for each pair of runs, which is shown to be better and in how much no difference is shown.

    Args:
        frame: the runs' `leaderboard.leaderboard`.
        differences: their `differences.differences`, where they were compared.
    """
    if differences is None or differences.empty:
        counts = (frame["model"].nunique(), "run"), (frame["subset"].nunique(), "subset")
        models, subsets = (_counted(*one) for one in counts)
        summary = f"{models} on {subsets}, {_counted(frame['metric'].nunique(), 'metric')}."
        return [summary, "The tables give each run with its interval. Differences between runs are not tested here."]
    of_subsets = differences[~differences["subset"].isin(POOLED)]
    pairs = of_subsets.groupby(["run", "against"], sort=False)
    return [f"{run} against {against}: {' '.join(_of_pair(run, against, rows))}" for (run, against), rows in pairs]


def _of_pair(run: str, against: str, rows: pd.DataFrame) -> Iterator[str]:
    made = rows[rows["missing"].isna()]
    matched = made["direction"] == Direction.BAND
    for name in (run, against):
        ahead = made["better"] == name
        for word, found in (
            ("better in", made[ahead & ~matched]),
            ("nearer to the reference in", made[ahead & matched]),
        ):
            if len(found):
                yield f"{name} is {word} {len(found)} ({_listed(found)})."
    few = made["too_few"].notna()
    if count := int((made["better"].isna() & ~few).sum()):
        yield f"No difference shown in {_counted(count, 'comparison')}."
    if count := int(few.sum()):
        yield f"{_counted(count, 'comparison')} {'rests' if count == 1 else 'rest'} on too few clips."
    if count := len(rows) - len(made):
        yield f"{_counted(count, 'comparison')} could not be made."


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _listed(rows: pd.DataFrame, most: int = 4) -> str:
    names = [f"{row.metric} on {row.subset}" for row in rows.itertuples()]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
