"""Adapts TangoFlux as an audio tower: a `FluxTransformer2DModel` of diffusers whose self-attention is opened.

Latents ``[batch, channels, time]`` are its tokens; text stands before them in the sequence. Double blocks have weights
of their own for text and audio (two streams), single blocks one set for both, and an output projection that is fused
with the feed-forward's. The walk agrees with diffusers' own forward to 1e-5 (tested on small models with random
weights).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from avbench.avfulldit.rope import Rotary, rotary
from avbench.avfulldit.tower import Condition, Opened, QKNorm, Text
from avbench.core import InputError


class FluxDoubleBlock(nn.Module):
    """A double-stream block: text and audio attend together, each with its own weights."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self._held: tuple[Any] = (block,)  # the transformer owns the weights

    def streams(self) -> tuple[QKNorm, ...]:
        """Text, then audio."""
        attention = self._held[0].attn
        return (
            QKNorm(attention.norm_added_q, attention.norm_added_k, "head"),
            QKNorm(attention.norm_q, attention.norm_k, "head"),
        )

    def open(self, hidden: Tensor, condition: Condition) -> Opened:
        """Compute queries, keys and values of [text; audio]."""
        (block,) = self._held
        attention, prefix = block.attn, condition.prefix
        audio, *of_audio = block.norm1(hidden[:, prefix:], emb=condition.modulation)
        text, *of_text = block.norm1_context(hidden[:, :prefix], emb=condition.modulation)
        both = (
            (attention.add_q_proj(text), attention.to_q(audio)),
            (attention.add_k_proj(text), attention.to_k(audio)),
            (attention.add_v_proj(text), attention.to_v(audio)),
        )
        query, key, value = ([part.unflatten(-1, (attention.heads, -1)) for part in pair] for pair in both)
        query = [attention.norm_added_q(query[0]), attention.norm_q(query[1])]
        key = [attention.norm_added_k(key[0]), attention.norm_k(key[1])]
        query, key, value = (torch.cat(pair, dim=1) for pair in (query, key, value))
        return Opened((text, audio), query, key, value, (of_text, of_audio))

    def close(self, hidden: Tensor, attended: Tensor, beside: Tensor | None, opened: Opened, on: Condition) -> Tensor:
        """Output projections and feed-forwards of both streams."""
        (block,) = self._held
        prefix, extra = on.prefix, 0 if beside is None else beside
        text = block.attn.to_add_out(attended[:, :prefix])
        audio = block.attn.to_out[0](attended[:, prefix:])
        out = torch.cat([text, audio], dim=1) + extra
        parts = [
            self._feed(hidden[:, :prefix], out[:, :prefix], opened.carry[0], block.norm2_context, block.ff_context),
            self._feed(hidden[:, prefix:], out[:, prefix:], opened.carry[1], block.norm2, block.ff),
        ]
        return torch.cat(parts, dim=1)

    @staticmethod
    def _feed(hidden: Tensor, out: Tensor, modulation: list[Tensor], norm: nn.Module, feed: nn.Module) -> Tensor:
        gate, shift, scale, gate_feed = (part[:, None] for part in modulation)
        hidden = hidden + gate * out
        return hidden + gate_feed * feed(norm(hidden) * (1 + scale) + shift)


class FluxSingleBlock(nn.Module):
    """A single-stream block, which computes attention and feed-forward side by side."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self._held: tuple[Any] = (block,)  # the transformer owns the weights

    def streams(self) -> tuple[QKNorm, ...]:
        """One stream for text and audio."""
        attention = self._held[0].attn
        return (QKNorm(attention.norm_q, attention.norm_k, "head"),)

    def open(self, hidden: Tensor, condition: Condition) -> Opened:
        """Compute queries, keys and values, and the feed-forward's inner layer."""
        (block,) = self._held
        attention = block.attn
        x, gate = block.norm(hidden, emb=condition.modulation)
        parts = (
            layer(x).unflatten(-1, (attention.heads, -1)) for layer in (attention.to_q, attention.to_k, attention.to_v)
        )
        query, key, value = parts
        carry = gate[:, None], block.act_mlp(block.proj_mlp(x))
        return Opened((x,), attention.norm_q(query), attention.norm_k(key), value, carry)

    def close(self, hidden: Tensor, attended: Tensor, beside: Tensor | None, opened: Opened, on: Condition) -> Tensor:
        """The fused output projection."""
        gate, fed = opened.carry
        out = self._held[0].proj_out(torch.cat([attended, fed], dim=2))
        return hidden + gate * (out if beside is None else out + beside)


