"""What is a model measured against? Reference columns: the rows of real clips under stated protocols.

``reference_stats/<subset>/`` has columns.safetensors, the values of every feature; clips.csv, the clips they were
measured on, in the columns' order, with a 1 for each feature that could measure the clip; and card.json, how they were
made: subset and digest, model, seeds, protocols, n, licence, versions, and the command. No time or machine is in them:
the same command with the same versions on the same kind of processor gives the same bytes.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save

from avbench import shipped
from avbench.core import Columns, InputError, Key, Protocol, Subset, columns, nearest, require_same_protocol
from avbench.folder import RunFolder, file_sha256, read_json, write_json, write_whole

FIRST_SEED = 1_000_000
"""Reference clips are made under seeds that no run uses by default."""


@dataclass(frozen=True, eq=False)
class Reference:
    """The reference of one subset."""

    subset: str
    subset_digest: str
    protocols: Mapping[str, Any]
    """Feature id → described protocol."""
    prompts: Mapping[str, np.ndarray]
    """Feature id → the prompt id of every clip that its columns hold, in order."""
    values: Mapping[str, Columns]
    """Feature id → columns."""
    card: Mapping[str, Any]
    clips: pd.DataFrame

    def keys(self, protocol, subset):
        """Keys."""
        clips = self.clips[self.clips[protocol.name] == 1]
        found = [Key(self.subset, prompt, int(seed)) for prompt, seed in zip(clips["prompt"], clips["seed"])]
        wanted = {prompt.id for prompt in subset.prompts}
        return [key for key in found if key.prompt in wanted]

    def moments(self, protocol, value):
        """None."""
        return None

    def shared(self, samples):
        """Shared."""
        return [s.key for s in samples if s.sha256 in set(self.clips["clip_sha256"])]

    def columns(self, protocol: Protocol, subset: Subset) -> tuple[Columns, np.ndarray]:
        """The columns of one feature, restricted to the prompts of `subset`, and the prompt id of each of their clips.

        Raises:
            InputError: the reference is of another subset or lacks the feature, or was made under another protocol.
        """
        if subset.whole_digest != self.subset_digest:
            msg = f"the reference of {self.subset} was built for another version of that subset; build it again"
            raise InputError(msg)
        if protocol.name not in self.values:
            msg = f"the reference of {self.subset} has no {protocol.name}; it has {', '.join(self.values)}"
            raise InputError(msg)
        require_same_protocol(protocol.describe(), self.protocols[protocol.name], f"{protocol.name} and its reference")
        chosen = np.isin(self.prompts[protocol.name], [prompt.id for prompt in subset.prompts])
        restricted = {name: column[chosen] for name, column in self.values[protocol.name].items()}
        return restricted, self.prompts[protocol.name][chosen]


def names() -> list[str]:
    """The subsets that have a shipped reference."""
    return sorted(card.parent.name for card in shipped.folder("reference_stats").glob("*/card.json"))


def named(name: str) -> Reference:
    """The shipped reference of this name. Raises InputError where there is none."""
    if name not in names():
        msg = f"there is no reference of {name!r}; {nearest(name, names())}"
        raise InputError(msg)
    return load(shipped.folder("reference_stats") / name)


def find(subset: Subset, place: Path | None = None) -> Reference | None:
    """The shipped reference of a subset, or None."""
    return named(subset.name) if subset.name in names() else None


def load(place: Path) -> Reference:
    """Read a reference folder. Raises InputError where a file is missing or its bytes are not the card's."""
    card = read_json(place / "card.json")
    for name, sha256 in card["sha256"].items():
        if not (place / name).is_file() or file_sha256(place / name) != sha256:
            msg = f"{place / name} is missing or not the file that its card describes (sha256 {sha256[:12]}…)"
            raise InputError(msg)
    values: dict[str, dict[str, np.ndarray]] = {}
    for name, column in load_file(place / "columns.safetensors").items():
        feature, _, value = name.partition("/")
        values.setdefault(feature, {})[value] = column.astype(np.float64)
    clips = pd.read_csv(place / "clips.csv")
    prompts = {feature: clips.loc[clips[feature] == 1, "prompt"].to_numpy() for feature in values}
    return Reference(card["subset"], card["subset_digest"], card["protocols"], prompts, values, card, clips)


def pack(folder: RunFolder, subset: Subset, protocols: Sequence[Protocol], place: Path, licence: str) -> str:
    """Write a measured run on `subset` as that subset's reference; returns the columns' sha256.

    Embeddings are kept as float32, as the networks give them; scalars as float64.

    Raises:
        InputError: a clip failed or a feature has no rows.
    """
    run, samples = folder.run(), folder.samples()
    if failed := [sample for sample in samples.values() if sample.failure]:
        msg = f"{len(failed)} clips failed, for example {failed[0].key}: {failed[0].failure}; a reference must be whole"
        raise InputError(msg)
    made = sorted(samples.values(), key=lambda sample: sample.key)
    clips = pd.DataFrame([(one.key.prompt, one.key.seed, one.sha256) for one in made], columns=_CLIP_COLUMNS)
    flat: dict[str, np.ndarray] = {}
    for protocol in protocols:
        keys, stacked = columns(folder.rows(protocol).values())
        if not keys:
            msg = f"no clip of {subset.name} has a row of {protocol.name}; measure the run first"
            raise InputError(msg)
        measured = set(keys)
        clips[protocol.name] = [int(sample.key in measured) for sample in made]
        for name, column in stacked.items():
            flat[f"{protocol.name}/{name}"] = column.astype(np.float32) if column.ndim > 1 else column
    write_whole(place / "columns.safetensors", save(flat))
    write_whole(place / "clips.csv", clips.to_csv(index=False, lineterminator="\n").encode())
    sha256 = {name: file_sha256(place / name) for name in ("columns.safetensors", "clips.csv")}
    options = {"model": run.model, "seeds": len(run.seeds), "first-seed": run.seeds[0], "licence": licence}
    command = ["avbench", "reference", "build", subset.name]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    card = {
        "subset": subset.name,
        "subset_digest": subset.digest,
        "model": run.model,
        "settings": run.settings,
        "seeds": list(run.seeds),
        "clips": {protocol.name: int(clips[protocol.name].sum()) for protocol in protocols},
        "licence": licence,
        "command": shlex.join(command),
        "versions": run.versions,
        "sha256": sha256,
        "protocols": {protocol.name: protocol.describe() for protocol in protocols},
    }
    write_json(place / "card.json", card)
    return sha256["columns.safetensors"]


_CLIP_COLUMNS = ["prompt", "seed", "clip_sha256"]
