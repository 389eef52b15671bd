"""Prints messages, progress bars and tables of the command line.

Text that comes from files is shown without control characters.
"""

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import typer

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from avbench.report.tables import SubsetTable
    from avbench.storage.runs.folder import RunFolder
    from avbench.training.state import Progress

LINE_SECONDS = 60
"""Seconds between two lines of progress if stderr is no terminal."""
UNLIMITED_WIDTH = 100_000
"""A line width in letters that no sentence reaches."""
PIPED_LIST_WIDTH = 120
"""Width in letters of a list if stdout is no terminal; csv and json are for programs."""


@contextmanager
def results_apart() -> Iterator[None]:
    """In the block, stdout gets the results of a command only. What others' code and child processes print there goes
    to stderr.
    """
    global _RESULTS
    own = sys.stdout
    if own is None:  # it was closed by whoever started the program
        yield
        return
    fd = own.fileno() if own is sys.__stdout__ else None
    results = own
    if fd is not None:  # not on 2, where stderr may be closed
        results = os.fdopen(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3), "w", encoding=own.encoding, errors=own.errors)
    _RESULTS = results
    try:
        if fd is not None:
            os.dup2(2 if sys.stderr else os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), fd)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if fd is not None:
            own.flush()
            os.dup2(results.fileno(), fd)
            results.close()
        _RESULTS = None


def results_fd() -> int:
    """The file descriptor that results are printed to."""
    with suppress(AttributeError, OSError):  # of a stream that is no file
        return _results_stream().fileno()
    return 1


def _results_stream() -> TextIO:
    return _RESULTS or sys.stdout


_RESULTS: TextIO | None = None


def print_protocols(frame: "pd.DataFrame", names: Sequence[str]) -> None:
    """Print FVD under several protocols, with its spread."""
    from avbench.metrics.evaluate import fvd_metrics
    from avbench.metrics.table import FVD_PROTOCOLS
    from avbench.report import tables

    there = {*fvd_metrics(names), "fvd"} & {*frame["metric"]}
    terminal().print(tables.protocols(frame, {name: one for name, one in FVD_PROTOCOLS.items() if one in there}))


def print_verdict(sentences: Iterable[str]) -> None:
    """Print the answer after an empty line, one finding per line."""
    print_line("")
    for sentence in sentences:
        terminal().print(sentence)


def print_tables(found: "Iterable[SubsetTable]", legend: str, form: str) -> None:
    """Print tables in one of the forms: console, md or latex."""
    from avbench.report import latex, tables

    if form == "console":
        terminal().print(tables.set_for_console(found, legend, terminal().width))
    else:
        print_line({"md": tables.set_as_markdown, "latex": latex.set_as_latex}[form](found, legend))


def print_result(frame: "pd.DataFrame", found: "Iterable[SubsetTable]", legend: str, form: str) -> None:
    """Print a result in any form: as its rows (csv, json) or as its tables."""
    if form in ("csv", "json"):
        print_frame(frame, form)
    else:
        print_tables(found, legend, form)


def print_scores(scores: "pd.DataFrame", differences: "pd.DataFrame", *, details: bool, every: bool) -> None:
    """Print the scores as one table; with `details` as long tables with ranks and every comparison."""
    from avbench.report import comparison_tables, tables

    if not details:
        terminal().print(tables.compact(scores, differences, terminal().width, every=every))
        return
    print_tables(tables.subset_tables(scores, ranks=True), f"{tables.LEGEND} {tables.RANKS_LEGEND}", "console")
    if len(differences):
        print_tables(comparison_tables.difference_tables(differences), comparison_tables.DIFFERENCES_LEGEND, "console")


def print_paper_tables(scores: "pd.DataFrame", runs: "Sequence[RunFolder]", form: str) -> None:
    """Print VBench's totals and the tables of papers, each with its legend."""
    from avbench.report import printed, vbench

    if totals := [*vbench.totals(scores)]:
        print_tables(totals, vbench.LEGEND, form)
    for one in printed.sections(runs):
        print_tables([one.table], one.legend, form)


def print_frame(frame: "pd.DataFrame", form: str) -> None:
    """Print a table as CSV or JSON."""
    from avbench.core import csv_text

    text = csv_text(frame) if form == "csv" else frame.to_json(orient="records", indent=1)
    print_line(str(text).rstrip("\n"))


def print_list(what: str, form: str, name: str | None = None) -> None:
    """Print the list of a kind, or what `name` names in it, and a note for each plug-in that cannot be used."""
    from avbench.report import lists

    print_listing(*lists.listing(what, name), form)
    if what == "metrics" and form == "console":
        print_line("`avbench list features` names the weights that a feature needs and no package ships")
    print_notes(lists.problems(what))


def print_listing(heads: Sequence[str], rows: Sequence[Sequence[str]], form: str) -> None:
    """Print a list in any of FORMS."""
    import pandas as pd

    from avbench.report import lists

    if form in ("csv", "json"):
        print_frame(pd.DataFrame(rows, columns=[*heads]), form)
    elif form == "console":
        console = terminal()
        console.print(lists.for_console(heads, rows), width=None if console.is_terminal else PIPED_LIST_WIDTH)
    else:
        print_line({"md": lists.as_markdown, "latex": lists.as_latex}[form](heads, rows))


