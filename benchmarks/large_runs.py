"""Measures what statistics cost on large runs: CPU seconds and peak memory of `evaluate` and `compare`.

    python benchmarks/large_runs.py 1000 20000 --work /tmp/large-runs
    python benchmarks/large_runs.py 1000 --work /tmp/large-runs --against ../other-checkout --verb compare

Two runs and a reference of made-up rows of every default metric, as wide as real ones; no clip is needed. Each command
runs in a process of its own with one BLAS thread. `--against` runs the same commands by the code of another checkout
as well, in turns, and prints the ratios and how far the numbers are apart: the first file of a pair is this checkout's.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from avbench.core import Key, Prompt, Row, Run, Sample, Subset, digest
from avbench.features.measure import protocol_of
from avbench.metrics import reference
from avbench.storage.run_folder import RunFolder, append_line

HERE = Path(__file__).parent.parent
SUBSET = "made-up"
MOST_REAL = 4096
"""Clips of the reference; fewer where the runs are smaller."""


def values(feature: str, random: np.random.Generator, rise: float) -> dict[str, float | np.ndarray]:
    """A clip's values: numbers of about the size, and arrays of the shape, that the feature has on real clips."""

    def embedding(width: int) -> np.ndarray:
        spread = 8 / np.sqrt(np.arange(1, width + 1))
        return ((random.standard_normal(width) + rise) * spread).astype(np.float32)

    match feature:
        case "i3d-k400":
            return {"logits": embedding(400)}
        case "musicnn":
            return {"embedding": embedding(200)}
        case "lpips-alex":
            pairs = np.abs(random.standard_normal(15)).astype(np.float32) / 50
            return {"mean": float(pairs.mean() + rise / 100), "per_pair": pairs}
        case "onsets":
            onsets = np.sort(random.random(random.integers(1, 5))) * 2
            return {
                "onset_seconds": onsets,
                "onset_level": random.random(len(onsets)),
                "onset_count": float(len(onsets)),
                "onset_rate": len(onsets) / 2,
                "sound_seconds": 2.0,
            }
        case "flow-dis":
            events = np.sort(random.random(random.integers(1, 4))) * 2
            scalars = ("motion_amount", "mean_motion", "moving_share", "warping_error", "returning_share")
            scalars += ("acceleration", "still_flicker", "still_share")
            return {
                **{name: float(random.random() + rise) for name in scalars},
                "event_seconds": events,
                **{name: random.random(len(events)) for name in ("event_strength", "event_x", "event_y")},
                "event_rate": len(events) / 2,
                "event_from": 0.0,
                "event_until": 2.0,
                "moves": 1.0,
                "visible_share": 1.0,
                "motion_curve": random.random(15).astype(np.float32),
                "motion_histogram": np.abs(embedding(128)),
            }
    msg = f"no values are made up for {feature}"
    raise ValueError(msg)


FEATURES = ("i3d-k400", "flow-dis", "lpips-alex", "onsets", "musicnn")


def make_run(place: Path, subset: Subset, *, seed: int, rise: float) -> RunFolder:
    """A measured run without clip files: one clip of each prompt."""
    folder = RunFolder(place)
    folder.start(Run(place.name, "made:up", {}, {subset.name: subset.digest}, (seed,), {}, {}), [subset])
    random = np.random.default_rng([seed, round(1000 * rise)])
    for prompt in subset.prompts:
        key = Key(subset.name, prompt.id, seed)
        sha256 = digest([place.name, *key])
        append_line(place / "samples.jsonl", vars(Sample(key, f"clips/{prompt.id}-{seed}.mkv", sha256, 0.0)))
        for feature in FEATURES:
            folder.add_row(protocol_of(feature), Row(key, sha256, values(feature, random, rise)))
    return folder


