"""Samples the clips of a run: every prompt under every seed, written to disk one by one.

A clip that fails is recorded with the reason, and the other clips are still made; the same command tries it again.
Clips on disk are not made twice. An unexpected error is retried once; a refusal of the model is never retried. A clip
is stored as the model made it, and a difference from its subset's clip spec is recorded.

A run can be resumed if the model, identified by content, and the clips on disk are unchanged. Otherwise an InputError
says what has changed; with `replace`, the changed parts are made again.
"""

import dataclasses
import functools
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from avbench.core import ClipSpec, InputError, Key, Run, Sample, Shard, Subset, planned_keys
from avbench.core.version import __version__
from avbench.generation import table as generators
from avbench.generation.resuming import (
    JOURNAL,
    as_held,
    changes_in_words,
    holds_another,
    is_damaged,
    only_gaps_go,
    stale_clips,
    throw_away,
    unchanged_clips,
)
from avbench.generation.table import Generator, Request
from avbench.generation.worker import after_crash, as_recorded, disk_full, no_space, put_whole, worker
from avbench.storage.media.clips_of_prompts import Rivals
from avbench.storage.mirrors.mirror import Mirror, Place
from avbench.storage.runs.folder import SCORED, RunFolder
from avbench.storage.workers import worker_pool

_VERSIONED = ("av", "numpy", "opencv-python", "pymunk", "scipy", "torch", "torchvision")
_VERSIONED_BY_DIFFUSERS = ("diffusers", "gguf", "peft", "transformers")


def plan(
    subsets: Sequence[Subset], seeds: Sequence[int], shard: Shard | None = None, *, finished: bool = False
) -> list[Request]:
    """Return a request for every clip that a run, or a shard of it, should have, in the order of making.

    Requests for `finished` clips, which have names, know the names that fit other prompts as well, or better.
    """
    asked = {(subset.name, prompt.id): (prompt, subset.clip_spec) for subset in subsets for prompt in subset.prompts}
    rivals = Rivals(prompt for prompt, _ in asked.values()) if finished else None

    def request(key: Key) -> Request:
        prompt, spec = asked[key[:2]]
        return Request(key, prompt, spec, rivals.of(key.subset, prompt, key.seed) if rivals else {})

    return [request(key) for key in planned_keys(subsets, seeds, shard)]


