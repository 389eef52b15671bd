"""Defines the everyday commands: run, compare, report, check, list, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from avbench.cli.config import write_config
from avbench.cli.options import (
    Against,
    Allow,
    AskedBy,
    Config,
    Form,
    FVDProtocols,
    Limit,
    Metrics,
    Models,
    Out,
    PlanAt,
    Prompts,
    ReferenceAt,
    Replace,
    Runs,
    Settings,
    Subsets,
    View,
    Workers,
)
from avbench.cli.printing import print_frame, print_listing, print_printed, print_tables, refuse, say, terminal
from avbench.cli.program import app
from avbench.cli.steps import (
    chosen_subsets,
    evaluate_run,
    measure_run,
    named_metrics,
    named_run,
    opened_run,
    parsed_settings,
    require_numbers,
    sample_run,
    write_report,
)

DEMO_MODELS = (
    "avfulldit:toy-t2v",
    "avfulldit:toy-t2av",
    "toyworld:",
    "toyworld:frozen",
    "toyworld:noisy",
    "toyworld:no-contact",
)
"""What `run` compares where no model is named: AVFullDiT without and with sound; the world they learned, the ceiling;
and three that are wrong in a known way."""


@app.command()
def run(
    ctx: typer.Context,
    models: Models = None,
    subset: Subsets = None,
    prompts: Prompts = None,
    preset: AskedBy = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Clips per prompt: seeds 0 … N-1; 1 where not given.")
    ] = None,
    view: View = None,
    limit: Limit = None,
    setting: Settings = None,
    metric: Metrics = None,
    fvd_protocol: FVDProtocols = None,
    reference: ReferenceAt = None,
    against: Against = None,
    plan: PlanAt = None,
    allow: Allow = None,
    workers: Workers = None,
    out: Out = Path("runs"),
    replace: Replace = False,
    config: Config = None,
) -> None:
    """Sample, measure and compare models; print the tables and write the page.

    Each model is compared with the first. Without arguments: both bundled arms of AVFullDiT, T2AV against T2V, and
    beside them the embedded world and three known-bad models, on the toy subsets.
    The same command given again goes on where it stopped, and with a larger --limit or --seeds it extends the run.
    run.toml in the --out folder holds the options: `avbench run --config runs/run.toml` gives them again.
    """
    from avbench.comparison import paper_presets
    from avbench.features.measure import require_weights
    from avbench.metrics.evaluate import features_of

    chosen = paper_presets.load(preset) if preset else None
    if chosen and not models:
        refuse(f"--preset {preset} asks models: name them")
    metrics = named_metrics(metric, fvd_protocol, chosen)
    require_weights(features_of(metrics))
    asked = chosen_subsets(subset or (chosen.subsets if chosen and not prompts else None), prompts, view, limit)
    given = paper_presets.Given(subset, prompts, view, limit, seeds, metric, parsed_settings(setting or ()))
    named = [named_run(out, model) for model in models or DEMO_MODELS]
    folders = [place for place, _ in named]
    records = [chosen and paper_presets.record(chosen, model, given, asked) for _, model in named]
    if chosen:
        asked, seeds = paper_presets.in_form(chosen, asked), seeds or chosen.seeds
        for sentence in dict.fromkeys(one for each in records if each for one in each["left_out"].values()):
            say(f"note: a column of {chosen.name} is left out: {sentence}", err=True)
    if len(set(folders)) < len(folders):
        refuse("two of these models would share a run folder; give one a name, NAME=MODEL")
    write_config(out / "run.toml", ctx, given.settings or {})
    failures = lost = 0
    for (place, model), kept in zip(named, records, strict=True):
        beside = paper_presets.settings(chosen, model, given.settings) if chosen else {}
        told = {**given.settings, **beside}
        failures += sample_run(place, model, asked, range(seeds or 1), told, workers, kept, replace=replace)
        lost += measure_run(place, metrics, workers, against)
        evaluate_run(place, metrics, reference, against)
    pairs = None if models else [(1, 0)]
    options = {"plan": plan, "allow": allow or (), "reference": reference, "workers": workers}
    options["metrics"] = [one.name for one in metrics] if metric else None
    write_report(folders, out, fvd_protocol, pairs=pairs, **options)
    if failures or lost:
        what = [
            f"{count} clips could not be {done}" for count, done in ((failures, "made"), (lost, "measured")) if count
        ]
        refuse(f"{' and '.join(what)}; the table's notes say why", code=1)
    require_numbers(folders)


@app.command()
def compare(
    runs: Runs,
    form: Form = "console",
    metric: Metrics = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Every run against every other.")] = False,
    plan: PlanAt = None,
    allow: Allow = None,
    reference: ReferenceAt = None,
) -> None:
    """Print run folders side by side, and whether each differs from the first by more than chance."""
    import itertools

    from avbench.comparison.differences import differences
    from avbench.comparison.leaderboard import leaderboard
    from avbench.comparison.plan import read
    from avbench.report import boards, printed, tables

    folders = [opened_run(path) for path in runs]
    frame = leaderboard(folders, allow=allow or (), metrics=metric)
    pairs = [(b, a) for a, b in itertools.combinations(range(len(folders)), 2)] if all_pairs else None
    found = differences(folders, pairs=pairs, plan=read(plan), place=reference, allow=allow or (), metrics=metric)
    if form in ("csv", "json"):
        print_frame(found if len(folders) > 1 else frame, form)
        return
    print_tables(tables.subset_tables(frame), tables.LEGEND, form)
    if len(found):
        print_tables(boards.difference_tables(found), boards.DIFFERENCES_LEGEND, form)
    print_printed(printed.sections(folders), form)


@app.command()
def check(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="An evaluated run folder.")],
    baseline: Annotated[Path, typer.Option(help="The baseline file, made by --update.")],
    plan: PlanAt = None,
    update: Annotated[bool, typer.Option("--update", help="Make this run the baseline; needs --reason.")] = False,
    reason: Annotated[str, typer.Option(help="Why the baseline moves; kept in its file.")] = "",
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Append a markdown summary to this file.")] = None,
    reference: ReferenceAt = None,
) -> None:
    """Fail (exit code 1) where a run is worse than the baseline by more than its margin, or lacks what it has.

    Exit code 2: the two cannot be compared. Margins stand in the plan; a metric without one is not gated.
    """
    from avbench.comparison import gate
    from avbench.comparison.plan import read
    from avbench.report import checks

    folder = opened_run(run_folder)
    if update:
        gate.update(folder, baseline, reason)
        say(f"{baseline} now holds {folder.path.name}")
        return
    verdicts = gate.check(folder, baseline, read(plan), place=reference)
    terminal().print(checks.console(verdicts))
    for line in checks.annotations(verdicts):
        say(line)
    if junit:
        junit.write_text(checks.junit(verdicts), encoding="utf-8")
    if summary:
        with summary.open("a", encoding="utf-8") as file:
            file.write(checks.markdown(verdicts))
    if failed := sum(verdict.failed for verdict in verdicts):
        refuse(f"{failed} of {len(verdicts)} checks failed", code=1)


@app.command()
def report(
    runs: Runs,
    out: Annotated[Path, typer.Option(help="Folder for the tables and the page.")],
    media: Annotated[
        str, typer.Option(help="inside or beside: the clips in the page, or in media/ beside it.")
    ] = "inside",
    flow: Annotated[bool, typer.Option("--flow", help="Show the flow over the clips as well.")] = False,
    votes: Annotated[list[Path] | None, typer.Option(help="Votes that an earlier page exported; repeatable.")] = None,
    metric: Metrics = None,
    plan: PlanAt = None,
    allow: Allow = None,
    reference: ReferenceAt = None,
    workers: Workers = None,
) -> None:
    """Write the tables and the page of run folders; each is compared with the first."""
    from avbench.core import nearest
    from avbench.report.page.page import MEDIA

    if media not in MEDIA:
        refuse(f"media {media!r} is unknown; {nearest(media, MEDIA)}")
    options = {"plan": plan, "allow": allow or (), "reference": reference, "workers": workers, "metrics": metric}
    write_report(runs, out, media=media, flow=flow, votes=votes, **options)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="models, subsets, metrics, features, references, presets or datasets")],
    path: Annotated[Path | None, typer.Argument(help="With models: say what lies at this path.")] = None,
    form: Form = "console",
) -> None:
    """List what there is; `list models PATH` says what a path is, by looking at it."""
    from avbench.report.lists import listing

    print_listing(*listing(what, path), form)


@app.command()
def doctor(
    model: Annotated[
        str | None, typer.Option(help="Put this model through the contract: six clips are made, and paid for.")
    ] = None,
    setting: Settings = None,
    subset: Annotated[str, typer.Option(help="Whose first two prompts the model is given.")] = "toy-control",
    prompts: Prompts = None,
    out: Out = Path("runs"),
) -> None:
    """Check this machine, or a model; a line a check, and exit code 1 where one failed."""
    from avbench.cli.machine_checks import checks
    from avbench.generation import contract
    from avbench.generation import table as generators

    if model:
        (asked,) = chosen_subsets(None if prompts else [subset], prompts, None, None)
        found = contract.check(lambda: generators.build(model, parsed_settings(setting or ())), asked)
    else:
        found = checks(out)
    failed = 0
    for one in found:
        say(f"{one.mark}: {one.name}: {one.words}")
        failed += one.ok is False
    if failed:
        refuse(f"{failed} checks failed", code=1)
