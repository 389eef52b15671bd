"""Computes histograms of motion by direction, place and time: the embedding that `motion_frechet` compares."""

import functools

import numpy as np

from avbench.features.flow.pairs import length
from avbench.features.flow.protocol import FlowProtocol


def motion_histogram(
    velocities: list[np.ndarray],
    changes: list[np.ndarray],
    per_second: float,
    changes_per_second: float,
    protocol: FlowProtocol,
) -> np.ndarray:
    """Histogram of velocities and of their changes by time, place and direction: flat float32 roots of mean lengths.

    The idea is that of the Fréchet video motion distance (Liu et al., 2024), on dense flow instead of tracked points.
    Velocities are in diagonals per second. Their changes along the flow, v(k+n) where x has gone by then less v(k) at
    x, are in diagonals per second per `acceleration_seconds`; n is `acceleration_span` in frames. Each cell of
    ``[velocity or change, span, row, column, direction]`` holds the mean length of its vectors. The square root keeps
    a few fast clips from dominating the distance.
    """
    unit = np.array([per_second, per_second * changes_per_second * protocol.acceleration_seconds])
    spans = [
        np.mean(part, axis=0)
        for kind, scale in zip((velocities, changes), unit, strict=True)
        for part in np.array_split(np.array(kind) * scale, protocol.histogram_spans)
    ]
    return np.sqrt(np.concatenate(spans)).astype(np.float32)


def by_cell_and_direction(vectors: np.ndarray, protocol: FlowProtocol) -> np.ndarray:
    """Mean length of ``[height, width, 2]`` vectors in each part of the frame, divided among directions; flat."""
    side, directions = protocol.histogram_side, protocol.histogram_directions
    middle, pixels = _parts(*vectors.shape[:2], side, directions)
    lengths = length(vectors).ravel()
    moving = np.flatnonzero(lengths > 0)  # the rest of the frame adds nothing, and often it is most of it
    lengths, places = lengths.take(moving), middle.take(moving)
    x, y = vectors.reshape(-1, 2).take(moving, axis=0).T
    turn = np.arctan2(y, x) / (2 * np.pi) * directions
    before = np.floor(turn)
    share = turn - before
    # Turns lie in -directions / 2 ... directions / 2. Bins for two whole turns are cheaper than a remainder per pixel.
    places += before.astype(np.intp)
    total = np.bincount(places, lengths * (1 - share), 2 * directions * side * side)
    total += np.bincount(places + 1, lengths * share, len(total))
    return (total.reshape(-1, 2, directions).sum(axis=1) / pixels[:, None]).ravel()


@functools.lru_cache(maxsize=4)
def _parts(height: int, width: int, side: int, directions: int) -> tuple[np.ndarray, np.ndarray]:
    """The middle of the bins of the part that each pixel lies in, ``[height * width]``, and the pixels of each part."""
    cell = (np.arange(height) * side // height)[:, None] * side + np.arange(width) * side // width
    return cell.ravel() * (2 * directions) + directions, np.bincount(cell.ravel())
