"""Judges from pixels alone whether a clip obeys the toy world's physics, by tracking coloured bodies.

The content of the scene's caption (bodies, colours, family) is known; positions are read from the frames. Units are the
scene's metres, seconds and kilograms, with y upwards from the lower edge of a view of 2 m. Bodies of one colour cannot
be told apart, so only the colours of cradles and dominoes are judged. While a body touches the frame's edge its centre
is unknown, and its motion is not judged.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from avbench.toyworld.inverse import Body, bodies
from avbench.toyworld.physics import GRAVITY
from avbench.toyworld.scene import VIEW_METRES, Scene

FALLING = ("drop", "projectile")
LEVEL = ("collide", "drift")
LEAST_KICK = 0.7
"""m/s. A smaller change of velocity cannot be distinguished from the inaccuracy of pixels."""
TOUCHING = 0.09
"""Metres, about three pixels. Things nearer to each other than this touch."""


@dataclass(frozen=True, eq=False)
class Track:
    """One body through the clip; NaN while it is not fully visible. Arrays are ``[frames]`` or ``[frames, 2]``."""

    colour: str
    centres: np.ndarray
    halves: np.ndarray
    """Half width and half height of the visible part."""
    areas: np.ndarray
    """Visible area in square metres, also of a part; 0 where nothing is visible."""


class Kick(NamedTuple):
    """An abrupt change of a body's velocity."""

    body: int
    seconds: float
    speed: float
    """Size of the change, m/s."""
    gap: float
    """Distance to the nearest thing at that moment, in metres; 0 or less if they touch."""


@dataclass(frozen=True)
class Findings:
    """The results; None if the scene, or the visible part of it, allows no judgement."""

    colours_shown: float
    """Share of the scene's colours that appear at all."""
    strange_share: float
    """Share of the coloured area whose colour no body of the scene has, averaged over frames."""
    breaks: int
    """Times that a body vanishes or appears inside the picture."""
    kicks: tuple[Kick, ...] | None
    penetration: float | None
    """Deepest overlap of a body with floor, wall or another body, in metres."""
    gravity: float | None
    """Acceleration in m/s², median over free flight."""
    energy_gain: float | None
    """Largest rise of a body's energy in the course of the clip, as a height in metres."""


def judge(frames: np.ndarray, fps: float, scene: Scene) -> Findings:
    """Judge ``[time, height, width, 3]`` uint8 frames of a scene."""
    seen = [bodies(frame) for frame in frames]
    scale = VIEW_METRES / frames.shape[1]
    wanted = list(dict.fromkeys(body.colour for body in scene.bodies))
    tracks = [_track(seen, colour, frames.shape[1:3], scale) for colour in wanted]
    shown = float(np.mean([bool((track.areas > 0).any()) for track in tracks]))
    apart = len(wanted) == len(scene.bodies) and scene.family in (*FALLING, *LEVEL)
    floor, wall = _surroundings(frames, scene, scale) if apart else (None, None)
    strange = _strange_share(seen, wanted)
    breaks = sum(_breaks(track, fps) for track in tracks) if len(wanted) == len(scene.bodies) else 0
    if not apart or not any(np.isfinite(track.centres).any() for track in tracks):
        return Findings(shown, strange, breaks, kicks=None, penetration=None, gravity=None, energy_gain=None)
    pull = np.array([0.0, -GRAVITY]) if scene.family in FALLING else np.zeros(2)
    kicks = tuple(
        kick for index, track in enumerate(tracks) for kick in _kicks(index, track, fps, pull, tracks, floor, wall)
    )
    return Findings(
        shown,
        strange,
        breaks,
        kicks=kicks,
        penetration=_penetration(tracks, floor, wall),
        gravity=_gravity(tracks, fps, floor) if scene.family in FALLING else None,
        energy_gain=_energy_gain(tracks, fps, floor) if scene.family in FALLING else None,
    )


def _track(seen: list[list[Body]], colour: str, shape: tuple[int, int], scale: float) -> Track:
    height, width = shape
    centres, halves = np.full((len(seen), 2), np.nan), np.full((len(seen), 2), np.nan)
    areas = np.zeros(len(seen))
    for index, found in enumerate(seen):
        parts = [body for body in found if body.colour == colour]
        if not parts:
            continue
        areas[index] = sum(part.area for part in parts) * scale**2
        largest = parts[0]
        left, top, right, bottom = largest.box
        if left > 0 and top > 0 and right < width and bottom < height:
            centres[index] = (largest.centre[0] + 0.5) * scale, (height - largest.centre[1] - 0.5) * scale
            halves[index] = (right - left) * scale / 2, (bottom - top) * scale / 2
    return Track(colour, centres, halves, areas)


def _strange_share(seen: list[list[Body]], wanted: list[str]) -> float:
    shares = []
    for found in seen:
        every = sum(body.area for body in found)
        if every:
            shares.append(sum(body.area for body in found if body.colour not in wanted) / every)
    return float(np.mean(shares)) if shares else 0.0


def _breaks(track: Track, fps: float) -> int:
    """Times that a fully visible body is gone in the next frame without having left the picture, and the reverse."""
    whole, gone = np.isfinite(track.centres[:, 0]), track.areas == 0
    count = 0
    for centres, halves, was, is_gone in (
        (track.centres, track.halves, whole, gone),
        (track.centres[::-1], track.halves[::-1], whole[::-1], gone[::-1]),
    ):
        for k in np.flatnonzero(was[:-2] & was[1:-1] & is_gone[2:]) + 1:
            ahead, margin = 2 * centres[k] - centres[k - 1], halves[k] + (0.0, GRAVITY / fps**2)
            count += bool(np.all((ahead - margin > 0) & (ahead + margin < VIEW_METRES)))
    return count


