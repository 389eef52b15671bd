"""How does a media file become a clip, and a clip a file?

The only module that knows codecs. `read_clip` reads mp4, mkv, webm, avi, gif and folders of numbered frames;
`write_clip` writes lossless mkv or ordinary mp4. Every failure is a `MediaError` of one sentence that names the file.

Time. Frames count from the first frame's timestamp, and sample 0 sounds at that moment: a late track gets zeros in
front, an early one is trimmed, a gap of more than 50 ms inside the track is filled with zeros. A stream has a constant
rate when every timestamp lies within one tick of the container's clock of k/fps; fps is then a rate that the container
declares (19001/317 and its like are read as the n·1000/1001 they stand for), else the simplest fraction that fits, so
that a gif with delays of 12 and 13 hundredths has 8 fps. Any other stream is resampled by sample-and-hold: frame k
shows the last source frame whose timestamp is at most k/fps (plus half a tick, for rounded clocks), to the end of
the last frame. Its fps is a declared rate up to 240 on whose grid all timestamps lie (dropped frames), else one over
the smallest gap, with a denominator up to 1001, at most 240. AVI keeps no presentation times: its frames are sorted.

Exact: what `write_clip` writes losslessly, down to fps, pixels and 24-bit samples; sample counts in mp4, wav and flac,
AAC's priming and padding removed. Not exact: lossy codecs, whose samples beyond ±1 are clipped; mp3, which may keep
its priming and padding, as AAC keeps its padding in mkv; timestamps in mkv and webm, to 1 ms, and in gif, to 10 ms.
A sound that starts less than a tick from frame 0 starts with it.

Pictures. YUV is converted by libswscale with the stream's matrix and range; where the stream names no matrix, BT.709
from 720 lines and BT.601 below. Transparent pixels are composited over black (libav does not decode VP8's and VP9's
alpha). Pictures are turned and mirrored in quarter turns as the display matrix says.

Damage is found where the format tells: checksums, broken syntax, fewer seconds than promised. A flipped bit in a
lossy stream, or in raw samples, may pass, and so may the loss of an mp4's last 10 ms of sound.
"""

import math
import os
import re
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import av.error
import av.logging
import numpy as np
from av.stream import Disposition

from avbench.core.clip import Audio, Clip, frame_rate
from avbench.core.errors import MediaError

