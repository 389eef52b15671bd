"""Combines run folders that hold parts of one run, such as its shards, and takes a shard out of a run.

A combined run is the union of its parts: clips, lines of samples.jsonl, and rows, in the order in which one process
makes them. It does not depend on the order in which the parts are given, and combining them again changes nothing.
Parts may ask for more or fewer prompts, seeds and subsets; the combined run asks for all of them.
Scores are not combined: they are computed from the rows. A generator's own files (``jobs/``) stay where they are.

Clips are hard links to those of the parts where the file system allows it, and copies elsewhere. A new run folder is
put together under a hidden name and renamed when it is whole. In a folder that is a run already, samples.jsonl is
replaced last; until then the folder is the run that it was.
"""

import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from avbench.core import (
    InputError,
    Key,
    Run,
    Sample,
    Shard,
    Subset,
    checked_name,
    dealt_prompts,
    different_fields,
    digest,
    field_differences,
    planned_keys,
    require_same_protocol,
)
from avbench.storage import reading
from avbench.storage.content import holds
from avbench.storage.media.conform import ClipForm, seen_of
from avbench.storage.runs.clips import require_unchanged
from avbench.storage.runs.folder import RunFolder, no_run
from avbench.storage.runs.retried import TRIED_AGAIN
from avbench.storage.runs.row_lines import StoredRow, stored_rows
from avbench.storage.writing import line_of, replacing, write_whole, writing_whole

_SEPARATOR = "; "


@dataclass(frozen=True)
class Merged:
    """Counts of a combined run."""

    made: int
    """Clips."""
    failed: int
    """Clips that could not be made, or that the model refused."""
    planned: int
    """Clips that the run should have."""
    missing: Mapping[str, int]
    """Subset → number of clips that no part has tried to make; only subsets with such clips."""
    absent: tuple[str, ...]
    """Shards that should hold these clips and were not given; empty if the parts are not shards of one n."""
    gone: int = 0
    """Clips that were made, and whose file no part has any more."""


def merge(out: Path, parts: Sequence[Path]) -> Merged:
    """Combine run folders into the run folder `out`, which is created, or to which the parts are added.

    Raises:
        InputError: a part is no run folder or is of another run (another model, other weights, settings or clip specs,
            or other prompts or seeds than the first ones of the longest part); two parts hold different clips or rows
            of one key; a clip was changed since it was made; or `out` is a shard, or a folder of something else.
    """
    name = checked_name(out.absolute().name, "run name")
    into = out if _is_run(out) else None
    if into is None and out.exists() and any(out.iterdir()):
        msg = f"{out} is not empty and is no run folder: it has no run.json; give another folder"
        raise InputError(msg)
    if into is not None and (shard := RunFolder(into).run().shard) is not None:
        msg = f"{out} is shard {shard} of a run; the first folder receives the merged run, so name a new one"
        raise InputError(msg)
    if into is None:
        out = out.resolve() if out.is_symlink() else out
        _require_replaceable(out)
    with _locked(into):
        places = {place.resolve(): place for place in [*([into] if into else []), *parts]}
        folders = [RunFolder(place) for place in sorted(places.values(), key=lambda place: (place != into, str(place)))]
        for folder in folders:
            if not _is_run(folder.path):
                raise no_run(folder.path)
            require_unchanged(folder)
        subsets = _longest_subsets(folders)
        run = _common_run(folders, subsets)
        keys = planned_keys(subsets, run.seeds)
        samples = _write(out, replace(run, name=name), folders, keys, new=into is None)
    missing = [key for key in keys if key not in samples]
    made = sum(sample.path is not None for sample in samples.values())
    counts = Counter(key.subset for key in missing)
    gone = sum(one.path is not None and not (out / one.path).is_file() for one in samples.values())
    absent = _absent(folders, subsets, missing)
    return Merged(made, len(samples) - made, len(keys), dict(sorted(counts.items())), absent, gone)


def take_share(source: RunFolder, shard: Shard, out: Path) -> None:
    """Make `out` the run folder of one shard of a whole run, with its clips and rows, or bring it up to date.

    The clips are those of `source`, which may ask for more by now, or have made some again; rows are of both.

    Raises:
        InputError: `source` is itself a shard, `out` holds another run, or a clip was changed since it was made.
    """
    whole = source.run()
    if whole.shard is not None:
        msg = f"{source.path} is shard {whole.shard} of a run already: leave --shard out, or give the whole run"
        raise InputError(msg)
    require_unchanged(source)
    folders = [source]
    run = replace(whole, name=out.name, shard=str(shard))
    into = out if _is_run(out) else None
    with _locked(into):
        if into is not None:
            held = RunFolder(into)
            extended = _extended(held.run(), held, source.subsets(), run.seeds)
            _require_equal(held, extended.identity(), run.identity(), source.path)
            folders = [held, source]
        keys = planned_keys(source.subsets(), run.seeds, shard)
        _write(out, run, folders, keys, new=into is None, clips_of=[source])


