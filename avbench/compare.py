"""Stage 5: runs beside runs. Only numbers of one protocol stand in one column.

`scores_frame` gives the long table (a row a subset, metric and model) that every report is made from. What is best
is a matter of direction alone here: whether a difference is more than chance is not tested yet.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from avbench.core import Direction, InputError, Score, require_same_protocol
from avbench.folder import RunFolder
from avbench.metrics import METRICS


def scores_frame(folders: Sequence[RunFolder]) -> pd.DataFrame:
    """One row a (subset, metric, model): value, low, high, n, unmeasured, floor, reference, missing, best, protocol.

    Raises:
        InputError: two runs have one name, were not evaluated, or scored under unlike protocols.
    """
    known = {metric.name: metric for metric in METRICS}
    rows: list[dict[str, Any]] = []
    seen: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    names = [folder.path.name for folder in folders]
    if twice := {name for name in names if names.count(name) > 1}:
        msg = f"several runs are called {sorted(twice)[0]!r}; rename a folder"
        raise InputError(msg)
    for folder in folders:
        scores, protocols = folder.scores()
        for score in scores:
            where = (score.subset, score.metric)
            first_name, first = seen.setdefault(where, (folder.path.name, protocols[score.protocol]))
            what = f"{score.metric} on {score.subset} of {first_name} and of {folder.path.name}"
            require_same_protocol(first, protocols[score.protocol], what)
            rows.append(_row(folder.path.name, score, known[score.metric].direction, known[score.metric].unit))
    numbers = ("value", "low", "high", "floor", "reference")
    frame = pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))
    frame["best"] = False
    for _, group in frame.groupby(["subset", "metric"], sort=False):
        frame.loc[_best(group), "best"] = True
    return frame


def _row(model: str, score: Score, direction: Direction, unit: str) -> dict[str, Any]:
    low, high = score.interval or (None, None)
    return {
        "subset": score.subset,
        "metric": score.metric,
        "model": model,
        "value": score.value,
        "low": low,
        "high": high,
        "n": score.n,
        "unmeasured": score.unmeasured,
        "floor": score.floor,
        "reference": score.reference,
        "missing": score.missing,
        "direction": direction.value,
        "unit": unit,
        "protocol": score.protocol,
    }


def _best(group: pd.DataFrame) -> list[Any]:
    """Index labels of the best of a group: the extreme value, or for a band every interval that holds the reference."""
    direction = group["direction"].iloc[0]
    values = group["value"].dropna()
    if direction == Direction.BAND:
        holds = (group["low"] <= group["reference"]) & (group["reference"] <= group["high"])
        return list(group.index[holds])
    if len(values) < 2 or direction == Direction.NEITHER:
        return []
    extreme = values.max() if direction == Direction.HIGHER else values.min()
    return list(values.index[values == extreme])
