"""Groups runs into arms: recipes that were trained several times, each training a run of its own on the same prompts.

A pattern or several paths name the runs of an arm. `require_alike` refuses trainings that were not measured alike, and
`pairing` says which trainings of two arms are partners, because they share the order of the data and the noise.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import Any

from avbench.comparison.differences import Side
from avbench.comparison.score_table import check_comparable
from avbench.core import InputError, Run, checked_name, nearest
from avbench.statistics.trainings import LEAST_TRAININGS
from avbench.storage.reading import expanded
from avbench.storage.runs.folder import RunFolder, named_apart
from avbench.storage.runs.view import RunView


@dataclass(frozen=True, eq=False)
class Arm:
    """Trainings of one recipe, in the order of their names. Raises InputError unless there are at least two."""

    name: str
    trainings: tuple[RunFolder, ...]

    def __post_init__(self) -> None:
        checked_name(self.name, "the name of an arm")
        if len(self.trainings) < LEAST_TRAININGS:
            found = f"one training ({self.trainings[0].path})" if self.trainings else "no training"
            msg = (
                f"{self.name} has {found}: how much trainings differ cannot be known; give at least {LEAST_TRAININGS}, "
                "or compare single runs, without NAME="
            )
            raise InputError(msg)

    @property
    def labels(self) -> list[int | None]:
        """The number that each training's name ends in."""
        ends = [re.search(r"(\d+)$", folder.name) for folder in self.trainings]
        return [int(end[1]) if end else None for end in ends]


def opened_arms(groups: Mapping[str, str | Path | Sequence[str | Path]]) -> list[Arm]:
    """Open the trainings of each arm: name → paths of run folders, or patterns such as ``runs/a-*``.

    Raises:
        InputError: a pattern matches no run folder, a run is given twice, or an arm has fewer than two trainings.
    """
    owners: dict[Path, str] = {}
    arms = []
    for name, given in groups.items():
        places = [place for one in ([given] if isinstance(given, str | Path) else given) for place in _expanded(one)]
        for place in places:
            if (owner := owners.get(place.resolve())) is not None:
                where = f"twice in {name}" if owner == name else f"in {owner} and in {name}"
                msg = f"{place} is {where}; a training counts once"
                raise InputError(msg)
            owners[place.resolve()] = name
        arms.append(Arm(name, tuple(RunView(place) for place in sorted(places, key=_natural))))
    named_apart([training for arm in arms for training in arm.trainings])
    return arms


def trainings_of(arm: Arm) -> str:
    """A sentence that names the trainings, because a pattern may match more runs than was meant."""
    return f"Trainings of {arm.name}: {', '.join(folder.name for folder in arm.trainings)}."


def pairing(arm: Arm, against: Arm, asked: bool | None = None) -> tuple[list[int] | None, str]:
    """For each training of `arm` the place of its partner in `against`, or None without pairs; and a sentence.

    Partners end in the same number (``a-0`` and ``b-0``); where names do not, they have the same place in the order of
    the names. Without equal numbers of trainings there are no pairs.

    Raises:
        InputError: pairs are asked for, and the arms have different numbers of trainings.
    """
    names, sizes = f"{arm.name} and {against.name}", (len(arm.trainings), len(against.trainings))
    if asked is False:
        return None, f"Trainings of {names} are not paired, as asked."
    if sizes[0] != sizes[1]:
        if asked:
            msg = f"trainings of {names} cannot be paired: there are {sizes[0]} and {sizes[1]}"
            raise InputError(msg)
        return None, f"Trainings of {names} are not paired: there are {sizes[0]} and {sizes[1]}."
    ours, theirs = arm.labels, against.labels
    if None not in ours and len(set(ours)) == len(ours) and set(ours) == set(theirs):
        shown = ", ".join(map(str, ours))
        return [theirs.index(label) for label in ours], (
            f"Trainings of {names} are paired by the number that their names end in ({shown})."
        )
    ends = f"{against.trainings[0].name} with {arm.trainings[0].name}"
    return list(range(sizes[0])), f"Trainings of {names} are paired in the order of their names ({ends}, and so on)."


