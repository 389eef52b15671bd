"""Draws the figures of each subset: paired differences, distances with their null, metrics over the amount of motion.

`values` has a row per clip and metric: subset, prompt, seed, metric, model, value, NaN where it could not be measured.
`runs` are the names of all runs, in the page's order, which gives them their colours. The page opens a dot's clips: the
dot carries its prompt's id, and its seed where it is one clip, and its group carries the runs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from avbench.core import counted
from avbench.metrics.table import known_metrics
from avbench.report.page import svg
from avbench.report.tables import number, p_value
from avbench.statistics.uncertainty import mean_interval

COLOURS = ("#2f78c8", "#d1661a", "#2a9163", "#a855b8", "#9c7c17", "#1f8d97", "#cf4a70", "#7b808a")
"""Colours of runs; each has a contrast of at least 3 : 1 with white and with near-black."""
WIDTH = 440
"""Width of a figure, in pixels."""
_LEFT, _RIGHT = 12.0, WIDTH - 12.0
_LETTERS = int((WIDTH - 24) / (1.1 * svg.LETTER))
"""Letters in a line; names of runs are rather wide."""
_LEGEND_TOP, _LEGEND_LINE = 254.0, 20.0
_WAYS = {"lower": "left is better", "higher": "right is better"}


@dataclass(frozen=True)
class Figure:
    """A figure of one metric."""

    title: str
    """The metric's name."""
    drawing: Markup


def colour(index: int) -> str:
    """The colour of a run, by its place in the comparison."""
    return COLOURS[index % len(COLOURS)]


def paired(values: pd.DataFrame, runs: Sequence[str], subset: str, differences: pd.DataFrame) -> Iterator[Figure]:
    """One figure per metric of a subset: every prompt's difference as a dot, the mean with its 95 % interval.

    The pairs are those of `differences.differences`. Intervals are its own where it compares the values themselves; of
    distances from the reference's value they are those of the mean over prompts.
    """
    of_subset = values[values["subset"] == subset]
    for metric, of_metric in of_subset.groupby("metric", sort=False):
        wide: Any = of_metric.pivot_table(index=["prompt", "seed"], columns="model", values="value", sort=False)
        rows = []
        for (run, against), tested in _tested(differences, subset, str(metric)).items():
            if run in wide and against in wide and len(dots := _by_prompt(wide[run] - wide[against])):
                rows.append((run, against, dots, *(tested or _mean(dots))))
        if rows:
            yield _paired_figure(str(metric), rows, runs)


def distances(frame: pd.DataFrame, runs: Sequence[str], subset: str) -> Iterator[Figure]:
    """One figure per distance of a subset: every run's value, the null of its n (mean ± 2 sd), and its floor.

    `frame` is `leaderboard.leaderboard`.
    """
    shown = frame["value"].notna() & frame["null"].notna() & frame["too_few"].isna()
    for metric, of_metric in frame[(frame["subset"] == subset) & shown].groupby("metric", sort=False):
        rows: list[Any] = [*of_metric.itertuples()]
        ends = [row.null + side * 2 * row.null_sd for row in rows for side in (-1, 1)]
        floors = [row.floor for row in rows if not pd.isna(row.floor)]
        several_kinds = len({row.null_within_prompts for row in rows}) > 1
        axis = svg.scale([*(row.value for row in rows), *ends, *floors], _LEFT, _RIGHT)
        bottom = 44.0 * len(rows)
        parts = [svg.across(axis, 0, bottom, ", ".join([_named(metric), *_unit_and_way(str(metric))]))]
        for place, row in enumerate(rows):
            y = 44.0 * place
            parts += _standard(axis, row.floor, y, y + 44)
            low, high = axis(row.null - 2 * row.null_sd), axis(row.null + 2 * row.null_sd)
            kind = (" within prompts" if row.null_within_prompts else " across prompts") if several_kinds else ""
            message = f": {number(row.value)}, {counted(row.n, 'clip')}, p {p_value(row.p)}{kind}"
            parts += [
                svg.text(_LEFT, y + 15, svg.cut(row.model, _LETTERS - len(message)) + message),
                svg.rectangle(low, y + 24, max(high - low, 1.0), 10.0, class_="null"),
                svg.circle(axis(row.value), y + 29, 5.5, fill=colour(list(runs).index(row.model))),
            ]
        alt = "; ".join(f"{row.model} {number(row.value)}, null {number(row.null, row.value)}" for row in rows)
        yield Figure(str(metric), svg.drawing(parts, WIDTH, bottom + 40, f"{metric}: {alt}"))


