"""Every tensor of every file of weights is applied or refused by name, and every parameter has a value from a file."""

import itertools
import json
import re
import shutil

import diffusers
import numpy as np
import pytest
import tiny_pipelines
import torch
import transformers
from safetensors.torch import load_file, save_file

from avbench.core import Audio, Clip, InputError, Prompt, Subset
from avbench.generation import table as generators
from avbench.generation.providers.diffusers import adapters
from avbench.generation.sample import sample
from avbench.generation.table import Made
from avbench.storage.runs.folder import RunFolder
from avbench.storage.weights.filled import check_filled, variant_among

WIDTH = tiny_pipelines.WIDTH
SETTINGS = {"preset": "none", "device": "cpu"}
TARGETS = ("attn1.to_q", "attn1.to_k", "attn2.to_v")
DIT, TEXT = "diffusion_pytorch_model.safetensors", "model.safetensors"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    return tiny_pipelines.build("wan2.1", tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def two_experts(tmp_path_factory):
    return tiny_pipelines.build("wan2.2-a14b", tmp_path_factory.mktemp("a14b"))


def loaded(model, **settings):
    generator = generators.build(str(model), {**SETTINGS, **settings})
    generator.prepare()
    return generator._pipe


def answer(network):
    """What a transformer makes of a fixed input."""
    noise = torch.Generator().manual_seed(0)
    latents, text = torch.randn(1, 16, 1, 4, 4, generator=noise), torch.randn(1, 5, WIDTH, generator=noise)
    with torch.no_grad():
        return network(latents, torch.tensor([300]), text, return_dict=False)[0]


def edited(folder, edit, part="transformer"):
    """The transformer of a pipeline with its weights changed by hand."""
    network = diffusers.WanTransformer3DModel.from_pretrained(folder / part, local_files_only=True)
    weights = {name: one.clone() for name, one in network.state_dict().items()}
    edit(weights)
    network.load_state_dict(weights)
    return network.eval()


def apart(one, other):
    return float((answer(one) - answer(other)).abs().max())


SEEDS = itertools.count()


def random(*shape, size=0.4):
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(next(SEEDS)))


def pairs(prefix="transformer.", names=("lora_A", "lora_B"), rank=4):
    return {
        f"{prefix}blocks.{block}.{module}.{side}.weight": random(*((rank, WIDTH) if one else (WIDTH, rank)))
        for block in range(2)
        for module in TARGETS
        for side, one in zip(names, (True, False), strict=True)
    }


def added(layers, strength=1.0, prefix="transformer."):
    """The edit that a LoRA asks for."""

    def edit(weights):
        for name, down in layers.items():
            if ".lora_A." in name:
                module = name.removeprefix(prefix).partition(".lora_A")[0]
                weights[f"{module}.weight"] += strength * layers[name.replace("lora_A", "lora_B")] @ down

    return edit


ORIGINAL = {"attn1": "self_attn", "attn2": "cross_attn", ".to_out.0": ".o", ".to_": ".", "norm2": "norm3"}


def original(name):
    """A module in the words of Wan's own files."""
    for ours, theirs in ORIGINAL.items():
        name = name.replace(ours, theirs)
    return name.replace("ffn.net.0.proj", "ffn.0").replace("ffn.net.2", "ffn.2")


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_differences_beside_the_pairs_are_added(wan, tmp_path, scale):
    """As lightx2v's and CausVid's files have them: ``.diff`` of norms and the patches, ``.diff_b`` of biases."""
    layers = {original(f"diffusion_model.{name}"): one for name, one in pairs("").items()}
    weights = load_file(wan / "transformer" / DIT)
    whole = {
        "blocks.0.attn1.norm_q.weight": "blocks.0.self_attn.norm_q.diff",
        "blocks.1.norm2.weight": "blocks.1.norm3.diff",
        "blocks.1.norm2.bias": "blocks.1.norm3.diff_b",
        "blocks.0.attn1.to_q.bias": "blocks.0.self_attn.q.diff_b",
        "patch_embedding.weight": "patch_embedding.diff",
        "patch_embedding.bias": "patch_embedding.diff_b",
        "proj_out.weight": "head.head.diff",
        "condition_embedder.time_proj.bias": "time_projection.1.diff_b",
    }
    changes = {name: random(*weights[name].shape, size=0.2) for name in whole}
    stored = {f"diffusion_model.{theirs}": changes[ours] for ours, theirs in whole.items()}
    save_file({**layers, **stored}, tmp_path / "l.safetensors")

    def edit(weights):
        for name, down in layers.items():
            if ".lora_A." in name:
                block, attention, part = re.fullmatch(r".*blocks\.(\d)\.(\w+)\.(\w)\.lora_A\.weight", name).groups()
                module = f"blocks.{block}.{'attn1' if attention == 'self_attn' else 'attn2'}.to_{part}"
                weights[f"{module}.weight"] += scale * layers[name.replace("lora_A", "lora_B")] @ down
        for name, change in changes.items():
            weights[name] += scale * change

    made = loaded(wan, lora=str(tmp_path / "l.safetensors"), lora_scale=scale).transformer
    assert apart(made, edited(wan, edit)) < 1e-5
    assert apart(made, edited(wan, lambda weights: None)) > 0.1


def test_a_file_of_differences_alone_and_one_that_fits_nowhere(wan, tmp_path):
    change = random(WIDTH)
    names = {"blocks.0.attn1.norm_q.diff": change}
    save_file(names, tmp_path / "ours.safetensors")

    def edit(weights):
        weights["blocks.0.attn1.norm_q.weight"] += change

    assert apart(loaded(wan, lora=str(tmp_path / "ours.safetensors")).transformer, edited(wan, edit)) < 1e-6
    for name, one, words in (
        ("blocks.9.attn1.norm_q.diff", random(WIDTH), "blocks.9.attn1.norm_q.weight of shape (24,)"),
        ("patch_embedding.diff", random(WIDTH, 36, 1, 2, 2), "patch_embedding.weight of shape (24, 36, 1, 2, 2)"),
    ):
        save_file({**names, name: one}, tmp_path / "wrong.safetensors")
        with pytest.raises(InputError, match=re.escape(words)):
            loaded(wan, lora=str(tmp_path / "wrong.safetensors"))


