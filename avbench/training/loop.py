"""Trains by flow matching, on one GPU or on the cores of a CPU.

All random numbers belong to (seed, step): which examples are shown, their timesteps, their noise and which captions are
dropped. So the T2V and the T2AV arm see the same video noise at the same timesteps of the same examples in the same
order, and a training that is stopped and resumed gives the same result. A running sha256 over what the video side was
shown (`Progress.seen_sha256`) goes into the card: equal in two arms, it shows that they saw the same.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avbench.avfulldit.flow import seed_of
from avbench.core import InputError
from avbench.training.examples import Batch, sent
from avbench.training.machine import Machine, accelerate_package
from avbench.training.objective import Losses, Objective
from avbench.training.plan import Plan, draw
from avbench.training.state import LOSSES, STATE, Progress, identity_of, keep_losses, load, log, save
from avbench.training.stepper import Stepper, optimisers_of


@dataclass(frozen=True)
class Pace:
    """When a training reports, saves its state and stops; what is learned does not depend on it."""

    report_every: int = 1
    """Steps between reports. On a GPU each report waits for the device."""
    save_every: int = 200
    """Steps between states; a multiple of `report_every`."""
    save_seconds: float = 300.0
    """Seconds of training after which a report saves the state as well."""
    stop_after: float | None = None
    """Seconds after which the state is saved and the training left unfinished, to be resumed; of several processes,
    their mean."""


def train(
    objective: Objective,
    batches: Callable[[np.ndarray], Batch],
    total: int,
    source: Mapping[str, Any],
    folder: Path,
    machine: Machine,
    *,
    origin: Mapping[str, Any] | None = None,
    pace: Pace | None = None,
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
        pace: when it reports and saves.
        on_save: gets the progress and the averaged weights whenever the state was saved.

    Yields:
        The progress; when resumed, first the progress of the state.

    Raises:
        InputError: accelerate is missing, the batch does not divide among the processes, several of them would train
            on a GPU, the folder's state belongs to another plan, source or origin, or the loss is no longer a number.
    """
    plan, pace = objective.plan, pace or Pace()
    accelerator = _accelerator(plan, machine)
    device = accelerator.device
    objective.to(device)
    optimisers = optimisers_of(objective, plan, machine, device)
    weights = objective.state_dict()
    average = {name: weight.detach().clone() for name, weight in weights.items()}
    identity = identity_of(plan, source, origin)
    state = load(folder / STATE, identity, device)
    done = Progress(0, None, None, 0.0, "")
    if state is not None:
        objective.load_state_dict(state["model"])
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        average, done = state["average"], Progress(**state["progress"])
        if on_save is not None and accelerator.is_main_process:
            on_save(done, average)  # a kill after the state was saved may have come before it
        yield done
    if accelerator.is_main_process:
        keep_losses(folder / LOSSES, done.step)
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
        shares = sent(drawn.t[mine], device), sent(drawn.kept[mine], device)
        losses, probe = stepper(step, batch, *shares, _noises(plan, step, batch, mine, device))
        shown = drawn.rows.tobytes() + drawn.t.numpy().tobytes() + drawn.kept.numpy().tobytes()
        pending.append((shown, losses, probe))
        last = step + 1 == plan.steps
        if (step + 1) % pace.report_every and not last:
            continue
        done = _reported(accelerator, done, step + 1, pending, time.perf_counter() - started, plan)
        started = time.perf_counter()
        pending.clear()
        late = pace.stop_after is not None and done.seconds > pace.stop_after
        if accelerator.is_main_process:
            log(folder / LOSSES, done)
            due = (step + 1) % pace.save_every == 0 or done.seconds - saved >= pace.save_seconds
            if due or last or late:
                save(folder / STATE, objective, optimisers, average, done, identity, machine)
                saved = done.seconds
                if on_save is not None:
                    on_save(done, average)
        yield done
        if late and not last:
            return
    objective.load_state_dict(average)


def _accelerator(plan: Plan, machine: Machine) -> Any:
    if machine.device != "cpu" and os.environ.get("WORLD_SIZE", "1") != "1":
        msg = (
            "several processes train on a CPU only: start one for the GPU, without torchrun, or set "
            "ACCELERATE_USE_CPU=1 for a training on the CPU"
        )
        raise InputError(msg)
    accelerator = accelerate_package().Accelerator(cpu=machine.device == "cpu")
    if plan.batch % accelerator.num_processes:
        msg = f"a batch of {plan.batch} does not divide among {accelerator.num_processes} processes"
        raise InputError(msg)
    return accelerator


def _noises(plan: Plan, step: int, batch: Batch, mine: slice, device: torch.device) -> dict[str, Tensor]:
    """This process's part of the noise of the whole batch, which so does not depend on how many processes share it."""
    found = {}
    for what, clean in (("video", batch.video), ("audio", batch.audio)):
        if clean is not None:
            shape = (clean.movedim(-1, 1) if clean.dtype == torch.uint8 else clean).shape[1:]
            generator = torch.Generator(device).manual_seed(seed_of(what, plan.seed, step))
            found[what] = torch.randn((plan.batch, *shape), generator=generator, device=device)[mine]
    return found


def _reported(
    accelerator: Any,
    before: Progress,
    step: int,
    pending: list[tuple[bytes, Losses, Tensor]],
    seconds: float,
    plan: Plan,
) -> Progress:
    digest = before.seen_sha256
    probed = torch.stack([probe for _, _, probe in pending])
    if accelerator.num_processes > 1 and probed.ndim == 3:  # the items of a batch were dealt out in turn
        probed = accelerator.gather(probed[None].contiguous()).permute(1, 2, 0, 3).flatten(1, 2)
    probes = probed.cpu().numpy()
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
    # the same in all processes: one that stopped earlier than the others would let them wait for ever
    taken = float(accelerator.reduce(torch.tensor(seconds, dtype=torch.float64), reduction="mean"))
    return Progress(step, video_loss, audio_loss, before.seconds + taken, digest)
