"""Finds the subsets and reference statistics that avbench ships, in a checkout or inside the wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def folder(name: str) -> Path:
    """Return the shipped folder `name`: ``subsets`` or ``reference_stats``.

    Raises:
        FileNotFoundError: the installation lacks the folder.
    """
    for place in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if place.is_dir():
            return place
    msg = f"this installation of avbench lacks the folder {name}/; install avbench again"
    raise FileNotFoundError(msg)
