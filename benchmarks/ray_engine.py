"""Measures how much faster two Ray actors are than one, on sampling and measuring toy clips.

    pip install "avbench[ray]"
    python benchmarks/ray_engine.py --clips 192 --rounds 3

Both make the same clips of the embedded world and measure the default metrics, in turns; a round is one turn of each.
Beside them stand one and two worker processes without Ray, which show how much faster two processes of any kind are on
this machine. Ray is started before. Each actor or process starts and loads its networks, once for sampling and once for
measuring, which is included. Other load on the machine spoils wall time, so the table has CPU seconds too. The busiest
actor's are what the wall time would be on a machine with a free core for each; what the command itself needs bounds how
many it can feed. Actors of other Ray work on the machine would be counted too.
"""

import argparse
import math
import os
import resource
import shutil
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from avbench import RayActors
from avbench.api import SamplingJob, Work, measured, sampled
from avbench.metrics.evaluate import chosen_metrics
from avbench.storage.workers.worker_pool import one_thread
from avbench.subsets.loading import load

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Of sampling and measuring all clips."""

    wall_seconds: float
    worker_cpu_seconds: float
    busiest_cpu_seconds: float
    """Of the worker that had most to do: in sampling, and in measuring. One process samples in the command itself."""
    command_cpu_seconds: float


class WorkerCpu:
    """Looks at the CPU seconds of Ray's actors or of worker processes, which are gone when their work is done."""

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        """Process number of a worker → its CPU seconds."""
        self._older = frozenset(_workers())
        self._stop = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "WorkerCpu":
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._looking.join()

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            self.seconds.update({each: seconds for each, seconds in _workers().items() if each not in self._older})


def _workers() -> dict[int, float]:
    """Process number → CPU seconds of each worker on this machine; those of the stage before may still be ending."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes()
            if command.startswith(b"ray::Actor") or b"multiprocessing.forkserver" in command:
                user, system = (place / "stat").read_text().rpartition(")")[2].split()[11:13]
                found[int(place.name)] = (int(user) + int(system)) / _TICKS
        except OSError:
            continue
    return found


def cost(workers: int | RayActors, clips: int, work: Path) -> Cost:
    """Sample and measure with these workers, in a folder that is deleted again."""
    folder = work / "run"
    by = Work(workers, device="cpu")
    subset = load("toy-object-contact")
    seeds = math.ceil(clips / len(subset.prompts))
    job = SamplingJob([subset.limited(clips // seeds)], seeds=range(seeds))
    command = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    begun = time.perf_counter()
    with WorkerCpu() as sampling:
        view, failed = sampled(folder, "toyworld:", job, by)
    with WorkerCpu() as measuring:
        failed += measured(view, chosen_metrics(None), by)
    wall = time.perf_counter() - begun
    shutil.rmtree(folder)
    assert not failed, by.reporter.notes
    stages = [of.seconds.values() for of in (sampling, measuring)]
    own = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - command
    return Cost(wall, sum(map(sum, stages)), sum(max(of, default=0.0) for of in stages), own)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    one_thread()
    RayActors(2).connect()
    kinds = {"1 actor": RayActors(1), "2 actors": RayActors(2), "1 process": 1, "2 processes": 2}
    costs: dict[str, list[Cost]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory(prefix="avbench-ray-") as work:
        for turn in range(asked.rounds):
            for name in [*kinds][:: 1 if turn % 2 == 0 else -1]:
                costs[name].append(cost(kinds[name], asked.clips, Path(work)))
                Console().print(f"round {turn + 1}, {name}: {costs[name][-1]}", highlight=False)
    table = Table("", *(one.name.replace("_", " ") for one in fields(Cost)))
    rows = []
    for name, of in costs.items():
        rows.append([statistics.median(getattr(each, one.name) for each in of) for one in fields(Cost)])
        table.add_row(name, *(f"{seconds:.1f}" for seconds in rows[-1]))
        if len(rows) % 2 == 0:
            table.add_row("one / two", *(f"{one / two:.2f}" for one, two in zip(*rows[-2:], strict=True)))
    Console().print(table)


if __name__ == "__main__":
    main()
