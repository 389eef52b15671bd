"""Stage 3: clips → rows. Each clip is decoded once and passed to every feature that has no current row of it.

A row is current as long as the bytes of the clips it was computed from and its feature's protocol stay the same; both
are checked. Equal clips, such as those of a prompt that two subsets share or of two models, are measured once. Most
features take one clip. Some also take its prompt, or the reference clip of its prompt, which another run holds under
the same key, or the prompt's clips under other seeds. A clip that does not have the form its subset asks for is
conformed while it is decoded, and its rows belong to its bytes under that conversion.
"""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from avbench.core import (
    Clip,
    InputError,
    Key,
    MediaError,
    NotMeasurable,
    Prompt,
    Protocol,
    Row,
    Sample,
    Value,
    digest,
)
from avbench.features import devices
from avbench.features.table import FEATURES, NO_SOUND, Requires, feature_class, package_of
from avbench.storage import features_cache, plug_ins, weights, worker_pool
from avbench.storage.conform import ClipForm, in_form
from avbench.storage.content import UNREADABLE, counted, holds, require_unchanged
from avbench.storage.features_cache import FeaturesCache
from avbench.storage.media import StoredClip, read_clip
from avbench.storage.mirror import Mirror, Place, WorkerFolder
from avbench.storage.other_runs import OtherRuns
from avbench.storage.run_folder import RunFolder

Found = TypeVar("Found")


@dataclass(frozen=True)
class Task:
    """One clip, or all clips of a prompt, with the features that have no rows of them."""

    samples: tuple[Sample, ...]
    features: tuple[str, ...]
    reference: Sample | None = None
    """The reference clip, if a feature needs it."""
    prompt: Prompt | None = None
    """The prompt, if a feature needs it."""
    failed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Of a finished task: the features that have no row to keep, and why; the next `measure` tries them again."""


CRASHED = str(worker_pool.WorkerCrashed("measuring"))
"""The sentence that replaces the value after a crash."""
_MOST_HELD = 64 * 2**20
"""Bytes. A clip whose frames take more stays in its file, and is decoded anew for each feature that reads it."""
_TRIED_AGAIN = (*worker_pool.NOT_MEASURED, UNREADABLE, plug_ins.FAILED)
"""The next `measure` tries a row again whose sentence begins like one of these."""
_FAILED = (*worker_pool.NOT_MEASURED, UNREADABLE)
"""Of these, what is counted as a failure of the run."""


def requires(feature: str) -> Requires:
    """The arguments that a feature is called with."""
    return Requires(getattr(feature_class(feature), "requires", Requires.CLIP))


def needs_sound(feature: str) -> bool:
    """Whether a feature measures only clips with sound."""
    return getattr(feature_class(feature), "needs_sound", False)


def reads_captions(feature: str) -> bool:
    """Whether a feature compares a clip with its prompt's video caption."""
    return getattr(feature_class(feature), "reads_captions", False)


def protocol_of(feature: str, against: RunFolder | None = None, precision: str | None = None) -> Protocol:
    """The protocol of a feature, which is known without its weights.

    Args:
        feature: its id.
        against: the run that holds the reference clips. A feature that needs one lists them all in its protocol.
        precision: ``bf16`` for that of a network that can compute in it, else ``fp32``.

    Raises:
        InputError: the feature is unknown, the user has to provide its weights, or it needs `against`.
    """
    protocol = feature_class(feature).protocol
    if precision == "bf16" and _has_bfloat16(feature):
        protocol = dataclasses.replace(protocol, **{"precision": devices.BFLOAT16})
    if package := package_of(feature):
        protocol = dataclasses.replace(protocol, package=package)
    if requires(feature) is not Requires.REFERENCE_CLIP:
        return protocol
    require_reference_clips([feature], against)
    assert against is not None
    forms = forms_of(against)
    clips = [[*key, _seen(sample, forms)] for key, sample in sorted(against.samples().items())]
    return dataclasses.replace(protocol, **{"reference_clips": digest(clips)})


