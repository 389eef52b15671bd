"""Adapts Wan as a video tower: a `WanTransformer3DModel` of diffusers whose self-attention is opened.

Serves Wan 2.1 and 2.2, text to video. Latents ``[batch, channels, time, height, width]`` are normalised as Wan's
pipeline normalises them; t runs from 0 to 1 and is Wan's timestep ÷ 1000. The walk through these blocks agrees with
diffusers' own forward to 1e-5 (tested on small models with random weights).
"""

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from avbench.avfulldit.pretrained import load_transformer
from avbench.avfulldit.rope import Rotary, grid_positions, rotary
from avbench.avfulldit.tower import Condition, Opened, QKNorm, Text
from avbench.core import InputError


class _Timed(NamedTuple):
    """Modulation: of the blocks ``[batch, 1 or tokens, 6, width]``, of the last layer the same without the 6."""

    blocks: Tensor
    last: Tensor


class WanBlock(nn.Module):
    """A block of Wan. It holds the block without owning its weights: the transformer does."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self._held: tuple[Any] = (block,)

    def streams(self) -> tuple[QKNorm, ...]:
        """One stream, normalised over the width."""
        attention = self._held[0].attn1
        return (QKNorm(attention.norm_q, attention.norm_k, "width"),)

    def open(self, hidden: Tensor, condition: Condition) -> Opened:
        """Run the block up to its queries, keys and values."""
        (block,) = self._held
        modulation = (block.scale_shift_table[:, None] + condition.modulation.blocks.float()).unbind(2)
        x = (block.norm1(hidden.float()) * (1 + modulation[1]) + modulation[0]).type_as(hidden)
        attention = block.attn1
        projected = (
            attention.norm_q(attention.to_q(x)),
            attention.norm_k(attention.to_k(x)),
            attention.to_v(x),
        )
        query, key, value = (part.unflatten(-1, (attention.heads, -1)) for part in projected)
        return Opened((x,), query, key, value, modulation)

    def close(self, hidden: Tensor, attended: Tensor, beside: Tensor | None, opened: Opened, on: Condition) -> Tensor:
        """Output projection, captions by cross-attention, feed-forward."""
        (block,) = self._held
        _, _, gate, shift, scale, gate_feed = opened.carry
        out = block.attn1.to_out[0](attended)
        hidden = (hidden.float() + (out if beside is None else out + beside) * gate).type_as(hidden)
        hidden = hidden + block.attn2(block.norm2(hidden.float()).type_as(hidden), on.text, None, None)
        x = (block.norm3(hidden.float()) * (1 + scale) + shift).type_as(hidden)
        return (hidden.float() + block.ffn(x).float() * gate_feed).type_as(hidden)


class WanTower(nn.Module):
    """A Wan transformer as a tower.

    `per_token` gives every token a timestep of its own, as Wan 2.2 TI2V 5B is run; for text to video they are equal.
    """

    def __init__(self, transformer: Any, *, per_token: bool = False) -> None:
        """Raises InputError for an image-to-video transformer."""
        super().__init__()
        config = transformer.config
        for name in ("image_dim", "added_kv_proj_dim"):
            if getattr(config, name, None) is not None:
                msg = f"this Wan transformer reads images ({name} is {getattr(config, name)}): only T2V can join"
                raise InputError(msg)
        if config.in_channels != (config.out_channels or config.in_channels):  # Wan 2.2 I2V A14B names no image field
            msg = (
                f"this Wan transformer reads more than latents (in_channels is {config.in_channels}, out_channels "
                f"{config.out_channels}): only T2V can join"
            )
            raise InputError(msg)
        self.transformer, self._per_token = transformer, per_token
        self.heads = config.num_attention_heads
        self.width = self.heads * config.attention_head_dim
        pairs = config.attention_head_dim // 2
        self.bands = (pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)
        self.blocks = nn.ModuleList(WanBlock(block) for block in transformer.blocks)

    @classmethod
    def load(cls, folder: Path, *, per_token: bool = False, **settings: Any) -> "WanTower":
        """Read a transformer folder of a diffusers pipeline; `settings` go to diffusers (``dtype=…``)."""
        return cls(load_transformer("WanTransformer3DModel", folder, **settings), per_token=per_token)

    def start(self, latents: Tensor, t: Tensor, text: Text) -> tuple[Tensor, Condition]:
        """Return the tokens of the latents. Padding words are zeroed, not masked, because Wan was trained in this
        way.
        """
        patch = self.transformer.config.patch_size
        if any(n % size for n, size in zip(latents.shape[2:], patch, strict=True)):
            sizes, patches = ("×".join(map(str, part)) for part in (latents.shape[2:], patch))
            msg = f"latents of {sizes} do not part into patches of {patches}"
            raise InputError(msg)
        embed = self.transformer.patch_embedding
        words = text.states.to(embed.weight.dtype)
        if text.mask is not None:
            words = words * text.mask[..., None].to(words)
        hidden = embed(latents.to(embed.weight.dtype)).flatten(2).transpose(1, 2).contiguous()
        tokens = hidden.shape[1] if self._per_token else None
        timestep = 1000 * t if tokens is None else (1000 * t).repeat_interleave(tokens)
        time, blocks, words, _ = self.transformer.condition_embedder(timestep, words, None, timestep_seq_len=tokens)
        if tokens is None:
            time, blocks = time[:, None], blocks[:, None]
        return hidden, Condition(_Timed(blocks.unflatten(2, (6, -1)), time), words, None, None)

    def finish(self, hidden: Tensor, condition: Condition, latents: Tensor, t: Tensor) -> Tensor:
        """The velocity."""
        model, time = self.transformer, condition.modulation.last
        shift, scale = (model.scale_shift_table[:, None] + time[:, :, None]).unbind(2)
        out = model.proj_out((model.norm_out(hidden.float()) * (1 + scale) + shift).type_as(hidden))
        sizes = [n // patch for n, patch in zip(latents.shape[2:], model.config.patch_size, strict=True)]
        parts = out.reshape(len(out), *sizes, *model.config.patch_size, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return parts.flatten(6, 7).flatten(4, 5).flatten(2, 3).to(latents)

    def positions(self, latents: Tensor) -> Tensor:
        """Latent indices of the tokens, in patches."""
        patch = self.transformer.config.patch_size
        return grid_positions(*(n // size for n, size in zip(latents.shape[2:], patch, strict=True)))

    def turn(self, positions: Tensor, prefix: int) -> Rotary:
        """Phases in Wan's layout; its sequence holds no text."""
        return rotary(positions, self.bands)
