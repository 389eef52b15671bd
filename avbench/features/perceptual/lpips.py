"""Computes how different frames look, by LPIPS v0.1: three nets, and three meanings that must not be mixed up.

- *consecutive*: each frame of a clip and the next. The clip against itself, so no reference; band.
- *reference*: each frame and the same frame of the reference clip of that prompt. Fidelity, where a clip is meant to be
  like that one (same first frame, same seed); for text alone it measures diversity or drift instead.
- *seeds*: each frame and the same frame of the prompt's clips under other seeds. Diversity; band.

The networks are those of the `lpips` package, whose wheel ships the linear heads; the convolutions, which the package
would download from elsewhere, come from the weights ``lpips-alex`` and ``lpips-vgg``, which hold the heads as well (the
two copies must be equal), and those of SqueezeNet from the user (torchvision's file; no number of it was checked).
AlexNet is the metric; VGG was meant for optimisation; values of different nets cannot be compared.
"""

import hashlib
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import torch

from avbench.core import Clip, InputError, Notes, NotMeasurable, Protocol, Value, noted
from avbench.features.networks import exact, filled
from avbench.features.table import Requires
from avbench.storage.pickles import read_arrays, read_state_dict
from avbench.storage.weights import WEIGHTS, UserProvidedProtocol, locate

MIN_SIDE = {"alex": 31, "vgg": 16, "squeeze": 17}
"""Pixels; in a smaller frame a pooling has nothing to pool."""

_BATCH = 4  # Frames at a time: on a CPU faster than the whole clip, and memory does not grow with its length.


@dataclass(frozen=True)
class LPIPSProtocol(Protocol):
    """What decides a clip's LPIPS besides the clip."""

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
    """Of the `lpips` wheel's weights/v0.1 for this net."""
    precision: str = "float32"
    notes: Notes = noted(meaning="Each frame of a clip and the next.")


@dataclass(frozen=True)
class PairedLPIPSProtocol(LPIPSProtocol):
    """The same, and which reference clips there were."""

    reference_clips: str = ""
    """sha256 over the keys and hashes of all of them."""


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
    """The protocol of a net's consecutive frames, or of its ``reference`` or ``seeds``."""
    kind = PairedLPIPSProtocol if meaning == "reference" else LPIPSProtocol
    name = "-".join(part for part in ("lpips", net, meaning) if part)
    protocol = kind(name, net=net, **_NETS[net])
    if meaning:
        protocol = replace(protocol, meaning=meaning, notes={"meaning": _MEANINGS[meaning]})
    return UserProvidedProtocol(protocol) if net == "squeeze" else protocol


class LPIPS:
    """Distances between frames by one net; the features are below.

    Raises InputError when built where weights are missing or the heads are not those of LPIPS v0.1.
    """

    protocol = _protocol("alex")

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)
        network = _network(self.protocol)
        self._network = network.to(self.device, memory_format=torch.channels_last)
        self._heads = [head.model[-1].weight.detach().reshape(-1) for head in network.lins]

    @torch.inference_mode()
    def consecutive(self, frames: np.ndarray) -> np.ndarray:
        """LPIPS [time - 1] of each of ``[time, height, width, 3]`` uint8 frames and the next, each seen once."""
        self._require_size(frames)
        pairs = []
        last: list[torch.Tensor] = []
        for layers in self._features(frames):
            joined = [torch.cat((old, new)) for old, new in zip(last, layers, strict=True)] if last else layers
            pairs.append(self._distances([x[:-1] for x in joined], [x[1:] for x in joined]))
            last = [x[-1:] for x in layers]
        return np.concatenate(pairs)

    @torch.inference_mode()
    def between(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """LPIPS [clips, clips, time] of frames of the same place in several arrays of uint8 frames, each seen once."""
        if len(shapes := {frames.shape for frames in clips}) > 1:
            msg = f"LPIPS compares frames of one shape; these have {' and '.join(map(str, sorted(shapes)))}"
            raise InputError(msg)
        self._require_size(clips[0])
        parts = []
        for layers in zip(*(self._features(frames) for frames in clips), strict=True):
            part = np.zeros((len(clips), len(clips), len(layers[0][0])))
            for a, b in itertools.combinations(range(len(clips)), 2):
                part[a, b] = part[b, a] = self._distances(layers[a], layers[b])
            parts.append(part)
        return np.concatenate(parts, axis=2)

    def _features(self, frames: np.ndarray) -> Iterator[list[torch.Tensor]]:
        """Batches of frames as layers of features [frames, channel, height, width] of length 1 per place."""
        for start in range(0, len(frames), _BATCH):
            batch = torch.from_numpy(np.array(frames[start : start + _BATCH])).to(self.device)
            x = batch.permute(0, 3, 1, 2).float() / 127.5 - 1
            with exact():
                layers = self._network.net(self._network.scaling_layer(x))
            yield [lpips.normalize_tensor(layer) for layer in layers]

    def _distances(self, a: list[torch.Tensor], b: list[torch.Tensor]) -> np.ndarray:
        # The head is linear, so the mean over the picture may be taken first: one product a pair, not one a place.
        layers = [(x - y).square().mean(dim=(2, 3)) @ head for x, y, head in zip(a, b, self._heads, strict=True)]
        return torch.stack(layers).sum(dim=0).cpu().numpy()

    def _require_size(self, frames: np.ndarray) -> None:
        height, width = frames.shape[1:3]
        net = self.protocol.net
        if min(height, width) < (least := MIN_SIDE[net]):
            msg = (
                f"LPIPS with net {net!r} needs frames of at least {least}x{least} pixels and these are {width}x{height}"
            )
            raise NotMeasurable(msg)


class ConsecutiveLPIPS(LPIPS):
    """The feature ``lpips-alex``: LPIPS of each frame and the next, and its mean over the clip."""

    def __call__(self, clip: Clip) -> dict[str, Value]:
        """``per_pair`` [time - 1] and its ``mean``. Raises NotMeasurable for a single frame or tiny frames."""
        if len(clip.frames) < 2:
            msg = "LPIPS between consecutive frames needs 2 frames and this clip has 1"
            raise NotMeasurable(msg)
        per_pair = self.consecutive(clip.frames)
        return {"mean": float(per_pair.mean(dtype=np.float64)), "per_pair": per_pair}


class ReferenceLPIPS(LPIPS):
    """The feature ``lpips-alex-reference``: LPIPS of each frame and the same frame of the reference clip."""

    requires = Requires.REFERENCE_CLIP
    protocol = _protocol("alex", "reference")

    def __call__(self, clip: Clip, reference: Clip) -> dict[str, Value]:
        """``per_frame`` [time] and its ``mean``. Raises NotMeasurable where the clips are not of one form."""
        _require_one_form([clip, reference], "the clip and its reference")
        per_frame = self.between([clip.frames, reference.frames])[0, 1]
        return {"mean": float(per_frame.mean()), "per_frame": per_frame.astype(np.float32)}


class SeedsLPIPS(LPIPS):
    """The feature ``lpips-alex-seeds``: LPIPS of each frame and the same of the prompt's clips under other seeds."""

    requires = Requires.SEEDS
    protocol = _protocol("alex", "seeds")

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Value]]:
        """For each clip ``per_frame`` [time], the mean over the others, and its ``mean``.

        Raises NotMeasurable for a single clip, or where the clips are not of one form.
        """
        if len(clips) < 2:
            msg = "diversity is between a prompt's clips under several seeds, and there is one (see --seeds)"
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
    forms = sorted({f"{len(clip.frames)} frames of {clip.width}x{clip.height} at {clip.fps} fps" for clip in clips})
    if len(forms) > 1:
        msg = f"LPIPS compares frame by frame, and {which} are not of one form: {', '.join(forms)}"
        raise NotMeasurable(msg)


