"""Defines what the joint model needs of a pretrained tower: blocks whose self-attention can be opened.

`Block.open` computes queries, keys and values; the caller computes attention; `Block.close` does the rest. So the same
code runs a single tower and two joined ones. Wan, Flux and our own blocks fit this interface.
"""

from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor, nn

from avbench.avfulldit.rope import Rotary


class Text(NamedTuple):
    """The output of a text encoder."""

    states: Tensor
    """``[batch, words, text_width]``."""
    mask: Tensor | None
    """``[batch, words]`` bool, False where a word is padding; None where every word counts."""


class QKNorm(NamedTuple):
    """How one stream of a block normalises its queries and keys, before RoPE."""

    query: nn.Module
    key: nn.Module
    over: Literal["width", "head"]
    """Over the whole width before it is split into heads (Wan), or over each head (Flux)."""


class Opened(NamedTuple):
    """A block, opened at its self-attention."""

    inputs: tuple[Tensor, ...]
    """The input of the projections, per stream ``[batch, tokens of the stream, width]``; streams follow one another in
    the sequence. A block whose text has weights of its own has two."""
    query: Tensor
    key: Tensor
    value: Tensor
    """``[batch, tokens, heads, head_dim]``; queries and keys normalised, not turned yet."""
    carry: Any
    """Values that `close` needs."""


class Condition(NamedTuple):
    """Values that are the same for all blocks."""

    modulation: Any
    """Modulation by the timestep; each tower has its own form."""
    text: Tensor | None
    """Caption states for cross-attention; None where the text stands in the sequence."""
    text_mask: Tensor | None
    """``[batch, words]`` bool for cross-attention."""
    key_mask: Tensor | None
    """``[batch, tokens]`` bool: which of the sequence may be attended to; None for all."""
    prefix: int = 0
    """How many text tokens stand before the latent tokens in the sequence."""
    skips: tuple[Tensor, ...] = ()
    """What `start` keeps of the latents for `finish`: fine detail that goes past the blocks."""


class Block(Protocol):
    """One transformer block."""

    def streams(self) -> tuple[QKNorm, ...]:
        """The norms of each stream, in the order of `Opened.inputs`."""
        ...

    def open(self, hidden: Tensor, condition: Condition) -> Opened:
        """Compute queries, keys and values."""
        ...

    def close(self, hidden: Tensor, attended: Tensor, beside: Tensor | None, opened: Opened, on: Condition) -> Tensor:
        """Compute the rest of the block.

        `attended` ``[batch, tokens, width]`` goes through the block's own output projection; `beside`, of the same
        shape or None, is added to what comes out of it, before the gate.
        """
        ...


class Tower(Protocol):
    """A diffusion transformer of one modality."""

    width: int
    heads: int
    bands: tuple[int, ...]
    """Complex pairs of each axis of its RoPE."""
    blocks: nn.ModuleList

    def start(self, latents: Tensor, t: Tensor, text: Text) -> tuple[Tensor, Condition]:
        """Latents, timesteps ``[batch]`` in 0…1 and captions → the sequence ``[batch, tokens, width]``."""
        ...

    def finish(self, hidden: Tensor, condition: Condition, latents: Tensor, t: Tensor) -> Tensor:
        """The sequence → velocity, in the shape of `latents`."""
        ...

    def positions(self, latents: Tensor) -> Tensor:
        """Latent indices of the latent tokens ``[tokens, axes]``: time first."""
        ...

    def turn(self, positions: Tensor, prefix: int) -> Rotary:
        """Phases of the whole sequence in the tower's own layout; `prefix` text tokens stand at position 0."""
        ...
