"""The verdict says in plain sentences what the differences show, what is open, and what could not be compared."""

import pandas as pd

from avbench.comparison.differences import TO_TARGET
from avbench.comparison.verdict import verdict

COLUMNS = [
    *("metric", "direction", "kind", "difference", "unit", "p", "p_holm", "needed", "better", "missing", "too_few")
]
NAN = float("nan")


def frames(rows, subset="s"):
    found = pd.DataFrame([(*row, None)[: len(COLUMNS)] for row in rows], columns=COLUMNS).assign(
        subset=subset, run="b", against="a", prompts=23
    )
    missing = found["missing"].notna()
    scores = [
        {"subset": row.subset, "metric": row.metric, "model": model, "missing": row.missing if model == "a" else None}
        for row in found.itertuples()
        for model in ("a", "b")
    ]
    assert missing.any() or all(score["missing"] is None for score in scores)
    return pd.DataFrame(scores), found


WON = ("fvd", "lower", "distance", -120.0, "", 0.001, 0.004, 30, "b", None)
OPEN = ("warping_error", "band", TO_TARGET, 0.01, "RGB²", 0.2, 0.8, 190.4, None, None)
FAR = ("motion_amount", "band", TO_TARGET, 0.01, "", 0.6, 1.0, 2000.0, None, None)
SILENT = ("onset_rate", "band", TO_TARGET, NAN, "", NAN, NAN, NAN, None, "the clip has no sound (23 of 23 clips)")


def test_nothing_shown_names_the_nearest_and_the_number_of_prompts_that_would_settle_it():
    assert verdict(*frames([FAR, OPEN, SILENT])) == [
        "No difference shown between b and a (23 prompts, 2 comparisons).",
        "The nearest to being shown is warping error: about 190 prompts would settle it.",
        "1 comparison could not be made: the clip has no sound in a (1).",
    ]


def test_what_is_shown_is_named_with_its_size_and_certainty():
    first, second = verdict(*frames([WON, OPEN]))
    assert first == "b is better than a in 1 of 2 comparisons: fvd (by 120, p 0.004)."
    assert second.startswith("The nearest to being shown is warping error")


def test_too_few_clips_are_no_comparison():
    small = ("kvd", "lower", "distance", -3.0, "", 0.5, 1.0, 90, None, None, "n = 6: too few for KVD")
    said = verdict(*frames([OPEN, small]))
    assert said[0] == "No difference shown between b and a (23 prompts, 1 comparison)."
    assert said[-1] == "1 comparison rests on too few clips: n = 6: too few for KVD."


def test_as_many_prompts_as_there_are_settle_nothing():
    enough = ("warping_error", "band", TO_TARGET, 0.01, "RGB²", 0.06, 0.06, 3, None, None)
    assert verdict(*frames([enough])) == ["No difference shown between b and a (23 prompts, 1 comparison)."]


def test_a_subset_is_named_where_there_are_several():
    one, other = frames([WON], "s"), frames([WON], "t")
    (sentence,) = verdict(*(pd.concat(pair, ignore_index=True) for pair in zip(one, other, strict=True)))
    assert "fvd on s (by 120, p 0.004), fvd on t" in sentence


def test_one_run_is_not_compared():
    scores, _ = frames([WON])
    (sentence,) = verdict(scores[scores["model"] == "b"], None)
    assert sentence == "b on s: the table has its numbers. Give a second one to compare it with."
