"""Trains on one batch: forward, backward, clipping, optimisers and the moving average of the weights."""

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avbench.core import first_line
from avbench.training.examples import Batch
from avbench.training.machine import Machine
from avbench.training.muon import Muon
from avbench.training.objective import Losses, Objective
from avbench.training.plan import Plan


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
                why = first_line(error)
                warnings.warn(f"a step cannot be captured, so kernels are started one by one: {why}", stacklevel=2)
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


def optimisers_of(
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


def _autocast(machine: Machine, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if machine.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
