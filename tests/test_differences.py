"""Runs against runs: what is joined, what is refused, what is found, and how many ways it is told."""

import dataclasses
import io
import json
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from command_line import run_avbench
from made_runs import METRICS, SUBSETS, evaluated, made_run, unsealed, values_of
from scipy import stats
from statsmodels.stats.power import TTestPower
from test_arms import training

from avbench.api.comparing import compared
from avbench.comparison import plan
from avbench.comparison.differences import (
    TO_TARGET,
    _as_measured,
    _out_of_reach,
    against_margin,
    better,
    by_pair,
    common_target,
    differences,
    freedom,
    in_family,
    worsening,
)
from avbench.comparison.leaderboard import _best, _distances_compared, _ranked, _Table, find, leaderboard
from avbench.comparison.power import planned
from avbench.comparison.score_table import (
    Made,
    _said,
    check_comparable,
    clip_values,
    require_known_fields,
    scores_frame,
)
from avbench.comparison.verdict import verdict
from avbench.core import InputError, Key, Null, Row, Sample, Score, counted, different_fields
from avbench.features.protocols import protocol_of
from avbench.metrics import reference_building
from avbench.metrics.evaluate import chosen_metrics, evaluate
from avbench.metrics.table import known_metrics
from avbench.report import paper
from avbench.report.comparison_tables import difference_tables, power_legend, power_tables
from avbench.report.page import forest
from avbench.report.tables import subset_tables
from avbench.statistics import power
from avbench.statistics.paired import paired_difference, t_test
from avbench.storage.reading import read_json
from avbench.storage.runs.folder import RunFolder
from avbench.storage.writing import write_sealed

NO_REAL = defaultdict(lambda: [pd.Series(dtype=float)])
"""No subset has real clips of its prompts."""


@pytest.fixture
def runs(tmp_path):
    """One run; another under other seeds of the same distribution; a third that is worse by much."""
    made = {"good": {"seed": 1}, "same": {"seed": 6}, "worse": {"seed": 3, "lpips": 0.01}}
    return {name: evaluated(made_run(tmp_path / name, **options)) for name, options in made.items()}


def table(*folders, **options):
    return differences(folders, **options).set_index(["subset", "metric", "run"]).sort_index()


@pytest.mark.slow
def test_what_differs_is_found_and_what_does_not_is_not(runs):
    found = table(*runs.values())
    worse = found.loc[("toy-control", "lpips_consecutive", "worse")]
    assert worse["better"] == "good" and worse["p_holm"] < 0.05 and worse["low"] > 0
    assert worse["difference"] == pytest.approx(0.01, rel=0.1), "the distance from the reference's value grew by that"
    assert found.xs("same", level="run")["better"].isna().all()
    assert (found["family"] == found["p"].notna().sum()).all() and found["pairs"].max() == 48
    assert found.loc[("macro", "lpips_consecutive", "worse"), "better"] == "good"


def test_the_smallest_that_could_be_found_is_what_was_found_where_it_is_that_large(runs):
    found = table(*runs.values())
    seen = found[found["better"].notna()]
    assert len(seen) and (seen["difference"].abs() > seen["detectable"]).all()
    assert (seen["needed"] <= seen["prompts"]).all()
    unseen = found[found["better"].isna() & found["error"].notna()]
    assert (unseen["needed"] > unseen["prompts"]).all()


def test_what_could_be_found_of_distances_from_the_reference_counts_the_side_as_well(runs):
    where = ("toy-control", "onset_rate")
    row = table(runs["good"], runs["same"], pooled=False).loc[(*where, "same")]
    a, b = (clip_values(runs[name])[where] for name in ("same", "good"))
    goal = np.full(len(a), next(one.reference for one in runs["good"].scores() if one.where == where))
    found = paired_difference(a, b, [*a.index.get_level_values("prompt")], targets=goal)
    family = int(row["family"])
    least = power.detectable_farther(found.contrasts.as_seen(), 0.0, level=0.05 / family / 2)
    assert row["kind"] == TO_TARGET and row["detectable"] == pytest.approx(least)
    assert least > power.detectable(found.error, found.dof, family=family), "which takes the side as known"
    both = found.contrasts.values, found.contrasts.errors
    assert row["needed"] == power.prompts_needed(*both, found.prompts, family=family)
    assert "contrasts" not in row


def test_clips_that_one_side_lacks_are_dropped_on_both_and_counted(tmp_path, runs):
    short = evaluated(made_run(tmp_path / "short", seed=4, count=15))
    found = table(runs["good"], short)
    row = found.loc[("toy-control", "onset_rate", "short")]
    assert row["pairs"] == 15 and row["dropped"] == 9
    assert found.loc[("macro", "onset_rate", "short"), "dropped"] == 18, "of both subsets"


def test_runs_without_a_common_seed_are_compared_unpaired(tmp_path, runs):
    other = evaluated(made_run(tmp_path / "other", seed=5, lpips=0.01, seeds=(7,)))
    found = table(runs["good"], other)
    row = found.loc[("toy-control", "lpips_consecutive", "other")]
    assert not row["paired"] and row["p"] < 0.001 and row["better"] == "good"
    assert "macro" not in found.index.get_level_values("subset")


@pytest.mark.parametrize("seeds", [(0,), (7,)])
def test_a_run_below_the_reference_is_as_much_worse_as_one_above(tmp_path, runs, seeds):
    """Paired, and without a common seed."""
    below = evaluated(made_run(tmp_path / "below", seed=3, lpips=-0.01, seeds=seeds))
    sides = [[one for one in run.scores() if one.metric == "lpips_consecutive"] for run in (runs["good"], below)]
    good, other = ([abs(one.value - one.reference) for one in side] for side in sides)
    found = table(runs["good"], below).xs("lpips_consecutive", level="metric").droplevel("run")
    ranks = leaderboard([runs["good"], below]).set_index(["metric", "subset", "model"])["rank"].sort_index()
    for subset, apart, known in zip(SUBSETS, other, good, strict=True):
        assert found.loc[subset, "difference"] == pytest.approx(apart - known) == pytest.approx(0.01, rel=0.1)
        assert found.loc[subset, "better"] == "good"
        assert ranks["lpips_consecutive", subset].to_dict() == {"good": 1, "below": 2}
    assert ranks["lpips_consecutive", "macro"].to_dict() == {"good": 1, "below": 2}
    if seeds == (0,):
        assert found.loc["macro", "difference"] == pytest.approx(np.mean(other) - np.mean(good))
        assert found.loc["macro", "better"] == "good"


def test_where_higher_is_better_the_higher_run_wins():
    row = SimpleNamespace(direction="higher", kind="clips", difference=-0.2, run="b", against="a", shown=True)
    assert worsening(row) == 0.2 and better(row) == "a"
    board, p = pd.DataFrame({"value": [0.1, 0.9]}), np.array([[np.nan, 0.001], [0.001, np.nan]])
    apart = np.array([[0.0, -0.8], [0.8, 0.0]])
    ranked = _ranked(board, board, known_metrics()["sync_excess"], apart, p, board["value"].to_numpy())
    assert ranked["rank"].tolist() == [2, 1] and ranked["letters"].tolist() == ["b", "a"]
    ranked = _ranked(board, board, known_metrics()["sync_excess"], -apart, p, board["value"].to_numpy())
    assert ranked["letters"].tolist() == ["b", "a"]
    assert ranked["rank_low"].tolist() == [1, 2], "on the clips of both the other one is better"


def test_a_difference_of_levels_is_in_lu():
    names = ("loudness", "onset_rate")
    given = {"subset": "s", "metric": names, "p": 0.03, "p_holm": np.nan, "too_few": None, "difference": 0.1}
    found = pd.DataFrame(given)
    in_family(found, known_metrics(), plan.Plan())
    assert [*found["unit"]] == ["LU", "1/s"] and known_metrics()["loudness"].unit == "LUFS"


def test_a_comparison_of_too_few_clips_is_in_the_family_only_if_a_plan_declares_it():
    names = ("lpips_consecutive", "onset_rate", "fvd")
    given = {"subset": "s", "metric": names, "p": (0.03, 0.04, 0.5), "p_holm": np.nan, "too_few": (None, None, "few")}
    given["difference"] = 0.1
    found = pd.DataFrame(given)
    assert in_family(found, known_metrics(), plan.Plan()) == 2
    assert list(found["p_holm"])[:2] == [0.06, 0.06] and np.isnan(found["p_holm"][2])
    asked = plan.from_plain({"question": [{"name": "q", "subset": "s", "metric": name} for name in names]})
    found = pd.DataFrame(given)
    assert in_family(found, known_metrics(), asked) == 3 and found["p_holm"][0] == pytest.approx(0.09)
    found = pd.DataFrame(given | {"p": (0.03, 0.04, 0.0001)})
    assert in_family(found, known_metrics(), asked) == 3 and found["p_holm"][2] == pytest.approx(0.0003)
    assert not found["shown"].any(), "declared or not, too few clips show nothing"


