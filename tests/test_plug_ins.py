"""Packages outside avbench add metrics, features, subsets, generators and data sets; a bad one costs a sentence."""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import run_avbench
from made_runs import unsealed

import avbench
from avbench.core import Audio, Clip, InputError, Moments
from avbench.features.protocols import protocol_of
from avbench.generation.contract import check
from avbench.generation.table import build
from avbench.metrics import distances
from avbench.metrics.evaluate import chosen_metrics
from avbench.metrics.table import METRICS, known_metrics
from avbench.storage.media import write_clip
from avbench.storage.reading import read_json
from avbench.storage.runs.folder import RunFolder
from avbench.storage.writing import write_sealed
from avbench.subsets.lint import lint
from avbench.subsets.loading import load

DOCS = Path(__file__).parents[1] / "docs" / "adding-a-metric.md"

CODE = """
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avbench.core import Clip, Direction, InputError, Protocol
from avbench.metrics.table import Metric
from avbench.subsets.datasets import Entry, Reader

HERE = Path(__file__).parent
ARRAY = np.zeros(3)
SUBSET = HERE / "subset"
NO_SUBSET = HERE / "nowhere"
SET = Reader("two prompts", "nobody", lambda folder: iter([Entry("one", None, "a ball")]))

class Brightness:
    protocol = Protocol("brightness", 3)
    def __call__(self, clip):
        return {"brightness": float(clip.frames.mean())}

class Failing:
    protocol = Protocol("failing", 1)
    def __call__(self, clip):
        raise ZeroDivisionError("no light")

class Other:
    protocol = Protocol("something else", 1)

class Plain:
    protocol = {"name": "plain"}

class Number(Brightness):
    protocol = Protocol("number", 1)
    def __call__(self, clip):
        return 1.0

class Text(Brightness):
    protocol = Protocol("text", 1)
    def __call__(self, clip):
        return {"brightness": "light"}

class Masked(Brightness):
    protocol = Protocol("masked", 1)
    def __call__(self, clip):
        return {"brightness": np.ma.masked_array([999.0, 2.0], mask=[True, False])}

class NaN(Brightness):
    protocol = Protocol("nan", 1)
    def __call__(self, clip):
        return {"brightness": float("nan")}

class Forgotten(Protocol):
    threshold: float = 0.5

@dataclass(frozen=True)
class Threshold(Protocol):
    threshold: float = float("nan")

def with_protocol(kind, name, version):
    return type(name, (Brightness,), {"protocol": kind(name, version)})
FORGOTTEN, ENDLESS = with_protocol(Forgotten, "forgotten", 1), with_protocol(Threshold, "endless", 1)
NO_VERSION, TEXT_VERSION = with_protocol(Protocol, "no_version", None), with_protocol(Protocol, "text_version", "1")

class Filmed:
    def __init__(self, target):
        self.settings = {"folder": target}
    def generate(self, requests):
        for one in requests:
            path = Path(self.settings["folder"]) / f"{one.key.seed}.mkv"
            if one.prompt.id.endswith("0") or not path.is_file():
                yield Clip(np.random.default_rng([one.key.seed, *one.prompt.id.encode()]).integers(
                    0, 256, (16, 64, 64, 3), np.uint8), 8)
            else:
                yield path

class Unfinished(Filmed):
    def prepare(self): self.raised_in("prepare")
    def asked(self, request): return self.raised_in("asked") or request.key
    def remarks(self, requests): return self.raised_in("remarks") or []
    def raised_in(self, method):
        if self.settings["folder"] == method:
            raise ZeroDivisionError("not written yet")

def values(columns):
    return columns["brightness"]

def mean(columns):
    return columns["brightness"].mean() > 3

def wrong(columns):
    return 1 / 0

def one_for_all(columns):
    return columns["brightness"].mean() > 0

def metric(name, feature="brightness", function="values", **options):
    return Metric(name, feature, f"PLACE:{function}", Direction.BAND, "grey levels", "How bright?", **options)

GOOD, RAISES, NO_ROWS = metric("bright", usual=False), metric("raises", function="wrong"), metric("dark", "failing")
OWN_NAME, NAMELESS, NO_FEATURE, NO_FUNCTION = (
    metric("fvd"), metric("another"), metric("lost", "nothing"), metric("absent", function="absent")
)
ONE_FOR_ALL = metric("one_for_all", function="one_for_all")
UNNAMED_FEATURE, PLAIN_FEATURE = metric("unnamed_feature", "unnamed"), metric("plain_feature", "plain")
COMMA = metric("b,c")
WITH_FORGOTTEN, WITH_ENDLESS, WITH_NO_VERSION, WITH_TEXT_VERSION = (
    metric(f"with_{name}", name) for name in ("forgotten", "endless", "no_version", "text_version")
)
OTHER_IDENTITY = metric("other_identity", settings={"package": "another 1.0"})
TEXT, ONE_BOUND, OBJECT = (
    Metric(name, "brightness", "brightness", **{"direction": Direction.LOWER, "unit": "", "question": "?", **wrong})
    for name, wrong in (
        ("text", {"direction": "lower"}), ("bound", {"bounds": (0,)}), ("object", {"settings": {"a": HERE}})
    )
)
SCALAR, OF_NUMBER, OF_TEXT, OF_NAN, OF_MASKED = metric("scalar", function="mean"), *(
    metric(name, name) for name in ("number", "text", "nan", "masked")
)
COLUMN, NO_COLUMN = (
    Metric(name, "brightness", column, Direction.BAND, "grey levels", "How bright?")
    for name, column in (("stored", "brightness"), ("misspelled", "brigthness"))
)
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a package on the path, as pip would: its module and its entry points."""
    added = []

    def put(name, entry_points, code=CODE):
        place = tmp_path / "site" / name
        info = place / f"{name}-1.5.dist-info"
        info.mkdir(parents=True)
        (place / f"{name}.py").write_text(code.replace("PLACE", name))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        lines = [f"[avbench.{group}]\n" + "\n".join(one) for group, one in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(str(place))
        monkeypatch.setenv("PYTHONPATH", f"{place}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        added.append(name)
        return place

    yield put
    for name in added:
        sys.modules.pop(name, None)


def clips(folder, count=2):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        sound = Audio(rng.uniform(-0.3, 0.3, (1, 16000)).astype(np.float32), 16000)
        write_clip(Clip(rng.integers(0, 256, (8, 32, 32, 3), np.uint8), 8, sound), folder / f"{number}.mkv")
    return folder


def test_a_package_adds_a_metric_and_its_feature(tmp_path, install):
    install("lights", {"metrics": ["bright = lights:GOOD"], "features": ["brightness = lights:Brightness"]})
    for what, words in (("metrics", "How bright?"), ("features", "lights:Brightness")):
        assert words in run_avbench("list", what, "--format", "csv").stdout
    assert "bright" not in [metric.name for metric in chosen_metrics(None)], "it says that it is not usual"
    run_avbench("score", clips(tmp_path / "a"), "--metric", "bright", "--workers", 1, "--out", tmp_path / "out")
    folder = RunFolder(tmp_path / "out" / "a")
    (score,) = folder.scores()
    protocol = folder.evaluation().protocols[score.protocol]
    assert score.value == pytest.approx(127.5, abs=3) and protocol["package"] == "lights 1.5"
    assert (protocol["feature"]["version"], protocol["feature"]["package"]) == (3, "lights 1.5")


def test_a_metric_may_be_a_column_of_its_feature(tmp_path, install):
    metrics = ["bright = torches:GOOD", "stored = torches:COLUMN", "misspelled = torches:NO_COLUMN"]
    install("torches", {"metrics": metrics, "features": ["brightness = torches:Brightness"]})
    asked = [word for name in ("bright", "stored", "misspelled") for word in ("--metric", name)]
    run_avbench("score", clips(tmp_path / "a"), *asked, "--workers", 0, "--out", tmp_path / "out", code=1)
    scores = {score.metric: score for score in RunFolder(tmp_path / "out" / "a").scores()}
    assert scores["stored"].value == scores["bright"].value is not None
    assert scores["misspelled"].missing == (
        "failed in the package torches 1.5: ValueError: "
        "brightness has no column 'brigthness'; did you mean 'brightness'? choices: brightness"
    )


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("gone = lamps:NOWHERE", "it cannot be loaded: module 'lamps' has no attribute 'NOWHERE'"),
        ("gone = lamp:GOOD", "it cannot be loaded: No module named 'lamp'"),
        ("array = lamps:ARRAY", "it is not a Metric but a ndarray"),
        ("fvd = lamps:OWN_NAME", "avbench itself has a metric of that name, which is used instead"),
        ("nameless = lamps:NAMELESS", "it calls itself 'another'"),
        ("lost = lamps:NO_FEATURE", "feature 'nothing' is unknown"),
        ("absent = lamps:NO_FUNCTION", "lamps:absent cannot be loaded"),
        ("unnamed_feature = lamps:UNNAMED_FEATURE", "`protocol` must be a Protocol whose name is 'unnamed'"),
        (
            "plain_feature = lamps:PLAIN_FEATURE",
            "and it is {'name': 'plain'}; write `protocol = Protocol('plain', vers",
        ),
        ("text = lamps:TEXT", "its direction is 'lower'; it must be a Direction"),
        ("bound = lamps:ONE_BOUND", "its bounds are (0,); they must be two numbers, or None"),
        ("b,c = lamps:COMMA", "its name is 'b,c'; it may have letters, digits, '_', '-' and '.'"),
        (
            "with_forgotten = lamps:WITH_FORGOTTEN",
            "has threshold, which is no field: put @dataclass(frozen=True) on its",
        ),
        ("with_endless = lamps:WITH_ENDLESS", "its `protocol` cannot be stored as JSON: Out of range float values"),
        ("with_no_version = lamps:WITH_NO_VERSION", "has the version None; it must be a whole number"),
        ("with_text_version = lamps:WITH_TEXT_VERSION", "has the version '1'; it must be a whole number"),
        ("other_identity = lamps:OTHER_IDENTITY", "its settings have the name 'package', by which a score's protocol"),
        ("object = lamps:OBJECT", "its settings cannot be stored as JSON: Object of type PosixPath"),
    ],
)
def test_a_metric_that_cannot_be_used_costs_one_sentence(tmp_path, install, entry, sentence):
    features = ["brightness = lamps:Brightness", "unnamed = lamps:Other", "plain = lamps:Plain"]
    features += [f"{name} = lamps:{name.upper()}" for name in ("forgotten", "endless", "no_version", "text_version")]
    install("lamps", {"metrics": [entry], "features": features})
    assert [*known_metrics().values()] == [*METRICS]
    listed = run_avbench("list", "metrics", "--format", "csv")
    (note,) = listed.stderr.splitlines()
    assert note.startswith("note: the metric ") and "of the package lamps 1.5 cannot be used" in note
    assert sentence in note
    name = entry.partition(" ")[0]
    if name != "fvd":
        with pytest.raises(InputError, match=re.escape(sentence)):
            chosen_metrics([name])


