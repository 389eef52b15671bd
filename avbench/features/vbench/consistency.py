"""Measures whether a clip keeps its subject and background (VBench) and whether it shows its caption (CLIP).

Consistency (Huang et al., 2024; vbench/subject_consistency.py, background_consistency.py): each frame becomes one
vector, by DINO ViT-B/16 for the subject and by CLIP ViT-B/32 for the background. A frame's score is the mean of its
cosine to the first frame and its cosine to the previous frame, negative ones counted as 0. A clip's score is the mean
over all frames except the first. VBench averages over frames of all clips, which equals the mean over clips if all have
the same length. A frozen clip has the highest possible value, 1: compare two sets of clips by it, and do not maximise
it.

Frames are resized without antialiasing, as VBench does with decoded video, and bicubic values beyond 0...255 are kept.
DINO gets the whole frame, whatever its aspect ratio, with its table of positions stretched to it; CLIP gets the square
in the middle. VBench runs CLIP in half precision where there is a GPU; here it runs in float32 everywhere.

Text alignment follows CLIPScore (Hessel et al., 2021): the cosine of each frame and the caption, averaged over frames.
CLIPScore itself is 2.5 max(cosine, 0). VBench's overall consistency, which uses ViCLIP, is a different number.

With random weights DINO's features agree with those of Facebook's class to 3e-6, CLIP's
are open_clip's own, and both numbers agree with VBench's functions to 2e-7. No number of the real weights was checked.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision.transforms.functional import InterpolationMode, center_crop, normalize, resize

from avbench.core import Clip, Notes, Prompt, Protocol, noted
from avbench.features.devices import in_batches
from avbench.features.limits import require_frames
from avbench.features.networks import exact, filled, loaded, planes, read_as
from avbench.features.table import Requires
from avbench.storage.weights import UserProvidedProtocol, locate

_AT_ONCE = 16
"""Frames that go through a network together."""


_OUTPUT = "The mean over frames from the second on of (max(0, cos to first) + max(0, cos to previous)) / 2."


@dataclass(frozen=True)
class ConsistencyProtocol(Protocol):
    """The settings that decide a clip's consistency, besides the clip."""

    frames: str = "all"
    fps: str = "native"
    size: int = 224
    """Pixels of the short side after resizing."""
    resize: str = ""
    antialias: bool = False
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)
    output: str = "cosines, first-and-previous"
    weights: str = ""
    weights_sha256: str = ""
    precision: str = "float32, cosines float64"
    notes: Notes = noted(output=_OUTPUT)


@dataclass(frozen=True)
class TextAlignmentProtocol(Protocol):
    """The settings that decide a clip's text alignment, besides the clip and the caption."""

    name: str = "text-alignment"
    version: int = 1
    frames: str = "all"
    resize: str = "open_clip ViT-B-32"
    text: str = "video caption"
    tokens: int = 77
    output: str = "mean cosine"
    weights: str = "clip-vit-b32-openai"
    weights_sha256: str = ""
    precision: str = "float32, cosines float64"
    notes: Notes = noted(
        resize="open_clip's own transform: 8 bits, bicubic with antialias, short side to 224, centre crop.",
        text="open_clip's tokenizer; the caption is cut after `tokens`, which include the marks of start and end.",
        output="The mean over frames of the cosine of frame and caption, without the factor 2.5; negative ones count.",
    )


@dataclass(frozen=True)
class Shape:
    """The shape of DINO; the defaults are those of ViT-B/16."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 16
    grid: int = 14
    """Patches along each side of the square that the network was trained on."""


@dataclass(frozen=True)
class CLIPShape:
    """The shape of CLIP; the defaults are those of OpenAI's ViT-B/32."""

    embedding: int = 512
    side: int = 224
    patch: int = 32
    width: int = 768
    depth: int = 12
    text_width: int = 512
    text_heads: int = 8
    text_depth: int = 12
    tokens: int = 77