def unlike_models(arm: Arm) -> str | None:
    """A sentence that the trainings of an arm look like different models, or None.

    What trainings of one recipe may differ in is left out: paths, seeds, the machine, and the hashes of their weights.
    """
    first, *others = arm.trainings
    recipe, name = _recipe(first.run()), first.name
    for training in others:
        other = _recipe(training.run())
        differing = [
            f"{field} {recipe.get(field)!r} in {name}, {other.get(field)!r} in {training.name}"
            for field in dict.fromkeys([*recipe, *other])
            if recipe.get(field) != other.get(field) and not (field == _SIZE and _close(recipe[_SIZE], other[_SIZE]))
        ]
        if differing:  # another provider has other settings, which say no more
            named = differing[: 1 if differing[0].startswith("provider") else _NAMED]
            return f"Trainings of {arm.name} may not be one recipe: {'; '.join(named)}."
    return None


_NAMED = 3
"""Fields that the sentence names."""
_SIZE = "bytes of the weights and inputs"
_NOT_OF_A_RECIPE = re.compile("seed|device|batch|dtype|folder|path|checkpoint|weights|inputs|imports_sha256")


def _recipe(run: Run) -> dict[str, Any]:
    """Provider, settings of the model, and the size of its files, which is that of its architecture."""
    plain = {
        name: value
        for name, value in run.settings.items()
        if not _NOT_OF_A_RECIPE.search(name) and not (isinstance(value, str) and "/" in value)
    }
    return {"provider": run.model.partition(":")[0], **plain, _SIZE: _bytes(run.settings)}


def _bytes(settings: Any) -> int:
    """The sum of all sizes of files in settings."""
    if not isinstance(settings, Mapping):
        return 0
    return sum(value if name == "bytes" else _bytes(value) for name, value in settings.items())


def _close(one: int, other: int) -> bool:
    """Whether sizes differ by no more than cards and headers of one architecture do."""
    return abs(one - other) <= 0.01 * max(one, other)


def require_alike(arm: Arm, sides: Sequence[Side], allow: Sequence[str]) -> None:
    """Raise InputError unless trainings have the same prompts, metrics and protocols, and are not one training."""
    first = sides[0]
    keys, seen = {*first.folder.planned_keys()}, {}
    for number, side in enumerate(sides):
        both = f"{side.made.name} and {first.made.name}, trainings of {arm.name},"
        if differing := keys ^ {*side.folder.planned_keys()}:
            key = min(differing)
            owner = first if key in keys else side
            msg = (
                f"{both} do not have the same clips: only {owner.made.name} has {key.subset} {key.prompt}-{key.seed}"
                f" ({len(differing)} clips in all); sample them with the same subsets, views, limit and seeds"
            )
            raise InputError(msg)
        if lacking := sorted(first.scores.keys() ^ side.scores.keys()):
            owner = first if lacking[0] in first.scores else side
            msg = (
                f"{both} do not have the same metrics: only {owner.made.name} has {lacking[0][1]} on {lacking[0][0]}; "
                "`avbench measure` and `avbench evaluate` add it to the other, or --metric names those to compare by"
            )
            raise InputError(msg)
        for earlier in sides[:number]:
            check_comparable(side.made, earlier.made, allow)
        clips = frozenset(sample.sha256 for sample in side.folder.samples().values() if sample.sha256)
        if clips and clips in seen:
            msg = f"{side.folder.path} and {seen[clips]} hold the same clips: they are one training, which counts once"
            raise InputError(msg)
        seen[clips] = side.folder.path


def _expanded(given: str | Path) -> list[Path]:
    """The run folders that a path or a pattern names."""
    place = expanded(given)
    if place.exists() or not has_magic(str(place)):
        return [place]
    pattern = str(place.relative_to(place.anchor))
    found = [one for one in Path(place.anchor).glob(pattern) if (one / "run.json").is_file()]
    if not found:
        there = [one.parent.name for one in place.parent.glob("*/run.json")]
        msg = f"no run folder matches {given}; {nearest(place.name, there)}"
        raise InputError(msg)
    return found


def _natural(place: Path) -> list[str | int]:
    """Orders a-2 before a-10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(place))]