def test_a_run_goes_on_where_a_plug_in_fails(tmp_path, install):
    features = ["brightness = bulbs:Brightness", "failing = bulbs:Failing"]
    install("bulbs", {"metrics": ["raises = bulbs:RAISES", "dark = bulbs:NO_ROWS", "x = y"], "features": features})
    asked = [part for name in ("onset_rate", "raises", "dark") for part in ("--metric", name)]
    done = run_avbench("score", clips(tmp_path / "a"), *asked, "--workers", 0, "--out", tmp_path / "out", code=1)
    assert done.stderr.count("the metric 'x' (y) of the package bulbs 1.5 cannot be used") == 1
    scores = {score.metric: score for score in RunFolder(tmp_path / "out" / "a").scores()}
    assert scores["onset_rate"].value is not None
    assert scores["raises"].missing == "failed in the package bulbs 1.5: ZeroDivisionError: division by zero"
    assert "failed in the package bulbs 1.5: ZeroDivisionError: no light" in scores["dark"].missing
    both = (clips(tmp_path / "b"), clips(tmp_path / "c"))
    said = run_avbench("score", *both, *asked, "--workers", 0, "--out", tmp_path / "out2", code=1).stdout
    assert "raises failed in the package bulbs 1.5: ZeroDivisionError: division by zero (1)" in said


def test_a_metric_asked_for_by_name_that_failed_is_exit_code_one(tmp_path, install):
    """One without sound is not: what the clips lack is no failure."""
    metrics = ["bright = wicks:GOOD", "raises = wicks:RAISES", "one_for_all = wicks:ONE_FOR_ALL"]
    install("wicks", {"metrics": metrics, "features": ["brightness = wicks:Brightness"]})
    folder = tmp_path / "a"
    folder.mkdir()
    for number in range(2):
        write_clip(Clip(np.full((8, 32, 32, 3), 99 + number, np.uint8), 8), folder / f"{number}.mkv")

    def scored(*names, code):
        words = [part for name in names for part in ("--metric", name)]
        return run_avbench("score", folder, *words, "--workers", 0, "--out", tmp_path / names[-1], code=code).stderr

    scored("bright", "onset_rate", code=0)
    said = scored("bright", "onset_rate", "raises", code=1)
    assert "avbench: raises has no value: failed in the package wicks 1.5: ZeroDivisionError: division by zero" in said
    said = scored("bright", "one_for_all", code=1)
    assert "wicks 1.5: ValueError: wicks:one_for_all returned " in said


