"""Finds what other packages add to avbench through entry points.

There is one group for each kind of thing, and each kind's table calls `find` with the names of its own:

- ``avbench.generators``: a generator class (generation/table.py)
- ``avbench.features``: a feature class (features/table.py)
- ``avbench.metrics``: a `Metric` (metrics/table.py)
- ``avbench.subsets``: the path of a subset folder (subsets/loading.py)
- ``avbench.datasets``: a `Reader` (subsets/datasets)

A plug-in that cannot be used is reported in one sentence; everything else goes on working.
"""

import contextlib
import functools
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from avbench.core import InputError, first_line, kind_and_first_line
from avbench.storage.workers.contained import contained
from avbench.storage.workers.working_folder import WorkingFolder

FAILED = "failed in the package "
"""Beginning of the sentence that replaces a number if a plug-in's code raised an error."""


@dataclass(frozen=True)
class PlugIn:
    """One entry point of another package."""

    name: str
    kind: str
    """``metric``, ``feature`` and so on."""
    place: str
    """``module:object``."""
    package: str
    """Name and version, such as ``broadcast-loudness 0.1``."""
    point: EntryPoint = field(repr=False, compare=False)

    def load(self, of: type | tuple[type, ...] = object, folder: WorkingFolder | None = None) -> Any:
        """Import the object.

        Args:
            of: what it must be an instance of.
            folder: where its code works; the user's folder if not given.

        Raises:
            InputError: the package cannot be imported, or the object is not an instance of `of`.
        """
        try:
            with importing(self.point.module, folder):
                found = self.point.load()
        except Exception as error:  # whatever the other package's code raises
            raise InputError(self.unusable(f"it cannot be loaded: {first_line(error)}")) from error
        if not isinstance(found, of):
            wanted = " or ".join(one.__name__ for one in (of if isinstance(of, tuple) else (of,)))
            raise InputError(self.unusable(f"it is not a {wanted} but a {type(found).__name__}"))
        return found

    def unusable(self, why: str) -> str:
        """The sentence that this plug-in cannot be used."""
        return f"the {self.kind} {self.name!r} ({self.place}) of the package {self.package} cannot be used: {why}"


@dataclass(frozen=True)
class Found:
    """The plug-ins of one kind."""

    usable: dict[str, PlugIn]
    """Name → plug-in, in the order of the names."""
    problems: dict[str, str]
    """Name → a sentence on why no plug-in of this name is used."""


def find(group: str, own: Collection[str]) -> Found:
    """Find the plug-ins of a group without importing them. avbench's own names win; of two plug-ins with one name,
    neither is used.

    Args:
        group: ``avbench.metrics`` and so on.
        own: the names that avbench itself has of this kind.
    """
    by_name: dict[str, list[PlugIn]] = {}
    for one in _registered(group, tuple(sys.path)):
        by_name.setdefault(one.name, []).append(one)
    usable, problems = {}, {}
    for name, (first, *others) in sorted(by_name.items()):
        if name in own:
            problems[name] = first.unusable(f"avbench itself has a {first.kind} of that name, which is used instead")
        elif others:
            packages = " and ".join(one.package for one in others)
            problems[name] = first.unusable(f"{packages} has a {first.kind} of that name, too; uninstall one of them")
        else:
            usable[name] = first
    return Found(usable, problems)


@functools.lru_cache
def _registered(group: str, path: tuple[str, ...]) -> tuple[PlugIn, ...]:
    """The entry points of a group in the packages installed on this path; the slow search is done once."""
    kind = group.removeprefix("avbench.").removesuffix("s")
    return tuple(
        PlugIn(one.name, kind, one.value, f"{one.dist.name} {one.dist.version}" if one.dist else "?", one)
        for one in entry_points(group=group)
    )


@contextlib.contextmanager
def importing(module: str, folder: WorkingFolder | None = None) -> Iterator[None]:
    """Import a module of another package in the block, `contained`."""
    if module in sys.modules:  # no code of it runs, and another thread may work in another folder now
        yield
        return
    with contained(folder):
        yield


def failure(package: str, error: BaseException) -> str:
    """Return the sentence that replaces a number if the code of a package raised an error."""
    return f"{FAILED}{package}: {kind_and_first_line(error)}"
