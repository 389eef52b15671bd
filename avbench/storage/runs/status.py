"""Reports the progress of a run from the files in its folder, while a command works on it or after one was killed."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from avbench.core import InputError, Key, Sample, counted
from avbench.storage.runs.folder import PROGRESS_FILE, VALUES_FILE, RunFolder, no_run
from avbench.storage.runs.progress import Progress, read_progress
from avbench.storage.runs.row_lines import StoredRow, stored_rows
from avbench.storage.writing import is_being_written, stands_for_a_lock


@dataclass(frozen=True)
class SubsetCount:
    """The clips of one subset."""

    subset: str
    planned: int
    made: int
    failed: int
    refused: int

    @property
    def left(self) -> int:
        """Clips that were not tried yet."""
        return self.planned - self.made - self.failed - self.refused


@dataclass(frozen=True)
class FeatureCount:
    """The rows of one feature under one protocol."""

    feature: str
    """``<feature>@<protocol>``."""
    rows: int
    """Number of rows of clips that the run has. That of a clip that was made again counts until it is measured."""
    without_value: Mapping[str, int]
    """Sentence why a row has no value → how many rows."""


@dataclass(frozen=True)
class Status:
    """The progress of a run."""

    run: str
    """Its folder."""
    model: str
    shard: str | None
    stage: str
    """The stage in progress, or the last one."""
    running: bool
    """Whether a process writes the folder now."""
    subsets: tuple[SubsetCount, ...]
    features: tuple[FeatureCount, ...]
    failures: Mapping[str, int]
    """Sentence why a clip was not made → how many clips, the most frequent first."""
    progress: Progress | None
    """The last command's record, if it left one."""
    peak_memory_mib: float | None
    """The largest peak memory that any process recorded."""
    peak_gpu_memory_mib: float | None
    next: str
    """What the user can do next."""

    @property
    def made(self) -> int:
        """Clips of all subsets."""
        return sum(one.made for one in self.subsets)

    @property
    def planned(self) -> int:
        """Clips of all subsets."""
        return sum(one.planned for one in self.subsets)


def status(folder: RunFolder) -> Status:
    """Read the progress of a run. Clip files are not opened.

    Raises:
        InputError: there is no run in the folder, or one of its files is damaged.
    """
    if not (folder.path / "run.json").is_file():
        raise no_run(folder.path)
    run, samples, progress = folder.run(), folder.samples(), read_progress(folder.path)
    planned = folder.planned_keys()
    counts = tuple(_count(name, planned, samples) for name in run.subsets)
    made = {key for key in planned if key in samples and samples[key].path is not None}
    features = tuple(
        _feature(place.name, stored_rows(place / "rows.jsonl"), made) for place in folder.feature_folders()
    )
    failures = Counter(
        str(one.failure).replace(f"{key.prompt}-{key.seed}", "…") for key, one in samples.items() if one.failure
    )
    running = is_being_written(folder.path)
    stage, following = _stage(folder, run.shard, counts, features, progress if running else None)
    if running:
        left = stands_for_a_lock(folder.path / ".lock")
        following = "nothing: a command works on it" + (f"; {left}" if left else "")
    peaks = [one.peak_memory_mib for one in (*samples.values(), progress) if one and one.peak_memory_mib]
    gpu = [one.peak_gpu_memory_mib for one in samples.values() if one.peak_gpu_memory_mib]
    return Status(
        str(folder.path),
        run.model,
        run.shard,
        stage,
        running,
        counts,
        features,
        dict(failures.most_common()),
        progress,
        max(peaks, default=None),
        max(gpu, default=None),
        following,
    )


def _count(subset: str, planned: list[Key], samples: Mapping[Key, Sample]) -> SubsetCount:
    keys = [key for key in planned if key.subset == subset]
    tried = [samples[key] for key in keys if key in samples]
    made, refused = sum(one.path is not None for one in tried), sum(one.refused for one in tried)
    return SubsetCount(subset, len(keys), made, len(tried) - made - refused, refused)


def _feature(name: str, rows: Mapping[Key, StoredRow], made: set[Key]) -> FeatureCount:
    known = [row for key, row in rows.items() if key in made]
    return FeatureCount(name, len(known), dict(Counter(row.missing for row in known if row.missing).most_common()))


def _stage(
    folder: RunFolder,
    shard: str | None,
    counts: tuple[SubsetCount, ...],
    features: tuple[FeatureCount, ...],
    working: Progress | None,
) -> tuple[str, str]:
    """Return the stage of a run, and the next step if no command works on it."""
    if working is not None and not working.ended:
        return working.stage, ""
    made, lacking = sum(one.made for one in counts), sum(one.left + one.failed for one in counts)
    if lacking:
        again = f"give the command that made the run again: it makes what is missing ({counted(lacking, 'clip')})"
        if not (folder.path / PROGRESS_FILE).exists():  # no command has sampled here: it was merged or downloaded
            again = f"avbench runs merge {folder.typed} PARTS with the parts that have them; or {again}"
        return "sample", again
    if not features:
        return "sampled", f"avbench measure {folder.typed}"
    if shard is None:
        with suppress(InputError):
            folder.require_one_evaluation(VALUES_FILE)
            folder.require_rows_as_scored()
            return "evaluated", f"avbench report {folder.typed} --out report"
    if any(one.rows < made for one in features):
        return (
            "measure",
            f"give the command that measured the run again, or avbench measure {folder.typed} with its --metric",
        )
    if shard is not None:
        return "measured", f"when all shards are there: avbench runs merge OUT {folder.typed} …"
    return "measured", f"avbench evaluate {folder.typed}{_of_earlier_metrics(folder)}"


def _of_earlier_metrics(folder: RunFolder) -> str:
    """The option that names the metrics of an earlier evaluation; empty if there is none that can be read."""
    try:
        return f" --metric {folder.evaluation().metrics}"
    except InputError:
        return ""
