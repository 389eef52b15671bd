"""VBench's rules on cases worked out by hand, and its networks beside others' on random weights."""

import numpy as np
import pytest
import torch
from made_media import assert_same_in_its_file
from safetensors.torch import save_file
from torch import nn
from torchvision.models.optical_flow import raft_large

from avbench.core import Clip, InputError, NotMeasurable, Prompt
from avbench.features.flow.raft import border
from avbench.features.table import Requires
from avbench.features.vbench import consistency as vc
from avbench.features.vbench import dynamic_degree
from avbench.features.vbench import smoothness as vbench_smoothness
from avbench.features.vbench.pixels import Flicker
from avbench.features.vbench.smoothness import MotionSmoothness, smoothness
from avbench.metrics.table import known_metrics
from avbench.storage import weights

RNG = np.random.default_rng(0)
STILL = Clip(np.repeat(RNG.integers(0, 256, (1, 48, 80, 3), dtype=np.uint8), 3, axis=0), 8)
NOISE = Clip(RNG.integers(0, 256, (3, 48, 80, 3), dtype=np.uint8), 8)
ONE = Clip(NOISE.frames[:1], 8)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path


def provide(name, state, file):
    save_file(state, file) if file.suffix == ".safetensors" else torch.save(state, file)
    weights.provide(name, file)


def randomised(network, deviation=0.1):
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=deviation)
    return network.eval().requires_grad_(False)


# Flicker


def test_flicker_is_the_share_of_the_range_that_stays():
    frames = np.zeros((3, 4, 5, 3), dtype=np.uint8)
    frames[1] = 255  # there and back: differences of 255 either way, which 8 bits would make 1
    assert Flicker()(Clip(frames, 8)) == {"flickering": 0.0}
    frames[1] = 0
    frames[2, :2] = 51  # half of the second pair's pixels change by a fifth
    assert Flicker()(Clip(frames, 8))["flickering"] == pytest.approx(1 - (0 + 0.1) / 2)
    assert Flicker()(STILL) == {"flickering": 1.0}, "a frozen clip cannot be beaten"
    with pytest.raises(NotMeasurable, match="needs 2"):
        Flicker()(ONE)


# RAFT


@pytest.mark.parametrize(
    ("speeds", "frames", "side", "right"),
    [
        ([7.0] * 4 + [0.0] * 11, 16, 256, True),
        ([7.0] * 3 + [0.0] * 12, 16, 256, False),
        ([6.0] * 15, 16, 256, False),  # the threshold itself is not above it
        ([7.0] * 15, 16, 512, False),
        ([0.0], 2, 256, True),  # none of one pair has to move
        ([0.0, 0.0], 3, 256, False),
        ([7.0] * 2 + [0.0] * 7, 10, 256, True),  # 2.5 is rounded to 2
    ],
)
def test_dynamic_degree(speeds, frames, side, right):
    assert dynamic_degree.dynamic(speeds, frames, side) is right


@pytest.mark.parametrize(
    ("speeds", "ends", "frames", "side", "right"),
    [
        ([4.0] * 2 + [0.0] * 13, (0.0, 0.0), 16, 256, True),
        ([4.0] * 3 + [0.0] * 12, (0.0, 0.0), 16, 256, False),
        ([0.0] * 15, (12.0, 12.0), 16, 256, True),
        ([0.0] * 15, (0.0, 12.1), 16, 256, False),
        ([0.0] * 15, (12.1, 12.1), 16, 512, True),
        ([0.0] * 3, (0.0, 1e-6), 4, 256, False),  # 0.5 is rounded to 0, so that nothing may move
        ([0.0] * 3, (0.0, 0.0), 4, 256, True),
    ],
)
def test_static_filter(speeds, ends, frames, side, right):
    assert dynamic_degree.static(speeds, ends, frames, side) is right


