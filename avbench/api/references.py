"""Builds references from clips, or finds the one that was built before."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avbench.api.stages import measured, sampled
from avbench.api.work import SamplingJob, Work
from avbench.core import InputError, Prompt, Subset, as_typed, clip_name, counted, digest
from avbench.features.protocols import protocol_in, protocol_of
from avbench.features.requirements import reads_captions, require_ready, require_reference_clips, requires
from avbench.features.table import Requires, package_of
from avbench.generation.providers.clips import frames_sha256
from avbench.metrics import reference_building
from avbench.metrics.evaluate import SHIPPED, features_of, reference_to_use, scored_together
from avbench.metrics.kept import scores_so_far
from avbench.metrics.reference import Reference, load, require_any
from avbench.metrics.table import Metric
from avbench.storage import plug_ins
from avbench.storage.content import cache_folder, content_sha256
from avbench.storage.media.clips_of_prompts import ClipsOfPrompts
from avbench.storage.runs.folder import RunFolder
from avbench.storage.sharing import shared_command
from avbench.storage.writing import locked
from avbench.subsets.loading import from_folder


def real_clips_in(path: Path, *, frames: bool = False) -> Subset | None:
    """The clips of a folder of which a reference can be built; None if it holds a reference.

    With `frames`, folders of numbered frames are clips, too.

    Raises:
        InputError: the folder holds neither.
    """
    if path == SHIPPED or any(path.glob("card.json")) or any(path.glob("*/card.json")):
        return None
    if not path.exists():
        msg = f"reference {path} does not exist"
        raise InputError(msg)
    if not path.is_dir():
        msg = (
            f"reference {path} is a file; give a folder of real clips, or a reference folder, which `avbench reference "
            "import` makes of another tool's statistics"
        )
        raise InputError(msg)
    try:
        return from_folder(path, frames=frames)
    except InputError as error:
        msg = f"{path} holds no reference: there is no card.json in it, and no clips to build one of ({error})"
        raise InputError(msg) from None


def chosen_reference(
    given: str | Path | None,
    metrics: Sequence[Metric],
    work: Work,
    runs: Sequence[RunFolder],
    subsets: Sequence[Subset],
    fps: Any = None,
) -> tuple[Path | None, str | Path | None]:
    """The one reference that all runs of a call are scored with, and what the user gave for it; None for shipped ones.

    If none is given, it is the one that an earlier call scored one of the runs with, and a note names it: runs can be
    compared only if they were scored with the same reference. `fps` is the rate of real clips that are folders of
    numbered frames.

    Raises:
        InputError: see `reference_of`; or the given one is of none of the subsets, or that of the earlier call is gone.
    """
    if given is not None:
        place = reference_of(Path(given), metrics, work, runs, subsets, fps)
        require_any(subsets, reference_to_use((), place))
        return place, given
    if (place := reference_to_use(runs, None)) is None:
        return None, None
    scored = [one for one in runs if scores_so_far(one)]
    earlier = next(filter(None, (one.evaluation().given.get("reference") for one in reversed(scored))))
    work.reporter.note(
        f"no reference was given, so that of an earlier call is used: {earlier}; the reference `{SHIPPED}` means the "
        "shipped ones"
    )
    if Path(earlier).exists():  # of real clips, one may have to be built anew that has these metrics' features
        place = reference_of(Path(earlier), metrics, work, runs, subsets, fps)
    return place, earlier


def require_built(path: Path) -> None:
    """Raise InputError unless a folder holds a reference; clips of which one could be built do not suffice."""
    if real_clips_in(path, frames=True) is not None:
        msg = (
            f"{path} is a folder of clips and no reference, which has a card.json: leave reference (--reference) out, "
            "because a run remembers the one that it was scored with (`avbench evaluate RUN --reference FOLDER` scores "
            f"it with another), or build one with `avbench reference build {as_typed(path)}`"
        )
        raise InputError(msg)


def reference_of(
    path: Path,
    metrics: Sequence[Metric],
    work: Work,
    runs: Sequence[RunFolder] = (),
    subsets: Sequence[Subset] = (),
    fps: Any = None,
) -> Path:
    """Return the reference folder `path` itself, or a reference that is built from the real clips in `path`.

    It is built for these metrics, and for those that `runs` were scored by before: `evaluate` computes them again with
    it, and runs can be compared only if they were scored with the same reference. Real clips that are named after
    prompts of `subsets` are clips of these prompts.

    A built reference is kept in the cache under a hash of the clips and the protocols, and used again; one that is
    damaged is built again. While another command builds it, this one waits. Folders of numbered frames have the rate
    `fps`, or where it is not given that of the runs' clips.

    Raises:
        InputError: the folder holds neither a reference nor clips, or a clip cannot be read.
    """
    fps = fps or next(filter(None, map(_frame_rate_given, runs)), None)
    if (subset := real_clips_in(path, frames=fps is not None)) is None:
        return path
    subset = _of_prompts(subset, path, [prompt for one in subsets for prompt in one.prompts])
    every = {one.name: one for run in runs for one in scored_together((), run)} | {one.name: one for one in metrics}
    able = [one for one in every.values() if requires(one.feature) is not Requires.REFERENCE_CLIP]
    clips = {prompt.id: path / str(prompt.tags["file"]) for prompt in subset.prompts}
    settings = {"fps": fps} if any(clip.is_dir() for clip in clips.values()) else {}
    content = {name: frames_sha256(clip) if clip.is_dir() else content_sha256(clip) for name, clip in clips.items()}
    protocols = [protocol_of(feature, precision=work.precision) for feature in features_of(able)]
    asked: dict[str, Any] = {"clips": content, "protocols": sorted(protocol.digest for protocol in protocols)}
    if any(map(reads_captions, features_of(able))):
        asked["captions"] = {prompt.id: [prompt.video_caption, prompt.audio_caption] for prompt in subset.prompts}
    place = cache_folder() / "references" / digest({**asked, **{name: str(of) for name, of in settings.items()}})[:16]
    if (built := _built(place)) is None:
        with _alone(place, path, work):
            if (built := _built(place)) is None:  # another command may have built it meanwhile
                if (place / "card.json").exists():
                    work.reporter.note(f"the reference of {path} in the cache is damaged, and is built again")
                _build_in_cache(RealClips(subset, f"clips:{path}", settings=settings), path, able, place, work)
                built = load(place)
    with suppress(OSError):  # of a cache that is only read; then a remark says that the forms are not known
        reference_building.note_first_clips(place, (clips[name] for name in sorted(clips)))
    for sentence in built.partial:
        work.reporter.note(sentence)
    return place


def _of_prompts(real: Subset, path: Path, prompts: Sequence[Prompt]) -> Subset:
    """Real clips with the ids and captions of the prompts that name them as their reference clips, or that they are
    named after, as clips of seed 0; the others are as they were.
    """
    clips = {path / str(one.tags["file"]): one for one in real.prompts}
    known = {one.id: replace(one, tags={"file": one.reference_clip}) if one.reference_clip else one for one in prompts}
    found = ClipsOfPrompts(path, clips).of_all([*known.values()])
    of_clips = {clip: replace(prompt, tags=clips[clip].tags) for clip, (prompt, seed) in found.items() if seed == 0}
    ids = Counter(of_clips.get(clip, own).id for clip, own in clips.items())
    made = [own if ids[(one := of_clips.get(clip, own)).id] > 1 else one for clip, own in clips.items()]
    return replace(real, prompts=tuple(made))


def _frame_rate_given(run: RunFolder) -> Any:
    """The frame rate that was given for the frames of a run's clips; None if none was."""
    with suppress(InputError):  # the run was not begun yet
        if of_finished_clips(run.run().model):
            return run.run().settings.get("fps")
    return None


