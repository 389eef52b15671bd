"""DeSync: the protocol's steps and the network beside other formulations, on small random weights of the layout."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from made_media import assert_same_in_its_file
from PIL import Image
from torch.nn import functional

from avbench.core import Audio, Clip, InputError, NotMeasurable
from avbench.features.protocols import protocol_of
from avbench.features.requirements import require_ready
from avbench.features.sync import synchformer as sf
from avbench.features.sync.synchformer import Synchformer, SynchformerProtocol
from avbench.metrics.sync import desync, desync_lag
from avbench.storage import weights

TINY = sf.Shape(width=24, depth=2, heads=3, joint_depth=2, joint_heads=4)
SETTINGS = SynchformerProtocol()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setattr(Synchformer, "shape", TINY)
    return tmp_path


@pytest.fixture(scope="module")
def state():
    """Every tensor random, the unused patches of one frame included."""
    generator = torch.Generator().manual_seed(0)
    made = sf.Network(TINY).state_dict()
    made = {name: 0.4 * torch.randn(value.shape, generator=generator) for name, value in made.items()}
    return {**made, "vfeat_extractor.patch_embed.proj.weight": torch.zeros(24, 3, 16, 16)}


def provide(cache, state):
    torch.save(state, cache / "synchformer.pth")
    weights.provide("synchformer", cache / "synchformer.pth")


def made_clip(seconds, fps=25, rate=16000, size=(24, 32)):
    """Frames of one colour each, and noise whose loudness changes as often."""
    count, random = round(seconds * fps), np.random.default_rng(0)
    frames = np.broadcast_to(random.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8), (count, *size, 3))
    levels = np.repeat(10 ** random.uniform(-4, 0, count), rate // fps)
    wave = levels * random.uniform(-1, 1, (2, count * (rate // fps)))
    return Clip(frames, fps, Audio(wave.astype(np.float32), rate))


def test_what_was_not_brought_is_asked_for(cache, state):
    for ask in (Synchformer, lambda: protocol_of("synchformer"), lambda: require_ready(["synchformer"])):
        with pytest.raises(InputError, match=r"is missing.*then `avbench weights fetch synchformer --file PATH`"):
            ask()
    provide(cache, state)
    assert protocol_of("synchformer").weights_sha256 == weights.file_sha256(cache / "synchformer.pth")


def test_the_layout_is_the_published_one():
    with torch.device("meta"):
        state = sf.Network(sf.Shape()).state_dict()
    assert len(state) == 513 - 2, "all but the patches of one frame"
    assert sum(value.numel() for value in state.values()) == 237_460_245 - 768 * (3 * 16 * 16 + 1)
    shapes = {
        "vfeat_extractor.cls_token": (1, 1, 768),
        "vfeat_extractor.pos_embed": (1, 197, 768),
        "vfeat_extractor.temp_embed": (1, 8, 768),
        "vfeat_extractor.patch_embed_3d.proj.weight": (768, 3, 2, 16, 16),
        "vfeat_extractor.blocks.11.timeattn.qkv.bias": (2304,),
        "vfeat_extractor.blocks.11.mlp.fc2.weight": (768, 3072),
        "vfeat_extractor.spatial_attn_agg.self_attn.in_proj_weight": (2304, 768),
        "afeat_extractor.ast.embeddings.position_embeddings": (1, 74, 768),
        "afeat_extractor.ast.embeddings.patch_embeddings.projection.weight": (768, 1, 16, 16),
        "afeat_extractor.ast.encoder.layer.11.attention.attention.query.weight": (768, 768),
        "afeat_extractor.ast.encoder.layer.11.intermediate.dense.weight": (3072, 768),
        "afeat_extractor.freq_attn_agg.cls_token": (1, 1, 768),
        "transformer.pos_emb_cfg.pos_emb": (1, 198, 768),
        "transformer.blocks.2.mlp.2.weight": (768, 3072),
        "transformer.off_head.weight": (21, 768),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


class Oracle:
    """The network as one reads it in the papers: full attention under masks, over tokens laid out by hand."""

    def __init__(self, state):
        self.state = state

    def affine(self, x, name):
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def norm(self, x, name, epsilon):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + epsilon).sqrt()
        return x * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def attention(self, q, k, v, heads, mask=None):
        wide = q.shape[-1] // heads
        parts = []
        for h in range(heads):
            cut = slice(h * wide, (h + 1) * wide)
            scores = q[..., cut] @ k[..., cut].transpose(-1, -2) / wide**0.5
            scores = scores if mask is None else scores.masked_fill(~mask, float("-inf"))
            parts.append(scores.softmax(-1) @ v[..., cut])
        return torch.cat(parts, dim=-1)

    def summary(self, x, name):
        """``[n, tokens, width]`` → ``[n, width]``."""
        x = torch.cat((self.state[f"{name}.cls_token"].expand(len(x), 1, -1), x), dim=1)
        y = self.norm(x, f"{name}.norm1", 1e-6)
        y = y @ self.state[f"{name}.self_attn.in_proj_weight"].T + self.state[f"{name}.self_attn.in_proj_bias"]
        x = x + self.affine(self.attention(*y.chunk(3, dim=-1), TINY.heads), f"{name}.self_attn.out_proj")
        y = functional.gelu(self.affine(self.norm(x, f"{name}.norm2", 1e-6), f"{name}.linear1"))
        return (x + self.affine(y, f"{name}.linear2"))[:, 0]

    def picture(self, x):
        """``[3, 16, 224, 224]`` → ``[8, width]``."""
        at = "vfeat_extractor"
        kernel, bias = (self.state[f"{at}.patch_embed_3d.proj.{part}"] for part in ("weight", "bias"))
        tokens = [self.state[f"{at}.cls_token"][0, 0] + self.state[f"{at}.pos_embed"][0, 0]]
        for frame in range(8):
            for place in range(196):
                row, column = 16 * (place // 14), 16 * (place % 14)
                patch = x[:, 2 * frame : 2 * frame + 2, row : row + 16, column : column + 16]
                where = self.state[f"{at}.pos_embed"][0, 1 + place] + self.state[f"{at}.temp_embed"][0, frame]
                tokens.append(kernel.flatten(1) @ patch.flatten() + bias + where)
        x = torch.stack(tokens)
        frame, place = (
            torch.cat((torch.tensor([-1]), each)) for each in (torch.arange(1568) // 196, torch.arange(1568) % 196)
        )
        for block in range(TINY.depth):
            name = f"{at}.blocks.{block}"
            for part, norm, kind in (("timeattn", "norm3", place), ("attn", "norm1", frame)):
                mask = (kind[:, None] == kind[None]) | (kind[:, None] < 0) | (kind[None] < 0)
                qkv = self.affine(self.norm(x, f"{name}.{norm}", 1e-6), f"{name}.{part}.qkv").chunk(3, dim=-1)
                x = x + self.affine(self.attention(*qkv, TINY.heads, mask), f"{name}.{part}.proj")
            y = functional.gelu(self.affine(self.norm(x, f"{name}.norm2", 1e-6), f"{name}.mlp.fc1"))
            x = x + self.affine(y, f"{name}.mlp.fc2")
        x = self.norm(x, f"{at}.norm", 1e-6)
        return torch.cat([self.summary(x[frame == k][None], f"{at}.spatial_attn_agg") for k in range(8)])

    def sound(self, x):
        """``[128, 66]`` → ``[6, width]``."""
        at, inner = "afeat_extractor.ast", "afeat_extractor.ast.embeddings"
        kernel, bias = (self.state[f"{inner}.patch_embeddings.projection.{part}"] for part in ("weight", "bias"))
        tokens = [self.state[f"{inner}.cls_token"][0, 0], self.state[f"{inner}.distillation_token"][0, 0]]
        for band in range(0, 120, 10):
            for column in range(0, 60, 10):
                patch = x[band : band + 16, column : column + 16]
                tokens.append(kernel.flatten(1) @ patch.flatten() + bias)
        x = torch.stack(tokens) + self.state[f"{inner}.position_embeddings"][0]
        for layer in range(TINY.depth):
            name = f"{at}.encoder.layer.{layer}"
            y = self.norm(x, f"{name}.layernorm_before", 1e-12)
            qkv = (self.affine(y, f"{name}.attention.attention.{part}") for part in ("query", "key", "value"))
            x = x + self.affine(self.attention(*qkv, TINY.heads), f"{name}.attention.output.dense")
            y = functional.gelu(
                self.affine(self.norm(x, f"{name}.layernorm_after", 1e-12), f"{name}.intermediate.dense")
            )
            x = x + self.affine(y, f"{name}.output.dense")
        x = self.norm(x, f"{at}.layernorm", 1e-12)[2:]
        return torch.cat([self.summary(x[k::6][None], "afeat_extractor.freq_attn_agg") for k in range(6)])

    def logits(self, pictures, sounds):
        """``[14, 8, width]`` and ``[14, 6, width]`` → ``[21]``."""
        at = "transformer"
        seen = self.norm(self.affine(pictures.flatten(0, 1), "vproj"), f"{at}.vis_in_lnorm", 1e-5)
        heard = self.norm(self.affine(sounds.flatten(0, 1), "aproj"), f"{at}.aud_in_lnorm", 1e-5)
        x = torch.cat((self.state[f"{at}.OFF_tok"][0], seen, self.state[f"{at}.MOD_tok"][0], heard))
        x = x + self.state[f"{at}.pos_emb_cfg.pos_emb"][0]
        for block in range(TINY.joint_depth):
            name = f"{at}.blocks.{block}"
            y = self.norm(x, f"{name}.ln1", 1e-5)
            qkv = (self.affine(y, f"{name}.attn.{part}") for part in ("query", "key", "value"))
            x = x + self.affine(self.attention(*qkv, TINY.joint_heads), f"{name}.attn.proj")
            y = functional.gelu(self.affine(self.norm(x, f"{name}.ln2", 1e-5), f"{name}.mlp.0"))
            x = x + self.affine(y, f"{name}.mlp.2")
        return self.affine(self.norm(x, f"{at}.ln_f", 1e-5)[0], f"{at}.off_head")


def close(found, right):
    torch.testing.assert_close(found, right, rtol=0, atol=2e-5 * float(right.abs().max()))


def test_the_network_is_the_one_of_the_papers(cache, state):
    provide(cache, state)
    network, oracle = Synchformer()._network.cpu(), Oracle(state)
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.rand(2, 3, 16, 224, 224, generator=generator) - 1
    close(network.vfeat_extractor(x), torch.stack([oracle.picture(each) for each in x]))
    x = torch.randn(2, 1, 128, 66, generator=generator)
    close(network.afeat_extractor(x), torch.stack([oracle.sound(each[0]) for each in x]))
    pictures, sounds = torch.randn(14, 8, 24, generator=generator), torch.randn(14, 6, 24, generator=generator)
    close(network(pictures, sounds), oracle.logits(pictures, sounds))


@pytest.mark.slow
def test_the_spectrogram_is_librosas():
    librosa = pytest.importorskip("librosa")
    t = np.arange(10240) / 16000
    random = np.random.default_rng(0)
    wave = 0.3 * np.sin(2 * np.pi * (300 * t + 3000 * t**2)) + 0.01 * random.standard_normal(10240)
    found = sf.log_mel(torch.from_numpy(wave.astype(np.float32))[None], SETTINGS)[0, 0].numpy()
    options = {"win_length": 400, "hop_length": 160, "n_mels": 128, "htk": True, "norm": None, "pad_mode": "reflect"}
    power = librosa.feature.melspectrogram(y=wave, sr=16000, n_fft=1024, **options)
    right = np.pad(np.log(power + 1e-6), ((0, 0), (0, 1)))
    assert found.shape == right.shape == (128, 66)
    np.testing.assert_allclose(found, (right + 4.2677393) / (2 * 4.5689974), atol=1e-4)


@pytest.mark.parametrize("fps", ["8", "12.5", "16", "24000/1001", "24", "25", "30", "48", "60", "7/3"])
def test_frames_are_chosen_as_ffmpeg_does(fps):
    fps, count = Fraction(fps), 61
    graph = av.filter.Graph()
    source = graph.add_buffer(width=16, height=16, format="gray", time_base=1 / fps)
    rate, sink = graph.add("fps", "25"), graph.add("buffersink")
    source.link_to(rate)
    rate.link_to(sink)
    graph.configure()
    for k in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((16, 16), k, np.uint8), format="gray")
        frame.pts, frame.time_base, frame.duration = k, 1 / fps, 1
        source.push(frame)
    source.push(None)
    shown = []
    while True:
        try:
            shown.append(int(sink.pull().to_ndarray()[0, 0]))
        except (av.error.BlockingIOError, av.error.EOFError):
            break
    assert len(shown) > 20
    assert sf.at_rate(count, fps, 25).tolist() == shown


@pytest.mark.parametrize("size", [(180, 320), (320, 180), (300, 300), (64, 64), (224, 401)])
def test_a_frame_is_the_middle_of_pillows(cache, state, size):
    provide(cache, state)
    random = np.random.default_rng(0)
    frame = np.array(Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize(size[::-1]))
    found = Synchformer()._planes(frame[None])[:, 0].permute(1, 2, 0).numpy()
    short = min(size)
    height, width = (224 * side // short for side in size)
    right = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    top, left = round((height - 224) / 2), round((width - 224) / 2)
    right = right[top : top + 224, left : left + 224] / 127.5 - 1
    np.testing.assert_allclose(found, right, atol=2.01 / 127.5, err_msg="two of 256 levels")
    assert np.abs(found - right).mean() < 0.2 / 127.5


def test_both_ends_are_looked_at(cache, state, monkeypatch):
    """As av-benchmark cuts 6.2 s: 18 segments, of which the first 14 and the last 14."""
    provide(cache, state)
    outputs, forward = [], sf.Network.forward

    def kept(self, *args):
        outputs.append(forward(self, *args))
        return outputs[-1]

    monkeypatch.setattr(sf.Network, "forward", kept)
    clip = made_clip(6.2)
    feature = Synchformer()
    values = feature(clip)
    network, mono = feature._network, clip.audio.waveform.mean(axis=0)
    for end, first, name in ((0, 0, "first_lag"), (1, 4, "last_lag")):
        frames = [clip.frames[8 * k : 8 * k + 16].copy() for k in range(first, first + 14)]
        x = torch.stack([feature._planes(each) for each in frames])
        waves = torch.from_numpy(np.stack([mono[5120 * k : 5120 * k + 10240] for k in range(first, first + 14)]))
        bands = sf.log_mel(waves.to(feature._device), SETTINGS)
        pictures, sounds = network.vfeat_extractor(x), network.afeat_extractor(bands)
        right = forward(network, pictures, sounds)
        close(outputs[end], right)
        assert values[name] == pytest.approx(2 - 0.2 * int(right.argmax()))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


def test_of_the_shortest_clip_both_ends_are_one(cache, state):
    provide(cache, state)
    feature, clip = Synchformer(), made_clip(4.8, fps=10, rate=8000)
    values = feature(clip)
    assert values["first_lag"] == values["last_lag"]
    assert_same_in_its_file(feature, clip, cache)


@pytest.mark.parametrize(("place", "lag"), [(0, 2.0), (10, 0.0), (18, -1.6), (20, -2.0)])
def test_a_lag_is_positive_where_the_sound_is_late(cache, state, place, lag):
    """Synchformer's README: "the audio track will be 1.6 seconds early" goes with class 18."""
    certain = torch.zeros(21)
    certain[place] = 1e3
    provide(cache, {**state, "transformer.off_head.bias": certain})
    assert Synchformer()(made_clip(4.8, size=(8, 8))) == {"first_lag": lag, "last_lag": lag}


