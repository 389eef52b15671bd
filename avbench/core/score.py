"""What a metric says: a value or the sentence why there is none, and how it was made."""

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from avbench.core.errors import InputError


class Direction(StrEnum):
    """Which way is better."""

    HIGHER = "higher"
    LOWER = "lower"
    BAND = "band"
    """Should match the reference: neither much more nor much less."""
    NEITHER = "neither"


@dataclass(frozen=True)
class Null:
    """What a distance comes to where model and reference are one distribution, at the same numbers of clips."""

    mean: float
    sd: float
    """Over the permutations."""
    p: float
    """Share of permutations at least as bad as what was measured, with one added to both counts."""
    permutations: int
    within_prompts: bool
    """Whether clips changed sides only with clips of their own prompt."""

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
    """Clips that the value rests on."""
    protocol: str
    """Digest; the protocol itself stands beside the scores."""
    missing: str | None = None
    """Why there is no value, in a sentence."""
    interval: tuple[float, float] | None = None
    """95 % interval of a mean over clips, clustered by prompt."""
    null: Null | None = None
    """For a distance whose reference has rows."""
    floor: float | None = None
    """For a distance: what the reference's own clips score against the rest of it at this n."""
    reference_clips: int | None = None
    """For a distance: clips of the reference that it was measured to."""
    reference: float | None = None
    """The reference's own value, for a band metric."""
    unmeasured: int = 0
    """Clips of the subset that have no number, or no clip."""
    refused: int = 0
    """Those of them that the model refused to make (moderation)."""
    shared: int = 0
    """Clips that are in the reference as well: they are too near to it by birth."""
    hygiene: str | None = None
    """In what the score rests on a set's training clips, in a sentence."""

    def __post_init__(self) -> None:
        if (self.value is None) == (self.missing is None):
            msg = f"{self.metric} on {self.subset}: a score has either a value or a sentence why not"
            raise InputError(msg)
        if self.value is not None and not math.isfinite(self.value):
            msg = f"{self.metric} on {self.subset} is {self.value}: a score is finite or absent"
            raise InputError(msg)
        for name in ("n", "unmeasured", "refused", "shared"):
            if getattr(self, name) < 0:
                msg = f"{self.metric} on {self.subset}: {name} is {getattr(self, name)}; it counts clips"
                raise InputError(msg)
        low, high = self.interval or (0.0, 0.0)
        if not low <= high or not all(math.isfinite(one) for one in (low, high, self.floor or 0, self.reference or 0)):
            msg = (
                f"{self.metric} on {self.subset}: its interval, floor or reference value is not finite, or upside down"
            )
            raise InputError(msg)

    @property
    def excess(self) -> float | None:
        """Value less the null's mean: what of a distance is not a matter of n."""
        return None if self.value is None or self.null is None else self.value - self.null.mean

    def to_json(self) -> dict[str, Any]:
        """Plain values for scores.json."""
        return {**asdict(self), "interval": list(self.interval) if self.interval else None}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "Score":
        """Read back `to_json`."""
        interval, null = plain.get("interval"), plain.get("null")
        typed = {"interval": tuple(interval) if interval else None, "null": Null(**null) if null else None}
        return cls(**{**plain, **typed})
