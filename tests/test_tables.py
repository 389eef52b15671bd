"""What is bold, what has a footnote, and how numbers are written."""

import io
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from avbench.comparison.differences import COLUMNS
from avbench.comparison.leaderboard import _best
from avbench.metrics.evaluate import NO_REFERENCE
from avbench.metrics.table import METRICS
from avbench.report import comparison_tables, paper
from avbench.report.latex import escaped_for_latex, set_as_latex
from avbench.report.tables import (
    LEGEND,
    STANDARD,
    STAR,
    Cell,
    compact,
    markdown,
    number,
    p_value,
    protocols,
    set_as_markdown,
    set_for_console,
    subset_tables,
)

ROWS = [
    # metric, direction, model, value, low, high, floor, reference, missing
    ("fvd", "lower", "a", 200.4, None, None, 180.0, None, None),
    ("fvd", "lower", "b", 1234.5, None, None, 180.0, None, None),
    ("motion_amount", "band", "a", 0.41, 0.35, 0.47, None, 0.4, None),
    ("motion_amount", "band", "b", 0.0, 0.0, 0.0, None, 0.4, None),
    ("onset_rate", "band", "a", 1.8, 1.0, 2.6, None, None, None),
    ("onset_rate", "band", "b", None, None, None, None, None, "the clip has no | sound"),
]
NOTHING_COMPARED = pd.DataFrame(columns=[*COLUMNS])


@pytest.fixture
def frame():
    names = ["metric", "direction", "model", "value", "low", "high", "floor", "reference", "missing"]
    table = pd.DataFrame(ROWS, columns=names).assign(
        subset="s",
        n=40,
        unmeasured=0,
        of_others=0,
        refused=0,
        shared=0,
        null_within_prompts=None,
        unit="",
        rank=1.0,
        rank_high=2.0,
        letters="a",
        tested=True,
        protocol="p",
        too_few=None,
    )
    table["rank_low"] = [1.0, 2.0, 1.0, 2.0, 1.0, 1.0]
    of_distance = table["metric"] == "fvd"
    table["excess"] = (table["value"] - 190).where(of_distance)
    table["p"] = pd.Series([0.2, 0.0015, *[None] * 4], dtype=float)
    table.loc[1, "shared"] = 3
    for _, column in table.groupby("metric"):
        table.loc[column.index, "best"] = _best(column)
    return table


def test_best_is_what_the_data_support(frame):
    best = frame[frame["best"]]
    assert list(zip(best["metric"], best["model"], strict=True)) == [("fvd", "a"), ("motion_amount", "a")]
    untested = frame[frame["metric"] == "fvd"].assign(rank_low=np.nan)
    assert not _best(untested).any(), "that a distance cannot be told from the reference is no merit"
    motion = frame[frame["metric"] == "motion_amount"]
    assert not _best(motion.assign(rank_low=[2.0, 1.0])).any(), "nearest, but frozen: it does not match the reference"
    assert not _best(motion.assign(rank_low=1.0)).any(), "it matches, but nothing is shown to be behind it"
    higher = frame[frame["metric"] == "onset_rate"].assign(direction="higher", reference=np.nan)
    for rank_low, expected in (([1, 1], []), ([2, 1], ["b"]), ([np.nan, np.nan], [])):
        column = higher.assign(rank_low=rank_low)
        assert list(column.loc[_best(column), "model"]) == expected


def test_markdown(frame):
    text = markdown(frame)
    assert "| model | fvd ↓ | motion_amount ≈ | onset_rate |" in text, "≈ says nothing without a reference's value"
    assert "| a | **200 (+10, p 0.20)** | **0.410 ± 0.060** | 1.80 ± 0.80 |" in text
    assert "| b | 1234 (+1044, p 0.002) [1] | 0 ± 0 | – [2] |" in text
    assert "1. 3 of the clips are in the reference as well" in text
    assert "| reference | 180 | 0.400 |  |" in text
    assert "2. the clip has no \\| sound" in text
    ranks = set_as_markdown(subset_tables(frame.assign(rank_low=1.0, rank_high=[2, 1, 2, 2, 2, 2]), ranks=True), "")
    assert "| b | 1234 (+1044, p 0.002) a (1) [1] | 0 ± 0 a (1–2) |" in ranks


