"""Merging is the union of parts: exact, in any order, any number of times, killed at any moment, or refused."""

import errno
import hashlib
import itertools
import os
import random
import shutil
import signal
import sys
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import pytest
from command_line import run_avbench
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_of_runs import KEYS, PROTOCOLS, SEEDS, SUBSETS, WHOLE, content, part, whole
from processes import FORKS

from avbench.core import ClipSpec, InputError, Key, Protocol, Row, Sample, Shard, digest, planned_keys
from avbench.features.current import all_seen
from avbench.features.protocols import forms_of
from avbench.features.table import Requires
from avbench.storage.plug_ins import failure
from avbench.storage.runs.clips import altered
from avbench.storage.runs.folder import RunFolder
from avbench.storage.runs.merge import merge, take_share
from avbench.storage.runs.retried import UNREADABLE
from avbench.storage.workers.worker_pool import WorkerCrashed

pytestmark = FORKS


def shards(place, count=4):
    return [
        part(place / f"s{number}", planned_keys(SUBSETS, SEEDS, Shard(number, count)), shard=f"{number}/{count}").path
        for number in range(1, count + 1)
    ]


def test_four_shards_are_one_run(tmp_path):
    right = content(whole(tmp_path / "right").path)
    found = merge(tmp_path / "whole", shards(tmp_path))
    assert content(tmp_path / "whole") == right
    assert (found.made, found.failed, found.planned, found.missing, found.absent) == (16, 0, 16, {}, ())
    assert not [*tmp_path.glob(".*")], "nothing is left beside it"


@pytest.mark.slow
@given(st.randoms(use_true_random=False), st.integers(2, 4))
@settings(max_examples=8, deadline=None)
def test_any_split_in_any_order_any_number_of_times(tmp_path_factory, chance, count):
    """Parts overlap, come in several merges and in any order; the end is always the same bytes."""
    place = tmp_path_factory.mktemp("split")
    held = [{key for key in KEYS if chance.random() < 0.5} for _ in range(count)]
    held[0] |= {*KEYS} - set().union(*held)
    parts = [
        part(place / f"p{number}", chance.sample(sorted(keys), len(keys))).path for number, keys in enumerate(held)
    ]
    merge(place / "once/whole", parts)
    out = place / "whole"
    for chosen in (chance.sample(parts, chance.randint(1, count)), chance.sample(parts, count), parts[:1]):
        merge(out, chosen)
    assert content(out, times=True) == content(place / "once/whole", times=True)
    assert content(out) == content(whole(place / "right").path)


def test_what_is_missing_is_said(tmp_path):
    one, two, three, four = shards(tmp_path)
    found = merge(tmp_path / "whole", [four, two])
    assert found.missing == {"fall": 4, "walk": 6} and found.absent == ("1/4", "3/4")
    output = run_avbench("runs", "merge", tmp_path / "whole", three).stdout
    assert "12 of 16 clips" in output and "missing: 2 of fall, 2 of walk" in output
    assert merge(tmp_path / "whole", [one]).missing == {}
    assert content(tmp_path / "whole") == content(whole(tmp_path / "right").path)


def test_shards_that_were_not_given_are_named_where_all_are_of_one_number(tmp_path):
    one, *_ = shards(tmp_path)
    assert merge(tmp_path / "whole", [one]).absent == ("2/4", "3/4", "4/4")
    half = part(tmp_path / "half", planned_keys(SUBSETS, SEEDS, Shard(1, 2)), shard="1/2").path
    found = merge(tmp_path / "mixed", [one, half])
    assert sum(found.missing.values()) > 0 and found.absent == ()


def test_a_shard_that_no_prompt_falls_into_is_not_missing(tmp_path):
    """Eight prompts in twelve shards."""
    keys = {number: [key for key in KEYS if Shard(number, 12).holds(*place_of(key), 2)] for number in range(1, 13)}
    assert [number for number, held in keys.items() if not held] == [4, 5, 6, 12]
    first = part(tmp_path / "s1", keys[1], shard="1/12").path
    assert merge(tmp_path / "whole", [first]).absent == tuple(f"{number}/12" for number in range(2, 13) if keys[number])


