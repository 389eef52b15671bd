"""What was run: one model on some subsets, and the samples it made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from avbench.core.errors import InputError
from avbench.core.prompt import checked_id
from avbench.core.rows import Key


@dataclass(frozen=True)
class Run:
    """One model on some subsets. All but versions, machine, asked and preset must be the same to resume a run."""

    name: str
    model: str
    """The model as it was typed: ``provider:target``."""
    settings: Mapping[str, Any]
    """Every setting of the generator, defaults included: its fingerprint."""
    subsets: Mapping[str, str]
    """Subset name → digest."""
    seeds: tuple[int, ...]
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    asked: Mapping[str, Any] = field(default_factory=dict)
    """The settings that were asked for, and not left at their defaults."""
    preset: Mapping[str, Any] | None = None
    """The paper's settings that were asked for, and what took the place of which (presets.py)."""

    def __post_init__(self) -> None:
        checked_id(self.name, "run name")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            msg = f"seeds are {list(self.seeds)}; give at least one, each once"
            raise InputError(msg)

    def identity(self) -> dict[str, Any]:
        """What must be equal for a run to be resumed."""
        return {
            "model": self.model,
            "settings": dict(self.settings),
            "subsets": dict(self.subsets),
            "seeds": list(self.seeds),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values for run.json."""
        made = {"versions": dict(self.versions), "machine": dict(self.machine), "asked": dict(self.asked)}
        if self.preset is not None:
            made["preset"] = dict(self.preset)
        return {"name": self.name, **self.identity(), **made}


@dataclass(frozen=True)
class Sample:
    """One (prompt, seed) of a run: the clip's file, or the sentence why there is none."""

    key: Key
    path: str | None
    """Relative to the run folder."""
    sha256: str | None
    """Of the file's bytes."""
    seconds: float
    """How long the making took, in seconds."""
    failure: str | None = None
    spec_mismatch: str | None = None
    """In what the clip is not of the form that its subset asks for; it is brought to it when it is measured."""
    call: Mapping[str, Any] | None = None
    """What the model was asked, where that is not in the settings."""
    peak_memory_mib: float | None = None
    """The most that the process has held until then."""
    peak_gpu_memory_mib: float | None = None
    """The most that was allocated while this clip was made, or its batch; None without a CUDA device."""
    remark: str | None = None
    """What the reader of the file decided by itself, such as the rate of a file of variable rate."""
    refused: bool = False
    """Whether the failure is the model's answer (moderation): it is counted by itself and not asked for again."""
    source: str | None = None
    """What the clip was taken from, as that was then, where prompt, seed and settings do not say it: the hash of a
    folder of frames, or what a server says that it runs. A file that is kept byte for byte has its own sha256."""

    def __post_init__(self) -> None:
        if (self.path is None) == (self.failure is None) or (self.path is None) != (self.sha256 is None):
            msg = f"sample {self.key}: give either a path with its sha256 or the sentence why there is none"
            raise InputError(msg)
