"""Frees a GPU's memory, and tells its errors apart. It looks at torch only where this process has imported it."""

import gc
import sys

_FULL = ("out of memory", "ALLOC_FAILED", "DEVICE_ALLOCATION_FAILED", "NOT_INITIALIZED", "unable to find an engine")
"""In errors of CUDA, of its libraries, and of torch where no method of cuDNN has the memory that it needs."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether a computation failed because the GPU's memory is full."""
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _FULL)


def is_lost() -> bool:
    """Whether this process can no longer use its GPU: after some errors of CUDA every later call fails too."""
    torch = sys.modules.get("torch")
    if not torch or not torch.cuda.is_initialized():
        return False
    try:
        for device in range(torch.cuda.device_count()):
            if torch.cuda.memory_reserved(device):  # a GPU that is not used yet would need memory for the call
                torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def free_memory() -> None:
    """Give back the memory of what nobody uses any more, also that which torch keeps on the GPU for itself."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def forget_peak() -> None:
    """Let `peak_mib` begin anew."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def peak_mib() -> float | None:
    """The most memory in MiB that torch has held for tensors, summed over the GPUs; None where it has held none."""
    torch = sys.modules.get("torch")
    if not torch or not torch.cuda.is_initialized():
        return None
    most = sum(torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count()))
    return round(most / 2**20, 1) or None
