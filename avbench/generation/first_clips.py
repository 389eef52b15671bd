"""Stops a run whose first clips are all black, NaN or out of range, before hours are spent on more.

Pictures in 0…1 that become uint8, weights that were not loaded, a precision that overflows, or a filter that blanks
everything give NaN or black frames for every prompt. A single such clip may be due to its prompt, so only that clip
fails. Two at the start, without a good clip between them, show that the model is broken.
"""

import threading
from collections.abc import Sequence
from typing import Any

from avbench.core import Clip, HopelessError, InputError, UnusableError, WrongFormError
from avbench.generation.table import Made

_ENOUGH = 2
_UNSCALED = "all values of its frames are 0 or 1: multiply pictures in 0...1 by 255 before they become uint8"


class FirstClips:
    """Inspects the clips of a process until the first one that is not empty. Threads of the process share it."""

    def __init__(self, *, stops: bool = True, has_dtype: bool = False, finished: bool = False) -> None:
        """Nothing is inspected yet.

        Args:
            stops: if False, empty clips are replaced by errors, however many there are.
            has_dtype: whether the model has the setting `dtype`, for the advice in the message.
            finished: whether the clips exist already: nobody's time is lost with them, so none is inspected.
        """
        self._stops, self._sure = stops, finished
        self._precision = f"too low a precision{' (-M dtype=)' if has_dtype else ''}"
        self._nothing = 0
        self._lock = threading.Lock()

    def inspect(self, made: Sequence[Made | BaseException]) -> list[Any]:
        """Inspect what a model returned: clips, and errors in place of clips.

        Returns:
            The same list; until the first good clip, black clips are replaced by an error.

        Raises:
            HopelessError: the first clips of this process are all empty.
        """
        if self._sure:
            return [*made]
        inspected = [_unless_empty(one) if isinstance(one, Made) else one for one in made]
        with self._lock:
            if any(isinstance(one, Made) for one in inspected):
                self._sure = True
                return [*made]
            faults = [one for one in inspected if isinstance(one, UnusableError)]
            self._nothing += len(faults)
            if self._stops and self._nothing >= _ENOUGH and faults:
                msg = f"the first {self._nothing} clips cannot be used ({faults[0]}), so the run stops"
                if not isinstance(faults[0], WrongFormError):
                    msg += (
                        ". Possible reasons are pictures in 0...1 that are not multiplied by 255, weights that do not "
                        f"belong together, {self._precision} or a filter in the model"
                    )
                raise HopelessError(msg)
        return inspected


def nothing_in(clip: Clip) -> str | None:
    """Say why nothing can be seen in a clip; None if something can."""
    brightest = clip.frames.max()
    return None if brightest > 1 else _UNSCALED if brightest else "every pixel of every frame is black"


def _unless_empty(made: Made) -> Made | InputError:
    """Return the clip, or an error if it is empty or its file cannot be read."""
    try:
        clip = made.read()
    except InputError as error:  # a file that cannot be read
        return error
    words = nothing_in(clip)
    return made if words is None else (WrongFormError if words == _UNSCALED else UnusableError)(words)
