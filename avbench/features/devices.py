"""Chooses where the networks of features run, on the CPU or on GPUs through CUDA, and in which precision.

The device does not belong to a protocol: in float32, without TF32, GPU and CPU agree within the tolerances of
docs/speed.md. Each row records the GPU that computed it. The precision belongs to it: bfloat16, which some networks can
compute in, gives other numbers.
"""

import functools
import multiprocessing
import re
import time
from collections.abc import Callable
from typing import TypeVar

from avbench.core import InputError, counted, nearest, require_known
from avbench.storage.workers.gpu import is_out_of_memory

AUTO, CPU = "auto", "cpu"
Found = TypeVar("Found")
_GPUS = re.compile(r"cuda(:\d+(,\d+)*)?")
FLOAT32, BFLOAT16 = "float32", "bfloat16"
PRECISIONS = {"fp32": FLOAT32, "bf16": BFLOAT16}
"""What ``--precision`` takes → the field `precision` of a protocol, and the type in torch."""


def resolve(asked: str) -> tuple[str, ...]:
    """The torch devices that ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``cuda:0,1`` names; ``cuda`` is every GPU.

    ``auto`` leaves GPUs out for which this torch was not built; without any other it is the CPU.

    Raises:
        InputError: there is no such device, or torch was not built for it.
    """
    if asked == CPU:
        return (CPU,)
    if asked != AUTO and not _GPUS.fullmatch(asked):
        msg = f"device {asked!r} is unknown; {nearest(asked, (AUTO, CPU, 'cuda', 'cuda:0', 'cuda:0,1'))}"
        raise InputError(msg)
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == AUTO:
        return tuple(f"cuda:{number}" for number in range(count) if not unusable(number)) or (CPU,)
    _, _, numbers = asked.partition(":")
    chosen = [int(number) for number in numbers.split(",")] if numbers else range(count)
    if not count or max(chosen) >= count:
        there = f"torch sees {counted(count, 'GPU')}" if count else "torch sees no GPU here"
        msg = f"device {asked!r} is not there: {there}; `auto` takes the CPU where there is none"
        raise InputError(msg)
    if wrong := next(filter(None, map(unusable, chosen)), None):
        msg = f"device {asked!r}: {wrong}; `auto` takes another device"
        raise InputError(msg)
    return tuple(f"cuda:{number}" for number in dict.fromkeys(chosen))


def unusable(number: int) -> str | None:
    """A sentence if this torch holds no code for a GPU, as newer ones for old GPUs; else None."""
    import torch

    builds = re.findall(r"(sm|compute)_(\d+)(\d)", " ".join(torch.cuda.get_arch_list()))
    if torch.version.hip or not builds:
        return None
    own = torch.cuda.get_device_capability(number)
    for kind, major, minor in builds:
        of = int(major), int(minor)
        if of <= own and (kind == "compute" or of[0] == own[0]):
            return None
    return (
        f"{torch.cuda.get_device_name(number)} (compute capability {own[0]}.{own[1]}) is none of the GPUs that torch "
        f"{torch.__version__} was built for ({', '.join(torch.cuda.get_arch_list())})"
    )


def require(asked: str) -> None:
    """Raise InputError where a device is not there. ``auto`` always is, and is not looked up: that imports torch."""
    if asked != AUTO:
        resolve(asked)


def of_this_process(asked: str) -> str:
    """The device of a worker process: the workers of a pool take turns; any other process takes the first device."""
    devices = resolve(asked)
    return devices[turn() % len(devices)]


def turn() -> int:
    """The number with which the name of this process ends: successive in the workers that a program has started."""
    number = re.search(r"\d+$", multiprocessing.current_process().name)
    return int(number[0]) if number else 0


def card(device: str) -> str | None:
    """The name of the GPU; None for the CPU."""
    if device == CPU:
        return None
    import torch

    return torch.cuda.get_device_name(device)


def require_precision(asked: str | None) -> None:
    """Raise InputError where a precision is none of PRECISIONS; None is allowed."""
    if asked is not None:
        require_known("precision", asked, PRECISIONS)


@functools.cache
def slow_in_bfloat16() -> str | None:
    """A sentence where this processor takes longer for a convolution in bfloat16 than in float32; else None."""
    import torch
    from torch.nn import functional

    def seconds(kind: torch.dtype) -> float:
        x, weight = (torch.ones(shape, dtype=kind) for shape in ((1, 64, 56, 56), (64, 64, 3, 3)))
        spent = []
        for _ in range(3):
            begin = time.process_time()
            functional.conv2d(x, weight, padding=1)
            spent.append(time.process_time() - begin)
        return min(spent)

    with torch.inference_mode():
        ratio = seconds(torch.bfloat16) / seconds(torch.float32)
    if ratio <= 1:
        return None
    return (
        f"this processor takes {ratio:.1f} times as long in bfloat16 as in float32 (one convolution was timed); "
        "precision fp32 (--precision) is faster here"
    )


def in_batches(compute: Callable[[slice], Found], count: int, at_once: int) -> list[Found]:
    """What a function finds of `count` frames, `at_once` at a time; half as many from where the GPU's memory is full.

    Raises:
        RuntimeError: the memory does not suffice for a single frame, or the function failed otherwise.
    """
    found, start = [], 0
    while start < count:
        part = slice(start, min(start + at_once, count))
        try:
            found.append(compute(part))
        except RuntimeError as error:
            if not is_out_of_memory(error) or part.stop - start == 1:
                raise
            at_once = (part.stop - start) // 2
            continue
        start = part.stop
    return found
