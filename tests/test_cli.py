"""Habits of the command line: help, formats, comma lists, config files, runs that grow, Ctrl-C."""

import io
import json
import re
import signal
import sys
import tomllib
from dataclasses import replace

import pytest
import typer
from command_line import run_avbench
from made_runs import SUBSETS, evaluated, made_run, values_of

from avbench.cli import printing
from avbench.cli.config import write_config
from avbench.cli.options import Config, Settings
from avbench.cli.program import PANELS, OneValueEach, app, main
from avbench.cli.steps import parsed_settings
from avbench.core import InputError, Run
from avbench.generation.names import split_name
from avbench.generation.table import GENERATORS
from avbench.storage.runs.folder import RunFolder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return [evaluated(made_run(place / name, seed=number)).path for number, name in enumerate("ab")]


def test_every_command_is_in_a_panel_of_the_help():
    output = run_avbench("-h").stdout
    there = {one.name or one.callback.__name__ for one in app.registered_commands} | {
        one.name for one in app.registered_groups
    }
    assert there <= {name for names in PANELS.values() for name in names}
    places = [output.index(f" {word} ") for word in ("Everyday", "compare", "Data", "curate", "Advanced", "sample")]
    assert places == sorted(places)
    assert run_avbench("--version").stdout.startswith("avbench ")


@pytest.mark.parametrize("form", ["console", "csv", "json", "md", "markdown", "latex"])
@pytest.mark.parametrize("verb", ["list metrics", "weights list", "subsets list", "reference show toy-control"])
def test_lists_in_every_form(verb, form):
    done = run_avbench(*verb.split(), "--format", form)
    assert done.exit_code == 0, done.stderr
    assert "…" not in done.stdout, "nothing is cut"
    if form == "json":
        assert json.loads(done.stdout)


def test_a_list_is_cut_to_the_names_that_hold_a_word():
    rows = json.loads(run_avbench("list", "metrics", "CLAP", "--format", "json").stdout)
    names = [row["metric"] for row in rows]
    assert "clap_text_audio" in names and "fad_clap" in names and all("clap" in name for name in names)


def test_the_list_of_features_names_weights_that_no_package_ships():
    rows = json.loads(run_avbench("list", "features", "--format", "json").stdout)
    fetched = {row["feature"]: row["weights to fetch"] for row in rows}
    assert fetched["i3d-k400"] == "" and fetched["ms-clap-text-audio"] == "ms-clap-2023, gpt2-tokenizer"
    assert "`avbench list features` names the weights" in run_avbench("list", "metrics").stdout


def test_metric_filters_the_table_and_the_family(runs):
    whole = json.loads(run_avbench("compare", *runs, "--format", "json").stdout)
    part = json.loads(run_avbench("compare", *runs, "--format", "json", "--metric", "onset_rate").stdout)
    assert {row["metric"] for row in part} == {"onset_rate"} < {row["metric"] for row in whole}
    assert part[0]["family"] < whole[0]["family"]
    listed = run_avbench("leaderboard", *runs, "--format", "csv", "--metric", "onset_rate,lpips_consecutive").stdout
    assert "onset_rate" in listed and "lpips_consecutive" in listed


def test_a_sign_that_the_encoding_of_stdout_lacks_ends_no_command(runs, monkeypatch):
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii", write_through=True))
    with pytest.raises(SystemExit) as ended:
        main(["compare", *map(str, runs)])
    assert not ended.value.code and b"\\u2248 LPIPS" in printed.getvalue()


def test_compare_prints_the_answer_and_one_table_and_a_table_for_a_paper(runs):
    short = run_avbench("compare", *runs).stdout
    assert -1 < short.find(" comparisons") < short.find("\n model"), "the answer stands first"
    assert "Holm" not in short and "detectable" not in short, "what the words mean stands behind --details"
    details = run_avbench("compare", *runs, "--details").stdout
    assert "p Holm" in details and "Letters: rows that share one" in details
    paper = run_avbench("compare", *runs, "--format", "latex", "--metric", "onset_rate", "--caption", "short").stdout
    assert paper.count("toprule") == 1 and "onset rate" in paper and "p Holm" not in paper
    wrong = run_avbench("compare", *runs, "--caption", "shrt", code=None)
    assert wrong.exit_code == 2 and "short" in wrong.stderr


