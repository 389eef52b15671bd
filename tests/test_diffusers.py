"""Pipelines of diffusers, whole and in parts: loaded as they are, asked as they can be, and the same every time."""

import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from fractions import Fraction
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import tiny_pipelines
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from avbench.core import ClipSpec, InputError, Key, Prompt, Subset, UnusableError
from avbench.generation import table as generators
from avbench.generation.contract import check
from avbench.generation.detect import detect, fingerprint, index_of
from avbench.generation.providers.diffusers import calling, ranks
from avbench.generation.providers.diffusers.loading import Placement, Sampler, Source, load, local_folder
from avbench.generation.providers.diffusers.presets import PRESETS, distilled, native_fps, preset_name
from avbench.generation.providers.diffusers.ranks import Ranks
from avbench.generation.sample import sample
from avbench.generation.table import Made, Request
from avbench.report.lists import listing
from avbench.storage.media import read_clip
from avbench.storage.runs.folder import RunFolder

SMALL = {"preset": "none", "steps": 2, "width": 60, "height": 60, "frames": 10}
CPU = Placement("float32", None, "cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Name → folder of a tiny pipeline, written when it is first asked for."""
    place, done = tmp_path_factory.mktemp("pipelines"), {}

    def folder(name):
        if name not in done:
            done[name] = tiny_pipelines.build(name, place / name)
        return done[name]

    Image.new("RGB", (90, 50), (200, 30, 30)).save(place / "red.png")
    Image.new("RGB", (90, 50), (30, 30, 200)).save(place / "blue.png")
    return folder


def request(seed=0, caption="a red ball falls", spec=None, **tags):
    return Request(Key("small", "one", seed), Prompt("one", caption, "a thud", tags=tags), spec)


def clip(model, asked=None, **settings):
    (made,) = generators.build(str(model), {**SMALL, **settings}).generate([asked or request()])
    return made.clip


def same(one, other):
    sounds = [None if each.audio is None else each.audio.waveform for each in (one, other)]
    return np.array_equal(one.frames, other.frames) and np.array_equal(*sounds)


def near(one, other):
    """But for rounding: weights read from another kind of file may lie otherwise aligned in memory."""
    apart = np.abs(one.frames.astype(int) - other.frames)
    return apart.max() <= 1 and apart.mean() < 1e-3


FAMILIES = {
    "wan2.1": ("WanPipeline", 13, 64, 16, None, "wan2.1-480p"),
    "wan2.2-a14b": ("WanPipeline", 13, 64, 16, None, "wan2.2-a14b"),
    "wan2.2-5b": ("WanPipeline", 13, 64, 24, None, "wan2.2-5b"),
    "wan-i2v": ("WanImageToVideoPipeline", 13, 64, 16, None, "wan2.1-i2v-480p"),
    "ltx": ("LTXPipeline", 17, 64, 25, None, "ltx-video"),
    "ltx-0.9.1": ("LTXPipeline", 17, 64, 25, None, "ltx-video"),
    "ltx2": ("LTX2Pipeline", 17, 64, 24, 24_000, "ltx-2"),
    "cogvideox": ("CogVideoXPipeline", 17, 64, 8, None, "cogvideox"),
}
"""Class, frames made of 10 that are asked, size of 60, fps, sample rate, preset."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_end_to_end(built, name):
    class_name, frames, size, fps, rate, preset = FAMILIES[name]
    folder = built(name)
    seen = detect(folder)
    assert (seen.class_name, seen.makes) == (class_name, "video + audio" if rate else "video")
    assert preset_name(class_name, index_of(folder), {}) == preset
    images = {"images": str(folder.parent)} if name == "wan-i2v" else {}
    settings = {**SMALL, **images}
    asked, other = request(image="red.png"), request(seed=1, image="red.png")
    model = generators.build(str(folder), settings)
    first, second = (each.clip for each in model.generate([asked, other]))
    assert first.frames.shape == (frames, size, size, 3) and first.fps == fps
    assert (first.audio and first.audio.sample_rate) == rate
    if rate:
        assert first.audio.channels == 2 and abs(first.audio.seconds - first.seconds) < 0.03
    assert first.frames.std() > 5
    assert not same(first, second), "another seed is another clip"
    again = generators.build(str(folder), settings).generate([other, asked])[1].clip
    assert same(first, again), "whatever was made before it"
    assert not same(first, clip(folder, request(caption="a bell", image="red.png"), **images))


def test_size_and_length_follow_the_subset_where_nothing_else_says(built):
    spec = ClipSpec(70, 50, 16, Fraction(8))
    (made,) = generators.build(str(built("ltx")), {"preset": "none", "steps": 1}).generate([request(spec=spec)])
    assert made.clip.frames.shape == (57, 64, 96, 3), (
        "50 frames at 25 fps, upwards to 8·k + 1; sizes to multiples of 32"
    )
    assert made.call == {"width": 96, "height": 64, "num_frames": 57}


def test_a_size_and_length_that_the_model_cannot_make_are_remarked(built, tmp_path):
    subset = Subset("one", 1, (Prompt("one", "a ball"),), None)
    for form, remark in (
        (
            {"width": 60, "height": 64, "frames": 10},
            "not as it was requested: width 64 where 60 is asked for, frames 13 where 10 is asked for",
        ),
        ({"width": 64, "height": 64, "frames": 13}, None),
    ):
        folder = RunFolder(tmp_path / str(form["frames"]))
        (made,) = sample(folder, str(built("wan2.1")), {"preset": "none", "steps": 1, **form}, [subset], (0,))[1]
        assert made.path and made.remark == remark


def test_a_caption_that_is_longer_than_the_model_reads_is_reported(built):
    model = generators.build(str(built("ltx")), SMALL)
    long = request(caption=129 * "b")  # each byte is a token
    assert "the end of 1 caption is ignored: too long for this model" in model.remarks([long, request(caption="b")])
    assert not any("too long" in remark for remark in model.remarks([request(caption=128 * "b")]))
    allowed = generators.build(str(built("ltx")), {**SMALL, "call": {"max_sequence_length": 129}})
    assert not any("too long" in remark for remark in allowed.remarks([long]))


def test_the_first_image_is_turned_as_its_file_asks(built, tmp_path):
    model = generators.build(str(built("wan-i2v")), {**SMALL, "images": str(tmp_path)})
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    picture.save(tmp_path / "upright.png")
    turned.save(tmp_path / "turned.png", exif=exif)
    seen = [model._image(request(image=name).prompt, 64, 64)[0] for name in ("upright.png", "turned.png")]
    assert np.array_equal(*map(np.asarray, seen))


def test_captions_of_a_model_with_sound_hold_both(built):
    model, silent = (generators.build(str(built(name)), SMALL) for name in ("ltx2", "wan2.1"))
    assert model._captioned(request().prompt) == "a red ball falls a thud"
    assert silent._captioned(request().prompt) == "a red ball falls"


def transformer(folder):
    return diffusers.WanTransformer3DModel.from_pretrained(folder, local_files_only=True)


def tuned(built, name="wan2.1", part="transformer", change=0.1):
    """A transformer that was trained further."""
    kind = transformer(built(name) / part)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in kind.parameters():
            weight.add_(change * torch.randn_like(weight))
    return kind.eval()


@pytest.fixture(scope="module")
def fine_tune(built, tmp_path_factory):
    """Its folder, and a clip of the whole pipeline that it is part of."""
    place = tmp_path_factory.mktemp("tuned")
    pipe = diffusers.WanPipeline.from_pretrained(built("wan2.1"), transformer=tuned(built), local_files_only=True)
    pipe.save_pretrained(place / "whole")
    return place / "whole" / "transformer", clip(place / "whole")


@pytest.mark.slow
def test_a_fine_tuned_transformer_is_not_dropped(built, fine_tune):
    folder, wanted = fine_tune
    base = str(built("wan2.1"))
    assert not near(wanted, clip(base))
    assert same(wanted, clip(folder, base=base)), "its folder"
    file = folder / "diffusion_pytorch_model.safetensors"
    assert near(wanted, clip(file, base=base)), "its file"
    with pytest.raises(InputError, match=r"is a component \(WanTransformer3DModel\), not a whole pipeline: give"):
        generators.build(str(folder), {})
    with pytest.raises(InputError, match="has no such part; it has scheduler"):
        generators.build(str(folder), {"base": str(built("ltx"))})


def test_what_a_pipeline_does_not_take_is_refused(built, fine_tune):
    """The generic class drops it without a word; so it is looked for."""
    index = index_of(built("wan2.1"))
    source = Source(built("wan2.1"), index, diffusers.DiffusionPipeline, detect(fine_tune[0]), "transformer")
    with pytest.raises(InputError, match=r"did not take .* as its transformer"):
        load(source, CPU, Sampler())


@pytest.mark.slow
def test_of_two_transformers_it_is_said_which(built, fine_tune):
    base = str(built("wan2.2-a14b"))
    with pytest.raises(InputError, match=r"any of transformer, transformer_2: say which.*-M component=transformer"):
        generators.build(str(fine_tune[0]), {"base": base})
    one, two = (clip(fine_tune[0], base=base, component=name) for name in ("transformer", "transformer_2"))
    assert not same(one, two) and not same(one, clip(base)) and not same(two, clip(base))
    with pytest.raises(InputError, match="component=vae: the base has no such part"):
        generators.build(str(fine_tune[0]), {"base": base, "component": "vae"})


def test_gguf(built, fine_tune, tmp_path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "q8.gguf", "wan")
    for name, weight in transformer(fine_tune[0]).state_dict().items():
        array = weight.numpy()
        if array.ndim == 2 and array.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    made = clip(tmp_path / "q8.gguf", base=str(built("wan2.1")))
    apart = np.abs(made.frames.astype(int) - fine_tune[1].frames)
    assert 0 < apart.max() and apart.mean() < 0.5, "eight bits lose a little"


@pytest.fixture(scope="module")
def lora(built, tmp_path_factory):
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    place = tmp_path_factory.mktemp("lora")
    torch.manual_seed(2)
    dit = transformer(built("wan2.1") / "transformer")
    dit.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = get_peft_model_state_dict(dit)
    diffusers.WanPipeline.save_lora_weights(place, transformer_lora_layers=layers)
    return place


@pytest.mark.slow
def test_a_lora_on_its_base(built, lora):
    base = str(built("wan2.1"))
    plain = clip(base)
    made = clip(lora, base=base)
    assert detect(lora).kind == "LoRA" and not same(made, plain)
    assert same(made, clip(base, lora=str(lora))), "given either way"
    assert same(made, clip(lora / "pytorch_lora_weights.safetensors", base=base)), "folder or file"
    assert same(plain, clip(base, lora=str(lora), lora_scale=0.0))
    assert not same(made, clip(base, lora=str(lora), lora_scale=0.5))
    with pytest.raises(InputError, match="is a LoRA, not a whole pipeline"):
        generators.build(str(lora), {})
    with pytest.raises(InputError, match="is no LoRA"):
        generators.build(base, {"lora": str(built("wan2.1") / "transformer" / "diffusion_pytorch_model.safetensors")})


@pytest.mark.parametrize(
    ("target", "settings", "said"),
    [
        ("wan2.1", {"lora": "style.safetensors"}, "-M lora=style.safetensors is neither a path nor"),
        ("wan2.1", {"lora": [{"path": "my/style"}]}, "-M lora=my/style is no path here, and the hub"),
        ("wan2.1", {"lora": "note.txt"}, "-M lora: note.txt is no model: it is a file .txt"),
        ("wan2.1/transformer", {"base": "wan"}, "-M base=wan is neither a path nor"),
        ("wan2.1/transformer", {"base": "."}, "-M base=. is no pipeline: it has no model_index.json; name the folder"),
        ("wan-i2v", {"images": "nowhere"}, "-M images=nowhere: there is no such folder"),
    ],
)
def test_a_file_that_a_setting_names_is_reported_as_that_setting(built, tmp_path, monkeypatch, target, settings, said):
    name, _, part = target.partition("/")
    model = built(name) / part
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "note.txt").touch()
    with pytest.raises(InputError, match=re.escape(said)):
        generators.build(str(model), settings)


def test_a_text_encoder_given_as_base_leads_to_its_pipeline(built):
    pipeline = built("wan2.1")
    with pytest.raises(InputError, match=re.escape(f"model_index.json; it is a part of the one in {pipeline}")):
        generators.build(str(pipeline / "transformer"), {"base": str(pipeline / "text_encoder")})


def test_a_lora_of_another_model_is_refused(built, lora):
    with pytest.raises(
        InputError, match=r"LoRA layers match nothing in the transformer of LTXPipeline: .*\(Target modul"
    ):
        clip(built("ltx"), lora=str(lora))


@pytest.mark.filterwarnings("ignore")
def test_a_lora_that_fits_only_in_part_is_refused(built, lora, tmp_path):
    layers = load_file(lora / "pytorch_lora_weights.safetensors")
    more = {
        name.replace("blocks.0", "blocks.7"): weight.clone() for name, weight in layers.items() if "blocks.0" in name
    }
    save_file({**layers, **more}, tmp_path / "deeper.safetensors")
    with pytest.raises(
        InputError,
        match=r"4 of its 12 LoRA layers match nothing in the transformer .*blocks\.7\.attn1\.to_q",
    ):
        clip(tmp_path / "deeper.safetensors", base=str(built("wan2.1")))


def test_settings_tell_weights_and_everything_else(built, fine_tune):
    base = str(built("wan2.1"))
    plain = generators.build(base, {}).settings
    json.dumps(plain)
    assert plain["preset"] == "wan2.1-480p" and plain["frames"] == 81 and plain["vae_dtype"] == "float32"
    assert plain["weights"]["pipeline"]["hashed"] == "every byte"
    mixed = generators.build(str(fine_tune[0]), {"base": base}).settings
    assert mixed["weights"]["pipeline"] == plain["weights"]["pipeline"] and mixed["component"] == "transformer"
    whole = generators.build(str(fine_tune[0].parent), {}).settings
    assert whole["weights"] != plain["weights"], "the shapes are the same"


def test_the_shards_of_a_distributed_checkpoint_count(tmp_path):
    (tmp_path / "__0_0.distcp").write_bytes(b"1")
    before = fingerprint(tmp_path)
    (tmp_path / "__0_0.distcp").write_bytes(b"2")
    assert fingerprint(tmp_path) != before


def test_weights_are_told_apart_by_any_byte(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(bytes(10_000_000))
    before = fingerprint(tmp_path)
    (tmp_path / "w.safetensors").write_bytes(bytes(5_000_000) + b"\1" + bytes(4_999_999))
    assert fingerprint(tmp_path)["sha256"] != before["sha256"]


def test_a_setting_that_is_null_is_refused_because_the_preset_would_decide(built):
    with pytest.raises(
        InputError, match=r"steps= is null, which would leave the preset.s value in force: leave it out$"
    ):
        generators.build(str(built("wan2.1")), {"steps": None})
    with pytest.raises(InputError, match=r"for an empty one write -M negative_prompt=$"):
        generators.build(str(built("wan2.1")), {"negative_prompt": None})
    assert generators.build(str(built("wan2.1")), {"negative_prompt": ""}).settings["negative_prompt"] == ""
    for name, empty in (("dtype", ""), ("device", ""), ("lora", [])):
        with pytest.raises(InputError, match=f"-M {name}= is empty: leave it out, or give a value"):
            generators.build(str(built("wan2.1")), {name: empty})


def test_a_preset_for_two_transformers_can_be_given_to_a_model_with_one(built):
    model = generators.build(str(built("wan2.1")), {**SMALL, "steps": 1, "preset": "wan2.2-a14b"})
    assert (model.settings["guidance"], model.settings["guidance_2"]) == (4.0, None)
    assert model.settings["dropped"] == ["guidance_2"]
    assert len(model.generate([request()])) == 1, "diffusers refuses a second guidance here"


def test_what_a_pipeline_has_no_argument_for(built, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = generators.build(str(built("ltx")), {"preset": "wan2.2-a14b"})
    assert model.settings["dropped"] == ["guidance_2"]
    left_out = "left out of the preset, because this checkpoint does not take it: guidance_2"
    assert left_out in model.remarks([request()])
    for settings, words in (
        ({"guidance_2": 3.0}, "has no argument for guidance_2"),
        ({"call": {"sigma": 1}}, "has no argument 'sigma'"),
        ({"call": {"frame_rate": 12}}, "frame_rate is the setting fps: give -M fps="),  # the clip would keep its 25
        ({"preset": "wan"}, "preset 'wan' is unknown"),
        ({"dtype": "half"}, "dtype=half"),
        ({"offload": "model"}, "there is only the CPU"),
        ({"offload": "group", "device": "cuda:7"}, "device=cuda:7: torch finds no GPU here"),
        ({"cache": "tea"}, "choices: first-block"),
        ({"compile": "maybe"}, "compile is 'maybe'; it must be true or false"),
        ({"steps": 0}, "steps is 0"),
        ({"context_parallel": 0}, "context_parallel is 0; it must be a whole number"),
        ({"context_parallel": 2, "compile": True}, "context_parallel=2 and -M compile= cannot be combined"),
        ({"base": "x"}, "is a whole pipeline; leave -M base= out"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            generators.build(str(built("ltx")), {"device": "cpu", **settings})
    with pytest.raises(InputError, match="neither a path nor a repository"):
        generators.build("diffusers:nowhere", {})


class Refusing(http.server.BaseHTTPRequestHandler):
    """A hub that refuses every repository, with the code that its server was given."""

    def do_GET(self):
        self.send_response(401)
        self.send_header("X-Error-Code", self.server.code)
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("RepoNotFound", "does not have it, or HF_TOKEN is not of a user who may read it ("),
        ("GatedRepo", "gives it only to users who agreed to its terms there; agree, and set HF_TOKEN ("),
        (None, "cannot be reached, and its cache does not hold it ("),
    ],
)
def test_why_the_hub_does_not_give_a_model_is_one_sentence(monkeypatch, code, words):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        server.code = code
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        if code is None:
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(
            InputError, match=re.escape(f"diffusers:nobody/nothing is no path here, and the hub {words}")
        ):
            generators.build("diffusers:nobody/nothing", {})
        server.shutdown()


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub with one repository, the server's `folder`; it counts what is fetched."""

    COMMIT = "0" * 40

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/us/model"):
            names = [one.relative_to(self.server.folder).as_posix() for one in self.server.folder.rglob("*.*")]
            tree = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in names]
            whole = {"id": "us/model", "sha": self.COMMIT, "siblings": [{"rfilename": name} for name in names]}
            body = json.dumps(tree if "/tree/" in path else whole).encode()
        else:
            name = path.rpartition(f"/resolve/{self.COMMIT}/")[2]
            body = (self.server.folder / name).read_bytes()
            if self.command == "GET":
                self.server.fetched.append(name)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", self.COMMIT)
        self.send_header("ETag", f'"{len(body)}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_a_variant_that_alone_is_on_the_hub_is_fetched(built, tmp_path):
    halved("wan2.1", built).save_pretrained(tmp_path / "model", variant="fp16")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.folder, server.fetched = tmp_path / "model", []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asked = ["sample", "diffusers:us/model", "--prompts", tmp_path / "p.jsonl", "--out", tmp_path / "runs"]
        settings = [f"-M{name}={value}" for name, value in {**SMALL, "dtype": "float32"}.items()]
        endpoint = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "cache")}
        (tmp_path / "p.jsonl").write_text('{"id": "one", "prompt": "a red ball falls"}\n')
        subprocess.run(
            [sys.executable, "-m", "avbench", *asked, *settings],
            env={**os.environ, **endpoint},
            check=True,
            timeout=300,
        )
        server.shutdown()
    assert {name for name in server.fetched if "safetensors" in name} == {
        f"{part}.fp16.safetensors"
        for part in ("vae/diffusion_pytorch_model", "transformer/diffusion_pytorch_model", "text_encoder/model")
    }
    (made,) = RunFolder(tmp_path / "runs" / "model").samples().values()
    own = clip(tmp_path / "model", dtype="float32").frames
    assert np.array_equal(read_clip(tmp_path / "runs" / "model" / made.path).frames, own)


