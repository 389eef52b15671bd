"""How was a paper's table made? Its clips, sampler, seeds and columns, to be asked of models here, and what it printed.

A preset is one TOML file, beside this one or the user's own: see hearing-helps-seeing.toml. What is given
on the command line comes before it, and the run's record says what took the place of what. A column is computed where
avbench has its metric and the weights are there; of every other one a sentence says why not. Printed values are kept
as text, as they were printed: they are shown beside, and never computed with.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avbench.core import ClipSpec, InputError, Subset, nearest
from avbench.features.measure import require_weights
from avbench.generation.detect import detect
from avbench.metrics.evaluate import chosen_metrics, features_of
from avbench.metrics.table import Metric
from avbench.storage.reading import read_toml, shaped

TOWERS = "avfulldit-towers"
"""The sampler's table for avfulldit:WAN+TANGOFLUX; the others are called by their provider."""
DIRECTIONS = ("higher", "lower", "neither")


@dataclass(frozen=True)
class Column:
    """A column of the paper: which metric it is here, or why it is none."""

    name: str
    better: str
    """``higher``, ``lower`` or ``neither``, as the paper says."""
    table: str = ""
    """Where it stands, if not in the table whose values are printed."""
    metric: str | None = None
    said: str = ""
    """What it is, in a sentence."""
    missing: str | None = None
    """Why it cannot be computed, in a sentence."""

    def __post_init__(self) -> None:
        if self.better not in DIRECTIONS:
            msg = f"column {self.name!r}: better is {self.better!r}; {nearest(self.better, DIRECTIONS)}"
            raise InputError(msg)
        if (self.metric is None) == (self.missing is None):
            msg = f"column {self.name!r}: give either its metric or, as `missing`, why it cannot be computed"
            raise InputError(msg)


@dataclass(frozen=True)
class Printed:
    """A row of the paper's table."""

    on: str
    """The data that it is of."""
    model: str
    values: tuple[str, ...]
    """A column each, as printed."""
    change: tuple[str, ...] = ()
    """Relative change that is printed beside, in %."""


@dataclass(frozen=True)
class Preset:
    """A paper's settings, and the values that it printed."""

    name: str
    paper: str
    """Its title."""
    cited: str
    """Where the printed values stand."""
    purpose: str
    unlike: str
    """Why the printed values cannot be compared with numbers computed here."""
    clip: ClipSpec
    seeds: int
    """Clips per prompt."""
    subsets: tuple[str, ...]
    beside: tuple[str, ...]
    """Metrics of ours beside the paper's columns."""
    columns: tuple[Column, ...]
    printed: tuple[Printed, ...]
    plain: Mapping[str, Any]
    """The file's content: what is kept in run.json."""

    @property
    def table_columns(self) -> list[Column]:
        """Those whose values are printed."""
        return [column for column in self.columns if not column.table]

    def metrics(self) -> tuple[list[Metric], dict[str, str]]:
        """What can be computed: the paper's columns and ours beside; and, by metric, why a column's is left out."""
        left_out = {}
        for column in self.columns:
            if column.metric:
                try:
                    require_weights(features_of(chosen_metrics([column.metric])))
                except InputError as reason:
                    left_out[column.metric] = str(reason)
        names = [column.metric for column in self.columns if column.metric and column.metric not in left_out]
        return chosen_metrics([*names, *self.beside]), left_out

    def sampler(self, model: str) -> dict[str, Any] | None:
        """The settings for a model, or None where its kind takes none."""
        return self.plain["sampler"].get(_kind(model))


@dataclass(frozen=True)
class _PrintedRow:
    on: str
    model: str
    values: str
    change: str = ""


@dataclass(frozen=True)
class _Seeds:
    count: int
    source: str = ""


@dataclass(frozen=True)
class _Names:
    names: tuple[str, ...]
    source: str = ""


@dataclass(frozen=True)
class _Beside:
    metrics: tuple[str, ...]
    source: str = ""


@dataclass(frozen=True)
class _PresetFile:
    """A preset's TOML."""

    name: str
    paper: str
    cited: str
    purpose: str
    unlike: str
    version: int
    clip: dict[str, Any]
    sampler: dict[str, dict[str, Any] | str]
    seeds: _Seeds
    subsets: _Names
    beside: _Beside
    column: tuple[Column, ...]
    printed: tuple[_PrintedRow, ...]


_HERE = Path(__file__).parent
_WORDS = ("name", "paper", "cited", "purpose", "unlike")
_FIELDS = {*_WORDS, "version", "clip", "sampler", "seeds", "subsets", "beside", "column", "printed"}
_RECORDED = ("overridden", "left_out")
"""What `record` adds."""


def names() -> list[str]:
    """The shipped presets."""
    return sorted(path.stem for path in _HERE.glob("*.toml"))


def load(name: str) -> Preset:
    """A shipped preset by name, or a TOML file by its path.

    Raises:
        InputError: there is none, or it is not whole.
    """
    path = Path(name) if name.endswith(".toml") else _HERE / f"{name}.toml"
    if not path.is_file():
        msg = f"preset {name!r} is unknown; {nearest(name, names())}, or a .toml file"
        raise InputError(msg)
    plain = read_toml(path)
    try:
        return from_plain(plain)
    except InputError as error:
        msg = f"{path}: {error}"
        raise InputError(msg) from None


