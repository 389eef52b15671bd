"""Measures what statistics cost on large runs: CPU seconds and peak memory of commands, and of their parts.

    python benchmarks/large_runs.py 1000 20000 --work /tmp/large-runs
    python benchmarks/large_runs.py 200 --rise 0.3 --verb compare --against ../other-checkout
    python benchmarks/large_runs.py --parts --against ../other-checkout

Two runs and a reference of made-up rows of every default metric, as wide as real ones; no clip is needed. The second
run's numbers lie higher by `--rise`. Each command, and each part, runs in a process of its own with one BLAS thread.
`--against` runs the same by the code of another checkout as well, in turns, and prints the ratio of CPU seconds and how
far the numbers are apart.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from avbench.core import Key, Prompt, Row, Run, Sample, Subset, columns, digest
from avbench.features.protocols import protocol_of
from avbench.metrics import reference_building
from avbench.metrics.frechet import Frechet, frechet_distance
from avbench.metrics.kernel import Kernel
from avbench.metrics.sync import sync_excess
from avbench.statistics import paired, uncertainty
from avbench.storage.runs.folder import RunFolder
from avbench.storage.writing import append_line

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


def make(work: Path, clips: int, rise: float) -> None:
    """Two runs, a and b, and the reference of their subset, where they are missing."""
    if (work / "made").exists():
        return
    shutil.rmtree(work, ignore_errors=True)
    prompts = tuple(Prompt(f"p{number:06}", f"prompt {number}") for number in range(clips))
    subset = Subset(SUBSET, 1, prompts, None)
    few = Subset(SUBSET, 1, prompts[:MOST_REAL], None)
    make_run(work / "a", subset, seed=0, rise=0.0)
    make_run(work / "b", subset, seed=0, rise=rise)
    real = make_run(work / "real", few, seed=reference_building.FIRST_SEED, rise=0.01)
    reference_building.pack(real, few, [protocol_of(feature) for feature in FEATURES], work / "reference" / SUBSET)
    (work / "made").touch()


@dataclass(frozen=True)
class Spent:
    """What a command took."""

    cpu_seconds: float
    peak_gib: float
    output: str


def two_sets(n: int, m: int, width: int = 400) -> np.ndarray:
    """Features of n clips and then of m others, of about one distribution."""
    random = np.random.default_rng(n)
    return random.standard_normal((n + m, width)) * 8 / np.sqrt(np.arange(1, width + 1))


def swaps(statistic: type, n: int) -> float:
    """The p-value of a comparison of two models that hardly differ, on n pairs."""
    return uncertainty.swap_test(statistic(two_sets(2 * n, n)), range(n), range(n)).p


def null(statistic: type, n: int) -> float:
    """Mean of the null of n clips beside n real ones."""
    return uncertainty.permutation_null(statistic(two_sets(n, n)), range(n), range(n, 2 * n)).mean


def means(n: int) -> float:
    """The p-value of a comparison of means over n prompts."""
    a, b = np.random.default_rng(n).standard_normal((2, n))
    return paired.paired_difference(a, b, [*range(n)]).p


def sync(n: int) -> float:
    """The mean agreement of sound and picture above chance, of n clips."""
    random = np.random.default_rng(n)
    each = [values("flow-dis", random, 0) | values("onsets", random, 0) for _ in range(n)]
    rows = [Row(Key(SUBSET, f"p{number:06}", 0), "", one) for number, one in enumerate(each)]
    return float(np.nanmean(sync_excess(columns(rows)[1])))


PARTS: dict[str, Callable[[], float]] = {
    "FVD of 2,048 clips to 2,048": lambda: frechet_distance(*np.split(two_sets(2048, 2048), 2)),
    "1,000 permutations of FVD, n = 256": lambda: null(Frechet, 256),
    "1,000 permutations of FVD, n = 2,048": lambda: null(Frechet, 2048),
    "1,000 permutations of KVD, n = 2,048": lambda: null(Kernel, 2048),
    "1,000 permutations of KVD, n = 4,096": lambda: null(Kernel, 4096),
    "swaps of FVD, 64 pairs": lambda: swaps(Frechet, 64),
    "swaps of KVD, 1,000 pairs": lambda: swaps(Kernel, 1000),
    "swaps of KVD, 5,000 pairs": lambda: swaps(Kernel, 5000),
    "a mean of 20,000 clips": lambda: means(20_000),
    "sync excess of 2,000 clips": lambda: sync(2000),
}


def spent(checkout: Path, *arguments: str | Path) -> Spent:
    """Run avbench, or this script where the first argument is its path, by the code of a checkout."""
    of_module = [] if arguments[0] == Path(__file__) else ["-m", "avbench"]
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *of_module, *map(str, arguments)],
            cwd=checkout,
            env={**os.environ, **one, "PYTHONPATH": str(checkout), "AVBENCH_FILE_MEMORY": str(2**34)},
            stdout=output,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
        output.seek(0)
        text = (Path(arguments[1]) / "scores.json").read_text() if arguments[0] == "evaluate" else output.read()
        return Spent(used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20, text)


def apart(verb: str, one: str, other: str) -> str:
    """The largest relative difference of values, and of the p-values, between two outputs."""
    if verb == "part":
        x, y = float(one), float(other)
        return f"{abs(x - y) / abs(y):.1e}"
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


def in_turns(checkouts: list[Path], rounds: int, *arguments: str | Path) -> list[Spent]:
    """The least that a command took by the code of each checkout."""
    found = [[spent(checkout, *arguments) for checkout in checkouts] for _ in range(rounds)]
    return [min(each, key=lambda one: one.cpu_seconds) for each in zip(*found, strict=True)]


def shown(what: str, verb: str, best: list[Spent]) -> list[str]:
    """A row of the table."""
    row = [what, *(f"{one.cpu_seconds:.1f} s, {one.peak_gib:.2f} GiB" for one in best)]
    if len(best) > 1:
        row += [f"{best[1].cpu_seconds / best[0].cpu_seconds:.1f}", apart(verb, best[0].output, best[1].output)]
    return row


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=int, nargs="*")
    parser.add_argument("--work", type=Path, default=Path("runs/large-runs"))
    parser.add_argument("--rise", type=float, default=0.02)
    parser.add_argument("--verb", choices=["evaluate", "compare"], action="append")
    parser.add_argument("--metric", action="append", help="Only these metrics.")
    parser.add_argument("--parts", action="store_true", help="Time parts of the statistics as well.")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--against", type=Path, help="Another checkout.")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    if options.part:
        sys.stdout.write(f"{PARTS[options.part]()}\n")
        return
    named = [part for name in options.metric or () for part in ("--metric", name)]
    checkouts = [HERE, *([options.against.absolute()] if options.against else [])]
    table = Table("what", *(one.name for one in checkouts), *(("ratio", "apart") if options.against else ()))
    for part in PARTS if options.parts else ():
        table.add_row(*shown(part, "part", in_turns(checkouts, options.rounds, Path(__file__), "--part", part)))
    for clips in options.clips:
        work = (options.work / f"{clips}-{options.rise}").absolute()
        make(work, clips, options.rise)
        a, b, real = work / "a", work / "b", work / "reference"
        commands: dict[str, list[str | Path]] = {
            "evaluate": ["evaluate", a, "--reference", real, *named],
            "compare": ["compare", a, b, "--format", "json", "--reference", real, *named],
        }
        for verb in options.verb or commands:
            if verb == "compare" and not (b / "scores.json").exists():
                spent(HERE, "evaluate", a, b, *commands["evaluate"][2:])
            found = in_turns(checkouts, options.rounds, *commands[verb])
            runs = "2 x " if verb == "compare" else ""
            table.add_row(*shown(f"{verb}, {runs}{clips:,} clips", verb, found))
    Console().print(table)


if __name__ == "__main__":
    main()
