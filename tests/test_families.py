"""Every class of diffusers that makes video from captions: built tiny, detected, given its preset, and run once."""

import inspect
import json
import re
import shutil
from pathlib import Path

import diffusers
import pytest
import tiny_families
import tiny_pipelines
import torch
from diffusers.pipelines.cosmos import (
    pipeline_cosmos2_5_predict,
    pipeline_cosmos2_video2world,
    pipeline_cosmos_text2world,
)
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image

from avbench.core import InputError, Key, Prompt
from avbench.generation import table as generators
from avbench.generation.detect import detect
from avbench.generation.providers.diffusers import calling, presets
from avbench.generation.table import Request

PYRAMID = {"steps": None, "call": {"pyramid_num_inference_steps_list": [1, 1, 1]}}
"""Helios with a pyramid takes no number of steps."""
LONG = {"call": {"max_sequence_length": 1024}}
"""The template of these captions is longer, in bytes, than what is read of it."""
CASES = {
    "mochi": ("mochi", 13, 30),
    "latte": ("latte", 16, 8),
    "allegro": ("allegro", 24, 15, {"size": 128}),
    "animatediff": ("animatediff", 10, 8),
    "easyanimate": ("easyanimate", 13, 8, {"negative_prompt": "bad"}),
    "hunyuanvideo": ("hunyuanvideo", 13, 24, LONG),
    "hunyuanvideo1.5": ("hunyuanvideo1.5", 13, 24),
    "kandinsky5": ("kandinsky5", 13, 24, LONG),
    "kandinsky5-i2v": ("kandinsky5", 13, 24, LONG),
    "kandinsky5-nabla": ("kandinsky5", 13, 24, {"size": 128, **LONG}),
    "kandinsky6": ("kandinsky6", 13, 24, {"rate": 16_000}),
    "skyreels-v2": ("skyreels-v2", 13, 24),
    "skyreels-v2-i2v": ("skyreels-v2-i2v", 13, 24),
    "skyreels-v2-df": ("skyreels-v2-df", 13, 24),
    "skyreels-v2-df-i2v": ("skyreels-v2-df-i2v", 13, 24),
    "sana-video": ("sana-video", 13, 16),
    "sana-video-i2v": ("sana-video", 13, 16),
    "helios": ("helios", 33, 24),
    "helios-pyramid": ("helios-mid", 33, 24, PYRAMID),
    "helios-distilled": ("helios-distilled", 33, 24, PYRAMID),
    "motif-video": ("motif-video", 13, 24),
    "anyflow": ("anyflow", 13, 16),
    "anyflow-far": ("anyflow", 9, 16),
    "wan-vace": ("wan2.1-vace", 13, 16),
    "chronoedit": ("chronoedit", 5, 16),
    "cogvideox-i2v": ("cogvideox", 17, 8),
    "ltx-i2v": ("ltx-video", 17, 25),
    "ltx-condition": ("ltx-video-condition", 17, 25),
    "ltx-2-i2v": ("ltx-2", 17, 24, {"rate": 24_000}),
    "ltx-2-condition": ("ltx-2", 17, 24, {"rate": 24_000}),
    "ltx-2-in-context": ("ltx-2", 17, 24, {"rate": 24_000}),
    "cosmos1": ("cosmos1", 17, 30),
    "cosmos2": ("cosmos2", 13, 16),
    "cosmos2.5": ("cosmos2.5", 13, 16),
    "cosmos3": ("cosmos3", 13, 24, {"rate": 16_000}),
}
"""Pipeline → preset, frames made of 10 that are asked, fps, and what is particular to it; 60 pixels become 64."""


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    torch.set_num_threads(1)
    for module in (pipeline_cosmos_text2world, pipeline_cosmos2_video2world, pipeline_cosmos2_5_predict):
        monkeypatch.setattr(module, "CosmosSafetyChecker", tiny_families.Guardrail)