def _network(protocol: LPIPSProtocol) -> torch.nn.Module:
    """The lpips package's network with the trunk filled in and the heads checked."""
    heads_file = Path(lpips.__file__).parent / "weights" / f"v{protocol.lpips_version}" / f"{protocol.net}.pth"
    if not heads_file.is_file() or hashlib.sha256(heads_file.read_bytes()).hexdigest() != protocol.heads_sha256:
        msg = f"the installed lpips package does not hold the known v{protocol.lpips_version} heads ({heads_file})"
        raise InputError(msg)
    # The package builds its trunk through torchvision's old arguments (warnings), fills it at random before it is
    # overwritten here (the caller's random state must not move), and reads its heads with torch.load's defaults.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net=protocol.net, version=protocol.lpips_version, pnet_rand=True, verbose=False)
    fill = _fill_from_torchvision if protocol.net == "squeeze" else _fill_from_flax
    fill(network, protocol.weights)
    return network.requires_grad_(False).eval()


def _fill_from_flax(network: torch.nn.Module, weight: str) -> None:
    """The weights that a package ships: convolutions in their order, and the heads, which must be the package's."""
    arrays = read_arrays(locate(weight))
    trunk_name = {"lpips-alex": "AlexNet_0", "lpips-vgg": "VGG16_0"}[weight]
    trunk = {}
    for k, layer in enumerate(name for name in network.net.state_dict() if name.endswith(".weight")):
        kernel = arrays.pop(f"{trunk_name}/Conv_{k}/kernel")
        trunk[layer] = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
        trunk[layer.replace("weight", "bias")] = torch.from_numpy(arrays.pop(f"{trunk_name}/Conv_{k}/bias").copy())
    network.net.load_state_dict(trunk, strict=True)
    for i, head in enumerate(network.lins):
        ours = arrays.pop(f"NetLinLayer_{i}/Conv_0/kernel").ravel()
        if not np.array_equal(ours, head.model[-1].weight.detach().numpy().ravel()):
            msg = f"head {i} of the lpips package differs from that of weight {weight!r}"
            raise InputError(msg)
    if arrays:
        msg = f"weight {weight!r} holds {min(arrays)}, which this network does not have"
        raise InputError(msg)


def _fill_from_torchvision(network: torch.nn.Module, weight: str) -> None:
    """The user's file of torchvision's classifier, whose feature layers have the numbers of the lpips trunk."""
    state = read_state_dict(locate(weight))
    trunk = {name: f"features.{name.partition('.')[2]}" for name in network.net.state_dict()}
    if missing := sorted(set(trunk.values()) - set(state)):
        msg = f"weight {weight!r} lacks {missing[0]}; it is not torchvision's file of this network"
        raise InputError(msg)
    if over := sorted(name for name in set(state) - set(trunk.values()) if not name.startswith("classifier.")):
        msg = f"weight {weight!r} holds {over[0]}, which this network does not have"
        raise InputError(msg)
    filled(network.net, {name: state[source] for name, source in trunk.items()}, f"weight {weight!r}")
