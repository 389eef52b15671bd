"""Scores a measured run: a value for every metric that its rows allow, and a reason for every other metric.

Nothing here depends on time or the order of measuring, nor on the number of cores, as all is computed in one thread:
on one kind of processor, the same rows give the same bytes.
"""

import collections
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from avbench.core import (
    Columns,
    Direction,
    InputError,
    Key,
    NotMeasurable,
    Protocol,
    Row,
    Sample,
    Score,
    Subset,
    all_of,
    counted,
    csv_text,
    digest,
    kind_and_first_line,
    listed,
    read_only,
    require_known,
    without_notes,
)
from avbench.features.current import columns_of, current_keys, current_rows
from avbench.features.protocols import forms_of, protocol_in
from avbench.features.requirements import requires
from avbench.features.table import Requires, package_of
from avbench.metrics import distances, neighbours, reference
from avbench.metrics.kept import kept_scores, scores_so_far
from avbench.metrics.table import FVD_PROTOCOLS, Metric, known_metrics, why_no_metric
from avbench.statistics import uncertainty
from avbench.storage.media.conform import ClipForm
from avbench.storage.plug_ins import FAILED, failure
from avbench.storage.runs.clips import require_unchanged
from avbench.storage.runs.folder import NEAR_FILE, REAL, VALUES_FILE, RunFolder
from avbench.storage.workers.contained import contained

NEAR_COPIES = "near_copies"
NO_REFERENCE = "has no reference statistics"
"""Words in the reason for a distance without a value: no real clips are known of its subset."""


def listed_names(names: str | Iterable[str]) -> list[str]:
    """Names as a list; ``"a,b"`` counts as two. Raises InputError on what is no name, for example a function."""
    if isinstance(names, str):
        return [name.strip() for name in names.split(",")]
    listed: list[Any] = [*names] if isinstance(names, Iterable) and not isinstance(names, bytes) else [names]
    for name in listed:
        if not isinstance(name, str):
            msg = (
                f"{name!r} is no name of a metric: name metrics as text, such as 'fvd'; `avbench list metrics` has all"
            )
            raise InputError(msg)
    return listed


def chosen_metrics(names: str | Iterable[str] | None) -> list[Metric]:
    """The metrics with these names, in the table's order; the default ones for None. ``"a,b"`` counts as two names.

    Raises:
        InputError: a name is unknown, or is that of another package's metric which cannot be used.
    """
    known = known_metrics()
    names = None if names is None else listed_names(names)
    for name in names or ():
        if name not in known:
            raise InputError(why_no_metric(name))
    return [metric for metric in known.values() if (metric.usual if names is None else metric.name in names)]


def fvd_metrics(protocols: Sequence[str]) -> list[str]:
    """The metrics that compute FVD under these protocols; ``all`` means every one. Raises InputError on others."""
    for name in protocols:
        require_known("FVD protocol", name, (*FVD_PROTOCOLS, "all"))
    return [FVD_PROTOCOLS[name] for name in (FVD_PROTOCOLS if "all" in protocols else protocols)]


def features_of(metrics: Sequence[Metric]) -> list[str]:
    """The features that these metrics need, each once."""
    every = (feature for metric in metrics for feature in (metric.feature, metric.beside) if feature)
    return list(dict.fromkeys(every))


def worth_measuring(folder: RunFolder, metrics: Sequence[Metric], place: Path | None) -> list[Metric]:
    """These metrics, without those that can have no value, because they compare with real clips and there are none.

    One subset of the run with a shipped reference is enough. `place` is a reference of the user's own.
    """
    there = reference_to_use([folder], place) is not None
    there = there or any(one.name in reference.names() for one in folder.subsets())
    return [metric for metric in metrics if there or not metric.column]


