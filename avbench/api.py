r"""What the command line does, callable from Python: score folders of clips, run models, compare runs.

```python
import avbench

found = avbench.score(["out/a", "out/b"], reference="real/")
print("\n".join(found.verdict))
found.save_report("report/")
```
"""

import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from avbench.comparison import paper_presets
from avbench.comparison.arm_differences import ArmTables, arm_differences
from avbench.comparison.arms import opened_arms
from avbench.comparison.differences import differences
from avbench.comparison.early_looks import MeasuredSoFar, early_look, looking
from avbench.comparison.leaderboard import leaderboard
from avbench.comparison.plan import Plan
from avbench.comparison.same_clips import remarks
from avbench.comparison.verdict import arm_verdict, verdict
from avbench.core import InputError, Key, Score, Shard, Subset, checked_id, digest
from avbench.features import devices
from avbench.features.measure import measure as measure_clips
from avbench.features.measure import protocol_of, require_weights, requires
from avbench.features.table import Requires
from avbench.generation import sample as sampling
from avbench.generation import table as generators
from avbench.generation.detect import detect
from avbench.generation.providers.clips import ClipsFolder
from avbench.metrics import reference as references
from avbench.metrics.columns import Wanted, columns_named, fetched, wanted_metrics
from avbench.metrics.evaluate import SHIPPED, chosen_metrics, evaluate, features_of, fvd_metrics, read_values
from avbench.metrics.table import Metric, problems
from avbench.report import arm_report, arm_tables, tables
from avbench.report.figures import write_forests
from avbench.report.writing import PageOptions, write_report
from avbench.storage.content import cache_folder, content_sha256, counted
from avbench.storage.progress import recorded
from avbench.storage.run_folder import RunFolder
from avbench.storage.run_merge import take_share
from avbench.storage.run_view import RunView
from avbench.storage.weights import Fetching
from avbench.storage.worker_pool import default_workers
from avbench.subsets.from_folders import paired
from avbench.subsets.loading import TOY_SUBSETS, from_folder, from_prompts_file, load, viewed

DEMO_MODELS = (
    "avfulldit:toy-t2v",
    "avfulldit:toy-t2av",
    "toyworld:",
    "toyworld:frozen",
    "toyworld:noisy",
    "toyworld:no-contact",
)
"""What `run` compares if no model is named: AVFullDiT without and with sound; the embedded world that it learned, which
is the best it can reach; and three models, each wrong in one known way."""
MOST_SEEDS = 64
"""How many seeds of a prompt are looked for in a folder of clips."""
MOST_LISTED = 5
"""A note names at most so many clips and counts the others."""


class Reporter(Protocol):
    """Where messages and progress go. The command line prints them; `Silent` keeps the messages."""

    notes: list[str]
    """The sentences that were noted."""

    def note(self, sentence: str) -> None:
        """Take a sentence for the user."""
        ...

    def begun(self, folder: Path) -> None:
        """Called when a run folder has its run.json, before the first clip is made."""
        ...

    def preliminary(self, sentence: str) -> None:
        """Take the preliminary verdict on a run that is still being measured."""
        ...

    def follow(self, stage: str, count: int, items: Iterable[Any], unit: str = "clips") -> None:
        """Take every item of a long job, which has this name and this many items, and show progress."""
        ...