def test_desync_is_the_mean_size():
    columns = {"first_lag": np.array([1.6, -0.2, 0.0]), "last_lag": np.array([-1.2, -0.4, 0.0])}
    np.testing.assert_allclose(desync(columns), [1.4, 0.3, 0])
    np.testing.assert_allclose(desync_lag(columns), [0.2, -0.3, 0])


def test_what_cannot_be_measured_says_why(cache, state):
    provide(cache, state)
    feature, whole = Synchformer(), made_clip(4.8, fps=10, rate=8000)
    frames, sound = whole.frames, whole.audio
    shorter = Audio(sound.waveform[:, :-1], 8000)
    for clip, reason in (
        (Clip(frames, 10), "the clip has no sound"),
        (Clip(frames[:20], 10, sound), r"has 2 s of picture and 4.8 s of sound; Synchformer needs 4.8 s of both"),
        (Clip(frames[:-1], 10, sound), r"has 4.7 s of picture and 4.8 s of sound"),
        (Clip(np.resize(frames, (115, *frames.shape[1:])), 24, sound), r"has 4.792 s of picture"),
        (Clip(frames, 10, shorter), r"has 4.8 s of picture and 4.7999 s of sound; Synchformer needs 4.8 s"),
        (Clip(frames, 10, Audio(1e-5 * sound.waveform, 8000)), "the track is silent"),
        (Clip(frames, 10, Audio(sound.waveform[:1] * np.float32([[1], [-1]]), 8000)), "its channels cancel each other"),
    ):
        with pytest.raises(NotMeasurable, match=reason):
            feature(clip)


def test_a_checkpoint_that_does_not_fit_names_the_tensor(cache, state):
    name = "transformer.pos_emb_cfg.pos_emb"
    for wrong, message in (
        ({key: value for key, value in state.items() if key != name}, rf'Missing key.*"{name}"'),
        ({**state, "vfeat_extractor.more": torch.zeros(1)}, r'Unexpected key.*"vfeat_extractor.more"'),
        ({**state, name: torch.zeros(1, 197, 24)}, f"size mismatch for {name}"),
    ):
        provide(cache, wrong)
        with pytest.raises(InputError, match=f"the Synchformer checkpoint does not fit: {message}"):
            Synchformer()
    provide(cache, [1])
    with pytest.raises(InputError, match="is not a flat state dict"):
        Synchformer()
