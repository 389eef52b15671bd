"""Compares the clips that a rule chose with the prompts of the subset of that name: how far their tags match.

Real clips are of other scenes than a subset's prompts, so a distance to them also measures that. For each tag that both
have, the overlap is the sum of the smaller shares of each value: 1 if the values are equally frequent, 0 if they share
none. A data set's own word counts as the prompts' words for the same thing, in the proportion in which the prompts have
them. The amount of motion is a tag of the prompts and a measurement of the clips; it is compared by the tag's limits.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from avbench.core import Prompt, Subset

AMOUNTS = {"still": 0.02, "small": 0.08, "medium": 0.25, "large": float("inf")}
"""Amount of motion → the largest, in frame diagonals a second. The comments in the subsets' cards state the same."""
COMPARED = ("amount", "contacts", "materials", "action", "motion", "actors")
"""The tags that are compared, if the prompts have them."""
WORDS = {
    "hit": ("strike", "tap"),
    "scratch": ("scrape",),
    "carpet": ("textile",),
    "cloth": ("textile",),
    "dirt": ("earth",),
    "grass": ("plant",),
    "gravel": ("earth", "stone"),
    "leaf": ("plant",),
    "plastic-bag": ("plastic",),
    "rock": ("stone",),
    "tile": ("ceramic",),
}
"""Word of The Greatest Hits (Owens et al., 2016) → the words that the prompts of the headline subsets have for it."""
_SHOWN = 4


@dataclass(frozen=True)
class TagMatch:
    """One tag of the prompts and the clips."""

    tag: str
    prompts: Mapping[str, float]
    """Value → share of the prompts; a prompt with several values counts in parts."""
    clips: Mapping[str, float]
    """The same of the clips; empty if they do not have the tag."""

    @property
    def overlap(self) -> float:
        """1 if the shares are equal, 0 if no value is shared."""
        found: dict[str, float] = defaultdict(float)
        for word, share in self.clips.items():
            words = self._words_of(word)
            for one in words:
                found[one] += share * self.prompts[one] / sum(self.prompts[each] for each in words)
        return sum(min(share, found[value]) for value, share in self.prompts.items())

    def _words_of(self, word: str) -> tuple[str, ...]:
        """The prompts' words for a word of the clips."""
        return tuple(one for one in ((word,) if word in self.prompts else WORDS.get(word, ())) if one in self.prompts)

    @property
    def sentence(self) -> str:
        """The match in words."""
        if not self.clips:
            return f"{self.tag}: the clips do not have this tag (prompts: {_shares(self.prompts)})"
        clips = {f"{word}{self._in_words(word)}": share for word, share in self.clips.items()}
        return f"{self.tag}: overlap {self.overlap:.2f} (prompts: {_shares(self.prompts)}; clips: {_shares(clips)})"

    def _in_words(self, word: str) -> str:
        words = self._words_of(word)
        return f" (as {' or '.join(words)})" if words not in ((), (word,)) else ""


def matches(asked: Subset, chosen: Subset, measured: pd.DataFrame) -> list[TagMatch]:
    """Compare a subset's prompts with chosen clips, tag by tag.

    Args:
        asked: the subset that the reference is for.
        chosen: the subset of the clips.
        measured: the measures of the chosen clips, one row per clip.
    """
    found = []
    for tag in COMPARED:
        prompts = _distribution(one.tags.get(tag) for one in asked.prompts)
        if prompts:
            found.append(TagMatch(tag, prompts, _distribution(_of_clips(tag, chosen.prompts, measured))))
    return found


def _of_clips(tag: str, clips: Sequence[Prompt], measured: pd.DataFrame) -> Iterable[Any]:
    if tag == "amount":
        return [
            next(name for name, most in AMOUNTS.items() if one <= most) for one in measured["motion_amount"].dropna()
        ]
    if tag == "contacts":
        labelled = [one.tags["contacts_seconds"] for one in clips if "contacts_seconds" in one.tags]
        return map(len, labelled) if labelled else measured["events"].dropna().astype(int)
    return (one.tags.get(tag, one.tags.get(f"{tag}s")) for one in clips)


def _distribution(values: Iterable[Any]) -> dict[str, float]:
    """The share of each value; a list of values counts as one, and None as nothing."""
    counts: dict[str, float] = defaultdict(float)
    for value in values:
        several = value if isinstance(value, list | tuple) else [] if value is None else [value]
        for one in several:
            counts[str(one)] += 1 / len(several)
    total = sum(counts.values())
    return {value: count / total for value, count in sorted(counts.items(), key=lambda one: one[1], reverse=True)}


def _shares(shares: Mapping[str, float]) -> str:
    shown = [f"{value} {100 * share:.0f} %" for value, share in list(shares.items())[:_SHOWN]]
    return ", ".join(shown) + (" …" if len(shares) > _SHOWN else "")
