"""Measures one task in a worker: reads its clips and calls every feature that has no row of them."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avbench.core import Clip, InputError, MediaError, NotMeasurable, Prompt, Row, Sample, Value, counted
from avbench.features import devices
from avbench.features.current import Forms, all_seen
from avbench.features.requirements import needs_sound, requires
from avbench.features.table import NO_SOUND, Requires, feature_class, package_of
from avbench.storage import plug_ins
from avbench.storage.content import holds
from avbench.storage.media import StoredClip, read_clip
from avbench.storage.media.conform import ClipForm, in_form
from avbench.storage.mirrors.mirror import Place, WorkerFolder
from avbench.storage.runs.retried import UNREADABLE
from avbench.storage.workers import gpu, worker_pool
from avbench.storage.workers.contained import contained


@dataclass(frozen=True)
class Task:
    """One clip, or all clips of a prompt, with the features that have no rows of them."""

    samples: tuple[Sample, ...]
    features: tuple[str, ...]
    reference: Sample | None = None
    """The reference clip of the prompt, if there is one."""
    prompt: Prompt | None = None
    """The prompt, if a feature needs it."""
    failed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Of a finished task: the features that have no row to keep, and why; the next `measure` tries them again."""
    networks: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    """Of a finished task: the measured features that can run on a GPU → the GPU, or None for the CPU."""

    @property
    def compared_with(self) -> Sample | None:
        """The reference clip, if one of the features compares with it."""
        return self.reference if any(requires(one) is Requires.REFERENCE_CLIP for one in self.features) else None


_MOST_HELD = 64 * 2**20
"""Bytes. A clip whose frames take more stays in its file, and is decoded anew for each feature that reads it."""


def worker(
    places: tuple[Place, Place | None],
    forms: Forms,
    device: str,
    half: Collection[str],
) -> Callable[[Task], list[tuple[str, Row]]]:
    """The function that measures a task.

    Args:
        places: of the run, and of the run that holds the reference clips.
        forms: of both (see `forms_of`).
        device: where networks run.
        half: features that compute in bfloat16.
    """
    built: dict[tuple[str, str], Callable] = {}
    too_large: set[str] = set()
    """Features whose networks the GPU's memory does not hold. To load one again for each clip would take long."""
    folder, against = (None if one is None else one.opened() for one in places)
    assert folder is not None
    own_place = functools.cache(functools.partial(devices.of_this_process, device))

    def on(place: str, feature: str, *seen: Any) -> list[Row]:
        def look(*of_clip: Any) -> Any:
            if (feature, place) not in built:  # not before a clip comes that it can measure: its network may be large
                kind: Any = feature_class(feature)
                how = {"device": place} if place != devices.CPU else {}
                built[feature, place] = kind(**how, **({"precision": devices.BFLOAT16} if feature in half else {}))
            measured = built[feature, place](*of_clip)
            return [*measured] if requires(feature) is Requires.SEEDS else measured

        held = contained if package_of(feature) else contextlib.nullcontext
        with held(), worker_pool.default_settings():  # a feature of another package may have left others
            rows = _rows(feature, look, *seen)
        card = devices.card(place)
        return [row if row.values is None else dataclasses.replace(row, gpu=card) for row in rows]

    def measured(feature: str, *seen: Any) -> list[Row]:
        fits = getattr(feature_class(feature), "on_gpu", False) and feature not in too_large
        if fits and (place := own_place()) != devices.CPU:
            try:
                return on(place, feature, *seen)
            except RuntimeError as error:
                if not gpu.is_out_of_memory(error) or gpu.is_lost():
                    raise
            if (feature, place) not in built:
                too_large.add(feature)
            gpu.free_memory()  # other workers need it; not before here, because the error keeps it alive
        return on(devices.CPU, feature, *seen)

    def look(task: Task) -> list[tuple[str, Row]]:
        clips = [_read(folder, sample, forms[0]) for sample in task.samples]
        beside, reference = task.compared_with, None
        if against is not None and beside is not None and beside.path is not None:
            reference = _read(against, beside, forms[1])
        rows = []
        for feature in sorted(task.features, key=_streams, reverse=True):  # the others need whole clips
            if not _streams(feature):
                clips, reference = [_whole(clip) for clip in clips], _whole(reference)
            try:
                known = measured(feature, task, clips, reference, forms)
            except Exception as error:
                if (package := package_of(feature)) is None or gpu.is_lost():
                    error.add_note(f"while {feature} measured {task.samples[0].path}")
                    raise
                why = plug_ins.failure(package, error)
                known = as_rows(feature, task, [None] * len(task.samples), why, forms)
            rows += [(feature, row) for row in known]
        return rows

    return look


