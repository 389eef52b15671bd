"""Measures what each distance detects, and whether chance is called chance. Remakes tables of docs/validity.md.

    python benchmarks/validity.py

The embedded world and every known-bad variant of its picture are sampled and measured on one subset with four seeds (an
hour on two cores the first time; it goes on where it stopped), and every distance is asked about each of them at three
numbers of clips. Then simulated comparisons in which nothing differs show how often a p-value falls below 0.05.
"""

import argparse
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize

from avbench.core import Row, columns
from avbench.features.current import current_rows
from avbench.features.protocols import protocol_of
from avbench.metrics import distances, reference
from avbench.metrics.evaluate import chosen_metrics
from avbench.metrics.frechet import Frechet
from avbench.metrics.kernel import Kernel
from avbench.metrics.table import Metric
from avbench.statistics import uncertainty
from avbench.storage.runs.folder import RunFolder
from avbench.subsets import loading

PAGE = Path(__file__).parent.parent / "docs" / "validity.md"
SUBSET = "toy-object-contact"
SEEDS = 4
VARIANTS = ("", "frozen", "shuffled", "reversed", "no-contact", "zero-gravity", "blurred", "noisy", "flickering")
DISTANCES = ("fvd", "kvd", "kvd_quadratic", "motion_frechet", "precision", "recall", "density", "coverage")
SIZES = (32, 96, 384)
FEW_SUBSETS = ("toy-large-motion", "toy-object-contact")
"""They differ: how few clips of the world on one of them show that they are not of the other?"""
FEW = {
    "fvd": "FVD (I3D, 400 dimensions)",
    "kvd": "KVD (the same)",
    "motion_frechet": "`motion_frechet` (128 dimensions)",
    "fad": "FAD (musicnn, 200 dimensions)",
}
FEW_SIZES, DRAWS = (6, 12, 24, 48), 100
SEEN = 0.01
"""A distance sees a variant if its p-value is below this."""

SIMULATED, PERMUTATIONS, DIMENSIONS = 1000, 199, 64


def run_name(variant: str) -> str:
    """The folder that `avbench sample` makes."""
    return f"toyworld-{variant}" if variant else "toyworld"


def made(work: Path, variant: str, subsets: Sequence[str], seeds: int, metrics: Iterable[str]) -> RunFolder:
    """Sample and measure what is missing of a run."""
    place = work / run_name(variant)
    for command in (
        ["sample", f"toyworld:{variant}", "--subset", ",".join(subsets), "--seeds", str(seeds), "--out", str(work)],
        ["measure", str(place), "--metric", ",".join(metrics)],
    ):
        subprocess.run([sys.executable, "-m", "avbench", *command], check=True)
    return RunFolder(place)


