"""Measures at the start of training which settings train fastest on this machine.

Processors differ: one with AMX multiplies bf16 matrices seven times faster than fp32, an older one fifty times slower.
"""

import os
import time
from dataclasses import dataclass
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]
_CLEARLY_FASTER = 1.5


@dataclass(frozen=True)
class Machine:
    """Where and how a training runs."""

    device: str = "cpu"
    precision: Precision = "float32"
    compile: bool = False
    graphs: bool = False
    """Whether a step is replayed as one CUDA graph: small models are otherwise held up by starting kernels."""

    @classmethod
    def measured(cls) -> "Machine":
        """A GPU where there is one, and the precision that multiplies matrices fastest by far."""
        if torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU") != "1":
            return cls("cuda", "bfloat16", compile=True, graphs=True)
        slow, fast = (_product_seconds(dtype) for dtype in (torch.float32, torch.bfloat16))
        quick = slow / fast > _CLEARLY_FASTER
        return cls("cpu", "bfloat16" if quick else "float32", compile=quick)


def _product_seconds(dtype: torch.dtype) -> float:
    """Seconds of a product of two matrices of the size of a small transformer's, the best of five."""
    a, b = torch.randn(512, 512).to(dtype), torch.randn(512, 1024).to(dtype)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return best
