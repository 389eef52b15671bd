"""Loads a pipeline: first its concrete class, then the parts that replace its own, then the whole.

`DiffusionPipeline.from_pretrained(base, transformer=mine)` silently drops `mine` if the class declares its transformer
optional, as Wan does. So the concrete class is called, and the result is checked for the given parts.
"""

import contextlib
import unittest.mock
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avbench.core import InputError, first_line, masked, nearest
from avbench.generation import modular
from avbench.generation.detect import PICKLES, Detected, is_modular, known_class
from avbench.generation.diffusers_package import class_named, diffusers, silenced
from avbench.generation.providers.diffusers import calling
from avbench.generation.providers.diffusers.adapters import DENOISERS, Adapter, apply
from avbench.generation.providers.diffusers.presets import part_config
from avbench.generation.settings import check_kinds
from avbench.storage.reading import exists
from avbench.storage.weights.downloads import hub_refusal, require_endpoint

_HUB_WEIGHTS = ("diffusion_pytorch_model*.safetensors", "pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_TILED_ONLY = ("AutoencoderKLAllegro",)
"""VAEs that decode nothing as a whole."""
_FLEX = ("AnyFlowFARTransformer3DModel",)
"""Transformers that need the kernels of flex attention; so do those whose config names the attention nabla."""
_DTYPES = ("float32", "bfloat16", "float16")
_CACHES = {"first-block": "FirstBlockCacheConfig"}


@dataclass(frozen=True)
class Source:
    """A pipeline's folder, and the parts and LoRAs to put into it."""

    folder: Path
    index: Mapping[str, Any]
    """Its ``model_index.json``."""
    pipeline: type
    part: Detected | None = None
    """The replacement of a part: a component's folder, or a file of weights."""
    slot: str | None = None
    """The part that is replaced."""
    adapters: tuple[Adapter, ...] = ()
    """LoRAs, added in this order."""
    trusted: bool = False
    """Whether code in the folder may be run."""
    variant: str | None = None
    """The word in the names of weights that exist in no other form, such as ``fp16`` in ``model.fp16.safetensors``."""


@dataclass(frozen=True)
class Held:
    """How the pipeline is held in memory and run; None leaves the choice to the device and the preset."""

    dtype: str | None = None
    vae_dtype: str | None = None
    device: str | None = None
    device_map: str | None = None
    offload: str | None = None
    attention: str | None = None
    compile: bool = False
    cache: str | None = None
    cache_threshold: float | None = None
    """Largest change of the first block's residual at which the other blocks are skipped."""
    vae_tiling: bool = False
    context_parallel: int = 1
    """Number of devices that share every clip's sequence."""


@dataclass(frozen=True)
class Placement(Held):
    """The same with everything chosen, and whether pickles may be read."""

    dtype: str = "float32"
    device: str = "cpu"
    cache_threshold: float = 0.05
    allow_pickle: bool = False


@dataclass(frozen=True)
class Sampler:
    """What is changed in the parts that guide the sampling; None leaves it as the checkpoint has it."""

    flow_shift: float | None = None
    """The scheduler's shift of noise levels."""
    guidance: float | None = None
    """The scale of the guider, in pipelines whose call takes none."""


def local_folder(target: str, revision: str | None, *, fetch: bool = True, given_as: str = "diffusers:") -> Path:
    """Return an existing path unchanged; else the path of a hub repository, from the cache or, if allowed, the hub.

    ``owner/name`` is a pipeline, or a part or LoRA under its usual file names; ``owner/name/FILE`` is one file.

    Args:
        target: the path or name.
        revision: of the repository.
        fetch: whether the hub is asked for what its cache lacks.
        given_as: what stands before the target where the user wrote it, for errors: ``-M lora=``.

    Raises:
        InputError: it is neither, or cannot be fetched; the message gives the hub's reason.
    """
    if exists(Path(target)):
        return Path(target)
    owner, _, rest = target.partition("/")
    name, _, file = rest.partition("/")
    if not name or target.startswith((".", "/")) or "" in target.split("/"):
        msg = (
            f"{given_as}{masked(target)} is neither a path nor a repository of the hub (owner/name, or owner/name/FILE)"
        )
        raise InputError(msg)
    require_endpoint()
    import huggingface_hub
    from huggingface_hub import constants  # the package alone does not load it

    offline = not fetch or constants.HF_HUB_OFFLINE
    asked: dict[str, Any] = {"revision": revision, "local_files_only": offline}
    try:
        if file:
            found = Path(huggingface_hub.hf_hub_download(f"{owner}/{name}", file, **asked))
            _fetch_config_beside(f"{owner}/{name}", file, asked)
            return found
        folder = Path(huggingface_hub.snapshot_download(target, allow_patterns=["*.json", "README.md"], **asked))
        if (folder / "model_index.json").is_file():
            asked["variant"] = None if offline else _variant_on_hub(target, revision)
            return Path(diffusers().DiffusionPipeline.download(target, trust_remote_code=False, **asked))
        if is_modular(folder):
            parts = [f"{part}/*" for part in modular.parts_in(folder).values()]
            return Path(huggingface_hub.snapshot_download(target, allow_patterns=["*.json", *parts], **asked))
        return Path(huggingface_hub.snapshot_download(target, allow_patterns=["*.json", *_HUB_WEIGHTS], **asked))
    except InputError:
        raise
    except Exception as error:  # the hub's client raises dozens of kinds, each with its reason
        why = hub_refusal("it", error) if fetch else "the hub's cache does not hold it"
        msg = f"{given_as}{target} is no path here, and {why} ({first_line(error)})"
        raise InputError(msg) from None


def _variant_on_hub(repository: str, revision: str | None) -> str | None:
    """The variant of a pipeline's weights that the hub has in no other form (see `variant_of_parts`)."""
    import huggingface_hub

    from avbench.storage.weights.filled import variant_among

    files = [Path(one.rfilename) for one in huggingface_hub.model_info(repository, revision=revision).siblings or ()]
    parts: dict[str, list[str]] = {}
    for file in files:
        if len(file.parts) == 2:
            parts.setdefault(file.parts[0], []).append(file.name)
    return _only_variant(
        {name: variant_among(names, f"{repository}/{name}") for name, names in parts.items()}, repository
    )


def _fetch_config_beside(repository: str, file: str, asked: Mapping[str, Any]) -> None:
    """Bring a LoRA's adapter_config.json, which may hold its strength, into the hub's cache; most files have none.

    Raises what the hub's client raises if it is not known whether there is one.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, RemoteEntryNotFoundError

    config = str(Path(file).with_name("adapter_config.json"))
    try:
        huggingface_hub.hf_hub_download(repository, config, **asked)
    except RemoteEntryNotFoundError:
        pass
    except EntryNotFoundError:  # not in the cache, and the hub could not be asked
        cached = huggingface_hub.try_to_load_from_cache(repository, config, revision=asked["revision"])
        if not asked["local_files_only"] and not cached:  # the cache also remembers which files do not exist
            raise


def parts_of(index: Mapping[str, Any]) -> dict[str, str]:
    """Part of a pipeline → the name of its class; parts that the pipeline leaves empty are left out."""
    named = {name: value for name, value in index.items() if isinstance(value, list) and not name.startswith("_")}
    if wrong := [name for name, value in named.items() if len(value) != 2]:
        msg = f"model_index.json: {wrong[0]} is {named[wrong[0]]!r}; it must be a library and a class"
        raise InputError(msg)
    return {name: str(kind) for name, (_, kind) in named.items() if kind}


def pipeline_class(folder: Path, index: Mapping[str, Any], *, trusted: bool) -> type:
    """The concrete class that an index names; code in the folder is run only if `trusted`.

    Raises:
        InputError: the class does not exist, or it is code in the folder and not trusted.
    """
    name = index["_class_name"]
    _check_libraries(folder, index, trusted=trusted)
    if is_modular(folder):
        return modular.pipeline_class(folder)
    if isinstance(name, str):
        return known_class(folder, name)
    file, class_name = name
    if not trusted:
        msg = f"{folder} holds its own code, {file}.py: read it, and give -M trust_remote_code=true if it may be run"
        raise InputError(msg)
    from diffusers.utils.dynamic_modules_utils import get_class_from_dynamic_module

    found: Any = get_class_from_dynamic_module(
        str(folder), module_file=f"{file}.py", class_name=class_name, local_files_only=True, trust_remote_code=True
    )
    return found


def _check_libraries(folder: Path, index: Mapping[str, Any], *, trusted: bool) -> None:
    """Raise InputError if a part is a class of any other library, because loading it runs that library's code."""
    for name in parts_of(index):
        library = str(index[name][0])
        known = library in ("diffusers", "transformers") or hasattr(diffusers().pipelines, library)
        if not known and not trusted:
            msg = (
                f"{folder}: its {name} is a class of {library}, which is neither diffusers nor transformers: give -M "
                "trust_remote_code=true if that code may be run"
            )
            raise InputError(msg)


def slot_of(index: Mapping[str, Any], part: Detected, asked: str | None) -> str:
    """The part of a pipeline that `part` replaces. Raises InputError if none fits, or several and none is chosen."""
    classes = parts_of(index)
    fitting = [
        name for name, kind in classes.items() if (kind == part.class_name if part.class_name else name in DENOISERS)
    ]
    if asked is not None:
        if asked not in (fitting if part.class_name else classes):
            msg = f"-M component={asked}: the base has no such part for {part.path}; {nearest(asked, fitting)}"
            raise InputError(msg)
        return asked
    if not fitting:
        parts = ", ".join(f"{name} {kind}" for name, kind in sorted(classes.items()))
        msg = f"{part.path} is a {part.class_name or part.kind}, and the base has no such part; it has {parts}"
        raise InputError(msg)
    if len(fitting) > 1:
        msg = f"{part.path} could be any of {', '.join(fitting)}: say which, for example -M component={fitting[0]}"
        raise InputError(msg)
    return fitting[0]


def refuse_pickles(paths: Sequence[Path]) -> None:
    """Raise InputError if weights exist only as a pickle."""
    for path in paths:
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix in PICKLES]
        for file in files:
            safe = any(file.parent.glob("*.safetensors")) or file.name in ("training_args.bin", "optimizer.bin")
            if file.suffix in PICKLES and (path.is_file() or not safe):  # a named file is the one that is read
                msg = (
                    f"{file} is a pickle, which can run code when it is read: give -M allow_pickle=true if you trust it"
                )
                raise InputError(msg)


