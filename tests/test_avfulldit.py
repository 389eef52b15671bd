"""AVFullDiT: positions, joint attention, flow matching, codecs, checkpoints, training and sampling."""

import dataclasses
import functools
import itertools
import json
import math
import shutil

import numpy as np
import pretended_gpu
import pytest
import torch
from torch import nn

from avbench.avfulldit import checkpoint
from avbench.avfulldit.attention import attend_jointly
from avbench.avfulldit.checkpoint import Parts
from avbench.avfulldit.codec import PixelCodec, PixelCodecConfig
from avbench.avfulldit.flow import Sampling, Timesteps, between, integrate, noise
from avbench.avfulldit.model import AVFullDiT, JointConfig, walk_alone
from avbench.avfulldit.native import NativeConfig, NativeTower
from avbench.avfulldit.pipeline import Wish, make, start
from avbench.avfulldit.rope import grid_positions, rotary, rotate, synchronised
from avbench.avfulldit.spectrogram import SpectrogramCodec, SpectrogramCodecConfig
from avbench.avfulldit.text import CaptionEncoder
from avbench.core import Audio, Clip, InputError
from avbench.features.audio.onsets import Onsets
from avbench.toyworld import CLIP_SPEC, make_clip, random_scene
from avbench.training.examples import Examples, Feed
from avbench.training.loop import Pace, train
from avbench.training.machine import Machine, accelerate_package
from avbench.training.muon import Muon, orthogonalised
from avbench.training.objective import Objective
from avbench.training.plan import Plan, draw

VIDEO = NativeConfig("video", channels=3, width=48, heads=3, layers=3, text_width=16, levels=(8, 8))
AUDIO = NativeConfig("audio", channels=6, width=32, heads=2, layers=3, text_width=16, text="sequence", qk_norm="head")
WORDS = ["a", "ball", "clink", "red"]


