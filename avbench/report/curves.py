"""How does a metric go with how much moves? Curves of bin means for the page, in the coordinates of a small chart.

Where little moves, most measures of consistency are easily good, so two models that move unlike amounts are to be
compared at equal amounts.
"""

import itertools
from dataclasses import dataclass

import pandas as pd

WIDTH, HEIGHT = 260, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 20, 24
COLOURS = ("#3b76b5", "#d0622b", "#3a9a5b", "#a053a8", "#b09022", "#4aa3a8", "#c04a6b", "#6b6b6b")


@dataclass(frozen=True)
class Line:
    """One model's curve: x, y and the clips behind each point."""

    model: str
    colour: str
    points: list[tuple[float, float, int]]


@dataclass(frozen=True)
class Chart:
    """One metric of one subset over motion amount."""

    metric: str
    lines: list[Line]
    lowest: str
    highest: str
    ticks: list[tuple[float, str]]


def charts(over: pd.DataFrame, subset: str) -> list[Chart]:
    """A chart a metric, of `compare.over_motion`."""
    of_subset, colours = over[over["subset"] == subset], dict(legend(over, subset))
    return [_chart(str(name), of_metric, colours) for name, of_metric in of_subset.groupby("metric", sort=False)]


def legend(over: pd.DataFrame, subset: str) -> list[tuple[str, str]]:
    """The subset's models, each with its colour."""
    models = over.loc[over["subset"] == subset, "model"].unique()
    return list(zip(map(str, models), itertools.cycle(COLOURS), strict=False))


def _chart(name: str, of_metric: pd.DataFrame, colours: dict[str, str]) -> Chart:
    bins = sorted(of_metric["bin"].unique())
    low, high = float(of_metric["mean"].min()), float(of_metric["mean"].max())
    span = high - low or 1.0
    across, up = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def x(of_bin: int) -> float:
        return round(_LEFT + across * (bins.index(of_bin) + 0.5) / len(bins), 1)

    def y(value: float) -> float:
        return round(_TOP + up * (1 - (value - low) / span), 1)

    lines = [
        Line(str(model), colours[str(model)], [(x(row.bin), y(row.mean), row.n) for row in of_model.itertuples()])
        for model, of_model in of_metric.groupby("model", sort=False)
    ]
    lowest = of_metric.drop_duplicates("bin").set_index("bin")["low"]
    ticks = [(x(each), f"≥ {lowest[each]:g}") for each in bins]
    return Chart(name, lines, f"{low:.3g}", f"{high:.3g}", ticks)
