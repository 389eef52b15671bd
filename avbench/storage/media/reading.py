"""Reads media files and folders of frames into clips."""

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import av
import av.container
import av.error
import numpy as np
from av.stream import Disposition

from avbench.core.clip import Audio, Clip, Rate, frame_rate
from avbench.core.errors import MediaError
from avbench.storage.media.budget import MAX_PIXELS, Budget
from avbench.storage.media.failures import media_path, telling
from avbench.storage.media.integrity import (
    ANIMATED_WEBP,
    check_whole,
    is_animated,
    is_fragmented,
    is_wav_of_unknown_length,
)
from avbench.storage.media.picture import Picture
from avbench.storage.media.sound import Sound
from avbench.storage.media.stored import Convert, StoredClip, StoredFrames

MEDIA_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".gif", ".mov", ".m4v", ".qt", ".3gp", ".3g2", ".mj2", ".mk3d")
"""Suffixes of the files that `read_clip` is meant for. It detects the format from the content, not from the suffix."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
"""Suffixes of the frames in a folder."""

_SOUND_FILES = ("audio.wav", "audio.flac")
"""Names of the sound in a folder of frames."""
SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus")
"""Suffixes of sound. Beside a clip of the same name it is named; other such files are skipped without a remark."""
# Only these formats are tried: libav would also read a text as a terminal recording, and the files in a playlist.
_VIDEO_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
_SOUND_FORMATS = "wav,flac"
_IMAGES = {b"\x89PNG": "png_pipe", b"\xff\xd8\xff": "jpeg_pipe", b"BM": "bmp_pipe", b"RIFF": "webp_pipe"}
"""First bytes of a picture → its format. Left to guess, libav takes many pictures for a numbered series."""
_IMAGE_FORMATS = ",".join(_IMAGES.values())
# Report damage, which the default conceals, and refuse large pictures before allocating memory for them.
_STRICT = {"err_detect": "crccheck+explode", "max_pixels": str(MAX_PIXELS)}
_NO_PICTURE = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_Track = TypeVar("_Track", av.VideoStream, av.AudioStream)
_UNSAID = 0.2
"""Seconds by which sound may be longer or shorter than its picture without a remark."""
_OPAQUE = ("vp8", "vp9")
"""Codecs whose transparency FFmpeg does not decode."""
_BESIDE = {
    Disposition.visual_impaired: "for visually impaired people",
    Disposition.hearing_impaired: "for hearing-impaired people",
    Disposition.comment: "a commentary",
    Disposition.clean_effects: "without voices",
    Disposition.non_diegetic: "not of the scene",
    Disposition.dependent: "made to be mixed with another one",
}
"""Marks of a track that goes beside the film's own."""


def read_clip(path: str | Path, *, fps: Rate | None = None, most_held: float = math.inf) -> Clip:
    """Read a video file, or a folder of numbered frames, with its sound.

    Args:
        path: a file, or a folder of png, jpg, bmp or webp frames, sorted by the last number in each name. The file
            audio.wav or audio.flac in the folder is the sound. Other files in it are ignored.
        fps: frames per second. Required for a folder. A file is resampled to this rate by sample-and-hold.
        most_held: bytes. If a file's frames take more, they are checked and not held in memory: the clip is a
            `StoredClip`, which decodes them again when they are asked for.

    Returns:
        The clip: frames ``[time, height, width, 3]`` uint8 RGB, and audio ``[channels, samples]`` float32 in −1…1. A
        silent track is read too; audio is None if there is no track, or if it ends before frame 0. `remarks` name what
        the reader decided: a variable rate, pixels that are not square, one of several tracks.

    Raises:
        MediaError: the file is missing, empty, damaged, cut short, no media, without video, of changing picture size,
            or too large (budget.py).
        InputError: the path is none, fps is not a rate, or an environment variable of the budget is not a number.
    """
    path = media_path(path)
    rate = None if fps is None else frame_rate(fps)
    Budget.of(path, 0)  # raises InputError on a wrong environment variable, before any error names the file
    with telling(path, "read"):
        if not path.exists():
            msg = f"{path} does not exist"
            raise MediaError(msg)
        return _read_folder(path, rate) if path.is_dir() else _read_file(path, rate, most_held)


def has_sound(path: Path) -> bool:
    """Whether a video file has a sound track, or a folder of frames a sound file; nothing is decoded.

    Raises:
        MediaError: the file is no media file, or is damaged.
    """
    with telling(path, "read"):
        if path.is_dir():
            return any((path / name).exists() for name in _SOUND_FILES)
        with _opened(path, _VIDEO_FORMATS) as container:
            return bool(container.streams.audio)


