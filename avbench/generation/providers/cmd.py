"""Runs a user's script as a generator: ``cmd:SCRIPT ARGS…``, for models that live in another environment.

The script is run once per batch, with one more argument, the path of a JSON file: ``{"folder": …, "requests": [{"id",
"subset", "seed", "video_caption", "audio_caption", "tags", "clip_spec", "file"}, …]}``. It writes each clip to its
`file`, adding a suffix that `read_clip` reads, or makes a folder of numbered frames of that name; it should write to a
temporary name and rename. Its output is kept in `folder`. With exit code 0, a clip that it did not write is recorded as
a failure of that clip. With another exit code it is run again for the clips it did not write, with the first of them
moved to the end, until one clip is left that it fails to make, or two runs in a row add none (three, if one of them
wrote a clip that may be cut off), or one that ran out of time; a first run is tried once more. Each clip that is
missing then is tried alone, the last one first, until one runs out of time; a script that never wrote a clip is given
up after that one, or at once if it ran out of time. So prompts that crash the script, or hang, do not stop the others.
What such a run was writing last, maybe in several processes, may be cut off; it is kept only if it is shown to be
whole. The command line is recorded, so put secrets in environment variables.

Everything that the command names is identified by content, so that a changed script or checkpoint is another model:
the program, unless it is a launcher such as python; every file, and those that a shell script names; the Python files
that a named file imports, and those of ``-m module`` in the current folder; and the weights and configurations in every
folder. ``-M inputs=`` names other files and folders instead, for those that the script opens by itself.
"""

import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from avbench.core import ClipSpec, HopelessError, InputError, frame_rate, listed
from avbench.generation.detect import fingerprint
from avbench.generation.identity import module_files, named_paths, real_script, source_files
from avbench.generation.settings import check_kinds
from avbench.generation.table import Made, Request
from avbench.storage.content import content_sha256
from avbench.storage.media import IMAGE_SUFFIXES, MEDIA_SUFFIXES, SOUND_SUFFIXES, read_clip
from avbench.storage.media.clip_files import SOUND_BESIDE
from avbench.storage.media.integrity import is_finished
from avbench.storage.reading import exists
from avbench.storage.runs.folder import OF_A_SCRIPT
from avbench.storage.writing import write_json

