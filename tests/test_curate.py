"""Curation: rules against the toy world's truth, copies, filters, the audit, and a kill that leaves no trace."""

import contextlib
import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from command_line import run_avbench

from avbench.core import Audio, Clip, InputError
from avbench.curation import choice, duplicates, measures, pool, rules
from avbench.curation.camera import WithoutCamera
from avbench.curation.match import AMOUNTS
from avbench.curation.measures import MEASURES
from avbench.storage import shipped
from avbench.storage.media import write_clip
from avbench.storage.writing import append_line
from avbench.subsets import datasets
from avbench.subsets.datasets import opened
from avbench.subsets.lint import lint
from avbench.subsets.loading import load
from avbench.toyworld import make_clip, random_scene

RULES = ("large-motion", "object-contact", "ambient")


def scene(family, seed=0):
    return make_clip(random_scene(family, np.random.default_rng(seed)), seed)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A pool: a clip of each of five families, and spoilt or copied ones of the projectile."""
    folder = tmp_path_factory.mktemp("pool") / "clips"
    folder.mkdir()
    truth = {}
    for family in ("drop", "collide", "projectile", "pendulum", "drift"):
        clip, truth[f"{family}-3"] = scene(family, 3)
        write_clip(clip, folder / f"{family}-3.mkv")
    first, other = scene("projectile", 3)[0], scene("drift", 4)[0]
    frames = first.frames
    write_clip(replace(first, frames=np.repeat(frames[:1], 16, axis=0)), folder / "x-frozen.mkv")
    write_clip(replace(first, frames=np.ascontiguousarray(frames[:, :, 14:50])), folder / "x-portrait.mkv")
    mixed = np.concatenate([frames[:8], other.frames[8:, ..., ::-1] // 2])
    write_clip(replace(first, frames=mixed), folder / "x-cut.mkv")
    silent = Audio(np.zeros_like(first.audio.waveform), 16_000)
    write_clip(replace(first, audio=silent), folder / "x-mute.mkv")
    large = np.stack([cv2.resize(frame, (96, 96), interpolation=cv2.INTER_CUBIC) for frame in frames])
    write_clip(replace(first, frames=large), folder / "y-copy.mp4", lossless=False)
    titled = frames.copy()
    for frame in titled:
        cv2.putText(frame, "SALE", (4, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2)
    write_clip(replace(first, frames=titled), folder / "x-titled.mkv")
    (folder / "z-broken.mkv").write_bytes(b"not a clip")
    return opened(str(folder)), truth


@pytest.fixture(scope="module")
def work(clips, tmp_path_factory):
    """The work folder of the measured pool."""
    folder = tmp_path_factory.mktemp("work")
    list(pool.measure(pool.unmeasured(clips[0], folder), folder))
    assert not pool.unmeasured(clips[0], folder), "what has a row is not measured again"
    return folder


@pytest.fixture(scope="module")
def table(clips, work):
    return choice.load(clips[0], work)


def why(table, rule):
    decided = choice.decide(table, rules.read(), rule)
    return {one: decided.why(index) for index, one in enumerate(table["id"])}


def test_a_clip_is_measured_again_when_its_bytes_change_not_its_time(tmp_path):
    file, work = tmp_path / "a.mkv", tmp_path / "work"
    file.write_bytes(b"one")
    given = SimpleNamespace(entries=lambda: [SimpleNamespace(id="a", path=file)])
    (task,) = pool.unmeasured(given, work)
    append_line(pool.rows_path(work), {**pool._row(task), "missing": "not a clip"})
    os.utime(file, (1, 1))
    assert not pool.unmeasured(given, work)
    file.write_bytes(b"two")
    os.utime(file, (1, 1))
    assert len(pool.unmeasured(given, work)) == 1


@contextlib.contextmanager
def one_free_handle():
    """Of all file handles that this process may have, one is left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        os.close(held.pop())
        yield
    finally:
        for one in held:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("how", ["away before", "away while it is read", "too many open files"])