MEDIA_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".gif", ".mov", ".m4v", ".qt", ".3gp", ".3g2", ".mj2", ".mk3d")
"""Suffixes of the files that `read_clip` is meant for; it goes by the content, not by the name."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
"""Suffixes of the frames in a folder."""

# Only these formats are tried: libav would also take text for a terminal recording, and a playlist for its targets.
_VIDEO_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
_SOUND_FORMATS = "wav,flac"
_IMAGE_FORMATS = "png_pipe,jpeg_pipe,bmp_pipe,webp_pipe"
_STRICT = {"err_detect": "crccheck+explode"}  # report damage; the default conceals it
_MAX_BYTES = 16 * 2**30
_MAX_CHANNELS = {True: 8, False: 2}  # FLAC; AAC, which thins out the further ones
_UNSPECIFIED, _BT709, _BT601 = 2, 1, 5  # AVColorSpace
_LIMITED = 1  # AVColorRange

av.logging.set_level(None)


def read_clip(path: Path, *, fps: Fraction | None = None) -> Clip:
    """Read a video file, or a folder of numbered frames, with its sound.

    Args:
        path: a file, or a folder of png, jpg, bmp or webp frames, sorted by the last number in each name; an
            audio.wav or audio.flac beside them is the sound. Other files in the folder are passed over.
        fps: frames per second. Needed for a folder; a file is resampled to it by sample-and-hold.

    Returns:
        The clip: frames ``[time, height, width, 3]`` uint8 RGB, and audio ``[channels, samples]`` float32 in −1…1,
        silence included; audio is None where there is no track, or none of it sounds from frame 0 on.

    Raises:
        MediaError: missing, empty, not media, damaged, cut short, without video, or with sizes that change.
        InputError: fps is not a rate.
    """
    path = Path(path)
    fps = None if fps is None else frame_rate(fps)
    if not path.exists():
        msg = f"{path} does not exist"
        raise MediaError(msg)
    with _telling(path, "read"):
        return _read_folder(path, fps) if path.is_dir() else _read_file(path, fps)


def write_clip(
    clip: Clip, path: Path, *, lossless: bool = True, crf: int = 18, sound_bits_per_second: int = 192_000
) -> None:
    """Write `clip` so that `path` holds all of it or is left as it was; the same clip gives the same bytes.

    Args:
        clip: frames of any size.
        path: .mkv when lossless, .mp4 otherwise.
        lossless: FFV1 (RGB) and FLAC: 16 bits where all samples are multiples of 1/32768, else rounded to 24 bits;
            +1.0 becomes the largest code. Otherwise H.264 and AAC: yuv420p, or yuv444p for odd sizes, which players
            support less but which keeps the size.
        crf: H.264's constant rate factor: more is smaller and coarser.
        sound_bits_per_second: AAC's.

    Raises:
        MediaError: the suffix does not fit, the folder cannot be written, or the codec refuses the size, the sample
            rate or the channels (8 at most in FLAC, 2 in AAC).
    """
    path = Path(path)
    suffix = ".mkv" if lossless else ".mp4"
    if path.suffix.lower() != suffix:
        msg = f"{path} cannot be written: a {'lossless' if lossless else 'lossy'} clip needs the suffix {suffix}"
        raise MediaError(msg)
    if clip.audio is not None and clip.audio.channels > _MAX_CHANNELS[lossless]:
        msg = f"{path} cannot be written: {clip.audio.channels} channels, where {_MAX_CHANNELS[lossless]} are possible"
        raise MediaError(msg)
    # one name for one clip, so that what a kill leaves behind is overwritten by the next try
    scratch = path.with_name(f".{path.stem}.part{suffix}")
    with _telling(path, "written"):
        try:
            _encode(clip, scratch, None if lossless else (crf, sound_bits_per_second))
            with scratch.open("rb+") as file:
                os.fsync(file.fileno())
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)


@contextmanager
def _telling(path: Path, done: str) -> Iterator[None]:
    """Turn whatever libav, the system or `Clip` objects to into a MediaError that names the file."""
    try:
        yield
    except MediaError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        msg = f"{path} cannot be {done}: {reason[:1].lower()}{reason[1:]}"
        raise MediaError(msg) from error


def _read_file(path: Path, fps: Fraction | None) -> Clip:
    _check_gif(path)
    _check_matroska(path)
    with _opened(path, _VIDEO_FORMATS) as container:
        # Cover art is a video stream too, in name only.
        streams = [s for s in container.streams.video if Disposition.attached_pic not in s.disposition]
        if not streams:
            msg = f"{path} has no video stream"
            raise MediaError(msg)
        picture = _Picture(path, streams[0])
        sound = _Sound(path, container.streams.audio[0]) if container.streams.audio else None
        _decode(path, container, picture, sound)
        frames, rate = picture.at(fps)
        _check_end(path, container, [picture, sound] if sound else [picture])
    return Clip(frames, rate, sound.audio(picture.origin) if sound else None)


def _read_folder(path: Path, fps: Fraction | None) -> Clip:
    if fps is None:
        msg = f"{path} is a folder of frames, which has no rate of its own: give fps"
        raise MediaError(msg)
    files = _numbered(path)
    frames = []
    for file in files:
        with _telling(file, "read"), _opened(file, _IMAGE_FORMATS) as container:
            image = _Picture(file, container.streams.video[0])
            _decode(file, container, image, None)
        if len(image.frames) != 1:
            msg = f"{file} holds {len(image.frames)} frames; each file of a folder must hold one"
            raise MediaError(msg)
        if image.frames[0].shape != (frames or image.frames)[0].shape:
            msg = f"{file} is {_size(image.frames[0])}, but {files[0].name} is {_size(frames[0])}"
            raise MediaError(msg)
        frames += image.frames
        _check_memory(path, len(frames) * frames[0].nbytes)
    return Clip(np.stack(frames), fps, _folder_sound(path))


def _numbered(folder: Path) -> list[Path]:
    """The frames of a folder in the order of their numbers, which must follow one another."""
    found: dict[int, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() not in IMAGE_SUFFIXES or file.name.startswith("."):
            continue
        numbers = re.findall(r"[0-9]+", file.stem)
        if not numbers:
            msg = f"{file} has no number in its name, so its place among the frames is unknown"
            raise MediaError(msg)
        if (number := int(numbers[-1])) in found:
            msg = f"{file} has the same number as {found[number].name}"
            raise MediaError(msg)
        found[number] = file
    if not found:
        msg = f"{folder} holds no frames ({', '.join(IMAGE_SUFFIXES)})"
        raise MediaError(msg)
    order = sorted(found)
    for before, after in pairwise(order):
        if after != before + 1:
            msg = f"{found[after]} follows {found[before].name}: frame {before + 1} is missing"
            raise MediaError(msg)
    return [found[number] for number in order]


def _folder_sound(folder: Path) -> Audio | None:
    files = [folder / name for name in ("audio.wav", "audio.flac") if (folder / name).exists()]
    if not files:
        return None
    if len(files) > 1:
        msg = f"{folder} holds both audio.wav and audio.flac: which is the sound?"
        raise MediaError(msg)
    with _telling(files[0], "read"), _opened(files[0], _SOUND_FORMATS) as container:
        sound = _Sound(files[0], container.streams.audio[0])
        _decode(files[0], container, None, sound)
        _check_end(files[0], container, [sound])
    return sound.audio(Fraction(0))


@contextmanager
def _opened(path: Path, formats: str) -> Iterator[av.container.InputContainer]:
    if path.stat().st_size == 0:
        msg = f"{path} is empty"
        raise MediaError(msg)
    # An absolute path cannot be taken for a URL, and the lists keep libav from opening anything but this file.
    options = {"format_whitelist": formats, "protocol_whitelist": "file", **_STRICT}
    with av.open(str(path.absolute()), options=options, metadata_errors="replace") as container:
        yield container


def _decode(path: Path, container: av.container.InputContainer, *tracks: "_Picture | _Sound | None") -> None:
    """Decode the tracks' streams in one pass; nothing that libav calls damaged is passed on."""
    wanted = {track.stream.index: track for track in tracks if track}
    for track in wanted.values():
        if track.stream.codec_context is None:
            msg = f"{path} has a {track.stream.type} stream of an unknown codec"
            raise MediaError(msg)
        track.stream.codec_context.options = _STRICT
        track.stream.thread_type = "AUTO"
    for packet in container.demux(*(track.stream for track in wanted.values())):
        for frame in packet.decode():
            if packet.is_corrupt or frame.is_corrupt:
                msg = f"{path} is damaged or cut short: {packet.stream.type} packet at {packet.pts} is not whole"
                raise MediaError(msg)
            wanted[packet.stream.index].take(frame)