class SubjectConsistency:
    """The feature ``vbench-subject``. The constructor raises InputError if the weights are missing or do not fit."""

    protocol = UserProvidedProtocol(
        ConsistencyProtocol(
            name="vbench-subject",
            version=1,
            resize="bilinear, uncropped",
            notes={
                "resize": "The aspect ratio is kept, and nothing is cut off.",
                "output": _OUTPUT,
                "source": "VBench, vbench/subject_consistency.py and dino_transform of vbench/utils.py",
            },
            weights="dino-vitb16",
        )
    )
    shape = Shape()
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._network = loaded(Network(self.shape), "dino-vitb16", "the DINO checkpoint").to(self._device)

    def __call__(self, clip: Clip) -> dict[str, float]:
        """``consistency`` in 0...1. Raises NotMeasurable if the clip has fewer than 2 frames."""
        require_frames(clip.frames, 2, "consistency needs")
        return {"consistency": consistency(in_parts(self.features, clip.frames))}

    @exact()
    def features(self, frames: np.ndarray) -> np.ndarray:
        """Features ``[frames, 768]`` of ``[frames, height, width, 3]`` uint8."""
        x = planes(frames, self._device)
        x = resize(x, [self.protocol.size], InterpolationMode.BILINEAR, antialias=False)
        return self._network(_scaled(x, self.protocol)).cpu().numpy()


class BackgroundConsistency:
    """The feature ``vbench-background``. The constructor raises InputError if weights are missing or do not fit."""

    protocol = UserProvidedProtocol(
        ConsistencyProtocol(
            name="vbench-background",
            version=1,
            resize="bicubic, centre crop",
            mean=(0.48145466, 0.4578275, 0.40821073),
            deviation=(0.26862954, 0.26130258, 0.27577711),
            notes={
                "resize": "The aspect ratio is kept.",
                "output": _OUTPUT,
                "source": "VBench, vbench/background_consistency.py and clip_transform of vbench/utils.py",
            },
            weights="clip-vit-b32-openai",
        )
    )
    shape = CLIPShape()
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._network = load_clip(self.shape, locate("clip-vit-b32-openai")).to(self._device)

    def __call__(self, clip: Clip) -> dict[str, float]:
        """``consistency`` in 0...1. Raises NotMeasurable if the clip has fewer than 2 frames."""
        require_frames(clip.frames, 2, "consistency needs")
        return {"consistency": consistency(in_parts(self.features, clip.frames))}

    @exact()
    def features(self, frames: np.ndarray) -> np.ndarray:
        """Features ``[frames, 512]`` of ``[frames, height, width, 3]`` uint8."""
        side = self.protocol.size
        x = resize(planes(frames, self._device), [side], InterpolationMode.BICUBIC, antialias=False)
        return self._network.encode_image(_scaled(center_crop(x, [side]), self.protocol)).cpu().numpy()


class TextAlignment:
    """The feature ``text-alignment``, which compares a clip with its caption. Values of one clip:

    - ``similarity``: mean over frames of the cosine of frame and video caption.
    - ``truncated``: 1 if the caption is longer than CLIP's 77 tokens, so that its end was cut off, else 0.

    The constructor raises InputError if the weights are missing or do not fit.
    """

    protocol = UserProvidedProtocol(TextAlignmentProtocol())
    requires = Requires.PROMPT
    reads_captions = True
    shape = CLIPShape()
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        from open_clip import SimpleTokenizer, image_transform

        self._device = torch.device(device)
        self._network = load_clip(self.shape, locate("clip-vit-b32-openai")).to(self._device)
        self._seen: Any = image_transform(self.shape.side, is_train=False)
        self._tokenizer = SimpleTokenizer(context_length=self.shape.tokens)

    def __call__(self, clip: Clip, prompt: Prompt) -> dict[str, float]:
        """Measure one clip."""
        caption = prompt.video_caption
        cosines = _unit(in_parts(self.features, clip.frames)) @ _unit(self.text(caption))[0]
        # The marks of start and end are tokens too.
        truncated = len(self._tokenizer.encode(caption)) + 2 > self.shape.tokens
        return {"similarity": float(cosines.mean()), "truncated": float(truncated)}

    @exact()
    def features(self, frames: np.ndarray) -> np.ndarray:
        """Features ``[frames, 512]`` of ``[frames, height, width, 3]`` uint8."""
        from PIL import Image

        x = torch.stack([self._seen(Image.fromarray(frame)) for frame in frames])
        return self._network.encode_image(x.to(self._device)).cpu().numpy()

    @exact()
    def text(self, caption: str) -> np.ndarray:
        """Features ``[1, 512]`` of a caption."""
        return self._network.encode_text(self._tokenizer([caption]).to(self._device)).cpu().numpy()


