"""The verdict says in plain sentences what the differences show, what is open, and what could not be compared."""

import pandas as pd
import pytest

from avbench.comparison.differences import TO_TARGET, by_pair
from avbench.comparison.not_compared import without_reference
from avbench.comparison.verdict import ahead, arm_verdict, effect, preliminary, verdict
from avbench.comparison.wording import p_value, percent
from avbench.metrics.evaluate import NO_REFERENCE

COLUMNS = [
    *("metric", "direction", "kind", "difference", "unit", "p", "p_holm", "needed", "better", "missing", "too_few")
]
NAN = float("nan")
UNMET = (
    "No difference shown in any pair that was compared; b and c were not compared with each other "
    "(`avbench compare --all-pairs` does that)."
)
NONE_MADE = UNMET.replace("No difference shown", "Nothing could be compared").replace(
    "that was compared", "that was tried"
)
VALUES = {"a": 480.0, "b": 360.0, "c": 700.0, "d": 500.0}


def frames(rows, subset="s", run="b", against="a"):
    """The score table and the differences of a run and a; rows are values of COLUMNS."""
    found = pd.DataFrame([(*row, None)[: len(COLUMNS)] for row in rows], columns=COLUMNS).assign(
        subset=subset, run=run, against=against, prompts=23, detectable=0.1, primary=True, verdict=None, dropped=0
    )
    found["family"] = 0
    found["shown"] = (found["p_holm"] < 0.05) & found["too_few"].isna()
    scores = [
        {
            "subset": row.subset,
            "metric": row.metric,
            "model": model,
            "value": NAN if isinstance(row.missing, str) else VALUES[model],
            "n": 23,
            "missing": row.missing if model == "a" else None,
            "direction": row.direction,
        }
        for row in found.itertuples()
        for model in (against, run)
    ]
    return pd.DataFrame(scores), found


def together(*pairs):
    """The frames of several pairs of runs, or of several subsets, as one."""
    scores, found = (pd.concat(each, ignore_index=True) for each in zip(*pairs, strict=True))
    return scores.drop_duplicates(["subset", "metric", "model"], ignore_index=True), found


WON = ("fvd", "lower", "distance", -120.0, "", 0.001, 0.004, 30, "b", None)
OPEN = ("warping_error", "band", TO_TARGET, 0.01, "RGB²", 0.2, 0.8, 190.4, None, None)
FAR = ("motion_amount", "band", TO_TARGET, 0.01, "", 0.6, 1.0, 2000.0, None, None)
SILENT = ("onset_rate", "band", TO_TARGET, NAN, "", NAN, NAN, NAN, None, "the clip has no sound (23 of 23 clips)")
ALONE = ("kvd", "lower", "distance", NAN, "", NAN, NAN, NAN, None, "s has no reference statistics to measure to")


def test_what_is_shown_over_all_subsets_alone_is_in_the_answer():
    """It was "No difference shown", beside a table in which one is."""
    lower = ("fvd", "lower", "clips", -120.0, "", 0.01, 0.2, 30, None, None)
    scores, found = together(*(frames([lower], subset=name) for name in ("s", "t")))
    macro = frames([WON], subset="macro")[1]
    answers = [verdict(scores, pd.concat([found, one])) for one in (macro, frames([lower], subset="macro")[1])]
    assert answers[0][0].startswith("b is better than a in 1 of 3 comparisons (23 prompts): fvd (over all subsets, ")
    assert answers[1][0] == "No difference shown between a and b (23 prompts, 2 comparisons)."


def test_nothing_shown_names_the_nearest_and_the_number_of_prompts_that_would_settle_it():
    assert verdict(*frames([FAR, OPEN, SILENT, ALONE])) == [
        "No difference shown between a and b (23 prompts, 2 comparisons).",
        "In motion amount and warping error, distances from the reference's value are compared, not the values "
        "themselves.",
        "Closest to a clear result is warping error: about 190 prompts would show its difference, "
        "if the true one is as large as the one seen.",
        "2 metrics could not be compared: a has no sound (1), no reference (1).",
        "There is no reference of real clips, so kvd has no value, and 2 metrics that should match real clips "
        "can show a difference, but not which side is better: give one by reference (--reference; `avbench reference "
        "for` builds it from a data set).",
    ]


