"""Encodes clips for the browser as small H.264 and AAC files, each made once.

They lie in a folder, `media/` beside the page, named by the sha256 of the clip's own bytes: ``<sha256>.mp4``,
``<sha256>.json`` (size, rate, waveform and loudness) and, for each picture that explains a metric, for example
``<sha256>.flow.mp4``. They are lossy and scaled, for viewing only, and are never measured. A clip that cannot be shown
is tried again by the next report.
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

from avbench.core import Audio, Clip, InputError, NotMeasurable
from avbench.features.audio.levels import Levels
from avbench.report.page.pictures import PICTURES
from avbench.storage.media import read_clip, write_clip
from avbench.storage.reading import inside, read_json
from avbench.storage.runs.clips import require_unchanged
from avbench.storage.runs.folder import RunFolder
from avbench.storage.workers import worker_pool
from avbench.storage.writing import write_json

LONGEST_SIDE = 480
"""Longest side in pixels; larger clips are scaled down to it."""
_TINY_SIDE = 160
_RECIPE = f"longest side {LONGEST_SIDE}, up to {_TINY_SIDE} doubled; crf 24; 64 kbit/s; 240 peaks of channels; loudness"
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
    folders: Sequence[RunFolder], place: Path, *, pictures: Sequence[str] = (), workers: int = 0
) -> tuple[int, Iterator[Task]]:
    """Encode the runs' clips into the folder `place`: return how many are missing, and an iterator that makes them.

    `pictures` are names of PICTURES that each clip gets as well.

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
    todo = [task for task in wanted.values() if not is_ready(place, task.sha256, pictures)]
    build = functools.partial(_maker, place, tuple(pictures))

    def make() -> Iterator[Task]:
        pool = worker_pool.LocalPool(workers, imports=[__name__])  # nothing here needs torch
        for task, found in pool.map_unordered(build, todo):
            if isinstance(found, worker_pool.WorkerCrashed):
                known = {"recipe": _RECIPE, "missing": str(worker_pool.WorkerCrashed("preparing"))}
                write_json(place / f"{task.sha256}.json", known)
            yield task

    return len(todo), make()


def card(place: Path, sha256: str) -> dict[str, Any]:
    """Return what `prepare` recorded of a clip: its size, rate, lengths, peaks, loudness and pictures; or `missing`.

    `missing` is a sentence. `loudness` is in LUFS, None where nothing can be heard. `pictures` has for each picture its
    recipe, and `missing`, a sentence where the clip cannot have it, else None.
    """
    return read_json(place / f"{sha256}.json", dict)


def _known(place: Path, sha256: str) -> dict[str, Any]:
    """Return the card of a clip whose file is there and was made by today's recipe; else an empty one."""
    try:
        known = card(place, sha256)
    except InputError:
        return {}
    usable = "missing" not in known and known.get("recipe") == _RECIPE and (place / f"{sha256}.mp4").is_file()
    return known if usable else {}


def _lacking(place: Path, sha256: str, known: dict[str, Any], pictures: Sequence[str]) -> list[str]:
    """Return the pictures that have to be drawn."""
    had = known.get("pictures", {})

    def there(name: str) -> bool:
        made = name in had and had[name]["recipe"] == PICTURES[name].recipe
        return made and (had[name]["missing"] is not None or (place / f"{sha256}.{name}.mp4").is_file())

    return [name for name in pictures if not there(name)]


def is_ready(place: Path, sha256: str, pictures: Sequence[str] = ()) -> bool:
    """Whether a clip lies in the folder with these pictures, made by today's recipes."""
    known = _known(place, sha256)
    return bool(known) and not _lacking(place, sha256, known, pictures)


def _maker(place: Path, pictures: Sequence[str]) -> Callable[[Task], None]:
    def make(task: Task) -> None:
        place.mkdir(parents=True, exist_ok=True)
        known = _known(place, task.sha256)
        lacking = _lacking(place, task.sha256, known, pictures)
        try:
            clip = read_clip(task.source)
        except InputError as reason:
            known = {"recipe": _RECIPE, "missing": str(reason)}
        else:
            # what cannot be written is no fault of the clip: it ends the report
            known = known or _encoded(clip, place / f"{task.sha256}.mp4")
            for name in lacking:
                known["pictures"][name] = _drawn(clip, name, place / f"{task.sha256}.{name}.mp4")
        write_json(place / f"{task.sha256}.json", known)  # last: what it names is there

    return make


def encode(clip: Clip, place: Path, sha256: str) -> None:
    """Encode a clip that is no run's, such as a reference's, without pictures. Raises InputError if it cannot."""
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / f"{sha256}.json", _encoded(clip, place / f"{sha256}.mp4"))


def _encoded(clip: Clip, path: Path) -> dict[str, Any]:
    playable = _playable(clip)
    write_clip(playable, path, lossless=False, **_SMALL)
    known = {"recipe": _RECIPE, "width": clip.width, "height": clip.height, "frames": len(clip.frames)}
    known |= {"fps": float(clip.fps), "seconds": clip.seconds, "sound_seconds": clip.audio and clip.audio.seconds}
    return {**known, "peaks": _peaks(clip.audio), "loudness": _loudness(playable), "pictures": {}}


def _drawn(clip: Clip, name: str, path: Path) -> dict[str, Any]:
    picture = PICTURES[name]
    try:
        write_clip(_playable(picture.draw(clip)), path, lossless=False, **_SMALL)
    except NotMeasurable as reason:
        return {"recipe": picture.recipe, "missing": str(reason)}
    return {"recipe": picture.recipe, "missing": None}


def _loudness(playable: Clip) -> float | None:
    """Return the loudness in LUFS, at which blind votes level two clips; None where nothing can be heard."""
    if playable.audio is None:
        return None
    block = round(Levels.protocol.block * playable.audio.sample_rate) + 1
    lacking = max(0, block - playable.audio.samples)  # shorter sounds have no loudness, but they can be heard
    audio = replace(playable.audio, waveform=np.pad(playable.audio.waveform, [(0, 0), (0, lacking)]))
    levels = Levels()(replace(playable, audio=audio))
    return round(levels["loudness"], 2) if levels["loudness_known"] else None


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


def _peaks(audio: Audio | None) -> str | None:
    """Return the waveform for display: the square root of the loudest sample of all channels in each of `_PEAKS` parts,
    one byte each, in base64. A mean of channels would show silence where one is the other turned over.
    """
    if audio is None:
        return None
    wave = np.abs(audio.waveform).max(axis=0)
    edges = np.linspace(0, len(wave), _PEAKS + 1).astype(int)
    loudest = np.array([wave[a : max(b, a + 1)].max(initial=0) for a, b in itertools.pairwise(edges)])
    return base64.b64encode((np.sqrt(loudest) * 255).round().astype(np.uint8).tobytes()).decode()
