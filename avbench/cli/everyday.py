"""Defines the everyday commands: score, run, compare, report, list, doctor."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avbench.cli import options
from avbench.cli.config import write_config
from avbench.cli.printing import (
    ConsoleReporter,
    print_frame,
    print_line,
    print_list,
    print_paper_tables,
    print_protocols,
    print_scores,
    print_tables,
    print_verdict,
    refuse,
    refuse_idle,
)
from avbench.cli.program import app
from avbench.cli.steps import (
    CONSOLE,
    LOST_MIRROR,
    allowed_to_fetch,
    chosen_workers,
    opened_runs,
    parsed_settings,
    shard_place,
    worker_count,
    written_plan,
)

if TYPE_CHECKING:
    from avbench.api import ArmComparison, Comparison
    from avbench.storage.workers.ray_actors import RayActors

CAPTIONS = ("full", "short")
Details = Annotated[
    bool, typer.Option("--details", help="Also print ranks, notes and every comparison, with explanations.")
]
All = Annotated[bool, typer.Option("--all", help="Print all metrics, in as many tables as they need.")]
RunsOrArms = Annotated[
    list[str],
    typer.Argument(
        help="Run folders; 'NAME=runs/a-*' groups the trainings of an arm (all runs so, or none).",
    ),
]
Unpaired = Annotated[
    bool, typer.Option("--unpaired", help="Arms only: trainings have no partner in the other arm (other data order).")
]
Name = Annotated[
    list[str] | None, typer.Option("--name", help="Names for the folders, in their order; or write name=folder.")
]


@dataclass(frozen=True)
class Shown:
    """What to print besides the answer."""

    details: bool = False
    every: bool = False
    """All metrics instead of those that fit."""
    explain: Sequence[str] = ()
    """The metrics that the page explains."""


@app.command()
def score(
    folders: Annotated[list[str], typer.Argument(help="Folders of finished clips, or name=folder.")],
    reference: Annotated[
        Path | None, typer.Option(help="A folder of real clips, or a reference folder: for FVD, KVD and FAD.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="The prompts of the clips; a file inside or beside the folders is found.")
    ] = None,
    name: Name = None,
    fps: options.FrameRate = None,
    metric: options.Metrics = None,
    columns: options.Columns = None,
    fetch: options.Fetch = False,
    accept_licence: options.AcceptLicence = None,
    plan: options.PlanAt = None,
    workers: options.Workers = None,
    engine: options.Engine = "local",
    address: options.Address = None,
    item_timeout: options.ItemTimeout = None,
    device: options.Device = "auto",
    precision: options.Precision = None,
    explain: options.Explain = None,
    out: Annotated[
        Path, typer.Option(help="Folder for measurements, tables and the page.", callback=options.folder_beside_runs)
    ] = Path("runs/score"),
    replace: options.Replace = False,
    details: Details = False,
    every: All = False,
    shard: options.ShardOf = None,
    mirror: options.MirrorAt = None,
) -> None:
    """Find out which of several folders of clips is better. Nothing else is needed.

    Clips are paired by file name, and each folder is compared with the first.
    """
    from avbench import api
    from avbench.core import counted

    if name and len(name) != len(folders):
        refuse(f"--name is given {counted(len(name), 'time')} for {len(folders)} folders; give one for each, or none")
    if name and len(set(name)) < len(name):
        refuse(
            f"--name gives {next(one for one in name if name.count(one) > 1)!r} twice; give each folder its own name"
        )
    _require_explained(explain, metric, others=columns is not None)
    by = chosen_workers(workers, engine, address, item_timeout)
    found = api.score(
        dict(zip(name, folders, strict=True)) if name else folders,
        reference=reference,
        prompts=prompts,
        fps=fps,
        metrics=metric,
        columns=columns,
        fetch=allowed_to_fetch(fetch, accept_licence),
        out=out,
        plan=written_plan(plan),
        workers=by,
        device=device,
        precision=precision,
        replace=replace,
        reporter=CONSOLE,
        shard=shard,
        mirror=mirror,
    )
    _finish(found, shard_place(out, shard), by, asked=metric, shown=Shown(details, every, explain or ()))


@app.command()
def run(
    ctx: typer.Context,
    models: options.Models = None,
    subset: options.Subsets = None,
    prompts: options.Prompts = None,
    preset: options.AskedBy = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Clips per prompt: seeds 0 … N-1; 1 by default.")] = None,
    view: options.View = None,
    limit: options.Limit = None,
    setting: options.Settings = None,
    metric: options.Metrics = None,
    columns: options.Columns = None,
    fvd_protocol: options.FVDProtocols = None,
    fetch: options.Fetch = False,
    accept_licence: options.AcceptLicence = None,
    reference: options.ReferenceAt = None,
    against: options.Against = None,
    plan: options.PlanAt = None,
    allow: options.Allow = None,
    workers: options.Workers = None,
    engine: options.Engine = "local",
    address: options.Address = None,
    item_timeout: options.ItemTimeout = None,
    device: options.Device = "auto",
    precision: options.Precision = None,
    explain: options.Explain = None,
    out: options.Out = Path("runs"),
    replace: options.Replace = False,
    details: Details = False,
    every: All = False,
    config: options.Config = None,
    shard: options.ShardOf = None,
    mirror: options.MirrorAt = None,
) -> None:
    """Sample, measure and compare models; print the answer and the tables, and write the page.

    Each model is compared with the first. Without arguments: both bundled arms of AVFullDiT, T2AV against T2V, and
    beside them the embedded world and three known-bad models, on the toy subsets.
    The same command given again resumes where it stopped; with a larger --limit or --seeds it extends the run.
    run.toml in the --out folder holds the options: `avbench run --config runs/run.toml` gives them again.
    """
    from avbench import api

    settings = parsed_settings(setting or ())
    _require_explained(explain, metric, others=bool(columns or preset or fvd_protocol))
    place, by = shard_place(out, shard), chosen_workers(workers, engine, address, item_timeout)

    def begun(folder: Path) -> None:
        if folder.parent == place:  # and not that of a reference's clips
            write_config(place / "run.toml", ctx, settings)

    found = api.run(
        models or None,
        subsets=subset or None,
        prompts=prompts,
        views=view or (),
        limit=limit,
        seeds=seeds,
        settings=settings,
        preset=preset,
        metrics=metric,
        columns=columns,
        fetch=allowed_to_fetch(fetch, accept_licence),
        fvd_protocols=fvd_protocol or (),
        reference=reference,
        against=against,
        plan=written_plan(plan),
        allow=allow or (),
        out=out,
        workers=by,
        device=device,
        precision=precision,
        replace=replace,
        reporter=ConsoleReporter(CONSOLE.notes, begun),
        shard=shard,
        mirror=mirror,
    )
    _finish(found, place, by, fvd_protocol, asked=metric, shown=Shown(details, every, explain or ()))


@app.command()
def compare(
    runs: RunsOrArms,
    form: options.Form = "console",
    metric: options.Metrics = None,
    columns: options.Columns = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Every run against every other.")] = False,
    plan: options.PlanAt = None,
    allow: options.Allow = None,
    reference: options.OtherReference = None,
    caption: Annotated[
        str, typer.Option(help="full, or short: with md, latex or csv one table for a paper, with a one-line footnote.")
    ] = "full",
    figure: Annotated[
        Path | None, typer.Option(help="Also write the forest plot of all metrics to this .pdf, .png or .svg.")
    ] = None,
    unpaired: Unpaired = False,
    details: Details = False,
    every: All = False,
) -> None:
    """Compare run folders, and test whether each differs from the first by more than chance.

    With NAME=PATTERN the runs are grouped into arms: recipes that were trained several times.
    """
    from avbench import api
    from avbench.core import require_known
    from avbench.report import figures, paper

    require_known("caption", caption, CAPTIONS)
    if form not in paper.FORMS:
        refuse_idle(f"with --format {form}; give md, latex or csv", caption=caption == "short")
    arms = api.named_arms(runs)
    _refuse_with_arms(
        arms is not None,
        unpaired=unpaired,
        reference=reference,
        columns=columns,
        caption=caption != "full",
        figure=figure,
        all=every,
    )
    how: Any = {"metrics": metric, "all_pairs": all_pairs, "plan": written_plan(plan), "allow": allow or ()}
    if arms:
        by_arms = api.compare_arms(arms, paired_trainings=False if unpaired else None, **how)
        _print_arms(by_arms, form, details=details)
        return
    if figure:
        figures.checked_form(figure)
    found = api.compare(runs, columns=columns, reference=reference, **how)
    for sentence in found.notes:
        CONSOLE.note(sentence)
    if figure:
        for place in found.save_figure(figure):
            print_line(f"figure: {place}", err=True)
    if caption == "short":
        from avbench.comparison.leaderboard import leaderboard

        names = [*dict.fromkeys(found.scores["metric"])] if columns else metric  # runs may have other metrics
        ranked = leaderboard(found.runs, allow=allow or (), test_distances=True, place=reference, metrics=names)
        table = paper.paper_table(ranked, metric)
        if form == "latex" and (wide := paper.too_wide(table)):
            CONSOLE.note(wide)
        print_line(paper.FORMS[form](table).rstrip("\n"))
    elif form in ("csv", "json"):
        print_frame(found.differences if len(found.runs) > 1 else found.scores, form)
    else:
        _print_runs(found, runs, form, details=details, every=every)


@app.command()
def report(
    runs: RunsOrArms,
    out: Annotated[Path, typer.Option(help="Folder for the tables and the page.", callback=options.folder_beside_runs)],
    media: Annotated[
        str, typer.Option(help="inside or beside: the clips in the page, or in media/ beside it.")
    ] = "inside",
    flow: Annotated[bool, typer.Option("--flow", help="Show the flow over the clips as well.")] = False,
    explain: options.Explain = None,
    votes: Annotated[list[Path] | None, typer.Option(help="Votes that an earlier page exported; repeatable.")] = None,
    metric: options.Metrics = None,
    plan: options.PlanAt = None,
    allow: options.Allow = None,
    reference: options.OtherReference = None,
    workers: options.Workers = None,
    unpaired: Unpaired = False,
    details: Details = False,
    every: All = False,
) -> None:
    """Write the tables and the page of run folders, or of arms; each is compared with the first."""
    from avbench import api
    from avbench.comparison import votes as ballots
    from avbench.comparison.score_table import require_known_fields
    from avbench.core import require_known
    from avbench.report.page.page import MEDIA
    from avbench.report.writing import PageOptions

    require_known("media", media, MEDIA)
    arms = api.named_arms(runs)
    _refuse_with_arms(
        arms is not None,
        unpaired=unpaired,
        reference=reference,
        media=media != "inside",
        flow=flow,
        explain=explain,
        votes=votes,
        workers=workers is not None,
        all=every,
    )
    if arms:
        by_arms = api.compare_arms(
            arms,
            metrics=metric,
            plan=written_plan(plan),
            allow=allow or (),
            paired_trainings=False if unpaired else None,
        )
        page = by_arms.save_report(out)
        _print_arms(by_arms, "console", details=details)
        print_line(f"page: {page}")
        return
    _require_explained(explain, metric, others=metric is None)
    if votes:
        ballots.read(votes)  # raises InputError on one that cannot be read
    views = opened_runs(runs, reads_clips=True)
    require_known_fields(views, allow or ())
    found = api.compared(views, plan=written_plan(plan), allow=allow or (), reference=reference, metrics=metric)
    how_shown = PageOptions(media, flow, explain or (), tuple(votes or ()), worker_count(workers))
    page = found.save_report(out, how_shown, CONSOLE)
    _print_comparison(found, page, shown=Shown(details, every))


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(help="models, subsets, metrics, columns, features, references, presets or datasets")
    ],
    name: Annotated[
        str | None, typer.Argument(help="List only names that hold this word; with models: what lies at this path.")
    ] = None,
    form: options.Form = "console",
) -> None:
    """List models, subsets, metrics and so on; `list models PATH` detects what lies at a path."""
    print_list(what, form, name)


@app.command()
def doctor(
    model: Annotated[
        str | None,
        typer.Option(help="Check this model's contract: seven clips are made; a paid service charges for six."),
    ] = None,
    setting: options.Settings = None,
    subset: Annotated[
        str | None, typer.Option(help="The subset whose first two prompts are used; toy-control by default.")
    ] = None,
    prompts: options.Prompts = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder that would hold the run folders; `runs` by default.", callback=options.folder_beside_runs
        ),
    ] = None,
) -> None:
    """Check this machine, or a model: one line per check, and exit code 1 if one failed."""
    from avbench.api import chosen_subsets
    from avbench.cli.machine_checks import checks
    from avbench.core import counted
    from avbench.generation import contract
    from avbench.generation import table as generators

    if model:
        refuse_idle("with --model", out=out)
        names = [subset] if subset else None if prompts else ["toy-control"]
        (asked,) = chosen_subsets(names, prompts)
        found = contract.check(lambda: generators.build(model, parsed_settings(setting or ())), asked)
    else:
        refuse_idle("without --model", M=setting, subset=subset, prompts=prompts)
        found = checks(out or Path("runs"))
    failed = 0
    for one in found:
        print_line(f"{one.mark}: {one.name}: {one.words}")
        failed += one.ok is False
    if failed:
        refuse(f"{counted(failed, 'check')} failed", code=1)


def _refuse_with_arms(arms: bool, *, unpaired: bool, **given: object) -> None:
    """Refuse options that have no effect on arms, and the one that has none on single runs."""
    if unpaired and not arms:
        refuse("--unpaired is about the trainings of arms; name arms, as in 'a=runs/a-*'")
    if arms:
        refuse_idle("on arms; leave it out, or compare single runs, without NAME=", **given)


def _print_runs(found: "Comparison", typed: list[str], form: str, *, details: bool, every: bool) -> None:
    """The answer and the tables of runs, which were typed so."""
    from avbench.report import comparison_tables, tables

    if form == "console":
        print_verdict(found.verdict)
        print_scores(found.scores, found.differences, details=details, every=every)
        print_line(
            f"`avbench report {shlex.join(typed)} --out DIR` writes the page with the clips and plots"
            + ("" if details else "; --details prints every comparison")
        )
    else:
        print_tables(tables.subset_tables(found.scores), tables.LEGEND, form)
        if len(found.differences):
            print_tables(
                comparison_tables.difference_tables(found.differences), comparison_tables.DIFFERENCES_LEGEND, form
            )
    print_paper_tables(found.scores, found.runs, form)


def _print_arms(found: "ArmComparison", form: str, *, details: bool) -> None:
    """The answer and the tables of arms; with --details every training as well."""
    from avbench.report import arm_tables

    if form in ("csv", "json"):
        print_frame(found.differences, form)
        return
    if form == "md":
        print_line(found.to_markdown().rstrip("\n"))
    if form == "console":
        print_verdict(found.verdict)
    if form != "md":
        print_tables(arm_tables.value_tables(found.scores), arm_tables.VALUES_LEGEND, form)
        print_tables(arm_tables.difference_tables(found.differences), arm_tables.LEGEND, form)
    if details:
        print_tables(arm_tables.training_tables(found.trainings), "", form)


def _require_explained(explain: list[str] | None, metrics: list[str] | None, *, others: bool) -> None:
    """Refuse a metric that no page can explain, or that will not be scored, before hours are spent.

    Without `others`, `metrics` are all that will be scored, or the default ones if there are none.
    """
    if explain:
        from avbench.metrics.evaluate import chosen_metrics
        from avbench.report.page.explain import explained

        explained(explain, None if others else {one.name for one in chosen_metrics(metrics)})


def _finish(
    found: "Comparison",
    out: Path,
    workers: "int | RayActors | None",
    fvd_protocols: list[str] | None = None,
    *,
    asked: list[str] | None,
    shown: Shown,
) -> None:
    """Write the report of a comparison and print the answer; exit code 1 if something was lost or not measured, or the
    code of a metric that was `asked` for by name failed.
    """
    from avbench.core import counted
    from avbench.metrics.evaluate import failures
    from avbench.report.writing import PageOptions

    page = found.save_report(out, PageOptions(explain=shown.explain, workers=worker_count(workers)), CONSOLE)
    _print_comparison(found, page, fvd_protocols, shown=shown)
    if found.scores["value"].isna().to_numpy().all():
        refuse("nothing could be measured; the notes and the answer say why", code=1)
    if found.failed:
        refuse(f"{counted(found.failed, 'clip')} could not be made or measured; the notes above say why", code=1)
    if broken := failures(found.scores, asked or ()):
        refuse("; ".join(f"{name} has no value: {why}" for name, why in broken.items()), code=1)
    if found.mirrors_lost:
        refuse(LOST_MIRROR, code=1)


def _print_comparison(found: "Comparison", page: Path, fvd_protocols: list[str] | None = None, *, shown: Shown) -> None:
    """Print the answer, one table and the page's path; with --details the long tables and their explanations."""
    from avbench.metrics.evaluate import fvd_metrics

    print_verdict(found.verdict)
    others = fvd_metrics([name for name in fvd_protocols or () if name != "avbench"])
    scores = found.scores.loc[(found.scores["metric"] == "fvd") | ~found.scores["metric"].isin(others)]
    print_scores(scores, found.differences, details=shown.details, every=shown.every)
    if others:
        print_protocols(found.scores, fvd_protocols or ())
    print_paper_tables(found.scores, found.runs, "console")
    print_line(
        f"page: {page}" + ("" if shown.details else "   (its folder has the tables; --details prints every comparison)")
    )
