"""Finds clips that are copies of one another, by picture or by sound, in bounded memory.

Copies by picture must have near hashes of whole frames and of what moves in them: before one unmoving background, whole
frames are near whatever happens. Hashes are ``[clips, bytes]`` uint8. Each pair of adjacent bytes is a band. For each
band, the clips are sorted by it; within a group of equal bands they are sorted by the whole hash, and each is compared
with the next `NEIGHBOURS` clips. So time grows with clips × bands, never with the square of the clips. Two kinds of
copy are missed: one that differs in every band, and one that is further away than that in every sorted group.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

NEIGHBOURS = 24
PICTURE = {"picture_hash": 0.06, "moving_hash": 0.2}
"""Hash → the largest share of differing bits of copies by picture; both must be near."""
SOUND = {"sound_hash": 0.06}

_BITS = np.array([bin(value).count("1") for value in range(256)], np.uint16)


def as_bytes(hashes: list[str]) -> np.ndarray:
    """Convert hashes in hex, all of one length, to ``[clips, bytes]``."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), -1)


def differing(one: str, other: str) -> float:
    """The share of the bits in which two hashes in hex differ."""
    ones, others = as_bytes([one, other])
    return float(_BITS[ones ^ others].mean() / 8)


def near(table: pd.DataFrame, limits: Mapping[str, float]) -> np.ndarray:
    """Find the pairs of rows that are near in each of the columns of hashes in hex: ``[pairs, 2]``, lower number first.

    Args:
        table: one row per clip; a clip without one of the hashes is in no pair.
        limits: `PICTURE` or `SOUND`.
    """
    having = np.flatnonzero(table[[*limits]].notna().to_numpy().all(axis=1))
    if len(having) < 2:
        return np.empty((0, 2), np.intp)
    parts = [as_bytes(list(table[column].iloc[having])) for column in limits]
    widths = [part.shape[1] for part in parts]
    return having[pairs(np.hstack(parts), list(zip(widths, limits.values(), strict=True)))]


def pairs(hashes: np.ndarray, limits: Sequence[tuple[int, float]]) -> np.ndarray:
    """Find the pairs of near clips: ``[pairs, 2]``, lower number first.

    Args:
        hashes: ``[clips, bytes]``, of one or more parts.
        limits: of each part, its bytes and the largest share of its bits that may differ.
    """
    count, width = hashes.shape
    found = [np.empty((0, 2), np.intp)]
    for band in range(0, width - 1, 2):
        keys = [hashes[:, column] for column in range(width - 1, -1, -1) if column not in (band, band + 1)]
        order = np.lexsort((*keys, hashes[:, band + 1], hashes[:, band]))
        ordered = hashes[order]
        for step in range(1, min(NEIGHBOURS, count - 1) + 1):
            one = np.flatnonzero(np.all(ordered[step:, band : band + 2] == ordered[:-step, band : band + 2], axis=1))
            if not len(one):
                break
            apart, begin = _BITS[ordered[one] ^ ordered[one + step]], 0
            for size, share in limits:
                fits = apart[:, begin : begin + size].sum(axis=1) <= share * 8 * size
                one, apart, begin = one[fits], apart[fits], begin + size
            found.append(np.sort(np.stack([order[one], order[one + step]], axis=1), axis=1))
    return np.unique(np.concatenate(found), axis=0)


def groups(count: int, found: np.ndarray) -> np.ndarray:
    """``[clips]``: the lowest number in each clip's group of connected clips; its own number if it has no copy."""
    first = np.arange(count)

    def root(clip: int) -> int:
        while first[clip] != clip:
            first[clip] = first[first[clip]]
            clip = first[clip]
        return clip

    for one, two in found:
        low, high = sorted((root(one), root(two)))
        first[high] = low
    return np.array([root(clip) for clip in range(count)], dtype=np.intp)
