"""Conforms a clip to its subset's clip spec before it is measured; the clip's file is not changed.

Models generate clips of different rates, sizes and lengths; a subset's spec makes them comparable. A clip that meets
the spec is returned unchanged. For every other clip the rule is part of the protocol.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, gcd
from typing import Any

import cv2
import numpy as np

from avbench.core import Audio, Clip, ClipSpec, Notes, NotMeasurable, Protocol, Sample, beside_limit, digest, noted


@dataclass(frozen=True)
class ClipForm(Protocol):
    """The protocol of conforming clips to one clip spec."""

    width: int
    height: int
    frames: int
    fps: str
    sample_rate: int | None
    channels: int
    time: str = "nearest start"
    size: str = "cover, centre crop"
    shrink: str = "area"
    enlarge: str = "bilinear"
    resampler: str = "resample_poly"
    mono: str = "mean"
    sound_end: str = "cut or silence"
    notes: Notes = noted(
        time="The frame whose start is nearest, the earlier of two; the end is cut off.",
        size="Frames are scaled by OpenCV until they cover the size; the centre is cut out.",
        resampler="scipy.signal.resample_poly with its default filter.",
        mono="If the number of channels differs, each becomes the mean of all, unless they cancel each other in it. "
        "A spec without a sample rate says nothing of the sound: its channels are kept.",
        sound_end="Sound that is too long is cut off; with a sample rate, up to a frame is filled with silence.",
    )

    @classmethod
    def of(cls, spec: ClipSpec) -> "ClipForm":
        """Build the protocol for one clip spec."""
        form = cls("clip-form", 1, **spec.to_json())
        return form if spec.sample_rate else replace(form, mono="kept", sound_end="cut")

    @property
    def spec(self) -> ClipSpec:
        """The clip spec."""
        names = ("width", "height", "frames", "fps", "sample_rate", "channels")
        return ClipSpec(**{name: getattr(self, name) for name in names})


def seen_of(sample: Sample, forms: Mapping[str, ClipForm]) -> str | None:
    """The hash of what a feature gets of a clip: its bytes, and the form that it is conformed to, if any."""
    return digest([sample.sha256, forms[sample.key.subset].digest]) if sample.spec_mismatch else sample.sha256


def in_form(clip: Clip, form: ClipForm) -> Clip:
    """Conform a clip to the spec; return it unchanged if it meets the spec. Raises NotMeasurable if it is too short."""
    spec = form.spec
    if spec.objection(clip) is None:
        return clip
    if len(clip.frames) / clip.fps < spec.frames / spec.fps:
        length = beside_limit(clip.seconds, spec.seconds)
        msg = f"the clip lasts {length} s, but its subset needs {spec.seconds:.4g} s"
        raise NotMeasurable(msg)
    starts = [ceil(k * clip.fps / spec.fps - Fraction(1, 2)) for k in range(spec.frames)]
    frames = np.empty((spec.frames, spec.height, spec.width, 3), np.uint8)
    for place, start in enumerate(starts):  # in order, as the frames may be in a file
        frames[place] = _sized(clip.frames[min(start, len(clip.frames) - 1)], spec.width, spec.height)
    return Clip(frames, spec.fps, None if clip.audio is None else _sound(clip.audio, spec), clip.remarks)


def _sized(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    tall, wide = frame.shape[:2]
    scale = max(width / wide, height / tall)
    size = max(width, round(wide * scale)), max(height, round(tall * scale))
    if size != (wide, tall):
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return frame[top : top + height, left : left + width]


def _sound(audio: Audio, spec: ClipSpec) -> Audio:
    if spec.sample_rate is None:
        samples = round(spec.frames * audio.sample_rate / spec.fps)
        return replace(audio, waveform=np.ascontiguousarray(audio.waveform[:, :samples]))
    rate = spec.sample_rate
    wave: Any = audio.waveform
    if audio.channels != spec.channels and not audio.cancels():  # their mean would be measured as silence
        wave = np.repeat(audio.mono()[None], spec.channels, axis=0)
    if rate != audio.sample_rate:
        from scipy import signal  # takes most of a second, and few clips need it

        common = gcd(rate, audio.sample_rate)
        wave = signal.resample_poly(wave, rate // common, audio.sample_rate // common, axis=1)
    samples = round(spec.frames * rate / spec.fps)
    missing = samples - wave.shape[1]
    if missing > rate / spec.fps:
        length = beside_limit(audio.seconds, spec.seconds)
        msg = f"the clip's sound lasts {length} s, but its subset needs {spec.seconds:.4g} s"
        raise NotMeasurable(msg)
    wave = np.pad(wave[:, :samples], ((0, 0), (0, max(0, missing))))
    return Audio(np.ascontiguousarray(np.clip(wave, -1, 1), dtype=np.float32), rate)
