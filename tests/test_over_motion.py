"""What goes with how much moves is shown at equal amounts."""

from xml.etree import ElementTree

import pandas as pd

from avbench.comparison.score_table import over_motion
from avbench.report.page import plots
from avbench.storage.runs.folder import RunFolder


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


def figures(runs):
    values = pd.concat([pd.read_parquet(one.path / "values.parquet").assign(model=one.path.name) for one in runs])
    return list(plots.over_motion(values, over_motion(runs), [one.path.name for one in runs], "s"))


def test_a_figure_has_every_clip_and_the_means_at_the_middle_of_their_bins(tmp_path):
    quiet = run(tmp_path / "a", [0.01] * 3 + [0.3] * 3, [1.0] * 3 + [2.0] * 3)
    loud = run(tmp_path / "b", [0.3] * 3 + [0.9] * 3, [4.0] * 3 + [8.0] * 3)
    (figure,) = figures([quiet, loud])
    assert figure.title == "warping_error"
    assert "a 1.00 at 0.01; a 2.00 at 0.3; b 4.00 at 0.3; b 8.00 at 0.9" in figure.drawing
    assert figure.drawing.count("data-prompt=") == 12
    assert all(colour in figure.drawing for colour in plots.COLOURS[:2])


def test_runs_have_numbers_and_a_legend_because_colours_repeat(tmp_path):
    runs = [run(tmp_path / f"r{place}", [0.3] * 3, [float(place)] * 3) for place in range(len(plots.COLOURS) + 1)]
    (figure,) = figures(runs)
    texts = [one.text for one in ElementTree.fromstring(figure.drawing).iter("{http://www.w3.org/2000/svg}text")]
    for place, one in enumerate(runs):
        assert texts[texts.index(one.path.name) - 1] == str(place + 1) and texts.count(str(place + 1)) >= 2
    assert 'data-run="r8"' in figure.drawing


def test_no_values_no_figures(tmp_path):
    assert figures([run(tmp_path / "a", [], [])]) == []
