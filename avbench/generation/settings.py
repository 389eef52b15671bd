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
    check_counts(**{f"{name}.batch_size": getattr(model, "batch_size", 1)})
    if concurrency := getattr(model, "concurrency", None):
        check_counts(**{f"{name}.concurrency": concurrency})
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


def check_positive(**numbers: Any) -> None:
    """Raise InputError unless every setting is a number above 0."""
    _check_numbers(numbers, lambda number: 0 < number < math.inf, "a number above 0")


def check_counts(**numbers: Any) -> None:
    """Raise InputError unless every setting is a whole number of at least 1."""
    _check_numbers(numbers, lambda number: type(number) is int and number >= 1, "a whole number of at least 1")


def check_finite(**numbers: Any) -> None:
    """Raise InputError unless every setting is a number, neither infinite nor NaN."""
    _check_numbers(numbers, math.isfinite, "a number")


def check_flags(**flags: Any) -> None:
    """Raise InputError unless every setting is true or false: text such as ``no`` would count as true."""
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            msg = f"{name} is {flag!r}; it must be true or false"
            raise InputError(msg)


def check_texts(**texts: Any) -> None:
    """Raise InputError unless every setting is text that is not empty."""
    for name, text in texts.items():
        if not isinstance(text, str) or not text:
            msg = f"{name} is {text!r}; it must be text that is not empty"
            raise InputError(msg)


def _check_numbers(numbers: Mapping[str, Any], fits: Callable[[float], bool], must: str) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not fits(number):
            msg = f"{name} is {number!r}; it must be {must}"
            raise InputError(msg)
