"""What does a Kinetics classifier see in a clip? 400 logits of Inception I3D, the features of FVD.

The network is that of Carreira and Zisserman, "Quo Vadis, Action Recognition?" (2017), RGB stream, with the weights
that the reference FVD uses. It was trained in TensorFlow, and two of its habits change the numbers: padding is
"SAME" (as much as the stride needs, the odd one at the end), and batch normalisation has no scale and epsilon 1e-3.

Layout: [1, channel, time, height, width] float32, channels last in memory.
"""

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from avbench.core import Clip, InputError, NotMeasurable, Protocol
from avbench.weights import WEIGHTS, locate, read_arrays

MIN_FRAMES = 9
"""Fewer leave nothing for the last average over time."""

_BN_EPSILON = 1e-3
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

_Conv = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class I3DProtocol(Protocol):
    """What decides a clip's logits besides the clip."""

    name: str = "i3d-k400"
    version: int = 1
    frames: int = 16
    frame_choice: str = "first"
    fps: str = "native"
    size: int = 224
    resize: str = "bilinear"
    aspect: str = "stretched"
    antialias: bool = True
    resized_as: str = "float32 before scaling"
    value_range: str = "-1...1"
    output: str = "400 logits before softmax"
    weights: str = "i3d-k400"
    weights_sha256: str = WEIGHTS["i3d-k400"].sha256
    precision: str = "float32"


class I3DLogits:
    """The feature ``i3d-k400``: one row of 400 logits a clip, whatever else is measured.

    Raises InputError when built where the weights are missing or not those of this network.
    """

    protocol = I3DProtocol()

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)
        path = locate(self.protocol.weights)
        self._net = _Inception(_Checkpoint(read_arrays(path)), self.device)

    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """``logits`` of the clip's first frames. Raises NotMeasurable where it has too few of them."""
        asked = self.protocol.frames
        if len(clip.frames) < asked:
            msg = f"I3D looks at {asked} frames and this clip has {len(clip.frames)}"
            raise NotMeasurable(msg)
        return {"logits": self.logits(clip.frames[:asked])}

    @torch.inference_mode()
    def logits(self, frames: np.ndarray) -> np.ndarray:
        """Logits [400] float32 of all of ``[time, height, width, 3]`` uint8 frames, of which there are at least 9."""
        if len(frames) < MIN_FRAMES:
            msg = f"I3D needs at least {MIN_FRAMES} frames and got {len(frames)}"
            raise NotMeasurable(msg)
        x = torch.from_numpy(np.array(frames)).to(self.device).permute(0, 3, 1, 2).float()
        size = (self.protocol.size, self.protocol.size)
        x = functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=self.protocol.antialias)
        x = (x / 127.5 - 1).transpose(0, 1)[None].contiguous(memory_format=torch.channels_last_3d)
        # On a GPU, TF32 and a choice of algorithms by timing would make the numbers depend on the machine's mood.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            return self._net(x)[0].cpu().numpy()


