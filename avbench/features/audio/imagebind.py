"""Measures how well sound and picture fit each other, by ImageBind: the audio–video similarity of most papers.

ImageBind (Girdhar et al., 2023) gives a vector to 2 s of sound and one to two frames. As in its authors' own reading of
files, a clip's picture is seen in five windows of 2 s, evenly spaced, of which the first and the last frame are taken.
Their short side is resized to 224 pixels without antialiasing, and three squares are cut out of them. The sound is
heard in three such windows. The vectors of one kind are averaged, and the value is the cosine of both means.

A cosine means nothing by itself, so the vectors are kept, and a metric subtracts the mean cosine that the picture has
with the sounds of other clips.

Differences from the authors' code: channels are averaged, of which it takes the first; scipy resamples; and a shorter
sound than 1 s is refused. A sound of less than 2 s is filled up with silence, as there. Some papers print other sums of
the same vectors, or times 100.

The network is written anew with the names of its checkpoint, of which only sound and picture are read. The user
provides the weights. On random weights the vectors agree to 1e-5 with those of the authors' model and code, around
which the filter bank is transformers'. No number of the real weights was checked.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from avbench.core import Clip, Notes, noted
from avbench.features.audio.waveform import SOUND_NOTES, SoundProtocol, mono_waveform, triangles
from avbench.features.networks import exact, filled
from avbench.storage.reading.pickles import read_state_dict
from avbench.storage.weights import UserProvidedProtocol, locate


@dataclass(frozen=True)
class ImageBindProtocol(SoundProtocol):
    """The settings that decide a clip's similarity, besides the clip."""

    name: str = "imagebind"
    version: int = 1
    rate: int = 16000
    shortest: int = 16000
    seconds: int = 2
    """Of a window."""
    sound_windows: int = 3
    picture_windows: int = 5
    frames: str = "first, last"
    """Of a window."""
    size: int = 224
    """Pixels of the short side after resizing, and of each square."""
    resize: str = "bilinear"
    squares: int = 3
    """At both ends and in the middle of the long side."""
    antialias: bool = False
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    deviation: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    window: int = 400
    """Samples of a symmetric Hann window; only whole windows count."""
    transform: int = 512
    hop: int = 160
    bands: int = 128
    """Triangular bands, evenly spaced and straight on the mel scale 1127 ln(1 + f/700)."""
    lowest: float = 20.0
    """Hz: the lower end of the first band."""
    preemphasis: float = 0.97
    steps: int = 204
    """Of a spectrogram, which is filled up with zeros, or cut."""
    sound_mean: float = -4.268
    sound_deviation: float = 9.138
    output: str = "cosine of means"
    weights: str = "imagebind"
    notes: Notes = noted(**SOUND_NOTES, source="imagebind/data.py of facebookresearch/ImageBind at 53680b0")


@dataclass(frozen=True)
class Shape:
    """The shape of ImageBind; the defaults are the published ones."""

    embedding: int = 1024
    width: int = 1280
    depth: int = 32
    heads: int = 16
    sound_width: int = 768
    sound_depth: int = 12
    sound_heads: int = 12


class ImageBind:
    """The feature ``imagebind``. Values of one clip:

    - ``similarity``: cosine of picture and sound.
    - ``one``, ``other``: the vectors of picture and sound, of length 1.

    The constructor raises InputError if the weights are missing or do not fit.
    """

    protocol = UserProvidedProtocol(ImageBindProtocol())
    shape = Shape()
    needs_sound = True
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        read = read_state_dict(locate(ImageBindProtocol.weights))
        used = {name: value for name, value in read.items() if _is_used(name)}
        self._network = filled(Network(self.shape), used, "the ImageBind checkpoint").to(self._device)

    @exact()
    def __call__(self, clip: Clip) -> dict[str, float | np.ndarray]:
        """Measure one clip. Raises NotMeasurable if it has no sound, less than 1 s of it, or if it is silent."""
        wave = mono_waveform(clip, self.protocol, "ImageBind")
        sounds = torch.from_numpy(np.stack([*spectrograms(wave, self.protocol)])).float()[:, None].to(self._device)
        heard = self._network.sound(sounds).double().mean(dim=0)
        seen = self._seen(clip).double().mean(dim=0)
        one, other = (functional.normalize(each, dim=0).cpu().numpy() for each in (seen, heard))
        return {"similarity": float(one @ other), "one": one.astype(np.float32), "other": other.astype(np.float32)}

    def _seen(self, clip: Clip) -> torch.Tensor:
        """The vectors of every square of every window, ``[windows * squares, embedding]``."""
        known: dict[tuple[int, int], torch.Tensor] = {}
        found = []
        for pair in pairs(len(clip.frames), clip.fps, self.protocol):
            if pair not in known:  # the windows of a short clip are one
                frames = torch.from_numpy(np.stack([clip.frames[place] for place in pair])).to(self._device)
                known[pair] = self._network.picture(squares(frames, self.protocol))
            found.append(known[pair])
        return torch.cat(found)