class Duration(nn.Module):
    """TangoFlux's token for the clip's length, ``[1, 1, width]``; its weights have TangoFlux's names."""

    def __init__(self, width: int, longest: float, seconds: float) -> None:
        super().__init__()
        self.time_positional_embedding = nn.Sequential(_Waves(256), nn.Linear(257, width))
        self._share = min(seconds, longest) / longest

    def forward(self) -> Tensor:
        """Return the token for a clip of this length."""
        share = next(self.parameters()).new_tensor([self._share])
        return self.time_positional_embedding(share)[None]


class _Waves(nn.Module):
    """A number and sines and cosines of its multiples."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(width // 2))

    def forward(self, x: Tensor) -> Tensor:
        angle = x[:, None] * self.weights * 2 * math.pi
        return torch.cat([x[:, None], angle.sin(), angle.cos()], dim=1)


class FluxAudioTower(nn.Module):
    """A Flux transformer over audio latents.

    `pool` computes Flux's pooled text from the mean of the words; TangoFlux's is ``fc``, a linear layer and a ReLU.
    `duration` adds a token, which is not pooled. As in TangoFlux, the padding of a caption is attended to,
    and not pooled.
    """

    def __init__(self, transformer: Any, pool: nn.Module | None = None, duration: Duration | None = None) -> None:
        """Raises InputError for a guidance-distilled transformer."""
        super().__init__()
        config = transformer.config
        if config.guidance_embeds:
            msg = "this Flux transformer is distilled for guidance (guidance_embeds is true): it cannot be joined"
            raise InputError(msg)
        self.transformer = transformer
        if pool is None:
            pool = nn.Sequential(nn.Linear(config.joint_attention_dim, config.pooled_projection_dim), nn.ReLU())
        self.pool, self.duration = pool, duration
        self.heads = config.num_attention_heads
        self.width = self.heads * config.attention_head_dim
        self.bands = tuple(size // 2 for size in config.axes_dims_rope)
        double = [FluxDoubleBlock(block) for block in transformer.transformer_blocks]
        single = [FluxSingleBlock(block) for block in transformer.single_transformer_blocks]
        self.blocks = nn.ModuleList([*double, *single])

    def start(self, latents: Tensor, t: Tensor, text: Text) -> tuple[Tensor, Condition]:
        """[text; audio], and the modulation of the timestep and the pooled text."""
        model, dtype = self.transformer, self.transformer.x_embedder.weight.dtype
        words = text.states.to(dtype)
        mask = torch.ones_like(words[..., 0], dtype=torch.bool) if text.mask is None else text.mask
        weight = mask[..., None].to(words)
        pooled = self.pool((words * weight).sum(1) / weight.sum(1).clamp(min=1))
        if self.duration is not None:
            words = torch.cat([words, self.duration().expand(len(words), -1, -1)], dim=1)
        audio = model.x_embedder(latents.transpose(1, 2).to(dtype))
        hidden = torch.cat([model.context_embedder(words), audio], dim=1)
        return hidden, Condition(model.time_text_embed(1000 * t, pooled), None, None, None, words.shape[1])

    def finish(self, hidden: Tensor, condition: Condition, latents: Tensor, t: Tensor) -> Tensor:
        """The velocity."""
        model = self.transformer
        out = model.proj_out(model.norm_out(hidden[:, condition.prefix :], condition.modulation))
        return out.transpose(1, 2).to(latents)

    def positions(self, latents: Tensor) -> Tensor:
        """Indices of the latents in time."""
        return torch.arange(latents.shape[-1], dtype=torch.float64)[:, None]

    def turn(self, positions: Tensor, prefix: int) -> Rotary:
        """Phases in TangoFlux's layout: the time index on all three axes; text stands at 0."""
        words = positions.new_zeros(prefix, 1)
        return rotary(torch.cat([words, positions]).expand(-1, len(self.bands)), self.bands)
