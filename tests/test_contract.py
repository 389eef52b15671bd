"""Every provider, and every family of diffusers that is run here, keeps the contract: nine checks on seven clips."""

import re
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tiny_pipelines
import tiny_towers
import torch
from PIL import Image
from video_service import Service

from avbench.core import Clip, ClipSpec, Prompt, Subset
from avbench.generation import table as generators
from avbench.generation.contract import check
from avbench.generation.providers.python import OwnModel
from avbench.generation.sample import sample
from avbench.storage.runs.folder import RunFolder
from avbench.subsets import loading

HERE = Path(__file__).parent
TOY = loading.load("toy-control").limited(2)
CHECKS = ("settings", "clips", "form", "picture", "sound", "again", "order", "seeds", "prompts")


def small(spec=None):
    """Two prompts for models that know nothing of the embedded world."""
    captions = {"one": "a red ball falls", "two": "a blue cup breaks"}
    prompts = (Prompt(name, caption, "a thud", tags={"image": f"{name}.png"}) for name, caption in captions.items())
    return Subset("small", 1, tuple(prompts), spec)


def kept(model, settings, subset, *, own_form=False, silent=False):
    """Put a model through the checks; each must have found what it says it looks for."""
    found = {one.name: one for one in check(lambda: generators.build(model, settings), subset)}
    assert tuple(found) == CHECKS and all(one.ok is not False for one in found.values()), found
    applied = {one.name for one in found.values() if one.ok}
    assert applied == set(CHECKS) - ({"form"} if subset.clip_spec is None else set()) - ({"sound"} if silent else set())
    assert ("conformed to the clip spec" in found["form"].words) == own_form, found["form"]
    return found


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("variant", ["", "noisy", "no-contact"])
def test_the_embedded_world(variant):
    kept(f"toyworld:{variant}", {}, TOY)


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["toy-t2v", "toy-t2av"])
def test_bundled_checkpoints(arm):
    found = kept(f"avfulldit:{arm}", {"steps": 2}, TOY, silent=arm == "toy-t2v")
    assert "in batches of 3" in found["order"].words


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_two_pretrained_towers(tmp_path):
    pair = tiny_towers.build_pair(tmp_path)
    spec = ClipSpec(32, 16, 5, Fraction(20), 8000, 2)
    kept(f"avfulldit:{pair}/wan+{pair}/tango", tiny_towers.SMALL, small(spec))


NATIVE = {"wan2.2-5b": 24, "ltx": 25, "ltx-0.9.1": 25, "ltx2": 24, "cogvideox": 8}


@pytest.mark.slow
@pytest.mark.parametrize("family", tiny_pipelines.BUILDERS)
def test_families_of_diffusers(tmp_path, family):
    folder = tiny_pipelines.build(family, tmp_path / "model")
    for name, colour in (("one", "red"), ("two", "blue")):
        Image.new("RGB", (90, 50), colour).save(tmp_path / f"{name}.png")
    sound = (24_000, 2) if family == "ltx2" else (None, 1)
    fps = NATIVE.get(family, 16)
    settings = {"preset": "none", "steps": 1, **({"images": str(tmp_path)} if family == "wan-i2v" else {})}
    # all of them can make 17 frames of 64×64; LTX-2's sound is a little shorter, and brought to its form
    exact = small(ClipSpec(64, 64, 17, Fraction(fps), *sound))
    kept(str(folder), settings, exact, own_form=family == "ltx2", silent=family != "ltx2")


def test_another_form_than_its_own_is_told(tmp_path):
    folder = tiny_pipelines.build("wan2.1", tmp_path / "model")
    settings = {"preset": "none", "steps": 1}
    found = kept(str(folder), settings, small(ClipSpec(60, 60, 6, Fraction(8))), own_form=True, silent=True)
    message = "width 64 where 60 is asked for, height 64 where 60 is asked for, frames 13 where 6 is asked for, fps 16"
    assert message in found["form"].words