class _Picture:
    """Frames of one stream with their times in seconds, as the container's clock has them."""

    def __init__(self, path: Path, stream: av.VideoStream) -> None:
        self.path, self.stream = path, stream
        self.tick = stream.time_base
        self.frames: list[np.ndarray] = []
        self.times: list[Fraction] = []
        self.held = Fraction(0)

    def take(self, frame: av.VideoFrame) -> None:
        image = _rgb(frame)
        if self.frames and image.shape != self.frames[0].shape:
            msg = f"{self.path} changes its picture size from {_size(self.frames[0])} to {_size(image)}"
            raise MediaError(msg)
        ticks = frame.dts if frame.pts is None else frame.pts
        _check_memory(self.path, (len(self.frames) + 1) * image.nbytes)
        self.frames.append(image)
        self.times.append(self.end if ticks is None else ticks * self.tick)
        self.held = (frame.duration or 0) * self.tick

    @property
    def origin(self) -> Fraction:
        """When frame 0 is shown, in seconds."""
        return min(self.times)

    @property
    def gap(self) -> Fraction:
        """Seconds from frame to frame, in the mean."""
        return (max(self.times) - min(self.times)) / (len(self.times) - 1) if len(self.times) > 1 else self.held

    @property
    def end(self) -> Fraction:
        """When the last frame is over, in seconds; by the mean gap where its duration is not told."""
        return max(self.times) + (self.held or self.gap) if self.times else Fraction(0)

    @property
    def patience(self) -> Fraction:
        """How many seconds before its promised end the picture may stop."""
        return self.gap / 2

    def at(self, fps: Fraction | None) -> tuple[np.ndarray, Fraction]:
        """The frames ``[time, height, width, 3]`` at a constant rate: `fps`, or the stream's own."""
        if not self.frames:
            msg = f"{self.path} holds no frames"
            raise MediaError(msg)
        if self.stream.container.format.name == "avi":
            first = (self.stream.start_time or 0) * self.tick
            self.times = [first + t - self.origin for t in sorted(self.times)]
        times, length = [t - self.origin for t in self.times], self.end - self.origin
        gaps = [after - before for before, after in pairwise(times)]
        if any(gap < 0 for gap in gaps):
            msg = f"{self.path} is damaged: its timestamps run backwards"
            raise MediaError(msg)
        declared = self._declared()
        rate, slack = _constant_rate(times, length, self.tick, declared), self.tick / 2
        if rate is not None:
            times, length, slack = [k / rate for k in range(len(times))], len(times) / rate, Fraction(0)
        fps = frame_rate(fps or rate or _sparse_rate(times, gaps, self.tick, declared))
        count = max(1, math.ceil((length - slack) * fps))
        _check_memory(self.path, count * self.frames[0].nbytes)
        shown = [bisect_right(times, k / fps + slack) - 1 for k in range(count)]
        return np.stack([self.frames[i] for i in shown]), fps

    def _declared(self) -> list[Fraction]:
        """The rates that the container names, the most trusted first."""
        if self.stream.container.format.name == "gif":
            return []  # a gif has delays and no rate: libav's would be guesses
        written = self.stream.metadata.get("FPS", "")  # by `_encode`
        rates = [Fraction(written)] if re.fullmatch(r"[1-9][0-9]*(/[1-9][0-9]*)?", written) else []
        libav = (self.stream.average_rate, self.stream.base_rate, self.stream.guessed_rate)
        return rates + [_ntsc(rate) for rate in libav if rate]