_SLOW, _BROKEN = "slow", "broken"
_SCRIPT_BYTES, _STDERR_BYTES = 2**20, 2**16
_TRACEBACK_ERROR = re.compile(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(\S.*)", re.MULTILINE)
_OF_RANK = re.compile(r"^\[[a-z]+\d+\]: ?", re.MULTILINE)
"""What torchrun puts before every line of one of its processes."""
_OF_TORCHRUN = "torch.distributed.elastic."
"""Its own error after that of a process, which only says that there was one."""
_INTERPRETERS = re.compile(r"(python|pypy)[\d.]*t?|(ba|da|z|fi|)sh")
"""Launchers whose first argument, unless it is an option, is a script on this machine."""
_LAUNCHERS = re.compile(
    rf"{_INTERPRETERS.pattern}|env|conda|(micro)?mamba|uvx?|poetry|pixi|torchrun|accelerate|deepspeed"
    r"|docker|podman|apptainer|singularity|srun|mpirun|ssh|nice|time(out)?|xvfb-run"
)
"""Programs that only run other programs; an update of one does not make another model."""


class _CutOffError(InputError):
    """A script failed, and what it wrote of this clip is not kept."""


class Command:
    """A command as a generator."""

    def __init__(
        self,
        target: str,
        *,
        batch: int = 16,
        concurrency: int = 1,
        timeout: float = 3600,
        inputs: str | Sequence[str] | None = None,
        fps: float | str | None = None,
        journal: Path | None = None,
    ) -> None:
        """Split the command as a shell would; nothing is run.

        Args:
            target: the command.
            batch: clips per run of the script.
            concurrency: runs of the script at once.
            timeout: seconds for one run of the script.
            inputs: paths of the files and folders that identify the model, instead of those that the command names.
            fps: the frame rate of folders of frames, which have none; that of the clip spec by default.
            journal: folder for the script's output; a temporary one by default.
        """
        try:
            self._words = shlex.split(target)
        except ValueError as error:
            msg = f"cmd:{target}: {error}"
            raise InputError(msg) from None
        if not self._words or not shutil.which(self._words[0]):
            named = self._words[0] if self._words else ""
            is_file = exists(Path(named)) and Path(named).is_file()
            why = "is a file that may not be run" if is_file else "is not a command that can be run"
            msg = f"cmd:{target}: {named!r} {why}; write cmd:SCRIPT ARGS…, such as cmd:python make.py"
            raise InputError(msg)
        program, *arguments = self._words
        script = arguments[0] if arguments and _INTERPRETERS.fullmatch(Path(program).name) else ""
        if script and not script.startswith("-") and not (exists(Path(script)) or shutil.which(script)):
            msg = f"cmd:{target}: there is no script {script!r}"
            raise InputError(msg)
        limits = {"batch": batch, "concurrency": concurrency, "timeout": timeout}
        check_kinds(limits, counts=["batch", "concurrency"], positive=["timeout"])
        self.batch_size, self.concurrency, self._timeout_seconds = batch, concurrency, timeout
        self._frame_rate = None if fps is None else frame_rate(fps)
        self._lengths: set[tuple[ClipSpec | None, int]] = set()
        """Of whole clips, as far as they had to be counted."""
        self._has_written = False
        """Whether a run of the script, maybe one that failed, wrote a clip."""
        self._kept = journal is not None
        if journal is None:
            journal = Path(tempfile.mkdtemp(prefix="avbench-"))
            weakref.finalize(self, shutil.rmtree, journal, ignore_errors=True)
        self._journal = journal
        self._scripts = _Scripts()
        weakref.finalize(self, self._scripts.end)
        words = [*map(real_script, self._words)]
        rate = {} if fps is None else {"fps": str(self._frame_rate)}
        self.settings: Mapping[str, Any] = {"command": words, **rate, **_content_hashes(words, inputs)}

    def generate(self, requests: Sequence[Request]) -> list[Made | InputError]:
        """Run the script on a batch; a clip that it did not write is an error with the script's last words."""
        made: dict[int, Made | InputError] = {}
        left, runs, idle, cut_off = list(range(len(requests))), 0, 0, False
        while True:
            runs += 1
            found, trouble = self._batch([requests[number] for number in left])
            made |= dict(zip(left, found, strict=True))
            failed = [number for number in left if isinstance(made[number], InputError)]
            idle = 0 if len(failed) < len(left) else idle + 1
            cut_off = (cut_off and idle > 0) or any(isinstance(one, _CutOffError) for one in found)
            once_more = trouble != _SLOW and idle <= (2 if cut_off else 1) and (runs == 1 or len(left) > 1)
            if trouble is None or not failed or not (idle == 0 or once_more):
                break
            left = [*failed[1:], failed[0]]
        if len(failed) > 1 and (trouble == _BROKEN or (trouble == _SLOW and self._has_written)):
            for number in sorted(failed, reverse=True):
                (made[number],), trouble = self._batch([requests[number]])
                if trouble == _SLOW or not self._has_written:
                    break
        return [made[number] for number in range(len(requests))]

    def _batch(self, requests: Sequence[Request]) -> tuple[list[Made | InputError], str | None]:
        """Run the script once; return a clip or error per request, and its failure: ``_SLOW``, ``_BROKEN`` or None.

        Their sentences do not name the clip, so that equal ones are counted together.
        """
        self._journal.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=OF_A_SCRIPT, dir=self._journal.resolve()))
        stems = [folder / f"{one.key.subset}--{one.key.prompt}-{one.key.seed}" for one in requests]
        asked = [_request_json(request, stem) for request, stem in zip(requests, stems, strict=True)]
        write_json(folder / "requests.json", {"folder": str(folder), "requests": asked})
        kind, trouble = self._run(folder)
        found = [_written(stem) for stem in stems]
        self._has_written = self._has_written or any(found)
        torn = self._torn(kind, requests, found) if kind else set()
        made: list[Made | InputError] = []
        for request, stem, paths in zip(requests, stems, found, strict=True):
            if len(paths) > 1:
                made.append(InputError(f"the script wrote several files: {', '.join(path.suffix for path in paths)}"))
            elif torn.intersection(paths):
                made.append(_CutOffError(f"{trouble}; what it wrote last is not kept, because it may be cut off"))
            elif not paths:
                nothing = f"the script wrote nothing to the clip's file; {self._last_words(folder)}"
                made.append(InputError(trouble or _unread(stem) or nothing))
            elif (fps := self._fps(request)) is None and paths[0].is_dir():
                msg = "the script wrote a folder of frames, which has no rate: give -M fps="
                raise HopelessError(msg)
            else:
                made.append(Made(paths[0], moved=True, fps=fps if paths[0].is_dir() else None, remark=_sound(stem)))
        return made, kind

    def _torn(self, kind: str, requests: Sequence[Request], found: Sequence[Sequence[Path]]) -> set[Path]:
        """What a run that failed wrote and may be cut off.

        That is what it was writing last, unless it is as long as another clip for the same clip spec; or, of a run that
        was killed at its time limit, unless the file was closed, which a script that fails may do halfway.
        """
        written = {path: request.clip_spec for request, paths in zip(requests, found, strict=True) for path in paths}
        suspects = _written_last([*written])
        if kind == _SLOW:
            suspects = {path for path in suspects if path.is_dir() or not is_finished(path)}
        if suspects:
            self._lengths |= {(spec, _frames(path)) for path, spec in written.items() if path not in suspects}
        counts = {path: _frames(path) for path in suspects}
        return {path for path, count in counts.items() if not count or (written[path], count) not in self._lengths}

    def _fps(self, request: Request) -> Fraction | None:
        """The rate of a folder of frames."""
        return self._frame_rate or (request.clip_spec and request.clip_spec.fps)

    def _run(self, folder: Path) -> tuple[str | None, str | None]:
        """Run the script; return the kind of its failure and a sentence about it, or None twice."""
        with (folder / "stdout.txt").open("wb") as out, (folder / "stderr.txt").open("wb") as errors:
            try:
                code = self._scripts.run(
                    [*self._words, str(folder / "requests.json")], out, errors, self._timeout_seconds
                )
            except subprocess.TimeoutExpired:
                limit = f"{self._timeout_seconds:g} s (-M timeout=; -M batch= gives it fewer clips)"
                return _SLOW, f"the script did not end within {limit}; {self._last_words(folder)}"
        if code == 0:
            return None, None
        ended = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
        return _BROKEN, f"the script ended with {ended}; {self._last_words(folder)}"

    def _last_words(self, folder: Path) -> str:
        """What a batch's script said last; the batch is not named, so that equal failures are counted together."""
        if not (words := _last_words(folder / "stderr.txt")):
            return "it wrote nothing to stderr"
        return f"{words} (all of it: {self._journal.name}/*/stderr.txt)" if self._kept else words