@threadpool_limits.wrap(limits=1)
def evaluate(
    folder: RunFolder,
    metrics: Sequence[Metric],
    *,
    place: Path | None = None,
    against: RunFolder | None = None,
    given: str | Path | None = None,
    note: Callable[[str], object] = lambda _: None,
) -> list[Score]:
    """Score a measured run; write scores.json, values.parquet and, if a metric needs it, near_copies.csv.

    An evaluation adds to scores.json. Metrics of an earlier evaluation are computed again with the requested ones if
    their rows still belong to the run's clips; the numbers of others stay as they were, if nothing has changed that
    they came from (see kept.py). The earlier reference is used again if none is given.

    Args:
        folder: the run.
        metrics: the metrics to compute.
        place: a reference of the user's instead of the shipped one; see `reference_to_use`.
        against: the run that holds the reference clips, for metrics that compare with them.
        given: the folder that the user gave, if `place` was built of the clips in it.
        note: gets a sentence on each earlier number that is not computed again.

    Raises:
        InputError: a clip of the run, or of `against`, was changed after it was sampled or measured.
    """
    for one in (folder, against):
        if one is not None:
            require_unchanged(one)
    typed = {"reference": given or place, "against": against and against.path}
    place = reference_to_use([folder], place)
    against = against or remembered_against(folder)
    metrics = scored_together(metrics, folder, against)
    reals = reference.find_all(folder.subsets(), place)
    ordered = all_found(folder, metrics, reals, against)
    kept = kept_scores(folder, {metric.name for metric in metrics}, reals, against)
    for sentence in kept.notes:
        note(sentence)
    scores = sorted([*(one.score for one in ordered), *kept.scores], key=lambda one: [*reals].index(one.subset))
    protocols = {**kept.protocols, **{one.score.protocol: one.protocol for one in ordered}}
    near = [one.near for one in ordered if one.near is not None]
    used = {"reference": place, "against": against and against.path}
    if against is None and kept.scores and (earlier := _scored_with(folder).get("against")):
        used["against"] = Path(earlier)
    asked = {name: str(path.absolute()) for name, path in used.items() if path}
    named = {name: str(typed[name] or folder.evaluation().given[name]) for name in asked}
    parts = {VALUES_FILE: _table([*(one.values for one in ordered), *kept.values]).to_parquet(index=False)}
    if near:
        parts[NEAR_FILE] = csv_text(pd.concat(near)).encode()
    elif any(one.metric == NEAR_COPIES for one in kept.scores) and (folder.path / NEAR_FILE).is_file():
        parts[NEAR_FILE] = (folder.path / NEAR_FILE).read_bytes()
    else:  # the result of an earlier evaluation does not belong to this one
        (folder.path / NEAR_FILE).unlink(missing_ok=True)
    folder.write_scores(scores, protocols, parts, asked, named, folder.digests_of_rows(protocols.values()))
    return scores


def remembered_against(folder: RunFolder) -> RunFolder | None:
    """The run with the reference clips that an earlier evaluation used; None where there is none, or it is gone."""
    earlier = _scored_with(folder).get("against")
    return RunFolder(Path(earlier)) if earlier and (Path(earlier) / "run.json").is_file() else None


@dataclass(frozen=True, eq=False)
class _Run:
    """What is read of a run, once for all metrics."""

    folder: RunFolder
    samples: Mapping[Key, Sample]
    planned: Sequence[Key]
    """The keys that the run should have, sorted."""
    forms: Mapping[str, ClipForm]
    against: RunFolder | None


@dataclass(frozen=True, eq=False)
class Found:
    """What one metric found on one subset."""

    score: Score
    protocol: dict[str, Any]
    values: pd.DataFrame | None
    """Of each clip."""
    near: pd.DataFrame | None
    """Rows of near_copies.csv."""


