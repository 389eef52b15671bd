"""Which files of a folder are clips?

Every file whose suffix `media.read_clip` reads, and every folder of images, however deep; links are followed. Hidden
files and folders are not: editors, notebooks and systems keep copies there. What is left out is named. Names are the
same where their letters are, composed (NFC, as most systems write) or decomposed (NFD, as macOS does).
"""

import os
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from avbench.storage.media import IMAGE_SUFFIXES, MEDIA_SUFFIXES

_BESIDE = (
    *(".json", ".jsonl", ".csv", ".tsv", ".txt", ".md", ".toml", ".yaml", ".yml", ".xml", ".html", ".pdf", ".log"),
    *(".srt", ".vtt", ".parquet", ".py", ".sh", ".ipynb", ".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus"),
    *IMAGE_SUFFIXES,
)
"""Suffixes of what usually lies beside clips: it is no clip, and nobody expects that it is read as one."""


@dataclass(frozen=True)
class Found:
    """What lies in a folder. Paths are sorted."""

    folder: Path
    clips: tuple[Path, ...]
    frames: tuple[Path, ...]
    """Folders of images."""
    left_out: tuple[tuple[Path, str], ...]
    """What could be taken for a clip and is not read, and why not."""

    def remark(self, *, frames_too: bool = False) -> list[str]:
        """A sentence that names what is left out, folders of images as well where they are not read; or none."""
        left_out = [*self.left_out]
        if frames_too:
            left_out += [(path, "a folder of images, which has no rate") for path in self.frames]
        if not left_out:
            return []
        named = [f"{path.relative_to(self.folder)} ({why})" for path, why in left_out]
        shown = ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
        return [f"left out of {self.folder}: {shown}; suffixes read: {', '.join(MEDIA_SUFFIXES)}"]


def clips_in(folder: Path) -> Found:
    """Look through a folder."""
    left_out: list[tuple[Path, str]] = []
    clips: list[Path] = []
    frames: set[Path] = set()
    for path in _walked(folder, lambda path, why: left_out.append((path, why))):
        suffix = path.suffix.lower()
        if suffix in MEDIA_SUFFIXES:
            clips.append(path)
        elif suffix in IMAGE_SUFFIXES and path.parent != folder:
            frames.add(path.parent)
        elif suffix not in _BESIDE:
            left_out.append((path, "its suffix is not read" if suffix else "it has no suffix"))
    return Found(folder, tuple(sorted(clips)), tuple(sorted(frames)), tuple(sorted(left_out)))


def visible_files(folder: Path) -> Iterator[Path]:
    """The files of a folder and of the folders in it, without the hidden ones, in no order; links are followed."""
    return _walked(folder, lambda path, why: None)


def clips_by_stem(folder: Path, prefix: str = "") -> dict[str, Path]:
    """Name without suffix → clip, of the clips whose names begin with `prefix`; of several of a name the first path."""
    found: dict[str, Path] = {}
    for path in sorted(visible_files(folder)):
        if path.suffix.lower() in MEDIA_SUFFIXES and path.name.startswith(prefix):
            found.setdefault(same_name(path.stem), path)
    return found


def is_clip(path: Path) -> bool:
    """Whether a file would be taken for a clip by its name."""
    return path.suffix.lower() in MEDIA_SUFFIXES


def without_suffix(path: Path) -> str:
    """A relative path as prompts name clips: composed letters, slashes, and no suffix where it is a clip's."""
    plain = path.as_posix()
    return same_name(plain.removesuffix(path.suffix) if is_clip(path) else plain)


def as_spelled(folder: Path, name: str) -> Path:
    """The path of this name in a folder, in the letters that it has there, composed or decomposed."""
    path = folder / name
    if name.isascii() or path.exists():
        return path
    for part in Path(name).parts:
        there = folder.iterdir() if folder.is_dir() else ()
        folder = next((one for one in there if same_name(one.name) == same_name(part)), folder / part)
    return folder


def same_name(text: str) -> str:
    """A name with its letters composed, so that two that look the same are the same."""
    return unicodedata.normalize("NFC", text)


def _walked(folder: Path, leave_out: Callable[[Path, str], None]) -> Iterator[Path]:
    """The visible files; folders that a link leads to come after all others, so that none is read twice."""
    seen: set[str] = set()
    links = [folder]
    while links:
        top = links.pop(0)
        if os.path.realpath(top) in seen:
            leave_out(top, "a link to a folder that is read already")
            continue
        walk = os.walk(top, onerror=lambda error: leave_out(Path(error.filename), str(error.strerror).lower()))
        for place, names, files in walk:
            seen.add(os.path.realpath(place))
            for name in sorted(names):
                path = Path(place, name)
                if name.startswith("."):
                    names.remove(name)
                    if any(is_clip(Path(file)) for _, _, inside in os.walk(path) for file in inside):
                        leave_out(path, "a hidden folder")
                elif path.is_symlink():
                    names.remove(name)
                    links.append(path)
            for name in files:
                path = Path(place, name)
                if name.startswith("."):
                    if is_clip(path):
                        leave_out(path, "a hidden file")
                elif path.is_file():
                    yield path
                else:
                    leave_out(path, "a link to nothing" if path.is_symlink() else "not a file")
