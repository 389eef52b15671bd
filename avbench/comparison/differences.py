"""Tests runs against each other by every metric that both have, on the clips that both have.

One row per (subset, metric, run, against): `difference` is the run's number less the other's. For a mean over clips it
comes from `paired`; where the reference's value is right (≈), both numbers are distances from it, so that below 0 the
run is nearer. For a distance between distributions labels are swapped prompt by prompt, and a t test must agree
(`uncertainty.swap_test`); there is no interval, because a bootstrap of such a distance is wrong. `shown` marks a
difference only where the whole family of comparisons has at most 5 % of false alarms, or what the plan sets; `better`
names the run that it favours.

Pooled over subsets there are `macro`, where every subset counts the same, and `micro`, where every clip does; distances
are not pooled.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from avbench.comparison.plan import Plan
from avbench.comparison.score_table import (
    Where,
    asked_scores,
    check_comparable,
    clip_values,
    join,
    made,
    real_values,
    scored_by,
    sharable,
    targets,
    together,
)
from avbench.core import (
    Columns,
    Direction,
    InputError,
    Key,
    NotMeasurable,
    Row,
    Score,
    Subset,
    columns,
    counted,
    field_differences,
    without_notes,
)
from avbench.features.current import current_rows
from avbench.features.protocols import protocol_in
from avbench.metrics import distances, reference
from avbench.metrics.evaluate import failed, reference_to_use
from avbench.metrics.rescoring import how_to_score_anew, rescored
from avbench.metrics.table import Metric, known_metrics
from avbench.statistics import paired, power, uncertainty
from avbench.storage.runs.folder import RunFolder
from avbench.storage.workers.contained import contained

MACRO, MICRO = "macro", "micro"
POOLS = (MACRO, MICRO)
TO_TARGET = "distance from the reference's value"
ALIKE, NO_WORSE = "alike", "no worse"
"""What a plan's margin can show, in the column `verdict`."""
NUMBERS = ("difference", "low", "high", "error", "dof", "p", "p_holm", "margin", "pairs", "prompts", "dropped")
COLUMNS = (
    *("subset", "metric", "run", "against", "direction", "unit", "kind", "paired"),
    *("difference", "low", "high", "error", "dof", "p", "p_holm", "family", "primary"),
    *("pairs", "prompts", "dropped", "detectable", "needed", "margin", "p_alike", "p_not_worse", "verdict"),
    *("shown", "better", "missing", "mark", "too_few", "out_of_reach"),
)
CONSTANT = "every clip differs by "
"""Beginning of the remark on a difference without any spread."""
FOLLOWING = ("detectable", "needed", "p_alike", "p_not_worse")


