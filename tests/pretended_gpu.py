"""A pytest plugin that pretends a GPU: its tensors say that they are on ``cuda:0``, and the CPU computes them.

As on a GPU, a function of tensors of both devices is an error, and so is a NumPy array of a tensor that was not moved
back. So the tests of a network also show that all of it is on its device::

    PYTHONPATH=tests pytest -p pretended_gpu tests/test_dover.py

The plugin builds every feature that can run on a GPU there, and ends with the names of those that no test has built.
Functions that only the CPU has, those of oneDNN, are errors, and so are operations that CUDA does not have, or not of
integers. It cannot show speed, memory and a real GPU's values.

With the environment variable ``AVBENCH_TEST_GPU``, such as ``cuda:0``, the same tests run on that device instead. This
has run on no GPU yet.
"""

import contextlib
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as trees
from torch.utils._python_dispatch import TorchDispatchMode

from avbench.features import table

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
_SAYS = {
    torch.Tensor.device.__get__: GPU,
    torch.Tensor.is_cuda.__get__: True,
    torch.Tensor.is_cpu.__get__: False,
    torch.Tensor.is_meta.__get__: False,
}
_TAKES_BOTH = (torch.Tensor.to, torch.Tensor.copy_, torch.Tensor.__getitem__, torch.Tensor.__setitem__)
_CPU_ONLY = ("mkldnn", "onednn")
_TESTS = Path(__file__).parent


class OnGPU(torch.Tensor):
    """A tensor that says it is on the GPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "OnGPU":
        made = torch.Tensor._make_subclass(cls, inner)
        made.inner = inner
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _computed(func, args, kwargs or {})


class Pretended(TorchFunctionMode):
    """While it is entered, every function of torch may be asked for the GPU."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _computed(func, args, kwargs or {})


