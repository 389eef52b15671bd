"""Typical mistakes: each is answered by one sentence, and a nonzero exit code."""

import os
import shlex

import pytest
import torch
from command_line import run_avbench
from made_runs import evaluated, made_run

from avbench.generation import table as generators
from avbench.storage.weights import fetching
from avbench.subsets import loading


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An evaluated run, and files that are wrong."""
    folder = tmp_path_factory.mktemp("mistakes")
    evaluated(made_run(folder / "a"))
    (folder / "empty").mkdir()
    (folder / "file").write_text("x")
    for name in ("-dash", "texts"):
        (folder / name).mkdir()
        (folder / name / "x.mp4").write_text("no clip")
    (folder / "wrong.toml").write_text("metric = [")
    (folder / "key.toml").write_text("metrc = ['fvd']")
    (folder / "value.toml").write_text("limit = 2.5")
    (folder / "empty.toml").write_text('out = ""')
    (folder / "list.toml").write_text("limit = [1]")
    (folder / "wrong.csv").write_text("name,colour\nx,red\n")
    (folder / "listed.json").write_text('["a dog"]')
    return folder


MISTAKES = {
    "run tooyworld:": "did you mean 'toyworld'",
    "run toyworld:forzen": "did you mean 'frozen'",
    "run nowhere:x": "unknown provider",
    "run nowhere": "there is no file or folder of that name",
    "run toyworld: -M strength=1": "has no strength",
    "comapre a": "Did you mean 'compare'",
    "weights lst": "Did you mean 'list'",
    "run toyworld: --metrc fvd": "--metric",
    "compare": "Missing argument 'runs'",
    "run toyworld: --metric fdv": "did you mean 'fvd'",
    "run toyworld: --metric fvd,kdv": "did you mean 'kvd'",
    "run toyworld: --subset toy-contol": "did you mean 'toy-control'",
    "run toyworld: --subset ''": "a value is empty",
    f"run toyworld: --metric {','.join(['fvd'] * 99)},fdv": "did you mean 'fvd'",  # longer than a path may be
    "run toyworld: --subset a": "a is no subset folder: it has no card.toml",
    "run toyworld: --subset wrong.csv": "wrong.csv is a file and no subset; prompts (--prompts) of run, sample and",
    "run toyworld: --subset listed.json": "listed.json is a file and no subset; prompts (--prompts) of run, sample and",
    "run toyworld: --mirror s3:/bucket": "'s3:/bucket' is no address that fsspec knows",
    "run toyworld: --metric ,": "a value is empty",
    "run toyworld: --view ''": "a value is empty",
    "run toyworld: --subset toy-control --view lit": "did you mean 'lite'",
    "run toyworld: --limit none": "'--limit': Input should be a valid integer",
    "run toyworld: --seeds 0": "--seeds",
    "run toyworld: -M speed": "write name=value",
    "run toyworld: -M speed=1": "no setting 'speed'",
    "run toyworld: --prompts missing.jsonl": "missing.jsonl",
    "run toyworld: --prompts wrong.csv": "no column of prompts among name, colour",
    "run toyworld: --prompts file": "is no prompts file",
    "run toyworld: --preset hearing-helps": "did you mean 'hearing-helps-seeing'",
    "run toyworld: --config missing.toml": "missing.toml",
    "run toyworld: --config wrong.toml": "wrong.toml",
    "run toyworld: --config key.toml": "did you mean 'metric'",
    "run toyworld: --config value.toml": "'--limit': Input should be a valid integer",
    "run toyworld: --config list.toml": "it must be one value",
    "run toyworld: --limit 1 --out file": "'--out': file is a file; name a folder",
    "sample toyworld: --limit 1 --out file": "'--out': file is a file",
    "score texts --out file": "'--out': file is a file",
    "score texts --out file/inside": "file is a file",
    "report a --out file": "'--out': file is a file",
    "report a --out a": "'--out': a is a run folder, which holds one run's measurements; name another folder",
    "score texts --out a": "a is a run folder",
    "run toyworld: --out a": "a is a run folder",
    "reference build texts --out file": "'--out': file is a file",
    "reference build texts --work file": "'--work': file is a file",
    "reference for ambient --from texts --work file": "'--work': file is a file",
    "curate texts --rule ambient --out new --work file": "'--work': file is a file",
    **{
        f"{words} --metric lpips_reference": "with against (--against RUN) of run, measure or evaluate"
        for words in ("score texts", "run toyworld: --limit 1", "reference build texts")
    },
    "curate texts --rule ambient --out 'my subset'": "my subset: its name 'my subset' cannot be an id",
    "curate texts --rule ambient --out /": "/ has no name; name a folder in it",
    "subsets import texts --out /": "/ has no name",
    "reference for ambient --from texts --out file": "'--out': file is a file",
    **{
        f"{words} --device cuda": "device 'cuda' is not there"
        for words in ("reference for ambient --from texts", "reference build texts", "measure a", "evaluate a")
        if not torch.cuda.is_available()
    },
    "train examples --out file": "'--out': file is a file",
    "runs merge file a": "file is a file",
    "score -dash": "-dash is read as an option, because it begins with '-'; write ./-dash for the path",
    "run clips:-dash": "`avbench score ./-dash`",
    "scor texts": "Did you mean 'score'",
    "score": "Missing argument 'folders'",
    "score missing": "the folder does not exist",
    "score file": "file is a file",
    "score empty": "no clip in it",
    "score a": "is a run folder of avbench",
    "score texts texts": "is given twice",
    "score x=texts x=-dash": "give names, as in first=texts",
    "score texts --metric motion_amont": "did you mean 'motion_amount'",
    "score texts --reference missing": "reference missing does not exist",
    "score texts --reference file": "reference file is a file; give a folder of real clips",
    "score texts --fps fast": "it must be a positive number such as 8",
    "report a --out page --explain fdv": "did you mean 'fvd'",
    "score texts --worker 0": "Possible options: --workers",
    "score texts --workers -1": "greater than or equal to 0",
    "score texts --device gpu": "did you mean 'cpu'",
    "run toyworld: --limit 1 --out a/run.json/x": "a/run.json is a file; name a folder",
    "run clips:missing --limit 1": "no such folder",
    **{
        f"run '{name}:{blank}' --limit 1": f"names nothing after the colon; write {name}:{target}"
        for name, target in generators.TARGETS.items()
        for blank in ("", " ")
    },
    "run 'toyworld: ' --limit 1": "names nothing after the colon; write toyworld:",
    "run toyworld --limit 1": "no file or folder of that name; for the provider write toyworld:",
    "run diffusers --limit 1": "for the provider write diffusers:PATH-OR-OWNER/NAME",
    "run diffusers:missing --limit 1": "neither a path nor a repository of the hub (owner/name",
    "run avfulldit:toy-t2w --limit 1": "did you mean 'toy-t2v'",
    "run videos-api:missing --limit 1": "give http(s)://…#MODEL",
    "run cmd:missing --limit 1": "write cmd:SCRIPT ARGS…",
    "run cmd:./file --limit 1": "'./file' is a file that may not be run; write cmd:SCRIPT ARGS…",
    "run 'cmd:python3 missing.py' --limit 1": "there is no script 'missing.py'",
    "run python:missing --limit 1": "write python:package.module:Class",
    "run x=toyworld: x=toyworld:noisy": "give one a name, NAME=MODEL",
    "run toyworld: --shard 5/4": "write i/n with 1 ≤ i ≤ n",
    "score file --shard 1": "write i/n with 1 ≤ i ≤ n",
    "measure a --shard 1:4": "write i/n with 1 ≤ i ≤ n",
    "runs merge out empty": "empty is not a run folder",
    "status empty": "is not a run folder",
    "compare empty": "is not a run folder",
    **{
        f"{command} ''": "is empty; write . for the current folder"
        for command in (
            *("score texts --reference", "score texts --out", "score texts --prompts", "score texts --plan"),
            *("run toyworld: --against", "sample toyworld: --out", "run toyworld: --config", "report a --out"),
            *("check a --baseline", "compare a --figure", "measure a", "votes", "curate file --rule ambient --work"),
            *("score", "score texts", "run", "sample", "compare a", "compare b=a", "check", "subsets lint"),
        )
    },
    **{
        f"{command} b=": "the path of b= is empty; write b=. for the current folder"
        for command in ("score", "run", "sample", "compare b=a")
    },
    "subsets import '' --out x": "pool '' names no folder; write . for the current folder",
    "subsets import greatest-hits: --out x": "pool 'greatest-hits:' names no folder",
    "score texts --columns ''": "--columns: a value is empty; name one, or leave the option out",
    "train examples --data '' --out x": "--data: a value is empty",
    "score texts --mirror ''": "--mirror: a value is empty",
    "run toyworld: --config empty.toml": "out is ''; it must be text that is not empty",
    "compare a missing": "missing is not a run folder",
    "reference build real/missing": "there is no folder real/missing",
    "list models missing": "missing does not exist",
    "list models nobody/nothing": "nobody/nothing does not exist here, and avbench does not find it in the cache",
    "compare a --format jsn": "did you mean 'json'",
    "compare a --metric fdv": "did you mean 'fvd' or 'fad'? `avbench list metrics` lists all",
    "measure a --metric CLAP_text": "did you mean 'clap_text_audio'",
    "compare a --metric fvd": "was not scored by 'fvd'",
    "compare a --plan missing.toml": "missing.toml",
    "leaderboard empty": "no run folder in empty",
    "list metric": "did you mean 'metrics'",
    "list metrics fdv": "list metrics: no name holds 'fdv'; did you mean 'fvd'",
    "list metrics --format xml": "choices: console, csv, json, latex, md",
    "report a --out page --media insde": "did you mean 'inside'",
    "compare a --caption short": "--caption has no effect with --format console; give md, latex or csv",
    "compare a --caption short --format json": "--caption has no effect with --format json",
    **{
        f"{words} {option}": f"{option.split()[0]} has no effect on arms"
        for words, options in {
            "compare x=a y=a": ("--all",),
            "report x=a y=a --out page": ("--all", "--media beside", "--workers 0"),
        }.items()
        for option in options
    },
    **{f"doctor {given}": "no effect without --model" for given in ("-M a=1", "--subset ambient", "--prompts file")},
    "doctor --model toyworld: --out runs": "--out has no effect with --model",
    "doctor --model toyworld: --subset ambient --prompts file": "subsets (--subset) or prompts (--prompts), not both",
    "check a --baseline b.zip --reason x": "--reason has no effect without --update",
    "check a --baseline b.zip --reason x --update --init": "--init has no effect with --update",
    "check a --baseline b.zip --reason x --update --plan file": "--plan has no effect with --update",
    "check a --baseline b.zip --init --junit file": "--junit has no effect with --init",
    "check a --baseline missing.zip": "missing.zip",
    "reference show toy-contrl": "did you mean 'toy-control'",
    "reference build empty": "no clip in it",
    "power a --seeds 1,x": "'x' is not a whole number from 1",
    "weights fetch i3d-k40": "did you mean 'i3d-k400'? `avbench weights list` lists all",
    "evaluate a --reference empty --quiet": "holds no reference",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_answered_by_a_sentence(line, place, monkeypatch):
    monkeypatch.chdir(place)
    done = run_avbench(*shlex.split(line), code=None)
    assert done.exit_code in (1, 2), done
    assert MISTAKES[line] in done.stderr
    assert done.stderr.startswith("avbench: ") and len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("models", "settings", "sentence"),
    [
        ("toyworld: tooyworld:", (), "did you mean 'toyworld'"),
        ("toyworld: avfulldit:", (), "names nothing after the colon"),
        ("toyworld: avfulldit:toy-tv2", (), "did you mean 'toy-t2v'"),
        ("toyworld: avfulldit:toy-t2v+nowhere", (), "toy-t2v does not exist"),
        ("toyworld: clips:nowhere", (), "there is no such folder"),
        ("toyworld: cmd:nowhere", (), "is not a command that can be run"),
        ("toyworld: python:heavy:Nothing", (), "heavy has no 'Nothing'"),
        ("toyworld: videos-api:nowhere", (), "give http(s)://"),
        ("toyworld: diffusers:./nowhere", (), "is neither a path nor a repository of the hub"),
        ("toyworld:noisy toyworld:frozen", ("-M", "strength=1"), "toyworld:frozen has no strength"),
        ("avfulldit:toy-t2v avfulldit:toy-t2av", ("-M", "solver=oiler"), "did you mean 'euler'"),
        ("python:heavy:Light python:heavy:Heavy", ("-M", "step=1"), "did you mean 'steps'"),
    ],
)
def test_a_mistake_in_the_second_model_is_found_before_the_first_is_sampled(
    place, tmp_path, monkeypatch, models, settings, sentence
):
    """And nothing that takes long was built: the class of the user says so if it is."""
    (tmp_path / "heavy.py").write_text(
        "class Light:\n    def __init__(self, step): raise SystemError('built')\n"
        "class Heavy:\n    def __init__(self, steps): raise SystemError('built')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    out = run_avbench("run", *models.split(), *settings, "--limit", 1, "--out", tmp_path / "runs", code=2)
    assert sentence in out.stderr and not (tmp_path / "runs").exists()


def test_a_wrong_folder_is_found_before_weights_are_fetched(place, tmp_path, monkeypatch):
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path))  # empty: all are missing
    monkeypatch.setattr(fetching, "fetch", lambda *_, **__: pytest.fail("it fetches"))
    for words, sentence in (
        (("score", place / "missing"), "the folder does not exist"),
        (("score", place / "texts", "--reference", place / "missing"), "does not exist"),
        (("run", "toyworld:", "--reference", place / "missing"), "does not exist"),
        (("run", "toyworld:", "--subset", place / "missing"), "is unknown"),
    ):
        assert sentence in run_avbench(*words, "--metric", "fvd", "--fetch", code=2).stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_names_its_option(place, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    tmp_path.chmod(0o500)
    message = run_avbench("run", "toyworld:", "--out", tmp_path / "runs", code=2).stderr
    assert f"'--out': {tmp_path} cannot be written by you; name another folder" in message


@pytest.mark.parametrize("name", ["-dash", "my clips", "..."])
def test_a_folder_of_any_name_can_be_a_subset(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "x.mp4").write_text("no clip")
    assert loading.from_folder(tmp_path / name).name == {"-dash": "dash", "my clips": "my-clips", "...": "clip"}[name]


def test_a_subset_is_named_after_the_folder_that_a_dot_is(place, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    run_avbench("subsets", "import", place / "texts", "--out", ".")
    assert loading.load(str(tmp_path / "mine")).name == "mine"
    refused = run_avbench("train", "arms", "--out", ".", "--video", "v", "--audio", "a", "--examples", "e", code=2)
    assert "e holds no training examples" in refused.stderr
