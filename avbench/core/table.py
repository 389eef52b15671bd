"""Imports the object that a table entry ``"module:object"`` names."""

import importlib
from typing import Any


def resolve(entry: str) -> Any:
    """Import the object that ``module:object`` names. Raises ImportError or AttributeError where there is none."""
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)
