"""VBench's metrics of motion, consistency and single frames, and the agreement of frames with their caption.

A frozen clip has the best smoothness, flickering and consistency, so these should match the reference instead of being
high. The rules are in features/vbench/.
"""

import numpy as np

from avbench.core import Columns


def vbench_dynamic_degree(columns: Columns) -> np.ndarray:
    """1 if VBench calls a clip dynamic, else 0, [clips]; the mean is the dynamic degree."""
    return np.asarray(columns["dynamic"], dtype=np.float64)


def vbench_flickering(columns: Columns) -> np.ndarray:
    """1 less the mean difference of consecutive frames as a share of full scale, [clips], for every clip."""
    return np.asarray(columns["flickering"], dtype=np.float64)


def vbench_flickering_static(columns: Columns) -> np.ndarray:
    """`vbench_flickering` of the clips that pass VBench's static filter, [clips]; NaN for the others."""
    return np.where(columns["static"] > 0, columns["flickering"], np.nan)


def vbench_smoothness(columns: Columns) -> np.ndarray:
    """1 less the mean difference between odd frames and their interpolation, as a share of full scale, [clips]."""
    return np.asarray(columns["smoothness"], dtype=np.float64)


def vbench_subject(columns: Columns) -> np.ndarray:
    """Mean cosine of each frame's DINO features with those of the first and the previous frame, [clips]; at least 0."""
    return np.asarray(columns["consistency"], dtype=np.float64)


def vbench_background(columns: Columns) -> np.ndarray:
    """Mean cosine of each frame's CLIP features with those of the first and the previous frame, [clips]; at least 0."""
    return np.asarray(columns["consistency"], dtype=np.float64)


def imaging_quality(columns: Columns) -> np.ndarray:
    """Mean of MUSIQ's scores of the frames, in hundredths, [clips]."""
    return np.asarray(columns["quality"], dtype=np.float64)


def aesthetic_quality(columns: Columns) -> np.ndarray:
    """Mean of the scores of the frames by LAION's aesthetic predictor, in tenths, [clips]."""
    return np.asarray(columns["quality"], dtype=np.float64)


def overall_consistency(columns: Columns) -> np.ndarray:
    """Cosine of ViCLIP's vectors of clip and caption, [clips]."""
    return np.asarray(columns["similarity"], dtype=np.float64)


def temporal_style(columns: Columns) -> np.ndarray:
    """`overall_consistency` of VBench's prompts for temporal style, [clips]; NaN for the others."""
    return np.where(columns["temporal_style"] > 0, columns["similarity"], np.nan)


def text_alignment(columns: Columns) -> np.ndarray:
    """Mean cosine of frames and caption, [clips]."""
    return np.asarray(columns["similarity"], dtype=np.float64)
