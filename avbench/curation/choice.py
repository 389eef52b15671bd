"""Decides which clips of a measured pool the rules keep, and records why the others are rejected.

The subset's folder holds prompts.jsonl and card.toml (as `subsets lint` requires), manifest.jsonl (id, file, sha256
of the kept clips), audit.csv and audit.parquet (one row per clip and condition, and one for copies), agreement.csv (how
often two conditions, or two rules, hold together) and sheet.png. Nothing in it depends on when the pool was measured or
in how many sessions. Memory holds a few numbers and the hashes of each clip, never the clips.
"""

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from avbench.core import InputError, Subset, all_of, counted, listed, spreadsheet_cell
from avbench.curation import duplicates
from avbench.curation.measures import MEASURES
from avbench.curation.pool import Measured, keys, rows_path
from avbench.curation.rules import QUALITY, Condition, Rules
from avbench.storage.reading import stream_lines
from avbench.storage.writing import replacing, write_whole
from avbench.subsets.datasets import Pool
from avbench.subsets.from_dataset import card_of, prompt_of
from avbench.subsets.loading import require_no_other, write

AUDIT = ("id", "file", "rule", "condition", "value", "threshold", "threshold_from", "holds", "kept", "why")
_HASHES = {"picture_hash": "the picture's", "moving_hash": "the moving parts'", "sound_hash": "the sound's"}
_CHUNK = 50_000


@dataclass(frozen=True, eq=False)
class Decided:
    """The decisions on a pool under one rule; all arrays are in the pool's order."""

    rule: str
    table: pd.DataFrame
    """One row per clip: id, file, sha256, missing, the measures and hashes."""
    conditions: tuple[Condition, ...]
    thresholds: tuple[float, ...]
    holds: np.ndarray
    """``[clips, conditions]`` bool: whether each condition holds."""
    copy_of: np.ndarray
    """``[clips]``: number of the clip that is kept instead of a copy, or −1."""
    kept: np.ndarray
    """``[clips]`` bool: whether each clip is kept."""

    def why(self, clip: int) -> str:
        """The decision on a clip, in words."""
        if self.kept[clip]:
            return "kept"
        if isinstance(reason := self.table["missing"].iat[clip], str):
            return f"not measured: {reason}"
        if self.copy_of[clip] >= 0:
            return self._copied(clip, self.copy_of[clip])
        failed = [one.name for one, held in zip(self.conditions, self.holds[clip], strict=True) if not held]
        return "not kept: fails " + "; ".join(failed)

    def remarks(self) -> Iterator[str]:
        """Report the clips that could not be measured, and the conditions that leave out most of the others."""
        if reasons := [one for one in self.table["missing"] if isinstance(one, str)]:
            why = listed(dict.fromkeys(reasons))
            yield f"{len(reasons)} of {counted(len(self.table), 'clip')} could not be measured: {why}"
        failing = (~self.holds[self.table["missing"].isna()]).sum(axis=0)
        worst = [index for index in np.argsort(-failing, kind="stable") if failing[index]]
        if worst:
            named = listed(f"{self.conditions[index].name} ({counted(int(failing[index]), 'clip')})" for index in worst)
            yield f"left out most often by {named}"

    def _copied(self, clip: int, kept: int) -> str:
        """By which hashes a clip is a copy of the kept one, in words."""
        one, other = self.table.iloc[clip], self.table.iloc[kept]
        known = [name for name in _HASHES if isinstance(one[name], str) and isinstance(other[name], str)]
        apart = {name: duplicates.differing(one[name], other[name]) for name in known}
        near = any(
            all(apart.get(name, 1) <= share for name, share in limits.items())
            for limits in (duplicates.PICTURE, duplicates.SOUND)
        )
        through = "" if near else " through clips that resemble both"
        shares = all_of([f"{100 * share:.1f} % of {_HASHES[name]}" for name, share in apart.items()])
        return f"a copy of {other['id']}{through}: of the bits, {shares} differ"


