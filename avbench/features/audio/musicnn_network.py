"""Defines the network MTT_musicnn, and reads its weights from the data file of its TensorFlow checkpoint."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from avbench.features.networks import filled


class Network(nn.Module):
    """``[patches, 1, bands, frames]`` → ``[patches, 200]``."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(1, eps=1e-3)
        self.timbral = nn.ModuleList(
            Layer(nn.Conv2d(1, 204, (height, 7), padding=(0, 3)), nn.BatchNorm2d(204, eps=1e-3)) for height in (38, 67)
        )
        self.temporal = nn.ModuleList(
            Layer(nn.Conv2d(1, 51, (1, length)), nn.BatchNorm2d(51, eps=1e-3)) for length in (128, 64, 32)
        )
        self.middle = nn.ModuleList(
            Layer(nn.Conv1d(width, 64, 7, padding=3), nn.BatchNorm1d(64, eps=1e-3)) for width in (561, 64, 64)
        )
        self.pooled = nn.BatchNorm1d(1506, eps=1e-3)
        self.dense = Layer(nn.Linear(1506, 200), nn.BatchNorm1d(200, eps=1e-3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of each patch."""
        front = torch.cat([self._front(patch) for patch in self.first(x).split(1)])  # one by one, for the memory
        one = self.middle[0](front)
        two = self.middle[1](one) + one
        three = self.middle[2](two) + two
        x = torch.cat((front, one, two, three), dim=1)
        x = torch.stack((x.amax(dim=2), x.mean(dim=2)), dim=2).flatten(1)
        return self.dense(self.pooled(x))

    def _front(self, x: torch.Tensor) -> torch.Tensor:
        """Timbre and rhythm, ``[patches, 561, frames]``: the highest of all bands."""
        # Where a filter's length is even, TensorFlow pads one more frame at the end.
        rhythms = [functional.pad(x, ((length - 1) // 2, length // 2)) for length in (128, 64, 32)]
        heard = [layer(x) for layer in self.timbral]
        heard += [layer(padded) for layer, padded in zip(self.temporal, rhythms, strict=True)]
        return torch.cat([each.amax(dim=2) for each in heard], dim=1)


class Layer(nn.Module):
    """A convolution or matrix, then a rectifier, then a normalisation."""

    def __init__(self, affine: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.affine, self.norm = affine, norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output for one input."""
        return self.norm(functional.relu(self.affine(x)))


_AFFINE = {
    "timbral.0.affine": (81176, 78728),
    "timbral.1.affine": (734792, 732344),
    "temporal.0.affine": (1883516, 1882904),
    "temporal.1.affine": (1962464, 1961852),
    "temporal.2.affine": (2002244, 2001632),
    "middle.0.affine": (2022596, 2021828),
    "middle.1.affine": (5039300, 5038532),
    "middle.2.affine": (5384132, 5383364),
    "dense.affine": (5730596, 5728196),
}
"""Where weight and bias begin in the data file, in bytes."""

_NORMS = {
    "first": (12, 0, 24, 28),
    "timbral.0.norm": (2480, 32, 4928, 5744),
    "timbral.1.norm": (15408, 12960, 17856, 18672),
    "temporal.0.norm": (20100, 19488, 20712, 20916),
    "temporal.1.norm": (21732, 21120, 22344, 22548),
    "temporal.2.norm": (23364, 22752, 23976, 24180),
    "middle.0.norm": (25152, 24384, 25920, 26176),
    "middle.1.norm": (27200, 26432, 27968, 28224),
    "middle.2.norm": (29248, 28480, 30016, 30272),
    "pooled": (48600, 30528, 66672, 72696),
    "dense.norm": (8960, 6560, 11360, 12160),
}
"""Where weight, bias, running mean and running variance begin in the data file, in bytes."""


def offsets() -> dict[str, int]:
    """Where each of the network's arrays begins in the data file, in bytes."""
    parts = [(_AFFINE, ("weight", "bias")), (_NORMS, ("weight", "bias", "running_mean", "running_var"))]
    return {
        f"{layer}.{name}": place
        for table, names in parts
        for layer, places in table.items()
        for name, place in zip(names, places, strict=True)
    }


def load(path: Path) -> Network:
    """The network with the weights of a data file whose hash was checked."""
    network = Network()
    data, state = path.read_bytes(), network.state_dict()
    for name, place in offsets().items():
        # TensorFlow keeps the axes in the opposite order: time, band, in, out.
        shape = tuple(state[name].shape)[::-1]
        values = np.frombuffer(data, "<f4", int(np.prod(shape)), place).reshape(shape)
        state[name] = torch.from_numpy(np.array(values.T, order="C"))
    return filled(network, state, f"{path}")
