"""Anybody's files as a model: ``clips:FOLDER``.

A clip is found, in this order: by the ``file`` (or ``video``, ``path``) that its prompt names; by prompt id, as
``<subset>/<id>-<seed>``, ``<id>-<seed>``, ``<id>/<seed>`` and, for seed 0, ``<id>``; by the habit
``<caption>-<seed>``. Suffixes are those that media.py reads; a folder of numbered frames needs ``-M fps=``.
Files are kept byte for byte. Nothing is skipped silently: a prompt without a file is a failure in a sentence,
and files that match no prompt are remarked upon.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from avbench.core import InputError, frame_rate
from avbench.generators import Made, Request
from avbench.media import IMAGE_SUFFIXES, MEDIA_SUFFIXES, read_clip


class ClipsFolder:
    """A folder of finished clips as a generator."""

    batch_size = 1

    def __init__(self, target: str, *, fps: float | str | None = None) -> None:
        """Look at the folder; `fps` is for folders of frames, which carry none."""
        self._folder = Path(target)
        if not self._folder.is_dir():
            msg = f"clips:{target}: there is no such folder"
            raise InputError(msg)
        self._fps: Fraction | None = None if fps is None else frame_rate(fps)
        self._by_stem = _media_under(self._folder)
        if not self._by_stem:
            msg = f"clips:{target}: no clip in it; suffixes read: {', '.join(MEDIA_SUFFIXES)}, or folders of frames"
            raise InputError(msg)
        self.settings: Mapping[str, Any] = {
            "folder": str(self._folder.resolve()),
            "fps": None if self._fps is None else str(self._fps),
        }

    def generate(self, requests: Sequence[Request]) -> list[Made]:
        """Find the file of each request."""
        return [self._one(request) for request in requests]

    def remarks(self, requests: Sequence[Request]) -> list[str]:
        """The files that no request uses."""
        used = {path for request in requests for path in self._candidates(request)}
        found = {path for paths in self._by_stem.values() for path in paths}
        unused = sorted(str(path.relative_to(self._folder)) for path in found - used)
        if not unused:
            return []
        shown = ", ".join(unused[:5]) + (f" and {len(unused) - 5} more" if len(unused) > 5 else "")
        return [f"{len(unused)} of {len(found)} files in {self._folder} match no prompt: {shown}"]

    def _one(self, request: Request) -> Made:
        candidates = self._candidates(request)
        if len(candidates) != 1:
            key = request.key
            listed = ", ".join(path.name for path in candidates)
            problem = f"several files match: {listed}" if candidates else "no file matches"
            msg = f"{problem}; looked in {self._folder} for {key.prompt}-{key.seed} and the caption-{key.seed}"
            raise InputError(msg)
        path = candidates[0]
        return Made(read_clip(path, fps=self._fps) if path.is_dir() else path)

    def _candidates(self, request: Request) -> list[Path]:
        """The files of the first way of matching that finds any; several only where suffixes differ."""
        key, prompt = request.key, request.prompt
        named = next((prompt.tags[tag] for tag in ("file", "video", "path") if tag in prompt.tags), None)
        by_name = _stem(Path(named)) if isinstance(named, str) and key.seed == 0 else ""
        for stem in (
            by_name,
            f"{key.subset}/{key.prompt}-{key.seed}",
            f"{key.prompt}-{key.seed}",
            f"{key.prompt}/{key.seed}",
            key.prompt if key.seed == 0 else "",
            f"{prompt.video_caption}-{key.seed}",
        ):
            if found := self._by_stem.get(stem):
                return found
        return []


def _media_under(folder: Path) -> dict[str, list[Path]]:
    """Relative name without suffix → media files and folders of frames of that name."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("[!.]*")):
        if path.is_dir() and any(child.suffix.lower() in IMAGE_SUFFIXES for child in path.iterdir()):
            found.setdefault(path.relative_to(folder).as_posix(), []).append(path)
        elif path.is_file() and path.suffix.lower() in MEDIA_SUFFIXES:
            found.setdefault(_stem(path.relative_to(folder)), []).append(path)
    return found


def _stem(path: Path) -> str:
    return path.as_posix().removesuffix(path.suffix) if path.suffix.lower() in MEDIA_SUFFIXES else path.as_posix()
