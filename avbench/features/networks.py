"""Fills the networks of features with weights and runs them so that the numbers are the same on any device.

torch is imported when a network is used, not when a feature's protocol is read: it takes seconds and much memory.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from avbench.core import InputError, first_line
from avbench.storage.reading.pickles import read_state_dict
from avbench.storage.weights import locate

if TYPE_CHECKING:
    import torch
    from torch import nn

Network = TypeVar("Network", bound="nn.Module")


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """A context, and a decorator, for inference whose numbers agree on every device.

    TF32 changes the third digit and is off, whatever the process has set, and so is bfloat16 in place of float32 on a
    CPU; so are algorithms chosen by timing.
    """
    import torch

    with _settings_kept() as kinds:
        cudnn: Any = torch.backends.cudnn
        torch.set_float32_matmul_precision("highest")
        cudnn.allow_tf32 = False
        for kind in kinds:
            kind.fp32_precision = "ieee"
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic = True, False, True
        with torch.inference_mode():
            yield


@contextlib.contextmanager
def _settings_kept() -> Iterator[list[Any]]:
    """Restore torch's settings of precision and of cuDNN afterwards; yields the kinds of operations that have one.

    torch 2.9 has new settings beside the old ones. Where a program has used the new ones, the old ones cannot be read.
    """
    import torch

    cuda: Any = torch.backends.cuda
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    parts = (cuda, cudnn, ("matmul",)), (cudnn, cudnn, ("conv", "rnn")), (mkldnn, mkldnn, ("matmul", "conv", "rnn"))
    chosen: list[tuple[Any, str, str]] = []
    for part, whole, names in parts:
        kinds: list[Any] = [getattr(part, name, None) for name in names]
        chosen += [
            (kind, kind.fp32_precision, whole.fp32_precision) for kind in kinds if hasattr(kind, "fp32_precision")
        ]
    products, convolutions = "highest", True  # torch's defaults
    with contextlib.suppress(RuntimeError):
        products = torch.get_float32_matmul_precision()
    with contextlib.suppress(RuntimeError):
        convolutions = cudnn.allow_tf32
    algorithms = cudnn.enabled, cudnn.benchmark, cudnn.deterministic
    try:
        yield [kind for kind, _, _ in chosen]
    finally:
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic = algorithms
        torch.set_float32_matmul_precision(products)
        cudnn.allow_tf32 = convolutions
        for kind, precision, of_whole in chosen:
            kind.fp32_precision = "none" if precision == of_whole else precision  # it follows the whole's


def filled(network: Network, state: Mapping[str, "torch.Tensor | np.ndarray"], what: str) -> Network:
    """The network with these weights, ready to infer.

    Args:
        network: a network whose parameters have the names of the checkpoint.
        state: tensors by name; none may be missing or left over.
        what: what an error calls the checkpoint, for example ``the DINO checkpoint``.

    Raises:
        InputError: a tensor is missing, unexpected or of the wrong shape; the message names it.
    """
    import torch

    tensors = {name: torch.as_tensor(value) for name, value in state.items()}
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        msg = f"{what} does not fit: {str(error).splitlines()[1].strip()}"
        raise InputError(msg) from None
    return network.eval().requires_grad_(False)


def planes(frames: np.ndarray, device: "torch.device | str" = "cpu") -> "torch.Tensor":
    """``[frames, height, width, 3]`` uint8 as ``[frames, 3, height, width]`` float32 in 0...255, on a device."""
    import torch

    return torch.from_numpy(np.array(frames)).to(device).permute(0, 3, 1, 2).float()


def loaded(network: Network, weight: str, what: str, unused: tuple[str, ...] = ()) -> Network:
    """The network `filled` with the tensors in the file of a weight, but those whose names begin as `unused` says.

    Raises InputError if the file is missing or cannot be read, or if a tensor does not fit.
    """
    state = read_state_dict(locate(weight))
    return filled(network, {name: value for name, value in state.items() if not name.startswith(unused)}, what)


LOCAL: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""How everything of transformers is read: from the folder alone, running none of its code."""


@contextlib.contextmanager
def read_as(what: str, path: Path) -> Iterator[None]:
    """Turn any error of reading a file or folder into an InputError that calls its content `what`."""
    try:
        yield
    except Exception as error:  # transformers, torch and safetensors each raise their own errors
        msg = f"{path} cannot be read as a {what}: {first_line(error)}"
        raise InputError(msg) from None


def pretrained(kind: Any, folder: Path, what: str, parts: Iterable[str], **options: Any) -> Any:
    """A network of transformers with a folder's weights, in float32, ready to infer on the CPU.

    Args:
        kind: its class.
        folder: what the user provided.
        what: what an error calls the network.
        parts: the beginnings of the names of weights of which none may be missing or left over; ``""`` means all.
        options: more options of ``from_pretrained``.

    Raises:
        InputError: the folder cannot be read, or its weights are not those of the network.
    """
    import torch

    with read_as(what, folder):  # with output_loading_info it returns a pair
        model, report = kind.from_pretrained(folder, output_loading_info=True, dtype=torch.float32, **LOCAL, **options)
    for part in parts:
        require_complete(report, part, folder, what)
    return model.eval().requires_grad_(False)


def require_complete(report: Mapping[str, Iterable[str]], part: str, folder: Path, what: str) -> None:
    """Raise InputError if transformers' loading report lists a missing or an unused weight of `part`."""
    if missing := sorted(name for name in report["missing_keys"] if name.startswith(part)):
        msg = f"{folder} is no {what}: its weights lack {missing[0]}"
        raise InputError(msg)
    if over := sorted(name for name in report["unexpected_keys"] if name.startswith(part)):
        msg = f"{folder} is no {what}: its weights hold {over[0]}, which the network does not have"
        raise InputError(msg)
