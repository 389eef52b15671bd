"""Reads a plan of the study and checks it before anything is trained or compared.

Each part has only the fields that are known here, of the right types, and names only arms, measures and subsets that
the plan has.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from avbench.core import InputError, digest, nearest
from avbench.storage.reading import read_toml, shaped_plain
from avbench.training.plan import Plan
from benchmarks.hearing.arms import Arm

PLAN = Path(__file__).parent / "plan.toml"
PHYSICAL_ERROR = "physical_error"


@dataclass(frozen=True, kw_only=True)
class _Training(Plan):
    """Of every arm; its seed and the weight of its sound's loss are the arm's."""

    along: list[float]


@dataclass(frozen=True)
class _Tower:
    bundled: str | None = None
    steps: int | None = None
    batch: int | None = None
    width: int | None = None
    heads: int | None = None
    layers: int | None = None
    levels: list[int] | None = None


@dataclass(frozen=True)
class _Joint:
    layers: int


@dataclass(frozen=True)
class _Examples:
    clips: int


@dataclass(frozen=True)
class _Primary:
    measure: str
    subset: str
    margin: float
    compared: list[list[str]]


@dataclass(frozen=True)
class _PhysicalError:
    parts: list[str]


@dataclass(frozen=True)
class _Secondary:
    subsets: list[str]
    metrics: list[str]
    along: list[str] | None = None


@dataclass(frozen=True)
class _Plan:
    question: str
    baseline: str
    training: dict[str, Any]
    towers: dict[str, dict[str, Any]]
    joint: dict[str, Any]
    examples: dict[str, Any]
    primary: list[dict[str, Any]]
    physical_error: dict[str, Any]
    secondary: dict[str, Any]
    arm: list[dict[str, Any]]


_OF_AN_ARM = ("seed", "audio_weight")
"""Fields of a training that each arm gives."""


def read_plan(path: Path = PLAN) -> dict[str, Any]:
    """The plan as plain values. Raises InputError with what is wrong in it, before any process begins."""
    plan = read_toml(path)
    for where, part, shape in _parts(path, plan):
        if shape is _Training and (of_arm := sorted({*_OF_AN_ARM} & part.keys())):
            msg = f"{where} has the field {of_arm[0]!r}, which each arm has of its own"
            raise InputError(msg)
        shaped_plain(part, shape, where, by_user=True)
    for name, tower in plan["towers"].items():
        if "bundled" not in tower and not {"steps", "batch"} <= tower.keys():
            msg = f"{path}: the tower {name!r} needs steps and batch, or bundled"
            raise InputError(msg)
    for what, name, choices in _named(plan):
        if name not in choices:
            msg = f"{path}: {what} names {name!r}, which the plan does not have; {nearest(name, choices)}"
            raise InputError(msg)
    arms = sorted(row["name"] for row in plan["arm"])
    if twice := [one for one, other in pairwise(arms) if one == other]:
        msg = f"{path} has two arms with the name {twice[0]!r}"
        raise InputError(msg)
    for question in plan["primary"]:
        if uneven := [arms for arms in question["compared"] if len(arms) not in (2, 4)]:
            msg = f"{path}: compared has {uneven[0]}; give two arms, or four for the difference of two effects"
            raise InputError(msg)
    return plan


def plan_digest(plan: dict[str, Any]) -> str:
    """The digest of all that decides the plan's numbers: everything but its question, which is words."""
    return digest({name: value for name, value in plan.items() if name != "question"})


def of_unlike_clips(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """Pairs of arms that differ only in how many clips they are trained on: first the one with few."""
    arms = [Arm(**row) for row in plan["arm"]]
    return [
        (few.name, many.name)
        for few in arms
        for many in arms
        if few.clips and replace(few, name=many.name, clips=None, seeds=many.seeds, block=many.block) == many
    ]


def _parts(path: Path, plan: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], type]]:
    """What is checked, from the whole to its parts: where it stands, its values and its shape."""
    yield str(path), plan, _Plan
    if plan["towers"].keys() != {"video", "audio"}:
        msg = f"{path} has the towers {', '.join(plan['towers']) or 'none'}; a plan has video and audio"
        raise InputError(msg)
    yield from ((f"{path}: the tower {name!r}", tower, _Tower) for name, tower in plan["towers"].items())
    single = {"training": _Training, "joint": _Joint, "examples": _Examples, PHYSICAL_ERROR: _PhysicalError}
    for name, shape in {**single, "secondary": _Secondary}.items():
        yield f"{path}: {name}", plan[name], shape
    for name, shape in {"primary": _Primary, "arm": Arm}.items():
        yield from ((f"{path}: {name} {number}", row, shape) for number, row in enumerate(plan[name], start=1))


def _named(plan: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Where the plan names something that it must have, the name, and what it has."""
    arms, secondary = [row["name"] for row in plan["arm"]], plan["secondary"]
    yield "baseline", plan["baseline"], arms
    yield from (("along", name, arms) for name in secondary.get("along", ()))
    yield from ((f"{PHYSICAL_ERROR}.parts", name, secondary["metrics"]) for name in plan[PHYSICAL_ERROR]["parts"])
    for question in plan["primary"]:
        yield from (("compared", name, arms) for pair in question["compared"] for name in pair)
        yield "measure", question["measure"], [PHYSICAL_ERROR, *secondary["metrics"]]
        yield "subset", question["subset"], secondary["subsets"]
