"""Loads and writes subsets, takes views of them, and makes subsets of prompts files and of folders of clips.

A subset is a folder with prompts.jsonl (one prompt per line: id, video_caption, audio_caption, tags, reference_clip)
and card.toml (name, version, clip_spec and purpose). prompt_files.py reads the other forms of prompts files.
"""

import codecs
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import tomli_w

from avbench.core import (
    ClipSpec,
    InputError,
    Prompt,
    Subset,
    all_of,
    checked_id,
    counted,
    different_fields,
    listed,
    nearest,
)
from avbench.storage import shipped
from avbench.storage.media.clip_files import clips_in, mark_of, without_suffix
from avbench.storage.plug_ins import Found, find
from avbench.storage.reading import exists, read_bytes, read_toml
from avbench.storage.runs.folder import read_subset
from avbench.storage.writing import write_whole
from avbench.subsets.prompt_files import read_any, read_prompts

TOY_SUBSETS = ("toy-large-motion", "toy-object-contact", "toy-control")
"""The subsets that `avbench run` uses if none is given."""

SPLITS = ("dev", "test")
VIEWS = ("full", "lite", "short", *SPLITS)


def names() -> list[str]:
    """The names of the shipped subsets."""
    return sorted(card.parent.name for card in shipped.folder("subsets").glob("*/card.toml"))


def plug_ins() -> Found:
    """The subsets of other packages."""
    return find("avbench.subsets", names())


def folder_of(name: str) -> Path:
    """The folder of a subset: a path as it is, else that of the shipped subset or of another package's of this name.

    Raises:
        InputError: there is none, or the package that adds it cannot be used.
    """
    if not name:
        msg = "a subset is empty; write . for the current folder"
        raise InputError(msg)
    outside = plug_ins()
    plug_in = None if _is_path(name) else outside.usable.get(name)
    if plug_in is not None:
        folder = Path(plug_in.load((str, Path)))
        if not (folder / "card.toml").is_file():
            raise InputError(plug_in.unusable(f"{folder} is no subset folder: it has no card.toml"))
        return folder
    folder = Path(name) if _is_path(name) else shipped.folder("subsets") / name
    if not folder.is_dir():
        raise InputError(outside.problems.get(name) or _unknown(name))
    return folder


def _unknown(name: str) -> str:
    if exists(Path(name)):
        return f"{name} is a file and no subset; prompts (--prompts) of run, sample and score takes a file of prompts"
    choices = nearest(name, [*names(), *plug_ins().usable])
    gone = f"; there is no folder {name}" if _is_path(name) else ""
    return f"subset {name!r} is unknown; {choices}, or a folder with card.toml and prompts.jsonl{gone}"


def _is_path(name: str) -> bool:
    return "/" in name or (exists(Path(name)) and Path(name).is_dir())


def load(name: str) -> Subset:
    """Load a subset by name, from its folder, or from the .json file of a run folder.

    Raises:
        InputError: the subset does not exist, or a line of it is wrong; the message gives file and line.
    """
    if name.endswith(".json") and not _is_list(Path(name)):
        return read_subset(Path(name))
    folder, plug_in = folder_of(name), None if _is_path(name) else plug_ins().usable.get(name)
    if plug_in is None:
        return load_folder(folder)
    try:
        found = load_folder(folder)
    except InputError as error:
        raise InputError(plug_in.unusable(str(error))) from error
    if found.name != name:
        raise InputError(plug_in.unusable(f"its card calls it {found.name!r}"))
    return replace(found, card={**found.card, "package": plug_in.package})


def load_any(what: str) -> Subset:
    """Load a subset as `load` does, or make one of a prompts file. Raises InputError as `load` and `read_any` do."""
    path = Path(what)
    if not (exists(path) and path.is_file()):
        return load(what)
    return load(what) if path.suffix == ".json" and not _is_list(path) else from_prompts_file(path)


def _is_list(path: Path) -> bool:
    """Whether a .json file holds a list, as prompts files do and the subset of a run does not."""
    return read_bytes(path).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def load_folder(folder: Path) -> Subset:
    """Load a subset from its folder. Raises InputError as `load` does."""
    if not (folder / "card.toml").is_file():
        msg = f"{folder} is no subset folder: it has no card.toml"
        if (prompts := folder / "prompts.jsonl").is_file():
            msg += f"; prompts (--prompts {prompts}) takes its prompts"
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
    """Make a subset of any prompts file, named after it; it has no clip spec, so clips are used as they are.

    Raises:
        InputError: see `prompt_files.read_any`.
    """
    name = path.parent.resolve().name if path.stem == "prompts" else path.stem  # however the path is written
    return Subset(_as_id(name or path.stem), 1, read_any(path), None, {"purpose": f"prompts of {path.name}"})


def _as_id(text: str) -> str:
    """The text itself, or, where it cannot be an id, as of ``-dash`` and ``my clips``, the id that is nearest to it."""
    try:
        return checked_id(text, "name")
    except InputError:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")
        mark = mark_of(text, cut=len(plain) > 120)
        return (plain[-120 + len(mark) :].lstrip("-_") or "clip") + mark


