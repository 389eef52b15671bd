"""Makes the clips of a batch in a worker, stores them in the run folder, and records why one failed."""

import dataclasses
import json
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from avbench.core import (
    HopelessError,
    InputError,
    Key,
    Refused,
    Sample,
    UnusableError,
    WrongFormError,
    by_content,
    clip_name,
    field_differences,
    form_differences,
    kind_and_first_line,
    one_line,
)
from avbench.generation.first_clips import FirstClips, nothing_in
from avbench.generation.table import Generator, Made, Request, made_by, method_of, ready
from avbench.storage.media import unequal_lengths, write_clip
from avbench.storage.mirrors.mirror import Place, WorkerFolder
from avbench.storage.reading import file_sha256
from avbench.storage.runs.folder import RunFolder
from avbench.storage.workers import gpu, worker_pool
from avbench.storage.writing import NO_SPACE, replacing, write_json


def put_whole(source: Path, path: Path, how: Callable[[Path, Path], object] = shutil.copyfile) -> None:
    """Copy or move a file to `path` in one step, and wait until it is on disk; a kill leaves no incomplete one."""
    with replacing(path) as part:
        how(source, part)


def worker(
    source: Callable[[], Generator], place: Place, *, stops: bool
) -> Callable[[Sequence[Request]], list[Sample]]:
    """The function that makes a batch; with `stops`, it ends the run if the first clips are all empty."""
    folder = place.opened()
    generator = ready(source)
    source_of = method_of(generator, "source")
    finished = getattr(generator, "finished", False)
    first = FirstClips(stops=stops, has_dtype="dtype" in generator.settings, finished=finished)

    def make(requests: Sequence[Request], *, again: bool = True) -> list[Sample]:
        started = time.perf_counter()
        gpu.forget_peak()
        made, failed = None, []
        try:
            made = first.inspect(made_by(generator, requests))
        except HopelessError:
            raise
        except Exception as error:
            failed = [_failed(requests[0], error, time.perf_counter() - started)]
            passing = isinstance(error, UnusableError) and not isinstance(error, WrongFormError)
            again = again and (not isinstance(error, InputError) or passing)
            if not again and len(requests) == 1:  # of a batch, the other clips may be good
                first.inspect([error])
            made = None
        if made is None:  # after the except block, because the error keeps GPU memory alive
            _require_gpu(failed[0])
            gpu.free_memory()
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


def as_recorded(source: Callable[[], Generator], folder: Path) -> Generator:
    """Build the generator in a worker, maybe on another machine. Raises InputError if it is not the run's."""
    generator, recorded = source(), RunFolder(folder).run().settings
    here = {**recorded, **json.loads(json.dumps(generator.settings))}
    if by_content(here) != by_content(recorded):  # paths may be other ones, from another working folder
        differing = field_differences(here, recorded, "{} here, {} there".format)
        msg = f"the model would have other settings here than {folder}/run.json says: {'; '.join(differing)}"
        raise InputError(msg)
    return generator


def after_crash(
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


def _require_gpu(failed: Sample) -> None:
    """Raise HopelessError if the error of a clip is one after which this process cannot use its GPU any more."""
    if gpu.is_lost():
        msg = (
            f"{failed.key.subset}/{failed.key.prompt}, seed {failed.key.seed}: {failed.failure}. After this error the "
            "process cannot use its GPU any more, so the run stops; give the same command again, which continues"
        )
        raise HopelessError(msg)


def _peaks() -> dict[str, float | None]:
    """Return the peak memory in MiB."""
    peak = worker_pool.peak_memory_mib(resource.RUSAGE_SELF)
    return {"peak_memory_mib": peak, "peak_gpu_memory_mib": gpu.peak_mib()}


def _kept(
    place: WorkerFolder,
    request: Request,
    made: Made | Exception,
    seconds: float,
    source_of: Callable[[Request], str | None] | None,
) -> Sample:
    """Store a clip in the run folder and return its record; an error gives a record of the failure."""
    if isinstance(made, Exception):
        return _failed(request, made, seconds)
    folder = place.run
    try:
        stem = folder.clip_stem(request.key)
        clip = made.read()
        spec_mismatch = None if request.clip_spec is None else request.clip_spec.objection(clip)
        stem.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(made.clip, Path) and made.clip.is_file():
            path = stem.with_name(stem.name + made.clip.suffix)
            put_whole(made.clip, path, shutil.move if made.moved else shutil.copyfile)
        else:
            path = stem.with_name(stem.name + ".mkv")
            write_clip(clip, path)
            if isinstance(made.clip, Path) and made.moved:
                shutil.rmtree(made.clip)
        if made.truth is not None:
            write_json(folder.truth_path(request.key), made.truth)
        place.hand_over(path, *([folder.truth_path(request.key)] if made.truth is not None else []))
        name = path.relative_to(folder.path).as_posix()
        copied = isinstance(made.clip, Path) and not made.moved  # then its own hash identifies its origin
        source = made.source or (source_of(request) if source_of and not copied else None)
        other = form_differences(clip, made.requested or {})
        if other:
            other = None if other in (spec_mismatch or "") else f"not as it was requested: {other}"
        # the reader says it of a file; of a clip in memory nobody has yet
        lengths = [] if isinstance(made.clip, Path) else unequal_lengths(clip.audio, len(clip.frames) / clip.fps)
        empty = nothing_in(clip)
        remark = "; ".join(filter(None, dict.fromkeys([*clip.remarks, *lengths, empty, made.remark, other]))) or None
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
        if no_space(error):
            raise disk_full(folder, request.key) from error
        return _failed(request, error, seconds)


def disk_full(folder: RunFolder, key: Key) -> InputError:
    """The error that ends a command when no space is left for a clip."""
    clip = clip_name(key, folder.run().seeds)
    return InputError(
        f"{folder.path}: the disk is full, no space is left for the clip {clip}; free some, and give the same command "
        "again"
    )


def no_space(error: BaseException) -> bool:
    """Whether an error is that of a full disk, which would fail every following clip too."""
    causes = (error, error.__cause__)
    return any(getattr(one, "errno", None) in NO_SPACE for one in causes)


def _failed(request: Request, error: BaseException, seconds: float) -> Sample:
    foreseen = isinstance(error, InputError | worker_pool.WorkerCrashed)
    sentence = one_line(error) if foreseen else kind_and_first_line(error)
    return Sample(request.key, None, None, seconds, failure=sentence, refused=isinstance(error, Refused))
