"""Computes how far each metric agrees with the people who voted, and how far people agree among themselves.

A metric's **accuracy** is the share of votes in which it prefers the clip that the voter preferred. Only votes with a
clear choice count: a vote for neither clip has no side to agree with. A metric that gives both clips one value counts
half. 0.5 is chance.

What a metric can reach is bounded by how far people agree. Two rows say so, on the same votes and the same scale, of
pairs on which several people made a clear choice: how often *one other rater* chose the same clip, and how often *the
majority of the other raters* did (half where they are split). The second is the accuracy that somebody reaches who
knows what the others chose: the ceiling. A majority of few raters errs, so with few raters the true ceiling is higher.

Intervals and tests are clustered by prompt: they say what other prompts could give with raters like these.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avbench.comparison import preferences
from avbench.comparison import votes as ballots
from avbench.comparison.differences import Side, clip_targets
from avbench.comparison.score_table import check_comparable, require_known_fields, scored_by
from avbench.core import Direction, InputError, counted
from avbench.metrics.table import Metric
from avbench.statistics import paired, uncertainty
from avbench.storage.runs.folder import RunFolder

ALL = "all subsets"
PERSON, MAJORITY = "one other rater", "majority of the other raters"
_MANY_RATERS = 7
_CEILING = "about the best that a metric can reach"
_ABOVE = (
    f"the best that a metric can reach is higher, because a majority of fewer than {_MANY_RATERS} raters errs as well"
)
_ROUNDING = 1e-9
"""Two values of a metric are equal if they differ by less than this share of them."""


@dataclass(frozen=True)
class Agreement:
    """How often a metric, or other people, agree with the votes of one subset."""

    subset: str
    judge: str
    """A metric's name, PERSON or MAJORITY."""
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    """95 % interval, clustered by prompt; None with one prompt."""
    p: float | None = None
    """Two-sided, of "as often as chance"; None for people."""
    p_holm: float | None = None
    """The same, for all metrics and subsets together."""
    votes: int = 0
    """Clear votes that it was compared with."""
    prompts: int = 0
    equal: int = 0
    """How many of those votes are on clips that it cannot tell apart."""
    unmeasured: int = 0
    """Clear votes on clips of which one has no value."""
    missing: str | None = None
    """Why there is no accuracy."""


def read(files: Sequence[Path], folders: Sequence[RunFolder]) -> preferences.Preferences:
    """The votes of exported files and of preference files together; a file's suffix says which it is.

    Raises:
        InputError: a file cannot be read, a preference file is given without runs, or no vote is left.
    """
    studies = [path for path in files if path.suffix.lower() in preferences.SUFFIXES]
    if others := [path for path in files if path.suffix.lower() not in (".json", *preferences.SUFFIXES)]:
        msg = (
            f"{others[0]} is no file of votes, by its suffix: a page exports .json, and preferences of other studies "
            f"are {' or '.join(preferences.SUFFIXES)}"
        )
        raise InputError(msg)
    if studies and not folders:
        msg = f"{studies[0]} is a preference file; name the runs that it is about with --run"
        raise InputError(msg)
    found = preferences.read(studies, folders)
    exported = [path for path in files if path not in studies]
    parts = [part for part in (ballots.read(exported) if exported else None, found.votes) if part is not None]
    votes: Any = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    names = [folder.name for folder in folders] or [*votes["left"], *votes["right"]]
    known = votes["left"].isin(names) & votes["right"].isin(names)
    left_out = [*found.left_out]
    if not known.all():
        unknown = sorted({*votes["left"], *votes["right"]} - {*names})
        left_out.append(
            f"{(~known).sum()} of {len(votes)} votes are on runs that were not given: {', '.join(unknown)}."
        )
    if not known.any():
        msg = " ".join(["no vote is left to be counted.", *left_out])
        raise InputError(msg)
    return preferences.Preferences(votes[known].reset_index(drop=True), left_out)


