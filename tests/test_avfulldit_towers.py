"""Wan and TangoFlux as towers: our walk is diffusers' own forward, and joined they see each other."""

import dataclasses
import itertools
import json
import re
import shutil

import diffusers
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_towers import FLUX, SMALL, WAN, build_pair, shaken, tiny_oobleck, tiny_text, tiny_wan_vae

from avbench.avfulldit.flux import Duration, FluxAudioTower
from avbench.avfulldit.joint_file import save_joint
from avbench.avfulldit.model import AVFullDiT, JointConfig, walk_alone
from avbench.avfulldit.pair import PairSettings, load_pair
from avbench.avfulldit.pipeline import Wish, make, start
from avbench.avfulldit.pretrained import HuggingFaceText, OobleckAudioCodec, WanVideoCodec
from avbench.avfulldit.tower import Text
from avbench.avfulldit.wan import WanTower
from avbench.core import InputError, Key, Prompt, UnusableError
from avbench.generation import table as generators
from avbench.generation.detect import detect
from avbench.generation.names import run_name
from avbench.training.examples import Batch
from avbench.training.loop import train
from avbench.training.machine import Machine
from avbench.training.objective import Objective
from avbench.training.plan import Plan


@pytest.fixture
def world():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    video, audio = torch.randn(2, 4, 3, 4, 6), torch.randn(2, 6, 7)
    words = [Text(torch.randn(2, 5, 12), None) for _ in range(2)]
    wan = shaken(diffusers.WanTransformer3DModel(**WAN))
    flux = shaken(diffusers.FluxTransformer2DModel(**FLUX))
    return wan, flux, video, audio, torch.tensor([0.3, 0.8]), words


MASK = torch.tensor([[True, True, True, False, False], [True] * 5])


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("per_token", [False, True])
def test_wan_is_walked_as_diffusers_does(world, per_token, padded):
    wan, _, video, _, t, (text, _) = world
    text = text._replace(mask=MASK) if padded else text
    zeroed = text.states * MASK[..., None] if padded else text.states
    tokens = 3 * 2 * 3
    timestep = 1000 * (t[:, None].expand(-1, tokens) if per_token else t)
    with torch.no_grad():
        theirs = wan(video, timestep, zeroed, return_dict=False)[0]
        ours = walk_alone(WanTower(wan, per_token=per_token), video, t, text)
    assert theirs.std() > 0.05
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_flux_is_walked_as_diffusers_does(world):
    _, flux, _, audio, t, (_, text) = world
    tower = FluxAudioTower(flux)
    with torch.no_grad():
        ids = torch.arange(7.0)[:, None].expand(-1, 3)
        pooled = tower.pool(text.states.mean(1))
        theirs = flux(audio.transpose(1, 2), text.states, pooled, t, ids, torch.zeros(5, 3), return_dict=False)[0]
        ours = walk_alone(tower, audio, t, text)
    assert theirs.std() > 0.05
    assert torch.allclose(ours, theirs.transpose(1, 2), atol=1e-5)


def test_padding_of_a_caption_is_attended_to_and_not_pooled(world):
    """As in TangoFlux's repository, which gives its transformer no mask."""
    _, flux, _, audio, t, (_, text) = world
    tower = FluxAudioTower(flux)
    with torch.no_grad():
        pooled = torch.cat([tower.pool(text.states[:1, :3].mean(1)), tower.pool(text.states[1:].mean(1))])
        ids = torch.arange(7.0)[:, None].expand(-1, 3)
        theirs = flux(audio.transpose(1, 2), text.states, pooled, t, ids, torch.zeros(5, 3), return_dict=False)[0]
        ours = walk_alone(tower, audio, t, Text(text.states, MASK))
    assert torch.allclose(ours, theirs.transpose(1, 2), atol=1e-5)


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "padded"])
@pytest.mark.parametrize("layers", [2, 3], ids=["single blocks", "single and double blocks"])
def test_joined(world, layers, mask):
    wan, flux, video, audio, t, text = world
    text = [part._replace(mask=mask) for part in text]
    towers = WanTower(wan), FluxAudioTower(flux)
    model = AVFullDiT(*towers, JointConfig(layers, 5.4, positions="vanilla", joint_layout="own"))
    with torch.no_grad():
        alone = walk_alone(towers[0], video, t, text[0]), walk_alone(towers[1], audio, t, text[1])
        model.link = 0.0
        for ours, theirs in zip(model(video, audio, t, *text), alone, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)
        model.link = 1.0
        for ours, theirs in zip(model(video, audio, t, *text), alone, strict=True):
            assert (ours - theirs).abs().max() > 1e-3


