"""Prepares the sound of a clip for a feature: refuses missing and silent sound, mixes the channels down, resamples.

Waveforms are ``[samples]`` float64 with full scale 1, spectra ``[frames, bands]``.
"""

from dataclasses import dataclass
from math import gcd

import numpy as np
from scipy import signal

from avbench.core import Audio, Clip, NotMeasurable, Protocol, beside_limit
from avbench.features.table import NO_SOUND

MIXED_DOWN = {
    "mono": "The channels are averaged.",
    "resampler": "scipy.signal.resample_poly with its default filter.",
}
"""Notes of every protocol whose sound is mixed down and resampled here."""
SILENCE = "dBFS: a track without a sample above it is silent and is not measured."
"""Note of `silent_below`."""
SOUND_NOTES = {**MIXED_DOWN, "silent_below": SILENCE}


@dataclass(frozen=True)
class SoundProtocol(Protocol):
    """The settings that decide a clip's features, for each network of sound."""

    rate: int
    """Hz. Every waveform is resampled to it."""
    shortest: int
    """Samples at that rate. Shorter sounds are not measured."""
    output: str
    weights: str
    weights_sha256: str = ""
    mono: str = "mean"
    resampler: str = "resample_poly"
    silent_below: float = -90.0
    """dBFS. A track without a sample above it is silent and is not measured."""
    precision: str = "float32"


def sound_of(clip: Clip) -> Audio:
    """The clip's sound. Raises NotMeasurable where it has none."""
    if clip.audio is None:
        raise NotMeasurable(NO_SOUND)
    return clip.audio


def mixed_down(audio: Audio, silent_below: float | None = None) -> np.ndarray:
    """The mean of the channels.

    Raises NotMeasurable if no sample of it is above `silent_below`, in dBFS, or if the channels cancel each other: then
    what is left may be the noise of a codec.
    """
    if audio.cancels():
        msg = "its channels cancel each other when they are averaged, as if one were inverted"
        raise NotMeasurable(msg)
    mono = audio.waveform.mean(axis=0, dtype=np.float64)
    if silent_below is not None and is_silent(mono, silent_below):
        msg = "the track is silent"
        raise NotMeasurable(msg)
    return mono


def is_silent(wave: np.ndarray, below: float) -> bool:
    """Whether no sample of a waveform is above `below`, in dBFS."""
    return 20 * np.log10(max(np.abs(wave).max(), 1e-9)) <= below


def resampled(wave: np.ndarray, rate: int, to: int) -> np.ndarray:
    """The waveform resampled from `rate` to `to`, both in samples a second."""
    common = gcd(to, rate)
    return signal.resample_poly(wave, to // common, rate // common)


def require_length(wave: np.ndarray, shortest: int, rate: int, audio: Audio, who: str) -> None:
    """Raise NotMeasurable if a waveform has fewer than `shortest` samples at `rate`; `who` begins the requirement."""
    if len(wave) < shortest:
        least = 1000 * shortest / rate
        msg = f"the clip has {beside_limit(1000 * audio.seconds, least)} ms of sound; {who} {least:.4g} ms"
        raise NotMeasurable(msg)


def mono_waveform(clip: Clip, protocol: SoundProtocol, who: str) -> np.ndarray:
    """``[samples]`` at the network's rate. Raises NotMeasurable without sound, or if it is too short or silent."""
    audio = sound_of(clip)
    mono = mixed_down(audio, protocol.silent_below)
    wave = resampled(mono, audio.sample_rate, protocol.rate)
    require_length(wave, protocol.shortest, protocol.rate, audio, f"{who} needs")
    return wave


def mel_corners(lowest: float, highest: float, bands: int) -> np.ndarray:
    """``[bands + 2]``: ends and middles, in Hz, of bands that are equally wide in mel, 2595 · log10(1 + Hz / 700)."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (lowest, highest))
    return 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)


def triangles(corners: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """``[bins, bands]``: weights that rise to 1 at the middle of a band and fall to 0 at its neighbours' middles.

    Args:
        corners: ``[bands + 2]``, the ends and middles of the bands.
        bins: ``[bins]``, where the bins of the spectrum lie on the same scale.
    """
    bins = bins[:, None]
    up = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    down = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    return np.maximum(0, np.minimum(up, down))