def agreement(
    votes: pd.DataFrame,
    folders: Sequence[RunFolder],
    *,
    metrics: Sequence[str] | None = None,
    allow: Sequence[str] = (),
) -> pd.DataFrame:
    """One row per subset and judge (the fields of `Agreement`), the most accurate first; `ALL` pools several subsets.

    Args:
        votes: of `read`, on these runs.
        folders: the evaluated runs that were voted on.
        metrics: names of the metrics; all for None.
        allow: fields in which runs may differ all the same.

    Raises:
        InputError: a run was not evaluated, two were made differently in a field that is not allowed, or none has an
            allowed field.
    """
    require_known_fields(folders, allow)
    sides = [Side(folder, metrics) for folder in folders]
    for one, other in itertools.combinations(sides, 2):
        check_comparable(other.made, one.made, allow)
    names = [side.made.name for side in sides]
    choice = votes["vote"].map(ballots.CHOICES.get).to_numpy(dtype=float)
    preferred: dict[str, np.ndarray | str] = {}
    scored = {name: side.folder for side in sides for _, name in side.scores}
    for name, folder in scored.items():
        metric = scored_by(folder, name)
        if (reason := unable(metric)) is not None:
            preferred[name] = reason
            continue
        references = (score.reference for side in sides for (_, one), score in side.scores.items() if one == name)
        if metric.direction is Direction.BAND and not any(value is not None for value in references):
            preferred[name] = _NO_REFERENCE
            continue
        found = np.full(len(votes), np.nan)
        pairs: Any = votes.groupby(["subset", "left", "right"], sort=False)
        for (subset, left, right), of_pair in pairs:
            where, pair = (str(subset), name), [sides[names.index(str(run))] for run in (left, right)]
            if any(where not in side.values for side in pair):
                continue
            clips = pd.MultiIndex.from_frame(of_pair[["prompt", "seed"]])
            one, other = (side.values[where].reindex(clips).to_numpy(dtype=float) for side in pair)
            goal = clip_targets(metric, where, pair[0], pair[1], [*of_pair["prompt"]])
            found[of_pair.index] = prefers(one, other, metric.direction, goal)
        preferred[name] = found
    return table(votes, choice, preferred)


_NO_REFERENCE = "its better side is the reference's value, and there is none for these clips"


def unable(metric: Metric) -> str | None:
    """Why a metric cannot prefer one of two clips; None if it can."""
    if not metric.per_clip:
        return "it compares sets of clips and has no value of a single clip"
    return "neither side of it is better" if metric.direction is Direction.NEITHER else None


def prefers(
    left: np.ndarray, right: np.ndarray, direction: Direction, targets: np.ndarray | float | None = None
) -> np.ndarray:
    """Which clip a metric prefers: 1 the left, 0 the right, 0.5 where they are equal, NaN where it cannot say.

    Args:
        left: ``[votes]``: its values of the clips on the left; NaN where there is none.
        right: ``[votes]``, as `left`.
        direction: which values are better.
        targets: ``[votes]``: the reference's value: for a band metric the nearer clip is preferred.
    """
    rounding = _ROUNDING * np.maximum(np.abs(left), np.abs(right))
    if direction is Direction.BAND:
        if targets is None:
            return np.full(len(left), np.nan)
        left, right, direction = np.abs(left - targets), np.abs(right - targets), Direction.LOWER
    apart = left - right if direction is Direction.HIGHER else right - left
    apart = np.where(np.abs(apart) <= rounding, 0.0, apart)
    return (np.sign(apart) + 1) / 2


def table(votes: pd.DataFrame, choice: np.ndarray, preferred: Mapping[str, np.ndarray | str]) -> pd.DataFrame:
    """The rows of `agreement`.

    Args:
        votes: subset, prompt, seed, left, right and rater of each vote.
        choice: ``[votes]``: 1 for the left clip, 0 for the right one, 0.5 for neither.
        preferred: per metric what it prefers, as of `prefers`, or the sentence why it cannot.
    """
    subsets = list(dict.fromkeys(votes["subset"]))
    rows: list[Agreement] = []
    for subset in [*([ALL] if len(subsets) > 1 else []), *subsets]:
        inside = np.ones(len(votes), dtype=bool) if subset == ALL else (votes["subset"] == subset).to_numpy()
        kept = inside & (choice != 0.5)
        clear: Any = votes[kept]
        chosen = choice[kept]
        rows += _people(subset, clear, chosen)
        for name, side in preferred.items():
            if isinstance(side, str):
                rows.append(Agreement(subset, name, missing=side))
                continue
            share = 1 - np.abs(chosen - side[kept])
            rows.append(accuracy(subset, name, clear, share, tested=True))
    frame = pd.DataFrame(rows).astype(dict.fromkeys(("accuracy", "low", "high", "p", "p_holm"), float))
    tested = frame["p"].notna()
    frame.loc[tested, "p_holm"] = paired.holm(frame.loc[tested, "p"].to_numpy())
    order = frame["subset"].map([ALL, *subsets].index)
    frame = frame.assign(order=order).sort_values(["order", "accuracy"], ascending=[True, False], kind="stable")
    return frame.drop(columns="order").reset_index(drop=True)


def _same_clips(votes: Any) -> list[pd.Series]:
    """What is equal of votes on the same two clips, whichever of them was on the left."""
    swap = votes["left"] > votes["right"]
    clips = [votes["left"].where(~swap, votes["right"]), votes["right"].where(~swap, votes["left"])]
    return [votes["subset"], votes["prompt"], votes["seed"], *clips]


