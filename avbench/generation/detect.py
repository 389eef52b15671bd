"""Detects what kind of model or clips a path holds, from its content.

A folder is identified by the files that declare its format, such as ``model_index.json``; a safetensors file by its
header; what a pipeline outputs (video, sound) by the fields of its class's output. No code of the model is run, and no
weight is read. The formats are those of diffusers 0.42.
"""

import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avbench.avfulldit import BUNDLED
from avbench.core import InputError, MediaError, digest, listed
from avbench.generation import modular
from avbench.generation.diffusers_package import class_named, diffusers
from avbench.storage.content import content_sha256
from avbench.storage.media import IMAGE_SUFFIXES, has_sound
from avbench.storage.media.clip_files import clips_in, visible_files
from avbench.storage.reading import opened, read_json, require_gguf, tensor_header

PICKLES = (".ckpt", ".bin", ".pt", ".pth")
"""Suffixes of pickled weights: loading them can run code, so the user has to allow it."""
_COUNTED = (
    *(".json", ".safetensors", ".gguf", ".model", ".txt", ".py", *PICKLES),
    *(".yaml", ".yml", ".toml", ".onnx", ".msgpack", ".npz", ".npy", ".h5", ".pkl", ".tiktoken", ".jinja"),
    *(".distcp", ".pt2", ".nemo", ".engine", ".plan"),
)
"""Suffixes of the files in a model's folder that affect its clips."""
_ADAPTERS = ("lora", "lokr_w", "hada_w", ".oft_", "dora_scale")
"""In the names of a LoRA's tensors, and of its relatives, whose tensors are then refused by name."""
_DIFFERENCES = (".diff", ".diff_b")
"""Ends of their names where a file holds the differences of whole weights."""
_OF_LORA = ("adapter_config.json", "pytorch_lora_weights.safetensors")
"""Files of which one makes a folder a LoRA's."""
_MODELS = "a diffusers pipeline, a part of one, a LoRA, .safetensors, .gguf, an AVFullDiT checkpoint, a folder of clips"


_INPUTS = (
    ("image", r"ImageToVideo|Image2Video|(?<!T)I2V|Cosmos2?VideoToWorld"),
    ("video", r"VideoToVideo|Upsample|Inpaint"),
    ("control_video", "Control"),
    ("conditioning_frames", "Control"),
    ("id_cond", "ConsisID"),
    ("id_vit_hidden", "ConsisID"),
)
"""Argument → class names of pipelines that need it although their signature makes it optional. TI2V needs none."""


@dataclass(frozen=True)
class Detected:
    """What was detected at a path."""

    path: Path
    kind: str
    """``pipeline``, ``custom pipeline``, ``modular pipeline``, ``component``, ``LoRA``, ``single file``, ``GGUF``,
    ``pickle``, ``AVFullDiT``, ``trained joint``, ``TangoFlux`` or ``clips``."""
    class_name: str | None = None
    """The model class that its files name."""
    makes: str = ""
    """``video`` or ``video + audio``; empty where that depends on the base pipeline, or no clip can be read."""
    needs: tuple[str, ...] = ()
    """What the user must give besides captions, in words."""
    model: str | None = None
    """``provider:target`` that runs it, or None."""


