"""The study of benchmarks/hearing: its arms differ in what they hear alone, and its numbers can be remade."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from processes import processes_of, wait_until

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_blocks_come_first_and_within_a_block_rounds_of_seeds() -> None:
    from benchmarks.hearing.plans import read_plan
    from benchmarks.hearing.trainings import Study

    trainings = [(arm.name, seed) for arm, seed in Study(read_plan(), ROOT, None, None).trainings()]
    assert trainings[:4] == [("t2v", 0), ("t2av", 0), ("empty", 0), ("t2v", 1)]
    assert trainings[15][0] == "t2v-both"
    assert len(trainings) == len(set(trainings)) == 48


def test_what_the_plan_of_ablations_compares_is_trained_from_bundled_towers() -> None:
    from avbench.avfulldit import checkpoint
    from benchmarks.hearing.plans import PLAN, read_plan
    from benchmarks.hearing.trainings import Study

    plan = read_plan(PLAN.with_name("ablations.toml"))
    study = Study(plan, ROOT / "nowhere", None, None)
    trainings = [(arm.name, seed) for arm, seed in study.trainings()]
    assert trainings[:4] == [("t2av", 0), ("vanilla", 0), ("expand-video", 0), ("t2av", 1)]
    assert len(trainings) == len(set(trainings)) == 21
    compared = {name for question in plan["primary"] for pair in question["compared"] for name in pair}
    assert compared == {arm.name for arm in study.arms} - {"t2v"}
    assert [checkpoint.load(study.tower(what)).arm for what in ("video", "audio")] == ["t2v", "t2a"]


def test_the_plan_of_few_clips_goes_on_from_the_ablations() -> None:
    from benchmarks.hearing.plans import PLAN, read_plan
    from benchmarks.hearing.trainings import Study

    few, before = (read_plan(PLAN.with_name(name)) for name in ("few_clips.toml", "ablations.toml"))
    for shared in ("towers", "joint", "examples", "physical_error"):
        assert few[shared] == before[shared]
    assert {**few["training"], "along": []} == before["training"], "t2v and t2av are not trained again"
    assert few["secondary"]["metrics"] == before["secondary"]["metrics"]
    study = Study(few, ROOT / "nowhere", None, None)
    assert {arm.name: study.along(arm) for arm in study.arms} == {
        "t2v": [], "t2av": [], "t2v-few": [200], "t2av-few": [200],
    }  # fmt: skip
    assert {name for question in few["primary"] for arms in question["compared"] for name in arms} == {
        arm.name for arm in study.arms
    }


def test_the_plan_of_controls_goes_on_from_the_ablations() -> None:
    from benchmarks.hearing.plans import PLAN, read_plan
    from benchmarks.hearing.trainings import Study

    controls, before = (read_plan(PLAN.with_name(name)) for name in ("controls.toml", "ablations.toml"))
    for shared in ("training", "towers", "joint", "examples", "physical_error", "secondary"):
        assert controls[shared] == before[shared], "t2v and t2av are not trained again"
    study = Study(controls, ROOT / "nowhere", None, None)
    sounds = {arm.name: arm.sound for arm in study.arms}
    assert sounds.pop("t2v") == "none" and sounds.pop("t2av") == "own"
    assert {name: name for name in sounds} == sounds
    assert [question["compared"] for question in controls["primary"]] == [[["t2av", name] for name in sounds]] * 2
    trainings = [(arm.name, seed) for arm, seed in study.trainings()]
    assert trainings[:3] == [("t2av", 0), ("empty", 0), ("t2av", 1)]
    assert len(trainings) == len(set(trainings)) == 22


def test_two_effects_are_compared_within_each_seed_and_prompt() -> None:
    from benchmarks.hearing.report import _COLUMNS, Values

    def rows(arm: str, prompt: str, *by_seed: float) -> list[tuple]:
        return [(arm, seed, -1, "s", prompt, "warping_error", value) for seed, value in enumerate(by_seed)]

    values = pd.DataFrame(
        [
            *(row for prompt in "pq" for row in rows("a", prompt, 5.0, 7.0)),
            *(row for prompt in "pq" for row in rows("b", prompt, 1.0, 1.0)),
            *(row for prompt in "pq" for row in rows("c", prompt, 3.0, 2.0)),
            *rows("d", "p", 2.0, 1.0),
            *rows("d", "q", np.nan, 0.0),
        ],
        columns=_COLUMNS,
    )
    study = Values(values, {"baseline": "b", "physical_error": {"parts": []}})
    assert study.compared(("a", "b"), "warping_error", "s").value == 5
    found = study.compared(("a", "b", "c", "d"), "warping_error", "s")
    assert found.value == (3 + (5 + 4) / 2) / 2, "prompt q of seed 0 is left out of both"
    assert found.trainings == (2, 2)
    assert study.compared(("a", "e"), "warping_error", "s") is None


def test_what_was_not_measured_yet_stays_in_the_declared_family() -> None:
    from benchmarks.hearing.report import _COLUMNS, Values, primary, table

    luck = np.random.default_rng(0).normal(size=(2, 3, 8))
    values = pd.DataFrame(
        [
            (arm, seed, -1, "s", str(prompt), "sync_excess", luck[number, seed, prompt] + 2 * number)
            for number, arm in enumerate(("a", "b"))
            for seed in range(3)
            for prompt in range(8)
        ],
        columns=_COLUMNS,
    )
    question = {
        "measure": "sync_excess",
        "subset": "s",
        "margin": 0.1,
        "compared": [["b", "a"], ["c", "a"], ["d", "a"]],
    }
    plan = {"baseline": "a", "physical_error": {"parts": []}, "primary": [question]}
    found = primary(Values(values, plan), plan)
    assert list(found["comparison"]) == ["b − a", "c − a", "d − a"]
    assert found["p"][0] < 0.3
    assert found["p by Holm"][0] == pytest.approx(3 * found["p"][0])
    assert found["p"][1:].isna().all()
    reason = "not measured: two trainings with the same seeds are needed (c 0, a 3; 0 shared)"
    assert found["within the margin"][1] == reason
    assert reason in table(found).splitlines()[3] and "nan" not in table(found)


def test_an_arm_without_sound_neither_hears_nor_speaks() -> None:
    from avbench.avfulldit.model import AVFullDiT, JointConfig
    from avbench.avfulldit.native import NativeConfig, NativeTower
    from avbench.avfulldit.tower import Text
    from benchmarks.hearing.arms import without_sound

    torch.manual_seed(0)
    shape = {"width": 64, "heads": 1, "layers": 1, "text_width": 16}
    video = NativeTower(NativeConfig("video", channels=3, levels=(8, 16), **shape))
    audio = NativeTower(NativeConfig("audio", channels=4, **shape))
    dit = AVFullDiT(video, audio, JointConfig(1, 2.0, init="random"))
    for weight in dit.parameters():  # new blocks pass their input on until they have learned
        torch.nn.init.normal_(weight, std=0.2)
    text = Text(torch.randn(1, 2, 16), None)
    frames, t = torch.randn(1, 3, 2, 16, 16), torch.tensor([0.5])
    one, other = torch.randn(1, 4, 4), torch.randn(1, 4, 4)
    heard = [dit(frames, sound, t, text, text)[0] for sound in (one, other)]
    assert not torch.equal(*heard)
    deaf = without_sound(dit)
    alike = [deaf(frames, sound, t, text, text) for sound in (one, other)]
    assert torch.equal(alike[0][0], alike[1][0])
    assert not alike[0][1].any()


@pytest.mark.parametrize("sound", ["own", "silence", "other", "late", "empty"])
def test_what_an_arm_hears(sound: str) -> None:
    from avbench.avfulldit.spectrogram import SpectrogramCodec, SpectrogramCodecConfig
    from avbench.toyworld import FAMILIES
    from avbench.training.examples import Batch
    from benchmarks.hearing.arms import Arm
    from benchmarks.hearing.trainings import _PARTNER, SoundReplaced

    codec = SpectrogramCodec(SpectrogramCodecConfig())
    clips = 60 * len(FAMILIES) + 2
    latents = torch.randn(clips, *codec.shape(32000))

    class Parts:
        audio_codec = codec
        dit = torch.nn.Linear(1, 1)

    def feed(rows: np.ndarray) -> Batch:
        return Batch(rows, torch.zeros(len(rows)), latents[rows], rows, -rows)

    rows = np.array([3, clips - 1])
    batch = SoundReplaced(Arm("x", sound), feed, Parts(), clips)(rows)
    silence = codec.encode(torch.zeros(1, 1, 32000))
    partner = np.array([3 + 9 * _PARTNER, 1 + 9 * _PARTNER])  # the last clip is the second of a new turn
    assert (partner % len(FAMILIES) == rows % len(FAMILIES)).all()
    wanted = {
        "own": latents[rows],
        "silence": silence.expand(2, -1, -1),
        "other": latents[partner],
        "late": torch.cat([silence[..., :20].expand(2, -1, -1), latents[rows][..., :-20]], dim=-1),
        "empty": torch.zeros_like(latents[rows]),
    }[sound]
    assert torch.equal(batch.audio, wanted)
    assert np.array_equal(batch.video_captions, rows)
    assert np.array_equal(batch.audio_captions, -(partner if sound == "other" else rows))


def test_parts_of_the_physical_error_are_in_units_of_the_spread_of_t2v() -> None:
    from benchmarks.hearing.report import _COLUMNS, physical_error, standardised_parts

    def row(arm: str, prompt: str, metric: str, value: float) -> tuple:
        return (arm, 0, -1, "s", prompt, metric, value)

    values = pd.DataFrame(
        [
            *(row("t2v", str(n), "toy_breaks", value) for n, value in enumerate([0.0, 2.0])),
            *(row("t2v", str(n), "toy_contact", value) for n, value in enumerate([1.0, 0.0])),
            row("t2av", "0", "toy_breaks", 1.0),
            row("t2av", "0", "toy_contact", np.nan),
        ],
        columns=_COLUMNS,
    )
    plan = {"baseline": "t2v", "physical_error": {"parts": ["toy_breaks", "toy_contact"]}}
    found = physical_error(standardised_parts(values, plan)).set_index(["arm", "prompt"])["value"]
    assert found["t2v", "0"] == 0
    assert found["t2v", "1"] == pytest.approx((2 / 2**0.5 + 1 / 0.5**0.5) / 2)
    assert found["t2av", "0"] == pytest.approx(1 / 2**0.5)


def test_a_part_counts_only_where_both_clips_of_a_pair_have_it() -> None:
    from benchmarks.hearing.report import Values, by_shared_parts, levels

    columns = ["arm", "seed", "step", "subset", "prompt", "metric", "value"]
    random = np.random.default_rng(0)
    values = pd.DataFrame(
        [
            (arm, seed, -1, "s", f"p{prompt}", part, random.normal() + 5 * (part == "toy_breaks"))
            for arm in ("t2v", "t2av")
            for seed in range(3)
            for prompt in range(8)
            for part in ("toy_gravity_error", "toy_breaks")
            if (arm, part) != ("t2av", "toy_gravity_error") or prompt % 2
        ],
        columns=columns,
    )
    question = {"measure": "physical_error", "subset": "s", "margin": 1, "compared": [["t2av", "t2v"]]}
    plan = {"baseline": "t2v", "physical_error": {"parts": ["toy_gravity_error", "toy_breaks"]}, "primary": [question]}
    plan |= {"arm": [{"name": "t2v"}, {"name": "t2av"}], "secondary": {"subsets": ["s"]}}
    study = Values(values, plan)
    (row,) = by_shared_parts(study, plan).to_dict("records")
    parts = study._parts.pivot_table(index=["arm", "seed", "prompt"], columns="metric", values="value")
    parts.loc[parts.index.get_level_values("prompt").isin(["p0", "p2", "p4", "p6"]), "toy_gravity_error"] = np.nan
    means = parts.mean(axis=1).groupby("arm").mean()
    assert row["difference"] == pytest.approx(means["t2av"] - means["t2v"])
    assert row["difference"] != pytest.approx(study.compared(["t2av", "t2v"], "physical_error", "s").value)
    both = levels(study, plan).set_index("arm")
    assert (both["clips with a value"] == "100%").all() and (both["trainings"] == 3).all()


@pytest.mark.parametrize("plan", ["plan", "ablations", "few_clips", "controls"])
def test_the_cards_are_those_of_one_study(plan: str) -> None:
    from avbench.core import InputError
    from benchmarks.hearing.report import read_plan, require_one_study

    folder = ROOT / "benchmarks" / "hearing"
    name = {"plan": "cards", "ablations": "ablation_cards", "few_clips": "few_clip_cards", "controls": "control_cards"}[
        plan
    ]
    cards = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    asked = read_plan(folder / f"{plan}.toml")
    require_one_study(cards, asked)
    assert [card["checkpoint"] for card in cards] == sorted(
        f"{card['arm']['name']}-{card['plan']['seed'] - 100}"
        + f"@{card['step']}" * (card["step"] < asked["training"]["steps"])
        for card in cards
    ), "the file is what the report writes"
    seeds = {card["plan"]["seed"] for card in cards}
    assert len({card["seen_sha256"] for card in cards}) >= len(seeds) > 2
    last = next(card for card in reversed(cards) if card["arm"]["name"] == "t2v")
    for change in ({"seen_sha256": "0" * 64}, {"machine": {}}, {"plan": {**last["plan"], "steps": 7}}):
        with pytest.raises(InputError, match=f"{last['checkpoint']} has another"):
            require_one_study([*cards, {**last, **change}], asked)


def test_the_answer_on_arms_names_their_trainings(tmp_path: Path) -> None:
    from avbench.comparison.arms import opened_arms, trainings_of

    for name in ("t2v-0", "t2v-1", "t2v-0-at-20", "t2v-few-0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    meant, wide = opened_arms({"t2v": f"{tmp_path}/t2v-[0-9]"}), opened_arms({"t2v": f"{tmp_path}/t2v-*"})
    assert [*map(trainings_of, meant)] == ["Trainings of t2v: t2v-0, t2v-1."]
    assert "t2v-0-at-20" in trainings_of(wide[0]) and "t2v-few-0" in trainings_of(wide[0])


def test_a_finished_training_of_another_recipe_is_not_taken_for_this_one(tmp_path: Path) -> None:
    from avbench.core import InputError
    from avbench.training.plan import Plan
    from benchmarks.hearing.trainings import _is_finished

    lines = (ROOT / "benchmarks" / "hearing" / "ablation_cards.jsonl").read_text().splitlines()
    card = json.loads(lines[0])
    plan, more = Plan(**card["plan"]), {name: card[name] for name in ("arm", "towers")}
    assert not _is_finished(tmp_path, plan, more)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "card.json").write_text(json.dumps(card))
    assert _is_finished(tmp_path, plan, more)
    renamed = {**more, "arm": {**more["arm"], "name": "x", "seeds": 9, "block": 0}}
    assert _is_finished(tmp_path, plan, renamed), "another plan may name it otherwise, and train more of it"
    other_towers = {**more, "towers": {**more["towers"], "video": "0" * 64}}
    longer = Plan(**{**card["plan"], "steps": 800})
    for asked in ((longer, more), (plan, other_towers), (plan, {**more, "arm": {**more["arm"], "sound": "late"}})):
        with pytest.raises(InputError, match="holds another training"):
            _is_finished(tmp_path, *asked)


def test_a_study_goes_on_as_it_was_begun(tmp_path: Path) -> None:
    from avbench.training.machine import Machine
    from benchmarks.hearing.study import machine_of

    options = argparse.Namespace(folder=tmp_path, tiny=True, threads=torch.get_num_threads())
    assert machine_of(options) == Machine("cpu", "float32")
    begun = {"device": "cpu", "precision": "bfloat16", "compile": True, "graphs": False}
    (tmp_path / "machine.json").write_text(json.dumps(begun))
    assert machine_of(options) == Machine("cpu", "bfloat16", compile=True), "the machine is not measured again"


@pytest.mark.parametrize(
    ("plan", "values", "heading"),
    [
        ("plan.toml", "values.parquet", "Answer"),
        ("ablations.toml", "ablations.parquet", "Positions of the audio, and the weight of its loss"),
        ("few_clips.toml", "few_clips.parquet", "Few clips to train on"),
        ("controls.toml", "controls.parquet", "Is it the matching sound that matters?"),
    ],
)
def test_the_page_states_what_the_values_give(plan: str, values: str, heading: str) -> None:
    from benchmarks.hearing.report import Values, primary, read_plan

    folder = ROOT / "benchmarks" / "hearing"
    asked = read_plan(folder / plan)
    found = primary(Values(pd.read_parquet(folder / values), asked), asked)
    page = (ROOT / "docs" / "hearing.md").read_text().replace("−", "-")
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    cell = r" (\S+) \|"
    rows = re.findall(rf"\| [^|]+, ([^|,]+ - [^|,]+) \|{cell} (\S+) … (\S+) \|{cell}{cell} (\S+): ([\w ]+) \|", section)
    assert len(rows) == len(found) == sum(len(question["compared"]) for question in asked["primary"])
    for (name, *numbers, within), row in zip(rows, found.to_dict("records"), strict=True):
        assert name == row["comparison"].replace("−", "-")
        low, high = map(float, row["95 %"].split(" … "))
        stated = [row["difference"], low, high, row["p"], row["p by Holm"], row["margin"]]
        for text, value in zip(numbers, stated, strict=True):
            digits = len(text.partition(".")[2])
            assert float(text) == pytest.approx(value, abs=0.51 * 10**-digits)
        assert within == {"shown": "yes", "not shown": "not shown"}[row["within the margin"]]


MOTION = "motion_frechet"


def _stored(name: str) -> Any:
    from benchmarks.hearing.plans import PLAN, read_plan
    from benchmarks.hearing.report import Values, read_stored

    plan = read_plan(PLAN.with_name(f"{name}.toml"))
    file = PLAN.with_name("values.parquet" if name == "plan" else f"{name}.parquet")
    return Values(read_stored(file, plan, name), plan), plan


@pytest.mark.parametrize(
    ("plan", "comparison", "measure", "subset", "stated"),
    [
        ("ablations", ("vanilla", "t2av"), "sync_excess", "toy-large-motion", "+0.147 (0.068 … 0.227; p 0.002)"),
        ("ablations", ("audio-3", "t2av"), "toy_breaks", "toy-object-contact", "+0.090 (p 0.02)"),
        ("ablations", ("audio-3", "t2av"), "toy_breaks", "toy-large-motion", "+0.097 (p 0.03)"),
        ("few_clips", ("t2v-few", "t2v"), "physical_error", "toy-object-contact", "−0.011 (−0.093 … 0.070)"),
        ("few_clips", ("t2v-few", "t2v"), "physical_error", "toy-large-motion", "−0.113 (−0.220 … −0.005; p 0.04)"),
        ("few_clips", ("t2v-few", "t2v"), MOTION, "toy-object-contact", "−0.0016 (−0.0028 … −0.0003; p 0.03)"),
        ("few_clips", ("t2v-few", "t2v"), MOTION, "toy-large-motion", "−0.0002 (−0.0250 … 0.0246)"),
        ("few_clips", ("t2av-few", "t2av"), "physical_error", "toy-object-contact", "−0.032 (−0.114 … 0.050)"),
        ("few_clips", ("t2av-few", "t2av"), "physical_error", "toy-large-motion", "−0.017 (−0.092 … 0.058)"),
        ("few_clips", ("t2av-few", "t2av"), MOTION, "toy-object-contact", "−0.0009 (−0.0016 … −0.0003; p 0.02)"),
        ("few_clips", ("t2av-few", "t2av"), MOTION, "toy-large-motion", "+0.0017 (−0.0247 … 0.0282)"),
        ("few_clips", ("t2av-few", "t2v"), "toy_energy_gain", "toy-object-contact", "+0.080 m (p 0.04)"),
        ("controls", ("empty", "t2v"), "toy_gravity_error", "toy-large-motion", "−0.567 m/s² (−1.008 … −0.125"),
    ],
)  # fmt: skip
def test_the_page_states_exploratory_differences(
    plan: str, comparison: tuple[str, str], measure: str, subset: str, stated: str
) -> None:
    study, _ = _stored(plan)
    found = study.compared(comparison, measure, subset)
    assert stated in " ".join((ROOT / "docs" / "hearing.md").read_text().split())
    numbers = re.findall(r"[\d.]*\d", stated.replace("m/s²", ""))
    values = [found.value, *(found.interval if "…" in stated else ()), *([found.p] if "p " in stated else ())]
    for text, value in zip(numbers, values, strict=True):
        assert float(text) == pytest.approx(abs(value), abs=0.51 * 10 ** -len(text.partition(".")[2]))


@pytest.mark.parametrize(
    ("plan", "counts"),
    [("ablations", [(4, 24), (10, 70)]), ("few_clips", [(2, 10), (1, 36)]), ("controls", [(0, 20), (1, 59)])],
)
def test_the_page_counts_exploratory_differences(plan: str, counts: list[tuple[int, int]]) -> None:
    """Of the three measures without the declared questions, and of the parts of the physical error."""
    from benchmarks.hearing.report import MEASURES, differences

    study, asked = _stored(plan)
    pairs = [(row["name"], asked["baseline"]) for row in asked["arm"] if row["name"] != asked["baseline"]]
    declared = {
        (question["measure"], question["subset"], " − ".join(arms))
        for question in asked["primary"]
        for arms in question["compared"]
    }
    for measures, (low, of) in zip((MEASURES, asked["physical_error"]["parts"]), counts, strict=True):
        rows = differences(study, asked, pairs, measures).query("difference != 0")
        keys = zip(rows["measure"], rows["subset"], rows["comparison"], strict=True)
        rows = rows[[key not in declared for key in keys]]
        assert (int((rows["p"] < 0.05).sum()), len(rows)) == (low, of)


def test_the_page_states_means_of_trainings_on_the_way() -> None:
    from benchmarks.hearing.report import along

    page = (ROOT / "docs" / "hearing.md").read_text()
    rows = re.findall(r"\| (?:[^|\n]+)? ?\| (200|400) \| (\S*) ?\| (\S+) \|", page)
    found = along(*_stored("few_clips"))
    chosen = [("physical_error", "toy-object-contact"), ("motion_frechet", "toy-large-motion")]
    chosen.append(("sync_excess", "toy-object-contact"))
    wanted = [
        row
        for where in chosen
        for row in found[(found["measure"] == where[0]) & (found["subset"] == where[1])].itertuples()
    ]
    assert len(rows) == len(wanted) == 6
    for (step, *texts), row in zip(rows, wanted, strict=True):
        assert int(step) == row.step
        for text, value in zip(texts, row[5:], strict=True):
            assert (not text and np.isnan(value)) or float(text) == round(value, len(text.partition(".")[2]))


def test_the_page_states_how_far_trainings_scatter_and_which_clips_fall() -> None:
    study, _ = _stored("plan")
    page = " ".join((ROOT / "docs" / "hearing.md").read_text().split())
    scatter, fall = [], study.last.query("metric == 'toy_gravity_error' and value == value")
    for subset in ("toy-object-contact", "toy-large-motion"):
        means = [
            study.by_prompt(arm, "physical_error", subset, study.seeds(arm)).mean(axis=1)
            for arm in ("t2v", "t2av", "empty")
        ]
        shares = [100 * float(of_arm.std(ddof=1) / of_arm.mean()) for of_arm in means]
        scatter.append(f"{min(shares):.0f} to {max(shares):.0f} %")
    assert f"scatter by {scatter[0]} on toy-object-contact and {scatter[1]} on toy-large-motion" in page
    counts = fall[fall["arm"].isin(["t2v", "t2av", "empty"])].groupby(["arm", "subset", "seed"]).size()
    assert f"({counts.min()} to {counts.max()} of the 96 clips of a training have it)" in page


def test_values_of_another_plan_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.hearing import report
    from benchmarks.hearing.plans import PLAN

    controls, damaged, unnamed = (
        PLAN.with_name("controls.parquet"),
        tmp_path / "damaged.parquet",
        tmp_path / "unnamed.parquet",
    )
    damaged.write_text("x")
    values = pd.read_parquet(controls)
    values.attrs = {}
    values.head().to_parquet(unnamed)
    for given, sentence in (
        (["--values", str(controls)], r"another plan \(controls.toml \w+\) than --plan gives"),
        (["--values", str(unnamed)], r"was made by another plan \(unknown unknown\)"),
        (["--values", str(damaged)], "is damaged or no Parquet file"),
        (["--values", str(tmp_path / "none")], "cannot be read: No such file"),
        (["--folder", str(tmp_path)], "runs is no folder"),
        (["--folder", str(tmp_path), "--plan", str(tmp_path / "none.toml")], "none.toml cannot be read"),
    ):  # fmt: skip
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
            patch.setattr(sys, "argv", ["report", *given, "--out", str(tmp_path / "out")])
            report.main()
        (line,) = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and re.search(sentence, line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('baseline = "t2v"', 'baseline = "t2w"', "baseline names 't2w', which the plan does not have; did you mean"),
        ('"t2av", "t2v"]', '"t2av", "t2x"]', "compared names 't2x'"),
        ('along = ["t2v-few"', 'along = ["few"', "along names 'few'"),
        ('measure = "physical_error"', 'measure = "error"', "measure names 'error'"),
        ("steps = 400", "stepz = 400", "training: the field 'stepz' is unknown; did you mean 'steps'"),
        ("steps = 400", 'steps = "400"', "training: steps is '400'; it must be a whole number"),
        ("steps = 400", "steps = 400\nseed = 1", "training has the field 'seed'"),
        ('sound = "none"', 'sound = "nothing"', "arm 1: sound is 'nothing'; it should be 'none'"),
        ('sound = "none"', "", "arm 1: the field 'sound' is missing"),
        ('bundled = "toy-t2v"', "width = 64", "the tower 'video' needs steps and batch, or bundled"),
        ('name = "t2av-few"', 'name = "t2v-few"\nseeds = 2', "names 't2av-few'"),
        ('["t2av", "t2v"],', '["t2av"],', r"compared has \['t2av'\]; give two arms"),
    ],
)  # fmt: skip
def test_a_plan_is_checked_as_it_is_read(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    from avbench.core import InputError
    from benchmarks.hearing.plans import PLAN, read_plan

    text = PLAN.with_name("few_clips.toml").read_text()
    assert old in text
    (tmp_path / "plan.toml").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=sentence):
        read_plan(tmp_path / "plan.toml")


_STAND_INS = """
import os, time
from benchmarks.hearing import study

