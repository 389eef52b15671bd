"""Computes how different frames look, by LPIPS v0.1, with three networks and in three uses that must not be mixed up.

- *consecutive*: each frame of a clip and the next one. It needs no reference; it should match the reference's value.
- *reference*: each frame and the same frame of the reference clip of that prompt. It measures fidelity where the clip
  is meant to equal that one (same first frame, same seed). With only a text in common it measures diversity or drift.
- *seeds*: each frame and the same frame of the prompt's clips under other seeds. It measures diversity, which should
  match the reference's.

The networks are those of the `lpips` package, whose wheel ships the linear heads. The package would download the
convolutions from elsewhere; here those of AlexNet and VGG come from the weights ``lpips-alex`` and ``lpips-vgg``. These
hold the heads as well, and the two copies must be equal. Those of SqueezeNet come from torchvision's file, which is in
no package (no number computed with it was checked). AlexNet is the metric; VGG was meant for optimisation. Values of
different networks cannot be compared.
"""

import hashlib
import importlib.util
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.core import Clip, InputError, Notes, NotMeasurable, Protocol, Value, counted, noted
from avbench.features.devices import in_batches
from avbench.features.limits import require_frames, require_sides
from avbench.features.networks import exact, filled, loaded
from avbench.features.table import Requires
from avbench.storage.reading.pickles import read_arrays, read_state_dict
from avbench.storage.weights import WEIGHTS, UserProvidedProtocol, locate

if TYPE_CHECKING:
    import torch

    from avbench.features.perceptual.trunk import Trunk

MIN_SIDE = {"alex": 31, "vgg": 16, "squeeze": 17}
"""Pixels. In a smaller frame a pooling layer has no input."""

_EPSILON = 1e-10  # Added to the length by which features are divided.
_CPU_PIXELS = (
    1 << 18
)  # Of the frames that are taken at a time: what fits the cache. Memory does not grow with the clip.
_GPU_PIXELS, _GPU_FRAMES = 1 << 21, 4  # A GPU takes more, and at least so many frames.


@dataclass(frozen=True)
class LPIPSProtocol(Protocol):
    """The settings that decide a clip's LPIPS, besides the clip."""

    name: str = "lpips-alex"
    version: int = 1
    net: str = "alex"
    lpips_version: str = "0.1"
    meaning: str = "consecutive"
    value_range: str = "-1...1"
    size: str = "native"
    weights: str = "lpips-alex"
    weights_sha256: str = WEIGHTS["lpips-alex"].sha256
    heads_sha256: str = "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
    """Hash of the `lpips` wheel's weights/v0.1 file for this network."""
    precision: str = "float32"
    notes: Notes = noted(meaning="Each frame of a clip and the next.")


@dataclass(frozen=True)
class PairedLPIPSProtocol(LPIPSProtocol):
    """The same settings, and the reference clips that were used."""

    reference_clips: str = ""
    """sha256 over the keys and hashes of all reference clips."""


_MEANINGS = {
    "reference": "Each frame and the same frame of the reference clip.",
    "seeds": "Each frame and the same frame of the prompt's clips under other seeds, averaged over them.",
}


_NETS: dict[str, dict[str, str]] = {
    "alex": {},
    "vgg": {
        "weights": "lpips-vgg",
        "weights_sha256": WEIGHTS["lpips-vgg"].sha256,
        "heads_sha256": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    },
    "squeeze": {
        "weights": "squeezenet1_1",
        "weights_sha256": "",
        "heads_sha256": "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
    },
}


def _protocol(net: str, meaning: str = "") -> Any:
    """The protocol of a network for consecutive frames, or for the meaning ``reference`` or ``seeds``."""
    kind = PairedLPIPSProtocol if meaning == "reference" else LPIPSProtocol
    name = "-".join(part for part in ("lpips", net, meaning) if part)
    protocol = replace(kind(name, net=net), **_NETS[net])
    if meaning:
        protocol = replace(protocol, meaning=meaning, notes={"meaning": _MEANINGS[meaning]})
    return UserProvidedProtocol(protocol) if net == "squeeze" else protocol


