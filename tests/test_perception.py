"""PE-AV: a tiny one beside transformers' own model, and similarities above chance."""

import numpy as np
import pytest
import torch

from avbench.core import Audio, Clip, InputError, NotMeasurable, Prompt
from avbench.features.audio.perception import AudioVideo, TextAudio, TextVideo
from avbench.metrics.table import known_metrics
from avbench.storage import weights

ENCODER = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16,
}  # fmt: skip
WORDS = ["<s>", "<pad>", "</s>", "<unk>", "a", "dull", "bright", "ball", "knock"]


def clip(seed, sound=True):
    random = np.random.RandomState(seed)
    wave = 0.1 * random.standard_normal((2, 48000)).cumsum(axis=1 - seed % 2).astype(np.float32).clip(-5, 5)
    frames = random.randint(0, 256, (5 + seed, 40, 48, 3), dtype=np.uint8)
    return Clip(frames, 8, Audio(wave, 48000) if sound else None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny PE-AV with random weights, its preprocessing and a tokenizer of whole words, as transformers stores it."""
    transformers = pytest.importorskip("transformers", minversion="5")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    marks = {"pad_token_id": 1, "bos_token_id": 0, "cls_token_id": 0, "eos_token_id": 2, "sep_token_id": 2}
    text = {
        "model_type": "modernbert", "hidden_size": 24, "intermediate_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 2, "vocab_size": len(WORDS), **marks,
    }  # fmt: skip
    dac = {"model_type": "dac", "encoder_hidden_size": 4, "codebook_dim": 8, "downsampling_ratios": [2, 8, 10, 12]}
    vision = {
        "model_type": "timm_wrapper", "architecture": "vit_tiny_patch16_224", "num_classes": 16, "global_pool": "map",
        "model_args": {"embed_dim": 24, "depth": 1, "num_heads": 2, "img_size": 32}, "do_pooling": True,
    }  # fmt: skip
    both = {
        "audio_config": {"model_type": "pe_audio_encoder", "dac_config": {**dac, "decoder_hidden_size": 16}, **ENCODER},
        "video_config": {"model_type": "pe_video_encoder", "vision_config": vision, **ENCODER},
    }
    config = transformers.PeAudioVideoConfig(text_config=text, audio_video_config={**both, **ENCODER})
    torch.manual_seed(0)
    model = transformers.PeAudioVideoModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.2 * torch.randn_like(parameter)
    steps = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_sample_frames": False}
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    processor = transformers.PeAudioVideoProcessor(
        transformers.PeAudioFeatureExtractor(),
        transformers.PeVideoVideoProcessor(
            size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3, **steps
        ),
        transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names),
    )
    folder = tmp_path_factory.mktemp("pe") / "tiny"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor, folder


@pytest.fixture
def cache(made, tmp_path, monkeypatch):
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    weights.provide("pe-av", made[2])
    return tmp_path


def transformers_own(made, one, caption):
    """The embeddings of one clip and one text, by the model's own forward pass."""
    model, processor, _ = made
    read = {
        **processor.feature_extractor(one.audio.waveform.mean(axis=0), sampling_rate=48000, return_tensors="pt"),
        **processor.video_processor(videos=[np.array(one.frames)], return_tensors="pt"),
        **processor.tokenizer(caption, return_tensors="pt"),
    }
    read = {name: read[name] for name in ("input_ids", "attention_mask", "input_values", "pixel_values_videos")}
    with torch.inference_mode():
        return model(**read)


@pytest.mark.slow
def test_the_cosines_are_those_of_transformers_own_model(made, cache):
    prompt = Prompt("a", "a bright ball", audio_caption="a dull knock")
    ends = {
        AudioVideo: ("video_embeds", "audio_embeds", prompt.video_caption),
        TextVideo: ("video_embeds", "text_video_embeds", prompt.video_caption),
        TextAudio: ("audio_embeds", "text_audio_embeds", prompt.audio_caption),
    }
    for kind, (one, other, caption) in ends.items():
        feature, found = kind(), []
        for seed in (0, 1):
            right = transformers_own(made, clip(seed), caption)
            cosine = torch.cosine_similarity(right[one].double(), right[other].double()).item()
            row = feature(clip(seed), prompt)
            assert row["similarity"] == pytest.approx(cosine, abs=1e-6)
            np.testing.assert_allclose(row["one"], torch.nn.functional.normalize(right[one])[0], atol=1e-6)
            assert np.linalg.norm(row["other"]) == pytest.approx(1, abs=1e-5)
            found.append(row["similarity"])
        assert abs(found[0] - found[1]) > 1e-4, "or it would not see the clips"


@pytest.mark.slow
def test_every_pair_refuses_what_it_lacks(made, cache):
    prompt, silent_film = Prompt("a", "a bright ball"), clip(0, sound=False)
    assert -1 <= TextVideo()(silent_film, prompt)["similarity"] <= 1
    for kind in (AudioVideo, TextAudio):
        with pytest.raises(NotMeasurable, match="no sound"):
            kind()(silent_film, Prompt("a", "a bright ball", audio_caption="a knock"))
    with pytest.raises(NotMeasurable, match="no audio caption"):
        TextAudio()(clip(0), prompt)


@pytest.mark.slow
def test_a_16_frame_checkpoint_sees_as_many(made, cache, monkeypatch):
    feature, one = AudioVideo(), clip(4)
    every = feature(one, Prompt("a", "a ball"))["one"]
    monkeypatch.setattr(feature._processor.video_processor, "num_frames", 3)
    few = feature(one, Prompt("a", "a ball"))["one"]
    np.testing.assert_array_equal(few, feature(Clip(one.frames[[0, 4, 8]], 8, one.audio), Prompt("a", "a"))["one"])
    assert np.abs(few - every).max() > 1e-4


@pytest.mark.slow
def test_a_folder_without_a_part_is_refused(made, cache):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(made[2], cache / "less")
    tensors = load_file(cache / "less/model.safetensors")
    lost = next(name for name in tensors if name.startswith("audio_model.audio_head"))
    save_file(
        {name: tensors[name] for name in tensors if name != lost}, cache / "less/model.safetensors", {"format": "pt"}
    )
    weights.provide("pe-av", cache / "less")
    with pytest.raises(InputError, match=r"is no PE-AV: its weights lack audio_model\.audio_head"):
        AudioVideo()
    (cache / "less/model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as a PE-AV"):
        AudioVideo()


def test_excess_is_what_is_left_above_the_sounds_of_others():
    """Two clips whose sounds fit them, and one with a sound that fits neither."""
    one = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    other = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    columns = {"one": one, "other": other, "similarity": np.array([1.0, 1.0, 0.6])}
    pe_av_excess, pe_text_audio_excess = (
        known_metrics()[f"{name}_excess"].of_clips for name in ("pe_av", "pe_text_audio")
    )
    np.testing.assert_allclose(pe_av_excess(columns), [1 - (0 + 0.6) / 2, 1 - (0 + 0.8) / 2, 0.6 - (1 + 0) / 2])
    swapped = {**columns, "other": other[[1, 0, 2]], "similarity": np.array([0.0, 0.0, 0.6])}
    assert (pe_av_excess(swapped)[:2] < 0).all(), "with another clip's sound it falls below chance"
    same = {**columns, "other": np.ones((3, 2))}
    for metric, what in ((pe_av_excess, "sound"), (pe_text_audio_excess, "audio caption")):
        with pytest.raises(NotMeasurable, match=f"the same {what}"):
            metric(same)
