"""Files as phones, screen recorders, discs and streaming write them: variable rates, pixels, tracks, fragments."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.stream import Disposition
from made_media import make, moving, psnr, refusal, tone
from PIL import Image

from avbench.core import Clip, MediaError
from avbench.storage.media import MEDIA_SUFFIXES, read_clip
from avbench.storage.media.timing import frame_grid

CLOCK = Fraction(1, 90000)


def ticks(seconds) -> list[int]:
    return [round(Fraction(time) / CLOCK) for time in seconds]


def thirty(count: int) -> list[Fraction]:
    return [Fraction(k, 30) for k in range(count)]


def jitter(count: int, rate: float, milliseconds: float, seed: int = 0) -> list[float]:
    off = np.random.default_rng(seed).normal(0, milliseconds / 1000, count)
    return [0.0, *(k / rate + float(off[k]) for k in range(1, count))]


def joined(pause: float) -> list[float]:
    """Ten pieces of 25 frames at 25 fps, with a pause after each."""
    return [k / 25 + k // 25 * pause for k in range(250)]


def grid_of(seconds, declared=()):
    times = [tick * CLOCK for tick in ticks(seconds)]
    usual = sorted(after - before for before, after in pairwise(times))[(len(times) - 1) // 2]
    return frame_grid(times, times[-1] + usual, CLOCK, declared)


def shown(clip: Clip, frames: np.ndarray) -> list[int]:
    """Which source frame each frame of a clip is."""
    return [int(np.argmin([np.abs(frame.astype(int) - one).mean() for one in frames])) for frame in clip.frames]


# --- variable rate ----------------------------------------------------------------------------------------------


def short_gap(at: int, gap: Fraction, count: int = 24) -> list[Fraction]:
    times = thirty(count)
    return [*times[:at], times[at - 1] + gap, *times[at + 1 :]]


@pytest.mark.parametrize("gap", [Fraction(1, 900), Fraction(1, 120), Fraction(1, 60)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_one_short_gap_leaves_the_rate(tmp_path: Path, gap: Fraction, suffix: str) -> None:
    frames = moving(24)
    times = ticks(short_gap(10, gap))
    read = read_clip(make(tmp_path / f"a{suffix}", frames, 30, codec="libx264", times=times, clock=CLOCK,
                          options={}, pixels="yuv420p"))  # fmt: skip
    assert (read.fps, len(read.frames)) == (30, 24)
    order = shown(read, frames)
    assert order[:9] == list(range(9)) and order[11:] == list(range(11, 24))
    (remark,) = read.remarks
    assert "read at 30 frames per second" in remark and "of its 24 frames left out" in remark


def test_jitter_shows_every_frame_once_and_at_other_rates_too(tmp_path: Path) -> None:
    frames = moving(24)
    times = ticks(jitter(24, 30, 2))
    path = make(tmp_path / "a.mp4", frames, 30, times=times, clock=CLOCK)
    read = read_clip(path)
    assert read.fps == 30
    assert shown(read, frames) == list(range(24))
    assert "with 0 of its 24 frames left out and 0 frames repeated" in read.remarks[0]
    half = read_clip(path, fps=Fraction(15))
    assert (half.fps, shown(half, frames)) == (15, list(range(0, 24, 2)))


@pytest.mark.parametrize(
    ("seconds", "rate", "count"),
    [
        ([*thirty(15), *(Fraction(1, 2) + Fraction(k, 24) for k in range(12))], (27, 30), (27, 30)),
        ([*thirty(20), *(Fraction(5, 2) + Fraction(k, 30) for k in range(20))], (30, 30), (95, 95)),  # a still screen
        ([Fraction(k, 30) for k in range(60) if k % 5 != 4], (30, 30), (59, 60)),
        ([Fraction(round(k * 2.5), 60) for k in range(24)], (24, 24), (24, 24)),  # films on television
        ([*(Fraction(k, 60) for k in range(30)), *(Fraction(1, 2) + time for time in thirty(15))], (60, 60), (59, 60)),
        (jitter(300, 30000 / 1001, 1), (29.9, 30), (299, 301)),
        (jitter(100, 60, 2), (59.9, 60), (99, 101)),
        (jitter(100, 14.7, 3), (14.5, 14.9), (99, 101)),
        (sorted(jitter(60, 30, 6)), (29.9, 30), (59, 61)),
        ([0, *(0.05 + k / 30 for k in range(30))], (30, 30), (31, 32)),
        ([0, 0.0334, 0.0668, 0.1, 0.5], (30, 30), (15, 20)),
        ([0, 0.1, 0.15, 0.4], (10, 10), (5, 7)),
        (joined(0.023), (25, 25), (255, 256)),
        ([round(time, 3) for time in joined(0.023)], (25, 25), (255, 256)),
        ([*thirty(75), *(2.5 + k / 60 for k in range(60))], (30, 30), (104, 106)),
    ],
)
def test_the_rate_is_that_of_most_frames(seconds, rate, count) -> None:
    grid = grid_of(seconds)
    assert rate[0] <= float(grid.rate) <= rate[1]
    assert count[0] <= grid.count <= count[1]
    assert grid.remark is not None
    errors = [abs(place / float(grid.rate) - float(time)) for place, time in zip(grid.places, seconds, strict=True)]
    assert max(errors) <= 1 / float(grid.rate)  # nothing is shown a whole frame too early or too late


def test_the_sound_keeps_step_with_most_frames_where_the_first_is_not(tmp_path: Path) -> None:
    """The first frame lasts half a frame too long: the others, and so the grid, begin 20 ms after it."""
    times = ticks([0, *(Fraction(6 + 4 * k, 100) for k in range(23))])
    ramp = np.arange(16000, dtype=np.float32)[None] / 32768
    path = make(tmp_path / "a.mov", moving(24), 25, codec="libx264", times=times, clock=CLOCK,
                sound=("pcm_s16le", ramp, 16000, Fraction(0)))  # fmt: skip
    read = read_clip(path)
    assert (read.fps, len(read.frames)) == (25, 24)
    assert read.audio.waveform[0, 0] * 32768 / 16000 == pytest.approx(0.02, abs=0.001)


def test_a_declared_grid_needs_frames_that_follow_one_another() -> None:
    # libav declares the smallest grid that holds all times: 120 for 30 and then 24 frames a second.
    mixed = [*thirty(15), *(Fraction(1, 2) + Fraction(k, 24) for k in range(12))]
    assert grid_of(mixed, [Fraction(120)]).rate < 31
    dropped = [Fraction(k, 24) for k in (0, 1, 3, 7)]
    assert grid_of(dropped, [Fraction(24)]).rate == 24
    assert list(grid_of(dropped, [Fraction(24)]).places) == [0, 1, 3, 7]


@pytest.mark.parametrize(("codec", "said"), [("libvpx-vp9", True), ("ffv1", False)])
def test_transparency_that_is_not_decoded_is_said(tmp_path: Path, codec: str, said: bool) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        video = container.add_stream(codec, rate=8)
        video.height, video.width = moving(4).shape[1:3]
        video.pix_fmt = "yuv420p"
        video.metadata["alpha_mode"] = "1"
        for image in moving(4):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
    assert ("its transparency is not decoded" in read_clip(tmp_path / "a.mkv").remarks) == said


def test_a_last_frame_that_is_held_is_shown_to_its_end(tmp_path: Path) -> None:
    pictures = [Image.fromarray(frame) for frame in moving(4)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100, 100, 100, 700])
    read = read_clip(tmp_path / "a.gif")
    assert (read.fps, len(read.frames)) == (10, 10)
    assert read.remarks == ("its last frame lasts 0.7 s and is repeated 6 times",)
    assert all(np.array_equal(frame, read.frames[3]) for frame in read.frames[4:])


def test_a_constant_rate_needs_no_remark(tmp_path: Path) -> None:
    for suffix in (".mp4", ".mkv", ".webm", ".avi", ".gif"):
        assert read_clip(make(tmp_path / f"a{suffix}", moving(6), 8)).remarks == ()


# --- pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "pixel", "degrees", "size"),
    [
        *((suffix, "4/3", None, (85, 48)) for suffix in (".mp4", ".mkv", ".avi")),
        *((suffix, "8/9", None, (64, 54)) for suffix in (".mp4", ".mkv", ".avi")),
        (".mp4", "4/3", 90, (48, 85)),  # the shape is that of the pixels as they are stored
        (".mp4", "8/9", 180, (64, 54)),
    ],
)
def test_pixels_become_square(tmp_path: Path, suffix: str, pixel: str, degrees: int | None, size) -> None:
    y, x = np.mgrid[:48, :64]
    ratio = float(Fraction(pixel))
    circle = ((x - 31.5) * max(ratio, 1)) ** 2 + ((y - 23.5) / min(ratio, 1)) ** 2 < 20**2
    frames = np.repeat(np.where(circle, 230, 30).astype(np.uint8)[None, ..., None], 3, axis=3).repeat(3, axis=0)
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    path = make(
        tmp_path / f"a{suffix}", frames, 8, codec=codec, pixels="yuv420p", pixel=Fraction(pixel), rotation=degrees
    )
    read = read_clip(path)
    assert (read.width, read.height) == size
    down, across = np.nonzero(read.frames[1, ..., 1] > 130)
    assert (np.ptp(across) + 1) / (np.ptp(down) + 1) == pytest.approx(1, abs=0.04)
    (remark,) = read.remarks
    assert pixel.replace("/", ":") in remark and "square" in remark


def test_an_unseen_deviation_and_what_cannot_be(tmp_path: Path) -> None:
    plain = read_clip(make(tmp_path / "a.mp4", moving(3), 8))
    near = read_clip(make(tmp_path / "b.mp4", moving(3), 8, pixel=Fraction(640, 639)))
    np.testing.assert_array_equal(near.frames, plain.frames)
    assert near.remarks == ()
    assert "pixels are declared as" in refusal(make(tmp_path / "c.mp4", moving(3), 8, pixel=Fraction(40)))


def grey_planes(form: str, height: int, grey: int) -> av.VideoFrame:
    frame = av.VideoFrame(64, height, form)
    bits = frame.format.components[0].bits
    for plane, value in zip(frame.planes, (round(219 * grey / 255 + 16), 128, 128), strict=True):
        kind = np.uint8 if bits <= 8 else np.uint16
        plane.update(np.full(plane.buffer_size // kind().itemsize, value << (bits - 8), kind).tobytes())
    frame.colorspace, frame.color_range = 1, 1
    return frame


@pytest.mark.parametrize(
    ("form", "height"),
    [("yuv420p10le", 48), ("yuv422p10le", 48), ("yuv420p12le", 48), ("yuv420p16le", 48), ("yuv444p10le", 48),
     ("yuv420p", 47), ("yuv422p", 47), ("yuv411p", 48), ("yuv440p", 48)],
)  # fmt: skip
def test_greys_stay_what_they_are(tmp_path: Path, form: str, height: int) -> None:
    path, greys = tmp_path / "a.mkv", list(range(0, 256, 15))
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=8)
        video.width, video.height, video.pix_fmt = 64, height, form
        video.codec_context.colorspace, video.codec_context.color_range = 1, 1
        for k, grey in enumerate(greys):
            frame = grey_planes(form, height, grey)
            frame.pts, frame.time_base = k, Fraction(1, 8)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    read = read_clip(path).frames[:, 20, 30].astype(int)
    assert read[-1].tolist() == [255, 255, 255]
    error = read - np.array(greys)[:, None]
    assert abs(error.mean()) <= 0.1 and abs(error).max() <= 1


@pytest.mark.parametrize("form", ["yuv420p", "yuv422p", "yuv444p", "yuvj420p"])
def test_usual_8_bit_colours_are_converted_as_ever(tmp_path: Path, form: str) -> None:
    codec = "mjpeg" if form == "yuvj420p" else "libx264"
    path = make(tmp_path / "a.mkv", moving(4), 8, codec=codec, pixels=form)
    with av.open(str(path)) as container:
        plain = []
        for frame in container.decode(video=0):
            frame.colorspace = 5 if frame.colorspace == 2 else frame.colorspace
            plain.append(frame.to_ndarray(format="rgb24"))
    np.testing.assert_array_equal(read_clip(path).frames, np.stack(plain))


def test_hdr_is_remarked_upon(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=8)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p10le"
        video.codec_context.color_trc = 16
        frame = grey_planes("yuv420p10le", 48, 90)
        frame.color_trc = 16
        container.mux(video.encode(frame))
        container.mux(video.encode(None))
    assert any("HDR (PQ)" in remark for remark in read_clip(path).remarks)


# --- tracks -----------------------------------------------------------------------------------------------------


def tracks(path: Path, pictures: list[int], sounds: list[int]) -> Path:
    """A file whose picture track i has grey 60·i, and whose sound track i has a tone of loudness 0.3·i; with marks."""
    with av.open(str(path), "w") as container:
        videos = [container.add_stream("libx264", rate=8, width=64, height=48, pix_fmt="yuv420p") for _ in pictures]
        audios = [container.add_stream("aac", rate=16000, layout="mono") for _ in sounds]
        for stream, marks in zip([*videos, *audios], [*pictures, *sounds], strict=True):
            stream.disposition = marks
        for number, video in enumerate(videos):
            for k in range(8):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 60 * number, np.uint8), format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 8)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        for number, audio in enumerate(audios):
            sound = av.AudioFrame.from_ndarray(number * tone(16000), format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = 16000, 0, Fraction(1, 16000)
            container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
    return path


DEFAULT, DESCRIBED = int(Disposition.default), int(Disposition.visual_impaired)


@pytest.mark.parametrize(
    ("suffix", "pictures", "sounds", "grey", "loud"),
    [
        (".mp4", [DEFAULT], [0, DEFAULT], 0, True),
        (".mkv", [DEFAULT], [0, DEFAULT], 0, True),
        (".mkv", [DEFAULT], [DESCRIBED, DEFAULT], 0, True),
        (".mkv", [DEFAULT], [DESCRIBED | DEFAULT, DEFAULT], 0, True),
        (".mkv", [DEFAULT], [DEFAULT, 0], 0, False),
        (".mkv", [DEFAULT], [0, 0], 0, False),
        (".mkv", [0, DEFAULT], [DEFAULT], 60, False),
        (".mp4", [0, DEFAULT], [DEFAULT], 60, False),
    ],
)
def test_the_default_track_is_read(tmp_path: Path, suffix, pictures, sounds, grey, loud) -> None:
    read = read_clip(tracks(tmp_path / f"a{suffix}", pictures, sounds))
    assert abs(read.frames.mean() - grey) < 6
    assert (np.abs(read.audio.waveform).max() > 0.2) == loud
    (remark,) = read.remarks
    assert "2 sound tracks" in remark if len(sounds) > 1 else "2 picture tracks" in remark
    assert ("default" in remark) and (f"number {2 if grey or loud else 1}" in remark)


@pytest.mark.parametrize(
    ("sounds", "loud", "words"),
    [
        (
            [0, DESCRIBED | DEFAULT],
            True,
            "number 2 was read, the default, though marked as for visually impaired people",
        ),
        ([DESCRIBED, 0], True, "number 2 was read, the first plain one, as none is marked as the default"),
        ([DESCRIBED], False, "its only sound track is marked as for visually impaired people"),
    ],
)
def test_a_track_for_the_visually_impaired_is_said(tmp_path: Path, sounds, loud, words) -> None:
    read = read_clip(tracks(tmp_path / "a.mkv", [DEFAULT], sounds))
    assert (np.abs(read.audio.waveform).max() > 0.2) == loud
    (remark,) = read.remarks
    assert remark.endswith(words)


# --- fragmented mp4 ---------------------------------------------------------------------------------------------


def streamed(path: Path, hertz: int, flags: str, between: int) -> Path:
    """Two seconds at 25 fps with a flash and a beep from 1.6 s on, written frame by frame, as streaming does."""
    sound = np.where(np.arange(2 * hertz) >= 1.6 * hertz, 0.5 * np.sin(np.arange(2 * hertz) * 0.4), 0)
    with av.open(str(path), "w", options={"movflags": flags} if flags else {}) as container:
        video = container.add_stream("libx264", rate=25, options={"bf": str(between), "g": "12"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=hertz, layout="mono")
        done = 0
        for k in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 255 * (k >= 40), np.uint8), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(video.encode(frame))
            until = 2 * hertz * (k + 1) // 50
            part = sound[None, done:until].astype(np.float32)
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = hertz, done, Fraction(1, hertz)
            container.mux(audio.encode(block))
            done = until
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize(("codec", "form", "up", "error"), [("aac", "fltp", 24, 0.06), ("alac", "s16p", 47, 1e-4)])
def test_sound_whose_container_rounds_the_times_of_blocks_is_whole(tmp_path: Path, codec, form, up, error) -> None:
    wave = (0.3 * np.sin(np.arange(144000) * 0.03)).astype(np.float32)[None]
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        video = container.add_stream("libx264", rate=8)
        audio = container.add_stream(codec, rate=48000, layout="mono")
        audio.format = form
        video.height, video.width = moving(24).shape[1:3]
        for image in moving(24):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        samples = np.round(wave * 32768).astype(np.int16) if form == "s16p" else wave
        block = av.AudioFrame.from_ndarray(samples, format=form, layout="mono")
        block.sample_rate, block.pts = 48000, 0
        for packet in [*audio.encode(block), *audio.encode(None)]:
            assert packet.pts is not None
            packet.pts = packet.dts = (packet.pts + up) // 48 * 48  # whole milliseconds, as ffmpeg does from Matroska
            container.mux(packet)
    sound = read_clip(tmp_path / "a.mov").audio
    assert sound is not None and sound.waveform.shape == (1, 144000)
    assert np.abs(sound.waveform - wave)[:, 2000:-2000].max() < error


@pytest.mark.parametrize(("late", "left"), [(Fraction(7, 10), 0.5), (Fraction(3, 2), 0.0)])
def test_sound_before_the_picture_is_left_out_and_said(tmp_path: Path, late: Fraction, left: float) -> None:
    read = read_clip(make(tmp_path / "a.mkv", moving(8), 8, sound=("pcm_s16le", tone(19200), 16000, -late)))
    assert (read.audio.waveform.shape[1] / 16000 if read.audio else 0.0) == pytest.approx(left, abs=0.002)
    assert [f"its sound starts {float(late):.2g} s before its picture; that part is left out"] == decided(read)


def decided(clip: Clip) -> list[str]:
    """What the reader decided, without the remark on clips whose sound does not end with the picture."""
    return [remark for remark in clip.remarks if not remark.startswith("its picture lasts")]


@pytest.mark.parametrize(("seconds", "said"), [(2.9, False), (3.1, False), (2.0, True), (4.5, True)])
def test_sound_that_does_not_end_with_its_picture_is_said(tmp_path: Path, seconds: float, said: bool) -> None:
    (remark,) = [*read_clip(placed(tmp_path / "a.mkv", [(0, level(0.1, seconds))])).remarks] or [None]
    assert remark == (f"its picture lasts 3.00 s and its sound {seconds:.2f} s" if said else None)


def placed(
    path: Path,
    parts: list[tuple[float, np.ndarray]],
    codec: str = "pcm_s16le",
    hertz: int = 16000,
    *,
    without: range = range(0),
    first: tuple[int, int] = (0, 0),
) -> Path:
    """Three seconds at 8 fps, with parts of sound that start when they say, whatever sounds then already.

    Packets whose numbers are in `without` are left out. `first` says how many samples earlier all packets start, and
    how many more than its own the first one lasts.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=8)
        video.height, video.width = moving(24).shape[1:3]
        audio, packets = container.add_stream(codec, rate=hertz, layout="mono"), []
        for start, wave in parts:
            data = np.round(wave[None] * 32767).astype(np.int16) if codec == "pcm_s16le" else wave[None]
            block = av.AudioFrame.from_ndarray(data, format=audio.format.name, layout="mono")
            block.sample_rate, block.time_base, block.pts = hertz, Fraction(1, hertz), round(start * hertz)
            packets += audio.encode(block)
        packets += audio.encode(None)
        for image in moving(24):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        packets[0].duration += first[1]
        for number, packet in enumerate(packets):
            packet.pts += first[1] * (number > 0) - first[0]
        for number, packet in enumerate(packets):
            packet.dts = min(other.pts for other in packets[number:])  # which may not fall
            if number not in without:
                container.mux(packet)
    return path


