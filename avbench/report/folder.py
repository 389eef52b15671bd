"""Locks a report's folder for one writer at a time, and turns errors of writing into a sentence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from avbench.core import InputError
from avbench.storage import writing


@contextmanager
def locked(place: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Lock a report's folder while it is written.

    Args:
        place: the folder; it is made.
        waiting: called once if another process is writing, before waiting for it.

    Raises:
        InputError: it is a run folder, or something in it cannot be read or written: the disk is full, for example.
    """
    if (place / "run.json").exists():
        msg = f"{place} is a run folder, which holds measurements; name another folder for the report"
        raise InputError(msg)
    try:
        with writing.locked(place / ".lock", waiting):
            yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        msg = f"the report in {place} cannot be written: {(error.strerror or str(error)).lower()}{where}"
        raise InputError(msg) from error