def test_what_plug_ins_return_wrongly_is_said(tmp_path, install):
    wrong = {"number": "Number", "text": "Text", "nan": "NaN", "masked": "Masked"}
    features = ["brightness = sparks:Brightness", *(f"{name} = sparks:{kind}" for name, kind in wrong.items())]
    metrics = ["scalar = sparks:SCALAR", *(f"{name} = sparks:OF_{name.upper()}" for name in wrong)]
    install("sparks", {"metrics": metrics, "features": features})
    asked = [part for one in metrics for part in ("--metric", one.split()[0])]
    run_avbench("score", clips(tmp_path / "a"), *asked, "--workers", 0, "--out", tmp_path / "out", code=1)
    missing = {score.metric: score.missing for score in RunFolder(tmp_path / "out" / "a").scores()}
    assert missing.pop("scalar") == (
        "failed in the package sparks 1.5: ValueError: sparks:mean returned True; "
        "it must return an array of shape (2,), one number per clip"
    )
    failed, everywhere = "failed in the package sparks 1.5: InputError: ", " (2 of 2 clips)"
    assert {name: why.removeprefix(failed).removesuffix(everywhere) for name, why in missing.items()} == {
        "number": "it returned a float; it must return a dict of names and floats or float arrays",
        "text": "brightness is 'light'; it must be a float or a float array",
        "nan": 'brightness is NaN or infinite; a feature raises NotMeasurable("why") for a clip without a value',
        "masked": 'brightness has masked values; a feature raises NotMeasurable("why") for a clip without a value',
    }


def test_a_metric_may_return_integers_and_cannot_change_what_others_see(tmp_path, install):
    code = """
import numpy as np
from avbench.core import Direction
from avbench.metrics.table import Metric
def many(columns):
    return np.ones(len(columns["loudness"]), dtype=int)
def blanked(columns):
    x = columns["loudness"]
    x[:] = 0
    return x
def nowhere(x, y):
    return float("nan")
MANY = Metric("many", "levels", "wires:many", Direction.BAND, "", "Integers?")
BLANKED = Metric("a_first", "levels", "wires:blanked", Direction.BAND, "", "In place?")
LOUD = Metric("loud", "levels", "loudness", Direction.BAND, "", "How loud?")
"""
    install("wires", {"metrics": ["a_first = wires:BLANKED", "many = wires:MANY", "loud = wires:LOUD"]}, code)
    asked = [part for name in ("a_first", "many", "loud", "loudness") for part in ("--metric", name)]
    run_avbench("score", clips(tmp_path / "a"), *asked, "--workers", 0, "--out", tmp_path / "out", code=1)
    scores = {score.metric: score for score in RunFolder(tmp_path / "out" / "a").scores()}
    assert "read-only" in scores["a_first"].missing
    assert (scores["many"].value, scores["many"].n) == (1.0, 2)
    assert scores["loud"].value == scores["loudness"].value is not None


MIXED = """
import numpy as np
from avbench.core import Direction, Protocol
from avbench.metrics.table import Metric

class Mixed:
    protocol = Protocol("mixed", 1)
    def __call__(self, clip):
        return {"light": 1.0, "dark": 2.0} if len(clip.frames) == 8 else {NAMES}

def distance(x, y):
    return 1.0

def endless(columns):
    return np.where(columns["light"] == 3, np.inf, columns["light"] - 2)

def metric(name, function, **options):
    return Metric(name, "mixed", function, Direction.LOWER, "", "?", **options)
LIGHT, ENDLESS = metric("light", "light"), metric("endless", "mixed_:endless")
FAR = metric("far", "mixed_:distance", per_clip=False, column="lihgt")
"""


