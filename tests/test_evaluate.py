"""What a score says of a distance, of near copies, and of what cannot be computed, on made-up rows."""

import dataclasses
import io
import re
import shutil
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from made_runs import METRICS, SUBSETS, evaluated, made_run
from rich.console import Console
from scipy import stats
from threadpoolctl import threadpool_limits

from avbench import api
from avbench.comparison import score_table
from avbench.comparison.differences import differences
from avbench.comparison.leaderboard import leaderboard
from avbench.comparison.score_table import scores_frame
from avbench.core import Direction, InputError, Key, Moments, Prompt, Row, Run, Sample, Subset, columns, digest
from avbench.features.current import current_rows
from avbench.features.protocols import protocol_of
from avbench.features.video.i3d import I3DLogits
from avbench.features.video.i3d.conventions import ASVA
from avbench.metrics import reference, reference_building
from avbench.metrics.evaluate import (
    SHIPPED,
    chosen_metrics,
    evaluate,
    features_of,
    fvd_metrics,
    read_values,
    reference_to_use,
    worth_measuring,
)
from avbench.metrics.evaluate import _most_frequent as most_frequent
from avbench.metrics.frechet import frechet_distance
from avbench.metrics.table import FVD_PROTOCOLS
from avbench.metrics.table import METRICS as TABLE
from avbench.report import tables
from avbench.report.page import plots
from avbench.report.tables import Cell, protocols, subset_tables
from avbench.storage import writing
from avbench.storage.runs import folder as folder_stage
from avbench.storage.runs.folder import VALUES_FILE, RunFolder
from avbench.storage.runs.status import status
from avbench.subsets import loading

PROTOCOL = I3DLogits.protocol
SUBSET = loading.load("toy-control").limited(40)
WIDTH = 12
SVG = "{http://www.w3.org/2000/svg}"


def made_up(place, rows, protocol=PROTOCOL, hashes=None):
    """A measured run: {(prompt number, seed): values}."""
    folder = RunFolder(place)
    seeds = sorted({seed for _, seed in rows})
    folder.start(Run(place.name, "clips:x", {}, {SUBSET.name: SUBSET.digest}, tuple(seeds), {}, {}), [SUBSET])
    for (number, seed), values in rows.items():
        key = Key(SUBSET.name, SUBSET.prompts[number].id, seed)
        sha256 = (hashes or {}).get((number, seed), digest([place.name, *key]))
        folder.add_sample(Sample(key, f"clips/{key.prompt}-{seed}.mkv", sha256, 0.0))
        folder.add_row(protocol, Row(key, sha256, values))
    return folder


def logits(seed, count, seeds, shift=0.0):
    random = np.random.default_rng(seed)
    return {
        (k, s): {"logits": (random.standard_normal(WIDTH) + shift).astype(np.float32)}
        for k in range(count)
        for s in seeds
    }


@pytest.fixture
def real(tmp_path):
    """A reference of four clips of each of 40 prompts."""
    folder = made_up(tmp_path / "real", logits(0, 40, range(100, 104)))
    reference_building.pack(folder, SUBSET, [PROTOCOL], tmp_path / "reference", "CC0")
    return tmp_path / "reference"


def scored(folder, place, *names):
    return {score.metric: score for score in evaluate(folder, chosen_metrics(names), place=place)}


def test_scores_do_not_depend_on_the_number_of_threads(tmp_path):
    random = np.random.default_rng(11)
    rows = [
        {(k, seed): {"logits": random.standard_normal(300).astype(np.float32)} for k in range(40) for seed in seeds}
        for seeds in ([0], [100])
    ]
    real = made_up(tmp_path / "real", rows[1])
    reference_building.pack(real, SUBSET, [PROTOCOL], tmp_path / "reference", "CC0", rows=10)
    folder, written = made_up(tmp_path / "run", rows[0]), []
    for threads in (1, 2):
        with threadpool_limits(threads):
            score = scored(folder, tmp_path / "reference", "fvd")["fvd"]
        assert score.no_null.endswith("rows of 10 of its 40 clips; build it from the clips with --rows 40")
        written.append((folder.path / "scores.json").read_bytes())
    assert written[0] == written[1]


def test_metrics_of_one_feature_stack_its_rows_once(tmp_path, real, monkeypatch):
    read, stacked = [], []
    folder = made_up(tmp_path / "run", logits(1, 40, [0]))

    def reading(folder, feature, against=None):
        read.append(feature)
        return current_rows(folder, feature, against)

    def stacking(rows):
        stacked.append(rows)
        return columns([*rows])

    monkeypatch.setattr("avbench.metrics.evaluate.current_rows", reading)
    monkeypatch.setattr("avbench.features.current.columns", stacking)
    found = scored(folder, real, "fvd", "kvd", "precision")
    assert all(score.value is not None for score in found.values())
    assert read == ["i3d-k400"] and stacked == [[]], "one list of rows, which was emptied"


def test_names_of_metrics_may_stand_in_one_text_and_in_any_order():
    assert [metric.name for metric in chosen_metrics("kvd, fvd")] == ["fvd", "kvd"]
    assert features_of(chosen_metrics(["sync_excess", "motion_amount"])) == ["flow-dis", "onsets"]


def with_sound_and_motion(place, count=6):
    """A run whose clips have rows of both features of `sync_excess`."""
    run = made_run(place, names=["toy-control"], count=count)
    for key, sample in run.samples().items():
        times = {"event_seconds": np.array([1.0]), "event_strength": np.ones(1)}
        spans = {"event_from": 0.2, "event_until": 3.7, "sound_seconds": 4.0}
        run.add_row(protocol_of("flow-dis"), Row(key, sample.sha256, times | spans))
        sounds = {"onset_seconds": np.array([1.0]), "onset_level": np.ones(1), "onset_rate": 0.25}
        run.add_row(protocol_of("onsets"), Row(key, sample.sha256, sounds))
    return run


