"""Defines a protocol: the values that decide a number besides the clips, hashed, and notes for people, not hashed.

A value is a number, a hash or a short identifier, such as ``"bicubic"``: at most three words. A note explains a value
in a sentence, under the value's name. Rewording a note changes no digest and invalidates no number:

    @dataclass(frozen=True)
    class OnsetProtocol(Protocol):
        name: str = "onsets"
        version: int = 1
        mono: str = "mean"
        notes: Notes = noted(mono="The channels are averaged.")
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from avbench.core.errors import InputError


def digest(value: object) -> str:
    """sha256 (hex) of `value` written as JSON with sorted keys.

    Raises TypeError on what JSON cannot hold, ValueError on NaN and infinity, and InputError on text that UTF-8 cannot
    encode, such as a path with bytes of another encoding.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        return hashlib.sha256(text.encode()).hexdigest()
    except UnicodeEncodeError as error:
        wrong = text[text.rindex('"', 0, error.start) + 1 : text.index('"', error.end)]
        msg = f"{wrong!a} cannot be written into results, because it is not UTF-8; rename it"
        raise InputError(msg) from None


Notes = Mapping[str, str]
"""Name of a value, or of another subject such as ``source`` → an explanation for people."""


def noted(**sentences: str) -> Any:
    """The default of the field `notes` in a subclass of Protocol: a sentence for each name."""
    return dataclasses.field(default_factory=lambda: dict(sentences), kw_only=True, compare=False)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Settings of one feature or metric. Each subclass adds its own fields; every field but `notes` is hashed."""

    name: str
    version: int
    """Raised whenever a change of the code changes a number."""
    package: str | None = dataclasses.field(default=None, kw_only=True)
    """Name and version of the package outside avbench that defines it, such as ``loudness 0.1``. avbench's own
    protocols do not have this field."""
    notes: Notes = dataclasses.field(default_factory=dict, kw_only=True, compare=False)

    def values(self) -> dict[str, Any]:
        """Every hashed field as a plain value."""
        plain = json.loads(json.dumps(dataclasses.asdict(self)))  # as it is stored: lists, no tuples
        own = ("notes",) if self.package else ("notes", "package")
        return {name: value for name, value in plain.items() if name not in own}

    def describe(self) -> dict[str, Any]:
        """What is stored beside a number: the values, and any notes under ``notes``."""
        return self.values() | ({"notes": dict(self.notes)} if self.notes else {})

    @property
    def digest(self) -> str:
        """sha256 of `values()`."""
        return digest(self.values())

    @property
    def folder_name(self) -> str:
        """See the function `folder_name`."""
        return folder_name(self.values())


def folder_name(described: Mapping[str, Any]) -> str:
    """Name of the folders that hold what was measured by a protocol, of what `describe` returns."""
    values = {name: value for name, value in described.items() if name != "notes"}
    return f"{values['name']}@{digest(values)[:12]}"


def features_in(described: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The described protocols of the features that a score of this described protocol came from."""
    return [one for one in (described.get("feature"), described.get("beside")) if isinstance(one, Mapping)]


def without_notes(described: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the notes from a described protocol, or from a mapping of several; the rest is hashed and compared."""
    return {
        name: without_notes(value) if isinstance(value, Mapping) else value
        for name, value in described.items()
        if name != "notes"
    }


OTHER_CONTENT = "other content"
_IDENTIFIED = (
    (r"(?:settings\.)?source_sha256", "the model's code"),
    (r"(?:settings\.)?imports_sha256\.(.+)", r"\1, which the model's code imports"),
    (r"(?:settings\.)?files_sha256\.(.+)", r"the file \1"),
    (r"(?:settings\.)?inputs\.(.+)\.sha256", r"the file or folder \1"),
    (r"(?:settings\.)?folders\.(.+)\.sha256", r"the folder \1"),
    (r"(?:settings\.)?weights\.sha256", "the model's files"),
    (r"(?:settings\.)?weights\.(.+)\.sha256", r"the model's files (\1)"),
    (r"subsets\.(.+)", r"the prompts of \1"),
    (r"subset\.digest", "the prompts"),
    (r"reference\..+", "the reference"),
    (r"(?:.+\.)?reference_clips", "the reference clips"),
    (r"(?:.+\.)?weights_sha256", "the network's weights"),
    (r"(?:.+\.)?([a-z]+)_sha256", r"the network's \1"),
    (r"(.+)", r"\1"),
)
"""Names of fields that hold hashes, and what these identify."""


def field_differences(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    said: Callable[[str, str], str] = "{} against {}".format,
) -> list[str]:
    """The fields in which two plain mappings differ, each as ``name: ours against theirs``.

    Of files that are known by hashes only, it says in words which has other content.

    Args:
        ours: one mapping.
        theirs: the other.
        said: makes words of the two values. They must say whose each value is, unless the sentence around them names
            both owners in this order.
    """
    differing = different_fields(ours, theirs)
    hashed = {name for name, values in differing.items() if any(map(is_sha256, values))}
    beside = {f"{name.removesuffix('.sha256')}.{other}" for name in hashed for other in ("bytes", "files", "hashed")}
    found = []
    for name, (one, other) in differing.items():
        if name in hashed:
            both = is_sha256(one) and is_sha256(other)
            found.append(f"{field_in_words(name)}: {OTHER_CONTENT if both else 'in one of the two only'}")
        elif name not in beside:
            found.append(f"{name}: {said(repr(one), repr(other))}")
    return found


def is_sha256(value: object) -> bool:
    """Whether a value is a sha256 in hex."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def field_in_words(name: str) -> str:
    """What a field that holds a hash identifies."""
    return next(found.expand(words) for pattern, words in _IDENTIFIED if (found := re.fullmatch(pattern, name)))


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


def require_same_protocol(ours: Mapping[str, Any], theirs: Mapping[str, Any], what: str, remedy: str = "") -> None:
    """Raise InputError, naming the fields and the remedy, where the values of two described protocols differ."""
    if differing := field_differences(without_notes(ours), without_notes(theirs)):
        why = "; ".join([*differing, remedy] if remedy else differing)
        msg = f"{what} were made under different protocols and cannot be compared: {why}"
        raise InputError(msg)
