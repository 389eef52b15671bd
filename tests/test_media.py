from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from made_media import FILM, grid_noise, make, make_folder, make_wav, moving, psnr, refusal, tone
from PIL import Image, ImageOps
from scipy.io import wavfile

from avbench.core.clip import Audio, Clip
from avbench.core.errors import InputError, MediaError
from avbench.storage.media import read_clip, write_clip

# --- what write_clip writes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fps", [FILM, Fraction(60000, 1001), Fraction(2997, 125), Fraction(8), Fraction(1, 7), Fraction(13217, 997)]
)
def test_lossless_keeps_every_rate_exactly(tmp_path: Path, fps: Fraction) -> None:
    clip = Clip(moving(), fps)
    write_clip(clip, tmp_path / "a.mkv")
    read = read_clip(tmp_path / "a.mkv")
    assert read.fps == fps
    assert read.audio is None
    np.testing.assert_array_equal(read.frames, clip.frames)


@pytest.mark.parametrize(("bits", "channels", "rate"), [(16, 1, 16000), (16, 2, 44100), (24, 1, 48000), (24, 2, 44100)])
def test_lossless_keeps_every_sample_exactly(tmp_path: Path, bits: int, channels: int, rate: int) -> None:
    sound = Audio(grid_noise(bits, channels, 22051), rate)
    write_clip(Clip(moving(), FILM, sound), tmp_path / "a.mkv")
    read = read_clip(tmp_path / "a.mkv")
    assert read.audio.sample_rate == rate
    np.testing.assert_array_equal(read.audio.waveform, sound.waveform)


def test_lossless_rounds_other_samples_to_24_bits_and_does_not_wrap_at_full_scale(tmp_path: Path) -> None:
    sound = np.array([[1.0, -1.0, 0.1, 1 / 3]], np.float32)
    write_clip(Clip(moving(2), 8, Audio(sound, 8000)), tmp_path / "a.mkv")
    np.testing.assert_allclose(read_clip(tmp_path / "a.mkv").audio.waveform, sound, rtol=0, atol=2.0**-23)
    write_clip(Clip(moving(2), 8, Audio(np.ones((2, 50), np.float32), 8000)), tmp_path / "b.mkv")
    np.testing.assert_array_equal(read_clip(tmp_path / "b.mkv").audio.waveform, np.float32(32767 / 32768))


@pytest.mark.parametrize(("height", "width"), [(37, 63), (1, 1), (48, 63)])
def test_odd_sizes_stay_exact(tmp_path: Path, height: int, width: int) -> None:
    clip = Clip(moving(4, height, width), 8)
    write_clip(clip, tmp_path / "a.mkv")
    write_clip(clip, tmp_path / "a.mp4", lossless=False)
    np.testing.assert_array_equal(read_clip(tmp_path / "a.mkv").frames, clip.frames)
    lossy = read_clip(tmp_path / "a.mp4").frames
    assert lossy.shape == clip.frames.shape
    assert psnr(lossy, clip.frames) > 35


@pytest.mark.parametrize(("samples", "channels", "rate"), [(22050, 2, 44100), (8001, 1, 16000), (100, 1, 48000)])
def test_mp4_is_near_and_has_the_same_length(tmp_path: Path, samples: int, channels: int, rate: int) -> None:
    clip = Clip(moving(), FILM, Audio(tone(samples, channels, rate), rate))
    write_clip(clip, tmp_path / "a.mp4", lossless=False)
    read = read_clip(tmp_path / "a.mp4")
    assert read.fps == FILM
    assert read.frames.shape == clip.frames.shape
    assert psnr(read.frames, clip.frames) > 35
    assert read.audio.waveform.shape == (channels, samples)
    if samples > 5000:  # the encoder's priming is gone: no shift is left
        middle = slice(2000, samples - 2000)
        assert np.abs(read.audio.waveform[:, middle] - clip.audio.waveform[:, middle]).max() < 0.02


