"""`avbench train` from nothing to two arms and a run of them, at the smallest size; and the data that it trains on."""

import functools
import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_line import run_avbench

from avbench.avfulldit import checkpoint
from avbench.core import Audio, Clip, InputError
from avbench.storage.media import read_clip, write_clip
from avbench.storage.runs.folder import RunFolder
from avbench.storage.writing import written_alone
from avbench.subsets import loading
from avbench.toyworld import FAMILIES, make_clip, random_scene
from avbench.training import loop, machine, state, train
from avbench.training.objective import Losses


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("train")
    os.environ["ACCELERATE_USE_CPU"] = "1"
    few = ("--steps", 2, "--batch", 2)
    patch = pytest.MonkeyPatch()
    patch.setitem(
        train.TOWERS, "video", {**train.TOWERS["video"], "width": 64, "heads": 1, "layers": 2, "levels": [8, 16]}
    )
    patch.setitem(train.TOWERS, "audio", {**train.TOWERS["audio"], "width": 64, "heads": 1, "layers": 2})
    patch.setattr(train, "JOINT_LAYERS", 1)
    patch.setattr(machine, "compiling_pays", lambda precision: False)  # these trainings are shorter than compiling
    patch.setattr(train, "Session", functools.partial(train.Session, show_every=2))
    done = run_avbench("train", "examples", "--clips", 9, "--workers", 0, "--out", place / "examples")
    assert done.stdout.startswith(f"9 examples in {place / 'examples'}; `avbench train tower video --examples ")
    for what in ("video", "audio"):
        run_avbench("train", "tower", what, "--examples", place / "examples", *few, "--out", place / what)
    towers = ("--video", place / "video", "--audio", place / "audio", "--examples", place / "examples")
    output = run_avbench("train", "arms", *towers, *few, "--out", place / "toy").output
    patch.undo()
    return place, output


@pytest.mark.slow
def test_the_arms_were_trained_alike(trained):
    place, output = trained
    assert "both arms saw the same clips" in output
    assert train.same_settings(place / "toy-t2v", place / "toy-t2av") == []
    card = json.loads((place / "toy-t2v" / "card.json").read_text())
    (place / "other").mkdir()
    (place / "other" / "card.json").write_text(json.dumps({**card, "plan": {**card["plan"], "seed": 5}}))
    assert train.same_settings(place / "toy-t2v", place / "other") == ["plan.seed"]


@pytest.mark.slow
def test_finished_arms_are_trained_further_and_both_must_have_the_same_past(trained, tmp_path):
    place, _ = trained
    data = train.Examples.open(place / "examples")
    plan = train.Plan(1, batch=2, seed=2)
    for arm in train.ARMS:
        session = train.Session(data, tmp_path / arm, machine.Machine("cpu", "float32"))
        assert [at.step for at in train.go_on(place / f"toy-{arm}", plan, session)] == [1]
    before = json.loads((place / "toy-t2v" / "card.json").read_text())
    card = json.loads((tmp_path / "t2v" / "card.json").read_text())
    assert card["before"] == before
    assert card["plan"]["seed"] == 2
    assert train.same_settings(tmp_path / "t2v", tmp_path / "t2av") == []
    (tmp_path / "other").mkdir()
    other = {**card, "before": {**before, "towers": {}}}
    (tmp_path / "other" / "card.json").write_text(json.dumps(other))
    assert train.same_settings(tmp_path / "t2v", tmp_path / "other") == ["before.towers"]
    assert train.same_settings(tmp_path / "t2v", place / "toy-t2v")[-1] == "before"


@pytest.mark.slow
def test_samples_are_written(trained):
    place, _ = trained
    assert read_clip(place / "toy-t2av" / "samples" / "000002-0.mkv").audio is not None
    assert read_clip(place / "toy-t2v" / "samples" / "000002-3.mkv").audio is None