def test_a_hub_name_is_looked_up_in_a_fresh_process(tmp_path):
    """Other tests load parts of the hub's package, which a fresh process does not have yet."""
    command = [sys.executable, "-m", "avbench", "sample", "diffusers:nobody/nothing", "--subset", "toy-control"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([*command, "--out", tmp_path / "runs"], env=offline, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is no path here, and the hub cannot be reached" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("name", "frames", "fps", "guidance"),
    [
        ("WanPipeline", "num_frames", None, "guidance_scale"),
        ("LattePipeline", "video_length", None, "guidance_scale"),
        ("SanaVideoPipeline", "frames", None, "guidance_scale"),
        ("Cosmos3OmniPipeline", "num_frames", "fps", "guidance_scale"),
        ("LTX2Pipeline", "num_frames", "frame_rate", "guidance_scale"),
        ("HunyuanVideo15Pipeline", "num_frames", None, None),
    ],
)
def test_arguments_are_named_as_each_class_has_them(name, frames, fps, guidance):
    kind = getattr(diffusers, name)
    assert [calling.argument(kind, one) for one in ("frames", "fps", "guidance")] == [frames, fps, guidance]


def test_outputs_of_every_layout_are_read():
    """Cosmos 3 has no batch, Kandinsky 6 one channel; a part of the pipeline knows the sample rate."""
    frames = np.full((3, 16, 16, 3), 0.5, np.float32)
    wave = torch.linspace(-1, 1, 40, dtype=torch.bfloat16)
    rate = {"audio_vae": SimpleNamespace(config={"sample_rate": 16_000})}
    for output, parts, shape, hertz in (
        ({"video": frames, "sound": torch.stack([wave, wave])}, {"sampling_rate": 48_000}, (2, 40), 48_000),
        ({"frames": frames[None], "audio": wave[None]}, rate, (1, 40), 16_000),
        ({"frames": frames[None], "audio": wave}, rate, (1, 40), 16_000),
        ({"frames": frames[None], "audio": torch.stack([wave, -wave])}, rate, (2, 40), 16_000),
        (
            {"frames": frames[None], "audio": wave[None, None]},
            {**rate, "vocoder": SimpleNamespace(config={"output_sampling_rate": 24_000})},
            (1, 40),
            24_000,
        ),
    ):
        tokenizer = {"sound_tokenizer": SimpleNamespace(config=parts)} if "sound" in output else parts
        made = calling.clip_of(SimpleNamespace(**output), SimpleNamespace(**tokenizer), Fraction(24))
        assert made.frames.shape == frames.shape and (made.frames == 128).all()
        assert (made.audio.waveform.shape, made.audio.sample_rate) == (shape, hertz)
        assert np.abs(made.audio.waveform).max() == 1
    with pytest.raises(InputError, match="no part of it gives the sample rate"):
        calling.clip_of(SimpleNamespace(frames=frames[None], audio=wave[None]), SimpleNamespace(), Fraction(24))


GREY = np.arange(3 * 4 * 4 * 3).reshape(1, 3, 4, 4, 3) % 256


@pytest.mark.parametrize(
    "frames",
    [
        GREY.astype(np.uint8),
        torch.tensor(GREY.astype(np.uint8)),
        [[Image.fromarray(one.astype(np.uint8)) for one in GREY[0]]],
        [*GREY[0].astype(np.uint8)],
        GREY / 255,
        torch.tensor(GREY / 255, dtype=torch.float32)[0],
        [torch.tensor(one / 255) for one in GREY[0]],
    ],
)
def test_frames_of_8_bits_are_as_they_are_and_those_in_0_to_1_are_scaled(frames):
    assert np.array_equal(calling.clip_of(SimpleNamespace(frames=frames), None, 8).frames, GREY[0])


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (GREY.astype(np.float32), r"frames lie in 0\.\.\.143; they must be uint8, or real .* divide .* by 255"),
        (
            GREY / 71.5 - 1,
            r"frames lie in -1\.\.\.1; .* real numbers in 0\.\.\.1: .* \(x \+ 1\) / 2",
        ),
        (GREY, r"frames are int64; they must be .*: convert numbers in 0\.\.\.255 with \.astype\(np\.uint8\)"),
        (np.where(GREY > 9, np.nan, 0.5), "frames hold 134 values of 144 that are NaN"),
    ],
)
def test_frames_of_another_range_are_refused(frames, words):
    with pytest.raises(UnusableError, match=f"^the model's {words}"):
        calling.clip_of(SimpleNamespace(frames=frames), None, 8)