@pytest.fixture
def mixed(tmp_path, install, monkeypatch):
    """Score two clips of 8 frames and one of 9, of which the feature returns other values."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def score(names, *more, code):
        metrics = [f"{name} = mixed_:{name.upper()}" for name in ("light", "endless", "far")]
        install("mixed_", {"metrics": metrics, "features": ["mixed = mixed_:Mixed"]}, MIXED.replace("{NAMES}", names))
        folder = clips(tmp_path / "a")
        write_clip(Clip(np.full((9, 32, 32, 3), 99, np.uint8), 8), folder / "longer.mkv")
        asked = ("--metric", "light,endless,far,onset_rate", "--workers", 0, "--out", tmp_path / "out")
        said = run_avbench("score", folder, *asked, *more, code=code).stderr
        run = tmp_path / "out" / "a"
        return said, {one.metric: one for one in RunFolder(run).scores()} if (run / "scores.json").exists() else {}

    return score


def test_a_feature_with_other_names_for_another_clip_is_the_packages_error(tmp_path, mixed):
    said, scores = mixed('{"light": 3.0}', code=1)
    failed = "failed in the package mixed_ 1.5: InputError: the row of clip longer with seed 0 has the values ['light']"
    assert scores["light"].missing.startswith(failed) and f"light has no value: {failed}" in said
    assert scores["onset_rate"].value is not None


def test_a_reference_names_the_package_whose_values_do_not_fit(tmp_path, mixed):
    said, _ = mixed('{"light": 3.0}', "--reference", tmp_path / "a", code=2)
    wrong = "mixed cannot be kept in a reference: failed in the package mixed_ 1.5: InputError: the row of clip longer"
    assert f"avbench: {wrong}" in said


def test_the_order_of_a_features_values_does_not_matter(tmp_path, mixed):
    _, scores = mixed('{"dark": 4.0, "light": 4.0}', code=None)
    assert (scores["light"].value, scores["light"].n) == (2.0, 3)  # of 1, 1 and 4
    assert scores["endless"].value == 0.0  # of -1, -1 and 2


def test_infinity_is_no_value(tmp_path, mixed):
    said, scores = mixed('{"dark": 3.0, "light": 3.0}', "--reference", tmp_path / "a", code=1)
    endless = "mixed_:endless returned infinity for 1 of 3 clips; NaN marks what it cannot measure"
    assert scores["endless"].missing == f"failed in the package mixed_ 1.5: ValueError: {endless}"
    column = "ValueError: mixed has no column 'lihgt'; did you mean 'light'? choices: dark, light"
    assert scores["far"].missing == f"failed in the package mixed_ 1.5: {column}"
    assert "endless has no value: failed" in said and "far has no value: failed" in said


@pytest.mark.parametrize("returned", [float("nan"), float("inf"), None, np.zeros(3), "far"])
def test_a_distance_must_return_one_finite_number(monkeypatch, returned):
    metric = dataclasses.replace(known_metrics()["fvd"], function=f"{__name__}:returns_wrongly")
    monkeypatch.setitem(globals(), "returns_wrongly", lambda x, y, **settings: returned)
    x = np.random.default_rng(0).normal(size=(30, 4))
    with pytest.raises(ValueError, match=r"returns_wrongly returned .*; it must return "):
        distances.value(metric, x, x + 1)
    metric = dataclasses.replace(metric, moments=metric.function)
    with pytest.raises(ValueError, match=r"returns_wrongly returned .*; it must return "):
        distances.value_of_moments(metric, x, Moments.of(x + 1), 30)


@pytest.mark.parametrize("returned", [np.arange(3), [0, 1, 2], np.arange(3, dtype=np.float32)])
def test_numbers_per_clip_of_a_metric_with_a_reference_become_float64(monkeypatch, returned):
    metric = dataclasses.replace(known_metrics()["near_copies"], function=f"{__name__}:returns_numbers")
    monkeypatch.setitem(globals(), "returns_numbers", lambda x, y, **settings: returned)
    found = distances.value(metric, np.zeros((3, 4)), np.ones((5, 4)))
    assert found.dtype == np.float64 and found.tolist() == [0.0, 1.0, 2.0]


def test_what_a_metric_masks_is_not_measured():
    """Of 9, 1 and 2 the first is masked: two clips are left, whose mean is 1.5."""
    metric = dataclasses.replace(known_metrics()["near_copies"], function=f"{__name__}:clips")
    found = metric.one_per_clip(np.ma.masked_array([9, 1, 2], mask=[True, False, False]), 3)
    assert np.isnan(found).tolist() == [True, False, False] and np.nanmean(found) == 1.5


@pytest.mark.parametrize(
    ("clips", "shapes"),
    [([(3,), (5,), (7,)], r"\(3,\) and \(5,\)"), ([(), (2,)], r"\(\) and \(2,\)"), ([(3,), (3,)], r"\(3,\)")],
)
def test_a_column_used_without_a_function_has_one_number_per_clip(clips, shapes):
    column = np.empty(len(clips), object)
    column[:] = [np.zeros(shape) for shape in clips]
    if len(set(clips)) == 1:
        column = np.stack(column)
    metric = dataclasses.replace(known_metrics()["onset_rate"], function="curve")
    words = rf"the column 'curve' of onsets has arrays of shape {shapes}; .* needs one number per clip$"
    with pytest.raises(ValueError, match=words):
        metric.of_clips({"curve": column})


@pytest.mark.parametrize("returned", [np.ones(3) * 1j, ["a", "b", "c"], [None] * 3, np.ones(2)])
def test_a_metric_of_clips_with_a_reference_must_return_numbers(monkeypatch, returned):
    metric = dataclasses.replace(known_metrics()["near_copies"], function=f"{__name__}:returns_wrongly")
    monkeypatch.setitem(globals(), "returns_wrongly", lambda x, y, **settings: returned)
    with pytest.raises(ValueError, match=r"it must return an array of shape \(3,\), one number per clip"):
        distances.value(metric, np.zeros((3, 4)), np.ones((5, 4)))


def test_the_generator_of_a_package_may_return_clips_and_paths(tmp_path, install):
    install("reels", {"generators": ["filmed = reels:Filmed"]})
    frames = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8)
    for seed in range(2):
        write_clip(Clip(frames ^ np.uint8(seed), 8), tmp_path / f"{seed}.mkv")
    model = f"filmed:{tmp_path}"
    subset = load("toy-control").limited(2)
    found = [*check(lambda: build(model, {}), subset)]
    assert all(one.ok is not False for one in found), found
    run_avbench("sample", model, "--subset", "toy-control", "--limit", 2, "--workers", 0, "--out", tmp_path / "runs")
    (folder,) = map(RunFolder, (tmp_path / "runs").iterdir())
    assert [one.failure for one in folder.samples().values()] == [None] * 2


def test_the_feature_of_the_docs_is_measured(tmp_path, install):
    (code,) = re.findall(r"```python\n(# redness\.py\n.*?)```", DOCS.read_text(), re.DOTALL)
    (entry,) = re.findall(r'avbench\.features"\]\n(.*?) *\n```', DOCS.read_text())
    code += """
from avbench.core import Direction
from avbench.metrics.table import Metric
RED = Metric("red", "redness", "red", Direction.BAND, "", "How red?")
"""
    install("redness", {"features": [entry.replace('"', "")], "metrics": ["red = redness:RED"]}, code)
    frames = np.zeros((8, 32, 32, 3), np.uint8)
    (tmp_path / "a").mkdir()
    write_clip(Clip(frames, 8), tmp_path / "a" / "b.mkv")  # not the first: a run that begins with black clips is broken
    write_clip(Clip(frames + np.array([60, 20, 20], np.uint8), 8), tmp_path / "a" / "a.mkv")
    run_avbench("score", tmp_path / "a", "--metric", "red", "--workers", 0, "--out", tmp_path / "out")
    (score,) = RunFolder(tmp_path / "out" / "a").scores()
    assert (score.value, score.n) == (pytest.approx(0.6), 1)


def test_the_reader_and_the_subset_of_the_docs_are_read(tmp_path, install):
    pages = [(DOCS.parent / name).read_text() for name in ("datasets.md", "subsets.md")]
    (code,) = re.findall(r"```python\n(# my_set\.py\n.*?)```", pages[0], re.DOTALL)
    (entry,) = re.findall(r'avbench\.datasets"\]\n(.*?) +#', pages[0])
    install("my_set", {"datasets": [entry.replace('"', "")]}, code)
    (tmp_path / "list.txt").write_text("one test kitchen\ntwo train street\n")
    (tmp_path / "one.mp4").touch()
    run_avbench("subsets", "import", f"my-set:{tmp_path}", "--split", "test", "--out", tmp_path / "imported")
    (prompt,) = load(str(tmp_path / "imported")).prompts
    assert (prompt.id, prompt.video_caption) == ("one", "a kitchen")
    (card,) = re.findall(r"```toml\n(# mine/card\.toml\n.*?)```", pages[1], re.DOTALL)
    (line,) = re.findall(r"```json\n(.*?)```", pages[1], re.DOTALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "card.toml").write_text(card)
    (tmp_path / "mine" / "prompts.jsonl").write_text(line)
    assert lint([str(tmp_path / "mine")])[0] == []
    assert load(str(tmp_path / "mine")).prompts[0].tags == {"place": "indoors"}


def test_what_a_feature_failed_at_is_measured_again(tmp_path, install):
    place = install("torch_", {"metrics": ["dark = torch_:NO_ROWS"], "features": ["failing = torch_:Failing"]})
    asked = ("score", clips(tmp_path / "a"), "--metric", "dark", "--workers", 0, "--out", tmp_path / "out")
    run_avbench(*asked, code=1)
    (place / "torch_.py").write_text(
        CODE.replace("PLACE", "torch_").replace('raise ZeroDivisionError("no light")', 'return {"brightness": 1.0}')
    )
    sys.modules.pop("torch_")
    run_avbench(*asked)
    (score,) = RunFolder(tmp_path / "out" / "a").scores()
    assert score.value == 1.0


def test_no_reference_is_built_of_clips_that_a_feature_failed_at(tmp_path, install, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fails_at_eight_frames = 'return {"brightness": 1 / (len(clip.frames) - 8)}'
    code = CODE.replace('raise ZeroDivisionError("no light")', fails_at_eight_frames)
    install("glow", {"metrics": ["dark = glow:NO_ROWS"], "features": ["failing = glow:Failing"]}, code)
    real, model = clips(tmp_path / "real"), clips(tmp_path / "model")
    write_clip(Clip(np.full((9, 32, 32, 3), 99, np.uint8), 8), real / "longer.mkv")
    words = ("--metric", "dark", "--workers", 0, "--out", tmp_path / "out")
    for _ in range(2):
        said = run_avbench("score", model, *words, "--reference", real, code=2).stderr
        assert "2 clips could not be measured by failing (failed in the package glow 1.5: ZeroDivisionError" in said
    assert not [*(tmp_path / "cache").rglob("card.json")]


def test_of_two_packages_of_one_name_neither_is_used(install):
    for name in ("lantern", "candle"):
        install(name, {"metrics": [f"bright = {name}:GOOD"], "features": ["brightness = candle:Brightness"]})
    for what in ("metrics", "features"):
        (note,) = run_avbench("list", what).stderr.splitlines()
        assert "candle 1.5" in note and "lantern 1.5" in note and "uninstall one of them" in note
    with pytest.raises(InputError, match="uninstall one of them"):
        chosen_metrics(["bright"])


def test_a_package_adds_a_subset_a_data_set_and_a_generator(tmp_path, install):
    groups = {
        "subsets": ["mine = shelf:SUBSET", "lost = shelf:NO_SUBSET", "toy-control = shelf:SUBSET"],
        "datasets": ["two = shelf:SET", "array = shelf:ARRAY"],
        "generators": ["theirs = avbench.generation.providers.toyworld:ToyWorld"],
    }
    folder = install("shelf", groups) / "subset"
    folder.mkdir()
    (folder / "card.toml").write_text('name = "mine"\nversion = 1\n')
    (folder / "prompts.jsonl").write_text('{"id": "one", "video_caption": "a ball falls"}\n')
    assert load("mine").card["package"] == "shelf 1.5" and "package" not in load("toy-control").card
    with pytest.raises(InputError, match="is no subset folder"):
        load("lost")
    with pytest.raises(InputError, match="did you mean 'mine'"):
        load("mines")
    listed = run_avbench("list", "subsets")
    assert "mine" in listed.stdout and "'lost'" in listed.stderr and "'toy-control'" in listed.stderr
    listed = run_avbench("list", "datasets")
    assert "two prompts" in listed.stdout and "it is not a Reader but a ndarray" in listed.stderr
    assert "theirs:TARGET" in run_avbench("list", "models").stdout
    run_avbench("subsets", "import", f"two:{tmp_path}", "--out", tmp_path / "imported")
    assert load(str(tmp_path / "imported")).prompts[0].video_caption == "a ball"
    run_avbench(
        *("sample", "theirs:", "--subset", "toy-control", "--limit", 1, "--workers", 1, "--out", tmp_path / "runs")
    )
    (written,) = (tmp_path / "runs").glob("*/run.json")
    assert json.loads(written.read_text())["versions"]["shelf"] == "1.5"


LEAVING = """
import os, sys
import numpy as np
from avbench.core import Clip, Direction, Protocol
from avbench.metrics.table import Metric
from avbench.subsets.datasets import Entry, Reader

