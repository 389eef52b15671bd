"""Reads and writes checkpoints of AVFullDiT, which are folders.

``config.json`` describes how the parts are built, ``model.safetensors`` holds their weights, and ``card.json`` records
how they were trained. The codecs of the toy scale have no weights; the config describes them. Weights are stored as
float16 and loaded as float32.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes
from torch import nn

from avbench.avfulldit.codec import PixelCodec, PixelCodecConfig
from avbench.avfulldit.flow import Sampling
from avbench.avfulldit.model import AVFullDiT, JointConfig
from avbench.avfulldit.native import NativeConfig, NativeTower
from avbench.avfulldit.pretrained import HuggingFaceText, OobleckAudioCodec, WanVideoCodec
from avbench.avfulldit.spectrogram import SpectrogramCodec, SpectrogramCodecConfig
from avbench.avfulldit.text import CaptionEncoder
from avbench.core import ClipSpec, InputError, counted, first_line
from avbench.storage.reading import read_json, shaped_plain, tensor_header
from avbench.storage.writing import write_json, write_whole

FORMAT = "avfulldit-2"
T = TypeVar("T")
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.json"


@dataclass
class Parts:
    """A model with everything that is needed to use it. Parts of a modality that it lacks are None."""

    dit: AVFullDiT
    clip_spec: ClipSpec
    video_text: CaptionEncoder | HuggingFaceText | None
    audio_text: CaptionEncoder | HuggingFaceText | None
    video_codec: PixelCodec | WanVideoCodec | None = None
    audio_codec: SpectrogramCodec | OobleckAudioCodec | None = None
    sampling: Sampling = field(default_factory=Sampling)

    @property
    def arm(self) -> str:
        """``t2v``, ``t2a`` or ``t2av``."""
        return {(True, False): "t2v", (False, True): "t2a", (True, True): "t2av"}[
            self.dit.video is not None, self.dit.audio is not None
        ]

    def to(self, device: torch.device | str) -> None:
        """Move all parts to a device."""
        for part in (self.dit, self.video_text, self.audio_text, self.video_codec, self.audio_codec):
            if part is not None:
                part.to(device)

    def learned(self) -> nn.ModuleDict:
        """The modules that training changes, under the names that the weights file uses."""
        parts = {"dit": self.dit, "video_text": self.video_text, "audio_text": self.audio_text}
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})


def config_of(parts: Parts) -> dict[str, Any]:
    """The plain config from which `build` makes the same parts again."""
    dit = parts.dit
    plain: dict[str, Any] = {"format": FORMAT, "clip": parts.clip_spec.to_json(), "sampling": asdict(parts.sampling)}
    for what, tower, text in (("video", dit.video, parts.video_text), ("audio", dit.audio, parts.audio_text)):
        if tower is not None and text is not None:
            assert isinstance(tower, NativeTower) and isinstance(text, CaptionEncoder)
            words = {"words": list(text.words), "width": text.width, "length": text.length}
            plain[what] = {"tower": asdict(tower.config), "text": words}
    if dit.joint is not None:
        plain["joint"] = asdict(dit.joint)
    for what, codec in (("video_codec", parts.video_codec), ("audio_codec", parts.audio_codec)):
        if codec is not None:
            assert isinstance(codec, PixelCodec | SpectrogramCodec)
            plain[what] = asdict(codec.config)
    return plain


def build(config: Mapping[str, Any]) -> Parts:
    """Make parts with new weights. Raises InputError that names a missing, unknown or unsuitable field."""
    try:
        if config["format"] != FORMAT:
            msg = f"format is {config['format']!r}; this version reads {FORMAT}"
            raise InputError(msg)
        towers: dict[str, NativeTower | None] = {"video": None, "audio": None}
        texts: dict[str, CaptionEncoder | None] = {"video": None, "audio": None}
        for what in towers:
            if what in config:
                towers[what] = NativeTower(config_part(config[what]["tower"], NativeConfig))
                texts[what] = CaptionEncoder(**config[what]["text"])
        joint = config_part(config["joint"], JointConfig) if "joint" in config else None
        dit = AVFullDiT(towers["video"], towers["audio"], joint)
        spec = ClipSpec.from_json(config["clip"])
        video_codec = PixelCodec(config_part(config["video_codec"], PixelCodecConfig)) if "video" in config else None
        audio_codec = (
            SpectrogramCodec(config_part(config["audio_codec"], SpectrogramCodecConfig)) if "audio" in config else None
        )
        sampling = config_part(config.get("sampling", {}), Sampling)
        return Parts(dit, spec, texts["video"], texts["audio"], video_codec, audio_codec, sampling)
    except KeyError as error:
        msg = f"the config lacks the field {error}"
        raise InputError(msg) from None
    except (TypeError, ArithmeticError) as error:
        msg = f"the config does not fit: {error}"
        raise InputError(msg) from None


def config_part(plain: Any, shape: type[T]) -> T:
    """Convert a part of the config to its dataclass. Raises InputError that names the field that does not fit."""
    return shaped_plain(plain, shape, "")


def save(parts: Parts, folder: Path, card: Mapping[str, Any]) -> None:
    """Write a checkpoint folder. The config is written last, so an incomplete checkpoint is never loaded."""
    (folder / CONFIG).unlink(missing_ok=True)
    halved = {name: tensor.to(torch.float16).contiguous() for name, tensor in parts.learned().state_dict().items()}
    write_whole(folder / WEIGHTS, safetensors_bytes(halved))
    write_json(folder / CARD, card)
    write_json(folder / CONFIG, config_of(parts))


def load(folder: Path) -> Parts:
    """Read a checkpoint folder.

    Raises:
        InputError: it is no AVFullDiT checkpoint, or a tensor is missing, unknown or of another shape.
    """
    config = read_config(folder)
    try:
        parts = build(config)
    except InputError as error:
        msg = f"{folder / CONFIG}: {error}"
        raise InputError(msg) from None
    load_weights(parts.learned(), folder / WEIGHTS)
    return parts


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config. Raises InputError saying what else the folder seems to be."""
    path = folder / CONFIG
    if not path.is_file():
        msg = f"{folder} is no AVFullDiT checkpoint: it has no {CONFIG}"
        raise InputError(msg)
    config = read_json(path)
    if not isinstance(config, dict) or "format" not in config:
        kind = config.get("_class_name") or config.get("architectures") if isinstance(config, dict) else None
        msg = f"{path} is not of AVFullDiT" + (f" but of {kind}" if kind else "") + f": it has no format {FORMAT!r}"
        raise InputError(msg)
    return config


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill `module` from a safetensors file. Raises InputError naming the first tensor that does not fit."""
    tensor_header(path)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        msg = f"{path} cannot be read: {first_line(error)}"
        raise InputError(msg) from None
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        if name not in tensors:
            if any(wanted[other].data_ptr() == tensor.data_ptr() for other in tensors.keys() & wanted.keys()):
                continue  # one tensor of two names is kept once
            lacking = counted(len(wanted.keys() - tensors.keys()), "tensor")
            msg = f"{path} lacks {lacking} that the config requires, {name} first"
            raise InputError(msg)
        if tensors[name].shape != tensor.shape:
            msg = f"{path}: {name} is of shape {tuple(tensors[name].shape)}, the config requires {tuple(tensor.shape)}"
            raise InputError(msg)
    if unknown := sorted(tensors.keys() - wanted.keys()):
        msg = f"{path} holds {counted(len(unknown), 'tensor')} that the config does not name, {unknown[0]} first"
        raise InputError(msg)
    module.load_state_dict({name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}, strict=False)
