"""Defines a small diffusion transformer for video or for audio.

After DiT (Peebles and Xie 2023) with the shared modulation of PixArt-α: one network computes the modulation of a
timestep, and each block adds a table of its own. Captions are read by cross-attention (as in Wan) or stand before the
audio tokens in the sequence (as in Flux). The GELU is the exact one: its tanh form is several times slower on a CPU.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from avbench.avfulldit.attention import attend
from avbench.avfulldit.pixels import Head, Stem, token_grid
from avbench.avfulldit.rope import Rotary, grid_positions, rotary_on
from avbench.avfulldit.tower import Condition, Opened, QKNorm, Text
from avbench.core import InputError

_LEAST_T = 0.05
"""Below this timestep, the velocity is computed from the clean prediction as if at this timestep."""


@dataclass(frozen=True)
class NativeConfig:
    """The settings of a `NativeTower`. Raises InputError on sizes that do not fit one another."""

    modality: Literal["video", "audio"]
    channels: int
    """Of a latent."""
    width: int
    heads: int
    layers: int
    text_width: int
    levels: tuple[int, ...] = ()
    """Widths of the convolutions between pixels and tokens, fine to coarse; none for audio."""
    text: Literal["cross", "sequence"] = "cross"
    qk_norm: Literal["width", "head"] = "width"
    predicts: Literal["clean", "velocity"] = "clean"
    """What the last layer predicts. A token with more numbers than the tower is wide needs ``clean``: the tower cannot
    carry the noise that a velocity contains."""

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width // self.heads % 2:
            msg = f"width {self.width} does not give {self.heads} heads of an even size"
            raise InputError(msg)
        object.__setattr__(self, "levels", tuple(self.levels))  # a list where it was read from JSON
        if bool(self.levels) != (self.modality == "video"):
            msg = f"a {self.modality} tower has {'levels' if self.modality == 'video' else 'no levels'}"
            raise InputError(msg)

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.width // self.heads

    @property
    def bands(self) -> tuple[int, ...]:
        """Complex pairs for time, height and width; audio uses only the first, so both share one time axis."""
        pairs = self.head_dim // 2
        return (pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)


class _Timed(NamedTuple):
    """Embedding of a timestep for the blocks ``[batch, 6, width]`` and for the last layer ``[batch, width]``."""

    blocks: Tensor
    time: Tensor


class NativeBlock(nn.Module):
    """Self-attention, cross-attention where captions are read by it, feed-forward; AdaLN before and gates after."""

    def __init__(self, config: NativeConfig) -> None:
        super().__init__()
        width = config.width
        self._config = config
        self.table = nn.Parameter(torch.randn(6, width) / width**0.5)
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        normed = width if config.qk_norm == "width" else config.head_dim
        self.norm_q, self.norm_k = nn.RMSNorm(normed, eps=1e-6), nn.RMSNorm(normed, eps=1e-6)
        if config.text == "cross":
            self.norm2 = nn.LayerNorm(width)
            self.text_q, self.text_out = nn.Linear(width, width), nn.Linear(width, width)
            self.text_k, self.text_v = nn.Linear(width, width), nn.Linear(width, width)
            self.norm_text_q, self.norm_text_k = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.norm3 = nn.LayerNorm(width, elementwise_affine=False)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def streams(self) -> tuple[QKNorm, ...]:
        """One stream."""
        return (QKNorm(self.norm_q, self.norm_k, self._config.qk_norm),)

    def open(self, hidden: Tensor, condition: Condition) -> Opened:
        """Compute queries, keys and values."""
        modulation = (condition.modulation.blocks + self.table).unsqueeze(2).unbind(1)
        x = self.norm1(hidden) * (1 + modulation[1]) + modulation[0]
        query, key, value = self.to_q(x), self.to_k(x), self.to_v(x)
        if self._config.qk_norm == "width":
            query, key = self.norm_q(query), self.norm_k(key)
        query, key, value = (part.unflatten(-1, (self._config.heads, -1)) for part in (query, key, value))
        if self._config.qk_norm == "head":
            query, key = self.norm_q(query), self.norm_k(key)
        return Opened((x,), query, key, value, modulation)

    def close(self, hidden: Tensor, attended: Tensor, beside: Tensor | None, opened: Opened, on: Condition) -> Tensor:
        """Apply the output projection, the captions and the feed-forward."""
        _, _, gate, shift, scale, gate_feed = opened.carry
        out = self.to_out(attended)
        hidden = hidden + gate * (out if beside is None else out + beside)
        if on.text is not None:
            hidden = hidden + self._read(self.norm2(hidden), on.text, on.text_mask)
        return hidden + gate_feed * self.feed_forward(self.norm3(hidden) * (1 + scale) + shift)

    def _read(self, x: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        query, key = self.norm_text_q(self.text_q(x)), self.norm_text_k(self.text_k(text))
        query, key, value = (part.unflatten(-1, (self._config.heads, -1)) for part in (query, key, self.text_v(text)))
        return self.text_out(attend(query, key, value, mask).flatten(2))


class NativeTower(nn.Module):
    """A tower for latents of video ``[batch, channels, time, height, width]`` or audio ``[batch, channels, time]``."""

    def __init__(self, config: NativeConfig) -> None:
        super().__init__()
        self.config = config
        self.width, self.heads, self.bands = config.width, config.heads, config.bands
        self._known_places: dict[tuple[torch.Size, torch.device], Tensor] = {}
        width = config.width
        self.embed_text = nn.Linear(config.text_width, width)
        self.embed_time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.modulate = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(NativeBlock(config) for _ in range(config.layers))
        self.last_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.last_norm = nn.LayerNorm(width, elementwise_affine=False)
        self._initialise()
        if config.levels:  # they initialise themselves
            self.stem: nn.Module = Stem(config.channels, config.levels, width)
            self.head: nn.Module = Head(config.channels, config.levels, width)
        else:
            self.stem, self.head = nn.Linear(config.channels, width), nn.Linear(width, config.channels)
            nn.init.zeros_(self.head.weight)

    def start(self, latents: Tensor, t: Tensor, text: Text) -> tuple[Tensor, Condition]:
        """Return the tokens of the latents, after those of the caption if the sequence holds them."""
        time = self.embed_time(_sinusoid(t))
        skips: tuple[Tensor, ...] = ()
        if self.config.levels:
            hidden, skips = self.stem(latents, time)
        else:
            hidden = self.stem(latents.transpose(1, 2))
        hidden = hidden + self._places(latents).to(hidden.dtype)
        words = self.embed_text(text.states)
        modulation = self.modulate(time).unflatten(-1, (6, self.width))
        if self.config.text == "cross":
            return hidden, Condition(_Timed(modulation, time), words, text.mask, None, skips=skips)
        mask = None
        if text.mask is not None:
            mask = functional.pad(text.mask, (0, hidden.shape[1]), value=True)
        return torch.cat([words, hidden], dim=1), Condition(_Timed(modulation, time), None, None, mask, words.shape[1])

    def finish(self, hidden: Tensor, condition: Condition, latents: Tensor, t: Tensor) -> Tensor:
        """The velocity, computed from what the last layer predicts."""
        shift, scale = (condition.modulation.time[:, None] + self.last_table).unsqueeze(2).unbind(1)
        out = self.last_norm(hidden[:, condition.prefix :]) * (1 + scale) + shift
        if self.config.levels:
            predicted = self.head(out, condition.skips, condition.modulation.time, latents)
        else:
            predicted = self.head(out).transpose(1, 2)
        predicted = predicted.float()
        if self.config.predicts == "velocity":
            return predicted
        return (latents - predicted) / t.clamp(min=_LEAST_T).view(-1, *[1] * (latents.ndim - 1))

    def positions(self, latents: Tensor) -> Tensor:
        """Latent indices of the tokens."""
        if self.config.modality == "audio":
            return torch.arange(latents.shape[-1], dtype=torch.float64)[:, None]
        time, height, width = latents.shape[2:]
        return grid_positions(time, *token_grid(self.config.levels, height, width))

    def turn(self, positions: Tensor, prefix: int) -> Rotary:
        """Phases; a caption's words all stand at position 0."""
        words = positions.new_zeros(prefix, positions.shape[1])
        return rotary_on(self.last_table.device, torch.cat([words, positions]), self.bands)

    def _places(self, latents: Tensor) -> Tensor:
        """Computed and copied to the device only once for each shape of latents."""
        key = (latents.shape[2:], latents.device)
        if key not in self._known_places:
            self._known_places[key] = _places(self.positions(latents), self.width).float().to(latents.device)
        return self._known_places[key]

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        # a block starts as the identity: its gates are zero
        nn.init.zeros_(self.modulate.weight)
        for block in self.blocks:
            assert isinstance(block, NativeBlock)
            with torch.no_grad():
                block.table.zero_()
            if self.config.text == "cross":
                nn.init.zeros_(block.text_out.weight)


def _places(positions: Tensor, width: int) -> Tensor:
    """Embedding of a token's absolute position, ``[tokens, width]``; RoPE alone encodes only distances between
    tokens.
    """
    axes = positions.shape[1]
    half = width // (2 * axes)
    speeds = 100.0 ** -(torch.arange(half, dtype=positions.dtype) / half)
    angle = (positions.cpu()[:, :, None] * speeds).flatten(1)
    places = torch.cat([angle.cos(), angle.sin()], dim=1)
    return functional.pad(places, (0, width - places.shape[1]))


def _sinusoid(t: Tensor) -> Tensor:
    """``[batch]`` in 0…1 → ``[batch, 256]``, on the usual scale of 1000 steps."""
    speeds = torch.exp(-math.log(10_000) * torch.arange(128, device=t.device) / 128)
    angle = 1000 * t[:, None] * speeds
    return torch.cat([angle.cos(), angle.sin()], dim=1)
