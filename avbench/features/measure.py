"""Measures the clips of a run: each is decoded once, for every feature that has no current row of it.

A row is current as long as the bytes of the clips it was computed from and its feature's protocol stay the same; both
are checked. Equal clips, such as those of a prompt that two subsets share or of two models, are measured once. Most
features take one clip. Some also take its prompt, or the reference clip of its prompt, which another run holds under
the same key, or the prompt's clips under other seeds. A clip that does not have the form its subset asks for is
conformed while it is decoded, and its rows belong to its bytes under that conversion.
"""

import dataclasses
import functools
import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from avbench.core import InputError, Protocol, Row, Sample, digest
from avbench.features import devices
from avbench.features.current import Forms, current_keys
from avbench.features.protocols import forms_asked_for, forms_of, protocol_in
from avbench.features.requirements import require_ready, requires
from avbench.features.table import Requires, feature_class
from avbench.features.worker import Task, as_rows, each_alone, hashes_of, worker
from avbench.storage.mirrors.mirror import Mirror, Place
from avbench.storage.runs import features_cache
from avbench.storage.runs.clips import clips_are, require_unchanged
from avbench.storage.runs.features_cache import FeaturesCache
from avbench.storage.runs.folder import RunFolder
from avbench.storage.runs.other_runs import OtherRuns
from avbench.storage.runs.retried import TRIED_AGAIN, is_the_machines
from avbench.storage.workers import worker_pool

_BEGINS_SECONDS = 5.0
"""Before the first look for new clips of a run that is being sampled. What ends sooner need not load the networks."""
_LOOKS_SECONDS = 1.0
"""The least time between two looks."""
_PAUSES = 10
"""A pause is at least so many times as long as the look before it, which reads the lines of all clips and rows."""


def measure(
    folder: RunFolder,
    features: Sequence[str],
    *,
    workers: int | worker_pool.Pool = 0,
    against: RunFolder | None = None,
    device: str = devices.CPU,
    precision: str | None = None,
    mirror: Mirror | None = None,
    others: Sequence[RunFolder] = (),
    again: bool = True,
    cache: FeaturesCache | None = None,
) -> tuple[int, Iterator[Task]]:
    """Measure what has no current rows. If a worker crashes, the clip loses one feature's values and nothing else.

    Values that the features cache has are taken from it, where one is asked for.

    Args:
        folder: the run.
        features: their ids.
        workers: processes, or 0 for this one; or another pool of workers. Each has its own networks, on the GPU too.
        against: the run that holds the reference clips.
        device: where networks run (see `devices.resolve`).
        precision: of the networks that can compute in bfloat16 (see `protocol_in`).
        mirror: of the folder, from which workers take clips that do not see the folder.
        others: runs whose values of equal clips are taken over.
        again: whether what went wrong before is tried again.
        cache: the features cache; that of the environment, if there is one, where not given.

    Returns:
        The number of tasks, most of one clip each, and an iterator that does them and yields each when its rows are
        written.

    Raises:
        InputError: an unknown feature, missing weights or packages, a clip that was changed since it was sampled, one
            that is to be measured and no longer exists, or rows of another precision.
    """
    require_ready(features)
    if isinstance(workers, int):
        devices.require(device)
    pool = worker_pool.LocalPool(workers) if isinstance(workers, int) else workers
    gone = {place.path: require_unchanged(place) for place in (folder, against) if place is not None}
    protocols = {feature: protocol_in(folder, feature, against, precision) for feature in features}
    todo = _tasks(folder, features, against, without=TRIED_AGAIN if again else ())
    _require_there(folder, [one for task in todo for one in task.samples], gone)
    if against is not None:
        _require_there(against, [task.compared_with for task in todo], gone)
    cache = cache or features_cache.from_environment()

    def work() -> Iterator[Task]:
        networks = {one for one in features if getattr(feature_class(one), "on_gpu", False)}
        half = {one for one, protocol in protocols.items() if getattr(protocol, "precision", "") == devices.BFLOAT16}
        # of all subsets, as workers that stay keep them, and later clips may have other forms
        forms = forms_asked_for(folder), forms_of(against) if against else {}
        places = Place(folder.path) if mirror is None else mirror.place(), Place(against.path) if against else None
        build = functools.partial(worker, places, forms, device, half)
        waiting: dict[str, list[Task]] = {}
        sources = [*([cache] if cache else []), *([_of_others(others, todo, forms)] if others else [])]
        for task in todo:
            rows, rest = _known(sources, task, protocols, forms)
            for feature, row in rows:
                folder.add_row(protocols[feature], row)
            if rest.features:
                waiting.setdefault(_input_of(rest, forms), []).append(rest)
            else:
                yield rest
        firsts = [alike[0] for alike in waiting.values()]
        for task, found in pool.map_unordered(build, firsts):
            crashed = isinstance(found, worker_pool.WorkerCrashed)
            rows = each_alone(functools.partial(pool.run_isolated, build), task, found, forms) if crashed else found
            failed = {feature: row.missing for feature, row in rows if is_the_machines(row.missing)}
            by = {feature: row.gpu for feature, row in rows if feature in networks and row.values is not None}
            for feature, row in rows:
                if cache and row.values is not None:
                    cache.keep(protocols[feature], _cached_as(feature, task, row.clip_sha256), row.values, row.gpu)
            for each in waiting[_input_of(task, forms)]:
                keys = dict(zip((one.key for one in task.samples), (one.key for one in each.samples), strict=True))
                for feature, row in rows:
                    folder.add_row(protocols[feature], dataclasses.replace(row, key=keys[row.key]))
                yield dataclasses.replace(each, failed=failed, networks=by)

    return len(todo), work()


