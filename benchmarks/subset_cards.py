"""Recounts the contents of the subsets for real models: cards, balance tables and nearest pairs.

    python benchmarks/subset_cards.py

Writes into each card the sha256 of its prompts, the 32 prompts of its lite view and its counts, and into
docs/subsets.md the tables between the marks. Run it after every change of a prompt.
"""

import functools
import json
import operator
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from avbench.subsets.lint import LITE, Draft, Line, cells, counts, pairs, read

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "subsets.md"
CURATED = ("object-contact", "large-motion", "ambient")
COUNTED = ("action", "materials", "motion", "role", "actors", "rhythm", "amount", "camera", "difficulty", "split")
SHOWN_PAIRS = 4


def choose_lite(draft: Draft, triples: set[str]) -> list[Line]:
    """The `LITE` prompts, taken one after another so that the shares stay nearest to the whole; triples stay together.

    Those of `triples` are taken first.
    """
    units: dict[str, list[Line]] = {}
    for line in draft.lines:
        units.setdefault(line.group_key, []).append(line)
    tags = draft.card["lite_balance"]["tags"]
    whole = {tag: counts(draft.lines, tag) for tag in tags}
    chosen = [line for group_key, lines in units.items() if group_key in triples for line in lines]
    left = {group_key: lines for group_key, lines in units.items() if group_key not in triples}
    while len(chosen) < LITE:
        fitting = [group_key for group_key, lines in left.items() if len(chosen) + len(lines) <= LITE]
        best = min(fitting, key=lambda group_key: _distance([*chosen, *left[group_key]], whole, len(draft.lines)))
        chosen += left.pop(best)
    return sorted(chosen, key=lambda line: line.number)


def _distance(lines: Sequence[Line], whole: dict[str, Counter], size: int) -> float:
    """How far the shares of `lines` are from those of the whole, in the least squares sense.

    Added one after another: `sum` rounds otherwise since Python 3.12, and which prompts are chosen depends on it.
    """
    found = {tag: counts(lines, tag) for tag in whole}
    squares = (
        (found[tag][value] / len(lines) - count / size) ** 2 for tag, of in whole.items() for value, count in of.items()
    )
    return functools.reduce(operator.add, squares)


def write_card(draft: Draft, lite: Sequence[Line]) -> None:
    """Write what can be counted into a card; the rest of it stays as it is."""
    path = draft.folder / "card.toml"
    text = path.read_text(encoding="utf-8").split("\n[counts]")[0].rstrip() + "\n"
    digest = sha256((draft.folder / "prompts.jsonl").read_bytes()).hexdigest()
    listed = "".join(f'  "{line.prompt.id}",\n' for line in lite)
    text = re.sub(r'^prompts_sha256 = ".*"$', f'prompts_sha256 = "{digest}"', text, flags=re.MULTILINE)
    text = re.sub(r"^lite = \[[^]]*\]$", f"lite = [\n{listed}]", text, flags=re.MULTILINE)
    text += "\n[counts]  # written by benchmarks/subset_cards.py\n"
    for tag in COUNTED:
        if found := counts(draft.lines, tag):
            text += f"{tag} = {{ {', '.join(f'{json.dumps(value)} = {count}' for value, count in found.items())} }}\n"
    path.write_text(text, encoding="utf-8", newline="\n")


def balance(draft: Draft) -> Iterator[str]:
    """Markdown tables: action against motion class and against materials, then every other tag; lite in brackets."""
    lite = [line for line in draft.lines if line.prompt.id in draft.card["lite"]]
    for tag in ("motion", "materials"):
        columns = [value for value in draft.schema[tag] if counts(draft.lines, tag)[value]]
        if not columns:
            continue
        found = cells(draft.lines, ("action", tag))
        rows = [
            [action, *(str(found[action, column] or "") for column in columns)] for action in draft.schema["action"]
        ]
        yield _table(["action", *columns], [*rows, ["**all**", *(str(counts(draft.lines, tag)[c]) for c in columns)]])
    rows = []
    for tag in COUNTED:
        part = counts(lite, tag)
        counted = ", ".join(
            f"{value} {count} [{part[value]}]" for value, count in counts(draft.lines, tag).most_common()
        )
        if counted:
            rows.append([tag, counted])
    yield _table(["tag", "prompts [of them in lite]"], rows)


def nearest_pairs(draft: Draft) -> str:
    """Markdown table of the prompts that are nearest to another, of this subset or of the two beside it."""
    seen: set[frozenset[str]] = set()
    rows = []
    for cosine, line, other in pairs(draft):
        both = frozenset((line.prompt.id, other.prompt.id))
        if both not in seen and len(rows) < SHOWN_PAIRS:
            seen.add(both)
            one, two = line.prompt, other.prompt
            rows.append([f"{cosine:.2f}", *(f"`{p.id}` {p.tags['short_caption']}" for p in (one, two))])
    return _table(["cosine", "prompt", "nearest"], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_all() -> None:
    """Write the three cards and the tables of the page."""
    triples: set[str] = set()
    for name in CURATED:
        draft = read(ROOT / "subsets" / name)
        lite = choose_lite(draft, triples)
        triples |= {line.group_key for line in lite if "triple" in line.prompt.tags}
        write_card(draft, lite)
    parts = []
    for name in CURATED:
        draft = read(ROOT / "subsets" / name)
        parts += [f"### {name}: {len(draft.lines)} prompts, version {draft.card['version']}", *balance(draft)]
        parts += ["Nearest pairs outside of triples:", nearest_pairs(draft)]
    head, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- counted -->")
    tail = rest.partition("<!-- end of counted -->")[2]
    marked = "<!-- counted -->\n\n" + "\n\n".join(parts) + "\n\n<!-- end of counted -->"
    PAGE.write_text(head + marked + tail, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write_all()
