"""Finds the protocol under which a feature measures, and the form in which it gets a clip."""

import dataclasses

from avbench.core import InputError, Protocol, digest
from avbench.features import devices
from avbench.features.requirements import require_reference_clips, requires
from avbench.features.table import Requires, feature_class, package_of
from avbench.storage.media.conform import ClipForm, seen_of
from avbench.storage.runs.folder import RunFolder


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
    return dataclasses.replace(protocol, **{"reference_clips": reference_clips_of(against)})


def reference_clips_of(against: RunFolder) -> str:
    """Digest of the clips of a run that holds reference clips, as features get them."""
    forms = forms_of(against)
    return digest([[*key, seen_of(sample, forms)] for key, sample in sorted(against.samples().items())])


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
            "holds one of them; leave precision (--precision) out, or make a run of another name"
        )
        raise InputError(msg)
    return known[precision or next(iter(there), "fp32")]


def _has_bfloat16(feature: str) -> bool:
    return getattr(feature_class(feature), "in_bfloat16", False)


def forms_of(folder: RunFolder) -> dict[str, ClipForm]:
    """Subset → the form that it asks for, for the subsets with clips of another form; those clips are conformed."""
    mismatched = {key.subset for key, sample in folder.samples().items() if sample.spec_mismatch}
    return {name: form for name, form in forms_asked_for(folder).items() if name in mismatched} if mismatched else {}


def forms_asked_for(folder: RunFolder) -> dict[str, ClipForm]:
    """Subset → the form that it asks for, whether or not a clip has another form so far."""
    return {one.name: ClipForm.of(one.clip_spec) for one in folder.subsets() if one.clip_spec}
