"""Measures whether a clip moves or stands still: VBench's dynamic degree and static filter, by RAFT.

Both rules (Huang et al., 2024) look at the speed of the fastest pixels of each pair of frames, in pixels of the native
size, and at how many pairs are fast. They count frames, so rounding decides short clips: of 2 sampled frames none has
to be fast, so a clip of 2 frames is dynamic even when it is frozen; a clip of up to 4 frames is static only if no pixel
moves at all. These are VBench's rules and are kept; `dynamic_scores` holds the measured speeds. With one sampled frame
VBench reports "not dynamic"; here that is not measurable.

The network is torchvision's RAFT with its port of Princeton's weights ("raft-things", the file that VBench loads); the
user provides the weights. On random weights in both layouts the speeds agree with VBench's to a relative 1e-7, and both
rules agree with VBench's on random speeds. No number computed with the real weights was checked.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avbench.core import Clip, Notes, NotMeasurable, Protocol, Value, counted, noted
from avbench.features.flow.raft import MULTIPLE, load_raft
from avbench.features.limits import require_sides
from avbench.storage.weights import UserProvidedProtocol


@dataclass(frozen=True)
class VBenchRAFTProtocol(Protocol):
    """The settings that decide the numbers, besides the clip."""

    name: str = "raft-vbench"
    version: int = 1
    size: str = "native"
    padding: str = "replicate"
    minimum_side: int = 128
    """Pixels of the padded frames. With less, the coarsest level of RAFT's correlations is one pixel wide."""
    multiple: int = MULTIPLE
    value_range: str = "-1...1"
    updates: int = 20
    magnitudes: str = "float64, padded frame"
    dynamic_frames: str = "every max(1,round(fps/8))"
    dynamic_share: float = 0.05
    dynamic_rule: str = ">=round(4n/16) above 6*short/256"
    static_frames: str = "all"
    static_share: float = 0.02
    static_rule: str = "<=round(2n/16) above 3*short/256"
    weights: str = "raft-large-c-t-v1"
    weights_sha256: str = ""
    precision: str = "float32"
    notes: Notes = noted(
        padding="Sides are padded to `multiple` by repeating the edge, equally on both sides or one more at the end.",
        magnitudes="The mean of the largest among all pixels of the padded frame.",
        dynamic_rule="n is the number of sampled frames, short the unpadded short side. Halves round to even.",
        static_rule="Between the first and the last frame, both ways, at most 2 round(2n/16) times that threshold.",
        source="VBench, vbench/dynamic_degree.py and static_filter.py",
    )


class VBenchRAFT:
    """The feature ``raft-vbench``. Values of one clip:

    - ``dynamic``: 1 if VBench calls the clip dynamic, else 0; its dynamic degree is the mean over clips.
    - ``dynamic_scores``: ``[pairs]``, the speed of each sampled pair in pixels, on which ``dynamic`` rests.
    - ``static``: 1 if VBench's filter admits the clip to temporal flickering, else 0.

    The constructor raises InputError if the weights are missing or do not fit.
    """

    protocol = UserProvidedProtocol(VBenchRAFTProtocol())
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._raft = load_raft(VBenchRAFTProtocol.weights, device)

    def __call__(self, clip: Clip) -> dict[str, Value]:
        """Measure one clip. Raises NotMeasurable if one frame is sampled, or if the frames are too small."""
        protocol, count, short = self.protocol, len(clip.frames), min(clip.height, clip.width)
        step = max(1, round(clip.fps / 8))
        sampled = range(0, count, step)
        if len(sampled) < 2:
            msg = f"of {counted(count, 'frame')} at {float(clip.fps):g} a second VBench samples one, and motion needs 2"
            raise NotMeasurable(msg)
        require_sides(clip.frames, protocol.minimum_side - protocol.multiple + 1, "RAFT needs")
        coarse, fine = list(itertools.pairwise(sampled)), list(itertools.pairwise(range(count)))
        wanted = {*coarse, *fine}
        scores: dict[tuple[int, int], tuple[float, float]] = {}
        recent: dict[int, np.ndarray] = {}
        first = last = clip.frames[0]
        for after, last in enumerate(clip.frames):
            for before in {after - 1, after - step}:
                if (before, after) in wanted:
                    scores[before, after] = self._speeds(recent[before], last)
            recent[after] = last
            recent.pop(after - step, None)
        speeds = [scores[pair][0] for pair in coarse]
        there, back = self._speeds(first, last)[1], self._speeds(last, first)[1]
        return {
            "dynamic": float(dynamic(speeds, len(sampled), short)),
            "dynamic_scores": np.array(speeds),
            "static": float(static([scores[pair][1] for pair in fine], (there, back), count, short)),
        }

    def _speeds(self, frame: np.ndarray, following: np.ndarray) -> tuple[float, float]:
        """Mean speed of the fastest 5 % and of the fastest 2 % of the pixels from one frame to another."""
        magnitudes = self.magnitudes(frame, following)
        return fastest(magnitudes, self.protocol.dynamic_share), fastest(magnitudes, self.protocol.static_share)

    def magnitudes(self, frame: np.ndarray, following: np.ndarray) -> np.ndarray:
        """Length of the flow between two ``[height, width, 3]`` uint8 frames, in pixels of the padded frame."""
        return np.linalg.norm(self._raft(frame, following, self.protocol.updates), axis=-1)


def fastest(magnitudes: np.ndarray, share: float) -> float:
    """Mean of the largest `share` of the magnitudes; their number is rounded down."""
    count = int(magnitudes.size * share)
    return float(np.partition(magnitudes, magnitudes.size - count, axis=None)[-count:].mean(dtype=np.float64))


def dynamic(speeds: Sequence[float], frames: int, short_side: int) -> bool:
    """VBench's dynamic degree of one clip, from the speeds of its sampled pairs and the number of sampled frames."""
    threshold = 6 * short_side / 256
    return sum(speed > threshold for speed in speeds) >= round(4 * frames / 16)


def static(speeds: Sequence[float], ends: tuple[float, float], frames: int, short_side: int) -> bool:
    """VBench's static filter, from the speeds of all pairs and of the first frame to the last and back."""
    threshold, allowed = 3 * short_side / 256, round(2 * frames / 16)
    few = sum(speed > threshold for speed in speeds) <= allowed
    return few and max(ends) <= threshold * allowed * 2
