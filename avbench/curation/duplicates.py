"""Finds clips that are copies of one another, by picture or by sound, in bounded memory.

Hashes are ``[clips, bytes]`` uint8. Each pair of adjacent bytes is a band. For each band, the clips are sorted by it;
within a group of equal bands they are sorted by the whole hash, and each is compared with the next `NEIGHBOURS` clips.
So time grows with clips × bands, never with the square of the clips. Two kinds of copy are missed: one that differs in
every band, and one that is further away than that in every sorted group.
"""

import numpy as np

NEIGHBOURS = 24
PICTURE_SHARE = 0.06
"""Largest share of differing bits between the picture hashes of copies."""
SOUND_SHARE = 0.06
"""Largest share of differing bits between the sound hashes of copies."""

_BITS = np.array([bin(value).count("1") for value in range(256)], np.uint16)


def as_bytes(hashes: list[str]) -> np.ndarray:
    """Convert hashes in hex, all of one length, to ``[clips, bytes]``."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), -1)


def differing(one: str, other: str) -> float:
    """The share of the bits in which two hashes in hex differ."""
    ones, others = as_bytes([one, other])
    return float(_BITS[ones ^ others].mean() / 8)


def pairs(hashes: np.ndarray, share: float) -> np.ndarray:
    """Find the pairs of clips that differ in at most `share` of the bits: ``[pairs, 2]``, lower number first."""
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
