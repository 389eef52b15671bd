"""Writes sentences on what could not be compared, and why."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from avbench.comparison.differences import TO_TARGET, could_be_made
from avbench.comparison.wording import MOST_NAMED, names_of, spelled
from avbench.core import Direction, all_of, counted, listed
from avbench.metrics.evaluate import NO_REFERENCE
from avbench.statistics.paired import LEAST_PROMPTS
from avbench.storage.plug_ins import FAILED

UNMEASURABLE = "no clip can be measured"
"""The reason where a metric has a value of none of the clips that were measured for it."""


def reason(row: Any, frame: pd.DataFrame) -> tuple[str, str | None]:
    """Why the comparison in a row of `differences` could not be made, short, and the run that alone is the cause.

    The run is None where both are, or where the words name it.

    Args:
        row: a row without a p-value, or one that rests on too few clips.
        frame: the scores of the same runs.
    """
    if isinstance(row.too_few, str):
        few = row.too_few.partition(":")[0]
        return (f"only {few} of at least {LEAST_PROMPTS}" if "prompt" in few else f"too few clips, {few}"), None
    if str(row.missing).startswith(FAILED):  # its author needs the whole sentence
        return f"{row.metric} {row.missing}", None
    if of_real := re.match(r"the reference of .+ has no \w+: the clips? ha(?:s|ve) no (\w+)", str(row.missing)):
        return f"the reference has no {of_real[1]}", None
    short = re.split(r"[:(;]", str(row.missing or "no value"), maxsplit=1)[0].strip()
    here = (frame["subset"] == row.subset) & (frame["metric"] == row.metric)
    of_both = frame.loc[here & frame["model"].isin((row.run, row.against))]
    missing = zip(of_both["model"], of_both["missing"], strict=True)
    lacking = [model for model, why in missing if str(why).startswith(short)]
    if "no reference" in short:
        return "no reference", None
    if re.fullmatch(r"\w+ cannot measure any of the \d+ clips", short):
        short = UNMEASURABLE
    if lacks := re.fullmatch(r"the clips? ha(?:s|ve) no (.+)", short):
        return (f"{lacking[0]} has no {lacks[1]}" if len(lacking) == 1 else f"no {lacks[1]}"), None
    return short, lacking[0] if len(lacking) == 1 else None


def reason_of(why: str, runs: Sequence[str]) -> str:
    """A reason in words, with the runs that alone are its cause, if there are some."""
    if not runs:
        return why
    return f"no clip of {all_of(runs)} can be measured" if why == UNMEASURABLE else f"{why} in {all_of(runs)}"


def not_compared(own: pd.DataFrame, frame: pd.DataFrame) -> Iterator[str]:
    """How many comparisons could not be made, grouped by reason; nothing if all could."""
    lost = own[~could_be_made(own)]
    if len(lost):
        causes: defaultdict[tuple[str, bool], list[str]] = defaultdict(list)
        for row in lost.itertuples():
            why, run = reason(row, frame)
            causes[why, run is not None].append(run or _between(row, frame))
        pairs = {f"between {against} and {run}" for run, against in zip(own["run"], own["against"], strict=True)}
        named = []
        for (why, of_runs), places in sorted(causes.items(), key=lambda cause: -len(cause[1])):
            alone = [*dict.fromkeys(filter(None, places))] if {*places} != pairs else []
            words = reason_of(why, alone) if of_runs else ", ".join([why, *([all_of(alone)] if alone else [])])
            named.append(f"{words} ({len(places)})")
        one_pair = own[["subset", "run", "against"]].drop_duplicates().shape[0] == 1
        what = ("metric", "compared") if one_pair else ("comparison", "made")
        yield f"{counted(len(lost), what[0])} could not be {what[1]}: {', '.join(named)}."


def without_reference(frame: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """Which metrics have no value because a subset has no reference, and how many are compared all the same: a sentence
    for all such subsets, or none. Where no metric needs a reference, which ones lack its value.
    """
    lacking = frame[frame["missing"].astype(str).str.contains(NO_REFERENCE, regex=False)]
    how = "by reference (--reference; `avbench reference for` builds it from a data set)."
    if lacking.empty:
        return _without_target(differences, how)
    subsets, metrics = list(dict.fromkeys(lacking["subset"])), list(dict.fromkeys(lacking["metric"]))
    bands = differences["subset"].isin(subsets) & (differences["direction"] == Direction.BAND.value)
    compared = {*differences.loc[bands & could_be_made(differences), "metric"]}
    aimless = (
        f", and {counted(len(compared), 'metric')} that should match real clips can show a difference, but not which "
        "side is better"
        if compared
        else ""
    )
    alone = len(set(frame["subset"])) == 1
    where = "There is" if alone else f"{all_of(subsets)} {'has' if len(subsets) == 1 else 'have'}"
    lack = f"{all_of(metrics)} {'has' if len(metrics) == 1 else 'have'} no value{'' if alone else ' there'}"
    return [f"{where} no reference of real clips, so {lack}{aimless}: give one {how}"]


def lost_subsets(frame: pd.DataFrame) -> Iterator[str]:
    """Subsets that not every run has: they count in no comparison with a run that lacks them."""
    had = frame.groupby("subset", sort=False)["model"].unique()
    for subset, models in had.items():
        lacking = [model for model in dict.fromkeys(frame["model"]) if model not in models]
        if lacking:
            has = "has" if len(lacking) == 1 else "have"
            yield f"{all_of(lacking)} {has} no clips of the subset {subset}: nothing is compared there."


def unscored(frame: pd.DataFrame) -> Iterator[str]:
    """Metrics that a run was not scored by, on subsets that it has: they count in no comparison with it."""
    lacking: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for model, own in frame.groupby("model", sort=False):
        scored = {*zip(own["subset"], own["metric"], strict=True)}
        here = frame.loc[frame["subset"].isin(own["subset"])]
        names = [
            f"{spelled(metric)} on {subset}" if metric in {*own["metric"]} else spelled(metric)
            for subset, metric in zip(here["subset"], here["metric"], strict=True)
            if (subset, metric) not in scored
        ]
        if names:
            lacking[*dict.fromkeys(names)].append(str(model))
    for names, models in lacking.items():
        was, them = "was" if len(models) == 1 else "were", "it" if len(names) == 1 else "them"
        yield (
            f"{all_of(models)} {was} not scored by {listed(names, MOST_NAMED)}, so nothing is compared by {them}: "
            "`avbench measure` and `avbench evaluate`, each with --metric, add scores."
        )


def _between(row: Any, frame: pd.DataFrame) -> str:
    """Names the runs of a comparison that could not be made though both have a value; else an empty string."""
    here = (frame["subset"] == row.subset) & (frame["metric"] == row.metric)
    values = frame.loc[here & frame["model"].isin((row.run, row.against)), "value"]
    return f"between {row.against} and {row.run}" if values.notna().all() else ""


def _without_target(differences: pd.DataFrame, how: str) -> list[str]:
    """A sentence on the ≈ metrics that are compared without the reference's value, though none lacks a value."""
    bands = (differences["direction"] == Direction.BAND.value) & (differences["kind"] != TO_TARGET)
    asked = could_be_made(differences) & differences["primary"].astype(bool)
    rows: list[Any] = [*differences.loc[bands & asked].itertuples()]
    if not rows:
        return []
    they = "they" if len({row.metric for row in rows}) > 1 else "it"
    return [
        f"There is no reference value of {names_of(rows)} for all runs, so {they} can show a difference, but not which "
        f"side is better: give a reference {how}"
    ]
