"""Measures how good the frames of a clip look: technically by MUSIQ, and as pictures by LAION's aesthetic predictor.

Both are VBench's (Huang et al., 2024; vbench/imaging_quality.py, aesthetic_quality.py at 45e79ec), a mean over all
frames of a clip, in parts of 1:

- Imaging quality: MUSIQ (Ke et al., 2021) trained on SPAQ, which has 11,125 photographs of 66 smartphones with
  opinions from 0 to 100. A frame whose longer side exceeds 512 pixels is reduced to that, without antialiasing.
- Aesthetic quality: LAION's first predictor, one linear layer on the unit vector of CLIP ViT-L/14, in tenths. The
  frame's short side is resized to 224 pixels without antialiasing, and the square in the middle is seen.

Both heads are linear, so that odd frames can get values below 0 or above 1. Neither looks at more than one frame: a
frozen clip loses nothing. MUSIQ sees every frame also at 224 and 384 pixels: of smaller clips, which are measured too,
it mostly sees enlargements.

MUSIQ is written after the paper; its layout, resampling and padding are those of pyiqa's port, which VBench calls. The
user provides the weights. On random weights both values agree with VBench's functions around pyiqa's MUSIQ (0.1.16) and
open_clip's CLIP to 1e-6. VBench runs CLIP in half precision where there is a GPU; here it runs in float32 everywhere.
No number of the real weights was checked.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision.transforms.functional import InterpolationMode, center_crop, normalize, resize

from avbench.core import Clip, Notes, Protocol, noted
from avbench.features.networks import exact, loaded, planes
from avbench.features.vbench.consistency import CLIPShape, in_parts, load_clip
from avbench.storage.weights import UserProvidedProtocol, locate


@dataclass(frozen=True)
class ImagingProtocol(Protocol):
    """The settings that decide a clip's imaging quality, besides the clip."""

    name: str = "vbench-imaging"
    version: int = 1
    frames: str = "all"
    longest: int = 512
    """Pixels. A frame with a longer side is reduced to it before MUSIQ sees it."""
    reduced: str = "bilinear"
    scales: tuple[int, int] = (224, 384)
    """Pixels of the longer side of the two resized pictures that MUSIQ sees beside the frame itself."""
    resize: str = "bicubic"
    antialias: bool = False
    patch: int = 32
    output: str = "mean, hundredths"
    weights: str = "musiq-spaq"
    weights_sha256: str = ""
    precision: str = "float32"
    notes: Notes = noted(
        reduced="The sides are rounded down, as in VBench's mode 'longer', its default.",
        resize="The aspect ratio is kept, and the sides are rounded.",
        output="The mean over frames of MUSIQ's score, divided by 100.",
        source="VBench, vbench/imaging_quality.py",
    )


@dataclass(frozen=True)
class AestheticProtocol(Protocol):
    """The settings that decide a clip's aesthetic quality, besides the clip."""

    name: str = "vbench-aesthetic"
    version: int = 1
    frames: str = "all"
    size: int = 224
    """Pixels of the short side after resizing, and of the square in the middle."""
    resize: str = "bicubic, centre crop"
    antialias: bool = False
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    deviation: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    output: str = "mean, tenths"
    weights: str = "clip-vit-l14-openai"
    weights_sha256: str = ""
    head: str = "laion-aesthetic-linear"
    head_sha256: str = ""
    precision: str = "float32"
    notes: Notes = noted(
        output="The mean over frames of the predictor's score, divided by 10.",
        source="VBench, vbench/aesthetic_quality.py and clip_transform of vbench/utils.py",
    )


@dataclass(frozen=True)
class MUSIQShape:
    """The shape of MUSIQ; the defaults are the published ones."""

    width: int = 384
    hidden: int = 1152
    depth: int = 14
    heads: int = 6
    grid: int = 10
    """Places along each side of the table of positions."""
    channels: int = 64
    """Of the convolution that reads a patch."""


