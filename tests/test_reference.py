"""References are remade to the same bytes, are what the code makes, and are refused where they do not fit."""

import dataclasses
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from avbench import reference, shipped, subsets
from avbench.core import InputError, Key
from avbench.evaluate import chosen_metrics, features_of
from avbench.features.sound import Onsets
from avbench.generators import Request
from avbench.generators.toyworld import ToyWorld
from avbench.measure import feature_class

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


def test_the_same_command_gives_the_same_bytes(small_subset, tmp_path):
    for attempt in ("one", "two"):
        options = ["--seeds", "2", "--work", tmp_path / f"work-{attempt}", "--out", tmp_path / attempt]
        command = [sys.executable, "-m", "avbench", "reference", "build", small_subset, *options]
        subprocess.run([str(part) for part in command], check=True, capture_output=True)
    for name in ("columns.safetensors", "clips.csv", "card.json"):
        assert (tmp_path / "one/small" / name).read_bytes() == (tmp_path / "two/small" / name).read_bytes()
    built = reference.load(tmp_path / "one/small")
    assert built.card["clips"] == dict.fromkeys(FEATURES, 4)
    one_prompt = subsets.load(str(small_subset)).limited(1)
    assert len(built.columns(Onsets.protocol, one_prompt)[0]["onset_rate"]) == 2
    (tmp_path / "one/small/clips.csv").write_text("prompt,seed\n")
    with pytest.raises(InputError, match=r"clips\.csv is missing or not the file that its card describes"):
        reference.load(tmp_path / "one/small")


@pytest.mark.parametrize("name", subsets.TOY_SUBSETS)
def test_shipped_references_are_what_the_code_makes(name):
    subset = subsets.load(name)
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
            for value, again in feature_class(feature)()(made.clip).items():
                if value in columns:
                    np.testing.assert_allclose(columns[value][index], again, rtol=1e-3, atol=1e-3)


def test_unlike_references_are_refused():
    subset = subsets.load("toy-control")
    known = reference.find(subset)
    other = dataclasses.replace(Onsets.protocol, threshold=9.0)
    with pytest.raises(InputError, match=r"threshold: 9\.0 against 2\.5"):
        known.columns(other, subset)
    with pytest.raises(InputError, match="another version of that subset"):
        known.columns(Onsets.protocol, dataclasses.replace(subset, version=2))
    with pytest.raises(InputError, match="has no nothing"):
        known.columns(dataclasses.replace(Onsets.protocol, name="nothing"), subset)