def protocol_in(
    folder: RunFolder, feature: str, against: RunFolder | None = None, precision: str | None = None
) -> Protocol:
    """The protocol under which a run's rows of a feature were measured, or are to be.

    A network that can compute in bfloat16 has a protocol for each precision. A run holds its rows in one of them.

    Args:
        folder: the run.
        feature: its id.
        against: the run that holds the reference clips.
        precision: ``fp32`` or ``bf16``; None means that of the run's rows, or ``fp32`` where there are none.

    Raises:
        InputError: as `protocol_of`, or the run has rows of another precision than the given one.
    """
    devices.require_precision(precision)
    exact = protocol_of(feature, against)
    if not _has_bfloat16(feature):
        return exact
    known = {name: dataclasses.replace(exact, **{"precision": kind}) for name, kind in devices.PRECISIONS.items()}
    there = [name for name, protocol in known.items() if folder.has_rows(protocol)]
    if precision and there and precision not in there:
        msg = (
            f"{folder.path} has rows of {feature} in the precision {there[0]}, and {precision} was asked for: a run "
            "holds one of them; leave --precision out, or make a run of another name"
        )
        raise InputError(msg)
    return known[precision or next(iter(there), "fp32")]


def _has_bfloat16(feature: str) -> bool:
    return getattr(feature_class(feature), "in_bfloat16", False)


def forms_of(folder: RunFolder) -> dict[str, ClipForm]:
    """Subset → the form that it asks for, for the subsets with clips of another form; those clips are conformed."""
    mismatched = {key.subset for key, sample in folder.samples().items() if sample.spec_mismatch}
    if not mismatched:
        return {}
    return {
        one.name: ClipForm.of(one.clip_spec) for one in folder.subsets() if one.name in mismatched and one.clip_spec
    }


def _seen(sample: Sample, forms: Mapping[str, ClipForm]) -> str | None:
    """The hash of what a feature gets of a clip: its bytes, and the form that it is conformed to, if any."""
    return digest([sample.sha256, forms[sample.key.subset].digest]) if sample.spec_mismatch else sample.sha256


def weights_of(features: Sequence[str]) -> list[str]:
    """The weights that features need, each once, without those that other packages keep themselves."""
    found: list[str] = []
    for feature in features:
        protocol = inspect.getattr_static(feature_class(feature), "protocol")
        own = isinstance(protocol, weights.UserProvidedProtocol)
        names = protocol.weights if own else [protocol.describe().get("weights")]
        found += [name for name in names if name and (feature in FEATURES or name in weights.WEIGHTS)]
    return list(dict.fromkeys(found))


def require_weights(features: Sequence[str]) -> None:
    """Raise InputError, before hours are spent, if weights are missing, or settings of the environment."""
    weights.require(weights_of(features))
    for kind in map(feature_class, features):
        if not isinstance(inspect.getattr_static(kind, "protocol"), weights.UserProvidedProtocol):
            _ = kind.protocol  # reading it needs the settings; that of weights would hash gigabytes


def require_reference_clips(features: Sequence[str], against: Path | RunFolder | None = None) -> None:
    """Raise InputError, before hours are spent, if a feature needs the run of reference clips and there is none."""
    needing = [one for one in features if requires(one) is Requires.REFERENCE_CLIP]
    if needing and against is None:
        msg = (
            f"{needing[0]} compares with reference clips: give the run that holds them, with --against RUN of run, "
            "measure or evaluate"
        )
        raise InputError(msg)


