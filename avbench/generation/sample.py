"""Samples the clips of a run: every prompt under every seed, written to disk one by one.

A clip that fails is recorded with the reason, and the other clips are still made; the same command tries it again.
Clips on disk are not made twice. An unexpected error is retried once; a refusal of the model is never retried. A clip
is stored as the model made it, and a difference from its subset's clip spec is recorded.

A run can be resumed if the model, identified by content, and the clips on disk are unchanged. Otherwise an InputError
says what has changed; with `replace`, the changed parts are made again.
"""

import dataclasses
import errno
import functools
import gc
import json
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from avbench.core import (
    ClipSpec,
    InputError,
    Key,
    Refused,
    Run,
    Sample,
    Shard,
    Subset,
    UnusableError,
    by_content,
    clip_name,
    field_differences,
    planned_keys,
)
from avbench.core.version import __version__
from avbench.generation import table as generators
from avbench.generation.first_clips import BarrenError, FirstClips
from avbench.generation.table import Generator, Made, Request
from avbench.storage import worker_pool
from avbench.storage.content import altered
from avbench.storage.media import read_clip, write_clip
from avbench.storage.mirror import Mirror, Place, WorkerFolder
from avbench.storage.reading import file_sha256
from avbench.storage.run_folder import RunFolder
from avbench.storage.writing import write_json

JOURNAL = "jobs"
"""Folder inside the run folder for a generator's own files."""
_VERSIONED = ("av", "numpy", "opencv-python", "pymunk", "scipy", "torch", "torchvision")
_SCORED = ("scores.json", "values.parquet", "near_copies.csv")
_SHA256_LETTERS = 64
_VERSIONED_BY_DIFFUSERS = ("diffusers", "gguf", "peft", "transformers")


