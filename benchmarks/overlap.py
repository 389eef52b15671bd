"""Measures how much sooner a run is done because its clips are measured while the next ones are made.

    python benchmarks/overlap.py                                    # 6 clips of 832×480×81, 15 s of waiting for each
    python benchmarks/overlap.py --clips 12 --seconds 30 --workers 4

The model waits for each clip as one waits for a server, so that the cores are free. `avbench run` is timed beside
`avbench sample`, `measure` and `evaluate` one after another, with the same number of workers, in turns.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console

from avbench.core import Audio, Clip
from avbench.storage.media import write_clip

MODEL = """
import time
from pathlib import Path


class Waiting:
    concurrency = 1

    def __init__(self, seconds: float):
        self.settings = {"seconds": seconds}

    def generate(self, requests):
        for request in requests:
            time.sleep(self.settings["seconds"])
            yield Path(f"clip{request.key.prompt}.mp4").resolve()
"""


def make_clips(place: Path, count: int, width: int, height: int, frames: int) -> None:
    """Write clips of a panning texture with noise for sound, as clip0.mp4 and so on."""
    for number in range(count):
        chance = np.random.default_rng(number)
        wide = chance.integers(0, 256, (height // 8, width // 8 + frames, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        picture = np.stack([wide[:, 3 * k : 3 * k + width] for k in range(frames)])
        sound = Audio(chance.normal(0, 0.1, (1, 16000 * frames // 16)).astype(np.float32), 16000)
        write_clip(Clip(picture, 16, sound), place / f"clip{number}.mp4", lossless=False)


def seconds_of(place: Path, *commands: str) -> float:
    """Wall-clock seconds of some commands one after another."""
    begin = time.monotonic()
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "avbench", *command.split()], cwd=place, capture_output=True, text=True
        )
        if done.returncode:
            msg = f"avbench {command}: {done.stderr[-2000:]}"
            raise SystemExit(msg)
    return time.monotonic() - begin


def main() -> None:
    """Print both times of each round, and the ratio of their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--size", default="832x480x81", help="width x height x frames")
    parser.add_argument("--seconds", type=float, default=15.0, help="waited for each clip")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_clips(place, options.clips, *map(int, options.size.split("x")))
        (place / "waiting.py").write_text(MODEL)
        prompts = [
            {"id": str(k), "video_caption": f"a texture {k}", "audio_caption": "noise"} for k in range(options.clips)
        ]
        (place / "p.jsonl").write_text("".join(json.dumps(one) + "\n" for one in prompts))
        asked = f"python:waiting:Waiting -M seconds={options.seconds} --prompts p.jsonl --workers {options.workers}"
        times = []
        for turn in range(options.rounds):
            one, three = (f"one{turn}", f"three{turn}")
            run = f"{three}/python-waiting-Waiting"
            together = seconds_of(place, f"run {asked} --out {one}")
            steps = (f"sample {asked} --out {three}", f"measure {run} --workers {options.workers}", f"evaluate {run}")
            times.append((together, seconds_of(place, *steps)))
            Console().print(f"run {times[-1][0]:.1f} s, one after another {times[-1][1]:.1f} s")
    first, second = (median(each) for each in zip(*times, strict=True))
    Console().print(f"medians {first:.1f} s and {second:.1f} s: {second / first:.2f} times")


if __name__ == "__main__":
    main()