def test_frames_just_outside_their_range_are_clipped():
    frames = np.zeros((2, 4, 4, 3), np.float32)
    frames[0], frames[1] = -0.04, 1.04
    assert calling.clip_of(SimpleNamespace(frames=frames), None, 8).frames.reshape(2, -1).T.tolist() == [[0, 255]] * 48


def test_sound_out_of_range_is_clipped_with_a_remark_or_refused():
    pipe = SimpleNamespace(audio_vae=SimpleNamespace(config={"sample_rate": 16_000}))
    wave = np.linspace(-1, 1, 41, dtype=np.float32)[None]

    def made(sound):
        return calling.clip_of(SimpleNamespace(frames=GREY.astype(np.uint8), audio=sound), pipe, Fraction(8))

    assert np.array_equal(made(wave).audio.waveform, wave) and made(wave).remarks == ()
    loud = made(1.5 * wave)
    assert loud.remarks == ("the model's sound peaks at 1.5 and was clipped to -1...1",)
    assert np.array_equal(loud.audio.waveform, np.clip(1.5 * wave, -1, 1))
    for sound, words in (
        (3 * wave, r"waveform peaks at 3; samples must lie in -1\.\.\.1"),
        (32767 * wave, "waveform peaks at 3.277e.04.* by 32768 of 16 bits"),
        ((32767 * wave).astype(np.int16), "waveform is int16 array; .* divide by 32768"),
        (np.zeros((1, 16_000, 2), np.float32), "has 16000 channels; the order .* so transpose it"),
    ):
        with pytest.raises(UnusableError, match=f"^the model's sound: .*{words}"):
            made(sound)


