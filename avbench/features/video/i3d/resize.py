"""Resizes frames as torch's bilinear resize of float32 does; on the CPU in a third of its time.

Along each axis such a resize is the product with a matrix that is 0 nearly everywhere, because a pixel is made of few
neighbours. The matrix is cut into blocks of a few rows, of which only the columns that are not 0 are multiplied.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from avbench.features.networks import planes

_BLOCK = 16
"""Resized pixels that are computed at a time. With more, most factors are 0; with fewer, products are slow."""


def resized(frames: np.ndarray, count: int, size: int, *, antialias: bool, device: torch.device) -> torch.Tensor:
    """The first `count` of ``[time, height, width, 3]`` uint8 frames as ``[count, 3, size, size]`` float32 in -1...1.

    Frames are taken one at a time, because a whole large clip leaves the cache and takes much memory.
    """
    chosen = itertools.islice(frames, count)
    if device.type != "cpu":
        there = (planes(frame[None], device) for frame in chosen)
        pictures = [interpolated(x, (size, size), "bilinear", antialias=antialias) for x in there]
        return torch.cat(pictures).div_(127.5).sub_(1)
    height, width = frames.shape[1:3]
    down = _blocks(height, size, antialias=antialias, channels=1)
    across = _blocks(width, size, antialias=antialias, channels=3)
    floats = torch.empty(max(len(block.weights) for block in down), 3 * width)
    lower, found = torch.empty(size, 3 * width), torch.empty(count, size, 3 * size)
    for frame, picture in zip(chosen, found, strict=True):
        rows = frame.reshape(height, -1)
        for to, of, weights in down:
            part = floats[: len(weights)]
            np.copyto(part.numpy(), rows[of])
            torch.mm(weights.T, part, out=lower[to])
        for to, of, weights in across:
            torch.mm(lower[:, of], weights, out=picture[:, to])
        picture.div_(127.5).sub_(1)
    return found.view(count, size, size, 3).permute(0, 3, 1, 2)


class _Block(NamedTuple):
    """Neighbouring numbers of the resized axis, the numbers that they are made of, and how: ``[made of, resized]``."""

    to: slice
    of: slice
    weights: torch.Tensor


@functools.lru_cache(maxsize=8)
def _blocks(length: int, size: int, *, antialias: bool, channels: int) -> list[_Block]:
    """The blocks of an axis on which each pixel has so many channels beside each other."""
    matrix = interpolated(torch.eye(length)[None, None], (size, length), "bilinear", antialias=antialias)[0, 0]
    found = []
    for start in range(0, size, _BLOCK):
        rows = matrix[start : start + _BLOCK]
        used = rows.any(dim=0).nonzero().ravel()
        first, end = int(used[0]), int(used[-1]) + 1
        weights = torch.kron(rows[:, first:end].T.contiguous(), torch.eye(channels))
        to, of = slice(channels * start, channels * (start + len(rows))), slice(channels * first, channels * end)
        found.append(_Block(to, of, weights))
    return found


def interpolated(x: torch.Tensor, size: tuple[int, int], mode: str, *, antialias: bool) -> torch.Tensor:
    """Torch's resize of ``[frames, channels, height, width]``, with corners not aligned."""
    return functional.interpolate(x, size, mode=mode, align_corners=False, antialias=antialias)