def check_parts(folder: Path, index: Mapping[str, Any], replaced: str | None) -> None:
    """Check the files of a pipeline's parts, except of the one that is replaced; no weight is read.

    Raises:
        InputError: a part is missing, a config is no object, or a file of weights is damaged or cut short.
    """
    from avbench.storage.weights.filled import check_files

    places = modular.parts_in(folder) if is_modular(folder) else {name: name for name in parts_of(index)}
    for name, place in places.items():
        if name == replaced:
            continue
        if not (folder / place).is_dir():
            of = modular.INDEX if is_modular(folder) else "model_index.json"
            msg = (
                f"{folder}: its {of} names the part {name}, which is not in the folder; save the whole pipeline with "
                "save_pretrained, or copy it whole"
            )
            raise InputError(msg)
        check_files(folder / place)


def variant_of_parts(folder: Path, index: Mapping[str, Any], replaced: str | None, *, pickles: bool) -> str | None:
    """The variant in which weights of a pipeline have to be loaded, because parts of it have no others.

    diffusers then loads it for every part that has it. A modular pipeline's index names the variant of each part.

    Raises:
        InputError: parts exist in different variants only.
    """
    from avbench.storage.weights.filled import variant_of

    if is_modular(folder):
        return None
    found = {name: variant_of(folder / name, pickles=pickles) for name in parts_of(index) if name != replaced}
    return _only_variant(found, str(folder))


