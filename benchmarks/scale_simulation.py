"""Simulates a run of many clips on many GPUs: how long each stage takes, what it costs, and what breaks first.

    python benchmarks/scale_simulation.py
    python benchmarks/scale_simulation.py --clips 100000 --gpus 8 --sampling-seconds 240 --parts 64

Parts of a run (`--shard i/n`) wait in a queue, as in a Slurm array; each free GPU takes the next. A part starts,
samples its clips, and measures them with the cores beside its GPU. GPUs fail at random; a part then waits, starts again
and loses the clip that it was making. When all parts have ended, one machine merges and evaluates. The stage times are
measured ones (docs/speed.md, docs/scale.md) or assumptions; the table says which, and each is an option.
"""

import argparse
import heapq
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

MEASURED, ASSUMED = "measured", "assumed"


def _stated(value: float, unit: str, source: str) -> Any:
    return field(default=value, metadata={"unit": unit, "source": source})


@dataclass(frozen=True)
class Setting:
    """The size of the run, and what its stages take. Clips are 81 frames of 832x480 with sound."""

    clips: int = _stated(1_000_000, "clips", ASSUMED)
    gpus: int = _stated(64, "GPUs", ASSUMED)
    parts: int = _stated(1024, "parts", ASSUMED)
    cores_per_gpu: int = _stated(8, "cores beside a GPU", ASSUMED)
    sampling_seconds: float = _stated(60.0, "GPU s per clip", ASSUMED)
    sampling_spread: float = _stated(0.1, "standard deviation of that, as a share", ASSUMED)
    start_seconds: float = _stated(120.0, "s until a part's model is loaded", ASSUMED)
    hours_between_failures: float = _stated(2000.0, "GPU hours", ASSUMED)
    requeue_seconds: float = _stated(600.0, "s until a failed part starts again", ASSUMED)
    writing_seconds: float = _stated(1.8, "CPU s per clip", MEASURED)
    measuring_seconds: float = _stated(9.1, "CPU s per clip", MEASURED)
    clip_mb: float = _stated(26.0, "MB per clip, lossless", MEASURED)
    row_kb: float = _stated(7.4, "kB of rows per clip, five features", MEASURED)
    merging_seconds: float = _stated(0.0013, "s per clip", MEASURED)
    reading_mb_per_second: float = _stated(500.0, "MB/s, for the sha256 of each clip", ASSUMED)
    evaluating_seconds: float = _stated(0.0074, "CPU s per clip", MEASURED)
    evaluating_kb: float = _stated(14.0, "kB of memory per clip, of FVD", MEASURED)
    gpu_hour_price: float = _stated(2.5, "per GPU hour", ASSUMED)
    terabyte_month_price: float = _stated(25.0, "per TB and month", ASSUMED)


@dataclass(frozen=True)
class Array:
    """What the parts took."""

    hours: float
    """Until the last part ended."""
    busy_hours: float
    """Of all GPUs, while a part was sampling."""
    failures: int


def simulated(setting: Setting, seed: int = 0) -> Array:
    """Run the parts through the queue."""
    random = np.random.default_rng(seed)
    measuring = (setting.writing_seconds + setting.measuring_seconds) / setting.cores_per_gpu
    free = [0.0] * setting.gpus
    sampled, failures = 0.0, 0
    for part in range(setting.parts):
        clips = len(range(part, setting.clips, setting.parts))
        spread = setting.sampling_spread * setting.sampling_seconds * np.sqrt(clips)  # of a sum of independent times
        work = max(0.0, random.normal(setting.sampling_seconds * clips, spread))
        sampled += work
        needed = setting.start_seconds + work + measuring * clips
        now = heapq.heappop(free)
        while (until := random.exponential(setting.hours_between_failures * 3600)) < needed:
            failures += 1
            lost = min(until, setting.start_seconds + setting.sampling_seconds / 2)
            needed -= until - lost
            now += until + setting.requeue_seconds
        heapq.heappush(free, now + needed)
    return Array(max(free) / 3600, sampled / 3600, failures)


def stages(setting: Setting, array: Array) -> list[tuple[str, float]]:
    """Stage → hours from its start to its end."""
    terabytes = setting.clips * setting.clip_mb / 1e6
    return [
        (f"parts: sample and measure ({array.failures} failures)", array.hours),
        (
            f"merge: read {terabytes:.0f} TB for the hashes",
            setting.clips * setting.clip_mb / setting.reading_mb_per_second / 3600,
        ),
        ("merge: lines and rows", setting.clips * setting.merging_seconds / 3600),
        ("evaluate", setting.clips * setting.evaluating_seconds / 3600),
    ]


def limits(setting: Setting) -> list[tuple[str, float, float]]:
    """What grows with the clips → its amount, and the number of clips at which it reaches a usual limit."""
    n = setting.clips
    merging = setting.clip_mb / setting.reading_mb_per_second + setting.merging_seconds
    grown = [
        ("hours of merging on one machine; limit 8", n * merging / 3600, 8),
        ("GiB of memory to evaluate; limit 16", n * setting.evaluating_kb * 1e3 / 2**30, 16),
        ("GiB of memory for shares of neighbours (n²); limit 64", n * n * 8 / 2**30, 64),
        ("files in one folder, millions; limit 10", n / 1e6, 10),
        ("TB of lossless clips; limit 100", n * setting.clip_mb / 1e6, 100),
    ]
    found = []
    for what, amount, limit in grown:
        power = 0.5 if "n²" in what else 1.0
        found.append((what, amount, n * (limit / amount) ** power))
    return sorted(found, key=lambda one: one[2])


def main() -> None:
    """Print the settings, the stages, the cost and the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for one in fields(Setting):
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=type(one.default), default=one.default)
    setting = replace(Setting(), **vars(parser.parse_args()))
    array = simulated(setting)

    given = Table("setting", "value", "unit", "source")
    for one in fields(Setting):
        value = getattr(setting, one.name)
        source = one.metadata["source"] if value == one.default else "given"
        given.add_row(one.name, f"{value:,}", one.metadata["unit"], source)
    times = Table("stage", "hours", "share")
    found = stages(setting, array)
    total = sum(hours for _, hours in found)
    for stage, hours in found:
        times.add_row(stage, f"{hours:,.1f}", f"{hours / total:.0%}")
    held = array.hours * setting.gpus
    measured = setting.clips * (setting.measuring_seconds + setting.writing_seconds) / 3600
    terabytes = setting.clips * (setting.clip_mb * 1e3 + setting.row_kb) / 1e9
    amounts = Table("what", "amount")
    amounts.add_row("GPU hours held", f"{held:,.0f}")
    amounts.add_row("of these, sampling", f"{array.busy_hours / held:.1%}")
    amounts.add_row("CPU hours of writing and measuring", f"{measured:,.0f}")
    amounts.add_row("cost of the GPUs", f"{held * setting.gpu_hour_price:,.0f}")
    amounts.add_row("storage", f"{terabytes:,.1f} TB, {terabytes * setting.terabyte_month_price:,.0f} per month")
    breaks = Table("what breaks first", "now", "reached at")
    for what, amount, clips in limits(setting):
        breaks.add_row(what, f"{amount:,.1f}", f"{clips:,.0f} clips")
    for table in (given, times, amounts, breaks):
        Console(width=110).print(table)


if __name__ == "__main__":
    main()
