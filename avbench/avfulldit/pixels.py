"""Defines the convolutions between pixels and a video tower's tokens: an hourglass with skip connections.

A token covers one frame of 16×16 pixels. Convolutions overlap their neighbours, so bodies do not break at the borders
of tokens, and the skips carry fine detail past the transformer. Every frame is convolved alone; the transformer
relates frames. After "simple diffusion" (Hoogeboom, Heek and Salimans 2023, arXiv 2301.11093), with the clean frames as
the prediction, as in "Back to Basics" (Li and He 2025, arXiv 2511.13720).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from avbench.core import InputError

FINEST_PIXELS = 4
"""Height and width of the block of pixels that the finest level starts from."""


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside an identity, shifted and scaled by the timestep."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(time_width, 2 * width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """``[frames, width, height, width]`` and the timestep of every frame ``[frames, time_width]``."""
        shift, scale = self.modulate(time)[:, None, None, :].chunk(2, dim=-1)
        h = self.norm(x.permute(0, 2, 3, 1)) * (1 + scale) + shift
        h = functional.silu(self.first(functional.silu(h).permute(0, 3, 1, 2)))
        return x + self.second(h)


class Stem(nn.Module):
    """Pixels to tokens."""

    def __init__(self, channels: int, levels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels * FINEST_PIXELS**2, levels[0], 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(level, width) for level in levels)
        coarser = [*levels[1:], width]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in zip(levels, coarser, strict=True))

    def forward(self, latents: Tensor, time: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Latents ``[batch, channels, time, height, width]`` → tokens ``[batch, tokens, width]`` and the skips."""
        batch, _, frames = latents.shape[:3]
        x = functional.pixel_unshuffle(latents.transpose(1, 2).flatten(0, 1), FINEST_PIXELS)
        x = self.first(x.contiguous(memory_format=torch.channels_last))
        time = time.repeat_interleave(frames, 0)
        skips = []
        for block, down in zip(self.blocks, self.down, strict=True):
            x = block(x, time)
            skips.append(x)
            x = down(x)
        return x.unflatten(0, (batch, frames)).permute(0, 1, 3, 4, 2).flatten(1, 3), tuple(skips)


class Head(nn.Module):
    """Tokens and skips to pixels."""

    def __init__(self, channels: int, levels: tuple[int, ...], width: int) -> None:
        super().__init__()
        coarser = [*levels[1:], width]
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in zip(levels, coarser, strict=True))
        self.join = nn.ModuleList(nn.Conv2d(2 * level, level, 1) for level in levels)
        self.blocks = nn.ModuleList(ResidualBlock(level, width) for level in levels)
        self.norm = nn.LayerNorm(levels[0])
        self.last = nn.Conv2d(levels[0], channels * FINEST_PIXELS**2, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(self, tokens: Tensor, skips: tuple[Tensor, ...], time: Tensor, like: Tensor) -> Tensor:
        """Tokens ``[batch, tokens, width]`` → a tensor of the shape of the latents `like`."""
        batch, _, frames, height, width = like.shape
        side = FINEST_PIXELS * 2 ** len(self.up)
        x = tokens.reshape(batch * frames, height // side, width // side, -1).permute(0, 3, 1, 2)
        time = time.repeat_interleave(frames, 0)
        for up, join, block, skip in reversed(list(zip(self.up, self.join, self.blocks, skips, strict=True))):
            x = functional.pixel_shuffle(up(x), 2).contiguous(memory_format=torch.channels_last)
            x = block(join(torch.cat([x, skip], dim=1)), time)
        x = functional.silu(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        x = functional.pixel_shuffle(self.last(x), FINEST_PIXELS)
        return x.unflatten(0, (batch, frames)).transpose(1, 2)


def token_grid(levels: tuple[int, ...], height: int, width: int) -> tuple[int, int]:
    """Tokens of a frame, down and across. Raises InputError where a frame does not divide into them."""
    side = FINEST_PIXELS * 2 ** len(levels)
    if height % side or width % side:
        msg = f"frames of {width}×{height} pixels do not divide into tokens of {side}×{side}"
        raise InputError(msg)
    return height // side, width // side