class _Sound:
    """Samples of one stream, ``[channels, samples]`` float32 in −1…1, in blocks that follow one another."""

    def __init__(self, path: Path, stream: av.AudioStream) -> None:
        self.path, self.stream = path, stream
        self.tick = stream.time_base
        self.rate = self.length = 0
        self.blocks: list[np.ndarray] = []
        self.origin = Fraction(0)

    def take(self, frame: av.AudioFrame) -> None:
        block = _samples(frame)
        start = self.end if frame.pts is None else frame.pts * self.tick
        if not self.blocks:
            self.origin, self.rate = start, frame.sample_rate
        elif (frame.sample_rate, len(block)) != (self.rate, len(self.blocks[0])):
            msg = f"{self.path} changes its sample rate or channels midway"
            raise MediaError(msg)
        # Where the clock counts samples, a block that lasts shorter than it is long ends in the encoder's padding.
        if self.counts_samples and 0 < (frame.duration or 0) < block.shape[1]:
            block = block[:, : frame.duration]
        missing = round((start - self.end) * self.rate)
        self._add(_silence(self.path, block, missing if missing > self.rate / 20 else 0))
        self._add(block)

    def _add(self, block: np.ndarray) -> None:
        self.blocks.append(block)
        self.length += block.shape[1]

    @property
    def counts_samples(self) -> bool:
        """Whether the container's clock ticks once a sample."""
        return self.tick * self.rate == 1

    @property
    def end(self) -> Fraction:
        """When the last sample is over, in seconds."""
        return self.origin + (Fraction(self.length, self.rate) if self.rate else 0)

    @property
    def patience(self) -> Fraction:
        """How many seconds before its promised end the sound may stop: other clocks may round to whole blocks."""
        return Fraction(1, 100) if self.counts_samples else Fraction(3, 20)

    def audio(self, origin: Fraction) -> Audio | None:
        """The sound from `origin` on, in seconds of the container's clock."""
        if not self.blocks:
            return None
        late = self.origin - origin
        lead = round(late * self.rate) if abs(late) >= self.tick else 0
        wave = np.concatenate([_silence(self.path, self.blocks[0], lead), *self.blocks], axis=1)[:, max(-lead, 0) :]
        return Audio(np.ascontiguousarray(wave), self.rate) if wave.shape[1] else None