def test_a_clip_that_cannot_be_read_for_a_while_is_measured_later(tmp_path, monkeypatch, how):
    folder, work, away = tmp_path / "clips", tmp_path / "work", tmp_path / "away"
    folder.mkdir()
    write_clip(scene("drop")[0], folder / "ball.mkv")
    (folder / "broken.mkv").write_bytes(b"not a clip")
    ball, broken = pool.unmeasured(opened(str(folder)), work)
    list(pool.measure([broken], work))
    hashed = pool.file_sha256

    def hashed_and_gone(path):
        sha256 = hashed(path)
        folder.rename(away)
        return sha256

    if how == "too many open files":
        worker = pool._Worker()
        with one_free_handle():
            row = worker(ball)
        append_line(pool.rows_path(work), row)
    else:
        with monkeypatch.context() as patch:
            if how == "away before":
                folder.rename(away)
            else:
                patch.setattr(pool, "file_sha256", hashed_and_gone)
            list(pool.measure([ball], work))
        away.rename(folder)
    missing = dict(choice.load(opened(str(folder)), work)[["id", "missing"]].to_numpy())
    reasons = {
        "away before": "no such file or directory",
        "away while it is read": "ball.mkv does not exist",
        "too many open files": "too many open files",
    }
    assert missing["ball"] == f"the clip cannot be read now: {reasons[how]}"
    assert missing["broken"].startswith("broken.mkv cannot be read: it is ")
    assert pool.unmeasured(opened(str(folder)), work) == [ball]
    list(pool.measure([ball], work))
    assert not pool.unmeasured(opened(str(folder)), work)
    assert choice.load(opened(str(folder)), work)["missing"].isna().tolist() == [True, False]


def test_a_clip_is_measured_once_however_its_folder_is_written_and_wherever_it_lies(
    clips, work, table, tmp_path, monkeypatch
):
    folder = clips[0].folder
    monkeypatch.chdir(folder.parent)
    (tmp_path / "link").symlink_to(folder)
    for written in ("clips", "./clips/", f"../{folder.parent.name}/clips", f"{tmp_path}/link"):
        other = opened(written)
        assert not pool.unmeasured(other, work), written
        pd.testing.assert_frame_equal(choice.load(other, work), table)
    shutil.copytree(folder, tmp_path / "moved")
    (tmp_path / "moved" / "drop-3.mkv").rename(tmp_path / "moved" / "ball.mkv")
    moved = opened(str(tmp_path / "moved"))
    assert [one.id for one in pool.unmeasured(moved, work)] == ["z-broken"], "what went wrong there may not here"
    amounts = [one.set_index("id")["motion_amount"] for one in (choice.load(moved, work), table)]
    assert amounts[0]["ball"] == amounts[1]["drop-3"]


@pytest.mark.slow
def test_filters_say_why(table):
    reasons = why(table, "large-motion")
    remarks = [*choice.decide(table, rules.read(), "large-motion").remarks()]
    assert remarks[0].startswith(f"1 of {len(table)} clips could not be measured: z-broken.mkv cannot be read")
    slow = sum("motion_amount at least 0.3" in one for one in reasons.values())
    assert f"motion_amount at least 0.3 ({slow} clips)" in remarks[1]
    assert "motion_with_camera at least" in reasons["x-frozen"]
    assert "aspect at least 1" in reasons["x-portrait"]
    assert "cuts at most 0" in reasons["x-cut"]
    assert "text_share at most 0.005" in reasons["x-titled"]
    assert reasons["z-broken"].startswith("not measured: z-broken.mkv"), "no folder of this machine is named"
    assert "loudness at least -60" in why(table, "object-contact")["x-mute"]


