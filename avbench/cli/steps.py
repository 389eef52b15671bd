"""What several commands do: sample, measure and evaluate a run, and write a report."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.cli.printing import (
    list_clips,
    print_printed,
    print_protocols,
    print_tables,
    refuse,
    say,
    show_progress,
    terminal,
)

if TYPE_CHECKING:
    from avbench.comparison.paper_presets import Preset
    from avbench.core import Subset
    from avbench.features.measure import Task
    from avbench.metrics.table import Metric
    from avbench.storage.run_folder import RunFolder

LARGE_PAGE_BYTES = 150_000_000
"""Above it a page opens slowly, and the user is told of --media beside."""


def sample_run(
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
    from avbench.generation import sample as stage
    from avbench.storage.run_folder import RunFolder

    folder = RunFolder(place)
    with folder.writing():
        count, made, remarks = stage.sample(
            folder, model, settings, subsets, seeds, workers=worker_count(workers), preset=preset, replace=replace
        )
        for remark in remarks:
            say(f"note: {remark}", err=True)
        show_progress(f"{place.name}: sample", count, made)
    samples = folder.samples().values()
    if unlike := [one for one in samples if one.spec_mismatch]:
        first = f"for example {unlike[0].key.prompt}: {unlike[0].spec_mismatch}"
        say(
            f"note: {len(unlike)} of {len(samples)} clips are not of the form that their subset asks for ({first}); "
            "they are kept as they are, and brought to it where they are measured",
            err=True,
        )
    if remarked := [one for one in samples if one.remark]:
        first = f"for example {remarked[0].key.prompt}: {remarked[0].remark}"
        say(
            f"note: {len(remarked)} of {len(samples)} clips were read with a remark ({first}); "
            f"{place}/samples.jsonl has them all",
            err=True,
        )
    if refused := sum(one.refused for one in samples):
        say(f"note: {refused} clips were refused by the model; {place}/samples.jsonl says why", err=True)
    failed = [one for one in samples if one.failure and not one.refused]
    list_clips("not made", {one.key: str(one.failure) for one in failed})
    return len(failed)


def named_metrics(
    names: Sequence[str] | None, fvd_protocols: Sequence[str] | None, preset: "Preset | None" = None
) -> list["Metric"]:
    """The metrics that were named, a preset's, or the usual ones; and those of FVD protocols."""
    from avbench.metrics.evaluate import chosen_metrics, fvd_metrics

    chosen = preset.metrics()[0] if preset and not names else chosen_metrics(names)
    return chosen_metrics([*(metric.name for metric in chosen), *fvd_metrics(fvd_protocols or ())])


def measure_run(
    place: "Path | RunFolder", metrics: Sequence["Metric"], workers: int | None, against: Path | None = None
) -> int:
    """Measure a run; returns how many clips its workers died of, which are named."""
    from avbench.features.measure import CRASHED
    from avbench.features.measure import measure as stage
    from avbench.metrics.evaluate import features_of

    folder = opened_run(place, reads_clips=True)
    beside = None if against is None else opened_run(against, reads_clips=True)
    lost: dict[Any, tuple[str, ...]] = {}

    def noted(tasks: "Iterable[Task]") -> "Iterator[Task]":
        for task in tasks:
            lost.update({one.key: task.died for one in task.samples if task.died})
            yield task

    with folder.writing():
        count, tasks = stage(folder, features_of(metrics), workers=worker_count(workers), against=beside)
        show_progress(f"{folder.path.name}: measure", count, noted(tasks))
    list_clips("not measured", {key: f"{', '.join(features)}: {CRASHED}" for key, features in lost.items()})
    return len(lost)


def evaluate_run(
    place: "Path | RunFolder", metrics: Sequence["Metric"], reference: Path | None, against: Path | None
) -> None:
    """Score a measured run folder."""
    from avbench.metrics.evaluate import evaluate as stage

    folder = opened_run(place, reads_clips=True)
    beside = None if against is None else opened_run(against, reads_clips=True)
    with folder.writing():
        stage(folder, metrics, place=reference, against=beside)


def require_numbers(folders: Sequence[Path]) -> None:
    """End with exit code 1 where the scores of these runs hold no number at all."""
    scores = [score for place in folders for score in opened_run(place).scores()[0]]
    if all(score.value is None for score in scores):
        refuse(f"nothing was measured, for example {scores[0].metric}: {scores[0].missing}", code=1)