def sample(
    folder: RunFolder,
    model: str,
    settings: Mapping[str, Any],
    subsets: Sequence[Subset],
    seeds: Sequence[int],
    *,
    workers: int | worker_pool.Pool = 0,
    generator: Generator | None = None,
    preset: Mapping[str, Any] | None = None,
    replace: bool = False,
    renew: bool = False,
    shard: Shard | None = None,
    mirror: Mirror | None = None,
    meanwhile: Callable[[int], AbstractContextManager[None]] | None = None,
) -> tuple[int, Iterator[Sample], list[str]]:
    """Start or resume a run.

    Args:
        folder: the run folder.
        model: ``provider:target``; only a name if a `generator` is given.
        settings: the model's settings.
        subsets: the subsets whose prompts are sampled.
        seeds: each gives one clip per prompt.
        workers: number of processes; with 0 or 1 the generator works in this one. Or another pool of workers, each of
            which builds the generator. A generator with `concurrency` runs in that many threads of this process
            instead.
        generator: an object in memory, which stays in this process.
        preset: the record of a paper preset, for run.json.
        replace: delete the folder's run if it is of another model, settings or prompts, or its run.json is damaged or
            gone, and make single clips again that have changed. What was measured of finished clips that stay is kept.
        renew: make single clips again whose origin has changed, with a remark; for clips of which the folder holds
            only copies.
        shard: make only this part of the run; all of it where not given.
        mirror: of the folder, through which workers hand clips over that do not see the folder.
        meanwhile: what else is done while clips are made, by so many processes as sampling leaves idle; not called
            where it leaves none.

    Returns:
        The number of clips still to be made; an iterator that makes them and yields each one when it is safely on
        disk; and the generator's remarks.

    Raises:
        InputError: the model is invalid, or the folder holds another run, or clips that have changed since, or the
            shard is empty; or two subsets have one name.
    """
    subsets = _of_each_name(subsets)
    source = functools.partial(generators.build, model, dict(settings), folder.path.absolute() / JOURNAL)
    alone = generator is not None
    generator = generator or source()
    finished = getattr(generator, "finished", False)
    requests = plan(subsets, seeds, shard, finished=finished)
    fingerprint = {**generator.settings, **generators.outside_identity(model, generator, settings)}
    run = dataclasses.replace(_run(folder.name, model, fingerprint, subsets, seeds), shard=shard and str(shard))
    gaps = False
    if not (other := replace and is_damaged(folder)):
        run = as_held(folder, run, generator, requests)
        gaps = renew and not replace and only_gaps_go(folder, run, subsets, requests)
        other = (replace or gaps) and holds_another(folder, run, subsets)
    if other:
        throw_away(folder, unchanged_clips(folder, generator, requests), scores=not gaps)
        generator = generator if alone else source()  # the first one may have read the journal that was deleted
    folder.start(dataclasses.replace(run, asked=dict(settings), preset=preset), subsets)
    samples = folder.samples()
    stale, remarks = _stale(folder, generator, requests, samples, replace=replace, renew=renew)
    folder = RunFolder(folder.path.absolute())  # a thread with the model's code may change the working folder
    done = {key for key, made in samples.items() if (made.path is not None or made.refused) and key not in stale}
    todo = [request for request in requests if request.key not in done]
    made = {key: samples[key] for key in done if samples[key].path is not None}
    batches, copies = _without_copies(generator, [one for one in requests if one.key in made], todo)
    pool, elsewhere = _pool(generator, workers, alone=alone)

    def copied(one: Sample) -> Iterator[Sample]:
        return (_copied(folder, one, key) for key in copies.get(one.key, ()))

    def make() -> Iterator[Sample]:
        place = Place(folder.path) if mirror is None else mirror.place()
        built = functools.partial(as_recorded, source, folder.path) if elsewhere else lambda: generator
        build = functools.partial(worker, built, place, stops=not alone)  # a model in training may be broken today
        for one in (copy for key in copies if key in made for copy in copied(made[key])):
            folder.add_sample(one)
            yield one
        idle = _idle(pool, workers) if batches else 0
        with meanwhile(idle) if meanwhile and idle else nullcontext():
            for requests, samples in pool.map_unordered(build, batches):
                if isinstance(samples, worker_pool.WorkerCrashed):
                    samples = after_crash(functools.partial(pool.run_isolated, build), requests, samples)
                for one in samples:
                    if mirror is not None:
                        mirror.collect(one)
                    for each in (one, *copied(one)):
                        folder.add_sample(each)
                        yield each

    # with all shards' requests, so that files of other shards are not reported as unused
    every = requests if shard is None else plan(subsets, seeds, finished=finished)
    own = generators.method_of(generator, "remarks")
    return len(todo), make(), [*remarks, *(own(every) if own else [])]


def _of_each_name(subsets: Sequence[Subset]) -> list[Subset]:
    """The subsets, each once. Raises InputError if two that differ have one name, by which clips are kept."""
    found: dict[str, Subset] = {}
    for one in subsets:
        if found.setdefault(one.name, one).digest != one.digest:
            msg = f"two subsets are called {one.name!r}: give them different names, or make a run of each"
            raise InputError(msg)
    return [*found.values()]


def _stale(
    folder: RunFolder,
    generator: Generator,
    requests: Sequence[Request],
    samples: Mapping[Key, Sample],
    *,
    replace: bool,
    renew: bool,
) -> tuple[set[Key], list[str]]:
    """The clips that are made again because they have changed, with a remark for each; their scores are deleted.

    Raises InputError on changes that neither `replace` nor `renew` allows to make again.
    """
    lost, changed = stale_clips(folder, generator, requests, samples)
    if (refused := lost if renew else {**lost, **changed}) and not replace:
        msg = (
            f"{changes_in_words(refused, folder, samples)}; the same command with replace=True (--replace) redoes "
            f"what has changed and keeps the other clips{folder.or_elsewhere}"
        )
        raise InputError(msg)
    remarks = []
    if renew and changed:
        what = changes_in_words(changed, folder, samples)
        remarks.append(f"{what}; what has changed is measured again, and the other clips are kept")
    if lost or changed:
        for name in SCORED:  # they were computed from clips that are now replaced
            (folder.path / name).unlink(missing_ok=True)
    for key in {**lost, **changed}:  # a kill may come between a new file and its line
        folder.add_sample(Sample(key, None, None, 0.0, failure="the clip has changed, and was not made again yet"))
    return {*lost, *changed}, remarks


