"""Builds references: of a measured run, of several shards, or of another tool's statistics.

reference.py describes the files and reads them.
"""

import functools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save
from threadpoolctl import threadpool_limits

from avbench.core import (
    Columns,
    InputError,
    Key,
    Moments,
    Protocol,
    Row,
    Subset,
    all_of,
    clip_name,
    counted,
    digest,
    nearest,
    require_same_protocol,
)
from avbench.features.current import columns_of
from avbench.metrics import imported_statistics
from avbench.metrics.reference import CLIP_COLUMNS, COUNTED, FIRST_CLIPS, KEPT, Reference, keys_of, load, splits_of
from avbench.metrics.table import known_metrics
from avbench.storage.media.conform import ClipForm
from avbench.storage.media.form import first_forms
from avbench.storage.reading import file_sha256, read_json
from avbench.storage.runs.folder import RunFolder
from avbench.storage.sharing import shared_command, without_folders
from avbench.storage.writing import json_bytes, write_json, write_whole

FIRST_SEED = 1_000_000
"""The first seed of reference clips; runs do not use seeds from here on by default."""
ROWS = 10_000
"""Largest number of rows that are kept of each feature."""
NOT_STATED = "not stated"
"""The licence in the card if the owner of the clips gave none."""
_CHUNK = 1024  # rows held in memory while moments are computed