@pytest.mark.parametrize("lossless", [True, False])
def test_same_clip_same_bytes(tmp_path: Path, lossless: bool) -> None:
    clip = Clip(moving(12, 96, 160), FILM, Audio(tone(20000, 2, 44100), 44100))
    files = [tmp_path / f"{k}{'.mkv' if lossless else '.mp4'}" for k in range(6)]
    for file in files:
        write_clip(clip, file, lossless=lossless)
    assert len({file.read_bytes() for file in files}) == 1
    assert sorted(tmp_path.iterdir()) == files


def test_a_refused_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"before")
    for sound in (Audio(tone(500), 44101), Audio(tone(500, 6), 48000)):
        with pytest.raises(MediaError, match=r"a\.mp4"):
            write_clip(Clip(moving(2), 8, sound), path, lossless=False)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("name", "lossless"), [("a.mp4", True), ("a.mkv", False), ("a.avi", True), ("a", False)])
def test_suffix_must_fit(tmp_path: Path, name: str, lossless: bool) -> None:
    with pytest.raises(MediaError, match=r"suffix \.mkv, a lossy one \(lossless=False\) \.mp4"):
        write_clip(Clip(moving(2), 8), tmp_path / name, lossless=lossless)


def test_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"nowhere.*a\.mkv"):
        write_clip(Clip(moving(2), 8), tmp_path / "nowhere" / "a.mkv")


# --- time -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".mkv"])
@pytest.mark.parametrize("rate", [Fraction(8), FILM, Fraction(60000, 1001)])
def test_containers_keep_rate_and_frames(tmp_path: Path, suffix: str, rate: Fraction) -> None:
    frames = moving()
    read = read_clip(make(tmp_path / f"a{suffix}", frames, rate))
    assert read.fps == rate
    assert read.frames.shape == frames.shape
    assert psnr(read.frames, frames) > 28


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".mkv"])
def test_one_frame_is_a_clip(tmp_path: Path, suffix: str) -> None:
    read = read_clip(make(tmp_path / f"a{suffix}", moving(1), 24))
    assert (len(read.frames), read.fps) == (1, 24)


@pytest.mark.parametrize("count", [1, 2, 3, 33])
@pytest.mark.parametrize("rate", [8, 10, 25, 30])
def test_gif_has_the_simplest_rate_that_fits_its_hundredths(tmp_path: Path, count: int, rate: int) -> None:
    read = read_clip(make(tmp_path / "a.gif", moving(count), rate))
    assert len(read.frames) == count
    # One or two equal delays say no more than themselves: 13 hundredths twice is 100/13.
    assert read.fps == rate or (count < 3 and abs(1 / read.fps - Fraction(1, rate)) < Fraction(1, 100))


def test_h264_in_avi_comes_in_order(tmp_path: Path) -> None:
    frames = moving()
    sound = ("pcm_s16le", tone(24000), 16000, Fraction(0))
    read = read_clip(make(tmp_path / "a.avi", frames, 8, codec="libx264", sound=sound))
    assert read.frames.shape == frames.shape
    assert psnr(read.frames, frames) > 28
    assert read.audio.samples == 24000


@pytest.mark.parametrize(("codec", "remarked"), [("aac", True), ("pcm_s16le", False)])
def test_aac_in_avi_is_said_to_be_late(tmp_path: Path, codec: str, remarked: bool) -> None:
    """AVI stores no delay to be taken off; a container that does gets no such sentence."""
    sound = (codec, tone(24000), 16000, Fraction(0))
    remarks = read_clip(make(tmp_path / "a.avi", moving(), 8, codec="libx264", sound=sound)).remarks
    assert any("AVI does not store the delay of AAC" in one for one in remarks) is remarked
    assert not read_clip(make(tmp_path / "a.mp4", moving(), 8, sound=("aac", *sound[1:]))).remarks


def test_dropped_frames_are_held_on_the_declared_grid(tmp_path: Path) -> None:
    frames = moving(4)
    path = make(tmp_path / "a.mp4", frames, 24, times=[0, 1, 3, 7], clock=Fraction(1, 24), options={})
    read = read_clip(path)
    assert read.fps == 24
    held = [int(np.argmax([psnr(frame, image) for image in frames])) for frame in read.frames]
    assert held == [0, 1, 1, 2, 2, 2, 2, 3]


