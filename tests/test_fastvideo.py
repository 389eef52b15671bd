"""FastVideo's Python API, in the place of which a stand-in lies on the path: the package needs an NVIDIA GPU."""

import importlib
import sys

import numpy as np
import pytest

from avbench.core import InputError, Key, Prompt, Subset, UnusableError
from avbench.generation import table as generators
from avbench.generation.contract import check
from avbench.generation.names import run_name
from avbench.generation.table import Request

STAND_IN = """
from dataclasses import dataclass, fields
import numpy as np

@dataclass
class SamplingParam:
    prompt: str | None = None
    negative_prompt: str = "bad"
    seed: int = 1024
    num_frames: int = 125
    height: int = 720
    width: int = 1280
    fps: int = 24
    num_inference_steps: int = 50
    guidance_scale: float = 1.0
    sigmas: list | None = None
    save_video: bool = True
    return_frames: bool = False
    output_path: str = "outputs/"
    num_videos_per_prompt: int = 1

    @classmethod
    def from_pretrained(cls, model_path):
        known = dict(num_frames=9, height=32, width=48, fps=16, num_inference_steps=3)
        return cls(**known) if "known" in model_path else cls()

    def update(self, values):
        names = {one.name for one in fields(self)}
        if unknown := sorted(values.keys() - names):
            raise ValueError(f"received unknown field(s): {unknown}")
        for name, value in values.items():
            setattr(self, name, value)

class VideoGenerator:
    @classmethod
    def from_pretrained(cls, model_path, **kwargs):
        if kwargs.get("num_gpus", 1) > 1:
            raise RuntimeError("there is one GPU only")
        made = cls()
        made.silent, made.rateless = "silent" in model_path, "rateless" in model_path
        return made

    def generate_video(self, prompt, sampling_param=None, **kwargs):
        sampling_param.update(kwargs)
        assert not sampling_param.save_video and sampling_param.return_frames
        one = sampling_param
        rng = np.random.default_rng([one.seed, one.num_inference_steps, *prompt.encode()])
        size = (one.num_frames, one.height, one.width, 3)
        frames = list(rng.integers(0, 256, size, np.uint8))
        if self.silent:
            return frames
        sound = rng.uniform(-0.5, 0.5, (round(16000 * one.num_frames / one.fps), 2)).astype(np.float32)
        rate = {} if self.rateless else {"audio_sample_rate": 16000}
        return {"prompts": prompt, "frames": frames, "audio": sound, **rate}
"""


@pytest.fixture
def fastvideo(tmp_path, monkeypatch):
    """A module with FastVideo's names, and the metadata of an installed package."""
    (tmp_path / "fastvideo.py").write_text(STAND_IN)
    info = tmp_path / "fastvideo-0.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fastvideo\nVersion: 0.9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "fastvideo", raising=False)
    yield
    sys.modules.pop("fastvideo", None)


def request(seed=0, caption="a red ball falls"):
    return Request(Key("small", "one", seed), Prompt("one", caption, "a thud"), None)


def test_a_model_keeps_the_contract(fastvideo):
    prompts = (Prompt("one", "a ball", "a thud"), Prompt("two", "a bell", "it rings"))
    found = list(check(lambda: generators.build("fastvideo:known/model", {}), Subset("small", 1, prompts, None)))
    assert not [one for one in found if one.ok is False], found


def test_the_registrys_settings_are_used_and_overridden(fastvideo):
    model = generators.build("fastvideo:known/model", {"steps": 4, "frames": 5, "call": {"sigmas": [1.0, 0.5]}})
    sampling = model.settings["sampling"]
    assert (sampling["num_frames"], sampling["width"], sampling["fps"]) == (5, 48, 16)
    assert sampling["num_inference_steps"] == 4 and sampling["sigmas"] == [1.0, 0.5]
    assert "seed" not in sampling and model.settings["fastvideo"] == "0.9" and model.remarks([]) == []
    assert model.settings["weights"] == {"hub": "known/model"}
    clip = model.generate([request()])[0].clip
    assert clip.frames.shape == (5, 32, 48, 3) and clip.fps == 16
    assert clip.audio.waveform.shape == (2, 5000) and clip.audio.sample_rate == 16_000
    silent = generators.build("fastvideo:known/silent", {}).generate([request()])[0].clip
    assert silent.audio is None and silent.frames.shape == (9, 32, 48, 3)
    again = generators.build("fastvideo:known/model", {"caption": "{video}"}).generate([request(seed=3)])[0].clip
    assert not np.array_equal(again.frames[:5], clip.frames)
    assert "no sampling settings for some/model" in generators.build("fastvideo:some/model", {}).remarks([])[0]
    assert run_name("fastvideo:known/model") == "model"


def test_sound_without_a_sampling_rate_is_left_out_with_a_remark(fastvideo):
    left_out = "the model's sound was left out, because FastVideo gave no sampling rate with it"
    for model, remarks in (("silent", ()), ("rateless", (left_out,))):
        clip = generators.build(f"fastvideo:known/{model}", {}).generate([request()])[0].clip
        assert (clip.audio, clip.remarks) == (None, remarks)


def test_what_is_wrong_is_said(fastvideo):
    for settings, words in (
        ({"step": 4}, "fastvideo has no setting 'step'; did you mean 'steps'"),
        ({"frames": 0}, "frames is 0"),
        ({"call": {"seed": 3}}, "'seed' is no field of FastVideo's SamplingParam that can be given"),
        ({"call": {"sigma": 3}}, "'sigma' is no field .* did you mean 'sigmas'"),
        ({"call": {"num_frames": 5}, "frames": 9}, "num_frames is the setting frames: give -M frames="),
        ({"call": 5}, "call is 5; it must be an object"),
        ({"load": "num_gpus=2"}, "load is 'num_gpus=2'; it must be an object"),
        ({"negative_prompt": 3}, "negative_prompt is 3; it must be text"),
    ):
        with pytest.raises(InputError, match=words):
            generators.build("fastvideo:known/model", settings)
    with pytest.raises(InputError, match=r"fastvideo:known/model cannot be loaded: .*there is one GPU only"):
        generators.build("fastvideo:known/model", {"load": {"num_gpus": 2}}).prepare()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("frames / 256 * 2 - 1", r"frames lie in -1\.\.\..* take \(x \+ 1\) / 2"),
        ("frames.astype(np.float32)", "frames lie in 0.* divide pictures in 0...255 by 255"),
        ("frames, sound * 32767", "sound: waveform peaks at .* by 32768 of 16 bits"),
    ],
)
def test_what_lies_outside_its_range_is_refused(fastvideo, monkeypatch, made, words):
    import fastvideo as package

    whole = package.VideoGenerator.generate_video

    def changed(self, *args, **kwargs):
        given = whole(self, *args, **kwargs)
        frames, sound = np.stack(given["frames"]), given["audio"]
        found = eval(made, {"frames": frames, "sound": sound, "np": np})
        frames, sound = found if isinstance(found, tuple) else (found, sound)
        return {**given, "frames": list(frames), "audio": sound}

    monkeypatch.setattr(package.VideoGenerator, "generate_video", changed)
    with pytest.raises(UnusableError, match=f"^the model's {words}"):
        generators.build("fastvideo:known/model", {}).generate([request()])


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastvideo", None)
    with pytest.raises(InputError, match="pip install fastvideo"):
        generators.build("fastvideo:known/model", {})
