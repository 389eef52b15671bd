"""What decides a number besides the clips? A protocol: frozen, hashed, and compared field by field."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from avbench.core.errors import InputError


def digest(value: object) -> str:
    """sha256 (hex) of `value` written as JSON with sorted keys. Raises TypeError on what JSON cannot hold."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Settings of one feature or metric. Each subclass adds its own fields; every field counts in the hash."""

    name: str
    version: int
    """Raised whenever the code moves a number."""

    def describe(self) -> dict[str, Any]:
        """Every field as a plain value: what is stored beside a number."""
        return dataclasses.asdict(self)

    @property
    def digest(self) -> str:
        """sha256 of `describe()`."""
        return digest(self.describe())


def field_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The fields in which two described protocols differ, each as ``name: ours against theirs``."""
    absent = "(absent)"
    return [
        f"{name}: {ours.get(name, absent)!r} against {theirs.get(name, absent)!r}"
        for name in sorted({*ours, *theirs})
        if ours.get(name, absent) != theirs.get(name, absent)
    ]


def require_same_protocol(ours: Mapping[str, Any], theirs: Mapping[str, Any], what: str) -> None:
    """Raise InputError, naming the fields, where two described protocols differ."""
    if unlike := field_differences(ours, theirs):
        msg = f"{what} were made under unlike protocols and cannot be compared: {'; '.join(unlike)}"
        raise InputError(msg)
