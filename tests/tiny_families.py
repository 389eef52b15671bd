"""One tiny pipeline of random weights for each further class of diffusers that makes video, built without any download.

Each builder returns the pipeline; `build` writes it as a published one is laid out. Text encoders and VAEs are shared
where the classes share them. The sizes are the smallest that each class accepts.
"""

import json

import diffusers
import tiny_pipelines
import torch
import transformers
from tiny_pipelines import WAN_DIT, WIDTH, cogvideox_parts, flow_match, shaken, t5, tokenizer, umt5, unipc, wan_vae

WAN_LIKE = {**WAN_DIT, "cross_attn_norm": True, "rope_max_seq_len": 64}
"""Of the transformers that were made from Wan's."""
ROPE = {"rope_type": "default", "type": "default", "rope_theta": 1e6}


def worded(**other):
    """The parts of a pipeline that Wan's relatives have in common."""
    return {"tokenizer": tokenizer(), "text_encoder": umt5(), "vae": wan_vae(), "scheduler": unipc(), **other}


def text_sizes(width=WIDTH, **other):
    sizes = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    return {**sizes, "vocab_size": 260, "max_position_embeddings": 2048, **other}


def marks():
    return {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}


def clip_text():
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(**text_sizes(8), **marks(), projection_dim=8)).eval()


def short_tokenizer():
    short = tokenizer()
    short.model_max_length = 77
    return short


def chatty():
    """A tokenizer with a template for chats."""
    talking = tokenizer()
    content = "message['content']"
    talking.chat_template = (
        f"{{% for message in messages %}}{{{{ {content} if {content} is string else {content}[0]['text'] }}}}"
        "{% endfor %}"
    )
    return talking


def qwen_text():
    return {
        **text_sizes(16), "num_key_value_heads": 2, "rope_parameters": {**ROPE, "mrope_section": [1, 1, 2]},
    }  # fmt: skip


def qwen():
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    config = transformers.Qwen2_5_VLConfig(text_config=qwen_text(), vision_config=vision)
    return transformers.Qwen2_5_VLForConditionalGeneration(config).eval()


def clip_vision():
    config = transformers.CLIPVisionConfig(
        hidden_size=4, projection_dim=4, num_hidden_layers=2, num_attention_heads=2, image_size=32,
        intermediate_size=16, patch_size=8,
    )  # fmt: skip
    processor = transformers.CLIPImageProcessor(crop_size=32, size=32)
    return {"image_encoder": transformers.CLIPVisionModelWithProjection(config).eval(), "image_processor": processor}


def hunyuan_vae():
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4,
    ).eval()  # fmt: skip


def mochi():
    dit = diffusers.MochiTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16, in_channels=12,
        text_embed_dim=WIDTH, time_embed_dim=4, max_sequence_length=256,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLMochi(
        latent_channels=12, encoder_block_out_channels=(32, 32, 32, 32), decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1), latents_mean=[0.0] * 12, latents_std=[1.0] * 12,
    )  # fmt: skip
    parts = {"tokenizer": tokenizer(), "text_encoder": t5(), "scheduler": flow_match()}
    return diffusers.MochiPipeline(**parts, vae=vae.eval(), transformer=shaken(dit))


def latte():
    dit = diffusers.LatteTransformer3DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=3,
        caption_channels=WIDTH, in_channels=4, cross_attention_dim=24, out_channels=8, attention_bias=True,
        activation_fn="gelu-approximate", num_embeds_ada_norm=1000, norm_type="ada_norm_single",
        norm_elementwise_affine=False, norm_eps=1e-6,
    )  # fmt: skip
    parts = {"tokenizer": tokenizer(), "text_encoder": t5(), "scheduler": diffusers.DDIMScheduler()}
    return diffusers.LattePipeline(**parts, vae=image_vae(), transformer=shaken(dit))


def image_vae():
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=2, latent_channels=4, layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
    ).eval()  # fmt: skip


def allegro():
    dit = diffusers.AllegroTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, num_layers=1,
        cross_attention_dim=24, sample_width=8, sample_height=8, sample_frames=8, caption_channels=WIDTH,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLAllegro(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2, sample_size=128,
    )  # fmt: skip
    parts = {"tokenizer": tokenizer(), "text_encoder": t5(), "scheduler": diffusers.DDIMScheduler()}
    return diffusers.AllegroPipeline(**parts, vae=vae.eval(), transformer=shaken(dit))


