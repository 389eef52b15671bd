"""Draws the figures of the page as plain JSON in plotly's form: data and layout.

They are drawn in the browser by plotly's own code. Colours of models are fixed here; those of text and lines belong to
the page, which knows whether it is dark. Names come from anybody and plotly reads a little HTML: all are escaped.

Conventions: a figure is a dict of title (its metric), alt (what a reader who sees nothing is told), height (pixels),
data and layout; the `customdata` of a dot is its prompt. `values` has a row per clip and metric: subset, prompt, seed,
metric, model, value, NaN where it could not be measured. `runs` are the names of all runs, in the page's order.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from avbench.metrics.table import known_metrics
from avbench.statistics.uncertainty import mean_interval

COLOURS = ("#3f84d1", "#e07a2f", "#2f9e6b", "#b565c4", "#b8952a", "#2ba3ad", "#d65a7c", "#8a8f98")
"""Readable on white and on near-black."""
_GREY = "#8a8f98"
_ROW, _AROUND = 58, 62  # pixels: of a row of a figure, and of its axis and margins
_WAYS = {"lower": "left is better", "higher": "right is better"}
Figure = dict[str, Any]


def colour(index: int) -> str:
    """The colour of a run, by its place in the comparison."""
    return COLOURS[index % len(COLOURS)]


def paired(
    values: pd.DataFrame, runs: Sequence[str], subset: str, differences: pd.DataFrame | None = None
) -> Iterator[Figure]:
    """A figure a metric of one subset: every prompt's difference as a dot, the mean with its 95 % interval.

    The pairs and intervals are those of `differences`, the paired comparisons; without it every later run is shown
    against the first, with the interval of the mean over prompts.
    """
    of_subset = values[values["subset"] == subset]
    for metric, of_metric in of_subset.groupby("metric", sort=False):
        wide = of_metric.pivot_table(index=["prompt", "seed"], columns="model", values="value", sort=False)
        tested = _tested(differences, subset, str(metric))
        rows = []
        for run, against in tested or ((run, runs[0]) for run in runs[1:]):
            if run in wide and against in wide and len(dots := _by_prompt(wide[run] - wide[against])):
                rows.append((run, against, dots, *tested.get((run, against), _mean(dots))))
        if rows:
            yield _paired_figure(str(metric), rows, runs)


def distances(frame: pd.DataFrame, runs: Sequence[str], subset: str) -> Iterator[Figure]:
    """A figure a distance of one subset: every run's value, the null of its n (mean ± 2 sd), and the floor.

    `frame` is `leaderboard.leaderboard`.
    """
    shown = frame["value"].notna() & frame["null"].notna() & frame["too_few"].isna()
    of_subset = frame[(frame["subset"] == subset) & shown]
    for metric, of_metric in of_subset.groupby("metric", sort=False):
        rows = list(of_metric.itertuples())
        names = [_escaped(row.model) for row in rows]
        error = {"array": _short(2 * row.null_sd for row in rows), "thickness": 9, "width": 0, "color": _GREY}
        null = _trace("markers", (row.null for row in rows), names, _GREY, 9, "null %{x} ± %{error_x.array}, 2 sd")
        null |= {"error_x": error, "opacity": 0.45}
        null["marker"]["symbol"] = "line-ns"
        colours = [colour(list(runs).index(row.model)) for row in rows]
        said = "%{y}: %{x}<br>%{customdata[0]} clips, p %{customdata[1]}"
        measured = _trace("markers", (row.value for row in rows), names, colours, 12, said)
        measured["customdata"] = [[row.n, f"{row.p:.3f}"] for row in rows]
        data = [null, measured]
        floors = of_metric["floor"].dropna()
        if len(floors):
            ends = [floors.iloc[0]] * 2, [names[0], names[-1]]
            data.append(_trace("lines", *ends, _GREY, 1, "floor %{x}: the reference against itself"))
            data[-1]["line"] = {"color": _GREY, "dash": "dot", "width": 2}
        alt = "; ".join(f"{row.model} {row.value:.4g}, null {row.null:.4g}" for row in rows)
        yield _figure(str(metric), alt, len(rows), str(metric), data, yaxis={"autorange": "reversed"})


def over_motion(values: pd.DataFrame, over: pd.DataFrame, runs: Sequence[str], subset: str) -> Iterator[Figure]:
    """A figure a metric that goes with motion: every clip over its motion amount, and the means of `over` in bins.

    `over` is `compare.over_motion`; a mean stands at the middle of its bin's amounts.
    """
    clips = values[values["subset"] == subset].set_index(["model", "prompt", "seed"])
    amounts = clips.loc[clips["metric"] == "motion_amount", "value"].rename("amount")
    for metric, of_metric in over[over["subset"] == subset].groupby("metric", sort=False):
        both = clips.loc[clips["metric"] == metric, ["value"]].join(amounts).dropna().reset_index()
        data, told = [], []
        for model, of_model in of_metric.groupby("model", sort=False):
            look, bins = colour(list(runs).index(model)), list(of_model.itertuples())
            dots = both[both["model"] == model]
            data.append(_trace("markers", dots["amount"], _short(dots["value"]), look, 5, "%{text}: %{y} at %{x}"))
            data[-1] |= {"opacity": 0.4, "customdata": dots["prompt"].tolist()}
            data[-1]["text"] = [f"{_escaped(model)}, {_escaped(prompt)}" for prompt in dots["prompt"]]
            at = [dots.loc[dots["amount"].between(row.low, row.high), "amount"].median() for row in bins]
            said = _escaped(model) + ": mean %{y} of %{text} clips around %{x}"
            data.append(_trace("lines+markers", at, _short(of_model["mean"]), look, 8, said))
            data[-1] |= {"text": [row.n for row in bins], "line": {"color": look, "width": 2.5}}
            told += [f"{model} {row.mean:.3g} at {x:.2g}" for x, row in zip(at, bins, strict=True)]
        yield _figure(str(metric), "; ".join(told), 4, "motion amount, diagonals/s", data)


def _tested(differences: pd.DataFrame | None, subset: str, metric: str) -> dict[tuple[str, str], tuple[Any, ...]]:
    """(Run, against) → mean, low, high of the comparisons clip by clip."""
    if differences is None:
        return {}
    made = differences[(differences["kind"] == "clips") & differences["difference"].notna()]
    here = made[(made["subset"] == subset) & (made["metric"] == metric)]
    return {(row.run, row.against): (row.difference, row.low, row.high) for row in here.itertuples()}


def _by_prompt(differences: pd.Series) -> pd.Series:
    """Means over the seeds that both have, ``[prompts]``."""
    return differences.dropna().groupby(level="prompt", sort=False).mean()


def _mean(dots: pd.Series) -> tuple[float, float, float]:
    low, high = mean_interval(dots.to_numpy(), list(dots.index)) or (np.nan, np.nan)
    return float(dots.mean()), low, high


def _paired_figure(metric: str, rows: list[tuple[Any, ...]], runs: Sequence[str]) -> Figure:
    """Rows of run, against, dots, mean, low, high."""
    data, told, ticks = [], [], []
    for place, (run, against, dots, mean, low, high) in enumerate(rows):
        look = colour(list(runs).index(run))
        ticks.append(f"{_escaped(run)}<br>− {_escaped(against)}")
        # Multiples of the golden section spread neighbours evenly over the row's height, without chance.
        heights = place + 0.22 + 0.3 * (dots.rank(method="first").to_numpy() * 0.618034 % 1 - 0.5)
        data.append(_trace("markers", dots, heights.round(3).tolist(), look, 6, "%{text}: %{x}"))
        data[-1] |= {"opacity": 0.55, "customdata": dots.index.tolist(), "text": [_escaped(one) for one in dots.index]}
        if pd.isna(mean):
            continue
        known = not pd.isna(low)
        interval = f" [{low:.3g}, {high:.3g}]" if known else ""
        data.append(_trace("markers", [mean], [place - 0.2], look, 12, f"mean %{{x}}{interval}, {len(dots)} prompts"))
        data[-1]["marker"]["symbol"] = "diamond"
        if known:
            reach = {"array": _short([high - mean]), "arrayminus": _short([mean - low]), "symmetric": False}
            data[-1]["error_x"] = {**reach, "thickness": 3, "width": 6, "color": look}
        told.append(f"{run} less {against}: {mean:.3g}{interval} over {len(dots)} prompts")
    one = known_metrics().get(metric)
    told_too = (one.unit, _WAYS.get(one.direction.value)) if one else ()
    across = ", ".join(["difference", *(part for part in told_too if part)])
    up = {"tickvals": list(range(len(rows))), "ticktext": ticks, "range": [len(rows) - 0.5, -0.5]}
    return _figure(metric, "; ".join(told), len(rows), across, data, yaxis=up, xaxis={"rangemode": "tozero"})


def _trace(mode: str, x: Iterable[float], y: list[Any], look: Any, size: float, said: str) -> dict[str, Any]:
    marker = {"color": look, "size": size}
    return {
        "type": "scatter",
        "mode": mode,
        "x": _short(x),
        "y": y,
        "marker": marker,
        "hovertemplate": said + "<extra></extra>",
    }


def _figure(title: str, alt: str, rows: int, across: str, data: list[Any], **axes: dict[str, Any]) -> Figure:
    layout = {
        "xaxis": {**axes.get("xaxis", {}), "title": {"text": across}},
        "yaxis": {**axes.get("yaxis", {}), "automargin": True},
        "showlegend": False,
    }
    return {"title": title, "alt": alt, "height": _AROUND + _ROW * rows, "data": data, "layout": layout}


def _escaped(name: object) -> str:
    """Plotly shows a few tags and entities of HTML, and ``%{…}``, in its texts; nobody's name is one."""
    plain = str(name).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return plain.replace("%{", "%\u200b{")


def _short(values: Iterable[float]) -> list[float]:
    """Five digits are more than a figure shows."""
    return [float(f"{value:.5g}") for value in values]
