"""Loads two pretrained towers as one model: the folders of Wan and TangoFlux, and what joint training changed.

Without a trained joint the towers were never trained together, so `link` is 0 by default. Weights are read from
safetensors only. The sampling is the paper's. Source of TangoFlux's form: its repository (declare-lab/TangoFlux); of
Wan's: diffusers.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avbench.avfulldit.checkpoint import Parts, load_weights
from avbench.avfulldit.flow import Sampling
from avbench.avfulldit.flux import Duration, FluxAudioTower
from avbench.avfulldit.joint_file import fill, read_joint
from avbench.avfulldit.model import AVFullDiT, JointConfig
from avbench.avfulldit.pretrained import HuggingFaceText, OobleckAudioCodec, WanVideoCodec, package
from avbench.avfulldit.wan import WanTower
from avbench.core import ClipSpec, InputError, first_line, frame_rate
from avbench.storage.reading import read_json

_LONGEST_CAPTION = 512
"""Tokens, in both models' own code."""
_FLUX_FIELDS = (
    *("num_layers", "num_single_layers", "in_channels", "attention_head_dim", "num_attention_heads"),
    "joint_attention_dim",
)

_TANGOFLUX_FIELDS = ("audio_seq_len", "text_encoder_name", "max_duration", *_FLUX_FIELDS)


@dataclass(frozen=True)
class PairSettings:
    """The clips that two joined towers make, and how the towers are joined.

    The size is the paper's. It states 2 s and no rate; its published clips have 33 frames at 16 fps. Wan 2.1 makes 16
    frames a second, and Wan 2.2 5B, which the paper joins, 24, of which 49 are 2 s.
    """

    width: int = 320
    height: int = 192
    frames: int = 49
    fps: float | str | None = None
    """By default the rate that the video tower was trained at."""
    joint_layers: int | None = None
    """N_av; by default as many as were trained, or the number of TangoFlux's single blocks, 18 of 24."""
    link: float | None = None
    """How strongly the modalities attend to each other; by default 0, or as it was trained."""
    audio_text: str | None = None
    """Folder or hub name of TangoFlux's text encoder; by default the one in its config."""
    dtype: torch.dtype = torch.float32
    """Type of the weights."""


PAPER = PairSettings()


def load_pair(video: Path, audio: Path, settings: PairSettings = PAPER, trained: Path | None = None) -> Parts:
    """Join the towers of two folders.

    Args:
        video: a Wan pipeline of diffusers, with ``transformer``, ``vae``, ``text_encoder`` and ``tokenizer``.
        audio: TangoFlux as it is published: ``config.json``, ``tangoflux.safetensors``, and ``vae.safetensors``
            or a ``vae`` folder of diffusers.
        settings: the clips, and how the towers are joined.
        trained: the trained weights of these two towers, a file by `save_joint`.

    Raises:
        InputError: a folder holds something else, the towers cannot be joined, or they were trained in another way.
    """
    joint_layers, dtype = settings.joint_layers, settings.dtype
    file = None if trained is None else read_joint(trained)
    if file is not None and joint_layers not in (None, file.joint.joint_layers):
        msg = f"joint_layers is {joint_layers}; {trained} was trained with {file.joint.joint_layers}"
        raise InputError(msg)
    index = _json(video / "model_index.json", "a diffusers pipeline")
    if index.get("transformer_2", [None])[0] is not None:
        msg = f"{video} has two transformers that share the timesteps: only a Wan of one can be joined"
        raise InputError(msg)
    video_tower = WanTower.load(video / "transformer", per_token=bool(index.get("expand_timesteps")), dtype=dtype)
    video_tower.requires_grad_(False)
    video_text = HuggingFaceText.load(video / "tokenizer", video / "text_encoder", _LONGEST_CAPTION, dtype=dtype)
    video_codec = WanVideoCodec.load(video / "vae", dtype=torch.float32)

    config = _json(audio / "config.json", "TangoFlux")
    if missing := [name for name in _TANGOFLUX_FIELDS if name not in config]:
        msg = f"{audio / 'config.json'} is not TangoFlux's: it has no {', '.join(missing)}"
        raise InputError(msg)
    for name in ("audio_seq_len", "max_duration"):
        if isinstance(config[name], bool) or not isinstance(config[name], int | float) or not 0 < config[name]:
            msg = f"{audio / 'config.json'}: {name} is {config[name]!r}; it must be a number above 0"
            raise InputError(msg)
    audio_codec = _oobleck(audio, config["audio_seq_len"])
    fps = frame_rate(settings.fps or (24 if index.get("expand_timesteps") else 16))
    spec = ClipSpec(settings.width, settings.height, settings.frames, fps, audio_codec.sample_rate, 2)
    video_codec.shape(settings.frames, settings.height, settings.width)
    text = settings.audio_text or config["text_encoder_name"]
    audio_tower, audio_texts = _tangoflux(audio, config, text, spec.seconds, dtype)

    tau = (video_codec.frames / float(fps)) / (audio_codec.hop / audio_codec.sample_rate)
    layers = config["num_single_layers"] if joint_layers is None else joint_layers
    # at another frame rate than it was trained at, equal seconds still mean equal phase
    dit = AVFullDiT(
        video_tower, audio_tower, JointConfig(layers, tau) if file is None else replace(file.joint, tau=tau)
    )
    dit.widenings.to(dtype)
    dit.link = 0.0
    if file is not None:
        fill(dit, file)
    dit.link = dit.link if settings.link is None else settings.link
    sampling = Sampling(50, shift=_shift(video), video_guidance=5.0, audio_guidance=4.5)
    return Parts(dit, spec, video_text, audio_texts, video_codec, audio_codec, sampling)


