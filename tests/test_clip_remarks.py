"""What about two folders' clips makes a comparison of them doubtful is said with the answer, and on the page."""

import shutil
from fractions import Fraction
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from command_line import run_avbench
from made_media import make, moving, tone
from made_runs import SUBSETS, evaluated, made_run

import avbench
from avbench.comparison import clip_remarks
from avbench.comparison.clip_remarks import remarks
from avbench.core import Key, Prompt, Row, Run, Sample, Subset, digest
from avbench.features.protocols import protocol_of
from avbench.metrics import reference
from avbench.metrics.reference_building import merge
from avbench.storage.reading import file_sha256, read_json
from avbench.storage.runs.folder import RunFolder
from avbench.storage.writing import write_json

SAME = "2 of the 3 clips that a and b share are the same file in both."
COPIES = "2 of 3 clips of b are copies of one another, for example c0 and c2."
FORM = "differ in form (c2: 64×48, 8 frames/s, 1 s in a, 64×48, 4 frames/s, 2 s in b), and numbers depend on it"


@pytest.fixture
def folders(tmp_path):
    """Two folders of three clips."""
    for number, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for clip in range(3):
            make(tmp_path / name / f"c{clip}.mkv", np.roll(moving(8), 3 * number + clip, axis=2), 8)
    return tmp_path / "a", tmp_path / "b"


def sampled(folders, tmp_path):
    """A run of each folder's clips."""
    prompts = tuple(Prompt(f"c{clip}", f"clip {clip}") for clip in range(3))
    subset = Subset("p", 1, prompts, None, {})
    runs = []
    for folder in folders:
        runs.append(RunFolder(tmp_path / "out" / folder.name))
        runs[-1].start(Run(folder.name, "clips:x", {}, {"p": subset.digest}, (0,), {}, {}), [subset])
        (runs[-1].path / "clips" / "p").mkdir(parents=True)
        for prompt in prompts:
            path = shutil.copy(folder / f"{prompt.id}.mkv", runs[-1].path / "clips" / "p" / f"{prompt.id}-0.mkv")
            runs[-1].add_sample(Sample(Key("p", prompt.id, 0), f"clips/p/{path.name}", file_sha256(path), 0.0))
    return runs


def copied(folders):
    a, b = folders
    shutil.copy(a / "c0.mkv", b / "c0.mkv")
    shutil.copy(a / "c1.mkv", b / "c1.mkv")
    shutil.copy(b / "c0.mkv", b / "c2.mkv")


def test_clips_of_one_form_in_files_of_their_own_need_no_word(folders, tmp_path):
    """A frame more or less included."""
    make(folders[1] / "c2.mkv", moving(20), 8)
    make(folders[0] / "c2.mkv", moving(21), 8)
    assert remarks(sampled(folders, tmp_path)) == []


@pytest.mark.parametrize(
    ("wave", "hertz", "heard"),
    [
        (tone(16000, rate=16000), 16000, None),
        (tone(16500, rate=16000), 16000, None),
        (tone(8000, rate=8000), 8000, "1 s at 8000 Hz, 1 channel"),
        (tone(16000, 2), 16000, "1 s at 16000 Hz, 2 channels"),
        (tone(8000), 16000, "0.5 s at 16000 Hz, 1 channel"),
        (None, 16000, None),
    ],
)
def test_sound_of_another_form_is_said_and_a_lack_of_it_is_not(folders, tmp_path, wave, hertz, heard):
    for folder, one, rate in zip(folders, (tone(16000), wave), (16000, hertz), strict=True):
        for clip in range(3):
            frames = np.roll(moving(8), 3 * (folder.name == "b") + clip, axis=2)
            sound = None if one is None else ("pcm_s16le", one, rate, Fraction(0))
            make(folder / f"c{clip}.mkv", frames, 8, sound=sound)
    said = f"(c0: 1 s at 16000 Hz, 1 channel in a, {heard} in b), and numbers depend on it"
    found = remarks(sampled(folders, tmp_path))
    assert len(found) == (heard is not None)
    assert all("differ in their sound's form" in one and said in one for one in found)


