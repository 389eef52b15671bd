"""A report's folder: one writes it at a time, and what failed once is tried again."""

import base64
import threading

import numpy as np
import pytest
from command_line import run_avbench
from made_runs import evaluated, made_run
from processes import wait_until

from avbench.core import Audio, Clip, InputError, Key, MediaError, Run, Sample, Subset
from avbench.core.prompt import Prompt
from avbench.report.folder import locked
from avbench.report.page import clips
from avbench.storage.media import write_clip
from avbench.storage.reading import file_sha256, read_json
from avbench.storage.runs.folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    """A run of one good and one broken clip."""
    made = RunFolder(tmp_path / "run")
    subset = Subset("s", 1, (Prompt("a", "x"), Prompt("b", "x")), None)
    made.start(Run("run", "made:up", {}, {"s": subset.digest}, (0,), {}, {}), [subset])
    (made.path / "clips").mkdir()
    write_clip(Clip(np.zeros((4, 32, 32, 3), np.uint8), 8), made.path / "clips/a.mkv")
    (made.path / "clips/b.mkv").write_bytes(b"no clip")
    for name in "ab":
        path = made.path / f"clips/{name}.mkv"
        made.add_sample(Sample(Key("s", name, 0), f"clips/{name}.mkv", file_sha256(path), 0.0))
    return made


def made(folder, place, **options):
    count, tasks = clips.prepare([folder], place, **options)
    list(tasks)
    return count


@pytest.mark.parametrize("seconds", [0.25, 4.0])
def test_a_waveform_is_that_of_the_whole_sound_whatever_the_picture_lasts(tmp_path, seconds):
    """Half a second of picture, and one sample that can be heard, three quarters into the sound."""
    wave = np.zeros((1, round(16000 * seconds)), np.float32)
    wave[0, round(0.751 * wave.size)] = 0.25
    clips.encode(Clip(np.zeros((4, 32, 32, 3), np.uint8), 8, Audio(wave, 16000)), tmp_path, "x")
    card = clips.card(tmp_path, "x")
    assert (card["seconds"], card["sound_seconds"]) == (0.5, seconds)
    assert [*np.nonzero([*base64.b64decode(card["peaks"])])[0]] == [180] and len(base64.b64decode(card["peaks"])) == 240


def test_no_report_is_written_into_a_run_folder(folder):
    with (
        pytest.raises(InputError, match="run is a run folder, which holds measurements"),
        locked(folder.path, lambda: None),
    ):
        pass


def test_votes_are_read_before_anything_is_written(tmp_path):
    run = evaluated(made_run(tmp_path / "run", names=["toy-control"]))
    (tmp_path / "votes.json").write_text("{}")
    done = run_avbench("report", run.path, "--out", tmp_path / "out", "--votes", tmp_path / "votes.json", code=2)
    assert "not a file of votes" in done.stderr and not (tmp_path / "out").exists()


def test_a_full_disk_is_told_and_the_next_report_tries_again(folder, tmp_path, monkeypatch):
    good = folder.samples()[Key("s", "a", 0)].sha256

    def full(clip, path, **options):
        msg = f"{path} cannot be written: no space left on device"
        raise MediaError(msg)

    monkeypatch.setattr(clips, "write_clip", full)
    with pytest.raises(InputError, match="no space left on device"):
        made(folder, tmp_path / "media")
    assert not (tmp_path / f"media/{good}.json").exists()
    monkeypatch.undo()
    assert made(folder, tmp_path / "media") == 2
    assert "missing" not in clips.card(tmp_path / "media", good)


def test_what_could_not_be_shown_is_tried_again_and_what_is_gone_is_made_again(folder, tmp_path):
    place = tmp_path / "media"
    assert made(folder, place) == 2 and made(folder, place) == 1, "the broken one"
    (good,) = place.glob("*.mp4")
    good.unlink()
    assert made(folder, place) == 2 and good.is_file()
    for damaged in ("null", "[]", "{}"):
        good.with_suffix(".json").write_text(damaged)
        assert made(folder, place) == 2 and "width" in clips.card(place, good.stem)
    before = good.stat().st_mtime_ns
    assert made(folder, place, pictures=["flow"]) == 2
    assert good.stat().st_mtime_ns == before, "a picture is added to a clip that is not encoded again"
    next(place.glob("*.flow.mp4")).unlink()
    assert made(folder, place, pictures=["flow"]) == 2


def test_a_clip_that_was_gone_is_shown_when_it_is_back(folder, tmp_path):
    path, place = folder.path / "clips/a.mkv", tmp_path / "media"
    content, sha256 = path.read_bytes(), file_sha256(path)
    path.unlink()
    made(folder, place)
    assert "does not exist" in read_json(place / f"{sha256}.json")["missing"]
    path.write_bytes(content)
    made(folder, place)
    assert "missing" not in read_json(place / f"{sha256}.json")


def test_two_reports_of_one_folder_come_one_after_the_other(tmp_path):
    begun, order = threading.Event(), []

    def second():
        begun.wait(300)
        with locked(tmp_path / "out", lambda: order.append("waits")):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with locked(tmp_path / "out", lambda: order.append("never")):
        begun.set()
        wait_until(lambda: "waits" in order)
        order.append("first")
    thread.join(300)
    assert order == ["waits", "first", "second"]


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"the report in .*file/out cannot be written: not a directory"),
        locked(tmp_path / "file/out", lambda: None),
    ):
        pass
    with pytest.raises(InputError, match="cannot be written: no space left on device"), locked(tmp_path, lambda: None):
        raise OSError(28, "No space left on device", "x")


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "private").write_text("private")
    (tmp_path / ".lock").symlink_to(tmp_path / "private")
    with pytest.raises(InputError, match=r"the report in .* cannot be written"), locked(tmp_path, lambda: None):
        pass
    assert (tmp_path / "private").read_text() == "private"
