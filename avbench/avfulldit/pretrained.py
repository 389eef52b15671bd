"""Loads the other parts of pretrained models: the VAEs of Wan and TangoFlux and Hugging Face text encoders.

All parts are frozen, and imported when used. Frames are ``[batch, time, height, width, 3]`` uint8; waveforms
``[batch, channels, samples]`` float in −1…1.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avbench.avfulldit.tower import Text
from avbench.core import InputError, UnusableError, first_line, if_missing
from avbench.storage.reading import read_json
from avbench.storage.weights.filled import check_files, check_filled, load_reason, variant_of


def package(name: str) -> Any:
    """Import a package of the extra `towers`. Raises InputError saying how to get it."""
    with if_missing(f"pretrained towers need the package {name}: pip install 'avbench[towers]'"):
        return __import__(name)


def read_folder(kind: Any, folder: Path, **settings: Any) -> Any:
    """Call `kind.from_pretrained` on a local folder, and read only safetensors.

    Raises:
        InputError: it cannot be read, a parameter gets no value from its files, or a tensor in them is not used.
    """
    check_files(folder)
    variant = variant_of(folder)
    try:
        network = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, variant=variant, **settings)
    except Exception as error:  # of diffusers, transformers, torch and safetensors: each names its own cause
        msg = f"{folder} cannot be read as {kind.__name__}: {load_reason(error)}"
        raise InputError(msg) from error
    check_filled(network, folder, kind.__name__, variant)
    return network


def load_transformer(kind: str, folder: Path, **settings: Any) -> Any:
    """Read a transformer folder in diffusers' form. Raises InputError where it is none."""
    diffusers = package("diffusers")
    if not (folder / "config.json").is_file():
        msg = f"{folder} is no transformer folder of diffusers: it has no config.json"
        raise InputError(msg)
    found = read_json(folder / "config.json", dict).get("_class_name", kind)
    if found != kind:
        msg = f"{folder} is a {found}; only a {kind} can be this tower"
        raise InputError(msg)
    return read_folder(getattr(diffusers, kind), folder, **settings)


