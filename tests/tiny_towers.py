"""Two towers of random weights, as Wan and TangoFlux are published, built without any download."""

import json

import diffusers
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from avbench.avfulldit.flux import Duration

WAN = {
    "num_attention_heads": 3,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 12,
    "freq_dim": 32,
    "ffn_dim": 40,
    "num_layers": 4,
}
FLUX = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 6,
    "num_layers": 2,
    "num_single_layers": 2,
    "joint_attention_dim": 12,
    "pooled_projection_dim": 10,
    "axes_dims_rope": (4, 6, 6),
}


def shaken(module):
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return module.eval()


def tiny_text(kind=transformers.UMT5EncoderModel, configuration=transformers.UMT5Config):
    """A byte tokenizer and a T5 of random weights: no file is needed."""
    marks = ["<pad>", "</s>"]
    vocabulary = {mark: number for number, mark in enumerate([*marks, *sorted(ByteLevel.alphabet())])}
    tokenizer = tokenizers.Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    sizes = {"d_model": 12, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return fast, kind(configuration(vocab_size=len(vocabulary), **sizes))


def tiny_wan_vae():
    return diffusers.AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.5] * 4, latents_std=[2.0] * 4
    )


def tiny_oobleck():
    return diffusers.AutoencoderOobleck(
        encoder_hidden_size=12,
        downsampling_ratios=[2, 4],
        channel_multiples=[1, 2],
        decoder_channels=4,
        decoder_input_channels=6,
        audio_channels=2,
        sampling_rate=8000,
    )


def build_pair(where):
    """Write a Wan pipeline as diffusers saves it, and a folder as TangoFlux is published; weights are random."""
    torch.manual_seed(0)
    heads = {"num_attention_heads": 2, "attention_head_dim": 128}
    diffusers.WanPipeline(
        *tiny_text(),
        vae=tiny_wan_vae(),
        scheduler=diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", flow_shift=3.0),
        transformer=shaken(diffusers.WanTransformer3DModel(**{**WAN, **heads})),
        expand_timesteps=True,
    ).save_pretrained(where / "wan")
    tango = where / "tango"
    tokenizer, encoder = tiny_text(transformers.T5EncoderModel, transformers.T5Config)
    tokenizer.save_pretrained(tango / "text")
    encoder.config.save_pretrained(tango / "text")
    tiny_oobleck().save_pretrained(tango / "vae")
    config = {"num_layers": 1, "num_single_layers": 2, "in_channels": 6, "attention_head_dim": 128}
    config |= {"num_attention_heads": 1, "joint_attention_dim": 12}
    flux = shaken(diffusers.FluxTransformer2DModel(**config, pooled_projection_dim=12))
    pool = torch.nn.Sequential(torch.nn.Linear(12, 12), torch.nn.ReLU())
    stored = {"transformer": flux, "fc": pool, "duration_emebdder": Duration(12, 30, 1), "text_encoder": encoder}
    weights = {
        name: weight.clone()
        for name, weight in torch.nn.ModuleDict(stored).state_dict().items()
        if name != "text_encoder.encoder.embed_tokens.weight"  # the same as text_encoder.shared.weight, stored once
    }
    save_file(weights, tango / "tangoflux.safetensors")
    config |= {"audio_seq_len": 250, "max_duration": 30, "text_encoder_name": str(tango / "text")}
    (tango / "config.json").write_text(json.dumps(config))
    return where


SMALL = {"width": 32, "height": 16, "frames": 5, "fps": 20, "steps": 2}
