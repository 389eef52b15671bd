"""Implements the Muon optimiser for a transformer's matrices: each step has all singular values set to one.

Source: Jordan et al., "Muon" (2024); the size of a step is that of Liu et al., "Muon is scalable" (2025,
arXiv 2502.16982), so that AdamW's learning rates serve it. `torch.optim.Muon` computes the same one matrix at a time;
here all matrices of one shape are one batched product, which is several times faster for many small ones.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_ADAM_SIZE = 0.2
"""Root mean square of an AdamW step, in learning rates."""


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay; kernels of convolutions count as matrices.

    `dtype` is that of the Newton–Schulz steps. The source takes bfloat16, which five of them bear.
    """

    def __init__(
        self,
        weights: Iterable[Tensor],
        lr: float | Tensor,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change every weight that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(weight.shape, []).append(weight)
            for weights in shapes.values():
                self._step_alike(weights, group["lr"], group["momentum"], group["weight_decay"])

    def _step_alike(self, weights: list[Tensor], rate: float | Tensor, momentum: float, weight_decay: float) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["average"] = torch.zeros_like(weight)
        averages = [self.state[weight]["average"] for weight in weights]
        # torch has no public name for operations on lists.
        torch._foreach_lerp_(averages, gradients, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
        ahead = torch._foreach_lerp(gradients, averages, momentum)  # pyright: ignore[reportPrivateImportUsage]
        matrices = torch.stack([step.flatten(1) for step in ahead])
        steps = orthogonalised(matrices.to(self._dtype)).to(matrices.dtype)
        steps = steps * (rate * _ADAM_SIZE * max(steps.shape[1:]) ** 0.5)
        torch._foreach_mul_(weights, 1 - rate * weight_decay)  # pyright: ignore[reportPrivateImportUsage]
        changes = [step.view_as(weight) for step, weight in zip(steps, weights, strict=True)]
        torch._foreach_sub_(weights, changes)  # pyright: ignore[reportPrivateImportUsage]


def orthogonalised(matrices: Tensor) -> Tensor:
    """Bring the singular values of ``[n, rows, columns]`` near one by five Newton–Schulz steps."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
