"""Judges a clip's sound by Audiobox-Aesthetics: enjoyment, usefulness, complexity and quality of production.

The network (Tjandra et al., 2025; facebookresearch/audiobox-aesthetics) was trained on listeners' opinions from 1 to 10
on speech, music and sounds. WavLM reads windows of 10 s that do not overlap; the last is filled with zeros. For each
judgement its 13 layers are weighted, averaged over the part of the window that has sound, and read by a small
perceptron. A clip's value is the mean over its windows, weighted by how much of each is filled. A clip of 2 s is mostly
filled with zeros, which changes its values: compare clips of one length.

Channels are averaged and resampled by scipy, to 16 kHz: nothing above 8 kHz is heard. The authors' package resamples
with another filter, which changes the values of clips with another rate slightly.

WavLM is transformers' own. The weights are the folder of the hub. On random weights the four values
agree with those of the package audiobox_aesthetics 0.0.4 to 1e-5. No number of the real weights was checked.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from avbench.core import Clip, InputError, Notes, if_missing, noted
from avbench.features.audio.waveform import SOUND_NOTES, SoundProtocol, mono_waveform
from avbench.features.networks import exact, filled, read_as
from avbench.storage.reading import read_json
from avbench.storage.weights import UserProvidedProtocol, locate

AXES = {"CE": "enjoyment", "CU": "usefulness", "PC": "complexity", "PQ": "quality"}
"""Names of the judgements in the checkpoint → here."""
_STEP = 320
"""Samples between two places of WavLM."""


@dataclass(frozen=True)
class AudioboxProtocol(SoundProtocol):
    """The settings that decide a clip's values, besides the clip."""

    name: str = "audiobox"
    version: int = 1
    rate: int = 16000
    shortest: int = 16000
    output: str = "weighted window mean"
    window: int = 160000
    """Samples. Windows do not overlap, and the last is filled with zeros."""
    weights: str = "audiobox-aesthetics"
    notes: Notes = noted(**SOUND_NOTES, output="The mean over windows, weighted by how much of each has sound.")


@dataclass(frozen=True)
class _Transform:
    mean: float
    std: float


@dataclass(frozen=True)
class _Config:
    """What its config.json says."""

    target_transform: Mapping[str, _Transform]
    proj_num_layer: int = 1
    proj_ln: bool = False
    proj_act_fn: str = "gelu"
    proj_dropout: float = 0.0
    nth_layer: int = 13
    use_weighted_layer_sum: bool = True
    normalize_embed: bool = True
    output_dim: int = 1


class Audiobox:
    """The feature ``audiobox``. Values of one clip, about 1 to 10: ``enjoyment``, ``usefulness``, ``complexity``, and
    ``quality``.

    The constructor raises InputError without transformers, or if the folder holds no Audiobox-Aesthetics.
    """

    protocol = UserProvidedProtocol(AudioboxProtocol())
    wavlm: ClassVar[Mapping[str, Any]] = {}
    """Fields of transformers' WavLMConfig that differ from its defaults, which are those of WavLM Base+."""
    needs_sound = True
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        folder = locate(AudioboxProtocol.weights)
        config, state = _read(folder)
        self._network = filled(Network(self.wavlm, config), state, f"{folder}, as Audiobox-Aesthetics,")
        self._network.to(self._device)
        self._scales = [config.target_transform[axis] for axis in AXES]

    @exact()
    def __call__(self, clip: Clip) -> dict[str, float]:
        """Measure one clip. Raises NotMeasurable without sound, with less than 1 s of sound, or if it is silent."""
        wave, window = (
            torch.from_numpy(mono_waveform(clip, self.protocol, "Audiobox-Aesthetics")).float(),
            self.protocol.window,
        )
        parts = [part.to(self._device) for part in wave.split(window)]
        found = torch.stack([self._network(functional.pad(one, (0, window - len(one))), len(one)) for one in parts])
        share = torch.tensor([len(one) for one in parts], dtype=torch.float64) / len(wave)
        means = (found.double().cpu() * share[:, None]).sum(dim=0)
        scaled = zip(AXES.values(), means.tolist(), self._scales, strict=True)
        return {name: scale.mean + scale.std * value for name, value, scale in scaled}