def test_the_protocol_of_a_score_holds_what_decided_it(tmp_path, real):
    folder = made_up(tmp_path / "run", logits(1, 40, [0]))
    scored(folder, real, "fvd", "kvd")
    scores, protocols = folder.scores(), folder.evaluation().protocols
    for score in scores:
        held, (metric,) = protocols[score.protocol], chosen_metrics([score.metric])
        assert held["metric"] == metric.name and held | metric.settings == held and "package" not in held
        assert held["feature"] == PROTOCOL.describe() and held["column"] == held["reference_column"] == "logits"
        assert held["subset"] == {"name": SUBSET.name, "digest": SUBSET.digest, "prompts": 40}
        assert held["reference"] == reference.load(real).card["sha256"]
    run = with_sound_and_motion(tmp_path / "sound")
    (score,) = evaluate(run, chosen_metrics(["sync_excess"]))
    held = run.evaluation().protocols[score.protocol]
    assert held["beside"] == protocol_of("onsets").describe() and held["reference"] is None, "nothing is right for it"


def test_a_clip_that_one_of_two_features_cannot_measure_has_its_reason(tmp_path):
    run = with_sound_and_motion(tmp_path / "run", count=24)
    one, other, *_ = sorted(run.samples())

    def unable(key, feature, why):
        run.add_row(protocol_of(feature), Row(key, run.samples()[key].sha256, None, why))
        (score,) = evaluate(run, chosen_metrics(["sync_excess"]))
        return score.n, score.unmeasured, score.why_unmeasured

    assert unable(one, "onsets", "it is silent") == (23, 1, "it is silent")
    assert unable(other, "flow-dis", "it is black") == (22, 2, "it is silent (1), it is black (1)")
    assert unable(other, "onsets", "it is silent") == (22, 2, "it is silent (1), it is black (1)"), "the first one's"


def test_which_gpu_measured_is_a_note_on_clips_with_values_and_changes_no_protocol(tmp_path):
    protocol, digests = protocol_of("onsets"), []
    for name, gpus in (("with", ["card", None, None, "card"]), ("without", [None] * 4)):
        run = RunFolder(tmp_path / name)
        run.start(Run(name, "clips:x", {}, {SUBSET.name: SUBSET.digest}, (0,), {}, {}), [SUBSET])
        for number, gpu in enumerate(gpus):
            key = Key(SUBSET.name, SUBSET.prompts[number].id, 0)
            values, missing = ({"onset_rate": 1.0}, None) if number < 3 else (None, "it is silent")
            run.add_sample(Sample(key, f"{number}.mkv", digest([*key]), 0.0))
            run.add_row(protocol, Row(key, digest([*key]), values, missing, gpu))
        (score,) = evaluate(run, chosen_metrics(["onset_rate"]))
        digests.append(score.protocol)
        note = {"device": "Measured by CUDA on card (1 clip), on the CPU (2 clips)."} if name == "with" else None
        assert run.evaluation().protocols[score.protocol].get("notes") == note
    assert digests[0] == digests[1]


def test_the_note_on_gpus_is_on_the_clips_of_its_subset(tmp_path):
    run, subsets = RunFolder(tmp_path / "run"), [one.limited(1) for one in SUBSETS.values()]
    run.start(Run("run", "made:up", {}, {one.name: one.digest for one in subsets}, (0,), {}, {}), subsets)
    for key, gpu in zip(sorted(run.planned_keys()), ("card", None), strict=True):
        run.add_sample(Sample(key, f"clips/{key.prompt}-0.mkv", digest([*key]), 0.0))
        run.add_row(protocol_of("onsets"), Row(key, digest([*key]), {"onset_rate": 1.0}, None, gpu))
    scores = evaluate(run, chosen_metrics(["onset_rate"]))
    notes = {score.subset: run.evaluation().protocols[score.protocol].get("notes") for score in scores}
    assert notes == {"toy-control": {"device": "Measured by CUDA on card (1 clip)."}, "toy-object-contact": None}


def test_clips_that_were_changed_are_not_scored_nor_compared_with(tmp_path):
    run, other = (made_run(tmp_path / name, names=["toy-control"], count=2) for name in ("a", "b"))
    assert evaluate(run, chosen_metrics(["onset_rate"]), against=other)
    place = other.path / min(other.samples().items())[1].path
    place.parent.mkdir()
    place.write_bytes(b"other")
    for folder, against in ((run, other), (other, None)):
        with pytest.raises(InputError, match=r"b\S* is not what was sampled"):
            evaluate(folder, chosen_metrics(["onset_rate"]), against=against)


def test_the_run_of_reference_clips_is_the_one_given_or_the_one_before_while_it_is_there(tmp_path):
    run, one, other = (made_run(tmp_path / name, names=["toy-control"], count=2) for name in ("a", "b", "c"))
    for given, right in ((one, one), (None, one), (other, other), (None, other)):
        evaluate(run, chosen_metrics(["onset_rate"]), against=given)
        assert run.evaluation().asked == {"against": str(right.path)}
    shutil.rmtree(other.path)
    other.path.mkdir()
    evaluate(run, chosen_metrics(["onset_rate"]))
    assert run.evaluation().asked == {}, "what is left is no run"


def test_the_reference_is_the_one_given_or_that_of_the_last_run(tmp_path, monkeypatch):
    runs, places = [made_run(tmp_path / name, names=["toy-control"], count=2) for name in ("a", "b", "c")], []
    for run, name in zip(runs, ("one", "other"), strict=False):  # the last run has no scores
        clips = made_run(tmp_path / f"{name}-clips", names=["toy-control"], seeds=(100,))
        reference_building.pack(clips, SUBSETS["toy-control"], [protocol_of("onsets")], tmp_path / name, "CC0")
        places.append(tmp_path / name)
        (score,) = evaluate(run, chosen_metrics(["onset_rate"]), place=places[-1])
        assert run.evaluation().protocols[score.protocol]["reference"] == reference.load(places[-1]).card["sha256"]
    assert reference_to_use(runs, None) == places[1] and reference_to_use(runs, places[0]) == places[0]
    assert reference_to_use(runs[2:], None) is None is reference_to_use(runs, SHIPPED)
    monkeypatch.chdir(tmp_path)
    SHIPPED.mkdir()
    assert reference_to_use(runs, SHIPPED) == SHIPPED, "a folder of that name"