def level(value: float, seconds: float) -> np.ndarray:
    return np.full(round(16000 * seconds), value, np.float32)


@pytest.mark.parametrize(("longer", "remarks"), [(0.03, ()), (0.1, (0.3,))])
def test_where_sound_overlaps_each_part_begins_at_its_time(tmp_path: Path, longer: float, remarks) -> None:
    """As where files with priming and padding were joined: without a cut, each part comes later than the one before."""
    parts = [(k, level((k + 1) / 8, 1 + longer)) for k in range(4)]
    read = read_clip(placed(tmp_path / "a.mkv", parts))
    assert read.audio.samples == round((4 + longer) * 16000)
    for k, (_, part) in enumerate(parts):
        np.testing.assert_allclose(read.audio.waveform[0, 16000 * k :][:16000], part[:16000], atol=1e-4)
    assert decided(read) == [
        f"parts of its sound overlap, by {one} s in all: the later of two was read" for one in remarks
    ]


@pytest.mark.parametrize(
    "early",
    [
        lambda k: -0.015 * (k % 2),
        lambda k: 0.04 * (k % 3) / 2,  # three packets at a time
        lambda k: {1: 0.039, 2: 0.078}.get(k, 0.0),
        lambda k: 0.03 * np.sin(2.4 * k),
    ],
)
def test_sound_whose_times_jitter_is_whole(tmp_path: Path, early) -> None:
    parts = [(max(k / 1000, k / 25 - early(k)), level(k / 100, 0.04)) for k in range(75)]
    read = read_clip(placed(tmp_path / "a.mkv", parts))
    np.testing.assert_allclose(read.audio.waveform[0], np.concatenate([part for _, part in parts]), atol=1e-4)
    assert read.remarks == ()