def test_rows_with_ranks_are_sorted_by_the_columns_that_all_have(frame):
    """Run b is first in the one column that run a lacks, which must not lift it; c has no rank at all."""
    rows = frame.loc[[0, 1, 0, 2, 3]].assign(model=["b", "a", "c", "a", "b"], rank=[2.0, 1.0, np.nan, np.nan, 1.0])
    (table,) = subset_tables(rows.assign(letters=""), ranks=True)
    assert [name for name, _ in table.rows] == ["a", "b", "c", "reference"]
    (table,) = subset_tables(rows.assign(letters=""))
    assert [name for name, _ in table.rows] == ["b", "a", "c", "reference"], "as given"


def printed(table, width):
    """The text of a table for rich on a console of this width."""
    screen = Console(width=width, record=True, file=io.StringIO())
    screen.print(table)
    return screen.export_text()


def printed_alone(rows, width=1000, **options):
    """The text of the compact table where nothing was compared."""
    return printed(compact(rows, NOTHING_COMPARED, width, **options), width)


def long_tables(frame, width=80):
    return set_for_console(subset_tables(frame), LEGEND, width)


def test_the_console_shows_every_number_at_eighty_columns(frame):
    text = printed(long_tables(frame), 80)
    assert "1234" in text and "± 0.060" in text and "…" not in text
    assert text.count("model") == 1


def test_the_compact_table_fits_and_names_what_it_leaves_out(frame):
    wide = pd.concat([frame, *(frame[:2].assign(metric=f"metric_number_{k}") for k in range(8))], ignore_index=True)
    row = {"subset": "s", "run": "b", "against": "a", "difference": 0.5, "shown": True, "too_few": None}
    found = pd.DataFrame([row | {"metric": name, "better": "a"} for name in ("onset_rate", "metric_number_3")])
    text = printed(compact(wide, found, 60), 60)
    assert text.count("model") == 1 and max(map(len, text.splitlines())) <= 60
    lines = text.splitlines()
    assert text.count("200*") == 1 and "(+10" not in text, "numbers and half-widths alone; a star where a run is better"
    assert next(line for line in lines if "onset_" in line).index("onset_") < 20, "what differs comes first"
    output = " ".join(text.split())
    assert "--all shows" in output and "more metrics: " in output and STAR in output
    text = printed_alone(wide)
    assert "4 more metrics" in text, "eight columns at most, however wide"
    assert "*" not in text, "without comparisons nothing is shown to be better, whatever the ranks say"
    unmeasured = frame[:2].assign(metric="kvd", value=np.nan, low=np.nan, high=np.nan, missing="no reference")
    text = printed_alone(pd.concat([frame, unmeasured], ignore_index=True))
    assert "1 more metric: kvd." in text, "a column without a value is not shown"
    text = printed_alone(pd.concat([frame, unmeasured.assign(missing="the light is out.")], ignore_index=True))
    assert ": the light is out.\n" in re.sub(" +\n", "\n", text), "with one full stop"
    assert "more metrics" not in printed_alone(wide, every=True)


def test_the_compact_table_explains_the_signs_that_it_shows_and_no_others(frame):
    """The distance alone fits: it has no half-width, and neither the star nor the mark of the columns left out."""
    found = pd.DataFrame([{"subset": "s", "metric": "onset_rate", "run": "b", "against": "a", "difference": 0.5}])
    found = found.assign(shown=False, too_few=None, better="a")
    partial = frame.assign(unmeasured=(frame["metric"] != "fvd").astype(int))
    narrow, wide = (printed(compact(partial, found, width), width) for width in (24, 80))
    assert "onset_" not in narrow.partition("model")[2].partition("--all")[0]
    assert not any(sign in narrow for sign in ("±", "‡", "*"))
    assert all(sign in wide for sign in ("± is half", "‡ rests", "* is shown"))


