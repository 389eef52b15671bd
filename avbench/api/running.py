"""Samples models, measures their clips and compares them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avbench.api.choices import (
    chosen_subsets,
    fetching,
    model_folders,
    model_names,
    paths_of,
    require_counts,
    require_kinds,
    require_no_clips,
    settings_of,
    shard_folder,
    subset_names,
    texts_of,
)
from avbench.api.references import chosen_reference, of_finished_clips, real_clips_in
from avbench.api.results import Comparison
from avbench.api.stages import opened
from avbench.api.walk import Walk
from avbench.api.work import Reporter, SamplingJob, Work, work_of
from avbench.comparison import paper_presets
from avbench.comparison.plan import Plan
from avbench.core import InputError, Shard, Subset
from avbench.features.requirements import require_ready, require_reference_clips
from avbench.generation import table as generators
from avbench.metrics.columns import Wanted, fetched, wanted_metrics
from avbench.metrics.evaluate import features_of, fvd_metrics, listed_names
from avbench.metrics.table import Metric
from avbench.storage.mirrors.mirror import Mirrors
from avbench.storage.runs.folder import RunFolder
from avbench.storage.workers.ray_actors import RayActors

DEMO_MODELS = (
    "avfulldit:toy-t2v",
    "avfulldit:toy-t2av",
    "toyworld:",
    "toyworld:frozen",
    "toyworld:noisy",
    "toyworld:no-contact",
)
"""What `run` compares if no model is named: AVFullDiT without and with sound; the embedded world that it learned, which
is the best it can reach; and three models, each wrong in one known way."""


def run(
    models: str | Path | Sequence[str | Path] | None = None,
    *,
    subsets: str | Path | Subset | Sequence[str | Path | Subset] | None = None,
    prompts: str | Path | None = None,
    views: str | Sequence[str] = (),
    limit: int | None = None,
    seeds: int | None = None,
    settings: Mapping[str, Any] | None = None,
    preset: str | Path | None = None,
    metrics: str | Sequence[str] | None = None,
    columns: str | None = None,
    fetch: bool | str | Sequence[str] = False,
    fvd_protocols: str | Sequence[str] = (),
    reference: str | Path | None = None,
    against: str | Path | None = None,
    plan: Plan | None = None,
    allow: str | Sequence[str] = (),
    out: str | Path = "runs",
    workers: int | RayActors | None = None,
    device: str = "auto",
    precision: str | None = None,
    replace: bool = False,
    reporter: Reporter | None = None,
    shard: str | None = None,
    mirror: str | None = None,
) -> Comparison:
    """Sample models on subsets, measure, and compare each with the first.

    Args:
        models: ``provider:target``, a path, or ``name=…`` of either. Without any: both bundled arms of AVFullDiT, the
            embedded world, and three known-bad models (DEMO_MODELS).
        subsets: names or folders; the toy subsets where neither they nor prompts are given.
        prompts: a prompts file instead.
        views: ``lite``, ``short``, ``dev``, ``test`` or ``tag=value`` of each subset, one after another.
        limit: only the first prompts of each subset.
        seeds: clips per prompt.
        settings: of the models.
        preset: a paper's settings, by name or as a .toml file; arguments given here override them.
        metrics: their names; those of the preset, or the default metrics, where neither they nor columns are given.
        columns: a preset of columns, such as ``t2av`` (`metrics/columns.py`); metrics of it that lack weights are left
            out.
        fetch: whether missing weights are downloaded; the short names of licences that you accept, where weights ask
            for that.
        fvd_protocols: names of published codes whose FVD is computed as well, or ``all``.
        reference: a folder of real clips or a reference folder, instead of the shipped ones.
        against: the run folder that holds the reference clips, for metrics that need one.
        plan: primary questions and margins.
        allow: fields in which runs may differ; a difference in any other field is an error.
        out: folder that gets one run folder per model. The same call again resumes where it stopped.
        workers: processes; one per core where not given. Or ``avbench.RayActors(…)``, on this machine or a cluster.
        device: where networks measure: ``auto`` (the GPUs where there are any, else the CPU), ``cpu``, ``cuda`` or
            ``cuda:0,1``. Numbers agree within the tolerances of docs/speed.md.
        precision: of I3D and LPIPS, ``fp32`` or ``bf16``, whose numbers differ and are never compared; None keeps that
            of the run's rows, or takes ``fp32``.
        replace: delete and make again what belongs to another model or other settings; otherwise it is an error.
        reporter: where messages and progress go.
        shard: ``i/n``: only this part of the clips, in a folder of its own below `out` (see `shard_folder`).
        mirror: an address of object storage, such as ``s3://bucket/runs``, that gets a copy of each run folder while
            it is written (docs/scale.md). A run that another machine began there is continued.

    Raises:
        InputError: an argument is wrong. A clip that cannot be made raises nothing; it is counted and reported.
    """
    require_counts(limit=limit, seeds=seeds)
    require_kinds(reference=reference, prompts=prompts, columns=columns, out=out, plan=plan)
    require_kinds(precision=precision, shard=shard, mirror=mirror, preset=preset, against=against)
    views, allow = texts_of(views, "views"), texts_of(allow, "allow")
    metrics = None if metrics is None else listed_names(metrics)
    fvd_protocols = texts_of(fvd_protocols, "fvd_protocols")
    paths_of(out, "out", "give the path of a folder")
    part = None if shard is None else Shard.parse(shard)
    mirrors = None if mirror is None else Mirrors(Path(out), mirror)
    work = work_of(workers, replace, reporter, device, precision, mirrors)
    own = [] if models is None else model_names(models)
    given = own or [*DEMO_MODELS]
    names = subset_names(subsets)
    chosen = paper_presets.load(str(preset)) if preset else None
    if chosen and not own:
        msg = f"the preset {preset} needs models: name them"
        raise InputError(msg)
    # what can be wrong at once is looked at before weights are fetched and clips are made
    beside = None if against is None else opened(against, work)
    if names is None and prompts is None:
        require_no_clips(given)
    file = None if prompts is None else Path(prompts)
    wanted = chosen_subsets(chosen.subsets if chosen and not names and not file else names, file, views, limit)
    asked_subsets = None if names is None else [one.name if isinstance(one, Subset) else one for one in names]
    folders, own_settings = model_folders(shard_folder(Path(out), part), given), settings_of(settings)
    asked_of = _asked_of([*folders.values()], own_settings, chosen)
    fps = next((asked.get("fps") for model, asked in asked_of.items() if of_finished_clips(model)), None)
    if reference is not None:
        real_clips_in(Path(reference), frames=fps is not None)
    listed = Wanted(metrics, columns, fvd_metrics(fvd_protocols), fetching(fetch, work))
    computed = _to_compute(listed, chosen, against, work)
    metrics = [metric.name for metric in computed] if columns else metrics
    for model, asked in asked_of.items():
        generators.check(model, asked)
    typed = paper_presets.Given(asked_subsets, file, views, limit, seeds, metrics, own_settings)
    real, real_given = chosen_reference(reference, computed, work, [*map(RunFolder, folders)], wanted, fps)
    records = [chosen and paper_presets.record(chosen, model, typed, wanted) for model in folders.values()]
    if chosen:
        wanted, seeds = paper_presets.with_clip_spec(chosen, wanted), seeds or chosen.seeds
        for sentence in dict.fromkeys(one for each in records if each for one in each["left_out"].values()):
            work.reporter.note(f"a column of {chosen.name} is left out: {sentence}")
    walk = Walk(computed, real, real_given, work, beside)
    for (place, model), record in zip(folders.items(), records, strict=True):
        job = SamplingJob(wanted, range(seeds or 1), asked_of[model], record, part)
        # of the demo's models, only the two arms are compared
        walk.take(place, model, job, as_made=True, looks=bool(own) or len(walk.runs) == 1)
    return walk.compared(pairs=None if own else [(1, 0)], plan=plan, allow=allow)


def _asked_of(
    models: Sequence[str], settings: Mapping[str, Any], preset: paper_presets.Preset | None
) -> dict[str, dict[str, Any]]:
    """Model → the settings it is asked for: the given ones, and those of a paper.

    Raises:
        InputError: nothing is known that loads a model, or it has no such setting.
    """
    found = {one: {**settings, **(paper_presets.settings(preset, one, settings) if preset else {})} for one in models}
    for model, asked in found.items():
        generators.known_as(model, asked)
    return found


def _to_compute(
    wanted: Wanted, preset: paper_presets.Preset | None, against: str | Path | None, work: Work
) -> Sequence[Metric]:
    """The metrics that are named; where none is, those of the paper's table that can be computed here.

    Raises InputError if one of them lacks a package, weights or reference clips.
    """
    if preset and not wanted.metrics and not wanted.columns:
        if wanted.fetch:
            fetched([one.metric for one in preset.columns if one.metric], (), wanted.fetch, work.reporter.note)
        wanted = dataclasses.replace(wanted, metrics=[metric.name for metric in preset.metrics()[0]])
    computed = wanted_metrics(wanted, work.reporter.note)
    require_ready(features_of(computed))
    require_reference_clips(features_of(computed), None if against is None else Path(against))
    return computed
