"""References are remade to the same bytes, are what the code makes, and are refused where they do not fit."""

import dataclasses
import json
import re
import shlex
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import run_avbench

from avbench.core import Clip, InputError, Key, Moments, NotMeasurable, Prompt, Row, Run, Sample, Subset, digest
from avbench.features.audio.onsets import Onsets
from avbench.features.flow import DISFlow
from avbench.features.table import feature_class
from avbench.generation.providers.toyworld import ToyWorld
from avbench.generation.sample import sample
from avbench.generation.table import Request
from avbench.metrics import reference, reference_building
from avbench.metrics.evaluate import chosen_metrics, features_of
from avbench.storage import shipped
from avbench.storage.media import write_clip
from avbench.storage.media.form import Form
from avbench.storage.runs.folder import RunFolder
from avbench.subsets import loading

HOME = "reference_stats"
FEATURES = features_of(chosen_metrics(None))


@pytest.fixture(scope="module")
def small_subset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subset") / "small"
    folder.mkdir()
    whole = shipped.folder("subsets") / "toy-object-contact"
    (folder / "prompts.jsonl").write_text("".join((whole / "prompts.jsonl").read_text().splitlines(True)[:2]))
    (folder / "card.toml").write_text((whole / "card.toml").read_text().replace("toy-object-contact", "small", 1))
    return folder


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes(small_subset, tmp_path):
    for attempt in ("one", "two"):
        options = ["--seeds", 2, "--workers", 0, "--work", tmp_path / f"work-{attempt}", "--out", tmp_path / attempt]
        run_avbench("reference", "build", small_subset, *options)
    for name in ("columns.safetensors", "clips.csv", "card.json"):
        assert (tmp_path / "one/small" / name).read_bytes() == (tmp_path / "two/small" / name).read_bytes()
    built = reference.load(tmp_path / "one/small")
    assert built.card["clips"] == dict.fromkeys(FEATURES, 4)
    one_prompt = loading.load(str(small_subset)).limited(1)
    assert len(built.columns(Onsets.protocol, one_prompt)[0]["onset_rate"]) == 2
    (tmp_path / "one/small/clips.csv").write_text("prompt,seed\n")
    with pytest.raises(InputError, match=r"clips\.csv is missing or not the file that its card describes"):
        reference.load(tmp_path / "one/small")


@pytest.mark.slow
@pytest.mark.parametrize("name", loading.TOY_SUBSETS)
def test_shipped_references_are_what_the_code_makes(name):
    subset = loading.load(name)
    known = reference.find(subset)
    assert set(known.values) == set(FEATURES)
    clips = pd.read_csv(shipped.folder(HOME) / name / "clips.csv")
    assert len(clips) == 4 * len(subset.prompts)
    prompts = {prompt.id: prompt for prompt in subset.prompts}
    for index in (0, 200):
        prompt, seed = clips.loc[index, ["prompt", "seed"]]
        request = Request(Key(name, prompt, int(seed)), prompts[prompt], subset.clip_spec)
        (made,) = ToyWorld("").generate([request])
        for feature in FEATURES:
            columns, _ = known.columns(feature_class(feature).protocol, subset)
            again = feature_class(feature)()(made.clip)
            assert {*columns} & {*again}, feature
            for value in {*columns} & {*again}:
                near = 1e-3 * np.abs(columns[value]).max()
                np.testing.assert_allclose(columns[value][index], again[value], rtol=1e-3, atol=near, err_msg=value)


def test_another_reference_is_not_written_over(shard, tmp_path):
    places = [shard("a", range(2)), shard("b", range(2, 4)), shard("c", range(4, 6))]
    merged = ("reference", "merge", "--out", tmp_path / "merged")
    done = run_avbench(*merged, *places[:2]).stdout
    assert run_avbench(*merged, *reversed(places[:2])).stdout == done, "the same reference is no other"
    before = {path.name: path.read_bytes() for path in (tmp_path / "merged").iterdir()}
    said = run_avbench(*merged, *places, code=2).stderr
    assert said == (
        f"avbench: {tmp_path}/merged holds another reference than would be written: they differ in clips, shards and "
        "the numbers. Give another out (--out), or replace=True (--replace) to write over what is there\n"
    )
    assert {path.name: path.read_bytes() for path in (tmp_path / "merged").iterdir()} == before
    run_avbench(*merged, *places, "--replace")
    assert len(reference.load(tmp_path / "merged").clips) == 6 * len(SMALL.prompts)
    (tmp_path / "merged" / "card.json").unlink()  # as a kill leaves a folder whose reference is not whole
    run_avbench(*merged, *places[:2])
    assert len(reference.load(tmp_path / "merged").clips) == 4 * len(SMALL.prompts)