@pytest.mark.parametrize(("scale", "words"), [("* 255", r"lie in 0\.\.\.2\d\d"), ("* 2 - 1", r"lie in -1\.\.\.")])
def test_doctor_and_a_run_find_a_pipeline_whose_frames_have_another_range(built, tmp_path, monkeypatch, scale, words):
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = shutil.copytree(built("wan2.1"), tmp_path / "own")
    code = f"""
        from diffusers import WanPipeline

        class Mine(WanPipeline):
            def __call__(self, prompt=None, num_frames=5, width=16, height=16, num_inference_steps=1, generator=None,
                         output_type="np", **other):
                made = super().__call__(prompt, num_frames=num_frames, width=width, height=height, guidance_scale=1.0,
                                        num_inference_steps=1, generator=generator, output_type=output_type)
                low, high = made.frames.min(), made.frames.max()
                made.frames = (made.frames - low) / (high - low) {scale}
                return made
    """
    (folder / "pipeline.py").write_text(textwrap.dedent(code))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": ["pipeline", "Mine"]}))
    settings = {"trust_remote_code": True, "preset": "none", "fps": 16}
    subset = Subset("small", 1, (Prompt("one", "a ball"), Prompt("two", "a cup")), None)
    *_, last = check(lambda: generators.build(str(folder), settings), subset)
    assert (last.name, last.ok) == ("clips", False)
    assert re.fullmatch(rf"3 of 3 clips could not be made: the model's frames {words}.*", last.words)
    _, made, _ = sample(RunFolder(tmp_path / "run"), str(folder), settings, [subset], (0,))
    with pytest.raises(InputError, match=rf"first 2 clips cannot be used \(.*{words}.*, so the run stops$"):
        list(made)


