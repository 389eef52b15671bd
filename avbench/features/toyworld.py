"""Measures whether a clip of the embedded world obeys its physics, by the functions of `toyworld.judge`.

It reads the scene from the prompt's tags. So it measures only clips of toy subsets, whichever model made them.
"""

from dataclasses import dataclass

from avbench.core import Clip, InputError, NotMeasurable, Prompt, Protocol, Value
from avbench.features.table import Requires
from avbench.toyworld import Scene
from avbench.toyworld.judge import FALLING, LEAST_KICK, TOUCHING, judge

SMALLEST = 32
"""Pixels of a side."""


@dataclass(frozen=True)
class PhysicsProtocol(Protocol):
    """The settings that decide the findings."""

    name: str = "toy-physics"
    version: int = 1
    least_kick: float = LEAST_KICK
    """m/s: smaller changes of velocity are no kicks."""
    touching: float = TOUCHING
    """Metres: things nearer to each other than this touch."""


class ToyPhysics:
    """The feature ``toy-physics``. Values of one clip; a value is 0 where its ``…_known`` is 0:

    - ``colours_shown``, ``strange_share``, ``breaks``: see `judge.Findings`.
    - ``kicks``: abrupt changes of velocity. ``touches``: those at which something touches. ``avoided``: the others.
      ``kicks_known`` is 1 if bodies could be followed, ``contact_expected`` if the scene's bodies have to touch.
    - ``penetration`` (m), ``gravity`` (m/s²), ``energy_gain`` (m).
    """

    protocol = PhysicsProtocol()
    requires = Requires.PROMPT

    def __call__(self, clip: Clip, prompt: Prompt) -> dict[str, Value]:
        """Measure one clip. Raises NotMeasurable if the prompt has no toy scene or the frames cannot show one."""
        try:
            scene = Scene.of(prompt)
        except InputError as error:
            raise NotMeasurable(str(error)) from None
        if clip.height != clip.width or clip.width < SMALLEST:
            size = f"{clip.width}x{clip.height}"
            msg = f"the frames are {size}; the toy world's are square, with sides of {SMALLEST} pixels or more"
            raise NotMeasurable(msg)
        found = judge(clip.frames, float(clip.fps), scene)
        kicks = found.kicks or ()
        touches = sum(kick.gap <= TOUCHING for kick in kicks)
        return {
            "colours_shown": found.colours_shown,
            "strange_share": found.strange_share,
            "breaks": float(found.breaks),
            "kicks_known": float(found.kicks is not None),
            "contact_expected": float(scene.family in (*FALLING, "collide")),
            "kicks": float(len(kicks)),
            "touches": float(touches),
            "avoided": float(len(kicks) - touches),
            **_known("penetration", found.penetration),
            **_known("gravity", found.gravity),
            **_known("energy_gain", found.energy_gain),
        }


def _known(name: str, value: float | None) -> dict[str, Value]:
    return {name: value or 0.0, f"{name}_known": float(value is not None)}