def _read_file(path: Path, fps: Fraction | None, most_held: float) -> Clip:
    with _opened(path, _VIDEO_FORMATS) as container:
        budget, fragmented = Budget.of(path, path.stat().st_size), is_fragmented(path)
        # Cover art is stored as a video stream.
        videos = [stream for stream in container.streams.video if not stream.disposition & _NO_PICTURE]
        if not videos:
            msg = f"{path} has no video stream"
            raise MediaError(msg)
        stream, remarks = _default(videos, "picture")
        picture, sound = Picture(path, stream, budget, most_held=most_held), None
        if container.streams.audio:
            track, others = _default(container.streams.audio, "sound")
            sound = Sound(path, track, budget, fragmented=fragmented)
            remarks += others
            if container.format.name == "avi" and track.codec_context and track.codec_context.name == "aac":
                remarks.append("AVI does not store the delay of AAC, so its sound is about 1024 to 2112 samples late")
        marks = {name.lower(): value for name, value in stream.metadata.items()}
        if marks.get("alpha_mode") == "1" and stream.codec_context and stream.codec_context.name in _OPAQUE:
            remarks.append("its transparency is not decoded")
        _decode(path, container, picture, sound)
        if sound and fragmented:
            picture.squeeze(sound.patience)
        picture.start_later(_hidden_seconds(path, picture))
        shown, rate = picture.at(fps)
        audio, of_sound = (sound.audio(picture.shown_from), sound.remarks) if sound else (None, [])
        _check_end(path, container, [picture, sound] if sound else [picture], fragmented=fragmented)
        decode = functools.partial(_images, path, stream.index, _numbers(picture))
    places = np.arange(len(picture.times))[shown]
    rest = rate, audio, tuple(remarks + picture.remarks + of_sound + unequal_lengths(audio, len(places) / rate))
    if picture.held_whole:
        return Clip(picture.frames[shown], *rest)
    stored: Any = StoredFrames(decode, picture.shape, places)
    return StoredClip(stored, *rest)


def unequal_lengths(audio: Audio | None, picture: Fraction) -> list[str]:
    """A remark on sound that is longer or shorter than so many seconds of picture, because metrics count all of it."""
    if audio is None or abs(audio.seconds - picture) <= _UNSAID:
        return []
    return [f"its picture lasts {float(picture):.2f} s and its sound {audio.seconds:.2f} s"]


def _hidden_seconds(path: Path, picture: Picture) -> Fraction:
    """For how many seconds a player shows a frame that an edit list of mp4 starts within.

    libav leaves that frame out and moves the next one to its place, but the sound stays. Where it does not follow the
    edit list, it gives the time that the file has for the next one.
    """
    if picture.packets.first_after_hidden is None:
        return Fraction(0)
    place, stamp = picture.packets.first_after_hidden
    with _opened(path, _VIDEO_FORMATS, checked=True, edits=False) as container:
        packets = container.demux(container.streams[picture.stream.index])
        found = next((packet.pts for packet in packets if packet.pos == place), None)
    return max(Fraction(0), (found - stamp) * picture.tick) if found is not None else Fraction(0)


def _numbers(picture: Picture) -> dict[int, int]:
    """Timestamp → number of each frame, where frames can be left out by them; otherwise nothing.

    In progressive H.264 no frame is predicted from one that is marked as no reference, so the others stay the same to
    the bit without it. Other codecs do not promise that, and an interlaced frame may be half a reference.
    """
    codec, stamps = picture.stream.codec_context.name, picture.stamps
    numbers = {stamp: number for number, stamp in enumerate(stamps) if stamp is not None}
    return numbers if codec == "h264" and not picture.interlaced and len(numbers) == len(stamps) else {}


def _images(
    path: Path, index: int, numbers: Mapping[int, int], needed: Callable[[int], bool]
) -> Iterator[tuple[int, Convert]]:
    """Decode the track with this index, in a file that was read before; a frame is converted when it is called.

    Frames that are not needed are left out where `numbers`, of `_numbers`, allow it.
    """
    changed = MediaError(f"{path} was changed while it was measured: it no longer has the frames that it had")

    def not_needed(stamp: int | None) -> bool:
        number = None if stamp is None else numbers.get(stamp)
        return number is not None and not needed(number)

    with telling(path, "read"), _opened(path, _VIDEO_FORMATS, checked=True) as container:
        stream: Any = container.streams[index]
        picture = Picture(path, stream, Budget.of(path, path.stat().st_size))
        for count, (_, frame) in enumerate(_decoded(path, container, picture, not_needed=not_needed)):
            if numbers and frame.pts not in numbers:
                raise changed
            yield numbers[frame.pts] if numbers else count, functools.partial(picture.image, frame)
    raise changed