def _locked(into: Path | None) -> AbstractContextManager[None]:
    """Lock the run folder that others are merged into before it is read, as another command may be writing it."""
    return nullcontext() if into is None else RunFolder(into).writing()


def _require_replaceable(out: Path) -> None:
    """Raise InputError on an empty folder that a new one cannot take the place of."""
    here = out.is_dir() and out.samefile(Path.cwd())
    if here or out.is_mount():
        what = "the folder that you are in" if here else "a mount point"
        msg = f"{out} is {what}, and a merged run takes the place of the folder: name a new one, such as {out / 'NAME'}"
        raise InputError(msg)


def _is_run(place: Path) -> bool:
    return (place / "run.json").is_file()


def _longest_subsets(folders: Sequence[RunFolder]) -> list[Subset]:
    """Of each subset the one with the most prompts; in the order of a part that has all subsets, else by name."""
    found: dict[str, Subset] = {}
    held = [folder.subsets() for folder in folders]
    for subset in (one for subsets in held for one in subsets):
        if subset.name not in found or len(subset.prompts) > len(found[subset.name].prompts):
            found[subset.name] = subset
    fullest = max(held, key=len)
    names = [one.name for one in fullest] if len(fullest) == len(found) else sorted(found)
    return [found[name] for name in names]


def _common_run(folders: Sequence[RunFolder], subsets: Sequence[Subset]) -> Run:
    """Return the run to which all parts belong; differing versions and machines are listed side by side."""
    runs = [replace(folder.run(), shard=None) for folder in folders]
    runs = [run.spelled_as(runs[0]) for run in runs]
    seeds = max((run.seeds for run in runs), key=len)
    runs = [_extended(run, folder, subsets, seeds) for run, folder in zip(runs, folders, strict=True)]
    for folder, run in zip(folders, runs, strict=True):
        first = runs[0].identity() | _chosen(runs[0])
        _require_equal(folder, run.identity() | _chosen(run), first, folders[0].path)
    versions, machine = ([getattr(run, name) for run in runs] for name in ("versions", "machine"))
    return replace(runs[0], versions=_side_by_side(versions), machine=_side_by_side(machine))


def _extended(run: Run, folder: RunFolder, subsets: Sequence[Subset], seeds: tuple[int, ...]) -> Run:
    """A part's run, asking for all of these prompts and seeds, unless its own are not the first ones of them."""
    held = {one.name: one for one in folder.subsets()}
    digests = {one.name: held.get(one.name, one).digest for one in subsets}
    digests |= {one.name: one.digest for one in subsets if one.name in held and one.begins_with(held[one.name])}
    return replace(run, subsets=digests, seeds=seeds if seeds[: len(run.seeds)] == run.seeds else run.seeds)


def _chosen(run: Run) -> dict[str, Any]:
    return {"asked": dict(run.asked), "preset": run.preset}


def _require_equal(folder: RunFolder, ours: Mapping[str, Any], theirs: Mapping[str, Any], others: Path) -> None:
    """Raise InputError where the folder's fields, `ours`, are not those of `others`."""
    if differing := field_differences(ours, theirs, lambda one, other: f"{one} there, {other} in {others}"):
        msg = f"{folder.path} belongs to another run and cannot be merged: {'; '.join(differing)}"
        if {"settings.folder"} <= {*different_fields(ours, theirs)} <= {"model", "settings.folder"}:
            msg += (
                ". If both have the same clips, give the command of each part again with one of the folders: it "
                "measures nothing again, and then the parts can be merged"
            )
        raise InputError(msg)


