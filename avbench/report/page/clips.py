"""Encodes clips for the browser as small H.264 and AAC files, each made once.

They lie in a folder, `media/` beside the page, named by the sha256 of the clip's own bytes: ``<sha256>.mp4``,
``<sha256>.json`` (size, rate and waveform) and, where asked for, ``<sha256>.flow.mp4``. They are lossy and scaled, for
viewing only, and are never measured. A clip that cannot be shown is tried again by the next report.
"""

import base64
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy import signal

from avbench.core import Audio, Clip, InputError
from avbench.features.flow import DISFlow
from avbench.features.flow.pairs import pair, working
from avbench.storage import worker_pool
from avbench.storage.content import require_unchanged
from avbench.storage.media import read_clip, write_clip
from avbench.storage.reading import inside, read_json
from avbench.storage.run_folder import RunFolder, write_json

LONGEST_SIDE = 480
"""Longest side in pixels; larger clips are scaled down to it."""
_TINY_SIDE = 160
_RECIPE = f"longest side {LONGEST_SIDE}, up to {_TINY_SIDE} doubled; crf 24; 64 kbit/s; 240 peaks; motion"
"""Settings of the encoding; a file made with other settings is made again."""
_PEAKS = 240
_SMALL = {"crf": 24, "sound_bits_per_second": 64_000}
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)


@dataclass(frozen=True)
class Task:
    """One clip to encode."""

    source: Path
    sha256: str


def prepare(
    folders: Sequence[RunFolder], place: Path, *, flow: bool = False, workers: int = 0
) -> tuple[int, Iterator[Task]]:
    """Encode the runs' clips into the folder `place`: return how many are missing, and an iterator that makes them.

    Raises:
        InputError: a clip of a run is not the one that was sampled and measured; a file cannot be written.
    """
    for folder in folders:
        require_unchanged(folder)
    wanted = {
        sample.sha256: Task(inside(folder.path, sample.path), sample.sha256)
        for folder in folders
        for sample in folder.samples().values()
        if sample.path is not None and sample.sha256 is not None
    }
    todo = [task for task in wanted.values() if not _ready(place, task.sha256, flow)]
    build = functools.partial(_maker, place, flow)

    def make() -> Iterator[Task]:
        for task, found in worker_pool.map_unordered(build, todo, workers=workers, survive_crashes=True):
            if isinstance(found, worker_pool.WorkerCrashed):
                known = {"recipe": _RECIPE, "flow": flow, "missing": str(worker_pool.WorkerCrashed("preparing"))}
                write_json(place / f"{task.sha256}.json", known)
            yield task

    return len(todo), make()


def card(place: Path, sha256: str) -> dict[str, Any]:
    """Return what `prepare` recorded of a clip: width, height, frames, fps, seconds, peaks, flow; or `missing`, a
    sentence.
    """
    return read_json(place / f"{sha256}.json")


def flow_picture(flow: np.ndarray, most: float) -> np.ndarray:
    """Colour flow ``[height, width, 2]`` by the colour wheel; returns ``[height, width, 3]`` uint8.

    Hue is direction (red to the right, then clockwise), brightness is speed, full at `most` pixels a frame.
    """
    angle = np.rad2deg(np.arctan2(flow[..., 1], flow[..., 0])) % 360
    speed = np.clip(np.hypot(flow[..., 0], flow[..., 1]) / max(most, 1e-6), 0, 1)
    hsv = np.stack([angle, np.ones_like(angle), speed], axis=-1).astype(np.float32)
    return (cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255).round().astype(np.uint8)


def _ready(place: Path, sha256: str, flow: bool) -> bool:
    try:
        known = card(place, sha256)
    except InputError:
        return False
    files = [place / f"{sha256}.mp4", *([place / f"{sha256}.flow.mp4"] if flow else [])]
    made = "missing" not in known and known["recipe"] == _RECIPE and (known["flow"] or not flow)
    return made and all(path.is_file() for path in files)


