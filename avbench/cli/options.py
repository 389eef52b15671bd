"""Defines the options that several commands share.

An option that may be repeated also takes several values with commas between them.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from avbench.cli.config import read_config, with_settings_of_file

FORMS = ("console", "csv", "json", "md", "latex")


def split_at_commas(values: Sequence[str] | None) -> list[str] | None:
    """Split values at commas; a path that exists is kept whole."""
    from avbench.storage.reading import exists

    return _split(values, lambda text: exists(Path(text)))


def _views(values: list[str] | None) -> list[str] | None:
    """Split views in the same way; in ``tag=value`` a comma belongs to the value."""
    return _split(values, lambda text: "=" in text)


def _split(values: Sequence[str] | None, whole: Callable[[str], bool]) -> list[str] | None:
    """None stays None; an empty value is refused, because it looks like an option that was not given."""
    if values is None:
        return None
    if any(not text.strip(" ,") for text in values):
        msg = "a value is empty; name one, or leave the option out"
        raise typer.BadParameter(msg)
    parts = [[text] if whole(text) else text.split(",") for text in values]
    return [part.strip() for each in parts for part in each if part.strip()]


def _numbers(least: int) -> Callable[[list[str] | None], list[int] | None]:
    """Split and check whole numbers in the same way."""

    def parsed(values: list[str] | None) -> list[int] | None:
        parts = split_at_commas(values)
        if wrong := [text for text in parts or () if not (text.isdecimal() and int(text) >= least)]:
            msg = f"{wrong[0]!r} is not a whole number from {least}"
            raise typer.BadParameter(msg)
        return None if parts is None else [int(text) for text in parts]

    return parsed


_Place = TypeVar("_Place", Path, Path | None)


def folder_to_write(path: _Place) -> _Place:
    """Refuse a path where no folder can be made or written; None stays None."""
    from avbench.storage.object_storage import require_no_address

    if path is None:
        return path
    require_no_address(path)
    there = next(place for place in (path, *path.absolute().parents) if os.access(place, os.F_OK))
    if not there.is_dir():
        msg = f"{there} is a file; name a folder"
        raise typer.BadParameter(msg)
    if not os.access(there, os.W_OK):
        msg = f"{there} cannot be written by you; name another folder"
        raise typer.BadParameter(msg)
    return path


def folder_beside_runs(path: _Place) -> _Place:
    """Refuse, besides, a run folder: it holds the measurements of one run and nothing else."""
    if path is not None and (path / "run.json").exists():
        msg = f"{path} is a run folder, which holds one run's measurements; name another folder"
        raise typer.BadParameter(msg)
    return folder_to_write(path)


def with_a_name(path: Path) -> Path:
    """Return the path in a form that ends with the folder's name: ``.`` and ``..`` are resolved."""
    named = path.resolve() if path.name in ("", "..") else path
    if not named.name:
        msg = f"{path} has no name; name a folder in it"
        raise typer.BadParameter(msg)
    return named


def subset_folder(path: Path) -> Path:
    """Refuse, besides, a folder whose name no subset can have."""
    from avbench.core import checked_id

    path = folder_to_write(with_a_name(path))
    checked_id(path.name, f"{path}: its name")
    return path


def _form(form: str) -> str:
    from avbench.core import require_known

    form = "md" if form == "markdown" else form
    require_known("format", form, FORMS)
    return form


def _precision(asked: str | None) -> str | None:
    from avbench.features.devices import require_precision

    require_precision(asked)
    return asked


