"""Removes local paths from what is given to other people: cards of references, baselines, pages.

A run folder itself keeps whole paths, because resuming needs them.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from avbench.storage.reading import expanded

_PATH = re.compile(r"((?:[a-z-]+:)?)((?:~|[A-Za-z]:(?=[/\\]))?[/\\](?![/\\]).*)", re.DOTALL)
"""``provider:`` or nothing, and an absolute path."""
_FOLDERS = re.compile(r"(?<![\w./\\~-])(?:~|[A-Za-z]:(?=\\))?[/\\](?:[^/\\\s:;,+'\"]+[/\\])+")
"""The folders of an absolute path within a sentence or a command."""


def without_folders(value: Any) -> Any:
    """Cut every absolute path in plain JSON values to its last name: ``clips:/home/me/real`` becomes ``clips:real``.

    Addresses of servers and relative paths stay as they are. A path with spaces is recognised where it is the whole
    text and exists here; within a sentence a path ends at the first space.
    """
    if isinstance(value, Mapping):
        return {without_folders(name): without_folders(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(one) for one in value]
    if not isinstance(value, str):
        return value
    if (found := _PATH.fullmatch(value)) and _exists(found[2]):
        return found[1] + Path(found[2]).name
    return _FOLDERS.sub("", value)


def shared_command(words: Iterable[Any], options: Mapping[str, Any] | None = None) -> str:
    """Write a command for other people: absolute paths are cut to their last names, and words quoted for a shell.

    An option without a value is left out; of a list, every item gets the option.
    """
    for name, value in (options or {}).items():
        given = value if isinstance(value, list | tuple) else [] if value is None else [value]
        words = [*words, *(word for one in given for word in (f"--{name}", one))]
    return shlex.join(without_folders([str(word) for word in words]))


def _exists(text: str) -> bool:
    try:
        return expanded(text).exists()
    except (OSError, ValueError):  # too long, with a NUL, or no such user
        return False
