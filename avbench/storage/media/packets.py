"""Finds what cutting and copying without re-encoding leave in the packets of a picture track.

A cut inside a group of pictures leaves frames at the beginning that need others from before it. No player shows them.
An edit list of mp4 hides packets, and AVI stores packets in the order of decoding, without times of presentation.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise, takewhile

import av

_SLICE, _SLICE_OF_IDR = 1, 5  # kinds of units of H.264
_REPEATS = 8  # bytes: a smaller packet of MPEG-4 in AVI only says that the frame before it stays


class Packets:
    """Timestamps of the packets of one track, in the order of decoding."""

    def __init__(self, stream: av.VideoStream) -> None:
        self.stream, self.without_times = stream, stream.container.format.name == "avi"
        self.first_after_hidden: tuple[int, int] | None = None
        """Place in the file, in bytes, and timestamp of the first packet that is shown after hidden ones."""
        self.starts_inside = self._hidden = False
        self._stamps: list[int] = []
        self._keys: set[int] = set()
        self._needs_others = False
        self._noted = self._unstamped = 0
        self._before_frames: int | None = None

    def note(self, packet: av.Packet) -> None:
        """Note a packet that is decoded next. In AVI its place becomes its timestamp, and so that of its frame."""
        self._noted += 1
        if self.without_times:
            packet.pts = packet.dts
        if self._noted == 1:
            self.starts_inside = _needs_others(packet)
        elif self.starts_inside and self._before_frames is None:
            self._needs_others = _needs_others(packet)
        if packet.pts is None:
            # Matroska has no times below 0.
            self._unstamped += packet.size > 0 and bool(self._stamps) and self._before_frames is None
            return
        if packet.is_discard:
            self._hidden = True
            return
        if self._hidden and not self._stamps and packet.pos is not None:  # a later part of a list may hide some, too
            self.first_after_hidden = packet.pos, packet.pts
        if not self.without_times or packet.size > _REPEATS:
            self._stamps.append(packet.pts)
            if packet.is_keyframe:
                self._keys.add(packet.pts)

    def frame_came(self) -> None:
        """Note that a frame was decoded."""
        if self._before_frames is None:
            self._before_frames = len(self._stamps) - 1

    def may_lack_others(self) -> bool:
        """Whether the packet that was noted last may need frames from before a cut, or dismiss one of those.

        Such packets lie between the first one and the first frame that comes. Only the decoder of H.264 fails on them.
        """
        return self.starts_inside and self._before_frames is None and self._noted > 1 and self._needs_others

    def lost(self, stamps: Sequence[int]) -> int:
        """Return how many packets at the beginning gave no frame; `stamps` are those of the frames that came."""
        unstamped = self._unstamped if stamps and not self.without_times else 0
        return unstamped + len(self._lost_stamps(stamps))

    def lost_a_beginning(self, stamps: Sequence[int]) -> bool:
        """Whether a group of pictures that is there from its beginning gave no frame: it is damaged.

        Where the picture is refreshed in stripes, one key frame may be lost: frames come before the next one.
        """
        return sum(stamp in self._keys for stamp in self._lost_stamps(stamps)) > 1

    def _lost_stamps(self, known: Sequence[int]) -> list[int]:
        if self.without_times:
            return self._lost_places(known)
        return [stamp for stamp in self._stamps if stamp < min(known)] if known else []

    def seconds_lost(self, stamps: Sequence[int], tick: Fraction) -> Fraction:
        """Return how long the first frame that came is after the first packet, where packets have times."""
        return max(0, min(stamps) - min(self._stamps)) * tick

    def times(self, stamps: Sequence[int], tick: Fraction) -> tuple[list[Fraction], Fraction]:
        """Return when the frames of an AVI are shown, in seconds, if `stamps` are the places of their packets.

        The second value is how much later that is than the container counts them.

        A frame is shown at the place that has its number, whichever packet holds it. FFmpeg writes a track that starts
        late from 0 on, with a hole after its first packet. If its decoder has to wait for later packets, its frames
        were meant to be shown later by as much; without a hole, it is the sound that started late and was moved.
        """
        lost = self._lost_places(stamps)
        places = sorted([*stamps, *lost])
        wait = (self._before_frames or 0) - len(lost)
        gaps = [after - before for before, after in pairwise(places)]
        usual = sorted(gaps)[len(gaps) // 2] if gaps else 0
        later = 0
        if wait > 0 and gaps and gaps[0] > usual == max(gaps[1:], default=usual):
            places, later = [places[1] - usual, *places[1:]], wait * usual
        return [(place + later) * tick for place in places[len(lost) :]], later * tick

    def _lost_places(self, stamps: Sequence[int]) -> list[int]:
        """Those before the first key frame, and those that follow it in the file and are shown before it."""
        came = set(stamps)
        before = list(takewhile(lambda place: place not in came, self._stamps))
        return before + list(takewhile(lambda place: place not in came, self._stamps[len(before) + 1 :]))


def _needs_others(packet: av.Packet) -> bool:
    """Whether a packet of H.264 does not start a sequence, so that it and later ones may need frames from before it."""
    codec = packet.stream.codec_context
    if codec is None or codec.name != "h264":
        return False
    data, head = bytes(packet), codec.extradata or b""
    if head[:1] != b"\1":
        kinds = {found[1][0] & 31 for found in re.finditer(rb"\x00\x00\x01(.)", data, re.DOTALL)}
        return _SLICE in kinds and _SLICE_OF_IDR not in kinds
    kinds, at, wide = set(), 0, (head[4] & 3) + 1 if len(head) > 4 else 4
    while at + wide < len(data):
        kinds.add(data[at + wide] & 31)
        at += wide + int.from_bytes(data[at : at + wide], "big")
    return _SLICE in kinds and _SLICE_OF_IDR not in kinds