def test_a_build_does_not_write_over_another_reference(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("real").mkdir()
    for number in range(3):
        write_clip(ToyWorld("").generate([request_of(number)])[0].clip, Path(f"real/{number}.mkv"))
    build = ("reference", "build", "real", "--out", "refs", "--workers", 0)
    done = run_avbench(*build, "--metric", "onset_rate").stdout
    assert run_avbench(*build, "--metric", "onset_rate").stdout == done
    said = run_avbench(*build, "--metric", "onset_rate", "--licence", "CC0", code=2).stderr
    assert "refs/real holds another reference than would be written: they differ in licence. Give" in said
    said = run_avbench(*build, "--metric", "onset_rate,loudness", code=2).stderr
    assert "they differ in clips, the numbers and protocols. Give another out (--out), or replace=True (--repl" in said
    assert {*reference.load(Path("refs/real")).values} == {"onsets"}
    run_avbench(*build, "--metric", "onset_rate,loudness", "--replace")
    assert {*reference.load(Path("refs/real")).values} == {"onsets", "levels"}


def request_of(seed):
    subset = loading.load("toy-control")
    return Request(Key(subset.name, subset.prompts[0].id, seed), subset.prompts[0], subset.clip_spec)


def test_unlike_references_are_refused():
    subset = loading.load("toy-control")
    known = reference.find(subset)
    other = dataclasses.replace(Onsets.protocol, threshold=9.0)
    with pytest.raises(InputError, match=r"threshold: 9\.0 against 2\.5; build the reference again, or give the f"):
        known.columns(other, subset)
    with pytest.raises(InputError, match="another version of that subset"):
        known.columns(Onsets.protocol, dataclasses.replace(subset, version=2))
    with pytest.raises(InputError, match="has no nothing"):
        known.columns(dataclasses.replace(Onsets.protocol, name="nothing"), subset)


SOUND_AND_PICTURE = (Onsets.protocol, DISFlow.protocol)
PROTOCOL = Onsets.protocol  # any protocol will do: the rows below are numbers
SMALL = dataclasses.replace(loading.load("toy-control").limited(5), cut_from=None)


@pytest.fixture
def shard(tmp_path):
    """Writes a reference of made-up rows under given seeds, as a measured run would give it."""

    def make(name, seeds, *, rows=reference_building.ROWS, twist=0.0, subset=None):
        folder = RunFolder(tmp_path / "runs" / name)
        subset = subset or SMALL
        folder.start(Run(name, "clips:real", {}, {subset.name: subset.digest}, tuple(seeds), {}, {}), [subset])
        for prompt in subset.prompts:
            for seed in seeds:
                key = Key(subset.name, prompt.id, seed)
                numbers = np.random.default_rng([seed, int(digest(list(key))[:8], 16)]).standard_normal(6) * 3 + 100
                sha256 = digest([*key, twist])
                folder.add_sample(Sample(key, f"{prompt.id}-{seed}.mkv", sha256, 0.0))
                values = {"embedding": numbers + twist, "rate": float(seed)}
                folder.add_row(PROTOCOL, Row(key, sha256, values))
        reference_building.pack(folder, subset, [PROTOCOL], tmp_path / name, "CC0", rows=rows)
        return tmp_path / name

    return make


def known(place):
    """Rows and moments of a folder."""
    loaded = reference.load(place)
    return loaded, loaded.columns(PROTOCOL, SMALL)[0], loaded.moments(PROTOCOL, "embedding", SMALL)


def test_a_large_reference_keeps_moments_of_all_and_rows_of_some(shard):
    _, whole, none = known(shard("whole", range(40)))
    assert none is None and len(whole["embedding"]) == 200
    loaded, some, moments = known(shard("bounded", range(40), rows=50))
    assert len(some["embedding"]) == 50 and moments.n == 200
    right = Moments.of(whole["embedding"])
    np.testing.assert_allclose(moments.mean, right.mean, rtol=1e-6)  # the kept rows are float32
    np.testing.assert_allclose(moments.scatter, right.scatter, atol=1e-5 * np.abs(right.scatter).max())
    assert loaded.card["clips"] == {"onsets": 200}
    assert sorted(loaded.clips["onsets"].value_counts().to_dict().items()) == [(1, 50), (2, 150)]
    assert {tuple(row) for row in some["embedding"]} <= {tuple(row) for row in whole["embedding"]}
    assert loaded.moments(PROTOCOL, "embedding", SMALL.limited(2)) is None, "of two of its prompts only rows are known"
    with pytest.raises(InputError, match=r"threshold: 9\.0 against 2\.5"):
        loaded.moments(dataclasses.replace(PROTOCOL, threshold=9.0), "embedding", SMALL)


def test_of_a_part_of_its_subset_a_reference_gives_the_rows(shard):
    loaded, whole, _ = known(shard("a", range(4)))
    part = SMALL.limited(2)
    columns, prompts = loaded.columns(PROTOCOL, part)
    inside = [key.prompt in [prompt.id for prompt in part.prompts] for key in loaded.keys(PROTOCOL, SMALL)]
    assert sum(inside) == 2 * 4 and columns["embedding"].dtype == np.float64, "networks give float32"
    np.testing.assert_array_equal(columns["embedding"], whole["embedding"][inside])
    assert [*prompts] == [key.prompt for key in loaded.keys(PROTOCOL, part)]


def test_the_first_clips_of_shards_are_all_known(shard):
    loaded = reference.load(shard("a", range(2)))
    one, other, third = (Form(8, 6, frames, Fraction(24), None) for frames in (1, 2, 3))
    plain = [{**dataclasses.asdict(form), "rate": "24"} for form in (one, other, third)]
    shards = [{"first_clips": plain[1:2]}, {"first_clips": plain[2:]}]
    card = {**loaded.card, "first_clips": plain[:1], "shards": shards}
    assert dataclasses.replace(loaded, card=card).first_clips == [one, other, third]


def test_files_that_are_not_those_of_the_card_are_refused(shard):
    place = shard("a", range(2))
    card, path = json.loads((place / "card.json").read_text()), place / "card.json"
    for sha256 in (
        {name: one for name, one in card["sha256"].items() if name != "clips.csv"},
        {**card["sha256"], "other.bin": "0" * 64},
    ):
        path.write_text(json.dumps({**card, "sha256": sha256}))
        with pytest.raises(InputError, match=f"sha256 names {', '.join(sorted(sha256))}; the files of a reference are"):
            reference.load(place)
    path.write_text(json.dumps(card))
    rows = (place / "clips.csv").read_text()
    (place / "clips.csv").write_text(rows.replace(",1\n", ",0\n", 1))
    with pytest.raises(InputError, match=r"clips\.csv is missing or not the file that its card describes"):
        reference.load(place)


@pytest.mark.parametrize("rows", [1000, 30])
def test_shards_merge_to_one_pass_in_any_order(shard, tmp_path, rows):
    parts = [shard(f"part-{k}", range(10 * k, 10 * k + 10), rows=rows) for k in range(4)]
    _, right, moments = known(shard("one-pass", range(40), rows=rows))
    assert (moments is None) == (rows == 1000), "moments stand for rows that are not kept"
    written = set()
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]):
        place = tmp_path / "merged"
        written.add(reference_building.merge([parts[k] for k in order], place, rows=rows))
        loaded, merged, merged_moments = known(place)
        assert np.array_equal(merged["embedding"], right["embedding"]), "rows are those of one pass, exactly"
        assert np.array_equal(merged["rate"], right["rate"])
        if moments is not None:
            assert merged_moments.n == moments.n == 200
            np.testing.assert_allclose(merged_moments.mean, moments.mean, rtol=1e-12)
            scale = np.abs(moments.scatter).max()
            np.testing.assert_allclose(merged_moments.scatter, moments.scatter, rtol=1e-12, atol=1e-12 * scale)
        assert len(loaded.card["shards"]) == 4
    assert len(written) == 1


