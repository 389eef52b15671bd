"""Measures the CPU seconds that one clip costs, by feature, here and in another version of avbench.

    git worktree add ../before v0.1.0
    python benchmarks/speed.py --beside ../before

Each version runs in a process of its own, with one thread; this one as a worker does, with huge pages. Both measure the
same files in turns, and a round is one turn of each. The table has medians over the rounds, in CPU seconds, so that
other load on the machine counts little, the ratio of the two, and the largest difference of any value, relative to the
largest value of its array. `start` is what importing and loading the networks costs each process once. `all` is the sum
of a clip, and `memory` the MiB that the process took at most up to that clip; clips come in order of size. Without
`--beside` only this version is measured. With `--peers`, what people piece together without avbench (speed_peers.py) is
measured in the same turns. Its weights are random, so its values are compared in `16-frames` alone: 16 frames, evenly
spread over a clip that stays in its file. `i3d-resize` is what brings 16 frames to I3D's input, a part of `i3d-k400`.
`i3d-products` multiplies matrices with as many operations as I3D has without Winograd. These three do not count in
`all`. With `--bf16` features that can compute in bfloat16 do so in a column of their own; the others are measured anew.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from avbench.core import Audio, Clip
from avbench.storage.media import write_clip
from avbench.storage.workers.worker_pool import huge_pages

HERE = Path(__file__).resolve().parent.parent
FEATURES = ("i3d-k400", "lpips-alex", "flow-dis", "onsets", "levels", "musicnn", "av-align")
DECODE, SPREAD, RESIZE, PRODUCTS = "decode", "16-frames", "i3d-resize", "i3d-products"
APART = (SPREAD, RESIZE, PRODUCTS)
"""Measured only where they are named; they do not count in `all`."""
OF_PEERS = (DECODE, SPREAD, RESIZE, "i3d-k400", "lpips-alex", "flow-dis")
"""What speed_peers.py has."""
CLIPS = {
    "toy": (16, 64, 64, 8),
    "16x256x256": (16, 256, 256, 8),
    "81x480x832": (81, 480, 832, 16),
    "121x720x1280": (121, 720, 1280, 24),
    "721x480x832": (721, 480, 832, 16),
}
"""Name → frames, height, width and frames per second. The last is measured only where it is named."""

Reply = dict[str, Any]


def made(frames: int, height: int, width: int, fps: int) -> Clip:
    """A textured plane that drifts behind a textured square that moves the other way, with grain, and with noise."""
    random = np.random.default_rng(0)
    sizes = (height + frames, width + frames, 3), (height // 3, width // 3, 3)
    plane, square = (cv2.GaussianBlur(random.random(size, np.float32), (0, 0), 3) for size in sizes)
    plane, square = (230 * (texture - texture.min()) / np.ptp(texture) for texture in (plane, square))
    shown = np.empty((frames, height, width, 3), np.uint8)
    for k in range(frames):
        image = plane[k : k + height, k : k + width].copy()
        left = (width // 2 - 2 * k) % (width - square.shape[1])
        image[height // 3 : height // 3 + square.shape[0], left : left + square.shape[1]] = square
        shown[k] = np.clip(image + random.normal(0, 2, image.shape), 0, 255)
    noise = random.normal(0, 0.1, (1, 16000 * frames // fps)).clip(-1, 1).astype(np.float32)
    return Clip(shown, Fraction(fps), Audio(noise, 16000))


def spread(frames: int) -> np.ndarray:
    """The numbers of the 16 frames."""
    return np.linspace(0, frames - 1, 16).round().astype(int)


def checksums(images: np.ndarray) -> dict[str, Any]:
    """Numbers that are equal where frames are."""
    return {"crc32": [zlib.crc32(image.tobytes()) for image in images]}


def own(features: Sequence[str], *, half: bool) -> dict[str, tuple[Callable[[Path], Any], Callable[[Any], Any]]]:
    """Feature → what makes its input of a file, which is not timed, and what is timed; with `half` in bfloat16."""
    import torch

    from avbench.features import table, worker
    from avbench.storage.media import read_clip

    def read(file: Path, most: float = worker._MOST_HELD) -> Clip:  # as `measure` reads a clip
        return read_clip(file, most_held=most)

    def built(feature: str) -> Callable[[Clip], Any]:
        kind: Any = table.feature_class(feature)
        return kind(precision="bfloat16") if half and getattr(kind, "in_bfloat16", False) else kind()

    def resize(frames: np.ndarray) -> dict[str, torch.Tensor]:
        from avbench.features.video.i3d.resize import resized

        with torch.inference_mode():
            return {"input": resized(frames, len(frames), 224, antialias=True, device=torch.device("cpu"))}

    def products(matrix: torch.Tensor) -> dict[str, torch.Tensor]:
        for _ in range(26):  # I3D has 55.6e9 multiplications and additions, one product 2 * 1024**3
            torch.mm(matrix, matrix)
        return {}

    return {
        DECODE: (Path, lambda file: {"frames": len(read(file).frames)}),
        SPREAD: (
            lambda file: read(file, 0),
            lambda clip: {"frames": clip.frames[spread(len(clip.frames))]},
        ),
        RESIZE: (lambda file: read(file, 0).frames[:16], resize),
        PRODUCTS: (lambda _: torch.ones(1024, 1024), products),
        **{one: (read, built(one)) for one in features if one not in (DECODE, *APART)},
    }


def serve(features: Sequence[str], *, peers: bool, half: bool) -> None:
    """Answer lines ``[file, feature]`` with seconds and values, and first with the seconds that starting took."""
    from avbench.storage.workers.worker_pool import one_thread

    one_thread()
    if peers:
        import speed_peers

        looks = speed_peers.looks(spread)
    else:
        looks = own(features, half=half)
    sys.stdout.write(json.dumps({"seconds": time.process_time()}) + "\n")
    sys.stdout.flush()
    given: Any = None
    for line in sys.stdin:
        file, feature = json.loads(line)
        given = None  # before the next is read: a worker holds one at a time
        prepare, look = looks[feature]
        given = prepare(Path(file))
        begin = time.process_time()
        values = look(given)
        seconds = time.process_time() - begin
        values = checksums(values["frames"]) if feature == SPREAD else values
        shown = {name: np.ravel(np.asarray(value, dtype=np.float64)).tolist() for name, value in values.items()}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        sys.stdout.write(json.dumps({"seconds": seconds, "values": shown, "mib": peak}) + "\n")
        sys.stdout.flush()


class Version:
    """One version of avbench in a process of its own."""

    def __init__(self, folder: Path, features: Sequence[str], *how: str) -> None:
        places = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--serve",
            *how,
            "--features",
            *features,
        ]
        with huge_pages() if folder == HERE and "--peers" not in how else nullcontext():
            environment |= {name: value for name, value in os.environ.items() if name == "GLIBC_TUNABLES"}
            self._process = subprocess.Popen(
                command, env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        self.start = self._answer()["seconds"]

    def ask(self, file: Path, feature: str) -> Reply:
        """Measure one feature of one file."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(file), feature]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> Reply:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            msg = "the measuring process ended; its error is above"
            raise SystemExit(msg)
        return json.loads(line)


