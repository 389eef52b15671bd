"""Flow matching: how a model is trained to turn noise into latents, and how it then does it.

x_t = (1 − t)·x₀ + t·ε and the velocity ε − x₀, with one t for video and audio. Sampling follows the velocity from
t = 1 to 0. All random numbers of an item come from its own stream, so that nothing depends on batch, order or rank.
Source: Lipman et al. (2023); Esser et al. (2024) for the timestep density and shift; arXiv 2512.02457 for the rest.
"""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor | None]
"""Video and, where there is sound, audio."""


def stream(*name: object) -> torch.Generator:
    """Random numbers that belong to `name` alone, the same on every machine."""
    number = int.from_bytes(hashlib.sha256(repr(name).encode()).digest()[:8])
    return torch.Generator().manual_seed(number % 2**63)


def noise(shape: Sequence[int], *name: object) -> Tensor:
    """Standard normal noise of `name`, drawn on the CPU."""
    return torch.randn(tuple(shape), generator=stream(*name))


@dataclass(frozen=True)
class Timesteps:
    """From which density training draws t."""

    density: Literal["logit-normal", "uniform"] = "logit-normal"
    mean: float = 0.0
    """Of the normal whose logistic is drawn."""
    std: float = 1.0
    shift: float = 1.0
    """s > 1 moves t towards noise: t ↦ s·t / (1 + (s − 1)·t)."""

    def draw(self, *name: object) -> float:
        """The timestep of the item `name`, in 0…1."""
        where = stream("t", *name)
        if self.density == "uniform":
            t = torch.rand((), generator=where)
        else:
            t = torch.sigmoid(self.mean + self.std * torch.randn((), generator=where))
        return float(shifted(t, self.shift))


def shifted(t: Tensor, shift: float) -> Tensor:
    """Move timesteps towards noise by `shift`."""
    return shift * t / (1 + (shift - 1) * t)


def between(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t of a batch, `t` ``[batch]``."""
    t = t.view(-1, *[1] * (clean.ndim - 1))
    return (1 - t) * clean + t * noise


@dataclass(frozen=True)
class Sampling:
    """How clips are sampled."""

    steps: int = 24
    solver: Literal["euler", "heun"] = "euler"
    """Heun's is of second order and asks the model twice a step."""
    shift: float = 1.0
    video_guidance: float = 3.0
    audio_guidance: float = 3.0
    video_negative: str = ""
    """The caption that guidance leads away from."""
    audio_negative: str = ""

    def grid(self) -> Tensor:
        """Timesteps from 1 to 0, ``[steps + 1]``."""
        return shifted(torch.linspace(1, 0, self.steps + 1), self.shift)


def integrate(velocity: Callable[[Pair, float], Pair], start: Pair, sampling: Sampling) -> Pair:
    """Follow `velocity` (latents, t) from noise at t = 1 to latents at t = 0."""
    grid = sampling.grid().tolist()
    x = start
    for t, following in itertools.pairwise(grid):
        slope = velocity(x, t)
        ahead = _moved(x, slope, following - t)
        if sampling.solver == "heun" and following > 0:
            there = velocity(ahead, following)
            ahead = _moved(x, _halved(slope, there), following - t)
        x = ahead
    return x


def guided(negative: Tensor, positive: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance."""
    return negative + scale * (positive - negative)


def _moved(x: Pair, slope: Pair, step: float) -> Pair:
    video = x[0] + step * slope[0]
    return video, None if x[1] is None or slope[1] is None else x[1] + step * slope[1]


def _halved(a: Pair, b: Pair) -> Pair:
    return (a[0] + b[0]) / 2, None if a[1] is None or b[1] is None else (a[1] + b[1]) / 2