def test_the_papers_configuration():
    """Wan2.2-TI2V-5B and TangoFlux, joined in 18 layers: 5.000 B, 0.517 B and 151 M new weights."""
    big = {"num_attention_heads": 24, "attention_head_dim": 128, "in_channels": 48, "out_channels": 48}
    tango = {"num_attention_heads": 8, "attention_head_dim": 128, "in_channels": 64, "num_layers": 6}
    with torch.device("meta"):
        wan = diffusers.WanTransformer3DModel(**big, text_dim=4096, freq_dim=256, ffn_dim=14336, num_layers=30)
        flux = diffusers.FluxTransformer2DModel(
            **tango, num_single_layers=18, joint_attention_dim=1024, pooled_projection_dim=1024
        )
        model = AVFullDiT(WanTower(wan, per_token=True), FluxAudioTower(flux), JointConfig(18, 3.589))

    def count(module):
        return sum(weight.numel() for weight in module.parameters())

    assert count(wan) == pytest.approx(5.000e9, rel=1e-3)
    assert count(flux) == pytest.approx(0.517e9, rel=1e-3)
    assert count(model.widenings) == pytest.approx(151e6, rel=1e-3)


def test_towers_that_cannot_be_joined(world, tmp_path):
    wan, *_ = world
    with pytest.raises(InputError, match="head sizes differ: video has 3 heads of 16, audio 4 of 8"):
        odd = diffusers.FluxTransformer2DModel(
            **{**FLUX, "num_attention_heads": 4, "attention_head_dim": 8, "axes_dims_rope": (2, 2, 4)}
        )
        AVFullDiT(WanTower(wan), FluxAudioTower(odd), JointConfig(2, 5.4))
    with pytest.raises(InputError, match="image_dim is 8"):
        WanTower(diffusers.WanTransformer3DModel(**WAN, image_dim=8))
    with pytest.raises(InputError, match="added_kv_proj_dim is 48"):
        WanTower(diffusers.WanTransformer3DModel(**WAN, added_kv_proj_dim=48))
    with pytest.raises(InputError, match="in_channels is 9, out_channels 4"):
        WanTower(diffusers.WanTransformer3DModel(**{**WAN, "in_channels": 9}))
    with pytest.raises(InputError, match="2×5×6 do not part into patches of 1×2×2"):
        walk_alone(WanTower(wan), torch.zeros(1, 4, 2, 5, 6), torch.ones(1), Text(torch.zeros(1, 5, 12), None))
    with pytest.raises(InputError, match="guidance_embeds"):
        FluxAudioTower(diffusers.FluxTransformer2DModel(**FLUX, guidance_embeds=True))
    with pytest.raises(InputError, match=r"no config\.json"):
        WanTower.load(tmp_path)


def test_a_saved_tower_is_loaded(world, tmp_path):
    wan, _, video, _, t, (text, _) = world
    wan.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(
            walk_alone(WanTower.load(tmp_path).eval(), video, t, text), walk_alone(WanTower(wan), video, t, text)
        )