@pytest.mark.parametrize(
    "name",
    [
        "transformer.blocks.0.attn1.to_q.dora_scale",
        "transformer.blocks.0.attn1.to_q.lokr_w1",
        "transformer.blocks.1.attn1.to_out.0.lora_A.weight",
        "transformer.blocks.1.attn1.to_out.0.alpha",
        "base_model.model.proj_out.weight",
        "transformer.blocks.0.attn1.set_weight",
    ],
)
def test_tensors_that_are_no_part_of_a_lora_are_named(wan, tmp_path, name):
    save_file({**pairs(), name: random(4, 4)}, tmp_path / "l.safetensors")
    with pytest.raises(InputError, match=rf"holds 1 tensor of no known part of a LoRA .*{re.escape(name)}; none may"):
        generators.build(str(wan), {**SETTINGS, "lora": str(tmp_path / "l.safetensors")})


def test_biases_beside_the_pairs_are_applied(wan, tmp_path):
    layers = pairs()
    biases = {name.replace(".weight", ".bias"): random(WIDTH) for name in layers if ".lora_B." in name}
    save_file({**layers, **biases}, tmp_path / "b.safetensors", metadata={"lora_alpha": "8"})

    def edit(weights):
        added(layers, 2.0)(weights)
        for name, bias in biases.items():
            weights[name.removeprefix("transformer.").replace(".lora_B", "")] += 2.0 * bias

    assert apart(loaded(wan, lora=str(tmp_path / "b.safetensors")).transformer, edited(wan, edit)) < 1e-4


def magnitudes_of(layers):
    names = [name.partition(".lora_A")[0] for name in layers if ".lora_A." in name]
    return {f"{name}.lora_magnitude_vector": 1 + random(WIDTH, size=0.1) for name in names}


@pytest.mark.parametrize(
    ("write", "strength"),
    [
        (lambda tensors, place: in_header({})(tensors, place), 1.0),
        (lambda tensors, place: in_header({"lora_alpha": "8"})(tensors, place), 2.0),
        (lambda tensors, place: as_peft(tensors, place, use_dora=True), 4.0),
    ],
    ids=["bare", "header", "peft"],
)
def test_dora_of_peft_is_applied(wan, tmp_path, write, strength):
    layers = pairs()
    magnitudes = magnitudes_of(layers)
    made = loaded(wan, lora=str(write({**layers, **magnitudes}, tmp_path / "dora"))).transformer

    def edit(weights):
        added(layers, strength)(weights)
        for name, size in magnitudes.items():
            weight = weights[f"{name.removeprefix('transformer.').partition('.lora_')[0]}.weight"]
            weight *= (size / weight.norm(dim=1))[:, None]

    assert apart(made, edited(wan, edit)) < 1e-4


def test_a_layer_of_dora_without_its_magnitude_is_named(wan, tmp_path):
    layers = pairs()
    magnitudes = magnitudes_of(layers)
    lost = magnitudes.popitem()[0].removesuffix(".lora_magnitude_vector")
    save_file({**layers, **magnitudes}, tmp_path / "dora.safetensors")
    with pytest.raises(InputError, match=rf"1 of its 6 layers of DoRA have no lora_magnitude_vector: {lost}"):
        loaded(wan, lora=str(tmp_path / "dora.safetensors"))


@pytest.mark.parametrize("kind", [("lokr_w1", "lokr_w2_a", "lokr_w2_b"), ("hada_w1_a", "hada_w1_b"), ("oft_blocks",)])
@pytest.mark.parametrize("prefix", ["transformer.blocks.0.attn1.to_q", "lycoris_blocks_0_attn1_to_q"])
def test_relatives_of_lora_are_refused_by_name(wan, tmp_path, kind, prefix):
    """Alone in their file, given as the model or as its LoRA."""
    file = tmp_path / "l.safetensors"
    save_file({f"{prefix}.{part}": random(4, 4) for part in kind}, file)
    for model, more in ((wan, {"lora": str(file)}), (f"diffusers:{file}", {"base": str(wan)})):
        with pytest.raises(InputError, match=rf"no known part of a LoRA .*{prefix}.{kind[0]}"):
            loaded(model, **more)


def with_config(folder, **more):
    folder.mkdir(exist_ok=True)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "target_modules": [*TARGETS], **more}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def in_header(metadata, file="l.safetensors"):
    def write(layers, folder):
        folder.mkdir()
        save_file(layers, folder / file, metadata={"format": "pt", **metadata})
        return folder / file

    return write


def as_peft(layers, folder, **more):
    renamed = {name.replace("transformer.", "base_model.model.", 1): one for name, one in layers.items()}
    save_file(renamed, with_config(folder, **more) / "adapter_model.safetensors")
    return folder


def beside_diffusers_names(layers, folder):
    save_file(layers, with_config(folder) / "pytorch_lora_weights.safetensors")
    return folder


def alpha_tensors(layers, folder):
    alphas = {f"{name.partition('.lora_A')[0]}.alpha": torch.tensor(16.0) for name in layers if ".lora_A." in name}
    return in_header({"ss_network_alpha": "Dynamic"})({**layers, **alphas}, folder)


def alpha_tensors_in_wans_words(layers, folder):
    renamed = {}
    for name, one in layers.items():
        theirs = original(name.replace("transformer.", "diffusion_model.", 1))
        renamed[theirs.replace("lora_A", "lora_down").replace("lora_B", "lora_up")] = one
        renamed[f"{theirs.partition('.lora_')[0]}.alpha"] = torch.tensor(16.0)
    return in_header({})(renamed, folder)