def test_of_copies_the_one_with_more_pixels_stays(table):
    own = rules.Rules({"quality": (), "any": ()}, {"any": ""})
    decided = choice.decide(table[table["missing"].isna()].reset_index(drop=True), own, "any")
    place = {one: index for index, one in enumerate(decided.table["id"])}
    assert decided.kept[place["y-copy"]]
    small, large = place["projectile-3"], place["y-copy"]
    shares = []
    for name in ("picture_hash", "moving_hash", "sound_hash"):
        one, other = (decided.table[name][index] for index in (small, large))
        shares.append(100 * (int(one, 16) ^ int(other, 16)).bit_count() / (4 * len(one)))
    picture, moving, sound = (f"{share:.1f} % of the" for share in shares)
    said = f"a copy of y-copy: of the bits, {picture} picture's, {moving} moving parts' and {sound} sound's differ"
    assert decided.why(small) == said
    assert decided.kept[place["pendulum-3"]] and decided.kept[place["drift-3"]]


def test_a_copy_of_a_copy_says_so():
    """Of three clips of 320 bits, the first and the last resemble the middle one in 18 bits, and each other in 36."""
    bits = [0, 2**18 - 1, 2**36 - 1]
    hashes = {"picture_hash": [f"{one:080x}" for one in bits], "moving_hash": "0" * 80, "sound_hash": None}
    table = pd.DataFrame({"id": ["a", "b", "c"], "missing": None, **hashes, "pixels": [1.0, 2.0, 9.0]})
    table = table.assign(seconds=1.0)
    decided = choice.decide(table, rules.Rules({"quality": (), "any": ()}, {"any": ""}), "any")
    assert [decided.why(one) for one in range(3)] == [
        "a copy of c through clips that resemble both: "
        "of the bits, 11.2 % of the picture's and 0.0 % of the moving parts' differ",
        "a copy of c: of the bits, 5.6 % of the picture's and 0.0 % of the moving parts' differ",
        "kept",
    ]


def test_scenes_before_one_wall_are_no_copies():
    """Small bodies before one wall of twice the size: whole frames are near, what moves in them is not."""
    wall = soft_noise((128, 128), 8)[..., None].repeat(3, axis=2)
    rows = []
    for family in ("drop", "projectile", "oscillate", "collide"):
        frames = []
        for frame in scene(family, 3)[0].frames:
            body = np.ptp(frame.astype(np.int16), axis=2) >= 40
            frames.append(wall.copy())
            frames[-1][32:96, 32:96][body] = frame[body]
        small = [cv2.resize(frame, (96, 96), interpolation=cv2.INTER_AREA) for frame in frames]
        for name, seen in ((family, frames), (f"{family}-small", small)):
            looked_at = measures.spread(np.stack(seen))
            hashes = {"picture_hash": measures.picture_hash(looked_at), "moving_hash": measures.moving_hash(looked_at)}
            rows.append({"id": name, **hashes})
    table = pd.DataFrame(rows)
    whole_frames = duplicates.near(table, {"picture_hash": duplicates.PICTURE["picture_hash"]})
    assert len(whole_frames) > 4, "they take unlike scenes for copies"
    assert duplicates.near(table, duplicates.PICTURE).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert measures.moving_hash(np.stack([wall] * 5)) == "0" * 80


def test_loudness_is_that_of_all_channels_also_where_they_cancel_each_other():
    clip, _ = scene("drop", 3)
    wave = (0.02**0.5 * np.sin(np.arange(16000) / 9)[None]).astype(np.float32)
    found = [
        measures.Measured()(replace(clip, audio=Audio(np.concatenate([wave, other]), 16000)))["loudness"]
        for other in (wave, -wave, 0 * wave)
    ]
    assert found == pytest.approx([-20, -20, -23.01], abs=0.01)


def test_rules_against_the_worlds_truth(clips, table):
    truth = clips[1]
    ambient = [one for one, reasons in why(table, "ambient").items() if reasons == "kept"]
    assert "drift-3" in ambient and all(not truth[one].contacts for one in ambient if one in truth)
    struck = [one for one, reasons in why(table, "object-contact").items() if reasons == "kept"]
    known = [truth[one] for one in struck if one in truth]
    assert known and all(one.contacts for one in known)
    amounts = table.set_index("id")["motion_amount"]
    assert amounts[[one for one in truth if truth[one].displacement_rate > 0.25]].min() > amounts["drift-3"]


