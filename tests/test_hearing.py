"""The study of benchmarks/hearing: its arms differ in what they hear alone, and its numbers can be remade."""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_blocks_come_first_and_within_a_block_rounds_of_seeds() -> None:
    from benchmarks.hearing.trainings import Study, read_plan

    trainings = [(arm.name, seed) for arm, seed in Study(read_plan(), ROOT, None, None).trainings()]
    assert trainings[:4] == [("t2v", 0), ("t2av", 0), ("empty", 0), ("t2v", 1)]
    assert trainings[15][0] == "t2v-both"
    assert len(trainings) == len(set(trainings)) == 48


def test_what_the_plan_of_ablations_compares_is_trained_from_bundled_towers() -> None:
    from avbench.avfulldit import checkpoint
    from benchmarks.hearing.trainings import PLAN, Study, read_plan

    plan = read_plan(PLAN.with_name("ablations.toml"))
    study = Study(plan, ROOT / "nowhere", None, None)
    trainings = [(arm.name, seed) for arm, seed in study.trainings()]
    assert trainings[:4] == [("t2av", 0), ("vanilla", 0), ("expand-video", 0), ("t2av", 1)]
    assert len(trainings) == len(set(trainings)) == 21
    compared = {name for question in plan["primary"] for pair in question["compared"] for name in pair}
    assert compared == {arm.name for arm in study.arms} - {"t2v"}
    assert [checkpoint.load(study.tower(what)).arm for what in ("video", "audio")] == ["t2v", "t2a"]


def test_the_plan_of_few_clips_goes_on_from_the_ablations() -> None:
    from benchmarks.hearing.trainings import PLAN, Study, read_plan

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
    from benchmarks.hearing.trainings import PLAN, Study, read_plan

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
    from benchmarks.hearing.report import _COLUMNS, Values, primary

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
    assert len(found) == 1
    assert found["p"][0] < 0.3
    assert found["p by Holm"][0] == pytest.approx(3 * found["p"][0])


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
    seeds = {card["plan"]["seed"] for card in cards}
    assert len({card["seen_sha256"] for card in cards}) >= len(seeds) > 2
    last = next(card for card in reversed(cards) if card["arm"]["name"] == "t2v")
    for change in ({"seen_sha256": "0" * 64}, {"machine": {}}, {"plan": {**last["plan"], "steps": 7}}):
        with pytest.raises(InputError, match=f"{last['checkpoint']} has another"):
            require_one_study([*cards, {**last, **change}], asked)


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