class Silent:
    """Keeps the notes and shows no progress."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        """Keep a sentence."""
        self.notes.append(sentence)

    def begun(self, folder: Path) -> None:
        """Do nothing."""

    def preliminary(self, sentence: str) -> None:
        """Do nothing: it is out of date when the comparison is there."""

    def follow(self, stage: str, count: int, items: Iterable[Any], unit: str = "clips") -> None:
        """Take every item."""
        for _ in items:
            pass


@dataclass(frozen=True)
class Work:
    """Settings of the work itself, which change no number."""

    workers: int | None = None
    """Worker processes; one per core where not given, 0 for none."""
    replace: bool = False
    """Whether clips of another model, or clips that have changed, are deleted and made again."""
    reporter: Reporter = field(default_factory=Silent)
    device: str = "auto"
    """Where networks measure: ``auto`` (the GPUs, if there are any), ``cpu``, ``cuda`` or ``cuda:0,1``."""

    @property
    def processes(self) -> int:
        """How many processes."""
        return default_workers() if self.workers is None else self.workers


@dataclass(frozen=True)
class SamplingJob:
    """What a model is asked to make: prompts, seeds and settings."""

    subsets: Sequence[Subset]
    seeds: Sequence[int] = (0,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    preset: Mapping[str, Any] | None = None
    """The record of a paper's preset, for run.json."""
    shard: Shard | None = None
    """The part of the clips to make; all of them if None."""


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

    @functools.cached_property
    def clips(self) -> pd.DataFrame:
        """One row per model, clip and metric: model, subset, prompt, seed, metric, value; NaN where it has none."""
        parts = [read_values(run).assign(model=run.path.name) for run in self.runs]
        return pd.concat(parts, ignore_index=True).loc[:, ["model", "subset", "prompt", "seed", "metric", "value"]]

    @property
    def table(self) -> pd.DataFrame:
        """The values alone, one row per subset and model, one column per metric."""
        return self.scores.pivot_table(
            index=["subset", "model"], columns="metric", values="value", sort=False, dropna=False
        )

    def show(self, *, all_metrics: bool = False) -> None:
        """Print the verdict and one table of scores, as the command line does; optionally with all metrics."""
        from rich.console import Console

        console = Console(markup=False, highlight=False)
        for sentence in self.verdict:
            console.print(sentence)
        how = "show(all_metrics=True)"
        console.print(tables.compact(self.scores, self.differences, console.width, every=all_metrics, every_by=how))

    def to_latex(self, metrics: Sequence[str] | None = None) -> str:
        """LaTeX tables, one per subset, of these metrics or of all.

        Raises:
            InputError: a metric is unknown or was not computed.
        """
        return tables.set_as_latex(tables.subset_tables(of_metrics(self.scores, metrics)), tables.LEGEND)

    def save_figure(self, path: str | Path) -> list[Path]:
        """Write the forest plot of each pair of runs as .pdf, .png or .svg, and return the files.

        Raises:
            InputError: the suffix is another, cairosvg is not installed and the form needs it, or nothing was compared.
        """
        return write_forests(self.differences, self.scores, Path(path))

    def save_report(
        self, path: str | Path, options: PageOptions | None = None, reporter: Reporter | None = None
    ) -> Path:
        """Write tables, differences and the page into a folder, and return the page.

        Raises:
            InputError: something cannot be written.
        """
        reporter = reporter or Silent()
        chosen = options or PageOptions(workers=default_workers())
        return write_report(
            self.runs, self.scores, self.differences, Path(path), chosen, follow=reporter.follow, note=reporter.note
        )

    def log(self, run: Any, step: int | None = None) -> None:
        """Log every value as ``model/subset/metric`` to a run of wandb or aim, mlflow, or a tensorboard writer.

        Args:
            run: what ``wandb.init()`` returns, the module ``mlflow``, or a ``SummaryWriter``.
            step: the training step.

        Raises:
            InputError: it has neither `log`, `log_metrics` nor `add_scalar`.
        """
        known: list[Any] = [*self.scores.dropna(subset="value").itertuples()]
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

    def show(self) -> None:
        """Print the verdict and the tables."""
        from rich.console import Console

        console = Console(markup=False, highlight=False)
        for sentence in self.verdict:
            console.print(sentence)
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
        return arm_report.write_arm_report(self, self.verdict, Path(path))


