"""Turns failures of libav and the system into errors that name the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av.error

from avbench.core.errors import MediaError


@contextmanager
def telling(path: Path, done: str) -> Iterator[None]:
    """Turn any error of libav, the system or `Clip` into a MediaError: "`path` cannot be `done`: …"."""
    try:
        yield
    except MediaError:
        raise
    except MemoryError as error:
        msg = f"{path} cannot be {done}: there is not enough memory"
        raise MediaError(msg) from error
    except (av.error.FFmpegError, OSError, ValueError, ArithmeticError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        msg = f"{path} cannot be {done}: {reason[:1].lower()}{reason[1:]}"
        raise MediaError(msg) from error
