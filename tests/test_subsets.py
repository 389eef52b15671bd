"""The shipped subsets obey their written rules, and a wrong prompts file is told by line."""

import json
import math
import platform
import sys
from pathlib import Path

import pandas as pd
import pytest

from avbench.core import InputError, Prompt, Subset
from avbench.subsets import loading
from avbench.toyworld import Scene, simulate
from avbench.toyworld.curate import AUDIT_SEEDS, RULES, Audited


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.subset)
def test_shipped_subsets_obey_their_rules_again(rule):
    subset = loading.load(rule.subset)
    assert len(subset.prompts) >= 96
    assert len({json.dumps(prompt.tags["scene"]) for prompt in subset.prompts}) == len(subset.prompts)
    for prompt in subset.prompts:
        assert rule.holds(prompt.tags["why"])
    for prompt in subset.prompts[:: len(subset.prompts) // 6]:
        truths = [simulate(Scene.of(prompt), seed)[1] for seed in AUDIT_SEEDS]
        again = Audited(
            prompt.id,
            truths[0].scene,
            tuple(truth.displacement_rate for truth in truths),
            tuple(len(truth.contacts) for truth in truths),
            tuple(truth.strongest_impulse for truth in truths),
        )
        if platform.machine() == "x86_64" and sys.platform == "linux":
            assert again.measured() == {name: value for name, value in prompt.tags["why"].items() if name != "rule"}
        else:  # another processor rounds otherwise, and each collision amplifies it
            assert rule.holds(again.measured())


def test_the_audit_names_every_chosen_prompt():
    for name in loading.TOY_SUBSETS:
        audit = (loading.shipped.folder("subsets") / name / "audit.csv").read_text().splitlines()
        chosen = {line.split(",")[0] for line in audit if line.endswith(",chosen")}
        assert chosen == {prompt.id for prompt in loading.load(name).prompts}
        assert len(audit) > 1000


def test_a_view_of_a_tag_holds_its_value_or_a_list_with_it():
    prompts = [
        Prompt(name, "x", tags=tags)
        for name, tags in (
            ("a", {"actors": ["person", "dog"], "seen": True}),
            ("b", {"actors": "dog", "seen": False}),
            ("c", {}),
        )
    ]
    subset = Subset("s", 1, tuple(prompts), None)
    found = {
        view: "".join(one.id for one in loading.viewed(subset, view).prompts)
        for view in ("actors=person", "actors=dog", "seen=true", "seen=false")
    }
    assert found == {"actors=person": "a", "actors=dog": "ab", "seen=true": "a", "seen=false": "b"}


def test_an_unknown_subset_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'toy-control'"):
        loading.load("toy-controls")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2"),
        ("[]", "line 2: a prompt must be a JSON object"),
        ('{"prompt": "x"}', "line 2: the field 'id' is missing"),
        ('{"id": "b"}', "line 2: no video caption"),
        ('{"id": "a", "prompt": "x"}', "line 2: the id 'a' occurs twice"),
        ('{"id": "../b", "prompt": "x"}', "line 2: prompt id '../b' cannot be an id"),
        ('{"id": "b", "prompt": 3}', "line 2: video_caption is 3"),
        ('{"id": "b", "prompt": "x", "tags": 3}', "line 2: tags are 3"),
    ],
)
def test_wrong_lines_are_told_by_number(tmp_path, line, words):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": "a", "prompt": "first"}\n' + line + "\n")
    with pytest.raises(InputError, match=words):
        loading.from_prompts_file(path)


def test_not_utf8(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        loading.from_prompts_file(path)


def test_usual_names_are_understood(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"id": "a", "prompt": "x", "audio_prompt": "y", "label": "z"}))
    subset = loading.from_prompts_file(path)
    assert subset.name == "mine"
    prompt = subset.prompts[0]
    assert (prompt.video_caption, prompt.audio_caption, prompt.tags) == ("x", "y", {"label": "z"})


def test_whole_numbers_are_ids_of_a_subset_as_of_a_prompts_file(tmp_path):
    (tmp_path / "card.toml").write_text('name = "mine"\nversion = 1\n')
    (tmp_path / "prompts.jsonl").write_text('{"id": 7, "prompt": "x"}\n{"id": "8", "prompt": "y"}')
    assert [prompt.id for prompt in loading.load_folder(tmp_path).prompts] == ["7", "8"]
    assert [prompt.id for prompt in loading.from_prompts_file(tmp_path / "prompts.jsonl").prompts] == ["7", "8"]
    (tmp_path / "prompts.jsonl").write_text('{"id": 7, "prompt": "x"}\n{"id": "7", "prompt": "y"}')
    with pytest.raises(InputError, match="line 2: the id '7' occurs twice; first in line 1"):
        loading.load_folder(tmp_path)