def score(
    folders: str | Path | Mapping[str, str | Path] | Sequence[str | Path],
    *,
    reference: str | Path | None = None,
    prompts: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    columns: str | None = None,
    fetch: bool | Sequence[str] = False,
    out: str | Path = "runs/score",
    plan: Plan | None = None,
    workers: int | None = None,
    device: str = "auto",
    replace: bool = False,
    reporter: Reporter | None = None,
    shard: str | None = None,
) -> Comparison:
    """Score folders of finished clips, and compare each with the first.

    Clips of several folders are paired by file name, or by the prompts that they were made for.

    Args:
        folders: one folder or several; ``{"name": folder}`` or ``"name=folder"`` gives a model another name than its
            folder's.
        reference: a folder of real clips, or a reference folder (`avbench reference build`), for distances such as FVD.
        prompts: a prompts file; if None, one inside or beside a folder is used if it names the clips.
        metrics: their names; the default metrics where neither they nor columns are given.
        columns: a preset of columns, such as ``t2av`` (`metrics/columns.py`); metrics of it that lack weights are left
            out.
        fetch: whether missing weights are downloaded; the short names of licences that you accept, where weights ask
            for that.
        out: folder that gets one run folder per model. The same call again measures what is new.
        plan: primary questions and margins.
        workers: processes; one per core where not given.
        device: where networks measure: ``auto`` (the GPUs where there are any, else the CPU), ``cpu``, ``cuda`` or
            ``cuda:0,1``. Numbers agree within the tolerances of docs/speed.md.
        replace: measure changed clips again; otherwise they are an error.
        reporter: where messages and progress go.
        shard: ``i/n``: only this part of the clips, in a folder of its own below `out` (see `shard_folder`).

    Raises:
        InputError: a folder holds no clips, or another argument is wrong.
    """
    part = None if shard is None else Shard.parse(shard)
    work = _work(workers, replace, reporter, device)
    named = named_folders(folders)
    chosen = wanted_metrics(Wanted(metrics, columns, fetch=fetching(fetch, work)), work.reporter.note)
    require_weights(features_of(chosen))
    found = paired([*named.values()], None if prompts is None else Path(prompts), _fits)
    if found.prompts_file and prompts is None:
        work.reporter.note(f"the prompts are those of {found.prompts_file}")
    if found.alone and not found.prompts_file:
        work.reporter.note(
            f"{found.alone} clips are in only some of the folders; they count in the scores, but have no partner to be "
            "compared with"
        )
    real = None if reference is None else reference_of(Path(reference), chosen, work)
    place = shard_folder(Path(out), part)
    views, failed = [], 0
    for name, folder in named.items():
        seeds, lacking = _in_folder(folder, found.subset, part)
        view, missing = sampled(place / name, f"clips:{folder}", SamplingJob([found.subset], seeds, shard=part), work)
        look = _look(views[0], view, chosen, real) if views else None
        failed += missing - lacking + measured(view, chosen, work, look=look)
        evaluated(view, chosen, real)
        views.append(view)
    return dataclasses.replace(compared(views, plan=plan, reference=real), notes=[*work.reporter.notes], failed=failed)


