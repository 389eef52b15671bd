"""Computes the loss of a batch: the squared error of the velocities of picture and sound."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from avbench.avfulldit.checkpoint import Parts
from avbench.avfulldit.flow import between
from avbench.avfulldit.text import CaptionEncoder
from avbench.training.examples import Batch
from avbench.training.plan import Plan


class Losses(NamedTuple):
    """Mean squared errors of the velocities."""

    video: Tensor | None
    audio: Tensor | None


class Objective(nn.Module):
    """The loss of a batch, as one module, so that accelerate can wrap it."""

    def __init__(self, parts: Parts, plan: Plan) -> None:
        super().__init__()
        self.dit, self.video_text, self.audio_text = parts.dit, parts.video_text, parts.audio_text
        self.plan = plan
        self._codec = parts.video_codec
        for encoder in (self.video_text, self.audio_text):
            if encoder is not None:
                encoder.requires_grad_(plan.train_text)

    def at(self, step: int, device: torch.device) -> None:
        """Set what changes with the step: the link between the modalities."""
        if self.dit.joint is not None:
            rising = step < self.plan.link_steps
            self.dit.link = torch.tensor(step / self.plan.link_steps, device=device) if rising else 1.0

    def forward(
        self, batch: Batch, t: Tensor, kept: Tensor, noises: Mapping[str, Tensor]
    ) -> tuple[Tensor, Losses, Tensor]:
        """Loss, its parts, and a probe of the noised frames that the model was shown: 8 values of each item."""
        nothing = torch.zeros((), device=t.device)
        inputs: dict[str, Any] = dict.fromkeys(("video", "audio", "video_text", "audio_text"))
        targets: dict[str, Tensor | None] = {"video": None, "audio": None}
        for what, clean, encoder, captions in (
            ("video", batch.video, self.video_text, batch.video_captions),
            ("audio", batch.audio, self.audio_text, batch.audio_captions),
        ):
            if clean is None or encoder is None:
                continue
            if clean.dtype == torch.uint8:
                assert self._codec is not None
                latents = self._codec.encode(clean)
            else:
                latents = clean.float()
            inputs[what] = between(latents, noises[what], t)
            targets[what] = noises[what] - latents
            if isinstance(captions, Tensor):
                assert isinstance(encoder, CaptionEncoder)
                inputs[f"{what}_text"] = encoder(torch.where(kept[:, None], captions, encoder.empty))
            else:
                shown = [caption if keep else "" for caption, keep in zip(captions, kept.tolist(), strict=True)]
                inputs[f"{what}_text"] = encoder.read(shown)
        velocities = self.dit(inputs["video"], inputs["audio"], t, inputs["video_text"], inputs["audio_text"])
        weight = (t / self.plan.full_weight_from).clamp(max=1).square()
        losses = Losses(*(_error(a, b, weight) for a, b in zip(velocities, targets.values(), strict=True)))
        total = sum(
            (
                share * loss
                for share, loss in zip((self.plan.video_weight, self.plan.audio_weight), losses, strict=True)
                if loss is not None
            ),
            start=nothing,
        )
        probe = nothing if inputs["video"] is None else inputs["video"].flatten(1)[:, :8]
        return total, losses, probe


def _error(velocity: Tensor | None, target: Tensor | None, weight: Tensor) -> Tensor | None:
    if velocity is None or target is None:
        return None
    return ((velocity.float() - target).square().flatten(1).mean(1) * weight).mean()
