"""Which files are clips: hidden ones never, everything that the reader reads, names in either Unicode form."""

import json
import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from avbench.core import Clip, InputError, Key, MediaError, Prompt, checked_name
from avbench.generation.detect import detect, fingerprint
from avbench.generation.names import run_name
from avbench.generation.table import Request, build
from avbench.storage.media import read_clip, write_clip
from avbench.storage.media.clip_files import clips_in
from avbench.subsets import datasets, loading

NFC, NFD = (unicodedata.normalize(form, "Un café à l'été") for form in ("NFC", "NFD"))


def written(path, content=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def real(tmp_path):
    folder = tmp_path / "real"
    for name in ("c1.mp4", "c2.MP4", "c3.mov", "deep/er/c4.m4v", "c5.3gp", ".ipynb_checkpoints/c1-checkpoint.mp4"):
        written(folder / name)
    for name in ("._c1.mp4", ".git/x.json", "old.wmv", "noext", "notes.txt", "c1.srt", "fr/1.png", "fr/._2.png"):
        written(folder / name)
    written(tmp_path / "elsewhere/linked.mkv")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    (folder / "twice").symlink_to(folder / "deep")
    (folder / "lost.mp4").symlink_to(folder / "nowhere.mp4")
    return folder


def test_no_folder_is_read_twice_whatever_links_lead_to_it(tmp_path):
    written(tmp_path / "out/clips/a.mp4")
    (tmp_path / "out/clips/up").symlink_to(tmp_path / "out")
    assert [*clips_in(tmp_path / "out/clips").clips] == [tmp_path / "out/clips/a.mp4"]
    written(tmp_path / "x/sub/b.mp4")
    (tmp_path / "two").mkdir()
    (tmp_path / "two/a").symlink_to(tmp_path / "x/sub")
    (tmp_path / "two/b").symlink_to(tmp_path / "x")
    assert [*clips_in(tmp_path / "two").clips] == [tmp_path / "two/a/b.mp4"]


def test_copies_in_run_folders_below_the_clips_are_no_clips(tmp_path):
    for name in ("c1.mp4", "runs/score/here/clips/clips/c1-0.mp4", "experiment/c2.mp4", "experiment/run.json"):
        written(tmp_path / name)
    for name in ("run.json", "samples.jsonl"):
        written(tmp_path / "runs/score/here" / name)
    found = clips_in(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found.clips] == ["c1.mp4", "experiment/c2.mp4"]
    assert found.left_out == ((tmp_path / "runs/score/here", "a run folder of avbench"),)
    inside = tmp_path / "runs/score/here/clips"
    assert [path.name for path in clips_in(inside).clips] == ["c1-0.mp4"]  # named itself, they are


def test_sound_beside_a_clip_is_named_and_other_sound_is_not(tmp_path):
    for name in ("a/c1.mp4", "a/c1.wav", "a/c2.mp4", "b/c2.wav", "music.mp3"):
        written(tmp_path / name)
    ((path, why),) = clips_in(tmp_path).left_out
    assert path == tmp_path / "a/c1.wav" and "only from the clip's own file" in why


def test_hidden_ones_are_out_what_is_read_is_in_and_the_rest_is_named(real):
    found = clips_in(real)
    assert [path.relative_to(real).as_posix() for path in found.clips] == [
        *("c1.mp4", "c2.MP4", "c3.mov", "c5.3gp", "deep/er/c4.m4v", "link/linked.mkv")
    ]
    assert found.frames == (real / "fr",)
    left_out = {path.relative_to(real).as_posix(): why for path, why in found.left_out}
    assert left_out == {
        ".ipynb_checkpoints": "a hidden folder",
        "._c1.mp4": "a hidden file",
        "old.wmv": "its suffix is not read",
        "noext": "it has no suffix",
        "loop": "a link to a folder that is read already",
        "twice": "a link to a folder that is read already",
        "lost.mp4": "a link to nothing",
    }
    (remark,) = found.remark()
    assert remark.startswith(f"left out of {real}: ._c1.mp4 (a hidden file), .ipynb_checkpoints (a hidden folder), ")
    assert remark.endswith(
        "and 2 more; suffixes read: .mp4, .mkv, .webm, .avi, .gif, .mov, .m4v, .qt, .3gp, .3g2, .mj2, .mk3d"
    )


def test_everybody_who_reads_a_folder_reads_the_same(real):
    names = {"c1", "c2", "c3", "c5", "deep/er/c4", "link/linked"}
    assert {one.video_caption for one in loading.from_folder(real).prompts} == names
    pool = datasets.opened(str(real))
    assert {one.path.relative_to(real).with_suffix("").as_posix() for one in pool.entries()} == names
    remarks = " ".join(datasets.remarks(pool, pool.entries()))
    assert ".ipynb_checkpoints (a hidden folder)" in remarks and "and 3 more; suffixes" in remarks
    assert detect(real).kind == "clips"
    assert any(".ipynb_checkpoints" in one for one in build(f"clips:{real}", {}).remarks([]))


def test_frames_are_named_where_they_cannot_be_read(tmp_path):
    written(tmp_path / "fr/1.png")
    with pytest.raises(InputError, match=r"no clip in it; .*fr \(a folder of images, which has no frame rate; "):
        loading.from_folder(tmp_path)


def test_a_folder_of_one_clips_frames_holds_no_clip(tmp_path):
    written(tmp_path / "fr/1.png")
    for look in (
        lambda folder: loading.from_folder(folder, frames=True),
        lambda folder: build(f"clips:{folder}", {"fps": 8}),
    ):
        with pytest.raises(InputError, match=r"it holds images itself; .* the folder above it, which has one"):
            look(tmp_path / "fr")


def test_a_folder_of_hidden_clips_holds_none(tmp_path):
    written(tmp_path / ".trash/a.mp4")
    for look in (loading.from_folder, lambda folder: build(f"clips:{folder}", {})):
        with pytest.raises(InputError, match=r"no clip in it; .*left out of .*: \.trash \(a hidden folder\)"):
            look(tmp_path)
    with pytest.raises(InputError, match="is no model"):
        detect(tmp_path)


def test_hidden_files_are_no_part_of_a_model(tmp_path):
    written(tmp_path / "w.safetensors", b"1")
    before = fingerprint(tmp_path)
    written(tmp_path / ".cache/huggingface/x.json", b"{}")
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize(("on_disk", "asked"), [(NFD, NFC), (NFC, NFD)])
def test_names_are_the_same_in_either_form(tmp_path, on_disk, asked):
    for place in (f"{on_disk}-0.mp4", f"{on_disk}/x.mp4"):
        written(tmp_path / place)
    source = build(f"clips:{tmp_path}", {})
    by_caption = Request(Key("s", "p", 0), Prompt("p", asked), None)
    by_file = Request(Key("s", "p", 0), Prompt("p", "x", tags={"file": f"{asked}/x.mp4"}), None)
    assert [one.clip.name for one in source.generate([by_caption, by_file])] == [f"{on_disk}-0.mp4", "x.mp4"]
    written(tmp_path / "prompts.jsonl", json.dumps({"id": "q", "prompt": "found", "file": f"{asked}/x.mp4"}).encode())
    found = {entry.id: entry for entry in datasets.opened(str(tmp_path)).entries()}
    assert found["q"].path.is_file() and found["q"].video_caption == "found"
    assert datasets.identifier(on_disk) == datasets.identifier(asked)
    assert datasets.identifier("猫") != datasets.identifier("犬"), "one id would stop the whole command"
    folder = tmp_path / "asva"
    written(folder / "test.txt", f"{asked}/a.mp4\n".encode())
    written(folder / "videos" / on_disk / "a.mp4")
    written(folder / "videos" / f"{on_disk}.mp4")
    written(folder / "train.txt", f"{asked}.mp4\n".encode())
    assert all(entry.path.is_file() for entry in datasets.opened(f"avsync15:{folder}").entries())


def test_two_files_of_one_name_are_told_and_a_named_one_is_taken(tmp_path):
    for name in (f"{NFC}-0.mp4", f"{NFD}-0.mp4", "a.mp4", "a.mov"):
        written(tmp_path / name)
    source = build(f"clips:{tmp_path}", {})
    with pytest.raises(InputError, match="several files match"):
        source.generate([Request(Key("s", "p", 0), Prompt("p", NFC), None)])
    (made,) = source.generate([Request(Key("s", "p", 0), Prompt("p", "x", tags={"file": "a.mov"}), None)])
    assert made.clip.name == "a.mov"


def test_sets_are_found_when_converted_and_without_hidden_copies(tmp_path):
    ucf = tmp_path / "ucf"
    written(ucf / "lists/trainlist01.txt", b"YoYo/v_YoYo_g01_c01.avi 1\n")
    written(ucf / ".old/trainlist01.txt", b"YoYo/v_YoYo_g09_c09.avi 1\n")
    written(ucf / "YoYo/v_YoYo_g01_c01.mp4")
    written(ucf / "YoYo/._v_YoYo_g01_c01.mp4")
    (entry,) = datasets.opened(f"ucf101:{ucf}").entries()
    assert entry.path == ucf / "YoYo/v_YoYo_g01_c01.mp4"
    hits = tmp_path / "hits"
    for name in ("2015_denoised.mp4", "._2015_denoised.mp4", "._2015_times.txt"):
        written(hits / name)
    assert [entry.id for entry in datasets.opened(f"greatest-hits:{hits}").entries()] == ["2015"]
    sound = tmp_path / "vggsound"
    written(sound / "vggsound.csv", "\ufeffabc,7,metronome,test\n".encode())  # as Excel writes it
    written(sound / "videos/abc_000007.mov")
    (entry,) = datasets.opened(f"vggsound:{sound}").entries()
    assert entry.id == "abc_000007" and entry.path.is_file()
    written(sound / "again/abc_000007.mp4")
    assert len([*datasets.opened(f"vggsound:{sound}").entries()]) == 1  # a copy
    written(sound / "small/abc_000007.mp4", b"another")
    with pytest.raises(InputError, match=r"small/abc_000007\.mp4 have one name and are not the same clip"):
        [*datasets.opened(f"vggsound:{sound}").entries()]


def test_mov_and_m4v_become_clips(tmp_path):
    write_clip(Clip(np.zeros((2, 16, 16, 3), np.uint8), 8), tmp_path / "x.mp4", lossless=False)
    (tmp_path / "x.mp4").rename(tmp_path / "x.mov")
    assert build(f"clips:{tmp_path}", {}).generate([Request(Key("s", "x", 0), Prompt("x", "c"), None)])


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("café é", "cafe-e"),
        ("cafe\u0301", "cafe"),
        ("x\u0301y", "xy"),
        ("日本 (新)", "日本-新"),
        ("ещё", "ещё"),
        ("हिन्दी", "हिन्दी"),
        ("한국어", "한국어"),
        ("ﬁ１", "fi1"),
        ("a…b", "a-b"),
        ("👍\ufe0f", "clips"),
        ("日" * 100, "日" * 40),
    ],
)
def test_a_runs_name_has_the_letters_of_every_alphabet(folder, name):
    assert run_name(f"clips:out/{folder}") == name == checked_name(name, "the name")