def run(
    models: str | Sequence[str] | None = None,
    *,
    subsets: str | Sequence[str | Subset] | None = None,
    prompts: str | Path | None = None,
    views: Sequence[str] = (),
    limit: int | None = None,
    seeds: int | None = None,
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
    metrics: Sequence[str] | None = None,
    columns: str | None = None,
    fetch: bool | Sequence[str] = False,
    fvd_protocols: Sequence[str] = (),
    reference: str | Path | None = None,
    against: str | Path | None = None,
    plan: Plan | None = None,
    allow: Sequence[str] = (),
    out: str | Path = "runs",
    workers: int | None = None,
    device: str = "auto",
    replace: bool = False,
    reporter: Reporter | None = None,
    shard: str | None = None,
) -> Comparison:
    """Sample models on subsets, measure, and compare each with the first.

    Args:
        models: ``provider:target``, a path, or ``name=…`` of either. Without any: both bundled arms of AVFullDiT, the
            embedded world, and three known-bad models (DEMO_MODELS).
        subsets: names or folders; the toy subsets where neither they nor prompts are given.
        prompts: a prompts file instead.
        views: ``lite``, ``short``, ``dev``, ``test`` or ``tag=value`` of each subset, one after another.
        limit: only the first prompts of each subset.
        seeds: clips per prompt.
        settings: of the models.
        preset: a paper's settings, by name or as a .toml file; arguments given here override them.
        metrics: their names; those of the preset, or the default metrics, where neither they nor columns are given.
        columns: a preset of columns, such as ``t2av`` (`metrics/columns.py`); metrics of it that lack weights are left
            out.
        fetch: whether missing weights are downloaded; the short names of licences that you accept, where weights ask
            for that.
        fvd_protocols: names of published codes whose FVD is computed as well, or ``all``.
        reference: a folder of real clips or a reference folder, instead of the shipped ones.
        against: the run folder that holds the reference clips, for metrics that need one.
        plan: primary questions and margins.
        allow: fields in which runs may differ; a difference in any other field is an error.
        out: folder that gets one run folder per model. The same call again resumes where it stopped.
        workers: processes; one per core where not given.
        device: where networks measure: ``auto`` (the GPUs where there are any, else the CPU), ``cpu``, ``cuda`` or
            ``cuda:0,1``. Numbers agree within the tolerances of docs/speed.md.
        replace: delete and make again what belongs to another model or other settings; otherwise it is an error.
        reporter: where messages and progress go.
        shard: ``i/n``: only this part of the clips, in a folder of its own below `out` (see `shard_folder`).

    Raises:
        InputError: an argument is wrong. A clip that cannot be made raises nothing; it is counted and reported.
    """
    part = None if shard is None else Shard.parse(shard)
    work = _work(workers, replace, reporter, device)
    given = [models] if isinstance(models, str) else [*(models or DEMO_MODELS)]
    names = [subsets] if isinstance(subsets, str) else subsets
    chosen = paper_presets.load(preset) if preset else None
    if chosen and not models:
        msg = f"the preset {preset} needs models: name them"
        raise InputError(msg)
    downloads, besides = fetching(fetch, work), fvd_metrics(fvd_protocols)
    if chosen and not metrics and not columns:
        if downloads:
            fetched([one.metric for one in chosen.columns if one.metric], (), downloads, work.reporter.note)
        metrics_of_paper = [metric.name for metric in chosen.metrics()[0]]
        wanted_now = Wanted(metrics_of_paper, besides=besides, fetch=downloads)
    else:
        wanted_now = Wanted(metrics, columns, besides, downloads)
    computed = wanted_metrics(wanted_now, work.reporter.note)
    require_weights(features_of(computed))
    metrics = [metric.name for metric in computed] if columns else metrics
    if names is None and prompts is None:
        _require_no_clips(given)
    file = None if prompts is None else Path(prompts)
    wanted = chosen_subsets(chosen.subsets if chosen and not names and not file else names, file, views, limit)
    subset_names = None if names is None else [one.name if isinstance(one, Subset) else one for one in names]
    own_settings = dict(settings or {})
    typed = paper_presets.Given(subset_names, file, views, limit, seeds, metrics, own_settings)
    folders = model_folders(shard_folder(Path(out), part), given)
    real = None if reference is None else reference_of(Path(reference), computed, work)
    beside = None if against is None else opened(against, work)
    records = [chosen and paper_presets.record(chosen, model, typed, wanted) for model in folders.values()]
    if chosen:
        wanted, seeds = paper_presets.in_form(chosen, wanted), seeds or chosen.seeds
        for sentence in dict.fromkeys(one for each in records if each for one in each["left_out"].values()):
            work.reporter.note(f"a column of {chosen.name} is left out: {sentence}")
    opened_runs, failed = [], 0
    for (place, model), record in zip(folders.items(), records, strict=True):
        of_paper = paper_presets.settings(chosen, model, own_settings) if chosen else {}
        asked = SamplingJob(wanted, range(seeds or 1), {**own_settings, **of_paper}, record, part)
        view, missing = sampled(place, model, asked, work)
        compares = opened_runs and (models or len(opened_runs) == 1)  # as `pairs` below
        look = _look(opened_runs[0], view, computed, real) if compares else None
        failed += missing + measured(view, computed, work, beside, look)
        evaluated(view, computed, real, beside)
        opened_runs.append(view)
    found = compared(opened_runs, pairs=None if models else [(1, 0)], plan=plan, allow=allow, reference=real)
    return dataclasses.replace(found, notes=[*work.reporter.notes], failed=failed)


def compare(
    runs: Sequence[str | Path],
    *,
    metrics: Sequence[str] | None = None,
    columns: str | None = None,
    all_pairs: bool = False,
    plan: Plan | None = None,
    allow: Sequence[str] = (),
    reference: str | Path | None = None,
) -> Comparison:
    """Compare evaluated run folders, each with the first, or every one with every other.

    Args:
        runs: run folders.
        metrics: only these.
        columns: only those of a preset of columns that every run has; a note of the comparison names the others.
        all_pairs: whether every run is compared with every other.
        plan: primary questions and margins.
        allow: fields in which runs may differ; a difference in any other field is an error.
        reference: a reference folder instead of the shipped ones.

    Raises:
        InputError: a folder holds no evaluated run, or two runs were made differently in a field that is not allowed.
    """
    views = [RunView(Path(path)) for path in runs]
    pairs = [(b, a) for b in range(len(views)) for a in range(b)] if all_pairs else None
    place = None if reference is None else Path(reference)
    notes: list[str] = []
    if columns:
        shared = shared_columns(views, columns, notes.append)
        metrics = [*(one.name for one in chosen_metrics(metrics)), *shared] if metrics else shared
    found = compared(views, pairs=pairs, plan=plan, allow=allow, reference=place, metrics=metrics)
    return dataclasses.replace(found, notes=notes)


