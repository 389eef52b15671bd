"""Tests arms against each other by every metric, with both sources of luck: the training and the prompt.

Tables have one row per (subset, metric, arm, arm it is held against), with the columns of `differences.differences`
where they mean the same; the statistics are those of `statistics.trainings`. Subsets are not pooled.

Values are means over clips, where each prompt counts once, whatever the number of its clips. Where the reference's
value is right (≈), differences are those of the distances from it. A distance between distributions is one number per
training; what is said of it is about other trainings on the same prompts.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from avbench.comparison.arms import Arm, pairing, require_alike, trainings_of, unlike_models
from avbench.comparison.differences import (
    POOLS,
    TO_TARGET,
    Side,
    against_margin,
    better,
    common_target,
    in_family,
    kind_of,
    pairs_of,
)
from avbench.comparison.plan import Plan
from avbench.comparison.score_table import Where, check_comparable, targets, unknown_metrics
from avbench.core import InputError
from avbench.metrics.table import Metric, known_metrics
from avbench.statistics import paired, power, trainings

FLOATS = (
    *("difference", "low", "high", "error", "dof", "p", "p_holm", "p_exact", "least_p", "trainings"),
    *("trainings_against", "prompts", "dropped", "spread", "spread_against", "sd_training", "sd_prompt", "sd_rest"),
    *("detectable", "needed_trainings", "needed_prompts", "margin", "p_alike", "p_not_worse"),
)
COLUMNS = (
    *("subset", "metric", "run", "against", "direction", "unit", "kind", "paired"),
    *("difference", "low", "high", "error", "dof", "p", "p_holm", "family", "primary", "p_exact", "least_p"),
    *("trainings", "trainings_against", "prompts", "dropped"),
    *("spread", "spread_against", "sd_training", "sd_prompt", "sd_rest"),
    *("detectable", "needed_trainings", "needed_prompts", "margin", "p_alike", "p_not_worse", "verdict"),
    *("shown", "better", "missing", "mark", "too_few"),
)
FOLLOWING = ("detectable", "needed_trainings", "needed_prompts", "p_alike", "p_not_worse", "verdict", "better")
SCORE_COLUMNS = (
    *("subset", "metric", "model", "value", "low", "high", "spread", "trainings", "prompts"),
    *("reference", "direction", "unit", "missing", "too_few", "clips", "unmeasured"),
)
TRAINING_COLUMNS = ("subset", "metric", "arm", "training", "place", "value", "clips")


@dataclass(frozen=True, eq=False)
class ArmTables:
    """Arms side by side."""

    scores: pd.DataFrame
    """One row per (subset, metric, model), where the model is the arm: SCORE_COLUMNS."""
    trainings: pd.DataFrame
    """One row per (subset, metric, arm, training): TRAINING_COLUMNS. `place` counts an arm's trainings from 0."""
    differences: pd.DataFrame
    """One row per (subset, metric, run, against): COLUMNS."""
    notes: list[str]
    """Which trainings an arm has, what makes it doubtful, and how they were paired: one sentence each."""


@threadpool_limits.wrap(limits=1)
def arm_differences(
    arms: Sequence[Arm],
    *,
    all_pairs: bool = False,
    plan: Plan | None = None,
    allow: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
    paired_trainings: bool | None = None,
) -> ArmTables:
    """Compare arms by every metric that their trainings were scored with.

    Args:
        arms: at least two.
        all_pairs: whether every arm is compared with every other, instead of each with the first.
        plan: primary questions and margins.
        allow: fields in which runs may differ all the same; such rows carry a mark.
        metrics: names of the metrics to compare by, which are then the family; all for None.
        paired_trainings: whether trainings are held against a partner; None pairs them where `pairing` can.

    Raises:
        InputError: trainings of an arm differ in prompts, metrics or protocol, or arms differ in a field that is not
            allowed.
    """
    plan, known = plan or Plan(), known_metrics()
    if len(arms) < 2:
        msg = f"{len(arms)} arm was given; give at least two, as in A=runs/a-* B=runs/b-*"
        raise InputError(msg)
    read = [_Read(arm, metrics, allow) for arm in arms]
    rows, notes = [], [*map(trainings_of, arms), *(sentence for arm in arms if (sentence := unlike_models(arm)))]
    notes += unknown_metrics([folder for arm in arms for folder in arm.trainings], metrics)
    for one, other in pairs_of(len(arms), all_pairs=all_pairs):
        order, sentence = pairing(arms[one], arms[other], paired_trainings)
        notes.append(sentence)
        rows += _rows(read[one], read[other], order, plan, allow)
    rows = [row for row in rows if metrics is None or row["metric"] in metrics]
    parts = [row.pop("components", None) for row in rows]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame[list(FLOATS)] = frame[list(FLOATS)].astype(float)
    family = in_family(frame, known, plan)
    followed = [_followed(*one, family, plan.alpha) for one in zip(frame.itertuples(), parts, strict=True)]
    for name in FOLLOWING:
        column = pd.Series([one.get(name) for one in followed], frame.index, dtype=object)
        frame[name] = column.astype(float) if name in FLOATS else column
    return ArmTables(
        pd.DataFrame([row for one in read for row in one.score_rows(known)], columns=list(SCORE_COLUMNS)),
        pd.DataFrame([row for one in read for row in one.training_rows(known)], columns=list(TRAINING_COLUMNS)),
        frame,
        list(dict.fromkeys(notes)),
    )


