"""Lists the clips in a folder: the media files and the folders of images, at any depth.

Links are followed. Hidden files and folders are skipped, because editors and operating systems keep copies there. So
are avbench's run folders, which keep copies too and may lie below the clips. Skipped files that could be clips are
reported. Two names are equal if they are the same Unicode text, whether composed (NFC, as most systems write it) or
decomposed (NFD, as macOS does).
"""

import filecmp
import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from avbench.core import InputError, listed
from avbench.core.text import is_unicode
from avbench.storage.media import IMAGE_SUFFIXES, MEDIA_SUFFIXES, SOUND_SUFFIXES
from avbench.storage.media.integrity import ANIMATED_WEBP, is_animated_webp

SOUND_BESIDE = "sound is read only from the clip's own file; join the two with ffmpeg"
_BESIDE = (
    *(".json", ".jsonl", ".csv", ".tsv", ".txt", ".md", ".toml", ".yaml", ".yml", ".xml", ".html", ".pdf", ".log"),
    *(".srt", ".vtt", ".parquet", ".py", ".sh", ".ipynb", *IMAGE_SUFFIXES),
)
"""Suffixes of files that are often stored with clips and are clearly no clips: they are skipped without a remark."""

_OF_A_RUN = ("run.json", "samples.jsonl")
"""Files of a run folder that holds clips."""

FILE_TAGS = ("file", "filename", "file_name", "video_path", "video", "path")
"""Tags of a prompt that name its clip's file, the first of them first; small and capital letters are the same."""


@dataclass(frozen=True)
class Found:
    """The clips found in a folder. Paths are sorted."""

    folder: Path
    clips: tuple[Path, ...]
    frames: tuple[Path, ...]
    """Folders of images."""
    left_out: tuple[tuple[Path, str], ...]
    """Files and folders that could be clips and were skipped, each with the reason."""

    def nothing(self, *, frames_too: bool = False) -> InputError:
        """The error that there is no clip, and why; with `frames_too`, folders of images do not count as clips."""
        why = self.remark(frames_too=frames_too)
        if not self.frames and any(path.suffix.lower() in IMAGE_SUFFIXES for path in self.folder.glob("*")):
            frames = "it holds images itself; if they are the frames of a clip, give the folder above it, which has one"
            why.insert(0, f"{frames} subfolder per clip")
        why = why or [f"suffixes read: {', '.join(MEDIA_SUFFIXES)}, or folders of frames"]
        return InputError("; ".join([f"{self.folder}: no clip in it", *why]))

    def remark(self, *, frames_too: bool = False) -> list[str]:
        """Return one sentence that names the skipped files, or none if there are none.

        With `frames_too`, folders of images count as skipped.
        """
        left_out = [*self.left_out]
        if frames_too:
            why = "a folder of images, which has no frame rate; fps (--fps) of `score` or `reference build` gives one"
            left_out += [(path, why) for path in self.frames]
        if not left_out:
            return []
        named = [f"{path.relative_to(self.folder)} ({why})" for path, why in left_out]
        return [f"left out of {self.folder}: {listed(named, 5)}; suffixes read: {', '.join(MEDIA_SUFFIXES)}"]


def clips_in(folder: Path) -> Found:
    """Find the clips in a folder and the folders below it. Raises InputError if the folder's own path is not UTF-8."""
    if not is_unicode(str(folder.resolve())):
        msg = f"{folder} cannot be written into results, because its path is not UTF-8; rename the folder"
        raise InputError(msg)
    left_out: list[tuple[Path, str]] = []
    clips: list[Path] = []
    sounds: list[Path] = []
    frames: set[Path] = set()
    for path in _walked(folder, lambda path, why: left_out.append((path, why))):
        suffix = path.suffix.lower()
        if suffix in (*MEDIA_SUFFIXES, *IMAGE_SUFFIXES) and not is_unicode(str(path.relative_to(folder))):
            left_out.append((path, "its name is not UTF-8; rename it"))
        elif suffix in MEDIA_SUFFIXES:
            clips.append(path)
        elif suffix == ".webp" and is_animated_webp(path):
            left_out.append((path, ANIMATED_WEBP))
        elif suffix in IMAGE_SUFFIXES and path.parent != folder:
            frames.add(path.parent)
        elif suffix in SOUND_SUFFIXES:
            sounds.append(path)
        elif suffix not in _BESIDE:
            left_out.append((path, "its suffix is not read" if suffix else "it has no suffix"))
    named = {path.with_suffix("") for path in clips}
    left_out += [(path, SOUND_BESIDE) for path in sounds if path.with_suffix("") in named]
    return Found(folder, tuple(sorted(clips)), tuple(sorted(frames)), tuple(sorted(left_out)))


