"""Finds the clips of prompts among the files of a folder: one rule for every command.

A prompt's clip is looked up in this order: for seed 0, by the path in the prompt's tag ``file`` (or another of
`FILE_TAGS`); by id, as ``<subset>/<id>-<seed>``, ``<id>-<seed>``, ``<id>_<seed>``, ``<id>/<seed>`` and, for seed 0,
``<id>``; by caption, as ``<caption>-<seed>``, ``<caption>_<seed>`` and, for seed 0, ``<caption>``; for seed 0, by the
end of that path, as ``c1`` for ``out/c1.mp4``.

A name that fits two prompts belongs to the one that it fits better: to the one that names the file, else to the one
whose id it is. So ``dog-1`` is seed 0 of the prompt ``dog-1`` and not seed 1 of ``dog``, unless a file ``dog-1-0``
shows that seeds are written out. If it fits both equally, as ``c1`` fits ``x/c1.mp4`` and ``y/c1.mp4``, it belongs to
neither, unless their captions are the same.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType

from avbench.core import Prompt
from avbench.storage.media.clip_files import named_file, same_name, without_suffix

MOST_SEEDS = 64
"""How many seeds of a prompt are looked for in a folder of clips, counted from 0; longer series are no seeds."""
_NUMBERED = re.compile(r"(.+)[-_/](0|[1-9]\d*)")


class _Fit(IntEnum):
    """In what way a name fits a prompt, the best first."""

    NAMED = 0
    ID = 1
    ID_AND_SEED = 2
    CAPTION = 3
    END = 4


@dataclass(frozen=True)
class Rival:
    """Another prompt that a name fits better, or as well."""

    prompt: str
    unless: tuple[str, ...] = ()
    """Names; if a clip has one of them, that one is the other prompt's."""


class Rivals:
    """Tells which names of a prompt's clips fit other prompts better, or as well."""

    def __init__(self, prompts: Iterable[Prompt]) -> None:
        self._whole = defaultdict[str, list[tuple[_Fit, Prompt]]](list)
        self._before_seed = defaultdict[str, list[tuple[_Fit, Prompt]]](list)
        for prompt in prompts:
            _add(self._whole[prompt.id], _Fit.ID, prompt)
            _add(self._before_seed[prompt.id], _Fit.ID_AND_SEED, prompt)
            for names in (self._whole, self._before_seed):
                _add(names[same_name(prompt.video_caption)], _Fit.CAPTION, prompt)
            if named := named_file(prompt.tags):
                _add(self._whole[without_suffix(Path(named))], _Fit.NAMED, prompt)
                for end in _ends(named):
                    _add(self._whole[end], _Fit.END, prompt)

    def of(self, subset: str, prompt: Prompt, seed: int) -> dict[str, Rival]:
        """The names of a prompt's clip of a seed that belong to another prompt, or to neither."""
        named = named_file(prompt.tags) if seed == 0 else ""
        names = [*_names(subset, prompt, seed), *((end, _Fit.END) for end in _ends(named))]
        found = ((name, self._of(name, fit, prompt)) for name, fit in names)
        return {name: rival for name, rival in found if rival}

    def fitting(self, name: str) -> Iterator[Prompt]:
        """Prompts that the whole name of a clip fits: of many with one caption the first ones, some more than once."""
        return (prompt for fit, prompt in self._claims(name) if fit < _Fit.END)

    def _of(self, name: str, fit: _Fit, prompt: Prompt) -> Rival | None:
        for its_fit, other in self._claims(name):
            if its_fit < fit and other.id != prompt.id:
                return Rival(other.id, unless=(f"{name}-0", f"{name}_0") if its_fit is _Fit.ID else ())
            if its_fit == fit and other.video_caption != prompt.video_caption:
                return Rival(other.id)
        return None

    def _claims(self, name: str) -> list[tuple[_Fit, Prompt]]:
        numbered = _NUMBERED.fullmatch(name)
        return [*self._whole.get(name, ()), *(self._before_seed.get(numbered[1], ()) if numbered else ())]


def _add(claims: list[tuple[_Fit, Prompt]], fit: _Fit, prompt: Prompt) -> None:
    """Note that a name fits a prompt. Of each fit two prompts suffice, and two captions if there are several: one label
    may be the caption of thousands.
    """
    alike = [one for its_fit, one in claims if its_fit is fit]
    if len(alike) < 2 or (len(alike) < 3 and prompt.video_caption not in {one.video_caption for one in alike}):
        claims.append((fit, prompt))