def test_a_prompt_that_two_subsets_share_has_no_copies(folders, tmp_path):
    shutil.copy(folders[0] / "c0.mkv", folders[0] / "c2.mkv")
    parts = {"p": ["c0", "c1"], "q": ["c0", "c2"]}
    subsets = [Subset(name, 1, tuple(Prompt(id, f"clip {id}") for id in ids), None, {}) for name, ids in parts.items()]
    run = RunFolder(tmp_path / "out")
    run.start(Run("a", "clips:x", {}, {one.name: one.digest for one in subsets}, (0,), {}, {}), subsets)
    for subset, prompt in [(name, id) for name, ids in parts.items() for id in ids]:
        (run.path / "clips" / subset).mkdir(parents=True, exist_ok=True)
        path = shutil.copy(folders[0] / f"{prompt}.mkv", run.path / "clips" / subset / f"{prompt}-0.mkv")
        run.add_sample(Sample(Key(subset, prompt, 0), f"clips/{subset}/{path.name}", file_sha256(path), 0.0))
    assert remarks([run]) == ["2 of 3 clips of out are copies of one another, for example c0 of p and c2."]


def test_copies_are_counted_within_a_run_and_between_two(folders, tmp_path):
    copied(folders)
    assert remarks(sampled(folders, tmp_path)) == [SAME, COPIES]


def test_clips_that_changed_places_are_said(folders, tmp_path):
    a, b = folders
    for one, other in (("c0", "c1"), ("c1", "c0"), ("c2", "c2")):
        shutil.copy(a / f"{one}.mkv", b / f"{other}.mkv")
    same, moved = remarks(sampled(folders, tmp_path))
    assert same == "1 of the 3 clips that a and b share are the same file in both."
    assert (
        moved == "2 clips are the same file in a and b, but of another subset, prompt or seed: c1 is c0 in the second."
    )


def test_a_clip_that_is_the_same_in_both_has_not_changed_places(folders, tmp_path):
    shutil.copy(folders[0] / "c0.mkv", folders[0] / "c1.mkv")
    shutil.copy(folders[0] / "c0.mkv", folders[1] / "c0.mkv")
    assert not [one for one in remarks(sampled(folders, tmp_path)) if "of another prompt" in one]


def test_another_rate_is_said_and_clips_that_are_gone_are_passed_over(folders, tmp_path):
    make(folders[1] / "c2.mkv", moving(8), 4)
    runs = sampled(folders, tmp_path)
    (found,) = remarks(runs)
    assert FORM in found
    next(runs[0].path.glob("clips/*/c2-0.mkv")).unlink()
    assert remarks(runs) == []


