"""Defines `Protocol`: everything besides the clips that decides a number, hashed and compared field by field."""

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
        """Return every field as a plain value. This is what is stored with a number."""
        return dataclasses.asdict(self)

    @property
    def digest(self) -> str:
        """sha256 of `describe()`."""
        return digest(self.describe())


def field_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """List the fields in which two described protocols differ, each as ``name: ours against theirs``."""
    return [f"{name}: {one!r} against {other!r}" for name, (one, other) in different_fields(ours, theirs).items()]


def different_fields(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Map each field that differs to both values. A nested field is named ``outer.inner``."""
    one, other = _flat(ours), _flat(theirs)
    absent = "(absent)"
    names = sorted({*one, *other})
    return {
        name: (one.get(name, absent), other.get(name, absent))
        for name in names
        if one.get(name, absent) != other.get(name, absent)
    }


def _flat(plain: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in plain.items():
        inner = isinstance(value, Mapping) and value
        flat |= _flat(value, f"{within}{name}.") if inner else {f"{within}{name}": value}
    return flat


def require_same_protocol(ours: Mapping[str, Any], theirs: Mapping[str, Any], what: str) -> None:
    """Raise InputError, naming the fields, where two described protocols differ."""
    if unlike := field_differences(ours, theirs):
        msg = f"{what} were made under different protocols and cannot be compared: {'; '.join(unlike)}"
        raise InputError(msg)
