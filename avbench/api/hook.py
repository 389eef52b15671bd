"""Scores a model while it is trained, for the logger of the training loop.

```python
import avbench

scores = avbench.training_hook(model, "toy-control", limit=8)
logger.log(scores, step=step)  # {"toy-control/fvd": 812.4, …}; scores.missing gives the reason for each missing one
scores.remarks  # sentences on what the numbers depend on
```

The loop is not disturbed: random states, gradient mode and number of threads are restored, no reference to the model or
to a measuring network is kept, and the GPU's cache is emptied.
"""

import contextlib
import gc
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avbench.api.choices import metric_names, require_counts, require_kinds, settings_of, subset_names
from avbench.api.references import real_clips_in, reference_of
from avbench.api.stages import sampling_remarks
from avbench.api.work import Work, workers_asked
from avbench.core import Clip, InputError, Sample, Score, Subset
from avbench.features.measure import measure
from avbench.features.requirements import require_ready, require_reference_clips
from avbench.generation.providers.python import OwnModel
from avbench.generation.resuming import throw_away
from avbench.generation.sample import sample
from avbench.generation.table import Generator, Request
from avbench.metrics.evaluate import chosen_metrics, evaluate, features_of, reference_to_use, worth_measuring
from avbench.metrics.reference import require_any
from avbench.metrics.table import known_metrics
from avbench.storage.media.clip_files import clips_in
from avbench.storage.reading import exists
from avbench.storage.runs.folder import RunFolder, no_run
from avbench.storage.workers.worker_pool import threads_restored
from avbench.storage.writing import written_alone
from avbench.subsets.loading import load_any


class Scores(dict[str, float]):
    """``subset/metric`` → value."""

    def __init__(self, found: Iterable[Score], remarks: Iterable[str] = ()) -> None:
        found = list(found)
        super().__init__({f"{one.subset}/{one.metric}": one.value for one in found if one.value is not None})
        self.missing = {f"{one.subset}/{one.metric}": one.missing for one in found if one.missing is not None}
        """``subset/metric`` → a sentence that says why it has no value."""
        self.clips = {f"{one.subset}/{one.metric}": one.n for one in found}
        """``subset/metric`` → how many clips the value was computed from."""
        self.remarks = (*remarks,)
        """Sentences of the model's, on clips that were conformed to their clip spec or read with a remark, and on
        distances of too few clips."""

    def __repr__(self) -> str:
        return f"Scores({dict(self)}, missing={self.missing}, remarks={self.remarks})"


def training_hook(
    model: str | Path | Generator | Callable[[Request], Clip],
    subset: str | Path | Subset | Sequence[str | Path | Subset] = "toy-control",
    *,
    metrics: str | Sequence[str] | None = None,
    seeds: int = 1,
    limit: int | None = None,
    settings: Mapping[str, Any] | None = None,
    reference: str | Path | None = None,
    workers: int = 0,
    out: str | Path | None = None,
    replace: bool = False,
) -> Scores:
    """Sample a subset, measure its clips and evaluate them.

    Args:
        model: a function of a Request that returns a Clip, a Generator, ``provider:target``, or the path of a run
            folder. All subsets of a run folder are scored, from its existing clips.
        subset: a name, a subset folder, a prompts file, a Subset, or several.
        metrics: names; the default metrics if None.
        seeds: clips per prompt.
        limit: only the first prompts of each subset.
        settings: settings of a ``provider:target``.
        reference: a folder of real clips, or a reference folder, instead of the shipped ones.
        workers: processes for measuring, or 0 for this one.
        out: run folder to keep; by default a temporary one.
        replace: delete what `out` holds of another model, of other settings or of an earlier call.

    Raises:
        InputError: an argument is wrong. A clip that cannot be made raises nothing: `Scores.clips` counts the others.
    """
    if isinstance(model, str) and exists(Path(model) / "run.json"):
        model = Path(model)
    if settings and not isinstance(model, str):
        msg = f"settings are for provider:target; {type(model).__name__} is already built"
        raise InputError(msg)
    require_counts(limit=limit, seeds=seeds)
    require_kinds(reference=reference, out=out)
    asked_settings = settings_of(settings)
    work, chosen = Work(workers_asked(workers)), chosen_metrics(metric_names(metrics))
    several = [] if isinstance(model, Path) else subset_names([subset] if subset is None else subset) or []
    if reference is not None:
        real_clips_in(Path(reference))
    require_ready(features_of(chosen))
    require_reference_clips(features_of(chosen))
    with _undisturbed(), contextlib.ExitStack() as stack:
        if isinstance(model, Path):
            _require_run(model)
            folder = RunFolder(model)
            folder.run()
        else:
            folder = RunFolder(
                Path(out) if out else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="avbench-"))) / "run",
                "`out`",
            )
        # of a model in memory, or in a temporary folder, nothing is continued after an interruption: no note says so
        continued = isinstance(model, Path) or (isinstance(model, str) and out)
        stack.enter_context(folder.writing() if continued else written_alone(folder.path, folder.or_elsewhere))
        remarks: list[str] = []
        asked = folder.subsets() if isinstance(model, Path) else [_subset(one).limited(limit) for one in several]
        place = None if reference is None else reference_of(Path(reference), chosen, work, [folder], asked)
        require_any(asked, place and reference_to_use((), place))
        if not isinstance(model, Path):
            _require_another_folder(folder, model, replace=replace)
            _, made, remarks = _sampled(folder, model, asked_settings, asked, range(seeds), replace=replace)
            _drain(made)
        _drain(measure(folder, features_of(worth_measuring(folder, chosen, place)), workers=work.processes)[1])
        scores = evaluate(folder, chosen, place=place, given=reference)
        remarks += sampling_remarks(folder.samples().values(), folder.path if out else None)
        return Scores(scores, [*remarks, *_too_few(scores)])