class LPIPS:
    """Distances between frames by one network; the features below are built on it.

    The constructor raises InputError if weights are missing or the heads are not those of LPIPS v0.1.
    """

    protocol = _protocol("alex")
    on_gpu = True
    in_bfloat16 = True
    streams = True

    def __init__(self, device: str = "cpu", precision: str = "float32") -> None:
        import torch

        self.protocol = replace(self.protocol, precision=precision)
        self.device, self._dtype = torch.device(device), getattr(torch, precision)
        heads = _package_heads(self.protocol)
        trunk = _filled_trunk(self.protocol, heads)
        # The stubs forget memory_format.
        self._trunk = trunk.to(  # pyright: ignore[reportCallIssue]
            self.device, self._dtype, memory_format=torch.channels_last
        )
        self._heads = [torch.from_numpy(head).to(self.device) for head in heads]

    @exact()
    def consecutive(self, frames: np.ndarray) -> np.ndarray:
        """LPIPS [time - 1] of each of ``[time, height, width, 3]`` uint8 frames and the next one."""
        require_sides(frames, MIN_SIDE[self.protocol.net], f"LPIPS with net {self.protocol.net!r} needs")
        # Filled in place: small arrays that stay would be strewn over the memory that the features leave free.
        pairs = np.empty(len(frames) - 1, np.float32)
        last: list[torch.Tensor] = []

        def compare(part: slice) -> None:
            nonlocal last
            layers = self._features(frames[part])
            if last:
                pairs[part.start - 1] = self._distances(last, [x[:1] for x in layers])[0]
            pairs[part.start : part.stop - 1] = self._distances([x[:-1] for x in layers], [x[1:] for x in layers])
            last = [x[-1:] for x in layers]

        self._in_batches(compare, frames)
        return pairs

    @exact()
    def between(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """LPIPS [clips, clips, time] between the frames with the same index in several arrays of uint8 frames."""
        if len(shapes := {frames.shape for frames in clips}) > 1:
            msg = f"LPIPS compares frames of one shape; these have {' and '.join(map(str, sorted(shapes)))}"
            raise InputError(msg)
        require_sides(clips[0], MIN_SIDE[self.protocol.net], f"LPIPS with net {self.protocol.net!r} needs")
        found = np.zeros((len(clips), len(clips), len(clips[0])))

        def compare(part: slice) -> None:
            layers = [self._features(frames[part]) for frames in clips]
            for a, b in itertools.combinations(range(len(clips)), 2):
                found[a, b, part] = found[b, a, part] = self._distances(layers[a], layers[b])

        self._in_batches(compare, clips[0])
        return found

    def _in_batches(self, compare: Callable[[slice], None], frames: np.ndarray) -> None:
        pixels = frames.shape[1] * frames.shape[2]
        on_cpu = self.device.type == "cpu"
        count = max(1, _CPU_PIXELS // pixels) if on_cpu else max(_GPU_FRAMES, _GPU_PIXELS // pixels)
        in_batches(compare, len(frames), count)

    def _features(self, frames: np.ndarray) -> list["torch.Tensor"]:
        """Layers of features [frames, channel, height, width] of length 1 at each place."""
        import torch

        from avbench.features.perceptual.trunk import standardised

        layers = self._trunk(standardised(frames, self.device).to(self._dtype))
        layers = [layer.float() for layer in layers]  # distances are float32 in any precision
        return [layer.div_(torch.linalg.vector_norm(layer, dim=1, keepdim=True) + _EPSILON) for layer in layers]

    def _distances(self, a: list["torch.Tensor"], b: list["torch.Tensor"]) -> np.ndarray:
        import torch
        from torch.nn import functional

        # The head is linear, so the mean over the picture may come first: one product a pair instead of one a place.
        layers = [
            functional.mse_loss(x, y, reduction="none").mean(dim=(2, 3)) @ head
            for x, y, head in zip(a, b, self._heads, strict=True)
        ]
        return torch.stack(layers).sum(dim=0).cpu().numpy()


class ConsecutiveLPIPS(LPIPS):
    """The feature ``lpips-alex``: LPIPS of each frame and the next, and its mean over the clip."""

    def __call__(self, clip: Clip) -> dict[str, Value]:
        """``per_pair`` [time - 1] and its ``mean``. Raises NotMeasurable for a single frame or tiny frames."""
        require_frames(clip.frames, 2, "LPIPS between consecutive frames needs")
        per_pair = self.consecutive(clip.frames)
        return {"mean": float(per_pair.mean(dtype=np.float64)), "per_pair": per_pair}


class ReferenceLPIPS(LPIPS):
    """The feature ``lpips-alex-reference``: LPIPS of each frame and the same frame of the reference clip."""

    requires = Requires.REFERENCE_CLIP
    protocol = _protocol("alex", "reference")

    def __call__(self, clip: Clip, reference: Clip) -> dict[str, Value]:
        """``per_frame`` [time] and its ``mean``. Raises NotMeasurable if the clips differ in frames, size or rate."""
        _require_one_form([clip, reference], "the clip and its reference")
        per_frame = self.between([clip.frames, reference.frames])[0, 1]
        return {"mean": float(per_frame.mean()), "per_frame": per_frame.astype(np.float32)}


class SeedsLPIPS(LPIPS):
    """The feature ``lpips-alex-seeds``: LPIPS of each frame and the same frame under the prompt's other seeds."""

    requires = Requires.SEEDS
    protocol = _protocol("alex", "seeds")

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Value]]:
        """For each clip ``per_frame`` [time], averaged over the other clips, and its ``mean``.

        Raises NotMeasurable for a single clip, or if the clips differ in frames, size or rate.
        """
        if len(clips) < 2:
            msg = "diversity compares a prompt's clips under several seeds, and there is one (see seeds, --seeds)"
            raise NotMeasurable(msg)
        _require_one_form(clips, "a prompt's clips")
        per_frame = self.between([clip.frames for clip in clips]).sum(axis=1) / (len(clips) - 1)
        return [{"mean": float(row.mean()), "per_frame": row.astype(np.float32)} for row in per_frame]


