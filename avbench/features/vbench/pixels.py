"""Measures how much pixels change from one frame to the next: VBench's temporal flickering.

(255 − mean |next frame − frame|) / 255, averaged over all pixels and channels of the full frames and over the pairs of
consecutive frames (Huang et al., 2024; vbench/temporal_flickering.py). VBench intends it for clips of still scenes, and
removes other clips by optical flow first. Without that filter every motion lowers the number, and a frozen clip has the
highest possible value, 1. It shows how similar two sets of clips are in this respect, not which is better.

Agreement: VBench takes means in float32, and these are exact; values agree to 1e-6.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from avbench.core import Clip, Notes, Protocol, noted
from avbench.features.limits import require_frames


@dataclass(frozen=True)
class FlickerProtocol(Protocol):
    """The settings that decide the number, besides the clip."""

    name: str = "vbench-flicker"
    version: int = 1
    frames: str = "all"
    fps: str = "native"
    size: str = "native"
    static_filter: str = "none"
    output: str = "1-mad/255"
    precision: str = "float64"
    notes: Notes = noted(
        static_filter="All clips count, moving ones too.",
        output="1 less the mean absolute difference of consecutive frames over 255.",
        precision="Differences are exact, and means are taken in float64.",
        source="VBench, vbench/temporal_flickering.py",
    )


class Flicker:
    """The feature ``vbench-flicker``."""

    protocol = FlickerProtocol()
    streams = True

    def __call__(self, clip: Clip) -> dict[str, float]:
        """``flickering`` in 0...1. Raises NotMeasurable if the clip has fewer than 2 frames."""
        require_frames(clip.frames, 2, "flickering is a difference of frames; it needs")
        # In 16 bits, because differences of 8-bit values would wrap around.
        pairs = itertools.pairwise(clip.frames)
        differences = [np.abs(following.astype(np.int16) - frame).mean() for frame, following in pairs]
        return {"flickering": (255 - float(np.mean(differences))) / 255}
