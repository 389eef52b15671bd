"""Measures the technical and the aesthetic quality of a clip, and both together, by DOVER.

DOVER (Wu et al., 2023) was trained on people's opinions of real videos from the internet. It has a branch for
distortions, such as noise, blur and jitter, and one for content and composition. Each value is the sigmoid of a
branch's output after the authors' constants, and the overall value that of their weighted sum, as in
evaluate_a_set_of_videos.py at f1ddc96 of VQAssessment/DOVER. No value is a probability, or comparable with another
network's.

- Technical: three windows of 32 frames, every second one, in the middle of each third of the clip. A frame becomes a
  mosaic of 7 × 7 fragments of 32 × 32 pixels at their own resolution, each from the middle of its part of the frame.
- Aesthetic: 32 frames, in the middle of as many equal parts, stretched to 224 × 224 pixels without antialiasing, as
  torchvision did at the authors' time, and rounded to 8 bits.

One difference: the authors place windows, frames and fragments at random, so that their numbers change from call to
call. Here all stand in the middle of their ranges. As in their code, a window that ends after the clip continues at its
start: the technical value of clips of fewer than about 187 frames is that of a loop with a cut. Clips of fewer than 32
frames are refused: their code would show the aesthetic branch only the first. So are frames of less than 224 pixels a
side, of which it would enlarge a corner. The frame rate is not read.

The network is written anew with the names of its checkpoint, DOVER.pth. The user provides the weights. On random
weights of the published size the outputs of both branches agree with those of the authors' code to 1e-6, with its
random numbers replaced by the middle of their ranges. No number of the real weights was checked.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.functional import InterpolationMode, resize

from avbench.core import Clip, Notes, Protocol, noted
from avbench.features.limits import require_frames, require_sides
from avbench.features.networks import exact, filled
from avbench.features.video.dover_network import FRAGMENTS, FRAMES, SIDE, Network, Shape
from avbench.storage.reading.pickles import read_state_dict
from avbench.storage.weights import UserProvidedProtocol, locate


@dataclass(frozen=True)
class DOVERProtocol(Protocol):
    """The settings that decide a clip's quality, besides the clip."""

    name: str = "dover"
    version: int = 1
    frames: int = FRAMES
    """Of a window, and of the aesthetic branch."""
    interval: int = 2
    """Frames from one frame of a window to the next."""
    windows: int = 3
    fps: str = "native"
    size: int = SIDE
    """Pixels of the sides of what both branches see."""
    fragments: int = FRAGMENTS
    """Along each side of a mosaic."""
    placed: str = "middle"
    resize: str = "bilinear, stretched"
    antialias: bool = False
    bits: int = 8
    """Of the resized frames."""
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    deviation: tuple[float, float, float] = (58.395, 57.12, 57.375)
    technical: tuple[float, float] = (0.1107, 0.07355)
    """Mean and deviation of the technical branch's output."""
    aesthetic: tuple[float, float] = (-0.08285, 0.03774)
    """Mean and deviation of the aesthetic branch's output."""
    weight: float = 0.6104
    """Of the technical branch in the sum; the rest is the aesthetic one's."""
    output: str = "sigmoid"
    weights: str = "dover"
    weights_sha256: str = ""
    precision: str = "float32"
    notes: Notes = noted(
        placed="Windows, frames and fragments, which the authors place at random.",
        source="evaluate_a_set_of_videos.py and dover.yml of VQAssessment/DOVER at f1ddc96",
    )


