"""Stage 2: who makes clips. Adding a provider is one file and one row here.

A generator is a class built as ``Generator(target, **settings)`` from a model as it is typed,
``provider:target`` with ``-M name=value``. A clip depends on (prompt, seed) and the settings alone.
"""

import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avbench.core import Clip, ClipSpec, InputError, Key, Prompt, nearest, resolve
from avbench.recognise import recognise

GENERATORS: dict[str, str] = {
    "toyworld": "avbench.generators.toyworld:ToyWorld",
    "clips": "avbench.generators.clips:ClipsFolder",
    "avfulldit": "avbench.generators.avfulldit:AVFullDiT",
    "diffusers": "avbench.generators.diffusers.provider:Diffusers",
}
"""Provider → where it lives; imported when used."""


@dataclass(frozen=True)
class Request:
    """One clip to make."""

    key: Key
    prompt: Prompt
    clip_spec: ClipSpec | None
    """None where any form will do."""


@dataclass(frozen=True)
class Made:
    """A clip, or a finished file that is kept byte for byte; and the truth about it where it is known."""

    clip: Clip | Path
    truth: Mapping[str, Any] | None = None
    call: Mapping[str, Any] | None = None
    """What the model was asked, where that is not in the settings: sizes and counts as they were brought to fit."""


class Generator(typing.Protocol):
    """What sample.py asks of a generator.

    It may also have `prepare`, called once in each process before the first clip, and `most_workers`.
    """

    settings: Mapping[str, Any]
    """Everything that decides its clips besides prompt and seed, defaults included."""
    batch_size: int

    def generate(self, requests: Sequence[Request]) -> Sequence[Made]:
        """Make the clips of up to `batch_size` requests. Raises InputError with a sentence where it cannot."""
        ...

    def remarks(self, requests: Sequence[Request]) -> list[str]:
        """What the user should know before these are made, in sentences: for example files that match nothing."""
        ...


def build(model: str, settings: Mapping[str, Any]) -> Generator:
    """Build a generator from ``provider:target``.

    Raises:
        InputError: the provider or a setting is unknown, or the target is wrong.
    """
    provider, colon, target = model.partition(":")
    if not colon or provider not in GENERATORS:
        if Path(model).exists():
            seen = recognise(Path(model))
            if seen.model is None:
                msg = f"{model} is recognised as {seen.kind} ({seen.class_name}), which cannot be run"
                raise InputError(msg)
            return build(seen.model, settings)
        msg = f"model {model!r}: give provider:target; unknown provider, {nearest(provider, GENERATORS)}"
        raise InputError(msg)
    kind = resolve(GENERATORS[provider])
    known = [parameter for parameter in inspect.signature(kind).parameters if parameter != "target"]
    for setting in settings:
        if setting not in known:
            msg = f"{provider} has no setting {setting!r}; {nearest(setting, known)}"
            raise InputError(msg)
    return kind(target, **settings)


def run_name(model: str) -> str:
    """A short name for a model, fit for a folder: ``toyworld``, ``toyworld-frozen``, ``t2v``."""
    provider, colon, target = model.partition(":")
    if not colon:
        provider, target = "clips", model
    paths = ("clips", "diffusers")
    last = Path(target).name if provider in paths else target.replace("/", "-")
    name = last if provider in paths else "-".join(part for part in (provider, last) if part)
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name).strip(".-") or provider
