"""Defines `Score`: a metric's value, or a sentence why there is none, and how it was computed."""

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from avbench.core.errors import InputError


class Direction(StrEnum):
    """Which values of a metric are better."""

    HIGHER = "higher"
    LOWER = "lower"
    BAND = "band"
    """The value should match the reference's."""
    NEITHER = "neither"


@dataclass(frozen=True)
class Null:
    """Values of a distance at the same numbers of clips, if model and reference had the same distribution."""

    mean: float
    sd: float
    """Standard deviation over the permutations."""
    p: float
    """p-value: (permutations at least as bad as the measured value + 1) / (permutations + 1)."""
    permutations: int
    within_prompts: bool
    """Whether clips were exchanged only with clips of the same prompt."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0 <= self.sd < math.inf and 0 <= self.p <= 1 and self.permutations >= 0):
            msg = f"null distribution: mean {self.mean}, sd {self.sd}, p {self.p}, {self.permutations} permutations"
            raise InputError(msg)


@dataclass(frozen=True)
class Score:
    """One metric of one run on one subset. Raises InputError unless it has either a value or a reason."""

    subset: str
    metric: str
    value: float | None
    n: int
    """Number of clips that the value was computed from."""
    protocol: str
    """Digest of the protocol; scores.json also holds the protocol itself."""
    missing: str | None = None
    """Why there is no value, in a sentence."""
    interval: tuple[float, float] | None = None
    """95 % confidence interval of a mean over clips, clustered by prompt."""
    null: Null | None = None
    """The null distribution; None for a mean over clips, and for a distance with `no_null`."""
    no_null: str | None = None
    """For a distance without a null: why, in a sentence."""
    floor: float | None = None
    """For a distance: the value that n of the reference's own clips get against the rest of the reference."""
    reference_clips: int | None = None
    """For a distance: how many clips of the reference it was measured to."""
    reference: float | None = None
    """The reference's own value, for a band metric."""
    unmeasured: int = 0
    """Number of expected clips that are missing or could not be measured."""
    why_unmeasured: str | None = None
    """Why those clips have no value, in a few words; None if there is no value, or if the model refused all of them."""
    refused: int = 0
    """How many of those the model refused to make (moderation)."""
    shared: int = 0
    """Number of clips that are in the reference too, which makes the distance too small."""
    hygiene: str | None = None
    """A sentence saying which clips are from a data set's training split, if any."""

    def __post_init__(self) -> None:
        if (self.value is None) == (self.missing is None):
            msg = f"{self.metric} on {self.subset}: give either a value or a sentence why there is none"
            raise InputError(msg)
        if self.value is not None and not math.isfinite(self.value):
            msg = f"{self.metric} on {self.subset} is {self.value}; a score must be finite or absent"
            raise InputError(msg)
        for name in ("n", "unmeasured", "refused", "shared"):
            if getattr(self, name) < 0:
                msg = f"{self.metric} on {self.subset}: {name} is {getattr(self, name)}; it must be 0 or more"
                raise InputError(msg)
        low, high = self.interval or (0.0, 0.0)
        if not low <= high or not all(math.isfinite(one) for one in (low, high, self.floor or 0, self.reference or 0)):
            msg = (
                f"{self.metric} on {self.subset}: the interval, floor or reference value is not finite, or the "
                "interval's ends are in the wrong order"
            )
            raise InputError(msg)

    @property
    def where(self) -> tuple[str, str]:
        """Subset and metric."""
        return self.subset, self.metric

    @property
    def excess(self) -> float | None:
        """Value minus the null's mean: the part of a distance that small n does not explain."""
        return None if self.value is None or self.null is None else self.value - self.null.mean

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values for scores.json."""
        return {**asdict(self), "interval": list(self.interval) if self.interval else None}