def plan(subsets: Sequence[Subset], seeds: Sequence[int], shard: Shard | None = None) -> list[Request]:
    """Return a request for every clip that a run, or a shard of it, should have, in the order of making."""
    asked = {(subset.name, prompt.id): (prompt, subset.clip_spec) for subset in subsets for prompt in subset.prompts}
    return [Request(key, *asked[key[:2]]) for key in planned_keys(subsets, seeds, shard)]


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
        replace: delete the folder's run if it is of another model, settings or prompts, and make single clips again
            that have changed.
        renew: make single clips again whose origin has changed, with a remark; for clips of which the folder holds
            only copies.
        shard: make only this part of the run; all of it where not given.
        mirror: of the folder, through which workers hand clips over that do not see the folder.

    Returns:
        The number of clips still to be made; an iterator that makes them and yields each one when it is safely on
        disk; and the generator's remarks.

    Raises:
        InputError: the model is invalid, or the folder holds another run, or clips that have changed since, or the
            shard is empty.
    """
    journal = folder.path / JOURNAL
    source = functools.partial(generators.build, model, dict(settings), journal)
    alone = generator is not None
    generator = generator or source()
    requests = plan(subsets, seeds, shard)
    fingerprint = {**generator.settings, **generators.outside_identity(model, generator, settings)}
    run = dataclasses.replace(
        _run(folder.path.name, model, fingerprint, subsets, seeds), shard=None if shard is None else str(shard)
    )
    run = _as_held(folder, run)
    if replace and _another(folder, run, subsets):
        throw_away(folder)
        generator = generator if alone else source()  # the first one may have read the journal that was deleted
    threads = getattr(generator, "concurrency", None)
    folder.start(dataclasses.replace(run, asked=dict(settings), preset=preset), subsets)
    samples = folder.samples()
    lost, changed = _stale(folder, generator, requests, samples)
    stale = {**lost, **changed}
    if (refused := lost if renew else stale) and not replace:
        msg = (
            f"{_counted(refused, folder, samples, seeds)}; the same command with --replace redoes what has changed and "
            f"keeps the other clips{folder.or_elsewhere}"
        )
        raise InputError(msg)
    remarks = []
    if renew and changed:
        what = _counted(changed, folder, samples, seeds)
        remarks.append(f"{what}; what has changed is measured again, and the other clips are kept")
    if stale:
        for name in _SCORED:  # they were computed from clips that are now replaced
            (folder.path / name).unlink(missing_ok=True)
    done = {key for key, made in samples.items() if (made.path is not None or made.refused) and key not in stale}
    todo = [request for request in requests if request.key not in done]
    made = {key: samples[key] for key in done if samples[key].path is not None}
    first = _first_alike(generator, [*(one for one in requests if one.key in made), *todo])
    copies: dict[Key, list[Key]] = {}
    for request in todo:
        if (alike := first[request.key]) != request.key:
            copies.setdefault(alike, []).append(request.key)
    batches = _batches([one for one in todo if first[one.key] == one.key], generator.batch_size)
    if threads or alone or isinstance(workers, int):
        processes = 0 if alone or not isinstance(workers, int) else workers
        processes = min(processes, getattr(generator, "most_workers", processes))
        count = threads or (processes if processes > 1 else 0)  # this process has the model already
        pool, elsewhere = worker_pool.LocalPool(count, bool(threads)), bool(count and not threads)
    else:
        pool, elsewhere = workers, True

    def copied(one: Sample) -> Iterator[Sample]:
        return (_copied(folder, one, key) for key in copies.get(one.key, ()))

    def make() -> Iterator[Sample]:
        place = Place(folder.path) if mirror is None else mirror.place()
        built = functools.partial(_as_recorded, source, folder.path) if elsewhere else lambda: generator
        build = functools.partial(_worker, built, place, stops=not alone)  # a model in training may be broken today
        for one in (copy for key in copies if key in made for copy in copied(made[key])):
            folder.add_sample(one)
            yield one
        for requests, samples in pool.map_unordered(build, batches):
            if isinstance(samples, worker_pool.WorkerCrashed):
                samples = _after_crash(functools.partial(pool.run_isolated, build), requests, samples)
            for one in samples:
                if mirror is not None:
                    mirror.collect(one)
                for each in (one, *copied(one)):
                    folder.add_sample(each)
                    yield each

    every = requests if shard is None else plan(subsets, seeds)  # a file of another shard is no file without a prompt
    return len(todo), make(), [*remarks, *generator.remarks(every)]


def _first_alike(generator: Generator, requests: Sequence[Request]) -> dict[Key, Key]:
    """Map every request to the first one that gets an equal clip, which may be itself."""
    asked = getattr(generator, "asked", None)
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
        _put(path, copy)
        if (truth := folder.truth_path(sample.key)).exists():
            _put(truth, folder.truth_path(key))
    except OSError as error:
        if _no_space(error):
            raise _disk_full(folder, key) from error
        raise
    return dataclasses.replace(sample, key=key, path=copy.relative_to(folder.path).as_posix())


def _copied_failure(sample: Sample, key: Key) -> str | None:
    """Why a copied request failed; the reason may name the prompt, so another prompt is told whose reason it is."""
    if sample.key.prompt == key.prompt:
        return sample.failure
    where = f"{sample.key.subset}/{sample.key.prompt}"
    return f"the model gets the same request as for the prompt {where}, which failed: {sample.failure}"


def _put(source: Path, path: Path, how: Callable[[Path, Path], object] = shutil.copyfile) -> None:
    """Copy or move a file to `path` in one step: a killed process leaves no incomplete one there."""
    part = path.with_name(f".{path.name}.part")
    how(source, part)
    part.replace(path)


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


def _as_held(folder: RunFolder, run: Run) -> Run:
    """The run with its model as the folder's run spells it, where both are the same files, named by other paths."""
    if not (folder.path / "run.json").exists():
        return run
    held = folder.run()
    clips = run.model.startswith("clips:") and held.model.startswith("clips:")
    # The settings of finished clips hold their absolute folder, so it is known also from another working folder.
    same = clips and run.settings.get("folder") == held.settings.get("folder")
    same = same or generators.same_place(run.model, held.model)
    return (dataclasses.replace(run, model=held.model) if same else run).spelled_as(held)


