"""VBench's qualities of single frames and its overall consistency: the networks beside others' on random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from avbench.core import Clip, InputError, Prompt
from avbench.features.requirements import require_ready
from avbench.features.vbench import quality, viclip
from avbench.features.vbench.consistency import CLIPShape
from avbench.metrics.vbench import temporal_style
from avbench.storage import weights

GOLDEN = json.loads((Path(__file__).parent / "golden" / "musiq_scores.json").read_text())
TINY = quality.MUSIQShape(width=48, hidden=64, depth=2, heads=3)
SIZES = (64, 64), (48, 80), (301, 240), (360, 1280)
SMALL = CLIPShape(embedding=16, patch=56, width=64, depth=1, text_width=16, text_heads=2, text_depth=1)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path


def provide(name, state, file):
    torch.save(state, file)
    weights.provide(name, file)


def frames_of(height, width):
    return np.random.RandomState(height).randint(0, 256, (2, height, width, 3), dtype=np.uint8)


def drawn(network):
    """Weights that any version of numpy draws alike."""
    random = np.random.RandomState(0)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    draw = {name: np.asarray(0.3 * random.standard_normal(shapes[name])) for name in sorted(shapes)}
    return {name: torch.from_numpy(value).float() for name, value in draw.items()}


def musiq_state():
    state = drawn(quality.MUSIQ(TINY))
    return {**state, "head.weight": 100 * state["head.weight"]}


@pytest.fixture
def imaging(cache, monkeypatch):
    monkeypatch.setattr(quality.ImagingQuality, "shape", TINY)
    provide("musiq-spaq", musiq_state(), cache / "musiq.pth")
    return quality.ImagingQuality()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_imaging_quality_is_vbenchs(imaging, height, width):
    right = GOLDEN["scores"][f"{height}x{width}"]
    frames = frames_of(height, width)
    np.testing.assert_allclose(imaging.scores(frames), right, rtol=GOLDEN["tolerance"])
    assert abs(right[0] - right[1]) > 100 * GOLDEN["tolerance"] * abs(right[0]), "or it would not see the frames"
    assert imaging(Clip(frames, 8))["quality"] == pytest.approx(np.mean(right) / 100, rel=GOLDEN["tolerance"])


def test_musiq_has_the_published_layout():
    with torch.device("meta"):
        state = quality.MUSIQ(quality.MUSIQShape()).state_dict()
    assert len(state) == 248 and sum(value.numel() for value in state.values()) == 27_125_825
    shapes = {
        "conv_root.weight": (64, 3, 7, 7),
        "block1.conv_proj.weight": (256, 64, 1, 1),
        "embedding.weight": (384, 16384),
        "transformer_encoder.posembed_input.position_emb": (1, 100, 384),
        "transformer_encoder.scaleembed_input.scale_emb": (3, 384),
        "transformer_encoder.cls": (1, 1, 384),
        "transformer_encoder.transformer.encoderblock_13.mlp.fc1.weight": (1152, 384),
        "transformer_encoder.transformer.encoderblock_0.attention.query.bias": (384,),
        "head.weight": (1, 384),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_musiq_of_another_data_set_is_refused(imaging, cache):
    """The checkpoint for AVA predicts ten probabilities instead of a score."""
    state = {**musiq_state(), "head.0.weight": torch.zeros(10, 48), "head.0.bias": torch.zeros(10)}
    provide("musiq-spaq", state, cache / "ava.pth")
    with pytest.raises(InputError, match=r'the MUSIQ checkpoint does not fit: Unexpected key.*"head\.0'):
        quality.ImagingQuality()


@pytest.fixture
def predictor(cache, monkeypatch):
    """A small CLIP and a head, as avbench's feature has read them, and as open_clip and torch hold them."""
    open_clip = pytest.importorskip("open_clip")
    monkeypatch.setattr(quality.AestheticQuality, "shape", SMALL)
    torch.manual_seed(0)
    vision = {"image_size": 224, "layers": 1, "width": 64, "patch_size": 56}
    text = {"context_length": 77, "layers": 1, "heads": 2, "width": 16}
    clip, head = open_clip.CLIP(16, vision, text, quick_gelu=True), nn.Linear(16, 1)
    for network in (clip, head):
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3)
        network.eval().requires_grad_(False)
    from safetensors.torch import save_file

    save_file(clip.state_dict(), cache / "clip.safetensors")
    weights.provide("clip-vit-l14-openai", cache / "clip.safetensors")
    provide("laion-aesthetic-linear", head.state_dict(), cache / "head.pth")
    return clip, head


def test_aesthetic_quality_is_vbenchs(predictor):
    from torchvision import transforms

    clip, head = predictor
    seen = transforms.Compose([
        transforms.Resize(224, interpolation=transforms.InterpolationMode.BICUBIC, antialias=False),
        transforms.CenterCrop(224),
        transforms.Lambda(lambda x: x.float().div(255.0)),
        transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ])  # fmt: skip
    feature = quality.AestheticQuality()
    for height, width in ((48, 80), (301, 240)):
        frames = frames_of(height, width)
        unit = nn.functional.normalize(clip.encode_image(seen(torch.Tensor(frames).permute(0, 3, 1, 2))), dim=-1)
        right = head(unit)[:, 0] / 10
        assert abs(right[0] - right[1]) > 1e-4, "or it would not see the frames"
        assert feature(Clip(frames, 8))["quality"] == pytest.approx(right.mean().item(), abs=1e-6)