class _Measured:
    """What a feature, and the one beside it if there is one, measured of the clips of a subset."""

    def __init__(self, features: Sequence[str], rows: Mapping[Key, Row], run: _Run, subset: Subset) -> None:
        expected = [key for key in run.planned if key.subset == subset.name]
        of_subset = {key: rows[key] for key in expected if key in rows}
        self.reasons = collections.Counter(_reason(key, run.samples, of_subset) for key in expected)
        """Why clips have no values → their number; None → the number of those that have."""
        self.refused = sum(key in run.samples and run.samples[key].refused for key in expected)
        self.gpus = _gpus_used(of_subset.values())
        self._features, self._rows = features, [*of_subset.values()]

    @functools.cached_property
    def columns(self) -> tuple[list[Key], Columns]:
        """Keys and values of the clips that have values. The rows are dropped, since they take as much memory.

        Raises:
            InputError: rows do not fit each other.
        """
        keys, found = columns_of(self._features, self._rows)
        self._rows.clear()
        return keys, read_only(found)


def all_found(
    folder: RunFolder,
    metrics: Sequence[Metric],
    reals: Mapping[str, reference.Reference | None],
    against: RunFolder | None,
) -> list[Found]:
    """What each metric finds on each subset, a subset's metrics together; `reals` are the references of the subsets.

    Metrics of the same features follow each other, so that the values of few features are in memory.
    """
    subsets = folder.subsets()
    run = _Run(folder, folder.samples(), sorted(folder.planned_keys()), forms_of(folder), against)
    held: dict[str, dict[Key, Row]] = {}

    def measured(features: Sequence[str], later: Sequence[str]) -> dict[str, _Measured]:
        """By subset. The rows of features that are used `later` stay in memory."""
        for name in features:
            held[name] = held[name] if name in held else current_rows(folder, name, against)
        joined = functools.partial(_joined, [*map(_with_package, features)])
        rows = functools.reduce(joined, [held[name] for name in features])
        for name in held.keys() - {*later}:
            del held[name]
        return {subset.name: _Measured(features, rows, run, subset) for subset in subsets}

    groups = _by_features(metrics)
    found: dict[tuple[str, str], Found] = {}
    for group, following in itertools.zip_longest(groups, groups[1:], fillvalue=()):
        of_subset = measured(features_of(group[:1]), features_of(following[:1]))
        for metric, subset in itertools.product(group, subsets):
            name = subset.name
            found[name, metric.name] = _found(metric, of_subset[name], run, subset, reals[name])
        del of_subset  # before the next rows are read
    return [found[subset.name, metric.name] for subset in subsets for metric in metrics]


def _by_features(metrics: Sequence[Metric]) -> list[Sequence[Metric]]:
    """The metrics in groups of the same features; groups with the same first feature follow each other."""
    places = {feature: place for place, feature in enumerate(features_of(metrics))}
    ordered = sorted(metrics, key=lambda one: (places[one.feature], places.get(one.beside, -1)))
    return [[*group] for _, group in itertools.groupby(ordered, key=lambda one: (one.feature, one.beside))]


def _table(tables: Iterable[pd.DataFrame | None]) -> pd.DataFrame:
    values = [one for one in tables if one is not None and len(one)]
    return pd.concat(values, ignore_index=True) if values else pd.DataFrame(columns=_VALUE_COLUMNS)


@dataclass(frozen=True, eq=False)
class SoFar:
    """What `evaluate` would find in the rows that a run has now, by metrics with a value for each clip."""

    scores: list[Score]
    protocols: dict[str, dict[str, Any]]
    values: pd.DataFrame
    """As of `read_values`."""


@threadpool_limits.wrap(limits=1)
def evaluated_so_far(folder: RunFolder, metrics: Sequence[Metric], place: Path | None = None) -> SoFar:
    """Score the clips that are measured already; nothing is written, so that another process may still measure.

    Clips are not checked for changes. Metrics that read many clips at once, or reference clips, are left out.

    Args:
        folder: the run.
        metrics: the metrics to compute.
        place: a reference of the user's instead of the shipped one.
    """
    able = [one for one in metrics if not one.column and requires(one.feature) is not Requires.REFERENCE_CLIP]
    found = all_found(folder, able, reference.find_all(folder.subsets(), reference_to_use([folder], place)), None)
    protocols = {one.score.protocol: one.protocol for one in found}
    return SoFar([one.score for one in found], protocols, _table(one.values for one in found))


