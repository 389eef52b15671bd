"""Stage 5: may this be merged? A run against a stored baseline, by non-inferiority margins.

A baseline is one file: a zip of a run folder without its clips, with the values of every clip, the rows of the
features that a distance needs, the scores, their protocols, and the reasons why it was moved. So a check is an ordinary
comparison (`differences`), on the clips that both have, and refuses what an ordinary comparison refuses.

A check fails where the run is worse than the baseline by more than the metric's margin, with confidence: the one-sided
p-value of "worse by the margin or less", after Holm over all checks, lies below the plan's alpha. A change of rounding
moves every clip a little in one direction: that is significant, but far less than any sensible margin. Each metric with
a margin has a second check: whether it can measure fewer of the baseline's clips than before (the exact sign test of
clips lost and clips gained).
"""

import datetime
import json
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from avbench import paired
from avbench.compare import clip_values
from avbench.core import InputError
from avbench.differences import MACRO, MICRO, differences, sided, worsening
from avbench.folder import VALUES_FILE, RunFolder, write_whole
from avbench.metrics import METRICS
from avbench.plan import Plan
from avbench.reading import read_json, unpack

HISTORY = "baseline.json"
_WHOLE = ("run.json", "samples.jsonl", "scores.json", VALUES_FILE)
_BEGINNING = (1980, 1, 1, 0, 0, 0)  # of time, in a zip: equal content gives equal bytes


@dataclass(frozen=True)
class Verdict:
    """One check."""

    name: str
    """``subset/metric``, or that with ``: coverage``."""
    failed: bool
    told: str
    """What was found, in a sentence."""
    p: float | None = None
    """One-sided, after Holm."""


def update(folder: RunFolder, baseline: Path, reason: str) -> None:
    """Make an evaluated run the baseline, and write down why.

    Raises:
        InputError: there is no reason, the run was not evaluated, or the file is no baseline.
    """
    if not reason.strip():
        msg = "a baseline moves for a reason: give --reason, which is kept in its file"
        raise InputError(msg)
    scores, _ = folder.scores()
    history = []
    if baseline.exists():
        with tempfile.TemporaryDirectory() as place:
            history = read_json(_unpacked(baseline, Path(place)) / HISTORY, list[dict[str, Any]])
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    history.append({"date": today, "reason": reason, "run": folder.run().to_json()})
    scored = {score.metric for score in scores}
    features = {metric.feature for metric in METRICS if metric.name in scored and not metric.per_clip}
    paths = [folder.path / name for name in _WHOLE] + sorted((folder.path / "subsets").glob("*.json"))
    for feature in sorted(features):
        paths += sorted((folder.path / "features").glob(f"{feature}@*/*"))
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "baseline.zip"
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in paths:
                _add(packed, path.relative_to(folder.path).as_posix(), path.read_bytes())
            _add(packed, HISTORY, json.dumps(history, indent=1, ensure_ascii=False).encode())
        write_whole(baseline, made.read_bytes())


def check(folder: RunFolder, baseline: Path, plan: Plan, *, place: Path | None = None) -> list[Verdict]:
    """Compare a run with the baseline: a verdict a check, the failed ones first.

    Args:
        folder: an evaluated run.
        baseline: the file that `update` wrote.
        plan: the margins; a metric without one is not gated.
        place: a reference of the user's own.

    Raises:
        InputError: the two cannot be compared, or no margin is of a metric that both have.
    """
    with tempfile.TemporaryDirectory() as temporary:
        before = RunFolder(_unpacked(baseline, Path(temporary)))
        found = differences([before, folder], plan=plan, place=place)
        gated = found[[_gated(row, plan) for row in found.itertuples()]]
        if gated.empty:
            known = ", ".join(dict.fromkeys(found["metric"])) or "none"
            msg = f"no margin of the plan is of a metric that both have, so nothing is gated; they have: {known}"
            raise InputError(msg)
        checks = [*_failures(before, folder), *_margins(gated), *_coverage(gated, before, folder)]
    tested = [number for number, (_, p, _, _) in enumerate(checks) if p is not None]
    adjusted = dict(zip(tested, paired.holm([checks[number][1] for number in tested]), strict=True))
    verdicts = [
        Verdict(name, always or adjusted.get(number, 1.0) < plan.alpha, told, adjusted.get(number))
        for number, (name, _, always, told) in enumerate(checks)
    ]
    return sorted(verdicts, key=lambda verdict: not verdict.failed)


