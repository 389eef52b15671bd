"""A long clip stays in its file: its frames, its rows and its sentences are those of a clip in memory."""

import gc
import itertools
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from made_media import make, moving, tone

from avbench.core import Audio, Clip, MediaError
from avbench.features import worker
from avbench.features.current import current_rows
from avbench.features.measure import measure
from avbench.generation.sample import sample
from avbench.metrics.evaluate import chosen_metrics, features_of
from avbench.storage.media import StoredClip, read_clip, reading, write_clip
from avbench.storage.media.stored import StoredFrames
from avbench.storage.runs.folder import RunFolder
from avbench.subsets import loading

FILES = {
    "lossless": lambda path: make(path / "a.mkv", moving(12), 8),
    "with b-frames and sound": lambda path: make(
        path / "a.mp4", moving(12), 8, sound=("aac", tone(24000), 16000, Fraction(0))
    ),
    "of a variable rate": lambda path: make(
        path / "a.mp4", moving(4), 24, times=[0, 1, 3, 7], clock=Fraction(1, 24), options={}
    ),
    "rotated": lambda path: make(path / "a.mp4", moving(5), 8, rotation=90),
    "of oblong pixels": lambda path: make(path / "a.mp4", moving(5), 8, pixel=Fraction(4, 3)),
    "avi": lambda path: make(path / "a.avi", moving(12), 8, codec="libx264"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("fps", [None, 5, 48])
def test_stored_frames_are_those_in_memory(tmp_path, kind, fps):
    path = FILES[kind](tmp_path)
    held, stored = read_clip(path, fps=fps), read_clip(path, fps=fps, most_held=0)
    assert isinstance(stored, StoredClip) and not isinstance(held, StoredClip)
    frames = held.frames
    assert (stored.frames.shape, len(stored.frames)) == (frames.shape, len(frames))
    assert (stored.fps, stored.remarks, stored.seconds) == (held.fps, held.remarks, held.seconds)
    last = len(frames) - 1
    for chosen in (slice(None), slice(1, 3), slice(None, None, 2), [0, 1, 1, last], [last, 0], np.array([1, last])):
        np.testing.assert_array_equal(stored.frames[chosen], frames[chosen])
    for index in (0, last, -1, 1, 1, np.int64(0)):
        np.testing.assert_array_equal(stored.frames[index], frames[index])
    assert all(itertools.starmap(np.array_equal, zip(stored.frames, frames, strict=True)))
    np.testing.assert_array_equal(stored.whole().frames, frames)
    if held.audio is not None:
        np.testing.assert_array_equal(stored.whole().audio.waveform, held.audio.waveform)


@pytest.mark.parametrize(
    ("name", "codec", "x264", "fewer"),
    [
        ("a.mp4", "libx264", "bframes=3", True),
        ("a.mkv", "libx264", "bframes=6:b-pyramid=none", True),
        ("a.avi", "libx264", "bframes=8:b-pyramid=strict", True),
        ("a.mov", "libx264", "bframes=3:open-gop=1:keyint=10", True),
        ("a.mp4", "libx264", "bframes=0", False),
        ("a.mp4", "libx264", "bframes=3:tff=1", False),  # interlaced
        ("a.mp4", "libx265", "", False),
    ],
)
def test_frames_that_no_other_needs_are_left_out(tmp_path, monkeypatch, name, codec, x264, fewer):
    random = np.random.default_rng(0)
    images = np.clip(moving(40) + random.normal(0, 3, (40, 48, 64, 3)), 0, 255).astype(np.uint8)
    path = make(tmp_path / name, images, 24, codec=codec, pixels="yuv420p", x264=x264)
    held, decoded, decode = read_clip(path).frames, [], reading._decoded

    def counted(*args, **keywords):
        for found in decode(*args, **keywords):
            decoded.append(found)
            yield found

    monkeypatch.setattr(reading, "_decoded", counted)
    stored = read_clip(path, most_held=0).frames
    decoded.clear()
    np.testing.assert_array_equal(stored[[0, 39]], held[[0, 39]])
    assert (len(decoded) < 35) == fewer, len(decoded)
    for chosen in ([1, 2], [17], [5, 3], random.permutation(40)[:9], slice(None, None, 7), slice(None)):
        np.testing.assert_array_equal(stored[chosen], held[chosen])


def test_a_frame_that_is_missing_the_second_time_is_named():
    frames = StoredFrames(
        lambda _: iter((k, lambda: np.zeros((1, 1, 3), np.uint8)) for k in (0, 2)), (1, 1, 3), np.arange(3)
    )
    assert frames[2].shape == (1, 1, 3)
    with pytest.raises(MediaError, match="its frame 1 cannot be found again: the file was changed"):
        frames[1]


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_clip_is_held_up_to_the_bytes_that_are_allowed(tmp_path, name):
    write_clip(Clip(moving(4), 8), tmp_path / name, lossless=name == "a.mkv")
    one = moving(1).nbytes
    assert not isinstance(read_clip(tmp_path / name, most_held=5 * one), StoredClip)
    assert isinstance(read_clip(tmp_path / name, most_held=4 * one - 1), StoredClip)


def test_the_file_of_a_clip_that_nobody_needs_any_more_is_closed(tmp_path):
    write_clip(Clip(moving(12), 8), tmp_path / "a.mkv")
    gc.collect()
    gc.disable()
    try:
        before = len([*Path("/dev/fd").iterdir()])
        frames = read_clip(tmp_path / "a.mkv", most_held=0).frames
        assert len(frames[3]) and len([*Path("/dev/fd").iterdir()]) > before
        del frames
        assert len([*Path("/dev/fd").iterdir()]) == before
    finally:
        gc.enable()


def test_a_file_that_changes_meanwhile_is_named(tmp_path):
    path = tmp_path / "a.mkv"
    write_clip(Clip(moving(12), 8), path)
    stored = read_clip(path, most_held=0)
    write_clip(Clip(moving(4), 8), path)
    with pytest.raises(
        MediaError, match=r"a\.mkv was changed while it was measured: it no longer has the frames that it had"
    ):
        stored.whole()
    path.unlink()
    with pytest.raises(MediaError, match=r"a\.mkv cannot be read: no such file"):
        stored.whole()


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    _, made, _ = sample(folder, "toyworld:", {}, [loading.load("toy-object-contact").limited(1)], (0, 1))
    assert len(list(made)) == 2
    return folder


def rows_of(folder, features):
    for task in measure(folder, features)[1]:
        assert not task.failed
    return {feature: current_rows(folder, feature) for feature in features}


@pytest.mark.parametrize(
    "features",
    [
        ["flow-dis", "onsets", "lpips-alex", "lpips-alex-seeds", "vbench-flicker"],
        pytest.param([*features_of(chosen_metrics(None)), "i3d-stylegan-v"], marks=pytest.mark.slow),
    ],
    ids=["those of many frames", "the default ones"],
)
def test_rows_of_a_long_clip_are_the_same(run, tmp_path, monkeypatch, features):
    other = RunFolder(shutil.copytree(run.path, tmp_path / "other"))
    held = rows_of(run, features)
    monkeypatch.setattr(worker, "_MOST_HELD", 0)
    stored = rows_of(other, features)
    for feature in features:
        assert held[feature].keys() == stored[feature].keys() and len(held[feature]) == 2
        for key, row in held[feature].items():
            theirs = stored[feature][key]
            assert row.clip_sha256 == theirs.clip_sha256
            assert row.values is not None and row.values.keys() == theirs.values.keys()
            for name, value in row.values.items():
                np.testing.assert_array_equal(value, theirs.values[name], err_msg=f"{feature} {name}")


def test_a_feature_without_the_mark_gets_arrays(run, monkeypatch):
    seen = []

    class Whole(worker.feature_class("vbench-flicker")):
        streams = False

        def __call__(self, clip):
            seen.append(type(clip.frames))
            return super().__call__(clip)

    classes = worker.feature_class
    monkeypatch.setattr(worker, "_MOST_HELD", 0)
    monkeypatch.setattr(worker, "feature_class", lambda name: Whole if name == "vbench-flicker" else classes(name))
    rows_of(run, ["vbench-flicker", "onsets"])
    assert seen == [np.ndarray, np.ndarray]


def test_a_clip_that_vanishes_while_it_is_measured_gets_a_sentence(run, monkeypatch):
    read = worker.read_clip

    def read_and_lose(path, **keywords):
        clip = read(path, **keywords)
        path.unlink()
        return clip

    monkeypatch.setattr(worker, "_MOST_HELD", 0)
    monkeypatch.setattr(worker, "read_clip", read_and_lose)
    failed = [why for task in measure(run, ["vbench-flicker", "lpips-alex"])[1] for why in task.failed.values()]
    assert len(failed) == 4 and all(why.startswith("the clip cannot be read now: ") for why in failed)


PEAK = """
import re, resource, sys
from pathlib import Path
from avbench.features.table import feature_class
from avbench.features.worker import _MOST_HELD
from avbench.storage.media import read_clip
from avbench.storage.workers.worker_pool import one_thread
one_thread()
looks = [feature_class(name)() for name in ("i3d-k400", "lpips-alex", "flow-dis", "onsets", "levels", "musicnn")]
for look in looks:
    look(read_clip(Path(sys.argv[1]), most_held=_MOST_HELD))
if sys.platform == "darwin":
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20)
else:  # ru_maxrss begins at the memory of the process that started this one, which runs all tests
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 2**10)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip(tmp_path):
    """The default features of 48 more frames of 832x480, which take 55 MiB."""
    random = np.random.default_rng(0)
    noise = (random.random((1, 16000 * 4)) - 0.5).astype(np.float32)
    peaks = []
    for count in (16, 64):
        frames = np.stack([np.roll(moving(1, 480, 832)[0], 2 * k, axis=1) for k in range(count)])
        path = tmp_path / f"{count}.mp4"
        write_clip(Clip(frames, 16, Audio(noise[:, : count * 1000], 16000)), path, lossless=False)
        found = subprocess.run([sys.executable, "-c", PEAK, str(path)], check=True, capture_output=True, text=True)
        peaks.append(int(found.stdout))
    assert peaks[1] < peaks[0] + 25, peaks
    assert peaks[1] < 1024, peaks