def test_a_prompts_file_is_one_subset_however_its_path_is_written(tmp_path, monkeypatch):
    (tmp_path / "mine" / "inner").mkdir(parents=True)
    path = tmp_path / "mine" / "prompts.txt"
    path.write_text("a dog\n")
    monkeypatch.chdir(path.parent / "inner")
    found = [loading.from_prompts_file(one) for one in (path, Path("../prompts.txt"))]
    monkeypatch.chdir(path.parent)
    found.append(loading.from_prompts_file(Path("prompts.txt")))
    assert {one.name for one in found} == {"mine"} and len({one.digest for one in found}) == 1


LINE = {"id": "a", "prompt": "un café noir"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, encoding, end):
    lines = [json.dumps(one, ensure_ascii=False) for one in (LINE, {"id": "b", "prompt": "two dogs"})]
    (tmp_path / "p.jsonl").write_bytes((end.join(lines) + end).encode(encoding))
    found = loading.from_prompts_file(tmp_path / "p.jsonl")
    assert [(one.id, one.video_caption) for one in found.prompts] == [("a", "un café noir"), ("b", "two dogs")]
    whole = loading.shipped.folder("subsets") / "toy-control"
    for name in ("card.toml", "prompts.jsonl"):
        (tmp_path / name).write_bytes((whole / name).read_text(encoding="utf-8").encode(encoding))
    assert loading.load(str(tmp_path)).digest == loading.load("toy-control").digest


def test_what_pandas_has_where_nothing_is_is_not_there(tmp_path):
    tags = {"category": math.nan, "list": [1, math.nan], "inner": {"x": math.nan}}
    (tmp_path / "p.jsonl").write_text(json.dumps({**LINE, **tags, "audio_caption": math.nan}) + "\n")
    (prompt,) = loading.from_prompts_file(tmp_path / "p.jsonl").prompts
    assert prompt.audio_caption is None and prompt.tags == {"category": None, "list": [1, None], "inner": {"x": None}}
    row = pd.DataFrame([{"caption": "x", "sound": None, "n": 3, "at": None}, {"n": 4, "at": 0.5, "sound": "y"}]).iloc[0]
    made = Prompt("a", row["caption"], row["sound"], {"n": row["n"], "at": row["at"], "na": pd.NA, "nat": pd.NaT})
    assert made.audio_caption is None and made.tags == {"n": 3, "at": None, "na": None, "nat": None}
    assert Subset("s", 1, (made,), None).digest


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": "b", "prompt": NaN}', "line 2: no video caption"),
        ('{"id": "b", "prompt": "x", "v": Infinity}', "line 2: Infinity is no JSON value"),
        (
            '{"id": "b", "prompt": "x", "v": 1e999}',
            "line 2: inf is not a finite number",
        ),
        ('{"id": "b", "prompt": "x \\ud800"}', "line 2: a text holds half a surrogate pair"),
        ('{"id": "b", "prompt": "x", "v": ["\\ud800"]}', "line 2: a text holds half a surrogate pair"),
        (
            '{"id": "b", "prompt": "x", "v": ' + "[" * 200 + "]" * 200 + "}",
            "line 2: lists or objects are nested more than 100 deep",
        ),
        ('{"id": "b", "prompt": "x", "reference_clip": 5}', "line 2: the reference_clip of prompt 'b' is 5"),
    ],
)
def test_what_no_file_can_hold_is_told_by_line(tmp_path, line, words):
    (tmp_path / "p.jsonl").write_text(json.dumps(LINE) + "\n" + line + "\n")
    with pytest.raises(InputError, match=words):
        loading.from_prompts_file(tmp_path / "p.jsonl")


def test_dates_are_text_and_what_json_cannot_hold_is_told(tmp_path):
    assert Prompt("a", "x", tags={"when": pd.Timestamp("2026-01-02")}).tags == {"when": "2026-01-02T00:00:00"}
    with pytest.raises(InputError, match=r"the tag 'what' of prompt 'a' is \{1\}, a set; it must be text"):
        Prompt("a", "x", tags={"what": {1}})
    (tmp_path / "prompts.jsonl").write_text(json.dumps(LINE) + "\n")
    for card, words in (
        ("version = nan", "nan is not a finite number"),
        ("version = true", "the version of subset 's' is True; it must be a whole number"),
        ("version = 1\nx = inf", "inf is not a finite number"),
        ("version = 1\ncreated = 2026-01-02", "2026-01-02 is a date; write it as a text"),
    ):
        (tmp_path / "card.toml").write_text(f'name = "s"\n{card}\n')
        with pytest.raises(InputError, match=words):
            loading.load(str(tmp_path))