def _tangoflux(
    folder: Path, config: dict[str, Any], text: str, seconds: float, dtype: torch.dtype
) -> tuple[FluxAudioTower, HuggingFaceText]:
    """Load the tower and its text encoder, whose weights are in one file."""
    transformers = package("transformers")
    try:
        config_of_text = transformers.AutoConfig.from_pretrained(text, trust_remote_code=False)
        encoder = transformers.T5EncoderModel(config_of_text)
        tokenizer = transformers.AutoTokenizer.from_pretrained(text, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds; each message names its cause
        msg = f"TangoFlux's text encoder, {text}, cannot be had ({first_line(error)}); -M audio_text= is its folder"
        raise InputError(msg) from error
    width = encoder.config.d_model
    try:
        flux = package("diffusers").FluxTransformer2DModel(
            **{name: config[name] for name in _FLUX_FIELDS}, pooled_projection_dim=width
        )
    except Exception as error:
        msg = f"{folder / 'config.json'} describes no transformer that can be built: {first_line(error)}"
        raise InputError(msg) from error
    pool = nn.Sequential(nn.Linear(width, config["joint_attention_dim"]), nn.ReLU())
    duration = Duration(width, config["max_duration"], seconds)
    stored = {"transformer": flux, "fc": pool, "duration_emebdder": duration, "text_encoder": encoder}  # [sic]
    whole = nn.ModuleDict(stored)
    load_weights(whole, folder / "tangoflux.safetensors")
    whole.to(dtype).eval().requires_grad_(False)
    return FluxAudioTower(flux, pool, duration), HuggingFaceText(tokenizer, encoder, _LONGEST_CAPTION, padded=False)


def _oobleck(folder: Path, least: int) -> OobleckAudioCodec:
    if (folder / "vae").is_dir():
        return OobleckAudioCodec.load(folder / "vae", least)
    vae = package("diffusers").AutoencoderOobleck()
    load_weights(vae, folder / "vae.safetensors")
    return OobleckAudioCodec(vae, least)


def _shift(pipeline: Path) -> float:
    """The timestep shift that the video model was made for."""
    scheduler = _json(pipeline / "scheduler" / "scheduler_config.json", "a scheduler")
    shift = scheduler.get("flow_shift") or scheduler.get("shift") or 1.0
    if isinstance(shift, bool) or not isinstance(shift, int | float) or not shift > 0:
        msg = f"{pipeline / 'scheduler'}: the shift is {shift!r}; it must be a number above 0"
        raise InputError(msg)
    return float(shift)


def _json(path: Path, what: str) -> dict[str, Any]:
    try:
        return read_json(path, dict)
    except InputError as error:
        msg = f"{path.parent} does not hold {what}: {error}"
        raise InputError(msg) from None
