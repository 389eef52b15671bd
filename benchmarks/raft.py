"""Measures what RAFT's flow saves by encoding each frame once, beside torchvision's own call pair by pair.

    python benchmarks/raft.py

Both compute the flows there and back between consecutive frames, in turns, with one thread and the same random weights,
which change no cost. Printed are CPU seconds, medians over the rounds, their ratio, and the largest difference between
two flows in pixels.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch.nn import functional
from torchvision.models.optical_flow import raft_large

from avbench.features.flow.raft import RAFT, border
from avbench.features.networks import exact
from benchmarks.gpu_kit import print_line
from benchmarks.speed import made

ITERATIONS, ROUNDS = 20, 3
SIZES = ((4, 256, 256), (4, 256, 444))
"""Frames, height, width; the second is the working size of 832x480."""

Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]


def main() -> None:
    """Print one line per size."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = raft_large().eval().requires_grad_(False)

    @exact()
    def alone(frame: np.ndarray, following: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.stack((frame, following))).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = functional.pad(x, border(*frame.shape[:2]), mode="replicate")
        return network(x[:1], x[1:], num_flow_updates=ITERATIONS)[-1][0].permute(1, 2, 0).numpy()

    for frames, height, width in SIZES:
        shown = list(made(frames, height, width, 8).frames)
        turns = []
        for _ in range(ROUNDS):
            ours = RAFT(network)  # it remembers nothing yet
            turns.append([timed(shown, flow) for flow in (alone, lambda *pair, ours=ours: ours(*pair, ITERATIONS))])
        theirs, own = (statistics.median(turn[k][0] for turn in turns) for k in (0, 1))
        apart = max(float(np.abs(a - b).max()) for a, b in zip(turns[0][0][1], turns[0][1][1], strict=True))
        print_line(
            f"{frames} frames of {width}x{height}: torchvision {theirs:.2f}, avbench {own:.2f} CPU s, "
            f"ratio {theirs / own:.2f}; differences up to {apart:.1e}"
        )


def timed(frames: list[np.ndarray], flow: Flow) -> tuple[float, list[np.ndarray]]:
    """CPU seconds of all flows there and back, and the flows."""
    begin = time.process_time()
    found = [flow(*pair) for one, two in itertools.pairwise(frames) for pair in ((one, two), (two, one))]
    return time.process_time() - begin, found


if __name__ == "__main__":
    main()
