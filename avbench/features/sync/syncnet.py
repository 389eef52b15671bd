"""Measures how well lips and speech fit together, by SyncNet: LSE-D and LSE-C.

SyncNet (Chung and Zisserman, 2016) gives a vector to the mouth in 5 frames, and one to 0.2 s of sound. LSE-D and LSE-C
are the names of Wav2Lip (Prajwal et al., 2020) for what SyncNet's authors call distance and confidence. The sound is
moved by up to 15 frames each way, and for each shift the distances of the vectors are averaged over the clip. LSE-D is
the smallest of these means; LSE-C is their median less the smallest. So both are those of the best shift: a constant
delay of up to 0.6 s costs nothing.

Only a clip with a face can be measured: one of more than 100 pixels that is followed for 2 s. If there are several, the
one that is followed longest is taken. It may be one that does not speak, or the speech may be a voice-over; then the
numbers say nothing.

Differences from the authors' pipeline (joonson/syncnet_python at 6efbb1c): faces are detected by YuNet instead of S3FD;
50 frames of a face are enough instead of 101; a clip is one shot; frames are not coded again between the steps; and one
face is measured, not each. In clips this short the shifts reach beyond the sound, where a vector is 0, as there.
Numbers of papers have other protocols.

The network and the cepstrum are written anew. On random weights and given
boxes of a face, distances of about 290 and confidences of about 1.6 agree with those of the authors' code with
python_speech_features to 1e-3. No number of the real weights was checked.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import fft
from torch import nn
from torch.nn import functional

from avbench.core import Clip, Notes, NotMeasurable, Protocol, noted
from avbench.features.audio import waveform
from avbench.features.networks import exact, loaded
from avbench.features.sync import faces
from avbench.features.sync.faces import Detector, Finding
from avbench.features.sync.frame_rate import at_rate
from avbench.storage.weights import UserProvidedProtocol, locate


@dataclass(frozen=True)
class SyncNetProtocol(Protocol):
    """The settings that decide a clip's distance and confidence, besides the clip."""

    name: str = "syncnet"
    version: int = 1
    fps: int = 25
    frame_choice: str = "ffmpeg-fps"
    faces: Finding = field(default_factory=Finding)
    face: str = "longest, else largest"
    least_frames: int = 50
    """Frames in which a face must be followed."""
    least_pixels: int = 100
    """Mean width or height that a face must exceed."""
    shots: str = "one"
    channels: str = "BGR"
    mono: str = "mean"
    resampler: str = "resample_poly"
    rate: int = 16000
    window: int = 400
    """Samples without a window function."""
    hop: int = 160
    transform: int = 512
    bands: int = 26
    """Triangular bands of height 1, evenly spaced on the mel scale 2595 log10(1 + f/700) up to half the rate."""
    cepstrum: int = 13
    """Coefficients, of which the first is the logarithm of the energy."""
    preemphasis: float = 0.97
    lifter: int = 22
    shift: int = 15
    """Frames by which the sound is moved each way."""
    silent_below: float = -90.0
    """dBFS. A track without a sample above it is silent and is not measured."""
    detector: str = "yunet"
    detector_sha256: str = ""
    weights: str = "syncnet"
    weights_sha256: str = ""
    precision: str = "float32"
    notes: Notes = noted(
        **waveform.MIXED_DOWN,
        frame_choice="A frame is shown from its own time on, rounded to the nearest at that rate, halves up.",
        face="Of several faces, the one that is followed longest; of these, the largest.",
        shots="Cuts are not looked for; a face is lost where the next one does not overlap it.",
        silent_below=waveform.SILENCE,
        source="SyncNetInstance.py and run_pipeline.py of joonson/syncnet_python, with another detector of faces",
    )


@dataclass(frozen=True)
class Shape:
    """The shape of SyncNet; the defaults are the published ones."""

    sound: tuple[int, ...] = (64, 192, 384, 256, 256, 512)
    """Channels of the convolutions over the cepstrum."""
    lips: tuple[int, ...] = (96, 256, 256, 256, 256, 512)
    """Channels of the convolutions over the frames."""
    embedding: int = 1024