def test_sound_whose_times_run_backwards_is_damaged(tmp_path: Path) -> None:
    words = refusal(placed(tmp_path / "a.mkv", [(2, level(0.1, 1)), (0, level(0.2, 1))]))
    assert "is damaged: the timestamps of its sound run backwards" in words


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_holes_in_the_sound_are_said(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    whole = [(0, tone(48000)[0])]
    found = read_clip(placed(path, whole, "aac", without=range(10, 20)))
    assert found.remarks == ("its sound has holes of 0.6 s in all, which were read as silence",)
    heard = np.abs(found.audio.waveform[0]) > 0.1
    assert not heard[11000:18000].any() and heard[:9000].any() and heard[21000:].any()
    assert read_clip(placed(path, whole, "aac")).remarks == ()


def test_a_hole_too_short_to_be_filled_does_not_count_as_a_lost_end(tmp_path: Path) -> None:
    whole = [(0, tone(144000, 1, 48000)[0])]
    read = read_clip(placed(tmp_path / "a.mp4", whole, "aac", 48000, without=range(50, 51)))
    assert (read.audio.samples, read.remarks) == (144000 - 1024, ())


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mkv", "aac", {}),
        (".mp4", "aac", {}),
        (".mp4", "aac", {"movflags": "frag_keyframe+delay_moov"}),
        (".webm", "libopus", {}),
    ],
)
def test_sound_that_starts_late_has_no_hole(tmp_path: Path, suffix: str, codec: str, options) -> None:
    sound = (codec, tone(48000, 1, 48000), 48000, Fraction(3, 2))
    read = read_clip(make(tmp_path / f"a{suffix}", moving(24), 8, sound=sound, options=options))
    assert np.argmax(np.abs(read.audio.waveform[0]) > 0.05) / 48000 == pytest.approx(1.5, abs=0.003)
    assert decided(read) == []