def visible_files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and below it, without hidden ones, in no fixed order. Links are followed."""
    return _walked(folder, lambda path, why: None)


def clips_by_stem(folder: Path, prefix: str = "") -> dict[str, Path]:
    """Map file names without suffix to clips whose names begin with `prefix`.

    Of several clips of one name the first path is taken. Raises InputError if their bytes differ.
    """
    found: dict[str, Path] = {}
    for path in sorted(visible_files(folder)):
        if path.suffix.lower() in MEDIA_SUFFIXES and path.name.startswith(prefix):
            first = found.setdefault(same_name(path.stem), path)
            if first is not path and not filecmp.cmp(first, path, shallow=False):
                pair = f"{first.relative_to(folder)} and {path.relative_to(folder)}"
                msg = f"{folder}: {pair} have one name and are not the same clip; keep one of them"
                raise InputError(msg)
    return found


def named_file(tags: Mapping[str, Any]) -> str:
    """The file that one of `FILE_TAGS` names; empty if none does."""
    small = {name.lower(): value for name, value in tags.items()}
    return next((value for name in FILE_TAGS if isinstance(value := small.get(name), str) and value), "")


def is_clip(path: Path) -> bool:
    """Whether a file's suffix is that of a clip."""
    return path.suffix.lower() in MEDIA_SUFFIXES


def without_suffix(path: Path) -> str:
    """Return a relative path as prompts name clips: in composed Unicode, with slashes, without a clip's suffix."""
    plain = path.as_posix()
    return same_name(plain.removesuffix(path.suffix) if is_clip(path) else plain)


def as_spelled(folder: Path, name: str) -> Path:
    """Return the path of `name` in a folder as the disk spells it, in composed or decomposed Unicode."""
    path = folder / name
    if name.isascii() or path.exists():
        return path
    for part in Path(name).parts:
        there = folder.iterdir() if folder.is_dir() else ()
        folder = next((one for one in there if same_name(one.name) == same_name(part)), folder / part)
    return folder


def mark_of(name: str, *, cut: bool = False) -> str:
    """What keeps the ids of two names apart that differ only in letters that an id cannot have, or in what is `cut` off
    for its length; empty for other names.
    """
    return "" if name.isascii() and not cut else f"-{sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}"


def same_name(text: str) -> str:
    """Return a name in composed Unicode (NFC), so that names that look equal are equal."""
    return unicodedata.normalize("NFC", text)


def _walked(folder: Path, leave_out: Callable[[Path, str], None]) -> Iterator[Path]:
    """Yield the visible files, those in linked folders last. No folder is read twice."""
    seen: set[str] = set()
    links = [folder]
    while links:
        top = links.pop(0)
        walk = os.walk(top, onerror=lambda error: leave_out(Path(error.filename), str(error.strerror).lower()))
        for place, names, files in walk:
            if (real := os.path.realpath(place)) in seen:
                names.clear()
                leave_out(Path(place), f"{'a link to ' if Path(place) == top else ''}a folder that is read already")
                continue
            seen.add(real)
            for name in sorted(names):
                path = Path(place, name)
                if name.startswith("."):
                    names.remove(name)
                    if any(is_clip(Path(file)) for _, _, inside in os.walk(path) for file in inside):
                        leave_out(path, "a hidden folder")
                elif all((path / file).is_file() for file in _OF_A_RUN):
                    names.remove(name)
                    leave_out(path, "a run folder of avbench")
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