def test_nothing_is_said_of_differences_where_there_is_one_run():
    scores, found = frames([OPEN, ALONE])
    without = verdict(scores[scores["model"] == "a"], found[:0])[-1]
    assert "kvd has no value: give one by reference" in without and "difference" not in without


def test_what_is_shown_is_named_with_its_size_in_percent_and_its_certainty():
    first, second = verdict(*frames([WON, OPEN]))
    assert first == "b is better than a in 1 of 2 comparisons (23 prompts): fvd (lower by 120 or 25 %, p 0.004)."
    assert second.startswith("Closest to a clear result is warping error")


def test_the_winner_is_the_subject_whichever_was_given_first():
    lost = ("lpips", "lower", "clips", 0.02, "LPIPS", 0.0001, 0.0004, 30, "a", None)
    nearer = ("motion_amount", "band", TO_TARGET, 0.3, "", 0.001, 0.003, 30, "a", None)
    (sentence,) = verdict(*frames([lost, nearer]))
    assert sentence == (
        "a is better than b in 2 of 2 comparisons (23 prompts): motion amount (nearer to the reference by 0.3, p "
        "0.003), lpips (lower by 0.02 LPIPS or 0.0056 %, p below 0.001)."
    )


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ({"a": 480.0, "b": -1.0}, "lower by 120,"),  # less by more than everything
        ({"a": -1.0, "b": 360.0}, "lower by 120,"),
        ({"a": 12.0, "b": 1.0}, "lower by 120,"),  # ten times the other value and more
        ({"a": 12.5, "b": 1.0}, "lower by 120 or 960 %,"),
    ],
)
def test_a_percentage_is_of_a_value_that_it_can_be_a_part_of(values, size):
    scores, found = frames([WON])
    first = verdict(scores.assign(value=scores["model"].map(values)), found)[0]
    assert f"fvd ({size} p 0.004)" in first


def test_no_percentage_is_of_a_value_over_other_clips_than_were_compared():
    scores, found = frames([WON])
    first = verdict(scores, found.assign(dropped=10))[0]
    assert "fvd (lower by 120, p 0.004)" in first


@pytest.mark.parametrize(("size", "text"), [(999.4, "999"), (999.7, "1000"), (1234.5, "1234")])
def test_sizes_have_no_exponent(size, text):
    scores, found = frames([WON])
    assert f"fvd (higher by {text}, p 0.004)" in verdict(scores, found.assign(difference=size, dropped=10))[0]


def test_a_metric_without_a_better_side_differs_and_wins_nothing():
    more = ("event_rate", "neither", "clips", 2.0, "1/s", 0.001, 0.003, 30, None, None)
    assert verdict(*frames([more])) == [
        "No difference in quality shown between a and b (23 prompts, 1 comparison).",
        "b differs from a in event rate (higher by 2 1/s or 0.42 %, p 0.003), where neither more nor less is better.",
    ]


def test_what_only_real_clips_could_decide_is_said_also_where_no_metric_needs_them():
    nearer = ("event_rate", "band", "clips", 2.0, "1/s", 0.001, 0.003, 30, None, None)
    more = ("brightness", "neither", "clips", 2.0, "", 0.001, 0.003, 30, None, None)
    assert verdict(*frames([nearer, more])) == [
        "No difference in quality shown between a and b (23 prompts, 2 comparisons).",
        "b differs from a in event rate (higher by 2 1/s or 0.42 %, p 0.003); which is better, only a reference of "
        "real clips could tell.",
        "b differs from a in brightness (higher by 2 or 0.42 %, p 0.003), where neither more nor less is better.",
        "There is no reference value of event rate for all runs, so it can show a difference, but not which side is "
        "better: give a reference by reference (--reference; `avbench reference for` builds it from a data set).",
    ]


def test_a_reference_without_sound_is_called_so():
    missing = "the reference of ref has no musicnn: the clip has no sound (8 of 8 clips)"
    found = verdict(*frames([WON, ("fad", "lower", "distance", NAN, "", NAN, NAN, NAN, None, missing)]))
    assert found[-1] == "1 metric could not be compared: the reference has no sound (1)."


