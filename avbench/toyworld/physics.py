"""Simulates a scene with its ground truth: rigid bodies under gravity, by pymunk.

Conventions: SI units; x points right and y up from the lower left corner of a view of 2 m × 2 m; angles are in radians,
counterclockwise. Two simulations of one (scene, seed) are equal bit for bit on one build of pymunk.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pymunk
from pymunk import constraints

from avbench.toyworld.scene import MATERIALS, SIZES, VIEW_METRES, BodySpec, Scene

GRAVITY = 9.81
STEPS_A_SECOND = 480
"""One step lasts 2.1 ms. Contacts are known at its end, up to one and a half steps late."""
LEAST_CONTACT_SPEED = 0.08
"""m/s. A touch that changes the lighter body's speed by less (resting, rolling) is not a contact."""

_SURROUNDINGS, _STANDING, _FREE = 1, 2, 4


@dataclass(frozen=True)
class Contact:
    """One impact between two things."""

    seconds: float
    a: str
    b: str
    """Names of bodies, or ``floor`` or ``wall``."""
    impulse: float
    """N·s."""
    x: float
    y: float
    """The place, in metres."""


@dataclass
class Actor:
    """A body on the stage: its appearance and the pymunk body that moves it."""

    name: str
    spec: BodySpec
    half_width: float
    half_height: float
    body: pymunk.Body
    rod_to: tuple[float, float] | None = None
    """World point to which a rod connects it; the rod is drawn as a line."""


@dataclass
class Stage:
    """A scene that is ready to be simulated; `stage` returns it."""

    scene: Scene
    space: pymunk.Space
    rng: np.random.Generator
    floor_height: float
    shows_floor: bool = True
    wall: tuple[float, float] | None = None
    """Left and right edge of a wall, in metres."""
    rail_height: float | None = None
    actors: list[Actor] = field(default_factory=list)
    contacts_off: bool = False
    clearance: float = 0.0
    """Metres by which bodies are larger for collisions than they look."""

    def x(self, from_start_side: float) -> float:
        """The x coordinate of a distance from the starting side."""
        return from_start_side if self.scene.side == "left" else VIEW_METRES - from_start_side

    @property
    def sign(self) -> int:
        """+1 if the action starts on the left, −1 if on the right."""
        return 1 if self.scene.side == "left" else -1

    def add(
        self,
        index: int,
        position: tuple[float, float],
        velocity: tuple[float, float] = (0, 0),
        *,
        half: tuple[float, float] | None = None,
        standing: bool = False,
        turns: bool = True,
    ) -> Actor:
        """Put body `index` of the scene at `position` (metres); `standing` bodies rest on the floor at the start."""
        spec = self.scene.bodies[index]
        material = MATERIALS[spec.material]
        size = SIZES[spec.size] * self.rng.uniform(0.9, 1.1)
        half_width, half_height = half or (size, size)
        ball = spec.shape == "ball"
        area = np.pi * half_width**2 if ball else 4 * half_width * half_height
        mass = material.density * area
        if not turns:
            moment = float("inf")
        elif ball:
            moment = pymunk.moment_for_circle(mass, 0, half_width)
        else:
            moment = pymunk.moment_for_box(mass, (2 * half_width, 2 * half_height))
        body = pymunk.Body(mass, moment)
        body.position, body.velocity = position, velocity
        beyond = 0.0 if standing else self.clearance
        if ball:
            shape: pymunk.Shape = pymunk.Circle(body, half_width + beyond)
        else:
            sides = 2 * (half_width + beyond), 2 * (half_height + beyond)
            shape = pymunk.Poly.create_box(body, sides, radius=0.005)
        actor = Actor(f"body{index}", spec, half_width, half_height, body)
        self._solid(shape, actor.name, spec.material, _STANDING if standing else _FREE)
        self.space.add(body, shape)
        self.actors.append(actor)
        return actor

    def ground(self) -> None:
        """Add the floor."""
        floor = pymunk.Segment(self.space.static_body, (-5, self.floor_height - 0.5), (7, self.floor_height - 0.5), 0.5)
        self._solid(floor, "floor", self.scene.floor, _SURROUNDINGS)
        self.space.add(floor)

    def raise_wall(self, near: float, far: float) -> None:
        """Add a wall between two distances from the starting side."""
        left, right = sorted((self.x(near), self.x(far)))
        wall = pymunk.Poly(self.space.static_body, [(left, -1), (right, -1), (right, 3), (left, 3)])
        self._solid(wall, "wall", self.scene.floor, _SURROUNDINGS)
        self.space.add(wall)
        self.wall = (left, right)

    def _solid(self, shape: pymunk.Shape, name: str, material: str, category: int) -> None:
        shape.elasticity = MATERIALS[material].restitution
        shape.friction = MATERIALS[material].friction
        shape.name = name  # type: ignore[attr-defined]
        if self.contacts_off:  # bodies pass through everything, except that those standing on the floor stay on it
            mask = {_SURROUNDINGS: _STANDING, _STANDING: _SURROUNDINGS, _FREE: 0}[category]
            shape.filter = pymunk.ShapeFilter(categories=category, mask=mask if name != "wall" else 0)


