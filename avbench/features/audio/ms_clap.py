"""Measures how well a clip's sound fits the caption of its sound, by MS-CLAP, the other CLAP of papers.

MS-CLAP (Elizalde et al., 2023; microsoft/CLAP, checkpoint of 2023) compares the vector of HTS-AT, a network of sounds,
with that of GPT-2. Its cosines are not those of LAION's CLAP (`clap_text_audio`), and those of its checkpoint of 2022
are others again. A cosine means nothing by itself, so the vectors are kept, and a metric subtracts the mean cosine that
the sound has with the captions of other prompts.

A sound of less than 7 s is repeated up to 7 s, as the authors do. Window and bands of the spectrogram are arrays in the
checkpoint. The authors pad captions with "!", and read GPT-2's output at the index (number of tokens that are not "!")
less 1. That is the end mark; in a caption that itself contains "!", it is one place earlier for each.

Differences from the authors' code: channels are averaged, where it strings them together; a sound of more than 7 s is
cut to the first 7 s, where it takes 7 s at random; scipy resamples; and a caption of more than 77 tokens is cut before
its end mark, where it reads a single caption whole and raises an error for several.

Both networks are transformers' own, with the checkpoint's arrays under other names. The tokenizer is
GPT-2's. On random weights of the published size the vectors agree with those of the authors' package msclap
1.3.4 to 1e-6. No number of the real weights was checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from avbench.core import Clip, InputError, Notes, Prompt, if_missing, noted
from avbench.features.audio.networks import LogMel
from avbench.features.audio.text import audio_caption, tokenizer_in
from avbench.features.audio.waveform import SOUND_NOTES, SoundProtocol, mono_waveform
from avbench.features.networks import exact, filled
from avbench.features.table import Requires
from avbench.storage.reading.pickles import read_state_dict
from avbench.storage.weights import UserProvidedProtocol, locate


@dataclass(frozen=True)
class MSCLAPProtocol(SoundProtocol):
    """The settings that decide a clip's agreement with its caption, besides the clip and the caption."""

    name: str = "ms-clap-text-audio"
    version: int = 1
    rate: int = 44100
    shortest: int = 44100
    longest: int = 308700
    """Samples. A longer sound is cut to this length; a shorter one is repeated."""
    window: int = 1024
    """Samples. The first window is centred on sample 0; the sound is reflected at its ends."""
    hop: int = 320
    bands: int = 64
    compression: str = "10*log10(power)"
    floor: float = -100.0
    text: str = "audio caption"
    end: str = " <|endoftext|>"
    padding: str = "!"
    tokens: int = 77
    read: str = "last true token"
    output: str = "unit projections"
    weights: str = "ms-clap-2023"
    tokenizer: str = "gpt2-tokenizer"
    tokenizer_sha256: str = ""
    notes: Notes = noted(
        **SOUND_NOTES,
        floor="Decibels: lower values of the spectrogram are raised to it.",
        read="At the index: number of tokens that are not padding, less 1.",
        output="The projections of both networks, scaled to length 1, and their cosine.",
        text="The caption is cut to `tokens`, the end mark included.",
    )