def _another(folder: RunFolder, run: Run, subsets: Sequence[Subset]) -> bool:
    """Whether a folder holds a different run from this one."""
    return (folder.path / "run.json").exists() and folder.objection(run, subsets) is not None


def throw_away(folder: RunFolder) -> None:
    """Delete everything that a run made.

    samples.jsonl is deleted first and run.json last, so that the folder stays consistent if the process is killed.
    """
    for name in ("samples.jsonl", *_SCORED, "features", "clips", JOURNAL, "run.json"):
        path = folder.path / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _stale(
    folder: RunFolder, generator: Generator, requests: Sequence[Request], samples: Mapping[Key, Sample]
) -> tuple[dict[Key, str], dict[Key, str]]:
    """Map the clips whose file was changed or whose origin is gone, and those whose origin has changed, to a sentence
    that says how.
    """
    here = altered(folder)
    lost = {one.key: f"{folder.path / str(one.path)} is not the file that was made" for one in here.changed}
    lost |= {one.key: f"{folder.path / str(one.path)} is no longer there" for one in here.gone}
    changed = {}
    if source_of := getattr(generator, "source", None):
        for request in requests:
            sample = samples.get(request.key)
            if sample is not None and sample.path is not None and request.key not in lost:
                try:
                    now = source_of(request)
                except InputError as error:
                    lost[request.key] = str(error)
                    continue
                # a finished file is kept byte for byte, so its own hash is that of its origin
                before = sample.source or (sample.sha256 if now and len(now) == _SHA256_LETTERS else None)
                if now and before and now != before:
                    changed[request.key] = f"it came from {_short(before)}, and would now come from {_short(now)}"
    return lost, changed


def _counted(stale: Mapping[Key, str], folder: RunFolder, samples: Mapping[Key, Sample], seeds: Sequence[int]) -> str:
    """Say how many of a run's clips have changed, and how one of them has."""
    key, why = next(iter(stale.items()))
    made = sum(one.path is not None for one in samples.values())
    return (
        f"{len(stale)} of {made} clips of {folder.path} {'has' if len(stale) == 1 else 'have'} changed, for example "
        f"{clip_name(key, seeds)}: {why}"
    )


def _short(source: str) -> str:
    """Shorten a clip's origin for a message."""
    return f"a file with the sha256 {source[:12]}…" if len(source) == _SHA256_LETTERS else source[:300]


def _worker(
    source: Callable[[], Generator], place: Place, *, stops: bool
) -> Callable[[Sequence[Request]], list[Sample]]:
    folder = place.opened()
    generator = source()
    if prepare := getattr(generator, "prepare", None):
        prepare()
    source_of = getattr(generator, "source", None)
    first = FirstClips(stops=stops)

    def make(requests: Sequence[Request], *, again: bool = True) -> list[Sample]:
        started = time.perf_counter()
        _forget_gpu_peak()
        made, failed = None, []
        try:
            made = list(generator.generate(requests))
            if len(made) != len(requests):
                msg = f"generate returned {len(made)} clips for {len(requests)} requests"
                raise InputError(msg)
            made = first.inspect(made)
        except BarrenError:
            raise
        except (Exception, SystemExit) as error:
            failed = [_failed(requests[0], error, time.perf_counter() - started)]
            again = again and (not isinstance(error, InputError) or isinstance(error, UnusableError))
            if not again:
                first.inspect([error])
            made = None
        if made is None:  # after the except block, because the error keeps GPU memory alive
            _free_memory()
            if len(requests) > 1:  # the other prompts of the batch may work
                return [one for request in requests for one in make([request])]
            return make(requests, again=False) if again else failed
        seconds = (time.perf_counter() - started) / len(requests)
        peaks = _peaks()
        return [
            dataclasses.replace(_kept(folder, request, each, seconds, source_of), **peaks)
            for request, each in zip(requests, made, strict=True)
        ]

    return make


