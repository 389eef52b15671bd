"""Computes VideoMAE V2 features of a clip as cd-fvd does; the network was trained to tell actions by their motion.

ViT-g/14 (Wang et al., 2023), fine-tuned on Something-Something V2, whose actions cannot be told from a single frame. Ge
et al. (2024) found that a Fréchet distance of its features is less biased towards appearance than FVD. The features are
the normalised mean over all tokens, 1408 numbers. The user provides the weights. The network agrees with cd-fvd's own
class to 1e-6 on random weights; no number computed with the real weights was checked.

Layout: [1, channel, time, height, width] float32 in 0...1, without ImageNet's mean and deviation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from avbench.core import Clip, Notes, Protocol, noted
from avbench.features.limits import require_frames
from avbench.features.networks import exact, loaded
from avbench.storage.weights import UserProvidedProtocol


@dataclass(frozen=True)
class VideoMAEProtocol(Protocol):
    """The settings that decide a clip's features, besides the clip."""

    name: str = "videomae-g-ssv2"
    version: int = 1
    frames: int = 16
    frame_choice: str = "first"
    fps: str = "native"
    size: int = 224
    resize: str = "bilinear"
    aspect: str = "stretched"
    antialias: bool = False
    value_range: str = "0...1"
    output: str = "normed token mean"
    weights: str = "videomae-g-ssv2"
    weights_sha256: str = ""
    precision: str = "float32"
    notes: Notes = noted(output="The layer norm of the mean over tokens, before the classifier.")


@dataclass(frozen=True)
class Shape:
    """The shape of the network; the defaults are those of ViT-g/14."""

    width: int = 1408
    depth: int = 40
    heads: int = 16
    hidden: int = 6144
    patch: int = 14
    tubelet: int = 2


class VideoMAE:
    """The feature ``videomae-g-ssv2``. The constructor raises InputError if the weights are missing or do not fit."""

    protocol = UserProvidedProtocol(VideoMAEProtocol())
    shape = Shape()
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        network = Network(self.shape, self.protocol.frames, self.protocol.size)
        # The classifier's head is not needed, and the position table is computed.
        loaded(network, VideoMAEProtocol.weights, "the VideoMAE checkpoint", ("head.",))
        self._network = network.to(self._device)

    @exact()
    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """``embedding`` of the clip's first 16 frames. Raises NotMeasurable if it has fewer."""
        asked, side = self.protocol.frames, self.protocol.size
        require_frames(clip.frames, asked, "VideoMAE takes")
        x = torch.from_numpy(np.array(clip.frames[:asked])).to(self._device).permute(3, 0, 1, 2).float() / 255
        x = functional.interpolate(x, (side, side), mode="bilinear", align_corners=False)
        return {"embedding": self._network(x[None])[0].float().cpu().numpy()}


class Network(nn.Module):
    """``[1, 3, frames, side, side]`` → ``[1, width]``; names are those of the published checkpoint."""

    def __init__(self, shape: Shape, frames: int, side: int) -> None:
        super().__init__()
        kernel = (shape.tubelet, shape.patch, shape.patch)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, shape.width, kernel, stride=kernel)})
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.fc_norm = nn.LayerNorm(shape.width, eps=1e-6)
        tokens = frames // shape.tubelet * (side // shape.patch) ** 2
        self.register_buffer("positions", sinusoids(tokens, shape.width), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of one clip."""
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.fc_norm(x.mean(dim=1))


class Block(nn.Module):
    """A transformer block: attention, then a perceptron, each after a layer norm and with a residual connection."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(shape.width, eps=1e-6) for _ in range(2))
        self.attn = Attention(shape)
        fc1, fc2 = nn.Linear(shape.width, shape.hidden), nn.Linear(shape.hidden, shape.width)
        self.mlp = nn.ModuleDict({"fc1": fc1, "fc2": fc2})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[1, tokens, width]`` → the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))


class Attention(nn.Module):
    """Self-attention in which queries and values have a bias and keys have none."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(shape.width)) for _ in range(2))
        self.proj = nn.Linear(shape.width, shape.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[1, tokens, width]`` → the same."""
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = functional.linear(x, self.qkv.weight, bias).unflatten(2, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        return self.proj(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def sinusoids(tokens: int, width: int) -> torch.Tensor:
    """``[1, tokens, width]``: sines at even and cosines at odd indices, with wavelengths from 2π to 20,000π."""
    angles = np.arange(tokens)[:, None] / 10000 ** (2 * (np.arange(width) // 2) / width)
    table = np.where(np.arange(width) % 2 == 0, np.sin(angles), np.cos(angles))
    return torch.from_numpy(table[None]).float()
