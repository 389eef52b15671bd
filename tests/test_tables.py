"""What is bold, what has a footnote, and how numbers are written."""

import io

import pandas as pd
import pytest
from rich.console import Console

from avbench.compare import _best
from avbench.report.tables import _number, console, differences, markdown, protocols

ROWS = [
    # metric, direction, model, value, low, high, floor, reference, missing
    ("fvd", "lower", "a", 200.4, None, None, 180.0, None, None),
    ("fvd", "lower", "b", 1234.5, None, None, 180.0, None, None),
    ("motion_amount", "band", "a", 0.41, 0.35, 0.47, None, 0.4, None),
    ("motion_amount", "band", "b", 0.0, 0.0, 0.0, None, 0.4, None),
    ("onset_rate", "band", "a", 1.8, 1.0, 2.6, None, None, None),
    ("onset_rate", "band", "b", None, None, None, None, None, "the clip has no | sound"),
]


@pytest.fixture
def frame():
    names = ["metric", "direction", "model", "value", "low", "high", "floor", "reference", "missing"]
    table = pd.DataFrame(ROWS, columns=names).assign(
        subset="s", n=4, unmeasured=0, refused=0, shared=0, unit="", best=False
    )
    of_distance = table["metric"] == "fvd"
    table["excess"] = (table["value"] - 190).where(of_distance)
    table["p"] = pd.Series(0.0015, index=table.index).where(of_distance)
    table.loc[1, "shared"] = 3
    for _, group in table.groupby("metric"):
        table.loc[_best(group), "best"] = True
    return table


def test_best_is_the_extreme_or_what_holds_the_reference(frame):
    best = frame[frame["best"]]
    assert list(zip(best["metric"], best["model"], strict=True)) == [("fvd", "a"), ("motion_amount", "a")]
    higher = frame[frame["metric"] == "fvd"].assign(direction="higher")
    assert list(frame.loc[_best(higher), "model"]) == ["b"]
    assert _best(frame[frame["metric"] == "fvd"].assign(direction="neither")) == []


def test_markdown(frame):
    text = markdown(frame)
    assert "| model | fvd ↓ | motion_amount ≈ | onset_rate ≈ |" in text
    assert "| a | **200 (+10, p 0.002)** | **0.410 ± 0.060** | 1.80 ± 0.80 |" in text
    assert "| b | 1234 (+1044, p 0.002) [1] | 0 ± 0 | – [2] |" in text
    assert "1. 3 of the clips are in the reference as well" in text
    assert "| reference | 180 | 0.400 |  |" in text
    assert "2. the clip has no \\| sound" in text


def test_the_console_shows_every_number_at_eighty_columns(frame):
    screen = Console(width=80, record=True, file=io.StringIO())
    screen.print(console(frame))
    text = screen.export_text()
    assert "1234" in text and "± 0.060" in text and "…" not in text
    assert text.count("model") == 1


def test_a_narrow_console_gets_more_tables_and_no_less_text(frame):
    screen = Console(width=30, record=True, file=io.StringIO())
    screen.print(console(frame, width=30))
    text = screen.export_text()
    assert text.count("model") > 1
    assert "1234" in text and "± 0.060" in text and "(+1044" in text and "…" not in text


def test_protocols_stand_in_rows_with_what_they_span(frame):
    rows = frame[frame["metric"] == "fvd"]
    other = rows.assign(metric="fvd_other", value=[300.0, None], missing=[None, "the clip is too short"])
    screen = Console(width=80, record=True, file=io.StringIO())
    screen.print(protocols(pd.concat([rows, other]), {"ours": "fvd", "theirs": "fvd_other"}))
    text = screen.export_text()
    assert "× 1.50" in text and "fvd_other: the clip is too short" in text
    assert "200 (+10, p 0.002)" in text


def test_differences_say_which_is_nearer():
    frame = pd.DataFrame(
        [("s", "fvd", "b", "a", -12.3, 0.004, 24, None), ("s", "kvd", "b", "a", None, None, 0, "no pairs")],
        columns=["subset", "metric", "run", "against", "difference", "p", "pairs", "missing"],
    )
    screen = Console(width=100, record=True, file=io.StringIO())
    screen.print(differences(frame))
    text = screen.export_text()
    assert "b − a" in text and "-12.3" in text and "0.004" in text and "no pairs" in text
    screen.print(differences(frame.iloc[1:].assign(difference=None, p=None)))
    assert "no pairs" in screen.export_text()


@pytest.mark.parametrize(
    ("value", "beside", "text"),
    [
        (478.93, None, "479"),
        (12345.6, None, "12346"),
        (1.8056, None, "1.81"),
        (0.0004123, None, "0.000412"),
        (8.67e-5, None, "8.7e-05"),
        (0.0, None, "0"),
        (0.0132, 0.0945, "0.0132"),
        (0.86, 1.81, "0.86"),
        (-3.2, None, "-3.20"),
    ],
)
def test_numbers(value, beside, text):
    assert _number(value, beside) == text
