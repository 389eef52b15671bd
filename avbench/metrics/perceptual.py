"""How much does a frame differ from the next to the eye?"""

import numpy as np

from avbench.core import Columns


def lpips_consecutive(columns: Columns) -> np.ndarray:
    """Mean LPIPS between consecutive frames, [clips]: neither a frozen clip's 0 nor flicker's much is right."""
    return columns["mean"]