def test_presets_fit_the_classes_that_they_are_for(built):
    for name, (class_name, *_, preset) in FAMILIES.items():
        model = generators.build(str(built(name)), {})
        assert model.settings["preset"] == preset and not model.settings["dropped"], class_name
        wanted = PRESETS[preset].flow_shift
        assert model.settings["flow_shift"] == wanted and model._decided.sampler.flow_shift == wanted
        assert model.settings["fps"] == str(PRESETS[preset].fps) and PRESETS[preset].source in model.remarks([])[0]
    asked = generators.build(str(built("wan2.1")), {"preset": "wan2.1-720p", "steps": 3})
    assert (asked.settings["flow_shift"], asked.settings["width"], asked.settings["steps"]) == (5.0, 1280, 3)
    long = request(spec=ClipSpec(64, 64, 80, Fraction(8)))
    assert any("last 5.06 s, but a subset asks for 10.00 s" in remark for remark in asked.remarks([long]))


CARD = "---\nlicence: other\n---\n# LTX-2\n\nA distilled checkpoint is elsewhere.\n"


@pytest.mark.parametrize(
    ("name", "card", "scheduler", "evidence"),
    [
        ("ltx-2", CARD, "FlowMatchEulerDiscreteScheduler", None),
        ("step1-step2_12steps", CARD, "FlowMatchEulerDiscreteScheduler", None),
        ("models--a--LTX-2-Distilled/snapshots/0", CARD, "X", "the name a--LTX-2-Distilled has the word 'distill'"),
        ("Wan 4 steps", CARD, "X", "the name Wan 4 steps has the word '4-steps'"),
        ("wan", CARD.replace("# LTX-2", "# LTX-2 Turbo"), "X", "its card has the word 'turbo'"),
        ("wan", CARD.replace("other", "other\ntags: [lcm]"), "X", "its card has the word 'lcm'"),
        ("Kandinsky-5.0-T2V-Lite-nocfg-5s", "", "X", "the name Kandinsky-5.0-T2V-Lite-nocfg-5s has the word 'nocfg'"),
        ("wan", "", "FlowMatchLCMScheduler", "its scheduler is FlowMatchLCMScheduler"),
        ("alpha", "", "HeliosDMDScheduler", "its scheduler is HeliosDMDScheduler"),
    ],
)
def test_a_distilled_checkpoint_is_known_by_what_it_calls_itself(tmp_path, name, card, scheduler, evidence):
    folder = tmp_path / name
    (folder / "scheduler").mkdir(parents=True)
    (folder / "README.md").write_text(card)
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps({"_class_name": scheduler}))
    assert distilled(folder, {}) == (evidence and (evidence, folder))
    assert distilled(folder, {"_name_or_path": "b/causvid"}) is not None
    assert distilled(folder, {}, [Path("Wan21_lightx2v_rank32.safetensors")]) is not None
    if evidence is None:
        (folder / "transformer").mkdir()
        (folder / "transformer/config.json").write_text('{"use_meanflow": true}')
        assert distilled(folder, {}) == ("its transformer/config.json says use_meanflow", folder)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("wan-4steps/pytorch_lora_weights.safetensors", "wan-4steps"),
        ("wan-turbo/transformer", "wan-turbo"),
        ("wan-turbo/checkpoint-500/transformer_2", "wan-turbo"),
        ("turbo/diffusion_pytorch_model.fp16.safetensors", "turbo"),
        ("model-turbo.safetensors", "model-turbo.safetensors"),
        ("turbo/wan/transformer", None),
        ("turbo/wan.safetensors", None),
    ],
)
def test_a_part_that_has_everybodys_name_is_called_as_the_folder_around_it(tmp_path, monkeypatch, given, named):
    at = tmp_path.resolve() / given
    at.parent.mkdir(parents=True, exist_ok=True)
    evidence, place = distilled(tmp_path, {}, [at]) or ("", at)
    assert evidence.startswith(f"the name {named} has the word" if named else "") and bool(evidence) == bool(named)
    assert place.name == (named or at.name), "where its card is"
    monkeypatch.chdir(at.parent)
    assert distilled(tmp_path, {}, [Path(at.name)]) == ((evidence, place) if named else None), "from inside the folder"


