"""Turns what a user typed into folders, models, subsets, metrics and weights."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from avbench.api.work import Work
from avbench.comparison.differences import POOLS
from avbench.comparison.plan import Plan
from avbench.core import InputError, Shard, Subset, as_typed, checked_name, plain_number, shown
from avbench.generation.detect import detect
from avbench.generation.names import run_name, split_name
from avbench.generation.settings import check_kinds
from avbench.metrics.columns import columns_named
from avbench.metrics.evaluate import listed_names
from avbench.storage.runs.folder import RunFolder
from avbench.storage.runs.merge import take_share
from avbench.storage.weights.fetching import Fetching
from avbench.storage.workers.working_folder import require_working_folder
from avbench.subsets.loading import TOY_SUBSETS, from_prompts_file, load, viewed

_HERE = "write . for the current folder"


def named_folders(folders: str | Path | Mapping[str, str | Path] | Sequence[str | Path]) -> dict[str, Path]:
    """Map a name to each folder; folders with equal names get the names of their parent folders in front.

    Raises:
        InputError: no folder is given, one is given twice, or what is given is no path.
    """
    if isinstance(folders, Mapping):
        given = paths_of([*folders.values()], "folder", "give a dictionary from names to paths")
        pairs: list[tuple[str | None, Path]] = [
            (checked_name(name, "model name"), Path(path)) for name, path in zip(folders, given, strict=True)
        ]
    else:
        listed = paths_of(folders, "folder", "give a path, a list of paths, or a dictionary from names to paths")
        pairs = [(name, Path(path)) for name, path in map(split_name, listed)]
    if not pairs:
        msg = "give at least one folder of clips"
        raise InputError(msg)
    places = [folder.resolve() for _, folder in pairs]
    if twice := [place for place in places if places.count(place) > 1]:
        msg = f"{twice[0]} is given twice"
        raise InputError(msg)
    names: list[str] = [name or "" for name, _ in pairs]
    for depth in range(1, max(len(place.parts) for place in places) + 1):
        alike = {name for name in names if not name or names.count(name) > 1}
        for number, (typed, _) in enumerate(pairs):
            if typed is None and names[number] in alike:
                names[number] = run_name("clips:" + "-".join(places[number].parts[-depth:]))
    if twice := [name for name in names if names.count(name) > 1]:
        msg = f"two of the folders would be called {twice[0]!r}: give names, as in first={pairs[0][1]}"
        raise InputError(msg)
    return dict(zip(names, (folder for _, folder in pairs), strict=True))


def model_folders(out: Path, models: Sequence[str]) -> dict[Path, str]:
    """Run folder → model. Raises InputError where two models would share a folder."""
    found: dict[Path, str] = {}
    for typed in models:
        name, model = split_name(typed)
        place = out / (name or run_name(model))
        if place in found:
            msg = f"two of these models would share the run folder {place}: give one a name, NAME=MODEL"
            raise InputError(msg)
        found[place] = model
    return found


def model_names(models: Any) -> list[str]:
    """Models as text, of one text or path or of several.

    Raises:
        InputError: a model is neither, for example a function, or none is named.
    """
    how = (
        "name a checkpoint, a folder of clips, or python:MODULE:NAME; avbench.training_hook takes functions and "
        "classes themselves"
    )
    found = paths_of(models, "model", how)
    if not found:
        msg = "no model is named: name at least one, or leave the argument out, which compares those of the demo"
        raise InputError(msg)
    return found


def paths_of(given: Any, what: str, how: str) -> list[str]:
    """Paths as text, of one or of several.

    Raises:
        InputError: one is neither text nor a path, with what to do; or it is empty; or the working folder is gone.
    """
    require_working_folder()
    found = _one_or_several(given)
    for one in found:
        if not isinstance(one, str | PathLike):
            msg = f"{what} {shown(one)} is neither text nor a path: {how}"
            raise InputError(msg)
        if one == "":
            msg = f"a {what} is empty; {_HERE}"
            raise InputError(msg)
    return [*map(str, found)]


def texts_of(given: str | Sequence[str], argument: str) -> list[str]:
    """Texts as a list; one text is one item, not its letters. Raises InputError where one is no text."""
    found = _one_or_several(given)
    for one in found:
        if not isinstance(one, str):
            msg = f"{argument} has {shown(one)}; it must be a text or a list of texts"
            raise InputError(msg)
    return found


def subset_names(subsets: Any) -> list[str | Subset] | None:
    """Subsets as names, or as they are, of one or of several; None for None.

    Raises:
        InputError: one is neither a name, nor a path, nor a Subset, or none is named.
    """
    if subsets is None:
        return None
    given = _one_or_several(subsets)
    if not given:
        msg = "no subset is named: name at least one, or leave the argument out"
        raise InputError(msg)
    for one in given:
        if not isinstance(one, str | PathLike | Subset):
            msg = (
                f"subset {shown(one)} is neither a name nor a folder nor a Subset: `avbench list subsets` has the "
                "names, and avbench.Subset('mine', 1, prompts, None) makes one of a list of prompts"
            )
            raise InputError(msg)
        if one == "":
            msg = f"a subset is empty; {_HERE}"
            raise InputError(msg)
    return [one if isinstance(one, Subset) else str(one) for one in given]


def metric_names(metrics: Any) -> list[str] | None:
    """Names of metrics as a list; None for None. Raises InputError on what is no name, and where there is none."""
    names = None if metrics is None else listed_names(metrics)
    if names == []:
        msg = "metrics is empty: name at least one, or leave metrics out"
        raise InputError(msg)
    return names


def _one_or_several(given: Any) -> list[Any]:
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)
    return [*given] if several else [given]


def require_counts(**given: int | None) -> None:
    """Raise InputError unless each of these arguments is a whole number of at least 1, or None where it is optional."""
    plain = {name: int(count) if isinstance(count, np.integer) else count for name, count in given.items()}
    check_kinds({name: count for name, count in plain.items() if count is not None}, counts=plain)


_KINDS: dict[str, tuple[Any, str]] = {
    "against": (str | PathLike, "the path of the run folder that holds the reference clips"),
    "columns": (str, "the name of a preset of columns, such as 't2av'"),
    "mirror": (str, "an address of object storage, such as 's3://bucket/runs'"),
    "out": (str | PathLike, "the path of a folder"),
    "plan": (Plan, "a Plan, which avbench.comparison.plan.read(Path('plan.toml')) reads of a file"),
    "precision": (str, "'fp32' or 'bf16'"),
    "preset": (str | PathLike, "a paper's name, such as 'hearing-helps-seeing', or the path of a .toml file"),
    "prompts": (str | PathLike, "the path of a prompts file"),
    "reference": (str | PathLike, "the path of a folder of real clips, or of a reference folder"),
    "settings": (Mapping, "a dictionary from names to values"),
    "shard": (str, "text such as '2/4', for the second of four"),
}
"""Argument → its type, and what it is in words."""


def require_kinds(**given: object) -> None:
    """Raise InputError where one of these arguments is neither None nor of the type that _KINDS has for its name, or is
    an empty text.
    """
    for name, value in given.items():
        kind, right = _KINDS[name]
        if isinstance(value, str) and not value:
            msg = f"{name} is empty; {_HERE if 'folder' in right else f'it must be {right}'}"
            raise InputError(msg)
        if value is not None and not isinstance(value, kind):
            msg = f"{name} is {shown(value)}; it must be {right}"
            raise InputError(msg)


def settings_of(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings of a model, with the Python numbers of numbers of numpy or torch, because they are recorded.

    Raises:
        InputError: they are no dictionary, or a name is no text.
    """
    require_kinds(settings=settings)
    for name in settings or {}:
        if not isinstance(name, str):
            msg = f"settings has the name {shown(name)}; names must be text"
            raise InputError(msg)
    return {name: plain_number(value) for name, value in (settings or {}).items()}