_Check = tuple[str, float | None, bool, str]
"""Name, p, whether it fails whatever p is, and what to tell."""


def _gated(row: Any, plan: Plan) -> bool:
    """Whether a row has a margin; pooled rows only where the plan names them."""
    if row.subset in (MACRO, MICRO):
        return f"{row.subset}/{row.metric}" in plan.margins
    return plan.margin(row.subset, row.metric) is not None


def _margins(gated: pd.DataFrame) -> Iterator[_Check]:
    for row in gated.itertuples():
        name = f"{row.subset}/{row.metric}"
        if pd.isna(row.difference):
            lost = row.subset not in (MACRO, MICRO) and row.kind == "distance"
            yield name, None, lost, f"not compared: {row.missing}"
            continue
        worse = worsening(row) + 0.0  # no −0
        unit = f" {row.unit}" if row.unit else ""
        seen = f"smallest detectable {row.detectable:.3g}" if row.detectable > 0 else "no clip differs from another"
        told = f"worse by {worse:.4g}{unit}, margin {row.margin:.4g}, {row.pairs:.0f} clips, {seen}"
        if pd.isna(row.error):
            yield name, None, False, f"not tested, all {row.pairs:.0f} clips are of one prompt: {told}"
        else:
            yield name, _too_much(row, worse), False, told


def _too_much(row: Any, worse: float) -> float:
    """The one-sided p-value of "worse by the margin or less"."""
    p = paired.tail(worse - row.margin, row.error, row.freedom)
    return p if sided(row) else min(1.0, 2 * p)


def _coverage(gated: pd.DataFrame, before: RunFolder, after: RunFolder) -> Iterator[_Check]:
    old, new = clip_values(before), clip_values(after)
    for where in zip(gated["subset"], gated["metric"], strict=True):
        if where not in old:
            continue
        had, has = set(old[where].index), set(new[where].index) if where in new else set()
        lost, gained = len(had - has), len(has - had)
        p = stats.binomtest(lost, lost + gained, alternative="greater").pvalue if lost + gained else 1.0
        yield f"{where[0]}/{where[1]}: coverage", float(p), False, f"{lost} of {len(had)} clips lost, {gained} gained"


def _failures(before: RunFolder, after: RunFolder) -> Iterator[_Check]:
    """Clips that the baseline has and this run could not make."""
    made = {key for key, sample in before.samples().items() if sample.failure is None}
    failed = [sample for key, sample in after.samples().items() if key in made and sample.failure]
    example = f", for example {failed[0].key.subset}/{failed[0].key.prompt}: {failed[0].failure}" if failed else ""
    yield "clips", None, bool(failed), f"{len(failed)} of {len(made)} clips could not be made{example}"


def _unpacked(baseline: Path, place: Path) -> Path:
    """The baseline as a run folder in `place`. Raises InputError where the file is not one."""
    target = place / "baseline"
    try:
        unpack(baseline, target, lambda name: name in (*_WHOLE, HISTORY) or name.startswith(("subsets/", "features/")))
    except InputError as error:
        msg = f"{baseline} is no baseline ({error}): `avbench check RUN --baseline FILE --update --reason …` makes one"
        raise InputError(msg) from None
    if missing := [name for name in (*_WHOLE, HISTORY) if not (target / name).is_file()]:
        msg = f"{baseline} is no baseline: it has no {missing[0]}"
        raise InputError(msg)
    return target


def _add(packed: zipfile.ZipFile, name: str, content: bytes) -> None:
    packed.writestr(zipfile.ZipInfo(name, _BEGINNING), content, zipfile.ZIP_DEFLATED)
