"""Computes features of MTT_musicnn, a network that tags music, for distances between sets of sounds.

musicnn (Pons and Serra, 2019) has filters that are as tall as timbres and as long as rhythms, and was trained to tag
the music of MagnaTagATune. It was not trained on everyday sounds, so a distance of its features is not the FAD of
papers, which uses VGGish. It is used here because a package ships its weights, so that anybody gets the same number.

Conventions: mono, 16 kHz, log10(1 + 10000 mel), in patches of 187 frames (3 s) that do not overlap; what is left over
at the end is ignored. A clip shorter than a patch is one patch of its own length. The network pools over time, so its
features of 2 s are near those of 3 s, not equal. The features are the package's ``penultimate`` layer: 200 numbers
after the normalisation, averaged over patches.

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
from pathlib import Path

import numpy as np
import torch
from scipy import signal
from torch import nn
from torch.nn import functional

from avbench.core import Clip, Notes, Protocol, noted
from avbench.features.audio import waveform
from avbench.features.networks import exact, filled
from avbench.storage.weights import WEIGHTS, locate


@dataclass(frozen=True)
class MusicnnProtocol(Protocol):
    """The settings that decide a clip's features. Samples and frames are those of the analysis."""

    name: str = "musicnn"
    version: int = 1
    mono: str = "mean"
    resampler: str = "resample_poly"
    rate: int = 16000
    """Hz. Every waveform is resampled to it."""
    window: int = 512
    """Samples of a periodic Hann window. The first is centred on sample 0; the sound is reflected at its ends."""
    hop: int = 256
    bands: int = 96
    """Triangular bands of equal area, evenly spaced on Slaney's mel scale from 0 Hz to half the rate."""
    compression: str = "log10(1+10000*power)"
    patch: int = 187
    """Frames. Patches do not overlap, and a clip with fewer frames is one patch."""
    shortest: int = 16000
    """Samples. Shorter sounds are not measured."""
    silent_below: float = -90.0
    """dBFS. A track without a sample above it is silent and is not measured."""
    output: str = "penultimate"
    weights: str = "musicnn-mtt"
    weights_sha256: str = WEIGHTS["musicnn-mtt"].sha256
    precision: str = "float32"
    notes: Notes = noted(
        **waveform.MIXED_DOWN,
        silent_below=waveform.SILENCE,
        output="The penultimate layer after its normalisation, averaged over patches.",
    )


