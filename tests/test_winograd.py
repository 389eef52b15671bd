"""Winograd's convolution has the values of a direct one, whatever the size, and is chosen only where it is faster."""

import pytest
import torch
from torch.nn import functional

from avbench.features.winograd import Conv2d, Winograd, pays


def made(frames, channels, height, width, *kernel):
    torch.manual_seed(height)
    x = torch.randn(frames, channels, height, width).relu_().contiguous(memory_format=torch.channels_last)
    weight = torch.randn(48, channels, *kernel)
    return x, weight, torch.randn(48)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 8), (15, 15), (29, 51), (70, 101)])
def test_values_are_those_of_a_direct_convolution(size, height, width):
    x, weight, bias = made(2, 40, height, width, size, size)
    direct = functional.conv2d(x.double(), weight.double(), bias.double(), padding=size // 2)
    found = Winograd(weight, bias)(x)
    assert found.shape == direct.shape and found.is_contiguous(memory_format=torch.channels_last)
    assert (found - direct).abs().max() <= 1e-5 * direct.abs().max()


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_kernel_with_time_sums_over_neighbouring_frames(frames):
    x, weight, bias = made(frames, 40, 14, 30, 3, 3, 3)
    clip = x.double().transpose(0, 1)[None]
    direct = functional.conv3d(clip, weight.double(), bias.double(), padding=1)[0].transpose(0, 1)
    found = Winograd(weight, bias)(x)
    assert found.shape == direct.shape
    assert (found - direct).abs().max() <= 1e-5 * direct.abs().max()


def test_frames_do_not_depend_on_the_frames_beside_them():
    x, weight, bias = made(5, 40, 31, 31, 3, 3)
    convolve = Winograd(weight, bias)
    alone = torch.cat([convolve(frame) for frame in x.split(1)])
    assert (convolve(x) - alone).abs().max() <= 1e-5 * alone.abs().max()


@pytest.mark.parametrize(
    ("x", "size", "chosen"),
    [
        (torch.empty(1, 64, 31, 31), 5, True),
        (torch.empty(9, 64, 8, 8), 3, False),
        (torch.empty(1, 64, 99, 99), 3, False),
        (torch.empty(1, 64, 31, 31), 1, False),
        (torch.empty(1, 64, 31, 31, dtype=torch.float64), 5, False),
        (torch.empty(1, 64, 31, 31, device="meta"), 5, False),
    ],
    ids=["large", "small", "few channels", "1x1", "float64", "another device"],
)
def test_it_is_chosen_where_it_is_faster(x, size, chosen):
    assert pays(x, torch.empty(8, x.shape[1], size, size)) is chosen


def test_a_layer_has_the_same_values_both_ways(monkeypatch):
    x, weight, bias = made(2, 120, 31, 31, 3, 3)
    layer = Conv2d(120, 48, 3, padding=1).requires_grad_(False)
    layer.load_state_dict({"weight": weight, "bias": bias})
    tiled = layer(x)
    monkeypatch.setattr("avbench.features.winograd.pays", lambda *_: False)
    direct = layer(x)
    assert not torch.equal(tiled, direct)
    assert (tiled - direct).abs().max() <= 1e-5 * direct.abs().max()