@pytest.mark.parametrize("late", [0.006, 0.015, 0.1])
def test_uncompressed_sound_that_starts_late_in_mov_is_whole(tmp_path: Path, late: float) -> None:
    wave = tone(32682)[0]  # the last block that libav gives has 938 samples
    read = read_clip(placed(tmp_path / "a.mov", [(late, wave)]))
    lead = round(late * 16000)
    assert read.audio.samples == lead + 32682
    np.testing.assert_allclose(read.audio.waveform[0, lead:], wave, atol=1e-4)


@pytest.mark.parametrize("first", [(8000, 1500), (1000, 1500), (0, 1500)])
def test_an_edit_list_that_starts_after_a_stretched_block_of_sound_leaves_the_end(tmp_path: Path, first) -> None:
    """As in a cut of a file without edit lists: libav leaves out more than the list says, at the beginning."""
    wave = np.where(np.arange(56000) < 40000, 0, 0.5 * np.sin(0.2 * np.arange(56000))).astype(np.float32)
    read = read_clip(placed(tmp_path / "a.mp4", [(0, wave)], "aac", first=first))
    starts = (40000 - first[0] + first[1]) / 16000
    assert np.argmax(np.abs(read.audio.waveform[0]) > 0.1) / 16000 == pytest.approx(starts, abs=0.005)
    assert (read.audio.samples, decided(read)) == (56000 - first[0] + first[1], [])


