"""Converts a decoded picture to RGB as it is meant to be shown: colours, square pixels, rotation and mirroring."""

from contextlib import suppress
from fractions import Fraction

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import Interpolation

_GBR, _UNSPECIFIED, _BT709, _BT601 = 0, 2, 1, 5  # AVColorSpace
_UNCONVERTED = {8: "YCgCo", 10: "BT.2020-CL", 12: "chroma-derived-NCL", 13: "chroma-derived-CL", 14: "ICtCp"}
"""AVColorSpace that libswscale does not convert to RGB → its name."""
_LIMITED = 1  # AVColorRange
_HDR = {16: "PQ", 18: "HLG"}  # AVColorTransferCharacteristic
# Without full chroma, libswscale's general path (10 bits, odd heights, 4:1:1) darkens every grey by 1.6 of 255. The
# flag does not affect its separate path for 8-bit 4:2:0 and 4:2:2.
_SCALER = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT
_FULL_RANGE = np.clip(np.round((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)
"""Luma of limited range → that of full range."""
_MOST_STRETCH = 10
_UNSEEN = Fraction(1, 100)


def named_matrix(height: int) -> int:
    """Return the AVColorSpace to assume for a picture of this height if its stream names none."""
    return _BT709 if height >= 720 else _BT601


def square_size(width: int, height: int, pixel: Fraction | None) -> tuple[int, int]:
    """Return the picture's width and height in square pixels; a stored pixel is `pixel` times as wide as high.

    The shorter side of the pixel is enlarged, so nothing is lost. A deviation of up to 1 % is ignored.

    Raises:
        ValueError: a pixel is more than 10 times as wide as high, or as high as wide.
    """
    if not pixel or abs(pixel - 1) <= _UNSEEN:
        return width, height
    if not Fraction(1, _MOST_STRETCH) <= pixel <= _MOST_STRETCH:
        msg = f"its pixels are declared as {pixel.numerator}:{pixel.denominator} (width to height), which is impossible"
        raise ValueError(msg)
    return (round(width * pixel), height) if pixel > 1 else (width, round(height / pixel))


def as_seen(frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
    """Convert a frame to ``[height, width, 3]`` uint8 RGB: scaled to `size` (width, height), then rotated."""
    image = _rgb(frame)
    if size != (frame.width, frame.height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    matrix = _display_matrix(frame)
    if len(matrix) < 20:
        return np.rot90(image, frame.rotation // 90)  # 0 if the frame has no matrix at all
    # A point x right and y down goes to ax + cy, bx + dy.
    a, b, _, c, d = np.frombuffer(matrix, np.int32, 5).tolist()
    if (a or d) and (b or c):
        msg = "its picture is declared as rotated by an angle other than quarter turns"
        raise ValueError(msg)
    if a or d:
        return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return image.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]


def _display_matrix(frame: av.VideoFrame) -> bytes:
    """The frame's matrix of rotation and mirroring; empty if it has none, or if PyAV cannot reach it."""
    # Not `frame.side_data`, which keeps the frame alive until Python collects cycles: 70 MiB and more for a clip.
    kept = SideDataContainer.__new__(SideDataContainer)
    # PyAV stops at a kind of data that it has no name for, such as EXIF, but keeps those before it. libav puts the
    # matrix of a picture's EXIF before the EXIF itself.
    with suppress(ValueError):
        kept.__init__(frame)  # pyright: ignore[reportCallIssue]
    found = kept.get("DISPLAYMATRIX")
    return b"" if found is None else bytes(found)


def colour_remarks(frame: av.VideoFrame) -> list[str]:
    """Name the properties of a frame that are read as stored although a screen would show them differently."""
    hdr = _HDR.get(frame.color_trc)
    return [f"its colours are HDR ({hdr}): read as stored, without tone mapping"] if hdr else []


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    if frame.colorspace in _UNCONVERTED and len(frame.format.components) > 1:
        name = _UNCONVERTED[frame.colorspace]
        msg = f"its colours are in {name}, which this version of FFmpeg cannot convert to RGB; convert it to BT.709"
        raise ValueError(msg)
    if frame.colorspace in (_UNSPECIFIED, _GBR) and not frame.format.is_rgb:  # YUV cannot be GBR: a wrong tag
        frame.colorspace = named_matrix(frame.height)
    if frame.format.has_palette or any(component.is_alpha for component in frame.format.components):
        return _over_black(frame.to_ndarray(format="rgba", interpolation=_SCALER))
    image = frame.to_ndarray(format="rgb24", interpolation=_SCALER)
    # libswscale takes every grey for full range
    if frame.color_range == _LIMITED and len(frame.format.components) == 1:
        return cv2.LUT(image, _FULL_RANGE)
    return image


def _over_black(rgba: np.ndarray) -> np.ndarray:
    image = np.ascontiguousarray(rgba[..., :3])
    for rows in range(0, len(rgba), 64):  # in strips, because a whole large picture in 16 bits takes much memory
        part = slice(rows, rows + 64)
        alpha = rgba[part, :, 3:]
        if (alpha < 255).any():
            image[part] = (image[part] * alpha.astype(np.uint16) + 127) // 255
    return image