def measure_as_made(
    pool: worker_pool.Pool,
    stopped: threading.Event,
    folder: RunFolder,
    features: Sequence[str],
    *,
    against: RunFolder | None = None,
    precision: str | None = None,
    others: Sequence[RunFolder] = (),
    cache: FeaturesCache | None = None,
) -> None:
    """Measure on the CPU what a run has of clips, again and again while another thread makes them, until `stopped`.

    Features of all clips of a prompt together are left for later, and so is what went wrong. Equal clips that were not
    there at the same look are each measured. For the other arguments and errors see `measure`.
    """
    alone = [one for one in features if requires(one) is not Requires.SEEDS]
    look = functools.partial(
        measure,
        folder,
        alone,
        workers=pool,
        against=against,
        precision=precision,
        others=others,
        again=False,
        cache=cache,
    )
    made, seen, pause = folder.path / "samples.jsonl", 0, _BEGINS_SECONDS
    while not stopped.wait(pause):
        if (size := made.stat().st_size if made.exists() else 0) == seen:
            continue
        seen, begun = size, time.monotonic()
        _, tasks = look()
        pause = max(_LOOKS_SECONDS, _PAUSES * (time.monotonic() - begun))
        while not stopped.is_set() and next(tasks, None):
            pass


def _tasks(
    folder: RunFolder, features: Sequence[str], against: RunFolder | None, *, without: tuple[str, ...]
) -> list[Task]:
    """What has no current rows: first the clips one by one, then those of each prompt together."""
    current = {feature: current_keys(folder, feature, against, without=without) for feature in features}
    together = [one for one in features if requires(one) is Requires.SEEDS]
    single = [one for one in features if one not in together]
    made = _in_order_of_making(folder)
    references = against.samples() if against else {}
    prompts = {(subset.name, prompt.id): prompt for subset in folder.subsets() for prompt in subset.prompts}
    todo = []
    for sample in made:
        if lacking := tuple(one for one in single if sample.key not in current[one]):
            todo.append(Task((sample,), lacking, references.get(sample.key), prompts.get(sample.key[:2])))
    for _, group in itertools.groupby(made, key=lambda sample: sample.key[:2]):
        of_prompt = tuple(group)
        keys = {sample.key for sample in of_prompt}
        if lacking := tuple(one for one in together if not keys <= current[one]):
            todo.append(Task(of_prompt, lacking))
    return todo


def _require_there(folder: RunFolder, shown: Iterable[Sample | None], gone: Mapping[Path, Sequence[Sample]]) -> None:
    """Raise InputError if clips that are to be measured are among those of their folder that are gone."""
    wanted = {one.key for one in shown if one is not None}
    if lost := tuple(one for one in gone[folder.path] if one.key in wanted):
        msg = (
            f"{clips_are(lost, folder)} to be measured and no longer there, for example "
            f"{folder.path / str(lost[0].path)}: put them back, or give the command that made the run again with "
            "replace=True (--replace), which makes them again"
        )
        raise InputError(msg)


def _of_others(
    runs: Sequence[RunFolder],
    todo: Sequence[Task],
    forms: Forms,
) -> OtherRuns:
    """What other runs have of the clips of these tasks."""
    clips = {one.sha256 for task in todo for one in task.samples if one.sha256}
    wanted = {seen for task in todo for feature in task.features for seen in hashes_of(feature, task, forms)}
    return OtherRuns(runs, clips, wanted)


def _known(
    sources: Sequence[FeaturesCache | OtherRuns],
    task: Task,
    protocols: Mapping[str, Protocol],
    forms: Forms,
) -> tuple[list[tuple[str, Row]], Task]:
    """The rows of a task whose values are known, and the task with the features that are left to measure."""
    if not sources:
        return [], task
    rows: list[tuple[str, Row]] = []
    left = []
    for feature in task.features:
        asked = [_cached_as(feature, task, one) for one in hashes_of(feature, task, forms)]
        found = [
            known
            for one in asked
            if (known := next(filter(None, (source.find(protocols[feature], one) for source in sources)), None))
        ]
        if len(found) < len(asked):
            left.append(feature)
            continue
        values, gpus = zip(*found, strict=True)
        made = zip(as_rows(feature, task, values, None, forms), gpus, strict=True)
        rows += [(feature, dataclasses.replace(row, gpu=gpu)) for row, gpu in made]
    return rows, dataclasses.replace(task, features=tuple(left))


def _input_of(task: Task, forms: Forms) -> str:
    """A hash of everything that decides a task's values."""
    return digest(
        [
            [feature, *(_cached_as(feature, task, one) for one in hashes_of(feature, task, forms))]
            for feature in task.features
        ]
    )


def _cached_as(feature: str, task: Task, clip_sha256: str) -> str:
    """What decides a row's values, besides the protocol: what is seen of the clips, and the prompt where it is used."""
    if requires(feature) is not Requires.PROMPT or task.prompt is None:
        return clip_sha256
    return digest([clip_sha256, task.prompt.to_json()])


def _in_order_of_making(folder: RunFolder) -> list[Sample]:
    """The samples with a clip, balanced over subsets as the clips are made; a prompt's by their seeds."""
    places = {key[:2]: place for place, key in enumerate(folder.planned_keys())}
    made = [sample for sample in folder.samples().values() if sample.path is not None]
    return sorted(made, key=lambda sample: (places.get(sample.key[:2], len(places)), sample.key))