def _pool(generator: Generator, workers: int | worker_pool.Pool, *, alone: bool) -> tuple[worker_pool.Pool, bool]:
    """The workers of a generator, and whether each builds its own; one that is `alone` stays in this process."""
    if threads := getattr(generator, "concurrency", None):
        return worker_pool.LocalPool(threads, threads=True, keeps_settings=alone), False
    if alone:
        return worker_pool.LocalPool(keeps_settings=True), False
    if not isinstance(workers, int):
        return workers, True
    processes = min(workers, getattr(generator, "most_workers", workers))
    many = processes > 1  # otherwise this process works, which has the model already
    return worker_pool.LocalPool(processes if many else 0), many


def _idle(pool: worker_pool.Pool, workers: int | worker_pool.Pool) -> int:
    """How many of the processes that may work have nothing to do while this pool samples; threads wait for others."""
    if not isinstance(pool, worker_pool.LocalPool) or not isinstance(workers, int):
        return 0
    return max(0, workers - (1 if pool.threads else max(1, pool.workers)))


def _without_copies(
    generator: Generator, made: Sequence[Request], todo: Sequence[Request]
) -> tuple[list[list[Request]], dict[Key, list[Key]]]:
    """The batches of what the model has to make; and the key of a clip → the keys that get a copy of it."""
    first = _first_alike(generator, [*made, *todo])
    copies: dict[Key, list[Key]] = {}
    for request in todo:
        if (alike := first[request.key]) != request.key:
            copies.setdefault(alike, []).append(request.key)
    return _batches([one for one in todo if first[one.key] == one.key], getattr(generator, "batch_size", 1)), copies


def _first_alike(generator: Generator, requests: Sequence[Request]) -> dict[Key, Key]:
    """Map every request to the first one that gets an equal clip, which may be itself."""
    asked = generators.method_of(generator, "asked")
    if asked is None:
        return {request.key: request.key for request in requests}
    first: dict[object, Key] = {}
    alike = {}
    for one in requests:
        decides = (asked(one), one.clip_spec)
        try:
            alike[one.key] = first.setdefault(decides, one.key)
        except TypeError:
            msg = (
                f"asked(request) of the model returned {decides[0]!r:.200}, which cannot be a key of a dictionary; it "
                "must return text, numbers, or tuples of them"
            )
            raise InputError(msg) from None
    return alike


def _copied(folder: RunFolder, sample: Sample, key: Key) -> Sample:
    """Record for `key` what came of an equal request, with a copy of its clip."""
    if sample.path is None:
        return dataclasses.replace(sample, key=key, failure=_copied_failure(sample, key))
    path, stem = folder.path / sample.path, folder.clip_stem(key)
    copy = stem.with_name(stem.name + path.suffix)
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        put_whole(path, copy)
        if (truth := folder.truth_path(sample.key)).exists():
            put_whole(truth, folder.truth_path(key))
    except OSError as error:
        if no_space(error):
            raise disk_full(folder, key) from error
        raise
    return dataclasses.replace(sample, key=key, path=copy.relative_to(folder.path).as_posix())


def _copied_failure(sample: Sample, key: Key) -> str | None:
    """Why a copied request failed; the reason may name the prompt, so another prompt is told whose reason it is."""
    if sample.key.prompt == key.prompt:
        return sample.failure
    where = f"{sample.key.subset}/{sample.key.prompt}"
    return f"the model gets the same request as for the prompt {where}, which failed: {sample.failure}"


def _batches(requests: Sequence[Request], size: int) -> list[list[Request]]:
    """Group requests in their order into batches of one clip spec each."""
    batches: list[list[Request]] = []
    filling: dict[ClipSpec | None, list[Request]] = {}
    for request in requests:
        batch = filling.setdefault(request.clip_spec, [])
        if not batch:
            batches.append(batch)
        batch.append(request)
        if len(batch) == size:
            del filling[request.clip_spec]
    return batches


def _run(name: str, model: str, settings: Mapping[str, Any], subsets: Sequence[Subset], seeds: Sequence[int]) -> Run:
    versions = {"avbench": __version__, "python": platform.python_version()}
    for package in (*_VERSIONED, *(_VERSIONED_BY_DIFFUSERS if "diffusers" in sys.modules else ())):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    if package := generators.package_of(model):
        outside, _, number = package.rpartition(" ")
        versions[outside] = number
    machine = {"system": platform.platform(), "processor": platform.machine(), "cores": str(os.cpu_count())}
    return Run(name, model, settings, {one.name: one.digest for one in subsets}, tuple(seeds), versions, machine)
