"""Stage 4: one number from many rows. Adding a metric is one function and one row here.

A metric's function sees columns, ``name → [clips, ...]``, of one feature, and nothing else. A per-clip metric
returns ``[clips]``, a set metric (`needs_reference`) takes the reference's columns as well and returns a float;
both raise NotMeasurable with a sentence. In a per-clip result, NaN marks a clip that this metric cannot measure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from avbench.core import Direction


@dataclass(frozen=True)
class Metric:
    """A row of the table."""

    name: str
    feature: str
    """Id in FEATURES."""
    function: str
    """``module:function``."""
    direction: Direction
    unit: str
    question: str
    per_clip: bool = True
    unable: str = "its values are missing"
    """What is wrong with the clips for which a per-clip function gives NaN."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What decides the number besides the feature's protocol; stored with it."""
    floor: str | None = None
    """For a distance: ``module:function`` of (reference columns, n, each column's prompt): what n real clips score."""


METRICS: tuple[Metric, ...] = (
    Metric(
        "fvd",
        "i3d-k400",
        "avbench.metrics.distance:fvd",
        Direction.LOWER,
        "",
        "How far is the distribution of Kinetics I3D logits from the reference's?",
        per_clip=False,
        settings={"covariance_divisor": "n - 1"},
        floor="avbench.metrics.distance:fvd_floor",
    ),
    Metric(
        "lpips_consecutive",
        "lpips-alex",
        "avbench.metrics.perceptual:lpips_consecutive",
        Direction.BAND,
        "LPIPS",
        "How much does a frame differ from the next to the eye? The reference's amount is right.",
    ),
    Metric(
        "warping_error",
        "flow-dis",
        "avbench.metrics.motion:warping_error",
        Direction.BAND,
        "RGB²",
        "Where things move, does the next frame, warped back along the flow, look the same, as nearly as in reality?",
        unable="nothing in them moves, and a still clip has no warping error worth the name",
    ),
    Metric(
        "motion_amount",
        "flow-dis",
        "avbench.metrics.motion:motion_amount",
        Direction.BAND,
        "diagonals/s",
        "How fast do the moving parts move? The reference's amount is right.",
    ),
    Metric(
        "onset_rate",
        "onsets",
        "avbench.metrics.sound:onset_rate",
        Direction.BAND,
        "1/s",
        "How many sounds begin a second? The reference's amount is right.",
    ),
)
