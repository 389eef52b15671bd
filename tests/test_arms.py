"""Runs grouped into arms: how they are opened and paired, what is refused, and what is found."""

import itertools
import json
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from command_line import run_avbench
from made_runs import REAL, evaluated, made_run, values_of
from statsmodels.stats.power import TTestPower

import avbench
from avbench.comparison import plan
from avbench.comparison.arm_differences import _spread, arm_differences
from avbench.comparison.arms import Arm, opened_arms, pairing, unlike_models
from avbench.comparison.differences import TO_TARGET
from avbench.comparison.power import planned_arms
from avbench.core import InputError, Row, Sample
from avbench.features.protocols import protocol_of
from avbench.report.arm_tables import value_tables
from avbench.statistics.trainings import arm_difference
from avbench.storage.runs.folder import RunFolder

METRICS = ("lpips_consecutive", "onset_rate", "motion_amount_distance")


def training(place, *, seed, motion=0.0, metrics=METRICS, count=12, **made):
    """A run whose clips have a made-up amount of motion as well."""
    folder, random = (
        made_run(place, seed=seed, names=("toy-control",), count=count, **made),
        np.random.default_rng([3, seed]),
    )
    for key, sample in folder.samples().items():
        values = {"motion_amount": 0.2 * random.random() + motion}
        folder.add_row(protocol_of("flow-dis"), Row(key, sample.sha256, values))
    return evaluated(folder, *metrics)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Three trainings of arm a; three of arm b, which changes more from frame to frame and moves otherwise."""
    folder = tmp_path_factory.mktemp("arms")
    for name, number, worse in (("a", 0, {}), ("b", 30, {"lpips": 0.01, "motion": 0.5})):
        for seed in range(3):
            training(folder / f"{name}-{seed}", seed=number + seed, **worse)
    return folder


@pytest.fixture(scope="module")
def arms(place):
    return opened_arms({"a": f"{place}/a-*", "b": [place / "b-1", place / "b-0", place / "b-2"]})


@pytest.fixture(scope="module")
def found(arms):
    return arm_differences(arms)


def test_what_differs_is_found_and_what_does_not_is_not(found):
    rows = found.differences.set_index("metric")
    worse = rows.loc["lpips_consecutive"]
    assert worse["better"] == "a" and worse["difference"] == pytest.approx(0.01, rel=0.1) and worse["low"] > 0
    assert (worse["trainings"], worse["trainings_against"], worse["prompts"]) == (3, 3, 12)
    assert worse["least_p"] == worse["p_exact"] == 0.25, "of 8 ways to swap, 2 are as far apart"
    assert rows.loc["onset_rate", "better"] is None and (rows["family"] == 3).all()


def test_the_numbers_are_those_of_the_runs_values(arms, found):
    tables = [
        np.array([folder.values().query("metric == 'onset_rate'")["value"] for folder in arm.trainings])
        for arm in reversed(arms)
    ]
    expected = arm_difference(*tables, paired_rows=True, targets=0.0)
    row = found.differences.set_index("metric").loc["onset_rate"]
    assert (row["difference"], row["p"]) == pytest.approx((expected.value, expected.p))
    assert (row["low"], row["high"]) == pytest.approx(expected.interval)
    spreads = [table.mean(1).std(ddof=1) for table in tables]
    assert (row["spread"], row["spread_against"]) == pytest.approx(spreads) and spreads[0] != spreads[1]
    parts, asked = expected.components, {"family": 3, "alpha": 0.05}
    variances = (parts.training, parts.prompt, parts.rest)
    assert [row[f"sd_{name}"] ** 2 for name in ("training", "prompt", "rest")] == pytest.approx(variances)
    needed = parts.trainings_needed(abs(expected.value), 12, **asked), parts.prompts_needed(expected.value, 3, **asked)
    np.testing.assert_array_equal(row[["needed_trainings", "needed_prompts"]].astype(float), np.array(needed, float))
    dots = found.trainings.query("metric == 'onset_rate' and arm == 'b'")
    assert list(dots["training"]) == ["b-0", "b-1", "b-2"]
    assert list(dots["value"]) == pytest.approx(list(tables[0].mean(1)))


def test_an_arm_below_the_reference_is_as_much_worse_as_one_above(place, tmp_path):
    for number in range(2):
        training(tmp_path / f"c-{number}", seed=60 + number, metrics=["lpips_consecutive"], lpips=-0.01)
    arms = opened_arms({"a": [place / "a-0", place / "a-1"], "c": f"{tmp_path}/c-*"})
    real = REAL["toy-control"]["lpips_consecutive"]
    every = [pd.concat([folder.values() for folder in arm.trainings]) for arm in arms]
    values = [one[one["metric"] == "lpips_consecutive"] for one in every]
    near, below = (abs((one["value"] - one["prompt"].map(real)).mean()) for one in values)
    (row,) = arm_differences(arms, metrics=["lpips_consecutive"]).differences.itertuples()
    assert row.difference == pytest.approx(below - near) == pytest.approx(0.01, rel=0.1) and row.better == "a"


def test_a_distance_is_one_number_per_training(arms, found):
    a, b = (
        np.array(
            [
                [next(s.value for s in folder.scores() if s.metric == "motion_amount_distance")]
                for folder in arm.trainings
            ]
        )
        for arm in arms
    )
    row = found.differences.set_index("metric").loc["motion_amount_distance"]
    expected = arm_difference(b, a, paired_rows=True)
    assert row["kind"] == "distance" and row["better"] == "a"
    assert (row["difference"], row["p"], row["dof"]) == pytest.approx((expected.value, expected.p, 2))
    assert np.isnan(row["needed_prompts"]) and np.isnan(row["sd_prompt"]) and row["prompts"] == 12
    assert row["spread"] == pytest.approx(b.std(ddof=1))


@pytest.mark.parametrize("name", ["a-1", "b-1"])
def test_a_reference_counts_only_as_it_is_for_every_training(place, tmp_path, name):
    for one in ("a-0", "a-1", "b-0", "b-1"):
        shutil.copytree(place / one, tmp_path / one)
    folder = RunFolder(tmp_path / name)
    changes = {"lpips_consecutive": {"reference": 0.5}, "motion_amount_distance": {"reference_clips": 1}}
    scores = [replace(one, **changes.get(one.metric, {})) for one in folder.scores()]
    folder.write_scores(scores, folder.evaluation().protocols, values_of(folder))
    found = arm_differences(opened_arms({arm: f"{tmp_path}/{arm}-*" for arm in "ab"}))
    rows = found.differences.set_index("metric")
    assert rows.loc["lpips_consecutive", "kind"] == "clips" and rows.loc["onset_rate", "kind"] == TO_TARGET
    assert rows.loc["motion_amount_distance", "too_few"].startswith("n = 1 in the reference: too few for")
    shown = found.scores.set_index(["model", "metric"])
    assert shown.loc[(name[0], "motion_amount_distance"), "too_few"].startswith("n = 1 in the reference")
    known = shown.xs("lpips_consecutive", level="metric")["reference"].notna()
    assert known.to_dict() == {"a": name[0] != "a", "b": name[0] != "b"}


def test_a_prompt_counts_once_whatever_the_number_of_its_clips(tmp_path):
    for arm, more in (("a", 0.0), ("b", 0.5)):
        for number in range(2):
            folder = made_run(tmp_path / f"{arm}-{number}", names=("toy-control",), count=7, seeds=(0, 1))
            for place, (key, sample) in enumerate(folder.samples().items()):
                if place == 1:  # the second clip of the first prompt has no value
                    row = Row(key, sample.sha256, None, "it is silent")
                else:
                    row = Row(key, sample.sha256, {"onset_rate": place // 2 + number + more})
                folder.add_row(protocol_of("onsets"), row)
            evaluated(folder, "onset_rate")
    found = arm_differences(opened_arms({name: f"{tmp_path}/{name}-*" for name in "ab"}))
    assert found.trainings["value"].to_list() == pytest.approx([3.0, 4.0, 3.5, 4.5]), "prompts have 0 to 6, and more"
    assert found.trainings["clips"].to_list() == [13] * 4 and found.scores["prompts"].to_list() == [7, 7]


def test_equal_trainings_have_no_spread_whatever_rounding_leaves():
    assert _spread(np.array([[11.5], [11.5 + 4e-15], [11.5]])) == 0
    assert _spread(np.array([[11.5], [11.6], [11.5]])) == pytest.approx(0.1 / 3**0.5)


def made_arm(name, *runs):
    return Arm(name, tuple(RunFolder(run) for run in runs))


def test_trainings_are_paired_by_number_else_by_order_else_not(tmp_path):
    a = made_arm("a", tmp_path / "a-1", tmp_path / "a-2")
    turned = made_arm("b", tmp_path / "b-2", tmp_path / "b-1")
    assert pairing(a, turned) == (
        [1, 0],
        "Trainings of a and b are paired by the number that their names end in (1, 2).",
    )
    order, sentence = pairing(a, made_arm("b", tmp_path / "b-1", tmp_path / "b-7"))
    assert order == [0, 1] and "in the order of their names (b-1 with a-1, and so on)" in sentence
    inner = [
        made_arm(name, *(tmp_path / f"{name}-{k}" for k in order)) for name, order in (("t2v", "01"), ("t2av", "10"))
    ]
    assert [arm.labels for arm in inner] == [[0, 1], [1, 0]] and pairing(*inner)[0] == [1, 0], "that inside counts not"
    ring = [made_arm(name, *(tmp_path / f"{name}-{k}" for k in order)) for name, order in (("a", "123"), ("b", "231"))]
    assert pairing(*ring)[0] == [2, 0, 1]
    for ends in (("low-0", "high-0"), ("0", "last")):  # one number names no training, nor does none
        order, sentence = pairing(*(made_arm(name, *(tmp_path / f"{name}-{end}" for end in ends)) for name in "ab"))
        assert order == [0, 1] and "in the order of their names" in sentence
    assert pairing(a, turned, False) == (None, "Trainings of a and b are not paired, as asked.")
    three = made_arm("c", *(tmp_path / f"c-{number}" for number in range(3)))
    assert pairing(a, three) == (None, "Trainings of a and c are not paired: there are 2 and 3.")
    with pytest.raises(InputError, match="cannot be paired: there are 2 and 3"):
        pairing(a, three, True)


def test_the_order_of_partners_decides_what_is_subtracted(arms):
    """Pairs by number and pairs by order are other differences where names are given in another order."""
    turned = Arm("b", tuple(reversed(arms[1].trainings)))
    by_number, turned_back = (arm_differences([arms[0], one]).differences for one in (arms[1], turned))
    assert by_number["error"].to_list() == pytest.approx(turned_back["error"].to_list())
    unpaired = arm_differences(arms, paired_trainings=False)
    assert not unpaired.differences["paired"].any() and unpaired.differences["least_p"].eq(2 / 20).all()


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("kind", ["clips", "distance"])
def test_what_arms_could_show_follows_from_the_components_of_their_pilots(kind, paired):
    pilot = {"subset": "s", "metric": "m", "kind": kind, "paired": paired, "error": 0.1, "prompts": 12}
    pilot |= {"spread": 0.3, "spread_against": 0.1, "trainings": 4, "trainings_against": 3}
    pilot |= {"sd_training": 0.2, "sd_prompt": 0.5, "sd_rest": 0.7}
    found = planned_arms(pd.DataFrame([pilot, pilot | {"error": np.nan}]), [5, 8], [10, 40], family=3)
    asked = [(prompts, count) for prompts in ((10, 40) if kind == "clips" else (12,)) for count in (5, 8)]
    assert [*zip(found["prompts"], found["trainings"], strict=True)] == asked, "without an error nothing is planned"
    ours, theirs = 0.3**2 / 4, 0.1**2 / 3  # squared errors of the pilots' means
    arms = 1.0 if paired else (ours + theirs) ** 2 / (ours**2 + theirs**2)
    for (prompts, count), detectable in zip(asked, found["detectable"], strict=True):
        rest = 0.7**2 / (count * prompts) if kind == "clips" else 0.0
        parts = [(0.2**2 / count + rest, arms * (count - 1))]
        if kind == "clips":
            parts += [(0.5**2 / prompts + rest, prompts - 1), (-rest, (count - 1) * (prompts - 1))]
        square = sum(variance for variance, _ in parts)
        dof = max(square**2 / sum(variance**2 / of for variance, of in parts), min(of for _, of in parts))
        effect = TTestPower().solve_power(nobs=dof + 1, alpha=0.05 / 3, power=0.8) * np.sqrt(dof + 1)
        assert detectable == pytest.approx(effect * np.sqrt(square), rel=1e-3)


def test_patterns_find_run_folders_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 1):
        made_run(tmp_path / f"a-{number}", seed=number, names=("toy-control",), count=1)
    (tmp_path / "a-3").mkdir()  # not a run
    (arm,) = opened_arms({"a": f"{tmp_path}/a-*"})
    assert [folder.path.name for folder in arm.trainings] == ["a-1", "a-2", "a-10"] and arm.labels == [1, 2, 10]
    with pytest.raises(InputError, match=r"no run folder matches .*b-\*; choices: a-1, a-10, a-2"):
        opened_arms({"b": f"{tmp_path}/b-*"})
    with pytest.raises(InputError, match=r"b has one training \(.*a-1\): how much trainings differ"):
        opened_arms({"b": tmp_path / "a-1"})
    with pytest.raises(
        InputError, match="b has no training: how much trainings differ cannot be known; give at least 2"
    ):
        opened_arms({"b": []})
    with pytest.raises(InputError, match="a-1 is in a and in b; a training counts once"):
        opened_arms({"a": f"{tmp_path}/a-*", "b": [tmp_path / "a-1", tmp_path / "a-2"]})
    with pytest.raises(InputError, match="a-1 is twice in a"):
        opened_arms({"a": [tmp_path / "a-1", f"{tmp_path}/a-*"]})
    (tmp_path / "again").symlink_to(tmp_path / "a-1")
    with pytest.raises(InputError, match="a-2 is in a and in b"):
        opened_arms({"a": f"{tmp_path}/a-*", "b": [tmp_path / "a-3/../a-2", tmp_path / "a-10"]})
    for twice in itertools.permutations(["a-1", "again"]):
        with pytest.raises(InputError, match=f"{twice[1]} is twice in a"):
            opened_arms({"a": [tmp_path / name for name in twice]})


def test_a_pattern_may_begin_at_home_or_at_the_working_folder(tmp_path, monkeypatch):
    for name in ("a-1", "a-2", "[old]/a-1", "[old]/a-2"):
        made_run(tmp_path / name, names=("toy-control",), count=1)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for given in ("a-*", "~/a-*", ["~/a-1", "a-2"]):
        (arm,) = opened_arms({"a": given})
        assert [folder.path.name for folder in arm.trainings] == ["a-1", "a-2"]
    (arm,) = opened_arms({"a": ["[old]/a-1", "[old]/a-2"]})
    assert {folder.path.parent.name for folder in arm.trainings} == {"[old]"}, "a folder of that name is no pattern"
    with pytest.raises(InputError, match="a-3 is not a run folder: it has no run"):
        opened_arms({"a": ["a-1", "a-3"]})


def test_trainings_in_folders_of_their_own_are_in_the_order_of_the_folders(tmp_path):
    for seed in (10, 2):
        made_run(tmp_path / f"seed-{seed}/run", seed=seed, names=("toy-control",), count=1)
    (arm,) = opened_arms({"a": [tmp_path / "seed-10/run", tmp_path / "seed-2/run"]})
    assert [folder.path.parent.name for folder in arm.trainings] == ["seed-2", "seed-10"] and arm.labels == [None, None]


def test_trainings_of_an_arm_must_be_alike(tmp_path, place):
    def refused(other, words):
        for order in itertools.permutations([RunFolder(place / "a-0"), other]):
            with pytest.raises(InputError, match=words):
                arm_differences([Arm("a", order), Arm("b", (RunFolder(place / "b-0"), RunFolder(place / "b-1")))])

    more = training(tmp_path / "more", seed=9, seeds=(0, 1))
    first = min(more.planned_keys()).prompt
    refused(more, rf"only more has toy-control {first}-1 \(24 clips in all\)")
    refused(
        training(tmp_path / "less", seed=9, metrics=METRICS[:2]), "only a-0 has motion_amount_distance on toy-control"
    )
    shutil.copytree(place / "a-0", tmp_path / "copy")
    refused(RunFolder(tmp_path / "copy"), "hold the same clips: they are one training")
    steps = {"unsaid": {}, "few": {"steps": 25}, "many": {"steps": 50}}
    made = [training(tmp_path / name, seed=20 + k, settings=one) for k, (name, one) in enumerate(steps.items())]
    for order in itertools.permutations(made):  # the first one differs from neither of the others
        with pytest.raises(InputError, match=r"few and of many|many and of few"):
            arm_differences([Arm("a", order), Arm("b", (RunFolder(place / "b-0"), RunFolder(place / "b-1")))])


def test_trainings_without_a_clip_are_not_called_the_same_one(tmp_path):
    for name in ("a-0", "a-1", "b-0", "b-1"):
        run = made_run(tmp_path / name, names=("toy-control",), count=0)
        for key in run.planned_keys():
            run.add_sample(Sample(key, None, None, 0.0, failure="no memory"))
        evaluated(run, "onset_rate")
    found = arm_differences(opened_arms({name: f"{tmp_path}/{name}-*" for name in "ab"}))
    (missing,) = found.differences["missing"]
    assert "no memory" in missing, missing


def test_gaps_are_left_out_of_both_partners_and_said(tmp_path, place):
    gap = training(tmp_path / "a-1", seed=1, count=11)
    found = arm_differences(
        [Arm("a", (RunFolder(place / "a-0"), gap)), Arm("b", (RunFolder(place / "b-0"), RunFolder(place / "b-1")))]
    )
    row = found.differences.set_index("metric").loc["lpips_consecutive"]
    assert row["dropped"] == 1 and row["prompts"] == 12 and "2% of the values" in row["mark"]
    distance = found.differences.set_index("metric").loc["motion_amount_distance"]
    assert distance["missing"] == "trainings with 11 to 12 clips: a distance depends on their number"
    assert np.isnan(distance["p"]) and not distance["shown"]


@pytest.mark.parametrize("paired", [True, False])
def test_a_prompt_that_one_arm_lacks_is_left_out_and_counted(tmp_path, place, paired):
    less = [training(tmp_path / f"a-{number}", seed=number, count=11, metrics=["onset_rate"]) for number in range(2)]
    arms = [Arm("a", tuple(less)), Arm("b", (RunFolder(place / "b-0"), RunFolder(place / "b-1")))]
    for order in (arms, arms[::-1]):
        (row,) = arm_differences(order, metrics=["onset_rate"], paired_trainings=paired).differences.itertuples()
        assert row.dropped == 2 and "4% of the values" in row.mark, "of 12 prompts one, of half of the trainings"
    partner = training(tmp_path / "b-0", seed=30, count=11, metrics=["onset_rate"])
    both = [Arm("a", (less[0], RunFolder(place / "a-1"))), Arm("b", (partner, RunFolder(place / "b-1")))]
    (row,) = arm_differences(both, metrics=["onset_rate"], paired_trainings=paired).differences.itertuples()
    assert row.dropped == 0, "partners lack the same prompt, and no arm lacks it"


def test_a_plan_makes_the_family_and_its_unanswered_questions_stay(arms):
    asked = [{"name": "q", "subset": "toy-control", "metric": name} for name in ("lpips_consecutive", "fvd")]
    declared = plan.from_plain({"question": asked, "margin": {"onset_rate": 50}})
    rows = arm_differences(arms, plan=declared).differences.set_index("metric")
    assert (rows["family"] == 1).all() and rows["p_holm"].notna().sum() == 1
    assert rows.loc["fvd", "missing"] == "b has no score of it"
    assert rows.loc["onset_rate", "verdict"] == "alike"
    chosen = arm_differences(arms, plan=declared, metrics=["onset_rate"]).differences
    assert chosen["metric"].tolist() == ["onset_rate"], "questions on other metrics are left out"
    over_all = plan.from_plain({"question": [{"name": "q", "subset": "macro", "metric": "onset_rate"}]})
    chosen = arm_differences(arms, plan=over_all, metrics=["onset_rate"]).differences.set_index("subset")
    assert chosen.loc["macro", "missing"] == "arms are compared on each subset, not over several"
    assert (chosen["metric"] == "onset_rate").all()


@pytest.mark.parametrize("count", [1, 5])
def test_few_prompts_are_not_compared(tmp_path, count):
    for name in "ab":
        for number in range(2):
            made = made_run(tmp_path / f"{name}-{number}", seed=ord(name) + number, names=("toy-control",), count=count)
            evaluated(made)
    found = arm_differences(opened_arms({name: f"{tmp_path}/{name}-*" for name in "ab"}))
    assert found.differences["p"].isna().all()
    assert (found.differences["missing"] == f"{count} prompts are too few: at least 6 are needed").all()


def test_the_command_groups_runs_and_says_the_answer(place):
    named = (f"a={place}/a-*", f"b={place}/b-0", f"b={place}/b-1", f"b={place}/b-2")
    output = run_avbench("compare", *named, "--details").output
    first, *_ = output.strip().splitlines()
    assert first.startswith("a is better than b in 2 of 3 comparisons (3 trainings per arm, 12 prompts): ")
    assert "are paired by the number that their names end in (0, 1, 2)." in output
    assert "the exact test, which relabels whole trainings, cannot give a p below 0.25" in output
    assert "b: b-2" in output and "toy-control: b − a (family of 3 comparisons)" in output
    plain = json.loads(
        run_avbench("compare", *named, "--format", "json", "--metric", "onset_rate", "--unpaired").stdout
    )
    assert [(row["metric"], row["paired"], row["least_p"]) for row in plain] == [("onset_rate", False, 0.1)]
    assert "| lpips_consecutive ≈ LPIPS | +0.0" in run_avbench("compare", *named, "--format", "md").stdout


def test_what_does_not_fit_arms_is_refused(place):
    def refused(*words):
        return run_avbench(*words, code=2).output

    mixed = refused("compare", f"a={place}/a-*", place / "b-0")
    assert "b-0 has no name, and a is an arm: name every run, as in NAME=" in mixed
    assert "--unpaired is about the trainings of arms" in refused("compare", place / "a-0", place / "b-0", "--unpaired")
    with_reference = refused("compare", f"a={place}/a-*", f"b={place}/b-*", "--reference", place)
    assert "--reference has no effect on arms" in with_reference
    assert "1 arm was given; give at least two" in refused("compare", f"a={place}/a-*")
    assert "/a-* is not a run folder: it has no run.json; a pattern is expanded by the shell if it has no quotes" in (
        refused("compare", f"{place}/a-*")
    )


def test_the_report_shows_every_training(place, tmp_path):
    run_avbench("report", f"a={place}/a-*", f"b={place}/b-*", "--out", tmp_path)
    page = (tmp_path / "arms.html").read_text()
    for name in (f"{arm}-{number}" for arm in "ab" for number in range(3)):
        assert page.count(f"<title>{name}: ") == len(METRICS), "a dot per training and metric says its name"
    assert "a is better than b in 2 of 3 comparisons" in page and "<script" not in page
    text = (tmp_path / "arms.md").read_text()
    for metric in METRICS:
        figure = f"figures/toy-control-{metric}.svg"
        assert f"]({figure})" in text
        assert ElementTree.parse(tmp_path / figure).getroot().get("width") == "440"
    values = pd.read_csv(tmp_path / "trainings.csv").groupby("arm")["training"].unique()
    assert list(values["b"]) == ["b-0", "b-1", "b-2"]
    assert set(pd.read_csv(tmp_path / "differences.csv")["better"].dropna()) == {"a"}


def test_pilot_arms_plan_trainings_and_prompts(place):
    named, design = (f"a={place}/a-*", f"b={place}/b-*"), ("--trainings", "3,9", "--prompts", "12,50")
    plain = json.loads(run_avbench("power", *named, *design, "--family", "3", "--format", "json").stdout)
    assert "find at 5 %, corrected for 3 comparisons. Columns" in run_avbench("power", *named, "--family", "3").stdout
    assert "find at 5 %, not corrected (--family N corrects" in run_avbench("power", *named).stdout
    found = {(row["metric"], row["trainings"], row["prompts"]): row["detectable"] for row in plain}
    tested = avbench.compare_arms({"a": place / "a-*", "b": place / "b-*"}).differences.set_index("metric")
    distance = "motion_amount_distance"
    assert found[distance, 3, 12] == pytest.approx(tested.loc[distance, "detectable"])
    assert (distance, 3, 50) not in found, "a distance says nothing about other prompts"
    assert found["onset_rate", 3, 12] > found["onset_rate", 9, 12] > found["onset_rate", 9, 50]
    assert "--trainings has no effect on single runs" in run_avbench("power", place / "a-0", *design, code=2).output
    assert "--seeds has no effect on arms" in run_avbench("power", *named, "--seeds", "2", code=2).output


def test_arms_are_compared_from_python_and_several_against_one(place, tmp_path):
    for number in range(2):
        training(tmp_path / f"c-{number}", seed=60 + number)
    arms = {"a": place / "a-*", "b": f"{place}/b-*", "c": f"{tmp_path}/c-*"}
    found = avbench.compare_arms(arms, metrics=["lpips_consecutive"])
    rows = found.differences.set_index("run")
    assert list(rows.index) == ["b", "c"] and (rows["family"] == 2).all()
    assert rows.loc["b", "better"] == "a" and rows.loc["c", "better"] is None
    assert "Trainings of c and a are not paired: there are 2 and 3." in found.verdict
    assert found.scores.set_index("model").loc["c", "trainings"] == 2
    assert len(avbench.compare_arms(arms, metrics=["onset_rate"], all_pairs=True).differences) == 3
    found.show()
    assert found.save_report(tmp_path / "report") == tmp_path / "report" / "arms.html"
    written = (tmp_path / "report" / "arms.md").read_text()
    assert all(part in written for part in found.to_markdown().split("\n\n")), "that has figures as well"


def test_trainings_that_look_like_different_models_are_said(tmp_path):
    def arm(**settings):
        runs = [
            made_run(tmp_path / name, names=("toy-control",), count=1, settings=settings[name]) for name in settings
        ]
        return unlike_models(Arm("x", tuple(runs)))

    def weights(size, sha256="0"):
        return {"weights": {"model": {"sha256": sha256, "bytes": size}}}

    alike = {"arm": "t2v", "checkpoint": "runs/1.pt", "seed": 1, "dtype": "float32", **weights(1_000_000)}
    same = {"arm": "t2v", "checkpoint": "runs/2.pt", "seed": 2, "dtype": "bfloat16", **weights(1_000_400, "1")}
    alike["tower"], same["tower"] = "one/tower.pt", "two/tower.pt"
    for made, number in ((alike, 1), (same, 2)):
        made |= {"resume_path": f"{number}.pt", "data_folder": f"run-{number}", "init_checkpoint": f"{number}.pt"}
        made |= {"device": f"cuda:{number}", "batch_size": number, "imports_sha256": f"{number}"}
        made["inputs"] = {"script": {"sha256": f"{number}"}}
    assert arm(a=alike, b=same) is None
    assert arm(c=alike, d={**same, "arm": "t2av"}) == (
        "Trainings of x may not be one recipe: arm 't2v' in c, 't2av' in d."
    )
    assert "bytes of the weights and inputs 1000000 in e, 1020000 in f" in arm(
        e=alike, f={**same, **weights(1_020_000)}
    )
    assert arm(j=alike, k={**same, **weights(990_000)}) is None, "1 % less"
    assert "bytes of the weights and inputs 1000000 in l, 989999 in m" in arm(l=alike, m={**same, **weights(989_999)})
    many = arm(h={**alike, **dict.fromkeys("vwxyz", 1)}, i=same)
    assert many.endswith("not be one recipe: v 1 in h, None in i; w 1 in h, None in i; x 1 in h, None in i.")
    other = made_run(tmp_path / "g", names=("toy-control",), count=1, settings={"steps": 4})
    other.write_run(replace(other.run(), model="toyworld:"))
    found = unlike_models(Arm("x", (RunFolder(tmp_path / "a"), other)))
    assert found == "Trainings of x may not be one recipe: provider 'made' in a, 'toyworld' in g."


def test_the_verdict_on_arms_begins_its_remarks_with_unlike_models(place, tmp_path):
    shutil.copytree(place / "a-0", tmp_path / "a-0")
    training(tmp_path / "a-1", seed=1, settings={"arm": "t2av"})
    found = avbench.compare_arms({"a": f"{tmp_path}/a-*", "b": f"{place}/b-*"})
    (sentence,) = [one for one in found.verdict if "may not be one recipe" in one]
    assert "arm None in a-0, 't2av' in a-1" in sentence


@pytest.mark.slow
def test_a_table_for_a_paper_tests_distances_as_well(place):
    words = ("--metric", "motion_amount_distance", "--caption", "short", "--format", "md")
    text = run_avbench("compare", place / "a-0", place / "b-0", *words).stdout
    assert "| a-0 | **" in text and "bold: in a column where a model is shown to be worse than another" in text


def test_a_mean_of_a_part_of_the_clips_has_a_note(found):
    """By hand: each of the three trainings has 12 of the 24 clips that it was asked for. The mean had no mark."""
    (table,) = value_tables(found.scores)
    part = "rests on 36 clips of all trainings; 36 could not be measured"
    assert part in table.notes
    assert all(cell.short.endswith(f"[{table.notes.index(part) + 1}]") for cell in dict(table.rows)["onset_rate ≈ 1/s"])


def test_a_metric_that_one_arm_lacks_keeps_its_sign(tmp_path, place):
    pair = [training(tmp_path / f"a-{one}", seed=one, count=0, metrics=["onset_rate"]) for one in (0, 1)]
    empty = Arm("a", tuple(pair))
    arms = [empty, Arm("b", (RunFolder(place / "b-0"), RunFolder(place / "b-1")))]
    (row,) = arm_differences(arms, metrics=["onset_rate"]).differences.itertuples()
    assert (row.kind, np.isnan(row.difference)) == (TO_TARGET, True)
