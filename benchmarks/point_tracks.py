"""Decides whether a distance of tracked points detects more than `motion_frechet`. Remakes a table of docs/validity.md.

    python benchmarks/point_tracks.py      # half an hour on one core

The Fréchet video motion distance (FVMD; Liu et al., 2024, arXiv 2407.16124) compares histograms of the velocities and
accelerations of 20 by 20 points, which a network tracks through 16 frames of 256 by 256 pixels. Here the points are
tracked in two other ways: by pyramids of Lucas and Kanade, and exactly, from the embedded world's own states, which no
network can do better. The exact tracks are also summed up in the histogram of `motion_frechet` instead of FVMD's. Every
distance is computed on the same clips and has a null of its own at the same number of clips. Of equal tracks the
histograms are those of the package fvmd 1.0.0.

A change of the picture alone leaves the exact tracks as they are, so it has no cell there.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np
import pandas as pd

from avbench.core import Clip, Key, Prompt
from avbench.features.flow import DISFlow
from avbench.features.flow.histogram import by_cell_and_direction, motion_histogram
from avbench.generation.providers.toyworld import ToyWorld
from avbench.generation.table import Request
from avbench.metrics import distances
from avbench.metrics.evaluate import chosen_metrics
from avbench.subsets import loading
from avbench.toyworld.scene import VIEW_METRES
from benchmarks.validity import SEEN, insert

SUBSETS = ("toy-object-contact", "toy-large-motion")
SIZES = (24, 48)
MOTION = ("", "frozen", "shuffled", "reversed", "no-contact", "zero-gravity", "avoiding")
"""Variants whose exact tracks are known."""
PICTURE = ("vanishing", "noisy", "flickering", "blurred")
REFERENCE_SEEDS = (1001, 1002)
"""To every seed the number of the prompt is added, so that clips of two prompts differ in more than their scene."""

SIDE, POINTS, MARGIN = 256, 20, 8
CELL, SPAN, DIRECTIONS, MOST = 5, 4, 8, 256
"""FVMD's cells of points and frames, its directions, and the length at which its logarithm ends."""
WINDOW, LEVELS = (21, 21), 4
FOUND_AGAIN = 1.5
"""Pixels. A point that the tracks back do not lead back to within this distance stays where it is."""

DISTANCES = {
    "flow": "`motion_frechet`",
    "followed": "FVMD, Lucas–Kanade",
    "exact": "FVMD, exact tracks",
    "exact in flow's": "exact tracks, histogram of `motion_frechet`",
}
"""What is compared → its name in the table."""

Tracks = np.ndarray
"""``[frames, points, 2]`` in pixels, x before y; the points are the rows of a square grid."""


def grid() -> np.ndarray:
    """The points of the first frame, ``[points, 2]``."""
    line = np.linspace(MARGIN, SIDE - MARGIN, POINTS)
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def followed(frames: np.ndarray) -> Tracks:
    """Tracks by pyramids of Lucas and Kanade, forward and back between each two frames."""
    greys = [cv2.cvtColor(cv2.resize(frame, (SIDE, SIDE)), cv2.COLOR_RGB2GRAY) for frame in frames]
    tracks = [grid().astype(np.float32)]
    for one, two in itertools.pairwise(greys):
        ahead, found, _ = cv2.calcOpticalFlowPyrLK(one, two, tracks[-1], None, winSize=WINDOW, maxLevel=LEVELS)
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(two, one, ahead, None, winSize=WINDOW, maxLevel=LEVELS)
        apart = np.linalg.norm(back - tracks[-1], axis=-1)
        sure = (found[:, 0] > 0) & (found_back[:, 0] > 0) & (apart < FOUND_AGAIN)
        tracks.append(np.where(sure[:, None], ahead, tracks[-1]))
    return np.array(tracks, dtype=np.float64)


def exact(truth: Mapping[str, Any], order: np.ndarray) -> Tracks:
    """Tracks of the same points by the simulation's states, in the order in which its frames are shown."""
    states = np.array(truth["states"]["frames"])[order]
    points = grid() * (1, -1) * VIEW_METRES / SIDE + (0, VIEW_METRES)
    places = np.repeat(points[None], len(states), axis=0)
    for body, (half, spec) in enumerate(zip(truth["half_sizes_metres"], truth["scene"]["bodies"], strict=True)):
        own = (points - states[0, body, :2]) @ _turn(states[0, body, 4]).T
        covered = np.hypot(*own.T) <= half[0] if spec["shape"] == "ball" else (np.abs(own) <= half).all(axis=1)
        for place, state in zip(places, states[:, body], strict=True):  # a later body is drawn over an earlier one
            place[covered] = own[covered] @ _turn(state[4]) + state[:2]
    return (places - (0, VIEW_METRES)) * (1, -1) * SIDE / VIEW_METRES


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def fvmd_histogram(tracks: Tracks) -> np.ndarray:
    """FVMD's histograms of velocities and accelerations, one after the other and flat."""
    velocity = np.diff(tracks, axis=0, prepend=tracks[:1])
    acceleration = np.zeros_like(velocity)
    acceleration[2:] = velocity[2:] - velocity[1:-1]
    return np.concatenate([_fvmd_part(velocity), _fvmd_part(acceleration)])