Models = Annotated[
    list[str] | None,
    typer.Argument(help="provider:target, for example clips:FOLDER or toyworld:; NAME=provider:target names its run."),
]
Runs = Annotated[
    list[Path], typer.Argument(help="Run folders.", callback=lambda paths: [with_a_name(path) for path in paths])
]
Subsets = Annotated[
    list[str] | None,
    typer.Option("--subset", help="A shipped subset or a subset folder; several: a,b.", callback=split_at_commas),
]
Prompts = Annotated[
    Path | None,
    typer.Option(help="A file of your own prompts instead of a subset: .jsonl, .json, .csv, .txt, .parquet."),
]
Seeds = Annotated[int, typer.Option(min=1, help="Clips per prompt: seeds 0 … N-1.")]
AskedBy = Annotated[
    str | None,
    typer.Option(
        "--preset", help="A paper's settings, by name (`list presets`) or .toml; other options override them."
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N prompts of each subset; may grow later.")]
View = Annotated[
    list[str] | None,
    typer.Option(help="full, lite, short, dev, test or tag=value of each subset; several: a,b.", callback=_views),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "-M", callback=with_settings_of_file, help="A setting of the model, name=value; repeat it for several settings."
    ),
]
FrameRate = Annotated[
    str | None, typer.Option("--fps", help="Frame rate of folders of numbered frames: 25, 30000/1001.")
]
Metrics = Annotated[
    list[str] | None, typer.Option("--metric", help="Only these metrics: a,b.", callback=split_at_commas)
]
Columns = Annotated[
    str | None,
    typer.Option("--columns", help="A preset of metrics: vbench, t2av, hearing-helps-seeing or fast (`list columns`)."),
]
Workers = Annotated[int | None, typer.Option(min=0, help="Worker processes; one per core by default, 0 for none.")]
Engine = Annotated[
    str, typer.Option("--engine", help="What workers are: local (processes of this machine) or ray (Ray's actors).")
]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster, as host:port or auto; RAY_ADDRESS by default, else Ray starts on this machine."),
]
ItemTimeout = Annotated[
    float | None,
    typer.Option(help="With --engine ray: seconds after which a clip that is being made or measured is given up."),
]
Device = Annotated[
    str, typer.Option("--device", help="Where networks measure: auto (a GPU, if there is one), cpu, cuda or cuda:0,1.")
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        callback=_precision,
        help="fp32 (default) or bf16, for I3D and LPIPS where the hardware has it: other numbers, never compared with "
        "those of fp32.",
    ),
]
Out = Annotated[Path, typer.Option(help="Folder that holds the run folders.", callback=folder_beside_runs)]
ReferenceAt = Annotated[
    Path | None,
    typer.Option(
        "--reference",
        help="A reference folder instead of the shipped one; a run folder remembers it (`shipped` goes back).",
    ),
]
OtherReference = Annotated[
    Path | None,
    typer.Option(
        "--reference",
        help="A reference folder, or `shipped`: what rests on a reference is computed anew with it. The run folders "
        "keep their scores.",
    ),
]
Against = Annotated[Path | None, typer.Option(help="Run folder that holds the reference clips, for lpips_reference.")]
FVDProtocols = Annotated[
    list[str] | None,
    typer.Option(
        "--fvd-protocol", help="FVD as this published code computes it, or all; several: a,b.", callback=split_at_commas
    ),
]
Fetch = Annotated[
    bool, typer.Option("--fetch", help="Download the weights that the metrics need and that are missing.")
]
AcceptLicence = Annotated[
    list[str] | None,
    typer.Option(
        "--accept-licence",
        help="You keep to this licence of weights that are fetched, such as CC-BY-NC-4.0; several: a,b.",
        callback=split_at_commas,
    ),
]
Form = Annotated[str, typer.Option("--format", help="console, csv, json, md or latex.", callback=_form)]
PlanAt = Annotated[Path | None, typer.Option("--plan", help="A TOML file of primary questions and margins.")]
PlannedPrompts = Annotated[
    list[str] | None,
    typer.Option("--prompts", help="Numbers of prompts to plan for: 50,100.", callback=_numbers(2)),
]
PlannedSeeds = Annotated[
    list[str] | None, typer.Option("--seeds", help="Numbers of seeds to plan for: 1,2,4.", callback=_numbers(1))
]
PlannedTrainings = Annotated[
    list[str] | None,
    typer.Option("--trainings", help="Arms only: numbers of trainings per arm to plan for: 3,5.", callback=_numbers(2)),
]
ShardOf = Annotated[
    str | None,
    typer.Option("--shard", help="i/n: only the i-th of n parts, into shards/i-of-n; `runs merge` puts them together."),
]
MirrorAt = Annotated[
    str | None,
    typer.Option(
        "--mirror",
        help="Keep a copy of each run folder here, and continue what another machine began: s3://bucket/runs, gs://…",
    ),
]
Explain = Annotated[
    list[str] | None,
    typer.Option(
        help="Show on the page what this metric saw of each clip; repeatable, or a,b.", callback=split_at_commas
    ),
]
Replace = Annotated[
    bool,
    typer.Option(
        "--replace",
        help="Delete and make again what the run folder holds of another model, other settings, or changed clips.",
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(help="Compare although these fields differ, and mark the rows: a,b.", callback=split_at_commas),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        is_eager=True,
        callback=read_config,
        help="A TOML file with options of this command as keys; the command line overrides it.",
    ),
]