def request(caption, seed=0):
    return Request(Key("small", "one", seed), Prompt("one", caption, "a thud", tags={"image": "red.png"}), None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_a_class_is_detected_given_its_preset_and_run(tmp_path, name):
    preset, frames, fps, *rest = CASES[name]
    own = dict(*rest)
    size, rate = own.pop("size", 64), own.pop("rate", None)
    folder = tiny_families.build(name, tmp_path / "model")
    Image.new("RGB", (90, 50), (200, 30, 30)).save(tmp_path / "red.png")
    seen = detect(folder)
    assert seen.makes == ("video + audio" if rate else "video")
    images = {"images": str(tmp_path)} if "image" in seen.needs else {}
    published = generators.build(str(folder), images).settings
    values = presets.PRESETS[preset]
    assert published["preset"] == preset and published["dropped"] == [], name
    assert (published["frames"], published["fps"], published["steps"]) == (values.frames, str(fps), values.steps)
    assert published["flow_shift"] == values.flow_shift and values.fps == fps
    settings = {"preset": "none", "width": 60, "height": 60, "frames": 10, "steps": 2, **images, **own}
    settings = {name: value for name, value in settings.items() if value is not None}
    model = generators.build(str(folder), settings)
    first, second = (one.clip for one in model.generate([request("a red ball falls"), request("a bell")]))
    assert first.frames.shape == (frames, size, size, 3) and first.fps == fps
    assert first.frames.std() > 5 and (first.frames != second.frames).any(), "another caption is another clip"
    assert (first.audio and first.audio.sample_rate) == rate
    if rate:
        assert abs(first.audio.seconds - first.seconds) < 0.04


@pytest.mark.filterwarnings("ignore")
def test_cogvideox_15_is_not_10(tmp_path):
    folder = tiny_families.build("cogvideox-i2v", tmp_path / "model")
    file = folder / "transformer" / "config.json"
    config = json.loads(file.read_text())
    for patch, preset, size, fps in ((None, "cogvideox", (720, 480), "8"), (2, "cogvideox1.5", (1360, 768), "16")):
        file.write_text(json.dumps({**config, "patch_size_t": patch}))
        settings = generators.build(str(folder), {}).settings
        assert (settings["preset"], settings["width"], settings["height"]) == (preset, *size)
        assert settings["fps"] == generators.build(str(folder), {"preset": "none"}).settings["fps"] == fps


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("build", "asked", "made"),
    [(tiny_families.sana, 848, 864), (tiny_families.helios_pyramid, 650, 704), (tiny_families.nabla, 768, 768)],
)
def test_sizes_that_do_not_follow_from_the_vae(build, asked, made):
    pipe = build()
    assert (calling.snapped(pipe, "width", asked), calling.snapped(pipe, "width", made)) == (made, made)
    assert calling.snapped(pipe, "width", made + 1) > made + 16


