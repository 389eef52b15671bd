"""Media files become clips, and clips become files.

The only package that knows codecs. `read_clip` reads mp4 and mov, mkv, webm, avi, gif and folders of numbered frames;
`write_clip` writes lossless mkv or ordinary mp4. Every failure is a `MediaError` of one sentence that names the file.
Whatever the reader had to decide by itself stands in `Clip.remarks`, one sentence each.

Time (timing.py). Frames count from the first frame's timestamp, and sample 0 sounds at that moment: a late track gets
zeros in front, an early one is trimmed, a gap of more than 50 ms inside the track is filled with zeros. A stream has a
constant rate when every timestamp lies within one tick of the container's clock of k/fps; fps is then a rate that the
container declares (19001/317 and its like are read as the n·1000/1001 they stand for), else the simplest fraction that
fits, so that a gif with delays of 12 and 13 hundredths has 8 fps. Every other stream has a variable rate. It is read at
the rate at which most of its frames follow one another: each source frame goes to the nearest k/fps and is shown until
the next one; of several at one k the last is shown. A remark states the rate, and how many frames were left out and
repeated. A fragmented mp4 without an edit list stretches its first frame, or its first block of sound, over the sound's
priming: that is undone. AVI keeps no presentation times: its frames are sorted.

Exact: what `write_clip` writes losslessly, down to fps, pixels and 24-bit samples; sample counts in mp4, wav and flac,
AAC's priming and padding removed. Not exact: lossy codecs, whose samples beyond ±1 are clipped; mp3, which may keep
its priming and padding, as AAC keeps its padding in mkv; timestamps in mkv and webm, to 1 ms, and in gif, to 10 ms.
A sound that starts less than a tick from frame 0 starts with it.

Pictures (colour.py). YUV is converted by libswscale with the stream's matrix and range; where the stream names no
matrix, BT.709 from 720 lines and BT.601 below. Transparent pixels are composited over black (libav does not decode
VP8's and VP9's alpha). Pixels that are not square are made square: the shorter side of the pixel is enlarged, so that
720x576 with pixels of 16:15 is read as 768x576; a deviation of up to 1 %, less than can be seen, is left alone. Then
pictures are turned and mirrored in quarter turns as the display matrix says.

Tracks. Of several picture or sound tracks the one marked as default is read, as players do, else the first; a remark
says so.

Memory (budget.py). A file may become so many frames and so many bytes, checked before they are allocated.

Damage (integrity.py) is found where the format tells: checksums, broken syntax, fewer seconds than promised. A flipped
bit in a lossy stream, or in raw samples, may pass, and so may the loss of an mp4's last 10 ms of sound and a fragmented
mp4 that was cut between two fragments.
"""

import av.logging

from avbench.storage.media.reading import IMAGE_SUFFIXES, MEDIA_SUFFIXES, read_clip
from avbench.storage.media.writing import write_clip

av.logging.set_level(None)

__all__ = ["IMAGE_SUFFIXES", "MEDIA_SUFFIXES", "read_clip", "write_clip"]