def test_a_clip_that_two_shards_hold_is_counted_once(shard, tmp_path, monkeypatch):
    reference_building.merge([shard("a", range(4)), shard("b", range(2, 6))], tmp_path / "merged")
    card = (tmp_path / "merged/card.json").read_bytes()
    monkeypatch.chdir(tmp_path)
    run_avbench(*shlex.split(json.loads(card)["command"])[1:])
    assert (tmp_path / "merged/card.json").read_bytes() == card
    _, merged, _ = known(tmp_path / "merged")
    assert len(merged["embedding"]) == 30
    reference_building.merge([shard("c", range(3), rows=4), shard("d", range(3, 6))], tmp_path / "parts")
    assert known(tmp_path / "parts")[2].n == 30
    with pytest.raises(InputError, match="10 clips are in several shards with moments"):
        reference_building.merge([shard("c", range(3), rows=4), shard("e", range(1, 6))], tmp_path / "merged")
    with pytest.raises(InputError, match="different clips with one key"):
        reference_building.merge([shard("f", range(4)), shard("g", range(4), twist=1.0)], tmp_path / "merged")


def test_moments_of_a_shard_that_keeps_no_row_of_a_feature_are_merged(shard, silent, tmp_path):
    places = [shard("a", range(3), rows=4), shard("b", range(3, 6), rows=4)]
    loaded = reference.load(places[0])
    none = loaded.clips.assign(onsets=loaded.clips["onsets"].replace(1, 2))  # its rows are of other clips
    reference_building.write(places[0], loaded.card, {}, loaded.known_moments, none, loaded.protocols, replace=True)
    reference_building.merge(places, tmp_path / "merged", rows=4)
    assert known(tmp_path / "merged")[2].n == 30