def test_tangofluxs_word_for_the_duration(world):
    """As its repository has it: share of the longest, Fourier features, a linear layer; seen, and not pooled."""
    _, flux, _, audio, t, (_, text) = world
    tower = FluxAudioTower(flux, duration=Duration(12, longest=30.0, seconds=6.0))
    waves, linear = tower.duration.time_positional_embedding
    with torch.no_grad():
        angle = 0.2 * 2 * torch.pi * waves.weights
        word = linear(torch.cat([torch.tensor([0.2]), angle.sin(), angle.cos()]))
        shown = torch.cat([text.states, word.expand(2, 1, 12)], dim=1)
        ids, pooled = torch.arange(7.0)[:, None].expand(-1, 3), tower.pool(text.states.mean(1))
        theirs = flux(audio.transpose(1, 2), shown, pooled, t, ids, torch.zeros(6, 3), return_dict=False)[0]
        assert torch.allclose(walk_alone(tower, audio, t, text), theirs.transpose(1, 2), atol=1e-5)


def test_a_text_encoder_is_read(tmp_path):
    tokenizer, encoder = tiny_text()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    encoder.save_pretrained(tmp_path / "text_encoder")
    text = HuggingFaceText.load(tmp_path / "tokenizer", tmp_path / "text_encoder", 16)
    read = text.read(["a red ball", ""])
    assert read.states.shape == (2, 16, 12) and read.mask.sum(1).tolist() == [10, 0]
    assert torch.equal(read.states, text.read(["a red ball", ""]).states)
    with torch.no_grad():
        theirs = encoder.eval()(
            **tokenizer(["a red ball"], padding="max_length", max_length=16, return_tensors="pt")
        ).last_hidden_state
    assert torch.allclose(read.states[:1], theirs, atol=1e-5)


def test_wans_codec(tmp_path):
    torch.manual_seed(0)
    vae = tiny_wan_vae()
    vae.save_pretrained(tmp_path)
    codec = WanVideoCodec.load(tmp_path)
    frames = torch.randint(0, 256, (1, 5, 32, 16, 3), dtype=torch.uint8)
    latents = codec.encode(frames)
    assert tuple(latents.shape[1:]) == codec.shape(5, 32, 16) == (4, 2, 4, 2)
    with torch.no_grad():
        theirs = vae.eval().encode(frames.permute(0, 4, 1, 2, 3) / 127.5 - 1).latent_dist.mode()
        pixels = vae.decode(theirs).sample
    assert torch.allclose(latents * 2 + 0.5, theirs, atol=1e-5)
    wanted = ((pixels + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 4, 1)
    assert (codec.decode(latents).float() - wanted).abs().max() <= 0.51
    with pytest.raises(InputError, match=r"4·k \+ 1, got 6"):
        codec.shape(6, 32, 16)
    with pytest.raises(InputError, match="width in multiples of 16, got 24"):
        codec.shape(5, 32, 24)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")  # how diffusers builds this VAE
def test_oobleck(tmp_path):
    torch.manual_seed(0)
    vae = tiny_oobleck()
    vae.save_pretrained(tmp_path)
    codec = OobleckAudioCodec.load(tmp_path)
    waves = torch.rand(1, 2, 100) - 0.5
    latents = codec.encode(waves)
    assert tuple(latents.shape[1:]) == codec.shape(100) == (6, 13)
    assert codec.decode(latents, 100).shape == waves.shape
    assert OobleckAudioCodec.load(tmp_path, least=20).encode(waves).shape[-1] == 20


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return build_pair(tmp_path_factory.mktemp("pair"))


def sampled(model, **settings):
    prompt = Prompt("one", "a red ball falls", "a thud")
    made = generators.build(model, {**SMALL, **settings}).generate(
        [generators.Request(Key("small", "one", 0), prompt, None)]
    )
    return made[0].clip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_two_pretrained_towers_are_a_model(pair):
    model = f"avfulldit:{pair}/wan+{pair}/tango"
    clip = sampled(model)
    assert clip.frames.shape == (5, 16, 32, 3) and clip.audio.waveform.shape == (2, 2000)
    again, linked = sampled(model), sampled(model, link=1.0)
    assert (again.frames == clip.frames).all() and (again.audio.waveform == clip.audio.waveform).all()
    assert (linked.frames != clip.frames).any() and (linked.audio.waveform != clip.audio.waveform).any()
    settings = generators.build(model, SMALL).settings
    assert settings["shift"] == 3.0 and settings["link"] == 0.0 and settings["joint"]["joint_layers"] == 2
    assert settings["joint"]["tau"] == pytest.approx((4 / 20) / (8 / 8000)) and len(settings["weights"]) == 2
    assert settings["dtype"] == "float32"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_unlinked_towers_make_what_diffusers_makes(pair):
    """Wan's own pipeline, and Flux's own forward, from our noise over Euler steps at the same timesteps."""
    sizes = {name: value for name, value in SMALL.items() if name != "steps"}
    parts = load_pair(pair / "wan", pair / "tango", PairSettings(**sizes))
    video, sound = start(parts, Wish("one", 0, "a red ball falls", "a thud"))
    pipeline = diffusers.WanPipeline.from_pretrained(pair / "wan", local_files_only=True)
    pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs = pipeline.scheduler.set_timesteps
    pipeline.scheduler.set_timesteps = lambda _, device: theirs(sigmas=np.linspace(1, 1 / 8, 8), device=device)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        *("a red ball falls", ""),
        **{"height": 16, "width": 32, "num_frames": 5, "guidance_scale": 5.0, "latents": video[None]},
        **{"num_inference_steps": 8, "max_sequence_length": 512},
    ).frames[0]
    ours = sampled(f"avfulldit:{pair}/wan+{pair}/tango", steps=8)
    assert theirs.std() > 0.02 and abs(ours.frames / 255 - theirs).max() < 0.01
    with torch.no_grad():
        heard = flux_alone(parts.dit.audio, parts.audio_text.read(["", "a thud"]), sound[None], 8, 3.0, 4.5)
        heard = parts.audio_codec.decode(heard, 2000)[0].clamp(-1, 1).numpy()
    assert heard.std() > 0.02 and abs(ours.audio.waveform - heard).max() < 1e-3 * heard.std()


