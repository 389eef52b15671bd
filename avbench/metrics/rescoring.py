"""Scores runs against another reference than the one that they were scored with, in memory alone.

So a comparison by another reference has its values, differences and targets from that one alone. Numbers that rest on
no reference stay as they are, and so do the values of ≈ metrics, of which only the target changes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from avbench.core import Direction, InputError, Key, NotMeasurable, Protocol, Score, Subset, digest, without_notes
from avbench.features.protocols import protocol_of
from avbench.metrics import reference
from avbench.metrics.evaluate import (
    all_found,
    read_values,
    reference_to_use,
    remembered_against,
    values_of_real,
    with_real,
)
from avbench.metrics.table import Metric, known_metrics
from avbench.storage.runs.folder import REAL, RunFolder
from avbench.storage.runs.view import RunView

_References = dict[str, reference.Reference | None]
"""Name of a subset → its reference, if there is one."""


@threadpool_limits.wrap(limits=1)
def rescored(
    folders: Sequence[RunFolder], place: Path | None, metrics: Sequence[str] | None = None
) -> Sequence[RunFolder]:
    """The runs as if they had been scored with another reference; nothing is written.

    Args:
        folders: evaluated runs.
        place: the reference; None for those that the runs were scored with, which changes nothing.
        metrics: names of the metrics to score again; all for None.

    Returns:
        The runs. One whose scores are of this very reference is returned as it is.

    Raises:
        InputError: a run was not evaluated, or the folder holds no reference for any of its subsets.
    """
    if place is None:
        return folders
    known: _References = {}
    return [_rescored(folder, reference_to_use([], place), metrics, known) for folder in folders]


def _rescored(folder: RunFolder, place: Path | None, metrics: Sequence[str] | None, known: _References) -> RunFolder:
    _find(folder.subsets(), place, known)
    scores, protocols = folder.scores(), folder.evaluation().protocols
    outdated: dict[tuple[str, str], Metric] = {}
    for score in scores:
        metric, real = known_metrics().get(score.metric), known[score.subset]
        asked = metrics is None or score.metric in metrics
        if metric and asked and (metric.column or metric.direction is Direction.BAND):
            if protocols[score.protocol].get("reference") != (real and real.card["sha256"]):
                outdated[score.where] = metric
    if not outdated:
        return folder
    values = read_values(folder).copy()
    again: dict[tuple[str, str], tuple[Score, Mapping[str, Any]]] = {}
    for score in scores:
        if score.where in outdated and not outdated[score.where].column and score.value is not None:
            described = protocols[score.protocol]
            own = (values["subset"] == score.subset) & (values["metric"] == score.metric)
            clips: Any = values.loc[own]
            found, of_real = _aimed(folder, outdated[score.where], score, described, known[score.subset], clips)
            again[score.where] = found
            values.loc[own, REAL] = with_real(clips, of_real)[REAL]
    of_rows = {where: metric for where, metric in outdated.items() if where not in again}
    ordered = [metric for metric in known_metrics().values() if metric in of_rows.values()]
    tables = []
    for found in all_found(folder, ordered, known, remembered_against(folder)):
        if found.score.where in of_rows:
            again[found.score.where] = found.score, found.protocol
            tables += [] if found.values is None else [found.values]
    gone = {where for where, (score, _) in again.items() if where in of_rows or score.value is None}
    kept: Any = values.loc[[where not in gone for where in zip(values["subset"], values["metric"], strict=True)]]
    view = folder if isinstance(folder, RunView) else RunView(folder.path)
    view.name = folder.name
    return view.scored_anew(
        [again[score.where][0] if score.where in again else score for score in scores],
        {**protocols, **{score.protocol: described for score, described in again.values()}},
        pd.concat([kept, *tables], ignore_index=True),
        place,
    )


def _find(subsets: Sequence[Subset], place: Path | None, known: _References) -> None:
    """Read the references of subsets. Raises InputError if `place` is a folder with none of any of them."""
    there = [subset for subset in subsets if place is None or reference.holds(place, subset)]
    for subset in there or subsets:
        if subset.name not in known:
            known[subset.name] = reference.find(subset, place)
    known.update({subset.name: None for subset in subsets if subset.name not in known})


def _aimed(
    folder: RunFolder,
    metric: Metric,
    score: Score,
    described: Mapping[str, Any],
    real: reference.Reference | None,
    clips: pd.DataFrame,
) -> tuple[tuple[Score, Mapping[str, Any]], pd.Series | None]:
    """A score of a ≈ metric, and its protocol, with the target of another reference; and the values of its clips."""
    described = {**described, "reference": real and real.card["sha256"]}
    stamp, (subset,) = digest(without_notes(described)), [one for one in folder.subsets() if one.name == score.subset]
    keys = {Key(*one) for one in clips[[*Key._fields]].itertuples(index=False, name=None)}
    try:
        known = real is not None and described["feature"]["name"] in real.values
        of_real = values_of_real(metric, _as_scored(folder, metric, described), real, subset) if known else None
    except (InputError, NotMeasurable) as reason:
        lost = Score(
            *score.where,
            value=None,
            n=0,
            protocol=stamp,
            missing=str(reason),
            unmeasured=score.unmeasured + score.n,
            refused=score.refused,
            hygiene=score.hygiene,
        )
        return (lost, described), None
    shared = len(real.shared(one for key, one in folder.samples().items() if key in keys)) if real else 0
    target = None if of_real is None else float(of_real.mean())
    return (dataclasses.replace(score, protocol=stamp, reference=target, shared=shared), described), of_real


def how_to_score_anew(run: str, metrics: str, *, has_clips: bool) -> str:
    """What to do where a run's numbers by some metrics have to be measured anew; a baseline has no clips for that."""
    if has_clips:
        return f"`avbench measure` and `avbench evaluate` of {run}, each with --metric {metrics}, score it anew"
    return (
        f"{run} has no clips to measure again: run the model that it holds with this avbench, which makes no clip that "
        "its run folder still has, and move a baseline to that run with `avbench check --update`"
    )


def _as_scored(folder: RunFolder, metric: Metric, described: Mapping[str, Any]) -> Protocol:
    """The protocol of the feature that a score was computed from. Raises InputError if this avbench has another."""
    for precision in ("fp32", "bf16"):
        protocol = protocol_of(metric.feature, precision=precision)
        if protocol.values() == without_notes(described["feature"]):
            return protocol
    anew = how_to_score_anew(folder.name, metric.name, has_clips=folder.has_clips)
    msg = f"{metric.name} was computed from {metric.feature} of another version or with other settings: {anew}"
    raise InputError(msg)
