"""Features with random weights of the published sizes, for what they cost where the weights are not to be had.

CPU seconds do not depend on a weight's value. Not here: ``whisper``, whose answer, and so its cost, does; PE-AV, whose
published size is not known; ``physics-judge``, whose seven billion weights do not fit; and the I3D files of other
codes, which cost what the other features of I3D do.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from torch import nn

from benchmarks import gpu


def built(name: str) -> Any | None:
    """The feature on the CPU, or None where its network is not here."""
    if name not in NETWORKS:
        return None
    return gpu.invented(name, "cpu", NETWORKS[name])


def _ready(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False)


def _videomae(feature: Any) -> None:
    from avbench.features.video.videomae import Network, Shape

    feature._network = _ready(Network(Shape(), feature.protocol.frames, feature.protocol.size))


def _vjepa2(feature: Any) -> None:
    from transformers import VJEPA2Config, VJEPA2Model

    # As facebook/vjepa2-vith-fpc64-256; the predictor is not run.
    config = VJEPA2Config(hidden_size=1280, num_attention_heads=16, num_hidden_layers=32, pred_num_hidden_layers=1)
    feature._model = _ready(VJEPA2Model(config))


def _dover(feature: Any) -> None:
    from avbench.features.video.dover_network import Network

    feature._network = _ready(Network(feature.shape))


def _synchformer(feature: Any) -> None:
    from avbench.features.sync.synchformer import Network, Shape

    feature._network = _ready(Network(Shape()))


def _vbench_raft(feature: Any) -> None:
    gpu.INVENTED["flow-raft"](feature, 0)


def _musiq(feature: Any) -> None:
    from avbench.features.vbench.quality import MUSIQ

    feature._network = _ready(MUSIQ(feature.shape))


def _aesthetic(feature: Any) -> None:
    feature._network, feature._head = _clip(feature), _ready(nn.Linear(feature.shape.embedding, 1))


def _clip(feature: Any) -> nn.Module:
    from open_clip import CLIP

    shape = feature.shape
    vision = {"image_size": shape.side, "layers": shape.depth, "width": shape.width, "patch_size": shape.patch}
    text = {"context_length": shape.tokens, "layers": shape.text_depth, "heads": shape.text_heads}
    return _ready(CLIP(shape.embedding, vision, {**text, "width": shape.text_width}, quick_gelu=True))  # type: ignore


def _text_alignment(feature: Any) -> None:
    from open_clip import SimpleTokenizer, image_transform

    feature._network, feature._seen = _clip(feature), image_transform(feature.shape.side, is_train=False)
    feature._tokenizer = SimpleTokenizer(context_length=feature.shape.tokens)


def _viclip(feature: Any) -> None:
    from open_clip import SimpleTokenizer

    from avbench.features.vbench.viclip import Network

    feature._network = _ready(Network(feature.shape))
    feature._tokenizer = SimpleTokenizer(context_length=feature.protocol.tokens)


def _clap_text(feature: Any) -> None:
    class Words:
        """In the tokenizer's place: as many tokens as words."""

        def __call__(self, text: str, **_: Any) -> Any:
            import torch
            from transformers import BatchEncoding

            tokens = torch.full((1, len(text.split()) + 2), 5)
            return BatchEncoding({"input_ids": tokens, "attention_mask": tokens * 0 + 1})

    gpu.INVENTED["clap"](feature, 0)
    feature._tokenizer = Words()


def _audiobox(feature: Any) -> None:
    from avbench.features.audio import aesthetics

    feature._network = _ready(aesthetics.Network({}, aesthetics._Config({}, proj_num_layer=5, proj_ln=True)))
    scale = type("Scale", (), {"mean": 0.0, "std": 1.0})
    feature._scales = [scale] * len(aesthetics.AXES)


def _imagebind(feature: Any) -> None:
    from avbench.features.audio.imagebind import Network

    feature._network = _ready(Network(feature.shape))


def _syncnet(feature: Any) -> None:
    """The detector is a stand-in that answers at once; YuNet takes some milliseconds per frame."""
    import numpy as np

    from avbench.features.sync.syncnet import Network

    feature._network = _ready(Network(feature.shape))
    feature._detector = type("Detector", (), {"boxes": lambda _, frame: np.array([[60.0, 60, 180, 180]])})()


NETWORKS: dict[str, Callable[[Any], None]] = {
    **{
        name: functools.partial(gpu.INVENTED[name], blocks=12)
        for name in (
            *("vggish", "panns-cnn14", "clap", "vbench-subject", "vbench-background", "vbench-smoothness"),
            "flow-raft",
        )
    },
    "videomae-g-ssv2": _videomae,
    "vjepa2": _vjepa2,
    "dover": _dover,
    "synchformer": _synchformer,
    "raft-vbench": _vbench_raft,
    "vbench-imaging": _musiq,
    "vbench-aesthetic": _aesthetic,
    "text-alignment": _text_alignment,
    "viclip": _viclip,
    "clap-text-audio": _clap_text,
    "audiobox": _audiobox,
    "imagebind": _imagebind,
    "syncnet": _syncnet,
}
"""Feature → what gives it its networks."""
