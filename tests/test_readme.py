"""The README's tables and tree are the code's."""

import csv
import re
import runpy
from pathlib import Path

from avbench.metrics.table import METRICS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_the_metric_table_is_the_code():
    rows = [f"| `{m.name}` | {m.direction} | `{m.feature}` | {m.question} |" for m in METRICS]
    table = re.findall(r"^\| `\w+` \| .*$", TEXT, re.MULTILINE)
    assert table == rows


def test_the_tree_is_the_disk():
    tree = TEXT.split("## The tree")[1]
    named = set(re.findall(r"^  (\w+(?:\.py|/)) ", tree, re.MULTILINE))
    hidden = {"__init__.py", "__main__.py", "__pycache__/", "_data/"}
    found = {path.name + "/" * path.is_dir() for path in (ROOT / "avbench").iterdir()} - hidden
    assert named == found


def test_every_command_named_exists():
    from avbench import cli

    verbs = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    verbs |= {group.name for group in cli.app.registered_groups}
    assert set(re.findall(r"`?avbench ([a-z]+)", TEXT)) <= verbs | {"evaluates"}


def test_the_metric_reference_is_the_code():
    bench = runpy.run_path(str(ROOT / "benchmarks" / "metric_reference.py"))
    with (ROOT / "benchmarks" / "costs.csv").open() as lines:
        costs = {row["feature"]: float(row["milliseconds"]) for row in csv.DictReader(lines)}
    assert (ROOT / "docs" / "metrics.md").read_text() == bench["page"](costs), "run benchmarks/metric_reference.py"