def test_the_compact_table_marks_numbers_that_rest_on_a_part_of_the_clips(frame):
    parts = frame.assign(unmeasured=[3, *[0] * (len(frame) - 1)])
    text = [printed_alone(rows) for rows in (frame.assign(unmeasured=0), parts)]
    assert "‡" not in text[0] and text[1].count("‡") == 2 and "‡ rests on a part of the clips" in text[1]


def test_the_legend_explains_the_last_row(frame):
    """For ≈ it has the reference's value, and of a distance the floor."""
    (table,) = subset_tables(frame)
    assert table.rows[-1] == (STANDARD, [Cell("180"), Cell("0.400"), Cell("")])
    assert "A last row called reference has that value, and of a distance what n of the reference's own" in LEGEND


def test_what_is_bold_has_a_dot_where_letters_have_no_weight(frame):
    text = printed(set_for_console(subset_tables(frame.assign(best=frame["model"] == "b")), LEGEND, 200), 200)
    rows = [line for line in text.splitlines() if line.strip().startswith(("a  ", "b  "))]
    assert len(rows) == 2 and "•" not in rows[0] and "•" in rows[1]
    assert "Bold with a dot (•): no other" in text.replace("\n", " ")


@pytest.mark.parametrize("order", [("with", "without"), ("without", "with")])
def test_a_column_whose_head_differs_between_subsets_keeps_its_numbers(frame, order):
    """A band metric has a sign on a subset with a reference, and none on one without."""
    motion = frame[frame["metric"] == "motion_amount"].assign(unit="u")
    parts = {"with": motion, "without": motion.assign(subset="t", reference=np.nan, value=0.77)}
    both = pd.concat([parts[name] for name in order], ignore_index=True)
    text = printed_alone(both)
    assert text.count("0.410") == 1 and text.count("0.770") == 2 and "≈" in text
    assert papers(both).columns == ["motion amount ≈ (u)"]


def test_the_compact_table_says_why_a_value_is_missing(frame):
    """The verdict does where runs are compared, and where there is no reference."""
    lost = frame[:2].assign(value=np.nan, low=np.nan, high=np.nan)
    unlike = lost.assign(metric=["precision", "recall"], missing="other precision")
    rows = pd.concat([frame, unlike, lost.assign(metric="vendi", missing=f"s {NO_REFERENCE}")], ignore_index=True)
    text = printed_alone(rows)
    assert "precision and recall have no value in a and b: other precision." in text and NO_REFERENCE not in text


@pytest.mark.parametrize("width", [40, 60])
def test_long_names_are_folded_and_numbers_never_cut(frame, width):
    names = {"a": "base-model-of-a-long-name-finetuned-v2", "b": "b_" + 40 * "x"}
    long = frame.replace({"model": names})
    for table in (compact(long, NOTHING_COMPARED, width), long_tables(long, width)):
        text = printed(table, width)
        assert "…" not in text and "1234" in text and "± 0.060" in text and "finetuned-v2" in text
        assert max(map(len, text.splitlines())) <= width


PREAMBLE = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"


def papers(frame, metrics=None):
    return paper.paper_table(frame, metrics)


def test_a_table_for_a_paper_marks_the_best_and_what_cannot_be_told_from_it(frame):
    more = frame.loc[[0, 1]].assign(metric="lpips_x", value=[0.2, 0.21], low=[0.19, 0.2], high=[0.21, 0.22], p=np.nan)
    worst = frame.loc[[0]].assign(metric="lpips_x", model="c_1", value=0.4, low=0.39, high=0.41, p=np.nan)
    rows = pd.concat([more, worst], ignore_index=True).assign(
        rank=[1.0, 2.0, 3.0], rank_low=[1.0, 1.0, 3.0], floor=np.nan
    )
    whole = pd.concat([frame, rows.assign(best=[True, True, False], too_few=[None, None, None])], ignore_index=True)
    table = papers(whole, ["lpips_x", "fvd"])
    assert table.columns == ["LPIPS x ↓", "FVD ↓"], "the columns that were asked for, in their order"
    text = paper.as_latex(table)
    half = r"\,{\footnotesize$\pm$\,0.010}"
    assert rf"a & \textbf{{0.200}}{half} & \textbf{{200}} \\" in text
    assert rf"b & 0.210{half}$^{{\dagger}}$ & 1234 \\" in text and rf"c\_1 & 0.400{half} &" in text
    assert r"\toprule" in text and r"\bottomrule" in text and r"\label{tab:avbench}" in text
    (footnote,) = [line for line in text.splitlines() if "scriptsize" in line]
    assert (
        "bold: in a column where a model is shown to be worse than another (Holm over its pairs), the best number to "
        "which none is shown to be better; it need not be shown to be better than each; "
        r"$^{\dagger}$~none is shown to be better than this one either, which does not make it equal; "
        "no mark beside bold: one is shown to be better, or too few clips for a test against the best; "
        "b: 3 of the clips are in the reference as well." in footnote
    )
    assert "| b | 0.210 ± 0.010† | 1234 |" in paper.as_markdown(table)
    assert "s,b,0.210 ± 0.010†,1234" in paper.as_csv(table)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