def soft_noise(shape, sigma, seed=1):
    """A texture of grey levels around 128."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32), (0, 0), sigma)
    return np.clip((noise - noise.mean()) / noise.std() * 50 + 128, 0, 255).astype(np.uint8)


def test_a_subject_that_the_camera_follows_moves_and_one_that_rests_does_not():
    wall, square = soft_noise((64, 160), 2), soft_noise((16, 16), 2, seed=2)
    for pixels in (1, 2, 3):
        followed, resting = [], []
        for left in range(32, 32 + 16 * pixels, pixels):
            followed.append(wall[:, left : left + 64].copy())
            followed[-1][24:40, 24:40] = square
            whole = wall.copy()
            whole[24:40, 56:72] = square
            resting.append(whole[:, left : left + 64])
        amounts = []
        for frames in (followed, resting):
            clip = Clip(np.stack(frames)[..., None].repeat(3, axis=3), Fraction(8), None)
            flow = WithoutCamera()
            flow(clip)
            amounts.append(flow.summary(clip)["motion_amount"])
        assert amounts[0] == pytest.approx(8 * pixels / np.hypot(64, 64), rel=0.1)
        assert amounts[1] < 0.005


def test_camera_is_taken_off():
    clip, _ = scene("drift", 5)
    wall = soft_noise((64, 128), 1.2)[..., None].repeat(3, axis=2)
    frames = np.stack([wall[:, 2 * index : 2 * index + 64] for index in range(16)])
    flow = WithoutCamera()
    seen = float(flow(replace(clip, frames=frames))["motion_amount"])
    found = flow.summary(clip)
    assert found["camera_amount"] == pytest.approx(16 / np.hypot(64, 64), rel=0.05)
    assert seen > 0.15 > 0.02 > found["motion_amount"]
    assert found["camera_shake"] < 0.02


def test_near_hashes_are_found_and_far_ones_are_not():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (400, 40), dtype=np.uint8)
    hashes[7] = hashes[391]
    hashes[7, 3] ^= 5
    assert duplicates.pairs(hashes, [(40, 0.06)]).tolist() == [[7, 391]]
    assert duplicates.pairs(hashes, [(3, 0.06), (37, 0.06)]).tolist() == [[7, 391]]
    assert duplicates.pairs(hashes, [(3, 0.06), (1, 0.06), (36, 0.06)]).tolist() == [], "two of eight bits differ"
    assert duplicates.groups(5, np.array([[1, 3], [3, 4]])).tolist() == [0, 1, 2, 1, 1]


def test_a_percentile_is_of_the_usable_pool(table):
    decided = choice.decide(table, rules.read(), "large-motion")
    usable = decided.holds[:, [one.rule == "quality" for one in decided.conditions]].all(axis=1)
    expected = np.percentile(table["motion_amount"][usable], 50)
    assert dict(zip((c.comparison for c in decided.conditions), decided.thresholds, strict=True))[
        "at_least_percentile"
    ] == pytest.approx(expected)


def test_the_subset_is_accepted_and_every_decision_is_kept(clips, table, tmp_path):
    out = tmp_path / "struck"
    decided = choice.decide(table, rules.read(), "object-contact")
    subset = choice.save(clips[0], decided, rules.read(), out)
    assert load(str(out)).prompts == subset.prompts
    assert lint([str(out)])[0] == []
    audit = pd.read_csv(out / "audit.csv")
    assert len(audit) == len(table) * (len(decided.conditions) + 1)
    assert audit["why"].notna().all() and set(audit["id"]) == set(table["id"])
    pd.testing.assert_frame_equal(pd.read_parquet(out / "audit.parquet")[["id", "value"]], audit[["id", "value"]])
    kept = set(audit["id"][audit["kept"]])
    manifest = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert {line["id"] for line in manifest} == kept == {one.id for one in subset.prompts}
    assert all(len(line["sha256"]) == 64 for line in manifest)
    agreed = pd.read_csv(out / "agreement.csv").set_index(["one", "two"])
    row = agreed.loc["object-contact", "ambient"]
    assert row["both"] == 0 and row["kappa"] < 0
    assert row[["both", "only_one", "only_two", "neither"]].sum() == table["missing"].isna().sum()
    written = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InputError, match=f"the subset in {out} stays as it is: give another --out"):
        choice.save(clips[0], dataclasses.replace(decided, kept=np.zeros(len(table), bool)), rules.read(), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == written


def test_kappa_is_left_out_where_a_condition_always_or_never_holds(tmp_path):
    conditions = {"always": 'measure = "seconds", at_least = 0', "never": 'measure = "seconds", at_least = 99'}
    conditions |= {"fast": 'measure = "motion_amount", at_least = 0.3', "loud": 'measure = "loudness", at_least = -20'}
    mine = tmp_path / "mine.toml"
    mine.write_text("".join(f"[{name}]\nconditions = [{{ {one} }}]\n" for name, one in conditions.items()))
    four = pd.DataFrame({"seconds": [2.0] * 4, "motion_amount": [0.5, 0.5, 0.1, 0.1], "loudness": [-9, -9, -9, -40.0]})
    agreed = choice.agreement(four.assign(missing=None), rules.read(mine)).set_index(["one", "two"])["kappa"]
    assert agreed["fast", "loud"] == 0.5  # they agree on 3 of 4, by chance on 2: (3/4 - 1/2) / (1 - 1/2)
    for pair in (("always", "never"), ("always", "fast"), ("never", "loud")):
        assert pd.isna(agreed[pair])


def test_the_card_names_licence_and_split_as_that_of_an_import(clips, work, tmp_path, monkeypatch):
    reads, reader = [], datasets.READERS["avsync15"]

    def read(folder):
        reads.append(folder)
        return reader.entries(folder)

    monkeypatch.setitem(datasets.READERS, "avsync15", replace(reader, read=read))
    names = sorted(path.name for path in clips[0].folder.glob("*-3.mkv"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "videos").symlink_to(clips[0].folder)
    for split, listed in (("train", names[:1]), ("test", [*names[1:], "gone.mkv"])):
        (tmp_path / "set" / f"{split}.txt").write_text("\n".join(listed))
    asked = ("curate", f"avsync15:{tmp_path}/set", "--rule", "ambient", "--out", tmp_path / "calm", "--work", work)
    done = run_avbench(*asked, "--split", "test", "--licence", "CC0-1.0", "--caption", "a scene", "--workers", 0)
    assert f"of {len(names)} clips" in done.stdout and len(reads) == 1, "the lists are read once"
    assert f"note: 1 of {len(names) + 1} clips are listed but missing: gone.mkv" in done.stderr
    made = load(str(tmp_path / "calm"))
    assert made.card["licence"] == "CC0-1.0" and made.card["origin"]["splits"] == ["test"]
    assert {one.video_caption for one in made.prompts} == {"a scene"}
    assert lint([str(tmp_path / "calm")])[0] == []
    done = run_avbench(*asked, "--split", "test", "--limit", 2, "--workers", 0, "--replace")
    assert "of 2 clips" in done.stdout
    ids = [Path(name).stem for name in names[1:]]
    spread = sorted(ids, key=lambda name: sha256(name.encode()).digest())[:2]
    assert {*pd.read_csv(tmp_path / "calm" / "audit.csv")["id"]} == {*spread} != {*ids[:2]}, "as an import takes them"
    assert "2 of 2 clips have no caption: their names are the captions" in done.stderr
    done = run_avbench(*asked, "--caption", "{colour}", code=2)
    assert "cannot be filled, 'colour'" in done.stderr


def test_a_subset_that_its_folder_holds_is_not_written_over(clips, table, tmp_path):
    out, written = tmp_path / "calm", rules.read()
    ambient, struck = (choice.decide(table, written, rule) for rule in ("ambient", "object-contact"))
    choice.save(clips[0], ambient, written, out)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    choice.save(clips[0], ambient, written, out)
    edited = first["prompts.jsonl"].replace(b'"drift 3"', b'"a ball drifts"')
    (out / "prompts.jsonl").write_bytes(edited)
    with pytest.raises(InputError) as refused:
        choice.save(clips[0], ambient, written, out)
    assert str(refused.value) == (
        f"{out} holds another prompts.jsonl than would be written: 1 prompt changed there: drift-3 (video_caption). "
        "Give another out (--out), or replace=True (--replace) to write over what is there"
    )
    with pytest.raises(InputError, match=r"only there: .*drift-3.* other fields of the card: .*rule, thresholds"):
        choice.save(clips[0], struck, written, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {**first, "prompts.jsonl": edited}
    choice.save(clips[0], ambient, written, out, replace=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    (out / "card.toml").unlink()
    (out / "prompts.jsonl").write_bytes(edited)
    with pytest.raises(InputError, match=r"another prompts.jsonl than would be written: .* it has no card.toml"):
        choice.save(clips[0], ambient, written, out)


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_bytes(clips, tmp_path):
    def command(out):
        return [sys.executable, "-m", "avbench", "curate", str(clips[0].folder), "--rule", "large-motion",
                "--out", str(out), "--workers", "0"]  # fmt: skip

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, broken = tmp_path / "a" / "fast", tmp_path / "b" / "fast"
    subprocess.run(command(whole), check=True, capture_output=True, env=environment)
    started = subprocess.Popen(command(broken), env=environment, stderr=subprocess.DEVNULL)
    rows = pool.rows_path(broken.with_name("fast.work"))
    while not (rows.exists() and rows.read_bytes().count(b"\n") >= 4):
        assert started.poll() is None
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    started.wait()
    count = rows.read_bytes().count(b"\n")
    assert 4 <= count < 17 and not broken.exists()
    subprocess.run(command(broken), check=True, capture_output=True, env=environment)
    assert rows.read_bytes().count(b"\n") == len([*clips[0].entries()])
    for name in sorted(path.name for path in whole.iterdir()):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    assert (whole / "sheet.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]\nconditions = [{ measure = 'speed', at_least = 1 }]", "measure 'speed' is unknown"),
        ("[a]\nconditions = [{ measure = 'cuts' }]", "cuts needs one of at_least"),
        ("[a]\nconditions = [{ measure = 'cuts', at_most = 'no' }]", "is not a number"),
        ("[a]\nconditions = [{ measure = 'cuts', at_most = nan }]", "nan is not a finite number"),
        ("[a]\nconditions = [{ measure = 'cuts', at_least_percentile = 110 }]", "from 0 to 100"),
        ("[a]\nconditions = [{ measure = 'cuts', at_least_percentile = -1 }]", "from 0 to 100"),
        ("[a]\nconditions = [{ measure = 'cuts', at_most = 0, or_none = 'false' }]", "must be true or false"),
        ("[a]\nconditions = []", "has an empty list of conditions, which would keep every clip"),
        ("[a]\n", "has no list of conditions"),
        ("a", "rules.toml: Expected"),
    ],
)
def test_wrong_rules_are_a_sentence(tmp_path, text, message):
    (tmp_path / "rules.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        rules.read(tmp_path / "rules.toml")


def test_shipped_rules():
    written = rules.read()
    assert {*RULES, "quality"} == set(written.conditions)
    assert all(one.measure in MEASURES and one.origin for rule in RULES for one in written.of(rule))
    with pytest.raises(InputError, match="'ambience' is unknown"):
        written.of("ambience")


def test_the_cards_state_the_limits_of_the_amounts_of_motion():
    limits = ", ".join(f"{most:g}" for most in AMOUNTS.values() if most < float("inf"))
    cards = [card.read_text() for card in shipped.folder("subsets").glob("*/card.toml")]
    stated = [line for card in cards for line in card.splitlines() if line.startswith("amount = [")]
    assert len(stated) == 3
    for line in stated:
        words, _, comment = line.partition("#")
        assert tomllib.loads(words) == {"amount": [*AMOUNTS]}
        assert f"to {limits} frame diagonals a second" in comment
