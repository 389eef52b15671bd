"""Clips in a folder: every file that media.py can read, with captions where a prompts.jsonl beside them has some.

A prompt fits a clip by the `file` that it names or by its id, as a clip's name without suffix. Clips that no prompt
fits are entries without a caption; prompts that fit no clip are entries whose file is missing.
"""

from collections.abc import Iterator
from pathlib import Path

from avbench.core import Prompt
from avbench.datasets import Entry, identifier
from avbench.media import MEDIA_SUFFIXES
from avbench.subsets import read_prompts


def read(folder: Path) -> Iterator[Entry]:
    """Clips in the order of their paths, then the prompts without a clip."""
    listed = folder / "prompts.jsonl"
    prompts = read_prompts(listed) if listed.is_file() else ()
    by_file = {str(prompt.tags["file"]): prompt for prompt in prompts if "file" in prompt.tags}
    by_id = {prompt.id: prompt for prompt in prompts if "file" not in prompt.tags}
    found: set[str] = set()
    for path in sorted(folder.rglob("[!.]*")):
        if path.suffix.lower() not in MEDIA_SUFFIXES or not path.is_file():
            continue
        relative = path.relative_to(folder)
        prompt = by_file.get(relative.as_posix()) or by_id.get(path.stem) or by_id.get(path.stem.removesuffix("-0"))
        if prompt is None:
            yield Entry(identifier(relative.with_suffix("").as_posix()), path)
        else:
            found.add(prompt.id)
            yield _entry(prompt, path)
    for prompt in prompts:
        if prompt.id not in found:
            yield _entry(prompt, folder / str(prompt.tags.get("file", f"{prompt.id}.mp4")))


def _entry(prompt: Prompt, path: Path) -> Entry:
    tags = {name: value for name, value in prompt.tags.items() if name not in ("file", "split")}
    split = prompt.tags.get("split")
    return Entry(prompt.id, path, prompt.video_caption, prompt.audio_caption, split and str(split), tags=tags)