def test_comparisons_that_a_plan_does_not_ask_for_are_neither_counted_nor_named():
    asked = ("fad", "lower", "distance", 1.0, "", 0.9, 0.9, 5000.0, None, None)
    scores, found = frames([asked, OPEN, FAR])
    found["primary"] = found["metric"] == "fad"
    assert verdict(scores, found) == [
        "No difference shown between a and b (23 prompts, 1 comparison).",
        "Closest to a clear result is fad: about 5000 prompts, with 217 times as many real clips, would show its "
        "difference, if the true one is as large as the one seen.",
        "2 comparisons are exploratory: the plan does not ask for them, so nothing is shown.",
    ]
    found["primary"] = False
    assert verdict(scores, found.head(1)) == [
        "Nothing that the plan asks for could be compared between a and b.",
        "1 comparison is exploratory: the plan does not ask for it, so nothing is shown.",
    ]


def test_what_the_margins_of_a_plan_show_is_said():
    scores, found = frames([WON, OPEN, FAR])
    found["verdict"] = ["no worse", "alike", "no worse"]
    assert verdict(scores, found) == [
        "b is better than a in 1 of 3 comparisons (23 prompts): fvd (lower by 120 or 25 %, p 0.004).",
        "a and b are alike in warping error, to within the plan's margin.",
        "b is no worse than a in motion amount by more than the plan's margin.",
        "Closest to a clear result is motion amount: about 2000 prompts would show its difference, if the true one is "
        "as large as the one seen.",
    ]


def test_what_a_margin_shows_on_one_subset_is_not_said_of_the_others():
    """Of warping error it is shown on one of the two, of motion amount on both."""
    one, two = frames([OPEN, FAR]), frames([OPEN, FAR], subset="t")
    one[1]["verdict"], two[1]["verdict"] = ["alike", "no worse"], [None, "no worse"]
    said = verdict(*together(one, two))
    assert "a and b are alike in warping error on s, to within the plan's margin." in said
    assert "b is no worse than a in motion amount on 2 subsets by more than the plan's margin." in said


def test_a_metric_without_a_better_side_that_is_not_shown_to_differ_is_open():
    alike = ("event_rate", "neither", "clips", 2.0, "1/s", 0.3, 0.6, 120, None, None)
    assert verdict(*frames([alike])) == [
        "No difference shown between a and b (23 prompts, 1 comparison).",
        "Closest to a clear result is event rate: about 120 prompts would show its difference, if the true one is as "
        "large as the one seen.",
    ]


def test_as_many_metrics_as_a_sentence_names_are_all_named():
    rows = [(name, *FAR[1:]) for name in ("warping_error", "event_rate", "onset_rate", "motion_amount", "loudness")]
    named = [verdict(*frames(rows[:count]))[1].partition(", distances")[0] for count in (4, 5)]
    assert named == [
        "In warping error, event rate, onset rate and motion amount",
        "In warping error, event rate, onset rate, motion amount and 1 more",
    ]


def test_too_few_clips_are_no_comparison():
    small = ("kvd", "lower", "distance", -3.0, "", 0.5, 1.0, 90, None, None, "n = 6: too few for KVD")
    sentences = verdict(*frames([OPEN, small]))
    assert sentences[0] == "No difference shown between a and b (23 prompts, 1 comparison)."
    assert sentences[-1] == "1 metric could not be compared: too few clips, n = 6 (1)."


def test_as_many_prompts_as_there_are_settle_nothing():
    enough = ("warping_error", "band", TO_TARGET, 0.01, "RGB²", 0.06, 0.06, 3, None, None)
    assert verdict(*frames([enough])) == [
        "No difference shown between a and b (23 prompts, 1 comparison).",
        "In warping error, distances from the reference's value are compared, not the values themselves.",
    ]


def test_a_metric_that_is_shown_on_several_subsets_is_named_once():
    (sentence,) = verdict(*together(frames([WON], "s"), frames([WON], "t")))
    assert sentence == "b is better than a in 2 of 2 comparisons (23 prompts): fvd (on 2 subsets, p at most 0.004)."
    surer = (*WON[:6], 0.002, *WON[7:])
    (sentence,) = verdict(*together(frames([surer], "s"), frames([WON], "t")))
    assert sentence.endswith("fvd (on 2 subsets, p at most 0.004)."), "the larger one holds for both"
    first, _ = verdict(*together(frames([WON], "s"), frames([OPEN], "t")))
    assert first.endswith("1 of 2 comparisons (23 prompts): fvd (on s, lower by 120 or 25 %, p 0.004).")


