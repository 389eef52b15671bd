"""Finds onsets, the times at which sounds begin, by spectral flux; the settings suit impacts.

Conventions: times are in seconds from the clip's first sample; levels are in decibels.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage, signal

from avbench.core import Clip, Notes, Protocol, Value, noted
from avbench.features.audio import waveform


@dataclass(frozen=True)
class OnsetProtocol(Protocol):
    """The settings that decide the onsets. Samples and frames are those of the analysis."""

    name: str = "onsets"
    version: int = 2
    mono: str = "mean, centred"
    resampler: str = "resample_poly"
    rate: int = 16000
    """Hz. Every waveform is resampled to it."""
    window: int = 512
    """Samples of a periodic Hann window."""
    transform: int = 512
    """Samples of each window after it is padded with zeros."""
    hop: int = 64
    bands: int = 24
    """Triangular bands, evenly spaced on the mel scale 2595 log10(1 + f/700)."""
    lowest: float = 60.0
    highest: float = 8000.0
    """Hz: the upper end of the last band; `lowest` is the lower end of the first."""
    floor_below_peak: float = 60.0
    """Decibels. Levels further than this below the clip's loudest level count as equal."""
    floor_absolute: float = -90.0
    """Decibels relative to a sine at full scale. Anything below it is ignored."""
    lag: int = 4
    """Frames between the two levels that are compared."""
    threshold: float = 2.5
    """Decibels by which the rise of the level, averaged over bands, must exceed the usual rise around it."""
    usual: int = 51
    """Frames over which the usual rise, a median, is taken."""
    apart: float = 0.03
    """Seconds. Of onsets nearer to each other than this only the strongest is kept."""
    loudness_seconds: float = 0.04
    """Seconds of sound after an onset from which its level is computed."""
    notes: Notes = noted(
        **waveform.MIXED_DOWN | {"mono": "The channels are averaged, and the mean over time is subtracted."}
    )


class Onsets:
    """Onsets by spectral flux on a mel spectrogram in decibels (after Böck, Krebs and Schedl, 2012). Values:

    - ``onset_seconds``: ``[onsets]``, increasing, none before 0. Their number differs from clip to clip.
    - ``onset_count``, and ``onset_rate`` in onsets per second of sound. Both are 0 for a silent track.
    - ``onset_level``: ``[onsets]``, root mean square of the sound just after each onset; full scale is 1.
    - ``sound_seconds``: how long the sound lasts.

    Sound that is already there when the clip begins is no onset, unless it is louder there than in most of the clip. Of
    onsets less than 30 ms apart one is found. In the last 16 ms an onset is missed or placed up to 10 ms early.
    """

    protocol = OnsetProtocol()
    streams = True
    needs_sound = True

    def __call__(self, clip: Clip) -> dict[str, Value]:
        """Measure a clip. Raises NotMeasurable if its sound is missing, shorter than a window, or cancels itself."""
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
    """``[lead + frames, bands]`` in decibels relative to a sine at full scale; `lead` frames precede the clip.

    The sound before the clip is unknown. It is assumed to have had the clip's median level, so that a hum that is
    merely cut off has no onset. A frame before the clip that overlaps its beginning counts, so that an impact at the
    very start has an onset; but it counts at most as loud as the first whole frame, because the cut itself makes a
    click.
    """
    levels = _decibels(np.pad(wave, (lead * protocol.hop, 0)), protocol)
    levels = np.maximum(levels, levels[lead:].max() - protocol.floor_below_peak)
    usual, first = np.median(levels[lead:], axis=0), levels[lead]
    levels[:lead] = np.clip(levels[:lead], usual, np.maximum(usual, first))
    return levels


def _decibels(wave: np.ndarray, protocol: OnsetProtocol) -> np.ndarray:
    """Levels ``[frames, bands]`` of all whole windows."""
    window = np.asarray(signal.get_window("hann", protocol.window))
    cuts = np.lib.stride_tricks.sliding_window_view(wave, protocol.window)[:: protocol.hop]
    spectrum = np.fft.rfft(cuts * window, protocol.transform)
    power = (spectrum.real**2 + spectrum.imag**2) @ _triangles(protocol) * (2 / window.sum()) ** 2
    return 10 * np.log10(np.maximum(power, 10 ** (protocol.floor_absolute / 10)))


@cache
def _triangles(protocol: OnsetProtocol) -> np.ndarray:
    """The weights of the triangular bands, ``[bins, bands]``."""
    corners = waveform.mel_corners(protocol.lowest, protocol.highest, protocol.bands)
    return waveform.triangles(corners, np.fft.rfftfreq(protocol.transform, 1 / protocol.rate))