def _default(streams: Sequence[_Track], what: str) -> tuple[_Track, list[str]]:
    """Choose the track that players show, with a remark if there are several, or if it has a mark of _BESIDE."""

    def rank(stream: _Track) -> tuple[bool, bool, bool]:
        marks = stream.disposition
        return stream.codec_context is None, not marks & Disposition.default, any(marks & one for one in _BESIDE)

    chosen = min(streams, key=rank)
    meant = " and ".join(words for mark, words in _BESIDE.items() if chosen.disposition & mark)
    if len(streams) == 1:
        return chosen, [f"its only {what} track is marked as {meant}"] if meant else []
    default = chosen.disposition & Disposition.default
    why = "the default" if default else "the first plain one, as none is marked as the default"
    why += f", though marked as {meant}" if meant else ""
    return chosen, [f"it has {len(streams)} {what} tracks: number {streams.index(chosen) + 1} was read, {why}"]


def _read_folder(path: Path, fps: Fraction | None) -> Clip:
    files = _numbered(path)
    if fps is None:
        msg = f"{path} is a folder of frames, which has no frame rate: give fps"
        raise MediaError(msg)
    budget = Budget.of(path, sum(file.stat().st_size for file in files))
    frames = np.empty((0, 0, 0, 3), np.uint8)
    for number, file in enumerate(files):
        with telling(file, "read", "a picture"), _opened(file, _IMAGE_FORMATS) as container:
            image = Picture(file, container.streams.video[0], budget)
            _decode(file, container, image, None)
        if len(image.times) != 1:
            msg = f"{file} holds {len(image.times)} frames; each file of a folder must hold one"
            raise MediaError(msg)
        if not number:
            budget.check_frames(len(files), image.shape[1::-1])
            frames = np.empty((len(files), *image.shape), np.uint8)
        if image.shape != frames.shape[1:]:
            msg = f"{file} is {image.size}, but {files[0].name} is {frames.shape[2]}x{frames.shape[1]}"
            raise MediaError(msg)
        frames[number] = image.frames[0]
    sound, remarks = _folder_sound(path)
    return Clip(frames, fps, sound, (*remarks, *_unread_sound(path), *unequal_lengths(sound, len(frames) / fps)))


def _numbered(folder: Path) -> list[Path]:
    """Return the frames of a folder in the order of their numbers, which must be consecutive."""
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
        msg = f"{folder} is a folder, and holds no frames ({', '.join(IMAGE_SUFFIXES)})"
        if clip := next((one for one in sorted(folder.iterdir()) if one.suffix.lower() in MEDIA_SUFFIXES), None):
            msg += f": name a clip in it, such as {clip}"
        raise MediaError(msg)
    order = sorted(found)
    for before, after in pairwise(order):
        if after != before + 1:
            msg = f"{found[after]} follows {found[before].name}: frame {before + 1} is missing"
            raise MediaError(msg)
    return [found[number] for number in order]


def _folder_sound(folder: Path) -> tuple[Audio | None, list[str]]:
    """The sound in a folder of frames, and remarks on it."""
    files = [folder / name for name in _SOUND_FILES if (folder / name).exists()]
    if not files:
        return None, []
    if len(files) > 1:
        msg = f"{folder} holds both audio.wav and audio.flac; keep only the one that is the sound"
        raise MediaError(msg)
    file = files[0]
    with telling(file, "read", "sound"), _opened(file, _SOUND_FORMATS) as container:
        sound = Sound(file, container.streams.audio[0], Budget.of(file, file.stat().st_size))
        _decode(file, container, None, sound)
        _check_end(file, container, [sound])
    return sound.audio(Fraction(0)), sound.remarks


def _unread_sound(folder: Path) -> tuple[str, ...]:
    """A remark on the first file of sound in a folder of frames that has another name than those that are read."""
    sounds = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in SOUND_SUFFIXES)
    other = [name for name in sounds if name not in _SOUND_FILES and not name.startswith(".")]
    return (f"its sound {other[0]} was not read: only {' or '.join(_SOUND_FILES)} is",) if other else ()


@contextmanager
def _opened(
    path: Path, formats: str, *, checked: bool = False, edits: bool = True
) -> Iterator[av.container.InputContainer]:
    if not checked:
        check_whole(path)
    # libav cannot mistake an absolute path for a URL, and the whitelists keep it from opening any other file.
    options = {"format_whitelist": formats, "protocol_whitelist": "file", **_STRICT}
    options |= {} if edits else {"advanced_editlist": "0"}
    form = _image_format(path) if formats == _IMAGE_FORMATS else None
    with av.open(str(path.absolute()), format=form, options=options, metadata_errors="replace") as container:
        yield container