def load(pool: Pool, work: Path) -> pd.DataFrame:
    """Return the pool's clips in its order, with their measures. Raises InputError if there is no clip."""
    columns: dict[str, list[Any]] = {name: [] for name in ("id", "sha256", "missing", *_HASHES)}
    numbers: dict[str, list[float]] = {name: [] for name in MEASURES}
    places: dict[str | tuple[str, str], int] = {}
    for row in stream_lines(rows_path(work), Measured):
        values = row.values or {}
        places[row.key] = len(columns["id"])
        for name in columns:
            columns[name].append(getattr(row, name, values.get(name)))
        for name in MEASURES:
            value = values.get(name)
            numbers[name].append(np.nan if value is None else value)
    rows = pd.DataFrame({**columns, **{name: np.asarray(values, float) for name, values in numbers.items()}})
    order, files, absent = [], [], []
    for entry in pool.entries():
        if entry.path is None:
            continue
        files.append(entry.path.relative_to(pool.folder).as_posix())
        order.append(next((places[key] for key in keys(entry.path) if key in places), -1))
        absent.append(entry.id)
    if not order:
        msg = f"{pool.folder}: it holds no clip to choose from"
        raise InputError(msg)
    blank = pd.DataFrame([dict.fromkeys(rows.columns)], index=[-1])
    table = (rows if len(rows) else blank).reindex(order).reset_index(drop=True)
    unmeasured = np.array(order) < 0
    table["id"], table["file"] = absent, files
    table["missing"] = table["missing"].where(~unmeasured, "its file is missing, or was not measured")
    return table.astype({name: float for name in MEASURES})


def decide(table: pd.DataFrame, rules: Rules, rule: str) -> Decided:
    """Decide on every clip of a table that `load` returned.

    Copies are searched among the clips that pass all conditions. Of several copies, the one with the most pixels is
    kept, then the longest, then the first.
    """
    conditions = rules.of(rule)
    holds, thresholds = _holding(table, conditions)
    passing = np.all(holds, axis=1)
    copy_of = _copies(table, passing)
    return Decided(rule, table, conditions, thresholds, holds, copy_of, passing & (copy_of < 0))


def _holding(table: pd.DataFrame, conditions: Sequence[Condition]) -> tuple[np.ndarray, tuple[float, ...]]:
    """Where each condition holds, ``[clips, conditions]``, and the thresholds as values; quality's come first."""
    measured = table["missing"].isna().to_numpy()
    usable = measured.copy()
    thresholds: list[float] = []
    holds = np.zeros((len(table), len(conditions)), bool)
    for index, one in enumerate(conditions):
        values = table[one.measure].to_numpy()
        threshold = one.threshold
        if one.comparison == "at_least_percentile":
            known = values[usable & np.isfinite(values)]
            threshold = float(np.percentile(known, one.threshold)) if len(known) else float("inf")
        thresholds.append(threshold)
        fits = values <= threshold if one.comparison == "at_most" else values >= threshold
        holds[:, index] = measured & np.where(np.isnan(values), one.or_none, fits)
        if one.rule == QUALITY:
            usable &= holds[:, index]
    return holds, tuple(thresholds)


def _copies(table: pd.DataFrame, passing: np.ndarray) -> np.ndarray:
    numbers = np.flatnonzero(passing)
    copy_of = np.full(len(table), -1)
    passed = table.iloc[numbers]
    found = [duplicates.near(passed, limits) for limits in (duplicates.PICTURE, duplicates.SOUND)]
    group = duplicates.groups(len(numbers), np.concatenate(found))
    quality = passed[["pixels", "seconds"]].to_numpy()
    for first in np.unique(group[group != np.arange(len(group))]):
        members = np.flatnonzero(group == first)
        best = min(members, key=lambda one: (-quality[one][0], -quality[one][1], one))
        copy_of[numbers[members[members != best]]] = numbers[best]
    return copy_of