def write_report(
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
    metrics: Sequence[str] | None = None,
) -> None:
    """Write the tables and the page of run folders, and print the tables."""
    from avbench.comparison import votes as ballots
    from avbench.comparison.differences import differences
    from avbench.comparison.leaderboard import leaderboard
    from avbench.comparison.plan import read
    from avbench.comparison.score_table import over_motion
    from avbench.core import csv_text
    from avbench.metrics.evaluate import fvd_metrics
    from avbench.report import boards, printed, tables
    from avbench.report import folder as place
    from avbench.report.page import clips, page
    from avbench.storage.run_folder import write_json, write_whole

    folders = [opened_run(path, reads_clips=True) for path in runs]
    frame = leaderboard(folders, allow=allow, metrics=metrics)
    found = differences(folders, pairs=pairs, plan=read(plan), place=reference, allow=allow, metrics=metrics)
    papers = printed.sections(folders)
    waiting = functools.partial(say, f"note: another avbench writes its report to {out}; waiting for it", err=True)
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
        count, made = clips.prepare(folders, out / "media", flow=flow, workers=worker_count(workers))
        show_progress("page: clips", count, made)
        voted = ballots.read(votes) if votes else None
        html = page.render(folders, frame, over, out / "media", found, media=media, flow=flow, votes=voted)
        write_whole(out / "report.html", html.encode())
        if media == "inside" and len(html) > LARGE_PAGE_BYTES:
            say(f"note: the page has {len(html) / 1e6:.0f} MB; --media beside keeps the clips out of it", err=True)
    others = fvd_metrics([name for name in fvd_protocols or () if name != "avbench"])
    shown = frame[(frame["metric"] == "fvd") | ~frame["metric"].isin(others)]
    terminal().print(tables.console(shown, terminal().width))
    if len(found):
        print_tables(boards.difference_tables(found), boards.DIFFERENCES_LEGEND, "console")
    if others:
        print_protocols(frame, fvd_protocols or ())
    print_printed(papers, "console")
    say(f"tables: {out}/table.md, .csv, .parquet, differences.csv   page: {out}/report.html")


def chosen_subsets(
    names: Sequence[str] | None, prompts: Path | None, views: Sequence[str] | None, limit: int | None
) -> list["Subset"]:
    """The subsets that options ask for, or the toy subsets."""
    from avbench.subsets.loading import TOY_SUBSETS, from_prompts_file, load, viewed

    if names and prompts:
        refuse("give --subset or --prompts, not both")
    found = [from_prompts_file(prompts)] if prompts else [load(name) for name in names or TOY_SUBSETS]
    for view in views or ():
        found = [viewed(one, view) for one in found]
    return [one.limited(limit) for one in found]


def named_run(out: Path, model: str) -> tuple[Path, str]:
    """The folder of a model's run, and the model without the name that stood before it, ``name=model``."""
    from avbench.generation.table import run_name, split_name

    name, rest = split_name(model)
    return out / (name or run_name(rest)), rest


def opened_run(place: "Path | RunFolder", *, reads_clips: bool = False) -> "RunFolder":
    """A run folder whose clips are those that were sampled.

    Where `reads_clips`, that some are no longer there is said, once a run; compared numbers need no clips.
    """
    from avbench.storage.content import counted, require_unchanged
    from avbench.storage.run_folder import RunFolder

    if isinstance(place, Path) and not (place / "run.json").is_file():
        refuse(f"{place} is not a run folder: it has no run.json")
    folder = RunFolder(place) if isinstance(place, Path) else place
    gone = require_unchanged(folder)
    if gone and reads_clips and folder.path not in SAID_GONE:
        SAID_GONE.add(folder.path)
        first = folder.path / str(gone[0].path)
        say(
            f"note: {counted(gone, folder)} no longer there (for example {first}); what was measured of them is kept",
            err=True,
        )
    return folder


SAID_GONE: set[Path] = set()


def parsed_settings(settings: Iterable[str]) -> dict[str, Any]:
    """``name=value`` pairs; a value is read as JSON where it is JSON, else kept as text."""
    from avbench.core import InputError
    from avbench.storage import reading

    parsed = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            refuse(f"-M {setting!r}: write name=value")
        try:
            parsed[name] = reading.parsed(value.encode(errors="surrogateescape"), f"-M {name}")
        except InputError:
            parsed[name] = value
    return parsed


def worker_count(asked: int | None) -> int:
    """How many processes: as asked, or one per core."""
    from avbench.storage.worker_pool import default_workers

    return asked or default_workers()
