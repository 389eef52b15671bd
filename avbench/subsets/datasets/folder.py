"""Reads a folder of clips: every visible clip, with what a file in or beside the folder says of it.

That is a prompts file (prompts.jsonl, .json, .csv, .parquet or .txt), in the folder or, if it fits a clip, beside it;
or a metadata.jsonl, .csv or .parquet in the folder, whose lines need no caption. A line belongs to the clip that one of
its `FILE_TAGS` names, or whose name without suffix is its id, or whose path the named one ends with. Clips without a
line are entries without a caption; lines of a prompts file without a clip are entries whose file is missing. If several
clips match one line, such as the clips of several models, each gets its path as id.
"""

import itertools
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from avbench.core import InputError, Prompt
from avbench.storage.media.clip_files import ClipsByName, clips_in, is_clip, named_file, same_name, without_suffix
from avbench.storage.reading import exists
from avbench.subsets.datasets import Entry, identifier
from avbench.subsets.from_folders import PROMPT_FILES
from avbench.subsets.prompt_files import NoPrompts, read_described

METADATA_FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""Names of the file in which published folders of clips describe them."""


@dataclass(frozen=True)
class _Described:
    """What a file says of the clips in a folder."""

    file: Path | None = None
    prompts: Sequence[Prompt] = ()
    without_caption: Collection[str] = ()
    """The ids of prompts that have their id as caption."""
    of_clips: Mapping[Path, Prompt] = field(default_factory=dict)


def read(folder: Path) -> Iterator[Entry]:
    """Yield the clips in the order of their paths, then the prompts without a clip."""
    clips = clips_in(folder).clips
    found = _described(folder, clips)
    count = Counter(prompt.id for prompt in found.of_clips.values())
    for path in clips:
        name = _id_of(path.relative_to(folder).as_posix())
        if prompt := found.of_clips.get(path):
            yield _entry(found, prompt, path, prompt.id if count[prompt.id] == 1 else name)
        else:
            yield Entry(name, path)
    for prompt in found.prompts:
        if prompt.id not in count:
            yield _entry(found, prompt, folder / _file_of(folder, prompt, found.file), prompt.id)


def caption_file(folder: Path) -> Path | None:
    """The file that the captions are read from, if there is one. Raises InputError if it is damaged."""
    return _described(folder, clips_in(folder).clips).file


def _described(folder: Path, clips: Sequence[Path]) -> _Described:
    """What the first file that describes the clips says of them. Raises InputError if the file is damaged."""
    listed = [folder / name for name in PROMPT_FILES]
    metadata = [folder / name for name in METADATA_FILES]
    beside = [folder.resolve().parent / name for name in PROMPT_FILES]
    by_name = ClipsByName(folder, clips)

    def id_of(named: str) -> str:
        within = _within(folder, named)
        there = by_name.at(within) or by_name.at_end_of(within)
        return _id_of(there[0].relative_to(folder).as_posix() if there else within)

    for path in filter(Path.is_file, [*listed, *metadata, *beside]):
        try:
            prompts, bare = read_described(path, id_of, captions=path not in metadata)
        except InputError as error:
            if path in metadata and isinstance(error, NoPrompts):
                continue
            msg = f"{error}. This file was found with the clips and would describe them: correct it, or rename it"
            raise InputError(msg) from None
        of_clips = _of_clips(folder, by_name, prompts)
        if of_clips or path in listed:
            return _Described(path, prompts, bare, of_clips)
    return _Described()


def _of_clips(folder: Path, by_name: ClipsByName, prompts: Sequence[Prompt]) -> dict[Path, Prompt]:
    """The prompt of each clip that has one."""
    found, rest = dict[Path, Prompt](), dict[str, Prompt]()
    for prompt in prompts:
        at = by_name.at(_within(folder, named_file(prompt.tags)))
        found |= {path: prompt for path in at if path not in found}
        if not at:
            rest[prompt.id] = prompt
    for path in itertools.chain(*by_name.by_stem.values()):
        prompt = rest.get(path.stem) or rest.get(path.stem.removesuffix("-0"))
        if prompt and path not in found:
            found[path] = prompt
    placed = {prompt.id for prompt in found.values()}
    for prompt in rest.values():
        if prompt.id not in placed:
            ends = by_name.at_end_of(_within(folder, named_file(prompt.tags)))
            found |= {path: prompt for path in ends if path not in found}
    return found


def _within(folder: Path, named: str) -> str:
    """A path as it is in the folder, or as it was given if it leads elsewhere; empty if none was given."""
    path = Path(os.path.normpath(named))
    for top in (folder.absolute(), folder.resolve()):
        path = path.relative_to(top) if path.is_relative_to(top) else path
    return same_name(path.as_posix()) if named else ""


def _file_of(folder: Path, prompt: Prompt, listed: Path | None) -> str:
    """The path in the folder where a prompt's clip is missing. Raises InputError if it names a clip elsewhere."""
    named = Path(_within(folder, named_file(prompt.tags)))
    if not is_clip(named):
        return f"{prompt.id}.mp4"
    if not (named.is_absolute() or named.parts[:1] == ("..",)):
        return named.as_posix()
    if exists(folder / named):
        given = f"the file {named_file(prompt.tags)!r} of {prompt.id}"
        msg = f"{listed}: {given} leads out of the folder; give its path within it"
        raise InputError(msg)
    return named.name


def _id_of(named: str) -> str:
    return identifier(without_suffix(Path(named)))


def _entry(found: _Described, prompt: Prompt, path: Path, name: str) -> Entry:
    named, split = named_file(prompt.tags), prompt.tags.get("split")
    tags = {name: value for name, value in prompt.tags.items() if name != "split" and value != named}
    caption = "" if prompt.id in found.without_caption else prompt.video_caption
    return Entry(name, path, caption, prompt.audio_caption, split and str(split), tags=tags)
