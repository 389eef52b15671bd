"""Measures whether each frame lies halfway between its neighbours: VBench's motion smoothness, by the network AMT-S.

Every second frame is left out, interpolated from its two neighbours and compared with the original:
(255 − mean absolute difference in 8 bits) / 255, over the frames left out (Huang et al., 2024;
vbench/motion_smoothness.py). A last frame without a successor is ignored. A frozen clip comes close to 1: compare two
sets of clips by this number, and do not maximise it.

VBench shrinks frames before it computes the flow, by a factor that depends on the memory of the GPU, and not at all on
a CPU; so its numbers differ from machine to machine. Here nothing is shrunk on any device, as in VBench on a CPU.

The network is AMT-S (Li et al., 2023: "AMT: All-Pairs Multi-Field Transforms for Efficient Frame Interpolation"),
written anew with the names of its checkpoint. The licence of the weights forbids commercial use. With
random weights the network agrees with its authors' to 3e-5, and the number with VBench's on a CPU to 1e-6. No number of
the real weights was checked.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from avbench.core import Clip, Notes, Protocol, noted
from avbench.features.limits import require_frames, require_sides
from avbench.features.networks import exact, loaded, planes
from avbench.storage.weights import UserProvidedProtocol

RADIUS, LEVELS, FIELDS, SIDE_CHANNELS = 3, 4, 3, 20
"""Radius and levels of the correlations, flows for each pixel, and channels that a block processes twice."""
CHANNELS = (20, 32, 44, 56)
"""Channels of the features at 1/2, 1/4, 1/8 and 1/16 of the size."""


@dataclass(frozen=True)
class SmoothnessProtocol(Protocol):
    """The settings that decide the number, besides the clip."""

    name: str = "vbench-smoothness"
    version: int = 1
    frames: str = "every-second-kept"
    fps: str = "native"
    size: str = "native"
    padding: str = "replicate"
    minimum_side: int = 128
    """Pixels of the padded frames. With less, the coarsest level of the correlations is one pixel wide."""
    multiple: int = 16
    scale_factor: int = 1
    """VBench's factor depends on the GPU's memory; here it is always 1."""
    value_range: str = "0...1"
    rounding: str = "8-bit, down"
    output: str = "1-mad/255"
    weights: str = "amt-s"
    weights_sha256: str = ""
    precision: str = "float32"
    notes: Notes = noted(
        frames="Frames 0, 2, 4, ... are kept, and those between them are interpolated.",
        padding="Sides are padded to `multiple` by repeating the edge, equally on both sides or one more at the end.",
        output="1 less the mean absolute difference over 255, averaged over the frames left out.",
        source="VBench, vbench/motion_smoothness.py",
    )


class MotionSmoothness:
    """The feature ``vbench-smoothness``. The constructor raises InputError if weights are missing or do not fit."""

    protocol = UserProvidedProtocol(SmoothnessProtocol())
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._network = loaded(Network(), SmoothnessProtocol.weights, "the AMT-S checkpoint").to(self._device)

    def __call__(self, clip: Clip) -> dict[str, float]:
        """``smoothness`` in 0...1. Raises NotMeasurable with fewer than 3 frames, or if the frames are too small."""
        require_frames(clip.frames, 3, "smoothness compares a frame with its two neighbours; it needs")
        require_sides(clip.frames, self.protocol.minimum_side - self.protocol.multiple + 1, "AMT-S needs")
        return {"smoothness": smoothness(clip.frames, self.between)}

    @exact()
    def between(self, frame: np.ndarray, following: np.ndarray) -> np.ndarray:
        """The frame halfway between two, all ``[height, width, 3]`` uint8."""
        x = planes(np.stack((frame, following)), self._device) / 255
        more, wider = (-length % self.protocol.multiple for length in x.shape[2:])
        border = (wider // 2, wider - wider // 2, more // 2, more - more // 2)
        x = functional.pad(x, border, mode="replicate")
        made = self._network(x[:1], x[1:])[0, :, more // 2 :, wider // 2 :][:, : len(frame), : frame.shape[1]]
        return (made * 255).clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()


def smoothness(frames: Iterable[np.ndarray], between: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
    """VBench's rule: compares frames 1, 3, 5, ... with what `between` makes of their neighbours; all uint8."""
    shown = iter(frames)
    before, apart, size = next(shown), 0, 0
    for left_out, following in zip(shown, shown, strict=False):  # a last frame without a successor does not count
        made = between(before, following)
        apart += int(np.abs(left_out.astype(np.int16) - made).sum())
        size += made.size
        before = following
    return (255 - apart / size) / 255


