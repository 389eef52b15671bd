"""Compares arms: recipes that were trained several times, each training a run of its own on the same prompts.

A difference between arms has two sources of luck, the training and the prompt; `statistics.trainings` accounts for
both. Tables have one row per (subset, metric, arm, arm it is held against), with the columns of
`differences.differences` where they mean the same. Subsets are not pooled.

Values are means over clips, where each prompt counts once, whatever the number of its clips. Where the reference's
value is right (≈), differences are those of the distances from it. A distance between distributions is one number per
training; what is said of it is about other trainings on the same prompts.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from avbench.comparison.differences import (
    TO_TARGET,
    Side,
    against_margin,
    better,
    common_target,
    in_family,
    kind_of,
)
from avbench.comparison.plan import Plan
from avbench.comparison.score_table import Where, check_comparable
from avbench.core import InputError, checked_id, nearest
from avbench.metrics.table import Metric, known_metrics
from avbench.statistics import paired, trainings
from avbench.storage.run_folder import RunFolder
from avbench.storage.run_view import RunView

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
    *("detectable", "needed_trainings", "needed_prompts", "margin", "p_alike", "p_not_worse", "verdict", "better"),
    *("missing", "mark", "too_few"),
)
FOLLOWING = ("detectable", "needed_trainings", "needed_prompts", "p_alike", "p_not_worse", "verdict", "better")
ARM_COLUMNS = (
    *("subset", "metric", "model", "value", "low", "high", "spread", "trainings", "prompts"),
    *("reference", "direction", "unit", "missing", "too_few"),
)
TRAINING_COLUMNS = ("subset", "metric", "arm", "training", "place", "value", "clips")


@dataclass(frozen=True, eq=False)
class Arm:
    """Trainings of one recipe, in the order of their names. Raises InputError unless there are at least two."""

    name: str
    trainings: tuple[RunFolder, ...]

    def __post_init__(self) -> None:
        checked_id(self.name, "the name of an arm")
        if len(self.trainings) < trainings.LEAST_TRAININGS:
            found = ", ".join(str(folder.path) for folder in self.trainings)
            msg = (
                f"{self.name} has one training ({found}): how much trainings differ cannot be known from one; give at "
                f"least {trainings.LEAST_TRAININGS}, or compare single runs, without NAME="
            )
            raise InputError(msg)

    @property
    def labels(self) -> list[int | None]:
        """The number that each training's name ends in."""
        ends = [re.search(r"(\d+)$", folder.path.name) for folder in self.trainings]
        return [int(end[1]) if end else None for end in ends]


@dataclass(frozen=True, eq=False)
class ArmTables:
    """Arms side by side."""

    arms: pd.DataFrame
    """One row per (subset, metric, model), where the model is the arm: ARM_COLUMNS."""
    trainings: pd.DataFrame
    """One row per (subset, metric, arm, training): TRAINING_COLUMNS. `place` counts an arm's trainings from 0."""
    differences: pd.DataFrame
    """One row per (subset, metric, run, against): COLUMNS."""
    notes: list[str]
    """How trainings were paired, one sentence per pair of arms."""


def opened_arms(groups: Mapping[str, str | Path | Sequence[str | Path]]) -> list[Arm]:
    """Open the trainings of each arm: name → paths of run folders, or patterns such as ``runs/a-*``.

    Raises:
        InputError: a pattern matches no run folder, a run is given twice, or an arm has fewer than two trainings.
    """
    owners: dict[Path, str] = {}
    arms = []
    for name, given in groups.items():
        places = [place for one in ([given] if isinstance(given, str | Path) else given) for place in _expanded(one)]
        for place in places:
            if (owner := owners.setdefault(place.resolve(), name)) != name or places.count(place) > 1:
                where = f"twice in {name}" if owner == name else f"in {owner} and in {name}"
                msg = f"{place} is {where}; a training counts once"
                raise InputError(msg)
        arms.append(Arm(name, tuple(RunView(place) for place in sorted(places, key=_natural))))
    return arms