class SyncNet:
    """The feature ``syncnet``. Values of one clip:

    - ``confidence``: LSE-C.
    - ``distance``: LSE-D.
    - ``offset``: the shift at which the distance is smallest, in frames; as the authors' "AV offset".
    - ``frames``: in which the face was followed, at 25 a second.

    The constructor raises InputError if weights are missing or do not fit.
    """

    protocol = UserProvidedProtocol(SyncNetProtocol())
    shape = Shape()
    needs_sound = True
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._detector = Detector(locate(SyncNetProtocol.detector), SyncNetProtocol().faces)
        network = loaded(Network(self.shape), SyncNetProtocol.weights, "the SyncNet checkpoint")
        self._network = network.to(self._device)

    @exact()
    def __call__(self, clip: Clip) -> dict[str, float]:
        """Measure one clip. Raises NotMeasurable without sound, or without a face that is large and long enough."""
        protocol = self.protocol
        audio = waveform.sound_of(clip)
        mono = waveform.mixed_down(audio, protocol.silent_below)
        wave = np.round(waveform.resampled(mono, audio.sample_rate, protocol.rate) * 32768).clip(-32768, 32767)
        chosen = at_rate(len(clip.frames), clip.fps, protocol.fps)
        face = _measured_face([self._detector.boxes(clip.frames[place]) for place in chosen], protocol)
        places = chosen[face.first : face.first + len(face.boxes)]
        pictures = faces.cut_out((clip.frames[place] for place in places), face, protocol.faces)
        samples = protocol.rate // protocol.fps
        heard = wave[face.first * samples : (face.first + len(pictures)) * samples]
        if (both := min(len(pictures), len(heard) // samples)) < protocol.least_frames:
            msg = (
                f"the face has {both / protocol.fps:.3g} s of sound; "
                f"SyncNet needs {protocol.least_frames / protocol.fps:g} s"
            )
            raise NotMeasurable(msg)
        confidence, distance, offset = self.compared(pictures[..., ::-1], cepstrum(heard, protocol), both)
        return {"confidence": confidence, "distance": distance, "offset": offset, "frames": float(len(pictures))}

    def compared(self, pictures: np.ndarray, coefficients: np.ndarray, frames: int) -> tuple[float, float, float]:
        """Confidence, distance, and offset in frames.

        Args:
            pictures: the face, ``[frames, 224, 224, 3]`` BGR.
            coefficients: of the sound, ``[cepstrum, steps]``, four steps to a frame.
            frames: how many have both.
        """
        count, shift = frames - 5, self.protocol.shift  # one window fewer than there could be, as the authors have it
        cuts = np.stack([coefficients[:, 4 * k : 4 * k + 20] for k in range(count)])[:, None]
        sound = self._network.sound(torch.from_numpy(cuts).float().to(self._device))
        lips = []
        for first in range(0, count, 10):
            part = pictures[first : min(first + 10, count) + 4]
            lips.append(self._network.lips(torch.from_numpy(part.copy()).to(self._device).permute(3, 0, 1, 2).float()))
        padded = functional.pad(sound, (0, 0, shift, shift))
        moved = torch.stack([padded[k : k + count] for k in range(2 * shift + 1)], dim=1)
        means = functional.pairwise_distance(torch.cat(lips)[:, None].expand_as(moved), moved).mean(dim=0)
        best = int(means.argmin())
        return float(means.median() - means[best]), float(means[best]), float(shift - best)


def _measured_face(found: list[np.ndarray], protocol: SyncNetProtocol) -> faces.Face:
    """The face to be measured. Raises NotMeasurable if there is none."""
    if not any(len(boxes) for boxes in found):
        msg = "the clip shows no face"
        raise NotMeasurable(msg)
    every = faces.followed(found, protocol.faces)
    face = max(every, key=lambda one: (len(one.boxes), one.pixels))
    if len(face.boxes) < protocol.least_frames:
        msg = (
            f"no face is followed for longer than {len(face.boxes) / protocol.fps:.3g} s; "
            f"SyncNet needs {protocol.least_frames / protocol.fps:g} s"
        )
        raise NotMeasurable(msg)
    long = [one for one in every if len(one.boxes) >= protocol.least_frames]
    large = [one for one in long if one.pixels > protocol.least_pixels]
    if not large:
        most = max(one.pixels for one in long)
        msg = f"the face has {most:.3g} pixels; SyncNet needs more than {protocol.least_pixels}"
        raise NotMeasurable(msg)
    return max(large, key=lambda one: (len(one.boxes), one.pixels))


def cepstrum(wave: np.ndarray, protocol: SyncNetProtocol) -> np.ndarray:
    """Mel cepstrum of ``[samples]`` in 16-bit steps, ``[cepstrum, steps]``, as python_speech_features computes it."""
    wave = np.append(wave[0], wave[1:] - protocol.preemphasis * wave[:-1])
    steps = 1 + max(0, -(-(len(wave) - protocol.window) // protocol.hop))
    wave = np.pad(wave, (0, max(0, (steps - 1) * protocol.hop + protocol.window - len(wave))))
    cut = np.lib.stride_tricks.sliding_window_view(wave, protocol.window)[:: protocol.hop]
    power = np.abs(np.fft.rfft(cut, protocol.transform)) ** 2 / protocol.transform
    corners = waveform.mel_corners(0, protocol.rate / 2, protocol.bands)
    corners = np.floor((protocol.transform + 1) * corners / protocol.rate)
    bands = power @ waveform.triangles(corners, np.arange(power.shape[1]))
    tiny = np.finfo(np.float64).eps
    found = np.asarray(fft.dct(np.log(np.where(bands == 0, tiny, bands)), type=2, norm="ortho"))[:, : protocol.cepstrum]
    found = found * (1 + protocol.lifter / 2 * np.sin(np.pi * np.arange(protocol.cepstrum) / protocol.lifter))
    energy = power.sum(axis=1)
    found[:, 0] = np.log(np.where(energy == 0, tiny, energy))
    return found.T


class Network(nn.Module):
    """SyncNet; parameters have the names of its checkpoint."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        flat, deep = nn.MaxPool2d, nn.MaxPool3d
        self.netcnnaud = nn.Sequential(
            *_sound(1, shape.sound[0], 3, 1),
            flat(1, 1),
            *_sound(shape.sound[0], shape.sound[1], 3, 1),
            flat(3, (1, 2)),
            *_sound(shape.sound[1], shape.sound[2], 3, 1),
            *_sound(shape.sound[2], shape.sound[3], 3, 1),
            *_sound(shape.sound[3], shape.sound[4], 3, 1),
            flat(3, 2),
            *_sound(shape.sound[4], shape.sound[5], (5, 4), 0),
        )
        self.netcnnlip = nn.Sequential(
            *_lips(3, shape.lips[0], (5, 7, 7), 2, 0),
            deep((1, 3, 3), (1, 2, 2)),
            *_lips(shape.lips[0], shape.lips[1], (1, 5, 5), 2, 1),
            deep((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_lips(shape.lips[1], shape.lips[2], (1, 3, 3), 1, 1),
            *_lips(shape.lips[2], shape.lips[3], (1, 3, 3), 1, 1),
            *_lips(shape.lips[3], shape.lips[4], (1, 3, 3), 1, 1),
            deep((1, 3, 3), (1, 2, 2)),
            *_lips(shape.lips[4], shape.lips[5], (1, 6, 6), 1, 0),
        )
        self.netfcaud, self.netfclip = (
            nn.Sequential(nn.Linear(width, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, shape.embedding))
            for width in (shape.sound[-1], shape.lips[-1])
        )

    def sound(self, x: torch.Tensor) -> torch.Tensor:
        """``[windows, 1, cepstrum, 20]`` → ``[windows, embedding]``."""
        return self.netfcaud(self.netcnnaud(x).flatten(1))

    def lips(self, x: torch.Tensor) -> torch.Tensor:
        """``[3, frames, 224, 224]`` BGR in 0...255 → ``[frames - 4, embedding]``: one for 5 successive frames each.

        Only the first convolution reaches over several frames, so that windows share all others' work.
        """
        return self.netfclip(self.netcnnlip(x[None])[0, :, :, 0, 0].T)


def _sound(before: int, after: int, kernel: int | tuple[int, int], padding: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, kernel, padding=padding), nn.BatchNorm2d(after), nn.ReLU()]


def _lips(before: int, after: int, kernel: tuple[int, int, int], stride: int, padding: int) -> list[nn.Module]:
    convolution = nn.Conv3d(before, after, kernel, (1, stride, stride), (0, padding, padding))
    return [convolution, nn.BatchNorm3d(after), nn.ReLU()]