def as_kohya(layers, folder):
    renamed = {}
    for name, one in layers.items():
        module, _, side = name.removesuffix(".weight").rpartition(".lora_")
        theirs = "lora_unet_" + original(module.removeprefix("transformer.")).replace(".", "_")
        renamed[f"{theirs}.lora_{'down' if side == 'A' else 'up'}.weight"] = one
        renamed[f"{theirs}.alpha"] = torch.tensor(16.0)
    return in_header({"ss_network_alpha": "16"})(renamed, folder)


def bare_names(layers, folder):
    """As DiffSynth's trainer writes them."""
    renamed = {
        original(name.removeprefix("transformer.")).replace(".weight", ".default.weight"): one
        for name, one in layers.items()
    }
    return in_header({"lora_alpha": "16"})(renamed, folder)


ADAPTER = json.dumps({"transformer.r": 4, "transformer.lora_alpha": 16, "transformer.target_modules": [*TARGETS]})


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(in_header({"lora_adapter_metadata": ADAPTER}), id="diffusers' header"),
        pytest.param(in_header({"transformer.lora_alpha": "16", "transformer.r": "4"}), id="header, with a prefix"),
        pytest.param(in_header({"lora_alpha": "16", "rank": "4"}), id="header, bare"),
        pytest.param(in_header({"ss_network_alpha": "16.0", "ss_network_dim": "4"}), id="header, Kohya"),
        as_peft,
        beside_diffusers_names,
        alpha_tensors,
        alpha_tensors_in_wans_words,
        as_kohya,
        bare_names,
    ],
)
def test_alpha_counts_wherever_it_stands(wan, tmp_path, write):
    layers = pairs()
    made = loaded(wan, lora=str(write(layers, tmp_path / "lora"))).transformer
    right = apart(made, edited(wan, added(layers, 4.0)))
    assert right < 1e-4 < 0.1 < apart(made, edited(wan, added(layers)))


def test_alphas_own_forms_and_contradictions(wan, tmp_path):
    layers = pairs()
    made = loaded(wan, lora=str(as_peft(layers, tmp_path / "rs", use_rslora=True))).transformer
    assert apart(made, edited(wan, added(layers, 8.0))) < 1e-3, "16 / √4"
    made = loaded(wan, lora=str(as_peft(layers, tmp_path / "p", alpha_pattern={"to_q": 2, "to_k": 2, "to_v": 2})))
    assert apart(made.transformer, edited(wan, added(layers, 0.5))) < 1e-4
    for number, (more, words) in enumerate(
        (
            ({"init_lora_weights": "pissa"}, "it fits changed base weights only"),
            ({"peft_type": "LOHA"}, "peft_type is LOHA"),
            ({"use_dora": True}, "holds no lora_magnitude_vector"),
            ({"lora_alpha": "much"}, "lora_alpha is 'much'"),
        )
    ):
        with pytest.raises(InputError, match=words):
            loaded(wan, lora=str(as_peft(layers, tmp_path / str(number), **more)))
    folder = beside_diffusers_names(layers, tmp_path / "two")
    save_file(layers, folder / "pytorch_lora_weights.safetensors", metadata={"lora_alpha": "8"})
    with pytest.raises(InputError, match="contradict each other: lora_alpha is 16 and 8"):
        loaded(wan, lora=str(folder))
    save_file(layers, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match="holds 2 safetensors files"):
        loaded(wan, lora=str(folder))


def test_a_change_that_is_not_the_files_is_refused(wan, tmp_path, monkeypatch):
    """Whatever diffusers does: here it takes twice the strength, and then drops a layer."""
    save_file(pairs(), tmp_path / "l.safetensors")
    real = diffusers.WanPipeline.load_lora_weights
    for wrong in (
        lambda state: {name: one * (2 if "lora_A" in name else 1) for name, one in state.items()},
        lambda state: {name: one for name, one in state.items() if "blocks.1.attn2" not in name},
    ):
        monkeypatch.setattr(adapters, "_load", lambda pipe, one, source, name, wrong=wrong: real(
            pipe, wrong(load_file(one.file)), adapter_name=name))  # fmt: skip
        with pytest.raises(InputError, match=r"of its 6 LoRA layers match nothing in the transformer of Wan"):
            loaded(wan, lora=str(tmp_path / "l.safetensors"))


@pytest.mark.slow
def test_of_two_experts_each_gets_its_own(two_experts, tmp_path):
    high, low = pairs(), pairs()
    save_file(high, tmp_path / "high.safetensors")
    save_file(low, tmp_path / "low.safetensors")
    paths = [str(tmp_path / name) for name in ("high.safetensors", "low.safetensors")]
    with pytest.raises(InputError, match=r"could belong to any of transformer, transformer_2.*component=transformer_2"):
        generators.build(str(two_experts), {**SETTINGS, "lora": paths[1]})
    with pytest.raises(InputError, match="component=vae: the pipeline has no such part"):
        generators.build(str(two_experts), {**SETTINGS, "lora": paths[1], "component": "vae"})
    plain = [edited(two_experts, lambda weights: None, part) for part in ("transformer", "transformer_2")]
    for settings in (
        {"model": two_experts, "lora": paths[1], "component": "transformer_2"},
        {"model": paths[1], "base": str(two_experts), "component": "transformer_2"},
    ):
        pipe = loaded(**settings)
        assert apart(pipe.transformer_2, edited(two_experts, added(low), "transformer_2")) < 1e-5
        assert apart(pipe.transformer, plain[0]) == 0
    both = [
        {"path": paths[0], "component": "transformer"},
        {"path": paths[1], "component": "transformer_2", "scale": 0.5},
    ]
    model = generators.build(str(two_experts), {**SETTINGS, "lora": both})
    assert model.settings["lora_scale"] == [1.0, 0.5] and {"lora", "lora_2"} <= model.settings["weights"].keys()
    model.prepare()
    assert apart(model._pipe.transformer, edited(two_experts, added(high))) < 1e-5
    assert apart(model._pipe.transformer_2, edited(two_experts, added(low, 0.5), "transformer_2")) < 1e-5
    named = {name.replace("transformer.", "transformer_2.", 1): one for name, one in low.items()}
    save_file(named, tmp_path / "named.safetensors")
    pipe = loaded(two_experts, lora=str(tmp_path / "named.safetensors"))
    assert apart(pipe.transformer_2, edited(two_experts, added(low), "transformer_2")) < 1e-5, "its names say where"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_lora_of_a_network_of_half_precision(wan, tmp_path, dtype):
    layers = pairs()
    save_file(layers, tmp_path / "l.safetensors", metadata={"lora_alpha": "9"})
    made = loaded(wan, lora=str(tmp_path / "l.safetensors"), dtype=dtype).transformer
    assert made.blocks[0].attn1.to_q.weight.dtype is getattr(torch, dtype)


