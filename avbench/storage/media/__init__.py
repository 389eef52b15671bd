"""Reads media files into clips, exactly or not at all, and writes clips to files.

`read_clip` reads mp4, mov, mkv, webm, avi, gif and folders of numbered frames, `has_sound` looks for a sound track in
one, and `write_clip` writes lossless mkv or ordinary mp4. Only this package deals with codecs. Every failure is a
`MediaError`: one sentence that names the file. Each decision that the reader had to make is a sentence in
`Clip.remarks`.

Time (timing.py). Frames count from the first frame's timestamp, and sample 0 sounds at that moment: a track that starts
late gets zeros in front, one that starts early is trimmed, a gap of more than 50 ms inside the track is filled with
zeros, and where blocks overlap by more than 20 ms for half a second the earlier one is cut. A stream has a constant
rate if every timestamp is within one tick of the container's clock of k/fps. Its fps is a rate that the container
declares (a rounded rate such as 19001/317 is read as the n·1000/1001 it stands for), else the simplest fraction that
fits, so a gif with delays of 120 and 130 ms has 8 fps. Every other stream has a variable rate. It is read at the
constant rate that leaves the fewest frames out of step or late: each source frame moves to the nearest k/fps and is
shown until the next one; of several at one k the last is shown. A remark gives the rate and how many frames were left
out and repeated. A fragmented mp4 without an edit list stretches its first frame, or its first block of sound, over the
sound's priming; this is undone. Where an edit list of mp4 starts within a frame, libav moves the next one forward,
which is undone too. If the first frame alone is out of step, sample 0 sounds where the grid of the others starts.

Copies and cuts (packets.py). AVI stores no presentation times: its frames get the packets' places in rising order. What
a cut leaves at the beginning without the frames that it needs is left out, as by players, with a remark.

Exact: files that `write_clip` wrote losslessly, down to fps, pixels and 24-bit samples; sample counts in mp4, wav and
flac, with AAC's priming and padding removed. Not exact: lossy codecs, whose samples beyond ±1 are clipped; mp3, which
may keep its priming and padding, AAC in avi, which keeps both (a remark says so), and AAC in mkv, which keeps its
padding; timestamps in mkv and webm, which are rounded
to 1 ms, and in gif, to 10 ms. A sound that starts less than one tick from frame 0 is taken to start with it.

Pictures (colour.py). YUV is converted by libswscale with the stream's matrix and range. If the stream names no matrix,
it is BT.709 from 720 lines upwards and BT.601 below. Transparent pixels are composited over black (libav does not
decode the alpha of VP8 and VP9). Non-square pixels are made square by enlarging their shorter side, so 720x576 with
pixels of 16:15 is read as 768x576; an invisible deviation of up to 1 % is kept. Then pictures are rotated and mirrored
in quarter turns as the display matrix says, or the EXIF of a picture. Cropping that only the container states (mp4's
clap, Matroska's PixelCrop) is not applied.

Tracks. Of several picture or sound tracks the one marked as default is read, as players do, else the first; a remark
says so.

Memory (budget.py). The number of frames and bytes that a file may become is limited, and checked before allocation.

Damage (integrity.py) is found where the format reveals it: by checksums, broken syntax, or fewer seconds than promised.
Three kinds are not found: a flipped bit in a lossy stream or in raw samples, the loss of the last 10 ms of an mp4's
sound, and the missing end of a fragmented mp4 that was cut between two fragments.
"""

import av.logging

from avbench.storage.media.reading import (
    IMAGE_SUFFIXES,
    MEDIA_SUFFIXES,
    SOUND_SUFFIXES,
    has_sound,
    read_clip,
    unequal_lengths,
)
from avbench.storage.media.stored import StoredClip
from avbench.storage.media.writing import write_clip

av.logging.set_level(None)

__all__ = [
    "IMAGE_SUFFIXES",
    "MEDIA_SUFFIXES",
    "SOUND_SUFFIXES",
    "StoredClip",
    "has_sound",
    "read_clip",
    "unequal_lengths",
    "write_clip",
]
