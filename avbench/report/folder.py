"""The folder of a report: who writes it, and what is said where it cannot be written."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from avbench.core import InputError


@contextmanager
def alone(place: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Write a report's folder while no other avbench does.

    Args:
        place: the folder; it is made.
        waiting: called once where another process is writing, before it is waited for.

    Raises:
        InputError: something in it cannot be read or written: the disk is full, for example.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        with (place / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        msg = f"the report in {place} cannot be written: {(error.strerror or str(error)).lower()}{where}"
        raise InputError(msg) from error
