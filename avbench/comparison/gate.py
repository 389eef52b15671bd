"""Checks a run against a stored baseline by non-inferiority margins, to decide whether a change may be merged.

A baseline holds all that a run folder does except its clips (`baseline_file`). So a check is an ordinary comparison
(`differences`), on the clips that both have, of what the plan names, and refuses what that refuses.

A check fails where the run is worse than the baseline by more than the metric's margin, with confidence: the one-sided
p-value of "worse by the margin or less", after Holm over all checks, lies below the plan's alpha. A change of rounding
moves every clip a little in one direction: that is significant, but far less than any sensible margin. Of a metric that
should match the reference's value (≈), the run must be farther from it than the baseline, and than the baseline's
mirror image on the other side, each by more than the margin (`paired.farther`).

What the baseline has and the plan names must be compared, or its check fails and says why: a metric or a subset that
the run lacks, a distance that can no longer be measured, clips of one prompt only, whose difference has no error.
What the plan names and the baseline lacks is skipped, in words. Nor may clips be lost:

- ``clips`` fails for one clip that the baseline has and this run could not make, or, on a subset that is gated, does
  not have.
- ``subset/metric: coverage`` fails where the metric measures fewer of the clips that the baseline was asked for: by the
  exact sign test of prompts that have fewer of them and prompts that have more (one-sided, in the same family as the
  margins), or, whatever chance says, where at least half of the baseline's clips are lost, less those gained.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from avbench.comparison import baseline_file
from avbench.comparison.differences import CONSTANT, MICRO, POOLS, TO_TARGET, differences, freedom, sided, worsening
from avbench.comparison.plan import Plan
from avbench.comparison.score_table import (
    MADE_DIFFERENTLY,
    Where,
    clip_values,
    join,
    real_values,
    require_known_fields,
    targets,
    together,
)
from avbench.core import InputError, Sample, Score, as_typed, counted
from avbench.features.current import current_rows
from avbench.metrics.rescoring import rescored
from avbench.metrics.table import known_metrics
from avbench.statistics import paired, power
from avbench.storage.runs.folder import RunFolder
from avbench.storage.sharing import without_folders


@dataclass(frozen=True)
class Verdict:
    """One check."""

    name: str
    """``subset/metric``, or that with ``: coverage``."""
    failed: bool
    message: str
    """What was found, in a sentence without local paths, because checks are shown to others."""
    p: float | None = None
    """One-sided, after Holm."""
    skipped: bool = False
    """Whether nothing was checked: the baseline lacks what the plan names."""
    compared: bool = True
    """False where the run lacks what the baseline has: that fails too, but it is no worse number."""
    note: bool = False
    """Whether it is no check, but what a reader of the checks must know."""


def check(
    folder: RunFolder, baseline: Path, plan: Plan, *, place: Path | None = None, allow: Sequence[str] = ()
) -> list[Verdict]:
    """Compare a run with the baseline: one verdict per check, the failed ones first, the skipped ones last.

    Args:
        folder: an evaluated run.
        baseline: the file that `update` wrote.
        plan: the margins; a metric without one is not gated, but a question's comparison must be possible.
        place: a reference of the user's own, by which both are scored again in memory (`rescored`).
        allow: fields in which the two may differ all the same; the messages say so.

    Raises:
        InputError: the two cannot be compared, because what the plan names was made differently or they have no subset
            in common, or no margin of the plan is of a score of the baseline, or none of the two has an allowed field.
    """
    with baseline_file.opened(baseline) as before:
        had = {one.where: one for one in before.scores()}
        wanted = _wanted(had, plan)
        on_subsets, gated = _on_subsets(wanted, had), _gated(wanted, had, plan, baseline)
        _require_same_ground(folder, before, baseline, gated, place)
        require_known_fields([before, folder], allow)
        scored = {one.where for one in folder.scores()}
        both = [where for where in on_subsets if where in scored]
        names = [*dict.fromkeys(metric for _, metric in both)]
        before, folder = rescored([before, folder], place, names)
        found = differences([before, folder], plan=plan, place=place, allow=allow, only=both, metrics=names)
        rows = dict(zip(zip(found["subset"], found["metric"], strict=True), found.itertuples(), strict=True))
        checks = [
            _clips(before, folder, {subset for subset, _ in on_subsets}),
            *_margins(wanted, rows, had, before, folder),
            *_coverage(gated, before, folder),
        ]
        noted = [*_unlike(baseline_file.moves(before), folder)]
    tested = {number: one.p for number, one in enumerate(checks) if one.p is not None}
    adjusted = dict(zip(tested, paired.holm([*tested.values()]), strict=True))
    verdicts = [one.verdict(adjusted.get(number), len(tested), plan.alpha) for number, one in enumerate(checks)]
    verdicts += noted
    verdicts += [
        Verdict(name, failed=False, message=without_folders(message), skipped=True)
        for name, message in _skipped(wanted, had, plan)
    ]
    return sorted(verdicts, key=lambda verdict: (not verdict.failed, verdict.skipped))


@dataclass(frozen=True)
class _Check:
    """What was found, before Holm's correction."""

    name: str
    message: str
    p: float | None = None
    fails: bool = False
    """Whether it fails whatever p is."""
    compared: bool = True
    margin: float | None = None
    row: Any = None
    """The comparison that is held against the margin."""
    farther: paired.Farther | None = None
    """Of a ≈ metric."""

    def verdict(self, p: float | None, family: int, alpha: float) -> Verdict:
        """The verdict, given p after Holm's correction over a family."""
        failed = self.fails or not (1.0 if p is None else p) >= alpha
        message = self.message
        if self.margin is not None:
            message = f"{message}; {self._would_find(self.margin, (alpha if sided(self.row) else alpha / 2) / family)}"
            if self.row.kind == "distance" and isinstance(self.row.too_few, str):
                message = f"{message}; {self.row.too_few}"
        return Verdict(self.name, failed, without_folders(message), p, compared=self.compared)

    def _would_find(self, margin: float, level: float) -> str:
        """The loss that 80 % of such checks find, tested one-sided at this level; of a ≈ metric on either side of the
        reference's value, where these are two.
        """
        row = self.row
        if self.farther is None:
            more = power.detectable(row.error, freedom(row), alpha=2 * level)
            losses = [more and margin + more]
        else:
            sides = (self.farther.kept, self.farther.crossed)
            losses = [power.detectable_farther(one, margin, level=level) for one in sides]
            losses = [max(losses, key=lambda loss: loss or 0)] if row.subset in POOLS else losses
        change, error = _change(row, self.farther)
        if CONSTANT in str(row.mark) or not error or None in losses:
            return "every clip differs by the same" if change else "no clip's value changed"
        here, *there = dict.fromkeys(f"{loss:.3g}" for loss in losses)
        what = "loss" if sided(row) else "difference"
        also = f", on the other side of the reference's value one of {there[0]}" if there else ""
        return f"a {what} of {here} would be found{also}"


