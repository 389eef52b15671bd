"""Defines the network behind FVD: Inception I3D, RGB, 400 classes of Kinetics.

Carreira and Zisserman, "Quo Vadis, Action Recognition?" (2017). It was trained in TensorFlow, and two of TensorFlow's
conventions change the numbers: padding is "SAME" (as much as the stride needs, the odd one at the end), and batch
normalisation has epsilon 1e-3 (1e-5 in pytorch-i3d's files).

Layout: [1, channel, time, height, width] float32 or bfloat16, channels last in memory.
"""

import itertools
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional

from avbench.core import InputError
from avbench.features.winograd import Winograd, pays

MIN_FRAMES = 9
"""With fewer frames, nothing is left for the last average over time."""

_CLASSES = 400
# Block → channels of its branches: 1x1, 1x1 then 3x3x3, 1x1 then 3x3x3, max-pool then 1x1.
_BLOCKS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
# Winograd's method halves the time of these. Later ones gain little, and their transformed kernels take 100 MB.
_BY_TILES = ("Conv3d_2c_3x3", "Mixed_3b/1", "Mixed_3c/1")

_Conv = tuple[torch.Tensor, torch.Tensor]


class Checkpoint:
    """Hands out a checkpoint's tensors by name and shape; refuses one that is missing, left over or misshapen."""

    epsilon: float
    """Epsilon of the batch normalisation."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._left = dict(arrays)

    def kernel(self, unit: str, size: int, channels_in: int, channels_out: int) -> np.ndarray:
        """Weight of a convolution: [out, in, t, h, w]."""
        raise NotImplementedError

    def bias(self, unit: str, channels: int) -> np.ndarray:
        """Bias of the convolution that has one: [channels]."""
        raise NotImplementedError

    def normalisation(self, unit: str, channels: int) -> tuple[np.ndarray, ...]:
        """Scale, shift, mean and variance: [channels] each."""
        raise NotImplementedError

    def conv(self, unit: str, size: int, channels_in: int, channels_out: int) -> _Conv:
        """A convolution with its batch normalisation folded in: weight [out, in, t, h, w] and bias [out]."""
        weight = self.kernel(unit, size, channels_in, channels_out)
        scale, shift, mean, variance = self.normalisation(unit, channels_out)
        gain = scale / np.sqrt(variance + self.epsilon)
        return _tensors(weight * gain[:, None, None, None, None], shift - mean * gain)

    def classifier(self, unit: str, channels_in: int, classes: int) -> _Conv:
        """The last convolution, which has a bias and no normalisation."""
        return _tensors(self.kernel(unit, 1, channels_in, classes), self.bias(unit, classes))

    def require_empty(self) -> None:
        """Raise InputError where the checkpoint holds a tensor that the network has no place for."""
        if self._left:
            msg = f"the I3D checkpoint holds {min(self._left)}, which this network does not have"
            raise InputError(msg)

    def _take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in self._left:
            msg = f"the I3D checkpoint lacks {name}"
            raise InputError(msg)
        array = self._left.pop(name)
        if array.shape != shape:
            msg = f"the I3D checkpoint's {name} has shape {array.shape}; it must have {shape}"
            raise InputError(msg)
        return array.astype(np.float64)


class TensorFlowCheckpoint(Checkpoint):
    """Names and layout of the TensorFlow-Hub module, as in the weight ``i3d-k400``; it has no scale."""

    epsilon = 1e-3

    def kernel(self, unit: str, size: int, channels_in: int, channels_out: int) -> np.ndarray:
        """The kernel, which the file stores as [t, h, w, in, out]."""
        stored = self._take(f"params/{unit}/Conv_0/kernel", (size, size, size, channels_in, channels_out))
        return stored.transpose(4, 3, 0, 1, 2)

    def bias(self, unit: str, channels: int) -> np.ndarray:
        """The bias of the classifier."""
        return self._take(f"params/{unit}/Conv_0/bias", (channels,))

    def normalisation(self, unit: str, channels: int) -> tuple[np.ndarray, ...]:
        """Shift, mean and variance of the file, and a scale of 1."""
        shift = self._take(f"params/{unit}/BatchNorm_0/bias", (channels,))
        mean = self._take(f"batch_stats/{unit}/BatchNorm_0/mean", (1, 1, 1, 1, channels)).ravel()
        variance = self._take(f"batch_stats/{unit}/BatchNorm_0/var", (1, 1, 1, 1, channels)).ravel()
        return np.ones(channels), shift, mean, variance


class PyTorchCheckpoint(Checkpoint):
    """Names of pytorch-i3d, which VideoGPT, TATS and cd-fvd use; its batch normalisation has epsilon 1e-5."""

    epsilon = 1e-5
    _BRANCHES: ClassVar = {
        "Branch_0/Conv3d_0a_1x1": "b0",
        "Branch_1/Conv3d_0a_1x1": "b1a",
        "Branch_1/Conv3d_0b_3x3": "b1b",
        "Branch_2/Conv3d_0a_1x1": "b2a",
        "Branch_2/Conv3d_0b_3x3": "b2b",
        "Branch_3/Conv3d_0b_1x1": "b3b",
    }

    def kernel(self, unit: str, size: int, channels_in: int, channels_out: int) -> np.ndarray:
        """The kernel, which the file stores in the network's own order."""
        return self._take(f"{self._name(unit)}.conv3d.weight", (channels_out, channels_in, size, size, size))

    def bias(self, unit: str, channels: int) -> np.ndarray:
        """The bias of the classifier."""
        return self._take(f"{self._name(unit)}.conv3d.bias", (channels,))

    def normalisation(self, unit: str, channels: int) -> tuple[np.ndarray, ...]:
        """The file's four arrays. The count of batches, which only training needs, is dropped."""
        name = f"{self._name(unit)}.bn"
        self._left.pop(f"{name}.num_batches_tracked", None)
        parts = ("weight", "bias", "running_mean", "running_var")
        return tuple(self._take(f"{name}.{part}", (channels,)) for part in parts)

    def _name(self, unit: str) -> str:
        block, _, branch = unit.partition("/")
        if block == "Logits":
            return "logits"
        return f"{block}.{self._BRANCHES[branch]}" if branch else block