def test_the_fastest_share_is_rounded_down():
    magnitudes = np.arange(99, dtype=np.float32).reshape(9, 11)
    assert dynamic_degree.fastest(magnitudes, 0.05) == (95 + 96 + 97 + 98) / 4


def test_edges_are_repeated_to_a_multiple_of_8():
    assert border(7, 5) == (1, 2, 0, 1)
    assert border(8, 16) == (0, 0, 0, 0)


@pytest.mark.slow
def test_raft_is_torchvisions(cache, monkeypatch):
    torch.manual_seed(0)
    network = raft_large(weights=None).eval()
    provide("raft-large-c-t-v1", network.state_dict(), cache / "raft.pth")
    feature = dynamic_degree.VBenchRAFT()
    assert feature.protocol.weights_sha256 == weights.file_sha256(cache / "raft.pth")
    frames = RNG.integers(0, 256, (3, 128, 136, 3), dtype=np.uint8)
    row = feature(Clip(frames, 8))
    from torchvision.models.optical_flow import Raft_Large_Weights

    pair = (torch.from_numpy(frames[k : k + 1]).permute(0, 3, 1, 2) for k in (0, 1))
    with torch.no_grad():
        flow = network(*Raft_Large_Weights.C_T_V1.transforms()(*pair), num_flow_updates=20)[-1]
    lengths = np.sort(flow.square().sum(dim=1).sqrt().numpy().ravel())
    assert row["dynamic_scores"].shape == (2,)
    assert row["dynamic_scores"][0] == pytest.approx(lengths[-int(len(lengths) * 0.05) :].mean(), rel=1e-4)
    assert {row["dynamic"], row["static"]} <= {0.0, 1.0}
    assert_same_in_its_file(feature, Clip(frames, 8), cache)
    monkeypatch.setattr(feature, "magnitudes", lambda one, other: np.abs(one[..., 0] - other[..., 0].astype(float)))
    clip = Clip(RNG.integers(0, 256, (11, 128, 136, 3), dtype=np.uint8), 24)
    assert_same_in_its_file(feature, clip, cache)
    speeds = [dynamic_degree.fastest(feature.magnitudes(*clip.frames[[k, k + 3]]), 0.05) for k in (0, 3, 6)]
    np.testing.assert_array_equal(feature(clip)["dynamic_scores"], speeds)
    with pytest.raises(NotMeasurable, match="VBench samples one, and motion needs 2"):
        feature(Clip(frames, 30))
    with pytest.raises(NotMeasurable, match="80x48; RAFT needs 121 pixels"):
        feature(NOISE)
    state = dict(network.state_dict())
    del state["mask_predictor.conv.bias"]
    provide("raft-large-c-t-v1", state, cache / "less.pth")
    with pytest.raises(InputError, match="as torchvision's raft_large, does not fit: Missing key"):
        dynamic_degree.VBenchRAFT()


# Consistency


def test_consistency_by_hand():
    right, up = (1.0, 0.0), (0.0, 1.0)
    assert vc.consistency(np.array([right, right, right])) == 1
    assert vc.consistency(np.array([right, up])) == 0
    # Second frame: 0 and 0. Third: 0 to the first, 1 to the one before.
    assert vc.consistency(np.array([right, up, up])) == pytest.approx((0 + 0.5) / 2)
    # Opposite directions count as 0, not as -1; lengths do not count.
    assert vc.consistency(np.array([right, (-5.0, 0.0), (3.0, 0.0)])) == pytest.approx((0 + 0.5) / 2)


TINY = vc.Shape(width=24, depth=2, heads=3)


