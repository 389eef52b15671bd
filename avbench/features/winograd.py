"""Convolves on the CPU by Winograd's method: with a quarter of the multiplications for 3x3 kernels, a sixth for 5x5.

The output is computed in tiles of 4x4 pixels. Along each axis a tile is a product of two polynomials, image and kernel:
both are evaluated at some points, multiplied there, and the product is interpolated (Lavin and Gray, "Fast algorithms
for convolutional neural networks", 2016; the points and matrices are Cook's and Toom's). Results differ from those of a
direct convolution by about 1e-5 of the largest (tests/test_winograd.py).
"""

import functools
import math
from fractions import Fraction

import numpy as np
import torch
from torch import nn
from torch.nn import functional

_TILE = 4
_POINTS = tuple(map(Fraction, ("0", "1", "-1", "2", "-2", "1/2", "-1/2")))  # those before infinity, in order of use
_TILES_AT_ONCE = 96
"""With fewer, matrix products are slow; with more, their operands leave the cache."""
_FEWEST_TILES, _FEWEST_PRODUCTS = 16, 1000
"""Of a frame, and of a number of the output. With fewer, a direct convolution is faster (measured on AVX2)."""


def pays(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether a convolution of stride 1 with a kernel ``[out, in, …, size, size]`` is faster by Winograd's method.

    It does not depend on the number of frames, so a frame's result does not depend on the frames beside it.
    """
    tiles = math.prod(-(-side // _TILE) for side in x.shape[-2:])
    known = x.device.type == "cpu" and x.dtype == torch.float32 and weight.shape[-1] in (3, 5)
    return known and tiles >= _FEWEST_TILES and weight[0].numel() >= _FEWEST_PRODUCTS


class Winograd:
    """A convolution of stride 1 that keeps the size of ``[frames, channels, height, width]``, channels last in memory.

    The kernel is ``[out, in, size, size]``, or ``[out, in, time, size, size]``, which sums over neighbouring frames.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        if weight.dim() == 4:
            weight = weight[:, :, None]
        interpolate, evaluate_kernel, evaluate_image = _matrices(weight.shape[-1])
        self._margin, self._bias = weight.shape[-1] // 2, bias
        self._from_image, self._to_image = (
            torch.from_numpy(np.kron(one, one).astype(np.float32)) for one in (evaluate_image, interpolate)
        )
        kernels = np.einsum(
            "ai,octij,bj->tabco", evaluate_kernel, weight.double().numpy(), evaluate_kernel, optimize=True
        )
        points = len(self._from_image)
        self._kernels = [torch.from_numpy(one.reshape(points, *one.shape[2:]).astype(np.float32)) for one in kernels]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The convolution with its bias."""
        frames, channels, height, width = x.shape
        points, out, more = len(self._from_image), self._kernels[0].shape[2], len(self._kernels) - 1
        rows, columns = -(-height // _TILE), -(-width // _TILE)
        below, right = rows * _TILE - height, columns * _TILE - width
        margin = self._margin
        x = functional.pad(x, (margin, right + margin, margin, below + margin, 0, 0, more // 2, more // 2))
        x = x.permute(0, 2, 3, 1).contiguous()
        by_frame, by_row, by_column, _ = x.stride()
        side = math.isqrt(points)
        tiles = x.as_strided(
            (side, side, len(x), rows, columns, channels),
            (by_row, by_column, by_frame, by_row * _TILE, by_column * _TILE, 1),
        )
        result = x.new_empty((frames, rows, _TILE, columns, _TILE, out))
        step = max(1, _TILES_AT_ONCE // (len(x) * columns))
        for row in range(0, rows, step):
            part = tiles[:, :, :, row : row + step]
            of_frame = part.shape[3] * columns
            seen = (self._from_image @ part.reshape(points, -1)).view(points, -1, channels)
            product = torch.bmm(seen[:, : frames * of_frame], self._kernels[0])
            for later, kernel in enumerate(self._kernels[1:], 1):
                product.baddbmm_(seen[:, later * of_frame :][:, : frames * of_frame], kernel)
            pixels = (self._to_image @ product.view(points, -1)).view(_TILE, _TILE, frames, -1, columns, out)
            result[:, row : row + step] = pixels.permute(2, 3, 0, 4, 1, 5)
        result = result.view(frames, rows * _TILE, columns * _TILE, out)[:, :height, :width].contiguous()
        return result.add_(self._bias).permute(0, 3, 1, 2)


class Conv2d(nn.Conv2d):
    """torch's convolution of stride 1 with half the kernel as padding; by Winograd's method where that is faster.

    It is only for inference: a weight that changes after the first use has no effect.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The convolution of ``[batch, in, height, width]``."""
        return self._by_tiles(x) if pays(x, self.weight) else super().forward(x)

    @functools.cached_property
    def _by_tiles(self) -> Winograd:
        assert self.bias is not None
        return Winograd(self.weight, self.bias)


def _matrices(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matrices that interpolate a product ``[4, n]``, evaluate a kernel ``[n, size]`` and an image ``[n, n]``.

    n is the number of points, of which the last is infinity.
    """
    points = _POINTS[: _TILE + size - 2]
    n = len(points) + 1
    at_infinity = np.eye(n)[-1]
    powers = np.array([[float(point) ** k for k in range(n)] for point in points])
    interpolate = np.vstack([powers[:, :_TILE], at_infinity[n - _TILE :]]).T
    others = [[other for other in points if other != point] for point in points]
    scale = [float(math.prod(point - other for other in beside)) for point, beside in zip(points, others, strict=True)]
    kernel = np.vstack([powers[:, :size] / np.array(scale)[:, None], at_infinity[n - size :]])
    image = np.array([np.pad(np.poly([float(other) for other in beside])[::-1], (0, 1)) for beside in others])
    image = np.vstack([image, np.poly([float(point) for point in points])[::-1]])
    return interpolate, kernel, image
