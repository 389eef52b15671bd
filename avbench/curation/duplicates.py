"""Finds clips that are copies of one another, by picture or by sound, in bounded memory.

Hashes are ``[clips, bytes]`` uint8. Each pair of neighbouring bytes is a band: clips are put in the order of a band,
and those with the same one are compared with the `NEIGHBOURS` after them in the order of the whole hash. So time goes
with clips × bands, never with the square of the clips; a copy that differs in every band, or stands behind more than
that many others, is missed.
"""

import numpy as np

NEIGHBOURS = 24
PICTURE_SHARE = 0.06
"""Share of the bits in which copies' pictures may differ,"""
SOUND_SHARE = 0.06
"""and their sounds."""

_BITS = np.array([bin(value).count("1") for value in range(256)], np.uint16)


def as_bytes(hashes: list[str]) -> np.ndarray:
    """Hashes in hex, all of one length, as ``[clips, bytes]``."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), -1)


def pairs(hashes: np.ndarray, share: float) -> np.ndarray:
    """Pairs of clips whose hashes differ in at most `share` of their bits: ``[pairs, 2]``, the lower number first."""
    count, width = hashes.shape
    found = [np.empty((0, 2), np.intp)]
    for band in range(0, width - 1, 2):
        keys = [hashes[:, column] for column in range(width - 1, -1, -1) if column not in (band, band + 1)]
        order = np.lexsort((*keys, hashes[:, band + 1], hashes[:, band]))
        ordered = hashes[order]
        for step in range(1, min(NEIGHBOURS, count - 1) + 1):
            same = np.all(ordered[step:, band : band + 2] == ordered[:-step, band : band + 2], axis=1)
            one = np.flatnonzero(same)
            if not len(one):
                break
            apart = _BITS[ordered[one] ^ ordered[one + step]].sum(axis=1)
            near = one[apart <= share * 8 * width]
            found.append(np.sort(np.stack([order[near], order[near + step]], axis=1), axis=1))
    return np.unique(np.concatenate(found), axis=0)


def groups(count: int, found: np.ndarray) -> np.ndarray:
    """``[clips]``: the lowest number of the clips that each is joined with, itself where with none."""
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
