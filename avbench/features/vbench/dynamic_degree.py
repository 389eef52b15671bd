"""Measures whether a clip moves or stands still: VBench's dynamic degree and static filter, by RAFT.

Both rules (Huang et al., 2024) look at the fastest pixels of a pair of frames, in pixels of the native size, and at
how many pairs are fast. They count frames, so that short clips are judged by rounding: of 2 sampled frames none has to
be fast, so that a clip of 2 is dynamic even when it is frozen, and a clip of up to 4 frames is static only where no
pixel moves at all. Those are VBench's rules and are kept; `dynamic_scores` says what was measured. Of one sampled
frame VBench says "not dynamic"; here that is not measurable.

The network is torchvision's RAFT with its port of Princeton's weights ("raft-things", the file that VBench loads); the
weights have to be brought. On random weights in both layouts the speeds agree with VBench's own to 1e-7 of themselves,
and both rules agree with VBench's on random speeds. No number of the real weights was checked.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avbench.core import Clip, Notes, NotMeasurable, Protocol, Value, noted
from avbench.features.flow.raft import MULTIPLE, RAFT
from avbench.storage.weights import UserProvidedProtocol


@dataclass(frozen=True)
class VBenchRAFTProtocol(Protocol):
    """What decides the numbers besides the clip."""

    name: str = "raft-vbench"
    version: int = 1
    size: str = "native"
    padding: str = "replicate"
    minimum_side: int = 128
    """Of the padded frames: below it, the coarsest level of RAFT's correlations is one pixel wide."""
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
        padding="Sides are padded to `multiple` by repeating the edge, as much before as behind, or one more behind.",
        magnitudes="The mean of the largest, of all pixels of the padded frame.",
        dynamic_rule="n sampled frames; the short side is that of the unpadded frame. Halves are rounded to even.",
        static_rule="From the first to the last frame and back, at most 2 round(2n/16) times that threshold.",
        source="VBench, vbench/dynamic_degree.py and static_filter.py",
    )


class VBenchRAFT:
    """The feature ``raft-vbench``. Values of one clip:

    - ``dynamic``: 1 where VBench calls the clip dynamic, else 0; its dynamic degree is the mean over clips.
    - ``dynamic_scores``: ``[pairs]``, what that rests on: the speed of each sampled pair in pixels.
    - ``static``: 1 where VBench's filter lets the clip through to temporal flickering, else 0.

    Raises InputError when built where the weights are not there or do not fit.
    """

    protocol = UserProvidedProtocol(VBenchRAFTProtocol())

    def __init__(self, device: str = "cpu") -> None:
        self._raft = RAFT(VBenchRAFTProtocol.weights, device)

    def __call__(self, clip: Clip) -> dict[str, Value]:
        """Measure one clip. Raises NotMeasurable where one frame is sampled, or where the frames are too small."""
        protocol, count, short = self.protocol, len(clip.frames), min(clip.height, clip.width)
        sampled = range(0, count, max(1, round(clip.fps / 8)))
        if len(sampled) < 2:
            msg = f"of {count} frames at {float(clip.fps):g} a second VBench samples one, and motion needs 2"
            raise NotMeasurable(msg)
        if -(-short // protocol.multiple) * protocol.multiple < protocol.minimum_side:
            least = protocol.minimum_side - protocol.multiple + 1
            msg = f"the frames are {clip.width}x{clip.height}; RAFT needs {least} pixels on either side"
            raise NotMeasurable(msg)
        coarse, fine = list(itertools.pairwise(sampled)), list(itertools.pairwise(range(count)))
        ends = [(0, count - 1), (count - 1, 0)]
        scores = {pair: self._speeds(clip, *pair) for pair in {*coarse, *fine, *ends}}
        speeds = [scores[pair][0] for pair in coarse]
        there, back = (scores[pair][1] for pair in ends)
        return {
            "dynamic": float(dynamic(speeds, len(sampled), short)),
            "dynamic_scores": np.array(speeds),
            "static": float(static([scores[pair][1] for pair in fine], (there, back), count, short)),
        }

    def _speeds(self, clip: Clip, before: int, after: int) -> tuple[float, float]:
        """How fast are the fastest 5 % and 2 % of the pixels from one frame to another?"""
        magnitudes = self.magnitudes(clip.frames[before], clip.frames[after])
        return fastest(magnitudes, self.protocol.dynamic_share), fastest(magnitudes, self.protocol.static_share)

    def magnitudes(self, frame: np.ndarray, following: np.ndarray) -> np.ndarray:
        """Length of the flow between two ``[height, width, 3]`` uint8 frames, in pixels of the padded frame."""
        return np.linalg.norm(self._raft(frame, following, self.protocol.updates), axis=-1)


def fastest(magnitudes: np.ndarray, share: float) -> float:
    """Mean of the largest `share` of the magnitudes; their number is rounded down."""
    count = int(magnitudes.size * share)
    return float(np.partition(magnitudes, magnitudes.size - count, axis=None)[-count:].mean(dtype=np.float64))


def dynamic(speeds: Sequence[float], frames: int, short_side: int) -> bool:
    """VBench's dynamic degree of one clip, from the speeds of its pairs of sampled frames and the number of these."""
    threshold = 6 * short_side / 256
    return sum(speed > threshold for speed in speeds) >= round(4 * frames / 16)


def static(speeds: Sequence[float], ends: tuple[float, float], frames: int, short_side: int) -> bool:
    """VBench's static filter, from the speeds of all pairs and from the first frame to the last and back."""
    threshold, allowed = 3 * short_side / 256, round(2 * frames / 16)
    few = sum(speed > threshold for speed in speeds) <= allowed
    return few and max(ends) <= threshold * allowed * 2
