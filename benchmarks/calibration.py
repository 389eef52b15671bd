"""Measures whether chance is called chance and bad models are found. Remakes four tables of docs/validity.md.

    python benchmarks/calibration.py                     # all: about an hour on two cores
    python benchmarks/calibration.py --table arms        # arms with several trainings alone: some minutes
    python benchmarks/calibration.py --table distances   # the gate's margins of distances alone: some minutes
    python benchmarks/calibration.py --table sides       # the gate's ≈ metrics alone: some minutes

Comparisons of runs: the embedded world is sampled under several seeds, and so are the known-bad models that the gate
must find. A simulated run takes, for every prompt, the clip of one seed at random; two of them never the same. Two such
runs of the world are an A/A comparison of the whole size: all metrics of means, both subsets, as a user makes it by
`differences`, `check`. The distances' own test is calibrated by validity.py; there they are left out, since they would
take hours.

Distances at the gate: two runs and a reference are dealt from the four clips of each prompt that the shipped reference
has features of: one for each run, two for the reference. So both runs are of one model, under other seeds. What the
gate finds is computed as `check` does, but without Holm's correction, which can only make it fail less often.

Sides: prompts are drawn anew from those of the world, with the clips of two seeds each. The reference's value is put at
some distance from the mean over all, and one run is moved to the other side of it, farther by exactly its margin: so no
run is worse by more. All metrics that should match the reference's value, on both subsets, are one family.

Arms: values are drawn from a known distribution, as many null studies as STUDIES for each row, and tested by
`trainings.arm_difference`. Each prompt has an effect that all trainings share, and one in each arm; each training has
its own; and so has each prompt in each training.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from avbench.comparison import baseline_file, gate, plan
from avbench.comparison.differences import TO_TARGET, differences
from avbench.comparison.score_table import clip_values, join
from avbench.core import Direction
from avbench.metrics import distances, reference
from avbench.metrics.evaluate import VALUES_FILE, chosen_metrics
from avbench.metrics.frechet import frechet_distance
from avbench.metrics.table import Metric, known_metrics
from avbench.statistics import paired, power, trainings, uncertainty
from avbench.storage.runs.folder import RunFolder
from avbench.storage.writing import line_of

PAGE = Path(__file__).parent.parent / "docs" / "validity.md"
MARGINS = Path(__file__).parent.parent / "docs" / "gate.toml"
SUBSETS = ("toy-large-motion", "toy-object-contact")
METRICS = ("lpips_consecutive", "warping_error", "motion_amount", "event_rate", "sync_excess", "onset_rate")
SEEDS = {"": 6, "flickering": 2, "shuffled": 2, "sound-shifted": 2}
COMPARISONS, CHECKS = 400, 60


def make_runs(work: Path) -> dict[str, RunFolder]:
    """Sample, measure and evaluate what is missing."""
    made = {}
    for variant, seeds in SEEDS.items():
        place = work / (f"toyworld-{variant}" if variant else "toyworld")
        names = [part for name in METRICS for part in ("--metric", name)]
        subsets = [part for name in SUBSETS for part in ("--subset", name)]
        if not (place / "scores.json").exists():
            for command in (
                ["sample", f"toyworld:{variant}", *subsets, "--seeds", str(seeds), "--out", str(work)],
                ["measure", str(place), *names],
                ["evaluate", str(place), *names],
            ):
                subprocess.run([sys.executable, "-m", "avbench", *command], check=True)
        made[variant] = RunFolder(place)
    return made


class Pool:
    """One model's values under several seeds, from which runs are drawn."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        table = pd.read_parquet(folder.path / VALUES_FILE)
        self.table = table[table["metric"].isin(METRICS)]
        self.scores, self.protocols = folder.scores(), folder.evaluation().protocols
        self.prompts = self.table[["subset", "prompt"]].drop_duplicates()
        self.seeds, self.samples = folder.run().seeds, folder.samples()

    def drawn(self, place: Path, chosen: np.ndarray) -> RunFolder:
        """A run that has, of each prompt, the clip under the seed that is chosen for it."""
        folder = RunFolder(place)
        folder.start(replace(self.folder.run(), name=place.name, seeds=(0,)), self.folder.subsets())
        of_prompt = self.prompts.assign(seed=chosen)
        table = self.table.merge(of_prompt, on=["subset", "prompt", "seed"]).assign(seed=0)
        keys = {*of_prompt.itertuples(index=False, name=None)}
        made = [replace(one, key=key._replace(seed=0)) for key, one in self.samples.items() if key in keys]
        (folder.path / "samples.jsonl").write_bytes(b"".join(line_of(asdict(sample)) for sample in made))
        means = table.groupby(["subset", "metric"])["value"].agg(["mean", "count"])
        per_clip = {metric.name for metric in chosen_metrics(METRICS) if metric.per_clip}
        scores = []
        for score in self.scores:
            if score.metric in per_clip and (score.subset, score.metric) in means.index:
                mean, count = means.loc[(score.subset, score.metric)]
                value = {"value": float(mean), "missing": None} if count else {"value": None, "missing": "no clip"}
                scores.append(replace(score, n=int(count), interval=None, **value))
        folder.write_scores(scores, self.protocols, {VALUES_FILE: table.to_parquet(index=False)})
        return folder


