"""Compares finished runs, and arms of several trainings."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from avbench.api.choices import metric_names, paths_of, require_kinds, shared_columns, texts_of
from avbench.api.references import require_built
from avbench.api.results import ArmComparison, Comparison
from avbench.comparison.arm_differences import arm_differences
from avbench.comparison.arms import opened_arms
from avbench.comparison.clip_remarks import remarks
from avbench.comparison.differences import differences, pairs_of
from avbench.comparison.leaderboard import leaderboard
from avbench.comparison.plan import Plan
from avbench.comparison.score_table import require_known_fields, unknown_metrics
from avbench.comparison.verdict import arm_verdict, verdict
from avbench.core import InputError, all_of, shown
from avbench.metrics.evaluate import chosen_metrics, listed_names
from avbench.metrics.rescoring import rescored
from avbench.storage.runs.folder import RunFolder, named_apart
from avbench.storage.runs.view import RunView


def compare(
    runs: str | Path | Sequence[str | Path],
    *,
    metrics: str | Sequence[str] | None = None,
    columns: str | None = None,
    all_pairs: bool = False,
    plan: Plan | None = None,
    allow: str | Sequence[str] = (),
    reference: str | Path | None = None,
) -> Comparison:
    """Compare evaluated run folders, each with the first, or every one with every other.

    Args:
        runs: one run folder or several.
        metrics: only these.
        columns: only those of a preset of columns that every run has; a note of the comparison names the others.
        all_pairs: whether every run is compared with every other.
        plan: primary questions and margins.
        allow: fields in which runs may differ; a difference in any other field is an error.
        reference: a reference folder instead of that which the runs were scored with. All that rests on a reference is
            computed anew with it, in memory; the folders keep their scores.

    Raises:
        InputError: a folder holds no evaluated run, two runs were made differently in a field that is not allowed, or
            none of them has an allowed field.
    """
    require_kinds(reference=reference, columns=columns, plan=plan)
    allow, metrics = texts_of(allow, "allow"), metric_names(metrics)
    views = [RunView(Path(path)) for path in paths_of(runs, "run", "give a run folder or several")]
    if not views:
        msg = "give at least one run folder"
        raise InputError(msg)
    named_apart(views)
    pairs = pairs_of(len(views), all_pairs=all_pairs)
    place = None if reference is None else Path(reference)
    notes: list[str] = []
    if columns:
        shared = shared_columns(views, columns, notes.append)
        metrics = [*(one.name for one in chosen_metrics(metrics)), *shared] if metrics else shared
    require_known_fields(views, allow)
    found = compared(views, pairs=pairs, plan=plan, allow=allow, reference=place, metrics=metrics)
    return dataclasses.replace(found, notes=notes)


def compare_arms(
    arms: Mapping[str, str | Path | Sequence[str | Path]],
    *,
    metrics: str | Sequence[str] | None = None,
    all_pairs: bool = False,
    plan: Plan | None = None,
    allow: str | Sequence[str] = (),
    paired_trainings: bool | None = None,
) -> ArmComparison:
    """Compare arms that were trained several times, each with the first, or every one with every other.

    ```python
    found = avbench.compare_arms({"t2v": "runs/t2v-[0-9]", "t2av": "runs/t2av-[0-9]"})
    ```

    Args:
        arms: name → evaluated run folders, one per training: paths, or patterns such as ``runs/a-*``.
        metrics: only these.
        all_pairs: whether every arm is compared with every other.
        plan: primary questions and margins.
        allow: fields in which runs may differ all the same.
        paired_trainings: whether trainings have partners in the other arm, which shared the order of the data and the
            noise; None pairs them by the number that their names end in, else by the order of the names.

    Raises:
        InputError: an arm has fewer than two trainings, or its trainings were not made and measured alike.
    """
    require_kinds(plan=plan)
    metrics = metric_names(metrics)
    if not isinstance(arms, Mapping):
        msg = f"arms is {shown(arms)}; it must be a dictionary such as {{'a': 'runs/a-*', 'b': 'runs/b-*'}}"
        raise InputError(msg)
    how = "give the run folders of an arm, or a pattern such as 'runs/a-*'"
    opened = opened_arms({name: paths_of(given, f"run of {name}", how) for name, given in arms.items()})
    found = arm_differences(
        opened,
        all_pairs=all_pairs,
        plan=plan,
        allow=texts_of(allow, "allow"),
        metrics=metrics,
        paired_trainings=paired_trainings,
    )
    answer = arm_verdict(found.scores, found.differences, found.notes)
    return ArmComparison(found.scores, found.trainings, found.differences, found.notes, answer)


def compared(
    runs: Sequence[RunFolder],
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    plan: Plan | None = None,
    allow: str | Sequence[str] = (),
    reference: Path | None = None,
    metrics: str | Sequence[str] | None = None,
) -> Comparison:
    """Compare opened runs; `pairs` are indices (run, against), by default each run against the first."""
    allow, metrics = texts_of(allow, "allow"), None if metrics is None else listed_names(metrics)
    if reference is not None:
        require_built(reference)
    runs = rescored(runs, reference, metrics)
    frame = leaderboard(runs, allow=allow, metrics=metrics)
    found = differences(runs, pairs=pairs, plan=plan, place=reference, allow=allow, metrics=metrics)
    limits = [*unknown_metrics(runs, metrics), *remarks(runs, reference)]
    if anew := [run.name for run in runs if not run.scores_are_stored]:
        limits.insert(
            0,
            f"{all_of(anew)} {'was' if len(anew) == 1 else 'were'} scored with another reference or with none: here "
            "all that rests on a reference is computed with the one of this comparison.",
        )
    return Comparison(tuple(runs), frame, found, [*verdict(frame, found), *limits], limits=limits)
