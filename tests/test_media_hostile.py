"""Damaged, odd and malicious files: a sentence each, no traceback, no hang, and never much memory."""

import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from made_media import make, make_folder, make_wav, moving, refusal, tone

from avbench.core import Audio, Clip, InputError, MediaError
from avbench.storage.media import read_clip, write_clip
from avbench.storage.media.budget import FRAMES_VARIABLE, MAX_PIXELS, MEMORY_VARIABLE, Budget
from avbench.storage.media.integrity import is_finished, is_fragmented

READER = """
import faulthandler, json, resource, sys
from fractions import Fraction
from pathlib import Path
from avbench.core import InputError
from avbench.storage.media import read_clip
if sys.platform == "linux":  # macOS does not limit it
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
for path in sorted(Path(sys.argv[1]).iterdir()):
    faulthandler.dump_traceback_later(30, exit=True)  # also out of a loop in libav
    try:
        clip = read_clip(path, fps=Fraction(8) if path.is_dir() else None)
        said = f"clip {clip.frames.shape}"
    except InputError as error:
        said = f"told {error}"
    except BaseException as error:
        said = f"FAULT {type(error).__name__}: {error}"
    try:  # its own peak: ru_maxrss also counts what the process that started this one had
        peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps([path.name, said, peak]), flush=True)
"""


