"""Keeps the working folder of a model's code apart from the user's, which avbench's relative paths start from.

Many repositories change the working folder when they are imported, because their own paths are relative to their root.
Such a model stays in its folder during its own calls, and the user's folder is restored after each call.
"""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from avbench.core import HopelessError, InputError


class WorkingFolder:
    """The working folder of one model: the user's, until the model changes it."""

    def __init__(self, before: "WorkingFolder | None" = None) -> None:
        """Begin in the user's folder, or where the model's code was left `before`."""
        self._own = before._own if before else ""
        self._of_threads = ""

    def share(self) -> None:
        """Let several threads enter it. They have one working folder, which the model may then not change.

        Raises:
            HopelessError: the model has changed it already.
        """
        self._of_threads = _here()
        if self._own:
            raise _refused(self._own)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run the model's code in its own folder, and restore the user's.

        Raises:
            HopelessError: the code changed the folder, which threads share.
        """
        users = self._of_threads or _here()
        if self._own:
            with suppress(OSError):  # it was deleted
                os.chdir(self._own)
        try:
            yield
        finally:
            left_in = _here()
            if left_in != users:
                os.chdir(users)
            if left_in != users and self._of_threads:
                raise _refused(left_in)  # whatever the code raised, which may come from the other folder
            self._own = "" if left_in == users else left_in

    def placed(self, path: Path) -> Path:
        """A path that the model's code gave, seen from the user's folder."""
        return Path(self._own or self._of_threads, path)


def working_folder_of(generator: Any) -> WorkingFolder:
    """The working folder of a generator; of one that does not keep its own it is only restored."""
    own = getattr(generator, "working_folder", None)
    return own if isinstance(own, WorkingFolder) else WorkingFolder()


_AFTER_IMPORT: "weakref.WeakKeyDictionary[ModuleType, WorkingFolder]" = weakref.WeakKeyDictionary()


def after_import(module: ModuleType, folder: WorkingFolder) -> WorkingFolder:
    """A working folder where the import of a module left its code: the `folder` of the first, which alone runs it."""
    return WorkingFolder(_AFTER_IMPORT.setdefault(module, folder))


def require_working_folder() -> None:
    """Raise InputError if the folder in which this process works was deleted, so that no path can be resolved."""
    if not _here():
        msg = "the working folder was deleted: change to one that exists, by cd, or by os.chdir in a notebook"
        raise InputError(msg)


def _refused(changed_to: str) -> HopelessError:
    return HopelessError(
        f"the model changed the working folder to {changed_to or 'one that is gone'}, which the threads of its "
        "concurrency share; leave out concurrency, or use absolute paths instead"
    )


def _here() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was deleted
        return ""