def hunyuan():
    dit = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, patch_size=2, patch_size_t=1, text_embed_dim=16,
        pooled_projection_dim=8, rope_axes_dim=(2, 4, 4),
    )  # fmt: skip
    llama = transformers.LlamaModel(transformers.LlamaConfig(**text_sizes(16), **marks())).eval()
    texts = {
        "tokenizer": tokenizer(),
        "text_encoder": llama,
        "tokenizer_2": short_tokenizer(),
        "text_encoder_2": clip_text(),
    }
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    return diffusers.HunyuanVideoPipeline(**texts, vae=hunyuan_vae(), transformer=shaken(dit), scheduler=scheduler)


def hunyuan15():
    dit = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1, num_refiner_layers=1,
        mlp_ratio=2.0, patch_size=1, patch_size_t=1, text_embed_dim=16, text_embed_2_dim=WIDTH, image_embed_dim=12,
        rope_axes_dim=(2, 2, 4), target_size=64, task_type="t2v",
    )  # fmt: skip
    vae = diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(16, 16, 16), layers_per_block=1, spatial_compression_ratio=8,
        temporal_compression_ratio=4, downsample_match_channel=False, upsample_match_channel=False,
    ).eval()  # fmt: skip
    config = transformers.models.qwen2_5_vl.configuration_qwen2_5_vl.Qwen2_5_VLTextConfig(**qwen_text())
    texts = {"text_encoder": transformers.Qwen2_5_VLTextModel(config).eval(), "tokenizer": chatty()}
    texts |= {"text_encoder_2": t5(), "tokenizer_2": transformers.ByT5Tokenizer()}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    guider = diffusers.ClassifierFreeGuidance(guidance_scale=6.0)
    return diffusers.HunyuanVideo15Pipeline(
        **texts, vae=vae, transformer=shaken(dit), scheduler=scheduler, guider=guider
    )


def kandinsky5(kind=diffusers.Kandinsky5T2VPipeline, **attention):
    dit = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=16, in_text_dim2=8, time_dim=16, out_visual_dim=4, patch_size=(1, 2, 2),
        model_dim=16, ff_dim=32, num_text_blocks=1, num_visual_blocks=2, axes_dims=(1, 1, 2),
        visual_cond=kind is diffusers.Kandinsky5I2VPipeline, **{"attention_type": "regular", **attention},
    )  # fmt: skip
    return diffusers.Kandinsky5T2VPipeline(
        **kandinsky_texts(), vae=hunyuan_vae(), transformer=shaken(dit), scheduler=flow_match()
    )


def nabla():
    """As the models of 10 seconds."""
    return kandinsky5(
        attention_type="nabla", attention_P=0.9, attention_wT=11, attention_wW=3, attention_wH=3,
        attention_add_sta=True, attention_method="topcdf",
    )  # fmt: skip


def skyreels_dit(**other):
    return shaken(diffusers.SkyReelsV2Transformer3DModel(**{**WAN_LIKE, **other}))


def skyreels():
    return diffusers.SkyReelsV2Pipeline(**worded(), transformer=skyreels_dit())


def skyreels_df():
    return diffusers.SkyReelsV2DiffusionForcingPipeline(**worded(), transformer=skyreels_dit())


def sana():
    config = transformers.Gemma2Config(**text_sizes(8, head_dim=16, num_key_value_heads=2))
    dit = diffusers.SanaVideoTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, num_layers=2, num_cross_attention_heads=2,
        cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=8, mlp_ratio=2.5, sample_size=8,
        patch_size=(1, 2, 2), rope_max_seq_len=64, qk_norm="rms_norm_across_heads",
    )  # fmt: skip
    texts = {"text_encoder": transformers.Gemma2Model(config).eval()}
    return diffusers.SanaVideoPipeline(
        **worded(**texts, scheduler=diffusers.FlowMatchEulerDiscreteScheduler()), transformer=shaken(dit)
    )


