"""Measures at the start of training which settings train fastest on this machine.

Processors differ: one with AMX multiplies bf16 matrices seven times faster than fp32, an older one fifty times slower.
Whether compiled blocks are faster differs as well, and compiling needs a C++ compiler.
"""

import contextlib
import logging
import os
import time
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch

from avbench.avfulldit.model import AVFullDiT
from avbench.avfulldit.native import NativeConfig, NativeTower
from avbench.avfulldit.tower import Text
from avbench.core import first_line, if_missing

Precision = Literal["float32", "bfloat16"]
_CLEARLY_FASTER = 1.5
_COMPILED_FASTER = 1.1
"""Below this gain a training stays eager: compiling costs a minute at every start."""
_BLOCK = NativeConfig("audio", channels=64, width=256, heads=4, layers=1, text_width=128)
"""One transformer block of the width of the toy scale's video tower. It compiles in a fraction of the tower's time."""
_BATCH, _TOKENS, _WORDS = 4, 256, 32
_TIMED_STEPS = 3


@dataclass(frozen=True)
class Machine:
    """Where and how a training runs."""

    device: str = "cpu"
    precision: Precision = "float32"
    compile: bool = False
    graphs: bool = False
    """Whether a step is replayed as one CUDA graph: small models are otherwise held up by starting kernels."""

    def __str__(self) -> str:
        """The way in words."""
        return f"on {self.device} in {self.precision}{', compiled' if self.compile else ''}"

    @classmethod
    def measured(cls) -> "Machine":
        """Choose a GPU if there is one. On a CPU the precision that multiplies matrices fastest by far, and compiled
        blocks if a few training steps of one block are clearly faster with them.

        Of several processes that train together the first chooses for all. Raises InputError if accelerate is missing.
        """
        if torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU") != "1":
            return cls("cuda", "bfloat16", compile=True, graphs=True)
        if os.environ.get("WORLD_SIZE", "1") == "1":
            return cls._timed()
        accelerate = accelerate_package()
        first = accelerate.PartialState(cpu=True).is_main_process
        return accelerate.utils.broadcast_object_list([cls._timed() if first else None])[0]

    @classmethod
    def _timed(cls) -> "Machine":
        slow, fast = (_product_seconds(dtype) for dtype in (torch.float32, torch.bfloat16))
        precision: Precision = "bfloat16" if slow / fast > _CLEARLY_FASTER else "float32"
        return cls("cpu", precision, compile=compiling_pays(precision))


def accelerate_package() -> Any:
    """Import and return the package accelerate. Raises InputError with the install command if it is missing."""
    with if_missing("training needs the package accelerate: pip install 'avbench[train]'"):
        import accelerate
    return accelerate


def silence_torch() -> None:
    """Turn off three messages of torch about which nobody can do anything: an RMS norm under autocast is not fused, two
    processes lay out a gradient in another way, and there is a CUDA toolkit but no GPU.
    """
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def compiling_pays(precision: Precision) -> bool:
    """Whether training steps are clearly faster compiled; False, with a warning, where nothing can be compiled."""
    eager = step_seconds(precision, compiled=False)
    try:
        return eager / step_seconds(precision, compiled=True) > _COMPILED_FASTER
    except Exception as error:  # a missing or failing compiler raises whatever its backend raises
        warnings.warn(f"blocks cannot be compiled here, so training runs without: {first_line(error)}", stacklevel=2)
        return False
    finally:
        torch.compiler.reset()


def step_seconds(precision: Precision, *, compiled: bool) -> float:
    """Seconds of a forward and backward pass through one block, the best of a few after a first one, which compiles."""
    model = AVFullDiT(None, NativeTower(_BLOCK))
    if compiled:
        model.compile()
    latents, t = torch.randn(_BATCH, _BLOCK.channels, _TOKENS), torch.full((_BATCH,), 0.5)
    text = Text(torch.randn(_BATCH, _WORDS, _BLOCK.text_width), None)
    half = torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()
    times = []
    for _ in range(1 + _TIMED_STEPS):
        start = time.perf_counter()
        with half:
            velocity = model(None, latents, t, None, text)[1]
        velocity.square().mean().backward()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _product_seconds(dtype: torch.dtype) -> float:
    """Seconds of a product of two matrices of the size of a small transformer's, the best of five."""
    a, b = torch.randn(512, 512).to(dtype), torch.randn(512, 1024).to(dtype)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        torch.matmul(a, b)
        best = min(best, time.perf_counter() - start)
    return best
