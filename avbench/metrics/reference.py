"""Builds and reads references: the features of real clips that models are compared with.

A folder ``reference_stats/<subset>/`` has three files. columns.safetensors holds the values of every feature. clips.csv
lists the clips they were measured on, in the columns' order, with a 1 for each feature that could measure the clip.
card.json records how they were made: subset and digest, model, seeds, protocols, n, licence, versions and the command.
They hold no time, machine or path: the same command with the same versions on the same kind of processor gives the
same bytes.

A feature without a value for any clip, such as a feature of sound if all clips are silent, is left out. Its protocol is
kept, and the card's `left_out` gives the reason, so that shards with and without the feature can still be merged.

A reference of more than `ROWS` clips keeps only `ROWS` rows: those whose keys have the smallest hashes, so that shards
merge exactly and in any order. moments.safetensors then holds n, mean and scatter of every embedding over all clips,
and clips.csv has a 2 for each clip that is only in the moments. An imported reference has only moments.
"""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    NotMeasurable,
    Protocol,
    Row,
    Sample,
    Subset,
    columns,
    digest,
    nearest,
    require_same_protocol,
)
from avbench.metrics import imported_statistics
from avbench.metrics.table import known_metrics
from avbench.storage import shipped
from avbench.storage.conform import ClipForm
from avbench.storage.reading import csv_head, csv_rows, read_json, read_tensors
from avbench.storage.run_folder import RunFolder, file_sha256, write_json, write_whole
from avbench.storage.sharing import shared_command, without_folders

FIRST_SEED = 1_000_000
"""The first seed of reference clips; runs do not use seeds from here on by default."""

ROWS = 10_000
"""Largest number of rows that are kept of each feature."""

NOT_STATED = "not stated"
"""The licence in the card if the owner of the clips gave none."""
_CHUNK = 1024  # rows held in memory while moments are computed
_CLIP_COLUMNS = ["prompt", "seed", "clip_sha256"]
_KEPT, _COUNTED = 1, 2


@dataclass(frozen=True, eq=False)
class Reference:
    """The reference of one subset."""

    subset: str
    subset_digest: str | None
    """None if it was not made of a subset of avbench."""
    protocols: Mapping[str, Any]
    """Feature id → described protocol."""
    clips: pd.DataFrame
    """The content of clips.csv."""
    values: Mapping[str, Columns]
    """Feature id → columns of the kept rows."""
    known_moments: Mapping[str, Mapping[str, Moments]]
    """Feature id → embedding → moments, if more clips were measured than rows are kept."""
    card: Mapping[str, Any]
    chosen: bool = False
    """Whether the user named it; then it may belong to a subset other than the one that is scored."""

    def columns(self, protocol: Protocol, subset: Subset) -> tuple[Columns, np.ndarray]:
        """The columns of one feature and the prompt id of each of their clips, for the subset's prompts only.

        A reference of another subset, which only the user can choose, returns all its rows.

        Raises:
            InputError: the reference is of another version of the subset, lacks the feature, or has another protocol.
            NotMeasurable: it holds no rows of the feature.
        """
        wanted = self._wanted(protocol, subset)
        restricted = {name: column[wanted] for name, column in self.values[protocol.name].items()}
        return restricted, self._kept(protocol)["prompt"].to_numpy()[wanted]

    def keys(self, protocol: Protocol, subset: Subset) -> list[Key]:
        """The keys of the rows that `columns` returns, in the same order. Raises the same errors."""
        kept = self._kept(protocol).loc[self._wanted(protocol, subset)]
        return _keys(self.subset, kept)

    def moments(self, protocol: Protocol, value: str, subset: Subset) -> Moments | None:
        """Moments of an embedding over all clips, or None if every row is kept.

        Also None for a part of the reference's subset, because the moments of its clips cannot be separated.

        Raises:
            InputError: the feature was measured under another protocol.
        """
        part = subset.whole_digest == self.subset_digest != subset.digest
        if part or protocol.name not in self.known_moments:
            return None
        self._require_protocol(protocol)
        return self.known_moments[protocol.name].get(value)

    def shared(self, samples: Iterable[Sample]) -> list[Key]:
        """The keys of a run's clips that are byte for byte in the reference too."""
        ours = set(self.clips["clip_sha256"])
        return [sample.key for sample in samples if sample.sha256 in ours]

    def _kept(self, protocol: Protocol) -> pd.DataFrame:
        return self.clips.loc[self.clips[protocol.name] == _KEPT]

    def _wanted(self, protocol: Protocol, subset: Subset) -> np.ndarray:
        whole = subset.whole_digest == self.subset_digest
        if not whole and not self.chosen:
            msg = f"the reference of {self.subset} was built for another version of that subset; build it again"
            raise InputError(msg)
        self._require_protocol(protocol)
        if why := self.card.get("left_out", {}).get(protocol.name):
            msg = f"the reference of {self.subset} has no {protocol.name}: {why}"
            raise NotMeasurable(msg)
        if protocol.name not in self.values:
            msg = f"the reference of {self.subset} holds only moments of {protocol.name}, no rows of clips"
            raise NotMeasurable(msg)
        prompts = self._kept(protocol)["prompt"]
        return prompts.isin([prompt.id for prompt in subset.prompts]).to_numpy() | (not whole)

    def _require_protocol(self, protocol: Protocol) -> None:
        if protocol.name not in self.protocols:
            known = ", ".join(self.protocols)
            msg = (
                f"the reference of {self.subset} has no {protocol.name}; it has {known} (see `avbench reference build`)"
            )
            raise InputError(msg)
        require_same_protocol(protocol.describe(), self.protocols[protocol.name], f"{protocol.name} and its reference")


