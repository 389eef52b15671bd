"""A comparison by another reference than that of the scores: all its numbers are of that reference alone."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from command_line import run_avbench
from made_runs import SUBSETS, made_run
from scipy import linalg

from avbench import api
from avbench.comparison import baseline_file, gate, plan
from avbench.comparison.differences import differences
from avbench.comparison.leaderboard import leaderboard
from avbench.core import InputError, Row
from avbench.features.current import current_rows
from avbench.features.protocols import protocol_of
from avbench.metrics import reference_building, rescoring
from avbench.metrics.evaluate import chosen_metrics, evaluate
from avbench.metrics.rescoring import rescored
from avbench.storage.runs.folder import RunFolder

SUBSET = SUBSETS["toy-control"]
METRICS = ("fvd", "lpips_consecutive", "onset_rate", "near_copies")
FEATURES = ("i3d-k400", "lpips-alex", "onsets")


def with_logits(place, *, seed, scale=1.0, shift=0.0, **how):
    """A run on one subset whose clips also have made-up features of I3D."""
    folder, random = made_run(place, seed=seed, names=["toy-control"], **how), np.random.default_rng([3, seed])
    for key, sample in folder.samples().items():
        logits = (shift + scale * random.standard_normal(6)).astype(np.float32)
        folder.add_row(protocol_of("i3d-k400"), Row(key, sample.sha256, {"logits": logits}))
    return folder


def real(place, *, features=FEATURES, **how):
    """A reference of 120 clips."""
    folder = with_logits(place / "clips", seeds=range(100, 105), **how)
    reference_building.pack(folder, SUBSET, [protocol_of(one) for one in features], place / "reference", "CC0")
    return place / "reference"


def column(folder, feature, name):
    return np.array([row.values[name] for _, row in sorted(current_rows(folder, feature).items())], dtype=np.float64)


def frechet(x, y):
    """The Fréchet distance of two Gaussians by its definition, with the root of the product of covariances."""
    one, other = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(one @ other).real
    return np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(one + other - 2 * root)


@pytest.fixture
def made(tmp_path):
    """Two runs that were scored with a near reference, and a far one, in whose onsets `b` is right and not `a`."""
    near = real(tmp_path / "near", seed=10)
    far = real(tmp_path / "far", seed=11, scale=2.0, shift=5.0, onsets=3.0, lpips=0.004)
    runs = [
        with_logits(tmp_path / "a", seed=1),
        with_logits(tmp_path / "b", seed=2, scale=1.5, shift=0.8, onsets=2.0),
    ]
    for run in runs:
        evaluate(run, chosen_metrics(METRICS), place=near)
    return runs, near, far


def test_a_number_of_which_the_given_reference_knows_nothing_stays(made, tmp_path, monkeypatch):
    """Even one of an earlier version of its feature, of which no new target could be computed."""
    (a, _), _, _ = made
    deaf = real(tmp_path / "deaf", seed=12, features=("i3d-k400", "lpips-alex"))
    before = {score.metric: score for score in a.scores()}["onset_rate"]
    onsets = protocol_of("onsets")
    monkeypatch.setattr(
        rescoring,
        "protocol_of",
        lambda name, **how: replace(onsets, version=9) if name == "onsets" else protocol_of(name, **how),
    )
    (again,) = rescored([a], deaf)
    after = {score.metric: score for score in again.scores()}["onset_rate"]
    assert (after.value, after.n, after.reference, after.missing) == (before.value, before.n, None, None)


def test_values_differences_and_targets_are_those_of_the_given_reference(made, tmp_path):
    (a, b), _, far = made
    before = {path: path.read_bytes() for run in (a, b) for path in run.path.rglob("*") if path.is_file()}
    found = api.compare([a.path, b.path], reference=far)
    assert {path: path.read_bytes() for path in before} == before, "the folders keep their scores"
    logits = column(RunFolder(tmp_path / "far/clips"), "i3d-k400", "logits")
    right = {run.path.name: frechet(column(run, "i3d-k400", "logits"), logits) for run in (a, b)}
    fvd = found.scores[found.scores["metric"] == "fvd"].set_index("model")["value"]
    assert fvd.to_dict() == pytest.approx(right, rel=1e-6)
    rows = found.differences.set_index("metric")
    assert rows.loc["fvd", "difference"] == pytest.approx(right["b"] - right["a"], rel=1e-6)
    lower = right["a"] - right["b"]
    assert f"fvd (lower by {lower:.3g} or {100 * lower / right['a']:.0f} %" in found.verdict[0], found.verdict

    target = column(RunFolder(tmp_path / "far/clips"), "onsets", "onset_rate").mean()
    onsets = found.scores[found.scores["metric"] == "onset_rate"].set_index("model")
    assert onsets["reference"].tolist() == pytest.approx([target, target])
    means = {run.path.name: column(run, "onsets", "onset_rate").mean() for run in (a, b)}
    assert onsets["value"].to_dict() == pytest.approx(means)
    assert rows.loc["onset_rate", "difference"] == pytest.approx(abs(means["b"] - target) - abs(means["a"] - target))
    (anew,) = rescored([a], far)
    own = anew.values().query("metric == 'onset_rate'").sort_values(["subset", "prompt", "seed"])
    of_far = column(RunFolder(tmp_path / "far/clips"), "onsets", "onset_rate").reshape(-1, 5)
    assert own["real"].tolist() == pytest.approx(of_far.mean(1)), "of the five real clips of a prompt"
    assert rows.loc["onset_rate", "better"] == "b", "nearer to this reference, and farther from that of the scores"
    assert api.compare([a.path, b.path]).differences.set_index("metric").loc["onset_rate", "better"] == "a"
    assert found.limits[0].startswith("a and b were scored with another reference or with none: here all that rests")


def test_runs_that_have_distances_alone_are_compared_by_another_reference(tmp_path):
    near, far = (real(tmp_path / name, seed=seed, features=["i3d-k400"]) for name, seed in (("near", 10), ("far", 11)))
    run = with_logits(tmp_path / "run", seed=1)
    evaluate(run, chosen_metrics(["fvd"]), place=near)
    assert run.values().empty, "a distance has no value of a single clip"
    logits = column(RunFolder(tmp_path / "far/clips"), "i3d-k400", "logits")
    found = api.compare([run.path], reference=far)
    assert found.scores["value"].tolist() == pytest.approx([frechet(column(run, "i3d-k400", "logits"), logits)])


def test_it_is_what_an_evaluation_with_that_reference_gives(made, tmp_path):
    runs, _, far = made
    again = [RunFolder(shutil.copytree(run.path, tmp_path / "again" / run.path.name)) for run in runs]
    for run in again:
        evaluate(run, chosen_metrics(METRICS), place=far)
    one, other = (
        api.compare([run.path for run in some], reference=place) for some, place in ((runs, far), (again, None))
    )
    pd.testing.assert_frame_equal(one.scores, other.scores)
    pd.testing.assert_frame_equal(one.differences, other.differences)
    assert one.verdict[: -len(one.limits)] == other.verdict[: len(other.verdict) - len(other.limits)]
    order = ["model", "subset", "prompt", "seed", "metric"]
    pd.testing.assert_frame_equal(
        *(found.clips.sort_values(order, ignore_index=True) for found in (one, other)), check_dtype=False
    )
    ranked = [leaderboard(some, test_distances=True, place=place) for some, place in ((runs, far), (again, None))]
    pd.testing.assert_frame_equal(*ranked)
    assert rescored(again, far) == again, "nothing is computed again that is of this reference already"


def test_runs_that_were_scored_with_two_references_are_compared_by_a_third(made, tmp_path):
    (a, b), _, far = made
    evaluate(b, chosen_metrics(METRICS), place=far)
    with pytest.raises(InputError, match="the reference"):
        api.compare([a.path, b.path])
    mixed = api.compare([a.path, b.path], allow="reference")
    fvd = mixed.differences.set_index("metric").loc["fvd"]
    assert fvd["mark"].endswith("; the difference is computed with the reference of b")
    assert "fvd (higher by" in mixed.verdict[0] or "fvd (lower by" in mixed.verdict[0]
    assert "%" not in mixed.verdict[0].partition("fvd (")[2].partition(")")[0], "of which reference would it be?"
    third = real(tmp_path / "third", seed=12)
    found = api.compare([a.path, b.path], reference=third)
    assert found.differences.set_index("metric")["mark"].isna().all() and found.scores["value"].notna().all()


def test_what_the_other_reference_lacks_has_no_number_and_a_reason(made, tmp_path):
    (a, b), *_ = made
    silent = real(tmp_path / "silent", seed=13, features=["lpips-alex", "onsets"])
    found = api.compare([a.path, b.path], reference=silent)
    fvd = found.differences.set_index("metric").loc["fvd"]
    assert np.isnan(fvd["difference"]) and "has no i3d-k400" in fvd["missing"]
    assert "or " not in "".join(one for one in found.verdict if "fvd (" in one)
    assert any("the reference of toy-control has no i3d-k400" in one for one in found.verdict), found.verdict
    (tmp_path / "elsewhere").mkdir()
    shutil.move(silent, tmp_path / "elsewhere" / "another-subset")
    with pytest.raises(InputError, match="holds no reference"):
        leaderboard([a, b], place=tmp_path / "elsewhere")


def test_the_page_and_the_command_line_have_its_numbers(made, tmp_path):
    (a, b), near, far = made
    for run in (a, b):
        for row in current_rows(run, "onsets").values():
            heard = {**row.values, "onset_seconds": np.zeros(0, dtype=np.float32)}  # the page shows them
            run.add_row(protocol_of("onsets"), Row(row.key, row.clip_sha256, heard))
        evaluate(run, chosen_metrics(METRICS), place=near)
    found = api.compare([a.path, b.path], reference=far)
    page = found.save_report(tmp_path / "page").read_text()
    written = pd.read_csv(tmp_path / "page/table.csv").set_index(["model", "metric"])["value"]
    assert written.to_dict() == pytest.approx(found.scores.set_index(["model", "metric"])["value"].to_dict())
    assert "a and b were scored with another reference or with none" in page
    assert f"--reference {far}" not in page and "--reference reference" in page, "commands are for other people, too"
    assert found.runs[0].evaluation().asked == {"reference": str(far)}
    printed = run_avbench("compare", a.path, b.path, "--reference", far, "--format", "json").stdout
    differing = {row["metric"]: row["difference"] for row in json.loads(printed)}
    assert differing == pytest.approx(found.differences.set_index("metric")["difference"].to_dict())
    board = json.loads(run_avbench("leaderboard", tmp_path, "--reference", far, "--format", "json").stdout)
    values = {(row["model"], row["metric"]): row["value"] for row in board}
    assert values == pytest.approx(found.scores.set_index(["model", "metric"])["value"].to_dict())


def test_a_reference_that_was_built_again_does_not_mix_with_the_old_scores(made, tmp_path):
    (a, b), near, far = made
    shutil.rmtree(near)
    shutil.copytree(far, near)
    row = differences([a, b]).set_index("metric").loc["fvd"]
    assert np.isnan(row["difference"]) and row["missing"].startswith("the reference was built again since the runs")
    assert differences([a, b], place=near).set_index("metric")["missing"].isna().all()


def test_a_check_by_another_reference_has_its_targets(made, tmp_path):
    """By the far reference's onsets the run is better than the baseline, by the near one's worse."""
    (a, b), _, far = made
    baseline_file.update(a, tmp_path / "baseline.zip", "first")
    (tmp_path / "plan.toml").write_text("[margin]\nonset_rate = 0.1\nfvd = 1\n")
    margins = plan.read(tmp_path / "plan.toml")
    kept, other = (
        {one.name: one for one in gate.check(b, tmp_path / "baseline.zip", margins, place=place)}
        for place in (None, far)
    )
    name = "toy-control/onset_rate"
    assert kept[name].failed and "worse by" in kept[name].message
    assert not other[name].failed and "better by" in other[name].message
    lower = [
        frechet(column(run, "i3d-k400", "logits"), column(RunFolder(tmp_path / "far/clips"), "i3d-k400", "logits"))
        for run in (a, b)
    ]
    assert f"better by {lower[0] - lower[1]:.4g}" in other["toy-control/fvd"].message
