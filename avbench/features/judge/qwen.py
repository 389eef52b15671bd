"""Judges whether what a clip shows is physically possible, by asking a vision-language model of the Qwen-VL family.

There are two questions: that of VideoPhy-2 (Bansal et al., 2025), whether a video adheres to the physical laws, and one
for the third dimension of VideoScore2 (He et al., 2025), physical and common-sense consistency. Each is asked twice,
once with 5 as the best answer and once with 1. A model that prefers a digit whatever it sees gets 3, the middle.

Nothing is sampled. An answer is the model's probability of each of the digits 1 to 5 as the first token of its answer,
and the rating of a question is their mean, weighted by the probabilities, with 5 as the best. If the digits together
have less than half of the probability, the model does not answer the question, and the clip has no number. On a CPU
two calls give the same number, bit for bit. How much it depends on the words is the standard deviation over questions.

A rating is a model's opinion and no measurement of physics; compare only ratings by one model. The model is the user's
folder of Qwen2.5-VL or Qwen3-VL, possibly fine-tuned: VideoScore2 is a Qwen2.5-VL, trained to write a reasoning before
its answer, which it cannot do here, since only the first token is read. VideoPhy-2's own judge is another network
(mPLUG-Owl). So these numbers are neither VideoPhy-2's nor VideoScore2's. At most 16 frames are shown, evenly spaced.

Network, preprocessing and chat template are transformers' own. On random weights the probabilities agree with those
that transformers' ``generate`` reports for the first token of an answer, to 1e-6. No number of the real weights was
checked.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from avbench.core import Clip, InputError, Notes, if_missing, noted
from avbench.features.judge.questions import CHOICES, JudgeProtocol, rated, shown
from avbench.features.networks import LOCAL, exact, pretrained, read_as
from avbench.storage.weights import UserProvidedProtocol, locate


@dataclass(frozen=True)
class QwenProtocol(JudgeProtocol):
    """The settings that decide a clip's rating, besides the clip."""

    name: str = "physics-judge"
    version: int = 1
    resize: str = "folder's"
    template: str = "folder's"
    weights: str = "qwen-vl"
    weights_sha256: str = ""
    precision: str = "float32, softmax float64"
    notes: Notes = noted(
        questions="VideoPhy-2's question and one for VideoScore2's third dimension, each with either end as the best.",
        template="The chat template of the folder; the model's answer begins right after it.",
    )


class PhysicsJudge:
    """The feature ``physics-judge``; its values are those of `rated`.

    The constructor raises InputError without a transformers that has the model, or if the folder holds none.
    """

    protocol = UserProvidedProtocol(QwenProtocol())
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        folder = locate(QwenProtocol.weights)
        with if_missing("Qwen-VL needs transformers 4.57 or later; run `pip install -U transformers`"):
            from transformers import (
                AutoConfig,
                AutoProcessor,
                Qwen2_5_VLForConditionalGeneration,
                Qwen3VLForConditionalGeneration,
            )
        kinds = {"qwen2_5_vl": Qwen2_5_VLForConditionalGeneration, "qwen3_vl": Qwen3VLForConditionalGeneration}
        with read_as("Qwen-VL", folder):
            config = AutoConfig.from_pretrained(folder, **LOCAL)
            self._processor: Any = AutoProcessor.from_pretrained(folder, **LOCAL)
        if hasattr(self._processor.video_processor, "cap_pixels_per_frame"):
            # The cap is above `longest`, so it changes nothing; without a choice, transformers warns.
            self._processor.video_processor.cap_pixels_per_frame = True
        if config.model_type not in kinds:
            msg = f"{folder} holds a model of type {config.model_type!r}; choices: {', '.join(kinds)}"
            raise InputError(msg)
        if not self._processor.chat_template:
            msg = f"{folder} has no chat template: put chat_template.json or chat_template.jinja beside the weights"
            raise InputError(msg)
        tokenizer = self._processor.tokenizer
        # A digit may begin with a space, which some tokenizers make a token of its own.
        self._tokens = [
            {
                tokens[0]
                for text in (one, f" {one}")
                if len(tokens := tokenizer(text, add_special_tokens=False)["input_ids"]) == 1
                and tokens[0] != tokenizer.unk_token_id
            }
            for one in CHOICES
        ]
        if not all(self._tokens):
            msg = f"the tokenizer of {folder} has no token for each of the digits 1 to 5"
            raise InputError(msg)
        kind = kinds[config.model_type]
        self._model = pretrained(kind, folder, "Qwen-VL", [""], use_safetensors=True).to(self._device)

    def __call__(self, clip: Clip) -> dict[str, float | np.ndarray]:
        """Judge one clip. Raises NotMeasurable if it has one frame, or if answers are not among the choices."""
        places, frames = shown(clip, self.protocol)
        when = {"total_num_frames": len(clip.frames), "fps": float(clip.fps), "frames_indices": places}
        return rated(lambda question: self._probabilities(frames, when, question), self.protocol)

    @exact()
    def _probabilities(self, frames: np.ndarray, when: dict[str, Any], question: str) -> np.ndarray:
        """Of each of CHOICES as the first token of the answer, ``[choices]``."""
        asked = [{"type": "video"}, {"type": "text", "text": question}]
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
        )
        read = self._processor(
            text=[text],
            videos=[frames],
            video_metadata=[dict(when)],
            do_sample_frames=False,
            return_tensors="pt",
        ).to(self._device)
        logits = self._model(**read, logits_to_keep=1).logits[0, -1]
        chances = logits.double().softmax(dim=-1).cpu().numpy()
        return np.array([chances[list(tokens)].sum() for tokens in self._tokens])
