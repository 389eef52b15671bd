"""The shipped subsets obey their written rules, and a wrong prompts file is told by line."""

import json

import pytest

from avbench import subsets
from avbench.core import InputError
from avbench.toyworld import Scene, simulate
from avbench.toyworld.curate import AUDIT_SEEDS, RULES, Audited


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.subset)
def test_shipped_subsets_obey_their_rules_again(rule):
    subset = subsets.load(rule.subset)
    assert len(subset.prompts) >= 96
    assert len({json.dumps(prompt.tags["scene"]) for prompt in subset.prompts}) == len(subset.prompts)
    for prompt in subset.prompts:
        assert rule.holds(prompt.tags["why"])
    for prompt in subset.prompts[:: len(subset.prompts) // 6]:
        truths = [simulate(Scene.from_json(prompt.tags["scene"]), seed)[1] for seed in AUDIT_SEEDS]
        again = Audited(
            prompt.id,
            truths[0].scene,
            tuple(truth.displacement_rate for truth in truths),
            tuple(len(truth.contacts) for truth in truths),
            tuple(truth.strongest_impulse for truth in truths),
        )
        assert again.measured() == {name: value for name, value in prompt.tags["why"].items() if name != "rule"}


def test_the_audit_names_every_chosen_prompt():
    for name in subsets.TOY_SUBSETS:
        audit = (subsets.shipped.folder("subsets") / name / "audit.csv").read_text().splitlines()
        chosen = {line.split(",")[0] for line in audit if line.endswith(",chosen")}
        assert chosen == {prompt.id for prompt in subsets.load(name).prompts}
        assert len(audit) > 1000


def test_an_unknown_subset_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'toy-control'"):
        subsets.load("toy-controls")


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
        subsets.from_prompts_file(path)


def test_not_utf8(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        subsets.from_prompts_file(path)


def test_usual_names_are_understood(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"id": "a", "prompt": "x", "audio_prompt": "y", "label": "z"}))
    subset = subsets.from_prompts_file(path)
    assert subset.name == "mine"
    prompt = subset.prompts[0]
    assert (prompt.video_caption, prompt.audio_caption, prompt.tags) == ("x", "y", {"label": "z"})