def test_a_distilled_checkpoint_gets_no_steps_of_the_full_model(built, tmp_path):
    folder = tmp_path / "ltx-2-distilled"
    shutil.copytree(built("ltx2"), folder)
    with pytest.raises(
        InputError,
        match=r"is distilled, because the name .*: give -M steps= and -M guidance= as its card says, or -M "
        r"preset=ltx-2-distilled if it is that model",
    ):
        generators.build(str(folder), {})
    with pytest.raises(InputError, match=r"give -M guidance= as its card says"):
        generators.build(str(folder), {"steps": 8})
    model = generators.build(str(folder), {"steps": 8, "guidance": 1.0})
    settings = model.settings
    assert (settings["preset"], settings["steps"], settings["negative_prompt"]) == (None, 8, None)
    assert (settings["width"], settings["frames"]) == (768, 121), "size and length are the family's"
    assert "has the word 'distill'" in settings["distilled"] and "taken for distilled" in model.remarks([])[0]
    full = generators.build(str(folder), {"preset": "ltx-2"})
    assert full.settings["preset"] == "ltx-2" and "distilled" not in full.settings
    few = generators.build(str(folder), {"preset": "ltx-2-distilled"}).settings
    assert few["steps"] == len(few["call"]["sigmas"]) == 8 and few["call"]["audio_guidance_scale"] == 1.0
    with pytest.raises(InputError, match=r"-M steps=4 does nothing: preset ltx-2-distilled gives the noise level"):
        generators.build(str(folder), {"preset": "ltx-2-distilled", "steps": 4})


def test_the_card_of_a_distilled_checkpoint_decides(built, tmp_path):
    folder = tmp_path / "wan-turbo"
    shutil.copytree(built("wan2.1"), folder)
    code = "```python\nvideo = pipe(prompt, num_inference_steps=4, guidance_scale=1.0).frames[0]\n```\n"
    (folder / "README.md").write_text(f"# A model\n\n{code}{code}")
    model = generators.build(str(folder), {})
    assert model.settings["from_card"] == {"steps": 4, "guidance": 1.0} and model.settings["preset"] is None
    assert (model.settings["steps"], model.settings["guidance"], model.settings["flow_shift"]) == (4, 1.0, None)
    assert "the code in its card gave steps 4, guidance 1.0" in model.remarks([])[0]
    own = generators.build(str(folder), {"steps": 6}).settings
    assert own["from_card"] == {"guidance": 1.0} and own["steps"] == 6, "what the user gives comes first"
    (folder / "README.md").write_text(f"{code}{code.replace('=4', '=8')}")
    with pytest.raises(InputError, match=r"give -M steps= as its card says, or -M preset=wan2\.1-lightx2v"):
        generators.build(str(folder), {})


def test_the_card_of_a_few_step_lora_decides_and_not_that_of_its_base(built, lora, tmp_path):
    folder, few = tmp_path / "wan", tmp_path / "lora-4steps"
    shutil.copytree(built("wan2.1"), folder)
    (folder / "README.md").write_text("pipe(prompt, num_inference_steps=50, guidance_scale=5.0)")
    shutil.copytree(lora, few)
    file = (few / "pytorch_lora_weights.safetensors").rename(few / "wan_4steps.safetensors")
    with pytest.raises(InputError, match=r"because the name wan_4steps.*: give -M steps= and -M guidance="):
        generators.build(str(folder), {"lora": str(file)})
    (few / "README.md").write_text("pipe(prompt, num_inference_steps=4, guidance_scale=1.0)")
    settings = generators.build(str(folder), {"lora": str(file)}).settings
    assert (settings["steps"], settings["guidance"]) == (4, 1.0)


def test_the_flow_shift_of_a_preset_is_used_wherever_the_note_names_it(built, tmp_path):
    """Wan 2.2's scheduler is published with 3.0, and its authors sample with 12.0."""
    model = generators.build(str(built("wan2.2-a14b")), {})
    assert model.settings["scheduler"] == {"class": "UniPCMultistepScheduler", "flow_shift": 3.0}
    assert model.settings["flow_shift"] == 12.0
    assert "with flow shift 12.0 instead of the checkpoint's 3.0" in model.remarks([])[0]
    assert load(model._source, CPU, model._decided.sampler).scheduler.config["flow_shift"] == 12.0
    folder = tmp_path / "another"
    shutil.copytree(built("wan2.1"), folder)
    diffusers.DDIMScheduler().save_pretrained(folder / "scheduler")
    index = index_of(folder)
    (folder / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", "DDIMScheduler"]}))
    other = generators.build(str(folder), {})
    assert other.settings["flow_shift"] is None and other.settings["dropped"] == ["flow_shift"]
    assert other.settings["scheduler"] == {"class": "DDIMScheduler", "flow_shift": None}
    with pytest.raises(InputError, match="flow_shift: DDIMScheduler has none"):
        generators.build(str(folder), {"preset": "wan2.1-480p"}).prepare()


def test_every_class_for_captions_has_a_rate_and_mochi_its_frames():
    names = ("Mochi", "Latte", "Allegro", "HunyuanVideo", "HunyuanVideo15", "SkyReelsV2", "SanaVideo", "AnyFlow")
    names += ("Kandinsky5T2V", "Helios", "MotifVideo", "EasyAnimate", "Cosmos2_5_PredictBase", "ConsisID", "ChronoEdit")
    for name in names:
        assert native_fps(f"{name}Pipeline", {}, {}), name
        assert hasattr(diffusers, f"{name}Pipeline"), name
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "transformer"))
    mochi = diffusers.MochiPipeline(diffusers.FlowMatchEulerDiscreteScheduler(), **parts)
    assert (calling.snapped(mochi, "frames", 14), calling.snapped(mochi, "width", 60)) == (19, 64)