def _image_format(path: Path) -> str | None:
    """The format of a picture, by its first bytes; None if they tell none. Raises MediaError on an animation."""
    with path.open("rb") as file:
        start = file.read(32)
    if is_animated(start):
        msg = f"{path} cannot be read: it is {ANIMATED_WEBP}"
        raise MediaError(msg)
    if start[:4] == b"RIFF" and start[8:12] != b"WEBP":
        return None
    return next((form for begin, form in _IMAGES.items() if start.startswith(begin)), None)


def _decode(path: Path, container: av.container.InputContainer, *tracks: "Picture | Sound | None") -> None:
    """Decode the tracks' streams in one pass, and let each take its frames."""
    for track, frame in _decoded(path, container, *(track for track in tracks if track)):
        track.take(frame)


def _decoded(
    path: Path,
    container: av.container.InputContainer,
    *tracks: "Picture | Sound",
    not_needed: Callable[[int | None], bool] | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Yield each track with each frame. Raise MediaError on a packet or frame that libav calls damaged.

    A frame whose timestamp is not needed is left out if it is no reference of others.
    """
    wanted: dict[int, Any] = {track.stream.index: track for track in tracks}
    for track in wanted.values():
        codec = track.stream.codec_context
        if codec is None:
            msg = f"{path} has {track.stream.type} that is encoded in an unknown way (its codec has no known name)"
            raise MediaError(msg)
        if isinstance(codec, av.VideoCodecContext):
            if not codec.width * codec.height:
                msg = f"{path} has a picture that is damaged or has more than {MAX_PIXELS:,} pixels"
                raise MediaError(msg)
            track.budget.check_frames(1, (codec.width, codec.height))
        codec.options = _STRICT
        codec.thread_count = 1  # clips are read by as many processes as there are cores, each with one thread
    unknown_length = is_wav_of_unknown_length(path)
    for packet in container.demux(*(track.stream for track in wanted.values())):
        track = wanted[packet.stream.index]
        (track.packets if isinstance(track, Picture) else track).note(packet)
        if not_needed:
            packet.stream.codec_context.skip_frame = "NONREF" if not_needed(packet.pts) else "DEFAULT"
        try:
            frames: Any = packet.decode()
        except av.error.InvalidDataError:
            if not (isinstance(track, Picture) and track.packets.starts_inside):
                raise
            if not track.packets.may_lack_others():
                msg = (
                    f"{path} cannot be read: it was cut out of a longer clip, and frames of it need others from before "
                    f"the cut, or it is damaged (packet at {packet.pts}); `ffmpeg -i {path.name} -c:v libx264 -crf 12 "
                    "NEW.mp4` keeps what a player shows"
                )
                raise MediaError(msg) from None
            continue  # a player leaves it out too
        for frame in frames:
            if (packet.is_corrupt and not unknown_length) or frame.is_corrupt:
                msg = f"{path} is damaged or cut short: its {packet.stream.type} is not whole (packet at {packet.pts})"
                raise MediaError(msg)
            if isinstance(track, Picture):
                track.packets.frame_came()
            yield track, frame


def _check_end(
    path: Path, container: av.container.InputContainer, tracks: "list[Picture | Sound]", *, fragmented: bool = False
) -> None:
    """Raise MediaError where a track ends before the end that the container promises."""
    matroska = "matroska" in container.format.name  # its tracks have no length: libav gives empty ones that of the file
    for track in tracks:
        promised, tagged = None if matroska else track.stream.duration, _tagged_end(track.stream)
        if promised:
            # Some fragmented files count from zero, not from the track's start.
            late = max(track.origin, 0) if fragmented and isinstance(track, Picture) else track.late_start
            short = promised * track.tick - (track.end - track.origin) - late
        elif tagged:
            short = tagged - track.end
        elif container.duration and len(tracks) == len(container.streams):
            # Promised for the longest stream, whichever that is.
            short = Fraction(container.duration, 10**6) - max(other.end for other in tracks)
        else:
            continue
        if short > track.patience + (0 if promised else track.tick):
            msg = f"{path} is cut short: its {track.stream.type} ends {float(short):.3g} s before the promised end"
            raise MediaError(msg)


def _tagged_end(stream: av.VideoStream | av.AudioStream) -> Fraction | None:
    """Matroska's DURATION tag, hours:minutes:seconds, in seconds."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""), re.ASCII)
    return int(found[1]) * 3600 + int(found[2]) * 60 + Fraction(found[3]) if found else None
