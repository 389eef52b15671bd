"""Runs one stage on one run and reports it: sample, open, measure, evaluate."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from avbench.api.work import SamplingJob, Work
from avbench.comparison.early_looks import MeasuredSoFar, early_look, looking
from avbench.core import Key, MediaError, Sample, Score, all_of, clip_name, counted, lacking
from avbench.features import devices
from avbench.features.measure import measure as measure_clips
from avbench.features.measure import measure_as_made
from avbench.features.requirements import needs_sound
from avbench.generation import sample as sampling
from avbench.metrics.evaluate import evaluate, features_of, worth_measuring
from avbench.metrics.kept import scores_so_far
from avbench.metrics.table import Metric
from avbench.storage.media import has_sound
from avbench.storage.mirrors.mirror import Mirror
from avbench.storage.runs.clips import clips_are
from avbench.storage.runs.features_cache import from_environment
from avbench.storage.runs.folder import RunFolder
from avbench.storage.runs.progress import recorded
from avbench.storage.runs.view import RunView
from avbench.storage.workers.gpu import free_memory
from avbench.storage.workers.worker_pool import alongside

LOOKED_AT = 20
"""So many clips are looked at to find out whether clips have sound."""
MOST_LISTED = 5
"""A note names at most so many clips and counts the others."""


def sampled(
    path: Path,
    model: str,
    asked: SamplingJob,
    work: Work,
    noted: Container[Key] = (),
    measuring: Callable[[RunFolder, int], AbstractContextManager[None]] | None = None,
) -> tuple[RunView, int]:
    """Make the clips of a model; return the run and how many clips failed, without those that the model refused.

    Failures of the clips `noted` get no note, because another note says why they fail. Processes that sampling leaves
    idle do the `measuring` (see `measured_as_made`).
    """
    folder = RunFolder(path, asked.placed_by)
    with _writing(folder, work) as mirror:
        count, made, remarks = sampling.sample(
            folder,
            model,
            asked.settings,
            asked.subsets,
            asked.seeds,
            workers=work.pool,
            preset=asked.preset,
            replace=work.replace,
            renew=asked.renew,
            shard=asked.shard,
            mirror=mirror,
            meanwhile=functools.partial(measuring, folder) if measuring else None,
        )
        work.reporter.begun(path)
        for remark in remarks:
            work.reporter.note(remark)
        work.reporter.follow(f"{folder.name}: sample", count, recorded(path, "sample", count, made))
    free_memory()  # of the model, for the processes that measure and for the next model
    view = opened(path, work)
    samples = view.samples().values()
    for note in sampling_remarks(samples, path):
        work.reporter.note(note)
    if refused := sum(one.refused for one in samples):
        work.reporter.note(f"the model refused {counted(refused, 'clip')}; {path}/samples.jsonl says why")
    failed = {one.key: one.failure for one in samples if one.failure and not one.refused}
    new = {key: why for key, why in failed.items() if key not in noted}
    for what in dict.fromkeys(lacking(model, why) for why in new.values()):
        _list(what, {key: why for key, why in new.items() if lacking(model, why) == what}, view, work)
    return view, len(failed)


def sampling_remarks(samples: Collection[Sample], run: Path | None) -> Iterator[str]:
    """Sentences on clips that have another form than their clip spec's, or were read with a remark.

    `run` is the folder in which all remarks can be read, if it stays.
    """
    total = counted(len(samples), "clip")
    if other := [one for one in samples if one.spec_mismatch]:
        first = f"for example {other[0].key.prompt}: {other[0].spec_mismatch}"
        yield (
            f"not in the form of the clip spec: {len(other)} of {total} ({first}); the files stay as they are, and are "
            "conformed to the clip spec while they are measured"
        )
    if remarked := [one for one in samples if one.remark]:
        first = f"for example {remarked[0].key.prompt}: {remarked[0].remark}"
        where = f"; {run}/samples.jsonl has all" if run else ""
        yield f"read with a remark: {len(remarked)} of {total} ({first}){where}"


def opened(path: str | Path, work: Work, *, reads_clips: bool = True) -> RunView:
    """Open a run folder and note clips whose files are gone, if clips will be read; their measured rows are kept.

    Raises:
        InputError: the folder holds no run, or a clip file was changed since it was sampled.
    """
    view = RunView(Path(path))
    if view.gone and reads_clips:
        first = view.path / str(view.gone[0].path)
        work.reporter.note(
            f"{clips_are(view.gone, view)} no longer there (for example {first}); what was measured of them is kept"
        )
    return view


def measurable(view: RunView, metrics: Sequence[Metric], reference: Path | None, work: Work) -> list[Metric]:
    """The metrics for which a run's clips are worth measuring; a note says at once which of them will have no value.

    Without a reference, clips are not measured for metrics that compare with real clips. Metrics of sound stay for
    clips without sound: those cost nothing, and each gets the reason that it has no value.
    """
    kept = worth_measuring(view, metrics, reference)
    if idle := [one.name for one in metrics if one not in kept]:
        work.reporter.note(
            f"not measured, for lack of real clips to compare with: {all_of(idle)}; "
            "give a folder of them by reference (--reference FOLDER)"
        )
    hearing = [one.name for one in kept if any(map(needs_sound, features_of([one])))]
    if hearing and (silent := _without_sound(view)):
        work.reporter.note(f"{silent} of {view.name} have no sound, so {all_of(hearing)} will have no value")
    return kept


def _without_sound(view: RunView) -> str | None:
    """Which clips have no sound, in words, if all of the first LOOKED_AT that can be read have none; else None."""
    places = [view.path / str(one.path) for one in view.samples().values() if one.path is not None]
    heard = []
    for place in places[:LOOKED_AT]:
        with suppress(MediaError):
            heard.append(has_sound(place))
    if not heard or any(heard):
        return None
    return "the clips" if len(places) <= LOOKED_AT else f"the first {LOOKED_AT} clips"


def measured(
    view: RunFolder,
    metrics: Sequence[Metric],
    work: Work,
    against: RunFolder | None = None,
    look: Callable[[], str | None] | None = None,
    others: Sequence[RunFolder] = (),
) -> int:
    """Measure what these metrics need of a run, note each clip for which that failed, and return how many they are.

    Values that the runs `others` have of equal clips are taken over. `look` returns a preliminary verdict; it is called
    now and then, and the reporter gets its sentence.
    """
    lost: dict[Key, Mapping[str, str]] = {}
    by_cpu: Counter[str] = Counter()
    gpus = {work.device} - {devices.AUTO, devices.CPU}

    def noting(tasks: Iterable[Any]) -> Iterator[Any]:
        for task in tasks:
            lost.update({one.key: task.failed for one in task.samples if task.failed})
            by_cpu.update({one: len(task.samples) for one, gpu in task.networks.items() if not gpu})
            gpus.update(filter(None, task.networks.values()))
            yield task

    with _writing(view, work) as mirror:
        how = {"workers": work.pool, "device": work.device, "precision": work.precision, "mirror": mirror}
        count, tasks = measure_clips(view, features_of(metrics), against=against, others=others, **how)
        if count and work.precision == "bf16" and (sentence := _slow(work)):
            work.reporter.note(sentence)
        noted = noting(recorded(view.path, "measure", count, tasks))
        shown = looking(noted, look, work.reporter.preliminary) if look else noted
        work.reporter.follow(f"{view.name}: measure", count, shown)
    if by_cpu and gpus and isinstance(work.pool, int):  # Ray's machines may have none
        listed = ", ".join(f"{feature} of {counted(number, 'clip')}" for feature, number in by_cpu.items())
        work.reporter.note(
            f"{view.name}: the GPU's memory was full, so the CPU measured {listed}; fewer workers (--workers) need less"
        )
    _list("not measured", {key: _reasons(failed) for key, failed in lost.items()}, view, work)
    return len(lost)


@contextmanager
def measured_as_made(
    run: RunFolder,
    workers: int,
    *,
    metrics: Sequence[Metric],
    reference: Path | None,
    work: Work,
    against: RunFolder | None = None,
    others: Sequence[RunFolder] = (),
) -> Iterator[None]:
    """Measure clips of a run while the block makes them; `measured` does the rest, and reports what goes wrong.

    Only where the CPU measures: a model may need all the memory of the GPUs.
    """
    if devices.resolve(work.device) != (devices.CPU,):
        yield
        return
    features = features_of(worth_measuring(run, metrics, reference))
    run = RunFolder(run.path.absolute())  # while a model's code runs, the working folder may be another one
    how = {"against": against, "precision": work.precision, "others": others, "cache": from_environment()}
    with alongside(functools.partial(measure_as_made, folder=run, features=features, **how), workers):
        yield


def _slow(work: Work) -> str | None:
    """A sentence where this machine's CPU measures, and is slower in bfloat16; of Ray's machines nothing is known."""
    if not isinstance(work.workers, int | None) or devices.resolve(work.device) != (devices.CPU,):
        return None
    return devices.slow_in_bfloat16()


def _reasons(failed: Mapping[str, str]) -> str:
    """``i3d, flow: the reason``"""
    of_reason: dict[str, list[str]] = {}
    for feature, reason in failed.items():
        of_reason.setdefault(reason, []).append(feature)
    return "; ".join(f"{', '.join(features)}: {reason}" for reason, features in of_reason.items())


def evaluated(
    view: RunFolder,
    metrics: Sequence[Metric],
    reference: Path | None = None,
    against: RunFolder | None = None,
    work: Work | None = None,
    given: str | Path | None = None,
) -> list[Score]:
    """Score a measured run, with its folder locked for other avbench processes.

    Numbers of other metrics that change, or are not computed again, are noted. `given` is what the user gave, if
    `reference` was built of it.
    """
    work = work or Work()
    with _writing(view, work):
        before = scores_so_far(view)
        if not before and (view.path / "scores.json").exists():
            work.reporter.note(
                f"{view.path}/scores.json cannot be read, so its other metrics and its reference are not kept; name "
                "them by metrics (--metric) and reference (--reference)"
            )
        how = {"place": reference, "against": against, "given": given}
        found = evaluate(view, metrics, **how, note=lambda sentence: work.reporter.note(f"{view.path}: {sentence}"))
    asked = {metric.name for metric in metrics}
    for sentence in _changed([one for one in before if one.metric not in asked], found):
        work.reporter.note(f"{view.path}: {sentence}")
    return found


def _changed(before: Iterable[Score], after: Iterable[Score]) -> Iterator[str]:
    """What became of numbers that an evaluation computed again, where it is another."""
    now = {one.where: one for one in after}
    for one in before:
        new = now.get(one.where)
        if one.value is None or new is None:
            continue
        if new.value is not None and math.isclose(one.value, new.value, rel_tol=1e-6):
            continue
        became = f"has no value now: {new.missing}" if new.value is None else f"is {new.value:.4g} now"
        yield f"{one.metric} of {one.subset} was {one.value:.4g} and {became}"


@contextmanager
def _writing(folder: RunFolder, work: Work) -> Iterator[Mirror | None]:
    """Lock a run folder, and keep its mirror up to date while the block writes it."""
    mirror = None if work.mirrors is None else work.mirrors.of(folder.path)
    lost = functools.partial(work.lose_mirror, folder.path)
    with folder.writing(), mirror.kept(lost) if mirror else nullcontext():
        if isinstance(folder, RunView):
            folder.forget()  # another command may have written since it was read
        if mirror and mirror.damage:
            work.reporter.note(mirror.damage)
        yield mirror


def early_look_at(
    first: RunFolder, run: RunFolder, metrics: Sequence[Metric], place: Path | None
) -> Callable[[], str | None]:
    """A function that compares a run, as far as it is measured, with the first one, which is finished."""

    @functools.cache
    def finished() -> MeasuredSoFar:
        return MeasuredSoFar(first.path, metrics, place)

    return lambda: early_look(MeasuredSoFar(run.path, metrics, place), finished())


def _list(what: str, clips: Mapping[Key, str], run: RunFolder, work: Work) -> None:
    """Note the first MOST_LISTED clips with their reasons, and how many more there are.

    Each note names the run: an equal note on another run would not be printed.
    """
    for key, why in sorted(clips.items())[:MOST_LISTED]:
        work.reporter.note(f"{what} in {run.name}: {key.subset} {clip_name(key, run.run().seeds)}: {why}")
    if len(clips) > MOST_LISTED:
        work.reporter.note(f"{what} in {run.name}: {counted(len(clips) - MOST_LISTED, 'more clip')}")
