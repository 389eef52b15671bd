"""How much does each frame differ from the next to the eye? LPIPS v0.1 with AlexNet, between consecutive frames.

The network is that of the `lpips` package, whose wheel ships the linear heads; the AlexNet convolutions, which the
package would download from elsewhere, come from the weight ``lpips-alex``. That weight holds the heads as well, and
the two copies must be equal.

This is not a comparison with a reference clip: it is the clip against itself, one frame later.
"""

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lpips
import numpy as np
import torch

from avbench.core import Clip, InputError, NotMeasurable, Protocol
from avbench.weights import WEIGHTS, locate, read_arrays

MIN_SIDE = 31
"""Pixels; AlexNet's second pooling has nothing to pool in a smaller frame."""

_BATCH = 4  # Frames at a time: on a CPU faster than the whole clip, and memory does not grow with its length.
# Checkpoint's convolution → the lpips network's layer.
_TRUNK = {"Conv_0": "slice1.0", "Conv_1": "slice2.3", "Conv_2": "slice3.6", "Conv_3": "slice4.8", "Conv_4": "slice5.10"}


@dataclass(frozen=True)
class LPIPSProtocol(Protocol):
    """What decides a clip's LPIPS besides the clip."""

    name: str = "lpips-alex"
    version: int = 1
    net: str = "alex"
    lpips_version: str = "0.1"
    meaning: str = "consecutive frames"
    value_range: str = "-1...1"
    size: str = "native"
    weights: str = "lpips-alex"
    weights_sha256: str = WEIGHTS["lpips-alex"].sha256
    heads_sha256: str = "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
    """Of the `lpips` wheel's weights/v0.1/alex.pth."""
    precision: str = "float32"


class ConsecutiveLPIPS:
    """The feature ``lpips-alex``: LPIPS of each frame and the next, and its mean over the clip.

    Raises InputError when built where weights are missing or the heads are not those of LPIPS v0.1.
    """

    protocol = LPIPSProtocol()

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)
        network = _network(self.protocol)
        self._network = network.to(self.device, memory_format=torch.channels_last)
        self._heads = [head.model[-1].weight.detach().reshape(-1) for head in network.lins]

    def __call__(self, clip: Clip) -> dict[str, float | np.ndarray]:
        """``per_pair`` [time - 1] and its ``mean``. Raises NotMeasurable for a single frame or tiny frames."""
        if len(clip.frames) < 2:
            msg = "LPIPS between consecutive frames needs 2 frames and this clip has 1"
            raise NotMeasurable(msg)
        _require_size(clip.frames)
        return self.consecutive(clip.frames)

    @torch.inference_mode()
    def consecutive(self, frames: np.ndarray) -> dict[str, float | np.ndarray]:
        """Measure ``[time, height, width, 3]`` uint8 frames; each goes through the network once."""
        pairs = []
        last: list[torch.Tensor] = []
        for layers in self._features(frames):
            joined = [torch.cat((old, new)) for old, new in zip(last, layers, strict=True)] if last else layers
            pairs.append(self._distances([x[:-1] for x in joined], [x[1:] for x in joined]))
            last = [x[-1:] for x in layers]
        per_pair = np.concatenate(pairs)
        return {"mean": float(per_pair.mean(dtype=np.float64)), "per_pair": per_pair}

    @torch.inference_mode()
    def distance(self, frames_a: np.ndarray, frames_b: np.ndarray) -> np.ndarray:
        """LPIPS [time] of frames with frames of the same place in another array; both uint8, of one shape."""
        if frames_a.shape != frames_b.shape:
            msg = f"LPIPS compares frames of one shape; these have {frames_a.shape} and {frames_b.shape}"
            raise InputError(msg)
        _require_size(frames_a)
        both = zip(self._features(frames_a), self._features(frames_b), strict=True)
        return np.concatenate([self._distances(a, b) for a, b in both])

    def _features(self, frames: np.ndarray) -> Iterator[list[torch.Tensor]]:
        """Batches of frames as five layers of features [frames, channel, height, width] of length 1 per place."""
        for start in range(0, len(frames), _BATCH):
            batch = torch.from_numpy(np.array(frames[start : start + _BATCH])).to(self.device)
            x = batch.permute(0, 3, 1, 2).float() / 127.5 - 1
            # On a GPU, TF32 would move the values in the third digit.
            with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
                layers = self._network.net(self._network.scaling_layer(x))
            yield [lpips.normalize_tensor(layer) for layer in layers]

    def _distances(self, a: list[torch.Tensor], b: list[torch.Tensor]) -> np.ndarray:
        # The head is linear, so the mean over the picture may be taken first: one product a pair, not one a place.
        layers = [(x - y).square().mean(dim=(2, 3)) @ head for x, y, head in zip(a, b, self._heads, strict=True)]
        return torch.stack(layers).sum(dim=0).cpu().numpy()


def _require_size(frames: np.ndarray) -> None:
    height, width = frames.shape[1:3]
    if min(height, width) < MIN_SIDE:
        msg = f"LPIPS with AlexNet needs frames of at least {MIN_SIDE}x{MIN_SIDE} pixels and these are {width}x{height}"
        raise NotMeasurable(msg)


def _network(protocol: LPIPSProtocol) -> torch.nn.Module:
    """The lpips package's network with the trunk filled in and the heads checked."""
    heads_file = Path(lpips.__file__).parent / "weights" / f"v{protocol.lpips_version}" / f"{protocol.net}.pth"
    if not heads_file.is_file() or hashlib.sha256(heads_file.read_bytes()).hexdigest() != protocol.heads_sha256:
        msg = f"the installed lpips package does not hold the known v{protocol.lpips_version} heads ({heads_file})"
        raise InputError(msg)
    arrays = read_arrays(locate(protocol.weights))
    # The package builds its trunk through torchvision's old arguments (warnings), fills it at random before it is
    # overwritten here (the caller's random state must not move), and reads its heads with torch.load's defaults.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net=protocol.net, version=protocol.lpips_version, pnet_rand=True, verbose=False)
    trunk = {}
    for conv, layer in _TRUNK.items():
        kernel = arrays.pop(f"AlexNet_0/{conv}/kernel")
        trunk[f"{layer}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
        trunk[f"{layer}.bias"] = torch.from_numpy(arrays.pop(f"AlexNet_0/{conv}/bias").copy())
    network.net.load_state_dict(trunk, strict=True)
    for i, head in enumerate(network.lins):
        ours = arrays.pop(f"NetLinLayer_{i}/Conv_0/kernel").ravel()
        if not np.array_equal(ours, head.model[-1].weight.detach().numpy().ravel()):
            msg = f"head {i} of the lpips package differs from that of weight {protocol.weights!r}"
            raise InputError(msg)
    if arrays:
        msg = f"weight {protocol.weights!r} holds {min(arrays)}, which this network does not have"
        raise InputError(msg)
    return network.requires_grad_(False).eval()
