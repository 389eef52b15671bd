"""How do pixels become the latents that a video tower works on? A linear projection, and a small network beside it.

One latent covers 4 frames of 8×8 pixels and holds `channels` numbers: at first the largest principal components of
such blocks, which `fit` finds in closed form. Training then lets convolutions beside the projection, at the coarse
grid where they are cheap, add what it cannot: they see the neighbouring blocks, so that bodies do not break at their
borders. Latents are blurred by a little noise in training, so that a generator's small errors decode to small errors.

Frames are ``[batch, time, height, width, 3]`` uint8; latents ``[batch, channels, time / 4, height / 8, width / 8]``,
about zero mean and unit variance once `set_statistics` has run.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from avbench.core import InputError


@dataclass(frozen=True)
class VideoCodecConfig:
    """The form of a `VideoCodec`."""

    channels: int = 32
    width: int = 128
    fine_width: int = 64
    encoder_blocks: int = 1
    decoder_blocks: int = 3
    frames: int = 4
    """Frames that one latent covers."""
    pixels: int = 8
    """Height and width that one latent covers."""
    noise: float = 0.1
    """Standard deviation of the noise on latents in training."""


class _Residual(nn.Module):
    """Two convolutions beside an identity; the second starts at zero."""

    def __init__(self, width: int, kernel: tuple[int, int, int] = (3, 3, 3)) -> None:
        super().__init__()
        padding = tuple(size // 2 for size in kernel)
        self.first = nn.Conv3d(width, width, kernel, padding=padding)
        self.second = _zeroed(nn.Conv3d(width, width, kernel, padding=padding))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(functional.silu(self.first(functional.silu(x))))


def _zeroed(layer: nn.Conv3d) -> nn.Conv3d:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _to_blocks(x: Tensor, frames: int, pixels: int) -> Tensor:
    """``[b, c, t, h, w]`` → ``[b, c·frames·pixels², t/frames, h/pixels, w/pixels]``."""
    b, c, t, h, w = x.shape
    x = x.view(b, c, t // frames, frames, h // pixels, pixels, w // pixels, pixels)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, -1, t // frames, h // pixels, w // pixels)


def _from_blocks(x: Tensor, frames: int, pixels: int) -> Tensor:
    """The inverse of `_to_blocks`."""
    b, _, t, h, w = x.shape
    x = x.view(b, -1, frames, pixels, pixels, t, h, w)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, -1, t * frames, h * pixels, w * pixels)


class VideoCodec(nn.Module):
    """Encoder and decoder. The finer stage has half the frames and quarter the pixels of a latent's block."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: VideoCodecConfig) -> None:
        super().__init__()
        self.config = config
        width, fine = config.width, config.fine_width
        self._fine = (config.frames // 2, config.pixels // 2)
        block = 3 * config.frames * config.pixels**2
        self.project = nn.Conv3d(block, config.channels, 1)
        self.unproject = nn.Conv3d(config.channels, block, 1)
        self.stem = nn.Conv3d(block, width, 1)
        self.encoder = nn.Sequential(*(_Residual(width) for _ in range(config.encoder_blocks)))
        self.to_latent = _zeroed(nn.Conv3d(width, config.channels, 1))
        self.from_latent = nn.Conv3d(config.channels, width, 3, padding=1)
        self.decoder = nn.Sequential(*(_Residual(width) for _ in range(config.decoder_blocks)))
        self.to_fine = nn.Conv3d(width, fine * 8, 1)
        self.refine = _Residual(fine, (1, 3, 3))
        self.to_pixels = _zeroed(nn.Conv3d(fine, block // 8, (1, 3, 3), padding=(0, 1, 1)))
        self.register_buffer("mean", torch.zeros(config.channels))
        self.register_buffer("std", torch.ones(config.channels))

    def shape(self, frames: int, height: int, width: int) -> tuple[int, ...]:
        """Of a clip's latents. Raises InputError where the blocks do not fit."""
        size = (self.config.frames, self.config.pixels, self.config.pixels)
        for length, block, what in zip((frames, height, width), size, ("frames", "height", "width"), strict=True):
            if length % block:
                msg = f"this video codec needs {what} in multiples of {block}, got {length}"
                raise InputError(msg)
        return self.config.channels, frames // size[0], height // size[1], width // size[2]

    def encode(self, frames: Tensor) -> Tensor:
        """uint8 frames → normalised latents."""
        self.shape(*frames.shape[1:4])
        return (self._encode(frames) - self._shaped(self.mean)) / self._shaped(self.std)

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents → uint8 frames."""
        pixels = self._decode(latents * self._shaped(self.std) + self._shaped(self.mean))
        return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()

    def loss(self, frames: Tensor, noise: Tensor) -> Tensor:
        """Error of the reconstruction, pixels in [−1, 1]; `noise` is standard normal, latent-shaped.

        Absolute and squared error, and a small weight on the latents' size, without which they would outgrow the noise.
        """
        latents = self._encode(frames)
        error = self._decode(latents + self.config.noise * noise) - _scaled(frames)
        return error.abs().mean() + error.square().mean() + 1e-3 * latents.square().mean()

    @torch.no_grad()
    def fit(self, frames: Tensor) -> None:
        """Set the projection to the principal components of the frames' blocks, each of unit variance."""
        blocks = _to_blocks(_scaled(frames), self.config.frames, self.config.pixels).transpose(0, 1).flatten(1).double()
        mean = blocks.mean(1)
        values, vectors = torch.linalg.eigh(torch.cov(blocks))
        values, vectors = values.flip(0)[: self.config.channels], vectors.flip(1)[:, : self.config.channels]
        # an eigenvector's sign is free: its largest entry is made positive, so that machines agree
        vectors = vectors * torch.sign(vectors.gather(0, vectors.abs().argmax(0, keepdim=True)))
        down, up = (vectors / values.sqrt()).T, vectors * values.sqrt()
        self.project.weight.copy_(down[:, :, None, None, None])
        self.project.bias.copy_(-down @ mean)
        self.unproject.weight.copy_(up[:, :, None, None, None])
        self.unproject.bias.copy_(mean)

    @torch.no_grad()
    def set_statistics(self, frames: Tensor) -> None:
        """Measure the latents' mean and standard deviation, channel by channel."""
        latents = self._encode(frames).transpose(0, 1).flatten(1)
        self.mean.copy_(latents.mean(1))
        self.std.copy_(latents.std(1))

    def _encode(self, frames: Tensor) -> Tensor:
        blocks = _dense(_to_blocks(_scaled(frames), self.config.frames, self.config.pixels))
        return self.project(blocks) + self.to_latent(functional.silu(self.encoder(self.stem(blocks))))

    def _decode(self, latents: Tensor) -> Tensor:
        latents = _dense(latents)
        straight = _from_blocks(self.unproject(latents), self.config.frames, self.config.pixels)
        fine = _from_blocks(self.to_fine(self.decoder(self.from_latent(latents))), 2, 2)
        return straight + _from_blocks(self.to_pixels(functional.silu(self.refine(_dense(fine)))), *self._fine)

    def _shaped(self, statistics: Tensor) -> Tensor:
        return statistics.view(1, -1, 1, 1, 1)


def _scaled(frames: Tensor) -> Tensor:
    return frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def _dense(x: Tensor) -> Tensor:
    """Channels last in memory: convolutions are faster so on a CPU."""
    return x.contiguous(memory_format=torch.channels_last_3d)
