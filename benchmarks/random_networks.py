"""Features with random weights of the published sizes, for what they cost where the weights are not to be had.

CPU seconds do not depend on a weight's value, but Whisper's do on the length of its answer: here it writes ten tokens.
PE-AV has the sizes that transformers names pe-av-large, but 28 layers for sound, as the published number of weights of
PE-A-Frame's large one asks for; nearly all of its time goes to the tower of frames. The judge is Qwen3-VL-2B, the
smallest that it can be: Qwen2.5-VL-7B takes 33 GB in float32. Not here: the I3D files of other codes, which cost what
the other features of I3D do.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
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


def _drawn(kind: Callable[[Any], nn.Module], config: Any) -> nn.Module:
    """A network of transformers, without its own way of drawing weights, which takes minutes."""
    from transformers.initialization import no_init_weights

    with no_init_weights():
        network = kind(config)
    for parameter in network.parameters():  # pages of memory that nobody has written are read faster
        parameter.data.uniform_(-0.02, 0.02)
    return _ready(network)


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


class Words:
    """In a tokenizer's place: as many tokens as words, and one word for whatever it is to write."""

    def __call__(self, text: str, **_: Any) -> Any:
        """Numbers of tokens."""
        import torch
        from transformers import BatchEncoding

        tokens = torch.full((1, len(text.split()) + 2), 5)
        return BatchEncoding({"input_ids": tokens, "attention_mask": tokens * 0 + 1})

    def decode(self, *_: Any, **__: Any) -> str:
        """A word."""
        return "knock"


def _clap_text(feature: Any) -> None:
    gpu.INVENTED["clap"](feature, 0)
    feature._tokenizer = Words()


def _ms_clap(feature: Any) -> None:
    from avbench.features.audio.ms_clap import Network

    class Listed(Words):
        """The same tokens as a list."""

        pad_token_id = 0

        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": super().__call__(text)["input_ids"][0].tolist()}

    feature._network, feature._tokenizer = _ready(Network(feature.shape)), Listed()


def _perception(feature: Any) -> None:
    from transformers import (
        PeAudioFeatureExtractor,
        PeAudioVideoConfig,
        PeAudioVideoModel,
        PeVideoVideoProcessor,
    )

    # The encoder of sound and frames together, with one layer here, is not run.
    both = {"num_hidden_layers": 1, "audio_config": {"model_type": "pe_audio_encoder", "num_hidden_layers": 28}}
    feature._model = _drawn(PeAudioVideoModel, PeAudioVideoConfig(audio_video_config=both))
    steps = {"do_resize": True, "do_rescale": True, "do_normalize": True, "size": {"height": 336, "width": 336}}
    reader = PeVideoVideoProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3, **steps)
    parts = {"feature_extractor": PeAudioFeatureExtractor(), "video_processor": reader, "tokenizer": Words()}
    feature._processor = SimpleNamespace(**parts)


def _whisper(feature: Any) -> None:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    # As openai/whisper-large-v3.
    tower = {"layers": 32, "attention_heads": 20, "ffn_dim": 5120}
    towers = {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in tower.items()}
    config = WhisperConfig(vocab_size=51866, num_mel_bins=128, d_model=1280, **towers)
    feature._model = _drawn(WhisperForConditionalGeneration, config)
    written: Any = feature._model.generation_config
    written.min_new_tokens = written.max_new_tokens = WRITTEN
    feature._extractor, feature._tokenizer = WhisperFeatureExtractor(feature_size=128), Words()
    feature._normalised, feature._words = str.lower, lambda prompt: ["knock"]


def _judge(feature: Any) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    # As Qwen/Qwen3-VL-2B-Instruct.
    text = {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16}
    text |= {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936}
    vision = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "out_hidden_size": 2048}
    vision |= {"deepstack_visual_indexes": [5, 11, 17]}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
    feature._model = _drawn(Qwen3VLForConditionalGeneration, config)
    marks = {"<|vision_start|>": config.vision_start_token_id, "<|vision_end|>": config.vision_end_token_id}
    marks |= {"<|image_pad|>": config.image_token_id, "<|video_pad|>": config.video_token_id}
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, **marks}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<unk>", additional_special_tokens=[*marks]
    )
    template = (
        "{% for part in messages[0].content %}{% if part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
        "{% else %}{{ part.text }}{% endif %}{% endfor %}"
    )
    pictures, videos = (
        Qwen2VLImageProcessor(patch_size=16),
        Qwen3VLVideoProcessor(size={"shortest_edge": 4096, "longest_edge": 25165824}, cap_pixels_per_frame=True),
    )
    feature._processor = Qwen3VLProcessor(pictures, words, videos, chat_template=template)
    # Every token counts as one of the digits, or the answers of random weights would be refused.
    feature._tokens = [set(range(digit, 151936, 5)) for digit in range(5)]


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


WRITTEN = 10
"""Tokens of Whisper's answer."""
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
    "ms-clap-text-audio": _ms_clap,
    "audiobox": _audiobox,
    "imagebind": _imagebind,
    "syncnet": _syncnet,
    **dict.fromkeys(("pe-av", "pe-text-video", "pe-text-audio"), _perception),
    "whisper": _whisper,
    "physics-judge": _judge,
}
"""Feature → what gives it its networks."""
SAID = {
    "syncnet": "without YuNet",
    "whisper": f"and an answer of {WRITTEN} tokens",
    "physics-judge": "by Qwen3-VL-2B",
}
"""Feature → what the clip's words are followed by, where its networks are not all that is published."""