def _built(place: Path) -> Reference | None:
    """The reference in a folder; None if there is none that can be read."""
    with suppress(InputError):
        return load(place) if (place / "card.json").is_file() else None
    return None


def of_finished_clips(model: str) -> bool:
    """Whether a model is a folder of finished clips; the `fps` of any other is that of clips it makes."""
    return model.startswith("clips:")


@contextmanager
def _alone(place: Path, path: Path, work: Work) -> Iterator[None]:
    """Lock a place in the cache for building the reference of the clips in `path`; wait for others with a note."""
    wait = f"another command builds the reference of {path}; this one waits for it"
    with ExitStack() as stack:
        try:
            lock = place.with_name(f".{place.name}.lock")
            stack.enter_context(locked(lock, lambda: work.reporter.note(wait)))
        except OSError as error:
            msg = f"the reference of {path} cannot be written to the cache {place.parent}: {error.strerror}"
            raise InputError(msg) from None
        yield


def _build_in_cache(clips: "RealClips", path: Path, able: Sequence[Metric], place: Path, work: Work) -> None:
    making = place.with_name(f"{place.name}.work") / clips.subset.name
    asked = {"name": clips.subset.name, "metric": [one.name for one in able], "precision": work.precision}
    about = {"command": shared_command(["avbench", "reference", "build", path], {**asked, **clips.settings})}
    # with `replace`, as a build of these clips that was stopped may have found them elsewhere
    work = replace(work, replace=True)
    try:
        build_reference(replace(clips, about=about), able, making, place, work)
    except InputError:
        if _has_failures(RunFolder(making)):  # repaired clips are another reference, and nobody would use these copies
            shutil.rmtree(making.parent, ignore_errors=True)
        raise
    shutil.rmtree(making.parent, ignore_errors=True)