def place_of(key):
    """The place of a key's prompt in its subset, and the subset's rank among both."""
    names = sorted(subset.name for subset in SUBSETS)
    (subset,) = (one for one in SUBSETS if one.name == key.subset)
    return [prompt.id for prompt in subset.prompts].index(key.prompt), names.index(key.subset)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "made:other"}, "model: 'made:other' there, 'made:up' in .*/a"),
        ({"settings": {"steps": 5}}, r"settings\.steps: 5 there, 4 in .*/a"),
        ({"settings": {"steps": 4, "weights": "ab"}}, r"settings\.weights: 'ab' there, '\(absent\)' in .*/a"),
        ({"seeds": (0, 2)}, r"seeds: \[0, 2\] there, \[0, 1\] in .*/a"),
        ({"seeds": (1,)}, r"seeds: \[1\] there, \[0, 1\] in .*/a"),
        ({"asked": {}}, r"asked\.steps: '\(absent\)' there, 4 in .*/a"),
        ({"preset": {"name": "paper"}}, r"preset\.name: 'paper' there, '\(absent\)' in .*/a"),
    ],
)
def test_parts_of_another_run_are_refused(tmp_path, changes, words):
    one, other = part(tmp_path / "a", KEYS[:4]).path, part(tmp_path / "b", KEYS[4:], **changes).path
    with pytest.raises(InputError, match=f"b belongs to another run and cannot be merged: .*({words})"):
        merge(tmp_path / "whole", [other, one])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_parts_of_one_model_by_two_paths_are_merged(tmp_path):
    """Machines may keep a checkpoint in different folders; its bytes say that it is the same."""
    weights = {"weights": {"model": {"sha256": "ab"}}}
    one = part(tmp_path / "a", KEYS[:4], model="avfulldit:/one/mine", settings=weights).path
    other = part(tmp_path / "b", KEYS[4:], model="avfulldit:/other/mine", settings=weights).path
    assert merge(tmp_path / "whole", [one, other]).made == len(KEYS)
    assert RunFolder(tmp_path / "whole").run().model == "avfulldit:/one/mine"
    merge(other, [one])
    assert RunFolder(other).run().model == "avfulldit:/other/mine", "a run that receives parts keeps its own path"


def test_other_prompts_are_refused(tmp_path):
    one, other = part(tmp_path / "a", KEYS[:4]).path, RunFolder(tmp_path / "b")
    last = [replace(subset, prompts=subset.prompts[1:]) for subset in SUBSETS]
    other.start(replace(WHOLE, name="b", subsets={one.name: one.digest for one in last}), last)
    with pytest.raises(
        InputError, match=r"b belongs to another run and cannot be merged: the prompts of fall: other content"
    ):
        merge(tmp_path / "whole", [one, other.path])


@pytest.mark.parametrize("into", ["new", "fewer", "more"])
def test_runs_that_ask_for_more_and_for_fewer_clips_are_merged(tmp_path, into):
    """They differ in ``--limit``, ``--seeds`` and ``--subset`` only; the merged run asks for all."""
    asked = {"fewer": ((SUBSETS[0].limited(2),), SEEDS[:1]), "more": (SUBSETS, SEEDS)}
    for name, (subsets, seeds) in asked.items():
        keys = planned_keys(subsets, seeds)
        part(tmp_path / name, keys if name == "fewer" else KEYS[3:], subsets=subsets, seeds=seeds)
    other = [tmp_path / name for name in asked if name != into]
    found = merge(tmp_path / into, other)
    folder = RunFolder(tmp_path / into)
    assert folder.subsets() == [*SUBSETS] and folder.run().seeds == SEEDS
    held = {*planned_keys(*asked["fewer"]), *KEYS[3:]}
    assert {*folder.samples()} == held and (found.made, found.planned) == (len(held), len(KEYS))
    assert sum(found.missing.values()) == len(KEYS) - len(held) > 0