class Inception:
    """The network: [clips, 3, time, 224, 224] → [clips, 400]. Its last average and the classifier are float32."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self._convs: dict[str, _Conv] = {}
        self._by_tiles: dict[str, Winograd] = {}

        def keep(name: str, conv: _Conv) -> None:
            weight, bias = (tensor.to(device, torch.float32 if name == "Logits" else dtype) for tensor in conv)
            self._convs[name] = weight.contiguous(memory_format=torch.channels_last_3d), bias

        keep("Conv3d_1a_7x7", checkpoint.conv("Conv3d_1a_7x7", 7, 3, 64))
        keep("Conv3d_2b_1x1", checkpoint.conv("Conv3d_2b_1x1", 1, 64, 64))
        keep("Conv3d_2c_3x3", checkpoint.conv("Conv3d_2c_3x3", 3, 64, 192))
        channels = 192
        for block, (plain, narrow_1, wide_1, narrow_2, wide_2, pooled) in _BLOCKS.items():
            # The three 1x1 convolutions that read the block's input are computed as one, with their outputs in a row.
            starts = [
                checkpoint.conv(f"{block}/Branch_0/Conv3d_0a_1x1", 1, channels, plain),
                checkpoint.conv(f"{block}/Branch_1/Conv3d_0a_1x1", 1, channels, narrow_1),
                checkpoint.conv(f"{block}/Branch_2/Conv3d_0a_1x1", 1, channels, narrow_2),
            ]
            keep(f"{block}/starts", (torch.cat([w for w, _ in starts]), torch.cat([b for _, b in starts])))
            keep(f"{block}/1", checkpoint.conv(f"{block}/Branch_1/Conv3d_0b_3x3", 3, narrow_1, wide_1))
            keep(f"{block}/2", checkpoint.conv(f"{block}/Branch_2/Conv3d_0b_3x3", 3, narrow_2, wide_2))
            keep(f"{block}/3", checkpoint.conv(f"{block}/Branch_3/Conv3d_0b_1x1", 1, channels, pooled))
            channels = plain + wide_1 + wide_2 + pooled
        keep("Logits", checkpoint.classifier("Logits/Conv3d_0c_1x1", channels, _CLASSES))
        checkpoint.require_empty()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The logits of clips in -1...1."""
        x = self._conv("Conv3d_1a_7x7", x, stride=2)
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        x = self._conv("Conv3d_2b_1x1", x)
        x = self._conv("Conv3d_2c_3x3", x)
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        for block in _BLOCKS:
            if block == "Mixed_4b":
                x = max_pool(x, (3, 3, 3), (2, 2, 2))
            if block == "Mixed_5b":
                x = max_pool(x, (2, 2, 2), (2, 2, 2))
            x = self._mixed(block, x)
        x = functional.avg_pool3d(x.float(), (2, 7, 7), stride=1)
        return functional.conv3d(x, *self._convs["Logits"]).mean(dim=(2, 3, 4))

    def _mixed(self, block: str, x: torch.Tensor) -> torch.Tensor:
        plain, narrow_1, _, narrow_2, _, _ = _BLOCKS[block]
        first, second, third = self._conv(f"{block}/starts", x).split((plain, narrow_1, narrow_2), dim=1)
        second = self._conv(f"{block}/1", second)
        third = self._conv(f"{block}/2", third)
        fourth = self._conv(f"{block}/3", max_pool(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat((first, second, third, fourth), dim=1)

    def _conv(self, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight, bias = self._convs[name]
        kernel = weight.shape[2]
        if name in _BY_TILES and pays(x, weight):
            if name not in self._by_tiles:
                self._by_tiles[name] = Winograd(weight, bias)
            found = [as_clip(self._by_tiles[name](clip.transpose(0, 1)).relu_()) for clip in x]
            return found[0] if len(found) == 1 else torch.cat(found)
        before, after = zip(*(same_padding(n, kernel, stride) for n in x.shape[2:]), strict=True)
        if before != after or stride > 1:
            x, before = functional.pad(x, _flat(before, after)), (0, 0, 0)
        strides = (stride,) * 3
        if stride > 1 and x.dtype == torch.bfloat16 and x.device.type == "cpu":
            x, weight = columns_as_channels(x, weight, stride)
            strides = (stride, stride, 1)
        elif _by_onednn(x) and not weight.is_mkldnn:
            weight = _arranged(weight, x, before)
            self._convs[name] = weight, bias
        return rectified_conv(x, weight, bias, strides, before)


def as_clip(frames: torch.Tensor) -> torch.Tensor:
    """``[time, channel, height, width]`` as ``[1, channel, time, height, width]``, without a copy.

    In this order of steps the first axis gets a stride by which torch sees that channels are last in memory. Otherwise
    it gives up that order when it pads or concatenates, and everything after takes twice as long.
    """
    return frames[None].transpose(1, 2)


def same_padding(n: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME": the padding before and after an axis of length n; the odd one comes after."""
    total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
    return total // 2, total - total // 2


def _flat(before: tuple[int, ...], after: tuple[int, ...]) -> list[int]:
    # functional.pad takes the axes from the last to the first.
    return list(itertools.chain.from_iterable(reversed(list(zip(before, after, strict=True)))))


def rectified_conv(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: tuple[int, ...], padding: tuple[int, ...]
) -> torch.Tensor:
    """Convolve and apply ReLU: on a CPU in one call of oneDNN.

    torch itself sends most of these convolutions to a slower loop (`slow_conv3d`), because it judges by sizes alone.
    """
    if _by_onednn(x):
        return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, padding, stride, (1, 1, 1), 1, "relu", [], "")
    kind = x.dtype
    if x.device.type == "cpu" and kind != torch.float32:
        # What hardware with bfloat16 does: the sum of products of rounded numbers is float32, and rounded in the end.
        return rectified_conv(x.float(), weight.float(), bias.float(), stride, padding).to(kind)
    return functional.conv3d(x, weight, bias, stride=stride, padding=padding).relu_()


def _by_onednn(x: torch.Tensor) -> bool:
    """Whether oneDNN convolves such numbers."""
    known = x.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return known and (x.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _arranged(weight: torch.Tensor, x: torch.Tensor, padding: tuple[int, ...]) -> torch.Tensor:
    """A kernel of stride 1 in the order in which oneDNN reads it, which it would otherwise bring it to at each call."""
    ones = (1, 1, 1)
    # The stubs lack it.
    arrange = torch._C._nn.mkldnn_reorder_conv3d_weight  # pyright: ignore[reportAttributeAccessIssue]
    return arrange(weight.to_mkldnn(), padding, ones, ones, 1, list(x.shape))


def columns_as_channels(x: torch.Tensor, weight: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A padded picture and a kernel ``[batch or out, channels, …, width]`` with `step` columns as channels of one.

    Convolved with stride 1 along the width, they give what the given ones give with the stride `step`. oneDNN
    multiplies many channels at a time; on a CPU three of them are too few in bfloat16.
    """
    kernel = weight.shape[-1]
    columns = -(-kernel // step)
    needed = ((x.shape[-1] - kernel) // step + columns) * step

    def folded(x: torch.Tensor, width: int) -> torch.Tensor:
        x = functional.pad(x, (0, width - x.shape[-1])).movedim(1, -1)
        return x.reshape(*x.shape[:-2], width // step, -1).movedim(-1, 1)

    return folded(x, needed), folded(weight, columns * step)


def max_pool(x: torch.Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> torch.Tensor:
    """Maximum of numbers that are not below 0, with "SAME" padding that never wins: over height, width, then time.

    On a CPU this takes a fifth less time than torch's own pooling of frames, in bfloat16 half of it.
    """
    # Such numbers are ordered like the integers of the same bits, which a CPU compares faster than bfloat16.
    found = x.view(torch.int16) if x.dtype == torch.bfloat16 else x
    for axis in (3, 4, 2):
        if kernel[axis - 2] > 1:
            found = _highest(found, axis, kernel[axis - 2], stride[axis - 2])
    return found.view(x.dtype)


def _highest(x: torch.Tensor, axis: int, size: int, step: int) -> torch.Tensor:
    """The maximum in windows along one axis."""

    def along(values: torch.Tensor, *where: int | None) -> torch.Tensor:
        return values[(*[slice(None)] * axis, slice(*where))]

    before, _ = same_padding(x.shape[axis], size, step)
    shifts = set(range(-before, size - before)) - {0}
    found, neighbours = along(x, None, None, step), along(x, 1, None, step)
    if found.shape == neighbours.shape:  # one pass fewer, where windows do not overlap or overlap by one
        found = torch.maximum(found, neighbours)
        shifts.remove(1)
    else:
        found = found.clone(memory_format=torch.channels_last_3d)
    count = found.shape[axis]
    for shift in sorted(shifts):
        first = -(min(shift, 0) // step)  # the first window that has a number at this place
        seen = along(along(x, first * step + shift, None, step), count - first)
        part = along(found, first, first + seen.shape[axis])
        torch.maximum(part, seen, out=part)
    return found


def _tensors(weight: np.ndarray, bias: np.ndarray) -> _Conv:
    return torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(bias.astype(np.float32))