class Network(nn.Module):
    """AMT-S: two ``[1, 3, height, width]`` in 0...1 → the frame halfway between them. Sides are multiples of 16.

    From coarse to fine, a decoder estimates the flows from the middle frame to both; correlations between all pixels of
    one frame and all pixels of the other correct the estimate. At full size each pixel has three estimates, which are
    merged.
    """

    def __init__(self) -> None:
        super().__init__()
        one, two, three, four = CHANNELS
        self.feat_encoder = Matcher(84)
        pyramid = zip((3, *CHANNELS), CHANNELS, range(1, 5), strict=False)
        self.encoder = nn.ModuleDict({f"pyramid{k}": _halving(before, after) for before, after, k in pyramid})
        self.decoder4 = Decoder(2 * four + 1, 2 * four, 4 + three)
        self.decoder3 = Decoder(3 * three + 4, 3 * three, 4 + two)
        self.decoder2 = Decoder(3 * two + 4, 3 * two, 4 + one)
        self.decoder1 = Decoder(3 * one + 4, 3 * one, 8 * FIELDS)
        self.update4, self.update3, self.update2 = Update(three, 1), Update(two, 2), Update(one, 4)
        mixing = nn.Conv2d(3 * FIELDS, 6 * FIELDS, 3, padding=1), nn.PReLU(6 * FIELDS)
        self.comb_block = nn.Sequential(*mixing, nn.Conv2d(6 * FIELDS, 3, 3, padding=1))

    def forward(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """The frame at the midpoint in time between two."""
        both = torch.cat((before, after))
        mean = both.mean()
        both = both - mean
        correlations = Correlations(self.feat_encoder(both))
        pyramid, x = [], both
        for level in self.encoder.values():
            x = level(x)
            pyramid.append(x)
        first, second = pyramid[3].chunk(2)
        halfway = torch.full_like(first[:, :1], 0.5)
        flow, features = self.decoder4(torch.cat((first, second, halfway), dim=1)).tensor_split([4], dim=1)
        flow, features = self.update4(flow, features, correlations)
        for level, decoder, update in ((2, self.decoder3, self.update3), (1, self.decoder2, self.update2)):
            change, features = decoder(_seen(features, pyramid[level], flow)).tensor_split([4], dim=1)
            flow, features = update(change + 2 * _scaled(flow, 2), features, correlations)
        change = self.decoder1(_seen(features, pyramid[0], flow))
        return self._mixed(both, mean, change, 2 * _scaled(flow, 2))

    def _mixed(self, both: torch.Tensor, mean: torch.Tensor, change: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
        """Merge three middle frames, one from each field of flows, into one."""
        to_first, to_second, mask, rest = change.split((2 * FIELDS, 2 * FIELDS, FIELDS, 3 * FIELDS), dim=1)
        mask, made = mask.sigmoid(), []
        for k in range(FIELDS):
            change_k = torch.cat((to_first[:, 2 * k : 2 * k + 2], to_second[:, 2 * k : 2 * k + 2]), dim=1)
            first, second = _warped(both, flow + change_k)
            share = mask[:, k : k + 1]
            made.append(share * first + (1 - share) * second + mean + rest[:, 3 * k : 3 * k + 3])
        return (torch.stack(made).mean(dim=0) + self.comb_block(torch.cat(made, dim=1))).clamp(0, 1)


def _scaled(x: torch.Tensor, factor: float) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _grid(height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """``[height, width, 2]``: the coordinates of every pixel, x before y."""
    rows, columns = (torch.arange(length, device=like.device, dtype=like.dtype) for length in (height, width))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)


def _sampled(images: torch.Tensor, places: torch.Tensor, beyond: str) -> torch.Tensor:
    """``[n, channels, height, width]`` sampled at ``[n, rows, columns, 2]`` places in pixels, x before y."""
    last = places.new_tensor(images.shape[:1:-1]) - 1
    return functional.grid_sample(images, 2 * places / last - 1, padding_mode=beyond, align_corners=True)


def _warped(both: torch.Tensor, flow: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both frames' features, warped along the flows to them: channels 0 and 1 to the first, 2 and 3 to the second."""
    flows = flow.unflatten(1, (2, 2))[0].permute(0, 2, 3, 1)
    places = _grid(both.shape[2], both.shape[3], both) + flows
    first, second = _sampled(both, places, "border").split(1)
    return first, second


def _seen(features: torch.Tensor, both: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    return torch.cat((features, *_warped(both, flow), flow), dim=1)


class Correlations:
    """How similar each place of one frame is to each place of the other, in both directions, at four sizes."""

    def __init__(self, maps: torch.Tensor) -> None:
        _, channels, self.height, self.width = maps.shape
        first, second = maps.flatten(2)
        volume = first.T @ second / channels**0.5
        self._levels = [self._pyramid(volume), self._pyramid(volume.T)]

    def _pyramid(self, volume: torch.Tensor) -> list[torch.Tensor]:
        levels = [volume.reshape(-1, 1, self.height, self.width)]
        for _ in range(LEVELS - 1):
            levels.append(functional.avg_pool2d(levels[-1], 2))
        return levels

    def around(self, flow: torch.Tensor) -> torch.Tensor:
        """``[1, 2 · 4 · 49, height, width]`` at the places to which motion at constant speed leads.

        The flow from the middle to one frame, doubled, is the flow from the other frame to it.
        """
        to_first, to_second = flow.unflatten(1, (2, 2))[0].permute(0, 2, 3, 1)
        own = _grid(self.height, self.width, flow)
        offsets = torch.arange(-RADIUS, RADIUS + 1, device=flow.device, dtype=flow.dtype)
        # As in RAFT, the window's first axis is x, and the channels are in that order.
        window = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), dim=-1)
        found = []
        for levels, way in zip(self._levels, (to_second, to_first), strict=True):
            centre = (own + 2 * way).reshape(-1, 1, 1, 2)
            for k, level in enumerate(levels):
                found.append(_sampled(level, centre / 2**k + window, "zeros").reshape(self.height, self.width, -1))
        return torch.cat(found, dim=-1).permute(2, 0, 1)[None]


def _activated(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.PReLU(outputs))


def _halving(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_activated(inputs, outputs, 2), _activated(outputs, outputs))


class SideBlock(nn.Module):
    """A residual block that processes its last channels twice more on their own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv3 = _activated(channels, channels), _activated(channels, channels)
        self.conv2, self.conv4 = (_activated(SIDE_CHANNELS, SIDE_CHANNELS) for _ in range(2))
        self.conv5 = nn.Conv2d(channels, channels, 3, padding=1)
        self.prelu = nn.PReLU(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[1, channels, height, width]`` → the same."""
        y = self.conv1(x)
        for side, whole in ((self.conv2, self.conv3), (self.conv4, self.conv5)):
            y = whole(torch.cat((y[:, :-SIDE_CHANNELS], side(y[:, -SIDE_CHANNELS:])), dim=1))
        return self.prelu(x + y)


class Decoder(nn.Module):
    """Turns features of one size into flows and features of twice the size."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        enlarging = nn.ConvTranspose2d(hidden, outputs, 4, stride=2, padding=1)
        self.convblock = nn.Sequential(_activated(inputs, hidden), SideBlock(hidden), enlarging)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[1, inputs, height, width]`` → ``[1, outputs, 2 · height, 2 · width]``."""
        return self.convblock(x)


class Update(nn.Module):
    """Corrects flows and features by correlations, which have 1/8 of the frame's size; `finer` is the ratio to it."""

    def __init__(self, channels: int, finer: int) -> None:
        super().__init__()
        self.finer = finer
        self.convc1 = nn.Conv2d(2 * LEVELS * (2 * RADIUS + 1) ** 2, 64, 1)
        self.convf1 = nn.Conv2d(4, 40, 7, padding=3)
        self.convf2 = nn.Conv2d(40, 20, 3, padding=1)
        self.conv = nn.Conv2d(84, 68, 3, padding=1)
        self.gru = _two_layers(68 + 4 + channels, 76)
        self.feat_head, self.flow_head = _two_layers(76, channels), _two_layers(76, 4)

    def forward(
        self, flow: torch.Tensor, features: torch.Tensor, correlations: Correlations
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Flows and features with their corrections added."""
        small, seen = flow, features
        if self.finer > 1:
            small, seen = _scaled(flow, 1 / self.finer) / self.finer, _scaled(features, 1 / self.finer)
        likeness = _leaky(self.convc1(correlations.around(small)))
        way = _leaky(self.convf2(_leaky(self.convf1(small))))
        motion = _leaky(self.conv(torch.cat((likeness, way), dim=1)))
        state = self.gru(torch.cat((motion, small, seen), dim=1))
        more_flow, more_features = self.flow_head(state), self.feat_head(state)
        if self.finer > 1:
            more_flow, more_features = self.finer * _scaled(more_flow, self.finer), _scaled(more_features, self.finer)
        return flow + more_flow, features + more_features


def _leaky(x: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(x, 0.1)


def _two_layers(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, 76, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(76, outputs, 3, padding=1))


class Matcher(nn.Module):
    """Features for the correlations, at 1/8 of the size: RAFT's small encoder."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, stride=2, padding=3)
        for k, (before, after) in enumerate(((32, 32), (32, 64), (64, 96)), 1):
            stride = 1 if k == 1 else 2
            self.add_module(f"layer{k}", nn.Sequential(Bottleneck(before, after, stride), Bottleneck(after, after, 1)))
        self.conv2 = nn.Conv2d(96, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[2, 3, height, width]`` → ``[2, outputs, height / 8, width / 8]``."""
        x = functional.relu(functional.instance_norm(self.conv1(x)))
        for k in (1, 2, 3):
            x = self.get_submodule(f"layer{k}")(x)
        return self.conv2(x)


class Bottleneck(nn.Module):
    """A residual block of three convolutions, each normalised within its image."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        narrow = outputs // 4
        self.conv1 = nn.Conv2d(inputs, narrow, 1)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride, padding=1)
        self.conv3 = nn.Conv2d(narrow, outputs, 1)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride)) if stride > 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[2, inputs, height, width]`` → ``[2, outputs, height / stride, width / stride]``."""
        y = x
        for layer in (self.conv1, self.conv2, self.conv3):
            y = functional.relu(functional.instance_norm(layer(y)))
        if self.downsample is not None:
            x = functional.instance_norm(self.downsample(x))
        return functional.relu(x + y)