def _silence(path: Path, like: np.ndarray, samples: int) -> np.ndarray:
    _check_memory(path, like[:, :1].nbytes * samples)
    return np.zeros((len(like), max(samples, 0)), np.float32)


def _check_memory(path: Path, size: int) -> None:
    # A damaged timestamp can claim years; a clip is seconds.
    if size > _MAX_BYTES:
        msg = f"{path} would take more than {_MAX_BYTES >> 30} GiB of memory"
        raise MediaError(msg)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _check_end(path: Path, container: av.container.InputContainer, tracks: "list[_Picture | _Sound]") -> None:
    """Raise MediaError where less came out than the container promises."""
    for track in tracks:
        told, tagged = track.stream.duration, _tagged_end(track.stream)
        if told:
            short = told * track.tick - (track.end - track.origin)
        elif tagged:
            short = tagged - track.end
        elif container.duration and len(tracks) == len(container.streams):
            # Promised for the longest stream, whichever that is.
            short = Fraction(container.duration, 10**6) - max(other.end for other in tracks)
        else:
            continue
        if short > track.patience + (0 if told else track.tick):
            msg = f"{path} is cut short: its {track.stream.type} ends {float(short):.3g} s before the promised end"
            raise MediaError(msg)


def _check_gif(path: Path) -> None:
    """Raise MediaError where a gif lacks its closing byte: nothing else tells how many frames it should have."""
    with path.open("rb") as file:
        if file.read(4) == b"GIF8":
            file.seek(-min(1024, path.stat().st_size), os.SEEK_END)
            if not file.read().rstrip(b"\0").endswith(b";"):
                msg = f"{path} is cut short: it lacks the closing byte of a gif"
                raise MediaError(msg)


def _check_matroska(path: Path) -> None:
    """Raise MediaError where a Matroska element is cut short or belies its CRC-32, over which libav passes."""
    with path.open("rb") as file:
        if file.read(4) != b"\x1a\x45\xdf\xa3":
            return
    data, at = path.read_bytes(), 0
    while at < len(data):
        # An element is an ID and a size, whose leading zero bits tell how long they are, and its content.
        wide = 9 - data[at].bit_length()
        kind, at = data[at : at + wide], at + wide
        long = 9 - data[at].bit_length() if at < len(data) else 9
        size = int.from_bytes(data[at : at + long]) & ((1 << 7 * long) - 1)
        at += long
        if size == (1 << 7 * long) - 1:
            if kind != b"\x18\x53\x80\x67":
                return  # an element of unknown size, as in live streams
            continue
        if max(wide, long) > 8 or at + size > len(data):
            msg = f"{path} is damaged or cut short at byte {at}"
            raise MediaError(msg)
        if kind == b"\x18\x53\x80\x67":
            continue  # the segment: its elements follow
        if data[at : at + 2] == b"\xbf\x84" and size >= 6:
            body = memoryview(data)[at : at + size]
            if zlib.crc32(body[6:]) != int.from_bytes(body[2:6], "little"):
                msg = f"{path} is damaged between bytes {at} and {at + size}"
                raise MediaError(msg)
        at += size


