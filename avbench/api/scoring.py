"""Scores folders of finished clips."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from avbench.api.choices import fetching, named_folders, paths_of, require_kinds, shard_folder
from avbench.api.references import chosen_reference, real_clips_in
from avbench.api.results import Comparison
from avbench.api.walk import Walk
from avbench.api.work import Reporter, SamplingJob, work_of
from avbench.comparison.plan import Plan
from avbench.core import Key, Rate, Shard, Subset, all_of, frame_rate
from avbench.features.requirements import reads_captions, require_ready, require_reference_clips
from avbench.generation import sample as sampling
from avbench.generation.providers.clips import ClipsFolder
from avbench.metrics.columns import Wanted, wanted_metrics
from avbench.metrics.evaluate import features_of
from avbench.metrics.table import Metric
from avbench.storage.media.clips_of_prompts import MOST_SEEDS
from avbench.storage.mirrors.mirror import Mirrors
from avbench.storage.runs.folder import RunFolder
from avbench.storage.workers.ray_actors import RayActors
from avbench.subsets.from_folders import Paired, paired
from avbench.subsets.seeds_in_names import seeds_note


def score(
    folders: str | Path | Mapping[str, str | Path] | Sequence[str | Path],
    *,
    reference: str | Path | None = None,
    prompts: str | Path | None = None,
    fps: Rate | None = None,
    metrics: str | Sequence[str] | None = None,
    columns: str | None = None,
    fetch: bool | str | Sequence[str] = False,
    out: str | Path = "runs/score",
    plan: Plan | None = None,
    workers: int | RayActors | None = None,
    device: str = "auto",
    precision: str | None = None,
    replace: bool = False,
    reporter: Reporter | None = None,
    shard: str | None = None,
    mirror: str | None = None,
) -> Comparison:
    """Score folders of finished clips, and compare each with the first.

    Clips of several folders are paired by file name, or by the prompts that they were made for.

    Args:
        folders: one folder or several; ``{"name": folder}`` or ``"name=folder"`` gives a model another name than its
            folder's.
        reference: a folder of real clips, or a reference folder (`avbench reference build`), for distances such as FVD.
        fps: the frame rate of folders of numbered frames, such as 25 or ``30000/1001``; without it they are no clips.
        prompts: a prompts file; if None, one inside or beside a folder is used if it names the clips.
        metrics: their names; the default metrics where neither they nor columns are given.
        columns: a preset of columns, such as ``t2av`` (`metrics/columns.py`); metrics of it that lack weights are left
            out.
        fetch: whether missing weights are downloaded; the short names of licences that you accept, where weights ask
            for that.
        out: folder that gets one run folder per model. The same call again measures what is new, and clips that have
            changed, which a note counts. What an earlier call computed there is in the result, too, and its reference
            is used if none is given, which a note says.
        plan: primary questions and margins.
        workers: processes; one per core where not given. Or ``avbench.RayActors(…)``, on this machine or a cluster.
        device: where networks measure: ``auto`` (the GPUs where there are any, else the CPU), ``cpu``, ``cuda`` or
            ``cuda:0,1``. Numbers agree within the tolerances of docs/speed.md.
        precision: of I3D and LPIPS, ``fp32`` or ``bf16``, whose numbers differ and are never compared; None keeps that
            of the run's rows, or takes ``fp32``.
        replace: start again where a run folder holds clips of another folder; take clips out that are gone. Otherwise
            these are errors.
        reporter: where messages and progress go.
        shard: ``i/n``: only this part of the clips, in a folder of its own below `out` (see `shard_folder`).
        mirror: an address of object storage, such as ``s3://bucket/runs``, that gets a copy of each run folder while
            it is written (docs/scale.md). A run that another machine began there is continued.

    Raises:
        InputError: a folder holds no clips, or another argument is wrong.
    """
    require_kinds(reference=reference, prompts=prompts, columns=columns, out=out, plan=plan)
    require_kinds(precision=precision, shard=shard, mirror=mirror)
    paths_of(out, "out", "give the path of a folder")
    part = None if shard is None else Shard.parse(shard)
    mirrors = None if mirror is None else Mirrors(Path(out), mirror)
    work = work_of(workers, replace, reporter, device, precision, mirrors)
    named = named_folders(folders)
    found = paired([*named.values()], None if prompts is None else Path(prompts), _fits, frames=fps is not None)
    by_file = found.prompts_file is None
    settings: dict[str, Any] = {"by_file": True} if by_file else {}
    if fps is not None:
        exact = frame_rate(fps)  # which raises InputError
        settings["fps"] = fps if isinstance(fps, int | float | str) else str(exact)  # it is recorded
    if reference is not None:
        real_clips_in(Path(reference), frames=fps is not None)
    chosen = wanted_metrics(Wanted(metrics, columns, fetch=fetching(fetch, work)), work.reporter.note)
    require_ready(features_of(chosen))
    require_reference_clips(features_of(chosen))
    for note in _pairing(found, chosen, given=prompts is not None):
        work.reporter.note(note)
    place = shard_folder(Path(out), part)
    earlier = [RunFolder(place / name) for name in named]
    real, typed = chosen_reference(reference, chosen, work, earlier, [found.subset], settings.get("fps"))
    walk = Walk(chosen, real, typed, work)
    for name, folder in named.items():
        seeds, lacking = _in_folder(folder, found.subset, part, by_file=by_file)
        job = SamplingJob([found.subset], seeds, settings, shard=part, renew=True)
        walk.take(place / name, f"clips:{folder}", job, noted=lacking if by_file and found.apart else ())
        walk.failed -= len(lacking)
    return walk.compared(plan=plan)


def _pairing(found: Paired, metrics: Sequence[Metric], *, given: bool) -> Iterator[str]:
    """Sentences on how clips found their prompts and partners; `given` is whether --prompts named the file."""
    if found.prompts_file:
        if not given:
            yield f"the prompts are those of {found.prompts_file}"
        return
    if found.unfit:
        yield (
            f"{found.unfit} is not used, because no clip is named after one of its prompts, as <id>.mp4 or "
            "<caption>-<seed>.mp4; a field `file` in it can name the path of each prompt's clip instead"
        )
    if reading := [one.name for one in metrics if any(map(reads_captions, features_of([one])))]:
        first = found.subset.prompts[0].video_caption
        yield (
            f"there is no prompts file, so file names are the captions of {all_of(reading)}, for example {first!r}; "
            "prompts (--prompts FILE) names the captions"
        )
    if found.apart:
        one, other = found.apart
        yield (
            f"the first folder has no name in common with another, for example {one} and {other}, so its clips have no "
            "partners; a name is a clip's path below its folder, without suffix"
        )
    if seeds := seeds_note([prompt.video_caption for prompt in found.subset.prompts]):
        yield seeds


def _fits(folder: Path, subset: Subset) -> bool:
    """Whether a clip in a folder is named after one of a subset's prompts."""
    return any(map(ClipsFolder(str(folder)).has, sampling.plan([subset], [0], finished=True)))


def _in_folder(folder: Path, subset: Subset, shard: Shard | None, *, by_file: bool) -> tuple[range, set[Key]]:
    """Return the seeds, counted from 0, for which a folder has clips, and the clips of a shard that it lacks."""
    model = ClipsFolder(str(folder), by_file=by_file)
    seeds = 0
    while seeds < MOST_SEEDS and any(map(model.has, sampling.plan([subset], [seeds], finished=True))):
        seeds += 1
    asked = range(max(1, seeds))
    planned = sampling.plan([subset], asked, shard, finished=True)
    return asked, {request.key for request in planned if not model.has(request)}
