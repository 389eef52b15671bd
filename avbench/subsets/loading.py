"""Stage 1: which prompts are asked? Loads a subset folder or anybody's prompts file, and checks it.

A subset is a folder with prompts.jsonl (one prompt a line: id, video_caption, audio_caption, tags,
reference_clip) and card.toml (name, version, clip_spec, and why it exists). A prompts file may also use the
field's usual names (prompt, caption, text; audio_prompt), and its other fields become tags.
"""

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import tomli_w

from avbench.core import ClipSpec, InputError, Prompt, Subset, nearest
from avbench.storage import shipped
from avbench.storage.clip_files import clips_in, without_suffix
from avbench.storage.media import MEDIA_SUFFIXES
from avbench.storage.reading import parsed, read_bytes, read_toml
from avbench.storage.run_folder import read_subset, write_whole

TOY_SUBSETS = ("toy-large-motion", "toy-object-contact", "toy-control")
"""What `avbench run` uses where no subset is named."""

SPLITS = ("dev", "test")
VIEWS = ("full", "lite", "short", *SPLITS)

CAPTION_CHARACTERS = 20_000
"""Far above any prompt: what is longer is another file in the wrong place."""

_ALIASES = {
    "video_caption": ("video_caption", "prompt", "caption", "text", "prompt_en"),
    "audio_caption": ("audio_caption", "audio_prompt"),
}


def names() -> list[str]:
    """The shipped subsets."""
    return sorted(card.parent.name for card in shipped.folder("subsets").glob("*/card.toml"))


def load(name: str) -> Subset:
    """Load a shipped subset by name, or by path a subset folder, or the .json in which a run folder keeps one.

    Raises:
        InputError: there is none, or a line of it is wrong; the message gives file and line.
    """
    if name.endswith(".json"):
        return read_subset(Path(name))
    folder = Path(name) if "/" in name or Path(name).is_dir() else shipped.folder("subsets") / name
    if not (folder / "card.toml").is_file():
        msg = f"subset {name!r} is unknown; {nearest(name, names())}, or a folder with card.toml and prompts.jsonl"
        raise InputError(msg)
    card = read_toml(folder / "card.toml")
    if missing := [field for field in ("name", "version") if field not in card]:
        msg = f"{folder / 'card.toml'}: the field {missing[0]!r} is missing"
        raise InputError(msg)
    if not isinstance(lite := card.get("lite", []), list) or not all(isinstance(one, str) for one in lite):
        msg = f"{folder / 'card.toml'}: lite is {lite!r}; it must be a list of prompt ids"
        raise InputError(msg)
    prompts = read_prompts(folder / "prompts.jsonl")
    try:
        spec = ClipSpec.from_json(card.pop("clip_spec")) if "clip_spec" in card else None
        return Subset(card.pop("name"), card.pop("version"), prompts, spec, card)
    except InputError as error:
        msg = f"{folder / 'card.toml'}: {error}"
        raise InputError(msg) from None


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
    found = clips_in(folder)
    for path in found.clips:
        stem = without_suffix(path.relative_to(folder))
        identifier = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[-120:] or "clip"
        if identifier in prompts:
            msg = f"{path} and {prompts[identifier].tags['file']} would both be called {identifier!r}; rename one"
            raise InputError(msg)
        prompts[identifier] = Prompt(identifier, stem, tags={"file": str(path.relative_to(folder))})
    if not prompts:
        msg = f"{folder}: no clip in it; suffixes read: {', '.join(MEDIA_SUFFIXES)}"
        raise InputError("; ".join([msg, *found.remark(frames_too=True)]))
    return Subset(
        name or folder.resolve().name, 1, tuple(prompts.values()), None, {"purpose": f"clips of {folder.name}"}
    )


def write(subset: Subset, folder: Path) -> None:
    """Write a subset folder that `load` reads and the linter accepts: prompts.jsonl, and card.toml with its sha256."""
    lines = (json.dumps(prompt.to_json(), ensure_ascii=False) + "\n" for prompt in subset.prompts)
    content = "".join(lines).encode()
    card = {
        "name": subset.name,
        "version": subset.version,
        **subset.card,
        "prompts_sha256": sha256(content).hexdigest(),
    }
    if subset.clip_spec:
        card["clip_spec"] = subset.clip_spec.to_json()
    known = {name: _without_none(value) if isinstance(value, Mapping) else value for name, value in card.items()}
    write_whole(folder / "prompts.jsonl", content)
    write_whole(folder / "card.toml", tomli_w.dumps(known).encode())


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no word for nothing: what is not set is left out."""
    return {name: value for name, value in table.items() if value is not None}


def viewed(subset: Subset, view: str) -> Subset:
    """A view of a subset: other prompts or captions, so another digest; `cut_from` keeps the whole one's.

    ``full`` is all of it; ``lite`` the prompts that the card lists; ``short`` all of it with the tag `short_caption` as
    the video caption; ``dev`` and ``test`` the two sides of the tag `split`; ``tag=value`` the prompts tagged so.

    Raises:
        InputError: there is no such view, or the subset has nothing to show in it.
    """
    if view == "full":
        return subset
    if view == "lite":
        listed = subset.card.get("lite", ())  # a run folder keeps a card as it was
        prompts = [prompt for prompt in subset.prompts if isinstance(listed, list | tuple) and prompt.id in listed]
    elif view == "short":
        shorts = [(prompt, prompt.tags.get("short_caption")) for prompt in subset.prompts]
        prompts = [replace(prompt, video_caption=short) for prompt, short in shorts if short]
    elif view in SPLITS or "=" in view:
        tag, _, value = view.rpartition("=")
        prompts = [prompt for prompt in subset.prompts if str(prompt.tags.get(tag or "split")) == value]
    else:
        msg = f"view {view!r} is unknown; {nearest(view, VIEWS)}, or tag=value"
        raise InputError(msg)
    if not prompts:
        msg = f"subset {subset.name!r} has no prompts in the view {view!r}"
        raise InputError(msg)
    return replace(subset, prompts=tuple(prompts), cut_from=subset.whole_digest)


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """Read a prompts.jsonl. Raises InputError with file and line number on anything wrong in it."""
    prompts = []
    for number, prompt in each_line(path):
        if isinstance(prompt, InputError):
            msg = f"{path}, line {number}: {prompt}"
            raise InputError(msg)
        prompts.append(prompt)
    if not prompts:
        msg = f"{path}: no prompts in it"
        raise InputError(msg)
    return tuple(prompts)


def each_line(path: Path) -> Iterator[tuple[int, Prompt | InputError]]:
    """The lines of a prompts.jsonl that are not empty: number, counted from 1, and its prompt or what is wrong with it.

    Raises:
        InputError: the file cannot be read.
    """
    lines = read_bytes(path).removeprefix(codecs.BOM_UTF8).split(b"\n")
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            prompt = _prompt(parsed(line, "", nan_as_none=True))
            if prompt.id in seen:
                msg = f"the id {prompt.id!r} occurs twice; first in line {seen[prompt.id]}"
                raise InputError(msg)
        except InputError as error:
            yield number, error
            continue
        seen[prompt.id] = number
        yield number, prompt


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
    if not found or found[0] is None:
        return None
    if not isinstance(found[0], str):
        msg = f"{aliases[0]} is {found[0]!r}; it must be text"
        raise InputError(msg)
    if len(found[0]) > CAPTION_CHARACTERS:
        msg = f"{aliases[0]} has {len(found[0]):,} characters; at most {CAPTION_CHARACTERS:,} can be a caption"
        raise InputError(msg)
    return found[0]