class ImagingQuality:
    """The feature ``vbench-imaging``. The constructor raises InputError if the weights are missing or do not fit."""

    protocol = UserProvidedProtocol(ImagingProtocol())
    shape = MUSIQShape()
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        network = loaded(MUSIQ(self.shape), ImagingProtocol.weights, "the MUSIQ checkpoint")
        self._network = network.to(self._device)

    def __call__(self, clip: Clip) -> dict[str, float]:
        """``quality``: about 0...1, higher is better."""
        # Few at once: a frame of 512 × 512 pixels becomes 449 patches, whose maps are large.
        return {"quality": float(in_parts(self.scores, clip.frames, 4).mean(dtype=np.float64) / 100)}

    @exact()
    def scores(self, frames: np.ndarray) -> np.ndarray:
        """MUSIQ's score of each of ``[frames, height, width, 3]`` uint8, about 0...100."""
        x = planes(frames, self._device)
        sides, longest = x.shape[2:], self.protocol.longest
        if max(sides) > longest:
            smaller = [int(longest / max(sides) * side) for side in sides]
            x = resize(x, smaller, InterpolationMode.BILINEAR, antialias=False)
        return self._network(x / 255).cpu().numpy()


class AestheticQuality:
    """The feature ``vbench-aesthetic``. The constructor raises InputError if weights are missing or do not fit."""

    protocol = UserProvidedProtocol(AestheticProtocol())
    shape = CLIPShape(embedding=768, patch=14, width=1024, depth=24, text_width=768, text_heads=12)  # OpenAI's ViT-L/14
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        head = nn.Linear(self.shape.embedding, 1)
        self._head = loaded(head, AestheticProtocol.head, "the head of the aesthetic predictor").to(self._device)
        self._network = load_clip(self.shape, locate(AestheticProtocol.weights)).to(self._device)

    def __call__(self, clip: Clip) -> dict[str, float]:
        """``quality``: about 0...1, higher is better."""
        return {"quality": float(in_parts(self.scores, clip.frames).mean(dtype=np.float64) / 10)}

    @exact()
    def scores(self, frames: np.ndarray) -> np.ndarray:
        """The predictor's score of each of ``[frames, height, width, 3]`` uint8, about 0...10."""
        seen = self.protocol
        x = resize(planes(frames, self._device), [seen.size], InterpolationMode.BICUBIC, antialias=seen.antialias)
        x = normalize(center_crop(x, [seen.size]) / 255, list(seen.mean), list(seen.deviation))
        return self._head(functional.normalize(self._network.encode_image(x), dim=-1))[:, 0].cpu().numpy()


