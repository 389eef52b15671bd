"""Does a model make anything at all? A run whose first clips hold nothing stops, before hours of it are made.

Weights that found no place, a precision that overflows or a filter that blanks everything make NaN or black frames,
and then of every prompt. One such clip may be an accident of its prompt; it costs that clip. Two at the start, with no
other clip between, are the model's way.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avbench.core import InputError, UnusableError
from avbench.generation.table import Made
from avbench.storage.media import read_clip

_ENOUGH = 2


class FirstClips:
    """Looks at clips until one of them shows something; from then on it looks no more.

    One for each process that makes clips: its threads share it.
    """

    def __init__(self) -> None:
        self._sure = False
        self._nothing = 0
        self._lock = threading.Lock()

    def look(self, made: Sequence[Made | BaseException]) -> list[Any]:
        """Look at what a model made: clips, and errors in their place.

        Returns:
            The same; a black clip, while no clip has shown anything yet, as the error that it is.

        Raises:
            BarrenError: the first clips hold nothing.
        """
        if self._sure:
            return [*made]
        looked = [_seen(one) if isinstance(one, Made) else one for one in made]
        with self._lock:
            if any(isinstance(one, Made) for one in looked):
                self._sure = True
                return [*made]
            faults = [one for one in looked if isinstance(one, UnusableError)]
            self._nothing += len(faults)
            if self._nothing >= _ENOUGH and faults:
                msg = (
                    f"the first {self._nothing} clips hold nothing ({faults[0]}): the run stops here. Weights that do "
                    "not belong together, too low a precision (-M dtype=) or a filter in the model can be the reason"
                )
                raise BarrenError(msg)
        return looked


class BarrenError(InputError):
    """The first clips of a run hold nothing. The message says what was seen."""


def _seen(made: Made) -> Made | InputError:
    """The clip, or an error that says why there is nothing to see in it."""
    try:
        clip = read_clip(made.clip) if isinstance(made.clip, Path) else made.clip
    except InputError as error:  # a file that cannot be read
        return error
    return made if clip.frames.any() else UnusableError("every pixel of every frame is black")
