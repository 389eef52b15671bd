"""Media files for tests, written with PyAV alone."""

import wave
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from avbench.core.errors import MediaError
from avbench.storage.media import read_clip, write_clip

FILM = Fraction(24000, 1001)
VIDEO_OF = {".mp4": "libx264", ".mkv": "ffv1", ".webm": "libvpx-vp9", ".avi": "mpeg4", ".gif": "gif"}
PIXELS_OF = {".mkv": "bgr0", ".gif": "rgb8"}


def moving(count: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth frames that all differ and are alike under no turn or flip."""
    y, x = np.mgrid[:height, :width]
    frames = [
        np.stack([127 + 120 * np.sin(x / 9 + k / 3), 40 + 3 * y + 0 * x, np.full_like(x, 20 + 9 * k)], -1)
        for k in range(count)
    ]
    return np.clip(frames, 0, 255).astype(np.uint8)


def grid_noise(bits: int, channels: int, samples: int) -> np.ndarray:
    full = 2 ** (bits - 1)
    codes = np.random.default_rng(bits).integers(-full, full, (channels, samples))
    return (codes / full).astype(np.float32)


def tone(samples: int, channels: int = 1, rate: int = 16000) -> np.ndarray:
    one = 0.3 * np.sin(2 * np.pi * 440 * np.arange(samples) / rate)
    return np.tile(one.astype(np.float32), (channels, 1))


def make(
    path: Path,
    frames: np.ndarray | None,
    rate: Fraction | int = 8,
    *,
    codec: str | None = None,
    pixels: str | None = None,
    times: list[int] | None = None,
    clock: Fraction | None = None,
    rotation: int | None = None,
    pixel: Fraction | None = None,
    sound: tuple[str, np.ndarray, int, Fraction] | None = None,
    options: dict[str, str] | None = None,
    x264: str = "",
) -> Path:
    """Write a file with PyAV alone; `sound` is codec, samples, Hz and start in seconds, `x264` what x264 is told."""
    clock = clock or 1 / Fraction(rate)
    with av.open(str(path), "w", options=options or {}) as container:
        video = audio = None
        if frames is not None:
            video = container.add_stream(codec or VIDEO_OF[path.suffix], rate=Fraction(rate))
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = pixels or PIXELS_OF.get(path.suffix, "yuv420p")
            video.codec_context.time_base = clock
            if x264:
                video.codec_context.options = {"x264-params": x264}
            if pixel is not None:
                video.codec_context.sample_aspect_ratio = pixel
            if rotation is not None:
                video.set_display_rotation(rotation)
        if sound is not None:
            audio = container.add_stream(sound[0], rate=sound[2], layout=f"{len(sound[1])}c")
        for k, image in enumerate(frames if frames is not None else []):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = times[k] if times else k, clock
            container.mux(video.encode(frame))
        if video is not None:
            container.mux(video.encode(None))
        if audio is not None and sound[1].size:
            form = audio.codec_context.format.name
            data = sound[1]
            if not form.startswith("flt"):
                data = np.round(data * 32767).astype(np.int16)
            if not form.endswith("p"):
                data = data.T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), format=form, layout=f"{len(sound[1])}c")
            frame.sample_rate, frame.time_base = sound[2], Fraction(1, sound[2])
            frame.pts = round(sound[3] * sound[2])
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def make_folder(folder: Path, names: list[str]) -> np.ndarray:
    folder.mkdir()
    frames = moving(len(names))
    for name, frame in zip(names, frames, strict=True):
        assert cv2.imwrite(str(folder / name), frame[..., ::-1])
    return frames


def make_wav(path: Path, codes: np.ndarray, rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(codes))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(codes.T.astype("<i2").tobytes())


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((one.astype(float) - other) ** 2), 1e-9)))


def refusal(path: Path, **keywords: object) -> str:
    with pytest.raises(MediaError) as caught:
        read_clip(path, **keywords)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


def assert_same_in_its_file(feature, clip, folder):
    """Of a clip that stays in its file, a feature has the values of the clip in memory, and decodes the file once."""
    path = folder / "in-its-file.mkv"
    write_clip(clip, path)
    stored, again = read_clip(path, most_held=0), []
    decode = stored.frames._decode
    stored.frames._decode = lambda needed: again.append(1) or decode(needed)
    found, right = feature(stored), feature(read_clip(path))
    assert not again and found.keys() == right.keys()
    for name, value in right.items():
        np.testing.assert_array_equal(found[name], value)
