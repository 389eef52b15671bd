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
"""

import base64
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from avbench.core import InputError, Key, Protocol, Row, Run, Sample, Score, Subset, Value, digest, field_differences


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill, sees either the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def write_json(path: Path, value: object) -> None:
    """Write readable JSON whole; equal values give equal bytes."""
    write_whole(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON. Raises InputError naming the file where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path}: {error}"
        raise InputError(msg) from None


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RunFolder:
    """Reads and writes one run folder. Nothing is made on disk before `start`."""

    def __init__(self, path: Path) -> None:
        self.path = path

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
            write_json(self.path / "run.json", run.to_json())
            return
        there = self.run()
        if unlike := field_differences(run.identity(), there.identity()):
            msg = (
                f"{self.path} holds another run ({'; '.join(unlike)}): give another --out (--work of a reference), or "
                "--replace to make it anew"
            )
            raise InputError(msg)
        if run.preset not in (None, there.preset):
            write_json(self.path / "run.json", replace(there, preset=run.preset).to_json())

    def run(self) -> Run:
        """What run.json says. Raises InputError where a later avbench wrote what this one does not know."""
        plain = read_json(self.path / "run.json")
        if unknown := sorted(plain.keys() - {field.name for field in fields(Run)}):
            msg = f"{self.path / 'run.json'} has the field {unknown[0]!r}: a later version of avbench wrote it"
            raise InputError(msg)
        return Run(**{**plain, "seeds": tuple(plain["seeds"])})

    def subsets(self) -> list[Subset]:
        """The subsets of the run, in its order."""
        return [Subset.from_json(read_json(self.subset_path(name))) for name in self.run().subsets]

    def subset_path(self, name: str) -> Path:
        """Where a subset of the run is kept; `subsets.load` takes it."""
        return self.path / "subsets" / f"{name}.json"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder for writing. Raises InputError while another process holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
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
        plain = read_lines(self.path / "samples.jsonl")
        return {key: Sample(**{**line, "key": key}) for line in plain for key in [Key(*line["key"])]}

    def add_sample(self, sample: Sample) -> None:
        """Append a line to samples.jsonl and wait until it is on disk."""
        append_line(self.path / "samples.jsonl", asdict(sample), durable=True)

    def rows(self, protocol: Protocol) -> dict[Key, Row]:
        """The rows measured under exactly this protocol; of several for one key the last counts."""
        plain = read_lines(self._feature(protocol) / "rows.jsonl")
        return {row.key: row for row in map(_row_from_json, plain)}

    def row_hashes(self, protocol: Protocol, *, without: str | None = None) -> dict[Key, str]:
        """The hash of the clip, or clips, that each row was made of; the values are not kept in memory.

        Args:
            protocol: of the feature.
            without: rows that have this sentence instead of values are left out.
        """
        path = self._feature(protocol) / "rows.jsonl"
        known = {Key(*line["key"]): (line["clip_sha256"], line["missing"]) for line in stream_lines(path)}
        return {key: sha256 for key, (sha256, missing) in known.items() if without is None or missing != without}

    def stream_rows(self, protocol: Protocol) -> Iterator[Row]:
        """The same rows in the order of their keys, one at a time in memory."""
        path = self._feature(protocol) / "rows.jsonl"
        places: dict[Key, int] = {}
        if path.exists():
            with path.open("rb") as file:
                start = 0
                for line in file:
                    if line.endswith(b"\n"):
                        places[Key(*json.loads(line)["key"])] = start
                    start += len(line)
                for key in sorted(places):
                    file.seek(places[key])
                    yield _row_from_json(json.loads(file.readline()))

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
        write_json(self.path / "scores.json", plain)

    def scores(self) -> tuple[list[Score], dict[str, Any]]:
        """Scores and protocols. Raises InputError where the run was not evaluated yet."""
        if not (self.path / "scores.json").exists():
            msg = f"{self.path} has no scores.json: run `avbench evaluate {self.path}` first"
            raise InputError(msg)
        plain = read_json(self.path / "scores.json")
        return [Score.from_json(score) for score in plain["scores"]], plain["protocols"]

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
        return read_json(self.path / "scores.json").get("asked", {})


def append_line(path: Path, value: object, *, durable: bool = False) -> None:
    """Append one JSON line in one write, after dropping a torn last line; `durable` waits for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()
    with path.open("ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.truncate(_whole_lines(path.read_bytes()))
        file.write(line)
        if durable:
            os.fsync(file.fileno())


def read_lines(path: Path) -> list[Any]:
    """Read a file of JSON lines, without a torn last one; none where there is no file.

    Raises:
        InputError: a whole line is not JSON; the message gives its number.
    """
    return list(stream_lines(path))


def stream_lines(path: Path) -> Iterator[Any]:
    """The same as `read_lines`, one in memory at a time."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                msg = f"{path}, line {number}: {error}"
                raise InputError(msg) from None


def _whole_lines(content: bytes) -> int:
    return content.rfind(b"\n") + 1


def _row_to_json(row: Row) -> dict[str, Any]:
    values = None if row.values is None else {name: _value_to_json(value) for name, value in row.values.items()}
    return {"key": row.key, "clip_sha256": row.clip_sha256, "values": values, "missing": row.missing}


def _row_from_json(plain: dict[str, Any]) -> Row:
    values = plain["values"]
    decoded = None if values is None else {name: _value_from_json(value) for name, value in values.items()}
    return Row(Key(*plain["key"]), plain["clip_sha256"], decoded, plain["missing"])


def _value_to_json(value: Value) -> Any:
    if not isinstance(value, np.ndarray):
        return float(value)
    plain = np.ascontiguousarray(value)
    return {"dtype": str(plain.dtype), "shape": plain.shape, "base64": base64.b64encode(plain.tobytes()).decode()}


def _value_from_json(plain: Any) -> Value:
    if isinstance(plain, float):
        return plain
    flat = np.frombuffer(base64.b64decode(plain["base64"]), dtype=np.dtype(plain["dtype"]))
    return flat.reshape(plain["shape"])
