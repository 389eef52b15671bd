"""Trains by flow matching, on one GPU or on the cores of a CPU.

All random numbers belong to (seed, step): which examples are shown, their timesteps, their noise and which captions are
dropped. So the T2V and the T2AV arm see the same video noise at the same timesteps of the same examples in the same
order, and a training that is stopped and resumed gives the same result. A running sha256 over what the video side was
shown goes into the card: equal in two arms, it proves that they saw the same.
"""

import contextlib
import csv
import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from avbench.avfulldit.checkpoint import Parts
from avbench.avfulldit.flow import Timesteps, between, seed_of, stream
from avbench.avfulldit.text import CaptionEncoder
from avbench.core import OTHER_CONTENT, InputError, first_line, is_sha256
from avbench.training.examples import Batch, sent
from avbench.training.machine import Machine, accelerate_package
from avbench.training.muon import Muon

STATE = "state.pt"
LOSSES = "losses.csv"


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


class Losses(NamedTuple):
    """Mean squared errors of the velocities."""

    video: Tensor | None
    audio: Tensor | None


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


class Objective(nn.Module):
    """The loss of a batch, as one module, so that accelerate can wrap it."""

    def __init__(self, parts: Parts, plan: Plan) -> None:
        super().__init__()
        self.dit, self.video_text, self.audio_text = parts.dit, parts.video_text, parts.audio_text
        self.plan = plan
        self._codec = parts.video_codec
        for encoder in (self.video_text, self.audio_text):
            if encoder is not None:
                encoder.requires_grad_(plan.train_text)

    def at(self, step: int, device: torch.device) -> None:
        """Set what changes with the step: the link between the modalities."""
        if self.dit.joint is not None:
            rising = step < self.plan.link_steps
            self.dit.link = torch.tensor(step / self.plan.link_steps, device=device) if rising else 1.0

    def forward(
        self, batch: Batch, t: Tensor, kept: Tensor, noises: Mapping[str, Tensor]
    ) -> tuple[Tensor, Losses, Tensor]:
        """Loss, its parts, and a probe of the noised frames that the model was shown: 8 values of each item."""
        nothing = torch.zeros((), device=t.device)
        inputs: dict[str, Any] = dict.fromkeys(("video", "audio", "video_text", "audio_text"))
        targets: dict[str, Tensor | None] = {"video": None, "audio": None}
        for what, clean, encoder, captions in (
            ("video", batch.video, self.video_text, batch.video_captions),
            ("audio", batch.audio, self.audio_text, batch.audio_captions),
        ):
            if clean is None or encoder is None:
                continue
            if clean.dtype == torch.uint8:
                assert self._codec is not None
                latents = self._codec.encode(clean)
            else:
                latents = clean.float()
            inputs[what] = between(latents, noises[what], t)
            targets[what] = noises[what] - latents
            if isinstance(captions, Tensor):
                assert isinstance(encoder, CaptionEncoder)
                inputs[f"{what}_text"] = encoder(torch.where(kept[:, None], captions, encoder.empty))
            else:
                shown = [caption if keep else "" for caption, keep in zip(captions, kept.tolist(), strict=True)]
                inputs[f"{what}_text"] = encoder.read(shown)
        velocities = self.dit(inputs["video"], inputs["audio"], t, inputs["video_text"], inputs["audio_text"])
        weight = (t / self.plan.full_weight_from).clamp(max=1).square()
        losses = Losses(*(_error(a, b, weight) for a, b in zip(velocities, targets.values(), strict=True)))
        total = sum(
            (
                share * loss
                for share, loss in zip((self.plan.video_weight, self.plan.audio_weight), losses, strict=True)
                if loss is not None
            ),
            start=nothing,
        )
        probe = nothing if inputs["video"] is None else inputs["video"].flatten(1)[:, :8]
        return total, losses, probe


def _error(velocity: Tensor | None, target: Tensor | None, weight: Tensor) -> Tensor | None:
    if velocity is None or target is None:
        return None
    return ((velocity.float() - target).square().flatten(1).mean(1) * weight).mean()


@dataclass
class Progress:
    """A progress report, which `train` yields from time to time."""

    step: int
    video_loss: float | None
    """Mean since the last report."""
    audio_loss: float | None
    seconds: float
    seen_sha256: str
    """A chained hash of everything that the video side was shown so far."""