def chosen_subsets(
    names: Sequence[str | Subset] | None,
    prompts: str | Path | None,
    views: Sequence[str] = (),
    limit: int | None = None,
) -> list[Subset]:
    """Return the named subsets, the subset of a prompts file, or the toy subsets; as these views, with at most `limit`
    prompts.

    Raises:
        InputError: subsets and prompts are given together, or one cannot be read or has a name that tables use.
    """
    if names and prompts:
        msg = "give subsets (--subset) or prompts (--prompts), not both"
        raise InputError(msg)
    if prompts:
        found = [from_prompts_file(Path(prompts))]
    else:
        found = [one if isinstance(one, Subset) else load(one) for one in names or TOY_SUBSETS]
    if taken := [one.name for one in found if one.name in POOLS]:
        msg = f"a subset is called {taken[0]!r}, as the row of all subsets together is in tables: give it another name"
        raise InputError(msg)
    for view in views:
        found = [viewed(one, view) for one in found]
    return [one.limited(limit) for one in found]


def named_arms(typed: Sequence[str]) -> dict[str, list[str]] | None:
    """Arm → paths or patterns, of words such as ``a=runs/a-*``; None where no word has a name.

    A name that is given several times has all the runs.

    Raises:
        InputError: some words have a name, and others have none, or one is empty.
    """
    found: dict[str, list[str]] = {}
    alone = []
    for name, path in map(split_name, paths_of(typed, "run", "give run folders")):
        if name is None:
            alone.append(path)
        else:
            found.setdefault(name, []).append(path)
    if found and alone:
        msg = f"{alone[0]} has no name, and {next(iter(found))} is an arm: name every run, as in NAME={alone[0]}"
        raise InputError(msg)
    return found or None


