"""Computes features of MTT_musicnn, a network that tags music, for distances between sets of sounds.

musicnn (Pons and Serra, 2019) has filters that are as tall as timbres and as long as rhythms, and was trained to tag
the music of MagnaTagATune. It was not trained on everyday sounds, so a distance of its features is not the FAD of
papers, which uses VGGish. It is used here because a package ships its weights, so that anybody gets the same number.

Conventions: mono, 16 kHz, log10(1 + 10000 mel), in patches of 187 frames (3 s). A clip shorter than a patch is one
patch of its own length. The network pools over time, so its features of 2 s are near those of 3 s, not equal. The
features are the package's ``penultimate`` layer: 200 numbers after the normalisation, averaged over patches.

The whole clip is heard. Where frames are left over after the last whole patch, a further patch of the last 187 frames
overlaps the one before; the package leaves these frames out, which are the last 2 s of a clip of 5 s. In the mean over
patches each frame counts once: one that two patches hold counts half in each. So the two patches of 5 s count the same;
of the three of 6 s, which is 2 frames longer than two patches, the first counts as much as the last two together.

Source: the network is written from the paper and the package's description. The weights are the data file of the
TensorFlow checkpoint in musicnn 0.1.0; where each array begins in it was read from the checkpoint's index. The package
pads by reflection and keeps the spectrogram in 16 bits; here it is padded in the same way and not rounded.

Agreement: the features agree to 2e-5 (values up to 2.7) with the package's own network, run by TensorFlow 2.21 on the
spectrograms of its two example songs (19 patches of 187 frames, and two of 125). The spectrograms agree with librosa's
to 1e-6. The package's rounding to 16 bits moves a song's features by less than 1e-4. With and without that rounding,
its network gives both songs the tags that its README shows.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import signal

from avbench.core import Clip, Notes, noted
from avbench.features.audio.waveform import SOUND_NOTES, SoundProtocol, mono_waveform, triangles
from avbench.features.networks import exact
from avbench.storage.weights import WEIGHTS, locate


@dataclass(frozen=True)
class MusicnnProtocol(SoundProtocol):
    """The settings that decide a clip's features. Samples and frames are those of the analysis."""

    name: str = "musicnn"
    version: int = 2
    rate: int = 16000
    shortest: int = 16000
    window: int = 512
    """Samples of a periodic Hann window. The first is centred on sample 0; the sound is reflected at its ends."""
    hop: int = 256
    bands: int = 96
    """Triangular bands of equal area, evenly spaced on Slaney's mel scale from 0 Hz to half the rate."""
    compression: str = "log10(1+10000*power)"
    patch: int = 187
    """Frames. A clip with fewer is one patch."""
    rest: str = "last patch overlaps"
    """How frames are heard that are left over after the last whole patch."""
    average: str = "each frame once"
    """How patches are weighted in the mean."""
    output: str = "penultimate"
    weights: str = "musicnn-mtt"
    weights_sha256: str = WEIGHTS["musicnn-mtt"].sha256
    notes: Notes = noted(
        **SOUND_NOTES,
        output="The penultimate layer after its normalisation, averaged over patches.",
        rest="Where frames are left over, a further patch of the last frames overlaps the one before.",
        average="A patch counts by its frames; a frame of two patches counts half in each.",
    )


class Musicnn:
    """The feature ``musicnn``. The constructor raises InputError if the weights are missing."""

    protocol = MusicnnProtocol()
    needs_sound = True
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        import torch

        from avbench.features.audio.musicnn_network import load

        self._device = torch.device(device)
        self._network = load(locate(self.protocol.weights)).to(self._device)

    @exact()
    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """``embedding`` [200]. Raises NotMeasurable without sound, with less than 1 s of sound, or if it is silent."""
        import torch

        frames = log_mel(mono_waveform(clip, self.protocol, "musicnn"), self.protocol)
        indices, weights = _patches(len(frames), self.protocol.patch)
        x = torch.from_numpy(frames[indices].astype(np.float32)).to(self._device).transpose(1, 2)[:, None]
        features = self._network(x).cpu().numpy()
        return {"embedding": np.average(features, axis=0, weights=weights).astype(np.float32)}


def _patches(frames: int, patch: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of each patch's frames, ``[patches, length]``, and each patch's weight in the mean, ``[patches]``.

    Weights are numbers of frames; their sum is `frames`, because a frame that two patches hold counts half in each.
    """
    length = min(patch, frames)
    starts = np.minimum(np.arange(0, frames, length), frames - length)
    indices = starts[:, None] + np.arange(length)
    return indices, (1 / np.bincount(indices.ravel()))[indices].sum(axis=1)


def log_mel(wave: np.ndarray, protocol: MusicnnProtocol) -> np.ndarray:
    """``[samples]`` → ``[frames, bands]``, as librosa's mel spectrogram with ``pad_mode="reflect"``."""
    padded = np.pad(wave, protocol.window // 2, mode="reflect")
    cuts = np.lib.stride_tricks.sliding_window_view(padded, protocol.window)[:: protocol.hop]
    spectrum = np.fft.rfft(cuts * signal.get_window("hann", protocol.window))
    power = (spectrum.real**2 + spectrum.imag**2) @ _triangles(protocol)
    return np.log10(1 + 10000 * power)


@cache
def _triangles(protocol: MusicnnProtocol) -> np.ndarray:
    """The weights of the triangular bands, ``[bins, bands]``."""
    corners = _hertz(np.linspace(0, _mel(protocol.rate / 2), protocol.bands + 2))
    bins = np.fft.rfftfreq(protocol.window, 1 / protocol.rate)
    return triangles(corners, bins) * 2 / (corners[2:] - corners[:-2])


# Slaney's mel scale: 3 mel for every 200 Hz up to 1 kHz; above it, 27 mel for every factor of 6.4.
def _mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