@pytest.mark.slow
def test_the_sounds_statistics_are_those_of_the_examples(trained):
    place, _ = trained
    sounds = np.load(place / "examples" / "audio.npy").astype(np.float64)
    assert abs(sounds.mean()) < 0.01 and abs(sounds.std() - 1) < 0.05
    config = json.loads((place / "toy-t2av" / "config.json").read_text())
    assert config["joint"]["tau"] == 5  # a frame lasts 125 ms, an audio latent 25 ms
    assert config["audio_codec"] == json.loads((place / "examples" / "card.json").read_text())["audio_codec"]


@pytest.mark.slow
def test_examples_go_on_where_they_stopped(trained, tmp_path):
    place, _ = trained
    whole = {name: (place / "examples" / name).read_bytes() for name in ("video.npy", "audio.npy", "captions.jsonl")}
    for count in train.make_examples("toyworld", 9, 0, tmp_path, 1):
        if count == 4:
            break
    assert len((tmp_path / "captions.jsonl").read_text().splitlines()) == 4
    with (tmp_path / "captions.jsonl").open("a") as file:
        file.write('{"video": "a re')  # what a killed process leaves of a line
    assert list(train.make_examples("toyworld", 9, 0, tmp_path, 1)) == [5, 6, 7, 8, 9]
    assert {name: (tmp_path / name).read_bytes() for name in whole} == whole
    with pytest.raises(InputError, match="clips is 9 there and 10 here"):
        list(train.make_examples("toyworld", 10, 0, tmp_path, 1))