def shared_columns(runs: Sequence[RunFolder], columns: str, note: Callable[[str], None]) -> list[str]:
    """The metrics of a preset of columns that every run was scored by; the others are noted.

    Raises:
        InputError: the preset is unknown, or the runs share none of its metrics.
    """
    asked = [*dict.fromkeys(columns_named(columns).columns.values())]
    scored = [{score.metric for score in run.scores()} for run in runs]
    shared = [name for name in asked if all(name in one for one in scored)]
    places = as_typed(*(run.path for run in runs))
    how = (
        f"`avbench measure {places} --columns {columns} --fetch`, then `avbench evaluate {places} --columns {columns}`"
    )
    if not shared:
        msg = f"there is no metric of the columns {columns} that every run was scored by; {how} add them"
        raise InputError(msg)
    if len(shared) < len(asked):
        note(f"not computed for every run: {', '.join(one for one in asked if one not in shared)}; {how} add them")
    return shared


def fetching(fetch: bool | str | Sequence[str], work: Work) -> Fetching | None:
    """How weights are downloaded: not at all for False, else under the licences that are named."""
    if fetch is False:
        return None
    accepted = () if fetch is True else tuple(texts_of(fetch, "fetch"))
    return Fetching(accepted, functools.partial(work.reporter.follow, unit="MB"))


def shard_folder(out: Path, shard: Shard | None) -> Path:
    """The folder for the run folders of a shard: ``out/shards/2-of-4``; `out` itself where there is no shard."""
    return out if shard is None else out / "shards" / shard.folder


def share_of(run: Path, shard: Shard | None) -> Path:
    """Create or update the run folder in which one shard of a finished run is measured, and return it.

    It lies beside the run, as `shard_folder` says. If no shard is given, or if the run is this shard already, the run
    itself is returned.

    Raises:
        InputError: the run is another shard, or a clip of it was changed since it was made.
    """
    folder = RunFolder(run)
    if shard is None or folder.run().shard == str(shard):
        return run
    place = shard_folder(run.parent, shard) / run.name
    take_share(folder, shard, place)
    return place


def require_no_clips(models: Sequence[str]) -> None:
    """Raise InputError on a folder of finished clips, which must not be scored against the toy prompts by accident."""
    for typed in models:
        _, model = split_name(typed)
        kind, colon, target = model.partition(":")
        folder = Path(target if kind == "clips" else model)
        if folder.is_dir() and ((kind == "clips" and target) or (not colon and detect(folder).kind == "clips")):
            msg = (
                f"{typed} is a folder of finished clips: `avbench score {as_typed(folder)}` scores it; name a "
                "subset or a prompts file (--subset, --prompts) if the clips were made for its prompts"
            )
            raise InputError(msg)