@pytest.mark.parametrize(
    ("prompts", "comparisons", "alpha", "said"),
    [  # 2/2ⁿ is the smallest p of n prompts: 2/64 · 2 > 0.05, 2/128 · 2 < 0.05; above 13 prompts it is 1/10,001
        (6, 1, 0.05, None),
        (6, 2, 0.05, "6 prompts can show no difference, however large: at least 7 are needed"),
        (6, 2, 0.1, None),
        (7, 2, 0.05, None),
        (10, 72, 0.05, "10 prompts can show no difference, however large: at least 12 are needed"),
        (12, 72, 0.05, None),
        (96, 500, 0.05, None),
        (96, 501, 0.05, "10,000 swaps of labels can show no difference, however large: plan fewer questions"),
    ],
)
def test_a_family_that_is_too_large_for_any_difference_to_be_shown_is_said(prompts, comparisons, alpha, said):
    given = {"p": 2.0 ** (1 - prompts), "prompts": prompts, "paired": True, "primary": True, "too_few": None}
    rows = pd.DataFrame([given] * comparisons)
    found = _out_of_reach(rows, comparisons, alpha)
    sentence = said and f"with a correction for {counted(comparisons, 'comparison')}, {said}"
    assert {*found} == {sentence}
    assert _out_of_reach(rows.assign(paired=False), comparisons, alpha).isna().all(), "Welch's t has no least p"


def test_a_comparison_of_few_prompts_is_within_reach_after_others_that_are_shown():
    """Holm counts the second of two once, and 2/64 < 0.05."""
    given = {"p": 0.03, "prompts": [12, 6], "paired": True, "primary": True, "too_few": None}
    assert _out_of_reach(pd.DataFrame(given), 2, 0.05).isna().all()
    three = _out_of_reach(pd.DataFrame(given | {"prompts": [12, 6, 6]}), 3, 0.05)
    assert three.isna().tolist() == [True, False, False] and "at least 7 are needed" in three[1], (
        "as `needed`: first of 3"
    )


def test_the_answer_says_that_so_few_prompts_can_show_nothing(tmp_path):
    folders = [
        evaluated(made_run(tmp_path / name, seed=place, lpips=place, names=["toy-control"], count=6))
        for place, name in enumerate("ab")
    ]
    found = differences(folders)
    few = "ith a correction for 2 comparisons, 6 prompts can show no difference, however large: at least 7 are needed"
    assert f"W{few}." in verdict(scores_frame(folders), found)
    (table,) = difference_tables(found)
    assert any(f"w{few}" in note for note in table.notes)
    assert all(cells[4].text == "" for _, cells in table.rows), "no difference is large enough to be detected"


def test_what_is_shown_follows_the_alpha_of_the_plan_whether_or_not_a_side_is_better():
    names = ("fvd", "onset_rate", "kvd", "lpips_consecutive", "sync_excess")
    rest = {"subset": "s", "run": "b", "against": "a", "p_holm": np.nan, "kind": "clips"}
    differing = {"p": (0.01, 0.012, 0.01, 0.01, np.nan), "difference": (0.1, 0.1, 0.1, 0.0, np.nan)}
    few = (None, None, "few", None, None)
    found = pd.DataFrame({"metric": names, **rest, **differing, "too_few": few})
    wanted = {0.04: [True, True], 0.036: [True, True], 0.03: [False, False]}
    for alpha, shown in wanted.items():
        in_family(found, known_metrics(), plan.Plan(alpha=alpha))
        assert list(found["p_holm"][[0, 1]]) == pytest.approx([0.03, 0.03])
        assert list(found["shown"]) == [*shown, False, False, False], alpha
        favoured = [better(row) for row in found.itertuples()]
        assert favoured == ["a" if shown[0] else None, *[None] * 4], "no side of onset_rate is better"


@pytest.mark.parametrize(
    ("name", "references", "target"),
    [
        ("lpips_consecutive", (0.1, 0.1), 0.1),
        ("lpips_consecutive", (0.1, 0.2), None),  # of two references none is right for both
        ("lpips_consecutive", (0.1, None), None),
        ("sync_excess", (0.1, 0.1), None),  # higher is better, whatever the reference has
    ],
)
def test_a_target_is_what_both_runs_were_held_against(name, references, target):
    assert common_target(known_metrics()[name], *(SimpleNamespace(reference=one) for one in references)) == target


def test_six_prompts_can_show_a_difference_and_five_cannot(tmp_path):
    names = {"names": ["toy-control"], "count": 6}
    six, other = (evaluated(made_run(tmp_path / f"{k}", seed=k, lpips=0.1 * k, **names)) for k in range(2))
    row = table(six, other).loc[("toy-control", "lpips_consecutive", "1")]
    assert row["prompts"] == 6 and row["too_few"] is None and row["p_not_worse"] is not None
    five = evaluated(made_run(tmp_path / "five", seed=1, names=["toy-control"], count=5))
    few = table(six, five)["too_few"].unique()
    assert few == ["5 prompts: too few to show a difference, at least 6 are needed"]


def test_a_pool_of_a_subset_without_a_reference_compares_the_values(runs, monkeypatch):
    monkeypatch.setattr(
        "avbench.comparison.differences.common_target",
        lambda _, one, __: None if one.subset == "toy-control" else one.reference,
    )
    row = table(runs["good"], runs["worse"]).loc[("macro", "lpips_consecutive", "worse")]
    apart = [
        clip_values(runs["worse"])[name, "lpips_consecutive"].mean()
        - clip_values(runs["good"])[name, "lpips_consecutive"].mean()
        for name in SUBSETS
    ]
    assert row["kind"] == "clips" and row["difference"] == pytest.approx(np.mean(apart))


def test_micro_stands_beside_macro_where_a_plan_names_it_though_it_is_the_same(runs):
    pair = runs["good"], runs["same"]
    asked = table(*pair, plan=plan.from_plain({"margin": {"micro/onset_rate": 0.5}}))
    assert "micro" not in table(*pair).index.get_level_values("subset")
    assert list(asked.xs("micro").index) == [("onset_rate", "same")]
    of_both = [asked.loc[(pool, "onset_rate", "same"), "difference"] for pool in ("macro", "micro")]
    assert of_both[0] == pytest.approx(of_both[1])


def test_the_answer_has_the_question_of_a_plan_over_several_subsets(runs):
    both = [runs["good"], runs["worse"]]
    asked = [("macro", "lpips_consecutive"), ("micro", "fvd")]
    questions = [{"name": "q", "subset": subset, "metric": metric} for subset, metric in asked]
    said = verdict(scores_frame(both), differences(both, plan=plan.from_plain({"question": questions})))
    assert said[0].startswith(
        "good is better than worse in 1 of 1 comparison (48 prompts): lpips consecutive (over all subsets, "
    )
    assert said[1].startswith("4 comparisons are exploratory") and len(said) == 3
    assert said[2] == "1 comparison could not be made: distances have no pool (1)."
    assert "macro" not in " ".join(verdict(scores_frame(both), differences(both))), "without a plan subsets alone count"


def test_only_declared_questions_are_the_family(runs):
    declared = plan.from_plain({"question": [{"name": "q", "subset": "toy-control", "metric": "lpips_consecutive"}]})
    found = table(*runs.values(), plan=declared)
    assert set(found["family"]) == {2}
    rest = found.drop(index="toy-control", level="subset")
    assert rest["p"].notna().all() and rest["p_holm"].isna().all() and rest["better"].isna().all()


def test_no_difference_can_be_shown(runs):
    found = table(*runs.values(), plan=plan.from_plain({"margin": {"lpips_consecutive": 0.001}}))
    assert found.loc[("toy-control", "lpips_consecutive", "same"), "verdict"] == "alike"
    assert pd.isna(found.loc[("toy-control", "lpips_consecutive", "worse"), "verdict"])
    assert pd.isna(found.loc[("toy-control", "onset_rate", "same"), "verdict"]), "it has no margin"


