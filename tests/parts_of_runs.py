"""Runs, and parts of runs, of made-up clips and rows: what merging is tried on. Clips are a few bytes, not media."""

import hashlib
import json
import random
from dataclasses import dataclass, replace

import numpy as np

from avbench.core import Prompt, Protocol, Row, Run, Sample, Subset, planned_keys
from avbench.storage.runs.folder import RunFolder
from avbench.storage.writing import write_json

SUBSETS = (
    Subset("walk", 1, tuple(Prompt(f"w{number}", "a dog walks") for number in range(5)), None),
    Subset("fall", 1, tuple(Prompt(f"f{number}", "a ball falls") for number in range(3)), None),
)
SEEDS = (0, 1)
KEYS = planned_keys(SUBSETS, SEEDS)


@dataclass(frozen=True)
class Colours(Protocol):
    bins: int = 3


PROTOCOLS = (Colours("colours", 1), Protocol("loudness", 1))
WHOLE = Run(
    "whole",
    "made:up",
    {"steps": 4},
    {one.name: one.digest for one in SUBSETS},
    SEEDS,
    {"torch": "2.4"},
    {"cores": "2"},
    asked={"steps": 4},
)


def part(place, keys, *, rows=True, subsets=SUBSETS, **changes):
    """A run folder with the clips of these keys; how long each took differs from part to part."""
    folder, clock = RunFolder(place), random.Random(place.name)
    digests = {one.name: one.digest for one in subsets}
    folder.start(replace(WHOLE, name=place.name, subsets=digests, **changes), subsets)
    for key in keys:
        stem = folder.clip_stem(key)
        stem.parent.mkdir(parents=True, exist_ok=True)
        clip = stem.with_name(f"{stem.name}.mkv")
        clip.write_bytes(f"clip of {key}".encode())
        write_json(stem.with_name(f"{stem.name}.truth.json"), {"of": key})
        sha256 = hashlib.sha256(clip.read_bytes()).hexdigest()
        folder.add_sample(Sample(key, clip.relative_to(folder.path).as_posix(), sha256, clock.random()))
        for protocol in PROTOCOLS if rows else ():
            values = {"of": np.frombuffer(sha256.encode(), "u1")[:4].astype("f4")}
            folder.add_row(protocol, Row(key, sha256, values))
    return folder


def content(place, *, times=False):
    """File → bytes of everything that is the run's; how long a clip took only with `times`."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_file() and path.name not in (".lock", ".progress.json", ".mirror.json"):
            found[name] = path.read_bytes()
    if not times and "samples.jsonl" in found:
        lines = [json.loads(line) for line in found["samples.jsonl"].splitlines()]
        timed = ("seconds", "peak_memory_mib", "peak_gpu_memory_mib", "crc32")
        found["samples.jsonl"] = [{name: one for name, one in line.items() if name not in timed} for line in lines]
    return found


def in_order(place):
    """What a run folder holds, with the lines of its files in one order: workers write them as clips are done."""
    found = content(place)
    for name, one in found.items():
        if name.endswith("rows.jsonl"):
            found[name] = sorted(one.splitlines())
    found["samples.jsonl"] = sorted(found["samples.jsonl"], key=json.dumps)
    return found


def whole(place):
    """The run that one process made without a stop."""
    return part(place / WHOLE.name, KEYS)
