"""VBench's quality score and its partial total, beside VBench's own arithmetic."""

import pandas as pd
import pytest
from made_runs import METRICS as METRICS_OF_ROWS
from made_runs import evaluated, made_run

from avbench.comparison.differences import differences
from avbench.comparison.leaderboard import leaderboard
from avbench.metrics.table import METRICS
from avbench.metrics.vbench_total import QUALITY, SEMANTIC, total
from avbench.report.page import page as page_file
from avbench.report.vbench import totals
from avbench.report.writing import PageOptions, write_report

VALUES = {
    "vbench_subject": 0.95,
    "vbench_background": 0.96,
    "vbench_flickering_static": 0.98,
    "vbench_smoothness": 0.985,
    "vbench_dynamic_degree": 0.4,
    "aesthetic_quality": 0.6,
    "imaging_quality": 0.66,
}


def test_the_quality_score_is_vbenchs():
    """Its functions get_nomalized_score and get_quality_score, run on these values, give 0.807760."""
    found = total({**VALUES, "fvd": 300.0})
    assert found.quality == pytest.approx(0.807760, abs=1e-6)
    assert found.semantic is None and found.total == found.quality
    assert found.missing == ["overall_consistency", "temporal_style"]


def test_semantics_count_a_fifth():
    found = total({**VALUES, "overall_consistency": 0.182, "temporal_style": 0.091})
    assert found.semantic == pytest.approx((0.5 + 0.25) / 2)
    assert found.total == pytest.approx((4 * found.quality + found.semantic) / 5)
    assert found.missing == []


def test_what_is_missing_is_left_out_and_not_0():
    whole, less = total(VALUES), total({name: VALUES[name] for name in VALUES if name != "vbench_dynamic_degree"})
    assert less.quality == pytest.approx((whole.quality * 6.5 - 0.4 * 0.5) / 6)
    assert total({"fvd": 300.0}) is None


def test_every_dimension_is_a_metric():
    assert {*QUALITY, *SEMANTIC} <= {metric.name for metric in METRICS}


def board(models):
    rows = [
        {"subset": subset, "model": model, "metric": metric, "value": value}
        for subset in ("water", "micro")
        for model, values in models.items()
        for metric, value in values.items()
    ]
    return pd.DataFrame(rows)


def test_the_table_says_what_it_is_made_of():
    few = {"imaging_quality": 0.66, "aesthetic_quality": 0.6, "vbench_subject": None}
    (table,) = totals(board({"whole": VALUES, "few": few, "one": {"imaging_quality": 0.5}}))
    assert table.subset == "water: VBench" and [name for name, _ in table.rows] == ["whole", "few"]
    assert [cell.text for cell in table.rows[0][1]] == ["0.808 [1]", "–", "0.808 [2]"]
    assert [cell.text for cell in table.rows[1][1]] == ["0.630 [3]", "–", "0.630 [4]"]
    assert table.notes[0] == "7 of 7 dimensions"
    assert table.notes[1].startswith("7 of 16 dimensions; not computed of those that avbench has: overall_consistency")
    assert table.notes[2] == "2 of 7 dimensions" and "vbench_subject" in table.notes[3]
    assert not [*totals(board({"one": {"imaging_quality": 0.5}, "other": {"fvd": 3.0}}))]


def test_the_page_and_the_tables_file_have_it(tmp_path, monkeypatch):
    monkeypatch.setattr(page_file, "_clips", lambda *asked: ({}, {}))  # the run has none
    run = evaluated(made_run(tmp_path / "run", names=["toy-control"]))
    frame = leaderboard([run])
    frame["metric"] = frame["metric"].replace(dict(zip(METRICS_OF_ROWS, QUALITY, strict=False)))
    page = write_report(
        [run], frame, differences([run]), [], tmp_path / "out", PageOptions(workers=0), follow=taken, note=[].append
    )
    words = "A total without all sixteen dimensions is partial"
    assert words in page.read_text() and "toy-control: VBench" in page.read_text()
    assert words in (tmp_path / "out" / "table.md").read_text()


def taken(stage, count, items):
    """Take the items of a job."""
    for _ in items:
        pass