@pytest.mark.parametrize(("value", "rank"), [(200.4, 1.0), (200.3, 2.0)])
def test_equal_numbers_of_a_paper_are_all_bold_in_any_order(frame, order, value, rank):
    """Equal, or equal as they are printed."""
    rows = pd.concat([frame[:1]] * 4, ignore_index=True).assign(
        model=["a", "copy", "c", "d"],
        value=[200.4, value, 210.0, 300.0],
        rank=[1.0, rank, 3.0, 4.0],
        rank_low=[1.0, 1.0, 1.0, 3.0],
        best=[True, True, True, False],
    )
    text = paper.as_markdown(papers(rows.iloc[order]))
    for row in ("| a | **200** |", "| copy | **200** |", "| c | 210† |", "| d | 300 |"):
        assert row in text


def test_a_table_for_a_paper_has_the_remarks_on_its_numbers(frame):
    parts = frame.assign(unmeasured=[3, 0, 0, 0, 3, 0], n=[37, 40, 40, 40, 37, 0], why_unmeasured="no clip")
    parts["mark"] = parts["model"].map({"a": None, "b": "made differently: steps 4 against 8"})
    table = papers(parts)
    assert table.footnote.startswith("37 to 40 clips per number; ")
    assert table.footnote.endswith(
        "; ‡ of a part of the clips; a (FVD, onset rate): rests on 37 clips, 3 could not be measured: no clip; "
        "b: made differently: steps 4 against 8; b (FVD): 3 of the clips are in the reference as "
        "well."
    )
    assert "| a | **200‡** | **0.410 ± 0.060** | 1.80 ± 0.80‡ |" in paper.as_markdown(table)
    assert r"\textbf{200}$^{\ddagger}$" in paper.as_latex(table)
    assert "rests on" not in papers(parts, ["motion_amount"]).footnote, "only of the columns that were asked for"


def test_where_references_differ_no_table_has_one_for_all(frame):
    """Runs of two references, which `--allow reference` compares."""
    own = frame["model"].map({"a": "p", "b": "q"})
    mark = frame["model"].map({"a": None, "b": "made differently: the reference (1a against 2b)"})
    one = frame.assign(protocol=own, mark=mark)
    two = one.assign(floor=one["floor"].add(own == "q"), reference=one["reference"].add(own == "q"))
    for rows, shown in ((one, True), (two, False)):
        assert ("| reference |" in markdown(rows)) == ("| reference |" in paper.as_markdown(papers(rows))) == shown
    several = pd.concat([two, two.assign(subset="t", mark=None), two.assign(subset="macro")])
    text = printed_alone(several)
    assert "180" not in text and text.count("made differently") == 1
    assert "s, b: made differently: the reference (1a against 2b)." in text


def test_a_model_may_be_called_as_the_row_with_the_references_values(frame):
    """The row of values to compare with is then called otherwise, and it alone is set in italics."""
    named = frame.replace({"model": {"b": "reference"}})
    (table,) = subset_tables(named)
    assert [name for name, _ in table.rows] == ["a", "reference", "the reference"] and table.standard == table.rows[2][
        0
    ]
    text = paper.as_latex(papers(named))
    assert "\\emph{the reference}" in text and "\\emph{reference}" not in text
    (other,) = subset_tables(frame)
    assert other.rows[2][0] == other.standard == "reference"