class _Checkpoint:
    """Takes tensors out of the checkpoint, each once and of the right shape; complains of any other."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._left = dict(arrays)

    def conv(self, unit: str, kernel: int, channels_in: int, channels_out: int) -> _Conv:
        """A convolution with its batch normalisation folded in: weight [out, in, t, h, w] and bias [out]."""
        weight = self._kernel(unit, kernel, channels_in, channels_out)
        shift = self._take(f"params/{unit}/BatchNorm_0/bias", (channels_out,))
        mean = self._take(f"batch_stats/{unit}/BatchNorm_0/mean", (1, 1, 1, 1, channels_out)).ravel()
        variance = self._take(f"batch_stats/{unit}/BatchNorm_0/var", (1, 1, 1, 1, channels_out)).ravel()
        gain = 1 / np.sqrt(variance + _BN_EPSILON)
        return _tensors(weight * gain[:, None, None, None, None], shift - mean * gain)

    def classifier(self, unit: str, channels_in: int, classes: int) -> _Conv:
        """The last convolution, which has a bias and no normalisation."""
        weight = self._kernel(unit, 1, channels_in, classes)
        return _tensors(weight, self._take(f"params/{unit}/Conv_0/bias", (classes,)))

    def require_empty(self) -> None:
        """Raise InputError where the checkpoint holds a tensor that the network has no place for."""
        if self._left:
            msg = f"the I3D checkpoint holds {min(self._left)}, which this network does not have"
            raise InputError(msg)

    def _kernel(self, unit: str, kernel: int, channels_in: int, channels_out: int) -> np.ndarray:
        stored = self._take(f"params/{unit}/Conv_0/kernel", (kernel, kernel, kernel, channels_in, channels_out))
        return stored.transpose(4, 3, 0, 1, 2)

    def _take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in self._left:
            msg = f"the I3D checkpoint lacks {name}"
            raise InputError(msg)
        array = self._left.pop(name)
        if array.shape != shape:
            msg = f"the I3D checkpoint's {name} has shape {array.shape} where {shape} is right"
            raise InputError(msg)
        return array.astype(np.float64)


class _Inception:
    """The network: [1, 3, time, 224, 224] → [1, 400]."""

    def __init__(self, checkpoint: _Checkpoint, device: torch.device) -> None:
        self._convs: dict[str, _Conv] = {}

        def keep(name: str, conv: _Conv) -> None:
            weight, bias = (tensor.to(device) for tensor in conv)
            self._convs[name] = weight.contiguous(memory_format=torch.channels_last_3d), bias

        keep("Conv3d_1a_7x7", checkpoint.conv("Conv3d_1a_7x7", 7, 3, 64))
        keep("Conv3d_2b_1x1", checkpoint.conv("Conv3d_2b_1x1", 1, 64, 64))
        keep("Conv3d_2c_3x3", checkpoint.conv("Conv3d_2c_3x3", 3, 64, 192))
        channels = 192
        for block, (plain, narrow_1, wide_1, narrow_2, wide_2, pooled) in _BLOCKS.items():
            # The three 1x1 convolutions that read the block's input are one convolution with their outputs in a row.
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
        x = self._conv("Conv3d_1a_7x7", x, stride=2)
        x = _max_pool(x, (1, 3, 3), (1, 2, 2))
        x = self._conv("Conv3d_2b_1x1", x)
        x = self._conv("Conv3d_2c_3x3", x)
        x = _max_pool(x, (1, 3, 3), (1, 2, 2))
        for block in _BLOCKS:
            if block == "Mixed_4b":
                x = _max_pool(x, (3, 3, 3), (2, 2, 2))
            if block == "Mixed_5b":
                x = _max_pool(x, (2, 2, 2), (2, 2, 2))
            x = self._mixed(block, x)
        x = functional.avg_pool3d(x, (2, 7, 7), stride=1)
        return functional.conv3d(x, *self._convs["Logits"]).mean(dim=(2, 3, 4))

    def _mixed(self, block: str, x: torch.Tensor) -> torch.Tensor:
        plain, narrow_1, _, narrow_2, _, _ = _BLOCKS[block]
        first, second, third = self._conv(f"{block}/starts", x).split((plain, narrow_1, narrow_2), dim=1)
        second = self._conv(f"{block}/1", second)
        third = self._conv(f"{block}/2", third)
        fourth = self._conv(f"{block}/3", _max_pool(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat((first, second, third, fourth), dim=1)

    def _conv(self, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight, bias = self._convs[name]
        kernel = weight.shape[2]
        before, after = zip(*(_same_padding(n, kernel, stride) for n in x.shape[2:]), strict=True)
        if before != after:
            x, before = functional.pad(x, _flat(before, after)), (0, 0, 0)
        return functional.conv3d(x, weight, bias, stride=stride, padding=before).relu_()


def _same_padding(n: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME": how much to add before and after an axis of length n, the odd one after."""
    total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
    return total // 2, total - total // 2


def _flat(before: tuple[int, ...], after: tuple[int, ...]) -> list[int]:
    # functional.pad counts axes from the last to the first.
    return list(itertools.chain.from_iterable(reversed(list(zip(before, after, strict=True)))))


def _max_pool(x: torch.Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> torch.Tensor:
    """Maximum with "SAME" padding that never wins: axis by axis, in about a third of max_pool3d's time on a CPU."""
    for axis, size, step in zip((2, 3, 4), kernel, stride, strict=True):
        before, after = _same_padding(x.shape[axis], size, step)
        if before or after:
            pads = [0] * 6
            pads[2 * (4 - axis) : 2 * (4 - axis) + 2] = before, after
            x = functional.pad(x, pads, value=-torch.inf)
        starts = x.shape[axis] - size + 1
        shifted = (x.narrow(axis, first, starts)[_every(axis, step)] for first in range(size))
        x = functools.reduce(torch.maximum, shifted)
    return x


def _every(axis: int, step: int) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, slice(None, None, step))


def _tensors(weight: np.ndarray, bias: np.ndarray) -> _Conv:
    return torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(bias.astype(np.float32))
