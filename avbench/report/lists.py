"""Lists models, subsets, metrics and so on, and formats such a list for console, markdown and LaTeX.

Modules that import scipy are imported by the lists that need them, because that takes seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Column, Table

from avbench.core import InputError, Subset, as_typed, counted, nearest
from avbench.features import table as features
from avbench.generation import table as generators
from avbench.metrics import table as metrics
from avbench.report.latex import escaped_for_latex, with_comments
from avbench.report.tables import escaped
from avbench.storage.media.clip_files import clips_in
from avbench.storage.plug_ins import PlugIn
from avbench.storage.reading import exists
from avbench.subsets import datasets, loading

Listing = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Column heads and rows."""


def listing(what: str, name: str | Path | None = None) -> Listing:
    """Return the heads and rows of a kind, such as ``metrics``.

    Args:
        what: the kind.
        name: only the entries whose name holds this word; of models, a path, of which is listed what lies there.

    Raises:
        InputError: there is no such kind, no such entry, or nothing at the path.
    """
    kinds = {
        "models": _models,
        "subsets": _subsets,
        "metrics": _metrics,
        "columns": _columns,
        "features": _features,
        "references": _references,
        "presets": _presets,
        "datasets": _datasets,
    }
    if what not in kinds:
        msg = f"{what!r} cannot be listed; {nearest(what, kinds)}"
        raise InputError(msg)
    if what == "models" and name is not None:
        return _detected(Path(name))
    heads, rows = kinds[what]()
    if name is None:
        return heads, rows
    found = [row for row in rows if str(name).lower() in row[0].lower()]
    if not found:
        other = nearest(str(name), (row[0] for row in rows), f"`avbench list {what}`")
        if exists(Path(name)):
            other = f"what lies at this path is listed by `avbench list models {as_typed(name)}`"
        msg = f"list {what}: no name holds {str(name)!r}; {other}"
        raise InputError(msg)
    return heads, found


def problems(what: str) -> list[str]:
    """Return a sentence for each installed plug-in of a kind, such as ``metrics``, that cannot be used."""
    found = {
        "models": lambda: generators.plug_ins().problems,
        "subsets": lambda: loading.plug_ins().problems | _subsets_of_packages()[1],
        "metrics": metrics.problems,
        "features": lambda: features.plug_ins().problems,
        "datasets": lambda: datasets.plug_ins().problems | _readers_of_packages()[1],
    }
    return [*found[what]().values()] if what in found else []


