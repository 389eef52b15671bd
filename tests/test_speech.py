"""The word error rate: edits as jiwer counts them, and a tiny Whisper that says what its own class generates."""

import json

import numpy as np
import pytest
import torch

from avbench.core import Audio, Clip, InputError, NotMeasurable, Prompt
from avbench.features.audio.speech import Speech, edits
from avbench.metrics.sound import wer
from avbench.storage import weights

FRAMES = np.zeros((1, 8, 8, 3), np.uint8)
WORDS = ["zero", "wood", "you", "colour", "not", "can", "door", "gray"]


@pytest.mark.parametrize(
    ("words", "transcribed", "right"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "", 3),
        ("a", "b", 1),
        ("a b c d", "b c d", 1),
        ("a b c", "a x b c y", 2),
        ("a b c d e", "e a b c d", 2),
        ("d b a a c b a", "b d a b c c b d", 5),
    ],
)
def test_edits_are_jiwers(words, transcribed, right):
    """The numbers are those of jiwer 4.0.0."""
    assert edits(words.split(), transcribed.split()) == right
    assert edits(transcribed.split(), words.split()) == right


def clip(seed, seconds=1.0, rate=16000):
    t = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * (200 + 150 * seed) * t * (1 + t)) + 0.05 * np.random.RandomState(seed).randn(t.size)
    return Clip(FRAMES, 8, Audio(wave[None].astype(np.float32), rate))


def speech(text):
    return Prompt("a", "A woman speaks.", tags={"speech": text})


@pytest.fixture
def whisper(tmp_path, monkeypatch):
    """A tiny Whisper and a tokenizer of whole words, as transformers stores them."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    folder = tmp_path / "whisper"
    torch.manual_seed(0)
    vocabulary = ["<|endoftext|>", "<|startoftranscript|>", *WORDS]
    config = transformers.WhisperConfig(
        vocab_size=len(vocabulary), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_mel_bins=8, init_std=2.0,
        max_target_positions=12, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=1,
        begin_suppress_tokens=None,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config).eval()
    model.generation_config.max_length = 10
    model.generation_config.suppress_tokens = [0, 1]
    model.save_pretrained(folder)
    extractor = transformers.WhisperFeatureExtractor(feature_size=8)
    extractor.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(vocabulary)}, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = {"eos_token": vocabulary[0], "bos_token": vocabulary[1]}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)
    (folder / "normalizer.json").write_text(json.dumps({"colour": "color"}))
    weights.provide("whisper", folder)
    return model, extractor, folder


@pytest.mark.slow
def test_the_transcript_is_that_of_transformers_own_class(whisper):
    model, extractor, _ = whisper
    feature, heard = Speech(), {}
    for seed in range(4):
        one = clip(seed)
        inputs = extractor(one.audio.waveform[0], sampling_rate=16000, return_tensors="pt", return_attention_mask=True)
        with torch.inference_mode():
            found = model.generate(**inputs, do_sample=False)[0].tolist()
        heard[seed] = feature.transcript(one).split()
        assert heard[seed] == [WORDS[token - 2] for token in found if token > 1] and heard[seed]
    assert len({" ".join(words) for words in heard.values()}) > 1, "or it would not hear the sounds"


@pytest.mark.slow
def test_errors_are_counted_after_whispers_normaliser(whisper):
    feature = Speech()
    transcribed = feature.transcript(clip(0)).split()
    right = " ".join(transcribed)
    rows = {
        "as said": feature(clip(0), speech(right)),
        "spelled and cased otherwise": feature(clip(0), speech(f"Um, {right.replace('colour', 'color').upper()}!")),
        "other words": feature(clip(0), speech("nothing like this")),
        "one more word": feature(clip(0), speech(f"{right} table")),
        "silent": feature(Clip(FRAMES, 8, Audio(np.zeros((1, 16000), np.float32), 16000)), speech("Hello there.")),
    }
    assert [row["errors"] for row in rows.values()] == [0, 0, max(3, len(transcribed)), 1, 2]
    assert rows["silent"] == {"errors": 2, "words": 2, "heard": 0}
    rates = wer({name: np.array([row[name] for row in rows.values()]) for name in rows["silent"]})
    assert rates[0] == 0 and rates[-1] == 1 and rates[2] == max(3, len(transcribed)) / 3


@pytest.mark.slow
def test_what_cannot_be_measured_says_why(whisper):
    feature = Speech()
    for prompt in (Prompt("a", "A woman speaks."), speech(""), speech("..."), speech(None), speech(3)):
        with pytest.raises(NotMeasurable, match="no words to be spoken"):
            feature(clip(0), prompt)
    with pytest.raises(NotMeasurable, match="no sound"):
        feature(Clip(FRAMES, 8), speech("Hello."))
    with pytest.raises(NotMeasurable, match="31 s of sound; Whisper reads 30 s at once"):
        feature(clip(0, seconds=31), speech("Hello."))
    with pytest.raises(NotMeasurable, match=r"30\.002 s of sound; Whisper reads 30 s at once"):
        feature(clip(0, seconds=30.0016), speech("Hello."))
    wave = clip(0).audio.waveform
    with pytest.raises(NotMeasurable, match="its channels cancel each other"):  # not as if nothing were said
        feature(Clip(FRAMES, 8, Audio(np.concatenate([wave, -wave]), 16000)), speech("Hello."))


@pytest.mark.slow
def test_a_folder_without_its_parts_is_refused(whisper):
    folder = whisper[2]
    for name in ("tokenizer.json", "normalizer.json"):
        (folder / name).rename(folder / "away")
        with pytest.raises(InputError, match=f"has no {name}"):
            Speech()
        (folder / "away").rename(folder / name)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as a Whisper"):
        Speech()
