"""VBench's quality score and its partial total, beside VBench's own arithmetic."""

import pandas as pd
import pytest

from avbench.metrics.table import METRICS
from avbench.metrics.vbench_total import QUALITY, SEMANTIC, total
from avbench.report.vbench import totals

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
