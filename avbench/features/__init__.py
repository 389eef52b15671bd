"""Stage 3: what is taken from one clip. Adding a feature is one file and one row here.

A feature is a class built as ``Feature(device=...)``. Its class attribute `protocol` says everything besides the
clip that decides its numbers and is known without loading weights; calling it on a clip gives one row of named
floats or float arrays, or raises NotMeasurable with the sentence to show instead.
"""

import typing
from collections.abc import Mapping

from avbench.core import Clip, Protocol, Value

FEATURES: dict[str, str] = {
    "i3d-k400": "avbench.features.i3d:I3DLogits",
    "lpips-alex": "avbench.features.lpips:ConsecutiveLPIPS",
    "flow-dis": "avbench.features.flow:DISFlow",
    "onsets": "avbench.features.sound:Onsets",
}
"""Feature id → where it lives; imported when used."""


class Feature(typing.Protocol):
    """What measure.py asks of a feature."""

    protocol: Protocol

    def __call__(self, clip: Clip) -> Mapping[str, Value]:
        """Measure one clip. Raises NotMeasurable where it cannot be measured."""
        ...
