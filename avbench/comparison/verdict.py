"""Writes the answer in plain sentences: which run is better, by how much, what is open, and what could not be compared.

Console, page, markdown and the Python API all print these sentences. They are made of the frame of paired differences
(differences.py) and of the score table (score_table.py), and of nothing else.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from avbench.comparison.differences import (
    ALIKE,
    NO_WORSE,
    POOLS,
    TO_TARGET,
    by_pair,
    could_be_made,
    of_answer,
    sided,
    worsening,
)
from avbench.comparison.not_compared import lost_subsets, not_compared, unscored, without_reference
from avbench.comparison.score_table import MADE_DIFFERENTLY
from avbench.comparison.wording import (
    MOST_NAMED,
    by_metric,
    names_of,
    on_subset,
    p_value,
    percent,
    spelled,
)
from avbench.core import Direction, all_of, counted, listed
from avbench.statistics.paired import ALPHA, LEAST_PROMPTS

MOST_NAMED_OF_MANY = 2
"""The same where there are several pairs of runs, and so several such sentences."""
EARLY = (
    "Not settled: distances are left out, and whoever stops at an early look because a difference is seen gets more "
    "false alarms than 5 %."
)
"""Stands behind every preliminary verdict."""


def verdict(frame: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """The answer, one sentence or two for each finding.

    Args:
        frame: `score_table.scores_frame` or `leaderboard.leaderboard` of the runs.
        differences: `differences.differences` of the same runs.

    Returns:
        Of two runs: what is shown better and by how much, what is open and the number of prompts that would settle the
        nearest comparison, and what could not be compared, grouped by reason. Of more runs: their order with the places
        that are open, one sentence for each pair, and the rest for all pairs together.
    """
    frame = frame.loc[~frame["subset"].isin(POOLS)]
    models, own = list(dict.fromkeys(frame["model"])), of_answer(differences)
    if len(models) == 1:
        subsets = list(dict.fromkeys(frame["subset"]))
        where = subsets[0] if len(subsets) == 1 else f"{len(subsets)} subsets"
        alone = f"{models[0]} on {where}: {_of_one(frame)}"
        return [alone, *_in_reference(frame), *without_reference(frame, own)]
    if own.empty:
        return [f"Nothing could be compared: {all_of(models)} have no metric on a common subset."]
    pairs = [_Pair(run, against, rows, frame) for (run, against), rows in by_pair(differences).items()]
    if len(pairs) == 1:
        found = [*_of_two(pairs[0])]
    else:
        found = [*_order(models, own), *(sentence for pair in pairs for sentence in _of_many(pair))]
    limits = (
        _within_margin(pairs),
        _targets(pairs),
        _in_reference(frame),
        _without_reach(pairs),
        _nearest(pairs),
        _exploratory(pairs),
        unscored(frame),
        not_compared(own, frame),
        lost_subsets(frame),
    )
    return [*found, *itertools.chain(*limits), *without_reference(frame, own)]


def _of_one(frame: pd.DataFrame) -> str:
    """What the table has of one run, and what the run lacks for a verdict."""
    clips = int(frame["n"].to_numpy().max())
    if clips == 0:
        return "no metric has a value."
    lacks = "Give a second model to compare it with."
    if clips < LEAST_PROMPTS:
        lacks = f"Numbers of {counted(clips, 'clip')} allow no conclusion: at least {LEAST_PROMPTS} prompts are needed."
    return f"the table has its numbers. {lacks}"


def preliminary(differences: pd.DataFrame, done: int, planned: int) -> str:
    """The sentence for people who look before a run is finished. Nothing in it counts as shown.

    Args:
        differences: `differences.differences` of one pair of runs, on the clips that both have until now.
        done: prompts that both have.
        planned: prompts that both will have.
    """
    after = f"Preliminary, after {done} of {counted(planned, 'prompt')}"
    pairs = [_Pair(run, against, rows, pd.DataFrame()) for (run, against), rows in by_pair(differences).items()]
    (pair,) = pairs or [None]
    if done < LEAST_PROMPTS:
        return f"{after}: these are too few prompts to see a difference; {LEAST_PROMPTS} are the least."
    if pair is None or not pair.made:
        return f"{after}: nothing can be compared yet."
    every = counted(pair.made, "comparison")
    ahead = [
        f"{name} is ahead so far in {names_of(won, several=pair.several)} ({len(won)} of {every})"
        for name, won in ((pair.run, pair.better), (pair.against, pair.worse))
        if won
    ]
    found = ", ".join(ahead) or f"no difference between {pair.against} and {pair.run} is seen so far"
    return f"{after}: {found}. {EARLY}"


def arm_verdict(scores: pd.DataFrame, differences: pd.DataFrame, pairings: Sequence[str]) -> list[str]:
    """The answer on arms with several trainings, which these are and how paired, and what an exact test could show.

    Args:
        scores: `ArmTables.scores`.
        differences: `ArmTables.differences` of the same arms.
        pairings: `ArmTables.notes`.
    """
    found = [*verdict(scores, differences), *pairings]
    coarse = differences[differences["least_p"] > ALPHA]
    if len(coarse):
        found.append(
            f"With so few trainings the exact test, which relabels whole trainings, cannot give a p below "
            f"{coarse['least_p'].max():.2g}; p and intervals here are Student's t over trainings and prompts."
        )
    return found


def effect(row: Any) -> float:
    """The difference in a row of `differences`, in units of the smallest detectable one.

    Above 0 the run is better than the other; without a better side, it has more. NaN where nothing was compared, and
    infinite where every clip differs by the same, so that any difference could be detected.
    """
    size = -worsening(row) if sided(row) else row.difference
    if pd.isna(size) or pd.isna(row.p):
        return float("nan")
    if not size:
        return 0.0
    return float(size / row.detectable) if row.detectable > 0 else float(np.copysign(np.inf, size))


def ahead(frame: pd.DataFrame, differences: pd.DataFrame) -> pd.Series:
    """Which rows of a score table the verdict calls better than another run, and worse than none: True or False."""
    rows: list[Any] = [*differences.itertuples()]
    shown = [row for row in rows if isinstance(row.better, str)]
    won = {(row.subset, row.metric, row.better) for row in shown}
    lost = {(row.subset, row.metric, row.against if row.better == row.run else row.run) for row in shown}
    where = pd.Series([*zip(frame["subset"], frame["metric"], frame["model"], strict=True)], frame.index, dtype=object)
    return where.isin(won - lost)


class _Pair:
    """The comparisons of a run with another, sorted into what they show."""

    def __init__(self, run: str, against: str, rows: pd.DataFrame, frame: pd.DataFrame) -> None:
        self.run, self.against, self.frame = run, against, frame
        self.several = len({*rows["subset"]}) > 1
        able = could_be_made(rows)
        made = rows.loc[able & rows["primary"].astype(bool)]
        self.made = len(made)
        """Comparisons that could be made, without those that a plan does not ask for."""
        self.out_of_reach = out_of_reach(made)
        self.exploratory = int(able.sum()) - len(made)
        family: Any = rows["family"].max()
        self.corrected = "" if not family or family == len(made) else f", corrected for {int(family)}"
        """What Holm's correction counts, if it is another number: pools over subsets are in it, too."""
        self.size = _size(made)
        """How much the comparisons rest on, in words."""
        largest_first: list[Any] = sorted(made.itertuples(), key=lambda row: -abs(effect(row)))
        self.better = [row for row in largest_first if row.better == run]
        self.worse = [row for row in largest_first if row.better == against]
        self.beside = [row for row in largest_first if not sided(row) and row.shown]
        self.alike = [row for row in largest_first if row.verdict == ALIKE]
        self.no_worse = [row for row in largest_first if row.verdict == NO_WORSE and row.better != run]
        settled = [*self.better, *self.worse, *self.beside, *self.alike]
        self.open = [row for row in largest_first if row not in settled]

    def findings(self, rows: Sequence[Any], subject: str, most: int = MOST_NAMED) -> str:
        """What rows show of one of the two runs, by metric, the largest first."""
        return listed((self._finding(found, subject) for found in by_metric(rows).values()), most)

    def _finding(self, rows: Sequence[Any], subject: str) -> str:
        first = rows[0]
        if len(rows) > 1:
            largest = max(row.p_holm for row in rows)
            certainty = f"p {p_value(largest)}" if largest < 0.001 else f"p at most {p_value(largest)}"
            return f"{spelled(first.metric)} (on {len(rows)} subsets, {certainty})"
        where = f"{on_subset(first.subset)}, " if self.several else ""
        return f"{spelled(first.metric)} ({where}{self._amount(first, subject)}, p {p_value(first.p_holm)})"

    def _amount(self, row: Any, subject: str) -> str:
        more = row.difference if subject == self.run else -row.difference
        size = (f"{abs(more):.0f}" if abs(more) >= 999.5 else f"{abs(more):.3g}") + (f" {row.unit}" if row.unit else "")
        if row.kind == TO_TARGET:
            return f"{'nearer to' if more < 0 else 'farther from'} the reference by {size}"
        return f"{'lower' if more < 0 else 'higher'} by {size}{self._share(row, subject)}"

    def _share(self, row: Any, subject: str) -> str:
        """The difference in percent of the other run's value, where both values are above 0, of the clips that were
        compared, and made alike.
        """
        if str(getattr(row, "mark", None)).startswith(MADE_DIFFERENTLY) or row.dropped > 0:
            return ""
        here = self.frame.loc[(self.frame["subset"] == row.subset) & (self.frame["metric"] == row.metric)]
        values: dict[str, float] = dict(zip(here["model"], here["value"].to_numpy(float), strict=True))
        other = values.get(self.against if subject == self.run else self.run, np.nan)
        known = other > 0 and values.get(subject, np.nan) > 0 and abs(row.difference) < 10 * other
        return f" or {percent(abs(row.difference) / other)}" if known else ""


