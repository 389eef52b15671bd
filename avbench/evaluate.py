"""Stage 4: rows → scores. Every metric that the rows allow; for every other, the sentence why not.

Nothing here depends on time, machine or the order of measuring: the same rows give the same bytes.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from avbench import reference, uncertainty
from avbench.core import (
    Direction,
    InputError,
    Key,
    NotMeasurable,
    Row,
    Sample,
    Score,
    Subset,
    columns,
    digest,
    nearest,
    resolve,
)
from avbench.folder import RunFolder, write_whole
from avbench.measure import is_current, protocol_of
from avbench.metrics import METRICS, Metric

VALUES_FILE = "values.parquet"


def chosen_metrics(names: Sequence[str] | None) -> list[Metric]:
    """The rows of METRICS with these names, in the table's order; all for None. Raises InputError on an unknown one."""
    known = {metric.name: metric for metric in METRICS}
    for name in names or ():
        if name not in known:
            msg = f"metric {name!r} is unknown; {nearest(name, known)}"
            raise InputError(msg)
    return [metric for metric in METRICS if names is None or metric.name in names]


def features_of(metrics: Sequence[Metric]) -> list[str]:
    """The features that these metrics need, each once."""
    return list(dict.fromkeys(metric.feature for metric in metrics))


def evaluate(folder: RunFolder, metrics: Sequence[Metric]) -> list[Score]:
    """Score a measured run, and write scores.json and values.parquet (one row a clip and metric)."""
    samples = folder.samples()
    scores: list[Score] = []
    protocols: dict[str, Any] = {}
    values: list[pd.DataFrame] = []
    rows = {feature: folder.rows(protocol_of(feature)) for feature in features_of(metrics)}
    seeds = folder.run().seeds
    for subset in folder.subsets():
        expected = sorted(Key(subset.name, prompt.id, seed) for prompt in subset.prompts for seed in seeds)
        real = reference.find(subset)
        for metric in metrics:
            measured = rows[metric.feature]
            current = {key: measured[key] for key in expected if key in samples and is_current(measured, samples[key])}
            protocol = _described(metric, subset, real)
            protocols[digest(protocol)] = protocol
            why = collections.Counter(_reason(key, samples, current) for key in expected)
            score, per_clip = _score(metric, subset, current, real, digest(protocol), why)
            scores.append(score)
            if per_clip is not None:
                values.append(per_clip)
    folder.write_scores(scores, protocols)
    table = pd.concat(values, ignore_index=True) if values else pd.DataFrame(columns=_VALUE_COLUMNS)
    write_whole(folder.path / VALUES_FILE, table.to_parquet(index=False))
    return scores


_VALUE_COLUMNS = [*Key._fields, "metric", "value"]


def _reason(key: Key, samples: Mapping[Key, Sample], rows: Mapping[Key, Row]) -> str | None:
    """Why a clip has no values, or None where it has."""
    if key not in samples:
        return "the clip was not sampled"
    if failure := samples[key].failure:
        return f"no clip: {failure}"
    return rows[key].missing if key in rows else "the clip was not measured"


def _described(metric: Metric, subset: Subset, real: reference.Reference | None) -> dict[str, Any]:
    uses_reference = not metric.per_clip or metric.direction is Direction.BAND
    return {
        "metric": metric.name,
        **metric.settings,
        "feature": protocol_of(metric.feature).describe(),
        "subset": {"name": subset.name, "digest": subset.digest, "prompts": len(subset.prompts)},
        "reference": real.card["sha256"]["columns.safetensors"] if real is not None and uses_reference else None,
    }


def _score(
    metric: Metric,
    subset: Subset,
    rows: Mapping[Key, Row],
    real: reference.Reference | None,
    protocol: str,
    why: Mapping[str | None, int],
) -> tuple[Score, pd.DataFrame | None]:
    asked = sum(why.values())
    keys, measured = columns(rows.values())
    function = resolve(metric.function)
    common = {"subset": subset.name, "metric": metric.name, "protocol": protocol}
    try:
        if not keys:
            raise NotMeasurable(_most_frequent(why))
        if metric.per_clip:
            per_clip = np.asarray(function(measured))
            return _mean(metric, subset, keys, per_clip, real, asked, common)
        if real is None:
            msg = f"{subset.name} has no reference statistics to measure a distance to (see `avbench reference build`)"
            raise NotMeasurable(msg)
        known, prompts = real.columns(protocol_of(metric.feature), subset)
        score = Score(
            **common,
            value=float(function(measured, known)),
            n=len(keys),
            unmeasured=asked - len(keys),
            floor=None if metric.floor is None else float(resolve(metric.floor)(known, len(keys), prompts)),
        )
        return score, None
    except (NotMeasurable, InputError) as reason:
        return Score(**common, value=None, n=0, missing=str(reason), unmeasured=asked), None


def _mean(
    metric: Metric,
    subset: Subset,
    keys: Sequence[Key],
    per_clip: np.ndarray,
    real: reference.Reference | None,
    asked: int,
    common: Mapping[str, Any],
) -> tuple[Score, pd.DataFrame]:
    able = ~np.isnan(per_clip)
    table = pd.DataFrame([*keys], columns=[*Key._fields]).assign(metric=metric.name, value=per_clip)
    if not able.any():
        msg = f"{metric.name} cannot measure any of the {len(keys)} clips: {metric.unable}"
        return Score(**common, value=None, n=0, missing=msg, unmeasured=asked), table
    prompts = [key.prompt for key, usable in zip(keys, able, strict=True) if usable]
    target = None
    if real is not None and metric.direction is Direction.BAND:
        known, _ = real.columns(protocol_of(metric.feature), subset)
        target = float(np.nanmean(resolve(metric.function)(known)))
    score = Score(
        **common,
        value=float(per_clip[able].mean()),
        n=int(able.sum()),
        unmeasured=asked - int(able.sum()),
        interval=uncertainty.mean_interval(per_clip[able], prompts),
        reference=target,
    )
    return score, table


def _most_frequent(why: Mapping[str | None, int]) -> str:
    sentence = max((text for text in why if text is not None), key=lambda text: why[text])
    return f"{sentence} ({why[sentence]} of {sum(why.values())} clips)"