def each_alone(
    run_isolated: Callable[[Task], list[tuple[str, Row]] | worker_pool.WorkerCrashed],
    task: Task,
    crash: worker_pool.WorkerCrashed,
    forms: Forms,
) -> list[tuple[str, Row]]:
    """Rows of a task that crashed its worker: each feature is tried alone; one that crashes again gets a sentence."""
    rows: list[tuple[str, Row]] = []
    for feature in task.features:
        one = dataclasses.replace(task, features=(feature,))
        alone = run_isolated(one) if len(task.features) > 1 else crash
        if isinstance(alone, worker_pool.WorkerCrashed):
            why = str(alone) if isinstance(alone, worker_pool.WorkerTimedOut) else worker_pool.CRASHED
            rows += [(feature, row) for row in as_rows(feature, task, [None] * len(task.samples), why, forms)]
        else:
            rows += alone
    return rows


def _read(folder: WorkerFolder, sample: Sample, forms: Mapping[str, ClipForm]) -> Clip | NotMeasurable:
    """The clip in the form that its subset asks for, or the reason why it cannot be conformed."""
    assert sample.path is not None and sample.sha256 is not None  # only finished clips are measured
    path = folder.clip(sample)
    if not holds(path, sample.sha256):
        msg = f"{path} is missing or is not the clip that was sampled"
        raise InputError(msg)
    try:
        clip = read_clip(path, most_held=_MOST_HELD)
        return in_form(clip, forms[sample.key.subset]) if sample.spec_mismatch else clip
    except MediaError as error:
        return _unreadable(error, path)
    except NotMeasurable as reason:
        return reason


def _unreadable(error: MediaError, path: Path | None = None) -> NotMeasurable:
    return NotMeasurable(f"{UNREADABLE}: {str(error).removeprefix(f'{path} cannot be read: ')}")


def _streams(feature: str) -> bool:
    """Whether a feature takes clips whose frames stay in their file."""
    return getattr(feature_class(feature), "streams", False)


def _whole(clip: Any) -> Any:
    """A clip with all its frames in memory."""
    try:
        return clip.whole() if isinstance(clip, StoredClip) else clip
    except MediaError as error:
        return _unreadable(error)


def _rows(
    feature: str,
    look: Callable,
    task: Task,
    clips: Sequence[Clip | NotMeasurable],
    reference: Clip | NotMeasurable | None,
    forms: Forms,
) -> list[Row]:
    """One feature's rows of a task's clips, or the sentence why there are none."""
    kind = requires(feature)
    made: Sequence[Mapping[str, Value] | None]
    missing = None
    try:
        for one in (*clips, *([reference] if kind is Requires.REFERENCE_CLIP else [])):
            if isinstance(one, NotMeasurable):
                raise one
            if one is not None and one.audio is None and needs_sound(feature):
                raise NotMeasurable(NO_SOUND)
        match kind:
            case Requires.CLIP:
                made = [_named(look(clips[0]))]
            case Requires.PROMPT:
                made = [_named(look(clips[0], task.prompt))]
            case Requires.SEEDS:
                made = [_named(one) for one in look(clips)]
                if len(made) != len(clips):
                    msg = f"it returned {counted(len(made), 'row')} for {counted(len(clips), 'clip')} of a prompt"
                    raise InputError(msg)
            case Requires.REFERENCE_CLIP if reference is None:
                msg = "the run of reference clips has no clip of this prompt and seed"
                raise NotMeasurable(msg)
            case Requires.REFERENCE_CLIP:
                made = [_named(look(clips[0], reference))]
    except NotMeasurable as reason:
        made, missing = [None] * len(clips), str(reason)
    except MediaError as error:  # of a file that was whole when the clip was read
        made, missing = [None] * len(clips), str(_unreadable(error))
    return as_rows(feature, task, made, missing, forms)


def _named(values: Any) -> Mapping[str, Value]:
    """What a feature returned for a clip. Raises InputError if it is not a mapping of names to numbers."""
    if not isinstance(values, Mapping):
        msg = f"it returned a {type(values).__name__}; it must return a dict of names and floats or float arrays"
        raise InputError(msg)
    for name, value in values.items():
        if not isinstance(value, int | float | np.number | np.ndarray) or np.asarray(value).dtype.kind not in "biuf":
            msg = f"{name} is {value!r:.80}; it must be a float or a float array"
            raise InputError(msg)
        if np.ma.is_masked(value):
            msg = f'{name} has masked values; a feature raises NotMeasurable("why") for a clip without a value'
            raise InputError(msg)
    return values


def as_rows(
    feature: str,
    task: Task,
    made: Sequence[Mapping[str, Value] | None],
    missing: str | None,
    forms: Forms,
) -> list[Row]:
    """One row per clip of a task."""
    hashes = hashes_of(feature, task, forms)
    return [
        Row(sample.key, seen, values, missing) for sample, seen, values in zip(task.samples, hashes, made, strict=True)
    ]


def hashes_of(feature: str, task: Task, forms: Forms) -> list[str]:
    """What a feature sees of each clip of a task, and of the clips beside it."""
    kind = requires(feature)
    return [all_seen(kind, sample, task.reference, task.samples, forms) or "" for sample in task.samples]
