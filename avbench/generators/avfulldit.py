"""AVFullDiT as a model: ``avfulldit:toy-t2av`` and the other bundled names, or ``avfulldit:FOLDER``.

A folder is a checkpoint as `avbench train` writes it. Settings choose how it is sampled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from avbench.avfulldit import bundled
from avbench.avfulldit.checkpoint import WEIGHTS, load
from avbench.avfulldit.pipeline import Wish, make
from avbench.core import InputError, nearest
from avbench.folder import file_sha256
from avbench.generators import Made, Request


class AVFullDiT:
    """A checkpoint as a generator of clips."""

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
    ) -> None:
        """Load the checkpoint; what is not given is as the checkpoint says."""
        folder = bundled(target) or Path(target)
        if not folder.is_dir():
            msg = f"avfulldit:{target} is neither bundled nor a folder; bundled: {nearest(target, bundled())}"
            raise InputError(msg)
        self._parts = load(folder)
        if self._parts.dit.video is None:
            msg = f"avfulldit:{target} is an audio tower: it makes no video"
            raise InputError(msg)
        asked = dict(
            steps=steps, solver=solver, shift=shift, video_guidance=video_guidance, audio_guidance=audio_guidance
        )
        given = {name: value for name, value in asked.items() if value is not None}
        self._parts.sampling = replace(self._parts.sampling, **given)
        self._parts.dit.eval()
        self.settings: Mapping[str, Any] = {
            "arm": self._parts.arm,
            "weights_sha256": file_sha256(folder / WEIGHTS),
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