def _tagged_end(stream: av.VideoStream | av.AudioStream) -> Fraction | None:
    """Matroska's DURATION tag, hours:minutes:seconds, in seconds."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return int(found[1]) * 3600 + int(found[2]) * 60 + Fraction(found[3]) if found else None


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    """One frame, ``[height, width, 3]`` uint8, as it is meant to be seen."""
    if frame.colorspace == _UNSPECIFIED and not frame.format.is_rgb:
        frame.colorspace = _BT709 if frame.height >= 720 else _BT601
    if frame.format.has_palette or any(component.is_alpha for component in frame.format.components):
        rgba = frame.to_ndarray(format="rgba").astype(np.uint16)
        image = ((rgba[..., :3] * rgba[..., 3:] + 127) // 255).astype(np.uint8)
    else:
        image = frame.to_ndarray(format="rgb24")
    matrix = next((bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), b"")
    if len(matrix) < 20:
        return image
    # A point x right and y down goes to ax + cy, bx + dy.
    a, b, _, c, d = np.frombuffer(matrix, np.int32, 5).tolist()
    if (a or d) and (b or c):
        msg = "its picture is to be turned by an angle other than quarter turns"
        raise ValueError(msg)
    if a or d:
        return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return image.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]


def _samples(frame: av.AudioFrame) -> np.ndarray:
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, len(frame.layout.channels)).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128) / 128
    elif data.dtype.kind == "i":
        data = data / 2.0 ** (8 * data.itemsize - 1)
    return np.clip(data, -1, 1).astype(np.float32)


def _constant_rate(
    times: list[Fraction], length: Fraction, tick: Fraction, declared: Iterable[Fraction]
) -> Fraction | None:
    """The rate on whose grid frame k stands at k/rate, or None."""
    declared = list(declared)
    if len(times) == 1:
        return declared[0] if declared else _simplest([*times, length], tick)
    for rate in declared:
        allowed = min(tick, Fraction(3, 5) / rate)
        if all(abs(t - k / rate) <= allowed for k, t in enumerate(times)):
            return rate
    # The last frame's duration is evidence too, unless that frame is held longer than the others.
    for points in ([*times, length], times):
        gaps = {after - before for before, after in pairwise(points)}
        rate = 1 / gaps.pop() if len(points) > 2 and len(gaps) == 1 and 0 not in gaps else _simplest(points, tick)
        if rate:
            return rate
    return None


def _simplest(points: list[Fraction], tick: Fraction) -> Fraction | None:
    """The rate of the smallest denominator that puts every k/rate within a tick of point k, or None."""
    if points[-1] <= 0:
        return None
    mean = (len(points) - 1) / points[-1]
    allowed = min(tick, Fraction(3, 5) / mean)
    later = list(enumerate(points))[1:]
    low = max(k / (t + allowed) for k, t in later)
    high = min((k / (t - allowed) for k, t in later if t > allowed), default=2 * mean)
    if low > high or any(t + allowed <= 0 for _, t in later):
        return None
    target = min(max(mean, low), high)
    fitting = (Fraction(round(target * d), d) for d in range(1, 1002))
    return next((rate for rate in fitting if low <= rate <= high and rate > 0), None)


def _sparse_rate(times: list[Fraction], gaps: list[Fraction], tick: Fraction, declared: Iterable[Fraction]) -> Fraction:
    """A rate for frames that do not stand at k/rate: the module's docstring says which."""
    for rate in declared:
        if rate <= 240 and tick * rate * 4 <= 1 and all(abs(t - round(t * rate) / rate) <= tick for t in times):
            return rate
    smallest = min((gap for gap in gaps if gap > 0), default=None)
    if smallest is None:
        msg = "neither a declared rate nor its timestamps tell how long a frame lasts"
        raise ValueError(msg)
    return min(Fraction(240), (1 / smallest).limit_denominator(1001) or Fraction(1, 1001))


