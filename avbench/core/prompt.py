"""Defines `Prompt`, what a model is prompted with, and `Subset`, a named and versioned group of prompts."""

import datetime
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.core.clip import ClipSpec
from avbench.core.errors import InputError, shown
from avbench.core.protocol import digest
from avbench.core.text import is_unicode

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")


def checked_id(value: object, what: str) -> str:
    """Return `value` if it can be part of a file name, else raise InputError with the allowed characters."""
    if not isinstance(value, str) or not _ID.fullmatch(value) or ".." in value:
        may = "up to 120 letters of A to Z and a to z, digits, '.', '_' and '-', without '..'"
        msg = f"{what} {value!r} cannot be an id: use {may}"
        raise InputError(msg)
    return value


LONGEST_NAME = 120
"""Bytes of the name of a model or a run in UTF-8, at most."""


def checked_name(value: object, what: str) -> str:
    """Return the name of a model or a run if it can be that of a folder, in composed Unicode (NFC).

    Unlike an id it may have the letters and digits of every alphabet. Raises InputError with what is allowed.
    """
    name = unicodedata.normalize("NFC", value) if isinstance(value, str) else ""
    plain = name[:1].isalnum() and all(of_a_name(letter) for letter in name) and ".." not in name
    if not plain or len(name.encode()) > LONGEST_NAME:
        msg = (
            f"{what} {value!r} cannot be a name: use letters, digits, '.', '_' and '-', without '..'; begin with "
            f"a letter or digit, and take at most {LONGEST_NAME} bytes"
        )
        raise InputError(msg)
    return name


def of_a_name(letter: str) -> bool:
    """Whether a name can have this letter: of any alphabet, with its accents, a digit, or one of ``._-``."""
    return letter.isalnum() or letter in "._-" or unicodedata.category(letter)[0] == "M"


_MISSING = ("NAType", "NaTType")
"""Types that pandas uses for missing values, besides NaN."""
_DEEPEST = 20


def _plain(value: Any, what: str, depth: int = 0) -> Any:
    """Convert `value` to plain JSON values. Raises InputError naming what JSON cannot hold.

    NaN, which pandas uses for missing values, becomes None; numpy numbers become Python numbers, and dates text.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if type(value).__name__ in _MISSING or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if depth > _DEEPEST:
        msg = f"{what} is nested more than {_DEEPEST} deep"
        raise InputError(msg)
    if isinstance(value, Mapping):
        return {_text(name, what): _plain(one, what, depth + 1) for name, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(one, what, depth + 1) for one in value]
    if isinstance(value, str):
        return _text(value, what)
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    shown = f"{str(value)[:60]}, a {type(value).__name__}"
    msg = f"{what} is {shown}; it must be text, a finite number, true, false, or a list of these"
    raise InputError(msg)


def _text(value: object, what: str) -> str:
    """Return `value` if it is text that UTF-8 can encode, else raise InputError."""
    if not isinstance(value, str):
        msg = f"{what} has the name {value!r}; names must be text"
        raise InputError(msg)
    if not is_unicode(value):
        msg = f"{what} is {value[:60]!a}, which holds half a character (a lone surrogate)"
        raise InputError(msg)
    return value


@dataclass(frozen=True)
class Prompt:
    """One clip to generate. A NaN field, as pandas writes missing values, counts as absent.

    Raises InputError on an invalid id, an empty video caption, or a tag that JSON cannot hold.
    """

    id: str
    video_caption: str
    audio_caption: str | None = None
    tags: Mapping[str, Any] = field(default_factory=dict)
    """Any JSON values: for toy prompts, the scene and the measurements by which it was chosen."""
    reference_clip: str | None = None
    """Name of a real clip of the same prompt: its path in a folder of real clips, with or without suffix; or None."""

    def __post_init__(self) -> None:
        checked_id(self.id, "prompt id")
        if not isinstance(self.tags, Mapping):
            msg = f"the tags of prompt {self.id!r} are {self.tags!r}; they must be an object"
            raise InputError(msg)
        whose = f"of prompt {self.id!r}"
        for name in ("video_caption", "audio_caption", "reference_clip"):
            text = _plain(getattr(self, name), f"the {name} {whose}")
            if text is not None and not isinstance(text, str):
                msg = f"the {name} {whose} is {text!r}; it must be text"
                raise InputError(msg)
            if text is not None and "\0" in text:
                msg = f"the {name} {whose} is {text[:40]!r}, with NUL characters: is its file UTF-16? Save it as UTF-8"
                raise InputError(msg)
            object.__setattr__(self, name, text)
        tags = {
            _text(name, f"a tag {whose}"): _plain(value, f"the tag {name!r} {whose}")
            for name, value in self.tags.items()
        }
        object.__setattr__(self, "tags", tags)
        if not (self.video_caption or "").strip():
            msg = f"prompt {self.id!r} has no video caption"
            raise InputError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: the fields of one line of prompts.jsonl."""
        return {**vars(self), "tags": dict(self.tags)}


