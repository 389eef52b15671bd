"""What does a comparison look like? Figures for the page, as plain JSON of plotly's form: data and layout.

They are drawn in the browser by plotly's own code. Colours of models are fixed here; those of text and lines belong to
the page, which knows whether it is dark. Names come from anybody and plotly reads a little HTML: all are escaped.

Conventions: a figure is a dict of title (a sentence part), alt (what a reader who sees nothing is told), height
(pixels), data and layout. `runs` are the names of the runs in the page's order.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from avbench.metrics import METRICS
from avbench.uncertainty import mean_interval

COLOURS = ("#3f84d1", "#e07a2f", "#2f9e6b", "#b565c4", "#b8952a", "#2ba3ad", "#d65a7c", "#8a8f98")
"""Readable on white and on near-black."""
_GREY = "#8a8f98"
_ROW, _AXIS = 58, 62  # pixels: of a row of a figure, and of what is around the rows
Figure = dict[str, Any]


def colour(index: int) -> str:
    """The colour of a run, by its place in the comparison."""
    return COLOURS[index % len(COLOURS)]


def paired(
    values: pd.DataFrame, runs: Sequence[str], subset: str, differences: pd.DataFrame | None = None
) -> Iterator[Figure]:
    """A figure a metric of one subset: every prompt's difference as a dot, the mean with its 95 % interval.

    Args:
        values: subset, prompt, seed, metric, model, value of every clip; NaN where it could not be measured.
        runs: all runs.
        subset: its name.
        differences: the paired comparisons; what they compare is shown, or else every later run against the first.
    """
    of_subset = values[values["subset"] == subset]
    for metric, of_metric in of_subset.groupby("metric", sort=False):
        wide = of_metric.pivot_table(index=["prompt", "seed"], columns="model", values="value", sort=False)
        known = _known(differences, subset, str(metric))
        pairs = list(known) if known else [(run, runs[0]) for run in runs[1:]]
        rows = [(pair, _by_prompt(wide, *pair), known.get(pair)) for pair in pairs]
        rows = [row for row in rows if len(row[1])]
        if rows:
            yield _paired_figure(str(metric), rows, runs)


def distances(frame: pd.DataFrame, runs: Sequence[str], subset: str) -> Iterator[Figure]:
    """A figure a distance of one subset: every run's value, the null of its n (mean ± 2 sd), and the floor."""
    of_subset = frame[(frame["subset"] == subset) & frame["value"].notna() & frame["null"].notna()]
    for metric, of_metric in of_subset.groupby("metric", sort=False):
        rows = list(of_metric.itertuples())
        names = [_escaped(row.model) for row in rows]
        null = {
            "type": "scatter",
            "mode": "markers",
            "x": [_short(row.null) for row in rows],
            "y": names,
            "error_x": {"array": [_short(2 * row.null_sd) for row in rows], "thickness": 9, "width": 0, "color": _GREY},
            "marker": {"color": _GREY, "size": 9, "symbol": "line-ns"},
            "opacity": 0.45,
            "hovertemplate": "null %{x} ± %{error_x.array} (2 sd)<extra></extra>",
        }
        measured = {
            "type": "scatter",
            "mode": "markers",
            "x": [_short(row.value) for row in rows],
            "y": names,
            "marker": {"color": [colour(list(runs).index(row.model)) for row in rows], "size": 12},
            "customdata": [[row.n, f"{row.p:.3f}"] for row in rows],
            "hovertemplate": "%{y}: %{x}<br>%{customdata[0]} clips, p %{customdata[1]}<extra></extra>",
        }
        data = [null, measured]
        floors = of_metric["floor"].dropna()
        if len(floors):
            floor = _short(float(floors.iloc[0]))
            told = {"hovertemplate": "floor %{x}: the reference against itself<extra></extra>"}
            line = {"color": _GREY, "dash": "dot", "width": 2}
            ends = {"x": [floor, floor], "y": [names[0], names[-1]]}
            data.append({"type": "scatter", "mode": "lines+markers", "line": line, **ends, **told})
            data[-1]["marker"] = {"size": 1}
        alt = "; ".join(f"{row.model} {row.value:.4g}, null {row.null:.4g}" for row in rows)
        layout = {"yaxis": {"autorange": "reversed", "automargin": True}, "showlegend": False}
        yield _figure(str(metric), alt, len(rows), str(metric), data, layout)


def over_motion(values: pd.DataFrame, over: pd.DataFrame, runs: Sequence[str], subset: str) -> Iterator[Figure]:
    """A figure a metric that goes with motion: every clip over its motion amount, and the means in bins of it.

    Args:
        values: as for `paired`.
        over: `compare.over_motion`.
        runs: all runs.
        subset: its name.
    """
    clips = values[values["subset"] == subset].set_index(["model", "prompt", "seed"])
    amounts = clips.loc[clips["metric"] == "motion_amount", "value"].rename("amount")
    for metric, of_metric in over[over["subset"] == subset].groupby("metric", sort=False):
        data, told = [], []
        both = clips.loc[clips["metric"] == metric, ["value"]].join(amounts).dropna()
        for model, of_model in of_metric.groupby("model", sort=False):
            look = {"color": colour(list(runs).index(model))}
            name = _escaped(model)
            dots = both[both.index.get_level_values("model") == model]
            ids = dots.index.get_level_values("prompt").tolist()
            common = {"type": "scatter", "legendgroup": name, "name": name}
            data.append(
                {
                    **common,
                    "mode": "markers",
                    "showlegend": False,
                    "opacity": 0.35,
                    "marker": {**look, "size": 5},
                    "x": [_short(x) for x in dots["amount"]],
                    "y": [_short(y) for y in dots["value"]],
                    "text": [_escaped(prompt) for prompt in ids],
                    "customdata": ids,
                    "hovertemplate": "%{text}: %{y} at %{x}<extra>" + name + "</extra>",
                }
            )
            middles = [
                float(np.median(inside)) if len(inside := _between(dots, row.low, row.high)) else row.low
                for row in of_model.itertuples()
            ]
            data.append(
                {
                    **common,
                    "mode": "lines+markers",
                    "line": {**look, "width": 2.5},
                    "marker": {**look, "size": 8},
                    "x": [_short(x) for x in middles],
                    "y": [_short(y) for y in of_model["mean"]],
                    "customdata": [[row.n, row.low, row.high] for row in of_model.itertuples()],
                    "hovertemplate": "mean %{y} of %{customdata[0]} clips<br>that move %{customdata[1]} to "
                    "%{customdata[2]} diagonals/s<extra>" + name + "</extra>",
                }
            )
            told.append(f"{model}: " + ", ".join(f"{y:.3g} at {x:.2g}" for x, y in zip(middles, of_model["mean"])))
        layout = {"yaxis": {"automargin": True}, "showlegend": False}
        yield _figure(str(metric), "; ".join(told), 4, "motion amount, diagonals/s", data, layout)