def difference(one: Reply, other: Reply) -> float:
    """The largest difference between two answers, relative to the largest value of its array."""
    found = [0.0]
    for name, values in one["values"].items():
        a, b = np.array(values), np.array(other["values"][name])
        if a.size:
            found.append(float(np.nanmax(np.abs(a - b), initial=0.0) / max(np.nanmax(np.abs(b), initial=0.0), 1e-12)))
    return max(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, help="the folder of another version of avbench")
    parser.add_argument("--clips", nargs="+", choices=CLIPS, default=list(CLIPS)[:-1])
    parser.add_argument("--features", nargs="+", choices=(DECODE, *APART, *FEATURES), default=[DECODE, *FEATURES])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", action="store_true", help="measure cd-fvd, lpips, OpenCV and torchcodec as well")
    parser.add_argument("--bf16", action="store_true", help="measure in bfloat16 as well what can compute in it")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.features, peers=options.peers, half=options.bf16)
        return
    versions = {"now": Version(HERE, options.features)}
    if options.beside:
        versions = {"before": Version(options.beside.resolve(), options.features), **versions}
    if options.bf16:
        versions["bf16"] = Version(HERE, options.features, "--bf16")
    if options.peers:
        versions["peers"] = Version(HERE, options.features, "--peers")
    others = [name for name in versions if name != "now"]
    table = Table("clip", "feature", *versions, *(f"{name} / now" for name in others), "difference")
    rows = [("", "start", {name: version.start for name, version in versions.items()}, "")]
    with tempfile.TemporaryDirectory() as folder:
        for name in (one for one in CLIPS if one in options.clips):
            file = Path(folder, f"{name}.mp4")
            write_clip(made(*CLIPS[name]), file, lossless=False)
            peaks: dict[str, float] = {}
            sums = dict.fromkeys(versions, 0.0)
            for feature in options.features:
                asked = [one for one in versions if one != "peers" or feature in OF_PEERS]
                turns = [{one: versions[one].ask(file, feature) for one in asked} for _ in range(options.rounds)]
                spent = {one: statistics.median(turn[one]["seconds"] for turn in turns) for one in asked}
                beside = "before" if options.beside else "peers" if options.peers and feature == SPREAD else None
                apart = f"{difference(turns[0]['now'], turns[0][beside]):.1e}" if beside else ""
                rows.append((name, feature, spent, apart))
                peaks |= {one: turns[-1][one]["mib"] for one in asked}
                if feature not in APART:
                    sums = {one: seconds + spent.get(one, 0.0) for one, seconds in sums.items()}
            if all(sums.values()):
                rows.append((name, "all", sums, ""))
            rows.append((name, "memory", peaks, ""))
    for version in versions.values():
        version.close()
    for name, feature, spent, apart in rows:
        cells = [f"{spent[one]:.3f}" if one in spent else "-" for one in versions]
        cells += [f"{spent[one] / spent['now']:.2f}" if one in spent else "-" for one in others]
        table.add_row(name, feature, *cells, apart)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
