"""Flow against what is known: real frames moved in known ways, and the toy world's bodies.

Measured when this was written, in pixels: the mean error under the similarity below, of up to 9 pixels, was 0.17, and
translations were found within 0.05 in the median.
"""

import itertools

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut
from torchvision.models.optical_flow import raft_large

from avbench.core import Clip, InputError
from avbench.features import measure
from avbench.features.flow import DISFlow, pairs
from avbench.features.flow.raft import RAFTFlow
from avbench.generation.sample import sample
from avbench.metrics.evaluate import chosen_metrics, features_of
from avbench.metrics.table import METRICS
from avbench.storage import weights
from avbench.storage.runs.folder import RunFolder
from avbench.subsets import loading
from avbench.toyworld import Scene, make_clip

SIDE = 240


def picture():
    """A photograph, 240 pixels to a side."""
    return cv2.resize(astronaut(), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def moved(matrix):
    """The photograph, moved so that what was at p is at matrix · (p, 1)."""
    return cv2.warpAffine(
        picture(), np.asarray(matrix, np.float64), (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )


def true_flow(matrix):
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.einsum("ij,jyx->yxi", np.asarray(matrix), np.stack([x, y, np.ones_like(x)])) - np.stack([x, y], -1)


def flow(frame, following):
    look = DISFlow()
    return look.flow(pairs.Frame(frame, look.protocol), pairs.Frame(following, look.protocol))


def inner(image, border=20):
    return image[border:-border, border:-border]


@pytest.mark.parametrize("shift", [(0.5, 0), (3.3, -2.1), (0, 7.75), (-12, 5)])
def test_translations_are_found_within_a_quarter_of_a_pixel(shift):
    found = inner(flow(picture(), moved([[1, 0, shift[0]], [0, 1, shift[1]]])))
    assert np.median(found.reshape(-1, 2), axis=0) == pytest.approx(shift, abs=0.25)


def test_the_error_under_a_similarity():
    turn = np.add(cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), 2.5, 1.02), [[0, 0, 2.2], [0, 0, -1.4]])
    error = np.linalg.norm(inner(flow(picture(), moved(turn)) - true_flow(turn)), axis=-1)
    assert error.mean() < 0.3


def test_velocities_of_the_world():
    """Of bodies that move 0.6 to 8 pixels a frame of 64; beyond that, about a body's width, flow loses them."""
    errors = []
    look = DISFlow()
    for prompt in loading.load("toy-object-contact").prompts[:24]:
        clip, truth = make_clip(Scene.of(prompt), 0)
        working = [pairs.working(frame, look.protocol) for frame in clip.frames]
        metre = len(working[0].rgb) / 2
        for k, (one, two) in enumerate(itertools.pairwise(working)):
            found = look.flow(one, two)
            for body, half in enumerate(truth.half_sizes):
                x, y = truth.states[k, body, :2] * metre
                step = (truth.states[k + 1, body, :2] - truth.states[k, body, :2]) * metre * (1, -1)
                radius = max(1, int(0.6 * min(half) * metre))
                row, column = int(len(one.rgb) - y), int(x)
                inside = min(row, column, len(one.rgb) - row, len(one.rgb) - column) > radius
                if inside and 1.2 <= np.hypot(*step) <= 16:
                    around = found[row - radius : row + radius + 1, column - radius : column + radius + 1].reshape(
                        -1, 2
                    )
                    errors.append(np.linalg.norm(np.median(around, axis=0) - step) / np.hypot(*step))
    assert len(errors) > 200
    assert np.median(errors) < 0.1


def test_flow_is_found_once_a_clip_whatever_is_asked(tmp_path, monkeypatch):
    """Every metric of flow, those of sync too: two flows a pair of frames."""
    calls = []
    once = DISFlow.flow
    monkeypatch.setattr(DISFlow, "flow", lambda self, *pair: calls.append(1) or once(self, *pair))
    asked = [metric.name for metric in METRICS if metric.feature == "flow-dis"]
    assert {"warping_error", "motion_amount", "motion_frechet", "event_rate", "sync_excess", "sync_lag"} <= set(asked)
    folder = RunFolder(tmp_path / "toyworld")
    list(sample(folder, "toyworld:", {}, [loading.load("toy-object-contact").limited(2)], [0])[1])
    _, work = measure.measure(folder, features_of(chosen_metrics(asked)))
    assert len(list(work)) == 2
    assert len(calls) == 2 * 2 * 15


@pytest.mark.slow
def test_raft_runs_with_the_weights_that_are_brought(tmp_path, monkeypatch):
    """Random weights: that it loads, pads, and gives flow of the frames' own size, the network's own."""
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    torch.manual_seed(0)
    network = raft_large().eval()
    torch.save(network.state_dict(), tmp_path / "raft.pth")
    weights.provide("raft-large-c-t-v1", tmp_path / "raft.pth")
    frames = np.random.default_rng(0).integers(0, 256, (4, 132, 140, 3), dtype=np.uint8)
    look = RAFTFlow()
    assert look.protocol.weights_sha256 and look.protocol.iterations == 20
    found = look.flow(*(pairs.Frame(frame, look.protocol) for frame in frames[:2]))
    assert found.shape == (132, 140, 2) and found.dtype == np.float32
    one, two = (
        torch.from_numpy(np.pad(f, ((2, 2), (2, 2), (0, 0)), "edge")).permute(2, 0, 1)[None] for f in frames[:2]
    )
    with torch.inference_mode():
        expected = network(one / 127.5 - 1, two / 127.5 - 1, num_flow_updates=20)[-1][0, :, 2:134, 2:142]
    np.testing.assert_allclose(found, expected.permute(1, 2, 0).numpy(), atol=1e-4)
    encoded = []
    look._raft._network.feature_encoder.register_forward_hook(lambda *_: encoded.append(1))
    assert set(look(Clip(frames, 8))) == set(DISFlow()(Clip(frames, 8)))
    assert len(encoded) == len(frames), "each frame is encoded once for three pairs there and back"
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "other.pth")
    weights.provide("raft-large-c-t-v1", tmp_path / "other.pth")
    with pytest.raises(InputError, match="as torchvision's raft_large, does not fit"):
        RAFTFlow()
