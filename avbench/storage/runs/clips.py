"""Compares the clip files of a run with what was sampled."""

import os
from dataclasses import dataclass

from avbench.core import InputError, Sample
from avbench.storage.content import holds
from avbench.storage.runs.folder import RunFolder


@dataclass(frozen=True)
class Altered:
    """Clips of a run that differ from what was sampled."""

    changed: tuple[Sample, ...]
    """Samples whose file has other content."""
    gone: tuple[Sample, ...]
    """Samples whose file is missing."""


def altered(folder: RunFolder) -> Altered:
    """Compare every clip file of a run with the sha256 in samples.jsonl."""
    changed, gone = [], []
    for sample in folder.samples().values():
        if sample.path is not None and sample.sha256 is not None:
            path = folder.path / sample.path
            if not os.path.lexists(path):
                gone.append(sample)
            elif not holds(path, sample.sha256):
                changed.append(sample)
    return Altered(tuple(changed), tuple(gone))


def require_unchanged(folder: RunFolder) -> tuple[Sample, ...]:
    """Check that no clip file of a run was changed, and return the samples whose file is missing.

    Raises:
        InputError: a clip file was changed since it was sampled; the message names it.
    """
    found = altered(folder)
    if found.changed:
        msg = (
            f"{clips_are(found.changed, folder)} not what was sampled, for example "
            f"{folder.path / str(found.changed[0].path)}: put the original files back, or repeat the command that made "
            "the run with replace=True (--replace) to generate them again"
        )
        raise InputError(msg)
    return found.gone


def clips_are(samples: tuple[Sample, ...], folder: RunFolder) -> str:
    """Return the beginning of a sentence, such as ``2 of 6 clips of runs/model are``."""
    made = sum(one.path is not None for one in folder.samples().values())
    return f"{len(samples)} of {made} clips of {folder.path} {'is' if len(samples) == 1 else 'are'}"
