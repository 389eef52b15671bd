"""Reads the statistics files of other tools (n, mean and covariance) without running code in them.

- ``stylegan-v`` and ``cd-fvd``: the pickled FeatureStats of both, sums of features and of their products; divisor n.
- ``pytorch-fid``: .npz with mu and sigma (divisor n − 1); it does not hold n, which must be given.
- ``torch-fidelity``: a cached .pt of mu and sigma (divisor n − 1, n must be given), or of the features themselves.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avbench.core import InputError, Moments, counted, require_known
from avbench.storage.reading import read_npz, require_memory
from avbench.storage.reading.pickles import read_pickle, read_torch_file

MOST_BYTES = 256 * 2**20
"""Bytes of a file's arrays: a covariance of 5,792 dimensions, twice as many as any network here has."""


_MOST_CLIPS = 2**53


@dataclass(frozen=True, eq=False)
class Statistics:
    """The content of a statistics file."""

    moments: Moments
    divisor: str
    """The divisor of the tool's covariance: ``n`` or ``n - 1``."""


def read(path: Path, kind: str, *, n: int | None = None) -> Statistics:
    """Read the statistics in another tool's file.

    Args:
        path: the file.
        kind: ``stylegan-v``, ``cd-fvd``, ``pytorch-fid`` or ``torch-fidelity``.
        n: the number of clips, if the file does not hold it.

    Raises:
        InputError: an unknown kind, a file of another kind or one that would run code, a missing n, or statistics that
            no features can have: NaN, different sizes, fewer than 2 clips, or an invalid covariance.
    """
    require_known("format", kind, FORMATS)
    try:
        found_n, mean, covariance, ddof = FORMATS[kind](path)
    except KeyError as error:
        msg = f"{path} is not a {kind} file: it has no {error}"
        raise InputError(msg) from None
    except (TypeError, AttributeError) as error:
        msg = f"{path} is not a {kind} file: {error}"
        raise InputError(msg) from None
    if found_n is not None and n is not None and found_n != n:
        msg = f"{path} is of {counted(found_n, 'clip')}, not of {n}"
        raise InputError(msg)
    count = found_n if found_n is not None else n
    if count is None:
        msg = f"{path} does not hold its number of clips; give --n"
        raise InputError(msg)
    count = _whole(path, count)
    mean, covariance = _real(path, mean, "mean"), _real(path, covariance, "covariance")
    _require_statistics(path, count, mean, covariance)
    return Statistics(Moments(count, mean, covariance * (count - ddof)), "n - 1" if ddof else "n")


def _real(path: Path, value: Any, what: str) -> np.ndarray:
    """Convert an array of real numbers to float64; refuse anything else, complex numbers and dates included."""
    array = value if isinstance(value, np.ndarray) else _tensor(path, value)
    if array is None or array.dtype.kind not in "fiu":
        found = type(value).__name__ if array is None else f"an array of {array.dtype}"
        msg = f"{path} cannot be used: its {what} is {found}; it must be an array of real numbers"
        raise InputError(msg)
    return array.astype(np.float64)


def _tensor(path: Path, value: Any) -> np.ndarray | None:
    """Convert a PyTorch tensor to float64; None if it is no tensor of real numbers in memory."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return None
    dense = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    if not dense or value.is_complex() or value.dtype == torch.bool:
        return None
    require_memory(path, value.numel() * 8, MOST_BYTES)
    return value.detach().double().numpy()


def _whole(path: Path, value: Any) -> int:
    """The number of clips, if the file holds it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        real = isinstance(value, float | np.floating) and float(value).is_integer()
        if not real:
            msg = f"{path} cannot be used: its num_items is {value!r:.60}; it must be a whole number"
            raise InputError(msg)
    if not 0 < (count := int(value)) < _MOST_CLIPS:
        msg = f"{path} cannot be used: it is of {counted(count, 'clip')}"
        raise InputError(msg)
    return count


def _require_statistics(path: Path, n: int, mean: np.ndarray, covariance: np.ndarray) -> None:
    _require_shapes(path, mean, covariance)
    why = None
    if n < 2:
        why = f"it is of {counted(n, 'clip')}, and a distance needs 2"
    elif not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        why = "it holds NaN or infinity"
    elif not covariance.any():
        why = "its covariance is zero, as if all clips were the same"
    elif not np.allclose(covariance, covariance.T, rtol=1e-4, atol=1e-6 * np.abs(covariance).max()):
        why = "its covariance is not symmetric"
    elif (values := np.linalg.eigvalsh(covariance))[0] < -1e-4 * max(values[-1], 0.0):
        why = f"its covariance has an eigenvalue of {values[0]:.3g}"
    if why:
        msg = f"{path} cannot be used: {why}"
        raise InputError(msg)


def _require_shapes(path: Path, mean: np.ndarray, covariance: np.ndarray) -> None:
    if mean.ndim != 1 or not mean.size or covariance.shape != (mean.size, mean.size):
        msg = f"{path} cannot be used: its mean has shape {mean.shape} and its covariance {covariance.shape}"
        raise InputError(msg)


_Read = tuple[int | None, Any, Any, int]
"""n or None, mean, covariance, and 1 if the tool divides by n − 1."""


def _feature_stats(path: Path) -> _Read:
    stats = read_pickle(path)
    if not isinstance(stats, Mapping) or stats.get("capture_mean_cov") is not True or stats.get("raw_cov") is None:
        msg = f"{path} holds no mean and covariance, as a FeatureStats with capture_mean_cov does"
        raise InputError(msg)
    n = _whole(path, stats["num_items"])
    sums, products = _real(path, stats["raw_mean"], "raw_mean"), _real(path, stats["raw_cov"], "raw_cov")
    _require_shapes(path, sums, products)
    mean = sums / n
    return n, mean, products / n - np.outer(mean, mean), 0


def _npz(path: Path) -> _Read:
    arrays = read_npz(path, ("mu", "sigma"), MOST_BYTES)
    return None, arrays["mu"], arrays["sigma"], 1


def _fidelity(path: Path) -> _Read:
    import torch

    item = read_torch_file(path, MOST_BYTES)
    if isinstance(item, torch.Tensor):
        if item.ndim != 2:
            msg = f"{path} holds a tensor of shape {tuple(item.shape)}; features are [clips, dimensions]"
            raise InputError(msg)
        moments = Moments.of(_real(path, item, "features"))
        return moments.n, moments.mean, moments.scatter / max(moments.n - 1, 1), 1
    if not isinstance(item, Mapping) or not {"mu", "sigma"} <= item.keys():
        msg = f"{path} is no cache of torch-fidelity: it holds no mu and sigma, and no tensor of features"
        raise InputError(msg)
    return None, item["mu"], item["sigma"], 1


FORMATS: dict[str, Callable[[Path], _Read]] = {
    "stylegan-v": _feature_stats,
    "cd-fvd": _feature_stats,
    "pytorch-fid": _npz,
    "torch-fidelity": _fidelity,
}
