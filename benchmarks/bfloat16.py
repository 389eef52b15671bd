"""Measures what ``--precision bf16`` does to FVD, KVD and LPIPS, beside float32.

    python benchmarks/bfloat16.py

Prints the first table of docs/speed.md, "In bfloat16". The clips are those of 32 prompts of the embedded world, and the
same clips blurred by one pixel.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np

from avbench.core import Clip
from avbench.features.perceptual.lpips import ConsecutiveLPIPS
from avbench.features.video.i3d import I3DLogits
from avbench.metrics.frechet import frechet_distance
from avbench.metrics.kernel import kernel_distance
from avbench.subsets import loading
from avbench.toyworld import Scene, make_clip

PRECISIONS = ("float32", "bfloat16")
CLIPS = 32


def line(cells: str) -> None:
    """Print a row of the table."""
    sys.stdout.write(cells + "\n")


def main() -> None:
    """Print the rows of the table."""
    prompts = loading.load("toy-object-contact").prompts[:CLIPS]
    plain = [make_clip(Scene.of(prompt), 0)[0] for prompt in prompts]
    blurred = [
        Clip(np.stack([cv2.GaussianBlur(frame, (0, 0), 1) for frame in clip.frames]), clip.fps) for clip in plain
    ]
    logits, pairs = {}, {}
    for precision in PRECISIONS:
        i3d, lpips = I3DLogits(precision=precision), ConsecutiveLPIPS(precision=precision)
        for name, clips in (("plain", plain), ("blurred", blurred)):
            logits[precision, name] = np.stack([i3d.logits(clip.frames) for clip in clips])
            pairs[precision, name] = np.stack([lpips.consecutive(clip.frames) for clip in clips])
    for name, distance in (("FVD", frechet_distance), ("KVD", kernel_distance)):
        exact, half = (distance(logits[one, "plain"], logits[one, "blurred"]) for one in PRECISIONS)
        line(f"| {name} between the two sets | {exact:.1f} | {half:.1f} | {half / exact - 1:+.1%} |")
    apart = frechet_distance(*(logits[one, "plain"] for one in PRECISIONS))
    line(f"| FVD between one set in both precisions | | {apart:.2f} | 0 if they were equal |")
    exact, half = (np.concatenate([logits[one, "plain"], logits[one, "blurred"]]) for one in PRECISIONS)
    most, square = np.abs(half - exact).max(), np.sqrt(np.mean((half - exact) ** 2))
    line(
        f"| I3D's logits, the largest is {exact.max():.1f} | | | differ by {most:.2f} at most, "
        f"{square:.3f} in the mean square |"
    )
    for name in ("plain", "blurred"):
        exact, half = (pairs[one, name] for one in PRECISIONS)
        change = half.mean() / exact.mean() - 1
        line(f"| LPIPS, mean of the {name} clips | {exact.mean():.5f} | {half.mean():.5f} | {change:+.3%} |")
    exact, half = (np.concatenate([pairs[one, "plain"], pairs[one, "blurred"]]) for one in PRECISIONS)
    clip, pair = np.abs((half - exact).mean(axis=1)).max(), np.abs(half - exact).max()
    line(f"| LPIPS of one clip | | | differs by {clip:.5f} at most, of one pair of frames by {pair:.4f} |")


if __name__ == "__main__":
    main()