def test_clips_of_the_reference_are_counted_by_metrics_that_are_held_against_it(tmp_path):
    run, real = (
        made_run(tmp_path / name, names=["toy-control"], seeds=seeds) for name, seeds in (("a", (0,)), ("r", (9,)))
    )
    (key, sample), copied = min(run.samples().items()), min(real.samples().values(), key=lambda one: one.key)
    run.add_sample(dataclasses.replace(sample, sha256=copied.sha256))
    run.add_row(protocol_of("onsets"), Row(key, copied.sha256, {"onset_rate": 1.0}))
    reference_building.pack(real, SUBSETS["toy-control"], [protocol_of("onsets")], tmp_path / "reference", "CC0")
    upward = dataclasses.replace(own_metric(), direction=Direction.HIGHER)
    scores = evaluate(run, [*chosen_metrics(["onset_rate"]), upward], place=tmp_path / "reference")
    assert {score.metric: (score.n, score.shared) for score in scores} == {"onset_rate": (24, 1), "own": (24, 0)}


def test_a_distance_counts_clips_of_the_reference_also_where_it_keeps_only_moments(tmp_path, real):
    reference_building.pack(RunFolder(tmp_path / "real"), SUBSET, [PROTOCOL], tmp_path / "few", "CC0", rows=10)
    copied = {(7, 0): reference.load(real).clips["clip_sha256"][3]}
    run = made_up(tmp_path / "run", logits(1, 40, [0]), hashes=copied)
    score = scored(run, tmp_path / "few", "fvd")["fvd"]
    assert score.no_null.endswith("of its 160 clips; build it from the clips with --rows 160") and score.shared == 1
    assert scored(run, real, "fvd")["fvd"].shared == 1


def test_clips_of_a_reference_are_counted_and_not_their_windows(tmp_path):
    """By ASVA three windows are taken of a real clip and one of a generated one."""
    protocol, random = protocol_of("i3d-asva"), np.random.default_rng(3)
    rows = {
        (k, seed): {
            "logits": random.standard_normal(WIDTH).astype(np.float32),
            "logits_windows": random.standard_normal((3, WIDTH)).astype(np.float32),
        }
        for k in range(40)
        for seed in (0,)
    }
    made = made_up(tmp_path / "run", rows, protocol)
    reference_building.pack(made, SUBSET, [protocol], tmp_path / "all", "CC0")
    reference_building.pack(made, SUBSET, [protocol], tmp_path / "some", "CC0", rows=10)
    whole, some = (scored(made, tmp_path / name, "fvd_asva")["fvd_asva"] for name in ("all", "some"))
    assert whole.reference_clips == some.reference_clips == 40
    assert some.value == pytest.approx(whole.value, rel=1e-5), "kept rows are float32"
    assert some.no_null == "the reference keeps rows of 10 of its 40 clips; build it from the clips with --rows 40"


def own_metric(name="onset_rate"):
    """A metric that no later evaluation knows: its scores are kept and not computed again."""
    return dataclasses.replace(chosen_metrics([name])[0], name="own")


def test_kept_scores_stand_with_their_subsets_and_have_their_values_and_protocols(tmp_path):
    run = made_run(tmp_path / "run", names=["toy-object-contact", "toy-control"], count=3)
    evaluate(run, [own_metric()])
    before, protocols, values = run.scores(), run.evaluation().protocols, run.values()
    notes = []
    found = evaluate(run, chosen_metrics(["onset_rate"]), note=notes.append)
    assert found == run.scores() and [one for one in found if one.metric == "own"] == before
    assert [one.subset for one in found] == ["toy-object-contact"] * 2 + ["toy-control"] * 2
    assert (
        run.evaluation().protocols.keys() == {one.protocol for one in found}
        and len({one.protocol for one in found}) == 4
    )
    assert {one.protocol: run.evaluation().protocols[one.protocol] for one in before} == protocols
    pd.testing.assert_frame_equal(run.values().query("metric == 'own'").reset_index(drop=True), values)
    assert len(run.values()) == 2 * len(values) and len(notes) == 2 and all("stays as it was" in one for one in notes)


def test_the_run_of_reference_clips_of_kept_scores_is_remembered_when_it_is_gone(tmp_path, monkeypatch):
    run, one, other = (made_run(tmp_path / name, names=["toy-control"], count=2) for name in ("a", "b", "c"))
    monkeypatch.chdir(tmp_path)
    evaluate(run, [own_metric()], against=RunFolder(one.path.relative_to(tmp_path)))
    assert run.evaluation().asked == {"against": str(one.path)} and run.evaluation().given == {"against": "b"}
    shutil.rmtree(one.path)
    assert [score.metric for score in evaluate(run, chosen_metrics(["onset_rate"]))] == ["onset_rate", "own"]
    assert run.evaluation().asked == {"against": str(one.path)} and run.evaluation().given == {"against": "b"}
    evaluate(run, chosen_metrics(["onset_rate"]), against=other)
    assert run.evaluation().asked == {"against": str(other.path)}, "that which is given counts"


def test_an_earlier_metric_is_computed_again_only_of_all_clips_by_both_of_its_features(tmp_path):
    run = with_sound_and_motion(tmp_path / "run")
    evaluate(run, chosen_metrics(["sync_excess"]))
    assert {one.metric for one in evaluate(run, chosen_metrics(["onset_rate"]))} == {"onset_rate", "sync_excess"}
    key = next(key for key in sorted(run.planned_keys()) if key not in run.samples())
    run.add_sample(Sample(key, "clips/new.mkv", digest("new"), 0.0))
    run.add_row(protocol_of("onsets"), Row(key, digest("new"), {"onset_rate": 1.0}))
    assert [one.metric for one in evaluate(run, chosen_metrics(["onset_rate"]))] == ["onset_rate"], (
        "motion is not there"
    )


