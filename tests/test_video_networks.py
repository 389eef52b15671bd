"""Weights that the user brings are read whole, into the right network, and nothing else is."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from avbench.core import Clip, InputError, NotMeasurable
from avbench.features.protocols import protocol_of
from avbench.features.requirements import require_ready
from avbench.features.video import videomae
from avbench.features.video.i3d import I3DLogits, user_weights
from avbench.features.video.vjepa2 import VJEPA2, _cropped
from avbench.storage import weights
from avbench.storage.reading.pickles import read_arrays, read_state_dict
from avbench.storage.weights import fetching, locate

CLIP = Clip(np.random.default_rng(0).integers(0, 256, (16, 48, 64, 3), dtype=np.uint8), 8)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("name", ["i3d-torchscript", "i3d-pretrained-400", "videomae-g-ssv2", "vjepa2"])
def test_what_was_not_brought_is_asked_for(cache, name):
    for ask in (lambda: protocol_of(name), lambda: require_ready([name]), lambda: weights.locate(name)):
        with pytest.raises(InputError, match=f"then `avbench weights fetch {name} --file PATH`"):
            ask()
    file = cache / "mine.bin"
    file.write_bytes(b"PKmine")
    fetching.fetch(name, file=file)
    assert protocol_of(name).weights_sha256 == weights.file_sha256(file)
    first = protocol_of(name).digest
    file.write_bytes(b"PKother")
    assert protocol_of(name).digest != first, "another file is another protocol"
    file.unlink()
    with pytest.raises(InputError, match="no longer at"):
        protocol_of(name)


def pytorch_names(arrays):
    """The known weights as pytorch-i3d would hold them: its batch normalisation has a scale and another epsilon."""
    branches = {"Branch_0/Conv3d_0a_1x1": "b0", "Branch_3/Conv3d_0b_1x1": "b3b"}
    branches |= {f"Branch_{n}/Conv3d_0{x}_{k}": f"b{n}{x}" for n in (1, 2) for x, k in (("a", "1x1"), ("b", "3x3"))}
    state = {}
    for name, value in arrays.items():
        _, *unit, layer, part = name.split("/")
        place = (
            "logits"
            if unit[0] == "Logits"
            else ".".join([unit[0], *([branches["/".join(unit[1:])]] if unit[1:] else [])])
        )
        tensor = torch.from_numpy(value.astype(np.float64))
        if layer == "Conv_0":
            state[f"{place}.conv3d.{'weight' if part == 'kernel' else 'bias'}"] = (
                tensor.permute(4, 3, 0, 1, 2) if part == "kernel" else tensor
            ).float()
        elif part == "var":
            state[f"{place}.bn.running_var"] = 4 * (tensor.ravel() + 1e-3) - 1e-5
            state[f"{place}.bn.weight"] = torch.full((tensor.numel(),), 2.0)
            state[f"{place}.bn.num_batches_tracked"] = torch.tensor(1)
        else:
            state[f"{place}.bn.{'running_mean' if part == 'mean' else 'bias'}"] = tensor.ravel()
    return state


@pytest.mark.slow
def test_a_state_dict_in_pytorch_names_is_the_same_network(tmp_path, cache, monkeypatch):
    monkeypatch.delenv("AVBENCH_WEIGHTS")
    state = pytorch_names(read_arrays(locate("i3d-k400")))
    right = I3DLogits()
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(cache / "cache"))
    torch.save(state, tmp_path / "i3d.pt")
    weights.provide("i3d-pretrained-400", tmp_path / "i3d.pt")
    feature = user_weights.Pretrained400()
    x = torch.rand(9, 3, 224, 224) * 2 - 1
    np.testing.assert_allclose(feature.seen(x), right.seen(x), atol=1e-4)
    assert feature(CLIP)["logits"].shape == (400,)
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "i3d.pt")
    with pytest.raises(InputError, match="holds extra, which this network does not have"):
        user_weights.Pretrained400()
    del state["Mixed_4c.b2b.bn.weight"]
    torch.save(state, tmp_path / "i3d.pt")
    with pytest.raises(InputError, match=r"lacks Mixed_4c\.b2b\.bn\.weight"):
        user_weights.Pretrained400()


class Program(torch.nn.Module):
    """A small network with the call of StyleGAN-V's file."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv3d(3, 400, 2, stride=8)

    def forward(self, x, rescale: bool = True, resize: bool = True, return_features: bool = False):
        assert not rescale and not resize and return_features
        return self.conv(x).mean(dim=[2, 3, 4]).squeeze(0)


@pytest.mark.one_device
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_torchscript_program_is_called_as_stylegan_v_calls_it(cache):
    torch.manual_seed(0)
    program = Program()
    torch.jit.script(program).save(str(cache / "i3d.pt"))
    weights.provide("i3d-torchscript", cache / "i3d.pt")
    feature = user_weights.TorchScript()
    assert feature.protocol.name == "i3d-torchscript"
    x = torch.rand(16, 3, 224, 224) * 2 - 1
    with torch.inference_mode():
        right = program(x.transpose(0, 1)[None], False, False, True)
    np.testing.assert_allclose(feature.seen(x), right, atol=1e-5)
    assert set(feature(CLIP)) == {"logits", "logits_random"}
    (cache / "i3d.pt").write_bytes(b"no program")
    with pytest.raises(InputError, match="cannot be read as a TorchScript program"):
        user_weights.TorchScript()