def test_a_name_that_is_no_text_is_set_aside_or_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = Clip(np.zeros((2, 16, 16, 3), np.uint8), 8)
    (tmp_path / "a").mkdir()
    write_clip(picture, tmp_path / "a" / "good.mkv")
    bad = os.fsdecode(b"caf\xe9")
    shutil.copy(tmp_path / "a" / "good.mkv", tmp_path / "a" / f"{bad}.mkv")
    assert [path.name for path in clips_in(tmp_path / "a").clips] == ["good.mkv"]
    assert len(loading.from_folder(tmp_path / "a").prompts) == 1
    assert "its name is not UTF-8; rename it" in clips_in(tmp_path / "a").remark()[0]
    shutil.copytree(tmp_path / "a", tmp_path / bad)
    with pytest.raises(InputError, match="its path is not UTF-8; rename the folder"):
        loading.from_folder(tmp_path / bad)


def test_an_animated_webp_is_told(tmp_path):
    (tmp_path / "deep").mkdir()
    first, *others = (Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue"))
    for path in (tmp_path / "a.webp", tmp_path / "deep" / "1.webp"):
        first.save(path, save_all=True, append_images=others)
    first.save(tmp_path / "still.webp")
    found = clips_in(tmp_path)
    assert not found.frames and [path.name for path, _ in found.left_out] == ["a.webp", "1.webp"]
    assert "a.webp (an animated WebP, which is not read; convert it to mp4 or gif)" in found.remark()[0]
    with pytest.raises(MediaError, match="it is an animated WebP, which is not read"):
        read_clip(tmp_path / "deep", fps=8)
