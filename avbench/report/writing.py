"""Writes a report's folder: tables, differences and the page with its clips."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from avbench.comparison import votes as ballots
from avbench.comparison.score_table import over_motion
from avbench.core import csv_text
from avbench.report import printed, tables, vbench
from avbench.report.folder import locked
from avbench.report.page import clips, explain, page
from avbench.storage.runs.folder import RunFolder
from avbench.storage.writing import write_json, write_whole

LARGE_PAGE_BYTES = 150_000_000
"""A page above this size opens slowly; the user is advised to keep the clips beside it."""


@dataclass(frozen=True)
class PageOptions:
    """Options of the page."""

    media: str = "inside"
    """Where clips are stored: ``inside`` the page, or ``beside`` it in ``media/``."""
    flow: bool = False
    """Whether the clips are shown with their optical flow as well."""
    explain: Sequence[str] = ()
    """Metrics whose explanations are shown with the clips; see `page.explain`."""
    votes: Sequence[Path] = ()
    """Votes that earlier pages exported."""
    workers: int = 0
    """Processes that encode the clips; 0 means this one."""


def write_report(
    runs: Sequence[RunFolder],
    frame: pd.DataFrame,
    differences: pd.DataFrame,
    limits: Sequence[str],
    out: Path,
    options: PageOptions,
    *,
    follow: Callable[[str, int, Iterator[object]], None],
    note: Callable[[str], None],
) -> Path:
    """Write table.md, .csv and .parquet, differences.csv, over_motion.csv, printed.* and report.html.

    Args:
        runs: the runs, under different names.
        frame: their `leaderboard.leaderboard`.
        differences: their `differences.differences`.
        limits: their `clip_remarks.remarks`.
        out: the folder.
        options: what the page shows.
        follow: takes the items of a long job and shows progress; gets the job's name, the number of items, and the
            items.
        note: takes a sentence for the user.

    Returns:
        The page.

    Raises:
        InputError: something cannot be written, a vote cannot be read, or a metric cannot be explained.
    """
    asked = explain.explained(options.explain, set(frame["metric"]), flow=options.flow)
    voted = ballots.read(options.votes) if options.votes else None
    papers = printed.sections(runs)
    waiting = f"another avbench writes its report to {out}; waiting for it"
    with locked(out, lambda: note(waiting)):
        others = [([one.table], one.legend) for one in papers]
        if totals := [*vbench.totals(frame)]:
            others.insert(0, (totals, vbench.LEGEND))
        beside = "".join(f"\n{tables.set_as_markdown(found, legend)}" for found, legend in others)
        write_whole(out / "table.md", (tables.markdown(frame) + beside).encode())
        if papers:
            write_whole(out / "printed.csv", csv_text(printed.frame(papers)).encode())
            write_json(out / "printed.json", [one.to_json() for one in papers])
        else:  # of an earlier report
            for name in ("printed.csv", "printed.json"):
                (out / name).unlink(missing_ok=True)
        write_whole(out / "table.csv", csv_text(frame).encode())
        write_whole(out / "table.parquet", frame.to_parquet(index=False))
        write_whole(out / "differences.csv", csv_text(differences).encode())
        over = over_motion(runs)
        write_whole(out / "over_motion.csv", csv_text(over).encode())
        count, made = clips.prepare(runs, out / "media", pictures=asked.pictures, workers=options.workers)
        follow("page: clips", count, made)
        html = page.render(
            runs,
            frame,
            over,
            out / "media",
            differences=differences,
            media=options.media,
            explained=asked,
            votes=voted,
            limits=limits,
        )
        write_whole(out / "report.html", html.encode())
    if options.media == "inside" and len(html) > LARGE_PAGE_BYTES:
        note(f"the page has {len(html) / 1e6:.0f} MB; --media beside keeps the clips out of it")
    return out / "report.html"