def test_several_loras_add_up(wan, tmp_path):
    one, two = pairs(), pairs()
    save_file(one, tmp_path / "one.safetensors")
    save_file(two, tmp_path / "two.safetensors")
    paths = [str(tmp_path / name) for name in ("one.safetensors", "two.safetensors")]

    def edit(weights):
        added(one, 0.5)(weights)
        added(two, 0.5)(weights)

    wanted = edited(wan, edit)
    assert apart(loaded(wan, lora=paths, lora_scale=0.5).transformer, wanted) < 1e-5
    made = loaded(paths[0], base=str(wan), lora=paths[1], lora_scale=0.5)
    assert apart(made.transformer, wanted) < 1e-5, "neither is dropped for the other"
    with pytest.raises(InputError, match="'strength' is unknown"):
        loaded(wan, lora=[{"path": paths[0], "strength": 2}])


Q = "transformer.blocks.0.attn1.to_q"
PAIR = {f"{Q}.lora_A.weight": torch.ones(2, WIDTH), f"{Q}.lora_B.weight": torch.ones(WIDTH, 2)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({f"{Q}.lora_A.weight": torch.full((2, WIDTH), torch.nan)}, "1 of its tensors hold values that are NaN or inf"),
        ({f"{Q}.alpha": torch.tensor(torch.inf)}, "1 of its tensors hold values that are NaN or infinite"),
        ({f"{Q}.alpha": torch.ones(2)}, "alpha has the shape [2]; it must be one number"),
        ({f"{Q}.lora_B.weight": torch.ones(WIDTH, 3)}, "has the shapes [2, 24] and [24, 3]; a pair has [rank, in] and"),
        ({f"{Q}.lora_A.weight": torch.ones(WIDTH)}, "has the shapes [24] and [24, 2]; a pair has"),
        ({f"{Q}.lora_A.weight": torch.ones(2, WIDTH, dtype=torch.int32)}, "to_q has the type I32; a LoRA is of"),
        (
            {f"{Q}.lora_A.weight": torch.ones(2, 36)},
            "would have the shape [2, 36] and not [2, 24], so it is for a model",
        ),
        (
            {"blocks.0.attn1.norm_q.diff": torch.full((WIDTH,), torch.nan)},
            "NaN or infinite: blocks.0.attn1.norm_q.diff",
        ),
    ],
)
def test_a_damaged_lora_is_refused_in_its_own_words(wan, tmp_path, capfd, change, words):
    save_file({**PAIR, **change}, tmp_path / "l.safetensors")
    with pytest.raises(InputError, match=r"l\.safetensors: .*" + re.escape(words)):
        loaded(wan, lora=str(tmp_path / "l.safetensors"))
    assert "unsuccessful" not in capfd.readouterr().err, "diffusers prints nothing beside the sentence"