@threadpool_limits.wrap(limits=1)
def compared_arms(
    arms: Sequence[Arm],
    *,
    pairs: Iterable[tuple[int, int]] | None = None,
    plan: Plan | None = None,
    allow: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
    paired_trainings: bool | None = None,
) -> ArmTables:
    """Compare arms by every metric that their trainings were scored with.

    Args:
        arms: at least two.
        pairs: (arm, against) as places in `arms`; where not given, each later arm against the first.
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
    rows, notes = [], []
    for one, other in pairs if pairs is not None else [(place, 0) for place in range(1, len(arms))]:
        order, sentence = pairing(arms[one], arms[other], paired_trainings)
        notes.append(sentence)
        rows += _rows(read[one], read[other], order, plan, allow)
    parts = [row.pop("components", None) for row in rows]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame[list(FLOATS)] = frame[list(FLOATS)].astype(float)
    family = in_family(frame, known, plan)
    followed = [_followed(*one, family, plan.alpha) for one in zip(frame.itertuples(), parts, strict=True)]
    for name in FOLLOWING:
        column = pd.Series([one.get(name) for one in followed], frame.index, dtype=object)
        frame[name] = column.astype(float) if name in FLOATS else column
    return ArmTables(
        pd.DataFrame([row for one in read for row in one.arm_rows(known)], columns=list(ARM_COLUMNS)),
        pd.DataFrame([row for one in read for row in one.training_rows(known)], columns=list(TRAINING_COLUMNS)),
        frame,
        list(dict.fromkeys(notes)),
    )


def pairing(arm: Arm, against: Arm, asked: bool | None = None) -> tuple[list[int] | None, str]:
    """For each training of `arm` the place of its partner in `against`, or None without pairs; and a sentence.

    Partners end in the same number (``a-0`` and ``b-0``); where names do not, they have the same place in the order of
    the names. Without equal numbers of trainings there are no pairs.

    Raises:
        InputError: pairs are asked for, and the arms have different numbers of trainings.
    """
    names, sizes = f"{arm.name} and {against.name}", (len(arm.trainings), len(against.trainings))
    if asked is False:
        return None, f"Trainings of {names} are not paired, as asked."
    if sizes[0] != sizes[1]:
        if asked:
            msg = f"trainings of {names} cannot be paired: there are {sizes[0]} and {sizes[1]}"
            raise InputError(msg)
        return None, f"Trainings of {names} are not paired: there are {sizes[0]} and {sizes[1]}."
    ours, theirs = arm.labels, against.labels
    if None not in ours and len(set(ours)) == len(ours) and set(ours) == set(theirs):
        shown = ", ".join(map(str, ours))
        return [theirs.index(label) for label in ours], (
            f"Trainings of {names} are paired by the number that their names end in ({shown})."
        )
    ends = f"{against.trainings[0].path.name} with {arm.trainings[0].path.name}"
    return list(range(sizes[0])), f"Trainings of {names} are paired in the order of their names ({ends}, and so on)."


class _Read:
    """An arm whose trainings were read and found alike."""

    def __init__(self, arm: Arm, metrics: Sequence[str] | None, allow: Sequence[str]) -> None:
        self.arm = arm
        self.sides = [Side(folder, metrics) for folder in arm.trainings]
        _require_alike(arm, self.sides, allow)
        self.wheres: list[Where] = list(self.sides[0].scores)

    def missing(self, where: Where) -> str | None:
        """Why a training has no value, with its name; None if all have one."""
        lacking = [(side.made.name, side.scores[where].missing) for side in self.sides]
        return next((f"{why} (in {name})" for name, why in lacking if why is not None), None)

    def target(self, metric: Metric, where: Where) -> float | None:
        """The reference's value, if it is what is right and is the same for all trainings."""
        first = self.sides[0].scores[where]
        targets = {common_target(metric, first, side.scores[where]) for side in self.sides}
        return targets.pop() if len(targets) == 1 else None

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

    def arm_rows(self, known: Mapping[str, Metric]) -> Iterator[dict[str, Any]]:
        """Rows of ArmTables.arms."""
        for where in self.wheres:
            metric = known[where[1]]
            row = {"subset": where[0], "metric": where[1], "model": self.arm.name, "trainings": len(self.sides)}
            row |= {"direction": metric.direction.value, "unit": metric.unit, "missing": self.missing(where)}
            if row["missing"] is None:
                table = self.table(metric, where)
                found = trainings.arm_mean(table)
                row |= {"value": found.value, "low": found.interval[0], "high": found.interval[1]}
                row |= {"spread": _spread(table), "reference": self.target(metric, where)}
                row["too_few"] = None if metric.per_clip else self.too_few(metric, where)
                row["prompts"] = table.shape[1] if metric.per_clip else None
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


def _require_alike(arm: Arm, sides: Sequence[Side], allow: Sequence[str]) -> None:
    """Raise InputError unless trainings have the same prompts, metrics and protocols, and are not one training."""
    first = sides[0]
    keys, seen = {*first.folder.planned_keys()}, {}
    for side in sides:
        both = f"{side.made.name} and {first.made.name}, trainings of {arm.name},"
        if unlike := keys ^ {*side.folder.planned_keys()}:
            key = min(unlike)
            owner = first if key in keys else side
            msg = (
                f"{both} do not have the same clips: only {owner.made.name} has {key.subset} {key.prompt}-{key.seed}"
                f" ({len(unlike)} clips in all); sample them with the same subsets, views, limit and seeds"
            )
            raise InputError(msg)
        if lacking := sorted(first.scores.keys() ^ side.scores.keys()):
            owner = first if lacking[0] in first.scores else side
            msg = (
                f"{both} do not have the same metrics: only {owner.made.name} has {lacking[0][1]} on {lacking[0][0]}; "
                "`avbench measure` and `avbench evaluate` add it to the other, or --metric names those to compare by"
            )
            raise InputError(msg)
        check_comparable(side.made, first.made, allow)
        clips = frozenset(sample.sha256 for sample in side.folder.samples().values() if sample.sha256)
        if clips and clips in seen:
            msg = f"{side.folder.path} and {seen[clips]} hold the same clips: they are one training, which counts once"
            raise InputError(msg)
        seen[clips] = side.folder.path