def _as_recorded(source: Callable[[], Generator], folder: Path) -> Generator:
    """Build the generator in a worker, maybe on another machine. Raises InputError if it is not the run's."""
    generator, recorded = source(), RunFolder(folder).run().settings
    here = {**recorded, **json.loads(json.dumps(generator.settings))}
    if by_content(here) != by_content(recorded):  # paths may be other ones, from another working folder
        differing = field_differences(here, recorded, "{} here, {} there".format)
        msg = f"the model would have other settings here than {folder}/run.json says: {'; '.join(differing)}"
        raise InputError(msg)
    return generator


def _after_crash(
    run_isolated: Callable[[Sequence[Request]], list[Sample] | worker_pool.WorkerCrashed],
    requests: Sequence[Request],
    crash: worker_pool.WorkerCrashed,
) -> list[Sample]:
    """Try each request of a batch that crashed its process in isolation; a single request is recorded as failed."""
    made: list[Sample] = []
    for request in requests:
        alone = run_isolated([request]) if len(requests) > 1 else crash
        made += [_failed(request, alone, 0.0)] if isinstance(alone, worker_pool.WorkerCrashed) else alone
    return made


def _free_memory() -> None:
    """Free the memory of a failed call before the next one."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _forget_gpu_peak() -> None:
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def _peaks() -> dict[str, float]:
    """Return the peak memory in MiB."""
    peaks = {"peak_memory_mib": worker_pool.peak_memory_mib(resource.RUSAGE_SELF)}
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        peaks["peak_gpu_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return peaks


def _kept(
    place: WorkerFolder,
    request: Request,
    made: Made | InputError,
    seconds: float,
    source_of: Callable[[Request], str | None] | None,
) -> Sample:
    """Store a clip in the run folder and return its record; an error gives a record of the failure."""
    if isinstance(made, Exception):
        return _failed(request, made, seconds)
    folder = place.run
    try:
        stem = folder.clip_stem(request.key)
        clip = read_clip(made.clip) if isinstance(made.clip, Path) else made.clip
        spec_mismatch = None if request.clip_spec is None else request.clip_spec.objection(clip)
        stem.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(made.clip, Path):
            path = stem.with_name(stem.name + made.clip.suffix)
            _put(made.clip, path, shutil.move if made.moved else shutil.copyfile)
        else:
            path = stem.with_name(stem.name + ".mkv")
            write_clip(clip, path)
        if made.truth is not None:
            write_json(folder.truth_path(request.key), made.truth)
        place.hand_over(path, *([folder.truth_path(request.key)] if made.truth is not None else []))
        name = path.relative_to(folder.path).as_posix()
        copied = isinstance(made.clip, Path) and not made.moved  # then its own hash identifies its origin
        source = source_of(request) if source_of and not copied else None
        remark = "; ".join(clip.remarks) or None
        return Sample(
            request.key,
            name,
            file_sha256(path),
            seconds,
            spec_mismatch=spec_mismatch,
            call=made.call,
            source=source,
            remark=remark,
        )
    except Exception as error:
        if _no_space(error):
            raise _disk_full(folder, request.key) from error
        return _failed(request, error, seconds)


def _disk_full(folder: RunFolder, key: Key) -> InputError:
    clip = clip_name(key, folder.run().seeds)
    return InputError(
        f"{folder.path}: the disk is full, no space is left for the clip {clip}; free some, and give the same command "
        "again"
    )


def _no_space(error: BaseException) -> bool:
    """Whether an error is that of a full disk, which would fail every following clip too."""
    causes = (error, error.__cause__)
    return any(getattr(one, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for one in causes)


def _failed(request: Request, error: BaseException, seconds: float) -> Sample:
    sentence = (
        str(error) if isinstance(error, InputError | worker_pool.WorkerCrashed) else f"{type(error).__name__}: {error}"
    )
    sentence = sentence.removesuffix(": ")  # some errors, such as MemoryError, have no message
    return Sample(request.key, None, None, seconds, failure=sentence, refused=isinstance(error, Refused))
