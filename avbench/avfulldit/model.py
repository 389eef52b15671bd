"""AVFullDiT: two towers, their last layers joined.

The first layers of each tower stay its own; the last `joint_layers` of both are paired and attend together
(AVFull-Attention). Without an audio tower it is the video tower alone: the T2V arm. Source: arXiv 2512.02457.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from avbench.avfulldit.attention import Initialisation, Widening, attend, attend_jointly, require_joinable
from avbench.avfulldit.rope import AudioPositions, Rotary, rotary, rotate, synchronised
from avbench.avfulldit.tower import Block, Opened, Text, Tower
from avbench.core import InputError


@dataclass(frozen=True)
class JointConfig:
    """How two towers are joined."""

    joint_layers: int
    """N_av: the last layers of both towers that are paired."""
    tau: float
    """Seconds of a video latent ÷ seconds of an audio latent."""
    positions: AudioPositions = "sync"
    joint_layout: Literal["video", "own"] = "video"
    """RoPE of audio in the joint layers: on the video's time band, where equal seconds mean equal phase, or in the
    layout that the audio tower was pretrained with."""
    init: Initialisation = "towers"


class Stream:
    """One tower on its way through its blocks."""

    def __init__(self, tower: Tower, latents: Tensor, t: Tensor, text: Text, positions: Tensor) -> None:
        self.tower, self.latents, self.t = tower, latents, t
        self.hidden, self.condition = tower.start(latents, t, text)
        self.turn = tower.turn(positions, self.condition.prefix)

    def step(self, block: Block) -> None:
        """Walk through a block of the tower alone."""
        opened = block.open(self.hidden, self.condition)
        query, key = rotate(opened.query, self.turn), rotate(opened.key, self.turn)
        attended = attend(query, key, opened.value, self.condition.key_mask)
        self.close(block, attended.flatten(2), None, opened)

    def close(self, block: Block, attended: Tensor, beside: Tensor | None, opened: Opened) -> None:
        """Walk the rest of a block."""
        self.hidden = block.close(self.hidden, attended, beside, opened, self.condition)

    def finish(self) -> Tensor:
        """The velocity."""
        return self.tower.finish(self.hidden, self.condition, self.latents, self.t)


def walk_alone(tower: Tower, latents: Tensor, t: Tensor, text: Text, positions: Tensor | None = None) -> Tensor:
    """Velocity of one tower, by our walk through its blocks."""
    stream = Stream(tower, latents, t, text, tower.positions(latents) if positions is None else positions)
    for block in tower.blocks:
        stream.step(block)  # type: ignore[arg-type]
    return stream.finish()


class AVFullDiT(nn.Module):
    """Velocities of video and audio latents at one shared timestep.

    `link` says how far the modalities see each other: 1 as in the paper, 0 not at all (see `attend_jointly`).
    """

    def __init__(self, video: Tower | None, audio: Tower | None = None, joint: JointConfig | None = None) -> None:
        """Raises InputError where the towers cannot be joined so."""
        super().__init__()
        self.video, self.audio, self.joint = video, audio, joint
        self.link = 1.0
        if joint is None and (video is None) != (audio is None):
            return
        if joint is None or video is None or audio is None:
            msg = "two towers need a joint config, and one tower has none"
            raise InputError(msg)
        head_dim = require_joinable(video.width, video.heads, audio.width, audio.heads)
        shallow = min(len(video.blocks), len(audio.blocks))
        if not 1 <= joint.joint_layers <= shallow:
            msg = f"joint_layers is {joint.joint_layers}; these towers allow 1 to {shallow}"
            raise InputError(msg)
        if not joint.tau > 0:
            msg = f"tau is {joint.tau}; it is a ratio of durations, so above 0"
            raise InputError(msg)
        self.widenings = nn.ModuleList(
            Widening(block.streams(), audio.width, video.width, head_dim, joint.init)  # type: ignore[operator]
            for block in audio.blocks[len(audio.blocks) - joint.joint_layers :]
        )

    def forward(
        self, video: Tensor | None, audio: Tensor | None, t: Tensor, video_text: Text | None, audio_text: Text | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Latents at timesteps `t` ``[batch]`` in 0…1 and captions → velocities of the latents' shapes.

        What belongs to a tower that the model has not is not looked at, and None comes back for it.
        """
        if self.video is None:
            return None, walk_alone(*_required("audio", self.audio, audio, t, audio_text))
        if self.audio is None:
            return walk_alone(*_required("video", self.video, video, t, video_text)), None
        assert self.joint is not None
        _, video, _, video_text = _required("video", self.video, video, t, video_text)
        _, audio, _, audio_text = _required("audio", self.audio, audio, t, audio_text)
        joint = self.joint
        at_video, at_audio = synchronised(
            self.video.positions(video), self.audio.positions(audio), joint.tau, joint.positions
        )
        seen = Stream(self.video, video, t, video_text, at_video)
        heard = Stream(self.audio, audio, t, audio_text, at_audio)
        for block in self.video.blocks[: -joint.joint_layers]:
            seen.step(block)  # type: ignore[arg-type]
        for block in self.audio.blocks[: -joint.joint_layers]:
            heard.step(block)  # type: ignore[arg-type]
        turn = self._joint_turn(at_audio, heard)
        pairs = zip(
            self.video.blocks[-joint.joint_layers :],
            self.audio.blocks[-joint.joint_layers :],
            self.widenings,
            strict=True,
        )
        for video_block, audio_block, widening in pairs:
            self._step_jointly(seen, heard, video_block, audio_block, widening, turn)  # type: ignore[arg-type]
        return seen.finish(), heard.finish()

    def _joint_turn(self, positions: Tensor, heard: Stream) -> Rotary:
        assert self.joint is not None and self.video is not None
        if self.joint.joint_layout == "own":
            return heard.turn
        words = positions.new_zeros(heard.condition.prefix, 1)
        return rotary(torch.cat([words, positions[:, :1]]), self.video.bands)

    def _step_jointly(
        self, seen: Stream, heard: Stream, video_block: Block, audio_block: Block, widening: Widening, turn: Rotary
    ) -> None:
        assert self.audio is not None
        video = video_block.open(seen.hidden, seen.condition)
        audio = audio_block.open(heard.hidden, heard.condition)
        query, key, value = widening.widen(audio)
        of_video, of_audio = attend_jointly(
            (rotate(video.query, seen.turn), rotate(video.key, seen.turn), video.value),
            (rotate(query, turn), rotate(key, turn), value),
            seen.condition.key_mask,
            heard.condition.key_mask,
            self.link,
        )
        seen.close(video_block, of_video.flatten(2), None, video)
        own, beside = widening.narrow(of_audio, self.audio.heads, audio)
        heard.close(audio_block, own, beside, audio)


def _required(
    what: str, tower: Tower | None, latents: Tensor | None, t: Tensor, text: Text | None
) -> tuple[Tower, Tensor, Tensor, Text]:
    if tower is None or latents is None or text is None:
        msg = f"this model has a tower for {what}: it needs {what} latents and {what} captions"
        raise InputError(msg)
    return tower, latents, t, text
