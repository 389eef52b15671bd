"""Measures whether chance is called chance and bad models are found. Remakes a table of docs/validity.md.

    python benchmarks/calibration.py

The embedded world is sampled under several seeds, and so are the known-bad models that the gate must find. A simulated
run takes, for every prompt, the clip of one seed at random; two of them never the same. Two such runs of the world are
an A/A comparison of the whole size: all metrics of means, both subsets, as a user makes it by `differences`, `check`.
The distances' own test is calibrated by validity.py; here they are left out, since they would take hours.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from avbench.comparison import gate, plan
from avbench.comparison.differences import TO_TARGET, differences
from avbench.comparison.score_table import clip_values, join
from avbench.metrics.evaluate import VALUES_FILE, chosen_metrics
from avbench.statistics import paired
from avbench.storage.run_folder import RunFolder

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
        self.scores, self.protocols = folder.scores()
        self.prompts = self.table[["subset", "prompt"]].drop_duplicates()
        self.seeds = folder.run().seeds

    def drawn(self, place: Path, chosen: np.ndarray) -> RunFolder:
        """A run that has, of each prompt, the clip under the seed that is chosen for it."""
        folder = RunFolder(place)
        folder.start(replace(self.folder.run(), name=place.name, seeds=(0,)), self.folder.subsets())
        of_prompt = self.prompts.assign(seed=chosen)
        table = self.table.merge(of_prompt, on=["subset", "prompt", "seed"]).assign(seed=0)
        table.to_parquet(folder.path / VALUES_FILE, index=False)
        (folder.path / "samples.jsonl").touch()
        means = table.groupby(["subset", "metric"])["value"].agg(["mean", "count"])
        per_clip = {metric.name for metric in chosen_metrics(METRICS) if metric.per_clip}
        scores = []
        for score in self.scores:
            if score.metric in per_clip and (score.subset, score.metric) in means.index:
                mean, count = means.loc[(score.subset, score.metric)]
                value = {"value": float(mean), "missing": None} if count else {"value": None, "missing": "no clip"}
                scores.append(replace(score, n=int(count), interval=None, **value))
        folder.write_scores(scores, self.protocols)
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
                gate.update(a, baseline, "calibration")
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/calibration"))
    made_runs = make_runs(parser.parse_args().work)
    table = "\n".join(
        ["| | simulated | share |", "|---|--:|--:|", *simulated({k: Pool(v) for k, v in made_runs.items()})]
    )
    text = re.sub(
        r"(<!-- table: comparisons -->\n).*?(\n<!-- /table -->)",
        lambda found: found[1] + table + found[2],
        PAGE.read_text(),
        flags=re.DOTALL,
    )
    PAGE.write_text(text)
