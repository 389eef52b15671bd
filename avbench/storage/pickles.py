"""Reads pickles and PyTorch checkpoints of arrays without running code in them.

A pickle names the functions that rebuild its objects, and an ordinary reader calls whatever it names. These readers
allow only the functions that rebuild numpy arrays and tensors, and refuse every other name.
"""

import os
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from avbench.core import InputError, first_line
from avbench.storage.reading import limits, opened, require_memory, require_zip_memory


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
    """Read a pickle of dicts, lists, numbers, text and numpy arrays. No code in it is run.

    Raises:
        InputError: the file names any global besides those that rebuild a numpy array, or is not a pickle.
    """
    try:
        with opened(Path(path)) as stream:
            size = os.fstat(stream.fileno()).st_size
            require_memory(Path(path), size)
            _require_modest(stream, size)
            stream.seek(0)
            return _ArrayUnpickler(stream).load()
    except InputError:
        raise
    # A damaged pickle can fail in any of these ways; each means that the file is no checkpoint.
    except (*_BROKEN, MemoryError, RecursionError) as error:
        msg = f"{path} cannot be read as a pickle of arrays: {error}"
        raise InputError(msg) from None


_BROKEN = (pickle.UnpicklingError, EOFError, TypeError, ValueError, LookupError, AttributeError, OSError, OverflowError)
_MEMO = ("PUT", "BINPUT", "LONG_BINPUT")


def _require_modest(stream: BinaryIO, size: int) -> None:
    """Raise ValueError if a pickle numbers its memo entries beyond its own size.

    The reader allocates all entries up to the highest number; a real pickle numbers them consecutively.
    """
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name in _MEMO and isinstance(argument, int) and argument > size:
            msg = f"it asks for a memo of {argument:,} objects, more than it has bytes"
            raise ValueError(msg)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Read a flat PyTorch state dict, bare or as a checkpoint's ``model`` or ``module``; no code is run.

    Raises:
        InputError: the file holds anything else.
    """
    import torch

    require_zip_memory(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's readers raise their own errors; any of them means that it is no state dict
        msg = f"{path} cannot be read as a state dict: {first_line(error)}"
        raise InputError(msg) from None
    for wrapper in ("model", "module"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        msg = f"{path} is not a flat state dict of tensors"
        raise InputError(msg)
    found = {}
    for name, value in state.items():
        require_memory(path, value.numel() * value.element_size())  # an expanded tensor's storage is smaller
        try:
            found[str(name)] = value.detach().numpy()
        except (TypeError, RuntimeError) as error:  # sparse, without values, or of a type that numpy lacks
            msg = f"{path}: {name} is no array: {first_line(error)}"
            raise InputError(msg) from None
    return found


def _rebuilt(*_: object) -> np.ndarray:
    """Return an empty array, which the pickle then fills. numpy's own function would allocate any requested size."""
    return _RECONSTRUCT(np.ndarray, (0,), b"b")


# numpy's rebuilding functions, taken from a pickled array, because numpy has renamed their module.
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
_SCALAR: Any = np.float64(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "numpy.ndarray",  # only named in a pickle; called, it would make an array of any size
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _rebuilt,
    ("numpy._core.multiarray", "_reconstruct"): _rebuilt,
    ("numpy.core.multiarray", "scalar"): _SCALAR,
    ("numpy._core.multiarray", "scalar"): _SCALAR,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Looks up names in a table and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            msg = f"the file names the function {module}.{name}, which builds no array; it was refused and not run"
            raise InputError(msg)
        return _ALLOWED[module, name]


def _leaves(tree: object) -> Iterator[tuple[str, object]]:
    """Yield the values in nested dicts with their paths. Dicts nested too deep, or inside themselves, are refused."""
    todo: list[tuple[str, object, int]] = [("", tree, 0)]
    while todo:
        name, one, depth = todo.pop()
        if not isinstance(one, dict):
            yield name, one
        elif depth == limits().depth:
            msg = f"it nests dicts more than {depth} deep"
            raise InputError(msg)
        else:
            inner = [(f"{name}/{key}" if name else str(key), value, depth + 1) for key, value in one.items()]
            todo += reversed(inner)