def test_fps_resamples_by_holding(tmp_path: Path) -> None:
    frames = moving(12)
    write_clip(Clip(frames, FILM), tmp_path / "a.mkv")
    np.testing.assert_array_equal(read_clip(tmp_path / "a.mkv", fps=FILM).frames, frames)
    half = read_clip(tmp_path / "a.mkv", fps=FILM / 2)
    assert half.fps == FILM / 2
    np.testing.assert_array_equal(half.frames, frames[::2])
    np.testing.assert_array_equal(read_clip(tmp_path / "a.mkv", fps=FILM * 2).frames, frames.repeat(2, axis=0))
    with pytest.raises(InputError):
        read_clip(tmp_path / "a.mkv", fps=Fraction(-1))


# --- sound ------------------------------------------------------------------------------------------------------


def test_late_sound_gets_zeros_and_early_sound_is_trimmed(tmp_path: Path) -> None:
    samples = np.round(grid_noise(16, 1, 16000) * 32768 * 0.9) / 32767
    samples = samples.astype(np.float32)
    late = read_clip(make(tmp_path / "a.mkv", moving(), 8, sound=("flac", samples, 16000, Fraction(1, 2)))).audio
    assert late.samples == 24000
    assert not late.waveform[:, :8000].any()
    np.testing.assert_allclose(late.waveform[:, 8000:], samples * 32767 / 32768, atol=1e-6)

    path = make(tmp_path / "b.mkv", moving(), 8, times=list(range(4, 16)), sound=("flac", samples, 16000, Fraction(0)))
    early = read_clip(path).audio
    assert early.samples == 8000
    np.testing.assert_allclose(early.waveform, samples[:, 8000:] * 32767 / 32768, atol=1e-6)


def test_a_silent_track_is_zeros_and_no_track_is_none(tmp_path: Path) -> None:
    for name, lossless in (("a.mkv", True), ("a.mp4", False)):
        write_clip(
            Clip(moving(), 8, Audio(np.zeros((2, 24000), np.float32), 16000)), tmp_path / name, lossless=lossless
        )
        audio = read_clip(tmp_path / name).audio
        assert audio.waveform.shape == (2, 24000)
        assert not audio.waveform.any()
    write_clip(Clip(moving(), 8), tmp_path / "b.mp4", lossless=False)
    assert read_clip(tmp_path / "b.mp4").audio is None


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "flac"), (".webm", "libopus"), (".mp4", "aac")])
def test_a_sound_track_without_any_sound_is_none(tmp_path: Path, suffix: str, codec: str) -> None:
    nothing = np.zeros((1, 0), np.float32)
    clip = read_clip(make(tmp_path / f"a{suffix}", moving(8), 8, sound=(codec, nothing, 48000, Fraction(0))))
    assert clip.audio is None and len(clip.frames) == 8


def test_opus_in_webm_has_its_sample_count(tmp_path: Path) -> None:
    path = make(tmp_path / "a.webm", moving(), 8, sound=("libopus", tone(70001, 2, 48000), 48000, Fraction(0)))
    audio = read_clip(path).audio
    assert audio.waveform.shape == (2, 70001)
    assert np.abs(audio.waveform - tone(70001, 2, 48000))[:, 2000:-2000].max() < 0.05


def test_overshoot_is_clipped(tmp_path: Path) -> None:
    loud = np.sign(tone(48000, 1, 48000) + 1e-6).astype(np.float32)
    write_clip(Clip(moving(8), 8, Audio(loud, 48000)), tmp_path / "a.mp4", lossless=False)
    read = read_clip(tmp_path / "a.mp4")
    assert np.abs(read.audio.waveform).max() == 1 and not read.remarks, "as a codec overshoots"