class Stop(BaseException):
    pass

def leave():
    raise Stop("no gpu")

class Leaves:
    protocol = Protocol("leaves", 1)
    def __call__(self, clip):
        sys.exit(0)

class Moves:
    protocol = Protocol("moves", 1)
    def __call__(self, clip):
        os.chdir("/")
        return {"value": 1.0}

class Model:
    def __init__(self, target):
        self.settings = {}
        if target == "build":
            sys.exit(0)
    def generate(self, requests):
        sys.exit(0)

def entries(folder):
    yield Entry("one", None, "a ball")
    sys.exit(0)

def exits(columns):
    sys.exit(0)

def stops(columns):
    leave()

def moves(columns):
    os.chdir("/")
    return np.ones(len(columns["loudness"]))

SET = Reader("one prompt", "nobody", entries)
def metric(name, feature, function):
    return Metric(name, feature, function, Direction.BAND, "", "?", usual=False)
LEFT, MOVED = metric("left", "leaves", "value"), metric("moved", "moves", "value")
EXITS, STOPS, MOVES = (metric(name, "levels", f"PLACE:{name}") for name in ("exits", "stops", "moves"))
"""


@pytest.mark.parametrize(
    ("name", "code", "why"),
    [
        ("doors", "import sys\nsys.exit(0)", "SystemExit: 0"),
        ("skips", "import pytest\npytest.skip('no gpu', allow_module_level=True)", "Skipped: no gpu"),
    ],
)
@pytest.mark.parametrize("group", ["metrics", "subsets", "datasets", "generators"])
def test_a_package_that_ends_the_program_at_import_is_left_out(tmp_path, install, group, name, code, why):
    install(name, {group: [f"door = {name}:DOOR"]}, code)
    listed = run_avbench("list", group.replace("generators", "models"))
    if group != "generators":  # they are listed without being imported
        assert f"({name}:DOOR) of the package {name} 1.5 cannot be used: it cannot be loaded: {why}" in listed.stderr
    asked = {
        "metrics": ("score", clips(tmp_path / "a"), "--metric", "door"),
        "subsets": ("run", "toyworld:", "--subset", "door"),
        "datasets": ("subsets", "import", f"door:{tmp_path}"),
        "generators": ("sample", "door:", "--subset", "toy-control"),
    }
    assert why in run_avbench(*asked[group], "--out", tmp_path / "out", code=2).stderr


@pytest.mark.parametrize("workers", [0, 2])
def test_code_of_a_package_that_ends_the_program_costs_its_metric_only(tmp_path, install, workers):
    metrics = ["left = exits_:LEFT", "exits = exits_:EXITS", "stops = exits_:STOPS"]
    install("exits_", {"metrics": metrics, "features": ["leaves = exits_:Leaves"]}, LEAVING)
    asked = [part for name in ("left", "exits", "stops", "loudness") for part in ("--metric", name)]
    words = ("score", clips(tmp_path / "a"), *asked, "--workers", workers, "--out", tmp_path / "out")
    run_avbench(*words, code=1)
    scores = {score.metric: score for score in RunFolder(tmp_path / "out" / "a").scores()}
    assert scores["loudness"].value is not None
    failed = "failed in the package exits_ 1.5: "
    assert {name: one.missing for name, one in scores.items() if one.value is None} == {
        "left": f"{failed}SystemExit: 0 (2 of 2 clips)",
        "exits": f"{failed}SystemExit: 0",
        "stops": f"{failed}Stop: no gpu",
    }


def test_a_generator_or_a_reader_that_ends_the_program_is_an_error(tmp_path, install, monkeypatch):
    install("gates", {"generators": ["gate = gates:Model"], "datasets": ["set = gates:SET"]}, LEAVING)
    rest = ("--subset", "toy-control", "--limit", 1, "--workers", 0, "--out", tmp_path / "out")
    assert "SystemExit: 0" in run_avbench("sample", "gate:", *rest, code=1).stderr
    assert "failed in the package gates 1.5: SystemExit: 0" in run_avbench("sample", "gate:build", *rest, code=2).stderr
    said = run_avbench("subsets", "import", f"set:{tmp_path}", "--out", tmp_path / "set", code=2).stderr
    assert said == f"avbench: reading {tmp_path} by set failed in the package gates 1.5: SystemExit: 0\n"
    monkeypatch.chdir(tmp_path)
    in_init = "import sys\nclass Model:\n    def __init__(self):\n        sys.exit(0)"
    for name, code in (("leaver", "import sys\nsys.exit(0)"), ("builder", in_init)):
        (tmp_path / f"{name}.py").write_text(code)
        said = run_avbench("sample", f"python:{name}:Model", *rest, code=2).stderr
        assert said.endswith("failed: SystemExit: 0\n")


@pytest.mark.parametrize("workers", [0, 1])
def test_code_of_a_package_may_not_move_avbench(tmp_path, install, monkeypatch, workers):
    entries = {"metrics": ["moved = wheels:MOVED", "moves = wheels:MOVES"], "features": ["moves = wheels:Moves"]}
    install("wheels", entries, f"import os\nos.chdir('/')\n{LEAVING}")
    clips(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    asked = [part for name in ("moved", "moves", "loudness") for part in ("--metric", name)]
    run_avbench("score", "a", *asked, "--workers", workers, "--out", "out")
    scores = {score.metric: score.value for score in RunFolder(tmp_path / "out" / "a").scores()}
    assert (scores.pop("loudness") is not None, scores) == (True, {"moved": 1.0, "moves": 1.0})
    assert Path.cwd() == tmp_path


APART = """
import sys
import numpy as np
from avbench.core import Direction, Protocol
from avbench.metrics.table import Metric

