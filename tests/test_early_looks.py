"""While a run is measured, a preliminary verdict is said now and then: of what is on disk, and never as settled."""

import dataclasses
import itertools

import pytest
from command_line import run_avbench
from made_runs import METRICS, evaluated, made_run
from test_api import clips

from avbench import api
from avbench.cli.printing import ConsoleReporter
from avbench.comparison import early_looks
from avbench.comparison.early_looks import MeasuredSoFar, early_look, looking
from avbench.core import Row
from avbench.features.protocols import protocol_of
from avbench.metrics.evaluate import chosen_metrics

CONTROL = {"names": ["toy-control"]}
(LOUDNESS,) = chosen_metrics(["loudness"])


def looked_at(run, against):
    metrics = chosen_metrics(list(METRICS))
    return early_look(*(MeasuredSoFar(one.path, metrics) for one in (run, against)))


def test_a_look_counts_the_prompts_that_both_have_and_settles_nothing(tmp_path):
    whole = made_run(tmp_path / "a", **CONTROL)
    sentence = looked_at(made_run(tmp_path / "b", seed=1, count=10, lpips=0.01, **CONTROL), whole)
    assert sentence.startswith(
        "Preliminary, after 10 of 24 prompts: a is ahead so far in lpips consecutive (1 of 2 comparisons). Not settled"
    )
    assert "stops at an early look" in sentence and "better" not in sentence
    alike = looked_at(made_run(tmp_path / "c", count=10, **CONTROL), whole)
    assert "no difference between a and c is seen so far. Not settled" in alike
    assert not (whole.path / "scores.json").exists(), "a look writes nothing"


def test_few_prompts_say_nothing_and_none_no_word(tmp_path):
    whole = made_run(tmp_path / "a", **CONTROL)
    few = looked_at(made_run(tmp_path / "b", count=4, lpips=1.0, **CONTROL), whole)
    assert few == "Preliminary, after 4 of 24 prompts: these are too few prompts to see a difference; 6 are the least."
    assert looked_at(made_run(tmp_path / "c", names=["toy-object-contact"]), whole) is None


def test_a_look_counts_what_both_runs_ask_for_and_pools_nothing(tmp_path):
    first, other = (made_run(tmp_path / name, seed=seed, lpips=0.001 + 0.0003 * seed) for seed, name in enumerate("ab"))
    sentence = looked_at(other, first)
    assert "a is ahead so far in lpips consecutive on toy-control (1 of 4 comparisons)" in sentence, (
        "of 6 it would be too little"
    )
    one = made_run(tmp_path / "c", seed=2, count=10, **CONTROL)
    assert looked_at(one, first).startswith("Preliminary, after 10 of 24 prompts: ")


def test_a_prompt_whose_clip_has_no_value_is_not_done(tmp_path):
    folder = made_run(tmp_path / "a", **CONTROL)
    for number, (key, sample) in enumerate(folder.samples().items()):
        values = {"loudness_known": float(number > 0), "loudness": -20.0}
        folder.add_row(protocol_of(LOUDNESS.feature), Row(key, sample.sha256, values))
    assert len(MeasuredSoFar(folder.path, [LOUDNESS]).prompts) == 23


def test_runs_of_one_name_are_told_apart_and_parts_of_one_run_are_not_looked_at(tmp_path, monkeypatch):
    runs = [made_run(tmp_path / place / "a", seed=number, **CONTROL) for number, place in enumerate("xy")]
    (sentence,) = early_looks.early_looks(runs)
    assert sentence.startswith("Preliminary, after 24 of 24 prompts: no difference between x-a and y-a")
    part = dataclasses.replace(runs[1].run(), shard="2/2")
    monkeypatch.setattr(runs[1], "run", lambda: part)
    assert [*early_looks.early_looks(runs)] == []


def test_a_look_finds_the_numbers_of_the_evaluation(tmp_path):
    folder = evaluated(made_run(tmp_path / "a"))
    so_far = MeasuredSoFar(folder.path, chosen_metrics(list(METRICS)))
    assert so_far.scores() == folder.scores() and so_far.evaluation().protocols == folder.evaluation().protocols
    assert so_far.values().equals(folder.values())


