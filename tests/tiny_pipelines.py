"""Whole diffusers pipelines of random weights, about a megabyte each, built without any download.

Each builder writes a pipeline as a published one is laid out, so that what loads these loads those. The models make
noise; that they are loaded, called, told apart and reproduced is what they show.
"""

import functools

import diffusers
import tokenizers
import torch
import transformers
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

WIDTH = 24
"""Of every text encoder."""
WAN_DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": WIDTH,
    "freq_dim": 32,
    "ffn_dim": 32,
    "num_layers": 2,
}
WAN_VAE = {"base_dim": 4, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}


def tokenizer():
    """Bytes are its words."""
    marks = ["<pad>", "</s>", "<bos>", "<unk>"]
    vocabulary = {mark: number for number, mark in enumerate([*marks, *sorted(ByteLevel.alphabet())])}
    fast = tokenizers.Tokenizer(BPE(vocab=vocabulary, merges=[]))
    fast.pre_tokenizer = ByteLevel(add_prefix_space=False)
    named = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<bos>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=fast, **named, model_max_length=512)


def t5(kind=transformers.T5EncoderModel, configuration=transformers.T5Config):
    sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 260}
    return kind(configuration(**sizes)).eval()


def umt5():
    return t5(transformers.UMT5EncoderModel, transformers.UMT5Config)


def shaken(module):
    """A model whose last layers are not the zeros that they begin with."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return module.eval()


def wan_dit(**other):
    return shaken(diffusers.WanTransformer3DModel(**{**WAN_DIT, **other}))


def wan_vae(**other):
    sizes = {**WAN_VAE, **other}
    latents = {"latents_mean": [0.0] * sizes["z_dim"], "latents_std": [1.0] * sizes["z_dim"]}
    return diffusers.AutoencoderKLWan(**sizes, **latents).eval()


def unipc():
    return diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def wan21(place):
    wan = {"tokenizer": tokenizer(), "text_encoder": umt5(), "vae": wan_vae(), "scheduler": unipc()}
    diffusers.WanPipeline(**wan, transformer=wan_dit()).save_pretrained(place)


def wan22_a14b(place):
    wan = {"tokenizer": tokenizer(), "text_encoder": umt5(), "vae": wan_vae(), "scheduler": unipc()}
    both = {"transformer": wan_dit(), "transformer_2": wan_dit(), "boundary_ratio": 0.875}
    diffusers.WanPipeline(**wan, **both).save_pretrained(place)


def wan22_5b(place):
    vae = wan_vae(
        z_dim=48, is_residual=True, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16,
        decoder_base_dim=4,
    )  # fmt: skip
    wan = {"tokenizer": tokenizer(), "text_encoder": umt5(), "vae": vae, "scheduler": unipc()}
    dit = wan_dit(in_channels=48, out_channels=48)
    diffusers.WanPipeline(**wan, transformer=dit, expand_timesteps=True).save_pretrained(place)


def wan_i2v(place):
    """As Wan 2.2's: the image is in the latents, no image encoder."""
    wan = {"tokenizer": tokenizer(), "text_encoder": umt5(), "vae": wan_vae(), "scheduler": unipc()}
    dit = wan_dit(in_channels=16 + 4 + 16)
    diffusers.WanImageToVideoPipeline(**wan, transformer=dit).save_pretrained(place)


def flow_match():
    return diffusers.FlowMatchEulerDiscreteScheduler()


def ltx(place, **vae):
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        **vae,
    )
    dit = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=1,
        caption_channels=WIDTH,
    )
    parts = {"tokenizer": tokenizer(), "text_encoder": t5(), "vae": shaken(vae), "scheduler": flow_match()}
    diffusers.LTXPipeline(**parts, transformer=shaken(dit)).save_pretrained(place)


def gemma():
    text = {
        "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 12, "vocab_size": 260, "max_position_embeddings": 2048,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return transformers.Gemma3ForConditionalGeneration(config).eval()


def ltx2(place):
    vae = diffusers.AutoencoderKLLTX2Video(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    ).eval()
    audio_vae = diffusers.AutoencoderKLLTX2Audio(
        base_channels=8, latent_channels=2, mel_bins=16, ch_mult=(1, 1, 1), num_res_blocks=1, norm_type="pixel",
        causality_axis="height",
    ).eval()  # fmt: skip
    dit = diffusers.LTX2VideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=12, cross_attention_dim=24,
        audio_in_channels=8, audio_out_channels=8, audio_num_attention_heads=2, audio_attention_head_dim=8,
        audio_cross_attention_dim=16, num_layers=2, caption_channels=WIDTH,
    )  # fmt: skip
    connectors = LTX2TextConnectors(
        caption_channels=WIDTH, text_proj_in_factor=3, video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=12, video_connector_num_layers=1, audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=12, audio_connector_num_layers=1,
        video_connector_num_learnable_registers=None, audio_connector_num_learnable_registers=None,
    )  # fmt: skip
    vocoder = LTX2Vocoder(
        in_channels=32, hidden_channels=16, upsample_kernel_sizes=[16, 15, 16], upsample_factors=[6, 5, 8],
        resnet_kernel_sizes=[3], resnet_dilations=[[1]], output_sampling_rate=24_000,
    )  # fmt: skip
    diffusers.LTX2Pipeline(
        scheduler=flow_match(),
        vae=vae,
        audio_vae=audio_vae,
        text_encoder=gemma(),
        tokenizer=tokenizer(),
        connectors=connectors,
        transformer=shaken(dit),
        vocoder=vocoder.eval(),
    ).save_pretrained(place)


def cogvideox_parts(in_channels):
    """The parts of a CogVideoX whose transformer takes so many channels: 4, or 8 with a picture."""
    vae = diffusers.AutoencoderKLCogVideoX(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2,
        sample_height=32, sample_width=32,
    ).eval()  # fmt: skip
    dit = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=in_channels, out_channels=4, time_embed_dim=8,
        text_embed_dim=WIDTH, num_layers=1, sample_width=4, sample_height=4, sample_frames=9,
        max_text_seq_length=226, use_rotary_positional_embeddings=True,
    )  # fmt: skip
    parts = {"tokenizer": tokenizer(), "text_encoder": t5(), "scheduler": diffusers.CogVideoXDDIMScheduler()}
    return {**parts, "vae": vae, "transformer": shaken(dit)}


def cogvideox(place):
    diffusers.CogVideoXPipeline(**cogvideox_parts(4)).save_pretrained(place)


BUILDERS = {
    "wan2.1": wan21,
    "wan2.2-a14b": wan22_a14b,
    "wan2.2-5b": wan22_5b,
    "wan-i2v": wan_i2v,
    "ltx": ltx,
    "ltx-0.9.1": functools.partial(ltx, timestep_conditioning=True, decoder_inject_noise=(True,) * 5),
    "ltx2": ltx2,
    "cogvideox": cogvideox,
}


def build(name, place):
    """Write a pipeline of random weights, the same at every call."""
    torch.manual_seed(0)
    BUILDERS[name](place)
    return place