@pytest.mark.parametrize("left", [1, 24], ids=["a part", "all"])
def test_scores_from_before_the_rows_of_some_clips_are_refused(tmp_path, left):
    """As where a part of a run was measured late and merged: its clips must not count as not measured."""
    run, onsets = made_run(tmp_path / "run", names=["toy-control"]), protocol_of("onsets")
    lines = (run.path / "features" / onsets.folder_name / "rows.jsonl").read_bytes().splitlines(keepends=True)
    rows = [*run.rows(onsets).values()]
    shutil.rmtree(run.path / "features" / onsets.folder_name)
    for row in rows[left:]:
        run.add_row(onsets, row)
    evaluated(run)
    found = {one.metric: one.n for one in scores_of(run)}
    assert (
        found == {"lpips_consecutive": 24, "onset_rate": 24 - left} and api.compare([run.path]).scores["n"].max() == 24
    )
    for row in rows[:left]:
        run.add_row(onsets, row)
    again = f"`avbench evaluate {run.path} --metric lpips_consecutive,onset_rate`"
    with pytest.raises(InputError, match=f"evaluated from other rows of .*measured later.*run {re.escape(again)}"):
        api.compare([run.path])
    assert (status(run).stage, f"`{status(run).next}`") == ("measured", again)
    evaluated(run)
    assert {one.metric: one.n for one in scores_of(run)} == {"lpips_consecutive": 24, "onset_rate": 24}
    assert api.compare([run.path]).scores["n"].tolist() == [24, 24] and status(run).stage == "evaluated"

    rows_file = run.path / "features" / onsets.folder_name / "rows.jsonl"
    rows_file.write_bytes(b"".join(lines))
    assert read_values(run).shape[0] == 48, "the same rows in another order, as after a merge"
    shutil.rmtree(run.path / "features")
    assert read_values(run).shape[0] == 48, "of rows that were deleted to save space the scores stay"


def scores_of(run):
    return RunFolder(run.path).scores()


def test_scores_of_an_earlier_avbench_that_recorded_no_rows_are_read(tmp_path):
    run = evaluated(made_run(tmp_path / "run", names=["toy-control"]))
    parts = {VALUES_FILE: (run.path / VALUES_FILE).read_bytes()}
    run.write_scores(run.scores(), run.evaluation().protocols, parts)
    assert not run.evaluation().rows and read_values(run).shape[0] == 48


def test_a_table_of_near_copies_goes_with_its_score(tmp_path, real, monkeypatch):
    folder = made_up(tmp_path / "run", logits(1, 39, [0]))
    scored(folder, real, "near_copies")
    before = (folder.path / "near_copies.csv").read_bytes()
    with monkeypatch.context() as patch:
        known = {metric.name: metric for metric in chosen_metrics(["onset_rate"])}
        patch.setattr("avbench.metrics.evaluate.known_metrics", lambda: known)
        kept = scored(folder, real, "onset_rate")["near_copies"]
    assert kept.value is not None and (folder.path / "near_copies.csv").read_bytes() == before
    folder.require_one_evaluation("near_copies.csv")
    unmeasured = Key(SUBSET.name, SUBSET.prompts[39].id, 0)
    folder.add_sample(Sample(unmeasured, "clips/x.mkv", digest("x"), 0.0))
    assert "near_copies" not in scored(folder, real, "onset_rate") and not (folder.path / "near_copies.csv").exists()


def test_distances_are_worth_measuring_where_there_are_real_clips(tmp_path):
    mine = Subset("mine", 1, (Prompt("p", "a ball falls"),), None)
    folder = RunFolder(tmp_path / "run")
    folder.start(Run("run", "made:up", {}, {"mine": mine.digest}, (0,), {}, {}), [mine])
    asked = chosen_metrics(["fvd", "onset_rate"])
    assert worth_measuring(folder, asked, None) == chosen_metrics(["onset_rate"])
    assert worth_measuring(folder, asked, tmp_path) == asked
    reasons = {score.metric: score.missing for score in evaluate(folder, asked)}
    assert reasons["fvd"].startswith("the subset mine has no reference statistics to compare"), (
        "that can be mended first"
    )
    assert reasons["onset_rate"] == "the clip was not sampled (1 of 1 clips)"
    toy = SUBSETS["toy-control"]
    both = RunFolder(tmp_path / "both")
    both.start(Run("both", "made:up", {}, {one.name: one.digest for one in (mine, toy)}, (0,), {}, {}), [mine, toy])
    assert worth_measuring(both, asked, None) == asked, "that of one subset is shipped"


def test_a_metric_that_fails_costs_its_own_score_only(tmp_path, real, monkeypatch):
    def fails(x, y, **settings):
        raise np.linalg.LinAlgError("did not converge")

    folder = made_up(tmp_path / "run", logits(1, 40, [0]))
    alone = scored(folder, real, "kvd")["kvd"]
    monkeypatch.setattr("avbench.metrics.frechet.frechet_distance", fails)
    found = scored(folder, real, "fvd", "kvd")
    assert found["fvd"].value is None and found["fvd"].missing == "fvd failed: LinAlgError: did not converge"
    assert found["kvd"] == alone


def test_a_reference_that_a_metric_cannot_measure_leaves_the_runs_own_value(tmp_path):
    levels = protocol_of("levels")

    def folder(name, seed, *values):
        """Clips have these values in turn."""
        made = RunFolder(tmp_path / name)
        made.start(Run(name, "clips:x", {}, {SUBSET.name: SUBSET.digest}, (seed,), {}, {}), [SUBSET])
        for place, prompt in enumerate(SUBSET.prompts):
            key = Key(SUBSET.name, prompt.id, seed)
            made.add_sample(Sample(key, f"{prompt.id}.mkv", digest([*key]), 0.0))
            made.add_row(levels, Row(key, digest([*key]), values[place % len(values)]))
        return made

    silent, loud, quiet = ({"loudness_known": float(one > -70), "loudness": one} for one in (-70.0, -20.0, -30.0))
    reference_building.pack(folder("real", 100, silent), SUBSET, [levels], tmp_path / "silent", "CC0")
    run = folder("run", 0, loud)
    score = scored(run, tmp_path / "silent", "loudness")["loudness"]
    assert score.value == -20.0 and score.reference is None and score.missing is None
    sounds = folder("sounds", 100, loud)
    for key, sample in sounds.samples().items():
        sounds.add_row(protocol_of("onsets"), Row(key, sample.sha256, {"onset_rate": 1.0}))
    reference_building.pack(sounds, SUBSET, [protocol_of("onsets")], tmp_path / "onsets", "CC0")
    score = scored(run, tmp_path / "onsets", "loudness")["loudness"]
    assert score.value == -20.0 and score.reference is None and score.missing is None, "it lacks the feature"
    mixed = folder("mixed", 100, silent, loud, silent, quiet)
    reference_building.pack(mixed, SUBSET, [levels], tmp_path / "mixed-reference", "CC0")
    assert scored(run, tmp_path / "mixed-reference", "loudness")["loudness"].reference == -25.0, "of clips with a sound"


