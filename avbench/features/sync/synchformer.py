"""Estimates how late a clip's sound is, by Synchformer: the two lags behind DeSync.

Synchformer (Iashin et al., 2024; checkpoint 24-01-04T16-39-21, trained on AudioSet) takes 4.8 s of picture and sound as
14 segments of 0.64 s, each starting 0.32 s after the previous one, and predicts which of 21 offsets is likeliest: -2,
-1.8, ... 2 s. DeSync is av-benchmark's number: the size of that offset, averaged over the first and the last 14
segments of the clip. The network's table of positions has exactly 14 entries, so a shorter clip cannot be measured;
clips are not repeated or padded.

The sign: Synchformer's offset is positive where the sound is early (in its training data the sound starts at a later
time than the picture). Here a lag is positive where the sound is late, as in `sync_lag`: the offset with its sign
reversed.

Conventions are av-benchmark's (hkchengrex/av-benchmark, extract.py and extract_video.py) with three exceptions: the
sound is resampled by scipy, not by torchaudio; the last 14 segments are those of the whole clip, not of its first 8 s;
and a silent track is refused. Frames are resampled to 25 a second as ffmpeg's filter fps does.

The network is written anew with the names of its checkpoint: MotionFormer with divided attention for the picture, AST
for the sound, and three layers over both. The user provides the weights. With random weights of the published size, its
features (up to 14) agree with av-benchmark's copy of the authors' code to 1e-5, and its logits (up to 3) to 3e-6, or to
3e-4 where that code resamples the sound. No number computed with the real weights was checked. A clip of 4.8 s takes
80 s of one CPU core; a longer one up to twice that.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision.transforms.v2.functional import InterpolationMode, center_crop, resize

from avbench.core import Clip, Notes, NotMeasurable, Protocol, beside_limit, noted
from avbench.features.audio import waveform
from avbench.features.networks import exact, loaded
from avbench.features.sync.frame_rate import at_rate
from avbench.storage.weights import UserProvidedProtocol


@dataclass(frozen=True)
class SynchformerProtocol(Protocol):
    """The settings that decide a clip's lags, besides the clip."""

    name: str = "synchformer"
    version: int = 1
    fps: int = 25
    frame_choice: str = "ffmpeg-fps"
    size: int = 224
    resize: str = "bicubic, 8-bit"
    aspect: str = "centre crop"
    antialias: bool = True
    value_range: str = "-1...1"
    frames: int = 16
    """Frames of a segment; the next segment begins half a segment later."""
    mono: str = "mean"
    resampler: str = "resample_poly"
    rate: int = 16000
    samples: int = 10240
    """Samples of a segment; the next segment begins half a segment later."""
    window: int = 400
    """Samples of a periodic Hann window in the middle of `transform`; a segment is reflected at its ends."""
    transform: int = 1024
    hop: int = 160
    bands: int = 128
    """Triangular bands of height 1, evenly spaced on the mel scale 2595 log10(1 + f/700) up to half the rate."""
    compression: str = "ln(1e-6+power)"
    columns: int = 66
    """Columns of a segment's spectrogram: its own 65 and one of zeros."""
    mean: float = -4.2677393
    deviation: float = 4.5689974
    """`mean` is subtracted from the spectrogram (zeros included), which is then divided by twice this value."""
    segments: int = 14
    choice: str = "first-and-last"
    output: str = "negated likeliest offset"
    silent_below: float = -90.0
    """dBFS. A track without a sample above it is silent and is not measured."""
    weights: str = "synchformer"
    weights_sha256: str = ""
    precision: str = "float32"
    notes: Notes = noted(
        **waveform.MIXED_DOWN,
        frame_choice="A frame is shown from its own time on, rounded to the nearest at that rate, halves up.",
        resize="The short side is resized to `size`, and pixels are rounded to 8 bits.",
        choice="The first and the last segments that have picture and sound; in a clip of 4.8 s they are the same.",
        output="The likeliest of 21 offsets, with its sign reversed.",
        silent_below=waveform.SILENCE,
        source="av-benchmark",
    )

    @property
    def shortest(self) -> Fraction:
        """Seconds of picture and of sound that a clip needs: 4.8."""
        return Fraction((self.segments + 1) * self.samples // 2, self.rate)


@dataclass(frozen=True)
class Shape:
    """The shape of the network; the defaults are those of the checkpoint."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    joint_depth: int = 3
    joint_heads: int = 8


class Synchformer:
    """The feature ``synchformer``. The constructor raises InputError if the weights are missing or do not fit."""

    protocol = UserProvidedProtocol(SynchformerProtocol())
    shape = Shape()
    needs_sound = True
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        # The file also holds MotionFormer's patches of single frames, which are not used.
        unused, what = ("vfeat_extractor.patch_embed.",), "the Synchformer checkpoint"
        self._network = loaded(Network(self.shape), SynchformerProtocol.weights, what, unused).to(self._device)

    @exact()
    def __call__(self, clip: Clip) -> dict[str, float]:
        """``first_lag`` and ``last_lag``, of the first and the last 4.8 s: seconds in -2...2, positive where late.

        Raises NotMeasurable without sound, with less than 4.8 s of picture or sound, or if the track is silent.
        """
        protocol = self.protocol
        wave = mono_waveform(clip, protocol)
        frames = at_rate(len(clip.frames), clip.fps, protocol.fps)
        step, hop, count = protocol.frames // 2, protocol.samples // 2, protocol.segments
        whole = min(len(frames) // step, len(wave) // hop) - 1
        ends = [range(count), range(whole - count, whole)]
        starts = sorted({*ends[0], *ends[1]})
        cuts = np.stack([wave[hop * k : hop * k + protocol.samples] for k in starts])
        sounds = self._network.afeat_extractor(log_mel(torch.from_numpy(cuts).to(self._device), protocol))
        chosen = _together(clip.frames, (frames[step * k : step * k + protocol.frames] for k in starts))
        # One segment at a time, because each has 1569 tokens.
        pictures = torch.cat([self._network.vfeat_extractor(self._planes(each)[None]) for each in chosen])
        places = [[starts.index(k) for k in end] for end in ends]
        first, last = (self._lag(self._network(pictures[place], sounds[place])) for place in places)
        return {"first_lag": first, "last_lag": last}

    def _planes(self, frames: np.ndarray) -> torch.Tensor:
        """``[time, height, width, 3]`` uint8 → ``[3, time, size, size]`` in -1...1."""
        side = self.protocol.size
        x = resize(torch.from_numpy(frames).permute(0, 3, 1, 2), [side], InterpolationMode.BICUBIC, antialias=True)
        return center_crop(x, [side]).to(self._device).transpose(0, 1) / 127.5 - 1

    @staticmethod
    def _lag(logits: torch.Tensor) -> float:
        # The middle one of the 21 classes is 0 s, and there are five classes to a second.
        return (10 - int(logits.argmax())) / 5


def _together(frames: np.ndarray, groups: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Each group of frames as an array. Groups overlap and ascend, and each frame is read once."""
    held: dict[int, np.ndarray] = {}
    for group in groups:
        held = {number: held[number] if number in held else frames[number] for number in group}
        yield np.stack([held[number] for number in group])


def mono_waveform(clip: Clip, protocol: SynchformerProtocol) -> np.ndarray:
    """``[samples]`` float32 at the network's rate. Raises NotMeasurable if picture or sound is too short."""
    audio = waveform.sound_of(clip)
    lengths = len(clip.frames) / clip.fps, Fraction(audio.samples, audio.sample_rate)
    if min(lengths) < protocol.shortest:
        least = float(protocol.shortest)
        picture, sound = (beside_limit(float(length), least) for length in lengths)
        msg = f"the clip has {picture} s of picture and {sound} s of sound; Synchformer needs {least:g} s of both"
        raise NotMeasurable(msg)
    mono = waveform.mixed_down(audio, protocol.silent_below)
    return waveform.resampled(mono, audio.sample_rate, protocol.rate).astype(np.float32)


def log_mel(segments: torch.Tensor, protocol: SynchformerProtocol) -> torch.Tensor:
    """``[segments, samples]`` → ``[segments, 1, bands, columns]``, as torchaudio's MelSpectrogram computes it."""
    window = torch.hann_window(protocol.window, device=segments.device)
    spectrum = torch.stft(
        segments, protocol.transform, protocol.hop, protocol.window, window, pad_mode="reflect", return_complex=True
    )
    bands = torch.from_numpy(_triangles(protocol)).to(segments)
    logarithms = (1e-6 + bands @ spectrum.abs() ** 2).log()
    filled = functional.pad(logarithms, (0, protocol.columns - logarithms.shape[2]))
    return ((filled - protocol.mean) / (2 * protocol.deviation))[:, None]


@cache
def _triangles(protocol: SynchformerProtocol) -> np.ndarray:
    """The weights of the triangular bands, ``[bands, bins]``."""
    corners = waveform.mel_corners(0, protocol.rate / 2, protocol.bands)
    hertz = np.fft.rfftfreq(protocol.transform, 1 / protocol.rate)
    return np.ascontiguousarray(waveform.triangles(corners, hertz).T)


class Network(nn.Module):
    """Both extractors' features of 14 segments → logits of the 21 offsets. Names are those of the checkpoint."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.vfeat_extractor, self.afeat_extractor = MotionFormer(shape), AST(shape)
        self.vproj, self.aproj = (nn.Linear(shape.width, shape.width) for _ in range(2))
        self.transformer = Joint(shape)

    def forward(self, pictures: torch.Tensor, sounds: torch.Tensor) -> torch.Tensor:
        """``[14, 8, width]`` and ``[14, 6, width]`` → ``[21]``."""
        return self.transformer(self.vproj(pictures.flatten(0, 1)), self.aproj(sounds.flatten(0, 1)))


def attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    """Attention of ``[..., tokens, width]`` by several heads → ``[..., tokens, width]``, one row per query."""
    q, k, v = (each.unflatten(-1, (heads, -1)).transpose(-3, -2) for each in (query, key, value))
    return functional.scaled_dot_product_attention(q, k, v).transpose(-3, -2).flatten(-2)


class MotionFormer(nn.Module):
    """``[segments, 3, 16, 224, 224]`` → ``[segments, 8, width]``: a token for every second frame."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.cls_token = _token(1, shape.width)
        self.pos_embed, self.temp_embed = _token(1 + 14 * 14, shape.width), _token(8, shape.width)
        kernel = (2, 16, 16)
        self.patch_embed_3d = nn.ModuleDict({"proj": nn.Conv3d(3, shape.width, kernel, stride=kernel)})
        self.blocks = nn.ModuleList(DividedBlock(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=1e-6)
        self.spatial_attn_agg = Summary(shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of the picture of each segment."""
        x = self.patch_embed_3d["proj"](x).flatten(3).permute(0, 2, 3, 1)
        x = (x + self.pos_embed[:, None, 1:] + self.temp_embed[:, :, None]).flatten(1, 2)
        x = torch.cat(((self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1), x), dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x[:, 1:]).unflatten(1, (8, -1))
        return self.spatial_attn_agg(x.flatten(0, 1)).unflatten(0, (-1, 8))


class DividedBlock(nn.Module):
    """Attention over time, then within a frame, then a perceptron, each after a layer norm and with a residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(shape.width, eps=1e-6) for _ in range(3))
        self.attn, self.timeattn = DividedAttention(shape), DividedAttention(shape)
        fc1, fc2 = nn.Linear(shape.width, 4 * shape.width), nn.Linear(4 * shape.width, shape.width)
        self.mlp = nn.ModuleDict({"fc1": fc1, "fc2": fc2})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[segments, 1 + 8 · 196, width]`` → the same."""
        x = x + self.timeattn(self.norm3(x), over_time=True)
        x = x + self.attn(self.norm1(x), over_time=False)
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))


class DividedAttention(nn.Module):
    """The first token attends to all; the others to it and to the tokens of their own place, or of their own frame."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.proj = nn.Linear(shape.width, shape.width)

    def forward(self, x: torch.Tensor, *, over_time: bool) -> torch.Tensor:
        """``[segments, 1 + 8 · 196, width]`` → the same."""
        query, key, value = self.qkv(x).chunk(3, dim=2)
        first = attended(query[:, :1], key, value, self.heads)
        q, k, v = (each[:, 1:].unflatten(1, (8, -1)) for each in (query, key, value))
        if over_time:
            q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        k, v = (
            torch.cat((whole[:, None, :1].expand(-1, each.shape[1], -1, -1), each), dim=2)
            for whole, each in ((key, k), (value, v))
        )
        rest = attended(q, k, v, self.heads)
        rest = rest.transpose(1, 2) if over_time else rest
        return self.proj(torch.cat((first, rest.flatten(1, 2)), dim=1))


class Summary(nn.TransformerEncoderLayer):
    """``[n, tokens, width]`` → ``[n, width]``: the output of an added token that attends to all others."""

    def __init__(self, shape: Shape) -> None:
        options = {"activation": nn.GELU(), "layer_norm_eps": 1e-6, "batch_first": True, "norm_first": True}
        super().__init__(shape.width, shape.heads, 4 * shape.width, **options)
        self.cls_token = _token(1, shape.width)

    # The checkpoint's names are those of the base class, whose other arguments nobody needs.
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The summary of one batch."""
        return super().forward(torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1))[:, 0]


class AST(nn.Module):
    """``[segments, 1, 128, 66]`` → ``[segments, 6, width]``: a token for every 10 columns of the spectrogram."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        encoder = nn.ModuleDict({"layer": nn.ModuleList(ASTLayer(shape) for _ in range(shape.depth))})
        norm = nn.LayerNorm(shape.width, eps=1e-12)
        self.ast = nn.ModuleDict({"embeddings": ASTEmbeddings(shape), "encoder": encoder, "layernorm": norm})
        self.freq_attn_agg = Summary(shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of the sound of each segment."""
        x = self.ast["embeddings"](x)
        for layer in self.ast.get_submodule("encoder.layer").children():
            x = layer(x)
        x = self.ast["layernorm"](x)[:, 2:].unflatten(1, (12, 6)).transpose(1, 2)
        return self.freq_attn_agg(x.flatten(0, 1)).unflatten(0, (-1, 6))


class ASTEmbeddings(nn.Module):
    """Overlapping patches of a spectrogram as tokens, after two tokens that belong to no patch."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.cls_token, self.distillation_token = (_token(1, shape.width) for _ in range(2))
        self.position_embeddings = _token(2 + 12 * 6, shape.width)
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(1, shape.width, 16, stride=10)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[segments, 1, 128, 66]`` → ``[segments, 2 + 12 · 6, width]``."""
        patches = self.patch_embeddings["projection"](x).flatten(2).transpose(1, 2)
        first = torch.cat((self.cls_token, self.distillation_token), dim=1).expand(len(x), -1, -1)
        return torch.cat((first, patches), dim=1) + self.position_embeddings


class ASTLayer(nn.Module):
    """Attention, then a perceptron, each after a layer norm and with a residual connection."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        inner = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.attention = nn.ModuleDict({"attention": inner, "output": _dense(width, width)})
        self.intermediate, self.output = _dense(width, 4 * width), _dense(4 * width, width)
        self.layernorm_before, self.layernorm_after = (nn.LayerNorm(width, eps=1e-12) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[segments, 74, width]`` → the same."""
        y = self.layernorm_before(x)
        query, key, value = (self.attention.get_submodule(f"attention.{name}")(y) for name in ("query", "key", "value"))
        x = x + self.attention.get_submodule("output.dense")(attended(query, key, value, self.heads))
        y = self.intermediate["dense"](self.layernorm_after(x))
        return x + self.output["dense"](functional.gelu(y))


class Joint(nn.Module):
    """Features of picture and sound, in one sequence of 198 tokens → the logits of the 21 offsets."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.vis_in_lnorm, self.aud_in_lnorm, self.ln_f = (nn.LayerNorm(shape.width) for _ in range(3))
        self.OFF_tok, self.MOD_tok = (_token(1, shape.width) for _ in range(2))
        self.pos_emb_cfg = nn.ParameterDict({"pos_emb": _token(1 + 14 * 8 + 1 + 14 * 6, shape.width)})
        self.blocks = nn.Sequential(*(JointBlock(shape) for _ in range(shape.joint_depth)))
        self.off_head = nn.Linear(shape.width, 21)

    def forward(self, pictures: torch.Tensor, sounds: torch.Tensor) -> torch.Tensor:
        """``[112, width]`` and ``[84, width]`` → ``[21]``."""
        tokens = (self.OFF_tok[0], self.vis_in_lnorm(pictures), self.MOD_tok[0], self.aud_in_lnorm(sounds))
        x = self.blocks(torch.cat(tokens) + self.pos_emb_cfg["pos_emb"])
        return self.off_head(self.ln_f(x[0, 0]))


class JointBlock(nn.Module):
    """Attention, then a perceptron, each after a layer norm and with a residual connection."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.joint_heads
        self.ln1, self.ln2 = (nn.LayerNorm(width) for _ in range(2))
        self.attn = nn.ModuleDict({name: nn.Linear(width, width) for name in ("key", "query", "value", "proj")})
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[1, 198, width]`` → the same."""
        y = self.ln1(x)
        y = attended(self.attn["query"](y), self.attn["key"](y), self.attn["value"](y), self.heads)
        x = x + self.attn["proj"](y)
        return x + self.mlp(self.ln2(x))


def _token(count: int, width: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(1, count, width))


def _dense(before: int, after: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(before, after)})
