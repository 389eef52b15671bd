"""Reads a folder of clips: every visible clip, with captions if a prompts.jsonl in the folder has some.

A prompt matches a clip by the tag `file`, or by its id, which must be the clip's name without suffix. Clips without a
prompt are entries without a caption; prompts without a clip are entries whose file is missing. If several clips match
one prompt, such as the clips of several models, each gets its path as id.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from avbench.core import InputError, Prompt
from avbench.storage.clip_files import clips_in, same_name
from avbench.subsets.datasets import Entry, identifier
from avbench.subsets.prompt_files import read_prompts


def read(folder: Path) -> Iterator[Entry]:
    """Yield the clips in the order of their paths, then the prompts without a clip."""
    listed = folder / "prompts.jsonl"
    prompts = read_prompts(listed) if listed.is_file() else ()
    files = {prompt.id: _inside(folder, prompt) for prompt in prompts if "file" in prompt.tags}
    by_file = {files[prompt.id]: prompt for prompt in prompts if prompt.id in files}
    by_id = {prompt.id: prompt for prompt in prompts if "file" not in prompt.tags}
    fitting = {
        path: by_file.get(same_name(path.relative_to(folder).as_posix()))
        or by_id.get(path.stem)
        or by_id.get(path.stem.removesuffix("-0"))
        for path in clips_in(folder).clips
    }
    count = Counter(prompt.id for prompt in fitting.values() if prompt)
    for path, prompt in fitting.items():
        named = identifier(path.relative_to(folder).with_suffix("").as_posix())
        if prompt is None:
            yield Entry(named, path)
        else:
            yield _entry(prompt, path, prompt.id if count[prompt.id] == 1 else named)
    for prompt in prompts:
        if prompt.id not in count:
            yield _entry(prompt, folder / files.get(prompt.id, f"{prompt.id}.mp4"), prompt.id)


def _inside(folder: Path, prompt: Prompt) -> str:
    """The path of a prompt's clip in the folder. Raises InputError if the tag leads out of it."""
    named = Path(os.path.normpath(str(prompt.tags["file"])))
    for top in (folder.absolute(), folder.resolve()):
        named = named.relative_to(top) if named.is_relative_to(top) else named
    if named.is_absolute() or named.parts[:1] == ("..",):
        given = f"the file {prompt.tags['file']!r} of {prompt.id}"
        msg = f"{folder / 'prompts.jsonl'}: {given} leads out of the folder; give its path within it"
        raise InputError(msg)
    return same_name(named.as_posix())


def _entry(prompt: Prompt, path: Path, name: str) -> Entry:
    tags = {name: value for name, value in prompt.tags.items() if name not in ("file", "split")}
    split = prompt.tags.get("split")
    return Entry(name, path, prompt.video_caption, prompt.audio_caption, split and str(split), tags=tags)
