"""Stage 3: clips → rows. Each clip is decoded once and shown to every feature that has no row of it yet.

A row is good for as long as its clip's bytes and its feature's protocol stay the same; both are checked.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avbench import engine, weights
from avbench.core import InputError, Key, NotMeasurable, Protocol, Row, Sample, Value, nearest, resolve
from avbench.features import FEATURES, Feature
from avbench.folder import RunFolder, file_sha256
from avbench.media import read_clip


@dataclass(frozen=True)
class Task:
    """One clip and the features it lacks."""

    sample: Sample
    features: tuple[str, ...]


def feature_class(feature: str) -> type[Feature]:
    """The class behind a feature id. Raises InputError where there is none."""
    if feature not in FEATURES:
        msg = f"feature {feature!r} is unknown; {nearest(feature, FEATURES)}"
        raise InputError(msg)
    return resolve(FEATURES[feature])


def protocol_of(feature: str, against: RunFolder | None = None) -> Protocol:
    """The protocol of a feature, known without its weights."""
    return feature_class(feature).protocol


def current_rows(folder: RunFolder, feature: str, against: RunFolder | None = None) -> dict[Key, Row]:
    """The rows of one feature that were made of the very bytes that lie in the folder now."""
    rows = folder.rows(protocol_of(feature, against))
    return {key: rows[key] for key, sample in folder.samples().items() if is_current(rows, sample)}


def require_weights(features: Sequence[str]) -> None:
    """Raise InputError with the sentence what to run where weights are missing, before hours are spent."""
    for feature in features:
        if name := protocol_of(feature).describe().get("weights"):
            weights.locate(name)


def measure(
    folder: RunFolder, features: Sequence[str], *, workers: int = 1, against: RunFolder | None = None
) -> tuple[int, Iterator[Task]]:
    """Measure what is not measured yet.

    Returns:
        How many clips are to be looked at, and an iterator that does it, yielding each when its rows are written.

    Raises:
        InputError: an unknown feature, missing weights, or a clip that is not the one that was sampled.
    """
    require_weights(features)
    protocols = {feature: protocol_of(feature) for feature in features}
    rows = {feature: folder.rows(protocol) for feature, protocol in protocols.items()}
    todo = []
    for sample in sorted(folder.samples().values(), key=lambda each: each.key):
        lacking = tuple(feature for feature in features if not is_current(rows[feature], sample))
        if sample.path is not None and lacking:
            todo.append(Task(sample, lacking))

    def work() -> Iterator[Task]:
        build = functools.partial(_worker, folder.path, tuple(features))
        for task, made in engine.stream(build, todo, workers=workers):
            for feature, row in made.items():
                folder.add_row(protocols[feature], row)
            yield task

    return len(todo), work()


def is_current(rows: Mapping[Key, Row], sample: Sample) -> bool:
    """Whether the sample has a row that was made of the very bytes that lie in the folder now."""
    return sample.key in rows and rows[sample.key].clip_sha256 == sample.sha256


def _worker(folder: Path, features: tuple[str, ...]) -> Callable[[Task], dict[str, Row]]:
    built: dict[str, Feature] = {}

    def look(task: Task) -> dict[str, Row]:
        sample = task.sample
        assert sample.path is not None and sample.sha256 is not None  # only made clips are measured
        path = folder / sample.path
        if not path.is_file() or file_sha256(path) != sample.sha256:
            msg = f"{path} is missing or is not the clip that was sampled: remove its line from samples.jsonl"
            raise InputError(msg)
        clip = read_clip(path)
        rows = {}
        for feature in task.features:
            if feature not in built:
                built[feature] = feature_class(feature)()
            try:
                values: Mapping[str, Value] = built[feature](clip)
                rows[feature] = Row(sample.key, sample.sha256, values)
            except NotMeasurable as reason:
                rows[feature] = Row(sample.key, sample.sha256, None, str(reason))
            except Exception as error:
                error.add_note(f"while {feature} measured {path}")
                raise
        return rows

    return look