def test_without_a_shown_best_a_column_has_no_marks(frame):
    text = paper.as_markdown(papers(frame.assign(best=False)))
    assert "**" not in text and "†" not in text and "bold" not in text


def test_too_few_clips_are_a_dash_in_a_paper(frame):
    text = paper.as_markdown(papers(frame.assign(too_few=["n = 6: too few for FVD", *[None] * 5], best=False)))
    assert "| a | – |" in text and "– not measured, or of too few clips" in text and "n = 6" not in text


def test_a_distance_of_too_few_clips_has_no_floor_either(frame):
    """What real clips score against each other at so few clips says as little."""
    both = frame.assign(too_few=["n = 6: too few for FVD", "n = 7: too few for FVD", *[None] * 4])
    assert "180" in markdown(frame) and "180" not in markdown(both) and "| reference |" in markdown(both)
    one = frame.assign(too_few=["n = 6: too few for FVD", *[None] * 5], floor=[2192.0, 180.0, *[np.nan] * 4])
    assert "2192" not in markdown(one) and "180" in markdown(one), "of the number that is shown only"


def compiled(text, place):
    """The log of a document that holds nothing but the text, and what it says of too wide lines."""
    place.mkdir()
    (place / "x.tex").write_text(PREAMBLE + text + "\\end{document}\n", encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "x.tex"]
    done = subprocess.run(command, cwd=place, capture_output=True, timeout=300)
    assert done.returncode == 0 and (place / "x.pdf").stat().st_size > 0, done.stdout.decode(errors="replace")[-800:]
    return [line for line in done.stdout.decode(errors="replace").splitlines() if "Overfull" in line]


HOSTILE = "50%_of & {x} #1 $2 ^~\\ «éðąšŁ» <a> µ 模型 a--b `"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX is installed (Debian: texlive-latex-recommended)")
def test_a_table_for_a_paper_compiles_as_it_is_and_fits_a_page(frame, tmp_path):
    hostile = frame.replace({"model": {"a": HOSTILE}, "subset": {"s": HOSTILE}}).assign(unit="50 %_µ")
    tiny = frame.assign(value=frame["value"] * -1e-7, low=frame["low"] * -1e-7, high=frame["high"] * -1e-7)
    many = [frame.assign(metric=frame["metric"] + f"_{k}", model="toyworld-" + frame["model"]) for k in "xy"]
    for name, rows in {"usual": frame, "hostile": hostile, "tiny": tiny, "many": pd.concat(many)}.items():
        overfull = compiled(paper.as_latex(papers(rows)), tmp_path / f"short {name}")
        overfull += compiled(set_as_latex(subset_tables(rows), LEGEND), tmp_path / f"long {name}")
        assert name == "hostile" or not overfull


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX is installed (Debian: texlive-latex-recommended)")
@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("short", ["-1234", "0.000377 ± 0.000173", "8.6e-05 ± 2.3e-05", "8.6e-05 ± 2.3e-06‡"])
def test_as_many_columns_as_are_said_to_fit_a_page_do(short, best, tmp_path):
    rows = [(name, Cell(short, best)) for name in ("AVFullDiT-XL", "toyworld-no-contact", "reference")]
    for number_of in range(1, 20):
        subsets = [("s", [(name, [cell] * number_of) for name, cell in rows])]
        table = paper.PaperTable(["KVD ↓"] * number_of, subsets, "24 clips per number.")
        if paper.too_wide(table):
            break
        fits = paper.as_latex(table)
    assert number_of < 19 and not compiled(fits, tmp_path / "fits")


def test_a_table_for_a_paper_that_fits_in_no_font_says_so(frame):
    many = papers(pd.concat([frame.assign(metric=frame["metric"] + f"_{k}") for k in "uvwxyz"], ignore_index=True))
    wide = paper.too_wide(many)
    assert wide and "room for 340: choose fewer columns with --metric" in wide
    assert f"\n% {wide}\n" in paper.as_latex(many) and "\n\\centering\\scriptsize" in paper.as_latex(many)
    long = paper.too_wide(papers(frame.replace({"model": {"a": "a" * 100}})))
    assert long and "room for 340: shorten the models' names in it, or" in long, "fewer columns would not help"
    assert paper.too_wide(papers(frame)) is None and "--metric" not in paper.as_latex(papers(frame))


