"""Reads pickles and PyTorch checkpoints of arrays without running code in them.

A pickle names the functions that rebuild its objects, and an ordinary reader calls whatever it names. These readers
allow only the functions that rebuild numpy arrays and tensors, and refuse every other name. numpy's own functions trust
what a pickle says of an array, and a damaged description ends the process; so they are replaced by checked ones.
"""

import io
import math
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
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
        arrays[name] = np.asarray(value)
    return arrays


def read_pickle(path: Path) -> Any:
    """Read a pickle of dicts, lists, numbers, text and numpy arrays. No code in it is run.

    Raises:
        InputError: the file names any global besides those that rebuild a numpy array, or is not a pickle.
    """
    with opened(Path(path)) as stream:
        size = os.fstat(stream.fileno()).st_size
        require_memory(Path(path), size)
        return _unpickled(path, stream, size)


def _unpickled(path: Path, stream: BinaryIO, size: int) -> Any:
    try:
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


def read_torch_file(path: Path, most: int) -> Any:
    """Read what torch.save wrote of numpy arrays, or of tensors; no code is run.

    Args:
        path: the file.
        most: bytes of memory that it may take.

    Raises:
        InputError: the file holds anything else, or both.
    """
    require_zip_memory(path, most)
    with suppress(Exception), opened(path) as file, zipfile.ZipFile(file) as packed:  # what is wrong is said below
        content = packed.read(next(one for one in packed.namelist() if one.endswith("/data.pkl")))
        return _unpickled(path, io.BytesIO(content), len(content))
    return _torch_load(path, "a file of torch.save with arrays or tensors")


def _torch_load(path: Path, what: str) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's readers raise their own errors; any of them means that it is no such file
        # torch's own sentence advises to run the file's code
        why = "it holds other things, or is damaged" if "weights_only" in str(error) else first_line(error)
        msg = f"{path} cannot be read as {what}: {why}"
        raise InputError(msg) from None


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Read a flat PyTorch state dict, bare or as a checkpoint's ``model``, ``module`` or
    ``state_dict``; no code is run.

    Raises:
        InputError: the file holds anything else.
    """
    import torch

    require_zip_memory(path)
    state = _torch_load(path, "a state dict")
    for wrapper in ("model", "module", "state_dict"):
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


class _Type:
    """An array's type as a pickle describes it: a letter and a size, and then the order of the bytes."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            msg = f"an array of the type {code!r:.60} is not a numeric array"
            raise TypeError(msg)
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "=", "|"):
            msg = f"an array has the order of bytes {state[1]!r:.60}"
            raise ValueError(msg)
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose description is checked before numpy takes it."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        _require_content(kind, shape, content)
        checked: Any = (1, shape, kind.dtype, bool(fortran), content)
        super().__setstate__(checked)


def _require_content(kind: Any, shape: Any, content: Any) -> None:
    """Raise TypeError or ValueError if these bytes are not an array of this type and shape."""
    whole = isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)
    if not isinstance(kind, _Type) or not whole or not isinstance(content, bytes):
        msg = "an array is described in another way than numpy does it"
        raise TypeError(msg)
    if math.prod(shape) * kind.dtype.itemsize != len(content):
        msg = f"an array has {len(content)} bytes, which do not fit the type {kind.dtype} and the shape {shape}"
        raise ValueError(msg)


def _array(*_: object) -> np.ndarray:
    """Return an empty array, which the pickle then fills. numpy's own function would allocate any requested size."""
    return _RECONSTRUCT(_Array, (0,), b"b")


def _type(*described: object) -> _Type:
    return _Type(*described)


def _scalar(kind: _Type, content: bytes) -> Any:
    _require_content(kind, (), content)
    return np.frombuffer(content, kind.dtype)[0]


def _bytes(text: str = "", encoding: str = "latin1") -> bytes:
    """What pickles of protocols up to 2 call to make bytes."""
    if encoding != "latin1":
        msg = f"bytes are in the encoding {encoding!r:.60}"
        raise ValueError(msg)
    return text.encode("latin1")


_NUMBERS = re.compile("b1|[iu][1248]|f[248]|c8|c16")
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "numpy.ndarray",  # only named in a pickle; called, it would make an array of any size
    ("numpy", "dtype"): _type,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _array for core in ("core", "_core")},  # numpy has renamed it
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    ("_codecs", "encode"): _bytes,
    ("__builtin__", "bytes"): _bytes,
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