def test_a_subset_that_one_run_lost_is_named():
    scores, found = frames([WON])
    lost = pd.DataFrame([{"subset": "t", "metric": "fvd", "model": "a", "value": 1.0, "missing": None}])
    sentences = verdict(pd.concat([scores, lost], ignore_index=True), found)
    assert sentences[-1] == "b has no clips of the subset t: nothing is compared there."


def test_a_metric_that_one_run_was_not_scored_by_is_named():
    scores, found = frames([WON, OPEN])
    said = verdict(scores[(scores["metric"] != "warping_error") | (scores["model"] != "b")], found[:1])
    assert said[-1].startswith("b was not scored by warping error, so nothing is compared by it: `avbench measure`")
    other, of_other = frames([WON], subset="t")
    both = verdict(pd.concat([scores, other], ignore_index=True), pd.concat([found, of_other], ignore_index=True))
    assert not any("not scored" in sentence for sentence in both), "on t no run was, so nothing is missed"


def test_nothing_comparable_says_so_and_why():
    assert verdict(*frames([SILENT, ALONE])) == [
        "Nothing could be compared between a and b.",
        "2 metrics could not be compared: a has no sound (1), no reference (1).",
        "There is no reference of real clips, so kvd has no value: give one by reference (--reference; `avbench "
        "reference for` builds it from a data set).",
    ]
    none = together(frames([SILENT]), frames([SILENT], run="c"))
    assert verdict(*none)[:2] == [NONE_MADE, "Nothing could be compared between a and b."]
    scores, found = frames([WON])
    apart = scores.assign(subset=["s", "t"])
    assert verdict(apart, found.iloc[:0])[0] == (
        "Nothing could be compared: a and b have no metric on a common subset."
    )


SOME_UNMET = "not all told apart; some were not compared with each other"
WORSE = ("fvd", "lower", "distance", 220.0, "", 0.001, 0.002, 30, "a", None)


def test_many_models_stand_in_order_and_against_the_first():
    sentences = verdict(*together(frames([WON, OPEN]), frames([WORSE, OPEN], run="c")))
    assert sentences == [
        "Best to worst: b, then a, then c.",
        "b is better than a in 1 of 2 comparisons: fvd (lower by 120 or 25 %, p 0.004).",
        "c is worse than a in 1 of 2 comparisons: fvd (higher by 220 or 46 %, p 0.002).",
        "Closest to a clear result is warping error between a and b: about 190 prompts would show its difference, "
        "if the true one is as large as the one seen.",
    ]


@pytest.mark.parametrize(
    ("better", "order"),
    [
        ("aa", "Best to worst: a, then b and c (not compared with each other)."),
        ((None, "a"), f"No clear order: a, b and c ({SOME_UNMET})."),
        ((None, None), UNMET),
    ],
)
def test_open_places_are_said(better, order):
    """Letters of the leaderboard tell b and c apart, but they are corrected within a column, and no pair is by them."""
    rows = [("lpips", "lower", "clips", 0.1, "", 1.0, 1.0, NAN, name, None) for name in better]
    scores, found = together(frames([rows[0]]), frames([rows[1]], run="c"))
    ranked = scores.assign(letters=scores["model"], rank=scores["model"].map({"a": 1, "b": 2, "c": 3}))
    assert verdict(ranked, found)[0] == order


def test_what_differs_without_a_better_side_is_said_of_many_models_too():
    beside = ("event_rate", "band", "clips", 6.18, "1/s", 0.002, 0.03, 30, None, None)
    sentences = verdict(*together(frames([OPEN]), frames([beside, OPEN], run="c")))
    assert sentences[:4] == [
        UNMET.replace("No difference", "No difference in quality"),
        "No difference in quality shown between a and c (2 comparisons).",
        "c differs from a in event rate (higher by 6.18 1/s or 1.3 %, p 0.03); which is better, only a reference of "
        "real clips could tell.",
        "No difference shown between a and b (1 comparison).",
    ]