def test_imported_references_cannot_be_merged(shard, tmp_path):
    loaded = reference.load(shard("a", range(3), rows=4))
    card = {**loaded.card, "subset_digest": None}
    for name in ("x", "y"):
        empty = loaded.clips.iloc[:0]
        reference_building.write(tmp_path / name, card, {}, loaded.known_moments, empty, loaded.protocols)
    with pytest.raises(InputError, match="was imported: it does not list its clips, so it cannot be merged"):
        reference_building.merge([tmp_path / "x", tmp_path / "y"], tmp_path / "merged")


@pytest.fixture
def silent(tmp_path):
    """Writes a reference of clips of which those under some seeds have sound."""

    def make(name, seeds, heard=()):
        folder, (onsets, flow) = RunFolder(tmp_path / "runs" / name), SOUND_AND_PICTURE
        folder.start(Run(name, "clips:real", {}, {SMALL.name: SMALL.digest}, tuple(seeds), {}, {}), [SMALL])
        for prompt in SMALL.prompts:
            for seed in seeds:
                key = Key(SMALL.name, prompt.id, seed)
                folder.add_sample(Sample(key, f"{prompt.id}-{seed}.mkv", digest([*key]), 0.0))
                folder.add_row(flow, Row(key, digest([*key]), {"amount": float(seed)}))
                sound = {"onset_rate": float(seed)} if seed in heard else None
                folder.add_row(onsets, Row(key, digest([*key]), sound, None if sound else "the clip has no sound"))
        reference_building.pack(folder, SMALL, [onsets, flow], tmp_path / name, "CC0")
        return tmp_path / name

    return make


def test_what_no_clip_has_is_left_out_and_said(silent, tmp_path):
    onsets, flow = SOUND_AND_PICTURE
    loaded = reference.load(silent("silent", range(4)))
    assert loaded.card["left_out"] == {onsets.name: "the clip has no sound (20 of 20 clips)"}
    assert loaded.card["clips"] == {onsets.name: 0, flow.name: 20} and set(loaded.values) == {flow.name}
    assert len(loaded.columns(flow, SMALL)[0]["amount"]) == 20
    with pytest.raises(NotMeasurable, match=r"of toy-control has no onsets: the clip has no sound \(20 of 20 clips\)"):
        loaded.columns(onsets, SMALL)
    reference_building.merge([tmp_path / "silent", silent("heard", range(4, 6), heard=[5])], tmp_path / "merged")
    merged = reference.load(tmp_path / "merged")
    assert merged.card["clips"] == {onsets.name: 5, flow.name: 30} and "left_out" not in merged.card
    assert merged.columns(onsets, SMALL)[0]["onset_rate"].tolist() == [5.0] * 5
    reference_building.merge([tmp_path / "silent", silent("too", range(4, 6))], tmp_path / "unheard")
    assert set(reference.load(tmp_path / "unheard").card["left_out"]) == {onsets.name}


def test_a_reference_of_nothing_is_none(silent, tmp_path):
    folder = RunFolder(tmp_path / "runs/silent")
    silent("silent", range(2))
    with pytest.raises(InputError, match="no feature of toy-control can be a reference: the clip has no sound"):
        reference_building.pack(folder, SMALL, [SOUND_AND_PICTURE[0]], tmp_path / "none", "CC0")
    unmeasured = dataclasses.replace(PROTOCOL, threshold=9.0)
    with pytest.raises(InputError, match="has a row of onsets; measure the run first"):
        reference_building.pack(folder, SMALL, [unmeasured], tmp_path / "none", "CC0")
    assert not (tmp_path / "none").exists()


def test_the_command_builds_a_reference_of_silent_clips_and_stops_early_at_a_broken_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    for number in range(3):
        frames = np.random.default_rng(number).integers(0, 256, (8, 64, 64, 3), np.uint8)
        write_clip(Clip(frames, 8), tmp_path / f"real/c{number}.mkv")
    words = ["reference", "build", tmp_path / "real", "--out", "refs", "--work", "w", "--workers", "0"]
    words += ["--metric", "onset_rate", "--metric", "motion_amount"]
    done = run_avbench(*words, code=None)
    assert done.exit_code == 0, done.output
    assert "note: onsets is not in the reference: the clip has no sound (3 of 3 clips)" in done.output
    card = reference.load(tmp_path / "refs/real").card
    assert card["clips"] == {"flow-dis": 3, "onsets": 0}
    assert str(tmp_path) not in json.dumps(card) and card["settings"]["folder"] == "real"
    whole = (tmp_path / "real/c1.mkv").read_bytes()
    (tmp_path / "real/c1.mkv").write_bytes(whole[:500])
    done = run_avbench(*words, "--replace", code=None)
    assert done.exit_code == 2 and "1 clip could not be made, for example c1 (" in done.output
    (tmp_path / "real/c1.mkv").write_bytes(whole)
    assert run_avbench(*words, code=None).exit_code == 0


