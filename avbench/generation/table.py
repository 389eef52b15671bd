"""Lists the providers of generators and builds one from ``provider:target``. A new provider is one file and one row.

A generator is a class built as ``Generator(target, **settings)`` from what the user typed: ``provider:target`` with
``-M name=value``. A clip depends only on prompt, seed and settings.
"""

import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from avbench.core import Clip, ClipSpec, InputError, Key, Prompt, counted, nearest, resolve
from avbench.generation.detect import detect
from avbench.generation.identity import default_files, identity
from avbench.generation.settings import check_attributes, check_settings
from avbench.storage.media.clips_of_prompts import Rival
from avbench.storage.plug_ins import Found, PlugIn, failure, find
from avbench.storage.reading import exists
from avbench.storage.workers.contained import blamed_on, contained
from avbench.storage.workers.worker_pool import default_settings
from avbench.storage.workers.working_folder import WorkingFolder, after_import, working_folder_of

GENERATORS: dict[str, str] = {
    "toyworld": "avbench.generation.providers.toyworld:ToyWorld",
    "clips": "avbench.generation.providers.clips:ClipsFolder",
    "avfulldit": "avbench.generation.providers.avfulldit:AVFullDiT",
    "diffusers": "avbench.generation.providers.diffusers.provider:Diffusers",
    "fastvideo": "avbench.generation.providers.fastvideo:FastVideo",
    "videos-api": "avbench.generation.providers.videos_api:VideosAPI",
    "cmd": "avbench.generation.providers.cmd:Command",
    "python": "avbench.generation.providers.python:OwnModel",
}
"""Provider → ``module:class``, imported when used."""

TARGETS = {
    "clips": "FOLDER",
    "avfulldit": "NAME-OR-FOLDER",
    "diffusers": "PATH-OR-OWNER/NAME",
    "fastvideo": "PATH-OR-OWNER/NAME",
    "videos-api": "URL#MODEL",
    "cmd": "SCRIPT ARGS…",
    "python": "package.module:Class",
}
"""Provider → what stands after its colon, where something must."""


@dataclass(frozen=True)
class Request:
    """One clip to make."""

    key: Key
    prompt: Prompt
    clip_spec: ClipSpec | None
    """None if any size, length and rate is accepted."""
    rivals: Mapping[str, Rival] = field(default_factory=dict)
    """For a model of finished clips: the names that fit this request, but another prompt better, or as well."""


@dataclass(frozen=True)
class Made:
    """A clip, or a finished file that is kept byte for byte, with the ground truth if it is known."""

    clip: Clip | Path
    truth: Mapping[str, Any] | None = None
    call: Mapping[str, Any] | None = None
    """Arguments of the model's call that are not in the settings, such as sizes rounded to what the model can make."""
    moved: bool = False
    """Whether a finished file may be moved away instead of copied."""
    source: str | None = None
    """Where the clip came from, if that was found out before it was read; else `Generator.source` is asked after it."""
    fps: Fraction | None = None
    """The frame rate of a folder of frames, which has none. Such a folder is stored as a lossless video."""
    remark: str | None = None
    """What the user should know of the clip, besides the remarks of its reader."""
    requested: Mapping[str, Any] | None = None
    """The width, height, frames and fps that the model was asked for; a remark says where the clip has others."""

    def read(self) -> Clip:
        """The clip in memory. Raises MediaError if its file cannot be read."""
        from avbench.storage.media import read_clip

        return read_clip(self.clip, fps=self.fps) if isinstance(self.clip, Path) else self.clip