def for_console(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A list, for rich; what does not fit is wrapped and never cut."""
    table = Table(*(Column(head, overflow="fold") for head in heads))
    for row in rows:
        table.add_row(*row)
    return table


def as_markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A list as a table of markdown."""
    lines = [[*map(escaped, heads)], ["---"] * len(heads), *([*map(escaped, row)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_latex(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A list as a tabular of LaTeX, with the rules of booktabs."""
    cells = pd.DataFrame([[*map(escaped_for_latex, row)] for row in rows], columns=[*map(escaped_for_latex, heads)])
    return with_comments(cells.to_latex(index=False, escape=False))


def _detected(path: Path) -> Listing:
    from avbench.generation.detect import detect

    seen = detect(path if path.exists() or len(path.parts) < 2 else _cached(path))
    known = {
        "is": seen.kind,
        "class": seen.class_name,
        "makes": seen.makes or "what its base makes",
        "needs": ", ".join(seen.needs) or "a caption",
        "run as": seen.model or "cannot be run",
    }
    if seen.kind == "clips":
        found = clips_in(path)
        known = {
            "is": f"a folder of clips: {counted(len(found.clips), 'file')}, {counted(len(found.frames), 'folder')} of "
            "numbered frames",
            "holds": seen.makes or "no clip that can be read",
            "score it by": f"avbench score {as_typed(path)}" + (" --fps RATE" if found.frames else ""),
            "note": "; ".join(found.remark()),
        }
    return ("path", str(path)), [(name, value) for name, value in known.items() if value]


def _cached(path: Path) -> Path:
    """Return the cached path of a hub repository; an absolute path is returned unchanged.

    Raises InputError if the repository is not in the cache.
    """
    from avbench.generation.providers.diffusers.loading import local_folder

    try:
        return local_folder(str(path), None, fetch=False)
    except InputError:
        if path.is_absolute():
            return path
        msg = f"{path} does not exist here, and avbench does not find it in the cache of the Hugging Face hub either"
        raise InputError(msg) from None


def _models() -> Listing:
    from avbench.generation.providers.toyworld import CHANGES, WORLDS

    known = generators.GENERATORS
    rows = [(f"toyworld:{variant}", known["toyworld"]) for variant in [*WORLDS, *CHANGES]]
    rows += [(f"{name}:{target}", known[name]) for name, target in generators.TARGETS.items()]
    rows += [(f"{name}:TARGET", one.place) for name, one in generators.plug_ins().usable.items()]
    return ("model", "where"), rows


def _subsets() -> Listing:
    found = {name: loading.load(name) for name in loading.names()} | _subsets_of_packages()[0]
    rows = [
        (name, str(one.version), str(len(one.prompts)), str(one.card.get("purpose", "")), one.digest[:12])
        for name, one in found.items()
    ]
    return ("subset", "version", "prompts", "purpose", "digest"), rows


def _subsets_of_packages() -> tuple[dict[str, Subset], dict[str, str]]:
    return _loaded(loading.plug_ins().usable, lambda one: loading.load(one.name))


def _readers_of_packages() -> tuple[dict[str, datasets.Reader], dict[str, str]]:
    return _loaded(datasets.plug_ins().usable, lambda one: one.load(datasets.Reader))


def _loaded(plug_ins: Mapping[str, PlugIn], load: Callable[[PlugIn], Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the usable plug-ins by name, and why the others cannot be loaded."""
    found, unusable = {}, {}
    for name, one in plug_ins.items():
        try:
            found[name] = load(one)
        except InputError as error:
            unusable[name] = str(error)
    return found, unusable


def _metrics() -> Listing:
    rows = [
        (one.name, one.direction.value, one.unit, one.feature, one.question) for one in metrics.known_metrics().values()
    ]
    return ("metric", "better", "unit", "feature", "question"), rows


def _columns() -> Listing:
    from avbench.metrics.columns import COLUMNS

    rows = [(name, one.what, ", ".join(one.columns.values()), ", ".join(one.lacking)) for name, one in COLUMNS.items()]
    return ("columns", "what", "metrics", "not here"), rows


def _features() -> Listing:
    from avbench.features.requirements import weights_of
    from avbench.storage.weights import PUBLISHED

    fetched = {name: [one for one in weights_of([name]) if one in PUBLISHED] for name in features.FEATURES}
    rows = [(name, ", ".join(fetched.get(name, ())), place) for name, place in features.places().items()]
    return ("feature", "weights to fetch", "where"), rows


def _references() -> Listing:
    from avbench.metrics import reference

    found = [reference.named(name) for name in reference.names()]
    rows = [
        (
            one.subset,
            str(max(one.card["clips"].values())),
            one.card.get("command", ""),
            one.card["sha256"]["columns.safetensors"],
        )
        for one in found
    ]
    return ("subset", "clips", "command", "sha256"), rows


def _presets() -> Listing:
    from avbench.comparison import paper_presets

    rows = []
    for one in map(paper_presets.load, paper_presets.names()):
        can = [column.name for column in one.columns if column.metric]
        cannot = [column.name for column in one.columns if not column.metric]
        rows.append((one.name, one.purpose, f"{one.paper} ({one.cited})", ", ".join(can), ", ".join(cannot)))
    return ("preset", "purpose", "paper", "its columns here", "not here"), rows


def _datasets() -> Listing:
    rows = [
        (name, one.what, " + ".join(f"{count:,} {split}" for split, count in one.counts.items()), one.source)
        for name, one in {**datasets.READERS, **_readers_of_packages()[0]}.items()
    ]
    return ("reader", "set", "entries", "source"), rows
