"""Turns pixels into the latents of the toy scale without compression, so no codec limits a clip's quality.

Frames are ``[batch, time, height, width, 3]`` uint8 RGB; latents ``[batch, 3, time, height, width]`` float32, shifted
and scaled to about zero mean and unit variance over the toy world's clips.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PixelCodecConfig:
    """The settings of a `PixelCodec`."""

    mean: float = 0.59
    """Mean of the toy world's pixels, where black is −1 and white is 1."""
    std: float = 0.3
    """Standard deviation of the same."""
    frames: int = 1
    """Frames that one latent covers."""


class PixelCodec(nn.Module):
    """Encoder and decoder without weights."""

    def __init__(self, config: PixelCodecConfig) -> None:
        super().__init__()
        self.config = config

    def shape(self, frames: int, height: int, width: int) -> tuple[int, ...]:
        """Shape of a clip's latents, without the batch."""
        return 3, frames, height, width

    def encode(self, frames: Tensor) -> Tensor:
        """uint8 frames → latents."""
        return (frames.movedim(-1, 1).float() / 127.5 - 1 - self.config.mean) / self.config.std

    def decode(self, latents: Tensor) -> Tensor:
        """Latents → uint8 frames."""
        pixels = latents * self.config.std + self.config.mean
        return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).movedim(1, -1).contiguous()
