"""Every verb of the command line once, in this process, on two clips of the embedded world."""

import json
from pathlib import Path

import pytest
import typer.main
from command_line import run_avbench

from avbench.cli import app

METRICS = ("--metric", "motion_amount", "--metric", "onset_rate")
SUBSET = ("--subset", "toy-control", "--limit", 2)
VERBS = {
    "run": ("toyworld:", *SUBSET, *METRICS, "--workers", 0, "--out", "runs"),
    "sample": ("toyworld:noisy", *SUBSET, "--workers", 0, "--out", "runs"),
    "measure": ("runs/toyworld-noisy", *METRICS, "--workers", 0),
    "evaluate": ("runs/toyworld-noisy", *METRICS, "--workers", 0),
    "compare": ("runs/toyworld", "runs/toyworld-noisy"),
    "status": ("runs/toyworld", "runs/toyworld-noisy"),
    "runs merge": ("merged/toyworld", "runs/toyworld"),
    "runs push": ("runs/toyworld", "file://PLACE/store/toyworld"),
    "runs pull": ("file://PLACE/store/toyworld", "pulled/toyworld"),
    "leaderboard": ("runs",),
    "power": ("runs/toyworld", "runs/toyworld-noisy"),
    "check": ("runs/toyworld", "--baseline", "baseline.zip", "--update", "--reason", "the first"),
    "report": ("runs/toyworld", "runs/toyworld-noisy", "--workers", 0, "--out", "page"),
    "votes": ("votes.json",),
    "list": ("metrics",),
    "doctor": ("--model", "toyworld:"),
    "reference build": ("runs/toyworld/clips", "--name", "a", "--metric", "onset_rate", "--workers", 0, "--work", "w",
                        "--out", "refs"),
    "reference merge": ("refs/a", "--out", "refs/merged"),
    "reference show": ("refs/a",),
    "subsets lint": ("toy-control",),
    "subsets import": ("runs/toyworld/clips", "--out", "mine"),
    "train examples": ("--clips", 2, "--workers", 0, "--out", "examples"),
    "score": ("runs/toyworld/clips", "noisy=runs/toyworld-noisy/clips", *METRICS, "--workers", 0, "--out", "scored"),
    "subsets list": (),
    "weights list": (),
}  # fmt: skip
"""Verb → its words. The order counts: what one writes, a later one reads."""
ELSEWHERE = {
    "cache prune": "test_features_cache.py",
    "cache size": "test_features_cache.py",
    "cache verify": "test_features_cache.py",
    "curate": "test_curate.py",
    "reference for": "test_reference_for.py",
    "reference import": "test_imported_statistics.py",
    "train tower": "test_train.py",
    "train arms": "test_train.py",
    "train report": "test_train_report.py",
    "weights fetch": "test_weights_fetched.py",
    "weights verify": "test_weights_fetched.py",
}
"""Verbs that two clips are not enough for, and where they are tested."""


def verbs(command, before=()):
    """The names of all commands, as they are typed."""
    inner = getattr(command, "commands", None)
    if inner is None:
        return {" ".join(before)}
    return set().union(*(verbs(one, (*before, name)) for name, one in inner.items()))


def test_every_verb_is_tried():
    assert verbs(typer.main.get_command(app)) == {*VERBS, *ELSEWHERE}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("smoke")
    vote = {"subset": "s", "prompt": "p", "seed": 0, "left": "a", "right": "b", "vote": "left", "conformed": {}}
    plain = {"avbench_votes": 2, "seed": 0, "runs": ["a", "b"], "subsets": {}, "votes": [vote]}
    (place / "votes.json").write_text(json.dumps(plain))
    return place


def test_every_verb_ends_well(place, monkeypatch):
    monkeypatch.chdir(place)
    for verb, words in VERBS.items():
        words = [str(word).replace("PLACE", str(place)) for word in words]
        done = run_avbench(*verb.split(), *words, code=None)
        assert done.exit_code == 0, f"avbench {verb}: {done.output}"
        assert "Traceback" not in done.output, verb
    assert (place / "page/report.html").stat().st_size > 100_000
    assert "toyworld-noisy" in (place / "page/table.md").read_text()


def test_verbs_that_are_tried_elsewhere_are_called_there():
    for verb, file in ELSEWHERE.items():
        words = ", ".join(f'"{word}"' for word in verb.split())
        assert words in (Path(__file__).parent / file).read_text(), verb