class VGGConsecutive(ConsecutiveLPIPS):
    """The feature ``lpips-vgg``."""

    protocol = _protocol("vgg")


class VGGReference(ReferenceLPIPS):
    """The feature ``lpips-vgg-reference``."""

    protocol = _protocol("vgg", "reference")


class VGGSeeds(SeedsLPIPS):
    """The feature ``lpips-vgg-seeds``."""

    protocol = _protocol("vgg", "seeds")


class SqueezeConsecutive(ConsecutiveLPIPS):
    """The feature ``lpips-squeeze``."""

    protocol = _protocol("squeeze")


class SqueezeReference(ReferenceLPIPS):
    """The feature ``lpips-squeeze-reference``."""

    protocol = _protocol("squeeze", "reference")


class SqueezeSeeds(SeedsLPIPS):
    """The feature ``lpips-squeeze-seeds``."""

    protocol = _protocol("squeeze", "seeds")


def _require_one_form(clips: Sequence[Clip], which: str) -> None:
    forms = sorted(
        {f"{counted(len(clip.frames), 'frame')} of {clip.width}x{clip.height} at {clip.fps} fps" for clip in clips}
    )
    if len(forms) > 1:
        msg = f"LPIPS compares frame by frame, and {which} differ in form: {', '.join(forms)}"
        raise NotMeasurable(msg)


def _package_heads(protocol: LPIPSProtocol) -> list[np.ndarray]:
    """The linear heads [channels] of the lpips package's wheel, read without importing the package.

    Its import takes longer than measuring several clips: it brings torchvision, and plotting for its trainer.
    """
    package = importlib.util.find_spec("lpips")
    name = f"weights/v{protocol.lpips_version}/{protocol.net}.pth"
    file = Path(package.origin).parent / name if package is not None and package.origin else Path("lpips", name)
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != protocol.heads_sha256:
        msg = f"the installed lpips package does not hold the known v{protocol.lpips_version} heads ({file})"
        raise InputError(msg)
    state = read_state_dict(file)
    return [state[f"lin{i}.model.1.weight"].ravel() for i in range(len(state))]


def _filled_trunk(protocol: LPIPSProtocol, heads: Sequence[np.ndarray]) -> "Trunk":
    """The trunk with the user's file of torchvision's classifier, whose feature layers have the same names, or with a
    weight that a package ships, which holds the heads too; they must be the package's.
    """
    from torch import nn

    from avbench.features.perceptual.trunk import Trunk

    weight, trunk, state = protocol.weights, Trunk(protocol.net), {}
    if protocol.net == "squeeze":
        return loaded(trunk, weight, f"weight {weight!r}", ("classifier.",))
    arrays = read_arrays(locate(weight))
    prefix = {"lpips-alex": "AlexNet_0", "lpips-vgg": "VGG16_0"}[weight]
    convolutions = [name for name, layer in trunk.named_modules() if isinstance(layer, nn.Conv2d)]
    for k, name in enumerate(convolutions):
        state[f"{name}.weight"] = arrays.pop(f"{prefix}/Conv_{k}/kernel").transpose(3, 2, 0, 1).copy()
        state[f"{name}.bias"] = arrays.pop(f"{prefix}/Conv_{k}/bias").copy()
    for i, head in enumerate(heads):
        if not np.array_equal(arrays.pop(f"NetLinLayer_{i}/Conv_0/kernel").ravel(), head):
            msg = f"head {i} of the lpips package differs from that of weight {weight!r}"
            raise InputError(msg)
    if arrays:
        msg = f"weight {weight!r} holds {min(arrays)}, which this network does not have"
        raise InputError(msg)
    return filled(trunk, state, f"weight {weight!r}")
