"""Measures how well a clip's sound fits the caption of its sound, by CLAP.

The CLAP score of papers (LAION-CLAP; Wu et al., 2023) is the cosine of the vectors of sound and caption, which some
print times 100. It depends on the checkpoint: compare only numbers of one. A cosine of 0.2 means nothing by itself. So
the vectors are kept, and a metric subtracts the mean cosine that the sound has with the captions of other prompts.

The sound is seen as by the feature ``clap``. The caption is cut after 77 tokens, as LAION's code does. Agreement on
random weights: the cosine is that of transformers' ClapModel, to 1e-6. No number of the real weights was checked.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn import functional

from avbench.core import Clip, InputError, Notes, NotMeasurable, Prompt, noted
from avbench.features.audio.networks import CLAPNetwork, CLAPProtocol
from avbench.features.audio.waveform import SOUND_NOTES
from avbench.features.networks import LOCAL, exact, read_as
from avbench.features.table import Requires
from avbench.storage.weights import UserProvidedProtocol


@dataclass(frozen=True)
class TextAudioProtocol(CLAPProtocol):
    """The settings that decide a clip's agreement with its caption, besides the clip and the caption."""

    name: str = "clap-text-audio"
    output: str = "unit projections"
    text: str = "audio caption"
    tokens: int = 77
    notes: Notes = noted(
        **SOUND_NOTES,
        output="The projections of both networks, scaled to length 1, and their cosine.",
        text="The folder's tokenizer; the caption is cut after `tokens`, which include the marks of start and end.",
    )


class TextAudio(CLAPNetwork):
    """The feature ``clap-text-audio``. Values of one clip:

    - ``similarity``: cosine of sound and caption.
    - ``sound``, ``text``: their vectors, [512] each.
    - ``truncated``: 1 if the caption's end was cut off, else 0.

    The constructor raises InputError without transformers, or if the folder holds no CLAP with a tokenizer.
    """

    protocol = UserProvidedProtocol(TextAudioProtocol())
    requires = Requires.PROMPT
    needs_sound = True
    on_gpu = True
    streams = True
    parts = ("audio", "text")

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(device)
        self._tokenizer = tokenizer_in(self._folder)

    @exact()
    def __call__(self, clip: Clip, prompt: Prompt) -> dict[str, float | np.ndarray]:
        """Measure one clip. Raises NotMeasurable without an audio caption, or where CLAP cannot hear the sound."""
        caption = audio_caption(prompt)
        limits = {"truncation": True, "max_length": self.protocol.tokens}
        tokens = self._tokenizer(caption, return_tensors="pt", **limits).to(self._device)
        read = self._model.text_model(tokens["input_ids"], attention_mask=tokens["attention_mask"])
        text = functional.normalize(self._model.text_projection(read.pooler_output), dim=-1)
        sound = self.sound(clip, self.protocol)
        whole = len(self._tokenizer(caption)["input_ids"])
        return {
            "similarity": float((sound.double() @ text.double().T).item()),
            "sound": sound[0].cpu().numpy(),
            "text": text[0].cpu().numpy(),
            "truncated": float(whole > self.protocol.tokens),
        }


def audio_caption(prompt: Prompt) -> str:
    """The prompt's audio caption. Raises NotMeasurable if it has none."""
    if not (prompt.audio_caption or "").strip():
        msg = "the prompt has no audio caption"
        raise NotMeasurable(msg)
    return str(prompt.audio_caption)


def tokenizer_in(folder: Path) -> Any:
    """The tokenizer of a folder that transformers reads. Raises InputError if it has none."""
    from transformers import AutoTokenizer

    files = ["tokenizer.json"], ["vocab.json", "merges.txt"]
    if not any(all((folder / name).is_file() for name in names) for names in files):
        # without its files transformers makes a tokenizer to which every word is unknown
        msg = f"{folder} has no tokenizer: put tokenizer.json, or vocab.json and merges.txt, into it"
        raise InputError(msg)
    with read_as("tokenizer", folder):
        return AutoTokenizer.from_pretrained(folder, **LOCAL)
