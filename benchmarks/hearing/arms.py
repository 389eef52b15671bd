"""Says what an arm of the study is: its row in the plan, and what sampling a checkpoint of it needs.

A run's model is identified by the files that `generator` imports, this one among them: after an edit here every
measured run counts as another model. How arms are trained is in `trainings`, which can be edited.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from avbench.avfulldit.model import AVFullDiT
from avbench.avfulldit.rope import AudioPositions

ARM = "arm.json"
"""In a checkpoint's folder: the arm that it is, for `generator`."""


@dataclass(frozen=True)
class Arm:
    """One row of the plan."""

    name: str
    sound: Literal["none", "own", "silence", "other", "late", "empty"]
    captions: Literal["video", "both"] = "video"
    """What the video tower reads."""
    positions: AudioPositions = "sync"
    audio_weight: float = 1.0
    clips: int | None = None
    """Examples to draw from; those of the plan where not given."""
    seeds: int = 3
    block: int = 2
    """Blocks are trained one after another, the most important first."""


class WithoutSound(AVFullDiT):
    """As many parameters and tokens as with sound, but the audio tokens carry nothing and predict nothing."""

    def forward(self, video: Tensor, audio: Tensor, t: Tensor, video_text: Any, audio_text: Any) -> Any:
        """The video's velocity, and zeros in place of the audio's."""
        seen, heard = super().forward(video, torch.zeros_like(audio), t, video_text, audio_text)
        return seen, 0 * heard


def without_sound(dit: AVFullDiT) -> WithoutSound:
    """The same weights, deaf and mute."""
    deaf = WithoutSound(dit.video, dit.audio, dit.joint)
    deaf.load_state_dict(dit.state_dict())
    return deaf


def joined_caption(video: str, audio: str) -> str:
    """What the video tower of an arm with both captions reads."""
    return f"{video} {audio}"


def arm_of(folder: Path) -> Arm:
    """The arm that a checkpoint is."""
    return Arm(**json.loads((folder / ARM).read_text()))