def flux_alone(tower, texts, latents, steps, shift, guidance):
    """Diffusers' own Flux as TangoFlux's repository samples it; `texts` are the empty caption and the clip's."""
    weight = texts.mask[..., None].float()
    pooled = tower.pool((texts.states * weight).sum(1) / weight.sum(1).clamp(min=1))
    words = torch.cat([texts.states, tower.duration().expand(2, -1, -1)], dim=1)
    ids, places = torch.zeros(words.shape[1], 3), torch.arange(latents.shape[2])[:, None].expand(-1, 3)
    t = torch.linspace(1, 0, steps + 1)
    t = shift * t / (1 + (shift - 1) * t)
    x = latents.transpose(1, 2)
    for now, following in itertools.pairwise(t):
        without, with_it = tower.transformer(
            x.expand(2, -1, -1), words, pooled, now.expand(2), places, ids, return_dict=False
        )[0]
        x = x + (following - now) * (without + guidance * (with_it - without))
    return x.transpose(1, 2)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_pair_that_is_none(pair, tmp_path):
    with pytest.raises(InputError, match=r"does not hold a diffusers pipeline"):
        generators.build(f"avfulldit:{tmp_path}+{pair}/tango", {})
    with pytest.raises(InputError, match=r"does not hold TangoFlux"):
        generators.build(f"avfulldit:{pair}/wan+{tmp_path}", {})
    with pytest.raises(InputError, match="joint_layers is 9; these towers allow 1 to 3"):
        generators.build(f"avfulldit:{pair}/wan+{pair}/tango", {**SMALL, "joint_layers": 9})
    with pytest.raises(InputError, match=r"frames of the form 4·k \+ 1, got 6"):
        generators.build(f"avfulldit:{pair}/wan+{pair}/tango", {**SMALL, "frames": 6})
    with pytest.raises(InputError, match="width: for two pretrained towers"):
        generators.build("avfulldit:nothing", {"width": 32})