@pytest.mark.slow
def test_how_it_is_run_changes_what_it_should(built):
    folder = built("wan2.1")
    plain = clip(folder, steps=6)
    assert not same(plain, clip(folder, steps=6, flow_shift=9.0))
    assert not same(plain, clip(folder, steps=6, call={"max_sequence_length": 8}))
    assert not same(plain, clip(folder, steps=6, negative_prompt="a cat"))
    assert near(plain, clip(folder, steps=6, attention="_native_math"))
    assert clip(folder, dtype="bfloat16", vae_dtype="float32").frames.shape == plain.frames.shape
    assert same(plain, clip(folder, steps=6)), "what another pipeline was told about attention is not this one's"
    settings = {**SMALL, "steps": 6, "cache": "first-block", "cache_threshold": 5.0}
    first, second = (one.clip for one in generators.build(str(folder), settings).generate([request(), request(seed=1)]))
    assert first.frames.shape == plain.frames.shape and not near(first, plain), "a cache changes pixels"
    assert same(second, clip(folder, request(seed=1), **settings)), "and a clip owes nothing to the one before it"


def test_an_image_begins_the_clip(built):
    folder = built("wan-i2v")
    red, blue = (clip(folder, request(image=f"{name}.png"), images=str(folder.parent)) for name in ("red", "blue"))
    assert not same(red, blue)
    for tags, words in (({}, "has no tag 'image'"), ({"image": "green.png"}, r"the image .*green\.png does not exist")):
        with pytest.raises(InputError, match=words):
            clip(folder, request(**tags), images=str(folder.parent))


def test_a_folders_own_code_is_run_only_where_it_is_trusted(built, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "own"
    shutil.copytree(built("wan2.1"), folder)
    ran = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    code = f"from diffusers import WanPipeline\n{ran}class Mine(WanPipeline): pass\n"
    (folder / "pipeline.py").write_text(code)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": ["pipeline", "Mine"]}))
    assert detect(folder).needs == ("-M trust_remote_code=true",)
    with pytest.raises(InputError, match=r"holds its own code, pipeline\.py"):
        generators.build(str(folder), {})
    assert not (tmp_path / "ran").exists()
    assert same(clip(folder, trust_remote_code=True, fps=16), clip(built("wan2.1")))
    assert (tmp_path / "ran").exists()


def halved(name, built):
    """A tiny pipeline whose weights are numbers of 16 bits, so that a file of either precision holds the same."""
    return diffusers.DiffusionPipeline.from_pretrained(built(name), dtype=torch.float16)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"max_shard_size": "20KB"}])
def test_weights_that_exist_in_one_variant_only_are_read(built, tmp_path, options):
    pipe = halved("wan2.1", built)
    pipe.save_pretrained(tmp_path / "plain")
    pipe.save_pretrained(tmp_path / "only", variant="fp16", **options)
    names = {one.name for one in (tmp_path / "only").rglob("*.safetensors")}
    assert names and all("fp16" in name for name in names)
    plain = clip(tmp_path / "plain", dtype="float32")
    assert same(plain, clip(tmp_path / "only", dtype="float32"))
    one, other = (generators.build(str(tmp_path / name), SMALL).settings for name in ("plain", "only"))
    assert other["variant"] == "fp16" and "variant" not in one
    part = clip(tmp_path / "only" / "transformer", base=str(tmp_path / "plain"), dtype="float32")
    assert same(plain, part), "also as a part of another pipeline"


def test_plain_weights_win_over_a_variant_beside_them(built, tmp_path):
    halved("wan2.1", built).save_pretrained(tmp_path / "both")
    plain = clip(tmp_path / "both", dtype="float32")
    tuned(built, change=9.0).save_pretrained(tmp_path / "both" / "transformer", variant="bf16")
    assert generators.build(str(tmp_path / "both"), SMALL).settings.get("variant") is None
    assert same(plain, clip(tmp_path / "both", dtype="float32"))


def test_variants_of_which_none_or_half_can_be_read_are_refused(built, tmp_path):
    pipe = halved("wan2.1", built)
    for variant in ("fp16", "bf16"):
        pipe.save_pretrained(tmp_path / "two", variant=variant)
    with pytest.raises(InputError, match=r"holds weights in several variants \(bf16, fp16\): remove all but one"):
        generators.build(str(tmp_path / "two"), SMALL)
    pipe.save_pretrained(tmp_path / "mixed", variant="fp16")
    vae = tmp_path / "mixed" / "vae" / "diffusion_pytorch_model.fp16.safetensors"
    vae.rename(vae.with_name("diffusion_pytorch_model.bf16.safetensors"))
    with pytest.raises(InputError, match="its parts exist in different variants only"):
        generators.build(str(tmp_path / "mixed"), SMALL)
    vae.with_name("diffusion_pytorch_model.bf16.safetensors").rename(vae)
    tensors = load_file(vae)
    tensors["unknown.weight"] = torch.zeros(2)
    save_file(tensors, vae, {"format": "pt"})
    with pytest.raises(InputError, match=r"\.fp16\.safetensors of .*vae holds 1 tensors that are not used"):
        clip(tmp_path / "mixed")


def test_pickles_are_read_only_where_it_is_said(built, tmp_path):
    file = tmp_path / "w.ckpt"
    torch.save(transformer(built("wan2.1") / "transformer").state_dict(), file)
    base = str(built("wan2.1"))
    for _ in range(2):
        with pytest.raises(InputError, match="is a pickle, which can run code"):
            generators.build(str(file), {"base": base})
        save_file({"x": torch.zeros(1)}, tmp_path / "beside.safetensors")  # does not make it any safer
    assert near(clip(file, base=base, allow_pickle=True), clip(base))


@pytest.mark.slow
def test_nan_and_a_missing_image_cost_their_prompts_only(built, tmp_path):
    prompts = tuple(Prompt(name, name, tags={"image": f"{name}.png"}) for name in ("blue", "green", "red"))
    folder = RunFolder(tmp_path / "run")
    for name in ("blue", "red"):
        shutil.copy(built("wan-i2v").parent / f"{name}.png", tmp_path)
    settings = {**SMALL, "images": str(tmp_path)}
    asked = (folder, str(built("wan-i2v")), settings, [Subset("three", 1, prompts, None)], (0,))
    _, made, _ = sample(*asked)
    assert [one.failure is None for one in made] == [True, False, True]
    assert sample(*asked)[0] == 1
    shutil.copy(tmp_path / "red.png", tmp_path / "blue.png")
    with pytest.raises(InputError, match=r"1 of 2 clips of .* blue: it came from image:"):
        sample(*asked)
    kept = next(one for one in folder.samples().values() if one.path)
    assert kept.source == f"image:{kept.call['image_sha256']}", "the image that was read"
    assert (
        kept.peak_memory_mib > 100 and kept.seconds > 0 and kept.call["num_frames"] == 13 and kept.spec_mismatch is None
    )
    broken = tuned(built, change=float("nan"))
    broken.save_pretrained(tmp_path / "broken")
    settings = {**SMALL, "base": str(built("wan2.1"))}
    other = RunFolder(tmp_path / "other")
    _, made, _ = sample(other, str(tmp_path / "broken"), settings, [Subset("one", 1, prompts[:1], None)], (0,))
    assert [one.failure for one in made] == ["the model's frames hold 159744 values of 159744 that are NaN or infinite"]