def test_an_end_that_an_edit_list_promises_and_the_sound_lacks_is_missed(tmp_path: Path) -> None:
    data = placed(path := tmp_path / "a.mp4", [(0, tone(56000)[0])], "aac", first=(8000, 1500)).read_bytes()
    at = data.rindex(b"stsz") + 12  # the sound's number of blocks follows, and its times say how long each lasts
    blocks = int.from_bytes(data[at : at + 4], "big")
    path.write_bytes(data[:at] + (blocks - 5).to_bytes(4, "big") + data[at + 4 :])
    assert "is cut short: its audio ends" in refusal(path)


FRAGMENTS = ["frag_keyframe", "frag_keyframe+empty_moov", "frag_keyframe+delay_moov", "+dash"]


@pytest.mark.parametrize("between", [0, 2])
@pytest.mark.parametrize("hertz", [8000, 16000, 22050, 24000, 44100, 48000])
@pytest.mark.parametrize("flags", ["", *FRAGMENTS])
def test_fragmented_files_are_whole_and_in_step(tmp_path: Path, flags: str, hertz: int, between: int) -> None:
    read = read_clip(streamed(tmp_path / "a.mp4", hertz, flags, between))
    assert (read.fps, len(read.frames), read.remarks) == (25, 50, ())
    assert np.argmax(read.frames[:, 20, 20, 0] > 128) == 40
    assert abs(read.audio.samples - 2 * hertz) <= 1024
    beep = np.argmax(np.abs(read.audio.waveform[0]) > 0.1) / hertz
    assert beep == pytest.approx(1.6, abs=0.002)


