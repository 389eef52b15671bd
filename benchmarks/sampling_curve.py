"""Measures the quality of a bundled arm against its number of sampling steps. Prints the table of docs/avfulldit.md.

    python benchmarks/sampling_curve.py --out runs/curve                          # all 96 prompts: an hour of one core
    python benchmarks/sampling_curve.py --out runs/curve --limit 24 --steps 4 12  # fewer

Each number of steps is a run of the same prompts and seed, and the embedded world is the last row. The same command
goes on where it stopped. Seconds are processor time of one core for one clip, measured on a batch after the first.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from avbench.avfulldit import BUNDLED
from avbench.avfulldit.checkpoint import load
from avbench.avfulldit.pipeline import Wish, make
from avbench.storage.runs.folder import RunFolder
from avbench.subsets.loading import load as load_subset
from avbench.training.report import markdown, table

SUBSET = "toy-object-contact"
METRICS = ("fvd", "kvd", "toy_breaks", "toy_contact", "toy_avoidance", "toy_gravity_error")
BATCH = 4


def make_run(model: str, place: Path, options: argparse.Namespace, *settings: str) -> RunFolder:
    """Sample, measure and evaluate what is missing; `place` holds the one run folder."""
    limit = [] if options.limit is None else ["--limit", str(options.limit)]
    asked = [part for setting in settings for part in ("-M", setting)]
    _avbench("sample", model, "--subset", SUBSET, *limit, *asked, "--workers", "1", "--out", str(place))
    (run,) = (path for path in place.iterdir() if path.is_dir())
    named = [part for name in METRICS for part in ("--metric", name)]
    _avbench("measure", str(run), *named, "--workers", "1")
    _avbench("evaluate", str(run), *named)
    return RunFolder(run)


def _avbench(*command: str) -> None:
    subprocess.run([sys.executable, "-m", "avbench", *command], check=True, stdout=subprocess.DEVNULL)


def clip_seconds(arm: str, steps: int) -> float:
    """Processor time of one clip."""
    torch.set_num_threads(1)
    parts = load(BUNDLED[arm])
    parts.sampling = replace(parts.sampling, steps=steps)
    parts.dit.eval()
    prompts = load_subset(SUBSET).prompts[:BATCH]
    wishes = [Wish(one.id, 0, one.video_caption, one.audio_caption or "") for one in prompts]
    make(parts, wishes, BATCH)
    start = time.process_time()
    make(parts, wishes, BATCH)
    return (time.process_time() - start) / BATCH


def main() -> None:
    """Make the runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arm", default="toy-t2av", choices=[name for name in BUNDLED if name != "toy-audio"])
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 6, 8, 12, 16, 24])
    parser.add_argument("--shift", type=float, help="instead of the checkpoint's, which is 2")
    parser.add_argument("--limit", type=int, help="only the first prompts")
    options = parser.parse_args()
    columns: dict[str, pd.Series] = {}
    for steps in options.steps:
        settings = [f"steps={steps}"] + ([] if options.shift is None else [f"shift={options.shift}"])
        run = make_run(f"avfulldit:{options.arm}", options.out / f"steps-{steps}", options, *settings)
        seconds = pd.Series({"seconds per clip": f"{clip_seconds(options.arm, steps):.1f}"})
        columns[f"{steps} steps"] = pd.concat([seconds, table([run]).iloc[:, 0]])
    columns["the world"] = table([make_run("toyworld:", options.out / "world", options)]).iloc[:, 0]
    rows = pd.DataFrame(columns)
    mine = [name for name in rows.index if name.startswith((SUBSET, "seconds", "clips"))]
    sys.stdout.write(markdown(rows.loc[mine].rename(index=lambda name: name.removeprefix(f"{SUBSET}: ")).T))


if __name__ == "__main__":
    main()