@pytest.mark.parametrize("harm", ["cut", "removed", "other"])
def test_arrays_that_lost_their_end_are_not_filled_up_with_black_frames(tmp_path, harm):
    assert list(train.make_examples("toyworld", 2, 0, tmp_path, 0)) == [1, 2]
    video, whole = tmp_path / "video.npy", (tmp_path / "video.npy").read_bytes()
    if harm == "cut":
        video.write_bytes(whole[: len(whole) // 2])
    elif harm == "removed":
        video.unlink()
    else:
        np.save(video, np.zeros((1, 2), np.uint8))
    with pytest.raises(InputError, match=r"video\.npy is not what was begun \(.*\); remove .*captions\.jsonl to make"):
        list(train.make_examples("toyworld", 2, 0, tmp_path, 0))
    (tmp_path / "captions.jsonl").unlink()
    assert list(train.make_examples("toyworld", 2, 0, tmp_path, 0)) == [1, 2]
    assert video.read_bytes() == whole


def test_a_seed_that_no_generator_takes_is_refused_before_anything_is_made(tmp_path):
    for seed in (-1, 2**63):
        refused = run_avbench("train", "examples", "--clips", 2, "--seed", seed, "--out", tmp_path / "examples", code=2)
        assert "Invalid value for '--seed'" in refused.stderr
    assert not (tmp_path / "examples").exists()


def test_one_process_alone_writes_examples_or_a_training(tmp_path):
    folder, tower = tmp_path / "examples", tmp_path / "tower"
    assert list(train.make_examples("toyworld", 2, 0, folder, 0)) == [1, 2]
    data, plan = train.Examples.open(folder), train.Plan(1, batch=1)
    session = train.Session(data, tower, machine.Machine())
    with written_alone(folder), pytest.raises(InputError, match="examples is being written by another avbench; wait"):
        list(train.make_examples("toyworld", 2, 0, folder, 0))
    with written_alone(tower), pytest.raises(InputError, match="tower is being written by another avbench; wait for"):
        list(train.make_tower("audio", plan, session))
    assert sorted(path.name for path in tower.iterdir()) == [".lock"], "nothing was trained"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_full_disk_is_named_by_the_file_that_it_has_no_space_for(tmp_path, monkeypatch):
    real, full = Path.open, {"video.npy", ".state.part.pt"}

    def opened(path, mode="r", *rest, **options):
        return real(Path("/dev/full") if path.name in full and mode != "rb" else path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(OSError, match=r"No space left on device: '.*video\.npy'"):
        list(train.make_examples("toyworld", 2, 0, tmp_path, 0))
    assert (tmp_path / "captions.jsonl").read_text() == "", "a line would mean that its arrays are there"
    some, done = torch.nn.Linear(300, 300), state.Progress(1, None, None, 0.0, "")
    with pytest.raises(OSError, match=r"No space left on device: '.*state\.pt'"):
        state.save(tmp_path / state.STATE, some, [], {}, done, {}, machine.Machine())
    assert not (tmp_path / ".state.part.pt").exists()


def test_weights_that_are_no_longer_numbers_are_not_saved(tmp_path):
    """The loss of the last step is from before its gradients changed the weights."""
    some, done = torch.nn.Linear(3, 3), state.Progress(7, 0.5, None, 0.0, "")
    broken = {name: weight.detach() / 0 for name, weight in some.state_dict().items()}
    with pytest.raises(InputError, match="weights after step 7 are no longer finite numbers: try a lower learning"):
        state.save(tmp_path / state.STATE, some, [], broken, done, {}, machine.Machine())
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("video", "audio", "wrong"),
    [("t2v", "t2v", "audio"), ("audio", "audio", "video"), ("t2av", "audio", "video"), ("t2v", "t2av", "audio")],
)
def test_a_tower_of_the_other_kind_is_refused_before_anything_is_trained(video, audio, wrong, monkeypatch):
    codecs = {"t2v": (object(), None), "audio": (None, object()), "t2av": (object(), object())}
    parts = {name: SimpleNamespace(video_codec=one, audio_codec=two) for name, (one, two) in codecs.items()}
    monkeypatch.setattr(train.checkpoint, "load", lambda folder: parts[folder.name])
    arm = train.make_arm("t2v", Path(video), Path(audio), None, SimpleNamespace())
    with pytest.raises(InputError, match=f"is no {wrong} tower; give a folder that `avbench train tower {wrong}`"):
        next(arm)


def test_missing_inputs_are_noticed_before_the_machine_is_timed(tmp_path, monkeypatch):
    def timed():
        pytest.fail("the machine was timed")

    monkeypatch.setattr(machine.Machine, "measured", timed)
    monkeypatch.chdir(tmp_path)
    bundled = Path(checkpoint.__file__).parent / "checkpoints"
    data = tmp_path / "examples"
    data.mkdir()
    begun = ["train", "arms", "--out", "toy", "--video", bundled / "toy-t2v", "--audio"]
    arms = [*begun, bundled / "toy-audio"]
    tower = ["train", "tower", "video", "--out", "tower"]

    def refused(*words):
        return run_avbench(*words, "--examples", data, code=2).stderr

    for words in (tower, arms):
        assert f"{data}/card.json" in refused(*words)
    for name in ("video.npy", "audio.npy"):
        np.save(data / name, np.zeros((2, 1), np.uint8))
    (data / "captions.jsonl").write_text('{"video": "", "audio": ""}\n' * 2)
    codec = json.loads((bundled / "toy-audio/config.json").read_text())["audio_codec"]
    other = {**codec, "std": [2 * one for one in codec["std"]]}
    (data / "card.json").write_text(json.dumps({"clips": 2, "audio_codec": other}))
    assert f"examples was encoded by another audio codec than that of {bundled}/toy-audio" in refused(*arms)
    (data / "card.json").write_text(json.dumps({"clips": 2, "audio_codec": codec}))
    assert "arm 't3v' is unknown" in refused(*arms, "--arm", "t2v", "--arm", "t3v")
    assert "nowhere is no AVFullDiT checkpoint" in refused(*begun, "nowhere")
    assert "is no audio tower" in refused(*begun, bundled / "toy-t2v")
    Path("toy-t2v").mkdir()
    Path("toy-t2v/card.json").write_text(json.dumps({"plan": {"seed": 5, "audio_weight": 0.5}}))
    other = "toy-t2v was trained under other settings (plan.seed, source, towers): give the same, or another --out"
    assert other in refused(*arms, "--arm", "t2av"), "a T2V arm does not use the weight"
    shutil.rmtree("toy-t2v")
    for folder, precision in (("toy-t2v", "bfloat16"), ("toy-t2av", "float32")):
        Path(folder).mkdir()
        run = {"device": "cpu", "precision": precision, "compile": False, "graphs": False}
        Path(folder, "card.json").write_text(json.dumps({"machine": run}))
    unlike = "not toy-t2v (on cpu in bfloat16) and toy-t2av (on cpu in float32): remove one to train it like the other"
    assert unlike in refused(*arms)
    shutil.rmtree("toy-t2v")
    shutil.rmtree("toy-t2av")
    for folder in ("tower", "toy-t2av"):
        Path(folder).mkdir()
        torch.save({"plan": {"steps": 1}}, Path(folder) / "state.pt")
    assert "tower/state.pt belongs to another training (steps is 1 there and 12000 here" in refused(*tower)
    assert "toy-t2av/state.pt belongs to another training" in refused(*arms), "the second arm is checked, too"
    Path("toy-t2v").touch()
    assert "toy-t2v is a file; name a folder" in refused(*arms)


def test_a_training_waits_for_examples_only_while_they_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.Machine, "measured", machine.Machine)
    monkeypatch.setattr("avbench.training.examples._PATIENCE_SECONDS", 0)
    folder = tmp_path / "examples"
    assert list(train.make_examples("toyworld", 2, 0, folder, 0)) == [1, 2]
    captions = (folder / "captions.jsonl").read_text().splitlines(keepends=True)
    (folder / "captions.jsonl").write_text(captions[0])  # as a kill leaves it
    words = ["train", "tower", "audio", "--examples", folder, "--out", tmp_path / "tower"]
    stopped = f"{folder} holds 1 of its 2 examples"
    assert f"{stopped}: give its `avbench train examples` again" in run_avbench(*words, code=2).stderr
    with written_alone(folder):
        waited = run_avbench(*words, code=2).stderr
    assert f"{stopped}; waiting for the others" in waited and "no more are being made; 2 are needed" in waited


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # torch's, once in a process
def test_a_training_is_continued_as_it_was_begun(trained, tmp_path):
    place, _ = trained
    data, plan = train.Examples.open(place / "examples"), train.Plan(2, batch=2, seed=3)
    towers = place / "video", place / "audio"
    begun = train.Session(data, tmp_path / "t2v", machine.Machine("cpu", "bfloat16"), train.Pace(stop_after=0))
    assert [at.step for at in train.make_arm("t2v", *towers, plan, begun)] == [1]
    assert not (tmp_path / "t2v" / "card.json").exists()
    with pytest.raises(
        InputError, match=r"the training of .*t2v is not finished: give its `avbench train tower` again"
    ):
        train.load_towers(tmp_path / "t2v", place / "audio")
    later = train.Session(data, tmp_path / "t2v", machine.Machine("cpu", "float32"))
    other = Path(checkpoint.__file__).parent / "checkpoints/toy-audio"
    with pytest.raises(InputError, match=r"towers\.audio: other content"):
        list(train.make_arm("t2v", place / "video", other, plan, later))
    assert [at.step for at in train.make_arm("t2v", *towers, plan, later)] == [1, 2]
    assert json.loads((tmp_path / "t2v" / "card.json").read_text())["machine"]["precision"] == "bfloat16"
    (tmp_path / "t2v" / "state.pt").unlink()  # to save space, or because the checkpoint alone was copied here
    assert state.begun_on(tmp_path / "t2v") is None
    assert state.trained_on(tmp_path / "t2v") == machine.Machine("cpu", "bfloat16")
    assert state.trained_on(tmp_path / "nothing") is None


@pytest.mark.slow
def test_the_arms_can_be_run(trained, tmp_path):
    place, _ = trained
    model = f"avfulldit:{place / 'toy-t2av'}"
    words = ("--subset", "toy-object-contact", "--limit", 2, "-M", "steps=2", "--workers", 0, "--out", tmp_path)
    folder = Path(run_avbench("sample", model, *words).stdout.strip().splitlines()[-1])
    made = RunFolder(folder).samples()
    assert len(made) == 2 and all(one.failure is None for one in made.values())


def test_no_scene_of_a_subset_is_trained_on():
    held = {json.dumps(p.tags["scene"], sort_keys=True) for n in loading.TOY_SUBSETS for p in loading.load(n).prompts}
    drawn = [train.toy_scene(number, 0)[0] for number in range(900)]
    assert not held & {json.dumps(scene.to_json(), sort_keys=True) for scene in drawn}
    assert {scene.family for scene in drawn} == set(FAMILIES)


def test_a_folder_of_clips(tmp_path):
    for number in range(2):
        clip, _ = make_clip(random_scene("drop", np.random.default_rng(number)), number)
        write_clip(clip, tmp_path / f"{number}.mkv")
    lines = [{"file": f"{number}.mkv", "video_caption": "a ball", "audio_caption": "a thud"} for number in range(2)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run_avbench("train", "examples", "--data", tmp_path, "--clips", 2, "--workers", 0, "--out", tmp_path / "examples")
    video = np.load(tmp_path / "examples" / "video.npy")
    assert np.array_equal(video[1], read_clip(tmp_path / "1.mkv").frames)
    card = json.loads((tmp_path / "examples/card.json").read_text())
    shutil.copytree(tmp_path, tmp_path / "moved", ignore=shutil.ignore_patterns("examples", "moved"))
    assert list(train.make_examples(str(tmp_path / "moved"), 2, 0, tmp_path / "examples", 1)) == []
    for name, content, message in (
        (
            "prompts.jsonl",
            "\n".join(map(json.dumps, [lines[0], {**lines[1], "audio_caption": "a bang"}])),
            "captions are",
        ),
        ("1.mkv", (tmp_path / "0.mkv").read_bytes(), "clip is"),
    ):
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        said = rf"line 2: the {message} not what .*examples was begun with\. Put back 1\.mkv"
        with pytest.raises(InputError, match=said):
            list(train.make_examples(str(tmp_path), 2, 0, tmp_path / "examples", 1))
        (tmp_path / name).write_bytes(before)
    assert list(train.make_examples(str(tmp_path), 2, 0, tmp_path / "examples", 1)) == []
    assert json.loads((tmp_path / "examples/card.json").read_text()) == card and len(card["clips_sha256"]) == 64
    (tmp_path / "prompts.jsonl").write_text(json.dumps({**lines[0], "file": "9.mkv"}))
    with pytest.raises(InputError, match=r"line 1: 9\.mkv is not there"):
        list(train.make_examples(str(tmp_path), 1, 0, tmp_path / "again", 1))
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    large, short = np.zeros((32, 48, 96, 3), np.uint8), np.zeros((8, 64, 64, 3), np.uint8)
    large[::2, :, :48] = 200  # every second frame, which stays at half the rate
    for name, frames, fps in (("0", large, 16), ("1", short, 8)):
        sound = Audio(np.zeros((2, 44_100 * len(frames) // fps), np.float32), 44_100)
        write_clip(Clip(frames, Fraction(fps), sound), tmp_path / f"{name}.mkv")
    words = ("train", "examples", "--data", tmp_path, "--workers", 0, "--out", tmp_path / "conformed")
    run_avbench(*words, "--clips", 1)
    video = np.load(tmp_path / "conformed" / "video.npy")
    assert video.shape == (1, 16, 64, 64, 3) and video[0, :, 32, 8].min() > 150 and video[0, :, 32, 56].max() < 50
    with pytest.raises(InputError, match=r"1\.mkv: the clip lasts 1 s, but its subset needs 2 s; remove its line"):
        list(train.make_examples(str(tmp_path), 2, 0, tmp_path / "short", 1))
    assert "--clips" in run_avbench(*words, "--clips", 0, code=2).output
    write_clip(Clip(large, Fraction(16)), tmp_path / "0.mkv")
    with pytest.raises(InputError, match=r"0\.mkv has no sound; remove its line, or give another clip"):
        list(train.make_examples(str(tmp_path), 1, 0, tmp_path / "silent", 1))
    tone = np.sin(np.arange(88_200, dtype=np.float32) / 20) / 2
    write_clip(Clip(large, Fraction(16), Audio(np.stack([tone, -tone]), 44_100)), tmp_path / "0.mkv")
    with pytest.raises(InputError, match=r"0\.mkv has channels that cancel each other when averaged; remove its line"):
        list(train.make_examples(str(tmp_path), 1, 0, tmp_path / "inverted", 1))
    (tmp_path / "prompts.jsonl").write_text('{"file": "0.mkv"}')
    with pytest.raises(InputError, match="line 1 lacks video_caption"):
        list(train.make_examples(str(tmp_path), 1, 0, tmp_path / "again", 1))
    (tmp_path / "prompts.jsonl").write_text(json.dumps(lines[0]))
    with pytest.raises(InputError, match="holds 1 clip;"):
        list(train.make_examples(str(tmp_path), 2, 0, tmp_path / "more", 1))


def test_captions_that_are_cut_or_missing_are_noted(tmp_path):
    clip, _ = make_clip(random_scene("drop", np.random.default_rng(0)), 0)
    captions = [" ".join(["ball"] * 32), " ".join(["ball"] * 33), "a ball"]
    lines = [{"file": f"{number}.mkv", "video_caption": one} for number, one in enumerate(captions)]
    for line, sound in zip(lines, (captions[1], captions[1], ""), strict=True):
        write_clip(clip, tmp_path / line["file"])
        line["audio_caption"] = sound
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ("train", "examples", "--data", tmp_path, "--workers", 0, "--out", tmp_path / "examples")
    said = run_avbench(*words, "--clips", 3).stderr
    assert "note: the end of 1 video caption is ignored: towers read the first 32 words" in said
    assert "note: the end of 2 audio captions is ignored" in said
    assert "note: 1 clip without audio_caption: trained as if it were empty" in said
    assert [*train.caption_remarks(str(tmp_path), 1)] == [
        "the end of 1 audio caption is ignored: towers read the first 32 words"
    ]
    assert not [*train.caption_remarks(train.TOYWORLD, 3)]


def test_captions_may_hold_every_kind_of_line_separator_and_lines_may_be_empty(tmp_path):
    clip, _ = make_clip(random_scene("drop", np.random.default_rng(0)), 0)
    write_clip(clip, tmp_path / "0.mkv")
    line = {"file": "0.mkv", "video_caption": "a ball\u2028falls\x85down", "audio_caption": "a thud"}
    (tmp_path / "prompts.jsonl").write_text(f"\n{json.dumps(line, ensure_ascii=False)}\n\n", encoding="utf-8")
    assert list(train.make_examples(str(tmp_path), 1, 0, tmp_path / "examples", 0)) == [1]
    kept = json.loads((tmp_path / "examples/captions.jsonl").read_text())
    assert kept == {"video": line["video_caption"], "audio": "a thud"}
    (tmp_path / "prompts.jsonl").write_text("\n" + json.dumps(line | {"audio_caption": 3}))
    with pytest.raises(InputError, match="line 2: audio_caption is 3; it must be a text"):
        list(train.make_examples(str(tmp_path), 1, 0, tmp_path / "others", 0))
    (tmp_path / "prompts.jsonl").write_text("\n" + json.dumps(line | {"audio_caption": "a bang"}))
    with pytest.raises(InputError, match="line 2: the captions are not what"):
        list(train.make_examples(str(tmp_path), 1, 0, tmp_path / "examples", 0))
    with pytest.raises(InputError, match=r"holds other examples \(data is '.*' there and 'toyworld' here\)"):
        list(train.make_examples("toyworld", 1, 0, tmp_path / "examples", 0))
    (tmp_path / "examples/clips.json").unlink()
    with pytest.raises(InputError, match=r"holds other examples \(clips_sha256: other content\)"):
        list(train.make_examples(str(tmp_path), 1, 0, tmp_path / "examples", 0))


def test_losses_after_the_state_and_a_torn_last_line_are_dropped(tmp_path, monkeypatch):
    path, header = tmp_path / "losses.csv", "step,video_loss,audio_loss,seconds\n"
    path.write_bytes(f"{header}9,0.5,,1.0\n".encode() + b"\0\0\xff\n10,0.25,,2.0\n11,0.1,,3.0\n1")
    state.keep_losses(path, 10)
    assert path.read_text() == f"{header}9,0.5,,1.0\n10,0.25,,2.0\n"

    def killed(part, place):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        state.keep_losses(path, 0)
    assert path.read_text() == f"{header}9,0.5,,1.0\n10,0.25,,2.0\n", "a kill leaves the old file"


def test_the_hash_of_what_was_shown_is_that_of_one_process_however_many_share_a_batch():
    plan, before = train.Plan(9, batch=4), state.Progress(0, None, None, 0.0, "")
    steps = torch.arange(2 * 4 * 8.0).view(2, 4, 8)  # 2 steps, of 4 items 8 values each
    losses = Losses(torch.tensor(0.5), None)

    def seen(accelerator, probes):
        pending = [(bytes([step]), losses, probe) for step, probe in enumerate(probes)]
        return loop._reported(accelerator, before, 2, pending, 1.0, plan).seen_sha256

    mean = {"reduce": lambda value, reduction: value}
    alone = seen(SimpleNamespace(num_processes=1, **mean), steps)
    shares = [steps[:, process::2] for process in range(2)]
    shared = SimpleNamespace(num_processes=2, gather=lambda mine: torch.stack(shares), **mean)
    assert seen(shared, shares[0]) == alone
    shares[1] = shares[1] + 1
    assert seen(shared, shares[0]) != alone, "the other process's items count"


def test_processes_that_share_a_batch_agree_on_the_seconds_by_which_they_stop():
    before, losses = state.Progress(0, None, None, 4.0, ""), Losses(torch.tensor(0.5), None)
    mean_of_both = SimpleNamespace(num_processes=1, reduce=lambda value, reduction: torch.full_like(value, 2.0))
    for own in (1.0, 3.0):
        done = loop._reported(mean_of_both, before, 1, [(b"", losses, torch.zeros(1))], own, train.Plan(9))
        assert done.seconds == 6.0


@pytest.mark.slow
def test_two_processes_train_one_tower_and_the_first_speaks_for_both(tmp_path):
    run_avbench("train", "examples", "--clips", 9, "--workers", 0, "--out", tmp_path / "examples")
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "avbench", "train", "tower"]
    words += ["audio", "--examples", "examples", "--out", "tower", "--steps", "2", "--batch", "2"]
    # the measured choice would differ: the second process alone finds that compiling pays
    (tmp_path / "sitecustomize.py").write_text(CHOOSES_BY_RANK)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "1",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
    }
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("audio tower: tower: step 2, audio loss") == 1, done.stdout
    assert done.stderr.count("training on cpu in") == 1 and "compiled" not in done.stderr, done.stderr
    assert "Grad strides" not in done.stderr
    card = json.loads((tmp_path / "tower" / "card.json").read_text())
    assert (card["steps"], card["machine"]["compile"]) == (2, False)


CHOOSES_BY_RANK = """
import os
if "RANK" in os.environ:
    from avbench.training import machine
    machine.compiling_pays = lambda precision: os.environ["RANK"] == "1"
"""
