"""Checks the types of what was read against type hints, strictly."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any, TypeVar, get_args, get_type_hints

from avbench.core import nearest
from avbench.storage.reading.files import unreadable

T = TypeVar("T")
_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "mapping_type": "an object",
    "dataclass_type": "an object",
    "model_type": "an object",
}
_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


def shaped_plain(plain: object, shape: type[T], where: str, *, by_user: bool = False) -> T:
    """Convert plain values, as JSON or TOML gives them, to a `shape`.

    Args:
        plain: the values.
        shape: the type that they must have.
        where: the file, for the error message; empty if the caller adds it.
        by_user: whether a person wrote the file: an unknown field is then a slip, and the error names the fields that
            there are. `shape` must be made of dataclasses, tuples and mappings.

    Raises:
        InputError: a field is unknown, missing or of a wrong type; the message names the first.
    """
    return shaped(json.dumps(plain), shape, where, by_user=by_user)


def shaped(content: str | bytes, shape: type[T], where: str, *, known_only: bool = True, by_user: bool = False) -> T:
    """Convert JSON to a `shape`, as `shaped_plain` does. It must be known to be plain; `parsed` checks that first."""
    from pydantic import ValidationError

    try:
        return _adapter(shape).validate_json(content, strict=True, extra="forbid" if known_only else "ignore")
    except ValidationError as error:
        raise unreadable(where, _reason(error, shape if by_user else None)) from None


@functools.cache
def _adapter(shape: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(shape)


def _reason(error: Any, users: type | None) -> str:
    """Describe the first error in words, but an unknown field before others: it may be a missing one, misspelt.

    `users` is the shape of a file that a person wrote.
    """
    found = error.errors(include_url=False, include_context=True)
    first = next((one for one in found if one["type"] in _UNKNOWN), found[0])
    kind, place = first["type"], [str(part) for part in first["loc"]]
    name = ".".join(place)
    if kind == "value_error":  # an InputError's own sentence
        sentence = str(first["ctx"]["error"])
        return f"{name}: {sentence}" if name else sentence
    if kind == "missing":
        return f"the field {name!r} is missing"
    if kind in _UNKNOWN:
        known = nearest(place[-1], _fields(users, first["loc"][:-1])) if users else ""
        return f"the field {name!r} is unknown; {known or 'a later version of avbench may have written it'}"
    shown = f"{name} is" if name else "the whole is"
    found = repr(first["input"])
    rule = f"it must be {_KINDS[kind]}" if kind in _KINDS else first["msg"].replace("Input should", "it should")
    return f"{shown} {found[:80]}{'…' if len(found) > 80 else ''}; {rule}"


def _fields(shape: Any, place: Sequence[str | int]) -> list[str]:
    """The names of the fields of the dataclass at a place inside a shape."""
    for part in place:
        inside = [one for one in get_args(shape) if one is not ...]
        shape = inside[-1] if inside else get_type_hints(shape)[str(part)]
    return [field.name for field in dataclasses.fields(shape)]