def detect(path: Path) -> Detected:
    """Detect what a path holds. Raises InputError if it does not exist or is of no known kind."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        msg = f"{path} does not exist"
        raise InputError(msg)
    model, base = f"diffusers:{path}", ("-M base=PIPELINE",)
    if path.suffix == ".safetensors":
        names = tensor_header(path)
        if str(_metadata(names).get("format")).startswith("avfulldit-joint-"):
            towers = (f"the two towers that it was trained on, as avfulldit:WAN+TANGOFLUX+{path}",)
            return Detected(path, "trained joint", "AVFullDiT", "video + audio", towers, None)
        return Detected(path, "LoRA" if _is_lora(names) else "single file", None, "", base, model)
    with opened(path) as file:
        is_gguf = file.read(4) == b"GGUF"
    if path.suffix == ".gguf":
        require_gguf(path)
        return Detected(path, "GGUF", None, "", base, model)
    if is_gguf:
        msg = f"{path} is a GGUF file; rename it to end in .gguf, because diffusers reads it by its suffix"
        raise InputError(msg)
    if path.suffix in PICKLES:
        return Detected(path, "pickle", None, "", (*base, "-M allow_pickle=true"), model)
    msg = f"{path} is no model: it is a file {path.suffix or 'without a suffix'}; what is recognised: {_MODELS}"
    raise InputError(msg)


def fingerprint(path: Path) -> dict[str, Any]:
    """Identify a model's files by content: a digest over the names and all bytes of the files, their count and size."""
    found = [path] if path.is_file() else sorted(one for one in visible_files(path) if one.suffix in _COUNTED)
    files = {one.relative_to(path).as_posix() if path.is_dir() else one.name: one for one in found}
    hashes = {name: content_sha256(file) for name, file in files.items()}
    total = sum(file.stat().st_size for file in files.values())
    return {"sha256": digest(hashes), "hashed": "every byte", "files": len(files), "bytes": total}


def index_of(folder: Path) -> dict[str, Any]:
    """Read a pipeline's ``model_index.json``, or a modular pipeline's index in the same form: library and class a part.

    Raises InputError if it is not an object that names a class.
    """
    if not is_modular(folder):
        return _index(folder / "model_index.json")
    plain = _index(folder / modular.INDEX)
    return {name: value[:2] if isinstance(value, list) else value for name, value in plain.items()}


def is_modular(folder: Path) -> bool:
    """Whether a folder holds a modular pipeline and no classic one."""
    return (folder / modular.INDEX).is_file() and not (folder / "model_index.json").is_file()


def output_fields(pipeline: type) -> set[str]:
    """Return the fields of a pipeline's output: those of the dataclasses that the code of its call names, or a modular
    pipeline's own list.
    """
    if outputs := getattr(pipeline, "outputs", None):
        return {*outputs}
    call = inspect.unwrap(pipeline.__call__)
    known = getattr(call, "__globals__", {})
    named = [known.get(name) for name in (call.__code__.co_names if known else ())]
    kinds = [kind for kind in named if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    return {field.name for kind in kinds for field in dataclasses.fields(kind)}


def makes(pipeline: type) -> str:
    """Return what a pipeline outputs: ``video``, ``video + audio``, or an empty string for neither."""
    found = output_fields(pipeline)
    if not found & {"frames", "video", "videos"}:
        return ""
    return "video + audio" if found & {"audio", "sound"} else "video"


def needs(pipeline: type) -> tuple[str, ...]:
    """Return the names of the arguments that a pipeline requires besides the caption."""
    arguments = inspect.signature(pipeline.__call__).parameters
    free = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    required = {
        name
        for name, one in arguments.items()
        if one.default is one.empty and one.kind not in free and name not in ("self", "prompt")
    }
    required |= {what for what, words in _INPUTS if what in arguments and re.search(words, pipeline.__name__)}
    return tuple(sorted(required))


def _folder(path: Path) -> Detected:
    model = f"diffusers:{path}"
    if (path / "model_index.json").is_file():
        name = index_of(path)["_class_name"]
        return _checked(path, "pipeline", known_class(path, name)) if isinstance(name, str) else _custom(path, name)
    if is_modular(path):
        kind = modular.pipeline_class(path)
        return _checked(path, "modular pipeline", kind)
    if any((path / name).is_file() for name in _OF_LORA):
        return Detected(path, "LoRA", None, "", ("-M base=PIPELINE",), model)
    if (path / "config.json").is_file():
        plain = read_json(path / "config.json", dict)
        if str(plain.get("format")).startswith("avfulldit-"):
            arms = ["video"] * ("video" in plain) + ["audio"] * ("audio" in plain)
            place = f"./{path}" if str(path) in BUNDLED else path  # the bare name is the bundled checkpoint's
            runs = f"avfulldit:{place}" if "video" in plain else None
            return Detected(path, "AVFullDiT", "AVFullDiT", " + ".join(arms), (), runs)
        if "audio_seq_len" in plain and (path / "tangoflux.safetensors").is_file():
            return Detected(path, "TangoFlux", None, "audio", (f"a Wan pipeline, as avfulldit:WAN+{path}",), None)
        if isinstance(plain.get("_class_name"), str):
            return Detected(path, "component", plain["_class_name"], "", ("-M base=PIPELINE",), model)
    if len(weights := [one for one in sorted(path.iterdir()) if one.suffix in (".safetensors", ".gguf")]) == 1:
        return detect(weights[0])
    found = clips_in(path)
    if not (found.clips or found.frames) and (inside := _models_inside(path)):
        one, base = inside[-1], "" if (inside[-1] / "model_index.json").is_file() else " with -M base=PIPELINE"
        shown = listed([part.relative_to(path).as_posix() for part in inside], 6)
        msg = f"{path} is no model, but holds {shown}: give {'it' if len(inside) == 1 else 'one'}, {one}{base}"
        raise InputError(msg)
    if found.clips or found.frames or any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir()):
        return Detected(path, "clips", None, _held([*found.clips, *found.frames]), (), f"clips:{path}")
    shown = listed(sorted(file.name for file in path.iterdir()), 6)
    msg = f"{path} is no model: found {shown or 'nothing in it'}; what is recognised: {_MODELS}"
    raise InputError(msg)