def _wanted(had: Mapping[Where, Score], plan: Plan) -> dict[Where, float | None]:
    """What the baseline has and the plan names → its margin; None where it is a question without one."""
    there = {where: plan.margin(*where) for where, score in had.items() if score.value is not None}
    wanted = {where: margin for where, margin in there.items() if margin is not None or plan.names(*where)}
    for pool in POOLS:  # pooled rows only where the plan names them
        for metric in dict.fromkeys(metric for _, metric in there):
            if plan.names(pool, metric) and len(_pooled_from(metric, had)) > 1:
                wanted[pool, metric] = plan.margin(pool, metric)
    return wanted


def _gated(wanted: Mapping[Where, float | None], had: Mapping[Where, Score], plan: Plan, baseline: Path) -> list[Where]:
    """What is wanted within a margin, with pooled numbers replaced. Raises InputError if nothing is."""
    gated = [where for where, margin in wanted.items() if margin is not None]
    if not gated:
        known = ", ".join(dict.fromkeys(metric for _, metric in had)) or "none"
        lacks = "no margin of the plan is of the baseline's scores" if plan.margins else "no plan has a margin"
        msg = (
            f"{lacks}, so nothing is gated; the baseline has: {known} (`avbench check RUN --baseline "
            f"{as_typed(baseline)} --init` writes a plan from the baseline's own noise)"
        )
        raise InputError(msg)
    return _on_subsets(gated, had)


def _require_same_ground(
    after: RunFolder, before: RunFolder, baseline: Path, gated: Iterable[Where], place: Path | None
) -> None:
    """Raise InputError if a run has no subset that is gated, or lacks the reference that the baseline has."""
    checked, asked = dict.fromkeys(subset for subset, _ in gated), after.run().subsets
    if not {*checked} & {*asked}:
        msg = (
            f"{after.path} has clips of {', '.join(asked)}, and {baseline} is checked on {', '.join(checked)}: they "
            "have no subset in common, so nothing can be compared"
        )
        raise InputError(msg)
    given = before.evaluation().given.get("reference")
    if given and place is None and "reference" not in after.evaluation().given:
        msg = (
            f"{baseline} was scored with the reference {given}, and {after.path} without one: `avbench evaluate "
            f"{after.typed} --reference {as_typed(given)}`, or give --reference"
        )
        raise InputError(msg)