def modular(name, place, blocks=None):
    """A pipeline as diffusers saves it in modular form; its index names absolute paths, which no longer exist."""
    tiny_pipelines.build(name, place / "classic")
    kind = diffusers.ModularPipeline.from_pretrained if blocks is None else blocks().init_pipeline
    pipe = kind(str(place / "classic"))
    pipe.load_components(dtype=torch.float32)
    pipe.save_pretrained(str(place / "saved"))
    shutil.rmtree(place / "classic")
    return shutil.move(place / "saved", place / "modular")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_modular_pipeline_is_run(tmp_path, capfd):
    folder = modular("wan2.1", tmp_path)
    seen = detect(folder)
    assert (seen.kind, seen.class_name, seen.makes) == ("modular pipeline", "WanModularPipeline", "video")
    assert seen.model == f"diffusers:{folder}"
    published = generators.build(str(folder), {}).settings
    assert (published["preset"], published["guidance"], published["flow_shift"]) == ("wan2.1-480p", 5.0, 3.0)
    assert published["dropped"] == [] and published["vae_dtype"] == "float32"
    small = {"width": 60, "height": 60, "frames": 10, "steps": 2, "preset": "none"}
    clips = []
    for other in ({}, {}, {"guidance": 1.5}, {"flow_shift": 9.0}, {"negative_prompt": "a cat"}):
        (made,) = generators.build(str(folder), {**small, **other}).generate([request("a red ball falls")])
        assert made.call == {"width": 64, "height": 64, "num_frames": 13}
        clips.append(made.clip.frames)
    assert clips[0].shape == (13, 64, 64, 3) and clips[0].std() > 5
    assert "2/2" not in capfd.readouterr().err, "no bar for each clip"
    assert (clips[0] == clips[1]).all() and all((clips[0] != one).any() for one in clips[2:])
    for settings, words in (
        ({"offload": "model"}, "-M offload=model: a modular pipeline does not take it"),
        ({"call": {"sigma": 1}}, "WanModularPipeline has no argument 'sigma'"),
        ({"guidance_2": 3.0}, "WanModularPipeline has no argument for guidance_2"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            generators.build(str(folder), settings)
    index = folder / "modular_model_index.json"
    whole = json.loads(index.read_text())
    index.write_text(json.dumps({name: one for name, one in whole.items() if name != "transformer"}))
    with pytest.raises(InputError, match=r"its part transformer is missing in its modular_model_index\.json"):
        generators.build(str(folder), small).prepare()
    index.write_text(json.dumps(whole))
    weights = next((folder / "transformer").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".gone"))
    with pytest.raises(InputError, match="its part transformer could not be loaded"):
        generators.build(str(folder), small).prepare()
    shutil.rmtree(folder / "vae")
    with pytest.raises(InputError, match="names the part vae, which is not in the folder"):
        generators.build(str(folder), small).prepare()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_lora_and_a_part_of_ones_own_in_a_modular_pipeline(tmp_path):
    folder = modular("wan2.1", tmp_path)
    network = diffusers.WanTransformer3DModel.from_pretrained(folder / "transformer")
    network.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    layers = get_peft_model_state_dict(network)
    diffusers.WanPipeline.save_lora_weights(tmp_path / "lora", transformer_lora_layers=layers)
    tuned = diffusers.WanTransformer3DModel.from_pretrained(folder / "transformer")
    with torch.no_grad():
        tuned.patch_embedding.weight.mul_(2)
    tuned.save_pretrained(tmp_path / "tuned")
    small = {"width": 64, "height": 64, "frames": 5, "steps": 2, "preset": "none"}

    def frames(model=folder, **settings):
        return generators.build(str(model), {**small, **settings}).generate([request("a bell")])[0].clip.frames

    plain, lora = frames(), str(tmp_path / "lora")
    assert (frames(lora=lora) != plain).any() and (frames(lora=lora, lora_scale=0.0) == plain).all()
    assert (frames(tmp_path / "tuned", base=str(folder)) != plain).any()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_modular_pipeline_with_sound(tmp_path):
    from diffusers.modular_pipelines.ltx2.modular_blocks_ltx2 import LTX2AutoBlocks

    folder = modular("ltx2", tmp_path, LTX2AutoBlocks)
    assert detect(folder).makes == "video + audio"
    model = generators.build(str(folder), {"width": 64, "height": 64, "frames": 10, "steps": 2})
    assert model.settings["preset"] == "ltx-2" and model.settings["fps"] == "24"
    clip = model.generate([request("a bell")])[0].clip
    assert clip.frames.shape == (17, 64, 64, 3) and clip.audio.sample_rate == 24_000
    assert abs(clip.audio.seconds - clip.seconds) < 0.04


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_guidance_of_a_guider(tmp_path):
    """The call of HunyuanVideo 1.5 takes no guidance; a part of the checkpoint holds it."""
    folder = str(tiny_families.build("hunyuanvideo1.5", tmp_path / "model"))
    small = {"width": 64, "height": 64, "frames": 5, "steps": 2}
    plain, other = (generators.build(folder, {**small, **each}) for each in ({}, {"guidance": 1.5}))
    assert (plain.settings["guidance"], other.settings["guidance"]) == (6.0, 1.5)
    assert plain.settings["dropped"] == other.settings["dropped"] == []
    one, two = (each.generate([request("a bell")])[0].clip for each in (plain, other))
    assert (one.frames != two.frames).any()
    for config, reason in (
        ("[6.0]", " is no JSON object"),
        ('{"guidance_scale": "high"}', ": guidance_scale is 'high'"),
    ):
        Path(folder, "guider", "guider_config.json").write_text(config)
        with pytest.raises(InputError, match=rf"guider_config\.json{reason}"):
            generators.build(folder, small)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_negative_prompt_is_refused_exactly_where_the_clip_does_not_depend_on_it(tmp_path):
    """HunyuanVideo has a guidance of its own for it, which is 1 unless it is given; LTX-2 has one for its sound."""
    hunyuan = str(tiny_families.build("hunyuanvideo", tmp_path / "hunyuan"))
    ltx2, wan = (str(tiny_pipelines.build(name, tmp_path / name)) for name in ("ltx2", "wan2.1"))
    form = {"preset": "none", "steps": 1, "width": 64, "height": 64, "frames": 9}
    one = Request(Key("s", "one", 0), Prompt("one", "a ball", "a thud"), None)

    def clip(folder, **settings):
        return generators.build(folder, {**form, **settings}).generate([one])[0].clip

    for folder, idle, used in (
        (hunyuan, {}, {"call": {"true_cfg_scale": 4.0}}),
        (wan, {"guidance": 1.0}, {"guidance": 1.5}),
        (ltx2, {"guidance": 1.0, "call": {"audio_guidance_scale": 1.0}}, {"guidance": 1.0}),
    ):
        with pytest.raises(InputError, match=r"-M negative_prompt= does nothing: .* with a guidance above 1, not "):
            clip(folder, negative_prompt="a cat", **idle)
        plain, other = (clip(folder, negative_prompt=words, **used) for words in ("a cat", "noise noise noise"))
        sounds = [each.audio.waveform if each.audio else 0 for each in (plain, other)]
        assert (plain.frames != other.frames).any() or (sounds[0] != sounds[1]).any(), folder


@pytest.mark.filterwarnings("ignore")
def test_a_transformer_that_embeds_no_guidance_gets_none(tmp_path):
    folder = tiny_families.build("hunyuanvideo", tmp_path / "model")
    assert generators.build(str(folder), {}).settings["guidance"] == 6.0
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "guidance_embeds": False}))
    settings = generators.build(str(folder), {}).settings
    assert settings["guidance"] is None and settings["dropped"] == ["guidance"]
    with pytest.raises(InputError, match=r"-M guidance=6\.0 does nothing: .* embeds no guidance"):
        generators.build(str(folder), {"guidance": 6.0})


