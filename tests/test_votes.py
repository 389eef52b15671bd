"""Blind votes: what is refused, what is counted, and strengths against known answers."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from avbench.comparison import votes
from avbench.core import InputError

_SEEDS = itertools.count()


def ballot(*rows, runs=("a", "b", "c"), subsets=None, **changes):
    listed = [
        {"subset": "s", "prompt": prompt, "seed": 0, "left": left, "right": right, "vote": vote, "conformed": {}}
        for prompt, left, right, vote in rows
    ]
    return {
        "avbench_votes": 2,
        "seed": next(_SEEDS),
        "runs": list(runs),
        "subsets": subsets or {"s": "0" * 64},
        "votes": listed,
        **changes,
    }


def read(tmp_path, *ballots):
    paths = []
    for index, plain in enumerate(ballots):
        paths.append(tmp_path / f"votes-{index}.json")
        paths[-1].write_text(json.dumps(plain))
    return votes.read(paths)


def won(left, right, times, lost=0, tied=0, start=0):
    outcomes = ["left"] * times + ["right"] * lost + ["tie"] * tied
    return [(f"p{start + k}", left, right, vote) for k, vote in enumerate(outcomes)]


def test_strengths_of_two_are_the_odds(tmp_path):
    frame = read(tmp_path, ballot(*won("a", "b", 30, lost=10)))
    found = votes.strengths(frame)
    assert [one.run for one in found] == ["a", "b"] and votes.remarks(frame) == []
    assert found[0].value - found[1].value == pytest.approx(math.log(3))
    assert found[0].value + found[1].value == pytest.approx(0)
    # One vote a prompt: the sandwich's standard error of the log odds is sqrt(1/30 + 1/10) times sqrt(40/39).
    half = (found[0].high - found[0].low) / 2
    assert half == pytest.approx(2.0227 / 2 * math.sqrt((1 / 30 + 1 / 10) * 40 / 39), rel=1e-4)


def test_a_tie_is_half_a_win_of_either_side_and_sides_do_not_matter(tmp_path):
    tied = votes.strengths(read(tmp_path, ballot(*won("a", "b", 20, lost=4, tied=8))))
    plain = votes.strengths(read(tmp_path, ballot(*won("b", "a", 8, lost=24))))
    assert [one.value for one in tied] == pytest.approx([one.value for one in plain])


@pytest.mark.parametrize("sides", ["ab", "ba"])
def test_a_tie_contradicts_a_run_that_never_lost(tmp_path, sides):
    found = {one.run: one for one in votes.strengths(read(tmp_path, ballot(*won(*sides, 3, tied=2))))}
    assert found[sides[0]].value - found[sides[1]].value == pytest.approx(math.log(4 / 1)), "3 + 2/2 against 2/2"
    found = {one.run: one for one in votes.strengths(read(tmp_path, ballot(*won(*sides, 0, lost=3, tied=2))))}
    assert found[sides[1]].value - found[sides[0]].value == pytest.approx(math.log(4 / 1))


def test_strengths_are_found_again_and_intervals_hold_them(tmp_path):
    true = np.array([0.8, 0.0, -0.8])
    random = np.random.default_rng(0)
    held = 0
    for trial in range(40):
        rows = []
        for prompt in range(60):
            for a, b in ((0, 1), (1, 2), (2, 0)):
                better = random.random() < 1 / (1 + math.exp(true[b] - true[a]))
                rows.append((f"p{prompt}", "abc"[a], "abc"[b], "left" if better else "right"))
        found = {one.run: one for one in votes.strengths(read(tmp_path, ballot(*rows)))}
        held += sum(found[name].low <= value <= found[name].high for name, value in zip("abc", true, strict=True))
        if trial == 0:
            assert [found[name].value for name in "abc"] == pytest.approx(true, abs=0.5)
    assert 0.88 < held / 120 <= 1


def test_votes_that_repeat_on_a_prompt_do_not_narrow_the_interval(tmp_path):
    once = ballot(*won("a", "b", 12, lost=8))
    again = [
        {**ballot(*won("a", "b", 12, lost=8)), "votes": ballot(*won("a", "b", 12, lost=8))["votes"]} for _ in range(3)
    ]
    for number, each in enumerate(again):
        for vote in each["votes"]:
            vote["seed"] = number + 1
    one, repeated = votes.strengths(read(tmp_path, once)), read(tmp_path, *again)
    many = votes.strengths(repeated)
    assert votes.pairs(repeated)[["votes", "prompts"]].to_numpy().tolist() == [[60, 20]]
    assert many[0].high - many[0].low == pytest.approx(one[0].high - one[0].low)
    assert many[0].votes == 3 * one[0].votes
    for each in again[0]["votes"]:
        each["subset"] = "t"
    again[0]["subsets"] = {"t": "1" * 64}
    two = votes.strengths(read(tmp_path, once, again[0]))
    assert two[0].high - two[0].low == pytest.approx(one[0].high - one[0].low), "a prompt of two subsets is one prompt"


def test_a_prompt_with_most_of_the_votes_counts_as_fewer_prompts(tmp_path):
    """Three votes on p and one on q are 16/10 prompts: of the log odds 0 the sandwich is 1² · (1/4 + 1/4) · 16/6."""
    plain = ballot(*[("p", "a", "b", choice) for choice in ("left", "left", "right")], ("q", "a", "b", "right"))
    for seed, vote in enumerate(plain["votes"]):
        vote["seed"] = seed
    one, _ = votes.strengths(read(tmp_path, plain))
    half = stats.t.ppf(0.975, 1) * math.sqrt(16 / 12) / 2
    assert (one.value, one.low, one.high) == pytest.approx((0, -half, half))


def test_two_prompts_show_an_interval(tmp_path):
    """One vote for either: of the log odds 0 the information is 2/4, and the sandwich 2² · (1/4 + 1/4) · 2/1 = 4."""
    one, _ = votes.strengths(read(tmp_path, ballot(("p", "a", "b", "left"), ("q", "a", "b", "right"))))
    half = stats.t.ppf(0.975, 1) * math.sqrt(4) / 2  # of a strength, which is half of the log odds
    assert (one.value, one.low, one.high) == pytest.approx((0, -half, half))


def test_prompts_that_all_say_the_same_show_no_interval(tmp_path):
    both_ways = [(f"p{number}", *sides, "left") for number in range(3) for sides in (("a", "b"), ("b", "a"))]
    plain = ballot(*both_ways)
    for place, vote in enumerate(plain["votes"]):
        vote["seed"] = place % 2
    one, other = votes.strengths(read(tmp_path, plain))
    assert (one.value, one.low, one.high, other.high) == (pytest.approx(0), None, None, None)


def test_a_run_of_which_every_prompt_says_the_same_shows_no_interval(tmp_path):
    """a ties with b and c on both prompts, and b and c win one each: nothing shows how much prompts differ in a."""
    rows = [(name, "a", other, "tie") for name in "pq" for other in "bc"]
    frame = read(tmp_path, ballot(*rows, ("p", "b", "c", "left"), ("q", "b", "c", "right")))
    found = {one.run: one for one in votes.strengths(frame)}
    assert found["a"].value == pytest.approx(0) and found["a"].low is None
    assert found["b"].high - found["b"].low > 1 and found["c"].low is not None
    assert "The strengths of a have no interval" in " ".join(votes.remarks(frame))


def test_who_never_lost_or_never_met_has_a_sentence(tmp_path):
    frame = read(
        tmp_path, ballot(*won("a", "b", 5, lost=3), *won("a", "c", 4, start=50), runs=("a", "b", "c", "d", "e"))
    )
    found = {one.run: one for one in votes.strengths(frame)}
    assert found["c"].value is None and "no vote contradicts" in found["c"].missing
    assert found["a"].group == found["b"].group != found["c"].group
    assert [found[name].votes for name in "abc"] == [12, 8, 4]
    assert found["a"].value - found["b"].value == pytest.approx(math.log(5 / 3))
    assert found["a"].value + found["b"].value == pytest.approx(0), "whatever was voted on c"
    assert "b never met c." in votes.remarks(frame)
    both = ballot(*won("a", "b", 2, lost=2), *won("d", "e", 2, lost=1, start=9), runs=tuple("abde"))
    assert "cannot be compared" in votes.remarks(read(tmp_path, both))[-1]


def test_pairs_are_counted_from_the_first_runs_side(tmp_path):
    frame = read(tmp_path, ballot(*won("b", "a", 3, lost=2, tied=1), ("p0", "a", "c", "left")))
    rows = votes.pairs(frame).set_index(["run", "against"])
    assert rows.loc[("a", "b")].to_dict() == {"won": 2, "tied": 1, "lost": 3, "votes": 6, "prompts": 6}
    assert rows.loc[("a", "c"), "won"] == 1
    assert isinstance(frame, pd.DataFrame) and len(frame) == 7


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(f"p{k}", *("ab" if k % 2 else "ba"), "left") for k in range(10)], True),
        ([(f"p{k}", *("ab" if k % 2 else "ba"), "left") for k in range(9)], False),
        ([(f"p{k}", "a", "b", "left") for k in range(10)], False),  # a may be the better one
        ([(f"p{k}", *("ab" if k % 2 else "bc"), "left") for k in range(10)], False),  # and b than c
        ([(f"p{k}", *("ab" if k % 2 else "ba"), "left" if k else "right") for k in range(10)], False),
    ],
)
def test_a_rater_who_always_says_left_is_named(tmp_path, rows, said):
    honest = ballot(("p0", "a", "b", "left"), ("p1", "a", "b", "right"))
    found = votes.remarks(read(tmp_path, honest, ballot(*rows)))
    sentence = "The clip on the left was chosen in every clear vote of votes-1.json: were the clips looked at?"
    assert (sentence in found) == said
    assert not any(str(tmp_path) in one for one in found)


def test_strengths_without_an_interval_have_a_sentence(tmp_path):
    ties = votes.remarks(read(tmp_path, ballot(*[(f"p{k}", "a", "b", "tie") for k in range(4)])))
    assert ties == [
        "The strengths of a and b have no interval: their votes are on one prompt, or say the same on every prompt."
    ]


def test_what_was_done_to_stay_blind_is_counted(tmp_path):
    nothing, plain = ballot(("p0", "a", "b", "left")), ballot(("p1", "a", "b", "right"), ("p2", "a", "b", "tie"))
    for vote, done in zip(plain["votes"], ({"muted": True}, {"muted": True, "seconds": 2.0}), strict=True):
        vote["conformed"] = done
    found = votes.remarks(read(tmp_path, nothing, plain))
    assert found[-1].startswith("So that no clip was given away, of 3 votes' pairs 2 played without sound")
    assert "1 ended with the shorter clip." in found[-1] and "cropped" not in found[-1]
    assert not any("given away" in one for one in votes.remarks(read(tmp_path, nothing)))


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"votes": []}, "not a file of votes"),
        (ballot(avbench_votes=3), "is of the format 3, and this avbench reads 2: use the avbench that made its page"),
        (ballot(avbench_votes=1), "is of the format 1"),
        (ballot(("p", "a", "b", "both")), "must be one of left, tie, right"),
        (ballot(("p", "a", "x", "left")), "must be two of a, b, c"),
        (ballot(("p", "a", "a", "left")), "must be two of"),
        (ballot(("p", "a", "b", "left"), ("p", "b", "a", "left")), "voted on before"),
        (ballot(votes=[{"vote": "left"}]), "the field 'votes.0.subset' is missing"),
        (ballot(("p", ["a"], "b", "left")), "it must be a text"),
        (ballot(), "no votes"),
        (ballot(votes={}), "it must be a list"),
    ],
)
def test_bad_files_are_refused(tmp_path, plain, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, plain)


def test_a_prompt_may_be_in_two_subsets_of_one_ballot(tmp_path):
    plain = ballot(("p", "a", "b", "left"), ("p", "a", "b", "right"))
    plain["votes"][1]["subset"] = "t"
    assert len(read(tmp_path, plain)) == 2


def test_files_that_do_not_go_together_are_refused(tmp_path):
    one = ballot(("p", "a", "b", "left"))
    earlier, later = ballot(*won("a", "b", 2), seed=5), ballot(*won("a", "b", 4), seed=5)
    for twice in ((one, one), (one, {**one, "seed": 99}), (earlier, later)):
        with pytest.raises(InputError, match=r"votes-1\.json is of the same ballot as .*votes-0\.json"):
            read(tmp_path, *twice)
    with pytest.raises(InputError, match="unlike versions of s"):
        read(tmp_path, one, ballot(("p", "a", "b", "right"), subsets={"s": "1" * 64}))
    (tmp_path / "x.json").write_text("<html>")
    with pytest.raises(InputError, match=r"x\.json"):
        votes.read([tmp_path / "x.json"])
    (tmp_path / "study.csv").write_text("prompt,clip_a,clip_b,choice,rater\n")
    with pytest.raises(InputError, match=r"study\.csv is no file of votes .*`avbench votes` takes files of"):
        votes.read([tmp_path / "study.csv"])
