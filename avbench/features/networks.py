"""Fills the networks of features with weights, each in its place, and runs them with the same numbers on any device."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from avbench.core import InputError

Network = TypeVar("Network", bound=nn.Module)


def exact() -> torch.backends.cudnn.flags:
    """A context without TF32, which moves values in the third digit, and without algorithms chosen by timing."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def filled(network: Network, state: Mapping[str, torch.Tensor | np.ndarray], what: str) -> Network:
    """The network with these weights, ready to infer.

    Args:
        network: its names are those of the checkpoint.
        state: tensors by name; none may be missing or left over.
        what: the checkpoint as an error calls it, for example ``the DINO checkpoint``.

    Raises:
        InputError: a tensor is missing, too much or misshapen; the message names it.
    """
    tensors = {name: torch.as_tensor(value) for name, value in state.items()}
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        msg = f"{what} does not fit: {str(error).splitlines()[1].strip()}"
        raise InputError(msg) from None
    return network.eval().requires_grad_(False)


def without(state: Mapping[str, Any], unused: str) -> dict[str, Any]:
    """The tensors whose names do not begin with `unused`."""
    return {name: value for name, value in state.items() if not name.startswith(unused)}


def require_complete(report: Mapping[str, Iterable[str]], part: str, folder: Path, what: str) -> None:
    """Raise InputError where transformers' loading report lacks a weight of `part` of the network, or has one over."""
    if missing := sorted(name for name in report["missing_keys"] if name.startswith(part)):
        msg = f"{folder} is no {what}: its weights lack {missing[0]}"
        raise InputError(msg)
    if over := sorted(name for name in report["unexpected_keys"] if name.startswith(part)):
        msg = f"{folder} is no {what}: its weights hold {over[0]}, which found no place"
        raise InputError(msg)