def shared_columns(runs: Sequence[RunFolder], columns: str, note: Callable[[str], None]) -> list[str]:
    """The metrics of a preset of columns that every run was scored by; the others are noted.

    Raises:
        InputError: the preset is unknown, or the runs share none of its metrics.
    """
    asked = [*dict.fromkeys(columns_named(columns).columns.values())]
    scored = [{score.metric for score in run.scores()[0]} for run in runs]
    shared = [name for name in asked if all(name in one for one in scored)]
    places = " ".join(str(run.path) for run in runs)
    how = f"`avbench measure {places} --columns {columns} --fetch`, then `avbench evaluate` with the same columns"
    if not shared:
        msg = f"no run was scored by a metric of the columns {columns}: {how}"
        raise InputError(msg)
    if len(shared) < len(asked):
        note(f"not computed for every run: {', '.join(one for one in asked if one not in shared)}; {how} add them")
    return shared


def fetching(fetch: bool | Sequence[str], work: Work) -> Fetching | None:
    """How weights are downloaded: not at all for False, else under the licences that are named."""
    if fetch is False:
        return None
    accepted = () if fetch is True else tuple(fetch)
    return Fetching(accepted, functools.partial(work.reporter.follow, unit="MB"))


def compare_arms(
    arms: Mapping[str, str | Path | Sequence[str | Path]],
    *,
    metrics: Sequence[str] | None = None,
    all_pairs: bool = False,
    plan: Plan | None = None,
    allow: Sequence[str] = (),
    paired_trainings: bool | None = None,
) -> ArmComparison:
    """Compare arms that were trained several times, each with the first, or every one with every other.

    ```python
    found = avbench.compare_arms({"t2v": "runs/t2v-*", "t2av": "runs/t2av-*"})
    ```

    Args:
        arms: name → evaluated run folders, one per training: paths, or patterns such as ``runs/a-*``.
        metrics: only these.
        all_pairs: whether every arm is compared with every other.
        plan: primary questions and margins.
        allow: fields in which runs may differ all the same.
        paired_trainings: whether trainings have partners in the other arm, which shared the order of the data and the
            noise; None pairs them by the number that their names end in, else by the order of the names.

    Raises:
        InputError: an arm has fewer than two trainings, or its trainings were not made and measured alike.
    """
    opened = opened_arms(arms)
    pairs = [(b, a) for b in range(len(opened)) for a in range(b)] if all_pairs else None
    found = arm_differences(
        opened, pairs=pairs, plan=plan, allow=allow, metrics=metrics, paired_trainings=paired_trainings
    )
    answer = arm_verdict(found.scores, found.differences, found.notes)
    return ArmComparison(found.scores, found.trainings, found.differences, found.notes, answer)


def named_arms(typed: Sequence[str]) -> dict[str, list[str]] | None:
    """Arm → paths or patterns, of words such as ``a=runs/a-*``; None where no word has a name.

    A name that is given several times has all the runs.

    Raises:
        InputError: some words have a name, and others have none.
    """
    found: dict[str, list[str]] = {}
    alone = []
    for name, path in map(generators.split_name, typed):
        if name is None:
            alone.append(path)
        else:
            found.setdefault(name, []).append(path)
    if found and alone:
        msg = f"{alone[0]} has no name, and {next(iter(found))} is an arm: name every run, as in NAME={alone[0]}"
        raise InputError(msg)
    return found or None


def compared(
    runs: Sequence[RunFolder],
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    plan: Plan | None = None,
    allow: Sequence[str] = (),
    reference: Path | None = None,
    metrics: Sequence[str] | None = None,
) -> Comparison:
    """Compare opened runs; `pairs` are indices (run, against), by default each run against the first."""
    frame = leaderboard(runs, allow=allow, metrics=metrics)
    found = differences(runs, pairs=pairs, plan=plan, place=reference, allow=allow, metrics=metrics)
    return Comparison(tuple(runs), frame, found, [*verdict(frame, found), *remarks(runs)])


def opened(path: str | Path, work: Work, *, reads_clips: bool = True) -> RunView:
    """Open a run folder and note clips whose files are gone, if clips will be read; their measured rows are kept.

    Raises:
        InputError: the folder holds no run, or a clip file was changed since it was sampled.
    """
    view = RunView(Path(path))
    if view.gone and reads_clips:
        first = view.path / str(view.gone[0].path)
        work.reporter.note(
            f"{counted(view.gone, view)} no longer there (for example {first}); what was measured of them is kept"
        )
    return view


