"""Stage 2: who makes clips. Adding a provider is one file and one row here.

A generator is a class built as ``Generator(target, **settings)`` from a model as it is typed,
``provider:target`` with ``-M name=value``. A clip depends on (prompt, seed) and the settings alone.
"""

import inspect
import re
import typing
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any

from avbench.core import Clip, ClipSpec, InputError, Key, Prompt, checked_id, first_line, nearest, resolve
from avbench.generation.detect import detect
from avbench.generation.identity import identity

GENERATORS: dict[str, str] = {
    "toyworld": "avbench.generation.providers.toyworld:ToyWorld",
    "clips": "avbench.generation.providers.clips:ClipsFolder",
    "avfulldit": "avbench.generation.providers.avfulldit:AVFullDiT",
    "diffusers": "avbench.generation.providers.diffusers.provider:Diffusers",
    "videos-api": "avbench.generation.providers.videos_api:VideosAPI",
    "cmd": "avbench.generation.providers.cmd:Command",
    "python": "avbench.generation.providers.python:OwnModel",
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
    moved: bool = False
    """Whether a finished file may be moved away instead of copied."""


class Generator(typing.Protocol):
    """What sample.py asks of a generator.

    It may also have `prepare`, called once in each process before the first clip, and `most_workers`.

    One whose clips come from something that can change behind its name has `source`, which takes a request and returns
    what its clip would be taken from now: the sha256 of a file that is kept as it is, or other words that change with
    it; None where that cannot be told. It raises InputError where there is nothing any more. When a run is gone on
    with, a clip whose `source` is another one than it was is not taken for the same.

    One that waits for others instead of computing has `concurrency`: how many calls of `generate` may be under way at
    once, in threads of one process. One whose class takes a `journal` is given the folder, inside the run folder, for
    what must survive a kill.
    """

    settings: Mapping[str, Any]
    """Everything that decides its clips besides prompt and seed, defaults included."""
    batch_size: int

    def generate(self, requests: Sequence[Request]) -> Sequence[Made | InputError]:
        """Make the clips of up to `batch_size` requests, or return the error in a clip's place.

        Raises InputError with a sentence where it can make none; each is then asked for alone. Refused is a refusal.
        """
        ...

    def remarks(self, requests: Sequence[Request]) -> list[str]:
        """What the user should know before these are made, in sentences: for example files that match nothing."""
        ...


ENTRY_POINTS = "avbench.generators"
"""Group in which other packages name their providers; a row of GENERATORS of the same name comes first."""


def build(model: str, settings: Mapping[str, Any], journal: Path | None = None) -> Generator:
    """Build a generator from ``provider:target``.

    Args:
        model: as typed.
        settings: of the generator.
        journal: folder for what it has to keep, for a generator that asks for one.

    Raises:
        InputError: the provider or a setting is unknown, or the target is wrong.
    """
    provider, colon, target = model.partition(":")
    outside = {point.name: point for point in _outside()}
    if not colon or provider not in {*GENERATORS, *outside}:
        if Path(model).exists():
            seen = detect(Path(model))
            if seen.model is None:
                named = f" ({seen.class_name})" if seen.class_name else ""
                msg = (
                    f"{model} is a {seen.kind}{named}, which cannot be run by itself; it needs {', '.join(seen.needs)}"
                )
                raise InputError(msg)
            return build(seen.model, settings, journal)
        choices = nearest(provider, [*GENERATORS, *outside])
        msg = f"model {model!r}: give provider:target; unknown provider, {choices}"
        raise InputError(msg)
    kind = resolve(GENERATORS[provider]) if provider in GENERATORS else _loaded(outside[provider])
    asks = "journal" in check_settings(kind, settings, provider)
    return kind(target, **settings, **({"journal": journal} if asks else {}))


def outside_identity(model: str, generator: Generator, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of a provider that another package brings: what tells its code, and the files that it was given, by content."""
    provider, colon, target = model.partition(":")
    brought = colon and provider not in GENERATORS and provider in {point.name for point in _outside()}
    return identity(type(generator), [target, *settings.values()]) if brought else {}


def _outside() -> EntryPoints:
    return entry_points(group=ENTRY_POINTS)


def check_settings(kind: Callable, settings: Iterable[str], who: str) -> list[str]:
    """Return the names of a class's parameters. Raises InputError where it does not take a setting."""
    parameters = inspect.signature(kind).parameters
    known = [name for name in parameters if name not in ("target", "journal")]
    open_ended = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    for setting in settings:
        if setting not in known and not (open_ended and setting not in ("target", "journal")):
            msg = f"{who} has no setting {setting!r}; {nearest(setting, known)}"
            raise InputError(msg)
    return [*parameters]


def check_positive(**numbers: Any) -> None:
    """Raise InputError where a setting is not a number above 0."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
            msg = f"{name} is {number!r}; it must be a number above 0"
            raise InputError(msg)


def _loaded(point: EntryPoint) -> Callable:
    try:
        return point.load()
    except Exception as error:
        msg = f"the package that brings {point.name!r} ({point.value}) cannot be loaded: {first_line(error)}"
        raise InputError(msg) from error


def split_name(typed: str) -> tuple[str | None, str]:
    """``ours=clips:out/a`` → name and model; None and all of it where no name stands before it.

    Raises:
        InputError: the name cannot be that of a folder.
    """
    name, equals, rest = typed.partition("=")
    if not equals or not rest or not re.fullmatch(r"[\w.@ -]+", name) or Path(typed).exists():
        return None, typed
    return checked_id(name, "model name"), rest


def run_name(model: str) -> str:
    """A short name for a model, fit for a folder: ``toyworld``, ``toyworld-frozen``, ``t2v``."""
    provider, colon, target = model.partition(":")
    if not colon:
        provider, target = "clips", model
    paths = ("clips", "diffusers")
    if provider == "avfulldit" and "+" in target:
        target = "-".join(Path(part).stem for part in target.split("+"))
    last = Path(target).name if provider in paths else target.replace("/", "-")
    name = last if provider in paths else "-".join(part for part in (provider, last) if part)
    plain = [letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter)]  # é is e
    name = "".join(one if (one.isascii() and one.isalnum()) or one in "._-" else "-" for one in plain)
    return re.sub(r"-{2,}|\.{2,}", "-", name).strip(".-_")[:120] or provider
