"""Measures each clip once: numbers that the rules decide by, and hashes for finding copies.

Units: seconds, pixels, frame diagonals a second, decibels relative to full scale. A number that a clip does not have,
such as the onsets of a silent clip, is None, and no condition on it holds.
"""

from dataclasses import dataclass
from importlib import metadata
from typing import Any

import cv2
import imagehash
import numpy as np
from PIL import Image
from scenedetect import AdaptiveDetector
from scenedetect.common import FrameTimecode
from scipy import signal

from avbench.core import Clip, Notes, NotMeasurable, Protocol, noted
from avbench.curation import words
from avbench.curation.camera import WithoutCamera
from avbench.features.audio.onsets import Onsets
from avbench.metrics import sync

LOOKED_AT = 5
"""Frames whose pictures are hashed and searched for text; evenly spread."""
MOVING_LEVELS = 8
"""Grey levels of difference that a codec may add."""
SOUND_HASH_SIDE = 16
SOUND_RANGE = 50
"""Decibels below the loudest level that the hash of a sound uses; below it lies what codecs add."""
SILENCE = 10 ** (-60 / 20)
"""Root mean square below which a sound is too quiet to be hashed."""

MEASURES = {
    "seconds": "length of the picture",
    "pixels": "width times height",
    "aspect": "width over height",
    "motion_amount": "speed of the fastest 5 % of pixels without the camera's motion, diagonals a second",
    "motion_with_camera": "the same with the camera's motion",
    "camera_amount": "mean speed of the picture that is due to the camera, diagonals a second",
    "camera_shake": "change of that speed from frame to frame, diagonals a second",
    "camera_found": "share of frames whose camera motion is known",
    "events": "abrupt changes of motion, a proxy of contact",
    "onsets": "sounds that begin",
    "cause_visible": "share of the onsets that coincide with an event, within 0.1 s",
    "sync_excess": "agreement of events and onsets beyond chance",
    "cuts": "cuts",
    "text_share": "median share of the picture that text covers, over the examined frames",
    "loudness": "root mean square of the sound over all channels, decibels; none without a track",
}


@dataclass(frozen=True)
class CurationProtocol(Protocol):
    """The settings that decide the measures, besides those of flow and onsets."""

    name: str = "curation"
    version: int = 5
    cuts: str = f"scenedetect {metadata.version('scenedetect')} AdaptiveDetector"
    shortest_scene: int = 1
    looked_at: int = LOOKED_AT
    moving_levels: int = MOVING_LEVELS
    hashes: str = f"imagehash {metadata.version('imagehash')}"
    words_longest_side: int = words.LONGEST_SIDE
    words_letters: int = words.LETTERS
    words_score: float = words.SURENESS
    words: str = f"rapidocr {metadata.version('rapidocr')}"
    notes: Notes = noted(
        cuts="The detector with its default settings.",
        shortest_scene="Frames.",
        moving_levels="Smaller differences from the median of the examined frames are not hashed.",
        hashes="Perceptual: 64 bits for a frame, 64 for its difference from the median, 256 for the spectrogram.",
        words_longest_side="Pixels: larger frames are shrunk to it.",
        words_letters="A line of text needs this many different letters.",
        words_score="A line of text needs this score.",
    )


