"""Computes rotary position embeddings, and AVSyncRoPE, which gives sound and picture one time axis.

Positions are float ``[tokens, axes]``: latent indices for video (time, height, width), for audio (time). A band of
complex pairs belongs to each axis; pair k of a band of n turns by position · θ^(−k/n) radians. Neighbouring channels
form a pair ("interleaved"), as in Wan and Flux. Source: Su et al., "RoFormer" (2021); AVSyncRoPE: arXiv 2512.02457.
"""

import functools
from typing import Literal, NamedTuple

import torch
from torch import Tensor

AudioPositions = Literal["sync", "vanilla", "expand-video"]
"""``sync``: audio index ÷ τ (the paper's). ``vanilla``: both as they are. ``expand-video``: video time index · τ."""

_THETA = 10_000.0


class Rotary(NamedTuple):
    """Cosine and sine of every token's phases, each ``[tokens, pairs]``."""

    cos: Tensor
    sin: Tensor


def rotary(positions: Tensor, bands: tuple[int, ...]) -> Rotary:
    """Phases of tokens at `positions` ``[tokens, axes]``, with ``bands[axis]`` complex pairs an axis.

    Fewer axes than bands are allowed: the bands without a position do not turn. So audio and video share one time axis.
    """
    phases = []
    for axis, pairs in enumerate(bands):
        speeds = _THETA ** -(torch.arange(pairs, dtype=torch.float64, device=positions.device) / pairs)
        place = positions[:, axis] if axis < positions.shape[1] else torch.zeros_like(positions[:, 0])
        phases.append(place.double()[:, None] * speeds)
    angle = torch.cat(phases, dim=1)
    return Rotary(angle.cos().float(), angle.sin().float())


@functools.lru_cache(maxsize=64)
def _rotary_of(places: bytes, axes: int, bands: tuple[int, ...], device: torch.device) -> Rotary:
    positions = torch.frombuffer(bytearray(places), dtype=torch.float64).view(-1, axes)
    return Rotary(*(part.to(device) for part in rotary(positions, bands)))


def rotary_on(device: torch.device, positions: Tensor, bands: tuple[int, ...]) -> Rotary:
    """`rotary` of positions on the CPU, on a device: computed and copied there only once for each set of positions."""
    return _rotary_of(positions.double().numpy().tobytes(), positions.shape[1], bands, device)


def rotate(x: Tensor, turn: Rotary) -> Tensor:
    """Turn queries or keys ``[batch, tokens, heads, head_dim]``."""
    pairs = x.float().unflatten(-1, (-1, 2))  # in float32: rounded phases would blur positions
    cos, sin = (part[None, :, None, :].to(x.device) for part in turn)
    if torch.compiler.is_compiling():  # a compiler fuses these steps, and knows no complex numbers
        even, odd = pairs.unbind(-1)
        turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    else:  # the same up to rounding, in one pass over memory instead of seven: 20 times faster on a CPU
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cos, sin))
    return turned.flatten(-2).type_as(x)


def grid_positions(time: int, height: int, width: int) -> Tensor:
    """Positions of a video's tokens, time first: ``[time · height · width, 3]``."""
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (time, height, width)), indexing="ij")
    return torch.stack(axes, dim=-1).reshape(-1, 3)


def synchronised(video: Tensor, audio: Tensor, tau: float, mode: AudioPositions) -> tuple[Tensor, Tensor]:
    """Positions of both modalities after `mode`; `tau` = seconds of a video latent ÷ seconds of an audio latent."""
    if mode == "sync":
        return video, audio / tau
    if mode == "expand-video":
        return torch.cat([video[:, :1] * tau, video[:, 1:]], dim=1), audio
    return video, audio