def _models_inside(path: Path) -> list[Path]:
    """The pipelines, parts and LoRAs in the folders of a training, such as ``checkpoint-500/transformer``.

    The last is that of the highest number, and there not an average (``transformer_ema``) if there is another.
    """

    def holds_model(folder: Path) -> bool:
        if any((folder / name).is_file() for name in ("model_index.json", *_OF_LORA)):
            return True
        with suppress(InputError):
            return "_class_name" in read_json(folder / "config.json", dict)
        return False

    def order(folder: Path) -> tuple[list[int], bool, str]:
        numbers = re.findall(r"\d+", folder.relative_to(path).parts[0])
        return [*map(int, numbers)], folder.name in ("transformer", "unet"), folder.name

    below = [one for one in path.iterdir() if one.is_dir() and not one.name.startswith(".")]
    found = [one for one in below if holds_model(one)]
    for one in below:
        if one not in found:
            found += [part for part in one.iterdir() if part.is_dir() and holds_model(part)]
    return sorted(found, key=order)


def _held(clips: Sequence[Path]) -> str:
    """What the first clip that can be read holds."""
    for clip in clips:
        with suppress(MediaError):
            return "video + audio" if has_sound(clip) else "video"
    return ""


def known_class(path: Path, name: str) -> type:
    """A pipeline's class of diffusers. Raises InputError if there is none of that name."""
    kind = class_named(name)
    if kind is None:
        msg = f"{path} is a pipeline of the class {name}, which diffusers {diffusers().__version__} does not know"
        raise InputError(msg)
    return kind


def _checked(path: Path, what: str, kind: type) -> Detected:
    made = makes(kind)
    if not made:
        msg = f"{path} is a {what} of class {kind.__name__}, which makes no video"
        raise InputError(msg)
    return Detected(path, what, kind.__name__, made, needs(kind), f"diffusers:{path}")


def _custom(path: Path, name: object) -> Detected:
    if not (isinstance(name, list) and len(name) == 2 and all(isinstance(part, str) for part in name)):
        msg = f"{path / 'model_index.json'}: _class_name is {name!r}; it must be a name, or a file and a name"
        raise InputError(msg)
    return Detected(path, "custom pipeline", name[1], "", ("-M trust_remote_code=true",), f"diffusers:{path}")


def _metadata(names: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metadata of a safetensors header."""
    found = names.get("__metadata__")
    return found if isinstance(found, Mapping) else {}


def _is_lora(names: Mapping[str, Any]) -> bool:
    return any(name.endswith(_DIFFERENCES) or any(part in name.lower() for part in _ADAPTERS) for name in names)


def _index(path: Path) -> dict[str, Any]:
    plain = read_json(path, dict)
    if "_class_name" not in plain:
        msg = f"{path} does not name a _class_name"
        raise InputError(msg)
    return plain