class Flaky:
    """A provider of somebody's own that fails in the two ways there are."""

    batch_size, settings, calls = 1, {}, []

    def __init__(self, target):
        pass

    def generate(self, requests):
        self.calls.append(requests[0].key.prompt)
        if self.calls[-1] == "refused":
            raise InputError("no")
        if self.calls.count(self.calls[-1]) == 1 or self.calls[-1] == "broken":
            raise RuntimeError("out of memory")
        return [Made(generators.Clip(np.full((2, 16, 16, 3), 9, np.uint8), 8))]

    def remarks(self, requests):
        return []


def test_what_fails_without_a_sentence_is_tried_once_more(tmp_path, monkeypatch):
    monkeypatch.setattr(Flaky, "calls", [])
    monkeypatch.setitem(generators.GENERATORS, "flaky", f"{__name__}:Flaky")
    prompts = tuple(Prompt(name, name) for name in ("broken", "once", "refused"))
    folder = RunFolder(tmp_path / "run")
    _, made, _ = sample(folder, "flaky:", {}, [Subset("three", 1, prompts, None)], (0,))
    assert [one.failure for one in made] == ["RuntimeError: out of memory", None, "no"]
    assert Flaky.calls == ["broken", "broken", "once", "once", "refused"]


def cached(cache, name, folder):
    """Put a folder into a cache of the hub, as its client lays it out."""
    place = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / "0" / "")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0")


class Tired(Refusing):
    """A hub that has a LoRA's file, and answers a question for its config with the code that its server was given."""

    def do_GET(self):
        lora = self.path.endswith("lora.safetensors")
        self.send_response(200 if lora else self.server.code)
        for name, value in {"ETag": '"0"', "X-Repo-Commit": "0" * 40, "Content-Length": "0"}.items():
            self.send_header(name, value)
        if self.server.code == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()

    do_HEAD = do_GET


@pytest.mark.parametrize("code", [404, 403])
def test_a_loras_config_is_not_taken_for_missing_where_the_hub_fails(tmp_path, monkeypatch, code):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tired) as server:
        server.code = code
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub)
        template = hub + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        if code == 404:
            assert local_folder("us/lora/lora.safetensors", None).name == "lora.safetensors"
        else:
            with pytest.raises(
                InputError, match=r"us/lora/lora\.safetensors is no path here, and the hub cannot be reached"
            ):
                local_folder("us/lora/lora.safetensors", None)
        server.shutdown()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert local_folder("us/lora/lora.safetensors", None).name == "lora.safetensors"


@pytest.mark.slow
def test_what_lies_in_the_hubs_cache_is_looked_at_and_run(built, lora, fine_tune, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name, folder in (("us/wan", built("wan2.1")), ("us/lora", lora), ("us/tuned", fine_tune[0])):
        cached(tmp_path, name, folder)
    assert ("class", "WanPipeline") in listing("models", Path("us/wan"))[1]
    assert ("is", "LoRA") in listing("models", Path("us/lora"))[1]
    assert ("class", "WanTransformer3DModel") in listing("models", Path("us/tuned"))[1]
    with pytest.raises(InputError, match="us/nothing does not exist"):
        listing("models", Path("us/nothing"))
    plain = clip("diffusers:us/wan")
    assert same(plain, clip(built("wan2.1")))
    changed = clip("diffusers:us/lora", base="us/wan")
    assert not same(changed, plain) and same(changed, clip("diffusers:us/wan", lora="us/lora"))
    assert same(clip("diffusers:us/tuned", base="us/wan"), fine_tune[1])
    file = "diffusers:us/tuned/diffusion_pytorch_model.safetensors"
    assert near(clip(file, base="us/wan"), fine_tune[1])


def test_if_a_rank_cannot_be_started_the_earlier_ones_are_ended(monkeypatch, tmp_path):
    start, started = BaseProcess.start, []

    def one(process):
        if started:
            raise OSError("too many open files")
        start(process)
        started.append(process)

    monkeypatch.setattr(BaseProcess, "start", one)
    source, placement = Source(tmp_path, {}, object), replace(CPU, context_parallel=3)
    with pytest.raises(InputError, match="context_parallel=3: too many open files"):
        Ranks(source, placement, Sampler(), None)
    assert not started[0].is_alive()


def test_a_rank_makes_the_gpu_that_it_loads_to_its_own(monkeypatch, tmp_path):
    done, told = [], []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(device))
    monkeypatch.setattr(ranks, "load", lambda source, placement, sampler: done.append(placement.device))
    source, placement = Source(tmp_path, {}, object), replace(CPU, device="cuda", context_parallel=3)
    ranks._serve(SimpleNamespace(send=told.append, recv=lambda: None), 2, source, placement, Sampler())
    assert done == ["cuda:2", "cuda:2"] and told == [None]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")  # how diffusers gathers
def test_ranks_that_share_a_sequence_make_the_same_clip(built, monkeypatch):
    """Two processes on this CPU; after a failure all of them begin anew. A port that was free need not stay so."""
    taken = []

    class OfAnotherProgram(socket.socket):
        def __exit__(self, *_):
            self.listen()
            taken.append(self)

    monkeypatch.setattr(socket, "socket", OfAnotherProgram)
    settings = {**SMALL, "device": "cpu", "context_parallel": 2}
    model = generators.build(str(built("wan2.1")), settings)
    assert model.settings["context_parallel"] == 2
    try:
        first, second = (one.clip for one in model.generate([request(), request(seed=1)]))
        assert near(first, clip(built("wan2.1"))) and near(second, clip(built("wan2.1"), request(seed=1)))

        def fails(*_, **__):
            raise RuntimeError("rank 0 fails")

        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="rank 0 fails"):
            patch.setattr(model._pipe, "encode_prompt", fails)
            model.generate([request()])
        assert model._ranks is None and not torch.distributed.is_initialized()
        assert near(model.generate([request()])[0].clip, first)
    finally:
        if model._ranks:
            model._ranks.end()
