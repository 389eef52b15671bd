"""The gate: what passes, what fails, what cannot be compared, and what its file holds."""

import io
import json
import xml.etree.ElementTree as ET
import zipfile

import numpy as np
import pytest
from made_runs import evaluated, made_run
from typer.testing import CliRunner

from avbench import cli, gate, plan
from avbench.core import InputError, Row, Sample
from avbench.measure import current_rows, protocol_of

PLAN = "[margin]\nlpips_consecutive = 0.001\nonset_rate = 0.5\n"


@pytest.fixture
def baseline(tmp_path):
    gate.update(evaluated(made_run(tmp_path / "before", seed=1)), tmp_path / "baseline.zip", "first")
    (tmp_path / "plan.toml").write_text(PLAN)
    return tmp_path / "baseline.zip"


def check(tmp_path, folder, *more):
    arguments = ["check", str(folder.path), "--baseline", str(tmp_path / "baseline.zip")]
    return CliRunner().invoke(cli.app, [*arguments, "--plan", str(tmp_path / "plan.toml"), *more])


def test_the_same_again_passes_and_so_does_rounding(tmp_path, baseline):
    told = check(tmp_path, evaluated(made_run(tmp_path / "again", seed=1)))
    assert told.exit_code == 0 and "::error" not in told.output
    rounded = made_run(tmp_path / "rounded", seed=1)
    for row in current_rows(rounded, "lpips-alex").values():
        moved = {name: value + 1e-6 for name, value in row.values.items()}  # every clip in one direction
        rounded.add_row(protocol_of("lpips-alex"), Row(row.key, row.clip_sha256, moved))
    assert check(tmp_path, evaluated(rounded)).exit_code == 0


def test_another_draw_of_the_same_model_passes(tmp_path, baseline):
    assert check(tmp_path, evaluated(made_run(tmp_path / "redrawn", seed=2))).exit_code == 0


def test_a_regression_fails_and_is_told_in_every_form(tmp_path, baseline):
    worse = evaluated(made_run(tmp_path / "worse", seed=1, lpips=0.004))
    junit, summary = tmp_path / "junit.xml", tmp_path / "summary.md"
    told = check(tmp_path, worse, "--junit", str(junit), "--summary", str(summary))
    assert told.exit_code == 1
    assert "::error title=toy-control/lpips_consecutive::worse by 0.004" in told.output
    suite = ET.parse(junit).getroot()
    failed = {case.get("name") for case in suite if case.find("failure") is not None}
    assert failed == {"toy-control/lpips_consecutive", "toy-object-contact/lpips_consecutive"} or (
        failed == {"toy-control/lpips_consecutive"}
    ), "on object-contact less than the reference's value is nearer to it"
    assert suite.get("failures") == str(len(failed)) and "**failed**" in summary.read_text()


def test_a_change_smaller_than_its_margin_passes(tmp_path, baseline):
    assert check(tmp_path, evaluated(made_run(tmp_path / "slight", seed=1, lpips=0.0005))).exit_code == 0


def test_clips_that_are_no_longer_measurable_fail(tmp_path, baseline):
    mute = made_run(tmp_path / "mute", seed=1)
    for row in list(current_rows(mute, "onsets").values())[::2]:
        mute.add_row(protocol_of("onsets"), Row(row.key, row.clip_sha256, None, "the clip has no sound"))
    told = check(tmp_path, evaluated(mute))
    assert told.exit_code == 1 and "onset_rate%3A coverage::" in told.output


def test_clips_that_cannot_be_made_fail(tmp_path, baseline):
    broken = made_run(tmp_path / "broken", seed=1)
    key = min(broken.samples())
    broken.add_sample(Sample(key, None, None, 0.0, failure="out of memory"))
    told = check(tmp_path, evaluated(broken))
    assert told.exit_code == 1 and "1 of 48 clips could not be made" in told.output and "out of memory" in told.output


def test_what_cannot_be_compared_is_exit_code_two(tmp_path, baseline):
    def exits_with(folder):
        with pytest.raises(InputError) as refused:
            raise check(tmp_path, folder).exception
        return str(refused.value)

    other = evaluated(made_run(tmp_path / "other", names=["toy-control"]), "lpips_consecutive")
    (tmp_path / "plan.toml").write_text("[margin]\nfvd = 1\n")
    assert "nothing is gated; they have: lpips_consecutive" in exits_with(other)
    (tmp_path / "plan.toml").write_text(PLAN)
    baseline.write_bytes(b"not a zip")
    assert "is no baseline" in exits_with(other)


def test_a_baseline_moves_for_a_reason_and_keeps_all_of_them(tmp_path, baseline):
    folder = evaluated(made_run(tmp_path / "after", seed=1))
    with pytest.raises(InputError, match="give --reason"):
        gate.update(folder, baseline, " ")
    gate.update(folder, baseline, "new scheduler")
    with zipfile.ZipFile(baseline) as packed:
        history = json.loads(packed.read(gate.HISTORY))
        names = set(packed.namelist())
    assert [one["reason"] for one in history] == ["first", "new scheduler"] and history[1]["run"]["name"] == "after"
    assert {"run.json", "scores.json", "values.parquet", "samples.jsonl"} <= names
    assert not any(name.startswith("clips/") for name in names)


def test_a_baseline_cannot_write_outside(tmp_path, baseline):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        packed.writestr("../outside.txt", "x")
    baseline.write_bytes(content.getvalue())
    with pytest.raises(InputError, match=r"holds '\.\./outside.txt'"):
        gate.check(evaluated(made_run(tmp_path / "x", seed=1)), baseline, plan.Plan())
    assert not (tmp_path / "outside.txt").exists()


def test_false_alarms_are_rare_and_regressions_are_found(tmp_path, baseline):
    """On values alone: 60 other draws pass, and 20 that are worse by four margins are found."""
    known = plan.from_plain({"margin": {"lpips_consecutive": 0.0001}})
    alarms = [
        any(one.failed for one in gate.check(evaluated(made_run(tmp_path / f"a{s}", seed=s)), baseline, known))
        for s in range(10, 40)
    ]
    assert np.sum(alarms) <= 4
    found = [
        any(
            one.failed
            for one in gate.check(evaluated(made_run(tmp_path / f"b{s}", seed=s, lpips=0.001)), baseline, known)
        )
        for s in range(40, 50)
    ]
    assert np.sum(found) >= 9