def _ntsc(rate: Fraction) -> Fraction:
    """Undo the rounding of n·1000/1001 that matroska's nanoseconds bring."""
    meant = Fraction(max(1, round(rate * 1001 / 1000)) * 1000, 1001)
    return meant if abs(rate / meant - 1) < Fraction(5, 10**7) else rate


def _encode(clip: Clip, path: Path, lossy: tuple[int, int] | None) -> None:
    lossless = lossy is None
    options = {"fflags": "+bitexact"}
    if not lossless:
        options["movflags"] = "+faststart"
        # The edit list that cuts off AAC's priming counts in this unit; milliseconds would cut samples.
        options |= {"movie_timescale": str(clip.audio.sample_rate)} if clip.audio else {}
    with av.open(str(path.absolute()), "w", format="matroska" if lossless else "mp4", options=options) as container:
        video = _video_stream(container, clip, lossy and lossy[0])
        codes, sound = None, clip.audio
        if sound is not None:
            codes, audio = _audio_stream(container, sound, lossy and lossy[1])
        for k, frame in enumerate(clip.frames):
            container.mux(video.encode(_video_frame(frame, k, video)))
            if codes is not None:
                # Sound goes in beside its picture, and what outlasts the picture after the last frame.
                here = round(k / clip.fps * sound.sample_rate)
                until = round((k + 1) / clip.fps * sound.sample_rate) if k + 1 < len(clip.frames) else sound.samples
                if here < min(until, sound.samples):
                    container.mux(audio.encode(_audio_frame(codes[:, here:until], here, audio)))
        container.mux(video.encode(None))
        if codes is not None:
            container.mux(audio.encode(None))


def _video_stream(container: av.container.OutputContainer, clip: Clip, crf: int | None) -> av.VideoStream:
    lossless = crf is None
    # One thread: the number of threads shows in x264's bytes.
    options = {"flags": "+bitexact", "threads": "1"}
    # Nor do x264's vectorised mbtree sums come out alike twice.
    options |= {"level": "3", "slicecrc": "1"} if lossless else {"crf": str(crf), "x264-params": "mbtree=0"}
    video = container.add_stream("ffv1" if lossless else "libx264", rate=clip.fps, options=options)
    video.width, video.height = clip.width, clip.height
    if lossless:
        video.pix_fmt = "bgr0"
        video.metadata["FPS"] = str(clip.fps)  # matroska itself keeps a rounded number of nanoseconds
        return video
    video.pix_fmt = "yuv444p" if clip.width % 2 or clip.height % 2 else "yuv420p"
    video.codec_context.colorspace = _BT709 if clip.height >= 720 else _BT601
    video.codec_context.color_range = _LIMITED
    return video


def _video_frame(image: np.ndarray, k: int, video: av.VideoStream) -> av.VideoFrame:
    matrix = None if video.pix_fmt == "bgr0" else video.codec_context.colorspace
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    frame = frame.reformat(format=video.pix_fmt, dst_colorspace=matrix)
    frame.pts, frame.time_base = k, 1 / video.codec_context.framerate
    return frame


def _audio_stream(
    container: av.container.OutputContainer, sound: Audio, bits_per_second: int | None
) -> tuple[np.ndarray, av.AudioStream]:
    """The samples as the codec wants them, ``[channels, samples]``, and the stream for them."""
    lossless = bits_per_second is None
    options, form, codes = {"flags": "+bitexact"}, "fltp", sound.waveform
    if lossless:
        # Float32 holds 24-bit numbers; times a power of two, they stay exact.
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