def _of_two(pair: _Pair) -> Iterator[str]:
    yield from _without_winner(pair, f"{pair.size}, {counted(pair.made, 'comparison')}{pair.corrected}")
    for name, other, won in ((pair.run, pair.against, pair.better), (pair.against, pair.run, pair.worse)):
        if won:
            share = f"{len(won)} of {counted(pair.made, 'comparison')} ({pair.size}{pair.corrected})"
            yield f"{name} is better than {other} in {share}: {pair.findings(won, name)}."
    yield from _beside(pair, MOST_NAMED)


def _without_winner(pair: _Pair, size: str) -> Iterator[str]:
    """The sentence on a pair of which neither run is shown to be better; none on others."""
    if not pair.made:
        nothing = "Nothing that the plan asks for" if pair.exploratory else "Nothing"
        yield f"{nothing} could be compared between {pair.against} and {pair.run}."
    elif not pair.better and not pair.worse:
        yield f"{_none_shown(bool(pair.beside))} between {pair.against} and {pair.run} ({size})."


def _none_shown(beside: bool) -> str:
    return "No difference in quality shown" if beside else "No difference shown"


def _beside(pair: _Pair, most: int) -> Iterator[str]:
    """The differences that are shown in metrics without a better side, and in those that lack the reference's value."""
    for of_band, why in (
        (True, "; which is better, only a reference of real clips could tell"),
        (False, ", where neither more nor less is better"),
    ):
        if rows := [row for row in pair.beside if (row.direction == Direction.BAND) == of_band]:
            yield f"{pair.run} differs from {pair.against} in {pair.findings(rows, pair.run, most)}{why}."