def starts(seconds: Fraction, count: int, length: int) -> list[Fraction]:
    """When `count` evenly spaced windows of `length` seconds begin; all at 0 if the clip is no longer than one."""
    return [max(seconds - length, Fraction(0)) * k / (count - 1) for k in range(count)]


def pairs(count: int, fps: Fraction, protocol: ImageBindProtocol) -> list[tuple[int, int]]:
    """The first and the last frame of each window, among `count` frames."""
    every = starts(count / fps, protocol.picture_windows, protocol.seconds)
    found = []
    for one in every:
        first = min(math.ceil(fps * one), count - 1)
        last = min(math.ceil(fps * (one + protocol.seconds)), count) - 1
        found.append((first, max(first, last)))  # below half a frame per second a window may hold none
    return found


def squares(frames: torch.Tensor, protocol: ImageBindProtocol) -> torch.Tensor:
    """``[frames, height, width, 3]`` uint8 → ``[squares, 3, frames, size, size]``."""
    x = frames.permute(0, 3, 1, 2).float() / 255
    height, width = x.shape[2:]
    size = protocol.size
    long = math.floor(max(height, width) / min(height, width) * size)
    sides = (size, long) if height <= width else (long, size)
    x = functional.interpolate(x, sides, mode=protocol.resize, align_corners=False)
    mean, deviation = (
        torch.tensor(values, device=x.device)[:, None, None] for values in (protocol.mean, protocol.deviation)
    )
    x = (x - mean) / deviation
    axis = 2 if height > width else 3
    ends = (0, math.ceil((long - size) / 2), long - size)
    return torch.stack([x.narrow(axis, end, size) for end in ends]).transpose(1, 2)


def spectrograms(wave: np.ndarray, protocol: ImageBindProtocol) -> list[np.ndarray]:
    """The windows of ``[samples]``, each ``[bands, steps]``, as torchaudio's Kaldi filter bank computes them."""
    rate, length = protocol.rate, protocol.seconds
    every = starts(Fraction(len(wave), rate), protocol.sound_windows, length)
    return [_spectrogram(wave[int(one * rate) : int((one + length) * rate)], protocol) for one in every]


