"""Writes clips to files; the same clip always gives the same bytes."""

from fractions import Fraction
from pathlib import Path

import av
import av.container
import numpy as np
from av.video.reformatter import VideoReformatter

from avbench.core.clip import Audio, Clip
from avbench.core.errors import InputError, MediaError, shown
from avbench.storage.media.colour import named_matrix
from avbench.storage.media.failures import media_path, telling
from avbench.storage.writing import replacing

_MAX_CHANNELS = {True: 8, False: 2}  # FLAC; AAC, which degrades further channels
_LIMITED = 1  # AVColorRange
_AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
"""Sample rates in Hz that AAC has, by ISO/IEC 14496-3."""


def write_clip(
    clip: Clip, path: str | Path, *, lossless: bool = True, crf: int = 18, sound_bits_per_second: int = 192_000
) -> None:
    """Write `clip` to `path`, completely or not at all. The same clip gives the same bytes.

    Args:
        clip: frames of any size.
        path: .mkv when lossless, .mp4 otherwise.
        lossless: write FFV1 (RGB) and FLAC. FLAC has 16 bits if all samples are multiples of 1/32768, else samples are
            rounded to 24 bits; +1.0 becomes the largest code. Otherwise write H.264 and AAC: yuv420p, or yuv444p for
            odd sizes, which fewer players support but which keeps the size.
        crf: H.264's constant rate factor; a higher one gives a smaller file and a coarser picture.
        sound_bits_per_second: bit rate of AAC.

    Raises:
        InputError: the clip is no Clip, or the path is none.
        MediaError: the suffix does not fit, the folder cannot be written, or the codec refuses the size, the sample
            rate or the channels (8 at most in FLAC, 2 in AAC).
    """
    if not isinstance(clip, Clip):
        msg = f"{shown(clip)} is no clip: give a Clip, as in avbench.save_clip(avbench.Clip(frames, fps), 'a.mkv')"
        raise InputError(msg)
    path = media_path(path)
    if path.suffix.lower() != (".mkv" if lossless else ".mp4"):
        msg = f"{path} cannot be written: a lossless clip needs the suffix .mkv, a lossy one (lossless=False) .mp4"
        raise MediaError(msg)
    if clip.audio is not None and clip.audio.channels > _MAX_CHANNELS[lossless]:
        msg = f"{path} cannot be written: {clip.audio.channels} channels, but at most {_MAX_CHANNELS[lossless]} fit"
        raise MediaError(msg)
    if clip.audio is not None and not lossless and clip.audio.sample_rate not in _AAC_RATES:
        rates = ", ".join(map(str, _AAC_RATES))
        msg = (
            f"{path} cannot be written: AAC has no sample rate of {clip.audio.sample_rate} Hz, only {rates}: resample "
            "the sound, or write a lossless .mkv, which takes any"
        )
        raise MediaError(msg)
    with telling(path, "written"), replacing(path) as part:
        _encode(clip, part, None if lossless else (crf, sound_bits_per_second))


def _encode(clip: Clip, path: Path, lossy: tuple[int, int] | None) -> None:
    lossless = lossy is None
    options = {"fflags": "+bitexact"}
    if not lossless:
        options["movflags"] = "+faststart"
        # The edit list that cuts off AAC's priming counts in this unit; milliseconds would cut samples.
        options |= {"movie_timescale": str(clip.audio.sample_rate)} if clip.audio else {}
    with av.open(str(path.absolute()), "w", format="matroska" if lossless else "mp4", options=options) as container:
        video = _video_stream(container, clip, lossy and lossy[0])
        sound = None if clip.audio is None else _audio_stream(container, clip.audio, lossy and lossy[1])
        reformatter = VideoReformatter()  # one for all frames: it prepares its tables once
        for k, frame in enumerate(clip.frames):
            container.mux(video.encode(_video_frame(frame, k, video, reformatter)))
            if sound is not None:
                # Sound is interleaved with its frames; the sound after the last frame is written with that frame.
                codes, audio = sound
                here = round(k / clip.fps * audio.rate)
                until = round((k + 1) / clip.fps * audio.rate) if k + 1 < len(clip.frames) else codes.shape[1]
                if here < min(until, codes.shape[1]):
                    container.mux(audio.encode(_audio_frame(codes[:, here:until], here, audio)))
        container.mux(video.encode(None))
        if sound is not None:
            container.mux(sound[1].encode(None))


def _video_stream(container: av.container.OutputContainer, clip: Clip, crf: int | None) -> av.VideoStream:
    lossless = crf is None
    # One thread, because x264's output depends on the number of threads.
    options = {"flags": "+bitexact", "threads": "1"}
    # mbtree is off, because its vectorised sums are not reproducible.
    options |= {"level": "3", "slicecrc": "1"} if lossless else {"crf": str(crf), "x264-params": "mbtree=0"}
    video = container.add_stream("ffv1" if lossless else "libx264", rate=clip.fps, options=options)
    video.width, video.height = clip.width, clip.height
    if lossless:
        video.pix_fmt = "bgr0"
        video.metadata["FPS"] = str(clip.fps)  # matroska itself keeps a rounded number of nanoseconds
        return video
    video.pix_fmt = "yuv444p" if clip.width % 2 or clip.height % 2 else "yuv420p"
    video.codec_context.colorspace = named_matrix(clip.height)
    video.codec_context.color_range = _LIMITED
    return video


def _video_frame(image: np.ndarray, k: int, video: av.VideoStream, reformatter: VideoReformatter) -> av.VideoFrame:
    matrix = None if video.pix_fmt == "bgr0" else video.codec_context.colorspace
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    frame = reformatter.reformat(frame, format=video.pix_fmt, dst_colorspace=matrix)
    frame.pts, frame.time_base = k, 1 / video.codec_context.framerate
    return frame


def _audio_stream(
    container: av.container.OutputContainer, sound: Audio, bits_per_second: int | None
) -> tuple[np.ndarray, av.AudioStream]:
    """Return the samples in the codec's format, ``[channels, samples]``, and the stream for them."""
    lossless = bits_per_second is None
    options, form, codes = {"flags": "+bitexact"}, "fltp", sound.waveform
    if lossless:
        # Float32 holds 24-bit numbers, which stay exact when multiplied by a power of two.
        deep = bool(np.any(codes * 2.0**15 % 1))
        full = 2.0**23 if deep else 2.0**15
        codes = np.clip(np.rint(codes * full), -full, full - 1).astype(np.int32 if deep else np.int16)
        # FLAC takes 24 bits as the upper part of 32.
        form, codes = ("s32", codes << 8) if deep else ("s16", codes)
        options |= {"bits_per_raw_sample": "24"} if deep else {}
    audio = container.add_stream(
        "flac" if lossless else "aac", rate=sound.sample_rate, layout=f"{sound.channels}c", options=options
    )
    audio.codec_context.format = form
    if bits_per_second is not None:
        audio.codec_context.bit_rate = bits_per_second
    return codes, audio


def _audio_frame(codes: np.ndarray, start: int, audio: av.AudioStream) -> av.AudioFrame:
    form = audio.codec_context.format.name
    data = codes if form == "fltp" else codes.T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), format=form, layout=f"{len(codes)}c")
    frame.sample_rate, frame.pts, frame.time_base = audio.rate, start, Fraction(1, audio.rate)
    return frame