def show_progress(stage: str, count: int, items: Iterable[Any], unit: str = "clips", at: str | None = None) -> Any:
    """Take the items one by one, showing stage, rate and time left; return the last.

    On a terminal that is a bar; elsewhere a plain line a minute; with --quiet nothing. If `at` names an attribute of
    the items, it holds how many are done, because a resumed stage does not begin at 0.
    """
    last = None
    with _progress(stage, count, unit) as update:
        try:
            for done, last in enumerate(items, 1):
                update(getattr(last, at) if at else done)
        finally:  # a generator that is stopped ends its workers
            if close := getattr(items, "close", None):
                close()
    return last


@contextmanager
def _progress(stage: str, count: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the number of items done."""
    console = terminal(stderr=True)
    if _QUIET:
        yield lambda done: None
    elif console.is_terminal:
        with _bar(stage, count, unit, console) as update:
            yield update
    else:
        yield _lines(stage, count, unit)


@contextmanager
def _bar(stage: str, count: int, unit: str, console: Any) -> Iterator[Callable[[int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f} {unit}/s" if speed else "")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(stage, total=count)
        yield lambda done: progress.update(bar, completed=done)


def _lines(stage: str, count: int, unit: str) -> Callable[[int], None]:
    """Return a function that prints a line of progress at most once a minute."""
    begun = printed = time.monotonic()
    first: int | None = None

    def update(done: int) -> None:
        nonlocal printed, first
        first = done - 1 if first is None else first
        now = time.monotonic()
        if now - printed >= LINE_SECONDS:
            printed, rate = now, (done - first) / (now - begun)
            print_line(
                f"{stage}: {done} of {count}, {rate:.2g} {unit}/s, {duration((count - done) / rate)} left", err=True
            )

    return update


def duration(seconds: float) -> str:
    """Write a time in minutes and hours, for people."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def terminal(*, stderr: bool = False) -> Any:
    """Return the console for tables and bars. It shows text from files without markup and with control characters
    escaped.

    If it is a file or a pipe, sentences and scores are never cut or wrapped.
    """
    from rich.console import Console
    from rich.segment import Segment

    from avbench.core import visible

    class Plain(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            for one in super().render(renderable, options):
                yield one if one.control else Segment(visible(one.text), one.style)

    file = None if stderr else _results_stream()
    console = Plain(file=file, stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = UNLIMITED_WIDTH
    return console


def print_line(text: object, *, err: bool = False) -> None:
    """Print a text; with `err` it is a note to stderr, which --quiet leaves out."""
    from avbench.core import visible

    if not (err and _QUIET):
        typer.echo(visible(text), None if err else _results_stream(), err=err)


def print_notes(sentences: Iterable[str]) -> None:
    """Print sentences as notes to stderr, which --quiet leaves out."""
    for sentence in sentences:
        print_line(f"note: {sentence}", err=True)


def print_error(text: object) -> None:
    """Print to stderr, also under --quiet."""
    from avbench.core import visible

    typer.echo(visible(text), err=True)


def keep_quiet(quiet: bool) -> None:
    """Switch progress and notes off or on."""
    global _QUIET
    _QUIET = quiet


_QUIET = False


def show_training(steps: "Iterable[Progress]", what: str, total: int) -> None:
    """Show the progress of a training, and its last losses below the bar."""
    try:
        last = show_progress(what, total, steps, "steps", at="step")
    except KeyboardInterrupt as stop:
        stop.add_note("Give the same command again to continue; at most 5 minutes of training are lost.")
        raise
    if last:
        losses = [("video", last.video_loss), ("audio", last.audio_loss)]
        message = ", ".join(f"{name} loss {loss:.4f}" for name, loss in losses if loss is not None)
        print_line(f"{what}: step {last.step}, {message}")


def refuse(sentence: str, *, code: int = 2) -> NoReturn:
    """Print why a command cannot go on, and end with an exit code."""
    print_error(f"avbench: {sentence}")
    raise typer.Exit(code)


def refuse_idle(where: str, **given: object) -> None:
    """Refuse an option that was given although it has no effect there."""
    if idle := [name.replace("_", "-") for name, value in given.items() if value]:
        refuse(f"{'-' if len(idle[0]) == 1 else '--'}{idle[0]} has no effect {where}")


class ConsoleReporter:
    """Prints notes once, and draws progress: where `avbench.api` sends its messages on the command line.

    Args:
        notes: sentences that were noted before.
        begun: called with each run folder that has its run.json, before its first clip is made.
    """

    def __init__(self, notes: list[str] | None = None, begun: "Callable[[Path], None] | None" = None) -> None:
        self.notes: list[str] = [] if notes is None else notes
        self._begun = begun

    def note(self, sentence: str) -> None:
        """Print a note, unless it was printed already."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            print_notes([sentence])

    def begun(self, folder: "Path") -> None:
        """Pass on that a run folder has its run.json."""
        if self._begun:
            self._begun(folder)

    def preliminary(self, sentence: str) -> None:
        """Print the preliminary verdict on a run that is still being measured, above the bar if there is one."""
        from avbench.core import visible

        if not _QUIET:
            sys.stderr.write(f"{visible(sentence)}\n")  # a bar replaces this stream by one that makes room

    def follow(self, stage: str, count: int, items: Iterable[Any], unit: str = "clips") -> None:
        """Take the items of a job while a bar shows progress."""
        show_progress(stage, count, items, unit)
