"""VBench's metrics of some clips only: those that hardly move, and those of its prompts for temporal style."""

import numpy as np

from avbench.core import Columns


def vbench_flickering_static(columns: Columns) -> np.ndarray:
    """`vbench_flickering` of the clips that pass VBench's static filter, [clips]; NaN for the others."""
    return np.where(columns["static"] > 0, columns["flickering"], np.nan)


def temporal_style(columns: Columns) -> np.ndarray:
    """`overall_consistency` of VBench's prompts for temporal style, [clips]; NaN for the others."""
    return np.where(columns["temporal_style"] > 0, columns["similarity"], np.nan)
