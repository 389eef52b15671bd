"""Where are the subsets and reference statistics that come with avbench? In a checkout or inside the wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def folder(name: str) -> Path:
    """The folder of shipped `name` (``subsets`` or ``reference_stats``).

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    for place in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if place.is_dir():
            return place
    msg = f"this installation of avbench lacks its {name}/ folder; install it again"
    raise FileNotFoundError(msg)
