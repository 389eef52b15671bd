"""Ends the child processes that a model's or a plug-in's code forks, where its call ends.

A fork copies the whole program. A child that returned from the call, or whose exception (SystemExit included) was
caught around it, would go on as a second avbench that writes into the same run.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def ends_forks() -> Iterator[None]:
    """End every process at the end of the block, except the one that began it; exit codes are those of Python."""
    own = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != own:
            _end(error)
        raise
    if os.getpid() != own:
        _end(SystemExit())


def _end(error: BaseException) -> NoReturn:
    code = error.code if isinstance(error, SystemExit) else "".join(traceback.format_exception(error))
    number = code & 0xFF if isinstance(code, int) else int(code is not None)
    try:
        if isinstance(code, str):
            sys.stderr.write(f"{code}\n")
        sys.stderr.flush()
        sys.stdout.flush()
    finally:  # the child's code may have closed them
        os._exit(number)