def read_all(folder: Path) -> dict[str, str]:
    """What a process of its own says of each file of a folder; it must outlive them all in less than 1 GB."""
    done = subprocess.run(
        [sys.executable, "-c", READER, str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = {name: sentence for name, sentence, _ in lines}
    after = sorted(one.name for one in folder.iterdir())[len(found) : len(found) + 1]
    assert done.returncode == 0, f"died of {after}: {done.stderr[-2000:]}"
    assert [f"{name}: {one}" for name, one in found.items() if one.startswith("FAULT") or "\n" in one] == []
    peaks = {name: peak >> 20 for name, _, peak in lines}
    assert max(peaks.values()) < 1000, max(peaks, key=lambda name: peaks[name])
    return found


# --- mutations --------------------------------------------------------------------------------------------------


def seeds(folder: Path) -> dict[str, bytes]:
    """One small good file of each kind."""
    clip = Clip(moving(8), 8, Audio(tone(16000), 16000))
    write_clip(clip, folder / "a.mkv")
    write_clip(clip, folder / "a.mp4", lossless=False)
    make(folder / "f.mp4", moving(8), 8, sound=("aac", tone(16000), 16000, Fraction(0)),
         options={"movflags": "frag_keyframe+empty_moov"})  # fmt: skip
    for suffix in (".webm", ".avi", ".gif"):
        make(folder / f"a{suffix}", moving(8), 8)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Cut, flipped, overwritten, spliced or with an absurd number, mostly in the first bytes, where headers are."""
    new = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        if not new:
            break
        at = rng.randrange(min(len(new), rng.choice([64, 1500, len(new)])))
        match rng.randrange(7):
            case 0:
                new[at] ^= 1 << rng.randrange(8)
            case 1:
                new[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
            case 2:
                del new[at : at + rng.randrange(1, 16)]
            case 3:
                new[at:at] = rng.randbytes(rng.randrange(1, 16))
            case 4:
                number = rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**16, rng.randrange(2**32)])
                new[at : at + 4] = struct.pack(rng.choice("<>") + "I", number)
            case 5:
                other = rng.randrange(len(new))
                new[at : at + 32] = new[other : other + 32]
            case 6:
                new = new[: max(at, 1)]
    return bytes(new)


def test_mutated_files_are_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    rng = random.Random(19)
    for name, data in seeds(tmp_path / "seeds").items():
        for number in range(40):
            (corpus / f"{number:03}-{name}").write_bytes(mutated(data, rng))
        (corpus / f"twice-{name}").write_bytes(data + data)
        (corpus / f"zeros-{name}").write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
        (corpus / f"random-{name}").write_bytes(data[:32] + rng.randbytes(5000))
    for number in range(10):
        (corpus / f"noise-{number}").write_bytes(rng.randbytes(rng.randrange(1, 20000)))
    (corpus / "page.mp4").write_text("<html><body>404</body></html>")
    (corpus / "list.mkv").write_text("ffconcat version 1.0\nfile /etc/hostname\n")
    (corpus / "call.mp4").write_text("v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n")
    found = read_all(corpus)
    assert sum(one.startswith("told") for one in found.values()) > len(found) / 3
    assert all(corpus.name in one for one in found.values() if one.startswith("told"))


# --- what the sentence says -------------------------------------------------------------------------------------

MISTAKEN = {
    "page.mp4": (b"<!DOCTYPE html><html>404</html>", "it is a web page"),
    "answer.mp4": (b'{"error": "no such job"}', "it is a text"),
    "pointer.mp4": (b"version https://git-lfs.github.com/spec/v1\nsize 5\n", "it is a pointer of Git LFS"),
    "zeros.mkv": (bytes(5000), "it is zeros only, as an interrupted copy leaves them"),
    "picture.mp4": (cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes(), "it is a picture"),
    "sound.mp4": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(28), "it is sound"),
    "archive.mp4": (b"PK\x03\x04" + bytes(100), "it is a zip archive"),
    "noise.mp4": (random.Random(0).randbytes(5000), "it is not video in a form that avbench reads"),
}
"""Name → content, and what is said of it first; the decoder's own words follow in brackets."""


@pytest.mark.parametrize("name", MISTAKEN)
def test_a_file_that_is_no_video_is_told_by_what_it_is(tmp_path: Path, name: str) -> None:
    content, words = MISTAKEN[name]
    (tmp_path / name).write_bytes(content)
    assert re.search(rf"cannot be read: {words}.* \(invalid (data found|argument).*\)$", refusal(tmp_path / name))


def test_a_damaged_video_is_told_in_plain_words(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_clip(Clip(moving(8), 8), path, lossless=False)
    whole = path.read_bytes()
    content = whole.index(b"mdat") + 4
    path.write_bytes(whole[: whole.index(b"moov") - 4] + bytes(4) + whole[content - 4 :])  # its encoder was killed
    assert "cannot be read: it is cut off: its index is missing, which is written last (inv" in refusal(path)
    path.write_bytes(whole[:content] + bytes(one ^ 90 for one in whole[content:]))
    assert "cannot be read: it is damaged or cut off (invalid data found" in refusal(path)
    path.write_bytes(whole[: len(whole) // 2])
    assert f"is cut short: {len(whole) // 2} of at least {len(whole)} bytes are there" in refusal(path)
    make(tmp_path / "a.avi", moving(8), 8, codec="mpeg4")
    whole = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) * 9 // 10])
    assert f"is cut short: {len(whole) * 9 // 10} of at least {len(whole) - 8} bytes" in refusal(tmp_path / "a.avi")
    make_folder(tmp_path / "frames", ["0.png"])
    (tmp_path / "frames/0.png").write_bytes(whole)
    with pytest.raises(MediaError, match=r"0\.png cannot be read: it is video \(inv"):
        read_clip(tmp_path / "frames", fps=Fraction(8))


# --- small files, large memory ----------------------------------------------------------------------------------


def late_frame(path: Path, seconds: int) -> Path:
    return make(path, moving(4), 8, times=[0, 10, 35, seconds * 1000], clock=Fraction(1, 1000))


def large_gif(path: Path, side: int) -> Path:
    data = bytearray(make(path, moving(12), 8).read_bytes())
    data[6:10] = struct.pack("<HH", side, side)
    path.write_bytes(data)
    return path


def large_png(path: Path, side: int) -> Path:
    packed = zlib.compressobj(9)
    rows = b"".join(packed.compress(bytes(1 + (side + 7) // 8)) for _ in range(side)) + packed.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def still_sound(path: Path, seconds: int) -> Path:
    """Silence in FLAC takes hardly a byte."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=8, width=64, height=48, pix_fmt="bgr0")
        audio = container.add_stream("flac", rate=48000, layout="7.1")
        container.mux(video.encode(av.VideoFrame.from_ndarray(moving(1)[0], format="rgb24")))
        container.mux(video.encode(None))
        for number in range(seconds // 10):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 480000 * 8), np.int16), format="s16", layout="7.1")
            block.sample_rate, block.pts, block.time_base = 48000, number * 480000, Fraction(1, 48000)
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return path


@pytest.mark.slow
def test_small_files_do_not_become_gigabytes(tmp_path: Path) -> None:
    bombs = tmp_path / "bombs"
    bombs.mkdir()
    for seconds in (360, 3600, 10**7):
        late_frame(bombs / f"late-{seconds}.mkv", seconds)
    for side in (5000, 20000, 65535):
        large_gif(bombs / f"{side}.gif", side)
    for side in (5000, 12000):
        (bombs / f"png-{side}").mkdir()
        large_png(bombs / f"png-{side}" / "0.png", side)
    still_sound(bombs / "still.mkv", 100)
    assert all(path.is_dir() or path.stat().st_size < 200_000 for path in bombs.iterdir())
    found = read_all(bombs)
    assert {name for name, one in found.items() if one.startswith("clip")} <= {"png-5000"}
    assert "36,000" in found["late-3600.mkv"] and FRAMES_VARIABLE in found["late-3600.mkv"]
    assert "pixels" in found["20000.gif"] and "pixels" in found["png-12000"]


def test_sound_of_one_sample_a_second_does_not_become_gigabytes_where_it_is_resampled(tmp_path: Path) -> None:
    """A wav of 200 kB that lasts 28 hours: at 16 kHz it would take 6 GB."""
    for name, seconds in (("long", 100_000), ("short", 100)):
        make_folder(tmp_path / name, ["0.png", "1.png"])
        make_wav(tmp_path / name / "audio.wav", np.zeros((1, seconds), np.int16), 1)
    assert "MiB of memory for its sound; at most 195.3 MiB are allowed" in refusal(tmp_path / "long", fps=Fraction(8))
    assert read_clip(tmp_path / "short", fps=Fraction(8)).audio.samples == 100


def test_a_size_just_above_its_limit_is_another_number_in_words() -> None:
    """195.41 MiB are more than 195.36: to one decimal both were 195.4."""
    limit = round(195.36 * 2**20)
    with pytest.raises(MediaError, match=r"would take 195\.5 MiB of memory for its sound; at most 195\.3 MiB"):
        Budget(Path("a.wav"), 8 * limit, 100).check_sound(round(195.41 * 2**18), 1, 16000)
    Budget(Path("a.wav"), 8 * limit, 100).check_sound(limit // 4, 1, 16000)


def test_the_budget_can_be_changed_and_names_itself(tmp_path: Path, monkeypatch) -> None:
    path, loud = tmp_path / "a.mkv", tmp_path / "b.mkv"
    clip = Clip(moving(40, 96, 128), 8)
    write_clip(clip, path)
    write_clip(Clip(moving(2), 8, Audio(tone(80000), 16000)), loud)
    monkeypatch.setenv(MEMORY_VARIABLE, "1")
    message = f"MiB are allowed for a file of its size (change it by the environment variable {MEMORY_VARIABLE})"
    assert f"MiB of memory for its frames; at most 1.0 {message}" in refusal(path)
    assert f"MiB of memory for its sound; at most 0.1 {message}" in refusal(loud)
    monkeypatch.setenv(MEMORY_VARIABLE, "16")
    np.testing.assert_array_equal(read_clip(path).frames, clip.frames)
    assert read_clip(loud).audio.samples == 80000
    monkeypatch.setenv(FRAMES_VARIABLE, "39")
    assert "40 frames; at most 39 are read" in refusal(path)
    monkeypatch.setenv(FRAMES_VARIABLE, "40")
    assert len(read_clip(path).frames) == 40
    assert "80 frames; at most 40" in refusal(path, fps=Fraction(16))
    make_folder(tmp_path / "f", [f"{k}.png" for k in range(41)])
    assert "41 frames; at most 40" in refusal(tmp_path / "f", fps=Fraction(8))


@pytest.mark.parametrize("value", ["-1", "0", "1.5", "many", "9" * 40])
def test_a_wrong_budget_is_the_user_s_mistake(tmp_path: Path, monkeypatch, value: str) -> None:
    write_clip(Clip(moving(2), 8), tmp_path / "a.mkv")
    monkeypatch.setenv(MEMORY_VARIABLE, value)
    with pytest.raises(InputError, match=MEMORY_VARIABLE) as caught:
        read_clip(tmp_path / "a.mkv")
    assert not isinstance(caught.value, MediaError)


def test_the_budget_lets_real_clips_through() -> None:
    small = Budget.of(Path("a.mp4"), 20_000)
    small.check_frames(121, (1920, 1080))  # five seconds of black
    Budget.of(Path("a.mp4"), 2_000_000).check_frames(600, (1920, 1080))
    Budget.of(Path("a.mp4"), 1_000_000).check_frames(24, (7680, 4320))
    assert MAX_PIXELS >= 7680 * 4320
    with pytest.raises(MediaError, match=r"would take .* MiB of memory"):
        small.check_frames(600, (1920, 1080))


# --- what is no file --------------------------------------------------------------------------------------------


@pytest.mark.timeout(20)
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "is a named pipe" in refusal(tmp_path / "pipe.mp4")
    (tmp_path / "link.mkv").symlink_to("/dev/zero")
    assert "is a device" in refusal(tmp_path / "link.mkv")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.mp4"))
        assert "is a socket" in refusal(tmp_path / "s.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    refusal(tmp_path / "loop.mp4")
    make_folder(tmp_path / "f", ["1.png", "2.png"])
    os.mkfifo(tmp_path / "f" / "audio.wav")
    with pytest.raises(MediaError, match=r"audio\.wav is a named pipe"):
        read_clip(tmp_path / "f", fps=Fraction(8))
    (tmp_path / "f" / "audio.wav").unlink()
    os.mkfifo(tmp_path / "f" / "3.png")
    with pytest.raises(MediaError, match=r"3\.png is a named pipe"):
        read_clip(tmp_path / "f", fps=Fraction(8))


@pytest.mark.timeout(20)
def test_nothing_is_written_through_what_lies_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"before")
    (tmp_path / ".a.part.mkv").symlink_to(tmp_path / "outside")
    os.mkfifo(tmp_path / ".b.part.mkv")
    for name in ("a.mkv", "b.mkv"):
        write_clip(Clip(moving(2), 8), tmp_path / name)
        assert len(read_clip(tmp_path / name).frames) == 2
    assert (tmp_path / "outside").read_bytes() == b"before"


def test_names_that_cannot_be(tmp_path: Path) -> None:
    for name in ("a" * 5000, "a\0b.mp4"):
        with pytest.raises(MediaError):
            read_clip(tmp_path / name)


def test_only_streaming_files_are_fragmented(tmp_path: Path) -> None:
    for name, data in seeds(tmp_path).items():
        (tmp_path / name).write_bytes(data)
        assert is_fragmented(tmp_path / name) == (name == "f.mp4")


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("clip.mp4", "mpeg4", {}),
        ("clip.mkv", "mpeg4", {}),
        ("clip.webm", "libvpx-vp9", {}),
        ("clip.avi", "mpeg4", {}),
        ("stream.mp4", "mpeg4", {"movflags": "frag_keyframe+empty_moov"}),
        ("stream.mkv", "mpeg4", {"live": "1"}),
    ],
)
def test_a_file_shows_that_it_was_closed_unless_it_was_made_for_streaming(tmp_path, name, codec, options):
    halfway = tmp_path / f"halfway-{name}"
    with av.open(str(tmp_path / name), "w", options={**options, "flush_packets": "1"}) as container:
        stream = container.add_stream(codec, rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        noise = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), np.uint8)
        for frame in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        halfway.write_bytes((tmp_path / name).read_bytes())
        container.mux(stream.encode())
    assert not is_finished(halfway)
    assert is_finished(tmp_path / name) == name.startswith("clip")