def test_the_interval_of_a_mean_is_over_prompts(tmp_path):
    """With as many clips of each prompt it is Student's interval of the prompts' means."""
    run = evaluated(made_run(tmp_path / "run", seeds=(0, 1, 2), names=["toy-control"]), "lpips_consecutive")
    (score,), (values,) = run.scores(), score_table.clip_values(run).values()
    means = values.groupby("prompt").mean()
    low, high = stats.t.interval(0.95, 23, means.mean(), stats.sem(means))
    assert score.interval == pytest.approx((low, high)) and score.n == 72
    assert high - low > 1.3 * np.diff(stats.t.interval(0.95, 71, values.mean(), stats.sem(values)))


def test_the_values_of_clips_stand_beside_those_of_the_real_clips_of_their_prompts(tmp_path):
    run = evaluated(made_run(tmp_path / "run", count=6, names=["toy-control"]), "lpips_consecutive", "fvd")
    table = run.values()
    assert set(table["metric"]) == {"lpips_consecutive"} and len(table) == 6
    known = reference.find(SUBSETS["toy-control"])
    columns, prompts = known.columns(protocol_of("lpips-alex"), SUBSETS["toy-control"])
    right = [columns["mean"][prompts == one].mean() for one in table["prompt"]]
    assert table["real"].tolist() == pytest.approx(right) and len(set(right)) == 6


def test_values_of_an_earlier_version_know_no_real_clips(tmp_path):
    run = evaluated(made_run(tmp_path / "run", names=["toy-control"]), "lpips_consecutive")
    table = run.values().drop(columns="real")
    run.write_scores(run.scores(), run.evaluation().protocols, {VALUES_FILE: table.to_parquet(index=False)})
    assert run.values()["real"].isna().all() and not dict(score_table.real_values(run))


def test_a_clip_without_a_value_leaves_the_interval_of_the_others(tmp_path):
    random = np.random.default_rng(6)
    errors = random.random(20)[:, None] + 0.1 * random.random((20, 2))
    rows = {
        (k, s): {"moves": float((k, s) != (0, 0)), "visible_share": 1.0, "warping_error": errors[k, s]}
        for k in range(20)
        for s in (0, 1)
    }
    without = {place: row for place, row in rows.items() if row["moves"]}
    flow = protocol_of("flow-dis")
    one, other = (
        scored(made_up(tmp_path / name, made, flow), None, "warping_error")["warping_error"]
        for name, made in (("a", rows), ("b", without))
    )
    assert (one.n, one.value, one.interval) == (other.n, other.value, other.interval) and one.n == 39


def test_a_working_folder_that_is_a_run_is_not_taken_for_the_run_of_reference_clips(tmp_path, monkeypatch):
    here, run = (made_run(tmp_path / name, names=["toy-control"]) for name in ("here", "run"))
    monkeypatch.chdir(here.path)
    assert evaluated(run).scores()


def test_a_shard_without_a_clip_of_a_subset_says_so(tmp_path):
    run, subsets = RunFolder(tmp_path / "run"), [one.limited(1) for one in SUBSETS.values()]
    digests = {one.name: one.digest for one in subsets}
    run.start(Run("run", "made:up", {}, digests, (0,), {}, {}, shard="1/2"), subsets)
    (key,) = run.planned_keys()
    run.add_sample(Sample(key, f"clips/{key.prompt}-0.mkv", digest([*key]), 0.0))
    run.add_row(protocol_of("onsets"), Row(key, digest([*key]), {"onset_rate": 1.0}))
    said = {score.subset: score.missing for score in evaluate(run, chosen_metrics(["onset_rate"]))}
    assert said.pop(key.subset) is None
    assert [*said.values()] == ["this shard of the run has no clip of the subset"]


def test_a_missing_score_names_two_reasons():
    several, short = {f"it has {n} onsets": 1 for n in (1, 2, 3)}, {"it is too short": 2}
    assert most_frequent(several) == "it has 1 onsets (3 of 3 clips)"
    assert most_frequent({**short, **several}) == "it has 1 onsets (3 of 5 clips; of the other 2: it is too short)"
    assert most_frequent({**several, "black": 1}) == "it has 1 onsets (3 of 4 clips; of the other: black)"
    assert most_frequent({**several, **short, "black": 1}).endswith("(3 of 6 clips; the others have other reasons)")
    lasts = {"it lasts 0.5 s": 1, "it lasts -1.25e-3 s": 2, "black": 2}
    assert most_frequent(lasts) == "it lasts -1.25e-3 s (3 of 5 clips; of the other 2: black)"
    assert most_frequent({"black": 1, "no 'a'": 1, "no 'b'": 1}) == "no 'a' (2 of 3 clips; of the other: black)"
    lacking = {"no clip: no file matches": 3, "the clip has no sound": 2}
    assert most_frequent(lacking) == "the clip has no sound (2 of 5 clips; of the other 3: no clip: no file matches)"


@pytest.mark.slow
def test_a_distance_stands_with_its_null_floor_and_excess(tmp_path, real):
    names = ("fvd", "kvd", "coverage")
    good = scored(made_up(tmp_path / "good", logits(1, 40, [0])), real, *names)
    bad = scored(made_up(tmp_path / "bad", logits(2, 40, [0], shift=1.0)), real, *names)
    for name in names:
        assert good[name].null.within_prompts and good[name].null.permutations == 1000
        assert good[name].null.p > 0.01 and bad[name].null.p < 0.01
        assert good[name].floor is not None and good[name].n == 40
    assert abs(good["fvd"].excess) < 3 * good["fvd"].null.sd
    assert bad["fvd"].excess == pytest.approx(WIDTH, rel=0.3), "a shift of 1 in 12 dimensions"
    assert bad["coverage"].excess < 0
    frame = scores_frame([RunFolder(tmp_path / name) for name in ("good", "bad")])
    row = frame.set_index(["metric", "model"]).loc[("fvd", "bad")]
    assert row["excess"] == pytest.approx(row["value"] - row["null"]) and row["p"] == bad["fvd"].null.p


def test_scores_are_read_back_as_they_were(tmp_path, real):
    folder = made_up(tmp_path / "run", logits(1, 40, [0]))
    (score,) = evaluate(folder, chosen_metrics(["fvd"]), place=real)
    assert folder.scores() == [score]
    before = (folder.path / "scores.json").read_bytes()
    evaluate(folder, chosen_metrics(["fvd"]), place=real)
    assert (folder.path / "scores.json").read_bytes() == before