def _pooled_from(metric: str, had: Mapping[Where, Score]) -> list[Where]:
    """The numbers of the baseline that a pooled one is made of; none of a distance."""
    known = known_metrics().get(metric)
    if known is None or not known.per_clip:
        return []
    return [where for where, score in had.items() if where[1] == metric and score.value is not None]


def _on_subsets(wanted: Iterable[Where], had: Mapping[Where, Score]) -> list[Where]:
    """What is wanted, with pooled numbers replaced by those that they are made of."""
    found: list[Where] = []
    for subset, metric in wanted:
        found += _pooled_from(metric, had) if subset in POOLS else [(subset, metric)]
    return list(dict.fromkeys(found))


def _skipped(wanted: Mapping[Where, Any], had: Mapping[Where, Score], plan: Plan) -> Iterator[tuple[str, str]]:
    """What the plan names and the baseline does not have: name, and why nothing is checked."""
    without = {"/".join(where): score.missing for where, score in had.items() if score.value is None}
    planned = {name: missing for name, missing in without.items() if plan.margin(*name.split("/")) is not None}
    named = [*plan.margins, *map("/".join, plan.asked)]
    known = {"/".join(where) for where in wanted} | {metric for _, metric in had}
    for name in dict.fromkeys([*planned, *named]):
        if name not in known:
            why = without.get(name)
            yield name, f"not gated: the baseline has no such number{f' ({why})' if why else ''}"


def _margins(
    wanted: Mapping[Where, float | None],
    rows: Mapping[Where, Any],
    had: Mapping[Where, Score],
    before: RunFolder,
    after: RunFolder,
) -> Iterator[_Check]:
    scores = {one.where: one for one in after.scores()}
    values, real = ([read(one) for one in (after, before)] for read in (clip_values, real_values))
    asked = set(after.run().subsets)
    for where, margin in wanted.items():
        name, row = "/".join(where), rows.get(where)
        if why := next(filter(None, (_lacking(one, scores, asked) for one in _on_subsets([where], had))), None):
            yield _Check(name, f"not compared: {why}", fails=True, compared=False)
        elif row is None or pd.isna(row.difference):
            why = "no two subsets have it on clips of both" if row is None else row.missing
            yield _Check(name, f"not compared: {why}", fails=True, compared=False)
        elif margin is not None:
            farther = _farther(where, scores, values, real) if row.kind == TO_TARGET else None
            yield _margin(name, margin, row, farther)


def _farther(
    where: Where,
    scores: Mapping[Where, Score],
    values: Sequence[Mapping[Where, pd.Series]],
    real: Sequence[Mapping[Where, pd.Series]],
) -> paired.Farther | None:
    """By how much the run is farther from the reference's value than the baseline, whichever side each is on.

    Args:
        where: the subset or pool, and the metric.
        scores: the run's.
        values: `clip_values` of the run and of the baseline.
        real: their `real_values`.
    """
    subset, metric = where
    there = [one for one in values[0] if one in values[1]] if subset in POOLS else [where]
    parts = {one: join(*(of[one] for of in values)) for one in there if one[1] == metric}
    parts = {one: part for one, part in parts.items() if part.prompts}

    def goal(one: Where, prompts: Sequence[str]) -> np.ndarray:
        return targets(float(scores[one].reference or 0), prompts, *(of[one] for of in real))

    if not parts:  # no clip is in both
        (a, of_a), (b, of_b) = ((of[where].to_numpy(), [*of[where].index.get_level_values("prompt")]) for of in values)
        return paired.unpaired_farther(a, of_a, b, of_b, targets=goal(where, [*of_a, *of_b]))
    every, of_subset = together(parts)
    goals = np.concatenate([goal(one, part.prompts) for one, part in parts.items()])
    return paired.farther(every.a, every.b, every.prompts, targets=goals, subsets=of_subset, micro=subset == MICRO)


def _lacking(where: Where, scores: Mapping[Where, Score], asked: set[str]) -> str | None:
    """Why a run has no such number, or None where it has."""
    subset, metric = where
    if subset not in asked:
        return f"the run does not have the subset {subset}"
    if where not in scores:
        return f"the run was not scored by {metric} on {subset}"
    missing = scores[where].missing
    return missing and f"the run has no {metric} on {subset}: {missing}"


