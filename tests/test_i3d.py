"""The I3D features are the published ones, and a clip's logits depend on the clip alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from avbench.core import Clip, InputError, NotMeasurable
from avbench.features import networks
from avbench.features.video import i3d
from avbench.features.video.i3d import network
from avbench.features.video.i3d.resize import resized
from avbench.metrics.frechet import frechet_distance
from avbench.storage.reading.pickles import read_arrays
from avbench.storage.weights import locate

GOLDEN = json.loads((Path(__file__).parent / "golden" / "fvd_black_white.json").read_text())
COMPARISON = json.loads((Path(__file__).parent / "golden" / "fvd_comparison.json").read_text())


@pytest.fixture(scope="module")
def feature():
    return i3d.I3DLogits()


def noise(seed, frames=16, height=48, width=64):
    shape = (frames, height, width, 3)
    return Clip(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), 8)


def plain(value, frames):
    return np.full((frames, 64, 64, 3), value, dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [16, 24, 30])
def test_fvd_of_black_and_white_clips_is_the_published_one(feature, frames):
    # Eight equal clips have eight equal rows, so one is measured.
    black, white = (np.repeat(feature.logits(plain(v, frames))[None], 8, axis=0) for v in (0, 255))
    value = frechet_distance(black, white)
    assert value == pytest.approx(GOLDEN["published"][str(frames)], rel=GOLDEN["tolerance"])
    assert value == pytest.approx(GOLDEN["ours"][str(frames)], abs=GOLDEN["ours_tolerance"])


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_noise_of_fvd_comparison_has_the_logits_that_give_its_fvd(feature, seed):
    # The whole case takes 256 clips: benchmarks/fvd_comparison.py. Here is the first clip of either set.
    noise = np.random.RandomState(int(seed)).rand(1, 16, 224, 224, 3).astype(np.float32)
    logits = feature.seen(torch.from_numpy(noise[0]).permute(0, 3, 1, 2))
    np.testing.assert_allclose(logits[:4], COMPARISON["first_logits"][seed], atol=1e-3)
    assert COMPARISON["ours"] == pytest.approx(COMPARISON["published"], rel=COMPARISON["tolerance"])


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(480, 832), (17, 1280), (224, 224), (64, 50)])
def test_frames_are_resized_as_by_torch(size, antialias):
    frames = np.random.default_rng(3).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    found = resized(frames, 2, 224, antialias=antialias, device=torch.device("cpu"))
    x = networks.planes(frames[:2])
    expected = functional.interpolate(x, (224, 224), mode="bilinear", align_corners=False, antialias=antialias)
    assert found.shape == (2, 3, 224, 224) and found.is_contiguous(memory_format=torch.channels_last)
    # without antialiasing torch 2.15 rounds the place that a pixel comes from in two ways, by its number of threads
    torch.testing.assert_close(found, expected / 127.5 - 1, atol=1e-6 if antialias else 5e-5, rtol=0)


@pytest.mark.slow
def test_a_row_is_400_float32_logits_of_the_first_16_frames(feature):
    clip = noise(1, frames=18)
    row = feature(clip)
    assert list(row) == ["logits"]
    assert row["logits"].shape == (400,) and row["logits"].dtype == np.float32
    assert np.array_equal(row["logits"], feature.logits(clip.frames[:16]))
    assert not np.array_equal(row["logits"], feature.logits(clip.frames[2:]))


@pytest.mark.slow
def test_logits_do_not_depend_on_what_else_is_measured(feature):
    clip = noise(2)
    first = feature(clip)["logits"]
    feature(noise(3))
    feature.logits(noise(4, frames=9).frames)
    assert np.array_equal(first, feature(clip)["logits"])
    assert np.array_equal(first, i3d.I3DLogits()(clip)["logits"])


@pytest.mark.one_device
def test_several_clips_at_a_time_have_the_logits_of_each_alone(feature):
    x = torch.from_numpy(np.random.default_rng(0).random((2, 3, 16, 224, 224), np.float32)) * 2 - 1
    with networks.exact():
        together, alone = feature._network(x), torch.cat([feature._network(clip[None]) for clip in x])
    assert together.shape == (2, 400)
    np.testing.assert_allclose(together, alone, atol=2e-5 * float(alone.abs().max()))


def test_too_short_clips_are_told_so(feature):
    with pytest.raises(NotMeasurable, match="I3D takes 16 frames and this clip has 15"):
        feature(noise(0, frames=15))
    with pytest.raises(NotMeasurable, match="I3D needs 9 frames and this clip has 8"):
        feature.logits(plain(0, 8))
    assert np.isfinite(feature.logits(plain(0, 9))).all()


def test_the_protocol_names_the_weights_and_can_be_written():
    protocol = i3d.I3DLogits.protocol
    assert (protocol.name, protocol.version, protocol.frames) == ("i3d-k400", 1, 16)
    assert len(protocol.describe()["weights_sha256"]) == 64
    assert protocol.digest.startswith("7fd9d16577bc"), "shipped references were made under this protocol"


def test_every_tensor_of_the_checkpoint_is_used_and_none_is_made_up():
    arrays = read_arrays(locate("i3d-k400"))
    cpu = torch.device("cpu")
    name = "batch_stats/Mixed_4c/Branch_2/Conv3d_0b_3x3/BatchNorm_0/var"
    with pytest.raises(InputError, match=f"lacks {name}"):
        network.Inception(network.TensorFlowCheckpoint({key: arrays[key] for key in arrays if key != name}), cpu)
    with pytest.raises(InputError, match=f"{name} has shape"):
        network.Inception(network.TensorFlowCheckpoint({**arrays, name: np.ones(3, np.float32)}), cpu)
    with pytest.raises(InputError, match="holds extra/tensor"):
        network.Inception(network.TensorFlowCheckpoint({**arrays, "extra/tensor": np.ones(3, np.float32)}), cpu)


@pytest.mark.parametrize(
    ("n", "kernel", "stride", "padding"),
    [
        (224, 7, 2, (2, 3)),
        (15, 7, 2, (3, 3)),
        (112, 3, 2, (0, 1)),
        (5, 2, 2, (0, 1)),
        (4, 2, 2, (0, 0)),
        (8, 3, 1, (1, 1)),
    ],
)
def test_same_padding_is_tensorflows(n, kernel, stride, padding):
    assert network.same_padding(n, kernel, stride) == padding


@pytest.mark.parametrize("time", [4, 5])
@pytest.mark.parametrize(("kernel", "stride"), [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (1, 1, 1)), ((2, 2, 2), (2, 2, 2))])
def test_padding_never_wins_a_maximum(time, kernel, stride):
    x = -1 - torch.rand((1, 2, time, 7, 8), generator=torch.Generator().manual_seed(0))  # all below a padded zero
    sides = [network.same_padding(n, k, s) for n, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    pads = [pad for side in reversed(sides) for pad in side]
    right = functional.max_pool3d(functional.pad(x, pads, value=-torch.inf), kernel, stride)
    assert torch.equal(network.max_pool(x, kernel, stride), right)
    assert right.max() < 0
    x = (x + 2).to(torch.bfloat16)  # 0 to 1, as after a ReLU
    right = functional.max_pool3d(functional.pad(x, pads, value=-torch.inf), kernel, stride)
    assert torch.equal(network.max_pool(x, kernel, stride), right)


@pytest.mark.one_device
def test_channels_stay_last_in_memory_from_layer_to_layer(feature, monkeypatch):
    # Otherwise the values are the same, and the network takes half as long again.
    steps = {"max_pool": [], "rectified_conv": []}

    def watched(known, found):
        return lambda x, *rest: found.append(x.stride(1)) or known(x, *rest)

    for name, found in steps.items():
        monkeypatch.setattr(network, name, watched(getattr(network, name), found))
    feature.logits(noise(5, frames=9).frames)
    assert len(steps["max_pool"]) == 13 and len(steps["rectified_conv"]) > 30
    assert {step for found in steps.values() for step in found} == {1}


@pytest.mark.parametrize(("width", "kernel", "step"), [(230, 7, 2), (21, 7, 2), (20, 5, 3), (9, 9, 4)])
def test_columns_as_channels_give_the_same_convolution(width, kernel, step):
    random = torch.Generator().manual_seed(2)
    x = torch.randn(2, 3, 4, 5, width, generator=random).contiguous(memory_format=torch.channels_last_3d)
    weight = torch.randn(6, 3, 2, 3, kernel, generator=random)
    folded, kernels = network.columns_as_channels(x, weight, step)
    right = functional.conv3d(x, weight, stride=(2, 2, step))
    torch.testing.assert_close(functional.conv3d(folded, kernels, stride=(2, 2, 1)), right, rtol=1e-5, atol=1e-5)


@pytest.mark.one_device
def test_a_clip_of_another_length_gives_what_it_gives_alone():
    """The kernels are in the order that suits the clip that came first."""
    clips = [noise(5, frames=frames).frames for frames in (16, 24)]
    one, other = i3d.I3DLogits(), i3d.I3DLogits()
    first, second = (one.logits(frames) for frames in clips)
    second_again, first_again = (other.logits(frames) for frames in reversed(clips))
    assert np.array_equal(first, first_again) and np.array_equal(second, second_again)


@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (1, 1)])
def test_convolutions_agree_with_and_without_onednn(kernel, stride, monkeypatch):
    random = torch.Generator().manual_seed(1)
    x = torch.randn(1, 6, 8, 15, 14, generator=random).contiguous(memory_format=torch.channels_last_3d)
    weight, bias = torch.randn(5, 6, *[kernel] * 3, generator=random), torch.randn(5, generator=random)
    found = network.rectified_conv(x, weight, bias, (stride,) * 3, (kernel // 2,) * 3)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    plain = network.rectified_conv(x, weight, bias, (stride,) * 3, (kernel // 2,) * 3)
    assert (plain == 0).any() and plain.max() > 1
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-4)
