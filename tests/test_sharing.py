"""What is given to others names no folder of this machine: cards of references, baselines, pages."""

import json
import zipfile

import pytest
from command_line import run_avbench
from made_media import make, moving
from made_runs import evaluated, made_run, unsealed, values_of

from avbench.comparison import baseline_file, gate, plan
from avbench.core import Key, Sample
from avbench.report.page import page
from avbench.storage.reading import read_json
from avbench.storage.runs.folder import RunFolder
from avbench.storage.sharing import shared_command, without_folders
from avbench.storage.writing import write_sealed


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("clips:/home/me/real", "clips:real"),
        ("py:/home/me/model.py:Mine", "py:model.py:Mine"),
        ("C:\\Users\\me\\model.pt", "model.pt"),
        ("~/models/wan", "wan"),
        ("/home/me/a.safetensors+/srv/b.safetensors", "a.safetensors+b.safetensors"),
        ("no file matches; looked in /home/me/real for a-0", "no file matches; looked in real for a-0"),
        ("'/home/me/a.mkv' is cut short, at 3 m/s", "'a.mkv' is cut short, at 3 m/s"),
        *((same, same) for same in ("https://host.org/v1/videos/", "clips:rel/a/b", "and/or/not", "5 / 3 / 2", "")),
    ],
)
def test_only_the_folders_of_absolute_paths_are_cut(text, right):
    assert without_folders({text: [text, 1, None]}) == {right: [right, 1, None]}


def test_a_path_with_spaces_is_cut_where_it_exists(tmp_path):
    place = tmp_path / "my own" / "real clips"
    place.mkdir(parents=True)
    assert [without_folders(one) for one in (f"clips:{place}", f"{place}/")] == ["clips:real clips", "real clips"]


@pytest.fixture
def with_paths(tmp_path):
    """An evaluated run whose settings, failures and second run name folders of this machine."""
    folder = made_run(tmp_path / "run", count=3, names=["toy-control"])
    plain = unsealed(read_json(folder.path / "run.json"))
    plain |= {"model": f"clips:{tmp_path}/real", "settings": {"folder": f"{tmp_path}/real"}}
    write_sealed(folder.path / "run.json", plain)
    lost = min(folder.samples())
    folder.add_sample(Sample(Key(*lost), None, None, 0.0, failure=f"looked in {tmp_path}/real for it"))
    evaluated(folder, "onset_rate", "lpips_consecutive")
    folder.write_scores(
        folder.scores(), folder.evaluation().protocols, values_of(folder), {"against": f"{tmp_path}/real"}
    )
    return folder


def test_a_command_for_others_can_be_given_where_the_paths_lie(tmp_path):
    (tmp_path / "my clips").mkdir()
    words = ["avbench", "score", tmp_path / "my clips", "--limit", 3]
    options = {"licence": "CC BY 4.0", "metric": ["fvd", "fad"], "rows": None}
    written = "avbench score 'my clips' --limit 3 --licence 'CC BY 4.0' --metric fvd --metric fad"
    assert shared_command(words, options) == written


def test_a_baseline_names_no_folder_and_is_compared_as_before(with_paths, tmp_path):
    baseline = tmp_path / "b.zip"
    baseline_file.update(with_paths, baseline, "first")
    with zipfile.ZipFile(baseline) as packed:
        for name in ("run.json", "samples.jsonl", "scores.json", "baseline.json"):
            assert str(tmp_path) not in packed.read(name).decode(), name
        assert json.loads(packed.read("run.json"))["settings"]["folder"] == "real"
        packed.extractall(tmp_path / "unpacked")
    unpacked = RunFolder(tmp_path / "unpacked")
    assert (
        unpacked.scores() == with_paths.scores()
        and unpacked.evaluation().protocols == with_paths.evaluation().protocols
    )
    assert unpacked.samples().keys() == with_paths.samples().keys()
    found = gate.check(with_paths, baseline, plan.from_plain({"margin": {"onset_rate": 9}}))
    assert not [one for one in found if one.failed]


def test_the_origin_of_a_number_on_a_page_names_no_folder(with_paths, tmp_path):
    assert str(tmp_path) not in json.dumps(page._origin(with_paths))


def test_the_card_of_a_reference_names_no_folder(tmp_path):
    (tmp_path / "real").mkdir()
    for number in range(2):
        make(tmp_path / "real" / f"c{number}.mkv", moving())
    asked = ["--metric", "motion_amount", "--workers", 0, "--work", tmp_path / "work", "--out", tmp_path / "refs"]
    run_avbench("reference", "build", tmp_path / "real", "--licence", "CC0-1.0", *asked)
    card = (tmp_path / "refs" / "real" / "card.json").read_text()
    assert str(tmp_path) not in card and json.loads(card)["settings"]["folder"] == "real"