def test_a_lora_for_a_second_transformer_is_not_put_into_the_only_one(wan, tmp_path):
    pair = {name.replace("transformer.", "transformer_2."): one for name, one in PAIR.items()}
    save_file(pair, tmp_path / "low.safetensors")
    with pytest.raises(
        InputError, match=r"is for a second transformer \(transformer_2\), which this pipeline does not"
    ):
        loaded(wan, lora=str(tmp_path / "low.safetensors"))
    given = loaded(wan, lora=str(tmp_path / "low.safetensors"), component="transformer").transformer
    assert apart(given, edited(wan, lambda weights: None)) > 0.01, "unless it is asked for"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ([1], "is no config of peft: it must be a JSON object"),
        ({"lora_alpha": 4, "use_rslora": "false"}, "use_rslora is 'false'; it must be true or false"),
        ({"lora_alpha": 4, "alpha_pattern": {"([": 3}}, "'([' in alpha_pattern is no regular expression"),
    ],
)
def test_a_config_of_a_lora_that_cannot_be_meant_is_refused(wan, tmp_path, config, words):
    save_file(PAIR, tmp_path / "l.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=re.escape(words)):
        loaded(wan, lora=str(tmp_path / "l.safetensors"))


def test_settings_that_would_do_nothing_are_refused(wan):
    for settings, words in (
        ({"component": "transformer"}, "component=transformer does nothing"),
        ({"lora_scale": 0.5}, "lora_scale=0.5 does nothing"),
        ({"cache_threshold": 0.1}, "cache_threshold=0.1 does nothing without -M cache="),
        ({"images": "here"}, "images=here does nothing: WanPipeline takes no image"),
        ({"revision": "v2"}, "revision=v2 does nothing"),
        ({"call": {"output_type": "pil"}}, "output_type is set by avbench itself"),
        ({"guidance_2": 3.0}, "guidance_2=3.0 does nothing: this WanPipeline has no second transformer"),
        ({"negative_prompt": "x", "guidance": 1.0}, "only with a guidance above 1, not guidance_scale 1"),
        ({"negative_prompt": "x", "guidance": 0.5, "preset": "none"}, "not guidance_scale 0.5"),
        ({"device": 0}, "device is 0; it must be text"),
        ({"guidance": "much"}, "guidance is 'much'; it must be a number"),
        ({"frames": 2.5}, "frames is 2.5; it must be a whole number"),
        ({"call": 5}, "call is 5; it must be an object"),
        ({"caption": "{vid}"}, "its fields may be {video} and {audio}"),
        ({"lora": 5}, "-M lora: 5 is no path; give one, an object such as"),
        ({"lora": [["a.safetensors"]]}, "-M lora: ['a.safetensors'] is no path"),
        ({"lora": [{"scale": 1}]}, "-M lora: {'scale': 1} is no path"),
        ({"call": {"return_dict": False}}, "return_dict is set by avbench itself"),
        ({"call": {"num_frames": 9}}, "num_frames is the setting frames: give -M frames="),  # it would not be rounded
        ({"caption": "a ball"}, "-M caption=a ball has no {video} or {audio}"),
        ({"context_parallel": 3}, "so many devices cannot share the 2 attention heads"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            generators.build(str(wan), {**SETTINGS, **settings})


@pytest.mark.parametrize(
    ("setting", "values", "words"),
    [
        ("fps", [0, True, float("nan")], "fps is "),
        ("guidance", [float("nan"), float("inf")], "it must be a number"),
        ("flow_shift", [0, -1, float("nan")], "it must be a number above 0"),
        ("device", ["gpu", "meta"], "cannot be used here"),
        ("vae_dtype", ["fp16"], "-M vae_dtype=fp16: "),
        ("device_map", ["auto"], "choices: balanced, "),
        ("attention", ["nativ"], "did you mean 'native'?"),
    ],
)
def test_values_that_no_pipeline_can_use_are_refused_before_it_is_loaded(wan, setting, values, words):
    for value in values:
        with pytest.raises(InputError, match=re.escape(words)):
            generators.build(str(wan), {**SETTINGS, setting: value})


def scaled_fp8(weights, scale_name):
    """As ComfyUI's files are, and what they hold."""
    stored, meant = {}, {}
    for name, one in weights.items():
        if one.ndim == 2 and "blocks." in name:
            scale = (one.abs().max() / 448).float()
            stored[name] = (one / scale).to(torch.float8_e4m3fn)
            stored[name.replace(".weight", scale_name)] = scale
            meant[name] = stored[name].float() * scale
        else:
            stored[name] = meant[name] = one
    return stored, meant


@pytest.mark.parametrize(
    ("scale_name", "activation"), [(".scale_weight", ".scale_input"), (".weight_scale", ".input_scale")]
)
def test_scaled_fp8_is_multiplied(wan, tmp_path, scale_name, activation):
    stored, meant = scaled_fp8(load_file(wan / "transformer" / DIT), scale_name)
    stored["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    stored["blocks.0.attn1.to_q" + activation] = torch.tensor(1.0)
    save_file(stored, tmp_path / "fp8.safetensors")
    made = loaded(tmp_path / "fp8.safetensors", base=str(wan)).transformer
    assert apart(made, edited(wan, lambda weights: weights.update(meant))) < 1e-6
    row = stored["blocks.0.attn1.to_q" + scale_name].repeat(WIDTH, 1)
    save_file({**stored, "blocks.0.attn1.to_q" + scale_name: row}, tmp_path / "rows.safetensors")
    made = loaded(tmp_path / "rows.safetensors", base=str(wan)).transformer
    assert apart(made, edited(wan, lambda weights: weights.update(meant))) < 1e-6
    save_file({**stored, "blocks.0.attn1.to_q" + scale_name: torch.ones(3, 2)}, tmp_path / "blocks.safetensors")
    with pytest.raises(InputError, match=r"has the shape \(3, 2\) for a weight of \(24, 24\)"):
        loaded(tmp_path / "blocks.safetensors", base=str(wan))
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        name = "blocks.0.attn1.to_q" + scale_name
        save_file({**stored, name: torch.tensor(wrong)}, tmp_path / "wrong.safetensors")
        with pytest.raises(
            InputError, match=f"{re.escape(name)} holds the scale {wrong:g}; a scale is a number above 0"
        ):
            loaded(tmp_path / "wrong.safetensors", base=str(wan))
    columns = torch.ones(1, WIDTH)  # as many as there are rows
    save_file({**stored, "blocks.0.attn1.to_q" + scale_name: columns}, tmp_path / "columns.safetensors")
    with pytest.raises(InputError, match=r"has the shape \(1, 24\) for a weight of"):
        loaded(tmp_path / "columns.safetensors", base=str(wan))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"proj_out.bias": None}, r"has 1 tensor without a value from any file, .*: proj_out\.bias; read was"),
        ({"foo.weight": torch.zeros(3)}, r"holds 1 tensors that are not used in the transformer .*: foo\.weight"),
        ({"proj_out.bias": torch.zeros(3)}, r"proj_out\.bias is \(3,\) instead of \(64,\)"),
        ({"proj_out.weight": torch.zeros(WIDTH, 64)}, r"proj_out\.weight is \(24, 64\) instead of \(64, 24\)"),
    ],
)
@pytest.mark.parametrize("suffix", ["safetensors", "gguf"])
def test_a_file_names_what_does_not_fit(wan, tmp_path, change, words, suffix):
    weights = {**load_file(wan / "transformer" / DIT), **change}
    held = {name: one for name, one in weights.items() if one is not None}
    path = tmp_path / f"x.{suffix}"
    if suffix == "safetensors":
        save_file(held, path)
    else:
        gguf = pytest.importorskip("gguf")
        writer = gguf.GGUFWriter(path, "wan")
        for name, one in held.items():
            writer.add_tensor(name, one.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    with pytest.raises(InputError, match=words):
        loaded(path, base=str(wan))


def test_whole_numbers_without_a_scale_are_no_weights(wan, tmp_path):
    weights = load_file(wan / "transformer" / DIT)
    weights["proj_out.weight"] = torch.ones(64, WIDTH, dtype=torch.int8)
    save_file(weights, tmp_path / "x.safetensors")
    with pytest.raises(
        InputError, match=r"whole numbers without a scale, which would be noise: proj_out\.weight \(int8"
    ):
        loaded(tmp_path / "x.safetensors", base=str(wan))


def test_a_text_encoder_is_not_replaced_by_a_file(wan):
    with pytest.raises(InputError, match=r"is a class of transformers \(UMT5EncoderModel\); only parts of diffusers"):
        loaded(wan / "text_encoder" / TEXT, base=str(wan), component="text_encoder")


def test_one_file_is_used_whole(wan, tmp_path):
    weights = load_file(wan / "transformer" / DIT)
    more = {**weights, "blocks.0.attn1.to_q.weight_scale_2": torch.ones(1)}
    save_file(more, tmp_path / "more.safetensors")
    with pytest.raises(InputError, match=r"tensors? .*(weight_scale_2|norm2)"):
        loaded(tmp_path / "more.safetensors", base=str(wan))
    del weights["blocks.1.attn1.to_q.weight"]
    save_file(weights, tmp_path / "less.safetensors")
    with pytest.raises(InputError, match=r"without a value from any file.*blocks\.1\.attn1\.to_q\.weight"):
        loaded(tmp_path / "less.safetensors", base=str(wan))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_a_file_of_a_wrapped_model_is_that_of_the_model(wan, tmp_path, prefix):
    weights = {name: 1.5 * one for name, one in load_file(wan / "transformer" / DIT).items()}
    save_file({f"{prefix}{name}": one for name, one in weights.items()}, tmp_path / "wrapped.safetensors")
    found = loaded(tmp_path / "wrapped.safetensors", base=str(wan)).transformer.state_dict()
    assert found.keys() == weights.keys() and all(torch.equal(found[name], one) for name, one in weights.items())


@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_a_folder_whose_names_have_a_prefix_is_refused_with_these_names(wan, tmp_path, part):
    """Also in one file, where only some names have it."""
    file = TEXT if part == "text_encoder" else DIT

    def edit(weights):
        for name in [*weights]:
            weights[f"module.{name}"] = weights.pop(name)

    folder = changed(wan, tmp_path / "wrapped", part, file, edit)
    with pytest.raises(InputError, match=r"tensors? of the file: module\."):
        loaded(folder)
    weights = load_file(wan / "transformer" / DIT)
    weights["module.proj_out.bias"] = weights.pop("proj_out.bias")
    save_file(weights, tmp_path / "some.safetensors")
    with pytest.raises(
        InputError, match=r"proj_out\.bias; .*Not used is 1 tensor of the file: module\.proj_out\.bias$"
    ):
        loaded(tmp_path / "some.safetensors", base=str(wan))


def changed(folder, place, part, file, edit):
    shutil.copytree(folder, place)
    weights = load_file(place / part / file)
    edit(weights)
    save_file(weights, place / part / file, metadata={"format": "pt"})
    return place


QUERY = "encoder.block.0.layer.0.SelfAttention.q.weight"


@pytest.mark.parametrize(
    ("part", "file", "name"),
    [
        ("text_encoder", TEXT, QUERY),
        ("transformer", DIT, "blocks.1.attn1.to_q.weight"),
        ("vae", DIT, "decoder.conv_in.weight"),
    ],
)
def test_a_pipeline_that_lacks_a_tensor_or_has_one_too_many(wan, tmp_path, part, file, name):
    lacking = changed(wan, tmp_path / "lacking", part, file, lambda weights: weights.pop(name))
    with pytest.raises(InputError, match=rf"the {part} \(.*1 tensor without a value from any file.*{re.escape(name)}"):
        loaded(lacking)
    over = changed(wan, tmp_path / "over", part, file, lambda weights: weights.update(strange=torch.ones(2)))
    with pytest.raises(InputError, match=rf"holds 1 tensors that are not used in the {part} \(.*strange"):
        loaded(over)


def test_a_part_that_is_missing_or_damaged_is_named_before_anything_is_loaded(wan, tmp_path):
    pipeline = tmp_path / "pipeline"
    file, config = pipeline / "transformer" / DIT, pipeline / "scheduler" / "scheduler_config.json"
    for change, words in (
        (
            lambda: shutil.rmtree(pipeline / "vae"),
            r"its model_index\.json names the part vae, which is not in the folder",
        ),
        (lambda: file.write_bytes(file.read_bytes()[:-9]), f"{DIT} is damaged: 9 bytes are missing: it is cut short"),
        (lambda: file.write_text("version https://git-lfs.github.com/spec/v1"), "it is a pointer of Git LFS"),
        (lambda: config.write_text("[]"), r"scheduler_config\.json is no JSON object"),
    ):
        shutil.copytree(wan, pipeline)
        change()
        with pytest.raises(InputError, match=words):
            generators.build(str(pipeline), SETTINGS)
        shutil.rmtree(pipeline)
    shutil.copytree(wan, pipeline)
    weights = load_file(file)
    for name, wrong, words in (
        ("proj_out.weight", torch.ones(64, WIDTH, dtype=torch.int8), r"would be noise: proj_out\.weight \(I8\)"),
        (
            "proj_out.weight",
            torch.ones(3, WIDTH),
            r"fit its weights: proj_out\.weight is \[?3, 24\]? in the file and \[?64, 24",
        ),
    ):
        save_file({**weights, name: wrong}, file)
        with pytest.raises(InputError, match=words):
            loaded(pipeline)


def test_a_tied_embedding_needs_its_tie(wan, tmp_path, monkeypatch):
    """Wan's UMT5 holds its embedding once; some versions of transformers left the other name uninitialised."""
    folder = tmp_path / "untied"
    shutil.copytree(wan, folder)
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    (folder / "text_encoder" / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    assert "encoder.embed_tokens.weight" not in load_file(folder / "text_encoder" / TEXT)
    loaded(folder)
    encoder = transformers.UMT5EncoderModel.from_pretrained(folder / "text_encoder", local_files_only=True)
    check_filled(encoder, folder / "text_encoder", "the text_encoder")
    encoder.encoder.embed_tokens = torch.nn.Embedding(260, WIDTH)
    with pytest.raises(InputError, match=r"1 tensor without a value.*encoder\.embed_tokens\.weight.*installed version"):
        check_filled(encoder, folder / "text_encoder", "the text_encoder")


def test_renamed_tensors_are_found_by_what_they_hold(tmp_path):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(70, 3), torch.nn.Linear(70, 3)

    network = Two()
    old = {f"model.{name}": one for name, one in network.state_dict().items()}
    save_file(old, tmp_path / "model.safetensors")
    check_filled(network, tmp_path, "it")
    torch.nn.init.normal_(network.b.weight)
    with pytest.raises(InputError, match=r"it has 1 tensor without a value from any file.*: b\.weight;"):
        check_filled(network, tmp_path, "it")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="holds two sets of weights"):
        check_filled(network, tmp_path, "it")


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["model.fp16.safetensors", "config.json", "model.fp16.bin"], "fp16"),
        (["model.safetensors.index.fp16.json", "model.fp16-00001-of-00002.safetensors"], "fp16"),
        (["model.fp16.safetensors", "model.safetensors"], None),
        (["model.fp16.safetensors", "model.safetensors.index.json"], None),
        (["model.fp16.bin"], None),
    ],
)
def test_the_word_in_the_names_of_all_weights(names, word):
    assert variant_among(names, "it") == word
    assert variant_among(["model.fp16.bin"], "it", pickles=True) == "fp16"
    with pytest.raises(InputError, match=r"it holds weights in several variants \(bf16, fp16\): remove all but one"):
        variant_among(["model.fp16.safetensors", "model.bf16.safetensors"], "it")


