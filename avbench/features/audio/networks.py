"""Computes features of VGGish, PANNs and CLAP, the networks behind the published audio distances.

- ``vggish`` (Hershey et al., 2017; torchvggish's file): the network of FAD (Kilgour et al., 2019). 128 numbers for each
  patch of 0.96 s, averaged over the clip's patches. They are taken before the last rectifier, as Google's FAD does, and
  without the PCA and the rounding to 8 bits that YouTube-8M adds. Some papers print FAD times 1,000 or 10,000.
- ``panns-cnn14`` (Kong et al., 2020; Cnn14 at 32 kHz, mAP 0.431): the network of the FD of audio generation. 2048
  numbers of the whole clip. Papers also use the checkpoint at 16 kHz, a different network with different numbers.
- ``clap`` (Wu et al., 2023; a folder that transformers reads, such as laion/clap-htsat-unfused): a vector of 512
  numbers and length 1 from the first 10 s, which can be compared with those of texts. A shorter sound is repeated to 10
  s, as LAION does.

Conventions: channels are averaged and resampled by scipy. The published code of VGGish and PANNs resamples with other
filters, which changes the features of clips with another rate. A clip with a lower rate than the network's has nothing
in the upper bands, and its features differ for that reason: compare sets of one rate.

Agreement on random weights (no real ones were available): VGGish agrees with torchvggish 0.2, except for the last
rectifier, and PANNs with panns-inference 0.1.1, on waveforms of the network's rate, both to 1e-6 of the largest
feature. CLAP is transformers' own network and spectrogram. No number computed with the real weights was checked.
"""

import contextlib
import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy import signal
from torch import nn
from torch.nn import functional

from avbench.core import Clip, InputError, Notes, if_missing, noted
from avbench.features.audio.waveform import SOUND_NOTES, SoundProtocol, mono_waveform, triangles
from avbench.features.networks import LOCAL, exact, loaded, pretrained, read_as
from avbench.storage.weights import UserProvidedProtocol, locate


@dataclass(frozen=True)
class VGGishProtocol(SoundProtocol):
    """VGGish's own settings. Samples and frames are those of the analysis."""

    name: str = "vggish"
    version: int = 1
    rate: int = 16000
    shortest: int = 15600
    output: str = "last, unrectified"
    weights: str = "vggish"
    window: int = 400
    """Samples of a periodic Hann window; only whole windows count."""
    transform: int = 512
    """Samples of each window after it is padded with zeros."""
    hop: int = 160
    bands: int = 64
    """Triangular bands, evenly spaced and straight on the mel scale 1127 ln(1 + f/700); of magnitudes, not powers."""
    lowest: float = 125.0
    highest: float = 7500.0
    """Hz: the upper end of the last band; `lowest` is the lower end of the first."""
    compression: str = "ln(0.01+magnitude)"
    patch: int = 96
    """Frames. Patches do not overlap, and what is left over at the end is ignored."""
    notes: Notes = noted(
        **SOUND_NOTES, output="The last layer before its rectifier, without the PCA, averaged over patches."
    )


@dataclass(frozen=True)
class PANNsProtocol(SoundProtocol):
    """Cnn14's own settings. Its window and bands are arrays in the checkpoint."""

    name: str = "panns-cnn14"
    version: int = 1
    rate: int = 32000
    shortest: int = 9920
    output: str = "penultimate, rectified"
    weights: str = "panns-cnn14"
    window: int = 1024
    """Samples. The first window is centred on sample 0; the sound is reflected at its ends."""
    hop: int = 320
    bands: int = 64
    compression: str = "10*log10(power)"
    floor: float = -100.0
    patch: str = "whole clip"
    notes: Notes = noted(
        **SOUND_NOTES,
        output="The layer before the classes, after its rectifier.",
        floor="Decibels: lower values of the spectrogram are raised to it.",
    )


@dataclass(frozen=True)
class CLAPProtocol(SoundProtocol):
    """CLAP's own settings. Its spectrogram follows the folder's preprocessor_config.json."""

    name: str = "clap"
    version: int = 1
    rate: int = 48000
    shortest: int = 48000
    output: str = "unit projection"
    weights: str = "clap"
    longest: int = 480000
    """Samples. A longer sound is cut to this length; a shorter one is repeated as the folder says."""
    notes: Notes = noted(**SOUND_NOTES, output="The projection of the audio network, scaled to length 1.")