@pytest.mark.parametrize(("peak", "remarks"), [(1.9, ("its sound peaks at 1.9 of full scale and",)), (1.37, ())])
def test_sound_far_above_full_scale_is_clipped_with_a_remark(tmp_path: Path, peak: float, remarks: tuple) -> None:
    wave = peak * tone(16000) / np.abs(tone(16000)).max()
    read = read_clip(make(tmp_path / "a.mkv", moving(8), 8, sound=("pcm_f32le", wave, 16000, Fraction(0))))
    np.testing.assert_array_equal(read.audio.waveform, np.clip(wave, -1, 1))
    assert len(read.remarks) == len(remarks) and all(map(str.startswith, read.remarks, remarks))
    make_folder(tmp_path / "f", ["1.png", "2.png"])
    wavfile.write(tmp_path / "f" / "audio.wav", 16000, wave[0])
    told = [one for one in read_clip(tmp_path / "f", fps=Fraction(2)).remarks if "peaks" in one]
    assert len(told) == len(remarks)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [(np.nan, "holds 1 sample that is NaN or inf"), (-np.inf, "NaN or inf"), (9830.4, "by 32768 of 16 bits")],
)
def test_sound_that_is_no_number_or_holds_integers_is_refused(tmp_path: Path, odd: float, reason: str) -> None:
    wave = tone(16000)
    wave[0, 9000] = odd
    with pytest.raises(MediaError, match=reason):
        read_clip(make(tmp_path / "a.mkv", moving(8), 8, sound=("pcm_f32le", wave, 16000, Fraction(0))))
    make_folder(tmp_path / "f", ["1.png", "2.png"])
    wavfile.write(tmp_path / "f" / "audio.wav", 16000, wave[0])
    with pytest.raises(MediaError, match=reason):
        read_clip(tmp_path / "f", fps=Fraction(2))


def test_doubles_beyond_float32_are_refused_without_a_warning(tmp_path: Path) -> None:
    make_folder(tmp_path / "f", ["1.png", "2.png"])
    wavfile.write(tmp_path / "f" / "audio.wav", 16000, np.array([0, 1e300, 0]))
    with pytest.raises(MediaError, match="holds 1 sample that is NaN or infinite"):
        read_clip(tmp_path / "f", fps=Fraction(2))