@pytest.mark.parametrize(
    ("words", "option", "said"),
    [(("reference", "build"), "--work", "--work"), (("score",), "--out", "out (--out)")],
    ids=["reference", "score"],
)
def test_an_error_about_the_run_folder_names_the_option_that_decides_it(tmp_path, monkeypatch, words, option, said):
    monkeypatch.chdir(tmp_path)
    for folder, lighter in (("real", 0), ("other/real", 9)):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(2):
            write_clip(grey(number + lighter), tmp_path / folder / f"c{number}.mkv")
    how = ("--metric", "motion_amount", "--workers", 0, option, "w")
    run_avbench(*words, "real", *how)
    with RunFolder(tmp_path / "w/real").writing():
        locked = run_avbench(*words, "real", *how, code=2).stderr
    assert locked == f"avbench: w/real is being written by another avbench; wait for it, or give another {said}\n"
    another = run_avbench(*words, "other/real", *how, code=2).stderr
    assert f"Ask for the run that it holds, or give another {said}, or give replace=True (--replace) to" in another
    (copy,) = (tmp_path / "w/real/clips").glob("*/c1-0.mkv")
    write_clip(grey(7), copy)
    assert f"or give another {said}\n" in run_avbench(*words, "real", *how, code=2).stderr


def grey(level):
    return Clip(np.full((8, 64, 64, 3), 100 + level, np.uint8), 8)


