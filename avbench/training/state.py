"""Saves the state and the losses of a training, so that a killed one goes on, and checks that a state fits."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avbench.avfulldit.checkpoint import CARD
from avbench.core import OTHER_CONTENT, InputError, first_line, is_sha256
from avbench.storage.reading import read_json
from avbench.storage.writing import replacing, write_whole
from avbench.training.machine import Machine
from avbench.training.plan import Plan

STATE = "state.pt"
LOSSES = "losses.csv"


@dataclass
class Progress:
    """A progress report, which `train` yields from time to time."""

    step: int
    video_loss: float | None
    """Mean since the last report."""
    audio_loss: float | None
    seconds: float
    seen_sha256: str
    """A chained hash of what the video side was shown so far: which examples, their timesteps, which captions were
    dropped, and eight values of each noised clip. The captions' words are not in it.
    """


def require_own_state(
    folder: Path, plan: Plan, source: Mapping[str, Any], origin: Mapping[str, Any] | None = None
) -> None:
    """Raise InputError if a folder holds the state of another training, or a damaged one."""
    load(folder / STATE, identity_of(plan, source, origin), torch.device("cpu"))


def identity_of(plan: Plan, source: Mapping[str, Any], origin: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a training's state belongs to."""
    return {**asdict(plan), "source": dict(source), **(origin or {})}


def begun_on(folder: Path) -> Machine | None:
    """Return how the training in a folder was begun, None if there is none: it goes on like that, because another
    precision would be another training. Raises InputError if it needs a GPU and there is none.
    """
    return _machine_of(folder, _read_state(folder / STATE, torch.device("cpu")))


def trained_on(folder: Path) -> Machine | None:
    """`begun_on`, or for a finished training whose state was removed, what its card says."""
    card = folder / CARD
    return begun_on(folder) or _machine_of(folder, read_json(card, dict) if card.exists() else None)


def _machine_of(folder: Path, record: Mapping[str, Any] | None) -> Machine | None:
    if record is None or "machine" not in record:
        return None
    machine = Machine(**record["machine"])
    if machine.device == "cuda" and not torch.cuda.is_available():
        msg = f"{folder} was begun on a GPU, and here is none: go on where one is, or choose another folder"
        raise InputError(msg)
    return machine


def load(path: Path, asked: Mapping[str, Any], device: torch.device) -> dict[str, Any] | None:
    """Read a state; None if there is none. Raises InputError if it is damaged, or belongs to another training."""
    state = _read_state(path, device)
    if state is not None and state["plan"] != asked:
        msg = f"{path} belongs to another training ({differing(state['plan'], asked)}); choose another folder"
        raise InputError(msg)
    return state


def _read_state(path: Path, device: torch.device) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises whatever its readers raise; each means that the file is damaged
        msg = f"{path} cannot be read as a training's state: {first_line(error)}; remove it to begin again"
        raise InputError(msg) from None
    if not isinstance(state, dict) or not isinstance(state.get("plan"), dict):
        msg = f"{path} is not a training's state; remove it to begin again"
        raise InputError(msg)
    return state


def differing(there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Those of the fields asked for that a folder holds with another value, in words; empty if there are none."""
    return ", ".join(_changes(there, asked))


def _changes(there: Mapping[str, Any], asked: Mapping[str, Any], within: str = "") -> Iterator[str]:
    for name, new in asked.items():
        old = there.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changes(old, new, f"{within}{name}.")
        elif is_sha256(old) and is_sha256(new) and old != new:
            yield f"{within}{name}: {OTHER_CONTENT}"
        elif old != new:
            yield f"{within}{name} is {old!r} there and {new!r} here"


def save(
    path: Path,
    objective: nn.Module,
    optimisers: list[torch.optim.Optimizer],
    average: Mapping[str, Tensor],
    progress: Progress,
    identity: Mapping[str, Any],
    machine: Machine,
) -> None:
    """Write the state in one step.

    Raises:
        InputError: the weights are no longer finite; what was saved before is kept.
    """
    if not all(bool(weight.isfinite().all()) for weight in average.values()):
        msg = f"the weights after step {progress.step} are no longer finite numbers: try a lower learning rate"
        raise InputError(msg)
    state = {
        "model": objective.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        "average": average,
        "progress": asdict(progress),
        "plan": dict(identity),
        "machine": asdict(machine),
    }
    with replacing(path) as part, part.open("wb") as file:  # to a path torch writes by itself, and names no reason
        torch.save(state, file)


def keep_losses(path: Path, steps: int) -> None:
    """Remove an incomplete last line, and the losses of steps after the resumed state, because they run again; and
    lines without a step, which a crash of the machine can leave.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[1:-1] if path.exists() else []
    numbered = [(line.split(",")[0], line) for line in lines]
    kept = [line for step, line in numbered if step.isdecimal() and int(step) <= steps]
    write_whole(path, "".join(f"{line}\n" for line in ("step,video_loss,audio_loss,seconds", *kept)).encode())


def log(path: Path, progress: Progress) -> None:
    """Append the losses of a report."""
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow([progress.step, progress.video_loss, progress.audio_loss, f"{progress.seconds:.3f}"])
