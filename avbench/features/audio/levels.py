"""Measures how loud a sound is: loudness by ITU-R BS.1770-4, level, peak, silence and clipping.

Conventions: full scale is 1. dBFS are decibels of a power relative to the power 1, so a sine at full scale has -3.01.
Loudness is in LUFS: the mean power of the K-weighted sound over overlapping blocks, without the blocks that are too
quiet to count. Channels are added, not averaged: a mono track is 3.01 LU softer than the same sound in two channels.

Source: Recommendation ITU-R BS.1770-4, annex 1. It gives its two filters as coefficients at 48 kHz. Here they are
computed from the analogue filters behind them, so that other rates have the same response. Sound with a rate below
44.1 kHz is first resampled above it, because the digital filters deviate near half the sample rate.

Agreement: the coefficients at 48 kHz agree with the recommendation's to 1e-15. Its reference signal, a sine of 997 Hz
at full scale in one channel, gives -3.01 LUFS to 0.01 LU at 8, 16, 22.05, 44.1, 48 and 96 kHz. pyloudnorm 0.2 with its
filters "DeMan", which are those of the recommendation, agrees to 0.004 LU on noise, tones, bursts and steps at 44.1 and
48 kHz; with its default filters, which are approximate, to 0.043 LU.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage, signal

from avbench.core import Clip, Notes, NotMeasurable, Protocol, counted, noted
from avbench.features.audio import waveform

_SHELF = (1681.974450955533, 0.7071752369554196, 3.999843853973347)
"""Frequency in Hz, quality and gain in decibels of the high shelf: the first filter of the K-weighting."""
_HIGH_PASS = (38.13547087602444, 0.5003270373238773)
"""Frequency in Hz and quality of the high-pass filter."""
_TABLED_RATE = 48000  # Hz: the rate for which the recommendation gives coefficients
_LEAST_RATE = 44100  # Hz: the shelf would be off by 0.05 LU at 16 kHz and by 0.2 LU at 8 kHz, at the reference signal


@dataclass(frozen=True)
class LevelsProtocol(Protocol):
    """The settings that decide the levels, besides the clip."""

    name: str = "levels"
    version: int = 2
    loudness: str = "bs1770-4 integrated"
    weighting: str = "K"
    resampler: str = "resample_poly"
    least_rate: int = _LEAST_RATE
    block: float = 0.4
    """Seconds of one block of loudness. Blocks begin a quarter of this apart, and only whole blocks count."""
    absolute_gate: float = -70.0
    """LUFS. Quieter blocks never count. It is also the loudness reported for a track without one."""
    relative_gate: float = -10.0
    """LU relative to the mean power of all blocks above the absolute gate. Quieter blocks do not count."""
    lowest_rate: int = 8000
    """Hz. Sound with a lower sample rate lacks much of what makes it loud to an ear, so it has no loudness."""
    most_channels: int = 2
    """With more channels, their positions are unknown, and so is the weight of each: such sound has no loudness."""
    floor: float = -120.0
    """dBFS. Lower levels are reported as this."""
    window: float = 0.02
    """Seconds of the windows that are judged silent or not. They do not overlap, and only whole windows count."""
    silent_below: float = -60.0
    """dBFS of the root mean square over a window and all channels."""
    clipped_from: float = 0.999
    """Share of full scale."""
    clipped_run: int = 3
    """Consecutive samples at or above `clipped_from` that count as clipped; shorter runs do not."""
    notes: Notes = noted(
        loudness="Integrated loudness by ITU-R BS.1770-4.",
        weighting="The K-weighting has the same response at every rate as at 48 kHz.",
        resampler="scipy.signal.resample_poly by the least whole factor that reaches `least_rate`.",
        least_rate="Hz: sound with a lower rate is resampled.",
    )


class Levels:
    """The feature ``levels``. Values:

    - ``loudness``: integrated loudness in LUFS; -70 where ``loudness_known`` is 0, which is no measurement.
    - ``rms_dbfs``: root mean square over all samples and channels, in dBFS, at least -120.
    - ``peak``: largest absolute sample, 0...1 (of the samples, not of the curve between them).
    - ``silent_share``: share of the windows of 20 ms that are below -60 dBFS.
    - ``clipped_share``: share of the samples in runs of 3 or more at 0.999 of full scale or above. Sound that was
      clipped and then turned down is not detected; the peaks of a low, pure tone at full scale do count.
    - ``loudness_known``: 0 where the loudness is undefined, because no block of 400 ms is above -70 LUFS, or because of
      more than 2 channels, less than 400 ms or fewer than 8,000 samples a second; else 1.
    """

    protocol = LevelsProtocol()
    streams = True
    needs_sound = True

    def __call__(self, clip: Clip) -> dict[str, float]:
        """Measure one clip. Raises NotMeasurable without sound, or with less than one window of 20 ms."""
        audio = waveform.sound_of(clip)
        rate, wave = audio.sample_rate, audio.waveform.astype(np.float64)
        if audio.samples < (least := _window(rate, self.protocol)):
            msg = f"the clip has {counted(audio.samples, 'sample')} of sound; levels need {least}, 20 ms"
            raise NotMeasurable(msg)
        audible = self._audible(rate, wave)
        return {
            "loudness": _gated(audible, self.protocol),
            "rms_dbfs": float(_decibels(np.mean(wave**2), self.protocol.floor)),
            "peak": float(np.abs(wave).max()),
            "silent_share": _silent_share(wave, rate, self.protocol),
            "clipped_share": _clipped_share(wave, self.protocol),
            "loudness_known": float(len(audible) > 0),
        }

    def _audible(self, rate: int, wave: np.ndarray) -> np.ndarray:
        """Power of the blocks above the absolute gate; none of sound whose loudness is undefined."""
        protocol = self.protocol
        if len(wave) > protocol.most_channels or rate < protocol.lowest_rate:
            return np.zeros(0)
        powers = _block_powers(wave, rate, protocol)
        return powers[_lufs(powers) > protocol.absolute_gate]


def _gated(audible: np.ndarray, protocol: LevelsProtocol) -> float:
    """Loudness of the blocks above the absolute gate; the gate itself where there is none."""
    if not len(audible):
        return protocol.absolute_gate
    gate = _lufs(audible.mean()) + protocol.relative_gate
    return float(_lufs(audible[_lufs(audible) > gate].mean()))


def _block_powers(wave: np.ndarray, rate: int, protocol: LevelsProtocol) -> np.ndarray:
    """K-weighted power, summed over channels, of each whole block."""
    factor = -(-protocol.least_rate // rate)
    if factor > 1:
        wave, rate = signal.resample_poly(wave, factor, 1, axis=1), factor * rate
    weighted = np.asarray(signal.sosfilt(k_weighting(rate), wave))
    so_far = np.concatenate(([0.0], np.cumsum((weighted**2).sum(axis=0))))
    length = round(protocol.block * rate)
    starts = np.floor(np.arange(4 * wave.shape[1] / length + 1) * (protocol.block / 4 * rate)).astype(int)
    starts = starts[starts + length <= wave.shape[1]]
    return np.maximum(so_far[starts + length] - so_far[starts], 0) / length


def _lufs(power: ArrayLike) -> np.ndarray:
    return -0.691 + _decibels(power, -1000)


def _decibels(power: ArrayLike, floor: float) -> np.ndarray:
    return 10 * np.log10(np.maximum(power, 10 ** (floor / 10)))


def k_weighting(rate: int) -> np.ndarray:
    """The two filters of BS.1770 at `rate`, as second-order sections [2, 6]."""
    hertz, quality, decibels = _SHELF
    k, middle, top = np.tan(np.pi * hertz / rate), (10 ** (decibels / 20)) ** 0.4996667741545416, 10 ** (decibels / 20)
    shelf = [top + middle * k / quality + k * k, 2 * (k * k - top), top - middle * k / quality + k * k]
    # The recommendation leaves the high pass's numerator at 1, -2, 1, which raises what passes by 0.04 dB at 48 kHz.
    # The same gain is applied at every other rate.
    passing = _denominator(*_HIGH_PASS, _TABLED_RATE)[0]
    sections = [
        [*shelf, *_denominator(hertz, quality, rate)],
        [passing, -2 * passing, passing, *_denominator(*_HIGH_PASS, rate)],
    ]
    return np.array([np.array(section) / section[3] for section in sections])


def _denominator(hertz: float, quality: float, rate: int) -> list[float]:
    k = np.tan(np.pi * hertz / rate)
    return [1 + k / quality + k * k, 2 * (k * k - 1), 1 - k / quality + k * k]


def _window(rate: int, protocol: LevelsProtocol) -> int:
    return max(1, round(protocol.window * rate))


def _silent_share(wave: np.ndarray, rate: int, protocol: LevelsProtocol) -> float:
    length = _window(rate, protocol)
    windows = wave[:, : wave.shape[1] // length * length].reshape(len(wave), -1, length)
    return float(np.mean(np.mean(windows**2, axis=(0, 2)) < 10 ** (protocol.silent_below / 10)))


def _clipped_share(wave: np.ndarray, protocol: LevelsProtocol) -> float:
    runs = ndimage.binary_opening(np.abs(wave) >= protocol.clipped_from, np.ones((1, protocol.clipped_run)))
    return float(runs.mean())
