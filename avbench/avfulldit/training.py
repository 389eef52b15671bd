"""How is a model trained? Flow matching over cached examples, through Hugging Face accelerate.

Every random number belongs to an item by name (seed, item): which example it is, its timestep, its noise and whether
its captions are dropped. So the T2V and the T2AV arm see the same video noise at the same timesteps of the same
examples in the same order, whatever else differs, and a run that was killed goes on as if it had not been. A running
sha256 over the noised video latents goes into the card: equal in two arms, it proves that they saw the same.
"""

import copy
import csv
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from avbench.avfulldit.checkpoint import Parts
from avbench.avfulldit.examples import Batch, Examples
from avbench.avfulldit.flow import Timesteps, between, noise, stream
from avbench.core import InputError

STATE = "state.pt"
LOSSES = "losses.csv"


@dataclass(frozen=True)
class Plan:
    """How a model is trained. All of it is equal in two arms that are compared, but for what `AUDIO_ONLY` names."""

    steps: int
    batch: int = 16
    """Examples a step, over all processes."""
    learning_rate: float = 1e-3
    warmup: int = 200
    """Steps over which the learning rate rises; after them it falls along a cosine to a tenth."""
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema: float = 0.999
    caption_dropout: float = 0.1
    """Share of the items that are trained without captions, video's and audio's together: the negative branch."""
    timesteps: Timesteps = field(default_factory=Timesteps)
    train_text: bool = False
    """Whether the caption encoders learn, too; in the arms they are frozen."""
    seed: int = 0
    video_weight: float = 1.0
    """λ_v."""
    audio_weight: float = 1.0
    """λ_a."""
    link_steps: int = 0
    """Steps over which `link` rises from 0 to 1 in a joined model."""

    def rate(self, step: int) -> float:
        """The learning rate of `step`, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        along = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * along)))


AUDIO_ONLY = ("audio_weight", "link_steps")
"""Fields of a plan that a T2V arm does not use."""


class Losses(NamedTuple):
    """Mean squared errors of the velocities."""

    video: Tensor | None
    audio: Tensor | None


class Objective(nn.Module):
    """The loss of a batch, as one module, so that accelerate can wrap it."""

    def __init__(self, parts: Parts, plan: Plan) -> None:
        super().__init__()
        self.dit, self.video_text, self.audio_text = parts.dit, parts.video_text, parts.audio_text
        self.plan = plan
        for encoder in (self.video_text, self.audio_text):
            if encoder is not None:
                encoder.requires_grad_(plan.train_text)

    def forward(self, batch: Batch) -> tuple[Tensor, Losses, str]:
        """Loss, its parts, and a sha256 of the noised video latents that the model was shown."""
        plan, device = self.plan, next(self.parameters()).device
        t = torch.tensor([plan.timesteps.draw(plan.seed, number) for number in batch.numbers], device=device)
        kept = [
            float(torch.rand((), generator=stream("drop", plan.seed, number))) >= plan.caption_dropout
            for number in batch.numbers
        ]
        inputs: dict[str, Any] = {}
        targets: dict[str, Tensor | None] = {}
        for what, encoder, clean, captions in (
            ("video", self.video_text, batch.video, batch.video_captions),
            ("audio", self.audio_text, batch.audio, batch.audio_captions),
        ):
            inputs[what] = inputs[f"{what}_text"] = targets[what] = None
            if encoder is None:
                continue
            if clean is None:
                msg = f"the training examples have no {what}"
                raise InputError(msg)
            clean = clean.to(device)
            noises = [noise(clean.shape[1:], what, plan.seed, number) for number in batch.numbers]
            noisy = torch.stack(noises).to(device)
            inputs[what] = between(clean, noisy, t)
            inputs[f"{what}_text"] = encoder.read(
                [caption if keep else "" for caption, keep in zip(captions, kept, strict=True)]
            )
            targets[what] = noisy - clean
        said = self.dit(inputs["video"], inputs["audio"], t, inputs["video_text"], inputs["audio_text"])
        losses = Losses(*(_mse(a, b) for a, b in zip(said, targets.values(), strict=True)))
        weighted = [
            weight * loss
            for weight, loss in zip((plan.video_weight, plan.audio_weight), losses, strict=True)
            if loss is not None
        ]
        shown = b"" if inputs["video"] is None else inputs["video"].cpu().numpy().tobytes()
        return torch.stack(weighted).sum(), losses, hashlib.sha256(shown).hexdigest()


def _mse(said: Tensor | None, target: Tensor | None) -> Tensor | None:
    return None if said is None or target is None else (said - target).square().mean()


@dataclass
class Progress:
    """What `train` yields after a step."""

    step: int
    video_loss: float | None
    audio_loss: float | None
    seconds: float


def train(
    parts: Parts,
    plan: Plan,
    examples: Examples,
    folder: Path,
    *,
    save_every: int = 200,
    on_save: Callable[[int, Parts], None] | None = None,
) -> Iterator[Progress]:
    """Train `parts` in place, or go on where the folder's state stands; the weights end as their moving average.

    Yields after every step. `on_save` gets the step and a copy of the parts with averaged weights, for samples.

    Raises:
        InputError: accelerate is missing, the batch does not divide among the processes, or the folder's state
            belongs to another plan.
    """
    accelerator = _accelerator()
    if plan.batch % accelerator.num_processes:
        msg = f"a batch of {plan.batch} does not divide among {accelerator.num_processes} processes"
        raise InputError(msg)
    objective = Objective(parts, plan)
    learned = [weight for weight in objective.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(learned, plan.learning_rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay)
    average = {name: weight.detach().clone() for name, weight in objective.state_dict().items()}
    state = _load(folder / STATE, plan, examples)
    first, elapsed, digest = 0, 0.0, ""
    if state is not None:
        objective.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, first, elapsed, digest = state["average"], state["step"], state["seconds"], state["stream"]
    _keep_losses(folder / LOSSES, first)
    wrapped, optimiser = accelerator.prepare(objective, optimiser)
    average = {name: value.to(accelerator.device) for name, value in average.items()}
    started = time.perf_counter() - elapsed
    for step in range(first, plan.steps):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(step)
        if parts.dit.joint is not None:
            parts.dit.link = min(1.0, step / plan.link_steps) if plan.link_steps else 1.0
        numbers = range(step * plan.batch, (step + 1) * plan.batch)
        batch = examples.batch(plan.seed, numbers[accelerator.process_index :: accelerator.num_processes])
        loss, losses, seen = wrapped(batch)
        if not bool(torch.isfinite(loss)):
            msg = f"the loss of step {step} is {float(loss)}: try a lower learning rate than {plan.learning_rate:g}"
            raise InputError(msg)
        optimiser.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(learned, plan.clip_norm)
        optimiser.step()
        decay = min(plan.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, weight in objective.state_dict().items():
                average[name].lerp_(weight, 1 - decay)
        digest = hashlib.sha256((digest + seen).encode()).hexdigest()
        now = time.perf_counter() - started
        progress = Progress(step + 1, *(_mean(accelerator, loss) for loss in losses), now)
        if accelerator.is_main_process:
            _log(folder / LOSSES, progress)
            if (step + 1) % save_every == 0 or step + 1 == plan.steps:
                _save(folder / STATE, objective, optimiser, average, progress, digest, plan, examples)
                if on_save is not None:
                    shown = copy.deepcopy(parts)
                    Objective(shown, plan).load_state_dict(average)
                    shown.dit.eval()
                    on_save(step + 1, shown)
        yield progress
    objective.load_state_dict(average)
    parts.dit.link = 1.0


def differing(a: Plan, b: Plan) -> list[str]:
    """Fields in which two arms' plans differ, besides those that only sound uses."""
    plain_a, plain_b = asdict(a), asdict(b)
    return [name for name in plain_a if name not in AUDIO_ONLY and plain_a[name] != plain_b[name]]