def _rows(
    run: _Read, against: _Read, order: list[int] | None, plan: Plan, allow: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Rows of ArmTables.differences of two arms, each with its `components`."""
    every = [check_comparable(side.made, against.sides[0].made, allow) for side in run.sides]
    names = {"run": run.arm.name, "against": against.arm.name}
    for where in dict.fromkeys([*against.wheres, *((one.subset, one.metric) for one in plan.questions)]):
        row = {"subset": where[0], "metric": where[1], **names, "margin": plan.margin(*where)}
        metric = known_metrics()[where[1]]
        lacking = next((one.arm.name for one in (run, against) if where not in one.wheres), None)
        if lacking is None:
            found = _row(metric, where, run, against, order)
            remarks = dict.fromkeys([*(marks[where] for marks in every), found.pop("remark", None)])
            yield row | found | {"mark": "; ".join(remark for remark in remarks if remark) or None}
        elif plan.names(*where):
            yield row | {"kind": kind_of(metric), "missing": f"{lacking} has no score of it"}


def _row(metric: Metric, where: Where, run: _Read, against: _Read, order: list[int] | None) -> dict[str, Any]:
    kind = {"kind": kind_of(metric)}
    if missing := run.missing(where) or against.missing(where):
        return kind | {"missing": missing}
    if not metric.per_clip:
        prompts = {key.prompt for key in run.sides[0].folder.planned_keys() if key.subset == where[0]}
        found = _numbers(run.table(metric, where), against.table(metric, where), order, None)
        too_few = run.too_few(metric, where) or against.too_few(metric, where)
        remark = _unequal_clips(where, [*run.sides, *against.sides])
        return kind | found | {"prompts": len(prompts), "too_few": too_few, "remark": remark}
    target = run.target(metric, where)
    if target is None or target != against.target(metric, where):
        target = None
    else:
        kind["kind"] = TO_TARGET
    ours, theirs = run.by_prompt(where), against.by_prompt(where)
    prompts = ours.columns.union(theirs.columns)
    a, b = (frame.reindex(columns=prompts).to_numpy(float) for frame in (ours, theirs))
    try:
        return kind | _numbers(a, b, order, target)
    except InputError as reason:  # gaps leave a training without a value
        return kind | {"missing": str(reason)}


def _numbers(a: np.ndarray, b: np.ndarray, order: list[int] | None, target: float | None) -> dict[str, Any]:
    if order is not None:
        b = b[order]
    found = trainings.arm_difference(a, b, paired_rows=order is not None, target=target)
    parts, gaps = found.components, float(np.mean([np.isnan(table).mean() for table in (a, b)]))
    row = {
        "trainings": found.trainings[0],
        "trainings_against": found.trainings[1],
        "prompts": found.prompts,
        "paired": found.paired,
        "dropped": np.count_nonzero(np.isnan(a) != np.isnan(b)) if found.paired else 0,
        "spread": _spread(a),
        "spread_against": _spread(b),
    }
    if a.shape[1] > 1 and found.prompts < paired.LEAST_PROMPTS:
        return row | {"missing": f"{found.prompts} prompts are too few: at least {paired.LEAST_PROMPTS} are needed"}
    remarks = [
        f"{gaps:.0%} of the values, one per prompt and training, are missing" if gaps else "",
        f"every training differs by {found.value:g}" if found.constant else "",
    ]
    return row | {
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


def _unequal_clips(where: Where, sides: Sequence[Side]) -> str | None:
    counts = {side.scores[where].n for side in sides}
    if len(counts) == 1:
        return None
    return f"a distance depends on the number of clips, and these trainings have {min(counts)} to {max(counts)}"


def _followed(row: Any, parts: trainings.Components | None, family: int, alpha: float) -> dict[str, Any]:
    """What follows from a row's difference and error."""
    if parts is None:
        return {}
    size, counted = abs(row.difference), {"family": family, "alpha": alpha}
    fewer = int(min(row.trainings, row.trainings_against))
    return {
        "detectable": paired.detectable(row.error, row.dof, **counted),
        "needed_trainings": parts.trainings_needed(size, int(row.prompts), **counted),
        "needed_prompts": parts.prompts_needed(size, fewer, **counted),
        "better": better(row, alpha),
        **against_margin(row, alpha),
    }


def _spread(table: np.ndarray) -> float:
    """Standard deviation of the trainings' means."""
    return float(np.nanmean(table, axis=1).std(ddof=1))


def _expanded(given: str | Path) -> list[Path]:
    """The run folders that a path or a pattern names."""
    place = Path(given).expanduser()
    if place.exists() or not has_magic(str(place)):
        return [place]
    pattern = str(place.relative_to(place.anchor))
    found = [one for one in Path(place.anchor).glob(pattern) if (one / "run.json").is_file()]
    if not found:
        there = [one.parent.name for one in place.parent.glob("*/run.json")]
        msg = f"no run folder matches {given}; {nearest(place.name, there)}"
        raise InputError(msg)
    return found


def _natural(place: Path) -> list[str | int]:
    """Orders a-2 before a-10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(place))]