def over_motion(values: pd.DataFrame, over: pd.DataFrame, runs: Sequence[str], subset: str) -> Iterator[Figure]:
    """One figure per metric that depends on motion: every clip over its motion amount, and the means of `over` in bins.

    `over` is `score_table.over_motion`; a mean stands at the middle of its bin's amounts, with the run's number.
    """
    clips = values[values["subset"] == subset].set_index(["model", "prompt", "seed"])
    amounts = clips.loc[clips["metric"] == "motion_amount", "value"].rename("amount")
    for metric, of_metric in over[over["subset"] == subset].groupby("metric", sort=False):
        both = clips.loc[clips["metric"] == metric, ["value"]].join(amounts).dropna().reset_index()
        x = svg.scale(both["amount"].tolist(), 58.0, _RIGHT)
        y = svg.scale(both["value"].tolist(), 210.0, 26.0)
        parts = [
            svg.text(_LEFT, 14, f"↑ {_named(metric)}", kind="soft"),
            svg.across(x, 26, 210, "motion amount, in diagonals of the picture per second"),
        ]
        for tick in y.ticks(4):
            parts += [
                svg.line(x.start, y(tick), x.end, y(tick)),
                svg.text(54, y(tick) + 4, f"{tick:g}", anchor="end", kind="soft"),
            ]
        means_of_all, names, texts = [], [], []
        for model, of_model in of_metric.groupby("model", sort=False):
            place = list(runs).index(str(model))
            look = colour(place)
            bins: list[Any] = [*of_model.itertuples()]
            dots = both.loc[both["model"] == model]
            clips_of_model: list[Any] = [*dots.itertuples()]
            parts.append(
                svg.group(
                    (_dot(x(dot.amount), y(dot.value), dot.prompt, data_seed=dot.seed) for dot in clips_of_model),
                    fill=look,
                    fill_opacity="0.4",
                    data_run=model,
                )
            )
            at = [dots.loc[dots["amount"].between(row.low, row.high), "amount"].median() for row in bins]
            means = [(x(amount), y(row.mean)) for amount, row in zip(at, bins, strict=True)]
            means_of_all.append(svg.path(means, stroke=look, stroke_width="2.5"))
            means_of_all += [_numbered(*mean, place) for mean in means]
            names.append(_named_number(len(names), place, str(model)))
            texts += [f"{model} {number(row.mean)} at {amount:.2g}" for amount, row in zip(at, bins, strict=True)]
        drawing = [*parts, *means_of_all, *names]
        height = _LEGEND_TOP + _LEGEND_LINE * math.ceil(len(names) / 2)
        yield Figure(str(metric), svg.drawing(drawing, WIDTH, height, f"{metric} over motion: {'; '.join(texts)}"))


def of_trainings(scores: pd.DataFrame, trainings: pd.DataFrame, subset: str) -> Iterator[Figure]:
    """One figure per metric of a subset: every training as a dot, and below it the arm's mean with its 95 % interval.

    Args:
        scores: `ArmTables.scores`; for what should match the reference, its value is a dashed line.
        trainings: `ArmTables.trainings` of the same arms.
        subset: the subset's name.
    """
    arms = list(dict.fromkeys(scores["model"]))
    of_subset = scores.loc[(scores["subset"] == subset) & scores["value"].notna()]
    for metric, of_metric in of_subset.groupby("metric", sort=False):
        rows: list[Any] = [*of_metric.itertuples()]
        references = [row.reference for row in rows if not pd.isna(row.reference)]
        here = trainings.loc[(trainings["subset"] == subset) & (trainings["metric"] == metric)]
        ends = [end for row in rows for end in (row.low, row.high)]
        axis = svg.scale([*here.dropna(subset="value")["value"], *ends, *references], _LEFT, _RIGHT)
        bottom = 60.0 * len(rows)
        parts = [svg.across(axis, 0, bottom, ", ".join([_named(metric), *_unit_and_way(str(metric))]))]
        texts = []
        for place, row in enumerate(rows):
            look, y = colour(arms.index(row.model)), 60.0 * place
            parts += _standard(axis, row.reference, y, y + 60)
            dots: list[Any] = [*here.loc[here["arm"] == row.model].itertuples()]
            message = f", {row.trainings} trainings"
            parts.append(svg.text(_LEFT, y + 15, svg.cut(row.model, _LETTERS - len(message)) + message))
            parts.append(
                svg.group((_training(axis(dot.value), y + 29, dot) for dot in dots), fill=look, opacity="0.75")
            )
            parts += _mean_with_interval(axis, (row.value, row.low, row.high), y + 46, look)
            interval = f"[{number(row.low, row.value)}, {number(row.high, row.value)}]"
            texts.append(f"{row.model} {number(row.value)} {interval} over {row.trainings} trainings")
        yield Figure(str(metric), svg.drawing(parts, WIDTH, bottom + 40, f"{metric}: {'; '.join(texts)}"))