def _fvmd_part(vectors: np.ndarray) -> np.ndarray:
    x, y = vectors.reshape(len(vectors), POINTS, POINTS, 2).transpose(3, 0, 1, 2)
    direction = np.clip((np.arctan2(x, y) + np.pi) // (2 * np.pi / DIRECTIONS), 0, DIRECTIONS - 1).astype(int)
    length = np.ceil(np.log2(np.clip(np.hypot(x, y), 0, MOST - 1) + 1)) / np.log2(MOST)
    span, row, column = np.indices(length.shape) // np.array([SPAN, CELL, CELL])[:, None, None, None]
    total = np.zeros((len(vectors) // SPAN, POINTS // CELL, POINTS // CELL, DIRECTIONS))
    np.add.at(total, (span, row, column, direction), length)
    return total.ravel()


def flow_histogram(tracks: Tracks) -> np.ndarray:
    """The histogram of `motion_frechet`, of tracks instead of dense flow."""
    protocol, fps = DISFlow.protocol, 8.0
    velocities = np.diff(tracks, axis=0).reshape(-1, POINTS, POINTS, 2)
    kinds = [
        [by_cell_and_direction(one, protocol) for one in part] for part in (velocities, np.diff(velocities, axis=0))
    ]
    return motion_histogram(*kinds, fps / np.hypot(SIDE, SIDE), fps, protocol)


def made(variant: str, prompt: Prompt, seed: int) -> dict[str, np.ndarray]:
    """What each distance compares, of one clip."""
    (one,) = ToyWorld(variant).generate([Request(Key("", prompt.id, seed), prompt, None)])
    assert isinstance(one.clip, Clip) and one.truth is not None  # the world's clips have both
    found = {"flow": np.asarray(DISFlow()(one.clip)["motion_histogram"])}
    found["followed"] = fvmd_histogram(followed(one.clip.frames))
    if variant in MOTION:
        tracks = exact(one.truth, _order(variant, len(one.clip.frames), seed))
        found |= {"exact": fvmd_histogram(tracks), "exact in flow's": flow_histogram(tracks)}
    return found


def _order(variant: str, frames: int, seed: int) -> np.ndarray:
    """In which order the simulation's frames are shown; a shuffled clip's own order is another random one."""
    if variant == "frozen":
        return np.zeros(frames, int)
    if variant == "shuffled":
        return np.random.default_rng(seed).permutation(frames)
    return np.arange(frames)[:: -1 if variant == "reversed" else 1]


def rows(work: Path, subset: str, variant: str, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """What each distance compares, ``[prompts, seeds, numbers]``, of a file of `work` or computed and stored there."""
    file = work / f"{subset}-{variant or 'world'}-{len(seeds)}.npz"
    if not file.exists():
        prompts = loading.load(subset).prompts[: max(SIZES)]
        clips = [[made(variant, prompt, seed + n) for seed in seeds] for n, prompt in enumerate(prompts)]
        work.mkdir(parents=True, exist_ok=True)
        np.savez(file, **{name: np.array([[one[name] for one in each] for each in clips]) for name in clips[0][0]})
    return dict(np.load(file))


def asked(work: Path, subset: str) -> Iterator[dict[str, object]]:
    """One row for each variant, size and distance: excess in standard deviations of the null, and p."""
    (metric,) = chosen_metrics(["motion_frechet"])
    prompts = [prompt.id for prompt in loading.load(subset).prompts]
    real = rows(work, subset, "", REFERENCE_SEEDS)
    for variant in (*MOTION, *PICTURE):
        for name, clips in rows(work, subset, variant, [0]).items():
            for size in SIZES:
                x, y = clips[:size, 0], np.concatenate(real[name][:size])
                ids = prompts[:size], np.repeat(prompts[:size], len(REFERENCE_SEEDS))
                null = distances.null(metric, x, ids[0], y, ids[1])
                assert null is not None  # both have one histogram for each clip
                effect = (distances.value(metric, x, y) - null.mean) / null.sd
                model = variant or "the world"
                yield {"subset": subset, "n": size, "distance": name, "model": model, "effect": effect, "p": null.p}


def table(found: pd.DataFrame) -> str:
    """One table for each subset, one row for each variant; a cell has the effects at both sizes."""
    lines = []
    for subset, part in found.groupby("subset", sort=False):
        lines += [
            f"`{subset}`, n = {' / '.join(map(str, SIZES))}:",
            "",
            f"| model | {' | '.join(DISTANCES.values())} |",
        ]
        lines.append("|---|" + "--:|" * len(DISTANCES))
        cells = part.set_index(["model", "distance", "n"])
        for model in part["model"].unique():
            texts = [_cell(cells, model, name) for name in DISTANCES]
            lines.append(f"| {model} | {' | '.join(texts)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(cells: pd.DataFrame, model: str, name: str) -> str:
    if (model, name, SIZES[0]) not in cells.index:
        return "–"
    rows = [cells.loc[(model, name, size)] for size in SIZES]
    return " / ".join(f"**{row['effect']:+.1f}**" if row["p"] < SEEN else f"{row['effect']:+.1f}" for row in rows)


def main() -> None:
    """Compute, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/point-tracks"), help="Folder for files; resumable.")
    options = parser.parse_args()
    found = pd.DataFrame([row for subset in SUBSETS for row in asked(options.work, subset)])
    insert("tracks", table(found))


if __name__ == "__main__":
    main()
