"""Clips with a green square for a face, and a detector of such faces in YuNet's format.

``tests/golden/green_faces.onnx`` has YuNet's inputs and outputs for frames of 160×128 pixels. It finds one face: the
middle of all pixels whose green exceeds 200, and the root of their number as its side. It was written by
``torch.onnx.export``, once.
"""

from pathlib import Path

import numpy as np

from avbench.core import Audio, Clip

DETECTOR = Path(__file__).parent / "golden" / "green_faces.onnx"

SMALLER = {"netcnnlip.0.weight": 40, "netcnnaud.0.weight": 20}
"""Layers that see large numbers."""


def talking(seed, *, frames=60, side=113, rate=16000, until=None):
    """A face that moves to the right, whose mouth and voice are noise. From frame `until` on it is away."""
    random = np.random.RandomState(seed)
    shown = random.randint(0, 60, (frames, 128, 160, 3)).astype(np.uint8)
    for number, frame in enumerate(shown[:until]):
        left = 3 + number // 3
        frame[5 : 5 + side, left : left + side] = 40, 250, 90
        frame[80:100, left + 30 : left + 80] = random.randint(0, 200, (20, 50, 3))
    wave = random.uniform(0.02, 0.3, frames).repeat(rate // 25) * random.uniform(-1, 1, frames * rate // 25)
    return Clip(shown, 25, Audio(wave[None].astype(np.float32), rate))


def syncnet_state(shapes):
    """Random weights of these shapes, name → array, in which no layer is lost in another."""
    random, state = np.random.RandomState(0), {}
    for name, shape in sorted(shapes.items()):
        value = np.asarray(random.standard_normal(shape))
        if len(shape) > 1:
            value = value * 1.5 / np.sqrt(np.prod(shape[1:])) / SMALLER.get(name, 1)
        elif name.endswith("running_var"):
            value = 1 + 0.1 * np.abs(value)
        elif name.endswith("num_batches_tracked"):
            continue
        else:
            value = 0.1 * value + name.endswith("weight")
        state[name] = value.astype(np.float32)
    return state
