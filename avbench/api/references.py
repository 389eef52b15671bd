"""Builds references from clips, or finds the one that was built before."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avbench.api.stages import measured, sampled
from avbench.api.work import SamplingJob, Work
from avbench.core import InputError, Subset, as_typed, clip_name, counted, digest
from avbench.features.protocols import protocol_in, protocol_of
from avbench.features.requirements import require_ready, require_reference_clips, requires
from avbench.features.table import Requires, package_of
from avbench.metrics import reference_building
from avbench.metrics.evaluate import SHIPPED, features_of, reference_to_use, scored_together, scores_so_far
from avbench.metrics.reference import load, require_any
from avbench.metrics.table import Metric
from avbench.storage import plug_ins
from avbench.storage.content import cache_folder, content_sha256
from avbench.storage.run_folder import RunFolder
from avbench.storage.sharing import shared_command
from avbench.storage.writing import locked
from avbench.subsets.loading import from_folder


def real_clips_in(path: Path) -> Subset | None:
    """The clips of a folder of which a reference can be built; None if it holds a reference.

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
        return from_folder(path)
    except InputError as error:
        msg = f"{path} holds no reference: there is no card.json in it, and no clips to build one of ({error})"
        raise InputError(msg) from None


def chosen_reference(
    given: str | Path | None,
    metrics: Sequence[Metric],
    work: Work,
    runs: Sequence[RunFolder],
    subsets: Sequence[Subset],
) -> tuple[Path | None, str | Path | None]:
    """The one reference that all runs of a call are scored with, and what the user gave for it; None for shipped ones.

    If none is given, it is the one that an earlier call scored one of the runs with, and a note names it: runs can be
    compared only if they were scored with the same reference.

    Raises:
        InputError: see `reference_of`; or the given one is of none of the subsets, or that of the earlier call is gone.
    """
    if given is not None:
        place = reference_of(Path(given), metrics, work, runs)
        require_any(subsets, reference_to_use((), place))
        return place, given
    if (place := reference_to_use(runs, None)) is None:
        return None, None
    scored = [one for one in runs if scores_so_far(one)]
    earlier = next(one.given_with()["reference"] for one in reversed(scored) if one.scored_with().get("reference"))
    work.reporter.note(
        f"no reference was given, so that of an earlier call is used: {earlier}; the reference `{SHIPPED}` means the "
        "shipped ones"
    )
    if Path(earlier).exists():  # of real clips, one may have to be built anew that has these metrics' features
        place = reference_of(Path(earlier), metrics, work, runs)
    return place, earlier


def require_built(path: Path) -> None:
    """Raise InputError unless a folder holds a reference; clips of which one could be built do not suffice."""
    if real_clips_in(path) is not None:
        msg = (
            f"{path} is a folder of clips and no reference, which has a card.json: leave reference (--reference) out, "
            "because a run remembers the one that it was scored with (`avbench evaluate RUN --reference FOLDER` scores "
            f"it with another), or build one with `avbench reference build {as_typed(path)}`"
        )
        raise InputError(msg)


def reference_of(path: Path, metrics: Sequence[Metric], work: Work, runs: Iterable[RunFolder] = ()) -> Path:
    """Return the reference folder `path` itself, or a reference that is built from the real clips in `path`.

    It is built for these metrics, and for those that `runs` were scored by before: `evaluate` computes them again with
    it, and runs can be compared only if they were scored with the same reference.

    A built reference is kept in the cache under a hash of the clips and the protocols, and used again. While another
    command builds it, this one waits.

    Raises:
        InputError: the folder holds neither a reference nor clips, or a clip cannot be read.
    """
    if (subset := real_clips_in(path)) is None:
        return path
    every = {one.name: one for run in runs for one in scored_together((), run)} | {one.name: one for one in metrics}
    able = [one for one in every.values() if requires(one.feature) is not Requires.REFERENCE_CLIP]
    content = {prompt.id: content_sha256(path / str(prompt.tags["file"])) for prompt in subset.prompts}
    protocols = [protocol_of(feature, precision=work.precision) for feature in features_of(able)]
    key = digest({"clips": content, "protocols": sorted(protocol.digest for protocol in protocols)})[:16]
    place = cache_folder() / "references" / key
    if not (place / "card.json").is_file():
        with _alone(place, path, work):
            if not (place / "card.json").is_file():  # another command may have built it meanwhile
                _build_in_cache(path, subset, able, place, work)
    ordered = sorted(subset.prompts, key=lambda prompt: prompt.id)
    with suppress(OSError):  # of a cache that is only read; then a remark says that the forms are not known
        reference_building.note_first_clips(place, (path / str(prompt.tags["file"]) for prompt in ordered))
    for sentence in load(place).partial:
        work.reporter.note(sentence)
    return place


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


def _build_in_cache(path: Path, subset: Subset, able: Sequence[Metric], place: Path, work: Work) -> None:
    making = place.with_name(f"{place.name}.work") / subset.name
    asked = {"name": subset.name, "metric": [one.name for one in able], "precision": work.precision}
    about = {"command": shared_command(["avbench", "reference", "build", path], asked)}
    # with `replace`, as a build of these clips that was stopped may have found them elsewhere
    work = replace(work, replace=True)
    build_reference(RealClips(subset, f"clips:{path}", about=about), able, making, place, work)
    shutil.rmtree(making.parent, ignore_errors=True)


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
    """The most rows to keep; statistics still cover all clips."""
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
    view, failed = sampled(making, clips.model, SamplingJob([clips.subset], clips.seeds, placed_by=placed_by), work)
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