class Musicnn:
    """The feature ``musicnn``. The constructor raises InputError if the weights are missing."""

    protocol = MusicnnProtocol()
    on_gpu = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._network = load(locate(self.protocol.weights)).to(self._device)

    @exact()
    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """``embedding`` [200]. Raises NotMeasurable without sound, with less than 1 s of sound, or if it is silent."""
        frames = log_mel(self._heard(clip), self.protocol)
        length = min(self.protocol.patch, len(frames))
        patches = frames[: len(frames) // length * length].reshape(-1, length, self.protocol.bands)
        x = torch.from_numpy(patches.astype(np.float32)).to(self._device).transpose(1, 2)[:, None]
        return {"embedding": self._network(x).mean(dim=0).cpu().numpy()}

    def _heard(self, clip: Clip) -> np.ndarray:
        audio, protocol = waveform.sound_of(clip), self.protocol
        mono = waveform.mixed_down(audio, protocol.silent_below)
        wave = waveform.resampled(mono, audio.sample_rate, protocol.rate)
        waveform.require_length(wave, protocol.shortest, protocol.rate, audio, "musicnn needs")
        return wave


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
    return waveform.triangles(corners, bins) * 2 / (corners[2:] - corners[:-2])


# Slaney's mel scale: 3 mel for every 200 Hz up to 1 kHz; above it, 27 mel for every factor of 6.4.
def _mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


class Network(nn.Module):
    """``[patches, 1, bands, frames]`` → ``[patches, 200]``."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(1, eps=1e-3)
        self.timbral = nn.ModuleList(
            Layer(nn.Conv2d(1, 204, (height, 7), padding=(0, 3)), nn.BatchNorm2d(204, eps=1e-3)) for height in (38, 67)
        )
        self.temporal = nn.ModuleList(
            Layer(nn.Conv2d(1, 51, (1, length)), nn.BatchNorm2d(51, eps=1e-3)) for length in (128, 64, 32)
        )
        self.middle = nn.ModuleList(
            Layer(nn.Conv1d(width, 64, 7, padding=3), nn.BatchNorm1d(64, eps=1e-3)) for width in (561, 64, 64)
        )
        self.pooled = nn.BatchNorm1d(1506, eps=1e-3)
        self.dense = Layer(nn.Linear(1506, 200), nn.BatchNorm1d(200, eps=1e-3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of each patch."""
        x = self.first(x)
        # Where a filter's length is even, TensorFlow pads one more frame at the end.
        rhythms = [functional.pad(x, ((length - 1) // 2, length // 2)) for length in (128, 64, 32)]
        heard = [layer(x) for layer in self.timbral]
        heard += [layer(padded) for layer, padded in zip(self.temporal, rhythms, strict=True)]
        front = torch.cat([each.amax(dim=2) for each in heard], dim=1)
        one = self.middle[0](front)
        two = self.middle[1](one) + one
        three = self.middle[2](two) + two
        x = torch.cat((front, one, two, three), dim=1)
        x = torch.stack((x.amax(dim=2), x.mean(dim=2)), dim=2).flatten(1)
        return self.dense(self.pooled(x))


class Layer(nn.Module):
    """A convolution or matrix, then a rectifier, then a normalisation."""

    def __init__(self, affine: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.affine, self.norm = affine, norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output for one input."""
        return self.norm(functional.relu(self.affine(x)))


_AFFINE = {
    "timbral.0.affine": (81176, 78728),
    "timbral.1.affine": (734792, 732344),
    "temporal.0.affine": (1883516, 1882904),
    "temporal.1.affine": (1962464, 1961852),
    "temporal.2.affine": (2002244, 2001632),
    "middle.0.affine": (2022596, 2021828),
    "middle.1.affine": (5039300, 5038532),
    "middle.2.affine": (5384132, 5383364),
    "dense.affine": (5730596, 5728196),
}
"""Where weight and bias begin in the data file, in bytes."""

_NORMS = {
    "first": (12, 0, 24, 28),
    "timbral.0.norm": (2480, 32, 4928, 5744),
    "timbral.1.norm": (15408, 12960, 17856, 18672),
    "temporal.0.norm": (20100, 19488, 20712, 20916),
    "temporal.1.norm": (21732, 21120, 22344, 22548),
    "temporal.2.norm": (23364, 22752, 23976, 24180),
    "middle.0.norm": (25152, 24384, 25920, 26176),
    "middle.1.norm": (27200, 26432, 27968, 28224),
    "middle.2.norm": (29248, 28480, 30016, 30272),
    "pooled": (48600, 30528, 66672, 72696),
    "dense.norm": (8960, 6560, 11360, 12160),
}
"""Where weight, bias, running mean and running variance begin in the data file, in bytes."""


def offsets() -> dict[str, int]:
    """Where each of the network's arrays begins in the data file, in bytes."""
    parts = [(_AFFINE, ("weight", "bias")), (_NORMS, ("weight", "bias", "running_mean", "running_var"))]
    return {
        f"{layer}.{name}": place
        for table, names in parts
        for layer, places in table.items()
        for name, place in zip(names, places, strict=True)
    }


def load(path: Path) -> Network:
    """The network with the weights of a data file whose hash was checked."""
    network = Network()
    data, state = path.read_bytes(), network.state_dict()
    for name, place in offsets().items():
        # TensorFlow keeps the axes in the opposite order: time, band, in, out.
        shape = tuple(state[name].shape)[::-1]
        values = np.frombuffer(data, "<f4", int(np.prod(shape)), place).reshape(shape)
        state[name] = torch.from_numpy(np.array(values.T, order="C"))
    return filled(network, state, f"{path}")
