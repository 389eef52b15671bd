"""MS-CLAP beside its authors' package, on random weights in the layout of its checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from avbench.core import Audio, Clip, InputError, NotMeasurable, Prompt
from avbench.features.audio import ms_clap
from avbench.features.audio.ms_clap import MSCLAP, Shape
from avbench.features.table import Requires
from avbench.metrics.table import known_metrics
from avbench.storage import weights

pytest.importorskip("transformers")

GOLDEN = json.loads((Path(__file__).parent / "golden" / "ms_clap.json").read_text())
CAPTIONS = ("a dull knock", "Bang!! it hits the floor! yes", " a bright clang, then rain ")
TINY = Shape(
    width=8, depths=(2, 1, 1, 1), heads=(2, 2, 4, 4), vocabulary=259, places=80, text_width=16, text_depth=2,
    text_heads=2, embedding=24,
)  # fmt: skip


def made_wave(seed):
    """0: 2 s; 1: 8 s, of which 7 s are heard; 2: noise of 1 s."""
    random = np.random.RandomState(seed)
    wave = random.uniform(-0.5, 0.5, 44100 * (2, 8, 1)[seed])
    wave = wave if seed == 2 else wave.cumsum()
    return (0.7 * wave / np.abs(wave).max()).astype(np.float32)


def random_state(shapes):
    """Weights that any version of numpy draws alike, and the masks of old versions of transformers."""
    random, state = np.random.RandomState(0), {}
    for name, shape in sorted(shapes.items()):
        value = random.standard_normal(shape)
        if len(shape) > 1:
            value = value * (0.02 if "wpe" in name or "wte" in name else 1 / np.sqrt(np.prod(shape[1:])))
        elif name.endswith("weight"):
            value = 1 + 0.2 * value
        elif name.endswith("running_var"):
            value = 100 + 10 * value
        else:
            value = 0.2 * value
        value = np.abs(value) if name.endswith("melW") else value
        state[name] = torch.from_numpy(np.asarray(value, dtype=np.float32))
    return state


def position_index():
    """Which of 15 by 15 displacements lies between two of the 8 by 8 places of a window."""
    place = np.stack(np.divmod(np.arange(64), 8))
    down, right = place[:, :, None] - place[:, None] + 7
    return 15 * down + right


def tokenizer_folder(folder):
    """GPT-2's tokenizer with two merges: 256 bytes in its order, the merges, and the mark of the end."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(one) for one in kept] + [chr(256 + n) for n in range(256 - len(kept))]
    merges = ["Ġ k", "l l"]
    words = [*letters, *(merge.replace(" ", "") for merge in merges), "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')


def provide(folder, monkeypatch, state):
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(folder / "cache"))
    monkeypatch.setattr(MSCLAP, "shape", TINY)
    torch.save({"model": state, "epoch": 1}, folder / "weights.pth")
    tokenizer_folder(folder / "tokenizer")
    weights.provide("ms-clap-2023", folder / "weights.pth")
    weights.provide("gpt2-tokenizer", folder / "tokenizer")


@pytest.fixture
def feature(tmp_path, monkeypatch):
    """The whole checkpoint, with what is not used."""
    masks = {"attn.bias": torch.ones(1, 1, 80, 80), "attn.masked_bias": torch.tensor(-1e4)}
    old = {f"caption_encoder.base.h.{n}.{name}": mask for n in (0, 1) for name, mask in masks.items()}
    provide(tmp_path, monkeypatch, {**whole_state(), **old})
    return MSCLAP()


def whole_state():
    indices = {name: torch.from_numpy(position_index()) for name in GOLDEN["indices"]}
    return {**random_state(GOLDEN["shapes"]), **indices}


def clip(wave):
    return Clip(np.zeros((1, 8, 8, 3), np.uint8), 8, Audio(np.atleast_2d(wave), 44100))


def said(caption):
    return Prompt("a", "a ball", audio_caption=caption)


