"""Reads and writes run folders, which hold everything that a run made; a killed process leaves them readable.

```
subsets/<subset>.json          the prompts, so that the folder explains itself
run.json                       model and settings; written, like the subsets, before any clip
samples.jsonl                  one line per clip, appended after the clip is safely on disk: the resume point
clips/<subset>/<prompt>-<seed>.mkv, and .truth.json with the ground truth where it is known
jobs/                          a generator's own files: the jobs of a video server, the files of a script
features/<feature>@<protocol>/rows.jsonl, protocol.json
scores.json, values.parquet, near_copies.csv
.progress.json, .mirror.json   how far the last command came, and the state of the mirror; no part of the run
.mirror.part/                  files on their way from or to the mirror; the next command deletes what a kill leaves
```

A line that a kill cut off is dropped when the file is next read. Of files that belong together, the last one written
holds the hashes of the others, so a reader can refuse a mixture of old and new. Only one process at a time may write; a
second one gets an error.

A run folder may come from anybody, so everything read from it is checked: the types of all fields, ids that become
parts of paths, hashes (64 hex digits), and paths, which must stay inside the folder. A folder with a link out of it is
neither read nor written.
"""

import copy
import functools
import hashlib
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from avbench.core import (
    OTHER_CONTENT,
    ClipSpec,
    InputError,
    Key,
    Prompt,
    Protocol,
    Row,
    Run,
    Sample,
    Score,
    Shard,
    Subset,
    as_typed,
    checked_id,
    digest,
    features_in,
    field_differences,
    folder_name,
    is_sha256,
    planned_keys,
    require_ids,
)
from avbench.storage import reading
from avbench.storage.object_storage import address_in, require_no_address
from avbench.storage.reading import file_sha256, read_json, read_lines, stream_lines
from avbench.storage.runs.evaluation import Evaluation
from avbench.storage.runs.row_lines import RowLine, digest_of_rows, row_of, row_to_json, stored_rows
from avbench.storage.sharing import without_folders
from avbench.storage.writing import (
    append_line,
    json_bytes,
    line_of,
    read_sealed,
    sealed,
    write_json,
    write_sealed,
    write_whole,
    writing_whole,
    written_alone,
)

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
"""Version of the run folder's format. It is raised when an older avbench would misread a new folder."""
VALUES_FILE, NEAR_FILE = "values.parquet", "near_copies.csv"
REAL = "real"
"""Column of VALUES_FILE: of a ≈ metric, the mean value of the reference's clips of the same prompt."""
SCORED = ("scores.json", VALUES_FILE, NEAR_FILE)
"""Files of an evaluation, which belong to the clips that were scored."""
PROGRESS_FILE = ".progress.json"
"""The progress of the last command; see progress.py."""
MIRROR_FILE = ".mirror.json"
"""What the folder and its mirror had in common last; see storage/mirrors/state.py."""
MIRROR_WORK = ".mirror.part"
"""A folder for files on their way from or to the mirror."""
OF_A_SCRIPT = "batch-"
"""Beginning of the names of folders in jobs/ with the files of a script."""


@dataclass(frozen=True)
class _SubsetFile:
    """subsets/<subset>.json."""

    name: str
    version: int
    prompts: tuple[Prompt, ...]
    clip_spec: Mapping[str, Any] | None
    card: Mapping[str, Any] = field(default_factory=dict)
    cut_from: str | None = None


def _made_before_clips(one: Path) -> bool:
    """Whether something in a run folder is there before any clip: a hidden file, run.json, the subsets, or jobs/ with
    nothing but the files of scripts; jobs of a video server may be paid.
    """
    if one.name == "jobs" and one.is_dir():
        return all(job.name.startswith(OF_A_SCRIPT) for job in one.iterdir())
    return one.name in ("run.json", "subsets") or one.name.startswith(".")


def read_subset(path: Path) -> Subset:
    """Read a subset file of a run folder. Raises InputError if it is not one."""
    found = read_json(path, _SubsetFile)
    with reading.naming(path):
        spec = None if found.clip_spec is None else ClipSpec.from_json({**found.clip_spec})
        subset = Subset(found.name, found.version, found.prompts, spec, found.card, found.cut_from)
    return subset