def _of_many(pair: _Pair) -> Iterator[str]:
    parts = []
    for how, found in (("worse", pair.worse), ("better", pair.better)):
        if found:
            size = f"{len(found)} of {counted(pair.made, 'comparison')}" if not parts else str(len(found))
            parts.append(
                f"{how} {'than ' + pair.against + ' ' if not parts else ''}in {size}: "
                f"{pair.findings(found, pair.run, MOST_NAMED_OF_MANY)}"
            )
    if parts:
        yield f"{pair.run} is {'; it is '.join(parts)}."
    yield from _without_winner(pair, counted(pair.made, "comparison"))
    yield from _beside(pair, MOST_NAMED_OF_MANY)


def _order(models: Sequence[str], own: pd.DataFrame) -> Iterator[str]:
    """The order of more than two runs, cut only where every run above is ahead of every run below and never behind.

    So two runs that were not told apart, or of which each is ahead in something, are never put into an order.
    """
    wins = _wins(own)
    compared = {frozenset(pair) for pair in own[["run", "against"]].itertuples(index=False, name=None)}
    if not wins:
        none_shown, tried = _none_shown(bool(own["shown"].any())), "compared"
        if not could_be_made(own).any():
            none_shown, tried = "Nothing could be compared", "tried"
        unmet = [pair for pair in itertools.combinations(models, 2) if frozenset(pair) not in compared]
        if unmet:
            names = all_of(list(dict.fromkeys(itertools.chain(*unmet))))
            untested = f"{names} were not compared with each other (`avbench compare --all-pairs` does that)"
            yield f"{none_shown} in any pair that was {tried}; {untested}."
        else:
            yield f"{none_shown} among {all_of(models)}."
        return
    order = sorted(models, key=lambda one: sum(wins[other, one] - wins[one, other] for other in models))
    cuts = [0]
    for place in range(1, len(order)):
        if all(wins[one, other] and not wins[other, one] for one in order[:place] for other in order[place:]):
            cuts.append(place)
    groups = [order[start:end] for start, end in itertools.pairwise([*cuts, len(order)])]
    named = [
        group[0] if len(group) == 1 else f"{all_of(group)} ({_why_together(group, wins, compared)})" for group in groups
    ]
    yield f"Best to worst: {', then '.join(named)}." if len(groups) > 1 else f"No clear order: {named[0]}."


