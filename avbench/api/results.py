"""Defines what the functions of the API return: runs or arms side by side, with the answer and the tables."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from avbench.api.choices import metric_names, paths_of
from avbench.api.work import Reporter, reporter_of
from avbench.comparison.arm_differences import ArmTables
from avbench.core import InputError
from avbench.metrics.evaluate import chosen_metrics, values_of
from avbench.report import arm_report, arm_tables, paper, tables
from avbench.report.figures import write_forests
from avbench.report.writing import PageOptions, write_report
from avbench.storage.runs.folder import RunFolder
from avbench.storage.workers.worker_pool import default_workers

if TYPE_CHECKING:
    from rich.console import Console


def _console_below(verdict: Sequence[str]) -> "Console":
    """A console on which the sentences of a verdict stand."""
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    for sentence in verdict:
        console.print(sentence)
    return console


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs side by side. Tables are pandas frames; nothing is written before `save_report`."""

    runs: tuple[RunFolder, ...]
    scores: pd.DataFrame
    """One row per subset, metric and model: value, interval, n, null, p, rank, and why there is no value."""
    differences: pd.DataFrame
    """One row per subset, metric and pair of runs: difference, interval, p, and which is better."""
    verdict: list[str]
    """The answer in plain sentences."""
    notes: list[str] = field(default_factory=list)
    """What was decided or left out, one sentence each."""
    failed: int = 0
    """Clips that could not be made or measured."""
    mirrors_lost: int = 0
    """Run folders whose mirror another process took over, so that it has not what was made since; notes say which."""
    limits: list[str] = field(default_factory=list)
    """What makes the clips hard to compare: the last sentences of `verdict`."""
    working_folder: Path = field(default_factory=Path.cwd)
    """Where relative paths of the runs start, wherever the process works later."""

    def __repr__(self) -> str:
        return "\n".join([f"Comparison of {', '.join(run.name for run in self.runs)}", *self.verdict])

    @functools.cached_property
    def clips(self) -> pd.DataFrame:
        """One row per model, clip and metric: model, subset, prompt, seed, metric, value, and, of a ≈ metric, the mean
        value `real` of the real clips of the prompt; NaN where there is none.
        """
        return values_of(self._seen()).loc[:, ["model", "subset", "prompt", "seed", "metric", "value", "real"]]

    @property
    def table(self) -> pd.DataFrame:
        """The values alone, one row per subset and model, one column per metric; NaN where clips are too few."""
        return self._with_clips_enough().pivot_table(
            index=["subset", "model"], columns="metric", values="value", sort=False, dropna=False
        )

    def _with_clips_enough(self) -> pd.DataFrame:
        """The scores, without values that rest on too few clips, which tables do not show either."""
        return self.scores.assign(value=self.scores["value"].where(self.scores["too_few"].isna()))

    def show(self, *, all_metrics: bool = False) -> None:
        """Print the verdict and one table of scores, as the command line does; optionally with all metrics."""
        console = _console_below(self.verdict)
        how = "show(all_metrics=True)"
        console.print(tables.compact(self.scores, self.differences, console.width, every=all_metrics, every_by=how))

    def to_latex(self, metrics: Sequence[str] | None = None) -> str:
        """One LaTeX table for a paper, of these metrics or of all: as ``--format latex --caption short``, but distances
        are not tested, so that their columns have no marks.

        Raises:
            InputError: a metric is unknown or was not computed, or none is named.
        """
        names = metric_names(metrics)
        return paper.as_latex(paper.paper_table(of_metrics(self.scores, names), names))

    def save_figure(self, path: str | Path) -> list[Path]:
        """Write the forest plot of each pair of runs as .svg, or with cairosvg as .pdf or .png, and return the files.

        Raises:
            InputError: the suffix is another, cairosvg is not installed and the form needs it, or nothing was compared.
        """
        (place,) = paths_of(path, "figure", "give the path of a file")
        return write_forests(self.differences, self.scores, Path(place))

    def save_report(
        self, path: str | Path, options: PageOptions | None = None, reporter: Reporter | None = None
    ) -> Path:
        """Write tables, differences and the page into a folder, and return the page.

        Raises:
            InputError: something cannot be written, or the reporter is none.
        """
        (place,) = paths_of(path, "report", "give the path of a folder")
        reporter = reporter_of(reporter)
        chosen = options or PageOptions(workers=default_workers())
        return write_report(
            self._seen(),
            self.scores,
            self.differences,
            self.limits,
            Path(place),
            chosen,
            follow=reporter.follow,
            note=reporter.note,
        )

    def _seen(self) -> tuple[RunFolder, ...]:
        """The runs, to be read from where the process works now."""
        return tuple(run.seen_from(self.working_folder) for run in self.runs)

    def log(self, run: Any, step: int | None = None) -> None:
        """Log every value of `table` as ``model/subset/metric`` to a run of wandb, mlflow, or a tensorboard writer.

        Args:
            run: what ``wandb.init()`` returns, the module ``mlflow``, or a ``SummaryWriter``.
            step: the training step.

        Raises:
            InputError: it has neither `log`, `log_metrics` nor `add_scalar`.
        """
        known: list[Any] = [*self._with_clips_enough().dropna(subset="value").itertuples()]
        values = {f"{row.model}/{row.subset}/{row.metric}": float(row.value) for row in known}
        if hasattr(run, "add_scalar"):
            for name, value in values.items():
                run.add_scalar(name, value, step)
        elif hasattr(run, "log_metrics"):
            run.log_metrics(values, step=step)
        elif hasattr(run, "log"):
            run.log(values, **({} if step is None else {"step": step}))
        else:
            msg = f"{type(run).__name__} cannot be logged to: it has neither log, log_metrics nor add_scalar"
            raise InputError(msg)


@dataclass(frozen=True, eq=False)
class ArmComparison(ArmTables):
    """Arms with several trainings side by side. Nothing is written before `save_report`."""

    verdict: list[str]
    """The answer in plain sentences."""

    def __repr__(self) -> str:
        return "\n".join(["ArmComparison", *self.verdict])

    def show(self) -> None:
        """Print the verdict and the tables."""
        console = _console_below(self.verdict)
        for found, legend in (
            (arm_tables.value_tables(self.scores), arm_tables.VALUES_LEGEND),
            (arm_tables.difference_tables(self.differences), arm_tables.LEGEND),
        ):
            console.print(tables.set_for_console(found, legend, console.width))

    def to_markdown(self) -> str:
        """The verdict and the tables, for a README or a pull request."""
        return arm_report.markdown(self, self.verdict)

    def save_report(self, path: str | Path) -> Path:
        """Write scores.csv, trainings.csv, differences.csv, arms.md with its figures, and the page, which is returned.

        Raises:
            InputError: something cannot be written.
        """
        (place,) = paths_of(path, "report", "give the path of a folder")
        return arm_report.write_arm_report(self, self.verdict, Path(place))


def of_metrics(frame: pd.DataFrame, metrics: Sequence[str] | None) -> pd.DataFrame:
    """The rows of these metrics. Raises InputError where one is unknown or was not computed."""
    if metrics is None:
        return frame
    names = [metric.name for metric in chosen_metrics(metrics)]
    if lacking := [name for name in names if name not in {*frame["metric"]}]:
        msg = (
            f"{lacking[0]} was not computed; `avbench measure` and `avbench evaluate`, each with the runs and --metric "
            f"{lacking[0]}, add it"
        )
        raise InputError(msg)
    return frame.loc[frame["metric"].isin(names)].reset_index(drop=True)
