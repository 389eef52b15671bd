"""How is a row of a literal table found? ``"module:object"`` becomes the object, imported when asked for."""

import importlib
from typing import Any


def resolve(place: str) -> Any:
    """The object that ``module:object`` names. Raises ImportError or AttributeError where there is none."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