def test_every_preset_fits_a_class_of_this_diffusers():
    named = {presets.preset_name(f"{start}Pipeline", {}, {"patch_size_t": 2}) for start in presets._BY_CLASS}
    indices = ({"expand_timesteps": True}, {"transformer_2": ["diffusers", "X"]}, {"is_distilled": True})
    for start in presets._BY_CLASS:
        assert any(hasattr(diffusers, f"{start}{end}") for end in ("Pipeline", "ModularPipeline")), start
        named |= {presets.preset_name(f"{start}Pipeline", index, {}) for index in indices}
    by_name_only = {"wan2.1-720p", "wan2.1-lightx2v", "wan2.2-lightning", "ltx-2-distilled"}
    by_name_only |= {"kandinsky5-10s", "kandinsky5-distilled"}
    assert named | by_name_only == {*presets.PRESETS} and not named & by_name_only


_OF_THE_CLASS = ("kandinsky5", "cosmos2")
"""Presets whose class itself takes its example's negative prompt where none is given."""


def test_a_preset_that_names_a_class_example_has_its_values():
    """Read again in the text of the example. The pictures' size is left out: some examples show a small one."""
    checked = set()
    for start, name in presets._BY_CLASS.items():
        preset, kind = presets.PRESETS[name], getattr(diffusers, f"{start}Pipeline", None)
        if kind is None or not preset.source.startswith(presets._EXAMPLE):
            continue
        example = inspect.getmodule(kind).EXAMPLE_DOC_STRING
        for argument, value in {
            "num_inference_steps": preset.steps,
            "guidance_scale": preset.guidance,
            "num_frames": preset.frames,
            "flow_shift": preset.flow_shift,
            "addnoise_condition": (preset.call or {}).get("addnoise_condition"),
        }.items():
            given = {float(one) for one in re.findall(rf"\b{argument}\s*=\s*([\d.]+)", example)}
            if given and not (name == "skyreels-v2-df" and argument == "addnoise_condition"):  # it has no first image
                assert value in given, (start, argument)
                checked.add(argument)
        negative = re.search(r'negative_prompt = "([^"]+)"', example)
        if negative and name not in _OF_THE_CLASS:
            assert preset.negative_prompt and negative[1].startswith(preset.negative_prompt), start
            checked.add("negative_prompt")
    assert len(checked) == 6
    assert presets.preset_name("Kandinsky6TI2VAPipeline", {}, {}) == "kandinsky6"
    example = inspect.getmodule(diffusers.Kandinsky6TI2VAPipeline).EXAMPLE_DOC_STRING
    assert "distill" in example and presets._EXAMPLE not in presets.PRESETS["kandinsky6"].source