SIZES = {name: value for name, value in SMALL.items() if name != "steps"}


def trained_on(pair, place, *fine_tuned):
    """Two towers joined, and trained for two steps through the trainer that the bundled arms had."""
    parts = load_pair(pair / "wan", pair / "tango", PairSettings(**SIZES))
    for name, weight in parts.dit.named_parameters():
        if name.startswith(fine_tuned):
            weight.requires_grad_(True)
    shapes = parts.video_codec.shape(5, 16, 32), parts.audio_codec.shape(2000)
    torch.manual_seed(3)
    video, audio = (torch.randn(2, *shape) for shape in shapes)

    def batches(rows):
        return Batch(rows, video[rows], audio[rows], ("a red ball falls",) * 2, ("a thud",) * 2)

    plan = Plan(steps=2, batch=2, learning_rate=0.05, warmup=1)
    losses = [step.audio_loss for step in train(Objective(parts, plan), batches, 2, {}, place, Machine())]
    assert len(losses) == 2 and losses[0] != losses[1]
    parts.dit.eval()
    return parts


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("fine_tuned", [(), ("video.", "audio.")], ids=["the joint alone", "all of it"])
def test_a_trained_joint_is_loaded(pair, tmp_path, monkeypatch, fine_tuned):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    parts = trained_on(pair, tmp_path / "training", *fine_tuned or ("nothing",))
    file = tmp_path / "joint.safetensors"
    save_joint(parts.dit, file, {"steps": 2})
    kept = load_file(file)
    assert {name.split(".")[0] for name in kept} == {"widenings", *(name[:5] for name in fine_tuned)}
    parts.sampling = dataclasses.replace(parts.sampling, steps=2)
    (ours,) = make(parts, [Wish("one", 0, "a red ball falls", "a thud")], 1)
    model = f"avfulldit:{pair}/wan+{pair}/tango+{file}"
    clip, untrained = sampled(model), sampled(f"avfulldit:{pair}/wan+{pair}/tango", link=1.0)
    assert (clip.frames == ours.frames).all() and (clip.audio.waveform == ours.audio.waveform).all()
    assert (clip.frames != untrained.frames).any() and (clip.audio.waveform != untrained.audio.waveform).any()
    apart = sampled(model, link=0.0), sampled(f"avfulldit:{pair}/wan+{pair}/tango")
    assert (apart[0].frames == apart[1].frames).all() == (not fine_tuned), "unlinked, the joint alone says nothing"
    settings = generators.build(model, SMALL).settings
    assert settings["link"] == 1.0 and set(settings["weights"]) == {"video", "audio", "trained"}
    seen = detect(file)
    assert (seen.kind, seen.model) == ("trained joint", None) and "avfulldit:WAN+TANGOFLUX+" in seen.needs[0]
    assert run_name(model) == "avfulldit-wan-tango-joint"