def _look(first: RunFolder, run: RunFolder, metrics: Sequence[Metric], place: Path | None) -> Callable[[], str | None]:
    """A function that compares a run, as far as it is measured, with the first one, which is finished."""

    @functools.cache
    def finished() -> MeasuredSoFar:
        return MeasuredSoFar(first.path, metrics, place)

    return lambda: early_look(MeasuredSoFar(run.path, metrics, place), finished(), place)


def measured(
    view: RunFolder,
    metrics: Sequence[Metric],
    work: Work,
    against: RunFolder | None = None,
    look: Callable[[], str | None] | None = None,
) -> int:
    """Measure what these metrics need of a run, note each clip for which that failed, and return how many they are.

    `look` returns a preliminary verdict; it is called now and then, and the reporter gets its sentence.
    """
    lost: dict[Key, Mapping[str, str]] = {}

    def noting(tasks: Iterable[Any]) -> Iterator[Any]:
        for task in tasks:
            lost.update({one.key: task.failed for one in task.samples if task.failed})
            yield task

    with view.writing():
        count, tasks = measure_clips(
            view, features_of(metrics), workers=work.processes, against=against, device=work.device
        )
        noted = noting(recorded(view.path, "measure", count, tasks))
        shown = looking(noted, look, work.reporter.preliminary) if look else noted
        work.reporter.follow(f"{view.path.name}: measure", count, shown)
    _list("not measured", {key: _reasons(failed) for key, failed in lost.items()}, work)
    return len(lost)


def _reasons(failed: Mapping[str, str]) -> str:
    """``i3d, flow: the reason``"""
    of_reason: dict[str, list[str]] = {}
    for feature, reason in failed.items():
        of_reason.setdefault(reason, []).append(feature)
    return "; ".join(f"{', '.join(features)}: {reason}" for reason, features in of_reason.items())


def evaluated(
    view: RunFolder, metrics: Sequence[Metric], reference: Path | None = None, against: RunFolder | None = None
) -> list[Score]:
    """Score a measured run, with its folder locked for other avbench processes."""
    with view.writing():
        return evaluate(view, metrics, place=reference, against=against)


def sampled(path: Path, model: str, asked: SamplingJob, work: Work) -> tuple[RunView, int]:
    """Make the clips of a model; return the run and how many clips failed, without those that the model refused."""
    folder = RunFolder(path)
    with folder.writing():
        count, made, remarks = sampling.sample(
            folder,
            model,
            asked.settings,
            asked.subsets,
            asked.seeds,
            workers=work.processes,
            preset=asked.preset,
            replace=work.replace,
            shard=asked.shard,
        )
        work.reporter.begun(path)
        for remark in remarks:
            work.reporter.note(remark)
        work.reporter.follow(f"{path.name}: sample", count, recorded(path, "sample", count, made))
    view = opened(path, work)
    samples = view.samples().values()
    if other := [one for one in samples if one.spec_mismatch]:
        first = f"for example {other[0].key.prompt}: {other[0].spec_mismatch}"
        work.reporter.note(
            f"{len(other)} of {len(samples)} clips do not have the form of the clip spec ({first}); the files are kept "
            "as they are, and conformed to the clip spec while they are measured"
        )
    if remarked := [one for one in samples if one.remark]:
        first = f"for example {remarked[0].key.prompt}: {remarked[0].remark}"
        work.reporter.note(
            f"{len(remarked)} of {len(samples)} clips were read with a remark ({first}); {path}/samples.jsonl has all"
        )
    if refused := sum(one.refused for one in samples):
        work.reporter.note(f"{refused} clips were refused by the model; {path}/samples.jsonl says why")
    failed = [one for one in samples if one.failure and not one.refused]
    _list("not made", {one.key: str(one.failure) for one in failed}, work)
    return view, len(failed)


