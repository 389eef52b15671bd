"""Defines a scene: the part of a toy clip that a caption can describe.

A `Scene` fixes family, bodies, floor, side and speed. The seed of a clip decides everything that a caption leaves open:
exact places, sizes, speeds and light. Lengths are in metres; the view is 2 m × 2 m.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from avbench.core import InputError, Prompt, digest, require_known

VIEW_METRES = 2.0


@dataclass(frozen=True)
class Material:
    """The mechanical and acoustic properties of a material."""

    restitution: float
    """Share of the speed kept in a bounce; for two materials the product of their values is used."""
    friction: float
    density: float
    """kg per square metre of the body's picture."""
    pitch_hz: float
    """Frequency of the lowest mode of a body 0.3 m across; it is proportional to 1 / size."""
    mode_ratios: tuple[float, ...]
    mode_gains: tuple[float, ...]
    ring_seconds: tuple[float, ...]
    """Time in which each mode falls by 60 dB."""
    strike_seconds: float
    """Duration of an impact: soft materials strike slowly and therefore sound dull."""
    loudness: float


MATERIALS: dict[str, Material] = {
    "rubber": Material(0.93, 0.9, 60, 105, (1, 1.9, 2.9), (1, 0.5, 0.2), (0.16, 0.10, 0.07), 0.006, 1.5),
    "wood": Material(0.70, 0.5, 40, 340, (1, 2.57, 4.3, 6.1), (1, 0.6, 0.35, 0.2), (0.24, 0.15, 0.1, 0.07), 0.002, 1.0),
    "metal": Material(0.80, 0.3, 120, 620, (1, 2.76, 5.4, 8.9), (1, 0.8, 0.6, 0.4), (1.8, 1.3, 0.9, 0.6), 0.0008, 0.7),
    "glass": Material(0.85, 0.2, 80, 1500, (1, 2.3, 3.9), (1, 0.6, 0.4), (0.6, 0.45, 0.3), 0.0005, 0.7),
}

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (240, 220, 40),
    "green": (40, 170, 70),
    "cyan": (40, 200, 210),
    "blue": (40, 80, 220),
    "purple": (150, 50, 190),
}
"""Name → RGB. Backgrounds and floors are nearly grey, so a body can be found by its colour."""

SIZES = {"small": 0.14, "large": 0.2}
"""Name → half of the width in metres, before the seed changes it by up to 10 %."""


@dataclass(frozen=True)
class BodySpec:
    """One body that a caption mentions."""

    shape: str
    """``ball`` or ``box``."""
    material: str
    colour: str
    size: str


@dataclass(frozen=True)
class Family:
    """A kind of scene, and the scenes that it allows."""

    counts: tuple[int, ...]
    """Allowed numbers of bodies."""
    shapes: tuple[str, ...]
    alike: bool = False
    """Whether all bodies are equal (a cradle's balls, dominoes)."""
    sided: bool = True
    """Whether it has a left and a right version."""
    speeds: tuple[str, ...] = ("fast",)


FAMILIES: dict[str, Family] = {
    "drop": Family((1, 2), ("ball", "box"), sided=False),  # bodies fall and bounce
    "collide": Family((2,), ("ball",)),  # two bodies roll into each other
    "projectile": Family((1,), ("ball", "box")),  # a body is thrown against a wall
    "cradle": Family((3, 4), ("ball",), alike=True),  # the end ball of a row of hanging balls swings into the rest
    "hammer": Family((2,), ("box",)),  # a hammer swings down on a block
    "dominoes": Family((4, 5), ("box",), alike=True),  # a row of standing slabs topples
    "pendulum": Family((1,), ("ball", "box"), speeds=("slow", "fast")),  # a body swings freely, touching nothing
    "oscillate": Family((1,), ("ball", "box"), speeds=("slow", "fast")),  # a body slides to and fro on a rail
    "drift": Family((1, 2), ("ball", "box"), speeds=("slow",)),  # bodies float slowly past, touching nothing
}


@dataclass(frozen=True)
class Scene:
    """Everything about a toy clip that its caption may mention. Raises InputError on an unknown or unfitting value."""

    family: str
    bodies: tuple[BodySpec, ...]
    floor: str
    """The material of floor and wall; empty for a family that shows neither."""
    side: str = "left"
    """Where the action starts: ``left`` or ``right``."""
    speed: str = "fast"

    def __post_init__(self) -> None:
        require_known("family", self.family, FAMILIES)
        family = FAMILIES[self.family]
        require_known("floor", self.floor, MATERIALS)
        require_known("side", self.side, ("left", "right"))
        require_known(f"speed of {self.family}", self.speed, family.speeds)
        if len(self.bodies) not in family.counts:
            msg = f"a {self.family} scene has {' or '.join(map(str, family.counts))} bodies, not {len(self.bodies)}"
            raise InputError(msg)
        for body in self.bodies:
            require_known(f"shape in {self.family}", body.shape, family.shapes)
            require_known("material", body.material, MATERIALS)
            require_known("colour", body.colour, COLOURS)
            require_known("size", body.size, SIZES)
        if family.alike and len(set(self.bodies)) > 1:
            msg = f"all bodies of a {self.family} scene must be equal"
            raise InputError(msg)

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them back."""
        return asdict(self) | {"bodies": [asdict(body) for body in self.bodies]}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Scene":
        """Build from plain values. Raises InputError on a missing, unknown or unfitting one."""
        try:
            bodies = tuple(BodySpec(**body) for body in plain["bodies"])
            return cls(**{**plain, "bodies": bodies})
        except (TypeError, KeyError) as error:
            msg = f"scene: {error} in {dict(plain)}"
            raise InputError(msg) from None

    @classmethod
    def of(cls, prompt: Prompt) -> "Scene":
        """The scene in a prompt's tags. Raises InputError if there is none, or as `from_json`."""
        plain = prompt.tags.get("scene")
        if not isinstance(plain, Mapping):
            msg = f"prompt {prompt.id!r} has no scene of the toy world in its tags, as those of toy subsets have"
            raise InputError(msg)
        return cls.from_json(plain)

    def generator(self, seed: int) -> np.random.Generator:
        """The random numbers of one clip, which depend only on the scene and the seed."""
        return np.random.default_rng([int(digest(self.to_json())[:16], 16), seed])


def random_scene(family: str, rng: np.random.Generator) -> Scene:
    """Draw a random scene of `family`; its bodies have different colours unless all bodies must be equal."""
    kind = FAMILIES[family]
    count = int(rng.choice(kind.counts))
    colours = rng.permutation(list(COLOURS))[:count]
    bodies = [
        BodySpec(
            str(rng.choice(kind.shapes)), str(rng.choice(list(MATERIALS))), str(colour), str(rng.choice(list(SIZES)))
        )
        for colour in colours
    ]
    side = str(rng.choice(["left", "right"])) if kind.sided else "left"
    return Scene(
        family,
        tuple(bodies[:1] * count if kind.alike else bodies),
        str(rng.choice(list(MATERIALS))),
        side,
        str(rng.choice(kind.speeds)),
    )
