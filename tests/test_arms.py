"""Runs grouped into arms: how they are opened and paired, what is refused, and what is found."""

import numpy as np
import pytest
from made_runs import evaluated, made_run

from avbench.comparison import plan
from avbench.comparison.arms import compared_arms, opened_arms, pairing
from avbench.core import InputError
from avbench.statistics.trainings import arm_difference


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Three trainings of arm a; three of arm b, which changes more from frame to frame; and one more, of which runs."""
    folder = tmp_path_factory.mktemp("arms")
    for name, number, lpips in (("a", 0, 0.0), ("b", 30, 0.01)):
        for seed in range(3):
            evaluated(made_run(folder / f"{name}-{seed}", seed=number + seed, lpips=lpips))
    return folder


@pytest.fixture(scope="module")
def found(place):
    return compared_arms(opened_arms({"a": place / "a-*", "b": place / "b-*"}))


def test_what_differs_is_found_and_what_does_not_is_not(found):
    rows = found.differences.set_index(["subset", "metric"])
    worse = rows.loc[("toy-control", "lpips_consecutive")]
    assert worse["better"] == "a" and worse["difference"] == pytest.approx(0.01, rel=0.1) and worse["low"] > 0
    assert (worse["trainings"], worse["trainings_against"], worse["prompts"]) == (3, 3, 24)
    assert worse["least_p"] == worse["p_exact"] == 0.25, "of 8 ways to swap, 2 are as far apart"
    assert rows.xs("onset_rate", level="metric")["better"].isna().all()
    assert (found.differences["family"] == 4).all()


def test_the_numbers_are_those_of_the_runs_values(place, found):
    tables = [
        np.array(
            [
                [one.value for one in folder.values().query("metric == 'onset_rate' and subset == 'toy-control'").itertuples()]
                for folder in arm.trainings
            ]
        )
        for arm in opened_arms({"b": place / "b-*", "a": place / "a-*"})
    ]
    expected = arm_difference(*tables, paired_rows=True, target=0.0)
    row = found.differences.query("metric == 'onset_rate' and subset == 'toy-control'").iloc[0]
    assert (row["difference"], row["p"], row["low"]) == pytest.approx((expected.value, expected.p, expected.interval[0]))
    dots = found.trainings.query("metric == 'onset_rate' and subset == 'toy-control' and arm == 'b'")
    assert list(dots["training"]) == ["b-0", "b-1", "b-2"]
    assert list(dots["value"]) == pytest.approx(list(tables[0].mean(1)))
