"""Measures how much faster two Ray actors are than one, on sampling and measuring toy clips.

    pip install "avbench[ray]"
    python benchmarks/ray_engine.py --clips 64 --rounds 3

Both make the same clips of the embedded world and measure the default metrics, in turns; a round is one turn of each.
Ray is started before. Each actor starts and loads its networks, once for sampling and once for measuring, which is
included. Other load on the machine spoils wall time, so the table has CPU seconds too. The busiest actor's are what the
wall time would be on a machine with a free core for each actor; what the command itself needs bounds how many actors it
can feed. Actors of other Ray work on the machine would be counted too.
"""

import argparse
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
from avbench.storage.worker_pool import one_thread
from avbench.subsets.loading import load

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Of sampling and measuring all clips."""

    wall_seconds: float
    actor_cpu_seconds: float
    busiest_cpu_seconds: float
    """Of the actor that had most to do: in sampling, and in measuring."""
    command_cpu_seconds: float


class ActorCpu:
    """Looks at the CPU seconds of Ray's actors, which are gone when their work is done."""

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        """Process number of an actor → its CPU seconds."""
        self._older = frozenset(_actors())
        self._stop = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "ActorCpu":
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._looking.join()

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            self.seconds.update({actor: seconds for actor, seconds in _actors().items() if actor not in self._older})


def _actors() -> dict[int, float]:
    """Process number → CPU seconds of each actor on this machine; those of the stage before may still be ending."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cmdline").read_bytes().startswith(b"ray::Actor"):
                user, system = (place / "stat").read_text().rpartition(")")[2].split()[11:13]
                found[int(place.name)] = (int(user) + int(system)) / _TICKS
        except OSError:
            continue
    return found


def cost(actors: int, clips: int, work: Path) -> Cost:
    """Sample and measure with so many actors, in a folder that is deleted again."""
    folder = work / "run"
    by = Work(RayActors(actors), device="cpu")
    command = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    begun = time.perf_counter()
    with ActorCpu() as sampling:
        view, failed = sampled(folder, "toyworld:", SamplingJob([load("toy-object-contact").limited(clips)]), by)
    with ActorCpu() as measuring:
        failed += measured(view, chosen_metrics(None), by)
    wall = time.perf_counter() - begun
    shutil.rmtree(folder)
    assert not failed, by.reporter.notes
    stages = [of.seconds.values() for of in (sampling, measuring)]
    own = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - command
    return Cost(wall, sum(map(sum, stages)), sum(map(max, stages)), own)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    one_thread()
    RayActors(2).connect()
    costs: dict[int, list[Cost]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(prefix="avbench-ray-") as work:
        for turn in range(asked.rounds):
            for actors in (1, 2) if turn % 2 == 0 else (2, 1):
                costs[actors].append(cost(actors, asked.clips, Path(work)))
                Console().print(f"round {turn + 1}, {actors} actors: {costs[actors][-1]}", highlight=False)
    table = Table("", *(one.name.replace("_", " ") for one in fields(Cost)))
    medians = {
        actors: [statistics.median(getattr(each, one.name) for each in of) for one in fields(Cost)]
        for actors, of in costs.items()
    }
    for actors, row in medians.items():
        table.add_row(f"{actors} actor{'s' * (actors > 1)}", *(f"{seconds:.1f}" for seconds in row))
    table.add_row("one / two", *(f"{one / two:.2f}" for one, two in zip(*medians.values(), strict=True)))
    Console().print(table)


if __name__ == "__main__":
    main()
