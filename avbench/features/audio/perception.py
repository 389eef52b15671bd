"""Measures how well sound, picture and captions fit each other, by PE-AV: one network for every pair of them.

PE-AV (Perception Encoder Audio-Visual; Meta, 2025) gives one vector to a sound, one to the frames of a clip, and two to
a text: one to compare with sounds, one with pictures. There is one feature per pair, so that a clip without sound still
has its picture compared with its caption:

- ``pe-av``: sound and frames.
- ``pe-text-video``: video caption and frames.
- ``pe-text-audio``: audio caption and sound.

A value is a cosine. It means nothing by itself, so the vectors are kept, and a metric subtracts the mean cosine with
those of other clips or captions. Every frame is seen, resized to a square as the folder says (the checkpoints called
``16-frame`` see 16, evenly spaced); the network is not told the frame rate. Channels are averaged and resampled by
scipy.

The network and its preprocessing are transformers' own. The user provides the weights. On random weights the vectors
agree with those of transformers' PeAudioVideoModel to 1e-6. No number of the real weights was checked.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional

from avbench.core import Clip, Notes, NotMeasurable, Prompt, if_missing, noted
from avbench.features.audio.waveform import SOUND_NOTES, SoundProtocol, mono_waveform
from avbench.features.networks import LOCAL, exact, pretrained, read_as
from avbench.features.table import Requires
from avbench.storage.weights import UserProvidedProtocol, locate


@dataclass(frozen=True)
class PEProtocol(SoundProtocol):
    """The settings that decide the similarity of a pair, besides the clip and the captions."""

    name: str = ""
    version: int = 1
    rate: int = 48000
    shortest: int = 48000
    frames: str = "folder's, else all"
    resize: str = "folder's"
    tokens: int = 512
    output: str = "cosine, unit vectors"
    weights: str = "pe-av"
    notes: Notes = noted(**SOUND_NOTES, tokens="A longer caption is cut; the marks of start and end are tokens too.")


class Pair:
    """Two of sound, frames and captions. Values of one clip:

    - ``similarity``: their cosine.
    - ``one``, ``other``: their vectors, of length 1.

    The constructor raises InputError without a transformers that has PE-AV, or if the folder holds none.
    """

    requires = Requires.PROMPT
    on_gpu = True
    streams = True
    ends: ClassVar[tuple[str, str]]
    """Of ``sound``, ``frames``, ``audio_caption`` and ``video_caption``."""
    protocol: Any

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        folder = locate(PEProtocol.weights)
        with if_missing("PE-AV needs transformers 5 or later; run `pip install -U transformers`"):
            from transformers import PeAudioVideoModel, PeAudioVideoProcessor
        with read_as("PE-AV", folder):
            self._processor: Any = PeAudioVideoProcessor.from_pretrained(folder, **LOCAL)
        self._model = pretrained(PeAudioVideoModel, folder, "PE-AV", [""], use_safetensors=True).to(self._device)

    @exact()
    def __call__(self, clip: Clip, prompt: Prompt | None = None) -> dict[str, float | np.ndarray]:
        """Measure one clip. Raises NotMeasurable if an end is missing, the sound is silent, or shorter than 1 s."""
        vector: dict[str, Callable[[], torch.Tensor]] = {
            "sound": lambda: self._sound(clip),
            "frames": lambda: self._frames(clip),
            "audio_caption": lambda: self._model.audio_model.text_audio_head(
                self._text(prompt and prompt.audio_caption)
            ),
            "video_caption": lambda: self._model.video_model.text_video_head(
                self._text(prompt and prompt.video_caption)
            ),
        }
        one, other = (functional.normalize(vector[end](), dim=-1)[0] for end in self.ends)
        return {
            "similarity": float(one.double() @ other.double()),
            "one": one.cpu().numpy(),
            "other": other.cpu().numpy(),
        }

    def _sound(self, clip: Clip) -> torch.Tensor:
        wave = mono_waveform(clip, self.protocol, "PE-AV")
        read = self._processor.feature_extractor(wave, sampling_rate=self.protocol.rate, return_tensors="pt")
        found = self._model.audio_model.audio_encoder(input_values=read["input_values"].to(self._device))
        return self._model.audio_model.audio_head(found.pooler_output)

    def _frames(self, clip: Clip) -> torch.Tensor:
        reader, last = self._processor.video_processor, len(clip.frames) - 1
        chosen: list[int] | slice = slice(None)
        if count := reader.num_frames:  # evenly spaced, as transformers chooses them
            chosen = [int(place * last / (count - 1)) for place in range(count)]
        read = reader(videos=[np.array(clip.frames[chosen])], do_sample_frames=False, return_tensors="pt")
        found = self._model.video_model.video_encoder(read["pixel_values_videos"].to(self._device))
        return self._model.video_model.video_head(found.pooler_output)

    def _text(self, caption: str | None) -> torch.Tensor:
        if not (caption or "").strip():
            msg = "the prompt has no audio caption"
            raise NotMeasurable(msg)
        limits = {"truncation": True, "max_length": self.protocol.tokens}
        tokens = self._processor.tokenizer(caption, return_tensors="pt", **limits).to(self._device)
        asked = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
        return self._model.text_model(**asked, output_hidden_states=True).hidden_states[-1][:, 0]


_PROTOCOL = PEProtocol()


class AudioVideo(Pair):
    """The feature ``pe-av``: ``one`` is the frames' vector, ``other`` the sound's."""

    requires = Requires.CLIP
    ends = ("frames", "sound")
    needs_sound = True
    protocol = UserProvidedProtocol(replace(_PROTOCOL, name="pe-av"))


class TextVideo(Pair):
    """The feature ``pe-text-video``: ``one`` is the frames' vector, ``other`` the video caption's."""

    ends = ("frames", "video_caption")
    reads_captions = True
    protocol = UserProvidedProtocol(replace(_PROTOCOL, name="pe-text-video"))


class TextAudio(Pair):
    """The feature ``pe-text-audio``: ``one`` is the sound's vector, ``other`` the audio caption's."""

    ends = ("sound", "audio_caption")
    needs_sound = True
    protocol = UserProvidedProtocol(replace(_PROTOCOL, name="pe-text-audio"))
