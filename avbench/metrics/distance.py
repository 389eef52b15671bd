"""How far apart are two sets of clips? The Fréchet distance between their features, and FVD.

The distance fits a Gaussian to each set, and its value at n clips is mostly about n. Two sets of one distribution
in I3D's 400 dimensions (identity covariance, so the trace is 400) measured 582 apart at n = 50, 479 at 100, 265 at
300 and 40 at 2048, where the truth is 0; a real difference of 8 added about 8 to each. So an FVD means something
only beside the floor of its own n (`fvd_floor`), and FVDs of unlike n cannot be compared. A bootstrap interval is no
help: resampling with replacement moves the distance up, away from the value it should surround.
"""

from typing import Literal

import numpy as np

from avbench.core import Columns, InputError, NotMeasurable

_FLOOR_SEED = 0


def frechet_distance(x: np.ndarray, y: np.ndarray, *, ddof: Literal[0, 1] = 1) -> float:
    """Squared Fréchet distance between Gaussians fitted to features ``[n, d]`` and ``[m, d]``.

    ‖μx − μy‖² + tr Σx + tr Σy − 2 tr (Σx Σy)^½, where the last trace is the sum of the singular values of
    Xc Ycᵀ / √((n − ddof)(m − ddof)) with Xc and Yc the centred features. No matrix root is taken, so it also holds
    for fewer clips than dimensions, where covariances are singular. Rounding can leave a value just below 0; it is
    returned as it is.

    Args:
        x: One set of features, taken as float64.
        y: The other set.
        ddof: 1 for covariances divided by n − 1; 0 for n, as StyleGAN-V and cd-fvd have it.

    Raises:
        InputError: the features are not two finite matrices of one width.
        NotMeasurable: a set has fewer than 2 clips.
    """
    x, y = _checked(x), _checked(y)
    if x.shape[1] != y.shape[1]:
        msg = f"features have {x.shape[1]} and {y.shape[1]} dimensions; a distance needs one kind of features"
        raise InputError(msg)
    if (fewest := min(len(x), len(y))) < 2:
        msg = f"a Fréchet distance needs at least 2 clips in each set and one has {fewest}"
        raise NotMeasurable(msg)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    root_x = _root(x - mean_x) / np.sqrt(len(x) - ddof)
    root_y = _root(y - mean_y) / np.sqrt(len(y) - ddof)
    shared = np.linalg.svd(root_x @ root_y.T, compute_uv=False).sum()
    gap = mean_x - mean_y
    return float(gap @ gap + np.square(root_x).sum() + np.square(root_y).sum() - 2 * shared)


def fvd(columns: Columns, reference: Columns) -> float:
    """Fréchet video distance: `frechet_distance` of I3D logits. Raises NotMeasurable on fewer than 2 clips."""
    return frechet_distance(_logits(columns), _logits(reference))


def fvd_floor(reference_columns: Columns, n: int, prompts: np.ndarray | None = None, draws: int = 20) -> float:
    """What n perfect clips would score: n of the reference's own clips against the rest of it.

    The mean over `draws` seeded draws without replacement. Given each clip's prompt, a draw takes the clips as evenly
    from the prompts as n allows, as a run does: clips of one prompt are alike, so a draw that ignored prompts would
    lie further off. The rest is n clips smaller than the reference that a model is held against, which makes the
    floor a little high where n is a large part of it.

    Raises:
        NotMeasurable: n is below 2, or the reference has fewer than 2 n clips.
    """
    logits = _logits(reference_columns)
    if n < 2 or len(logits) < 2 * n:
        msg = f"a floor at {n} clips needs n of at least 2 and a reference of at least {2 * n}; it has {len(logits)}"
        raise NotMeasurable(msg)
    random = np.random.default_rng(_FLOOR_SEED)
    total = 0.0
    for _ in range(draws):
        order = _evenly(prompts, random) if prompts is not None else random.permutation(len(logits))
        total += frechet_distance(logits[order[:n]], logits[order[n:]])
    return total / draws


def _evenly(prompts: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A random order of the clips in which every prompt comes once before any comes twice, and so on."""
    luck = random.random(len(prompts))
    by_prompt = np.lexsort((luck, prompts))
    starts = np.unique(prompts[by_prompt], return_index=True)[1]
    turn = np.empty(len(prompts), dtype=np.intp)
    turn[by_prompt] = np.arange(len(prompts)) - np.repeat(starts, np.diff([*starts, len(prompts)]))
    return np.lexsort((luck, turn))


def _logits(columns: Columns) -> np.ndarray:
    if "logits" not in columns:
        msg = "no clip has I3D logits"
        raise NotMeasurable(msg)
    return columns["logits"]


def _checked(features: np.ndarray) -> np.ndarray:
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        msg = f"features have shape {array.shape}; they must be [clips, dimensions]"
        raise InputError(msg)
    if not np.isfinite(array).all():
        msg = f"features hold {np.count_nonzero(~np.isfinite(array))} values that are NaN or infinite"
        raise InputError(msg)
    return array


def _root(centred: np.ndarray) -> np.ndarray:
    """A matrix of at most d rows with the same scatter: the R of a QR where there are more rows than that."""
    if centred.shape[0] <= centred.shape[1]:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"))