class _Read:
    """An arm whose trainings were read and found alike."""

    def __init__(self, arm: Arm, metrics: Sequence[str] | None, allow: Sequence[str]) -> None:
        self.arm = arm
        self.sides = [Side(folder, metrics) for folder in arm.trainings]
        require_alike(arm, self.sides, allow)
        self.wheres: list[Where] = list(self.sides[0].scores)

    def missing(self, where: Where) -> str | None:
        """Why a training has no value, with its name; None if all have one."""
        lacking = [(side.made.name, side.scores[where].missing) for side in self.sides]
        return next((f"{why} (in {name})" for name, why in lacking if why is not None), None)

    def target(self, metric: Metric, where: Where) -> float | None:
        """The reference's value, if it is what is right and is the same for all trainings."""
        first = self.sides[0].scores[where]
        found = {common_target(metric, first, side.scores[where]) for side in self.sides}
        return found.pop() if len(found) == 1 else None

    def by_prompt(self, where: Where) -> pd.DataFrame:
        """One row per training, one column per prompt: the mean of the prompt's clips, NaN where it has none."""
        return pd.DataFrame([side.values[where].groupby(level="prompt").mean() for side in self.sides])

    def table(self, metric: Metric, where: Where) -> np.ndarray:
        """``[trainings, prompts]``, or ``[trainings, 1]`` of a distance."""
        if metric.per_clip:
            return self.by_prompt(where).to_numpy(float)
        return np.array([[side.scores[where].value] for side in self.sides], dtype=float)

    def too_few(self, metric: Metric, where: Where) -> str | None:
        """Whether a training's distance rests on too few clips, in a sentence."""
        scores = [side.scores[where] for side in self.sides]
        return next(filter(None, (metric.too_few(score.n, score.reference_clips) for score in scores)), None)

    def score_rows(self, known: Mapping[str, Metric]) -> Iterator[dict[str, Any]]:
        """Rows of ArmTables.scores."""
        for where in self.wheres:
            metric = known[where[1]]
            row = {"subset": where[0], "metric": where[1], "model": self.arm.name, "trainings": len(self.sides)}
            row |= {"direction": metric.direction.value, "unit": metric.unit, "missing": self.missing(where)}
            if row["missing"] is None:
                table = self.table(metric, where)
                found = trainings.arm_mean(table)
                row |= {"value": found.value, "low": found.interval[0], "high": found.interval[1]}
                row |= {"spread": _spread(table), "reference": self.target(metric, where)}
                row["too_few"] = self.too_few(metric, where)
                row["prompts"] = table.shape[1] if metric.per_clip else None
                row["clips"] = sum(side.scores[where].n for side in self.sides)
                row["unmeasured"] = sum(side.scores[where].unmeasured for side in self.sides)
            yield row

    def training_rows(self, known: Mapping[str, Metric]) -> Iterator[dict[str, Any]]:
        """Rows of ArmTables.trainings."""
        for where in self.wheres:
            values = itertools.repeat(np.nan)
            if self.missing(where) is None:
                values = np.nanmean(self.table(known[where[1]], where), axis=1)
            for place, (side, value) in enumerate(zip(self.sides, values, strict=False)):
                score = side.scores[where]
                row = {"subset": where[0], "metric": where[1], "arm": self.arm.name, "training": side.made.name}
                yield row | {"place": place, "value": float(value), "clips": score.n}


