"""Defines DOVER's network: a video Swin transformer for technical and an inflated ConvNeXt for aesthetic quality.

Both read 32 frames of 224 × 224 pixels, whose first layers halve the frames and quarter the pixels. The transformer's
frames are mosaics of 7 × 7 fragments. Its attention within windows has two tables of position biases in all stages but
the last: one for tokens of one fragment, one for those of different fragments (FAST-VQA's gated biases). As in the
authors' code, the gate is the distance between the fragments, in fragments, and not only 0 or 1.

Parameters have the names of the authors' checkpoint. Source: dover/models of VQAssessment/DOVER at f1ddc96.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

FRAMES, SIDE, FRAGMENTS = 32, 224, 7
"""Frames of a window, pixels of a frame's sides, and fragments along each of them."""
_PATCH = (2, 4, 4)
_WINDOW = (8, 7, 7)


@dataclass(frozen=True)
class Shape:
    """The shape of DOVER; the defaults are the published ones."""

    width: int = 96
    """Of the transformer's first stage; each further stage doubles it."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    """Of the stages of the ConvNeXt."""
    blocks: tuple[int, ...] = (3, 3, 9, 3)
    hidden: int = 64
    """Of the heads."""


class Network(nn.Module):
    """DOVER; parameters have the names of its checkpoint."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.technical_backbone = Swin(shape)
        self.technical_head = _head(shape.width * 2 ** (len(shape.depths) - 1), shape.hidden)
        self.aesthetic_backbone = ConvNeXt(shape)
        self.aesthetic_head = _head(shape.widths[-1], shape.hidden)

    def technical(self, x: torch.Tensor) -> torch.Tensor:
        """``[windows, 3, 32, 224, 224]``, mosaics → a number, the mean over windows."""
        return self.technical_head(self.technical_backbone(x)).mean()

    def aesthetic(self, x: torch.Tensor) -> torch.Tensor:
        """``[inputs, 3, 32, 224, 224]``, whole frames → a number."""
        return self.aesthetic_head(self.aesthetic_backbone(x)).mean()


def _head(width: int, hidden: int) -> nn.Sequential:
    layers = {"fc_hid": nn.Conv3d(width, hidden, 1), "gelu": nn.GELU(), "fc_last": nn.Conv3d(hidden, 1, 1)}
    return nn.Sequential(OrderedDict(layers))


class Swin(nn.Module):
    """``[inputs, 3, 32, 224, 224]`` → ``[inputs, width, 16, 7, 7]``: a video Swin transformer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        patches = nn.Conv3d(3, shape.width, _PATCH, _PATCH)
        self.patch_embed = nn.ModuleDict({"proj": patches, "norm": nn.LayerNorm(shape.width)})
        last = len(shape.depths) - 1
        self.layers = nn.Sequential(*[Stage(shape, stage, last=stage == last) for stage in range(last + 1)])
        self.norm = nn.LayerNorm(shape.width << last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The normalised tokens after the last stage."""
        x = self.patch_embed["norm"](self.patch_embed["proj"](x).movedim(1, -1))
        return self.norm(self.layers(x)).movedim(-1, 1)