def _found(metric: Metric, measured: _Measured, run: _Run, subset: Subset, real: reference.Reference | None) -> Found:
    """Score one metric on one subset. An error affects this score only, and becomes the reason that it has no value."""
    feature = protocol_in(run.folder, metric.feature, run.against)
    protocol = _described(metric, feature, subset, real)
    if subset.name in run.forms:
        protocol["clip_form"] = run.forms[subset.name].describe()
    if measured.gpus:
        protocol["notes"] = {"device": measured.gpus}
    if metric.beside:
        protocol["beside"] = protocol_in(run.folder, metric.beside, run.against).describe()
    task = _Task(metric, feature, subset, digest(without_notes(protocol)), real, measured)
    try:
        with contained():
            score, per_clip = _score(task, run.samples)
        return Found(score, protocol, per_clip, _near_copies(task) if metric.name == NEAR_COPIES else None)
    except (NotMeasurable, InputError) as reason:
        sentence = str(reason)
    except Exception as error:  # of a plug-in, of linear algebra, of memory: the other metrics have their numbers
        sentence = failed(metric, error)
    return Found(task.scored(value=None, n=0, missing=sentence), protocol, None, None)


def failed(metric: Metric, error: Exception) -> str:
    """The sentence that replaces a number of a metric whose code raised an error."""
    return failure(metric.package, error) if metric.package else f"{metric.name} failed: {kind_and_first_line(error)}"


def failures(scores: pd.DataFrame, metrics: Sequence[str]) -> dict[str, str]:
    """Those of these metrics that have no value in a table of scores because their code failed → the sentence on it."""
    found = {}
    for name in metrics:
        of_metric = scores.loc[scores["metric"] == name]
        sentences = [*map(str, of_metric["missing"].dropna())]
        if why := [one for one in sentences if one.startswith((FAILED, f"{name} failed: "))]:
            found |= {name: why[0]} if of_metric["value"].isna().to_numpy().all() else {}
    return found


SHIPPED = Path("shipped")
"""As a reference: use the shipped one instead of the one that a run remembers."""


def reference_to_use(folders: Sequence[RunFolder], given: Path | None) -> Path | None:
    """Return the given reference, else the one that the last of these runs was scored with; None means the shipped one.

    Raises:
        InputError: the reference that a run was scored with no longer exists.
    """
    if given is not None:
        return None if given == SHIPPED and not given.exists() else given
    for folder in reversed(folders):
        if remembered := _scored_with(folder).get("reference"):
            if not Path(remembered).exists():
                given_name = folder.evaluation().given["reference"]
                msg = (
                    f"{folder.path} was scored with the reference {given_name}, which no longer exists or has to be "
                    f"built again: give reference (--reference), or the reference `{SHIPPED}` for the shipped one"
                )
                raise InputError(msg)
            return Path(remembered)
    return None


def _scored_with(folder: RunFolder) -> Mapping[str, str]:
    """The paths that a run's last evaluation used; none if its file is damaged."""
    try:
        return folder.evaluation().asked
    except InputError:
        return {}


def scored_together(metrics: Sequence[Metric], folder: RunFolder, against: RunFolder | None = None) -> list[Metric]:
    """The requested metrics, and those of an earlier evaluation that have rows for all clips of the run."""
    asked, scored = {metric.name for metric in metrics}, {score.metric for score in scores_so_far(folder)}
    known = known_metrics()
    earlier = [metric for metric in known.values() if metric.name in scored and metric.name not in asked]
    if not earlier:
        return [*metrics]
    whole = {feature: _is_measured(feature, folder, against) for feature in features_of(earlier)}
    kept = {metric.name for metric in earlier if all(whole[feature] for feature in features_of([metric]))}
    outside = [metric for metric in metrics if metric not in known.values()]
    return [*(metric for metric in known.values() if metric.name in kept | asked), *outside]


