"""Plans a comparison from a pilot: the smallest difference that a number of prompts and seeds would find.

The spread is estimated from pilot runs. From two runs it is the spread of their paired differences, between prompts and
between seeds of a prompt. From one run it is the spread of its own values: the planned runs are then assumed to share
nothing of a prompt, which is the worst case of pairing; only two runs show how much they share. With one seed per
prompt the two spreads cannot be separated, so no number of seeds can be planned.

A ≈ metric compares distances from the reference's value, and its test has to show on which side of that value the runs
lie, too (see `statistics.paired`). Where they will lie cannot be known before: they are taken to lie on one side, their
middle as far from the value as that of the pilots at least is (the near end of its 95 % interval). Runs on either side,
or nearer to it, need more.

Pilot arms, with several trainings each, give the spread between trainings as well (`planned_arms`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from avbench.comparison.differences import TO_TARGET, common_target
from avbench.comparison.score_table import (
    Where,
    check_comparable,
    clip_values,
    join,
    made,
    real_values,
    scored_by,
    targets,
)
from avbench.core import InputError
from avbench.statistics import power, trainings, uncertainty
from avbench.storage.runs.folder import RunFolder

COLUMNS = ("subset", "metric", "kind", "prompts", "seeds", "detectable", "between", "within", "middle", "pilot")
"""Of `planned`."""


def planned(
    folders: Sequence[RunFolder], prompts: Sequence[int], seeds: Sequence[int], family: int = 1
) -> pd.DataFrame:
    """One row per (subset, metric, prompts, seeds): the smallest true difference that 80 % of such experiments find;
    none where so few prompts can show no difference, however large, or where the pilots have no spread.

    `kind` says of what: of the values, or of their distances from the reference's value; then `middle` is how far from
    it the middle of the runs is taken to lie. `between` and `within` are the spreads of the difference of the values,
    and `pilot` is the number of prompts that they are estimated from.

    Args:
        folders: one pilot run, or two.
        prompts: numbers of prompts to plan for.
        seeds: numbers of seeds to plan for.
        family: number of comparisons in Holm's correction; the plan is for the one that is tested first.

    Raises:
        InputError: more than two runs, two that cannot be compared, or no value to plan from.
    """
    if len(folders) > 2:
        msg = f"{len(folders)} pilot runs were given; give one, or two whose clips are paired"
        raise InputError(msg)
    values, real = ([read(folder) for folder in folders] for read in (clip_values, real_values))
    if len(folders) == 2:
        check_comparable(made(folders[0]), made(folders[1]), allow=None)
    rows = []
    for subset, metric in values[0]:
        if (subset, metric) not in values[-1]:
            continue
        one = join(values[0][subset, metric], values[-1][subset, metric])
        if len(set(one.prompts)) < 2:
            continue
        target = _target(folders, (subset, metric))
        goal = None if target is None else targets(target, one.prompts, *(each[subset, metric] for each in real))
        off = (one.a + one.b) / 2 - (0.0 if goal is None else goal)
        if len(folders) == 2:
            apart, together = (power.spreads(both, one.prompts) for both in (one.a - one.b, 2 * off))
        else:  # of the difference, and of the sum, of two such runs that share nothing of a prompt
            of_one, of_off = (power.spreads(each, one.prompts) for each in (one.a, off))
            apart, together = (
                (between * np.sqrt(2), within and within * np.sqrt(2)) for between, within in (of_one, of_off)
            )
        middle = None if goal is None else _least(off, one.prompts)
        known = {"between": apart[0], "within": apart[1], "middle": middle, "pilot": len(set(one.prompts))}
        for count in seeds if apart[1] is not None else [1]:
            spread, of_sum = (np.hypot(part, (rest or 0.0) / np.sqrt(count)) for part, rest in (apart, together))
            for number in prompts:
                if number < power.least_prompts(family=family):
                    found = None
                elif middle is None:
                    found = power.detectable(spread / np.sqrt(number), number - 1, family=family)
                else:
                    found = power.detectable_to_target(spread, of_sum, middle, number, family=family)
                of = {"subset": subset, "metric": metric, "kind": "clips" if middle is None else TO_TARGET}
                plan = {"prompts": number, "seeds": count, "detectable": found}
                rows.append({**of, **plan, **known})
    if not rows:
        where, remedy = folders[0].name, "give a run of more prompts"
        if len(folders) == 2:
            where = f"the clips that both {folders[0].name} and {folders[1].name} have"
            remedy = "give two runs with the same prompts and seeds, or one run alone"
        msg = f"nothing can be planned, because no metric has values of two prompts in {where}: {remedy}"
        raise InputError(msg)
    return pd.DataFrame(rows, columns=[*COLUMNS])


def _target(folders: Sequence[RunFolder], where: Where) -> float | None:
    """The reference's value; None where values are compared."""
    scores = [one for folder in folders for one in folder.scores() if one.where == where]
    return common_target(scored_by(folders[0], where[1]), scores[0], scores[-1])


def _least(off: np.ndarray, prompts: Sequence[str]) -> float:
    """How far the middle of the pilots lies from the reference's value, at least."""
    low, high = uncertainty.mean_interval(off, prompts) or (-np.inf, np.inf)
    return max(0.0, low, -high)


def planned_arms(
    differences: pd.DataFrame, counts: Sequence[int], prompts: Sequence[int], family: int = 1
) -> pd.DataFrame:
    """One row per (subset, metric, prompts, trainings): the smallest true difference that 80 % of such studies find.

    Of a ≈ metric (`kind`) the side of the reference's value on which the arms lie is taken as known.

    Args:
        differences: `ArmTables.differences` of two pilot arms. A distance is planned for as many prompts as they have,
            because it says nothing about others.
        counts: numbers of trainings per arm to plan for.
        prompts: numbers of prompts to plan for.
        family: comparisons that Holm's correction will count; the first of them is planned for.
    """
    rows = []
    made: list[Any] = [*differences[differences["error"] > 0].itertuples()]
    for row in made:
        parts = _components(row)
        for number in prompts if parts.crossed else [int(row.prompts)]:
            for count in counts:
                found = parts.detectable(count, number, family=family)
                of = {"subset": row.subset, "metric": row.metric, "kind": row.kind}
                of |= {"prompts": number, "trainings": count}
                spread = {"sd_training": row.sd_training, "sd_prompt": row.sd_prompt, "sd_rest": row.sd_rest}
                rows.append({**of, "detectable": found, **spread})
    columns = ("subset", "metric", "kind", "prompts", "trainings", "detectable", "sd_training", "sd_prompt", "sd_rest")
    return pd.DataFrame(rows, columns=list(columns))


def _components(row: Any) -> trainings.Components:
    """The components of variance in a row of `ArmTables.differences`."""
    crossed = row.kind != "distance"
    sources = 1.0
    if not row.paired:  # the error then rests on the trainings of both arms
        sources = trainings.sources([row.spread**2 / row.trainings, row.spread_against**2 / row.trainings_against])
    prompt, rest = (row.sd_prompt**2, row.sd_rest**2) if crossed else (0.0, 0.0)
    return trainings.Components(row.sd_training**2, prompt, rest, sources, crossed)
