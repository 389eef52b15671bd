"""Is a file whole? What libav passes over is looked at here: ends of gifs, Matroska's checksums, boxes of mp4."""

import mmap
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

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


def check_whole(path: Path) -> None:
    """Raise MediaError where a file is not an ordinary file (reading a pipe would wait for ever), empty or cut short.

    A gif's frames are counted by nothing but its closing byte. An element of Matroska may be cut short or belie its
    CRC-32, and a box of an mp4 may reach beyond the end of the file.
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
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _check_matroska(path, data)
        elif start[4:] in _FIRST_BOXES:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for kind, end in _boxes(data):
                    if end > len(data) and kind in _NEEDED_BOXES:
                        msg = (
                            f"{path} is cut short: it has {len(data)} bytes, and its box {kind.decode()} ends at {end}"
                        )
                        raise MediaError(msg)


def is_fragmented(path: Path) -> bool:
    """Whether a file is a fragmented mp4, as streaming writes it."""
    with path.open("rb") as file:
        if file.read(8)[4:] not in _FIRST_BOXES:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return any(kind == b"moof" for kind, _ in _boxes(data))


def _boxes(data: mmap.mmap) -> Iterator[tuple[bytes, int]]:
    """The outermost boxes of an mp4, each with where it ends; up to the first whose size makes no sense."""
    at = 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:
            return  # 0: to the end of the file
        at += size
        yield kind, at


def _check_matroska(path: Path, data: mmap.mmap) -> None:
    at = 0
    while at < len(data):
        # An element is an ID and a size, whose leading zero bits tell how long they are, and its content.
        wide = 9 - data[at].bit_length()
        kind, at = data[at : at + wide], at + wide
        long = 9 - data[at].bit_length() if at < len(data) else 9
        size = int.from_bytes(data[at : at + long], "big") & ((1 << 7 * long) - 1)
        at += long
        if size == (1 << 7 * long) - 1:
            if kind != _SEGMENT:
                return  # an element of unknown size, as in live streams
            continue
        if max(wide, long) > 8 or at + size > len(data):
            msg = f"{path} is damaged or cut short at byte {at}"
            raise MediaError(msg)
        if kind == _SEGMENT:
            continue  # the segment: its elements follow
        if data[at : at + 2] == b"\xbf\x84" and size >= 6:
            with memoryview(data) as whole:
                matches = zlib.crc32(whole[at + 6 : at + size]) == int.from_bytes(data[at + 2 : at + 6], "little")
            if not matches:
                msg = f"{path} is damaged between bytes {at} and {at + size}"
                raise MediaError(msg)
        at += size