def _rows(
    run: _Read, against: _Read, order: list[int] | None, plan: Plan, allow: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Rows of ArmTables.differences of two arms, each with its `components`."""
    every = [check_comparable(one.made, other.made, allow) for one in run.sides for other in against.sides]
    names = {"run": run.arm.name, "against": against.arm.name}
    for where in dict.fromkeys([*against.wheres, *plan.asked]):
        row = {"subset": where[0], "metric": where[1], **names, "margin": plan.margin(*where)}
        metric = known_metrics()[where[1]]
        lacking = next((one.arm.name for one in (run, against) if where not in one.wheres), None)
        if lacking is None:
            found = _row(metric, where, run, against, order)
            remarks = dict.fromkeys([*(marks[where] for marks in every), found.pop("remark", None)])
            yield row | found | {"mark": "; ".join(remark for remark in remarks if remark) or None}
        elif plan.names(*where):
            why = f"{lacking} has no score of it"
            if where[0] in POOLS:
                why = "arms are compared on each subset, not over several"
            yield row | {"kind": kind_of(metric), "missing": why}


def _row(metric: Metric, where: Where, run: _Read, against: _Read, order: list[int] | None) -> dict[str, Any]:
    if missing := run.missing(where) or against.missing(where):
        scores = [side.scores[where] for side in (*run.sides, *against.sides)]
        return {"kind": kind_of(metric, *scores), "missing": missing}
    kind = {"kind": kind_of(metric)}
    if not metric.per_clip:
        samples = run.sides[0].folder.samples().values()
        prompts = {one.key.prompt for one in samples if one.path and one.key.subset == where[0]}
        counts = {side.scores[where].n for side in (*run.sides, *against.sides)}
        if len(counts) > 1:
            unequal = f"trainings with {min(counts)} to {max(counts)} clips: a distance depends on their number"
            return kind | {"missing": unequal, "prompts": len(prompts)}
        found = _numbers(run.table(metric, where), against.table(metric, where), order, None)
        too_few = run.too_few(metric, where) or against.too_few(metric, where)
        return kind | found | {"prompts": len(prompts), "too_few": too_few}
    target = run.target(metric, where)
    if target is None or target != against.target(metric, where):
        target = None
    else:
        kind["kind"] = TO_TARGET
    ours, theirs = run.by_prompt(where), against.by_prompt(where)
    prompts = ours.columns.union(theirs.columns)
    a, b = (frame.reindex(columns=prompts).to_numpy(float) for frame in (ours, theirs))
    goal = None
    if target is not None:
        goal = targets(target, [*prompts], *(side.real[where] for side in (*run.sides, *against.sides)))
    try:
        found = _numbers(a, b, order, goal)
    except InputError as reason:  # gaps leave a training without a value
        return kind | {"missing": str(reason)}
    if found["prompts"] < paired.LEAST_PROMPTS:
        few = f"{found['prompts']} prompts are too few: at least {paired.LEAST_PROMPTS} are needed"
        return kind | {"missing": few, "prompts": found["prompts"]}
    return kind | found


def _numbers(a: np.ndarray, b: np.ndarray, order: list[int] | None, goal: np.ndarray | None) -> dict[str, Any]:
    if order is not None:
        b = b[order]
    found = trainings.arm_difference(a, b, paired_rows=order is not None, targets=goal)
    parts, gaps = found.components, float(np.mean([np.isnan(table).mean() for table in (a, b)]))
    remarks = [
        f"{gaps:.0%} of the values, one per prompt and training, are missing" if gaps else "",
        f"every training differs by {found.value:g}" if found.constant else "",
    ]
    return {
        "trainings": found.trainings[0],
        "trainings_against": found.trainings[1],
        "prompts": found.prompts,
        "paired": found.paired,
        "dropped": np.count_nonzero(np.isnan(a) != np.isnan(b)) if found.paired else _of_one_arm(a, b),
        "spread": _spread(a),
        "spread_against": _spread(b),
        "difference": found.value,
        "low": found.interval[0],
        "high": found.interval[1],
        "error": found.error,
        "dof": found.dof,
        "p": found.p,
        "p_exact": found.p_exact,
        "least_p": found.least_p,
        "sd_training": np.sqrt(parts.training),
        "sd_prompt": np.sqrt(parts.prompt) if parts.crossed else None,
        "sd_rest": np.sqrt(parts.rest) if parts.crossed else None,
        "components": parts,
        "remark": "; ".join(filter(None, remarks)) or None,
    }


def _of_one_arm(a: np.ndarray, b: np.ndarray) -> int:
    """How many values are of prompts that the other arm has none of."""
    in_a, in_b = ~np.isnan(a), ~np.isnan(b)
    return int(in_a[:, ~in_b.any(0)].sum() + in_b[:, ~in_a.any(0)].sum())


def _followed(row: Any, parts: trainings.Components | None, family: int, alpha: float) -> dict[str, Any]:
    """What follows from a row's difference and error."""
    if parts is None:
        return {}
    size, counted = abs(row.difference), {"family": family, "alpha": alpha}
    fewer = int(min(row.trainings, row.trainings_against))
    return {
        "detectable": power.detectable(row.error, row.dof, **counted),
        "needed_trainings": parts.trainings_needed(size, int(row.prompts), **counted),
        "needed_prompts": parts.prompts_needed(size, fewer, **counted),
        "better": better(row),
        **against_margin(row, alpha),
    }


def _spread(table: np.ndarray) -> float:
    """Standard deviation of the trainings' means; 0 if they differ by rounding alone."""
    means = np.nanmean(table, axis=1)
    return float(means.std(ddof=1)) if np.ptp(means) > 1e-9 * np.abs(means).max() else 0.0