def train(
    objective: Objective,
    batches: Callable[[np.ndarray], Batch],
    total: int,
    source: Mapping[str, Any],
    folder: Path,
    machine: Machine,
    *,
    origin: Mapping[str, Any] | None = None,
    save_every: int = 200,
    save_seconds: float = 300.0,
    report_every: int = 1,
    stop_after: float | None = None,
    on_save: Callable[[Progress, Mapping[str, Tensor]], None] | None = None,
) -> Iterator[Progress]:
    """Train an objective in place, or resume from the folder's state. Afterwards its weights are their moving average.

    Args:
        objective: what is trained, under its plan.
        batches: rows of examples to a batch on the device.
        total: how many examples there are.
        source: describes where the batches come from; a state made from another source is refused.
        folder: holds the state and the losses.
        machine: device, precision, and whether to compile; of a resumed training, what `begun_on` returns.
        origin: what the first weights were, such as the hashes of two towers; a state of others is refused.
        save_every: steps between states; a multiple of `report_every`.
        save_seconds: seconds of training after which a report saves the state as well.
        report_every: steps between reports. On a GPU each report waits for the device.
        stop_after: seconds after which the state is saved and the training left unfinished.
        on_save: gets the progress and the averaged weights whenever the state was saved.

    Yields:
        The progress; when resumed, first the progress of the state.

    Raises:
        InputError: accelerate is missing, the batch does not divide among the processes, the folder's state belongs
            to another plan, source or origin, or the loss is no longer a number.
    """
    plan = objective.plan
    accelerator = accelerate_package().Accelerator(cpu=machine.device == "cpu")
    if plan.batch % accelerator.num_processes:
        msg = f"a batch of {plan.batch} does not divide among {accelerator.num_processes} processes"
        raise InputError(msg)
    device = accelerator.device
    objective.to(device)
    optimisers = _optimisers(objective, plan, machine, device)
    weights = objective.state_dict()
    average = {name: weight.detach().clone() for name, weight in weights.items()}
    identity = _identity(plan, source, origin)
    state = _load(folder / STATE, identity, device)
    done = Progress(0, None, None, 0.0, "")
    if state is not None:
        objective.load_state_dict(state["model"])
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        average, done = state["average"], Progress(**state["progress"])
        yield done
    _keep_losses(folder / LOSSES, done.step)
    if machine.compile:
        objective.dit.compile()
    wrapped = accelerator.prepare_model(objective) if accelerator.num_processes > 1 else objective
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    saved = done.seconds
    started = time.perf_counter()
    pending: list[tuple[bytes, Losses, Tensor]] = []
    stepper = Stepper(objective, wrapped, optimisers, average, machine, device)
    for step in range(done.step, plan.steps):
        objective.at(step, device)
        drawn = draw(plan, step, total)
        batch = batches(drawn.rows[mine])
        noises = {
            what: _noise(what, plan, step, array, device)[mine]
            for what, array in (("video", batch.video), ("audio", batch.audio))
            if array is not None
        }
        shares = sent(drawn.t[mine], device), sent(drawn.kept[mine], device)
        losses, probe = stepper(step, batch, *shares, noises)
        shown = drawn.rows.tobytes() + drawn.t.numpy().tobytes() + drawn.kept.numpy().tobytes()
        pending.append((shown, losses, probe))
        last = step + 1 == plan.steps
        if (step + 1) % report_every and not last:
            continue
        done = _reported(accelerator, done, step + 1, pending, time.perf_counter() - started, plan)
        started = time.perf_counter()
        pending.clear()
        late = stop_after is not None and done.seconds > stop_after
        if accelerator.is_main_process:
            _log(folder / LOSSES, done)
            if (step + 1) % save_every == 0 or last or late or done.seconds - saved >= save_seconds:
                _save(folder / STATE, objective, optimisers, average, done, identity, machine)
                saved = done.seconds
                if on_save is not None:
                    on_save(done, average)
        yield done
        if late and not last:
            return
    objective.load_state_dict(average)


