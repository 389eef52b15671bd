"""How the command line prints: messages, progress bars, tables.

Text that comes from files is shown without control characters.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    import pandas as pd

    from avbench.core import Key
    from avbench.report.printed import Section
    from avbench.report.tables import SubsetTable
    from avbench.training.loop import Progress


def list_clips(what: str, clips: "Mapping[Key, str]", most: int = 5) -> None:
    """Name clips, each with its sentence, and count those beyond `most`."""
    for key, why in [*clips.items()][:most]:
        say(f"{what}: {key.subset} {key.prompt}-{key.seed}: {why}", err=True)
    if len(clips) > most:
        say(f"{what}: {len(clips) - most} more", err=True)


def print_protocols(frame: "pd.DataFrame", names: Sequence[str]) -> None:
    """Print FVD under several protocols, with its spread."""
    from avbench.metrics.evaluate import fvd_metrics
    from avbench.metrics.table import FVD_PROTOCOLS
    from avbench.report import tables

    there = {*fvd_metrics(names), "fvd"} & {*frame["metric"]}
    terminal().print(tables.protocols(frame, {name: one for name, one in FVD_PROTOCOLS.items() if one in there}))


def print_verdict(sentences: Iterable[str]) -> None:
    """Print the answer, one finding per line, with space around it."""
    say("")
    for sentence in sentences:
        terminal().print(sentence)


def print_tables(found: "Iterable[SubsetTable]", legend: str, form: str) -> None:
    """Print tables in one of the forms: console, markdown or latex."""
    from avbench.core import nearest
    from avbench.report import tables

    if form == "console":
        terminal().print(tables.set_for_console(found, legend, terminal().width))
        return
    forms = {"markdown": tables.set_as_markdown, "latex": tables.set_as_latex}
    if form not in forms:
        refuse(f"format {form!r} is unknown; {nearest(form, (*forms, 'console', 'csv', 'json'))}")
    say(forms[form](found, legend))


def print_printed(found: "Iterable[Section]", form: str) -> None:
    """Print what papers printed, each with its legend."""
    for one in found:
        print_tables([one.table], one.legend, form)


def print_frame(frame: "pd.DataFrame", form: str) -> None:
    """Print a table as CSV or JSON."""
    from avbench.core import csv_text

    say(csv_text(frame) if form == "csv" else frame.to_json(orient="records", indent=1))


def show_progress(stage: str, count: int, items: Iterable[Any], unit: str = "clips", at: str | None = None) -> Any:
    """Draw items while a bar shows stage, rate and time left; return the last.

    Where `at` names an attribute of the items, it says how many are done: a resumed stage does not begin at 0.
    """
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
    with Progress(*columns, console=terminal(stderr=True)) as progress:
        bar = progress.add_task(stage, total=count)
        last = None
        for done, last in enumerate(items, 1):
            progress.update(bar, completed=getattr(last, at) if at else done)
        return last


def terminal(*, stderr: bool = False) -> Any:
    """For tables and bars. What comes from files is shown as it is: without markup, and control characters by name."""
    from rich.console import Console
    from rich.segment import Segment

    from avbench.core import visible

    class Plain(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            for one in super().render(renderable, options):
                yield one if one.control else Segment(visible(one.text), one.style)

    return Plain(stderr=stderr, highlight=False, markup=False, emoji=False)


def say(text: object, *, err: bool = False) -> None:
    """Print a text of ours or of a file's."""
    from avbench.core import visible

    typer.echo(visible(text), err=err)


def show_training(steps: "Iterable[Progress]", what: str, total: int) -> None:
    """Show a training; its last losses stand below the bar."""
    if last := show_progress(what, total, steps, "steps", at="step"):
        losses = [("video", last.video_loss), ("audio", last.audio_loss)]
        said = ", ".join(f"{name} loss {loss:.4f}" for name, loss in losses if loss is not None)
        say(f"{what}: step {last.step}, {said}")


def refuse(sentence: str, *, code: int = 2) -> NoReturn:
    """Print why a command cannot go on, and end with an exit code."""
    say(f"avbench: {sentence}", err=True)
    raise typer.Exit(code)


class Printed:
    """Prints notes once, and draws progress: where `avbench.api` sends its messages on the command line."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        """Print a note, unless it was printed already."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            say(f"note: {sentence}", err=True)

    def follow(self, stage: str, count: int, items: Iterable[Any]) -> None:
        """Draw the items of a job while a bar shows how far it is."""
        show_progress(stage, count, items)