class Generator(typing.Protocol):
    """The interface of a generator. These attributes are optional:

    - `prepare()` is called once in each process before the first clip.
    - `batch_size` is the most requests that one call of `generate` takes; 1 where it is absent.
    - `remarks(requests)` returns sentences that the user should read before sampling, for example which files match no
      prompt.
    - `most_workers` is the largest number of worker processes that may run it; Ray's actors, which have a core or a GPU
      each, are not limited.
    - `concurrency` is the number of calls of `generate` that may run at once, in threads of one process; for a
      generator that waits for others instead of computing.
    - `finished` is True if the clips exist already. Then the first ones may be black.
    - `source(request)` is for clips that come from something that can change under the same name. It returns the
      present origin of the request's clip: the sha256 of a file that is kept byte for byte, or other text that changes
      with the origin; None if it is unknown. It raises InputError if the origin is gone. When a run is resumed, clips
      whose `source` has changed are reported.
    - `asked(request)` is for a generator that makes equal clips of equal requests, bit by bit. It returns everything of
      the request that decides the clip besides the clip spec, the seed included. A prompt of two subsets is then
      sampled once and copied.

    A class with many settings may take them as ``**settings`` and name dataclasses in `setting_groups`, whose fields
    are the settings (see `settings.grouped`). A class with a parameter `journal` gets a folder inside the run folder,
    for what must survive a kill. One of avbench's own whose building loads weights or runs the user's code has a
    static method `check` with the same arguments, which only looks for mistakes in them.
    """

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything besides prompt and seed that decides the clips, defaults included; mostly a plain attribute."""
        ...

    def generate(self, requests: Sequence[Request]) -> Iterable[Made | Clip | Path | InputError]:
        """Make the clips of up to `batch_size` requests; an error may be returned in place of a clip.

        avbench calls it by `made_by` only, which wraps a Clip and the Path of a finished file in a Made.

        Raises InputError if none can be made (each request is then tried alone), and Refused if the model refuses.
        """
        ...


def plug_ins() -> Found:
    """The providers of other packages."""
    return find("avbench.generators", GENERATORS)


@default_settings()
def build(model: str, settings: Mapping[str, Any], journal: Path | None = None) -> Generator:
    """Build a generator from ``provider:target``.

    Args:
        model: ``provider:target``, or a path whose content is detected.
        settings: settings of the generator.
        journal: folder for generators that keep files of their own.

    Raises:
        InputError: the provider or a setting is unknown, the target is wrong, or another package's class fails.
    """
    kind, target, parameters = known_as(model, settings)
    own = _left_by_import(model)
    try:
        with contained(own):
            generator: Any = kind(target, **settings, **({"journal": journal} if "journal" in parameters else {}))
    except InputError:
        raise
    except Exception as error:
        if (package := package_of(model)) is None:
            raise
        msg = f"model {model!r} {failure(package, error)}"
        raise InputError(msg) from error
    if package_of(model) is not None:
        name = f"{type(generator).__module__}.{type(generator).__qualname__}"
        for attribute in ("settings", "generate"):
            if not hasattr(generator, attribute):
                msg = f"model {model!r}: {name} is no generator, because it has no {attribute!r} (docs/your-model.md)"
                raise InputError(msg)
        check_attributes(generator, name)
    if own and not hasattr(generator, "working_folder"):
        with suppress(AttributeError):  # it takes no further attributes
            generator.working_folder = own
        concurrency = getattr(generator, "concurrency", None)
        if isinstance(concurrency, int) and concurrency > 1:
            own.share()
    return generator


@default_settings()
def check(model: str, settings: Mapping[str, Any]) -> None:
    """Look for mistakes in a model's settings, without loading its weights, so before other models are sampled.

    Of a class of the user or of another package only the names of its arguments are checked, because building it may
    take long.

    Raises:
        InputError: as `build`.
    """
    kind, target, _ = known_as(model, settings)
    if package_of(model) is None:
        if own := getattr(kind, "check", None):
            with contained():
                own(target, **settings)
        else:
            build(model, settings)


def known_as(model: str, settings: Iterable[str]) -> tuple[Callable[..., Generator], str, list[str]]:
    """The class of a model's generator, its target, and the names of the class's parameters; nothing is loaded.

    Raises:
        InputError: the provider or a setting is unknown, or nothing is named after the colon.
    """
    provider, colon, target = model.partition(":")
    outside = plug_ins().usable
    if not colon or provider not in {*GENERATORS, *outside}:
        if exists(Path(model)):
            seen = detect(Path(model))
            if seen.model is None:
                named = f" ({seen.class_name})" if seen.class_name else ""
                msg = (
                    f"{model} is a {seen.kind}{named}, which cannot be run by itself; it needs {', '.join(seen.needs)}"
                )
                raise InputError(msg)
            return known_as(seen.model, settings)
        unknown = f"give provider:target; unknown provider, {nearest(provider, [*GENERATORS, *outside])}"
        if provider in {*GENERATORS, *outside}:
            whole = f"{provider}:{TARGETS.get(provider, '')}"
            unknown = f"there is no file or folder of that name; for the provider write {whole}"
        elif not colon:
            unknown += "; and there is no file or folder of that name"
        msg = f"model {model!r}: {plug_ins().problems.get(provider, unknown)}"
        raise InputError(msg)
    if not target.strip() and (target or provider in TARGETS) and provider in GENERATORS:
        msg = f"model {model!r} names nothing after the colon; write {provider}:{TARGETS.get(provider, '')}"
        raise InputError(msg)
    kind = resolve(GENERATORS[provider]) if provider in GENERATORS else _loaded(outside[provider])
    return kind, target, check_settings(kind, settings, provider)


def _loaded(plug_in: PlugIn) -> Callable[..., Generator]:
    folder = WorkingFolder()
    kind: Callable[..., Generator] = plug_in.load(folder=folder)
    if not callable(kind):
        raise InputError(plug_in.unusable(f"it is not a class but a {type(kind).__name__}"))
    after_import(sys.modules[plug_in.point.module], folder)
    return kind


def _left_by_import(model: str) -> WorkingFolder | None:
    """The working folder of a plug-in's code, which is loaded; None for avbench's own generators."""
    plug_in = plug_ins().usable.get(model.partition(":")[0])
    module = plug_in and sys.modules.get(plug_in.point.module)
    return after_import(module, WorkingFolder()) if module else None


def ready(build: Callable[[], Generator]) -> Generator:
    """Build a generator and prepare it for its first clip."""
    with contained():
        generator = build()
    if prepare := method_of(generator, "prepare"):
        prepare()
    return generator


def method_of(generator: Generator, name: str) -> Callable[..., Any] | None:
    """An optional method of a generator, `contained`; None if it has none.

    It raises InputError that names the class in place of an error in the code of a user or of a package.
    """
    method, kind = getattr(generator, name, None), type(generator)
    if method is None:
        return None
    of_avbench = kind.__module__.startswith("avbench.")

    def called(*given: Any) -> Any:
        whose = nullcontext() if of_avbench else blamed_on(f"{name} of {kind.__module__}.{kind.__qualname__}")
        with whose, contained(working_folder_of(generator)):
            return method(*given)

    return called


def made_by(generator: Generator, requests: Sequence[Request]) -> list[Made | Exception]:
    """Call `generate`, and return for each request what it made, or an error.

    Raises:
        InputError: it did not return one result for each request.
    """
    folder = working_folder_of(generator)
    with contained(folder):
        made = generator.generate(requests)
        if not isinstance(made, Iterable):
            msg = f"generate returned a {type(made).__name__}; it must return a list with one result for each request"
            raise InputError(msg)
        made = [*made] if isinstance(made, list | tuple) else [_own(one) for one in made]
    if len(made) != len(requests):
        msg = f"generate returned {counted(len(made), 'clip')} for {counted(len(requests), 'request')}"
        raise InputError(msg)
    return [_wrapped(one, folder) for one in made]


def _own(made: Any) -> Any:
    """What `generate` yielded, with its own pixels and samples: the next clip may be written into the same arrays."""
    if isinstance(made, Made):
        return replace(made, clip=_own(made.clip))
    if not isinstance(made, Clip):
        return made
    sound = made.audio and replace(made.audio, waveform=made.audio.waveform.copy())
    return replace(made, frames=made.frames.copy(), audio=sound)


def _wrapped(made: Any, folder: WorkingFolder) -> Made | Exception:
    made = Made(made) if isinstance(made, Clip | Path) else made
    if isinstance(made, Made) and isinstance(made.clip, Path):
        made = replace(made, clip=folder.placed(made.clip))
    if isinstance(made, Made | Exception):
        return made
    return InputError(f"the model returned a {type(made).__name__}; it must return a Clip, a Made or a Path")


def outside_identity(model: str, generator: Generator, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Identify the code and the input files of another package's provider by content; empty for avbench's own."""
    if package_of(model) is None:
        return {}
    kind, target = type(generator), model.partition(":")[2]
    return identity(kind, [target, *settings.values(), *default_files(kind, settings)])


def package_of(model: str) -> str | None:
    """Name and version of the package that adds a model's provider; None of avbench's own."""
    provider, colon, _ = model.partition(":")
    plug_in = plug_ins().usable.get(provider) if colon else None
    return plug_in and plug_in.package