@threadpool_limits.wrap(limits=1)
def differences(
    folders: Sequence[RunFolder],
    *,
    pairs: Iterable[tuple[int, int]] | None = None,
    plan: Plan | None = None,
    place: Path | None = None,
    allow: Sequence[str] = (),
    only: Sequence[Where] | None = None,
    pooled: bool = True,
    metrics: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Compare runs, by every metric that both were scored with; a plan's question that they do not answer is said.

    Args:
        folders: evaluated runs.
        pairs: (run, against) as places in `folders`; where not given, each later run against the first.
        plan: primary questions and margins.
        place: a reference of the user's own, by which the runs are scored again in memory (`rescored`); else the one
            that they were scored with.
        allow: fields in which runs may differ all the same; their rows carry a mark.
        only: these (subset, metric) alone; in others runs may differ.
        pooled: whether to pool subsets as well.
        metrics: names of the metrics to compare by, which are then the family that Holm's correction counts; all for
            None.

    Raises:
        InputError: runs are unlike in a field that is not allowed.
    """
    sides = [Side(folder, metrics) for folder in rescored(folders, place, metrics)]
    plan, place = plan or Plan(), reference_to_use(folders, place)
    wanted = [one for one in plan.asked if (metrics is None or one[1] in metrics) and (only is None or one in only)]
    asked = _Asked(plan, wanted, place, allow, only, pooled)
    rows = [
        {"run": sides[one].made.name, "against": sides[other].made.name, **row}
        for one, other in (pairs_of(len(folders)) if pairs is None else pairs)
        for row in _of_pair(sides[one], sides[other], asked)
    ]
    return sharable(_judged(pd.DataFrame(rows, columns=[*COLUMNS, "contrasts"]), known_metrics(), plan))


def pairs_of(count: int, *, all_pairs: bool = False) -> list[tuple[int, int]]:
    """The pairs (run, against) of places that are compared: each with the first, or every one with all before it."""
    return [(run, against) for run in range(count) for against in range(run if all_pairs else min(run, 1))]


def by_pair(frame: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """(Run, against) → the rows of it that the answer counts; first the pairs of which a difference is shown."""
    groups: Any = of_answer(frame).groupby(["run", "against"], sort=False)
    return dict(sorted(groups, key=lambda pair: True not in {*pair[1]["shown"]}))


def of_answer(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a whole table of differences that the answer counts: on subsets; and over several where a plan asks
    for it, or where the metric is compared over all of them alone, or shows a difference there alone.
    """
    pooled, able = frame["subset"].isin(POOLS), could_be_made(frame)
    primary, shown = frame["primary"].astype(bool), frame["shown"].astype(bool)
    if (able & ~primary).any():  # without a plan all that can be made are primary
        over_several = primary
    else:
        on_one = pd.DataFrame({"able": able & ~pooled, "shown": shown & ~pooled})
        on_one = on_one.groupby([frame[name] for name in ("run", "against", "metric")]).transform("any")
        over_several = (frame["subset"] == MACRO) & able & ~on_one["shown"] & (shown | ~on_one["able"])
    return frame.loc[~pooled | frame["missing"].notna() | over_several]


class Side:
    """What is read of an evaluated run once. Raises InputError if this version lacks a metric that it has."""

    def __init__(self, folder: RunFolder, metrics: Sequence[str] | None) -> None:
        self.folder = folder
        self.made = made(folder, metrics)
        self.scores: dict[Where, Score] = {one.where: one for one in asked_scores(folder, metrics)}
        for score in self.scores.values():
            scored_by(folder, score.metric)  # raises where this version has no such metric
        self.values, self.real = clip_values(folder), real_values(folder)
        self.subsets = {subset.name: subset for subset in folder.subsets()}
        self._columns: dict[tuple[str, str], dict[str, tuple[list[Key], Columns]]] = {}

    def column(self, metric: Metric, subset: str) -> tuple[list[Key], Columns]:
        """The embedding that a metric compares, of a subset's clips that have it, and their keys; read once.

        Raises:
            InputError: the score was computed from rows of another protocol, or from more or fewer rows than there are.
        """
        where = metric.feature, metric.column
        if where not in self._columns:
            rows: dict[str, list[Row]] = {}
            for row in current_rows(self.folder, metric.feature, names=[metric.column]).values():
                rows.setdefault(row.key.subset, []).append(row)
            self._columns[where] = {name: _as_measured(*columns(of_subset)) for name, of_subset in rows.items()}
        keys, found = self._columns[where].get(subset, ([], {}))
        if len(keys) != (counted := self.scores[subset, metric.name].n):
            self._require_current(metric, subset)
            msg = (
                f"{self.folder.path} holds {metric.feature} of {len(keys)} clips of {subset}, but its {metric.name} "
                f"was computed from {counted}: run `avbench evaluate {self.folder.typed}` again"
            )
            raise InputError(msg)
        return keys, found

    def _require_current(self, metric: Metric, subset: str) -> None:
        """Raise InputError if a score was computed from rows of another protocol than the feature has now."""
        _, scored = self.made.protocols[subset, metric.name]
        then, now = without_notes(scored["feature"]), protocol_in(self.folder, metric.feature).values()
        if differing := field_differences(then, now, "{} instead of {}".format):
            anew = how_to_score_anew(self.made.name, metric.name, has_clips=self.made.has_clips)
            msg = (
                f"{metric.name} of {self.made.name} was computed from {metric.feature} of another version or with "
                f"other settings ({'; '.join(differing)}): {anew}"
            )
            raise InputError(msg)


def _as_measured(keys: list[Key], values: Columns) -> tuple[list[Key], Columns]:
    """The same columns, in half the memory: in float32 where that holds them exactly, as networks give no more."""
    with np.errstate(over="ignore"):
        single = {name: column.astype(np.float32) for name, column in values.items() if column.dtype != object}
    return keys, {**values, **{name: column for name, column in single.items() if (column == values[name]).all()}}


@dataclass(frozen=True)
class _Asked:
    """What `differences` asks of every pair of runs."""

    plan: Plan
    questions: Sequence[Where]
    """The plan's, where they are of the metrics and subsets that are compared."""
    place: Path | None
    allow: Sequence[str]
    only: Sequence[Where] | None
    pooled: bool


def _of_pair(run: Side, against: Side, asked: _Asked) -> list[dict[str, Any]]:
    """Rows on subsets, and then over several; each followed by the questions that have no answer there, with why."""
    known, rows = known_metrics(), []
    both = [where for where in against.scores if where in run.scores and (asked.only is None or where in asked.only)]
    protocols = {where: run.made.protocols[where] for where in both}
    marks = check_comparable(replace(run.made, protocols=protocols), against.made, asked.allow)
    for where in both:
        row = _row(scored_by(run.folder, where[1]), where, run, against, asked)
        remarks = [remark for remark in (marks[where], row.pop("remark", None)) if remark]
        rows.append({"subset": where[0], "metric": where[1], "mark": "; ".join(remarks) or None, **row})
    for subset, name in asked.questions:
        if subset not in POOLS and (subset, name) not in both:
            lacking = next(side.made.name for side in (run, against) if (subset, name) not in side.scores)
            kind = kind_of(known[name], *(side.scores.get((subset, name)) for side in (run, against)))
            rows.append({"subset": subset, "metric": name, "kind": kind, "missing": f"{lacking} has no score of it"})
    if not asked.pooled:
        return rows
    for name in dict.fromkeys(name for _, name in both):
        if known[name].per_clip:
            subsets = [subset for subset, metric in both if metric == name]
            rows += [{"metric": name, **row} for row in _pooled(known[name], subsets, run, against, asked.plan)]
    answered = {(row["subset"], row["metric"]) for row in rows}
    for pool, name in asked.questions:
        if pool in POOLS and (pool, name) not in answered:
            why = "no two subsets have it on clips of both" if known[name].per_clip else "distances have no pool"
            rows.append({"subset": pool, "metric": name, "kind": kind_of(known[name]), "missing": why})
    return rows


def _row(metric: Metric, where: Where, run: Side, against: Side, asked: _Asked) -> dict[str, Any]:
    scores = run.scores[where], against.scores[where]
    margin = {"margin": asked.plan.margin(*where)}
    if missing := next((score.missing for score in scores if score.value is None), None):
        return margin | {"kind": kind_of(metric, *scores), "missing": missing}
    if not metric.per_clip:
        found = _of_distance(metric, run, against, against.subsets[where[0]], asked.place)
        if "missing" in found:
            return margin | found
        too_few = metric.too_few(found["pairs"], scores[0].reference_clips) or _too_few(found["prompts"])
        return margin | found | {"too_few": too_few}
    found = _of_clips(metric, where, run, against)
    return margin | found | {"too_few": _too_few(found["prompts"])}


def _too_few(prompts: int) -> str | None:
    if prompts >= paired.LEAST_PROMPTS:
        return None
    return f"{counted(prompts, 'prompt')}: too few to show a difference, at least {paired.LEAST_PROMPTS} are needed"


def kind_of(metric: Metric, *scores: Score | None) -> str:
    """What is compared: the clips' values, their distance from the reference's if a score of ≈ has that, or a distance
    between distributions.
    """
    if metric.direction is Direction.BAND and any(score and score.reference is not None for score in scores):
        return TO_TARGET
    return "clips" if metric.per_clip else "distance"


def common_target(metric: Metric, score: Score, other: Score) -> float | None:
    """The reference's value where it is what is right, and both were held against the same."""
    return score.reference if metric.direction is Direction.BAND and score.reference == other.reference else None


def clip_targets(metric: Metric, where: Where, run: Side, against: Side, prompts: Sequence[str]) -> np.ndarray | None:
    """``[clips]``: the value that clips of these prompts should have, where the metric is compared with one."""
    target = common_target(metric, run.scores[where], against.scores[where])
    return None if target is None else targets(target, prompts, run.real[where], against.real[where])


def _of_clips(metric: Metric, where: Where, run: Side, against: Side) -> dict[str, Any]:
    a, b = run.values[where], against.values[where]
    joined = join(a, b)
    if not joined.prompts:
        of_a, of_b = ([*one.index.get_level_values("prompt")] for one in (a, b))
        goal = clip_targets(metric, where, run, against, [*of_a, *of_b])
        unpaired = paired.unpaired_difference(a.to_numpy(), of_a, b.to_numpy(), of_b, targets=goal)
        return _numbers(unpaired, goal is not None) | {"paired": False}
    goal = clip_targets(metric, where, run, against, joined.prompts)
    found = paired.paired_difference(joined.a, joined.b, joined.prompts, targets=goal)
    return _numbers(found, goal is not None) | {"dropped": joined.dropped}


def _pooled(metric: Metric, subsets: Sequence[str], run: Side, against: Side, plan: Plan) -> Iterator[dict[str, Any]]:
    """The same over all subsets, where there are several that both runs have the metric on."""
    there = [(one, metric.name) for one in subsets]
    there = [where for where in there if where in run.values and where in against.values]
    joined = {where: join(run.values[where], against.values[where]) for where in there}
    joined = {where: one for where, one in joined.items() if one.prompts}
    if len(joined) < 2:
        return
    goals = [clip_targets(metric, where, run, against, one.prompts) for where, one in joined.items()]
    known = [goal for goal in goals if goal is not None]
    every, of_subset = together(joined)
    sizes = {len(one.prompts) for one in joined.values()}
    for pooled in POOLS:
        if pooled == MICRO and len(sizes) == 1 and not plan.names(MICRO, metric.name):
            continue  # of equal sizes they are one
        found = paired.paired_difference(
            every.a,
            every.b,
            every.prompts,
            subsets=of_subset,
            targets=np.concatenate(known) if len(known) == len(goals) else None,
            micro=pooled == MICRO,
        )
        margin = {"dropped": every.dropped, "margin": plan.margin(pooled, metric.name)}
        few = {"too_few": _too_few(found.prompts)}
        yield {"subset": pooled, **_numbers(found, len(known) == len(goals)), **margin, **few}


def _numbers(found: paired.PairedDifference, to_target: bool) -> dict[str, Any]:
    low, high = found.interval or (None, None)
    return {
        "kind": TO_TARGET if to_target else "clips",
        "paired": True,
        "difference": found.value,
        "low": low,
        "high": high,
        "error": found.error,
        "dof": found.dof,
        "p": found.p,
        "pairs": found.pairs,
        "prompts": found.prompts,
        "dropped": 0,
        "contrasts": found.contrasts,
        **({"remark": f"{CONSTANT}{found.value:g}"} if found.constant else {}),
    }


def _of_distance(metric: Metric, a: Side, b: Side, subset: Subset, place: Path | None) -> dict[str, Any]:
    ours, theirs = (side.column(metric, subset.name) for side in (a, b))
    both, either = {*ours[0]} & {*theirs[0]}, {*ours[0]} | {*theirs[0]}
    row: dict[str, Any] = {"kind": "distance", "paired": True, "prompts": len({key.prompt for key in both})}
    used = {side.made.name: side.made.protocols[subset.name, metric.name][1].get("reference") for side in (a, b)}
    try:
        real = reference.find(subset, place)
        if real is None:
            return row | {"missing": f"{subset.name} has no reference"}
        by = [name for name, sha256 in used.items() if sha256 == real.card["sha256"]]
        if not by:
            return row | {"missing": "the reference was built again since the runs were scored: evaluate them again"}
        if len(by) == 1:
            row["remark"] = f"the difference is computed with the reference of {by[0]}"
        with contained():
            found = distances.difference(metric, ours, theirs, real, protocol_in(a.folder, metric.feature), subset)
    except (NotMeasurable, InputError) as reason:
        return row | {"missing": str(reason)}
    except Exception as error:  # as in evaluate: the other metrics have their differences
        return row | {"missing": failed(metric, error)}
    numbers = {"difference": found.value, "p": found.p, "pairs": found.pairs, "dropped": len(either) - len(both)}
    if row["prompts"] > 1:  # clips of one prompt do not show how much prompts differ
        numbers |= {"error": found.error, "dof": found.dof}
    return row | numbers


def _judged(frame: pd.DataFrame, known: dict[str, Metric], plan: Plan) -> pd.DataFrame:
    """Directions, the family, and what follows from it."""
    frame[list(NUMBERS)] = frame[list(NUMBERS)].astype(float)
    size = in_family(frame, known, plan)
    made = [_followed(row, size, plan.alpha) for row in frame.itertuples()]
    followed = pd.DataFrame(made, frame.index, [*FOLLOWING, "verdict", "better"])
    beyond = _out_of_reach(frame, size, plan.alpha)
    frame = frame.assign(**followed.astype(dict.fromkeys(FOLLOWING, float)), out_of_reach=beyond)
    return frame.drop(columns="contrasts")


def _out_of_reach(frame: pd.DataFrame, family: int, alpha: float) -> pd.Series:
    """A sentence where the swaps of so few prompts can show no difference in such a family, however large it is."""
    smallest = np.maximum(2.0 ** (1 - frame["prompts"].to_numpy(float)), 1 / (1 + paired.PERMUTATIONS))
    least = np.where([one is True for one in frame["paired"]], smallest, 0.0)  # p of swaps
    rows = frame["primary"].to_numpy(bool) & could_be_made(frame).to_numpy(bool)
    best = paired.holm(least[rows])
    sentences = pd.Series([None] * len(frame), frame.index, dtype=object)
    for index, prompts in zip(frame.index[rows][best >= alpha], frame["prompts"][rows][best >= alpha], strict=True):
        what, remedy = f"{paired.PERMUTATIONS:,} swaps of labels", "plan fewer questions"
        if family / (1 + paired.PERMUTATIONS) < alpha:
            needed = power.least_prompts(family=family, alpha=alpha)
            what, remedy = counted(int(prompts), "prompt"), f"at least {needed} are needed"
        sentences[index] = (
            f"with a correction for {counted(family, 'comparison')}, {what} can show no difference, however large: "
            f"{remedy}"
        )
    return sentences


def could_be_made(frame: pd.DataFrame) -> pd.Series:
    """Mark the comparisons that can show a difference: they have a p-value, and clips enough for their metric."""
    p, too_few = pd.Series(frame["p"]), pd.Series(frame["too_few"])
    return p.notna() & too_few.isna()


def in_family(frame: pd.DataFrame, known: Mapping[str, Metric], plan: Plan) -> int:
    """Add directions, units, Holm's correction and what is shown to compared rows, and return what the family counts,
    at least 1.

    Comparisons that could not be made are no members: how many clips there are is known before any number, so leaving
    them out causes no false alarm. A plan's questions stay members for as long as they have a p-value, as declared.
    """
    frame["direction"] = [known[name].direction.value for name in frame["metric"]]
    frame["unit"] = [known[name].unit_of_differences for name in frame["metric"]]
    places = zip(frame["subset"], frame["metric"], strict=True)
    candidates = frame["p"].notna() if plan.questions else could_be_made(frame)
    primary = np.array([plan.primary(subset, metric) for subset, metric in places]) & candidates
    frame["primary"], frame["family"] = primary, primary.sum()
    frame.loc[primary, "p_holm"] = paired.holm(frame.loc[primary, "p"])
    frame["shown"] = (frame["p_holm"] < plan.alpha) & (frame["difference"] != 0) & frame["too_few"].isna()
    return max(1, int(primary.sum()))


def _followed(row: Any, family: int, alpha: float) -> dict[str, Any]:
    """What follows from a row's difference and error."""
    if np.isnan(row.error):
        return dict.fromkeys(("better", "detectable", "needed", "p_alike", "p_not_worse", "verdict"))
    values, errors = row.difference, row.error
    found = power.detectable(row.error, freedom(row), family=family, alpha=alpha)
    if row.kind == TO_TARGET and found is not None:  # the side of the reference's value must be shown, too
        values, errors = row.contrasts.values, row.contrasts.errors
        found = power.detectable_farther(row.contrasts.as_seen(), 0.0, level=alpha / family / 2)
    return {
        "better": better(row),
        "detectable": found,
        "needed": power.prompts_needed(values, errors, int(row.prompts), family=family, alpha=alpha),
        **against_margin(row, alpha),
    }


def against_margin(row: Any, alpha: float) -> dict[str, Any]:
    """The p-values of "they differ by the margin or more" and of "the run is worse by the margin or more"; none where
    there are too few clips. They are not corrected for the number of comparisons.
    """
    if np.isnan(row.margin) or isinstance(row.too_few, str):
        return dict.fromkeys(("p_alike", "p_not_worse", "verdict"))
    alike = paired.equivalence(row.difference, row.error, freedom(row), row.margin)
    not_worse = paired.tail(paired.above(row.margin, worsening(row)), row.error, freedom(row))
    verdict = ALIKE if alike < alpha else NO_WORSE if not_worse < alpha else None
    if row.kind == TO_TARGET:  # the interval alone knows of the reference's other side
        if row.high >= row.margin:
            verdict = None
        elif row.low <= -row.margin and verdict == ALIKE:
            verdict = NO_WORSE
    return {"p_alike": alike, "p_not_worse": not_worse, "verdict": verdict}


def freedom(row: Any) -> float:
    """Degrees of freedom of a row's error; of a distance without a t test those of the jackknife's groups."""
    return min(row.prompts, uncertainty.GROUPS) - 1 if np.isnan(row.dof) else row.dof


def sided(row: Any) -> bool:
    """Whether a side is better: not of what should be neither high nor low, nor of ≈ without a common reference."""
    return row.direction != Direction.NEITHER and (row.direction != Direction.BAND or row.kind == TO_TARGET)


def worsening(row: Any) -> float:
    """By how much the run of a row is worse than the other; without a better side, how far it is off."""
    if not sided(row):
        return abs(row.difference)
    return -row.difference if row.direction == Direction.HIGHER else row.difference


def better(row: Any) -> str | None:
    """The run of a row that is shown to be better, if one is."""
    if not row.shown or not sided(row):
        return None
    return row.against if worsening(row) > 0 else row.run
