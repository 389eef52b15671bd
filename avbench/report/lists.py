"""What is there? The rows behind `avbench list`."""

from avbench import reference, subsets
from avbench.core import InputError, nearest
from avbench.features import FEATURES
from avbench.generators import GENERATORS
from avbench.metrics import METRICS

Listing = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Column heads and rows."""


def listing(what: str) -> Listing:
    """Heads and rows of ``models``, ``subsets``, ``metrics``, ``features`` or ``references``."""
    kinds = {
        "models": _models,
        "subsets": _subsets,
        "metrics": _metrics,
        "features": _features,
        "references": _references,
    }
    if what not in kinds:
        msg = f"{what!r} cannot be listed; {nearest(what, kinds)}"
        raise InputError(msg)
    return kinds[what]()


def _models() -> Listing:
    from avbench.generators.toyworld import CHANGES, WORLDS

    rows = [(f"toyworld:{variant}", GENERATORS["toyworld"]) for variant in [*WORLDS, *CHANGES]]
    others = ("clips:FOLDER", "videos-api:URL#MODEL", "cmd:SCRIPT ARGS…", "python:package.module:Class")
    return ("model", "where"), [*rows, *((one, GENERATORS[one.partition(":")[0]]) for one in others)]


def _subsets() -> Listing:
    found = [subsets.load(name) for name in subsets.names()]
    rows = [(one.name, str(one.version), str(len(one.prompts)), one.card["purpose"], one.digest[:12]) for one in found]
    return ("subset", "version", "prompts", "purpose", "digest"), rows


def _metrics() -> Listing:
    rows = [(metric.name, metric.direction.value, metric.unit, metric.feature, metric.question) for metric in METRICS]
    return ("metric", "better", "unit", "feature", "question"), rows


def _features() -> Listing:
    return ("feature", "where"), list(FEATURES.items())


def _references() -> Listing:
    found = [reference.named(name) for name in reference.names()]
    rows = [
        (
            one.subset,
            str(max(one.card["clips"].values())),
            one.card["command"],
            one.card["sha256"]["columns.safetensors"],
        )
        for one in found
    ]
    return ("subset", "clips", "command", "sha256"), rows
