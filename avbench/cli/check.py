"""Defines the command check: hold a run against a baseline, move the baseline, or write a first plan."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avbench.cli.options import Allow, OtherReference, PlanAt
from avbench.cli.printing import print_line, print_notes, refuse, refuse_idle, terminal
from avbench.cli.program import app
from avbench.cli.steps import opened_run, written_plan

if TYPE_CHECKING:
    from avbench.comparison.gate import Verdict
    from avbench.storage.runs.folder import RunFolder


@app.command()
def check(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="An evaluated run folder.")],
    baseline: Annotated[Path, typer.Option(help="The baseline file, made by --update.")],
    plan: PlanAt = None,
    update: Annotated[bool, typer.Option("--update", help="Make this run the baseline; needs --reason.")] = False,
    reason: Annotated[str, typer.Option(help="Why the baseline changes; kept in its file.")] = "",
    init: Annotated[
        bool, typer.Option("--init", help="Write a plan from the baseline's own noise to --plan, or to gate.toml.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Append a markdown summary to this file.")] = None,
    allow: Allow = None,
    reference: OtherReference = None,
) -> None:
    """Fail (exit code 1) if a run is worse than the baseline by more than the margin, or lacks a metric of the
    baseline.

    Exit code 2: the two cannot be compared, or an argument or a file is wrong. Margins come from the plan; a metric
    without a margin is not checked.
    --init writes a first plan.
    """
    from avbench.comparison import gate

    of_a_check = {"junit": junit, "summary": summary, "allow": allow, "reference": reference}
    if update:
        refuse_idle("with --update", init=init, plan=plan, **of_a_check)
        _move_baseline(opened_run(run_folder), baseline, reason)
    elif init:
        refuse_idle("with --init", **of_a_check)
        refuse_idle("without --update", reason=reason)
        opened_run(run_folder)  # refuses what is no run, though only the baseline is read
        _write_first_plan(baseline, plan or Path("gate.toml"))
    else:
        refuse_idle("without --update", reason=reason)
        _remove_earlier(junit)
        verdicts = gate.check(opened_run(run_folder), baseline, written_plan(plan), place=reference, allow=allow or ())
        _report(verdicts, junit, summary)


def _move_baseline(run: "RunFolder", baseline: Path, reason: str) -> None:
    from avbench.comparison import baseline_file

    shrunk = baseline_file.update(run, baseline, reason)
    print_line(f"{baseline} now holds {run.name}")
    print_notes([shrunk] if shrunk else [])


def _write_first_plan(baseline: Path, place: Path) -> None:
    from avbench.comparison import first_plan

    if place.exists():
        refuse(f"{place} exists; give --plan another name, or remove it")
    text, without = first_plan.initial_plan(baseline)
    place.write_text(text, encoding="utf-8")
    print_line(f"{place} now holds margins from the noise of {baseline}; read them, then check with --plan {place}")
    print_notes(without)


def _remove_earlier(junit: Path | None) -> None:
    """Remove the file of an earlier check: where this one cannot be made, a CI system would show that one's results."""
    with suppress(OSError):  # whether it can be written is seen when it is
        if junit is not None and b'name="avbench check"' in junit.read_bytes()[:200]:
            junit.unlink()


def _report(verdicts: "Sequence[Verdict]", junit: Path | None, summary: Path | None) -> None:
    """Print the verdicts and write the files that were asked for; exit code 1 if a check failed, 2 if a file did."""
    from avbench.report import checks

    terminal().print(checks.console(verdicts, terminal().width))
    for line in checks.annotations(verdicts) if os.environ.get("GITHUB_ACTIONS") == "true" else ():
        print_line(line)
    unwritten = [_unwritten(junit, "w", checks.junit(verdicts)), _unwritten(summary, "a", checks.markdown(verdicts))]
    failed = checks.failures(verdicts)
    if wrong := [sentence for sentence in (failed, *unwritten) if sentence]:
        refuse("; ".join(wrong), code=1 if failed else 2)


def _unwritten(place: Path | None, mode: str, text: str) -> str | None:
    """Write a text to a file, in a folder that is made, and return why that was not possible, if it was not."""
    if place is None:
        return None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        return f"{place} cannot be written: {error.strerror or error}"
    return None
