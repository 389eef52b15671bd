"""Checks that a media file is complete, in ways that libav does not: ends of gifs, checksums of mkv, boxes of mp4.

It also tells from the first bytes of a file that is no media file what it is instead.
"""

import mmap
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from avbench.core.errors import MediaError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
_FIRST_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"wide", b"free", b"skip", b"pnot")
_NEEDED_BOXES = (b"moov", b"moof", b"mdat")
_SEGMENT = b"\x18\x53\x80\x67"
_UNKNOWN_SIZES = (0, 0xFFFFFFFF, 0x7FFFF000)
"""What a program that writes to a pipe puts for a size in a RIFF file, which it cannot know yet; the last is SoX's."""


def check_whole(path: Path) -> None:
    """Raise MediaError if a file is empty, cut short, or not an ordinary file (reading a pipe could wait forever).

    A gif without its closing byte is cut short. So is a Matroska file with an element that extends beyond the end or
    does not match its CRC-32, an mp4 with a box that extends beyond the end, and an AVI that is shorter than it says.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        msg = f"{path} is {_KINDS.get(stat.S_IFMT(found.st_mode), 'no ordinary file')}, not a media file"
        raise MediaError(msg)
    if found.st_size == 0:
        msg = f"{path} is empty"
        raise MediaError(msg)
    with path.open("rb") as file:
        start = file.read(8)
        if start[:4] == b"GIF8":
            file.seek(-min(1024, found.st_size), os.SEEK_END)
            if not file.read().rstrip(b"\0").endswith(b";"):
                msg = f"{path} is cut short: it lacks the closing byte of a gif"
                raise MediaError(msg)
        elif start[:4] == b"\x1a\x45\xdf\xa3":
            _check_matroska(path, file, found.st_size)
        elif start[:4] == b"RIFF":
            _check_avi(path, file, found.st_size)
        elif start[4:] in _FIRST_BOXES:
            for kind, end in _boxes(file, found.st_size):
                if end > found.st_size and kind in _NEEDED_BOXES:
                    msg = (
                        f"{path} is cut short: {found.st_size} of at least {end} bytes are there (its box "
                        f"{kind.decode()} ends later)"
                    )
                    raise MediaError(msg)


_PICTURE, _SOUND = "a picture", "sound"
_BEGINNINGS = {
    b"\x89PNG": _PICTURE,
    b"\xff\xd8\xff": _PICTURE,
    b"BM": _PICTURE,
    b"fLaC": _SOUND,
    b"ID3": _SOUND,
    b"OggS": _SOUND,
    b"GIF8": "video",
    b"\x1a\x45\xdf\xa3": "video",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; `git lfs pull` fetches it",
}
"""First bytes of a file → what it holds."""
_OF_RIFF = {b"AVI ": "video", b"WAVE": _SOUND, b"WEBP": _PICTURE}
ANIMATED_WEBP = "an animated WebP, which is not read; convert it to mp4 or gif"
_LOOKED_AT = 512
"""So many bytes at the beginning tell a text."""


def is_other_content(path: Path, wanted: str) -> str | None:
    """Say what a file holds, as "it is …", if its first bytes show that it does not hold `wanted`; else None.

    Args:
        path: of the file.
        wanted: ``video``, ``a picture`` or ``sound``.
    """
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT)
    found = next((what for begin, what in _BEGINNINGS.items() if start.startswith(begin)), None)
    if start[:4] == b"RIFF":
        found = ANIMATED_WEBP if is_animated(start) else _OF_RIFF.get(start[8:12])
    if start[4:8] in _FIRST_BOXES:
        found = "video"
    if found is None and not start.strip(b"\0"):
        found = "zeros only, as an interrupted copy leaves them"
    if found is None and not start.translate(None, bytes(range(32, 127)) + b"\t\r\n"):
        found = "a web page" if start.lstrip()[:5].lower() in (b"<html", b"<!doc") else "a text"
    if found == wanted:
        return None
    return f"it is {found}" if found else f"it is not {wanted} in a form that avbench reads"


def is_animated_webp(path: Path) -> bool:
    """Whether a file is a WebP of several pictures, which libav does not read; False if it cannot be opened."""
    try:
        with path.open("rb") as file:
            return is_animated(file.read(_LOOKED_AT))
    except OSError:
        return False


def is_animated(start: bytes) -> bool:
    """Whether a file that begins so is a WebP of several pictures; extended WebP begins with a flag for it."""
    return start[:4] == b"RIFF" and start[8:16] == b"WEBPVP8X" and bool(start[20:21] and start[20] & 2)


def is_wav_of_unknown_length(path: Path) -> bool:
    """Whether a file is a WAV that was written to a pipe; libav calls its last packet damaged."""
    with path.open("rb") as file:
        start = file.read(12)
        if start[:4] != b"RIFF" or start[8:] != b"WAVE":
            return False
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                return size in _UNKNOWN_SIZES
            file.seek(size + size % 2, os.SEEK_CUR)
    return False


def lacks_index(path: Path) -> bool:
    """Whether a file is an mp4 without the box that lists its contents, which many programs write last."""
    with path.open("rb") as file:
        if file.read(8)[4:] not in _FIRST_BOXES:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(b"moov") == content.find(b"moof") == -1


def is_finished(path: Path) -> bool:
    """Whether a file has what a program fills in when it closes it; of a file that was written to a pipe or as a
    stream this cannot be told.
    """
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT)
        if start[:4] == b"\x1a\x45\xdf\xa3":
            _, _, size = start.partition(_SEGMENT)
            return size[:1] not in (b"", b"\xff") and not size.startswith(b"\x01" + b"\xff" * 7)
        if start[:4] == b"RIFF":
            return int.from_bytes(start[4:8], "little") not in _UNKNOWN_SIZES
        if start[4:8] in _FIRST_BOXES:
            kinds = [kind for kind, _ in _boxes(file, path.stat().st_size)]
            return b"moov" in kinds and b"moof" not in kinds
    return start[:4] == b"GIF8"


def is_fragmented(path: Path) -> bool:
    """Whether a file is a fragmented mp4, as streaming writes it."""
    with path.open("rb") as file:
        if file.read(8)[4:] not in _FIRST_BOXES:
            return False
        return any(kind == b"moof" for kind, _ in _boxes(file, path.stat().st_size))


def _boxes(file: BinaryIO, length: int) -> Iterator[tuple[bytes, int]]:
    """Yield each outermost box of an mp4 with its end in bytes, up to the first box with an impossible size."""
    at = 0
    while at + 8 <= length:
        file.seek(at)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if size < 8:
            return  # a size of 0 means: to the end of the file
        at += size
        yield kind, at


def _check_avi(path: Path, file: BinaryIO, length: int) -> None:
    """Long files have several outermost chunks. Some programs count the 8 bytes of a chunk's head too."""
    at = 0
    while at + 8 <= length:
        file.seek(at)
        head = file.read(12)
        size = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or head[8:] not in (b"AVI ", b"AVIX") or size in _UNKNOWN_SIZES:
            return
        if at + size > length:
            msg = f"{path} is cut short: {length} of at least {at + size} bytes are there"
            raise MediaError(msg)
        at += 8 + size + size % 2


