"""Which clip of a folder is which prompt's: the same for every command."""

import json

import pytest

from avbench.core import InputError, Prompt, Subset
from avbench.generation.sample import plan
from avbench.generation.table import build
from avbench.storage.media.clips_of_prompts import ClipsOfPrompts, Rivals
from avbench.subsets import datasets


def written(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return [folder / name for name in names]


def prompts(**files):
    return [Prompt(name, f"caption of {name}", tags={"file": file} if file else {}) for name, file in files.items()]


def asked(folder, of, seeds=(0, 1)):
    """What ``clips:`` finds: (prompt, seed) → the clip's path in the folder."""
    source = build(f"clips:{folder}", {})
    requests = plan([Subset("set", 1, tuple(of), None)], seeds, finished=True)
    found = {(one.key.prompt, one.key.seed): source._candidates(one) for one in requests}
    return {key: paths[0].relative_to(folder).as_posix() for key, paths in found.items() if paths}


def described(folder, of):
    """What ``import``, ``curate`` and ``reference for`` find: clip → prompt."""
    lines = [json.dumps({"id": one.id, "prompt": one.video_caption, **one.tags}) + "\n" for one in of]
    (folder / "prompts.jsonl").write_text("".join(lines))
    entries = [one for one in datasets.opened(str(folder)).entries() if one.path.is_file()]
    captions = {one.video_caption: one.id for one in of}
    return {one.path.relative_to(folder).as_posix(): captions.get(one.video_caption) for one in entries}


CASES = {
    "an id and a seed are another prompt's id": (
        dict.fromkeys(("dog", "dog-1")),
        ["dog-0.mp4", "dog-1.mp4"],
        {("dog", 0): "dog-0.mp4", ("dog-1", 0): "dog-1.mp4"},
    ),
    "seeds are written out": (
        dict.fromkeys(("dog", "dog-1")),
        ["dog-0.mp4", "dog-1.mp4", "dog-1-0.mp4", "dog-1-1.mp4"],
        {("dog", 0): "dog-0.mp4", ("dog", 1): "dog-1.mp4"} | {("dog-1", 0): "dog-1-0.mp4", ("dog-1", 1): "dog-1-1.mp4"},
    ),
    "a folder per prompt": (
        dict.fromkeys(("cat", "dog")),
        ["cat/0.mp4", "cat/1.mp4", "dog/0.mp4"],
        {("cat", 0): "cat/0.mp4", ("cat", 1): "cat/1.mp4", ("dog", 0): "dog/0.mp4"},
    ),
    "a lower line before the seed": (
        dict.fromkeys(("dog", "dog_1", "cat")),
        ["dog_0.mp4", "dog_1.mp4", "caption of cat_0.mp4"],
        {("dog", 0): "dog_0.mp4", ("dog_1", 0): "dog_1.mp4", ("cat", 0): "caption of cat_0.mp4"},
    ),
    "a lower line, and seeds are written out": (
        dict.fromkeys(("dog", "dog_1")),
        ["dog_0.mp4", "dog_1.mp4", "dog_1_0.mp4"],
        {("dog", 0): "dog_0.mp4", ("dog", 1): "dog_1.mp4", ("dog_1", 0): "dog_1_0.mp4"},
    ),
    "captions": (
        dict.fromkeys(("p1", "p2")),
        ["caption of p1-0.mp4", "caption of p1-1.mp4", "caption of p2-0.mp4"],
        {("p1", 0): "caption of p1-0.mp4", ("p1", 1): "caption of p1-1.mp4", ("p2", 0): "caption of p2-0.mp4"},
    ),
    "captions alone": (
        dict.fromkeys(("p1", "p2")),
        ["caption of p1.mp4", "caption of p2.mp4", "caption of p2-1.mp4"],
        {("p1", 0): "caption of p1.mp4", ("p2", 0): "caption of p2.mp4", ("p2", 1): "caption of p2-1.mp4"},
    ),
    "ends of paths that differ": (
        {"a": "out/cat/0001.mp4", "b": "out/dog/0001.mp4"},
        ["cat/0001.mp4", "dog/0001.mp4"],
        {("a", 0): "cat/0001.mp4", ("b", 0): "dog/0001.mp4"},
    ),
    "ends of paths that are the same": (
        {"a": "out/cat/0001.mp4", "b": "out/dog/0001.mp4", "c": "out/cow/0002.mp4"},
        ["0001.mp4", "0002.mp4"],
        {("c", 0): "0002.mp4"},
    ),
    "a file that another prompt names": (
        {"cat": "gone.mp4", "dog": "cat.mp4"},
        ["cat.mp4"],
        {("dog", 0): "cat.mp4"},
    ),
    "the end of a path is an id": (
        {"b": None, "a": "out/b.mp4"},
        ["b.mp4"],
        {("b", 0): "b.mp4"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_command_finds_the_same_clips(tmp_path, case):
    files, names, right = CASES[case]
    written(tmp_path, *names)
    of = prompts(**files)
    assert asked(tmp_path, of) == right
    for order in (of, of[::-1]):
        found = ClipsOfPrompts(tmp_path, written(tmp_path, *names)).of_all(order)
        assert {(one.id, seed): path.relative_to(tmp_path).as_posix() for path, (one, seed) in found.items()} == right
        in_words = {path: prompt for (prompt, _), path in right.items()}
        assert described(tmp_path, order) == {name: in_words.get(name) for name in names}


def test_a_clip_that_fits_two_prompts_is_said(tmp_path):
    written(tmp_path, "0001.mp4", "dog-1.mp4")
    of = [*prompts(a="out/cat/0001.mp4", b="out/dog/0001.mp4"), *prompts(**dict.fromkeys(("dog", "dog-1")))]
    source = build(f"clips:{tmp_path}", {})
    requests = {one.key[1:]: one for one in plan([Subset("set", 1, tuple(of), None)], [0, 1], finished=True)}
    for key, words in {("a", 0): "0001 fits the prompt b", ("dog", 1): "dog-1 fits the prompt dog-1"}.items():
        with pytest.raises(InputError, match=f"; the clip {words} as well, or better"):
            source.generate([requests[key]])


def test_a_caption_of_many_prompts_is_looked_at_once(tmp_path):
    of = [Prompt(f"p{number}", "drums") for number in range(50)] + prompts(**{"drums-1": None})
    rivals = Rivals(of)
    assert len(rivals._claims("drums")) <= 3
    assert {*rivals.of("", of[9], 1)} == {"drums-1"} and not rivals.of("", of[9], 0)
    found = ClipsOfPrompts(tmp_path, written(tmp_path, "p9-0.mp4", "p49.mp4", "drums-1.mp4")).of_all(of)
    assert [one.id for one, _ in found.values()] == ["p9", "p49", "drums-1"]


def test_prompts_of_one_id_share_a_clip_only_where_their_captions_are_the_same(tmp_path):
    written(tmp_path, "p1-0.mp4", "one/p1-0.mp4")
    same, other = Prompt("p1", "a dog"), Prompt("p1", "a cat")
    source = build(f"clips:{tmp_path}", {})
    for second, has in ((same, True), (other, False)):
        subsets = [Subset("one", 1, (same,), None), Subset("two", 1, (second,), None)]
        of_one, of_two = plan(subsets, [0], finished=True)
        assert source.has(of_one) and source.has(of_two) == has
        assert source._path(of_one) == tmp_path / "one" / "p1-0.mp4"


def test_clips_of_several_models_are_found_below_a_folder(tmp_path):
    of = prompts(**dict.fromkeys(("cat", "dog")), out="out.mp4")
    names = ["out.mp4", "old/out.mp4", "x/cat-0.mp4", "x/cat-1.mp4", "x/y/dog/0.mp4", "z/caption of dog-0.mp4"]
    written(tmp_path, *names)
    assert described(tmp_path, of) == dict(zip(names, ["out", None, "cat", "cat", "dog", "dog"], strict=True))