def test_a_reference_of_another_form_or_of_more_prompts_is_said(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(folders[0], tmp_path / "real")
    (folders[1] / "c2.mkv").unlink()

    def said(name):
        how = {"reference": tmp_path / "real", "metrics": "motion_amount", "workers": 0, "out": tmp_path / name}
        return "\n".join(avbench.score([*folders], **how).verdict)

    few = "The reference has 3 clips only: of more real clips the values that ≈ is read against may be others"
    assert said("alike").count(few) == 1
    with mock.patch.object(clip_remarks, "LEAST_CLIPS", 3):
        assert few not in said("alike")
    (built,) = (tmp_path / "cache/avbench/references").glob("*/card.json")
    merge([built.parent], tmp_path / "part", rows=2)
    of_part = {"reference": tmp_path / "part", "metrics": "motion_amount", "workers": 0, "out": tmp_path / "of part"}
    kept = few.replace("has 3 clips only", "keeps rows of 2 of its 3 clips only")
    assert "\n".join(avbench.score([*folders], **of_part).verdict).count(kept) == 1
    of_all = "The reference has clips of 3 prompts, of which b has 2: its values are those of all its clips"
    alone = "but differences in ≈ metrics rest on those of the same prompts alone."
    assert f"{of_all}, {alone}" in (alike := said("alike")) and "another form" not in alike and "copies" not in alike
    (tmp_path / "real" / "c2.mkv").rename(tmp_path / "real" / "c9.mkv")
    others = said("others")
    assert of_all.replace("b has 2", "a has 2") + ".\n" in others and f"{of_all}, {alone}" in others
    (tmp_path / "real" / "c9.mkv").rename(tmp_path / "real" / "c2.mkv")
    for clip in (tmp_path / "real").iterdir():
        make(clip, moving(16), 16)
    shutil.copy(tmp_path / "real" / "c0.mkv", tmp_path / "real" / "c2.mkv")
    form = "Clips of a and b have another form than the reference's (64×48, 8 frames/s, 1 s against 64×48, 16 frames/s"
    copies = "2 of 3 clips of the reference are copies of one another, for example c0 and c2, and each counts."
    assert form in (faster := said("faster")) and copies in faster


def test_sound_of_another_form_than_the_references_is_said(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "real").mkdir()
    for folder, hertz in zip((*folders, tmp_path / "real"), (16000, None, 8000), strict=True):
        for clip in range(3):
            sound = hertz and ("pcm_s16le", tone(hertz), hertz, Fraction(0))
            make(folder / f"c{clip}.mkv", np.roll(moving(8), 3 * clip, axis=2), 8, sound=sound)
    how = {"reference": tmp_path / "real", "metrics": "onset_rate", "workers": 0, "out": tmp_path / "out"}
    said = [one for one in avbench.score([*folders], **how).verdict if "than the reference's" in one]
    odd = "(1 s at 16000 Hz, 1 channel against 1 s at 8000 Hz, 1 channel), and numbers depend on it"
    assert len(said) == 1 and said[0].startswith(f"Clips of a have sound of another form than the reference's {odd}")


@pytest.mark.slow
def test_the_form_of_the_reference_of_the_comparison_counts(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, frames in (("alike", moving(8)), ("faster", moving(16))):
        (tmp_path / name).mkdir()
        for clip in range(3):
            make(tmp_path / name / f"c{clip}.mkv", frames, len(frames))
    how = {"metrics": "motion_amount,motion_frechet", "workers": 0}
    scored = {
        name: avbench.score([*folders], reference=tmp_path / name, out=tmp_path / f"by {name}", **how).runs
        for name in ("alike", "faster")
    }
    built = {name: Path(runs[0].evaluation().asked["reference"]) for name, runs in scored.items()}

    def said(name, given):
        found = avbench.compare([run.path for run in scored[name]], reference=given and built[given])
        return [sentence.partition(" (")[0] for sentence in found.verdict if "another form" in sentence]

    form = "Clips of a and b have another form than"
    assert said("alike", None) == said("alike", "alike") == []
    assert said("faster", None) == said("faster", "faster") == [f"{form} the reference's"]
    assert said("alike", "faster") == [f"{form} the reference's"]
    assert said("faster", "alike") == []
    page = avbench.compare([run.path for run in scored["alike"]], reference=built["faster"]).save_report(tmp_path)
    assert "another form than the reference" in page.read_text()
    with mock.patch.object(reference, "load", wraps=reference.load) as load:
        remarks([*scored["alike"], *scored["faster"]])
    assert sorted(call.args[0] for call in load.call_args_list) == sorted(built.values()), "each is read once"
    shutil.rmtree(built["alike"])
    (found,) = remarks([*scored["alike"], *scored["faster"]])[-1:]
    assert found.startswith(f"{form} the reference's"), "that of the other runs is gone"
    assert said("alike", "faster") == [f"{form} the reference's"]


def test_a_reference_that_does_not_know_its_clips_form_says_so_until_they_are_read(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(folders[0], tmp_path / "real")
    how = {"reference": tmp_path / "real", "metrics": "motion_amount", "workers": 0, "out": tmp_path / "out"}
    unknown = "card does not say which form its clips have, so they may have another than those of a and b. An earlier"
    assert unknown not in "\n".join(avbench.score([*folders], **how).verdict)
    (card,) = (tmp_path / "cache").glob("avbench/references/*/card.json")
    plain = read_json(card)
    known = plain.pop("first_clips")
    write_json(card, plain)
    assert "\n".join(avbench.compare([tmp_path / "out/a", tmp_path / "out/b"]).verdict).count(unknown) == 1
    assert unknown not in "\n".join(avbench.score([*folders], **how).verdict)
    assert read_json(card) == {**plain, "first_clips": known}


@pytest.mark.slow
def test_they_stand_with_the_answer_and_on_the_page(folders, tmp_path):
    copied(folders)
    more = ("--metric", "motion_amount", "--workers", 0, "--out", tmp_path / "out")
    output = run_avbench("score", *folders, *more).stdout
    assert SAME in output and COPIES in output
    runs = [tmp_path / "out" / name for name in ("a", "b")]
    assert SAME in run_avbench("compare", *runs).stdout
    page = (tmp_path / "out" / "report.html").read_text()
    assert SAME in page and COPIES in page


def test_clips_without_a_partner_are_counted_and_named(tmp_path):
    a, b = made_run(tmp_path / "a", count=9), made_run(tmp_path / "b", count=4, names=["toy-control"])
    first = sorted(prompt.id for prompt in SUBSETS["toy-control"].prompts[4:9])[0]
    (remark,) = remarks([a, b])
    assert remark.startswith(f"5 of 9 clips of a without a partner in b count in no comparison: {first}, ")
    assert remark.endswith(" and 2 more.") and remark.count(",") == 2
    (other,) = remarks([b, a])
    assert other.startswith("5 of 9 clips of a without a partner in b"), "whichever comes first"


def test_a_clip_of_a_prompt_of_two_subsets_is_named_by_its_subset(tmp_path):
    """The first prompt is in both subsets, and the second run has no clip of it."""
    subsets = [Subset(name, 1, (Prompt("cat", "A cat."), Prompt(name, "A dog.")), None, {}) for name in ("p", "q")]
    runs = [RunFolder(tmp_path / name) for name in "ab"]
    for run in runs:
        run.start(Run(run.path.name, "x:", {}, {one.name: one.digest for one in subsets}, (0,), {}, {}), subsets)
        for key in run.planned_keys():
            made = run is runs[0] or key.prompt != "cat"
            path = f"clips/{key.subset}-{key.prompt}.mkv" if made else None
            run.add_sample(
                Sample(key, path, digest([run.path.name, *key]) if made else None, 0.0, None if made else "lost")
            )
    (found,) = remarks(runs)
    assert found == "2 of 4 clips of a without a partner in b count in no comparison: cat of p, cat of q."


def test_runs_without_a_common_clip_are_compared_without_partners(tmp_path):
    runs = [made_run(tmp_path / str(seed), seeds=(seed,), names=["toy-control"]) for seed in (0, 1)]
    assert remarks(runs) == [
        "0 and 1 have no clip of the same prompt and seed, so their clips have no partners: more "
        "clips are needed to show a difference than with partners."
    ]


def test_a_mute_clip_is_said_once_for_all_metrics(tmp_path):
    folder = made_run(tmp_path / "a", names=["toy-control"])
    key, sample = next(iter(folder.samples().items()))
    for feature in ("onsets", "lpips-alex"):
        folder.add_row(protocol_of(feature), Row(key, sample.sha256, None, "the clip has no sound"))
    assert remarks([evaluated(folder)]) == [
        f"1 of 24 clips of a has no value of lpips consecutive and onset rate: the clip has no sound ({key.prompt})."
    ]


def test_each_reason_of_one_metric_has_a_sentence_of_its_own(tmp_path):
    folder = made_run(tmp_path / "a", names=["toy-control"])
    (mute, one), (short, other), *_ = folder.samples().items()
    folder.add_row(protocol_of("onsets"), Row(mute, one.sha256, None, "the clip has no sound"))
    folder.add_row(protocol_of("onsets"), Row(short, other.sha256, None, "the clip is too short"))
    assert sorted(remarks([evaluated(folder)])) == [
        f"1 of 24 clips of a has no value of onset rate: the clip has no sound ({mute.prompt}).",
        f"1 of 24 clips of a has no value of onset rate: the clip is too short ({short.prompt}).",
    ]