# --- pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_turns_the_picture_counterclockwise_as_the_matrix_says(tmp_path: Path, degrees: int) -> None:
    frames = moving(3)
    read = read_clip(make(tmp_path / "a.mp4", frames, 8, rotation=degrees))
    assert psnr(read.frames, np.rot90(frames, degrees // 90, axes=(1, 2))) > 28


def test_a_phone_held_upright_has_its_matrix_in_tkhd(tmp_path: Path) -> None:
    # Apart from PyAV's sense of direction: (0 1 -1 0) is what phones write to turn a picture clockwise.
    frames = moving(3)
    path = make(tmp_path / "a.mp4", frames, 8)
    data = path.read_bytes()
    plain = np.array([65536, 0, 0, 0, 65536], ">i4").tobytes()
    at = data.index(plain, data.index(b"tkhd"))
    path.write_bytes(data[:at] + np.array([0, 65536, 0, -65536, 0], ">i4").tobytes() + data[at + len(plain) :])
    read = read_clip(path)
    assert psnr(read.frames, np.rot90(frames, -1, axes=(1, 2))) > 28


def test_mirror_matrix_mirrors(tmp_path: Path) -> None:
    frames = moving(3)
    path = make(tmp_path / "a.mp4", frames, 8)
    data = path.read_bytes()
    at = data.index(np.array([65536, 0, 0, 0, 65536], ">i4").tobytes(), data.index(b"tkhd"))
    path.write_bytes(data[:at] + np.array([-65536], ">i4").tobytes() + data[at + 4 :])
    assert psnr(read_clip(path).frames, frames[:, :, ::-1]) > 28


@pytest.mark.parametrize(("height", "matrix"), [(48, (0.299, 0.114)), (720, (0.2126, 0.0722))])
def test_unnamed_colour_matrix_goes_by_the_height(tmp_path: Path, height: int, matrix: tuple[float, float]) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=8)
        video.width, video.height, video.pix_fmt = 16, height, "yuv444p"
        planes = np.stack([np.full((height, 16), value, np.uint8) for value in (100, 110, 190)])
        container.mux(video.encode(av.VideoFrame.from_ndarray(planes, format="yuv444p")))
        container.mux(video.encode(None))
    red, blue = matrix
    y, u, v = (100 - 16) / 219, (110 - 128) / 224, (190 - 128) / 224
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    np.testing.assert_allclose(read_clip(path).frames[0, 5, 5], np.array([r, g, b]) * 255, atol=1.5)


@pytest.mark.parametrize("height", [48, 720])
def test_yuv_that_is_tagged_as_rgb_goes_by_the_height(tmp_path: Path, height: int) -> None:
    frames = np.full((2, height, 64, 3), (200, 30, 60), np.uint8)
    matrix = "bt709" if height == 720 else "smpte170m"
    read = []
    for tag in (matrix, "GBR"):
        file = make(tmp_path / "a.mkv", frames, codec="libx264", pixels="yuv420p", x264=f"colormatrix={tag}")
        with av.open(str(file)) as container:
            assert next(container.decode(video=0)).colorspace == {"GBR": 0, "bt709": 1, "smpte170m": 6}[tag]
        read.append(read_clip(file).frames)
    np.testing.assert_array_equal(read[1][0], read[0][0])


def test_colours_that_cannot_be_converted_are_named(tmp_path: Path) -> None:
    for tag, name in (("YCgCo", "YCgCo"), ("ictcp", "ICtCp"), ("bt2020c", "BT.2020-CL")):
        file = make(tmp_path / "a.mkv", moving(2), codec="libx264", pixels="yuv420p", x264=f"colormatrix={tag}")
        assert f"cannot be read: its colours are in {name}, which this version of FFmpeg cannot" in refusal(file)


@pytest.mark.parametrize(
    ("limited", "luma", "seen"),
    [(True, (16, 126, 235), (0, 128, 255)), (False, (0, 126, 255), (0, 126, 255))],
)
def test_grey_video_has_the_range_that_it_states(tmp_path: Path, limited: bool, luma: tuple, seen: tuple) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        video = container.add_stream("ffv1", rate=8)
        video.width, video.height, video.pix_fmt = 30, 16, "gray"
        video.codec_context.color_range = 1 if limited else 2
        plane = np.repeat(np.array(luma, np.uint8), 10)[None].repeat(16, 0)
        frame = av.VideoFrame.from_ndarray(plane, format="gray")
        frame.color_range = 1 if limited else 2
        container.mux(video.encode(frame))
        container.mux(video.encode(None))
    image = read_clip(tmp_path / "a.mkv").frames[0, 8, [5, 15, 25]]
    np.testing.assert_array_equal(image, np.array(seen)[:, None].repeat(3, 1))


@pytest.mark.parametrize("height", [48, 720])
def test_mp4_colours_come_back(tmp_path: Path, height: int) -> None:
    frames = np.full((2, height, 64, 3), (200, 30, 60), np.uint8)
    write_clip(Clip(frames, 8), tmp_path / "a.mp4", lossless=False)
    assert np.abs(read_clip(tmp_path / "a.mp4").frames.astype(int) - frames).max() <= 3


def test_transparency_is_over_black(tmp_path: Path) -> None:
    image = np.full((8, 8, 4), 200, np.uint8)
    image[..., 3] = 128
    image[:4, :, 3] = 0
    (tmp_path / "f").mkdir()
    cv2.imwrite(str(tmp_path / "f" / "1.png"), image)
    frame = read_clip(tmp_path / "f", fps=Fraction(8)).frames[0]
    assert (frame[:4] == 0).all()
    assert (frame[4:] == 100).all()


# --- folders ----------------------------------------------------------------------------------------------------


def test_folder_goes_by_number(tmp_path: Path) -> None:
    frames = make_folder(tmp_path / "f", ["take3_2.png", "take3_3.BMP", *[f"take3_{k}.png" for k in range(4, 11)]])
    (tmp_path / "f" / "notes.txt").write_text("passed over")
    read = read_clip(tmp_path / "f", fps=FILM)
    assert read.fps == FILM
    assert read.audio is None
    np.testing.assert_array_equal(read.frames, frames)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_folder_of_lossy_images(tmp_path: Path, suffix: str) -> None:
    frames = make_folder(tmp_path / "f", [f"{k}{suffix}" for k in range(3)])
    assert psnr(read_clip(tmp_path / "f", fps=Fraction(8)).frames, frames) > 28


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".jpg", ".jpeg"])
@pytest.mark.parametrize("name", ["f", "What is this?", "a*b", "{a}", "take %d"])
def test_folder_of_images_of_many_bytes_and_any_name(tmp_path: Path, name: str, suffix: str) -> None:
    """libav looks at the first 2048 bytes, and reads such names as patterns."""
    (tmp_path / name).mkdir()
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 1), np.uint8).repeat(3, 2)
    path = tmp_path / name / f"1{suffix}"
    assert cv2.imwrite(str(path), image) and path.stat().st_size > 20_000
    frames = read_clip(tmp_path / name, fps=Fraction(8)).frames
    assert psnr(frames, cv2.imread(str(path))[None, ..., ::-1]) > 25
    if suffix in (".png", ".bmp"):
        np.testing.assert_array_equal(frames[0], image[..., ::-1])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_and_mirrored_as_their_exif_asks(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "f").mkdir()
    path = tmp_path / "f" / f"1{suffix}"
    Image.fromarray(moving(1)[0]).save(path, exif=exif.tobytes())
    meant = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert psnr(read_clip(tmp_path / "f", fps=Fraction(8)).frames, meant[None]) > 35


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["1.png", "2.png", "4.png"], r"4\.png.*frame 3 is missing"),
        (["1.png", "01.png"], r"1\.png has the same number as 01\.png"),
        (["1.png", "cover.png"], r"cover\.png has no number"),
        ([], "is a folder, and holds no frames"),
    ],
)
def test_folder_that_is_no_sequence(tmp_path: Path, names: list[str], reason: str) -> None:
    make_folder(tmp_path / "f", names)
    with pytest.raises(MediaError, match=reason):
        read_clip(tmp_path / "f", fps=Fraction(8))