def test_what_is_shown_stands_before_what_is_not():
    """The page shows five sentences and the first pair's plot: they are of what was found."""
    _, found = together(frames([OPEN]), frames([WORSE], run="c"))
    assert list(by_pair(found)) == [("c", "a"), ("b", "a")]
    assert "c is worse than a" in verdict(*together(frames([OPEN]), frames([WORSE], run="c")))[1]


def test_runs_that_were_compared_and_not_told_apart_are_said_so():
    worse_than_b = (*WORSE[:8], "b", None)
    pairs = [frames([OPEN]), frames([WORSE], run="c"), frames([worse_than_b], run="c", against="b")]
    assert verdict(*together(*pairs))[0] == "Best to worst: a and b (not told apart), then c."


def test_a_run_is_not_put_above_another_by_unlike_metrics():
    """Run b is better than a in one metric, and a better than c in another: nothing is said of b and c."""
    lpips = ("lpips", "lower", "clips", 0.1, "", 0.001, 0.002, 30, "a", None)
    sentences = verdict(*together(frames([WON]), frames([lpips], run="c")))
    assert sentences[0] == f"No clear order: b, a and c ({SOME_UNMET})."


def test_runs_that_were_not_told_apart_are_not_put_into_an_order():
    """b and a differ in nothing; only a is compared with c, so b cannot be put above or below c."""
    sentences = verdict(*together(frames([OPEN]), frames([WORSE], run="c")))
    assert sentences[0] == f"No clear order: a, b and c ({SOME_UNMET})."


def test_neighbours_that_win_some_metrics_each_have_no_order():
    other = ("lpips", "lower", "clips", -0.1, "", 0.001, 0.002, 30, "c", None)
    sentences = verdict(*together(frames([WON]), frames([other, WORSE], run="c")))
    assert sentences[0] == "Best to worst: b, then a and c (each is ahead in some metrics)."
    assert sentences[2] == (
        "c is worse than a in 1 of 2 comparisons: fvd (higher by 220 or 46 %, p 0.002); it is better in 1: lpips "
        "(lower by 0.1 or 0.021 %, p 0.002)."
    )


def test_one_run_is_not_compared():
    scores, found = frames([WON])
    (sentence,) = verdict(scores[scores["model"] == "b"], found[:0])
    assert sentence == "b on s: the table has its numbers. Give a second model to compare it with."


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (WON, 1200.0),
        (OPEN, -0.1),
        (("sync_excess", "higher", "clips", 0.2, "", 0.2, 0.2, 3, None, None), 2.0),
        (("x", "neither", "clips", -0.2, "", 0.2, 0.2, 3, None, None), -2.0),
    ],
)
def test_an_effect_is_in_units_of_the_smallest_detectable_one_and_positive_where_the_run_is_better(row, expected):
    _, found = frames([row])
    assert effect(next(found.itertuples())) == pytest.approx(expected)


def test_where_any_difference_could_be_detected_the_effect_is_without_bound():
    _, found = frames([WON])
    assert effect(next(found.assign(detectable=NAN).itertuples())) == float("inf")
    assert effect(next(found.assign(detectable=NAN, difference=0.0).itertuples())) == 0
    assert pd.isna(effect(next(frames([SILENT])[1].itertuples())))