def _check_matroska(path: Path, file: BinaryIO, length: int) -> None:
    at = 0
    while at < length:
        # An element is an ID, a size and the content; the leading zero bits of ID and size give their lengths.
        file.seek(at)
        head = file.read(18)
        wide = 9 - head[0].bit_length() if head else 9
        kind, rest = head[:wide], head[wide:]
        long = 9 - rest[0].bit_length() if rest else 9
        size = int.from_bytes(rest[:long], "big") & ((1 << 7 * long) - 1)
        at += wide + long
        if size == (1 << 7 * long) - 1:
            if kind != _SEGMENT:
                return  # an element of unknown size, as in live streams
            continue
        if max(wide, long) > 8 or at + size > length:
            msg = f"{path} is damaged or cut short at byte {at}"
            raise MediaError(msg)
        if kind == _SEGMENT:
            continue  # the segment: its elements follow
        if not _crc_matches(file, at, size):
            msg = f"{path} is damaged between bytes {at} and {at + size}"
            raise MediaError(msg)
        at += size


def _crc_matches(file: BinaryIO, at: int, size: int) -> bool:
    """Whether an element's content matches the CRC-32 at its beginning; True if it has none."""
    file.seek(at)
    head = file.read(6)
    if size < 6 or head[:2] != b"\xbf\x84":
        return True
    found, left = 0, size - 6
    while left and (part := file.read(min(left, 2**20))):
        found, left = zlib.crc32(part, found), left - len(part)
    return found == int.from_bytes(head[2:], "little")