def measure(
    folder: RunFolder,
    features: Sequence[str],
    *,
    workers: int | worker_pool.Pool = 0,
    against: RunFolder | None = None,
    device: str = devices.CPU,
    precision: str | None = None,
    mirror: Mirror | None = None,
    others: Sequence[RunFolder] = (),
) -> tuple[int, Iterator[Task]]:
    """Measure what has no current rows. If a worker crashes, the clip loses one feature's values and nothing else.

    Values that the features cache has are taken from it, where one is asked for.

    Args:
        folder: the run.
        features: their ids.
        workers: processes, or 0 for this one; or another pool of workers. Each has its own networks, on the GPU too.
        against: the run that holds the reference clips.
        device: where networks run (see `devices.resolve`).
        precision: of the networks that can compute in bfloat16 (see `protocol_in`).
        mirror: of the folder, from which workers take clips that do not see the folder.
        others: runs whose values of equal clips are taken over.

    Returns:
        The number of tasks, most of one clip each, and an iterator that does them and yields each when its rows are
        written.

    Raises:
        InputError: an unknown feature, missing weights, a clip that was changed since it was sampled, one that is to be
            measured and no longer exists, or rows of another precision.
    """
    require_weights(features)
    if isinstance(workers, int):
        devices.require(device)
    pool = worker_pool.LocalPool(workers) if isinstance(workers, int) else workers
    gone = {place.path: require_unchanged(place) for place in (folder, against) if place is not None}
    protocols = {feature: protocol_in(folder, feature, against, precision) for feature in features}
    current = {feature: current_keys(folder, feature, against, without=_TRIED_AGAIN) for feature in features}
    made = _in_order_of_making(folder)
    references = against.samples() if against else {}
    prompts = {(subset.name, prompt.id): prompt for subset in folder.subsets() for prompt in subset.prompts}
    todo = []
    for sample in made:
        lacking = tuple(
            one for one in features if requires(one) is not Requires.SEEDS and sample.key not in current[one]
        )
        if lacking:
            todo.append(Task((sample,), lacking, references.get(sample.key), prompts.get(sample.key[:2])))
    for _, together in itertools.groupby(made, key=lambda sample: sample.key[:2]):
        of_prompt = tuple(together)
        keys = {sample.key for sample in of_prompt}
        if lacking := tuple(one for one in features if requires(one) is Requires.SEEDS and not keys <= current[one]):
            todo.append(Task(of_prompt, lacking))

    beside = [task.reference for task in todo if any(requires(one) is Requires.REFERENCE_CLIP for one in task.features)]
    for place, shown in ((folder, [one for task in todo for one in task.samples]), (against, beside)):
        wanted = {one.key for one in shown if one is not None}
        if place and (lost := tuple(one for one in gone[place.path] if one.key in wanted)):
            msg = (
                f"{counted(lost, place)} to be measured and no longer there, for example "
                f"{place.path / str(lost[0].path)}: put them back, or give the command that made the run again with "
                "--replace, which makes them again"
            )
            raise InputError(msg)

    cache = features_cache.asked_for()

    def work() -> Iterator[Task]:
        half = {one for one, protocol in protocols.items() if getattr(protocol, "precision", "") == devices.BFLOAT16}
        forms = forms_of(folder), forms_of(against) if against else {}
        places = Place(folder.path) if mirror is None else mirror.place(), Place(against.path) if against else None
        build = functools.partial(_worker, places, forms, device, half)
        waiting: dict[str, list[Task]] = {}
        sources = [*([cache] if cache else []), *([_of_others(others, todo, forms)] if others else [])]
        for task in todo:
            rows, rest = _known(sources, task, protocols, forms)
            for feature, row in rows:
                folder.add_row(protocols[feature], row)
            if rest.features:
                waiting.setdefault(_input_of(rest, forms), []).append(rest)
            else:
                yield rest
        firsts = [alike[0] for alike in waiting.values()]
        for task, found in pool.map_unordered(build, firsts):
            crashed = isinstance(found, worker_pool.WorkerCrashed)
            rows = _each_alone(functools.partial(pool.run_isolated, build), task, found, forms) if crashed else found
            failed = {feature: row.missing for feature, row in rows if (row.missing or "").startswith(_FAILED)}
            for feature, row in rows:
                if cache and row.values is not None:
                    cache.keep(protocols[feature], _cached_as(feature, task, row.clip_sha256), row.values, row.gpu)
            for each in waiting[_input_of(task, forms)]:
                keys = dict(zip((one.key for one in task.samples), (one.key for one in each.samples), strict=True))
                for feature, row in rows:
                    folder.add_row(protocols[feature], dataclasses.replace(row, key=keys[row.key]))
                yield dataclasses.replace(each, failed=failed)

    return len(todo), work()


def _of_others(
    runs: Sequence[RunFolder],
    todo: Sequence[Task],
    forms: tuple[Mapping[str, ClipForm], Mapping[str, ClipForm]],
) -> OtherRuns:
    """What other runs have of the clips of these tasks."""
    clips = {one.sha256 for task in todo for one in task.samples if one.sha256}
    wanted = {seen for task in todo for feature in task.features for seen in _hashes(feature, task, forms)}
    return OtherRuns(runs, clips, wanted)


def _known(
    sources: Sequence[FeaturesCache | OtherRuns],
    task: Task,
    protocols: Mapping[str, Protocol],
    forms: tuple[Mapping[str, ClipForm], Mapping[str, ClipForm]],
) -> tuple[list[tuple[str, Row]], Task]:
    """The rows of a task whose values are known, and the task with the features that are left to measure."""
    if not sources:
        return [], task
    rows: list[tuple[str, Row]] = []
    left = []
    for feature in task.features:
        seen = _hashes(feature, task, forms)
        asked = [_cached_as(feature, task, one) for one in seen]
        found = [_first(source.find(protocols[feature], one) for source in sources) for one in asked]
        if any(one is None for one in found):
            left.append(feature)
            continue
        values, gpus = zip(*(one for one in found if one is not None), strict=True)
        made = zip(_as_rows(feature, task, values, None, forms), gpus, strict=True)
        rows += [(feature, dataclasses.replace(row, gpu=gpu)) for row, gpu in made]
    return rows, dataclasses.replace(task, features=tuple(left))


