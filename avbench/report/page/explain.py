"""Shows what a metric saw of each clip of the page: pictures over the clip, curves under it, marks, nearest real clip.

`EXPLAINERS` says which feature is explained by what. A new feature gets a row there, and a picture, if it has one, in
pictures.py. Curves and marks are read from the rows that the metric was computed from. A distance compares sets, so no
clip shows it alone; beside each clip stands the reference clip that is nearest to it in the distance's own features.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avbench.core import InputError, Key, NotMeasurable, Prompt, Protocol, Row, Subset, columns, nearest
from avbench.features.current import current_rows
from avbench.features.protocols import protocol_in
from avbench.generation.table import Request, build, made_by
from avbench.metrics import distances, reference
from avbench.metrics.evaluate import reference_to_use
from avbench.metrics.table import Metric, known_metrics
from avbench.report.page import clips
from avbench.storage.runs.folder import RunFolder

_WORLD = "toyworld:"
"""The model whose reference clips can be made again."""


@dataclass(frozen=True)
class Explainer:
    """One way in which metrics of a feature are explained; exactly one of `picture`, `curve` and `marks` is given."""

    picture: str = ""
    """A name of `pictures.PICTURES`."""
    curve: str = ""
    """A column of the feature's rows, with a number for each frame or step, as it stands on the page."""
    marks: str = ""
    """A column with times in seconds; the page marks them on every clip's waveform."""
    metrics: frozenset[str] = frozenset()
    """The metrics that it explains; empty for all that use the feature."""


_MOTION = frozenset(
    ("motion_amount", "motion_amount_distance", "motion_frechet", "flow_consistency", "acceleration", "still_flicker")
)
_EVENTS = frozenset(("event_rate", "sync_excess", "sync_agreement", "sync_p", "sync_lag", "sync_offset"))
EXPLAINERS: dict[str, tuple[Explainer, ...]] = {
    "flow-dis": (
        Explainer(picture="flow", metrics=_MOTION | _EVENTS),
        Explainer(picture="warping", metrics=frozenset(("warping_error",))),
        Explainer(curve="motion_curve", metrics=frozenset(("motion_amount",))),
        Explainer(marks="event_seconds", metrics=_EVENTS),
    ),
    "onsets": (Explainer(marks="onset_seconds"),),
    **{f"lpips-{net}": (Explainer(curve="per_pair"),) for net in ("alex", "vgg", "squeeze")},
    **{
        f"lpips-{net}-{meaning}": (Explainer(curve="per_frame"),)
        for net in ("alex", "vgg", "squeeze")
        for meaning in ("reference", "seeds")
    },
}
"""Feature → how its metrics are explained."""


