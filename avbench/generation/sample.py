"""Stage 2: prompts × seeds → clips on disk.

A clip that cannot be made costs that clip only: it is written down with the sentence why, and tried again when the
same command is given again. What is on disk is not made twice. What fails without a sentence is tried once more; a
refusal, which is the model's answer, is not asked for twice. A clip is kept as the model made it; whether it is of the
form that its subset asks for is written down.

A run is gone on with where it holds the same model, by content, and the same clips. Where it does not, that is refused
in a sentence; with `replace` what is no longer the same is made anew.
"""

import dataclasses
import errno
import functools
import gc
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

from avbench import __version__
from avbench.core import InputError, Key, Refused, Run, Sample, Subset, UnusableError
from avbench.generation import table as generators
from avbench.generation.first_clips import BarrenError, FirstClips
from avbench.generation.table import Generator, Made, Request
from avbench.storage import worker_pool
from avbench.storage.content import altered
from avbench.storage.media import read_clip, write_clip
from avbench.storage.run_folder import RunFolder, file_sha256, write_json

JOURNAL = "jobs"
"""Folder, inside the run folder, of what a generator keeps for itself."""
_VERSIONED = ("av", "numpy", "opencv-python", "pymunk", "scipy", "torch", "torchvision")
_SCORED = ("scores.json", "values.parquet", "near_copies.csv")
_SHA256_LETTERS = 64
_VERSIONED_BY_DIFFUSERS = ("diffusers", "gguf", "peft", "transformers")


def plan(subsets: Sequence[Subset], seeds: Sequence[int]) -> list[Request]:
    """Every clip that a run should have, sorted by key."""
    requests = [
        Request(Key(subset.name, prompt.id, seed), prompt, subset.clip_spec)
        for subset in subsets
        for prompt in subset.prompts
        for seed in seeds
    ]
    return sorted(requests, key=lambda request: request.key)