class Network(nn.Module):
    """WavLM with a perceptron for each judgement."""

    def __init__(self, wavlm: Mapping[str, Any], config: _Config) -> None:
        super().__init__()
        with if_missing("Audiobox-Aesthetics needs transformers 4.53 or later; run `pip install 'avbench[towers]'`"):
            from transformers import WavLMConfig, WavLMModel
        self.wavlm = WavLMModel(WavLMConfig(**wavlm))
        width = self.wavlm.config.hidden_size
        self.proj_layer = nn.ModuleDict({axis: _perceptron(width, config) for axis in AXES})
        self.layer_weights = nn.ParameterDict({axis: nn.Parameter(torch.zeros(config.nth_layer)) for axis in AXES})
        self.unit = config.normalize_embed

    def forward(self, x: torch.Tensor, length: int) -> torch.Tensor:
        """``[samples]`` of a whole window, of which `length` are sound → the four values, not yet scaled."""
        x = self.wavlm.feature_extractor(x[None]).transpose(1, 2)
        x = self.wavlm.feature_projection(x)[0]
        count = -(-length // _STEP)  # places with sound; the others are 0, and the layers do not attend to them
        x[:, count:] = 0
        encoder = self.wavlm.encoder
        x = encoder.layer_norm(x + encoder.pos_conv_embed(x))[:, :count]
        layers, bias = [x], None
        for layer in encoder.layers:
            x, bias = layer(x, position_bias=bias)[:2]
            layers.append(x)
        mean = torch.cat(layers).mean(dim=1)  # [layers, width]
        values = []
        for axis, weights in self.layer_weights.items():
            one = weights.softmax(dim=0) @ mean
            values.append(self.proj_layer[axis](functional.normalize(one, dim=0) if self.unit else one))
        return torch.cat(values)


def _perceptron(width: int, config: _Config) -> nn.Sequential:
    """As the package's ``create_mlp_block`` numbers its layers."""
    layers: list[nn.Module] = []
    for _ in range(config.proj_num_layer - 1):
        layers += [nn.Linear(width, width), *([nn.LayerNorm(width)] if config.proj_ln else []), nn.GELU()]
        layers += [nn.Dropout()] if config.proj_dropout else []
    return nn.Sequential(*layers, nn.Linear(width, 1))


_RENAMED = (
    (r"^wavlm_model\.", "wavlm."),
    (r"\.post_extract_proj\.", ".feature_projection.projection."),
    (r"^wavlm\.layer_norm\.", "wavlm.feature_projection.layer_norm."),
    (r"\.mask_emb$", ".masked_spec_embed"),
    (r"\.conv_layers\.(\d+)\.0\.", r".conv_layers.\1.conv."),
    (r"\.conv_layers\.(\d+)\.2\.", r".conv_layers.\1.layer_norm."),
    (r"\.pos_conv\.0\.weight_g$", ".pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"\.pos_conv\.0\.weight_v$", ".pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"\.pos_conv\.0\.", ".pos_conv_embed.conv."),
    (r"\.self_attn\.grep_linear\.", ".attention.gru_rel_pos_linear."),
    (r"\.self_attn\.grep_a$", ".attention.gru_rel_pos_const"),
    (r"\.self_attn\.relative_attention_bias\.", ".attention.rel_attn_embed."),
    (r"\.self_attn\.", ".attention."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
)
"""Patterns of the names of Microsoft's WavLM → those of transformers', applied in this order."""


def _read(folder: Path) -> tuple[_Config, dict[str, torch.Tensor]]:
    """Config and weights, named as in `Network`. Raises InputError if the folder has none that can be used."""
    from safetensors.torch import load_file

    config = read_json(folder / "config.json", _Config, known_only=False)
    if lacking := [axis for axis in AXES if axis not in config.target_transform]:
        msg = f"{folder / 'config.json'} has no target_transform of {lacking[0]}"
        raise InputError(msg)
    if not config.use_weighted_layer_sum or config.output_dim != 1 or config.proj_act_fn != "gelu":
        msg = f"{folder / 'config.json'} is of another Audiobox-Aesthetics than the published one"
        raise InputError(msg)
    with read_as("safetensors file", folder / "model.safetensors"):
        state = load_file(folder / "model.safetensors")
    return config, {_renamed(name): tensor for name, tensor in state.items()}


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