def _has_failures(run: RunFolder) -> bool:
    with suppress(InputError):
        return any(sample.failure for sample in run.samples().values())
    return False


@dataclass(frozen=True)
class RealClips:
    """What a reference is built of."""

    subset: Subset
    model: str
    """Where the clips come from: ``clips:FOLDER`` or ``toyworld:``."""
    seeds: Sequence[int] = (0,)
    licence: str | None = None
    """Licence of the clips; None if their owner gave none. Clips of the embedded world are avbench's own."""
    rows: int = reference_building.ROWS
    """The most rows to keep; mean and covariance of embeddings still cover all clips."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the model, such as the `fps` of folders of frames."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the reference's card: how the clips were chosen, and the command."""


def build_reference(
    clips: RealClips, metrics: Sequence[Metric], making: Path, place: Path, work: Work, *, placed_by: str | None = None
) -> str:
    """Make and measure clips, and build a reference from them; the same call resumes where it stopped.

    Args:
        clips: what to measure.
        metrics: the metrics that the reference will serve.
        making: run folder for the clips while they are measured.
        place: the reference folder.
        work: how.
        placed_by: the option that decides `making`, for error messages.

    Returns:
        The sha256 of the reference's columns.

    Raises:
        InputError: a clip cannot be made or measured, because a reference needs all clips; or `place` holds another
            reference, and `work` does not replace it.
    """
    require_reference_clips(features_of(metrics))
    require_ready(features_of(metrics))
    job = SamplingJob([clips.subset], clips.seeds, clips.settings, placed_by=placed_by)
    view, failed = sampled(making, clips.model, job, work)
    if failed:
        one = next(one for one in view.samples().values() if one.failure)
        msg = (
            f"{counted(failed, 'clip')} could not be made, for example {clip_name(one.key, clips.seeds)} "
            f"({one.failure}), and a reference needs all: repair or remove what failed"
        )
        raise InputError(msg)
    if lost := measured(view, metrics, work):
        msg = f"{counted(lost, 'clip')} could not be measured, and a reference needs all: give the command again"
        raise InputError(msg)
    _require_no_failure(view, features_of(metrics))
    licence = clips.licence or ("Apache-2.0" if clips.model.startswith("toyworld:") else None)
    protocols = [protocol_in(view, feature) for feature in features_of(metrics)]
    how: dict[str, Any] = {"rows": clips.rows, "about": clips.about, "replace": work.replace}
    return reference_building.pack(view, clips.subset, protocols, place, licence, **how)


def _require_no_failure(run: RunFolder, features: Sequence[str]) -> None:
    """Raise InputError if the code of another package raised an error on a clip, which a later version may not do."""
    for feature in filter(package_of, features):
        rows = run.rows(protocol_in(run, feature), ()).values()
        if failed := [str(row.missing) for row in rows if (row.missing or "").startswith(plug_ins.FAILED)]:
            msg = (
                f"{counted(len(failed), 'clip')} could not be measured by {feature} ({failed[0]}), and a reference "
                f"needs all: repair the package, or leave out the metrics of {feature}"
            )
            raise InputError(msg)
