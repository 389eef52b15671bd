"""Says how a model is trained, and draws the random numbers of each step."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from avbench.avfulldit.flow import Timesteps, stream


@dataclass(frozen=True)
class Plan:
    """How a model is trained. Two arms that are compared have equal plans, except for the fields in `AUDIO_ONLY`."""

    steps: int
    batch: int = 16
    """Examples per step, over all processes."""
    learning_rate: float = 1e-3
    warmup: int = 200
    """Steps over which the learning rate rises."""
    decay_share: float = 0.3
    """Share of the steps, at the end, over which the learning rate falls to zero; before, it is constant."""
    optimiser: Literal["muon", "adamw"] = "muon"
    """Optimiser of the matrices in the blocks; AdamW trains everything else."""
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema: float = 0.999
    caption_dropout: float = 0.1
    """Share of the items that are trained without captions, video's and audio's together: the negative branch."""
    timesteps: Timesteps = field(default_factory=lambda: Timesteps(mean=1.0, std=1.2))
    full_weight_from: float = 0.2
    """Timestep from which the squared error of the velocity counts fully. Below it the weight is (t / this)², as if
    the error of the clean prediction were counted: the last traces of noise matter little."""
    train_text: bool = False
    """Whether the caption encoders learn, too; in the arms they are frozen."""
    seed: int = 0
    video_weight: float = 1.0
    """λ_v."""
    audio_weight: float = 1.0
    """λ_a."""
    link_steps: int = 0
    """Steps over which `link` rises from 0 to 1 in a joined model."""
    first_examples: int | None = None
    """How many examples the first step draws from; all by default."""
    more_examples: int = 0
    """How many more each further step draws from, until all are reached: training can begin while they are made."""

    def rate(self, step: int) -> float:
        """The learning rate of `step`, counted from 0."""
        decay = max(1, round(self.decay_share * self.steps))
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup), (self.steps - step) / decay)

    def reached(self, step: int, total: int) -> int:
        """How many examples `step` draws from."""
        return total if self.first_examples is None else min(total, self.first_examples + step * self.more_examples)


AUDIO_ONLY = ("audio_weight", "link_steps")
"""Fields of a plan that a T2V arm does not use."""


class Drawn(NamedTuple):
    """The random numbers of one step, for the whole batch."""

    rows: np.ndarray
    t: Tensor
    kept: Tensor
    """False for items whose captions are dropped."""


def draw(plan: Plan, step: int, total: int) -> Drawn:
    """The random numbers of `step`, without its noise."""
    rows = np.random.default_rng([plan.seed, step]).integers(0, plan.reached(step, total), plan.batch)
    t = plan.timesteps.draw_many(plan.batch, plan.seed, step)
    kept = torch.rand(plan.batch, generator=stream("drop", plan.seed, step)) >= plan.caption_dropout
    return Drawn(rows, t, kept)
