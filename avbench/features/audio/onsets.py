"""Finds when sounds begin: onsets by spectral flux, made for impacts.

Conventions: times are in seconds of the clip, 0 with its first sample; levels are in decibels.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage, signal

from avbench.core import Clip, Notes, Protocol, Value, noted
from avbench.features.audio import waveform


@dataclass(frozen=True)
class OnsetProtocol(Protocol):
    """What decides the onsets. Samples and frames are those of the analysis."""

    name: str = "onsets"
    version: int = 2
    mono: str = "mean, centred"
    resampler: str = "resample_poly"
    rate: int = 16000
    """Hz: every waveform is resampled to it."""
    window: int = 512
    """Samples of a periodic Hann window."""
    transform: int = 512
    """Samples after filling up with zeros."""
    hop: int = 64
    bands: int = 24
    """Triangles, evenly spaced on the mel scale 2595 log10(1 + f/700)."""
    lowest: float = 60.0
    highest: float = 8000.0
    """Hz: the outer ends of the bands."""
    floor_below_peak: float = 60.0
    """Decibels: levels further than this below the loudest of the clip count as equal."""
    floor_absolute: float = -90.0
    """Decibels against a sine at full scale; nothing below it is heard."""
    lag: int = 4
    """Frames between the two levels that are compared."""
    threshold: float = 2.5
    """Decibels by which the level must rise, mean over bands, above what is usual around."""
    usual: int = 51
    """Frames over which the usual rise, its median, is taken."""
    apart: float = 0.03
    """Seconds: of onsets nearer than this the strongest stands."""
    loudness_seconds: float = 0.04
    """How much of the sound after an onset its level is taken of."""
    notes: Notes = noted(
        **waveform.MIXED_DOWN | {"mono": "The channels are averaged, and the mean over time is subtracted."}
    )


class Onsets:
    """Onsets by spectral flux on a mel spectrogram in decibels (after Böck, Krebs and Schedl, 2012). Values:

    - ``onset_seconds``: ``[onsets]``, increasing, none before 0. Of unlike length from clip to clip.
    - ``onset_count``, and ``onset_rate`` in onsets per second of sound. A silent track has 0 of both.
    - ``onset_level``: ``[onsets]``, root mean square of the sound just after each, full scale 1.
    - ``sound_seconds``: how long the sound lasts.

    What already sounds when the clip begins is no onset, unless it is louder there than most of the clip. Of onsets
    nearer to each other than 30 ms one is found, and in the last 16 ms none, or one up to 10 ms early.
    """

    protocol = OnsetProtocol()

    def __init__(self, device: str = "cpu") -> None:
        pass

    def __call__(self, clip: Clip) -> dict[str, Value]:
        """Measure one clip. Raises NotMeasurable without sound, or with less of it than one window."""
        audio = waveform.sound_of(clip)
        mono = waveform.mixed_down(audio)
        wave = waveform.resampled(mono - mono.mean(), audio.sample_rate, self.protocol.rate)
        waveform.require_length(wave, self.protocol.window, self.protocol.rate, audio, "onsets need")
        onsets = _onsets(wave, self.protocol)
        count, seconds = float(len(onsets)), audio.seconds
        return {
            "onset_seconds": onsets,
            "onset_level": _levels_after(wave, onsets, self.protocol),
            "onset_count": count,
            "onset_rate": count / seconds,
            "sound_seconds": seconds,
        }


def _onsets(wave: np.ndarray, protocol: OnsetProtocol) -> np.ndarray:
    """Onset times in seconds, ``[onsets]``."""
    lead = protocol.lag + protocol.window // protocol.hop
    levels = _levels(wave, lead, protocol)
    rise = np.maximum(levels[protocol.lag :] - levels[: -protocol.lag], 0).mean(axis=1)
    rise = rise - ndimage.median_filter(rise, protocol.usual, mode="mirror")
    apart = round(protocol.apart * protocol.rate / protocol.hop)
    peaks, _ = signal.find_peaks(np.pad(rise, 1), height=protocol.threshold, distance=apart)
    frames = peaks - 1 + protocol.lag - lead
    seconds = (frames * protocol.hop + protocol.window / 2) / protocol.rate
    return np.unique(np.clip(seconds, 0.0, (len(wave) - 1) / protocol.rate))


def _levels_after(wave: np.ndarray, onsets: np.ndarray, protocol: OnsetProtocol) -> np.ndarray:
    length = round(protocol.loudness_seconds * protocol.rate)
    starts = (onsets * protocol.rate).astype(int)
    return np.array([np.sqrt(np.mean(wave[start : start + length] ** 2)) for start in starts])


def _levels(wave: np.ndarray, lead: int, protocol: OnsetProtocol) -> np.ndarray:
    """``[lead + frames, bands]`` in decibels against a sine at full scale, the first `lead` before the clip begins.

    What sounded before is unknown. It is taken to have been at the clip's usual level, its median, so that a hum that
    is only cut has no onset. Where the clip's beginning reaches into such a frame it counts, so that an impact at the
    very start has one, but not as louder than the first whole frame, because the cut itself makes a click.
    """
    levels = _decibels(np.pad(wave, (lead * protocol.hop, 0)), protocol)
    levels = np.maximum(levels, levels[lead:].max() - protocol.floor_below_peak)
    usual, first = np.median(levels[lead:], axis=0), levels[lead]
    levels[:lead] = np.clip(levels[:lead], usual, np.maximum(usual, first))
    return levels


def _decibels(wave: np.ndarray, protocol: OnsetProtocol) -> np.ndarray:
    """``[frames, bands]`` of all whole windows."""
    window = signal.get_window("hann", protocol.window)
    cuts = np.lib.stride_tricks.sliding_window_view(wave, protocol.window)[:: protocol.hop]
    spectrum = np.fft.rfft(cuts * window, protocol.transform)
    power = (spectrum.real**2 + spectrum.imag**2) @ _triangles(protocol) * (2 / window.sum()) ** 2
    return 10 * np.log10(np.maximum(power, 10 ** (protocol.floor_absolute / 10)))


@cache
def _triangles(protocol: OnsetProtocol) -> np.ndarray:
    """``[bins, bands]``."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (protocol.lowest, protocol.highest))
    corners = 700 * (10 ** (np.linspace(low, high, protocol.bands + 2) / 2595) - 1)
    return waveform.triangles(corners, np.fft.rfftfreq(protocol.transform, 1 / protocol.rate))
