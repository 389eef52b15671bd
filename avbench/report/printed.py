"""Shows a paper's printed table, marked as printed, and states for each column whether it was computed here.

Printed values have tables of their own: they are never mixed with computed values, tested, ranked or bold.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from avbench.comparison import paper_presets
from avbench.comparison.paper_presets import Column, Preset
from avbench.report.tables import ARROWS, Cell, SubsetTable
from avbench.storage.runs.folder import RunFolder

LEGEND = "Printed by the paper's authors, not computed here: never tested, ranked or bold."
COLUMNS = (
    *("kind", "preset", "source", "on", "model", "column", "better", "value", "as_printed", "change_percent"),
    *("metric", "here"),
)


@dataclass(frozen=True)
class Section:
    """A paper preset's printed table, and the runs that used the preset."""

    preset: Preset
    runs: list[str]
    table: SubsetTable
    columns: list[tuple[Column, str]]
    """The paper's columns, each with a sentence on whether it was computed here."""
    overridden: list[str]
    """The preset's settings that runs overrode: one sentence each, with the runs."""

    @property
    def legend(self) -> str:
        """Explains printed values, and why they must not be compared with computed ones."""
        return f"{LEGEND} {self.preset.caveat}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        columns = [
            {"column": one.name, "table": one.table, "metric": one.metric, "here": here} for one, here in self.columns
        ]
        names = [column.name for column in self.preset.table_columns]
        return {
            **{"kind": "printed", "preset": self.preset.name, "paper": self.preset.paper, "source": self.preset.cited},
            **{"runs": self.runs, "caveat": self.preset.caveat, "columns": columns, "overridden": self.overridden},
            "printed": [
                {"on": row.on, "model": row.model, **dict(zip(names, row.values, strict=True))}
                for row in self.preset.printed
            ],
        }


def sections(folders: Sequence[RunFolder]) -> list[Section]:
    """Return one section per paper preset that runs used, in the runs' order."""
    asked: dict[str, tuple[Preset, dict[str, dict[str, Any]]]] = {}
    for folder in folders:
        if kept := folder.run().preset:
            preset = paper_presets.from_plain(kept)
            _, of_preset = asked.setdefault(json.dumps(preset.plain, sort_keys=True), (preset, {}))
            of_preset[folder.name] = dict(kept)
    return [_section(preset, kept) for preset, kept in asked.values()]


def frame(found: Sequence[Section]) -> pd.DataFrame:
    """Return one row per printed value, with the columns COLUMNS."""
    rows = []
    for one in found:
        here = {column.name: sentence for column, sentence in one.columns if not column.table}
        for row in one.preset.printed:
            common = {"kind": "printed", "preset": one.preset.name, "source": one.preset.cited}
            common |= {"on": row.on, "model": row.model}
            changes = row.change or [None] * len(row.values)
            for column, value, change in zip(one.preset.table_columns, row.values, changes, strict=True):
                numbers = {"value": float(value), "as_printed": value, "change_percent": change}
                about = {"column": column.name, "better": column.better, "metric": column.metric}
                rows.append({**common, **about, **numbers, "here": here[column.name]})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _section(preset: Preset, kept: dict[str, dict[str, Any]]) -> Section:
    columns = [(column, _here(column, kept)) for column in preset.columns]
    heads = [
        " ".join(part for part in (column.name, ARROWS[column.better], f"[{place}]") if part)
        for place, column in enumerate(preset.columns, start=1)
        if not column.table
    ]
    notes = [f"{one.name}{f' ({one.table})' if one.table else ''}: {here}" for one, here in columns]
    true_of: dict[str, list[str]] = {}
    for run, record in kept.items():
        for sentence in record["overridden"]:
            true_of.setdefault(sentence, []).append(run)
    overridden = [f"{', '.join(runs)}: {sentence}" for sentence, runs in true_of.items()]
    rows = [
        (
            f"{row.on}: {row.model}, printed",
            [
                Cell(value + (f" ({change} %)" if change else ""))
                for value, change in zip(row.values, row.change or [""] * len(row.values), strict=True)
            ],
        )
        for row in preset.printed
    ]
    remarks = [f"Not as in the paper: {sentence}" for sentence in overridden]
    table = SubsetTable(f"Printed in {preset.cited}", heads, rows, [*notes, *remarks], head="printed, not computed")
    return Section(preset, list(kept), table, columns, overridden)


def _here(column: Column, kept: dict[str, dict[str, Any]]) -> str:
    """Say whether a column was computed, left out, or cannot be computed."""
    if column.missing:
        return f"cannot be computed: {column.missing}"
    why = {run: record["left_out"].get(column.metric) for run, record in kept.items()}
    reasons = [one for one in dict.fromkeys(why.values()) if one]
    if not reasons:
        return column.description
    reasons_given = [f"not computed for {', '.join(run for run in why if why[run] == one)}: {one}" for one in reasons]
    return f"{column.description} {'; '.join(reasons_given)}"
