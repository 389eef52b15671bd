"""Runs the code of a model or of another package, so that it can neither end the program around it nor move it."""

from collections.abc import Iterator
from contextlib import contextmanager

from avbench.core import InputError, ProgramEnd, kind_and_first_line
from avbench.storage.workers.forks import ends_forks
from avbench.storage.workers.working_folder import WorkingFolder


@contextmanager
def contained(folder: WorkingFolder | None = None) -> Iterator[None]:
    """Run others' code in the block. Afterwards the working folder is the user's, and no child that it forked is left.

    Args:
        folder: where this code works; the user's folder if not given.

    Raises:
        ProgramEnd: in place of what only ends a program, such as SystemExit. Ctrl-C stays what it is.
    """
    try:
        with (folder or WorkingFolder()).entered(), ends_forks():
            yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ProgramEnd(kind_and_first_line(error)) from error


@contextmanager
def blamed_on(what: str) -> Iterator[None]:
    """Raise InputError, ``WHAT failed: …``, where others' code raises an error, which is no fault of avbench."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        msg = f"{what} failed: {kind_and_first_line(error)}"
        raise InputError(msg) from error
