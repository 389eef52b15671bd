"""Stage 5: runs beside runs. Only numbers of one protocol stand in one column.

`scores_frame` gives the long table (a row a subset, metric and model) that every report is made from; what is best in
it is a matter of direction alone. `distance_differences` says which of two models is nearer to the reference, and
whether that is more than chance; means over clips are not tested yet. `over_motion` shows what a metric owes to how
little moves.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avbench import distances, reference
from avbench.core import Direction, InputError, Key, NotMeasurable, Score, Subset, columns, require_same_protocol
from avbench.evaluate import VALUES_FILE
from avbench.folder import RunFolder
from avbench.measure import current_rows, protocol_of
from avbench.metrics import METRICS, Metric


def scores_frame(folders: Sequence[RunFolder]) -> pd.DataFrame:
    """One row a (subset, metric, model): value, interval, n, null, p, excess, floor, reference, missing, best and more.

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
            if score.metric not in known:
                msg = (
                    f"{folder.path} was scored by {score.metric}, which is no more: run `avbench evaluate` on it again"
                )
                raise InputError(msg)
            rows.append(_row(folder.path.name, score, known[score.metric].direction, known[score.metric].unit))
    numbers = ("value", "low", "high", "null", "null_sd", "p", "excess", "floor", "reference")
    frame = pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))
    frame["best"] = False
    for _, group in frame.groupby(["subset", "metric"], sort=False):
        frame.loc[_best(group), "best"] = True
    return frame


def distance_differences(folders: Sequence[RunFolder], *, place: Path | None = None) -> pd.DataFrame:
    """Each later run against the first, by every distance that both were scored with.

    One row a (subset, metric, run): `difference` is the run's distance to the reference less that of the first, over
    the `pairs` of clips that both have; `p` is two-sided, labels swapped within pairs; `missing` says why there is
    none. `place` is a reference of the user's own.
    """
    known = {metric.name: metric for metric in METRICS if metric.pooled}
    first, rows = folders[0], []
    asked = {(score.subset, score.metric) for score in first.scores()[0] if score.value is not None}
    for other in folders[1:]:
        both = asked & {(score.subset, score.metric) for score in other.scores()[0] if score.value is not None}
        for subset in first.subsets():
            for name in (name for name in known if (subset.name, name) in both):
                pair = {"subset": subset.name, "metric": name, "run": other.path.name, "against": first.path.name}
                rows.append({**pair, **_difference(other, first, known[name], subset, place)})
    return pd.DataFrame(rows)


MOTION_BINS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, np.inf)
"""Diagonals per second."""
LEAST_IN_BIN = 3


def over_motion(folders: Sequence[RunFolder]) -> pd.DataFrame:
    """Means of the metrics that go with how much moves, in bins of `motion_amount`, of at least LEAST_IN_BIN clips.

    One row a (subset, metric, model, bin): `low` and `high` in diagonals per second, `n`, `mean`.
    """
    shown = [metric.name for metric in METRICS if metric.goes_with_motion]
    rows = []
    for folder in folders:
        values = pd.read_parquet(folder.path / VALUES_FILE)
        amounts = values[values["metric"] == "motion_amount"].set_index([*Key._fields])["value"]
        for (subset, name), of_metric in values[values["metric"].isin(shown)].groupby(["subset", "metric"], sort=False):
            known = (
                of_metric.set_index([*Key._fields])["value"].to_frame("value").join(amounts.rename("amount")).dropna()
            )
            bins = np.digitize(known["amount"], MOTION_BINS) - 1
            for index, in_bin in known.groupby(bins)["value"]:
                if len(in_bin) >= LEAST_IN_BIN:
                    edges = {"low": MOTION_BINS[index], "high": MOTION_BINS[index + 1]}
                    made = {"subset": subset, "metric": name, "model": folder.path.name, "bin": int(index)}
                    rows.append({**made, **edges, "n": len(in_bin), "mean": in_bin.mean()})
    return pd.DataFrame(rows, columns=["subset", "metric", "model", "bin", "low", "high", "n", "mean"])


def _difference(a: RunFolder, b: RunFolder, metric: Metric, subset: Subset, place: Path | None) -> dict[str, Any]:
    real = reference.find(subset, place)
    sides = []
    for folder in (a, b):
        rows = current_rows(folder, metric.feature).values()
        sides.append(columns(row for row in rows if row.key.subset == subset.name))
    try:
        if real is None:
            msg = f"{subset.name} has no reference"
            raise NotMeasurable(msg)
        found = distances.difference(metric, *sides, real, protocol_of(metric.feature), subset)
    except (NotMeasurable, InputError) as reason:
        return {"difference": None, "p": None, "pairs": 0, "missing": str(reason)}
    return {"difference": found.value, "p": found.p, "sd": found.sd, "pairs": found.pairs, "missing": None}


def _row(model: str, score: Score, direction: Direction, unit: str) -> dict[str, Any]:
    low, high = score.interval or (None, None)
    null = score.null
    return {
        "subset": score.subset,
        "metric": score.metric,
        "model": model,
        "value": score.value,
        "low": low,
        "high": high,
        "n": score.n,
        "unmeasured": score.unmeasured,
        "refused": score.refused,
        "shared": score.shared,
        "null": null and null.mean,
        "null_sd": null and null.sd,
        "p": null and null.p,
        "excess": score.excess,
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
