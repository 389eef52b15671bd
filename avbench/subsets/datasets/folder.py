"""Clips in a folder: every visible file that media.py reads, with captions where a prompts.jsonl beside them has some.

A prompt fits a clip by the `file` that it names or by its id, as a clip's name without suffix. Clips that no prompt
fits are entries without a caption; prompts that fit no clip are entries whose file is missing. Where several clips fit
one prompt, as those of several models do, each is called by its path.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from avbench.core import Prompt
from avbench.storage.clip_files import clips_in, same_name
from avbench.subsets.datasets import Entry, identifier
from avbench.subsets.prompt_files import read_prompts


def read(folder: Path) -> Iterator[Entry]:
    """Clips in the order of their paths, then the prompts without a clip."""
    listed = folder / "prompts.jsonl"
    prompts = read_prompts(listed) if listed.is_file() else ()
    by_file = {same_name(str(prompt.tags["file"])): prompt for prompt in prompts if "file" in prompt.tags}
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
            yield _entry(prompt, folder / str(prompt.tags.get("file", f"{prompt.id}.mp4")), prompt.id)


def _entry(prompt: Prompt, path: Path, name: str) -> Entry:
    tags = {name: value for name, value in prompt.tags.items() if name not in ("file", "split")}
    split = prompt.tags.get("split")
    return Entry(name, path, prompt.video_caption, prompt.audio_caption, split and str(split), tags=tags)