def network_of(name="Network", **held):
    """A network with these parameters; tensors of whole numbers are its buffers."""
    network = type(name, (torch.nn.Module,), {})()
    for key, one in held.items():
        if one.is_floating_point():
            network.register_parameter(key, one if isinstance(one, torch.nn.Parameter) else torch.nn.Parameter(one))
        else:
            network.register_buffer(key, one)
    return network


def refused(network, folder, words):
    with pytest.raises(InputError, match=words):
        check_filled(network, folder, "it")


def test_the_files_that_are_read_are_those_that_are_compared(tmp_path):
    network, rest = network_of(a=random(2), b=random(3)), {"a": torch.ones(2)}
    whole = {**rest, "b": torch.ones(3)}
    save_file(rest, tmp_path / "model.safetensors")
    save_file(whole, tmp_path / "model.fp16.safetensors")
    check_filled(network, tmp_path, "it", "fp16")
    refused(network, tmp_path, r"1 tensor without a value from any file.*: b; read was model\.safetensors of")
    save_file(whole, tmp_path / "model.safetensors")
    torch.save(rest, tmp_path / "pytorch_model.bin")
    check_filled(network, tmp_path, "it")
    (tmp_path / "model.safetensors").unlink()
    refused(network, tmp_path, r": b; read was pytorch_model\.bin of")
    torch.save(rest, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)  # as before torch 1.6
    refused(network, tmp_path, r": b; read was pytorch_model\.bin of")
    torch.save(whole, tmp_path / "pytorch_model.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text("{}")
    check_filled(network, tmp_path, "it")  # loaders take the whole file
    (tmp_path / "pytorch_model.bin").unlink()
    refused(network, tmp_path, r"index\.json does not say which file holds which tensor")


def test_numbers_that_a_network_makes_itself_may_be_in_its_file_or_not(tmp_path):
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(2))
    network.register_buffer("table", torch.ones(3), persistent=False)
    network.register_buffer("places", torch.arange(3))
    network.register_buffer("position_ids", torch.arange(3))
    made = ("num_batches_tracked", "position_ids")
    held = {name: one for name, one in network.state_dict().items() if not name.endswith(made)}
    for more in (
        {},
        {"table": torch.ones(3)},
        {"0.num_batches_tracked": torch.tensor(4)},
        {"position_ids": torch.arange(3)},
        {"0.weight.absmax": torch.ones(1)},
    ):
        save_file({**held, **more}, tmp_path / "model.safetensors")
        check_filled(network, tmp_path, "it")
    halves = {name: one.bfloat16() if one.is_floating_point() else one for name, one in held.items()}
    save_file(halves, tmp_path / "model.safetensors")
    check_filled(network, tmp_path, "it")


