"""Measures whether `avbench votes --run` finds a known taste again. Writes a table of docs/validity.md.

    python benchmarks/vote_studies.py

A simulated study has voters who share a taste: how much better the left clip of a pair is, of which part belongs to the
prompt. Each voter adds noise of their own and says "same" where little is left. A metric is the same taste with noise,
rounded, so that it ties at times. What its accuracy truly is comes from one study of very many prompts.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from avbench.comparison import agreement

STUDIES, MANY = 500, 200_000


@dataclass(frozen=True)
class Study:
    """A kind of study."""

    prompts: int
    noise: float
    """The metric's, in units of the taste of clips within a prompt; infinite is a metric that is pure noise."""
    seeds: int = 2
    raters: int = 3


@dataclass(frozen=True, eq=False)
class Simulated:
    """Votes of one study and what the metric prefers, in the form that `agreement.table` takes."""

    votes: pd.DataFrame
    choice: np.ndarray
    prefers: np.ndarray


def simulated(study: Study, random: np.random.Generator) -> Simulated:
    """One study."""
    size = study.prompts, study.seeds
    taste = 0.7 * random.standard_normal((study.prompts, 1)) + random.standard_normal(size)
    noise = random.standard_normal(size)
    seen = noise if np.isinf(study.noise) else taste + study.noise * noise
    felt = taste[..., None] + 0.7 * random.standard_normal((*size, study.raters))
    choice = np.where(np.abs(felt) < 0.2, 0.5, felt > 0).ravel()
    prefers = np.repeat((np.sign(np.round(2 * seen)) + 1) / 2, study.raters)
    prompt, seed, rater = (one.ravel() for one in np.indices(felt.shape))
    votes = pd.DataFrame({"subset": "s", "prompt": prompt, "seed": seed, "left": "a", "right": "b", "rater": rater})
    return Simulated(votes, choice, prefers)


def truth(study: Study) -> float:
    """The metric's accuracy over very many prompts."""
    one = simulated(Study(MANY, study.noise, study.seeds, study.raters), np.random.default_rng(1))
    clear = one.choice != 0.5
    return float(np.mean(1 - np.abs(one.choice - one.prefers)[clear]))


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
        one = simulated(study, random)
        rows.append(agreement.table(one.votes, one.choice, {"metric": one.prefers}).set_index("judge").loc["metric"])
    frame = pd.DataFrame(rows)
    covered = (frame["low"] <= true) & (true <= frame["high"])
    return Found(true, frame["accuracy"].mean(), covered.mean(), (frame["p_holm"] < agreement.ALPHA).mean())


def main() -> None:
    """Remake the table."""
    from validity import insert

    lines = [
        "| prompts | true accuracy | mean of the studies | 95 % intervals that hold the truth | shown to differ from chance |",
        "|--:|--:|--:|--:|--:|",
    ]
    for prompts in (20, 50, 200):
        for noise in (0.3, 1.5, np.inf):
            one = found(Study(prompts, noise))
            lines.append(f"| {prompts} | {one.truth:.1%} | {one.mean:.1%} | {one.covered:.1%} | {one.shown:.1%} |")
    insert("votes", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
