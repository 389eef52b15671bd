"""Measures how much faster two Ray actors are than one, on sampling and measuring toy clips.

    pip install "avbench[ray]"
    python benchmarks/ray_engine.py --clips 64 --rounds 3

Both make the same clips of the embedded world and measure the default metrics, in turns; a round is one turn of each.
Ray is started before. Wall time includes that each actor starts and loads its networks, once for sampling and once for
measuring. Other load on the machine spoils wall time, so the table has CPU seconds too: those of the actors must be
nearly equal for one actor and for two, and what the command itself needs bounds how many actors it can feed.
"""

import argparse
import os
import resource
import shutil
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
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
    command_cpu_seconds: float


class ActorCpu:
    """Looks at the CPU seconds of Ray's actors, which are gone when their work is done."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        self._stop = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "ActorCpu":
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._looking.join()

    @property
    def seconds(self) -> float:
        """CPU seconds of all actors that were seen."""
        return sum(self._seen.values())

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            for place in Path("/proc").glob("[0-9]*"):
                try:
                    if (place / "cmdline").read_bytes().startswith(b"ray::Actor"):
                        user, system = (place / "stat").read_text().rpartition(")")[2].split()[11:13]
                        self._seen[int(place.name)] = (int(user) + int(system)) / _TICKS
                except OSError:
                    continue


def cost(actors: int, clips: int, work: Path) -> Cost:
    """Sample and measure with so many actors, in a folder that is deleted again."""
    folder = work / "run"
    by = Work(RayActors(actors), device="cpu")
    command = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    begun = time.perf_counter()
    with ActorCpu() as seen:
        view, failed = sampled(folder, "toyworld:", SamplingJob([load("toy-object-contact").limited(clips)]), by)
        failed += measured(view, chosen_metrics(None), by)
    wall = time.perf_counter() - begun
    shutil.rmtree(folder)
    assert not failed, by.reporter.notes
    return Cost(wall, seen.seconds, sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - command)


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
    table = Table("actors", "wall s", "CPU s of actors", "CPU s of the command", "cores in use", "clips/s")
    for actors, of in costs.items():
        wall = statistics.median(one.wall_seconds for one in of)
        cpu = statistics.median(one.actor_cpu_seconds for one in of)
        own = statistics.median(one.command_cpu_seconds for one in of)
        cells = (f"{wall:.1f}", f"{cpu:.1f}", f"{own:.1f}", f"{cpu / wall:.2f}", f"{asked.clips / wall:.2f}")
        table.add_row(str(actors), *cells)
    Console().print(table)
    ratios = [one.wall_seconds / two.wall_seconds for one, two in zip(costs[1], costs[2], strict=True)]
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    Console().print(f"two actors are {statistics.median(ratios):.2f} times as fast as one (rounds: {listed})")


if __name__ == "__main__":
    main()
