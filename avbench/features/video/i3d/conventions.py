"""Computes I3D logits as other codes do: their preprocessing of a clip, on the weights that avbench has.

Each class follows one code from a clip's frames to the network's input; its protocol lists every step. They are written
from the public sources named there, and keep the sources' peculiarities, so that avbench can compute those codes' FVD
beside its own. The divisor and the epsilon of the distance are settings of the metrics.

Weights: all classes here use the TensorFlow-Hub weights (``i3d-k400``). The TorchScript file that most of these codes
load agrees with them (universome/fvd-comparison measured features 2.6e-4 apart). Whether cd-fvd's file of the same
network agrees was not measured. user_weights.py reads both files, if the user provides them.
"""

import hashlib
import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from avbench.core import Clip, NotMeasurable, beside_limit
from avbench.features.limits import require_frames
from avbench.features.networks import planes
from avbench.features.video.i3d import I3DLogits, I3DProtocol
from avbench.features.video.i3d.resize import interpolated

SIDE = 224


@dataclass(frozen=True)
class ConventionProtocol(I3DProtocol):
    """I3D's protocol with the steps of another code."""

    steps: tuple[str, ...] = ()
    """The steps from decoded frames (0...255) to the network's input."""


_SCALED = ("bilinear 224", "2x/255-1")
_LOGITS = I3DProtocol().notes["output"]


def _notes(source: str, **notes: str) -> dict[str, str]:
    return {"output": _LOGITS, "source": source, **notes}


class StyleGANV(I3DLogits):
    """``logits`` of the first 16 frames, as for generated clips; ``logits_random`` of any 16, as for real ones.

    The start of the random window is derived from the clip's own pixels, so that a row depends on the clip alone.
    """

    protocol = ConventionProtocol(
        name="i3d-stylegan-v",
        frame_choice="first / random",
        antialias=False,
        steps=_SCALED,
        notes=_notes(
            "universome/stylegan-v, src/metrics",
            frame_choice="Of generated clips the first; of real ones a random window, seeded by the frames' sha256.",
        ),
    )

    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """Measure one clip. Raises NotMeasurable if it has fewer than 16 frames."""
        first = super().__call__(clip)["logits"]
        window = _random_window(clip.frames, self.protocol.frames)
        return {"logits": first, "logits_random": first if window.start == 0 else self.logits(clip.frames[window])}


class CDFVD(I3DLogits):
    """``logits`` of a random window of 16 frames, after the loader's crop to a square of 256."""

    protocol = ConventionProtocol(
        name="i3d-cd-fvd",
        frame_choice="random",
        aspect="centre crop",
        antialias=False,
        steps=("x/255", "bilinear antialias 256", "centre crop 256", "8-bit, down", *_SCALED),
        notes=_notes(
            "cd-fvd 0.1.1, load_videos of a folder at its default resolution",
            frame_choice="One random window, seeded by the frames' sha256.",
        ),
    )

    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """Measure one clip. Raises NotMeasurable if it has fewer than 16 frames."""
        require_frames(clip.frames, self.protocol.frames, "this protocol needs")
        x = planes(clip.frames[_random_window(clip.frames, self.protocol.frames)]) / 255
        return {"logits": self.seen(_stretched((_cropped(x, 256, antialias=True) * 255).floor()) / 127.5 - 1)}


class FVDComparison(I3DLogits):
    """``logits`` of the first 16 frames, after the resize of the TensorFlow original."""

    protocol: I3DProtocol = ConventionProtocol(
        name="i3d-fvd-comparison",
        antialias=False,
        resize="tensorflow-1 bilinear",
        steps=("tensorflow-1 bilinear 224", "2x/255-1"),
        notes=_notes(
            "google-research frechet_video_distance, which universome/fvd-comparison reproduces",
            resize="TensorFlow 1's: no half-pixel centres, corners not aligned.",
        ),
    )

    def logits(self, frames: np.ndarray, count: int | None = None) -> np.ndarray:
        """Logits [400] of the first `count`, or all, of ``[time, height, width, 3]`` uint8 frames."""
        chosen = itertools.islice(frames, count)
        return self.seen(torch.cat([_legacy_bilinear(planes(frame[None])) for frame in chosen]) / 127.5 - 1)


class CommonMetrics(I3DLogits):
    """``logits`` of all frames, resized with their aspect ratio kept."""

    protocol: I3DProtocol = ConventionProtocol(
        name="i3d-common-metrics",
        frames=10,
        frame_choice="all",
        aspect="centre crop",
        antialias=False,
        steps=("x/255", "bilinear 224", "centre crop 224", "(x-0.5)*2"),
        notes=_notes(
            "JunyaoHu/common_metrics_on_video_quality, method styleganv",
            frame_choice="All frames; a clip needs `frames` of them.",
        ),
    )

    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """Measure one clip. Raises NotMeasurable if it has fewer than 10 frames."""
        require_frames(clip.frames, self.protocol.frames, "this protocol needs")
        return {"logits": self.seen((_cropped(planes(clip.frames) / 255, SIDE, antialias=False) - 0.5) * 2)}