def _spectrogram(wave: np.ndarray, protocol: ImageBindProtocol) -> np.ndarray:
    cut = np.lib.stride_tricks.sliding_window_view(wave - wave.mean(), protocol.window)[:: protocol.hop]
    cut = cut - cut.mean(axis=1, keepdims=True)
    cut = cut - protocol.preemphasis * np.concatenate([cut[:, :1], cut[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft(cut * np.hanning(protocol.window), protocol.transform)) ** 2
    hertz = np.fft.rfftfreq(protocol.transform, 1 / protocol.rate)
    corners = np.linspace(_mel(protocol.lowest), _mel(protocol.rate / 2), protocol.bands + 2)
    bands = power @ triangles(corners, _mel(hertz))
    found = np.log(np.maximum(bands, np.finfo(np.float32).eps))[: protocol.steps]
    found = np.pad(found, ((0, protocol.steps - len(found)), (0, 0)))
    return ((found - protocol.sound_mean) / protocol.sound_deviation).T


def _mel(hertz: float | np.ndarray) -> np.ndarray:
    return 1127 * np.log1p(np.asarray(hertz) / 700)


def _is_used(name: str) -> bool:
    """Whether a tensor of the checkpoint belongs to sound or picture, and not to the scale of training."""
    part, _, rest = name.partition(".")
    return part != "modality_postprocessors" and rest.startswith(("vision.", "audio."))


class Network(nn.Module):
    """ImageBind's networks of pictures and sounds; parameters have the names of its checkpoint."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        seen = ImageBindProtocol()
        patch = (2, 14, 14)
        rows, columns = ((side - 16) // 10 + 1 for side in (seen.bands, seen.steps))
        self.modality_preprocessors = nn.ModuleDict(
            {
                "vision": Tokens(
                    # The authors' first layer repeats single pictures.
                    nn.Sequential(nn.Identity(), nn.Conv3d(3, shape.width, patch, patch, bias=False)),
                    None,
                    (seen.size // patch[1]) ** 2,
                    shape.width,
                ),
                "audio": Tokens(
                    nn.Conv2d(1, shape.sound_width, 16, 10, bias=False),
                    nn.LayerNorm(shape.sound_width),
                    rows * columns,
                    shape.sound_width,
                ),
            }
        )
        self.modality_trunks = nn.ModuleDict(
            {
                "vision": Trunk(shape.width, shape.depth, shape.heads, normed=True, extra_key=False),
                "audio": Trunk(shape.sound_width, shape.sound_depth, shape.sound_heads, normed=False, extra_key=True),
            }
        )
        self.modality_heads = nn.ModuleDict(
            {
                kind: nn.Sequential(_norm(width), nn.Identity(), nn.Linear(width, shape.embedding, bias=False))
                for kind, width in (("vision", shape.width), ("audio", shape.sound_width))
            }
        )

    def picture(self, x: torch.Tensor) -> torch.Tensor:
        """``[squares, 3, 2, 224, 224]`` → ``[squares, embedding]``, of length 1."""
        return self._vectors("vision", x)

    def sound(self, x: torch.Tensor) -> torch.Tensor:
        """``[windows, 1, bands, steps]`` → ``[windows, embedding]``, of length 1."""
        return self._vectors("audio", x)

    def _vectors(self, kind: str, x: torch.Tensor) -> torch.Tensor:
        x = self.modality_trunks[kind](self.modality_preprocessors[kind](x))
        return functional.normalize(self.modality_heads[kind](x[:, 0]), dim=-1)


class Tokens(nn.Module):
    """Patches, and a class token before them, with their places."""

    def __init__(self, patches: nn.Module, norm: nn.Module | None, count: int, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        layers = {"proj": patches} if norm is None else {"proj": patches, "norm_layer": norm}
        self.rgbt_stem = nn.ModuleDict(layers)
        self.pos_embedding_helper = nn.ParameterDict({"pos_embed": torch.zeros(1, count + 1, width)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[inputs, channels, ...]`` → ``[inputs, tokens, width]``."""
        x = self.rgbt_stem["proj"](x).flatten(2).transpose(1, 2)
        if "norm_layer" in self.rgbt_stem:
            x = self.rgbt_stem["norm_layer"](x)
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embedding_helper["pos_embed"]


class Trunk(nn.Module):
    """``[inputs, tokens, width]`` → the same: a transformer with norms before its layers."""

    def __init__(self, width: int, depth: int, heads: int, *, normed: bool, extra_key: bool) -> None:
        super().__init__()
        self.pre_transformer_layer = nn.Sequential(_norm(width) if normed else nn.Identity())
        self.blocks = nn.Sequential(*[Block(width, heads, extra_key) for _ in range(depth)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The tokens after the last block."""
        return self.blocks(self.pre_transformer_layer(x))


class Block(nn.Module):
    """Attention, then a perceptron, each after a layer norm and with a residual connection."""

    def __init__(self, width: int, heads: int, extra_key: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, add_bias_kv=extra_key, batch_first=True)
        self.norm_1, self.norm_2 = _norm(width), _norm(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[inputs, tokens, width]`` → the same."""
        y = self.norm_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm_2(x))))


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6)