@pytest.mark.slow
def test_the_vectors_are_those_of_its_authors(feature):
    assert feature.requires is Requires.PROMPT
    for seed, sound in enumerate(GOLDEN["sounds"]):
        for caption, text, right in zip(CAPTIONS, GOLDEN["texts"], GOLDEN["similarities"][seed], strict=True):
            row = feature(clip(made_wave(seed)), said(caption))
            np.testing.assert_allclose(row["sound"], sound, atol=1e-5)
            np.testing.assert_allclose(row["text"], text, atol=1e-5)
            assert row["similarity"] == pytest.approx(right, abs=1e-5) and row["truncated"] == 0


@pytest.mark.slow
def test_a_long_caption_is_cut_before_its_end_mark(feature):
    wave = clip(made_wave(2))
    rows = [feature(wave, said("x" * 76 + tail)) for tail in ("abc", "de")]
    assert [row["truncated"] for row in rows] == [1, 1]
    np.testing.assert_array_equal(rows[0]["text"], rows[1]["text"])
    whole = feature(wave, said("x" * 75))
    assert whole["truncated"] == 0 and np.abs(whole["text"] - rows[0]["text"]).max() > 1e-3


def test_what_cannot_be_measured_says_why(feature):
    wave = made_wave(2)
    for one, caption, reason in (
        (clip(wave), None, "no audio caption"),
        (clip(wave), "  ", "no audio caption"),
        (clip(0 * wave), "a knock", "silent"),
        (clip(wave[:-1]), "a knock", "MS-CLAP needs 1000 ms"),
    ):
        with pytest.raises(NotMeasurable, match=reason):
            feature(one, said(caption))


@pytest.mark.slow
def test_other_weights_and_other_tokenizers_are_refused(tmp_path, monkeypatch):
    state = whole_state()
    provide(tmp_path, monkeypatch, state)
    torch.save({name: value for name, value in state.items() if "bn0" not in name}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"the MS-CLAP checkpoint does not fit: .*batch_norm"):
        MSCLAP()
    torch.save(state, tmp_path / "weights.pth")
    words = json.loads((tmp_path / "tokenizer/vocab.json").read_text())
    (tmp_path / "tokenizer/vocab.json").write_text(json.dumps({**words, "more": len(words)}))
    with pytest.raises(InputError, match="no tokenizer of GPT-2: it knows 260 tokens instead of 259"):
        MSCLAP()
    (tmp_path / "tokenizer/vocab.json").unlink()
    with pytest.raises(InputError, match="has no tokenizer"):
        MSCLAP()


def test_the_published_layout_fills_the_network():
    sound, block = "audio_encoder.base.htsat", "audio_encoder.base.htsat.layers.2.blocks.5"
    published = {
        f"{sound}.spectrogram_extractor.stft.conv_real.weight": (513, 1, 1024),
        f"{sound}.logmel_extractor.melW": (513, 64),
        f"{sound}.bn0.running_mean": (64,),
        f"{sound}.patch_embed.proj.weight": (96, 1, 4, 4),
        f"{sound}.layers.2.downsample.reduction.weight": (768, 1536),
        f"{block}.attn.relative_position_bias_table": (225, 16),
        f"{block}.attn.qkv.weight": (1152, 384),
        f"{block}.mlp.fc1.weight": (1536, 384),
        "audio_encoder.projection.linear1.weight": (1024, 768),
        "caption_encoder.base.wte.weight": (50257, 768),
        "caption_encoder.base.h.11.mlp.c_fc.weight": (768, 3072),
        "caption_encoder.projection.linear2.weight": (1024, 1024),
    }
    with torch.device("meta"):
        state = ms_clap.Network(Shape()).state_dict()
    for name, shape in published.items():
        for new, value in ms_clap.renamed({name: np.empty(shape, np.uint8)}).items():
            assert tuple(state[new].shape) == value.shape, name


def test_excess_is_what_is_left_above_the_captions_of_others():
    sound, text = np.eye(2), np.array([[0.8, 0.6], [0.6, 0.8]])
    columns = {"sound": sound, "text": text, "similarity": np.array([0.8, 0.8])}
    beyond_chance = known_metrics()["ms_clap_text_audio_excess"].of_clips
    np.testing.assert_allclose(beyond_chance(columns), [0.2, 0.2])
    with pytest.raises(NotMeasurable, match="the same audio caption"):
        beyond_chance({**columns, "text": np.ones((2, 2))})
