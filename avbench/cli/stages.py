"""Defines a command per stage (sample, measure, evaluate), and leaderboard, power and votes."""

from pathlib import Path
from typing import Annotated

import typer

from avbench.cli import options
from avbench.cli.printing import (
    print_line,
    print_notes,
    print_protocols,
    print_result,
    print_verdict,
    refuse,
    refuse_idle,
    terminal,
)
from avbench.cli.program import app
from avbench.cli.steps import (
    LOST_MIRROR,
    allowed_to_fetch,
    chosen_workers,
    named_metrics,
    opened_beside,
    opened_run,
    opened_runs,
    parsed_settings,
    parsed_shard,
    shard_place,
    work_of,
)


@app.command()
def sample(
    model: Annotated[str, typer.Argument(help="provider:target")],
    subset: options.Subsets = None,
    prompts: options.Prompts = None,
    seeds: options.Seeds = 1,
    view: options.View = None,
    limit: options.Limit = None,
    setting: options.Settings = None,
    workers: options.Workers = None,
    engine: options.Engine = "local",
    address: options.Address = None,
    item_timeout: options.ItemTimeout = None,
    out: options.Out = Path("runs"),
    replace: options.Replace = False,
    shard: options.ShardOf = None,
    mirror: options.MirrorAt = None,
) -> None:
    """Make the clips of one model, and nothing else."""
    from avbench.api import Mirrors, SamplingJob, chosen_subsets, model_folders, sampled
    from avbench.core import counted

    ((place, model),) = model_folders(shard_place(out, shard), [model]).items()
    subsets, settings = chosen_subsets(subset, prompts, view or (), limit), parsed_settings(setting or ())
    asked = SamplingJob(subsets, range(seeds), settings, shard=parsed_shard(shard))
    mirrors = None if mirror is None else Mirrors(out, mirror)
    work = work_of(chosen_workers(workers, engine, address, item_timeout), replace=replace, mirrors=mirrors)
    _, failures = sampled(place, model, asked, work)
    if failures:
        refuse(f"{counted(failures, 'clip')} could not be made; {place}/samples.jsonl says why", code=1)
    print_line(place)
    if mirrors and mirrors.lost:
        refuse(LOST_MIRROR, code=1)


@app.command()
def measure(
    runs: options.Runs,
    metric: options.Metrics = None,
    columns: options.Columns = None,
    fvd_protocol: options.FVDProtocols = None,
    against: options.Against = None,
    fetch: options.Fetch = False,
    accept_licence: options.AcceptLicence = None,
    workers: options.Workers = None,
    engine: options.Engine = "local",
    address: options.Address = None,
    item_timeout: options.ItemTimeout = None,
    device: options.Device = "auto",
    precision: options.Precision = None,
    shard: options.ShardOf = None,
) -> None:
    """Measure the clips of run folders."""
    from avbench.api import measured, share_of
    from avbench.core import as_typed, counted

    work = work_of(chosen_workers(workers, engine, address, item_timeout), device=device, precision=precision)
    metrics = named_metrics(metric, fvd_protocol, columns, allowed_to_fetch(fetch, accept_licence))
    places, beside = [share_of(path, parsed_shard(shard)) for path in runs], opened_beside(against)
    views = [opened_run(path, reads_clips=True) for path in places]
    if lost := sum([measured(view, metrics, work, beside) for view in views]):
        refuse(f"{counted(lost, 'clip')} could not be measured; the same command tries again", code=1)
    named, chosen = as_typed(*places), metric or columns or fvd_protocol
    following = f"`avbench evaluate {named}` computes the scores" + (", given the same metrics" if chosen else "")
    if all(view.run().shard for view in views):
        following = "`avbench runs merge` joins the shards"
    print_line(f"measured {named}; {following}")


@app.command()
def evaluate(
    runs: options.Runs,
    metric: options.Metrics = None,
    columns: options.Columns = None,
    fvd_protocol: options.FVDProtocols = None,
    reference: options.ReferenceAt = None,
    against: options.Against = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    precision: options.Precision = None,
) -> None:
    """Score measured run folders; with --fvd-protocol, measure FVD under other protocols first and print the spread."""
    from avbench.api import evaluated, measurable, measured, reference_of
    from avbench.core import as_typed, counted

    work, lost, scored = work_of(workers, device=device, precision=precision), 0, False
    metrics = named_metrics(metric, fvd_protocol, columns)
    views, beside = [opened_run(path, reads_clips=True) for path in runs], opened_beside(against)
    for view in views if fvd_protocol else ():
        lost += measured(view, measurable(view, metrics, reference, work), work, beside)
    real = None if reference is None else reference_of(reference, metrics, work, views)
    for view in views:
        found = evaluated(view, metrics, real, beside, work, reference)
        asked = [one for one in found if one.metric in {metric.name for metric in metrics}]
        lacking = [one for one in asked if one.value is None]
        print_notes(f"{view.path}: {one.metric} of {one.subset} has no value: {one.missing}" for one in lacking)
        scored |= len(lacking) < len(asked)
    if fvd_protocol:
        from avbench.comparison.leaderboard import leaderboard

        print_protocols(leaderboard(views), fvd_protocol)
    if lost:
        refuse(f"{counted(lost, 'clip')} could not be measured; the same command tries again", code=1)
    if not scored:
        refuse("no metric has a value; run `avbench measure` first, or see the notes above", code=1)
    named = as_typed(*runs)
    print_line(f"evaluated {named}; `avbench compare {named}` prints the scores")


