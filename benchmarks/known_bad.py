"""Tests every metric on known-bad models. Remakes docs/known-bad.md, its picture and its table.

    python benchmarks/known_bad.py
    python benchmarks/known_bad.py --metric sync_p --metric onset_rate    # the rows of these alone: minutes

The embedded world and every known-bad variant of it are sampled and measured on one subset (an hour on two cores the
first time; it goes on where it stopped). `known_bad.toml` says what each metric must see and what it must be blind to.
"""

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from avbench.core import Direction
from avbench.generation.providers.toyworld import CHANGES, WORLDS
from avbench.metrics.table import METRICS
from avbench.storage.runs.folder import RunFolder

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
SUBSET = "toy-object-contact"
VARIANTS = (*WORLDS, *CHANGES)
SEEN = 0.01
"""A metric sees a model if its p-value is below this and it makes it worse."""
BLIND = 0.2
"""A metric is blind to a model if it moves it by less than this many standard deviations."""
COLUMNS = ["metric", "model", "n", "refused", "value", "effect", "p", "worse"]


def wanted() -> dict[str, dict[str, list[str]]]:
    """Metric → ``requires`` and ``blind``, groups resolved."""
    plain = tomllib.loads((HERE / "known_bad.toml").read_text())
    groups = plain.pop("groups")
    return {
        metric: {kind: [one for name in names for one in groups.get(name, [name])] for kind, names in lists.items()}
        for metric, lists in plain.items()
    }


def make_runs(work: Path, metrics: list[str]) -> None:
    """Sample, measure and evaluate what is missing."""
    named = [part for name in metrics for part in ("--metric", name)]
    for variant in VARIANTS:
        place = work / run_name(variant)
        for command, fine in (
            (["sample", f"toyworld:{variant}", "--subset", SUBSET, "--out", str(work)], (0,)),
            (["measure", str(place), *named], (0,)),
            (["evaluate", str(place), *named], (0, 1)),  # 1: no metric has a value, as one of sound on a mute model
        ):
            done = subprocess.run([sys.executable, "-m", "avbench", *command], check=False, stdout=subprocess.DEVNULL)
            if done.returncode not in fine:
                msg = f"avbench {command[0]} of toyworld:{variant} failed, as said above"
                raise SystemExit(msg)


def run_name(variant: str) -> str:
    """The folder that `avbench sample` makes."""
    return f"toyworld-{variant}" if variant else "toyworld"


def asked(work: Path, metrics: list[str]) -> Iterator[dict[str, object]]:
    """One row a (metric, model): how far the model moves the metric from the world, and whether that is chance."""
    known = {metric.name: metric for metric in METRICS}
    runs = {variant: RunFolder(work / run_name(variant)) for variant in VARIANTS}
    scores = {variant: {score.metric: score for score in run.scores()} for variant, run in runs.items()}
    values = {variant: pd.read_parquet(run.path / "values.parquet") for variant, run in runs.items()}
    for name in metrics:
        metric, good = known[name], scores[""][name]
        for variant in VARIANTS[1:]:
            score = scores[variant][name]
            if score.value is None:
                yield dict(zip(COLUMNS, (name, variant, 0, 1.0, None, None, None, True), strict=True))
                continue
            if metric.per_clip:
                pairs = [
                    table[table["metric"] == name].set_index(["prompt", "seed"])["value"]
                    for table in (values[variant], values[""])
                ]
                together = pd.concat(pairs, axis=1, keys=["bad", "good"])
                refused = float(
                    (together["bad"].isna() & together["good"].notna()).sum() / together["good"].notna().sum()
                )
                effect, p = paired(together.dropna())
            else:
                refused = 0.0
                effect = (score.value - good.value) / good.null.sd
                p = score.null.p if effect else 1.0
            worse = {Direction.LOWER: effect > 0, Direction.HIGHER: effect < 0}.get(metric.direction, effect != 0)
            yield dict(
                zip(COLUMNS, (name, variant, score.n, refused, score.value, effect, p, bool(worse)), strict=True)
            )


def paired(together: pd.DataFrame) -> tuple[float, float]:
    """Mean difference in standard deviations of the differences, and its two-sided p-value."""
    difference = (together["bad"] - together["good"]).to_numpy(float)
    if len(difference) < 2 or not difference.any():
        return 0.0, 1.0
    spread = difference.std(ddof=1)
    if not spread:
        return float(np.sign(difference[0]) * 99), 0.0
    return float(difference.mean() / spread), float(stats.ttest_1samp(difference, 0).pvalue)