class Stepper:
    """Forward, backward, clipping, optimisers and the moving average; on a GPU replayed as one CUDA graph."""

    def __init__(
        self,
        objective: Objective,
        wrapped: nn.Module,
        optimisers: list[torch.optim.Optimizer],
        average: Mapping[str, Tensor],
        machine: Machine,
        device: torch.device,
    ) -> None:
        self._objective, self._wrapped, self._optimisers = objective, wrapped, optimisers
        self._plan, self._machine, self._device = objective.plan, machine, device
        self._learned = [weight for weight in objective.parameters() if weight.requires_grad]
        weights = objective.state_dict()
        self._averaged = list(average.values())
        self._current = [weights[name] for name in average]
        self._share = torch.zeros((), device=device)
        """Share of the current weights in the moving average."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._outputs: tuple[Losses, Tensor] | None = None
        self._eager_steps = 0
        # a graph is captured on the stream that the steps before it ran on
        self._stream = torch.cuda.Stream(device) if machine.graphs else None

    def __call__(
        self, step: int, batch: Batch, t: Tensor, kept: Tensor, noises: Mapping[str, Tensor]
    ) -> tuple[Losses, Tensor]:
        """Train on a batch; returns its losses and the probe of what was shown."""
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"].fill_(self._plan.rate(step))
        self._share.fill_(1 - min(self._plan.ema, (1 + step) / (10 + step)))
        if self._stream is None:
            return self._step(batch, t, kept, noises)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            losses, probe = self._replayed(step, batch, t, kept, noises)
            losses = Losses(*(None if part is None else part.clone() for part in losses))
            probe = probe.clone()
        torch.cuda.current_stream().wait_stream(self._stream)
        return losses, probe

    def _replayed(
        self, step: int, batch: Batch, t: Tensor, kept: Tensor, noises: Mapping[str, Tensor]
    ) -> tuple[Losses, Tensor]:
        given = [part for part in (*batch[1:], t, kept, *noises.values()) if isinstance(part, Tensor)]
        if self._graph is None:
            self._eager_steps += step >= self._plan.link_steps  # the link must not change any more
            if self._eager_steps <= _WARM_STEPS:
                return self._step(batch, t, kept, noises)
            self._inputs = [part.clone() for part in given]
            held = iter(self._inputs)
            tensors = {name: next(held) for name, part in batch._asdict().items() if isinstance(part, Tensor)}
            still = batch._replace(**tensors)
            at, keep = next(held), next(held)
            noise = {what: next(held) for what in noises}
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, stream=self._stream):
                    self._outputs = self._step(still, at, keep, noise)
            except RuntimeError as error:
                warnings.warn(f"a step cannot be captured, so kernels are started one by one: {error}", stacklevel=2)
                self._eager_steps = -(2**62)
                return self._step(batch, t, kept, noises)
            self._graph = graph
        for place, part in zip(self._inputs, given, strict=True):
            place.copy_(part)
        self._graph.replay()
        assert self._outputs is not None
        return self._outputs

    def _step(self, batch: Batch, t: Tensor, kept: Tensor, noises: Mapping[str, Tensor]) -> tuple[Losses, Tensor]:
        with _autocast(self._machine, self._device):
            loss, losses, probe = self._wrapped(batch, t, kept, noises)
        self._objective.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._learned, self._plan.clip_norm)
        for optimiser in self._optimisers:
            optimiser.step()
        with torch.no_grad():
            # torch has no public name for operations on lists.
            moves = torch._foreach_sub(self._current, self._averaged)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_mul_(moves, self._share)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_add_(self._averaged, moves)  # pyright: ignore[reportPrivateImportUsage]
        return Losses(*(None if part is None else part.detach() for part in losses)), probe.detach()


_WARM_STEPS = 5
"""Steps that run before a graph is captured: they compile the blocks and create the optimisers' states."""


