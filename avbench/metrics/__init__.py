"""Computes metrics from rows. The functions below work on plain arrays, without a run or a folder.

>>> import numpy as np
>>> from avbench.metrics import frechet_distance
>>> features = np.random.default_rng(0).normal(size=(64, 8))
>>> round(frechet_distance(features, features + 1), 3)
8.0
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avbench.metrics.frechet import frechet_distance
    from avbench.metrics.kernel import kernel_distance

__all__ = ["frechet_distance", "kernel_distance"]


def __getattr__(name: str) -> Any:
    """Import a function when it is used: scipy takes seconds, which a list of metrics need not wait for."""
    if name not in __all__:
        msg = f"module 'avbench.metrics' has no attribute {name!r}"
        raise AttributeError(msg)
    from avbench.metrics import frechet, kernel

    return getattr(frechet if name == "frechet_distance" else kernel, name)
