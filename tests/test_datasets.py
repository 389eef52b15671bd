"""Readers of the field's sets, on small folders of the same layout made here; and sets as subsets and references."""

import json
import shutil
from hashlib import sha256

import pandas as pd
import pytest
from command_line import run_avbench

from avbench.core import InputError
from avbench.metrics.evaluate import chosen_metrics, evaluate
from avbench.storage.content import hash_of
from avbench.storage.runs.folder import RunFolder
from avbench.subsets import datasets, loading
from avbench.subsets.datasets import vggsound
from avbench.subsets.from_dataset import as_subset
from avbench.subsets.lint import lint


def written(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def greatest_hits(folder):
    for name in ("2015-02-16-16-49-06", "2015-03-01-10-00-00"):
        written(folder / f"{name}_denoised.mp4")
    written(
        folder / "2015-02-16-16-49-06_times.txt",
        "0.50 wood hit static\n1.25 None scratch deform\n2.0 metal hit static\n",
    )
    written(folder / "2015-09-09-09-09-09_times.txt", "1.0 wood hit static\n")
    written(folder / "train.txt", "2015-02-16-16-49-06\n2015-09-09-09-09-09\n")
    written(folder / "test.txt", "2015-03-01-10-00-00\n")


def asva(folder):
    written(folder / "class_mapping.json", json.dumps({"dog_barking": "dog barking"}))
    written(folder / "train.txt", "dog_barking/a_1.mp4\n\ndog_barking/b.mp4\n")
    written(folder / "test.txt", "dog_barking/c.mp4,0.5,2.5\ncap_gun/d.mp4\n")
    for name in ("dog_barking/a_1", "dog_barking/c", "cap_gun/d"):
        written(folder / f"videos/{name}.mp4")


def vgg(folder):
    lines = ['---1_cCGK4M,1,"child speech, kid speaking",train', "--0PQM4-hqg,30,waterfall burbling,test"]
    written(folder / "vggsound.csv", "\n".join([*lines, "abc,7,metronome,test"]))
    written(folder / "test" / "--0PQM4-hqg_000030.mp4")


def msr_vtt(folder):
    videos = [{"video_id": f"video{n}", "split": split, "category": n} for n, split in enumerate(("train", "validate"))]
    sentences = [{"video_id": "video0", "caption": text} for text in ("a cat runs", "a cat")]
    written(folder / "train_val_videodatainfo.json", json.dumps({"videos": videos, "sentences": sentences}))
    test = {
        "videos": [{"video_id": "video9", "split": "test"}],
        "sentences": [{"video_id": "video9", "caption": "rain"}],
    }
    written(folder / "test_videodatainfo.json", json.dumps(test))
    written(folder / "TestVideo" / "video9.mp4")


def ucf(folder):
    written(folder / "ucfTrainTestlist" / "trainlist01.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\n")
    written(folder / "ucfTrainTestlist" / "testlist01.txt", "YoYo/v_YoYo_g01_c01.avi\n")
    written(folder / "UCF-101" / "YoYo" / "v_YoYo_g01_c01.avi")


def test_greatest_hits_labels_are_contacts(tmp_path):
    greatest_hits(tmp_path)
    found = {entry.id: entry for entry in datasets.opened(f"greatest-hits:{tmp_path}").entries()}
    one = found["2015-02-16-16-49-06"]
    assert one.contacts_seconds == (0.5, 2.0) and one.split == "train", "a scratch is no contact at a moment"
    assert one.tags == {"materials": ["metal", "wood"], "actions": ["hit", "scratch"]}
    assert found["2015-03-01-10-00-00"].contacts_seconds is None, "nothing is known, which is not 'no contact'"
    pool = datasets.opened(f"greatest-hits:{tmp_path}")
    remarks = " ".join(datasets.remarks(pool, pool.entries()))
    assert "1 of 3 clips are listed but missing: 2015-09-09-09-09-09_denoised.mp4" in remarks
    assert "3 entries were found; greatest-hits should have 977" in remarks
    written(tmp_path / "2015-02-16-16-49-06_times.txt", "0.5 wood hit static\nsoon wood hit\n")
    with pytest.raises(InputError, match=r"06_times.txt, line 2: 'soon wood hit' is not a second"):
        list(datasets.opened(f"greatest-hits:{tmp_path}").entries())


def test_greatest_hits_forms_of_one_clip_are_one_entry(tmp_path):
    small, whole = "2015-02-16-16-49-06", "2015-03-01-10-00-00"
    for name in (
        f"{small}_denoised_thumb",
        f"{small}_mic",
        *(f"{whole}{end}" for end in ("_denoised_thumb", "_denoised")),
    ):
        written(tmp_path / f"{name}.mp4")
    written(tmp_path / f"{small}_times.txt", "0.50 wood hit static\n")
    written(tmp_path / "train.txt", f"{small}_denoised_thumb.mp4\n{whole}\n")
    one, other = datasets.opened(f"greatest-hits:{tmp_path}").entries()
    assert (one.id, one.path.name, one.split) == (small, f"{small}_denoised_thumb.mp4", "train")
    assert one.contacts_seconds == (0.5,) and other.path.name == f"{whole}_denoised.mp4" and other.split == "train"


@pytest.mark.parametrize("name", ["avsync15", "landscape"])
def test_asvas_sets(tmp_path, name):
    asva(tmp_path)
    found = list(datasets.opened(f"{name}:{tmp_path}").entries())
    assert [(one.id, one.split, one.tags["class"]) for one in found] == [
        ("dog_barking-a_1", "train", "dog barking"),
        ("dog_barking-b", "train", "dog barking"),
        ("dog_barking-c-0.5-2.5", "test", "dog barking"),
        ("cap_gun-d", "test", "cap gun"),
    ]
    assert found[2].tags["scene_seconds"] == [0.5, 2.5] and not found[1].path.exists()
    written(tmp_path / "test.txt", "dog_barking/c.mp4\n../../etc/passwd\n")
    with pytest.raises(InputError, match=r"test.txt, line 2: '../../etc/passwd' leads out"):
        list(datasets.opened(f"{name}:{tmp_path}").entries())


def test_vggsound(tmp_path):
    vgg(tmp_path)
    first, second, third = datasets.opened(f"vggsound:{tmp_path}").entries()
    assert first.id == "x---1_cCGK4M_000001" and first.split == "train" and first.tags["av_tight"]
    assert second.path == tmp_path / "test" / "--0PQM4-hqg_000030.mp4" and not second.tags["av_tight"]
    assert third.tags == {"class": "metronome", "av_tight": True, "av_loose": False} and not third.path.exists()
    assert second.tags["av_loose"]
    assert len(vggsound.AV_LOOSE) == 146 and not vggsound.AV_LOOSE & vggsound.AV_TIGHT
    assert len(vggsound.AV_TIGHT) == 37 and "child speech, kid speaking" in vggsound.AV_TIGHT
    for line, why in (
        ("a,1,b\n", "line 1: 3 fields; at least 4 are needed"),
        ("a,x,b,test\n", "'x' is no start in seconds"),
    ):
        written(tmp_path / "vggsound.csv", line)
        with pytest.raises(InputError, match=why):
            list(datasets.opened(f"vggsound:{tmp_path}").entries())


def test_sets_of_prompts(tmp_path):
    full = [{"prompt_en": "a person is running", "dimension": ["human_action"]}, {"prompt_en": "a bus"}]
    written(tmp_path / "VBench_full_info.json", json.dumps(full))
    one, other = datasets.opened(f"vbench:{tmp_path}").entries()
    assert (
        one.path is None and one.video_caption == "a person is running" and one.tags["dimensions"] == ["human_action"]
    )
    assert other.id == "vbench-0001"
    pool = datasets.opened(f"vbench:{tmp_path}")
    counted, changed = datasets.remarks(pool, pool.entries())
    assert "2 entries were found" in counted and "VBench_full_info.json differs from the file of" in changed
    doc = written(tmp_path / "git's own example", "what is up, doc?")
    assert hash_of(doc, "git") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"
    written(tmp_path / "JavisBench-mini.csv", "text,video_text,audio_text,category\nall,a drum,a beat,music\n")
    (drum,) = datasets.opened(f"javisbench-mini:{tmp_path}").entries()
    assert (drum.video_caption, drum.audio_caption, drum.tags["category"]) == ("a drum", "a beat", "music")
    with pytest.raises(InputError, match=r"not laid out as JavisBench: it has no JavisBench.csv"):
        list(datasets.opened(f"javisbench:{tmp_path}").entries())
    written(tmp_path / "JavisBench-mini.csv", "number,colour\n1,red\n")
    with pytest.raises(InputError, match="no column of captions; it has number, colour"):
        list(datasets.opened(f"javisbench-mini:{tmp_path}").entries())


def test_msr_vtt_and_ucf101(tmp_path):
    msr_vtt(tmp_path / "msr")
    found = {one.id: one for one in datasets.opened(f"msr-vtt:{tmp_path}/msr").entries()}
    assert found["video0"].video_caption == "a cat runs" and found["video1"].split == "val"
    assert found["video9"].path.name == "video9.mp4" and found["video9"].path.is_file()
    ucf(tmp_path / "ucf")
    makeup, yoyo = datasets.opened(f"ucf101:{tmp_path}/ucf").entries()
    assert makeup.tags == {"class": "apply eye makeup", "group": "g08"} and makeup.split == "train"
    assert yoyo.path.is_file() and yoyo.split == "test"


def test_a_folder_of_clips_with_some_captions(tmp_path):
    for name in ("one.mp4", "deep/two 2.mp4", "three-0.mp4"):
        written(tmp_path / name)
    lines = [{"id": "a", "prompt": "first", "file": "one.mp4"}, {"id": "three", "prompt": "third"}]
    lines.append({"id": "gone", "prompt": "no clip"})
    written(tmp_path / "prompts.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    found = {one.id: one for one in datasets.opened(str(tmp_path)).entries()}
    assert {name: one.video_caption for name, one in found.items()} == {
        "a": "first",
        "deep-two-2": "",
        "three": "third",
        "gone": "no clip",
    }
    assert not found["gone"].path.exists()
    for model in ("x", "y"):
        written(tmp_path / "both" / model / "same.mp4")
    written(tmp_path / "both" / "prompts.jsonl", json.dumps({"id": "same", "prompt": "of both"}) + "\n")
    both = list(datasets.opened(str(tmp_path / "both")).entries())
    assert [(one.id, one.video_caption) for one in both] == [("x-same", "of both"), ("y-same", "of both")]


def test_a_clip_that_several_lines_describe_is_said(tmp_path):
    for name in ("one.mp4", "two.mp4"):
        written(tmp_path / name)
    lines = [
        {"id": name, "prompt": name, "file": f"{file}.mp4"}
        for name, file in zip("abc", ("one", "two", "one"), strict=True)
    ]
    written(tmp_path / "prompts.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    pool = datasets.opened(str(tmp_path))
    said = "1 clip listed more than once, for example one.mp4 as a and c: each time counts as a clip"
    assert said in as_subset(pool, "m").remarks and len(as_subset(pool, "m").subset.prompts) == 3
    written(tmp_path / "prompts.jsonl", "".join(json.dumps(line) + "\n" for line in lines[:2]))
    assert not any("more than once" in one for one in as_subset(pool, "m").remarks)


def test_a_clip_is_found_however_its_path_is_spelled(tmp_path):
    for name in ("a.mp4", "b.mp4", "deep/c.mp4", "d.mp4"):
        written(tmp_path / "pool" / name)
    written(tmp_path / "t.mp4")
    files = {"a": "./a.mp4", "b": str(tmp_path / "pool" / "b.mp4"), "c": "deep/../deep//c.mp4", "gone": "./gone.mp4"}
    prompts = [{"id": name, "prompt": f"of {name}", "file": file} for name, file in files.items()]
    written(tmp_path / "pool" / "prompts.jsonl", "".join(json.dumps(line) + "\n" for line in prompts))
    pool = datasets.opened(str(tmp_path / "pool"))
    assert {one.id: one.path.is_file() for one in pool.entries()} == dict(a=True, b=True, c=True, d=True, gone=False)
    made = as_subset(pool, "m")
    assert [one.tags["file"] for one in made.subset.prompts] == ["a.mp4", "b.mp4", "d.mp4", "deep/c.mp4"]
    assert "1 of 4 clips have no caption: their names are the captions, for example 'd'; --caption" in made.remarks[-1]
    assert not any("no caption" in sentence for sentence in as_subset(pool, "m", caption="a thing").remarks)
    for file in ("../t.mp4", str(tmp_path / "t.mp4")):
        written(tmp_path / "pool" / "prompts.jsonl", json.dumps({"id": "t", "prompt": "out", "file": file}) + "\n")
        with pytest.raises(InputError, match=r"prompts.jsonl: the file '.*t.mp4' of t leads out of the folder"):
            list(pool.entries())


ROWS = [
    {"file_name": "videos/one.mp4", "text": "a dog", "label": "animal", "split": "train"},
    {"file_name": "videos/deep/two 2.mp4", "text": None, "label": "car", "split": "test"},
    {"file_name": "gone.mp4", "text": "a lake", "label": "water", "split": None},
]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet", "prompts.csv"])
def test_captions_come_from_the_files_that_published_folders_have(tmp_path, name):
    for clip in ("videos/one.mp4", "videos/deep/two 2.mkv", "three.mp4"):
        written(tmp_path / clip)
    rows = [{**row, "text": row["text"] or "a car"} for row in ROWS] if name == "prompts.csv" else ROWS
    frame = pd.DataFrame(rows)
    if name.endswith(".csv"):
        frame.to_csv(tmp_path / name, index=False)
    elif name.endswith(".jsonl"):
        frame.to_json(tmp_path / name, orient="records", lines=True)
    else:
        frame.to_parquet(tmp_path / name)
    pool = datasets.opened(str(tmp_path))
    second = "a car" if name == "prompts.csv" else ""
    assert [(one.id, one.video_caption, one.split, one.tags, one.path.is_file()) for one in pool.entries()] == [
        ("three", "", None, {}, True),
        ("videos-deep-two-2", second, "test", {"label": "car"}, True),
        ("videos-one", "a dog", "train", {"label": "animal"}, True),
        ("gone", "a lake", None, {"label": "water"}, False),
    ]
    assert f"captions and tags are read from {tmp_path / name}" in datasets.remarks(pool, pool.entries())
    if name != "prompts.csv":
        (sentence,) = as_subset(pool, "m").remarks[-1:]
        assert sentence.startswith("2 of 3 clips have no caption") and sentence.endswith("with their tags: {label}")


def test_a_file_beside_the_clips_or_of_other_folders_is_read_where_it_fits(tmp_path):
    for model in ("a", "b"):
        written(tmp_path / "clips" / model / "x.mp4")
    listed = written(tmp_path / "clips" / "prompts.jsonl", '{"id": "x", "prompt": "a dog"}\n')
    assert [one.video_caption for one in datasets.opened(f"{tmp_path}/clips/a").entries()] == ["a dog"]
    listed.write_text('{"id": "q", "prompt": "a cat"}\n')
    assert [one.id for one in datasets.opened(f"{tmp_path}/clips/a").entries()] == ["x"], "no clip is called q"
    listed.unlink()
    written(tmp_path / "clips" / "a" / "metadata.csv", "video,caption\n/data/of/others/x.mp4,a dog\n/data/y.mp4,two\n")
    found = [(one.id, one.video_caption) for one in datasets.opened(f"{tmp_path}/clips/a").entries()]
    assert found == [("x", "a dog"), ("x-data-y", "two")]
    written(tmp_path / "clips" / "a" / "metadata.csv", "place,seconds\nx.mp4,two\n")
    assert [one.id for one in datasets.opened(f"{tmp_path}/clips/a").entries()] == ["x"], "it is about something else"
    written(tmp_path / "clips" / "a" / "metadata.csv", 'file_name,text\nx.mp4,"a dog\n')
    with pytest.raises(InputError, match=r"metadata.csv, line 2: a text in quotes .* correct it, or rename it"):
        list(datasets.opened(f"{tmp_path}/clips/a").entries())


def test_what_is_no_pool_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"unknown reader.*avsync15"):
        datasets.opened(f"avsync:{tmp_path}")
    with pytest.raises(InputError, match="does not exist"):
        datasets.opened(f"avsync15:{tmp_path}/none")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"none: no clip in it; suffixes read: .mp4"):
        as_subset(datasets.opened(f"{tmp_path}/none"), "m")
    clip = written(tmp_path / "x" / "a: the clip.mp4")
    for pool in (str(clip), f"folder:{clip}"):
        with pytest.raises(InputError, match=r"a: the clip.mp4 is a file; give the folder that it lies in"):
            datasets.opened(pool)
    written(tmp_path / "x" / "b: clips" / "one.mp4")
    assert [one.id for one in datasets.opened(str(tmp_path / "x" / "b: clips")).entries()] == ["one"]
    for name in ("a b.mp4", "a-b.mp4"):
        written(tmp_path / "alike" / name)
    with pytest.raises(InputError, match=r"have the id 'a-b': .*a b.mp4 and .*a-b.mp4; rename one"):
        list(datasets.opened(str(tmp_path / "alike")).entries())
    for name in datasets.READERS.keys() - {"folder"}:
        with pytest.raises(InputError, match=r"not laid out as"):
            list(datasets.opened(f"{name}:{tmp_path}").entries())


def test_clips_whose_long_names_differ_at_the_end_are_read(tmp_path):
    for seed in (0, 1):
        written(tmp_path / f"{'a long caption, ' * 9}{seed}.mp4")
    one, two = (entry.id for entry in datasets.opened(str(tmp_path)).entries())
    assert one != two and {len(one), len(two)} == {120}
    assert datasets.identifier("x" * 120) == "x" * 120, "a name that is an id is kept"


def test_the_caption_of_a_clip_without_one_is_its_name_and_not_what_is_left_of_it_in_its_id(tmp_path):
    names = ["a-cat_walks", "cats/One cat's walk, at dawn", "猫が走る", "a long caption, " * 9 + "and its end"]
    for name in names:
        written(tmp_path / f"{name}.mp4")
    subset = as_subset(datasets.opened(str(tmp_path)), "m").subset
    captions = {"a cat walks", "cats One cat's walk, at dawn", *names[2:]}
    assert {prompt.video_caption for prompt in subset.prompts} == captions


def test_a_set_becomes_a_subset_that_lints(tmp_path):
    asva(tmp_path / "set")
    done = run_avbench("subsets", "import", f"avsync15:{tmp_path}/set", "--split", "test", "--out", tmp_path / "mine")
    assert done.exit_code == 0, done.output
    assert "1 of 4 clips are listed but missing: b.mp4" in done.output
    assert "1 file listed by scenes: a clip is read whole, so cut the scenes out first" in done.output
    made = loading.load(str(tmp_path / "mine"))
    assert [(one.id, one.video_caption) for one in made.prompts] == [
        ("dog_barking-c-0.5-2.5", "dog barking"),
        ("cap_gun-d", "cap gun"),
    ]
    assert made.prompts[1].tags["file"] == "videos/cap_gun/d.mp4" and made.card["origin"]["splits"] == ["test"]
    assert lint([str(tmp_path / "mine")])[0] == []
    card = tmp_path / "mine" / "card.toml"
    card.write_text(card.read_text().replace("the set's own terms", "CC-BY-4.0"))
    again = ("subsets", "import", f"avsync15:{tmp_path}/set", "--split", "test", "--out", tmp_path / "mine")
    done = run_avbench(*again, code=2)
    assert "mine holds another card.toml than would be written: other fields of the card: licence. Give" in done.stderr
    run_avbench(*again, "--replace")
    assert "the set's own terms" in card.read_text()
    run_avbench(*again)
    pool = datasets.opened(f"avsync15:{tmp_path}/set")
    whole, kept = ([one.id for one in as_subset(pool, "m", limit=limit).subset.prompts] for limit in (None, 2))
    assert len(whole) == 3 and {*kept} == {*sorted(whole, key=lambda name: sha256(name.encode()).digest())[:2]}
    with pytest.raises(InputError, match=r"cannot be filled, 'colour'"):
        as_subset(pool, "m", caption="{colour} thing")
    for wrong in ("{class.colour} thing", "{class[colour]} thing", "{} thing", "{class thing"):
        with pytest.raises(InputError, match=r"cannot be filled, .*; its tags: class"):
            as_subset(pool, "m", caption=wrong)
    with pytest.raises(InputError, match="no entry of avsync15 is of the split 'val'; splits there: test, train"):
        as_subset(pool, "m", split="val")
    asva(tmp_path / "lists")
    shutil.rmtree(tmp_path / "lists" / "videos")
    with pytest.raises(InputError, match=r"none of 4 entries can be used \(splits there: test, train\)"):
        as_subset(datasets.opened(f"avsync15:{tmp_path}/lists"), "m", split="test")
    run_avbench("subsets", "import", f"avsync15:{tmp_path}/set", "--out", tmp_path / "mixed")
    (finding,) = lint([str(tmp_path / "mixed")])[0]
    assert "mixes training clips with others: test, train" in str(finding)


@pytest.mark.slow
def test_numbers_that_rest_on_training_clips_say_so(tmp_path):
    done = run_avbench(
        "sample", "toyworld:", "--subset", "toy-control", "--limit", 4, "--workers", 0, "--out", tmp_path
    )
    assert done.exit_code == 0, done.output
    made = sorted((tmp_path / "toyworld" / "clips" / "toy-control").glob("*.mkv"))
    for split, clips in (("train", made[:2]), ("test", made[2:])):
        names = [f"pendulum/{path.name}" for path in clips]
        written(tmp_path / "set" / f"{split}.txt", "\n".join(names))
        for path, name in zip(clips, names, strict=True):
            (tmp_path / "set" / "videos" / "pendulum").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "set" / "videos" / name)
        run_avbench("subsets", "import", f"avsync15:{tmp_path}/set", "--split", split, "--out", tmp_path / split)
    clips = f"clips:{tmp_path}/set"
    build = ["reference", "build", tmp_path / "train", "--model", clips, "--metric", "fvd", "--metric", "kvd"]
    done = run_avbench(*build, "--workers", 0, "--work", tmp_path / "work", "--out", tmp_path / "refs")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "refs" / "train" / "card.json").read_text())["splits"] == {"train": 2}
    run = ["run", clips, "--subset", tmp_path / "test", "--metric", "kvd", "--metric", "onset_rate"]
    done = run_avbench(*run, "--reference", tmp_path / "refs" / "train", "--workers", 0, "--out", tmp_path / "runs")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "runs" / "table.md").read_text()
    assert "the reference holds clips of 2 training prompts of its data set" in text
    (run,) = (path.parent for path in (tmp_path / "runs").glob("*/run.json"))
    scores = {one.metric: one for one in evaluate(RunFolder(run), chosen_metrics(["onset_rate"]))}
    assert scores["onset_rate"].hygiene is None, "it is held against nothing"