def _why_together(group: Sequence[str], wins: Counter[tuple[str, str]], compared: Collection[frozenset[str]]) -> str:
    pairs = [*itertools.permutations(group, 2)]
    if all(any(wins[one, other] for other in group) for one in group):
        return "each is ahead of another in some metrics" if len(group) > 2 else "each is ahead in some metrics"
    if any(wins[pair] for pair in pairs):
        unmet = any(frozenset(pair) not in compared for pair in pairs)
        return "not all told apart; some were not compared with each other" if unmet else "not all told apart"
    return "not told apart" if any(frozenset(pair) in compared for pair in pairs) else "not compared with each other"


def _wins(own: pd.DataFrame) -> Counter[tuple[str, str]]:
    """(One, other) → in how many metrics on a subset one is shown to be better, directly or through a third run.

    Letters of the leaderboard do not count: they are corrected within a column, and these comparisons over all columns.
    """
    won: defaultdict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    rows: list[Any] = [*own.loc[own["better"].notna()].itertuples()]
    for row in rows:
        won[row.subset, row.metric].add((row.better, row.against if row.better == row.run else row.run))
    wins: Counter[tuple[str, str]] = Counter()
    for pairs in won.values():
        for through, one, other in itertools.permutations({name for pair in pairs for name in pair}, 3):
            if (one, through) in pairs and (through, other) in pairs:
                pairs.add((one, other))
        wins.update(pairs)
    return wins


def _within_margin(pairs: Sequence[_Pair]) -> Iterator[str]:
    """What the margins of a plan show. These tests are not corrected for how many there are."""
    for pair in pairs:
        if pair.alike:
            named = names_of(pair.alike, several=pair.several)
            yield f"{pair.against} and {pair.run} are alike in {named}, to within the plan's margin."
        if pair.no_worse:
            named = names_of(pair.no_worse, several=pair.several)
            yield f"{pair.run} is no worse than {pair.against} in {named} by more than the plan's margin."


def _exploratory(pairs: Sequence[_Pair]) -> Iterator[str]:
    """How many comparisons the plan does not ask for."""
    if count := sum(pair.exploratory for pair in pairs):
        are, them = ("is", "it") if count == 1 else ("are", "them")
        exploratory = f"{counted(count, 'comparison')} {are} exploratory"
        yield f"{exploratory}: the plan does not ask for {them}, so nothing is shown."


def _targets(pairs: Sequence[_Pair]) -> Iterator[str]:
    """What no difference means where values are compared with the reference's."""
    rows = [row for pair in pairs if not pair.better and not pair.worse for row in pair.open if row.kind == TO_TARGET]
    if rows:
        yield f"In {names_of(rows)}, distances from the reference's value are compared, not the values themselves."


