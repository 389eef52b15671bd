"""Writes the answer in plain sentences: which run is better, by how much, what is open, and what could not be compared.

Console, page, markdown and the Python API all print these sentences. They are made of the frame of paired differences
(differences.py) and of the score table (score_table.py), and of nothing else.
"""

import re
from collections import Counter
from collections.abc import Iterator

import pandas as pd

from avbench.comparison.differences import MACRO, MICRO, TO_TARGET, sided
from avbench.statistics.paired import ALPHA

MOST_NAMED = 4
"""Comparisons that one sentence names; the others are counted."""


def verdict(frame: pd.DataFrame, differences: pd.DataFrame | None) -> list[str]:
    """The answer, one sentence or two for each finding.

    Args:
        frame: `score_table.scores_frame` or `leaderboard.leaderboard` of the runs.
        differences: `differences.differences` of the same runs, or None where they were not compared.

    Returns:
        For each pair of runs: what is shown better, what is open and the number of prompts that would settle the
        nearest comparison, and what could not be compared, grouped by reason.
    """
    if differences is None or differences.empty:
        models, subsets = list(dict.fromkeys(frame["model"])), list(dict.fromkeys(frame["subset"]))
        where = subsets[0] if len(subsets) == 1 else f"{len(subsets)} subsets"
        if len(models) == 1:
            return [f"{models[0]} on {where}: the table has its numbers. Give a second one to compare it with."]
        return [f"{', '.join(models)} on {where}: the table has their numbers; differences are not tested here."]
    own = differences[~differences["subset"].isin((MACRO, MICRO))]
    several = own["subset"].nunique() > 1
    return [
        sentence
        for (run, against), rows in own.groupby(["run", "against"], sort=False)
        for sentence in _of_pair(str(run), str(against), rows, frame, several)
    ]


def _of_pair(run: str, against: str, rows: pd.DataFrame, frame: pd.DataFrame, several: bool) -> Iterator[str]:
    enough = rows["too_few"].isna()
    tested, small = rows[rows["p"].notna() & enough], rows[~enough]
    size = f"{_prompts(tested)}, {_counted(len(tested), 'comparison')}"
    wins = {name: tested[tested["better"] == name] for name in (run, against)}
    if tested.empty:
        yield f"{run} and {against} could not be compared in any metric."
    elif not any(len(won) for won in wins.values()):
        yield f"No difference shown between {run} and {against} ({size})."
    for name, other in ((run, against), (against, run)):
        if len(won := wins[name]):
            named = _listed([_amount(row, several) for row in won.itertuples()])
            yield f"{name} is better than {other} in {len(won)} of {_counted(len(tested), 'comparison')}: {named}."
    beside = tested[[not sided(row) and row.p_holm < ALPHA for row in tested.itertuples()]]
    if len(beside):
        named = _listed([_named(row, several) for row in beside.itertuples()])
        yield f"They differ in {named}, where neither more nor less is better."
    yield from _nearest(tested[tested["better"].isna() & ~tested.index.isin(beside.index)], several)
    if len(small):
        rest = "rests" if len(small) == 1 else "rest"
        yield f"{_counted(len(small), 'comparison')} {rest} on too few clips: {_listed([*small['too_few'].unique()])}."
    if len(lost := rows[rows["p"].isna() & enough]):
        reasons = Counter(_reason(row, frame) for row in lost.itertuples())
        named = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
        yield f"{_counted(len(lost), 'comparison')} could not be made: {named}."


def _nearest(still_open: pd.DataFrame, several: bool) -> Iterator[str]:
    """The open comparison that fewest prompts would settle, where they are more than there are."""
    known = still_open[still_open["needed"] > still_open["prompts"]]
    if len(known):
        row = next(known.sort_values("needed", kind="stable").itertuples())
        yield f"The nearest to being shown is {_named(row, several)}: about {row.needed:.0f} prompts would settle it."


def _prompts(tested: pd.DataFrame) -> str:
    counts = sorted({int(count) for count in tested["prompts"].dropna()})
    if not counts:
        return "no prompts"
    return _counted(counts[0], "prompt") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} prompts"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _named(row, several: bool) -> str:
    name = str(row.metric).replace("_", " ")
    return f"{name} on {row.subset}" if several else name


def _amount(row, several: bool) -> str:
    how = "nearer to the reference by" if row.kind == TO_TARGET else "by"
    unit = f" {row.unit}" if row.unit else ""
    return f"{_named(row, several)} ({how} {abs(row.difference):.3g}{unit}, p {_p(row.p_holm)})"


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.2g}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _reason(row, frame: pd.DataFrame) -> str:
    """Why a comparison could not be made, short, and of which run."""
    where = (frame["subset"] == row.subset) & (frame["metric"] == row.metric)
    lacking = frame[where & frame["missing"].notna() & frame["model"].isin((row.run, row.against))]["model"].tolist()
    short = re.split(r"[:(;]", str(row.missing or "no value"), maxsplit=1)[0].strip()
    return f"{short} in {lacking[0]}" if len(lacking) == 1 else short
