"""Finds the rows of a run that were made of the very clips that lie in its folder now."""

from collections.abc import Collection, Mapping, Sequence

from avbench.core import Key, Row, Sample, digest
from avbench.features.protocols import forms_of, protocol_in, seen_of
from avbench.features.requirements import requires
from avbench.features.table import Requires
from avbench.storage.conform import ClipForm
from avbench.storage.run_folder import RunFolder


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
        if key in made_of and made_of[key] == all_seen(sample, forms, beside, their):
            good.add(key)
    return good


def all_seen(
    sample: Sample, forms: Mapping[str, ClipForm], beside: Sequence[Sample | None], their: Mapping[str, ClipForm]
) -> str | None:
    """The hash of what a feature gets of a clip, including the clips that it takes beside it."""
    others = [seen_of(one, their) for one in beside if one is not None]
    return digest([seen_of(sample, forms), *others]) if others else seen_of(sample, forms)
