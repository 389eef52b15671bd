"""Defines the order in which a run's clips are made, and shards: how the clips are dealt to several machines.

Clips are ordered by rounds: the first prompt of every subset, then the second of every subset, and so on, each with all
its seeds. A run that stops early has therefore about as many clips of each subset. Shard ``i/n`` holds prompt ``j`` of
subset ``s`` of ``S`` (subsets sorted by name, both counted from 0) if ``(j + s·n // S) mod n = i − 1``. So the shards'
numbers of prompts of a subset differ by at most one, and a larger ``--limit`` or ``--seeds`` moves no prompt to another
shard. A prompt's seeds stay together, because some features see all clips of a prompt at once.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from avbench.core.errors import InputError
from avbench.core.prompt import Subset
from avbench.core.rows import Key

_WRITTEN = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True)
class Shard:
    """The part of a run that one of `count` commands makes; `number` counts from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read ``i/n``. Raises InputError unless 1 ≤ i ≤ n."""
        found = _WRITTEN.fullmatch(text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            msg = f"shard {text!r}: write i/n with 1 ≤ i ≤ n, for example 2/4 for the second of four"
            raise InputError(msg)
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def folder(self) -> str:
        """The shard as the name of a folder: ``2-of-4``."""
        return f"{self.number}-of-{self.count}"

    def holds(self, place: int, rank: int, subsets: int) -> bool:
        """Whether the shard holds the prompt at this place of a subset; `rank` is the subset's number among all
        `subsets`.
        """
        return (place + rank * self.count // subsets) % self.count == self.number - 1


def planned_keys(subsets: Sequence[Subset], seeds: Sequence[int], shard: Shard | None = None) -> list[Key]:
    """Return the key of every clip that a run or a shard should have, in the order in which clips are made.

    Raises:
        InputError: there is no clip in the shard.
    """
    keys = [Key(name, prompt, seed) for name, prompt in dealt_prompts(subsets, shard) for seed in seeds]
    if subsets and not keys:
        prompts = sum(len(subset.prompts) for subset in subsets)
        msg = f"shard {shard} has no prompt, because there are only {prompts} in all: make fewer shards"
        raise InputError(msg)
    return keys


def dealt_prompts(subsets: Sequence[Subset], shard: Shard | None = None) -> Iterator[tuple[str, str]]:
    """Yield the subset and id of each prompt of a run or a shard, in the order in which clips are made."""
    ordered = sorted(subsets, key=lambda subset: subset.name)
    for place, prompts in enumerate(itertools.zip_longest(*(subset.prompts for subset in ordered))):
        for rank, prompt in enumerate(prompts):
            if prompt is not None and (shard is None or shard.holds(place, rank, len(ordered))):
                yield ordered[rank].name, prompt.id