class DOVER:
    """The feature ``dover``. Values of one clip, all 0...1, higher is better:

    - ``technical``: few distortions.
    - ``aesthetic``: content and composition.
    - ``overall``: both.

    The constructor raises InputError if the weights are missing or do not fit.
    """

    protocol = UserProvidedProtocol(DOVERProtocol())
    shape = Shape()
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        read = read_state_dict(locate(DOVERProtocol.weights))
        used = {name: value for name, value in read.items() if not name.endswith("relative_position_index")}
        self._network = filled(Network(self.shape), used, "the DOVER checkpoint").to(self._device)

    def __call__(self, clip: Clip) -> dict[str, float]:
        """Measure one clip. Raises NotMeasurable if it has too few frames or too small ones."""
        seen = self.protocol
        scales = zip(self.outputs(clip), (seen.technical, seen.aesthetic), strict=True)
        technical, aesthetic = ((output - mean) / deviation for output, (mean, deviation) in scales)
        overall = seen.weight * technical + (1 - seen.weight) * aesthetic
        shares = torch.tensor([technical, aesthetic, overall], dtype=torch.float64).sigmoid().tolist()
        return dict(zip(("technical", "aesthetic", "overall"), shares, strict=True))

    @exact()
    def outputs(self, clip: Clip) -> tuple[float, float]:
        """The mean outputs of the technical and the aesthetic branch. Raises NotMeasurable as a call does."""
        count, protocol = len(clip.frames), self.protocol
        require_frames(clip.frames, protocol.frames, "DOVER needs")
        require_sides(clip.frames, protocol.size, "DOVER needs")
        windows, spread = windows_of(count, protocol), spread_over(count, protocol)
        mosaics, resized = {}, {}
        for place in sorted({*windows.flat, *spread}):  # a stored clip is decoded once
            frame = np.asarray(clip.frames[place])
            if place in windows:
                mosaics[place] = mosaic(frame, protocol)
            if place in spread:
                resized[place] = self._resized(frame)
        technical = self._network.technical(self._input([[mosaics[place] for place in one] for one in windows]))
        aesthetic = self._network.aesthetic(self._input([[resized[place] for place in spread]]))
        return technical.item(), aesthetic.item()

    def _resized(self, frame: np.ndarray) -> np.ndarray:
        """``[224, 224, 3]`` uint8."""
        x = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None]
        size = [self.protocol.size] * 2
        # Of 8-bit frames torchvision returns 8 bits.
        return (
            resize(x, size, InterpolationMode.BILINEAR, antialias=self.protocol.antialias)[0].permute(1, 2, 0).numpy()
        )

    def _input(self, windows: list[list[np.ndarray]]) -> torch.Tensor:
        """Frames of 224 × 224 → ``[windows, 3, 32, 224, 224]``."""
        mean, deviation = (
            torch.tensor(values, device=self._device) for values in (self.protocol.mean, self.protocol.deviation)
        )
        x = torch.from_numpy(np.array(windows)).to(self._device)
        return ((x - mean) / deviation).permute(0, 4, 1, 2, 3)


def windows_of(count: int, protocol: DOVERProtocol) -> np.ndarray:
    """The frames of each window, ``[windows, frames]``, of `count`; after the last frame comes the first."""
    part = count // protocol.windows
    starts = part * np.arange(protocol.windows) + max(part - protocol.frames * protocol.interval, 0) // 2
    return (starts[:, None] + protocol.interval * np.arange(protocol.frames)) % count


def spread_over(count: int, protocol: DOVERProtocol) -> list[int]:
    """The frames that the aesthetic branch sees of `count`: one of each of 32 equal parts."""
    part = count // protocol.frames
    return [part * place + max(part - protocol.interval, 0) // 2 for place in range(protocol.frames)]


def mosaic(frame: np.ndarray, protocol: DOVERProtocol) -> np.ndarray:
    """The fragments of ``[height, width, 3]`` side by side, ``[224, 224, 3]``."""
    rows, columns = (_fragment_places(side, protocol) for side in frame.shape[:2])
    return frame[rows[:, None], columns]


def _fragment_places(side: int, protocol: DOVERProtocol) -> np.ndarray:
    """Which of `side` rows or columns the fragments take, ``[224]``."""
    part, length = side // protocol.fragments, protocol.size // protocol.fragments
    starts = part * np.arange(protocol.fragments) + (part - length) // 2
    return (starts[:, None] + np.arange(length)).ravel()
