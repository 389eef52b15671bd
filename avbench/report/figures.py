"""Writes the page's forest plot to a file for a paper: SVG, PDF or PNG, on white.

SVG needs nothing. PDF and PNG are made of it by cairosvg (the extra ``figures``), which keeps text as text, in DejaVu
Sans where the system has it.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from avbench.comparison.differences import by_pair
from avbench.core import InputError, first_line, nearest
from avbench.report.page import svg
from avbench.report.page.forest import WIDE, forest
from avbench.report.page.plots import colour
from avbench.storage.writing import write_whole

FORMS = ("pdf", "png", "svg")
_PRINT = """<style>
svg { background: #ffffff } text { fill: #000000; font: 11.5px "DejaVu Sans", Helvetica, Arial, sans-serif }
.soft { fill: #555555 } .strong { font-weight: bold } .grid { stroke: #dddddd } .zero { stroke: #555555 }
.reach { stroke-width: 3px } .reach.full:not([stroke]) { stroke: #000000 }
.reach.open { stroke: #777777; stroke-width: 1.5px }
.mark.open { fill: #ffffff; stroke: #777777; stroke-width: 1.6px } .row { fill: none }
</style>"""
_PIXELS = 3
"""Pixels of a PNG for one of the drawing: 2,160 in its width, enough for a column of print."""


def checked_form(path: Path) -> str:
    """The form that a file's suffix names.

    Raises:
        InputError: it is none of FORMS, or cairosvg is not installed and the form needs it.
    """
    form = path.suffix.removeprefix(".").lower()
    if form not in FORMS:
        msg = f"figure {path}: the suffix says the form, and {form or 'none'!r} is unknown; {nearest(form, FORMS)}"
        raise InputError(msg)
    if form != "svg":
        _converter(form)
    return form


def write_forests(differences: pd.DataFrame, scores: pd.DataFrame, path: Path) -> list[Path]:
    """Write the forest plot of each pair of runs, and return the files.

    Args:
        differences: `differences.differences` of the runs.
        scores: their `leaderboard.leaderboard`.
        path: the file of a single pair. For several, the names of the runs are added to its name.

    Raises:
        InputError: see `checked_form`; nothing was compared; the file cannot be written.
    """
    form = checked_form(path)
    pairs = by_pair(differences)
    if not pairs:
        msg = f"figure {path}: there is nothing to draw, because no two runs were compared"
        raise InputError(msg)
    colours = {name: colour(place) for place, name in enumerate(dict.fromkeys(scores["model"]))}
    written = []
    for (run, against), rows in pairs.items():
        place = path if len(pairs) == 1 else path.with_stem(f"{path.stem}-{run}-{against}")
        drawing = svg.as_file(forest(rows, scores, colours, [WIDE]), WIDE, _PRINT).encode()
        write_whole(place, drawing if form == "svg" else _converter(form)(drawing))
        written.append(place)
    return written


def _converter(form: str) -> Callable[[bytes], bytes]:
    """The function that turns SVG into a form."""
    try:
        import cairosvg
    except (ImportError, OSError) as error:  # OSError: the library of cairo itself is missing
        why = first_line(error)
        msg = f"a figure as {form.upper()} needs cairosvg ({why}): pip install 'avbench[figures]', or write .svg"
        raise InputError(msg) from None
    if form == "pdf":
        return lambda drawing: cairosvg.svg2pdf(drawing)  # pyright: ignore[reportReturnType]  # bytes: no file is named
    return lambda drawing: cairosvg.svg2png(  # pyright: ignore[reportReturnType]
        drawing, scale=_PIXELS, background_color="#ffffff"
    )