def test_subsets_stand_as_in_a_part_that_has_all_or_by_name(tmp_path):
    """Whatever the names of the folders, which decide the order in which parts are read."""
    walk, fall = SUBSETS
    for place, parts, right in (
        ("all", {"a": (fall,), "b": (walk, fall)}, ["walk", "fall"]),
        ("by name", {"a": (walk,), "b": (fall,)}, ["fall", "walk"]),
    ):
        for name, subsets in parts.items():
            part(tmp_path / place / name, planned_keys(subsets, SEEDS), subsets=subsets)
        merge(tmp_path / place / "whole", [tmp_path / place / name for name in parts])
        assert [subset.name for subset in RunFolder(tmp_path / place / "whole").subsets()] == right


def test_subsets_that_would_share_their_files_are_refused(tmp_path):
    loud = (replace(SUBSETS[0], name="Walk"),)
    out = part(tmp_path / "whole", KEYS[:4], subsets=SUBSETS[:1])
    other = part(tmp_path / "other", planned_keys(loud, SEEDS), subsets=loud)
    (out.path / ".LOCK").touch()  # what a disk of macOS shows in place of .lock
    with pytest.raises(InputError, match="'walk' and 'Walk' would share their files"):
        merge(out.path, [other.path])


def test_a_merge_that_is_killed_while_it_extends_a_run_leaves_it_readable(tmp_path, monkeypatch):
    few = tuple(subset.limited(1) for subset in SUBSETS)
    fewer = part(tmp_path / "fewer", planned_keys(few, SEEDS), subsets=few)
    more = part(tmp_path / "more", KEYS)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(RunFolder, "write_run", killed)
        with pytest.raises(KeyboardInterrupt):
            merge(fewer.path, [more.path])
    assert [subset.digest for subset in fewer.subsets()] == [subset.digest for subset in few]
    assert merge(fewer.path, [more.path]).made == len(KEYS) and fewer.subsets() == [*SUBSETS]


def changed(place, key, sha256="0" * 64):
    """A part that says that it has another clip, whose file is gone."""
    folder = part(place, KEYS[:2], rows=False)
    folder.add_sample(Sample(key, f"clips/{key.subset}/{key.prompt}-{key.seed}.mp4", sha256, 0.0))
    return folder


def test_two_clips_of_one_key_are_refused(tmp_path):
    one, other = part(tmp_path / "a", KEYS[:6]).path, changed(tmp_path / "b", KEYS[4]).path
    with pytest.raises(InputError, match=r"a and \S+b hold different clips of fall f1-0, so"):
        merge(tmp_path / "whole", [one, other])


def test_two_rows_of_one_clip_are_refused(tmp_path):
    one, other = part(tmp_path / "a", KEYS[:6]), part(tmp_path / "b", KEYS[4:])
    sha256 = one.samples()[KEYS[4]].sha256
    other.add_row(PROTOCOLS[1], Row(KEYS[4], sha256, {"of": 0.5}))
    with pytest.raises(InputError, match=r"a\S+, line 5 and \S+b\S+, line 13 hold different rows of "):
        merge(tmp_path / "whole", [other.path, one.path])


def test_another_protocol_under_the_same_name_is_refused(tmp_path):
    one, other = part(tmp_path / "a", KEYS[:6]).path, part(tmp_path / "b", KEYS[6:]).path
    (place,) = (other / "features").glob("colours@*")
    text = (place / "protocol.json").read_text()
    (place / "protocol.json").write_text(text.replace('"bins": 3', '"bins": 4'))
    with pytest.raises(
        InputError, match=r"were made under different protocols and cannot be compared: bins: 3 against 4"
    ):
        merge(tmp_path / "whole", [one, other])
    (place / "protocol.json").write_text("null")
    with pytest.raises(InputError, match=r"protocol\.json: the whole is None"):
        merge(tmp_path / "whole", [one, other])


