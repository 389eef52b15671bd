"""Combines VBench's dimensions into its quality score, its semantic score and its total, as far as they are there.

VBench (scripts/cal_final_score.py and constant.py at 45e79ec) maps each dimension linearly from a fixed range to 0...1,
averages the dimensions of quality (dynamic degree counts half) and those of semantics, and counts quality four times as
much as semantics. It counts a dimension that was not computed as 0. Here such a dimension is left out and named, and a
total without all sixteen is partial: it cannot be compared with a published total.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Dimension:
    """A dimension of VBench: the range that becomes 0...1, and its weight."""

    lowest: float = 0.0
    highest: float = 1.0
    weight: float = 1.0


QUALITY = {
    "vbench_subject": Dimension(0.1462),
    "vbench_background": Dimension(0.2615),
    "vbench_flickering_static": Dimension(0.6293),
    "vbench_smoothness": Dimension(0.706, 0.9975),
    "vbench_dynamic_degree": Dimension(weight=0.5),
    "aesthetic_quality": Dimension(),
    "imaging_quality": Dimension(),
}
"""Metric → its dimension: all seven of VBench's quality score."""
SEMANTIC = {"overall_consistency": Dimension(highest=0.364), "temporal_style": Dimension(highest=0.364)}
"""Metric → its dimension: two of the nine of VBench's semantic score."""
QUALITIES, SEMANTICS = 7, 9
"""How many dimensions VBench has of each kind."""
_QUALITY_WEIGHT, _SEMANTIC_WEIGHT = 4, 1


@dataclass(frozen=True)
class Total:
    """VBench's scores of a model on one subset."""

    quality: float | None
    """None if no dimension of it is there."""
    semantic: float | None
    total: float
    """The weighted mean of both; the one that is there, if only one is."""
    there: tuple[str, ...]
    """The metrics that it is made of."""

    @property
    def missing(self) -> list[str]:
        """The metrics that could be part of it and have no value."""
        return [name for name in (*QUALITY, *SEMANTIC) if name not in self.there]


def total(values: Mapping[str, float]) -> Total | None:
    """Combine the values of metrics by name; others than VBench's are ignored. None if none of VBench's is there."""
    quality, semantic = _mean(values, QUALITY), _mean(values, SEMANTIC)
    parts = [(quality, _QUALITY_WEIGHT), (semantic, _SEMANTIC_WEIGHT)]
    known = [(score, weight) for score, weight in parts if score is not None]
    if not known:
        return None
    whole = sum(score * weight for score, weight in known) / sum(weight for _, weight in known)
    return Total(quality, semantic, whole, tuple(name for name in (*QUALITY, *SEMANTIC) if name in values))


def _mean(values: Mapping[str, float], dimensions: Mapping[str, Dimension]) -> float | None:
    there = {name: one for name, one in dimensions.items() if name in values}
    if not there:
        return None
    scaled = (one.weight * (values[name] - one.lowest) / (one.highest - one.lowest) for name, one in there.items())
    return sum(scaled) / sum(one.weight for one in there.values())
