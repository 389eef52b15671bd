"""Trains and samples by flow matching: a model learns to turn noise into latents.

x_t = (1 − t)·x₀ + t·ε and the velocity ε − x₀, with one t for video and audio. Sampling follows the velocity from
t = 1 to 0. All random numbers of an item come from its own stream, so that nothing depends on batch, order or rank.
Source: Lipman et al. (2023); Esser et al. (2024) for the timestep density and shift; arXiv 2512.02457 for the rest.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Pair = tuple[Tensor | None, Tensor | None]
"""Video and audio; None for a modality that the model lacks."""


def stream(*name: object) -> torch.Generator:
    """Return a generator of random numbers that depend on `name` alone, the same on every machine."""
    return torch.Generator().manual_seed(seed_of(*name))


def seed_of(*name: object) -> int:
    """Return a seed that depends on `name` alone, below 2**63."""
    return int.from_bytes(hashlib.sha256(repr(name).encode()).digest()[:8]) % 2**63


def noise(shape: Sequence[int], *name: object) -> Tensor:
    """Standard normal noise of `name`, drawn on the CPU."""
    return torch.randn(tuple(shape), generator=stream(*name))


@dataclass(frozen=True)
class Timesteps:
    """The density from which training draws t."""

    density: Literal["logit-normal", "uniform"] = "logit-normal"
    mean: float = 0.0
    """Mean of the normal distribution whose logistic is drawn."""
    std: float = 1.0
    shift: float = 1.0
    """s > 1 moves t towards noise: t ↦ s·t / (1 + (s − 1)·t)."""

    def draw_many(self, count: int, *name: object) -> Tensor:
        """`count` timesteps of the step `name`, in 0…1."""
        where = stream("t", *name)
        if self.density == "uniform":
            t = torch.rand(count, generator=where)
        else:
            t = torch.sigmoid(self.mean + self.std * torch.randn(count, generator=where))
        return shifted(t, self.shift)


def shifted(t: Tensor, shift: float) -> Tensor:
    """Move timesteps towards noise by `shift`."""
    return shift * t / (1 + (shift - 1) * t)


def between(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return x_t of a batch; `t` is ``[batch]``."""
    t = t.view(-1, *[1] * (clean.ndim - 1))
    return (1 - t) * clean + t * noise


@dataclass(frozen=True)
class Sampling:
    """How clips are sampled."""

    steps: int = 24
    solver: Literal["euler", "heun", "dpm++"] = "euler"
    """``heun`` is of second order and evaluates the model twice per step. ``dpm++`` is DPM-Solver++(2M), of second
    order with one evaluation per step, because it also uses the clean prediction of the step before."""
    shift: float = 1.0
    video_guidance: float = 3.0
    audio_guidance: float = 3.0
    video_negative: str = ""
    """The caption that guidance leads away from."""
    audio_negative: str = ""
    audio_again: float = 0.0
    """Above 0, the sound is sampled a second time beside the finished video (see `pipeline`), with this guidance."""

    def grid(self) -> Tensor:
        """Timesteps from 1 to 0, ``[steps + 1]``."""
        return shifted(torch.linspace(1, 0, self.steps + 1), self.shift)


def integrate(velocity: Callable[[Pair, float], Pair], start: Pair, sampling: Sampling) -> Pair:
    """Follow `velocity` (latents, t) from noise at t = 1 to latents at t = 0."""
    grid = sampling.grid().tolist()
    x = start
    before: tuple[Pair, float] | None = None  # the clean prediction of the step before, and where it was made
    for t, following in itertools.pairwise(grid):
        slope = velocity(x, t)
        if sampling.solver == "dpm++":
            clean = _moved(x, slope, -t)
            x = _towards(x, clean, before, t, following)
            before = clean, t
            continue
        ahead = _moved(x, slope, following - t)
        if sampling.solver == "heun" and following > 0:
            there = velocity(ahead, following)
            ahead = _moved(x, _halved(slope, there), following - t)
        x = ahead
    return x


def _towards(x: Pair, clean: Pair, before: tuple[Pair, float] | None, t: float, following: float) -> Pair:
    """A step of DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), where the signal's weight is 1 − t and noise's t.

    The clean prediction is extrapolated in the logarithm of the signal-to-noise ratio, which is infinite at both ends
    of the path: there the step is of first order.
    """
    if before is not None and before[1] < 1 and following > 0:
        earlier, at = before
        step, last_step = _log_snr(following) - _log_snr(t), _log_snr(t) - _log_snr(at)
        weight = step / (2 * last_step)
        clean = _mapped(lambda now, then: now + weight * (now - then), clean, earlier)
    keep = following / t
    return _mapped(lambda old, new: keep * old + (1 - following - keep * (1 - t)) * new, x, clean)


def _log_snr(t: float) -> float:
    return math.log((1 - t) / t)


def guided(negative: Tensor, positive: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance."""
    return negative + scale * (positive - negative)


def _moved(x: Pair, slope: Pair, step: float) -> Pair:
    return _mapped(lambda place, speed: place + step * speed, x, slope)


def _halved(a: Pair, b: Pair) -> Pair:
    return _mapped(lambda one, other: (one + other) / 2, a, b)


def _mapped(rule: Callable[[Tensor, Tensor], Tensor], a: Pair, b: Pair) -> Pair:
    """Apply a function to the video parts and, if both have sound, to the audio parts."""
    one, other = (None if x is None or y is None else rule(x, y) for x, y in zip(a, b, strict=True))
    return one, other