class Grey:
    protocol = Protocol("grey", 1)
    def __call__(self, clip):
        return {"grey": float(clip.frames.mean())}

def apart(x, y, otherwise=None):
    if otherwise and x.min() < 50 and x.max() > 150:  # clips of both models: so it is in their comparison alone
        return {"nan": lambda: float("nan"), "masked": lambda: np.ma.masked, "text": lambda: "far",
                "raises": lambda: 1 / 0, "exits": lambda: sys.exit(0)}[otherwise]()
    return abs(x.mean() - y.mean())

class Pooled:
    def __init__(self, features, otherwise):
        self.features = features
    def __call__(self, first, second):
        return abs(self.features[first] - self.features[second].mean(1, keepdims=True))

def metric(name, settings, **options):
    return Metric(name, "grey", "PLACE:apart", Direction.LOWER, "", "?", per_clip=False, column="grey", usual=False,
                  settings=settings, **options)
OK = metric("ok", {})
NAN, MASKED, TEXT, RAISES, EXITS = (metric(one, {"otherwise": one}) for one in "nan masked text raises exits".split())
POOLED = metric("pooled", {"otherwise": ""}, pooled="PLACE:Pooled")
"""


def test_a_distance_that_fails_in_the_comparison_costs_its_metric_only(tmp_path, install):
    names = ["ok", "nan", "masked", "text", "raises", "exits", "pooled"]
    install(
        "miles",
        {"metrics": [f"{one} = miles:{one.upper()}" for one in names], "features": ["grey = miles:Grey"]},
        APART,
    )
    for folder, grey in (("a", 10), ("b", 190), ("real", 100)):
        (tmp_path / folder).mkdir()
        for number in range(6):
            frames = np.full((8, 32, 32, 3), grey + number, np.uint8)
            frames[:, :8] += np.uint8(9)  # no clip is of one colour
            write_clip(Clip(frames, 8), tmp_path / folder / f"{number}.mkv")
    found = avbench.score(
        [tmp_path / "a", tmp_path / "b"], metrics=names, reference=tmp_path / "real", out=tmp_path / "out", workers=0
    )
    rows = found.differences.set_index("metric")
    assert rows.loc["ok", "difference"] == pytest.approx((190 - 100) - (100 - 10))
    failed, returned = "failed in the package miles 1.5: ", "ValueError: miles:apart returned "
    rule = "; it must return one finite number, or raise NotMeasurable"
    assert rows["missing"].drop("pooled").dropna().to_dict() == {
        "nan": f"{failed}{returned}nan{rule}",
        "masked": f"{failed}{returned}masked{rule}",
        "text": f"{failed}{returned}'far'{rule}",
        "raises": f"{failed}ZeroDivisionError: division by zero",
        "exits": f"{failed}SystemExit: 0",
    }
    scores = found.scores.set_index(["metric", "model"])
    assert scores.loc[("pooled", "a"), "missing"] == (
        f"{failed}ValueError: miles:Pooled did not return one finite number for each of 50 draws"
    )
    assert scores.loc[("raises", "a"), "value"] == 90


def test_rows_that_two_features_or_two_clips_would_share_are_refused(tmp_path, install):
    code = """
from avbench.core import Direction, Protocol
from avbench.metrics.table import Metric
class Loud:
    protocol = Protocol("loud", 1)
    def __call__(self, clip):
        return {"loudness": -100.0}
class Many:
    protocol = Protocol("many", 1)
    requires = "seeds"
    def __call__(self, clips):
        for _ in range(len(clips) + 1):
            yield {"value": 1.0}
def loudness(columns):
    return columns["loudness"].copy()
BOTH = Metric("both", "levels", "twins:loudness", Direction.BAND, "", "?", usual=False, beside="loud")
ROWS = Metric("rows", "many", "value", Direction.BAND, "", "?", usual=False)
"""
    groups = {
        "metrics": ["both = twins:BOTH", "rows = twins:ROWS"],
        "features": ["loud = twins:Loud", "many = twins:Many"],
    }
    install("twins", groups, code)
    asked = [part for name in ("both", "rows", "loudness") for part in ("--metric", name)]
    run_avbench("score", clips(tmp_path / "a"), *asked, "--workers", 0, "--out", tmp_path / "out", code=1)
    scores = {score.metric: score for score in RunFolder(tmp_path / "out" / "a").scores()}
    assert scores["loudness"].value is not None
    assert scores["both"].missing == (
        "levels and loud of the package twins 1.5 both have a column 'loudness' (2 of 2 clips)"
    )
    returned = "InputError: it returned 2 rows for 1 clip of a prompt"
    assert scores["rows"].missing == f"failed in the package twins 1.5: {returned} (2 of 2 clips)"


GREY = """
import numpy as np
from avbench.core import Direction, Protocol
from avbench.metrics.table import Metric

class Grey:
    protocol = Protocol("grey", 1)
    def __call__(self, clip):
        return {"level": float(clip.frames.mean()), "levels": clip.frames.mean((0, 1, 2)).astype(np.float32)}

