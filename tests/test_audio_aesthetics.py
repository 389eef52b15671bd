"""Audiobox-Aesthetics beside its package's numbers, on random weights in the layout of its checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from avbench.core import Audio, Clip, InputError, NotMeasurable
from avbench.features.audio import aesthetics
from avbench.features.audio.aesthetics import Audiobox
from avbench.metrics.table import known_metrics
from avbench.storage import weights

pytest.importorskip("transformers")

GOLDEN = json.loads((Path(__file__).parent / "golden" / "audiobox.json").read_text())
TINY = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
FRAMES = np.zeros((1, 8, 8, 3), np.uint8)


def clip(wave, rate=16000):
    return Clip(FRAMES, 8, Audio(wave.astype(np.float32), rate))


def noise(samples):
    return 0.1 * np.random.RandomState(samples).standard_normal((2, samples))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A checkpoint of the published layout, with weights that any version of numpy draws alike."""
    from safetensors.torch import save_file

    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setattr(Audiobox, "wavlm", TINY)
    random, place = np.random.RandomState(0), tmp_path / "audiobox"
    place.mkdir()
    state = {
        name: torch.from_numpy(np.asarray(0.5 * random.standard_normal(shape))).float()
        for name, shape in sorted(GOLDEN["shapes"].items())
    }
    save_file(state, place / "model.safetensors")
    (place / "config.json").write_text(json.dumps(GOLDEN["config"]))
    weights.provide("audiobox-aesthetics", place)
    return place


@pytest.mark.slow
def test_the_values_are_those_of_its_package(folder):
    """Of sounds shorter than a window, of one window, and of one with a rest."""
    feature = Audiobox()
    found = {samples: feature(clip(noise(int(samples)))) for samples in GOLDEN["values"]}
    for samples, right in GOLDEN["values"].items():
        assert found[samples] == pytest.approx(right, abs=GOLDEN["tolerance"])
    every = np.array([[*row.values()] for row in found.values()])
    assert (np.ptp(every, axis=0) > 100 * GOLDEN["tolerance"]).all(), "or it would not hear the sounds"


@pytest.mark.slow
def test_channels_are_averaged_and_silence_is_refused(folder):
    feature, wave = Audiobox(), noise(16000)
    assert feature(clip(wave)) == pytest.approx(feature(clip(wave.mean(axis=0, keepdims=True))), abs=1e-6)
    for one, reason in (
        (Clip(FRAMES, 8), "no sound"),
        (clip(0 * wave), "silent"),
        (clip(wave[:, :8000]), "500 ms of sound; Audiobox-Aesthetics needs 1000 ms"),
    ):
        with pytest.raises(NotMeasurable, match=reason):
            feature(one)


def test_the_published_layout_fills_the_network(folder):
    """The tiny one is checked by filling it; of the published one, a tensor of each kind."""
    with torch.device("meta"):
        config = aesthetics._Config({}, proj_num_layer=5, proj_ln=True)
        state = aesthetics.Network({}, config).state_dict()
    assert len(state) == 324 and sum(value.numel() for value in state.values()) == 103_859_112
    for name, shape in {
        "wavlm_model.feature_extractor.conv_layers.0.2.weight": (512,),
        "wavlm_model.encoder.pos_conv.0.weight_v": (768, 48, 128),
        "wavlm_model.encoder.layers.0.self_attn.relative_attention_bias.weight": (320, 12),
        "wavlm_model.encoder.layers.11.self_attn.grep_linear.weight": (8, 64),
        "wavlm_model.encoder.layers.11.fc1.weight": (3072, 768),
        "wavlm_model.layer_norm.weight": (512,),
        "layer_weights.PQ": (13,),
        "proj_layer.CE.12.weight": (1, 768),
    }.items():
        assert tuple(state[aesthetics._renamed(name)].shape) == shape


def test_a_folder_that_does_not_fit_is_refused(folder):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    left = state.pop("layer_weights.PQ")
    save_file(state, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"as Audiobox-Aesthetics, does not fit: Missing key.*layer_weights\.PQ"):
        Audiobox()
    save_file({**state, "layer_weights.PQ": left}, folder / "model.safetensors")
    transforms = GOLDEN["config"]["target_transform"]
    for config, message in (
        ({"target_transform": {axis: transforms[axis] for axis in ("CE", "CU", "PC")}}, "no target_transform of PQ"),
        ({"use_weighted_layer_sum": False}, "another Audiobox-Aesthetics than the published one"),
    ):
        (folder / "config.json").write_text(json.dumps({**GOLDEN["config"], **config}))
        with pytest.raises(InputError, match=message):
            Audiobox()
    (folder / "model.safetensors").write_bytes(b"nothing")
    (folder / "config.json").write_text(json.dumps(GOLDEN["config"]))
    with pytest.raises(InputError, match="cannot be read"):
        Audiobox()


@pytest.mark.parametrize("axis", ["enjoyment", "usefulness", "complexity", "quality"])
def test_each_metric_reads_its_own_axis(axis):
    columns = {name: np.array([float(number)]) for number, name in enumerate(aesthetics.AXES.values())}
    assert known_metrics()[f"audiobox_{axis}"].of_clips(columns) == columns[axis]
