"""Checks the types of what was read against type hints, strictly."""

import functools
from typing import Any, TypeVar

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


def shaped(content: str | bytes, shape: type[T], where: str, *, known_only: bool = True) -> T:
    """Convert JSON to a `shape`. Raises InputError naming the first field that is missing, unknown or of a wrong type.

    The content must already be known to be plain JSON; `parsed` checks that first.
    """
    from pydantic import ValidationError

    try:
        return _adapter(shape).validate_json(content, strict=True, extra="forbid" if known_only else "ignore")
    except ValidationError as error:
        raise unreadable(where, _reason(error)) from None


@functools.cache
def _adapter(shape: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(shape)


def _reason(error: Any) -> str:
    """Describe the first error in words."""
    first = error.errors(include_url=False, include_context=True)[0]
    kind, place = first["type"], [str(part) for part in first["loc"]]
    name = ".".join(place)
    if kind == "value_error":  # an InputError's own sentence
        sentence = str(first["ctx"]["error"])
        return f"{name}: {sentence}" if name else sentence
    if kind == "missing":
        return f"the field {name!r} is missing"
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"the field {name!r} is unknown; a later version of avbench may have written it"
    shown = f"{name} is" if name else "the whole is"
    found = repr(first["input"])
    rule = f"it must be {_KINDS[kind]}" if kind in _KINDS else first["msg"].replace("Input should", "it should")
    return f"{shown} {found[:80]}{'…' if len(found) > 80 else ''}; {rule}"