def save(
    pool: Pool, decided: Decided, rules: Rules, folder: Path, *, caption: str | None = None, replace: bool = False
) -> Subset:
    """Write the subset's folder, whose name becomes the subset's.

    Args:
        pool: the data set.
        decided: the decisions on its clips.
        rules: the rules that they were decided by.
        folder: the folder.
        caption: template of the prompts of clips without a caption, with tags in braces; by default the reader's.
        replace: whether another subset that the folder holds is written over.

    Raises:
        InputError: no clip is kept; or the folder holds another subset, and `replace` is false.
    """
    if not decided.kept.any() and (folder / "card.toml").exists():
        msg = (
            f"no clip of {len(decided.table)} is kept by {decided.rule}; the subset in {folder} stays as it is: give "
            "another --out for the audit, which has the reasons"
        )
        raise InputError(msg)
    subset = _subset(pool, decided, rules, folder, caption) if decided.kept.any() else None
    if subset and not replace:
        require_no_other(subset, folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_audit(decided, folder)
    write_whole(folder / "agreement.csv", agreement(decided.table, rules).to_csv(index=False).encode())
    if subset is None:
        msg = f"no clip of {len(decided.table)} is kept by {decided.rule}; {folder / 'audit.csv'} gives the reasons"
        raise InputError(msg)
    lines = decided.table.loc[decided.kept, ["id", "file", "sha256"]].to_dict("records")
    write_whole(
        folder / "manifest.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    )
    write(subset, folder)
    return subset


def _subset(pool: Pool, decided: Decided, rules: Rules, folder: Path, caption: str | None) -> Subset:
    kept = set(decided.table["id"][decided.kept])
    prompts = tuple(prompt_of(entry, pool, caption) for entry in pool.entries() if entry.id in kept)
    card = {
        **card_of(pool, prompts, rules.purposes[decided.rule] or decided.rule),
        "rule": [one.name for one in decided.conditions],
        "thresholds": [float(f"{value:.6g}") for value in decided.thresholds],
        "chosen": f"{len(prompts)} of {len(decided.table)} clips, {int((decided.copy_of >= 0).sum())} copies left out",
    }
    return Subset(folder.resolve().name, 1, prompts, None, card)


def _audit_rows(decided: Decided) -> Iterator[tuple[Any, ...]]:
    table = decided.table
    values = {one.measure: table[one.measure].to_numpy() for one in decided.conditions}
    for clip, (identifier, file) in enumerate(zip(table["id"], table["file"], strict=True)):
        kept, why = bool(decided.kept[clip]), decided.why(clip)
        for index, one in enumerate(decided.conditions):
            value = values[one.measure][clip]
            plain = None if np.isnan(value) else float(value)
            held = bool(decided.holds[clip, index])
            yield identifier, file, one.rule, one.name, plain, decided.thresholds[index], one.origin, held, kept, why
        single = None if not decided.holds[clip].all() else bool(decided.copy_of[clip] < 0)
        yield identifier, file, QUALITY, "no copy of a clip that is kept", None, None, "toys", single, kept, why


def _write_audit(decided: Decided, folder: Path) -> None:
    kinds = dict.fromkeys(AUDIT, pa.string()) | {"value": pa.float64(), "threshold": pa.float64()}
    schema = pa.schema(list((kinds | {"holds": pa.bool_(), "kept": pa.bool_()}).items()))
    rows = _audit_rows(decided)
    with (
        replacing(folder / "audit.csv") as table,
        replacing(folder / "audit.parquet") as columns,
        table.open("w", encoding="utf-8", newline="") as file,
        pq.ParquetWriter(columns, schema) as parquet,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(AUDIT)
        while chunk := list(itertools.islice(rows, _CHUNK)):
            writer.writerows([spreadsheet_cell(one) if isinstance(one, str) else one for one in row] for row in chunk)
            parquet.write_table(pa.Table.from_pylist([dict(zip(AUDIT, row, strict=True)) for row in chunk], schema))


def agreement(table: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """How often two conditions, or two rules, hold together on the measured clips, with Cohen's kappa.

    Here a rule means only its own conditions, without those of [quality]. Kappa is left out if one of a pair always or
    never holds.
    """
    named: dict[str, np.ndarray] = {}
    measured = table["missing"].isna().to_numpy()
    for rule in rules.conditions:
        if rule == QUALITY:
            continue
        conditions = rules.of(rule)
        holds, _ = _holding(table, conditions)
        own = [index for index, one in enumerate(conditions) if one.rule == rule]
        for index in own:
            named[f"{rule}: {conditions[index].name}"] = holds[measured, index]
        named[rule] = np.all(holds[measured][:, own], axis=1)

    rows = []
    for (one, first), (two, second) in itertools.combinations(named.items(), 2):
        kappa = None
        if len(first) and all(0 < each.mean() < 1 for each in (first, second)):
            chance = first.mean() * second.mean() + (1 - first.mean()) * (1 - second.mean())
            kappa = round(float(((first == second).mean() - chance) / (1 - chance)), 4)
        counts = [(first & second).sum(), (first & ~second).sum(), (~first & second).sum(), (~first & ~second).sum()]
        rows.append([one, two, *map(int, counts), kappa])
    return pd.DataFrame(rows, columns=["one", "two", "both", "only_one", "only_two", "neither", "kappa"])