def _raters_of_a_pair(votes: Any) -> float:
    """How many people made a clear choice between the same two clips: the median over votes on pairs of several."""
    clear = votes[votes["vote"] != "tie"]
    raters = clear.groupby(_same_clips(clear), sort=False)["rater"].transform("size")
    return float(raters[raters > 1].median())


def _people(subset: str, clear: Any, chosen: np.ndarray) -> Iterator[Agreement]:
    """How far each vote agrees with those of the other raters on the same two clips."""
    swap = (clear["left"] > clear["right"]).to_numpy()
    first = np.where(swap, 1 - chosen, chosen)
    pair = clear.assign(first=first).groupby(_same_clips(clear), sort=False)
    others = pair["first"].transform("size").to_numpy() - 1
    same = np.where(first == 1, pair["first"].transform("sum"), others + 1 - pair["first"].transform("sum")) - 1
    several = others > 0
    shares = same[several] / others[several]
    for judge, share in ((PERSON, shares), (MAJORITY, (np.sign(shares - 0.5) + 1) / 2)):
        if several.any():
            yield accuracy(subset, judge, clear[several], share, tested=False)
        else:
            yield Agreement(subset, judge, missing="no two raters made a clear choice between the same two clips")


def accuracy(subset: str, judge: str, votes: pd.DataFrame, share: np.ndarray, *, tested: bool) -> Agreement:
    """A row of `table`.

    Args:
        subset: what the row is called.
        judge: a metric, PERSON or MAJORITY.
        votes: subset and prompt of each clear vote.
        share: ``[votes]``: 1 where the judge agrees with the vote, 0 where not, NaN where it cannot say.
        tested: whether to test against chance.
    """
    known = ~np.isnan(share)
    lost = int((~known).sum())
    if not known.any():
        reason = "no clear vote is on clips that both have a value of it" if lost else "there is no clear vote"
        return Agreement(subset, judge, unmeasured=lost, missing=reason)
    prompts = list(votes["prompt"][known])  # one that two subsets have is one prompt
    low, high = uncertainty.share_interval(share[known], prompts) or (None, None)
    return Agreement(
        subset,
        judge,
        float(share[known].mean()),
        low,
        high,
        p=paired.flip_test(share[known] - 0.5, prompts) if tested else None,
        votes=int(known.sum()),
        prompts=len(set(prompts)),
        equal=int((share[known] == 0.5).sum()) if tested else 0,
        unmeasured=lost,
    )


def verdict(frame: pd.DataFrame, votes: pd.DataFrame) -> list[str]:
    """The answer in plain sentences: which metrics agree with people, how far people agree, what was counted."""
    main: Any = frame[frame["subset"] == frame["subset"].iloc[0]]
    people, metrics = main[main["judge"].isin((PERSON, MAJORITY))], main[~main["judge"].isin((PERSON, MAJORITY))]
    measured = metrics[metrics["accuracy"].notna()]
    shown = measured[measured["p_holm"] < paired.ALPHA]
    better, worse = shown[shown["accuracy"] > 0.5], shown[shown["accuracy"] < 0.5]
    agree = (
        f"{len(better)} of {len(measured)} metrics agree{'s' * (len(better) == 1)}"
        if len(better)
        else "No metric is shown to agree"
    )
    listed = ", ".join(f"{row.judge} {row.accuracy:.0%}" for row in better.head(3).itertuples())
    sentences = [f"{agree} with the voters more often than chance" + (f": {listed}." if listed else ".")]
    if len(worse):
        sentences.append(f"People prefer the clip that these call worse: {', '.join(worse['judge'])}.")
    known = people.dropna(subset="accuracy").set_index("judge")["accuracy"]
    raters, prompts = len({*votes["rater"]}), len({*votes["prompt"]})
    if len(known):
        best = _CEILING if _raters_of_a_pair(votes) >= _MANY_RATERS else _ABOVE
        sentences.append(
            f"Two people agree in {known[PERSON]:.0%} of clear votes, and the majority of the others predicts "
            f"a vote in {known[MAJORITY]:.0%}: {best}."
        )
    else:
        sentences.append(
            "How far people agree is not known, because no two raters made a clear choice between the same two clips."
        )
    same = list(votes["vote"]).count("tie")
    given = f"{counted(len(votes), 'vote')} of {counted(raters, 'rater')} on {counted(prompts, 'prompt')}"
    sentences.append(f"{given}; {same} for neither clip are left out of the accuracy.")
    return sentences