def test_a_look_is_of_rows_that_came_after_an_evaluation_too(tmp_path):
    first, other = (evaluated(made_run(tmp_path / name, seed=seed, **CONTROL)) for seed, name in enumerate("ab"))
    key, sample = next(iter(other.samples().items()))
    other.add_row(protocol_of("onsets"), Row(key, sample.sha256, {"onset_rate": 9.0}))
    assert looked_at(other, first).startswith("Preliminary, after 24 of 24 prompts: no difference between a and b")


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(early_looks.time, "monotonic", lambda: self.now)

    def after(self, seconds, value=None):
        self.now += seconds
        return value


def test_looks_are_rare_and_take_a_small_share_of_the_time(monkeypatch):
    clock, looks = Clock(monkeypatch), []

    def look():
        looks.append(clock.now)
        return clock.after(30, f"look {len(looks)}")

    sentences = []
    items = (clock.after(1, number) for number in range(40_000))
    assert [*looking(items, look, sentences.append)] == [*range(40_000)]
    assert looks[0] == 300 and len(sentences) == len(looks) > 5
    assert 30 * len(looks) <= 0.02 * clock.now
    assert looks[1] - looks[0] >= 30 + 30 / 0.02, "after a look of 30 s"
    assert min(later - one for one, later in itertools.pairwise(looks)) >= 300


def test_looks_that_take_no_time_become_rarer_as_well(monkeypatch):
    clock, looks = Clock(monkeypatch), []
    for _ in looking((clock.after(1) for _ in range(40_000)), lambda: looks.append(clock.now), [].append):
        pass
    assert looks[:3] == [300, 600, 900]
    assert all(later - one >= max(300, 0.2 * one) for one, later in itertools.pairwise(looks)) and len(looks) > 20


def test_what_was_said_is_not_said_again_and_a_look_that_fails_is_the_last(monkeypatch):
    clock, sentences, looks = Clock(monkeypatch), [], []
    found = iter(["one", "one", None, "two"])

    def look():
        looks.append(clock.now)
        if (sentence := next(found, "")) != "":
            return sentence
        raise RuntimeError("the folder is gone")

    assert len([*looking((clock.after(10_000) for _ in range(9)), look, sentences.append)]) == 9
    assert sentences == ["one", "two"] and len(looks) == 5


@pytest.mark.slow
def test_score_says_it_while_the_second_folder_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(early_looks, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(early_looks, "LOOK_SHARE", 1e9)
    monkeypatch.setattr(early_looks, "_GROWTH", 0.0)
    folders = [clips(tmp_path / name, *"pqrstuvw") for name in "ab"]
    found = api.score(folders, metrics=["motion_amount"], workers=0, out=tmp_path / "out", reporter=ConsoleReporter())
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Preliminary")]
    assert lines[0].startswith("Preliminary, after 1 of 8 prompts: these are too few prompts")
    assert "after 8 of 8 prompts: no difference between a and b is seen so far. Not settled" in lines[-1]
    assert not any("Preliminary" in sentence for sentence in (*found.verdict, *found.notes)), "the verdict is there now"


def test_status_of_several_runs_ends_with_it_unless_all_are_evaluated(tmp_path):
    runs = [made_run(tmp_path / name, seed=number, **CONTROL).path for number, name in enumerate("ab")]
    assert "Preliminary, after 24 of 24 prompts: no difference between a and b" in run_avbench("status", *runs).stdout
    evaluated_runs = [evaluated(made_run(tmp_path / name, **CONTROL)).path for name in "cd"]
    assert "Preliminary" not in run_avbench("status", *evaluated_runs).stdout


@pytest.mark.parametrize("metrics", [["fvd"], ["near_copies"], ["lpips_reference"]])
def test_metrics_of_many_clips_wait_for_the_end(tmp_path, metrics):
    folder = made_run(tmp_path / "a", **CONTROL)
    assert MeasuredSoFar(folder.path, chosen_metrics(metrics)).scores() == []