def test_quiet_leaves_out_notes_and_keeps_errors(runs):
    assert any("note: " in run_avbench("evaluate", run).stderr for run in runs)
    assert not any(run_avbench("evaluate", run, "-q").stderr for run in runs)
    done = run_avbench("compare", "nowhere", "-q", code=None)
    assert done.exit_code == 2 and "is not a run folder" in done.stderr


def test_a_config_file_gives_options_and_the_run_writes_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(
        'models = ["a=toyworld:noisy"]\nsubset = ["toy-control"]\nlimit = 2\nmetric = "onset_rate"\n'
        "[settings]\nstrength = 0.5\n"
    )
    done = run_avbench("run", "--config", "mine.toml", "--limit", 1, "--workers", 0, "--quiet")
    assert done.exit_code == 0 and done.stderr == "", done.stderr
    kept = tomllib.loads((tmp_path / "runs/run.toml").read_text())
    assert kept["limit"] == 1 and kept["models"] == ["a=toyworld:noisy"] and kept["setting"] == ["strength=0.5"]
    assert RunFolder(tmp_path / "runs/a").run().settings["strength"] == 0.5
    again = run_avbench("run", "--config", "runs/run.toml")
    assert again.exit_code == 0, again.stderr


def test_settings_may_be_null_in_the_file_that_a_run_writes(tmp_path):
    """TOML has no null."""
    given = {"x": None, "y": {"a": None, "b": [1, "ü"]}, "z": "true story"}
    read = []
    one = typer.Typer(add_completion=False)

    @one.command()
    def command(ctx: typer.Context, setting: Settings = None, config: Config = None) -> None:
        read.append(parsed_settings(setting or ()))
        write_config(tmp_path / "run.toml", ctx, given)

    one([], standalone_mode=False)
    one(["--config", str(tmp_path / "run.toml")], standalone_mode=False)
    assert read == [{}, given]
    (tmp_path / "both.toml").write_text("setting = ['b=null']\n[settings]\na = 1\n")
    one(["--config", str(tmp_path / "both.toml")], standalone_mode=False)
    assert read[-1] == {"a": 1, "b": None}
    one(["--config", str(tmp_path / "both.toml"), "-M", "a=2"], standalone_mode=False)
    assert read[-1] == {"a": 2, "b": None}, "the command line overrides the settings that it gives, and no others"


def test_a_setting_is_read_as_json_or_python_writes_it_and_given_once():
    texts = {"a": "1e3", "b": "True", "c": "False", "d": "None", "e": '"True"', "f": "truE", "g": "", "h": "NaN"}
    read = {"a": 1000.0, "b": True, "c": False, "d": None, "e": "True", "f": "truE", "g": "", "h": "NaN"}
    assert parsed_settings(f"{name}={text}" for name, text in texts.items()) == read
    assert parsed_settings(["a=1", "a=1"]) == {"a": 1}
    done = run_avbench("run", "toyworld:noisy", "-M", "lora=a b", "-M", "lora=c", code=None)
    assert done.exit_code == 2 and "lora is given twice" in done.stderr and """-M lora='["a b", "c"]'""" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run --prompts a.txt --prompts b.txt", "--prompts takes one value, but was given 'a.txt' and 'b.txt'"),
        ("run --limit=1 --limit 2 --limit 1", "--limit takes one value, but was given '1' and '2'"),
        ("run --config a.toml --config b.toml", "--config takes one value, but was given 'a.toml' and 'b.toml'"),
        ("reference show toy-control --format md --format csv", "--format takes one value, but was given 'md' and"),
    ],
)
def test_an_option_for_one_value_refuses_two(words, said):
    assert said in run_avbench(*words.split(), code=2).stderr