class _Scripts:
    """Runs scripts, maybe several in threads. None survives this process, whose end such a thread does not notice."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._changing, self._over = threading.Lock(), False

    def run(self, words: Sequence[str], out: BinaryIO, errors: BinaryIO, seconds: float) -> int:
        """Run a script and return its exit code. Raises TimeoutExpired, and kills it, if it takes too long."""
        with self._changing:
            if self._over:
                msg = "avbench is ending"
                raise InputError(msg)
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, start_new_session=True
            )
            self._running.add(process)
        try:
            code = process.wait(seconds)
        except BaseException:
            _kill(process)
            raise
        finally:
            self._running.discard(process)
        if code:  # other ranks may go on, with a GPU's memory that the next run needs
            with suppress(ProcessLookupError, PermissionError):  # there are none; of macOS: all of them have ended
                os.killpg(process.pid, signal.SIGKILL)
        return code

    def end(self) -> None:
        """Kill what runs, and let nothing start any more."""
        with self._changing:
            self._over = True
        for process in [*self._running]:
            _kill(process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a script and its children."""
    if process.poll() is None:  # it was not waited for yet, so its process number is still its own
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _content_hashes(words: Sequence[str], inputs: str | Sequence[str] | None) -> dict[str, Any]:
    """``files_sha256``, and ``folders`` if there are any: the hashes of what decides the clips."""
    chosen = [inputs] if isinstance(inputs, str) else inputs
    if chosen is not None and not (
        isinstance(chosen, list | tuple) and all(isinstance(one, str) and one for one in chosen)
    ):
        msg = f"-M inputs={inputs}: it must be a path as text, or a JSON list of paths"
        raise InputError(msg)
    if chosen is not None and (absent := [one for one in chosen if not exists(Path(one))]):
        msg = f"-M inputs: {absent[0]} does not exist"
        raise InputError(msg)
    paths = [Path(one) for one in (named_paths(words) if chosen is None else chosen)]
    files = {str(path): content_sha256(path) for path in paths if path.is_file() and not _launches(path)}
    program = Path(shutil.which(words[0]) or words[0])
    if chosen is None and not _launches(program):
        files[str(Path(words[0]))] = content_sha256(program)
    for name in [*files]:
        files |= {path: content_sha256(Path(path)) for path in _named_by_script(Path(name)) if path not in files}
    for path in [Path(name) for name in files if name.endswith(".py")]:
        files |= {(path.parent / name).as_posix(): sha256 for name, sha256 in source_files(path).items()}
    for flag, name in itertools.pairwise(words):
        if flag == "-m" and chosen is None:
            files |= module_files(name, Path.cwd())
    folders = {str(path): fingerprint(path) for path in paths if path.is_dir()}
    return {"files_sha256": dict(sorted(files.items())), **({"folders": folders} if folders else {})}