@dataclass(frozen=True)
class Shape:
    """The shape of MS-CLAP; the defaults are the published ones."""

    width: int = 96
    """Of HTS-AT's first stage; every other is twice as wide as the one before."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    vocabulary: int = 50257
    places: int = 1024
    text_width: int = 768
    text_depth: int = 12
    text_heads: int = 12
    embedding: int = 1024


class MSCLAP:
    """The feature ``ms-clap-text-audio``. Values of one clip:

    - ``similarity``: cosine of sound and caption.
    - ``sound``, ``text``: their vectors, [1024] each.
    - ``truncated``: 1 if the caption's end was cut off, else 0.

    The constructor raises InputError without transformers, or if weights or tokenizer are missing or do not fit.
    """

    protocol = UserProvidedProtocol(MSCLAPProtocol())
    shape = Shape()
    requires = Requires.PROMPT
    needs_sound = True
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        weights, folder = locate(MSCLAPProtocol.weights), locate(MSCLAPProtocol.tokenizer)
        with if_missing("MS-CLAP needs transformers 4.53 or later; run `pip install 'avbench[towers]'`"):
            network = Network(self.shape)
        state = renamed(read_state_dict(weights))
        self._network = filled(network, state, "the MS-CLAP checkpoint").to(self._device)
        self._tokenizer = tokenizer_in(folder)
        self._tokenizer.add_special_tokens({"pad_token": MSCLAPProtocol.padding})
        if len(self._tokenizer) != self.shape.vocabulary:
            known, right = len(self._tokenizer), self.shape.vocabulary
            msg = f"{folder} has no tokenizer of GPT-2: it knows {known} tokens instead of {right}"
            raise InputError(msg)

    @exact()
    def __call__(self, clip: Clip, prompt: Prompt) -> dict[str, float | np.ndarray]:
        """Measure one clip. Raises NotMeasurable without an audio caption or 1 s of sound, or if it is silent."""
        tokens = self._tokenizer(audio_caption(prompt) + self.protocol.end)["input_ids"]
        kept = tokens if len(tokens) <= self.protocol.tokens else [*tokens[: self.protocol.tokens - 1], tokens[-1]]
        place = sum(token != self._tokenizer.pad_token_id for token in kept) - 1
        text = self._network.read(torch.tensor([kept], device=self._device), place)
        wave = np.resize(mono_waveform(clip, self.protocol, "MS-CLAP"), self.protocol.longest)
        sound = self._network.heard(torch.from_numpy(wave).float()[None].to(self._device))
        return {
            "similarity": float((sound.double() @ text.double().T).item()),
            "sound": sound[0].cpu().numpy(),
            "text": text[0].cpu().numpy(),
            "truncated": float(len(kept) < len(tokens)),
        }


class Network(nn.Module):
    """MS-CLAP's networks of sounds and texts. Raises ImportError without transformers."""

    def __init__(self, shape: Shape) -> None:
        from transformers import ClapAudioConfig, ClapAudioModel, GPT2Config, GPT2Model

        super().__init__()
        settings = MSCLAPProtocol()
        last = shape.width * 2 ** (len(shape.depths) - 1)
        self.spectrum = LogMel(settings.window, settings.hop, settings.bands)
        self.audio = ClapAudioModel(
            ClapAudioConfig(
                num_mel_bins=settings.bands,
                patch_embeds_hidden_size=shape.width,
                hidden_size=last,
                depths=[*shape.depths],
                num_attention_heads=[*shape.heads],
            )
        )
        self.text = GPT2Model(
            GPT2Config(
                vocab_size=shape.vocabulary,
                n_positions=shape.places,
                n_embd=shape.text_width,
                n_layer=shape.text_depth,
                n_head=shape.text_heads,
            )
        )
        self.audio_projection = Projection(last, shape.embedding)
        self.text_projection = Projection(shape.text_width, shape.embedding)

    def heard(self, x: torch.Tensor) -> torch.Tensor:
        """``[clips, samples]`` → ``[clips, embedding]``, of length 1."""
        seen = self.audio(input_features=self.spectrum.log_mel(x)[:, None]).pooler_output
        return functional.normalize(self.audio_projection(seen), dim=-1)

    def read(self, tokens: torch.Tensor, place: int) -> torch.Tensor:
        """``[captions, tokens]`` → ``[captions, embedding]``, of length 1, at one place of them."""
        states = self.text(input_ids=tokens).last_hidden_state
        return functional.normalize(self.text_projection(states[:, place]), dim=-1)


class Projection(nn.Module):
    """``[inputs, width]`` → ``[inputs, embedding]``."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, embedding, bias=False)
        self.linear2 = nn.Linear(embedding, embedding, bias=False)
        self.layer_norm = nn.LayerNorm(embedding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The projection of each input."""
        x = self.linear1(x)
        return self.layer_norm(x + self.linear2(functional.gelu(x)))


_SOUND = "audio_encoder.base.htsat."
_NAMES = {
    "caption_encoder.base.": "text.",
    "caption_encoder.projection.": "text_projection.",
    "audio_encoder.projection.": "audio_projection.",
    f"{_SOUND}spectrogram_extractor.": "spectrum.spectrogram_extractor.",
    f"{_SOUND}logmel_extractor.": "spectrum.logmel_extractor.",
    _SOUND: "audio.audio_encoder.",
    ".bn0.": ".batch_norm.",
    ".norm1.": ".layernorm_before.",
    ".norm2.": ".layernorm_after.",
    ".attn.qkv.": ".attention.self.qkv.",
    ".attn.relative_position": ".attention.self.relative_position",
    ".attn.proj.": ".attention.output.dense.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}
"""Parts of the checkpoint's names → of `Network`'s, in the order in which they are replaced."""
_UNUSED = "logit_scale", f"{_SOUND}tscam_conv.", f"{_SOUND}head."
"""Beginnings of names: the scale of training, and the classes of AudioSet."""
_MASKS = ".attn_mask", ".attn.bias", ".attn.masked_bias"
"""Ends of names: masks that the networks make themselves."""


def renamed(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of the checkpoint that are used, under the names of `Network`."""
    found: dict[str, np.ndarray] = {}
    for name, value in state.items():
        if name.startswith(_UNUSED) or name.endswith(_MASKS):
            continue
        for old, new in _NAMES.items():
            name = name.replace(old, new)
        if ".qkv." in name:  # transformers keeps the three apart
            parts = np.split(value, 3)
            found |= {
                name.replace("qkv", kind): part for kind, part in zip(("query", "key", "value"), parts, strict=True)
            }
        else:
            found[name] = value
    return found