def _first(found: Iterable[Found | None]) -> Found | None:
    return next((one for one in found if one is not None), None)


def _input_of(task: Task, forms: tuple[Mapping[str, ClipForm], Mapping[str, ClipForm]]) -> str:
    """A hash of everything that decides a task's values."""
    return digest(
        [
            [feature, *(_cached_as(feature, task, one) for one in _hashes(feature, task, forms))]
            for feature in task.features
        ]
    )


def _cached_as(feature: str, task: Task, clip_sha256: str) -> str:
    """What decides a row's values, besides the protocol: what is seen of the clips, and the prompt where it is used."""
    if requires(feature) is not Requires.PROMPT or task.prompt is None:
        return clip_sha256
    return digest([clip_sha256, task.prompt.to_json()])


def _in_order_of_making(folder: RunFolder) -> list[Sample]:
    """The samples with a clip, balanced over subsets as the clips are made; a prompt's by their seeds."""
    places = {key[:2]: place for place, key in enumerate(folder.planned_keys())}
    made = [sample for sample in folder.samples().values() if sample.path is not None]
    return sorted(made, key=lambda sample: (places.get(sample.key[:2], len(places)), sample.key))


def current_rows(
    folder: RunFolder, feature: str, against: RunFolder | None = None, *, names: Collection[str] | None = None
) -> dict[Key, Row]:
    """The rows of a feature that were made of the very bytes that lie in the folder, and in `against`, now.

    Args:
        folder: the run.
        feature: its id.
        against: the run that holds the reference clips.
        names: only the values of these names; all for None.
    """
    rows = folder.rows(protocol_in(folder, feature, against), names)
    current = _current(folder, feature, against, {key: row.clip_sha256 for key, row in rows.items()})
    return {key: row for key, row in rows.items() if key in current}


def current_keys(
    folder: RunFolder, feature: str, against: RunFolder | None = None, *, without: tuple[str, ...] = ()
) -> set[Key]:
    """The keys of `current_rows`, without a value in memory; not of rows whose sentence begins as one of `without`."""
    protocol = protocol_in(folder, feature, against)
    return _current(folder, feature, against, folder.row_hashes(protocol, without=without))


def _current(folder: RunFolder, feature: str, against: RunFolder | None, made_of: Mapping[Key, str]) -> set[Key]:
    """The keys whose rows were `made_of` the very bytes that lie in the folder, and in `against`, now."""
    samples = folder.samples()
    references = against.samples() if against else {}
    siblings: dict[tuple[str, str], list[Sample]] = {}
    for key, sample in sorted(samples.items()):
        if sample.path is not None:
            siblings.setdefault(key[:2], []).append(sample)
    kind, forms = requires(feature), forms_of(folder)
    their_forms = forms_of(against) if against else {}
    good = set()
    for key, sample in samples.items():
        beside = {
            Requires.REFERENCE_CLIP: [references.get(key)],
            Requires.SEEDS: siblings.get(key[:2], []),
        }.get(kind, [])
        their = their_forms if kind is Requires.REFERENCE_CLIP else forms
        if key in made_of and made_of[key] == _all_seen(sample, forms, beside, their):
            good.add(key)
    return good


def _all_seen(
    sample: Sample, forms: Mapping[str, ClipForm], beside: Sequence[Sample | None], their: Mapping[str, ClipForm]
) -> str | None:
    """The hash of what a feature gets of a clip, including the clips that it takes beside it."""
    others = [_seen(one, their) for one in beside if one is not None]
    return digest([_seen(sample, forms), *others]) if others else _seen(sample, forms)


