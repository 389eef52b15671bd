"""Draws a scene as 64×64 RGB: bodies are drawn at four times the size and averaged down for smooth edges.

Materials look different: rubber is flat, wood has grain, metal has a dark rim and a highlight, and glass lets the
background through. Ground and walls are nearly grey, so that only bodies have the named colours.
"""

import cv2
import numpy as np

from avbench.toyworld.physics import Actor, Stage
from avbench.toyworld.scene import COLOURS, VIEW_METRES

_OVERSAMPLING = 4
_SUBPIXEL_BITS = 4
_GROUND_GREY = {"rubber": (70, 70, 74), "wood": (150, 138, 124), "metal": (128, 132, 138), "glass": (176, 186, 186)}


def draw(stage: Stage, states: np.ndarray, size: int) -> np.ndarray:
    """Draw every frame of `states` (``[frames, bodies, 6]``, see `physics.run`): ``[frames, size, size, 3]`` uint8."""
    canvas_size = size * _OVERSAMPLING
    backdrop = _backdrop(stage, canvas_size)
    frames = np.empty((len(states), size, size, 3), np.uint8)
    for frame, state in zip(frames, states, strict=True):
        canvas = backdrop.copy()
        for actor, row in zip(stage.actors, state, strict=True):
            if actor.rod_to is not None:
                grip = _on_canvas(np.array([actor.rod_to, row[:2]]), canvas_size)
                cv2.line(canvas, grip[0], grip[1], (60, 58, 56), 6, cv2.LINE_AA, _SUBPIXEL_BITS)
        for actor, row in zip(stage.actors, state, strict=True):
            _body(canvas, actor, row)
        cv2.resize(canvas, (size, size), dst=frame, interpolation=cv2.INTER_AREA)
    return frames


def _backdrop(stage: Stage, canvas_size: int) -> np.ndarray:
    light = stage.rng.uniform(200, 232)
    tint = stage.rng.uniform(-6, 6, 3)
    slope = np.linspace(10, -14, canvas_size)[:, None, None]
    canvas = np.clip(light + tint + slope, 0, 255).astype(np.uint8).repeat(canvas_size, axis=1)
    pixels = canvas_size / VIEW_METRES
    grey = _GROUND_GREY[stage.scene.floor]
    if stage.shows_floor:
        edge = round(canvas_size - stage.floor_height * pixels)
        canvas[edge:] = grey
        canvas[edge : edge + 4] = [round(value * 0.75) for value in grey]
    if stage.wall is not None:
        left, right = (max(0, round(edge * pixels)) for edge in stage.wall)
        canvas[:, left:right] = [round(value * 0.85) for value in grey]
    if stage.rail_height is not None:
        height = round(canvas_size - stage.rail_height * pixels)
        canvas[height - 3 : height + 3] = (110, 108, 106)
    return canvas


def _outline(shape: str) -> np.ndarray:
    """Corners of a body of half size 1, relative to its centre, ``[points, 2]``, counterclockwise."""
    if shape == "ball":
        turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        return np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])


def _placed(points: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Rotate and move points from a body's own coordinates to its place in the scene, in metres."""
    x, y, _, _, angle, _ = row
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return points @ turn + (x, y)


def _on_canvas(points: np.ndarray, canvas_size: int) -> np.ndarray:
    """Convert metres (y up) to canvas pixels (y down) in OpenCV's fixed-point format."""
    pixels = canvas_size / VIEW_METRES
    flipped = np.stack([points[:, 0] * pixels, canvas_size - points[:, 1] * pixels], axis=1) - 0.5
    return np.round(flipped * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _body(canvas: np.ndarray, actor: Actor, row: np.ndarray) -> None:
    """Draw one body on the square canvas; `row` is its state."""
    material, colour, size = actor.spec.material, COLOURS[actor.spec.colour], len(canvas)
    half_size = np.array([actor.half_width, actor.half_height])
    corners = _on_canvas(_placed(_outline(actor.spec.shape) * half_size, row), size)
    dark = tuple(round(value * 0.6) for value in colour)
    under = canvas.copy() if material == "glass" else None
    cv2.fillPoly(canvas, [corners], colour, cv2.LINE_AA, _SUBPIXEL_BITS)
    if material == "wood":
        for level in (-0.45, 0.0, 0.45):
            half = np.sqrt(1 - level**2) if actor.spec.shape == "ball" else 1.0
            grain = _placed(np.array([[-half, level], [half, level]]) * half_size * 0.95, row)
            ends = _on_canvas(grain, size)
            cv2.line(canvas, ends[0], ends[1], dark, 4, cv2.LINE_AA, _SUBPIXEL_BITS)
    if under is not None:
        cv2.addWeighted(canvas, 0.62, under, 0.38, 0, dst=canvas)
        cv2.polylines(canvas, [corners], True, colour, 5, cv2.LINE_AA, _SUBPIXEL_BITS)
    if material == "metal":
        cv2.polylines(canvas, [corners], True, dark, 7, cv2.LINE_AA, _SUBPIXEL_BITS)
    if material in ("metal", "glass"):
        # light comes from the upper left of the room, so the highlight does not turn with the body
        spot = np.array([[row[0], row[1]]]) + half_size.min() * np.array([[-0.35, 0.35]])
        centre = _on_canvas(spot, size)[0]
        radius = round(half_size.min() * 0.28 * (size / VIEW_METRES) * (1 << _SUBPIXEL_BITS))
        cv2.circle(canvas, centre, radius, (255, 255, 255), -1, cv2.LINE_AA, _SUBPIXEL_BITS)
