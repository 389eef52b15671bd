"""Reads references: the features of real clips that models are compared with; reference_building.py makes them.

A folder ``reference_stats/<subset>/`` has three files. columns.safetensors holds the values of every feature. clips.csv
lists the clips they were measured on, in the columns' order, with a 1 for each feature that could measure the clip.
card.json records how they were made: subset and digest, model, seeds, protocols, n, licence, versions and the command.
They hold no time, machine or path: the same command with the same versions on the same kind of processor gives the
same bytes.

A feature without a value for any clip, such as a feature of sound if all clips are silent, is left out. Its protocol is
kept, and the card's `left_out` gives the reason, so that shards with and without the feature can still be merged. Why
some clips, but not all, have no value is in the card's `unmeasured`.

Of many clips (by default more than 10,000) only a part of the rows is kept: those whose keys have the smallest hashes,
so that shards merge exactly and in any order. moments.safetensors then holds n, mean and scatter of every embedding
over all clips, and clips.csv has a 2 for each clip that is only in the moments. An imported reference has only moments.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avbench.core import (
    Columns,
    InputError,
    Key,
    Moments,
    NotMeasurable,
    Protocol,
    Sample,
    Subset,
    as_typed,
    clip_name,
    counted,
    nearest,
    read_only,
    require_same_protocol,
)
from avbench.metrics.table import known_metrics
from avbench.storage import shipped
from avbench.storage.media.form import Form
from avbench.storage.reading import csv_head, csv_rows, file_sha256, read_json, read_tensors, shaped_plain

CLIP_COLUMNS = ["prompt", "seed", "clip_sha256"]
FIRST_CLIPS = "first_clips"
"""Field of the card: size, rate, length and sound of the first clips."""
KEPT, COUNTED = 1, 2
"""Marks of a clip in clips.csv: its row is in the columns, or it is only in the moments."""


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
        restricted = read_only({name: column[wanted] for name, column in self.values[protocol.name].items()})
        return restricted, self._kept(protocol)["prompt"].to_numpy()[wanted]

    def keys(self, protocol: Protocol, subset: Subset) -> list[Key]:
        """The keys of the rows that `columns` returns, in the same order. Raises the same errors."""
        kept = self._kept(protocol).loc[self._wanted(protocol, subset)]
        return keys_of(self.subset, kept)

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

    def drops_rows(self, protocol: Protocol, subset: Subset) -> bool:
        """Whether clips that `columns` would return were measured, and only their moments were kept."""
        dropped = self.clips.loc[self.clips[protocol.name] == COUNTED, "prompt"]
        whole = subset.whole_digest == self.subset_digest
        return bool((dropped.isin([prompt.id for prompt in subset.prompts]).to_numpy() | (not whole)).any())

    @property
    def first_clips(self) -> list[Form]:
        """Forms of its first clips; of shards those of each. None are known if they were conformed to a clip spec."""
        cards = [self.card, *self.card.get("shards", ())]
        return [form for card in cards for form in shaped_plain(card.get(FIRST_CLIPS, []), list[Form], FIRST_CLIPS)]

    def shared(self, samples: Iterable[Sample]) -> list[Key]:
        """The keys of a run's clips that are byte for byte in the reference too."""
        ours = set(self.clips["clip_sha256"])
        return [sample.key for sample in samples if sample.sha256 in ours]

    @property
    def kept_clips(self) -> int:
        """How many clips it has, without those of which only moments were kept."""
        return int((self.clips[[*self.protocols]] != COUNTED).to_numpy().all(axis=1).sum())

    @property
    def copies(self) -> str | None:
        """The beginning of a sentence on clips that are equal files, each of which counts; None if none are."""
        copied = self.clips.loc[self.clips["clip_sha256"].duplicated(keep=False)]
        if copied.empty:
            return None
        first = keys_of(self.subset, copied.loc[copied["clip_sha256"] == copied["clip_sha256"].iloc[0]])
        named = [clip_name(key, self.clips["seed"].unique().tolist()) for key in first[:2]]
        many = f"{len(copied)} of {len(self.clips)} clips of the reference are copies of one another"
        return f"{many}, for example {' and '.join(named)}"

    @property
    def partial(self) -> list[str]:
        """Sentences without a full stop on features that some clips, but not all, have no value of."""
        found, why = [], self.card.get("unmeasured", {})
        for feature in self.protocols:
            lacking = int((self.clips[feature] == 0).to_numpy().sum())
            if 0 < lacking < len(self.clips):
                reason = f": {why[feature]}" if feature in why else ""
                found.append(f"{lacking} of {len(self.clips)} clips of the reference have no {feature}{reason}")
        return found

    def _kept(self, protocol: Protocol) -> pd.DataFrame:
        return self.clips.loc[self.clips[protocol.name] == KEPT]

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
        remedy = "build the reference again, or give the folder of its clips by reference (--reference)"
        both = f"{protocol.name} and its reference"
        require_same_protocol(protocol.describe(), self.protocols[protocol.name], both, remedy)


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
    require_any([subset], place)
    return dataclasses.replace(load(_folder_in(place, subset) or place), chosen=True)


