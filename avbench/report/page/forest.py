"""Draws the forest plot of a pair of runs: every metric's difference on one axis, whatever its unit.

A difference stands in units of the metric's smallest detectable one (`verdict.effect`), which allows for the number of
comparisons: to the left one run is better, to the right the other. A full mark is a difference that is shown, in the
colour of the better run; an open grey one is not shown. Near 1 a mark may be either, because the unit is that of
Student's t and the test is exact; with too few prompts for the exact test no mark is full, and the caption says so. A
metric has one mark per subset. Metrics without a better side stand below, and so do the subsets on which a metric has
none; what could not be compared says why in its row. A row is a button: the page shows the clips behind it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from avbench.comparison.differences import POOLS, could_be_made, sided, worsening
from avbench.comparison.not_compared import reason, reason_of
from avbench.comparison.verdict import effect, out_of_reach
from avbench.core import counted
from avbench.report.page import svg
from avbench.report.tables import p_value

WIDE, NARROW = 720, 360
"""Widths of the two drawings of each plot, in pixels: the page shows the one that fits."""
_FARTHEST = 6.0
"""Differences beyond it are arrows at the edge."""


@dataclass(frozen=True)
class _Mark:
    at: float
    low: float
    high: float
    winner: str | None
    """The better run; an empty string if a difference is shown in a metric without a better side."""
    subset: str


@dataclass(frozen=True)
class _Row:
    metric: str
    marks: tuple[_Mark, ...]
    note: str
    """How certain the difference is, in words, or why nothing was compared."""
    sided: bool

    @property
    def shown(self) -> bool:
        return any(mark.winner is not None for mark in self.marks)

    @property
    def farthest(self) -> float:
        return max((abs(mark.at) for mark in self.marks), default=-1.0)


def forest(
    rows: pd.DataFrame, frame: pd.DataFrame, colours: Mapping[str, str], widths: Sequence[int] = (WIDE, NARROW)
) -> Markup:
    """Draw the plot in both widths, one drawing after the other.

    Args:
        rows: of one pair of runs, as `differences.by_pair` has them; of one subset or of several.
        frame: the scores of the runs.
        colours: of each run.
        widths: the widths to draw it in.
    """
    run, against = str(rows["run"].iloc[0]), str(rows["against"].iloc[0])
    of_metrics = rows.groupby("metric", sort=False)
    found = [row for metric, of_metric in of_metrics for row in _rows(str(metric), of_metric, frame)]
    found.sort(key=lambda row: (not row.marks, not row.sided, not row.shown, -row.farthest))
    most = max((row.farthest for row in found), default=0.0)
    axis_end = min(max(1.15 * most, 1.5), _FARTHEST)
    captions = _captions(rows)
    drawn = [_Plot(width, axis_end, run, against, colours).drawn(found, captions) for width in widths]
    return Markup("").join(drawn)


def _captions(rows: pd.DataFrame) -> tuple[str, str]:
    """What 1 on the axis is, for the wide and for the narrow drawing; or that no mark can be full."""
    prompts, family = (int(np.nanmax([0.0, *rows[name].to_numpy(float)])) for name in ("prompts", "family"))
    here = int(could_be_made(rows).sum())
    many = counted(here, "comparison") + (f", corrected for {family}" if family != here else "")
    if said := out_of_reach(rows):
        return said, "too few prompts for so many comparisons"
    shown = "1 is about the smallest difference that"
    return f"{shown} {counted(prompts, 'prompt')} can show in {many}", f"{shown} can be shown"


def _rows(metric: str, of_metric: pd.DataFrame, frame: pd.DataFrame) -> Iterator[_Row]:
    """Yield a metric's row; two where a side is better on some subsets only, as of ≈ where not all have a reference."""
    every: list[Any] = [*of_metric.itertuples()]
    made: list[Any] = [*of_metric[could_be_made(of_metric)].itertuples()]
    if not made:
        reasons = (reason(row, frame) for row in every)
        whys = dict.fromkeys(reason_of(why, [run] if run else []) for why, run in reasons)
        yield _Row(metric, (), f"not compared: {'; '.join(whys)}", sided=True)
    for side in (True, False):
        if of_side := [row for row in made if sided(row) == side]:
            marks = tuple(_mark(row) for row in of_side)
            counts = (sum(row.subset not in POOLS for row in some) for some in (made, every))
            yield _Row(metric, marks, _note(of_side, marks, *counts), side)


def _mark(row: Any) -> _Mark:
    unit = row.detectable if row.detectable > 0 else math.nan
    turn = math.copysign(1.0, -worsening(row) * row.difference) if sided(row) and row.difference else 1.0
    low, high = sorted((turn * row.low / unit, turn * row.high / unit))
    winner = row.better if isinstance(row.better, str) else "" if row.shown and not sided(row) else None
    return _Mark(effect(row), low, high, winner, row.subset)


def _note(rows: Sequence[Any], marks: Sequence[_Mark], made: int, asked: int) -> str:
    """How certain the differences of a row are; `made` of the metric's comparisons on `asked` subsets were possible."""
    shown = [mark for mark in marks if mark.winner is not None]
    pool = next((row for row in rows if row.subset in POOLS), None)
    on_subsets = sum(mark.subset not in POOLS for mark in shown)
    if on_subsets and asked > 1:
        return f"shown on {on_subsets} of {asked} subsets"
    if asked < 2 or (pool and (shown or not made)):
        row = pool or rows[0]
        p = row.p_holm if pd.notna(row.p_holm) else row.p
        return f"{'over all: ' if pool else ''}{'shown' if shown else 'open'}, p {p_value(p)}"
    return "open" + (f", compared on {made} of {asked}" if made < asked else "")