@pytest.fixture(autouse=True)
def _seeded():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def shaken(module):
    """Weights away from their zeros, so that nothing agrees by being absent."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return module


def inputs(batch=2):
    encoder = CaptionEncoder(WORDS, 16, 5)
    text = encoder.read(["a red ball", "clink"][:batch])
    return torch.randn(batch, 3, 2, 32, 32), torch.randn(batch, 6, 8), torch.linspace(0.3, 0.8, batch), text, text


def joined(**settings):
    towers = shaken(NativeTower(VIDEO)), shaken(NativeTower(AUDIO))
    return AVFullDiT(*towers, JointConfig(2, tau=4.0, **settings))


class TestPositions:
    def test_the_same_second_has_the_same_phase(self):
        tau = 5.383
        video, audio = synchronised(grid_positions(4, 2, 2), torch.arange(20.0)[:, None].double(), tau, "sync")
        bands = (6, 5, 5)
        of_video = rotary(video, bands)
        of_audio = rotary(torch.tensor([[2 * tau]], dtype=torch.float64) / tau, bands)
        first_of_frame_2 = 2 * 4
        assert torch.allclose(of_video.cos[first_of_frame_2], of_audio.cos[0], atol=1e-6)
        assert torch.allclose(of_video.sin[first_of_frame_2], of_audio.sin[0], atol=1e-6)
        assert torch.allclose(audio[:, 0], torch.arange(20.0).double() / tau)

    def test_modes(self):
        video, audio = grid_positions(2, 1, 1), torch.arange(8.0).double()[:, None]
        assert synchronised(video, audio, 4, "vanilla") == (video, audio)
        wide, same = synchronised(video, audio, 4, "expand-video")
        assert wide[:, 0].tolist() == [0, 4] and torch.equal(same, audio)

    def test_scores_depend_on_distance_alone(self):
        x, y = torch.randn(2, 1, 1, 1, 16)
        turns = [rotary(torch.tensor([[p], [p + 3.0]], dtype=torch.float64), (8,)) for p in (0.0, 11.0)]
        scores = []
        for turn in turns:
            both = rotate(torch.cat([x, y], dim=1), turn)
            scores.append((both[0, 0] * both[0, 1]).sum())
        assert torch.allclose(*scores, atol=1e-5)

    def test_a_compiler_is_given_other_steps_with_the_same_result(self, monkeypatch):
        x, turn = torch.randn(2, 5, 3, 8), rotary(torch.arange(5.0).double()[:, None], (4,))
        eager, of_some_heads = rotate(x, turn), rotate(x[:, :, 1:], turn)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert torch.allclose(rotate(x, turn), eager, rtol=1e-6, atol=1e-6)
        assert torch.allclose(rotate(x[:, :, 1:], turn), of_some_heads, rtol=1e-6, atol=1e-6)


class TestJoint:
    def test_unlinked_it_is_the_two_towers(self):
        video, audio, t, *text = inputs()
        model = joined(positions="vanilla")
        model.link = 0.0
        of_video, of_audio = model(video, audio, t, *text)
        assert torch.equal(of_video, walk_alone(model.video, video, t, text[0]))
        assert torch.allclose(of_audio, walk_alone(model.audio, audio, t, text[1]), atol=1e-6)

    def test_linked_each_changes_the_other(self):
        video, audio, t, *text = inputs()
        model = joined()
        of_video, of_audio = model(video, audio, t, *text)
        assert not torch.allclose(model(video, audio + 1, t, *text)[0], of_video, atol=1e-4)
        assert not torch.allclose(model(video + 1, audio, t, *text)[1], of_audio, atol=1e-4)

    @pytest.mark.parametrize("init", ["zero", "random"])
    def test_initialisations(self, init):
        new = joined(init=init).widenings[0].streams[0]
        assert bool(new.out.weight.any()) == bool(new.query.weight.any()) == (init == "random")

    def test_new_weights_are_the_papers(self):
        count = sum(weight.numel() for weight in joined().widenings.parameters())
        assert count == 2 * 4 * 32 * (48 - 32)

    def test_a_link_between_is_between(self):
        make_qkv = functools.partial(torch.randn, 1, 3, 2, 4)
        video, audio = [make_qkv() for _ in range(3)], [make_qkv() for _ in range(3)]
        keep = torch.ones(1, 3, dtype=torch.bool)
        plain = attend_jointly(video, audio, None, None, 1.0)[0]
        masked = attend_jointly(video, audio, keep, keep, 1.0)[0]
        assert torch.allclose(plain, masked, atol=1e-6)
        apart = attend_jointly(video, audio, None, None, 0.0)[0]
        assert torch.allclose(attend_jointly(video, audio, None, None, 1e-9)[0], apart, atol=1e-5)
        assert not torch.allclose(plain, apart, atol=1e-3)

    @pytest.mark.parametrize(
        ("audio", "joint", "sentence"),
        [
            (dataclasses.replace(AUDIO, heads=4), JointConfig(2, 4.0), "head sizes differ: video has 3 heads of 16"),
            (dataclasses.replace(AUDIO, width=64, heads=4), JointConfig(2, 4.0), "wider"),
            (AUDIO, JointConfig(4, 4.0), "joint_layers is 4; these towers allow 1 to 3"),
            (AUDIO, JointConfig(2, 0.0), "tau"),
            (AUDIO, None, "joint config"),
        ],
    )
    def test_towers_that_cannot_be_joined(self, audio, joint, sentence):
        with pytest.raises(InputError, match=sentence):
            AVFullDiT(NativeTower(VIDEO), NativeTower(audio), joint)


class TestFlow:
    def test_the_exact_velocity_leads_to_the_clean_latents(self):
        clean, start_at = torch.randn(2, 3), torch.randn(2, 3)
        for solver in ("euler", "heun", "dpm++"):
            out, nothing = integrate(lambda x, t: (start_at - clean, None), (start_at, None), Sampling(4, solver))
            assert nothing is None and torch.allclose(out, clean, atol=1e-5)

    def test_heun_is_of_second_order(self):
        def error(solver, steps):
            out, _ = integrate(
                lambda x, t: (x[0] * math.cos(3 * t), None), (torch.ones(1), None), Sampling(steps, solver)
            )
            return abs(float(out) - math.exp(-math.sin(3) / 3))

        assert error("euler", 20) / error("euler", 40) == pytest.approx(2, rel=0.15)
        assert error("heun", 20) / error("heun", 40) == pytest.approx(4, rel=0.3)

    def test_dpm_is_of_second_order_for_one_question_a_step(self):
        """Data of unit variance: the ideal clean prediction is known, and so is where the path ends."""

        def error(solver, steps):
            def velocity(x, t):
                clean = x[0] * (1 - t) / ((1 - t) ** 2 + t**2)
                return (x[0] - clean) / t, None

            out, _ = integrate(velocity, (torch.ones(1, dtype=torch.float64), None), Sampling(steps, solver))
            return abs(float(out) - 1)

        assert error("dpm++", 40) < error("euler", 40) / 10
        assert error("dpm++", 20) / error("dpm++", 40) > 2.7  # its first and last steps are of first order

    def test_timesteps(self):
        assert float(Timesteps().draw_many(2000, 0).mean()) == pytest.approx(0.5, abs=0.02)
        assert float(Timesteps(shift=3).draw_many(2000, 0).mean()) > 0.65
        assert torch.equal(Timesteps("uniform").draw_many(3, 1, 2), Timesteps("uniform").draw_many(3, 1, 2))

    def test_between(self):
        clean, noisy = torch.zeros(2, 3), torch.ones(2, 3)
        assert between(clean, noisy, torch.tensor([0.0, 0.25]))[:, 0].tolist() == [0, 0.25]

    def test_noise_belongs_to_its_name(self):
        assert torch.equal(noise((3,), "a", 1), noise((3,), "a", 1))
        assert not torch.equal(noise((3,), "a", 1), noise((3,), "a", 2))


def clips(count):
    rng = np.random.default_rng(0)
    return [make_clip(random_scene("drop", rng), seed)[0] for seed in range(count)]


class TestCodecs:
    def test_pixels_come_back_exactly(self):
        frames = torch.from_numpy(np.stack([clip.frames for clip in clips(4)]))
        codec = PixelCodec(PixelCodecConfig())
        latents = codec.encode(frames)
        assert latents.shape == (4, *codec.shape(16, 64, 64)) == (4, 3, 16, 64, 64)
        assert torch.equal(codec.decode(latents), frames)
        assert latents.mean().abs() < 0.3 and 0.7 < latents.std() < 1.3

    def test_the_sound_comes_back(self):
        wave = torch.from_numpy(np.stack([clip.audio.waveform for clip in clips(6)]))
        codec = SpectrogramCodec(SpectrogramCodec(SpectrogramCodecConfig()).measured(wave))
        latents = codec.encode(wave)
        assert latents.shape == (6, 320, 80)
        assert latents.mean().abs() < 1e-3 and latents.std().item() == pytest.approx(1, abs=0.01)
        back = codec.decode(latents, 32_000)
        assert back.shape == wave.shape and torch.equal(back, codec.decode(latents, 32_000))
        assert (codec.encode(back) - latents).square().mean().sqrt() < 0.25

    def test_silent_and_nearly_constant_bands_are_encoded_as_numbers(self):
        silence = torch.zeros(2, 1, 32_000)
        codec = SpectrogramCodec(SpectrogramCodec(SpectrogramCodecConfig()).measured(silence))
        assert codec.config.mean == (-4,) * 64  # log10 of 1e-4
        assert not codec.encode(silence).any() and not codec.decode(codec.encode(silence), 32_000).any()
        tone = 0.3 * torch.sin(2 * math.pi * 440 * torch.arange(32_000) / 16_000).expand(2, 1, -1)
        codec = SpectrogramCodec(SpectrogramCodec(SpectrogramCodecConfig()).measured(tone))
        assert min(codec.config.std) == 0.04  # 0.003 without the bound

    def test_an_onset_keeps_its_time(self):
        wave = torch.zeros(4, 1, 32_000)
        times = [0.3, 0.71, 1.234, 1.6]
        for row, seconds in zip(wave[:, 0], times, strict=True):
            ring = torch.arange(32_000 - round(seconds * 16_000)) / 16_000
            row[round(seconds * 16_000) :] = 0.5 * torch.exp(-ring / 0.05) * torch.sin(2 * math.pi * 700 * ring)
        wave += 0.0006 * torch.randn(wave.shape)
        codec = SpectrogramCodec(SpectrogramCodec(SpectrogramCodecConfig()).measured(wave))
        back = codec.decode(codec.encode(wave), 32_000)[:, 0].numpy()
        for row, seconds in zip(back, times, strict=True):
            found = Onsets()(Clip(np.zeros((2, 8, 8, 3), np.uint8), 1, Audio(row[None], 16_000)))["onset_seconds"]
            assert min(abs(found - seconds)) < 0.01

    def test_sizes_that_do_not_fit(self):
        with pytest.raises(InputError, match="frames of 64×60 pixels do not divide into tokens of 16×16"):
            NativeTower(VIDEO).positions(torch.zeros(1, 3, 2, 60, 64))
        with pytest.raises(InputError, match="multiples of 400, got 999"):
            SpectrogramCodec(SpectrogramCodecConfig()).shape(999)


class TestMuon:
    def test_singular_values_come_near_one(self):
        for shape in ((3, 24, 16), (2, 16, 24)):
            values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
            assert 0.6 < values.min() and values.max() < 1.3

    @pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has it from 2.9 on")
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_a_step_is_torch_own(self, dtype):
        """`torch.optim.Muon` takes one matrix at a time; it computes in bf16, so equality is to its precision."""
        weight = torch.randn(32, 16)
        ours, theirs = (nn.Parameter(weight.clone()) for _ in range(2))
        settings = {"lr": 0.1, "weight_decay": 0.01, "momentum": 0.95}
        optimisers = (
            Muon([ours], dtype=dtype, **settings),
            torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **settings),
        )
        for _ in range(3):
            gradient = torch.randn(32, 16)
            for optimiser, one in zip(optimisers, (ours, theirs), strict=True):
                one.grad = gradient.clone()
                optimiser.step()
        moved = (theirs - weight).norm()
        assert (ours - theirs).norm() < (0.05 if dtype == torch.float32 else 0.01) * moved


def parts(arm):
    """Tiny parts over the toy clip spec."""
    audio = dataclasses.replace(AUDIO, channels=320)
    text = {"words": WORDS, "width": 16, "length": 5}
    config = {"format": checkpoint.FORMAT, "clip": CLIP_SPEC.to_json(), "sampling": {"steps": 2}}
    if arm != "t2a":
        config["video"] = {"tower": dataclasses.asdict(VIDEO), "text": text}
        config["video_codec"] = dataclasses.asdict(PixelCodecConfig())
    if arm != "t2v":
        config["audio"] = {"tower": dataclasses.asdict(audio), "text": text}
        config["audio_codec"] = dataclasses.asdict(SpectrogramCodecConfig())
    if arm == "t2av":
        config["joint"] = dataclasses.asdict(JointConfig(2, 5.0))
    made = checkpoint.build(config)
    shaken(made.dit)
    return made


def saved(arm, folder):
    checkpoint.save(parts(arm), folder / arm, {"plan": {}})
    return folder / arm


class TestCheckpoint:
    @pytest.mark.parametrize("arm", ["t2v", "t2a", "t2av"])
    def test_round_trip(self, arm, tmp_path):
        made = parts(arm)
        checkpoint.save(made, tmp_path, {"plan": {}})
        loaded = checkpoint.load(tmp_path)
        assert loaded.arm == arm and loaded.sampling.steps == 2
        kept, given = loaded.learned().state_dict(), made.learned().state_dict()
        assert kept.keys() == given.keys()
        for name, weight in given.items():
            assert torch.equal(kept[name], weight.half().float()), name

    def test_bad_folders(self, tmp_path):
        folder = saved("t2v", tmp_path)
        config = json.loads((folder / "config.json").read_text())

        def refuses(change, sentence):
            (folder / "config.json").write_text(json.dumps(change))
            with pytest.raises(InputError, match=sentence):
                checkpoint.load(folder)

        refuses({"_class_name": "WanTransformer3DModel"}, "not of AVFullDiT but of WanTransformer3DModel")
        refuses({**config, "format": "avfulldit-9"}, "avfulldit-9")
        refuses({name: config[name] for name in config if name != "clip"}, "lacks the field 'clip'")
        tower = {**config["video"]["tower"], "layers": 4}
        refuses({**config, "video": {**config["video"], "tower": tower}}, "the config requires, dit.video.blocks.3")
        tower = {**config["video"]["tower"], "layers": 2}
        refuses({**config, "video": {**config["video"], "tower": tower}}, "does not name, dit.video.blocks.2")
        tower = {**config["video"]["tower"], "levels": [4, 8]}
        refuses({**config, "video": {**config["video"], "tower": tower}}, "dit.video.stem.first.weight is of shape")
        tower = {**config["video"]["tower"], "colour": 1}
        refuses({**config, "video": {**config["video"], "tower": tower}}, "colour")
        with pytest.raises(InputError, match=r"no config\.json"):
            checkpoint.load(tmp_path)


class TestPipeline:
    def test_arms_share_the_video_noise(self, tmp_path):
        wish = Wish("p", 3, "a red ball", "clink")
        arms = [checkpoint.load(saved(arm, tmp_path)) for arm in ("t2v", "t2av")]
        (silent, nothing), (sounding, audio) = (start(arm, wish) for arm in arms)
        assert torch.equal(silent, sounding)
        assert nothing is None and audio.shape == (320, 80)
        assert not torch.equal(silent, start(arms[0], dataclasses.replace(wish, seed=4))[0])

    @pytest.mark.slow
    def test_a_clip_does_not_depend_on_its_batch(self, tmp_path):
        model = checkpoint.load(saved("t2av", tmp_path))
        wishes = [Wish("p", seed, "a red ball", "clink") for seed in range(3)]
        together = make(model, wishes, 3)
        alone = [make(model, [wish], 3)[0] for wish in wishes]
        for a, b in zip(together, alone, strict=True):
            assert np.array_equal(a.frames, b.frames) and np.array_equal(a.audio.waveform, b.audio.waveform)
        assert not np.array_equal(together[0].frames, together[1].frames)
        assert CLIP_SPEC.objection(together[0]) is None

    @pytest.mark.slow
    def test_sound_sampled_again_leaves_the_video_as_it_is(self, tmp_path):
        model = checkpoint.load(saved("t2av", tmp_path))
        wish = Wish("p", 0, "a red ball", "clink")
        made = {}
        for weight in (0.0, 0.5, 2.0):
            model.sampling = dataclasses.replace(model.sampling, audio_again=weight)
            made[weight] = make(model, [wish], 1)[0]
        for one, other in itertools.pairwise(made.values()):
            assert np.array_equal(one.frames, other.frames)
            assert not np.array_equal(one.audio.waveform, other.audio.waveform)
        model.sampling = dataclasses.replace(model.sampling, audio_guidance=2.0)  # it doubles the captions
        assert np.isfinite(make(model, [wish], 1)[0].audio.waveform).all()


def examples(folder):
    rng = np.random.default_rng(0)
    np.save(folder / "video.npy", rng.integers(0, 256, (10, 2, 16, 16, 3), np.uint8))
    np.save(folder / "audio.npy", rng.standard_normal((10, 320, 8)).astype(np.float16))
    lines = [json.dumps({"video": "a red ball", "audio": "clink"})] * 10
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "card.json").write_text('{"clips": 10}')
    return Examples.open(folder)


PLAN = Plan(steps=4, batch=2, warmup=1, link_steps=2)


def trained(arm, plan, folder, data, stop=None, machine=None):
    torch.manual_seed(1)
    made = parts(arm)
    feed = Feed(data, torch.device("cpu"), made.video_text, made.audio_text)
    last = None
    for last in train(
        Objective(made, plan), feed, len(data), data.card, folder, machine or Machine(), pace=Pace(save_every=2)
    ):
        if stop == last.step:
            break
    return made, last


class TestTraining:
    def test_a_killed_training_ends_the_same(self, tmp_path):
        data = examples(tmp_path)
        whole, last = trained("t2av", PLAN, tmp_path / "whole", data)
        trained("t2av", PLAN, tmp_path / "cut", data, stop=3)  # a step after the last state
        resumed, again = trained("t2av", PLAN, tmp_path / "cut", data)
        assert again.seen_sha256 == last.seen_sha256
        for a, b in zip(whole.dit.parameters(), resumed.dit.parameters(), strict=True):
            assert torch.equal(a, b)
        losses = [(tmp_path / run / "losses.csv").read_text().splitlines() for run in ("whole", "cut")]
        assert [line.rsplit(",", 1)[0] for line in losses[0]] == [line.rsplit(",", 1)[0] for line in losses[1]]

    def test_of_several_processes_only_the_first_writes_the_losses(self, tmp_path, monkeypatch):
        data = examples(tmp_path)
        trained("t2v", PLAN, tmp_path / "run", data, stop=3)
        before = (tmp_path / "run" / "losses.csv").read_text()
        kind = accelerate_package().Accelerator
        monkeypatch.setattr(kind, "is_main_process", property(lambda self: False))
        trained("t2v", PLAN, tmp_path / "run", data)
        assert (tmp_path / "run" / "losses.csv").read_text() == before

    def test_several_processes_do_not_train_on_a_gpu(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(InputError, match=r"several processes train on a CPU only: .*ACCELERATE_USE_CPU=1"):
            next(train(Objective(parts("t2v"), PLAN), None, 1, {}, tmp_path / "run", Machine("cuda")))

    def test_examples_that_a_gpu_does_not_hold_are_read_from_the_disk(self, tmp_path, monkeypatch):
        data, made, rows = examples(tmp_path), parts("t2av"), np.array([1, 0])
        data.made()
        here = Feed(data, torch.device("cpu"), made.video_text, made.audio_text)(rows)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
        small = min(("video", "audio"), key=lambda what: getattr(data, what).nbytes)
        free = 2 * (data.video.nbytes + data.audio.nbytes) - 1  # enough for each, and not for both
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
        with pretended_gpu.pretended():
            device = torch.device("cuda:0")
            there = Feed(data, device, made.video_text.to(device), made.audio_text.to(device))(rows)
        assert [*data._resident] == [small] and data.video.nbytes != data.audio.nbytes
        for one, other in zip(here[1:], there[1:], strict=True):
            assert other.is_cuda and torch.equal(one, other.cpu())

    def test_slow_steps_are_saved_before_there_are_many(self, tmp_path):
        data, made = examples(tmp_path), parts("t2v")
        feed = Feed(data, torch.device("cpu"), made.video_text, made.audio_text)
        rest = len(data), data.card, tmp_path / "run", Machine()
        next(iter(train(Objective(made, PLAN), feed, *rest, pace=Pace(save_seconds=0.0))))
        assert next(iter(train(Objective(made, PLAN), feed, *rest))).step == 1  # of the state
        next(iter(train(Objective(made, PLAN), feed, len(data), data.card, tmp_path / "other", Machine())))
        assert not (tmp_path / "other" / "state.pt").exists()

    def test_both_arms_are_shown_the_same_video(self, tmp_path):
        data = examples(tmp_path)
        seen = {arm: trained(arm, PLAN, tmp_path / arm, data)[1].seen_sha256 for arm in ("t2v", "t2av")}
        assert seen["t2v"] == seen["t2av"]
        other = trained("t2v", dataclasses.replace(PLAN, seed=1), tmp_path / "other", data)[1]
        assert other.seen_sha256 != seen["t2v"]

    def test_another_plan_is_refused(self, tmp_path):
        data = examples(tmp_path)
        trained("t2v", PLAN, tmp_path / "run", data, stop=2)
        with pytest.raises(InputError, match=r"learning_rate is .* there and .* here"):
            trained("t2v", dataclasses.replace(PLAN, learning_rate=1.0), tmp_path / "run", data)

    @pytest.mark.slow
    def test_it_learns(self, tmp_path):
        data = examples(tmp_path)
        plan = Plan(steps=60, batch=4, warmup=5, caption_dropout=0.0, learning_rate=3e-3)
        folder = tmp_path / "run"
        trained("t2v", plan, folder, data)
        losses = [float(line.split(",")[1]) for line in (folder / "losses.csv").read_text().splitlines()[1:]]
        assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])

    @pytest.mark.slow
    @pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="there is no C++ compiler here")
    @pytest.mark.filterwarnings("default")
    def test_a_compiled_step_is_the_eager_step(self, tmp_path):
        data, plan = examples(tmp_path), dataclasses.replace(PLAN, steps=1, link_steps=0)
        torch._dynamo.utils.counters.clear()
        try:
            compiled, at = trained("t2av", plan, tmp_path / "compiled", data, machine=Machine(compile=True))
            programs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        finally:
            torch.compiler.reset()
        eager, beside = trained("t2av", plan, tmp_path / "eager", data)
        assert programs >= 5  # blocks of video, of audio, and joint ones; stem and head
        assert (at.video_loss, at.audio_loss) == pytest.approx((beside.video_loss, beside.audio_loss), rel=1e-4)
        torch.manual_seed(1)
        before = parts("t2av").dit.parameters()
        for a, b, first in zip(compiled.dit.parameters(), eager.dit.parameters(), before, strict=True):
            assert (a - b).norm() <= 0.01 * (b - first).norm() + 1e-6

    def test_captions_are_frozen_in_arms(self, tmp_path):
        data = examples(tmp_path)
        torch.manual_seed(1)
        before = parts("t2v").video_text.embedding.weight
        after = trained("t2v", PLAN, tmp_path / "run", data)[0].video_text.embedding.weight
        assert torch.equal(before, after)

    def test_examples_that_do_not_agree(self, tmp_path):
        examples(tmp_path)
        (tmp_path / "card.json").write_text('{"clips": 11}')
        with pytest.raises(InputError, match=r"video\.npy holds 10 examples, card\.json says 11"):
            Examples.open(tmp_path)

    def test_training_waits_for_examples_that_are_being_made(self, tmp_path, monkeypatch):
        data = examples(tmp_path)
        lines = (tmp_path / "captions.jsonl").read_text()
        (tmp_path / "captions.jsonl").write_text(lines[: len(lines) // 2 - 5])  # the fifth line is not yet whole

        def later(seconds):
            (tmp_path / "captions.jsonl").write_text(lines)

        monkeypatch.setattr("time.sleep", later)
        data.wait_for(4)
        assert len(data.captions) == 4
        data.wait_for(10)
        assert len(data.captions) == 10 and data.captions[4] == {"video": "a red ball", "audio": "clink"}
        with pytest.raises(InputError, match="will hold 10 examples; 11 were asked for"):
            data.wait_for(11)

    def test_a_plan_reaches_more_examples_step_by_step(self):
        plan = dataclasses.replace(PLAN, first_examples=4, more_examples=3)
        assert [plan.reached(step, 10) for step in range(4)] == [4, 7, 10, 10]
        assert all(row < 4 for row in draw(dataclasses.replace(plan, batch=64), 0, 10).rows)

    def test_the_rate_rises_stays_and_falls(self):
        plan = Plan(steps=100, warmup=10, decay_share=0.3, learning_rate=1.0)
        assert [plan.rate(step) for step in (0, 9, 50, 70)] == [0.1, 1, 1, 1]
        assert plan.rate(85) == pytest.approx(0.5) and plan.rate(99) == pytest.approx(1 / 30)


def test_words():
    encoder = CaptionEncoder(WORDS, 16, 3)
    assert encoder.unknown("A red Zebra-ball.") == ["zebra"]
    assert encoder.ids(["a red ball clink", ""]).tolist() == [[3, 6, 4], [1, 0, 0]]


def test_parts_name_their_arm():
    assert isinstance(parts("t2av"), Parts) and parts("t2a").arm == "t2a"
