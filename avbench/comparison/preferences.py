"""Reads preference files of other studies, and maps their rows to the clips of runs.

A file is CSV with a header row, or JSON lines (.jsonl). Its columns:

- ``prompt``: the prompt's id or its caption; it may be empty where the clips are named by file.
- ``clip_a`` and ``clip_b``: each the name of a run, or the path or name of a clip's file. The last folder in a path
  that has the name of a run says whose clip it is; without one, only one run may have a clip of that name. A file is
  known by the name that it has in the run folder (``<prompt id>-<seed>``) or by its prompt's id; suffixes do not count.
- ``choice``: a, b or same.
- ``rater``: any text; a row without one counts as another person.
- ``subset`` and ``seed`` may be left out; they are needed only where the rest fits several pairs of clips.

A row that cannot be mapped is left out and counted, with the reason.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from avbench.core import InputError, Key, nearest, one_line
from avbench.storage.reading import numbered_csv_rows, parsed, text_lines
from avbench.storage.runs.folder import RunFolder

SUFFIXES = (".csv", ".jsonl")
"""By its suffix a file is known to be a preference file."""
CHOICES = {"a": "left", "b": "right", "same": "tie"}
"""A choice → the vote that it is, with clip_a on the left."""
NEEDED = ("prompt", "clip_a", "clip_b", "choice", "rater")


@dataclass(frozen=True, eq=False)
class Preferences:
    """What was read: votes as of `votes.read`, and a sentence for each reason why rows were left out."""

    votes: pd.DataFrame
    left_out: list[str]


def read(paths: Sequence[Path], folders: Sequence[RunFolder]) -> Preferences:
    """The votes of preference files, on clips of these runs.

    Raises:
        InputError: a file cannot be read, lacks a column, or has a choice that is none of CHOICES; two runs have one
            name.
    """
    clips = _Clips(folders)
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    seen: set[tuple[Any, ...]] = set()
    for path in paths:
        reasons: dict[str, list[tuple[int, dict[str, str]]]] = {}
        of_file = [*_rows(path)]
        for line, row in of_file:
            vote, found = CHOICES[_choice(row, f"{path}, line {line}")], clips.pair(row)
            if not isinstance(found, str):
                rater = row["rater"].strip() or f"{path}, line {line}"
                where = (
                    rater,
                    found["subset"],
                    found["prompt"],
                    found["seed"],
                    frozenset((found["left"], found["right"])),
                )
                if where not in seen:
                    seen.add(where)
                    rows.append({"file": path.name, "rater": rater, **found, "vote": vote})
                    continue
                found = "the same rater judged the same two clips in an earlier line"
            reasons.setdefault(found, []).append((line, row))
        left_out += [_sentence(path, len(of_file), reason, which) for reason, which in reasons.items()]
    columns = ["file", "rater", "subset", "prompt", "seed", "left", "right", "vote"]
    return Preferences(pd.DataFrame(rows, columns=columns), left_out)


def _sentence(path: Path, rows: int, reason: str, which: Sequence[tuple[int, dict[str, str]]]) -> str:
    line, row = which[0]
    clips = " and ".join(repr(one_line(row[side])[:60]) for side in ("clip_a", "clip_b"))
    return f"{path}: rows left out: {len(which)} of {rows}, because {reason} (first in line {line}, {clips})."


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows, every cell as text, with their lines' numbers. Raises InputError if a column of NEEDED is missing."""
    if path.suffix.lower() == ".csv":
        yield from numbered_csv_rows(path, NEEDED)
        return
    for number, line in text_lines(path):
        row = parsed(line.encode(), f"{path}, line {number}", dict)
        if missing := [name for name in NEEDED if name not in row]:
            msg = f"{path}, line {number} has no field {missing[0]!r}; it has {', '.join(map(str, row)) or 'none'}"
            raise InputError(msg)
        yield number, {str(name): "" if value is None else str(value) for name, value in row.items()}