class WanVideoCodec(nn.Module):
    """`AutoencoderKLWan`: the first latent covers one frame, each other one four; normalised channel by channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae.eval().requires_grad_(False)
        self.frames = vae.config.scale_factor_temporal
        self.pixels = vae.config.scale_factor_spatial
        shape = (1, -1, 1, 1, 1)
        self.register_buffer("mean", torch.tensor(vae.config.latents_mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(vae.config.latents_std).view(shape), persistent=False)

    @classmethod
    def load(cls, folder: Path, **settings: Any) -> "WanVideoCodec":
        """Read the ``vae`` folder of a diffusers pipeline."""
        return cls(read_folder(package("diffusers").AutoencoderKLWan, folder, **settings))

    def shape(self, frames: int, height: int, width: int) -> tuple[int, ...]:
        """Shape of a clip's latents. Raises InputError where the sizes do not fit Wan and its patches of 2×2."""
        if (frames - 1) % self.frames:
            msg = f"Wan needs frames of the form {self.frames}·k + 1, got {frames}"
            raise InputError(msg)
        for size, what in ((height, "height"), (width, "width")):
            if size % (2 * self.pixels):
                msg = f"Wan needs {what} in multiples of {2 * self.pixels}, got {size}"
                raise InputError(msg)
        return (self.mean.shape[1], (frames - 1) // self.frames + 1, height // self.pixels, width // self.pixels)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames → normalised latents, the mode of the posterior."""
        pixels = frames.permute(0, 4, 1, 2, 3).to(next(self.vae.parameters())) / 127.5 - 1
        return (self.vae.encode(pixels).latent_dist.mode().float() - self.mean) / self.std

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents → frames."""
        latents = (latents.float() * self.std + self.mean).to(next(self.vae.parameters()))
        pixels = self.vae.decode(latents, return_dict=False)[0].float()
        if bad := int((~pixels.isfinite()).sum()):  # as bytes they would be black
            msg = f"the VAE's pixels hold {bad} values of {pixels.numel()} that are NaN or infinite"
            raise UnusableError(msg)
        return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


class OobleckAudioCodec(nn.Module):
    """`AutoencoderOobleck` of Stable Audio, whose latents TangoFlux uses as they are.

    At least `least` latents are made for any length: TangoFlux always makes 645, and the end is cut off.
    """

    def __init__(self, vae: Any, least: int = 0) -> None:
        super().__init__()
        self.least = least
        self.vae = vae.eval().requires_grad_(False)
        self.sample_rate, self.hop = vae.config.sampling_rate, vae.hop_length

    @classmethod
    def load(cls, folder: Path, least: int = 0) -> "OobleckAudioCodec":
        """Read the ``vae`` folder of a diffusers pipeline."""
        return cls(read_folder(package("diffusers").AutoencoderOobleck, folder), least)

    def shape(self, samples: int) -> tuple[int, ...]:
        """Shape of the latents that cover this many samples; never fewer latents than `least`."""
        return (self.vae.config.decoder_input_channels, max(self.least, -(-samples // self.hop)))

    @torch.no_grad()
    def encode(self, waveforms: Tensor) -> Tensor:
        """Waveforms → latents, the mode of the posterior; the end is padded with silence to whole latents."""
        missing = self.shape(waveforms.shape[-1])[1] * self.hop - waveforms.shape[-1]
        padded = nn.functional.pad(waveforms, (0, missing)).to(next(self.vae.parameters()))
        return self.vae.encode(padded).latent_dist.mode().float()

    @torch.no_grad()
    def decode(self, latents: Tensor, samples: int) -> Tensor:
        """Latents → waveforms of `samples` samples."""
        return self.vae.decode(latents.to(next(self.vae.parameters()))).sample[..., :samples].float()


class HuggingFaceText(nn.Module):
    """A tokenizer and a text encoder; captions are cut to `length` tokens, and padded to it or to the longest."""

    def __init__(self, tokenizer: Any, encoder: Any, length: int, *, padded: bool = True) -> None:
        super().__init__()
        self.tokenizer, self.length, self._padding = tokenizer, length, "max_length" if padded else "longest"
        self.encoder = encoder.eval().requires_grad_(False)

    @classmethod
    def load(cls, tokenizer: Path, encoder: Path, length: int, **settings: Any) -> "HuggingFaceText":
        """Read the ``tokenizer`` and ``text_encoder`` folders of a pipeline; the encoder's class is in its config."""
        transformers = package("transformers")
        local = {"local_files_only": True, "trust_remote_code": False}
        for folder in (tokenizer, encoder):
            check_files(folder)
        try:
            named = transformers.AutoConfig.from_pretrained(encoder, **local).architectures or []
            words = transformers.AutoTokenizer.from_pretrained(tokenizer, **local)
        except Exception as error:
            msg = f"{encoder} and {tokenizer} cannot be read: {first_line(error)}"
            raise InputError(msg) from error
        if not named or not hasattr(transformers, named[0]):
            msg = f"{encoder} names no text encoder that transformers provides: {named}"
            raise InputError(msg)
        return cls(words, read_folder(getattr(transformers, named[0]), encoder, **settings), length)

    def unknown(self, caption: str) -> list[str]:
        """No word is unknown, because its tokens can spell every word."""
        return []

    def cuts(self, caption: str) -> bool:
        """Whether the end of a caption is not read."""
        return len(self.tokenizer(caption).input_ids) > self.length

    @torch.no_grad()
    def read(self, captions: Sequence[str]) -> Text:
        """Captions → last hidden states ``[captions, length, width]`` and their mask."""
        tokens = self.tokenizer(
            list(captions), padding=self._padding, max_length=self.length, truncation=True, return_tensors="pt"
        ).to(self.encoder.device)
        states = self.encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        return Text(states, tokens.attention_mask.bool())
