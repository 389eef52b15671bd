"""Notices clips without a prompts file whose names look like several seeds of the same prompts.

Read as seeds are ``X-0``, ``X_0``, ``X/0``, ``X_seed0`` and ``seed0/X``, if most names are made so and several X have
the same numbers. Numbers like 0007 are taken for an index, unless the word seed stands before them.
"""

import json
import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from avbench.core import InputError, checked_id
from avbench.storage.media.clips_of_prompts import MOST_SEEDS

_LAST = re.compile(r"(.+?)[-_ /](seed[-_ ]?)?(\d+)", re.IGNORECASE)
_FOLDER = re.compile(r"(.+/)?seed[-_ ]?(\d+)/(.+)", re.IGNORECASE)
_INDEX = re.compile(r"0\d\d+")


@dataclass(frozen=True)
class _Seed:
    name: str
    prompt: str
    number: str


def seeds_note(names: Collection[str]) -> str | None:
    """Return a sentence if clips look like seeds: how many of how many prompts, and how they are counted as seeds."""
    of_prompt: defaultdict[str, list[_Seed]] = defaultdict(list)
    for seed in filter(None, map(_seed, sorted(names))):
        of_prompt[seed.prompt].append(seed)
    alike: defaultdict[tuple[int, ...], list[list[_Seed]]] = defaultdict(list)
    for seeds in of_prompt.values():
        ordered = sorted(seeds, key=lambda one: int(one.number))
        alike[tuple(int(one.number) for one in ordered)].append(ordered)
    several = [found for numbers, found in alike.items() if 1 < len(numbers) <= MOST_SEEDS and len(found) > 1]
    found = max(several, key=lambda one: len(one) * len(one[0]), default=[])
    seeds = [one for series in found for one in series]
    if 2 * len(seeds) <= len(names):
        return None
    return (
        f"clip names such as {seeds[0].name} and {seeds[1].name} look like {len(found[0])} seeds of {len(found)} "
        f"prompts, but count as {len(seeds)} prompts: if they are seeds, results look more certain than they are. To "
        f"count them as seeds, {_remedy(seeds, len(found[0]))}"
    )


def _seed(name: str) -> _Seed | None:
    if found := _FOLDER.fullmatch(name):
        return _Seed(name, f"{found[1] or ''}{found[3]}", found[2])
    found = _LAST.fullmatch(name)
    if found is None or (_INDEX.fullmatch(found[3]) and not found[2]):
        return None
    return _Seed(name, found[1], found[3])


def _remedy(seeds: Collection[_Seed], count: int) -> str:
    """What makes clips the seeds of prompts: a prompts file, and other names if clips of these would not be found."""
    prompt = next(iter(seeds)).prompt
    by_id = all(map(_is_id, {one.prompt for one in seeds}))
    signs = "-_/" if by_id else "-_"  # as `clips:` finds the clips of an id, or of a caption
    found = all(one.name in {f"{one.prompt}{sign}{one.number}" for sign in signs} for one in seeds)
    fitting = found and {one.number for one in seeds} == {*map(str, range(count))}
    name = prompt if by_id else "<id>"
    line = {"prompt": prompt} if fitting and not by_id else {"id": name, "prompt": "its caption"}
    shown = json.dumps(line, ensure_ascii=False)
    give = f"give another out (--out), and prompts (--prompts FILE.jsonl) with a line for each prompt, such as {shown}"
    return give if fitting else f"call them {name}-0, {name}-1 and so on, from 0, and {give}"


def _is_id(text: str) -> bool:
    try:
        return bool(checked_id(text, "prompt id"))
    except InputError:
        return False