@dataclass(frozen=True)
class Subset:
    """Prompts that belong together, the spec of their clips, and a card.

    Raises InputError on no prompts, a repeated id, or an invalid version or card.
    """

    name: str
    version: int
    prompts: tuple[Prompt, ...]
    clip_spec: ClipSpec | None
    """None where clips of any size, length and rate are accepted (an ad-hoc prompts file)."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """The purpose of the subset, how its prompts were chosen, and its licence."""
    cut_from: str | None = None
    """Digest of the whole subset, if this is only a part or a view of it."""

    if TYPE_CHECKING:  # prompts are given in more ways than they are kept

        def __init__(
            self,
            name: str,
            version: int,
            prompts: Iterable[Prompt],
            clip_spec: ClipSpec | None,
            card: Mapping[str, Any] = ...,
            cut_from: str | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        checked_id(self.name, "subset name")
        if not isinstance(self.version, int) or isinstance(self.version, bool) or self.version < 0:
            msg = f"the version of subset {self.name!r} is {self.version!r}; it must be a whole number from 0"
            raise InputError(msg)
        if not isinstance(self.card, Mapping):
            msg = f"the card of subset {self.name!r} is {self.card!r}; it must be an object"
            raise InputError(msg)
        object.__setattr__(self, "card", _plain(self.card, f"the card of subset {self.name!r}"))
        object.__setattr__(
            self, "prompts", tuple(self.prompts) if isinstance(self.prompts, Iterable) else (self.prompts,)
        )
        if self.clip_spec is not None and not isinstance(self.clip_spec, ClipSpec):
            msg = f"the clip spec of subset {self.name!r} is {shown(self.clip_spec)}; it must be a ClipSpec or None"
            raise InputError(msg)
        if not self.prompts:
            msg = f"subset {self.name!r} has no prompts"
            raise InputError(msg)
        seen: set[str] = set()
        for prompt in self.prompts:
            if not isinstance(prompt, Prompt):
                msg = (
                    f"subset {self.name!r} has {shown(prompt)} among its prompts; each must be a Prompt, as in "
                    "Prompt('cat', 'a cat walks')"
                )
                raise InputError(msg)
            if prompt.id in seen:
                msg = f"subset {self.name!r} has two prompts with the id {prompt.id!r}"
                raise InputError(msg)
            seen.add(prompt.id)

    @property
    def digest(self) -> str:
        """sha256 (hex) over name, version, prompts and clip spec; it is stored with every result."""
        return digest(self._hashed())

    def _hashed(self) -> dict[str, Any]:
        plain = self.to_json()
        return {name: plain[name] for name in ("name", "version", "clip_spec", "prompts")}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, as in a subset file of a run folder."""
        spec = self.clip_spec.to_json() if self.clip_spec else None
        prompts = [prompt.to_json() for prompt in self.prompts]
        return {**vars(self), "prompts": prompts, "clip_spec": spec, "card": dict(self.card)}

    @property
    def whole_digest(self) -> str:
        """Digest of the whole subset that this was cut from, or its own digest."""
        return self.cut_from or self.digest

    def limited(self, count: int | None) -> "Subset":
        """Return the subset of the first `count` prompts (all for None). A shorter one has a digest of its own."""
        if count is None or count >= len(self.prompts):
            return self
        return replace(self, prompts=self.prompts[:count], cut_from=self.whole_digest)

    def begins_with(self, part: "Subset") -> bool:
        """Whether a subset is this one, or its first prompts."""
        return self.limited(len(part.prompts)).digest == part.digest

    def beginning(self, sha256: str) -> "Subset | None":
        """The subset with this digest: this one, or as many of its first prompts as it has; None if there is none."""
        plain = self._hashed()
        for count in range(len(self.prompts), 0, -1):
            if digest({**plain, "prompts": plain["prompts"][:count]}) == sha256:
                return self.limited(count)
        return None