def helios_dit():
    return shaken(
        diffusers.HeliosTransformer3DModel(
            **WAN_DIT, cross_attn_norm=True, rope_dim=(4, 4, 4), has_multi_term_memory_patch=True,
            guidance_cross_attn=True, zero_history_timestep=True, is_amplify_history=False,
        )
    )  # fmt: skip


def helios():
    scheduler = diffusers.HeliosScheduler(stage_range=[0, 1], stages=1, use_dynamic_shifting=True)
    return diffusers.HeliosPipeline(**worded(scheduler=scheduler), transformer=helios_dit())


def helios_pyramid():
    return diffusers.HeliosPyramidPipeline(
        **worded(scheduler=diffusers.HeliosScheduler(gamma=0.3)), transformer=helios_dit()
    )


def helios_distilled():
    return diffusers.HeliosPyramidPipeline(
        **worded(scheduler=diffusers.HeliosDMDScheduler(gamma=0.3)), transformer=helios_dit(), is_distilled=True
    )


def motif():
    kinds = transformers.models.t5gemma2.configuration_t5gemma2
    text = kinds.T5Gemma2TextConfig(**text_sizes(head_dim=12, num_key_value_heads=2, dropout_rate=0.0))
    encoder = transformers.models.t5gemma2.modeling_t5gemma2.T5Gemma2Encoder(
        kinds.T5Gemma2EncoderConfig(text_config=text)
    )
    dit = diffusers.MotifVideoTransformer3DModel(
        in_channels=33, out_channels=16, num_attention_heads=2, attention_head_dim=12, num_layers=1,
        num_single_layers=1, patch_size=2, patch_size_t=1, text_embed_dim=WIDTH, rope_axes_dim=(4, 4, 4),
    )  # fmt: skip
    parts = worded(text_encoder=encoder.eval(), scheduler=flow_match())
    return diffusers.MotifVideoPipeline(
        **parts, transformer=shaken(dit), feature_extractor=None, guider=diffusers.AdaptiveProjectedGuidance()
    )


def anyflow():
    scheduler = diffusers.FlowMapEulerDiscreteScheduler(shift=5.0)
    dit = diffusers.AnyFlowTransformer3DModel(**WAN_LIKE, gate_value=0.25, deltatime_type="r")
    return diffusers.AnyFlowPipeline(**worded(scheduler=scheduler), transformer=shaken(dit))


def anyflow_far():
    scheduler = diffusers.FlowMapEulerDiscreteScheduler(shift=5.0)
    dit = diffusers.AnyFlowFARTransformer3DModel(
        **WAN_LIKE, compressed_patch_size=(1, 4, 4), full_chunk_limit=3, gate_value=0.25, deltatime_type="r",
        chunk_partition=(1, 1, 1),
    )  # fmt: skip
    return diffusers.AnyFlowFARPipeline(**worded(scheduler=scheduler), transformer=shaken(dit))


def vace():
    dit = diffusers.WanVACETransformer3DModel(**WAN_LIKE, vace_layers=[0, 1], vace_in_channels=96)
    return diffusers.WanVACEPipeline(**worded(), transformer=shaken(dit))


def easyanimate():
    dit = diffusers.EasyAnimateTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=2,
        text_embed_dim=16, num_layers=1, sample_width=16, sample_height=16, patch_size=2,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLMagvit(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        spatial_group_norm=False,
        down_block_types=("SpatialDownBlock3D", *["SpatialTemporalDownBlock3D"] * 3),
        up_block_types=("SpatialUpBlock3D", *["SpatialTemporalUpBlock3D"] * 3),
    ).eval()  # fmt: skip
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 1}
    config = transformers.Qwen2VLConfig(text_config=qwen_text(), vision_config=vision)
    encoder = transformers.Qwen2VLForConditionalGeneration(config).eval()
    return diffusers.EasyAnimatePipeline(
        vae=vae, text_encoder=encoder, tokenizer=chatty(), transformer=shaken(dit), scheduler=flow_match()
    )