def test_an_open_comparison_of_arms_names_the_trainings_or_prompts_that_would_settle_it():
    scores, found = frames([OPEN])
    sizes = {"trainings": 5, "trainings_against": 3, "needed_trainings": 12.0, "needed_prompts": 400.0, "least_p": 0.1}
    arms = found.drop(columns="needed").assign(**sizes)
    assert arm_verdict(scores, arms, ["Not paired."]) == [
        "No difference shown between a and b (3 to 5 trainings per arm, 23 prompts, 1 comparison).",
        "In warping error, distances from the reference's value are compared, not the values themselves.",
        "Closest to a clear result is warping error: about 12 trainings per arm or about 400 prompts would show its "
        "difference, if the true one is as large as the one seen.",
        "Not paired.",
        "With so few trainings the exact test, which relabels whole trainings, cannot give a p below 0.1; p and "
        "intervals here are Student's t over trainings and prompts.",
    ]
    few = {"needed_trainings": 4.0, "needed_prompts": 20.0}
    assert "is warping error: about 4 trainings per arm would show" in arm_verdict(scores, arms.assign(**few), [])[2]
    few = {"needed_trainings": 3.0, "needed_prompts": 400.0}
    assert "is warping error: about 400 prompts would show" in arm_verdict(scores, arms.assign(**few), [])[2]
    scores, found = frames([OPEN, FAR])  # the smaller study: twice the trainings, though 20 times the prompts
    needed = {"needed_trainings": [12.0, 6.0], "needed_prompts": [390.0, 460.0]}
    sentences = arm_verdict(scores, found.drop(columns="needed").assign(**sizes | needed), [])
    assert any("is motion amount: about 6 trainings per arm or about 460 prompts" in one for one in sentences)
    neither = arms.assign(needed_trainings=NAN, needed_prompts=NAN, least_p=0.01)
    assert len(arm_verdict(scores, neither, [])) == 2


FEW = "4 prompts: too few to show a difference, at least 6 are needed"


def test_few_prompts_are_no_comparison_whatever_their_p():
    won = ("lpips", "lower", "clips", -0.1, "", 0.001, 0.002, 30, None, None, FEW)
    assert verdict(*frames([won])) == [
        "Nothing could be compared between a and b.",
        "1 metric could not be compared: only 4 prompts of at least 6 (1).",
    ]
    scores, found = together(frames([won]), frames([won], run="c"))
    ranked = scores.assign(letters=scores["model"].map({"a": "a", "b": "b", "c": "c"}), rank=[1, 2, 3])
    assert verdict(ranked, found)[0] == NONE_MADE, "letters of few prompts order nothing"


def test_one_run_without_a_value_says_so():
    scores, found = frames([WON])
    (sentence,) = verdict(scores[scores["model"] == "b"].assign(n=0), found[:0])
    assert sentence == "b on s: no metric has a value."


def test_one_run_is_judged_by_the_metric_that_has_most_clips():
    scores, found = frames([WON, OPEN])
    (sentence,) = verdict(scores[scores["model"] == "b"].assign(n=[0, 6]), found[:0])
    assert sentence == "b on s: the table has its numbers. Give a second model to compare it with."


def test_an_early_look_at_six_prompts_says_what_is_seen():
    _, found = frames([WON, OPEN])
    assert preliminary(found, 5, 24) == (
        "Preliminary, after 5 of 24 prompts: these are too few prompts to see a difference; 6 are the least."
    )
    assert preliminary(found, 6, 24).startswith(
        "Preliminary, after 6 of 24 prompts: b is ahead so far in fvd (1 of 2 comparisons). Not settled"
    )


def test_one_run_of_few_clips_allows_no_conclusion():
    scores, found = frames([WON])
    (sentence,) = verdict(scores[scores["model"] == "b"].assign(n=4), found[:0])
    assert sentence == (
        "b on s: the table has its numbers. Numbers of 4 clips allow no conclusion: at least 6 prompts are needed."
    )


def marks(rows, *pairs):
    scores, found = together(frames(rows), *pairs)
    return {row.model for row, mark in zip(scores.itertuples(), ahead(scores, found), strict=True) if mark}


def test_a_table_marks_what_the_verdict_calls_better_and_nothing_else():
    assert marks([WON]) == {"b"}
    assert marks([OPEN]) == marks([SILENT]) == set()
    assert marks([WON], frames([WORSE], run="c")) == {"b"}, "a is better than c, and worse than b"
    assert marks([WORSE]) == {"a"}
    alike = (*WON[:8], None, None)
    assert marks([WON], frames([alike], run="b", against="c")) == {"b"}, "not told apart from c, so worse than none"
    scores, found = frames([WON])
    assert not ahead(scores, found[:0]).any()