def test_latex_knows_every_letter_and_joins_no_hyphens():
    assert escaped_for_latex("a--b---c_%éð模") == r"a-{}-b-{}-{}-c\_\%é{U+00F0}{U+6A21}"


def test_a_comment_names_the_letters_that_latex_has_as_numbers(frame):
    """模A became U+6A21A without a word."""
    named = frame.replace({"model": {"a": "模A"}})
    for text in (paper.as_latex(papers(named)), set_as_latex(subset_tables(named), LEGEND)):
        assert text.count("\n% U+6A21 stands for 模, which LaTeX's usual fonts lack\n") == 1 and "{U+6A21}A" in text
    assert "stands for" not in paper.as_latex(papers(frame))


@pytest.mark.parametrize(
    ("short", "best", "text"),
    [
        ("-0.017 ± 0.119", False, r"$-$0.017\,{\tiny$\pm$\,0.119}"),
        ("8.3e-05 ± 2.8e-05†", False, r"(8.3\,{\tiny$\pm$\,2.8})$\,\cdot\,10^{-5}$$^{\dagger}$"),
        ("8.3e-05 ± 2.8e-06", True, r"\textbf{8.3}$\,\cdot\,10^{-5}$\,{\tiny$\pm$\,2.8$\,\cdot\,10^{-6}$}"),
        ("-2.17 to -1.96", False, "$-$2.17 to $-$1.96"),
        ("8.3e-05 to 0.00012", False, r"8.3$\,\cdot\,10^{-5}$ to 0.00012"),
        ("n = 6: too few", False, "n = 6: too few"),
        ("–", False, "–"),
    ],
)
def test_numbers_in_latex(short, best, text):
    assert paper._latex_cell(Cell(short, best), r"\tiny") == text


def test_a_narrow_console_gets_more_tables_and_no_less_text(frame):
    text = printed(long_tables(frame, 30), 30)
    assert text.count("model") > 1
    assert "1234" in text and "± 0.060" in text and "(+1044" in text and "…" not in text


def test_protocols_stand_in_rows_with_what_they_span(frame):
    rows = frame[frame["metric"] == "fvd"]
    other = rows.assign(metric="fvd_other", value=[300.0, None], missing=[None, "the clip is too short"])
    pooled = frame[frame["metric"] == "onset_rate"].assign(subset="macro")
    text = printed(protocols(pd.concat([rows, other, pooled]), {"ours": "fvd", "theirs": "fvd_other"}), 80)
    assert "× 1.50" in text and "fvd_other: the clip is too short" in text and "macro" not in text
    assert "200 (+10, p 0.20)" in text


def test_a_run_without_a_score_by_a_protocol_has_a_dash(frame):
    rows = frame[frame["metric"] == "fvd"]
    other = rows[:1].assign(metric="fvd_other", value=300.0)
    text = printed(protocols(pd.concat([rows, other]), {"ours": "fvd", "theirs": "fvd_other"}), 80)
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert lines["theirs"][-1] == "–" and lines["largest"][-3:] == ["×", "1.50", "–"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "<0.001"), (0.0004, "<0.001"), (0.001, "0.001"), (0.0094, "0.009"), (0.2, "0.20")]
)
def test_p_never_reads_as_zero(value, text):
    assert p_value(value) == text