@pytest.mark.statistical
def test_which_model_is_nearer_is_told_with_its_chance(tmp_path, real):
    runs = {"near": logits(1, 40, [0]), "same": logits(3, 40, [0]), "far": logits(2, 35, [0], shift=0.8)}
    folders = [made_up(tmp_path / name, rows) for name, rows in runs.items()]
    for folder in folders:
        evaluate(folder, chosen_metrics(["fvd", "kvd", "precision"]), place=real)
    found = differences(folders, place=real).set_index(["metric", "run"])
    assert (found["against"] == "near").all()
    assert found.loc[("fvd", "far"), "difference"] > 0 and found.loc[("fvd", "far"), "p"] < 0.01
    assert found.loc[("fvd", "same"), "p"] > 0.01
    assert found.loc[("kvd", "far"), "pairs"] == 35, "clips that both have"


def test_distances_of_two_runs_are_ranked_where_they_are_tested(tmp_path, real):
    folders = [
        made_up(tmp_path / name, logits(seed, 40, [0], shift=seed - 1)) for seed, name in ((2, "far"), (1, "near"))
    ]
    for folder in folders:
        evaluate(folder, chosen_metrics(["fvd"]), place=real)
    assert leaderboard(folders, place=real)["rank"].isna().all()
    board = leaderboard(folders, test_distances=True, place=real).set_index("model")
    assert board["rank"].to_dict() == {"far": 2, "near": 1} and board["best"].to_dict() == {"far": False, "near": True}


def test_a_difference_of_distances_has_the_degrees_of_freedom_of_its_t_test(tmp_path, real):
    """30 groups of the prompts that the models and the reference share are left out."""
    folders = [made_up(tmp_path / name, logits(seed, 40, [0], seed)) for seed, name in enumerate("ab")]
    for folder in folders:
        evaluate(folder, chosen_metrics(["kvd"]), place=real)
    (row,) = differences(folders, place=real).itertuples()
    assert row.dof == 29
    assert row.p >= 2 * stats.t.sf(abs(row.difference) / row.error, row.dof)
    shift = (stats.t.isf(0.025, row.dof) + stats.t.isf(0.2, row.dof)) * row.error
    assert row.detectable == pytest.approx(shift, rel=0.01)


def test_nulls_of_two_kinds_in_one_column_are_said(tmp_path):
    """Half of the clips of a and all of alike's are of prompts that the reference has, and fewer of b's."""
    numbers = {"real": range(26), "a": range(13, 39), "alike": range(26), "b": range(14, 40)}
    folders = {}
    for seed, (name, prompts) in enumerate(numbers.items()):
        rows = logits(seed, 40, [100 if name == "real" else 0])
        folders[name] = made_up(tmp_path / name, {key: row for key, row in rows.items() if key[0] in prompts})
    reference_building.pack(folders.pop("real"), SUBSET, [PROTOCOL], tmp_path / "reference", "CC0")
    for folder in folders.values():
        scored(folder, tmp_path / "reference", "fvd")
    both = leaderboard([folders["a"], folders["b"]])
    assert [*both["null_within_prompts"]] == [True, False]
    (table,) = subset_tables(both)
    for note, own, other in zip(table.notes, ("within", "across"), ("across", "within"), strict=True):
        exchanged = f"its null exchanges clips {own} prompts, another model's {other} prompts"
        assert note.endswith(f"; {exchanged}: excess and p cannot be compared")
    (figure,) = plots.distances(both, ["a", "b"], SUBSET.name)
    assert figure.drawing.count(" within prompts<") == figure.drawing.count(" across prompts<") == 1
    screen = Console(width=1000, record=True, file=io.StringIO())
    screen.print(protocols(both, {"ours": "fvd"}))
    assert "a: its null exchanges clips within prompts" in screen.export_text()
    alike = leaderboard([folders["a"], folders["alike"]])
    (table,) = subset_tables(alike)
    (figure,) = plots.distances(alike, ["a", "alike"], SUBSET.name)
    assert "null" not in "".join(table.notes) and "within prompts" not in figure.drawing


def test_each_model_is_read_against_the_floor_of_its_own_number_of_clips(tmp_path, real):
    folders = [made_up(tmp_path / name, logits(1, count, [0])) for name, count in (("a", 40), ("b", 24))]
    for folder in folders:
        scored(folder, real, "fvd")
    board = leaderboard(folders)
    of_all, of_few = board["floor"]
    assert of_all < of_few
    (table,) = subset_tables(board)
    assert table.rows[-1] == ("reference", [Cell(f"{tables.number(of_all)} to {tables.number(of_few)}")])
    (figure,) = plots.distances(board, ["a", "b"], SUBSET.name)
    lines = [line for line in ElementTree.fromstring(figure.drawing).iter(f"{SVG}line") if line.get("class") == "floor"]
    (first, second) = [[float(line.get(name)) for name in ("x1", "y1", "y2")] for line in lines]
    assert first[0] < second[0] and first[1:] == [0, 44] and second[1:] == [44, 88]


def test_copies_of_reference_clips_are_named(tmp_path, real):
    rows = logits(1, 40, [0])
    known = reference.load(real)
    copied = known.values["i3d-k400"]["logits"][[0, 8]]
    rows[5, 0], rows[6, 0] = ({"logits": one.astype(np.float32)} for one in copied)
    folder = made_up(tmp_path / "run", rows, hashes={(7, 0): known.clips["clip_sha256"][3]})
    unmeasured = Key(SUBSET.name, SUBSET.prompts[39].id, 0)
    folder.add_sample(Sample(unmeasured, "clips/x.mkv", known.clips["clip_sha256"][4], 0.0))
    score = scored(folder, real, "near_copies")["near_copies"]
    assert 2 / 40 <= score.value <= 4 / 40
    assert score.shared == 1, "one clip is a reference clip, byte for byte; another is, and was not measured"
    table = pd.read_csv(folder.path / "near_copies.csv", dtype={"nearness": str})
    table["nearness"] = table["nearness"].map(float)  # which pandas 2 does not read to the last digit
    first = table.iloc[:2]
    assert set(first["prompt"]) == {SUBSET.prompts[5].id, SUBSET.prompts[6].id} and first["near_copy"].all()
    assert set(zip(first["nearest_prompt"], first["nearest_seed"], strict=True)) == {
        (row.prompt, row.seed) for row in known.clips.iloc[[0, 8]].itertuples()
    }
    assert len(table) == score.n == 39 and table["nearness"].is_monotonic_increasing
    assert table.equals(table.sort_values(["nearness", "prompt", "seed"], ignore_index=True)), "ties by their names"
    (metric,), edge = chosen_metrics(["near_copies"]), float(table["nearness"][9])
    at_edge = dataclasses.replace(metric, settings={**metric.settings, "level": edge})
    (score,) = [one for one in evaluate(folder, [at_edge]) if one.metric == "near_copies"]
    flagged = pd.read_csv(folder.path / "near_copies.csv")["near_copy"]
    assert flagged.mean() == score.value == (table["nearness"] <= edge).mean() >= 10 / 39