def _only_variant(found: Mapping[str, str | None], where: str) -> str | None:
    only = {variant: name for name, variant in found.items() if variant}
    if len(only) > 1:
        shown = ", ".join(f"{name} {variant}" for variant, name in only.items())
        msg = f"{where}: its parts exist in different variants only ({shown}), which cannot be loaded together"
        raise InputError(msg)
    return next(iter(only), None)


def check_seeds(source: Source, device: str) -> None:
    """Raise InputError if a pipeline cannot start from seeds that give the same noise on every device."""
    strict = source.pipeline.__name__ == "LTXImageToVideoPipeline" and device != "cpu"
    if strict and part_config(source.folder, "vae").get("timestep_conditioning"):
        msg = (
            f"{source.folder}: LTXImageToVideoPipeline draws noise for this VAE on the device itself, so on a GPU no "
            "clip can be made from a seed: write LTXConditionPipeline as _class_name into its model_index.json, or "
            "give -M device=cpu"
        )
        raise InputError(msg)


def longer_captions(source: Source, captions: Iterable[str], call: Mapping[str, Any]) -> list[str]:
    """Those of the captions that have more tokens than the pipeline reads, as far as that is known before it is loaded.

    Args:
        source: the pipeline.
        captions: as they are given to it.
        call: further arguments of the call.
    """
    import transformers

    place = source.folder / "tokenizer"
    if not place.is_dir():
        return []
    with _quiet():
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                place, local_files_only=True, trust_remote_code=False
            )
        except Exception:  # loading the pipeline gives the reason
            return []
        most = call.get("max_sequence_length") or calling.default(source.pipeline, "max_sequence_length")
        most = most or tokenizer.model_max_length
        return [caption for caption in captions if len(tokenizer(caption).input_ids) > most]


