"""Refuses frames that are too few or too small for a feature. `frames` are ``[time, height, width, 3]``."""

from typing import Any

from avbench.core import NotMeasurable, counted


def require_frames(frames: Any, fewest: int, who: str) -> None:
    """Raise NotMeasurable if there are fewer frames; `who` begins the sentence, as ``DOVER needs``."""
    if len(frames) < fewest:
        msg = f"{who} {counted(fewest, 'frame')} and this clip has {len(frames)}"
        raise NotMeasurable(msg)


def require_sides(frames: Any, least: int, who: str) -> None:
    """Raise NotMeasurable if a side of the frames has fewer pixels; `who` is as for `require_frames`."""
    height, width = frames.shape[1:3]
    if min(height, width) < least:
        msg = f"the frames are {width}x{height}; {who} {least} pixels on either side"
        raise NotMeasurable(msg)