def _choice(row: dict[str, str], where: str) -> str:
    choice = row["choice"].strip().lower()
    if choice not in CHOICES:
        msg = f"{where}: the column 'choice' is {row['choice'][:40]!r}; {nearest(choice, CHOICES)}"
        raise InputError(msg)
    return choice


_Clip = tuple[str, Key]
"""A run's name, and which of its clips."""


class _Clips:
    """The clips of some runs by every name under which a study may know them."""

    def __init__(self, folders: Sequence[RunFolder]) -> None:
        self.runs = [folder.name for folder in folders]
        self._by_prompt: dict[tuple[str, str], list[Key]] = {}
        self._by_file: dict[str, list[_Clip]] = {}
        self._names: dict[tuple[str, str], set[str]] = {}
        for folder in folders:
            for subset in folder.subsets():
                for prompt in subset.prompts:
                    self._names[subset.name, prompt.id] = {prompt.id, _plain(prompt.video_caption)}
            for key, sample in folder.samples().items():
                if sample.path is None:
                    continue
                for name in self._names.get((key.subset, key.prompt), {key.prompt}):
                    self._by_prompt.setdefault((folder.name, name), []).append(key)
                for stem in {PurePosixPath(sample.path).stem, key.prompt}:
                    self._by_file.setdefault(stem, []).append((folder.name, key))

    def pair(self, row: dict[str, str]) -> dict[str, Any] | str:
        """The columns subset, prompt, seed, left and right of a row; or the reason why it cannot be mapped."""
        prompt, fitting = _plain(row["prompt"]), []
        for side in ("clip_a", "clip_b"):
            found = self._named(row[side].strip(), prompt)
            if isinstance(found, str):
                return found
            for column in ("subset", "seed"):
                if asked := row.get(column, "").strip():
                    found = [one for one in found if str(getattr(one[1], column)) == asked]
            fitting.append(found)
        if not all(fitting):
            return "there is no clip of the row's subset and seed"
        ones, others = fitting
        alike = [(key, one, other) for one, key in ones for other, its_key in others if key == its_key]
        if not alike:
            return "the clips are not of the same prompt and seed"
        pairs = [(key, one, other) for key, one, other in alike if one != other and self._is_of(key, prompt)]
        if len(pairs) == 1:
            key, one, other = pairs[0]
            return {**key._asdict(), "left": one, "right": other}
        if pairs:
            runs = ", ".join(self.runs)
            return f"several pairs of clips fit; write run/file (the runs: {runs}), and add the columns subset and seed"
        same = all(one == other for _, one, other in alike)
        return "both clips are of one run" if same else "the clips are of another prompt than the row"

    def _is_of(self, key: Key, prompt: str) -> bool:
        return not prompt or prompt in self._names.get((key.subset, key.prompt), {key.prompt})

    def _named(self, text: str, prompt: str) -> list[_Clip] | str:
        """The clips that a cell can mean, at least one; or the reason why there are none."""
        if text in self.runs:
            found = [(text, key) for key in self._by_prompt.get((text, prompt), [])]
            return found or "the run has no clip of the prompt"
        path = PurePosixPath(text.replace("\\", "/"))
        runs = next(([name] for name in _names_in(path) if name in self.runs), self.runs)
        known = [self._by_file.get(name, []) for name in (path.stem, path.name)]  # .2 of v1.2 is no suffix
        found = [one for one in known[0] or known[1] if one[0] in runs]
        inside = [one for one in found if one[1].subset in path.parts[:-1]]
        return inside or found or f"a name is neither a run ({', '.join(self.runs)}) nor a clip of one"


def _names_in(path: PurePosixPath) -> Iterator[str]:
    """The names that the folders of a path can give a run, the last folder first: of x/a/c.mp4 a, x-a and x."""
    folders = path.parts[:-1]
    for end in range(len(folders), 0, -1):
        yield from ("-".join(folders[start:end]) for start in range(end - 1, -1, -1))


def _plain(text: str | None) -> str:
    return " ".join((text or "").split())
