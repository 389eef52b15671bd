"""Draws a contact sheet, three frames of each kept clip, for people to check the choice by eye."""

from pathlib import Path

import cv2
import numpy as np

from avbench.storage.media import read_clip
from avbench.storage.writing import write_whole

MOST = 40
"""Clips on a sheet, evenly spread over the kept ones."""
_WIDTH, _HEIGHT, _LABEL, _COLUMNS = 128, 96, 18, 4


def write_sheet(clips: list[tuple[str, Path]], place: Path) -> None:
    """Draw (label, file) pairs as a PNG: beginning, middle and end of each clip."""
    chosen = [
        clips[index] for index in np.unique(np.linspace(0, len(clips) - 1, min(MOST, len(clips))).round().astype(int))
    ]
    tiles = [_tile(label, path) for label, path in chosen]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % _COLUMNS)
    lines = [np.hstack(tiles[index : index + _COLUMNS]) for index in range(0, len(tiles), _COLUMNS)]
    _, png = cv2.imencode(".png", cv2.cvtColor(np.vstack(lines), cv2.COLOR_RGB2BGR))
    write_whole(place, png.tobytes())


def _tile(label: str, path: Path) -> np.ndarray:
    frames = read_clip(path).frames
    canvas = np.full((_HEIGHT + _LABEL + 6, 3 * _WIDTH + 10, 3), 255, np.uint8)
    for index, place in enumerate((0, len(frames) // 2, len(frames) - 1)):
        height, width = frames.shape[1:3]
        scale = min(_WIDTH / width, _HEIGHT / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        left = index * _WIDTH + (_WIDTH - size[0]) // 2
        canvas[_LABEL : _LABEL + size[1], left : left + size[0]] = cv2.resize(
            frames[place], size, interpolation=cv2.INTER_AREA
        )
    cv2.putText(canvas, label[:58], (2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (20, 20, 20), 1, cv2.LINE_AA)
    return canvas
