"""Opens a run folder once and keeps what was read from it, so that later stages do not read it again.

A `RunView` is a `RunFolder` whose readers read their file only once, and again after `start`, `add_sample` and
`write_scores`. Rows are read each time, but for `require_rows_as_scored`: call `forget` after rows were written.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from avbench.core import Sample, Score
from avbench.storage.runs.clips import require_unchanged
from avbench.storage.runs.folder import VALUES_FILE, RunFolder, no_run

if TYPE_CHECKING:
    import pandas as pd

Method = TypeVar("Method", bound=Callable[..., Any])


def _remembered(method: Method) -> Method:
    """Decorate a reader without arguments so that its result is kept."""

    @functools.wraps(method)
    def reader(self: "RunView") -> Any:
        if method.__name__ not in self._known:
            self._known[method.__name__] = method(self)
        return self._known[method.__name__]

    return reader  # type: ignore[return-value]


def _forgetting(method: Method) -> Method:
    """Decorate a writer so that everything is read again after it."""

    @functools.wraps(method)
    def writer(self: "RunView", *args: Any, **options: Any) -> Any:
        self.forget()
        try:
            return method(self, *args, **options)
        finally:
            self.forget()

    return writer  # type: ignore[return-value]


class RunView(RunFolder):
    """A run folder that is read once.

    Raises InputError if the folder holds no run, or if a clip was changed since it was sampled.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._known: dict[str, Any] = {}
        if not (path / "run.json").is_file():
            raise no_run(path)
        self.gone: tuple[Sample, ...] = require_unchanged(self)
        """The samples whose files are missing; their measured rows are kept."""

    def forget(self) -> None:
        """Read everything again when it is next asked for."""
        self._known.clear()
        self.scores_are_stored = True

    def scored_anew(
        self, scores: Sequence[Score], protocols: Mapping[str, Any], values: "pd.DataFrame", reference: Path | None
    ) -> "RunView":
        """The same run with other scores, which are in memory alone: a write to the folder forgets them.

        Args:
            scores: of every metric.
            protocols: by their digests, which the scores name.
            values: as of `values`.
            reference: the folder of the reference that they were computed with; None for the shipped one.
        """
        view, found = copy.copy(self), self.evaluation()
        asked = {name: path for name, path in found.asked.items() if name != "reference"}
        given = {name: path for name, path in found.given.items() if name != "reference"}
        if reference is not None:
            asked["reference"], given["reference"] = str(reference.absolute()), str(reference)
        anew = dataclasses.replace(found, scores=tuple(scores), protocols=dict(protocols), asked=asked, given=given)
        checked = {f"one evaluation: {VALUES_FILE}": True}
        view._known = {**self._known, "evaluation": anew, "values": values, **checked}
        view.scores_are_stored = False
        return view

    def require_one_evaluation(self, name: str) -> None:
        """As in `RunFolder`, but a file is read and hashed only once."""
        checked = f"one evaluation: {name}"
        if checked not in self._known:
            super().require_one_evaluation(name)
            self._known[checked] = True

    run = _remembered(RunFolder.run)
    subsets = _remembered(RunFolder.subsets)
    samples = _remembered(RunFolder.samples)
    evaluation = _remembered(RunFolder.evaluation)
    values = _remembered(RunFolder.values)
    require_rows_as_scored = _remembered(RunFolder.require_rows_as_scored)
    start = _forgetting(RunFolder.start)
    add_sample = _forgetting(RunFolder.add_sample)
    write_scores = _forgetting(RunFolder.write_scores)