def test_sound_that_an_edit_list_of_a_fragmented_file_hides_is_no_lost_end(tmp_path: Path) -> None:
    """As `ffmpeg -ss` with `-c copy` writes it: the sound begins 0.3 s before the picture, and a list hides that."""
    source, options = streamed(tmp_path / "a.mp4", 16000, "", 2), {"movflags": FRAGMENTS[2] + "+empty_moov"}
    with av.open(str(source)) as old, av.open(str(path := tmp_path / "b.mp4"), "w", options=options) as new:
        tracks = [new.add_stream_from_template(one) for one in old.streams]
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = tracks[packet.stream.index]
                early = 4800 if packet.stream.type == "audio" else 0
                packet.pts, packet.dts = packet.pts - early, packet.dts - early
                new.mux(packet)
    read = read_clip(path)
    assert np.argmax(np.abs(read.audio.waveform[0]) > 0.1) / 16000 == pytest.approx(1.3, abs=0.002)
    assert abs(read.audio.samples - 1.7 * 16000) <= 1024
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"moof") + 200])
    assert "is cut short" in refusal(path)


@pytest.mark.parametrize("flags", FRAGMENTS)
def test_a_cut_fragment_is_noticed(tmp_path: Path, flags: str) -> None:
    path = streamed(tmp_path / "a.mp4", 24000, flags, 2)
    data = path.read_bytes()
    last = data.rindex(b"moof") + 200
    for cut in (last, len(data) // 2, len(data) // 3):
        path.write_bytes(data[:cut])
        refusal(path)


# --- copied and cut without re-encoding -------------------------------------------------------------------------

LONG = np.stack([np.repeat([[30 + 30 * (k // 8)], [30 + 30 * (k % 8)]], 32, 0).repeat(48, 1).T for k in range(50)])
"""Two seconds at 25 fps: the greys of a frame's halves are the digits of its number."""
CODECS = {
    "libx264": "x264-params=bframes={0}:b-pyramid=normal:b-adapt=0:keyint=12:scenecut=0:open-gop={1}:intra-refresh={2}",
    "libx265": "x265-params=log-level=none:bframes={0}:b-adapt=0:keyint=12:scenecut=0:open-gop={1}",
    "mpeg4": "bf={0} g=12 qmin=1 qmax=2",
}


def encoded(path: Path, codec: str, between: int, open_groups: bool, refresh: bool = False) -> Path:
    """`LONG` with a sound whose samples are the time in seconds, divided by 4."""
    with av.open(str(path), "w") as container:
        options = CODECS[codec].format(between, int(open_groups), int(refresh)) + " crf=10 threads=1 b=4000000"
        video = container.add_stream(codec, rate=25, options=dict(one.split("=", 1) for one in options.split()))
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for k, grey in enumerate(LONG):
            frame = av.VideoFrame.from_ndarray(grey.astype(np.uint8)[..., None].repeat(3, 2), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(video.encode(frame))
            ramp = np.round((np.arange(640) + 640 * k) / 64000 * 32768).astype(np.int16)
            block = av.AudioFrame.from_ndarray(ramp[None], format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = 16000, 640 * k, Fraction(1, 16000)
            container.mux(audio.encode(block))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def copied(
    source: Path, path: Path, group: int = 0, *, later: int = 0, zero: Fraction = Fraction(0), codes: bool = False
) -> tuple[int, int]:
    """Copy packets from the key frame of a group on, or from some packets later, with times less `zero`.

    Where the picture is cut, the sound begins at 0, a little earlier, as with FFmpeg. With `codes`, H.264 gets start
    codes in place of lengths. Returns the key frame's number, and how many frames follow it that are shown before it.
    """
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        tracks = [new.add_stream_from_template(one) for one in old.streams]
        tracks[0].time_base = Fraction(1, 50)  # as FFmpeg does for AVI
        filtered = BitStreamFilterContext("h264_mp4toannexb", old.streams[0], tracks[0]) if codes else None
        if not codes and (old.streams[0].codec_context.name, path.suffix) == ("h264", ".avi"):
            tracks[0].codec_context.codec_tag = "avc1"
        packets = [packet for packet in old.demux(video=0) if packet.size]
        place = [place for place, packet in enumerate(packets) if packet.is_keyframe][group]
        key, first = packets[place], packets[place + later]
        if group:
            zero = first.dts * first.time_base - Fraction(2, 25)
        old.seek(0)
        begun = False
        for packet in old.demux():
            if packet.dts is None:
                continue
            picture = packet.stream.type == "video"
            begun |= picture and packet.dts == first.dts
            if begun if picture else not group or packet.pts * packet.time_base >= zero:
                packet.stream = tracks[packet.stream.index]
                packet.pts -= int(zero / packet.time_base)
                packet.dts -= int(zero / packet.time_base)
                new.mux(filtered.filter(packet) if filtered and picture else packet)
    return round(key.pts * key.time_base * 25), sum(packet.pts < key.pts for packet in packets[place:])


def numbers(frames: np.ndarray) -> list[int]:
    tens, ones = (np.round((frames[:, 20, x, 0].astype(int) - 30) / 30).astype(int) for x in (16, 48))
    return (8 * tens + ones).tolist()


def assert_in_step(path: Path, first: int, apart: float) -> Clip:
    """Every frame from the first on is there, the sound is in step with it, and the file gives the same as memory."""
    read = read_clip(path)
    assert (read.fps, numbers(read.frames)) == (25, list(range(first, 50)))
    heard = read.audio.waveform[0, ::640][: len(read.frames)] * 4
    np.testing.assert_allclose(heard, np.arange(first, first + len(heard)) / 25, atol=apart)
    stored = read_clip(path, most_held=0)
    for some in (slice(None, None, 5), [3, 11], slice(None)):
        np.testing.assert_array_equal(stored.frames[some], read.frames[some])
    return read


@pytest.mark.parametrize("open_groups", [False, True])
@pytest.mark.parametrize("between", [0, 2, 3])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])  # FFmpeg writes no HEVC into AVI
def test_a_copy_in_avi_is_whole_and_in_step(tmp_path: Path, codec: str, between: int, open_groups: bool) -> None:
    source = encoded(tmp_path / "a.mov", codec, between, open_groups)
    for codes in (False, codec == "libx264"):
        copied(source, tmp_path / "a.avi", codes=codes)
        assert_in_step(tmp_path / "a.avi", 0, 0.001)


@pytest.mark.parametrize("group", [2, 3])
@pytest.mark.parametrize(
    ("codec", "suffix"),
    [(codec, suffix) for codec in CODECS for suffix in (".mov", ".mkv", ".avi") if codec + suffix != "libx265.avi"],
)
def test_a_cut_leaves_out_the_frames_that_lack_others(tmp_path: Path, codec: str, group: int, suffix: str) -> None:
    source = encoded(tmp_path / "a.mov", codec, 3, True)
    for codes in (False, codec + suffix == "libx264.avi"):
        first, lost = copied(source, path := tmp_path / f"b{suffix}", group, codes=codes)
        assert 0 < first < 40
        read = assert_in_step(path, first, 0.021 if suffix == ".avi" else 0.001)
        said = f"its first {lost} frames need others from before it was cut out: left out, as in players"
        assert (said in read.remarks) == (lost > 0 and suffix != ".mov")  # its edit list hides them


@pytest.mark.parametrize("suffix", [".mov", ".mkv", ".avi"])
def test_a_cut_before_no_key_frame_begins_with_the_next_one(tmp_path: Path, suffix: str) -> None:
    source = encoded(tmp_path / "a.mov", "libx264", 0, False)
    copied(source, path := tmp_path / f"b{suffix}", 1, later=5)
    read = assert_in_step(path, 24, 0.001)
    assert any("its first 7 frames need others" in remark for remark in read.remarks)


def test_a_cut_whose_first_frame_is_damaged_is_refused_with_what_to_do(tmp_path: Path) -> None:
    source = encoded(tmp_path / "a.mov", "libx264", 3, True)
    copied(source, path := tmp_path / "b.mov", 2)
    with av.open(str(path)) as container:
        first = bytes(next(container.demux(video=0)))
    data = path.read_bytes()
    path.write_bytes(data.replace(first[-8:], bytes(8)))
    assert "cut out of a longer clip" in (words := refusal(path)) and "`ffmpeg -i b.mov " in words


@pytest.mark.parametrize(("refresh", "later", "damaged"), [(False, 5, 7), (True, 0, 2)])
def test_damage_after_a_cut_is_no_part_of_the_cut(tmp_path: Path, refresh: bool, later: int, damaged: int) -> None:
    """The next key frame, or one that renews a stripe of the picture, is damaged: no frame comes before a later one."""
    source = encoded(tmp_path / "a.mov", "libx264", 0, False, refresh)
    copied(source, path := tmp_path / "b.mov", 1, later=later)
    assert any("others from before it was cut out" in remark for remark in read_clip(path).remarks)
    with av.open(str(path)) as container:
        content = bytes([*container.demux(video=0)][damaged])
    path.write_bytes(path.read_bytes().replace(content, bytes(4) + content[4:]))
    assert "damaged" in refusal(path)


def test_the_end_of_a_late_picture_in_avi_is_missed(tmp_path: Path) -> None:
    source = encoded(tmp_path / "a.mov", "libx264", 3, False)
    copied(source, path := tmp_path / "b.avi", 2)
    frames = len(read_clip(path).frames)
    with av.open(str(path)) as container:
        last = bytes([one for one in container.demux(video=0) if one.size][-1])
    data = path.read_bytes()
    at = data.rindex(last) - 8
    path.write_bytes(data[:at] + b"JUNK" + data[at + 4 :])  # the chunk is no longer the picture's
    assert frames > 20
    assert "is cut short: its video ends" in refusal(path)


@pytest.mark.parametrize("between", [0, 3])
@pytest.mark.parametrize("codec", CODECS)
def test_an_edit_list_that_starts_inside_a_frame_keeps_the_sound_in_step(tmp_path: Path, codec, between) -> None:
    source = encoded(tmp_path / "a.mov", codec, between, False)
    copied(source, path := tmp_path / "b.mov", zero=Fraction(7, 50))  # three frames and a half
    assert not assert_in_step(path, 4, 0.001).remarks


# --- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mov", ".m4v", ".3gp"])
def test_what_phones_write_is_read(tmp_path: Path, suffix: str) -> None:
    assert suffix in MEDIA_SUFFIXES
    frames = moving(4)
    read = read_clip(make(tmp_path / f"a{suffix}", frames, 8, codec="libx264"))
    assert psnr(read.frames, frames) > 28


def test_a_track_of_no_known_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="how long a frame lasts"):
        frame_grid([Fraction(0)] * 3, Fraction(0), CLOCK, [])
    assert issubclass(MediaError, ValueError)
