"""Reads and writes baselines of `avbench check`: a run folder without its clips, in one file.

It is a zip with the values of every clip, the rows of the features that a distance needs, the scores, their protocols,
and the reasons why it was moved.
"""

import datetime
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avbench.comparison.score_table import clip_values
from avbench.core import InputError, Sample, counted
from avbench.metrics.table import known_metrics
from avbench.storage.media.form import FIRST, form_of
from avbench.storage.reading import read_json, unpack
from avbench.storage.runs.folder import VALUES_FILE, RunFolder
from avbench.storage.sharing import without_folders
from avbench.storage.writing import write_whole

HISTORY = "baseline.json"
_WHOLE = ("run.json", "samples.jsonl", "scores.json", VALUES_FILE)
_BEGINNING = (1980, 1, 1, 0, 0, 0)  # of time, in a zip: equal content gives equal bytes


@dataclass(frozen=True)
class Move:
    """One move of a baseline, as far as a check needs it."""

    forms: Mapping[str, str] = field(default_factory=dict)
    """Of the first clips of each subset: ``subset/prompt/seed`` → size, frames and rate."""


def update(folder: RunFolder, baseline: Path, reason: str) -> str | None:
    """Make an evaluated run the baseline, without its local paths, and write down why.

    Returns:
        A sentence if the baseline held numbers or clips that it holds no longer, so that they are no longer gated.

    Raises:
        InputError: there is no reason, the run was not evaluated or has no number, or the file is no baseline.
    """
    if not reason.strip():
        msg = "a baseline moves for a reason: give --reason, which is kept in its file"
        raise InputError(msg)
    scores = folder.scores()
    if not any(score.value is not None for score in scores):
        one = scores[0]
        msg = f"{folder.path} has no number, so as a baseline it would gate nothing ({one.metric}: {one.missing})"
        raise InputError(msg)
    clip_values(folder)  # raises where they are not of the evaluation that the scores are of
    history, shrunk = [], None
    if baseline.exists():
        with opened(baseline) as before:
            history = read_json(before.path / HISTORY, list[dict[str, Any]])
            with suppress(InputError):  # of a damaged baseline, which is replaced
                shrunk = _shrunk(before, folder)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    run = without_folders(folder.run().to_json())
    history.append({"date": today, "reason": reason, "run": run, "forms": _forms(folder)})
    scored = {score.metric for score in scores}
    features = {metric.feature for metric in known_metrics().values() if metric.name in scored and not metric.per_clip}
    paths = [folder.path / name for name in _WHOLE] + sorted((folder.path / "subsets").glob("*.json"))
    for feature in sorted(features):
        paths += sorted((folder.path / "features").glob(f"{feature}@*/*"))
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "baseline.zip"
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in [path.relative_to(folder.path).as_posix() for path in paths]:
                _add(packed, name, folder.shared(name))
            _add(packed, HISTORY, json.dumps(history, indent=1, ensure_ascii=False).encode())
        write_whole(baseline, made.read_bytes())
    return shrunk


@contextmanager
def opened(baseline: Path) -> Iterator[RunFolder]:
    """The baseline as a run folder, for a while; whatever is wrong in it is said of the baseline's own file."""
    with tempfile.TemporaryDirectory() as place:
        try:
            yield RunFolder(_unpacked(baseline, Path(place)))
        except InputError as error:
            if place not in str(error):
                raise
            why = without_folders(str(error)).partition(": run `avbench")[0]
            msg = (
                f"{baseline} is damaged, or was changed after it was made ({why}): put it back as it was; or delete "
                "it, and `avbench check RUN --baseline FILE --update --reason …` makes a new one"
            )
            raise InputError(msg) from None


def moves(baseline: RunFolder) -> list[Move]:
    """How an opened baseline was moved, the last time last."""
    return read_json(baseline.path / HISTORY, list[Move], known_only=False)


def form_of_clip(folder: RunFolder, sample: Sample) -> str | None:
    """Size, frames and rate of a clip in words; None if its file is gone."""
    try:
        form = form_of(folder.path / str(sample.path))
    except InputError:  # it is gone; what was measured of it is kept
        return None
    return f"{form.width}×{form.height}, {counted(form.frames, 'frame')}, {float(form.rate):.4g} frames/s"


def _shrunk(before: RunFolder, after: RunFolder) -> str | None:
    """What the older of two baselines has, and the newer has not."""
    old, new = ({"/".join(one.where) for one in of.scores() if one.n} for of in (before, after))
    made = [{key for key, one in of.samples().items() if one.failure is None} for of in (before, after)]
    lost = [*sorted(old - new), *([counted(gone, "clip")] if (gone := len(made[0] - made[1])) else [])]
    return f"it had, and has no longer: {', '.join(lost)}" if lost else None


def _forms(folder: RunFolder) -> dict[str, str]:
    """The form of the first clips of each subset whose files are there: ``subset/prompt/seed`` → its words."""
    made: dict[str, list[Sample]] = {}
    for key, sample in sorted(folder.samples().items()):
        if sample.path is not None:
            made.setdefault(key.subset, []).append(sample)
    first = [sample for samples in made.values() for sample in samples[:FIRST]]
    return {"/".join(map(str, one.key)): form for one in first if (form := form_of_clip(folder, one))}


def _unpacked(baseline: Path, place: Path) -> Path:
    """The baseline as a run folder in `place`, of the file's name. Raises InputError where the file is not one."""
    target = place / baseline.name
    try:
        unpack(baseline, target, lambda name: name in (*_WHOLE, HISTORY) or name.startswith(("subsets/", "features/")))
    except InputError as error:
        msg = f"{error}; a baseline is a file that `avbench check RUN --baseline FILE --update --reason …` makes"
        raise InputError(msg) from None
    if missing := [name for name in (*_WHOLE, HISTORY) if not (target / name).is_file()]:
        msg = f"{baseline} is no baseline: it has no {missing[0]}"
        raise InputError(msg)
    return target


def _add(packed: zipfile.ZipFile, name: str, content: bytes) -> None:
    packed.writestr(zipfile.ZipInfo(name, _BEGINNING), content, zipfile.ZIP_DEFLATED)
