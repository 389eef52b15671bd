"""Samples clips from captions and seeds.

The noise of a clip depends only on prompt id, seed and modality, so an arm with sound and one without start from the
same video noise. A batch is always filled to its full size, because a matrix product may round differently in another
shape, and so a clip's bits do not depend on how many were asked for.

With `Sampling.audio_again` the sound is sampled twice. The second pass starts from the same noise of the sound. It sees
the finished video, noised to its own timestep, instead of one that is being made, and leaves it as it is. At t ≥ 0.3
the sound is guided away from what the audio tower predicts alone, at the positions of its own pretraining.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avbench.avfulldit.checkpoint import Parts
from avbench.avfulldit.flow import Pair, between, guided, integrate, noise
from avbench.avfulldit.model import walk_alone
from avbench.avfulldit.tower import Text
from avbench.core import Audio, Clip, UnusableError

_GUIDED_FROM = 0.3
"""The second pass over sound is not guided below this timestep, where only detail is left to decide."""


@dataclass(frozen=True)
class Wish:
    """A clip to sample."""

    name: str
    """Id of the prompt. Together with the seed it decides the noise."""
    seed: int
    video_caption: str
    audio_caption: str


def start(parts: Parts, wish: Wish) -> Pair:
    """The noise that a clip starts from, ``[channels, …]`` each; None for a modality that the model lacks."""
    spec = parts.clip_spec
    video = audio = None
    if parts.video_codec is not None and parts.dit.video is not None:
        video = noise(parts.video_codec.shape(spec.frames, spec.height, spec.width), "video", wish.name, wish.seed)
    if parts.audio_codec is not None and parts.dit.audio is not None:
        assert spec.samples is not None  # a model with sound has a clip spec with sound
        audio = noise(parts.audio_codec.shape(spec.samples), "audio", wish.name, wish.seed)
    return video, audio


@torch.no_grad()
def make(parts: Parts, wishes: Sequence[Wish], batch: int) -> list[Clip]:
    """Sample a clip for each of up to `batch` wishes. An arm without sound makes silent clips.

    Raises UnusableError where latents are not finite.
    """
    filled = [*wishes, *[wishes[-1]] * (batch - len(wishes))]
    starts = [start(parts, wish) for wish in filled]
    device = next(parts.dit.parameters()).device
    video, audio = (_stacked([pair[i] for pair in starts], device) for i in range(2))
    sampling = parts.sampling
    scales = (sampling.video_guidance, sampling.audio_guidance)
    # with guidance each item is evaluated twice in one forward pass: with the negative caption, then with its own
    both = any(scale != 1 for scale, x in zip(scales, (video, audio), strict=True) if x is not None)
    texts = [
        None if encoder is None else encoder.read(([negative] * batch if both else []) + captions)
        for encoder, negative, captions in (
            (parts.video_text, sampling.video_negative, [wish.video_caption for wish in filled]),
            (parts.audio_text, sampling.audio_negative, [wish.audio_caption for wish in filled]),
        )
    ]

    def velocity(x: Pair, t: float) -> Pair:
        if not both:
            return parts.dit(*x, torch.full((batch,), t, device=device), *texts)
        doubled = [None if part is None else torch.cat([part, part]) for part in x]
        velocities = parts.dit(*doubled, torch.full((2 * batch,), t, device=device), *texts)
        of_video, of_audio = (_guided(part, scale) for part, scale in zip(velocities, scales, strict=True))
        return of_video, of_audio

    latents, audio_latents = integrate(velocity, (video, audio), sampling)
    assert video is not None and latents is not None and parts.video_codec is not None  # a clip has frames
    audio_text = texts[1]
    if sampling.audio_again and audio is not None and audio_text is not None:
        # without the negative captions
        own = Text(audio_text.states[-batch:], None if audio_text.mask is None else audio_text.mask[-batch:])
        audio_latents = _sound_again(parts, velocity, (video, latents), audio, own)
    for what, part in (("video", latents), ("audio", audio_latents)):
        if part is not None and (bad := int((~part.isfinite()).sum())):
            msg = f"the model's {what} latents hold {bad} values of {part.numel()} that are NaN or infinite"
            raise UnusableError(msg)
    frames = parts.video_codec.decode(latents).cpu().numpy()
    waves = None
    if audio_latents is not None:
        assert parts.audio_codec is not None and parts.clip_spec.samples is not None
        waves = parts.audio_codec.decode(audio_latents, parts.clip_spec.samples).clamp(-1, 1).cpu().numpy()
    return [_clip(parts, frames[i], None if waves is None else waves[i]) for i in range(len(wishes))]


def _sound_again(
    parts: Parts, velocity: Callable[[Pair, float], Pair], video: tuple[Tensor, Tensor], audio: Tensor, text: Text
) -> Tensor | None:
    """Sample the sound once more, from its noise `audio`, beside a video that is given as its noise and its latents."""
    tower, guidance = parts.dit.audio, parts.sampling.audio_again
    assert tower is not None

    def again(x: Pair, t: float) -> Pair:
        times, heard = torch.full((len(audio),), t, device=audio.device), x[1]
        together = velocity((between(video[1], video[0], times), heard), t)[1]
        if t < _GUIDED_FROM or heard is None or together is None:
            return None, together
        return None, guided(walk_alone(tower, heard, times, text), together, 1 + guidance)

    return integrate(again, (None, audio), parts.sampling)[1]


def _guided(velocity: Tensor | None, scale: float) -> Tensor | None:
    """The guided velocity, from those of the negative captions followed by those of the captions."""
    if velocity is None:
        return None
    negative, positive = velocity.chunk(2)
    return guided(negative, positive, scale)


def _clip(parts: Parts, frames: np.ndarray, wave: np.ndarray | None) -> Clip:
    rate = parts.clip_spec.sample_rate
    audio = None if wave is None or rate is None else Audio(wave, rate)
    return Clip(frames, parts.clip_spec.fps, audio)


def _stacked(parts: Sequence[Tensor | None], device: torch.device) -> Tensor | None:
    given = [part for part in parts if part is not None]
    return torch.stack(given).to(device) if given else None