def make(work: Path, clips: int) -> None:
    """Two runs, a and b, and the reference of their subset, where they are missing."""
    if (work / "made").exists():
        return
    shutil.rmtree(work, ignore_errors=True)
    prompts = tuple(Prompt(f"p{number:06}", f"prompt {number}") for number in range(clips))
    subset = Subset(SUBSET, 1, prompts, None)
    few = Subset(SUBSET, 1, prompts[:MOST_REAL], None)
    make_run(work / "a", subset, seed=0, rise=0.0)
    make_run(work / "b", subset, seed=0, rise=0.02)
    real = make_run(work / "real", few, seed=reference.FIRST_SEED, rise=0.01)
    reference.pack(real, few, [protocol_of(feature) for feature in FEATURES], work / "reference" / SUBSET)
    (work / "made").touch()


@dataclass(frozen=True)
class Spent:
    """What a command took."""

    cpu_seconds: float
    peak_gib: float
    output: str


def spent(checkout: Path, *arguments: str | Path) -> Spent:
    """Run avbench by the code of a checkout, with one BLAS thread."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "avbench", *map(str, arguments)],
            cwd=checkout,
            env={**os.environ, **one, "PYTHONPATH": str(checkout), "AVBENCH_FILE_MEMORY": str(2**34)},
            stdout=output,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
        output.seek(0)
        return Spent(used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20, output.read())


def apart(verb: str, one: str, other: str) -> str:
    """The largest relative difference of values, and of the p-values, between two outputs."""
    if verb == "compare":
        frames = [pd.DataFrame(json.loads(text)) for text in (one, other)]
        columns = {"difference": "difference", "p": "p"}
    else:
        frames = [pd.json_normalize(json.loads(text)["scores"]) for text in (one, other)]
        columns = {"value": "value", "null.mean": "null", "null.p": "p"}
    found = []
    for column, name in columns.items():
        x, y = (frame[column].to_numpy(dtype=float) for frame in frames)
        gap = np.nanmax(np.abs(x - y) / (1 if name == "p" else np.abs(y)))
        found.append(f"{name} {gap:.1e}")
    return ", ".join(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=int, nargs="+")
    parser.add_argument("--work", type=Path, default=Path("runs/large-runs"))
    parser.add_argument("--verb", choices=["evaluate", "compare"], action="append")
    parser.add_argument("--metric", action="append", help="Only these metrics.")
    parser.add_argument("--against", type=Path, help="Another checkout.")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    named = [part for name in options.metric or () for part in ("--metric", name)]
    checkouts = [HERE, *([options.against.absolute()] if options.against else [])]
    table = Table("clips", "command", *(f"{one.name}: CPU s, GiB" for one in checkouts), "ratio", "apart")
    for clips in options.clips:
        work = (options.work / str(clips)).absolute()
        make(work, clips)
        a, b, real = work / "a", work / "b", work / "reference"
        if not (b / "scores.json").exists():
            for run in (a, b):
                spent(HERE, "evaluate", run, "--reference", real, *named)
        for verb in options.verb or ("evaluate", "compare"):
            command = [verb, a, "--reference", real, *named]
            if verb == "compare":
                command[2:2] = [b, "--format", "json"]
            found: list[list[Spent]] = [[] for _ in checkouts]
            written: list[str] = []
            for _ in range(options.rounds):
                for checkout, each in zip(checkouts, found, strict=True):
                    each.append(spent(checkout, *command))
                    written.append(each[-1].output if verb == "compare" else (a / "scores.json").read_text())
            best = [min(each, key=lambda one: one.cpu_seconds) for each in found]
            shown = [f"{one.cpu_seconds:.1f}, {one.peak_gib:.2f}" for one in best]
            last = ["", ""]
            if len(best) > 1:
                last = [f"{best[1].cpu_seconds / best[0].cpu_seconds:.1f}", apart(verb, *written[:2])]
            table.add_row(f"{clips:,}", verb, *shown, *last)
    Console().print(table)


if __name__ == "__main__":
    main()
