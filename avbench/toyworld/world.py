"""Makes a clip and its ground truth from a scene and a seed."""

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from avbench.core import Audio, Clip, ClipSpec
from avbench.toyworld import physics, picture
from avbench.toyworld.physics import Contact
from avbench.toyworld.scene import VIEW_METRES, Scene
from avbench.toyworld.sound import sound

CLIP_SPEC = ClipSpec(width=64, height=64, frames=16, fps=Fraction(8), sample_rate=16_000, channels=1)


@dataclass(frozen=True, eq=False)
class Truth:
    """The ground truth of a clip."""

    scene: Scene
    seed: int
    masses_kg: tuple[float, ...]
    half_sizes: tuple[tuple[float, float], ...]
    """Half width and half height of each body, in metres."""
    states: np.ndarray
    """``[frames, bodies, 6]``: x, y (m, y up), vx, vy (m/s), angle (rad), angular velocity (rad/s)."""
    contacts: tuple[Contact, ...]
    fps: Fraction

    @property
    def displacement_rate(self) -> float:
        """Length of the fastest body's path, in frame diagonals a second."""
        steps = np.linalg.norm(np.diff(self.states[..., :2], axis=0), axis=-1).sum(axis=0)
        seconds = (len(self.states) - 1) / float(self.fps)
        return float(steps.max() / seconds / (VIEW_METRES * np.sqrt(2)))

    @property
    def strongest_impulse(self) -> float:
        """Largest impulse of a contact, in N·s; 0 without contacts."""
        return max((contact.impulse for contact in self.contacts), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Plain values, which are stored beside the clip; numbers keep every digit."""
        return {
            "scene": self.scene.to_json(),
            "seed": self.seed,
            "view_metres": VIEW_METRES,
            "masses_kg": list(self.masses_kg),
            "half_sizes_metres": [list(half) for half in self.half_sizes],
            "states": {"columns": ["x", "y", "vx", "vy", "angle", "angular_velocity"], "frames": self.states.tolist()},
            "contacts": [asdict(contact) for contact in self.contacts],
        }


def simulate(scene: Scene, seed: int, spec: ClipSpec = CLIP_SPEC, **world: Any) -> tuple[physics.Stage, Truth]:
    """Simulate the scene without picture or sound, for curation. `world` holds arguments of `physics.stage`."""
    ready = physics.stage(scene, seed, **world)
    masses = tuple(actor.body.mass for actor in ready.actors)
    halves = tuple((actor.half_width, actor.half_height) for actor in ready.actors)
    states, struck = physics.run(ready, spec.frames, float(spec.fps))
    contacts = tuple(contact for contact in struck if contact.seconds < spec.seconds)
    return ready, Truth(scene, seed, masses, halves, states, contacts, spec.fps)


def make_clip(scene: Scene, seed: int, spec: ClipSpec = CLIP_SPEC, **world: Any) -> tuple[Clip, Truth]:
    """Make a clip and its truth; `world` is for `physics.stage`. Equal arguments give equal bits.

    `spec` is square and has sound.
    """
    ready, truth = simulate(scene, seed, spec, **world)
    frames = picture.draw(ready, truth.states, spec.width)
    rate, samples = spec.sample_rate, spec.samples
    assert rate is not None and samples is not None
    waveform = sound(ready, list(truth.contacts), samples, rate)
    return Clip(frames, spec.fps, Audio(waveform, rate)), truth