@pytest.fixture(scope="module")
def joint(pair, tmp_path_factory):
    file = tmp_path_factory.mktemp("joint") / "joint.safetensors"
    save_joint(load_pair(pair / "wan", pair / "tango", PairSettings(**SIZES)).dit, file)
    return file


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_joint_that_does_not_fit_is_told(pair, joint, tmp_path):
    with safe_open(joint, "pt") as file:
        metadata = file.metadata()
    weights = load_file(joint)
    first = min(weights)
    towers = load_pair(pair / "wan", pair / "tango", PairSettings(**SIZES)).dit.state_dict()
    for changed, added, words in (
        ({name: one for name, one in weights.items() if name != first}, {}, f"lacks 1 tensor .*{first}"),
        ({**weights, "video.more": torch.zeros(1)}, {}, r"holds 1 tensor that these towers have not, video\.more"),
        ({**weights, first: torch.zeros(2)}, {}, rf"{first} is of shape \(2,\), these towers require"),
        (weights, {"towers": "0" * 64}, "was trained on other towers"),
        ({**weights, **{n: w for n, w in towers.items() if n.endswith("proj_out.bias")}}, {}, "trained on other"),
        (weights, {"format": "pt"}, "is no trained joint"),
        (weights, {"link": "{"}, "do not say how the towers are joined"),
        (weights, {"joint": metadata["joint"].replace("sync", "synch")}, "positions is 'synch'; it should be 'sync'"),
    ):
        save_file(changed, tmp_path / "bad.safetensors", {**metadata, **added})
        with pytest.raises(InputError, match=words):
            generators.build(f"avfulldit:{pair}/wan+{pair}/tango+{tmp_path}/bad.safetensors", SMALL)
    broken = {name: torch.full_like(one, torch.nan) for name, one in weights.items()}
    save_file(broken, tmp_path / "bad.safetensors", {**metadata, "link": "1.0"})
    with pytest.raises(UnusableError, match=r"latents hold \d+ values of \d+ that are NaN"):
        sampled(f"avfulldit:{pair}/wan+{pair}/tango+{tmp_path}/bad.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not this")
    for target, settings, words in (
        (f"{pair}/wan+{pair}/tango+{tmp_path}/bad.safetensors", {}, "bad.safetensors is no safetensors file"),
        (f"{pair}/wan+{pair}/tango+{tmp_path}/none.safetensors", {}, "none.safetensors does not exist"),
        (f"{pair}/wan+{pair}/tango", {"joint_layers": 1.5}, "joint_layers is 1.5; it must be a whole number"),
        (f"{pair}/wan+{pair}/tango", {"joint_layers": "all"}, "joint_layers is 'all'; it must be a whole number"),
        (f"{pair}/wan+{pair}/tango", {"steps": 1.5}, "steps is 1.5; it must be a whole number"),
        (f"{pair}/wan+{pair}/tango", {"video_guidance": float("nan")}, "video_guidance is nan; it must be a number"),
        (f"{pair}/wan+{pair}/tango+{joint}", {"joint_layers": 1}, "joint_layers is 1; .* was trained with 2"),
        (f"{pair}/wan+{pair}/tango+a+b", {}, r"write avfulldit:WAN\+TANGOFLUX"),
        (f"{pair}/wan+{pair}/tango", {"solver": "hoin"}, "solver 'hoin' is unknown"),
        (f"{pair}/wan+{pair}/tango", {"link": 2}, "link is 2; it must be between 0"),
        (f"{pair}/wan+{pair}/tango", {"dtype": "half"}, "dtype 'half' is unknown"),
        (f"{pair}/wan+{pair}/tango", {"dtype": ["float32"]}, "dtype is .*; it must be text"),
        (f"{pair}/wan+{pair}/tango", {"device": "nowhere"}, "device nowhere: "),
        ("toy-t2v", {"steps": 0}, "steps is 0"),
        (f"{pair}/wan+{pair}/tango", {"frames": "abc"}, "frames is 'abc'; it must be a whole number of at least 1"),
        (f"{pair}/wan+{pair}/tango", {"width": 0.5}, "width is 0.5; it must be a whole number of at least 1"),
    ):
        with pytest.raises(InputError, match=words):
            generators.build(f"avfulldit:{target}", {**({} if target == "toy-t2v" else SMALL), **settings})


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_towers_are_read_from_safetensors_only(pair, tmp_path):
    """A pickle beside them is not opened; where there is nothing else, that is said."""
    wan = tmp_path / "wan"
    shutil.copytree(pair / "wan", wan)
    (wan / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    (wan / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(InputError, match=r"vae cannot be read as AutoencoderKLWan: .*safetensors"):
        generators.build(f"avfulldit:{wan}+{pair}/tango", SMALL)
    assert detect(pair / "tango").needs == (f"a Wan pipeline, as avfulldit:WAN+{pair}/tango",)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_towers_that_are_not_whole(pair, tmp_path):
    wan, tango = tmp_path / "wan", tmp_path / "tango"
    shutil.copytree(pair / "wan", wan)
    shutil.copytree(pair / "tango", tango)
    plain = "diffusion_pytorch_model.safetensors"
    for load, file, name, words in (
        (
            lambda: HuggingFaceText.load(wan / "tokenizer", wan / "text_encoder", 8),
            wan / "text_encoder" / "model.safetensors",
            "encoder.block.0.layer.0.SelfAttention.q.weight",
            "UMT5EncoderModel",
        ),
        (lambda: WanVideoCodec.load(wan / "vae"), wan / "vae" / plain, "decoder.conv_in.weight", "AutoencoderKLWan"),
        (
            lambda: WanTower.load(wan / "transformer"),
            wan / "transformer" / plain,
            "blocks.0.attn1.to_q.weight",
            "WanTransformer3DMo",
        ),
        (
            lambda: OobleckAudioCodec.load(tango / "vae"),
            tango / "vae" / plain,
            "decoder.conv1.bias",
            "AutoencoderOobleck",
        ),
    ):
        whole = load_file(file)
        save_file({key: one for key, one in whole.items() if key != name}, file, {"format": "pt"})
        with pytest.raises(InputError, match=rf"{words}.*1 tensor without a value from any file.*{re.escape(name)}"):
            load()
        save_file({**whole, "strange": torch.ones(1)}, file, {"format": "pt"})
        with pytest.raises(InputError, match=rf"are not used in {words}.*: strange"):
            load()
        save_file(whole, file, {"format": "pt"})
    plain = json.loads((tango / "config.json").read_text())
    for name, wrong in (("max_duration", 0), ("max_duration", "x"), ("audio_seq_len", -1)):
        (tango / "config.json").write_text(json.dumps({**plain, name: wrong}))
        with pytest.raises(InputError, match=f"{name} is {wrong!r}; it must be a number above 0"):
            generators.build(f"avfulldit:{wan}+{tango}", SMALL)
    weights = tango / "tangoflux.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    (tango / "config.json").write_text(json.dumps(plain))
    with pytest.raises(InputError, match=r"tangoflux\.safetensors is damaged: 9 bytes are missing: it is cut short"):
        generators.build(f"avfulldit:{wan}+{tango}", SMALL)
    shutil.copy(pair / "tango" / weights.name, weights)
    config = wan / "transformer" / "config.json"
    kept = config.read_text()
    config.write_text(json.dumps({**json.loads(kept), "_class_name": "LTXVideoTransformer3DModel"}))
    with pytest.raises(InputError, match="is a LTXVideoTransformer3DModel; only a WanTransformer3DModel can be this"):
        generators.build(f"avfulldit:{wan}+{tango}", SMALL)
    config.write_text(kept)
    for part in ("vae", "tokenizer", "text_encoder"):
        (wan / part).rename(tmp_path / "away")
        with pytest.raises(InputError, match=f"{part}: there is no such folder; copy the pipeline whole"):
            generators.build(f"avfulldit:{wan}+{tango}", SMALL)
        (tmp_path / "away").rename(wan / part)
    (tango / "config.json").write_text(json.dumps({"audio_seq_len": 250}))
    with pytest.raises(InputError, match="is not TangoFlux's: it has no text_encoder_name, max_duration, num_layers"):
        generators.build(f"avfulldit:{wan}+{tango}", SMALL)
    for config, words in (
        ({"shift": "much"}, "the shift is 'much'"),
        ([], r"scheduler_config\.json: the whole is \[\]; it must be an object"),
    ):
        shutil.copy(pair / "tango" / "config.json", tango)
        (wan / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
        with pytest.raises(InputError, match=words):
            generators.build(f"avfulldit:{wan}+{tango}", SMALL)


def test_pixels_that_are_nan_are_not_black(world):
    codec = WanVideoCodec(tiny_wan_vae())
    with torch.no_grad():
        codec.vae.decoder.conv_out.bias.fill_(torch.nan)
    with pytest.raises(UnusableError, match="the VAE's pixels hold"):
        codec.decode(torch.zeros(1, *codec.shape(5, 16, 16)))
