"""Makes a subset of a data set on the user's disk: prompts that find their clips, and a card that names the source.

A prompt's tag `file` is the path of its clip relative to the data set's folder, so that ``clips:FOLDER`` finds it. Its
tag `split` is the split to which the authors assigned the clip; the card's `origin` lists the requested splits.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from avbench.core import InputError, Prompt, Subset, counted, listed
from avbench.storage.media.clip_files import clips_in, without_suffix
from avbench.subsets.datasets import Entry, Pool, identifier, no_split, remarks, splits_of


@dataclass(frozen=True)
class ImportedSubset:
    """A subset, and remarks on how it was made."""

    subset: Subset
    remarks: list[str]


def as_subset(
    pool: Pool,
    name: str,
    *,
    split: str | None = None,
    limit: int | None = None,
    caption: str | None = None,
    licence: str | None = None,
) -> ImportedSubset:
    """Make a subset of the clips of a data set that exist on disk, or of its prompts if it has no clips.

    Args:
        pool: the data set.
        name: name of the subset.
        split: ``train``, ``val`` or ``test``; all by default.
        limit: largest number of prompts; see `spread`.
        caption: template of the prompt if the data set has no caption, with tags in braces; by default the reader's.
        licence: licence of the clips.

    Raises: InputError: nothing is left, a clip lacks a tag of the caption, or the folder does not have the data set's
        layout.
    """
    whole = list(pool.entries())
    usable = spread(usable_of(pool, whole, split), limit)
    prompts = tuple(prompt_of(one, pool, caption) for one in usable)
    purpose = f"{pool.reader.what}; {f'the split {split}' if split else 'all of it'}."
    card = card_of(pool, prompts, purpose) | ({"licence": licence} if licence else {})
    return ImportedSubset(
        Subset(name, 1, prompts, None, card),
        [*clip_remarks(pool, whole, usable), *caption_remarks(pool, usable, caption)],
    )


def usable_of(pool: Pool, whole: Sequence[Entry], split: str | None) -> list[Entry]:
    """Those entries of a data set that are of a split and whose clip exists. Raises InputError if there is none."""
    usable = [
        one for one in whole if (split is None or one.split == split) and (one.path is None or one.path.is_file())
    ]
    if split is not None and not any(one.split == split for one in whole):
        raise no_split(pool, split, whole)
    if not whole and pool.name == "folder":
        raise clips_in(pool.folder).nothing(frames_too=True)
    if not usable:
        sides = splits_of(whole)
        msg = f"{pool.folder}: none of {len(whole)} entries can be used (splits there: {sides}); are the clips in it?"
        raise InputError(msg)
    return usable


def spread(usable: Sequence[Entry], limit: int | None) -> list[Entry]:
    """At most `limit` entries, all for None: those whose ids have the smallest hashes, which are the same at every call
    and spread over the data set. Their order is kept.
    """
    chosen = sorted(usable, key=lambda one: sha256(one.id.encode()).digest())[:limit]
    kept = {one.id for one in chosen}
    return [one for one in usable if one.id in kept]


def clip_remarks(pool: Pool, whole: Iterable[Entry], usable: Iterable[Entry]) -> list[str]:
    """Report what is wrong with a data set's files, and files that are no single scene."""
    return [*remarks(pool, whole), *_scenes(usable)]


def card_of(pool: Pool, prompts: Iterable[Prompt], purpose: str) -> dict[str, Any]:
    """The fields of a card for prompts from a data set: its licence and source, and the prompts' splits."""
    return {
        "purpose": purpose,
        "licence": pool.reader.licence,
        "source": pool.reader.source,
        "origin": {"set": pool.name, "splits": sorted({one.tags["split"] for one in prompts if "split" in one.tags})},
    }


def prompt_of(entry: Entry, pool: Pool, caption: str | None = None) -> Prompt:
    """Turn a clip of a data set into a prompt, with the data set's caption or else the template's."""
    tags = dict(entry.tags)
    if entry.contacts_seconds is not None:
        tags["contacts_seconds"] = list(entry.contacts_seconds)
    if entry.path is not None:
        tags["file"] = entry.path.relative_to(pool.folder).as_posix()
    if entry.split:
        tags["split"] = entry.split
    text = entry.video_caption or _filled(entry, pool.reader.caption, caption) or _name(entry, pool)
    return Prompt(entry.id, text, entry.audio_caption, tags)


def _filled(entry: Entry, usual: str, given: str | None) -> str:
    """Fill in a caption's template; empty if the clip lacks a tag of the reader's own template."""
    words = {
        name: " and ".join(map(str, value)) if isinstance(value, list) else value for name, value in entry.tags.items()
    }
    try:
        text = (given or usual).format_map({"video_caption": "", **words})
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        if given:
            msg = f"{entry.id}: the caption {given!r} cannot be filled, {error}; its tags: {', '.join(words) or 'none'}"
            raise InputError(msg) from None
        text = ""
    return " ".join(text.split())


def _name(entry: Entry, pool: Pool) -> str:
    """The name of a clip in words: its path in the folder, if its id is made of that, else its id."""
    path = without_suffix(entry.path.relative_to(pool.folder)) if entry.path else ""
    return re.sub("[-_/]", " ", path if identifier(path) == entry.id else entry.id)


def caption_remarks(pool: Pool, usable: Sequence[Entry], caption: str | None) -> Iterator[str]:
    """Report clips without a caption, whose names serve as captions. Raises InputError as `as_subset` does."""
    without = [one for one in usable if not (one.video_caption or _filled(one, pool.reader.caption, caption))]
    if without:
        tags = dict.fromkeys(f"{{{name}}}" for one in without for name in one.tags)
        yield (
            f"{len(without)} of {counted(len(usable), 'clip')} have no caption: their names are the captions, for "
            f"example {_name(without[0], pool)!r}; --caption gives a template"
            + (f", with their tags: {listed(tags, 8)}" if tags else "")
        )


def _scenes(usable: Iterable[Entry]) -> Iterator[str]:
    """Report files of which only a scene is listed, because a clip is read whole."""
    if count := len({one.path for one in usable if "scene_seconds" in one.tags}):
        yield f"{counted(count, 'file')} listed by scenes: a clip is read whole, so cut the scenes out first"
