"""DOVER beside its authors' network and reading of clips, on random weights in the layout of its checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from avbench.core import Clip, InputError, NotMeasurable
from avbench.features.video import dover
from avbench.features.video.dover import DOVER, DOVERProtocol
from avbench.features.video.dover_network import Network, Shape
from avbench.metrics.table import known_metrics
from avbench.storage import weights
from avbench.storage.media import StoredClip, read_clip, write_clip

GOLDEN = json.loads((Path(__file__).parent / "golden" / "dover.json").read_text())
TINY = Shape(width=8, depths=(1, 1, 2, 2), heads=(1, 2, 2, 4), widths=(8, 8, 12, 16), blocks=(2, 1, 1, 1), hidden=8)


def made_clip(frames, height, width):
    """Blocks of 4 × 4 pixels, of which a longer clip has brighter ones."""
    small = np.random.RandomState(frames).randint(0, 56 + frames, (frames, height // 4, width // 4, 3), dtype=np.uint8)
    return Clip(small.repeat(4, axis=1).repeat(4, axis=2), 24)


def random_state(shapes):
    """Weights that any version of numpy draws alike; what the authors' code computes itself is 0."""
    random, state = np.random.RandomState(0), {}
    for name, shape in sorted(shapes.items()):
        if name.endswith("relative_position_index"):
            state[name] = torch.zeros(shape, dtype=torch.int64)
            continue
        value = np.asarray(random.standard_normal(shape))
        matrix = name.endswith("weight") and len(shape) > 1
        size = 1.5 / np.sqrt(np.prod(shape[1:])) if matrix else 0.5 if name.endswith("table") else 0.3
        middle = float(len(shape) == 1 and name.endswith(("weight", "gamma")))
        if "fc_last" in name:  # outputs as those of the real weights, or the sigmoid would hide them
            size, middle = (
                size / 10,
                {"technical_head.fc_last.bias": 0.1, "aesthetic_head.fc_last.bias": -0.1}.get(name, 0),
            )
        state[name] = torch.from_numpy(value * size + middle).float()
    return state


@pytest.fixture
def feature(tmp_path, monkeypatch):
    """On the whole checkpoint, with the tables of indices that it holds and that are not read."""
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setattr(DOVER, "shape", TINY)
    torch.save(random_state(GOLDEN["shapes"]), tmp_path / "DOVER.pth")
    weights.provide("dover", tmp_path / "DOVER.pth")
    return DOVER()


@pytest.mark.slow
@pytest.mark.parametrize("right", GOLDEN["clips"], ids=lambda right: f"{right['clip'][0]} frames")
def test_the_values_are_those_of_its_authors(feature, right):
    values = feature(made_clip(*right["clip"]))
    assert values == pytest.approx(right["values"], abs=GOLDEN["tolerance"])
    assert all(0.01 < value < 0.99 for value in values.values()), "or the sigmoid would hide a difference"


@pytest.mark.slow
def test_a_clip_in_its_file_has_the_same_values(feature, tmp_path):
    write_clip(made_clip(33, 224, 240), tmp_path / "a.mkv")
    held, stored = read_clip(tmp_path / "a.mkv"), read_clip(tmp_path / "a.mkv", most_held=0)
    assert isinstance(stored, StoredClip)
    assert feature(stored) == feature(held)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((31, 240, 240), "DOVER needs 32 frames and this clip has 31"),
        ((32, 220, 320), "the frames are 320x220; DOVER needs 224 pixels on either side"),
        ((32, 320, 220), "the frames are 220x320; DOVER needs 224 pixels on either side"),
    ],
)
def test_clips_that_it_cannot_measure_are_refused(feature, size, reason):
    with pytest.raises(NotMeasurable, match=reason):
        feature(made_clip(*size))


def test_frames_are_taken_from_the_middle_of_their_parts():
    windows = dover.windows_of(240, DOVERProtocol())
    assert windows[:, 0].tolist() == [8, 88, 168] and windows[:, -1].tolist() == [70, 150, 230]
    assert dover.windows_of(48, DOVERProtocol())[2, :9].tolist() == [32, 34, 36, 38, 40, 42, 44, 46, 0]
    assert dover.spread_over(320, DOVERProtocol())[:3] == [4, 14, 24]
    assert dover.spread_over(32, DOVERProtocol()) == [*range(32)]


def test_fragments_keep_the_pixels_of_the_frame():
    rows, columns = np.mgrid[:300, :231]
    seen = dover.mosaic(np.stack([rows, columns, rows], axis=-1), DOVERProtocol())
    assert seen.shape == (224, 224, 3)
    assert seen[::32, 0, 0].tolist() == [5, 47, 89, 131, 173, 215, 257]  # parts of 42 rows
    assert seen[0, ::32, 1].tolist() == [0, 33, 66, 99, 132, 165, 198]
    assert (np.diff(seen[:32, 0, 0]) == 1).all()


def test_the_network_has_the_published_layout():
    with torch.device("meta"):
        state = Network(Shape()).state_dict()
    assert len(state) == 369 and sum(value.numel() for value in state.values()) == 56_218_302
    small = {name for name in GOLDEN["shapes"] if not name.endswith("relative_position_index")}
    with torch.device("meta"):
        assert set(Network(TINY).state_dict()) == small
    for name, shape in {
        "technical_backbone.patch_embed.proj.weight": (96, 3, 2, 4, 4),
        "technical_backbone.layers.2.blocks.5.attn.fragment_position_bias_table": (2535, 12),
        "technical_backbone.layers.3.blocks.1.attn.relative_position_bias_table": (2535, 24),
        "technical_backbone.layers.0.downsample.reduction.weight": (192, 384),
        "aesthetic_backbone.downsample_layers.0.0.weight": (96, 3, 2, 4, 4),
        "aesthetic_backbone.stages.2.7.dwconv.weight": (384, 1, 3, 7, 7),
        "aesthetic_backbone.stages.2.8.gamma": (384,),
        "technical_head.fc_hid.weight": (64, 768, 1, 1, 1),
        "aesthetic_head.fc_last.weight": (1, 64, 1, 1, 1),
    }.items():
        assert tuple(state[name].shape) == shape


def test_each_metric_reads_its_own_value():
    columns = {"technical": np.array([0.1]), "aesthetic": np.array([0.2]), "overall": np.array([0.3])}
    for name, value in columns.items():
        assert known_metrics()[f"dover_{name}"].of_clips(columns) == value


def test_a_checkpoint_of_another_network_is_refused(feature, tmp_path):
    state = {name.replace("aesthetic_", ""): value for name, value in random_state(GOLDEN["shapes"]).items()}
    torch.save(state, tmp_path / "other.pth")
    weights.provide("dover", tmp_path / "other.pth")
    with pytest.raises(InputError, match="the DOVER checkpoint does not fit"):
        DOVER()