def test_tensors_that_a_class_leaves_out_are_not_missed(tmp_path):
    held = {"a": torch.ones(2), "decoder.b": torch.ones(3), "lm_head.c": torch.ones(4)}
    save_file(held, tmp_path / "model.safetensors")
    check_filled(network_of("TinyEncoderModel", a=torch.ones(2)), tmp_path, "it")
    refused(network_of(a=torch.ones(2)), tmp_path, r"holds 2 tensors that are not used in it: decoder\.b, lm_head\.c")
    network = network_of(a=torch.ones(2))
    network._keys_to_ignore_on_load_unexpected = ["^decoder", "head"]
    check_filled(network, tmp_path, "it")


def test_a_tensor_is_filled_by_another_name_only_if_it_is_the_same_tensor(tmp_path):
    save_file({"a": torch.ones(4)}, tmp_path / "model.safetensors")
    tied = torch.nn.Parameter(torch.ones(4))
    check_filled(network_of(a=tied, b=tied), tmp_path, "it")
    memory = torch.ones(4)
    check_filled(network_of(a=memory, b=memory), tmp_path, "it")  # two parameters of the same numbers
    tied = torch.nn.Parameter(torch.ones(4, device="meta"))
    check_filled(network_of(a=tied, b=tied), tmp_path, "it")
    refused(network_of(a=torch.ones(4, device="meta"), b=torch.ones(4, device="meta")), tmp_path, "from any file.*: b;")
    longer = torch.ones(8)
    refused(network_of(a=longer[:4], b=longer), tmp_path, "from any file.*: b;")
    refused(network_of(a=torch.ones(4), b=torch.ones(0), c=torch.ones(0)), tmp_path, "2 tensors without.*: b, c;")