class Stage(nn.Module):
    """Blocks, whose windows are shifted every second time; all but the last stage then merge their tokens."""

    def __init__(self, shape: Shape, stage: int, *, last: bool) -> None:
        super().__init__()
        grid = (FRAMES // _PATCH[0], *(SIDE // one >> stage for one in _PATCH[1:]))
        width, heads = shape.width << stage, shape.heads[stage]
        self.blocks = nn.Sequential(
            *[
                SwinBlock(width, heads, Windows(grid, shifted=place % 2 == 1), fragments=not last)
                for place in range(shape.depths[stage])
            ]
        )
        self.downsample = nn.Identity() if last else Merging(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[inputs, time, rows, columns, width]`` → the same, or half the rows and columns and twice the width."""
        return self.downsample(self.blocks(x))


class Windows(nn.Module):
    """Cuts a grid of tokens into windows of 8 × 7 × 7, and knows which tokens of a window belong together.

    Shifted windows begin half a window later, and hold what is left at both ends of the grid; a side that one window
    covers is not shifted.
    """

    parts: torch.Tensor
    fragments: torch.Tensor

    def __init__(self, grid: tuple[int, ...], *, shifted: bool) -> None:
        super().__init__()
        self.grid = grid
        sides = list(zip(grid, _WINDOW, strict=True))
        self.shift = tuple(window // 2 if shifted and side > window else 0 for side, window in sides)
        # Which tokens were neighbours before the shift: numbers of parts of the grid.
        steps = [torch.arange(side) for side in grid]
        parts = [
            (place >= side - window).long() + (place >= side - shift) if shift else 0 * place
            for place, (side, window), shift in zip(steps, sides, self.shift, strict=True)
        ]
        self.register_buffer("parts", self._spread(_places(parts)), persistent=False)
        # The fragments of a mosaic show the same places in all its frames, so the first windows stand for all.
        fragments = [0 * steps[0], *(place * FRAGMENTS // len(place) for place in steps[1:])]
        self.register_buffer("fragments", self._spread(self.rolled(_places(fragments)))[:1], persistent=False)

    def _spread(self, places: torch.Tensor) -> torch.Tensor:
        """``[1, time, rows, columns, 3]`` → ``[windows in time, windows of a frame, tokens, 3]``."""
        return self.cut(places)[0].unflatten(0, (self.grid[0] // _WINDOW[0], -1)).float()

    @property
    def gate(self) -> torch.Tensor:
        """Rows plus columns between the fragments of a window's tokens, ``[1, windows of a frame, tokens, tokens]``."""
        return torch.cdist(self.fragments, self.fragments, p=1)

    @property
    def apart(self) -> torch.Tensor | None:
        """-100 between tokens that must not see each other, else 0, ``[windows in time, windows, tokens, tokens]``.

        None where nothing is shifted.
        """
        return -100.0 * (torch.cdist(self.parts, self.parts, p=1) > 0) if any(self.shift) else None

    def rolled(self, x: torch.Tensor) -> torch.Tensor:
        """``[inputs, time, rows, columns, width]`` shifted."""
        return x.roll([-one for one in self.shift], (1, 2, 3))

    def unrolled(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of `rolled`."""
        return x.roll(self.shift, (1, 2, 3))

    def cut(self, x: torch.Tensor) -> torch.Tensor:
        """``[inputs, time, rows, columns, width]`` → ``[inputs, windows, tokens, width]``."""
        for axis, window in zip((1, 3, 5), _WINDOW, strict=True):
            x = x.unflatten(axis, (-1, window))
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(1, 3)

    def joined(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of `cut`."""
        counts = [side // window for side, window in zip(self.grid, _WINDOW, strict=True)]
        x = x.unflatten(2, _WINDOW).unflatten(1, counts).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return x.flatten(5, 6).flatten(3, 4).flatten(1, 2)


def _places(sides: list[torch.Tensor]) -> torch.Tensor:
    """The coordinates of each token, ``[inputs, time, rows, columns, 3]``, of those of each side."""
    return torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1)[None]


class SwinBlock(nn.Module):
    """Attention within windows, then a perceptron, each after a layer norm and with a residual connection."""

    def __init__(self, width: int, heads: int, windows: Windows, *, fragments: bool) -> None:
        super().__init__()
        self.windows = windows
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads, fragments=fragments)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[inputs, time, rows, columns, width]`` → the same."""
        windows = self.windows
        y = self.attn(windows.cut(windows.rolled(self.norm1(x))), windows)
        x = x + windows.unrolled(windows.joined(y))
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))


class Attention(nn.Module):
    """Attention within windows, with biases by the tokens' places relative to each other."""

    index: torch.Tensor

    def __init__(self, width: int, heads: int, *, fragments: bool) -> None:
        super().__init__()
        self.heads = heads
        rows = math.prod(2 * side - 1 for side in _WINDOW)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, heads))
        self.fragment_position_bias_table = nn.Parameter(torch.zeros(rows, heads)) if fragments else None
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        places = _places([torch.arange(side) for side in _WINDOW]).flatten(0, 3)
        index = torch.zeros(1, dtype=torch.long)
        for axis, side in enumerate(_WINDOW):
            index = index * (2 * side - 1) + places[:, None, axis] - places[None, :, axis] + side - 1
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: torch.Tensor, windows: Windows) -> torch.Tensor:
        """``[inputs, windows, tokens, width]`` → the same."""
        bias = self._looked_up(self.relative_position_bias_table)
        if self.fragment_position_bias_table is not None:
            other = self._looked_up(self.fragment_position_bias_table)
            bias = other + windows.gate[:, :, None] * (bias - other)
        if (apart := windows.apart) is not None:
            bias = bias + apart[:, :, None]
        of_frame = x.shape[1] * _WINDOW[0] // windows.grid[0]
        # To [inputs, windows in time, windows and heads, tokens, width]: the bias is mostly the same at all times.
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(2, 3).unflatten(1, (-1, of_frame)).flatten(2, 3)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        bias = bias.expand(query.shape[1], of_frame, -1, -1, -1).flatten(1, 2)
        attended = torch.stack(  # of one input at a time: all have the same large bias
            [
                functional.scaled_dot_product_attention(*one, attn_mask=bias)
                for one in zip(query, key, value, strict=True)
            ]
        )
        x = attended.unflatten(2, (of_frame, -1)).flatten(1, 2).transpose(2, 3).flatten(3)
        return self.proj(x)

    def _looked_up(self, table: nn.Parameter) -> torch.Tensor:
        """A table's entry for each pair of tokens, ``[1, 1, heads, tokens, tokens]``."""
        return table.T.contiguous()[:, self.index][None, None]