def animatediff():
    blocks = {"block_out_channels": (8, 8), "norm_num_groups": 2, "layers_per_block": 1}
    unet = diffusers.UNet2DConditionModel(
        **blocks, sample_size=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=8,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=4,
    )  # fmt: skip
    motion = diffusers.MotionAdapter(
        block_out_channels=(8, 8), motion_layers_per_block=1, motion_norm_num_groups=2, motion_num_attention_heads=4
    )
    texts = {"tokenizer": short_tokenizer(), "text_encoder": clip_text()}
    return diffusers.AnimateDiffPipeline(
        **texts, vae=image_vae(), unet=shaken(unet), motion_adapter=shaken(motion), scheduler=diffusers.DDIMScheduler()
    )


class Guardrail(torch.nn.Module):
    """In the place of Cosmos's own, which is a package with weights of its own: it lets everything pass."""

    dtype, device = torch.float32, torch.device("cpu")

    def check_text_safety(self, prompt):
        return True

    def check_video_safety(self, frames):
        return frames


def cosmos_dit(channels, **other):
    sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "mlp_ratio": 2, "adaln_lora_dim": 4}
    return shaken(
        diffusers.CosmosTransformer3DModel(
            **{**sizes, "in_channels": channels, "max_size": (8, 32, 32), "text_embed_dim": WIDTH, **other}
        )
    )


def cosmos1():
    vae = diffusers.AutoencoderKLCosmos(
        latent_channels=4, encoder_block_out_channels=(8, 8, 8, 8), decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,), resolution=64, num_layers=1, spatial_compression_ratio=8,
        temporal_compression_ratio=8, latents_mean=None, latents_std=None,
    ).eval()  # fmt: skip
    scheduler = diffusers.EDMEulerScheduler(
        sigma_min=0.002, sigma_max=80, sigma_data=0.5, sigma_schedule="karras", prediction_type="epsilon", rho=7.0,
        final_sigmas_type="sigma_min",
    )  # fmt: skip
    parts = worded(vae=vae, scheduler=scheduler, text_encoder=t5())
    return diffusers.CosmosTextToWorldPipeline(**parts, transformer=cosmos_dit(4, out_channels=4))


def cosmos2():
    parts = worded(text_encoder=t5(), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True))
    return diffusers.Cosmos2VideoToWorldPipeline(**parts, transformer=cosmos_dit(17))


def cosmos25():
    parts = worded(text_encoder=qwen(), tokenizer=chatty())
    dit = cosmos_dit(17, text_embed_dim=48)  # of three layers
    return diffusers.Cosmos2_5_PredictBasePipeline(**parts, transformer=dit)


def cosmos3():
    kinds = diffusers.pipelines.cosmos.pipeline_cosmos3_omni
    dit = kinds.Cosmos3OmniTransformer(
        head_dim=6, hidden_act="relu2", hidden_size=6, intermediate_size=12, latent_channel=16, latent_patch_size=1,
        num_attention_heads=1, num_hidden_layers=1, num_key_value_heads=1, patch_latent_dim=16, vocab_size=260,
        qk_norm_for_text=False, rope_axes_dim=[1, 1, 1], sound_gen=True, sound_dim=4,
    )  # fmt: skip
    sound = kinds.Cosmos3AVAEAudioTokenizer(
        sampling_rate=16_000, hop_size=640, vocoder_input_dim=4, dec_dim=4, dec_c_mults=(1, 2), dec_strides=(32, 20),
        encoder_enabled=False,
    )  # fmt: skip
    return diffusers.Cosmos3OmniPipeline(
        transformer=shaken(dit), text_tokenizer=chatty(), vae=wan_vae(), scheduler=unipc(),
        sound_tokenizer=sound.eval(), enable_safety_checker=False,
    )  # fmt: skip


def kandinsky6():
    kinds = diffusers.pipelines.kandinsky6.pipeline_kandinsky6_ti2va
    dit = kinds.Kandinsky6Transformer3DModel(
        in_visual_dim=4, out_visual_dim=4, in_text_dim=16, in_text_dim2=8, time_dim=16, model_dim=16, ff_dim=32,
        num_text_blocks=1, num_visual_blocks=2, axes_dims=(4, 2, 2), in_audio_dim=8, out_audio_dim=8, visual_cond=False,
    )  # fmt: skip
    sound = kinds.MMAudioVAE(
        mel_bins=16, latent_channels=8, hidden_channels=32, layers_per_block=1, sample_rate=16_000, n_fft=512,
        hop_length=256,
    )  # fmt: skip
    voice = kinds.MMAudioVocoder(
        num_mels=16, upsample_initial_channel=64, upsample_rates=(8, 4, 4, 2), upsample_kernel_sizes=(16, 8, 8, 4),
        resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1,),),
    )  # fmt: skip
    return diffusers.Kandinsky6TI2VAPipeline(
        **kandinsky_texts(), vae=hunyuan_vae(), transformer=shaken(dit), scheduler=flow_match(),
        audio_vae=sound.eval(), vocoder=voice.eval(),
    )  # fmt: skip


