"""Checks the settings of generators, and fills captions into their templates."""

import inspect
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any

from avbench.core import InputError, first_line, nearest
from avbench.storage.reading import parsed

_OF_PYTHON = {"True": True, "False": False, "None": None}


def typed(text: str, name: str = "") -> Any:
    """The value of a typed setting: JSON, or Python's True, False or None, is read as such; other text stays text."""
    try:
        return _OF_PYTHON[text] if text in _OF_PYTHON else parsed(text.encode(errors="surrogateescape"), f"-M {name}")
    except InputError:
        return text


def check_settings(
    kind: Callable, settings: Iterable[str], who: str, avbenchs: Collection[str] = ("target", "journal")
) -> list[str]:
    """Check settings against the parameters of a class.

    Args:
        kind: the class.
        settings: their names.
        who: the model, for the error message.
        avbenchs: parameters that avbench gives itself, which are no settings.

    Returns:
        The names of the parameters that can be given by name.

    Raises:
        InputError: a setting is none of them.
    """
    every = inspect.signature(kind).parameters.values()
    parameters = [one.name for one in every if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    groups = getattr(kind, "setting_groups", ())
    known = [name for name in parameters if name not in avbenchs]
    known += [each.name for group in groups for each in fields(group)]
    open_ended = not groups and any(one.kind is one.VAR_KEYWORD for one in every)
    for setting in settings:
        if setting not in known and not (open_ended and setting not in parameters):
            msg = f"{who} has no setting {setting!r}; {nearest(setting, known)}"
            raise InputError(msg)
    return parameters


def check_attributes(model: Any, name: str) -> None:
    """Raise InputError unless what a generator of others says of itself can be used, and its settings be recorded."""
    counts = {f"{name}.batch_size": getattr(model, "batch_size", 1)}
    if concurrency := getattr(model, "concurrency", None):
        counts[f"{name}.concurrency"] = concurrency
    check_kinds(counts, counts=counts)
    check_recordable(getattr(model, "settings", {}), f"{name}.settings")


def check_recordable(settings: Any, what: str) -> None:
    """Raise InputError unless settings can be recorded."""
    try:
        json.dumps(settings, allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"{what} cannot be recorded as JSON ({first_line(error)}); give numbers, text, lists and dicts of them"
        raise InputError(msg) from None
    if not isinstance(settings, Mapping):
        msg = f"{what} is {settings!r}; it must be a dict of names and values"
        raise InputError(msg)


def grouped(settings: Mapping[str, Any], *groups: type) -> list[Any]:
    """Build dataclasses of flat settings: each takes those that it has a field for.

    Raises:
        TypeError: a setting is a field of none.
    """
    taken = [{each.name for each in fields(group)} for group in groups]
    if unknown := settings.keys() - set().union(*taken):
        msg = f"unexpected settings: {', '.join(sorted(unknown))}"
        raise TypeError(msg)
    return [
        group(**{name: value for name, value in settings.items() if name in names})
        for group, names in zip(groups, taken, strict=True)
    ]


def captioned(template: str, video: str, audio: str, setting: str) -> str:
    """Fill the captions into a template. Raises InputError that names the setting if it has other fields."""
    try:
        return template.format(video=video, audio=audio).strip()
    except (LookupError, ValueError, AttributeError) as error:
        msg = f"-M {setting}={template} cannot be filled in ({error!r}); its fields may be {{video}} and {{audio}}"
        raise InputError(msg) from None


def check_template(template: str, setting: str) -> None:
    """Raise InputError if a template of captions has another field, or none: then all prompts would be the same."""
    if captioned(template, "a", "a", setting) == captioned(template, "b", "b", setting):
        msg = f"-M {setting}={template} has no {{video}} or {{audio}}, so every prompt would be the same"
        raise InputError(msg)


def check_kinds(settings: Mapping[str, Any], **named: Iterable[str]) -> None:
    """Raise InputError unless every setting has its kind.

    Args:
        settings: those that were given; names of others count for nothing.
        **named: kind, as in _KINDS → names of settings.
    """
    for kind, names in named.items():
        fits, must = _KINDS[kind]
        for name in names:
            if name in settings and not fits(settings[name]):
                msg = f"{name} is {settings[name]!r}; it must be {must}"
                raise InputError(msg)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "counts": (lambda one: type(one) is int and one >= 1, "a whole number of at least 1"),
    "positive": (lambda one: _is_number(one) and one > 0, "a number above 0"),
    "weights": (lambda one: _is_number(one) and one >= 0, "0 or a number above it"),
    "shares": (lambda one: _is_number(one) and 0 <= one <= 1, "between 0 and 1"),
    "numbers": (_is_number, "a number"),
    "flags": (lambda one: isinstance(one, bool), "true or false"),  # text such as `no` would count as true
    "names": (lambda one: isinstance(one, str) and one != "", "text that is not empty"),
    "captions": (lambda one: isinstance(one, str), "text"),
    "objects": (lambda one: isinstance(one, Mapping), "an object of names and values"),
}
"""Kind of a setting → whether a value is of it, and how to say what it must be."""
