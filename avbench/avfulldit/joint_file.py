"""Reads and writes what training of two joined towers changed: one file, ``avfulldit:WAN+TANGOFLUX+FILE``.

It holds the new weights of AVFull-Attention and what else of the towers was trained, under the names that the joined
model has for them. The metadata say how the towers are joined, how strongly they attend to each other, and to which
towers the file belongs: a digest over the beginnings of all tensors that it does not hold. These are rounded to
bfloat16, so that the digest is the same in whatever precision they are read.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from avbench.avfulldit.model import AVFullDiT, JointConfig
from avbench.core import InputError, counted
from avbench.storage.reading import parsed, tensor_header
from avbench.storage.writing import replacing

FORMAT = "avfulldit-joint-1"
_NEW = "widenings."
_HEAD = 64


@dataclass(frozen=True)
class JointFile:
    """The metadata of a file."""

    path: Path
    joint: JointConfig
    """How the towers were joined in training; `tau` is for the frame rate of the training clips."""
    link: float
    towers: str
    """The digest of all tensors that the file does not hold."""
    card: Mapping[str, Any] = field(default_factory=dict)


def save_joint(dit: AVFullDiT, path: Path, card: Mapping[str, Any] | None = None) -> None:
    """Write the trained weights: the new ones, and all weights of the towers that require a gradient.

    Args:
        dit: two joined towers; its present `link` is what it is sampled with.
        path: of the safetensors file.
        card: how it was trained, in plain values.

    Raises:
        InputError: the model is not two towers.
    """
    if dit.joint is None:
        msg = "only two joined towers have a joint file"
        raise InputError(msg)
    weights = dict(dit.named_parameters())
    kept = {name: one for name, one in weights.items() if name.startswith(_NEW) or one.requires_grad}
    metadata = {
        "format": FORMAT,
        "joint": json.dumps(asdict(dit.joint)),
        "link": json.dumps(dit.link),
        "towers": _digest(dit, kept),
        "card": json.dumps(dict(card or {})),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        save_file({name: one.detach().cpu().contiguous() for name, one in kept.items()}, part, metadata)


def read_joint(path: Path) -> JointFile:
    """Read the metadata of a file. Raises InputError if it is no such file or holds an impossible value."""
    recorded = tensor_header(path).get("__metadata__")
    recorded = recorded if isinstance(recorded, dict) else {}
    if recorded.get("format") != FORMAT:
        msg = f"{path} is no trained joint: its metadata do not say format {FORMAT!r}"
        raise InputError(msg)
    try:
        kinds = {"joint": JointConfig, "link": float, "card": dict}
        joint, link, card = (parsed({"card": "{}", **recorded}[name].encode(), name, kinds[name]) for name in kinds)
        found = JointFile(path, joint, link, recorded["towers"], card)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        msg = f"{path}: its metadata do not say how the towers are joined: {error}"
        raise InputError(msg) from None
    if not 0 <= link <= 1:
        msg = f"{path}: link is {link!r}; it must be from 0, where neither tower attends to the other, to 1"
        raise InputError(msg)
    return found


def fill(dit: AVFullDiT, file: JointFile) -> None:
    """Load a file's weights into a model whose towers have their published weights.

    Raises:
        InputError: a tensor is missing, unexpected or of another shape, or the file was trained on other towers.
    """
    weights = dict(dit.named_parameters())
    with safe_open(file.path, "pt") as stored:
        names = set(stored.keys())
        if missing := sorted(name for name in weights if name.startswith(_NEW) and name not in names):
            msg = f"{file.path} lacks {counted(len(missing), 'tensor')} of the joint layers, {missing[0]} first"
            raise InputError(msg)
        if unexpected := sorted(names - weights.keys()):
            held = counted(len(unexpected), "tensor")
            msg = f"{file.path} holds {held} that these towers have not, {unexpected[0]} first"
            raise InputError(msg)
        for name in sorted(names):
            shape, wanted = tuple(stored.get_slice(name).get_shape()), tuple(weights[name].shape)
            if shape != wanted:
                msg = f"{file.path}: {name} is of shape {shape}, these towers require {wanted}"
                raise InputError(msg)
        if _digest(dit, names) != file.towers:
            msg = f"{file.path} was trained on other towers: weights that it does not hold differ from those it knew"
            raise InputError(msg)
        with torch.no_grad():
            for name in names:
                weights[name].copy_(stored.get_tensor(name))
    dit.link = file.link


def _digest(dit: AVFullDiT, without: Iterable[str]) -> str:
    state, without = hashlib.sha256(), set(without)
    for name, weight in sorted(dit.named_parameters()):
        if name not in without:
            head = weight.detach().flatten()[:_HEAD].to("cpu", torch.bfloat16).float()
            state.update(f"{name} {tuple(weight.shape)}".encode() + head.numpy().tobytes())
    return state.hexdigest()
