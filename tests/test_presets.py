"""A paper's preset: what it asks, what took the place of what, and printed values that stay what they are."""

import dataclasses
import json

import pandas as pd
import pytest
from command_line import run_avbench

from avbench.comparison import paper_presets
from avbench.core import InputError
from avbench.report.printed import _section, frame
from avbench.subsets.loading import load

NAME = "hearing-helps-seeing"
PAPER = paper_presets.load(NAME)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two worlds asked by the preset, with little of it left."""
    out = tmp_path_factory.mktemp("preset")
    little = ["--subset", "toy-control", "--limit", 2, "--metric", "onset_rate", "--workers", 0]
    done = run_avbench("run", "toyworld:", "toyworld:frozen", "--preset", NAME, *little, "--out", out)
    assert done.exit_code == 0, done.output
    return out


@pytest.mark.slow
def test_printed_values_stand_by_themselves(whole):
    printed = pd.read_csv(whole / "printed.csv", dtype={"as_printed": str})
    ours = pd.read_csv(whole / "table.csv")
    assert (printed["kind"] == "printed").all() and set(printed["column"]).isdisjoint(ours["metric"])
    assert len(printed) == 14 * 6, "Table 2: seven sets, two arms, six columns"
    row = printed[(printed["on"] == "AVSync15") & (printed["model"] == "T2AV") & (printed["column"] == "Physics")]
    assert row["as_printed"].tolist() == ["4.36"] and row["change_percent"].tolist() == [2.59]
    text = (whole / "table.md").read_text()
    assert "| AVSync15: T2AV, printed | 98.42 (+0.28 %) |" in text
    assert "98.42" not in text.split("Printed in")[0] and "**98.42" not in text


def test_a_column_of_another_table_of_the_same_name_keeps_its_own_sentence():
    other = paper_presets.Column("Physics", "higher", table="Table 9", missing="its judge is not published")
    preset = dataclasses.replace(PAPER, columns=[*PAPER.columns, other])
    (physics,) = (one for one in preset.table_columns if one.name == "Physics")
    rows = frame([_section(preset, {"run": {"overridden": [], "left_out": {}}})])
    assert {*rows.loc[rows["column"] == "Physics", "here"]} == {f"cannot be computed: {physics.missing}"}


def test_printed_changes_follow_from_printed_values():
    of = {(row.on, row.model): row for row in PAPER.printed}
    for on in {row.on for row in PAPER.printed}:
        without, with_sound = of[on, "T2V"], of[on, "T2AV"]
        for before, after, change in zip(without.values, with_sound.values, with_sound.change, strict=True):
            found = 100 * (float(after) - float(before)) / float(before)
            assert float(change) == pytest.approx(found, abs=0.15), f"{on}: {before} → {after}"


@pytest.mark.slow
def test_the_report_says_what_took_the_place_of_what(whole, tmp_path):
    done = run_avbench("report", whole / "toyworld", whole / "toyworld-frozen", "--out", tmp_path / "again")
    assert done.exit_code == 0, done.output
    for page in (whole / "report.html", tmp_path / "again" / "report.html"):
        text = page.read_text()
        assert "Printed in the paper" in text and "97.44" in text and "never tested, ranked or bold" in text
        assert "subsets: toy-control instead of object-contact, large-motion" in text
        assert "Physics: cannot be computed: VideoPhy-2" in text
        assert "sampler: not applied to toyworld:, the preset has no sampler settings for its kind" in text
    kept = json.loads((whole / "toyworld" / "run.json").read_text())["preset"]
    assert kept["name"] == NAME and "metrics: onset_rate instead of the paper's columns" in " ".join(kept["overridden"])


def test_a_run_without_a_preset_shows_nothing_printed(tmp_path):
    little = ["--subset", "toy-control", "--limit", 2, "--metric", "onset_rate", "--workers", 0]
    assert run_avbench("run", "toyworld:", *little, "--out", tmp_path).exit_code == 0
    assert "Printed in" not in (tmp_path / "report.html").read_text() and not (tmp_path / "printed.csv").exists()


@pytest.mark.slow
def test_options_come_before_the_preset():
    asked = paper_presets.with_clip_spec(PAPER, [load("object-contact"), load("toy-control")])
    assert asked[0].clip_spec == PAPER.clip and asked[1].clip_spec == load("toy-control").clip_spec
    assert paper_presets.settings(PAPER, "diffusers:a/b", {"steps": 4})["guidance"] == 5.0
    assert "steps" not in paper_presets.settings(PAPER, "diffusers:a/b", {"steps": 4})
    assert paper_presets.settings(PAPER, "clips:somewhere", {}) == {}
    given = paper_presets.Given(settings={"steps": 4}, seeds=3)
    overridden = paper_presets.record(PAPER, "diffusers:a/b", given, asked)["overridden"]
    assert "sampler: steps 4 instead of 50" in overridden and "seeds: 3 per prompt instead of 1" in overridden
    assert any(one.startswith("clip: toy-control keeps its own form") for one in overridden)


def test_what_cannot_be_is_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"preset 'hearing-helps-seing' is unknown.*hearing-helps-seeing"):
        paper_presets.load("hearing-helps-seing")
    text = (paper_presets._HERE / f"{NAME}.toml").read_text()
    for old, new, why in (
        ("version = 1\n", "", "the field 'version' is missing"),
        ("version = 1\n", "version = 1\ncolour = 1\n", "the field 'colour' is unknown; .*choices: beside, caveat"),
        ('metric = "vbench_subject"\n', "", "give either its metric or"),
        ("[seeds]", "[seeds", "own.toml: "),
    ):
        (tmp_path / "own.toml").write_text(text.replace(old, new))
        with pytest.raises(InputError, match=why):
            paper_presets.load(str(tmp_path / "own.toml"))
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path))
    metrics, left_out = PAPER.metrics()
    assert "vbench_subject" in left_out and "vbench_subject" not in {metric.name for metric in metrics}