def test_a_reference_of_moments_gives_a_distance_without_a_null(tmp_path, real):
    folder = made_up(tmp_path / "run", logits(1, 40, [0]))
    whole = scored(folder, real, "fvd", "kvd")
    known = reference.load(real)
    real_logits = known.values["i3d-k400"]["logits"]
    moments = {"i3d-k400": {"logits": Moments.of(real_logits), "shifted": Moments.of(real_logits + 1)}}
    clips = known.clips.iloc[:0]
    card = {**known.card, "subset": "moments", "subset_digest": None}
    reference_building.write(tmp_path / "moments", card, {}, moments, clips, known.protocols)
    less = scored(folder, tmp_path / "moments", "fvd", "kvd")
    assert less["fvd"].value == pytest.approx(whole["fvd"].value, rel=1e-6)
    assert less["fvd"].null is None and less["fvd"].floor is None and less["fvd"].excess is None
    assert "kvd needs every row of the reference" in less["kvd"].missing
    shifted = dataclasses.replace(chosen_metrics(["fvd"])[0], name="shifted", reference_column="shifted")
    (score,) = [one for one in evaluate(folder, [shifted]) if one.metric == "shifted"]
    ours = np.array([row.values["logits"] for row in current_rows(folder, "i3d-k400").values()])
    assert score.value == pytest.approx(frechet_distance(ours, real_logits + 1), rel=1e-6)
    assert whole["fvd"].reference_clips == less["fvd"].reference_clips == 160 and whole["fvd"].n == 40


def test_copies_of_clips_whose_rows_are_not_kept_would_be_missed_so_there_is_no_number(tmp_path, real):
    reference_building.merge([real], tmp_path / "part", rows=120)
    dropped = reference.load(tmp_path / "part").clips["i3d-k400"] == reference.COUNTED
    assert dropped.sum() == 40
    rows = logits(1, 40, [0])
    rows[5, 0] = {"logits": reference.load(real).values["i3d-k400"]["logits"][dropped][0].astype(np.float32)}
    folder = made_up(tmp_path / "run", rows)
    assert scored(folder, real, "near_copies")["near_copies"].value > 0
    score = scored(folder, tmp_path / "part", "near_copies")["near_copies"]
    assert score.value is None and score.missing == (
        "near_copies needs every row of the reference, which does not keep those of all its 160 clips: build it from "
        "the clips with --rows 160"
    )


def test_sides_that_are_treated_unlike_have_no_null(tmp_path):
    random = np.random.default_rng(5)

    def windows(seeds):
        return {
            (k, s): {"logits": three[1], "logits_windows": three}
            for k in range(40)
            for s in seeds
            for three in [random.standard_normal((3, WIDTH)).astype(np.float32)]
        }

    folder = made_up(tmp_path / "real", windows(range(100, 104)), ASVA.protocol)
    reference_building.pack(folder, SUBSET, [ASVA.protocol], tmp_path / "reference", "CC0")
    run = made_up(tmp_path / "run", windows([0]), ASVA.protocol)
    score = scored(run, tmp_path / "reference", "fvd_asva")["fvd_asva"]
    held = run.evaluation().protocols[score.protocol]
    assert (held["column"], held["reference_column"]) == ("logits", "logits_windows")
    assert score.value > 0 and score.null is None and score.floor is None
    assert score.no_null == "of real clips, other frames are taken than of generated ones"


def test_a_reference_with_one_clip_of_each_prompt_shows_no_near_copies_of_its_prompts(tmp_path):
    reference_building.pack(
        made_up(tmp_path / "real", logits(0, 40, [100])), SUBSET, [PROTOCOL], tmp_path / "reference", "CC0"
    )
    score = scored(made_up(tmp_path / "run", logits(1, 40, [0])), tmp_path / "reference", "near_copies")["near_copies"]
    assert score.value is None and score.missing.startswith("the reference has one clip of each prompt")


def test_clips_of_one_prompt_have_no_null_across_prompts(tmp_path):
    rows = {(number + 20, seed): values for (number, seed), values in logits(0, 20, range(100, 104)).items()}
    reference_building.pack(made_up(tmp_path / "real", rows), SUBSET, [PROTOCOL], tmp_path / "reference", "CC0")
    run = made_up(tmp_path / "run", logits(1, 20, [0, 1]))
    score = scored(run, tmp_path / "reference", "fvd")["fvd"]
    assert score.value > 0 and score.null is None and "clips of one prompt are alike" in score.no_null


def test_what_cannot_be_compared_is_a_sentence(tmp_path, real):
    one = made_up(tmp_path / "one", logits(1, 1, [0]))
    assert "at least 2 clips in each set and one has 1" in scored(one, real, "fvd")["fvd"].missing
    assert "needs 60 in each set" in scored(made_up(tmp_path / "few", logits(1, 40, [0])), real, "fvd_infinity")[
        "fvd_infinity"
    ].missing  # fmt: skip
    wide = {key: {"logits": np.zeros(WIDTH + 1, np.float32)} for key in logits(1, 40, [0])}
    unlike = scored(made_up(tmp_path / "wide", wide), real, "fvd")["fvd"].missing
    assert "13 and 12 dimensions" in unlike and "failed" not in unlike
    other = dataclasses.replace(PROTOCOL, frames=32)
    made = made_up(tmp_path / "b", logits(0, 40, range(100, 104)), other)
    reference_building.pack(made, SUBSET, [other], tmp_path / "unlike", "CC0")
    good = made_up(tmp_path / "good", logits(1, 40, [0]))
    assert "frames: 16 against 32" in scored(good, tmp_path / "unlike", "fvd")["fvd"].missing
    with pytest.raises(InputError, match="NaN or infinite"):
        Row(Key("s", "p", 0), "x", {"logits": np.array([np.nan])})