class OnCUDA(TorchDispatchMode):
    """While it is entered, an operation of which torch has no kernel for CUDA is an error, and so are some of integers.

    A torch that was built without CUDA does not know the kernels, so there it finds nothing.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name, kwargs = func._schema.name, kwargs or {}
        known = [kind for kind in _KERNELS if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), kind)]
        if torch.version.cuda and not known and not name.endswith("_for_cpu"):  # torch itself has chosen that one
            msg = f"{name} has no kernel for CUDA"
            raise NotImplementedError(msg)
        given = [each for each in trees.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        whole = [each.dtype for each in given if not (each.is_floating_point() or each.is_complex())]
        if whole and name.removeprefix("aten::").startswith(_OF_FLOATS):
            msg = f"{name} is not implemented for {whole[0]} on CUDA"
            raise NotImplementedError(msg)
        return func(*args, **kwargs)


_KERNELS = ("CUDA", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional", "CompositeImplicitAutograd")
_OF_FLOATS = (
    *("mm", "bmm", "addmm", "baddbmm", "matmul", "linear", "_cdist", "_fft", "_linalg", "linalg_", "convolution"),
    *("_convolution", "conv1d", "conv2d", "conv3d", "upsample_bi", "upsample_tri", "_upsample_bi", "grid_sampler"),
    *("avg_pool", "adaptive_avg_pool", "replication_pad", "reflection_pad"),
)
"""Beginnings of the names of operations that CUDA computes for floating-point numbers alone; the CPU for others too."""


def _computed(func: Any, args: tuple, kwargs: dict) -> Any:
    """What the CPU computes, on the GPU if it was asked for there, or else if it was given tensors from there."""
    given = [each for each in trees.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    there = [each for each in given if isinstance(each, OnGPU)]
    if there and func in _SAYS:
        return _SAYS[func]
    if there and func is torch._has_compatible_shallow_copy_type:
        return False  # so a module takes the moved parameter in place of its own
    if there:
        _require_possible(func, given, force=bool(kwargs.get("force")))
    asked = _device_asked(func, args, kwargs)
    on_gpu = bool(there) if asked is None else asked == GPU
    if asked == GPU:
        args, kwargs = trees.tree_map(lambda each: CPU if _is_device(each) else each, (args, kwargs))
    if func is torch.Tensor.to and len(there) < len(given) > 1:  # to where the other tensor is
        on_gpu = isinstance(args[1], OnGPU)
    args, kwargs = trees.tree_map(lambda each: each.inner if isinstance(each, OnGPU) else each, (args, kwargs))
    with OnCUDA() if on_gpu else contextlib.nullcontext():
        found = func(*args, **kwargs)
    if func in (torch.Tensor.to, torch.Tensor.cpu) and on_gpu != bool(there):
        found = found.clone()  # a move is a copy
    same = {id(each.inner): each for each in there}  # what works in place returns what it was given

    def placed(each: Any) -> Any:
        if not isinstance(each, torch.Tensor) or not on_gpu:
            return each
        return same[id(each)] if id(each) in same else OnGPU(each)

    return trees.tree_map(placed, found)


def _require_possible(func: Any, given: list[torch.Tensor], *, force: bool) -> None:
    """Raise what torch would raise on a GPU."""
    name = getattr(func, "__name__", str(func))
    if any(word in str(func) for word in _CPU_ONLY):
        msg = f"{name} has no implementation for CUDA"
        raise NotImplementedError(msg)
    # Tests look into features and may read what lies on the GPU.
    if name in ("numpy", "__array__") and not force and _TESTS not in Path(sys._getframe(3).f_code.co_filename).parents:
        msg = "a tensor on cuda:0 cannot be a NumPy array; use Tensor.cpu() first"
        raise TypeError(msg)
    joins = func in (torch.cat, torch.stack)  # which take no number from the CPU
    on_cpu = [each for each in given if not isinstance(each, OnGPU)]
    beside = [tuple(each.shape) for each in on_cpu if (each.dim() or joins) and each.numel()]
    taken = func in _TAKES_BOTH and not (func is torch.Tensor.__getitem__ and not isinstance(given[0], OnGPU))
    if beside and not taken:
        msg = f"{name} takes tensors of one device, and of these the shapes {beside} are on the CPU, others on cuda:0"
        raise RuntimeError(msg)


def _device_asked(func: Any, args: tuple, kwargs: dict) -> torch.device | None:
    if func is torch.Tensor.cpu:
        return CPU
    if func is torch._C._nn._parse_to:
        return None
    places = (*args, *kwargs.values()) if func is torch.Tensor.to else (kwargs.get("device"),)
    found = next((torch.device(each) for each in places if _is_device(each)), None)
    return GPU if found is not None and found.type == GPU.type else found


def _is_device(each: Any) -> bool:
    return isinstance(each, torch.device) or (isinstance(each, str) and each.split(":")[0] in ("cpu", "cuda"))


def _built_on_the_gpu(build: Callable) -> Callable:
    """The `__init__` of a feature, for which the GPU stands in place of the CPU."""

    @functools.wraps(build)
    def built(self: Any, device: str = "cpu", *args: Any, **kwargs: Any) -> None:
        build(self, (_REAL or str(GPU)) if device == "cpu" else device, *args, **kwargs)
        _built.add(type(self))

    return built


_REAL = os.environ.get("AVBENCH_TEST_GPU")
_built: set[type] = set()
"""The features that were built without an error."""


def _features() -> dict[str, type]:
    kinds = {name: table.feature_class(name) for name in table.FEATURES}
    return {name: kind for name, kind in kinds.items() if getattr(kind, "on_gpu", False)}


def _with_constructors() -> Iterable[Any]:
    """Every class with a constructor of its own of which features are made."""
    bases = {base for kind in _features().values() for base in kind.__mro__}
    return [base for base in bases if "__init__" in vars(base) and "device" in inspect.signature(base).parameters]


@contextlib.contextmanager
def pretended() -> Iterator[None]:
    """While it is entered, features are built on the GPU, and tensors can be moved there and made there."""
    with pytest.MonkeyPatch.context() as patch, Pretended():
        for kind in _with_constructors():
            patch.setattr(kind, "__init__", _built_on_the_gpu(kind.__init__))
        yield


@contextlib.contextmanager
def real() -> Iterator[None]:
    """While it is entered, features are built on the real device, from which tests may read as they may here."""

    def read(from_here: Callable) -> Callable:
        @functools.wraps(from_here)
        def array(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            by_a_test = _TESTS in Path(sys._getframe(1).f_code.co_filename).parents
            return from_here(self.cpu() if by_a_test else self, *args, **kwargs)

        return array

    with pytest.MonkeyPatch.context() as patch:
        for kind in _with_constructors():
            patch.setattr(kind, "__init__", _built_on_the_gpu(kind.__init__))
        for name in ("numpy", "__array__"):
            patch.setattr(torch.Tensor, name, read(getattr(torch.Tensor, name)))
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    with real() if _REAL else pretended():
        return (yield)


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if item.get_closest_marker("one_device")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter):
    features = _features()
    missing = [name for name, kind in features.items() if kind not in _built]
    terminalreporter.write_line(
        f"{len(features) - len(missing)} of {len(features)} features were built on {_REAL or 'the GPU'}"
    )
    if missing:
        terminalreporter.write_line(f"and these were not: {', '.join(missing)}")