def reference_of(path: Path, metrics: Sequence[Metric], work: Work) -> Path:
    """Return the reference folder `path` itself, or a reference that is built from the real clips in `path`.

    A built reference is kept in the cache under a hash of the clips and the protocols, and used again.

    Raises:
        InputError: the folder holds neither a reference nor clips, or a clip cannot be read.
    """
    if path == SHIPPED or any(path.glob("card.json")) or any(path.glob("*/card.json")):
        return path
    if not path.exists():
        msg = f"reference {path} does not exist"
        raise InputError(msg)
    try:
        subset = from_folder(path)
    except InputError as error:
        msg = f"{path} holds no reference: there is no card.json in it, and no clips to build one of ({error})"
        raise InputError(msg) from None
    able = [one for one in metrics if requires(one.feature) is not Requires.REFERENCE_CLIP]
    content = {prompt.id: content_sha256(path / str(prompt.tags["file"])) for prompt in subset.prompts}
    protocols = [protocol_of(feature) for feature in features_of(able)]
    key = digest({"clips": content, "protocols": sorted(protocol.digest for protocol in protocols)})[:16]
    place = cache_folder() / "references" / key
    if (place / "card.json").is_file():
        return place
    making = place.with_name(f"{key}.work") / subset.name
    build_reference(RealClips(subset, f"clips:{path}"), able, making, place, work)
    shutil.rmtree(making.parent, ignore_errors=True)
    return place


@dataclass(frozen=True)
class RealClips:
    """What a reference is built of."""

    subset: Subset
    model: str
    """Where the clips come from: ``clips:FOLDER`` or ``toyworld:``."""
    seeds: Sequence[int] = (0,)
    licence: str | None = None
    """Licence of the clips; None if their owner gave none. Clips of the embedded world are avbench's own."""
    rows: int = references.ROWS
    """The most rows to keep; statistics still cover all clips."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the reference's card: how the clips were chosen."""


def build_reference(clips: RealClips, metrics: Sequence[Metric], making: Path, place: Path, work: Work) -> str:
    """Make and measure clips, and build a reference from them; the same call resumes where it stopped.

    Args:
        clips: what to measure.
        metrics: the metrics that the reference will serve.
        making: run folder for the clips while they are measured.
        place: the reference folder.
        work: how.

    Returns:
        The sha256 of the reference's columns.

    Raises:
        InputError: a clip cannot be made or measured, because a reference needs all clips.
    """
    view, failed = sampled(making, clips.model, SamplingJob([clips.subset], clips.seeds), work)
    if failed:
        msg = f"{failed} clips could not be made, and a reference needs all of them: repair or remove them"
        raise InputError(msg)
    if lost := measured(view, metrics, work):
        msg = f"{lost} clips could not be measured, and a reference needs all of them: give the command again"
        raise InputError(msg)
    licence = clips.licence or ("Apache-2.0" if clips.model.startswith("toyworld:") else None)
    protocols = [protocol_of(feature) for feature in features_of(metrics)]
    return references.pack(view, clips.subset, protocols, place, licence, rows=clips.rows, about=clips.about)


def named_folders(folders: str | Path | Mapping[str, str | Path] | Sequence[str | Path]) -> dict[str, Path]:
    """Map a name to each folder; folders with equal names get the names of their parent folders in front.

    Raises:
        InputError: no folder is given, or one is given twice.
    """
    if isinstance(folders, Mapping):
        pairs: list[tuple[str | None, Path]] = [
            (checked_id(name, "model name"), Path(folder)) for name, folder in folders.items()
        ]
    else:
        listed = [folders] if isinstance(folders, str | Path) else folders
        pairs = [(name, Path(path)) for name, path in map(generators.split_name, map(str, listed))]
    if not pairs:
        msg = "give at least one folder of clips"
        raise InputError(msg)
    places = [folder.resolve() for _, folder in pairs]
    if twice := [place for place in places if places.count(place) > 1]:
        msg = f"{twice[0]} is given twice"
        raise InputError(msg)
    names: list[str] = [name or "" for name, _ in pairs]
    for depth in range(1, max(len(place.parts) for place in places) + 1):
        alike = {name for name in names if not name or names.count(name) > 1}
        for number, (given, _) in enumerate(pairs):
            if given is None and names[number] in alike:
                names[number] = generators.run_name("clips:" + "-".join(places[number].parts[-depth:]))
    if twice := [name for name in names if names.count(name) > 1]:
        msg = f"two of the folders would be called {twice[0]!r}: give names, as in first={pairs[0][1]}"
        raise InputError(msg)
    return dict(zip(names, (folder for _, folder in pairs), strict=True))


def model_folders(out: Path, models: Sequence[str]) -> dict[Path, str]:
    """Run folder → model. Raises InputError where two models would share a folder."""
    found: dict[Path, str] = {}
    for typed in models:
        name, model = generators.split_name(typed)
        place = out / (name or generators.run_name(model))
        if place in found:
            msg = f"two of these models would share the run folder {place}: give one a name, NAME=MODEL"
            raise InputError(msg)
        found[place] = model
    return found