def stage(scene: Scene, seed: int, *, gravity: bool = True, contacts: bool = True, clearance: float = 0.0) -> Stage:
    """Build the simulation of a scene under a seed.

    Without `gravity` nothing falls. Without `contacts` bodies pass through each other. With a `clearance` (metres),
    bodies that do not stand on the floor turn back before they touch anything; those that start closer are parted.
    """
    rng = scene.generator(seed)
    space = pymunk.Space()
    space.gravity = (0, -GRAVITY if gravity else 0)
    space.iterations = 20
    space.collision_slop = 0.001
    ready = Stage(
        scene, space, rng, floor_height=rng.uniform(0.18, 0.32), contacts_off=not contacts, clearance=clearance
    )
    _FAMILY_STAGES[scene.family](ready)
    if ready.shows_floor:
        ready.ground()
    return ready


def run(ready: Stage, frames: int, fps: float) -> tuple[np.ndarray, list[Contact]]:
    """Simulate; return the states at the time of each frame, and the contacts until the end of the last frame.

    States are ``[frames, bodies, 6]``: x, y, vx, vy in metres and m/s, angle and angular velocity in rad and rad/s.
    """
    contacts: list[Contact] = []
    clock = 0

    def struck(arbiter: pymunk.Arbiter, _space: pymunk.Space, _data: object) -> None:
        if not arbiter.is_first_contact or clock == 1:  # things that touch in the first step were placed touching
            return
        a, b = arbiter.shapes
        impulse = arbiter.total_impulse.length
        bodies = [shape.body for shape in (a, b) if shape.body]
        lightest = min(body.mass for body in bodies if body.body_type == pymunk.Body.DYNAMIC)
        if impulse < LEAST_CONTACT_SPEED * lightest:
            return
        where = arbiter.contact_point_set.points[0].point_a
        names = sorted((a.name, b.name))
        contacts.append(Contact(clock / STEPS_A_SECOND, names[0], names[1], impulse, where.x, where.y))

    ready.space.on_collision(post_solve=struck)
    states = np.empty((frames, len(ready.actors), 6))
    for frame in range(frames):
        for row, actor in zip(states[frame], ready.actors, strict=True):
            body = actor.body
            row[:] = (*body.position, *body.velocity, body.angle, body.angular_velocity)
        while clock < round((frame + 1) * STEPS_A_SECOND / fps):
            clock += 1
            ready.space.step(1 / STEPS_A_SECOND)
    return states, contacts


def _drop(on: Stage) -> None:
    count = len(on.scene.bodies)
    places = on.rng.permutation([0.6, 1.4] if count == 2 else [on.rng.uniform(0.5, 1.5)])
    for index in range(count):
        height = on.rng.uniform(1.1, 1.75)
        place = (places[index] + on.rng.uniform(-0.1, 0.1), height)
        actor = on.add(index, place, (on.rng.uniform(-0.25, 0.25), 0))
        actor.body.angular_velocity = on.rng.uniform(-2, 2)


def _collide(on: Stage) -> None:
    for index, (place, direction) in enumerate([(0.3, 1), (1.7, -1)]):
        actor = on.add(index, (0, 0), standing=True)
        speed = on.rng.uniform(1.0, 1.8) * direction * on.sign
        actor.body.position = (on.x(place), on.floor_height + actor.half_width)
        actor.body.velocity = (speed, 0)
        actor.body.angular_velocity = -speed / actor.half_width


def _projectile(on: Stage) -> None:
    on.raise_wall(1.7, 2.3)
    speed = on.rng.uniform(2.4, 3.4)
    velocity = (speed * on.sign, on.rng.uniform(1.0, 2.2))
    actor = on.add(0, (on.x(0.25), on.rng.uniform(0.8, 1.1)), velocity)
    actor.body.angular_velocity = on.rng.uniform(-3, 3)


def _cradle(on: Stage) -> None:
    count = len(on.scene.bodies)
    on.shows_floor = False
    radius = 0.11 * on.rng.uniform(0.9, 1.1)
    length, top = on.rng.uniform(0.65, 0.85), on.rng.uniform(1.5, 1.7)
    angle = on.rng.uniform(0.7, 1.0)
    for index in range(count):
        pivot = on.x(1.0 + (index - (count - 1) / 2) * (2 * radius + 0.002)), top
        swing = angle if index == 0 else 0.0
        place = (pivot[0] - on.sign * length * np.sin(swing), top - length * np.cos(swing))
        actor = on.add(index, place, half=(radius, radius), turns=False)
        _hang(on, actor, pivot)


