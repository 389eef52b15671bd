"""Computes AVFull-Attention: one self-attention over the tokens of both towers, at the video's width.

Audio is widened to the video's heads: its pretrained query, key and value columns keep the first heads, new columns
make the others, and new rows of the output projection bring those back. Nothing else is new. Source: arXiv 2512.02457,
section "AVFull-Attention"; what it leaves open (initialisation, qk-norm of the new heads) is a setting or noted here.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from avbench.avfulldit.tower import Opened, QKNorm
from avbench.core import InputError

Initialisation = Literal["towers", "zero", "random"]
"""Initialisations of the new weights. ``towers``: output rows are zero, so audio's new heads have no effect at first;
with `link` 0 and ``vanilla`` positions the joined model is exactly the two towers. ``zero``: the query and key columns
are zero as well, but not the value columns. ``random``: all random."""


class _Stream(nn.Module):
    """The new weights of one stream of an audio block."""

    def __init__(self, norm: QKNorm, width: int, extra: int, init: Initialisation) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, extra, bias=False) for _ in range(3))
        self.out = nn.Linear(extra, width, bias=False)
        self._per_head = norm.over == "head"
        if not self._per_head:  # a norm over the whole width cannot serve new columns: they get one of their own
            self.norm_query, self.norm_key = nn.RMSNorm(extra, eps=1e-6), nn.RMSNorm(extra, eps=1e-6)
        for layer in (self.query, self.key, self.value):
            nn.init.normal_(layer.weight, std=0.02)
        nn.init.normal_(self.out.weight, std=0.02)
        if init in ("towers", "zero"):
            nn.init.zeros_(self.out.weight)
        if init == "zero":
            nn.init.zeros_(self.query.weight)
            nn.init.zeros_(self.key.weight)

    def project(self, x: Tensor, norm: QKNorm, head_dim: int) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self.query(x), self.key(x), self.value(x)
        if not self._per_head:
            query, key = self.norm_query(query), self.norm_key(key)
        query, key, value = (part.unflatten(-1, (-1, head_dim)) for part in (query, key, value))
        if self._per_head:  # a norm over one head fits every head, so the pretrained one serves the new heads
            query, key = norm.query(query), norm.key(key)
        return query, key, value


class Widening(nn.Module):
    """The new weights of one joint layer: from the audio's width to the video's, and back."""

    def __init__(
        self, norms: tuple[QKNorm, ...], audio_width: int, video_width: int, head_dim: int, init: Initialisation
    ) -> None:
        super().__init__()
        self._norms = (norms,)  # in a tuple of its own, so that the audio block's modules are not ours, too
        self._head_dim = head_dim
        extra = video_width - audio_width
        self.streams = nn.ModuleList(_Stream(norm, audio_width, extra, init) for norm in norms if extra)

    def widen(self, opened: Opened) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values with all of the video's heads."""
        if not len(self.streams):
            return opened.query, opened.key, opened.value
        new = [
            stream.project(x, norm, self._head_dim)  # pyright: ignore[reportCallIssue]  # a ModuleList has no item type
            for stream, norm, x in zip(self.streams, self._norms[0], opened.inputs, strict=True)
        ]
        own = (opened.query, opened.key, opened.value)
        query, key, value = (
            torch.cat([mine, torch.cat(parts, dim=1)], dim=2) for mine, *parts in zip(own, *new, strict=True)
        )
        return query, key, value

    def narrow(self, attended: Tensor, heads: int, opened: Opened) -> tuple[Tensor, Tensor | None]:
        """Split the result ``[batch, tokens, heads, head_dim]``: own heads, and the output of the new rows for the
        others.
        """
        own = attended[:, :, :heads].flatten(2)
        if not len(self.streams):
            return own, None
        parts = attended[:, :, heads:].flatten(2).split([x.shape[1] for x in opened.inputs], dim=1)
        out = [stream.out(part) for stream, part in zip(self.streams, parts, strict=True)]  # pyright: ignore[reportCallIssue]
        return own, torch.cat(out, dim=1)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention over ``[batch, tokens, heads, head_dim]``.

    False in a mask ``[batch, keys]`` hides a key; a mask ``[batch or 1, 1, tokens, keys]`` is added to the logits.
    """
    if mask is not None and mask.ndim == 2:
        mask = mask[:, None, None, :]
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)


def attend_jointly(
    video: tuple[Tensor, Tensor, Tensor],
    audio: tuple[Tensor, Tensor, Tensor],
    video_mask: Tensor | None,
    audio_mask: Tensor | None,
    link: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """One softmax over [video; audio].

    `link` 1 is the plain joint attention. Below it every weight across modalities is multiplied by `link` before the
    softmax is normalised, down to 0, where each modality attends to itself alone. A link that changes from step to step
    must be a tensor, so that one compiled program can handle every value.
    """
    changing = isinstance(link, Tensor)
    if not changing and link == 0:
        return attend(*video, video_mask), attend(*audio, audio_mask)
    split = video[0].shape[1]
    query, key, value = (torch.cat(pair, dim=1) for pair in zip(video, audio, strict=True))
    keys = None
    if video_mask is not None or audio_mask is not None:
        sides = ((video_mask, video[0]), (audio_mask, audio[0]))
        keys = torch.cat([x.new_ones(x.shape[:2], dtype=torch.bool) if m is None else m for m, x in sides], dim=1)
    if not changing and link == 1:
        joint = attend(query, key, value, keys)
    else:
        bias = query.new_zeros(1, 1, query.shape[1], query.shape[1])
        across = link.log().to(bias) if changing else math.log(link)
        bias[..., :split, split:] = across
        bias[..., split:, :split] = across
        if keys is not None:
            bias = bias.masked_fill(~keys[:, None, None, :], float("-inf"))
        joint = attend(query, key, value, bias)
    return joint[:, :split], joint[:, split:]


def require_joinable(video_width: int, video_heads: int, audio_width: int, audio_heads: int) -> int:
    """Return the shared head size. Raises InputError where the towers cannot attend jointly."""
    video_head, audio_head = video_width // video_heads, audio_width // audio_heads
    if video_head != audio_head:
        msg = (
            f"the towers' head sizes differ: video has {video_heads} heads of {video_head}, audio {audio_heads} of "
            f"{audio_head}; AVFull-Attention needs them equal"
        )
        raise InputError(msg)
    if audio_width > video_width:
        msg = (
            f"the audio tower is wider ({audio_width}) than the video tower ({video_width}): only audio can be widened"
        )
        raise InputError(msg)
    return video_head