def _side_by_side(found: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Each field with all its values, sorted. Values that an earlier merge listed side by side are separated again."""
    names = dict.fromkeys(name for one in found for name in one)
    values = {name: {part for one in found if name in one for part in one[name].split(_SEPARATOR)} for name in names}
    return {name: _SEPARATOR.join(sorted(values[name])) for name in names}


def _absent(folders: Sequence[RunFolder], subsets: Sequence[Subset], missing: Sequence[Key]) -> tuple[str, ...]:
    shards = {Shard.parse(shard) for folder in folders if (shard := folder.run().shard) is not None}
    if len({shard.count for shard in shards}) != 1:
        return ()
    count, lacking = next(iter(shards)).count, {key[:2] for key in missing}
    others = [shard for number in range(1, count + 1) if (shard := Shard(number, count)) not in shards]
    return tuple(str(shard) for shard in others if lacking & {*dealt_prompts(subsets, shard)})


def _write(
    out: Path,
    run: Run,
    folders: Sequence[RunFolder],
    keys: Sequence[Key],
    *,
    new: bool,
    clips_of: Sequence[RunFolder] | None = None,
) -> dict[Key, Sample]:
    """Write the union of folders, restricted to these keys, and return its samples in the order of the keys.

    A run folder `out` that is not `new` is locked. Clips are those of `clips_of` alone, if it is given.
    """
    _require_one_precision(folders)
    samples, homes = _samples(clips_of or folders, keys)
    place = RunFolder(out.with_name(f".{out.name}.merging") if new else out)
    with _putting_together(place, out) if new else nullcontext():
        place.require_distinct([subset for folder in folders for subset in folder.subsets()])
        for key, sample in samples.items():
            _put_clip(homes[key], place, sample)
        _write_rows(place.path, folders, samples)
        if new or place.run() != run:
            for name, sha256 in run.subsets.items():
                holders = [folder for folder in folders if folder.run().subsets.get(name) == sha256]
                write_whole(place.subset_path(name), min(reading.read_bytes(one.subset_path(name)) for one in holders))
            if not new:
                place.write_run(run)
        with writing_whole(place.path / "samples.jsonl") as file:
            file.writelines(line_of(asdict(sample)) for sample in samples.values())
        if new:
            place.write_run(run)
            place.path.rename(out)
            (out / ".lock").unlink(missing_ok=True)  # on a disk without locks this file itself is the lock
    return samples


@contextmanager
def _putting_together(place: RunFolder, out: Path) -> Iterator[None]:
    """Lock a new folder, without what a killed merge left in it. An error, such as a full disk, deletes it.

    Raises InputError if another command puts the same run together, which takes the folder away when it is done.
    """
    try:
        with place.writing():
            _clear(place.path)
            try:
                yield
            except BaseException:
                shutil.rmtree(place.path, ignore_errors=True)
                raise
    except (InputError, OSError) as error:
        if not _is_run(out):
            raise
        msg = f"{out} was put together by another command in the meantime; give the same command again"
        raise InputError(msg) from error


def _clear(place: Path) -> None:
    for entry in place.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != ".lock":
            entry.unlink()


def _samples(folders: Sequence[RunFolder], keys: Sequence[Key]) -> tuple[dict[Key, Sample], dict[Key, RunFolder]]:
    """The sample of each key that has one, and the folder that its clip is taken from.

    A clip is preferred to a refusal, a refusal to a failure, and an existing file to a missing one.
    """
    found: dict[Key, list[tuple[Sample, RunFolder]]] = {}
    for folder in folders:
        for key, sample in folder.samples().items():
            found.setdefault(key, []).append((sample, folder))
    samples, homes = {}, {}
    for key in keys:
        if key in found:
            clips = {sample.sha256: folder.path for sample, folder in found[key] if sample.sha256 is not None}
            if len(clips) > 1:
                one, other = [*clips.values()][:2]
                msg = (
                    f"{one} and {other} hold different clips of {_named(key)}, so they are not parts of one run. If "
                    "the clip was made again in one of them, leave the other out, or merge the parts into a new folder"
                )
                raise InputError(msg)
            samples[key], homes[key] = min(found[key], key=_rank)
    return samples, homes


def _rank(found: tuple[Sample, RunFolder]) -> tuple[bool, bool, bool, str]:
    sample, folder = found
    gone = sample.path is not None and not (folder.path / sample.path).is_file()
    return sample.path is None, not sample.refused, gone, digest(asdict(sample))


def _named(key: Key) -> str:
    return f"{key.subset} {key.prompt}-{key.seed}"


def _put_clip(home: RunFolder, place: RunFolder, sample: Sample) -> None:
    """Link or copy a clip, with its ground truth, into a run folder; a missing file is not an error."""
    if sample.path is None or home.path == place.path or not (home.path / sample.path).is_file():
        return
    stem = place.clip_stem(sample.key).relative_to(place.path).as_posix()
    if not sample.path.startswith(f"{stem}.") or "/" in sample.path.removeprefix(stem):
        msg = f"{home.path}/samples.jsonl: the clip of {_named(sample.key)} is {sample.path!r}; it must be {stem}.…"
        raise InputError(msg)
    target = place.path / sample.path
    if not holds(target, str(sample.sha256)):
        _put(home.path / sample.path, target)
    truth, there = home.truth_path(sample.key), place.truth_path(sample.key)
    if truth.is_file() and not there.is_file():
        _put(truth, there)


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as part:
        try:
            os.link(source.resolve(), part)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, part)


def _write_rows(place: Path, folders: Sequence[RunFolder], samples: Mapping[Key, Sample]) -> None:
    """Write the rows of every feature into the folder of its protocol, in the order of the samples."""
    homes: dict[str, list[Path]] = {}
    seen = _seen(folders, samples)
    for folder in folders:
        for feature in folder.feature_folders():
            homes.setdefault(feature.name, []).append(feature)
    for name, features in homes.items():
        protocols = [reading.read_json(feature / "protocol.json", dict) for feature in features]
        for feature, protocol in zip(features, protocols, strict=True):
            require_same_protocol(protocols[0], protocol, f"the rows in {features[0]} and {feature}")
        rows: dict[Key, list[StoredRow]] = {}
        for feature in features:
            for key, row in stored_rows(feature / "rows.jsonl").items():
                rows.setdefault(key, []).append(row)
        target = place / "features" / name
        write_whole(target / "protocol.json", min(reading.read_bytes(one / "protocol.json") for one in features))
        with writing_whole(target / "rows.jsonl") as file:
            for key, sample in samples.items():
                if key in rows:
                    file.write(reading.with_checksum(_one_line(sample, rows[key], seen.get(key, set()))) + b"\n")


def _require_one_precision(folders: Sequence[RunFolder]) -> None:
    """Raise InputError where folders have rows of one network in two precisions: a run's numbers would lack a part."""
    known: dict[str, tuple[str, Path]] = {}
    for folder in folders:
        for place in folder.feature_folders():
            protocol = reading.read_json(place / "protocol.json", dict)
            if "precision" in protocol:
                apart = digest({name: one for name, one in protocol.items() if name not in ("precision", "notes")})
                kind, first = known.setdefault(apart, (protocol["precision"], folder.path))
                if kind != protocol["precision"]:
                    msg = (
                        f"{first} has rows of {protocol.get('name')} in {kind}, and {folder.path} in "
                        f"{protocol['precision']}, but a run holds rows of one precision: delete {place}, and measure "
                        "that part again with the --precision of the other"
                    )
                    raise InputError(msg)


def _seen(folders: Sequence[RunFolder], samples: Mapping[Key, Sample]) -> dict[Key, set[str | None]]:
    """The hashes that current rows of each clip have: of what is seen of it alone, or with the prompt's other clips.

    They are those of `all_seen` in features/current.py, but for rows that compare with a clip of another run.
    """
    forms = {one.name: ClipForm.of(one.clip_spec) for folder in folders for one in folder.subsets() if one.clip_spec}
    made = [sample for _, sample in sorted(samples.items()) if sample.path is not None]
    alone = {one.key: seen_of(one, forms) for one in made}
    of_prompt: dict[tuple[str, str], list[str | None]] = {}
    for key, seen in alone.items():
        of_prompt.setdefault(key[:2], []).append(seen)
    return {key: {seen, digest([seen, *of_prompt[key[:2]]])} for key, seen in alone.items()}


def _one_line(sample: Sample, rows: Sequence[StoredRow], seen: Collection[str | None]) -> bytes:
    """Choose one row of a clip: rows of other clips than were `seen`, and rows of a failure, give way to others."""
    rows = [row for row in rows if row.clip_sha256 in seen] or rows
    measured = [row for row in rows if not (row.missing or "").startswith(TRIED_AGAIN)]
    lines: dict[bytes, StoredRow] = {}
    for row in measured or rows:
        with reading.opened(row.path) as file:
            lines.setdefault(row.line(file), row)
    if measured and len(lines) > 1:
        one, other = [*lines.values()][:2]
        msg = (
            f"{one.where} and {other.where} hold different rows of {_named(sample.key)}, so they are not of one "
            "measuring: merge only one of the two"
        )
        raise InputError(msg)
    return min(lines)