def _too_few(scores: Iterable[Score]) -> Iterator[str]:
    """Sentences on the values that tables do not show, each with the subsets that it holds for."""
    found: dict[str, list[str]] = {}
    for one in scores:
        few = known_metrics()[one.metric].too_few(one.n, one.reference_clips) if one.value is not None else None
        if few:
            found.setdefault(few, []).append(one.subset)
    for few, subsets in found.items():
        yield f"{few} ({', '.join(subsets)}); tables and the page do not show such a value"


def _require_run(path: Path) -> None:
    """Raise InputError if a path is no run folder; of a folder of clips, with what to do."""
    if (path / "run.json").is_file():
        return
    if path.is_dir() and clips_in(path).clips:
        how = f"avbench.score({str(path)!r}) scores it"
        msg = f"{path} is a folder of clips and no run folder, which has a run.json: {how}"
        raise InputError(msg)
    raise no_run(path)


def _require_another_folder(folder: RunFolder, model: Any, *, replace: bool) -> None:
    """Raise InputError if a folder holds clips of a model in memory, which may have changed since without a record.

    The model's `settings` are no such record: they stay as they are while its weights are trained.
    """
    if isinstance(model, str) or not folder.samples():
        return
    if not replace:
        msg = (
            f"{folder.path} holds clips of an earlier call, and one model in memory cannot be told from another: give "
            "another `out`, such as one with the step in its name, or replace=True"
        )
        raise InputError(msg)
    throw_away(folder)


def _sampled(
    folder: RunFolder,
    model: Any,
    settings: Mapping[str, Any],
    subsets: Sequence[Subset],
    seeds: Sequence[int],
    *,
    replace: bool,
) -> tuple[int, Iterator[Sample], list[str]]:
    if isinstance(model, str):
        return sample(folder, model, settings, subsets, seeds, replace=replace)
    name = getattr(model, "__name__", type(model).__name__)
    return sample(folder, f"python:{name}", {}, subsets, seeds, generator=OwnModel(model), replace=replace)


def _subset(one: str | Subset) -> Subset:
    return one if isinstance(one, Subset) else load_any(one)


def _drain(items: Iterable[Any]) -> None:
    for _ in items:
        pass


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Restore random states, gradient mode and threads afterwards, and free the GPU memory that was used."""
    numbers = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        with torch.no_grad(), threads_restored():
            yield
    finally:
        random.setstate(numbers[0])
        np.random.set_state(numbers[1])
        torch.set_rng_state(numbers[2])
        gc.collect()
        if torch.cuda.is_initialized():
            if cuda is not None:
                torch.cuda.set_rng_state_all(cuda)
            torch.cuda.empty_cache()