@pytest.mark.parametrize(("direction", "sign"), [("lower", 1), ("higher", -1)])
@pytest.mark.parametrize(("dof", "known"), [(20.0, stats.t(20)), (float("nan"), stats.t(11))])
def test_a_run_is_no_worse_where_a_loss_of_the_margin_is_excluded(direction, sign, dof, known):
    row = {"margin": 1.0, "error": 0.5, "dof": dof, "direction": direction, "kind": "clips"}
    row |= {"too_few": None, "prompts": 12.0}
    ahead, behind = (against_margin(SimpleNamespace(difference=sign * size, **row), 0.05) for size in (-0.2, 0.2))
    assert (ahead["p_not_worse"], ahead["verdict"]) == (pytest.approx(known.sf(2.4)), "no worse")
    assert (behind["p_not_worse"], behind["verdict"]) == (pytest.approx(known.sf(1.6)), None)
    assert ahead["p_alike"] == behind["p_alike"] == pytest.approx(known.sf(1.6))
    few = against_margin(SimpleNamespace(**row | {"difference": 0.0, "margin": 100.0, "too_few": "n = 8"}), 0.05)
    assert few == dict.fromkeys(("p_alike", "p_not_worse", "verdict")), "too few clips show no likeness either"


@pytest.mark.parametrize("direction", ["neither", "band"])
@pytest.mark.parametrize("difference", [-0.2, 0.2])
def test_where_neither_side_is_better_a_difference_to_either_side_is_a_loss(direction, difference):
    row = {"margin": 1.0, "error": 0.5, "dof": 20.0, "direction": direction, "kind": "clips", "too_few": None}
    row = SimpleNamespace(**row, difference=difference, run="b", against="a", shown=True)
    assert worsening(row) == 0.2 and better(row) is None
    assert against_margin(row, 0.05)["p_not_worse"] == pytest.approx(stats.t(20).sf(1.6))


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(-0.2, 0.2, "alike"), (-3.0, 0.2, "no worse"), (-0.2, 3.0, None), (-3.0, 3.0, None)]
)
def test_nothing_is_alike_that_may_be_far_on_the_other_side_of_the_reference(low, high, verdict):
    row = {"margin": 1.0, "error": 0.05, "dof": 20.0, "direction": "band", "kind": TO_TARGET, "too_few": None}
    found = against_margin(SimpleNamespace(**row, difference=0.0, low=low, high=high, prompts=21.0), 0.05)
    assert found["verdict"] == verdict
    unsure = SimpleNamespace(**row | {"error": 0.5}, difference=0.0, low=low, high=high, prompts=21.0)
    assert against_margin(unsure, 0.01)["verdict"] is None, "2 errors exclude nothing at 1 %"


@pytest.mark.parametrize(("prompts", "dof"), [(12, 11), (30, 29), (400, 29)])
def test_the_error_of_a_distance_is_known_by_the_groups_of_the_jackknife(prompts, dof):
    assert freedom(SimpleNamespace(prompts=prompts, dof=float("nan"))) == dof
    assert freedom(SimpleNamespace(prompts=prompts, dof=5.5)) == 5.5


@pytest.mark.parametrize(
    ("plain", "why"),
    [
        ({"margins": {}}, "plan: the field 'margins' is unknown; did you mean 'margin'"),
        (
            {"question": [{"name": "q", "subset": "s", "metrics": "fvd"}]},
            r"'question.0.metrics' is unknown; did you mean 'metric'\? choices: metric, name, subset",
        ),
        ({"margin": {"fdv": 1}}, "metric 'fdv' is unknown; did you mean 'fvd'"),
        ({"margin": {"fvd": -1}}, "the margin of fvd is -1"),
        ({"margin": {"fvd": True}}, "margin.fvd is True; it must be a number"),
        ({"margin": {"fvd": float("inf")}}, "the margin of fvd is inf"),
        ({"question": [{"metric": "fvd"}]}, "the field 'question.0.name' is missing"),
        ({"alpha": 2}, "alpha is 2"),
        ({"alpha": 1}, r"alpha is 1\.0; it must lie between"),
        ({"alpha": 0}, r"alpha is 0\.0; it must lie between"),
    ],
)
def test_a_plan_that_cannot_be_is_a_sentence(plain, why):
    with pytest.raises(InputError, match=why):
        plan.from_plain(plain)


def test_a_margin_of_a_subset_stands_before_that_of_its_metric():
    found = plan.from_plain({"margin": {"fvd": 50, "s/fvd": 20, "kvd": 0}})
    assert [found.margin(*where) for where in (("s", "fvd"), ("t", "fvd"), ("t", "kvd"), ("t", "fad"))] == [
        20,
        50,
        0,
        None,
    ]
    assert found.primary("s", "fvd") and not plan.Plan((plan.Question("q", "s", "kvd"),)).primary("s", "fvd")


def test_a_question_that_the_runs_do_not_answer_is_said(tmp_path, runs):
    less = evaluated(made_run(tmp_path / "less", seed=5), "onset_rate")
    asked = [
        {"name": name, "subset": "toy-control", "metric": name} for name in ("lpips_consecutive", "onset_rate", "fvd")
    ]
    found = differences([less, runs["good"]], plan=plan.from_plain({"question": asked}))
    found = found[found["subset"] == "toy-control"].set_index("metric")
    assert found["missing"].dropna().to_dict() == {
        "lpips_consecutive": "less has no score of it",
        "fvd": "good has no score of it",
    }
    assert found["family"].unique() == [1] and found.loc["lpips_consecutive", "better"] is None


def test_a_distance_counts_the_clips_that_one_side_lacks_and_says_that_prompts_are_few(tmp_path):
    def made(name, seed, **clips):
        return training(tmp_path / name, seed=seed, metrics=["motion_amount_distance"], **clips)

    less, more = made("less", 1, count=10), made("more", 2, count=12)
    found = differences([less, more], pairs=[(0, 1), (1, 0)])
    assert found[["pairs", "dropped"]].to_numpy().tolist() == [[10, 2], [10, 2]]
    for prompts, words, known in (
        (2, "2 prompts: too few to show a difference", True),
        (1, "1 prompt: too few", False),
    ):
        few = [made(f"{prompts}-{seed}", seed, count=prompts, seeds=tuple(range(12))) for seed in (1, 2)]
        (row,) = differences(few).itertuples()
        assert row.too_few.startswith(words) and not row.shown
        assert np.isfinite(row.error) == known, "of one prompt it is unknown how much prompts differ"


def test_columns_are_held_in_single_precision_only_where_it_is_exact():
    _, held = _as_measured([], {"exact": np.array([0.5, 3.0]), "finer": np.array([0.5, 0.1])})
    assert held["exact"].dtype == np.float32 and held["finer"].tolist() == [0.5, 0.1]


def test_a_question_has_no_row_of_its_own_where_it_is_answered_or_was_not_asked_here(runs):
    """Over several subsets its row is the pooled one; `metrics` and `only` leave it out."""
    asked = [
        {"name": metric, "subset": subset, "metric": metric}
        for subset, metric in (("macro", "onset_rate"), ("toy-control", "fvd"))
    ]
    declared, two = plan.from_plain({"question": asked}), [runs["good"], runs["same"]]
    found = differences(two, plan=declared, metrics=["onset_rate"])
    assert sorted(found["subset"]) == ["macro", "toy-control", "toy-object-contact"]
    assert found["missing"].isna().all() and found["primary"].tolist() == (found["subset"] == "macro").tolist()
    found = differences(two, plan=declared, only=[("toy-control", "onset_rate")], pooled=False)
    assert found["metric"].tolist() == ["onset_rate"]
    assert {*differences(two, plan=declared, metrics=["lpips_consecutive"])["metric"]} == {"lpips_consecutive"}


def test_a_question_over_several_subsets_is_unanswered_for_each_pair_without_two(tmp_path, runs):
    one = evaluated(made_run(tmp_path / "one", seed=8, names=["toy-control"]))
    asked = plan.from_plain({"question": [{"name": "q", "subset": "macro", "metric": "onset_rate"}]})
    found = differences([runs["good"], one, runs["same"]], pairs=[(1, 0), (2, 0), (2, 1)], plan=asked)
    macro = found[found["subset"] == "macro"].set_index(["run", "against"])["missing"]
    why = "no two subsets have it on clips of both"
    assert macro[macro.notna()].to_dict() == {("one", "good"): why, ("same", "one"): why}


def test_a_metric_that_is_no_more_is_a_sentence(tmp_path):
    folders = [evaluated(made_run(tmp_path / name)) for name in "ab"]
    for folder in folders:
        scores, protocols = folder.scores(), folder.evaluation().protocols
        gone = [dataclasses.replace(one, metric="older") if one.metric == "onset_rate" else one for one in scores]
        renamed = folder.values().replace({"metric": {"onset_rate": "older"}})
        folder.write_scores(gone, protocols, {"values.parquet": renamed.to_parquet(index=False)})
    for read in (differences, scores_frame):
        assert {*read(folders)["metric"]} == {"lpips_consecutive"}, "it is left out"
    said = compared(folders).verdict
    assert "older of a and b is left out: avbench does not know older: is its package installed?" in said
    for folder in folders:
        gone = [one for one in folder.scores() if one.metric == "older"]
        folder.write_scores(gone, folder.evaluation().protocols, values_of(folder))
    for read in (differences, scores_frame):
        with pytest.raises(InputError, match=r"was scored by older, which is unknown: .* scores it by others"):
            read(folders)