class MUSIQ(nn.Module):
    """``[frames, 3, height, width]`` in 0...1 → ``[frames]``; parameters have the names of pyiqa's checkpoints.

    A frame is seen at its own size and resized to each of the protocol's scales. Every picture is cut into patches,
    each of which a small residual network turns into one token. A token knows the picture's scale, and its place by a
    table that is stretched over the picture.
    """

    def __init__(self, shape: MUSIQShape) -> None:
        super().__init__()
        self.settings = ImagingProtocol()
        self.conv_root = StandardisedConv(3, shape.channels, 7, stride=2)
        self.gn_root = nn.GroupNorm(32, shape.channels, eps=1e-6)
        self.block1 = Bottleneck(shape.channels, 4 * shape.channels)
        self.embedding = nn.Linear(4 * shape.channels * (self.settings.patch // 4) ** 2, shape.width)
        self.transformer_encoder = Encoder(shape, len(self.settings.scales) + 1)
        self.head = nn.Linear(shape.width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The score of each frame."""
        x, side = 2 * x - 1, max(x.shape[2:])
        resized = [
            functional.interpolate(x, [round(each * scale / side) for each in x.shape[2:]], mode=self.settings.resize)
            for scale in self.settings.scales
        ]
        tokens = [self._tokens(picture, scale) for scale, picture in enumerate((*resized, x))]
        return self.head(self.transformer_encoder(torch.cat(tokens, dim=1)))[:, 0]

    def _tokens(self, x: torch.Tensor, scale: int) -> torch.Tensor:
        """``[frames, patches, width]``: row by row."""
        count, patch = len(x), self.settings.patch
        x = padded(x, patch, patch)
        rows, columns = x.shape[2] // patch, x.shape[3] // patch
        x = x.unflatten(3, (columns, patch)).unflatten(2, (rows, patch)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        x = functional.relu(self.gn_root(self.conv_root(x)))
        x = self.block1(functional.max_pool2d(padded(x, 3, 2), 3, 2))
        # The matrix was trained in JAX, where channels are the last axis.
        x = self.embedding(x.permute(0, 2, 3, 1).flatten(1)).unflatten(0, (count, rows * columns))
        return self.transformer_encoder.placed(x, rows, columns, scale)


def padded(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """``[..., height, width]`` with zeros around it as TensorFlow's SAME has them: the odd one right and below."""
    width, height = (
        max(0, -(-side // stride) * stride - stride + kernel - side) for side in (x.shape[-1], x.shape[-2])
    )
    return functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


class StandardisedConv(nn.Conv2d):
    """A convolution, padded as by `padded`, each of whose filters is used with mean 0 and deviation 1."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1) -> None:
        super().__init__(before, after, kernel, stride, bias=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``[patches, before, height, width]`` → ``[patches, after, ...]``."""
        deviation, mean = torch.std_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / (deviation + 1e-5)
        return functional.conv2d(padded(input, self.kernel_size[0], self.stride[0]), weight, None, self.stride)


class Bottleneck(nn.Module):
    """A residual block of three convolutions, whose shortcut is a fourth."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        sizes = {
            "1": (before, before, 1),
            "2": (before, before, 3),
            "3": (before, after, 1),
            "_proj": (before, after, 1),
        }
        for name, size in sizes.items():
            self.add_module(f"conv{name}", StandardisedConv(*size))
            self.add_module(f"gn{name}", nn.GroupNorm(32, size[1], eps=1e-4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[patches, before, height, width]`` → ``[patches, after, height, width]``."""
        shortcut = self._normed("_proj", x)
        for name in "12":
            x = functional.relu(self._normed(name, x))
        return functional.relu(self._normed("3", x) + shortcut)

    def _normed(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return self.get_submodule(f"gn{name}")(self.get_submodule(f"conv{name}")(x))


class Encoder(nn.Module):
    """MUSIQ's transformer: ``[frames, tokens, width]`` → ``[frames, width]``, the normalised class token."""

    def __init__(self, shape: MUSIQShape, scales: int) -> None:
        super().__init__()
        self.grid = shape.grid
        places = nn.Parameter(torch.zeros(1, shape.grid**2, shape.width))
        self.posembed_input = nn.ParameterDict({"position_emb": places})
        self.scaleembed_input = nn.ParameterDict({"scale_emb": nn.Parameter(torch.zeros(scales, shape.width))})
        self.cls = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.encoder_norm = nn.LayerNorm(shape.width, eps=1e-6)
        self.transformer = nn.ModuleDict({f"encoderblock_{n}": EncoderBlock(shape) for n in range(shape.depth)})

    def placed(self, x: torch.Tensor, rows: int, columns: int, scale: int) -> torch.Tensor:
        """The tokens of a picture of ``rows`` × ``columns`` patches, each with its place and the picture's scale."""
        row, column = (torch.arange(count, device=x.device) * self.grid // count for count in (rows, columns))
        place = (row[:, None] * self.grid + column).flatten()
        return x + self.posembed_input["position_emb"][0, place] + self.scaleembed_input["scale_emb"][scale]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The class token after the last block."""
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        for block in self.transformer.values():
            x = block(x)
        return self.encoder_norm(x[:, 0])


class EncoderBlock(nn.Module):
    """Attention, then a perceptron, each after a layer norm and with a residual connection."""

    def __init__(self, shape: MUSIQShape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attention = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value", "out")})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, shape.hidden), "fc2": nn.Linear(shape.hidden, width)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[frames, tokens, width]`` → the same."""
        y = self.norm1(x)
        query, key, value = (
            self.attention[name](y).unflatten(2, (self.heads, -1)).transpose(1, 2) for name in ("query", "key", "value")
        )
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.attention["out"](attended)
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))
