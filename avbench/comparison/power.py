"""Plans a comparison from a pilot: the smallest difference that a number of prompts and seeds would find.

The spread is estimated from pilot runs. From two runs it is the spread of their paired differences, between prompts and
between seeds of a prompt. From one run it is the spread of its own values: the planned runs are then assumed to differ
as much as two clips of one prompt under different seeds, which is the worst case of pairing. With one seed per prompt
the two spreads cannot be separated, so no number of seeds can be planned.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from avbench.comparison.score_table import check_comparable, clip_values, join, made
from avbench.core import InputError
from avbench.statistics import paired
from avbench.storage.run_folder import RunFolder


def planned(
    folders: Sequence[RunFolder], prompts: Sequence[int], seeds: Sequence[int], family: int = 1
) -> pd.DataFrame:
    """One row per (subset, metric, prompts, seeds): the smallest true difference that 80 % of such experiments find.

    Args:
        folders: one pilot run, or two.
        prompts: numbers of prompts to plan for.
        seeds: numbers of seeds to plan for.
        family: number of comparisons in Holm's correction; the plan is for the one that is tested first.

    Raises:
        InputError: more than two runs, or two that cannot be compared.
    """
    if len(folders) > 2:
        msg = f"{len(folders)} pilot runs were given; give one, or two whose clips are paired"
        raise InputError(msg)
    values = [clip_values(folder) for folder in folders]
    if len(folders) == 2:
        check_comparable(made(folders[0]), made(folders[1]))
    rows = []
    for subset, metric in values[0]:
        if len(folders) == 2 and (subset, metric) not in values[1]:
            continue
        own = values[0][subset, metric]
        one = join(own, own if len(folders) == 1 else values[1][subset, metric])
        if len(set(one.prompts)) < 2:
            continue
        differences = one.a if len(folders) == 1 else one.a - one.b
        between, within = paired.spreads(differences, one.prompts)
        if len(folders) == 1:  # of the difference of two such runs: what a prompt has in common cancels
            between, within = (between * np.sqrt(2), None) if within is None else (0.0, within * np.sqrt(2))
        for count in seeds if within is not None else [1]:
            spread = np.hypot(between, (within or 0.0) / np.sqrt(count))
            for number in prompts:
                found = paired.detectable(spread / np.sqrt(number), number - 1, family=family)
                of = {"subset": subset, "metric": metric, "prompts": number, "seeds": count}
                rows.append({**of, "detectable": found, "between": between, "within": within})
    return pd.DataFrame(rows, columns=["subset", "metric", "prompts", "seeds", "detectable", "between", "within"])