class ClipsOfPrompts:
    """The clips of a folder, by prompt."""

    def __init__(self, folder: Path, clips: Iterable[Path]) -> None:
        self._folder = folder
        self.by_name: dict[str, list[Path]] = {}
        """Path in the folder, as `without_suffix` gives it → the clips of this name, in the order of their paths."""
        for path in sorted(clips):
            self.by_name.setdefault(without_suffix(path.relative_to(folder)), []).append(path)

    def of(self, subset: str, prompt: Prompt, seed: int, rivals: Mapping[str, Rival]) -> list[Path]:
        """The files of the first rule that matches; several only if they differ in suffix or Unicode form."""
        named = named_file(prompt.tags) if seed == 0 else ""
        if found := self.at(named):
            return found
        for name, _ in _names(subset, prompt, seed):
            if name in self.by_name and not self.goes_to(rivals.get(name)):
                return self.by_name[name]
        return self.at_end_of(named, rivals)

    def of_all(self, prompts: Sequence[Prompt]) -> dict[Path, tuple[Prompt, int]]:
        """Every clip that is a prompt's, with the prompt and the seed."""
        seeds = defaultdict[str, set[int]](set)
        for numbered in filter(None, map(_NUMBERED.fullmatch, self.by_name)):
            if len(numbered[2]) < 3 and int(numbered[2]) < MOST_SEEDS:
                seeds[numbered[1]].add(int(numbered[2]))
        rivals, found = Rivals(prompts), dict[Path, tuple[Prompt, int]]()
        for prompt in prompts:
            of_prompt = seeds.get(prompt.id, set()) | seeds.get(same_name(prompt.video_caption), set())
            for seed in sorted({0, *of_prompt}):
                for path in self.of("", prompt, seed, rivals.of("", prompt, seed)):
                    found.setdefault(path, (prompt, seed))
        return found

    def at(self, named: str) -> list[Path]:
        """The clips at a path: that of the same suffix, else those of any suffix."""
        return self._alike(without_suffix(Path(within(self._folder, named))), named) if named else []

    def at_end_of(self, named: str, rivals: Mapping[str, Rival] = MappingProxyType({})) -> list[Path]:
        """The clips at the longest end of a path, as ``c1`` for ``out/x/c1.mp4``."""
        ends = (end for end in _ends(named) if not self.goes_to(rivals.get(end)))
        return next(filter(None, (self._alike(end, named) for end in ends)), [])

    def _alike(self, name: str, named: str) -> list[Path]:
        found = self.by_name.get(name, [])
        return [path for path in found if same_name(path.name) == same_name(Path(named).name)] or found

    def goes_to(self, rival: Rival | None) -> bool:
        """Whether a name goes to another prompt, or to neither."""
        return rival is not None and not any(name in self.by_name for name in rival.unless)


def within(folder: Path, named: str) -> str:
    """A path as it is in a folder, or as it was given if it leads elsewhere; empty if none was given."""
    path = Path(os.path.normpath(named))
    for top in (folder.absolute(), folder.resolve()) if path.is_absolute() else ():
        path = path.relative_to(top) if path.is_relative_to(top) else path
    return same_name(path.as_posix()) if named else ""


def _names(subset: str, prompt: Prompt, seed: int) -> list[tuple[str, _Fit]]:
    """The names by which a prompt's clip of a seed is looked up, besides that of the file it names, in their order."""
    caption = same_name(prompt.video_caption)
    return [
        (f"{subset}/{prompt.id}-{seed}", _Fit.ID_AND_SEED),
        *((f"{prompt.id}{sign}{seed}", _Fit.ID_AND_SEED) for sign in "-_/"),
        *([(prompt.id, _Fit.ID)] if seed == 0 else []),
        *((f"{caption}{sign}{seed}", _Fit.CAPTION) for sign in "-_"),
        *([(caption, _Fit.CAPTION)] if seed == 0 else []),
    ]


def _ends(named: str) -> list[str]:
    """The ends of a path that names a file, without suffix, the longest first: ``x/c1``, ``c1`` of ``out/x/c1.mp4``."""
    parts = without_suffix(Path(named)).split("/") if named else []
    return ["/".join(parts[start:]) for start in range(1, len(parts))]