def _worker(
    places: tuple[Place, Place | None],
    forms: tuple[Mapping[str, ClipForm], Mapping[str, ClipForm]],
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
    folder, against = (None if one is None else one.opened() for one in places)
    assert folder is not None
    own_place = functools.cache(functools.partial(devices.of_this_process, device))

    def on(place: str, feature: str, *seen: Any) -> list[Row]:
        def look(*of_clip: Any) -> Any:
            if (feature, place) not in built:  # not before a clip comes that it can measure: its network may be large
                kind: Any = feature_class(feature)
                how = {"device": place} if place != devices.CPU else {}
                built[feature, place] = kind(**how, **({"precision": devices.BFLOAT16} if feature in half else {}))
            return built[feature, place](*of_clip)

        rows = _rows(feature, look, *seen)
        gpu = devices.card(place)
        return [row if row.values is None else dataclasses.replace(row, gpu=gpu) for row in rows]

    def measured(feature: str, *seen: Any) -> list[Row]:
        if getattr(feature_class(feature), "on_gpu", False) and (place := own_place()) != devices.CPU:
            try:
                return on(place, feature, *seen)
            except RuntimeError as error:
                if not devices.is_out_of_memory(error):
                    raise
        return on(devices.CPU, feature, *seen)

    def look(task: Task) -> list[tuple[str, Row]]:
        clips = [_read(folder, sample, forms[0]) for sample in task.samples]
        reference = None
        if (
            task.reference is not None
            and against is not None
            and any(requires(one) is Requires.REFERENCE_CLIP for one in task.features)
        ):
            reference = _read(against, task.reference, forms[1]) if task.reference.path is not None else None
        rows = []
        for feature in sorted(task.features, key=_streams, reverse=True):  # the others need whole clips
            if not _streams(feature):
                clips, reference = [_whole(clip) for clip in clips], _whole(reference)
            try:
                known = measured(feature, task, clips, reference, forms)
            except Exception as error:
                if (package := package_of(feature)) is None:
                    error.add_note(f"while {feature} measured {task.samples[0].path}")
                    raise
                why = plug_ins.failure(package, error)
                known = _as_rows(feature, task, [None] * len(task.samples), why, forms)
            rows += [(feature, row) for row in known]
        return rows

    return look


def _each_alone(
    run_isolated: Callable[[Task], list[tuple[str, Row]] | worker_pool.WorkerCrashed],
    task: Task,
    crash: worker_pool.WorkerCrashed,
    forms: tuple[Mapping[str, ClipForm], Mapping[str, ClipForm]],
) -> list[tuple[str, Row]]:
    """Rows of a task that crashed its worker: each feature is tried alone; one that crashes again gets a sentence."""
    rows: list[tuple[str, Row]] = []
    for feature in task.features:
        one = dataclasses.replace(task, features=(feature,))
        alone = run_isolated(one) if len(task.features) > 1 else crash
        if isinstance(alone, worker_pool.WorkerCrashed):
            why = str(alone) if isinstance(alone, worker_pool.WorkerTimedOut) else CRASHED
            rows += [(feature, row) for row in _as_rows(feature, task, [None] * len(task.samples), why, forms)]
        else:
            rows += alone
    return rows


def _read(folder: WorkerFolder, sample: Sample, forms: Mapping[str, ClipForm]) -> Clip | NotMeasurable:
    """The clip in the form that its subset asks for, or the reason why it cannot be conformed."""
    assert sample.path is not None and sample.sha256 is not None  # only finished clips are measured
    path = folder.clip(sample)
    if not path.is_file() or not holds(path, sample.sha256):
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
    forms: tuple[Mapping[str, ClipForm], Mapping[str, ClipForm]],
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
                made = [look(clips[0])]
            case Requires.PROMPT:
                made = [look(clips[0], task.prompt)]
            case Requires.SEEDS:
                made = look(clips)
            case Requires.REFERENCE_CLIP if reference is None:
                msg = "the run of reference clips has no clip of this prompt and seed"
                raise NotMeasurable(msg)
            case Requires.REFERENCE_CLIP:
                made = [look(clips[0], reference)]
    except NotMeasurable as reason:
        made, missing = [None] * len(clips), str(reason)
    except MediaError as error:  # of a file that was whole when the clip was read
        made, missing = [None] * len(clips), str(_unreadable(error))
    return _as_rows(feature, task, made, missing, forms)


def _as_rows(
    feature: str,
    task: Task,
    made: Sequence[Mapping[str, Value] | None],
    missing: str | None,
    forms: tuple[Mapping[str, ClipForm], Mapping[str, ClipForm]],
) -> list[Row]:
    """One row per clip of a task."""
    hashes = _hashes(feature, task, forms)
    return [
        Row(sample.key, seen, values, missing) for sample, seen, values in zip(task.samples, hashes, made, strict=True)
    ]


def _hashes(feature: str, task: Task, forms: tuple[Mapping[str, ClipForm], Mapping[str, ClipForm]]) -> list[str]:
    """What a feature sees of each clip of a task, and of the clips beside it."""
    kind = requires(feature)
    beside: Sequence[Sample | None] = {
        Requires.REFERENCE_CLIP: (task.reference,),
        Requires.SEEDS: task.samples,
    }.get(kind, ())
    their = forms[kind is Requires.REFERENCE_CLIP]
    return [_all_seen(sample, forms[0], beside, their) or "" for sample in task.samples]