def test_unlike_shards_are_not_merged(shard, tmp_path):
    other = loading.load("toy-large-motion").limited(5)
    with pytest.raises(InputError, match="different subsets"):
        reference_building.merge([shard("a", range(4)), shard("b", range(4, 6), subset=other)], tmp_path / "merged")
    place = shard("c", range(4, 6))
    card = json.loads((place / "card.json").read_text())
    card["protocols"]["onsets"]["threshold"] = 9.0
    (place / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"shards .*/a and .*/c were .*: onsets\.threshold: 2\.5 against 9\.0"):
        reference_building.merge([shard("a", range(4)), place], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"card": {"splits": None}}, r"card\.json: splits is None; it must be an object"),
        ({"card": {"left_out": ["onsets"]}}, r"card\.json: left_out is \['onsets'\]; it must be an object"),
        ({"card": {"left_out": {"onsets": 3}}}, r"card\.json: left_out\.onsets is 3; it must be a text"),
        ({"clips": {"seed": "9" * 19}}, r"clips\.csv, line 2: seed is '9{19}'; it must be a whole number below 10¹⁸"),
        ({"clips": {"onsets": 3}}, r"clips\.csv, line 2: onsets is '3'; it must be 0, 1 or 2"),
        ({"rows": np.zeros((5, 6))}, r"onsets/embedding has the shape \[5, 6\], and clips\.csv has 4 clips with rows"),
        ({"rows": np.full((4, 6), np.inf)}, r"columns\.safetensors: onsets/embedding holds NaN or infinity"),
        ({"moments": {"n": np.nan}}, r"moments\.safetensors: onsets/embedding holds NaN or infinity"),
        ({"moments": {"n": 0}}, r"\[\[1\], \[6\], \[6, 6\]\], which are no moments"),
        ({"moments": {"scatter": np.zeros((6, 5))}}, r"\[\[1\], \[6\], \[6, 5\]\], which are no moments"),
        ({"moments": {"scatter": np.full((6, 6), np.inf)}}, "onsets/embedding holds NaN or infinity"),
        ({"unknown": "other"}, "'other' has values, but no protocol in the card"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_field_that_cannot_be_is_said_when_a_reference_is_read(shard, tmp_path, changed, words):
    good = reference.load(shard("a", range(4), rows=4))
    clips, (onsets,) = good.clips, good.known_moments.values()
    for name, value in changed.get("clips", {}).items():
        clips = clips.assign(**{name: [value, *clips[name][1:]]})
    values = {"onsets": {**good.values["onsets"], "embedding": changed.get("rows", good.values["onsets"]["embedding"])}}
    onsets = {name: dataclasses.replace(one, **changed.get("moments", {})) for name, one in onsets.items()}
    moments = dict.fromkeys(("onsets", *([changed["unknown"]] if "unknown" in changed else [])), onsets)
    card = {**good.card, **changed.get("card", {})}
    reference_building.write(tmp_path / "changed", card, values, moments, clips, good.protocols)
    with pytest.raises(InputError, match=words):
        reference.load(tmp_path / "changed")


def test_columns_of_a_reference_are_read_only(shard):
    _, columns, _ = known(shard("a", range(4)))
    with pytest.raises(ValueError, match="read-only"):
        columns["embedding"][:] = 0


def test_a_reference_of_the_users_own_is_found_and_may_be_of_other_prompts(shard, tmp_path):
    subset = loading.load("toy-object-contact").limited(3)
    place = shard("toy-control", range(4))
    with pytest.raises(InputError, match="holds no reference"):
        reference.find(subset, tmp_path / "runs")
    assert reference.find(loading.load("toy-control"), tmp_path).subset == "toy-control", "by the subset's name"
    both = shutil.copytree(place, shard("both", range(2)) / "toy-control")
    found = reference.find(loading.load("toy-control"), both.parent)
    assert len(found.clips) == 20, "its own stands before the folder's"
    found = reference.find(subset, place)
    columns, prompts = found.columns(PROTOCOL, subset)
    assert len(columns["embedding"]) == len(prompts) == 20, "other prompts: all of it"
    keys = found.keys(PROTOCOL, subset)
    assert keys[0] == Key("toy-control", prompts[0], 0) and len(keys) == 20
    with pytest.raises(InputError, match="another version of that subset"):
        reference.load(place).columns(PROTOCOL, subset)


def test_a_folder_of_references_may_lack_some_of_a_runs_subsets_and_not_all(shard, tmp_path, monkeypatch):
    shard("refs", range(4)).rename(tmp_path / "toy-control")
    (tmp_path / "mine").mkdir()
    (tmp_path / "toy-control").rename(tmp_path / "mine" / "toy-control")
    subsets = [loading.load(name).limited(1) for name in ("toy-object-contact", "toy-control")]
    found = reference.find_all(subsets, tmp_path / "mine")
    assert [*found] == ["toy-object-contact", "toy-control"]
    assert found["toy-object-contact"] is None and found["toy-control"].chosen
    assert {one.subset for one in reference.find_all(subsets).values()} == {*found}, "the shipped ones"
    monkeypatch.chdir(tmp_path)
    asked = ("run", "toyworld:", "--limit", 1, "--reference", "mine", "--metric", "onset_rate", "--workers", 0)
    done = run_avbench(*asked, "--subset", "toy-object-contact", "--out", "none", code=2)
    assert "mine holds no reference: it has no card.json, nor a folder toy-object-contact with one" in done.stderr
    assert "Other references lie in it (mine/toy-control): give one, or move" in done.stderr
    assert not (tmp_path / "none").exists(), "that is said before clips are made"
    run_avbench(*asked, "--subset", "toy-object-contact", "--subset", "toy-control", "--out", "both")
    without, held = RunFolder(tmp_path / "both" / "toyworld").scores()
    assert without.subset == "toy-object-contact" and without.value is not None and without.reference is None
    assert held.subset == "toy-control" and "choices: embedding, rate" in held.missing, "those of the reference"


def test_clips_that_run_and_reference_share_are_named(shard):
    found = reference.load(shard("a", range(4)))
    first = found.clips.iloc[0]
    key = Key("toy-control", first["prompt"], 7)
    samples = [Sample(key, "x.mkv", first["clip_sha256"], 0.0), Sample(key, "y.mkv", "f" * 64, 0.0)]
    assert found.shared(samples) == [key]


def test_a_folder_of_clips_becomes_a_reference(tmp_path, monkeypatch):
    made = tmp_path / "made"
    subset = ["--subset", "toy-object-contact", "--limit", "3"]
    for command in (
        ["sample", "toyworld:", *subset, "--out", made],
        ["reference", "build", made / "toyworld/clips", "--name", "mine", "--metric", "onset_rate", "--licence",
         "CC BY 4.0", "--rows", 2, "--work", tmp_path / "work", "--out", tmp_path],
        ["run", "toyworld:noisy", *subset, "--metric", "onset_rate", "--reference", tmp_path / "mine", "--out", made],
    ):  # fmt: skip
        run_avbench(*command, "--workers", 0)
    built = reference.load(tmp_path / "mine")
    assert built.card["clips"] == {"onsets": 3} and built.card["licence"] == "CC BY 4.0"
    monkeypatch.chdir(made / "toyworld")
    again = shlex.split(built.card["command"])[1:]
    run_avbench(*again, "--work", tmp_path / "work-again", "--out", tmp_path / "again", "--workers", 0)
    for file in ("card.json", "columns.safetensors"):
        assert (tmp_path / "again/mine" / file).read_bytes() == (tmp_path / "mine" / file).read_bytes()
    assert sorted(built.clips["prompt"])[0].startswith("toy-object-contact-")
    (score,) = RunFolder(made / "toyworld-noisy").scores()
    assert score.reference == pytest.approx(built.values["onsets"]["onset_rate"].mean())


def test_names_of_files_become_ids(tmp_path):
    for name in ("a b.mp4", "c/d é.mp4", ".hidden.mp4", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    subset = loading.from_folder(tmp_path, "mine")
    first, second = (prompt.id for prompt in subset.prompts)
    assert first == "a-b" and re.fullmatch("c-d-[0-9a-f]{8}", second)
    for name in ("日本.mp4", "中国.mp4", "ü1.mp4", "ö1.mp4", f"{'ü' * 20}{'x' * 150}.mp4"):
        (tmp_path / name).touch()
    ids = [prompt.id for prompt in loading.from_folder(tmp_path, "mine").prompts]
    assert len({*ids}) == 7 and max(map(len, ids)) == 120, (
        "names that differ in other letters only have ids of their own"
    )
    (tmp_path / "v1.5_x-.mp4").touch()
    assert "v1.5_x-" in {prompt.id for prompt in loading.from_folder(tmp_path, "mine").prompts}, (
        "a name that can be an id is kept, so that a reference has the ids of a prompts file"
    )
    for scene in ("dawn", "dusk"):
        (tmp_path / f"{scene}, {'a long caption, ' * 9}0.mp4").touch()
    assert len(loading.from_folder(tmp_path, "mine").prompts) == 10, "names that are cut differ where they were cut"
    (tmp_path / "a-b.mp4").touch()
    with pytest.raises(InputError, match="would both have the id 'a-b'"):
        loading.from_folder(tmp_path)
    with pytest.raises(InputError, match="no clip in it"):
        loading.from_folder(shipped.folder(HOME))


def test_values_of_varying_length_are_not_kept(tmp_path):
    """Times of events: none in any clip, as many in each, or unlike."""
    subset = loading.load("toy-control").limited(4)
    folder = RunFolder(tmp_path / "run")
    list(sample(folder, "toyworld:", {}, [subset], [0])[1])
    protocol = Onsets.protocol
    for index, one in enumerate(sorted(folder.samples().values(), key=lambda each: each.key)):
        values = {"level": float(index), "none": np.zeros(0), "unlike": np.zeros(index), "vector": np.ones(3)}
        folder.add_row(protocol, Row(one.key, one.sha256, values))
    reference_building.pack(folder, subset, [protocol], tmp_path / "refs" / subset.name, licence="none")
    known = reference.find(subset, tmp_path / "refs" / subset.name)
    assert set(known.values[protocol.name]) == {"level", "vector"}


@pytest.mark.parametrize("rows", [100, 2])
def test_values_of_varying_length_are_left_out_of_merged_shards(tmp_path, rows):
    """In one shard every clip has two events, in the other three, or unlike numbers. One pass has no such value."""
    subset, protocol = loading.load("toy-control").limited(4), Onsets.protocol

    def packed(name, seeds):
        folder = RunFolder(tmp_path / "runs" / name)
        folder.start(Run(name, "clips:real", {}, {subset.name: subset.digest}, seeds, {}, {}), [subset])
        for index, prompt in enumerate(subset.prompts):
            for seed in seeds:
                key = Key(subset.name, prompt.id, seed)
                values = {"level": float(seed), "times": np.arange(2.0 + seed), "vector": np.ones(3) * index}
                values |= {"pairs": np.ones((2 + seed, 2)), "unlike": np.ones(2 + seed * index)}
                folder.add_sample(Sample(key, f"{prompt.id}-{seed}.mkv", digest([*key]), 0.0))
                folder.add_row(protocol, Row(key, digest([*key]), values))
        reference_building.pack(folder, subset, [protocol], tmp_path / name, "CC0", rows=rows)
        return tmp_path / name

    one, other, whole = packed("one", (0,)), packed("other", (1,)), reference.load(packed("whole", (0, 1)))
    for number, order in enumerate([(one, other), (other, one)]):
        reference_building.merge(order, tmp_path / str(number), rows=rows)
        merged = reference.load(tmp_path / str(number))
        assert {*merged.values[protocol.name]} == {*whole.values[protocol.name]} == {"level", "vector"}
        assert {name: {*of} for name, of in merged.known_moments.items()} == (
            {name: {*of} for name, of in whole.known_moments.items()}
        )
        assert bool(merged.known_moments) == (rows == 2)


def test_a_feature_that_some_clips_lack_is_said_with_the_reason(tmp_path):
    folder, subset = RunFolder(tmp_path / "run"), loading.load("toy-control").limited(3)
    folder.start(Run("run", "clips:real", {}, {subset.name: subset.digest}, (0,), {}, {}), [subset])
    for index, prompt in enumerate(subset.prompts):
        key = Key(subset.name, prompt.id, 0)
        folder.add_sample(Sample(key, f"{prompt.id}-0.mkv", digest([*key]), 0.0))
        heard = {"values": None, "missing": "the clip has no sound"} if index else {"values": {"embedding": np.ones(6)}}
        folder.add_row(PROTOCOL, Row(key, digest([*key]), **heard))
    reference_building.pack(folder, subset, [PROTOCOL], tmp_path / "real")
    built = reference.load(tmp_path / "real")
    assert built.card["clips"] == {"onsets": 1} and "left_out" not in built.card
    assert "2 of 3 clips of the reference have no onsets: the clip has no sound" in reference.remarks(built)


def test_no_licence_is_claimed_for_clips_that_are_not_ours(silent, tmp_path):
    """A user's clips have the licence that the user states; nothing else is put on their card."""
    folder = RunFolder(silent("mine", range(4)).parent / "runs" / "mine")
    reference_building.pack(folder, SMALL, [SOUND_AND_PICTURE[1]], tmp_path / "unstated")
    card = reference.load(tmp_path / "unstated").card
    assert card["licence"] == "not stated"
    assert reference.load(tmp_path / "mine").card["licence"] == "CC0"


def test_clips_of_a_training_split_are_counted(shard):
    tags = ({"split": "train"}, {"split": "test"}, {"split": "train"}, {})
    subset = Subset("s", 1, [Prompt(f"p{number}", "a cat", tags=one) for number, one in enumerate(tags)], None)
    whole = "2 of 4 prompts are from their data set's training split"
    assert reference.hygiene(subset, None) == whole and reference.hygiene(SMALL, None) is None
    real = reference.load(shard("a", range(1)))
    assert reference.hygiene(subset, real) == whole, "of its own clips none are known to be for training"
    real = dataclasses.replace(real, card={**real.card, "splits": {"train": 3, "test": 5}})
    assert reference.hygiene(SMALL, real) == "the reference holds clips of 3 training prompts of its data set"
    assert reference.hygiene(subset, real) == f"{whole}; {reference.hygiene(SMALL, real)}"


def test_training_clips_are_counted_of_merged_shards_as_of_one_reference(tmp_path):
    tags = ({"split": "train"}, {"split": "test"}, {"split": "train"}, {})
    subset = Subset("s", 1, [Prompt(f"p{number}", "a cat", tags=one) for number, one in enumerate(tags)], None)
    places = []
    for seed in (0, 1):
        folder = RunFolder(tmp_path / "runs" / str(seed))
        folder.start(Run(str(seed), "clips:real", {}, {"s": subset.digest}, (seed,), {}, {}), [subset])
        for prompt in subset.prompts:
            key = Key("s", prompt.id, seed)
            folder.add_sample(Sample(key, f"{prompt.id}-{seed}.mkv", digest([*key]), 0.0))
            folder.add_row(PROTOCOL, Row(key, digest([*key]), {"embedding": np.full(6, float(seed))}))
        places.append(tmp_path / f"shard-{seed}")
        reference_building.pack(folder, subset, [PROTOCOL], places[-1])
    reference_building.merge(places, tmp_path / "merged")
    merged = reference.load(tmp_path / "merged")
    assert reference.hygiene(SMALL, merged) == "the reference holds clips of 2 training prompts of its data set"


def test_the_builder_is_told_of_metrics_for_which_clips_are_few(silent):
    built = reference.load(silent("few", range(4)))
    card = {**built.card, "clips": {"i3d-k400": 6, "musicnn": 100}}
    assert reference.remarks(dataclasses.replace(built, card={**card, "left_out": {"onsets": "no sound"}})) == [
        "onsets is not in the reference: no sound",
        "n = 6: too few for FVD (24), KVD (24)",
    ]
    clips = built.clips.assign(clip_sha256=["a" * 64, "b" * 64, "a" * 64, *built.clips["clip_sha256"][3:]])
    first, third = (f"{clip['prompt']}-{clip['seed']}" for clip in clips.iloc[[0, 2]].to_dict("records"))
    copied = f"2 of {len(clips)} clips of the reference are copies of one another, for example {first} and {third}"
    assert f"{copied}, and each counts" in reference.remarks(dataclasses.replace(built, clips=clips))
