"""Defines the commands for runs that take long or that many machines make: status, runs, cache."""

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avbench.cli.options import Form, Runs, folder_to_write, with_a_name
from avbench.cli.printing import duration, print_line, print_listing, refuse
from avbench.cli.program import app, cache_app, runs_app
from avbench.cli.steps import opened_run

if TYPE_CHECKING:
    from avbench.storage.runs.status import Status

MOST_SENTENCES = 10
"""How many failures `status` prints; it counts the others."""


@runs_app.command("merge")
def merge_runs(
    out: Annotated[
        Path,
        typer.Argument(
            help="Run folder to create, or to add the parts to.",
            callback=lambda path: folder_to_write(with_a_name(path)),
        ),
    ],
    runs: Runs,
) -> None:
    """Merge the parts of one run, such as its shards, exactly; in any order, as often as you like."""
    from avbench.storage.runs.merge import merge

    found = merge(out, runs)
    failed = f"; {found.failed} could not be made" if found.failed else ""
    print_line(f"{out}: {found.made} of {found.planned} clips{failed}")
    if found.gone:
        print_line(f"files that no part has any more: {found.gone}; what was measured of these clips is kept")
    if found.missing:
        counts = ", ".join(f"{count} of {subset}" for subset, count in found.missing.items())
        shards = f"; not given: shard {', '.join(found.absent)}" if found.absent else ""
        print_line(f"missing: {counts}{shards}; merge again when they are there")


@runs_app.command("push")
def push_run(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    url: Annotated[str, typer.Argument(help="Address of its copy: s3://bucket/runs/NAME, gs://…")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Download the copy, and upload again what is damaged in it.")
    ] = False,
) -> None:
    """Copy a run folder to object storage; given again, only what changed."""
    from avbench.storage.mirrors.mirror import Mirror

    mirror, lost = Mirror(run, url), []
    with opened_run(run).writing(), mirror.kept():
        if verify:
            damaged, lost = mirror.verify()
            if damaged:
                print_line(f"{url}: damaged files are uploaded again ({len(damaged)}, for example {damaged[0]})")
    if mirror.damage:
        print_line(mirror.damage)
    if lost:
        print_line(f"{url}: {run} does not have the clips that are damaged there ({len(lost)}, for example {lost[0]})")
    if mirror.damage or lost:
        raise typer.Exit(1)
    print_line(f"{url}: equal to {run}{'' if verify else ' in names and sizes (--verify compares the content)'}")


@runs_app.command("pull")
def pull_run(
    url: Annotated[str, typer.Argument(help="Address of a run: s3://bucket/runs/NAME, gs://…")],
    run: Annotated[Path, typer.Argument(help="Run folder to create or to update.", callback=folder_to_write)],
) -> None:
    """Copy a run from object storage to a folder, also while another machine writes it; given again, what changed."""
    from avbench.storage.mirrors.mirror import Mirror

    nowhere = Mirror(run, url).pull()
    print_line(f"{run}: has all of {url}")
    if nowhere:
        print_line(f"clips that samples.jsonl names and that are not there: {len(nowhere)}, for example {nowhere[0]}")


@app.command()
def status(runs: Runs, form: Form = "console") -> None:
    """Show the progress of runs: stage, clips, rate, time left, failures, peak memory, and the next step.

    Of several runs that are not all evaluated, a preliminary verdict follows. It only reads the folders, so it works
    while a command writes them and after one was killed. A folder that is no run, such as that of a part that has not
    begun, is named after the others, and the exit code is 2.
    """
    from avbench.core import InputError
    from avbench.storage.runs.folder import RunFolder
    from avbench.storage.runs.status import status as read

    folders, found, unreadable = [], [], []
    for folder in map(RunFolder, runs):
        try:
            found.append(read(folder))
            folders.append(folder)
        except InputError as error:  # a part that has not begun must not hide the others
            unreadable.append(str(error))
    if form == "json":
        print_line(json.dumps([_plain(one) for one in found], indent=1, ensure_ascii=False))
    elif len(runs) > 1 or form != "console":
        if found:
            print_listing(*_overview(found), form)
        if form == "console" and len(found) > 1 and any(one.stage != "evaluated" for one in found):
            from avbench.comparison.early_looks import early_looks

            for sentence in early_looks(folders):
                print_line(sentence)
    elif found:
        _print_details(found[0])
    if unreadable:
        refuse("; ".join(unreadable))


def _plain(found: "Status") -> dict[str, Any]:
    counts = [{**dataclasses.asdict(one), "left": one.left} for one in found.subsets]
    progress, record = found.progress, None
    if progress is not None:
        times = {"rate": progress.rate, "seconds_left": progress.seconds_left}
        record = {**dataclasses.asdict(progress), **times}
    return {**dataclasses.asdict(found), "subsets": counts, "progress": record}


