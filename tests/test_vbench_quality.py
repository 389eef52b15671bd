"""VBench's qualities of single frames: its networks beside others' on random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from avbench.core import Clip, InputError
from avbench.features.measure import require_weights
from avbench.features.vbench import quality
from avbench.features.vbench.consistency import CLIPShape
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


def musiq_state():
    """Weights that any version of numpy draws alike."""
    random = np.random.RandomState(0)
    shapes = {name: value.shape for name, value in quality.MUSIQ(TINY).state_dict().items()}
    drawn = {name: torch.from_numpy(0.3 * random.standard_normal(shapes[name])).float() for name in sorted(shapes)}
    return {**drawn, "head.weight": 100 * drawn["head.weight"]}


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
    require_weights(["vbench-aesthetic"])
    (cache / "head.pth").unlink()
    with pytest.raises(InputError, match=r"laion-aesthetic-linear.*no longer at"):
        require_weights(["vbench-aesthetic"])
    provide("laion-aesthetic-linear", nn.Linear(768, 1).state_dict(), cache / "head.pth")
    with pytest.raises(InputError, match="the head of the aesthetic predictor does not fit: size mismatch"):
        quality.AestheticQuality()