TINY = videomae.Shape(width=24, depth=2, heads=3, hidden=48)


def test_videomae_reads_a_published_layout(cache, monkeypatch):
    monkeypatch.setattr(videomae.VideoMAE, "shape", TINY)
    torch.manual_seed(0)
    made = videomae.Network(TINY, 16, 224)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    state = {**made.state_dict(), "head.weight": torch.zeros(174, 24), "head.bias": torch.zeros(174)}
    assert {"patch_embed.proj.weight", "blocks.1.attn.q_bias", "blocks.0.mlp.fc1.weight", "fc_norm.bias"} <= set(state)
    torch.save({"module": state}, cache / "vit.pth")
    weights.provide("videomae-g-ssv2", cache / "vit.pth")
    feature = videomae.VideoMAE()
    row = feature(CLIP)
    assert row["embedding"].shape == (24,) and np.isfinite(row["embedding"]).all()
    backwards = feature(Clip(CLIP.frames[::-1], 8))["embedding"]
    assert np.abs(backwards - row["embedding"]).max() > 1e-3, "it knows the order of frames"
    with pytest.raises(NotMeasurable, match="16 frames and this clip has 15"):
        feature(Clip(CLIP.frames[:15], 8))
    del state["blocks.1.attn.v_bias"]
    torch.save(state, cache / "vit.pth")
    with pytest.raises(InputError, match="does not fit: Missing key"):
        videomae.VideoMAE()


def test_videomae_attends_as_the_formula_says():
    torch.manual_seed(1)
    attention = videomae.Attention(TINY).requires_grad_(False)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(1, 5, 24)
    weight = attention.qkv.weight.reshape(3, 3, 8, 24)
    biases = (attention.q_bias, torch.zeros(24), attention.v_bias)
    query, key, value = (x[0] @ weight[k].reshape(24, 24).T + biases[k] for k in range(3))
    heads = []
    for head in range(3):
        q, k, v = (part[:, 8 * head : 8 * head + 8] for part in (query, key, value))
        heads.append(torch.softmax(q @ k.T / np.sqrt(8), dim=-1) @ v)
    right = torch.cat(heads, dim=-1) @ attention.proj.weight.T + attention.proj.bias
    torch.testing.assert_close(attention(x)[0], right)


@pytest.mark.slow
def test_vjepa2_reads_a_folder_of_transformers(cache):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.VJEPA2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, crop_size=32, frames_per_clip=16,
        pred_hidden_size=24, pred_num_hidden_layers=1, pred_num_attention_heads=2, pred_num_mask_tokens=1,
    )  # fmt: skip
    transformers.VJEPA2Model(config).save_pretrained(cache / "tiny")
    weights.provide("vjepa2", cache / "tiny")
    feature = VJEPA2()
    row = feature(CLIP)
    assert row["embedding"].shape == (24,)
    assert np.array_equal(row["embedding"], VJEPA2()(CLIP)["embedding"])
    assert not np.allclose(row["embedding"], feature(Clip(CLIP.frames[::-1], 8))["embedding"])
    file = cache / "tiny/model.safetensors"
    tensors = load_file(file)
    norm = "encoder.layernorm.weight"
    save_file({name: one for name, one in tensors.items() if name != norm}, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"its weights lack {norm}"):
        VJEPA2()
    save_file({**tensors, "encoder.more": torch.ones(1)}, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"its weights hold encoder\.more, which the network does not have"):
        VJEPA2()
    file.write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot be read as a V-JEPA 2"):
        VJEPA2()
    file.unlink()
    with pytest.raises(InputError, match="cannot be read as a V-JEPA 2"):
        VJEPA2()


@pytest.mark.parametrize(("height", "width"), [(48, 64), (97, 53), (292, 400), (480, 854)])
def test_vjepa2_crops_as_transformers_does(height, width):
    processor = pytest.importorskip("transformers").VJEPA2VideoProcessor(do_normalize=False)
    smooth = torch.nn.functional.interpolate(torch.rand(2, 3, 6, 8), (height, width), mode="bicubic").clamp(0, 1)
    frames = (smooth * 255).byte()
    right = processor([frames], return_tensors="pt")["pixel_values_videos"][0]
    torch.testing.assert_close(_cropped(frames.float() / 255, 256), right, atol=1.1 / 255, rtol=0)


def test_a_pickle_with_code_is_not_run(cache):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"weight": Evil()}, cache / "evil.pt")
    with pytest.raises(InputError, match="cannot be read as a state dict"):
        read_state_dict(cache / "evil.pt")
    torch.save([1, 2], cache / "list.pt")
    with pytest.raises(InputError, match="is not a flat state dict"):
        read_state_dict(cache / "list.pt")
