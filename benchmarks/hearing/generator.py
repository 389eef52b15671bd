"""Samples the checkpoints of the study: ``python:benchmarks.hearing.generator:Trained -M checkpoint=FOLDER``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avbench.avfulldit import checkpoint
from avbench.avfulldit.pipeline import Wish, make
from avbench.core import Clip
from avbench.generation.table import Made, Request
from benchmarks.hearing.arms import arm_of, joined_caption, without_sound


class Trained:
    """One checkpoint."""

    def __init__(self, checkpoint_folder: str, device: str = "cpu", batch: int = 4) -> None:
        folder = Path(checkpoint_folder)
        self._arm, self._parts = arm_of(folder), checkpoint.load(folder)
        if self._arm.sound == "empty":
            self._parts.dit = without_sound(self._parts.dit)
        self._parts.dit.eval()
        self._parts.to(device)
        self.batch_size = batch
        self.settings: Mapping[str, Any] = {"checkpoint_folder": checkpoint_folder, "device": device, "batch": batch}

    def generate(self, requests: Sequence[Request]) -> list[Made]:
        """Sample the requests in one batch."""
        wishes = [self._wish(request) for request in requests]
        return [Made(self._seen(clip)) for clip in make(self._parts, wishes, self.batch_size)]

    def _wish(self, request: Request) -> Wish:
        video, audio = request.prompt.video_caption, request.prompt.audio_caption or ""
        if self._arm.captions == "both":
            video = joined_caption(video, audio)
        return Wish(request.prompt.id, request.key.seed, video, audio)

    def _seen(self, clip: Clip) -> Clip:
        """Without the sound of an arm that learned none."""
        return Clip(clip.frames, clip.fps) if self._arm.sound == "empty" else clip
