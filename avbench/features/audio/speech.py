"""Counts the words of a prompt's speech that a clip gets wrong, by Whisper: the word error rate.

A prompt says what is spoken by its tag ``speech``, the words alone. In a prompts file it is a field of that name:

    {"id": "p1", "video_caption": "A woman greets the camera.", "speech": "Hello, nice to meet you."}

Whisper (Radford et al., 2023) transcribes the sound: in English, greedily, without timestamps. Words and transcript go
through Whisper's own normaliser of English text, which removes case, punctuation and fillers and unifies spellings,
contractions and numbers. Errors are the substitutions, deletions and insertions of the shortest edit, as jiwer counts
them. A silent track says nothing, so every word is an error; Whisper does not hear it, since it invents words for
silence, and it may do so for noise and music, too. Papers take their numbers from different Whispers: compare only
numbers of one checkpoint.

Network, spectrogram, tokenizer and normaliser are transformers' own. The weights are the folder of the
hub. With random weights the transcripts agree with those of transformers' class word for word, and the errors of 300
random pairs of sentences with those of jiwer 4.0.0. No number of the real weights was checked.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from avbench.core import Clip, InputError, Notes, NotMeasurable, Prompt, beside_limit, if_missing, noted
from avbench.features.audio import waveform
from avbench.features.networks import LOCAL, exact, pretrained, read_as
from avbench.features.table import Requires
from avbench.storage.reading import read_json
from avbench.storage.weights import UserProvidedProtocol, locate


@dataclass(frozen=True)
class SpeechProtocol(waveform.SoundProtocol):
    """The settings that decide a clip's errors, besides the clip and the words."""

    name: str = "whisper"
    version: int = 1
    rate: int = 16000
    shortest: int = 1
    longest: int = 480000
    """Samples: what Whisper reads at once. A longer sound is not measured."""
    language: str = "en"
    decoding: str = "greedy, no timestamps"
    text: str = "tag speech"
    normaliser: str = "Whisper's, English"
    output: str = "edits, words"
    weights: str = "whisper"
    notes: Notes = noted(
        **waveform.MIXED_DOWN,
        silent_below="dBFS: a track without a sample above it is silent, and every word is an error.",
    )


class Speech:
    """The feature ``whisper``. Values of one clip:

    - ``errors``: words that were substituted, left out or added.
    - ``words``: words that the prompt's tag ``speech`` has.
    - ``heard``: words of the transcript.

    The constructor raises InputError without transformers, or if the folder holds no Whisper with its tokenizer.
    """

    protocol = UserProvidedProtocol(SpeechProtocol())
    requires = Requires.PROMPT
    needs_sound = True
    on_gpu = True
    streams = True

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        folder = locate(SpeechProtocol.weights)
        with if_missing("Whisper needs transformers 4.53 or later; run `pip install 'avbench[towers]'`"):
            from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration
            from transformers.models.whisper.english_normalizer import EnglishTextNormalizer
        self._normalised = EnglishTextNormalizer(read_json(_required(folder, "normalizer.json"), dict))
        _required(folder, "tokenizer.json")
        with read_as("Whisper", folder):
            self._extractor = WhisperFeatureExtractor.from_pretrained(folder, **LOCAL)
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
        whisper = pretrained(WhisperForConditionalGeneration, folder, "Whisper", ["model"], use_safetensors=True)
        self._model = whisper.to(self._device)

    def __call__(self, clip: Clip, prompt: Prompt) -> dict[str, float]:
        """Measure one clip.

        Raises NotMeasurable without words in the prompt, or with sound that is missing, above 30 s, or cancels itself.
        """
        words = self._words(prompt)
        transcribed = self._normalised(self.transcript(clip)).split()
        return {
            "errors": float(edits(words, transcribed)),
            "words": float(len(words)),
            "heard": float(len(transcribed)),
        }

    @exact()
    def transcript(self, clip: Clip) -> str:
        """What Whisper hears, not yet normalised; nothing in a silent track."""
        audio, seen = waveform.sound_of(clip), self.protocol
        mono = waveform.mixed_down(audio)
        if waveform.is_silent(mono, seen.silent_below):
            return ""
        wave = waveform.resampled(mono, audio.sample_rate, seen.rate)
        if len(wave) > seen.longest:
            most = seen.longest / seen.rate
            msg = f"the clip has {beside_limit(audio.seconds, most)} s of sound; Whisper reads {most:g} s at once"
            raise NotMeasurable(msg)
        inputs = self._extractor(wave, sampling_rate=seen.rate, return_tensors="pt", return_attention_mask=True)
        several = getattr(self._model.generation_config, "is_multilingual", False)
        asked = {"language": seen.language, "task": "transcribe"} if several else {}
        found = self._model.generate(
            inputs["input_features"].to(self._device),
            attention_mask=inputs["attention_mask"].to(self._device),
            do_sample=False,
            num_beams=1,
            **asked,
        )
        return self._tokenizer.decode(found[0], skip_special_tokens=True)

    def _words(self, prompt: Prompt) -> list[str]:
        speech = prompt.tags.get("speech")
        words = self._normalised(speech).split() if isinstance(speech, str) else []
        if not any(letter.isalnum() for word in words for letter in word):
            msg = "the prompt has no words to be spoken, in its tag `speech`"
            raise NotMeasurable(msg)
        return words


def edits(words: list[str], transcribed: list[str]) -> int:
    """The fewest substitutions, deletions and insertions that turn one list into the other (Levenshtein)."""
    row = np.arange(len(transcribed) + 1)
    for word in words:
        changed = row[:-1] + [word != other for other in transcribed]
        best = np.concatenate([row[:1] + 1, np.minimum(changed, row[1:] + 1)])
        # An insertion costs 1 for each place to the left.
        row = np.minimum.accumulate(best - np.arange(len(best))) + np.arange(len(best))
    return int(row[-1])


def _required(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        msg = f"{folder} has no {name}; put it beside the weights of Whisper"
        raise InputError(msg)
    return folder / name