def no_run(path: Path) -> InputError:
    """The error on a folder that is no run. It names the runs that lie in the folder, and what a pattern needs."""
    inside = runs_inside(sorted(str(one.parent) for one in path.glob("*/run.json")))
    if has_magic(str(path)) and not path.exists():
        inside = (
            "; a pattern is expanded by the shell if it has no quotes, and by compare, report and power after NAME=, "
            f"which makes the runs trainings of one arm: 'NAME={path}'"
        )
    if address := address_in(path):
        inside = f"; it is an address, from which `avbench runs pull {as_typed(address)} FOLDER` gets a run"
    return InputError(f"{path} is not a run folder: it has no run.json{inside}")


def runs_inside(runs: Sequence[str]) -> str:
    """The end of a sentence that names the runs of a folder, if there are some."""
    return f"; the runs in it are {', '.join(runs[:4])}{' and more' if len(runs) > 4 else ''}" if runs else ""


def named_apart(folders: Sequence["RunFolder"]) -> None:
    """Put the names of their parent folders in front of the names of runs that have one name.

    Raises:
        InputError: a folder is given twice.
    """
    places = [folder.path.resolve() for folder in folders]
    if twice := [place for place in places if places.count(place) > 1]:
        msg = f"the run {twice[0]} is given twice"
        raise InputError(msg)
    for depth in range(2, max((len(place.parts) for place in places), default=0)):
        names = Counter(folder.name for folder in folders)
        for folder, place in zip(folders, places, strict=True):
            if names[folder.name] > 1:
                folder.name = "-".join(place.parts[-depth:])


