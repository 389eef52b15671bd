"""Defines `Run`, one model on some subsets, and `Sample`, the record of one generated clip."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from avbench.core.errors import InputError
from avbench.core.prompt import checked_name
from avbench.core.protocol import is_sha256
from avbench.core.rows import Key
from avbench.core.shard import Shard


@dataclass(frozen=True)
class Run:
    """One model on some subsets. To resume a run, everything returned by `identity` must be equal."""

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
    """The settings that the user gave, as opposed to defaults."""
    preset: Mapping[str, Any] | None = None
    """The paper preset that the user chose, and which of its settings the user overrode."""
    shard: str | None = None
    """The shard, as ``i/n``, if the folder holds only a part of the run."""

    def __post_init__(self) -> None:
        checked_name(self.name, "run name")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            msg = f"seeds are {list(self.seeds)}; give at least one, each once"
            raise InputError(msg)
        if self.shard is not None:
            Shard.parse(self.shard)

    def identity(self) -> dict[str, Any]:
        """Return what must be equal for a run to be resumed."""
        plain = {
            "model": self.model,
            "settings": dict(self.settings),
            "subsets": dict(self.subsets),
            "seeds": list(self.seeds),
        }
        return plain if self.shard is None else {**plain, "shard": self.shard}

    def spelled_as(self, other: "Run") -> "Run":
        """This run with the model and settings as `other` spells them, if both are the same files under other paths."""
        same_model = self._model_by_content() == other._model_by_content()
        same = same_model and by_content(self.settings) == by_content(other.settings)
        if not (same or self._same_weights(other)):
            return self
        same_asked = by_content(self.settings, self.asked) == by_content(other.settings, other.asked)
        asked = other.asked if same_asked else self.asked
        return replace(self, model=other.model, settings=other.settings, asked=asked)

    def _model_by_content(self) -> tuple[str, Any]:
        provider, _, target = self.model.partition(":")
        if provider == "cmd":  # the words of the command are among the settings
            return provider, None
        return provider, by_content(self.settings, {"target": target})

    def _same_weights(self, other: "Run") -> bool:
        """Whether the settings are equal and hold the hashes of all the model's files, wherever these lie."""
        files = self.settings.get("weights")
        if not isinstance(files, Mapping) or not files or self.settings != other.settings:
            return False
        hashed = [files] if "sha256" in files else files.values()
        return all(isinstance(one, Mapping) and "sha256" in one for one in hashed)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values for run.json."""
        made = {"versions": dict(self.versions), "machine": dict(self.machine), "asked": dict(self.asked)}
        if self.preset is not None:
            made["preset"] = dict(self.preset)
        return {"name": self.name, **self.identity(), **made}


_IDENTIFIED = ("files_sha256", "folders", "inputs")
"""Settings that map the paths of a user's model to the hashes of what lies there."""


def by_content(settings: Mapping[str, Any], values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return settings, or other `values` of their run, with each path that the settings identify replaced by its hash.

    So a script or checkpoint is the same one from another working folder, or after its folder was moved.
    """
    found = {name: _hashes(settings[name]) for name in _IDENTIFIED if name in settings}
    known = {str(PurePath(path)): sha256 for hashes in found.values() for path, sha256 in hashes.items()}

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        if not isinstance(value, str):
            return value
        option, equals, path = value.partition("=")
        named = f"{option}={known[str(PurePath(path))]}" if equals and str(PurePath(path)) in known else value
        return known.get(str(PurePath(value)), named)

    if values is not None:
        return plain(values)
    files = {name: sorted([PurePath(path).name, one] for path, one in of.items()) for name, of in found.items() if of}
    return {**{name: plain(value) for name, value in settings.items() if name not in files}, **files}


def _hashes(paths: Any) -> dict[str, Any]:
    """Path → hash; empty if it is a setting of another form, which only has the name."""
    if not isinstance(paths, Mapping):
        return {}
    plain = {path: one.get("sha256") if isinstance(one, Mapping) else one for path, one in paths.items()}
    return plain if all(map(is_sha256, plain.values())) else {}


NO_FILE = "no file matches"
"""Begins the failure of a clip that is not in a folder of finished clips."""


def is_absent(failure: str | None) -> bool:
    """Whether a finished clip has no file, by its failure."""
    return (failure or "").startswith(NO_FILE)


def lacking(model: str, failure: str) -> str:
    """What became of a clip that has this failure, in two words: ``not made``, or of a finished clip ``not found``."""
    if not model.startswith("clips:"):
        return "not made"
    return "not found" if is_absent(failure) else "not read"


@dataclass(frozen=True)
class Sample:
    """One (prompt, seed) of a run: the clip's file, or a sentence why there is none."""

    key: Key
    path: str | None
    """Relative to the run folder."""
    sha256: str | None
    """Of the file's bytes."""
    seconds: float
    """How long generating the clip took."""
    failure: str | None = None
    spec_mismatch: str | None = None
    """How the clip differs from its subset's clip spec; it is conformed to the spec when it is measured."""
    call: Mapping[str, Any] | None = None
    """The arguments of the call to the model, where the run's settings do not hold them."""
    peak_memory_mib: float | None = None
    """Peak memory of the process up to then."""
    peak_gpu_memory_mib: float | None = None
    """Peak memory of all GPUs together that this clip, or its batch, was generated with; None if it used none."""
    remark: str | None = None
    """What the file reader had to decide, such as a rate for a file of variable rate."""
    refused: bool = False
    """Whether the model refused the prompt (moderation): refusals are counted separately and not tried again."""
    source: str | None = None
    """Where the clip came from, if prompt, seed and settings do not say it: the hash of a folder of frames, or the
    model that a server reported. Not needed for a file that is kept byte for byte: its sha256 is recorded."""

    def __post_init__(self) -> None:
        if (self.path is None) == (self.failure is None) or (self.path is None) != (self.sha256 is None):
            msg = f"sample {self.key}: give either a path with its sha256 or a sentence why there is none"
            raise InputError(msg)