def test_unlike_runs_are_refused_unless_allowed_and_then_marked(tmp_path, runs):
    fewer_steps = evaluated(made_run(tmp_path / "fast", seed=6, settings={"steps": 10, "weights": "a"}))
    more_steps = evaluated(made_run(tmp_path / "slow", seed=7, settings={"steps": 50, "weights": "b"}))
    with pytest.raises(InputError, match=r"sampling.steps 50 against 10 .*--allow sampling.steps"):
        scores_frame([fewer_steps, more_steps])
    with pytest.raises(InputError, match=r"sampling\.steps"):
        differences([fewer_steps, more_steps])
    frame = scores_frame([fewer_steps, more_steps], ["sampling"])
    assert set(frame["mark"].dropna()) == {"made differently: sampling.steps 50 against 10"}
    marks = differences([fewer_steps, more_steps], allow=["sampling.steps"], pooled=False)["mark"]
    assert set(marks) == {"made differently: sampling.steps 50 against 10"}
    protocols = unsealed(read_json(fewer_steps.path / "scores.json"))
    plain = json.dumps(protocols).replace('"name": "lpips-alex"', '"name": "lpips-other"')
    write_sealed(more_steps.path / "scores.json", json.loads(plain))
    assert scores_frame([fewer_steps, more_steps], ["sampling"]) is not None, "digests are equal: the text was not read"
    scores = json.loads(plain)
    for score in scores["scores"]:
        score["protocol"] = "f" + score["protocol"][1:]
    scores["protocols"] = {"f" + digest[1:]: one for digest, one in scores["protocols"].items()}
    write_sealed(more_steps.path / "scores.json", scores)
    with pytest.raises(InputError, match=r"feature.name 'lpips-other' against 'lpips-alex'"):
        scores_frame([fewer_steps, more_steps], ["sampling"])


def test_where_runs_are_not_compared_they_may_differ(tmp_path):
    one, other = (evaluated(made_run(tmp_path / name, seed=k, names=["toy-control"])) for k, name in enumerate("ab"))
    (lpips, onsets), protocols = other.scores(), other.evaluation().protocols
    unlike = {"f" * 64: {**protocols[lpips.protocol], "crop": 1}, onsets.protocol: protocols[onsets.protocol]}
    other.write_scores([dataclasses.replace(lpips, protocol="f" * 64), onsets], unlike, values_of(other))
    with pytest.raises(InputError, match="crop 1 against"):
        differences([one, other])
    assert [*differences([one, other], only=[onsets.where])["metric"]] == ["onset_rate"]


def test_a_difference_without_any_spread_is_remarked_upon(tmp_path):
    one, other = (
        evaluated(made_run(tmp_path / name, seed=1, onsets=more, names=["toy-control"]), "onset_rate")
        for name, more in (("a", 8.0), ("b", 9.5))
    )
    (row,) = differences([one, other]).itertuples()
    assert row.difference == pytest.approx(1.5) and row.mark == "every clip differs by 1.5"


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2)])
def test_whether_runs_may_stand_in_one_table_does_not_depend_on_their_order(tmp_path, order):
    unlike = [
        evaluated(made_run(tmp_path / f"u{index}", seed=index, settings=settings))
        for index, settings in enumerate(({"steps": 50}, {}, {"steps": 25}))
    ]
    with pytest.raises(InputError, match=r"sampling.steps (50 against 25|25 against 50)"):
        scores_frame([unlike[index] for index in order])
    alike = [
        evaluated(made_run(tmp_path / f"a{index}", seed=index, names=names))
        for index, names in enumerate((None, ["toy-control"], None))
    ]
    assert len(scores_frame([alike[index] for index in order])) == 10


@pytest.mark.parametrize(
    ("fields", "allowed", "words"),
    [
        (
            {"subset": {"digest": "HASH"}},
            "--allow subset",
            "the prompts (HASH against HASH); the runs are of two versions",
        ),
        (
            {"subset": {"digest": "HASH", "prompts": "SIDE"}},
            "--allow subset",
            "subset.prompts 'b' against 'a'; they differ in their number of prompts; `avbench run` with",
        ),
        (
            {"reference": {"clips.csv": "HASH", "columns.safetensors": "HASH"}},
            "--allow reference",
            "the reference (HASH against HASH); `avbench evaluate` of both with the same --reference makes them alike",
        ),
        (
            {"feature": {"weights_sha256": "HASH", "crop": "SIDE"}},
            "--allow feature.crop --allow feature.weights_sha256",
            "feature.crop 'b' against 'a'; the network's weights (HASH against HASH); `avbench measure` and",
        ),
        (
            {"feature": {"version": "SIDE", "weights_sha256": "HASH"}},
            "--allow feature.version --allow feature.weights_sha256",
            "`avbench measure` and `avbench evaluate` of both with the same avbench and the same file, each with",
        ),
        (
            {"beside": {"version": "SIDE", "weights_sha256": "HASH"}},
            "--allow beside.version --allow beside.weights_sha256",
            "`avbench measure` and `avbench evaluate` of both with the same avbench and the same file, each with",
        ),
        (
            {"matching": {"seconds": "SIDE", "hash": "HASH"}},
            "--allow matching.hash --allow matching.seconds",
            "'b' against 'a'; `avbench evaluate` of both with the same avbench makes them alike (",
        ),
    ],
)
def test_other_files_are_named_in_words_with_short_hashes(tmp_path, fields, allowed, words):
    folders = [evaluated(made_run(tmp_path / name, seed=seed)) for seed, name in enumerate("ab")]
    for folder, letter in zip(folders, "ab", strict=True):
        (folder.path / "clips").mkdir()
        plain = unsealed(read_json(folder.path / "scores.json"))
        for protocol in plain["protocols"].values():
            for outer, inner in fields.items():
                held = {
                    name: value.replace("HASH", 64 * letter).replace("SIDE", letter) for name, value in inner.items()
                }
                protocol[outer] = (protocol.get(outer) or {}) | held
        for score in plain["scores"]:
            score["protocol"] = letter + score["protocol"][1:]
        plain["protocols"] = {letter + digest[1:]: one for digest, one in plain["protocols"].items()}
        write_sealed(folder.path / "scores.json", plain)
    with pytest.raises(InputError) as refused:
        scores_frame(folders)
    for short in (12 * "b", 12 * "a"):
        words = words.replace("HASH", short, 1)
    assert words in str(refused.value) and 13 * "a" not in str(refused.value)
    assert f"({allowed}, in Python allow=" in str(refused.value)
    (folders[0].path / "clips").rmdir()
    with pytest.raises(InputError) as refused:
        scores_frame(folders)
    rerun = "a has no clips to measure again: run the model that it holds with this avbench, which makes no clip "
    assert (rerun in str(refused.value)) is not bool({"subset", "reference"} & fields.keys())


def test_what_one_run_alone_has_is_said_once_and_with_its_side():
    one, whole, part = 64 * "a", {"reference": {"clips.csv": 64 * "a"}}, {"reference": None}
    for sides, words in (((whole, part), "first"), ((part, whole), "second")):
        assert _said(different_fields(*sides)) == [f"the reference (the {words} run's only)"]
    assert _said({"weights_sha256": (one, "(absent)")}) == ["the network's weights (the first run's only)"]


def test_the_clip_specs_of_the_subset_must_be_equal_and_of_others_need_not():
    one, other = (
        Made(name, {}, {"s": {"fps": fps}}, {("s", "m"): ("d", {})}) for name, fps in (("a", "8"), ("b", "24"))
    )
    with pytest.raises(InputError, match=r"clip_spec\.fps '8' against '24' \(--allow clip_spec\.fps"):
        check_comparable(one, other)
    assert check_comparable(one, other, ["clip_spec"]) == {
        ("s", "m"): "made differently: clip_spec.fps '8' against '24'"
    }
    elsewhere = dataclasses.replace(one, clip_specs={"s": {"fps": "8"}, "t": {"fps": "24"}})
    assert check_comparable(one, elsewhere) == {("s", "m"): None}