def test_the_guidance_of_sound_is_the_pipelines_as_the_docs_say():
    names = ("audio_guidance_scale", "audio_stg_scale", "audio_modality_scale", "stg_scale", "modality_scale")
    for start, name in presets._BY_CLASS.items():
        if name == "ltx-2" and (kind := getattr(diffusers, f"{start}Pipeline", None)):
            assert [calling.default(kind, one) for one in names] == [7.0, 1.0, 3.0, 1.0, 3.0]


def test_the_docs_list_every_preset_as_it_is():
    page = (Path(__file__).parent.parent / "docs/models.md").read_text()
    rows = re.findall(
        r"^\| `([\w.-]+)` \| ([^|]+) \| (\d+) \| (\d+) \| ([^|]*) \| ([^|]*) \| ([^|]*) \| (.+) \|$", page, re.M
    )
    assert [row[0] for row in rows] == [*presets.PRESETS]
    for name, size, frames, fps, steps, guidance, shift, source in rows:
        preset = presets.PRESETS[name]
        assert size == (f"{preset.width}×{preset.height}" if preset.width else "the checkpoint's"), name
        assert (int(frames), float(fps), source) == (preset.frames, preset.fps, preset.source), name
        assert steps == (str(preset.steps) if preset.steps else f"3 × {preset.call[next(iter(preset.call))][0]}"), name
        assert guidance.split(",")[0] == ("the guider's" if preset.guidance is None else str(preset.guidance)), name
        assert shift.strip() == ("" if preset.flow_shift is None else str(preset.flow_shift)), name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ConsisIDPipeline", "id_cond, id_vit_hidden"),
        ("AnimateDiffControlNetPipeline", "conditioning_frames"),
        ("CogVideoXFunControlPipeline", "control_video"),
        ("EasyAnimateInpaintPipeline", "video"),
        ("WanAnimatePipeline", "face_video, pose_video"),
        ("StableVideoDiffusionPipeline", "takes no caption"),
    ],
)
def test_what_needs_more_than_a_caption_and_an_image_is_refused(tmp_path, name, words):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(InputError, match=words):
        generators.build(str(tmp_path), {})


def test_cosmos_without_its_guardrail_is_refused_in_words(tmp_path, monkeypatch):
    folder = tiny_families.build("cosmos2.5", tmp_path / "model")
    monkeypatch.undo()
    with pytest.raises(InputError, match="cosmos_guardrail"):
        generators.build(str(folder), {"steps": 1}).prepare()
