"""Imports diffusers, which is an extra, and keeps it quiet."""

import contextlib
from collections.abc import Iterator
from typing import Any

from avbench.core import InputError, first_line, if_missing
from avbench.storage.weights.downloads import require_endpoint


def diffusers() -> Any:
    """Import and return the package diffusers. Raises InputError with the install command if it is missing."""
    require_endpoint()
    with if_missing("diffusers pipelines need the package diffusers: pip install 'avbench[models]'"):
        import diffusers as package
    return package


def class_named(name: str) -> Any:
    """The class of diffusers with this name; None if it has none.

    Raises:
        InputError: it has one that cannot be imported here, such as one that needs a later transformers.
    """
    try:
        return getattr(diffusers(), name, None)
    except (ImportError, RuntimeError) as error:
        msg = (
            f"diffusers {diffusers().__version__} cannot import {name} here ({first_line(error.__cause__ or error)}); "
            "`pip install -U 'avbench[models]'` installs versions that fit together"
        )
        raise InputError(msg) from None


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
