"""The forest plot as a file for a paper: on white, without a dark mode, one for each pair of runs."""

import sys
from xml.etree import ElementTree

import pandas as pd
import pytest
from command_line import run_avbench
from made_runs import evaluated, made_run

from avbench.comparison.differences import TO_TARGET
from avbench.report.page.forest import WIDE, _Mark, _Plot, _Row, forest

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("figures")
    return [
        evaluated(made_run(place / name, seed=seed, lpips=0.01 * seed, names=["toy-control"])).path
        for seed, name in enumerate("abc")
    ]


def test_what_no_subset_can_compare_has_the_reasons_of_all(tmp_path):
    rows = pd.DataFrame({"subset": ["s", "t"], "missing": [None, "t has no reference"]})
    rows = rows.assign(metric="kvd", run="b", against="a", p=[0.1, None], too_few=["n = 8: too few for KVD", None])
    scores = pd.DataFrame({"subset": ["s", "t"], "metric": "kvd", "model": "a", "missing": rows["missing"]})
    drawn = forest(rows.assign(prompts=8.0, family=1.0, paired=True), scores, {})
    assert "not compared: too few clips, n = 8; no reference: kvd" in drawn


def test_a_subset_on_which_a_metric_has_no_better_side_stands_apart():
    """Of ≈ a side is better only where there is a reference: on t, without one, b has more, and is not better."""
    rows = pd.DataFrame({"subset": ["s", "t"], "kind": [TO_TARGET, "clips"], "better": ["a", None]})
    rows = rows.assign(
        metric="motion_amount", direction="band", run="b", against="a", difference=3.0, low=2.0, high=4.0
    )
    rows = rows.assign(p=0.001, p_holm=0.001, shown=True, detectable=1.0, prompts=8.0, family=2.0, paired=True)
    rows = rows.assign(missing=None, too_few=None)
    scores = pd.DataFrame({"subset": ["s", "t"], "metric": "motion_amount", "model": "a", "missing": None})
    drawn = ElementTree.fromstring(str(forest(rows, scores, {"a": "#000001"}, [WIDE])))
    heads = {one.text: float(one.get("y")) for one in drawn.iter(f"{SVG}text") if one.text[0] in "←→"}
    marks = {
        of_row.get("data-subset"): ElementTree.tostring(next(one for one in of_row if "mark" in one.get("class", "")))
        for of_row in drawn.iter(f"{SVG}g")
    }
    places = {of_row.get("data-subset"): float(of_row.find(f"{SVG}rect").get("y")) for of_row in drawn.iter(f"{SVG}g")}
    assert heads["← a better"] < places["s"] < heads["← less in b"] < places["t"]
    assert b"#000001" in marks["s"] and b"fill" not in marks["t"]
    assert "".join(drawn.itertext()).count("shown on 1 of 2 subsets") == 4  # in the rows and their titles


def test_svg_is_drawn_for_print(runs, tmp_path):
    done = run_avbench("compare", *runs[:2], "--figure", tmp_path / "forest.svg")
    assert done.stderr.strip().endswith("figure: " + str(tmp_path / "forest.svg"))
    text = (tmp_path / "forest.svg").read_text()
    words = "".join(ElementTree.fromstring(text).itertext())
    assert "← a better" in words and "lpips consecutive" in words and "24 prompts can show in 2 comp" in words
    assert "prefers-color-scheme" not in text and text.count("<svg") == 1


def test_the_plot_counts_the_comparisons_that_the_answer_counts(tmp_path):
    """Two metrics on two subsets; the correction also counts the two metrics pooled over both."""
    runs = [evaluated(made_run(tmp_path / name, seed=seed, lpips=0.01 * seed)).path for seed, name in enumerate("ab")]
    done = run_avbench("compare", *runs, "--figure", tmp_path / "forest.svg")
    words = "".join(ElementTree.fromstring((tmp_path / "forest.svg").read_text()).itertext())
    assert "in 2 of 4 comparisons" in done.stdout and "can show in 4 comparisons, corrected for 6" in words


def test_too_few_prompts_for_any_full_mark_are_said(tmp_path):
    runs = [
        evaluated(made_run(tmp_path / n, seed=k, lpips=k, names=["toy-control"], count=6)).path
        for k, n in enumerate("ab")
    ]
    run_avbench("compare", *runs, "--figure", tmp_path / "forest.svg")
    text = (tmp_path / "forest.svg").read_text()
    few = "With a correction for 2 comparisons, 6 prompts can show no difference, however large: at least 7 are needed"
    assert few in "".join(ElementTree.fromstring(text).itertext()) and "mark full" not in text


def test_a_caption_wider_than_the_plot_has_several_lines_in_a_higher_plot():
    rows = [_Row("onset_rate", (_Mark(0.1, -0.2, 0.4, None, "s"),), "open", sided=True)]
    caption = (
        "8 prompts can show no difference in 5 comparisons, corrected for 59, however large: at least 12 are needed"
    )
    heights = []
    for words in (caption[:40], caption, f"{caption}, and more"):
        drawn = ElementTree.fromstring(_Plot(WIDE, 1.5, "b", "a", {}).drawn(rows, (words, "")))
        heights.append(float(drawn.get("viewBox").split()[3]))
        lines = [one for one in drawn.iter(f"{SVG}text") if one.text and one.text in words and len(one.text) > 1]
        assert " ".join(one.text for one in lines) == words
        assert all(float(one.get("y")) < heights[-1] and len(one.text) <= 108 for one in lines)
    assert heights[0] == heights[1] == heights[2] - 17


def test_several_pairs_have_a_file_each(runs, tmp_path):
    run_avbench("compare", *runs, "--figure", tmp_path / "x.svg")
    assert {path.name for path in tmp_path.iterdir()} == {"x-b-a.svg", "x-c-a.svg"}


@pytest.mark.parametrize(("form", "head"), [("pdf", b"%PDF"), ("png", b"\x89PNG")])
def test_pdf_and_png_are_made_of_the_same_drawing(runs, tmp_path, form, head):
    try:
        import cairosvg  # noqa: F401
    except (ImportError, OSError) as error:
        pytest.skip(f"cairosvg cannot be used here: {error}")  # it needs the system's libcairo
    run_avbench("compare", *runs[:2], "--figure", tmp_path / f"forest.{form}")
    assert (tmp_path / f"forest.{form}").read_bytes().startswith(head)


def test_without_cairosvg_one_sentence_says_what_to_do(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    done = run_avbench("compare", *runs[:2], "--figure", tmp_path / "forest.pdf", code=2)
    assert "pip install 'avbench[figures]', or write .svg" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "sentence"), [("forest.jpg", "'jpg' is unknown; did you mean"), ("forest", "'none' is unknown")]
)
def test_another_suffix_is_refused_before_anything_is_computed(runs, tmp_path, name, sentence):
    done = run_avbench("compare", *runs[:2], "--figure", tmp_path / name, code=2)
    assert sentence in done.stderr and "png" in done.stderr and not done.stdout


def test_one_run_has_nothing_to_draw(runs, tmp_path):
    done = run_avbench("compare", runs[0], "--figure", tmp_path / "forest.svg", code=2)
    assert "no two runs were compared" in done.stderr
