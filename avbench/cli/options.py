"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass

Models = Annotated[list[str] | None, typer.Argument(help="provider:target, for example clips:FOLDER or toyworld:")]
Runs = Annotated[list[Path], typer.Argument(help="Run folders.")]
Subsets = Annotated[list[str] | None, typer.Option("--subset", help="A shipped subset or a subset folder; repeatable.")]
Prompts = Annotated[Path | None, typer.Option(help="A prompts.jsonl of your own instead of a subset.")]
Seeds = Annotated[int, typer.Option(min=1, help="Clips per prompt: seeds 0 … N-1.")]
AskedBy = Annotated[
    str | None,
    typer.Option("--preset", help="A paper's settings, by name (`list presets`) or .toml; options go before it."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N prompts of each subset.")]
View = Annotated[
    list[str] | None,
    typer.Option(help="full, lite, short, dev, test or tag=value of each subset; repeatable, one after another."),
]
Settings = Annotated[list[str] | None, typer.Option("-M", help="A setting of the model, name=value; repeatable.")]
Metrics = Annotated[list[str] | None, typer.Option("--metric", help="Only this metric; repeatable.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; one a core where not given.")]
Out = Annotated[Path, typer.Option(help="Folder that holds the run folders.")]
ReferenceAt = Annotated[Path | None, typer.Option("--reference", help="A reference folder instead of the shipped one.")]
Against = Annotated[Path | None, typer.Option(help="Run folder that holds the reference clips, for lpips_reference.")]
FVDProtocols = Annotated[
    list[str] | None, typer.Option("--fvd-protocol", help="FVD as this code has it, or all; repeatable.")
]
Form = Annotated[str, typer.Option("--format", help="console, markdown, latex, csv or json.")]
PlanAt = Annotated[Path | None, typer.Option("--plan", help="A TOML of primary questions and margins.")]
Replace = Annotated[
    bool,
    typer.Option(
        "--replace",
        help="Make anew what the run folder holds of another model, of other settings, or of clips that have changed.",
    ),
]
Allow = Annotated[list[str] | None, typer.Option(help="Compare although this field differs, and mark it; repeatable.")]