def load(source: Source, placement: Placement, sampler: Sampler) -> Any:
    """Load a pipeline, insert the parts that replace its own, and place it on its device.

    Raises:
        InputError: something cannot be loaded, or what was loaded differs from what was given.
    """
    with _quiet(), _telling(f"{source.folder} cannot be loaded as {source.pipeline.__name__}"):
        part = _part(source, placement) if source.part else None
        pipe = _pipeline(source, placement, {} if part is None else {str(source.slot): part})
        if part is not None and getattr(pipe, str(source.slot)) is not part:
            msg = f"{source.pipeline.__name__} did not take {source.part and source.part.path} as its {source.slot}"
            raise InputError(msg)
        _check_filled(pipe, source, pickles=placement.allow_pickle)
        apply(pipe, source.adapters)
        _place(pipe, placement)
        if sampler.guidance is not None:
            _put(pipe, guider=pipe.guider.new(guidance_scale=sampler.guidance))
    pipe.set_progress_bar_config(disable=True)
    if sampler.flow_shift is not None:
        field = shift_field(pipe.scheduler)
        changed = type(pipe.scheduler).from_config(pipe.scheduler.config, **{field: sampler.flow_shift})
        _put(pipe, scheduler=changed)
    return pipe


def _put(pipe: Any, **parts: Any) -> None:
    """Replace parts of a pipeline; a modular one has another name for it."""
    with silenced():
        (pipe.update_components if hasattr(pipe, "update_components") else pipe.register_modules)(**parts)


def own_scheduler(source: Source) -> Any:
    """The scheduler of a checkpoint, which has no weights; None if it has none, or one that is not of diffusers."""
    library, name = map(str, source.index.get("scheduler") or (None, None))
    if library != "diffusers" or (kind := class_named(name)) is None:
        return None
    with _quiet(), _telling(f"{source.folder / 'scheduler'} cannot be loaded as {name}"):
        return kind.from_pretrained(str(source.folder), subfolder="scheduler", local_files_only=True)