def _maker(place: Path, flow: bool) -> Callable[[Task], None]:
    def make(task: Task) -> None:
        place.mkdir(parents=True, exist_ok=True)
        known: dict[str, Any] = {"recipe": _RECIPE, "flow": flow}
        try:
            clip = read_clip(task.source)
        except InputError as reason:
            known["missing"] = str(reason)
        else:
            # what cannot be written is no fault of the clip: it ends the report
            write_clip(_playable(clip), place / f"{task.sha256}.mp4", lossless=False, **_SMALL)
            if flow:
                write_clip(_playable(_flow_clip(clip)), place / f"{task.sha256}.flow.mp4", lossless=False, **_SMALL)
            known |= {"width": clip.width, "height": clip.height, "frames": len(clip.frames), "fps": float(clip.fps)}
            known |= {"seconds": clip.seconds, "peaks": _peaks(clip)}
        write_json(place / f"{task.sha256}.json", known)  # last: what it names is there

    return make


def _playable(clip: Clip) -> Clip:
    """Convert a clip to a size and a sound that every browser can play."""
    frames = clip.frames
    longest = max(clip.width, clip.height)
    if longest > LONGEST_SIDE:
        size = (max(2, clip.width * LONGEST_SIDE // longest), max(2, clip.height * LONGEST_SIDE // longest))
        frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
    elif longest <= _TINY_SIDE:
        # H.264 halves the resolution of colour: doubled, small pictures keep theirs.
        frames = frames.repeat(2, axis=1).repeat(2, axis=2)
    odd = [(0, size % 2) for size in frames.shape[1:3]]  # 4:2:0 needs even sizes, and some browsers need 4:2:0
    frames = np.pad(frames, [(0, 0), *odd, (0, 0)], mode="edge")
    return Clip(np.ascontiguousarray(frames), clip.fps, clip.audio and _plain_sound(clip.audio))


def _plain_sound(audio: Audio) -> Audio:
    if audio.channels > 2:
        audio = replace(audio, waveform=audio.mono()[None])
    if audio.sample_rate not in _AAC_RATES:
        ratio = Fraction(48000, audio.sample_rate)
        wave = signal.resample_poly(audio.waveform, ratio.numerator, ratio.denominator, axis=1)
        audio = Audio(np.clip(wave, -1, 1).astype(np.float32), 48000)
    return audio


def _flow_clip(clip: Clip) -> Clip:
    """Return the flow from each frame to the next, coloured, as a silent clip of equal length; the last frame is
    repeated.
    """
    look = DISFlow()
    if min(clip.width, clip.height) < look.protocol.minimum_side or len(clip.frames) < 2:
        return Clip(np.zeros_like(clip.frames), clip.fps)
    frames = [working(frame, look.protocol) for frame in clip.frames]
    flows = np.stack(
        [
            pair(one, two, look.flow(one, two), look.flow(two, one), look.protocol).motion
            for one, two in itertools.pairwise(frames)
        ]
    )
    most = float(np.quantile(np.hypot(flows[..., 0], flows[..., 1]), 0.995))
    pictures = [cv2.resize(flow_picture(flow, most), (clip.width, clip.height)) for flow in flows]
    return Clip(np.stack([*pictures, pictures[-1]]), clip.fps)


def _peaks(clip: Clip) -> str | None:
    """Return the waveform for display: the square root of the loudest sample in each of `_PEAKS` parts, one byte each,
    in base64.
    """
    if clip.audio is None:
        return None
    wave = np.abs(clip.audio.mono())
    edges = np.linspace(0, clip.seconds * clip.audio.sample_rate, _PEAKS + 1).astype(int)
    loudest = np.array([wave[a : max(b, a + 1)].max(initial=0) for a, b in itertools.pairwise(edges)])
    return base64.b64encode((np.sqrt(loudest) * 255).round().astype(np.uint8).tobytes()).decode()