def test_a_model_in_python_makes_seven_clips():
    made = []

    def model(request):
        made.append(request.key)
        random = np.random.default_rng([request.key.seed, *request.key.prompt.encode()])
        return Clip(random.integers(0, 256, (4, 16, 16, 3), np.uint8), 8)

    assert all(one.ok is not False for one in check(lambda: OwnModel(model), small()))
    first, second, other = made[:3]
    assert made == [first, second, other, first, other, second, first]


def test_a_folder_of_clips(tmp_path):
    made = RunFolder(tmp_path / "made")
    assert not [one for one in sample(made, "toyworld:", {}, [TOY], [0, 1])[1] if one.failure]
    kept(f"clips:{made.path / 'clips'}", {}, TOY)


def test_a_model_that_cannot_be_built_a_second_time_fails_that_check_and_the_others_are_made():
    """The reason is one line, as each check is."""
    builds = []

    def build():
        builds.append(generators.build("toyworld:", {}))
        if len(builds) > 1:
            raise RuntimeError("no memory is left\nfor a second one")
        return builds[0]

    found = {one.name: one for one in check(build, TOY)}
    assert {name for name, one in found.items() if one.ok is False} == {"again"}
    assert found["again"].words == "it cannot be built a second time: RuntimeError: no memory is left"
    assert found["seeds"].ok and found["prompts"].ok


SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from avbench.core import Audio, Clip
from avbench.storage.media import write_clip
for one in json.load(open(sys.argv[-1]))["requests"]:
    rng = np.random.default_rng([one["seed"], *one["video_caption"].encode()])
    sound = Audio(rng.uniform(-0.1, 0.1, (1, 32000)).astype(np.float32), 16000)
    write_clip(Clip(rng.integers(0, 256, (16, 64, 64, 3), np.uint8), 8, sound), Path(one["file"] + ".mkv"))
"""


def test_a_script(tmp_path):
    (tmp_path / "make.py").write_text(SCRIPT)
    found = kept(f"cmd:{sys.executable} {tmp_path / 'make.py'}", {}, TOY)
    assert "in batches of 3" in found["order"].words


def test_a_class_and_a_packages_provider(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(# my_model\.py\n.*?)```", (HERE.parent / "docs/your-model.md").read_text(), re.S)
    (tmp_path / "contract_model.py").write_text(code)
    info = tmp_path / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: theirs\nVersion: 1\n")
    world = "avbench.generation.providers.toyworld:ToyWorld"
    (info / "entry_points.txt").write_text(f"[avbench.generators]\ntheirs = {world}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    kept("python:contract_model:Noise", {}, TOY)
    kept("theirs:noisy", {"strength": 3}, TOY)


@pytest.mark.parametrize(
    ("shape", "path"),
    [("openai", "v1"), ("openrouter", "api/v1"), ("veo", "v1beta"), ("fal", "fal")],
    ids=["openai", "openrouter", "veo", "fal"],
)
def test_a_video_server(tmp_path, shape, path):
    service = Service(tmp_path).start()
    try:
        settings = {"shape": shape, "poll_seconds": 0.02, "frames": 8, "fps": 8, "width": 64, "height": 64}
        subset = small(ClipSpec(64, 64, 8, Fraction(8), 16000) if shape == "openai" else None)
        model = service.url(path)
        if shape == "veo":  # it takes no seed, and the check says so
            found = {one.name: one for one in check(lambda: generators.build(model, settings), subset)}
            assert {name for name, one in found.items() if one.ok is False} == {"seeds"}
        else:
            kept(model, settings, subset)
        assert len(service.jobs()) == 6, "six clips are paid for: one of the seven is known"
    finally:
        service.kill()


def test_the_docs_say_of_every_row_whether_it_was_run():
    table = (HERE.parent / "docs/models.md").read_text().partition("| provider |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines()[2:]]
    assert len(rows) == 31
    provider = ""
    for row in rows:
        provider = row[0].strip() or provider
        said = re.match(r"(small random weights|run with real weights|run; |run with a class|not run)", row[3].strip())
        assert said or provider == "`diffusers:`", "those ran with small random weights, as is said above the table"