def kandinsky_texts():
    return {
        "text_encoder": qwen(), "tokenizer": chatty(), "text_encoder_2": clip_text(), "tokenizer_2": short_tokenizer(),
    }  # fmt: skip


def pictured(kind, **other):
    """A pipeline of Wan's relatives that starts from an image."""
    dit = {"in_channels": 36, "out_channels": 16, "image_dim": 4, **other}
    network = diffusers.ChronoEditTransformer3DModel if kind is diffusers.ChronoEditPipeline else skyreels_dit
    return kind(**worded(), **clip_vision(), transformer=shaken(network(**{**WAN_LIKE, **dit})))


def skyreels_i2v():
    return pictured(diffusers.SkyReelsV2ImageToVideoPipeline)


def chronoedit():
    return pictured(diffusers.ChronoEditPipeline)


def cogvideox_i2v():
    return diffusers.CogVideoXImageToVideoPipeline(**cogvideox_parts(8))


def kandinsky5_i2v():
    return kandinsky5(diffusers.Kandinsky5I2VPipeline)


BUILDERS = {
    "mochi": mochi,
    "latte": latte,
    "allegro": allegro,
    "hunyuanvideo": hunyuan,
    "hunyuanvideo1.5": hunyuan15,
    "kandinsky5": kandinsky5,
    "kandinsky5-nabla": nabla,
    "skyreels-v2": skyreels,
    "skyreels-v2-df": skyreels_df,
    "sana-video": sana,
    "helios": helios,
    "helios-pyramid": helios_pyramid,
    "helios-distilled": helios_distilled,
    "motif-video": motif,
    "anyflow": anyflow,
    "anyflow-far": anyflow_far,
    "wan-vace": vace,
    "easyanimate": easyanimate,
    "animatediff": animatediff,
    "cosmos1": cosmos1,
    "cosmos2": cosmos2,
    "cosmos2.5": cosmos25,
    "cosmos3": cosmos3,
    "kandinsky6": kandinsky6,
    "skyreels-v2-i2v": skyreels_i2v,
    "chronoedit": chronoedit,
    "cogvideox-i2v": cogvideox_i2v,
    "kandinsky5-i2v": kandinsky5_i2v,
}
ALIKE = {
    "ltx-i2v": ("ltx", "LTXImageToVideoPipeline"),
    "ltx-condition": ("ltx", "LTXConditionPipeline"),
    "ltx-2-i2v": ("ltx2", "LTX2ImageToVideoPipeline"),
    "ltx-2-condition": ("ltx2", "LTX2ConditionPipeline"),
    "ltx-2-in-context": ("ltx2", "LTX2InContextPipeline"),
    "sana-video-i2v": ("sana-video", "SanaImageToVideoPipeline"),
    "skyreels-v2-df-i2v": ("skyreels-v2", "SkyReelsV2DiffusionForcingImageToVideoPipeline"),
}
"""Name → the pipeline that it has the parts of, and its own class."""


def build(name, place):
    """Write a pipeline of random weights, the same at every call."""
    base, kind = ALIKE.get(name, (name, None))
    if base in tiny_pipelines.BUILDERS:
        tiny_pipelines.build(base, place)
    else:
        torch.manual_seed(0)
        BUILDERS[base]().save_pretrained(place)
    index = json.loads((place / "model_index.json").read_text())
    changed = {"_class_name": kind} if kind else {}
    if "safety_checker" in index:  # in published checkpoints the class itself brings it
        changed["safety_checker"] = [None, None]
    (place / "model_index.json").write_text(json.dumps({**index, **changed}))
    return place
