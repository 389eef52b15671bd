"""ImageBind beside its authors' model and reading of clips, on random weights in the layout of its checkpoint."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from avbench.core import Audio, Clip, InputError, NotMeasurable
from avbench.features.audio import imagebind
from avbench.features.audio.imagebind import ImageBind, ImageBindProtocol, Shape
from avbench.metrics.table import known_metrics
from avbench.storage import weights
from avbench.storage.media import StoredClip, read_clip, write_clip

GOLDEN = json.loads((Path(__file__).parent / "golden" / "imagebind.json").read_text())
TINY = Shape(embedding=24, width=32, depth=2, heads=2, sound_width=48, sound_depth=2, sound_heads=3)


def made_clip(seed):
    """0: 3 s, wide; 1: 2 s, high, two channels; 2: 1.5 s at 12.5 fps."""
    random = np.random.RandomState(seed)
    count, height, width, fps = ((24, 60, 100, 8), (16, 90, 40, 8), (19, 48, 48, Fraction(25, 2)))[seed]
    small = random.randint(0, 256, (count, height // 4, width // 4, 3), dtype=np.uint8)
    wave = random.uniform(-0.5, 0.5, (1 + seed % 2, (48000, 32000, 24000)[seed])).cumsum(axis=1)
    wave = 0.5 * wave / np.abs(wave).max()
    return Clip(small.repeat(4, axis=1).repeat(4, axis=2), fps, Audio(wave.astype(np.float32), 16000))


def random_state(shapes):
    """Weights that any version of numpy draws alike."""
    random, state = np.random.RandomState(0), {}
    for name, shape in sorted(shapes.items()):
        if name.split(".")[1] in ("vision", "audio") and "postprocessors" not in name:
            value = np.asarray(random.standard_normal(shape))
            size = 1.5 / np.sqrt(np.prod(shape[1:])) if name.endswith("weight") and len(shape) > 1 else 0.3
            state[name] = (value * size + (len(shape) == 1 and name.endswith("weight"))).astype(np.float32)
    return state


@pytest.fixture
def feature(tmp_path, monkeypatch):
    """The whole checkpoint, with the networks that are not used."""
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setattr(ImageBind, "shape", TINY)
    shapes = GOLDEN["shapes"]
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    state |= {name: torch.from_numpy(value) for name, value in random_state(shapes).items()}
    torch.save(state, tmp_path / "imagebind_huge.pth")
    weights.provide("imagebind", tmp_path / "imagebind_huge.pth")
    return ImageBind()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_vectors_are_those_of_its_authors(feature, seed):
    right, found = GOLDEN["values"][str(seed)], feature(made_clip(seed))
    assert found["similarity"] == pytest.approx(right["similarity"], abs=GOLDEN["tolerance"])
    for end in ("one", "other"):
        np.testing.assert_allclose(found[end][:8], right[end], atol=GOLDEN["tolerance"])
        assert np.linalg.norm(found[end]) == pytest.approx(1, abs=1e-6)


def test_a_clip_in_its_file_has_the_same_vectors(feature, tmp_path):
    write_clip(made_clip(0), tmp_path / "a.mkv")
    held, stored = read_clip(tmp_path / "a.mkv"), read_clip(tmp_path / "a.mkv", most_held=0)
    assert isinstance(stored, StoredClip)
    np.testing.assert_array_equal(feature(stored)["one"], feature(held)["one"])


def test_sounds_that_it_cannot_hear_are_refused(feature):
    one = made_clip(1)
    for clip, reason in (
        (Clip(one.frames, 8), "no sound"),
        (Clip(one.frames, 8, Audio(0 * one.audio.waveform, 16000)), "silent"),
        (Clip(one.frames, 8, Audio(one.audio.waveform[:, :15000], 16000)), "ImageBind needs 1000 ms"),
    ):
        with pytest.raises(NotMeasurable, match=reason):
            feature(clip)


def test_the_published_layout_fills_the_network():
    with torch.device("meta"):
        state = imagebind.Network(Shape(depth=2, sound_depth=2)).state_dict()
    assert set(state) == {name for name in GOLDEN["shapes"] if imagebind._is_used(name)}
    for name, shape in {
        "modality_preprocessors.vision.rgbt_stem.proj.1.weight": (1280, 3, 2, 14, 14),
        "modality_preprocessors.vision.pos_embedding_helper.pos_embed": (1, 257, 1280),
        "modality_preprocessors.audio.pos_embedding_helper.pos_embed": (1, 229, 768),
        "modality_trunks.vision.blocks.1.attn.in_proj_weight": (3840, 1280),
        "modality_trunks.audio.blocks.1.attn.bias_k": (1, 1, 768),
        "modality_heads.audio.2.weight": (1024, 768),
    }.items():
        assert tuple(state[name].shape) == shape


def test_windows_cover_the_clip_evenly_and_a_short_clip_is_one():
    protocol = ImageBindProtocol()
    assert imagebind.pairs(80, Fraction(8), protocol) == [(0, 15), (16, 31), (32, 47), (48, 63), (64, 79)]
    assert set(imagebind.pairs(9, Fraction(8), protocol)) == {(0, 8)}
    slides = imagebind.pairs(3, Fraction(1, 5), protocol)  # a window of two seconds may hold no frame
    assert slides == [(0, 0), (1, 1), (2, 2), (2, 2), (2, 2)]
    assert imagebind.starts(Fraction(5), 3, 2) == [0, Fraction(3, 2), 3]


def test_a_checkpoint_of_another_network_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setattr(ImageBind, "shape", TINY)
    torch.save({"modality_heads.audio.2.weight": torch.zeros(2), "cls_token": torch.zeros(2)}, tmp_path / "other.pth")
    weights.provide("imagebind", tmp_path / "other.pth")
    with pytest.raises(InputError, match="the ImageBind checkpoint does not fit"):
        ImageBind()


def test_excess_is_what_is_left_above_the_sounds_of_others():
    one, other = np.eye(2), np.array([[0.8, 0.6], [0.6, 0.8]])
    columns = {"one": one, "other": other, "similarity": np.array([0.8, 0.8])}
    beyond_chance = known_metrics()["imagebind_excess"].of_clips
    np.testing.assert_allclose(beyond_chance(columns), [0.2, 0.2])
    with pytest.raises(NotMeasurable, match="the same sound"):
        beyond_chance({**columns, "other": np.ones((2, 2))})