class VGGish:
    """The feature ``vggish``. The constructor raises InputError if the weights are missing or do not fit."""

    protocol = UserProvidedProtocol(VGGishProtocol())
    width = 64
    needs_sound = True
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        network = loaded(VGGishNetwork(self.width), VGGishProtocol.weights, "the VGGish checkpoint", ("pproc.",))
        self._network = network.to(self._device)

    @exact()
    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """``embedding`` [128]. Raises NotMeasurable without sound, with less than 975 ms, or if it is silent."""
        frames = vggish_log_mel(mono_waveform(clip, self.protocol, "VGGish"), VGGishProtocol())
        patches = frames[: len(frames) // self.protocol.patch * self.protocol.patch]
        x = torch.from_numpy(patches.reshape(-1, 1, self.protocol.patch, self.protocol.bands)).float()
        return {"embedding": self._network(x.to(self._device)).mean(dim=0).cpu().numpy()}


class PANNs:
    """The feature ``panns-cnn14``. The constructor raises InputError if the weights are missing or do not fit."""

    protocol = UserProvidedProtocol(PANNsProtocol())
    width = 64
    needs_sound = True
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        with _arrays_allowed():
            network = loaded(Cnn14(self.width), PANNsProtocol.weights, "the PANNs checkpoint", ("fc_audioset.",))
        self._network = network.to(self._device)

    @exact()
    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """``embedding`` [2048]. Raises NotMeasurable without sound, with less than 310 ms, or if it is silent."""
        x = torch.from_numpy(mono_waveform(clip, self.protocol, "PANNs")).float()[None]
        return {"embedding": self._network(x.to(self._device))[0].cpu().numpy()}


class CLAPNetwork:
    """CLAP from a folder that transformers reads. Raises InputError without transformers, or if it holds no CLAP."""

    parts: tuple[str, ...] = ("audio",)
    """Those of the network that must be in the folder."""

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._folder = folder = locate(CLAPProtocol.weights)
        with if_missing("CLAP needs transformers 4.53 or later; run `pip install 'avbench[towers]'`"):
            from transformers import ClapFeatureExtractor, ClapModel
        with read_as("CLAP", folder):
            self._extractor = ClapFeatureExtractor.from_pretrained(folder, **LOCAL)
        self._model = pretrained(ClapModel, folder, "CLAP", self.parts).to(self._device)
        if self._extractor.sampling_rate != CLAPProtocol.rate:
            msg = f"{folder} holds another CLAP: it needs {self._extractor.sampling_rate} samples a second"
            raise InputError(msg)

    def sound(self, clip: Clip, protocol: CLAPProtocol) -> torch.Tensor:
        """``[1, 512]`` of length 1. Raises NotMeasurable without sound, below 1 s of sound, or if it is silent."""
        wave = mono_waveform(clip, protocol, "CLAP")[: protocol.longest]
        inputs = self._extractor(wave, sampling_rate=protocol.rate, return_tensors="pt")
        spectrogram, longer = inputs["input_features"].float(), inputs["is_longer"]
        shown = self._model.audio_model(spectrogram.to(self._device), is_longer=longer.to(self._device))
        return functional.normalize(self._model.audio_projection(shown.pooler_output), dim=-1)


class CLAP(CLAPNetwork):
    """The feature ``clap``. The constructor raises InputError without transformers, or if the folder holds no CLAP."""

    protocol = UserProvidedProtocol(CLAPProtocol())
    needs_sound = True
    on_gpu = True
    streams = True

    @exact()
    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """``embedding`` [512]. Raises NotMeasurable without sound, with less than 1 s of sound, or if it is silent."""
        return {"embedding": self.sound(clip, self.protocol)[0].cpu().numpy()}


def _arrays_allowed() -> contextlib.AbstractContextManager:
    """To read files that also hold numpy arrays: PANNs' files hold the state of their data sampler."""
    reduced = np.empty(0).__reduce__()
    assert not isinstance(reduced, str)
    kinds = [type(np.dtype(code)) for code in "?bhilqBHILQefd"]
    # numpy has renamed the module that rebuilds arrays, and the file has the old name.
    names = [(reduced[0], f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    return torch.serialization.safe_globals([*names, np.ndarray, np.dtype, *kinds])


def vggish_log_mel(wave: np.ndarray, protocol: VGGishProtocol) -> np.ndarray:
    """``[samples]`` → ``[frames, bands]`` of all whole windows."""
    cuts = np.lib.stride_tricks.sliding_window_view(wave, protocol.window)[:: protocol.hop]
    spectrum = np.fft.rfft(cuts * signal.get_window("hann", protocol.window), protocol.transform)
    return np.log(0.01 + np.abs(spectrum) @ _vggish_triangles(protocol))


@cache
def _vggish_triangles(protocol: VGGishProtocol) -> np.ndarray:
    """The weights of the bands, ``[bins, bands]``; the bin of 0 Hz belongs to none."""
    hertz = np.fft.rfftfreq(protocol.transform, 1 / protocol.rate)
    low, high, bins = (1127 * np.log(1 + each / 700) for each in (protocol.lowest, protocol.highest, hertz))
    corners = np.linspace(low, high, protocol.bands + 2)
    return triangles(corners, bins)


class VGGishNetwork(nn.Module):
    """``[patches, 1, 96, 64]`` → ``[patches, 128]``; parameters have the names of torchvggish's checkpoint."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = [1, width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width]
        layers: list[nn.Module] = []
        for place, (before, after) in enumerate(itertools.pairwise(widths)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            if place in (0, 1, 3, 5):
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        dense = [nn.Linear(24 * widths[-1], 64 * width), nn.ReLU(), nn.Linear(64 * width, 64 * width), nn.ReLU()]
        self.embeddings = nn.Sequential(*dense, nn.Linear(64 * width, 128))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of each patch."""
        # The matrices were trained in TensorFlow, where channels are the last axis.
        return self.embeddings(self.features(x).permute(0, 2, 3, 1).flatten(1))


class LogMel(nn.ModuleDict):
    """The spectrogram of torchlibrosa, whose window and bands are arrays with the names of its checkpoints."""

    def __init__(self, window: int, hop: int, bands: int) -> None:
        bins = window // 2 + 1
        waves = {f"conv_{part}": nn.Conv1d(1, bins, window, hop, bias=False) for part in ("real", "imag")}
        super().__init__(
            {
                "spectrogram_extractor": nn.ModuleDict({"stft": nn.ModuleDict(waves)}),
                "logmel_extractor": nn.ParameterDict({"melW": nn.Parameter(torch.empty(bins, bands))}),
            }
        )
        self._half = window // 2

    def log_mel(self, x: torch.Tensor) -> torch.Tensor:
        """``[clips, samples]`` → ``[clips, frames, bands]`` in decibels."""
        real, imaginary = (self.get_submodule(f"spectrogram_extractor.stft.conv_{part}") for part in ("real", "imag"))
        x = functional.pad(x[:, None], (self._half, self._half), mode="reflect")
        power = real(x) ** 2 + imaginary(x) ** 2
        return 10 * torch.log10((power.transpose(1, 2) @ self.get_parameter("logmel_extractor.melW")).clamp(min=1e-10))


class Cnn14(LogMel):
    """``[clips, samples]`` → ``[clips, 32 width]``; parameters have the names of PANNs' checkpoint."""

    def __init__(self, width: int = 64) -> None:
        settings = PANNsProtocol()
        super().__init__(settings.window, settings.hop, settings.bands)
        widths = [1, *(width * 2**step for step in range(6))]
        blocks = {f"conv_block{n}": ConvBlock(*widths[n - 1 : n + 1]) for n in range(1, 7)}
        self.update({"bn0": nn.BatchNorm2d(settings.bands), **blocks, "fc1": nn.Linear(widths[-1], widths[-1])})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of each clip."""
        x = self.log_mel(x)
        x = self["bn0"](x.transpose(1, 2)[..., None]).permute(0, 3, 2, 1)
        for n in range(1, 6):
            x = functional.avg_pool2d(self[f"conv_block{n}"](x), 2)
        x = self["conv_block6"](x).mean(dim=3)
        return functional.relu(self["fc1"](x.amax(dim=2) + x.mean(dim=2)))


class ConvBlock(nn.Module):
    """Two convolutions, each normalised and rectified."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[clips, before, frames, bands]`` → the same with `after` channels."""
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)))
