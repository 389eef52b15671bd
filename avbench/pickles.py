"""What do a pickle and a PyTorch checkpoint hold? Read without running anything in them.

A pickle names the functions that rebuild its objects, and an ordinary reader calls whatever it names. These readers
know those that rebuild a numpy array, or a tensor, and refuse every other name.
"""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from avbench.core import InputError, first_line


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a pickled checkpoint of nested dicts of arrays, flattened to ``"a/b/c" → array``.

    Nothing in the file is run: the only globals it may name are those that rebuild a numpy array.

    Raises:
        InputError: the file names any other global, holds anything but numeric arrays, or is not a pickle.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, value in _leaves(read_pickle(path)):
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
            msg = f"{path}: {name or 'the whole'} is not a numeric array; a checkpoint holds nothing else"
            raise InputError(msg)
        if name in arrays:
            msg = f"{path}: {name} occurs twice"
            raise InputError(msg)
        arrays[name] = value
    return arrays


def read_pickle(path: Path) -> Any:
    """What a pickle of dicts, lists, numbers, text and numpy arrays holds; no code in it is run.

    Raises:
        InputError: the file names any global besides those that rebuild a numpy array, or is not a pickle.
    """
    try:
        with Path(path).open("rb") as stream:
            return _ArrayUnpickler(stream).load()
    except InputError:
        raise
    # A damaged pickle can fail in any of these ways; each only says that the file is no checkpoint.
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError, LookupError, AttributeError, OSError) as error:
        msg = f"{path} cannot be read as a pickle of arrays: {error}"
        raise InputError(msg) from None


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Read a flat PyTorch state dict, bare or as a checkpoint's ``model`` or ``module``; no code is run.

    Raises:
        InputError: the file holds anything else.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its readers raise; each says that this is no state dict
        msg = f"{path} cannot be read as a state dict: {first_line(error)}"
        raise InputError(msg) from None
    for wrapper in ("model", "module"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        msg = f"{path} is not a flat state dict of tensors"
        raise InputError(msg)
    return {str(name): value.numpy() for name, value in state.items()}


# numpy's own rebuilding function, taken from a pickled array: its module has changed its name over the years.
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
_SCALAR: Any = np.float64(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.multiarray", "scalar"): _SCALAR,
    ("numpy._core.multiarray", "scalar"): _SCALAR,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Looks names up in a table, and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            msg = f"the file asks for {module}.{name}, which is no array; it is refused and was not run"
            raise InputError(msg)
        return _ALLOWED[module, name]


def _leaves(tree: object, name: str = "") -> Iterator[tuple[str, object]]:
    if not isinstance(tree, dict):
        yield name, tree
        return
    for key, value in tree.items():
        yield from _leaves(value, f"{name}/{key}" if name else str(key))
