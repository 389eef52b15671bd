"""How far metrics agree with voters: what counts, what is left out, and known tastes found again."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import run_avbench
from made_runs import evaluated, made_run
from scipy import stats

from avbench.comparison import agreement, preferences
from avbench.comparison.differences import Side
from avbench.core import Direction, InputError, Key, Prompt, Run, Sample, Subset, digest
from avbench.metrics.table import known_metrics
from avbench.report.agreements import agreement_tables
from avbench.statistics import paired, uncertainty
from avbench.storage.runs.folder import RunFolder, named_apart
from avbench.storage.runs.view import RunView

ROOT = Path(__file__).parents[1]
HEAD = "prompt,clip_a,clip_b,choice,rater\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("voted")
    near, far = made_run(place / "near", seed=1), made_run(place / "far", seed=2, lpips=0.05)
    return [RunView(evaluated(folder).path) for folder in (near, far)]


def prompts_of(run, subset="toy-control"):
    (found,) = (one for one in run.subsets() if one.name == subset)
    return found.prompts


def votes_of(rows):
    """Votes as a frame; a row is (prompt, rater, choice of the left clip)."""
    frame = pd.DataFrame(rows, columns=["prompt", "rater", "choice"])
    return frame.assign(subset="s", seed=0, left="a", right="b"), frame["choice"].to_numpy(dtype=float)


def judged(rows, prefers):
    votes, choice = votes_of(rows)
    return agreement.table(votes, choice, {"m": prefers}).set_index("judge")


def test_a_metric_prefers_the_better_side_and_ties_where_values_are_equal():
    left, right = np.array([1.0, 2.0, 3.0, np.nan]), np.array([2.0, 2.0, 1.0, 1.0])
    for direction, expected in ((Direction.HIGHER, [0, 0.5, 1]), (Direction.LOWER, [1, 0.5, 0])):
        found = agreement.prefers(left, right, direction)
        assert list(found[:3]) == expected
        assert np.isnan(found[3])
    band = agreement.prefers(np.array([0.9, 3.0, -3.0]), np.array([2.0, 1.2, 1.2]), Direction.BAND, targets=1.0)
    assert list(band) == [1, 0, 0], "nearer, from whichever side"
    assert np.isnan(agreement.prefers(left, right, Direction.BAND)).all()
    rounded = np.array([0.1 + 0.2, 3e8, 0.3001]), np.array([0.3, 3e8 + 1e-7, 0.3])
    assert list(agreement.prefers(*rounded, Direction.HIGHER)) == [0.5, 0.5, 1], "rounding prefers nothing"
    near = agreement.prefers(*rounded, Direction.BAND, targets=0.3)
    assert list(near) == [0.5, 0.5, 0], "nor where the values lie on the reference's, as one does here"


def test_votes_for_neither_are_left_out_and_ties_of_the_metric_count_half():
    row = judged(
        [("p", "u", 1), ("q", "u", 0), ("r", "u", 0.5), ("t", "u", 1), ("w", "u", 1)],
        np.array([1, 1, 1, 0.5, np.nan]),
    ).loc["m"]
    assert row["accuracy"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert (row["votes"], row["equal"], row["unmeasured"]) == (3, 1, 1)
    missing = "no clear vote is on clips that both have a value of it"
    assert judged([("p", "u", 1)], np.array([np.nan])).loc["m", "missing"] == missing
    assert judged([("p", "u", 0.5)], np.ones(1)).loc["m", "missing"] == "there is no clear vote"


def test_a_note_counts_one_vote_and_several():
    rows = [(name, "u", 1) for name in "pqrst"]
    frame = judged(rows, np.array([1, 0.5, np.nan, np.nan, 1])).reset_index().assign(subset="s", p_holm=1.0)
    (table,) = agreement_tables(frame)
    assert "1 vote is on clips to which it gives the same value; 2 votes are on clips of which" in table.notes[0]


def test_people_are_compared_with_each_other_on_the_same_clips():
    rows = [("p", "u", 1), ("p", "v", 1), ("p", "w", 0), ("q", "u", 0), ("q", "v", 0), ("r", "u", 1), ("q", "w", 0.5)]
    found = judged(rows, np.ones(7))
    # p: u and v agree with 1 of 2 others, w with none; q: both with the other; r: nobody to compare with.
    assert found.loc[agreement.PERSON, "accuracy"] == pytest.approx((0.5 + 0.5 + 0 + 1 + 1) / 5)
    # The others of p are split for u and v, and both against w.
    assert found.loc[agreement.MAJORITY, "accuracy"] == pytest.approx((0.5 + 0.5 + 0 + 1 + 1) / 5)
    assert found.loc[agreement.PERSON, "votes"] == 5
    assert found.loc[agreement.MAJORITY, "equal"] == 0, "of people, no clips have one value"
    votes, choice = votes_of([("p", rater, rater != "x") for rater in "uvwx"])
    answer = agreement.verdict(agreement.table(votes, choice, {}), votes.assign(vote="left"))
    assert "agree in 50% of clear votes, and the majority of the others predicts a vote in 75%: " in answer[1]
    votes, choice = votes_of([("p", "u", 0.5), ("p", "v", 0.5)])
    answer = agreement.verdict(agreement.table(votes, choice, {"m": np.ones(2)}), votes.assign(vote="tie"))
    assert "no two raters made a clear choice between the same two clips" in answer[1], "they judged the same clips"
    alone = judged([("p", "u", 1), ("q", "u", 1)], np.ones(2))
    assert "no two raters" in alone.loc[agreement.PERSON, "missing"]
    votes, choice = votes_of([("p", "u", 1), ("p", "v", 0)])
    for column, values in (("seed", [0, 1]), ("subset", ["s", "t"])):
        (missing,) = agreement.table(votes.assign(**{column: values}), choice, {})["missing"].unique()
        assert "no two raters" in missing, "a clip of another seed or subset is another clip"


def test_sides_do_not_matter_to_people():
    votes, choice = votes_of([("p", "u", 1), ("p", "v", 0)])
    votes.loc[1, ["left", "right"]] = ["b", "a"]
    found = agreement.table(votes, choice, {}).set_index("judge")
    assert found.loc[agreement.PERSON, "accuracy"] == 1


def test_votes_that_repeat_on_a_prompt_do_not_narrow_the_interval():
    random = np.random.default_rng(0)
    once = (random.random(30) < 0.8).astype(float)
    prompts = np.arange(30)
    assert uncertainty.share_interval(np.repeat(once, 4), np.repeat(prompts, 4)) == pytest.approx(
        uncertainty.share_interval(once, prompts)
    )
    low, high = uncertainty.share_interval(np.ones(20), np.arange(20))
    assert high == 1
    assert 0.7 < low < 0.9
    assert uncertainty.share_interval(np.ones(3), ["p"] * 3) is None
    two = uncertainty.share_interval(np.array([1.0, 0, 0] * 2), ["p"] * 3 + ["q"] * 3)
    assert two[0] < 0.01 and two[1] > 0.99, "two prompts of one share, whatever rounding makes of it"


def wilson(share, count, prompts):
    """Wilson's interval as it is printed, with Student's t of so many prompts."""
    z = stats.t.ppf(0.975, prompts - 1)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    return pytest.approx((middle - half, middle + half))


def test_a_share_counts_as_many_votes_as_its_error_is_worth_and_no_more_than_there_are():
    prompts = np.repeat(np.arange(10), 2)
    alike = np.array([1.0, 1, 0, 0] * 5)  # both votes on a prompt are one: as ten votes less one
    assert uncertainty.share_interval(alike, prompts) == wilson(0.5, 9, 10)
    split = np.array([1.0, 0] * 8 + [1.0, 1, 0, 0])  # more even than by chance
    assert uncertainty.share_interval(split, prompts) == wilson(0.5, 20, 10)
    even, three = np.repeat([1.0, 0], [15, 7]), np.repeat(np.arange(3), 22)  # whatever rounding leaves of their error
    assert uncertainty.share_interval(np.tile(even, 3), three) == wilson(15 / 22, 3, 3)


def test_the_flip_test_is_exact_with_few_prompts():
    assert paired.flip_test(np.full(5, 0.5), list("abcde")) == pytest.approx(2 / 32)
    assert paired.flip_test(np.full(50, 0.5), ["a"] * 50) == 1
    assert paired.flip_test(np.full(40, 0.5), list(range(40))) < 0.001


def test_votes_on_one_prompt_are_one_throw_of_the_test():
    votes, choice = votes_of([(f"p{k % 8}", f"u{k // 8}", 1) for k in range(32)])
    row = agreement.table(votes, choice, {"m": np.ones(32)}).set_index("judge").loc["m"]
    assert (row["votes"], row["prompts"], row["p"]) == (32, 8, 2 / 2**8)
    assert (row["low"], row["high"]) == (wilson(1, 8, 8).expected[0], 1.0)


def test_an_agreement_that_the_number_of_metrics_explains_is_not_shown():
    votes, choice = votes_of([(f"p{k}", "u", 1) for k in range(60)])
    chance = {f"m{k}": np.tile([0.0, 1.0], 30) for k in range(8)}
    found = agreement.table(votes, choice, {"some": np.repeat([1.0, 0.0], [40, 20]), **chance})
    row = found.set_index("judge").loc["some"]
    assert 0.01 < row["p"] < 0.05 < row["p_holm"]
    first = agreement.verdict(found, votes.assign(vote="left"))[0]
    assert first == "No metric is shown to agree with the voters more often than chance."


def test_holm_counts_every_metric():
    votes, choice = votes_of([(f"p{k}", "u", 1) for k in range(60)])
    chance = {f"m{k}": np.tile([0.0, 1.0], 30) for k in range(8)}
    metrics = {"good": np.ones(60), **chance, "unable": "it has no value of a single clip"}
    found = agreement.table(votes, choice, metrics).set_index("judge")
    assert found.loc["good", "p_holm"] == pytest.approx(9 * found.loc["good", "p"])
    assert found.index[0] == "good"
    sentences = agreement.verdict(found.reset_index(), votes.assign(vote="left"))
    assert sentences[0] == "1 of 9 metrics agrees with the voters more often than chance: good 100%."
    assert "not known" in sentences[1]


@pytest.mark.parametrize(
    ("raters", "best"),
    [(7, "about the best that a metric can reach"), (6, "higher, because a majority of fewer than 7")],
)
def test_the_answer_names_three_metrics_what_can_be_reached_and_what_was_counted(raters, best):
    votes, choice = votes_of([(f"p{k}", f"u{rater}", 1) for k in range(20) for rater in range(raters)])
    votes["vote"] = ["tie", "tie", "tie", *["left"] * (len(votes) - 3)]
    choice[:3] = 0.5
    metrics = {f"m{k}": np.ones(len(votes)) for k in range(4)} | {"worse": np.zeros(len(votes))}
    first, second, third, last = agreement.verdict(agreement.table(votes, choice, metrics), votes)
    assert first == "4 of 5 metrics agree with the voters more often than chance: m0 100%, m1 100%, m2 100%."
    assert second == "People prefer the clip that these call worse: worse."
    assert third.startswith(
        "Two people agree in 100% of clear votes, and the majority of the others predicts a vote in"
    )
    assert best in third
    assert last == (
        f"{20 * raters} votes of {raters} raters on 20 prompts; 3 for neither clip are left out of the accuracy."
    )


@pytest.mark.parametrize(
    ("of_a_pair", "best"),
    [(7, "about the best that a metric can reach"), (3, "higher, because a majority of fewer than 7")],
)
def test_what_can_be_reached_depends_on_the_raters_of_a_pair_not_on_all_of_a_study(of_a_pair, best):
    rows = [(f"p{k}", f"u{k}-{rater}", 1) for k in range(20) for rater in range(of_a_pair)]
    votes, choice = votes_of([*rows, ("q", "alone", 1)])
    sentence = agreement.verdict(agreement.table(votes, choice, {}), votes.assign(vote="left"))[1]
    assert sentence.endswith(f"{best} raters errs as well." if of_a_pair < 7 else f"{best}.")


def study(runs, tmp_path, choices):
    """A preference file on all prompts of toy-control and toy-object-contact; the choice is for the near run."""
    rows = []
    for subset in ("toy-control", "toy-object-contact"):
        for prompt in prompts_of(runs[0], subset):
            clips = [f"x/{name}/{subset}/{prompt.id}-0.mp4" for name in ("near", "far")]
            rows += [f"{prompt.id},{clips[0]},{clips[1]},{choice},{rater}" for rater, choice in choices.items()]
    path = tmp_path / "study.csv"
    path.write_text(HEAD + "\n".join(rows) + "\n")
    return path


def test_runs_are_judged_by_every_metric_and_subset(runs, tmp_path):
    voted = agreement.read([study(runs, tmp_path, {"u": "a", "v": "a", "w": "same"})], runs)
    assert not voted.left_out
    found = agreement.agreement(voted.votes, runs).set_index(["subset", "judge"])
    lpips = found.loc[agreement.ALL, "lpips_consecutive"]  # should match the reference, which near does
    assert lpips["accuracy"] == 1
    assert lpips["votes"] == 4 * len(prompts_of(runs[0]))
    assert found.loc[("toy-control", "lpips_consecutive"), "p_holm"] < 0.05
    assert set(found.index.get_level_values("subset")) == {agreement.ALL, "toy-control", "toy-object-contact"}
    assert found.loc[(agreement.ALL, agreement.MAJORITY), "accuracy"] == 1


def test_every_two_of_the_runs_must_be_comparable_in_whatever_order_they_are_given(tmp_path):
    """One does not say its steps, so it differs from neither of the others, which differ from each other."""
    steps = {"unsaid": {}, "few": {"steps": 25}, "many": {"steps": 50}}
    made = [made_run(tmp_path / name, settings=one, names=["toy-control"], count=3) for name, one in steps.items()]
    runs = [RunView(evaluated(folder, "lpips_consecutive").path) for folder in made]
    rows = [f"{prompt.id},few,many,a,u" for prompt in prompts_of(runs[0])[:3]]
    (tmp_path / "study.csv").write_text(HEAD + "\n".join(rows))
    votes = agreement.read([tmp_path / "study.csv"], runs).votes
    for order in itertools.permutations(runs):
        with pytest.raises(InputError, match=r"few and of many|many and of few") as refused:
            agreement.agreement(votes, order)
        assert "--allow sampling.steps" in str(refused.value)
    found = agreement.agreement(votes, runs, allow=["sampling.steps"]).set_index("judge")
    assert found.loc["lpips_consecutive", "votes"] == 3
    with pytest.raises(InputError, match=r"these runs have no field 'sampling\.stepz'"):
        agreement.agreement(votes, runs, allow=["sampling.stepz"])


def test_a_run_without_values_hides_no_reference(runs, tmp_path, monkeypatch):
    class Held(Side):
        """A run held against a reference, in which nothing of `far` could be measured."""

        def __init__(self, folder, metrics):
            super().__init__(folder, metrics)
            self.scores = {where: replace(score, reference=0.1) for where, score in self.scores.items()}
            if self.made.name == "far":
                self.values = {}

    (tmp_path / "study.csv").write_text(HEAD + f"{prompts_of(runs[0])[0].id},near,far,a,u")
    votes = agreement.read([tmp_path / "study.csv"], runs).votes
    monkeypatch.setattr(agreement, "Side", Held)
    found = agreement.agreement(votes, runs, metrics=["lpips_consecutive"]).set_index("judge")
    assert "reference" not in found.loc["lpips_consecutive", "missing"]
    assert found.loc["lpips_consecutive", "unmeasured"] == 1


def test_of_runs_held_against_two_references_a_band_metric_prefers_no_clip(runs, tmp_path, monkeypatch):
    class Held(Side):
        def __init__(self, folder, metrics):
            super().__init__(folder, metrics)
            own = {"near": 0.1, "far": 0.2}[self.made.name]
            self.scores = {where: replace(score, reference=own) for where, score in self.scores.items()}

    (tmp_path / "study.csv").write_text(HEAD + f"{prompts_of(runs[0])[0].id},near,far,a,u")
    votes = agreement.read([tmp_path / "study.csv"], runs).votes
    monkeypatch.setattr(agreement, "Side", Held)
    found = agreement.agreement(votes, runs, metrics=["lpips_consecutive"]).set_index("judge")
    assert np.isnan(found.loc["lpips_consecutive", "accuracy"]) and found.loc["lpips_consecutive", "unmeasured"] == 1


def test_without_a_reference_a_band_metric_says_why_it_prefers_nothing(runs, tmp_path, monkeypatch):
    class Bare(Side):
        def __init__(self, folder, metrics):
            super().__init__(folder, metrics)
            self.scores = {where: replace(score, reference=None) for where, score in self.scores.items()}

    (tmp_path / "study.csv").write_text(HEAD + f"{prompts_of(runs[0])[0].id},near,far,a,u")
    votes = agreement.read([tmp_path / "study.csv"], runs).votes
    monkeypatch.setattr(agreement, "Side", Bare)
    found = agreement.agreement(votes, runs, metrics=["lpips_consecutive"]).set_index("judge")
    assert found.loc["lpips_consecutive", "missing"] == (
        "its better side is the reference's value, and there is none for these clips"
    )


def test_metrics_that_cannot_prefer_a_clip_say_why():
    known = known_metrics()
    assert "sets of clips" in agreement.unable(known["fvd"])
    assert "neither side" in agreement.unable(known["sync_lag"])
    assert agreement.unable(known["warping_error"]) is None


def test_rows_are_mapped_by_run_by_file_and_by_caption(runs, tmp_path):
    prompt = prompts_of(runs[0], "toy-object-contact")[0]
    lines = [
        {"prompt": prompt.id, "clip_a": "near", "clip_b": "far", "choice": "A", "rater": "u"},
        {"prompt": f" {prompt.video_caption} ", "clip_a": "far", "clip_b": "near", "choice": "b", "rater": 2},
        {"prompt": "", "clip_a": f"near/{prompt.id}.mp4", "clip_b": f"far\\{prompt.id}-0.webm", "choice": "same"},
    ]
    path = tmp_path / "study.jsonl"
    path.write_text("\n".join(json.dumps({"rater": None, "subset": "toy-object-contact"} | line) for line in lines))
    votes = preferences.read([path], runs).votes
    assert list(votes["prompt"]) == [prompt.id] * 3
    assert list(votes["vote"]) == ["left", "right", "tie"]
    assert list(votes["left"]) == ["near", "far", "near"]
    assert list(votes["rater"])[:2] == ["u", "2"]
    assert "line 3" in list(votes["rater"])[2]


def drawn_run(place, failed=()):
    """Two subsets with one prompt in common and two seeds, of which some clips could not be made."""
    prompts = {"one": ("v1.2", "cat"), "two": ("cat",)}
    subsets = [Subset(name, 1, [Prompt(prompt, prompt) for prompt in of], None) for name, of in prompts.items()]
    folder = RunFolder(place)
    folder.start(Run(place.name, "made:up", {}, {one.name: one.digest for one in subsets}, (0, 1), {}, {}), subsets)
    for key in sorted(folder.planned_keys()):
        if key in failed:
            folder.add_sample(Sample(key, None, None, 0.0, "no memory"))
        else:
            folder.add_sample(Sample(key, f"clips/{key.prompt}-{key.seed}.mkv", digest([place.name, *key]), 0.0))
    return RunView(folder.path)


def test_a_row_means_the_clip_that_its_path_subset_and_seed_name(tmp_path):
    runs = [drawn_run(tmp_path / "near"), drawn_run(tmp_path / "far", failed=[Key("one", "v1.2", 1)])]
    rows = [
        (",far/near/two/cat-0.mp4,near/far/two/cat-0.mp4,a,u,,", ("two", "cat", 0)),  # the last folder is the run
        (",near/one/cat-1,far/one/cat-1,a,u,,", ("one", "cat", 1)),
        (",near/cat-1.mp4,far/cat-1.mp4,a,u,two,", ("two", "cat", 1)),
        ("v1.2,near/v1.2,far/v1.2,a,u,,0", ("one", "v1.2", 0)),  # .2 is no suffix
        ("cat,near,far,a,v,one,0", ("one", "cat", 0)),
        ("cat,near,far,a,w,one,", "several pairs of clips fit"),
        ("v1.2,near/v1.2-1.mp4,far/v1.2-1.mp4,a,w,,", "a name is neither a run (near, far) nor a clip of one"),
    ]
    path = tmp_path / "study.csv"
    path.write_text(HEAD.strip() + ",subset,seed\n" + "\n".join(row for row, _ in rows))
    found = preferences.read([path], runs)
    mapped = [expected for _, expected in rows if isinstance(expected, tuple)]
    assert list(found.votes[["subset", "prompt", "seed"]].itertuples(index=False, name=None)) == mapped
    assert list(found.votes["left"].unique()) == ["near"]
    for sentence, expected in zip(found.left_out, [one for _, one in rows if isinstance(one, str)], strict=True):
        assert f"1 of 7, because {expected}" in sentence


def test_the_folders_of_a_path_tell_runs_of_one_name_apart(tmp_path):
    runs = [drawn_run(tmp_path / place / "a") for place in ("new", "old")]
    named_apart(runs)
    path = tmp_path / "study.csv"
    path.write_text(
        f"{HEAD.strip()},subset,seed\n,new/a/v1.2-0.mkv,x/old/a/clips/v1.2-0.mkv,a,u,,\nv1.2,a/v1.2,a/v1.2,a,u,,0"
    )
    found = preferences.read([path], runs)
    assert found.votes[["left", "right"]].to_numpy().tolist() == [["new-a", "old-a"]]
    assert "1 of 2, because several pairs of clips fit; write run/file (the runs: new-a, old-a), " in found.left_out[0]


def test_rows_that_cannot_be_mapped_are_counted_with_the_reason(runs, tmp_path):
    one, other = (prompt.id for prompt in prompts_of(runs[0])[:2])
    rows = [
        (one, f"near/toy-control/{one}.mp4", f"far/toy-control/{one}.mp4", "a", "u"),
        (one, f"far/toy-control/{one}.mp4", f"near/toy-control/{one}.mp4", "a", "u"),
        (one, "near", "unknown.mp4", "a", "u"),
        (one, "near", "elsewhere.mp4", "b", "u"),
        ("no prompt of it", "near", "far", "a", "u"),
        (one, f"near/toy-control/{one}.mp4", f"far/toy-control/{other}.mp4", "a", "u"),
        (other, f"near/toy-control/{one}.mp4", f"far/toy-control/{one}.mp4", "a", "v"),
        (one, f"near/toy-control/{one}.mp4", f"near/toy-control/{one}.mp4", "a", "v"),
    ]
    path = tmp_path / "study.csv"
    path.write_text(HEAD + "\n".join(",".join(row) for row in rows))
    found = preferences.read([path], runs)
    assert len(found.votes) == 1 and agreement.read([path], runs).left_out == found.left_out
    message = " ".join(found.left_out)
    for part in (
        "1 of 8, because the same rater judged the same two clips in an earlier line (first in line 3",
        "2 of 8, because a name is neither a run (near, far) nor a clip of one (first in line 4, 'near' and 'unknown",
        "the run has no clip of the prompt",
        "not of the same prompt and seed",
        "of another prompt than the row",
        "both clips are of one run",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prompt,clip_a,clip_b,choice\n", "no column 'rater'"),
        (HEAD + "p,near,far,left,u\n", "line 2: the column 'choice' is 'left'; choices: a, b, same"),
        ("", "line 1 has no column 'prompt'; it is empty"),
        (HEAD + '"p', "line 2: a text in quotes has no closing quote"),
        (HEAD + "p,near,x,a,u\n", "no vote is left"),
        (HEAD + "p,near,far,a,u,more\n", "6 cells"),
    ],
)
def test_bad_files_are_refused(runs, tmp_path, content, message):
    path = tmp_path / "study.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        agreement.read([path], runs)


def test_a_file_needs_runs_and_a_known_suffix(runs, tmp_path):
    (tmp_path / "study.csv").write_text(HEAD + "p,near,far,a,u\n")
    with pytest.raises(InputError, match="--run"):
        agreement.read([tmp_path / "study.csv"], [])
    with pytest.raises(InputError, match=r"votes.tsv is no file of votes, by its suffix: a page exports .json"):
        agreement.read([tmp_path / "votes.tsv"], runs)


def test_the_command_prints_the_answer_first(runs, tmp_path):
    path = study(runs, tmp_path, {"u": "a", "v": "a"})
    command = ["votes", path, *(part for run in runs for part in ("--run", run.path))]
    done = run_avbench(*command, code=None)
    assert done.exit_code == 0, done.output
    assert "1 of 2 metrics agrees with the voters more often than chance: lpips_consecutive 100%." in done.output
    assert done.output.index("agrees") < done.output.index("all subsets") < done.output.index("Bradley")
    markdown = run_avbench(*command, "--format", "md", code=None).output
    assert "| lpips_consecutive | **100.0%" in markdown
    rows = json.loads(run_avbench(*command, "--format", "json", code=None).stdout)
    assert {row["judge"] for row in rows} >= {"lpips_consecutive", agreement.PERSON}
    exported = {"subset": "toy-control", "prompt": prompts_of(runs[0])[0].id, "seed": 0, "left": "near"}
    ballot = {"avbench_votes": 2, "seed": 1, "runs": ["near", "far", "gone"], "subsets": {}}
    ballot["votes"] = [exported | {"right": right, "vote": "left", "conformed": {}} for right in ("gone", "far")]
    (tmp_path / "votes.JSON").write_text(json.dumps(ballot))
    both = run_avbench(*command, tmp_path / "votes.JSON")
    assert "1 of 98 votes are on runs that were not given: gone." in " ".join(both.output.split())


@pytest.mark.statistical
def test_a_known_taste_is_found_again_and_intervals_cover_it(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.vote_studies import Study, found

    for noise in (0.3, 1.5):
        one = found(Study(40, noise), studies=300)
        assert one.mean == pytest.approx(one.truth, abs=0.01)
        assert 0.92 < one.covered < 0.98
        assert one.shown > 0.5
    pure = found(Study(40, np.inf), studies=300)
    assert pure.truth == pytest.approx(0.5, abs=0.01)
    assert pure.shown < 0.08
