"""Defines the convolutional trunks of LPIPS: AlexNet, VGG16 and SqueezeNet 1.1, cut after the layers that it compares.

Layers have the names and numbers of torchvision's classifiers (``features.0`` …), so that their checkpoints fit. Taps
and scaling are those of the lpips package, whose values these networks give (tests/test_lpips.py compares them).
"""

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import nn

from avbench.features.winograd import Conv2d

_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)

_TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29), "squeeze": (1, 4, 7, 9, 10, 11, 12)}
"""Numbers of the layers whose outputs are compared."""


def standardised(frames: np.ndarray, device: torch.device) -> torch.Tensor:
    """``[time, height, width, 3]`` uint8 → the trunk's input ``[time, 3, height, width]``, channels last in memory."""
    if device.type != "cpu":
        return _standardised(torch.from_numpy(np.array(frames)).to(device)).permute(0, 3, 1, 2)
    every_grey = _standardised(torch.arange(256)[:, None]).numpy()  # looked up, because there are only 256
    rows = frames.reshape(-1, *frames.shape[2:])
    return torch.from_numpy(cv2.LUT(rows, every_grey[None]).reshape(frames.shape)).permute(0, 3, 1, 2)


def _standardised(greys: torch.Tensor) -> torch.Tensor:
    """Grey levels 0...255, channels last, less the mean and divided by the deviation that the networks expect."""
    shift, scale = (torch.tensor(each, device=greys.device) for each in (_SHIFT, _SCALE))
    return (greys.float() / 127.5 - 1 - shift) / scale


class Trunk(nn.Module):
    """One trunk: standardised ``[batch, 3, height, width]`` to a list of features ``[batch, channel, height, width]``.

    It is built with weights that are not initialised; fill it before use.
    """

    def __init__(self, net: str) -> None:
        super().__init__()
        with torch.device("meta"):  # no random numbers are drawn
            self.features = nn.Sequential(*{"alex": _alex, "vgg": _vgg, "squeeze": _squeeze}[net]())
        for layer in self.features.modules():  # as `to_empty`, which imports sympy and takes half a second for it
            for name, weight in [*layer.named_parameters(recurse=False)]:
                setattr(layer, name, nn.Parameter(torch.empty(weight.shape)))
        self._taps = _TAPS[net]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of all taps, from the picture inwards."""
        found = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self._taps:
                found.append(x)
        return found


def _alex() -> Iterator[nn.Module]:
    sizes = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
    for number, (channels_in, channels_out, kernel, stride, padding) in enumerate(sizes):
        if number in (1, 2):
            yield nn.MaxPool2d(3, 2)
        yield (Conv2d if stride == 1 else nn.Conv2d)(channels_in, channels_out, kernel, stride, padding)
        yield nn.ReLU(inplace=True)


def _vgg() -> Iterator[nn.Module]:
    channels = 3
    for number, (wide, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        if number:
            yield nn.MaxPool2d(2, 2)
        for _ in range(depth):
            yield Conv2d(channels, wide, 3, padding=1)
            yield nn.ReLU(inplace=True)
            channels = wide


class _Fire(nn.Module):
    """SqueezeNet's block: few channels, then 1x1 and 3x3 beside each other."""

    def __init__(self, channels_in: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels_in, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, wide, 1)
        self.expand3x3 = nn.Conv2d(narrow, wide, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze(x).relu_()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1).relu_()


def _squeeze() -> Iterator[nn.Module]:
    yield nn.Conv2d(3, 64, 3, 2)
    yield nn.ReLU(inplace=True)
    channels = 64
    blocks = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
    for number, (narrow, wide) in enumerate(blocks):
        if number in (0, 2, 4):
            yield nn.MaxPool2d(3, 2, ceil_mode=True)
        yield _Fire(channels, narrow, wide)
        channels = 2 * wide