def _is_measured(feature: str, folder: RunFolder, against: RunFolder | None) -> bool:
    made = {key for key, sample in folder.samples().items() if sample.path is not None}
    try:
        return made <= current_keys(folder, feature, against)
    except InputError:  # it needs the clips of another run, which is no longer there
        return False


def read_values(folder: RunFolder) -> pd.DataFrame:
    """The values that `evaluate` found, as of `RunFolder.values`.

    Raises:
        InputError: the file is missing or damaged, or belongs to another evaluation than scores.json; or rows were
            added after the evaluation.
    """
    folder.require_one_evaluation(VALUES_FILE)
    folder.require_rows_as_scored()
    return folder.values()


def values_of(folders: Sequence[RunFolder]) -> pd.DataFrame:
    """`read_values` of several runs, with the name of each in the column `model`. Raises the same errors."""
    return pd.concat([read_values(one).assign(model=one.name) for one in folders], ignore_index=True)


@dataclass(frozen=True)
class _Task:
    """One metric on one subset."""

    metric: Metric
    feature: Protocol
    subset: Subset
    digest: str
    real: reference.Reference | None
    measured: _Measured

    def scored(self, *, n: int, **known: Any) -> Score:
        """A score of this metric on this subset, from n clips."""
        reasons = self.measured.reasons
        missing: dict[str, Any] = {"unmeasured": sum(reasons.values()) - n, "refused": self.measured.refused}
        if n:
            missing["why_unmeasured"] = _in_short(reasons, n, self.metric.unable)
        hygiene = reference.hygiene(self.subset, self.real if self.metric.column else None)
        return Score(self.subset.name, self.metric.name, n=n, protocol=self.digest, hygiene=hygiene, **missing, **known)

    def reference_columns(self) -> tuple[Columns, np.ndarray]:
        """Columns and prompts of the reference. Raises NotMeasurable without one, InputError if it does not fit."""
        return self.required_reference.columns(self.feature, self.subset)

    def reference_embedding(self) -> np.ndarray:
        """The column that the metric compares the run's with. Raises the same errors."""
        return distances.real_embedding(self.metric, self.required_reference, self.feature, self.subset)

    @property
    def required_reference(self) -> reference.Reference:
        """The reference. Raises NotMeasurable if there is none."""
        if self.real is None:
            msg = (
                f"the subset {self.subset.name} {NO_REFERENCE} to compare with (see `avbench reference build`, and "
                "give reference, --reference FOLDER)"
            )
            raise NotMeasurable(msg)
        return self.real


_VALUE_COLUMNS = [*Key._fields, "metric", "value", REAL]
_REFUSED, _NO_CLIP = "refused by the model", "no clip"
"""Why a clip that the run does not have has no value."""


def _reason(key: Key, samples: Mapping[Key, Sample], rows: Mapping[Key, Row]) -> str | None:
    """Why a clip has no values; None if it has."""
    if key not in samples:
        return "the clip was not sampled"
    if why := samples[key].failure:
        return f"{_REFUSED if samples[key].refused else _NO_CLIP}: {why}"
    return rows[key].missing if key in rows else "the clip was not measured"


def _with_package(feature: str) -> str:
    package = package_of(feature)
    return f"{feature} of the package {package}" if package else feature


def _joined(names: Sequence[str], rows: Mapping[Key, Row], beside: Mapping[Key, Row]) -> dict[Key, Row]:
    """Rows of the clips that two features measured, with the values of both, or the reason why one has none."""
    both = {}
    for key in rows.keys() & beside.keys():
        one, other = rows[key], beside[key]
        values, missing = None, one.missing or other.missing
        if one.values is not None and other.values is not None:
            values = {**one.values, **other.values}
            if twice := [name for name in one.values if name in other.values]:
                values, missing = None, f"{all_of(names)} both have a column {twice[0]!r}"
        both[key] = Row(key, one.clip_sha256, values, missing, one.gpu or other.gpu)
    return both


