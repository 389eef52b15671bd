"""Measures whether peaks of motion and onsets of sound coincide: AV-Align, in its three published versions.

Yariv et al., "Diverse and Aligned Audio-to-Video Generation" (TempoTokens, 2023). Audio peaks are librosa's onsets at
22,050 Hz, hop 512. Video peaks are strict local maxima of the mean Farneback flow between consecutive grey frames, with
one value for each frame; the first value is repeated. A pair matches if it is less than a frame apart. The score is the
number of matches divided by the size of the union. Three versions have the same name:

- ``av_align``, today's: peaks below 0.1 px do not count, and each video peak is matched once, in the order of the
  sounds.
- ``av_align_2024``, before February 2025: there is no least peak, and one video peak may match any number of sounds, so
  the score can exceed 1.
- ``av_align_javisbench``: as ``av_align_2024``, with 1e-6 added to the denominator.

The window is one frame, so a score depends on the frame rate, and the least peak makes it depend on the resolution:
compare only clips of one form. Camera motion counts as motion. Random onsets and peaks often agree by chance, so a
metric subtracts the mean score that the picture has with the sounds of other clips.
"""

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

from avbench.core import Clip, Notes, NotMeasurable, Protocol, Value, if_missing, noted
from avbench.features.audio import waveform
from avbench.features.limits import require_frames
from avbench.features.sync.matching import matched_once, over_union

_WINDOW = 2048
"""Samples of the window of librosa's spectrogram."""


@dataclass(frozen=True)
class AVAlignProtocol(Protocol):
    """The settings that decide a clip's AV-Align, besides the clip."""

    name: str = "av-align"
    version: int = 3
    fps: str = "native"
    mono: str = "mean"
    silent_below: float = -90.0
    """dBFS. A track without a sample above it is silent and is not measured."""
    resampler: str = "librosa"
    rate: int = 22050
    onsets: str = "librosa onset_detect"
    hop: int = 512
    flow: str = "farneback"
    flow_settings: tuple[float, ...] = (0.5, 3, 15, 3, 5, 1.2)
    size: str = "native"
    peak_floor: float = 0.1
    """Pixels a frame: the least peak of today's version."""
    notes: Notes = noted(
        mono="The channels are averaged.",
        silent_below=waveform.SILENCE,
        onsets="librosa.onset.onset_detect of librosa.onset.onset_strength.",
        flow="OpenCV's Farneback flow; its settings are scale, levels, window, iterations, poly_n and poly_sigma.",
    )


class AVAlign:
    """The feature ``av-align``: the scores of the three versions, how many peaks they rest on, and the times of onsets
    and of today's peaks, from which the score with another clip's sound follows.

    The constructor raises InputError if librosa is not installed.
    """

    protocol = AVAlignProtocol()
    streams = True
    needs_sound = True

    def __init__(self) -> None:
        with if_missing("AV-Align finds onsets with librosa; run `pip install 'avbench[sync]'`"):
            import librosa
        self._librosa = librosa

    def __call__(self, clip: Clip) -> dict[str, Value]:
        """Measure one clip.

        Raises NotMeasurable with fewer than 3 frames, or if the sound is shorter than a window, silent, or cancels
        itself.
        """
        audio = waveform.sound_of(clip)
        require_frames(clip.frames, 3, "AV-Align looks for peaks of motion, which need")
        rate, hop = self.protocol.rate, self.protocol.hop
        if audio.seconds < _WINDOW / rate:
            msg = f"the clip has {1000 * audio.seconds:.3g} ms of sound; AV-Align's onsets need 93 ms"
            raise NotMeasurable(msg)
        # librosa's onsets are relative to the strongest one, so it would find some in the last bit of a silent track.
        mono = waveform.mixed_down(audio, self.protocol.silent_below).astype(np.float32)
        wave = self._librosa.resample(mono, orig_sr=audio.sample_rate, target_sr=rate)
        strength = self._librosa.onset.onset_strength(y=wave, sr=rate, hop_length=hop)
        frames = self._librosa.onset.onset_detect(onset_envelope=strength, sr=rate, hop_length=hop)
        sounds = self._librosa.frames_to_time(frames, sr=rate, hop_length=hop)
        fps, motion = float(clip.fps), motion_curve(clip.frames)
        peaks, clear = (peak_times(motion, fps, floor) for floor in (0.0, self.protocol.peak_floor))
        reused = float(sum(any(abs(sound - peak) < 1 / fps for peak in peaks) for sound in sounds))
        return {
            "onsets": float(len(sounds)),
            "peaks": float(len(peaks)),
            "clear_peaks": float(len(clear)),
            "onset_seconds": sounds,
            "peak_seconds": clear,
            "frame_seconds": 1 / fps,
            "av_align": over_union(matched_once(sounds, clear, 1 / fps), len(sounds) + len(clear)),
            "av_align_2024": over_union(reused, len(sounds) + len(peaks)),
            "av_align_javisbench": reused / (len(sounds) + len(peaks) - reused + 1e-6),
        }


def motion_curve(frames: np.ndarray) -> np.ndarray:
    """Mean flow magnitude in pixels, ``[time]``: one value for each frame; the first is repeated."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    means = []
    for before, after in itertools.pairwise(grey):
        # With None, which the stubs forget, OpenCV allocates the flow.
        flow = cv2.calcOpticalFlowFarneback(  # pyright: ignore[reportCallIssue]
            before,
            after,
            None,  # pyright: ignore[reportArgumentType]
            *AVAlign.protocol.flow_settings,
            0,
        )
        means.append(float(np.hypot(flow[..., 0], flow[..., 1]).mean()))
    return np.array([means[0], *means])


def peak_times(motion: np.ndarray, fps: float, floor: float) -> np.ndarray:
    """Times in seconds of the strict local maxima that are at least `floor`."""
    inner = motion[1:-1]
    peaks = (inner > motion[:-2]) & (inner > motion[2:]) & (inner >= floor)
    return (np.flatnonzero(peaks) + 1) / fps