def _known(differences: pd.DataFrame | None, subset: str, metric: str) -> dict[tuple[str, str], Any]:
    if differences is None:
        return {}
    here = differences[(differences["subset"] == subset) & (differences["metric"] == metric)]
    return {(row.run, row.against): row for row in here.itertuples() if row.kind == "clips"}


def _by_prompt(wide: pd.DataFrame, run: str, against: str) -> pd.Series:
    """Run less against, a prompt's mean over the seeds that both have, ``[prompts]``."""
    if run not in wide or against not in wide:
        return pd.Series(dtype=float)
    return (wide[run] - wide[against]).dropna().groupby(level="prompt", sort=False).mean()


def _paired_figure(metric: str, rows: list[tuple[tuple[str, str], pd.Series, Any]], runs: Sequence[str]) -> Figure:
    known = {one.name: one for one in METRICS}
    data, told, ticks = [], [], []
    for place, ((run, against), dots, row) in enumerate(rows):
        ticks.append(f"{_escaped(run)}<br>− {_escaped(against)}")
        look = {"color": colour(list(runs).index(run))}
        # Places within a row that spread evenly without chance (multiples of the golden section).
        heights = place + 0.22 + 0.3 * ((np.argsort(np.argsort(dots.to_numpy())) * 0.618034) % 1 - 0.5)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [_short(x) for x in dots],
                "y": heights.round(3).tolist(),
                "marker": {**look, "size": 6},
                "opacity": 0.5,
                "text": [_escaped(prompt) for prompt in dots.index],
                "customdata": dots.index.tolist(),
                "hovertemplate": "%{text}: %{x}<extra></extra>",
            }
        )
        mean, low, high = _mean(dots, row)
        if mean is None:
            continue
        bar = {} if low is None else {"error_x": _error(mean, low, high, look["color"])}
        interval = "" if low is None else f" [{low:.3g}, {high:.3g}]"
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [_short(mean)],
                "y": [place - 0.2],
                "marker": {**look, "size": 12, "symbol": "diamond"},
                "hovertemplate": f"mean %{{x}}{interval}, {len(dots)} prompts<extra></extra>",
                **bar,
            }
        )
        told.append(f"{run} less {against}: {mean:.3g}{interval} over {len(dots)} prompts")
    way = {"lower": "left of 0 is better", "higher": "right of 0 is better", "band": "0 is no difference"}
    one = known.get(metric)
    remark = ", ".join(part for part in (one.unit, way.get(one.direction.value, "")) if part) if one else ""
    axis = {"tickvals": list(range(len(rows))), "ticktext": ticks, "range": [len(rows) - 0.5, -0.5], "automargin": True}
    layout = {"yaxis": axis, "xaxis": {"zeroline": True, "rangemode": "tozero"}, "showlegend": False}
    return _figure(
        metric, "; ".join(told), len(rows), f"difference ({remark})" if remark else "difference", data, layout
    )


def _mean(dots: pd.Series, row: Any) -> tuple[float | None, float | None, float | None]:
    if row is not None:
        values = (row.difference, row.low, row.high)
        return tuple(None if pd.isna(value) else float(value) for value in values)  # pyright: ignore
    low, high = mean_interval(dots.to_numpy(), list(dots.index)) or (None, None)
    return float(dots.mean()), low, high


def _error(mean: float, low: float, high: float | None, of: str) -> dict[str, Any]:
    reach = {"array": [_short((high or mean) - mean)], "arrayminus": [_short(mean - low)], "symmetric": False}
    return {"type": "data", **reach, "thickness": 3, "width": 6, "color": of}


def _between(dots: pd.DataFrame, low: float, high: float) -> np.ndarray:
    amounts = dots["amount"].to_numpy()
    return amounts[(amounts >= low) & (amounts < high)]


def _figure(title: str, alt: str, rows: int, across: str, data: list[Any], layout: dict[str, Any]) -> Figure:
    axis = {**layout.pop("xaxis", {}), "title": {"text": across}}
    return {
        "title": title,
        "alt": alt,
        "height": _AXIS + _ROW * rows,
        "data": data,
        "layout": {**layout, "xaxis": axis},
    }


def _escaped(name: object) -> str:
    """Plotly shows a few tags and entities of HTML in its texts; nobody's name is one."""
    return str(name).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "%&#123;")


def _short(value: float) -> float:
    return float(f"{value:.5g}")
