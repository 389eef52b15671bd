"""Renders a scene's sound: every contact excites the modes of the bodies that touched (modal synthesis).

An impact of impulse J sends a half-sine pulse into two-pole resonators whose frequency is proportional to 1 / size. The
result has 16-bit samples, so that a FLAC file holds it exactly and another machine's rounding of a sine seldom shows.
Source: the modal model of van den Doel, Kry and Pai, "FoleyAutomatic" (2001), with avbench's own parameters.
"""

import numpy as np
from scipy.signal import sosfilt

from avbench.toyworld.physics import Contact, Stage
from avbench.toyworld.scene import MATERIALS, Material

_REFERENCE_WIDTH = 0.3
_SURROUNDINGS_WIDTH = 0.6
_ROOM_NOISE = 0.0006
"""About −64 dBFS, so that no clip is digitally silent."""
_LOUDEST = 0.9


def sound(stage: Stage, contacts: list[Contact], samples: int, sample_rate: int) -> np.ndarray:
    """Synthesise mono sound, ``[1, samples]`` float32; contacts beyond the end are left out."""
    wave = _ROOM_NOISE * stage.rng.standard_normal(samples)
    sounding = {
        actor.name: (MATERIALS[actor.spec.material], 2 * max(actor.half_width, actor.half_height))
        for actor in stage.actors
    }
    surroundings = (MATERIALS[stage.scene.floor], _SURROUNDINGS_WIDTH)
    for name, (material, width) in {**sounding, "floor": surroundings, "wall": surroundings}.items():
        blows = [contact for contact in contacts if name in (contact.a, contact.b)]
        if blows:
            share = 0.35 if name in ("floor", "wall") else 1.0
            wave += share * _rung(material, width, _excitation(blows, material, samples, sample_rate), sample_rate)
    limited = _LOUDEST * np.tanh(wave / _LOUDEST)
    return (np.round(limited * 32767) / 32768).astype(np.float32)[None]


def _excitation(blows: list[Contact], material: Material, samples: int, sample_rate: int) -> np.ndarray:
    """Half-sine pulses whose strength grows with the root of the impulse, as loudness does over a wide range."""
    force = np.zeros(samples)
    length = max(2, round(material.strike_seconds * sample_rate))
    pulse = np.sin(np.pi * (np.arange(length) + 0.5) / length)
    for blow in blows:
        start = round(blow.seconds * sample_rate)
        end = min(start + length, samples)
        if start < end:
            force[start:end] += 0.16 * np.sqrt(blow.impulse) * material.loudness * pulse[: end - start]
    return force


def _rung(material: Material, width: float, force: np.ndarray, sample_rate: int) -> np.ndarray:
    """The sum of the material's modes below 0.45 of the sample rate, driven by `force`."""
    out = np.zeros_like(force)
    for ratio, gain, ring in zip(material.mode_ratios, material.mode_gains, material.ring_seconds, strict=True):
        pitch = material.pitch_hz * ratio * _REFERENCE_WIDTH / width
        if pitch > 0.45 * sample_rate:
            continue
        angle = 2 * np.pi * pitch / sample_rate
        radius = 10 ** (-3 / (ring * sample_rate))
        resonator = [[0.0, np.sin(angle), 0.0, 1.0, -2 * radius * np.cos(angle), radius**2]]
        # the pulse's area, not its peak, decides how strongly a mode swings; below its own frequency it hardly responds
        area = max(1.0, material.strike_seconds * sample_rate * 2 / np.pi)
        out += gain * np.asarray(sosfilt(resonator, force)) / area
    return out