def _margin(name: str, margin: float, row: Any, farther: paired.Farther | None) -> _Check:
    """The check of a margin; a ≈ metric's rests on `farther`."""
    worse = worsening(row) + 0.0  # no −0
    unit = f" {row.unit}" if row.unit else ""
    how = "differs" if not sided(row) else "better" if worse < 0 else "worse"
    same = "as near as before" if _change(row, farther)[0] else "unchanged"
    by = f"{how} by {abs(worse):.4g}{unit}" if worse else same
    message = f"{by}, margin {margin:.4g}, {counted(int(row.pairs), 'clip')}"
    if isinstance(row.mark, str) and row.mark.startswith(MADE_DIFFERENTLY):
        message = f"{message}; {row.mark.partition(f'; {CONSTANT}')[0]}"
    if pd.isna(row.error):
        why = "not tested, because a subset has it on clips of one prompt only"
        return _Check(name, f"{why}: {message}", fails=True, compared=False)
    if farther is not None:
        p = farther.observed.p(margin)
    else:
        p = paired.tail(paired.above(worse, margin), row.error, freedom(row))  # of "worse by the margin or less"
        p = p if sided(row) else min(1.0, 2 * p)
    return _Check(name, message, p, margin=margin, row=row, farther=farther)


def _change(row: Any, farther: paired.Farther | None) -> tuple[float, float]:
    """The difference of the two numbers and its error; as near to the reference's value they can be on either side."""
    return (row.difference, row.error) if farther is None else (farther.kept.values[0], farther.kept.errors[0])


def _coverage(gated: list[Where], before: RunFolder, after: RunFolder) -> Iterator[_Check]:
    old, new, asked = _Measured(before), _Measured(after), before.samples()
    for where in gated:
        had, has = old.clips(where), new.clips(where)
        if not has:  # a check of its own says so
            continue
        has &= {(key.prompt, key.seed) for key in asked if key.subset == where[0]}  # other clips make up for no loss
        lost, gained = had - has, has - had
        more = Counter(prompt for prompt, _ in gained)
        more.subtract(prompt for prompt, _ in lost)  # clips of one prompt are alike, so prompts are tested
        fewer = sum(count < 0 for count in more.values())
        changed = fewer + sum(count > 0 for count in more.values())
        p = stats.binomtest(fewer, changed, alternative="greater").pvalue if changed else 1.0
        most = bool(had) and 2 * (len(lost) - len(gained)) >= len(had)
        message = f"{len(lost)} of {len(had)} clips lost, {len(gained)} gained"
        if fewer < len(lost):
            message = f"{message}; {counted(fewer, 'prompt')} with fewer than before"
        yield _Check(f"{'/'.join(where)}: coverage", message, float(p), most)


class _Measured:
    """Which clips of a run a metric has a number of, or, if it is a distance, rests on."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._values = clip_values(folder)
        self._of_distances = {metric.name: metric.feature for metric in known_metrics().values() if not metric.per_clip}
        self._keys: dict[str, list[Any]] = {}

    def clips(self, where: Where) -> set[Any]:
        subset, metric = where
        if metric not in self._of_distances:
            return set(self._values[where].index) if where in self._values else set()
        feature = self._of_distances[metric]
        if feature not in self._keys:
            rows = current_rows(self._folder, feature, names=())
            self._keys[feature] = [key for key, row in rows.items() if row.values is not None]
        return {(key.prompt, key.seed) for key in self._keys[feature] if key.subset == subset}


def _clips(before: RunFolder, after: RunFolder, gated: set[str]) -> _Check:
    """Clips that the baseline has, and this run could not make or, on a gated subset, does not have."""
    made = [key for key, sample in before.samples().items() if sample.failure is None]
    samples = after.samples()
    failed = [samples[key] for key in made if key in samples and samples[key].failure]
    absent = [key for key in made if key not in samples and key.subset in gated]
    messages = []
    if failed or not absent:
        messages.append(f"{len(failed)} of {len(made)} clips could not be made{_example(failed)}")
    if absent:
        first = absent[0]
        messages.append(
            f"{len(absent)} of {len(made)} clips are not in the run, for example "
            f"{first.subset}/{first.prompt}, seed {first.seed}"
        )
    return _Check("clips", "; ".join(messages), fails=bool(failed or absent))


def _example(failed: list[Sample]) -> str:
    return f", for example {failed[0].key.subset}/{failed[0].key.prompt}: {failed[0].failure}" if failed else ""


def _unlike(moves: Sequence[baseline_file.Move], after: RunFolder) -> Iterator[Verdict]:
    """A note if a clip has another size, length or rate than the baseline's, on which numbers depend."""
    made = {"/".join(map(str, key)): one for key, one in after.samples().items() if one.path is not None}
    for clip, form in moves[-1].forms.items() if moves else ():
        if clip in made and (own := baseline_file.form_of_clip(after, made[clip])) not in (None, form):
            message = f"{clip} has {own} instead of {form}: a difference may come from the form of the clips alone"
            yield Verdict("clip form", failed=False, message=without_folders(message), note=True)
            return
