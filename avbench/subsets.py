"""Stage 1: which prompts are asked? Loads a subset folder or anybody's prompts file, and checks it.

A subset is a folder with prompts.jsonl (one prompt a line: id, video_caption, audio_caption, tags,
reference_clip) and card.toml (name, version, clip_spec, and why it exists). A prompts file may also use the
field's usual names (prompt, caption, text; audio_prompt), and its other fields become tags.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avbench import shipped
from avbench.core import ClipSpec, InputError, Prompt, Subset, nearest
from avbench.media import MEDIA_SUFFIXES

TOY_SUBSETS = ("toy-large-motion", "toy-object-contact", "toy-control")
"""What `avbench run` uses where no subset is named."""

_ALIASES = {
    "video_caption": ("video_caption", "prompt", "caption", "text", "prompt_en"),
    "audio_caption": ("audio_caption", "audio_prompt"),
}


def names() -> list[str]:
    """The shipped subsets."""
    return sorted(card.parent.name for card in shipped.folder("subsets").glob("*/card.toml"))


def load(name: str) -> Subset:
    """Load a shipped subset by name, or a subset folder by path.

    Raises:
        InputError: there is none, or a line of it is wrong; the message gives file and line.
    """
    folder = Path(name) if "/" in name or Path(name).is_dir() else shipped.folder("subsets") / name
    if not (folder / "card.toml").is_file():
        msg = f"subset {name!r} is unknown; {nearest(name, names())}, or a folder with card.toml and prompts.jsonl"
        raise InputError(msg)
    try:
        card = tomllib.loads((folder / "card.toml").read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{folder / 'card.toml'}: {error}"
        raise InputError(msg) from None
    if missing := [field for field in ("name", "version") if field not in card]:
        msg = f"{folder / 'card.toml'}: the field {missing[0]!r} is missing"
        raise InputError(msg)
    spec = ClipSpec.from_json(card.pop("clip_spec")) if "clip_spec" in card else None
    prompts = read_prompts(folder / "prompts.jsonl")
    return Subset(card.pop("name"), card.pop("version"), prompts, spec, card)


def from_prompts_file(path: Path) -> Subset:
    """Make an ad-hoc subset, named after its file, of anybody's prompts; clips are then taken as they come."""
    name = path.parent.name if path.stem == "prompts" else path.stem
    return Subset(name or path.stem, 1, read_prompts(path), None, {"purpose": f"prompts of {path.name}"})


def from_folder(folder: Path, name: str | None = None) -> Subset:
    """Make an ad-hoc subset of a folder of clips without prompts: each clip is a prompt of its own, named by its path.

    Raises:
        InputError: there is no clip in it, or two have names that come to one id.
    """
    prompts: dict[str, Prompt] = {}
    for path in sorted(folder.rglob("[!.]*")):
        if not path.is_file() or path.suffix.lower() not in MEDIA_SUFFIXES:
            continue
        stem = path.relative_to(folder).as_posix().removesuffix(path.suffix)
        identifier = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[-120:] or "clip"
        if identifier in prompts:
            msg = f"{path} and {prompts[identifier].tags['file']} would both be called {identifier!r}; rename one"
            raise InputError(msg)
        prompts[identifier] = Prompt(identifier, stem, tags={"file": str(path.relative_to(folder))})
    if not prompts:
        msg = f"{folder}: no clip in it; suffixes read: {', '.join(MEDIA_SUFFIXES)}"
        raise InputError(msg)
    return Subset(
        name or folder.resolve().name, 1, tuple(prompts.values()), None, {"purpose": f"clips of {folder.name}"}
    )


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """Read a prompts.jsonl. Raises InputError with file and line number on anything wrong in it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read as UTF-8 text: {error}"
        raise InputError(msg) from None
    prompts: dict[str, Prompt] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            prompt = _prompt(json.loads(line))
            if prompt.id in prompts:
                msg = f"the id {prompt.id!r} occurs twice"
                raise InputError(msg)
        except ValueError as error:  # of JSON or of what is in it
            msg = f"{path}, line {number}: {error}"
            raise InputError(msg) from None
        prompts[prompt.id] = prompt
    if not prompts:
        msg = f"{path}: no prompts in it"
        raise InputError(msg)
    return tuple(prompts.values())


def _prompt(plain: Any) -> Prompt:
    if not isinstance(plain, Mapping):
        msg = "a prompt must be a JSON object"
        raise InputError(msg)
    rest = dict(plain)
    if "id" not in rest:
        msg = "the field 'id' is missing"
        raise InputError(msg)
    captions = {field: _first(rest, aliases) for field, aliases in _ALIASES.items()}
    if captions["video_caption"] is None:
        msg = f"no video caption; name it one of {', '.join(_ALIASES['video_caption'])}"
        raise InputError(msg)
    identifier, reference, tags = rest.pop("id"), rest.pop("reference_clip", None), rest.pop("tags", {})
    if not isinstance(tags, Mapping):
        msg = f"tags are {tags!r}; they must be an object"
        raise InputError(msg)
    return Prompt(identifier, captions["video_caption"] or "", captions["audio_caption"], {**rest, **tags}, reference)


def _first(rest: dict[str, Any], aliases: tuple[str, ...]) -> str | None:
    found = [rest.pop(alias) for alias in aliases if alias in rest]
    if found and not (found[0] is None or isinstance(found[0], str)):
        msg = f"{aliases[0]} is {found[0]!r}; it must be text"
        raise InputError(msg)
    return found[0] if found else None
