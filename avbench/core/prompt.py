"""What is asked of a model: prompts, and the subsets that group them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from avbench.core.clip import ClipSpec
from avbench.core.errors import InputError
from avbench.core.protocol import digest

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")


def checked_id(value: object, what: str) -> str:
    """Return `value` if it can be part of a file name, else raise InputError saying what may stand in it."""
    if not isinstance(value, str) or not _ID.fullmatch(value) or ".." in value:
        msg = f"{what} {value!r} cannot be an id: use up to 120 letters, digits, '.', '_' and '-', no '..'"
        raise InputError(msg)
    return value


@dataclass(frozen=True)
class Prompt:
    """One thing to generate. Raises InputError on an unusable id or an empty caption."""

    id: str
    video_caption: str
    audio_caption: str | None = None
    tags: Mapping[str, Any] = field(default_factory=dict)
    """Anything structured: for toy prompts, the scene and the measured reasons it was chosen."""
    reference_clip: str | None = None
    """Id of a real clip of the same prompt, or None."""

    def __post_init__(self) -> None:
        checked_id(self.id, "prompt id")
        if not isinstance(self.video_caption, str) or not self.video_caption.strip():
            msg = f"prompt {self.id!r} has no video caption"
            raise InputError(msg)
        for name in ("audio_caption", "reference_clip"):
            if not isinstance(getattr(self, name), str | None):
                msg = f"prompt {self.id!r}: {name} is {getattr(self, name)!r}; it must be a text, or left out"
                raise InputError(msg)

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the form that prompts.jsonl holds."""
        return {**vars(self), "tags": dict(self.tags)}


@dataclass(frozen=True)
class Subset:
    """Prompts that belong together, the form of their clips, and a card.

    Raises InputError on no prompts or a repeated id.
    """

    name: str
    version: int
    prompts: tuple[Prompt, ...]
    clip_spec: ClipSpec | None
    """None where clips are taken as they come (an ad-hoc prompts file)."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """Why the subset exists, how each prompt was chosen, licence."""
    cut_from: str | None = None
    """Digest of the whole subset where this is only a part or a view of it."""

    def __post_init__(self) -> None:
        checked_id(self.name, "subset name")
        if not isinstance(self.version, int) or isinstance(self.version, bool) or self.version < 0:
            msg = f"subset {self.name!r}: version is {self.version!r}; it must be a whole number from 0"
            raise InputError(msg)
        if not self.prompts:
            msg = f"subset {self.name!r} has no prompts"
            raise InputError(msg)
        seen: set[str] = set()
        for prompt in self.prompts:
            if prompt.id in seen:
                msg = f"subset {self.name!r} has two prompts with the id {prompt.id!r}"
                raise InputError(msg)
            seen.add(prompt.id)

    @property
    def digest(self) -> str:
        """sha256 over name, version, prompts and clip spec: what goes into every result."""
        plain = self.to_json()
        return digest({name: plain[name] for name in ("name", "version", "clip_spec", "prompts")})

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them back."""
        spec = self.clip_spec.to_json() if self.clip_spec else None
        prompts = [prompt.to_json() for prompt in self.prompts]
        return {**vars(self), "prompts": prompts, "clip_spec": spec, "card": dict(self.card)}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Subset":
        """Read back `to_json`."""
        spec = plain["clip_spec"]
        prompts = tuple(Prompt(**prompt) for prompt in plain["prompts"])
        return cls(**{**plain, "prompts": prompts, "clip_spec": spec and ClipSpec.from_json(spec)})

    @property
    def whole_digest(self) -> str:
        """The digest of the subset that this is, or was cut from."""
        return self.cut_from or self.digest

    def limited(self, count: int | None) -> "Subset":
        """The first `count` prompts only (all for None); its digest differs, so the two are never mixed up."""
        if count is None or count >= len(self.prompts):
            return self
        return replace(self, prompts=self.prompts[:count], cut_from=self.whole_digest)
