"""What goes with how much moves is shown at equal amounts."""

import itertools

import pandas as pd

from avbench.compare import over_motion
from avbench.folder import RunFolder
from avbench.report import curves


def run(place, amounts, errors):
    """A folder that holds nothing but values of clips."""
    rows = []
    for index, (amount, error) in enumerate(zip(amounts, errors, strict=True)):
        key = ("s", f"p{index:02d}", 0)
        rows += [(*key, "motion_amount", amount), (*key, "warping_error", error), (*key, "onset_rate", 1.0)]
    place.mkdir()
    pd.DataFrame(rows, columns=["subset", "prompt", "seed", "metric", "value"]).to_parquet(place / "values.parquet")
    return RunFolder(place)


def test_means_are_taken_in_bins_of_enough_clips(tmp_path):
    amounts = [0.01] * 4 + [0.3] * 3 + [0.5] * 2
    errors = [1.0, 1.0, 1.0, 3.0, 4.0, 5.0, 6.0, 9.0, 9.0]
    found = over_motion([run(tmp_path / "a", amounts, errors)])
    assert list(found["metric"].unique()) == ["warping_error"]
    assert found[["bin", "low", "high", "n", "mean"]].to_numpy().tolist() == [
        [0, 0.0, 0.02, 4, 1.5],
        [4, 0.2, 0.4, 3, 5.0],
    ]


def test_clips_without_a_number_are_left_out(tmp_path):
    found = over_motion([run(tmp_path / "a", [0.3] * 4, [1.0, 2.0, 3.0, float("nan")])])
    assert found["n"].tolist() == [3]


def test_charts_lie_within_their_frame_and_share_their_scale(tmp_path):
    quiet = run(tmp_path / "a", [0.01] * 3 + [0.3] * 3, [1.0] * 3 + [2.0] * 3)
    loud = run(tmp_path / "b", [0.3] * 3 + [0.9] * 3, [4.0] * 3 + [8.0] * 3)
    over = over_motion([quiet, loud])
    (chart,) = curves.charts(over, "s")
    assert (chart.metric, chart.lowest, chart.highest) == ("warping_error", "1", "8")
    assert [text for _, text in chart.ticks] == ["≥ 0", "≥ 0.2", "≥ 0.8"]
    points = [point for line in chart.lines for point in line.points]
    assert all(0 < x < curves.WIDTH and 0 < y < curves.HEIGHT for x, y, _ in points)
    by_model = {line.model: line.points for line in chart.lines}
    assert by_model["a"][1][0] == by_model["b"][0][0] and by_model["a"][1][1] > by_model["b"][0][1]
    assert [name for name, _ in curves.legend(over, "s")] == ["a", "b"]
    assert all(x < y for (x, *_), (y, *_) in itertools.pairwise(by_model["a"]))


def test_no_values_no_charts(tmp_path):
    assert curves.charts(over_motion([run(tmp_path / "a", [], [])]), "s") == []