def test_of_renamed_tensors_each_fills_one(tmp_path):
    place, weight = tmp_path / "model.safetensors", random(3, 70)
    network = network_of(a=weight, b=torch.zeros(3), c=torch.zeros(3))
    save_file({"old.a": weight, "old.b": torch.zeros(3)}, place)
    refused(network, tmp_path, "1 tensor without a value from any file")
    tied = torch.nn.Parameter(weight)
    save_file({"old.a": weight}, place)
    check_filled(network_of(a=tied, b=tied), tmp_path, "it")
    nearly = weight.clone()
    nearly[0, 50] += 1
    save_file({"old.a": nearly}, place)
    refused(network_of(a=weight), tmp_path, "1 tensor without a value from any file")
    save_file({"old.a.weight": torch.zeros(3), "old.b.bias": torch.zeros(3)}, place)
    refused(network_of(bias=torch.zeros(3)), tmp_path, r"that are not used in it: old\.a\.weight$")
    parts = {"q": random(2, 70), "k": random(2, 70), "v": random(2, 70)}
    save_file(parts, place)
    check_filled(network_of(qkv=torch.cat([*parts.values()])), tmp_path, "it")  # several became one
    save_file({**parts, "strange": torch.ones(5)}, place)
    refused(network_of(qkv=torch.cat([*parts.values()])), tmp_path, "holds 3 tensors that are not used in it: k, ")


class Barren:
    """A provider whose clips show something or not, by their prompts."""

    batch_size, settings, calls = 1, {}, []

    def __init__(self, target):
        pass

    def generate(self, requests):
        return [self._one(one.key.prompt) for one in requests]

    def _one(self, name):
        self.calls.append(name)
        if "nan" in name:
            Audio(np.full((1, 80), np.nan, np.float32), 8000)
        if "float" in name:
            Clip(np.zeros((2, 16, 16, 3)), 8)
        value = 200 if "bright" in name else "unscaled" in name
        return Made(Clip(np.full((2, 16, 16, 3), value, np.uint8), 8))

    def remarks(self, requests):
        return []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "failed", "stops"),
    [
        (
            ["a", "b", "c"],
            2,
            r"every pixel of every frame is black\).*not multiplied by 255.*low a precision or a filter",
        ),
        (["a-nan", "b-nan", "c"], 2, "waveform holds 80 samples that are NaN"),
        (["a-unscaled", "b-unscaled", "c"], 2, r"all values of its frames are 0 or 1: multiply .* so the run stops$"),
        (["a-float", "b-float", "c"], 2, r"frames are float64 array; they must be a uint8 .* so the run stops$"),
        (["a", "b-bright", "c"], 1, None),
        (["a-bright", "b", "c", "d"], 0, None),
        (["a"], 1, None),
    ],
)
def test_a_run_whose_first_clips_hold_nothing_stops(tmp_path, monkeypatch, names, failed, stops):
    monkeypatch.setitem(generators.GENERATORS, "barren", f"{__name__}:Barren")
    monkeypatch.setattr(Barren, "calls", [])
    folder = RunFolder(tmp_path / "run")
    subset = Subset("s", 1, tuple(Prompt(name, name) for name in names), None)
    for _ in range(2):  # given again, it stops again
        Barren.calls.clear()
        _, made, _ = sample(folder, "barren:", {}, [subset], (0,))
        if stops is None:
            assert sum(one.failure is not None for one in made) == failed
            return
        with pytest.raises(InputError, match=rf"the first 2 clips cannot be used \({stops}"):
            list(made)
        assert list(dict.fromkeys(Barren.calls)) == names[:failed], "the third is not asked for"
        assert len(Barren.calls) == failed or "nan" in names[0], "only what may pass is tried again"
        assert all(one.failure for one in folder.samples().values())


def test_a_clip_that_cannot_be_used_counts_once_also_in_a_batch(tmp_path, monkeypatch):
    monkeypatch.setitem(generators.GENERATORS, "barren", f"{__name__}:Barren")
    monkeypatch.setattr(Barren, "batch_size", 3)
    names = ["a-float", "b-bright", "c-bright"]
    subset = Subset("s", 1, tuple(Prompt(name, name) for name in names), None)
    made = [*sample(RunFolder(tmp_path / "run"), "barren:", {}, [subset], (0,))[1]]
    assert [one.key.prompt for one in made if one.path] == names[1:]


def test_code_of_another_library_is_loaded_only_where_it_is_trusted(wan, tmp_path):
    shutil.copytree(wan, tmp_path / "other")
    index = json.loads((tmp_path / "other" / "model_index.json").read_text())
    index["text_encoder"] = ["json", "JSONDecoder"]
    (tmp_path / "other" / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="its text_encoder is a class of json, which is neither diffusers nor transf"):
        generators.build(str(tmp_path / "other"), SETTINGS)