def test_what_is_to_be_measured_again_is_named_with_all_its_metrics_and_needs_no_other_reference():
    """`measure` and `evaluate` without them would leave out what is asked for by name."""
    old, new = (
        Made(
            name,
            {},
            {},
            {
                ("s", metric): (f"{metric} {version}", {"feature": {"version": version}, "reference": {"a": 64 * name}})
                for metric in ("silence", "loudness")
            }
            | {("s", "same"): ("equal", {})},
        )
        for name, version in (("a", 1), ("b", 2))
    )
    with pytest.raises(InputError) as refused:
        check_comparable(old, new)
    again = "of both with the same avbench, each with --metric loudness,silence, make them alike (--allow"
    assert again in str(refused.value) and "--reference" not in str(refused.value)


def test_a_field_that_runs_may_differ_in_is_one_that_they_can_have(tmp_path):
    run = evaluated(made_run(tmp_path / "a", count=2, names=["toy-control"]))
    outer = ("sampling", "feature", "subset", "clip_spec")
    require_known_fields([run], [*outer, "sampling.dtype", "clip_spec.fps", "feature.version", "package", "clip_form"])
    with pytest.raises(InputError, match=r"have no field 'feature\.versio'; did you mean 'feature\.version'"):
        require_known_fields([run], ["feature", "feature.versio"])


def test_the_table_has_every_number_and_sentence_of_a_score(tmp_path):
    run = evaluated(made_run(tmp_path / "a", names=["toy-control"]))
    scores, protocols = run.scores(), run.evaluation().protocols
    place, protocol = tmp_path / "clips/x.mkv", scores[0].protocol
    null = Null(100.0, 12.5, 0.25, 999, within_prompts=True)
    beside = {"unmeasured": 5, "why_unmeasured": f"{place} is cut", "refused": 2, "shared": 3, "hygiene": "of training"}
    made = [
        Score("toy-control", "fvd", 130.0, 9000, protocol, null=null, floor=80.0, reference_clips=2, **beside),
        Score("toy-control", "onset_rate", 2.0, 7, protocol, interval=(1.5, 2.75), reference=3.0),
        Score("toy-control", "kvd", None, 0, protocol, missing=f"{place} is missing"),
        Score("toy-control", "fad", 1.0, 9000, protocol, no_null="only moments", reference_clips=9000),
    ]
    run.write_scores(made, protocols, values_of(run))
    found = scores_frame([run]).set_index("metric").astype(object)
    found = found.where(found.notna(), None)
    beside["why_unmeasured"] = "x.mkv is cut"
    numbers = {"value": 130, "null": 100, "null_sd": 12.5, "p": 0.25, "excess": 30, "floor": 80, "n": 9000}
    few = {"too_few": "n = 2 in the reference: too few for FVD", "direction": "lower", "model": "a", "no_null": None}
    known = numbers | beside | few
    assert {name: found.loc["fvd", name] for name in known} == known
    known = {"value": 2, "low": 1.5, "high": 2.75, "reference": 3, "n": 7, "direction": "band", "unit": "1/s"}
    assert {name: found.loc["onset_rate", name] for name in known} == known
    assert found.loc["kvd", ["missing", "too_few", "value"]].tolist() == ["x.mkv is missing", None, None]
    assert found.loc["fad", ["no_null", "null", "excess", "too_few"]].tolist() == ["only moments", None, None, None]
    assert [*scores_frame([run], metrics=["kvd"])["metric"]] == ["kvd"]
    with pytest.raises(InputError, match="several runs are called 'a'"):
        scores_frame([run, RunFolder(tmp_path / "other/a")])


def test_runs_that_an_earlier_version_measured_are_refused_and_measured_anew(tmp_path):
    """Of a distance: its rows are those of another protocol, so that it has none of this version's."""

    def measure(folder):
        for key, sample in folder.samples().items():
            row = {"embedding": random.standard_normal(200).astype(np.float32)}
            folder.add_row(protocol_of("musicnn"), Row(key, sample.sha256, row))
        return evaluated(folder, "fad", "onset_rate")

    random, name = np.random.default_rng(0), "toy-object-contact"
    runs = [measure(made_run(tmp_path / run, seed=seed, names=[name])) for seed, run in enumerate("ab")]
    for run in runs:
        plain = unsealed(read_json(run.path / "scores.json"))
        for protocol in plain["protocols"].values():
            if protocol["metric"] == "fad":
                protocol["feature"]["version"] -= 1
        write_sealed(run.path / "scores.json", plain)
        (rows,) = run.path.glob("features/musicnn@*")
        rows.rename(rows.with_name("musicnn@earlier"))
    with pytest.raises(
        InputError, match=r"instead of 2\): b has no clips to measure again: run the model that it holds"
    ):
        differences(runs)
    (runs[1].path / "clips").mkdir()
    with pytest.raises(InputError) as refused:
        differences(runs)
    assert str(refused.value) == (
        "fad of b was computed from musicnn of another version or with other settings (version: 1 instead of 2): "
        "`avbench measure` and `avbench evaluate` of b, each with --metric fad, score it anew"
    )
    assert table(*runs, metrics=["onset_rate"])["p"].notna().all()
    anew = [measure(run) for run in runs]
    assert table(*anew).loc[(name, "fad", "b"), "pairs"] == 24


def test_scores_of_sync_without_their_settings_are_refused_and_scored_again(tmp_path):
    """As an earlier version wrote them. Their rows are the same, so no clip is measured."""
    random, name = np.random.default_rng(0), "toy-object-contact"
    runs = [made_run(tmp_path / run, seed=seed, names=[name]) for seed, run in enumerate("ab")]
    for run in runs:
        (run.path / "clips").mkdir()
        for key, sample in run.samples().items():
            times = np.sort(random.uniform(0.5, 1.5, 3))
            motion = {"event_seconds": times, "event_strength": np.ones(3), "event_from": 0.25, "event_until": 1.6}
            sound = {"onset_seconds": times, "onset_level": np.ones(3), "sound_seconds": 2.0}
            for feature, values in (("flow-dis", motion), ("onsets", sound)):
                run.add_row(protocol_of(feature), Row(key, sample.sha256, values))
        evaluated(run, "sync_excess", "sync_lag")
    settings = {"tolerance_seconds": 0.1, "null_shifts": 99, "null_least_seconds": 0.2, "null_needs_onset": True}
    (known,) = (one for one in runs[0].evaluation().protocols.values() if one["metric"] == "sync_excess")
    assert known.items() >= settings.items()
    plain = unsealed(read_json(runs[0].path / "scores.json"))
    for digest, protocol in [*plain["protocols"].items()]:
        plain["protocols"]["0" + digest[1:]] = {one: value for one, value in protocol.items() if one not in settings}
    for score in plain["scores"]:
        score["protocol"] = "0" + score["protocol"][1:]
    write_sealed(runs[0].path / "scores.json", plain)
    with pytest.raises(
        InputError, match="`avbench evaluate` of both with the same avbench makes them alike"
    ) as refused:
        differences(runs)
    assert "tolerance_seconds" in str(refused.value) and "avbench measure" not in str(refused.value)
    evaluated(runs[0], "sync_excess", "sync_lag")
    assert table(*runs).loc[(name, "sync_excess", "b"), "pairs"] == 24


def test_the_leaderboard_ranks_what_the_data_separate(tmp_path, runs):
    assert [run.path.name for run in find([tmp_path, runs["same"].path])] == ["good", "same", "worse"], "each once"
    board = leaderboard(find([tmp_path])).set_index(["subset", "metric", "model"]).sort_index()
    assert "micro" not in board.index.get_level_values("subset"), "of subsets of one size it is macro"
    alone = leaderboard([runs["good"]])
    assert alone["rank"].isna().all() and not alone["tested"].any() and not alone["best"].any()
    lpips = board.loc[("toy-object-contact", "lpips_consecutive")]
    assert lpips.loc["worse", ["rank", "rank_low", "rank_high"]].tolist() == [3, 3, 3]
    assert (lpips.loc[["good", "same"], "rank_high"] == 2).all() and lpips["best"].tolist() == [True, True, False]
    assert lpips["letters"].tolist() in (["a", "a", "b"],)
    onsets = board.loc[("toy-control", "onset_rate")]
    assert not onsets["best"].any() and set(onsets["letters"]) == {"a"}, "where all may be first, nothing is bold"
    macro = board.loc[("macro", "lpips_consecutive")]
    parts = [board.loc[(name, "lpips_consecutive"), "value"] for name in SUBSETS]
    assert macro["value"].to_numpy() == pytest.approx(np.mean(parts, axis=0)) and macro.loc["worse", "rank"] == 3
    made_run(tmp_path / "better", seed=9, lpips=-0.0001)
    evaluated(find([tmp_path / "better"])[0])
    assert len(leaderboard(find([tmp_path]))["model"].unique()) == 4, "adding a run is dropping a folder"
    with pytest.raises(InputError, match=r"no run folder in \S+: a run folder has a run\.json$"):
        find([tmp_path / "good" / "features"])
    with pytest.raises(InputError, match=rf"; give a folder that holds some: {tmp_path}/deep/score$"):
        (tmp_path / "deep" / "score" / "a").mkdir(parents=True)
        (tmp_path / "deep" / "score" / "a" / "run.json").write_text("{}")
        find([tmp_path / "deep"])