def _overview(found: "list[Status]") -> tuple[list[str], list[list[str]]]:
    """Column heads, and one row per run."""
    heads = ["run", "shard", "stage", "clips", "failed", "rate", "left", "next"]
    rows = []
    for one in found:
        failed = sum(each.failed for each in one.subsets)
        rate, left = _pace(one)
        clips = f"{one.made} of {one.planned}"
        rows.append([one.run, one.shard or "", _stage(one), clips, str(failed), rate, left, one.next])
    return heads, rows


def _stage(found: "Status") -> str:
    return f"{found.stage}, running" if found.running else found.stage


def _pace(found: "Status") -> tuple[str, str]:
    """Describe the rate and time left of the command that is working or was stopped."""
    progress = found.progress
    if progress is None or progress.ended or progress.rate is None:
        return "", ""
    return f"{progress.rate:.2g} clips/s", duration(progress.seconds_left or 0.0)


def _print_details(found: "Status") -> None:
    from avbench.core import lacking

    print_line(f"{found.run}: {found.model}{f', shard {found.shard}' if found.shard else ''}")
    print_line(f"stage: {_stage(found)}; {found.made} of {found.planned} clips made")
    if (progress := found.progress) is not None and not progress.ended:
        rate, left = _pace(found)
        paced = f", {rate}, {left} left" if rate else ""
        ago = duration(max(0.0, time.time() - progress.updated))
        where = f"process {progress.process} on {progress.host}"
        done = f"{progress.stage}: {progress.done} of {progress.total} done by {where}{paced}; last sign {ago} ago"
        if not found.running:  # it may have done more after its last sign
            done = (
                f"{progress.stage}: stopped; {progress.done} of {progress.total} were done at the last sign of "
                f"{where}, {ago} ago{paced}"
            )
        print_line(done)
    heads = ["subset", "clips", "made", "no clip", "refused", "left"]
    counts = [[one.subset, one.planned, one.made, one.failed, one.refused, one.left] for one in found.subsets]
    print_listing(heads, [[str(cell) for cell in row] for row in counts], "console")
    if found.features:
        rows = [[one.feature, str(one.rows), str(sum(one.without_value.values()))] for one in found.features]
        print_listing(["feature", "clips measured", "without a value"], rows, "console")
    for what in dict.fromkeys(lacking(found.model, why) for why in found.failures):
        failures = {why: count for why, count in found.failures.items() if lacking(found.model, why) == what}
        _print_sentences(what, failures)
    for one in found.features:
        _print_sentences(f"{one.feature} has no value", one.without_value)
    peaks = {"": found.peak_memory_mib, " of the GPU": found.peak_gpu_memory_mib}
    for what, peak in peaks.items():
        if peak is not None:
            print_line(f"peak memory{what} of a process: {peak:,.0f} MiB")
    print_line(f"next: {found.next}")


def _print_sentences(what: str, counts: "dict[str, int] | Any") -> None:
    from avbench.core import counted

    for sentence, count in [*counts.items()][:MOST_SENTENCES]:
        print_line(f"{what}: {counted(count, 'clip')}: {sentence}")
    if len(counts) > MOST_SENTENCES:
        print_line(f"{what}: {len(counts) - MOST_SENTENCES} more sentences (--format json has all)")


@cache_app.command("size")
def cache_size(form: Form = "console") -> None:
    """Show how much the features cache holds, by feature and protocol."""
    from avbench.storage.runs.features_cache import required

    cache = required()
    sizes = cache.sizes()
    rows = [[feature, str(count), f"{size / 2**20:.1f}"] for feature, (count, size) in sizes.items()]
    print_listing(["feature", "entries", "MiB"], rows, form)
    if form == "console":
        count, size = (sum(one[place] for one in sizes.values()) for place in (0, 1))
        print_line(f"{cache.folder}: entries: {count}, {size / 2**20:.1f} MiB")


@cache_app.command("prune")
def cache_prune(
    days: Annotated[
        float | None, typer.Option("--unused-days", min=0, help="Remove entries that were not used for this many days.")
    ] = None,
    gib: Annotated[
        float | None,
        typer.Option("--max-gib", min=0, help="Remove the least recently used entries, down to this size."),
    ] = None,
) -> None:
    """Remove entries of the features cache; their clips are measured again when needed."""
    from avbench.storage.runs.features_cache import required

    if days is None and gib is None:
        refuse("nothing to remove was named: give --unused-days DAYS, --max-gib SIZE, or both")
    seconds, most = None if days is None else days * 86_400, None if gib is None else gib * 2**30
    count, size = required().prune(seconds, most)
    print_line(f"entries removed: {count}, {size / 2**20:.1f} MiB")


@cache_app.command("verify")
def cache_verify() -> None:
    """Read every entry of the features cache and remove those that are damaged (exit code 1 if there were any)."""
    from avbench.storage.runs.features_cache import required

    good, bad = required().verify()
    for sentence in bad:
        print_line(sentence)
    print_line(f"good entries: {good}; damaged: {len(bad)}")
    if bad:
        raise typer.Exit(1)
