"""References of the headline subsets: clips chosen by the rule of a subset, and how far their tags match its own."""

import json
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
from command_line import run_avbench

from avbench.core import InputError, Prompt, Subset
from avbench.curation.match import COMPARED, matches
from avbench.metrics import reference
from avbench.storage.media import write_clip
from avbench.subsets import datasets
from avbench.subsets.loading import load
from avbench.toyworld import make_clip, random_scene


def prompts(*tags):
    return tuple(Prompt(f"p{n}", "a thing", tags=one) for n, one in enumerate(tags))


def of(found, tag):
    return next(one for one in found if one.tag == tag)


def test_the_overlap_of_tags_is_the_shared_share():
    asked = Subset(
        "asked",
        1,
        prompts(
            {"materials": ["wood", "metal"], "amount": "large", "contacts": 2, "action": "strike"},
            {"materials": ["wood"], "amount": "still", "contacts": 0, "action": "tap"},
        ),
        None,
    )
    clips = Subset(
        "clips", 1, prompts({"materials": "wood", "contacts_seconds": [0.5, 1.0]}, {"materials": ["glass"]}), None
    )
    measured = pd.DataFrame({"motion_amount": [0.9, 0.3], "events": [1.0, np.nan]})
    found = matches(asked, clips, measured)
    assert of(found, "materials").prompts == {"wood": 0.75, "metal": 0.25}
    assert of(found, "materials").overlap == 0.5
    assert of(found, "amount").clips == {"large": 1.0} and of(found, "amount").overlap == 0.5
    assert of(found, "contacts").clips == {"2": 1.0}, "labelled contacts count, not events"
    assert not of(found, "action").clips and "do not have this tag" in of(found, "action").sentence
    unlabelled = Subset("clips", 1, prompts({}), None)
    assert of(matches(asked, unlabelled, measured), "contacts").clips == {"1": 1.0}


def test_words_of_a_data_set_count_as_the_prompts_words_for_the_same():
    asked = Subset("asked", 1, prompts(*[{"action": one} for one in ("strike", "tap", "tap", "pour")]), None)
    clips = Subset("clips", 1, prompts(*[{"actions": one} for one in (["hit"], ["hit"], ["hit"], ["scratch"])]), None)
    measured = pd.DataFrame({"motion_amount": [0.1] * 4, "events": [1.0] * 4})
    found = of(matches(asked, clips, measured), "action")
    assert found.overlap == 0.75, "three of four prompts strike or tap, three of four clips hit, and nobody scrapes"
    assert found.clips == {"hit": 0.75, "scratch": 0.25}
    assert found.sentence.endswith("clips: hit (as strike or tap) 75 %, scratch 25 %)")
    own = Subset("clips", 1, prompts({"actions": ["strike"]}), None)
    assert of(matches(asked, own, measured), "action").overlap == 0.25
    real = of(matches(load("object-contact"), clips, measured), "action")
    assert real.overlap == pytest.approx(0.2 + 0.1), "strike, tap and scrape are a tenth of the prompts each"


@pytest.mark.parametrize("name", ["object-contact", "large-motion", "ambient"])
def test_a_headline_subset_has_the_tags_and_a_rule(name):
    from avbench.curation import rules

    assert rules.read().of(name)
    found = matches(load(name), Subset("none", 1, prompts({}), None), pd.DataFrame({"motion_amount": [], "events": []}))
    assert {one.tag for one in found} >= {"amount", "contacts", "action"} and {one.tag for one in found} <= {*COMPARED}


@pytest.fixture
def hits(tmp_path):
    """Scenes of the toy world, laid out as The Greatest Hits is."""
    folder = tmp_path / "vis-data"
    folder.mkdir()
    names = {"train": [], "test": []}
    for seed, family in enumerate(("drop", "collide", "drop", "collide", "pendulum", "drift")):
        clip, truth = make_clip(random_scene(family, np.random.default_rng(seed)), seed)
        name = f"2015-02-16-16-49-{seed:02}"
        write_clip(clip, folder / f"{name}_denoised.mp4", lossless=False)
        lines = [f"{one.seconds:.3f} wood hit static" for one in truth.contacts]
        (folder / f"{name}_times.txt").write_text("\n".join(lines))
        names["train" if seed == 0 else "test"].append(name)
    for split, listed in names.items():
        (folder / f"{split}.txt").write_text("\n".join(listed))
    return folder


def test_a_pool_has_one_split_only(hits):
    pool = datasets.opened(f"greatest-hits:{hits}")
    assert {one.split for one in datasets.of_split(pool, "test").entries()} == {"test"}
    assert datasets.of_split(pool, None) is pool
    with pytest.raises(InputError, match=r"no entry of greatest-hits is of the split 'val'; splits there: test, train"):
        list(datasets.of_split(pool, "val").entries())


@pytest.mark.slow
def test_one_command_builds_the_reference_of_a_subset(hits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ("reference", "for", "object-contact", "--from", f"greatest-hits:{hits}", "--workers", "0")
    done = run_avbench(*asked, "--split", "test", "--metric", "motion_frechet,onset_rate")
    built = reference.load(tmp_path / "references/object-contact")
    (chosen,) = {*built.card["clips"].values()}
    assert 1 <= chosen < 5 and built.card["splits"] == {"test": chosen}
    assert built.card["made_for"] == {"subset": "object-contact", "digest": load("object-contact").digest}
    assert built.card["chosen"].startswith(f"{chosen} of 5 clips, 0 copies left out, of greatest-hits")
    assert 0 < built.card["match"]["materials"] < 1 and built.card["match"]["action"] == 0.2
    assert f"{chosen} clips: {built.card['chosen']}; licence: the set's own terms" in done.stdout
    assert "materials: overlap" in done.stdout and "clips: hit (as strike or tap) 100 %" in done.stdout
    assert "6 entries were found; greatest-hits should have 977" in done.stderr
    assert "the clips last 2 s in the median, and object-contact recommends 5 s: take longer ones" in done.stderr
    assert str(tmp_path) not in json.dumps(dict(built.card))

    again = shlex.split(built.card["command"])[1:]
    assert run_avbench(*again, "--workers", "0").stdout == done.stdout
    assert reference.load(tmp_path / "references/object-contact").card == built.card

    (tmp_path / "made").mkdir()
    for prompt, clip in zip(load("object-contact").prompts[:2], sorted(hits.glob("*.mp4")), strict=False):
        shutil.copy(clip, tmp_path / "made" / f"{prompt.id}-0.mp4")
    run = ("run", "clips:made", "--subset", "object-contact", "--limit", "2", "--workers", "0")
    run_avbench(*run, "--metric", "onset_rate", "--reference", "references")
    (score,) = json.loads((tmp_path / "runs/made/scores.json").read_text())["scores"]
    assert score["value"] is not None and score["reference"] is not None


def test_a_subset_without_a_rule_gets_the_nearest(hits):
    done = run_avbench("reference", "for", "toy-control", "--from", f"greatest-hits:{hits}", code=2)
    assert "rule 'toy-control' is unknown" in done.stderr
