"""Finds the rows of a run that were made of the very clips that lie in its folder now."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from avbench.core import Columns, InputError, Key, Row, Sample, columns, digest
from avbench.features.protocols import forms_of, protocol_in
from avbench.features.requirements import requires
from avbench.features.table import Requires, package_of
from avbench.storage.media.conform import ClipForm, seen_of
from avbench.storage.plug_ins import failure
from avbench.storage.runs.folder import RunFolder

Forms = tuple[Mapping[str, ClipForm], Mapping[str, ClipForm]]
"""Of a run, and of the run that holds the reference clips (see `forms_of`)."""


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


def columns_of(features: Sequence[str], rows: Iterable[Row]) -> tuple[list[Key], Columns]:
    """`columns` of rows that these features measured.

    Raises:
        InputError: rows do not fit each other; it names the features, or the package that adds one of them.
    """
    try:
        return columns(rows)
    except InputError as error:
        package = next(filter(None, map(package_of, features)), None)
        raise InputError(failure(package, error) if package else f"{' and '.join(features)}: {error}") from error


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
    kind, forms = requires(feature), (forms_of(folder), forms_of(against) if against else {})
    return {
        key
        for key, sample in samples.items()
        if key in made_of
        and made_of[key] == all_seen(kind, sample, references.get(key), siblings.get(key[:2], []), forms)
    }


def all_seen(
    kind: Requires, sample: Sample, reference: Sample | None, siblings: Sequence[Sample], forms: Forms
) -> str | None:
    """The hash of what a feature gets of a clip, including the clips that it takes beside it.

    Args:
        kind: what the feature requires.
        sample: the clip.
        reference: the reference clip of its prompt and seed, if there is one.
        siblings: the clips of its prompt.
        forms: of the run, and of the run that holds the reference clips.
    """
    own, their = forms
    seen, others = seen_of(sample, own), []
    if kind is Requires.REFERENCE_CLIP and reference is not None:
        others = [seen_of(reference, their)]
    elif kind is Requires.SEEDS:
        others = [seen_of(one, own) for one in siblings]
    return digest([seen, *others]) if others else seen