def names() -> list[str]:
    """The names of the shipped references."""
    return sorted(card.parent.name for card in shipped.folder("reference_stats").glob("*/card.json"))


def named(name: str) -> Reference:
    """The shipped reference of this name, or the reference in a folder. Raises InputError if there is none."""
    if (Path(name) / "card.json").is_file():
        return load(Path(name))
    if name not in names():
        msg = f"there is no reference of {name!r}; {nearest(name, names())}, or a folder with a card.json"
        raise InputError(msg)
    return load(shipped.folder("reference_stats") / name)


def find(subset: Subset, place: Path | None = None) -> Reference | None:
    """The reference in the folder `place` (or in its subfolder with the subset's name), else the shipped one, or None.

    Raises:
        InputError: `place` holds no reference.
    """
    if place is None:
        return named(subset.name) if subset.name in names() else None
    for folder in (place / subset.name, place):
        if (folder / "card.json").is_file():
            return dataclasses.replace(load(folder), chosen=True)
    msg = f"{place} holds no reference: it has no card.json, nor a folder {subset.name} with one"
    raise InputError(msg)


def hygiene(subset: Subset, real: Reference | None) -> str | None:
    """A sentence on prompts or reference clips that come from a data set's training split; None if none do."""
    sentences = []
    if count := _splits(subset).get("train", 0):
        sentences.append(f"{count} of {len(subset.prompts)} prompts are from their data set's training split")
    if real is not None and (count := real.card.get("splits", {}).get("train", 0)):
        sentences.append(f"the reference holds clips of {count} training prompts of its data set")
    return "; ".join(sentences) or None


def remarks(built: Reference) -> list[str]:
    """Remarks for the builder of a reference: missing features, and metrics for which it has too few clips."""
    found = [f"{feature} is not in the reference: {why}" for feature, why in built.card.get("left_out", {}).items()]
    few: dict[str, list[str]] = {}
    for metric in known_metrics().values():
        clips = built.card["clips"].get(metric.feature, 0)
        if metric.usual and clips and (sentence := metric.too_few(clips)):
            start, _, name = sentence.partition("too few for ")
            few.setdefault(start, []).append(f"{name} ({metric.least_clips})")
    return found + [f"{start}too few for {', '.join(names)}" for start, names in few.items()]


def _splits(subset: Subset) -> dict[str, int]:
    """How many prompts come from each split of their data set."""
    return dict(Counter(str(prompt.tags["split"]) for prompt in subset.prompts if "split" in prompt.tags))


@dataclass(frozen=True)
class _Card:
    """The fields of a card.json that are read; its other fields are for people."""

    subset: str
    subset_digest: str | None
    protocols: dict[str, dict[str, Any]]
    sha256: dict[str, str]
    licence: str
    clips: dict[str, int]
    command: str = ""
    splits: dict[str, int] | None = None


_FILES = ("columns.safetensors", "clips.csv", "moments.safetensors")
"""The files that a card may name; it must name the first two."""
_LISTED = f"{_FILES[0]}, {_FILES[1]} and perhaps {_FILES[2]}"