def note(name):
    (study.Path(os.environ["NOTED"]) / name).write_text(str(os.getpid()))
    time.sleep(600)

def trainer(options, machine, number):
    note("trainer")

def measuring(options, machine):
    with study.measuring_pool(1) as pool:
        pool.submit(note, "worker").result()

if __name__ == "__main__":
    import stand_ins
    study.run_trainer, study.run_measuring = stand_ins.trainer, stand_ins.measuring
    study.main()
"""


@pytest.mark.slow
def test_a_study_ends_all_its_processes_and_is_alone_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "stand_ins.py").write_text(_STAND_INS)
    noted, path = tmp_path / "noted", os.pathsep.join([str(tmp_path), str(ROOT)])
    noted.mkdir()
    words = [sys.executable, str(tmp_path / "stand_ins.py"), "--tiny", "--examples", "x"]
    words += ["--folder", str(tmp_path / "study")]
    how = {"env": {**os.environ, "PYTHONPATH": path, "NOTED": str(noted)}, "stderr": subprocess.PIPE, "text": True}

    def stopped(of: str | None, number: int) -> tuple[int, str]:
        for file in noted.iterdir():
            file.unlink()
        with subprocess.Popen(words, start_new_session=True, **how) as study:
            wait_until(
                lambda: all((noted / name).is_file() and (noted / name).read_text() for name in ("trainer", "worker"))
            )
            if of is None:
                second = subprocess.run(words, check=False, **how)
                assert second.returncode == 2 and "is being written by another run of the study" in second.stderr
            os.kill(int((noted / of).read_text()) if of else study.pid, number)
            _, said = study.communicate()
            wait_until(lambda: not processes_of(study.pid))
        return study.returncode, said

    assert stopped(None, signal.SIGTERM) == (130, "Stopped; the same command goes on.\n")
    code, said = stopped("trainer", signal.SIGKILL)
    assert code == 1 and said.endswith("a process of the study failed; the same command goes on\n")
    assert stopped(None, signal.SIGKILL)[0] == -signal.SIGKILL


def test_the_page_states_the_other_measures() -> None:
    from benchmarks.hearing.report import Values, read_plan

    values = pd.read_parquet(ROOT / "benchmarks" / "hearing" / "values.parquet")
    study = Values(values, read_plan())
    page = (ROOT / "docs" / "hearing.md").read_text().replace("−", "-")
    cell = r" (\S+) \((\S+) … (\S+)\) \|"
    rows = re.findall(rf"\| \[?`(\w+)`[^|]* \(([\d.]+)\) \|{cell}{cell}\n", page)
    assert len(rows) == 6
    for measure, mean, *numbers in rows:
        contact = study.last.query("arm == 't2v' and metric == @measure and subset == 'toy-object-contact'")["value"]
        stated = [contact.mean()]
        for subset in ("toy-object-contact", "toy-large-motion"):
            found = study.compared(("t2av", "t2v"), measure, subset)
            stated += [found.value, *found.interval]
        for text, value in zip((mean, *numbers), stated, strict=True):
            digits = len(text.partition(".")[2])
            assert float(text) == pytest.approx(value, abs=0.51 * 10**-digits)
