"""AVFullDiT as a model.

``avfulldit:toy-t2av`` and the other bundled names; ``avfulldit:FOLDER``, a checkpoint as `avbench train` writes it;
``avfulldit:WAN+TANGOFLUX``, the folders of two pretrained towers. Settings choose how it is sampled.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from avbench.avfulldit import bundled
from avbench.avfulldit.checkpoint import WEIGHTS, Parts, load
from avbench.avfulldit.flow import Sampling
from avbench.avfulldit.pair import load_pair
from avbench.avfulldit.pipeline import Wish, make
from avbench.core import InputError, nearest
from avbench.folder import file_sha256
from avbench.generators import Made, Request

_PAIR_SETTINGS = [name for name in inspect.signature(load_pair).parameters if name not in ("video", "audio", "dtype")]


class AVFullDiT:
    """A checkpoint, or two pretrained towers, as a generator of clips."""

    batch_size = 4

    def __init__(
        self,
        target: str,
        *,
        steps: int | None = None,
        solver: str | None = None,
        shift: float | None = None,
        video_guidance: float | None = None,
        audio_guidance: float | None = None,
        video_negative: str | None = None,
        audio_negative: str | None = None,
        device: str | None = None,
        width: int | None = None,
        height: int | None = None,
        frames: int | None = None,
        fps: float | None = None,
        joint_layers: int | None = None,
        link: float | None = None,
        audio_text: str | None = None,
    ) -> None:
        """Load the model; what is not given is as the checkpoint says. From `width` on they are for two towers."""
        given = {
            name: value for name, value in locals().items() if name not in ("self", "target") and value is not None
        }
        of_pair = {name: given[name] for name in _PAIR_SETTINGS if name in given}
        joined = "+" in target and not Path(target).exists()
        if joined:
            video, audio = (Path(part) for part in target.split("+", 1))
            device = device or ("cuda" if torch.cuda.is_available() else "cpu")
            dtype = torch.float32 if device == "cpu" else torch.bfloat16
            self._parts = load_pair(video, audio, **of_pair, dtype=dtype)
            weights = [*sorted((video / "transformer").glob("*.safetensors")), audio / "tangoflux.safetensors"]
        elif of_pair:
            msg = (
                f"{', '.join(of_pair)}: for two pretrained towers only (avfulldit:WAN+TANGOFLUX), not for a checkpoint"
            )
            raise InputError(msg)
        else:
            device = device or "cpu"
            folder = _folder(target)
            self._parts = load(folder)
            weights = [folder / WEIGHTS]
        if self._parts.dit.video is None:
            msg = f"avfulldit:{target} is an audio tower: it makes no video"
            raise InputError(msg)
        asked = {field.name: given[field.name] for field in fields(Sampling) if field.name in given}
        self._parts.sampling = replace(self._parts.sampling, **asked)
        self._parts.dit.eval()
        self._parts.to(device)
        self.settings: Mapping[str, Any] = {
            "arm": self._parts.arm,
            "weights_sha256": [file_sha256(path) for path in weights],
            "device": device,
            **(_of_pair(self._parts) if joined else {}),
            **asdict(self._parts.sampling),
        }

    def generate(self, requests: Sequence[Request]) -> list[Made]:
        """Sample the requests in one batch."""
        wishes = [
            Wish(one.prompt.id, one.key.seed, one.prompt.video_caption, one.prompt.audio_caption or "")
            for one in requests
        ]
        return [Made(clip) for clip in make(self._parts, wishes, self.batch_size)]

    def remarks(self, requests: Sequence[Request]) -> list[str]:
        """Words that the caption encoders never saw, and prompts without an audio caption where there is sound."""
        said = []
        for what, encoder in (("video", self._parts.video_text), ("audio", self._parts.audio_text)):
            if encoder is None:
                continue
            captions = [one.prompt.video_caption if what == "video" else one.prompt.audio_caption for one in requests]
            unknown = sorted({word for caption in captions if caption for word in encoder.unknown(caption)})
            if unknown:
                shown = ", ".join(unknown[:8]) + (" …" if len(unknown) > 8 else "")
                said.append(f"{len(unknown)} words of the {what} captions are unknown to this model: {shown}")
            if without := sum(not caption for caption in captions):
                said.append(f"{without} prompts have no {what} caption; they are sampled as if it were empty")
        return said


def _folder(target: str) -> Path:
    folder = bundled(target) or Path(target)
    if not folder.is_dir():
        msg = f"avfulldit:{target} is neither bundled nor a folder; bundled: {nearest(target, bundled())}"
        raise InputError(msg)
    return folder


def _of_pair(parts: Parts) -> dict[str, Any]:
    assert parts.dit.joint is not None
    return {"clip": parts.clip_spec.to_json(), "joint": asdict(parts.dit.joint), "link": parts.dit.link}