def from_folder(folder: Path, name: str | None = None, *, frames: bool = False) -> Subset:
    """Make a subset of a folder of clips without prompts: each clip becomes a prompt, named by its path.

    Args:
        folder: the folder.
        name: the subset's name; the folder's where not given.
        frames: whether folders of numbered frames count as clips; they have no frame rate of their own.

    Raises:
        InputError: the folder holds no clip, or the names of two clips give the same id.
    """
    prompts: dict[str, Prompt] = {}
    found = clips_in(folder)
    for path in sorted((*found.clips, *found.frames)) if frames else found.clips:
        stem = without_suffix(path.relative_to(folder))
        identifier = _as_id(stem)
        if identifier in prompts:
            msg = f"{path} and {prompts[identifier].tags['file']} would both have the id {identifier!r}; rename one"
            raise InputError(msg)
        prompts[identifier] = Prompt(identifier, stem, tags={"file": str(path.relative_to(folder))})
    if not prompts:
        raise found.nothing(frames_too=True)
    made_name = name or _as_id(folder.resolve().name)
    return Subset(made_name, 1, tuple(prompts.values()), None, {"purpose": f"clips of {folder.name}"})


def write(subset: Subset, folder: Path) -> None:
    """Write a subset folder that `load` reads and the linter accepts: prompts.jsonl, and card.toml with its sha256."""
    for name, content in _files_of(subset).items():
        write_whole(folder / name, content)


def require_no_other(subset: Subset, folder: Path) -> None:
    """Raise InputError, with what differs, if a folder holds another subset, or this one with changes by hand."""
    places = {folder / name: content for name, content in _files_of(subset).items()}
    differing = [path for path, content in places.items() if exists(path) and read_bytes(path) != content]
    if not differing:
        return
    try:
        found = _differences(load(str(folder.resolve())), subset) or ["the same in another form or order"]
    except InputError as error:
        found = [str(error)]
    msg = (
        f"{folder} holds another {all_of([path.name for path in differing])} than would be written: "
        f"{'; '.join(found)}. Give another out (--out), or replace=True (--replace) to write over what is there"
    )
    raise InputError(msg)


def _files_of(subset: Subset) -> dict[str, bytes]:
    """The files of a subset's folder, by name."""
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
    return {"prompts.jsonl": content, "card.toml": tomli_w.dumps(known).encode()}


def _differences(there: Subset, new: Subset) -> list[str]:
    """In what two subsets differ, in words."""
    held, made = ({one.id: one.to_json() for one in each.prompts} for each in (there, new))
    changed = {one: different_fields(held[one], made[one]) for one in held if one in made and held[one] != made[one]}
    found = {
        "only there": [one for one in held if one not in made],
        "missing there": [one for one in made if one not in held],
        "changed there": [f"{one} ({', '.join(fields)})" for one, fields in changed.items()],
    }
    sentences = [f"{counted(len(ids), 'prompt')} {what}: {listed(ids)}" for what, ids in found.items() if ids]
    beside = {"prompts": None, "card": None, "prompts_sha256": None}
    cards = ({**one.to_json(), **one.card, **beside} for one in (there, new))
    if card := different_fields(*cards):
        sentences.append(f"other fields of the card: {', '.join(card)}")
    return sentences


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out fields without a value, because TOML cannot represent None."""
    return {name: value for name, value in table.items() if value is not None}


def viewed(subset: Subset, view: str) -> Subset:
    """A view of a subset: other prompts or captions, and another digest; `cut_from` keeps the digest of the whole.

    ``full`` is the whole subset; ``lite`` the prompts that the card lists; ``short`` the whole subset with the tag
    `short_caption` as video caption; ``dev`` and ``test`` the two values of the tag `split`; ``tag=value`` the prompts
    with that value, or with that value in a list.

    Raises:
        InputError: the view is unknown, or no prompt of the subset is in it.
    """
    if view == "full":
        return subset
    if view == "lite":
        listed = subset.card.get("lite", ())  # a run folder keeps the card unchanged
        prompts = [prompt for prompt in subset.prompts if isinstance(listed, list | tuple) and prompt.id in listed]
    elif view == "short":
        shorts = [(prompt, prompt.tags.get("short_caption")) for prompt in subset.prompts]
        prompts = [replace(prompt, video_caption=short) for prompt, short in shorts if short]
    elif view in SPLITS or "=" in view:
        tag, _, value = view.rpartition("=")
        prompts = [prompt for prompt in subset.prompts if _has(prompt.tags.get(tag or "split"), value)]
    else:
        msg = f"view {view!r} is unknown; {nearest(view, VIEWS)}, or tag=value"
        raise InputError(msg)
    if not prompts:
        msg = f"subset {subset.name!r} has no prompts in the view {view!r}"
        raise InputError(msg)
    return replace(subset, prompts=tuple(prompts), cut_from=subset.whole_digest)


def _has(tag: Any, value: str) -> bool:
    """Whether a tag is a value that was typed, or a list with it; true and false are written as JSON writes them."""
    if isinstance(tag, list | tuple):
        return any(_has(one, value) for one in tag)
    return value == (str(tag).lower() if isinstance(tag, bool) else str(tag))