def _tested(differences: pd.DataFrame, subset: str, metric: str) -> dict[tuple[str, str], tuple[Any, ...] | None]:
    """(Run, against) → mean, low, high; None where what was compared is distances from the reference's value."""
    made = differences[(differences["kind"] != "distance") & differences["difference"].notna()]
    here: list[Any] = [*made.loc[(made["subset"] == subset) & (made["metric"] == metric)].itertuples()]
    return {
        (row.run, row.against): (row.difference, row.low, row.high) if row.kind == "clips" else None for row in here
    }


def _by_prompt(differences: pd.Series) -> Any:
    """Average over the seeds that both runs have, ``[prompts]``."""
    return differences.dropna().groupby(level="prompt", sort=False).mean()


def _mean(dots: pd.Series) -> tuple[float, float, float]:
    low, high = mean_interval(dots.to_numpy(), list(dots.index)) or (np.nan, np.nan)
    return float(dots.mean()), low, high


def _paired_figure(metric: str, rows: list[tuple[Any, ...]], runs: Sequence[str]) -> Figure:
    """Draw rows of run, against, dots, mean, low, high."""
    every = [value for _, _, dots, *numbers in rows for value in (*dots, *numbers) if not pd.isna(value)]
    axis = svg.scale(every, _LEFT, _RIGHT, zero=True)
    bottom = 76.0 * len(rows)
    parts = [svg.across(axis, 0, bottom, ", ".join(["difference", *_unit_and_way(metric, difference=True)]))]
    texts = []
    for place, (run, against, dots, mean, low, high) in enumerate(rows):
        look, y = colour(list(runs).index(run)), 76.0 * place
        parts.append(svg.text(_LEFT, y + 15, " − ".join(svg.cut(name, _LETTERS // 2 - 2) for name in (run, against))))
        # Multiples of the golden section spread neighbours evenly over the row's height, without chance.
        heights = y + 25 + 22 * (dots.rank(method="first").to_numpy() * 0.618034 % 1)
        marks = (_dot(axis(value), at, prompt) for (prompt, value), at in zip(dots.items(), heights, strict=True))
        parts.append(svg.group(marks, fill=look, fill_opacity="0.55", data_run=run, data_against=against))
        parts += _mean_with_interval(axis, (mean, low, high), y + 60, look)
        interval = "" if pd.isna(low) else f" [{number(low, mean)}, {number(high, mean)}]"
        texts.append(f"{run} minus {against}: {number(mean)}{interval} over {counted(len(dots), 'prompt')}")
    return Figure(metric, svg.drawing(parts, WIDTH, bottom + 40, f"{metric}: {'; '.join(texts)}"))


def _unit_and_way(metric: str, *, difference: bool = False) -> list[str]:
    """A metric's unit and its better side, for an axis."""
    if not (one := known_metrics().get(metric)):
        return []
    unit = one.unit_of_differences if difference else one.unit
    parts = (f"in {unit}" if unit else "", _WAYS.get(one.direction.value, ""))
    return [part for part in parts if part]


def _mean_with_interval(axis: svg.Scale, ends: tuple[float, float, float], y: float, look: str) -> Iterator[Markup]:
    """A mean as a diamond, and its interval from low to high as a line where it has one."""
    mean, low, high = ends
    if not pd.isna(low):
        yield svg.line(axis(low), y, axis(high), y, "reach", stroke=look)
    x = axis(mean)
    yield svg.polygon([(x - 7, y), (x, y - 7), (x + 7, y), (x, y + 7)], fill=look)


def _standard(axis: svg.Scale, value: float, top: float, bottom: float) -> Iterator[Markup]:
    """The value that a row is read against, as a line across the row; nothing where it is not known."""
    if not pd.isna(value):
        yield svg.line(axis(value), top, axis(value), bottom, "floor")


def _training(x: float, y: float, dot: Any) -> Markup:
    """A training's dot, which shows its name and value under the pointer."""
    title = Markup("<title>{}: {}</title>").format(dot.training, number(dot.value))
    return svg.group([title, svg.circle(x, y, 4.5)])


def _numbered(x: float, y: float, place: int) -> Markup:
    """A ring in the colour of a run with the run's number, because colours repeat and not everybody sees them."""
    ring = svg.circle(x, y, 7.5, class_="numbered", stroke=colour(place))
    return Markup("").join([ring, svg.text(x, y + 3.5, place + 1, anchor="middle", kind="digits")])


def _named_number(at: int, place: int, name: str) -> Markup:
    """An entry of a legend in two columns."""
    x, y = _LEFT + 10 + 214 * (at % 2), _LEGEND_TOP + _LEGEND_LINE * (at // 2) + 8
    return Markup("").join([_numbered(x, y, place), svg.text(x + 14, y + 4, svg.cut(name, 28))])


def _dot(x: float, y: float, prompt: object, **look: object) -> Markup:
    return svg.circle(x, float(y), 3, data_prompt=prompt, **look)


def _named(metric: object) -> str:
    return str(metric).replace("_", " ")