@pytest.mark.parametrize("micro", [False, True])
@pytest.mark.parametrize("targets", [{"s": None, "t": None}, {"s": 0.3, "t": -0.2}])
def test_the_leaderboard_tests_a_pair_as_a_comparison_does(targets, micro):
    random, prompts = np.random.default_rng(1), {"s": range(10, 20), "t": range(20, 26)}
    index = {name: pd.MultiIndex.from_product([of, range(3)], names=["prompt", "seed"]) for name, of in prompts.items()}
    series = {(run, name): pd.Series(random.standard_normal(len(of)), of) for run in "ab" for name, of in index.items()}
    a, b = (np.concatenate([series[run, name] for name in index]) for run in "ab")
    subsets = np.repeat([*index], [len(one) for one in index.values()])
    options = {"subsets": [*subsets], "micro": micro}
    if targets["s"] is not None:
        options["targets"] = [targets[name] for name in subsets]
    known = paired_difference(a, b, [one for of in index.values() for one, _ in of], **options)
    differences, p = _Table(series, targets, NO_REAL).compared(micro=micro)
    sides = []
    for name, goal in targets.items():
        if goal is not None:  # whether both are on the side of it that they seem to be on
            one, other = (series[run, name].groupby("prompt").mean() - goal for run in "ab")
            nearer = (len(one) / 16 if micro else 1 / 2) * (abs(one.mean()) - abs(other.mean()))
            sides.append((stats.ttest_1samp((one + other) / 2, 0).pvalue, nearer / known.value))
    expected, undone = 0.0, 0.0
    for side, share in sorted(sides, reverse=True):
        expected, undone = side, undone + max(share, 0.0)
        if undone >= 0.5:
            break
    expected = max(expected, float(t_test(known.value, known.error, known.dof)))
    assert p[0, 1] == p[1, 0] == pytest.approx(expected)
    assert differences[0, 1] == -differences[1, 0] == pytest.approx(known.value)


@pytest.mark.parametrize(("value", "target"), [(0.1, 0.2), (0.1 + 0.2, None)])
def test_the_leaderboard_does_not_tell_models_apart_by_rounding(value, target):
    """0.3 and 0.1 are equally near to 0.2, and 0.1 + 0.2 is 0.3, but for 6e-17."""
    index = pd.MultiIndex.from_product([range(12), [0]], names=["prompt", "seed"])
    series = {("a", "s"): pd.Series(0.3, index), ("b", "s"): pd.Series(value, index)}
    differences, p = _Table(series, {"s": target}, NO_REAL).compared(micro=False)
    assert 0 < abs(differences[0, 1]) < 1e-16 and p[0, 1] == 1


def test_a_table_of_clips_knows_the_cells_and_each_subsets_target():
    """The last prompt of one subset is the first of the next, and a target of 0 is one."""
    index = [pd.MultiIndex.from_product([of, [0, 1]], names=["prompt", "seed"]) for of in (["p", "q"], ["q", "r"])]
    one = {("a", name): pd.Series([-1.0, -3.0, -1.0, -1.0], at) for name, at in zip("st", index, strict=True)}
    other = {("b", "s"): pd.Series([2.0], index[0][:1]), ("b", "t"): pd.Series([2.0], index[1][3:])}
    table = _Table(one | other, {"s": 0.0, "t": -2.0}, NO_REAL)
    assert table.cells.tolist() == [0, 2, 4, 6] and table.goal.tolist() == [0, -2]
    nan = np.nan
    np.testing.assert_array_equal(table.values[1], [2, nan, nan, nan, nan, nan, nan, 2])
    np.testing.assert_array_equal(table.goals(), [[0, 0, 0, 0, -2, -2, -2, -2], [0, *[nan] * 6, -2]])
    np.testing.assert_array_equal(table.off()[0], [1, 3, 1, 1, 1, -1, 1, 1], "its mean lies below 0, and above -2")
    np.testing.assert_array_equal(table.off()[1], [2, nan, nan, nan, nan, nan, nan, 4])


def test_a_run_is_not_first_by_clips_that_the_other_run_lacks():
    """Run a is better on all eight prompts of both, and b has eight more that are easy; c is worse on all."""
    noise, prompts = np.random.default_rng(0).normal(scale=0.1, size=24), [f"p{number:02}" for number in range(16)]
    index = pd.MultiIndex.from_product([prompts, [0]], names=["prompt", "seed"])
    series = {("a", "s"): pd.Series(2 + noise[:8], index[:8]), ("b", "s"): pd.Series(1.0 + noise[8:], index)}
    series["b", "s"].iloc[8:] += 9
    series["c", "s"] = series["b", "s"] - 1 + noise[4:20]
    table = _Table(series, {"s": None}, NO_REAL)
    board = pd.DataFrame({"model": ["a", "b", "c"], "value": [2.0, 5.5, 4.5], "direction": "higher"})
    differences, p = table.compared(micro=False)
    assert differences[0, 1] == pytest.approx(1, abs=0.2) and p[0, 1] < 0.01
    ranked = _ranked(board, board, known_metrics()["sync_excess"], differences, p, board["value"].to_numpy())
    assert ranked["rank"].tolist() == [3, 1, 2] and ranked["rank_low"].tolist() == [1, 2, 3]
    assert len(set(ranked["letters"])) == 3
    assert _best(ranked).tolist() == [True, False, False], "a is shown to be better than b, which was bold"


@pytest.mark.parametrize("fast", [0.9, 0.4])
def test_a_number_that_was_not_tested_against_the_leader_is_not_bold(fast):
    """The run with few clips shares none with the leader, whether its number is above the leader's or below."""
    values = np.array([0.5, fast, 0.1, 0.45])
    board = pd.DataFrame({"value": values, "direction": "higher", "tested": False})
    p = np.full((4, 4), 0.5)
    p[0, 2] = p[2, 0] = 0.001
    p[0, 1] = p[1, 0] = np.nan
    ranked = _ranked(board, board, known_metrics()["sync_excess"], np.subtract.outer(values, values), p, values)
    assert ranked["rank_low"].tolist() == [1, 1, 2, 1] and ranked["tested"].tolist() == [True, False, True, True]
    assert _best(ranked).tolist() == [True, False, False, True]


def test_equal_numbers_have_one_rank():
    board, p = pd.DataFrame({"value": [0.5, 0.1, 0.5, 0.3]}), np.full((4, 4), 1.0)
    apart = np.subtract.outer(board["value"].to_numpy(), board["value"].to_numpy())
    ranked = _ranked(board, board, known_metrics()["sync_excess"], apart, p, board["value"].to_numpy())
    assert ranked["rank"].tolist() == [1, 4, 1, 3]


def test_no_p_is_below_what_an_exact_test_of_the_prompts_can_show():
    index = pd.MultiIndex.from_product([range(6), [0]], names=["prompt", "seed"])
    series = {("a", "s"): pd.Series(1.0, index), ("b", "s"): pd.Series(0.0, index)}
    _, p = _Table(series, {"s": None}, NO_REAL).compared(micro=False)
    assert p[0, 1] == 2 / 2**6 == paired_difference(np.ones(6), np.zeros(6), range(6)).p


def test_a_prompt_that_two_subsets_have_is_one_prompt():
    """Two subsets of the same clips say no more than one of them."""
    random, prompts = np.random.default_rng(2), [f"p{number}" for number in range(12)]
    a, b = random.normal(size=(2, 12))
    one = paired_difference(a, b, prompts)
    twice = (np.concatenate([values, values]) for values in (a, b))
    two = paired_difference(*twice, prompts * 2, subsets=["s"] * 12 + ["t"] * 12)
    assert (two.prompts, two.dof, two.p) == (12, 11, one.p)
    assert (two.error, *two.interval) == pytest.approx((one.error, *one.interval))
    index = pd.MultiIndex.from_product([prompts, [0]], names=["prompt", "seed"])
    of_both = {(run, name): pd.Series(x, index) for run, x in (("a", a), ("b", b)) for name in "st"}
    of_one = {where: values for where, values in of_both.items() if where[1] == "s"}
    tested = [_Table(of, dict.fromkeys("st"), NO_REAL).compared(micro=False)[1][0, 1] for of in (of_one, of_both)]
    assert tested[0] == pytest.approx(tested[1])