def sample(
    folder: RunFolder,
    model: str,
    settings: Mapping[str, Any],
    subsets: Sequence[Subset],
    seeds: Sequence[int],
    *,
    workers: int = 1,
    generator: Generator | None = None,
    preset: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> tuple[int, Iterator[Sample], list[str]]:
    """Start or resume a run.

    Args:
        folder: where it goes.
        model: ``provider:target``; a mere name where there is a `generator`.
        settings: of the model.
        subsets: what is asked for.
        seeds: clips per prompt.
        workers: processes. Threads as many as it says, and no other process, for a generator with a `concurrency`.
        generator: one that is in memory already; it stays in this process.
        preset: the record of a preset (presets.py), for run.json.
        replace: where the folder holds a run of another model, of other settings or prompts, throw that away; where
            single clips are no longer what they were, make those anew.

    Returns:
        How many clips are still to be made; an iterator that makes them and yields each as it is safely on disk;
        and the generator's remarks.

    Raises:
        InputError: the model is wrong, or the folder holds another run, or clips that have changed since.
    """
    journal = folder.path / JOURNAL
    source = functools.partial(generators.build, model, dict(settings), journal)
    alone = generator is not None
    generator = generator or source()
    requests = plan(subsets, seeds)
    told = {**generator.settings, **generators.outside_identity(model, generator, settings)}
    run = _run(folder.path.name, model, told, subsets, seeds)
    if replace and _another(folder, run, subsets):
        throw_away(folder)
        generator = generator if alone else source()  # what it has read of its journal is gone
    threads = getattr(generator, "concurrency", None)
    folder.start(dataclasses.replace(run, asked=dict(settings), preset=preset), subsets)
    samples = folder.samples()
    stale = _stale(folder, generator, requests, samples)
    if stale and not replace:
        key, why = next(iter(stale.items()))
        msg = (
            f"{len(stale)} of {sum(one.path is not None for one in samples.values())} clips of {folder.path} are no "
            f"longer what they were, for example {key.prompt}-{key.seed}: {why}; give "
            "another --out (--work of a reference), or --replace to make them anew"
        )
        raise InputError(msg)
    if stale:
        for name in _SCORED:  # of clips that are no more
            (folder.path / name).unlink(missing_ok=True)
    done = {key for key, made in samples.items() if (made.path is not None or made.refused) and key not in stale}
    todo = [request for request in requests if request.key not in done]
    size = generator.batch_size
    batches = [todo[start : start + size] for start in range(0, len(todo), size)]
    most = getattr(generator, "most_workers", workers)
    count = threads or (1 if alone else min(workers, most))
    build = functools.partial(_worker, (lambda: generator) if threads or count == 1 else source, folder.path)

    def make() -> Iterator[Sample]:
        for requests, samples in worker_pool.map_unordered(
            build, batches, workers=count, threads=bool(threads), survive_crashes=True
        ):
            for one in _dead(build, requests) if isinstance(samples, worker_pool.WorkerCrashed) else samples:
                folder.add_sample(one)
                yield one

    return len(todo), make(), generator.remarks(requests)


def _run(name: str, model: str, settings: Mapping[str, Any], subsets: Sequence[Subset], seeds: Sequence[int]) -> Run:
    versions = {"avbench": __version__, "python": platform.python_version()}
    for package in (*_VERSIONED, *(_VERSIONED_BY_DIFFUSERS if "diffusers" in sys.modules else ())):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    machine = {"system": platform.platform(), "processor": platform.machine(), "cores": str(os.cpu_count())}
    return Run(name, model, settings, {one.name: one.digest for one in subsets}, tuple(seeds), versions, machine)


def _another(folder: RunFolder, run: Run, subsets: Sequence[Subset]) -> bool:
    """Whether a folder holds another run than this one."""
    return (folder.path / "run.json").exists() and folder.objection(run, subsets) is not None


def throw_away(folder: RunFolder) -> None:
    """Remove all that a run made. samples.jsonl goes first and run.json last, so that a kill leaves no half of it."""
    for name in ("samples.jsonl", *_SCORED, "features", "clips", JOURNAL, "run.json"):
        path = folder.path / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _stale(
    folder: RunFolder, generator: Generator, requests: Sequence[Request], samples: Mapping[Key, Sample]
) -> dict[Key, str]:
    """The clips that were made and are no longer what they were: here, or where they were taken from; and how."""
    here = altered(folder)
    stale = {one.key: f"{folder.path / str(one.path)} is not the file that was made" for one in here.changed}
    stale |= {one.key: f"{folder.path / str(one.path)} is no longer there" for one in here.gone}
    if look := getattr(generator, "source", None):
        for request in requests:
            sample = samples.get(request.key)
            if sample is not None and sample.path is not None and request.key not in stale:
                try:
                    now = look(request)
                except InputError as error:
                    stale[request.key] = str(error)
                    continue
                # a finished file is kept byte for byte
                before = sample.source or (sample.sha256 if now and len(now) == _SHA256_LETTERS else None)
                if now and before and now != before:
                    stale[request.key] = f"it was taken from {_short(before)}, and now would be from {_short(now)}"
    return stale


def _short(source: str) -> str:
    """For people."""
    return f"a file with the sha256 {source[:12]}…" if len(source) == _SHA256_LETTERS else source[:300]


def _worker(source: Callable[[], Generator], folder: Path) -> Callable[[Sequence[Request]], list[Sample]]:
    generator = source()
    if prepare := getattr(generator, "prepare", None):
        prepare()
    place, look = RunFolder(folder), getattr(generator, "source", None)
    first = FirstClips()

    def make(requests: Sequence[Request], *, again: bool = True) -> list[Sample]:
        started = time.perf_counter()
        _forget_gpu_peak()
        made, failed = None, []
        try:
            made = list(generator.generate(requests))
            if len(made) != len(requests):
                msg = f"{len(made)} clips came for {len(requests)} requests"
                raise InputError(msg)
            made = first.look(made)
        except BarrenError:
            raise
        except (Exception, SystemExit) as error:
            failed = [_failed(requests[0], error, time.perf_counter() - started)]
            again = again and (not isinstance(error, InputError) or isinstance(error, UnusableError))
            if not again:
                first.look([error])
            made = None
        if made is None:  # the error is gone by now, and with it what its frames held of the GPU
            _let_go()
            if len(requests) > 1:  # one bad prompt must not cost its batch
                return [one for request in requests for one in make([request])]
            return make(requests, again=False) if again else failed
        seconds = (time.perf_counter() - started) / len(requests)
        peaks = _peaks()
        return [
            dataclasses.replace(_kept(place, request, each, seconds, look), **peaks)
            for request, each in zip(requests, made, strict=True)
        ]

    return make


def _dead(
    build: Callable[[], Callable[[Sequence[Request]], list[Sample]]], requests: Sequence[Request]
) -> list[Sample]:
    """What becomes of requests that a process died of: of several each is tried alone; of one it is its failure."""
    made: list[Sample] = []
    for request in requests:
        alone = worker_pool.run_isolated(build, [request]) if len(requests) > 1 else worker_pool.WorkerCrashed()
        made += [_failed(request, alone, 0.0)] if isinstance(alone, worker_pool.WorkerCrashed) else alone
    return made


def _let_go() -> None:
    """Free what a failed call held, before the next one."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _forget_gpu_peak() -> None:
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def _peaks() -> dict[str, float]:
    """Peak memory in MiB; ru_maxrss is in KiB, on macOS in bytes."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peaks = {"peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)}
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        peaks["peak_gpu_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return peaks


def _kept(
    folder: RunFolder,
    request: Request,
    made: Made | InputError,
    seconds: float,
    look: Callable[[Request], str | None] | None,
) -> Sample:
    if isinstance(made, Exception):
        return _failed(request, made, seconds)
    try:
        stem = folder.clip_stem(request.key)
        clip = read_clip(made.clip) if isinstance(made.clip, Path) else made.clip
        spec_mismatch = None if request.clip_spec is None else request.clip_spec.objection(clip)
        stem.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(made.clip, Path):
            path = stem.with_name(stem.name + made.clip.suffix)
            part = path.with_name(f".{path.name}.part")
            (shutil.move if made.moved else shutil.copyfile)(made.clip, part)
            part.replace(path)
        else:
            path = stem.with_name(stem.name + ".mkv")
            write_clip(clip, path)
        if made.truth is not None:
            write_json(stem.with_name(stem.name + ".truth.json"), made.truth)
        name = path.relative_to(folder.path).as_posix()
        copied = isinstance(made.clip, Path) and not made.moved  # then its own hash says it
        source = look(request) if look and not copied else None
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
            clip_name = f"{request.key.prompt}-{request.key.seed}"
            msg = (
                f"{folder.path}: no space is left for the clip {clip_name}; make some, and give the same command again"
            )
            raise InputError(msg) from error
        return _failed(request, error, seconds)


def _no_space(error: BaseException) -> bool:
    """Whether an error is that of a full disk: it would fail every clip that follows."""
    causes = (error, error.__cause__)
    return any(getattr(one, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for one in causes)


def _failed(request: Request, error: BaseException, seconds: float) -> Sample:
    sentence = (
        str(error) if isinstance(error, InputError | worker_pool.WorkerCrashed) else f"{type(error).__name__}: {error}"
    )
    sentence = sentence.removesuffix(": ")  # MemoryError says no more
    return Sample(request.key, None, None, seconds, failure=sentence, refused=isinstance(error, Refused))
