"""Tells rows in which the machine failed, and which are measured again, from rows in which the clip has no value."""

from avbench.storage import plug_ins
from avbench.storage.workers.worker_pool import NOT_MEASURED

UNREADABLE = "the clip cannot be read now"
"""Begins the sentence in a row of a clip that was readable when it was sampled: memory, threads or file handles may be
used up. Such rows are measured again."""
_THE_MACHINES = (*NOT_MEASURED, UNREADABLE)
TRIED_AGAIN = (*_THE_MACHINES, plug_ins.FAILED)
"""A row whose sentence begins like one of these is no measurement: the next `measure` tries it again."""


def is_the_machines(missing: str | None) -> bool:
    """Whether a value is missing because of the machine, by the sentence in its place, and not because of the clip."""
    return (missing or "").startswith(_THE_MACHINES)
