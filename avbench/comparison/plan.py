"""Reads an analysis plan: the questions and margins that are written down before the numbers are seen.

```toml
alpha = 0.05                        # of the whole family; this is what is taken where nothing is said

[[question]]                        # primary: the family that Holm's correction counts; everything else is exploratory
name = "Does hearing help large motion?"
subset = "toy-large-motion"
metric = "motion_frechet"

[margin]                            # what is too small to matter, in the metric's unit; everywhere or on one subset
lpips_consecutive = 0.005
"toy-control/fvd" = 50
```

Without questions every comparison is primary. Margins are what "no difference" and "no worse" are tested against.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avbench.core import InputError
from avbench.metrics.table import known_metrics, why_no_metric
from avbench.storage.reading import naming, read_toml, shaped_plain


@dataclass(frozen=True)
class Question:
    """A primary comparison."""

    name: str
    subset: str
    metric: str


@dataclass(frozen=True)
class Plan:
    """Raises InputError on an unknown metric, or an impossible number."""

    questions: tuple[Question, ...] = ()
    margins: Mapping[str, float] = field(default_factory=dict)
    """``metric`` or ``subset/metric`` → the largest difference that does not matter."""
    alpha: float = 0.05

    def __post_init__(self) -> None:
        known = known_metrics()
        for name in (*(question.metric for question in self.questions), *(key.split("/")[-1] for key in self.margins)):
            if name not in known:
                msg = f"plan: {why_no_metric(name)}"
                raise InputError(msg)
        for key, margin in self.margins.items():
            if not _number(margin) or margin < 0:
                msg = f"plan: the margin of {key} is {margin!r}; it must be a number from 0, in the metric's unit"
                raise InputError(msg)
        if not _number(self.alpha) or not 0 < self.alpha < 1:
            msg = f"plan: alpha is {self.alpha!r}; it must lie between 0 and 1"
            raise InputError(msg)

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Subset and metric of the questions, each pair once."""
        return [*dict.fromkeys((one.subset, one.metric) for one in self.questions)]

    def margin(self, subset: str, metric: str) -> float | None:
        """The margin of a metric on a subset, or None."""
        return self.margins.get(f"{subset}/{metric}", self.margins.get(metric))

    def names(self, subset: str, metric: str) -> bool:
        """Whether a question or a margin names exactly this metric and this subset or pool."""
        return (subset, metric) in self.asked or f"{subset}/{metric}" in self.margins

    def primary(self, subset: str, metric: str) -> bool:
        """Whether this comparison belongs to the family."""
        return not self.questions or (subset, metric) in self.asked


@dataclass(frozen=True)
class _PlanFile:
    question: tuple[Question, ...] = ()
    margin: Mapping[str, float] = field(default_factory=dict)
    alpha: float = 0.05


def read(path: Path | None) -> Plan:
    """The plan in a TOML file; an empty one for None.

    Raises:
        InputError: the file cannot be read, or holds a field or value that a plan does not have.
    """
    if path is None:
        return Plan()
    plain = read_toml(path)
    with naming(path):
        return from_plain(plain)


def from_plain(plain: Mapping[str, Any]) -> Plan:
    """Build a plan from plain values. Raises InputError on an unknown field, or a value of another type."""
    found = shaped_plain({**plain}, _PlanFile, "plan", by_user=True)
    return Plan(found.question, found.margin, found.alpha)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
