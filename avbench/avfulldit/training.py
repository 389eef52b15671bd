"""How is a model trained? Flow matching over cached examples, through Hugging Face accelerate.

Every random number belongs to an item by name (seed, item): which example it is, its timestep, its noise and whether
its captions are dropped. So the T2V and the T2AV arm see the same video noise at the same timesteps of the same
examples in the same order, whatever else differs, and a run that was killed goes on as if it had not been. A running
sha256 over the noised video latents goes into the card: equal in two arms, it proves that they saw the same.
"""

import csv
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from avbench.avfulldit.checkpoint import Parts
from avbench.avfulldit.codec import VideoCodec
from avbench.avfulldit.examples import Batch
from avbench.avfulldit.flow import Timesteps, between, noise, stream
from avbench.core import InputError, first_line

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

    def at(self, step: int) -> None:
        """Set what changes with the step: the link between the modalities."""
        if self.dit.joint is not None:
            self.dit.link = min(1.0, step / self.plan.link_steps) if self.plan.link_steps else 1.0

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
    seen_sha256: str
    """Chained over everything that the video side was shown so far."""


class CodecObjective(nn.Module):
    """The loss of a video codec on frames."""

    def __init__(self, codec: VideoCodec, plan: Plan) -> None:
        super().__init__()
        self.codec, self.plan = codec, plan
        for layer in (codec.project, codec.unproject):  # in closed form, and best left there
            layer.requires_grad_(False)

    def at(self, step: int) -> None:
        """Nothing changes with the step."""

    def forward(self, batch: Batch) -> tuple[Tensor, Losses, str]:
        """Loss, its parts, and a sha256 of the frames."""
        assert batch.video is not None
        frames = batch.video.to(next(self.parameters()).device)
        shape = self.codec.shape(*frames.shape[1:4])
        blur = [noise(shape, "codec", self.plan.seed, number) for number in batch.numbers]
        loss = self.codec.loss(frames, torch.stack(blur).to(frames.device))
        return loss, Losses(loss, None), hashlib.sha256(batch.video.numpy().tobytes()).hexdigest()


def train(
    objective: Objective | CodecObjective,
    batches: Callable[[Sequence[int]], Batch],
    source: Mapping[str, Any],
    folder: Path,
    *,
    save_every: int = 200,
    on_save: Callable[[Progress, Mapping[str, Tensor]], None] | None = None,
) -> Iterator[Progress]:
    """Train an objective in place, or go on where the folder's state stands; it ends as its moving average.

    Args:
        objective: what is trained, under its plan.
        batches: item numbers, counted since training began, to a batch.
        source: says where the batches come from; a state made from another source is refused.
        folder: holds the state and the losses.
        save_every: steps between states.
        on_save: gets the progress and the averaged weights whenever the state was saved.

    Yields:
        The progress after every step, and first the one that is gone on from.

    Raises:
        InputError: accelerate is missing, the batch does not divide among the processes, the folder's state belongs
            to another plan or source, or the loss is no longer a number.
    """
    plan = objective.plan
    accelerator = _accelerator()
    if plan.batch % accelerator.num_processes:
        msg = f"a batch of {plan.batch} does not divide among {accelerator.num_processes} processes"
        raise InputError(msg)
    learned = [weight for weight in objective.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(learned, plan.learning_rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay)
    average = {name: weight.detach().clone() for name, weight in objective.state_dict().items()}
    identity = {**asdict(plan), "source": dict(source)}
    state = _load(folder / STATE, identity)
    done = Progress(0, None, None, 0.0, "")
    if state is not None:
        objective.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, done = state["average"], Progress(**state["progress"])
        yield done
    _keep_losses(folder / LOSSES, done.step)
    wrapped, optimiser = accelerator.prepare(objective, optimiser)
    average = {name: value.to(accelerator.device) for name, value in average.items()}
    started = time.perf_counter() - done.seconds
    for step in range(done.step, plan.steps):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(step)
        objective.at(step)
        numbers = range(step * plan.batch, (step + 1) * plan.batch)
        batch = batches(numbers[accelerator.process_index :: accelerator.num_processes])
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
        digest = hashlib.sha256((done.seen_sha256 + seen).encode()).hexdigest()
        now = time.perf_counter() - started
        done = Progress(step + 1, *(_mean(accelerator, loss) for loss in losses), now, digest)
        if accelerator.is_main_process:
            _log(folder / LOSSES, done)
            if (step + 1) % save_every == 0 or step + 1 == plan.steps:
                _save(folder / STATE, objective, optimiser, average, done, identity)
                if on_save is not None:
                    on_save(done, average)
        yield done
    objective.load_state_dict(average)


def _accelerator() -> Any:
    try:
        from accelerate import Accelerator
    except ImportError:
        msg = "training needs the package accelerate: pip install 'avbench[train]'"
        raise InputError(msg) from None
    return Accelerator()


def _mean(accelerator: Any, loss: Tensor | None) -> float | None:
    return None if loss is None else float(accelerator.reduce(loss.detach(), reduction="mean"))


def _load(path: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its readers raise; each says that the file is damaged
        msg = f"{path} cannot be read as a training's state: {first_line(error)}; remove it to begin again"
        raise InputError(msg) from None
    if not isinstance(state, dict) or not isinstance(state.get("plan"), dict):
        msg = f"{path} is not a training's state; remove it to begin again"
        raise InputError(msg)
    if state["plan"] != asked:
        unlike = [name for name in asked if state["plan"].get(name) != asked[name]]
        msg = f"{path} belongs to another training: {', '.join(unlike)} differ; choose another folder"
        raise InputError(msg)
    return state


def _save(
    path: Path,
    objective: nn.Module,
    optimiser: Any,
    average: Mapping[str, Tensor],
    progress: Progress,
    identity: Mapping[str, Any],
) -> None:
    part = path.with_name(path.name + ".part")
    state = {
        "model": objective.state_dict(),
        "optimiser": optimiser.state_dict(),
        "average": average,
        "progress": asdict(progress),
        "plan": dict(identity),
    }
    torch.save(state, part)
    part.replace(path)


def _keep_losses(path: Path, steps: int) -> None:
    """Forget the losses of steps after the state that is gone on from; they will be made again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = path.read_text().splitlines()[1 : steps + 1] if path.exists() else []
    path.write_text("\n".join(["step,video_loss,audio_loss,seconds", *kept]) + "\n")


def _log(path: Path, progress: Progress) -> None:
    with path.open("a", newline="") as file:
        csv.writer(file).writerow([progress.step, progress.video_loss, progress.audio_loss, f"{progress.seconds:.3f}"])
