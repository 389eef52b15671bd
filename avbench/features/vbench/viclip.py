"""Measures whether a clip as a whole shows its caption, by ViCLIP: VBench's overall consistency and temporal style.

The value (Huang et al., 2024; vbench/overall_consistency.py, temporal_style.py at 45e79ec) is the cosine of ViCLIP's
vectors (Wang et al., 2024) of eight frames and of the caption. Both dimensions are this one number; temporal style is
its mean over VBench's prompts for temporal style.

The clip is divided into eight equal parts, and the frame in the middle of each is seen. A shorter clip is seen whole,
and its last frame again until there are eight, as in VBench. Frames are resized without antialiasing and rounded to 8
bits; the square in the middle is seen. The caption is cut after 32 tokens, about 25 words: most captions of recent
models are longer, and the feature counts those that were cut.

The towers are open_clip's transformers. The user provides the weights. On random weights the value agrees with VBench's
ViCLIP to 1e-6. No number of the real weights was checked.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision.transforms.functional import InterpolationMode, center_crop, normalize, resize

from avbench.core import Clip, Notes, Prompt, Protocol, noted
from avbench.features.networks import exact, loaded
from avbench.features.table import Requires
from avbench.storage.weights import UserProvidedProtocol


@dataclass(frozen=True)
class ViCLIPProtocol(Protocol):
    """The settings that decide a clip's agreement with its caption, besides the clip and the caption."""

    name: str = "viclip"
    version: int = 1
    frames: int = 8
    """The middle ones of so many equal parts."""
    size: int = 224
    """Pixels of the short side after resizing, and of the square in the middle."""
    resize: str = "bicubic, centre crop"
    antialias: bool = False
    bits: int = 8
    """Of the resized frames."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    deviation: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    text: str = "video caption"
    tokens: int = 32
    output: str = "cosine"
    weights: str = "viclip-l14-internvid"
    weights_sha256: str = ""
    precision: str = "float32, cosine float64"
    notes: Notes = noted(
        frames="A clip with fewer frames is seen whole, and its last frame again until there are enough.",
        text="open_clip's tokenizer; the caption is cut after `tokens`, which include the marks of start and end.",
        source="VBench, vbench/overall_consistency.py",
    )


@dataclass(frozen=True)
class ViCLIPShape:
    """The shape of ViCLIP; the defaults are the published ones."""

    embedding: int = 768
    patch: int = 14
    width: int = 1024
    depth: int = 24
    heads: int = 16
    text_width: int = 768
    text_heads: int = 12
    text_depth: int = 12
    vocabulary: int = 49408


class ViCLIP:
    """The feature ``viclip``. Values of one clip:

    - ``similarity``: cosine of clip and video caption.
    - ``truncated``: 1 if the caption's end was cut off, else 0.
    - ``temporal_style``: 1 if the prompt is one of VBench's for temporal style (its tag ``dimensions``), else 0.

    The constructor raises InputError if the weights are missing or do not fit.
    """

    protocol = UserProvidedProtocol(ViCLIPProtocol())
    requires = Requires.PROMPT
    reads_captions = True
    shape = ViCLIPShape()
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        from open_clip import SimpleTokenizer

        self._device = torch.device(device)
        network = loaded(Network(self.shape), ViCLIPProtocol.weights, "the ViCLIP checkpoint")
        self._network = network.to(self._device)
        self._tokenizer = SimpleTokenizer(context_length=self.protocol.tokens)

    @exact()
    def __call__(self, clip: Clip, prompt: Prompt) -> dict[str, float]:
        """Measure one clip."""
        shown = self._network.vision_encoder(self._seen(clip.frames)[None]).double()
        text = self._network.text_encoder(self._tokenizer([prompt.video_caption]).to(self._device)).double()
        dimensions = prompt.tags.get("dimensions")
        return {
            "similarity": functional.cosine_similarity(shown, text).item(),
            # The marks of start and end are tokens too.
            "truncated": float(len(self._tokenizer.encode(prompt.video_caption)) + 2 > self.protocol.tokens),
            "temporal_style": float(isinstance(dimensions, list | tuple | str) and "temporal_style" in dimensions),
        }

    def _seen(self, frames: np.ndarray) -> torch.Tensor:
        """``[3, 8, 224, 224]``."""
        seen = self.protocol
        x = torch.from_numpy(frames[middles(len(frames), seen.frames)]).to(self._device).permute(0, 3, 1, 2)
        # Of 8-bit frames torchvision returns 8 bits.
        x = resize(x, [seen.size], InterpolationMode.BICUBIC, antialias=seen.antialias)
        x = normalize(center_crop(x, [seen.size]).float() / 255, list(seen.mean), list(seen.deviation))
        return x.transpose(0, 1)


def middles(length: int, count: int) -> list[int]:
    """The middle frame of each of `count` equal parts, rounded as VBench does; the last is repeated for short clips."""
    ends = np.linspace(0, length, min(count, length) + 1).astype(int)
    places = (ends[:-1] + ends[1:] - 1) // 2
    return [*places.tolist(), *[int(places[-1])] * (count - len(places))]


class Network(nn.Module):
    """ViCLIP; parameters have the names of its checkpoint."""

    def __init__(self, shape: ViCLIPShape) -> None:
        super().__init__()
        from open_clip.transformer import QuickGELU, TextTransformer

        self.vision_encoder = VideoTower(shape)
        self.text_encoder = TextTransformer(
            ViCLIPProtocol.tokens,
            shape.vocabulary,
            shape.text_width,
            shape.text_heads,
            shape.text_depth,
            output_dim=shape.embedding,
            act_layer=QuickGELU,
        )
        self.temp = nn.Parameter(torch.zeros(()))  # of training; it is in the checkpoint


class VideoTower(nn.Module):
    """``[clips, 3, frames, height, width]`` → ``[clips, embedding]``: a transformer over the patches of all frames."""

    def __init__(self, shape: ViCLIPShape) -> None:
        super().__init__()
        from open_clip.transformer import QuickGELU, Transformer

        width, patch, seen = shape.width, (1, shape.patch, shape.patch), ViCLIPProtocol()
        self.conv1 = nn.Conv3d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((seen.size // shape.patch) ** 2 + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, seen.frames, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, shape.depth, shape.heads, act_layer=QuickGELU)
        self.proj = nn.Parameter(torch.zeros(width, shape.embedding))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The projected class token."""
        x = self.conv1(x).flatten(3).permute(0, 2, 3, 1)  # [clips, frames, patches, width]
        x = x + self.positional_embedding[1:] + self.temporal_positional_embedding[0, :, None]
        mark = (self.class_embedding + self.positional_embedding[0]).expand(len(x), 1, -1)
        x = self.transformer(self.ln_pre(torch.cat([mark, x.flatten(1, 2)], dim=1)))
        return self.ln_post(x[:, 0]) @ self.proj