class ASVA(I3DLogits):
    """``logits`` of the middle 2 seconds, as for generated clips, and ``logits_windows`` [3, 400], as for real ones.

    Times are compared here with a tolerance of 1e-6 frames. The source adds sixths of a second as floats and compares
    them with the reader's times, so it may skip a frame that falls exactly on one of them.
    """

    protocol: I3DProtocol = ConventionProtocol(
        name="i3d-asva",
        frames=12,
        frame_choice="middle / spread",
        fps="6",
        aspect="centre crop",
        resize="bicubic",
        steps=("x/255", "centre square", "bilinear antialias 256", "bicubic antialias 224", "2x-1"),
        notes=_notes(
            "lzhangbj/ASVA, avgen/evaluations",
            frame_choice="Of generated clips the middle 2 s; of real ones 3 windows of 2 s, evenly from start to end.",
            fps="For each sixth of a second the next frame, none twice; at the end the last frame within 2 1/12 s.",
        ),
    )

    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """Measure one clip. Raises NotMeasurable if it is shorter than 2 seconds."""
        needed, seconds = self.protocol.frames / 6, len(clip.frames) / float(clip.fps)
        if seconds < needed - 1e-9:
            msg = f"ASVA takes windows of {needed:g} s and this clip has {beside_limit(seconds, needed)} s"
            raise NotMeasurable(msg)
        starts = np.linspace(0, seconds - needed, 3)
        windows = np.stack([self._window(clip, start) for start in starts])
        return {"logits": windows[1], "logits_windows": windows}

    def _window(self, clip: Clip, start: float) -> np.ndarray:
        fps, count = float(clip.fps), self.protocol.frames
        last = min(int((start + (count + 0.5) / 6) * fps + 1e-6), len(clip.frames) - 1)
        chosen: list[int] = []
        for k in range(count):
            at = math.ceil((start + k / 6) * fps - 1e-6)
            chosen.append(min(max(at, chosen[-1] + 1 if chosen else 0), last))
        x = planes(clip.frames[chosen]) / 255
        side = min(x.shape[2:])
        x = interpolated(_centre(x, side), (256, 256), "bilinear", antialias=True)
        return self.seen(interpolated(x, (SIDE, SIDE), "bicubic", antialias=True) * 2 - 1)


class FastVideo(I3DLogits):
    """``logits`` of all frames."""

    protocol: I3DProtocol = ConventionProtocol(
        name="i3d-fastvideo",
        frames=10,
        frame_choice="all",
        antialias=False,
        resized_as="float32, scaled",
        steps=("x/255", "2x-1", "bilinear 224"),
        notes=_notes(
            "hao-ai-lab/FastVideo, fastvideo/eval/metrics/common/fvd",
            frame_choice="All frames; a clip needs `frames` of them.",
            resized_as="Frames are scaled to the value range, and then resized as float32.",
        ),
    )

    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """Measure one clip. Raises NotMeasurable if it has fewer than 10 frames."""
        require_frames(clip.frames, self.protocol.frames, "this protocol needs")
        return {"logits": self.seen(_stretched(planes(clip.frames) / 255 * 2 - 1))}


class JavisBench(I3DLogits):
    """``logits`` of 24 frames spread over the clip, at half the contrast that the network was trained for.

    The source maps 0...1 as if it were -1...1, so the network's input is in 0...1. This defect is kept on purpose,
    because the source's published numbers have it.
    """

    protocol: I3DProtocol = ConventionProtocol(
        name="i3d-javisbench",
        frames=24,
        frame_choice="evenly spread",
        aspect="black letterbox",
        value_range="0...1",
        steps=("x/255", "bilinear antialias 224", "black letterbox 224", "(x+1)*127.5", "8-bit, down", "(x/255-0.5)*2"),
        notes=_notes(
            "JavisVerse/JavisDiT, eval/javisbench",
            frame_choice="Spread evenly from first to last, rounded; a shorter clip repeats some frames.",
            value_range="A defect of the source, kept on purpose: the network expects -1...1.",
        ),
    )

    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        """Measure one clip. Raises NotMeasurable if it has a single frame."""
        require_frames(clip.frames, 2, "this protocol needs")
        # torch's linspace, because halves are rounded and numpy's differ in the last bit.
        chosen = torch.linspace(0, len(clip.frames) - 1, self.protocol.frames).round().long().numpy()
        x = _letterboxed(planes(clip.frames[chosen]) / 255)
        return {"logits": self.seen((((x + 1) * 127.5).floor() / 255 - 0.5) * 2)}


def _random_window(frames: np.ndarray, length: int) -> slice:
    hashed = hashlib.sha256()
    for frame in frames:
        hashed.update(np.ascontiguousarray(frame).data)
    seed = int.from_bytes(hashed.digest()[:8], "big")
    start = int(np.random.default_rng(seed).integers(len(frames) - length + 1))
    return slice(start, start + length)


def _stretched(x: torch.Tensor) -> torch.Tensor:
    return interpolated(x, (SIDE, SIDE), "bilinear", antialias=False)


def _centre(x: torch.Tensor, side: int) -> torch.Tensor:
    top, left = ((length - side) // 2 for length in x.shape[2:])
    return x[:, :, top : top + side, left : left + side]


def _cropped(x: torch.Tensor, side: int, *, antialias: bool) -> torch.Tensor:
    """Resize the short side to `side` and the other, rounded up, to match; return the square in the middle."""
    height, width = x.shape[2:]
    scale = side / min(height, width)
    size = (side, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), side)
    return _centre(interpolated(x, size, "bilinear", antialias=antialias), side)


def _letterboxed(x: torch.Tensor) -> torch.Tensor:
    height, width = (max(1, SIDE * length // max(x.shape[2:])) for length in x.shape[2:])
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    pads = (left, SIDE - width - left, top, SIDE - height - top)
    return functional.pad(interpolated(x, (height, width), "bilinear", antialias=True), pads)


def _legacy_bilinear(x: torch.Tensor) -> torch.Tensor:
    """tf.compat.v1.image.resize_bilinear to 224x224: output k is read at k * length / 224, clamped at the end."""
    for axis in (2, 3):
        length = x.shape[axis]
        at = torch.arange(SIDE, dtype=torch.float32) * (length / SIDE)
        low = at.floor().long()
        high = (low + 1).clamp(max=length - 1)
        share = (at - low).reshape([-1 if axis == k else 1 for k in range(4)])
        x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
    return x
