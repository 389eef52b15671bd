"""Turns failures of libav and the system into errors that name the file and say plainly what is wrong with it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any

import av.error

from avbench.core.errors import InputError, MediaError, shown
from avbench.storage.media.integrity import is_other_content, lacks_index

_LACKING = (
    av.error.DecoderNotFoundError,
    av.error.DemuxerNotFoundError,
    av.error.PatchWelcomeError,
    av.error.ExperimentalError,
)
"""Errors of libav about what it cannot do, not about the file."""


def media_path(given: Any) -> Path:
    """A path that a user gave. Raises InputError if it is neither text nor a path, or empty."""
    if not isinstance(given, str | PathLike) or given == "":
        msg = f"{shown(given)} is no path of a clip: give one as text or as a Path"
        raise InputError(msg)
    return Path(given)


@contextmanager
def telling(path: Path, done: str, holds: str = "video") -> Iterator[None]:
    """Turn any error of libav, the system or `Clip` into a MediaError: "`path` cannot be `done`: …".

    Args:
        path: of the file.
        done: ``read`` or ``written``.
        holds: what the file is meant to hold: ``video``, ``a picture`` or ``sound``.
    """
    try:
        yield
    except MediaError:
        raise
    except MemoryError as error:
        msg = f"{path} cannot be {done}: there is not enough memory"
        raise MediaError(msg) from error
    except (av.error.FFmpegError, OSError, ValueError, ArithmeticError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        reason = f"{reason[:1].lower()}{reason[1:]}"
        if done == "read" and isinstance(error, av.error.FFmpegError) and not isinstance(error, OSError):
            reason = f"{_in_plain_words(path, error, holds)} ({reason})"
        msg = f"{path} cannot be {done}: {reason}"
        raise MediaError(msg) from error


def _in_plain_words(path: Path, error: Exception, holds: str) -> str:
    """What is wrong with a file that libav does not read; its own words say little."""
    with suppress(OSError, ValueError):  # the file may be gone by now
        if other := is_other_content(path, holds):
            return other
        if lacks_index(path):
            return "it is cut off: its index is missing, which is written last"
    if isinstance(error, _LACKING):
        return "it is encoded in a way that this version of FFmpeg cannot decode"
    return "it is cut off" if isinstance(error, av.error.EOFError) else "it is damaged or cut off"