def verdict(row: pd.Series) -> str:
    """``seen``, ``moved`` (more than `BLIND`, but not seen) or ``blind``."""
    if row["refused"] > 0.5:
        return "seen"
    if row["p"] < SEEN and row["worse"] and abs(row["effect"]) >= BLIND:
        return "seen"
    return "moved" if abs(row["effect"]) >= BLIND else "blind"


def unmeasured(found: pd.DataFrame, lists: dict[str, dict[str, list[str]]]) -> str | None:
    """Say which metrics of `known_bad.toml` lack a row of a known-bad model, and how to add them; None if none does."""
    there = {*zip(found["metric"], found["model"], strict=True)}
    models = [one for one in VARIANTS[1:] if any((metric, one) not in there for metric in lists)]
    metrics = [one for one in lists if any((one, model) not in there for model in VARIANTS[1:])]
    if not metrics:
        return None
    named = "" if len(metrics) == len(lists) else "".join(f" --metric {one}" for one in metrics)
    return f"docs/known-bad.csv lacks rows of {', '.join(models)}: run `python benchmarks/known_bad.py{named}`"


def broken(found: pd.DataFrame, lists: dict[str, dict[str, list[str]]]) -> list[str]:
    """What does not hold of `known_bad.toml`, a line each."""
    cells = found.set_index(["metric", "model"])
    lines = []
    for metric, kinds in lists.items():
        for kind, models in kinds.items():
            for model in models:
                row = cells.loc[(metric, model)]
                is_seen = verdict(row) == "seen"
                if (kind == "requires" and not is_seen) or (kind == "blind" and verdict(row) != "blind"):
                    lines.append(
                        f"{metric}: {kind} {model}: effect {row['effect']}, p {row['p']}, refused {row['refused']}"
                    )
    return lines


def picture(found: pd.DataFrame, lists: dict[str, dict[str, list[str]]]) -> str:
    """Draw the heat map as SVG, metrics × models: a dot where a metric must react, a ring where it must not."""
    metrics, models = list(lists), [variant for variant in VARIANTS if variant]
    side, left, top = 44, 190, 96
    width, height = left + side * len(models) + 10, top + 22 * len(metrics) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    cells = found.set_index(["metric", "model"])
    for column, model in enumerate(models):
        x = left + side * column + side / 2
        parts.append(f'<text transform="translate({x},{top - 8}) rotate(-45)">{model}</text>')
    for line, metric in enumerate(metrics):
        y = top + 22 * line
        parts.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{metric}</text>')
        for column, model in enumerate(models):
            row, x = cells.loc[(metric, model)], left + side * column
            refused = row["refused"] > 0.5
            effect = 0.0 if refused else abs(row["effect"])
            shade = "#bbb" if refused else f"hsl(18,85%,{100 - 55 * min(1.0, np.log1p(effect) / np.log(31)):.0f}%)"
            text = "–" if refused else f"{row['effect']:.1f}" if effect < 99 else "all"
            parts.append(f'<rect x="{x}" y="{y}" width="{side - 2}" height="20" fill="{shade}"/>')
            parts.append(f'<text x="{x + 22}" y="{y + 14}" text-anchor="middle" font-size="10">{text}</text>')
            if model in lists[metric].get("requires", ()):
                parts.append(f'<circle cx="{x + 5}" cy="{y + 5}" r="2.5" fill="#000"/>')
            if model in lists[metric].get("blind", ()):
                parts.append(f'<circle cx="{x + 5}" cy="{y + 5}" r="2.5" fill="none" stroke="#000"/>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Remake the table and the picture, and say what does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/known-bad"), help="Folder for the runs; resumable.")
    parser.add_argument(
        "--metric",
        action="append",
        choices=list(wanted()),
        help="Remake only its rows; repeatable.",
    )
    options = parser.parse_args()
    lists, kept = wanted(), DOCS / "known-bad.csv"
    metrics = options.metric or list(lists)
    make_runs(options.work, metrics)
    found = pd.DataFrame(asked(options.work, metrics), columns=COLUMNS)
    if others := [one for one in lists if one not in metrics]:
        known = pd.read_csv(kept)
        found = pd.concat([found, known[known["metric"].isin(others)]])
        found = found.sort_values("metric", key=lambda names: names.map(list(lists).index), kind="stable")
    found.to_csv(kept, index=False, float_format="%.4g")
    (DOCS / "known-bad.svg").write_text(picture(found, lists))
    if lines := broken(found, lists):
        raise SystemExit("\n".join(lines))


if __name__ == "__main__":
    main()
