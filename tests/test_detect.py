"""A path is told by what lies there, whatever it is called, and without a weight being read."""

import json
import shutil
import struct

import diffusers
import numpy as np
import pytest
import tiny_pipelines
from safetensors.numpy import save_file

from avbench.avfulldit import BUNDLED
from avbench.core import Audio, Clip, InputError
from avbench.generation import table as generators
from avbench.generation.detect import detect, makes, needs
from avbench.generation.providers.diffusers.loading import pipeline_class
from avbench.report.lists import listing
from avbench.storage.media import write_clip


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    return tiny_pipelines.build("wan2.1", tmp_path_factory.mktemp("models") / "sixteen.mp4")  # the name says nothing


def test_a_pipeline_and_its_parts(wan):
    seen = detect(wan)
    assert (seen.kind, seen.class_name, seen.makes, seen.needs) == ("pipeline", "WanPipeline", "video", ())
    assert seen.model == f"diffusers:{wan}"
    part = detect(wan / "transformer")
    assert (part.kind, part.class_name, part.needs) == ("component", "WanTransformer3DModel", ("-M base=PIPELINE",))
    assert detect(wan / "transformer" / "diffusion_pytorch_model.safetensors").kind == "single file"
    with pytest.raises(InputError, match=r"is no model: found tokenizer\.json, tokenizer_config\.json"):
        detect(wan / "tokenizer")


@pytest.mark.parametrize(
    ("made", "given", "words"),
    [
        (
            "checkpoint-500/transformer",
            "checkpoint-500",
            "holds transformer: give it, {}/checkpoint-500/transformer with",
        ),
        (
            "checkpoint-500/transformer checkpoint-500/transformer_ema",
            "checkpoint-500",
            "holds transformer_ema, transformer: give one, {}/checkpoint-500/transformer with -M base=PIPELINE",
        ),
        (
            "checkpoint-500/transformer checkpoint-1000/transformer checkpoint-1000/transformer_ema",
            ".",
            "holds checkpoint-500/transformer, checkpoint-1000/transformer_ema, checkpoint-1000/transformer: give one, "
            "{}/checkpoint-1000/transformer with -M base=PIPELINE",
        ),
        ("checkpoint-9/pytorch_lora_weights.safetensors", ".", "holds checkpoint-9: give it, {}/checkpoint-9 with"),
        ("out/model_index.json", ".", "holds out: give it, {}/out"),
    ],
)
def test_the_model_in_a_folder_of_a_training_is_named(wan, tmp_path, made, given, words):
    """As the trainers of diffusers leave them, with the optimiser's state and pictures of validation beside."""
    for place in made.split():
        if (tmp_path / place).suffix:
            (tmp_path / place).parent.mkdir()
            (tmp_path / place).write_text("{}")
        else:
            shutil.copytree(wan / "transformer", tmp_path / place)
            (tmp_path / place).with_name("optimizer.bin").write_bytes(b"")
    (tmp_path / "validation.png").write_bytes(b"")
    with pytest.raises(InputError) as refused:
        detect(tmp_path / given)
    assert str(refused.value).startswith(f"{tmp_path / given} is no model, but {words.format(tmp_path)}")


def test_only_the_header_of_weights_is_read(tmp_path):
    header = json.dumps({"blocks.0.lora_A.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "weights.safetensors"
    whole = struct.pack("<Q", len(header)) + header + bytes(4)
    path.write_bytes(whole)
    assert detect(path).kind == "LoRA"
    for content, words in (
        (whole[:-1], "1 bytes are missing: it is cut short"),
        (whole + b"x", "1 bytes follow its last"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"is damaged: {words}"):
            detect(path)
    nowhere = b'{"a":{"dtype":"F32"}}'
    for content, words in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "`git lfs pull` fetches it"),
        (b"<!doctype html><title>404</title>", "it is a web page"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 0), "rename it to end in .gguf"),
        (struct.pack("<Q", len(nowhere)) + nowhere, "does not say where each tensor lies"),
        (b"", "cut short"),
        (struct.pack("<Q", 2**60), "its header would be longer than"),
        (b"\2" + bytes(7) + b"[]", "header"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"no safetensors file: .*{words}"):
            detect(path)


def test_the_other_kinds(tmp_path):
    (tmp_path / "a.gguf").write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 0))
    assert detect(tmp_path / "a.gguf").kind == "GGUF"
    (tmp_path / "a.gguf").rename(tmp_path / "b.bin")
    with pytest.raises(InputError, match=r"b\.bin is a GGUF file; rename it to end in \.gguf"):
        detect(tmp_path / "b.bin")
    (tmp_path / "a.ckpt").write_bytes(b"anything")
    assert detect(tmp_path / "a.ckpt").needs == ("-M base=PIPELINE", "-M allow_pickle=true")
    lora = tmp_path / "lora"
    lora.mkdir()
    save_file({"x": np.zeros(1)}, lora / "pytorch_lora_weights.safetensors")
    assert detect(lora).kind == "LoRA"
    (lora / "pytorch_lora_weights.safetensors").rename(lora / "cats.safetensors")
    (lora / "example.png").touch()
    assert detect(lora).kind == "single file", "its header names no LoRA"
    modular = tmp_path / "modular"
    modular.mkdir()
    (modular / "modular_model_index.json").write_text('{"_class_name": "LTX2ModularPipeline"}')
    with pytest.raises(InputError, match=r"its modular_model_index\.json names no part"):
        generators.build(str(modular), {})
    for index in ("null", "[]", "3", '{"vae": ["diffusers", "AutoencoderKLWan", "vae"]}'):
        (modular / "modular_model_index.json").write_text(index)
        with pytest.raises(InputError, match=r"modular_model_index\.json: (the whole|vae) is"):
            detect(modular)
    clips = tmp_path / "clips"
    clips.mkdir()
    write_clip(Clip(np.zeros((2, 16, 16, 3), np.uint8), 8), clips / "one.mkv")
    assert detect(clips).model == f"clips:{clips}"
    own = detect(BUNDLED["toy-t2av"])
    assert (own.kind, own.makes, own.model) == ("AVFullDiT", "video + audio", f"avfulldit:{own.path}")


