"""Decides what a run folder keeps when a command goes on with its run, and throws away what is made again."""

import dataclasses
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from avbench.core import InputError, Key, Run, Sample, Subset, clip_name
from avbench.generation.names import same_place
from avbench.generation.table import Generator, Request, method_of
from avbench.storage.reading import read_bytes
from avbench.storage.runs.clips import altered
from avbench.storage.runs.folder import SCORED, RunFolder
from avbench.storage.writing import read_sealed

JOURNAL = "jobs"
"""Folder inside the run folder for a generator's own files."""
_SHA256_LETTERS = 64


def as_held(folder: RunFolder, run: Run, generator: Generator, requests: Sequence[Request]) -> Run:
    """The run with its model as the folder's run spells it, where both are the same files, named by other paths.

    Finished clips whose folder is no longer where the folder's run found it, or is a copy, are recorded where they are.
    """
    if not (folder.path / "run.json").exists():
        return run
    held = folder.run()
    same = same_place(run.model, held.model)
    if run.model.startswith("clips:") and held.model.startswith("clips:"):
        # Their settings hold their absolute folder, so it is known also from another working folder.
        here, place = run.settings.get("folder"), held.settings.get("folder")
        if here != place and _have_moved(folder, Path(str(place)), generator, requests):
            held = dataclasses.replace(held, model=run.model, settings={**held.settings, "folder": here})
            folder.write_run(held)
        same = same or here == held.settings.get("folder")
    return (dataclasses.replace(run, model=held.model) if same else run).spelled_as(held)


def _have_moved(folder: RunFolder, place: Path, generator: Generator, requests: Sequence[Request]) -> bool:
    """Whether the generator has a run's finished clips, which were in `place`; not if one of them is another one now.

    While `place` is there it must have all clips of the run: of a run that is not finished, the rest may be others.
    """
    samples = folder.samples()
    made, asked = {key for key, one in samples.items() if one.path is not None}, {one.key for one in requests}
    known = made == asked if place.exists() else made & asked
    return bool(known) and stale_clips(folder, generator, requests, samples) == ({}, {})


def is_damaged(folder: RunFolder) -> bool:
    """Whether a folder's run.json was cut, changed or deleted after it was written, so that its run is unknown.

    Raises InputError if it cannot be read, which is no damage.
    """
    path = folder.path / "run.json"
    if not path.exists():
        return folder.has_samples()
    read_bytes(path)
    try:
        read_sealed(path, "")
    except InputError:
        return True
    return False


def holds_another(folder: RunFolder, run: Run, subsets: Sequence[Subset]) -> bool:
    """Whether a folder holds a different run from this one."""
    return (folder.path / "run.json").exists() and folder.objection(run, subsets) is not None


def only_gaps_go(folder: RunFolder, run: Run, subsets: Sequence[Subset], requests: Sequence[Request]) -> bool:
    """Whether a folder's run is this one, but for prompts that are no longer asked for and of which it has no clip, as
    those of another folder that was scored beside it.
    """
    if not (folder.path / "run.json").exists():
        return False
    there, asked = folder.run(), {one.key for one in requests}
    held = {(one.name, prompt.id): prompt for one in folder.subsets() for prompt in one.prompts}
    return (
        dataclasses.replace(run, subsets=there.subsets, seeds=there.seeds).identity() == there.identity()
        and all(held.get((one.name, prompt.id), prompt) == prompt for one in subsets for prompt in one.prompts)
        and not any(sample.path and key not in asked for key, sample in folder.samples().items())
    )


def unchanged_clips(folder: RunFolder, generator: Generator, requests: Sequence[Request]) -> set[Key]:
    """The keys of finished clips that a run has and would get again, byte for byte, for the same prompts.

    There are none if the folder's run is not of finished clips, or cannot be read.
    """
    source_of = method_of(generator, "source")
    try:
        if source_of is None or not folder.run().model.startswith("clips:"):
            return set()
        prompts = {(one.name, prompt.id): prompt.to_json() for one in folder.subsets() for prompt in one.prompts}
        samples = folder.samples()
    except InputError:
        return set()
    found = set()
    for request in requests:
        sample = samples.get(request.key)
        if sample and sample.path and prompts.get(request.key[:2]) == request.prompt.to_json():
            with suppress(InputError):  # the clip is gone
                if source_of(request) == (sample.source or sample.sha256):
                    found.add(request.key)
    return found


def throw_away(folder: RunFolder, measured: Collection[Key] = (), *, scores: bool = True) -> None:
    """Delete everything that a run made, but for the rows of the clips `measured`, and the scores if not `scores`.

    samples.jsonl is deleted first and run.json last, so that the folder stays consistent if the process is killed.
    """
    if measured:
        folder.keep_rows(measured)
    every = ("samples.jsonl", *(SCORED if scores else ()), "features", "clips", JOURNAL, "run.json")
    for name in (one for one in every if one != "features" or not measured):
        path = folder.path / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def stale_clips(
    folder: RunFolder, generator: Generator, requests: Sequence[Request], samples: Mapping[Key, Sample]
) -> tuple[dict[Key, str], dict[Key, str]]:
    """Map the clips whose file was changed or whose origin is gone, and those whose origin has changed, to a sentence
    that says how.
    """
    here = altered(folder)
    lost = {one.key: f"{folder.path / str(one.path)} is not the file that was made" for one in here.changed}
    lost |= {one.key: f"{folder.path / str(one.path)} is no longer there" for one in here.gone}
    changed = {}
    if source_of := method_of(generator, "source"):
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


def changes_in_words(stale: Mapping[Key, str], folder: RunFolder, samples: Mapping[Key, Sample]) -> str:
    """Say how many of a run's clips have changed, and how one of them has."""
    key, why = next(iter(stale.items()))
    made = sum(one.path is not None for one in samples.values())
    return (
        f"{len(stale)} of {made} clips of {folder.path} {'has' if len(stale) == 1 else 'have'} changed, for example "
        f"{clip_name(key, {one.seed for one in samples})}: {why}"
    )


def _short(source: str) -> str:
    """Shorten a clip's origin for a message."""
    return f"a file with the sha256 {source[:12]}…" if len(source) == _SHA256_LETTERS else source[:300]
