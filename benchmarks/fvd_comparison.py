"""Compares our I3D with the reference FVD on the case of universome/fvd-comparison, which prints 10.1381.

    python benchmarks/fvd_comparison.py

Two sets of 128 clips of noise, 16 frames of 224x224, from numpy's RandomState 1 and 2, shown to the network as they are
(0...1). It takes 10 minutes on one core and prints the FVD; the test suite holds the logits of the first clips.
"""

import json
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from avbench.features.video.i3d import I3DLogits
from avbench.metrics.frechet import frechet_distance

GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "fvd_comparison.json"


def clips(seed: int, count: int) -> np.ndarray:
    """``[count, 16, 224, 224, 3]`` float32: the first of the case's 128."""
    return np.random.RandomState(seed).rand(count, 16, 224, 224, 3).astype(np.float32)


def logits(feature: I3DLogits, seed: int, count: int) -> np.ndarray:
    """``[count, 400]``."""
    shown = torch.from_numpy(clips(seed, count)).permute(0, 1, 4, 2, 3)
    return np.stack([feature.seen(clip) for clip in shown])


def main() -> None:
    """Print our FVD beside the published one."""
    golden = json.loads(GOLDEN.read_text())
    feature = I3DLogits()
    fake, real = (logits(feature, seed, 128) for seed in (1, 2))
    found = {
        "fvd": frechet_distance(fake, real),
        "published": golden["published"],
        "first_logits": {seed: side[0, :4].round(5).tolist() for seed, side in (("1", fake), ("2", real))},
    }
    Console().print_json(data=found)


if __name__ == "__main__":
    main()
