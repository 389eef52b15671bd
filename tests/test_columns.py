"""Presets of columns: what they name exists, what is missing is said, and what is fetched is measured."""

import runpy
from pathlib import Path

import pytest
from command_line import run_avbench

from avbench import run
from avbench.comparison import paper_presets
from avbench.core import InputError, resolve
from avbench.features import requirements
from avbench.features.requirements import PACKAGES
from avbench.features.table import FEATURES
from avbench.metrics.columns import COLUMNS, Wanted, columns_named, wanted_metrics
from avbench.metrics.evaluate import chosen_metrics
from avbench.storage import weights
from avbench.storage.weights import fetching

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def nothing_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_has_a_metric_or_a_reason(name):
    one = COLUMNS[name]
    assert len(chosen_metrics([*one.columns.values()])) == len(set(one.columns.values()))
    assert not one.columns.keys() & one.lacking.keys() and all(one.lacking.values())


def test_the_columns_of_vbench_are_its_sixteen_dimensions():
    assert len(COLUMNS["vbench"].columns) + len(COLUMNS["vbench"].lacking) == 16


def test_the_columns_of_a_paper_are_those_of_its_preset():
    one, preset = COLUMNS["hearing-helps-seeing"], paper_presets.load("hearing-helps-seeing")
    assert one.columns == {column.name: column.metric for column in preset.columns if column.metric}
    assert one.lacking.keys() == {column.name for column in preset.columns if not column.metric}


def test_fast_columns_need_no_weights():
    notes = []
    found = wanted_metrics(Wanted(columns="fast"), notes.append)
    assert {one.name for one in found} == {*COLUMNS["fast"].columns} and not notes


def test_what_lacks_weights_is_left_out_with_the_command(tmp_path):
    notes = []
    found = wanted_metrics(Wanted(columns="t2av"), notes.append)
    assert [one.name for one in found] == ["av_align", "av_align_excess"]
    (left_out,) = notes
    assert "clap_text_audio, desync" in left_out and "`avbench weights fetch " in left_out and "\n" not in left_out
    (tmp_path / "mine").write_bytes(b"PKmine")
    weights.provide("clap", tmp_path / "mine")
    assert "clap_text_audio" in {one.name for one in wanted_metrics(Wanted(columns="t2av"), notes.append)}


def test_what_lacks_a_package_is_left_out_with_the_command(monkeypatch):
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    notes = []
    with pytest.raises(InputError, match="nothing is left of the columns t2av"):
        wanted_metrics(Wanted(columns="t2av"), notes.append)
    assert "av_align is left out: it needs librosa; run `pip install 'avbench[sync]'`" in notes


@pytest.mark.parametrize("metric", ["pe_av", "wer", "physics_judge", "kvd_vjepa2", "fad_clap"])
def test_nothing_is_fetched_for_a_metric_whose_package_is_missing(monkeypatch, metric):
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    monkeypatch.setattr(fetching, "fetch", lambda *_, **__: pytest.fail("it fetches"))
    with pytest.raises(InputError, match=rf"{metric} cannot be computed: it needs transformers; run `pip install 'avb"):
        wanted_metrics(Wanted([metric], fetch=fetching.Fetching()), [].append)


def test_a_missing_package_is_said_before_clips_are_sampled(monkeypatch, tmp_path):
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"av-align cannot be measured: it needs librosa; run `pip install 'avbench"):
        run("toyworld:", metrics=["av_align"], limit=1, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_every_feature_that_imports_transformers_is_known_to_need_it():
    """A feature of which this is not known would have its weights fetched in vain."""
    for feature, place in FEATURES.items():
        module = resolve(f"{place.partition(':')[0]}:__file__")
        if "from transformers import" in Path(module).read_text() and feature not in ("vggish", "panns-cnn14"):
            assert PACKAGES[feature][0] == "transformers", feature


def test_nothing_left_is_an_error_and_named_metrics_stay():
    with pytest.raises(InputError, match=r"nothing is left of the columns hearing-.*: .*`avbench weights fetch"):
        wanted_metrics(Wanted(columns="hearing-helps-seeing"), [].append)
    found = wanted_metrics(Wanted(["loudness"], "hearing-helps-seeing"), [].append)
    assert [one.name for one in found] == ["loudness"]


def test_without_columns_the_default_metrics_are_meant():
    assert wanted_metrics(Wanted(), [].append) == chosen_metrics(None)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(InputError, match="did you mean 'vbench'"):
        columns_named("vbnch")


def test_the_tables_of_the_page_are_the_code():
    bench, page = runpy.run_path(str(ROOT / "benchmarks" / "column_table.py")), ROOT / "docs" / "columns.md"
    assert page.read_text() == bench["page"](page.read_text()), "run benchmarks/column_table.py"


def test_a_row_of_the_page_states_the_agreement_of_its_own_metric():
    """VBench has no text alignment; its module tells of two others that agree with VBench's."""
    rows = [line for line in (ROOT / "docs" / "columns.md").read_text().splitlines() if "| `text_alignment` |" in line]
    assert len(rows) == 1 and "VBench" not in rows[0] and "open_clip's own" in rows[0]


@pytest.mark.slow
def test_the_command_line_measures_scores_and_compares_columns(tmp_path):
    clips = ("toyworld:", "toyworld:frozen", "--subset", "toy-control", "--limit", "2", "--workers", "0")
    out = tmp_path / "runs"
    done = run_avbench("run", *clips, "--out", out, "--metric", "silence,onset_rate")
    runs = sorted(path.parent for path in out.glob("*/run.json"))
    assert len(runs) == 2, done
    done = run_avbench("compare", *runs, "--columns", "fast", "--format", "csv")
    assert "not computed for every run: motion_amount" in done.stderr and "--columns fast" in done.stderr
    assert "onset_rate" in done.stdout
    assert run_avbench("compare", *runs, "--columns", "fats", code=2).stderr.count("did you mean 'fast'")
    assert "fast" in run_avbench("list", "columns", "--format", "csv").stdout