def consistency(features: np.ndarray) -> float:
    """VBench's rule on ``[frames, width]``: how similar the later frames are to the first and to the previous frame."""
    unit = _unit(features)
    first = unit[1:] @ unit[0]
    previous = np.einsum("fw,fw->f", unit[1:], unit[:-1])
    return float((np.maximum(first, 0) + np.maximum(previous, 0)).mean() / 2)


def _unit(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def in_parts(features: Any, frames: np.ndarray, at_once: int = _AT_ONCE) -> np.ndarray:
    """What a function of ``[frames, height, width, 3]`` finds in batches of `at_once` frames (`in_batches`)."""
    return np.concatenate(in_batches(lambda part: features(frames[part]), len(frames), at_once))


def _scaled(x: torch.Tensor, protocol: ConsistencyProtocol) -> torch.Tensor:
    return normalize(x / 255, list(protocol.mean), list(protocol.deviation))


def load_clip(shape: CLIPShape, path: Path) -> Any:
    """open_clip's CLIP with OpenAI's weights: a ``.safetensors`` in open_clip's names, or OpenAI's own TorchScript.

    Raises InputError that names a tensor which is missing, unexpected or of the wrong shape. Only the tensors of the
    TorchScript program are used; the program is never called.
    """
    from open_clip import CLIP

    vision = {"image_size": shape.side, "layers": shape.depth, "width": shape.width, "patch_size": shape.patch}
    text = {"context_length": shape.tokens, "layers": shape.text_depth, "heads": shape.text_heads}
    network = CLIP(shape.embedding, vision, {**text, "width": shape.text_width}, quick_gelu=True)  # type: ignore
    return filled(network, _clip_tensors(path), "the CLIP checkpoint")


def _clip_tensors(path: Path) -> dict[str, torch.Tensor]:
    with read_as("safetensors or OpenAI's TorchScript file of CLIP", path):
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.jit.load(path, map_location="cpu").state_dict()
    # OpenAI's file is in half precision and also holds three numbers that describe the model.
    about = ("input_resolution", "context_length", "vocab_size")
    return {name: value.float() for name, value in state.items() if name not in about}


class Network(nn.Module):
    """DINO's vision transformer: ``[frames, 3, height, width]`` → ``[frames, width]``; names as in its checkpoint."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, shape.width, shape.patch, stride=shape.patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.grid**2 + 1, shape.width))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The normalised class token after the last block. Incomplete patches at the right and bottom are dropped."""
        x = self.patch_embed["proj"](x)
        grid = self._positions(x.shape[2], x.shape[3])
        tokens = (x + grid).flatten(2).transpose(1, 2)
        mark = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat((mark, tokens), dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])

    def _positions(self, rows: int, columns: int) -> torch.Tensor:
        """``[1, width, rows, columns]``: the table stretched by DINO's factors, which add a tenth of a patch."""
        side = self.shape.grid
        table = self.pos_embed[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if (rows, columns) == (side, side):
            return table
        return functional.interpolate(
            table, scale_factor=((rows + 0.1) / side, (columns + 0.1) / side), mode="bicubic", align_corners=False
        )


class Block(nn.Module):
    """A transformer block: attention, then a perceptron, each after a layer norm and with a residual connection."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[frames, tokens, width]`` → the same."""
        qkv = self.attn["qkv"](self.norm1(x)).unflatten(2, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.attn["proj"](attended)
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))
