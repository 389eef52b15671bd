"""Measures what avbench adds around a generator: CPU seconds of a run's sampling against bare calls of the generator.

    python benchmarks/overhead.py                                        # a bundled arm
    python benchmarks/overhead.py toyworld: avfulldit:toy-t2v --clips 64

Both make the same clips in the same batches, in one process with one thread, in turns: bare calls, then a run of these
prompts in a folder of its own, which writes each clip losslessly, waits until it is on disk, hashes it and records it.
Loading the model counts in neither.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from avbench.core import Subset
from avbench.generation import table as generators
from avbench.generation.sample import plan, sample
from avbench.generation.table import Generator
from avbench.storage.run_folder import RunFolder
from avbench.storage.worker_pool import one_thread
from avbench.subsets.loading import load


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process, of the system's calls as well."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def bare(generator: Generator, subset: Subset) -> None:
    """Make the clips and keep none."""
    requests = plan([subset], [0])
    for start in range(0, len(requests), generator.batch_size):
        for _ in generator.generate(requests[start : start + generator.batch_size]):
            pass


def run(generator: Generator, name: str, subset: Subset) -> None:
    """Make the same clips into a run folder, which is deleted."""
    with tempfile.TemporaryDirectory() as place:
        for made in sample(RunFolder(Path(place) / "run"), name, {}, [subset], [0], generator=generator)[1]:
            if made.failure:
                raise SystemExit(made.failure)


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
    table = Table("generator", "bare, CPU s per clip", "in a run", "added, s", "added, %")
    for name in options.models:
        generator = generators.build(name, {})
        bare(generator, subset.limited(generator.batch_size))  # what is done once is done now
        turns = [
            (cpu_seconds(lambda: bare(generator, subset)), cpu_seconds(lambda: run(generator, name, subset)))  # noqa: B023
            for _ in range(options.rounds)
        ]
        alone, inside = (median(each) / len(subset.prompts) for each in zip(*turns, strict=True))
        added = median(whole - part for part, whole in turns) / len(subset.prompts)
        table.add_row(name, f"{alone:.3f}", f"{inside:.3f}", f"{added:.4f}", f"{100 * added / alone:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
