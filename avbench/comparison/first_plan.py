"""Writes a first plan for `avbench check`, with margins from a baseline's own noise."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from avbench.comparison import baseline_file
from avbench.core import Direction, InputError, Score, one_line
from avbench.metrics.table import known_metrics


def initial_plan(baseline: Path) -> tuple[str, list[str]]:
    """A plan as TOML, with margins from a baseline's own noise, and sentences that name the numbers without one and
    those with few clips.

    The margin is half the 95 % interval of a mean over clips, and two standard deviations of a distance's null: a
    smaller change could come from another choice of prompts.

    Raises:
        InputError: the file is no baseline, or none of its numbers has noise to make a margin of.
    """
    with baseline_file.opened(baseline) as before:
        scores = before.scores()
    found = {"/".join(one.where): _noise(one) for one in scores}
    margins = {name: one for name, one in found.items() if not isinstance(one, str)}
    few = {"/".join(one.where): _few(one) for one in scores}
    notes = [
        *_named("without a margin", {name: one for name, one in found.items() if isinstance(one, str)}),
        *_named("with too few clips", {name: why for name, why in few.items() if why and name in margins}),
    ]
    if not margins:
        msg = f"no number of {baseline} has a margin in its own noise; {'; '.join(notes)}"
        raise InputError(msg)
    lines = [
        "# Margins for `avbench check`: a change below them does not stop a merge.",
        "# Each is the noise of the baseline: half the 95 % interval over prompts, or two standard deviations of a",
        "# distance's null. Lower what must not get worse, and remove what may. What has no margin is not checked.",
        *(f"# {sentence}" for sentence in notes),
        "[margin]",
        *(f"{json.dumps(name)} = {margin:.3g}" for name, margin in margins.items()),
    ]
    return "\n".join([*lines, ""]), notes


def _named(what: str, reasons: Mapping[str, str]) -> Iterator[str]:
    """A sentence per reason, with the names that it holds for."""
    for why in dict.fromkeys(reasons.values()):
        yield one_line(f"{what} ({why}): {', '.join(name for name, one in reasons.items() if one == why)}")


def _few(score: Score) -> str | None:
    """What a check will say of a distance of too few clips, if a run has as many as the baseline."""
    metric = known_metrics().get(score.metric)
    if metric is None or score.value is None or metric.per_clip:
        return None
    return metric.too_few(score.n, score.reference_clips)


def _noise(score: Score) -> float | str:
    """What another choice of prompts may change, or why no margin comes from that."""
    metric = known_metrics().get(score.metric)
    if score.value is None:
        return str(score.missing)
    if metric is None:
        return "this avbench has no such metric"
    if metric.direction is Direction.NEITHER:
        return "it has no better side"
    if metric.direction is Direction.BAND and score.reference is None:
        return "it should match the reference, ≈, and there is no reference"
    if not metric.per_clip:
        return 2 * score.null.sd if score.null and score.null.sd else score.no_null or "its null has no spread"
    if not score.interval:
        return "clips of one prompt only have no interval"
    return (score.interval[1] - score.interval[0]) / 2 or "every clip has the same value"