def _hammer(on: Stage) -> None:
    length, angle = on.rng.uniform(0.8, 0.95), on.rng.uniform(0.9, 1.3)
    block_half = (0.17 * on.rng.uniform(0.9, 1.1), 0.14 * on.rng.uniform(0.9, 1.1))
    head_half = (0.11, 0.15)
    # the handle is level when the head lies on the block, so that the head strikes flat
    pivot = (on.x(0.35), on.floor_height + 2 * block_half[1] + head_half[1])
    head = on.add(0, (pivot[0] + on.sign * length * np.cos(angle), pivot[1] + length * np.sin(angle)), half=head_half)
    head.body.angle = on.sign * angle
    head.body.angular_velocity = -on.sign * on.rng.uniform(1.0, 2.5)
    _hang(on, head, pivot, rigid=True)
    on.add(1, (on.x(0.35 + length), on.floor_height + block_half[1]), half=block_half, standing=True)


def _dominoes(on: Stage) -> None:
    count = len(on.scene.bodies)
    half = (0.045, 0.22 * on.rng.uniform(0.9, 1.1))
    spacing = on.rng.uniform(0.24, 0.28)
    for index in range(count):
        place = 0.45 + index * spacing
        actor = on.add(index, (on.x(place), on.floor_height + half[1]), half=half, standing=True)
        for shape in actor.body.shapes:
            shape.friction = max(shape.friction, 1.0)  # otherwise smooth slabs slide out of the picture
        if index == 0:
            actor.body.angular_velocity = -on.sign * on.rng.uniform(2.4, 3.0)
            actor.body.velocity = (on.sign * 2.6 * half[1], 0)


def _pendulum(on: Stage) -> None:
    on.shows_floor = False
    slow = on.scene.speed == "slow"
    length, angle = on.rng.uniform(0.7, 1.0), (on.rng.uniform(0.05, 0.09) if slow else on.rng.uniform(0.8, 1.15))
    pivot = (1.0 + on.rng.uniform(-0.1, 0.1), on.rng.uniform(1.6, 1.75))
    place = (pivot[0] - on.sign * length * np.sin(angle), pivot[1] - length * np.cos(angle))
    _hang(on, on.add(0, place, turns=False), pivot)


def _oscillate(on: Stage) -> None:
    on.shows_floor = False
    slow = on.scene.speed == "slow"
    amplitude = on.rng.uniform(0.06, 0.1) if slow else on.rng.uniform(0.5, 0.65)
    cycles_a_second = on.rng.uniform(0.35, 0.5) if slow else on.rng.uniform(0.6, 0.9)
    height = on.rng.uniform(0.7, 1.4)
    actor = on.add(0, (1 - on.sign * amplitude, height), turns=False)
    ground = on.space.static_body
    on.space.add(
        constraints.GrooveJoint(ground, actor.body, (-5, height), (7, height), (0, 0)),
        constraints.DampedSpring(
            ground, actor.body, (1, height), (0, 0), 0, actor.body.mass * (2 * np.pi * cycles_a_second) ** 2, 0
        ),
    )
    on.rail_height = height


def _drift(on: Stage) -> None:
    on.shows_floor = False
    on.space.gravity = (0, 0)
    heights = on.rng.permutation([0.6, 1.4])
    for index in range(len(on.scene.bodies)):
        velocity = (on.sign * on.rng.uniform(0.06, 0.14), on.rng.uniform(-0.04, 0.04))
        actor = on.add(index, (on.x(on.rng.uniform(0.5, 1.1)), heights[index] + on.rng.uniform(-0.15, 0.15)), velocity)
        actor.body.angular_velocity = on.rng.uniform(-0.2, 0.2)


def _hang(on: Stage, actor: Actor, pivot: tuple[float, float], *, rigid: bool = False) -> None:
    ground = on.space.static_body
    joint = (
        constraints.PivotJoint(ground, actor.body, pivot) if rigid else constraints.PinJoint(ground, actor.body, pivot)
    )
    on.space.add(joint)
    actor.rod_to = pivot


_FAMILY_STAGES: dict[str, Callable[[Stage], None]] = {
    "drop": _drop,
    "collide": _collide,
    "projectile": _projectile,
    "cradle": _cradle,
    "hammer": _hammer,
    "dominoes": _dominoes,
    "pendulum": _pendulum,
    "oscillate": _oscillate,
    "drift": _drift,
}