def test_differences_say_which_is_better_and_why_not():
    rows = [
        ("fvd", -12.3, None, None, 0.004, 0.01, "b", None),
        ("motion_amount", 0.02, -0.01, 0.05, 0.2, 0.9, None, None),
        ("kvd", None, None, None, None, None, None, "no | pairs"),
    ]
    names = ["metric", "difference", "low", "high", "p", "p_holm", "better", "missing"]
    table = pd.DataFrame(rows, columns=names).assign(
        subset="s",
        run="b",
        against="a",
        direction="lower",
        unit="",
        error=1.0,
        pairs=24,
        prompts=24,
        dropped=0,
        detectable=7.5,
        needed=[30, 900, None],
        family=2,
        paired=True,
        mark=None,
        verdict=None,
        margin=None,
        kind="clips",
        too_few=None,
    )
    text = set_as_markdown(comparison_tables.difference_tables(table), "")
    assert "**s: b − a (family of 2 comparisons)**" in text
    assert "| fvd ↓ | **-12.3** | ****" not in text
    assert "**-12.3**" in text and "**b**" in text and "0.004" in text
    assert "| motion_amount ↓ | +0.0200 | -0.0100 … +0.0500 | 0.20 | 0.90 | 7.5000 | 900 | 24 |  |" in text
    assert "| kvd ↓ | – [1] |" in text and "1. no \\| pairs" in text
    assert r"\textbf{$-$12.3}" in set_as_latex(comparison_tables.difference_tables(table), "")
    band = table.assign(direction="band", kind="distance from the reference's value")
    text = set_as_markdown(comparison_tables.difference_tables(band), "")
    assert "| fvd ≈ | -12.3 |" in text and "| b is nearer |" in text and "**-12.3**" not in text
    assert "| fvd | -12.3 |" in set_as_markdown(comparison_tables.difference_tables(band.assign(kind="clips")), "")
    notes = [note for one in comparison_tables.difference_tables(band.assign(dropped=2)) for note in one.notes]
    assert notes == ["left out: 2 clips of which only one of the runs has a value", "no | pairs"]
    few = set_as_markdown(
        comparison_tables.difference_tables(table.assign(better=None, too_few="n = 6: too few for FVD")), ""
    )
    assert "| fvd ↓ | -12.3 [1] |" in few and "1. n = 6: too few for FVD" in few
    assert "7.5" in text and "7.5" not in few and "| 900 |" in few, "so few show no difference, however large"
    distance = table.assign(too_few="n = 6: too few for FVD", kind="distance", needed=14)
    text = set_as_markdown(comparison_tables.difference_tables(distance), "")
    assert "| 14 |" not in text, "14 clips would be too few for FVD, too"
    for why, shown in ((None, True), ("n = 6: too few for FVD", False)):
        rows = table.assign(p_holm=None, too_few=why)
        text = set_as_markdown(comparison_tables.difference_tables(rows), "")
        assert ("exploratory" in text) == shown, "too few clips are no question that a plan left out"


def test_a_distance_of_too_few_clips_is_a_sentence_in_every_form(frame):
    few = frame.assign(too_few=["n = 6: too few for FVD", None, *[None] * 4], best=False)
    for ranks in (False, True):
        text = set_as_markdown(subset_tables(few, ranks=ranks), "")
        assert "| a | n = 6: too few for FVD |" in text and "200" not in text
    assert "n = 6: too few for FVD" in set_as_latex(subset_tables(few), "")
    assert "n = 6: too few for FVD" in printed(long_tables(few, 200), 200)


@pytest.mark.parametrize(
    ("name", "clips", "sentence"),
    [
        ("fvd", (23, 400), "n = 23: too few for FVD"),
        ("fvd", (400, 6), "n = 6 in the reference: too few for FVD"),
        ("fvd", (24, 24), None),
        ("fvd_cd_fvd", (6, 400), "n = 6: too few for fvd_cd_fvd"),
        ("motion_amount", (1, None), None),
    ],
)
def test_each_distance_has_a_least_n(name, clips, sentence):
    by_name = {metric.name: metric for metric in METRICS}
    assert by_name[name].too_few(*clips) == sentence
    assert all(metric.least_clips for metric in METRICS if not metric.per_clip)


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
        (-0.0001, 0.5, "0.000"),
        (-0.0, None, "0"),
        (9_999_000.4, None, "9999000"),
        (30_319_882_038_804.0, None, "3.03e+13"),
        (5_763_618_714_869.0, 30_319_882_038_804.0, "5.76e+12"),
    ],
)
def test_numbers(value, beside, text):
    assert number(value, beside) == text
