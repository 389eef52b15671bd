"""Defines the network behind FVD: Inception I3D, RGB, 400 classes of Kinetics.

Carreira and Zisserman, "Quo Vadis, Action Recognition?" (2017). It was trained in TensorFlow, and two of TensorFlow's
conventions change the numbers: padding is "SAME" (as much as the stride needs, the odd one at the end), and batch
normalisation has epsilon 1e-3 (1e-5 in pytorch-i3d's files).

Layout: [1, channel, time, height, width] float32 or bfloat16, channels last in memory.
"""

import functools
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
        if before != after:
            x, before = functional.pad(x, _flat(before, after)), (0, 0, 0)
        return rectified_conv(x, weight, bias, stride, before)


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
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int, padding: tuple[int, int, int]
) -> torch.Tensor:
    """Convolve and apply ReLU: on a CPU in one call of oneDNN.

    torch itself sends most of these convolutions to a slower loop (`slow_conv3d`), because it judges by sizes alone.
    """
    kind, on_cpu = x.dtype, x.device.type == "cpu"
    known = on_cpu and torch.backends.mkldnn.is_available()
    if on_cpu and kind != torch.float32 and not (known and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        # What such hardware does: the sum of products of rounded numbers is float32, and rounded in the end.
        x, weight, bias = x.float(), weight.float(), bias.float()
    if known:
        return torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, padding, (stride,) * 3, (1, 1, 1), 1, "relu", [], ""
        ).to(kind)
    return functional.conv3d(x, weight, bias, stride=stride, padding=padding).relu_().to(kind)


def max_pool(x: torch.Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> torch.Tensor:
    """Maximum with "SAME" padding that never wins: over each frame, then over time.

    On a CPU this takes about a quarter of max_pool3d's time.
    """
    batch, channels, time, height, width = x.shape
    # An odd padding at the end alone is what `ceil_mode` adds.
    before = [
        same_padding(n, size, step)[0] for n, size, step in zip((height, width), kernel[1:], stride[1:], strict=True)
    ]
    frames = x.transpose(1, 2).reshape(batch * time, channels, height, width)
    frames = functional.max_pool2d(frames, kernel[1:], stride[1:], padding=before, ceil_mode=True)
    x = frames.reshape(batch, time, channels, *frames.shape[2:]).transpose(1, 2)
    if kernel[0] == 1:
        return x
    early, late = same_padding(time, kernel[0], stride[0])
    x = functional.pad(x, (0, 0, 0, 0, early, late), value=-torch.inf)
    starts = x.shape[2] - kernel[0] + 1
    return functools.reduce(torch.maximum, (x[:, :, k : k + starts : stride[0]] for k in range(kernel[0])))


def _tensors(weight: np.ndarray, bias: np.ndarray) -> _Conv:
    return torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(bias.astype(np.float32))