@dataclass(frozen=True)
class _Plot:
    width: int
    axis_end: float
    run: str
    against: str
    colours: Mapping[str, str]

    @property
    def narrow(self) -> bool:
        return self.width == NARROW

    @property
    def axis(self) -> svg.Scale:
        start, end = (14.0, self.width - 14.0) if self.narrow else (190.0, self.width - 190.0)
        return svg.Scale(-self.axis_end, self.axis_end, start, end)

    def drawn(self, rows: Sequence[_Row], captions: tuple[str, str]) -> Markup:
        """The whole drawing: metrics with a better side, metrics without one, the axis, and what was not compared."""
        parts, y, room = [], 0.0, 13 if self.narrow else 36
        left, right = svg.cut(self.against, room), svg.cut(self.run, room)
        for heads, of_kind in (
            ((f"← {left} better", f"{right} better →"), [row for row in rows if row.marks and row.sided]),
            ((f"← less in {right}", f"more in {right} →"), [row for row in rows if row.marks and not row.sided]),
        ):
            if not of_kind:
                continue
            for words, side, anchor in zip(heads, (-9, 9), ("end", "start"), strict=True):
                parts.append(svg.text(self.axis(0.0) + side, y + 16, words, anchor=anchor, kind="strong"))
            y += 24
            for row in of_kind:
                height = self._height(row)
                parts.append(self._row(row, y, height))
                y += height
        if y:
            caption = svg.wrapped(captions[self.narrow], self.width - 28)
            parts.insert(0, svg.across(self.axis, 22, y, *caption))
            y += 25 + 17 * len(caption)
        for words in self._not_compared(rows):
            y += 17
            parts.append(svg.text(14, y, words, kind="soft"))
        lines = "; ".join(f"{row.metric}: {row.note}" for row in rows)
        alt = f"Forest plot of {self.run} against {self.against}: {lines}"
        return svg.drawing(parts, self.width, y + 8, alt, "narrow" if self.narrow else "whole", role="group")

    def _not_compared(self, rows: Sequence[_Row]) -> Iterator[str]:
        """Return lines that name the metrics that were not compared, grouped by reason."""
        by_reason: dict[str, list[str]] = {}
        for row in rows:
            if not row.marks:
                by_reason.setdefault(row.note, []).append(row.metric.replace("_", " "))
        for why, metrics in by_reason.items():
            yield from svg.wrapped(f"{why}: {', '.join(metrics)}", self.width - 28)

    def _height(self, row: _Row) -> float:
        return (18 if self.narrow else 0) + max(26.0, 10.0 * len(row.marks) + 8)

    def _row(self, row: _Row, y: float, height: float) -> Markup:
        axis, name = self.axis, row.metric.replace("_", " ")
        middle = y + height / 2 + (9 if self.narrow else 0)
        parts = [svg.rectangle(1.0, y + 1, self.width - 2.0, height - 2, class_="row", rx=4)]
        if self.narrow:
            parts += [
                svg.text(14, y + 15, name),
                svg.text(axis.end, y + 15, svg.cut(row.note, 30), anchor="end", kind="soft"),
            ]
        else:
            parts += [svg.text(180, middle + 4, name, anchor="end")]
            parts += [svg.text(self.width - 180, middle + 4, row.note, kind="strong" if row.shown else "soft")]
        first = middle - 5.0 * (len(row.marks) - 1)
        for place, mark in enumerate(row.marks):
            parts += self._mark(mark, first + 10.0 * place)
        label = f"{name}: {self._in_words(row)}. Show the clips"
        subset = max(row.marks, key=lambda mark: (mark.winner is not None, abs(mark.at))).subset
        return svg.group(
            [Markup("<title>{}</title>").format(label), *parts],
            **{"class_": "choice", "role": "button", "tabindex": 0},  # its title is its name
            **{"data_metric": row.metric, "data_subset": subset},
        )

    def _in_words(self, row: _Row) -> str:
        winners = dict.fromkeys(mark.winner for mark in row.marks if mark.winner)
        return f"{' and '.join(winners)} better, {row.note}" if winners else row.note

    def _mark(self, mark: _Mark, y: float) -> Iterator[Markup]:
        axis = self.axis
        look = self.colours.get(mark.winner or "")
        kind = "open" if mark.winner is None else "full"
        if not math.isnan(mark.low):
            low, high = (axis(min(max(end, -self.axis_end), self.axis_end)) for end in (mark.low, mark.high))
            yield svg.line(low, y, high, y, f"reach {kind}", stroke=look)
        if abs(mark.at) > self.axis_end:
            side = math.copysign(1.0, mark.at)
            x = axis(side * self.axis_end)
            yield svg.polygon(
                [(x, y), (x - side * 10, y - 5), (x - side * 10, y + 5)], class_=f"mark {kind}", fill=look
            )
        else:
            yield svg.circle(axis(mark.at), y, 4.5, class_=f"mark {kind}", fill=look)