def load(place: Path) -> Reference:
    """Read a reference folder.

    Raises:
        InputError: a file is missing, its bytes do not match the card, or its parts do not belong together.
    """
    path = place / "card.json"
    card = read_json(path)
    known = read_json(path, _Card, known_only=False)
    named = {*known.sha256}
    if not {*_FILES[:2]} <= named <= {*_FILES}:
        msg = f"{path}: sha256 names {', '.join(sorted(named)) or 'nothing'}; the files of a reference are {_LISTED}"
        raise InputError(msg)
    for name, sha256 in known.sha256.items():
        if not (place / name).is_file() or file_sha256(place / name) != sha256:
            msg = f"{place / name} is missing or not the file that its card describes (sha256 {sha256[:12]}…)"
            raise InputError(msg)
    clips = _clips(place / "clips.csv", [*known.protocols])
    values = _values(place / "columns.safetensors", clips)
    moments = _moments(place / "moments.safetensors") if "moments.safetensors" in known.sha256 else {}
    if unknown := sorted({*values, *moments} - {*known.protocols}):
        msg = f"{place}: {unknown[0]!r} has values, but no protocol in the card"
        raise InputError(msg)
    return Reference(known.subset, known.subset_digest, known.protocols, clips, values, moments, card)


def _clips(path: Path, features: Sequence[str]) -> pd.DataFrame:
    """Read clips.csv. Raises InputError if a cell has a wrong value."""
    rows = list(csv_rows(path, (*_CLIP_COLUMNS, *features)))
    for number, row in enumerate(rows, start=2):
        for name, choices in (("seed", None), *((feature, ("0", "1", "2")) for feature in features)):
            if not (row[name].isdecimal() if choices is None else row[name] in choices):
                must = "a whole number" if choices is None else "0, 1 or 2"
                msg = f"{path}, line {number}: {name} is {row[name]!r}; it must be {must}"
                raise InputError(msg)
    table = pd.DataFrame(rows, columns=csv_head(path))
    return table.astype({name: "int64" for name in ("seed", *features)})