def shift_field(scheduler: Any) -> str:
    """The name that a scheduler gives its flow shift. Raises InputError if it has none or does not use it."""
    config = scheduler.config
    known = [name for name in ("flow_shift", "shift") if name in config]
    idle = known and (config.get("use_dynamic_shifting") or not config.get("use_flow_sigmas", True))
    if not known or idle:
        has = "has none" if not known else "does not use it: use_dynamic_shifting or use_flow_sigmas in its config"
        msg = f"flow_shift: {type(scheduler).__name__} {has}"
        raise InputError(msg)
    return known[0]


def _dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


def _pipeline(source: Source, placement: Placement, parts: Mapping[str, Any]) -> Any:
    dtype: Any = _dtype(placement.dtype)
    if placement.vae_dtype is not None and placement.vae_dtype != placement.dtype:
        dtype = {"vae": _dtype(placement.vae_dtype), "default": dtype}
    options: dict[str, Any] = {"device_map": placement.device_map} if placement.device_map else {}
    if not placement.allow_pickle:
        options["use_safetensors"] = True
    if source.variant is not None:
        options["variant"] = source.variant
    options |= {"local_files_only": True, "trust_remote_code": source.trusted}
    return source.pipeline.from_pretrained(str(source.folder), **parts, dtype=dtype, **options)


def _part(source: Source, placement: Placement) -> Any:
    part = source.part
    assert part is not None and source.slot is not None
    dtype = _dtype(placement.vae_dtype if source.slot == "vae" and placement.vae_dtype else placement.dtype)
    from avbench.generation.providers.diffusers.single_file import load_file
    from avbench.storage.weights.filled import variant_of

    library, name = source.index[source.slot]
    kind = class_named(name)
    if kind is None:
        msg = (
            f"{part.path}: the {source.slot} is a class of {library} ({name}); only parts of diffusers can be replaced"
        )
        raise InputError(msg)
    with _telling(f"{part.path} cannot be loaded as the {source.slot} ({name})"):
        if part.kind != "component":
            return load_file(kind, part, source.folder, source.slot, dtype)
        options: dict[str, Any] = {} if placement.allow_pickle else {"use_safetensors": True}
        options["variant"] = variant_of(part.path, pickles=placement.allow_pickle)
        return kind.from_pretrained(str(part.path), dtype=dtype, local_files_only=True, **options)


def _check_filled(pipe: Any, source: Source, *, pickles: bool) -> None:
    """Raise InputError if a network has a parameter without a value from a file, or a file has an unused tensor."""
    from torch import nn

    from avbench.storage.weights.filled import check_filled, variant_of

    places = modular.parts_in(source.folder) if is_modular(source.folder) else {}
    for name, network in pipe.components.items():
        if not isinstance(network, nn.Module):
            continue
        folder, variant = source.folder / (places[name] if name in places else name), source.variant
        if source.part is not None and name == source.slot:
            if source.part.kind != "component":
                continue  # checked when it was read
            folder, variant = source.part.path, None
        variant = variant or variant_of(folder, pickles=pickles)
        check_filled(network, folder, f"the {name} ({type(network).__name__})", variant)


def transformers_of(pipe: Any) -> list[Any]:
    """The transformers of a pipeline: one, two where noise levels are shared out between them, or none."""
    return [part for name in ("transformer", "transformer_2") if (part := getattr(pipe, name, None)) is not None]


def _place(pipe: Any, placement: Placement) -> None:
    dits = transformers_of(pipe)
    for setting, value, able in (
        ("attention", placement.attention, "set_attention_backend"),
        ("cache", placement.cache, "enable_cache"),
        ("compile", placement.compile, "compile_repeated_blocks"),
    ):
        if value and not any(hasattr(dit, able) for dit in dits):
            msg = f"-M {setting}={value}: {type(pipe).__name__} has no transformer that supports it"
            raise InputError(msg)
    for dit in dits:
        if hasattr(dit, "set_attention_backend"):  # always, because an earlier pipeline's choice would remain
            flex = type(dit).__name__ in _FLEX or dit.config.get("attention_type") == "nabla"
            with silenced(), _telling(f"-M attention={placement.attention}"):
                dit.set_attention_backend(placement.attention or ("flex" if flex else "native"))
        if placement.cache and hasattr(dit, "enable_cache"):
            dit.enable_cache(getattr(diffusers(), _CACHES[placement.cache])(placement.cache_threshold))
    if placement.vae_tiling or type(getattr(pipe, "vae", None)).__name__ in _TILED_ONLY:
        pipe.vae.enable_tiling()
    if placement.offload == "model":
        pipe.enable_model_cpu_offload(device=placement.device)
    elif placement.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=placement.device)
    elif placement.offload == "group":
        pipe.enable_group_offload(onload_device=placement.device, offload_type="leaf_level")
    elif not placement.device_map:
        pipe.to(placement.device)
    for dit in dits:
        if placement.compile:
            dit.compile_repeated_blocks(fullgraph=True)