def _optimisers(
    objective: Objective, plan: Plan, machine: Machine, device: torch.device
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, where the plan chooses it, and AdamW for the rest."""
    matrices, rest = [], []
    for name, weight in objective.named_parameters():
        if weight.requires_grad:
            inner = weight.ndim >= 2 and name.endswith("weight") and ("blocks." in name or "widenings." in name)
            (matrices if inner and plan.optimiser == "muon" else rest).append(weight)
    rate = torch.tensor(plan.learning_rate, device=device)  # a tensor, so that a captured step follows its changes
    optimisers: list[torch.optim.Optimizer] = []
    if rest:
        fast: dict[str, Any] = {"fused": True, "capturable": True} if device.type == "cuda" else {}
        decay = plan.weight_decay
        optimisers.append(torch.optim.AdamW(rest, rate.clone(), betas=(0.9, 0.99), weight_decay=decay, **fast))
    if matrices:
        dtype = torch.bfloat16 if machine.precision == "bfloat16" else torch.float32
        optimisers.append(Muon(matrices, rate.clone(), weight_decay=plan.weight_decay, dtype=dtype))
    return optimisers


def _noise(what: str, plan: Plan, step: int, clean: Tensor, device: torch.device) -> Tensor:
    """Noise of the whole batch, so that it does not depend on how many processes share it."""
    shape = (clean.movedim(-1, 1) if clean.dtype == torch.uint8 else clean).shape[1:]
    generator = torch.Generator(device).manual_seed(seed_of(what, plan.seed, step))
    return torch.randn((plan.batch, *shape), generator=generator, device=device)


def _autocast(machine: Machine, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if machine.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def _reported(
    accelerator: Any,
    before: Progress,
    step: int,
    pending: list[tuple[bytes, Losses, Tensor]],
    seconds: float,
    plan: Plan,
) -> Progress:
    digest = before.seen_sha256
    probes = torch.stack([probe for _, _, probe in pending]).cpu().numpy()
    for (shown, _, _), probe in zip(pending, probes, strict=True):
        digest = hashlib.sha256(digest.encode() + shown + probe.tobytes()).hexdigest()
    means: list[float | None] = []
    for parts in zip(*(losses for _, losses, _ in pending), strict=True):
        if parts[0] is None:
            means.append(None)
            continue
        means.append(float(accelerator.reduce(torch.stack(parts).mean(), reduction="mean")))
    if bad := [mean for mean in means if mean is not None and not np.isfinite(mean)]:
        msg = f"the loss before step {step} is {bad[0]}: try a lower learning rate than {plan.learning_rate:g}"
        raise InputError(msg)
    video_loss, audio_loss = means
    return Progress(step, video_loss, audio_loss, before.seconds + seconds, digest)


def require_own_state(
    folder: Path, plan: Plan, source: Mapping[str, Any], origin: Mapping[str, Any] | None = None
) -> None:
    """Raise InputError if a folder holds the state of another training, or a damaged one."""
    _load(folder / STATE, _identity(plan, source, origin), torch.device("cpu"))


def _identity(plan: Plan, source: Mapping[str, Any], origin: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a training's state belongs to."""
    return {**asdict(plan), "source": dict(source), **(origin or {})}


def begun_on(folder: Path) -> Machine | None:
    """Return how the training in a folder was begun, None if there is none: it goes on like that, because another
    precision would be another training. Raises InputError if it needs a GPU and there is none.
    """
    state = _read_state(folder / STATE, torch.device("cpu"))
    if state is None or "machine" not in state:
        return None
    machine = Machine(**state["machine"])
    if machine.device == "cuda" and not torch.cuda.is_available():
        msg = f"{folder} was begun on a GPU, and here is none: go on where one is, or choose another folder"
        raise InputError(msg)
    return machine


def _load(path: Path, asked: Mapping[str, Any], device: torch.device) -> dict[str, Any] | None:
    state = _read_state(path, device)
    if state is not None and state["plan"] != asked:
        msg = f"{path} belongs to another training ({differing(state['plan'], asked)}); choose another folder"
        raise InputError(msg)
    return state


def _read_state(path: Path, device: torch.device) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises whatever its readers raise; each means that the file is damaged
        msg = f"{path} cannot be read as a training's state: {first_line(error)}; remove it to begin again"
        raise InputError(msg) from None
    if not isinstance(state, dict) or not isinstance(state.get("plan"), dict):
        msg = f"{path} is not a training's state; remove it to begin again"
        raise InputError(msg)
    return state


def differing(there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Those of the fields asked for that a folder holds with another value, in words; empty if there are none."""
    return ", ".join(_changes(there, asked))


def _changes(there: Mapping[str, Any], asked: Mapping[str, Any], within: str = "") -> Iterator[str]:
    for name, new in asked.items():
        old = there.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changes(old, new, f"{within}{name}.")
        elif is_sha256(old) and is_sha256(new) and old != new:
            yield f"{within}{name}: {OTHER_CONTENT}"
        elif old != new:
            yield f"{within}{name} is {old!r} there and {new!r} here"


def _save(
    path: Path,
    objective: nn.Module,
    optimisers: list[torch.optim.Optimizer],
    average: Mapping[str, Tensor],
    progress: Progress,
    identity: Mapping[str, Any],
    machine: Machine,
) -> None:
    part = path.with_name(path.name + ".part")
    state = {
        "model": objective.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        "average": average,
        "progress": asdict(progress),
        "plan": dict(identity),
        "machine": asdict(machine),
    }
    torch.save(state, part)
    part.replace(path)


def _keep_losses(path: Path, steps: int) -> None:
    """Remove the losses of steps after the resumed state, because those steps run again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines()[1:] if path.exists() else []
    kept = [line for line in lines if int(line.split(",")[0]) <= steps]
    path.write_text("\n".join(["step,video_loss,audio_loss,seconds", *kept]) + "\n")


def _log(path: Path, progress: Progress) -> None:
    with path.open("a", newline="") as file:
        csv.writer(file).writerow([progress.step, progress.video_loss, progress.audio_loss, f"{progress.seconds:.3f}"])