def _values(path: Path, clips: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """Feature → name → column. Raises InputError if a column does not have one number for each clip with a value."""
    values: dict[str, dict[str, np.ndarray]] = {}
    for name, column in read_tensors(path).items():
        feature, _, value = name.partition("/")
        kept = int((clips[feature] == _KEPT).to_numpy().sum()) if feature in clips else None
        if not column.ndim or len(column) != kept:
            of = f"clips.csv has {kept} clips with rows of it" if kept is not None else "clips.csv does not know it"
            msg = f"{path}: {name} has the shape {list(column.shape)}, and {of}"
            raise InputError(msg)
        if not np.isfinite(column).all():
            msg = f"{path}: {name} holds NaN or infinity"
            raise InputError(msg)
        values.setdefault(feature, {})[value] = column.astype(np.float64)
    return values


def _moments(path: Path) -> dict[str, dict[str, Moments]]:
    """Feature → embedding → moments. Raises InputError if they are not valid moments."""
    moments: dict[str, dict[str, Moments]] = {}
    stored = read_tensors(path)
    for name in sorted({name.rpartition("/")[0] for name in stored}):
        feature, _, value = name.partition("/")
        parts = [stored.get(f"{name}/{part}") for part in ("n", "mean", "scatter")]
        n, mean, scatter = (np.zeros(0) if part is None else part for part in parts)
        if n.shape != (1,) or n[0] < 1 or mean.ndim != 1 or not mean.size or scatter.shape != mean.shape * 2:
            msg = (
                f"{path}: {name} has the shapes {[list(one.shape) for one in (n, mean, scatter)]}, which are no moments"
            )
            raise InputError(msg)
        if not (np.isfinite(mean).all() and np.isfinite(scatter).all()):
            msg = f"{path}: {name} holds NaN or infinity"
            raise InputError(msg)
        moments.setdefault(feature, {})[value] = Moments(int(n[0]), mean, scatter)
    return moments


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
) -> str:
    """Make a reference of a measured run; return the sha256 of its columns.

    The card also gets the fields of `about`: how its clips were chosen, and the command.

    A feature without a value for any clip is left out, and the card gives the reason. Rows are read one by one, so that
    memory does not grow with the clips. Embeddings are stored as float32, as the networks return them; scalars as
    float64.

    Raises:
        InputError: a clip failed, a feature was not measured, or no clip has any feature.
    """
    run, samples = folder.run(), folder.samples()
    if failed := [sample for sample in samples.values() if sample.failure]:
        msg = (
            f"{len(failed)} clips failed, for example {failed[0].key}: {failed[0].failure}; a reference needs all clips"
        )
        raise InputError(msg)
    made = sorted(samples.values(), key=lambda sample: sample.key)
    clips = pd.DataFrame([(one.key.prompt, one.key.seed, one.sha256) for one in made], columns=_CLIP_COLUMNS)
    kept = chosen_keys((sample.key for sample in made), rows)
    values: dict[str, Columns] = {}
    moments: dict[str, dict[str, Moments]] = {}
    left_out: dict[str, str] = {}
    gpus: dict[str, list[str]] = {}
    for protocol in protocols:
        measured: set[Key] = set()
        used: set[str] = set()
        why: Counter[str] = Counter()
        known, everything = _taken_in(_noted(folder.stream_rows(protocol), measured, used, why), kept)
        if not measured and not why:
            msg = f"no clip of {subset.name} has a row of {protocol.name}; measure the run first"
            raise InputError(msg)
        if measured:
            values[protocol.name] = known
        else:
            ((reason, count),) = why.most_common(1)
            left_out[protocol.name] = f"{reason} ({count} of {len(made)} clips)"
        if len(measured - kept):
            moments[protocol.name] = everything
        if used:
            gpus[protocol.name] = sorted(used)
        marks = [(_KEPT if one.key in kept else _COUNTED) if one.key in measured else 0 for one in made]
        clips[protocol.name] = marks
    if not values:
        msg = f"no feature of {subset.name} can be a reference: {'; '.join(sorted(set(left_out.values())))}"
        raise InputError(msg)
    card = {
        "subset": subset.name,
        "subset_digest": subset.digest,
        "model": run.model,
        "settings": run.settings,
        "seeds": list(run.seeds),
        "clips": {protocol.name: int((clips[protocol.name] > 0).to_numpy().sum()) for protocol in protocols},
        "licence": licence or NOT_STATED,
        "versions": run.versions,
        **(about or {}),
    }
    if left_out:
        card["left_out"] = left_out
    if gpus:  # of features that no GPU measured, there is nothing to say
        card["gpus"] = gpus
    if splits := _splits(subset):
        card["splits"] = splits
    if any(sample.spec_mismatch for sample in made) and subset.clip_spec:
        card["clip_form"] = ClipForm.of(subset.clip_spec).describe()
    return write(place, card, values, moments, clips, {protocol.name: protocol.describe() for protocol in protocols})


def write(
    place: Path,
    card: Mapping[str, Any],
    values: Mapping[str, Columns],
    moments: Mapping[str, Mapping[str, Moments]],
    clips: pd.DataFrame,
    protocols: Mapping[str, Any],
) -> str:
    """Write a reference folder, its card last and without local paths; return the sha256 of its columns."""
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
    for name, content in files.items():
        write_whole(place / name, content)
    sha256 = {name: file_sha256(place / name) for name in files}
    write_json(place / "card.json", {**without_folders(card), "sha256": sha256, "protocols": dict(protocols)})
    return sha256["columns.safetensors"]