class RunFolder:
    """Reads and writes one run folder. Nothing is created on disk before `start`.

    Every method raises InputError if the folder contains a link out of it, or a file in a wrong format.
    """

    scores_are_stored = True
    """Whether the scores are those of scores.json; else they are in memory alone."""

    def __init__(self, path: Path, placed_by: str | None = None) -> None:
        """Nothing is read yet.

        Args:
            path: of the folder.
            placed_by: the option that decides the path, such as ``out (--out)``; errors advise another value of it.
        """
        self._path = path
        self.name = (path.resolve() if path.name in ("", "..") else path).name
        """Names the run in tables and pages: the name of the folder, or what `named_apart` made of it."""
        self.or_elsewhere = f", or give another {placed_by}" if placed_by else ""
        """Ends a sentence of advice."""

    @functools.cached_property
    def path(self) -> Path:
        """The folder. Raises InputError if it contains a link out of it."""
        if self._path.is_dir():
            reading.require_no_way_out(self._path, skip=_ITS_OWN)
        return self._path

    def seen_from(self, folder: Path) -> Self:
        """The same run, of which a relative path starts at `folder` wherever the process works by now."""
        if self._path.is_absolute() or folder == Path.cwd():
            return self
        seen = copy.copy(self)
        seen._path = folder / self._path
        seen.__dict__.pop("path", None)
        return seen

    @property
    def typed(self) -> str:
        """The folder as a user types it in a command."""
        return as_typed(self.path)

    @property
    def has_clips(self) -> bool:
        """Whether its clips are there, to be measured again; a baseline has none."""
        return (self.path / "clips").is_dir()

    def start(self, run: Run, subsets: Sequence[Subset]) -> None:
        """Write run.json and the subsets, or check that the folder already holds this run and update its preset.

        A run that asks for more prompts, seeds or subsets, and for all that the folder's run asked for, extends it. A
        folder without any clip, whose first command failed, is overwritten.

        Raises:
            InputError: the folder holds another run; the message names what differs. Or it has clips and no run.json.
                Or names differ in case alone, and the file system does not tell them apart.
        """
        self.require_distinct(subsets)
        fresh = not (self.path / "run.json").exists()
        if fresh and self.has_samples():
            msg = (
                f"{self.path} has a samples.jsonl but no run.json, so it is not known what made its clips: put the "
                f"file back{self.or_elsewhere}, or give replace=True (--replace) to delete the clips and start again"
            )
            raise InputError(msg)
        if fresh or all(_made_before_clips(one) for one in self.path.iterdir()):
            shutil.rmtree(self.path / "subsets", ignore_errors=True)
            self._write_subsets(subsets)
            self.write_run(run)
            return
        if why := self.objection(run, subsets):
            again = "to delete it and start again"
            if run.model.startswith("clips:"):
                again += "; what was measured of clips that stay is kept"
            advice = f"{self.or_elsewhere}, or give replace=True (--replace) {again}"
            if (self.path / MIRROR_FILE).is_file():
                advice = (
                    "; it has a mirror, and may just have come from there: give another mirror (--mirror), or the "
                    "model a name (NAME=MODEL); replace=True (--replace) deletes it here and in the mirror"
                )
            raise InputError(why + advice)
        there = self.run()
        if run.identity() != there.identity():
            self._write_subsets(subsets)  # first: until run.json names them, they hold more than it asks for
            self.write_run(replace(there, subsets=run.subsets, seeds=run.seeds, preset=run.preset or there.preset))
        elif run.preset not in (None, there.preset):
            self.write_run(replace(there, preset=run.preset))

    def require_distinct(self, subsets: Sequence[Subset]) -> None:
        """Raise InputError if names differ in case alone, and the file system does not tell them apart."""
        if (self.path / ".LOCK").exists():  # as on most disks of macOS; while the folder is written, .lock is there
            _require_distinct([one.name for one in subsets])
            for subset in subsets:
                _require_distinct([prompt.id for prompt in subset.prompts])

    def objection(self, run: Run, subsets: Sequence[Subset]) -> str | None:
        """Why this run cannot continue in the folder, or None if it is the folder's run or extends it."""
        there = self.run()
        said = "{} was asked for, the folder holds {}".format
        asked_for, held_here = run.identity(), there.identity()
        if run.model.partition(":")[0] != there.model.partition(":")[0]:  # other settings follow from another model
            asked_for["settings"] = held_here["settings"] = {}
        differing = field_differences(asked_for, held_here, said)
        another = f"{self.path} holds another run ({'; '.join(differing)}). Ask for the run that it holds"
        if any(one.endswith(OTHER_CONTENT) for one in differing):
            another += ", with its files and prompts as they were"
        same_model = replace(run, subsets=there.subsets, seeds=there.seeds).identity() == there.identity()
        if not differing or not same_model:
            return another if differing else None
        asked, held = {one.name: one for one in subsets}, {one.name: one for one in self.subsets()}
        fewer_seeds, fewer_prompts = not {*there.seeds} <= {*run.seeds}, not _all_in(held, asked)
        if not fewer_seeds and not fewer_prompts:
            return None
        if (not fewer_seeds or {*run.seeds} <= {*there.seeds}) and (not fewer_prompts or _all_in(asked, held)):
            counts = ", ".join(f"{len(one.prompts)} of {name}" for name, one in held.items())
            more = " and ".join(what for what, fewer in (("prompts", fewer_prompts), ("seeds", fewer_seeds)) if fewer)
            ids = {(name, prompt.id) for name, one in asked.items() for prompt in one.prompts}
            extra = (prompt.id for name, one in held.items() for prompt in one.prompts if (name, prompt.id) not in ids)
            example = f", such as {first}" if (first := next(extra, None)) else ""
            return (
                f"{self.path} holds more {more} than were asked for{example} (prompts: {counts}; seeds: "
                f"{len(there.seeds)}), and a run cannot shrink. Ask for at least as many prompts and seeds"
            )
        return another

    def _write_subsets(self, subsets: Sequence[Subset]) -> None:
        for subset in subsets:
            write_json(self.subset_path(subset.name), subset.to_json())

    def write_run(self, run: Run) -> None:
        """Write run.json. Does not check that the rest of the folder agrees with it; `start` does."""
        write_sealed(self.path / "run.json", {"format": FORMAT, **run.to_json()})

    def run(self) -> Run:
        """Read run.json. Raises InputError if a later version of avbench wrote it in a format unknown to this one."""
        path = self.path / "run.json"
        plain = read_sealed(path, "put the file back, or make the run again with replace=True (--replace)")
        made = plain.pop("format", None)
        if type(made) is not int or made != FORMAT:
            msg = f"{path} has format {made!r}, but this avbench reads format {FORMAT}: update avbench"
            raise InputError(msg)
        run = reading.shaped_plain(plain, Run, str(path))
        with reading.naming(path):
            for name in run.subsets:
                checked_id(name, "subset name")
        return run

    def subsets(self) -> list[Subset]:
        """Read the subsets of the run, in its order. Raises InputError if one is not the one that run.json names."""
        found = []
        for name, sha256 in self.run().subsets.items():
            held = read_subset(self.subset_path(name))
            if held.name != name:
                msg = f"{self.subset_path(name)} holds the subset {held.name!r}; it must hold {name!r}"
                raise InputError(msg)
            subset = held.beginning(sha256)  # a command that was killed may have left a longer one than run.json names
            if subset is None:
                msg = f"{self.subset_path(name)} is not the subset that {self.path / 'run.json'} names: it was changed"
                raise InputError(msg)
            found.append(subset)
        return found

    def planned_keys(self) -> list[Key]:
        """The key of every clip that the run should have, in the order in which clips are made; for a shard, only its
        own.
        """
        run = self.run()
        return planned_keys(self.subsets(), run.seeds, None if run.shard is None else Shard.parse(run.shard))

    def subset_path(self, name: str) -> Path:
        """Path of a subset's file; `loading.load` of subsets reads it."""
        return self.path / "subsets" / f"{name}.json"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Lock the folder for writing. Raises InputError while another process holds the lock."""
        require_no_address(self.path)
        with written_alone(self.path, self.or_elsewhere):
            try:
                yield
            except KeyboardInterrupt as stop:
                stop.add_note(self._what_is_kept())
                raise

    def _what_is_kept(self) -> str:
        """The sentence shown to a user who interrupts a command that was writing."""
        with suppress(InputError, OSError):
            asked = len(self.planned_keys())
            made = sum(sample.path is not None for sample in self.samples().values())
            return f"{made} of {asked} clips are done in {self.path}; give the same command again to continue."
        return "Give the same command again to continue."

    def clip_stem(self, key: Key) -> Path:
        """Path of a clip without its suffix."""
        return self.path / "clips" / key.subset / f"{key.prompt}-{key.seed}"

    def truth_path(self, key: Key) -> Path:
        """Path of a clip's ground truth, which exists where its maker knew it."""
        stem = self.clip_stem(key)
        return stem.with_name(f"{stem.name}.truth.json")

    def has_samples(self) -> bool:
        """Whether a clip was ever made, or tried, in this folder."""
        return (self.path / "samples.jsonl").exists()

    def samples(self) -> dict[Key, Sample]:
        """Read samples.jsonl. If a key has several lines, the last one counts."""
        path = self.path / "samples.jsonl"
        found = {}
        for number, _, line in reading.raw_lines(path):
            where = f"{path}, line {number}"
            sample = reading.parsed(line, where, Sample)
            with reading.naming(path):
                require_ids(sample.key)
            if sample.path is not None:
                reading.inside(self.path, sample.path)
                if not is_sha256(sample.sha256):
                    msg = f"{where}: the sha256 is {sample.sha256!r}; it must be 64 hex digits"
                    raise InputError(msg)
            found[sample.key] = sample
        return found

    def add_sample(self, sample: Sample) -> None:
        """Append a line to samples.jsonl and wait until it is on disk."""
        append_line(self.path / "samples.jsonl", asdict(sample), durable=True)

    def rows(self, protocol: Protocol, names: Collection[str] | None = None) -> dict[Key, Row]:
        """Read the rows measured under exactly this protocol. Of several rows for one key the last counts.

        Args:
            protocol: of the feature.
            names: read only the values of these names; all for None.
        """
        path = self._feature(protocol) / "rows.jsonl"
        return {line.key: row_of(path, line, names) for line in stream_lines(path, RowLine)}

    def row_hashes(self, protocol: Protocol, *, without: tuple[str, ...] = ()) -> dict[Key, str]:
        """Map each row's key to the hash of the clip or clips that it was measured on, without reading its values.

        Args:
            protocol: the feature's protocol.
            without: leave out rows that have, instead of values, a sentence that begins with one of these.
        """
        known = stored_rows(self._feature(protocol) / "rows.jsonl")
        return {key: row.clip_sha256 for key, row in known.items() if not (row.missing or "").startswith(without)}

    def has_rows(self, protocol: Protocol) -> bool:
        """Whether any row was measured under exactly this protocol."""
        return (self._feature(protocol) / "rows.jsonl").exists()

    def stream_rows(self, protocol: Protocol) -> Iterator[Row]:
        """Yield what `rows` returns in the order of keys, with one row in memory at a time."""
        path = self._feature(protocol) / "rows.jsonl"
        if places := stored_rows(path):
            with reading.opened(path) as file:
                for key in sorted(places):
                    line = places[key].line(file)
                    yield row_of(path, reading.parsed(line, places[key].where, RowLine))

    def add_row(self, protocol: Protocol, row: Row) -> None:
        """Append one row to a feature's rows.jsonl."""
        place = self._feature(protocol)
        if not (place / "protocol.json").exists():
            write_json(place / "protocol.json", protocol.describe())
        append_line(place / "rows.jsonl", row_to_json(row))

    def keep_rows(self, keys: Collection[Key]) -> None:
        """Delete the rows of all other clips; of a feature whose rows cannot be read, all."""
        for place in self.feature_folders():
            path, kept = place / "rows.jsonl", []
            with suppress(InputError):
                kept = [row for key, row in stored_rows(path).items() if key in keys]
            if not kept:
                shutil.rmtree(place)
                continue
            with reading.opened(path) as file, writing_whole(path) as new:
                new.writelines(reading.with_checksum(row.line(file)) + b"\n" for row in kept)

    def feature_folders(self) -> list[Path]:
        """The folders ``features/<feature>@<protocol>`` of the run, by name."""
        return sorted(place.parent for place in (self.path / "features").glob("*/protocol.json"))

    def _feature(self, protocol: Protocol) -> Path:
        return self.path / "features" / protocol.folder_name

    def write_scores(
        self,
        scores: list[Score],
        protocols: Mapping[str, Any],
        parts: Mapping[str, bytes],
        asked: Mapping[str, str] | None = None,
        given: Mapping[str, str] | None = None,
        rows: Mapping[str, str] | None = None,
    ) -> None:
        """Write an evaluation: first its other files, then scores.json, which makes it valid.

        Args:
            scores: of every metric.
            protocols: by their digests, which the scores name.
            parts: name → content of the other files; scores.json holds their hashes.
            asked: the paths of the reference and of the other run that the scores were computed against.
            given: the same paths as `asked`, as the user gave them.
            rows: folder of a feature → digest of the rows that the scores were computed from.
        """
        for name, content in parts.items():
            write_whole(self.path / name, content)
        plain: dict[str, Any] = {"scores": [score.to_json() for score in scores]}
        plain |= {"protocols": dict(sorted(protocols.items()))}
        plain |= {name: dict(paths) for name, paths in (("asked", asked), ("given", given), ("rows", rows)) if paths}
        plain["clips"] = self._clips_digest()
        plain["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
        write_sealed(self.path / "scores.json", plain)

    def evaluation(self) -> Evaluation:
        """Read scores.json. Raises InputError if the run was not evaluated yet."""
        path = self.path / "scores.json"
        if not path.exists():
            measured = next(self.path.glob("features/*/rows.jsonl"), None)
            first = "" if measured else f"`avbench measure {self.typed}` and "
            msg = f"{self.path} has no scores.json: run {first}`avbench evaluate {self.typed}` first"
            raise InputError(msg)
        plain = read_sealed(path, f"run `avbench evaluate {self.typed}` again")
        found = reading.shaped_plain(plain, Evaluation, str(path))
        if not found.scores:
            msg = f"{path} holds no score: run `avbench evaluate {self.typed}` again"
            raise InputError(msg)
        subsets = self.run().subsets
        for where, count in Counter(score.where for score in found.scores).items():
            if count > 1 or where[0] not in subsets:
                wrong = "is scored twice" if count > 1 else "is scored, but the run has no such subset"
                msg = f"{path}: {where[1]} on {where[0]} {wrong}"
                raise InputError(msg)
        if unknown := [score.metric for score in found.scores if score.protocol not in found.protocols]:
            msg = f"{path} lacks the protocol of {unknown[0]}"
            raise InputError(msg)
        return replace(found, given={**found.asked, **found.given})

    def scores(self) -> list[Score]:
        """The scores of the evaluation. Raises the same error as `evaluation`."""
        return [*self.evaluation().scores]

    def require_one_evaluation(self, name: str) -> None:
        """Check that the file `name`, which was written with the scores, still belongs to them.

        Raises:
            InputError: the file is missing or was changed, or the run's clips were changed since the evaluation.
        """
        path, scored = self.path / name, self.path / "scores.json"
        if not path.is_file():
            msg = f"{path} is missing: run `avbench evaluate {self.typed}`"
            raise InputError(msg)
        if not scored.exists():
            return
        found = self.evaluation()
        if found.clips != self._clips_digest():
            msg = (
                f"{self.path} was evaluated before some of its clips were made, or made again, so its scores do not "
                f"belong to its clips: run `avbench measure {self.typed}` and `avbench evaluate {self.typed}`, each "
                f"with --metric {found.metrics}"
            )
            raise InputError(msg)
        if found.files.get(name) != file_sha256(path):
            msg = (
                f"{path} and scores.json are from different evaluations (one was interrupted, or a file changed): run "
                f"`avbench evaluate {self.typed}` again"
            )
            raise InputError(msg)

    def digests_of_rows(self, protocols: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """Folder of a feature → digest of the rows in it, for the features that these protocols of scores name."""
        there = {place.name: place / "rows.jsonl" for place in self.feature_folders()}
        named = {folder_name(one) for protocol in protocols for one in features_in(protocol)}
        return {name: digest_of_rows(there[name]) for name in sorted(named & there.keys())}

    def require_rows_as_scored(self) -> None:
        """Raise InputError if rows were measured, merged or lost after the evaluation.

        A feature whose rows were deleted altogether raises nothing: the scores still belong to the clips.
        """
        if not (self.path / "scores.json").exists():
            return
        found = self.evaluation()
        # an earlier avbench recorded no rows, so of its scores only those without a clip show that there were none
        counted = [found.protocols[one.protocol] for one in found.scores if one.n]
        known = {folder_name(one) for protocol in counted for one in features_in(protocol)} - found.rows.keys()
        for name, sha256 in self.digests_of_rows(found.protocols.values()).items():
            if name not in known and sha256 != found.rows.get(name):
                msg = (
                    f"{self.path} was evaluated from other rows of {name} than it has now, because clips were measured "
                    f"later, or rows were lost: run `avbench evaluate {self.typed} --metric {found.metrics}`"
                )
                raise InputError(msg)

    def _clips_digest(self) -> str:
        """Digest of the run's clips: their keys and hashes."""
        return digest([[*key, one.sha256] for key, one in sorted(self.samples().items()) if one.sha256])

    def shared(self, name: str) -> bytes:
        """Return the content of a file of this folder for other people: without local paths, except those in protocols.

        Raises InputError where the file was changed since it was written.
        """
        path = self.path / name
        if name == "samples.jsonl":
            return b"".join(line_of(without_folders(line)) for line in read_lines(path))
        if name not in ("run.json", "scores.json"):
            return path.read_bytes()
        plain = read_sealed(path, f"`avbench evaluate {self.typed}` writes the scores again")
        kept = {part: one for part, one in plain.items() if part == "protocols"}  # hashed, and they name no folder
        return json_bytes(sealed({**without_folders(plain), **kept}))

    def values(self) -> "pd.DataFrame":
        """Read values.parquet: subset, prompt, seed, metric, value and `REAL`, NaN where there is none.

        Raises:
            InputError: the file is missing or damaged, holds infinity, holds a clip's value twice, or does not hold
                the number of values that the scores were computed from.
        """
        path = self.path / VALUES_FILE
        if not path.exists():
            msg = f"{self.path} has no {VALUES_FILE}: run `avbench evaluate {self.typed}` first"
            raise InputError(msg)
        kinds = {"subset": str, "prompt": str, "seed": int, "metric": str, "value": float}
        table = reading.read_parquet(path, kinds, [REAL])
        if np.isinf(table[["value", REAL]].to_numpy(dtype=float)).any():
            msg = f"{path} holds infinity; a clip's value must be finite or NaN"
            raise InputError(msg)
        if table.duplicated(["subset", "prompt", "seed", "metric"]).any():
            msg = f"{path} holds two values of one metric for one clip"
            raise InputError(msg)
        counts: dict[Any, int] = table.dropna(subset="value").groupby(["subset", "metric"]).size().to_dict()
        for score in self.scores() if (self.path / "scores.json").exists() else ():
            there = counts.get(score.where, 0)
            if there != score.n and (there or score.interval):  # a distance has no value of its own for a clip
                msg = (
                    f"{path} has {there} values of {score.metric} on {score.subset}, but scores.json counts {score.n}: "
                    f"the two do not belong together; run `avbench evaluate {self.typed}` again"
                )
                raise InputError(msg)
        return table


_ITS_OWN = ("jobs", MIRROR_WORK)
"""Folders that hold a generator's own files, or come and go; nothing in them is read as a part of the run."""


def _require_distinct(names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            msg = (
                f"{other!r} and {name!r} would share their files, as this disk does not tell upper from lower case: "
                "rename one"
            )
            raise InputError(msg)


def _all_in(part: Mapping[str, Subset], whole: Mapping[str, Subset]) -> bool:
    """Whether every prompt of some subsets is in others of the same names, word for word."""
    return all(name in whole and _is_part(subset, whole[name]) for name, subset in part.items())


def _is_part(part: Subset, whole: Subset) -> bool:
    known = {prompt.id: digest(prompt.to_json()) for prompt in whole.prompts}
    same = part.version == whole.version and part.clip_spec == whole.clip_spec
    return same and all(known.get(prompt.id) == digest(prompt.to_json()) for prompt in part.prompts)
