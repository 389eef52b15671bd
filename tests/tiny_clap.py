"""A tiny CLAP of random weights, and a tokenizer of whole words, as transformers stores them."""

import pytest
import torch


def clap_folder(folder):
    """Write the network into a folder; return it and its feature extractor."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    text = {
        "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "max_position_embeddings": 20, "projection_dim": 8,
    }  # fmt: skip
    audio = {
        "window_size": 4, "hidden_size": 32, "depths": [1, 1], "num_attention_heads": [2, 2], "num_classes": 3,
        "patch_embeds_hidden_size": 16, "projection_dim": 8,
    }  # fmt: skip
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=8, initializer_factor=20.0)
    model = transformers.ClapModel(config).eval()
    model.save_pretrained(folder)
    extractor = transformers.ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50)
    extractor.save_pretrained(folder)
    return model, extractor


def tokenizer_folder(folder):
    """Write the tokenizer into a folder. It knows nine words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "<pad>", "</s>", "<unk>", "a", "dull", "bright", "knock", "clang"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    marks = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)