def _surroundings(frames: np.ndarray, scene: Scene, scale: float) -> tuple[float | None, float | None]:
    """Height of the floor and x of the wall's edge, from edges in the median frame; None where no edge is clear."""
    grey = np.median(frames, axis=0).mean(axis=2)
    floor = wall = None
    if scene.family in ("drop", "projectile", "collide"):
        columns = slice(0, len(grey) * 3 // 4) if scene.side == "left" else slice(len(grey) // 4, None)
        rows = np.median(grey[:, columns], axis=1)
        steps = np.abs(np.diff(rows))[len(rows) // 2 :]
        if steps.max() > 8:
            floor = (len(rows) - (len(rows) // 2 + int(steps.argmax()) + 1)) * scale
    if scene.family == "projectile":
        across = np.median(grey[: len(grey) // 2], axis=0)
        steps = np.abs(np.diff(across))
        half = len(across) // 2
        steps[:half] *= scene.side == "right"
        steps[half:] *= scene.side == "left"
        if steps.max() > 8:
            wall = (int(steps.argmax()) + 1) * scale
    return floor, wall


def _kicks(
    index: int,
    track: Track,
    fps: float,
    pull: np.ndarray,
    tracks: list[Track],
    floor: float | None,
    wall: float | None,
) -> list[Kick]:
    """Changes of velocity that neither gravity nor standing still explains; of adjacent ones the strongest."""
    velocity = np.diff(track.centres, axis=0) * fps
    change = velocity[2:] - velocity[:-2]
    sizes = np.minimum(np.linalg.norm(change - 2 * pull / fps, axis=1), np.linalg.norm(change, axis=1))
    sizes = np.where(np.isfinite(sizes), sizes, 0.0)
    beside = np.pad(sizes, 1)
    kicks = []
    for j in np.flatnonzero((sizes >= LEAST_KICK) & (sizes >= beside[:-2]) & (sizes > beside[2:])).tolist():
        k, before, between = j + 1, velocity[j], velocity[j + 1]
        jump = change[j] - 2 * pull / fps
        gone = np.clip(1 - (between - before - pull / fps) @ jump / (jump @ jump), 0, 1) / fps
        place = track.centres[k] + gone * (before + pull / (2 * fps)) + pull * gone**2 / 2
        half = np.fmax(track.halves[k], track.halves[k + 1])
        kicks.append(Kick(index, k / fps + gone, float(sizes[j]), _gap(index, place, half, k, tracks, floor, wall)))
    return kicks


def _gap(
    index: int,
    place: np.ndarray,
    half: np.ndarray,
    k: int,
    tracks: list[Track],
    floor: float | None,
    wall: float | None,
) -> float:
    gaps = [np.inf]
    if floor is not None:
        gaps.append(place[1] - half[1] - floor)
    if wall is not None:
        gaps.append(abs(place[0] - wall) - half[0])
    for other, track in enumerate(tracks):
        for frame in (k, k + 1):
            if other != index and np.isfinite(track.centres[frame]).all():
                radii = np.hypot(*half) + np.hypot(*track.halves[frame])
                gaps.append(np.linalg.norm(place - track.centres[frame]) - radii)
    return float(min(gaps))


def _penetration(tracks: list[Track], floor: float | None, wall: float | None) -> float | None:
    depths = [0.0]
    for index, track in enumerate(tracks):
        if floor is not None:
            depths.append(float(np.nanmax(floor - track.centres[:, 1] + track.halves[:, 1], initial=0.0)))
        if wall is not None:
            depths.append(float(np.nanmax(track.halves[:, 0] - np.abs(track.centres[:, 0] - wall), initial=0.0)))
        for other in tracks[index + 1 :]:
            apart = np.linalg.norm(track.centres - other.centres, axis=1)
            least = track.halves.min(axis=1) + other.halves.min(axis=1)
            depths.append(float(np.nanmax(least - apart, initial=0.0)))
    return max(depths) if floor is not None or len(tracks) > 1 else None


def _in_flight(track: Track, floor: float | None) -> np.ndarray:
    """Frames in which the body is well above the floor."""
    clear = np.isfinite(track.centres[:, 0])
    if floor is not None:
        clear &= track.centres[:, 1] - track.halves[:, 1] - floor > TOUCHING
    return clear


def _gravity(tracks: list[Track], fps: float, floor: float | None) -> float | None:
    pulls = []
    for track in tracks:
        flies = _in_flight(track, floor)
        thrice = flies[:-2] & flies[1:-1] & flies[2:]
        pulls += list(-np.diff(track.centres[:, 1], n=2)[thrice] * fps**2)
    return float(np.median(pulls)) if len(pulls) >= 2 else None


def _energy_gain(tracks: list[Track], fps: float, floor: float | None) -> float | None:
    """The largest later rise of kinetic plus potential energy, per weight, between frames that are both in flight."""
    gains = []
    for track in tracks:
        flies = _in_flight(track, floor)
        both = flies[:-1] & flies[1:]
        speed2 = np.sum((np.diff(track.centres, axis=0) * fps) ** 2, axis=1)
        height = (track.centres[:-1, 1] + track.centres[1:, 1]) / 2
        energy = (speed2 / (2 * GRAVITY) + height)[both]
        if len(energy) >= 2:
            gains.append(float(np.max(energy - np.minimum.accumulate(energy))))
    return max(gains) if gains else None