@app.command()
def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold run folders.")],
    form: options.Form = "console",
    metric: options.Metrics = None,
    allow: options.Allow = None,
    distances: Annotated[
        bool,
        typer.Option("--test-distances", help="Also rank distances, by label swaps: some seconds per pair of runs."),
    ] = False,
    reference: options.OtherReference = None,
) -> None:
    """Rank many runs, each with the range of ranks that the data leave open. To add a run, put its folder among the
    others.
    """
    from avbench.comparison import leaderboard as stage
    from avbench.comparison.score_table import require_known_fields, unknown_metrics
    from avbench.report import tables

    folders = opened_runs(folder.path for folder in stage.find(runs))
    print_notes(unknown_metrics(folders, metric))
    require_known_fields(folders, allow or ())
    frame = stage.leaderboard(folders, allow=allow or (), test_distances=distances, place=reference, metrics=metric)
    print_result(frame, tables.subset_tables(frame, ranks=True), f"{tables.LEGEND} {tables.RANKS_LEGEND}", form)


@app.command()
def power(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="One pilot run, or two whose clips are paired; or two arms, as in 'a=runs/a-*' 'b=runs/b-*'.",
        ),
    ],
    prompts: options.PlannedPrompts = None,
    seeds: options.PlannedSeeds = None,
    trainings: options.PlannedTrainings = None,
    family: Annotated[
        int, typer.Option(min=1, help="How many comparisons Holm's correction will count; 1 corrects nothing.")
    ] = 1,
    form: options.Form = "console",
) -> None:
    """Compute which differences a number of prompts and seeds could find, before GPU hours are spent."""
    from avbench import api
    from avbench.comparison.power import planned, planned_arms
    from avbench.report import arm_tables, comparison_tables

    numbers = [int(one) for one in prompts or (50, 100, 200, 400)]
    arms = api.named_arms(runs)
    if arms:
        refuse_idle("on arms", seeds=seeds)
        if len(arms) != 2:
            refuse(f"give two pilot arms, not {len(arms)}")
        counts = [int(one) for one in trainings or (3, 5, 10)]
        frame = planned_arms(api.compare_arms(arms).differences, counts, numbers, family)
    else:
        refuse_idle("on single runs: name arms, as in a=runs/a-*", trainings=trainings)
        counts = [int(one) for one in seeds or (1, 2, 4)]
        frame = planned(opened_runs(runs), numbers, counts, family)
    found = comparison_tables.power_tables(frame, "trainings" if arms else "seeds")
    legend = arm_tables.POWER_LEGEND if arms else comparison_tables.POWER_LEGEND
    print_result(frame, found, comparison_tables.power_legend(family, legend), form)


@app.command()
def votes(
    files: Annotated[
        list[Path],
        typer.Argument(help="Files of votes that a report's page exported, or preference files (.csv, .jsonl)."),
    ],
    run: Annotated[
        list[Path] | None,
        typer.Option("--run", help="A run that was voted on; repeatable. Says how far each metric agrees with people."),
    ] = None,
    form: options.Form = "console",
    metric: options.Metrics = None,
    allow: options.Allow = None,
) -> None:
    """Check and sum up blind votes: who won against whom, Bradley–Terry strengths, and which metrics agree with people.

    Preference files of other studies have the columns prompt, clip_a, clip_b, choice (a, b or same) and rater. Clips
    are named by run or by file; --run says which runs.
    """
    from avbench.comparison import agreement
    from avbench.report import agreements
    from avbench.report.ballots import console

    folders = opened_runs(run or ())
    voted = agreement.read(files, folders)
    print_notes(voted.left_out)
    if not folders:
        if form != "console" or metric or allow:
            refuse("--format, --metric and --allow are for the table of metrics; name the runs with --run")
        terminal().print(console(voted.votes))
        return
    frame = agreement.agreement(voted.votes, folders, metrics=metric, allow=allow or ())
    if form == "console":
        print_verdict(agreement.verdict(frame, voted.votes))
    print_result(frame, agreements.agreement_tables(frame), agreements.LEGEND, form)
    if form == "console":
        terminal().print(console(voted.votes))