def find_all(subsets: Sequence[Subset], place: Path | None = None) -> dict[str, Reference | None]:
    """`find` for several subsets, in their order; None for a subset of which `place` has none, though it has of others.

    Raises:
        InputError: `place` holds a reference of none of them.
    """
    require_any(subsets, place)
    return {one.name: find(one, place) if place is None or holds(place, one) else None for one in subsets}


def require_any(subsets: Sequence[Subset], place: Path | None) -> None:
    """Raise InputError if the folder `place` holds a reference of none of the subsets."""
    if place is not None and not any(holds(place, one) for one in subsets):
        names = " or ".join(one.name for one in subsets)
        msg = f"{place} holds no reference: it has no card.json, nor a folder {names} with one"
        if others := sorted(card.parent for card in place.glob("*/card.json")):
            are = ", ".join(map(as_typed, others))
            msg += f". Other references lie in it ({are}): give one, or move them elsewhere if its clips are meant"
        raise InputError(msg)


def holds(place: Path, subset: Subset) -> bool:
    """Whether `find` finds a reference of the subset in the folder `place`."""
    return _folder_in(place, subset) is not None


def _folder_in(place: Path, subset: Subset) -> Path | None:
    return next((one for one in (place / subset.name, place) if (one / "card.json").is_file()), None)


def hygiene(subset: Subset, real: Reference | None) -> str | None:
    """A sentence on prompts or reference clips that come from a data set's training split; None if none do."""
    sentences = []
    if count := splits_of(subset).get("train", 0):
        sentences.append(f"{count} of {len(subset.prompts)} prompts are from their data set's training split")
    if real is not None and (count := real.card.get("splits", {}).get("train", 0)):
        sentences.append(f"the reference holds clips of {count} training prompts of its data set")
    return "; ".join(sentences) or None


def remarks(built: Reference) -> list[str]:
    """Remarks for the builder of a reference: missing features, copies, metrics for which it has too few clips."""
    found = [f"{feature} is not in the reference: {why}" for feature, why in built.card.get("left_out", {}).items()]
    found += [*built.partial, *([f"{built.copies}, and each counts"] if built.copies else [])]
    few: dict[str, list[str]] = {}
    for metric in known_metrics().values():
        clips = built.card["clips"].get(metric.feature, 0)
        if metric.usual and clips and (sentence := metric.too_few(clips)):
            start, _, name = sentence.partition("too few for ")
            few.setdefault(start, []).append(f"{name} ({metric.least_clips})")
    return found + [f"{start}too few for {', '.join(names)}" for start, names in few.items()]


def splits_of(subset: Subset) -> dict[str, int]:
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
    splits: dict[str, int] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)


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
    rows = list(csv_rows(path, (*CLIP_COLUMNS, *features)))
    for number, row in enumerate(rows, start=2):
        for name, choices in (("seed", None), *((feature, ("0", "1", "2")) for feature in features)):
            if not (row[name].isdecimal() and len(row[name]) < 19 if choices is None else row[name] in choices):
                must = "a whole number below 10¹⁸" if choices is None else "0, 1 or 2"
                msg = f"{path}, line {number}: {name} is {row[name]!r}; it must be {must}"
                raise InputError(msg)
    table = pd.DataFrame(rows, columns=csv_head(path))
    return table.astype({name: "int64" for name in ("seed", *features)})


def _values(path: Path, clips: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """Feature → name → column. Raises InputError if a column does not have one number for each clip with a value."""
    values: dict[str, dict[str, np.ndarray]] = {}
    for name, column in read_tensors(path).items():
        feature, _, value = name.partition("/")
        kept = int((clips[feature] == KEPT).to_numpy().sum()) if feature in clips else None
        if not column.ndim or len(column) != kept:
            of = (
                f"clips.csv has {counted(kept, 'clip')} with rows of it"
                if kept is not None
                else "clips.csv does not know it"
            )
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
        if not all(np.isfinite(one).all() for one in (n, mean, scatter)):
            msg = f"{path}: {name} holds NaN or infinity"
            raise InputError(msg)
        moments.setdefault(feature, {})[value] = Moments(int(n[0]), mean, scatter)
    return moments


def keys_of(subset: str, clips: pd.DataFrame) -> list[Key]:
    """The keys of rows of clips.csv."""
    return [Key(subset, prompt, int(seed)) for prompt, seed in zip(clips["prompt"], clips["seed"], strict=True)]