def merge(places: Sequence[Path], place: Path, *, rows: int = ROWS) -> str:
    """Merge several shards into one reference, in any order; return the sha256 of its columns.

    The rows are those of all shards; a clip in several shards is counted once. Moments are merged by the centred
    update.

    Raises:
        InputError: shards of different subsets, protocols or features; one clip with different bytes; or shards with
            moments that share clips, which would be counted twice.
    """
    loaded = sorted(((load(each), each) for each in places), key=lambda one: digest(one[0].card["sha256"]))
    shards = [shard for shard, _ in loaded]
    first, its_place = loaded[0]
    for shard, from_place in loaded[1:]:
        if (shard.subset, shard.subset_digest) != (first.subset, first.subset_digest):
            msg = f"shards of different subsets cannot be merged: {first.subset} and {shard.subset}, or other versions"
            raise InputError(msg)
        require_same_protocol(first.protocols, shard.protocols, f"the shards {its_place} and {from_place}")
    clips = _union(shards)
    kept = chosen_keys(_keys(first.subset, clips), rows)
    values: dict[str, Columns] = {}
    moments: dict[str, dict[str, Moments]] = {}
    for feature in first.protocols:
        marks = clips[feature].to_numpy()
        keep = np.array([key in kept for key in _keys(first.subset, clips)]) & (marks == _KEPT)
        known, everything = _merged(shards, feature, kept)
        if known:
            values[feature] = known
        if (marks[~keep] > 0).any():
            moments[feature] = everything
        clips[feature] = np.where(keep, _KEPT, np.where(marks > 0, _COUNTED, 0))
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
    return write(place, card, values, moments, clips, first.protocols)


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
) -> str:
    """Make a reference of another tool's statistics file; return the sha256 of that file.

    It is the user's claim that the file was made under `protocol`; the card says so. `column` is the name of the
    embedding; None takes the one that the metrics of this feature read of a reference.

    Raises:
        InputError: see `imported_statistics.read`; also if no metric reads the column, or the feature has another size.
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
    sha256 = file_sha256(file)
    asked = {"format": kind, "feature": protocol.name, "column": column, "source": source, "licence": licence, "n": n}
    card = {
        "subset": place.name,
        "subset_digest": None,
        "clips": {protocol.name: found.moments.n},
        "licence": licence,
        "command": shared_command(["avbench", "reference", "import", file], {**asked, "out": place.name}),
        "imported": {"format": kind, "sha256": sha256, "divisor": found.divisor, "source": source, "claimed": True},
    }
    clips = pd.DataFrame(columns=[*_CLIP_COLUMNS, protocol.name])
    moments = {protocol.name: {column: found.moments}}
    write(place, card, {}, moments, clips, {protocol.name: protocol.describe()})
    return sha256


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


def _noted(rows: Iterable[Row], measured: set[Key], gpus: set[str], why: Counter[str]) -> Iterator[Row]:
    """Yield the rows that have values; record their keys and their GPUs, and the reasons of the other rows."""
    for row in rows:
        if row.values is not None:
            measured.add(row.key)
            gpus.update(filter(None, [row.gpu]))
            yield row
        else:
            why[str(row.missing)] += 1


def _taken_in(rows: Iterable[Row], kept: set[Key]) -> tuple[Columns, dict[str, Moments]]:
    """Columns of the kept rows, and moments of every embedding over all rows, with one chunk in memory at a time.

    A value whose shape differs between rows, such as times of events, is in neither.
    """
    keep: list[Row] = []
    moments: dict[str, Moments] = {}
    shapes: dict[str, set[tuple[int, ...] | None]] = {}
    chunk: list[Row] = []

    def count() -> None:
        for name, column in columns(chunk)[1].items():
            seen = shapes.setdefault(name, set())
            seen.add(None if column.dtype == object else column.shape[1:])
            if column.ndim > 1 and column.size and len(seen) == 1:
                part = Moments.of(column.reshape(-1, column.shape[-1]))
                moments[name] = moments[name].merge(part) if name in moments else part
        chunk.clear()

    for row in rows:
        if row.key in kept:
            keep.append(row)
        chunk.append(row)
        if len(chunk) == _CHUNK:
            count()
    count()
    regular = {name for name, seen in shapes.items() if len(seen) == 1 and None not in seen and (0,) not in seen}
    known = {name: column for name, column in columns(keep)[1].items() if name in regular}
    return known, {name: one for name, one in moments.items() if name in regular}


def _keys(subset: str, clips: pd.DataFrame) -> list[Key]:
    return [Key(subset, prompt, int(seed)) for prompt, seed in zip(clips["prompt"], clips["seed"], strict=True)]


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
    """One feature of all shards: columns of the kept rows in the order of their keys, and moments of all rows."""
    rows: dict[Key, dict[str, np.ndarray]] = {}
    moments: dict[str, list[Moments]] = {}
    for shard in shards:
        held = _keys(shard.subset, shard.clips.loc[shard.clips[feature] == _KEPT])
        new = [index for index, key in enumerate(held) if key not in rows]
        for name, column in shard.values.get(feature, {}).items():
            for index in new:
                rows.setdefault(held[index], {})[name] = column[index]
            if column.ndim > 1 and new:
                whole = shard.known_moments.get(feature, {}).get(name)
                moments.setdefault(name, []).append(whole or Moments.of(column[new].reshape(-1, column.shape[-1])))
    chosen = sorted(rows.keys() & kept)
    names = list(rows[chosen[0]]) if chosen else []
    known = {name: np.stack([rows[key][name] for key in chosen]) for name in names}
    return known, {name: functools.reduce(Moments.merge, parts) for name, parts in moments.items()}