class Merging(nn.Module):
    """Four neighbouring tokens of a frame become one, of twice their width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[inputs, time, rows, columns, width]`` → ``[inputs, time, rows / 2, columns / 2, 2 * width]``."""
        x = torch.cat([x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=-1)
        return self.reduction(self.norm(x))


class ConvNeXt(nn.Module):
    """``[inputs, 3, 32, 224, 224]`` → ``[inputs, width, 16, 7, 7]``: a ConvNeXt in which some blocks see time."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        first = nn.Sequential(nn.Conv3d(3, shape.widths[0], _PATCH, _PATCH), ChannelNorm(shape.widths[0]))
        pairs = zip(shape.widths[:-1], shape.widths[1:], strict=True)
        halving = (1, 2, 2)
        self.downsample_layers = nn.ModuleList(
            [first, *(nn.Sequential(ChannelNorm(one), nn.Conv3d(one, two, halving, halving)) for one, two in pairs)]
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*[ConvBlock(width, (1, 3, 1)[place % 3]) for place in range(count)])
            for width, count in zip(shape.widths, shape.blocks, strict=True)
        )
        self.norm = ChannelNorm(shape.widths[-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The normalised maps after the last stage."""
        for smaller, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(smaller(x))
        return self.norm(x)


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the second axis."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``[inputs, width, time, rows, columns]`` → the same."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class ConvBlock(nn.Module):
    """A convolution of each channel over `frames` frames, then a perceptron, with a residual connection."""

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv3d(width, width, (frames, 7, 7), padding=(frames // 2, 3, 3), groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[inputs, width, time, rows, columns]`` → the same."""
        y = self.norm(self.dwconv(x).movedim(1, -1))
        return x + (self.gamma * self.pwconv2(functional.gelu(self.pwconv1(y)))).movedim(-1, 1)