def test_every_command_refuses_two_values_for_one():
    commands = [typer.main.get_command(app)]
    for one in commands:
        commands += getattr(one, "commands", {}).values()
    leaves = [one for one in commands if not hasattr(one, "commands")]
    assert len(leaves) > 30 and all(isinstance(one, OneValueEach) for one in leaves)


def test_lists_flags_and_equal_values_may_be_repeated():
    words = "list metrics --format csv --format csv -q -q".split()
    assert run_avbench(*words).stdout == run_avbench("list", "metrics", "--format", "csv").stdout
    said = run_avbench("run", *"--metric onset_rate --metric nonsense".split(), code=2).stderr
    assert "nonsense" in said, "each value of a list counts"


def test_run_toml_is_there_before_the_first_clip_and_a_refused_command_leaves_it(tmp_path, monkeypatch):
    """A killed run can be given again from its folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "killed_model.py").write_text(
        "from pathlib import Path\n"
        "class Killed:\n"
        "    batch_size, settings = 1, {}\n"
        "    def generate(self, requests):\n"
        "        assert Path('o/run.toml').exists(), 'it must be written first'\n"
        "        raise KeyboardInterrupt\n"
    )
    words = ("--subset", "toy-control", "--limit", 1, "--metric", "onset_rate", "--workers", 1, "--out", "o")
    done = run_avbench("run", "m=python:killed_model:Killed", *words, code=None)
    assert done.exit_code == 130 and "must be written first" not in done.output
    kept = (tmp_path / "o/run.toml").read_text()
    assert tomllib.loads(kept)["models"] == ["m=python:killed_model:Killed"]
    run_avbench("run", "n=toyworld:", "-M", "no=1", *words, code=2)
    assert (tmp_path / "o/run.toml").read_text() == kept


def test_runs_that_differ_in_another_metric_are_compared_by_the_one_that_is_asked_for(tmp_path):
    one, other = (evaluated(made_run(tmp_path / name, count=6)) for name in "ab")
    scores, protocols = other.scores(), other.evaluation().protocols
    changed = {f"{digest}-of-99": {**known, "iterations": 99} for digest, known in protocols.items()}
    moved = [replace(one, protocol=f"{one.protocol}-of-99") if one.metric == "onset_rate" else one for one in scores]
    other.write_scores(moved, {**protocols, **changed}, values_of(other))
    places = (one.path, other.path)
    for verb in ("compare", "leaderboard"):
        refused = run_avbench(verb, *places, "--metric", "onset_rate", code=2)
        assert "iterations" in refused.stderr and "--allow iterations" in refused.stderr
        shown = run_avbench(verb, *places, "--metric", "lpips_consecutive", "--format", "csv")
        assert "lpips_consecutive" in shown.stdout and "made differently" not in shown.stdout


def _run(subset, seeds):
    return Run("a", "made:up", {}, {subset.name: subset.digest}, seeds, {}, {})


def test_a_run_grows_and_does_not_shrink(tmp_path):
    folder = made_run(tmp_path / "a", names=["toy-control"], count=3)
    small = SUBSETS["toy-control"]
    from avbench.subsets.loading import load

    large = load("toy-control")
    folder.start(_run(large, (0, 1)), [large])
    assert folder.run().seeds == (0, 1) and len(folder.subsets()[0].prompts) > len(small.prompts)
    assert len(folder.samples()) == 3
    fewer = ((small, (0,), "prompts and seeds"), (small, (0, 1, 2), "prompts"), (large, (0,), "seeds"))
    for asked, seeds, more in fewer:
        with pytest.raises(InputError, match=f"holds more {more} than were asked for.* a run cannot shrink"):
            folder.start(_run(asked, seeds), [asked])
    with pytest.raises(InputError, match="holds another run"):
        folder.start(Run("a", "other:one", {}, {large.name: large.digest}, (0, 1), {}, {}), [large])


@pytest.mark.parametrize(("stopped_by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_ctrl_c_and_kill_end_with_what_is_kept(tmp_path, monkeypatch, stopped_by, code):
    made_run(tmp_path / "a", names=["toy-control"], count=3)
    before = signal.getsignal(signal.SIGTERM)
    hung_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, and then it stops nothing
    monkeypatch.setattr("avbench.api.stages.measure_clips", lambda *_, **__: signal.raise_signal(stopped_by))
    try:
        done = run_avbench("measure", tmp_path / "a", code=code)
    finally:
        signal.signal(signal.SIGHUP, hung_up)
    assert f"Stopped. 3 of 24 clips are done in {tmp_path}/a; give the same command again to continue." in done.stderr
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_handler_of_sigterm_that_is_there_keeps_the_signal(tmp_path, monkeypatch):
    made_run(tmp_path / "a", names=["toy-control"], count=3)
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("mine"))
    try:
        monkeypatch.setattr("avbench.api.stages.measure_clips", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
        run_avbench("measure", tmp_path / "a", code=None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ["mine"]


def test_a_line_of_progress_where_there_is_no_terminal(monkeypatch, capsys):
    now = iter([0.0, 30.0, 70.0, 100.0])
    monkeypatch.setattr(printing.time, "monotonic", lambda: next(now))
    printing.show_progress("a: sample", 140, iter(range(3)))
    assert capsys.readouterr().err == "a: sample: 2 of 140, 0.029 clips/s, 1 h 20 min left\n"


def test_names_of_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    assert split_name("ours=clips:out/a") == ("ours", "clips:out/a")
    assert split_name("a=b") == (None, "a=b")
    assert split_name("cafe\u0301=b") == ("café", "b") and split_name("हिन्दी=b") == ("हिन्दी", "b")
    assert split_name("./模型=b") == (None, "./模型=b")
    for word in ("模型 1=b", "b%=runs/b-*", ".b=b", "=b"):  # `compare 'b%=b-*'` advised 'NAME=b%=b-*', which has no run
        with pytest.raises(InputError, match=re.escape(f"{word} is no path here, and in NAME=… the name")):
            split_name(word)
    with pytest.raises(InputError, match="at most 120 bytes"):
        split_name(f"{'模' * 41}=b")
    assert split_name("cmd:make.py --x=1") == (None, "cmd:make.py --x=1")


def test_an_evaluation_that_gives_no_number_says_why_and_exits_1(tmp_path):
    made_run(tmp_path / "run", count=3)
    done = run_avbench("evaluate", tmp_path / "run", "--metric", "loudness", code=1)
    assert "loudness of toy-object-contact has no value: the clip was not " in done.stderr
    assert "no metric has a value" in done.stderr


def test_every_kind_of_model_is_listed():
    listed = run_avbench("list", "models", "--format", "csv").stdout
    assert all(f"\n{name}:" in listed for name in GENERATORS)


@pytest.mark.parametrize("words", [("weights", "list"), ("list", "metrics")])
def test_a_list_that_is_piped_has_the_width_of_a_page(words):
    lines = run_avbench(*words).stdout.splitlines()
    assert max(len(line) for line in lines) <= printing.PIPED_LIST_WIDTH and not any("…" in line for line in lines)


def test_a_stop_that_python_wraps_in_another_error_is_a_stop(tmp_path, monkeypatch):
    """As Python 3.11 does with one that comes while a class is made, within an import."""

    def making_a_class(*_, **__):
        msg = "Error calling __set_name__"
        raise RuntimeError(msg) from KeyboardInterrupt()

    made_run(tmp_path / "a", names=["toy-control"], count=3)
    monkeypatch.setattr("avbench.api.stages.measure_clips", making_a_class)
    assert run_avbench("measure", tmp_path / "a", code=130).stderr.endswith("Stopped.\n")