@dataclass(frozen=True)
class Explained:
    """What a page explains."""

    pictures: tuple[str, ...] = ()
    curves: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Metric → feature and column."""
    distances: tuple[Metric, ...] = ()


NOTHING = Explained()


@dataclass(frozen=True)
class Neighbour:
    """The reference clip nearest to a clip."""

    prompt: str
    seed: int
    distance: float
    """Euclidean, in the features of the metric."""
    sha256: str | None
    """Of its clip in the media folder; None where the clip cannot be shown."""


def explained(asked: Sequence[str], scored: Collection[str] | None = None, *, flow: bool = False) -> Explained:
    """Return what explains the metrics `asked`, of those that were `scored`; with `flow` the flow's picture as well.

    Without `scored` every metric may be asked for: to refuse a wrong name before anything is computed.

    Raises:
        InputError: a metric is unknown, was not scored, or has no explanation.
    """
    known = known_metrics()
    explainable = [name for name, one in known.items() if _is_distance(one) or any(_explainers(one))]
    able = [name for name in explainable if scored is None or name in scored]
    for name in asked:
        if name not in able:
            why = "is unknown" if name not in known else "has no explanation"
            if name in explainable:
                why = "is not among the metrics that are scored"
            msg = f"explain (--explain): metric {name!r} {why}; {nearest(name, able)}"
            raise InputError(msg)
    metrics = [known[name] for name in dict.fromkeys(asked)]
    ways = [(metric, feature, way) for metric in metrics for feature, way in _explainers(metric)]
    pictures = [*(["flow"] if flow else []), *(way.picture for *_, way in ways if way.picture)]
    return Explained(
        tuple(dict.fromkeys(pictures)),
        {metric.name: (feature, way.curve) for metric, feature, way in ways if way.curve},
        tuple(metric for metric in metrics if _is_distance(metric)),
    )


def curves(folder: RunFolder, asked: Explained) -> dict[Key, dict[str, list[float]]]:
    """Clip → metric → its number for each frame or step, for the curves that are asked for."""
    found: dict[Key, dict[str, list[float]]] = {}
    against = folder.evaluation().asked.get("against")
    for metric, (feature, column) in asked.curves.items():
        rows = current_rows(folder, feature, RunFolder(Path(against)) if against else None, names=(column,))
        for key, row in rows.items():
            if row.values is not None:
                numbers: Any = row.values[column]
                found.setdefault(key, {})[metric] = [float(f"{number:.4g}") for number in numbers]
    return found


def neighbours(folder: RunFolder, asked: Explained, place: Path) -> dict[Key, dict[str, Neighbour | str]]:
    """Clip → distance → its nearest reference clip, or a sentence why there is none.

    A reference keeps features and no clips. Those of the embedded world can be made again, and then they are encoded
    into `place`; of others the page gives the id.
    """
    found: dict[Key, dict[str, Neighbour | str]] = {}
    if not asked.distances:
        return found
    known = reference.find_all(folder.subsets(), reference_to_use([folder], None))
    for subset in folder.subsets():
        real = known[subset.name]
        show = _shown(real, {prompt.id: prompt for prompt in subset.prompts}, place)
        for metric in asked.distances:
            rows = {key: row for key, row in current_rows(folder, metric.feature).items() if key.subset == subset.name}
            try:
                near = _nearest(metric, rows, real, subset, protocol_in(folder, metric.feature))
            except (InputError, NotMeasurable) as reason:
                near = dict.fromkeys(rows, str(reason))
            for key, one in near.items():
                note = one if isinstance(one, str) else Neighbour(one[0].prompt, one[0].seed, one[1], show(one[0]))
                found.setdefault(key, {})[metric.name] = note
    return found


def _explainers(metric: Metric) -> Iterator[tuple[str, Explainer]]:
    for feature in (metric.feature, metric.beside):
        yield from (
            (feature, way) for way in EXPLAINERS.get(feature, ()) if metric.name in (way.metrics or {metric.name})
        )


def _is_distance(metric: Metric) -> bool:
    return bool(metric.column) and not metric.per_clip


def _nearest(
    metric: Metric, rows: Mapping[Key, Row], real: reference.Reference | None, subset: Subset, protocol: Protocol
) -> dict[Key, tuple[Key, float]]:
    if real is None:
        msg = f"{subset.name} has no reference, so there is no nearest real clip"
        raise NotMeasurable(msg)
    keys, measured = columns(rows.values())
    there, apart = distances.nearest_real(metric, measured, real, protocol, subset)
    return {key: (at, float(far)) for key, at, far in zip(keys, there, apart, strict=True)}


def _shown(real: reference.Reference | None, prompts: Mapping[str, Prompt], place: Path) -> Callable[[Key], str | None]:
    """Return what encodes a reference clip into `place` and gives its sha256, or None if it cannot be made again."""
    generator = build(_WORLD, {})
    if real is None or (real.card.get("model"), real.card.get("settings")) != (_WORLD, generator.settings):
        return lambda _: None
    hashes = real.clips.set_index(["prompt", "seed"])["clip_sha256"].to_dict()

    def show(key: Key) -> str | None:
        sha256 = str(hashes[key.prompt, key.seed])
        if not clips.is_ready(place, sha256):
            if key.prompt not in prompts:
                return None
            (made,) = made_by(generator, [Request(key, prompts[key.prompt], None)])
            if isinstance(made, Exception) or isinstance(made.clip, Path):
                return None
            clips.encode(made.clip, place, sha256)
        return sha256

    return show