def test_a_folder_of_clips_is_not_taken_for_frames_that_lack_a_rate(tmp_path: Path) -> None:
    write_clip(Clip(moving(2), 8), tmp_path / "c1.mkv")
    with pytest.raises(MediaError, match=r"is a folder, and holds no frames .*: name a clip in it, such as .*c1"):
        read_clip(tmp_path)


def test_a_sample_rate_that_aac_lacks_is_named(tmp_path: Path) -> None:
    clip = Clip(moving(2), 8, Audio(np.zeros((1, 100), np.float32), 12345))
    with pytest.raises(MediaError, match=r"AAC has no sample rate of 12345 Hz, only 7350, .* 96000: resample the"):
        write_clip(clip, tmp_path / "a.mp4", lossless=False)
    write_clip(clip, tmp_path / "a.mkv")
    found = read_clip(tmp_path / "a.mkv").audio
    assert found and (found.sample_rate, found.samples) == (12345, 100)


def test_folder_needs_fps_equal_sizes_and_whole_files(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    make_folder(folder, ["1.png", "2.png"])
    assert "fps" in refusal(folder)
    cv2.imwrite(str(folder / "3.png"), np.zeros((5, 7, 3), np.uint8))
    with pytest.raises(MediaError, match=r"3\.png is 7x5, but 1\.png is 64x48"):
        read_clip(folder, fps=Fraction(8))
    (folder / "3.png").write_bytes((folder / "2.png").read_bytes()[:-400])
    with pytest.raises(MediaError, match=r"3\.png"):
        read_clip(folder, fps=Fraction(8))


def test_folder_sound(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    make_folder(folder, ["1.png", "2.png"])
    codes = np.round(grid_noise(16, 2, 5001) * 32768)
    make_wav(folder / "audio.wav", codes, 22050)
    audio = read_clip(folder, fps=Fraction(8)).audio
    assert audio.sample_rate == 22050
    np.testing.assert_array_equal(audio.waveform, (codes / 32768).astype(np.float32))

    whole = (folder / "audio.wav").read_bytes()
    for unknown in (0, 0xFFFFFFFF, 0x7FFFF000):  # as a program writes it to a pipe
        size = unknown.to_bytes(4, "little")
        (folder / "audio.wav").write_bytes(whole[:4] + size + whole[8:40] + size + whole[44:])
        np.testing.assert_array_equal(read_clip(folder, fps=Fraction(8)).audio.waveform, audio.waveform)
    (folder / "audio.wav").write_bytes(whole[:-8000])
    with pytest.raises(MediaError, match=r"audio\.wav"):
        read_clip(folder, fps=Fraction(8))
    (folder / "audio.flac").write_bytes(b"x")
    with pytest.raises(MediaError, match="both"):
        read_clip(folder, fps=Fraction(8))


def test_sound_of_another_name_in_a_folder_is_told(tmp_path: Path) -> None:
    make_folder(tmp_path / "f", ["1.png", "2.png"])
    make_wav(tmp_path / "f" / "Sound.WAV", np.zeros((1, 100)), 8000)
    clip = read_clip(tmp_path / "f", fps=Fraction(8))
    assert clip.audio is None
    assert clip.remarks == ("its sound Sound.WAV was not read: only audio.wav or audio.flac is",)


# --- what is no clip --------------------------------------------------------------------------------------------


def test_not_media(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "no.mp4")
    for name, content, reason in (
        ("empty.mp4", b"", "empty"),
        ("text.txt", b"hello world\n" * 50, "cannot be read"),
        ("list.mp4", b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n", "cannot be read"),
        ("zeros.mkv", bytes(5000), "cannot be read"),
    ):
        (tmp_path / name).write_bytes(content)
        assert reason in refusal(tmp_path / name)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_audio_only(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path / f"a{suffix}", None, sound=("aac", tone(16000), 16000, Fraction(0)))
    assert "no video" in refusal(path)


def test_no_frames(tmp_path: Path) -> None:
    refusal(make(tmp_path / "a.mkv", moving(1)[:0]))


def test_picture_size_that_changes(tmp_path: Path) -> None:
    # Motion JPEG carries its size in every frame.
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for k, size in enumerate([(48, 64), (48, 64), (32, 64)]):
            ok, jpeg = cv2.imencode(".jpg", np.full((*size, 3), 90, np.uint8))
            assert ok
            packet = av.Packet(jpeg.tobytes())
            packet.pts = packet.dts = k
            packet.time_base, packet.stream = Fraction(1, 8), stream
            container.mux(packet)
    assert "64x48 to 64x32" in refusal(path)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi", ".gif", ".webm"])
def test_cut_short_files_are_refused_or_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix in (".mkv", ".mp4"):
        write_clip(Clip(moving(16), 8, Audio(tone(32000), 16000)), path, lossless=suffix == ".mkv")
    else:
        make(path, moving(16), 8)
    data = path.read_bytes()
    refused = 0
    for cut in [*range(1, len(data), len(data) // 30 + 1), *(len(data) - k for k in (400, 100, 20, 5, 1))]:
        path.write_bytes(data[:cut])
        try:
            read = read_clip(path)
        except MediaError:
            refused += 1
        else:
            assert len(read.frames) == 16
            assert read.audio is None or read.audio.samples == 32000
    assert refused >= 28


def test_every_damaged_byte_of_a_lossless_file_is_noticed_or_harmless(tmp_path: Path) -> None:
    clip = Clip(moving(6), FILM, Audio(grid_noise(16, 1, 4000), 16000))
    path = tmp_path / "a.mkv"
    write_clip(clip, path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for at in rng.integers(0, len(data), 60):
        path.write_bytes(data[:at] + bytes([data[at] ^ rng.integers(1, 256)]) + data[at + 1 :])
        try:
            read = read_clip(path)
        except MediaError:
            refused += 1
        else:
            np.testing.assert_array_equal(read.frames, clip.frames)
            np.testing.assert_array_equal(read.audio.waveform, clip.audio.waveform)
    assert refused > 50


def test_overwritten_stretch_of_an_mp4_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_clip(Clip(moving(16), 8), path, lossless=False)
    data = path.read_bytes()
    path.write_bytes(data[:-1500] + bytes(range(250)) * 6)
    refusal(path)
