"""Runs the embedded world as a generator, with variants that are wrong in one known way each.

``toyworld:`` is the ceiling: the world's own clips under the run's seeds. Variants such as ``toyworld:frozen`` show
which faults a metric detects and which it ignores.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from avbench.core import Audio, Clip, InputError, nearest
from avbench.generation.settings import check_kinds
from avbench.generation.table import Made, Request
from avbench.toyworld import FAMILIES, Scene, make_clip, random_scene

Change = Callable[[Clip, np.random.Generator, float], Clip]
"""(good clip, random numbers of this clip, strength) → bad clip."""


def _with_frames(clip: Clip, frames: np.ndarray) -> Clip:
    return replace(clip, frames=np.ascontiguousarray(frames))


def _with_sound(clip: Clip, waveform: np.ndarray) -> Clip:
    audio = clip.audio
    assert audio is not None  # every toy clip has sound
    return replace(clip, audio=Audio(np.ascontiguousarray(waveform), audio.sample_rate))


def _frozen(clip: Clip, rng: np.random.Generator, strength: float) -> Clip:
    return _with_frames(clip, np.repeat(clip.frames[:1], len(clip.frames), axis=0))


def _shuffled(clip: Clip, rng: np.random.Generator, strength: float) -> Clip:
    return _with_frames(clip, clip.frames[rng.permutation(len(clip.frames))])


def _reversed(clip: Clip, rng: np.random.Generator, strength: float) -> Clip:
    return _with_sound(_with_frames(clip, clip.frames[::-1]), _waveform(clip)[:, ::-1])


def _sound_shifted(clip: Clip, rng: np.random.Generator, strength: float) -> Clip:
    audio, wave = clip.audio, _waveform(clip)
    assert audio is not None
    late = round(strength / 1000 * audio.sample_rate)
    return _with_sound(clip, np.roll(wave, late, axis=1))


def _sound_swapped(clip: Clip, rng: np.random.Generator, strength: float) -> Clip:
    family = str(rng.choice(list(FAMILIES)))
    other, _ = make_clip(random_scene(family, rng), int(rng.integers(2**31)))
    return _with_sound(clip, _waveform(other))


def _blurred(clip: Clip, rng: np.random.Generator, strength: float) -> Clip:
    if not strength:  # OpenCV would choose a width of its own, and finds none
        return clip
    return _with_frames(clip, np.stack([cv2.GaussianBlur(frame, (0, 0), strength) for frame in clip.frames]))


def _noisy(clip: Clip, rng: np.random.Generator, strength: float) -> Clip:
    noise = strength * rng.standard_normal(clip.frames.shape)
    return _with_frames(clip, np.clip(np.round(clip.frames + noise), 0, 255).astype(np.uint8))


def _flickering(clip: Clip, rng: np.random.Generator, strength: float) -> Clip:
    light = 1 + strength * rng.uniform(-1, 1, (len(clip.frames), 1, 1, 1))
    return _with_frames(clip, np.clip(np.round(clip.frames * light), 0, 255).astype(np.uint8))


def _vanishing(clip: Clip, rng: np.random.Generator, strength: float) -> Clip:
    frames, half = clip.frames.copy(), len(clip.frames) // 2
    for index in range(half, len(frames)):
        around = cv2.dilate(_coloured(frames[index]).astype(np.uint8), np.ones((5, 5)))
        frames[index] = cv2.inpaint(frames[index], around, 3, cv2.INPAINT_TELEA)
    return _with_frames(clip, frames)


def _recoloured(clip: Clip, rng: np.random.Generator, strength: float) -> Clip:
    other, half = np.roll(clip.frames, 1, axis=3), len(clip.frames) // 2
    late = np.arange(len(clip.frames)) >= half
    return _with_frames(
        clip, np.where(_coloured(clip.frames)[..., None] & late[:, None, None, None], other, clip.frames)
    )


def _coloured(frames: np.ndarray) -> np.ndarray:
    """Mask of the bodies: nothing else in the world has a colour."""
    return np.ptp(frames.astype(np.int16), axis=-1) >= 40


def _mute(clip: Clip, rng: np.random.Generator, strength: float) -> Clip:
    return _with_sound(clip, np.zeros_like(_waveform(clip)))


def _hissing(clip: Clip, rng: np.random.Generator, strength: float) -> Clip:
    wave = _waveform(clip)
    return _with_sound(clip, np.clip(wave + strength * rng.standard_normal(wave.shape), -1, 1).astype(np.float32))


def _clipped(clip: Clip, rng: np.random.Generator, strength: float) -> Clip:
    return _with_sound(clip, np.clip(strength * _waveform(clip), -1, 1))


def _waveform(clip: Clip) -> np.ndarray:
    assert clip.audio is not None
    return clip.audio.waveform


WORLDS: dict[str, dict[str, Any]] = {
    "": {},
    "zero-gravity": {"gravity": False},
    "no-contact": {"contacts": False},
    "avoiding": {"clearance": 0.2},
}
"""Variant → how the simulation itself differs."""

CHANGES: dict[str, tuple[Change, float]] = {
    "frozen": (_frozen, 0),
    "shuffled": (_shuffled, 0),
    "reversed": (_reversed, 0),
    "sound-shifted": (_sound_shifted, 200),
    "sound-swapped": (_sound_swapped, 0),
    "blurred": (_blurred, 1.5),
    "noisy": (_noisy, 15),
    "flickering": (_flickering, 0.15),
    "vanishing": (_vanishing, 0),
    "recoloured": (_recoloured, 0),
    "mute": (_mute, 0),
    "hissing": (_hissing, 0.03),
    "clipped": (_clipped, 20),
}
"""Variant → the change to a good clip, and its default strength (in ms, pixels, grey levels, share of the brightness,
full scale, or times), 0 where it has none. A shift of the sound is cyclic, so that no sound is lost."""


class ToyWorld:
    """The simulator as a generator."""

    batch_size = 1

    def __init__(self, target: str, *, strength: float | None = None) -> None:
        """Choose the variant `target`; `strength` replaces that in CHANGES, for example the ms of a shifted sound."""
        variants = [*WORLDS, *CHANGES]
        if target not in variants:
            msg = f"toyworld:{target} is unknown; {nearest(target, filter(None, variants))}"
            raise InputError(msg)
        if strength is not None:
            takes = [name for name, (_, usual) in CHANGES.items() if usual]
            if target not in takes:
                msg = f"toyworld:{target} has no strength; those that have one: {', '.join(takes)}"
                raise InputError(msg)
            kind = "numbers" if target == "sound-shifted" else "weights"  # below 0 the sound is early
            check_kinds({"strength": strength}, **{kind: ["strength"]})
        self._world = WORLDS.get(target, {})
        self._change, usual = CHANGES.get(target, (None, 0.0))
        self._strength = usual if strength is None else strength
        self.settings: Mapping[str, Any] = {"variant": target, "strength": self._strength, "version": 1}

    def generate(self, requests: Sequence[Request]) -> list[Made]:
        """Simulate each request's scene under its seed."""
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Made:
        scene, seed = Scene.of(request.prompt), request.key.seed
        clip, truth = make_clip(scene, seed, **self._world)
        if self._change is not None:
            # random numbers of its own, so that a variant does not depend on the world's draws
            rng = np.random.default_rng([*scene.generator(seed).integers(2**31, size=4), 1])
            clip = self._change(clip, rng, self._strength)
        # The truth is that of the simulation. The variant is named; its effect on the truth is not computed.
        return Made(clip, {"variant": self.settings["variant"], **truth.to_json()})