def test_what_is_no_model_is_told_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        detect(tmp_path / "nowhere")
    with pytest.raises(InputError, match="found nothing in it"):
        detect(tmp_path)
    (tmp_path / "notes.txt").write_text("a model")
    with pytest.raises(InputError, match=r"is no model: it is a file \.txt"):
        detect(tmp_path / "notes.txt")
    index = tmp_path / "model_index.json"
    for content, words in (
        ('{"_class_name": "StableDiffusionPipeline"}', "makes no video"),
        ('{"_class_name": "AVPipeline"}', "does not know"),
        ('{"_class_name": 3}', "must be a name, or a file and a name"),
        ("{}", "does not name a _class_name"),
        ("{", "model_index.json: not JSON"),
        ("[]", r"model_index.json: the whole is \[\]; it must be an object"),
    ):
        index.write_text(content)
        with pytest.raises(InputError, match=words):
            detect(tmp_path)
    index.rename(tmp_path / "config.json")
    with pytest.raises(InputError, match=r"config.json: the whole is \[\]; it must be an object"):
        detect(tmp_path)


def test_a_class_that_needs_a_later_package_is_told_in_a_sentence(tmp_path, monkeypatch):
    """Such as LTX2Pipeline with a transformers below 5.10; diffusers imports a class only when it is asked for."""

    def late(self, name):
        raise RuntimeError(f"Failed to import {name}\n(look up)") from ImportError("cannot import name 'Gemma4Unified'")

    monkeypatch.delitem(vars(diffusers), "LTX2Pipeline", raising=False)  # it may have been imported before
    monkeypatch.setattr(type(diffusers), "_get_module", late)
    (tmp_path / "model_index.json").write_text('{"_class_name": "LTX2Pipeline"}')
    right = r"cannot import LTX2Pipeline here \(cannot import name 'Gemma4Unified'\); `pip install -U"
    with pytest.raises(InputError, match=right):
        detect(tmp_path)
    with pytest.raises(InputError, match=right):
        pipeline_class(tmp_path, {"_class_name": "LTX2Pipeline"}, trusted=False)


@pytest.mark.parametrize(
    ("name", "made", "needed"),
    [
        ("WanPipeline", "video", ()),
        ("HunyuanVideo15Pipeline", "video", ()),
        ("LattePipeline", "video", ()),
        ("LTX2Pipeline", "video + audio", ()),
        ("Kandinsky6TI2VAPipeline", "video + audio", ()),
        ("Cosmos3OmniPipeline", "video + audio", ()),
        ("LTX2ImageToVideoPipeline", "video + audio", ("image",)),
        ("StableVideoDiffusionPipeline", "video", ("image",)),
        ("WanVideoToVideoPipeline", "video", ("video",)),
        ("WanAnimatePipeline", "video", ("face_video", "image", "pose_video")),
        ("FluxPipeline", "", ()),
        ("StableAudioPipeline", "", ()),
    ],
)
def test_what_a_class_makes_and_needs(name, made, needed):
    kind = getattr(diffusers, name)
    assert (makes(kind), needs(kind)) == (made, needed)


def test_the_list_says_what_a_path_is(wan):
    heads, rows = listing("models", wan)
    assert heads == ("path", str(wan)) and ("class", "WanPipeline") in rows
    with pytest.raises(InputError, match=r"what lies at this path is listed by `avbench list models "):
        listing("metrics", wan)


def test_what_a_folder_of_clips_holds_is_listed(tmp_path):
    sound = Audio(np.zeros((1, 800), np.float32), 16000)
    for name, audio in (("mute", None), ("heard", sound)):
        (tmp_path / name).mkdir()
        write_clip(Clip(np.zeros((2, 16, 16, 3), np.uint8), 8, audio), tmp_path / name / "one.mkv")
    (tmp_path / "heard" / "one.xyz").touch()
    assert detect(tmp_path / "mute").makes == "video"
    listed = dict(listing("models", tmp_path / "heard")[1])
    assert listed["is"] == "a folder of clips: 1 file, 0 folders of numbered frames"
    assert listed["holds"] == "video + audio" and "makes" not in listed
    assert "one.xyz (its suffix is not read)" in listed["note"]
    assert listed["score it by"] == f"avbench score {tmp_path / 'heard'}"
