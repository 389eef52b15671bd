"""Measures what avbench adds around a generator: the CPU seconds of a run's sampling that are not the generator's.

    python benchmarks/overhead.py                                        # a bundled arm
    python benchmarks/overhead.py toyworld: avfulldit:toy-t2v --clips 64

A run is made in a folder of its own, in this process with one thread: each clip is written losslessly, brought to the
disk, hashed and recorded. The calls of the generator are timed within it, so that the rest is no difference of two
noisy numbers. Loading the model does not count; what a run does once, before its first clip, stands by itself.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from avbench.core import Subset
from avbench.generation import table as generators
from avbench.generation.sample import sample
from avbench.generation.table import Generator, Request
from avbench.storage.runs.folder import RunFolder
from avbench.storage.workers.worker_pool import one_thread
from avbench.subsets.loading import load


class Timed:
    """A generator that counts the CPU seconds of its calls."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def generate(self, requests: Sequence[Request]) -> list[Any]:
        """Make the clips of a batch."""
        begin = time.process_time()
        made = list(self._generator.generate(requests))
        self.seconds += time.process_time() - begin
        return made


def run(generator: Generator, name: str, subset: Subset) -> tuple[float, float, float]:
    """CPU seconds of a run that is thrown away: of its start, of the generator, and of all else."""
    timed = Timed(generator)
    with tempfile.TemporaryDirectory() as place:
        begin = time.process_time()
        _, clips, _ = sample(RunFolder(Path(place) / "run"), name, {}, [subset], [0], generator=timed)
        started = time.process_time()
        for made in clips:
            if made.failure:
                raise SystemExit(made.failure)
        ended = time.process_time()
    return started - begin, timed.seconds, ended - started - timed.seconds


def main() -> None:
    """Print a row for each generator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["avfulldit:toy-t2av"])
    parser.add_argument("--subset", default="toy-object-contact")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    one_thread()
    subset = load(options.subset).limited(options.clips)
    table = Table("generator", "CPU s per clip", "added per clip", "added, %", "added once per run")
    for name in options.models:
        generator = generators.build(name, {})
        run(generator, name, subset.limited(generator.batch_size))  # what a process does once is done now
        turns = [run(generator, name, subset) for _ in range(options.rounds)]
        once, own, added = (median(each) for each in zip(*turns, strict=True))
        count = len(subset.prompts)
        table.add_row(name, f"{own / count:.3f}", f"{added / count:.4f}", f"{100 * added / own:.1f}", f"{once:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