@pytest.mark.slow
def test_power_needs_no_more_than_a_pilot(tmp_path, runs):
    one_seed = planned([runs["good"], runs["same"]], [24, 96], [1, 2]).set_index(["subset", "metric", "prompts"])
    detectable = one_seed.loc[("toy-control", "onset_rate"), "detectable"]
    assert detectable[24] / detectable[96] == pytest.approx(2, rel=0.05) and set(one_seed["seeds"]) == {1}
    least = planned([runs["good"], runs["same"]], [10, 11], [1], family=26).set_index("prompts")["detectable"]
    assert least[10].isna().all() and least[11].notna().all(), "2 / 2¹⁰ is more than 0.05 / 26"
    found = table(
        runs["good"], runs["same"], plan=plan.Plan(questions=(plan.Question("", "toy-control", "onset_rate"),))
    )
    target = found.loc[("toy-control", "onset_rate", "same")]
    assert target["kind"] == "distance from the reference's value"
    two = [evaluated(made_run(tmp_path / name, seed=s, seeds=(0, 1, 2))) for name, s in (("a", 10), ("b", 11))]
    more = planned(two, [24], [1, 4]).set_index(["subset", "metric", "seeds"])["detectable"]
    assert more["toy-control", "onset_rate", 4] < more["toy-control", "onset_rate", 1]
    alone = planned(two[:1], [24], [1]).set_index(["subset", "metric"])["detectable"]
    assert alone["toy-control", "onset_rate"] == pytest.approx(more["toy-control", "onset_rate", 1], rel=0.4)
    with pytest.raises(InputError, match="3 pilot runs"):
        planned([*two, two[0]], [24], [1])
    alike = evaluated(made_run(tmp_path / "alike", seed=10, seeds=(0, 1, 2)))
    assert planned([two[0], alike], [24, 960], [1])["detectable"].isna().all()
    assert "Empty: so few prompts can show no difference, or the pilots have no spread" in power_legend(1)


def test_power_of_runs_without_a_common_clip_is_refused(tmp_path, runs):
    other = evaluated(made_run(tmp_path / "other", seeds=(7,)))
    with pytest.raises(InputError, match="values of two prompts in the clips that both good and other have: give two"):
        planned([runs["good"], other], [24], [1])
    with pytest.raises(InputError, match="values of two prompts in one: give a run of more prompts"):
        planned([evaluated(made_run(tmp_path / "one", count=1))], [24], [1])


def test_power_is_that_of_a_t_test_with_the_spread_of_a_pilot(tmp_path):
    """Both runs lie far above the reference's value, so that their side of it is sure."""
    how = {"seeds": (0, 1), "count": 12, "names": ["toy-control"], "lpips": 1.0}
    pilots = [made_run(tmp_path / name, seed=seed, **how) for seed, name in ((3, "a"), (8, "b"))]
    pilots = [evaluated(pilots[0]), evaluated(pilots[1], "lpips_consecutive")]
    a, b = (clip_values(run)["toy-control", "lpips_consecutive"].unstack("seed").to_numpy() for run in pilots)
    for values, given, runs_in_it in ((a - b, pilots, 1), (a, pilots[:1], 2)):
        within = values.var(axis=1, ddof=1).mean()
        between = values.mean(axis=1).var(ddof=1) - within / 2
        assert between > 0
        found = planned(given, [7, 24], [1, 4], family=4).set_index(["metric", "prompts", "seeds"])
        assert len(found) == 4 * (3 - len(given)), "of two runs only what both have is planned"
        for (prompts, seeds), row in found.loc["lpips_consecutive"].iterrows():
            effect = TTestPower().solve_power(nobs=prompts, alpha=0.05 / 4, power=0.8)
            known = effect * np.sqrt(runs_in_it * (between + within / seeds))
            enough = prompts == 24  # 2 / 2⁷ is not below 0.05 / 4
            assert row["detectable"] == pytest.approx(known, rel=1e-4) if enough else np.isnan(row["detectable"])
    once = evaluated(made_run(tmp_path / "e", **how | {"seeds": (0,)}))
    assert {*planned([once], [24], [1, 4])["seeds"]} == {1}, "one clip of each prompt says nothing of more"
    with pytest.raises(InputError, match="3 pilot runs"):
        planned([*pilots, once], [24], [1])
    other = evaluated(made_run(tmp_path / "c", settings={"steps": 2}, **how))
    fast = evaluated(made_run(tmp_path / "d", settings={"steps": 1}, **how))
    with pytest.raises(InputError, match=r"sampling\.steps") as refused:
        planned([other, fast], [24], [1])
    assert "--allow" not in str(refused.value), "`avbench power` has no such option"


def test_power_says_where_the_pilots_have_too_few_prompts_to_plan_from(tmp_path):
    for count in (3, 6):
        frame = planned([evaluated(made_run(tmp_path / f"of-{count}", count=count))], [5, 24], [1])
        assert {*frame["pilot"]} == {count}
        (of_subset, *_) = power_tables(frame)
        few = "the pilots have it on 3 prompts only, too few to know how much prompts differ"
        assert of_subset.notes == ([few] if count == 3 else [])
        (first, second) = of_subset.rows[0][1]
        assert not first.text and second.text.endswith("[1]") == (count == 3), "five prompts can show nothing"


def test_power_is_of_distances_from_the_reference_where_the_pilots_have_its_value(tmp_path):
    """Around the reference's value the prompts' own spread counts, which runs far from it share."""
    how, found = {"names": ["toy-control"], "count": 24}, {}
    for name, lpips in (("near", 0.0), ("far", 1.0)):
        pilots = [made_run(tmp_path / f"{name}-{seed}", seed=seed, lpips=lpips, **how) for seed in (3, 8)]
        for run in pilots:
            evaluate(run, chosen_metrics(["lpips_consecutive", "onset_rate"]))
        found[name] = planned(pilots, [24], [1]).set_index("metric").loc["lpips_consecutive"]
    assert {one["kind"] for one in found.values()} == {"distance from the reference's value"}
    assert found["near"]["between"] == pytest.approx(found["far"]["between"])
    value = pilots[0].scores()[0].reference
    far = (clip_values(pilots[0])["toy-control", "lpips_consecutive"].mean() - value, 0.001)
    assert found["far"]["middle"] == pytest.approx(far[0], abs=far[1]) and found["near"]["middle"] < 0.001
    assert found["near"]["detectable"] > 1.5 * found["far"]["detectable"]
    alone = planned(pilots[:1], [24], [1]).set_index("metric").loc["onset_rate"]
    mean = clip_values(pilots[0])["toy-control", "onset_rate"]
    half = stats.t.isf(0.025, 23) * stats.sem(mean)
    (goal,) = [one.reference for one in pilots[0].scores() if one.where == ("toy-control", "onset_rate")]
    assert alone["middle"] == pytest.approx(max(0, abs(mean.mean() - goal) - half))
    effect = TTestPower().solve_power(nobs=24, alpha=0.05, power=0.8)
    assert alone["middle"] > 1 and alone["detectable"] == pytest.approx(effect * mean.std() * np.sqrt(2), rel=1e-4)
    text = run_avbench("power", *(run.path for run in pilots), "--prompts", "24").stdout
    assert "lpips_consecutive ≈" in text and "where they will lie cannot be known before" in " ".join(text.split())


def test_runs_of_two_references_are_not_ranked_by_the_distance_from_one(tmp_path, runs):
    onsets, subset = protocol_of("onsets"), SUBSETS["toy-control"]
    other = made_run(tmp_path / "other", seed=5, onsets=3.0, seeds=(100,), names=["toy-control"])
    reference_building.pack(other, subset, [onsets], tmp_path / "reference/toy-control", "CC0")
    run = made_run(tmp_path / "another", seed=7, names=["toy-control"])
    evaluate(run, chosen_metrics(["onset_rate"]), place=tmp_path / "reference")
    board = leaderboard([run, runs["good"]], allow=["reference"]).set_index(["subset", "metric"]).sort_index()
    both = board.loc[("toy-control", "onset_rate")]
    assert len(both) == 2 and both["reference"].nunique() == 2 and both["rank"].isna().all()