def _gpus_used(rows: Iterable[Row]) -> str | None:
    """How many clips each GPU measured, as a note on a protocol, whose digest it does not change; None without any."""
    counts = collections.Counter(row.gpu for row in rows if row.values is not None)
    if not any(counts):
        return None
    named = ((f"by CUDA on {gpu}" if gpu else "on the CPU", count) for gpu, count in counts.items())
    return "Measured " + ", ".join(f"{place} ({counted(count, 'clip')})" for place, count in sorted(named)) + "."


def _described(metric: Metric, feature: Protocol, subset: Subset, real: reference.Reference | None) -> dict[str, Any]:
    uses_reference = metric.column or metric.direction is Direction.BAND
    columns_used = {"column": metric.column, "reference_column": metric.reference_column or metric.column}
    return {
        "metric": metric.name,
        **({"package": metric.package} if metric.package else {}),
        **metric.settings,
        **(columns_used if metric.column else {}),
        "feature": feature.describe(),
        "subset": {"name": subset.name, "digest": subset.digest, "prompts": len(subset.prompts)},
        "reference": real.card["sha256"] if real is not None and uses_reference else None,
    }


def _score(task: _Task, samples: Mapping[Key, Sample]) -> tuple[Score, pd.DataFrame | None]:
    metric = task.metric
    # A metric without its reference has that reason, and not that no clip was measured for it.
    real = task.required_reference if metric.column else task.real
    keys, measured = task.measured.columns
    if not keys:
        reasons = task.measured.reasons
        raise NotMeasurable(_most_frequent(reasons) if reasons else "this shard of the run has no clip of the subset")
    judged = real if metric.column or metric.direction is Direction.BAND else None
    shared = len(judged.shared([samples[key] for key in keys])) if judged else 0
    if not metric.column:
        return _mean(task, keys, metric.of_clips(measured), shared)
    metric.require_column(metric.column, measured)
    x = distances.embedding(measured, metric.column, "the run")
    if metric.per_clip:
        y = task.reference_embedding()
        if task.required_reference.drops_rows(task.feature, task.subset):  # copies of these clips would not be found
            raise distances.needs_every_row(metric, task.required_reference.card["clips"][task.feature.name])
        if metric.name == NEAR_COPIES:
            neighbours.require_siblings([key.prompt for key in keys], task.reference_columns()[1].tolist())
        return _mean(task, keys, distances.value(metric, x, y), shared)
    if moments := task.required_reference.moments(task.feature, metric.reference_column or metric.column, task.subset):
        clips = task.required_reference.card["clips"][task.feature.name]  # the moments count every window of a clip
        value = distances.value_of_moments(metric, x, moments, clips)
        kept = int((task.required_reference.clips[task.feature.name] == reference.KEPT).to_numpy().sum())
        why = f"the reference keeps rows of {kept} of its {clips} clips; build it from the clips with --rows {clips}"
        return task.scored(value=value, n=len(keys), reference_clips=clips, no_null=why, shared=shared), None
    y, prompts = task.reference_embedding(), task.reference_columns()[1]
    value = distances.value(metric, x, y)
    null, no_null = None, None
    try:
        null = distances.null(metric, x, [key.prompt for key in keys], y, prompts)
    except NotMeasurable as reason:
        no_null = str(reason)
    score = task.scored(
        value=value,
        n=len(keys),
        reference_clips=len(prompts),
        null=null,
        no_null=no_null,
        floor=distances.floor(metric, x, y, prompts),
        shared=shared,
    )
    return score, None


def _mean(task: _Task, keys: Sequence[Key], per_clip: np.ndarray, shared: int) -> tuple[Score, pd.DataFrame]:
    able, of_real = ~np.isnan(per_clip), values_of_real(task.metric, task.feature, task.real, task.subset)
    table = with_real(pd.DataFrame(keys).assign(metric=task.metric.name, value=per_clip), of_real)
    if not able.any():
        msg = f"{task.metric.name} cannot measure any of the {len(keys)} clips: {task.metric.unable}"
        return task.scored(value=None, n=0, missing=msg), table
    prompts = [key.prompt for key, usable in zip(keys, able, strict=True) if usable]
    score = task.scored(
        value=float(per_clip[able].mean()),
        n=int(able.sum()),
        interval=uncertainty.mean_interval(per_clip[able], prompts),
        reference=None if of_real is None else float(of_real.mean()),
        shared=shared,
    )
    return score, table


