"""bfloat16 is a precision of its own: near float32, kept apart from it, and refused beside it."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import avbench
from avbench.comparison.differences import differences
from avbench.core import InputError
from avbench.core.protocol import different_fields, require_same_protocol
from avbench.features import devices
from avbench.features.current import current_rows
from avbench.features.measure import measure
from avbench.features.protocols import protocol_in, protocol_of
from avbench.features.table import FEATURES, feature_class
from avbench.generation.sample import sample
from avbench.metrics.evaluate import chosen_metrics, evaluate
from avbench.storage.runs.folder import RunFolder
from avbench.subsets import loading

LPIPS = chosen_metrics(["lpips_consecutive"])


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    _, made, _ = sample(folder, "toyworld:", {}, [loading.load("toy-object-contact").limited(2)], (0,))
    assert len(list(made)) == 2
    return folder


def measured(folder, precision=None):
    return len(list(measure(folder, ["lpips-alex"], precision=precision)[1]))


def test_protocols_of_float32_are_those_of_the_shipped_references():
    cards = sorted(Path("reference_stats").glob("*/card.json"))
    assert cards
    for card in cards:
        for feature, described in json.loads(card.read_text())["protocols"].items():
            require_same_protocol(protocol_of(feature, precision="fp32").describe(), described, feature)


@pytest.mark.parametrize("feature", ["i3d-k400", "i3d-stylegan-v", "lpips-alex", "lpips-vgg-seeds"])
def test_the_protocol_of_bfloat16_differs_in_the_precision_alone(feature):
    exact, half = protocol_of(feature), protocol_of(feature, precision="bf16")
    assert different_fields(exact.values(), half.values()) == {"precision": ("float32", "bfloat16")}
    assert exact.digest != half.digest


def test_other_features_have_no_such_protocol():
    known = [name for name in FEATURES if name.startswith(("i3d", "lpips"))] + ["musicnn", "flow-dis", "onsets"]
    lacking = [name for name in known if not getattr(feature_class(name), "in_bfloat16", False)]
    assert lacking == ["i3d-torchscript", "musicnn", "flow-dis", "onsets"]
    assert protocol_of("musicnn", precision="bf16") == protocol_of("musicnn")


def test_a_run_keeps_the_precision_that_it_was_measured_in(run):
    assert measured(run, "bf16") == 2
    assert protocol_in(run, "lpips-alex").precision == "bfloat16"
    assert measured(run) == 0, "without the option, a run keeps its precision"
    with pytest.raises(InputError, match=r"rows of lpips-alex in the precision bf16, and fp32 was asked for"):
        measured(run, "fp32")
    (score,) = evaluate(run, LPIPS)
    assert run.evaluation().protocols[score.protocol]["feature"]["precision"] == "bfloat16"


def test_values_are_near_those_of_float32(run):
    look = {kind: feature_class("lpips-alex")(precision=kind) for kind in ("float32", "bfloat16")}
    assert measured(run, "bf16") == 2
    for key, row in current_rows(run, "lpips-alex").items():
        clip = avbench.load_clip(run.path / run.samples()[key].path)
        exact, half = (look[kind](clip)["per_pair"] for kind in ("float32", "bfloat16"))
        np.testing.assert_array_equal(row.values["per_pair"], half)
        np.testing.assert_allclose(half, exact, rtol=0.03, atol=2e-4)
        assert not np.array_equal(half, exact)


def test_runs_of_two_precisions_are_not_compared(run, tmp_path):
    other = RunFolder(tmp_path / "other")
    _, made, _ = sample(other, "toyworld:noisy", {}, [loading.load("toy-object-contact").limited(2)], (0,))
    list(made)
    for folder, precision in ((run, "bf16"), (other, None)):
        measured(folder, precision)
        evaluate(folder, LPIPS)
    with pytest.raises(InputError, match=r"feature\.precision 'float32' against 'bfloat16'"):
        differences([run, other])


def test_a_wrong_precision_names_the_nearest():
    with pytest.raises(InputError, match=r"precision 'bf61' is unknown; .*bf16"):
        devices.require_precision("bf61")


@pytest.mark.parametrize(("seconds", "said"), [((4.0, 2.0), "takes 2.0 times as long in bfloat16"), ((1.0, 2.0), None)])
def test_a_processor_that_is_slow_at_it_is_said_to_be(monkeypatch, seconds, said):
    ticks = iter([tick for spent in seconds for k in range(3) for tick in (10.0 * k, 10.0 * k + spent)])
    monkeypatch.setattr(devices, "time", SimpleNamespace(process_time=lambda: next(ticks)))
    sentence = devices.slow_in_bfloat16.__wrapped__()  # without its cache
    assert sentence is None if said is None else said in sentence


@pytest.mark.slow
def test_i3d_in_bfloat16_is_near_float32():
    frames = (np.random.default_rng(0).random((16, 64, 64, 3)) * 255).astype(np.uint8)
    exact, half = (feature_class("i3d-k400")(precision=kind).logits(frames) for kind in ("float32", "bfloat16"))
    assert 0 < np.abs(half - exact).max() < 0.03 * np.abs(exact).max()
