"""Draws shapes, text and axes as SVG, the form of all figures of the page: they print, and need no script.

Coordinates are pixels of a drawing whose width the caller gives. Colours of runs are fixed; text and lines have classes
and take their colours from the page, which knows whether it is dark. All text is escaped here: names come from anybody.
"""

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

LETTER = 6.4
"""Average width of a letter, in pixels."""


_LETTER_TO_LEFT = "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\U00010800-\U00010fff\U0001e800-\U0001efff]"
TO_LEFT = re.compile(rf"{_LETTER_TO_LEFT}(?:\w|{_LETTER_TO_LEFT}|[-.]+(?=\w)|\s(?={_LETTER_TO_LEFT}))*")
"""Words that are read from right to left. What stands between two of them would be read so, too: in ``A − B`` of two
such names B would stand on the left."""


def text(x: float, y: float, words: object, *, anchor: str = "start", kind: str = "") -> Markup:
    """A line of text with its baseline at y. `kind` is the class: ``soft``, ``strong`` or none.

    Words that are read from right to left stand between the two signs that keep them apart from the rest.
    """
    words = TO_LEFT.sub("\u2068\\g<0>\u2069", str(words))
    return Markup('<text x="{:g}" y="{:g}" text-anchor="{}" class="{}">{}</text>').format(
        round(x, 1), round(y, 1), anchor, kind, escape(words)
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "grid", **look: object) -> Markup:
    """A straight line. `look` has attributes of SVG, with _ for -."""
    return _shape("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": kind, **look})


def circle(x: float, y: float, radius: float, **look: object) -> Markup:
    """A disc."""
    return _shape("circle", {"cx": x, "cy": y, "r": radius, **look})


def polygon(points: Iterable[tuple[float, float]], **look: object) -> Markup:
    """A closed shape."""
    return _shape("polygon", {"points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points), **look})


def path(points: Iterable[tuple[float, float]], **look: object) -> Markup:
    """An open line through points."""
    return _shape("polyline", {"points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points), "fill": "none", **look})


def rectangle(x: float, y: float, width: float, height: float, **look: object) -> Markup:
    """A box."""
    return _shape("rect", {"x": x, "y": y, "width": width, "height": height, **look})


def group(parts: Iterable[Markup], **look: object) -> Markup:
    """Several shapes with common attributes."""
    return Markup("<g{}>{}</g>").format(_attributes(look), Markup("").join(parts))


def drawing(
    parts: Iterable[Markup], width: float, height: float, alt: str, kind: str = "", role: str = "img"
) -> Markup:
    """A whole figure. `alt` is the text for readers who cannot see the drawing."""
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:g} {:g}" class="drawing {}" role="{}" aria-label="{}">'
        "{}</svg>"
    ).format(width, math.ceil(height), kind, role, alt, Markup("").join(parts))


_STYLE = """<style>
text { fill: #1c1f23; font: 12.5px system-ui, sans-serif } .soft { fill: #676d75 } .strong { font-weight: 650 }
.grid { stroke: #e3e4e1 } .zero { stroke: #676d75 } .floor { stroke: #676d75; stroke-dasharray: 2 3; stroke-width: 2 }
.reach { stroke-width: 3 }
@media (prefers-color-scheme: dark) { text { fill: #e4e6e8 } .soft { fill: #989fa7 } .grid { stroke: #2d3236 } }
</style>"""


def as_file(figure: Markup, width: float, style: str = _STYLE) -> str:
    """A drawing as a file of its own, so wide, with the looks that the page would give it, or with others."""
    head, tag, rest = str(figure).partition(">")  # a Markup would escape what is added
    return head.replace("<svg ", f'<svg width="{width:g}" ', 1) + tag + style + rest


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` to pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Round numbers within the scale, at most `most` + 1."""
        raw = (self.high - self.low) / most
        power = 10 ** math.floor(math.log10(raw))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [float(f"{step * k:.10g}") for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def scale(values: Sequence[float], start: float, end: float, *, zero: bool = False) -> Scale:
    """A scale that holds all values, with a little room around them; with `zero` it holds 0 as well."""
    held = [*map(float, values), *([0.0] if zero else [])]
    low, high = min(held), max(held)
    room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return Scale(low - room, high + room, start, end)


def across(axis: Scale, top: float, bottom: float, *label: str) -> Markup:
    """Draw a horizontal axis below a figure: grid lines, numbers and a label.

    It is 40 pixels high with a label of one line; each further line adds 17.
    """
    parts = []
    for tick in axis.ticks():
        number = f"{tick:g}"
        room = len(number) * LETTER / 2 - 10  # the ten pixels beside an axis are in every figure
        parts += [
            line(axis(tick), top, axis(tick), bottom, "zero" if tick == 0 else "grid"),
            text(
                min(max(axis(tick), axis.start + room), axis.end - room),
                bottom + 15,
                number,
                anchor="middle",
                kind="soft",
            ),
        ]
    middle = (axis.start + axis.end) / 2
    for place, words in enumerate(label):
        parts.append(text(middle, bottom + 33 + 17 * place, words, anchor="middle", kind="soft"))
    return Markup("").join(parts)


def wrapped(words: str, width: float) -> list[str]:
    """Break a text into lines that fit a width in pixels."""
    return textwrap.wrap(words, int(width / LETTER))


def cut(words: str, most: int) -> str:
    """Shorten a text in its middle: names of runs that are compared often begin, or end, alike."""
    if len(words) <= most:
        return words
    head = (most - 1) // 2
    return f"{words[:head]}…{words[head + 1 - most :]}"


def _shape(tag: str, look: dict[str, object]) -> Markup:
    return Markup("<{}{}/>").format(Markup(tag), _attributes(look))


def _attributes(look: dict[str, object]) -> Markup:
    named = {name.rstrip("_").replace("_", "-"): value for name, value in look.items() if value is not None}
    return Markup("").join(Markup(' {}="{}"').format(Markup(name), _short(value)) for name, value in named.items())


def _short(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value