def test_dino_is_the_vision_transformer_of_timm(cache, monkeypatch):
    timm = pytest.importorskip("timm")
    monkeypatch.setattr(vc.SubjectConsistency, "shape", TINY)
    torch.manual_seed(0)
    theirs = randomised(
        timm.models.VisionTransformer(img_size=224, patch_size=16, embed_dim=24, depth=2, num_heads=3, num_classes=0),
        0.2,
    )
    state = theirs.state_dict()
    provide("dino-vitb16", state, cache / "dino.pth")
    feature = vc.SubjectConsistency()
    square = RNG.integers(0, 256, (3, 300, 300, 3), dtype=np.uint8)
    x = torch.from_numpy(square).permute(0, 3, 1, 2).float()
    x = nn.functional.interpolate(x, (224, 224), mode="bilinear") / 255
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    right = theirs((x - mean) / deviation).numpy()
    np.testing.assert_allclose(feature.features(square), right, atol=2e-5)
    assert feature(Clip(square, 8))["consistency"] == pytest.approx(vc.consistency(right), abs=1e-6)
    assert feature(STILL)["consistency"] == pytest.approx(1, abs=1e-6), "a frozen clip cannot be beaten"
    assert feature(NOISE)["consistency"] < 1
    with pytest.raises(NotMeasurable, match="needs 2 frames and this clip has 1"):
        feature(ONE)
    del state["blocks.1.attn.qkv.bias"]
    provide("dino-vitb16", state, cache / "dino.pth")
    with pytest.raises(InputError, match="the DINO checkpoint does not fit: Missing key"):
        vc.SubjectConsistency()


def cubic(places, length):
    """Weights ``[places, length]`` of cubic interpolation (a = -0.75) with the ends repeated."""
    table = np.zeros((len(places), length))
    for row, place in zip(table, places, strict=True):
        for k in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            d = abs(place - k)
            near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            row[min(max(k, 0), length - 1)] += near if d <= 1 else far
    return table


def test_dinos_positions_are_stretched_by_a_tenth_of_a_patch_more():
    network = randomised(vc.Network(vc.Shape(width=2, depth=0, heads=1)))
    table = network.pos_embed[0, 1:].reshape(14, 14, 2)
    assert torch.equal(network._positions(14, 14)[0].permute(1, 2, 0), table)
    rows, columns = (cubic((np.arange(n) + 0.5) * 14 / (n + 0.1) - 0.5, 14) for n in (14, 25))
    right = np.einsum("ri,cj,ijw->wrc", rows, columns, table.numpy())
    np.testing.assert_allclose(network._positions(14, 25)[0], right, atol=1e-6)
    seen = network(torch.rand(1, 3, 224, 415))
    assert seen.shape == (1, 2) and seen.isfinite().all()


# CLIP

SMALL = vc.CLIPShape(embedding=16, patch=56, width=64, depth=1, text_width=16, text_heads=2, text_depth=1)


