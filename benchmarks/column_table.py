"""Writes the tables of docs/columns.md from the code.

    python benchmarks/column_table.py

One row for each metric that a preset of columns names, with what its feature's docstring says of the agreement with its
authors' code, and the weights of that feature; costs are those of costs.csv, which metric_reference.py measures.
"""

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from avbench.core import resolve
from avbench.features.requirements import weights_of
from avbench.features.table import FEATURES
from avbench.metrics.columns import COLUMNS
from avbench.metrics.evaluate import chosen_metrics, features_of
from avbench.metrics.table import Metric
from avbench.storage.weights import WEIGHTS
from avbench.storage.weights.published import PUBLISHED
from benchmarks.metric_reference import Cost, known_costs

PAGE = Path(__file__).parent.parent / "docs" / "columns.md"
NOT_A_PAPER = ("fast",)
SEE = {"fvd": "see [FVD, ours and others'](fvd.md)", "text_alignment": "The vectors are open_clip's own."}
"""Metric → its agreement, where its feature's docstring does not state one, or states that of others."""
MARKS = "<!-- columns -->\n", "<!-- /columns -->"


def page(text: str) -> str:
    """The page's text with its tables written anew."""
    before, _, rest = text.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    heads = ["column", "metric", "agreement with its authors' code", "weights", "licence", "cost of a clip"]
    tables = _table(heads, list(_rows(known_costs()))), _table(["column", "why not"], list(_lacking()))
    return f"{before}{MARKS[0]}{tables[0]}\n\nNot computed:\n\n{tables[1]}\n{MARKS[1]}{after}"


def _rows(costs: Mapping[str, Cost]) -> Iterator[list[str]]:
    printed: dict[str, list[str]] = {}
    first: dict[str, str] = {}  # agreement → the metric whose row states it
    for name, one in COLUMNS.items():
        for column, metric in one.columns.items():
            if name not in NOT_A_PAPER:
                printed.setdefault(metric, []).append(f"{name}: {column}")
    for metric in chosen_metrics([*printed]):
        features = features_of([metric])
        names = weights_of(features)
        agreement = _agreement(metric)
        yield [
            "<br>".join(printed[metric.name]),
            f"`{metric.name}`",
            agreement if first.setdefault(agreement, metric.name) == metric.name else f"as `{first[agreement]}`",
            "<br>".join(f"`{name}`, {_size(name)}" for name in names) or "none",
            "<br>".join((WEIGHTS.get(name) or PUBLISHED[name]).licence for name in names) or "–",
            _cost([costs.get(feature) for feature in features]),
        ]


def _lacking() -> Iterator[list[str]]:
    for name, one in COLUMNS.items():
        for column, why in one.lacking.items():
            yield [f"{name}: {column}", why]


def _agreement(metric: Metric) -> str:
    """What the module of a metric's feature says of agreement, in its own sentences."""
    text = " ".join(inspect.cleandoc(resolve(f"{FEATURES[metric.feature].partition(':')[0]}:__doc__")).split())
    sentences = re.split(r"(?<=[.)])\s+(?=[A-Z])", text)
    stated = [one for one in sentences if re.search(r"\bagrees? (?:to|with)\b|^Agreement", one)]
    found = [one.removeprefix("Agreement: ") for one in stated]
    return SEE.get(metric.name) or " ".join(found) or "see [every metric](metrics.md)"


def _size(name: str) -> str:
    return (WEIGHTS.get(name) or PUBLISHED[name]).size


def _cost(found: list[Cost | None]) -> str:
    costs = [one for one in found if one is not None]
    return " and ".join(one.words for one in costs) if len(costs) == len(found) else "not measured"


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["-"] * len(head), *rows])


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