def held(a: RunFolder, b: RunFolder) -> list[bool]:
    """Whether each interval of a difference of means holds 0, where clips differ at all."""
    ours, theirs = clip_values(a), clip_values(b)
    pairs = [join(values, theirs[where]) for where, values in ours.items() if where in theirs]
    found = [paired.paired_difference(one.a, one.b, one.prompts, permutations=1) for one in pairs if one.prompts]
    return [one.interval[0] <= 0 <= one.interval[1] for one in found if one.interval and not one.constant]


def simulated(pools: dict[str, Pool]) -> list[str]:
    """Rows of the table."""
    random = np.random.default_rng(0)
    world, known = pools[""], plan.read(MARGINS)
    size, count = len(world.prompts), len(world.seeds)
    alarms, gated, folded, plain = 0, 0, [], []
    with tempfile.TemporaryDirectory() as place:
        for number in range(COMPARISONS):
            one = random.integers(count, size=size)
            other = (one + random.integers(1, count, size=size)) % count
            a, b = (world.drawn(Path(place) / f"{side}{number}", chosen) for side, chosen in (("a", one), ("b", other)))
            found = differences([a, b])
            alarms += bool((found["p_holm"] < 0.05).any())
            tested = found[found["low"].notna() & (found["high"] > found["low"])]
            folded += list(((tested["low"] <= 0) & (0 <= tested["high"]))[tested["kind"] == TO_TARGET])
            plain += held(a, b)
            if number < CHECKS:
                baseline = Path(place) / f"baseline{number}.zip"
                baseline_file.update(a, baseline, "calibration")
                gated += any(verdict.failed for verdict in gate.check(b, baseline, known))
        rows = [
            f"| A/A: a false alarm anywhere in the family (Holm) | {COMPARISONS} | {alarms / COMPARISONS:.1%} |",
            f"| A/A: 95 % intervals of differences of means that hold 0 | {len(plain)} | {np.mean(plain):.1%} |",
            f"| A/A: the same of distances from the reference's value | {len(folded)} | {np.mean(folded):.1%} |",
            f"| A/A: the gate fails | {CHECKS} | {gated / CHECKS:.1%} |",
        ]
        for variant in list(SEEDS)[1:]:
            bad, failed = pools[variant], 0
            for number in range(CHECKS):
                seeds = random.integers(len(bad.seeds), size=size)
                worse = bad.drawn(Path(place) / f"{variant}{number}", seeds)
                failed += any(one.failed for one in gate.check(worse, Path(place) / f"baseline{number}.zip", known))
            rows.append(f"| {variant}: the gate fails | {CHECKS} | {failed / CHECKS:.1%} |")
    return rows


MOVES = 2000


def side_rows(world: Pool) -> list[str]:
    """Rows of the table of the gate's ≈ metrics: two runs on either side of the reference's value."""
    bands = [metric.name for metric in chosen_metrics(METRICS) if metric.direction is Direction.BAND]
    margins = {name: margin for name, margin in plan.read(MARGINS).margins.items() if name in bands}
    tables: list[tuple[np.ndarray, float]] = []
    for subset in SUBSETS:
        for metric, margin in margins.items():
            values = world.table.loc[(world.table["subset"] == subset) & (world.table["metric"] == metric)]
            tables.append((values.pivot(index="prompt", columns="seed", values="value").dropna().to_numpy(), margin))
    rows = []
    for prompts in (6, 24, 96):
        for away in (0.5, 6.0):
            shares = []
            for side in (1, -1):
                random = np.random.default_rng([4, prompts])
                least = [min(_moved(*table, prompts, side * away, random) for table in tables) for _ in range(MOVES)]
                shares.append(np.mean(np.array(least) * len(tables) < paired.ALPHA))
            rows.append(f"| {prompts} | {away:g} | {shares[0]:.1%} | {shares[1]:.1%} |")
    return rows