@dataclass(frozen=True)
class Halved(Protocol):
    precision: str = "float32"


def test_parts_that_were_measured_in_two_precisions_are_refused(tmp_path):
    """Of such a run one precision would be read, and the clips of the other part would count as not measured."""
    parts = [part(tmp_path / "a", KEYS[:6]), part(tmp_path / "b", KEYS[6:])]
    for folder, precision in zip(parts, ("float32", "bfloat16"), strict=True):
        for key, sample in folder.samples().items():
            folder.add_row(Halved("network", 1, precision=precision), Row(key, sample.sha256, {"of": 0.5}))
    places = [folder.path for folder in parts]
    with pytest.raises(
        InputError, match=r"a has rows of network in float32, and \S+b in bfloat16, .*: delete"
    ) as error:
        merge(tmp_path / "whole", places)
    assert not (tmp_path / "whole").exists()
    (wrong,) = (places[1] / "features").glob("network@*")
    assert f"delete {wrong}, and" in str(error.value)
    shutil.rmtree(wrong)
    assert merge(tmp_path / "whole", places).made == len(KEYS)


def test_a_clip_that_was_changed_is_refused(tmp_path):
    one = part(tmp_path / "a", KEYS).path
    next(one.glob("clips/*/*.mkv")).write_bytes(b"other")
    with pytest.raises(InputError, match=r"1 of 16 clips of .* is not what was sampled"):
        merge(tmp_path / "whole", [one])


@pytest.mark.parametrize("path", ["scores.json", "clips/fall/f0-0.d/x.mkv"])
def test_a_clip_whose_place_is_not_its_own_is_refused(tmp_path, path):
    one = part(tmp_path / "a", KEYS[:1], rows=False)
    sample = one.samples()[KEYS[0]]
    (one.path / path).parent.mkdir(exist_ok=True)
    shutil.copy(one.path / sample.path, one.path / path)
    one.add_sample(replace(sample, path=path))
    with pytest.raises(InputError, match=rf"the clip of fall f0-0 is '{path}'; it must be clips/fall/f0-0\.…"):
        merge(tmp_path / "whole", [one.path])


