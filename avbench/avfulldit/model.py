"""Defines the model AVFullDiT: two towers whose last layers are joined.

The first layers of each tower stay its own; the last `joint_layers` of both are paired and attend together
(AVFull-Attention). Without an audio tower it is the video tower alone: the T2V arm. Source: arXiv 2512.02457.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avbench.avfulldit.attention import Initialisation, Widening, attend, attend_jointly, require_joinable
from avbench.avfulldit.pixels import Head, Stem
from avbench.avfulldit.rope import AudioPositions, Rotary, rotary_on, rotate, synchronised
from avbench.avfulldit.tower import Block, Condition, Text, Tower
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
    """One tower and its state between blocks."""

    def __init__(self, tower: Tower, latents: Tensor, t: Tensor, text: Text, positions: Tensor) -> None:
        self.tower, self.latents, self.t = tower, latents, t
        self.hidden, self.condition = tower.start(latents, t, text)
        self.turn = tower.turn(positions, self.condition.prefix)

    def finish(self) -> Tensor:
        """The velocity."""
        return self.tower.finish(self.hidden, self.condition, self.latents, self.t)


def step_alone(block: Block, hidden: Tensor, condition: Condition, turn: Rotary) -> Tensor:
    """Run one block of one tower."""
    opened = block.open(hidden, condition)
    query, key = rotate(opened.query, turn), rotate(opened.key, turn)
    attended = attend(query, key, opened.value, condition.key_mask)
    return block.close(hidden, attended.flatten(2), None, opened, condition)


def step_jointly(
    blocks: tuple[Block, Block],
    widening: Widening,
    hidden: tuple[Tensor, Tensor],
    conditions: tuple[Condition, Condition],
    turns: tuple[Rotary, Rotary],
    link: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """Run a pair of blocks, one of video and one of audio, that attend together."""
    video, audio = (block.open(x, condition) for block, x, condition in zip(blocks, hidden, conditions, strict=True))
    query, key, value = widening.widen(audio)
    of_video, of_audio = attend_jointly(
        (rotate(video.query, turns[0]), rotate(video.key, turns[0]), video.value),
        (rotate(query, turns[1]), rotate(key, turns[1]), value),
        conditions[0].key_mask,
        conditions[1].key_mask,
        link,
    )
    own, beside = widening.narrow(of_audio, audio.query.shape[2], audio)
    return (
        blocks[0].close(hidden[0], of_video.flatten(2), None, video, conditions[0]),
        blocks[1].close(hidden[1], own, beside, audio, conditions[1]),
    )


def walk_alone(
    tower: Tower, latents: Tensor, t: Tensor, text: Text, step: Callable[..., Tensor] = step_alone
) -> Tensor:
    """Compute the velocity of one tower, block by block."""
    stream = Stream(tower, latents, t, text, tower.positions(latents))
    for block in tower.blocks:
        stream.hidden = step(block, stream.hidden, stream.condition, stream.turn)
    return stream.finish()


class AVFullDiT(nn.Module):
    """Velocities of video and audio latents at one shared timestep.

    `link` is how strongly the modalities attend to each other: 1 as in the paper, 0 not at all (see `attend_jointly`).
    """

    def __init__(self, video: Tower | None, audio: Tower | None = None, joint: JointConfig | None = None) -> None:
        """Raises InputError if the towers cannot be joined in this way."""
        super().__init__()
        self.video, self.audio, self.joint = video, audio, joint
        self.link: float | Tensor = 1.0
        self._alone: Callable[..., Any] = step_alone
        self._jointly: Callable[..., Any] = step_jointly
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

        Arguments of a tower that the model lacks are ignored, and None is returned for it.
        """
        if self.video is None:
            return None, walk_alone(*_required("audio", self.audio, audio, t, audio_text), step=self._alone)
        if self.audio is None:
            return walk_alone(*_required("video", self.video, video, t, video_text), step=self._alone), None
        assert self.joint is not None
        _, video, _, video_text = _required("video", self.video, video, t, video_text)
        _, audio, _, audio_text = _required("audio", self.audio, audio, t, audio_text)
        joint = self.joint
        at_video, at_audio = synchronised(
            self.video.positions(video), self.audio.positions(audio), joint.tau, joint.positions
        )
        video_stream = Stream(self.video, video, t, video_text, at_video)
        audio_stream = Stream(self.audio, audio, t, audio_text, at_audio)
        for stream in (video_stream, audio_stream):
            for block in stream.tower.blocks[: -joint.joint_layers]:
                stream.hidden = self._alone(block, stream.hidden, stream.condition, stream.turn)
        turns = video_stream.turn, self._joint_turn(at_audio, audio_stream)
        pairs = zip(
            self.video.blocks[-joint.joint_layers :],
            self.audio.blocks[-joint.joint_layers :],
            self.widenings,
            strict=True,
        )
        for video_block, audio_block, widening in pairs:
            hidden, conditions = (
                (video_stream.hidden, audio_stream.hidden),
                (video_stream.condition, audio_stream.condition),
            )
            video_stream.hidden, audio_stream.hidden = self._jointly(
                (video_block, audio_block), widening, hidden, conditions, turns, self.link
            )
        return video_stream.finish(), audio_stream.finish()

    def compile(self, **options: Any) -> None:
        """Compile the blocks, with one program for all equal blocks; `options` are for `torch.compile`."""
        options = {"dynamic": False, **options}
        self._alone, self._jointly = torch.compile(step_alone, **options), torch.compile(step_jointly, **options)
        for module in self.modules():
            if isinstance(module, Stem | Head):
                module.compile(**options)

    def _joint_turn(self, positions: Tensor, audio_stream: Stream) -> Rotary:
        assert self.joint is not None and self.video is not None
        if self.joint.joint_layout == "own":
            return audio_stream.turn
        words = positions.new_zeros(audio_stream.condition.prefix, 1)
        places = torch.cat([words, positions[:, :1]])
        return rotary_on(audio_stream.hidden.device, places, self.video.bands)


def _required(
    what: str, tower: Tower | None, latents: Tensor | None, t: Tensor, text: Text | None
) -> tuple[Tower, Tensor, Tensor, Text]:
    if tower is None or latents is None or text is None:
        msg = f"this model has a tower for {what}: it needs {what} latents and {what} captions"
        raise InputError(msg)
    return tower, latents, t, text