def values_of_real(
    metric: Metric, feature: Protocol, real: reference.Reference | None, subset: Subset
) -> pd.Series | None:
    """What a ≈ metric should match: its value of each of the reference's clips that have one, by their prompts.

    None of other metrics, and where the reference has none.

    Raises:
        InputError: the reference does not fit; see `Reference.columns`.
    """
    if metric.direction is not Direction.BAND or metric.beside or real is None or feature.name not in real.values:
        return None
    columns, prompts = real.columns(feature, subset)
    found = pd.Series(metric.of_clips(columns), prompts).dropna()
    return found if len(found) else None


def with_real(table: pd.DataFrame, of_real: pd.Series | None) -> pd.DataFrame:
    """A table of clips with the column REAL: the mean value of the reference's clips of the same prompt, or NaN."""
    of_prompt: Any = {} if of_real is None else of_real.groupby(level=0).mean()
    return table.assign(**{REAL: table["prompt"].map(of_prompt).astype(float)})


def _near_copies(task: _Task) -> pd.DataFrame:
    """Each clip with its nearest reference clip: one row per clip, the nearest first."""
    keys, measured = task.measured.columns
    real, apart = distances.nearest_real(task.metric, measured, task.required_reference, task.feature, task.subset)
    nearness = neighbours.nearness(apart, task.reference_embedding())
    table = pd.DataFrame(keys).assign(
        nearest_prompt=[key.prompt for key in real],
        nearest_seed=[key.seed for key in real],
        distance=apart,
        nearness=nearness,
        near_copy=nearness <= task.metric.settings["level"],
    )
    return table.sort_values("nearness", kind="stable")


def _in_short(reasons: Mapping[str | None, int], n: int, unable: str) -> str | None:
    """Why the clips besides n have no value: ``they are silent``; with numbers of clips if that is not true of all.

    Refused clips are left out, since they are counted apart. `unable` is true of measured clips without a value.
    """
    short: collections.Counter[str] = collections.Counter({unable: reasons.get(None, 0) - n})
    for sentence, count in reasons.items():
        if sentence is not None and not sentence.startswith(_REFUSED):
            short[_NO_CLIP if sentence.startswith(_NO_CLIP) else sentence] += count
    found = [(text, count) for text, count in short.most_common() if count]
    whole = sum(reasons.values()) - n
    return listed((text if count == whole else f"{text} ({count})" for text, count in found), 2) or None


def _most_frequent(why: Mapping[str | None, int]) -> str:
    """The most frequent reason, with its number of clips, and the other if there are two.

    Reasons that differ in numbers or quoted names are one. A missing clip comes last, as it does not say why
    the metric has no value for the clips that are there.
    """
    of_kind: collections.defaultdict[str, list[str]] = collections.defaultdict(list)
    for sentence in why:
        if sentence is not None:
            of_kind[re.sub(r"(?:[-+]?\d[\w.]*)+|'[^']*'", "#", sentence)].append(sentence)
    counts = {kind: sum(why[one] for one in sentences) for kind, sentences in of_kind.items()}
    first, *others = sorted(counts, key=lambda kind: (kind.startswith(_NO_CLIP), -counts[kind]))
    typical = {kind: max(sentences, key=lambda one: why[one]) for kind, sentences in of_kind.items()}
    rest = "; the others have other reasons" if others else ""
    if len(others) == 1:
        count = f" {counts[others[0]]}" if counts[others[0]] > 1 else ""
        rest = f"; of the other{count}: {typical[others[0]]}"
    return f"{typical[first]} ({counts[first]} of {sum(why.values())} clips{rest})"