def _moved(values: np.ndarray, margin: float, prompts: int, away: float, random: np.random.Generator) -> float:
    """The p-value of a check; `values` is ``[prompts, seeds]``, and `away` the first run's place in standard errors."""
    of_prompt, seeds = random.integers(len(values), size=prompts), values.shape[1]
    one = random.integers(seeds, size=prompts)
    other = (one + random.integers(1, seeds, size=prompts)) % seeds
    old = away * values.std() / np.sqrt(prompts)
    new = -np.copysign(abs(old) + margin, away)
    a, b = (values[of_prompt, seed] - values.mean() + mean for seed, mean in ((other, new), (one, old)))
    found = paired.farther(a, b, range(prompts), targets=np.zeros(prompts))
    return 1.0 if found is None else found.observed.p(margin)


DISTANCES = ("fvd", "fad", "motion_frechet")
DEALT, DEALS = "toy-object-contact", 200


def distance_rows() -> list[str]:
    """Rows of the table of the gate's distances: two runs of one model against each other."""
    known, margins, rows = known_metrics(), plan.read(MARGINS), []
    real = reference.named(DEALT)
    for prompts in (6, 24, 96):
        for name in DISTANCES:
            metric, margin = known[name], margins.margins[name]
            clips = real.values[metric.feature][metric.column].reshape(len(set(real.clips["prompt"])), 4, -1)
            found = [_dealt(metric, clips, prompts, np.random.default_rng([3, number])) for number in range(DEALS)]
            beyond = np.mean([value > margin for value, _, _ in found])
            fails = [
                np.mean([paired.tail(value - least, error, dof) < paired.ALPHA for value, error, dof in found])
                for least in (margin, 0.0)
            ]
            seen = [margin + (power.detectable(error, dof, alpha=2 * paired.ALPHA) or 0.0) for _, error, dof in found]
            shares = " | ".join(f"{share:.1%}" for share in (beyond, *fails))
            rows.append(f"| {name}, {margin:g} | {prompts} | {shares} | {np.median(seen):.3g} |")
    return rows


def _dealt(metric: Metric, clips: np.ndarray, prompts: int, random: np.random.Generator) -> tuple[float, float, float]:
    """The difference of two runs' distances, its error and degrees of freedom; `clips` is ``[prompts, 4, d]``."""
    dealt = random.permuted(np.broadcast_to(np.arange(4), (len(clips), 4)), axis=1)
    clips = np.take_along_axis(clips, dealt[:, :, None], axis=1)
    asked = np.sort(random.permutation(len(clips))[:prompts])
    a, b, real = clips[asked, 0], clips[asked, 1], clips[:, 2:].reshape(-1, clips.shape[-1])
    found = uncertainty.swap_test(distances.pooled(metric, a, b, real), asked, np.repeat(np.arange(len(clips)), 2))
    return found.value, found.error, found.dof or prompts - 1


STUDIES = 4000
DIMENSIONS = 16
"""Of the made-up features that a Fréchet distance is computed from."""


@dataclass(frozen=True)
class Luck:
    """What is drawn in a simulated study: standard deviations in units of the residual's."""

    name: str
    training: float = 0.3
    prompt: float = 1.0
    trainings: int = 5
    prompts: int = 96
    skewed: bool = False
    """Exponential instead of normal."""
    one_arm: float = 1.0
    """What the second arm's effects of prompts are multiplied by."""
    gaps: float = 0.0
    """Share of the values that could not be measured."""

    def arms(self, random: np.random.Generator) -> list[np.ndarray]:
        """Two arms ``[trainings, prompts]`` whose true means are equal."""

        def draw(*shape: int) -> np.ndarray:
            return random.standard_exponential(shape) - 1 if self.skewed else random.standard_normal(shape)

        shared, made = draw(1, self.prompts), []
        for scale in (1.0, self.one_arm):
            table = shared + self.training * draw(self.trainings, 1) + self.prompt * scale * draw(1, self.prompts)
            table = table + draw(self.trainings, self.prompts)
            made.append(np.where(random.random(table.shape) < self.gaps, np.nan, table))
        return made


LUCK = (
    Luck("both"),
    Luck("only trainings", prompt=0),
    Luck("only prompts", training=0),
    Luck("neither", training=0, prompt=0),
    Luck("both, skewed", skewed=True),
    Luck("only trainings, skewed", prompt=0, skewed=True),
    Luck("only prompts, skewed", training=0, skewed=True),
    Luck("only prompts, skewed, in one arm alone", training=0, skewed=True, one_arm=0),
    Luck("both, a fifth of the values missing", gaps=0.2),
    Luck("both, 24 prompts", prompts=24),
    Luck("both, 3 trainings", trainings=3),
    Luck("only trainings, 3 trainings", prompt=0, trainings=3),
)


