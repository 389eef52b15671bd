"""Defines the commands that train AVFullDiT."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avbench.cli.options import Workers, folder_to_write, with_a_name
from avbench.cli.printing import keep_quiet, print_line, print_notes, refuse, show_progress, show_training
from avbench.cli.program import train_app
from avbench.cli.steps import opened_runs, worker_count

if TYPE_CHECKING:
    from avbench.training.examples import Examples as ReadExamples
    from avbench.training.machine import Machine
    from avbench.training.train import Session

Data = Annotated[str, typer.Option(help="toyworld, or a folder of clips with a prompts.jsonl.")]
ExamplesFolder = Annotated[Path, typer.Option(help="Folder of the examples.")]
Steps = Annotated[int, typer.Option(min=1, help="Training steps.")]
Batch = Annotated[int, typer.Option(min=1, help="Examples per step, over all processes.")]
Rate = Annotated[float, typer.Option(min=0.0, help="Highest learning rate.")]
Seed = Annotated[
    int, typer.Option(min=0, max=2**63 - 1, help="Seed of the data, their order, noise, timesteps and first weights.")
]
Target = Annotated[
    Path,
    typer.Option(
        "--out", help="Folder to write; the same command given again resumes there.", callback=folder_to_write
    ),
]


@train_app.callback()
def first_speaks_for_all() -> None:
    """Of several processes that train together, let the others print nothing but errors."""
    if os.environ.get("RANK", "0") != "0":
        keep_quiet(True)
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")


@train_app.command("examples")
def train_examples(
    out: Target,
    data: Data = "toyworld",
    clips: Annotated[int, typer.Option(min=1, help="Number of clips to make.")] = 24_300,
    seed: Seed = 0,
    workers: Workers = None,
) -> None:
    """Make training clips, which many trainings can use. A training that is begun meanwhile waits for them."""
    from avbench.core import as_typed, counted
    from avbench.training.train import caption_remarks, make_examples

    print_notes(caption_remarks(data, clips))
    show_progress(f"examples: {out}", clips, make_examples(data, clips, seed, out, worker_count(workers)))
    trained = f"avbench train tower video --examples {as_typed(out)} --out FOLDER"
    print_line(f"{counted(clips, 'example')} in {out}; `{trained}` trains the video tower on them")


@train_app.command("tower")
def train_tower(
    what: Annotated[str, typer.Argument(help="video or audio")],
    out: Target,
    examples: ExamplesFolder,
    steps: Steps = 12_000,
    batch: Batch = 16,
    rate: Rate = 2e-3,
    seed: Seed = 0,
) -> None:
    """Train one tower from scratch."""
    from avbench.core import require_known
    from avbench.training.plan import Plan
    from avbench.training.state import begun_on
    from avbench.training.train import TOWERS, make_tower, require_tower_inputs

    require_known("tower", what, TOWERS)
    plan, data = Plan(steps, batch, learning_rate=rate, seed=seed), _opened(examples)
    require_tower_inputs(plan, data, out)
    machine = _machine([begun_on(out)])
    show_training(make_tower(what, plan, _session(data, out, machine)), f"{what} tower: {out}", steps)


@train_app.command("arms")
def train_arms(
    out: Annotated[Path, typer.Option(help="Folders to write, without the -t2v and -t2av at their ends.")],
    video: Annotated[Path, typer.Option(help="Checkpoint of the video tower.")],
    audio: Annotated[Path, typer.Option(help="Checkpoint of the audio tower.")],
    examples: ExamplesFolder,
    arm: Annotated[list[str] | None, typer.Option(help="t2v or t2av; both by default.")] = None,
    steps: Steps = 4600,
    batch: Batch = 16,
    rate: Rate = 1e-3,
    audio_weight: Annotated[float, typer.Option(min=0.0, help="Weight λ_a of the audio loss; λ_v is 1.")] = 1.0,
    seed: Seed = 1,
) -> None:
    """Train the T2V and the T2AV arm from the same towers, and check that all settings were identical."""
    from avbench.core import require_known
    from avbench.training.plan import Plan
    from avbench.training.state import trained_on
    from avbench.training.train import ARMS, make_arm, require_arm_inputs, same_settings

    plan = Plan(
        steps,
        batch,
        learning_rate=rate,
        decay_share=0.6,
        link_steps=min(300, steps // 10),
        audio_weight=audio_weight,
        seed=seed,
    )
    out = with_a_name(out)
    folders = {one: folder_to_write(out.with_name(f"{out.name}-{one}")) for one in ARMS}
    for one in arm or ():
        require_known("arm", one, ARMS)
    data = _opened(examples)
    asked = [folders[one] for one in arm or ARMS]
    others = [folder for folder in folders.values() if folder not in asked]
    require_arm_inputs(video, audio, plan, data, asked, others)
    machine = _machine(map(trained_on, folders.values()))  # one for both arms
    for one in arm or ARMS:
        session = _session(data, folders[one], machine)
        show_training(make_arm(one, video, audio, plan, session), f"{one}: {folders[one]}", steps)
    if all((folder / "card.json").exists() for folder in folders.values()):
        if differing := same_settings(*folders.values()):
            refuse(f"the arms were not trained under identical settings: {', '.join(differing)} differ", code=1)
        print_line("both arms saw the same clips, noise and timesteps under the same settings")


@train_app.command("report")
def train_report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders of the toy subsets, with the embedded world itself among them.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Write the table to this file instead, as markdown, and pictures beside it.")
    ] = None,
) -> None:
    """Show how good trained arms are: colours, number of bodies, sound against contacts, physics, distances.

    With --out FILE.md it also draws 12 random prompts: FILE-clips.png has a strip of frames for each run,
    FILE-sound.png the spectrograms with onsets (green) and visible contacts (red).
    """
    from avbench.storage.writing import write_whole
    from avbench.training.report import markdown, table
    from avbench.training.sheets import png, sheets

    folders = opened_runs(runs, reads_clips=True)
    text = markdown(table(folders))
    if out is None:
        print_line(text)
    else:
        write_whole(out, text.encode())
        for name, picture in sheets(folders).items():
            write_whole(out.with_name(f"{out.stem}-{name}.png"), png(picture))


def _machine(begun: "Iterable[Machine | None]") -> "Machine":
    """Return how the first of these trainings was begun, or else choose the fastest way on this machine."""
    from avbench.training.machine import Machine, silence_torch

    silence_torch()
    machine = next(filter(None, begun), None) or Machine.measured()
    print_line(f"training {machine}", err=True)
    return machine


def _opened(examples: Path) -> "ReadExamples":
    """Open examples, of which the last may be about to be made by another command."""
    from avbench.storage.writing import is_being_written
    from avbench.training.examples import Examples

    data = Examples.open(examples)
    if (made := data.made()) < len(data):
        if not is_being_written(examples):
            refuse(f"{examples} holds {made} of its {len(data)} examples: give its `avbench train examples` again")
        print_line(f"{examples} holds {made} of its {len(data)} examples; waiting for the others", err=True)
    return data


def _session(data: "ReadExamples", out: Path, machine: "Machine") -> "Session":
    from avbench.training.loop import Pace
    from avbench.training.train import Session

    return Session(data, out, machine, Pace(report_every=50 if machine.device == "cuda" else 1))