def _in_reference(frame: pd.DataFrame) -> Iterator[str]:
    """A sentence for each run with clips that are in the reference itself."""
    if "shared" not in frame:
        return
    rows = frame.loc[(frame["shared"].fillna(0) > 0) & ~frame["subset"].isin(POOLS)]
    of_subset = "" if len(set(frame["subset"])) == 1 else " of {}"
    groups: Any = rows.groupby(["model", "subset"], sort=False)
    for (model, subset), of_run in groups:
        row = of_run.loc[of_run["shared"].idxmax()]
        there = f"in the reference{of_subset.format(subset)} itself"
        if row["shared"] >= row["n"]:
            yield (
                f"All {row['n']:.0f} clips of {model} are {there}, so it is near the reference by that alone: numbers "
                "that rest on the reference cannot judge it."
            )
        else:
            yield (
                f"{row['shared']:.0f} of {row['n']:.0f} clips of {model} {'is' if row['shared'] == 1 else 'are'} "
                f"{there}, which brings it nearer to the reference by that alone."
            )


def out_of_reach(rows: pd.DataFrame) -> str | None:
    """The sentence that none of the comparisons that were made could show a difference, if it is so."""
    if "out_of_reach" not in rows:  # of arms, which are not compared by swaps
        return None
    made = rows.loc[could_be_made(rows) & rows["primary"].astype(bool)]
    if made.empty or made["out_of_reach"].isna().any():
        return None
    said = str(made["out_of_reach"].iloc[made["prompts"].to_numpy(float).argmax()])
    return f"{said[0].upper()}{said[1:]}"


def _without_reach(pairs: Sequence[_Pair]) -> Iterator[str]:
    """Why pairs of runs could show nothing, whatever their numbers are."""
    for said in dict.fromkeys(pair.out_of_reach for pair in pairs):
        which = [f"{pair.against} and {pair.run}" for pair in pairs if pair.out_of_reach == said]
        if said:
            yield said + ("." if len(which) == len([pair for pair in pairs if pair.made]) else f" ({all_of(which)}).")


def _nearest(pairs: Sequence[_Pair]) -> Iterator[str]:
    """The open comparison that the smallest study would settle, where it is larger than this one."""
    known = [(*found, pair, row) for pair in pairs for row in pair.open if (found := _settling(row))]
    if known:
        _, words, pair, row = min(known, key=lambda one: one[0])
        of = f" between {pair.against} and {pair.run}" if len(pairs) > 1 else ""
        where = f" {on_subset(row.subset)}" if pair.several else ""
        yield (
            f"Closest to a clear result is {spelled(row.metric)}{where}{of}: {words} would show its difference, if the "
            "true one is as large as the one seen."
        )


def _settling(row: Any) -> tuple[float, str] | None:
    """What would settle a comparison, and its size: in prompts, or for arms in times of what there is."""
    if hasattr(row, "needed"):
        words = f"about {row.needed:.0f} prompts"
        if row.kind == "distance":  # a part of its error is the reference's, which more prompts leave as it is
            times = row.needed / row.prompts
            words += f", with {times:.0f}" if times >= 10 else f", with {times:.2g}"
            words += " times as many real clips,"
        return (row.needed, words) if row.needed > row.prompts else None
    trainings = min(row.trainings, row.trainings_against)
    ways = (("trainings per arm", row.needed_trainings, trainings), ("prompts", row.needed_prompts, row.prompts))
    larger = [(needed / there, f"about {needed:.0f} {what}") for what, needed, there in ways if needed > there]
    return (min(larger)[0], " or ".join(words for _, words in larger)) if larger else None


def _size(made: pd.DataFrame) -> str:
    """The numbers of prompts, and of arms those of trainings before them."""
    prompts = _range(made["prompts"].to_numpy(float), "prompt")
    if "trainings" not in made:
        return prompts
    per_arm = _range(made[["trainings", "trainings_against"]].to_numpy(float), "training")
    return f"{per_arm} per arm, {prompts}"


def _range(known: np.ndarray, noun: str) -> str:
    counts = {int(count) for count in known[~np.isnan(known)]}
    low, high = (min(counts), max(counts)) if counts else (0, 0)
    return counted(low, noun) if low == high else f"{low} to {high} {noun}s"