def test_what_is_no_run_is_refused(tmp_path):
    one, two, *_ = shards(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("x")
    for out, parts, words in (
        ("whole", [one, tmp_path / "empty"], "empty is not a run folder: it has no run.json"),
        ("full", [one], "full is not empty and is no run folder"),
        ("s1", [two], "s1 is shard 1/4 of a run; the first folder receives the merged run, so name a new one"),
    ):
        with pytest.raises(InputError, match=words):
            merge(tmp_path / out, parts)
    merge(tmp_path / "empty", [one])
    assert (tmp_path / "empty/run.json").is_file()


def test_a_clip_goes_before_a_refusal_and_a_failure(tmp_path):
    made, empty = part(tmp_path / "a", KEYS[:1]), part(tmp_path / "b", [])
    refused, failed = part(tmp_path / "c", []), part(tmp_path / "d", [])
    for key in KEYS[:3]:
        failed.add_sample(Sample(key, None, None, 0.1, failure="out of memory"))
    for key in KEYS[:2]:
        refused.add_sample(Sample(key, None, None, 0.1, failure="moderated", refused=True))
    for number, order in enumerate(itertools.permutations([made.path, empty.path, refused.path, failed.path])):
        if number % 5 == 0:
            found = merge(tmp_path / f"{number}/whole", order)
            samples = RunFolder(tmp_path / f"{number}/whole").samples()
            assert [samples[key].failure for key in KEYS[:3]] == [None, "moderated", "out of memory"]
            assert (found.made, found.failed) == (1, 2)


def test_a_clip_whose_file_is_there_goes_before_one_whose_file_is_gone(tmp_path):
    """And one whose file is gone before a failure: it was made."""
    gone, there, failed = part(tmp_path / "a", KEYS), part(tmp_path / "b", KEYS[1:]), part(tmp_path / "c", [])
    for clip in gone.path.glob("clips/*/*.mkv"):
        clip.unlink()
    for key in KEYS:
        failed.add_sample(Sample(key, None, None, 0.1, failure="out of memory"))
    for number, order in enumerate(itertools.permutations([gone, there, failed])):
        found = merge(tmp_path / f"{number}/whole", [one.path for one in order])
        assert (found.made, found.failed) == (16, 0)
        assert len([*(tmp_path / f"{number}/whole/clips").glob("*/*.mkv")]) == 15


def test_a_clip_that_a_kill_left_without_its_line_is_replaced(tmp_path):
    """A run may be killed when a clip's file is there, and before its line is written."""
    out, other = part(tmp_path / "whole", KEYS[:4]), part(tmp_path / "b", KEYS[4:])
    stale = out.path / other.samples()[KEYS[4]].path
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.write_bytes(b"of another sampling")
    merge(out.path, [other.path])
    assert content(out.path) == content(whole(tmp_path / "right").path)


def test_what_a_killed_merge_of_other_parts_left_is_not_in_the_run(tmp_path):
    for name in ("scores.json", "clips/other/a-0.mkv"):
        left = tmp_path / ".whole.merging" / name
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_bytes(b"left")
    merge(tmp_path / "whole", shards(tmp_path))
    assert content(tmp_path / "whole") == content(whole(tmp_path / "right").path)


def test_of_two_lines_of_one_clip_the_same_is_kept_whatever_the_names_and_the_order(tmp_path):
    parts = [part(tmp_path / name, KEYS).path for name in ("p", "q")]
    merge(tmp_path / "once/a", parts)
    for first in (0, 1):
        for one in (parts[first], parts[1 - first]):
            merge(tmp_path / f"{first}/a", [one])
        assert content(tmp_path / f"{first}/a", times=True) == content(tmp_path / "once/a", times=True)


def test_a_link_to_an_empty_or_a_new_folder_receives_the_run_there(tmp_path):
    one, *_ = shards(tmp_path)
    (tmp_path / "disk").mkdir()
    for name, target in (("linked", "disk"), ("dangling", "new")):
        (tmp_path / name).symlink_to(tmp_path / target)
        merge(tmp_path / name, [one])
        assert (tmp_path / name).is_symlink() and RunFolder(tmp_path / target).run().name == name
        merge(tmp_path / name, [one])


def test_a_folder_that_cannot_be_replaced_is_named(tmp_path, monkeypatch):
    one, *_ = shards(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    refused = run_avbench("runs", "merge", ".", one, code=2).stderr
    assert f"{tmp_path}/here is the folder that you are in, and a merged run takes the place of the folder" in refused
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "here")
    with pytest.raises(InputError, match="here is a mount point"):
        merge(tmp_path / "here", [one])
    assert not [*(tmp_path / "here").iterdir()]


@pytest.mark.parametrize("moment", ["before it has the lock", "before it renames"])
def test_of_two_merges_into_one_new_folder_the_second_is_told(tmp_path, monkeypatch, moment):
    one, two, *_ = shards(tmp_path)
    out = tmp_path / "whole"
    owner, name = (RunFolder, "writing") if moment == "before it has the lock" else (RunFolder, "write_run")
    own = getattr(owner, name)

    def after_the_other(folder, *given):
        if folder.path.name == ".whole.merging":
            monkeypatch.undo()
            merge(tmp_path / "other", [one, two])
            (tmp_path / "other").rename(out)  # as if the other command had begun at the same time
        return own(folder, *given)

    monkeypatch.setattr(owner, name, after_the_other)
    with pytest.raises(InputError, match="whole was put together by another command in the meantime; give the same"):
        merge(out, [one, two])
    assert {path.name for path in tmp_path.iterdir()} == {"s1", "s2", "s3", "s4", "whole"}
    assert merge(out, [one, two]).made == 8


def test_a_share_is_taken_of_a_whole_unchanged_run_and_into_its_own_folder(tmp_path):
    source, share, half = whole(tmp_path / "right"), tmp_path / "share", Shard(1, 2)
    for _ in range(2):
        take_share(source, half, share)
        assert list(RunFolder(share).samples()) == planned_keys(SUBSETS, SEEDS, half)
    with pytest.raises(InputError, match="share is shard 1/2 of a run already"):
        take_share(RunFolder(share), Shard(1, 3), tmp_path / "third")
    with pytest.raises(InputError, match=r"share belongs to another run .*settings\.steps: 4 there, 5 in \S*other"):
        take_share(part(tmp_path / "other", KEYS, settings={"steps": 5}), half, share)
    next(source.path.glob("clips/*/*.mkv")).write_bytes(b"other")
    with pytest.raises(InputError, match=r"1 of 16 clips of .* is not what was sampled"):
        take_share(source, half, tmp_path / "new")


def test_a_share_follows_its_run_that_was_extended_or_has_a_new_clip(tmp_path):
    """The share keeps what it measured of the clips that stayed."""
    half, share = Shard(1, 2), tmp_path / "share"
    shorter = tuple(one.limited(2) for one in SUBSETS)
    first = part(tmp_path / "run", planned_keys(shorter, (0,)), rows=False, subsets=shorter, seeds=(0,))
    take_share(first, half, share)
    kept = [*RunFolder(share).samples()]
    for key, sample in RunFolder(share).samples().items():
        RunFolder(share).add_row(PROTOCOLS[1], Row(key, sample.sha256, {"of": 0.5}))
    source = part(tmp_path / "run", KEYS, rows=False)
    take_share(source, half, share)
    assert [*RunFolder(share).samples()] == planned_keys(SUBSETS, SEEDS, half) and len(kept) == 2
    assert sorted(RunFolder(share).rows(PROTOCOLS[1])) == sorted(kept)

    clip = source.path / str(source.samples()[kept[0]].path)
    clip.unlink()  # the share has a hard link to it
    clip.write_bytes(b"made again")
    source.add_sample(replace(source.samples()[kept[0]], sha256=hashlib.sha256(b"made again").hexdigest()))
    take_share(source, half, share)
    assert (share / clip.relative_to(source.path)).read_bytes() == b"made again"
    assert RunFolder(share).samples()[kept[0]] == source.samples()[kept[0]] and not altered(RunFolder(share)).changed
    assert merge(source.path, [share]).made == len(KEYS)
    assert RunFolder(source.path).row_hashes(PROTOCOLS[1])[kept[1]] == source.samples()[kept[1]].sha256


def test_what_another_command_adds_before_the_merge_has_the_lock_is_kept(tmp_path, monkeypatch):
    """A command that makes the run's last clips ends, and frees the folder, just before the merge takes it."""
    out, other = part(tmp_path / "whole", KEYS[:4]).path, part(tmp_path / "b", KEYS[4:8]).path
    writing = RunFolder.writing

    def after_the_other(folder):
        monkeypatch.undo()
        part(tmp_path / "whole", KEYS[8:])
        return writing(folder)

    monkeypatch.setattr(RunFolder, "writing", after_the_other)
    found = merge(out, [other])
    assert RunFolder.writing is writing, "the other command ran"
    assert (found.made, found.missing) == (len(KEYS), {})
    assert content(out) == content(whole(tmp_path / "right").path)


FAILURES = [str(WorkerCrashed("measuring")), UNREADABLE, failure("lights 1.5", ZeroDivisionError("no light"))]


@pytest.mark.parametrize("failed", FAILURES)
def test_a_row_of_a_failure_gives_way(tmp_path, failed):
    one, other = part(tmp_path / "a", KEYS), part(tmp_path / "b", KEYS)
    sha256 = one.samples()[KEYS[3]].sha256
    one.add_row(PROTOCOLS[0], Row(KEYS[3], sha256, None, failed))
    merge(tmp_path / "whole", [one.path, other.path])
    assert content(tmp_path / "whole") == content(whole(tmp_path / "right").path)


def test_of_several_failures_one_is_kept_whatever_the_order(tmp_path):
    for name, failed in zip("abc", FAILURES, strict=True):
        folder = part(tmp_path / name, KEYS)
        folder.add_row(PROTOCOLS[0], Row(KEYS[3], folder.samples()[KEYS[3]].sha256, None, failed))
    merge(tmp_path / "0/whole", [tmp_path / "a", tmp_path / "b"])
    merge(tmp_path / "1/whole", [tmp_path / "b"])
    merge(tmp_path / "1/whole", [tmp_path / "a"])
    for number in "01":
        merge(tmp_path / number / "whole", [tmp_path / "c"])
    assert content(tmp_path / "0/whole") == content(tmp_path / "1/whole")
    assert RunFolder(tmp_path / "0/whole").rows(PROTOCOLS[0])[KEYS[3]].missing in FAILURES


def test_a_row_of_an_earlier_clip_gives_way_to_one_of_the_clip_that_is_there(tmp_path):
    one, other = part(tmp_path / "a", KEYS), part(tmp_path / "b", KEYS)
    other.add_row(PROTOCOLS[0], Row(KEYS[3], digest("an earlier clip"), {"of": 0.5}))
    for number, order in enumerate([(one, other), (other, one)]):
        place = tmp_path / f"{number}/whole"
        merge(place, [folder.path for folder in order])
        merge(place, [other.path])
        assert content(place) == content(whole(tmp_path / f"right{number}").path)


SPECIFIED = (replace(SUBSETS[0], clip_spec=ClipSpec(64, 48, 16, Fraction(8))), SUBSETS[1])
ASIDE = Protocol("beside", 1)


@pytest.mark.parametrize("mismatch", [None, "too small"])
def test_rows_of_fewer_seeds_give_way_to_those_of_all(tmp_path, mismatch):
    """A part that stopped was measured and merged; it is finished, and merged before and after it is measured again."""
    one = part(tmp_path / "a", [], subsets=SPECIFIED, seeds=(1, 0, 2, 3))
    *keys, failed = [Key("walk", "w0", seed) for seed in (1, 0, 2, 3)]
    one.add_sample(Sample(failed, None, None, 0.0, failure="out of memory"))

    def made(key):
        path = f"clips/{key.subset}/{key.prompt}-{key.seed}.mkv"
        one.add_sample(Sample(key, path, digest([*key]), 0.0, spec_mismatch=mismatch))

    def measured():
        forms = forms_of(one)
        clips = [sample for _, sample in sorted(one.samples().items()) if sample.path is not None]
        for sample in clips:
            seen = all_seen(Requires.SEEDS, sample, None, clips, (forms, {}))
            one.add_row(ASIDE, Row(sample.key, seen, {"of": float(len(clips))}))

    for key in keys[:2]:
        made(key)
    measured()
    merge(tmp_path / "whole", [one.path])
    made(keys[2])
    merge(tmp_path / "between", [tmp_path / "whole", one.path])
    measured()
    for place in ("whole", "between"):
        merge(tmp_path / place, [one.path])
        rows = RunFolder(tmp_path / place).rows(ASIDE)
        assert [rows[key].values["of"] for key in keys] == [3.0] * 3


def test_versions_and_machines_stand_beside_one_another(tmp_path):
    parts = [
        part(tmp_path / f"p{number}", KEYS[number::3], machine={"cores": cores}, versions={"torch": torch}).path
        for number, (cores, torch) in enumerate((("8", "2.5"), ("64", "2.4"), ("8", "2.4")))
    ]
    merge(tmp_path / "whole", parts[:2])
    merge(tmp_path / "whole", parts[::-1])
    run = RunFolder(tmp_path / "whole").run()
    assert run.machine == {"cores": "64; 8"} and run.versions == {"torch": "2.4; 2.5"}


def test_a_gone_clip_keeps_its_rows(tmp_path):
    one = part(tmp_path / "a", KEYS)
    next((one.path / "clips/walk").glob("*.mkv")).unlink()
    said = run_avbench("runs", "merge", tmp_path / "whole", one.path).stdout
    assert (
        "whole: 16 of 16 clips\nfiles that no part has any more: 1; what was measured of these clips is kept\n" in said
    )
    assert len(RunFolder(tmp_path / "whole").rows(PROTOCOLS[0])) == 16
    assert len([*(tmp_path / "whole/clips").glob("*/*.mkv")]) == 15


def test_clips_are_copied_where_they_cannot_be_linked(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    merge(tmp_path / "whole", shards(tmp_path))
    assert content(tmp_path / "whole") == content(whole(tmp_path / "right").path)
    assert {path.stat().st_nlink for path in (tmp_path / "whole/clips").glob("*/*.mkv")} == {1}


def test_a_full_disk_is_named_and_nothing_is_left_on_it(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "another file system")

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(source))

    parts = shards(tmp_path)
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left on device") as found:
        merge(tmp_path / "out/whole", parts)
    assert str(found.value.filename).startswith(str(tmp_path / "out")) and found.value.filename.endswith(".mkv")
    assert [*(tmp_path / "out").iterdir()] == []


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_on_a_disk_without_locks_the_lock_of_a_merge_ends_with_it(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unsupported)
    merge(tmp_path / "whole", shards(tmp_path))
    with RunFolder(tmp_path / "whole").writing():
        pass


def test_linked_clips_take_no_space(tmp_path):
    merge(tmp_path / "whole", shards(tmp_path))
    assert {path.stat().st_nlink for path in (tmp_path / "whole/clips").glob("*/*.mkv")} == {2}


# ---- kills


def killed_at(number, place, action):
    """Whether a forked process that does something was killed before its write of this number."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    numbers = itertools.count(1)

    def look(event, arguments):
        writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writing or event in ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir"):
            if str(arguments[0]).startswith(str(place)) and next(numbers) == number:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(look)
        action()
    finally:
        os._exit(0)


@pytest.mark.slow
@pytest.mark.parametrize("added", [False, True], ids=["new", "added"])
def test_a_killed_merge_leaves_nothing_half(tmp_path, added):
    """Killed before every third of its writes: the run is what it was, or whole, and the next merge ends the same."""
    parts, right = shards(tmp_path / "parts", 2), content(whole(tmp_path / "right").path)
    begin = tmp_path / "begin"
    begin.mkdir()
    if added:
        merge(begin / "whole", parts[:1])
    before = RunFolder(begin / "whole").samples() if added else {}
    place = tmp_path / "now"
    for number in itertools.count(1, 3):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(begin, place)
        if not killed_at(number, place, lambda: merge(place / "whole", parts)):
            break
        if (place / "whole/run.json").exists():
            folder = RunFolder(place / "whole")
            assert len(folder.samples()) in (len(before), len(KEYS))
            for sample in folder.samples().values():
                assert (folder.path / sample.path).is_file()
                assert all(sample.key in folder.rows(protocol) for protocol in PROTOCOLS)
        else:
            assert not added and not (place / "whole").exists()
        if random.Random(number).random() < 0.3:
            killed_at(number + 2, place, lambda: merge(place / "whole", parts))  # or it ended before
        merge(place / "whole", parts)
        assert content(place / "whole") == right
    assert number > 40, "it wrote that often"
    assert content(place / "whole") == right