def _named_by_script(script: Path) -> list[str]:
    """Return the files, relative to the current folder, that the words of a shell script name."""
    if not script.is_file() or script.stat().st_size > _SCRIPT_BYTES:
        return []
    text = script.read_bytes()
    if script.suffix not in (".sh", ".bash") and not re.match(rb"#!.*sh\b", text):
        return []
    words = re.split(r"[\s\"'`;&|()<>]+", text.decode(errors="replace"))
    return [path for path in named_paths(words) if Path(path).is_file() and not _launches(Path(path))]


def _launches(program: Path) -> bool:
    return _LAUNCHERS.fullmatch(program.name) is not None


def _request_json(request: Request, stem: Path) -> dict[str, Any]:
    prompt, spec = request.prompt, request.clip_spec
    return {
        "id": prompt.id,
        "subset": request.key.subset,
        "seed": request.key.seed,
        "video_caption": prompt.video_caption,
        "audio_caption": prompt.audio_caption,
        "tags": dict(prompt.tags),
        "clip_spec": spec.to_json() if spec else None,
        "file": str(stem),
    }


def _written(stem: Path) -> list[Path]:
    """The files that a script wrote as a clip, or its folder of frames."""
    files = _beside(stem, MEDIA_SUFFIXES)
    frames = stem.is_dir() and any(path.suffix.lower() in IMAGE_SUFFIXES for path in stem.iterdir())
    return files or ([stem] if frames else [])


def _written_last(written: Sequence[Path]) -> set[Path]:
    """The clip that was written last, and those that other processes were writing at the same time.

    Only a folder of frames shows when it was begun; other files show by themselves where they are cut off.
    """
    times = {path: [one.stat().st_mtime_ns for one in (path, *path.glob("*")) if one.is_file()] for path in written}
    begun = min(max(times.values(), key=max, default=[0]))
    return {path for path, changed in times.items() if max(changed) >= begun}


def _frames(path: Path) -> int:
    """The number of a clip's frames; 0 if it cannot be read."""
    try:
        return len(read_clip(path, fps=1 if path.is_dir() else None, most_held=0).frames)
    except InputError:
        return 0


def _beside(stem: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of a clip's name with one of these suffixes, in small or capital letters."""
    named = [path for path in sorted(stem.parent.iterdir()) if path.name.startswith(stem.name)]
    return [path for path in named if path.name[len(stem.name) :].lower() in suffixes and path.is_file()]


def _sound(stem: Path) -> str | None:
    """A remark on a file of sound beside the clip, which is not read."""
    files = _beside(stem, SOUND_SUFFIXES)
    return f"{files[0].name} is left out: {SOUND_BESIDE}" if files else None


def _unread(stem: Path) -> str | None:
    """Why no clip is read from what lies in its place; None if nothing does."""
    there = sorted(path for path in stem.parent.iterdir() if stem.name in (path.name, path.stem))
    if not there:
        return None
    found = [
        path.name[len(stem.name) :] or ("a folder" if path.is_dir() else "a file without suffix") for path in there
    ]
    read = f"suffixes read: {', '.join(MEDIA_SUFFIXES)}, or a folder of numbered frames"
    return f"the script wrote {listed(found, 3)}, which is no clip; {read}"


def _last_words(stderr: Path) -> str:
    """The error of the last traceback in stderr, without further lines of its message, and the last line, if any.

    Further lines of the message and what was written after it, which may be the reason, cannot be told apart.
    """
    with stderr.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _STDERR_BYTES))
        text = _OF_RANK.sub("", file.read().decode(errors="replace"))
    errors = [error.strip() for error in _TRACEBACK_ERROR.findall(text)]
    error = ([one for one in errors if not one.startswith(_OF_TORCHRUN)] or errors or [""])[-1]
    last = next((line.strip() for line in reversed(text.splitlines()) if re.search(r"\w", line)), "")
    said = {"its last error": error, "its last words": "" if last == error else last}
    return "; ".join(f"{what}: {words[:300]}" for what, words in said.items() if words)
