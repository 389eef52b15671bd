"""Tiny vision-language models of the Qwen-VL family with random weights, as transformers stores them."""

import re

import pytest
import torch

from avbench.features.judge.questions import QUESTIONS

MARKS = [
    "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
]  # fmt: skip
WORDS = sorted({word for question in QUESTIONS for word in re.findall(r"\w+|[^\w\s]+", question.text)} - {"1", "5"})
DIGITS = [str(number) for number in range(10)]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The layout of Qwen's own template, without system prompt, pictures and tools."""


def qwen_folder(folder, kind, *, answers=DIGITS[1:6]):
    """Write a network, its preprocessing, tokenizer and chat template into a folder; return network and processor.

    The words in `answers` are much more probable than others at the beginning of an answer.
    """
    transformers = pytest.importorskip("transformers", minversion="5")
    place = {word: number for number, word in enumerate([*MARKS, *DIGITS, *WORDS])}
    text = {
        "vocab_size": len(place), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096,
        "bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32, "patch_size": 14,
    }  # fmt: skip
    tokens = {
        "image_token_id": place["<|image_pad|>"], "video_token_id": place["<|video_pad|>"],
        "vision_start_token_id": place["<|vision_start|>"], "vision_end_token_id": place["<|vision_end|>"],
    }  # fmt: skip
    torch.manual_seed(0)
    if kind == "qwen3_vl":
        vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 64}
        config = transformers.Qwen3VLConfig(text_config=text | {"head_dim": 16}, vision_config=vision, **tokens)
        model, name = transformers.Qwen3VLForConditionalGeneration(config), "Qwen3VL"
    else:
        vision |= {"fullatt_block_indexes": [1]}
        config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)
        model, name = transformers.Qwen2_5_VLForConditionalGeneration(config), "Qwen2_5_VL"
    model.eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.3 * torch.randn_like(parameter)
    # Every word has a large first component, which the answers like and other words do not.
    model.model.language_model.embed_tokens.weight[:, 0] = 4
    model.lm_head.weight[:, 0] = -2
    model.lm_head.weight[[place[word] for word in answers], 0] = 2
    sides = {"shortest_edge": 28 * 28, "longest_edge": 64 * 28 * 28}
    settings = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "size": sides}
    videos = {"Qwen3VL": transformers.Qwen3VLVideoProcessor, "Qwen2_5_VL": transformers.Qwen2VLVideoProcessor}[name]
    processor = getattr(transformers, f"{name}Processor")(
        transformers.Qwen2VLImageProcessor(**settings),
        _tokenizer(transformers, place),
        videos(**settings),
        chat_template=TEMPLATE,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def _tokenizer(transformers, place):
    """Of whole words and single marks."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel(place, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=MARKS[2:],
    )