class Measured:
    """Measures clips: ``measured(clip)`` returns the numbers and the hashes of one."""

    def __init__(self) -> None:
        self._flow, self._onsets, self._words = WithoutCamera(), Onsets(), words.Words()

    def __call__(self, clip: Clip) -> dict[str, float | str | None]:
        """The numbers named in MEASURES, and ``picture_hash``, ``moving_hash`` and ``sound_hash`` in hex.

        Raises:
            NotMeasurable: the clip is too short, or too small, for flow.
        """
        flow: dict[str, Any] = {**self._flow(clip)}
        camera = self._flow.summary(clip)
        looked_at = spread(clip.frames)
        known = flow["event_until"] > flow["event_from"]
        found: dict[str, float | str | None] = {
            "seconds": clip.seconds,
            "pixels": float(clip.width * clip.height),
            "aspect": clip.width / clip.height,
            "motion_with_camera": float(flow["motion_amount"]),
            **camera,
            "events": float(len(flow["event_seconds"])) if known else None,
            "cuts": float(cuts(clip)),
            "text_share": self._words(looked_at),
            "picture_hash": picture_hash(looked_at),
            "moving_hash": moving_hash(looked_at),
        }
        return found | self._sound_measures(clip, flow)

    def _sound_measures(self, clip: Clip, flow: dict[str, Any]) -> dict[str, float | str | None]:
        nothing: dict[str, float | str | None] = dict.fromkeys(
            ("onsets", "cause_visible", "sync_excess", "loudness", "sound_hash")
        )
        if clip.audio is None:
            return nothing
        power = float(np.square(clip.audio.waveform, dtype=np.float64).mean())  # not of the mean, where channels cancel
        loudness = 10 * np.log10(max(power, 1e-12))
        try:
            sound: dict[str, Any] = {**self._onsets(clip)}
        except NotMeasurable:
            return nothing | {"loudness": loudness}
        columns: dict[str, Any] = {name: [value] for name, value in {**flow, **sound}.items()}
        excess = float(sync.sync_excess(columns)[0])
        return {
            "onsets": sound["onset_count"],
            "cause_visible": cause_visible(flow, sound["onset_seconds"]),
            "sync_excess": None if np.isnan(excess) else excess,
            "loudness": loudness,
            "sound_hash": sound_hash(clip.audio.mono().astype(np.float64), clip.audio.sample_rate),
        }


def cause_visible(flow: dict, onsets: np.ndarray) -> float | None:
    """The share of the onsets that coincide with an event, among onsets at times when events can be found."""
    slack = sync.TOLERANCE_SECONDS
    during_event = onsets[(onsets >= flow["event_from"] - slack) & (onsets <= flow["event_until"] + slack)]
    if not len(during_event):
        return None
    events = flow["event_seconds"]
    return float(np.mean([np.any(np.abs(events - onset) <= slack) for onset in during_event]))


def cuts(clip: Clip) -> int:
    """The number of cuts in the clip."""
    detector, found, place = AdaptiveDetector(min_scene_len=1), set(), FrameTimecode(0, fps=float(clip.fps))
    for index, frame in enumerate(clip.frames):
        small = cv2.resize(
            frame, None, fx=min(1, 256 / clip.width), fy=min(1, 256 / clip.width), interpolation=cv2.INTER_AREA
        )
        place = FrameTimecode(index, fps=float(clip.fps))
        found |= {cut.frame_num for cut in detector.process_frame(place, cv2.cvtColor(small, cv2.COLOR_RGB2BGR))}
    return len(found | {cut.frame_num for cut in detector.post_process(place)})


def spread(frames: np.ndarray) -> np.ndarray:
    """The frames that are examined."""
    return frames[((np.arange(LOOKED_AT) + 0.5) / LOOKED_AT * len(frames)).astype(int)]


def picture_hash(frames: np.ndarray) -> str:
    """Perceptual hashes of frames, in hex."""
    return "".join(str(imagehash.phash(Image.fromarray(frame))) for frame in frames)


def moving_hash(frames: np.ndarray) -> str:
    """Perceptual hashes of how each frame differs from the median frame, in hex; zeros where nothing differs."""
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    small = np.stack([cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA) for grey in greys]).astype(np.float32)
    change = np.maximum(np.abs(small - np.median(small, axis=0)) - MOVING_LEVELS, 0)
    if (most := change.max()) < MOVING_LEVELS:
        return "0" * 16 * len(frames)
    return picture_hash((255 * change / most).astype(np.uint8))


def sound_hash(mono: np.ndarray, rate: int) -> str | None:
    """Perceptual hash of the log spectrogram, in hex; None for a sound that is practically silent."""
    if np.sqrt(np.mean(mono**2)) < SILENCE or len(mono) < 512:
        return None
    _, _, power = signal.spectrogram(mono, rate, nperseg=512, noverlap=256)
    keep = max(2, round(power.shape[0] * min(1.0, 8000 / rate)))
    level = 10 * np.log10(power[:keep] + 1e-12)
    level = np.clip((level - level.max()) / SOUND_RANGE + 1, 0, 1)
    picture = Image.fromarray((255 * level).astype(np.uint8))
    return str(imagehash.phash(picture, hash_size=SOUND_HASH_SIDE))