def test_clip_of_the_aesthetic_predictor_has_the_size_of_openais_vit_l14():
    shape = quality.AestheticQuality.shape
    import open_clip

    published = open_clip.get_model_config("ViT-L-14-quickgelu")
    vision, text = published["vision_cfg"], published["text_cfg"]
    assert (shape.embedding, shape.side) == (published["embed_dim"], vision["image_size"])
    assert (shape.patch, shape.width, shape.depth) == (vision["patch_size"], vision["width"], vision["layers"])
    assert (shape.text_width, shape.text_heads, shape.text_depth) == (text["width"], text["heads"], text["layers"])


def test_the_protocol_holds_both_hashes_and_asks_for_both_files(predictor, cache):
    protocol = quality.AestheticQuality.protocol
    assert protocol.weights_sha256 == weights.file_sha256(cache / "clip.safetensors")
    assert protocol.head_sha256 == weights.file_sha256(cache / "head.pth")
    require_ready(["vbench-aesthetic"])
    (cache / "head.pth").unlink()
    with pytest.raises(InputError, match=r"laion-aesthetic-linear.*no longer at"):
        require_ready(["vbench-aesthetic"])
    provide("laion-aesthetic-linear", nn.Linear(768, 1).state_dict(), cache / "head.pth")
    with pytest.raises(InputError, match="the head of the aesthetic predictor does not fit: size mismatch"):
        quality.AestheticQuality()


# ViCLIP

COSINES = json.loads((Path(__file__).parent / "golden" / "viclip_cosines.json").read_text())
SMALLER = viclip.ViCLIPShape(
    embedding=16, patch=56, width=64, depth=2, heads=1, text_width=32, text_heads=2, text_depth=2
)


@pytest.fixture
def overall(cache, monkeypatch):
    pytest.importorskip("open_clip")
    monkeypatch.setattr(viclip.ViCLIP, "shape", SMALLER)
    provide("viclip-l14-internvid", {"model": drawn(viclip.Network(SMALLER))}, cache / "viclip.pth")
    return viclip.ViCLIP()


def test_overall_consistency_is_vbenchs(overall):
    found = {}
    for case in COSINES["cosines"]:
        size, caption = case.split(": ")
        count, height, width = map(int, size.split("x"))
        frames = np.random.RandomState(count).randint(0, 256, (count, height, width, 3), dtype=np.uint8)
        found[case] = overall(Clip(frames, 8), Prompt("a", caption))["similarity"]
    assert found == pytest.approx(COSINES["cosines"], abs=COSINES["tolerance"])
    assert np.ptp([*found.values()]) > 1e-2, "or it would not see the clips"


def test_the_middles_of_eight_parts():
    assert viclip.middles(16, 8) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert viclip.middles(24, 8) == [1, 4, 7, 10, 13, 16, 19, 22]
    assert viclip.middles(3, 8) == [0, 1, 2, 2, 2, 2, 2, 2]
    assert viclip.middles(1, 8) == [0] * 8


def test_temporal_style_is_of_vbenchs_prompts_for_it(overall):
    clip = Clip(frames_of(64, 64), 8)
    asked = Prompt("a", "A ball, in super slow motion", tags={"dimensions": ["temporal_style", "human_action"]})
    rows = [
        overall(clip, prompt)
        for prompt in (
            asked,
            Prompt("b", "A ball " * 16, tags={"dimensions": None}),
            Prompt("c", "A ball " * 15, tags={"dimensions": 512}),
        )
    ]
    assert [row["truncated"] for row in rows] == [0, 1, 0], "32 tokens with the marks of start and end"
    values = temporal_style({name: np.array([row[name] for row in rows]) for name in rows[0]})
    assert values[0] == rows[0]["similarity"] and np.isnan(values[1:]).all()


def test_viclip_has_the_published_layout(overall, cache):
    with torch.device("meta"):
        state = viclip.Network(viclip.ViCLIPShape()).state_dict()
    assert len(state) == 447
    shapes = {
        "vision_encoder.conv1.weight": (1024, 3, 1, 14, 14),
        "vision_encoder.positional_embedding": (257, 1024),
        "vision_encoder.temporal_positional_embedding": (1, 8, 1024),
        "vision_encoder.transformer.resblocks.23.attn.in_proj_weight": (3072, 1024),
        "text_encoder.positional_embedding": (32, 768),
        "text_encoder.transformer.resblocks.11.mlp.c_proj.weight": (768, 3072),
        "text_encoder.text_projection": (768, 768),
        "temp": (),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    provide("viclip-l14-internvid", {"vision_encoder.proj": torch.zeros(2, 2)}, cache / "viclip.pth")
    with pytest.raises(InputError, match="the ViCLIP checkpoint does not fit: Missing key"):
        viclip.ViCLIP()
