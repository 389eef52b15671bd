"""Uses a folder of existing clips as a generator: ``clips:FOLDER``.

A prompt's clip is found by its name (`storage/media/clips_of_prompts.py`). Suffixes are those that `read_clip` reads; a
folder of numbered frames needs ``-M fps=``. Files are kept byte for byte. A prompt without a file is recorded as a
failure; files that match no prompt and files that are skipped are reported.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from avbench.core import NO_FILE, InputError, digest, frame_rate, listed
from avbench.generation.table import Made, Request
from avbench.storage.content import content_sha256
from avbench.storage.media import read_clip
from avbench.storage.media.clip_files import FILE_TAGS, clips_in, is_clip, named_file
from avbench.storage.media.clips_of_prompts import ClipsOfPrompts


class ClipsFolder:
    """A folder of finished clips as a generator."""

    batch_size = 1
    finished = True

    def __init__(self, target: str, *, fps: float | str | None = None, by_file: bool = False) -> None:
        """List the clips in the folder.

        Args:
            target: the folder.
            fps: the frame rate of folders of frames, which have none.
            by_file: whether clips are found by the tag of their file alone, for prompts that are names of clips.
        """
        self._by_file = by_file
        self._folder = Path(target)
        if not self._folder.is_dir():
            msg = f"clips:{target}: there is no such folder; write clips:FOLDER"
            raise InputError(msg)
        self._fps: Fraction | None = None if fps is None else frame_rate(fps)
        found = clips_in(self._folder)
        self._left_out = found.remark()
        self._clips = ClipsOfPrompts(self._folder, (*found.clips, *found.frames))
        if not self._clips.by_name:
            raise found.nothing()
        self.settings: Mapping[str, Any] = {
            "folder": str(self._folder.resolve()),
            "fps": None if self._fps is None else str(self._fps),
        }

    def generate(self, requests: Sequence[Request]) -> list[Made]:
        """Find the file of each request."""
        return [self._one(request) for request in requests]

    def has(self, request: Request) -> bool:
        """Whether a file is named after a request's prompt and seed."""
        return bool(self._candidates(request))

    def source(self, request: Request) -> str:
        """Return the hash of the file, or of the folder of frames, that is the request's clip."""
        path = self._path(request)
        return frames_sha256(path) if path.is_dir() else content_sha256(path)

    def remarks(self, requests: Sequence[Request]) -> list[str]:
        """Report the files that match no request, and those that were skipped."""
        used = {path for request in requests for path in self._candidates(request)}
        found = {path for paths in self._clips.by_name.values() for path in paths}
        unused = sorted(found - used)
        if not unused:
            return self._left_out
        rateless = self._by_file and self._fps is None and any(path.is_dir() for path in unused)
        why = "; a folder of images counts as a clip only with its frame rate: give fps (--fps)" if rateless else ""
        names = listed(map(self._name, unused), 5)
        return [
            f"{len(unused)} of {len(found)} files in {self._folder} belong to no prompt of this run: {names}{why}",
            *self._left_out,
        ]

    def _one(self, request: Request) -> Made:
        path = self._path(request)
        if not path.is_dir():
            return Made(path)
        source = self.source(request)  # first: frames that change while they are read are noticed the next time
        return Made(read_clip(path, fps=self._fps), source=source)

    def _path(self, request: Request) -> Path:
        candidates = self._candidates(request)
        if len(candidates) != 1:
            names = ", ".join(path.name for path in candidates)
            problem = f"several files match: {names}" if candidates else NO_FILE
            msg = f"{problem}; {self._looked_for(request)}"
            raise InputError(msg)
        return candidates[0]

    def _looked_for(self, request: Request) -> str:
        key, named = request.key, _named_file(request)
        if self._by_file:
            return f"looked in {self._folder} for {named}, with any suffix"
        also = " with or without the '-0'" if key.seed == 0 else ""
        looked = f"looked in {self._folder} for {key.prompt}-{key.seed}{also}, and for its caption"
        for name, rival in request.rivals.items():
            if name in self._clips.by_name and self._clips.goes_to(rival):
                looked += f"; the clip {name} fits the prompt {rival.prompt} as well, or better"
        if named:
            return f"the prompts file names {named}, which is not in {self._folder}; also {looked}"
        values = {name: value for name, value in request.prompt.tags.items() if value and isinstance(value, str)}
        unread = [name for name, value in values.items() if is_clip(Path(value)) or self._clips.at(value)]
        if key.seed or not unread:
            return looked
        choices = f"{', '.join(FILE_TAGS[:-1])} or {FILE_TAGS[-1]}"
        return f"{looked}; not read in the prompts file: {listed(unread)}; a clip's file is named by {choices}"

    def _candidates(self, request: Request) -> list[Path]:
        if self._by_file:  # the prompt `dog` is not the clip dog-1, a prompt itself
            return self._clips.at(_named_file(request))
        return self._clips.of(request.key.subset, request.prompt, request.key.seed, request.rivals)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


def _named_file(request: Request) -> str:
    """The file that a prompt names as its clip of seed 0; empty for other seeds, and if it names none."""
    return named_file(request.prompt.tags) if request.key.seed == 0 else ""


def frames_sha256(folder: Path) -> str:
    """A hash of all files in a folder of frames that are not hidden."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    return f"frames:{digest({path.name: content_sha256(path) for path in files})}"