def test_protocols_are_named_by_their_code():
    assert fvd_metrics(["all"]) == list(FVD_PROTOCOLS.values())
    assert fvd_metrics(["cd-fvd"]) == ["fvd_cd_fvd"]
    assert set(FVD_PROTOCOLS.values()) <= {metric.name for metric in TABLE}
    with pytest.raises(InputError, match="did you mean 'stylegan-v'"):
        fvd_metrics(["styleganv"])


class Killed(BaseException):
    """A death that nothing in between catches."""


def grown(place, monkeypatch=None, deaths=0):
    """A run scored on 4 clips that grew to 6 and was scored again; killed instead of writing whole file `deaths`."""
    run = evaluated(made_run(place, count=4))
    more = made_run(place.with_name(f"{place.name}-6"), count=6)
    for key, sample in more.samples().items():
        if key not in run.samples():
            run.add_sample(sample)
            for feature in ("lpips-alex", "onsets"):
                run.add_row(protocol_of(feature), current_rows(more, feature)[key])
    if monkeypatch is not None:
        write, left = writing.write_whole, iter(range(deaths))

        def until_killed(path, content):
            if next(left, None) is None:
                raise Killed
            write(path, content)

        with monkeypatch.context() as patch:
            for module in (folder_stage, writing):
                patch.setattr(module, "write_whole", until_killed)
            with pytest.raises(Killed):
                evaluate(run, chosen_metrics(list(METRICS)))
    return run


@pytest.mark.slow
@pytest.mark.parametrize("written", [0, 1])
def test_a_death_while_an_evaluation_is_written_never_mixes_two(tmp_path, monkeypatch, written):
    """Of values.parquet and scores.json one is new: no reader takes them together, and the same command heals it."""
    torn, whole = grown(tmp_path / "torn", monkeypatch, written), grown(tmp_path / "whole")
    other = evaluated(made_run(tmp_path / "other", count=6, seed=1))
    for read in (score_table.clip_values, lambda run: differences([other, run]), lambda run: leaderboard([other, run])):
        with pytest.raises(InputError, match=r"torn.*evaluate"):
            read(torn)
    for run in (torn, whole):
        evaluated(run)
    assert (torn.path / "values.parquet").read_bytes() == (whole.path / "values.parquet").read_bytes()
    assert torn.scores() == whole.scores()
    assert {len(values) for values in score_table.clip_values(torn).values()} == {6}


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-9], lambda content: b"\0" * 99])
def test_damaged_or_missing_values_are_a_sentence(tmp_path, damage):
    run = evaluated(made_run(tmp_path / "run", count=4))
    values = run.path / "values.parquet"
    values.write_bytes(damage(values.read_bytes()))
    with pytest.raises(InputError, match="from different evaluations"):
        score_table.clip_values(run)
    (run.path / "scores.json").unlink()
    with pytest.raises(InputError, match=r"values\.parquet is damaged"):
        score_table.clip_values(run)
    values.unlink()
    with pytest.raises(InputError, match=r"values\.parquet is missing: run `avbench evaluate"):
        score_table.clip_values(run)


def test_scores_of_clips_that_were_made_again_are_refused(tmp_path):
    run = evaluated(made_run(tmp_path / "run", count=4))
    key = min(run.samples())
    run.add_sample(dataclasses.replace(run.samples()[key], seconds=2.0))
    assert score_table.clip_values(run), "the same clip"
    run.add_sample(dataclasses.replace(run.samples()[key], sha256=digest("another clip")))
    with pytest.raises(InputError, match="its scores do not belong to its clips"):
        score_table.clip_values(run)


def test_a_number_of_fewer_clips_has_the_reason(tmp_path):
    flow = protocol_of("flow-dis")
    rows = {(k, 0): {"moves": k % 2, "visible_share": 1.0, "warping_error": 0.1} for k in range(40)}
    folder = made_up(tmp_path / "run", rows, flow)
    frozen = (
        "no motion is found in them (the error of a frozen clip has no meaning), or no two frames in a row show the "
        "same place"
    )
    assert _note(folder) == f"rests on 20 clips; 20 could not be measured: {frozen}"
    for k, failure in enumerate(("no memory", "no space", "moderated")):
        key = Key(SUBSET.name, SUBSET.prompts[2 * k].id, 0)
        folder.add_sample(Sample(key, None, None, 0.0, failure=failure, refused=failure == "moderated"))
    why = f"{frozen} (17), no clip (2); the model refused 1 clip"
    assert _note(folder) == f"rests on 20 clips; 20 could not be measured: {why}"


def _note(folder):
    scored(folder, None, "warping_error")
    (table,) = subset_tables(leaderboard([folder]))
    return table.notes[0]


def test_an_evaluation_adds_to_the_earlier_one(tmp_path, real):
    folder = made_up(tmp_path / "run", logits(1, 39, [0]))
    failed = Key(SUBSET.name, SUBSET.prompts[39].id, 0)
    folder.add_sample(Sample(failed, None, None, 0.0, failure="no memory"))
    evaluate(folder, chosen_metrics(["near_copies"]), place=real, given="my clips")
    folder.require_one_evaluation("near_copies.csv")
    scored(folder, None, "fvd")
    assert {score.metric for score in folder.scores() if score.value is not None} == {"near_copies", "fvd"}
    assert folder.evaluation().asked == {"reference": str(real)}, "the reference is remembered"
    assert folder.evaluation().given == {"reference": "my clips"}, "as the user named it"
    folder.require_one_evaluation("near_copies.csv")
    own = dataclasses.replace(chosen_metrics(["fvd"])[0], name="own")
    assert [score.metric for score in evaluate(folder, [own])] == ["fvd", "near_copies", "own"]
    shutil.rmtree(real)
    with pytest.raises(InputError, match="was scored with the reference my clips, which no longer exists"):
        scored(folder, None, "fvd")