def frechet_arms(random: np.random.Generator) -> list[np.ndarray]:
    """Two arms ``[trainings, 1]`` of Fréchet distances to one reference; a training shifts all its clips."""
    prompts = random.standard_normal((96, DIMENSIONS))
    real = prompts + random.standard_normal((96, DIMENSIONS))
    return [
        np.array(
            [
                [frechet_distance(prompts + 0.3 * random.standard_normal(DIMENSIONS) + own, real)]
                for own in random.standard_normal((5, 96, DIMENSIONS))
            ]
        )
        for _ in range(2)
    ]


def arm_rows() -> list[str]:
    """Rows of the table of arms: how often null studies raise a false alarm, with pairs and without."""
    rows = []
    for luck in LUCK:
        shares = [found for pairs in (True, False) for found in _shares(luck.arms, STUDIES, pairs)]
        found = sum(_finds(luck, number) for number in range(STUDIES // 10)) / (STUDIES // 10)
        rows.append(_row(f"{luck.name}", luck.trainings, [*shares, found]))
    shares = [found for pairs in (True, False) for found in _shares(frechet_arms, STUDIES // 10, pairs)]
    return [*rows, _row("a Fréchet distance", 5, [*shares, None])]


def _shares(draw: Callable[[np.random.Generator], list[np.ndarray]], studies: int, pairs: bool) -> list[float]:
    """Share of null studies that raise a false alarm, and whose interval holds the truth."""
    found = [
        trainings.arm_difference(*draw(np.random.default_rng([1, number])), paired_rows=pairs)
        for number in range(studies)
    ]
    alarms = sum(one.p < 0.05 for one in found)
    return [alarms / studies, sum(one.interval[0] <= 0 <= one.interval[1] for one in found) / studies]


def _finds(luck: Luck, number: int) -> bool:
    """Whether a study finds the difference that its own luck says 80 % of studies find."""
    a, b = luck.arms(np.random.default_rng([2, number]))
    kept = 1 - luck.gaps  # a pair has a value where both have one
    scale = (1 + luck.one_arm**2) * luck.prompt**2
    parts = trainings.Components(2 * luck.training**2, scale, 2 / kept**2, sources=1.0, crossed=True)
    effect = parts.detectable(luck.trainings, luck.prompts) or 0.0
    return trainings.arm_difference(a + effect, b, paired_rows=True).p < 0.05


def _row(name: str, count: int, shares: list[float | None]) -> str:
    cells = " | ".join("" if share is None else f"{share:.1%}" for share in shares)
    return f"| {name} | {count} | {cells} |"


def put(name: str, lines: list[str]) -> None:
    """Replace a table of the page."""
    text = re.sub(
        rf"(<!-- table: {name} -->\n).*?(\n<!-- /table -->)",
        lambda found: found[1] + "\n".join(lines) + found[2],
        PAGE.read_text(),
        flags=re.DOTALL,
    )
    PAGE.write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/calibration"))
    tables = ["comparisons", "sides", "distances", "arms"]
    parser.add_argument("--table", choices=tables, help="only this one")
    given = parser.parse_args()
    if given.table in (None, "comparisons", "sides"):
        pools = {k: Pool(v) for k, v in make_runs(given.work).items()}
        if given.table != "sides":
            put("comparisons", ["| | simulated | share |", "|---|--:|--:|", *simulated(pools)])
        if given.table != "comparisons":
            head = (
                "| prompts | the baseline's distance from the reference's value, in standard errors | the gate fails: "
            )
            head += "moved from above to below | from below to above |"
            put("sides", [head, "|--:|--:|--:|--:|", *side_rows(pools[""])])
    if given.table in (None, "distances"):
        head = "| distance, margin | prompts | the run is farther by more than the margin | the gate fails | "
        head += "it would fail with a margin of 0 | the loss that it says it would find |"
        put("distances", [head, "|---|--:|--:|--:|--:|--:|", *distance_rows()])
    if given.table in (None, "arms"):
        head = "| luck of | trainings per arm | false alarms, paired | intervals that hold the truth | false alarms, "
        head += "not paired | intervals that hold the truth | a detectable difference is found, paired |"
        put("arms", [head, "|---|--:|--:|--:|--:|--:|--:|", *arm_rows()])
