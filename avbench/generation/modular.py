"""Gives a modular pipeline of diffusers the form of the other pipelines: a class with a call.

A modular pipeline (``modular_model_index.json``) is made of blocks, which name its inputs and outputs. Here they become
the parameters of a class's call and the fields of what it returns, so that everything that reads those of a classic
pipeline reads these. Each part is loaded from the folder itself. Where diffusers' loader only warns that a part is
missing, the pipeline is refused.
"""

import inspect
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from avbench.core import InputError, first_line
from avbench.generation.diffusers_package import diffusers, silenced
from avbench.storage.reading import read_json

INDEX = "modular_model_index.json"
_NEEDED = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
"""Parts that no pipeline does without, if its blocks name them."""


class Modular:
    """A loaded modular pipeline; the subclass of `pipeline_class` adds the signature of its call."""

    folder: ClassVar[Path]
    outputs: ClassVar[tuple[str, ...]]
    guider_scale: ClassVar[float | None]
    """The guidance of its guider, which its call does not take."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_pipe"], name)

    def set_progress_bar_config(self, **config: Any) -> None:
        """Set it in the blocks at every depth; diffusers sets it in the outermost only."""
        waiting = [self._pipe._blocks]
        while waiting:
            block = waiting.pop()
            waiting += dict(getattr(block, "sub_blocks", None) or {}).values()
            if hasattr(block, "set_progress_bar_config"):
                block.set_progress_bar_config(**config)

    @classmethod
    def from_pretrained(cls, folder: str, *, dtype: Any, **options: Any) -> "Modular":
        """Load the parts that the folder's index names; `options` holds parts to take instead, and the loader's own.

        Raises:
            InputError: a part is missing in the index, or could not be loaded.
        """
        pipe = _opened(Path(folder))
        listed = parts_in(Path(folder))
        given = {name: options.pop(name) for name in [*options] if name in listed}
        names = [name for name in listed if name not in given]
        pipe.load_components(names, pretrained_model_name_or_path=folder, dtype=dtype, **options)
        pipe.update_components(**given)
        wanted = [*listed, *(name for name in _NEEDED if name in pipe._component_specs)]
        if missing := [name for name in wanted if getattr(pipe, name, None) is None]:
            why = "could not be loaded" if missing[0] in listed else f"is missing in its {INDEX}"
            msg = f"{folder}: its part {missing[0]} {why}"
            raise InputError(msg)
        return cls(pipe)


def pipeline_class(folder: Path) -> type:
    """The class of the modular pipeline in a folder, with the inputs of its blocks as parameters; no weight is read.

    Raises:
        InputError: its index names no part, or blocks that this diffusers does not know.
    """
    if not parts_in(folder):
        msg = f"{folder}: its {INDEX} names no part of the pipeline"
        raise InputError(msg)
    pipe = _opened(folder)
    kinds = inspect.Parameter
    inputs = {one.name: one.default for one in pipe.blocks.inputs if one.name}
    parameters = [kinds("self", kinds.POSITIONAL_ONLY)]
    parameters += [kinds(name, kinds.KEYWORD_ONLY, default=default) for name, default in inputs.items()]
    outputs = tuple(one.name for one in pipe.blocks.outputs)

    def call(self: Modular, **arguments: Any) -> SimpleNamespace:
        with silenced():  # it logs the traceback of every block that an error passes through
            state = self._pipe(**arguments)
        return SimpleNamespace(**{name: state.get(name) for name in outputs})

    call.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    scale = getattr(getattr(pipe, "guider", None), "config", {}).get("guidance_scale")
    fields = {"folder": folder, "outputs": outputs, "guider_scale": scale, "__call__": call}
    return type(type(pipe).__name__, (Modular,), fields)


def parts_in(folder: Path) -> dict[str, str]:
    """Part that the index of a modular pipeline names → its folder inside the pipeline's."""
    plain = read_json(folder / INDEX, dict)
    parts = {name: value for name, value in plain.items() if isinstance(value, list) and len(value) > 2 and value[1]}
    if wrong := [name for name, value in parts.items() if not isinstance(value[2], dict)]:
        msg = f"{folder / INDEX}: {wrong[0]} is {plain[wrong[0]]!r}; it must be a library, a class and an object"
        raise InputError(msg)
    return {name: str(value[2].get("subfolder") or name) for name, value in parts.items()}


def _opened(folder: Path) -> Any:
    guiders = logging.getLogger("diffusers.guiders.guider_utils")
    before, guiders.disabled = guiders.disabled, True  # it warns that guiders are experimental
    try:
        return diffusers().ModularPipeline.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, AttributeError, KeyError) as error:
        msg = f"{folder} cannot be opened as a modular pipeline: {first_line(error)}"
        raise InputError(msg) from None
    finally:
        guiders.disabled = before
