"""Reads paper presets: the clips, sampler, seeds and columns behind a paper's table, and the values that it printed.

A preset is one TOML file, beside this one or the user's own: see hearing-helps-seeing.toml. Options of the command line
override it, and the run's record states each override. A column is computed if avbench has its metric and the weights
exist; for every other column a sentence says why not. Printed values are kept as text: they are shown beside computed
values, and never used in a computation.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avbench.core import ClipSpec, InputError, Subset, counted, nearest
from avbench.features.requirements import require_ready
from avbench.generation.detect import detect
from avbench.metrics.evaluate import chosen_metrics, features_of
from avbench.metrics.table import Metric
from avbench.storage.reading import exists, naming, read_toml, shaped_plain

TOWERS = "avfulldit-towers"
"""Name of the sampler's table for avfulldit:WAN+TANGOFLUX; other tables have the names of providers."""
DIRECTIONS = ("higher", "lower", "neither")


@dataclass(frozen=True)
class Column:
    """A column of the paper: its metric here, or why it has none."""

    name: str
    better: str
    """``higher``, ``lower`` or ``neither``, as the paper says."""
    table: str = ""
    """The table that has the column, if not the one whose values are printed."""
    metric: str | None = None
    description: str = ""
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
    """The data that its clips were made for."""
    model: str
    values: tuple[str, ...]
    """One value per column, as printed."""
    change: tuple[str, ...] = ()
    """Relative change, in %, that is printed beside the value."""


@dataclass(frozen=True)
class Preset:
    """A paper's settings, and the values that it printed."""

    name: str
    paper: str
    """Its title."""
    cited: str
    """The place of the printed values in the paper."""
    purpose: str
    caveat: str
    """Why the printed values cannot be compared with numbers computed here."""
    clip: ClipSpec
    seeds: int
    """Clips per prompt."""
    subsets: tuple[str, ...]
    beside: tuple[str, ...]
    """Metrics that are computed in addition to the paper's columns."""
    columns: tuple[Column, ...]
    printed: tuple[Printed, ...]
    plain: Mapping[str, Any]
    """The file's content, which is kept in run.json."""

    @property
    def table_columns(self) -> list[Column]:
        """The columns with printed values."""
        return [column for column in self.columns if not column.table]

    def metrics(self) -> tuple[list[Metric], dict[str, str]]:
        """Return the metrics to compute, those of the paper's columns and the additional ones; and, by metric, why one
        is left out.
        """
        left_out = {}
        for column in self.columns:
            if column.metric:
                try:
                    require_ready(features_of(chosen_metrics([column.metric])))
                except InputError as reason:
                    left_out[column.metric] = str(reason)
        names = [column.metric for column in self.columns if column.metric and column.metric not in left_out]
        return chosen_metrics([*names, *self.beside]), left_out

    def sampler(self, model: str) -> dict[str, Any] | None:
        """Return the settings for a model, or None if there are none for its kind."""
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
    caveat: str
    version: int
    clip: dict[str, Any]
    sampler: dict[str, dict[str, Any] | str]
    seeds: _Seeds
    subsets: _Names
    beside: _Beside
    column: tuple[Column, ...]
    printed: tuple[_PrintedRow, ...]


_HERE = Path(__file__).parent
_WORDS = ("name", "paper", "cited", "purpose", "caveat")
_RECORDED = ("overridden", "left_out")
"""What `record` adds."""


def names() -> list[str]:
    """The shipped presets."""
    return sorted(path.stem for path in _HERE.glob("*.toml"))


def load(name: str) -> Preset:
    """A shipped preset by name, or a TOML file by its path.

    Raises:
        InputError: it does not exist, or it is incomplete.
    """
    path = Path(name) if name.endswith(".toml") else _HERE / f"{name}.toml"
    if not path.is_file():
        msg = f"preset {name!r} is unknown; {nearest(name, names())}, or a .toml file"
        raise InputError(msg)
    plain = read_toml(path)
    with naming(path):
        return from_plain(plain)


def from_plain(plain: Mapping[str, Any]) -> Preset:
    """Build a preset from plain values. Raises InputError if a field is missing, unknown or wrong."""
    plain = {name: value for name, value in plain.items() if name not in _RECORDED}
    found = shaped_plain(plain, _PresetFile, "preset", by_user=True)
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
            held = counted(len(row.values), "value")
            msg = f"{row.model} on {row.on} has {held}; the table has {counted(count, 'column')}"
            raise InputError(msg)
    return preset


@dataclass(frozen=True)
class Given:
    """The options of the command line; None for an option that was not given."""

    subsets: Sequence[str] | None = None
    prompts: Path | None = None
    views: Sequence[str] | None = None
    limit: int | None = None
    seeds: int | None = None
    metrics: Sequence[str] | None = None
    settings: Mapping[str, Any] | None = None


def with_clip_spec(preset: Preset, subsets: Sequence[Subset]) -> list[Subset]:
    """Return the subsets with the paper's clip spec; a subset with a clip spec of its own keeps it."""
    return [one if one.clip_spec else replace(one, clip_spec=preset.clip) for one in subsets]


def settings(preset: Preset, model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the paper's sampler settings that are added to the given settings of a model.

    There are none if the clips are finished, if the preset has none for this kind of model, or if a preset of the model
    itself was requested.
    """
    ours = {} if "preset" in given else preset.sampler(model) or {}
    return {name: value for name, value in ours.items() if name not in given}


def record(preset: Preset, model: str, given: Given, subsets: Sequence[Subset]) -> dict[str, Any]:
    """Return the record of a preset for run.json.

    The preset itself; `overridden`: one sentence per override; `left_out`: by metric, why it was not
    computed although avbench has it.

    Args:
        preset: the preset.
        model: as typed.
        given: the options of the command line.
        subsets: the requested subsets, before `with_clip_spec`.
    """
    overridden = []
    if where := f"the prompts of {given.prompts.name}" if given.prompts else ", ".join(given.subsets or ()):
        overridden.append(f"subsets: {where} instead of {', '.join(preset.subsets)}")
    if given.views:
        overridden.append(f"prompts: the view {', '.join(given.views)} instead of all")
    if given.limit:
        overridden.append(f"prompts: the first {given.limit} of each subset instead of all")
    for one in subsets:
        if one.clip_spec and one.clip_spec != preset.clip:
            overridden.append(
                f"clip: {one.name} keeps its own form, {_form(one.clip_spec)} instead of {_form(preset.clip)}"
            )
    if given.seeds not in (None, preset.seeds):
        overridden.append(f"seeds: {given.seeds} per prompt instead of {preset.seeds}")
    overridden += _sampler_overrides(preset, model, given.settings or {})
    left_out = {}
    if given.metrics:
        overridden.append(f"metrics: {', '.join(given.metrics)} instead of the paper's columns and those beside")
        asked = (column.metric for column in preset.columns)
        left_out = {one: "other metrics were asked for." for one in asked if one and one not in given.metrics}
    return {**preset.plain, "overridden": overridden, "left_out": left_out or preset.metrics()[1]}


def _sampler_overrides(preset: Preset, model: str, given: Mapping[str, Any]) -> list[str]:
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
    if ":" not in model and exists(Path(model)):
        model = detect(Path(model)).model or model
    provider, _, target = model.partition(":")
    return TOWERS if provider == "avfulldit" and "+" in target and not exists(Path(target)) else provider


def _form(spec: ClipSpec) -> str:
    sound = f", {spec.sample_rate} Hz" if spec.sample_rate else ""
    return f"{spec.width} × {spec.height}, {counted(spec.frames, 'frame')} at {spec.fps} fps{sound}"