def chosen_subsets(
    names: Sequence[str | Subset] | None,
    prompts: str | Path | None,
    views: Sequence[str] = (),
    limit: int | None = None,
) -> list[Subset]:
    """Return the named subsets, the subset of a prompts file, or the toy subsets; as these views, with at most `limit`
    prompts.

    Raises:
        InputError: subsets and prompts are given together, or one cannot be read.
    """
    if names and prompts:
        msg = "give --subset or --prompts, not both"
        raise InputError(msg)
    if prompts:
        found = [from_prompts_file(Path(prompts))]
    else:
        found = [one if isinstance(one, Subset) else load(one) for one in names or TOY_SUBSETS]
    for view in views:
        found = [viewed(one, view) for one in found]
    return [one.limited(limit) for one in found]


def shard_folder(out: Path, shard: Shard | None) -> Path:
    """The folder for the run folders of a shard: ``out/shards/2-of-4``; `out` itself where there is no shard."""
    return out if shard is None else out / "shards" / shard.folder


def share_of(run: Path, shard: Shard | None) -> Path:
    """Create or update the run folder in which one shard of a finished run is measured, and return it.

    It lies beside the run, as `shard_folder` says. If no shard is given, or if the run is this shard already, the run
    itself is returned.

    Raises:
        InputError: the run is another shard, or a clip of it was changed since it was made.
    """
    folder = RunFolder(run)
    if shard is None or folder.run().shard == str(shard):
        return run
    place = shard_folder(run.parent, shard) / run.name
    take_share(folder, shard, place)
    return place


def of_metrics(frame: pd.DataFrame, metrics: Sequence[str] | None) -> pd.DataFrame:
    """The rows of these metrics. Raises InputError where one is unknown or was not computed."""
    if metrics is None:
        return frame
    names = [metric.name for metric in chosen_metrics(metrics)]
    if lacking := [name for name in names if name not in {*frame["metric"]}]:
        msg = f"{lacking[0]} was not computed; `avbench evaluate --metric {lacking[0]} RUN` computes it"
        raise InputError(msg)
    return frame.loc[frame["metric"].isin(names)].reset_index(drop=True)


def _work(workers: int | None, replace: bool, reporter: Reporter | None, device: str) -> Work:
    devices.require(device)  # before anything is made
    reporter = reporter or Silent()
    note_unusable_metrics(reporter)
    return Work(workers, replace, reporter, device)


def note_unusable_metrics(reporter: Reporter) -> None:
    """Note each metric of an installed package that cannot be used."""
    for sentence in problems().values():
        reporter.note(sentence)


def _list(what: str, clips: Mapping[Key, str], work: Work) -> None:
    """Note the first MOST_LISTED clips with their reasons, and how many more there are."""
    for key, why in [*clips.items()][:MOST_LISTED]:
        work.reporter.note(f"{what}: {key.subset} {key.prompt}-{key.seed}: {why}")
    if len(clips) > MOST_LISTED:
        work.reporter.note(f"{what}: {len(clips) - MOST_LISTED} more")


def _fits(folder: Path, subset: Subset) -> bool:
    """Whether a clip in a folder is named after one of a subset's prompts."""
    return any(map(ClipsFolder(str(folder)).has, sampling.plan([subset], [0])))


def _in_folder(folder: Path, subset: Subset, shard: Shard | None) -> tuple[range, int]:
    """Return the seeds, counted from 0, for which a folder has clips, and how many clips of a shard it lacks."""
    model = ClipsFolder(str(folder))
    seeds = 0
    while seeds < MOST_SEEDS and any(map(model.has, sampling.plan([subset], [seeds]))):
        seeds += 1
    asked = range(max(1, seeds))
    return asked, sum(not model.has(request) for request in sampling.plan([subset], asked, shard))


def _require_no_clips(models: Sequence[str]) -> None:
    """Raise InputError on a folder of finished clips, which must not be scored against the toy prompts by accident."""
    for typed in models:
        _, model = generators.split_name(typed)
        kind, colon, target = model.partition(":")
        folder = Path(target if kind == "clips" else model)
        if folder.is_dir() and (kind == "clips" or (not colon and detect(folder).kind == "clips")):
            place = f"./{folder}" if str(folder).startswith("-") else folder
            msg = (
                f"{typed} is a folder of finished clips: `avbench score {place}` scores it; name a subset or "
                "a prompts file (--subset, --prompts) if the clips were made for its prompts"
            )
            raise InputError(msg)
