"""The run folder: where everything a run made lies, and how nothing of it is lost.

```
subsets/<subset>.json          the prompts that are asked, so that the folder explains itself
run.json                       what is run, with which settings; both are there before any clip
samples.jsonl                  a line after each clip is safely on disk: the resume point
clips/<subset>/<prompt>-<seed>.mkv, and .truth.json beside it where the truth is known
jobs/                          what a generator keeps for itself: the jobs of a video server, the files of a script
features/<feature>@<protocol>/rows.jsonl, protocol.json
scores.json, and what belongs to it: values.parquet, near_copies.csv
```

Lines are appended in one write each; a line torn by a kill is dropped when the file is next read. Whole files are
written beside their place and moved there. Of files that belong together one is written last and names the hashes of
the others: until it is there, nothing new is, and a reader refuses a mixture. One process at a time may write: a second
one is told so.

A run folder may come from anybody. So all that is read from it is checked: the types of every field, ids that become
parts of paths, hashes (64 hex digits), and paths, which stay inside the folder; and a folder with a link out of it is
neither read nor written.
"""

import base64
import binascii
import fcntl
import functools
import hashlib
import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.core import (
    ClipSpec,
    InputError,
    Key,
    Prompt,
    Protocol,
    Row,
    Run,
    Sample,
    Score,
    Subset,
    Value,
    checked_id,
    digest,
    field_differences,
)
from avbench.storage import reading
from avbench.storage.reading import read_json as read_json
from avbench.storage.reading import read_lines as read_lines
from avbench.storage.reading import stream_lines

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
"""Of run folders. It is raised where an older avbench would read a new folder wrongly; a folder of a lower format is
brought to this one as it is read."""
VALUES_FILE = "values.parquet"
_ARRAYS = {np.dtype(name).name for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")}
"""What a value of a row may be an array of."""
_RENAMED = b'"unlike": ', b'"spec_mismatch": '
"""A field of samples.jsonl as older versions of avbench wrote it, and as it is called now."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill, sees either the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    if beside.is_symlink():
        beside.unlink()
    with os.fdopen(_opened_to_write(beside, os.O_WRONLY | os.O_TRUNC), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def write_json(path: Path, value: object) -> None:
    """Write readable JSON whole; equal values give equal bytes."""
    write_whole(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _write_sealed(path: Path, fields: Mapping[str, Any]) -> None:
    """Write JSON that holds the digest of its other fields."""
    write_json(path, {**fields, "sha256": digest(fields)})


def _read_sealed(path: Path, remedy: str) -> Any:
    """What `_write_sealed` wrote, without the digest; older files have none.

    Raises InputError, which says the `remedy`, where the file was changed since.
    """
    plain = read_json(path)
    written = plain.pop("sha256", None) if isinstance(plain, dict) else None
    if written not in (None, digest(plain)):
        msg = f"{path} was changed after it was written: {remedy}"
        raise InputError(msg)
    return plain


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with reading.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _SubsetFile:
    """subsets/<subset>.json."""

    name: str
    version: int
    prompts: tuple[Prompt, ...]
    clip_spec: Mapping[str, Any] | None
    card: Mapping[str, Any] = field(default_factory=dict)
    cut_from: str | None = None


@dataclass(frozen=True)
class _RowLine:
    """A line of rows.jsonl."""

    key: Key
    clip_sha256: str
    values: Mapping[str, Any] | None
    missing: str | None = None


@dataclass(frozen=True)
class _PackedArray:
    """An array in a line of rows.jsonl."""

    dtype: str
    shape: tuple[int, ...]
    base64: str


@dataclass(frozen=True)
class _ScoresFile:
    """scores.json."""

    scores: tuple[Score, ...]
    protocols: Mapping[str, Mapping[str, Any]]
    asked: Mapping[str, str] = field(default_factory=dict)
    clips: str | None = None
    """Digest of the run's clips when they were scored."""
    files: Mapping[str, str] = field(default_factory=dict)
    """sha256 of each file that was written with the scores."""


def read_subset(path: Path) -> Subset:
    """A subset as a run folder keeps it. Raises InputError where the file is none."""
    found = read_json(path, _SubsetFile)
    try:
        spec = None if found.clip_spec is None else ClipSpec.from_json({**found.clip_spec})
        return Subset(found.name, found.version, found.prompts, spec, found.card, found.cut_from)
    except InputError as error:
        msg = f"{path}: {error}"
        raise InputError(msg) from None


class RunFolder:
    """Reads and writes one run folder. Nothing is made on disk before `start`.

    Every method raises InputError where the folder holds a link out of it, or a file that is not of its form.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @functools.cached_property
    def path(self) -> Path:
        """The folder. Raises InputError where something in it leads out of it."""
        if self._path.is_dir():
            reading.require_no_way_out(self._path, skip=_ITS_OWN)
        return self._path

    def start(self, run: Run, subsets: Sequence[Subset]) -> None:
        """Write run.json and the subsets, or check that the folder holds the same run; then only its preset is renewed.

        A folder in which nothing was made yet, because the first command failed, is taken over.

        Raises:
            InputError: the folder holds another run; the message names what differs.
        """
        known = {"run.json", "subsets", ".lock"}
        fresh = not (self.path / "run.json").exists()
        if fresh or not [one for one in self.path.iterdir() if one.name not in known]:
            shutil.rmtree(self.path / "subsets", ignore_errors=True)
            for subset in subsets:
                write_json(self.subset_path(subset.name), subset.to_json())
            self._write_run(run)
            return
        there = self.run()
        if unlike := field_differences(run.identity(), there.identity()):
            msg = (
                f"{self.path} holds another run ({'; '.join(unlike)}): give another --out (--work of a reference), or "
                "--replace to make it anew"
            )
            raise InputError(msg)
        if run.preset not in (None, there.preset):
            self._write_run(replace(there, preset=run.preset))

    def _write_run(self, run: Run) -> None:
        _write_sealed(self.path / "run.json", {"format": FORMAT, **run.to_json()})

    def run(self) -> Run:
        """What run.json says. Raises InputError where a later avbench wrote what this one does not know."""
        path = self.path / "run.json"
        plain = _read_sealed(path, "put the file back, or make the run anew with --replace")
        if isinstance(plain, dict):
            made = plain.pop("format", 1)  # the first versions of avbench wrote none
            later = type(made) is not int or made > FORMAT
            if later:
                msg = f"{path} is of the format {made!r}, and this avbench reads up to {FORMAT}: install a later one"
                raise InputError(msg)
            if unknown := sorted(plain.keys() - {one.name for one in fields(Run)}):
                msg = f"{path} has the field {unknown[0]!r}: a later version of avbench wrote it"
                raise InputError(msg)
        run = reading.shaped(json.dumps(plain), Run, str(path))
        _require(path, lambda: [checked_id(name, "subset name") for name in run.subsets])
        return run

    def subsets(self) -> list[Subset]:
        """The subsets of the run, in its order. Raises InputError where one is not the one that run.json names."""
        digests = self.run().subsets
        found = {name: read_subset(self.subset_path(name)) for name in digests}
        for name, subset in found.items():
            if subset.name != name:
                msg = f"{self.subset_path(name)} is of the subset {subset.name!r}"
                raise InputError(msg)
            if subset.digest != digests[name]:
                msg = f"{self.subset_path(name)} is not the subset that {self.path / 'run.json'} names: it was changed"
                raise InputError(msg)
        return [*found.values()]

    def subset_path(self, name: str) -> Path:
        """Where a subset of the run is kept; `subsets.load` takes it."""
        return self.path / "subsets" / f"{name}.json"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder for writing. Raises InputError while another process holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with os.fdopen(_opened_to_write(self.path / ".lock", os.O_WRONLY), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                msg = f"{self.path} is being written by another avbench; wait for it, or give another --out"
                raise InputError(msg) from None
            yield

    def clip_stem(self, key: Key) -> Path:
        """Path of a clip without its suffix."""
        return self.path / "clips" / key.subset / f"{key.prompt}-{key.seed}"

    def samples(self) -> dict[Key, Sample]:
        """What has been sampled; of several lines for one key the last counts."""
        path = self.path / "samples.jsonl"
        check = self._checked(path)
        lines = (
            reading.parsed(line.replace(*_RENAMED), f"{path}, line {number}", Sample)
            for number, _, line in reading.raw_lines(path)
        )
        return {sample.key: sample for sample in map(check, lines)}

    def _checked(self, path: Path) -> Callable[[Sample], Sample]:
        """A check of lines of `path`: of what becomes a part of a path."""

        def check(sample: Sample) -> Sample:
            _require_key(path, sample.key)
            if sample.path is not None:
                reading.inside(self.path, sample.path)
                _require_sha256(path, sample.sha256, sample.key)
            return sample

        return check

    def add_sample(self, sample: Sample) -> None:
        """Append a line to samples.jsonl and wait until it is on disk."""
        append_line(self.path / "samples.jsonl", asdict(sample), durable=True)

    def rows(self, protocol: Protocol) -> dict[Key, Row]:
        """The rows measured under exactly this protocol; of several for one key the last counts."""
        path = self._feature(protocol) / "rows.jsonl"
        return {line.key: _row(path, line) for line in stream_lines(path, _RowLine)}

    def row_hashes(self, protocol: Protocol, *, without: str | None = None) -> dict[Key, str]:
        """The hash of the clip, or clips, that each row was made of; the values are not kept in memory.

        Args:
            protocol: of the feature.
            without: rows that have this sentence instead of values are left out.
        """
        path = self._feature(protocol) / "rows.jsonl"
        known = {line.key: (line.clip_sha256, line.missing) for line in stream_lines(path, _RowLine)}
        return {key: sha256 for key, (sha256, missing) in known.items() if without is None or missing != without}

    def stream_rows(self, protocol: Protocol) -> Iterator[Row]:
        """The same rows in the order of their keys, one at a time in memory."""
        path = self._feature(protocol) / "rows.jsonl"
        places: dict[Key, tuple[int, int]] = {}
        for number, start, line in reading.raw_lines(path):
            places[reading.parsed(line, f"{path}, line {number}", _RowLine).key] = number, start
        if places:
            with reading.opened(path) as file:
                for key in sorted(places):
                    number, start = places[key]
                    file.seek(start)
                    where = f"{path}, line {number}"
                    line = reading.without_checksum(file.readline(), where)
                    yield _row(path, reading.parsed(line, where, _RowLine))

    def add_row(self, protocol: Protocol, row: Row) -> None:
        """Append one row of a feature."""
        place = self._feature(protocol)
        if not (place / "protocol.json").exists():
            write_json(place / "protocol.json", protocol.describe())
        append_line(place / "rows.jsonl", _row_to_json(row))

    def _feature(self, protocol: Protocol) -> Path:
        return self.path / "features" / f"{protocol.name}@{protocol.digest[:12]}"

    def write_scores(
        self,
        scores: list[Score],
        protocols: Mapping[str, Any],
        asked: Mapping[str, str] | None = None,
        parts: Mapping[str, bytes] | None = None,
    ) -> None:
        """Write an evaluation: its parts, and then scores.json, which makes it valid.

        Args:
            scores: of every metric.
            protocols: those that the scores' digests name.
            asked: the paths of the reference and of the run beside it.
            parts: name and content of the files that belong to the scores; scores.json has their hashes.
        """
        parts = parts or {}
        for name, content in parts.items():
            write_whole(self.path / name, content)
        plain: dict[str, Any] = {"scores": [score.to_json() for score in scores]}
        plain |= {"protocols": dict(sorted(protocols.items())), **({"asked": dict(asked)} if asked else {})}
        plain["clips"] = self._clips_digest()
        if parts:
            plain["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
        _write_sealed(self.path / "scores.json", plain)

    def scores(self) -> tuple[list[Score], dict[str, Any]]:
        """Scores and protocols. Raises InputError where the run was not evaluated yet."""
        if not (self.path / "scores.json").exists():
            msg = f"{self.path} has no scores.json: run `avbench evaluate {self.path}` first"
            raise InputError(msg)
        found = self._scores()
        return [*found.scores], {**found.protocols}

    def require_one_evaluation(self, name: str) -> None:
        """Check that a file that was written with the scores still belongs to them.

        Raises:
            InputError: it is missing, it is not the one that scores.json was written with, or the run has other clips
                since.
        """
        path, scored = self.path / name, self.path / "scores.json"
        if not path.is_file():
            msg = f"{path} is missing: run `avbench evaluate {self.path}`"
            raise InputError(msg)
        plain = read_json(scored) if scored.exists() else {}
        if "clips" in plain and plain["clips"] != self._clips_digest():
            msg = (
                f"{self.path} was evaluated before some of its clips were made, or made again, so that its scores are "
                f"of other clips than it holds: run `avbench measure {self.path}` and `avbench evaluate {self.path}`"
            )
            raise InputError(msg)
        if plain.get("files", {}).get(name) not in (None, file_sha256(path)):
            msg = (
                f"{path} and scores.json are not of one evaluation (one was interrupted, or a file was exchanged): run "
                f"`avbench evaluate {self.path}` again"
            )
            raise InputError(msg)

    def _clips_digest(self) -> str:
        """Of what clips the run has."""
        return digest([[*key, one.sha256] for key, one in sorted(self.samples().items()) if one.sha256])

    def scored_with(self) -> dict[str, str]:
        """The paths of the reference and of the run beside it that the scores were asked with; none as a rule."""
        return {**self._scores().asked}

    def _scores(self) -> _ScoresFile:
        path = self.path / "scores.json"
        plain = _read_sealed(path, f"run `avbench evaluate {self.path}` again")
        found = reading.shaped(json.dumps(plain), _ScoresFile, str(path))
        if not found.scores:
            msg = f"{path} holds no score: run `avbench evaluate {self.path}` again"
            raise InputError(msg)
        subsets = self.run().subsets
        for where, count in Counter((score.subset, score.metric) for score in found.scores).items():
            if count > 1 or where[0] not in subsets:
                wrong = "is scored twice" if count > 1 else "is of no subset of the run"
                msg = f"{path}: {where[1]} on {where[0]} {wrong}"
                raise InputError(msg)
        if unknown := [score.metric for score in found.scores if score.protocol not in found.protocols]:
            msg = f"{path}: the protocol of {unknown[0]} is not in it"
            raise InputError(msg)
        return found

    def values(self) -> "pd.DataFrame":
        """values.parquet: subset, prompt, seed, metric and value, which is NaN where a clip has none.

        Raises:
            InputError: the file is missing or damaged, holds infinity, a clip's value twice, or not as many values as
                the scores are of.
        """
        path = self.path / VALUES_FILE
        if not path.exists():
            msg = f"{self.path} has no {VALUES_FILE}: run `avbench evaluate {self.path}` first"
            raise InputError(msg)
        kinds = {"subset": str, "prompt": str, "seed": int, "metric": str, "value": float}
        table = reading.read_parquet(path, kinds)
        if np.isinf(table["value"].to_numpy(dtype=float)).any():
            msg = f"{path} holds infinity, which is no value of a clip"
            raise InputError(msg)
        if table.duplicated(["subset", "prompt", "seed", "metric"]).any():
            msg = f"{path} holds two values of one metric for one clip"
            raise InputError(msg)
        counts = table.dropna(subset="value").groupby(["subset", "metric"]).size()
        for score in self.scores()[0]:
            where = (score.subset, score.metric)
            there = int(counts.get(where, 0))
            if there != score.n and (there or score.interval):  # a distance has no value of its own for a clip
                msg = (
                    f"{path} has {there} values of {score.metric} on {score.subset}, and scores.json is of {score.n}: "
                    f"the two do not belong together; run `avbench evaluate {self.path}` again"
                )
                raise InputError(msg)
        return table


_ITS_OWN = ("jobs",)
"""Folders of a run folder in which a generator keeps what it likes; nothing there is read as a part of the run."""


def _require(path: Path, check: Callable[[], object]) -> None:
    """Do a check; its sentence gets the file's name."""
    try:
        check()
    except InputError as error:
        msg = f"{path}: {error}"
        raise InputError(msg) from None


def _require_key(path: Path, key: Key) -> None:
    _require(path, lambda: (checked_id(key.subset, "subset name"), checked_id(key.prompt, "prompt id")))


def _require_sha256(path: Path, sha256: str | None, key: Key) -> None:
    if sha256 is None or not _SHA256.fullmatch(sha256):
        msg = f"{path}: the sha256 of {'/'.join(map(str, key))} is {sha256!r}; it must be 64 hex digits"
        raise InputError(msg)


def _opened_to_write(path: Path, flags: int) -> int:
    """The number of a file that is made where it is not there; a link in its place is refused, not followed."""
    try:
        return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if path.is_symlink():
            msg = f"{path} is a link; nothing is written where it leads"
            raise InputError(msg) from None
        msg = f"{path} cannot be written: {error.strerror}"
        raise InputError(msg) from None


def append_line(path: Path, value: object, *, durable: bool = False) -> None:
    """Append one JSON object with its checksum in one write, after dropping a torn last line.

    With `durable` the disk is waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = reading.with_checksum(json.dumps(value, ensure_ascii=False, allow_nan=False).encode()) + b"\n"
    with os.fdopen(_opened_to_write(path, os.O_RDWR | os.O_APPEND), "ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.truncate(_whole_lines(path.read_bytes()))
        file.write(line)
        if durable:
            os.fsync(file.fileno())


def _whole_lines(content: bytes) -> int:
    return content.rfind(b"\n") + 1


def _row_to_json(row: Row) -> dict[str, Any]:
    values = None if row.values is None else {name: _value_to_json(value) for name, value in row.values.items()}
    return {"key": row.key, "clip_sha256": row.clip_sha256, "values": values, "missing": row.missing}


def _row(path: Path, line: _RowLine) -> Row:
    """A line as a row. Raises InputError where its values are none."""
    _require_key(path, line.key)
    where = f"{path}: {'/'.join(map(str, line.key))}"
    values = None
    if line.values is not None:
        values = {name: _value_from_json(value, f"{where}: {name}") for name, value in line.values.items()}
    try:
        return Row(line.key, line.clip_sha256, values, line.missing)
    except InputError as error:
        msg = f"{path}: {error}"
        raise InputError(msg) from None


def _value_to_json(value: Value) -> Any:
    if not isinstance(value, np.ndarray):
        return float(value)
    plain = np.ascontiguousarray(value)
    return {"dtype": str(plain.dtype), "shape": plain.shape, "base64": base64.b64encode(plain.tobytes()).decode()}


def _value_from_json(plain: Any, where: str) -> Value:
    if isinstance(plain, float):
        return plain
    packed = reading.shaped(json.dumps(plain), _PackedArray, where)
    try:
        content = base64.b64decode(packed.base64, validate=True)
    except (binascii.Error, ValueError) as error:
        msg = f"{where} is not base64: {error}"
        raise InputError(msg) from None
    if packed.dtype not in _ARRAYS:
        msg = f"{where} is an array of {packed.dtype!r}; it must be one of {', '.join(sorted(_ARRAYS))}"
        raise InputError(msg)
    dtype, shape = np.dtype(packed.dtype), packed.shape
    if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != len(content):
        msg = f"{where} has {len(content)} bytes, which is no {packed.dtype} array of the shape {list(shape)}"
        raise InputError(msg)
    return np.frombuffer(content, dtype=dtype).reshape(shape)