def apart(ours, theirs):
    return float(abs(ours.mean() - theirs.mean()))

LEVEL = Metric("level", "grey", "level", Direction.HIGHER, "", "How light?", usual=False)
APART = Metric("apart", "grey", "greys:apart", Direction.LOWER, "", "?", per_clip=False, column="levels", usual=False)
"""


@pytest.fixture
def scored(tmp_path, install, monkeypatch):
    """A run that was scored by a package's metrics, and a function in which the package is not installed."""
    metrics = ["level = greys:LEVEL", "apart = greys:APART"]
    place = install("greys", {"metrics": metrics, "features": ["grey = greys:Grey"]}, GREY)
    asked = ("--metric", "level,apart", "--workers", 0)
    for name in ("real", "unreal"):
        clips(tmp_path / name, 3 if name == "real" else 4)
        run_avbench("reference", "build", tmp_path / name, "--out", tmp_path / "refs", "--work", tmp_path / "w", *asked)
    run_avbench(
        "score", clips(tmp_path / "a"), *asked, "--reference", tmp_path / "refs/real", "--out", tmp_path / "out"
    )

    @contextlib.contextmanager
    def without_package():
        with monkeypatch.context() as gone:
            gone.setattr(sys, "path", [one for one in sys.path if one != str(place)])
            yield

    return RunFolder(tmp_path / "out" / "a"), without_package


def test_scores_of_a_package_that_is_not_installed_stay_as_they_were(tmp_path, scored):
    folder, without_package = scored
    before, protocols, values = folder.scores(), folder.evaluation().protocols, folder.values()
    distance, mean = before
    assert (distance.metric, mean.metric) == ("apart", "level") and None not in (distance.value, mean.value)
    unknown = "avbench does not know level: is its package installed?"
    with without_package():
        asked = ("--metric", "onset_rate", "--workers", 0, "--out", tmp_path / "out")
        said = run_avbench("score", tmp_path / "a", *asked)
        assert f"note: {folder.path}: level of clips was {mean.value:.4g} and stays as it was; {unknown}" in said.stderr
        assert f"level of a is left out: {unknown}" in said.stdout.replace("\n", " ")
        (row,) = json.loads(run_avbench("compare", folder.path, "--format", "json").stdout)
        assert row["metric"] == "onset_rate"
        run_avbench("report", folder.path, "--out", tmp_path / "page")
        (tmp_path / "plan.toml").write_text("[margin]\nlevel = 1\n")
        for words in (("--metric", "level"), ("--plan", tmp_path / "plan.toml")):
            said = run_avbench("compare", folder.path, *words, code=2).stderr
            assert "metric 'level' is unknown" in said and "of another package, install that first" in said
    after = {one.metric: one for one in folder.scores()}
    assert [after.pop("apart"), after.pop("level")] == before and [*after] == ["onset_rate"]
    assert {one.protocol: folder.evaluation().protocols[one.protocol] for one in before} == protocols
    kept = folder.values().query("metric == 'level'").reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, values)
    shown = json.loads(run_avbench("compare", folder.path, "--format", "json").stdout)
    shown = {row["metric"]: row["value"] for row in shown}
    assert shown == pytest.approx({one.metric: one.value for one in folder.scores()}), "where the package is"
    run_avbench("evaluate", folder.path, "--metric", "onset_rate")
    assert [one for one in folder.scores() if one.metric != "onset_rate"] == before, "computed again"


@pytest.mark.parametrize("change", ["a row", "a clip", "the reference", "an earlier avbench"])
def test_scores_that_are_not_of_what_the_run_holds_now_are_left_out(tmp_path, scored, change):
    folder, without_package = scored
    words = ["score", tmp_path / "a", "--metric", "onset_rate", "--workers", 0, "--out", tmp_path / "out"]
    if change == "a row":
        protocol = protocol_of("grey")
        row = next(iter(folder.rows(protocol).values()))
        folder.add_row(protocol, dataclasses.replace(row, values={**row.values, "level": 5.0}))
        why = "the rows that it came from have changed"
    elif change == "a clip":
        write_clip(Clip(np.full((8, 32, 32, 3), 99, np.uint8), 8), tmp_path / "a" / "2.mkv")
        why = "the run's clips or values.parquet are not those of the evaluation"
    elif change == "the reference":
        words += ["--reference", tmp_path / "refs/unreal"]
        why = "it was computed with another reference"
    else:
        plain = unsealed(read_json(folder.path / "scores.json"))
        write_sealed(folder.path / "scores.json", {name: one for name, one in plain.items() if name != "rows"})
        why = "an earlier avbench computed it, which did not record from which rows"
    before = {one.metric: one for one in folder.scores()}
    with without_package():
        said = run_avbench(*words).stderr
    left_out = ["apart"] if change == "the reference" else ["level", "apart"]
    for name in left_out:
        assert f"{name} of clips was {before[name].value:.4g} and is left out, as {why}; avbench does not know" in said
    assert {one.metric for one in folder.scores()} == {"level", "apart", "onset_rate"} - {*left_out}
    run_avbench("score", tmp_path / "a", "--metric", "level,apart", "--workers", 0, "--out", tmp_path / "out")
    assert {one.metric for one in folder.scores()} == {"level", "apart", "onset_rate"}


@pytest.mark.parametrize("method", ["prepare", "asked", "remarks"])
def test_an_error_in_an_optional_method_of_a_packages_generator_is_its_own(tmp_path, install, method):
    install("drafts", {"generators": ["draft = drafts:Unfinished"]})
    asked = ("--subset", "toy-control", "--limit", 1, "--workers", 0, "--out", tmp_path / "out")
    said = run_avbench("sample", f"draft:{method}", *asked, code=2).stderr
    assert said.endswith(f"avbench: {method} of drafts.Unfinished failed: ZeroDivisionError: not written yet\n")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("Silent", "model 'draft:x': drafts.Silent is no generator, because it has no 'settings' (docs/your-model.md)"),
        ("Idle", "model 'draft:x': drafts.Idle is no generator, because it has no 'generate' (docs/your-model.md)"),
        ("Listed", "drafts.Listed.settings is ['x']; it must be a dict of names and values"),
        ("Half", "drafts.Half.batch_size is 0.5; it must be a whole number of at least 1"),
    ],
)
def test_a_packages_class_that_is_no_generator_is_refused_in_a_sentence(tmp_path, install, wrong, said):
    install("drafts", {"generators": [f"draft = drafts:{wrong}"]}, NO_GENERATORS)
    asked = ("--subset", "toy-control", "--limit", 1, "--workers", 0, "--out", tmp_path / "out")
    assert run_avbench("sample", "draft:x", *asked, code=2).stderr.endswith(f"avbench: {said}\n")