def check_placement(placement: Placement) -> None:
    """Raise InputError on an invalid value, before anything is loaded."""
    from diffusers.models.attention_dispatch import AttentionBackendName
    from diffusers.pipelines.pipeline_utils import SUPPORTED_DEVICE_MAP

    kernels = [one.value for one in AttentionBackendName]
    for setting, value, known in (
        ("dtype", placement.dtype, _DTYPES),
        ("vae_dtype", placement.vae_dtype, _DTYPES),
        ("offload", placement.offload, ("model", "sequential", "group")),
        ("cache", placement.cache, tuple(_CACHES)),
        ("device_map", placement.device_map, tuple(dict.fromkeys(SUPPORTED_DEVICE_MAP))),
        ("attention", placement.attention, kernels),
    ):
        if value is not None and value not in known:
            msg = f"-M {setting}={value}: {nearest(str(value), known)}"
            raise InputError(msg)
    _check_device(placement.device)
    _check_ranks(placement)
    if placement.offload and placement.device == "cpu":
        msg = f"-M offload={placement.offload} moves parts between an accelerator and the CPU; there is only the CPU"
        raise InputError(msg)


def _check_device(name: str) -> None:
    import torch

    if name.startswith("cuda") and not torch.cuda.is_available():
        msg = f"-M device={name}: torch finds no GPU here"
        raise InputError(msg)
    try:
        torch.zeros(1, device=name).item()
    except Exception as error:  # each kind of device raises its own
        msg = f"-M device={name} cannot be used here; cpu, cuda and mps are usual ({first_line(error)})"
        raise InputError(msg) from None


def _check_ranks(placement: Placement) -> None:
    import torch

    count = placement.context_parallel
    check_kinds(vars(placement), counts=["context_parallel"])
    if count == 1:
        return
    for name in ("offload", "device_map", "compile"):
        if getattr(placement, name):
            msg = f"-M context_parallel={count} and -M {name}= cannot be combined"
            raise InputError(msg)
    if placement.device not in ("cpu", "cuda"):
        msg = f"-M context_parallel={count} needs devices of its own: give -M device=cuda, not {placement.device}"
        raise InputError(msg)
    if placement.device == "cuda" and torch.cuda.device_count() < count:
        msg = f"-M context_parallel={count}: torch finds {torch.cuda.device_count()} GPUs here"
        raise InputError(msg)


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # diffusers, transformers, torch and safetensors each raise their own errors
        from avbench.storage.weights.filled import load_reason

        msg = f"{what}: {load_reason(error)}"
        raise InputError(msg) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars, prompts at the keyboard, and warnings about what is checked here afterwards."""
    import transformers
    from transformers import dynamic_module_utils

    with contextlib.ExitStack() as stack:
        for logging in (diffusers().utils.logging, transformers.utils.logging):
            stack.callback(logging.set_verbosity, logging.get_verbosity())
            logging.set_verbosity_error()
            if logging.is_progress_bar_enabled():
                stack.callback(logging.enable_progress_bar)
                logging.disable_progress_bar()
        # without this, transformers would ask at the keyboard whether to run a folder's code
        stack.enter_context(unittest.mock.patch.object(dynamic_module_utils, "TIME_OUT_REMOTE_CODE", 0))
        yield
