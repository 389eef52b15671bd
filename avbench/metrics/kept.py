"""Keeps the scores of a run's earlier evaluation that cannot be computed here, for example without their package.

A kept score stays as it was, with its protocol and its clips' values. So that it is never one of other clips or another
reference than the scores beside it, all that it came from must be unchanged: the run's clips and prompts, the rows of
its features (by the digests in scores.json), and the reference. Otherwise it is left out.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from avbench.core import InputError, Score, features_in, folder_name
from avbench.features.protocols import protocol_in, reference_clips_of
from avbench.metrics.reference import Reference
from avbench.metrics.table import known_metrics, problems
from avbench.storage.runs.folder import VALUES_FILE, RunFolder


@dataclass(frozen=True, eq=False)
class Kept:
    """What is kept of an earlier evaluation."""

    scores: list[Score] = field(default_factory=list)
    protocols: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """By their digests, which the scores name."""
    values: list[pd.DataFrame] = field(default_factory=list)
    """The clips' values of each score, as in values.parquet."""
    notes: list[str] = field(default_factory=list)
    """What is kept and what is left out, and why."""


def kept_scores(
    folder: RunFolder, computed: Collection[str], reals: Mapping[str, Reference | None], against: RunFolder | None
) -> Kept:
    """The numbers of a run's earlier evaluation that stay as they were.

    Args:
        folder: the run.
        computed: the names of the metrics that are computed now.
        reals: subset → the reference that these are scored with.
        against: the run of reference clips that they are scored with.
    """
    kept = Kept()
    earlier = [one for one in scores_so_far(folder) if one.metric not in computed and one.value is not None]
    if not earlier:
        return kept
    protocols = folder.evaluation().protocols
    changed = _Changed(folder, [protocols[score.protocol] for score in earlier], reals, against)
    values = None
    for score in earlier:
        protocol = protocols[score.protocol]
        change = next(changed.of(score, protocol), None)
        became = f"is left out, as {change}" if change else "stays as it was"
        why = _why_not_computed(folder, score.metric, against)
        kept.notes.append(f"{score.metric} of {score.subset} was {score.value:.4g} and {became}; {why}")
        if change is None:
            values = folder.values() if values is None else values
            kept.scores.append(score)
            kept.protocols[score.protocol] = protocol
            of_score = (values["subset"] == score.subset) & (values["metric"] == score.metric)
            kept.values.append(values.loc[of_score])
    return kept


def scores_so_far(folder: RunFolder) -> list[Score]:
    """The scores of a run's last evaluation; none if there is none or its file is damaged."""
    try:
        return folder.scores()
    except InputError:
        return []


def why_unknown(metric: str) -> str:
    """Why there is no metric of a name here."""
    return problems().get(metric) or f"avbench does not know {metric}: is its package installed?"


def _why_not_computed(folder: RunFolder, name: str, against: RunFolder | None) -> str:
    metric = known_metrics().get(name)
    if metric is None:
        return why_unknown(name)
    try:
        for feature in filter(None, (metric.feature, metric.beside)):
            protocol_in(folder, feature, against)
    except InputError as error:  # its weights or the run of its reference clips are not here
        return str(error)
    return (
        f"not every clip has a row of this avbench's {metric.feature}: `avbench measure` and `avbench evaluate`, each "
        f"with --metric {name}, compute it"
    )


class _Changed:
    """Says what has changed of what scores came from."""

    def __init__(
        self,
        folder: RunFolder,
        protocols: Iterable[Mapping[str, Any]],
        reals: Mapping[str, Reference | None],
        against: RunFolder | None,
    ) -> None:
        self._reals = reals
        self._rows, self._recorded = folder.digests_of_rows(protocols), folder.evaluation().rows
        self._subsets = {subset.name: subset.digest for subset in folder.subsets()}
        self._asked = Counter(key.subset for key in folder.planned_keys())
        self._reference_clips = against and reference_clips_of(against)
        self._belongs = True
        try:
            folder.require_one_evaluation(VALUES_FILE)
        except InputError:
            self._belongs = False

    def of(self, score: Score, protocol: Mapping[str, Any]) -> Iterator[str]:
        """Yield what has changed since a score was computed, in words; nothing if all is as it was."""
        if not self._belongs:
            yield "the run's clips or values.parquet are not those of the evaluation"
        subset = protocol.get("subset")
        same_prompts = isinstance(subset, Mapping) and subset.get("digest") == self._subsets[score.subset]
        if not same_prompts or score.n + score.unmeasured != self._asked[score.subset]:
            yield "other clips were asked for then"
        for name in map(folder_name, features_in(protocol)):
            if name not in self._recorded:
                yield "an earlier avbench computed it, which did not record from which rows"
            elif self._rows.get(name) != self._recorded[name]:
                yield "the rows that it came from have changed"
        used, real = protocol.get("reference"), self._reals[score.subset]
        if used and used != (real and real.card["sha256"]):
            yield "it was computed with another reference"
        clips = self._reference_clips
        if clips and any(one.get("reference_clips", clips) != clips for one in features_in(protocol)):
            yield "it was computed with other reference clips"
