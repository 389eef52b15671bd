"""Takes runs through all stages, one after another, and compares them."""

import dataclasses
import functools
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from avbench.api.comparing import compared
from avbench.api.results import Comparison
from avbench.api.stages import early_look_at, evaluated, measurable, measured, measured_as_made, sampled
from avbench.api.work import SamplingJob, Work
from avbench.comparison.plan import Plan
from avbench.core import Key
from avbench.metrics.table import Metric
from avbench.storage.runs.folder import RunFolder
from avbench.storage.runs.view import RunView


@dataclass
class Walk:
    """Samples, measures and evaluates runs, and keeps them for the comparison."""

    metrics: Sequence[Metric]
    reference: Path | None
    """The reference folder; the shipped references if None."""
    given: str | Path | None
    """What the user gave for it."""
    work: Work
    against: RunFolder | None = None
    """The run that holds the reference clips."""
    runs: list[RunView] = field(default_factory=list)
    failed: int = 0
    """Clips that could not be made or measured."""

    def take(
        self,
        place: Path,
        model: str,
        job: SamplingJob,
        *,
        noted: Container[Key] = (),
        as_made: bool = False,
        looks: bool = True,
    ) -> None:
        """Take the run in the folder `place` through all stages.

        Args:
            place: the run folder.
            model: what makes its clips.
            job: what it is asked to make.
            noted: failures of these clips get no note, because another note says why they fail.
            as_made: whether clips are measured while others are made.
            looks: whether the first run is compared with this one while this one is measured.
        """
        how = {"reference": self.reference, "work": self.work, "against": self.against, "others": self.runs}
        measuring = functools.partial(measured_as_made, metrics=self.metrics, **how) if as_made else None
        run, missing = sampled(place, model, job, self.work, noted, measuring)
        look = early_look_at(self.runs[0], run, self.metrics, self.reference) if looks and self.runs else None
        kept = measurable(run, self.metrics, self.reference, self.work)
        self.failed += missing + measured(run, kept, self.work, self.against, look, self.runs)
        evaluated(run, self.metrics, self.reference, self.against, self.work, self.given)
        self.runs.append(run)

    def compared(
        self,
        *,
        pairs: Sequence[tuple[int, int]] | None = None,
        plan: Plan | None = None,
        allow: Sequence[str] = (),
    ) -> Comparison:
        """Compare the runs, and add what was noted and lost on the way; the arguments are those of `compared`."""
        found = compared(self.runs, pairs=pairs, plan=plan, allow=allow, reference=self.reference)
        lost = len(self.work.mirrors.lost) if self.work.mirrors else 0
        return dataclasses.replace(found, notes=[*self.work.reporter.notes], failed=self.failed, mirrors_lost=lost)