def _accelerator() -> Any:
    try:
        from accelerate import Accelerator
    except ImportError:
        msg = "training needs the package accelerate: pip install 'avbench[train]'"
        raise InputError(msg) from None
    return Accelerator()


def _mean(accelerator: Any, loss: Tensor | None) -> float | None:
    return None if loss is None else float(accelerator.reduce(loss.detach(), reduction="mean"))


def _load(path: Path, plan: Plan, examples: Examples) -> dict[str, Any] | None:
    if not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    asked = _identity(plan, examples)
    if state["plan"] != asked:
        unlike = [name for name in asked if state["plan"].get(name) != asked[name]]
        msg = f"{path} belongs to another training: {', '.join(unlike)} differ; choose another folder"
        raise InputError(msg)
    return state


def _identity(plan: Plan, examples: Examples) -> dict[str, Any]:
    return {**asdict(plan), "examples": dict(examples.card)}


def _save(
    path: Path,
    objective: nn.Module,
    optimiser: Any,
    average: Mapping[str, Tensor],
    progress: Progress,
    digest: str,
    plan: Plan,
    examples: Examples,
) -> None:
    part = path.with_name(path.name + ".part")
    state = {
        "model": objective.state_dict(),
        "optimiser": optimiser.state_dict(),
        "average": average,
        "step": progress.step,
        "seconds": progress.seconds,
        "stream": digest,
        "plan": _identity(plan, examples),
    }
    torch.save(state, part)
    os.replace(part, path)


def _keep_losses(path: Path, steps: int) -> None:
    """Forget the losses of steps after the state that is gone on from; they will be made again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = path.read_text().splitlines()[1 : steps + 1] if path.exists() else []
    path.write_text("\n".join(["step,video_loss,audio_loss,seconds", *kept]) + "\n")


def _log(path: Path, progress: Progress) -> None:
    with path.open("a", newline="") as file:
        csv.writer(file).writerow([progress.step, progress.video_loss, progress.audio_loss, f"{progress.seconds:.3f}"])