@pytest.fixture
def clip_network(cache, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    for feature in (vc.BackgroundConsistency, vc.TextAlignment):
        monkeypatch.setattr(feature, "shape", SMALL)
    torch.manual_seed(0)
    vision = {"image_size": 224, "layers": 1, "width": 64, "patch_size": 56}
    text = {"context_length": 77, "layers": 1, "heads": 2, "width": 16}
    network = randomised(open_clip.CLIP(16, vision, text, quick_gelu=True))
    provide("clip-vit-b32-openai", network.state_dict(), cache / "clip.safetensors")
    return network


@pytest.mark.slow
def test_background_is_clip_without_antialias(clip_network):
    from torchvision import transforms

    feature = vc.BackgroundConsistency()
    shown = transforms.Compose([
        transforms.Resize(224, interpolation=transforms.InterpolationMode.BICUBIC, antialias=False),
        transforms.CenterCrop(224),
        transforms.Lambda(lambda x: x.float().div(255.0)),
        transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ])  # fmt: skip
    for height, width in ((48, 80), (301, 240)):
        frames = RNG.integers(0, 256, (3, height, width, 3), dtype=np.uint8)
        right = clip_network.encode_image(shown(torch.Tensor(frames).permute(0, 3, 1, 2)), normalize=True).double()
        cosines = (right @ right.T).clamp(min=0)
        expected = ((cosines[0, 1] + cosines[0, 1]) / 2 + (cosines[0, 2] + cosines[1, 2]) / 2) / 2
        assert feature(Clip(frames, 8))["consistency"] == pytest.approx(expected.item(), abs=1e-6)
    assert feature(STILL)["consistency"] == pytest.approx(1, abs=1e-6)
    with pytest.raises(NotMeasurable, match="needs 2 frames and this clip has 1"):
        feature(ONE)


def test_text_alignment_is_open_clips_cosine(clip_network):
    import open_clip
    from PIL import Image

    feature, caption = vc.TextAlignment(), "A red ball rolls to the left; it's struck twice."
    assert feature.requires is Requires.PROMPT
    shown = open_clip.image_transform(224, is_train=False)
    images = clip_network.encode_image(torch.stack([shown(Image.fromarray(f)) for f in NOISE.frames]), normalize=True)
    text = clip_network.encode_text(open_clip.tokenize([caption]), normalize=True)
    row = feature(NOISE, Prompt("a", caption))
    assert row["similarity"] == pytest.approx((images @ text.T).mean().item(), abs=1e-6)
    assert row["truncated"] == 0
    assert feature(ONE, Prompt("a", caption))["truncated"] == 0, "one frame can be compared with a caption"
    fits, longer = (feature(ONE, Prompt("a", "ball " * words)) for words in (75, 76))
    assert (fits["truncated"], longer["truncated"]) == (0, 1)
    assert fits["similarity"] == longer["similarity"], "the 76th word is not seen"


class Holder(nn.Module):
    """Tensors under their names, as a program that nobody calls."""

    def __init__(self, state):
        super().__init__()
        children = {}
        for name, value in state.items():
            first, _, rest = name.partition(".")
            if rest:
                children.setdefault(first, {})[rest] = value
            else:
                self.register_buffer(name, value)
        for name, part in children.items():
            self.add_module(name, Holder(part))

    def forward(self):
        return 0


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_openais_torchscript_is_read_for_its_tensors(cache, clip_network):
    right = vc.BackgroundConsistency()(NOISE)["consistency"]
    state = {name: value.half() for name, value in clip_network.state_dict().items()}
    state |= {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    torch.jit.script(Holder(state)).save(str(cache / "ViT-B-32.pt"))
    weights.provide("clip-vit-b32-openai", cache / "ViT-B-32.pt")
    assert vc.BackgroundConsistency()(NOISE)["consistency"] == pytest.approx(right, abs=2e-3)
    (cache / "ViT-B-32.pt").write_bytes(b"no program")
    with pytest.raises(InputError, match=r"cannot be read as a safetensors or OpenAI's"):
        vc.TextAlignment()
    save_file({"visual.proj": torch.zeros(2, 2)}, cache / "clip.safetensors")
    weights.provide("clip-vit-b32-openai", cache / "clip.safetensors")
    with pytest.raises(InputError, match="the CLIP checkpoint does not fit: Missing key"):
        vc.TextAlignment()


# Smoothness


def test_smoothness_compares_the_frames_left_out():
    frames = np.zeros((6, 2, 2, 3), dtype=np.uint8)
    frames[1], frames[3], frames[5] = 255, 0, 255  # the last has no successor and does not count
    assert smoothness(frames, lambda *_: np.zeros((2, 2, 3), dtype=np.uint8)) == 0.5
    middle = {0: frames[1], 2: frames[3]}
    frames[2] = 2
    assert smoothness(frames, lambda before, _: middle[int(before[0, 0, 0])]) == 1


def blank():
    """AMT-S with every weight 0: nothing moves, and both frames count alike."""
    network = vbench_smoothness.Network()
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    return network.requires_grad_(False)


def test_amt_s_has_the_published_size():
    assert sum(value.numel() for value in blank().parameters()) == pytest.approx(3.0e6, rel=0.02)


def test_amt_s_goes_along_its_flows():
    network = blank()
    first, second = torch.rand(2, 1, 3, 128, 144)
    torch.testing.assert_close(network(first, second), (first + second) / 2, atol=2e-5, rtol=0)
    # Every field: 2 to the right in the first frame, 2 up in the second, which counts for 1 - sigmoid(1).
    bias = network.decoder1.convblock[2].bias
    bias[0:6:2], bias[7:12:2], bias[12:15] = 2.0, -2.0, 1.0
    share = torch.sigmoid(torch.tensor(1.0))
    right = share * first[:, :, 2:, 2:] + (1 - share) * second[:, :, :-2, :-2]
    torch.testing.assert_close(network(first, second)[:, :, 2:, :-2], right, atol=2e-4, rtol=0)


def test_amt_s_correlates_every_place_with_every_place():
    torch.manual_seed(0)
    first, second = maps = torch.randn(2, 5, 16, 24)
    found = vbench_smoothness.Correlations(maps).around(torch.zeros(1, 4, 16, 24))[0].reshape(2, 4, 7, 7, 16, 24)
    row, column = 8, 11
    for dx, dy in ((0, 0), (2, 0), (-3, 1)):
        for one, other, way in ((first, second, 0), (second, first, 1)):
            right = one[:, row, column] @ other[:, row + dy, column + dx] / 5**0.5
            # The window's first axis is x.
            torch.testing.assert_close(found[way, 0, 3 + dx, 3 + dy, row, column], right, atol=1e-4, rtol=1e-4)
    pooled = second.unfold(1, 2, 2).unfold(2, 2, 2).mean(dim=(3, 4))
    right = first[:, row, 10] @ pooled[:, 4, 5] / 5**0.5
    torch.testing.assert_close(found[0, 1, 3, 3, row, 10], right, atol=1e-4, rtol=1e-4)


def test_smoothness_of_a_checkpoint(cache):
    provide("amt-s", {"epoch": 299, "state_dict": blank().state_dict(), "optim": {"state": {}}}, cache / "amt-s.pth")
    feature = MotionSmoothness()
    levels = np.array([10, 20, 30, 40, 90, 7], dtype=np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (6, 120, 131, 3)).copy()
    # Middle frames are 20 and 60 where there are 20 and 40; 8 bits are reached by rounding down.
    assert feature(Clip(frames, 8))["smoothness"] == pytest.approx(1 - (0 + 20) / 2 / 255, abs=1.01 / 255)
    frozen = Clip(np.repeat(RNG.integers(0, 256, (1, 120, 131, 3), dtype=np.uint8), 3, axis=0), 8)
    assert feature(frozen)["smoothness"] > 1 - 1.01 / 255
    assert_same_in_its_file(feature, Clip(frames, 8), cache)
    with pytest.raises(NotMeasurable, match="two neighbours; it needs 3 frames and this clip has 2"):
        feature(Clip(frames[:2], 8))
    with pytest.raises(NotMeasurable, match="80x48; AMT-S needs 113 pixels"):
        feature(NOISE)


def test_what_is_no_checkpoint_of_amt_s(cache):
    state = blank().state_dict()
    del state["update4.gru.2.bias"]
    provide("amt-s", state, cache / "amt-s.pth")
    with pytest.raises(InputError, match="the AMT-S checkpoint does not fit: Missing key"):
        MotionSmoothness()
    torch.save({"state_dict": [1]}, cache / "amt-s.pth")
    with pytest.raises(InputError, match="is not a flat state dict of tensors"):
        MotionSmoothness()
    (cache / "amt-s.pth").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as a state dict"):
        MotionSmoothness()


def test_flickering_is_of_the_clips_that_pass_the_static_filter():
    columns = {"flickering": np.array([0.9, 0.8]), "static": np.array([1.0, 0.0])}
    of_static, of_all = (known_metrics()[name] for name in ("vbench_flickering_static", "vbench_flickering"))
    np.testing.assert_array_equal(of_static.of_clips(columns), [0.9, np.nan])
    np.testing.assert_array_equal(of_all.of_clips(columns), [0.9, 0.8])
