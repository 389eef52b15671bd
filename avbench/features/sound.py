"""When does a sound begin? Onsets by spectral flux, made for impacts.

Conventions: times are in seconds of the clip, 0 with its first sample; levels are in decibels.
"""

from dataclasses import dataclass
from functools import cache
from math import gcd

import numpy as np
from scipy import ndimage, signal

from avbench.core import Audio, Clip, NotMeasurable, Protocol, Value


@dataclass(frozen=True)
class OnsetProtocol(Protocol):
    """What decides the onsets. Samples and frames are those of the analysis."""

    name: str = "onsets"
    version: int = 1
    mono: str = "mean of channels"
    resampler: str = "scipy.signal.resample_poly, its default filter"
    rate: int = 16000
    """Hz: every waveform is resampled to it."""
    window: int = 256
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
    lag: int = 2
    """Frames between the two levels that are compared."""
    threshold: float = 3.0
    """Decibels by which the level must rise, mean over bands, above what is usual around."""
    usual: int = 51
    """Frames over which the usual rise, its median, is taken."""
    apart: float = 0.03
    """Seconds: of onsets nearer than this the strongest stands."""
    delay: float = 0.0
    """Seconds from the middle of a window to the onset that it shows."""