@threadpool_limits.wrap(limits=1)
def pack(
    folder: RunFolder,
    subset: Subset,
    protocols: Sequence[Protocol],
    place: Path,
    licence: str | None = None,
    *,
    rows: int = ROWS,
    about: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> str:
    """Make a reference of a measured run; return the sha256 of its columns.

    The card also gets the fields of `about`: how its clips were chosen, and the command.

    A feature without a value for any clip is left out, and the card gives the reason, as it does if some clips have no
    value. Rows are read one by one, so that memory does not grow with the clips. Embeddings are stored as float32, as
    the networks return them; scalars as float64.

    Raises:
        InputError: a clip failed, a feature was not measured, or no clip has any feature; or `place` holds another
            reference, and `replace` is false.
    """
    run, samples = folder.run(), folder.samples()
    if failed := [sample for sample in samples.values() if sample.failure]:
        example = f"{clip_name(failed[0].key, run.seeds)}: {failed[0].failure}"
        msg = f"{counted(len(failed), 'clip')} failed, for example {example}; a reference needs all clips"
        raise InputError(msg)
    made = sorted(samples.values(), key=lambda sample: sample.key)
    clips = pd.DataFrame([(one.key.prompt, one.key.seed, one.sha256) for one in made], columns=CLIP_COLUMNS)
    keys = [sample.key for sample in made]
    kept, taken = chosen_keys(keys, rows), dict[str, _Taken]()
    for protocol in protocols:
        one = taken[protocol.name] = _taken_in(folder, protocol, keys, kept)
        if not one.measured and not one.why:
            msg = f"no clip of {subset.name} has a row of {protocol.name}; measure the run first"
            raise InputError(msg)
        clips[protocol.name] = one.marks
    left_out = {name: one.gap(len(made)) for name, one in taken.items() if one.why and not one.measured}
    values = {name: one.columns for name, one in taken.items() if one.measured}
    if not values:
        msg = f"no feature of {subset.name} can be a reference: {'; '.join(sorted(set(left_out.values())))}"
        raise InputError(msg)
    card = {
        "subset": subset.name,
        "subset_digest": subset.digest,
        "model": run.model,
        "settings": run.settings,
        "seeds": list(run.seeds),
        "clips": {name: sum(map(bool, one.marks)) for name, one in taken.items()},
        "licence": licence or NOT_STATED,
        "versions": run.versions,
        **(about or {}),
    }
    noted: dict[str, Any] = {
        "left_out": left_out,
        "unmeasured": {name: one.gap(len(made)) for name, one in taken.items() if one.why and one.measured},
        "gpus": {name: one.gpus for name, one in taken.items() if one.gpus},
        "splits": splits_of(subset),
    }
    if subset.clip_spec is None:
        noted[FIRST_CLIPS] = _first_clips(folder.path / str(one.path) for one in made if one.path is not None)
    elif any(sample.spec_mismatch for sample in made):
        noted["clip_form"] = ClipForm.of(subset.clip_spec).describe()
    card |= {name: known for name, known in noted.items() if known}
    moments = {name: one.moments for name, one in taken.items() if one.moments is not None}
    described = {protocol.name: protocol.describe() for protocol in protocols}
    return write(place, card, values, moments, clips, described, replace=replace)


def note_first_clips(place: Path, clips: Iterable[Path]) -> None:
    """Put the forms of the first clips on the card of a reference that an earlier version built of them without these.

    No file that the card's hashes name is changed. Raises OSError if the card cannot be written.
    """
    card = read_json(place / "card.json")
    if FIRST_CLIPS not in card and (known := _first_clips(clips)):
        write_json(place / "card.json", {**card, FIRST_CLIPS: known})


def _first_clips(clips: Iterable[Path]) -> list[dict[str, Any]]:
    return [{**asdict(one), "rate": str(one.rate)} for one in first_forms(clips)]


def write(
    place: Path,
    card: Mapping[str, Any],
    values: Mapping[str, Columns],
    moments: Mapping[str, Mapping[str, Moments]],
    clips: pd.DataFrame,
    protocols: Mapping[str, Any],
    *,
    replace: bool = False,
) -> str:
    """Write a reference folder, its card last and without local paths; return the sha256 of its columns.

    Raises InputError if the folder holds another reference, and `replace` is false.
    """
    flat = {
        f"{feature}/{name}": column.astype(np.float32) if column.ndim > 1 else column
        for feature, known in values.items()
        for name, column in known.items()
    }
    files = {"columns.safetensors": save(flat), "clips.csv": clips.to_csv(index=False, lineterminator="\n").encode()}
    if moments:
        parts = {
            f"{feature}/{name}/{part}": array
            for feature, known in moments.items()
            for name, one in known.items()
            for part, array in (("n", np.array([one.n])), ("mean", one.mean), ("scatter", one.scatter))
        }
        files["moments.safetensors"] = save(parts)
    hashes = {name: sha256(content).hexdigest() for name, content in files.items()}
    whole = {**without_folders(card), "sha256": hashes, "protocols": dict(protocols)}
    if not replace:
        _require_no_other(whole, place)
    for name, content in files.items():
        write_whole(place / name, content)
    write_json(place / "card.json", whole)
    return hashes["columns.safetensors"]


def _require_no_other(card: Mapping[str, Any], place: Path) -> None:
    """Raise InputError, with what differs, if a folder holds another reference; another command makes it no other."""
    path, new = place / "card.json", json.loads(json_bytes(card))
    if not path.exists():  # it is written last, so no reference is complete without it
        return
    try:
        there = read_json(path)
        names = [name for name in {**new, **there} if name != "command" and new.get(name) != there.get(name)]
        if not names:
            return
        differing = f"they differ in {all_of(['the numbers' if name == 'sha256' else name for name in names])}"
    except InputError as error:
        differing = str(error)
    msg = (
        f"{place} holds another reference than would be written: {differing}. Give another out (--out), or "
        "replace=True (--replace) to write over what is there"
    )
    raise InputError(msg)


def merge(places: Sequence[Path], place: Path, *, rows: int = ROWS, replace: bool = False) -> str:
    """Merge several shards into one reference, in any order; return the sha256 of its columns.

    The rows are those of all shards; a clip in several shards is counted once. Moments are merged by the centred
    update.

    Raises:
        InputError: shards of different subsets, protocols or features; one clip with different bytes; shards with
            moments that share clips, which would be counted twice; an imported reference, which does not list clips;
            or `place` holds another reference, and `replace` is false.
    """
    loaded = sorted(((load(each), each) for each in places), key=lambda one: digest(one[0].card["sha256"]))
    shards = [shard for shard, _ in loaded]
    first, its_place = loaded[0]
    for shard, from_place in loaded:
        if shard.clips.empty:
            msg = f"{from_place} was imported: it does not list its clips, so it cannot be merged"
            raise InputError(msg)
    for shard, from_place in loaded[1:]:
        if (shard.subset, shard.subset_digest) != (first.subset, first.subset_digest):
            msg = f"shards of different subsets cannot be merged: {first.subset} and {shard.subset}, or other versions"
            raise InputError(msg)
        require_same_protocol(first.protocols, shard.protocols, f"the shards {its_place} and {from_place}")
    clips = _union(shards)
    kept = chosen_keys(keys_of(first.subset, clips), rows)
    values: dict[str, Columns] = {}
    moments: dict[str, dict[str, Moments]] = {}
    for feature in first.protocols:
        marks = clips[feature].to_numpy()
        keep = np.array([key in kept for key in keys_of(first.subset, clips)]) & (marks == KEPT)
        known, everything = _merged(shards, feature, kept)
        if known:
            values[feature] = known
        if (marks[~keep] > 0).any():
            moments[feature] = everything
        clips[feature] = np.where(keep, KEPT, np.where(marks > 0, COUNTED, 0))
    card = {
        "subset": first.subset,
        "subset_digest": first.subset_digest,
        "clips": {feature: int((clips[feature] > 0).to_numpy().sum()) for feature in first.protocols},
        "licence": "; ".join(sorted({shard.card["licence"] for shard in shards})),
        "command": shared_command(["avbench", "reference", "merge", *places], {"out": place.name, "rows": rows}),
        "shards": [{name: value for name, value in shard.card.items() if name != "protocols"} for shard in shards],
    }
    lacking = [shard.card.get("left_out", {}) for shard in shards]
    if left_out := {name: why for name, why in lacking[0].items() if all(name in one for one in lacking)}:
        card["left_out"] = left_out
    if splits := first.card.get("splits"):  # of the prompts, which all shards have in common
        card["splits"] = splits
    return write(place, card, values, moments, clips, first.protocols, replace=replace)


def import_statistics(
    file: Path,
    kind: str,
    protocol: Protocol,
    column: str | None,
    place: Path,
    *,
    n: int | None,
    source: str,
    licence: str,
    replace: bool = False,
) -> str:
    """Make a reference of another tool's statistics file; return the sha256 of that file.

    It is the user's claim that the file was made under `protocol`; the card says so. `column` is the name of the
    embedding; None takes the one that the metrics of this feature read of a reference.

    Raises:
        InputError: see `imported_statistics.read`; also if no metric reads the column, the feature has another size,
            or `place` holds another reference, and `replace` is false.
    """
    column = _column_of_moments(protocol.name, column)
    found = imported_statistics.read(file, kind, n=n)
    sized = re.match(r"\d+(?= )", str(protocol.describe().get("output")))  # such as "400 logits"
    if sized and int(sized[0]) != len(found.moments.mean):
        msg = (
            f"{file} has {len(found.moments.mean)} dimensions, and {protocol.name} has {sized[0]}: it is of another "
            "network"
        )
        raise InputError(msg)
    of_file = file_sha256(file)
    asked = {"format": kind, "feature": protocol.name, "column": column, "source": source, "licence": licence, "n": n}
    card = {
        "subset": place.name,
        "subset_digest": None,
        "clips": {protocol.name: found.moments.n},
        "licence": licence,
        "command": shared_command(["avbench", "reference", "import", file], {**asked, "out": place.name}),
        "imported": {"format": kind, "sha256": of_file, "divisor": found.divisor, "source": source, "claimed": True},
    }
    clips = pd.DataFrame(columns=[*CLIP_COLUMNS, protocol.name])
    moments = {protocol.name: {column: found.moments}}
    write(place, card, {}, moments, clips, {protocol.name: protocol.describe()}, replace=replace)
    return of_file


def _column_of_moments(feature: str, asked: str | None) -> str:
    """The embedding of a feature whose moments metrics read of a reference."""
    metrics = [one for one in known_metrics().values() if one.moments]
    columns = sorted({one.reference_column or one.column for one in metrics if one.feature == feature})
    if not columns:
        msg = f"no metric computes a distance from mean and covariance of {feature}; "
        raise InputError(msg + nearest(feature, {one.feature for one in metrics}))
    if asked is not None and asked not in columns:
        msg = f"no metric reads the mean and covariance of {asked!r} of {feature}; {nearest(asked, columns)}"
        raise InputError(msg)
    if asked is None and len(columns) > 1:
        msg = f"{feature} has several embeddings: give --column; choices: {', '.join(columns)}"
        raise InputError(msg)
    return asked or columns[0]


def chosen_keys(keys: Iterable[Key], count: int) -> set[Key]:
    """The `count` keys with the smallest hashes: a choice that depends neither on order nor on shards."""
    return set(sorted(keys, key=lambda key: digest(list(key)))[:count])


@dataclass(frozen=True)
class _Taken:
    """What a reference takes of the rows of one feature.

    A value whose shape differs between rows, such as times of events, is neither in columns nor in moments.
    """

    columns: Columns
    """Of the kept rows."""
    moments: dict[str, Moments] | None
    """Of every embedding over all rows; None if all rows are kept."""
    marks: list[int]
    """Of every clip: KEPT, COUNTED, or 0 without a value."""
    measured: int
    """Number of rows with values."""
    why: Counter[str]
    """Why rows have no values → how many."""
    gpus: list[str]

    def gap(self, clips: int) -> str:
        """Why the feature has no value for some or all of so many clips."""
        ((reason, count),) = self.why.most_common(1)
        if not self.measured:
            return f"{reason} ({count} of {clips} clips)"
        return reason if len(self.why) == 1 else f"{reason} ({count}), and other reasons"


def _taken_in(folder: RunFolder, protocol: Protocol, keys: Sequence[Key], kept: set[Key]) -> _Taken:
    """Read the rows of a feature, with one chunk of those in memory that are not kept; `keys` are those of all clips.

    Raises InputError if rows do not fit each other.
    """
    measured, gpus, why = set[Key](), set[str](), Counter[str]()
    keep, chunk = list[Row](), list[Row]()
    moments: dict[str, Moments] = {}
    shapes: dict[str, set[tuple[int, ...] | None]] = {}

    def count() -> None:
        for name, column in columns_of([protocol.name], chunk)[1].items():
            seen = shapes.setdefault(name, set())
            seen.add(None if column.dtype == object else column.shape[1:])
            if column.ndim > 1 and column.size and len(seen) == 1:
                part = Moments.of(column.reshape(-1, column.shape[-1]))
                moments[name] = moments[name].merge(part) if name in moments else part
        chunk.clear()

    try:
        for row in folder.stream_rows(protocol):
            if row.values is None:
                why[str(row.missing)] += 1
                continue
            measured.add(row.key)
            gpus.update(filter(None, [row.gpu]))
            if row.key in kept:
                keep.append(row)
            chunk.append(row)
            if len(chunk) == _CHUNK:
                count()
        count()
        columns = columns_of([protocol.name], keep)[1]
    except InputError as error:
        msg = f"{protocol.name} cannot be kept in a reference: {error}"
        raise InputError(msg) from error
    regular = {name for name, seen in shapes.items() if len(seen) == 1 and None not in seen and (0,) not in seen}
    marks = [(KEPT if key in kept else COUNTED) if key in measured else 0 for key in keys]
    known = {name: column for name, column in columns.items() if name in regular}
    everything = {name: one for name, one in moments.items() if name in regular} if measured - kept else None
    return _Taken(known, everything, marks, len(measured), why, sorted(gpus))


def _union(shards: Sequence[Reference]) -> pd.DataFrame:
    """The clips of all shards, each once, in the order of their keys."""
    every = pd.concat([shard.clips for shard in shards], ignore_index=True)
    together = every.groupby(["prompt", "seed"])
    counts: dict[Any, int] = together["clip_sha256"].nunique().to_dict()
    if repeated := [key for key, count in counts.items() if count > 1]:
        msg = f"two shards hold different clips with one key: {repeated[0]}"
        raise InputError(msg)
    if len(together) < len(every) and any(shard.known_moments for shard in shards):
        msg = f"{len(every) - len(together)} clips are in several shards with moments, and would be counted twice"
        raise InputError(msg)
    return together.first().reset_index()


def _merged(shards: Sequence[Reference], feature: str, kept: set[Key]) -> tuple[Columns, dict[str, Moments]]:
    """One feature of all shards: columns of the kept rows in the order of their keys, and moments of all rows.

    A value whose shape differs between rows is in neither, as in `_taken_in`.
    """
    rows: dict[Key, dict[str, np.ndarray]] = {}
    moments: dict[str, list[Moments]] = {}
    regular = _regular(shards, feature)
    for shard in shards:
        held = keys_of(shard.subset, shard.clips.loc[shard.clips[feature] == KEPT])
        new = [index for index, key in enumerate(held) if key not in rows]
        whole = shard.known_moments.get(feature, {})
        for name, one in whole.items():
            if name in regular:
                moments.setdefault(name, []).append(one)
        for name, column in shard.values.get(feature, {}).items():
            if name not in regular:
                continue
            for index in new:
                rows.setdefault(held[index], {})[name] = column[index]
            if column.ndim > 1 and new and name not in whole:
                moments.setdefault(name, []).append(Moments.of(column[new].reshape(-1, column.shape[-1])))
    chosen = sorted(rows.keys() & kept)
    names = list(rows[chosen[0]]) if chosen else []
    known = {name: np.stack([rows[key][name] for key in chosen]) for name in names}
    return known, {name: functools.reduce(Moments.merge, parts) for name, parts in moments.items()}


def _regular(shards: Sequence[Reference], feature: str) -> set[str]:
    """The values of a feature that have one shape in all shards with rows of it."""
    kept = [shard.values.get(feature, {}) for shard in shards if KEPT in shard.clips[feature].unique()]
    whole = [shard.known_moments.get(feature, {}) for shard in shards if COUNTED in shard.clips[feature].unique()]

    def same(name: str) -> bool:
        shapes = [known[name].shape[1:] for known in kept if name in known]
        sizes = [len(known[name].mean) for known in whole if name in known]
        is_array = bool(sizes) or any(shapes)  # only of arrays there are moments
        everywhere = len(shapes) == len(kept) and (len(sizes) == len(whole) or not is_array)
        return everywhere and len({*shapes}) <= 1 and len({*sizes, *(shape[-1] for shape in shapes if shape)}) <= 1

    return {name for known in (*kept, *whole) for name in known if same(name)}