def from_plain(plain: Mapping[str, Any]) -> Preset:
    """A preset of plain values. Raises InputError where a field is missing, unknown or not what it should be."""
    plain = {name: value for name, value in plain.items() if name not in _RECORDED}
    if unlike := sorted(_FIELDS ^ {*plain}):
        known = unlike[0] in _FIELDS
        msg = f"the field {unlike[0]!r} is {'missing' if known else f'unknown; {nearest(unlike[0], _FIELDS)}'}"
        raise InputError(msg)
    found = shaped(json.dumps(plain), _PresetFile, "preset")
    spec = ClipSpec.from_json({name: value for name, value in found.clip.items() if name != "source"})
    columns, beside = found.column, found.beside.metrics
    printed = tuple(
        Printed(one.on, one.model, tuple(one.values.split()), tuple(one.change.split())) for one in found.printed
    )
    asked = {"seeds": found.seeds.count, "subsets": found.subsets.names, "beside": beside}
    words = {name: plain[name] for name in _WORDS}
    preset = Preset(**words, **asked, clip=spec, columns=columns, printed=printed, plain=plain)
    chosen_metrics([*(one.metric for one in columns if one.metric), *beside])  # raises where one is unknown
    count = len(preset.table_columns)
    for row in printed:
        if len(row.values) != count or len(row.change) not in (0, count):
            msg = f"{row.model} on {row.on} has {len(row.values)} values; the table has {count} columns"
            raise InputError(msg)
    return preset


@dataclass(frozen=True)
class Given:
    """What the command line says; None where it says nothing."""

    subsets: Sequence[str] | None = None
    prompts: Path | None = None
    views: Sequence[str] | None = None
    limit: int | None = None
    seeds: int | None = None
    metrics: Sequence[str] | None = None
    settings: Mapping[str, Any] | None = None


def in_form(preset: Preset, subsets: Sequence[Subset]) -> list[Subset]:
    """The subsets, asked for in the paper's clip form; one with a form of its own keeps it."""
    return [one if one.clip_spec else replace(one, clip_spec=preset.clip) for one in subsets]


def settings(preset: Preset, model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The paper's sampler settings that a model is asked with beside the given ones.

    There are none where its clips are finished, where the preset has none for its kind, or where a preset of the
    model's own is asked for.
    """
    ours = {} if "preset" in given else preset.sampler(model) or {}
    return {name: value for name, value in ours.items() if name not in given}


def record(preset: Preset, model: str, given: Given, subsets: Sequence[Subset]) -> dict[str, Any]:
    """What run.json keeps of a preset.

    The preset itself; `overridden`: sentences of what took the place of what; `left_out`: by metric, why it was not
    computed although avbench has it.

    Args:
        preset: the preset.
        model: as typed.
        given: what the command line said.
        subsets: those that are asked, before `in_form`.
    """
    told = []
    if where := f"the prompts of {given.prompts.name}" if given.prompts else ", ".join(given.subsets or ()):
        told.append(f"subsets: {where} instead of {', '.join(preset.subsets)}")
    if given.views:
        told.append(f"prompts: the view {', '.join(given.views)} instead of all")
    if given.limit:
        told.append(f"prompts: the first {given.limit} of each subset instead of all")
    for one in subsets:
        if one.clip_spec and one.clip_spec != preset.clip:
            told.append(f"clip: {one.name} keeps its own form, {_form(one.clip_spec)} instead of {_form(preset.clip)}")
    if given.seeds not in (None, preset.seeds):
        told.append(f"seeds: {given.seeds} a prompt instead of {preset.seeds}")
    told += _sampler_told(preset, model, given.settings or {})
    left_out = {}
    if given.metrics:
        told.append(f"metrics: {', '.join(given.metrics)} instead of the paper's columns and those beside")
        asked = (column.metric for column in preset.columns)
        left_out = {one: "other metrics were asked for." for one in asked if one and one not in given.metrics}
    return {**preset.plain, "overridden": told, "left_out": left_out or preset.metrics()[1]}


def _sampler_told(preset: Preset, model: str, given: Mapping[str, Any]) -> list[str]:
    ours = preset.sampler(model)
    if ours is None:
        finished = _kind(model) == "clips"
        why = "its clips are finished" if finished else "the preset has no sampler settings for its kind"
        return [f"sampler: not applied to {model}, {why}"]
    if "preset" in given:
        return [f"sampler: the model's own preset {given['preset']!r} instead of the paper's"]
    return [
        f"sampler: {name} {json.dumps(given[name])} instead of {json.dumps(value)}"
        for name, value in ours.items()
        if name in given and given[name] != value
    ]


def _kind(model: str) -> str:
    """A model's provider, or TOWERS."""
    if ":" not in model and Path(model).exists():
        model = detect(Path(model)).model or model
    provider, _, target = model.partition(":")
    return TOWERS if provider == "avfulldit" and "+" in target and not Path(target).exists() else provider


def _form(spec: ClipSpec) -> str:
    sound = f", {spec.sample_rate} Hz" if spec.sample_rate else ""
    return f"{spec.width} × {spec.height}, {spec.frames} frames at {spec.fps} fps{sound}"
