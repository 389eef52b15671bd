"""Stage 2: prompts × seeds → clips on disk.

A clip that cannot be made costs that clip only: it is written down with the sentence why, and tried again when the
same command is given again. What is on disk is not made twice. What fails without a sentence is tried once more; a
refusal, which is the model's answer, is not asked for twice. A clip is kept as the model made it; whether it is of the
form that its subset asks for is written down.
"""

import functools
import gc
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from avbench import __version__, engine, generators
from avbench.core import InputError, Key, Refused, Run, Sample, Subset, UnusableError
from avbench.folder import RunFolder, file_sha256, write_json
from avbench.generators import Generator, Made, Request
from avbench.generators.first_clips import BarrenError, FirstClips
from avbench.media import read_clip, write_clip

JOURNAL = "jobs"
"""Folder, inside the run folder, of what a generator keeps for itself."""
_VERSIONED = ("av", "numpy", "opencv-python", "pymunk", "scipy", "torch", "torchvision")
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

    Returns:
        How many clips are still to be made; an iterator that makes them and yields each as it is safely on disk;
        and the generator's remarks.

    Raises:
        InputError: the model is wrong, or the folder holds another run.
    """
    journal = folder.path / JOURNAL
    alone = generator is not None
    generator = generator or generators.build(model, settings, journal)
    threads = getattr(generator, "concurrency", None)
    requests = plan(subsets, seeds)
    run = _run(folder.path.name, model, generator.settings, subsets, seeds)
    folder.start(replace(run, asked=dict(settings), preset=preset), subsets)
    done = {key for key, made in folder.samples().items() if made.path is not None or made.refused}
    todo = [request for request in requests if request.key not in done]
    size = generator.batch_size
    batches = [todo[start : start + size] for start in range(0, len(todo), size)]
    most = getattr(generator, "most_workers", workers)
    count = threads or (1 if alone else min(workers, most))
    source = functools.partial(generators.build, model, dict(settings), journal)
    build = functools.partial(_worker, (lambda: generator) if threads or count == 1 else source, folder.path)

    def make() -> Iterator[Sample]:
        for requests, samples in engine.stream(build, batches, workers=count, threads=bool(threads), outlive=True):
            for one in _dead(build, requests) if isinstance(samples, engine.Died) else samples:
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


def _worker(source: Callable[[], Generator], folder: Path) -> Callable[[Sequence[Request]], list[Sample]]:
    generator = source()
    if prepare := getattr(generator, "prepare", None):
        prepare()
    place, first = RunFolder(folder), FirstClips()

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
            replace(_kept(place, request, each, seconds), **peaks) for request, each in zip(requests, made, strict=True)
        ]

    return make


def _dead(
    build: Callable[[], Callable[[Sequence[Request]], list[Sample]]], requests: Sequence[Request]
) -> list[Sample]:
    """What becomes of requests that a process died of: of several each is tried alone; of one it is its failure."""
    made: list[Sample] = []
    for request in requests:
        alone = engine.alone(build, [request]) if len(requests) > 1 else engine.Died()
        made += [_failed(request, alone, 0.0)] if isinstance(alone, engine.Died) else alone
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


def _kept(folder: RunFolder, request: Request, made: Made | InputError, seconds: float) -> Sample:
    if isinstance(made, Exception):
        return _failed(request, made, seconds)
    try:
        stem = folder.clip_stem(request.key)
        clip = read_clip(made.clip) if isinstance(made.clip, Path) else made.clip
        unlike = None if request.clip_spec is None else request.clip_spec.objection(clip)
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
        return Sample(request.key, name, file_sha256(path), seconds, unlike=unlike, call=made.call)
    except Exception as error:
        return _failed(request, error, seconds)


def _failed(request: Request, error: BaseException, seconds: float) -> Sample:
    sentence = str(error) if isinstance(error, InputError | engine.Died) else f"{type(error).__name__}: {error}"
    sentence = sentence.removesuffix(": ")  # MemoryError says no more
    return Sample(request.key, None, None, seconds, failure=sentence, refused=isinstance(error, Refused))
