"""What do other tools' statistics files say? n, mean and covariance, read without running anything in them.

- ``stylegan-v`` and ``cd-fvd``: the pickled FeatureStats of both, sums of features and of their products; divisor n.
- ``pytorch-fid``: .npz with mu and sigma (divisor n − 1); n is not in it and must be given.
- ``torch-fidelity``: a cached .pt of mu and sigma (divisor n − 1, n to be given), or of the features themselves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avbench.core import InputError, Moments, first_line, nearest
from avbench.pickles import read_pickle


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a file says."""

    moments: Moments
    divisor: str
    """What the tool divides a scatter by: ``n`` or ``n - 1``."""


def read(path: Path, kind: str, *, n: int | None = None) -> Statistics:
    """The statistics in another tool's file.

    Args:
        path: the file.
        kind: ``stylegan-v``, ``cd-fvd``, ``pytorch-fid`` or ``torch-fidelity``.
        n: how many clips it is of, where the file does not say.

    Raises:
        InputError: an unknown kind, a file that is not of it or would run code, no n, or statistics that no features
            can have: NaN, unlike sizes, fewer than 2 clips, or a covariance that is none.
    """
    if kind not in FORMATS:
        msg = f"format {kind!r} is unknown; {nearest(kind, FORMATS)}"
        raise InputError(msg)
    try:
        found_n, mean, covariance, ddof = FORMATS[kind](path)
    except (KeyError, TypeError, AttributeError) as error:
        msg = f"{path} is not a {kind} file: {error}"
        raise InputError(msg) from None
    if found_n is not None and n is not None and found_n != n:
        msg = f"{path} is of {found_n} clips, not of {n}"
        raise InputError(msg)
    count = found_n if found_n is not None else n
    if count is None:
        msg = f"{path} does not say how many clips it is of; give --n"
        raise InputError(msg)
    mean, covariance = np.asarray(mean, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    _require_statistics(path, count, mean, covariance)
    return Statistics(Moments(count, mean, covariance * (count - ddof)), "n - 1" if ddof else "n")


def _require_statistics(path: Path, n: int, mean: np.ndarray, covariance: np.ndarray) -> None:
    why = None
    if n < 2:
        why = f"it is of {n} clips, and a distance needs 2"
    elif mean.ndim != 1 or covariance.shape != (mean.size, mean.size):
        why = f"its mean has shape {mean.shape} and its covariance {covariance.shape}"
    elif not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        why = "it holds NaN or infinity"
    elif not np.allclose(covariance, covariance.T, rtol=1e-4, atol=1e-6 * np.abs(covariance).max()):
        why = "its covariance is not symmetric"
    elif (values := np.linalg.eigvalsh(covariance))[0] < -1e-4 * max(values[-1], 0.0):
        why = f"its covariance has an eigenvalue of {values[0]:.3g}"
    if why:
        msg = f"{path} cannot be used: {why}"
        raise InputError(msg)


_Read = tuple[int | None, Any, Any, int]
"""n or None, mean, covariance, and 1 where the tool divides by n − 1."""


def _feature_stats(path: Path) -> _Read:
    stats = read_pickle(path)
    if not isinstance(stats, Mapping) or not stats.get("capture_mean_cov") or stats.get("raw_cov") is None:
        msg = f"{path} holds no mean and covariance, as a FeatureStats with capture_mean_cov does"
        raise InputError(msg)
    n = int(stats["num_items"])
    mean = np.asarray(stats["raw_mean"], dtype=np.float64) / n
    return n, mean, np.asarray(stats["raw_cov"], dtype=np.float64) / n - np.outer(mean, mean), 0


def _npz(path: Path) -> _Read:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return None, arrays["mu"], arrays["sigma"], 1
    except (OSError, EOFError, ValueError) as error:
        msg = f"{path} cannot be read as an .npz of arrays: {error}"
        raise InputError(msg) from None


def _fidelity(path: Path) -> _Read:
    import torch

    # What numpy arrays are rebuilt with, and nothing else.
    rebuild = [
        np.ndarray,
        np.dtype,
        np.empty(0).__reduce__()[0],
        type(np.dtype(np.float64)),
        type(np.dtype(np.float32)),
    ]
    try:
        with torch.serialization.safe_globals(rebuild):
            item = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its readers raise; each says that this is no such file
        msg = f"{path} cannot be read as a cache of torch-fidelity: {first_line(error)}"
        raise InputError(msg) from None
    if isinstance(item, torch.Tensor):
        if item.ndim != 2:
            msg = f"{path} holds a tensor of shape {tuple(item.shape)}; features are [clips, dimensions]"
            raise InputError(msg)
        moments = Moments.of(item.double().numpy())
        return moments.n, moments.mean, moments.scatter / max(moments.n - 1, 1), 1
    return None, item["mu"], item["sigma"], 1


FORMATS: dict[str, Callable[[Path], _Read]] = {
    "stylegan-v": _feature_stats,
    "cd-fvd": _feature_stats,
    "pytorch-fid": _npz,
    "torch-fidelity": _fidelity,
}
