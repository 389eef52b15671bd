"""Compares runs while one of them is still being measured: a preliminary verdict of what is on disk.

Only metrics with a value per clip are looked at; a distance would change with the number of clips, and its test takes
seconds. A look reads the rows of both runs and writes nothing. `looking` keeps looks rare: they take at most LOOK_SHARE
of the time.
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pandas as pd

from avbench.comparison.differences import differences
from avbench.comparison.verdict import preliminary
from avbench.core import InputError
from avbench.metrics.evaluate import evaluated_so_far, features_of
from avbench.metrics.table import Metric, known_metrics
from avbench.storage.runs.evaluation import Evaluation
from avbench.storage.runs.folder import RunFolder, named_apart

LOOK_SECONDS = 300.0
"""The least time between two looks."""
LOOK_SHARE = 0.02
"""The largest share of a command's time that looks take."""
_GROWTH = 0.2
"""The pause between looks grows with the command: a run of a day is not looked at 300 times."""
Item = TypeVar("Item")


class MeasuredSoFar(RunFolder):
    """A run with the scores of the clips that are measured already. They are in memory alone."""

    def __init__(self, path: Path, metrics: Sequence[Metric], place: Path | None = None) -> None:
        super().__init__(path)
        self._found = evaluated_so_far(RunFolder(path), metrics, place)

    def evaluation(self) -> Evaluation:
        """The scores of the clips that are measured. It names no reference: what needs it is in the scores."""
        return Evaluation(tuple(self._found.scores), self._found.protocols, clips="", files={})

    def require_one_evaluation(self, name: str) -> None:
        """Nothing to check: all is of one evaluation."""

    def require_rows_as_scored(self) -> None:
        """Nothing to check: the scores are of the rows that are there, not those of an earlier evaluation."""

    def values(self) -> pd.DataFrame:
        """The values of clips, as of `RunFolder.values`."""
        return self._found.values

    @property
    def prompts(self) -> set[tuple[str, str]]:
        """Subset and prompt of the clips that have a value."""
        known = self._found.values.dropna(subset="value")
        return {*zip(known["subset"], known["prompt"], strict=True)}


def early_look(run: MeasuredSoFar, against: MeasuredSoFar) -> str | None:
    """The preliminary verdict on two runs; None if they have no measured prompt in common.

    Raises:
        InputError: the runs were made differently.
    """
    done = len(run.prompts & against.prompts)
    if not done:
        return None
    planned = {key[:2] for key in run.planned_keys()} & {key[:2] for key in against.planned_keys()}
    return preliminary(differences([against, run], pooled=False), done, len(planned))


def early_looks(runs: Sequence[RunFolder]) -> Iterator[str]:
    """The preliminary verdicts on runs, each with the first, by all metrics whose features were measured of the first.

    Nothing is said of two runs that cannot be compared, nor of two parts (shards) of one run.
    """
    first, *others = runs
    there = {place.name.partition("@")[0] for place in first.feature_folders()}
    metrics = [one for one in known_metrics().values() if {*features_of([one])} <= there]
    seen = functools.cache(lambda: MeasuredSoFar(first.path, metrics))
    for run in others:
        with suppress(InputError):
            if run.name != first.name or not run.run().shard:
                pair = MeasuredSoFar(run.path, metrics), seen()
                named_apart(pair)
                if sentence := early_look(*pair):
                    yield sentence


def looking(items: Iterable[Item], look: Callable[[], str | None], report: Callable[[str], None]) -> Iterator[Item]:
    """Yield the items of a long job, and now and then, between two of them, say what a look at it finds.

    A look that fails is the last one.
    """
    begun = last = time.monotonic()
    pause, reported = LOOK_SECONDS, None
    for item in items:
        yield item
        now = time.monotonic()
        if now - last < pause:
            continue
        try:
            sentence = look()
        except Exception:  # whatever it is, it must not end a job of days
            pause = float("inf")
            continue
        if sentence and sentence != reported:
            report(sentence)
            reported = sentence
        last = time.monotonic()
        pause = max(LOOK_SECONDS, (last - now) / LOOK_SHARE, _GROWTH * (last - begun))
