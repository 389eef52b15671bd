"""`avbench train` from nothing to two arms and a run of them, at the smallest size; and the data that it trains on."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from avbench import subsets, train
from avbench.cli import app
from avbench.core import InputError
from avbench.folder import RunFolder
from avbench.media import read_clip, write_clip
from avbench.toyworld import FAMILIES, make_clip, random_scene


def avbench(*words):
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("train")
    os.environ["ACCELERATE_USE_CPU"] = "1"
    few = ("--steps", 2, "--batch", 2)
    given = ("--codecs", place / "codecs", "--examples", place / "examples")
    patch = pytest.MonkeyPatch()
    patch.setattr(train, "SHOW_EVERY", 2)
    avbench("train", "codecs", "--clips", 12, *few, "--out", place / "codecs")
    avbench(
        "train", "examples", "--clips", 9, "--codecs", place / "codecs", "--workers", 1, "--out", place / "examples"
    )
    for what in ("video", "audio"):
        avbench("train", "tower", what, *given, *few, "--out", place / what)
    towers = ("--video", place / "video", "--audio", place / "audio", "--examples", place / "examples")
    said = avbench("train", "arms", *towers, *few, "--out", place / "toy")
    patch.undo()
    return place, said


def test_the_arms_were_trained_alike(trained):
    place, said = trained
    assert "both arms saw the same video" in said
    assert train.same_settings(place / "toy-t2v", place / "toy-t2av") == []
    card = json.loads((place / "toy-t2v" / "card.json").read_text())
    (place / "other").mkdir()
    (place / "other" / "card.json").write_text(json.dumps({**card, "plan": {**card["plan"], "seed": 5}}))
    assert train.same_settings(place / "toy-t2v", place / "other") == ["plan.seed"]


def test_samples_are_written(trained):
    place, _ = trained
    assert read_clip(place / "toy-t2av" / "samples" / "000002-0.mkv").audio is not None
    assert read_clip(place / "toy-t2v" / "samples" / "000002-3.mkv").audio is None


def test_the_codecs_say_how_well_they_do(trained):
    place, _ = trained
    card = json.loads((place / "codecs" / "card.json").read_text())
    assert 15 < card["psnr_db"] < 40
    assert 0 < card["spectrogram_error_in_standard_deviations"] < 1


def test_the_arms_can_be_run(trained, tmp_path):
    place, _ = trained
    model = f"avfulldit:{place / 'toy-t2av'}"
    words = ("--subset", "toy-object-contact", "--limit", 2, "-M", "steps=2", "--workers", 1, "--out", tmp_path)
    folder = Path(avbench("sample", model, *words).strip().splitlines()[-1])
    made = RunFolder(folder).samples()
    assert len(made) == 2 and all(one.failure is None for one in made.values())


def test_no_scene_of_a_subset_is_trained_on():
    held = {json.dumps(p.tags["scene"], sort_keys=True) for n in subsets.TOY_SUBSETS for p in subsets.load(n).prompts}
    drawn = [train.toy_scene(number, 0)[0] for number in range(900)]
    assert not held & {json.dumps(scene.to_json(), sort_keys=True) for scene in drawn}
    assert {scene.family for scene in drawn} == set(FAMILIES)


def test_a_folder_of_clips(tmp_path, trained):
    place, _ = trained
    for number in range(2):
        clip, _ = make_clip(random_scene("drop", np.random.default_rng(number)), number)
        write_clip(clip, tmp_path / f"{number}.mkv")
    lines = [{"file": f"{number}.mkv", "video_caption": "a ball", "audio_caption": "a thud"} for number in range(2)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    codecs = ("--codecs", place / "codecs", "--workers", 1)
    avbench("train", "examples", "--data", tmp_path, "--clips", 2, *codecs, "--out", tmp_path / "examples")
    assert np.load(tmp_path / "examples" / "video.npy").shape == (2, 32, 4, 8, 8)
    (tmp_path / "prompts.jsonl").write_text('{"file": "0.mkv"}')
    with pytest.raises(InputError, match="line 1 lacks video_caption"):
        list(train.make_examples(str(tmp_path), 1, 0, place / "codecs", tmp_path / "again", 1))
    (tmp_path / "prompts.jsonl").write_text(json.dumps(lines[0]))
    with pytest.raises(InputError, match="holds 1 clips"):
        list(train.make_examples(str(tmp_path), 2, 0, place / "codecs", tmp_path / "more", 1))
