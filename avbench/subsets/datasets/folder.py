"""Reads a folder of clips: every visible clip, with what a file in or beside the folder says of it.

That is a prompts file (prompts.jsonl, .json, .csv, .parquet or .txt), in the folder or, if it fits a clip, beside it;
or a metadata.jsonl, .csv or .parquet in the folder, whose lines need no caption. A line belongs to the clip that one of
its `FILE_TAGS` names, or that is named after its id or caption (`storage/media/clips_of_prompts.py`), in the folder or,
if no clip there is, in a folder below it, as the clips of several models are. Clips without a line are entries without
a caption; lines of a prompts file without a clip are entries whose file is missing. If several clips match one line,
such as the clips of several models or seeds, each gets its path as id.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from avbench.core import InputError, Prompt
from avbench.storage.media.clip_files import clips_in, is_clip, named_file, without_suffix
from avbench.storage.media.clips_of_prompts import ClipsOfPrompts, Rivals, within
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
    names = {path: _id_of(path.relative_to(folder).as_posix()) for path in clips}
    alone = {path: one.id for path, one in found.of_clips.items() if count[one.id] == 1}
    taken = {name for path, name in names.items() if path not in alone}
    for path, name in names.items():
        if prompt := found.of_clips.get(path):
            yield _entry(found, prompt, path, prompt.id if path in alone and prompt.id not in taken else name)
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
    by_name = ClipsOfPrompts(folder, clips)

    def id_of(named: str) -> str:
        there = by_name.at(named) or by_name.at_end_of(named)
        return _id_of(there[0].relative_to(folder).as_posix() if there else within(folder, named))

    for path in filter(Path.is_file, [*listed, *metadata, *beside]):
        try:
            prompts, bare = read_described(path, id_of, captions=path not in metadata)
        except InputError as error:
            if path in metadata and isinstance(error, NoPrompts):
                continue
            msg = f"{error}. This file was found with the clips and would describe them: correct it, or rename it"
            raise InputError(msg) from None
        of_clips = _of_clips(folder, clips, prompts)
        if of_clips or path in listed:
            return _Described(path, prompts, bare, of_clips)
    return _Described()


def _of_clips(folder: Path, clips: Sequence[Path], prompts: Sequence[Prompt]) -> dict[Path, Prompt]:
    """The prompt of each clip that has one."""
    here = ClipsOfPrompts(folder, clips)
    found = _found(here, prompts)
    below = defaultdict[Path, list[Path]](list)
    for path in clips:
        for place in path.relative_to(folder).parents[:-1] if path not in found else ():
            below[folder / place].append(path)
    rest = Rivals(prompt for prompt in prompts if not here.at(named_file(prompt.tags)))
    for place in sorted(below, key=lambda place: (len(place.parts), place)):
        there = ClipsOfPrompts(place, [path for path in below[place] if path not in found])
        fitting = {prompt.id: prompt for name in there.by_name for prompt in rest.fitting(name)}
        found |= _found(there, [*fitting.values()])
    return found


def _found(clips: ClipsOfPrompts, prompts: Sequence[Prompt]) -> dict[Path, Prompt]:
    return {path: prompt for path, (prompt, _) in clips.of_all(prompts).items()}


def _file_of(folder: Path, prompt: Prompt, listed: Path | None) -> str:
    """The path in the folder where a prompt's clip is missing. Raises InputError if it names a clip elsewhere."""
    named = Path(within(folder, named_file(prompt.tags)))
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
