"""Measures whether `avbench votes --run` finds a known taste again. Writes a table of docs/validity.md.

    python benchmarks/vote_studies.py

A simulated study has voters who share a taste: how much better the left clip of a pair is, of which part belongs to the
prompt. Each voter adds noise of their own and says "same" where little is left. A metric is the same taste with noise,
rounded, so that it ties at times. What its accuracy truly is comes from one study of very many prompts.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from avbench.comparison import agreement
from avbench.statistics import paired

STUDIES, MANY = 500, 200_000


@dataclass(frozen=True)
class Study:
    """A kind of study."""

    prompts: int
    noise: float
    """The metric's, in units of the taste of clips within a prompt; infinite is a metric that is pure noise."""
    seeds: int = 2
    raters: int = 3


def simulated(study: Study, random: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """The clear votes of one study, and whether the metric agrees with each, as `agreement.accuracy` takes them."""
    size = study.prompts, study.seeds
    taste = 0.7 * random.standard_normal((study.prompts, 1)) + random.standard_normal(size)
    noise = random.standard_normal(size)
    seen = noise if np.isinf(study.noise) else taste + study.noise * noise
    felt = taste[..., None] + 0.7 * random.standard_normal((*size, study.raters))
    prefers = (np.sign(np.round(2 * seen)) + 1) / 2
    clear = np.abs(felt) >= 0.2
    share = 1 - np.abs((felt > 0) - prefers[..., None])
    return pd.DataFrame({"subset": "s", "prompt": np.nonzero(clear)[0]}), share[clear]


def truth(study: Study) -> float:
    """The metric's accuracy over very many prompts."""
    return float(simulated(replace(study, prompts=MANY), np.random.default_rng(1))[1].mean())


@dataclass(frozen=True)
class Found:
    """What many studies of a kind found."""

    truth: float
    mean: float
    covered: float
    """Share of the 95 % intervals that hold the truth."""
    shown: float
    """Share of studies in which the metric is shown to agree more or less often than chance."""


def found(study: Study, studies: int = STUDIES) -> Found:
    """Simulate many studies, and compare what is found with the truth."""
    random, true = np.random.default_rng(0), truth(study)
    rows = []
    for _ in range(studies):
        votes, share = simulated(study, random)
        rows.append(asdict(agreement.accuracy("s", "metric", votes, share, tested=True)))
    frame = pd.DataFrame(rows)
    covered = (frame["low"] <= true) & (true <= frame["high"])
    return Found(true, frame["accuracy"].mean(), covered.mean(), (frame["p"] < paired.ALPHA).mean())


def main() -> None:
    """Remake the table."""
    from validity import insert

    lines = [
        "| prompts | true accuracy | mean of the studies | intervals that hold the truth | p < 0.05 |",
        "|--:|--:|--:|--:|--:|",
    ]
    for prompts in (20, 50, 200):
        for noise in (0.3, 1.5, np.inf):
            one = found(Study(prompts, noise))
            lines.append(f"| {prompts} | {one.truth:.1%} | {one.mean:.1%} | {one.covered:.1%} | {one.shown:.1%} |")
    insert("votes", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
