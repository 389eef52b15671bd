"""Stage 4: metrics. The functions below work on plain arrays, without a run or a folder.

>>> import numpy as np
>>> from avbench.metrics import frechet_distance
>>> features = np.random.default_rng(0).normal(size=(64, 8))
>>> round(frechet_distance(features, features + 1), 3)
8.0
"""

from avbench.metrics.distance import frechet_distance, kernel_distance

__all__ = ["frechet_distance", "kernel_distance"]