def test_an_object_is_no_class_of_a_generator(install):
    install("drafts", {"generators": ["draft = drafts:ARRAY"]})
    with pytest.raises(InputError, match=r"of the package drafts 1\.5 cannot be used: it is not a class but a ndarray"):
        build("draft:x", {})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('"a"', "it gave 'a', which is no Entry"),
        ('Entry("a/b", None)', "entry id 'a/b' cannot be an id"),
        ('Entry("a", "a.mkv")', "path of the entry 'a' is 'a.mkv'; it must be a Path or None"),
        ('Entry("a", None, 5)', "video_caption of the entry 'a' is 5; it must be text"),
        ('Entry("a", None, split=3)', "split of the entry 'a' is 3; it must be text or None"),
        ('Entry("a", None, tags=["x"])', "tags of the entry 'a' is ['x']; it must be a mapping"),
        (
            'Entry("a", None, contacts_seconds=(float("nan"),))',
            "contacts_seconds of the entry 'a' are (nan,); they must be numbers",
        ),
    ],
)
def test_what_a_packages_reader_gives_wrongly_is_its_own(tmp_path, install, entry, said):
    install("shelf", {"datasets": ["mine = shelf:MINE"]}, f"{CODE}\nMINE = Reader('?', '?', lambda _: iter([{entry}]))")
    found = run_avbench("subsets", "import", f"mine:{tmp_path}", "--out", tmp_path / "out", code=2).stderr
    assert f"avbench: {tmp_path} cannot be read by mine of the package shelf 1.5: {said}" in found


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ('name = "other"\nversion = 1\n', "its card calls it 'other'"),
        ('name = "mine"\nversion = "1"\n', "the version of subset 'mine' is '1'; it must be a whole number from 0"),
        (
            'name = "mine"\nversion = 1\nclip_spec = { width = 64, fps = 8 }\n',
            "clip spec: height and frames are missing",
        ),
    ],
)
def test_a_packages_subset_that_cannot_be_loaded_names_the_package(install, card, said):
    folder = install("shelf", {"subsets": ["mine = shelf:SUBSET"]}) / "subset"
    folder.mkdir()
    (folder / "card.toml").write_text(card)
    (folder / "prompts.jsonl").write_text('{"id": "one", "video_caption": "a ball falls"}\n')
    with pytest.raises(InputError, match=f"of the package shelf 1.5 cannot be used: .*{re.escape(said)}"):
        load("mine")
    assert said in run_avbench("list", "subsets").stderr


NO_GENERATORS = """
class Silent:
    def __init__(self, target): pass
    def generate(self, requests): return []

class Idle:
    settings = {}
    def __init__(self, target): pass

class Listed(Silent):
    settings = ["x"]

class Half(Silent):
    settings, batch_size = {}, 0.5
"""


def test_what_a_package_prints_at_import_is_not_in_a_table(install):
    groups = {"metrics": ["bright = bells:GOOD"], "features": ["brightness = bells:Brightness"]}
    install("bells", groups, "print('ding')\n" + CODE)
    listed = run_avbench("list", "metrics", "--format", "json")
    assert "bright" in {one["metric"] for one in json.loads(listed.stdout)} and listed.stderr == "ding\n"


LOUD = """
import os, sys
from avbench.core import Direction, Protocol
from avbench.metrics.table import Metric
from avbench.generation.providers.toyworld import ToyWorld

def say(what):
    print(f"{what} printed\\n", end="")  # at once: two workers share the pipe
    sys.stdout.flush()
    os.system(f"echo {what} echoed")

class Loud:
    protocol = Protocol("loud", 1)
    def __call__(self, clip):
        say("feature")
        return {"loud": 1.0}

def value(columns):
    say("metric")
    return columns["loud"]

class Sampled(ToyWorld):
    def generate(self, requests):
        say("model")
        return super().generate(requests)

METRIC = Metric("loud", "loud", "shouting:value", Direction.HIGHER, "", "How loud?", usual=False)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_what_others_code_prints_while_it_runs_is_not_in_a_result(tmp_path, install, workers):
    groups = {"metrics": ["loud = shouting:METRIC"], "features": ["loud = shouting:Loud"]}
    install("shouting", groups | {"generators": ["shouting = shouting:Sampled"]}, LOUD)
    asked = ["--subset", "toy-control", "--limit", 2, "--metric", "loud", "--workers", workers]
    command = [sys.executable, "-m", "avbench", "run", "shouting:", *map(str, asked), "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "loud" in ended.stdout and "printed" not in ended.stdout and "echoed" not in ended.stdout
    lines = ended.stderr.splitlines()
    for call, times in {"model": 2, "feature": 2, "metric": 1}.items():
        assert lines.count(f"{call} printed") == lines.count(f"{call} echoed") == times


@pytest.mark.parametrize("workers", [0, 1])
def test_the_default_type_that_a_feature_gives_torch_reaches_no_other(tmp_path, install, workers):
    code = """
import torch
from avbench.core import Direction, Protocol
from avbench.metrics.table import Metric
class Doubles:
    protocol = Protocol("doubles", 1)
    def __call__(self, clip):
        torch.set_default_dtype(torch.float64)
        return {"bits": 64.0}
class Next:
    protocol = Protocol("next", 1)
    def __call__(self, clip):
        return {"bits": float(torch.finfo(torch.get_default_dtype()).bits)}
DOUBLES, NEXT = (
    Metric(name, name, "bits", Direction.BAND, "", "?", usual=False) for name in ("doubles", "next")
)
"""
    names = ("doubles", "next")
    groups = {"metrics": [f"{one} = coins:{one.upper()}" for one in names]}
    install("coins", {**groups, "features": [f"{one} = coins:{one.title()}" for one in names]}, code)
    asked = ("--metric", ",".join(names), "--workers", workers, "--out", tmp_path / "out")
    run_avbench("score", clips(tmp_path / "a"), *asked)
    assert {one.metric: one.value for one in RunFolder(tmp_path / "out" / "a").scores()} == {
        "doubles": 64,
        "next": 32,
    }


@pytest.mark.slow
def test_the_example_of_the_docs_installs_and_scores(tmp_path):
    package, site = tmp_path / "package", tmp_path / "site"
    package.mkdir()
    count = 0
    for name in ("pyproject.toml", "broadcast_loudness.py"):
        (text,) = re.findall(rf"```\w+\n# {re.escape(name)}\n(.*?)```", DOCS.read_text(), re.DOTALL)
        (package / name).write_text(text)
        count += len([line for line in text.splitlines() if line.strip()])
    assert count <= 24, "it should stay as small"
    words = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target"]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *words, site, package], check=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    asked = ["--metric", "too_loud", "--workers", "1", "--out", str(tmp_path / "out")]
    scored = subprocess.run(
        [sys.executable, "-m", "avbench", "score", clips(tmp_path / "a"), clips(tmp_path / "b"), *asked],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    for name in "ab":
        folder = RunFolder(tmp_path / "out" / name)
        (score,) = folder.scores()
        assert score.value > 0, "noise at a third of full scale is louder than broadcasting"
        assert folder.evaluation().protocols[score.protocol]["package"] == "broadcast-loudness 0.1"