def asked(work: Path) -> Iterator[dict[str, object]]:
    """One row a (size, distance, variant): value, null, p, excess in standard deviations of the null."""
    whole = loading.load(SUBSET)
    prompts = [prompt.id for prompt in whole.prompts]
    for size in SIZES:
        chosen = prompts[:: max(1, len(prompts) // size)]
        seeds = range(max(1, size // len(prompts)))
        part = whole.limited(len(prompts)) if size >= len(prompts) else _only(whole, chosen)
        for metric in chosen_metrics(DISTANCES):
            protocol = protocol_of(metric.feature)
            known, real_prompts = reference.find(whole).columns(protocol, part)  # type: ignore[union-attr]
            real = distances.embedding(known, metric.column, "the reference")
            for variant in VARIANTS:
                rows = current_rows(RunFolder(work / run_name(variant)), metric.feature).values()
                wanted = [row for row in rows if row.key.prompt in chosen and row.key.seed in seeds]
                keys, measured = columns(wanted)
                x = distances.embedding(measured, metric.column, "the run")
                null = distances.null(metric, x, [key.prompt for key in keys], real, real_prompts)
                value = float(distances.value(metric, x, real))
                yield {
                    "n": len(keys),
                    "distance": metric.name,
                    "model": variant or "the world",
                    "value": value,
                    "null": null.mean,
                    "effect": (value - null.mean) / null.sd,
                    "p": null.p,
                }


def _only(subset: loading.Subset, prompts: list[str]) -> loading.Subset:
    from dataclasses import replace

    kept = tuple(prompt for prompt in subset.prompts if prompt.id in prompts)
    return replace(subset, prompts=kept, cut_from=subset.whole_digest)


def seen_table(found: pd.DataFrame) -> str:
    """Return one table per size, with one row per variant and one column per distance."""
    lines = []
    for size, of_size in found.groupby("n"):
        lines += [f"**n = {size}**", "", "| model | " + " | ".join(DISTANCES) + " |"]
        lines.append("|---|" + "--:|" * len(DISTANCES))
        cells = of_size.set_index(["model", "distance"])
        for model in (variant or "the world" for variant in VARIANTS):
            texts = [_cell(cells.loc[(model, name)]) for name in DISTANCES]
            lines.append(f"| {model} | " + " | ".join(texts) + " |")
        nulls = [cells.loc[("the world", name), "null"] for name in DISTANCES]
        lines.append("| *null of the world* | " + " | ".join(f"*{null:.3g}*" for null in nulls) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(row: pd.Series) -> str:
    text = f"{row['value']:.3g} ({row['effect']:+.1f})"
    return f"**{text}**" if row["p"] < SEEN else text


def blind_table(found: pd.DataFrame) -> str:
    """What no p-value below SEEN was given to, by size, and the two variants with the smallest effects at n = 96."""
    heads = [*(f"misses at n = {size}" for size in SIZES), "detects least, at n = 96"]
    lines = ["| distance | " + " | ".join(heads) + " |", "|---" * 5 + "|"]
    for name in DISTANCES:
        cells = []
        for size in SIZES:
            of = found[(found["distance"] == name) & (found["n"] == size) & (found["model"] != "the world")]
            cells.append(", ".join(of.loc[of["p"] >= SEEN, "model"]) or "nothing here")
            if size == 96:
                least = of.loc[of["effect"].abs().nsmallest(2).index]
        cells.append(", ".join(f"{row.model} ({row.effect:+.1f})" for row in least.itertuples()))
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def few_table(work: Path) -> str:
    """How often p < 0.05 where n clips of one subset, drawn at random, are compared with one real clip per prompt of
    the other; and the other way round.
    """
    world = made(work / "few", "", FEW_SUBSETS, 1, FEW)
    lines = ["| distance | " + " | ".join(f"n = {n}" for n in FEW_SIZES) + " |", "|---|" + "--:|" * len(FEW_SIZES)]
    for metric in chosen_metrics(tuple(FEW)):
        rows = [*current_rows(world, metric.feature).values()]
        shares = [[*_told_apart(metric, rows, *order)] for order in (FEW_SUBSETS, FEW_SUBSETS[::-1])]
        cells = [f"{one:.0%} / {other:.0%}" for one, other in zip(*shares, strict=True)]
        lines.append(f"| {FEW[metric.name]} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _told_apart(metric: Metric, rows: Sequence[Row], of: str, reference_of: str) -> Iterator[float]:
    """The share of draws with p < 0.05, for each of FEW_SIZES; a scene of both subsets counts as two prompts."""
    other = loading.load(reference_of)
    known, real_prompts = reference.find(other).columns(protocol_of(metric.feature), other)  # type: ignore[union-attr]
    _, firsts = np.unique(real_prompts, return_index=True)
    real = distances.embedding(known, metric.column, "the reference")[firsts]
    keys, measured = columns([row for row in rows if row.key.subset == of])
    world, prompts = distances.embedding(measured, metric.column, "the run"), np.array([key.prompt for key in keys])
    for n in FEW_SIZES:
        random = np.random.default_rng(n)
        draws = [random.permutation(len(prompts))[:n] for _ in range(DRAWS)]
        p = [distances.null(metric, world[one], prompts[one], real, firsts).p for one in draws]  # numbers are no ids
        yield float(np.mean(np.array(p) < 0.05))


def features(random: np.random.Generator, n: int) -> np.ndarray:
    """Features whose variances fall as 1/k, as those of real ones nearly do."""
    return random.standard_normal((n, DIMENSIONS)) / np.sqrt(np.arange(1, DIMENSIONS + 1)) + 0.5


def calibration_table() -> str:
    """How often p < 0.05 where nothing differs, and the mean excess over the null."""

    def one_set(statistic: Callable, random: np.random.Generator, n: int) -> tuple[float, float]:
        pooled = statistic(features(random, 2 * n))
        null = uncertainty.permutation_null(pooled, range(n), range(n, 2 * n), permutations=PERMUTATIONS)
        return null.p, (pooled(np.arange(n)[None], np.arange(n, 2 * n)[None])[0] - null.mean) / null.sd

    def two_models(statistic: Callable, random: np.random.Generator, n: int) -> tuple[float, float]:
        common = features(random, n)
        models = [common + 0.7 * features(random, n) + 0.3 for _ in range(2)]
        pooled = statistic(np.concatenate([*models, features(random, n)]))
        found = uncertainty.swap_test(pooled, range(n), range(n), permutations=PERMUTATIONS)
        return found.p, found.value / found.error

    def equally_near(statistic: Callable, random: np.random.Generator, n: int) -> tuple[float, float]:
        pooled = statistic(unlike_models(random, n, _equal_shift(statistic, n)))
        found = uncertainty.swap_test(pooled, range(n), range(n), permutations=PERMUTATIONS)
        return found.p, found.value / found.error

    lines = ["| test | n | p < 0.05 | mean excess, or difference, in its own sd |", "|---|--:|--:|--:|"]
    for what, statistic, simulate in (
        ("FVD against its null", Frechet, one_set),
        ("KVD against its null", Kernel, one_set),
        ("FVD, A against B", Frechet, two_models),
        ("KVD, A against B", Kernel, two_models),
        ("FVD, A and B equally near in different ways", Frechet, equally_near),
        ("KVD, A and B equally near in different ways", Kernel, equally_near),
    ):
        for n in (100, 300):
            random = np.random.default_rng([n, *what.encode()])
            p, excess = np.array([simulate(statistic, random, n) for _ in range(SIMULATED)]).T
            error = excess.std(ddof=1) / np.sqrt(SIMULATED)
            lines.append(f"| {what} | {n} | {np.mean(p < 0.05):.1%} | {excess.mean():+.2f} ± {1.96 * error:.2f} |")
    return "\n".join([*lines, ""])


def unlike_models(random: np.random.Generator, n: int, shift: float) -> np.ndarray:
    """``[3 n, dimensions]``: A, which is off by a shift, B, whose spread is too small, and the reference."""
    a, b, real = (features(random, n) for _ in range(3))
    return np.concatenate([a + shift, 0.5 + 0.6 * (b - 0.5), real])


@functools.cache
def _equal_shift(statistic: Callable, n: int) -> float:
    """The shift at which both are equally near to the reference on average, to within a hundredth."""

    def apart(shift: float) -> float:
        random = np.random.default_rng(n)
        rows, found = np.arange(3 * n)[None], []
        for _ in range(300):
            pooled = statistic(unlike_models(random, n, shift))
            found.append(pooled(rows[:, :n], rows[:, 2 * n :]) - pooled(rows[:, n : 2 * n], rows[:, 2 * n :]))
        return float(np.mean(found))

    return float(optimize.brentq(apart, 0.0, 2.0, xtol=1e-3))


def insert(name: str, text: str) -> None:
    """Put a table between its marks in the page."""
    page = PAGE.read_text()
    pattern = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- /table -->)", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        msg = f"{PAGE} has no one place for the table {name!r}"
        raise SystemExit(msg)
    PAGE.write_text(pattern.sub(lambda found: f"{found[1]}{text}{found[2]}", page))


def main() -> None:
    """Remake the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/validity"), help="Folder for the runs; resumable.")
    parser.add_argument("--only", choices=["seen", "few", "calibration"], help="Remake these tables only.")
    options = parser.parse_args()
    wanted = {options.only} if options.only else {"seen", "few", "calibration"}
    if "seen" in wanted:
        for variant in VARIANTS:
            made(options.work, variant, [SUBSET], SEEDS, DISTANCES)
        found = pd.DataFrame(asked(options.work))
        insert("seen", seen_table(found))
        insert("blind", blind_table(found))
    if "few" in wanted:
        insert("few", few_table(options.work))
    if "calibration" in wanted:
        insert("calibration", calibration_table())


if __name__ == "__main__":
    main()
