"""Compares distances and times with those of other tools, on the same features.

    pip install cd-fvd torch-fidelity torchmetrics
    python benchmarks/peers.py

Features are Gaussian with variances that fall as 1/k, 400 wide like I3D logits. The peers' own code runs in this
process, once to warm up and then in turns with ours. It prints values, relative differences and ratios of times.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from avbench.metrics.frechet import Frechet, frechet_distance
from avbench.metrics.kernel import Kernel, kernel_distance
from avbench.statistics.uncertainty import permutation_null

Call = Callable[[], float]
ROUNDS = 3


def peers(x: np.ndarray, y: np.ndarray) -> dict[str, tuple[Call, Call]]:
    """What is compared → (theirs, ours)."""
    import cdfvd.fvd
    from torch_fidelity.metric_fid import fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torchmetrics.image.fid import _compute_fid
    from torchmetrics.image.kid import poly_mmd

    tensors = [torch.from_numpy(side) for side in (x, y)]
    whole = {"kid_subsets": 1, "kid_subset_size": min(len(x), len(y)), "verbose": False}

    def statistics(side: np.ndarray) -> dict[str, np.ndarray]:
        return {"mu": side.mean(axis=0), "sigma": np.cov(side, rowvar=False)}

    def cd_fvd() -> float:
        stats = []
        for side in (x, y):
            kept = cdfvd.fvd.FeatureStats(capture_mean_cov=True)
            kept.append(side)
            stats.append(kept)
        return float(cdfvd.fvd.cdfvd.compute_fvd_from_stats(None, *stats))  # type: ignore[arg-type]

    def fidelity_frechet() -> float:
        found = fid_statistics_to_metric(statistics(x), statistics(y), verbose=False)
        return float(found["frechet_inception_distance"])

    def metrics_frechet() -> float:
        return float(_compute_fid(*(part for side in tensors for part in (side.mean(dim=0), side.T.cov()))))

    def fidelity_kernel() -> float:
        return float(kid_features_to_metric(*tensors, **whole)["kernel_inception_distance_mean"])

    return {
        "Fréchet, cd-fvd": (cd_fvd, lambda: frechet_distance(x, y, ddof=0)),
        "Fréchet, torch-fidelity": (fidelity_frechet, lambda: frechet_distance(x, y)),
        "Fréchet, torchmetrics": (metrics_frechet, lambda: frechet_distance(x, y)),
        "kernel, torch-fidelity": (fidelity_kernel, lambda: kernel_distance(x, y)),
        "kernel, torchmetrics": (lambda: float(poly_mmd(*tensors)), lambda: kernel_distance(x, y)),
    }


def seconds(call: Call) -> tuple[float, float]:
    """The value, and how long it took."""
    start = time.perf_counter()
    value = call()
    return value, time.perf_counter() - start


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[300, 2048])
    parser.add_argument("--dimensions", type=int, default=400)
    options = parser.parse_args()
    console = Console()
    for n in options.clips:
        random = np.random.default_rng(n)
        spectrum = 20 / np.sqrt(np.arange(1, options.dimensions + 1))
        x = random.standard_normal((n, options.dimensions)) * spectrum
        y = random.standard_normal((n, options.dimensions)) * spectrum**1.1 + 0.3
        table = Table("what", "theirs", "ours", "relative difference", "their time / ours")
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")
            for what, (theirs, ours) in peers(x, y).items():
                rounds = [(seconds(theirs), seconds(ours)) for _ in range(ROUNDS + 1)][1:]
                (value, _), (own, _) = rounds[0]
                ratio = min(one for (_, one), _ in rounds) / min(one for _, (_, one) in rounds)
                table.add_row(what, f"{value:.6g}", f"{own:.6g}", f"{own / value - 1:.1e}", f"{ratio:.1f}")
        console.print(f"{n} clips a side, {options.dimensions} dimensions", table)
        for statistic in (Frechet, Kernel):
            pooled = statistic(np.concatenate([x, y]))
            null, spent = permutation_null, time.perf_counter()
            null(pooled, range(n), range(n, 2 * n))
            console.print(f"1,000 permutations of {statistic.__name__}: {time.perf_counter() - spent:.1f} s")


if __name__ == "__main__":
    main()