@pytest.mark.parametrize(("seeds", "of_others"), [([(0,), (1,)], [24, 24]), ([(0, 1), (0,)], [0, 24])])
def test_numbers_of_other_clips_than_the_models_beside_them_are_marked(tmp_path, seeds, of_others):
    runs = [evaluated(made_run(tmp_path / name, seeds=own)) for name, own in zip("ab", seeds, strict=True)]
    board = leaderboard(runs)
    counts: dict = board.groupby(["subset", "model"])["of_others"].unique().to_dict()
    for subset, times in [*((name, 1) for name in SUBSETS), ("macro", 2)]:
        assert [[*counts[subset, name]] for name in "ab"] == [[times * count] for count in of_others]
    table = paper.paper_table(board)
    for _, rows in table.subsets:
        marked = [["‡" in cell.short for cell in cells] for name, cells in rows if name in "ab"]
        assert marked == [[count > 0] * 2 for count in of_others]
    assert "b: rests on 24 clips, other models alone were asked for 24 more" in table.footnote.replace("a and b", "b")
    assert next(subset_tables(board)).notes == ["rests on 24 clips; other models alone were asked for 24 more"]
    alone = subset_tables(leaderboard(runs[1:]))
    assert not any(cell.partial for one in alone for _, cells in one.rows for cell in cells)


def test_a_pool_counts_the_refusals_of_all_its_subsets(tmp_path):
    folders = []
    for name, refused in (("b", 1), ("a", 2)):
        run = made_run(tmp_path / name, count=21, settings={"steps": refused})
        for place, subset in enumerate(SUBSETS.values()):
            for prompt in subset.prompts[24 - refused :]:
                key = Key(subset.name, prompt.id, 0)
                run.add_sample(Sample(key, None, None, 0.0, failure="it was refused", refused=True))
            if place:
                key = Key(subset.name, subset.prompts[21].id, 0)
                run.add_sample(Sample(key, None, None, 0.0, failure="no memory"))
        folders.append(evaluated(run))
    board = leaderboard(folders, allow=["sampling"])
    pooled = board.query("subset == 'macro' and metric == 'lpips_consecutive'").set_index("model").astype(object)
    columns, unsampled = ["refused", "unmeasured", "n", "why_unmeasured"], "the clip was not sampled"
    assert pooled.loc["b", columns].tolist() == [2, 6, 42, f"{unsampled} (2) and no clip (1), {unsampled} (1)"]
    assert pooled.loc["a", columns].tolist() == [4, 6, 42, f"{unsampled} (1) and no clip (1)"]
    assert board["mark"].notna().any() and pooled["mark"].isna().all(), "the subsets' rows have it"


def test_distances_are_ranked_whatever_other_metrics_differ(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "avbench.comparison.leaderboard.differences",
        lambda folders, **how: (
            asked.append(([one.path.name for one in folders], how["metrics"], how["pairs"])) or found
        ),
    )
    found = pd.DataFrame({"p": [0.1, 0.2, 0.3], "difference": [1.0, 2.0, 3.0], "too_few": [None, None, "n = 8"]})
    scored = pd.DataFrame({"model": ["c", "a", "b"], "subset": "toy-control", "metric": "fvd"})
    folders = [RunFolder(tmp_path / name) for name in "abcd"]
    apart, p = _distances_compared(scored, folders, (), None)
    assert asked == [(["c", "a", "b"], ["fvd"], [(0, 1), (0, 2), (1, 2)])]
    np.testing.assert_array_equal(p, [[np.nan, 0.1, 0.2], [0.1, np.nan, np.nan], [0.2, np.nan, np.nan]])
    np.testing.assert_array_equal(apart, [[0, 1, 2], [-1, 0, 3], [-2, -3, 0]])


@pytest.mark.parametrize("form", ["console", "markdown", "latex", "csv", "json"])
@pytest.mark.parametrize("verb", ["compare", "leaderboard", "power"])
def test_every_form_is_printed(runs, verb, form):
    paths = [str(folder.path) for folder in list(runs.values())[:2]]
    result = run_avbench(verb, *paths, "--format", form, code=None)
    assert result.exit_code == 0, result.output
    assert "onset" in result.output
    if form == "csv":
        assert len(pd.read_csv(io.StringIO(result.stdout)))
    if form == "markdown":
        assert "\n| --- |" in result.stdout or "\n|---|" in result.stdout
    if form == "json":
        assert isinstance(json.loads(result.output), list)
    if form == "latex":
        assert r"\toprule" in result.output and "onset\\_rate" in result.output


def test_an_unknown_form_is_a_sentence(runs):
    result = run_avbench("compare", runs["good"].path, "--format", "excel", code=None)
    assert result.exit_code == 2 and "format 'excel' is unknown" in result.output


def test_micro_counts_every_clip_alike(tmp_path):
    folders = [made_run(tmp_path / name, seed=k, lpips=0.01 * k) for k, name in enumerate(("a", "b"))]
    for run in folders:
        for key in [key for key in sorted(run.samples()) if key.subset == "toy-control"][12:]:
            run.add_sample(Sample(key, None, None, 0.0, failure="out of memory"))
        evaluated(run)
    whole = evaluated(made_run(tmp_path / "c", seed=5))
    board = leaderboard([*folders, whole]).set_index(["subset", "metric", "model"]).sort_index()
    for run in folders:
        values = [clip_values(run)[name, "lpips_consecutive"] for name in SUBSETS]
        micro, macro = (board.loc[(pool, "lpips_consecutive", run.path.name)] for pool in ("micro", "macro"))
        assert micro["n"] == 36 and micro["value"] == pytest.approx(pd.concat(values).mean())
        assert macro["value"] == pytest.approx(np.mean([part.mean() for part in values]))
        goals = [board.loc[(name, "lpips_consecutive", run.path.name), "reference"] for name in SUBSETS]
        assert macro["reference"] == pytest.approx(np.mean(goals))
        assert micro["reference"] == pytest.approx(np.average(goals, weights=[12, 24]))
        for pool, weights in ((macro, np.array([1, 1]) / 2), (micro, np.array([12, 24]) / 36)):
            variances = (weights * [part.sem() for part in values]) ** 2
            dof = variances.sum() ** 2 / np.sum(variances**2 / (np.array([12, 24]) - 1))
            known = stats.t.interval(0.95, dof, pool["value"], np.sqrt(variances.sum()))
            assert (pool["low"], pool["high"]) == pytest.approx(known), "one clip of each prompt"
    found = table(*folders).xs("lpips_consecutive", level="metric").droplevel("run")["difference"]
    assert found["macro"] == pytest.approx(found[[*SUBSETS]].mean())
    assert found["micro"] == pytest.approx(np.average(found[[*SUBSETS]], weights=[12, 24]))


def of_prompts(monkeypatch, *ranges):
    """Have made runs hold these prompts of their two subsets."""
    limited = zip(SUBSETS.items(), ranges, strict=True)
    made = {name: dataclasses.replace(one, prompts=one.prompts[begin:end]) for (name, one), (begin, end) in limited}
    monkeypatch.setattr("made_runs.SUBSETS", made)


@pytest.mark.parametrize(
    "ranges, counted",
    [(((0, 4), (4, 8)), "8 prompts, 2 comparisons"), (((0, 8), (8, 16)), "8 prompts, 4 comparisons, corrected for 6")],
)
def test_what_only_all_subsets_together_can_compare_is_in_the_answer(tmp_path, monkeypatch, ranges, counted):
    """By hand: 4 prompts of each subset are too few, and 8 of both are not. It was "Nothing could be compared"."""
    of_prompts(monkeypatch, *ranges)
    both = [evaluated(made_run(tmp_path / "one")), evaluated(made_run(tmp_path / "other", seed=1))]
    answer = f"No difference shown between one and other ({counted})."
    assert verdict(scores_frame(both), differences(both))[0] == answer


@pytest.mark.parametrize("of_one", [("onset_rate",), METRICS])
def test_a_metric_that_should_match_has_its_sign_also_where_only_one_run_has_it(tmp_path, of_one):
    """One that was not scored by it (a plan asks), and one without a clip of it: the table's head had no ≈."""
    whole = evaluated(made_run(tmp_path / "whole"))
    other = evaluated(made_run(tmp_path / "other", seed=1, count=0), *of_one)
    questions = [{"name": name, "subset": "toy-control", "metric": name} for name in METRICS]
    found = differences([whole, other], plan=plan.from_plain({"question": questions}))
    found = found[found["subset"] == "toy-control"]
    assert found["missing"].notna().all()
    (table,) = difference_tables(found)
    assert {head for head, _ in table.rows} == {"lpips_consecutive ≈ LPIPS", "onset_rate ≈ 1/s"}


def test_the_forest_plot_says_what_all_subsets_together_alone_can_compare(tmp_path, monkeypatch):
    of_prompts(monkeypatch, (0, 4), (4, 8))
    both = [evaluated(made_run(tmp_path / "one")), evaluated(made_run(tmp_path / "other", seed=1))]
    (rows,) = by_pair(differences(both)).values()
    drawn = forest.forest(rows, scores_frame(both), {"one": "#000", "other": "#fff"})
    assert "over all: open, p " in drawn and "compared on" not in drawn