def test_one_reason_of_several_runs_is_said_once():
    unable = "flow cannot measure any of the 24 clips: nothing moves"
    frame, found = together(*(frames([("event_rate", *SILENT[1:-1], unable)], run=run) for run in "bc"))
    frame["missing"] = frame["model"].map({"a": None, "b": unable, "c": unable})
    assert verdict(frame, found)[-1] == ("2 comparisons could not be made: no clip of b and c can be measured (2).")
    frame["missing"] = frame["model"].map({"a": None, "b": "the clip was not measured (24 of 24 clips)"})
    found["missing"] = [frame["missing"].dropna().iloc[0], unable]
    assert "the clip was not measured in b (1)" in verdict(frame, found)[-1]


def test_where_not_all_pairs_have_too_few_clips_those_are_named():
    few = ("lpips", "lower", "clips", -0.1, "", 0.001, NAN, 30, None, None, FEW)
    pairs = [frames([few, OPEN], run="b"), frames([few], run="c"), frames([OPEN], run="d")]
    said = "2 comparisons could not be made: only 4 prompts of at least 6"
    assert verdict(*together(*pairs))[-1] == f"{said}, between a and b and between a and c (2)."
    assert verdict(*together(*pairs[:2]))[-1] == f"{said} (2).", "all pairs have"
    assert verdict(*together(pairs[0], frames([SILENT], run="c")))[-1] == (
        "2 comparisons could not be made: only 4 prompts of at least 6, between a and b (1), a has no sound (1)."
    )


def test_the_most_frequent_reason_comes_first():
    rows = [SILENT, ALONE, ("fad", *ALONE[1:])]
    sentences = verdict(*frames(rows))
    assert sentences[1] == "3 metrics could not be compared: no reference (2), a has no sound (1)."


def test_no_run_is_named_for_what_every_run_lacks():
    unable = "flow cannot measure any of the 24 clips: nothing moves"
    rows = [("event_rate", *SILENT[1:-1], unable), ("sync_excess", *SILENT[1:-1], unable)]
    frame, found = frames(rows)
    frame["missing"] = [
        None if (row.model, row.metric) == ("a", "event_rate") else unable for row in frame.itertuples()
    ]
    assert verdict(frame, found)[-1] == (
        "2 metrics could not be compared: no clip of b can be measured (1), no clip can be measured (1)."
    )


def test_a_p_beside_its_level_does_not_look_like_it():
    assert [p_value(one) for one in (0.04953, 0.0504, 0.05, 0.04, 0.0512, 0.0004)] == [
        "0.0495", "0.0504", "0.05", "0.04", "0.051", "below 0.001",
    ]  # fmt: skip


def test_percentages_have_no_exponents():
    assert [percent(one) for one in (0.012, 0.674, 1.31, 12.5)] == ["1.2 %", "67 %", "131 %", "1250 %"]


def test_clips_that_are_the_reference_itself_are_said_with_the_answer():
    frame, found = frames([WON])
    frame = frame.assign(shared=frame["model"].map({"a": 0, "b": 23}), n=23)
    words = (
        "All 23 clips of b are in the reference itself, so it is near the reference by that alone: numbers that rest"
    )
    assert any(sentence.startswith(words) for sentence in verdict(frame, found))
    assert not any("in the reference" in sentence for sentence in verdict(frame.assign(shared=0), found))
    frame, found = frames([WON, OPEN])  # of a metric that measures fewer clips, fewer are shared
    part = verdict(frame.assign(shared=[0, 7, 0, 5], n=[23, 23, 23, 20]), found)
    assert (
        "7 of 23 clips of b are in the reference itself, which brings it nearer to the reference by that alone." in part
    )
    one = verdict(frame.assign(shared=[0, 1, 0, 0], n=23), found)
    assert any(sentence.startswith("1 of 23 clips of b is in the reference itself, ") for sentence in one)


def test_only_metrics_that_are_compared_can_show_a_difference():
    scores = pd.DataFrame({"subset": "s", "metric": "kvd", "missing": [NO_REFERENCE]})
    names = ["motion_amount", "onset_rate"]  # one run has no sound
    names.append("warping_error")  # of too few clips
    numbers = {"difference": [0.1, NAN, 0.1], "p": [0.2, NAN, 0.3], "too_few": [None, None, "n = 3: too few"]}
    found = pd.DataFrame({"subset": "s", "metric": names, "direction": "band", **numbers})
    (said,) = without_reference(scores, found)
    assert "kvd has no value, and 1 metric that should match real clips can show a difference, but not which" in said
