"""Imports diffusers, which is an extra, and keeps it quiet."""

import contextlib
from collections.abc import Iterator
from typing import Any

from avbench.core import if_missing


def diffusers() -> Any:
    """Import and return the package diffusers. Raises InputError with the install command if it is missing."""
    with if_missing("diffusers pipelines need the package diffusers: pip install 'avbench[models]'"):
        import diffusers as package
    return package


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Silence diffusers' own log, where what it logs is checked or raised as well."""
    logging = diffusers().utils.logging
    was = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(was)
